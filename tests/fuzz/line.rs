//! A link that hears a line, and one whose connection is open and which hears packets with right check sums: what some
//! other program with the connection's key would say.

#[path = "../link/by_hand.rs"]
mod by_hand;

use by_hand::{key, stuffed};
use packmule_core::link::{Config, Link, WIRE_MAX};

use crate::asm::crc;
use crate::targets::{Signature, got};

type Small = Link<512, 256, 192, 12>;

/// The nonces of this end and of the other one.
const A: u32 = 0x0102_0304;
const B: u32 = 0x0506_0708;
/// Where numbers and offsets begin.
const FIRST: [u8; 4] = 0xffff_f800_u32.to_le_bytes();

/// Hears bytes on its line, in three pieces, while time goes on.
pub fn link(bytes: &[u8]) -> Signature {
    let mut link: Box<Small> = Box::new(Link::new(Config::new(115_200, A)));
    for (n, piece) in bytes.chunks(bytes.len() / 3 + 1).enumerate() {
        link.receive_bytes(n as u64 * 40_000, piece);
        link.recv(&mut [0; 64]);
        answers(&mut link, n as u64 * 40_000);
    }
    ended(&mut link, 0)
}

/// Hears packets, each behind its length: those that begin as a hello as they are, the others with the connection's key.
pub fn sealed(bytes: &[u8]) -> Signature {
    let mut config = Config::new(115_200, A);
    config.baud_max = 921_600;
    let mut link: Box<Small> = Box::new(Link::new(config));
    let mut now = 1_000_000;
    answers(&mut link, now);
    hears(&mut link, now, &hello(A));
    answers(&mut link, now);
    link.send(&[7; 200]);
    let (mut rest, mut read) = (bytes, 0);
    while let Some((len, after)) = rest.split_first() {
        let (packet, next) = after.split_at(usize::from(*len).min(after.len()));
        rest = next;
        now += 30_000;
        hears(&mut link, now, packet);
        read += link.recv(&mut [0; 64]);
        answers(&mut link, now);
        if let Some(baud) = link.baud_wanted() {
            link.set_baud(now, baud);
        }
    }
    ended(&mut link, read)
}

fn hears(link: &mut Small, now: u64, packet: &[u8]) {
    let key = if packet.starts_with(b"\x80PML") { 0 } else { key(B, A) };
    let whole = [packet, &(crc(packet) ^ key).to_le_bytes()].concat();
    link.receive_bytes(now, &stuffed(&whole, true));
}

/// Has the link say what it has to say, which is never without end.
fn answers(link: &mut Small, now: u64) {
    let mut said = 0;
    while link.transmit(now, &mut [0; WIRE_MAX]) > 0 {
        said += 1;
        assert!(said < 200, "it answers without end");
    }
    let _ = (link.deadline(), link.all_acknowledged(), link.peer());
}

fn ended(link: &mut Small, read: usize) -> Signature {
    let mut events = 0;
    while link.event().is_some() {
        events += 1;
    }
    let stats = link.stats();
    got(read)
        + 100 * events
        + 1_000 * u64::from(stats.packets_received.min(9))
        + 10_000 * u64::from(stats.packets_refused.min(4))
        + 100_000 * u64::from(link.all_acknowledged())
}

fn hello(echo: u32) -> Vec<u8> {
    let mut hello = b"\x80PML\x01\x01\x06\0".to_vec();
    hello.extend(B.to_le_bytes());
    hello.extend(echo.to_le_bytes());
    hello.extend(4_096_u32.to_le_bytes());
    hello.extend(1_024_u16.to_le_bytes());
    hello.extend(921_600_u32.to_le_bytes());
    hello.extend(4_096_u32.to_le_bytes());
    hello
}

fn behind_its_length(packets: &[Vec<u8>]) -> Vec<u8> {
    packets.iter().flat_map(|packet| [&[packet.len() as u8], &packet[..]].concat()).collect()
}

/// Data and its end, acknowledgements, words about the rate, hellos: narrow and wide.
pub fn packets() -> Vec<Vec<u8>> {
    let low = &FIRST[..2];
    let data = |number: u8, offset: u8| [&[0x48, number, offset, 0xf8], &b"some bytes"[..]].concat();
    let ack = [&[0x28, 9, 0x00, 0x18], low, &[0, 2, 0, 1]].concat();
    let wide = [&[0xe0], &FIRST[..], &[1], &FIRST, &FIRST, &[0, 2, 0, 0, 0, 5], &FIRST, b"wide"].concat();
    let rate = |step: u8| [&[0x10, step], &921_600_u32.to_le_bytes()[..]].concat();
    vec![
        behind_its_length(&[data(0, 0), data(1, 10), ack.clone(), data(3, 30), data(2, 20)]),
        behind_its_length(&[data(0, 0), [&[0x58, 1], &[10, 0xf8][..]].concat(), ack]),
        behind_its_length(&[wide]),
        behind_its_length(&[rate(1), rate(3), rate(4), rate(5), rate(6)]),
        behind_its_length(&[hello(A), hello(0), data(0, 0)]),
    ]
}
