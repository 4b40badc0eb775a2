//! The blocks of a frame, read. See `FORMAT.md`, "Blocks".

use serde::{Deserialize, Serialize};

use super::schema::{BLOCK_SCHEMA, Schema};
use super::{
    Bytes, COUNT_MAX, DecodeError, DefId, NoRoom, put, put_next, read_part, take, take_bytes, take_count,
};
use crate::model::DeviceId;

pub(super) const BLOCK_DEF: u8 = 1;
pub(super) const BLOCK_ROWS: u8 = 2;
pub(super) const BLOCK_PIECE: u8 = 3;
pub(super) const BLOCK_RETIRE: u8 = 5;
pub(super) const BLOCK_RETURN: u8 = 7;
pub(super) const BLOCK_KEEP: u8 = 6;
pub(super) const BLOCK_SPAN: u8 = 8;
pub(super) const BLOCK_DECISION: u8 = 15;

/// A large value's part in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Piece<'a> {
    /// The number of the value in its group.
    pub number: u32,
    /// The next bytes of the value.
    pub bytes: &'a [u8],
}

/// Frames of one device, from the first to the last: whatever a row has of them stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct KeptRun {
    /// Whose shared stream.
    pub device: DeviceId,
    /// The first frame.
    pub first: u64,
    /// The last frame.
    pub last: u64,
}

/// Iterates over the runs of frames whose versions stay.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Keep<'a> {
    rest: &'a [u8],
}

impl Iterator for Keep<'_> {
    type Item = KeptRun;

    fn next(&mut self) -> Option<Self::Item> {
        // `Blocks::next_block` has decoded all of it once.
        take(&mut self.rest).ok()
    }
}

/// Rows of a table that a group restates: it has all of them. Those of which it has no op, and that its author had seen,
/// are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Span<'a> {
    /// The definition that says what the key is.
    pub def: DefId,
    /// The key of the first row, in canonical form; empty: from the first row that there is.
    pub from: &'a [u8],
    /// The key of the last row; empty: to the last row that there is.
    pub to: &'a [u8],
}

/// A row as it was before a resolution, with the conflict that was resolved: so it can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Decision<'a> {
    /// The conflict's id.
    pub conflict: [u8; 5],
    /// The definition that says what the key is.
    pub def: DefId,
    /// The row's key, in canonical form.
    pub key: &'a [u8],
    /// The stamp of the write that gave the row its UNIQUE values; 0 is older than the author remembers.
    pub claim: u64,
    /// What it was.
    pub was: Was<'a>,
}

impl Decision<'_> {
    /// Returns how many bytes it takes at most.
    pub(super) fn len_most(&self) -> usize {
        let values = if let Was::Values(values) = self.was { values.len() } else { 0 };
        // The kind, the conflict, the definition and the state; two lengths and the claim.
        self.key.len() + values + 15 + 2 * 5 + 10
    }

    /// Writes it into `buf`. Returns its length.
    pub(super) fn put(&self, buf: &mut [u8]) -> Result<usize, NoRoom> {
        let mut len = put(buf, &(BLOCK_DECISION, self.conflict, self.def.0, Bytes(self.key), self.claim))?;
        match self.was {
            Was::Gone => put_next(buf, &mut len, &0_u8),
            Was::Values(values) => put_next(buf, &mut len, &(1_u8, Bytes(values))),
            Was::Untold => put_next(buf, &mut len, &2_u8),
        }?;
        Ok(len)
    }
}

/// What a row was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Was<'a> {
    /// It was not there.
    Gone,
    /// These values: the names of columns and values in turn.
    Values(&'a [u8]),
    /// What is too large to be told.
    Untold,
}

/// One block of a frame.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Block<'a> {
    /// A table definition: see [`super::DefReader`].
    Def(&'a [u8]),
    /// Ops on the rows of one table.
    Rows {
        /// The definition that says which columns there are.
        def: DefId,
        /// The ops: see [`super::Ops`].
        body: &'a [u8],
        /// Where the ops begin in the frame.
        offset: u32,
    },
    /// A part of a large value.
    Piece(Piece<'a>),
    /// A device that will not come back.
    Retire(DeviceId),
    /// A device that was retired, and is back.
    Return(DeviceId),
    /// Which versions stay of the rows that follow in this frame.
    Keep(Keep<'a>),
    /// Which rows of a table the group has all of, if it restates them.
    Span(Span<'a>),
    /// A row as it was before a resolution.
    Decision(Decision<'a>),
    /// What the author says of its table.
    Schema(Schema<'a>),
}

/// Walks the blocks of a frame; a block of rows must be walked to its end before the next.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Blocks<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Blocks<'a> {
    /// Walks the blocks in `rest`, which end at `end` in the frame.
    pub(super) fn new(rest: &'a [u8], end: usize) -> Self {
        Self { rest, end }
    }

    /// Returns the next block.
    ///
    /// # Errors
    /// [`DecodeError`] if the block is cut short or of an unknown kind.
    pub fn next_block(&mut self) -> Result<Option<Block<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        match take::<u8>(&mut self.rest)? {
            BLOCK_DEF => Ok(Some(Block::Def(take(&mut self.rest)?))),
            BLOCK_PIECE => {
                let number = take(&mut self.rest)?;
                Ok(Some(Block::Piece(Piece { number, bytes: take(&mut self.rest)? })))
            }
            BLOCK_RETIRE => Ok(Some(Block::Retire(take(&mut self.rest)?))),
            BLOCK_RETURN => Ok(Some(Block::Return(take(&mut self.rest)?))),
            BLOCK_KEEP => {
                let runs: u16 = take(&mut self.rest)?;
                let start = self.rest;
                for _ in 0..runs {
                    let run: KeptRun = take(&mut self.rest)?;
                    if run.first == 0 || run.last < run.first || run.last > COUNT_MAX {
                        return Err(DecodeError::Malformed("a run of impossible frames"));
                    }
                }
                Ok(Some(Block::Keep(Keep { rest: read_part(start, self.rest) })))
            }
            BLOCK_SPAN => {
                let mut id = [0; 8];
                id.copy_from_slice(take_bytes(&mut self.rest, 8)?);
                let def = DefId(id);
                Ok(Some(Block::Span(Span { def, from: take(&mut self.rest)?, to: take(&mut self.rest)? })))
            }
            BLOCK_DECISION => {
                let (mut conflict, mut id) = ([0; 5], [0; 8]);
                conflict.copy_from_slice(take_bytes(&mut self.rest, 5)?);
                id.copy_from_slice(take_bytes(&mut self.rest, 8)?);
                let (key, claim) = (take(&mut self.rest)?, take_count(&mut self.rest)?);
                let was = match take::<u8>(&mut self.rest)? {
                    0 => Was::Gone,
                    1 => Was::Values(take(&mut self.rest)?),
                    2 => Was::Untold,
                    _ => return Err(DecodeError::Malformed("a row that was in no known way")),
                };
                Ok(Some(Block::Decision(Decision { conflict, def: DefId(id), key, claim, was })))
            }
            BLOCK_SCHEMA => Ok(Some(Block::Schema(Schema::take(&mut self.rest)?))),
            BLOCK_ROWS => {
                let def = take_bytes(&mut self.rest, 8)?;
                let mut id = [0; 8];
                id.copy_from_slice(def);
                let offset = (self.end - self.rest.len()) as u32;
                Ok(Some(Block::Rows { def: DefId(id), body: self.rest, offset }))
            }
            _ => Err(DecodeError::Malformed("a block of an unknown kind")),
        }
    }

    /// Goes on after a block of rows, of which `rest` is what [`super::Ops::rest`] left.
    pub fn resume(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }
}
