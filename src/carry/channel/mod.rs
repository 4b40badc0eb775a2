//! What goes over a stream of bytes, a network's or a serial line's: the opening, then records, encrypted unless both ends
//! were told otherwise.
//!
//! | bytes | what |
//! |---|---|
//! | 256 | on a serial line, of each end: 0 to 255, so that it soon shows what the line does to them |
//! | 5 | `89 50 4b 53 01`: the magic and the version, from who begins, then from who answers |
//! | 1 | 1: encrypted; 0: in clear |
//! | 32, then 48 | encrypted: the messages of the handshake, from who begins behind its 6 bytes, from who answers behind its |
//! | 2, n | each record: how long it is, little-endian, at most 16,400; its bytes, the last 16 of them the tag if it is encrypted |
//!
//! The records' bytes, put together, are the stream of the session. An empty one says that its sender is there.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`Wire`]: bytes in, bytes out; it has no stream and no clock |
//! | `noise` | the encrypted channel |
//! | `fuzz` | both, tried with anything |
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

#[cfg(test)]
mod fuzz;
mod noise;

use std::io;

use noise::{Channel, FIRST, Handshake, SECOND, TAG, Tampered};

/// The first bytes of either end.
pub(super) const MAGIC: [u8; 5] = *b"\x89PKS\x01";
const OPENING: usize = MAGIC.len() + 1;
/// So many values go first on a line.
#[cfg(feature = "serial")]
pub(super) const VALUES: usize = 256;
/// How much of a session a record carries at most.
pub(super) const RECORD_MAX: usize = 16_384;

/// Why a wire carries nothing more.
#[derive(Debug)]
pub(super) enum Broken {
    /// What comes is not Packmule's.
    Foreign,
    /// One end encrypts and the other does not.
    Clear {
        /// It is the other end that does not.
        theirs: bool,
    },
    /// What came is not what the other end sent.
    Tampered,
    /// The system gives no random numbers.
    Random(io::Error),
}

impl From<Tampered> for Broken {
    fn from(_: Tampered) -> Self {
        Self::Tampered
    }
}

/// Where a wire stands.
enum Stage {
    /// This end began; the answer has not come.
    Called(Option<Handshake>),
    /// The other end is to begin.
    Listens,
    /// Records come and go.
    Open(Option<Channel>),
    /// Bytes come and go as they are.
    #[cfg(feature = "serial")]
    Bare,
}

/// One end of what goes over a stream.
pub(super) struct Wire {
    plain: bool,
    stage: Stage,
    /// So many bytes come first that say nothing.
    skips: usize,
    /// What came and is no whole record yet.
    raw: Vec<u8>,
    /// What came whole; up to where it was handed on.
    ready: Vec<u8>,
    taken: usize,
    /// What is to go out; up to where it has.
    out: Vec<u8>,
    gone: usize,
    /// Where the record begins to which bytes are added, if there is one: at its length.
    record: Option<usize>,
}

impl Wire {
    fn new(plain: bool, stage: Stage, raw: Vec<u8>) -> Self {
        Self {
            plain,
            stage,
            raw,
            skips: 0,
            ready: Vec::new(),
            taken: 0,
            out: Vec::new(),
            gone: 0,
            record: None,
        }
    }

    /// Begins.
    pub(super) fn call(plain: bool) -> Result<Self, Broken> {
        let opening = opening(plain);
        let mut out = opening.to_vec();
        let handshake = if plain {
            None
        } else {
            let mut handshake = Handshake::new(&opening, random().map_err(Broken::Random)?)?;
            out.extend(handshake.first_message());
            Some(handshake)
        };
        Ok(Self { out, ..Self::new(plain, Stage::Called(handshake), Vec::new()) })
    }

    /// Lets the other end begin, of which these bytes came.
    pub(super) fn answer(plain: bool, came: Vec<u8>) -> Self {
        Self::new(plain, Stage::Listens, came)
    }

    /// Lets every value of a byte go first, at both ends: by those that never come it shows what a line does to bytes.
    #[cfg(feature = "serial")]
    pub(super) fn after_values(mut self) -> Self {
        self.out.splice(..0, 0..=u8::MAX);
        self.skips = VALUES;
        self
    }

    /// Carries bytes as they are: no opening, no records.
    #[cfg(feature = "serial")]
    pub(super) fn bare() -> Self {
        Self::new(true, Stage::Bare, Vec::new())
    }

    /// Returns whether the session's bytes can be sent.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Called(_) | Stage::Listens)
    }

    /// Returns the nonces that the channel gives the session, this end's and the other's, if it is encrypted.
    pub(super) fn nonces(&self) -> Option<[[u8; 32]; 2]> {
        match &self.stage {
            Stage::Open(channel) => channel.as_ref().map(Channel::nonces),
            _ => None,
        }
    }

    /// Takes bytes that came.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// Copies out what the other end has said, as much as is here whole and fits. Returns how many bytes.
    pub(super) fn take(&mut self, to: &mut [u8]) -> Result<usize, Broken> {
        loop {
            if let Some(some) = self.ready.get(self.taken..).filter(|some| !some.is_empty()) {
                let count = some.len().min(to.len());
                to.iter_mut().zip(some).for_each(|(to, byte)| *to = *byte);
                self.taken += count;
                return Ok(count);
            }
            if !self.take_next()? {
                return Ok(0);
            }
        }
    }

    /// Takes the next whole thing of what came. Returns whether there was one.
    fn take_next(&mut self) -> Result<bool, Broken> {
        let skipped = self.skips.min(self.raw.len());
        self.raw.drain(..skipped);
        self.skips -= skipped;
        match &mut self.stage {
            Stage::Called(_) | Stage::Listens => self.open(),
            #[cfg(feature = "serial")]
            Stage::Bare => {
                self.ready.clear();
                self.ready.append(&mut self.raw);
                self.taken = 0;
                Ok(!self.ready.is_empty())
            }
            Stage::Open(channel) => {
                let Some(len) = self.raw.first_chunk().map(|len| usize::from(u16::from_le_bytes(*len)))
                else {
                    return Ok(false);
                };
                if len > RECORD_MAX + TAG {
                    return Err(Broken::Foreign);
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
                Ok(true)
            }
        }
    }

    /// Goes on with the opening.
    fn open(&mut self) -> Result<bool, Broken> {
        if self.raw.iter().zip(&MAGIC).any(|(byte, of_magic)| byte != of_magic) {
            return Err(Broken::Foreign);
        }
        let Some((&theirs, rest)) = self.raw.split_first_chunk::<OPENING>() else { return Ok(false) };
        let ours = opening(self.plain);
        if theirs != ours {
            if matches!(self.stage, Stage::Listens) {
                // So that the other end can say why.
                self.out.extend(ours);
            }
            return Err(Broken::Clear { theirs: theirs[OPENING - 1] == 0 });
        }
        let used = match (&mut self.stage, self.plain) {
            (Stage::Called(handshake), false) => {
                let Some(second) = rest.first_chunk::<SECOND>() else { return Ok(false) };
                let handshake = handshake.take().ok_or(Broken::Foreign)?;
                self.stage = Stage::Open(Some(handshake.finish(second)?));
                SECOND
            }
            (Stage::Listens, false) => {
                let Some(first) = rest.first_chunk::<FIRST>() else { return Ok(false) };
                let handshake = Handshake::new(&ours, random().map_err(Broken::Random)?)?;
                let (second, channel) = handshake.answer(first)?;
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
        Ok(true)
    }

    /// Adds bytes to the record that goes out next, as many as fit. Returns how many: none before it is open.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        match self.stage {
            Stage::Called(_) | Stage::Listens => return 0,
            #[cfg(feature = "serial")]
            Stage::Bare => {
                let some = bytes.get(..RECORD_MAX).unwrap_or(bytes);
                self.out.extend_from_slice(some);
                return some.len();
            }
            Stage::Open(_) => {}
        }
        let start = *self.record.get_or_insert_with(|| {
            let start = self.out.len();
            self.out.extend([0; 2]);
            start
        });
        let room = RECORD_MAX - (self.out.len() - start - 2);
        let some = bytes.get(..room).unwrap_or(bytes);
        self.out.extend_from_slice(some);
        some.len()
    }

    /// Ends the record to which bytes were added: it can go. One to which none were added says that this end is there.
    pub(super) fn seal(&mut self) -> Result<(), Broken> {
        self.put(&[]);
        let (Some(start), Stage::Open(channel)) = (self.record.take(), &mut self.stage) else {
            return Ok(());
        };
        if let Some(channel) = channel {
            let tag = channel.seal(self.out.get_mut(start + 2..).unwrap_or_default())?;
            self.out.extend(tag);
        }
        let len = (self.out.len() - start - 2) as u16;
        self.out.iter_mut().skip(start).zip(len.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        Ok(())
    }

    /// Returns how many bytes were added to the record that is not ended.
    #[cfg(feature = "serial")]
    pub(super) fn added(&self) -> usize {
        self.record.map_or(self.waiting(), |start| self.out.len() - start - 2)
    }

    /// Returns what is to go out: whole records.
    pub(super) fn to_go(&self) -> &[u8] {
        self.out.get(self.gone..self.record.unwrap_or(self.out.len())).unwrap_or_default()
    }

    /// Records that so many bytes of it have gone.
    pub(super) fn went(&mut self, count: usize) {
        self.gone += count;
        if self.gone == self.out.len() {
            self.out.clear();
            self.gone = 0;
        }
    }

    /// Returns how many bytes wait to go out.
    pub(super) fn waiting(&self) -> usize {
        self.out.len() - self.gone
    }
}

/// The first bytes of an end.
fn opening(plain: bool) -> [u8; OPENING] {
    let mut opening = [u8::from(!plain); OPENING];
    opening.iter_mut().zip(MAGIC).for_each(|(to, byte)| *to = byte);
    opening
}

/// Returns random bytes.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}
