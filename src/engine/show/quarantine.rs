//! Moves rows between their table and the quarantine table beside it.

use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::compose;
use crate::engine::show::{triggers, write};
use crate::engine::store::value::{self, Bind};
use crate::engine::table::known::Table;
use crate::engine::table::large;
use crate::engine::table::replica::Replica;

/// Moves a row from its table to the quarantine table; one that is there already stays.
pub(crate) fn move_to_quarantine(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    copy_to_quarantine(replica, table, key)?;
    write::delete_row(replica, table, key)
}

/// Copies a row from its table to the quarantine table; one that is there already stays.
pub(crate) fn copy_to_quarantine(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    let large = large_columns(replica, table, table.place(), key)?;
    let (from, to) = (table.sql_name.as_str(), table.quarantine_table());
    copy(replica, table, key, "OR REPLACE", (from, &to), &large)?;
    let names = (table.place(), to.as_str());
    large.iter().try_for_each(|column| large::copy(replica, table, key, *column, names))
}

/// Moves a row from the quarantine table to its table; with `replace`, removes the rows that it conflicts with.
pub(crate) fn move_from_quarantine(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    replace: bool,
) -> Result<()> {
    let (from, to) = (table.quarantine_table(), table.sql_name.as_str());
    let mut large = Vec::new();
    for column in large_columns(replica, table, &from, key)? {
        if write::takes_pieces(replica, table, column)? {
            large.push(column);
        }
    }
    let verb = if replace { "OR REPLACE" } else { triggers::or_abort(replica, table)? };
    let put = || triggers::firing(replica, table, || copy(replica, table, key, verb, (&from, to), &large));
    if replace { triggers::seeing_removed(replica, put) } else { put() }?;
    let names = (from.as_str(), table.place());
    large.iter().try_for_each(|column| large::copy(replica, table, key, *column, names))?;
    compose::delete_from(replica, &table.quarantine_table(), table, key)
}

/// Returns the columns in which a row has a BLOB that is copied piece by piece: none of a table whose rows SQLite
/// reads whole.
fn large_columns(replica: &Replica, table: &Table, from: &str, key: &[u8]) -> Result<Vec<usize>> {
    if table.is_whole() { Ok(Vec::new()) } else { large::blobs(replica, table, from, key) }
}

/// Copies a row, with room for the large BLOBs in place of them.
fn copy(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    verb: &str,
    (from, to): (&str, &str),
    large: &[usize],
) -> Result<usize> {
    let values = value::read_key(key)?;
    let columns = table.column_list();
    let read: Vec<String> = (0..table.def.columns.len())
        .map(|at| (large.contains(&at), value::column(&table.def.columns[at].name)))
        .map(|(large, c)| if large { format!("zeroblob(octet_length({c}))") } else { c })
        .collect();
    let sql = format!(
        "INSERT {verb} INTO {to} ({columns}) SELECT {} FROM {from} WHERE {}",
        read.join(", "),
        table.key_match_from(0)
    );
    let values = values.iter().map(|v| Bind(v.borrow()));
    Ok(replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?)
}
