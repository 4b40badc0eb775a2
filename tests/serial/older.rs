//! An end that encrypts, and one that knows of no encryption: an older program, or a microcontroller, which says nothing of it
//! in its hello.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // Not all that it can.
mod cable;
#[path = "../common/mod.rs"]
mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{World, digests_equal};
use packmule::Engine;
use packmule::carry::session::{Error as SessionError, Session};
use packmule::carry::{Stop, serial};
use packmule::core::link::{BoardLink, Config, Event, State, WIRE_MAX};
use packmule::core::wire::Refusal;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

const BAUD: u32 = 4_000_000;

/// Opens a terminal as a port.
fn port(path: &Path) -> File {
    let port = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut settings = tcgetattr(&port).unwrap();
    settings.make_raw();
    settings.set_speed(BAUD).unwrap();
    tcsetattr(&port, OptionalActions::Now, &settings).unwrap();
    rustix::io::ioctl_fionbio(&port, true).unwrap();
    port
}

/// An end whose program hangs behind a link that is up: what comes is taken, and nothing is said.
fn swallows(path: &Path, stop: &Stop) {
    let mut port = port(path);
    let mut link = Box::new(BoardLink::new(Config::new(BAUD, 77)));
    let begun = Instant::now();
    while link.state() != State::Closed && !stop.stopped() {
        let us = begun.elapsed().as_micros() as u64;
        let mut bytes = [0; 2 * WIRE_MAX];
        if let Ok(count) = port.read(&mut bytes) {
            link.receive_bytes(us, &bytes[..count]);
        }
        while link.event().is_some() || link.recv(&mut bytes) > 0 {}
        let count = link.transmit(us, &mut bytes);
        port.write_all(&bytes[..count]).unwrap();
        std::thread::yield_now();
    }
}

/// The older end: until the other end has gone. What its session made of it.
fn older(engine: &mut Engine, path: &Path) -> Result<(), SessionError> {
    let mut port = port(path);
    let mut link = Box::new(BoardLink::new(Config::new(BAUD, 77)));
    let (begun, mut session) = (Instant::now(), None);
    let mut result = Ok(());
    while link.state() != State::Closed && begun.elapsed() < Duration::from_secs(60) {
        let (us, ms) = (begun.elapsed().as_micros() as u64, begun.elapsed().as_millis() as u64);
        let mut bytes = [0; 4_096];
        if let Ok(count) = port.read(&mut bytes) {
            link.receive_bytes(us, &bytes[..count]);
        }
        while let Some(event) = link.event() {
            match event {
                Event::Connected => session = Some(Session::new(engine, [7; 32], ms)?),
                Event::PeerFinished => link.finish(),
                _ => {}
            }
        }
        if let (Some(session), Ok(())) = (&mut session, &result) {
            result = talk(session, engine, &mut link, ms);
        }
        let mut out = [0; WIRE_MAX];
        loop {
            let count = link.transmit(us, &mut out);
            if count == 0 {
                break;
            }
            port.write_all(&out[..count]).unwrap();
        }
        std::thread::yield_now();
    }
    result
}

fn talk(
    session: &mut Session,
    engine: &mut Engine,
    link: &mut BoardLink,
    ms: u64,
) -> Result<(), SessionError> {
    let mut bytes = [0; 4_096];
    let count = link.recv(&mut bytes);
    session.receive(engine, ms, &bytes[..count])?;
    session.caught_up(engine)?;
    session.tick(engine, ms)?;
    if session.in_step() {
        session.finish(engine)?;
    }
    loop {
        let taken = link.send(session.output(engine)?);
        if taken == 0 {
            return Ok(());
        }
        session.sent(taken);
    }
}

/// A newer end and an older one on a cable.
fn meet(plain: bool) -> (World, [Engine; 2], Result<(), serial::Error>, Result<(), SessionError>) {
    let world = World::new();
    let [mut a, mut b] =
        ["a", "b"].map(|name| world.board_with(name, "CREATE TABLE t (id TEXT PRIMARY KEY, v)", &["t"]));
    common::sql(&a, "INSERT INTO t VALUES ('of a', 1)");
    common::sql(&b, "INSERT INTO t VALUES ('of b', 2)");
    let wire = cable::Cable::new(world.dir.path().join("one"), world.dir.path().join("two"), u32::MAX);
    let path = wire.ends[0].clone();
    let (baud, baud_max, flow) = (BAUD, BAUD, serial::Flow::None);
    let options =
        serial::Options { path, baud, baud_max, flow, plain, patience: Some(Duration::from_secs(60)) };
    let (newer, older) = std::thread::scope(|scope| {
        let older = scope.spawn(|| older(&mut b, &wire.ends[1]));
        let newer = serial::sync(&mut a, &options, &Stop::default(), &mut |_| ()).map(|_| ());
        (newer, older.join().unwrap())
    });
    (world, [a, b], newer, older)
}

#[test]
fn an_older_end_is_told_and_nothing_is_said_in_clear() {
    let (_world, [a, b], newer, older) = meet(false);
    assert!(matches!(newer, Err(serial::Error::Clear { theirs: true, is_older: true })), "{newer:?}");
    // It has no other word for it than another version: update.
    assert!(matches!(older, Err(SessionError::Refused { why: Refusal::Version, .. })), "{older:?}");
    for engine in [&a, &b] {
        assert_eq!(common::rows(engine, "SELECT count(*) FROM t"), ["1"]);
    }
}

#[test]
fn an_older_end_is_met_in_clear_where_that_was_asked_for() {
    let (_world, [a, b], newer, older) = meet(true);
    assert!(newer.is_ok() && older.is_ok(), "{newer:?} {older:?}");
    assert_eq!(common::rows(&b, "SELECT count(*) FROM t"), ["2"]);
    digests_equal(&[&a, &b]);
}

/// The link is up and everything gets through: only that the session does not get on shows it.
#[test]
fn who_takes_what_is_said_and_says_nothing_keeps_nobody_for_ever() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (id TEXT PRIMARY KEY, v)", &["t"]);
    let wire = cable::Cable::new(world.dir.path().join("one"), world.dir.path().join("two"), u32::MAX);
    let (baud, flow, patience) = (BAUD, serial::Flow::None, Some(Duration::from_secs(3)));
    let path = wire.ends[0].clone();
    let options = serial::Options { path, baud, baud_max: baud, flow, plain: true, patience };
    let stop = Stop::default();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| swallows(&wire.ends[1], &stop));
        let result = serial::sync(&mut a, &options, &Stop::default(), &mut |_| ());
        stop.stop();
        result
    });
    assert!(matches!(result, Err(serial::Error::Unanswered(_))), "{result:?}");
}
