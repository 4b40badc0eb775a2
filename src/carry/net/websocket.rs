//! A stream over WebSocket (RFC 6455): its bytes are the payloads of binary messages, in pieces of any size.
//!
//! Only what that needs: no extensions, no text. Pings are answered; what is not as it should be closes the connection
//! with the code that the RFC has for it.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

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
            unmask(self.out.get_mut(start..).unwrap_or_default(), mask, 0);
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
        if let Some(mask) = head.mask {
            unmask(self.raw.get_mut(..count).unwrap_or_default(), mask, head.at);
        }
        head.at += count;
        head.left -= count as u64;
        let taken = if is_control {
            self.control.extend(self.raw.drain(..count));
            0
        } else {
            to.iter_mut().zip(self.raw.drain(..count)).for_each(|(to, byte)| *to = byte);
            count
        };
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
            self.raw.extend(bytes.into_iter().take(count));
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
            match self.inner.write(self.out.get(self.gone..).unwrap_or_default()) {
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
    bytes.iter_mut().zip(mask.iter().cycle().skip(at % 4)).for_each(|(byte, mask)| *byte ^= mask);
}

/// Returns what is answered to a key.
pub(super) fn accept(key: &str) -> String {
    base64(&sha1(format!("{key}{GUID}").as_bytes()))
}

/// Base64 with padding.
#[allow(clippy::indexing_slicing)] // Six bits are below 64.
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
#[allow(clippy::indexing_slicing)] // Its own words, by numbers of its own.
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
pub(super) mod tests;
