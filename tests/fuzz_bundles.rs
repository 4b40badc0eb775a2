//! Bundles that were changed on the way into an engine: by somebody who can make check sums anew, and by a device of the
//! fleet that signs what it has changed. None panics, and none ends in an error of SQLite: it is refused, or taken in.
//!
//! Some of each are tried here, always the same; `PACKMULE_EXECUTIONS=N` tries N of each target, `PACKMULE_SEED=N` others,
//! `PACKMULE_TARGET=NAME` one target alone. The decoders of the core are tried by `tests/fuzz/decoders.rs`.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bundles::Record;
use common::*;
use packmule::core::wire::{FRAME_MAX, RecordKind, crc32};
use packmule::{Encrypting, Engine, Error};

/// A device that signs, one that hears, and what the first has for the second.
struct Pair {
    world: World,
    signer: Engine,
    /// Records of a bundle with frames, and of one with a state.
    frames: Vec<Record>,
    state: Vec<Record>,
}

impl Pair {
    fn new() -> Self {
        let world = World::new();
        let tables = "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT, n INT, b BLOB);
                      CREATE TABLE u (k TEXT PRIMARY KEY, v REAL UNIQUE) WITHOUT ROWID;
                      INSERT INTO t VALUES (1, 'one', 1, x'0102'), (2, 'two', -5, zeroblob(40)), (3, NULL, 1 << 40, NULL);
                      INSERT INTO u VALUES ('a', 1.5), ('b', 2.5)";
        let mut signer = world.board_with("signer", tables, &["t", "u"]);
        let heard = world.board_with("heard", &tables[..tables.find("INSERT").unwrap()], &["t", "u"]);
        sql(&signer, "UPDATE t SET v = 'more' WHERE k = 1; DELETE FROM t WHERE k = 3");
        let frames = bundles::records(&whole_bundle(&mut signer));
        drop(heard);
        let mut snapshot = Vec::new();
        signer.snapshot(&mut snapshot).unwrap();
        let state = bundles::records(&snapshot);
        assert!(state.iter().any(|(kind, _)| *kind == RecordKind::State), "there is no state");
        Self { world, signer, frames, state }
    }

    /// A device that has heard nothing yet: a copy of the one that hears.
    fn heard(&self) -> Engine {
        let to = self.world.path("copy");
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", to.display()));
        }
        std::fs::copy(self.world.path("heard"), &to).unwrap();
        std::fs::copy(key_file(&self.world.path("heard")), key_file(&to)).unwrap();
        Engine::open_with(&to, self.world.options()).unwrap()
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1) as u64) as usize;
        let to = (at + random.below(12) as usize).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = *random.pick(&[0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff]),
            2 => bytes.insert(at, *random.pick(&[0, 1, 0x80, 0xff])),
            3 => drop(bytes.drain(at..to)),
            4 => bytes.truncate(to),
            _ => drop(bytes.splice(at..at, bytes[at..to].to_vec())),
        }
    }
}

/// Changes a record of one of these kinds.
fn change(records: &mut [Record], kinds: &[RecordKind], random: &mut Random) -> usize {
    let places: Vec<usize> = (0..records.len()).filter(|at| kinds.contains(&records[*at].0)).collect();
    let at = *random.pick(&places);
    mutate(&mut records[at].1, random);
    at
}

/// Lets the device hear a bundle in every way; an error of SQLite is none of a bundle.
fn hears(engine: &mut Engine, bytes: &[u8]) -> bool {
    let _ = packmule::inspect(bytes);
    let _ = engine.survey(bytes);
    let checked = engine.check(&mut Cursor::new(bytes));
    match try_import(engine, bytes) {
        Err(Error::Sqlite(e)) => panic!("an error of SQLite: {e}"),
        Err(_) => false,
        Ok(_) => {
            assert!(checked.is_ok(), "taken in, though it was refused before: {checked:?}");
            true
        }
    }
}

/// Every check sum is made anew, and no signature.
fn unsigned(pair: &Pair, random: &mut Random) -> bool {
    use RecordKind::{Certificate, Checkpoint, Frame, Header, Newest, Seal, Section, State};
    let mut records = if random.chance(50) { pair.frames.clone() } else { pair.state.clone() };
    change(&mut records, &[Header, Certificate, Section, Frame, Checkpoint, Newest, State, Seal], random);
    if random.chance(10) {
        let at = random.below(records.len() as u64) as usize;
        records.remove(at);
    }
    hears(&mut pair.heard(), &bundles::join(&records))
}

/// The author signs a frame that it has changed.
fn signed(pair: &Pair, random: &mut Random) -> bool {
    let mut records = pair.frames.clone();
    let single = |at: &usize| {
        records[*at].0 == RecordKind::Frame
            && records[at - 1].0 != RecordKind::Frame
            && records[at + 1].0 == RecordKind::Checkpoint
    };
    let places: Vec<usize> = (0..records.len()).filter(single).collect();
    let at = *random.pick(&places);
    let mut frame = bundles::plain(&records[at].1);
    frame.truncate(frame.len() - 4);
    let head = frame.len().min(4);
    let mut blocks = frame.split_off(head);
    mutate(&mut blocks, random);
    frame.extend(blocks);
    frame.extend(crc32(&frame).to_le_bytes());
    frame.truncate(FRAME_MAX);
    bundles::replace_frame(&mut records, at, frame, &pair.signer);
    // What comes after it does not go on from it any more.
    let end = records.len().min(at + 2);
    records.truncate(end);
    hears(&mut pair.heard(), &bundles::join(&records))
}

/// Its maker signs a state that it has changed.
fn state(pair: &Pair, random: &mut Random) -> bool {
    let mut records = pair.state.clone();
    change(&mut records, &[RecordKind::State], random);
    bundles::seal_state(&mut records, &pair.signer);
    hears(&mut pair.heard(), &bundles::join(&records))
}

/// An encrypted bundle that was changed.
fn encrypted(pair: &Pair, random: &mut Random) -> bool {
    let mut heard = pair.heard();
    let readers = heard.fleet_readers().unwrap();
    let mut out = Encrypting::new(Vec::new(), &readers).unwrap();
    std::io::Write::write_all(&mut out, &bundles::join(&pair.frames)).unwrap();
    out.finish().unwrap();
    let mut bytes = std::mem::take(out.inner());
    let whole = bytes.clone();
    mutate(&mut bytes, random);
    let opened = heard.open_bundle(Cursor::new(&bytes), None);
    let Ok(mut file) = opened else { return false };
    let taken = heard.import(&mut file, &mut |_| ()).is_ok();
    // One slot may be changed that is not this device's.
    let slots = 44 + 48 * usize::from(whole[10]);
    assert!(!taken || bytes.get(slots..) == whole.get(slots..), "a changed ciphertext was taken in");
    taken
}

type Run = fn(&Pair, &mut Random) -> bool;
const TARGETS: [(&str, Run, u64); 4] =
    [("unsigned", unsigned, 60), ("signed", signed, 60), ("state", state, 60), ("encrypted", encrypted, 30)];

#[test]
fn no_bundle_harms_who_hears_it() {
    let pair = Pair::new();
    // The controls: as they are, they are taken in.
    assert!(hears(&mut pair.heard(), &bundles::join(&pair.frames)));
    let only = std::env::var("PACKMULE_TARGET").ok();
    let mut wrong = Vec::new();
    for (name, run, usual) in
        TARGETS.iter().filter(|(name, ..)| only.as_ref().is_none_or(|only| only == name))
    {
        let first = number("PACKMULE_SEED").unwrap_or(0);
        let executions = number("PACKMULE_EXECUTIONS").unwrap_or(*usual);
        let mut taken = 0;
        for seed in first..first + executions {
            match catch_unwind(AssertUnwindSafe(|| run(&pair, &mut Random(seed)))) {
                Ok(is_taken) => taken += u64::from(is_taken),
                Err(_) => {
                    wrong.push(format!("PACKMULE_TARGET={name} PACKMULE_SEED={seed} PACKMULE_EXECUTIONS=1"))
                }
            }
        }
        println!("{name}: {executions} executions, {taken} taken in");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
