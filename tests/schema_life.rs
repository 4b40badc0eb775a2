//! Migrations that devices carry out in different steps: what each mechanism does, one by one. All of them at random:
//! `tests/migrations_at_random.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
mod migrating;
use common::*;
use migrating::*;
use packmule::{Engine, Merge, Part, TrackOptions};

const COLUMNS: &str = "k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c2";

/// Three devices whose applications have made the table.
fn empty(merge: Merge) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices {
        sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
        device.track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
    }
    (world, devices)
}

/// The same, with a row that all have.
fn devices(merge: Merge) -> (World, [Engine; 3]) {
    let (world, mut devices) = empty(merge);
    sql(&devices[0], "INSERT INTO t VALUES ('k', 'zero', 1, 2)");
    meet(&mut devices);
    (world, devices)
}

/// Two devices had dropped a column as well when a third one decided on the type of another: they said of that what it was
/// before, and waited for each other for ever.
#[test]
fn a_device_that_is_held_says_of_a_column_what_was_decided_meanwhile() {
    let (_world, mut devices) = devices(Merge::Row);
    let retype = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 TEXT, c2", "k, c0, c1, c2");
    let rest = "ALTER TABLE t DROP COLUMN c2; ALTER TABLE t RENAME COLUMN c0 TO c5";
    sql(&devices[0], &format!("{retype}; ALTER TABLE t DROP COLUMN c2"));
    meet(&mut devices);
    sql(&devices[0], "ALTER TABLE t RENAME COLUMN c0 TO c5");
    sql(&devices[1], &retype);
    meet(&mut devices);
    sql(&devices[1], rest);
    sql(&devices[2], &retype);
    meet(&mut devices);
    sql(&devices[2], rest);
    assert_eq!(in_step(&mut devices, "SELECT k, c5, c1 FROM t"), ["\"k\"|\"zero\"|\"1\""]);
}

/// SQLite renames a column in a trigger, and knows it no more when the column is dropped: the next ALTER TABLE failed.
#[test]
fn a_column_that_was_renamed_and_dropped_is_not_in_the_way_of_the_next_migration() {
    let (_world, mut devices) = devices(Merge::Row);
    for device in &mut devices[..2] {
        sql(device, "ALTER TABLE t RENAME COLUMN c2 TO c3; ALTER TABLE t DROP COLUMN c3");
        device.seal().unwrap();
        assert!(note(device).unwrap().contains("`c2` is gone here"));
        sql(device, "ALTER TABLE t RENAME COLUMN c1 TO c5; UPDATE t SET c5 = 9");
        device.seal().unwrap();
    }
    sql(&devices[2], "ALTER TABLE t DROP COLUMN c2; ALTER TABLE t RENAME COLUMN c1 TO c5");
    assert_eq!(in_step(&mut devices, "SELECT k, c0, c5 FROM t"), ["\"k\"|\"zero\"|9"]);
}

/// Each further change takes away one of the names by which our triggers still find the column. When none is left, SQLite
/// names the trigger and refuses: nothing is lost, and any run helps.
#[test]
fn after_a_column_was_renamed_and_dropped_another_change_needs_no_run_between() {
    for merge in [Merge::Row, Merge::Cell] {
        let (_world, mut devices) = devices(merge);
        for device in &mut devices {
            sql(device, "ALTER TABLE t RENAME COLUMN c2 TO c3; ALTER TABLE t DROP COLUMN c3");
            sql(device, "ALTER TABLE t RENAME COLUMN c1 TO c5; UPDATE t SET c5 = 9");
            let next = "ALTER TABLE t RENAME COLUMN c5 TO c7";
            let refused = app(device).execute_batch(next).unwrap_err().to_string();
            assert!(refused.contains("error in trigger _pm_"), "{refused}");
            device.seal().unwrap();
            sql(device, next);
        }
        assert_eq!(in_step(&mut devices, "SELECT k, c0, c7 FROM t"), ["\"k\"|\"zero\"|9"]);
    }
}

/// Where columns follow, our own trigger named the one of the index, and the table was held for ever.
#[test]
fn a_column_with_an_index_over_it_goes_where_columns_follow() {
    let world = World::new();
    let mut board = world.board_with("board", &format!("CREATE TABLE t ({COLUMNS})"), &["t"]);
    let mut base = world.base("base");
    sql(&board, "INSERT INTO t VALUES ('k', 'zero', 1, 2)");
    sql(&board, "ALTER TABLE t ADD COLUMN u; CREATE UNIQUE INDEX of_u ON t (u); UPDATE t SET u = 3");
    carry_all(&mut [&mut board, &mut base]);
    assert_eq!(rows(&base, "SELECT * FROM t"), ["\"k\"|\"zero\"|1|2|3"]);
    sql(&board, &rebuild(COLUMNS, "k, c0, c1, c2"));
    carry_all(&mut [&mut board, &mut base]);
    assert_eq!(rows(&base, "SELECT * FROM t"), ["\"k\"|\"zero\"|1|2"]);
    sql(&base, "UPDATE t SET c1 = 9");
    carry_all(&mut [&mut board, &mut base]);
    assert_eq!(rows(&board, "SELECT c1 FROM t"), ["9"]);
    digests_equal(&[&board, &base]);
    assert_eq!((note(&board), note(&base)), (None, None));
}

/// The same where a person drops it, and another UNIQUE stays.
#[test]
fn a_person_can_drop_a_column_with_an_index_over_it() {
    for options in [TrackOptions::default(), per_device()] {
        let world = World::new();
        let mut board = world.board("board");
        let uniques = "CREATE UNIQUE INDEX of_c1 ON t (c1); CREATE UNIQUE INDEX of_c2 ON t (c2)";
        sql(&board, &format!("CREATE TABLE t ({COLUMNS}); {uniques}"));
        board.track("t", &options).unwrap();
        sql(&board, "INSERT INTO t VALUES ('a', 'zero', 1, 2), ('b', 'zero', 2, 3)");
        board.drop_column("t", "c2").unwrap();
        sql(&board, "INSERT OR REPLACE INTO t VALUES ('c', 'zero', 2)");
        assert_eq!(board.seal().unwrap().ops, 2, "one row took the place of another");
        assert_eq!(note(&board), None);
        assert_eq!(board.verify().unwrap().problems, [""; 0]);
    }
}

/// Renamed and retyped, then retyped again: where nothing ran between the two, the device took the column for another one, also
/// when it had heard that it is the same, and forgot what others had written into it.
#[test]
fn a_column_that_is_retyped_twice_is_one_column_whenever_a_device_runs() {
    for between in 0..8 {
        let (_world, mut devices) = devices(Merge::Cell);
        sql(&devices[0], "UPDATE t SET c0 = '8'");
        meet(&mut devices);
        for at in 0..3 {
            sql(&devices[at], &rebuild("k TEXT PRIMARY KEY, c4 REAL, c1 INTEGER, c2", "k, c0, c1, c2"));
            if between & (1 << at) > 0 {
                meet(&mut devices);
            }
            sql(&devices[at], &rebuild("k TEXT PRIMARY KEY, c4, c1 INTEGER, c2", "k, c4, c1, c2"));
            meet(&mut devices);
        }
        in_step(&mut devices, "SELECT k, c4, c1, c2 FROM t");
    }
}

/// A type that one device changes, and changes back while the others follow it: its table was made theirs again, over what its
/// application had done, and all waited for each other once they had done that too.
#[test]
fn a_change_that_is_taken_back_while_others_follow_it_is_nobodys_to_undo() {
    let (_world, mut devices) = devices(Merge::Row);
    let retype = |kind| rebuild(&format!("k TEXT PRIMARY KEY, c0 TEXT, c1 {kind}, c2"), "k, c0, c1, c2");
    for at in [0, 2] {
        sql(&devices[at], &retype("REAL"));
    }
    meet(&mut devices);
    sql(&devices[0], &retype("INTEGER"));
    devices[0].seal().unwrap();
    sql(&devices[1], &retype("REAL"));
    let [_, b, c] = &mut devices;
    carry(b, c);
    carry(c, b);
    meet(&mut devices);
    let kind = "SELECT type FROM pragma_table_info('t') WHERE name = 'c1'";
    assert_eq!(rows(&devices[0], kind), ["\"INTEGER\""], "it is as the application made it");
    for at in [1, 2] {
        sql(&devices[at], &retype("INTEGER"));
        meet(&mut devices);
    }
    assert_eq!(in_step(&mut devices, "SELECT * FROM t"), ["\"k\"|\"zero\"|1|2"]);
}

/// A type that was changed and changed back before anybody did the same leaves nothing behind.
#[test]
fn a_change_that_is_taken_back_is_said_of_nobody() {
    let (_world, mut devices) = devices(Merge::Cell);
    sql(&devices[1], &rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c2 REAL", "k, c0, c1, c2"));
    meet(&mut devices);
    assert!(note(&devices[0]).unwrap().contains("dropped or changed on b"));
    sql(&devices[1], &rebuild(COLUMNS, "k, c0, c1, c2"));
    in_step(&mut devices, "SELECT * FROM t");
}

/// A version that was left for a column that everybody then dropped was one more version of a conflict, on some devices.
#[test]
fn what_is_left_of_a_version_for_a_column_goes_with_the_column() {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices {
        sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
        device.track("t", &TrackOptions::default()).unwrap();
    }
    sql(&devices[2], "INSERT INTO t VALUES ('k2', 15, 42, 11)");
    carry_between(&mut devices, 2, 1);
    sql(&devices[0], "INSERT INTO t VALUES ('k2', '19', 7.5, 15.5)");
    carry_between(&mut devices, 0, 2);
    sql(&devices[1], "DELETE FROM t WHERE k = 'k2'");
    sql(&devices[2], "ALTER TABLE t DROP COLUMN c1");
    sql(&devices[0], "INSERT OR REPLACE INTO t VALUES ('k2', NULL, '33', 48.5)");
    for device in &devices[..2] {
        sql(device, "ALTER TABLE t DROP COLUMN c1");
    }
    in_step(&mut devices, "SELECT * FROM t");
    // The delete had seen the row that it deletes, though its table was held when it was sealed.
    assert_eq!(devices[0].conflicts().unwrap()[0].versions.len(), 2);
}

/// A column that came by ALTER TABLE, and that no row has anything in: a rebuild after that changes nothing of any row, and
/// of two versions that are in conflict it settles none.
#[test]
fn a_rebuild_after_a_column_was_added_says_nothing() {
    for written in [false, true] {
        let (_world, mut devices) = devices(Merge::Row);
        sql(&devices[0], "INSERT INTO t VALUES ('k2', 14.5, '7', 5.5)");
        sql(&devices[1], "INSERT INTO t VALUES ('k2', '35', '17', 27.5)");
        meet(&mut devices);
        assert_eq!(devices[0].conflicts().unwrap().len(), 1);
        sql(&devices[0], "ALTER TABLE t ADD COLUMN c4 TEXT");
        meet(&mut devices);
        let copied = if written { "k, c0, c1, c2, 'x'" } else { "k, c0, c1, c2, c4" };
        sql(&devices[0], &rebuild(&format!("{COLUMNS}, c4 TEXT"), copied));
        let ops = devices[0].seal().unwrap().ops;
        assert_eq!(ops, if written { 2 } else { 0 });
        meet(&mut devices);
        for device in &devices[1..] {
            sql(device, "ALTER TABLE t ADD COLUMN c4 TEXT");
        }
        in_step(&mut devices, "SELECT * FROM t ORDER BY k");
        assert_eq!(devices[0].conflicts().unwrap().len(), 1, "a rebuild hides no conflict");
    }
}

/// What a row was when it was deleted is said in the types that the columns have by then.
#[test]
fn a_row_that_was_deleted_before_a_type_was_changed_is_said_in_the_new_one() {
    let (_world, mut devices) = devices(Merge::Cell);
    sql(&devices[0], "DELETE FROM t");
    let retype = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c2 TEXT", "k, c0, c1, c2");
    for device in &devices {
        sql(device, &retype);
    }
    assert_eq!(in_step(&mut devices, "SELECT * FROM t"), [""; 0]);
}

/// What was written between a rebuild and the next run, and into a column that others do not have yet, is theirs as well.
#[test]
fn what_was_written_beside_a_version_that_is_still_to_be_shown_travels() {
    let (_world, mut devices) = devices(Merge::Row);
    let retype = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 REAL, c2", "k, c0, c1, c2");
    sql(
        &devices[1],
        &format!("{retype}; ALTER TABLE t ADD COLUMN c4 TEXT; INSERT INTO t VALUES ('n', 48, 30, 1, 31)"),
    );
    sql(&devices[2], "INSERT INTO t VALUES ('n', '1', 44.5, NULL)");
    meet(&mut devices);
    for at in [0, 2] {
        sql(&devices[at], &format!("{retype}; ALTER TABLE t ADD COLUMN c4 TEXT"));
        meet(&mut devices);
    }
    let shown = in_step(&mut devices, "SELECT k, c0, c1, c2, c4 FROM t WHERE k = 'n'");
    assert_eq!(shown, ["\"n\"|\"1\"|44.5r|NULL|\"31\""]);
}

/// Renamed and retyped in one go, between two runs: it is one column where its values tell so, and on a device where the
/// two come one by one it is the same.
#[test]
fn a_column_that_is_renamed_and_retyped_at_once_is_one_column() {
    for together in [true, false] {
        let (_world, mut devices) = devices(Merge::Cell);
        sql(&devices[0], "INSERT INTO t VALUES ('l', 'l', 5, 6), ('m', 'm', 7, 8)");
        meet(&mut devices);
        let both = rebuild("k TEXT PRIMARY KEY, c0 TEXT, n TEXT, c2", "k, c0, c1, c2");
        sql(&devices[1], "UPDATE t SET c1 = 55 WHERE k = 'l'");
        devices[1].seal().unwrap();
        sql(&devices[0], &both);
        devices[0].seal().unwrap();
        let held = note(&devices[0]).unwrap();
        assert!(
            held.starts_with("its column `c1` is called `n` here, and its column `n` has another type here"),
            "{held}"
        );
        meet(&mut devices);
        sql(&devices[1], if together { &both } else { "ALTER TABLE t RENAME COLUMN c1 TO n" });
        meet(&mut devices);
        if !together {
            assert!(note(&devices[0]).is_some(), "the type is another one on b");
            sql(&devices[1], &rebuild("k TEXT PRIMARY KEY, c0 TEXT, n TEXT, c2", "k, c0, n, c2"));
        }
        sql(&devices[2], &both);
        let shown = in_step(&mut devices, "SELECT k, n FROM t ORDER BY k");
        assert_eq!(shown, ["\"k\"|\"1\"", "\"l\"|\"55\"", "\"m\"|\"7\""], "what b wrote holds");
    }
}

/// A device whose columns follow dropped one as the others had, and then repeated what the rest was. In a state that counted as
/// its own word on the type of a column, which the others had changed meanwhile: a dispute that nobody had.
#[test]
fn who_follows_declares_nothing_by_what_it_repeats() {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices[..2] {
        sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
        device.track("t", &TrackOptions { merge: Merge::Cell, ..TrackOptions::default() }).unwrap();
    }
    meet(&mut devices);
    meet(&mut devices);
    let retype = rebuild("k TEXT PRIMARY KEY, c1 TEXT", "k, c1");
    let drop = "ALTER TABLE t DROP COLUMN c0; ALTER TABLE t DROP COLUMN c2";
    sql(&devices[1], drop);
    devices[1].seal().unwrap();
    devices[1].compact().unwrap();
    carry_between(&mut devices, 1, 0);
    sql(&devices[1], &retype);
    sql(&devices[0], &format!("{drop}; {retype}"));
    carry_between(&mut devices, 0, 2);
    in_step(&mut devices, "SELECT * FROM t");
    assert!(devices[2].conflicts().unwrap().is_empty());
}

/// A column of another type in the place of one that is gone, with other values, is another column.
#[test]
fn a_column_in_the_place_of_another_is_not_that_one() {
    let (_world, mut devices) = devices(Merge::Row);
    let other = rebuild("k TEXT PRIMARY KEY, c0 TEXT, n TEXT, c2", "k, c0, 'new', c2");
    sql(&devices[0], &other);
    devices[0].seal().unwrap();
    assert!(note(&devices[0]).unwrap().starts_with("its column `c1` is gone here, and not yet on"));
    for device in &devices[1..] {
        sql(device, &other);
    }
    assert_eq!(in_step(&mut devices, "SELECT k, n FROM t"), ["\"k\"|\"new\""]);
}

/// A device that dropped a column for all, and whose application then renames another, is compared with what it had after
/// the drop: who has not heard of the drop yet is not at odds with it.
#[test]
fn a_change_after_a_column_was_dropped_for_all_is_compared_with_what_was_left() {
    let world = World::new();
    let mut devices =
        ["a", "b"].map(|name| world.board_with(name, &format!("CREATE TABLE t ({COLUMNS})"), &["t"]));
    let mut base = world.base("base");
    sql(&devices[0], "INSERT INTO t VALUES ('k', 'zero', 1, 2)");
    for (from, to) in [(0, 1), (1, 0)].repeat(2) {
        carry_between(&mut devices, from, to);
    }
    let rename = "ALTER TABLE t RENAME COLUMN c0 TO name";
    devices[0].drop_column("t", "c2").unwrap();
    for device in &mut devices {
        sql(device, rename);
        device.seal().unwrap();
        carry(device, &mut base);
    }
    let told = base.status().unwrap().tables.remove(0).note;
    assert_eq!(told, None, "b lacks nothing but what a person has dropped for it as well");
}

/// Who does not track a table any more keeps nobody waiting.
#[test]
fn a_device_that_lets_a_table_go_holds_nobody_back() {
    let (_world, mut devices) = devices(Merge::Row);
    for device in &devices[..2] {
        sql(device, "ALTER TABLE t RENAME COLUMN c0 TO c3");
    }
    meet(&mut devices);
    assert!(note(&devices[0]).unwrap().contains("not yet on c"));
    devices[2].untrack("t").unwrap();
    meet(&mut devices);
    for device in &devices[..2] {
        assert_eq!(note(device), None);
    }
    digests_equal(&[&devices[0], &devices[1]]);
    sql(&devices[0], "UPDATE t SET c3 = 'on'");
    meet(&mut devices);
    assert_eq!(rows(&devices[1], "SELECT c3 FROM t"), ["\"on\""]);
    // It is back as it was, once its application has caught up.
    sql(&devices[2], "ALTER TABLE t RENAME COLUMN c0 TO c3");
    devices[2].track("t", &TrackOptions::default()).unwrap();
    in_step(&mut devices, "SELECT k FROM t");
}

/// Nor does who could not say so at once: it had been set back, and waited for its own log.
#[test]
fn a_device_that_is_set_back_lets_a_table_go_once_its_log_is_back() {
    let (world, mut devices) = devices(Merge::Row);
    let backup = world.dir.path().join("backup.db");
    copy_card(&devices[2], &backup);
    sql(&devices[2], "UPDATE t SET c1 = 7");
    for device in &devices[..2] {
        sql(device, "ALTER TABLE t RENAME COLUMN c0 TO c3");
    }
    meet(&mut devices);
    let [first, other, last] = devices;
    let place = last.path().to_owned();
    drop(last);
    std::fs::copy(&backup, &place).unwrap();
    let mut devices = [first, other, Engine::open_with(&place, world.options()).unwrap()];
    // It hears how far its own log goes, and does not get it yet.
    carry_between(&mut devices, 2, 0);
    let have = devices[0].positions().unwrap();
    let receiver = Some(devices[2].identity().id);
    let part = Part { receiver, have: &have, enough_bytes: u64::MAX, most_bytes: u64::MAX };
    let mut told = Vec::new();
    let report = devices[0].export_part(&mut told, &part).unwrap();
    told.extend(report.footer);
    devices[2].hear(&told[..]).unwrap();
    let before = devices[2].status().unwrap().log_frames;
    devices[2].untrack("t").unwrap();
    assert_eq!(
        devices[2].status().unwrap().log_frames,
        before,
        "it says nothing before it has its own log back"
    );
    assert!(note(&devices[0]).unwrap().contains("not yet on c"));
    carry_between(&mut devices, 0, 2);
    meet(&mut devices);
    for device in &devices[..2] {
        assert_eq!(note(device), None);
    }
    digests_equal(&[&devices[0], &devices[1]]);
}

/// One device went on with a column of a new name and a new type before it had met anybody. The last one to do the same found
/// the type decided, and did not say that it has it now: who waited for it waited for ever.
#[test]
fn a_type_that_was_decided_elsewhere_is_announced_once_it_is_here_too() {
    let world = World::new();
    let mut devices =
        ["a", "b", "c"].map(|name| world.board_with(name, &format!("CREATE TABLE t ({COLUMNS})"), &["t"]));
    let rename = "ALTER TABLE t RENAME COLUMN c2 TO c3";
    let retype = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c3 TEXT", "k, c0, c1, c3");
    sql(&devices[0], rename);
    meet(&mut devices);
    sql(&devices[1], rename);
    for device in &devices[..2] {
        sql(device, &retype);
    }
    for script in [rename, &retype] {
        meet(&mut devices);
        sql(&devices[2], script);
    }
    in_step(&mut devices, "SELECT * FROM t");
    assert_eq!(devices.each_ref().map(note), [const { None }; 3]);
}

/// A UNIQUE over a column that another device lacks: it holds where the column is, and everywhere once it is there.
#[test]
fn a_unique_over_a_column_that_a_device_lacks() {
    let (_world, mut devices) = devices(Merge::Row);
    let migration = "ALTER TABLE t ADD COLUMN code TEXT; CREATE UNIQUE INDEX by_code ON t (code)";
    sql(&devices[0], &format!("{migration}; INSERT INTO t VALUES ('x', 1, 1, 1, 'same')"));
    sql(&devices[1], &format!("{migration}; INSERT INTO t VALUES ('y', 1, 1, 1, 'same')"));
    sql(&devices[2], "INSERT INTO t VALUES ('z', 1, 1, 1)");
    meet(&mut devices);
    assert!(note(&devices[2]).unwrap().contains("`code`"), "it waits there");
    for device in &devices[..2] {
        assert_eq!(rows(device, "SELECT count(*) FROM t WHERE code = 'same'"), ["1"]);
        assert_eq!(device.conflicts().unwrap().len(), 1);
    }
    sql(&devices[2], migration);
    in_step(&mut devices, "SELECT * FROM t ORDER BY k");
    assert_eq!(devices[2].conflicts().unwrap().len(), 1);
}

/// The table on a device without an application: a settled row keeps its value when all others change a column's type.
#[test]
fn a_settled_row_keeps_its_value_where_the_type_of_a_column_follows() {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices[..2] {
        sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
        device.track("t", &TrackOptions::default()).unwrap();
    }
    meet(&mut devices);
    sql(&devices[0], "INSERT INTO t VALUES ('settled', 'x', 1, 47.5)");
    meet(&mut devices);
    sql(&devices[0], "INSERT INTO t VALUES ('new', 'y', 2, 3.5)");
    let retype = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c2 INTEGER", "*");
    sql(&devices[0], &retype);
    for device in &mut devices {
        device.compact().unwrap();
    }
    sql(&devices[1], &retype);
    assert_eq!(
        in_step(&mut devices, "SELECT k, c2 FROM t ORDER BY k"),
        ["\"new\"|3.5r", "\"settled\"|47.5r"]
    );
}

/// To be again what all had seen it to be declared nothing: the type between counted for ever, and whoever looked at its table
/// once more was held.
#[test]
fn a_type_that_comes_back_holds_nobody_and_is_followed() {
    let retype =
        |kind: &str| rebuild(&format!("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c2 {kind}"), "k, c0, c1, c2");
    for follower in [false, true] {
        let world = World::new();
        let mut devices = ["a", "b", "c"].map(|name| world.board(name));
        let apps = if follower { 0..2 } else { 0..3 };
        for device in &mut devices[apps.clone()] {
            sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
            device.track("t", &TrackOptions::default()).unwrap();
        }
        sql(&devices[0], "INSERT INTO t VALUES ('k', 'zero', 1, 2)");
        meet(&mut devices);
        for kind in ["TEXT", "", "REAL", "TEXT", ""] {
            for device in &devices[apps.clone()] {
                sql(device, &retype(kind));
            }
            in_step(&mut devices, "SELECT * FROM t");
        }
        for device in &devices {
            assert_eq!(rows(device, "SELECT type FROM pragma_table_info('t') WHERE name = 'c2'"), ["\"\""]);
        }
        sql(&devices[0], "CREATE INDEX of_c2 ON t (c2); UPDATE t SET c2 = 'word'");
        assert_eq!(in_step(&mut devices, "SELECT * FROM t"), ["\"k\"|\"zero\"|1|\"word\""]);
    }
}

/// The same of a column that was called otherwise meanwhile, or was gone.
#[test]
fn a_column_that_comes_back_is_what_it_is_then() {
    let table = |columns: &str| format!("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER{columns}");
    let real = rebuild(&table(", c2 REAL"), "k, c0, c1, c2");
    let renamed = [rebuild(&table(", c5 REAL"), "k, c0, c1, c2"), rebuild(&table(", c2"), "k, c0, c1, c5")];
    let retyped = [rebuild(&table(", c5"), "k, c0, c1, c2"), "ALTER TABLE t RENAME COLUMN c5 TO c2".into()];
    let dropped = ["ALTER TABLE t DROP COLUMN c2", "ALTER TABLE t ADD COLUMN c2"].map(String::from);
    for (n, steps) in [renamed, retyped, dropped].iter().enumerate() {
        let (_world, mut devices) = devices(Merge::Row);
        for step in std::iter::once(&real).chain(steps) {
            for device in &devices {
                sql(device, step);
            }
            in_step(&mut devices, "SELECT * FROM t");
        }
        sql(&devices[0], "CREATE INDEX of_c2 ON t (c2); UPDATE t SET c2 = 'word'");
        assert_eq!(in_step(&mut devices, "SELECT * FROM t"), ["\"k\"|\"zero\"|1|\"word\""], "{n}");
        for device in &devices {
            assert_eq!(rows(device, "SELECT type FROM pragma_table_info('t') WHERE name = 'c2'"), ["\"\""]);
        }
    }
}

/// A column of which two types had been declared was given the one and another name at once: what it was called then had the old
/// type in the log, and nobody took in a frame with a value of the new one.
#[test]
fn a_disputed_column_that_is_renamed_and_retyped_at_once_is_what_it_is_now() {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices {
        sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
        device.track("t", &TrackOptions::default()).unwrap();
    }
    sql(&devices[0], "INSERT INTO t VALUES ('a', 'zero', 1, 2)");
    sql(&devices[2], "INSERT INTO t VALUES ('c', 'zero', 3, 4)");
    carry_between(&mut devices, 0, 2);
    carry_between(&mut devices, 2, 0);
    let retype = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 REAL, c2", "k, c0, c1, c2");
    sql(&devices[1], &retype);
    devices[1].seal().unwrap();
    let rename = "ALTER TABLE t RENAME COLUMN c1 TO c5";
    let moved = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c2, c5 REAL, c6", "k, c0, c2, c5, NULL");
    sql(&devices[0], &format!("{retype}; {rename}; {moved}"));
    sql(&devices[2], &format!("{retype}; {rename}; {moved}"));
    sql(&devices[1], &format!("{rename}; ALTER TABLE t ADD COLUMN c6"));
    let all = in_step(&mut devices, "SELECT k, c5 FROM t ORDER BY k");
    assert_eq!(all, ["\"a\"|1.0r", "\"c\"|3.0r"]);
}

/// Of two columns that are gone, the one that was renamed and retyped has moved into the place of the other, of whose type it is
/// now: the log tells which, also to who has not looked in between. It was taken for the other, and the table was held for ever.
#[test]
fn a_column_that_moved_into_the_place_of_a_dropped_one_is_told_by_its_values() {
    let renamed = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c4 INTEGER", "k, c0, c1, c2");
    let dropped = "ALTER TABLE t DROP COLUMN c1";
    for looks in 0..3 {
        let (_world, mut devices) = devices(Merge::Cell);
        for (n, device) in devices.iter_mut().enumerate() {
            sql(device, &renamed);
            if n == looks {
                device.seal().unwrap();
            }
            sql(device, dropped);
        }
        let all = in_step(&mut devices, "SELECT k, c4 FROM t");
        assert_eq!(all, ["\"k\"|2"]);
        sql(&devices[0], "UPDATE t SET c4 = 7");
        assert_eq!(in_step(&mut devices, "SELECT c4 FROM t"), ["7"]);
    }
}

/// The control: a column that stands where another of its type did, and has its values, is that one.
#[test]
fn a_column_that_is_renamed_where_the_next_is_dropped_is_no_other() {
    let (_world, mut devices) = devices(Merge::Cell);
    let migrated = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c4 INTEGER", "k, c0, c1");
    devices.iter().for_each(|device| sql(device, &migrated));
    let all = in_step(&mut devices, "SELECT k, c4 FROM t");
    assert_eq!(all, ["\"k\"|1"]);
    let names = "SELECT count(*) FROM _pm_declared WHERE what = 5 AND name = 'c1'";
    assert_ne!(rows(&devices[0], names), ["0"]);
}

/// What a device whose columns follow has announced last says of a UNIQUE that the applications have dropped since: who hears it
/// first makes none that stays.
#[test]
fn a_unique_that_one_who_was_away_still_announces_comes_back_nowhere() {
    let world = World::new();
    let mut devices = ["a", "b", "c", "d"].map(|name| world.board(name));
    for device in &mut devices[..2] {
        sql(device, &format!("CREATE TABLE t ({COLUMNS})"));
        device.track("t", &TrackOptions::default()).unwrap();
    }
    let all = |devices: &mut [Engine; 4], n: usize| {
        for (from, to) in (0..n).flat_map(|from| (0..n).map(move |to| (from, to))).filter(|(a, b)| a != b) {
            carry_between(devices, from, to);
        }
    };
    for device in &devices[..2] {
        sql(device, "CREATE UNIQUE INDEX of_c2 ON t (c2)");
    }
    sql(&devices[0], "INSERT INTO t VALUES ('k', 'zero', 1, 2)");
    (0..2).for_each(|_| all(&mut devices, 3));
    for device in &devices[..2] {
        sql(device, "DROP INDEX of_c2");
    }
    (0..2).for_each(|_| all(&mut devices, 2));
    sql(&devices[0], "INSERT INTO t VALUES ('l', 'one', 1, 2)");
    carry_between(&mut devices, 2, 3);
    (0..3).for_each(|_| all(&mut devices, 4));
    for device in &devices {
        assert_eq!(
            rows(device, "SELECT k FROM t ORDER BY k"),
            ["\"k\"", "\"l\""],
            "{}",
            device.identity().name
        );
        let uniques = "SELECT count(*) FROM pragma_index_list('t') WHERE \"unique\" AND origin = 'c'";
        assert_eq!(rows(device, uniques), ["0"], "{}", device.identity().name);
        assert!(device.conflicts().unwrap().is_empty());
    }
    digests_equal(&devices.each_ref());
}

/// What was written into a column of a held table that turned out to be one that was renamed was sealed under the number of a
/// column that the table does not have: the next import failed, for all tables.
#[test]
fn what_is_written_to_a_held_table_under_a_new_name_has_the_number_of_the_old_one() {
    for merge in [Merge::Cell, Merge::Row] {
        let (_world, mut devices) = empty(merge);
        // Nothing tells here that the two columns are one.
        sql(&devices[1], "INSERT INTO t VALUES ('k', 'zero', 1, NULL)");
        carry_between(&mut devices, 2, 1);
        let renamed = rebuild("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c3", "k, c0, c1, c2");
        sql(&devices[1], &renamed);
        carry_between(&mut devices, 2, 1);
        assert!(note(&devices[1]).is_some_and(|note| note.contains("`c2` is gone here")), "the control");
        sql(&devices[1], "UPDATE t SET c3 = 5");
        sql(&devices[2], &renamed);
        sql(&devices[0], &renamed);
        assert_eq!(in_step(&mut devices, "SELECT k, c1, c3 FROM t"), ["\"k\"|1|5"]);
    }
}
