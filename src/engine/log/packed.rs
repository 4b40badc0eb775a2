//! A packed bundle: the records of a bundle for one device without what its reader knows from those before them. See
//! `FORMAT.md`, "Packed bundle".
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use packmule_core::model::{DeviceId, Stream, WallMs};
use packmule_core::wire::{
    Checkpoint, DecodeError, FORMAT_VERSION, FrameFlags, Header, HeaderReader, NoRoom, Position, RecordKind,
    Section, put, take, take_bytes,
};
use sha2::{Digest, Sha256};

use crate::engine::error::{self, Error, Result};

/// The kinds of records that stand in another form than in a bundle that is not packed.
pub(crate) const HEADER: u8 = 1;
pub(crate) const CHECKPOINT: u8 = 5;
pub(crate) const FOOTER: u8 = 6;
/// Sections of the sender's own streams.
pub(crate) const OWN_SECTIONS: [u8; 2] = [0x83, 0xc3];
/// A checkpoint right after another one of its section: the chain before it is the one after that.
pub(crate) const NEXT_CHECKPOINT: u8 = 0x85;

/// The first frame of a group, which was sealed about when the bundle was made.
pub(crate) const FIRST_FRAME: u8 = 0x84;

/// The bytes of a footer: of the hash over all before it, as if it were not packed. It tells a file that was cut off or
/// damaged, as a CRC does; what somebody could gain by is signed.
pub(crate) const FOOTER_LEN: usize = 4;
/// The bytes of a checkpoint: the chain before it, unless it is known, and the signature.
pub(crate) const CHAIN_LEN: usize = 32;
pub(crate) const SIGNATURE_LEN: usize = 64;

/// Between whom a bundle is.
#[derive(Clone, Copy)]
pub(crate) struct Between {
    pub sender: DeviceId,
    receiver: Option<DeviceId>,
    /// When it was made, by the sender's clock.
    pub wall: WallMs,
}

impl Between {
    /// Returns the short names of devices.
    fn names(self) -> [(u8, Option<DeviceId>); 2] {
        [(2, Some(self.sender)), (4, self.receiver)]
    }
}

/// Packs records, one after the other.
#[derive(Default)]
pub(crate) struct Packer {
    between: Option<Between>,
    section: Option<Section>,
    /// The last frame of the group that closed last, if no section has begun since.
    closed: Option<u64>,
}

impl Packer {
    /// Packs a record. `before` is the hash over all before it, as if that were not packed.
    pub(crate) fn pack(&mut self, kind: RecordKind, body: &[u8], before: &Sha256) -> Result<Vec<u8>> {
        match kind {
            RecordKind::Header => {
                let header = HeaderReader::parse(body).map_err(error::bad)?;
                self.between = Some(between(&header.header));
                let packed = pack_header(&header)?;
                // Without its kind: it is the first, and nothing else can be.
                Ok(with_length(HEADER, &packed, SIGNATURE_LEN)?.split_off(1))
            }
            RecordKind::Frame => {
                let made = self.between.map(|between| between.wall);
                let packed = made.and_then(|made| since(body, made));
                let again = made.zip(packed.as_ref()).and_then(|(made, packed)| since(packed, made));
                match packed.filter(|_| again.as_deref() == Some(body)) {
                    Some(packed) => with_length(FIRST_FRAME, &packed, 0),
                    None => with_length(kind.number(), body, 0),
                }
            }
            RecordKind::Section => {
                let section: Section = take(&mut &*body).map_err(error::bad)?;
                (self.section, self.closed) = (Some(section), None);
                if self.between.is_some_and(|between| between.sender == section.author) {
                    let [shared, per_device] = OWN_SECTIONS;
                    return Ok(vec![if section.stream == Stream::Shared { shared } else { per_device }]);
                }
                with_length(3, body, 0)
            }
            RecordKind::Checkpoint => {
                let Checkpoint { first, last, prev, signature, .. } =
                    Checkpoint::decode(body).map_err(error::bad)?;
                let next = self.closed == Some(first - 1);
                self.closed = Some(last);
                Ok(if next {
                    [&[NEXT_CHECKPOINT][..], &signature].concat()
                } else {
                    [&[CHECKPOINT][..], &prev.0, &signature].concat()
                })
            }
            RecordKind::Footer => {
                let hash = before.clone().finalize();
                Ok(std::iter::once(FOOTER).chain(hash.into_iter().take(FOOTER_LEN)).collect())
            }
            kind => with_length(kind.number(), body, 0),
        }
    }
}

/// Returns a kind, the length of a body but for its last bytes, of which there are always so many, and the body.
fn with_length(kind: u8, body: &[u8], last: usize) -> Result<Vec<u8>> {
    let mut record = vec![0; 6];
    let too_long = |_| Error::damaged("a record that is too long");
    let len = put(&mut record, &(kind, (body.len() - last) as u32)).map_err(too_long)?;
    record.truncate(len);
    record.extend_from_slice(body);
    Ok(record)
}

/// Returns between whom the bundle of a header is.
pub(crate) fn between(header: &Header) -> Between {
    Between { sender: header.sender, receiver: header.receiver, wall: header.wall }
}

/// Returns the first frame of a group with the time from its wall time to `made` in its head in place of that, or, of such a
/// one, the frame as it was. `None` if it is no first frame.
pub(crate) fn since(frame: &[u8], made: WallMs) -> Option<Vec<u8>> {
    let (version, flags, codec, seq, lamport): (u8, FrameFlags, u8, u64, u64);
    let mut rest = frame;
    (version, flags, codec, seq, lamport) = take(&mut rest).ok()?;
    if !flags.has(FrameFlags::FIRST) {
        return None;
    }
    let wall: WallMs = take(&mut rest).ok()?;
    let mut whole = vec![0; 40];
    let head = (version, flags, codec, seq, lamport, made.checked_sub(wall)?);
    let len = put(&mut whole, &head).ok()?;
    whole.truncate(len);
    whole.extend_from_slice(rest);
    Some(whole)
}

/// In the first byte of a header, below its version: a base follows; how many probes there are.
const HAS_BASE: u8 = 1;
const HAS_PROBES: u8 = 2;

/// Packs a header: the sender's streams and the receiver's are named by a bit.
fn pack_header(header: &HeaderReader<'_>) -> Result<Vec<u8>> {
    let no_room = |_| Error::damaged("a header without room");
    let names = between(&header.header).names();
    let Header { version, sender, receiver, wall, statement, base, applied, probes } = header.header;
    let receiver = receiver.ok_or_else(|| Error::damaged("a packed bundle for nobody"))?;
    let bit = |is: bool, bit| if is { bit } else { 0 };
    let first = (version as u8) << 2 | bit(base.is_some(), HAS_BASE) | bit(probes > 0, HAS_PROBES);
    let mut packed = vec![0; header.bytes().len() + 8];
    let mut len = put(&mut packed, &(first, sender, receiver, wall, statement)).map_err(no_room)?;
    packed.truncate(len);
    packed.extend(base.into_iter().flatten());
    for count in std::iter::once(applied).chain((probes > 0).then_some(probes)) {
        let mut buf = [0; 5];
        len = put(&mut buf, &count).map_err(no_room)?;
        packed.extend(buf.into_iter().take(len));
    }
    let probes =
        header.probes().map(|p| Position { author: p.author, stream: p.stream, seq: p.seq, tag: p.tag });
    for Position { author, stream, seq, tag } in header.applied().chain(probes) {
        let name = names.iter().find_map(|(name, of)| (*of == Some(author)).then_some(*name));
        let first = name.unwrap_or(0) | stream.number();
        let mut buf = [0; 40];
        let len = match name {
            Some(_) => put(&mut buf, &(first, seq, tag)),
            None => put(&mut buf, &(first, author, seq, tag)),
        }
        .map_err(no_room)?;
        packed.extend(buf.into_iter().take(len));
    }
    let signature = header.bytes().last_chunk::<SIGNATURE_LEN>();
    packed.extend_from_slice(signature.ok_or(NoRoom).map_err(no_room)?);
    Ok(packed)
}

/// Makes a header of what [`pack_header`] made. Whether it is one is for its reader to find out.
pub(crate) fn unpack_header(packed: &[u8]) -> Result<(Between, Vec<u8>), DecodeError> {
    let mut rest = packed;
    let header = unpack_fields(&mut rest)?;
    let between = between(&header);
    let mut whole = vec![0; 96];
    let len = put(&mut whole, &header).map_err(|_| DecodeError::Short)?;
    whole.truncate(len);
    for _ in 0..u64::from(header.applied) + u64::from(header.probes) {
        let first: u8 = take(&mut rest)?;
        let author = match (first & !1, between.receiver) {
            (0, _) => take(&mut rest)?,
            (2, _) => between.sender,
            (4, Some(receiver)) => receiver,
            _ => return Err(DecodeError::Malformed("a position of nobody")),
        };
        let stream = if first & 1 == 0 { Stream::Shared } else { Stream::PerDevice };
        let (seq, tag) = take(&mut rest)?;
        let mut buf = [0; 40];
        let len = put(&mut buf, &Position { author, stream, seq, tag }).map_err(|_| DecodeError::Short)?;
        whole.extend(buf.into_iter().take(len));
    }
    whole.extend_from_slice(take_bytes(&mut rest, SIGNATURE_LEN)?);
    if !rest.is_empty() {
        return Err(DecodeError::Malformed("bytes after the end of its header"));
    }
    Ok((between, whole))
}

/// Reads the fields of a packed header up to its positions.
fn unpack_fields(rest: &mut &[u8]) -> Result<Header, DecodeError> {
    let first: u8 = take(rest)?;
    let version = u16::from(first >> 2);
    if version != FORMAT_VERSION.into() {
        return Err(DecodeError::Version(version));
    }
    let (sender, receiver, wall, statement) = take(rest)?;
    let base = if first & HAS_BASE > 0 { Some(take(rest)?) } else { None };
    let applied = take(rest)?;
    let probes = if first & HAS_PROBES > 0 { take(rest)? } else { 0 };
    Ok(Header { version, sender, receiver: Some(receiver), wall, statement, base, applied, probes })
}
