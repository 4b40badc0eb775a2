//! Golden vectors of the link's packets: laid out by hand from the page of `src/core/link/packet.rs`, with a CRC, a
//! framing and an error correction of the test's own, pinned in `tests/vectors/link-*.hex`. The crate must put
//! exactly these on the line. `PACKMULE_BLESS=1` writes the files again from what is laid out here.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../wire/asm.rs"]
mod asm;

use asm::{Asm, crc};
use packmule_core::link::{Config, Event, Link, WIRE_MAX};

type Small = Link<4096, 4096, 1146, 64>;

/// The nonces of the two ends.
const A: u32 = 0x0102_0304;
const B: u32 = 0x0506_0708;
/// What the callers let each other know.
const NOTE: u8 = 1;
/// Where numbers and stream offsets begin.
const FIRST: u32 = 0xffff_f800;

/// The key of packets between two nonces, as `check.rs` says.
fn key(from: u32, to: u32) -> u32 {
    let mix = |mut x: u32| {
        x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
        x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
        x ^ x >> 16
    };
    mix(from) ^ mix(to.wrapping_add(0x9e37_79b9)).rotate_left(7)
}

/// Multiplication in GF(256) with polynomial 0x11d, bit by bit.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        product ^= if b & 1 == 1 { a } else { 0 };
        a = a << 1 ^ if a & 0x80 != 0 { 0x1d } else { 0 };
        b >>= 1;
    }
    product
}

/// `2t` bytes of Reed-Solomon parity, first root 2⁰, by long division.
fn parity(block: &[u8], t: usize) -> Vec<u8> {
    let mut generator = vec![1u8];
    let mut root = 1;
    for _ in 0..2 * t {
        let mut next = generator.clone();
        next.push(0);
        for (at, factor) in generator.iter().enumerate() {
            next[at + 1] ^= times(*factor, root);
        }
        (generator, root) = (next, times(root, 2));
    }
    let mut rest = block.to_vec();
    rest.extend(vec![0; 2 * t]);
    for at in 0..block.len() {
        let lead = rest[at];
        for (step, factor) in generator.iter().enumerate() {
            rest[at + step] ^= times(*factor, lead);
        }
    }
    rest.split_off(block.len())
}

/// The parity of a packet that is dealt out over its blocks.
fn dealt(packet: &[u8], t: usize) -> Vec<u8> {
    let blocks = (1..).find(|n| packet.len().div_ceil(*n) + 2 * t <= 255).unwrap();
    let each: Vec<Vec<u8>> = (0..blocks)
        .map(|block| parity(&packet.iter().skip(block).step_by(blocks).copied().collect::<Vec<_>>(), t))
        .collect();
    (0..2 * t).flat_map(|at| each.iter().map(move |parity| parity[at])).collect()
}

/// Byte stuffing: no zero inside, a zero behind.
fn stuffed(packet: &[u8], lead: bool) -> Vec<u8> {
    let mut out = if lead { vec![0] } else { Vec::new() };
    let mut runs: Vec<&[u8]> = packet.split(|byte| *byte == 0).collect();
    let last = runs.pop().unwrap();
    for run in runs {
        let mut chunks: Vec<&[u8]> = run.chunks(254).collect();
        let tail = chunks.pop_if(|chunk| chunk.len() < 254).unwrap_or_default();
        for chunk in chunks {
            out.push(255);
            out.extend(chunk);
        }
        out.push(tail.len() as u8 + 1);
        out.extend(tail);
    }
    let mut chunks: Vec<&[u8]> = last.chunks(254).collect();
    let tail = chunks.pop().unwrap_or_default();
    for chunk in chunks {
        out.push(255);
        out.extend(chunk);
    }
    out.push(tail.len() as u8 + 1);
    out.extend(tail);
    out.push(0);
    out
}

/// Its CRC, and if `t` is not 0 its parity.
fn seal(packet: &mut Asm, key: u32, t: usize) {
    let sum = crc(&packet.bytes) ^ key;
    packet.raw(if key == 0 { "CRC" } else { "CRC, with the connection's key" }, &sum.to_le_bytes());
    if t > 0 {
        let parity = dealt(&packet.bytes, t);
        packet.raw(&format!("parity for {t} bytes in each block"), &parity);
    }
}

fn hello(nonce: u32, echo: u32, open: bool, baud_max: u32) -> Asm {
    let mut a = Asm::new();
    a.raw("hello", b"\x80PML").u8("lowest version", 1).u8("highest version", 1);
    let flags = u8::from(open) | 2 | if baud_max > 115_200 { 4 } else { 0 };
    a.u8("flags and note", flags | NOTE << 5).u8("", 0);
    a.raw("nonce", &nonce.to_le_bytes()).raw("echo", &echo.to_le_bytes());
    a.raw("receive buffer", &4096u32.to_le_bytes()).raw("payload", &1024u16.to_le_bytes());
    a.raw("highest rate", &baud_max.to_le_bytes()).raw("send buffer", &4096u32.to_le_bytes());
    seal(&mut a, 0, 0);
    a
}

fn narrow(kind: u8, number: u32) -> Asm {
    let mut a = Asm::new();
    let what = ["", "finish", "ack", "", "data", "data and finish", "ack and data", "ack, data and finish"];
    a.raw(what[usize::from(kind)], &[kind << 4 | (number >> 8) as u8 & 15, number as u8]);
    a
}

fn ack(a: &mut Asm, highest: u32, whole: u32, space: u16, mended: u8, map: &[u8]) {
    let head = highest as u16 & 0xfff | (map.len() as u16) << 12;
    a.raw("highest, map bytes", &head.to_le_bytes()).raw("whole", &(whole as u16).to_le_bytes());
    a.raw("space", &space.to_le_bytes()).u8("mended", mended).raw("map", map);
}

/// What the link hands out next, which must be `packet`; collected in `all`.
#[track_caller]
fn says(all: &mut Asm, link: &mut Small, now: u64, packet: &Asm) {
    let mut out = [0; WIRE_MAX];
    let count = link.transmit(now, &mut out);
    let lead = out[..count].first() == Some(&0);
    assert_eq!(out[..count], stuffed(&packet.bytes, lead)[..]);
    all.all(packet);
}

fn hears(link: &mut Small, now: u64, packet: &Asm) {
    link.receive_bytes(now, &stuffed(&packet.bytes, true));
}

/// An open end with nonce [`A`], at one second.
fn open(baud_max: u32) -> Small {
    let mut config = Config::new(115_200, A);
    (config.baud_max, config.note) = (baud_max, NOTE);
    let mut link = Small::new(config);
    let mut nothing = Asm::new();
    says(&mut nothing, &mut link, 1_000_000, &hello(A, 0, false, baud_max));
    hears(&mut link, 1_001_000, &hello(B, A, false, baud_max));
    says(&mut nothing, &mut link, 1_001_000, &hello(A, B, true, baud_max));
    assert_eq!(link.event(), Some(Event::Connected));
    assert_eq!(link.peer().map(|peer| peer.note), Some(NOTE));
    link
}

#[test]
fn a_connection_from_hello_to_finish() {
    let mut all = Asm::new();
    let mut config = Config::new(115_200, A);
    config.note = NOTE;
    let mut link = Small::new(config);
    says(&mut all, &mut link, 1_000_000, &hello(A, 0, false, 115_200));
    hears(&mut link, 1_001_000, &hello(B, A, false, 115_200));
    assert_eq!(link.event(), Some(Event::Connected));
    says(&mut all, &mut link, 1_001_000, &hello(A, B, true, 115_200));

    assert_eq!(link.send(b"zero \0 inside"), 13);
    let mut data = narrow(4, FIRST);
    data.raw("offset", &(FIRST as u16).to_le_bytes()).raw("bytes", b"zero \0 inside");
    seal(&mut data, key(A, B), 0);
    says(&mut all, &mut link, 1_002_000, &data);

    // The peer's first packet, number FIRST, with five bytes; and its acknowledgement of ours.
    let mut theirs = narrow(6, FIRST);
    ack(&mut theirs, FIRST, FIRST.wrapping_add(13), 4096, 0, &[]);
    theirs.raw("offset", &(FIRST as u16).to_le_bytes()).raw("bytes", b"hello");
    seal(&mut theirs, key(B, A), 0);
    hears(&mut link, 1_010_000, &theirs);
    assert!(link.all_acknowledged());
    let mut acked = narrow(2, FIRST.wrapping_add(1));
    // Numbers before the first count as here.
    ack(&mut acked, FIRST, FIRST.wrapping_add(5), 4096 - 5, 0, &[0b1]);
    seal(&mut acked, key(A, B), 0);
    says(&mut all, &mut link, 1_030_000, &acked);

    // A gap: numbers FIRST + 2 and FIRST + 4 come, and the bytes between them do not.
    for (number, offset) in [(2u32, 10u32), (4, 30)] {
        let mut packet = narrow(4, FIRST.wrapping_add(number));
        packet.raw("offset", &(FIRST.wrapping_add(offset) as u16).to_le_bytes()).raw("bytes", b"later");
        seal(&mut packet, key(B, A), 0);
        hears(&mut link, 1_040_000, &packet);
    }
    let mut gaps = narrow(2, FIRST.wrapping_add(1));
    ack(&mut gaps, FIRST.wrapping_add(4), FIRST.wrapping_add(5), 4096 - 5, 0, &[0b11010]);
    seal(&mut gaps, key(A, B), 0);
    says(&mut all, &mut link, 1_040_000, &gaps);

    // Nothing happens for a second: a probe.
    let mut probe = narrow(4, FIRST.wrapping_add(1));
    probe.raw("offset", &(FIRST.wrapping_add(13) as u16).to_le_bytes());
    seal(&mut probe, key(A, B), 0);
    says(&mut all, &mut link, 2_100_000, &probe);

    link.finish();
    let mut finish = narrow(5, FIRST.wrapping_add(2));
    finish.raw("offset", &(FIRST.wrapping_add(13) as u16).to_le_bytes());
    seal(&mut finish, key(A, B), 0);
    says(&mut all, &mut link, 2_200_000, &finish);
    all.matches_file(
        "link-packets",
        "The packets of one end of the link (see src/core/link/packet.rs), before byte stuffing: nonces 01020304 (own), 05060708; buffers of 4,096.",
    );
}

#[test]
fn the_rate_is_agreed_on() {
    let mut all = Asm::new();
    let word = |step: u8, what: &str, baud: u32, from: u32, to: u32| {
        let mut a = Asm::new();
        a.u8("rate", 0x10).u8(what, step).raw(&format!("{baud} baud"), &baud.to_le_bytes());
        seal(&mut a, key(from, to), 0);
        a
    };
    // The end with the greater nonce leads: this one only agrees.
    let mut link = open(921_600);
    hears(&mut link, 1_010_000, &word(1, "propose", 3_000_000, B, A));
    says(&mut all, &mut link, 1_010_000, &word(2, "agree", 921_600, A, B));
    hears(&mut link, 1_020_000, &word(1, "propose", 921_600, B, A));
    says(&mut all, &mut link, 1_020_000, &word(2, "agree", 921_600, A, B));
    hears(&mut link, 1_030_000, &word(3, "commit", 921_600, B, A));
    let at = link.deadline().unwrap();
    assert_eq!(link.transmit(at, &mut [0; WIRE_MAX]), 0);
    assert_eq!(link.baud_wanted(), Some(921_600));
    link.set_baud(at, 921_600);
    says(&mut all, &mut link, at, &word(4, "try", 921_600, A, B));
    hears(&mut link, at + 1_000, &word(4, "try", 921_600, B, A));
    says(&mut all, &mut link, at + 25_000, &word(5, "heard", 921_600, A, B));
    hears(&mut link, at + 26_000, &word(5, "heard", 921_600, B, A));
    says(&mut all, &mut link, at + 26_000, &word(5, "heard", 921_600, A, B));
    assert_eq!(link.event(), Some(Event::Baud(921_600)));
    hears(&mut link, at + 30_000, &word(6, "leave", 921_600, B, A));
    let back = link.deadline().unwrap();
    assert_eq!(link.transmit(back, &mut [0; WIRE_MAX]), 0);
    assert_eq!(link.baud_wanted(), Some(115_200));
    all.matches_file("link-rate", "One end's words about the rate, from 115,200 to 921,600 baud.");
}

#[test]
fn error_correction_at_every_rate() {
    let mut all = Asm::new();
    let mut seen = Vec::new();
    for mended in [2u8, 10, 40, 120] {
        let mut link = open(115_200);
        assert_eq!(link.send(&[0xab; 300]), 300);
        let mut out = [0; WIRE_MAX];
        assert!(link.transmit(1_002_000, &mut out) > 0);
        // It arrived, after so many bytes of it were put right.
        let mut theirs = narrow(2, FIRST);
        ack(&mut theirs, FIRST, FIRST.wrapping_add(300), 4096, mended, &[]);
        seal(&mut theirs, key(B, A), 0);
        hears(&mut link, 1_100_000, &theirs);
        let t = usize::from(link.payload_and_fec_rate().1);
        assert_eq!(link.send(&[0xcd; 40]), 40);
        let mut data = narrow(4, FIRST.wrapping_add(1));
        data.raw("offset", &(FIRST.wrapping_add(300) as u16).to_le_bytes()).raw("bytes", &[0xcd; 40]);
        seal(&mut data, key(A, B), t);
        says(&mut all, &mut link, 1_102_000, &data);
        seen.push(t);
    }
    assert_eq!(seen, [1, 2, 4, 8], "each strength once");
    all.matches_file("link-mending", "Packets with error correction for 1, 2, 4 and 8 bytes in each block.");
}
