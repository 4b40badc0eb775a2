//! Many conflicts resolved in one transaction, or what that would do.
//!
//! However many are open, one is in memory at a time; their ids lie in a temporary table, so that a conflict which a
//! resolution opens is told from those that were there, and is not decided unseen.

use std::collections::BTreeSet;

use packmule_core::wire::FrameFlags;

use crate::engine::capture::groups::{RowBefore, SealOptions};
use crate::engine::capture::seal;
use crate::engine::conflicts::change::RowChange;
use crate::engine::conflicts::list::{self, Conflict, Open};
use crate::engine::conflicts::resolve::{self, Resolution};
use crate::engine::conflicts::selection::{self, Selection};
use crate::engine::conflicts::undo;
use crate::engine::conflicts::walk::{self, Walk};
use crate::engine::error::{Error, Result};
use crate::engine::show::triggers;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// How many conflicts are closed before they are sealed: their keys are in memory until then.
const CLOSED_AT_ONCE: usize = 512;

/// How many of the conflicts that a resolution opened are named.
const OPENED_NAMED: usize = 100;

/// A conflict that was decided, or could not be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Decided {
    /// The conflict.
    pub conflict: Conflict,
    /// What it does to rows.
    pub rows: Vec<RowChange>,
    /// Why it stays open, if it does.
    pub refused: Option<Error>,
}

/// What was done about many conflicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DecisionReport {
    /// How many were closed.
    pub closed: u64,
    /// How many that were meant cannot be closed this way, and stay open.
    pub refused: u64,
    /// How many are open then.
    pub open: u64,
    /// How many of these it opened, or gave another version.
    pub opened: u64,
    /// The ids of the first 100 of them.
    pub opened_ids: Vec<String>,
}

/// Closes all conflicts that are meant, within the open transaction. Those that were meant by their ids all are, or none.
pub(crate) fn resolve_all(
    replica: &Replica,
    selection: &Selection,
    resolution: &Resolution,
    each: &mut dyn FnMut(Decided) -> Result<()>,
) -> Result<DecisionReport> {
    remember_open(replica, selection)?;
    let mut run = Run {
        replica,
        touched: BTreeSet::new(),
        decided: Vec::new(),
        flags: FrameFlags::default(),
        report: DecisionReport::default(),
    };
    let mut walk = Walk::new(replica);
    while let Some(open) = walk.next_open(replica)? {
        if !selection.wants(&open.conflict) || !was_open(replica, &open.conflict)? {
            continue;
        }
        let Some(open) = run.settled(open)? else { continue };
        let decided = run.decide(open, resolution)?;
        if let Some(refused) = decided.refused {
            if !selection.ids.is_empty() {
                return Err(refused);
            }
            run.report.refused += 1;
            each(Decided { refused: Some(refused), ..decided })?;
        } else {
            run.report.closed += 1;
            each(decided)?;
        }
    }
    run.seal()?;
    let mut report = run.report;
    walk::each(replica, &mut |open| {
        report.open += 1;
        if !was_open(replica, &open.conflict)? {
            report.opened += 1;
            if report.opened_ids.len() < OPENED_NAMED {
                report.opened_ids.push(open.conflict.id);
            }
        }
        Ok(())
    })?;
    replica.db.execute_batch("DROP TABLE temp._pm_open")?;
    Ok(report)
}

/// Remembers which conflicts are open; each id that is given must be that of one.
fn remember_open(replica: &Replica, selection: &Selection) -> Result<()> {
    replica.db.execute_batch(
        "DROP TABLE IF EXISTS temp._pm_open; CREATE TEMP TABLE _pm_open (id TEXT PRIMARY KEY) WITHOUT ROWID",
    )?;
    let mut found = vec![0; selection.ids.len()];
    let mut n = 0;
    walk::each(replica, &mut |open| {
        n += 1;
        for (id, found) in selection.ids.iter().zip(&mut found) {
            *found += u32::from(selection::names(id, &open.conflict));
        }
        let sql = "INSERT OR IGNORE INTO temp._pm_open VALUES (?1)";
        replica.db.prepare_cached(sql)?.execute([&open.conflict.id])?;
        Ok(())
    })?;
    match selection.ids.iter().zip(found).find(|(_, found)| *found != 1) {
        Some((id, _)) => Err(Error::NoSuchConflict { id: id.clone(), open: n }),
        None => Ok(()),
    }
}

/// Returns whether a conflict, with these versions, was open before.
fn was_open(replica: &Replica, conflict: &Conflict) -> Result<bool> {
    let sql = "SELECT 1 FROM temp._pm_open WHERE id = ?1";
    Ok(value::maybe::<i64>(&replica.db, sql, [&conflict.id])?.is_some())
}

/// Closes conflicts one after the other, and seals now and then.
struct Run<'r> {
    replica: &'r Replica,
    /// The rows that were written to since the last seal.
    touched: BTreeSet<(i64, Vec<u8>)>,
    /// What they were before.
    decided: Vec<RowBefore>,
    flags: FrameFlags,
    report: DecisionReport,
}

impl Run<'_> {
    /// Returns a conflict as it is once what was decided before it is sealed; `None` if that closed or changed it.
    fn settled(&mut self, open: Open) -> Result<Option<Open>> {
        let keys = [Some(&open.key), open.blocking.as_ref()];
        let is_touched =
            keys.into_iter().flatten().any(|key| self.touched.contains(&(open.tid, key.clone())));
        if !is_touched && self.touched.len() < CLOSED_AT_ONCE {
            return Ok(Some(open));
        }
        self.seal()?;
        Ok(walk::again(self.replica, &open)?.filter(|now| now.conflict.id == open.conflict.id))
    }

    /// Decides one conflict: it is closed, or all is as it was before.
    fn decide(&mut self, open: Open, resolution: &Resolution) -> Result<Decided> {
        let replica = self.replica;
        let keys: Vec<Vec<u8>> = [Some(&open.key), open.blocking.as_ref()]
            .into_iter()
            .flatten()
            .filter(|key| !key.is_empty())
            .cloned()
            .collect();
        let before: Vec<_> = keys.iter().map(|key| row(replica, &open, key)).collect::<Result<_>>()?;
        let id = &open.conflict.id;
        let table = catalog::table(replica, open.tid)?;
        let was =
            keys.iter().map(|key| undo::before(replica, id, &table, key)).collect::<Result<Vec<_>>>()?;
        replica.db.execute_batch("SAVEPOINT _pm_decide")?;
        let closed = match resolve::close_open(replica, &open, resolution) {
            Ok(closed) => closed,
            Err(refused @ Error::CannotResolve { .. }) => {
                replica.db.execute_batch("ROLLBACK TO _pm_decide; RELEASE _pm_decide")?;
                // Copies that were made within the savepoint are gone.
                triggers::forget_local_triggers(replica);
                return Ok(Decided { conflict: open.conflict, rows: Vec::new(), refused: Some(refused) });
            }
            Err(error) => return Err(error),
        };
        replica.db.execute_batch("RELEASE _pm_decide")?;
        let mut rows = Vec::new();
        for (key, before) in keys.iter().zip(before) {
            rows.push(RowChange {
                key: key_values(replica, &open, key)?,
                before,
                after: row(replica, &open, key)?,
            });
        }
        self.decided.extend(was);
        for key in &closed.made {
            self.decided.push(undo::made(&open.conflict.id, open.tid, key)?);
            let after = row(replica, &open, key)?;
            rows.push(RowChange { key: key_values(replica, &open, key)?, before: Vec::new(), after });
        }
        // A row that stays out of the table has not changed for anybody.
        rows.retain(|row| row.before != row.after);
        self.touched.extend(keys.into_iter().map(|key| (open.tid, key)));
        self.flags = closed.flags;
        let alone = closed.flags == FrameFlags::default() || !closed.made.is_empty();
        if alone {
            // A column that was decided, or rows that others refer to: what comes next must see it.
            self.seal()?;
        }
        Ok(Decided { conflict: open.conflict, rows, refused: None })
    }

    /// Seals what was decided.
    fn seal(&mut self) -> Result<()> {
        self.touched.clear();
        let decided = std::mem::take(&mut self.decided);
        let options = SealOptions { flags: self.flags, decided: &decided, ..SealOptions::default() };
        seal::seal_here(self.replica, options)?;
        Ok(())
    }
}

/// Reads a row of a conflict's table as it is listed; nothing if it is not there.
fn row(replica: &Replica, open: &Open, key: &[u8]) -> Result<Vec<(String, OwnedValue)>> {
    let table = catalog::table(replica, open.tid)?;
    list::told_row(replica, &table, table.place(), key)
}

/// Returns the values of a key, by column.
fn key_values(replica: &Replica, open: &Open, key: &[u8]) -> Result<Vec<(String, OwnedValue)>> {
    let table = catalog::table(replica, open.tid)?;
    let names = table.def.keys().map(|at| table.def.columns[at].name.clone());
    Ok(names.zip(value::read_key(key)?).collect())
}
