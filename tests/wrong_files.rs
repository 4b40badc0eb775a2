//! The files in `tests/wrong`: signed as their author would sign them, and wrong. Each is taken in by who it is for, and all
//! else goes on after it. `tests/stories/wrong_files.rs` does the same with the program.
//!
//! `PACKMULE_BLESS=1 cargo test --test wrong_files` writes them anew.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;
mod wrong;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{bundle, carry, digests_equal, rows, sql, try_import};
use packmule::{Engine, Missing};
use wrong::files::{Must, Wrong, files};
use wrong::{Fleet, folded_in, known_world};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong")
}

/// What is in the folder, by name.
fn there() -> BTreeMap<String, Vec<u8>> {
    let all = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = all.filter(|path| path.extension().is_some_and(|end| end == "pmb"));
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect()
}

/// A change of the format is seen here, and a kind that has no file.
#[test]
fn the_files_are_what_is_made_anew() {
    let made: BTreeMap<String, Vec<u8>> = files().into_iter().map(|file| (file.name, file.bytes)).collect();
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        there().keys().for_each(|name| std::fs::remove_file(folder().join(name)).unwrap());
        made.iter().for_each(|(name, bytes)| std::fs::write(folder().join(name), bytes).unwrap());
    }
    let there = there();
    assert!(there.len() > 40);
    assert_eq!(there.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
    for (name, bytes) in made {
        assert!(there[&name] == bytes, "{name} is another one now: PACKMULE_BLESS=1 writes all anew");
    }
    assert!(there.values().map(Vec::len).sum::<usize>() < 200_000);
}

/// Copies of a fleet's databases, to go on from.
fn copies(fleet: &Fleet, late: &Engine, to: &Path) -> [Engine; 5] {
    [&fleet.base, &fleet.good, &fleet.north, &fleet.insider, late].map(|device| {
        let path = to.join(device.path().file_name().unwrap());
        common::copy_card(device, &path);
        Engine::open_with(&path, fleet.world.options()).unwrap()
    })
}

#[test]
fn every_file_is_what_it_must_be_and_all_else_goes_on() {
    let mut others = Vec::new();
    let (fresh, with_state) = (fresh(), folded_in(known_world()));
    for file in files() {
        let (fleet, late) = if file.for_newcomer { &with_state } else { &fresh };
        let dir = tempfile::tempdir_in(fleet.world.dir.path()).unwrap();
        let [mut base, mut good, mut north, insider, mut late] = copies(fleet, late, dir.path());
        let to = if file.for_newcomer { &mut late } else { &mut base };
        let (did, said) = taken(to, &file);
        println!("{} | {did:?} | {said}", file.name);
        if did != file.must {
            others.push((file.name.clone(), did, said));
        }
        goes_on(&mut [&mut base, &mut good, &mut north, &mut late], &file.name);
        base.revoke(insider.identity().id, Some(&fleet.world.fleet)).unwrap();
        goes_on(&mut [&mut base, &mut good, &mut north, &mut late], &file.name);
    }
    assert!(others.is_empty(), "{others:#?}");
}

/// The fleet that the files are for, and somebody who has joined it.
fn fresh() -> (Fleet, Engine) {
    let mut fleet = wrong::fleet_in(known_world());
    let mut late = fleet.world.board_with("late", wrong::SETTINGS, &["settings"]);
    carry(&mut late, &mut fleet.base);
    (fleet, late)
}

/// Takes in a file. Returns what became of it, and what was said.
fn taken(to: &mut Engine, Wrong { name, bytes, .. }: &Wrong) -> (Must, String) {
    let before = common::everything(to.path());
    let report = match try_import(to, bytes) {
        Ok(report) => report,
        Err(e) => {
            assert_eq!(common::everything(to.path()), before, "{name} left a trace");
            return (Must::Refused, e.to_string().lines().next().unwrap_or_default().to_owned());
        }
    };
    assert!(to.devices().unwrap().iter().all(|device| !device.retired), "{name}");
    assert_eq!(to.devices().unwrap().iter().filter(|device| device.base).count(), 1, "{name}");
    let Some(wait) = report.waits.iter().find(|wait| wait.author.starts_with("insider")) else {
        return (Must::GoesIn, format!("{} rows", report.ops));
    };
    assert_eq!(report.ops, 0, "{name}");
    assert!(to.status().unwrap().waits.iter().any(|told| told.missing == wait.missing), "{name}");
    match &wait.missing {
        Missing::Unreadable { reason } => (Must::SetAside, reason.clone()),
        other => (Must::Waits, format!("{other:?}")),
    }
}

/// Honest work goes on, of all these.
fn goes_on(devices: &mut [&mut Engine; 4], what: &str) {
    let count = "SELECT count(*) FROM settings WHERE value = 'honest'";
    let written = rows(devices[0], count)[0].parse::<usize>().unwrap();
    for (n, device) in devices.iter().enumerate() {
        sql(device, &format!("INSERT INTO settings VALUES ({}, 'honest')", 1_000 + written + n));
    }
    for (from, to) in [(1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3)] {
        let [from, to] = devices.get_disjoint_mut([from, to]).unwrap();
        let bytes = bundle(from, to);
        let taken = try_import(to, &bytes);
        assert!(taken.is_ok(), "{what}: {taken:?}");
    }
    for device in devices.iter_mut() {
        device.devices().unwrap();
        device.status().unwrap();
        device.log(None, &[], &mut |_| Ok(())).unwrap();
        device.conflicts().unwrap();
        device.verify().unwrap();
        device.compact().unwrap();
        assert_eq!(rows(device, count), [(written + 4).to_string()], "{what}");
        assert!(device.devices().unwrap().iter().all(|device| !device.retired), "{what}");
    }
    // The rows of a state are its maker's word.
    let all = devices.each_ref().map(|device| &**device);
    digests_equal(if what == "state-row.pmb" { &all[..3] } else { &all });
}
