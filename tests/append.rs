//! Append tables: inserts run no trigger, and nothing that happens to a row is left behind without a word.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{Engine, Keep, TrackOptions};

const READINGS: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value REAL)";

/// A board with an append table of three readings, and a base that has them.
fn two(options: &TrackOptions) -> (World, Engine, Engine) {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, READINGS);
    a.track("readings", options).unwrap();
    sql(&a, "INSERT INTO readings (value) VALUES (1), (2), (3)");
    let mut base = world.base("base");
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    (world, a, base)
}

fn same(a: &mut Engine, base: &mut Engine) {
    carry(a, base);
    let all = "SELECT id, value FROM readings ORDER BY id";
    assert_eq!(rows(a, all), rows(base, all));
    assert_eq!(a.seal().unwrap().ops, 0, "all of it is sealed");
}

fn not_sent(engine: &Engine) -> Vec<(u64, String)> {
    engine.not_sent().unwrap().into_iter().map(|what| (what.rows, what.to_string())).collect()
}

#[test]
fn inserts_run_no_trigger() {
    let (_world, a, _base) = two(&append());
    let on =
        rows(&a, "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'readings'").concat();
    assert!(!on.contains("INSERT ON"), "{on}");
}

#[test]
fn rows_below_the_mark_are_carried() {
    let (_world, mut a, mut base) = two(&append());
    // A jump, which leaves ids free, then rows in the gap, before all others, and with a negative id.
    sql(&a, "INSERT INTO readings VALUES (100, 100)");
    same(&mut a, &mut base);
    sql(&a, "INSERT INTO readings VALUES (50, 50), (-7, 0.5)");
    same(&mut a, &mut base);
    sql(&a, "INSERT INTO readings VALUES (49, 49), (51, 51), (99, 99), (-8, 0.25)");
    same(&mut a, &mut base);
    sql(&a, "INSERT INTO readings (value) VALUES (101)");
    same(&mut a, &mut base);
    assert_eq!(not_sent(&a), []);
}

#[test]
fn updates_are_carried_and_deletes_are_named() {
    let (_world, mut a, mut base) = two(&append());
    sql(&a, "UPDATE readings SET value = 20 WHERE id = 2; UPDATE readings SET id = 9 WHERE id = 3");
    carry(&mut a, &mut base);
    assert_eq!(
        rows(&base, "SELECT id, value FROM readings ORDER BY id"),
        ["1|1.0r", "2|20.0r", "3|3.0r", "9|3.0r"]
    );
    assert_eq!(not_sent(&a)[0].0, 1, "the old id is gone here alone");
    sql(&a, "DELETE FROM readings WHERE id <= 2");
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT count(*) FROM readings"), ["4"]);
    let told = not_sent(&a);
    assert!(told.len() == 1 && told[0].0 == 3 && told[0].1.contains("`readings`"), "{told:?}");
    // A row that is written and deleted before it was sealed was nowhere.
    sql(&a, "INSERT INTO readings (value) VALUES (5); DELETE FROM readings WHERE value = 5");
    a.seal().unwrap();
    assert_eq!(not_sent(&a), told);
    // An id that is taken again is another content of the same row.
    sql(&a, "INSERT INTO readings VALUES (1, 11)");
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT value FROM readings WHERE id = 1"), ["11.0r"]);
}

#[test]
fn deletes_are_carried_where_a_person_says_so() {
    let (_world, mut a, mut base) = two(&TrackOptions { carry_deletes: true, ..append() });
    sql(&a, "DELETE FROM readings WHERE id <> 2");
    same(&mut a, &mut base);
    assert_eq!(not_sent(&a), []);
    a.track("readings", &append()).unwrap();
    sql(&a, "DELETE FROM readings");
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT id FROM readings"), ["2"]);
}

#[test]
fn ids_that_start_again_are_carried() {
    for again in [
        "DELETE FROM readings; DELETE FROM sqlite_sequence",
        &format!("DROP TABLE readings; {READINGS}"),
        &format!("ALTER TABLE readings RENAME TO old; {READINGS}; DROP TABLE old"),
    ] {
        for between in [false, true] {
            let (_world, mut a, mut base) = two(&append());
            sql(&a, again);
            if between && !again.contains("CREATE") {
                carry(&mut a, &mut base);
            }
            sql(&a, "INSERT INTO readings (value) VALUES (100), (101)");
            carry(&mut a, &mut base);
            let all = "SELECT id, value FROM readings WHERE value >= 100 ORDER BY id";
            assert_eq!(rows(&base, all), ["1|100.0r", "2|101.0r"], "{again} {between}");
            sql(&a, "INSERT INTO readings (value) VALUES (102), (103), (104)");
            carry(&mut a, &mut base);
            assert_eq!(rows(&base, all), rows(&a, all), "{again} {between}");
            assert_eq!(a.seal().unwrap().ops, 0);
        }
    }
}

#[test]
fn pruning_deletes_what_a_base_has_and_nothing_else() {
    let (world, mut a, mut base) = two(&append());
    let many =
        "INSERT INTO readings (value) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        SELECT i FROM n";
    sql(&a, many);
    // The base has the first three alone.
    let report = a.prune("readings", Keep::Rows(10)).unwrap();
    assert_eq!((report.rows, report.rows_left, report.unacknowledged), (3, 2000, 2000));
    assert!(report.base.unwrap().contains("base"));
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    world.tick(3_600_000 * 5);
    sql(&a, "INSERT INTO readings (value) VALUES (7)");
    assert_eq!(a.prune("readings", Keep::Recent(3_600_000)).unwrap().rows, 2000);
    assert_eq!(rows(&a, "SELECT value FROM readings"), ["7.0r"]);
    same_at_base(&mut a, &mut base, 2004);
    assert_eq!(not_sent(&a), [], "what is pruned is elsewhere, as it is to be");
    // Ids below the mark that pruning has freed can be taken again.
    sql(&a, "INSERT INTO readings VALUES (5, 55)");
    carry(&mut a, &mut base);
    assert_eq!(rows(&base, "SELECT value FROM readings WHERE id = 5"), ["55.0r"]);
    // Without a base that counts nothing goes.
    carry(&mut base, &mut a);
    a.retire(base.identity().id, None).unwrap();
    let report = a.prune("readings", Keep::Rows(0)).unwrap();
    assert_eq!((report.rows, report.base), (0, None));
    assert!(a.prune("none", Keep::Rows(0)).is_err());
}

fn same_at_base(a: &mut Engine, base: &mut Engine, rows_there: usize) {
    carry(a, base);
    assert_eq!(rows(base, "SELECT count(*) FROM readings"), [rows_there.to_string()]);
}

/// What triggers of the application do while rows are pruned is what an application wrote.
#[test]
fn what_triggers_write_while_rows_are_pruned_is_sealed() {
    let (_world, mut a, mut base) = two(&append());
    let many = "INSERT INTO readings (value) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) SELECT i FROM n";
    sql(&a, many);
    sql(
        &a,
        "CREATE TRIGGER total AFTER DELETE ON readings BEGIN
           UPDATE readings SET value = value + OLD.value WHERE id = 1203;
           INSERT INTO readings (value) SELECT -1 WHERE OLD.id = 50;
           INSERT INTO readings (id, value) SELECT 3, -3 WHERE OLD.id = 600;
           INSERT INTO readings (id, value) SELECT 700, -7 WHERE OLD.id = 700;
         END;",
    );
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    assert_eq!(a.prune("readings", Keep::Rows(1)).unwrap().rows, 1202);
    let here = rows(&a, "SELECT id, value FROM readings ORDER BY id");
    let sum = 1200.0 + (1..1200).sum::<u32>() as f64 + 6.0;
    assert_eq!(here, ["3|-3.0r", "700|-7.0r", &format!("1203|{sum:?}r"), "1204|-1.0r"]);
    carry(&mut a, &mut base);
    assert_eq!(
        rows(&base, "SELECT id, value FROM readings WHERE id IN (3, 700, 1203, 1204) ORDER BY id"),
        here
    );
    assert_eq!(rows(&base, "SELECT count(*) FROM readings"), ["1204"]);
    assert_eq!(a.seal().unwrap().ops, 0);
}

/// An id that a delete frees is known from the delete: no seal walks through the table for it.
#[test]
fn ids_that_deletes_free_are_noted_one_by_one() {
    for carry_deletes in [false, true] {
        let (_world, mut a, mut base) = two(&TrackOptions { carry_deletes, ..append() });
        sql(
            &a,
            "INSERT INTO readings (value) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n",
        );
        a.seal().unwrap();
        let gaps = "SELECT first, last FROM _pm_gap WHERE first > 0 ORDER BY first";
        // A seal that looks for the free ids again would find that this one is free too.
        sql(
            &a,
            "CREATE TABLE kept AS SELECT * FROM readings WHERE id = 4000; DELETE FROM _pm_gap WHERE first > 0",
        );
        sql(&a, "DELETE FROM readings WHERE id IN (10, 12, 13, 20)");
        a.seal().unwrap();
        assert_eq!(rows(&a, gaps), ["10|10", "12|13", "20|20"]);
        sql(&a, "DELETE FROM readings WHERE id IN (11, 14, 9, 5003)");
        a.seal().unwrap();
        assert_eq!(rows(&a, gaps), ["9|14", "20|20", "5003|5003"]);
        assert_eq!(rows(&a, "SELECT gaps FROM _pm_table"), ["1"]);
        // What comes there is seen.
        sql(&a, "INSERT INTO readings VALUES (12, 0.5), (20, 0.25), (5003, 0.125)");
        carry(&mut a, &mut base);
        assert_eq!(
            rows(&base, "SELECT id, value FROM readings WHERE id IN (12, 20, 5003) ORDER BY id"),
            ["12|0.5r", "20|0.25r", "5003|0.125r"]
        );
        // Of many, the widest are looked into.
        sql(&a, "DELETE FROM readings WHERE id % 3 = 1 AND id > 50");
        a.seal().unwrap();
        let n: u32 = rows(&a, "SELECT count(*) FROM _pm_gap")[0].parse().unwrap();
        assert!((900..=2_001).contains(&n), "{n}");
        sql(&a, "INSERT INTO readings VALUES (-7, 7)");
        carry(&mut a, &mut base);
        assert_eq!(rows(&base, "SELECT value FROM readings WHERE id = -7"), ["7.0r"]);
    }
}

#[test]
fn pruning_to_free_room() {
    let (_world, mut a, mut base) = two(&append());
    sql(
        &a,
        "INSERT INTO readings (value) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n",
    );
    carry(&mut a, &mut base);
    carry(&mut base, &mut a);
    let report = a.prune("readings", Keep::Free(100_000)).unwrap();
    assert!(report.rows > 1_000 && report.rows_left > 1_000, "{report:?}");
    assert_eq!(rows(&a, "SELECT min(value) > 1000 FROM readings"), ["1"], "the oldest go first");
}

/// Rows of others in a shared append table are not taken for this device's own: by frames, by a state, by a snapshot.
#[test]
fn what_others_appended_is_not_sealed_again() {
    let world = World::new();
    let table = "CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, v)";
    let options = TrackOptions { append: true, ids_shared: true, ..TrackOptions::default() };
    let device = |name: &str, base: bool| {
        let mut device = if base { world.base(name) } else { world.board(name) };
        sql(&device, table);
        device.track("r", &options).unwrap();
        device
    };
    let (mut a, mut base) = (device("a", false), device("base", true));
    sql(&a, "INSERT INTO r (v) VALUES (1), (2), (3)");
    carry_all(&mut [&mut a, &mut base]);
    assert_eq!(base.seal().unwrap().ops, 0, "by frames");
    carry_all(&mut [&mut a, &mut base]);
    base.compact().unwrap();
    let mut late = device("late", false);
    carry_all(&mut [&mut late, &mut base]);
    assert_eq!(rows(&late, "SELECT v FROM r ORDER BY id"), ["1", "2", "3"]);
    assert_eq!(late.seal().unwrap().ops, 0, "by a state");
    assert_eq!(rows(&late, &format!("SELECT count(*) FROM {HEADS}")), ["0"]);
    // Its own are.
    sql(&late, "INSERT INTO r (v) VALUES (4)");
    assert_eq!(late.seal().unwrap().ops, 1);
    carry_all(&mut [&mut a, &mut base, &mut late]);
    assert_eq!(rows(&a, "SELECT v FROM r ORDER BY id"), ["1", "2", "3", "4"]);
    digests_equal(&[&a, &base, &late]);
}

/// An application that takes every other id leaves a range of free ids for each row. So many are kept of a table, however
/// often it is sealed, and a row that comes into the widest of them is still carried.
#[test]
fn ranges_of_free_ids_are_bounded_by_table() {
    let world = World::new();
    let mut a = world.board("a");
    sql(
        &a,
        "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO log VALUES (500, 'first')",
    );
    a.track("log", &append()).unwrap();
    for n in 0..6 {
        let from = 1_000 + n * 1_600;
        sql(
            &a,
            &format!(
                "WITH RECURSIVE c (id) AS (VALUES ({from}) UNION ALL SELECT id + 2 FROM c WHERE id < {from} + 1596)
                 INSERT INTO log SELECT id, 'skips' FROM c"
            ),
        );
        a.seal().unwrap();
    }
    let ranges: u64 = rows(&a, "SELECT count(*) FROM _pm_gap")[0].parse().unwrap();
    assert!((1_000..=2_000).contains(&ranges), "{ranges}");
    sql(&a, "INSERT INTO log VALUES (3, 'below')");
    assert_eq!(a.seal().unwrap().ops, 1);
}

/// A seal's part in a shared append table waits at the base for the part of its own table, until its author says that that is
/// lost. What is applied then is not this base's own either.
#[test]
fn what_waited_for_a_lost_part_is_not_sealed_again() {
    let world = World::new();
    let options = TrackOptions { append: true, ids_shared: true, ..TrackOptions::default() };
    let (mut north, mut east, mut base) = (world.board("north"), world.board("east"), world.base("base"));
    for device in [&mut north, &mut east, &mut base] {
        sql(device, "CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
        device.track("r", &options).unwrap();
    }
    sql(&north, READINGS);
    north.track("readings", &append()).unwrap();
    carry_all(&mut [&mut north, &mut east, &mut base]);
    let backup = world.path("backup");
    copy_card(&north, &backup);
    sql(&north, "INSERT INTO r (v) VALUES (1), (2); INSERT INTO readings (value) VALUES (7)");
    carry(&mut north, &mut east);
    let mut north = Engine::open_with(&backup, world.options()).unwrap();
    assert_eq!(carry(&mut east, &mut base).waits.len(), 1);
    carry(&mut north, &mut east); // It says that it was set back.
    carry(&mut east, &mut north);
    assert!(carry(&mut north, &mut base).waits.is_empty());
    assert_eq!(rows(&base, "SELECT v FROM r ORDER BY id"), ["1", "2"]);
    assert_eq!(base.seal().unwrap().ops, 0);
    digests_equal(&[&north, &east, &base]);
}
