//! A small file that asks for much: records of values that take one byte each, keys of a million values, headers of positions
//! without end, groups of thousands of frames, identities that one key vouches for. What is taken in costs as much as what came
//! before it, and the memory for it stays within the megabyte that promise 9 allows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;
mod counted;
mod odd;
mod wrong;

use common::{World, bundle, import, sql, try_import};
use counted::{Counted, is_linear};
use odd::Insider;
use packmule::core::model::{DeviceId, Stream, Value};
use packmule::core::wire::{
    CERT_MAX, Certificate, Chain, Checkpoint, FRAME_MAX, FrameFlags, FrameWriter, GroupDigest, GroupStart,
    Header, HeaderReader, OpHead, OpKind, Position, RecordKind, Section, put,
};
use packmule::{Engine, TrackOptions};
use wrong::{SETTINGS, folded, state_body};

/// What the library itself may take, beside the record that it has in hand.
const ALLOWED: u64 = 1 << 20;

fn within(counted: &Counted, more: u64) {
    let part = counted.0.last().unwrap();
    assert!(part.bytes <= ALLOWED + more, "{}: {} bytes of memory", part.name, part.bytes);
}

/// A base, and a board whose key is in wrong hands.
fn fleet() -> (World, Engine, Engine) {
    let world = World::new();
    let mut base = world.base("base");
    sql(&base, SETTINGS);
    base.track("settings", &TrackOptions::default()).unwrap();
    let mut insider = world.board_with("insider", SETTINGS, &["settings"]);
    common::carry_all(&mut [&mut base, &mut insider]);
    (world, base, insider)
}

/// A record of a state with as many values of one byte as go into one, and a key of as many.
#[test]
fn a_record_of_values_of_one_byte_each() {
    let nulls = vec![Value::Null; 50_000];
    let mut of_nulls = state_body("row", &[Value::Text(b"settings")]);
    of_nulls.extend(vec![0; 1_000_000]);
    assert_eq!(state_body("row", &nulls)[4..], vec![0; 50_000]);
    let key = vec![0; 900_000];
    let deleted =
        [put_text("deleted"), put_value(&Value::Text(b"settings")), put_value(&Value::Blob(&key))].concat();
    for (what, body) in [("a row", of_nulls), ("a key", deleted)] {
        let (mut fleet, mut late) = folded();
        let mut records = bundles::records(&bundle(&mut fleet.insider, &late));
        let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::State).unwrap();
        let len = body.len() as u64;
        records.insert(at + 1, (RecordKind::State, body));
        bundles::seal_state(&mut records, &fleet.insider);
        let bytes = bundles::join(&records);
        drop(records);
        let mut counted = Counted::new();
        let heard = counted.part(len, "import", || try_import(&mut late, &bytes));
        assert!(heard.is_err(), "{what}: {heard:?}");
        within(&counted, 2 * len);
    }
}

fn put_text(text: &str) -> Vec<u8> {
    let mut buf = vec![0; 40];
    let len = put(&mut buf, text).unwrap();
    buf.truncate(len);
    buf
}

fn put_value(value: &Value<'_>) -> Vec<u8> {
    let mut buf = vec![0; 1 << 20];
    let len = put(&mut buf, value).unwrap();
    buf.truncate(len);
    buf
}

/// A header that says what its sender has of so many devices.
fn positions(counted: &mut Counted, n: u64) {
    let (_world, mut base, mut insider) = fleet();
    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
    let mut records = bundles::records(&bundle(&mut insider, &base));
    let header = HeaderReader::parse(&records[0].1).unwrap();
    let nobody = (0..n).map(|at| {
        let mut id = [1; 16];
        id[..8].copy_from_slice(&at.to_be_bytes());
        Position { author: DeviceId(id), stream: Stream::Shared, seq: 7, tag: [9; 4] }
    });
    let mut applied: Vec<Position> = header.applied().chain(nobody).collect();
    applied.sort_by_key(|position| (position.author, position.stream));
    let fixed =
        Header { base: None, statement: [7; 8], applied: applied.len() as u32, probes: 0, ..header.header };
    let mut buf = vec![0; 1 << 20];
    let key = bundles::key_of(&insider);
    let len = fixed.encode(&mut buf, applied.into_iter(), std::iter::empty(), &key).unwrap();
    records[0].1 = buf[..len].to_vec();
    let bytes = bundles::join(&records);
    drop(records);
    counted.part(n, "a header", || drop(import(&mut base, &bytes)));
    within(counted, 2 * len as u64);
    counted.part(n, "devices", || assert_eq!(base.devices().unwrap().len(), 2));
    counted.part(n, "export", || drop(common::whole_bundle(&mut base)));
}

#[test]
fn a_header_of_positions_without_end() {
    is_linear(4_000, positions);
}

/// One group of so many frames.
fn frames(counted: &mut Counted, n: u64) {
    let (_world, mut base, mut engine) = fleet();
    let (insider, defs) = Insider::of(&mut engine);
    let key = bundles::key_of(&engine);
    let mut records = bundles::records(&common::whole_bundle(&mut engine));
    let last = records.iter().rposition(|(kind, _)| *kind == RecordKind::Checkpoint).unwrap();
    let chain = end_of(&records[..=last], insider.id);
    records.retain(|(kind, _)| matches!(kind, RecordKind::Header | RecordKind::Certificate));
    let mut buf = [0; 64];
    let len = put(&mut buf, &Section { author: insider.id, stream: Stream::Shared }).unwrap();
    records.push((RecordKind::Section, buf[..len].to_vec()));
    let mut digest = GroupDigest::default();
    for at in 0..n {
        let start = GroupStart { lamport: 30, wall: 1_700_000_000_000, pair: 0, context: &[] };
        let mut buf = vec![0; 400];
        let group = (at == 0).then_some(start);
        let mut writer =
            FrameWriter::new(&mut buf, FrameFlags::default(), insider.seq + 1 + at, group).unwrap();
        let values = [Value::Int(at as i64 + 100), Value::Int(1)];
        writer.op(defs[0].id, &OpHead::plain(OpKind::Insert), values.into_iter()).unwrap();
        let body = writer.finish().to_vec();
        digest.add(&body);
        records.push((RecordKind::Frame, body));
    }
    let end = chain.after(&digest.finish());
    let (first, last) = (insider.seq + 1, insider.seq + n);
    let signed = Checkpoint::sign(&key, insider.id, Stream::Shared, first, last, chain, &end);
    let mut buf = [0; 512];
    let len = signed.encode(&mut buf).unwrap();
    records.push((RecordKind::Checkpoint, buf[..len].to_vec()));
    let bytes = bundles::join(&records);
    drop(records);
    let report = counted.part(n, "a group", || import(&mut base, &bytes));
    assert_eq!((report.ops, report.waits), (n, Vec::new()));
    within(counted, 0);
    counted.part(n, "status", || drop(base.status().unwrap()));
    counted.part(n, "verify", || drop(base.verify().unwrap()));
}

/// The chain after the last group of an author.
fn end_of(records: &[bundles::Record], author: DeviceId) -> Chain {
    let (mut digest, mut own, mut end) = (GroupDigest::default(), false, None);
    for (kind, body) in records {
        match kind {
            RecordKind::Section => {
                let section: Section = packmule::core::wire::take(&mut &body[..]).unwrap();
                own = section.author == author && section.stream == Stream::Shared;
            }
            RecordKind::Frame => digest.add(body),
            RecordKind::Checkpoint => {
                let group = std::mem::take(&mut digest).finish();
                if own {
                    end = Some(Checkpoint::decode(body).unwrap().prev.after(&group));
                }
            }
            _ => {}
        }
    }
    end.unwrap()
}

#[test]
fn a_group_of_thousands_of_frames() {
    is_linear(500, frames);
}

/// Identities that one key vouches for.
fn vouched(counted: &mut Counted, n: u64) {
    let (_world, mut base, mut insider) = fleet();
    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
    let mut records = bundles::records(&bundle(&mut insider, &base));
    let by = bundles::key_of(&insider);
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Header).unwrap();
    for n in 0..n {
        let mut seed = [5; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let key = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed)).sk;
        let name = format!("insider {n}");
        let certificate = Certificate::new(&key, &name, false).unwrap().vouched(&by).unwrap();
        let mut buf = [0; CERT_MAX];
        let len = certificate.encode(&mut buf).unwrap();
        records.insert(at + 1, (RecordKind::Certificate, buf[..len].to_vec()));
    }
    let bytes = bundles::join(&records);
    drop(records);
    counted.part(n, "import", || drop(try_import(&mut base, &bytes)));
    within(counted, 0);
    let known = counted.part(n, "devices", || base.devices().unwrap().len());
    println!("{n}: {known} devices");
    counted.part(n, "status", || drop(base.status().unwrap()));
    counted.part(n, "export", || drop(common::whole_bundle(&mut base)));
    sql(&base, "INSERT INTO settings VALUES (6, 'after')");
    counted.part(n, "seal", || base.seal().unwrap());
    counted.part(n, "compact", || drop(base.compact().unwrap()));
}

#[test]
fn identities_that_one_key_vouches_for() {
    is_linear(100, vouched);
}

/// A verdict of as many rows as a frame has room for.
#[test]
fn a_frame_of_as_many_rows_as_there_is_room_for() {
    for (what, flags) in [("verdict", 8), ("rows", 0), ("restated", 16)] {
        let (_world, mut base, mut engine) = fleet();
        let (mut insider, defs) = Insider::of(&mut engine);
        let start = GroupStart { lamport: 30, wall: 1_700_000_000_000, pair: 0, context: &[] };
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags(flags), insider.seq + 1, Some(start)).unwrap();
        let (mut rows, mut n) = (0, 100_i64);
        let kind = if flags == 8 { OpKind::Keep } else { OpKind::Delete };
        while writer.op(defs[0].id, &OpHead::plain(kind), [Value::Int(n)].into_iter()).is_ok() {
            (rows, n) = (rows + 1, n + 1);
        }
        let body = writer.finish().to_vec();
        let bytes = insider.sign(body);
        let mut counted = Counted::new();
        let report = counted.part(rows, what, || import(&mut base, &bytes));
        println!("{what}: {rows} rows, {:?}", report.waits);
        within(&counted, 0);
    }
}

/// A board has the history of another one that goes on from a copy of a card, of so many frames, and gives it up when it meets
/// who has the first one. They are not in memory at once.
fn second_history(counted: &mut Counted, n: u64) {
    let (world, mut base, mut board) = fleet();
    let mut third = world.board_with("third", SETTINGS, &["settings"]);
    common::carry(&mut base, &mut third);
    let image = world.path("image");
    common::copy_card(&board, &image);
    let mut copy = Engine::open_with(&image, world.options()).unwrap();
    sql(&board, "INSERT INTO settings VALUES (1, 'first')");
    board.seal().unwrap();
    for at in 0..n {
        sql(&copy, &format!("INSERT INTO settings VALUES ({}, hex(randomblob(10000)))", at + 10));
        copy.seal().unwrap();
    }
    common::carry(&mut board, &mut base);
    common::carry(&mut copy, &mut third);
    let had = common::rows(&third, "SELECT count(*) FROM settings");
    let bytes = common::whole_bundle(&mut base);
    counted.part(n, "a history is given up", || drop(try_import(&mut third, &bytes)));
    common::carry(&mut base, &mut third);
    assert_ne!(common::rows(&third, "SELECT count(*) FROM settings"), had);
    within(counted, 0);
}

#[test]
fn a_second_history_of_many_frames() {
    is_linear(40, second_history);
}
