//! A frame's blocks, coded by column: see `FORMAT.md`, "By column".
//!
//! One walk over the plain blocks serves both ends: what is coded is read from the buffer where it is known, and written
//! into it where it is not.

mod coder;
mod filter;
mod habit;
mod hexed;
mod level;
mod list;
mod model;
mod noise;
mod number;
mod prose;
mod real;
mod run;
mod short;
mod size;
mod table;
mod text;
mod value;
mod way;

use super::blocks::{
    BLOCK_DECISION, BLOCK_DEF, BLOCK_KEEP, BLOCK_PIECE, BLOCK_RETIRE, BLOCK_RETURN, BLOCK_ROWS, BLOCK_SPAN,
};
use super::rows::{HAS_CLAIM, HAS_COLUMNS, HAS_IMAGE, HAS_WALL, KEEPS, KIND_MASK};
use super::schema::BLOCK_SCHEMA;
use super::values::put_varint;
use super::{DecodeError, DefId, NoRoom};
use coder::{Coder, Decoder, Encoder};
use model::{INPUTS, Steady, hash};
use prose::Buckets;
pub use prose::{BUCKETS, Bucket};
use value::Values;

/// So many columns can a table have.
const COLUMNS_MAX: usize = 2_000;

/// So many columns can the tables of a frame have, each counted once for every block of rows that tells them anew. A wide
/// table without rows costs its reader hundreds of times what it costs on the wire.
const SHAPES_MAX: usize = 16_384;

/// What a coder of frames has in memory: it begins anew with each frame. Its two parts may lie elsewhere, so that they need not
/// pass over a small stack together.
pub struct Columns<L = Learned, B = [Bucket; BUCKETS]> {
    learned: L,
    buckets: B,
}

/// What is learned of the values in a frame: about 230 KiB.
pub struct Learned(Values);

impl Learned {
    /// Makes one.
    pub const fn new() -> Self {
        Self(Values::new())
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self::new()
    }
}

impl AsMut<Self> for Learned {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

/// One end of the coding of a frame's blocks.
struct Walk<'c> {
    values: &'c mut Values,
    buckets: &'c mut Buckets,
}

/// Without its tables.
#[cfg(feature = "defmt")]
impl<L, B> defmt::Format for Columns<L, B> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Columns");
    }
}

impl<L, B> core::fmt::Debug for Columns<L, B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Columns").finish_non_exhaustive()
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self::new()
    }
}

const BLOCKS: u32 = 1_000;
const OPS: u32 = 1_100;
const MASKS: u32 = 1_200;
const WALLS: u32 = 1_300;
const CLAIMS: u32 = 1_400;
const OTHER: u32 = 1_500;
const SHAPES: u32 = 1_600;
/// The op that is the commonest.
const INSERTS: u32 = 1;

impl Columns {
    /// Makes one.
    pub const fn new() -> Self {
        Self { learned: Learned::new(), buckets: [Bucket::EMPTY; BUCKETS] }
    }
}

impl<L: AsMut<Learned>, B: AsMut<[Bucket]>> Columns<L, B> {
    /// Makes one of its parts: [`BUCKETS`] buckets there must be. With another number of them nothing can be coded.
    pub const fn of(learned: L, buckets: B) -> Self {
        Self { learned, buckets }
    }

    /// Codes the plain blocks in `blocks` into `out`; returns the length. `shape` says of a definition how many columns
    /// there are, and which are keys. `blocks` stay as they are.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is too short, or `blocks` are not what [`super::FrameWriter`] writes.
    pub(super) fn encode(
        &mut self,
        blocks: &mut [u8],
        out: &mut [u8],
        // No generic: it is compiled here, where it is made for speed.
        shape: &mut dyn FnMut(DefId, &mut [bool]) -> Option<usize>,
    ) -> Result<usize, NoRoom> {
        encode(self.begin().ok_or(NoRoom)?, blocks, out, shape)
    }

    /// Decodes what [`Columns::encode`] wrote into `blocks`; returns the length.
    ///
    /// # Errors
    /// [`DecodeError`] if it is nothing of the kind, or longer than `blocks`.
    pub(super) fn decode(&mut self, coded: &[u8], blocks: &mut [u8]) -> Result<usize, DecodeError> {
        decode(self.begin().ok_or(DecodeError::Short)?, coded, blocks)
    }

    fn begin(&mut self) -> Option<Walk<'_>> {
        let buckets = self.buckets.as_mut().try_into().ok()?;
        Some(Walk { values: &mut self.learned.as_mut().0, buckets })
    }
}

fn encode(
    mut walk: Walk<'_>,
    blocks: &mut [u8],
    out: &mut [u8],
    shape: &mut dyn FnMut(DefId, &mut [bool]) -> Option<usize>,
) -> Result<usize, NoRoom> {
    walk.values.reset();
    let mut coder = Encoder::new(out);
    walk.walk(&mut coder, blocks, shape)?;
    coder.finish()
}

fn decode(mut walk: Walk<'_>, coded: &[u8], blocks: &mut [u8]) -> Result<usize, DecodeError> {
    walk.values.reset();
    walk.walk(&mut Decoder::new(coded), blocks, &mut |_, _| None)
}

impl Walk<'_> {
    fn walk<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        shape: &mut dyn FnMut(DefId, &mut [bool]) -> Option<usize>,
    ) -> Result<usize, C::Stop> {
        let mut at = 0;
        let mut last = (DefId([0; 8]), 0);
        let mut told = 0;
        let mut keys = [false; COLUMNS_MAX];
        loop {
            let more = self.values.yes(coder, &[BLOCKS; INPUTS], BLOCKS, 300, at < buf.len())?;
            if !more {
                return Ok(at);
            }
            let kind = self.kind(coder, buf, at)?;
            at += 1;
            at = match kind {
                BLOCK_ROWS => {
                    at = self.values.direct(coder, buf, at, 8)?;
                    let id = buf.get(at - 8..).and_then(|id| id.first_chunk()).ok_or_else(C::bad)?;
                    let id = DefId(*id);
                    if last.0 != id || last.1 == 0 {
                        let given = if C::ENCODES { shape(id, &mut keys).ok_or_else(C::bad)? } else { 0 };
                        last = (id, self.shape(coder, &mut keys, given)?);
                        told += last.1;
                        if told > SHAPES_MAX {
                            return Err(C::bad());
                        }
                    }
                    self.rows(coder, buf, at, keys.get(..last.1).ok_or_else(C::bad)?)?
                }
                BLOCK_DEF => self.run(coder, buf, at)?,
                BLOCK_PIECE => {
                    (_, at) = self.values.raw_varint(coder, buf, at, OTHER)?;
                    self.run(coder, buf, at)?
                }
                BLOCK_RETIRE | BLOCK_RETURN => self.values.raw(coder, buf, at, 16, OTHER)?,
                BLOCK_SPAN => {
                    at = self.values.raw(coder, buf, at, 8, OTHER)?;
                    at = self.run(coder, buf, at)?;
                    self.run(coder, buf, at)?
                }
                BLOCK_DECISION => {
                    at = self.values.raw(coder, buf, at, 13, OTHER)?;
                    at = self.run(coder, buf, at)?;
                    (_, at) = self.values.raw_varint(coder, buf, at, OTHER + 2)?;
                    at = self.values.raw(coder, buf, at, 1, OTHER + 3)?;
                    if buf.get(at - 1) == Some(&1) { self.run(coder, buf, at)? } else { at }
                }
                BLOCK_KEEP => {
                    let runs;
                    (runs, at) = self.values.raw_varint(coder, buf, at, OTHER)?;
                    for _ in 0..runs {
                        at = self.values.raw(coder, buf, at, 16, OTHER)?;
                        (_, at) = self.values.raw_varint(coder, buf, at, OTHER + 2)?;
                        (_, at) = self.values.raw_varint(coder, buf, at, OTHER + 3)?;
                    }
                    at
                }
                BLOCK_SCHEMA => self.schema(coder, buf, at)?,
                _ => return Err(C::bad()),
            };
        }
    }

    /// Codes the kind of a block.
    fn kind<C: Coder>(&mut self, coder: &mut C, buf: &mut [u8], at: usize) -> Result<u8, C::Stop> {
        let given = buf.get_mut(at).ok_or_else(C::bad)?;
        if self.values.yes(coder, &[BLOCKS; INPUTS], BLOCKS, 304, *given == BLOCK_ROWS)? {
            *given = BLOCK_ROWS;
            return Ok(BLOCK_ROWS);
        }
        self.values.byte(coder, buf, at, &[BLOCKS; INPUTS], BLOCKS)
    }

    /// Codes what a device says of its table.
    fn schema<C: Coder>(&mut self, coder: &mut C, buf: &mut [u8], at: usize) -> Result<usize, C::Stop> {
        let at = self.run(coder, buf, at)?;
        let at = self.values.raw(coder, buf, at, 1, OTHER)?;
        let (names, mut at) = self.values.raw_varint(coder, buf, at, OTHER + 5)?;
        for _ in 0..names {
            at = self.run(coder, buf, at)?;
            at = self.run(coder, buf, at)?;
        }
        Ok(at)
    }

    /// Codes a run of bytes, with its length before it.
    fn run<C: Coder>(&mut self, coder: &mut C, buf: &mut [u8], at: usize) -> Result<usize, C::Stop> {
        let (len, start) = self.values.raw_varint(coder, buf, at, OTHER + 1)?;
        let len = usize::try_from(len).map_err(|_| C::bad())?;
        self.values.raw(coder, buf, start, len, OTHER + 4)
    }

    /// Codes how many columns there are, and which are keys.
    fn shape<C: Coder>(&mut self, coder: &mut C, keys: &mut [bool], given: usize) -> Result<usize, C::Stop> {
        let mut count = [0; 10];
        put_varint(&mut count, 0, given as u64).ok_or_else(C::bad)?;
        let (count, _) = self.values.raw_varint(coder, &mut count, 0, SHAPES)?;
        let count = usize::try_from(count).map_err(|_| C::bad())?;
        let keys = keys.get_mut(..count).filter(|keys| !keys.is_empty()).ok_or_else(C::bad)?;
        for key in keys {
            *key = self.values.yes(coder, &[SHAPES; INPUTS], SHAPES, 301, *key)?;
        }
        Ok(count)
    }

    fn rows<C: Coder>(
        &mut self,
        coder: &mut C,
        buf: &mut [u8],
        mut at: usize,
        keys: &[bool],
    ) -> Result<usize, C::Stop> {
        let mut before = INSERTS;
        let mut steady = Steady::NEW;
        let mask_len = keys.len().div_ceil(8);
        let mut mask_at = None;
        loop {
            let contexts = [hash(OPS, before); INPUTS];
            let given = buf.get(at).copied().ok_or_else(C::bad)?;
            let again = u32::from(given) == before;
            let again = match steady.slot() {
                Some(slot) => slot.code(coder, again)?,
                None => self.values.yes(coder, &contexts, OPS, 302, again)?,
            };
            steady.count(again);
            let ends = !again && self.values.yes(coder, &[OPS; INPUTS], OPS, 303, given == 0)?;
            let byte = match (again, ends) {
                (true, _) => before as u8,
                (false, true) => 0,
                (false, false) => self.values.byte(coder, buf, at, &contexts, OPS)?,
            };
            *buf.get_mut(at).ok_or_else(C::bad)? = byte;
            before = u32::from(byte);
            at += 1;
            if byte == 0 {
                return Ok(at);
            }
            if byte & HAS_CLAIM != 0 {
                (_, at) = self.values.raw_varint(coder, buf, at, CLAIMS)?;
            }
            let mut mask = None;
            if byte & HAS_COLUMNS != 0 {
                for i in 0..mask_len {
                    let old = mask_at.and_then(|from: usize| buf.get(from + i));
                    let old = old.map_or(0, |byte| u32::from(*byte) + 1);
                    let contexts = [hash(hash(MASKS, i as u32), old); INPUTS];
                    self.values.byte(coder, buf, at + i, &contexts, MASKS)?;
                }
                mask = Some(at);
                mask_at = mask;
                at += mask_len;
            }
            if byte & HAS_WALL != 0 {
                at = self.values.signed(coder, buf, at, WALLS)?;
            }
            let keys_only = byte == KEEPS || (byte & KIND_MASK == 3 && byte & HAS_IMAGE == 0);
            let mut beside = 0;
            for (index, key) in keys.iter().enumerate() {
                let masked = mask.is_none_or(|from| {
                    buf.get(from + index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
                });
                if *key || (!keys_only && masked) {
                    at = self.values.value(coder, buf, at, index, &mut beside, self.buckets)?;
                }
            }
        }
    }
}
