//! The one walk through a frame of the log.
//!
//! A block of rows does not say how long it is: to find the next block, every op of this one must be decoded, which
//! takes the definition that the block names. So every walk meets every op, also one that looks for something else.
//! A definition is looked up only when a block names it: it may be in the same frame, before that block, and the
//! visitor stores it when the walk meets it.

use std::sync::Arc;

use packmule_core::model::DeviceId;
use packmule_core::wire::{Block, Decision, DefId, Frame, Keep, Op, Ops, Piece, Schema, Span};

use crate::engine::error::{self, BundleProblem, Error, Result};
use crate::engine::table::catalog;
use crate::engine::table::known::OpDef;
use crate::engine::table::replica::Replica;

/// A part of a frame. They come in the order that they have there.
pub(crate) enum Part<'d, 'f> {
    /// A table definition, encoded.
    Definition(&'f [u8]),
    /// A device that will not come back.
    Retire(DeviceId),
    /// A device that was retired, and is back.
    Return(DeviceId),
    /// Which versions stay of the rows that follow in this frame of a verdict.
    Keep(Keep<'f>),
    /// Which rows of a table a restating group has all of.
    Span(Span<'f>),
    /// A row as it was before a resolution.
    Decision(Decision<'f>),
    /// What the author says of a table of its own.
    Schema(Schema<'f>),
    /// A part of a large value.
    Piece(Piece<'f>),
    /// An op, and the definition in which it is encoded.
    Op(&'d Arc<OpDef>, Op<'f>),
}

/// How a walk ended.
enum End {
    /// The frame was at its end.
    Whole,
    /// The definition of a block of rows is not here, so that nobody knows where the next block begins.
    Undefined(Box<Error>),
    /// What follows cannot be read: a block is none that is known, or the frame is a newer Packmule's.
    Unreadable(Box<Error>),
}

/// Gives each part of a frame to `each`.
pub(crate) fn visit(
    replica: &Replica,
    frame: &Frame<'_>,
    each: impl FnMut(Part<'_, '_>) -> Result<()>,
) -> Result<()> {
    match walk(replica, frame, |id| catalog::op_def(replica, id), each)? {
        End::Undefined(why) | End::Unreadable(why) => Err(why),
        End::Whole => Ok(()),
    }
}

/// Gives each part of a frame to `each`, up to the first rows whose definition is not here, or what cannot be read: a
/// pending group may have such, and one that is being applied. Returns whether that was all of it.
pub(crate) fn visit_defined(
    replica: &Replica,
    frame: &Frame<'_>,
    each: impl FnMut(Part<'_, '_>) -> Result<()>,
) -> Result<bool> {
    let end = walk(replica, frame, |id| catalog::op_def(replica, id), each)?;
    Ok(matches!(end, End::Whole))
}

/// Gives each part of a frame that is not applied yet to `each`, up to the first rows whose definition `find` has not.
///
/// # Errors
/// What of it cannot be read, also by a newer Packmule's doing; whatever `each` returns.
pub(crate) fn visit_waiting(
    replica: &Replica,
    frame: &Frame<'_>,
    find: impl Fn(DefId) -> Result<Arc<OpDef>>,
    each: impl FnMut(Part<'_, '_>) -> Result<()>,
) -> Result<()> {
    match walk(replica, frame, find, each)? {
        End::Unreadable(why) => Err(why),
        End::Undefined(_) | End::Whole => Ok(()),
    }
}

/// Walks through a frame.
fn walk(
    replica: &Replica,
    frame: &Frame<'_>,
    find: impl Fn(DefId) -> Result<Arc<OpDef>>,
    each: impl FnMut(Part<'_, '_>) -> Result<()>,
) -> Result<End> {
    if frame.is_newer() {
        return Ok(End::Unreadable(Error::bundle(
            0,
            BundleProblem::Structure("a frame of a newer Packmule"),
        )));
    }
    let walked = replica.codings.plain(frame, |plain| walk_plain(plain, find, each));
    walked.unwrap_or_else(|undecodable| Ok(End::Unreadable(error::bad(undecodable))))
}

/// Walks through a frame in its plain form.
fn walk_plain(
    frame: &Frame<'_>,
    find: impl Fn(DefId) -> Result<Arc<OpDef>>,
    mut each: impl FnMut(Part<'_, '_>) -> Result<()>,
) -> Result<End> {
    let mut blocks = frame.blocks();
    loop {
        let block = match blocks.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(End::Whole),
            Err(unknown) => return Ok(End::Unreadable(error::bad(unknown))),
        };
        match block {
            Block::Def(body) => each(Part::Definition(body))?,
            Block::Retire(device) => each(Part::Retire(device))?,
            Block::Return(device) => each(Part::Return(device))?,
            Block::Keep(keep) => each(Part::Keep(keep))?,
            Block::Span(span) => each(Part::Span(span))?,
            Block::Decision(decision) => each(Part::Decision(decision))?,
            Block::Schema(schema) => each(Part::Schema(schema))?,
            Block::Piece(piece) => each(Part::Piece(piece))?,
            Block::Rows { def: id, body, offset } => {
                let def = match find(id) {
                    Ok(def) => def,
                    // It may be there: it could not be read.
                    Err(failed) if failed.is_machines() => return Err(failed),
                    Err(missing) => return Ok(End::Undefined(missing)),
                };
                let mut ops = Ops::new(body, offset, def.shape());
                loop {
                    match ops.next_op() {
                        Ok(Some(op)) => each(Part::Op(&def, op))?,
                        Ok(None) => break,
                        Err(unknown) => return Ok(End::Unreadable(error::bad(unknown))),
                    }
                }
                blocks.resume(ops.rest());
            }
        }
    }
}
