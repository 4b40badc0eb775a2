//! What goes over a stream: the opening, then records, encrypted unless both ends were told otherwise.
//!
//! | bytes | what |
//! |---|---|
//! | 5 | `89 50 4b 53 01`: the magic and the version, from who begins, then from who answers |
//! | 1 | 1: encrypted; 0: in clear |
//! | 32, then 48 | encrypted: the messages of the handshake, from who begins behind its 6 bytes, from who answers behind its |
//! | 2, n | each record: how long it is, little-endian, at most 16,400; its bytes, the last 16 of them the tag if it is encrypted |
//!
//! The records' bytes, put together, are the stream of the session. An empty one says that its sender is there.

use std::io;
use std::time::{Duration, Instant};

use super::noise::{Channel, FIRST, Handshake, SECOND, TAG, Tampered};
use super::stream::Stream;
use super::{Error, random};

/// The first bytes of either end.
pub(super) const MAGIC: [u8; 5] = *b"\x89PKS\x01";
const OPENING: usize = MAGIC.len() + 1;
/// How much of a session a record carries at most.
const RECORD_MAX: usize = 16_384;
/// So much is read at once.
const READ: usize = 8_192;
/// Who has nothing to say says so, this often.
const STILL_HERE: Duration = Duration::from_secs(20);

/// Where a stream stands.
enum Stage {
    /// This end began; the answer has not come.
    Called(Option<Handshake>),
    /// The other end is to begin.
    Listens,
    /// Records come and go.
    Open(Option<Channel>),
}

/// One end of a stream of records.
pub(super) struct Records {
    pub(super) stream: Box<dyn Stream>,
    plain: bool,
    stage: Stage,
    /// What came and is no whole record yet.
    raw: Vec<u8>,
    /// What came whole; up to where it was handed on.
    ready: Vec<u8>,
    taken: usize,
    /// What is to go out; up to where it has.
    out: Vec<u8>,
    gone: usize,
    over: bool,
    spoke: Instant,
    heard: Instant,
    /// Since when something is to go out and does not.
    stuck: Option<Instant>,
}

impl Records {
    fn new(stream: Box<dyn Stream>, plain: bool, stage: Stage, raw: Vec<u8>) -> Self {
        let now = Instant::now();
        Self {
            stream,
            plain,
            stage,
            raw,
            ready: Vec::new(),
            taken: 0,
            out: Vec::new(),
            gone: 0,
            over: false,
            spoke: now,
            heard: now,
            stuck: None,
        }
    }

    /// Begins, with the next flush.
    pub(super) fn call(stream: Box<dyn Stream>, plain: bool) -> Result<Self, Error> {
        let opening = opening(plain);
        let mut out = opening.to_vec();
        let handshake = if plain {
            None
        } else {
            let mut handshake = Handshake::new(&opening, random()?)?;
            out.extend(handshake.first_message());
            Some(handshake)
        };
        let mut records = Self::new(stream, plain, Stage::Called(handshake), Vec::new());
        records.out = out;
        Ok(records)
    }

    /// Lets the other end begin, of which these bytes came.
    pub(super) fn answer(stream: Box<dyn Stream>, plain: bool, came: Vec<u8>) -> Self {
        Self::new(stream, plain, Stage::Listens, came)
    }

    /// Returns whether records can be sent.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Returns the nonces that the channel gives the session, this end's and the other's, if it is encrypted.
    pub(super) fn nonces(&self) -> Option<[[u8; 32]; 2]> {
        match &self.stage {
            Stage::Open(channel) => channel.as_ref().map(Channel::nonces),
            _ => None,
        }
    }

    /// Returns for how long the other end was not heard.
    pub(super) fn silent(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Returns for how long the other end has taken nothing of what is to go out.
    pub(super) fn stuck(&self) -> Duration {
        self.stuck.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Returns whether the stream had no room for what is to go out.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Returns how many bytes wait to go out.
    pub(super) fn waiting(&self) -> usize {
        self.out.len() - self.gone
    }

    /// Receives what came: `None` if there is nothing at the moment, 0 if nothing more will come.
    pub(super) fn receive(&mut self, to: &mut [u8]) -> Result<Option<usize>, Error> {
        loop {
            if let Some(some) = self.ready.get(self.taken..).filter(|some| !some.is_empty()) {
                let count = some.len().min(to.len());
                to[..count].copy_from_slice(&some[..count]);
                self.taken += count;
                return Ok(Some(count));
            }
            if self.take_next()? {
                continue;
            }
            match self.fill() {
                Ok(0) => self.over = true,
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Broken(e)),
            }
            return Ok(Some(0));
        }
    }

    /// Returns whether the other end has ended its way.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ];
        let count = self.stream.read(&mut bytes)?;
        self.raw.extend_from_slice(&bytes[..count]);
        self.heard = Instant::now();
        Ok(count)
    }

    /// Takes the next whole thing of what came. Returns whether there was one.
    fn take_next(&mut self) -> Result<bool, Error> {
        if let Stage::Open(channel) = &mut self.stage {
            let Some(len) = self.raw.first_chunk().map(|len| usize::from(u16::from_le_bytes(*len))) else {
                return Ok(false);
            };
            if len > RECORD_MAX + TAG {
                return Err(Error::Foreign);
            }
            let Some(record) = self.raw.get_mut(2..2 + len) else { return Ok(false) };
            let record = match channel {
                None => record,
                Some(channel) => {
                    let (bytes, tag) = record.split_last_chunk_mut().ok_or(Tampered)?;
                    channel.open(bytes, tag)?;
                    bytes
                }
            };
            self.ready.clear();
            self.ready.extend_from_slice(record);
            self.taken = 0;
            self.raw.drain(..2 + len);
            return Ok(true);
        }
        self.open()
    }

    /// Goes on with the opening.
    fn open(&mut self) -> Result<bool, Error> {
        let known = self.raw.len().min(MAGIC.len());
        if self.raw[..known] != MAGIC[..known] {
            return Err(Error::Foreign);
        }
        let Some(theirs) = self.raw.first_chunk::<OPENING>().copied() else { return Ok(false) };
        let ours = opening(self.plain);
        if theirs != ours {
            if matches!(self.stage, Stage::Listens) {
                // So that the other end can say why.
                self.out.extend(ours);
                let _ = self.flush();
            }
            return Err(Error::Clear { theirs: theirs[OPENING - 1] == 0 });
        }
        let rest = &self.raw[OPENING..];
        let used = match (&mut self.stage, self.plain) {
            (Stage::Called(handshake), false) => {
                let Some(second) = rest.first_chunk::<SECOND>() else { return Ok(false) };
                let handshake = handshake.take().ok_or(Error::Foreign)?;
                self.stage = Stage::Open(Some(handshake.finish(second)?));
                SECOND
            }
            (Stage::Listens, false) => {
                let Some(first) = rest.first_chunk::<FIRST>() else { return Ok(false) };
                let (second, channel) = Handshake::new(&ours, random()?)?.answer(first)?;
                self.out.extend(ours);
                self.out.extend(second);
                self.stage = Stage::Open(Some(channel));
                FIRST
            }
            (stage, _) => {
                if matches!(stage, Stage::Listens) {
                    self.out.extend(ours);
                }
                *stage = Stage::Open(None);
                0
            }
        };
        self.raw.drain(..OPENING + used);
        self.flush()?;
        Ok(true)
    }

    /// Sends some of these bytes. Returns how many: none where the stream has no room at the moment.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if !self.flush()? {
            return Ok(0);
        }
        let some = bytes.get(..RECORD_MAX).unwrap_or(bytes);
        self.record(some)?;
        self.flush()?;
        Ok(some.len())
    }

    fn record(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Stage::Open(channel) = &mut self.stage else { return Ok(()) };
        let tag = channel.as_ref().map_or(0, |_| TAG);
        self.out.extend(((bytes.len() + tag) as u16).to_le_bytes());
        let start = self.out.len();
        self.out.extend_from_slice(bytes);
        if let Some(channel) = channel {
            let tag = channel.seal(&mut self.out[start..])?;
            self.out.extend(tag);
        }
        self.spoke = Instant::now();
        Ok(())
    }

    /// Lets the other end know that this one is there, if it has been told nothing for a while.
    pub(super) fn still_here(&mut self) -> Result<(), Error> {
        if self.is_open() && self.spoke.elapsed() >= STILL_HERE && self.flush()? {
            self.record(&[])?;
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is to go out. Returns whether all of it has gone.
    pub(super) fn flush(&mut self) -> Result<bool, Error> {
        while self.gone < self.out.len() {
            match self.stream.write(&self.out[self.gone..]) {
                Ok(0) => return Err(Error::Broken(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.gone += count;
                    self.stuck = None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Err(e) => return Err(Error::Broken(e)),
            }
        }
        self.out.clear();
        self.gone = 0;
        match self.stream.flush() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.stuck.get_or_insert_with(Instant::now);
                Ok(false)
            }
            flushed => {
                self.stuck = None;
                flushed.map(|()| true).map_err(Error::Broken)
            }
        }
    }
}

/// The first bytes of an end.
fn opening(plain: bool) -> [u8; OPENING] {
    let mut opening = [u8::from(!plain); OPENING];
    opening[..MAGIC.len()].copy_from_slice(&MAGIC);
    opening
}
