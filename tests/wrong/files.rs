//! The files: what an insider signs for the base of a fleet, or for a newcomer.

use packmule::Engine;
use packmule::core::model::{DeviceId, Stream, Value};
use packmule::core::wire::{
    Block, CERT_MAX, Certificate, Decision, DefId, Frame, FrameFlags, FrameWriter, GroupStart, Header,
    HeaderReader, KeptRun, Named, OpHead, OpKind, Position, RecordKind, SchemaBits, Span, Was,
};

use super::{Fleet, corpus, fleet_in, folded_in, forged, known_world, state_body, state_row};
use crate::bundles;
use crate::common::{self, bundle, sql};

/// What a device that takes in a file must do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// The stream of its author stands still, by name.
    SetAside,
    /// It waits for frames that nobody has, or for a newer program, by name.
    Waits,
    /// The file is refused, and leaves no trace.
    Refused,
    /// What is sound of it is taken in; the rest is without effect.
    GoesIn,
}

/// A file, and what is said about it.
pub struct Wrong {
    pub name: String,
    pub must: Must,
    /// It is for the newcomer, not for the base.
    pub for_newcomer: bool,
    pub bytes: Vec<u8>,
}

impl Wrong {
    fn new(name: &str, must: Must, bytes: Vec<u8>) -> Self {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        Self { name: format!("{name}.pmb"), must, for_newcomer: false, bytes }
    }
}

/// What the insider's group is besides its content.
#[derive(Clone, Copy)]
struct Group<'a> {
    flags: u8,
    lamport: u64,
    /// When it was sealed; none: when it was.
    wall: Option<i64>,
    pair: u64,
    context: &'a [(Named, u64)],
}

const PLAIN: Group<'static> = Group { flags: 0, lamport: 20, wall: None, pair: 0, context: &[] };

/// Writes the last group of a bundle again, and signs it.
fn group(
    author: &Engine,
    bytes: &[u8],
    group: &Group<'_>,
    write: impl FnOnce(&mut FrameWriter<'_>),
) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    records.truncate(at + 2);
    let frame = Frame::parse(&records[at].1).unwrap();
    let wall = group.wall.unwrap_or(frame.group.unwrap().wall);
    let start = GroupStart { lamport: group.lamport, wall, pair: group.pair, context: group.context };
    let mut buf = vec![0; 60_000];
    let flags = FrameFlags(group.flags);
    let mut writer = FrameWriter::new(&mut buf, flags, frame.head.seq, Some(start)).unwrap();
    write(&mut writer);
    let body = writer.finish().to_vec();
    bundles::replace_frame(&mut records, at, body, author);
    bundles::join(&records)
}

/// Makes all files anew, the same every time.
pub fn files() -> Vec<Wrong> {
    let mut all = for_base();
    all.extend(states());
    all
}

fn for_base() -> Vec<Wrong> {
    let Fleet { world: _world, base, good, north, mut insider } = fleet_in(known_world());
    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
    let bytes = bundle(&mut insider, &base);
    let whole = common::whole_bundle(&mut insider);
    let bytes = bundles::lie(&insider, &bytes, &base, &[], false); // Its statement has a number of chance.
    let mut all = Vec::new();
    for (what, content) in corpus() {
        all.push(Wrong::new(what, Must::SetAside, forged(&insider, &bytes, &content, &[])));
    }
    let next = [(Named::Id(north.identity().id), north.devices().unwrap()[0].shared + 1)];
    for (what, content) in corpus().into_iter().take(4) {
        let what = format!("{what} that waits");
        all.push(Wrong::new(&what, Must::Waits, forged(&insider, &bytes, &content, &next)));
    }
    let mut add = |what: &str, must, of: &Group<'_>, write: &dyn Fn(&mut FrameWriter<'_>)| {
        all.push(Wrong::new(what, must, group(&insider, &bytes, of, |writer| write(writer))));
    };
    let settings = super::def_of(&bytes);
    let row = |writer: &mut FrameWriter<'_>| {
        let head = OpHead::plain(OpKind::Insert);
        writer.op(settings, &head, [Value::Int(5), Value::Int(1)].into_iter()).unwrap();
    };
    add("a frame of two kinds", Must::SetAside, &Group { flags: 2 | 8, ..PLAIN }, &row);
    add("a frame of a newer kind", Must::Waits, &Group { flags: 128, ..PLAIN }, &row);
    add("a frame that says what it gave up, and has rows", Must::GoesIn, &Group { flags: 64, ..PLAIN }, &row);
    let nobody = [(Named::Id(DeviceId([9; 16])), 0)];
    add("a context of nobody", Must::GoesIn, &Group { context: &nobody, ..PLAIN }, &row);
    let unheard = [(Named::Id(DeviceId([9; 16])), 1)];
    add("a context of who is unheard of", Must::Waits, &Group { context: &unheard, ..PLAIN }, &row);
    let most = [(Named::Id(base.identity().id), i64::MAX as u64)];
    add(
        "a context of all that the base will ever write",
        Must::Waits,
        &Group { context: &most, ..PLAIN },
        &row,
    );
    add("a stamp beyond all counting", Must::Refused, &Group { lamport: u64::MAX, ..PLAIN }, &row);
    let all_ids = [base.identity().id, good.identity().id, north.identity().id];
    add("a board that retires everybody", Must::GoesIn, &PLAIN, &|writer| {
        all_ids.iter().for_each(|id| writer.retire(*id).unwrap());
    });
    numbers(&mut add, &row);
    of_others(&mut add, settings, &row);
    of_tables(&mut add, settings, &definition_in(&whole), &row);
    for (what, as_probes) in [("vector", false), ("probes", true)] {
        let claims = Stream::ALL.map(|stream| (stream, i64::MAX as u64, [9; 4]));
        let lie = bundles::lie(&insider, &bytes, &base, &claims, as_probes);
        all.push(Wrong::new(&format!("a header that lies by its {what}"), Must::GoesIn, lie));
    }
    all.push(Wrong::new(
        "a header of devices that nobody has heard of",
        Must::GoesIn,
        of_nobody(&insider, &bytes),
    ));
    let key = bundles::key_of(&insider);
    let other = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([1; 32])).sk;
    let (refused, ignored) = (Must::Refused, Must::GoesIn);
    for (what, must, certificate) in [
        (
            "a board that vouches for a base",
            refused,
            Certificate::new(&other, "false base", true).unwrap().vouched(&key),
        ),
        ("a board that vouches for a fleet key", ignored, Certificate::succession(&other, &key)),
        ("a board that says it is a base", ignored, Certificate::numbered(&key, "insider", true, 5)),
        (
            "a board that vouches for itself as a base",
            refused,
            Certificate::new(&key, "base", true).unwrap().vouched(&key),
        ),
    ] {
        all.push(Wrong::new(what, must, certified(&bytes, &certificate.unwrap())));
    }
    all
}

type Add<'a> = dyn FnMut(&str, Must, &Group<'_>, &dyn Fn(&mut FrameWriter<'_>)) + 'a;

/// Numbers at their ends.
fn numbers(add: &mut Add<'_>, row: &dyn Fn(&mut FrameWriter<'_>)) {
    add("a stamp at the end of counting", Must::GoesIn, &Group { lamport: 1 << 62, ..PLAIN }, row);
    for (what, wall) in [("before all time", i64::MIN), ("after all time", i64::MAX)] {
        add(&format!("a clock {what}"), Must::GoesIn, &Group { wall: Some(wall), ..PLAIN }, row);
    }
    add("a part of a seal without the other", Must::GoesIn, &Group { pair: 77, ..PLAIN }, row);
    let most = Group { pair: i64::MAX as u64, ..PLAIN };
    add("a part of a seal that is beyond all counting", Must::GoesIn, &most, row);
}

/// What the insider says of others, and of conflicts.
fn of_others(add: &mut Add<'_>, settings: DefId, row: &dyn Fn(&mut FrameWriter<'_>)) {
    let op = |writer: &mut FrameWriter<'_>, kind, key: i64| {
        let head = OpHead::plain(kind);
        let values = [Value::Int(key), Value::Int(1)];
        let len = if kind == OpKind::Insert { 2 } else { 1 };
        writer.op(settings, &head, values.into_iter().take(len)).unwrap();
    };
    let verdict = Group { flags: 8, ..PLAIN };
    add("a verdict that removes what was never there", Must::GoesIn, &verdict, &|writer| {
        writer.keep(&[]).unwrap();
        op(writer, OpKind::Delete, 66);
        op(writer, OpKind::Keep, 67);
    });
    add("a verdict that leaves frames of nobody", Must::GoesIn, &verdict, &|writer| {
        writer.keep(&[KeptRun { device: DeviceId([9; 16]), first: 1, last: i64::MAX as u64 }]).unwrap();
        op(writer, OpKind::Keep, 5);
    });
    let resolution = Group { flags: 4, ..PLAIN };
    for (what, key, was) in [
        ("a decision of a conflict that is not there", &[1, 10][..], Was::Untold),
        ("a decision about a key that is none", &[9, 9, 9], Was::Gone),
        ("a decision about a row whose values are none", &[1, 10], Was::Values(&[3, 200])),
    ] {
        add(what, Must::GoesIn, &resolution, &|writer| {
            let decision = Decision { conflict: [1; 5], def: settings, key, claim: 1 << 62, was };
            writer.decision(&decision).unwrap();
            row(writer);
        });
    }
    let introduced = [(Named::Introduced(5, DeviceId([8; 16])), 0)];
    add("a number for nobody", Must::GoesIn, &Group { context: &introduced, ..PLAIN }, row);
    let nobody = [(Named::Id(DeviceId([9; 16])), 0)];
    let gave_up = Group { flags: 64, context: &nobody, ..PLAIN };
    add("a history of nobody that was given up", Must::GoesIn, &gave_up, &|_| ());
}

/// What is said of renamed columns: what a device must do with it, the bits, and the names before and after.
type Said = (&'static str, Must, u8, &'static [(&'static str, &'static str)]);

/// What the insider says of tables.
fn of_tables(add: &mut Add<'_>, settings: DefId, def: &[u8], row: &dyn Fn(&mut FrameWriter<'_>)) {
    for (what, from, to) in [
        ("a table that is said again and again", &[][..], &[][..]),
        ("spans that go backwards", &[1, 20], &[1, 10]),
        ("a span between keys of another table", &[1, 2, 1, 2], &[]),
    ] {
        add(what, Must::SetAside, &Group { flags: 32, ..PLAIN }, &|writer| {
            (0..2).for_each(|_| writer.span(&Span { def: settings, from, to }).unwrap());
        });
    }
    let said: [Said; 6] = [
        ("columns that were renamed into each other", Must::GoesIn, 1, &[("id", "value"), ("value", "id")]),
        ("a column that was renamed from one that nobody has", Must::GoesIn, 1, &[("nobody", "value")]),
        ("a column that was renamed to itself", Must::GoesIn, 1, &[("value", "value")]),
        ("a key that was dropped", Must::GoesIn, 4, &[("id", "")]),
        ("a renamed column that clears the screen", Must::SetAside, 1, &[("value", "\u{1b}[2J")]),
        ("a dropped column that turns the text around", Must::SetAside, 4, &[("a\u{202e}b", "")]),
    ];
    for (what, must, bits, names) in said {
        add(what, must, &PLAIN, &|writer| {
            writer.schema(def, SchemaBits(bits), names).unwrap();
            row(writer);
        });
    }
}

/// The first definition that the author of a bundle said in it.
fn definition_in(bytes: &[u8]) -> Vec<u8> {
    let records = bundles::records(bytes);
    let frames = records.iter().filter(|(kind, _)| *kind == RecordKind::Frame);
    let first = frames.map(|(_, body)| bundles::plain(body)).find_map(|body| {
        match Frame::parse(&body).unwrap().blocks().next_block().unwrap() {
            Some(Block::Def(def)) => Some(def.to_vec()),
            _ => None,
        }
    });
    first.unwrap()
}

/// A header that says what its sender has of many devices.
fn of_nobody(insider: &Engine, bytes: &[u8]) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let header = HeaderReader::parse(&records[0].1).unwrap();
    let nobody = (0..100).map(|n| Position {
        author: DeviceId([n; 16]),
        stream: Stream::Shared,
        seq: i64::MAX as u64,
        tag: [9; 4],
    });
    let mut applied: Vec<Position> = header.applied().chain(nobody).collect();
    applied.sort_by_key(|position| position.author);
    let fixed = Header { applied: applied.len() as u32, probes: 0, ..header.header };
    let mut buf = vec![0; 8_192];
    let key = bundles::key_of(insider);
    let len = fixed.encode(&mut buf, applied.into_iter(), std::iter::empty(), &key).unwrap();
    records[0].1 = buf[..len].to_vec();
    bundles::join(&records)
}

/// A bundle with one more certificate.
fn certified(bytes: &[u8], certificate: &Certificate) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let mut buf = [0; CERT_MAX];
    let len = certificate.encode(&mut buf).unwrap();
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Certificate).unwrap();
    records.insert(at + 1, (RecordKind::Certificate, buf[..len].to_vec()));
    bundles::join(&records)
}

/// States for a newcomer: of each kind of record one, with a number out of range.
fn states() -> Vec<Wrong> {
    let (mut fleet, late) = folded_in(known_world());
    let bytes = bundle(&mut fleet.insider, &late);
    let sound = bundles::records(&bundles::lie(&fleet.insider, &bytes, &late, &[], false));
    let mut kinds = std::collections::BTreeMap::new();
    for (at, (kind, body)) in sound.iter().enumerate() {
        if *kind == RecordKind::State {
            kinds.insert(state_row(body).0, at);
        }
    }
    let mut all = Vec::new();
    for (kind, at) in kinds {
        let (_, mut values) = state_row(&sound[at].1);
        let Some(number) = values.iter_mut().find(|value| matches!(value, Value::Int(_))) else { continue };
        *number = Value::Int(1 << 62);
        let mut records = sound.clone();
        records[at].1 = state_body(&kind, &values);
        bundles::seal_state(&mut records, &fleet.insider);
        // The highest Lamport time of its maker, what it says of an unknown subject, and rows: its word.
        let must = match &*kind {
            "declared" | "lamport" | "row" => Must::GoesIn,
            _ => Must::Refused,
        };
        let wrong = Wrong::new(&format!("state {kind}"), must, bundles::join(&records));
        all.push(Wrong { for_newcomer: true, ..wrong });
    }
    all
}
