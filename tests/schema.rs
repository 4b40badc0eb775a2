//! Tables that change: by applications, by the command, and by what others tell.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, ConflictKind, Engine, Merge, OwnedValue, Resolution, TrackOptions};

const T: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v, w)";

fn two(sql_text: &str, options: &TrackOptions) -> (World, Engine, Engine) {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, sql_text);
    a.track("t", options).unwrap();
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    (world, a, b)
}

fn plain() -> (World, Engine, Engine) {
    let made = two(&format!("{T}; INSERT INTO t VALUES ('a', 1, 1), ('b', 2, 2)"), &follow());
    sql(&made.1, "CREATE TABLE other (k TEXT PRIMARY KEY, v)");
    made
}

fn held(engine: &Engine) -> Option<String> {
    let tables = engine.status().unwrap().tables;
    tables.into_iter().find(|t| t.how == packmule::TableHow::Suspended).map(|t| t.note.unwrap())
}

#[test]
fn a_column_is_added_everywhere() {
    let (_world, mut a, mut b) = plain();
    a.add_column("t", "unit", "TEXT", Some(&OwnedValue::Text(b"C".to_vec()))).unwrap();
    a.add_column("t", "unit", "TEXT", Some(&OwnedValue::Text(b"C".to_vec()))).unwrap();
    assert!(a.add_column("t", "unit", "INT", None).is_err());
    assert!(a.add_column("t", "x", "TEXT); DROP TABLE t; --", None).is_err());
    // In the old definition, at the same time.
    sql(&b, "INSERT INTO t VALUES ('c', 3, 3); UPDATE t SET v = 9 WHERE k = 'a'");
    sql(&a, "UPDATE t SET unit = 'F' WHERE k = 'b'");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(
        rows(&b, "SELECT k, v, unit FROM t ORDER BY k"),
        ["\"a\"|9|\"C\"", "\"b\"|2|\"F\"", "\"c\"|3|\"C\""]
    );
}

#[test]
fn the_same_column_added_on_both_is_one_column() {
    let (_world, mut a, mut b) = plain();
    sql(&a, "ALTER TABLE t ADD COLUMN x INT; UPDATE t SET x = 1 WHERE k = 'a'");
    sql(&b, "ALTER TABLE t ADD COLUMN x INT; UPDATE t SET x = 2 WHERE k = 'b'");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&a, "SELECT k, x FROM t ORDER BY k"), ["\"a\"|1", "\"b\"|2"]);
}

#[test]
fn a_changed_table_is_suspended_alone_and_comes_back_without_loss() {
    let (change, back) = ("ALTER TABLE t RENAME TO t2", "ALTER TABLE t2 RENAME TO t");
    let (world, mut a, mut b) = plain();
    a.track("other", &TrackOptions::default()).unwrap();
    carry(&mut a, &mut b);
    sql(&a, change);
    sql(
        &a,
        "UPDATE t2 SET w = 10 WHERE k = 'a'; INSERT INTO t2 VALUES ('new', 1, 1); INSERT INTO other VALUES ('o', 1)",
    );
    world.tick(1000);
    sql(&b, "UPDATE t SET v = 20 WHERE k IN ('a', 'b'); INSERT INTO other VALUES ('p', 2)");
    carry_all(&mut [&mut a, &mut b]);
    assert!(held(&a).is_some_and(|note| note.contains("`t2`")));
    assert_eq!(rows(&a, "SELECT k FROM other ORDER BY k"), ["\"o\"", "\"p\""], "the rest goes on");
    assert_eq!(rows(&b, "SELECT k FROM other ORDER BY k"), ["\"o\"", "\"p\""]);
    assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["2"], "what was captured waits");
    assert!(a.conflicts().unwrap().is_empty());
    sql(&a, back);
    carry_all(&mut [&mut a, &mut b]);
    assert!(held(&a).is_none());
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&a, "SELECT v FROM t WHERE k = 'b'"), ["20"]);
    assert_eq!(rows(&b, "SELECT v FROM t WHERE k = 'new'"), ["1"]);
    let conflicts = a.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1, "neither had seen the other's write of `a`: {conflicts:?}");
    assert_eq!(conflicts[0].kind, ConflictKind::UpdateUpdate);
}

#[test]
fn a_unique_made_on_one_device_holds_on_all() {
    let (_world, mut a, mut b) = plain();
    sql(&b, "INSERT INTO t VALUES ('c', 1, 3)");
    carry(&mut b, &mut a);
    sql(&a, "DELETE FROM t WHERE k = 'c'");
    sql(&a, "CREATE UNIQUE INDEX tv ON t (v)");
    sql(&b, "INSERT INTO t VALUES ('d', 2, 4)");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT k FROM t ORDER BY k"), ["\"a\"", "\"b\""]);
    assert_eq!(b.conflicts().unwrap()[0].kind, ConflictKind::Unique(vec!["v".into()]));
    assert!(
        rusqlite::Connection::open(b.path())
            .unwrap()
            .execute("INSERT INTO t VALUES ('z', 1, 1)", [])
            .is_err()
    );
    sql(&a, "DROP INDEX tv");
    a.seal().unwrap();
    assert!(a.status().unwrap().notices.iter().any(|n| n.text.contains("lost its UNIQUE")));
}

#[test]
fn a_table_tracked_without_a_column_that_others_have_gets_it() {
    let (world, mut a, _b) = plain();
    let mut c = world.board("c");
    sql(&c, "CREATE TABLE t (k TEXT PRIMARY KEY, v)");
    carry(&mut a, &mut c);
    c.track("t", &follow()).unwrap();
    carry_all(&mut [&mut a, &mut c]);
    assert_eq!(rows(&c, "SELECT * FROM t ORDER BY k"), rows(&a, "SELECT * FROM t ORDER BY k"));
    digests_equal(&[&a, &c]);
    assert_eq!(rows(&c, "SELECT k, w FROM t ORDER BY k"), ["\"a\"|1", "\"b\"|2"]);
}

#[test]
fn a_column_that_comes_while_a_table_is_suspended_is_added_when_it_is_resumed() {
    let (_world, mut a, mut b) = plain();
    sql(&a, "ALTER TABLE t RENAME COLUMN v TO value");
    sql(&b, "ALTER TABLE t ADD COLUMN x DEFAULT 5; UPDATE t SET x = 6 WHERE k = 'a'");
    carry_all(&mut [&mut a, &mut b]);
    sql(&a, "ALTER TABLE t RENAME COLUMN value TO v");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&a, "SELECT k, x FROM t ORDER BY k"), ["\"a\"|6", "\"b\"|5"]);
}

/// Old and new schema in the field at once, in both directions, for as long as it takes: `a` never
/// gets to see what the others have until the end, `c` hears of columns late.
#[test]
fn old_and_new_schema_side_by_side() {
    for cell in [false, true] {
        let merge = if cell { Merge::Cell } else { Merge::Row };
        let options = TrackOptions { merge, ..follow() };
        let (world, mut a, mut b) =
            two(&format!("{T}; INSERT INTO t VALUES ('a', 1, 1), ('b', 2, 2)"), &options);
        let mut c = world.board("c");
        carry(&mut a, &mut c);
        for round in 0..5 {
            world.tick(1000);
            sql(
                &b,
                &format!(
                    "ALTER TABLE t ADD COLUMN n{round} DEFAULT {round}; UPDATE t SET n{round} = 'b' WHERE k = 'a'"
                ),
            );
            sql(
                &a,
                &format!(
                    "UPDATE t SET w = 'w{round}' WHERE k = 'b'; INSERT INTO t VALUES ('a{round}', 0, 0)"
                ),
            );
            sql(
                &c,
                &format!(
                    "INSERT INTO t (k, v) VALUES ('c{round}', 0); UPDATE t SET v = 'c{round}' WHERE k = 'c0'"
                ),
            );
            carry(&mut a, &mut b); // Old to new.
            carry(&mut a, &mut c);
            if round % 2 == 1 {
                carry(&mut b, &mut c); // New to old.
            }
            assert!(b.conflicts().unwrap().is_empty() && b.status().unwrap().waits.is_empty());
        }
        carry_all(&mut [&mut a, &mut b, &mut c]);
        digests_equal(&[&a, &b, &c]);
        assert!(a.conflicts().unwrap().is_empty());
        for device in [&a, &b, &c] {
            assert_eq!(
                rows(device, "SELECT k, v, w, n0, n4 FROM t WHERE k IN ('a', 'b', 'a4', 'c0') ORDER BY k"),
                ["\"a\"|1|1|\"b\"|\"b\"", "\"a4\"|0|0|0|4", "\"b\"|2|\"w4\"|0|4", "\"c0\"|\"c4\"|NULL|0|4"]
            );
        }
    }
}

#[test]
fn ops_of_a_table_that_is_not_here_wait_and_are_applied_when_it_comes() {
    let (_world, mut a, mut b) = plain();
    b.untrack("t").unwrap();
    for round in 0..3 {
        sql(
            &a,
            &format!(
                "UPDATE t SET v = {round}; INSERT INTO t VALUES ('n{round}', 0, 0); DELETE FROM t WHERE k = 'b'"
            ),
        );
        sql(&a, &format!("INSERT OR REPLACE INTO other VALUES ('o', {round})"));
        a.seal().unwrap();
    }
    a.track("other", &TrackOptions::default()).unwrap();
    let report = carry(&mut a, &mut b);
    assert!(report.ops_waiting > 0 && report.waits.is_empty(), "{report:?}");
    assert_eq!(rows(&b, "SELECT v FROM other"), ["2"], "the rest is not held up");
    assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["2"]);
    for device in [&mut a, &mut b] {
        device.compact().unwrap();
    }
    carry_all(&mut [&mut a, &mut b]);
    b.track("t", &TrackOptions::default()).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT count(*) FROM t WHERE k LIKE 'n%'"), ["3"]);
}

/// Our triggers do not stand in the way. Where Packmule made the table, it goes along.
#[test]
fn a_column_that_its_only_application_drops_or_renames_is_gone_everywhere() {
    let (_world, mut a, mut b) = plain();
    sql(&b, "UPDATE t SET v = 5 WHERE k = 'a'; UPDATE t SET w = 7 WHERE k = 'b'");
    sql(&a, "ALTER TABLE t DROP COLUMN v; ALTER TABLE t RENAME COLUMN w TO width");
    carry_all(&mut [&mut a, &mut b]);
    assert!(held(&a).is_none() && held(&b).is_none());
    digests_equal(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(rows(device, "SELECT * FROM t ORDER BY k"), ["\"a\"|1", "\"b\"|7"]);
        assert_eq!(rows(device, "SELECT width FROM t ORDER BY k"), ["1", "7"]);
    }
    assert!(a.conflicts().unwrap().is_empty());
}

/// It had NULL when it came back.
#[test]
fn a_quarantined_row_gets_the_default_of_a_new_column() {
    let (_world, mut a, mut b) =
        two("CREATE TABLE t (k TEXT PRIMARY KEY, u UNIQUE)", &TrackOptions::default());
    sql(&a, "INSERT INTO t VALUES ('a', 1)");
    sql(&b, "INSERT INTO t VALUES ('b', 1)");
    carry_all(&mut [&mut a, &mut b]);
    sql(&a, "ALTER TABLE t ADD COLUMN x DEFAULT 7; DELETE FROM t WHERE u = 1");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT u, x FROM t"), ["1|7"]);
}

fn counted() -> TrackOptions {
    let columns = vec![("v".to_owned(), ColumnMerge::Counter)];
    TrackOptions { merge: Merge::Cell, columns, ..TrackOptions::default() }
}

/// The others saw nothing of it.
#[test]
fn a_counter_that_a_resolution_sets_travels() {
    let (_world, mut a, mut b) = two(&format!("{T}; INSERT INTO t VALUES ('a', 1, 1)"), &counted());
    sql(&a, "UPDATE t SET w = 2");
    sql(&b, "UPDATE t SET w = 3");
    carry_all(&mut [&mut a, &mut b]);
    let id = a.conflicts().unwrap()[0].id.clone();
    a.resolve(&id, &Resolution::Set(vec![("v".into(), OwnedValue::Int(5))])).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT v FROM t"), ["5"]);
}

/// What an update had added became the value of the new row.
#[test]
fn keeping_both_keeps_counters_and_cells() {
    let (_world, mut a, mut b) = two(&format!("{T}; INSERT INTO t VALUES ('a', 10, 1)"), &counted());
    sql(&a, "UPDATE t SET w = 2, v = v + 1");
    sql(&b, "UPDATE t SET w = 3");
    carry_all(&mut [&mut a, &mut b]);
    let id = a.conflicts().unwrap()[0].id.clone();
    a.resolve(&id, &Resolution::KeepBoth).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT v, w FROM t ORDER BY w"), ["11|2", "11|3"]);
}

/// A concurrent update brought it back without its other columns.
#[test]
fn a_row_that_a_resolution_deletes_can_come_back_whole() {
    let (world, mut a, mut b) = two(&format!("{T}; INSERT INTO t VALUES ('a', 10, 1)"), &counted());
    let mut c = world.board("c");
    carry(&mut a, &mut c);
    sql(&a, "UPDATE t SET w = 2");
    sql(&b, "UPDATE t SET w = 3");
    carry_all(&mut [&mut a, &mut b]);
    let id = a.conflicts().unwrap()[0].id.clone();
    a.resolve(&id, &Resolution::Delete).unwrap();
    sql(&c, "UPDATE t SET v = v + 1");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    digests_equal(&[&a, &b, &c]);
    assert_eq!(rows(&c, "SELECT v, w IN (2, 3) FROM t"), ["11|1"]);
}

/// Beside the version of it that is remembered, a deletion had won; the new UNIQUE took it for a row that a
/// REPLACE had removed, and deleted the row that another device made again.
#[test]
fn a_unique_made_later_deletes_no_row_that_is_gone_by_a_policy() {
    let lww = TrackOptions { policy: packmule::Policy::Lww, ..TrackOptions::default() };
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, T);
    a.track("t", &lww).unwrap();
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    // By its clock, what it seals is later than all else.
    let late = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(4_000_000_000_000));
    let path = b.path().to_owned();
    drop(b);
    let mut b = Engine::open_with(&path, World::options_by(&late)).unwrap();
    sql(&a, "INSERT INTO t VALUES ('x', 1, 1)");
    carry_all(&mut [&mut a, &mut b]);
    sql(&a, "UPDATE t SET v = 2");
    written_at(&a, 1_700_000_000_000);
    sql(&b, "DELETE FROM t");
    written_at(&b, 1_700_000_000_003);
    carry_all(&mut [&mut a, &mut b]);
    assert_eq!(rows(&a, "SELECT count(*) FROM t"), ["0"], "the last writer wins");
    sql(&a, "INSERT INTO t VALUES ('x', 3, 3)");
    sql(&b, "CREATE UNIQUE INDEX later ON t (w)");
    b.seal().unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&a, "SELECT v FROM t"), ["3"]);
}

/// Alembic writes every default as text. SQLite stores it as the column's type has it.
#[test]
fn a_default_that_is_stored_as_another_type_makes_no_write() {
    let world = World::new();
    let mut a = world.board_with("a", &format!("{T}; INSERT INTO t VALUES ('a', 1, 1)"), &["t"]);
    let mut b = world.board_with("b", T, &["t"]);
    carry(&mut a, &mut b);
    sql(&b, "UPDATE t SET v = 2");
    b.seal().unwrap();
    sql(&a, "ALTER TABLE t ADD COLUMN n INTEGER NOT NULL DEFAULT '7'");
    assert_eq!(a.seal().unwrap().ops, 0);
    carry(&mut b, &mut a);
    assert_eq!(rows(&a, "SELECT v, n FROM t"), ["2|7"]);
    assert!(a.conflicts().unwrap().is_empty());
    // A table that is made anew with such a column.
    let mut c = world.board_with("c", &format!("{T}; INSERT INTO t VALUES ('a', 1, 1)"), &["t"]);
    sql(
        &c,
        "CREATE TABLE u (k TEXT PRIMARY KEY, v, w, n INTEGER NOT NULL DEFAULT '7', r REAL DEFAULT '1.5', i REAL DEFAULT 2);
         INSERT INTO u (k, v, w) SELECT * FROM t; DROP TABLE t; ALTER TABLE u RENAME TO t",
    );
    assert_eq!(c.seal().unwrap().ops, 0);
    assert_eq!(rows(&c, "SELECT v, n, r, i FROM t"), ["1|7|1.5r|2.0r"]);
}

/// SQLite renames a column in our triggers; then the drop found a column there that is none.
#[test]
fn a_column_can_be_renamed_and_dropped_before_the_next_run() {
    for options in [TrackOptions::default(), counted(), TrackOptions { merge: Merge::Cell, ..follow() }] {
        let (_world, mut a, mut b) = two(&format!("{T}; INSERT INTO t VALUES ('a', 1, 1)"), &options);
        sql(&a, "ALTER TABLE t RENAME COLUMN w TO width; UPDATE t SET width = 2");
        sql(&a, "ALTER TABLE t DROP COLUMN width; UPDATE t SET v = 3; DELETE FROM t WHERE k = 'b'");
        carry_all(&mut [&mut a, &mut b]);
        assert_eq!(rows(&a, "SELECT * FROM t"), ["\"a\"|3"]);
        digests_equal(&[&a, &b]);
    }
}

/// A later write to the rest of the row, by who lacks the column, took it along.
#[test]
fn what_is_said_of_a_column_that_waits_outlives_a_write_to_the_rest_of_the_row() {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board_with(name, T, &["t"]));
    sql(&devices[0], "INSERT INTO t VALUES ('a', 1, 1)");
    carry_all(&mut devices.each_mut());
    sql(&devices[0], "ALTER TABLE t ADD COLUMN x; UPDATE t SET x = 7");
    carry_all(&mut devices.each_mut());
    sql(&devices[1], "UPDATE t SET v = 2, w = 2");
    carry_all(&mut devices.each_mut());
    for device in &devices[1..] {
        sql(device, "ALTER TABLE t ADD COLUMN x");
    }
    carry_all(&mut devices.each_mut());
    for device in &devices {
        assert_eq!(rows(device, "SELECT v, w, x FROM t"), ["2|2|7"]);
    }
    digests_equal(&devices.each_ref());
}

/// Nothing watched it until it went on, and what another device wrote meanwhile took the row.
#[test]
fn a_table_that_was_made_anew_and_is_held_is_watched() {
    let world = World::new();
    let mut devices = ["a", "b"].map(|name| world.board_with(name, T, &["t"]));
    sql(&devices[0], "INSERT INTO t VALUES ('a', 1, 1), ('b', 1, 1)");
    carry_all(&mut devices.each_mut());
    for device in &mut devices {
        device.compact().unwrap();
    }
    carry_all(&mut devices.each_mut());
    let rebuild =
        "CREATE TABLE n (k TEXT PRIMARY KEY, v TEXT, w); INSERT INTO n SELECT k, v, w FROM t; DROP TABLE t;
        ALTER TABLE n RENAME TO t";
    sql(&devices[0], rebuild);
    carry_all(&mut devices.each_mut());
    assert!(held(&devices[0]).is_some());
    sql(&devices[0], "UPDATE t SET w = 2 WHERE k = 'a'");
    sql(&devices[1], "UPDATE t SET w = 3 WHERE k = 'a'; UPDATE t SET w = 4 WHERE k = 'b'");
    carry_all(&mut devices.each_mut());
    sql(&devices[1], rebuild);
    for _ in 0..2 {
        carry_all(&mut devices.each_mut());
    }
    for device in &devices {
        assert_eq!(held(device), None);
        assert_eq!(device.conflicts().unwrap().len(), 1, "both wrote it, and neither saw the other's");
        assert_eq!(rows(device, "SELECT w FROM t WHERE k = 'b'"), ["4"]);
    }
    digests_equal(&devices.each_ref());
}

/// Each change of the schema walks through all of it, and has every statement prepared again: of them there are as many for each
/// table as for any other, its two lists and its triggers.
#[test]
fn each_table_that_is_tracked_changes_the_schema_as_often_however_many_there_are() {
    let changes = |n: usize| {
        let world = World::new();
        let mut board = world.board("a");
        let names: Vec<String> = (0..n).map(|at| format!("t{at}")).collect();
        for name in &names {
            sql(&board, &format!("CREATE TABLE {name} (k TEXT PRIMARY KEY, v)"));
        }
        let version = |board: &Engine| rows(board, "PRAGMA schema_version")[0].parse::<usize>().unwrap();
        let before = version(&board);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        board.track_all(&names, &TrackOptions::default()).unwrap();
        version(&board) - before
    };
    let (few, more) = (changes(5), changes(25));
    assert_eq!(more - few, 20 * 7, "{few} for 5 tables, {more} for 25");
}
