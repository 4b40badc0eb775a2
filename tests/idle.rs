//! Two ends that stay connected while nobody writes anything: an hour of it, by a clock that is a number.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use common::{World, sql};
use packmule::Engine;
use packmule::carry::session::Session;

const HOUR_MS: u64 = 3_600_000;

/// One end: what it has to say.
fn said(session: &mut Session, engine: &mut Engine, now: u64, came: &[u8]) -> Vec<u8> {
    session.receive(engine, now, came).unwrap();
    session.caught_up(engine).unwrap();
    session.tick(engine, now).unwrap();
    let mut out = Vec::new();
    loop {
        let some = session.output(engine).unwrap();
        if some.is_empty() {
            return out;
        }
        out.extend_from_slice(some);
        let count = some.len();
        session.sent(count);
    }
}

/// All files beside the databases, with their bytes and when they were last written to; but SQLite's index of the log, in
/// which readers leave marks.
fn files(folder: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = all.filter(|path| path.is_file() && !path.to_string_lossy().ends_with("-shm"));
    files
        .map(|path| {
            let written = fs::metadata(&path).unwrap().modified().unwrap();
            (path.display().to_string(), (fs::read(&path).unwrap(), written))
        })
        .collect()
}

#[test]
fn an_hour_of_nothing_writes_nothing_and_says_nothing() {
    let world = World::new();
    let [mut a, mut b] =
        ["a", "b"].map(|name| world.board_with(name, "CREATE TABLE t (id TEXT PRIMARY KEY, v)", &["t"]));
    sql(&a, "INSERT INTO t VALUES ('of a', 1)");
    let [mut one, mut two] =
        [(&mut a, 1), (&mut b, 2)].map(|(engine, nonce)| Session::new(engine, [nonce; 32], 0).unwrap());
    let (mut now, mut from_two) = (0, Vec::new());
    while !(one.in_step() && two.in_step()) || now < 10_000 {
        now += 100;
        let from_one = said(&mut one, &mut a, now, &from_two);
        from_two = said(&mut two, &mut b, now, &from_one);
    }
    let before = files(world.dir.path());
    let (begun, mut looks, until) = (Instant::now(), 0, now + HOUR_MS);
    while now < until {
        now = one.deadline().min(two.deadline());
        looks += 1;
        assert!(said(&mut one, &mut a, now, &[]).is_empty() && said(&mut two, &mut b, now, &[]).is_empty());
    }
    println!("{looks} looks in an hour took {:.3} s of both ends", begun.elapsed().as_secs_f64());
    assert!(looks < 20_000, "{looks}");
    assert!(files(world.dir.path()) == before, "something was written");
    // The control: what an application writes is noticed.
    sql(&b, "INSERT INTO t VALUES ('of b', 2)");
    let due = two.deadline();
    assert!(!said(&mut two, &mut b, due, &[]).is_empty());
}
