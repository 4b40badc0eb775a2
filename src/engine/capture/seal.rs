//! Sealing: what applications wrote since the last seal becomes a group of frames.
//!
//! The seal reads the rows' values, so that a row that was written a thousand times is one op. Everything is streamed:
//! a row at a time, and of a large value a piece at a time.

use packmule_core::wire::FrameFlags;
use rusqlite::params_from_iter;

use crate::engine::capture::groups::{self, SealOptions, SealReport};
use crate::engine::capture::{
    at_once, evolve, follow, leaving, merge_definitions, redeclare, renumbered, restate, suspended, waited,
};
use crate::engine::error::Result;
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::{compose, context_free, deferred};
use crate::engine::show::constraints;
use crate::engine::store::key_list::KeyList;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Seals within the open transaction.
pub(crate) fn seal_here(replica: &Replica, options: SealOptions<'_>) -> Result<SealReport> {
    at_once::install_bare(replica)?;
    let mut report = leaving::leave_owed(replica)?;
    let mut noticed = evolve::notice_schema_changes(replica)?;
    let noted: Vec<i64> = catalog::tables(replica)
        .iter()
        .filter(|table| !table.announced && table.note.is_some())
        .map(|table| table.tid)
        .collect();
    for tid in noticed.released {
        let made = noticed.made.iter().filter(|(of, _)| *of == tid).map(|(_, name)| name.as_str());
        if let Some(at) = noticed.anew.iter().position(|(of, _)| *of == tid) {
            // What others wrote meanwhile is not compared: it was never shown here.
            report.also_made(&restate::restate(replica, tid, &noticed.anew.swap_remove(at).1, &[])?);
        }
        report.also_made(&release(replica, tid, &made.collect::<Vec<_>>())?);
    }
    for tid in renumbered::take_renumbered(replica)? {
        if noticed.anew.iter().all(|(of, _)| *of != tid) {
            noticed.anew.push((tid, Vec::new()));
        }
    }
    report.also_made(&groups::seal_groups(replica, options)?);
    // What is said of a table here goes by what this device itself has announced, too.
    noted.into_iter().try_for_each(|tid| follow::tell_waiting(replica, tid))?;
    for (tid, added) in noticed.anew.iter().filter(|(tid, _)| noticed.filled.contains(tid)) {
        // What the application made of its rows is said before what the log tells is shown over it.
        report.also_made(&restate::restate(replica, *tid, added, added)?);
    }
    for tid in &noticed.filled {
        deferred::defer_all(replica, *tid)?;
        constraints::resolve_constraints(replica)?;
    }
    noticed.come.into_iter().try_for_each(|tid| waited::settle_shown(replica, tid))?;
    for (tid, added) in noticed.anew {
        report.also_made(&restate::restate(replica, tid, &added, &[])?);
        constraints::resolve_constraints(replica)?;
    }
    for tid in noticed.changed {
        if deferred::defer_quarantined(replica, tid)? {
            constraints::resolve_constraints(replica)?;
        }
    }
    for (tid, column) in noticed.decided {
        redeclare::decide_column(replica, tid, &column)?;
        // What others wrote into theirs was waiting.
        deferred::defer_all(replica, tid)?;
        constraints::resolve_constraints(replica)?;
    }
    Ok(report)
}

/// Remembers what the counters of a row were of which nothing is remembered but what was added while the table was suspended:
/// the table shows them without that.
fn keep_bases(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    if table.counters.is_empty() {
        return Ok(());
    }
    let counted = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    let Some(row) = compose::shown_row(replica, table, key)? else { return Ok(()) };
    let keys = value::read_key(key)?;
    for column in table.counters.iter().copied() {
        let mut of = counted.iter().filter(|entry| entry.column == column).peekable();
        if of.peek().is_none() || of.any(|entry| entry.absolute) {
            continue;
        }
        let sql = format!(
            "SELECT o{column} FROM {} WHERE {} AND o{column} IS NOT NULL ORDER BY rowid LIMIT 1",
            table.dirty(),
            table.change_match()
        );
        let mut statement = replica.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
        let before = match rows.next()? {
            Some(change) => OwnedValue::of(value::from_sql(change.get_ref(0)?))?,
            None => row[column].clone(),
        };
        counters::put_entry(&replica.db, table.tid, key, &Entry::base(column, before))?;
    }
    Ok(())
}

/// Releases a table that was suspended and fits again: merges what was written meanwhile here and elsewhere.
fn release(replica: &Replica, tid: i64, made: &[&str]) -> Result<SealReport> {
    let before = catalog::table(replica, tid)?;
    merge_definitions::merge_columns(replica, tid, &before.def)?;
    let table = catalog::table(replica, tid)?;
    let written = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", table.dirty(), table.change_match());
    let both = KeyList::begin(&replica.db)?;
    let held = format!("SELECT tid, key FROM _pm_held WHERE tid = {tid} AND key > ?2 ORDER BY key");
    value::each_listed(&replica.db, &held, tid, &mut |_, key| {
        keep_bases(replica, &table, key)?;
        let values = value::read_key(key)?;
        let binds = params_from_iter(values.iter().map(|v| Bind(v.borrow())));
        if value::maybe::<i64>(&replica.db, &written, binds)?.is_some() {
            both.put_key(key)?;
        }
        Ok(())
    })?;
    let has_both = !both.has_no_keys()?;
    let options = SealOptions { only: Some(tid), made, ..SealOptions::default() };
    let without = has_both.then_some(&both);
    let mut report = groups::seal_groups(replica, SealOptions { without, ..options })?;
    let is_own = |key: &[u8]| both.has_key(key);
    context_free::unplace_waiting(replica, &*catalog::table(replica, tid)?, &is_own)?;
    if has_both {
        // Whoever wrote to these rows here did not see what others wrote to them meanwhile.
        let unseen = suspended::come_since(replica, tid)?;
        let options = SealOptions { flags: FrameFlags::CONTEXT_FREE, unseen: unseen.as_deref(), ..options };
        report.also_made(&groups::seal_groups(replica, options)?);
        context_free::unplace_under(replica, &*catalog::table(replica, tid)?, &both, unseen.as_deref())?;
    }
    merge_definitions::merge_uniques(replica, tid)?;
    deferred::defer_all(replica, tid)?;
    constraints::resolve_constraints(replica)?;
    replica.db.execute("DELETE FROM _pm_held WHERE tid = ?1", [tid])?;
    suspended::forget(replica, tid)?;
    Ok(report)
}
