//! The life of a fleet: devices that were never waited for, groups that compact apart, restored backups. Whatever
//! happens, exchanging bundles brings all to the same state, and nobody changes its identity.
//!
//! `PACKMULE_FLEETS=N` says how many random fleets live, from `PACKMULE_FIRST=N` on; `PACKMULE_SEED=N` replays one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::io::Cursor;

use common::*;
use packmule::core::model::DeviceId;
use packmule::{Engine, ImportReport, Recipient};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)";

fn pack(of: &mut Engine, whom: DeviceId) -> Vec<u8> {
    let mut bytes = Vec::new();
    of.export(&mut bytes, Recipient::Device(whom)).unwrap();
    bytes
}

fn take(engine: &mut Engine, bundle: &[u8]) -> ImportReport {
    engine.import(&mut Cursor::new(bundle), &mut |_| {}).unwrap()
}

/// Everybody gives everybody what it lacks.
fn round(devices: &mut [Engine]) {
    for from in 0..devices.len() {
        for to in 0..devices.len() {
            if from != to {
                let whom = devices[to].identity().id;
                let bundle = pack(&mut devices[from], whom);
                take(&mut devices[to], &bundle);
            }
        }
    }
}

fn notes(engine: &Engine) -> Vec<String> {
    rows(engine, "SELECT id || '=' || body FROM notes ORDER BY id")
}

#[test]
fn a_newcomer_with_rows_of_its_own_meets_who_has_folded() {
    let world = World::new();
    let mut devices = vec![world.board_with("a", NOTES, &["notes"]), world.board("b")];
    for n in 0..20 {
        sql(&devices[0], &format!("INSERT INTO notes VALUES ('n{n:02}', 'first')"));
    }
    for _ in 0..3 {
        round(&mut devices);
        devices.iter_mut().for_each(|d| drop(d.compact().unwrap()));
    }
    assert_eq!(rows(&devices[1], "SELECT count(*) FROM _pm_head"), ["0"]);
    devices.push(world.board_with("c", NOTES, &["notes"]));
    let ids: Vec<DeviceId> = devices.iter().map(|d| d.identity().id).collect();
    sql(&devices[2], "INSERT INTO notes VALUES ('n03', 'mine'), ('own', 'only c')");
    let card = pack(&mut devices[2], ids[0]);
    let report = take(&mut devices[1], &card);
    assert!(report.waits.is_empty(), "{report:?}");
    for _ in 0..3 {
        round(&mut devices);
    }
    let digests: Vec<String> = devices.iter().map(|d| d.digest(false).unwrap().to_string()).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{:#?}", devices.iter().map(notes).collect::<Vec<_>>());
    for device in &devices {
        let open = device.conflicts().unwrap();
        assert_eq!(open.len(), 1, "{open:#?}");
        assert_eq!(open[0].versions.len(), 2, "{open:#?}");
        assert_eq!(notes(device).len(), 21);
        // What was settled is shown before what came late.
        assert_eq!(notes(device)[3], "n03=first");
    }
    let now: Vec<DeviceId> = devices.iter().map(|d| d.identity().id).collect();
    assert_eq!(now, ids);
}

#[test]
fn two_groups_that_folded_apart_meet() {
    let world = World::new();
    let mut one = vec![world.board_with("a", NOTES, &["notes"]), world.board("b")];
    let mut two = vec![world.board_with("c", NOTES, &["notes"]), world.board("d")];
    for (group, word) in [(&mut one, "one"), (&mut two, "two")] {
        sql(&group[0], &format!("INSERT INTO notes VALUES ('same', 'same'), ('shared', '{word}'), ('{word}', '{word}')"));
        for _ in 0..3 {
            round(group);
            group.iter_mut().for_each(|d| drop(d.compact().unwrap()));
        }
    }
    one.extend(two);
    for _ in 0..3 {
        round(&mut one);
    }
    let digests: Vec<String> = one.iter().map(|d| d.digest(false).unwrap().to_string()).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{:#?}", one.iter().map(notes).collect::<Vec<_>>());
    for device in &one {
        assert_eq!(notes(device).len(), 4, "{:?}", notes(device));
        assert_eq!(device.conflicts().unwrap().len(), 1);
    }
}
