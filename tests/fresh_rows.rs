//! Rows that are inserted above all others: no trigger records them, and each is sealed once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{World, carry, carry_all, digests_equal, per_device, rows, sql};
use packmule::{Engine, Policy, TrackOptions};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";

fn device(world: &World, name: &str) -> Engine {
    world.board_with(name, TABLE, &["t"])
}

/// Two devices that have met.
fn met() -> (World, Engine, Engine) {
    let world = World::new();
    let (mut a, mut b) = (device(&world, "a"), device(&world, "b"));
    carry_all(&mut [&mut a, &mut b]);
    (world, a, b)
}

/// Inserts rows with these ids.
fn insert(engine: &Engine, first: i64, last: i64) {
    sql(
        engine,
        &format!(
            "WITH n (i) AS (VALUES ({first}) UNION ALL SELECT i + 1 FROM n WHERE i < {last}) INSERT INTO t SELECT i, i FROM n"
        ),
    );
}

fn listed(engine: &Engine) -> String {
    rows(engine, "SELECT count(*) FROM _pm_dirty_1").remove(0)
}

#[test]
fn new_rows_are_in_no_list_and_sealed_once() {
    let (_world, mut a, mut b) = met();
    for round in 0..3 {
        insert(&a, round * 101 + 1, round * 101 + 100);
        assert_eq!(listed(&a), "0");
        assert_eq!(a.status().unwrap().tables[0].unsealed, 100);
        assert_eq!(a.seal().unwrap().ops, 100);
        assert_eq!(a.status().unwrap().tables[0].unsealed, 0);
        assert_eq!(a.seal().unwrap().ops, 0, "once");
        assert_eq!(carry(&mut a, &mut b).ops, 100);
        assert_eq!(b.seal().unwrap().ops, 0, "not again where they came");
        insert(&b, round * 101 + 101, round * 101 + 101);
        assert_eq!(carry(&mut b, &mut a).ops, 1);
        assert_eq!(a.seal().unwrap().ops, 0);
        digests_equal(&[&a, &b]);
    }
}

#[test]
fn a_row_below_the_mark_is_recorded() {
    let (_world, mut a, mut b) = met();
    insert(&a, 10, 20);
    carry(&mut a, &mut b);
    sql(
        &a,
        "DELETE FROM t WHERE id = 20; INSERT INTO t VALUES (5, 'below'), (-3, 'far below'), (NULL, 'again the last')",
    );
    assert_eq!(rows(&a, "SELECT k1, note FROM _pm_dirty_1 ORDER BY rowid"), ["20|8", "5|1", "-3|1", "20|1"]);
    assert_eq!(carry(&mut a, &mut b).ops, 3);
    digests_equal(&[&a, &b]);
    // The last row of all: nothing can come after it.
    sql(&a, "INSERT INTO t VALUES (9223372036854775807, 'the last')");
    carry(&mut a, &mut b);
    assert_eq!(a.seal().unwrap().ops, 0);
    sql(&a, "INSERT INTO t VALUES (6, 'after the last')");
    assert_eq!(carry(&mut a, &mut b).ops, 1);
    digests_equal(&[&a, &b]);
}

#[test]
fn what_happens_to_a_new_row_before_the_seal_is_in_its_one_op() {
    let (_world, mut a, mut b) = met();
    insert(&a, 1, 3);
    carry(&mut a, &mut b);
    insert(&a, 4, 9);
    sql(
        &a,
        "UPDATE t SET v = 'changed' WHERE id >= 3; DELETE FROM t WHERE id IN (2, 5, 9); UPDATE t SET id = 50 WHERE id = 1",
    );
    sql(&a, "REPLACE INTO t VALUES (6, 'replaced'), (3, 'replaced'); UPDATE t SET id = 1 WHERE id = 7");
    // 3 is updated, 1 another row, 2 gone, 4, 6, 8 and 50 are new; 5, 7 and 9 have come and gone.
    assert_eq!(a.seal().unwrap().ops, 10);
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT id FROM t ORDER BY id"), ["1", "3", "4", "6", "8", "50"]);
    digests_equal(&[&a, &b]);
}

#[test]
fn two_devices_that_add_the_same_ids_have_conflicts() {
    let (_world, mut a, mut b) = met();
    insert(&a, 1, 5);
    sql(&b, "INSERT INTO t VALUES (4, 'of b'), (5, 5), (6, 'of b')");
    carry(&mut a, &mut b);
    carry(&mut b, &mut a);
    carry(&mut a, &mut b);
    assert_eq!(a.conflicts().unwrap().len(), 1, "row 5 is the same");
    assert_eq!(b.conflicts().unwrap().len(), 1);
    assert_eq!((a.seal().unwrap().ops, b.seal().unwrap().ops), (0, 0));
    digests_equal(&[&a, &b]);
}

#[test]
fn a_migration_before_the_seal_loses_no_new_row() {
    let migrations = [
        "ALTER TABLE t ADD COLUMN w DEFAULT 7",
        "ALTER TABLE t RENAME COLUMN v TO value",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, v); INSERT INTO new SELECT * FROM t; DROP TABLE t; ALTER TABLE new RENAME TO t",
        "CREATE UNIQUE INDEX u ON t (v)",
    ];
    for migration in migrations {
        let (_world, mut a, mut b) = met();
        insert(&a, 1, 5);
        carry(&mut a, &mut b);
        insert(&a, 6, 9);
        sql(&a, migration);
        sql(&b, migration);
        if !migration.contains("COLUMN w") {
            insert(&a, 10, 12);
        } else {
            sql(&a, "INSERT INTO t VALUES (10, 10, 1), (11, 11, 7), (12, 12, NULL)");
        }
        // Each hears that the other has done the same.
        for _ in 0..2 {
            carry_all(&mut [&mut a, &mut b]);
        }
        assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["12"], "{migration}");
        digests_equal(&[&a, &b]);
        assert!(a.conflicts().unwrap().is_empty());
    }
}

#[test]
fn a_table_that_is_held_or_let_go_loses_no_new_row() {
    let (_world, mut a, mut b) = met();
    insert(&a, 1, 3);
    carry(&mut a, &mut b);
    insert(&a, 4, 6);
    sql(&a, "ALTER TABLE t RENAME TO elsewhere");
    a.seal().unwrap();
    sql(
        &a,
        "INSERT INTO elsewhere VALUES (7, 7); ALTER TABLE elsewhere RENAME TO t; INSERT INTO t VALUES (8, 8)",
    );
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["8"]);
    // Held, since nobody can say what its key is.
    sql(&a, "ALTER TABLE t RENAME COLUMN id TO ident; INSERT INTO t VALUES (9, 9)");
    a.seal().unwrap();
    sql(&a, "INSERT INTO t VALUES (10, 10); ALTER TABLE t RENAME COLUMN ident TO id");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["10"]);
    a.untrack("t").unwrap();
    insert(&a, 11, 12);
    a.track("t", &TrackOptions::default()).unwrap();
    insert(&a, 13, 13);
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["13"]);
    assert_eq!(b.seal().unwrap().ops, 0);
    digests_equal(&[&a, &b]);
}

/// The other ways of capture: where an entry says more than that a row is new, every row has one.
#[test]
fn where_the_time_of_a_write_counts_every_row_is_recorded() {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, TABLE);
    a.track("t", &TrackOptions { policy: Policy::Lww, ..TrackOptions::default() }).unwrap();
    insert(&a, 1, 3);
    assert_eq!(listed(&a), "3");
    let mut own = world.board("own");
    sql(&own, TABLE);
    own.track("t", &per_device()).unwrap();
    insert(&own, 1, 3);
    assert_eq!(listed(&own), "0");
    assert_eq!((a.seal().unwrap().ops, own.seal().unwrap().ops), (3, 3));
}
