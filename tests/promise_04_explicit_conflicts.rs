//! Promise 4: no concurrent write is lost silently.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{ConflictKind, OwnedValue, Resolution};

const SETTINGS: &str = "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT)";

fn text(value: &str) -> OwnedValue {
    OwnedValue::Text(value.into())
}

/// Two boards with the same row, edited on both.
fn contested() -> (World, packmule::Engine, packmule::Engine) {
    let world = World::new();
    let mut a = world.board_with("a", SETTINGS, &["settings"]);
    sql(&a, "INSERT INTO settings VALUES ('rate', '10'), ('unit', 'C')");
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT * FROM settings"), rows(&a, "SELECT * FROM settings"));
    world.tick(1000);
    sql(&a, "UPDATE settings SET value = '20' WHERE name = 'rate'");
    a.seal().unwrap();
    world.tick(1000);
    sql(&b, "UPDATE settings SET value = '30' WHERE name = 'rate'");
    b.seal().unwrap();
    (world, a, b)
}

#[test]
fn both_versions_are_listed_and_the_same_one_is_shown_everywhere() {
    let (_world, mut a, mut b) = contested();
    let report = carry(&mut a, &mut b);
    assert_eq!(report.conflicts_opened, 1);
    carry(&mut b, &mut a);
    digests_equal(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(
            rows(device, "SELECT value FROM settings WHERE name = 'rate'"),
            ["\"30\""],
            "the later one is shown"
        );
        let conflicts = device.conflicts().unwrap();
        assert_eq!(conflicts, a.conflicts().unwrap());
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].kind, ConflictKind::UpdateUpdate);
        let values: Vec<_> = conflicts[0].versions.iter().map(|v| v.values[1].1.clone()).collect();
        assert_eq!(values, [text("30"), text("20")]);
        assert_eq!(conflicts[0].versions[1].name.as_deref(), Some("a"));
        assert_eq!(conflicts[0].versions[1].at, Some(1_700_000_001_000));
    }
}

#[test]
fn every_way_to_resolve_settles_it_everywhere() {
    for (n, (resolution, expected)) in [
        (None, vec!["\"rate\"|\"20\"", "\"unit\"|\"C\""]),
        (
            Some(Resolution::Set(vec![("value".into(), text("25"))])),
            vec!["\"rate\"|\"25\"", "\"unit\"|\"C\""],
        ),
        (Some(Resolution::Delete), vec!["\"unit\"|\"C\""]),
        (Some(Resolution::KeepBoth), vec!["\"rate\"|\"30\"", "\"rate-a\"|\"20\"", "\"unit\"|\"C\""]),
    ]
    .into_iter()
    .enumerate()
    {
        let (_world, mut a, mut b) = contested();
        carry(&mut a, &mut b);
        let id = b.conflicts().unwrap()[0].id.clone();
        let resolution = resolution.unwrap_or(Resolution::Take(a.identity().id));
        b.resolve(&id, &resolution).unwrap();
        assert!(b.conflicts().unwrap().is_empty(), "{n}");
        carry(&mut b, &mut a);
        assert!(a.conflicts().unwrap().is_empty(), "{n}");
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&a, "SELECT * FROM settings ORDER BY name"), expected, "{n}");
    }
}

#[test]
fn an_ordinary_edit_after_both_were_seen_settles_it() {
    let (_world, mut a, mut b) = contested();
    carry(&mut a, &mut b);
    sql(&b, "UPDATE settings SET value = '40' WHERE name = 'rate'");
    b.seal().unwrap();
    assert!(b.conflicts().unwrap().is_empty());
    carry(&mut b, &mut a);
    assert!(a.conflicts().unwrap().is_empty());
    digests_equal(&[&a, &b]);
}

#[test]
fn two_resolutions_at_once_are_a_conflict_again() {
    let (world, mut a, mut b) = contested();
    carry(&mut a, &mut b);
    carry(&mut b, &mut a);
    let id = a.conflicts().unwrap()[0].id.clone();
    a.resolve(&id, &Resolution::Set(vec![("value".into(), text("1"))])).unwrap();
    world.tick(1000);
    b.resolve(&id, &Resolution::Set(vec![("value".into(), text("2"))])).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(a.conflicts().unwrap().len(), 1);
    assert_eq!(a.conflicts().unwrap()[0].versions.len(), 2);
}

#[test]
fn an_update_wins_over_a_delete_and_both_are_listed() {
    let (_world, mut a, mut b) = contested();
    sql(&a, "DELETE FROM settings WHERE name = 'unit'");
    sql(&b, "UPDATE settings SET value = 'F' WHERE name = 'unit'");
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    assert_eq!(rows(&a, "SELECT value FROM settings WHERE name = 'unit'"), ["\"F\""]);
    let conflicts = a.conflicts().unwrap();
    let conflict = conflicts.iter().find(|c| c.kind == ConflictKind::UpdateDelete).unwrap();
    assert_eq!(conflict.versions[1].op, packmule::VersionOp::Delete);
    a.resolve(&conflict.id, &Resolution::Take(a.identity().id)).unwrap();
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT value FROM settings WHERE name = 'unit'").len(), 0);
    digests_equal(&[&a, &b]);
}

#[test]
fn equal_writes_are_one_version() {
    let world = World::new();
    let mut a = world.board_with("a", SETTINGS, &["settings"]);
    let mut b = world.board_with("b", SETTINGS, &["settings"]);
    for device in [&a, &b] {
        sql(device, "INSERT INTO settings VALUES ('same', '1')");
    }
    carry_all(&mut [&mut a, &mut b]);
    assert!(a.conflicts().unwrap().is_empty());
    digests_equal(&[&a, &b]);
}

#[test]
fn rows_that_were_there_before_track_conflict_only_where_they_differ() {
    let world = World::new();
    let mut a = world.board("a");
    let mut b = world.board("b");
    sql(&a, &format!("{SETTINGS}; INSERT INTO settings VALUES ('x', '1'), ('y', 'of a')"));
    sql(&b, &format!("{SETTINGS}; INSERT INTO settings VALUES ('x', '1'), ('y', 'of b'), ('z', 'only b')"));
    a.track("settings", &Default::default()).unwrap();
    // B hears of A's rows before it tracks its own table, and still nothing of either is lost.
    let report = carry(&mut a, &mut b);
    assert_eq!(report.ops_waiting, 2);
    b.track("settings", &Default::default()).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    digests_equal(&[&a, &b]);
    let conflicts = a.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0].kind, ConflictKind::InsertInsert);
    assert_eq!(rows(&a, "SELECT name FROM settings ORDER BY 1"), ["\"x\"", "\"y\"", "\"z\""]);
}
