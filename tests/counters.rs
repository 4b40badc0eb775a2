//! Counters of every storage class: what was added adds up, on every device alike, and no seal changes what an
//! application wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, Engine, OwnedValue, Resolution, TrackOptions};

/// Three devices with a counter of this type, at this value.
fn three(decl_type: &str, value: &str) -> (World, [Engine; 3]) {
    let world = World::new();
    let options =
        TrackOptions { columns: vec![("n".into(), ColumnMerge::Counter)], ..TrackOptions::default() };
    let mut devices = ["a", "b", "c"].map(|name| world.board(name));
    for device in &mut devices {
        sql(device, &format!("CREATE TABLE meter (k TEXT PRIMARY KEY, n {decl_type})"));
        device.track("meter", &options).unwrap();
    }
    sql(&devices[0], &format!("INSERT INTO meter VALUES ('house', {value})"));
    carry_all(&mut devices.each_mut());
    (world, devices)
}

fn shown(device: &Engine) -> String {
    rows(device, "SELECT n FROM meter").concat()
}

/// Each writes, seals, and still shows what it wrote; then all meet, in one order or the other. Returns what all show.
fn meet(devices: &mut [Engine; 3], writes: [&str; 3], backwards: bool) -> String {
    for (device, write) in devices.iter_mut().zip(writes).filter(|(_, write)| !write.is_empty()) {
        for one in write.split(';') {
            sql(device, &format!("UPDATE meter SET n = {one}"));
        }
        let before = shown(device);
        device.seal().unwrap();
        assert_eq!(shown(device), before, "a seal changes no row");
    }
    let mut all: Vec<&mut Engine> = devices.iter_mut().collect();
    if backwards {
        all.reverse();
    }
    carry_all(&mut all);
    digests_equal(&devices.each_ref());
    assert!(devices.iter().all(|d| d.conflicts().unwrap().is_empty()));
    shown(&devices[0])
}

#[test]
fn additions_of_every_kind_add_up() {
    for (decl_type, at, writes, expected) in [
        ("REAL", "100", ["n + 5", "n + 0.5; n + 0.25", ""], "105.75r"),
        ("NUMERIC", "100", ["n + 0.5", "n + 0.5", "n + 1"], "102"),
        ("", "1", ["n + 1.5", "n + 1", ""], "3.5r"),
        ("INTEGER", "9223372036854775800", ["n + 7", "n + 7", "n + 7"], "9223372036854775807"),
        ("INTEGER", "-9223372036854775800", ["n - 8", "n - 8", ""], "-9223372036854775808"),
        ("REAL", "0.1", ["n + 0.2", "n + 1e16", "n - 0.3"], ""),
        // What cannot be added is what it says; what was added beside it counts on top where it is a number.
        ("INTEGER", "10", ["NULL", "", ""], "NULL"),
        ("INTEGER", "10", ["'off'", "n + 1", ""], "\"off\""),
        ("INTEGER", "NULL", ["5", "", ""], "5"),
        ("TEXT", "'10'", ["n + 1", "", ""], "\"11\""),
        ("REAL", "1e16", ["0.1", "", ""], "0.1r"),
        ("", "x'00'", ["x'0102'", "", ""], "[01, 02]"),
        ("INTEGER", "-9223372036854775808", ["9223372036854775807", "n + 1", ""], ""),
    ] {
        let mut seen = Vec::new();
        for backwards in [false, true] {
            let (_world, mut devices) = three(decl_type, at);
            let all = meet(&mut devices, writes, backwards);
            assert!(expected.is_empty() || all == expected, "{decl_type} {at} {writes:?}: {all}");
            seen.push(all);
            // What comes after had seen all of it.
            let before = shown(&devices[1]);
            assert_eq!(meet(&mut devices, ["n", "n", "n"], backwards), before);
        }
        if decl_type != "REAL" {
            assert_eq!(seen[0], seen[1], "{decl_type} {at} {writes:?}");
        }
    }
}

/// Many additions that rounding makes depend on their order, with a compaction on one side only.
#[test]
fn sums_are_the_same_whoever_compacts() {
    for (decl_type, step) in [("REAL", "n * 1.1 + 0.1"), ("INTEGER", "n + 4611686018427387904")] {
        for backwards in [false, true] {
            let (_world, mut devices) = three(decl_type, "3");
            for round in 0..6 {
                meet(
                    &mut devices,
                    [step, "n - 0.7; n + 3", if round % 2 == 0 { step } else { "" }],
                    backwards,
                );
                devices[round % 2].compact().unwrap();
            }
        }
    }
}

const SUMS: &str =
    "CREATE TABLE sums (id TEXT PRIMARY KEY, n INTEGER DEFAULT 0, r REAL DEFAULT 0, hi INTEGER, lo INTEGER)";

/// A board with a table that counts.
fn counting(world: &World, name: &str) -> Engine {
    let mut board = world.board(name);
    sql(&board, SUMS);
    let rules = [
        ("n", ColumnMerge::Counter),
        ("r", ColumnMerge::Counter),
        ("hi", ColumnMerge::Max),
        ("lo", ColumnMerge::Min),
    ];
    let columns = rules.map(|(column, rule)| (column.into(), rule)).into();
    board.track("sums", &TrackOptions { columns, ..TrackOptions::default() }).unwrap();
    board
}

/// All meet, and all compact; nobody remembers then what the sums are made of.
fn settle(devices: &mut [Engine]) {
    for _ in 0..3 {
        carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
        devices.iter_mut().for_each(|device| drop(device.compact().unwrap()));
    }
    assert_eq!(
        rows(
            &devices[0],
            &format!("SELECT (SELECT count(*) FROM _pm_count) + (SELECT count(*) FROM {HEADS})")
        ),
        ["0"]
    );
}

fn all_show(devices: &mut [Engine], query: &str, expected: &[&str]) {
    for _ in 0..2 {
        carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
    }
    digests_equal(&devices.iter().collect::<Vec<_>>());
    for device in devices.iter() {
        assert_eq!(rows(device, query), expected, "{}", device.identity().name);
        assert_eq!(device.conflicts().unwrap(), devices[0].conflicts().unwrap());
    }
}

/// Two sums that were settled apart, and neither had seen all of the other: both are listed, the greater is shown, what is
/// added adds up, and somebody says what it is. `max` and `min` take theirs.
#[test]
fn sums_that_were_settled_apart_are_both_listed() {
    let world = World::new();
    let mut all = vec![counting(&world, "a"), world.board("b")];
    let mut others = vec![counting(&world, "c"), world.board("d")];
    for (group, values) in [(&mut all, "5, 0.5, 50, 5"), (&mut others, "3, 2.5, 80, 2")] {
        sql(&group[0], &format!("INSERT INTO sums VALUES ('one', {values}), ('same', 1, 1.5, 1, 1)"));
        sql(&group[0], "UPDATE sums SET n = n + 1 WHERE id = 'one'");
        settle(group);
    }
    // One that is added before they meet.
    sql(&all[0], "UPDATE sums SET n = n + 10 WHERE id = 'one'");
    all.extend(others);
    all_show(&mut all, "SELECT * FROM sums ORDER BY id", &["\"one\"|16|2.5r|80|2", "\"same\"|1|1.5r|1|1"]);
    let open = all[0].conflicts().unwrap();
    assert_eq!(open.len(), 1, "{open:#?}");
    let sums = |name: &str| -> Vec<String> {
        let of = open[0].versions.iter().flat_map(|v| v.values.iter());
        of.filter(|(column, _)| column == name).map(|(_, value)| format!("{value:?}")).collect()
    };
    assert!(sums("n").contains(&"Int(6)".into()) && sums("n").contains(&"Int(4)".into()), "{open:#?}");
    assert!(sums("r").contains(&"Real(0.5)".into()) && sums("r").contains(&"Real(2.5)".into()), "{open:#?}");
    sql(&all[1], "UPDATE sums SET r = r + 0.25 WHERE id = 'same'");
    // One device met both, and says both: what it is to be is set, as for any two versions of one device.
    let id = open[0].id.clone();
    all[2].resolve(&id, &Resolution::Set(vec![("n".into(), OwnedValue::Int(4))])).unwrap();
    all_show(&mut all, "SELECT id, n, hi FROM sums ORDER BY id", &["\"one\"|4|80", "\"same\"|1|1"]);
    assert!(all[0].conflicts().unwrap().is_empty());
}

/// What is added late to a settled sum adds up: integers by the frame alone, without a word in a verdict; reals by a
/// verdict, in the same order everywhere, though one still remembers what the sum is made of.
#[test]
fn late_additions_add_up() {
    let world = World::new();
    let mut all = vec![counting(&world, "a"), world.board("b"), world.board("late")];
    sql(&all[0], "INSERT INTO sums VALUES ('one', 5, 0.1, 0, 0)");
    carry_all(&mut all.iter_mut().collect::<Vec<_>>());
    // It writes, and is retired before anybody hears of it.
    sql(&all[2], "UPDATE sums SET n = n + 100, r = r + 0.2 WHERE id = 'one'");
    all[2].seal().unwrap();
    let late = all[2].identity().id;
    for device in &mut all[..2] {
        device.retire(late, None).unwrap();
    }
    for n in 1..4 {
        sql(&all[n % 2], "UPDATE sums SET n = n + 1, r = r + 0.7 WHERE id = 'one'");
        let [a, b, _] = &mut all[..] else { unreachable!() };
        carry_all(&mut [a, b]);
    }
    let [a, b, _] = &mut all[..] else { unreachable!() };
    for _ in 0..2 {
        a.compact().unwrap();
        carry_all(&mut [a, b]);
    }
    assert_eq!(rows(a, "SELECT count(*) FROM _pm_count"), ["0"]);
    assert_ne!(rows(b, "SELECT count(*) FROM _pm_count"), ["0"]);
    all_show(&mut all, "SELECT n FROM sums", &["108"]);
    assert!(all[0].conflicts().unwrap().is_empty());
}

/// A base and two boards with a counter beside a plain column.
fn meters(world: &World) -> [Engine; 3] {
    let options =
        TrackOptions { columns: vec![("n".into(), ColumnMerge::Counter)], ..TrackOptions::default() };
    [world.base("base"), world.board("a"), world.board("b")].map(|mut device| {
        sql(&device, "CREATE TABLE meter (k TEXT PRIMARY KEY, n INTEGER DEFAULT 7, note TEXT)");
        device.track("meter", &options).unwrap();
        device
    })
}

/// What a delete says that the counter was counts beside an insert that had not seen it. One device has folded the delete, and
/// hears of both the insert and an update of another column of it.
#[test]
fn what_a_folded_delete_said_of_a_counter_is_decided_for_all() {
    let world = World::new();
    let mut devices = meters(&world);
    sql(&devices[1], "INSERT INTO meter VALUES ('house', 3, NULL)");
    carry_between(&mut devices, 1, 0);
    sql(&devices[1], "DELETE FROM meter");
    carry_between(&mut devices, 1, 0);
    assert!(devices[0].compact().unwrap().versions > 0);
    sql(&devices[2], "INSERT INTO meter VALUES ('house', 2, NULL)");
    carry_between(&mut devices, 2, 1);
    assert_eq!(shown(&devices[1]), "3");
    sql(&devices[1], "UPDATE meter SET note = 'new'");
    carry_between(&mut devices, 1, 0);
    carry_all(&mut devices.each_mut());
    digests_equal(&devices.each_ref());
    let all = devices.each_ref().map(|device| rows(device, "SELECT n, note FROM meter"));
    assert!(all.iter().all(|rows| *rows == all[0]), "{all:?}");
}

/// The same of an update of another column, whose author had the row and had not seen that it was deleted: it meets the device
/// that has folded the delete, or gets that one's state.
#[test]
fn what_a_folded_delete_said_of_a_counter_is_decided_where_an_update_has_the_row_again() {
    for meets in [[(2, 1), (2, 0)], [(0, 2), (2, 1)]] {
        let world = World::new();
        let mut devices = meters(&world);
        sql(&devices[0], "INSERT INTO meter VALUES ('house', 3, NULL)");
        carry_all(&mut devices.each_mut());
        sql(&devices[0], "DELETE FROM meter");
        carry_between(&mut devices, 0, 1);
        sql(&devices[2], "UPDATE meter SET note = 'new'");
        devices[2].seal().unwrap();
        // Of the boards, the one has the delete in its log, and the other has not heard of it.
        let late = devices[2].identity().id;
        devices[0].retire(late, Some(&world.fleet)).unwrap();
        carry_between(&mut devices, 1, 0);
        assert!(devices[0].compact().unwrap().versions > 0);
        for (from, to) in meets {
            carry_between(&mut devices, from, to);
        }
        carry_all(&mut devices.each_mut());
        let all = devices.each_ref().map(|device| rows(device, "SELECT n, note FROM meter"));
        assert!(all.iter().all(|rows| *rows == all[0]) && all[0].len() == 1, "{meets:?}: {all:?}");
        digests_equal(&devices.each_ref());
    }
}

/// A row that one device restates, in a table that it makes anew, and another inserts without having seen it: where nobody had
/// it before, where all had it, and where one has deleted and another folded it.
#[test]
fn a_counter_that_is_restated_beside_an_insert_is_the_same_everywhere() {
    let befores: [&[&str]; 4] = [
        &[],
        &["INSERT INTO meter VALUES ('house', 1, 'x')"],
        &["INSERT INTO meter VALUES ('house', 1, 'x')", "DELETE FROM meter"],
        &["INSERT INTO meter VALUES ('house', 1, 'x')", "UPDATE meter SET n = n + 1"],
    ];
    let mut cases = Vec::new();
    for before in befores {
        for folds in [false, true] {
            for theirs in [
                "DELETE FROM meter; INSERT INTO meter VALUES ('house', 3, 'b')",
                "UPDATE meter SET n = n + 2",
            ] {
                let later = |first| if first == 1 { "UPDATE meter SET n = n + 10" } else { "" };
                cases.extend([1, 2].map(|first| (before, folds, theirs, later(first), first)));
            }
        }
    }
    for case in cases {
        restated_beside(case);
    }
}

fn restated_beside((before, folds, theirs, later, first): (&[&str], bool, &str, &str, usize)) {
    let case = format!("{before:?}, folds: {folds}, {theirs}, {later}, {first}");
    let world = World::new();
    let mut devices = meters(&world);
    for statement in before {
        sql(&devices[0], statement);
        devices[0].seal().unwrap();
    }
    (0..2).for_each(|_| carry_all(&mut devices.each_mut()));
    if folds {
        devices[0].compact().unwrap();
        devices[1].compact().unwrap();
    }
    sql(
        &devices[1],
        "CREATE TABLE made (k TEXT PRIMARY KEY, n INTEGER DEFAULT 7, note TEXT);
         INSERT INTO made SELECT * FROM meter; INSERT OR REPLACE INTO made VALUES ('house', 5, 'a');
         DROP TABLE meter; ALTER TABLE made RENAME TO meter",
    );
    devices[1].seal().unwrap();
    sql(&devices[2], theirs);
    devices[2].seal().unwrap();
    sql(&devices[1], later);
    carry_between(&mut devices, first, 0);
    (0..2).for_each(|_| carry_all(&mut devices.each_mut()));
    let all = devices.each_ref().map(|device| rows(device, "SELECT n, note FROM meter"));
    assert!(all.iter().all(|rows| *rows == all[0]), "{case}: {all:?}");
    digests_equal(&devices.each_ref());
}
