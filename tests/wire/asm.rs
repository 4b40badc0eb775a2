//! An assembler for the format that shares no layout code with the crate: varints, CRC and field
//! order stand here once more, by hand, from `FORMAT.md`. Only SHA-256 and ed25519 are the same
//! libraries.
//!
//! A vector file is hex with a comment on every field; `PACKMULE_BLESS=1` writes the files again
//! from what is assembled here, never from what the crate encodes (run it twice: the checkpoint is made
//! from other files).

// Each test program uses a part of it.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use ed25519_compact::{KeyPair, Noise, SecretKey, Seed};
use packmule_core::model::{Big, Value};
use sha2::{Digest, Sha256};

/// Bytes, and what each run of them is.
#[derive(Default)]
pub struct Asm {
    pub bytes: Vec<u8>,
    notes: Vec<(usize, String)>,
}

impl Asm {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(&mut self, what: &str, bytes: &[u8]) -> &mut Self {
        self.notes.push((self.bytes.len(), what.to_string()));
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn u8(&mut self, what: &str, byte: u8) -> &mut Self {
        self.raw(what, &[byte])
    }

    pub fn uint(&mut self, what: &str, number: u64) -> &mut Self {
        self.raw(&format!("{what} {number}"), &varint(number))
    }

    pub fn int(&mut self, what: &str, number: i64) -> &mut Self {
        self.raw(&format!("{what} {number}"), &varint(zigzag(number)))
    }

    pub fn run(&mut self, what: &str, bytes: &[u8]) -> &mut Self {
        self.raw(&format!("{what}: length {}", bytes.len()), &varint(bytes.len() as u64));
        if bytes.is_empty() { self } else { self.raw("", bytes) }
    }

    pub fn str(&mut self, what: &str, text: &str) -> &mut Self {
        self.run(&format!("{what} {text:?}"), text.as_bytes())
    }

    pub fn value(&mut self, value: &Value<'_>) -> &mut Self {
        match *value {
            Value::Null => self.u8("Null", 0),
            Value::Int(int) => self.u8("Int", 1).int("  ", int),
            Value::Real(bits) => self
                .u8("Real", 2)
                .raw(&format!("   {:?}, little-endian", f64::from_bits(bits.0)), &bits.0.to_le_bytes()),
            Value::Text(text) => self.u8("Text", 3).run("  ", text),
            Value::Blob(blob) => self.u8("Blob", 4).run("  ", blob),
            Value::Big(Big { text, number, back, len, sha256 }) => self
                .u8("Big", 5)
                .u8("   text?", u8::from(text))
                .uint("   number", number.into())
                .uint("   frames back", back.into())
                .uint("   bytes", len)
                .raw("   SHA-256 of the content", &sha256),
        }
    }

    /// What `inner` has, with its comments, after the other bytes.
    pub fn all(&mut self, inner: &Asm) -> &mut Self {
        let at = self.bytes.len();
        self.notes.extend(inner.notes.iter().map(|(offset, what)| (at + offset, what.clone())));
        self.bytes.extend_from_slice(&inner.bytes);
        self
    }

    pub fn crc(&mut self) -> &mut Self {
        let crc = crc(&self.bytes);
        self.raw("CRC-32/AUTOSAR, little-endian", &crc.to_le_bytes())
    }

    /// The file: at most 32 bytes a line, each field on lines of its own.
    fn hex(&self, title: &str) -> String {
        let mut text = format!("# {title}\n# See src/core/wire/FORMAT.md. Written by tests/wire/asm.rs.\n");
        let ends = self.notes.iter().skip(1).map(|note| note.0).chain([self.bytes.len()]);
        for ((start, what), end) in self.notes.iter().zip(ends) {
            for (i, line) in self.bytes[*start..end].chunks(32).enumerate() {
                let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                let note = if i == 0 && !what.is_empty() { format!("  # {what}") } else { String::new() };
                writeln!(text, "{}{note}", hex.join(" ")).unwrap();
            }
        }
        text
    }

    /// Compares with `tests/vectors/NAME.hex`.
    pub fn matches_file(&self, name: &str, title: &str) {
        if env::var_os("PACKMULE_BLESS").is_some() {
            fs::write(path(name), self.hex(title)).unwrap();
        }
        assert_eq!(vector(name), self.bytes, "{name}.hex and what tests/wire/asm.rs makes of FORMAT.md");
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(format!("{name}.hex"))
}

/// The bytes of `tests/vectors/NAME.hex`.
pub fn vector(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}.hex: {error}"));
    let digits = text.lines().filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace);
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(128 + (number % 128) as u8);
        number /= 128;
    }
    bytes.push(number as u8);
    bytes
}

/// 0, -1, 1, -2, 2 … → 0, 1, 2, 3, 4 …
pub fn zigzag(number: i64) -> u64 {
    if number >= 0 { number as u64 * 2 } else { (-(number + 1)) as u64 * 2 + 1 }
}

/// Bit by bit, polynomial 0xF4ACFB13 mirrored.
pub fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc % 2 == 1 { (crc / 2) ^ 0xc8df_352f } else { crc / 2 };
        }
    }
    !crc
}

pub fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The key whose seed is this byte, 32 times.
pub fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed(Seed::new([seed; 32]))
}

pub fn id(key: &KeyPair) -> [u8; 16] {
    sha(&[b"packmule/1 device", &*key.pk])[..16].try_into().unwrap()
}

pub fn sign(key: &SecretKey, message: &[u8]) -> [u8; 64] {
    *key.sign(message, None::<Noise>)
}

pub fn chain_start(key: &KeyPair, stream: u8) -> [u8; 32] {
    sha(&[b"packmule/1 chain", &*key.pk, &[stream]])
}

pub fn chain_after(chain: [u8; 32], frames: &[&[u8]]) -> [u8; 32] {
    let lengths: Vec<[u8; 4]> = frames.iter().map(|frame| (frame.len() as u32).to_le_bytes()).collect();
    let parts: Vec<&[u8]> = lengths.iter().zip(frames).flat_map(|(len, frame)| [&len[..], frame]).collect();
    sha(&[&chain, &sha(&parts)])
}

pub fn checkpoint(key: &KeyPair, stream: u8, first: u64, frames: &[&[u8]], prev: [u8; 32]) -> Asm {
    let last = first + frames.len() as u64 - 1;
    let end = chain_after(prev, frames);
    let mut message = b"packmule/1 checkpoint".to_vec();
    message.extend(id(key));
    message.push(stream);
    message.extend(first.to_le_bytes());
    message.extend(last.to_le_bytes());
    message.extend(prev);
    message.extend(end);
    let mut a = Asm::new();
    a.u8("version", 1).u8("stream", stream).raw("author", &id(key));
    a.raw("first", &first.to_le_bytes()).raw("last", &last.to_le_bytes());
    a.raw("chain before the first", &prev).raw("signature", &sign(&key.sk, &message));
    a
}

pub fn certificate(key: &KeyPair, name: &str, base: bool, fleet: Option<&KeyPair>) -> Asm {
    certificate_as(key, name, u8::from(base), fleet)
}

/// With this role: the lowest bit is base, the others are the serial.
pub fn certificate_as(key: &KeyPair, name: &str, role: u8, fleet: Option<&KeyPair>) -> Asm {
    let mut a = Asm::new();
    a.u8("version", 1).raw("public key", &*key.pk).str("name", name).u8("role", role);
    let signed = |domain: &[u8], by: &KeyPair, body: &[u8]| sign(&by.sk, &[domain, body].concat());
    let body = a.bytes.clone();
    a.raw("the device's signature", &signed(b"packmule/1 device cert", key, &body));
    a.u8("fleet?", u8::from(fleet.is_some()));
    if let Some(fleet) = fleet {
        a.raw("the fleet's public key", &*fleet.pk);
        a.raw("the fleet's signature", &signed(b"packmule/1 fleet  cert", fleet, &body));
    }
    a
}

pub fn revocation(fleet: &KeyPair, device: [u8; 16], revoked: bool, number: u64) -> Asm {
    statement(fleet, device, ("revoked?", u8::from(revoked)), number)
}

pub fn retirement(fleet: &KeyPair, device: [u8; 16], says: u8, number: u64) -> Asm {
    statement(fleet, device, ("3: retired", says), number)
}

fn statement(fleet: &KeyPair, device: [u8; 16], says: (&str, u8), number: u64) -> Asm {
    let mut a = Asm::new();
    a.u8("version", 1).raw("device", &device).u8(says.0, says.1).uint("number", number);
    a.raw("the fleet's public key", &*fleet.pk);
    let message = [&b"packmule/1 revocation "[..], &a.bytes].concat();
    a.raw("the fleet's signature", &sign(&fleet.sk, &message));
    a
}

/// A position or a probe: (author, stream, seq). Its tag is the first bytes of the author.
pub type At = ([u8; 16], u8, u64);

pub fn header(key: &KeyPair, to: Option<[u8; 16]>, wall: i64, applied: &[At], probes: &[At]) -> Asm {
    header_after(key, (to, None), wall, applied, probes)
}

/// A header that tells what differs from a base.
pub fn header_after(
    key: &KeyPair,
    (to, base): (Option<[u8; 16]>, Option<[u8; 8]>),
    wall: i64,
    applied: &[At],
    probes: &[At],
) -> Asm {
    let mut a = Asm::new();
    a.uint("version", 1).raw("sender", &id(key));
    match to {
        None => a.u8("no receiver", 0),
        Some(to) => a.u8("receiver", 1).raw("", &to),
    };
    a.int("wall", wall).raw("statement", &[0x5a; 8]);
    match base {
        None => a.u8("no base", 0),
        Some(base) => a.u8("base", 1).raw("", &base),
    };
    a.uint("applied", applied.len() as u64).uint("probes", probes.len() as u64);
    for (what, list) in [("position", applied), ("probe", probes)] {
        for (author, stream, seq) in list {
            a.raw(&format!("{what}: author"), author).u8("  stream", *stream).uint("  seq", *seq);
            a.raw("  tag", &author[..4]);
        }
    }
    let digest = sha(&[b"packmule/1 header", &a.bytes]);
    a.raw("signature", &sign(&key.sk, &digest));
    a
}

/// Names a vector of shared streams by its content.
pub fn vector_digest(said: &[At]) -> [u8; 8] {
    let mut bytes = Vec::new();
    for (author, _, seq) in said {
        bytes.extend_from_slice(author);
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&author[..4]);
    }
    sha(&[b"packmule/1 vector", &bytes])[..8].try_into().unwrap()
}

pub fn record_head(kind: u8, len: usize) -> Asm {
    let mut head = Asm::new();
    head.u8("record: kind", kind).raw("length, little-endian", &(len as u32).to_le_bytes()[..3]);
    head.crc();
    head
}

/// A record of any kind but 4, whose body has its own CRC.
pub fn record(kind: u8, body: &Asm) -> Asm {
    let mut a = record_head(kind, body.bytes.len() + 4);
    let crc = crc(&body.bytes);
    a.all(body).raw("CRC of the body", &crc.to_le_bytes());
    a
}

pub fn frame_record(frame: &Asm) -> Asm {
    let mut a = record_head(4, frame.bytes.len());
    a.all(frame);
    a
}

/// The first fields of a frame.
pub fn frame_head(flags: u8, seq: u64) -> Asm {
    let mut a = Asm::new();
    a.u8("version", 1).u8("flags", flags).u8("codec", 0).uint("seq", seq);
    a
}

/// How a context of version 2 names a device: by a number, and by its id where it is introduced; 0 is the author.
pub type Numbered = (u64, Option<[u8; 16]>, u64);

pub fn group_head_numbered(a: &mut Asm, lamport: u64, wall: i64, pair: u64, context: &[Numbered]) {
    a.uint("lamport", lamport).int("wall", wall).uint("pair", pair).uint("contexts", context.len() as u64);
    let mut last = 0;
    for (number, introduced, seq) in context {
        let step = number.saturating_sub(last);
        last += step;
        match introduced {
            Some(device) => a.uint("twice a step, and 1", step * 2 + 1).raw("  its device", device),
            None => a.uint("twice a step", step * 2),
        };
        a.uint("  seq", *seq);
    }
}

pub fn group_head(a: &mut Asm, lamport: u64, wall: i64, pair: u64, context: &[([u8; 16], u64)]) {
    a.uint("lamport", lamport).int("wall", wall).uint("pair", pair).uint("contexts", context.len() as u64);
    for (device, seq) in context {
        a.raw("device", device).uint("seq", *seq);
    }
}
