//! Bundles taken apart and put together again, as another program might, or an attacker.
#![allow(dead_code)] // Each test uses a part of it.

use packmule::Engine;
use packmule::core::model::{DeviceId, Stream};
use packmule::core::wire::{
    Checkpoint, Columns, FRAME_MAX, Footer, Frame, GroupDigest, MAGIC, RECORD_HEAD_LEN, RecordHead,
    RecordKind, Section, put, take, write_record,
};
use sha2::{Digest, Sha256};

pub type Record = (RecordKind, Vec<u8>);

/// The records, each without the check sum that its record adds.
pub fn records(bytes: &[u8]) -> Vec<Record> {
    let mut rest = &bytes[MAGIC.len()..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let head = RecordHead::parse(rest[..RECORD_HEAD_LEN].try_into().unwrap()).unwrap();
        let end = RECORD_HEAD_LEN + head.len as usize;
        all.push((head.kind, head.check(&rest[RECORD_HEAD_LEN..end]).unwrap().to_vec()));
        rest = &rest[end..];
    }
    all
}

/// A frame with its blocks as they are, not by column.
pub fn plain(body: &[u8]) -> Vec<u8> {
    let frame = Frame::parse(body).unwrap();
    if !frame.is_by_column() {
        return body.to_vec();
    }
    let mut out = vec![0; FRAME_MAX];
    let len = frame.plain(&mut Columns::new(), &mut out).unwrap();
    out.truncate(len);
    out
}

/// A bundle of these records, with every check sum and the footer made again.
pub fn join(records: &[Record]) -> Vec<u8> {
    let (mut out, frames) = begin(records);
    let mut body = [0; 64];
    let len = put(&mut body, &Footer { frames, sha256: Sha256::digest(&out).into() }).unwrap();
    add(&mut out, RecordKind::Footer, &body[..len]);
    out
}

/// A bundle of these records without its footer, and how many frames it has.
fn begin(records: &[Record]) -> (Vec<u8>, u64) {
    let mut out = MAGIC.to_vec();
    let mut frames = 0;
    for (kind, body) in records.iter().filter(|(kind, _)| *kind != RecordKind::Footer) {
        frames += u64::from(*kind == RecordKind::Frame);
        add(&mut out, *kind, body);
    }
    (out, frames)
}

/// Signs the state in a bundle again, as its sender would.
pub fn seal_state(records: &mut [Record], sender: &Engine) {
    let at = records.iter().position(|(kind, _)| *kind == RecordKind::Seal).unwrap();
    let digest = Sha256::digest(&begin(&records[..at]).0);
    let signed = [&b"packmule/1 snapshot"[..], &digest].concat();
    records[at].1 = key_of(sender).sign(signed, None).to_vec();
}

fn add(out: &mut Vec<u8>, kind: RecordKind, body: &[u8]) {
    let mut buf = vec![0; body.len() + 64];
    let len = write_record(&mut buf, kind, body).unwrap();
    out.extend_from_slice(&buf[..len]);
}

/// The secret key of a device.
pub fn key_of(engine: &Engine) -> ed25519_compact::SecretKey {
    let text = std::fs::read_to_string(engine.path().with_extension("db.pmkey")).unwrap();
    let hex = text.lines().nth(1).unwrap();
    let seed: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect();
    ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed.try_into().unwrap())).sk
}

/// Puts another frame in the place of a group's only one, with the checkpoint that its author would make of it.
pub fn replace_frame(records: &mut [Record], at: usize, body: Vec<u8>, author: &Engine) {
    let old = Checkpoint::decode(&records[at + 1].1).unwrap();
    assert_eq!(old.first, old.last, "one frame");
    let mut digest = GroupDigest::default();
    digest.add(&body);
    let end = old.prev.after(&digest.finish());
    let id = author.identity().id;
    let signed = Checkpoint::sign(&key_of(author), id, old.stream, old.first, old.first, old.prev, &end);
    let mut buf = [0; 512];
    let len = signed.encode(&mut buf).unwrap();
    records[at].1 = body;
    records[at + 1].1 = buf[..len].to_vec();
}

/// One group of a bundle, as a bundle of its own with the same header and certificates.
pub struct Group {
    pub author: DeviceId,
    pub stream: Stream,
    pub first: u64,
    pub bytes: Vec<u8>,
}

pub fn split(bytes: &[u8]) -> Vec<Group> {
    let mut before = Vec::new();
    let mut section = None;
    let mut frames = Vec::new();
    let mut groups = Vec::new();
    for (kind, body) in records(bytes) {
        match kind {
            RecordKind::Header | RecordKind::Certificate | RecordKind::Revocation | RecordKind::Newest => {
                before.push((kind, body))
            }
            RecordKind::Section => section = Some(body),
            RecordKind::Frame => frames.push((kind, body)),
            RecordKind::Checkpoint => {
                let checkpoint = Checkpoint::decode(&body).unwrap();
                let of = section.clone().unwrap();
                let Section { author, stream } = take(&mut &of[..]).unwrap();
                let mut all = before.clone();
                all.push((RecordKind::Section, of));
                all.append(&mut frames);
                all.push((kind, body));
                groups.push(Group { author, stream, first: checkpoint.first, bytes: join(&all) });
            }
            RecordKind::Footer
            | RecordKind::Message
            | RecordKind::State
            | RecordKind::Part
            | RecordKind::Seal => {}
        }
    }
    groups
}
