//! Golden vectors of the link's packets: laid out by hand from the page of `src/core/link/packet.rs`, with a CRC, a
//! framing and an error correction of the test's own, pinned in `tests/vectors/link-*.hex`. The crate must put
//! exactly these on the line. `PACKMULE_BLESS=1` writes the files again from what is laid out here.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../wire/asm.rs"]
mod asm;
mod by_hand;

use asm::{Asm, crc};
use by_hand::{dealt, key, stuffed};
use packmule_core::link::{Config, Event, Link, WIRE_MAX};

type Small = Link<4096, 4096, 1146, 64>;

/// The nonces of the two ends.
const A: u32 = 0x0102_0304;
const B: u32 = 0x0506_0708;
/// What the callers let each other know.
const NOTE: u8 = 1;
/// Where numbers and stream offsets begin.
const FIRST: u32 = 0xffff_f800;

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
