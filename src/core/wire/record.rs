//! Records: how frames and what goes with them stand in a bundle or on a link.
//! See `FORMAT.md`, "Records" and "Bundle".

use ed25519_compact::{Noise, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    COUNT_MAX, DecodeError, FORMAT_VERSION, FRAME_MAX, NoRoom, SignatureError, crc32, put, put_next,
    read_part, take, take_bytes,
};
use crate::model::{DeviceId, Stream, WallMs};

/// The first 8 bytes of every file of ours; as in PNG, they show a text-mode transfer at once.
pub const MAGIC: [u8; 8] = *b"\x89PKM\r\n\x1a\n";

/// The first 8 bytes of a packed bundle: see `FORMAT.md`, "Packed bundle".
pub const PACKED_MAGIC: [u8; 8] = *b"\x89PKB\r\n\x1a\n";

/// The length of a record's head, in bytes.
pub const RECORD_HEAD_LEN: usize = 8;

/// The longest body of a record, in bytes.
const BODY_MAX: usize = 1 << 20;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RecordKind {
    /// [`Header`], once, first.
    Header,
    /// A [`super::Certificate`].
    Certificate,
    /// A [`Section`]: whose frames follow.
    Section,
    /// A frame.
    Frame,
    /// A [`super::Checkpoint`].
    Checkpoint,
    /// A [`Footer`], once, last.
    Footer,
    /// A [`super::Message`]; in a session, never in a bundle.
    Message,
    /// A row of what a snapshot's maker has: see `FORMAT.md`, "Snapshot".
    State,
    /// A part of a large value of the next [`RecordKind::State`].
    Part,
    /// The end of a snapshot, with its maker's signature.
    Seal,
    /// A [`super::Newest`]: the newest checkpoint of a stream, for its author.
    Newest,
    /// A [`super::Revocation`].
    Revocation = 15,
}

impl RecordKind {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Header,
            2 => Self::Certificate,
            3 => Self::Section,
            4 => Self::Frame,
            5 => Self::Checkpoint,
            6 => Self::Footer,
            7 => Self::Message,
            8 => Self::State,
            9 => Self::Part,
            10 => Self::Seal,
            11 => Self::Newest,
            16 => Self::Revocation,
            _ => return None,
        })
    }

    /// Returns its number on the wire.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Returns the longest body, its CRC included.
    const fn max(self) -> usize {
        if matches!(self, Self::Frame) { FRAME_MAX } else { BODY_MAX }
    }
}

/// The head of a record: what follows, how long it is, and a check of just that, so that a torn
/// length sends nobody astray.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RecordHead {
    /// What the body is.
    pub kind: RecordKind,
    /// The body's length in bytes, its CRC included.
    pub len: u32,
}

impl RecordHead {
    /// Reads a head.
    ///
    /// # Errors
    /// [`DecodeError`] if it is damaged, of an unknown kind, or too long for its kind.
    pub fn parse(bytes: &[u8; RECORD_HEAD_LEN]) -> Result<Self, DecodeError> {
        let [kind, l0, l1, l2, crc @ ..] = *bytes;
        if crc32(&bytes[..4]) != u32::from_le_bytes(crc) {
            return Err(DecodeError::Crc);
        }
        let kind =
            RecordKind::from_number(kind).ok_or(DecodeError::Malformed("a record of an unknown kind"))?;
        let len = u32::from_le_bytes([l0, l1, l2, 0]);
        if len as usize > kind.max() || len < 4 {
            return Err(DecodeError::Malformed("a record of impossible length"));
        }
        Ok(Self { kind, len })
    }

    /// Returns the bytes of the head.
    pub fn to_bytes(self) -> [u8; RECORD_HEAD_LEN] {
        let [l0, l1, l2, _] = self.len.to_le_bytes();
        let mut bytes = [self.kind.number(), l0, l1, l2, 0, 0, 0, 0];
        let crc = crc32(&bytes[..4]).to_le_bytes();
        bytes[4..].copy_from_slice(&crc);
        bytes
    }

    /// Checks a body against its CRC and returns it without. A frame keeps its CRC: it is its own.
    ///
    /// # Errors
    /// [`DecodeError::Crc`] if it is damaged.
    pub fn check<'a>(&self, body: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        if self.kind == RecordKind::Frame {
            return Ok(body);
        }
        let (body, crc) = body.split_last_chunk::<4>().ok_or(DecodeError::Short)?;
        if crc32(body) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Crc);
        }
        Ok(body)
    }
}

/// Writes a record: head, body and, unless it is a frame, which ends with its own, CRC. Returns the
/// length.
///
/// # Errors
/// [`NoRoom`] if it does not fit into `buf`, or no record can be so long.
pub fn write_record(buf: &mut [u8], kind: RecordKind, body: &[u8]) -> Result<usize, NoRoom> {
    let to = buf.get_mut(RECORD_HEAD_LEN..RECORD_HEAD_LEN + body.len()).ok_or(NoRoom)?;
    to.copy_from_slice(body);
    finish_record(buf, kind, body.len())
}

/// Makes a record of a body of `len` bytes that stands in `buf` behind room for the head: writes the head before it
/// and, unless it is a frame, the CRC behind it. Returns the record's length.
///
/// # Errors
/// As [`write_record`].
pub fn finish_record(buf: &mut [u8], kind: RecordKind, len: usize) -> Result<usize, NoRoom> {
    let end = RECORD_HEAD_LEN + len;
    let body = buf.get(RECORD_HEAD_LEN..end).ok_or(NoRoom)?;
    let crc = if kind == RecordKind::Frame { None } else { Some(crc32(body).to_le_bytes()) };
    let crc = crc.as_ref().map_or(&[][..], |crc| &crc[..]);
    let len = len + crc.len();
    if len > kind.max() {
        return Err(NoRoom);
    }
    let whole = buf.get_mut(..RECORD_HEAD_LEN + len).ok_or(NoRoom)?;
    *whole.first_chunk_mut().ok_or(NoRoom)? = RecordHead { kind, len: len as u32 }.to_bytes();
    whole.get_mut(end..).ok_or(NoRoom)?.copy_from_slice(crc);
    Ok(whole.len())
}

/// Whose frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Section {
    /// The author.
    pub author: DeviceId,
    /// The stream.
    pub stream: Stream,
}

/// What the sender has applied of a stream: an entry of its version vector. It acknowledges, and shows the history as a
/// [`Probe`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Position {
    /// The author.
    pub author: DeviceId,
    /// The stream.
    pub stream: Stream,
    /// The sender has applied all up to here.
    pub seq: u64,
    /// [`super::Chain::tag`] there: another tag at the same frame is another history.
    pub tag: [u8; 4],
}

/// The history that the sender has of a stream at one frame, for the receiver to compare with its own. It says nothing
/// of what is applied: the frame can be of a group that is pending at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Probe {
    /// The author.
    pub author: DeviceId,
    /// The stream.
    pub stream: Stream,
    /// A frame that ends a group.
    pub seq: u64,
    /// [`super::Chain::tag`] there: another tag at the same frame is another history.
    pub tag: [u8; 4],
}

/// What is applied can be compared as well. The reverse does not exist: a probe acknowledges nothing.
impl From<Position> for Probe {
    fn from(Position { author, stream, seq, tag }: Position) -> Self {
        Self { author, stream, seq, tag }
    }
}

/// Who sends, when, to whom, and what it has; signed by the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Header {
    /// The format version.
    pub version: u16,
    /// Who sends.
    pub sender: DeviceId,
    /// For whom, if it was made for one device.
    pub receiver: Option<DeviceId>,
    /// When, by the sender's clock.
    pub wall: WallMs,
    /// Random, drawn for this header: a receiver knows one that it has heard by it.
    pub statement: [u8; 8],
    /// What the receiver said last, by [`vector_digest`]: the positions tell only what differs from it.
    pub base: Option<[u8; 8]>,
    /// How many [`Position`]s follow.
    pub applied: u32,
    /// How many [`Probe`]s follow these.
    pub probes: u32,
}

const HEADER_DOMAIN: &[u8; 17] = b"packmule/1 header";
const VECTOR_DOMAIN: &[u8; 17] = b"packmule/1 vector";

/// Names a version vector by its content: the shared streams in it, in the order of authors, with their tags.
/// Two devices that compute the same have the same vector before them.
pub fn vector_digest(shared: impl Iterator<Item = Position>) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(VECTOR_DOMAIN);
    for Position { author, seq, tag, .. } in shared {
        hash.update(author.0);
        hash.update(seq.to_le_bytes());
        hash.update(tag);
    }
    let whole: [u8; 32] = hash.finalize().into();
    let mut digest = [0; 8];
    digest.copy_from_slice(&whole[..8]);
    digest
}

impl Header {
    /// Encodes a header with its two lists and the sender's signature; returns the length. `applied` is in the order of
    /// authors and streams.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn encode(
        &self,
        buf: &mut [u8],
        applied: impl Iterator<Item = Position>,
        probes: impl Iterator<Item = Probe>,
        key: &SecretKey,
    ) -> Result<usize, NoRoom> {
        let mut len = put(buf, self)?;
        for position in applied {
            put_next(buf, &mut len, &position)?;
        }
        for probe in probes {
            put_next(buf, &mut len, &probe)?;
        }
        let digest = header_digest(buf.get(..len).ok_or(NoRoom)?);
        let signature = key.sign(digest, None::<Noise>);
        buf.get_mut(len..len + 64).ok_or(NoRoom)?.copy_from_slice(&*signature);
        Ok(len + 64)
    }
}

fn header_digest(encoded: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(HEADER_DOMAIN);
    hash.update(encoded);
    hash.finalize().into()
}

/// A header as it was received.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeaderReader<'a> {
    /// The fixed part.
    pub header: Header,
    bytes: &'a [u8],
    encoded: &'a [u8],
    applied: &'a [u8],
    probes: &'a [u8],
    signature: [u8; 64],
}

impl<'a> HeaderReader<'a> {
    /// Reads a header; the signature is not checked yet.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not one of this version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let version: u16 = take(&mut rest)?;
        if version != FORMAT_VERSION.into() {
            return Err(DecodeError::Version(version));
        }
        rest = bytes;
        let header: Header = take(&mut rest)?;
        let applied = parse_applied(&mut rest, header.applied)?;
        let probes = parse_probes(&mut rest, header.probes)?;
        let encoded = read_part(bytes, rest);
        let mut signature = [0; 64];
        signature.copy_from_slice(take_bytes(&mut rest, 64)?);
        if !rest.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of its header"));
        }
        Ok(Self { header, bytes, encoded, applied, probes, signature })
    }

    /// Returns all of it, as [`HeaderReader::parse`] reads it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns what the sender has applied, each stream once, in the order of authors and streams. With a
    /// [`Header::base`], only what differs from it: number 0 takes a stream out of it.
    pub fn applied(&self) -> impl Iterator<Item = Position> + 'a {
        let mut rest = self.applied;
        core::iter::from_fn(move || take(&mut rest).ok())
    }

    /// Returns what the sender has of the streams that the receiver may have another history of.
    pub fn probes(&self) -> impl Iterator<Item = Probe> + 'a {
        let mut rest = self.probes;
        core::iter::from_fn(move || take(&mut rest).ok())
    }

    /// Checks the sender's signature.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, public_key: &[u8; 32]) -> Result<(), SignatureError> {
        PublicKey::new(*public_key)
            .verify(header_digest(self.encoded), &Signature::new(self.signature))
            .map_err(|_| SignatureError)
    }
}

/// Reads so many positions and returns their bytes. A stream that is named twice would have two of them, so their order
/// is strict.
fn parse_applied<'a>(rest: &mut &'a [u8], count: u32) -> Result<&'a [u8], DecodeError> {
    let bytes = *rest;
    let mut before = None;
    for _ in 0..count {
        let Position { author, stream, seq, .. } = take(rest)?;
        refuse_large_count(seq)?;
        if before.is_some_and(|before| before >= (author, stream)) {
            return Err(DecodeError::Malformed("positions out of order"));
        }
        before = Some((author, stream));
    }
    Ok(read_part(bytes, rest))
}

/// Reads so many probes and returns their bytes.
fn parse_probes<'a>(rest: &mut &'a [u8], count: u32) -> Result<&'a [u8], DecodeError> {
    let bytes = *rest;
    for _ in 0..count {
        let probe: Probe = take(rest)?;
        refuse_large_count(probe.seq)?;
    }
    Ok(read_part(bytes, rest))
}

/// Refuses a count out of its range.
fn refuse_large_count(count: u64) -> Result<(), DecodeError> {
    if count > COUNT_MAX {
        return Err(DecodeError::Malformed("a count out of its range"));
    }
    Ok(())
}

/// The end of a bundle; one without it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Footer {
    /// How many frames there were.
    pub frames: u64,
    /// SHA-256 of all bytes before this record, the magic number included.
    pub sha256: [u8; 32],
}
