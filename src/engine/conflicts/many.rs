//! Many conflicts resolved in one transaction, or what that would do.
//!
//! However many are open, one is in memory at a time, and each that is decided is described once. What was open before is
//! kept in a temporary table, so that a conflict which a resolution opens is told from those that were there, and is not
//! decided unseen.

use std::collections::BTreeSet;

use packmule_core::wire::FrameFlags;
use rusqlite::OptionalExtension;

use crate::engine::capture::groups::{RowBefore, SealOptions};
use crate::engine::capture::seal;
use crate::engine::conflicts::change::RowChange;
use crate::engine::conflicts::list::{self, Conflict, Open};
use crate::engine::conflicts::listed;
use crate::engine::conflicts::resolve::{self, Resolution};
use crate::engine::conflicts::selection::Selection;
use crate::engine::conflicts::told::Told;
use crate::engine::conflicts::undo;
use crate::engine::conflicts::walk::{self, Place, Walk};
use crate::engine::error::{self, Error, ID_LEAST, Result};
use crate::engine::show::triggers;
use crate::engine::store::connection;
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

/// Closes the conflict with this id, or beginning of one, within the open transaction.
pub(crate) fn resolve(replica: &Replica, id: &str, resolution: &Resolution) -> Result<()> {
    let meant = Selection { ids: vec![id.into()], ..Selection::default() };
    close(replica, &meant, resolution, &mut |_| Ok(()))?;
    forget_open(replica)
}

/// Closes all conflicts that are meant, within the open transaction, and tells what is open then.
pub(crate) fn resolve_all(
    replica: &Replica,
    selection: &Selection,
    resolution: &Resolution,
    each: &mut dyn FnMut(Decided) -> Result<()>,
) -> Result<DecisionReport> {
    let mut report = close(replica, selection, resolution, each)?;
    listed::refresh(replica)?;
    report.open = replica.db.query_row("SELECT count(*) FROM _pm_listed", [], |row| row.get(0))?;
    let opened = "FROM _pm_listed l WHERE NOT EXISTS (SELECT 1 FROM temp._pm_was_open w
         WHERE w.tid = l.tid AND w.key = l.key AND w.what = l.what AND w.id = l.id)";
    report.opened = replica.db.query_row(&format!("SELECT count(*) {opened}"), [], |row| row.get(0))?;
    let named = format!("SELECT l.id {opened} ORDER BY l.tid, l.key, l.what LIMIT {OPENED_NAMED}");
    let mut statement = replica.db.prepare(&named)?;
    report.opened_ids =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    drop(statement);
    forget_open(replica)?;
    Ok(report)
}

/// Closes all conflicts that are meant, within the open transaction. Those that were meant by their ids all are, or none.
/// What was open before stays in `_pm_was_open`; the report does not say yet what is open then.
fn close(
    replica: &Replica,
    selection: &Selection,
    resolution: &Resolution,
    each: &mut dyn FnMut(Decided) -> Result<()>,
) -> Result<DecisionReport> {
    remember_open(replica, selection)?;
    let mut report = DecisionReport::default();
    let mut run = Run::new(replica);
    let mut walk = Walk::new(replica);
    let mut was = String::new();
    while let Some(open) = walk.next_of(replica, &mut |place| {
        let found = meant(replica, place)?;
        let is_meant = found.is_some();
        was = found.unwrap_or_default();
        Ok(is_meant)
    })? {
        // What was decided before may have given it another version.
        if was != open.conflict.id || !selection.wants(&open.conflict) {
            continue;
        }
        let Some(open) = run.settled(open)? else { continue };
        let decided = run.decide(open, resolution)?;
        if let Some(refused) = decided.refused {
            if !selection.ids.is_empty() {
                return Err(refused.into());
            }
            report.refused += 1;
            each(Decided { refused: Some(refused), ..decided })?;
        } else {
            report.closed += 1;
            each(decided)?;
        }
    }
    run.seal()?;
    Ok(report)
}

/// Remembers which conflicts are open, and which of them may be meant; each id that is given must be that of one.
fn remember_open(replica: &Replica, selection: &Selection) -> Result<()> {
    selection.known_table(replica)?;
    let db = &replica.db;
    listed::refresh(replica)?;
    db.execute_batch(
        "DROP TABLE IF EXISTS temp._pm_was_open;
         CREATE TEMP TABLE _pm_was_open (
             tid INTEGER, key BLOB, what TEXT, id TEXT, meant INTEGER, PRIMARY KEY (tid, key, what)
         ) WITHOUT ROWID",
    )?;
    db.execute(
        "INSERT INTO temp._pm_was_open
         SELECT tid, key, what, id, ?1 AND coalesce(tbl_name = ?2 COLLATE NOCASE, 1) AND coalesce(kind = ?3, 1)
         FROM _pm_listed",
        (selection.ids.is_empty(), &selection.table, &selection.kind),
    )?;
    // A digit comes before `g`: of all ids these begin with what was given.
    let of = "FROM _pm_listed WHERE id >= ?1 AND id < ?1 || 'g'";
    for id in &selection.ids {
        let begun: usize =
            db.prepare_cached(&format!("SELECT count(*) {of}"))?.query_row([id], |row| row.get(0))?;
        if begun != 1 || id.len() < ID_LEAST {
            let open: usize = db.query_row("SELECT count(*) FROM _pm_listed", [], |row| row.get(0))?;
            return Err(Error::NoSuchConflict { id: id.clone(), open, begun }.into());
        }
        db.prepare_cached(&format!(
            "UPDATE temp._pm_was_open SET meant = 1 WHERE (tid, key, what) = (SELECT tid, key, what {of})"
        ))?
        .execute([id])?;
    }
    Ok(())
}

/// Forgets which conflicts were open.
fn forget_open(replica: &Replica) -> Result<()> {
    Ok(replica.db.execute_batch("DROP TABLE temp._pm_was_open")?)
}

/// Returns the id of the conflict that was open in a place before, if it may be meant.
fn meant(replica: &Replica, place: &Place) -> Result<Option<String>> {
    let sql = "SELECT id FROM temp._pm_was_open WHERE tid = ?1 AND key = ?2 AND what = ?3 AND meant";
    let mut statement = replica.db.prepare_cached(sql)?;
    Ok(statement.query_row(place.parts(), |row| row.get(0)).optional()?)
}

/// Returns whether an error stops all: it is the machine's, and not about what was decided.
pub(crate) fn stops(error: &Error) -> bool {
    match error {
        Error::Sqlite(e) => error::is_machine_failure(e),
        Error::Io { .. }
        | Error::Stream(_)
        | Error::KeyMissing { .. }
        | Error::Moved { .. }
        | Error::Poisoned => true,
        _ => false,
    }
}

/// Closes conflicts one after the other, and seals now and then.
pub(crate) struct Run<'r> {
    pub(crate) replica: &'r Replica,
    /// The rows that were written to since the last seal.
    touched: BTreeSet<(i64, Vec<u8>)>,
    /// What they were before.
    decided: Vec<RowBefore>,
    flags: FrameFlags,
}

impl<'r> Run<'r> {
    pub(crate) fn new(replica: &'r Replica) -> Self {
        Self { replica, touched: BTreeSet::new(), decided: Vec::new(), flags: FrameFlags::default() }
    }

    /// Returns a conflict as it is once what was decided before it is sealed; `None` if that closed or changed it.
    pub(crate) fn settled(&mut self, open: Open) -> Result<Option<Open>> {
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
    pub(crate) fn decide(&mut self, open: Open, resolution: &Resolution) -> Result<Decided> {
        let replica = self.replica;
        let keys: Vec<Vec<u8>> = [Some(&open.key), open.blocking.as_ref()]
            .into_iter()
            .flatten()
            .filter(|key| !key.is_empty())
            .cloned()
            .collect();
        let id = &open.conflict.id;
        let table = catalog::table(replica, open.tid)?;
        let (mut rows, mut was) = (Vec::new(), Vec::new());
        for key in &keys {
            let told = Told::of(replica, &table, key)?;
            was.push(undo::before(replica, id, (&table, key), &told.values)?);
            rows.push(told.begin(&table, key)?);
        }
        replica.db.execute_batch("SAVEPOINT _pm_decide")?;
        let closed = match resolve::close_open(replica, &open, resolution) {
            Ok(closed) => closed,
            Err(refused) if !stops(&refused) => {
                let refused = connection::undo(&replica.db, "_pm_decide", refused)?;
                // Copies that were made within the savepoint are gone.
                triggers::forget_local_triggers(replica);
                return Ok(Decided { conflict: open.conflict, rows: Vec::new(), refused: Some(*refused) });
            }
            Err(error) => return Err(error),
        };
        replica.db.execute_batch("RELEASE _pm_decide")?;
        self.decided.extend(was);
        for key in &closed.made {
            self.decided.push(undo::made(id, open.tid, key)?);
            rows.push(Told::none().begin(&table, key)?);
        }
        for (key, row) in keys.iter().chain(&closed.made).zip(&mut rows) {
            // A quarantined row comes in or is deleted, whatever is decided: it does not stay as it is.
            row.after = list::told_row(replica, &table, table.place(), key)?;
        }
        rows.retain(RowChange::is_change);
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
    pub(crate) fn seal(&mut self) -> Result<()> {
        self.touched.clear();
        let decided = std::mem::take(&mut self.decided);
        let options = SealOptions { flags: self.flags, decided: &decided, ..SealOptions::default() };
        seal::seal_here(self.replica, options)?;
        Ok(())
    }
}
