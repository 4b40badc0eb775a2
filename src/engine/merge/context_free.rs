//! Context-free writes: rows of a table from before it was tracked (or while it was suspended), and rows that a
//! device brings along when it starts from a snapshot. Their author did not take into account what others wrote.
//!
//! **Invariant.** What the author of such a write had *heard* of the row is one version on every device: the
//! baseline version, older than all others. So the conflict that comes of it has the same versions and the same id
//! everywhere.
//!
//! **Why it is needed.** Of what the author had heard, some devices still have several heads, and others have
//! compacted them and have only the row. Only the row as it is shown is the same on all of them. So the heads that
//! were heard of are removed, and the shown row is kept as the baseline version. A device without heads makes the
//! same baseline of its row.
//!
//! **Why it holds.** An open or quarantined row is left as it is: compaction never forgets its versions, so all
//! devices have them. Heads that were not heard of stay heads, and the baseline speaks only for the columns that
//! they leave. If the write equals the shown row no baseline is made, on no device. Counters that were heard of
//! become one absolute value: what is shown, without the additions that came since. So the sum stays the same, with
//! or without memory of its parts.

use std::collections::BTreeMap;

use packmule_core::model::{Stream, Value};
use packmule_core::wire::{Merge, Op, OpKind};

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::heads::{self, Head, Seen};
use crate::engine::merge::{compose, deferred, stretches, versions, written};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;

/// Makes what the author of a context-free op had heard of its row one baseline version, before the op is applied.
pub(crate) fn prepare_context_free(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    def: &OpDef,
    op: &Op<'_>,
) -> Result<()> {
    let row = compose::shown_row(replica, table, key)?;
    remember_if_other(replica, table, key, heard, def, op, row)
}

/// Does the same where the table is held and shows nothing, as far as the versions of the row say all of it.
pub(crate) fn prepare_unshown(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    def: &OpDef,
    op: &Op<'_>,
) -> Result<()> {
    let heads = heads::heads(replica, table.tid, key)?;
    let judgement = versions::judge_versions(replica, table, &heads)?;
    if heads.is_empty() || judgement.open || (judgement.present && !is_whole(table, &heads)) {
        return Ok(());
    }
    let mut row = None;
    if judgement.present {
        compose::compose(replica, table, key, &heads, &judgement)?;
        row = compose::row_in(replica, &table.quarantine_table(), table, key)?;
        compose::delete_from(replica, &table.quarantine_table(), table, key)?;
    }
    remember_if_other(replica, table, key, heard, def, op, row)
}

/// Returns whether versions say all of their row: a column of which none speaks came later, and has its default.
fn is_whole(table: &Table, heads: &[Head]) -> bool {
    let n = table.def.columns.len();
    table.def.merge == Merge::Row && heads.iter().any(|head| head.kind != OpKind::Delete)
        || heads.iter().any(|head| head.kind == OpKind::Insert)
        || (0..n).all(|at| heads.iter().any(|head| head.live(n).contains(at)))
}

/// Makes what was heard of a row one baseline version, which shows this, unless the op says the same.
fn remember_if_other(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    def: &OpDef,
    op: &Op<'_>,
    row: Option<Vec<OwnedValue>>,
) -> Result<()> {
    let mut differs = op.head.kind == OpKind::Delete;
    for (at, value) in op.values(def.shape()) {
        let (Some(column), Some(row)) = (table.def.column(&def.def.columns[at].name), &row) else {
            continue;
        };
        if table.disputed.contains(column) {
            continue;
        }
        differs |= !versions::is_equal(&value, &row[column]);
    }
    remember_heard(replica, table, key, heard, row.filter(|_| differs))
}

/// Replaces the versions of a row that were heard of by a baseline version of these values, or by none.
pub(crate) fn remember_heard(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    row: Option<Vec<OwnedValue>>,
) -> Result<()> {
    let contested = "SELECT 1 FROM _pm_conflict WHERE tid = ?1 AND key = ?2";
    if deferred::is_quarantined(replica, table.tid, key)?
        || value::maybe::<i64>(&replica.db, contested, (table.tid, key))?.is_some()
    {
        return Ok(()); // No device has compacted these.
    }
    let heads = heads::all_heads(replica, table.tid, key)?;
    let known = |h: &Head| h.dev != BASELINE && heard.of(h.dev) >= h.seq;
    let all_known = heads.iter().all(|h| h.dev == BASELINE || known(h));
    let (replaced, left): (Vec<Head>, Vec<Head>) =
        heads.into_iter().partition(|h| known(h) || (h.dev == BASELINE && all_known));
    let unread = unread_values(replica, table, &replaced)?;
    for head in &replaced {
        written::forget_head(replica, table.tid, key, head)?;
    }
    remember_counters(replica, table, key, heard, row.as_deref())?;
    let Some(row) = row else { return Ok(()) };
    let n = table.def.columns.len();
    let speaks = left.iter().fold(Columns::all(n), |columns, head| columns.minus(&head.live(n)));
    if speaks.is_empty() || left.iter().any(|h| h.dev == BASELINE) {
        return Ok(());
    }
    let columns = Some(speaks).filter(|columns| *columns != Columns::all(n));
    let mut body = versions::write_baseline(table, &row, &Columns::all(n))?;
    body.extend(unread);
    written::insert_image(replica, table.tid, key, &Head::baseline(0, columns), &body)
}

/// Returns what versions say of columns that are not here yet, names and values in turn: the last of them.
fn unread_values(replica: &Replica, table: &Table, heads: &[Head]) -> Result<Vec<u8>> {
    let mut said: BTreeMap<String, (u64, OwnedValue)> = BTreeMap::new();
    for head in heads.iter().filter(|head| head.kind != OpKind::Delete) {
        let values = if head.dev == BASELINE {
            versions::baseline_values(head.baseline.as_deref().unwrap_or_default())?
        } else {
            frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
                let values = op.values(def.shape()).filter(|(_, value)| !matches!(value, Value::Big(_)));
                let named = values.map(|(at, v)| Ok((def.def.columns[at].name.clone(), OwnedValue::of(v)?)));
                named.collect::<Result<Vec<_>>>()
            })?
        };
        let lamport = if head.dev == BASELINE { 0 } else { versions::lamport_of(replica, head)? };
        for (name, value) in values.into_iter().filter(|(name, _)| table.def.column(name).is_none()) {
            if said.get(&name).is_none_or(|(before, _)| *before <= lamport) {
                said.insert(name, (lamport, value));
            }
        }
    }
    let mut body = Vec::new();
    for (name, (_, value)) in &said {
        body.extend(value::encode(&Value::Text(name.as_bytes()))?);
        body.extend(value::encode(&value.borrow())?);
    }
    Ok(body)
}

/// Makes what was heard of counters one absolute value: what they show, without what came since.
fn remember_counters(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    row: Option<&[OwnedValue]>,
) -> Result<()> {
    let counted = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    for column in table.counters.iter().copied() {
        let (known, since): (Vec<Entry>, Vec<Entry>) =
            counted.iter().filter(|e| e.column == column).cloned().partition(|e| heard.of(e.dev) >= e.seq);
        if since.iter().any(|entry| entry.absolute) {
            continue;
        }
        for entry in &known {
            counters::forget_entry(&replica.db, table.tid, key, entry)?;
        }
        let Some(row) = row else { continue };
        match counters::total(table, &known, column) {
            Some(value) => {
                counters::put_entry(&replica.db, table.tid, key, &Entry::base(column, value))?;
            }
            None => counters::put_base(replica, table, key, column, &row[column])?,
        }
    }
    Ok(())
}

/// Makes what this device has heard of rows one baseline version each, as it is on all other devices. This comes
/// before context-free writes of its own, to a table that others wrote to while it was suspended here.
pub(crate) fn remember_unshown(replica: &Replica, table: &Table, keys: &[Vec<u8>]) -> Result<()> {
    for key in keys {
        let own = compose::shown_row(replica, table, key)?;
        let heads = heads::heads(replica, table.tid, key)?;
        let judgement = versions::judge_versions(replica, table, &heads)?;
        if judgement.open || heads.is_empty() {
            continue;
        }
        let mut row = None;
        if judgement.present {
            let changes: Vec<_> = own.iter().flatten().cloned().enumerate().collect();
            // What is not sealed yet is nothing that was heard of.
            if own.is_some() && !is_whole(table, &heads) {
                compose::make_quarantined_row(replica, table, key, &changes)?;
            }
            compose::compose(replica, table, key, &heads, &judgement)?;
            row = compose::row_in(replica, &table.quarantine_table(), table, key)?;
            compose::delete_from(replica, &table.quarantine_table(), table, key)?;
        }
        remember_heard(replica, table, key, &Seen::All, row.filter(|row| own.as_ref() != Some(row)))?;
    }
    Ok(())
}

/// Returns the keys of the rows of which versions are remembered.
pub(crate) fn remembered_keys(replica: &Replica, tid: i64) -> Result<Vec<Vec<u8>>> {
    let sql = format!("SELECT DISTINCT key FROM {}", stretches::heads_of_table());
    let mut statement = replica.db.prepare_cached(&sql)?;
    Ok(statement.query_map([tid], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
