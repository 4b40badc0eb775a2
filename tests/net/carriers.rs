//! One session on every carrier: both ways; cut at random bytes and resumed; a stranger refused; begun on one carrier and
//! ended on another. What comes next to the carriers joins [`ALL`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // Not all that it can.
mod between;
mod boards;
#[path = "../serial/cable.rs"]
#[allow(dead_code)] // Not all that it can.
mod cable;
#[path = "../common/mod.rs"]
mod common;

use std::fs::File;
use std::path::Path;

use between::{Ill, Relay};
use boards::{SAFE, board, fill};
use common::{Random, World, digests_equal, everything, rows, seeds};
use packmule::Engine;
use packmule::carry::net::{self, Address, Listening, Serving};
use packmule::carry::session::Progress;
use packmule::carry::{Stop, serial};
use packmule::core::model::DeviceId;
use rustix::fs::{CWD, FileType, Mode, mknodat};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Tcp,
    WebSocket,
    Http,
    Pipes,
    Line,
}

const ALL: [Carrier; 5] = [Carrier::Tcp, Carrier::WebSocket, Carrier::Http, Carrier::Pipes, Carrier::Line];

/// After so many bytes of a way, the carrier carries no more.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Out of the end that calls; else into it.
    out: bool,
    bytes: usize,
}

/// One connection: A calls, B answers. What A's end made of it; none if it was cut.
fn meet(
    carrier: Carrier,
    world: &World,
    a: &mut Engine,
    b: &mut Engine,
    cut: Option<Cut>,
) -> Result<Progress, String> {
    match carrier {
        Carrier::Tcp | Carrier::WebSocket | Carrier::Http => over_network(carrier, world, a, b.path(), cut),
        Carrier::Pipes => over_pipes(world, a, b, cut),
        Carrier::Line => over_line(world, a, b, cut),
    }
}

fn call(a: &mut Engine, address: &str) -> Result<Progress, String> {
    let address: Address = address.parse().unwrap();
    net::sync(a, &address, &SAFE, &Stop::default(), &mut |_| ()).map_err(|e| format!("{e:?}"))
}

fn over_network(
    carrier: Carrier,
    world: &World,
    a: &mut Engine,
    b: &Path,
    cut: Option<Cut>,
) -> Result<Progress, String> {
    let port = Listening::on("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = port.address().unwrap();
    let stop = Stop::default();
    let open = || {
        let mut options = World::options_by(&world.clock);
        options.busy_ms = 10_000;
        Engine::open_with(b, options)
    };
    let scheme = match carrier {
        Carrier::Tcp => "tcp",
        Carrier::Http => "http",
        _ => "ws",
    };
    let serving = Serving { open: &open, options: &SAFE, report: &|_, _| (), web: None };
    std::thread::scope(|scope| {
        scope.spawn(|| net::serve(&port, serving, &stop).unwrap());
        let done = match cut {
            None => call(a, &format!("{scheme}://{at}")),
            Some(cut) => {
                let ill = Ill::Cut(cut.bytes);
                let ills = if cut.out { [ill, Ill::Nothing] } else { [Ill::Nothing, ill] };
                let relay = Relay::new(at, ills);
                call(a, &format!("{scheme}://{}", relay.at))
            }
        };
        stop.stop();
        done
    })
}

/// Through a command of the shell, as through `ssh`: its pipes end at the other end's standard input and output.
fn over_pipes(world: &World, a: &mut Engine, b: &mut Engine, cut: Option<Cut>) -> Result<Progress, String> {
    let dir = tempfile::tempdir_in(world.dir.path()).unwrap();
    let [up, down] = ["up", "down"].map(|name| {
        let path = dir.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    });
    let carries = |out: bool| match cut {
        Some(cut) if cut.out == out => format!("head -c {}", cut.bytes),
        _ => "cat".to_owned(),
    };
    let (here, there) = (down.display(), up.display());
    let address = format!("exec:{} <{here} & exec {} >{there}", carries(false), carries(true));
    std::thread::scope(|scope| {
        let serves = scope.spawn(|| {
            let from = File::open(&up).unwrap();
            let to = File::options().write(true).open(&down).unwrap();
            let _ = net::serve_pipes(b, (from.into(), to.into()), &SAFE, &Stop::default(), &mut |_| ());
        });
        let done = call(a, &address);
        serves.join().unwrap();
        done
    })
}

fn over_line(world: &World, a: &mut Engine, b: &mut Engine, cut: Option<Cut>) -> Result<Progress, String> {
    let dir = tempfile::tempdir_in(world.dir.path()).unwrap();
    let wire = cable::Cable::new(dir.path().join("a"), dir.path().join("b"), u32::MAX);
    let line = |path: &Path| serial::Options {
        path: path.into(),
        baud: 4_000_000,
        baud_max: 4_000_000,
        flow: serial::Flow::None,
        plain: false,
        patience: None,
    };
    // It counts what goes from its first end.
    let (of_a, of_b) = if cut.is_none_or(|cut| cut.out) { (0, 1) } else { (1, 0) };
    if let Some(cut) = cut {
        wire.hold_after(cut.bytes);
    }
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let ends = [(a, of_a), (b, of_b)].map(|(engine, end)| {
            let (line, stop) = (line(&wire.ends[end]), stop.clone());
            scope.spawn(move || serial::sync(engine, &line, &stop, &mut |_| ()))
        });
        if cut.is_some() {
            wire.is_held();
            stop.stop();
        }
        let [a, _] = ends.map(|end| end.join().unwrap());
        a.map_err(|e| format!("{e:?}"))
    })
}

/// How many frames of one device another one has.
fn has(engine: &Engine, author: DeviceId) -> u64 {
    let positions = engine.positions().unwrap();
    positions.iter().filter(|((of, _), _)| *of == author).map(|(_, seq)| seq).sum()
}

#[test]
fn both_ways_at_once() {
    for carrier in ALL {
        let world = World::new();
        let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
        fill(&mut a, "a", 20, 2_000);
        fill(&mut b, "b", 20, 2_000);
        let done = meet(carrier, &world, &mut a, &mut b, None).unwrap();
        assert!(done.sent.0 >= 20 && done.received.0 >= 20, "{carrier:?}: {done:?}");
        digests_equal(&[&a, &b]);
        assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["40"], "{carrier:?}");
        // Nothing is sent again.
        let done = meet(carrier, &world, &mut a, &mut b, None).unwrap();
        assert_eq!((done.sent.0, done.received.0), (0, 0), "{carrier:?}");
        assert!(b.verify().unwrap().problems.is_empty());
    }
}

/// Every carrier is cut, and another one goes on: at most the frame that was on its way comes twice.
#[test]
fn begun_on_any_cut_at_any_byte_and_ended_on_any() {
    for seed in seeds(1) {
        println!("PACKMULE_SEED={seed}");
        let mut random = Random(seed);
        for begun in ALL {
            let ended = *random.pick(&ALL);
            let world = World::seeded(seed);
            let (mut a, mut b) = (board(&world, "a"), board(&world, "b"));
            let (id_a, id_b) = (a.identity().id, b.identity().id);
            for round in 0..2 {
                // So that there is more to say, either way, than the cut lets through.
                fill(&mut a, &format!("a{round}-"), 30, 1_500);
                fill(&mut b, &format!("b{round}-"), 30, 1_500);
                let cut = Cut { out: random.chance(50), bytes: 1 + random.below(40_000) as usize };
                let cut_off = meet(begun, &world, &mut a, &mut b, Some(cut));
                assert!(cut_off.is_err(), "{begun:?} {cut:?}: it ended well");
            }
            let lacks = [(&a, id_a, &b), (&b, id_b, &a)].map(|(from, id, to)| has(from, id) - has(to, id));
            let done = meet(ended, &world, &mut a, &mut b, None).unwrap();
            let moved = [done.sent.0, done.received.0];
            let twice = moved.iter().zip(lacks).all(|(moved, lacks)| *moved <= lacks + 1);
            assert!(twice, "{begun:?}, then {ended:?}: {moved:?} went where {lacks:?} were missing");
            digests_equal(&[&a, &b]);
            assert_eq!(rows(&b, "SELECT count(*) FROM t"), ["120"]);
            assert!(a.verify().unwrap().problems.is_empty() && b.verify().unwrap().problems.is_empty());
        }
    }
}

#[test]
fn a_stranger_is_refused_on_every_carrier() {
    for carrier in ALL {
        let (world, elsewhere) = (World::new(), World::seeded(9));
        let (mut a, mut stranger) = (board(&world, "a"), board(&elsewhere, "stranger"));
        fill(&mut a, "a", 5, 100);
        fill(&mut stranger, "s", 5, 100);
        let before = [everything(a.path()), everything(stranger.path())];
        let error = meet(carrier, &world, &mut stranger, &mut a, None).unwrap_err();
        assert!(error.contains("UntrustedDevice") || error.contains("Refused"), "{carrier:?}: {error}");
        let after = [everything(a.path()), everything(stranger.path())];
        assert!(after == before, "{carrier:?}: nothing changed");
    }
}
