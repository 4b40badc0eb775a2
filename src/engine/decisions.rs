//! The part of the engine's face that is about what people look up and decide.

use std::path::Path;

use packmule_core::model::{DeviceId, WallMs};

use super::Engine;
use crate::engine::Result;
use crate::engine::conflicts::change::RowChange;
use crate::engine::conflicts::history::{self, HistoryItem};
use crate::engine::conflicts::list::Conflict;
use crate::engine::conflicts::many::{self, Decided, DecisionReport};
use crate::engine::conflicts::resolve::Resolution;
use crate::engine::conflicts::restore::{self, TakenBack};
use crate::engine::conflicts::selection::Selection;
use crate::engine::conflicts::told;
use crate::engine::conflicts::undecided::{self, Answer, Undecided};
use crate::engine::conflicts::undo::{self, UndoReport};
use crate::engine::conflicts::walk::{self, Detail};
use crate::engine::conflicts::wishes;
use crate::engine::exchange::transaction;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::carried::CarriedOut;
use crate::engine::table::catalog;
use crate::engine::upkeep::at::{self, AtReport};

/// How many answers of a program are carried out in one transaction.
const ANSWERS_AT_ONCE: usize = 64;

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
        self.each_conflict_in(Detail::Whole, selection, each)
    }

    /// Gives every open conflict that is meant to `each`, as [`Engine::each_conflict_of`] does, but for the ways in which it
    /// can be resolved, which versions cannot be taken, and what refers to it: to count them, or to list them in a line each,
    /// without the time that takes.
    ///
    /// # Errors
    /// As [`Engine::each_conflict`].
    pub fn each_conflict_in_brief(
        &self,
        selection: &Selection,
        each: &mut dyn FnMut(Conflict) -> Result<()>,
    ) -> Result<()> {
        self.each_conflict_in(Detail::Brief, selection, each)
    }

    fn each_conflict_in(
        &self,
        detail: Detail,
        selection: &Selection,
        each: &mut dyn FnMut(Conflict) -> Result<()>,
    ) -> Result<()> {
        Ok(catalog::reading(&self.replica, |e| {
            walk::each_conflict(e, selection, detail, &mut |x| Ok(each(x)?))
        })?)
    }

    /// Returns whether tables are as they were when they were looked at last: what an application changes of them is taken in by
    /// the next seal, and until then a conflict of such a table may be refused ([`Error::TablesChanged`](crate::Error::TablesChanged)).
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn is_schema_known(&self) -> Result<bool> {
        Ok(catalog::reading(&self.replica, catalog::is_schema_known)?)
    }

    /// Counts the open conflicts.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn open_conflicts(&self) -> Result<u64> {
        Ok(catalog::reading(&self.replica, walk::open_conflicts)?)
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
        let work = |replica: &_| many::resolve_all(replica, selection, resolution, &mut |x| Ok(each(x)?));
        Ok(transaction::after_seal(&mut self.replica, work)?)
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
        let work = |replica: &_| many::resolve_all(replica, selection, resolution, &mut |x| Ok(each(x)?));
        Ok(transaction::rehearse(&mut self.replica, work)?)
    }

    /// Returns whether a row, as [`Conflict`](crate::Conflict) and [`RowChange`](crate::RowChange) list it, is kept whole by
    /// a resolution that is made here, so that [`Engine::undo_resolution`] brings it back: a very large one is not.
    pub fn keeps_for_undo(&self, row: &[(String, OwnedValue)]) -> bool {
        told::keeps(&self.replica, row)
    }

    /// Returns what became of the decisions that applications wrote into the view `packmule_conflicts`, since this was asked
    /// last: each command that seals carries them out.
    pub fn take_carried_out(&self) -> CarriedOut {
        self.replica.carried.take()
    }

    /// Lets a program decide: `ask` sees each open conflict of these tables with all its versions, and what it answers is
    /// carried out, and travels as a resolution. Nothing is held while it thinks. What was left to a person is not given to
    /// it again, nor what two resolutions disagree about: see [`docs::decisions`](crate::docs::decisions).
    ///
    /// # Errors
    /// [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn decide_with(
        &mut self,
        tables: &[&str],
        ask: &mut dyn FnMut(&Conflict) -> Answer,
    ) -> Result<CarriedOut> {
        let earlier = self.take_carried_out();
        let mut undecided = catalog::reading(&self.replica, |e| Undecided::new(e, tables))?;
        let mut more = true;
        while more {
            let mut answered = Vec::new();
            while more && answered.len() < ANSWERS_AT_ONCE {
                let next = catalog::reading(&self.replica, |e| undecided.next_undecided(e))?;
                let answer = next.map(|conflict| (ask(&conflict), conflict.id));
                more = !matches!(answer, None | Some((Answer::Stop, _)));
                answered.extend(answer.map(|(answer, id)| (id, answer)));
            }
            if !answered.is_empty() {
                transaction::transaction(&mut self.replica, |e| {
                    undecided::note(e, &answered)?;
                    transaction::seal_written(e)
                })?;
            }
        }
        Ok(self.replica.carried.replace(earlier))
    }

    /// Returns the decisions of applications that were refused, the newest first, up to 1,000: the id that was given, and the
    /// reason.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn refused_decisions(&self) -> Result<Vec<(String, String)>> {
        Ok(wishes::refused(&self.replica)?)
    }

    /// Undoes the last resolution of the conflict with this id, of which a beginning of four letters will do: the rows that
    /// it wrote become what they were, here and, once this travels, everywhere. Undone again, the decision is back.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if it is not in the log, or if a row was written to since, or is too large to
    /// have been kept; [`Error::KeyMissing`](crate::Error::KeyMissing).
    pub fn undo_resolution(&mut self, id: &str) -> Result<UndoReport> {
        Ok(transaction::after_seal(&mut self.replica, |replica| undo::undo(replica, id))?)
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
        let work =
            |replica: &_| restore::take_back(replica, (by, since), &mut |table, row| Ok(each(table, row)?));
        if rehearse {
            Ok(transaction::rehearse(&mut self.replica, work)?)
        } else {
            Ok(transaction::after_seal(&mut self.replica, work)?)
        }
    }

    /// Writes a row of a shared table anew as a frame of a device has it; with `rehearse`, nothing is changed. Returns what
    /// that changes, if anything.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable); [`Error::Usage`](crate::Error::Usage) if the frame is not in
    /// the log, or says nothing of the row; [`Error::KeyMissing`](crate::Error::KeyMissing).
    pub fn restore(
        &mut self,
        table: &str,
        key: &[OwnedValue],
        (author, frame): (DeviceId, u64),
        rehearse: bool,
    ) -> Result<Option<RowChange>> {
        let work = |replica: &_| restore::restore(replica, (table, key), (author, frame));
        if rehearse {
            Ok(transaction::rehearse(&mut self.replica, work)?)
        } else {
            Ok(transaction::after_seal(&mut self.replica, work)?)
        }
    }

    /// Walks the log in the order in which groups are applied: each group that has ops of the table
    /// (any, if `None`) and key (any, if empty), after those ops.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable), [`Error::Usage`](crate::Error::Usage) for a key of another length, whatever `each` returns.
    pub fn log(
        &self,
        table: Option<&str>,
        key: &[OwnedValue],
        each: &mut dyn FnMut(HistoryItem<'_>) -> Result<()>,
    ) -> Result<()> {
        Ok(history::log(&self.replica, (table, key), false, &mut |x| Ok(each(x)?))?)
    }

    /// As [`Engine::log`], with what was there before each write, as its author had it: each row is looked up for that.
    ///
    /// # Errors
    /// As [`Engine::log`].
    pub fn log_with_before(
        &self,
        table: Option<&str>,
        key: &[OwnedValue],
        each: &mut dyn FnMut(HistoryItem<'_>) -> Result<()>,
    ) -> Result<()> {
        Ok(history::log(&self.replica, (table, key), true, &mut |x| Ok(each(x)?))?)
    }

    /// Writes the tables as they were at a time, in milliseconds since 1970, into a new database that is no device.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if the file is there, or something is not sealed;
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn at(&self, when: WallMs, to: &Path) -> Result<AtReport> {
        Ok(at::at(&self.replica, when, to)?)
    }
}
