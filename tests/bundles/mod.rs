//! Bundles taken apart and put together again, as another program might, or an attacker.
#![allow(dead_code)] // Each test uses a part of it.

use packmule::Engine;
use packmule::core::model::{DeviceId, Stream};
use packmule::core::wire::{
    Chain, Checkpoint, Columns, FRAME_MAX, Footer, Frame, FrameWriter, GroupDigest, GroupStart, Header,
    HeaderReader, MAGIC, PACKED_MAGIC, Position, Probe, RECORD_HEAD_LEN, RecordHead, RecordKind, Section,
    crc32, put, take, write_record,
};
use sha2::{Digest, Sha256};

pub type Record = (RecordKind, Vec<u8>);

/// A bundle as it was before it was packed, if it is.
pub fn unpacked(bytes: &[u8]) -> Vec<u8> {
    if !bytes.starts_with(&PACKED_MAGIC) {
        return bytes.to_vec();
    }
    let mut rest = &bytes[PACKED_MAGIC.len()..];
    let mut out = MAGIC.to_vec();
    let (mut between, mut made) = ((DeviceId([0; 16]), None), 0);
    let mut section = None;
    let mut closed = None;
    let mut group = (0, 0, GroupDigest::default());
    let mut frames = 0;
    while !rest.is_empty() {
        let kind: u8 = if out.len() == MAGIC.len() { 1 } else { take(&mut rest).unwrap() };
        match kind {
            1 => {
                let len: u32 = take(&mut rest).unwrap();
                let (packed, after) = rest.split_at(len as usize + 64);
                rest = after;
                let (header, whole) = unpacked_header(packed);
                (between, made) = ((header.sender, header.receiver), header.wall);
                add(&mut out, RecordKind::Header, &whole);
            }
            0x83 | 0xc3 => {
                let stream = if kind == 0x83 { Stream::Shared } else { Stream::PerDevice };
                (section, closed) = (Some(Section { author: between.0, stream }), None);
                let mut buf = [0; 32];
                let len = put(&mut buf, &section.unwrap()).unwrap();
                add(&mut out, RecordKind::Section, &buf[..len]);
            }
            5 | 0x85 => {
                let prev = if kind == 5 { Chain(take(&mut rest).unwrap()) } else { closed.unwrap() };
                let (signature, after) = rest.split_first_chunk().unwrap();
                rest = after;
                let Section { author, stream } = section.unwrap();
                let (first, last, digest) = std::mem::take(&mut group);
                let checkpoint = Checkpoint { author, stream, first, last, prev, signature: *signature };
                closed = Some(prev.after(&digest.finish()));
                let mut buf = [0; 130];
                checkpoint.encode(&mut buf).unwrap();
                add(&mut out, RecordKind::Checkpoint, &buf);
            }
            6 => {
                let sha256: [u8; 32] = Sha256::digest(&out).into();
                assert_eq!(rest, &sha256[..4]);
                rest = &[];
                let mut buf = [0; 64];
                let len = put(&mut buf, &Footer { frames, sha256 }).unwrap();
                add(&mut out, RecordKind::Footer, &buf[..len]);
            }
            kind => {
                let packed: &[u8] = take(&mut rest).unwrap();
                let (kind, body) = match kind {
                    0x84 => (4, &with_own_wall(packed, made)[..]),
                    _ => (kind, packed),
                };
                if kind == 3 {
                    (section, closed) = (Some(take(&mut &*body).unwrap()), None);
                }
                if kind == 4 {
                    let seq = Frame::parse(body).unwrap().head.seq;
                    group.0 = if group.0 == 0 { seq } else { group.0 };
                    group.1 = seq;
                    group.2.add(body);
                    frames += 1;
                }
                let mut head = [kind, 0, 0, 0, 0, 0, 0, 0];
                let len = body.len() as u32 + if kind == 4 { 0 } else { 4 };
                head[1..4].copy_from_slice(&len.to_le_bytes()[..3]);
                let crc = crc32(&head[..4]).to_le_bytes();
                head[4..].copy_from_slice(&crc);
                add(&mut out, RecordHead::parse(&head).unwrap().kind, body);
            }
        }
    }
    out
}

/// A header of a packed bundle, also as it was before.
/// A group's first frame, which a packed bundle says with the time that went by until the bundle was made.
fn with_own_wall(packed: &[u8], made: i64) -> Vec<u8> {
    let mut rest = packed;
    let head: (u8, u8, u8, u64, u64) = take(&mut rest).unwrap();
    let ago: i64 = take(&mut rest).unwrap();
    let mut buf = [0; 40];
    let len = put(&mut buf, &(head, made - ago)).unwrap();
    [&buf[..len], rest].concat()
}

fn unpacked_header(packed: &[u8]) -> (Header, Vec<u8>) {
    let mut rest = packed;
    let (first, sender, receiver, wall, statement): (u8, _, _, _, _) = take(&mut rest).unwrap();
    let base = (first & 1 == 1).then(|| take(&mut rest).unwrap());
    let applied = take(&mut rest).unwrap();
    let probes = if first & 2 == 2 { take(&mut rest).unwrap() } else { 0 };
    let version = u16::from(first / 4);
    let header = Header { version, sender, receiver: Some(receiver), wall, statement, base, applied, probes };
    let mut whole = vec![0; 96];
    let len = put(&mut whole, &header).unwrap();
    whole.truncate(len);
    for _ in 0..header.applied + header.probes {
        let name: u8 = take(&mut rest).unwrap();
        let author = match name / 2 {
            0 => take(&mut rest).unwrap(),
            1 => header.sender,
            _ => header.receiver.unwrap(),
        };
        let (seq, tag) = take(&mut rest).unwrap();
        let stream = [Stream::Shared, Stream::PerDevice][usize::from(name % 2)];
        let mut buf = [0; 40];
        let len = put(&mut buf, &Position { author, stream, seq, tag }).unwrap();
        whole.extend_from_slice(&buf[..len]);
    }
    whole.extend_from_slice(rest);
    (header, whole)
}

/// The records, each without the check sum that its record adds, and as they are where they are not packed.
pub fn records(bytes: &[u8]) -> Vec<Record> {
    let bytes = &unpacked(bytes);
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

/// The blocks of a group's first frame, as they stand in it.
pub fn blocks(frame: &[u8]) -> Vec<u8> {
    let frame = Frame::parse(frame).unwrap();
    let head = frame.group.unwrap();
    let context: Vec<_> = frame.context().collect();
    let group = GroupStart { lamport: head.lamport, wall: head.wall, pair: head.pair, context: &context };
    let mut buf = vec![0; FRAME_MAX];
    let mut empty = FrameWriter::new(&mut buf, frame.head.flags, frame.head.seq, Some(group)).unwrap();
    frame.at((empty.finish().len() - 4) as u32).unwrap().to_vec()
}

/// A frame with more blocks behind those that it has, whatever they are.
pub fn with_blocks(frame: &[u8], blocks: &[u8]) -> Vec<u8> {
    let mut body = [&frame[..frame.len() - 4], blocks].concat();
    body.extend(crc32(&body).to_le_bytes());
    body
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

/// Signs the header of a bundle again, with other positions of a device, and probes.
pub fn lie(
    by: &Engine,
    bytes: &[u8],
    about: &Engine,
    claims: &[(Stream, u64, [u8; 4])],
    as_probes: bool,
) -> Vec<u8> {
    let mut records = records(bytes);
    let header = HeaderReader::parse(&records[0].1).unwrap();
    let author = about.identity().id;
    let mut applied: Vec<Position> = header.applied().collect();
    let mut probes: Vec<Probe> = header.probes().collect();
    for &(stream, seq, tag) in claims {
        if as_probes {
            probes.push(Probe { author, stream, seq, tag });
        } else {
            applied.retain(|e| (e.author, e.stream) != (author, stream));
            applied.push(Position { author, stream, seq, tag });
        }
    }
    applied.sort_by_key(|e| (e.author, e.stream));
    // Told as a whole: what it differs from would be another thing.
    let fixed = Header {
        base: None,
        statement: [7; 8],
        applied: applied.len() as u32,
        probes: probes.len() as u32,
        ..header.header
    };
    let mut buf = vec![0; 8_192];
    let len = fixed.encode(&mut buf, applied.into_iter(), probes.into_iter(), &key_of(by)).unwrap();
    records[0].1 = buf[..len].to_vec();
    join(&records)
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
    let group = (author.identity().id, old.stream, old.first);
    (records[at + 1], _) = checkpoint(&key_of(author), group, old.prev, &body);
    records[at].1 = body;
}

/// The checkpoint of a group of one frame: its author, stream and number. Also the chain after it.
pub fn checkpoint(
    key: &ed25519_compact::SecretKey,
    (author, stream, seq): (DeviceId, Stream, u64),
    prev: Chain,
    body: &[u8],
) -> (Record, Chain) {
    let mut digest = GroupDigest::default();
    digest.add(body);
    let end = prev.after(&digest.finish());
    let signed = Checkpoint::sign(key, author, stream, seq, seq, prev, &end);
    let mut buf = [0; 512];
    let len = signed.encode(&mut buf).unwrap();
    ((RecordKind::Checkpoint, buf[..len].to_vec()), end)
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
