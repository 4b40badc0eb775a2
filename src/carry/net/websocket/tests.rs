//! Framing, by the cases of the Autobahn suite, each under its number there.
//!
//! | section | here |
//! |---|---|
//! | 1.2, 2, 3, 4, 5, 7 | every case; where the suite sends text and the kind does not matter, bytes go in its place |
//! | 1.1, 6 | text, of whatever content, is refused with 1003: nobody has a use for it here |
//! | 9 | two messages of its larger sizes; its times are no part of it |
//! | 10, 12, 13 | pieces of what is sent, and compression: neither is done here; who says it compresses is refused (3.4) |

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use super::*;

/// What came, in pieces of so many bytes; what went out.
struct Wire {
    came: Vec<u8>,
    at: usize,
    piece: usize,
    went: Arc<Mutex<Vec<u8>>>,
}

impl Read for Wire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = (self.came.len() - self.at).min(self.piece).min(to.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        to[..count].copy_from_slice(&self.came[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.went.lock().unwrap().extend_from_slice(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Wire {
    fn kind(&self) -> &'static str {
        "wire"
    }

    fn files(&self) -> [BorrowedFd<'_>; 2] {
        static NULL: std::sync::LazyLock<std::fs::File> =
            std::sync::LazyLock::new(|| std::fs::File::open("/dev/null").unwrap());
        [NULL.as_fd(), NULL.as_fd()]
    }

    fn hang_up(&mut self) {}
}

/// What an end makes of frames: the stream's bytes, what it answers, and whether it goes on.
pub fn end(began: bool, came: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, bool) {
    let went = Arc::default();
    let wire = Wire { came: came.into(), at: 0, piece, went: Arc::clone(&went) };
    let mut socket = WebSocket::new(Box::new(wire), began, || [0; 4], Default::default());
    let (mut all, mut some) = (Vec::new(), [0; 100]);
    let goes_on = loop {
        match socket.read(&mut some) {
            Ok(0) => break false,
            Ok(count) => all.extend_from_slice(&some[..count]),
            Err(e) => break e.kind() == io::ErrorKind::WouldBlock,
        }
        assert!(socket.raw.len() <= READ + 14, "more is kept than is read at once");
    };
    let mut answered = went.lock().unwrap().clone();
    if !goes_on {
        drop(socket);
        answered = went.lock().unwrap().clone();
    }
    (all, answered, goes_on)
}

/// A frame of a client.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    let start = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[start..], mask, 0);
    frame
}

/// Frames of a client, one behind the other.
fn frames(all: &[(u8, &[u8])]) -> Vec<u8> {
    all.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
}

/// What a server makes of the frames of a case, however they are cut on their way.
#[track_caller]
fn case(name: &str, came: &[u8], payload: &[u8], answers: &[u8], goes_on: bool) {
    for piece in [1, 3, 997, 100_000] {
        let (all, went, went_on) = end(false, came, piece);
        let (all_is, went_is) = (all == payload, went == answers);
        assert!(
            all_is && went_is && went_on == goes_on,
            "{name}, in pieces of {piece}: {all_is} {went:?} {went_on}"
        );
    }
}

/// The close of a server.
fn closed(code: u16) -> Vec<u8> {
    [&[0x88, 2][..], &code.to_be_bytes()].concat()
}

const WHOLE: u8 = 0x80;
const PINGS: u8 = WHOLE | PING;
const PONGS: u8 = WHOLE | PONG;
const BYTES: u8 = WHOLE | BINARY;
const CLOSES: u8 = WHOLE | CLOSE;

#[test]
fn messages_of_every_length_are_taken() {
    for (name, len) in [
        ("1.2.1", 0),
        ("1.2.2", 125),
        ("1.2.3", 126),
        ("1.2.4", 127),
        ("1.2.5", 128),
        ("1.2.6", 65_535),
        ("1.2.7, 1.2.8", 65_536),
        ("9.2.2", 262_144),
    ] {
        let payload = vec![0xfe; len];
        case(name, &frame(BYTES, &payload), &payload, b"", true);
    }
    let payload = vec![0xfe; 65_536];
    let mut pieces: Vec<Vec<u8>> = payload.chunks(64).map(|some| frame(CONTINUES, some)).collect();
    pieces[0][0] = BINARY;
    pieces.last_mut().unwrap()[0] = WHOLE;
    case("9.4.1", &pieces.concat(), &payload, b"", true);
}

#[test]
fn text_is_refused() {
    for (name, len) in [("1.1.1", 0), ("1.1.2", 125), ("1.1.5", 128), ("1.1.6", 65_535), ("1.1.7", 65_536)] {
        case(name, &frame(WHOLE | TEXT, &vec![b'*'; len]), b"", &closed(UNWANTED), false);
    }
    let long = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}";
    case("6.2.1", &frame(WHOLE | TEXT, long.as_bytes()), b"", &closed(UNWANTED), false);
    case("6.3.1", &frame(TEXT, b"\xce\xba\xed\xa0\x80edited"), b"", &closed(UNWANTED), false);
    let after = frames(&[(BYTES, b"a"), (WHOLE | TEXT, b"b"), (BYTES, b"c")]);
    case("text behind bytes", &after, b"a", &closed(UNWANTED), false);
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let full = [0xfe; 125];
    let pong = |payload: &[u8]| [&[PONGS, payload.len() as u8], payload].concat();
    let odd = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    for (name, payload) in [("2.1", &b""[..]), ("2.2", b"hello"), ("2.3", odd), ("2.4, 2.6", &full)] {
        case(name, &frame(PINGS, payload), b"", &pong(payload), true);
    }
    case("2.5", &frame(PINGS, &[0xfe; 126]), b"", &closed(WRONG), false);
    case("2.7", &frame(PONGS, b""), b"", b"", true);
    case("2.8", &frame(PONGS, b"unasked"), b"", b"", true);
    case("2.9", &frames(&[(PONGS, b"unasked"), (PINGS, b"hello")]), b"", &pong(b"hello"), true);
    let ten: Vec<[u8; 1]> = (0..10).map(|n| [n]).collect();
    let came: Vec<u8> = ten.iter().flat_map(|n| frame(PINGS, n)).collect();
    case("2.10, 2.11", &came, b"", &ten.iter().flat_map(|n| pong(n)).collect::<Vec<u8>>(), true);
}

#[test]
fn bits_and_kinds_without_a_meaning_close_the_connection() {
    case("3.1", &frame(BYTES | 0x10, b"x"), b"", &closed(WRONG), false);
    for (name, bits) in [("3.2", 0x20), ("3.3", 0x30), ("3.4", 0x40)] {
        let came = frames(&[(BYTES, b"x"), (BYTES | bits, b"y"), (PINGS, b"")]);
        case(name, &came, b"x", &closed(WRONG), false);
    }
    case("3.5", &frame(BYTES | 0x50, b"x"), b"", &closed(WRONG), false);
    case("3.6", &frame(PINGS | 0x60, b"x"), b"", &closed(WRONG), false);
    case("3.7", &frame(CLOSES | 0x70, &[3, 0xe8]), b"", &closed(WRONG), false);
    for kind in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let (section, number) = if kind < 8 { ("4.1", kind - 2) } else { ("4.2", kind - 10) };
        for payload in [&b""[..], b"payload"] {
            let name = format!("{section}.{number}");
            case(&name, &frame(WHOLE | kind, payload), b"", &closed(WRONG), false);
            let came = frames(&[(BYTES, b"x"), (WHOLE | kind, payload), (PINGS, b"")]);
            case(&name, &came, b"x", &closed(WRONG), false);
        }
    }
}

#[test]
fn messages_in_pieces_are_put_together() {
    case("5.1", &frames(&[(PING, b"a"), (WHOLE, b"b")]), b"", &closed(WRONG), false);
    case("5.2", &frames(&[(PONG, b"a"), (WHOLE, b"b")]), b"", &closed(WRONG), false);
    case("5.3, 5.4, 5.5", &frames(&[(BINARY, b"a"), (WHOLE, b"b")]), b"ab", b"", true);
    let between = frames(&[(BINARY, b"a"), (PINGS, b"p"), (WHOLE, b"b")]);
    case("5.6, 5.7, 5.8", &between, b"ab", b"\x8a\x01p", true);
    for (name, first) in [("5.9, 5.10, 5.11", WHOLE), ("5.12, 5.13, 5.14", CONTINUES)] {
        case(name, &frames(&[(first, b"none"), (BYTES, b"x")]), b"", &closed(WRONG), false);
    }
    let more = frames(&[(BINARY, b"a"), (WHOLE, b"b"), (CONTINUES, b"c"), (BYTES, b"d")]);
    case("5.15", &more, b"ab", &closed(WRONG), false);
    for (name, first) in [("5.16", CONTINUES), ("5.17", WHOLE)] {
        let round: [(u8, &[u8]); 3] = [(first, b"a"), (BINARY, b"b"), (WHOLE, b"c")];
        case(name, &frames(&[round, round].concat()), b"", &closed(WRONG), false);
    }
    case("5.18", &frames(&[(BINARY, b"a"), (BYTES, b"b")]), b"a", &closed(WRONG), false);
    let five = frames(&[
        (BINARY, b"a"),
        (CONTINUES, b"b"),
        (PINGS, b"p"),
        (CONTINUES, b"c"),
        (CONTINUES, b"d"),
        (PINGS, b"q"),
        (WHOLE, b"e"),
    ]);
    case("5.19, 5.20", &five, b"abcde", b"\x8a\x01p\x8a\x01q", true);
}

#[test]
fn a_close_is_answered_and_nothing_is_taken_behind_it() {
    let normal = 1000_u16.to_be_bytes();
    case("7.1.1", &frames(&[(BYTES, b"a"), (CLOSES, &normal)]), b"a", &closed(NORMAL), false);
    case("7.1.2", &frames(&[(CLOSES, &normal), (CLOSES, &normal)]), b"", &closed(NORMAL), false);
    case("7.1.3", &frames(&[(CLOSES, &normal), (PINGS, b"")]), b"", &closed(NORMAL), false);
    case("7.1.4", &frames(&[(CLOSES, &normal), (BYTES, b"a")]), b"", &closed(NORMAL), false);
    let within = frames(&[(BINARY, b"a"), (CLOSES, &normal), (WHOLE, b"b")]);
    case("7.1.5", &within, b"a", &closed(NORMAL), false);
    let much = vec![b'x'; 262_144];
    case("7.1.6", &frames(&[(BYTES, &much), (CLOSES, &normal), (PINGS, b"")]), &much, &closed(NORMAL), false);
    let why = |len| [&normal[..], &vec![b'y'; len]].concat();
    for (name, body, code) in [
        ("7.3.1", vec![], NORMAL),
        ("7.3.2", vec![b'a'], WRONG),
        ("7.3.3", why(0), NORMAL),
        ("7.3.4", why(3), NORMAL),
        ("7.3.5", why(123), NORMAL),
        ("7.3.6", why(124), WRONG),
        ("7.5.1", [&normal[..], b"\xce\xba\xff"].concat(), WRONG),
    ] {
        case(name, &frame(CLOSES, &body), b"", &closed(code), false);
    }
}

#[test]
fn the_code_of_a_close_is_one_that_there_is() {
    let right = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (n, code) in (1..).zip(right) {
        case(&format!("7.7.{n}"), &frame(CLOSES, &u16::to_be_bytes(code)), b"", &closed(code), false);
    }
    // 7.13.1 and 7.13.2, of which the suite asks nothing, are the last two.
    for (n, code) in (1..).zip([0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535]) {
        case(&format!("7.9.{n}"), &frame(CLOSES, &u16::to_be_bytes(code)), b"", &closed(WRONG), false);
    }
}

#[test]
fn a_frame_is_masked_by_who_began_alone() {
    case("not masked", b"\x82\x01a", b"", &closed(WRONG), false);
    case("64 bits", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"", &closed(WRONG), false);
    let (all, _, goes_on) = end(true, &frame(BYTES, b"a"), 100);
    assert!(all.is_empty() && !goes_on, "a server that masks was heard");
    assert_eq!(end(true, b"\x82\x01a", 100).0, b"a");
}

#[test]
fn what_one_end_sends_the_other_one_reads() {
    for len in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let went = Arc::default();
        let wire = Wire { came: Vec::new(), at: 0, piece: 1, went: Arc::clone(&went) };
        let mut client = WebSocket::new(Box::new(wire), true, || [1, 2, 3, 4], Default::default());
        assert_eq!(client.write(&payload).unwrap(), len);
        let (all, ..) = end(false, &went.lock().unwrap(), 1_000);
        assert!(all == payload, "{len}");
    }
}

#[test]
fn the_answer_to_a_key_is_that_of_the_rfc() {
    assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!([b"".as_slice(), b"f", b"fo", b"foo"].map(base64), ["", "Zg==", "Zm8=", "Zm9v"]);
}
