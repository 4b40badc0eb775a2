//! Late writes: their author had not seen what is folded here.
//!
//! A settled row has no heads: it is in its table, and nobody here knows any more who wrote it. So nobody here can say
//! whether a late write to it follows that value or is concurrent with it.
//!
//! **Invariant.** The heads of a row are those that the applied groups give, by causality alone, or the row is in
//! `_pm_unplaced`. Such a row has, beside the heads that came, a baseline version with the value that was settled here
//! (of number 1; a state that was merged can bring a second), or none where the row was not there: absence counts as
//! nothing, but for a row that a list of folds has (`folds.rs`): that was deleted, which is its baseline version. Before this device sends, folds, or ends what it was asked for, `capture/verdict.rs` makes a verdict of it.
//!
//! **Why it is exact otherwise.** A settled value is that of versions within the watermarks (`_pm_floor`), as is all
//! that removed others. A write whose author had seen all up to the watermarks had seen these, and dominates them like
//! any other. Where lists of folds tell more closely up to where a row was written, it is enough to have seen that.
//! A row that has heads has all of them.

use std::borrow::Cow;
use std::collections::HashMap;

use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::counters::{self, Counted, Entry};
use crate::engine::merge::folds::{self, Absence, Fold};
use crate::engine::merge::heads::{self, Head, Kept};
use crate::engine::merge::{compose, defaults, versions, written};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns the first fold here that the author of a group had not seen, if there is one. `context` is all that it had
/// seen, by device number.
pub(crate) fn first_unseen(replica: &Replica, dev: i64, context: &HashMap<i64, u64>) -> Result<Option<Fold>> {
    if replica.options.late_counts_as_seen() {
        return Ok(None);
    }
    let saw = |other: i64| if other == dev { u64::MAX } else { context.get(&other).copied().unwrap_or(0) };
    folds::first_unseen(replica, &saw)
}

/// Keeps what is settled of a row as a baseline version, before a late write to it is applied, unless it was settled before
/// the first fold that the author had not seen. `new` is the version that comes, `old` are the heads of the row.
pub(crate) fn keep_settled(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    new: &Head,
    old: &[Head],
    said: &[Counted],
    unseen: Fold,
) -> Result<()> {
    let n = table.def.columns.len();
    let under = if new.weak { old.into() } else { under_restated(replica, table, key, old)? };
    let (waited, beside): (Vec<Head>, Vec<Head>) = under.iter().cloned().partition(is_settled);
    let columns = settled_columns(table, new, &beside);
    if columns.is_empty() && said.is_empty() {
        return Ok(());
    }
    if folds::settled_before(replica, table.tid, key, unseen)? {
        // It had seen what its counters were.
        for counted in said.iter().filter(|counted| counted.absolute) {
            let base = Entry::base(counted.column, OwnedValue::Null);
            counters::forget_entry(&replica.db, table.tid, key, &base)?;
        }
        let gone = if new.kind == OpKind::Delete { Columns::all(n) } else { new.live(n) };
        return leave_waited(replica, table, key, &waited, &gone);
    }
    let row = match (old.is_empty(), old.iter().find(|head| head.weak && head.kind == OpKind::Delete)) {
        (true, _) => compose::shown_row(replica, table, key)?,
        (false, None) => compose::row_of(replica, table, key)?,
        (false, Some(gone)) => row_before(replica, table, key, gone)?,
    };
    let Some(row) = row else {
        if columns.is_empty() {
            return Ok(());
        }
        let absence = folds::absence(replica, table.tid, key)?;
        let sums = if absence == Absence::Deleted { sums_of_deleted(said) } else { Vec::new() };
        keep_absent(replica, table, key, absence)?;
        return keep_sums(replica, table, key, 1, sums);
    };
    // Of a row whose versions are known it is known whether it is gone. What a delete says of counters is late all the same.
    let deletes = new.kind == OpKind::Delete && !columns.is_empty();
    let sums = counters::unplaced_sums(replica, table, key, &row, said, deletes)?;
    keep_sums(replica, table, key, 1, sums)?;
    let columns = columns.minus(&defaults::unsaid_here(replica, table, &row)?);
    if !columns.is_empty() {
        leave_waited(replica, table, key, &waited, &columns)?;
        add_settled(replica, table, key, row, columns, &beside)?;
    }
    Ok(())
}

/// Returns what is settled of the counters of a row that was deleted, which a late write says. The delete said what they were,
/// which counts beside that, and nobody here knows it: a verdict is to say what they are, whatever is written to the row then.
fn sums_of_deleted(said: &[Counted]) -> Vec<(usize, OwnedValue)> {
    said.iter().map(|counted| (counted.column, OwnedValue::Null)).collect()
}

/// Returns the heads of a row without restated ones, which lose to a late write: what was settled under them counts again. Of
/// that nobody knows more than what the restated ones say.
fn under_restated<'h>(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heads: &'h [Head],
) -> Result<Cow<'h, [Head]>> {
    if heads.iter().all(|head| !head.weak) {
        return Ok(heads.into());
    }
    let mut all = heads::all_heads(replica, table.tid, key)?;
    all.retain(|head| !head.weak);
    Ok(all.into())
}

/// Returns what a row was before a restated delete; `None` if it was not there.
fn row_before(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    delete: &Head,
) -> Result<Option<Vec<OwnedValue>>> {
    let last = versions::values(replica, table, delete)?;
    if last.iter().all(|(column, _)| table.def.columns[*column].key > 0) {
        return Ok(None);
    }
    let mut row = vec![OwnedValue::Null; table.def.columns.len()];
    let keys = table.def.keys().zip(value::read_key(key)?);
    keys.chain(last).for_each(|(column, value)| row[column] = value);
    Ok(Some(row))
}

/// Takes columns from the settled value of a row that waited for its table.
fn leave_waited(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    waited: &[Head],
    columns: &Columns,
) -> Result<()> {
    let counters: Columns = table.counters.iter().copied().collect();
    for head in waited {
        let rest = head.live(table.def.columns.len()).minus(columns).minus(&counters);
        written::leave_columns(replica, table.tid, key, head, &rest)?;
    }
    Ok(())
}

/// Returns whether a version is a settled value that waited for its table, or came so in a state: nothing is to be said of it
/// as long as nothing late meets it.
pub(crate) fn is_settled(head: &Head) -> bool {
    head.dev == BASELINE && head.seq == 0 && !head.weak
}

/// Keeps settled sums of a row until the verdict, with its settled value of this number.
pub(crate) fn keep_sums(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    number: u64,
    sums: Vec<(usize, OwnedValue)>,
) -> Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO _pm_unplaced (tid, key, n, body) VALUES (?1, ?2, ?3, NULL)")?
        .execute((table.tid, key, number))?;
    sums.into_iter().try_for_each(|sum| counters::settle(replica, table.tid, key, number, sum))
}

/// Keeps what is settled of the counters of a row until the verdict, whose values are these.
pub(crate) fn keep_settled_sums(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    row: &[OwnedValue],
) -> Result<()> {
    let counted = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    let settled = |column: &usize| Some((*column, counters::settled_sum(&counted, *column, Some(row))?));
    keep_sums(replica, table, key, 1, table.counters.iter().filter_map(settled).collect())
}

/// Keeps all that is settled of a row until the verdict, whose values are these.
pub(crate) fn keep_row(replica: &Replica, table: &Table, key: &[u8], row: &[OwnedValue]) -> Result<()> {
    keep_settled_sums(replica, table, key, row)?;
    let columns: Columns = table.counters.iter().copied().collect();
    let columns = Columns::all(table.def.columns.len()).minus(&columns);
    add_baseline(replica, table, key, 1, row, &columns).map(|_| ())
}

/// Keeps that a row was not there; if it was deleted, as its baseline version. Returns that.
pub(crate) fn keep_absent(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    absence: Absence,
) -> Result<Option<Head>> {
    match absence {
        Absence::Never => return Ok(None),
        Absence::Unknown => {
            put_unplaced(replica, table.tid, key, 0, None)?;
            return Ok(None);
        }
        Absence::Deleted => {}
    }
    put_unplaced(replica, table.tid, key, 1, None)?;
    let head = Head { kind: OpKind::Delete, ..Head::baseline(1, None) };
    written::forget_head(replica, table.tid, key, &head)?;
    written::insert_head(replica, table.tid, key, &head)?;
    Ok(Some(head))
}

/// Returns the columns that a version writes and no head speaks for: they are settled. Counters are not among them.
pub(crate) fn settled_columns(table: &Table, new: &Head, old: &[Head]) -> Columns {
    let n = table.def.columns.len();
    if old.iter().any(|head| head.columns.is_none() || head.kind == OpKind::Delete) {
        return Columns::default();
    }
    let written = if new.kind == OpKind::Delete { Columns::all(n) } else { new.live(n) };
    let counters: Columns = table.counters.iter().copied().collect();
    old.iter().fold(written.minus(&counters), |columns, head| columns.minus(&head.live(n)))
}

/// Adds settled values of a row to its baseline version of number 1, beside these heads: another late write may have met
/// other columns of it before.
pub(crate) fn add_settled(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    mut row: Vec<OwnedValue>,
    mut columns: Columns,
    beside: &[Head],
) -> Result<()> {
    let is_first = |head: &&Head| head.dev == BASELINE && head.seq == 1 && head.kind != OpKind::Delete;
    if let Some(before) = beside.iter().find(is_first) {
        let live = before.live(table.def.columns.len());
        let values = versions::read_baseline(replica, table, before.baseline.as_deref().unwrap_or_default())?;
        for (column, value) in values.into_iter().filter(|(column, _)| live.contains(*column)) {
            row[column] = value;
            columns.insert(column);
        }
    }
    add_baseline(replica, table, key, 1, &row, &columns).map(|_| ())
}

/// Adds a settled value of a row as its baseline version of this number. Returns the version.
pub(crate) fn add_baseline(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    number: u64,
    row: &[OwnedValue],
    columns: &Columns,
) -> Result<Head> {
    let body = versions::write_baseline(table, row, columns)?;
    put_unplaced(replica, table.tid, key, number, Some(&body))?;
    let whole = *columns == Columns::all(table.def.columns.len());
    let head = Head::baseline(number, Some(columns.clone()).filter(|_| !whole));
    written::forget_head(replica, table.tid, key, &head)?;
    written::insert_head(replica, table.tid, key, &head)?;
    Ok(head)
}

/// Records that a verdict on a row is to be written.
pub(crate) fn put_unplaced(
    replica: &Replica,
    tid: i64,
    key: &[u8],
    number: u64,
    body: Option<&[u8]>,
) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO _pm_unplaced (tid, key, n, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute((tid, key, number, body))?;
    Ok(())
}

/// Returns whether verdicts are to be written.
pub(crate) fn any_unplaced(replica: &Replica) -> Result<bool> {
    Ok(value::maybe::<i64>(&replica.db, "SELECT 1 FROM _pm_unplaced LIMIT 1", [])?.is_some())
}

/// Returns the first fold here whose rows can have versions that a verdict leaves. All others are heads of their rows, or
/// were dominated by such.
pub(crate) fn first_kept(replica: &Replica, keep: &[Kept]) -> Result<Option<Fold>> {
    let mut first = None;
    for run in keep {
        first = first.into_iter().chain(folds::first_with(replica, run.dev, run.first)?).min();
    }
    Ok(first)
}
