//! The rows in a table's list of changes, each once, as the table has them now: one query for all.

use packmule_core::wire::{Merge, OpKind};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::capture::ops::{Change, CounterChange, RowReader};
use crate::engine::error::Result;
use crate::engine::merge::heads::Head;
use crate::engine::merge::{counters, versions};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns whether the list has every row once, in the order in which the table has them, as where rows were added: then
/// nothing is to be sorted, each entry is all that there is of its row, and what is alike stays together.
pub(crate) fn are_in_order(replica: &Replica, table: &Table) -> Result<bool> {
    let sql = if table.def.integer_key() {
        format!("SELECT k1 FROM {} ORDER BY rowid", table.dirty())
    } else if table.def.without_rowid {
        return Ok(false);
    } else {
        // Entries of one row find the same rowid.
        let rowid = table.def.rowid_name();
        format!("SELECT {ROW}.{rowid} FROM {} AS d {} ORDER BY d.rowid", table.dirty(), joined_row(table))
    };
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        match row.get_ref(0)? {
            ValueRef::Integer(at) if last.is_none_or(|last| at > last) => last = Some(at),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// What a row of a table is called beside its entry `d` in the list of changes.
const ROW: &str = "_pm_row";

/// Returns the join of the row that an entry of the list of changes, `d`, is about. The entry's key has no affinity there,
/// as a bound one would not.
fn joined_row(table: &Table) -> String {
    let keys = table.def.keys().map(|at| value::column(&table.def.columns[at].name));
    let same: Vec<String> = keys.enumerate().map(|(n, key)| format!("{ROW}.{key} = +d.k{}", n + 1)).collect();
    format!("LEFT JOIN {} AS {ROW} ON {}", table.sql_name, same.join(" AND "))
}

/// Returns the query of the rows in the list of changes, each once: the columns of the row as its table has it, and
/// whether it is there; then those of [`net_changes_sql`].
pub(crate) fn sql(reader: &RowReader<'_>, in_order: bool) -> String {
    let table = reader.table;
    let (prefix, changes) = (format!("{ROW}."), net_changes_sql(table, in_order));
    let first = table.def.keys().next().map(|at| value::column(&table.def.columns[at].name));
    let present = format!("{prefix}{} IS NOT NULL", first.unwrap_or_default());
    let (columns, row) = (reader.columns(&prefix), joined_row(table));
    if in_order {
        let dirty = table.dirty();
        return format!("SELECT {columns}, {present}, {changes} FROM {dirty} AS d {row} ORDER BY d.rowid");
    }
    format!("SELECT {columns}, {present}, d.* FROM ({changes}) AS d {row}")
}

/// Returns the query of the rows from one key to another that are new, as [`sql`] has those which its list says are new.
pub(crate) fn fresh_sql(reader: &RowReader<'_>) -> String {
    let (name, rowid) = (&reader.table.sql_name, reader.table.def.rowid_name());
    let (columns, new) = (reader.columns(""), ChangeFlags::INSERT);
    format!(
        "SELECT {columns}, 1, {rowid}, {new}, NULL, 0 FROM {name} WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid}"
    )
}

/// Returns what is told of an entry of the list of changes: the key's columns, the change flags, the last wall time, the
/// masks, what the counters were before, and whether some entry lacks masks or counters. `in_order`: the list has one
/// entry a row, and these are its columns; else the query of one row a key.
fn net_changes_sql(table: &Table, in_order: bool) -> String {
    let def = &table.def;
    let (masks, counters) = (dirty::masks(table), def.counters());
    let keys: Vec<String> = (1..=def.keys().count()).map(|n| format!("d.k{n}")).collect();
    let keys = keys.join(", ");
    let united = |of: &str| if in_order { format!("coalesce({of}, 0)") } else { format!("_pm_or({of})") };
    let first = |by: &str, of: &str| match in_order {
        true => of.to_owned(),
        false => format!("_pm_first({by}, {of}) FILTER (WHERE {of} IS NOT NULL)"),
    };
    let note = if in_order { "d.note".into() } else { united("d.note") };
    let mut columns = vec![keys.clone(), note];
    // Of the last write: a clock that was ahead once must not win for ever.
    columns.push(if def.timed() { first("-d.rowid", "d.wall") } else { "NULL".into() });
    columns.extend((0..masks).map(|m| united(&format!("d.m{m}"))));
    let updates = format!("d.note IN ({}, {})", ChangeFlags::UPDATE, ChangeFlags::UPDATE_UNIQUE);
    columns.extend(counters.iter().map(|at| first("d.rowid", &format!("d.o{at}"))));
    // Entries from before the table merged as it does now do not have these. A counter that was NULL is absolute anyway.
    let lacking = (0..masks).map(|m| format!("d.m{m}")).chain(counters.iter().map(|at| format!("d.o{at}")));
    let lacking: Vec<String> = lacking.map(|name| format!("{name} IS NULL")).collect();
    let lacking = if lacking.is_empty() { "0".into() } else { lacking.join(" OR ") };
    let lacks = format!("{updates} AND ({lacking})");
    columns.push(if in_order { lacks } else { format!("max({lacks})") });
    let columns = columns.join(", ");
    if in_order { columns } else { format!("SELECT {columns} FROM {} AS d GROUP BY {keys}", table.dirty()) }
}

/// Returns the change that a row of [`sql`] makes of a row that is in its table; the change flags are `flags`, in the column
/// `at`.
///
/// `unwritten` are the columns that keep what the log has for them, unless the application wrote to them.
pub(crate) fn change_of(
    table: &Table,
    row: &Row<'_>,
    (at, flags): (usize, ChangeFlags),
    heads: &[Head],
    unwritten: &Columns,
) -> Result<Change> {
    let def = &table.def;
    // Mostly there is nothing of all this, and each look into a row costs as much as a column of it.
    let wall = if def.timed() { row.get(at + 1)? } else { None };
    if flags.has(ChangeFlags::INSERT) && heads.is_empty() {
        return Ok(Change { wall, ..Change::default() });
    }
    let (masks, counted) = (dirty::masks(table), def.counters());
    let lacking = masks + counted.len() > 0 && row.get(at + 2 + masks + counted.len())?;
    let mut change = Change { wall, ..Change::default() };
    let whole = lacking || flags.has(ChangeFlags::INSERT | ChangeFlags::RESOLVED);
    // Where the whole row travels in either, an insert of a row that is known is written as its update.
    // An update of a counter or of cells is something else.
    let known = versions::winning(table, heads).is_some_and(|h| h.kind != OpKind::Delete);
    let as_insert = lacking || flags.has(ChangeFlags::INSERT) && (!known || table.needs_baseline());
    change.kind = if as_insert { OpKind::Insert } else { OpKind::Update };
    if table.unique && flags.is_within(ChangeFlags::UPDATE | ChangeFlags::MAYBE_GONE) {
        change.claim = Some(versions::claim_of(table, heads));
    }
    // A change to a row that another device has deleted restores the whole row.
    let restored = heads.iter().any(|h| h.kind == OpKind::Delete);
    let bits = (0..masks).map(|m| row.get(at + 2 + m)).collect::<rusqlite::Result<Vec<i64>>>()?;
    let written = dirty::mask_columns(&bits);
    if def.merge == Merge::Cell && masks > 0 && !whole && !restored {
        change.columns = Some(written.clone());
    }
    if !unwritten.is_empty() && (!lacking || masks == 0) && !flags.has(ChangeFlags::INSERT) {
        // What is pending in the log for such a column must not be overwritten.
        let all = change.columns.unwrap_or_else(|| Columns::all(def.columns.len()));
        change.columns = Some(all.minus(&unwritten.clone().minus(&written)));
        // A new row says all of itself. This one is not new: what its counters were is unknown, so each is absolute.
        change.kind = OpKind::Update;
    }
    if change.kind == OpKind::Update {
        for (c, column) in counted.into_iter().enumerate() {
            let before = OwnedValue::of(value::from_sql(row.get_ref(at + 2 + masks + c)?))?;
            let after = OwnedValue::of(value::from_sql(row.get_ref(column)?))?;
            // A resolution without an update leaves counters as they are.
            let added = match counters::difference(&before, &after, def.columns[column].affinity()) {
                _ if lacking => counters::carried_absolute(&after)?,
                _ if before == OwnedValue::Null => OwnedValue::Int(0),
                Some(added) => added,
                None => counters::carried_absolute(&after)?,
            };
            change.counted.push(CounterChange { column, carried: added, before });
        }
    }
    Ok(change)
}
