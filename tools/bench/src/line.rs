//! A newcomer's first start over a serial line: the state of who has folded all, in virtual time.
//!
//! The line is clean, with a delay of 1 ms, and bytes take the time that they take; what the two ends compute takes none of
//! it, and is measured by itself.

use std::collections::VecDeque;

use packmule::Engine;
use packmule::carry::session::{Progress, Session};
use packmule::core::link::{BoardLink, Config, Event, WIRE_MAX};

use crate::report::{Cell, Section};
use crate::time::timed;
use crate::world::{Key, Outcome, World, create, insert, shared};

/// The line's rate, and how long a byte takes to arrive once it is sent.
pub const BAUD: u32 = 115_200;
const LATENCY_US: u64 = 1_000;
/// How many rows are settled.
const ROWS: [u64; 2] = [10_000, 100_000];

/// One end: a program with its link, and the wire that it writes to.
struct End {
    link: Box<BoardLink>,
    session: Option<Session>,
    nonce: u8,
    /// When the wire is free, and what is on it.
    free: u64,
    flying: VecDeque<(u64, Vec<u8>)>,
    /// Bytes that went over the wire.
    bytes: u64,
}

impl End {
    fn new(nonce: u8) -> Self {
        let link = Box::new(BoardLink::new(Config::new(BAUD, nonce.into())));
        Self { link, session: None, nonce, free: 0, flying: VecDeque::new(), bytes: 0 }
    }

    /// Lets the program do what is due.
    fn work(&mut self, engine: &mut Engine, now: u64) -> Outcome {
        let ms = now / 1_000;
        while let Some(event) = self.link.event() {
            if event == Event::Connected {
                self.session = Some(Session::new(engine, [self.nonce; 32], ms)?);
            }
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut bytes = [0; 8_192];
        loop {
            let count = self.link.recv(&mut bytes);
            if count == 0 {
                break;
            }
            session.receive(engine, ms, &bytes[..count])?;
        }
        session.caught_up(engine)?;
        session.tick(engine, ms)?;
        loop {
            let out = session.output(engine)?;
            let taken = if out.is_empty() { 0 } else { self.link.send(out) };
            if taken == 0 {
                return Ok(());
            }
            session.sent(taken);
        }
    }

    /// Puts what is due on the wire, one packet at a time.
    fn transmit(&mut self, now: u64) {
        let mut packet = [0; WIRE_MAX];
        while self.free <= now {
            let len = self.link.transmit(now, &mut packet);
            if len == 0 {
                return;
            }
            self.free = now + len as u64 * 10_000_000 / u64::from(BAUD);
            self.bytes += len as u64;
            self.flying.push_back((self.free + LATENCY_US, packet[..len].to_vec()));
        }
    }

    /// Returns when something happens at this end next.
    fn wakes(&self, now: u64) -> u64 {
        let session = self.session.as_ref().map_or(u64::MAX, |session| session.deadline() * 1_000);
        let link = self.link.deadline().unwrap_or(u64::MAX).max(if self.free > now { self.free } else { 0 });
        let arrival = self.flying.front().map_or(u64::MAX, |(at, _)| *at);
        link.min(session).min(arrival)
    }

    fn progress(&self) -> Progress {
        self.session.as_ref().map(|session| session.progress().clone()).unwrap_or_default()
    }
}

/// What a talk took: virtual seconds, bytes over the wire in both directions.
struct Talk {
    seconds: f64,
    bytes: u64,
    state: u64,
}

/// Lets both talk until they are in step, or so much of the state has come to the second, whose program is then killed.
fn talk(engines: [&mut Engine; 2], kill_at: u64) -> Outcome<Talk> {
    let mut ends = [End::new(1), End::new(2)];
    let [first, second] = engines;
    let mut now = 0;
    loop {
        for at in 0..2 {
            while ends[at].flying.front().is_some_and(|(due, _)| *due <= now) {
                if let Some((_, bytes)) = ends[at].flying.pop_front() {
                    ends[1 - at].link.receive_bytes(now, &bytes);
                }
            }
        }
        ends[0].work(first, now)?;
        ends[1].work(second, now)?;
        ends.iter_mut().for_each(|end| end.transmit(now));
        let in_step = |end: &End| end.session.as_ref().is_some_and(Session::in_step);
        let here = ends[1].progress().state_received.0;
        if ends.iter().all(in_step) || here >= kill_at {
            let bytes = ends[0].bytes + ends[1].bytes;
            return Ok(Talk { seconds: now as f64 / 1e6, bytes, state: here });
        }
        now = ends.iter().map(|end| end.wakes(now)).min().unwrap_or(now).max(now + 1);
    }
}

/// Brings two in step over the line. Returns virtual seconds, and bytes over the wire in both directions.
pub fn in_step(engines: [&mut Engine; 2]) -> Outcome<(f64, u64)> {
    let Talk { seconds, bytes, .. } = talk(engines, u64::MAX)?;
    Ok((seconds, bytes))
}

/// A base that has folded `rows` rows, and a newcomer.
fn pair(world: &World, rows: u64) -> Outcome<[Engine; 2]> {
    eprintln!("line: {rows} rows");
    let mut base = world.device("base", true)?;
    let mut other = world.device("other", false)?;
    let mut new = world.device("new", false)?;
    for engine in [&mut base, &mut other, &mut new] {
        create(&world.open(engine.path())?, Key::Integer)?;
        engine.track("readings", &shared())?;
    }
    insert(&world.open(base.path())?, Key::Integer, 1..=rows)?;
    for _ in 0..3 {
        world.carry(&mut base, &mut other)?;
        world.carry(&mut other, &mut base)?;
    }
    let report = base.compact()?;
    eprintln!("line: compacted away {} frames, {} left", report.frames, report.frames_left);
    Ok([base, new])
}

/// Measures a first start without a cut, and one whose line is torn in the middle, both programs killed.
pub fn measure(world: &World) -> Outcome<Vec<Section>> {
    let mut section = Section {
        title: "A newcomer's first start over a serial line",
        about: format!(
            "A base has settled all rows; a newcomer gets the state over {BAUD} baud (8N1, clean, 1 ms), by virtual clock: \
             computing takes no time in it, and stands beside it. *torn*: the line is torn and both programs are killed when \
             half of the state is there; what is left to do from the next hello on."
        ),
        heads: vec!["", "rows", "state KB", "line KB", "seconds", "bytes a row", "s, cpu"],
        lines: Vec::new(),
    };
    for rows in ROWS {
        let mut state = u64::MAX;
        for torn in [false, true] {
            let [mut base, mut new] = pair(world, rows)?;
            if torn {
                talk([&mut base, &mut new], state / 2)?;
            }
            let (sample, done) = timed(|| talk([&mut base, &mut new], u64::MAX));
            let done = done?;
            if base.digest(false)? != new.digest(false)? {
                return Err("they are not in step".into());
            }
            state = done.state;
            let name = if torn { "torn: the rest" } else { "first start" };
            section.line(
                name,
                vec![
                    Cell::Number(rows as f64, 0),
                    Cell::Number(state as f64 / 1e3, 1),
                    Cell::Number(done.bytes as f64 / 1e3, 1),
                    Cell::Number(done.seconds, 1),
                    Cell::Number(done.bytes as f64 / rows as f64, 1),
                    Cell::Number(sample.cpu, 1),
                ],
            );
        }
    }
    Ok(vec![section])
}
