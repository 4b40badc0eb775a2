//! The part of the engine's face that is about what people decide.

use std::path::Path;

use packmule_core::model::{DeviceId, WallMs};

use super::Engine;
use crate::engine::conflicts::change::RowChange;
use crate::engine::conflicts::list::Conflict;
use crate::engine::conflicts::many::{self, Decided, DecisionReport};
use crate::engine::conflicts::resolve::Resolution;
use crate::engine::conflicts::restore::{self, TakenBack};
use crate::engine::conflicts::selection::Selection;
use crate::engine::conflicts::undo::{self, UndoReport};
use crate::engine::conflicts::walk;
use crate::engine::error::Result;
use crate::engine::exchange::transaction;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::catalog;
use crate::engine::upkeep::at::{self, AtReport};

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

    /// Writes all rows of shared tables that a device has written to since a time (by its own clock, in milliseconds since
    /// 1970) as they were without that, and gives each to `each`, with its table; with `rehearse`, nothing is changed.
    ///
    /// # Errors
    /// [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite), whatever `each` returns.
    pub fn take_back_writes(
        &mut self,
        by: DeviceId,
        since: WallMs,
        rehearse: bool,
        each: &mut dyn FnMut(&str, RowChange) -> Result<()>,
    ) -> Result<TakenBack> {
        let work = |replica: &_| restore::take_back(replica, (by, since), each);
        if rehearse {
            transaction::rehearse(&mut self.replica, work)
        } else {
            transaction::after_seal(&mut self.replica, work)
        }
    }

    /// Writes a row of a shared table anew as a frame of a device has it. Returns what that changes, if anything.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable); [`Error::Usage`](crate::Error::Usage) if the frame is not in
    /// the log, or says nothing of the row; [`Error::KeyMissing`](crate::Error::KeyMissing).
    pub fn restore(
        &mut self,
        table: &str,
        key: &[OwnedValue],
        author: DeviceId,
        frame: u64,
    ) -> Result<Option<RowChange>> {
        let work = |replica: &_| restore::restore(replica, (table, key), (author, frame));
        transaction::after_seal(&mut self.replica, work)
    }

    /// Writes the tables as they were at a time, in milliseconds since 1970, into a new database that is no device.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if the file is there, or something is not sealed;
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn at(&self, when: WallMs, to: &Path) -> Result<AtReport> {
        at::at(&self.replica, when, to)
    }
}
