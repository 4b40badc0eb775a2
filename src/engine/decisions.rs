//! The part of the engine's face that is about what people decide.

use super::Engine;
use crate::engine::conflicts::list::Conflict;
use crate::engine::conflicts::many::{self, Decided, DecisionReport};
use crate::engine::conflicts::resolve::Resolution;
use crate::engine::conflicts::selection::Selection;
use crate::engine::conflicts::undo::{self, UndoReport};
use crate::engine::conflicts::walk;
use crate::engine::error::Result;
use crate::engine::exchange::transaction;
use crate::engine::table::catalog;

impl Engine {
    /// Gives every open conflict that is meant to `each`, as [`Engine::each_conflict`] does.
    ///
    /// # Errors
    /// As [`Engine::each_conflict`].
    pub fn each_conflict_of(
        &self,
        selection: &Selection,
        each: &mut dyn FnMut(Conflict) -> Result<()>,
    ) -> Result<()> {
        catalog::reading(&self.replica, |e| walk::each_conflict(e, selection, each))
    }

    /// Counts the open conflicts.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn open_conflicts(&self) -> Result<u64> {
        catalog::reading(&self.replica, walk::open_conflicts)
    }

    /// Closes all open conflicts that are meant, in one transaction, and gives each to `each` with what it does to rows.
    /// Of those that are meant by their ids all can be closed in this way, or none is; of the others, those that cannot
    /// stay open.
    ///
    /// # Errors
    /// As [`Engine::resolve`], and whatever `each` returns; nothing is changed then.
    pub fn resolve_all(
        &mut self,
        selection: &Selection,
        resolution: &Resolution,
        each: &mut dyn FnMut(Decided) -> Result<()>,
    ) -> Result<DecisionReport> {
        let work = |replica: &_| many::resolve_all(replica, selection, resolution, each);
        transaction::after_seal(&mut self.replica, work)
    }

    /// Tells what [`Engine::resolve_all`] would do, and changes nothing.
    ///
    /// # Errors
    /// As [`Engine::resolve_all`].
    pub fn rehearse(
        &mut self,
        selection: &Selection,
        resolution: &Resolution,
        each: &mut dyn FnMut(Decided) -> Result<()>,
    ) -> Result<DecisionReport> {
        let work = |replica: &_| many::resolve_all(replica, selection, resolution, each);
        transaction::rehearse(&mut self.replica, work)
    }

    /// Undoes the last resolution of the conflict with this id, of which a beginning of four letters will do: the rows that
    /// it wrote become what they were, here and, once this travels, everywhere. Undone again, the decision is back.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if it is not in the log, or if a row was written to since, or is too large to
    /// have been kept; [`Error::KeyMissing`](crate::Error::KeyMissing).
    pub fn undo_resolution(&mut self, id: &str) -> Result<UndoReport> {
        transaction::after_seal(&mut self.replica, |replica| undo::undo(replica, id))
    }
}
