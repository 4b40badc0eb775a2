//! Records what ops say of counters, and shows what they come to. `merge/counters.rs` states the invariant.

use packmule_core::wire::{Op, OpKind};
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::counters::{Counted, Entry};
use crate::engine::merge::heads::{Head, Seen};
use crate::engine::merge::{compose, counters, deferred};
use crate::engine::show::{triggers, unsaid};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{OR_ABORT, OpDef, Table};
use crate::engine::table::replica::Replica;

/// Records what an op says of counters. `ours` says that the table shows it already, or shows nothing.
#[allow(clippy::too_many_arguments)]
pub(crate) fn count(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    def: &OpDef,
    op: &Op<'_>,
    new: (&Head, u64),
    seen: &Seen<'_>,
    ours: bool,
) -> Result<()> {
    if table.counters.is_empty() {
        return Ok(());
    }
    let values = counters::read_counted(table, def, op);
    if new.0.kind == OpKind::Delete && values.is_empty() {
        let gone = forget_gone(replica, table, key, new.0, seen)?;
        if !ours {
            unsaid::begin_anew(replica, table, key, &gone.unsaid)?;
        }
    }
    count_values(replica, table, key, &values, new, seen, ours)
}

/// What is gone of a row's counters.
#[derive(Default)]
pub(crate) struct Gone {
    /// Something is.
    pub any: bool,
    /// Those of which nothing is left that was remembered.
    pub unsaid: Columns,
}

/// Forgets what a verdict says is gone of a row's counters, of which it has no value.
pub(crate) fn forget_gone(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    new: &Head,
    seen: &Seen<'_>,
) -> Result<Gone> {
    let mut gone = Gone::default();
    if table.counters.is_empty() || !matches!(seen, Seen::Verdict(..)) {
        return Ok(gone);
    }
    let before = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    for column in table.counters.iter().copied() {
        let left = counters::forget_counted(replica, table.tid, key, column, new, seen)?;
        if !left && before.iter().any(|entry| entry.column == column) {
            gone.unsaid.insert(column);
        }
    }
    gone.any = counters::entries(&replica.db, "_pm_count", table.tid, key)?.len() < before.len();
    Ok(gone)
}

/// Records values of counters. `new` is the version that they are of, with the Lamport timestamp of its group.
pub(crate) fn count_values(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    values: &[Counted],
    (new, lamport): (&Head, u64),
    seen: &Seen<'_>,
    ours: bool,
) -> Result<()> {
    for counted in values {
        let column = counted.column;
        if !counted.absolute && counters::is_nothing(&counted.value) {
            continue;
        }
        let others = if counted.absolute {
            counters::forget_counted(replica, table.tid, key, column, new, seen)?
        } else {
            let shown = if ours { None } else { shown_counter(replica, table, key, column)? };
            if let Some(before) = counted.before.as_ref().or(shown.as_ref()) {
                counters::put_base(replica, table, key, column, before)?;
            }
            false
        };
        let entry = Entry::of(column, new, lamport, counted.absolute, counted.value.clone());
        counters::put_entry(&replica.db, table.tid, key, &entry)?;
        if others {
            deferred::defer(replica, table.tid, key)?;
        } else if !ours && (new.kind == OpKind::Update || new.columns.is_some()) {
            show_total(replica, table, key, column)?;
        }
    }
    Ok(())
}

/// Returns what a counter of a row shows, in its table or in the quarantine table.
fn shown_counter(replica: &Replica, table: &Table, key: &[u8], column: usize) -> Result<Option<OwnedValue>> {
    Ok(compose::row_of(replica, table, key)?.map(|mut row| row.swap_remove(column)))
}

/// Shows what the counters of a row come to.
pub(crate) fn show_totals(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    table.counters.iter().try_for_each(|column| show_total(replica, table, key, *column))
}

/// Shows what a counter comes to where the row is: in its table or in the quarantine table.
fn show_total(replica: &Replica, table: &Table, key: &[u8], column: usize) -> Result<()> {
    let entries = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    match counters::total(table, &entries, column) {
        Some(total) => set(replica, table, key, column, &total),
        None => Ok(()),
    }
}

/// Sets a counter of a row where the row is.
pub(crate) fn set(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    value: &OwnedValue,
) -> Result<()> {
    if compose::shown_row(replica, table, key)?.is_some_and(|row| row[column].borrow() == value.borrow()) {
        return Ok(());
    }
    if !set_in(replica, &table.sql_name, table, key, column, value)? {
        set_in(replica, &table.quarantine_table(), table, key, column, value)?;
    }
    Ok(())
}

/// Sets a counter of a row in the table of this name. Returns whether the row is there.
fn set_in(
    replica: &Replica,
    name: &str,
    table: &Table,
    key: &[u8],
    column: usize,
    value: &OwnedValue,
) -> Result<bool> {
    let c = value::column(&table.def.columns[column].name);
    let keys = value::read_key(key)?;
    let sql = format!("UPDATE {OR_ABORT} {name} SET {c} = ?1 WHERE {}", table.key_match_from(1));
    let params = std::iter::once(value).chain(&keys).map(|v| Bind(v.borrow()));
    triggers::execute(replica, table, &sql, params_from_iter(params)).map(|changed| changed > 0)
}
