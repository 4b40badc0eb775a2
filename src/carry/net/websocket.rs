//! A stream over WebSocket (RFC 6455): its bytes are the payloads of binary messages, in pieces of any size.
//!
//! Only what that needs: no extensions, no text. Pings are answered; what is not as it should be closes the connection
//! with the code that the RFC has for it.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

use super::stream::Stream;

/// The subprotocol.
pub(super) const PROTOCOL: &str = "packmule.1";
/// The path.
pub(super) const PATH: &str = "/packmule/1";
/// What is put behind a key before it is hashed.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUES: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The codes with which a connection is closed.
const NORMAL: u16 = 1000;
const WRONG: u16 = 1002;
const UNWANTED: u16 = 1003;

/// A control frame has no more.
const CONTROL_MAX: usize = 125;
/// So much is read at once.
const READ: usize = 8_192;

/// The head of a frame.
struct Head {
    last: bool,
    kind: u8,
    /// How much of its payload has not come.
    left: u64,
    mask: Option<[u8; 4]>,
    /// How much has.
    at: usize,
}

/// One end of a WebSocket connection, after its opening.
pub(super) struct WebSocket {
    inner: Box<dyn Stream>,
    /// Who began masks what it sends; the other one must not.
    began: bool,
    random: fn() -> [u8; 4],
    raw: Vec<u8>,
    head: Option<Head>,
    /// A message of several frames has begun.
    within: bool,
    control: Vec<u8>,
    out: Vec<u8>,
    gone: usize,
    /// This end has sent its close; the other one has.
    closed: bool,
    over: bool,
    /// With which code this end closes.
    code: u16,
}

impl WebSocket {
    /// Goes on after the opening, of which these bytes came behind. `out`: what is still to be sent of it.
    pub(super) fn new(
        inner: Box<dyn Stream>,
        began: bool,
        random: fn() -> [u8; 4],
        (raw, out): (Vec<u8>, Vec<u8>),
    ) -> Self {
        Self {
            inner,
            began,
            random,
            raw,
            head: None,
            within: false,
            control: Vec::new(),
            out,
            gone: 0,
            closed: false,
            over: false,
            code: NORMAL,
        }
    }

    /// Appends a frame to what is to go out.
    fn frame(&mut self, kind: u8, payload: &[u8]) {
        self.out.push(0x80 | kind);
        let masked = if self.began { 0x80 } else { 0 };
        match payload.len() {
            len @ 0..=125 => self.out.push(masked | len as u8),
            len @ 126..=0xffff => {
                self.out.push(masked | 126);
                self.out.extend((len as u16).to_be_bytes());
            }
            len => {
                self.out.push(masked | 127);
                self.out.extend((len as u64).to_be_bytes());
            }
        }
        let start = self.out.len() + if self.began { 4 } else { 0 };
        let mask = self.began.then(|| (self.random)());
        self.out.extend(mask.into_iter().flatten());
        self.out.extend_from_slice(payload);
        if let Some(mask) = mask {
            unmask(&mut self.out[start..], mask, 0);
        }
    }

    fn close(&mut self, code: u16) {
        if !self.closed {
            self.frame(CLOSE, &code.to_be_bytes());
            self.closed = true;
        }
    }

    /// Closes because of what came.
    fn wrong(&mut self, code: u16, what: &'static str) -> io::Error {
        self.close(code);
        let _ = self.flush();
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    /// Takes the head of the next frame, if it is here.
    fn take_head(&mut self) -> io::Result<bool> {
        let Some([first, second]) = self.raw.first_chunk().copied() else { return Ok(false) };
        let (len, used) = match second & 0x7f {
            126 => match self.raw.get(2..4).and_then(|len| len.try_into().ok()) {
                Some(len) => (u64::from(u16::from_be_bytes(len)), 4),
                None => return Ok(false),
            },
            127 => match self.raw.get(2..10).and_then(|len| len.try_into().ok()) {
                Some(len) => (u64::from_be_bytes(len), 10),
                None => return Ok(false),
            },
            len => (u64::from(len), 2),
        };
        let (last, kind, masked) = (first & 0x80 != 0, first & 0x0f, second & 0x80 != 0);
        let is_control = kind & 8 != 0;
        let wrong = if first & 0x70 != 0 {
            Some("bits that no extension has given a meaning")
        } else if !matches!(kind, CONTINUES | TEXT | BINARY | CLOSE | PING | PONG) {
            Some("a frame of an unknown kind")
        } else if masked == self.began {
            Some("a frame that is masked, or is not, from the wrong end")
        } else if is_control && (!last || len > CONTROL_MAX as u64) {
            Some("a control frame that is too long, or in pieces")
        } else if !is_control && (kind == CONTINUES) != self.within {
            Some("a message that begins within another one, or goes on without having begun")
        } else if len >> 63 != 0 {
            Some("a length of 64 bits")
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(self.wrong(WRONG, what));
        }
        if kind == TEXT {
            return Err(self.wrong(UNWANTED, "text, where bytes are expected"));
        }
        let mask = match (masked, self.raw.get(used..used + 4).and_then(|mask| mask.try_into().ok())) {
            (false, _) => None,
            (true, Some(mask)) => Some(mask),
            (true, None) => return Ok(false),
        };
        self.raw.drain(..used + if masked { 4 } else { 0 });
        self.head = Some(Head { last, kind, left: len, mask, at: 0 });
        Ok(true)
    }

    /// Takes payload of the frame that is coming. Returns how many bytes of the stream that were; `None` if nothing moved.
    fn take_payload(&mut self, to: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(head) = &mut self.head else { return Ok(None) };
        let is_control = head.kind & 8 != 0;
        let room = if is_control { CONTROL_MAX } else { to.len() };
        let count = room.min(self.raw.len()).min(usize::try_from(head.left).unwrap_or(usize::MAX));
        if count == 0 && head.left > 0 {
            return Ok(None);
        }
        let some = &mut self.raw[..count];
        if let Some(mask) = head.mask {
            unmask(some, mask, head.at);
        }
        head.at += count;
        head.left -= count as u64;
        let taken = if is_control {
            self.control.extend_from_slice(some);
            0
        } else {
            to[..count].copy_from_slice(some);
            count
        };
        self.raw.drain(..count);
        if head.left == 0 {
            let (last, kind) = (head.last, head.kind);
            self.head = None;
            if is_control {
                self.handle_control(kind)?;
            } else {
                self.within = !last;
            }
        }
        Ok(Some(taken))
    }

    fn handle_control(&mut self, kind: u8) -> io::Result<()> {
        let body = std::mem::take(&mut self.control);
        match kind {
            // Who asks without end, and reads nothing, is answered once.
            PING if self.out.len() - self.gone < READ => self.frame(PONG, &body),
            CLOSE => {
                self.over = true;
                let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
                let known = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                let is_right = body.is_empty()
                    || code.is_some_and(known)
                        && body.get(2..).is_some_and(|why| std::str::from_utf8(why).is_ok());
                // What this end has still to say goes before its own close.
                self.code = if is_right { code.unwrap_or(NORMAL) } else { WRONG };
            }
            _ => {}
        }
        match self.flush() {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }
}

impl Read for WebSocket {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.over || to.is_empty() {
                return Ok(0);
            }
            if self.head.is_none() && self.take_head()? {
                continue;
            }
            match self.take_payload(to)? {
                Some(0) => continue,
                Some(count) => return Ok(count),
                None => {}
            }
            let mut bytes = [0; READ];
            let count = self.inner.read(&mut bytes)?;
            if count == 0 {
                return Ok(0);
            }
            self.raw.extend_from_slice(&bytes[..count]);
        }
    }
}

impl Write for WebSocket {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.flush()?;
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.frame(BINARY, from);
        match self.flush() {
            // It is kept, and goes out later.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(from.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.gone < self.out.len() {
            match self.inner.write(&self.out[self.gone..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.gone += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.gone = 0;
        Ok(())
    }
}

impl Stream for WebSocket {
    fn kind(&self) -> &'static str {
        "ws"
    }

    fn files(&self) -> [BorrowedFd<'_>; 2] {
        self.inner.files()
    }

    fn hang_up(&mut self) {
        self.close(self.code);
        // It is short; where there is no room for it, the connection ends without it.
        let _ = self.flush();
        self.inner.hang_up();
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if !self.closed {
            self.hang_up();
        }
    }
}

/// Masks or unmasks bytes, the first of which is the `at`th of its payload.
fn unmask(bytes: &mut [u8], mask: [u8; 4], at: usize) {
    bytes.iter_mut().zip(at..).for_each(|(byte, at)| *byte ^= mask[at % 4]);
}

/// Returns what is answered to a key.
pub(super) fn accept(key: &str) -> String {
    base64(&sha1(format!("{key}{GUID}").as_bytes()))
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let n = part.iter().chain([0, 0].iter()).take(3).fold(0, |n, byte| n << 8 | u32::from(*byte));
        for at in 0..4 {
            let letter = LETTERS[(n >> (18 - 6 * at) & 63) as usize];
            text.push(if at > part.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// SHA-1, which the opening asks for: it protects nothing here.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut all = bytes.to_vec();
    all.push(0x80);
    while all.len() % 64 != 56 {
        all.push(0);
    }
    all.extend((bytes.len() as u64 * 8).to_be_bytes());
    for block in all.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (f, k) = match at / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (word, more) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = word.wrapping_add(more);
        }
    }
    let mut hash = [0; 20];
    hash.chunks_exact_mut(4).zip(state).for_each(|(to, word)| to.copy_from_slice(&word.to_be_bytes()));
    hash
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests {
    use std::os::fd::AsFd;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What came, in pieces of so many bytes; what went out; whether it was hung up.
    struct Wire {
        came: Vec<u8>,
        piece: usize,
        went: Arc<Mutex<Vec<u8>>>,
    }

    impl Read for Wire {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let count = self.came.len().min(self.piece).min(to.len());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            to[..count].copy_from_slice(&self.came[..count]);
            self.came.drain(..count);
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

    /// What a server makes of frames: the stream's bytes, what it answers, and whether it goes on.
    fn server(came: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let went = Arc::default();
        let wire = Wire { came: came.into(), piece, went: Arc::clone(&went) };
        let mut socket = WebSocket::new(Box::new(wire), false, || [0; 4], Default::default());
        let (mut all, mut some) = (Vec::new(), [0; 100]);
        let goes_on = loop {
            match socket.read(&mut some) {
                Ok(0) => break false,
                Ok(count) => all.extend_from_slice(&some[..count]),
                Err(e) => break e.kind() == io::ErrorKind::WouldBlock,
            }
        };
        let mut answered = went.lock().unwrap().clone();
        if !goes_on {
            drop(socket);
            answered = went.lock().unwrap().clone();
        }
        (all, answered, goes_on)
    }

    /// A frame of a client.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        let start = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[start..], mask, 0);
        frame
    }

    const CLOSED_WRONG: &[u8] = &[0x88, 2, 0x03, 0xea];

    /// The cases of the Autobahn suite, by their sections, as far as they are about binary messages.
    #[test]
    fn frames_are_taken_as_the_suite_of_autobahn_has_them() {
        type Case<'a> = (&'a str, Vec<u8>, &'a [u8], &'a [u8], bool);
        let close = |body: &[u8]| frame(0x88, body);
        let long = vec![0xfe; 65_535];
        let taken: &[Case<'_>] = &[
            ("1.2.1", frame(0x82, b""), b"", b"", true),
            ("1.2.2", frame(0x82, &[0xfe; 125]), &[0xfe; 125], b"", true),
            ("1.2.3", frame(0x82, &[0xfe; 126]), &[0xfe; 126], b"", true),
            ("1.2.6", frame(0x82, &long), &long, b"", true),
            ("2.1", frame(0x89, b""), b"", &[0x8a, 0], true),
            ("2.2", frame(0x89, b"hello"), b"", b"\x8a\x05hello", true),
            ("2.5", frame(0x89, &[7; 126]), b"", CLOSED_WRONG, false),
            ("2.7", frame(0x8a, b""), b"", b"", true),
            ("2.8", frame(0x8a, b"unasked"), b"", b"", true),
            ("3.2", frame(0xc2, b"x"), b"", CLOSED_WRONG, false),
            ("3.3", frame(0xa2, b"x"), b"", CLOSED_WRONG, false),
            ("4.1.1", frame(0x83, b""), b"", CLOSED_WRONG, false),
            ("4.2.1", frame(0x8b, b""), b"", CLOSED_WRONG, false),
            ("5.1", [frame(0x09, b"a"), frame(0x80, b"b")].concat(), b"", CLOSED_WRONG, false),
            ("5.3", [frame(0x02, b"a"), frame(0x80, b"b")].concat(), b"ab", b"", true),
            (
                "5.6",
                [frame(0x02, b"a"), frame(0x89, b"p"), frame(0x80, b"b")].concat(),
                b"ab",
                b"\x8a\x01p",
                true,
            ),
            ("5.9", frame(0x80, b"nothing began"), b"", CLOSED_WRONG, false),
            (
                "5.15",
                [frame(0x02, b"a"), frame(0x80, b"b"), frame(0x00, b"c")].concat(),
                b"ab",
                CLOSED_WRONG,
                false,
            ),
            ("5.18", [frame(0x02, b"a"), frame(0x82, b"b")].concat(), b"a", CLOSED_WRONG, false),
            ("7.1.1", [frame(0x82, b"a"), close(&[3, 0xe8])].concat(), b"a", &[0x88, 2, 3, 0xe8], false),
            (
                "7.1.5",
                [frame(0x02, b"a"), close(&[3, 0xe8]), frame(0x80, b"b")].concat(),
                b"a",
                &[0x88, 2, 3, 0xe8],
                false,
            ),
            ("7.3.1", close(b""), b"", &[0x88, 2, 3, 0xe8], false),
            ("7.3.2", close(b"a"), b"", CLOSED_WRONG, false),
            ("7.3.4", close(b"\x03\xe8why"), b"", &[0x88, 2, 3, 0xe8], false),
            ("7.5.1", close(b"\x03\xe8\xce\xba\xff"), b"", CLOSED_WRONG, false),
            ("7.7.9", close(&3000_u16.to_be_bytes()), b"", &[0x88, 2, 0x0b, 0xb8], false),
            ("7.9.1", close(&0_u16.to_be_bytes()), b"", CLOSED_WRONG, false),
            ("7.9.3", close(&1004_u16.to_be_bytes()), b"", CLOSED_WRONG, false),
            ("7.9.4", close(&1005_u16.to_be_bytes()), b"", CLOSED_WRONG, false),
            ("not masked", b"\x82\x01a".to_vec(), b"", CLOSED_WRONG, false),
            ("text", frame(0x81, b"a"), b"", &[0x88, 2, 0x03, 0xeb], false),
            ("64 bits", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), b"", CLOSED_WRONG, false),
        ];
        for (case, came, payload, answer, goes_on) in taken {
            for piece in [1, 3, 1_000] {
                let (all, went, went_on) = server(came, piece);
                assert!(
                    all == *payload && went == *answer && went_on == *goes_on,
                    "{case}, {piece}: {went:?} {went_on}"
                );
            }
        }
    }

    #[test]
    fn what_one_end_sends_the_other_one_reads() {
        for len in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let went = Arc::default();
            let wire = Wire { came: Vec::new(), piece: 1, went: Arc::clone(&went) };
            let mut client = WebSocket::new(Box::new(wire), true, || [1, 2, 3, 4], Default::default());
            assert_eq!(client.write(&payload).unwrap(), len);
            let (all, ..) = server(&went.lock().unwrap(), 1_000);
            assert!(all == payload, "{len}");
        }
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!([b"".as_slice(), b"f", b"fo", b"foo"].map(base64), ["", "Zg==", "Zm8=", "Zm9v"]);
    }
}
