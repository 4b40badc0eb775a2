//! The files: what an insider signs for the base of a fleet, or for a newcomer.

use packmule::Engine;
use packmule::core::model::{DeviceId, Stream, Value};
use packmule::core::wire::{
    CERT_MAX, Certificate, Frame, FrameFlags, FrameWriter, GroupStart, Named, OpHead, OpKind, RecordKind,
};

use super::{Fleet, corpus, fleet_in, folded_in, forged, known_world, state_body, state_row};
use crate::bundles;
use crate::common::{bundle, sql};

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
struct Group<'a> {
    flags: u8,
    lamport: u64,
    context: &'a [(Named, u64)],
}

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
    let wall = frame.group.unwrap().wall;
    let start = GroupStart { lamport: group.lamport, wall, pair: 0, context: group.context };
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
    let plain = Group { flags: 0, lamport: 20, context: &[] };
    let mut add = |what: &str, must, of: &Group<'_>, write: &dyn Fn(&mut FrameWriter<'_>)| {
        all.push(Wrong::new(what, must, group(&insider, &bytes, of, |writer| write(writer))));
    };
    let settings = super::def_of(&bytes);
    let row = |writer: &mut FrameWriter<'_>| {
        let head = OpHead::plain(OpKind::Insert);
        writer.op(settings, &head, [Value::Int(5), Value::Int(1)].into_iter()).unwrap();
    };
    add("a frame of two kinds", Must::SetAside, &Group { flags: 2 | 8, ..plain }, &row);
    add("a frame of a newer kind", Must::Waits, &Group { flags: 128, ..plain }, &row);
    add("a frame that says what it gave up, and has rows", Must::GoesIn, &Group { flags: 64, ..plain }, &row);
    let nobody = [(Named::Id(DeviceId([9; 16])), 0)];
    add("a context of nobody", Must::GoesIn, &Group { context: &nobody, ..plain }, &row);
    let unheard = [(Named::Id(DeviceId([9; 16])), 1)];
    add("a context of who is unheard of", Must::Waits, &Group { context: &unheard, ..plain }, &row);
    let most = [(Named::Id(base.identity().id), i64::MAX as u64)];
    add(
        "a context of all that the base will ever write",
        Must::Waits,
        &Group { context: &most, ..plain },
        &row,
    );
    add("a stamp beyond all counting", Must::Refused, &Group { lamport: u64::MAX, ..plain }, &row);
    let all_ids = [base.identity().id, good.identity().id, north.identity().id];
    add("a board that retires everybody", Must::GoesIn, &plain, &|writer| {
        all_ids.iter().for_each(|id| writer.retire(*id).unwrap());
    });
    for (what, as_probes) in [("vector", false), ("probes", true)] {
        let claims = Stream::ALL.map(|stream| (stream, i64::MAX as u64, [9; 4]));
        let lie = bundles::lie(&insider, &bytes, &base, &claims, as_probes);
        all.push(Wrong::new(&format!("a header that lies by its {what}"), Must::GoesIn, lie));
    }
    all.push(Wrong::new("a board that vouches for a base", Must::Refused, vouched(&insider, &bytes)));
    all
}

/// A certificate of a base that the insider's key has signed.
fn vouched(insider: &Engine, bytes: &[u8]) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let key = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([1; 32])).sk;
    let certificate = Certificate::new(&key, "false base", true).unwrap();
    let certificate = certificate.vouched(&bundles::key_of(insider)).unwrap();
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
