//! Tests of somebody on the line: he speaks the link's protocol with each end, reads all that is said, and passes on what he
//! likes. The clock is a number; nothing sleeps.

use std::collections::VecDeque;
use std::sync::Arc;

use packmule_core::link::{BoardLink, Config, Event, WIRE_MAX};

use super::pump::{Line, LineEvent};
use super::talk::{Talk, difference, note};
use super::{Error, Flow, Options};
use crate::carry::between::{SQL, device};
use crate::carry::channel::{VALUES, Wire};
use crate::carry::session;
use crate::engine::{Engine, FleetKey};

/// Names that the hellos say.
const NAMES: [&str; 2] = ["a in the hut", "b in the hut"];
/// The opening of the channel has so many bytes.
const OPENING: usize = VALUES + 54;
/// What the hello of each end says, among other things: its name.
const SECRET: &[u8] = b"in the hut";

/// One end: its program, and the end of the line at it.
struct End {
    engine: Engine,
    line: Arc<Line>,
    talk: Option<Talk>,
    error: Option<Error>,
    was_in_step: bool,
}

impl End {
    fn new(engine: Engine, plain: bool) -> Self {
        Self::at(engine, plain, 4_000_000)
    }

    /// On a line of this rate.
    fn at(engine: Engine, plain: bool, baud: u32) -> Self {
        let path = "none".into();
        let (baud_max, flow, patience) = (baud, Flow::None, None);
        let options = Options { path, baud, baud_max, flow, plain, patience };
        let (line, _) = Line::new(&options, note(plain)).unwrap();
        Self { engine, line, talk: None, error: None, was_in_step: false }
    }

    /// Lets the program do what is due.
    fn work(&mut self, plain: bool, now_ms: u64) {
        if self.error.is_none() {
            self.error = self.try_work(plain, now_ms).err();
        }
    }

    fn try_work(&mut self, plain: bool, now_ms: u64) -> Result<(), Error> {
        let events: Vec<LineEvent> = {
            let mut inner = self.line.lock();
            inner.poll_events();
            inner.events.drain(..).collect()
        };
        if events.iter().any(|event| matches!(event, LineEvent::Link(Event::Connected))) {
            let (leads, theirs) = {
                let link = &self.line.lock().link;
                (link.leads(), link.peer().unwrap().note)
            };
            if let Some(error) = difference(plain, theirs) {
                return Err(error);
            }
            self.talk = Some(Talk::begin(&mut self.engine, plain, leads, now_ms)?);
        }
        let Some(talk) = &mut self.talk else { return Ok(()) };
        talk.receive(&mut self.engine, &self.line, now_ms)?;
        talk.tick(&mut self.engine, now_ms)?;
        talk.send(&mut self.engine, &self.line, now_ms)?;
        self.was_in_step |= talk.session().is_some_and(|session| session.in_step());
        Ok(())
    }
}

/// What somebody on the line does to what one end says.
enum Does {
    /// He passes it on.
    Nothing,
    /// A bit of this byte is flipped.
    Flip(usize),
    /// So many from this one on are taken out.
    Lose(usize, usize),
    /// So many before this one come twice.
    Repeat(usize, usize),
}

/// Somebody on the line: an end of a link to each end, and all that each has said.
struct Between {
    links: [Box<BoardLink>; 2],
    heard: [Vec<u8>; 2],
    due: [Vec<u8>; 2],
    does: [Does; 2],
    /// A channel of his own with each end.
    wires: Option<[Wire; 2]>,
}

impl Between {
    fn new(notes: [u8; 2], does: [Does; 2]) -> Self {
        // The first end leads, as if he were not there.
        let links = [(notes[0], 1), (notes[1], u32::MAX)].map(|(note, nonce)| {
            let mut config = Config::new(4_000_000, nonce);
            config.note = note;
            Box::new(BoardLink::new(config))
        });
        Self { links, heard: Default::default(), due: Default::default(), does, wires: None }
    }

    /// Passes on what came, or what he makes of it.
    fn pass(&mut self) {
        for way in [0, 1] {
            while self.links[way].event().is_some() {}
            let mut bytes = [0; 4_096];
            let count = self.links[way].recv(&mut bytes);
            let mut out = Vec::new();
            for byte in &bytes[..count] {
                let (at, all) = (self.heard[way].len(), &mut self.heard[way]);
                all.push(*byte);
                match self.does[way] {
                    Does::Flip(n) if at == n => out.push(byte ^ 4),
                    Does::Lose(n, count) if (n..n + count).contains(&at) => {}
                    Does::Repeat(n, count) if at == n => {
                        out.extend_from_slice(&all[n.saturating_sub(count)..])
                    }
                    _ => out.push(*byte),
                }
            }
            match &mut self.wires {
                Some(wires) => translate(wires, way, &out, &mut self.due),
                None => self.due[1 - way].append(&mut out),
            }
            let taken = self.links[1 - way].send(&self.due[1 - way]);
            self.due[1 - way].drain(..taken);
        }
    }
}

/// Opens what came by the one channel, and closes it for the other one.
fn translate(wires: &mut [Wire; 2], way: usize, came: &[u8], due: &mut [Vec<u8>; 2]) {
    wires[way].hear(came);
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = wires[way].take(&mut bytes) {
        wires[1 - way].put(&bytes[..count]);
        wires[1 - way].seal().unwrap();
    }
    for at in [0, 1] {
        due[at].extend_from_slice(wires[at].to_go());
        let gone = wires[at].to_go().len();
        wires[at].went(gone);
    }
}

/// What became of a session with somebody in between.
struct Came {
    ends: [End; 2],
    heard: [Vec<u8>; 2],
    /// How many frames have come to the other end, and are believed to be there.
    frames: u64,
    believed: u64,
    _folder: tempfile::TempDir,
}

impl Came {
    fn errors(&self) -> [String; 2] {
        [0, 1].map(|at| self.ends[at].error.as_ref().map_or(String::new(), |e| format!("{e:?}")))
    }

    fn in_step(&self) -> [bool; 2] {
        [0, 1].map(|at| self.ends[at].was_in_step)
    }
}

/// A session with somebody in between, until both ends are in step or have failed, or some time has passed.
fn through(plain: [bool; 2], mut between: Between, own_channels: bool) -> Came {
    let folder = tempfile::tempdir().unwrap();
    let fleet = FleetKey::create(&folder.path().join("fleet.key")).unwrap();
    let mut ends = [0, 1].map(|at| End::new(device(folder.path(), NAMES[at], &fleet), plain[at]));
    let [a, b] = &mut ends;
    let before = b.engine.status().unwrap().log_frames;
    a.engine.connection().unwrap().execute_batch(SQL.lines().nth(1).unwrap()).unwrap();
    let mut out = [0; WIRE_MAX];
    for ms in (1..25_000_u64).step_by(5) {
        let us = ms * 1_000;
        for (end, link) in ends.iter_mut().zip(&mut between.links) {
            let mut inner = end.line.lock();
            loop {
                let count = inner.link.transmit(us, &mut out);
                link.receive_bytes(us, &out[..count]);
                let back = link.transmit(us, &mut out);
                inner.link.receive_bytes(us, &out[..back]);
                if count + back == 0 {
                    break;
                }
            }
        }
        if own_channels && between.wires.is_none() && between.links.iter().all(|link| link.peer().is_some()) {
            // He calls who waits to be called.
            between.wires = Some([0, 1].map(|at| match between.links[at].leads() {
                true => Wire::call(false).unwrap().after_values(),
                false => Wire::answer(false, Vec::new()).after_values(),
            }));
        }
        between.pass();
        for (end, plain) in ends.iter_mut().zip(plain) {
            end.work(plain, ms);
        }
        let over = |end: &End| end.error.is_some() || end.was_in_step;
        if ends.iter().all(over) {
            break;
        }
    }
    let [a, b] = &ends;
    let devices = a.engine.devices().unwrap();
    let id = b.engine.identity().id;
    let believed = devices.iter().find(|device| device.id == id).map_or(0, |device| device.acknowledged);
    let frames = b.engine.status().unwrap().log_frames - before;
    Came { ends, heard: between.heard, frames, believed, _folder: folder }
}

fn shows(heard: &[Vec<u8>; 2]) -> bool {
    heard.iter().any(|said| said.windows(SECRET.len()).any(|some| some == SECRET))
}

#[test]
fn who_only_listens_reads_no_row() {
    let came = through([false; 2], Between::new([note(false); 2], [Does::Nothing, Does::Nothing]), false);
    assert_eq!((came.errors(), came.in_step()), (Default::default(), [true; 2]));
    assert!(came.frames > 0 && came.believed > 0);
    assert!(!shows(&came.heard), "it can be read");
    // The control: without encryption he reads along, so the test above would see it.
    let came = through([true; 2], Between::new([note(true); 2], [Does::Nothing, Does::Nothing]), false);
    assert_eq!((came.errors(), came.in_step()), (Default::default(), [true; 2]));
    assert!(shows(&came.heard));
}

#[test]
fn whatever_is_changed_on_the_way_is_found_and_nothing_false_is_believed() {
    for way in [0, 1] {
        for at in [0, 5, 20, 60, 300, 1_000].map(|at| VALUES + at) {
            for does in [Does::Flip(at), Does::Lose(at, 3), Does::Repeat(at + 1, 40)] {
                let mut both = [Does::Nothing, Does::Nothing];
                both[way] = does;
                let came = through([false; 2], Between::new([note(false); 2], both), false);
                let errors = came.errors();
                assert!(came.believed <= came.frames, "{} of {}", came.believed, came.frames);
                let said = came.heard[way].len();
                if said > at {
                    // Where the opening never comes to its end, nothing is said at all.
                    let stuck = at < OPENING && came.in_step() == [false; 2];
                    let noticed = errors.iter().any(|e| !e.is_empty());
                    assert!(noticed || stuck, "{way} {at} of {said}: nobody noticed");
                    let known = ["", "Tampered", "Foreign", "Clear"];
                    assert!(
                        errors.iter().all(|e| known.iter().any(|known| e.starts_with(known))),
                        "{errors:?}"
                    );
                }
            }
        }
    }
}

/// He has a channel with each end, and what one end proves in its channel is no proof in the other one.
#[test]
fn who_stands_in_between_with_two_channels_is_found() {
    let came = through([false; 2], Between::new([note(false); 2], [Does::Nothing, Does::Nothing]), true);
    let found = came.ends.iter().any(|end| {
        matches!(&end.error, Some(Error::Session(session::Error::Proof | session::Error::Refused { .. })))
    });
    assert!(found, "{:?}", came.errors());
    assert_eq!((came.in_step(), came.frames, came.believed), ([false; 2], 0, 0));
}

/// He says to each end that the other one does not encrypt: neither goes on in clear.
#[test]
fn nobody_is_talked_out_of_encryption() {
    for notes in [[0, 0], [note(true), note(true)], [note(true), note(false)]] {
        let came = through([false; 2], Between::new(notes, [Does::Nothing, Does::Nothing]), false);
        assert!(matches!(came.ends[0].error, Some(Error::Clear { theirs: true, .. })), "{:?}", came.errors());
        assert_eq!((came.in_step(), came.frames, came.believed), ([false; 2], 0, 0));
        assert!(!shows(&came.heard));
    }
}

/// What is taken out at the end of what an end has to say is noticed, though nothing else is said.
#[test]
fn an_end_that_has_nothing_to_say_says_so() {
    let came = through([false; 2], Between::new([note(false); 2], [Does::Nothing, Does::Nothing]), false);
    let [mut a, _] = came.ends;
    let talk = a.talk.as_mut().unwrap();
    let said = |talk: &mut Talk, engine: &mut Engine, line: &Line, ms| {
        line.lock().poll_events();
        line.lock().events.clear();
        talk.tick(engine, ms).unwrap();
        let before = line.lock().link.unacknowledged();
        talk.send(engine, line, ms).unwrap();
        line.lock().link.unacknowledged() - before
    };
    let begun = 60_000;
    said(talk, &mut a.engine, &a.line, begun);
    assert_eq!(said(talk, &mut a.engine, &a.line, begun + 19_999), 0);
    assert_eq!(said(talk, &mut a.engine, &a.line, begun + 20_000), 18);
}

/// What a byte takes at 921,600 baud.
const BYTE_US: f64 = 10.0 / 0.921_6;

/// What is wrong with a line of 921,600 baud and 5 ms.
#[derive(Default)]
struct Bad {
    /// By the bit, how often one flips.
    flip: f64,
    /// From when to when what is on the line is lost.
    gone: Option<(u64, u64)>,
    /// The terminals are gone then, too, and others come.
    vanish: bool,
}

impl Bad {
    fn flips(flip: f64) -> Self {
        Self { flip, ..Self::default() }
    }
}

/// A line by a clock that is a number: how long rows of 4 KiB take over it, in microseconds, from the first hello until both
/// ends are in step.
fn carried(plain: bool, rows: u64, bad: &Bad) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let fleet = FleetKey::create(&folder.path().join("fleet.key")).unwrap();
    let mut ends = [0, 1].map(|at| End::at(device(folder.path(), NAMES[at], &fleet), plain, 921_600));
    let fill = SQL.lines().nth(2).unwrap().replace("i < 64", &format!("i < {rows}"));
    ends[0].engine.connection().unwrap().execute_batch(&fill).unwrap();
    let (mut us, mut free, mut random) = (0_u64, [0.0; 2], 0x9e37_79b9_7f4a_7c15_u64);
    let mut flying: [VecDeque<(u64, Vec<u8>)>; 2] = Default::default();
    let mut out = [0; WIRE_MAX];
    let is_gone = |us: u64| bad.gone.is_some_and(|(from, to)| (from..to).contains(&us));
    while !ends.iter().all(|end| end.was_in_step) {
        us += 250;
        assert!(us < 60_000_000 && ends.iter().all(|end| end.error.is_none()));
        for at in [0, 1] {
            let mut inner = ends[at].line.lock();
            if bad.vanish && is_gone(us - 250) && !is_gone(us) {
                inner.link.line_changed(us);
            }
            while flying[at].front().is_some_and(|(due, _)| *due <= us) {
                let (_, came) = flying[at].pop_front().unwrap();
                if !is_gone(us) {
                    inner.link.receive_bytes(us, &came);
                }
            }
            while free[at] <= us as f64 && !(bad.vanish && is_gone(us)) {
                let count = inner.link.transmit(us, &mut out);
                if count == 0 {
                    break;
                }
                for byte in &mut out[..count] {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let hit = ((random >> 11) as f64) < bad.flip * 8.0 * (1_u64 << 53) as f64;
                    *byte ^= u8::from(hit) << (random >> 61);
                }
                free[at] = free[at].max(us as f64) + count as f64 * BYTE_US;
                flying[1 - at].push_back((free[at] as u64 + 5_000, out[..count].to_vec()));
            }
            drop(inner);
            ends[at].work(plain, us / 1_000);
        }
    }
    us
}

/// What encryption costs of a line: the opening, and two bytes in a hundred at the most where no bit flips. Where some do, other
/// ones do each time, since keys differ: there it is only shown that what is said twice is not much.
#[test]
fn a_line_carries_as_much_encrypted_as_in_clear() {
    for flip in [0.0, 1e-6, 1e-5, 1e-4] {
        let [clear, encrypted] = [true, false].map(|plain| carried(plain, 64, &Bad::flips(flip)));
        println!("bit error rate {flip:e}: {clear} us in clear, {encrypted} us encrypted");
        let percent = if flip == 0.0 { 102 } else { 115 };
        assert!(encrypted * 100 < clear * percent, "{flip:e}: {clear} us in clear, {encrypted} us encrypted");
    }
}

/// 1 MiB of rows as a share of what the line carries in that time, encrypted, with all that the session itself takes.
#[test]
fn an_encrypted_line_carries_its_share_also_where_bits_flip_and_where_it_is_gone_for_two_seconds() {
    let gone = Some((6_000_000, 8_000_000));
    for (what, bad, least) in [
        ("no bit flips", Bad::default(), 0.97),
        ("1e-6", Bad::flips(1e-6), 0.95),
        ("1e-5", Bad::flips(1e-5), 0.91),
        ("1e-4", Bad::flips(1e-4), 0.78),
        ("the wire is cut for 2 s", Bad { gone, ..Bad::default() }, 0.83),
        ("both terminals are gone for 2 s", Bad { gone, vanish: true, ..Bad::default() }, 0.82),
    ] {
        let us = carried(false, 256, &bad);
        let share = f64::from(1 << 20) * BYTE_US / us as f64;
        println!("{what}: {share:.3}");
        // Keys differ each time, and with them the third digit.
        assert!((share * 100.0).round() >= least * 100.0, "{what}: {share:.3} of {least}");
    }
}
