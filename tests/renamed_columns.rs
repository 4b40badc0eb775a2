//! Columns that are called otherwise on some devices, or are said to be: in tables that were made anew, by steps that some take at
//! once, and by what is heard in frames and in states.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
mod migrating;
use common::*;
use migrating::*;
use packmule::{Engine, Merge, TrackOptions};

/// Three devices with a table, in which two of them have written one row.
fn with_two_versions() -> (World, [Engine; 3]) {
    let world = World::new();
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for (device, row) in devices.iter_mut().zip(["", "9, 'two'", "12, 'one'"]) {
        sql(device, "CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER, c0 TEXT, c1 TEXT)");
        device.track("t", &TrackOptions::default()).unwrap();
        if !row.is_empty() {
            sql(device, &format!("INSERT INTO t VALUES ('p', {row}, 'A')"));
        }
        device.seal().unwrap();
    }
    (world, devices)
}

/// What was written is in the versions of one conflict, and the row is one of them.
fn is_one_of_both(devices: &mut [Engine], column: &str) {
    let row = in_step(devices, &format!("SELECT n, {column} FROM t WHERE k = 'p'")).remove(0);
    assert!(["12|\"one\"", "9|\"two\""].contains(&row.as_str()), "{row}");
    let listed = format!("{:?}", devices[0].conflicts().unwrap());
    assert!(["one", "two"].iter().all(|v| listed.contains(&format!("{:?}", v.as_bytes()))), "{listed}");
}

/// A device that took two columns for others heard that they are one from one that had seen the other writer by then: it took
/// that for what had been seen before, and one version lost its value to the other.
#[test]
fn what_a_device_had_seen_when_it_renames_it_had_not_seen_before() {
    let (_world, mut devices) = with_two_versions();
    let to = "k TEXT PRIMARY KEY, n INTEGER, c5 TEXT, c6 TEXT, c7 TEXT";
    sql(&devices[0], &rebuild(to, "k, n, c0, NULL, NULL"));
    devices[0].seal().unwrap();
    for (from, to) in [(1, 0), (2, 0), (2, 1), (1, 2)] {
        carry_between(&mut devices, from, to);
    }
    for device in &devices[1..] {
        sql(device, "ALTER TABLE t RENAME COLUMN c0 TO c5; ALTER TABLE t DROP COLUMN c1");
        sql(device, "ALTER TABLE t ADD COLUMN c6 TEXT; ALTER TABLE t ADD COLUMN c7 TEXT");
    }
    is_one_of_both(&mut devices, "c5");
}

/// A migration in two steps, of which each of two devices takes both at once or lets a run come between, while they have written
/// one row concurrently: a column that was dropped in the first step was taken for the one that was renamed in the second, and
/// the row was one version with a value of the other.
#[test]
fn steps_that_a_device_takes_at_once_are_the_same_as_one_by_one() {
    let make =
        |columns: &str, from: &str| rebuild(&format!("k TEXT PRIMARY KEY, n INTEGER, {columns}"), from);
    let rename = |from: &str, to: &str| format!("ALTER TABLE t RENAME COLUMN {from} TO {to}");
    let drop = make("c0 TEXT", "k, n, c0");
    let add = make("c0 TEXT, c1 TEXT, c2 TEXT DEFAULT 'x'", "k, n, c0, c1, 'x'");
    let crossed = make("c6 TEXT, c5 TEXT", "k, n, c1, c0");
    let kinds = [
        (drop.clone(), rename("c0", "c5"), "c5"),
        (rename("c0", "c5"), make("c5 TEXT", "k, n, c5"), "c5"),
        (drop.clone(), make("c5 TEXT", "k, n, c0"), "c5"),
        (add.clone(), rename("c0", "c5"), "c5"),
        (make("c0 TEXT, c2 TEXT", "k, n, c0, NULL"), rename("c0", "c5"), "c5"),
        (rename("c0", "c5"), rename("c5", "c0"), "c0"),
        (drop, format!("{}; {}", rename("c0", "c5"), rename("c5", "c0")), "c0"),
        (rename("c0", "c5"), make("c0 TEXT, c1 TEXT", "k, n, c5, c1"), "c0"),
        (crossed, rename("c5", "c7"), "c7"),
        (add, format!("{}; {}", rename("c0", "c5"), rename("c1", "c6")), "c5"),
    ];
    for (n, (first, second, column)) in kinds.iter().enumerate() {
        for at_once in [[false; 2], [true, false], [false, true], [true; 2]] {
            let world = World::new();
            let mut devices = ["a", "b"].map(|name| world.board(name));
            for device in &mut devices {
                sql(device, "CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER, c0 TEXT, c1 TEXT DEFAULT 'A')");
                device.track("t", &TrackOptions::default()).unwrap();
            }
            meet(&mut devices);
            sql(&devices[1], "INSERT INTO t (k, n, c0) VALUES ('p', 9, 'two')");
            devices[1].seal().unwrap();
            sql(&devices[0], "INSERT INTO t (k, n, c0) VALUES ('p', 12, 'one')");
            println!("{n} {at_once:?}: {first}; {second}");
            for at in (0..2).filter(|at| !at_once[*at]) {
                devices[at].seal().unwrap();
                sql(&devices[at], first);
            }
            for (from, to) in [(1, 0), (0, 1), (1, 0)] {
                carry_between(&mut devices, from, to);
            }
            for at in 0..2 {
                if at_once[at] {
                    sql(&devices[at], first);
                }
                sql(&devices[at], second);
            }
            is_one_of_both(&mut devices, column);
        }
    }
}

/// What others write under a name was taken for what another column is called so now, and one version lost its value. Such a
/// table is held, whose columns have exchanged names or have one from another, and goes on when they have names of their own.
#[test]
fn a_column_that_gets_the_name_of_another_holds_the_table() {
    let rename = |from: &str, to: &str| format!("ALTER TABLE t RENAME COLUMN {from} TO {to}");
    let exchange = [rename("c0", "x"), rename("c1", "c0"), rename("x", "c1")].join("; ");
    let kinds = [
        ("SELECT 1".to_owned(), exchange, [rename("c1", "c9"), rename("c0", "c8")].join("; "), "c9"),
        (
            "SELECT 1".to_owned(),
            [rename("c0", "c5"), rename("c1", "c0")].join("; "),
            rename("c0", "c8"),
            "c5",
        ),
        (
            "SELECT 1".to_owned(),
            [rename("c1", "c6"), rename("c0", "c1")].join("; "),
            rename("c1", "c9"),
            "c9",
        ),
        (rename("c1", "c6"), rename("c0", "c1"), rename("c1", "c9"), "c9"),
        (rename("c1", "c6"), rename("c0", "c1"), rename("c1", "c0"), "c0"),
    ];
    for (first, second, own_names, column) in &kinds {
        let (_world, mut devices) = with_two_versions();
        devices.iter().for_each(|device| sql(device, first));
        meet(&mut devices);
        devices.iter().for_each(|device| sql(device, second));
        meet(&mut devices);
        for device in &devices {
            let note = note(device).unwrap();
            assert!(note.contains("as another of its columns was called"), "{second}: {note}");
        }
        sql(&devices[0], own_names);
        meet(&mut devices);
        devices[1..].iter().for_each(|device| sql(device, own_names));
        is_one_of_both(&mut devices, column);
    }
}

/// A follower asked whether a column was gone before it had recorded that a newcomer has it: who had heard the newcomer first had
/// the column, and who had heard first that it was dropped did not.
#[test]
fn a_column_that_a_newcomer_has_is_there_whomever_a_follower_heard_first() {
    let world = World::new();
    let mut devices = ["a", "newcomer", "f", "g"].map(|name| world.board(name));
    for device in &mut devices[..2] {
        sql(device, "CREATE TABLE t (k TEXT PRIMARY KEY, c0 TEXT, c1 TEXT)");
        device.track("t", &TrackOptions::default()).unwrap();
    }
    sql(&devices[0], "INSERT INTO t VALUES ('a', 'zero', 'one')");
    for to in [2, 3] {
        carry_between(&mut devices, 0, to);
        carry_between(&mut devices, to, 0);
    }
    sql(&devices[0], "ALTER TABLE t DROP COLUMN c1");
    sql(&devices[1], "INSERT INTO t VALUES ('n', 'zero', 'of the newcomer')");
    for (from, to) in [(0, 2), (1, 2), (1, 3), (0, 3)] {
        carry_between(&mut devices, from, to);
    }
    for device in &devices[2..] {
        let row = rows(device, "SELECT c1 FROM t WHERE k = 'n'");
        assert_eq!(row, ["\"of the newcomer\""], "{}", device.identity().name);
    }
    sql(&devices[1], "ALTER TABLE t DROP COLUMN c1");
    let all = in_step(&mut devices, "SELECT * FROM t ORDER BY k");
    assert_eq!(all, ["\"a\"|\"zero\"", "\"n\"|\"zero\""]);
}

/// The same value is shown in a column whether a device hears by frames or in a state that others call it otherwise.
#[test]
fn what_came_under_a_new_name_is_read_when_a_state_tells_that_name() {
    for folded in [false, true] {
        let world = World::new();
        let mut devices = ["a", "newcomer", "late"].map(|name| world.board(name));
        let mut base = world.base("base");
        for (device, column) in devices.iter_mut().zip(["c0", "c5", "c0"]) {
            sql(device, &format!("CREATE TABLE t (k TEXT PRIMARY KEY, {column} TEXT)"));
            device.track("t", &TrackOptions::default()).unwrap();
        }
        sql(&devices[0], "INSERT INTO t VALUES ('a', 'one')");
        sql(&devices[1], "INSERT INTO t VALUES ('n', 'of the newcomer')");
        carry_between(&mut devices, 1, 2);
        let [a, _, late] = &mut devices;
        sql(a, "ALTER TABLE t RENAME COLUMN c0 TO c5");
        for _ in 0..3 {
            carry(a, &mut base);
            carry(&mut base, a);
        }
        if folded {
            base.compact().unwrap();
        }
        carry(&mut base, late);
        assert_eq!(rows(late, "SELECT c0 FROM t WHERE k = 'n'"), ["\"of the newcomer\""], "{folded}");
    }
}

/// Two devices whose applications have made a table, and one whose columns follow.
fn with_follower(columns: &str, merge: Merge) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut devices = ["a", "b", "follower"].map(|name| world.board(name));
    for device in &mut devices[..2] {
        sql(device, &format!("CREATE TABLE t ({columns})"));
        device.track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
    }
    (world, devices)
}

/// A device sent a state that had a column of which it did not know yet that others call it otherwise. The receiver knew, and
/// took it that the versions which were not read there had lost their value: one conflict had other ids than elsewhere.
#[test]
fn a_column_that_the_maker_of_a_state_takes_for_another_is_read_in_what_others_wrote() {
    let (_world, mut devices) = with_follower("k TEXT PRIMARY KEY, c0 TEXT, c1 INTEGER, c2", Merge::Row);
    let carry_all = |devices: &mut [Engine; 3], ways: &[(usize, usize)]| {
        ways.iter().for_each(|(from, to)| drop(carry_between(devices, *from, *to)));
    };
    carry_all(&mut devices, &[(1, 2), (2, 0)]);
    sql(&devices[0], "ALTER TABLE t DROP COLUMN c0");
    carry_all(&mut devices, &[(0, 1), (1, 2)]);
    sql(&devices[0], "INSERT INTO t VALUES ('p', NULL, 'of a')");
    sql(&devices[1], "INSERT INTO t VALUES ('p', 'zero', '26', 'of b')");
    devices[2].compact().unwrap();
    let to = rebuild("k TEXT PRIMARY KEY, c4 TEXT, c2", "k, c1, c2");
    // The first one in one step, without a run between: to it c5 is a new column.
    sql(&devices[0], &format!("{to}; ALTER TABLE t RENAME COLUMN c4 TO c5"));
    sql(&devices[1], &to);
    carry_all(&mut devices, &[(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)]);
    sql(&devices[1], "ALTER TABLE t RENAME COLUMN c4 TO c5");
    meet(&mut devices);
    let ids = |device: &Engine| device.conflicts().unwrap().into_iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(ids(&devices[0]).len(), 1);
    for device in &devices[1..] {
        assert_eq!(ids(device), ids(&devices[0]), "{}", device.identity().name);
    }
    let listed = format!("{:?}", devices[1].conflicts().unwrap());
    assert!(listed.contains(&format!("(\"c5\", Text({:?}))", b"26")), "{listed}");
}

/// What the maker of a state knows of renamed columns was forgotten before it was asked for: a version that its author had
/// overwritten under the new name was taken to be unread there, and was in conflict with the one that had overwritten it.
#[test]
fn what_was_overwritten_under_a_new_name_is_so_in_a_state_too() {
    let (_world, mut devices) = with_follower("k TEXT PRIMARY KEY, c0, c1", Merge::Cell);
    carry_between(&mut devices, 0, 1);
    sql(&devices[0], "INSERT INTO t VALUES ('p', 0, 'before')");
    devices[1].compact().unwrap();
    carry_between(&mut devices, 1, 0);
    let migrate = "ALTER TABLE t RENAME COLUMN c1 TO c2; ALTER TABLE t ADD COLUMN c3";
    sql(&devices[1], migrate);
    sql(&devices[0], "UPDATE t SET c1 = 'after'");
    sql(&devices[0], migrate);
    assert_eq!(in_step(&mut devices, "SELECT c2 FROM t"), ["\"after\""]);
    assert!(devices[2].conflicts().unwrap().is_empty());
}
