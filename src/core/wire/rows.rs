//! The row form of ops. See `FORMAT.md`, "Rows".

use super::values::{put_value, skip_value, take_value};
use super::{DecodeError, NoRoom, put, put_next, read_part, take, take_bytes, take_count};
use crate::model::{Value, WallMs};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OpKind {
    /// The author made the row.
    Insert,
    /// The author changed the row.
    Update,
    /// The author deleted the row.
    Delete,
    /// Of a verdict: the versions that the [`Keep`](super::Keep) before it names stay, and the verdict has none of its
    /// own.
    Keep,
}

pub(super) const KIND_MASK: u8 = 3;
pub(super) const HAS_CLAIM: u8 = 4;
pub(super) const HAS_COLUMNS: u8 = 8;
pub(super) const HAS_WALL: u8 = 16;
pub(super) const HAS_IMAGE: u8 = 32;
pub(super) const KEEPS: u8 = 64;

/// An op without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OpHead<'a> {
    /// Insert, update, delete, or keep.
    pub kind: OpKind,
    /// The stamp of the write that gave the row its unique values, where it is not this one:
    /// 0: it is older than the author remembers.
    pub claim: Option<u64>,
    /// A bit for each column of the definition, lowest first: the columns whose values follow.
    /// `None` stands for all. Key columns always follow.
    pub columns: Option<&'a [u8]>,
    /// When the row was written, where it is not the time of the seal.
    pub wall: Option<WallMs>,
    /// A delete that carries the row's last values.
    pub image: bool,
}

impl OpHead<'_> {
    /// Makes an op with nothing special.
    pub const fn plain(kind: OpKind) -> Self {
        Self { kind, claim: None, columns: None, wall: None, image: false }
    }
}

pub(super) fn write_op<'v>(
    buf: &mut [u8],
    head: &OpHead<'_>,
    values: impl Iterator<Item = Value<'v>>,
) -> Result<usize, NoRoom> {
    let mut byte = match head.kind {
        OpKind::Insert => 1,
        OpKind::Update => 2,
        OpKind::Delete => 3,
        OpKind::Keep => KEEPS,
    };
    byte |= if head.claim.is_some() { HAS_CLAIM } else { 0 };
    byte |= if head.columns.is_some() { HAS_COLUMNS } else { 0 };
    byte |= if head.wall.is_some() { HAS_WALL } else { 0 };
    byte |= if head.image { HAS_IMAGE } else { 0 };
    let mut len = put(buf, &byte)?;
    if let Some(claim) = head.claim {
        put_next(buf, &mut len, &claim)?;
    }
    if let Some(columns) = head.columns {
        let end = len + columns.len();
        buf.get_mut(len..end).ok_or(NoRoom)?.copy_from_slice(columns);
        len = end;
    }
    if let Some(wall) = head.wall {
        put_next(buf, &mut len, &wall)?;
    }
    for value in values {
        len += put_value(buf.get_mut(len..).ok_or(NoRoom)?, &value)?;
    }
    Ok(len)
}

/// What a definition states of the rows' shape: which columns are keys.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape<'s> {
    /// One flag a column, in the order of the definition: whether it is part of the primary key.
    pub keys: &'s [bool],
}

impl Shape<'_> {
    /// Returns how many bytes a column mask takes.
    pub fn mask_len(&self) -> usize {
        self.keys.len().div_ceil(8)
    }

    /// Reads a column mask; a bit for a column that the definition does not have is refused.
    fn take_mask<'a>(&self, input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
        let mask = take_bytes(input, self.mask_len())?;
        match (mask.last(), self.keys.len() % 8) {
            (Some(last), used @ 1..) if last >> used != 0 => {
                Err(DecodeError::Malformed("a column mask with a column that the table does not have"))
            }
            _ => Ok(mask),
        }
    }
}

/// Returns whether the op carries a value for the column `at`.
fn carries(head: &OpHead<'_>, shape: &Shape<'_>, at: usize) -> bool {
    if shape.keys.get(at).is_some_and(|in_key| *in_key) {
        return true;
    }
    if head.kind == OpKind::Keep || (head.kind == OpKind::Delete && !head.image) {
        return false;
    }
    head.columns.is_none_or(|mask| mask.get(at / 8).is_some_and(|bits| bits >> (at % 8) & 1 == 1))
}

/// An op of a frame.
///
/// Carries the values of the key columns, and, unless it is a delete without an image or keeps, those of the
/// columns in the mask; all in the order of the definition.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Op<'a> {
    /// The op without its values.
    pub head: OpHead<'a>,
    /// Where the op begins in the frame.
    pub offset: u32,
    body: &'a [u8],
}

impl<'a> Op<'a> {
    /// Reads the op at the front of `input`, for instance what [`super::Frame::at`] gave.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not an op.
    pub fn parse(input: &mut &'a [u8], shape: &Shape<'_>, offset: u32) -> Result<Option<Self>, DecodeError> {
        let byte: u8 = take(input)?;
        let kind = match byte & KIND_MASK {
            0 if byte == 0 => return Ok(None),
            1 => OpKind::Insert,
            2 => OpKind::Update,
            3 => OpKind::Delete,
            0 if byte == KEEPS => OpKind::Keep,
            _ => return Err(DecodeError::Malformed("an op of an unknown kind")),
        };
        if byte & !(KIND_MASK | HAS_CLAIM | HAS_COLUMNS | HAS_WALL | HAS_IMAGE) != 0 && byte != KEEPS {
            return Err(DecodeError::Malformed("an op flag of a newer Packmule"));
        }
        let image = byte & HAS_IMAGE != 0;
        if image && kind != OpKind::Delete {
            return Err(DecodeError::Malformed("a last image on an op that is no delete"));
        }
        let claim = if byte & HAS_CLAIM != 0 { Some(take_count(input)?) } else { None };
        let columns = if byte & HAS_COLUMNS != 0 { Some(shape.take_mask(input)?) } else { None };
        let wall = if byte & HAS_WALL != 0 { Some(take(input)?) } else { None };
        let head = OpHead { kind, claim, columns, wall, image };
        let body = *input;
        for at in 0..shape.keys.len() {
            if carries(&head, shape, at) {
                skip_value(input)?;
            }
        }
        Ok(Some(Self { head, offset, body: read_part(body, input) }))
    }

    /// Returns the values that it carries, with the numbers of their columns.
    pub fn values<'s>(&self, shape: Shape<'s>) -> Values<'a, 's> {
        Values { head: self.head, shape, rest: self.body, at: 0 }
    }
}

/// Iterates over an op's values: `(column, value)`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Values<'a, 's> {
    head: OpHead<'a>,
    shape: Shape<'s>,
    rest: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Values<'a, '_> {
    type Item = (usize, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.shape.keys.len() {
            let at = self.at;
            self.at += 1;
            if carries(&self.head, &self.shape, at) {
                // `Op::parse` has decoded all of it once.
                return take_value(&mut self.rest).ok().map(|value| (at, value));
            }
        }
        None
    }
}

/// Walks the ops of a block of rows.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ops<'a, 's> {
    shape: Shape<'s>,
    rest: &'a [u8],
    start: usize,
    offset: u32,
    ended: bool,
}

impl<'a, 's> Ops<'a, 's> {
    /// Returns the ops of the block with this body, offset and shape.
    pub fn new(body: &'a [u8], offset: u32, shape: Shape<'s>) -> Self {
        Self { shape, rest: body, start: body.len(), offset, ended: false }
    }

    /// Returns the next op; `None` at the end of the block.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not an op.
    pub fn next_op(&mut self) -> Result<Option<Op<'a>>, DecodeError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset + (self.start - self.rest.len()) as u32;
        let op = Op::parse(&mut self.rest, &self.shape, offset)?;
        self.ended = op.is_none();
        Ok(op)
    }

    /// Returns what follows the block, once [`Ops::next_op`] has returned `None`: for `Blocks::resume`.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
