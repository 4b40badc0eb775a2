//! Records what ops say of counters, and adds it to the rows that are shown. `merge/counters.rs` states the invariant.

use packmule_core::wire::{ColumnMerge, Op, OpKind};
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::counters::Entry;
use crate::engine::merge::heads::{Head, Seen};
use crate::engine::merge::{counters, deferred};
use crate::engine::show::triggers;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;

/// Records what an op says of counters. `ours` says that the table shows it already.
#[allow(clippy::too_many_arguments)]
pub(crate) fn count(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    def: &OpDef,
    op: &Op<'_>,
    new: &Head,
    seen: &Seen<'_>,
    ours: bool,
) -> Result<()> {
    if table.counters.is_empty() {
        return Ok(());
    }
    let mut values = Vec::new();
    for (at, value) in op.values(def.shape()) {
        let theirs = &def.def.columns[at];
        if let Some(column) = table.def.column(&theirs.name).filter(|c| table.counters.contains(c)) {
            // An update by an author to whom the column was no counter says what its value is.
            let absolute = new.kind != OpKind::Update || theirs.merge != ColumnMerge::Counter;
            values.push((column, OwnedValue::of(value).unwrap_or(OwnedValue::Null), absolute));
        }
    }
    count_values(replica, table, key, &values, new, seen, ours)
}

/// Records values of counters by column, each with whether it says what the counter is.
pub(crate) fn count_values(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    values: &[(usize, OwnedValue, bool)],
    new: &Head,
    seen: &Seen<'_>,
    ours: bool,
) -> Result<()> {
    for (column, value, absolute) in values {
        let (column, value, absolute) = (*column, value::number(value), *absolute);
        let others = if absolute {
            counters::forget_counted(replica, table.tid, key, column, new, seen)?
        } else {
            counters::has_absolute(replica, table.tid, key, column)?
        };
        let entry = Entry { column, dev: new.dev, seq: new.seq, absolute, value };
        counters::put_entry(&replica.db, table.tid, key, &entry)?;
        if others || (absolute && new.kind == OpKind::Update) {
            deferred::defer(replica, table.tid, key)?;
        } else if !absolute && !ours && value != 0 {
            add(replica, table, key, column, value)?;
        }
    }
    Ok(())
}

/// Adds to a counter where the row is: in its table or in the quarantine table.
pub(crate) fn add(replica: &Replica, table: &Table, key: &[u8], column: usize, value: i64) -> Result<()> {
    if !add_in(replica, &table.sql_name, table, key, column, value)? {
        add_below(replica, table, key, column, value)?;
    }
    Ok(())
}

/// Adds to a counter of a row in the quarantine table.
pub(crate) fn add_below(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    value: i64,
) -> Result<()> {
    add_in(replica, &table.quarantine_table(), table, key, column, value).map(|_| ())
}

/// Adds to a counter of a row in the table of this name. Returns whether the row is there.
fn add_in(
    replica: &Replica,
    name: &str,
    table: &Table,
    key: &[u8],
    column: usize,
    value: i64,
) -> Result<bool> {
    let c = value::quote(&table.def.columns[column].name);
    let keys = value::read_key(key)?;
    let sql = format!("UPDATE {name} SET {c} = _pm_add({c}, ?1) WHERE {}", table.key_match_from(1));
    let added = OwnedValue::Int(value);
    let params = std::iter::once(&added).chain(&keys).map(|v| Bind(v.borrow()));
    let changed = triggers::firing(replica, table, || {
        Ok(replica.db.prepare_cached(&sql)?.execute(params_from_iter(params.clone()))?)
    })?;
    Ok(changed > 0)
}
