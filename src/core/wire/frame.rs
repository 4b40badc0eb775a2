//! The unit of the log: a head, blocks, a CRC. See `FORMAT.md`, "Frame".

mod say;

use serde::{Deserialize, Serialize};

use super::blocks::{BLOCK_DEF, BLOCK_PIECE, BLOCK_RETIRE, BLOCK_RETURN, BLOCK_ROWS, Blocks};
use super::columns::{Bucket, Columns, Learned};
use super::rows::{OpHead, write_op};
use super::{
    Bytes, COUNT_MAX, DecodeError, DefId, NoRoom, check_version, crc32, put, read_part, take, take_count,
};
use crate::model::{DeviceId, Value, WallMs};

/// The format version of everything but frames: the one that this build writes, and the only one that it reads.
pub const FORMAT_VERSION: u8 = 1;

/// The highest format version of a frame, whose context names devices by numbers. A frame that needs none has
/// [`FORMAT_VERSION`]; both are read.
pub const FRAME_VERSION: u8 = 2;

/// The largest frame, in bytes, CRC included.
pub const FRAME_MAX: usize = 65_536;

/// The highest stamp that a group can have. Nobody counts so far; a device that claims to have is
/// refused, before it can use up the numbers of all who hear of it.
pub const LAMPORT_MAX: u64 = 1 << 62;

const CRC_LEN: usize = 4;
/// Where the codec stands in a frame, after the version and the flags.
const CODEC_AT: usize = 2;
/// The codec of blocks by column.
const BY_COLUMN: u8 = 1;

/// What a frame states of itself, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FrameFlags(pub u8);

impl FrameFlags {
    /// The first frame of a group: a [`GroupHead`] follows the head.
    pub const FIRST: Self = Self(1);
    /// Context-free writes: their author took no version of others into account, so they dominate
    /// nobody else's versions. Rows that were there before `track` are such.
    pub const CONTEXT_FREE: Self = Self(2);
    /// The rows settle conflicts that a person or the application's resolver decided.
    pub const RESOLUTION: Self = Self(4);

    /// A verdict: its ops say, of rows of which the author no longer knew who had written them, which versions stay
    /// (see [`Keep`](super::Keep)) and what the author had.
    pub const VERDICT: Self = Self(8);

    /// Of a per-device stream: the group has all rows of the author's per-device tables, and their definitions. Who
    /// lacks frames before it goes on from here.
    pub const REISSUES: Self = Self(16);

    /// Restated rows: those of a table that its application has made anew. They are the weakest of writes: they lose to
    /// any version that their author had not seen. An op that keeps says that the row is as it was.
    pub const RESTATED: Self = Self(32);

    /// The context names no changes: it names devices of which the author has given up a history, each with the last frame
    /// that it kept. What earlier frames of this stream say to have seen after that was of the other history.
    pub const GAVE_UP: Self = Self(64);

    const KNOWN: u8 = 127;

    /// Returns whether every bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits of both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The head of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FrameHead {
    /// [`FORMAT_VERSION`] to [`FRAME_VERSION`].
    pub version: u8,
    /// See [`FrameFlags`].
    pub flags: FrameFlags,
    /// How the blocks are coded: 0 as they are, 1 by column (see [`Frame::plain`]).
    pub codec: u8,
    /// The place in the author's stream, from 1, without gaps.
    pub seq: u64,
}

/// What the first frame of a group states of the whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GroupHead {
    /// One more than the highest stamp that the author had seen.
    pub lamport: u64,
    /// When the author sealed, by its own clock.
    pub wall: WallMs,
    /// The first sequence number of the same seal in the author's *other* stream; 0 if the seal has
    /// nothing there. A base applies both or none.
    pub pair: u64,
    /// How many context entries follow.
    pub contexts: u32,
}

/// What [`FrameWriter`] writes as a [`GroupHead`] and the context after it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GroupStart<'c> {
    /// See [`GroupHead::lamport`].
    pub lamport: u64,
    /// See [`GroupHead::wall`].
    pub wall: WallMs,
    /// See [`GroupHead::pair`].
    pub pair: u64,
    /// What changed in the author's context since its last group of the same stream. All of it names devices by
    /// their ids, or none; numbers ascend.
    pub context: &'c [(Named, u64)],
}

/// How a context names a device. An author numbers devices anew in each of its streams, from 1, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Named {
    /// The author itself: its shared stream, in a context of its per-device stream.
    Author,
    /// By the number that it got before, in this frame or in an earlier one of the stream.
    Number(u32),
    /// By a number that it gets now, and its id.
    Introduced(u32, DeviceId),
    /// By its id alone, as in frames of version 1.
    Id(DeviceId),
}

impl Named {
    /// The highest number; the lowest is 1.
    pub const NUMBER_MAX: u32 = u32::MAX >> 1;

    /// Writes it after an entry of the number `last`, which becomes this one's.
    fn write(&self, buf: &mut [u8], last: &mut u32) -> Result<usize, NoRoom> {
        let mut step = |number: u32| {
            let step = number.checked_sub(*last).filter(|step| *step > 0 && number <= Self::NUMBER_MAX);
            *last = number;
            step.map(|step| step * 2).ok_or(NoRoom)
        };
        match *self {
            Self::Author => put(buf, &0u32),
            Self::Number(number) => put(buf, &step(number)?),
            Self::Introduced(number, device) => put(buf, &(step(number)? + 1, device)),
            Self::Id(device) => put(buf, &device),
        }
    }

    fn read(rest: &mut &[u8], numbered: bool, last: &mut u32) -> Result<Self, DecodeError> {
        if !numbered {
            return Ok(Self::Id(take(rest)?));
        }
        let step = take::<u32>(rest)?;
        if step < 2 {
            let own = "a context that numbers its own author";
            return if step == 0 { Ok(Self::Author) } else { Err(DecodeError::Malformed(own)) };
        }
        let number = last.checked_add(step / 2).filter(|number| *number <= Self::NUMBER_MAX);
        *last = number.ok_or(DecodeError::Malformed("a context with too high a number"))?;
        Ok(if step % 2 == 1 { Self::Introduced(*last, take(rest)?) } else { Self::Number(*last) })
    }
}

/// Writes frames into a buffer, one after the other.
pub struct FrameWriter<'b> {
    buf: &'b mut [u8],
    /// So many bytes a frame has at most, before it is coded.
    most: usize,
    len: usize,
    /// Where the blocks begin.
    blocks: usize,
    rows: Option<DefId>,
    empty: bool,
}

/// Without the frame's bytes, which would not fit into a log.
#[cfg(feature = "defmt")]
impl defmt::Format for FrameWriter<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "FrameWriter {{ len: {=usize}, rows: {} }}", self.len, self.rows);
    }
}

#[allow(clippy::indexing_slicing)] // It writes into its own buffer, within what it keeps free.
impl<'b> FrameWriter<'b> {
    /// Begins a frame in `buf`, of which [`FRAME_MAX`] bytes are used at most.
    ///
    /// # Errors
    /// [`NoRoom`] if the head does not fit.
    pub fn new(
        buf: &'b mut [u8],
        flags: FrameFlags,
        seq: u64,
        group: Option<GroupStart<'_>>,
    ) -> Result<Self, NoRoom> {
        let most = buf.len().min(FRAME_MAX);
        let mut writer = Self { buf, most, len: 0, blocks: 0, rows: None, empty: true };
        writer.begin(flags, seq, group)?;
        Ok(writer)
    }

    /// Begins another frame in the same buffer.
    ///
    /// # Errors
    /// [`NoRoom`] if the head does not fit.
    pub fn begin(
        &mut self,
        flags: FrameFlags,
        seq: u64,
        group: Option<GroupStart<'_>>,
    ) -> Result<(), NoRoom> {
        let usable = self.most.checked_sub(CRC_LEN + 1).ok_or(NoRoom)?;
        // The bit and the group head go together, whatever the caller's flags say.
        let rest = FrameFlags(flags.0 & !FrameFlags::FIRST.0);
        let flags = if group.is_some() { rest.with(FrameFlags::FIRST) } else { rest };
        let context = group.map_or(&[][..], |group| group.context);
        let by_id = |named: &Named| matches!(named, Named::Id(_));
        let version =
            if context.iter().all(|(named, _)| by_id(named)) { FORMAT_VERSION } else { FRAME_VERSION };
        if version == FRAME_VERSION && context.iter().any(|(named, _)| by_id(named)) {
            return Err(NoRoom);
        }
        let mut len = put(&mut self.buf[..usable], &FrameHead { version, flags, codec: 0, seq })?;
        if let Some(GroupStart { lamport, wall, pair, context }) = group {
            let head = GroupHead { lamport, wall, pair, contexts: context.len() as u32 };
            len += put(&mut self.buf[len..usable], &head)?;
            let mut last = 0;
            for (named, seq) in context {
                len += named.write(&mut self.buf[len..usable], &mut last)?;
                len += put(&mut self.buf[len..usable], seq)?;
            }
        }
        (self.len, self.blocks, self.rows, self.empty) = (len, len, None, true);
        Ok(())
    }

    /// Returns whether no block has been written yet.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// Sets how many bytes a frame has at most before it is coded, this one and those after it. What this one has stays.
    pub fn bound(&mut self, bytes: usize) {
        self.most = self.buf.len().min(FRAME_MAX).min(bytes);
    }

    /// Returns how many bytes the frame has so far, before it is coded and without its CRC.
    pub fn plain_len(&self) -> usize {
        self.len
    }

    /// Returns how many bytes are still free for blocks, their own heads included.
    pub fn room(&self) -> usize {
        self.usable().saturating_sub(self.len)
    }

    /// Returns the room for blocks: that for the CRC and for the end of an open block of rows is never given away.
    fn usable(&self) -> usize {
        self.most.saturating_sub(CRC_LEN + 1)
    }

    fn close_rows(&mut self) {
        if self.rows.take().is_some() {
            self.buf[self.len] = 0;
            self.len += 1;
        }
    }

    /// Adds a table definition, as a [`super::DefWriter`] made it.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn def(&mut self, def: &[u8]) -> Result<(), NoRoom> {
        self.block(def.len() + 10, |buf| put(buf, &(BLOCK_DEF, Bytes(def))))
    }

    /// Writes that a device will not come back, so that the log need not wait for it.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn retire(&mut self, device: DeviceId) -> Result<(), NoRoom> {
        self.block(18, |buf| put(buf, &(BLOCK_RETIRE, device)))
    }

    /// Writes that a retired device is back.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn came_back(&mut self, device: DeviceId) -> Result<(), NoRoom> {
        self.block(18, |buf| put(buf, &(BLOCK_RETURN, device)))
    }

    /// Adds as much of `bytes` as fits, as a piece of the large value `number`; returns how much.
    ///
    /// # Errors
    /// [`NoRoom`] if not even one byte fits.
    pub fn piece(&mut self, number: u32, bytes: &[u8]) -> Result<usize, NoRoom> {
        // 1 kind, up to 5 number, up to 3 length, 1 end of an open block of rows.
        let fits = self.room().saturating_sub(10).min(bytes.len());
        if fits == 0 {
            return Err(NoRoom);
        }
        self.block(fits + 10, |buf| put(buf, &(BLOCK_PIECE, number, Bytes(&bytes[..fits]))))?;
        Ok(fits)
    }

    /// Adds a block, which takes at most `most` bytes with the end of an open block of rows, as `put` encodes it.
    fn block(
        &mut self,
        most: usize,
        put: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), NoRoom> {
        if self.room() < most {
            return Err(NoRoom);
        }
        self.close_rows();
        let usable = self.usable();
        self.len += put(&mut self.buf[self.len..usable])?;
        self.empty = false;
        Ok(())
    }

    /// Adds an op on a row of the table definition `def`; returns its offset in the frame.
    ///
    /// `values` are those that the op's kind and mask call for: see [`super::Op`].
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was written.
    pub fn op<'v>(
        &mut self,
        def: DefId,
        head: &OpHead<'_>,
        values: impl Iterator<Item = Value<'v>>,
    ) -> Result<u32, NoRoom> {
        let usable = self.usable();
        let mut at = self.len;
        let same = self.rows == Some(def);
        if !same {
            // Whether this one fits decides; the old block's end has its byte in any case.
            at += usize::from(self.rows.is_some());
            let head_len = 1 + def.0.len();
            let room = self.buf.get_mut(at..usable).ok_or(NoRoom)?;
            if room.len() < head_len {
                return Err(NoRoom);
            }
            room[0] = BLOCK_ROWS;
            room[1..head_len].copy_from_slice(&def.0);
            at += head_len;
        }
        let written = write_op(self.buf.get_mut(at..usable).ok_or(NoRoom)?, head, values)?;
        if !same {
            if self.rows.is_some() {
                self.buf[self.len] = 0;
            }
            self.rows = Some(def);
        }
        self.len = at + written;
        self.empty = false;
        Ok(at as u32)
    }

    /// Closes the frame with its CRC and returns it; the next use is [`FrameWriter::begin`].
    pub fn finish(&mut self) -> &[u8] {
        self.close_rows();
        let end = end_frame(self.buf, self.len);
        &self.buf[..end]
    }

    /// Closes the frame, with its blocks by column where that is shorter, and returns it; the next use is
    /// [`FrameWriter::begin`]. `out` is for what is coded: as long as the frame, it is long enough. `shape` writes, for a
    /// definition of which the frame has rows, which of its columns are keys, and returns how many columns it has.
    pub fn finish_by_column<'f, L: AsMut<Learned>, B: AsMut<[Bucket]>>(
        &'f mut self,
        columns: &mut Columns<L, B>,
        out: &'f mut [u8],
        mut shape: impl FnMut(DefId, &mut [bool]) -> Option<usize>,
    ) -> &'f [u8] {
        self.close_rows();
        let room = out.len().min(self.len).saturating_sub(CRC_LEN);
        if self.blocks < room {
            let (head, coded) = out[..room].split_at_mut(self.blocks);
            head.copy_from_slice(&self.buf[..self.blocks]);
            head[CODEC_AT] = BY_COLUMN;
            if let Ok(len) = columns.encode(&mut self.buf[self.blocks..self.len], coded, &mut shape) {
                let end = end_frame(out, self.blocks + len);
                return &out[..end];
            }
        }
        self.finish()
    }
}

/// Writes the CRC of what stands before `len`; returns where it ends.
#[allow(clippy::indexing_slicing)] // There is room for it: of every frame so many bytes are kept free.
fn end_frame(buf: &mut [u8], len: usize) -> usize {
    let crc = crc32(&buf[..len]).to_le_bytes();
    buf[len..len + CRC_LEN].copy_from_slice(&crc);
    len + CRC_LEN
}

/// A frame whose CRC and head have been checked.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Frame<'a> {
    /// The head.
    pub head: FrameHead,
    /// Present in the first frame of a group.
    pub group: Option<GroupHead>,
    bytes: &'a [u8],
    contexts: &'a [u8],
    blocks: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks the CRC and reads the head.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a whole, undamaged frame of [`FORMAT_VERSION`] to [`FRAME_VERSION`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > FRAME_MAX {
            return Err(DecodeError::Malformed("a frame of more than 65,536 bytes"));
        }
        let (body, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or(DecodeError::Short)?;
        if crc32(body) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Crc);
        }
        let mut rest = body;
        check_version(rest, FRAME_VERSION)?;
        let head: FrameHead = take(&mut rest)?;
        if head.seq == 0 || head.seq > COUNT_MAX {
            return Err(DecodeError::Malformed("a frame of impossible number"));
        }
        let mut group = None;
        let mut contexts: &[u8] = &[];
        if head.flags.has(FrameFlags::FIRST) {
            let of_group: GroupHead = take(&mut rest)?;
            if of_group.lamport > LAMPORT_MAX || of_group.pair > COUNT_MAX {
                return Err(DecodeError::Malformed("a count out of its range"));
            }
            let (start, mut last) = (rest, 0);
            for _ in 0..of_group.contexts {
                Named::read(&mut rest, is_numbered(&head), &mut last)?;
                take_count(&mut rest)?;
            }
            contexts = read_part(start, rest);
            group = Some(of_group);
        }
        Ok(Self { head, group, bytes, contexts, blocks: rest })
    }

    /// Returns whether it has a flag or a codec of a newer Packmule: it can be kept, verified and passed on, and its place
    /// and context are known, but its blocks cannot be read.
    pub fn is_newer(&self) -> bool {
        self.head.flags.0 & !FrameFlags::KNOWN != 0 || self.head.codec > BY_COLUMN
    }

    /// Returns whether its blocks are by column: they must be made [`plain`](Frame::plain) to be read.
    pub fn is_by_column(&self) -> bool {
        self.head.codec == BY_COLUMN
    }

    /// Writes it with its blocks as they are into `out`, for which [`FRAME_MAX`] bytes are enough; returns the length.
    /// Every offset of an op is one in this form. What was signed is the form that came.
    ///
    /// # Errors
    /// [`DecodeError`] if the blocks are not coded as they should be, or `out` is too short.
    pub fn plain<L: AsMut<Learned>, B: AsMut<[Bucket]>>(
        &self,
        columns: &mut Columns<L, B>,
        out: &mut [u8],
    ) -> Result<usize, DecodeError> {
        let start = self.bytes.len() - CRC_LEN - self.blocks.len();
        let room = out.len().min(FRAME_MAX).checked_sub(CRC_LEN).filter(|room| start <= *room);
        let out_of = room.and_then(|room| out.get_mut(..room)?.split_at_mut_checked(start));
        let (head, blocks) = out_of.ok_or(DecodeError::Short)?;
        head.copy_from_slice(self.bytes.get(..start).ok_or(DecodeError::Short)?);
        *head.get_mut(CODEC_AT).ok_or(DecodeError::Short)? = 0;
        let len = columns.decode(self.blocks, blocks)?;
        Ok(end_frame(out, start + len))
    }

    /// Returns what changed in the author's context since its last group of the same stream.
    pub fn context(&self) -> Context<'a> {
        Context { rest: self.contexts, numbered: is_numbered(&self.head), last: 0 }
    }

    /// Writes the same blocks under another head, which is no longer: another place in another stream.
    /// Returns the length, and by how many bytes every offset in it is less.
    ///
    /// # Errors
    /// [`NoRoom`] if `buf` is too short, or the head longer.
    pub fn moved(
        &self,
        buf: &mut [u8],
        seq: u64,
        group: Option<GroupStart<'_>>,
    ) -> Result<(usize, u32), NoRoom> {
        let mut writer = FrameWriter::new(buf, self.head.flags, seq, group)?;
        *writer.buf.get_mut(CODEC_AT).ok_or(NoRoom)? = self.head.codec;
        let old = self.bytes.len() - CRC_LEN - self.blocks.len();
        let less = old.checked_sub(writer.len).ok_or(NoRoom)? as u32;
        let end = writer.len + self.blocks.len();
        writer.buf.get_mut(writer.len..end).ok_or(NoRoom)?.copy_from_slice(self.blocks);
        writer.len = end;
        Ok((writer.finish().len(), less))
    }

    /// Returns the blocks, in order.
    pub fn blocks(&self) -> Blocks<'a> {
        Blocks::new(self.blocks, self.bytes.len() - CRC_LEN)
    }

    /// Returns the bytes from an offset that [`FrameWriter::op`] or [`super::Op`] gave, up to the CRC.
    pub fn at(&self, offset: u32) -> Option<&'a [u8]> {
        self.bytes.get(offset as usize..self.bytes.len() - CRC_LEN)
    }
}

/// Iterates over the context entries of a group.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Context<'a> {
    rest: &'a [u8],
    numbered: bool,
    last: u32,
}

/// Returns whether a frame's context names devices by numbers.
fn is_numbered(head: &FrameHead) -> bool {
    head.version >= FRAME_VERSION
}

impl Iterator for Context<'_> {
    type Item = (Named, u64);

    fn next(&mut self) -> Option<Self::Item> {
        // `Frame::parse` has decoded all of it once.
        let named = Named::read(&mut self.rest, self.numbered, &mut self.last).ok()?;
        Some((named, take(&mut self.rest).ok()?))
    }
}
