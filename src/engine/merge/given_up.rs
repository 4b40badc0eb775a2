//! Versions of a history that is given up, and of the one that is here instead (`exchange/give_up.rs`).
//!
//! Of a device that has two histories, whoever has the second one gives it up for the first. What it knows of the second stays:
//! each version of that becomes a settled value of this device, which a verdict says (`capture/verdict.rs`), as if its
//! frames were folded.
//!
//! **Invariant.** The heads of a row stay a function of the set of frames, though frames that were written on the second
//! history name its frames by author and number, and so those of the first: elsewhere they dominate what they never saw.
//! Here they came before that, and do not. So as long as frames of the first history come whose numbers somebody claims
//! to have seen (`_pm_fork`), their versions of contested rows are taken by value: the verdict says them anew as versions
//! of this device, which stand on every device, and removes the others, which stand only where they came first.

use std::ops::RangeInclusive;

use packmule_core::model::Stream;
use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, defaults, deferred, folds, late, stretches, versions, written};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Makes all versions in these frames of a device settled values of this one, of which a verdict is to be written.
pub(crate) fn settle_all(replica: &Replica, dev: i64, frames: &RangeInclusive<u64>) -> Result<()> {
    stretches::spread(replica, None)?;
    for (tid, key) in rows_of(replica, dev, frames)? {
        let table = catalog::table(replica, tid)?;
        if table.remembers_shared() {
            settle_row(replica, &table, &key, (dev, frames))?;
        }
        // Of a table that is not here, who goes on as the second history has the values.
        for from in ["_pm_head", "_pm_count"] {
            let sql = format!(
                "DELETE FROM {from} WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq BETWEEN ?4 AND ?5"
            );
            replica.db.prepare_cached(&sql)?.execute((tid, &key, dev, frames.start(), frames.end()))?;
        }
    }
    Ok(())
}

/// Makes all that was settled here by folds with frames of a device after this one settled values, of which a verdict is to be
/// written: those frames are nowhere any more, and nobody else has them. Where lists of folds do not reach back so far, that
/// is every row. Before the watermarks are set back.
pub(crate) fn settle_folded(replica: &Replica, dev: i64, after: u64) -> Result<()> {
    let Some(fold) = folds::first_with(replica, dev, after + 1)? else { return Ok(()) };
    stretches::spread(replica, None)?;
    folds::each_listed(replica, fold, &mut |tid, key| {
        let table = catalog::table(replica, tid)?;
        if table.remembers_shared() { settle_whole(replica, &table, key) } else { Ok(()) }
    })?;
    if folds::lists_from(replica, fold)? {
        return Ok(());
    }
    for table in catalog::tables(replica).into_iter().filter(|table| table.shows_shared()) {
        let from = [table.sql_name.clone(), table.quarantine_table()];
        let keys = table.def.key_list("");
        for from in from.iter().take(if replica.quarantined.get() { 2 } else { 1 }) {
            let mut all = replica.db.prepare(&format!("SELECT {keys} FROM {from}"))?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                settle_whole(replica, &table, &table.key_in(row)?)?;
            }
        }
    }
    Ok(())
}

/// Makes all of a row for which no version speaks a settled value, of which a verdict is to be written.
fn settle_whole(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    let heads = heads::all_heads(replica, table.tid, key)?;
    let Some(row) = compose::row_of(replica, table, key)? else {
        if heads.is_empty() {
            late::keep_absent(replica, table, key, folds::absence(replica, table.tid, key)?)?;
        }
        return Ok(());
    };
    late::keep_settled_sums(replica, table, key, &row)?;
    let all = Head { kind: OpKind::Insert, ..Head::baseline(1, None) };
    let columns =
        late::settled_columns(table, &all, &heads).minus(&defaults::unsaid_here(replica, table, &row)?);
    if columns.is_empty() { Ok(()) } else { late::add_settled(replica, table, key, row, columns, &heads) }
}

/// Does the same with the versions of contested rows that come of histories for which another was given up.
pub(crate) fn settle_claimed(replica: &Replica) -> Result<()> {
    let mut forks = replica.db.prepare_cached("SELECT dev, first, last FROM _pm_fork")?;
    let forks = forks
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<(i64, u64, u64)>>>()?;
    if !forks.is_empty() {
        stretches::spread(replica, None)?;
    }
    for (dev, first, last) in forks {
        let frames = first..=last;
        for (tid, key) in rows_of(replica, dev, &frames)? {
            let table = catalog::table(replica, tid)?;
            if table.remembers_shared() && is_contested(replica, &table, &key, (dev, &frames))? {
                settle_row(replica, &table, &key, (dev, &frames))?;
            }
        }
    }
    Ok(())
}

/// Records that somebody claims to have seen frames of a device that are not here, of which it had others.
pub(crate) fn claim(replica: &Replica, dev: i64, first: u64, last: u64) -> Result<()> {
    let sql = "INSERT INTO _pm_fork (dev, first, last) VALUES (?1, ?2, ?3)
               ON CONFLICT (dev) DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)";
    replica.db.prepare_cached(sql)?.execute((dev, first, last))?;
    Ok(())
}

/// Forgets what has come of the frames that others claim to have seen: what is to be said of them is said.
pub(crate) fn forget_done(replica: &Replica) -> Result<()> {
    let shared = Stream::Shared.number();
    let here = "coalesce((SELECT seq FROM _pm_stream s WHERE s.dev = _pm_fork.dev AND s.stream = ?1), 0)";
    for sql in [
        format!("DELETE FROM _pm_fork WHERE last <= {here}"),
        format!("UPDATE _pm_fork SET first = {here} + 1 WHERE first <= {here}"),
    ] {
        replica.db.prepare_cached(&sql)?.execute([shared])?;
    }
    Ok(())
}

/// Lists the rows of which these frames of a device have versions, or counted.
fn rows_of(replica: &Replica, dev: i64, frames: &RangeInclusive<u64>) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT tid, key FROM _pm_head WHERE dev = ?1 AND seq BETWEEN ?2 AND ?3
         UNION SELECT tid, key FROM _pm_count WHERE dev = ?1 AND seq BETWEEN ?2 AND ?3",
    )?;
    let rows =
        statement.query_map((dev, frames.start(), frames.end()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether others have versions of a row too, or counted.
fn is_contested(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (dev, frames): (i64, &RangeInclusive<u64>),
) -> Result<bool> {
    let mut heads = heads::all_heads(replica, table.tid, key)?.into_iter();
    if heads.any(|head| head.dev != dev || !frames.contains(&head.seq)) {
        return Ok(true);
    }
    let mut counted = counters::entries(&replica.db, "_pm_count", table.tid, key)?.into_iter();
    Ok(counted.any(|entry| !entry.is_base() && (entry.dev != dev || !frames.contains(&entry.seq))))
}

/// Makes the versions of a row in these frames settled values of this device, each one of its own: what it took from which
/// other version is not the same of all of them.
fn settle_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (dev, frames): (i64, &RangeInclusive<u64>),
) -> Result<()> {
    let heads = heads::all_heads(replica, table.tid, key)?;
    let theirs: Vec<Head> =
        heads.into_iter().filter(|head| head.dev == dev && frames.contains(&head.seq)).collect();
    let sums = settle_counters(replica, table, key, (dev, frames))?;
    let free = free_number(replica, table.tid, key)?;
    let mut for_sums = free + theirs.len() as u64;
    for (number, head) in (free..).zip(&theirs) {
        let (columns, body) = match head.kind {
            OpKind::Delete => (None, last_values(replica, table, head, &sums)?),
            _ => settled_body(replica, table, key, head)?,
        };
        if head.kind == OpKind::Delete {
            for_sums = number;
        }
        late::put_unplaced(replica, table.tid, key, number, body.as_deref())?;
        let kind = if head.kind == OpKind::Delete { OpKind::Delete } else { OpKind::Insert };
        // Its time stays, so that the same version is shown as before.
        let settled = Head { kind, wall: head.wall, ..Head::baseline(number, columns) };
        written::forget_head(replica, table.tid, key, head)?;
        written::insert_head(replica, table.tid, key, &settled)?;
    }
    // Who says sums names all that was counted, and what is named stays as a version, too: they are said apart.
    late::keep_sums(replica, table, key, for_sums, sums)?;
    deferred::defer(replica, table.tid, key)
}

/// Returns the last values of a row that a version deletes, where a change of a part of it may ask for them, and
/// all its counters are among those that are summed.
fn last_values(
    replica: &Replica,
    table: &Table,
    delete: &Head,
    sums: &[(usize, OwnedValue)],
) -> Result<Option<Vec<u8>>> {
    if !table.needs_baseline() {
        return Ok(None);
    }
    let summed = |counter: &usize| sums.iter().any(|(column, _)| column == counter);
    let values = versions::values(replica, table, delete)?;
    if values.len() < table.def.columns.len() || !table.counters.iter().all(summed) {
        return Ok(None);
    }
    let row: Vec<OwnedValue> = values.into_iter().map(|(_, value)| value).collect();
    versions::write_baseline(table, &row, &Columns::all(row.len())).map(Some)
}

/// Returns the columns that a version speaks for, and their values as those of a baseline version.
fn settled_body(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    head: &Head,
) -> Result<(Option<Columns>, Option<Vec<u8>>)> {
    let n = table.def.columns.len();
    let mut row = vec![OwnedValue::Null; n];
    let live = head.live(n);
    for (column, value) in versions::values(replica, table, head)? {
        if live.contains(column) {
            row[column] = value;
        }
    }
    for (column, value) in table.def.keys().zip(value::read_key(key)?) {
        row[column] = value;
    }
    let columns = live.minus(&table.counters.iter().copied().collect());
    let body = versions::write_baseline(table, &row, &columns)?;
    Ok((Some(columns.clone()).filter(|_| columns != Columns::all(n)), Some(body)))
}

/// Makes what these frames counted in a row settled sums, by column.
fn settle_counters(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (dev, frames): (i64, &RangeInclusive<u64>),
) -> Result<Vec<(usize, OwnedValue)>> {
    let entries = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    let is_theirs = |entry: &Entry| entry.dev == dev && frames.contains(&entry.seq);
    let mut sums = Vec::new();
    for column in table.counters.iter().copied() {
        if !entries.iter().any(|entry| entry.column == column && is_theirs(entry)) {
            continue;
        }
        let settled: Vec<Entry> =
            entries.iter().filter(|entry| entry.absolute || is_theirs(entry)).cloned().collect();
        sums.extend(counters::total(table, &settled, column).map(|sum| (column, sum)));
    }
    for entry in entries.iter().filter(|entry| is_theirs(entry)) {
        counters::forget_entry(&replica.db, table.tid, key, entry)?;
    }
    Ok(sums)
}

/// The first number of settled values that were given up: lower ones are of what was settled here, and of what a state
/// brought.
const FIRST: u64 = 3;

/// Returns whether a settled value of this number was given up.
pub(crate) fn is_given_up(number: u64) -> bool {
    number >= FIRST
}

/// Returns the lowest number that is free of a row for what is given up.
fn free_number(replica: &Replica, tid: i64, key: &[u8]) -> Result<u64> {
    let sql = "SELECT coalesce(max(n), 0) + 1 FROM _pm_unplaced WHERE tid = ?1 AND key = ?2";
    let free: u64 = replica.db.prepare_cached(sql)?.query_row((tid, key), |row| row.get(0))?;
    Ok(free.max(FIRST))
}
