//! Merge by cell and the policies: what concurrent writes come to, in every order of arrival.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ColumnMerge, ConflictKind, Engine, Merge, OwnedValue, Policy, Resolution, TrackOptions};

const SENSORS: &str =
    "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT DEFAULT 'shed', unit TEXT, n INTEGER DEFAULT 0)";

fn options(merge: Merge, policy: Policy, columns: &[(&str, ColumnMerge)]) -> TrackOptions {
    let columns = columns.iter().map(|(name, merge)| (name.to_string(), *merge)).collect();
    TrackOptions { merge, policy, columns, ..TrackOptions::default() }
}

/// Three devices with one row `s1` (place 'barn', unit 'C', n 10).
fn three(options: &TrackOptions) -> (World, [Engine; 3]) {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, SENSORS);
    a.track("sensors", options).unwrap();
    sql(&a, "INSERT INTO sensors VALUES ('s1', 'barn', 'C', 10)");
    let mut b = world.board("b");
    let mut c = world.board("c");
    carry(&mut a, &mut b);
    carry(&mut a, &mut c);
    (world, [a, b, c])
}

/// Does something on each device, a second apart (the first last, if `backwards`), and carries it
/// all about; then everybody must show the same.
fn concurrently(world: &World, devices: &mut [Engine; 3], statements: [&str; 3], backwards: bool) {
    let order: Vec<usize> = if backwards { vec![2, 1, 0] } else { vec![0, 1, 2] };
    for at in order {
        world.tick(1000);
        if !statements[at].is_empty() {
            sql(&devices[at], statements[at]);
        }
        devices[at].seal().unwrap();
    }
    let [a, b, c] = devices;
    carry_all(&mut [a, b, c]);
    digests_equal(&[a, b, c]);
    assert_eq!(a.conflicts().unwrap(), c.conflicts().unwrap());
}

fn shown(device: &Engine) -> Vec<String> {
    rows(device, "SELECT place, unit, n FROM sensors ORDER BY id")
}

#[test]
fn by_cell_edits_of_different_columns_merge() {
    for backwards in [false, true] {
        let (world, mut d) = three(&options(Merge::Cell, Policy::Manual, &[]));
        concurrently(
            &world,
            &mut d,
            [
                "UPDATE sensors SET place = 'roof'",
                "UPDATE sensors SET unit = 'F'",
                "UPDATE sensors SET n = 11",
            ],
            backwards,
        );
        assert_eq!(shown(&d[1]), ["\"roof\"|\"F\"|11"]);
        assert!(d[0].conflicts().unwrap().is_empty());
    }
}

#[test]
fn by_cell_edits_of_one_column_conflict_in_it_alone() {
    let (world, mut d) = three(&options(Merge::Cell, Policy::Manual, &[]));
    let set = [
        "UPDATE sensors SET place = 'roof', n = 1",
        "UPDATE sensors SET place = 'door'",
        "UPDATE sensors SET unit = 'F'",
    ];
    concurrently(&world, &mut d, set, false);
    assert_eq!(shown(&d[0]), ["\"door\"|\"F\"|1"]);
    let conflicts = d[0].conflicts().unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].kind, ConflictKind::UpdateUpdate);
    assert_eq!(conflicts[0].versions.len(), 2, "the third device is no party to it");
    let a = d[0].identity().id;
    d[2].resolve(&conflicts[0].id, &Resolution::Take(a)).unwrap();
    let [a, b, c] = &mut d;
    carry_all(&mut [a, b, c]);
    digests_equal(&[a, b, c]);
    assert_eq!(shown(a), ["\"roof\"|\"F\"|1"]);
    assert!(b.conflicts().unwrap().is_empty());
}

#[test]
fn by_cell_an_update_brings_the_whole_row_back() {
    for backwards in [false, true] {
        let (world, mut d) = three(&options(Merge::Cell, Policy::Manual, &[]));
        concurrently(&world, &mut d, ["DELETE FROM sensors", "UPDATE sensors SET n = 11", ""], backwards);
        assert_eq!(shown(&d[2]), ["\"barn\"|\"C\"|11"]);
        assert_eq!(d[2].conflicts().unwrap()[0].kind, ConflictKind::UpdateDelete);
    }
}

#[test]
fn lww_takes_the_last_writer_whatever_it_did() {
    for (statements, expected) in [
        (
            ["UPDATE sensors SET n = 1", "UPDATE sensors SET n = 2", "UPDATE sensors SET n = 3"],
            vec!["\"barn\"|\"C\"|3"],
        ),
        (["UPDATE sensors SET n = 1", "UPDATE sensors SET n = 2", "DELETE FROM sensors"], vec![]),
        (["DELETE FROM sensors", "UPDATE sensors SET n = 2", ""], vec!["\"barn\"|\"C\"|2"]),
    ] {
        for merge in [Merge::Row, Merge::Cell] {
            let (world, mut d) = three(&options(merge, Policy::Lww, &[]));
            for (at, statement) in statements.iter().enumerate() {
                if !statement.is_empty() {
                    sql(&d[at], statement);
                    written_at(&d[at], 1_800_000_000_000i64 + at as i64);
                }
            }
            concurrently(&world, &mut d, ["", "", ""], true);
            assert_eq!(shown(&d[0]), expected, "{statements:?} {merge:?}");
            assert!(d[0].conflicts().unwrap().is_empty());
        }
    }
}

#[test]
fn a_preferred_device_wins_and_others_conflict_among_themselves() {
    let world = World::new();
    let mut a = world.board("a");
    let mut b = world.board("b");
    let mut c = world.board("c");
    sql(&a, SENSORS);
    a.track("sensors", &options(Merge::Row, Policy::Prefer(b.identity().id), &[])).unwrap();
    sql(&a, "INSERT INTO sensors VALUES ('s1', 'barn', 'C', 10)");
    carry(&mut a, &mut b);
    carry(&mut a, &mut c);
    let mut d = [a, b, c];
    let set = ["UPDATE sensors SET n = 1", "UPDATE sensors SET n = 2", "UPDATE sensors SET n = 3"];
    concurrently(&world, &mut d, set, false);
    assert_eq!(shown(&d[0]), ["\"barn\"|\"C\"|2"]);
    assert!(d[0].conflicts().unwrap().is_empty());
    let set = ["UPDATE sensors SET n = 1", "", "UPDATE sensors SET n = 3"];
    concurrently(&world, &mut d, set, false);
    assert_eq!(shown(&d[0]), ["\"barn\"|\"C\"|3"]);
    assert_eq!(d[0].conflicts().unwrap().len(), 1);
}

#[test]
fn counters_add_up() {
    for merge in [Merge::Row, Merge::Cell] {
        for backwards in [false, true] {
            let (world, mut d) = three(&options(merge, Policy::Manual, &[("n", ColumnMerge::Counter)]));
            let set = [
                "UPDATE sensors SET n = n + 5",
                "UPDATE sensors SET n = n - 1; UPDATE sensors SET n = n + 3",
                "UPDATE sensors SET n = n + 100",
            ];
            concurrently(&world, &mut d, set, backwards);
            assert_eq!(shown(&d[1]), ["\"barn\"|\"C\"|117"], "{merge:?}");
            assert!(d[1].conflicts().unwrap().is_empty());
            concurrently(
                &world,
                &mut d,
                ["UPDATE sensors SET n = n + 1", "", "UPDATE sensors SET n = n + 1"],
                backwards,
            );
            assert_eq!(shown(&d[0]), ["\"barn\"|\"C\"|119"]);
        }
    }
}

#[test]
fn counters_of_rows_that_were_deleted_or_made_again() {
    for backwards in [false, true] {
        // Deleted on one side, added to on two others: the row comes back with both additions.
        let (world, mut d) = three(&options(Merge::Row, Policy::Manual, &[("n", ColumnMerge::Counter)]));
        let set = ["DELETE FROM sensors", "UPDATE sensors SET n = n + 1", "UPDATE sensors SET n = n + 2"];
        concurrently(&world, &mut d, set, backwards);
        assert_eq!(shown(&d[0]), ["\"barn\"|\"C\"|13"], "deleted; backwards: {backwards}");
        // Made again on one side: additions that it had not seen count on top.
        let (world, mut d) = three(&options(Merge::Row, Policy::Manual, &[("n", ColumnMerge::Counter)]));
        let set = [
            "DELETE FROM sensors; INSERT INTO sensors VALUES ('s1', 'barn', 'C', 100)",
            "UPDATE sensors SET n = n + 1",
            "",
        ];
        concurrently(&world, &mut d, set, backwards);
        assert_eq!(rows(&d[2], "SELECT n FROM sensors"), ["101"], "made again; backwards: {backwards}");
        // The same key made twice at once: the greater start, and what was added since.
        let (world, mut d) = three(&options(Merge::Row, Policy::Manual, &[("n", ColumnMerge::Counter)]));
        let set = [
            "INSERT INTO sensors VALUES ('s2', 'x', 'C', 3)",
            "INSERT INTO sensors VALUES ('s2', 'x', 'C', 5)",
            "",
        ];
        concurrently(&world, &mut d, set, backwards);
        concurrently(&world, &mut d, ["", "", "UPDATE sensors SET n = n + 1 WHERE id = 's2'"], backwards);
        assert_eq!(rows(&d[0], "SELECT n FROM sensors WHERE id = 's2'"), ["6"]);
    }
}

#[test]
fn max_min_and_lww_columns() {
    for backwards in [false, true] {
        let columns = [("n", ColumnMerge::Max), ("place", ColumnMerge::Min)];
        let (world, mut d) = three(&options(Merge::Row, Policy::Manual, &columns));
        let set = [
            "UPDATE sensors SET n = 50, place = 'zoo'",
            "UPDATE sensors SET n = 40, place = 'attic'",
            "UPDATE sensors SET n = 45",
        ];
        concurrently(&world, &mut d, set, backwards);
        assert_eq!(shown(&d[2]), ["\"attic\"|\"C\"|50"]);
        assert!(d[2].conflicts().unwrap().is_empty());
        // What was seen may be lowered again: only concurrent values compete.
        concurrently(&world, &mut d, ["UPDATE sensors SET n = 7", "", ""], backwards);
        assert_eq!(rows(&d[1], "SELECT n FROM sensors"), ["7"]);
    }
}

#[test]
fn a_policy_is_part_of_the_definition_and_travels() {
    let (_world, [mut a, mut b, _c]) =
        three(&options(Merge::Cell, Policy::Manual, &[("n", ColumnMerge::Counter)]));
    sql(&b, "UPDATE sensors SET n = n + 1");
    sql(&a, "UPDATE sensors SET n = n + 1");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&b, "SELECT n FROM sensors"), ["12"]);
    let other = b.track("sensors", &options(Merge::Row, Policy::Manual, &[]));
    assert!(matches!(other, Err(packmule::Error::CannotTrack { .. })), "a counter stays one: {other:?}");
}

#[test]
fn many_sealed_updates_of_one_row() {
    let (_world, [mut a, mut b, _c]) =
        three(&options(Merge::Cell, Policy::Manual, &[("n", ColumnMerge::Counter)]));
    for n in 0..200 {
        sql(&a, &format!("UPDATE sensors SET n = n + 1, place = 'p{n}'"));
        a.seal().unwrap();
    }
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
    assert_eq!(shown(&b), ["\"p199\"|\"C\"|210"]);
}

#[test]
fn the_host_application_may_decide() {
    let (world, mut d) = three(&TrackOptions::default());
    let set = ["UPDATE sensors SET n = 1", "UPDATE sensors SET n = 2", "UPDATE sensors SET n = 30"];
    concurrently(&world, &mut d, set, false);
    let n = d[0]
        .resolve_with(&mut |conflict| {
            let sum = conflict.versions.iter().filter_map(|v| match v.values[3].1 {
                OwnedValue::Int(n) => Some(n),
                _ => None,
            });
            Some(Resolution::Set(vec![("n".into(), OwnedValue::Int(sum.sum()))]))
        })
        .unwrap();
    assert_eq!(n, 1);
    let [a, b, c] = &mut d;
    carry_all(&mut [a, b, c]);
    digests_equal(&[a, b, c]);
    assert_eq!(rows(c, "SELECT n FROM sensors"), ["33"]);
    assert!(c.conflicts().unwrap().is_empty());
}

/// Rows that refer to rows of their own table: when both of two parents are kept, the children made twice are kept with
/// them, and the application is not asked about them any more.
#[test]
fn the_host_application_is_asked_of_open_conflicts_alone() {
    let world = World::new();
    let make = "CREATE TABLE nodes (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES nodes (id), v TEXT)";
    let mut a = world.board_with("a", make, &["nodes"]);
    let mut b = world.board_with("b", make, &["nodes"]);
    carry_all(&mut [&mut a, &mut b]);
    sql(&a, "INSERT INTO nodes VALUES (1, NULL, 'a'), (2, 1, 'child of a')");
    sql(&b, "INSERT INTO nodes VALUES (1, NULL, 'b'), (2, 1, 'child of b')");
    carry_all(&mut [&mut a, &mut b]);
    assert_eq!(a.conflicts().unwrap().len(), 2);
    let mut asked = 0;
    let closed = a.resolve_with(&mut |conflict| {
        asked += 1;
        assert_eq!(conflict.versions.len(), 2);
        Some(Resolution::KeepBoth)
    });
    assert_eq!((closed.unwrap(), asked), (1, 1));
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert!(b.conflicts().unwrap().is_empty());
    let pairs = "SELECT p.v, c.v FROM nodes c JOIN nodes p ON p.id = c.parent ORDER BY p.v";
    assert_eq!(rows(&b, pairs), ["\"a\"|\"child of a\"", "\"b\"|\"child of b\""]);
}
