//! Frames that no honest seal makes, but that are validly signed: devices that get them in different orders are equal
//! afterwards, and none of them stops.
//!
//! `PACKMULE_SEED=N` replays a pair, `PACKMULE_SCHEDULES=N` tries so many.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;
mod odd;

use std::path::Path;

use common::{Random, World, app, bundle, key_file, sql, try_import, whole_bundle};
use odd::{Def, Insider, Scene};
use packmule::core::model::Value;
use packmule::core::wire::{FrameFlags, FrameWriter, GroupStart, KeptRun, Named, OpHead, OpKind};
use packmule::{ColumnMerge, Engine, Merge, Options, TrackOptions};

const TABLES: &str = "CREATE TABLE settings (id INTEGER PRIMARY KEY, value);
    CREATE TABLE stock (id INTEGER PRIMARY KEY, n INTEGER DEFAULT 0, x REAL DEFAULT 0, most INTEGER, name TEXT);
    CREATE TABLE cells (id INTEGER PRIMARY KEY, a TEXT, b INTEGER, c REAL NOT NULL DEFAULT 1.5);
    CREATE TABLE tags (tag TEXT COLLATE NOCASE PRIMARY KEY, color TEXT UNIQUE, setting INTEGER REFERENCES settings)
      WITHOUT ROWID";

fn track(engine: &mut Engine) {
    let counters = vec![
        ("n".into(), ColumnMerge::Counter),
        ("x".into(), ColumnMerge::Counter),
        ("most".into(), ColumnMerge::Max),
    ];
    engine.track("settings", &TrackOptions::default()).unwrap();
    engine.track("stock", &TrackOptions { columns: counters, ..TrackOptions::default() }).unwrap();
    engine.track("cells", &TrackOptions { merge: Merge::Cell, ..TrackOptions::default() }).unwrap();
    engine.track("tags", &TrackOptions::default()).unwrap();
}

const NAMES: [&str; 5] = ["east", "west", "north", "insider", "other"];

/// The fleet that every pair begins with: all have the tables, and some rows.
fn start() -> World {
    let world = World::new();
    let mut devices: Vec<Engine> = NAMES.iter().map(|name| world.board(name)).collect();
    for device in &mut devices {
        app(device).execute_batch(TABLES).unwrap();
        track(device);
    }
    sql(
        &devices[0],
        "INSERT INTO settings VALUES (1, 'one'), (2, 'two'); INSERT INTO stock VALUES (1, 5, 1.5, 1, 'a');
        INSERT INTO cells VALUES (1, 'a', 1, 1.5); INSERT INTO tags VALUES ('a', 'red', 1)",
    );
    for from in 0..devices.len() {
        let bytes = whole_bundle(&mut devices[from]);
        (0..devices.len()).filter(|to| *to != from).for_each(|to| {
            try_import(&mut devices[to], &bytes).unwrap();
        });
    }
    world
}

/// What is broken in a control.
#[derive(Clone, Copy, Default, PartialEq)]
enum Broken {
    #[default]
    Nothing,
    /// The winner is by arrival.
    Winner,
    /// What nobody can place counts as if its author had seen what is folded.
    Verdict,
}

/// A copy of the fleet's databases, to go on from.
fn copy(world: &World, to: &Path, broken: Broken) -> Vec<Engine> {
    NAMES
        .iter()
        .map(|name| {
            let path = to.join(format!("{name}.db"));
            std::fs::copy(world.path(name), &path).unwrap();
            std::fs::copy(key_file(&world.path(name)), key_file(&path)).unwrap();
            let options = Options {
                broken_winner: broken == Broken::Winner,
                broken_verdict: broken == Broken::Verdict,
                ..world.options()
            };
            Engine::open_with(&path, options).unwrap()
        })
        .collect()
}

/// All that is to be the same. The rows are in the digest, but for columns that devices declare differently.
fn content(engine: &Engine) -> Vec<String> {
    let mut all = vec![engine.digest(false).unwrap()];
    all.extend(engine.conflicts().unwrap().iter().map(|conflict| format!("{conflict:?}")));
    all
}

/// What an honest device does between.
fn honest(random: &mut Random, engine: &Engine) {
    let id = 1 + random.below(4);
    let n = random.below(50);
    let text = *random.pick(&[
        "INSERT OR REPLACE INTO settings (id, value) VALUES (?1, ?2)",
        "UPDATE stock SET n = n + ?2 WHERE id = ?1",
        "INSERT OR IGNORE INTO stock (id, n) VALUES (?1, ?2)",
        "UPDATE cells SET b = ?2 WHERE id = ?1",
        "DELETE FROM cells WHERE id = ?1 AND ?2 > 0",
        "INSERT OR IGNORE INTO tags (tag, color) VALUES (char(96 + ?1), ?2)",
    ]);
    app(engine).execute(text, (id, n)).unwrap();
}

/// Folds all that is here, also what nobody else has: all others are given up for that moment.
fn fold(random: &mut Random, engine: &mut Engine) {
    let known = engine.devices().unwrap();
    let others: Vec<_> =
        known.iter().filter(|other| !other.this && !other.retired && !other.revoked).map(|o| o.id).collect();
    for id in &others {
        engine.retire(*id, None).unwrap();
    }
    engine.seal().unwrap(); // What the application wrote can settle a conflict.
    let before = content(engine);
    engine.compact().unwrap();
    assert_eq!(content(engine), before, "folding changes it");
    if random.chance(80) {
        for id in &others {
            engine.take_back_retirement(*id, None).unwrap();
        }
    }
}

/// Has nobody be retired by a device's own word, which counts there alone: also for which tables are at odds.
fn take_back_all(engine: &mut Engine) {
    for other in engine.devices().unwrap().iter().filter(|other| other.retired && !other.revoked) {
        engine.take_back_retirement(other.id, None).unwrap();
    }
}

/// The honest ones carry bundles to each other.
fn meet(devices: &mut [Engine], rounds: usize, seed: u64) {
    for _ in 0..rounds {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            let [from, to] = devices.get_disjoint_mut([from, to]).unwrap();
            let bytes = bundle(from, to);
            let taken = try_import(to, &bytes);
            assert!(taken.is_ok(), "seed {seed}: {taken:?}");
        }
    }
}

/// How a pair is played.
#[derive(Clone, Copy, Default)]
struct Play {
    broken: Broken,
    /// Devices fold between.
    folds: bool,
    /// Sound frames are ordinary ones and verdicts alone.
    verdicts: bool,
}

/// Plays one pair. Returns how many groups were set aside.
fn play(world: &World, seed: u64, Play { broken, folds, verdicts }: Play) -> usize {
    let mut random = Random(seed);
    let dir = tempfile::tempdir_in(world.dir.path()).unwrap();
    let mut devices = copy(world, dir.path(), broken);
    let (insider, mut defs) = Insider::of(&mut devices[3]);
    let (other, _) = Insider::of(&mut devices[4]);
    let mut insiders = [insider, other];
    let mut groups = Vec::new();
    let mut lamport = 20;
    for _ in 0..2 + random.below(6) {
        let seen: Vec<_> = devices[..3]
            .iter()
            .map(|device| (device.identity().id, device.devices().unwrap()[0].shared))
            .chain(insiders.iter().map(|insider| (insider.id, insider.seq)))
            .collect();
        let at = random.below(2) as usize;
        let (seq, own) = (insiders[at].seq + 1, insiders[at].id);
        let mut scene = Scene { defs: &mut defs, devices: &seen, lamport, wall: 1_700_000_000_000, verdicts };
        let body = odd::odd_frame(&mut random, seq, own, &mut scene);
        lamport = scene.lamport;
        if common::number("PACKMULE_SEED").is_some() {
            println!("{at}: {}", odd::describe(&body, &defs));
        }
        groups.push(insiders[at].sign(body));
    }
    let mut aside = 0;
    for (at, device) in devices.iter_mut().enumerate().take(3) {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        if at > 0 {
            (1..order.len()).rev().for_each(|n| order.swap(n, random.below(n as u64 + 1) as usize));
        }
        for group in order {
            if random.chance(25) {
                honest(&mut random, device);
            }
            if folds && random.chance(30) {
                fold(&mut random, device);
            }
            let taken = try_import(device, &groups[group]);
            assert!(taken.is_ok(), "seed {seed}: {taken:?}");
            if common::number("PACKMULE_SEED").is_some() {
                println!("{at} takes group {group}: {taken:?}");
            }
        }
        aside += device.status().unwrap().waits.len();
    }
    meet(&mut devices, if folds { 5 } else { 2 }, seed);
    if common::number("PACKMULE_SEED").is_some() {
        for (device, table) in
            (0..3).flat_map(|device| ["settings", "stock", "cells", "tags"].map(|t| (device, t)))
        {
            println!(
                "{device} {table}: {:?}",
                common::rows(&devices[device], &format!("SELECT * FROM {table}"))
            );
        }
    }
    devices[..3].iter_mut().for_each(take_back_all);
    let first = content(&devices[0]);
    for device in &devices[1..3] {
        let other = content(device);
        let differ: Vec<_> = first.iter().filter(|line| !other.contains(line)).collect();
        let differs: Vec<_> = other.iter().filter(|line| !first.contains(line)).collect();
        assert_eq!(differ, differs, "seed {seed}");
    }
    let problems = devices[0].verify().unwrap().problems;
    assert!(problems.iter().all(|problem| problem.starts_with("frames ")), "seed {seed}: {problems:?}");
    aside
}

#[test]
fn odd_frames_leave_devices_equal_in_whatever_order_they_come() {
    let world = start();
    let (mut pairs, mut aside) = (0, 0);
    let mut failed = Vec::new();
    for seed in common::seeds(40) {
        let played = std::panic::catch_unwind(|| play(&world, seed, Play::default()));
        match played {
            Ok(n) => (pairs, aside) = (pairs + 1, aside + n),
            Err(_) => failed.push(seed),
        }
    }
    println!("{pairs} pairs are equal; so many streams wait or are set aside: {aside}");
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// Verdicts among them that leave no version, and folds: whoever has forgotten a version takes such a verdict as who has it. In
/// number 650 a state meets a row of cells that a NOT NULL keeps out here, of which a cell is settled.
#[test]
fn odd_frames_leave_devices_equal_whoever_folds_meanwhile() {
    with_folds(true);
    if common::number("PACKMULE_SEED").is_none() {
        play(&start(), 650, Play { folds: true, verdicts: true, ..Play::default() });
    }
}

/// Frames of all kinds, and folds. In number 811 somebody changes a row that it has seen deleted, and a state meets what came
/// of that.
#[test]
fn odd_frames_of_every_kind_leave_devices_equal_whoever_folds_meanwhile() {
    with_folds(false);
    if common::number("PACKMULE_SEED").is_none() {
        play(&start(), 811, Play { folds: true, ..Play::default() });
    }
}

fn with_folds(verdicts: bool) {
    let world = start();
    let play_one = |seed| play(&world, seed, Play { folds: true, verdicts, ..Play::default() });
    let failed: Vec<u64> =
        common::seeds(40).filter(|seed| std::panic::catch_unwind(|| play_one(*seed)).is_err()).collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// A verdict of an insider that leaves nothing of rows that its author had seen. Who has their versions loses them by it, who
/// has folded them does not know any more which versions they had: and says the rows again, so that they are there for all.
#[test]
fn a_verdict_that_leaves_nothing_of_a_row_takes_nothing_that_somebody_has_folded() {
    let world = start();
    let bogus = |id| vec![KeptRun { device: id, first: 3, last: 3 }];
    for (n, kept) in [|_| Vec::new(), bogus].into_iter().enumerate() {
        let dir = tempfile::tempdir_in(world.dir.path()).unwrap();
        let mut devices = copy(&world, dir.path(), Broken::Nothing);
        let (mut insider, defs) = Insider::of(&mut devices[3]);
        let seen: Vec<(Named, u64)> =
            devices[0].devices().unwrap().iter().map(|d| (Named::Id(d.id), d.shared)).collect();
        let seen: Vec<_> = seen.into_iter().filter(|(id, _)| *id != Named::Id(insider.id)).collect();
        let group = GroupStart { lamport: 40, wall: 0, pair: 0, context: &seen };
        let mut buf = vec![0; 60_000];
        let mut writer =
            FrameWriter::new(&mut buf, FrameFlags::VERDICT, insider.seq + 1, Some(group)).unwrap();
        writer.keep(&kept(insider.id)).unwrap();
        let head = OpHead { kind: OpKind::Keep, claim: None, columns: None, wall: None, image: false };
        let is_first = |(at, def): &(usize, &Def)| defs[..*at].iter().all(|before| before.id != def.id);
        for (_, def) in defs.iter().enumerate().filter(is_first) {
            let key = if def.keys.len() == 3 { Value::Text(b"a") } else { Value::Int(1) };
            writer.op(def.id, &head, std::iter::once(key)).unwrap();
        }
        let verdict = insider.sign(writer.finish().to_vec());
        fold(&mut Random(n as u64), &mut devices[0]);
        for device in &mut devices[..3] {
            let taken = try_import(device, &verdict).unwrap();
            assert!(taken.waits.is_empty(), "{taken:?}");
        }
        let there = "SELECT (SELECT count(*) FROM settings) || (SELECT count(*) FROM stock) || (SELECT count(*) FROM cells)
                     || (SELECT count(*) FROM tags)";
        assert_eq!(common::rows(&devices[0], there), ["\"2111\""], "whoever has folded them");
        assert_eq!(common::rows(&devices[1], there), ["\"1000\""], "whoever has not");
        meet(&mut devices, 2, 0);
        for device in &devices[..3] {
            assert_eq!(common::rows(device, there), ["\"2111\""]);
            assert_eq!(content(device), content(&devices[0]));
        }
    }
}

/// A device that takes a new identity says so of the old one, which vouches for it. Of another one nobody says it.
#[test]
fn an_insider_says_of_nobody_that_he_goes_on_under_another_identity() {
    let world = start();
    let dir = tempfile::tempdir_in(world.dir.path()).unwrap();
    let mut devices = copy(&world, dir.path(), Broken::Nothing);
    let (mut insider, _) = Insider::of(&mut devices[3]);
    let east = devices[0].identity().id;
    for flags in [FrameFlags(0), FrameFlags::CONTEXT_FREE] {
        let group = GroupStart { lamport: 40, wall: 0, pair: 0, context: &[] };
        let mut buf = vec![0; 60_000];
        let mut writer = FrameWriter::new(&mut buf, flags, insider.seq + 1, Some(group)).unwrap();
        writer.retire(east).unwrap();
        let bytes = insider.sign(writer.finish().to_vec());
        for device in &mut devices[..3] {
            try_import(device, &bytes).unwrap();
            let known = device.devices().unwrap();
            let east = known.iter().find(|other| other.id == east).unwrap();
            assert!(!east.retired, "{flags:?}");
        }
    }
}

/// The control.
#[test]
fn where_the_winner_is_by_arrival_odd_frames_leave_devices_different() {
    let world = start();
    let differs = |seed| {
        let played = std::panic::catch_unwind(|| {
            play(&world, seed, Play { broken: Broken::Winner, ..Play::default() })
        });
        played.is_err_and(is_difference)
    };
    assert!((0..60).any(differs));
}

/// The control of folds.
#[test]
fn where_nobody_says_what_cannot_be_placed_odd_frames_leave_devices_different() {
    let world = start();
    let differs = |seed| {
        let how = Play { broken: Broken::Verdict, folds: true, verdicts: false };
        std::panic::catch_unwind(|| play(&world, seed, how)).is_err_and(is_difference)
    };
    assert!((0..60).any(differs));
}

fn is_difference(why: Box<dyn std::any::Any + Send>) -> bool {
    why.downcast_ref::<String>().is_some_and(|why| why.contains("left == right"))
}
