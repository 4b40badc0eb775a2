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
use odd::{Insider, Scene};
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

/// A copy of the fleet's databases, to go on from. `broken`: the winner is by arrival.
fn copy(world: &World, to: &Path, broken: bool) -> Vec<Engine> {
    NAMES
        .iter()
        .map(|name| {
            let path = to.join(format!("{name}.db"));
            std::fs::copy(world.path(name), &path).unwrap();
            std::fs::copy(key_file(&world.path(name)), key_file(&path)).unwrap();
            let options = Options { broken_winner: broken, ..world.options() };
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

/// Plays one pair. Returns how many groups were set aside.
fn play(world: &World, seed: u64, broken: bool) -> usize {
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
        let mut scene = Scene { defs: &mut defs, devices: &seen, lamport, wall: 1_700_000_000_000 };
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
            let taken = try_import(device, &groups[group]);
            assert!(taken.is_ok(), "seed {seed}: {taken:?}");
            if common::number("PACKMULE_SEED").is_some() {
                println!("{at} takes group {group}: {taken:?}");
            }
        }
        aside += device.status().unwrap().waits.len();
    }
    for _ in 0..2 {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            let [from, to] = devices.get_disjoint_mut([from, to]).unwrap();
            let bytes = bundle(from, to);
            let taken = try_import(to, &bytes);
            assert!(taken.is_ok(), "seed {seed}: {taken:?}");
        }
    }
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
        let played = std::panic::catch_unwind(|| play(&world, seed, false));
        match played {
            Ok(n) => (pairs, aside) = (pairs + 1, aside + n),
            Err(_) => failed.push(seed),
        }
    }
    println!("{pairs} pairs are equal; so many streams wait or are set aside: {aside}");
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// The control.
#[test]
fn where_the_winner_is_by_arrival_odd_frames_leave_devices_different() {
    let world = start();
    let differs = |seed| {
        let played = std::panic::catch_unwind(|| play(&world, seed, true));
        played.is_err_and(|why| why.downcast_ref::<String>().is_some_and(|why| why.contains("left == right")))
    };
    assert!((0..60).any(differs));
}
