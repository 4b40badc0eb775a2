//! Moves rows between their table and the quarantine table beside it.

use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::compose;
use crate::engine::show::{triggers, write};
use crate::engine::store::value::{self, Bind};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Moves a row from its table to the quarantine table; one that is there already stays.
pub(crate) fn move_to_quarantine(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    copy_to_quarantine(replica, table, key)?;
    write::delete_row(replica, table, key)
}

/// Copies a row from its table to the quarantine table; one that is there already stays.
pub(crate) fn copy_to_quarantine(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    let values = value::read_key(key)?;
    let columns = table.column_list();
    let sql = format!(
        "INSERT OR REPLACE INTO {} ({columns}) {}",
        table.quarantine_table(),
        table.select_sql(&columns)
    );
    replica.db.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
    Ok(())
}

/// Moves a row from the quarantine table to its table; with `replace`, removes the rows that it conflicts with.
pub(crate) fn move_from_quarantine(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    replace: bool,
) -> Result<()> {
    let values = value::read_key(key)?;
    let columns = table.column_list();
    let sql = format!(
        "INSERT {} INTO {} ({columns}) SELECT {columns} FROM {} WHERE {}",
        if replace { "OR REPLACE" } else { "" },
        table.sql_name,
        table.quarantine_table(),
        table.key_match_from(0)
    );
    triggers::firing(replica, table, || {
        let values = values.iter().map(|v| Bind(v.borrow()));
        Ok(replica.db.prepare_cached(&sql)?.execute(params_from_iter(values))?)
    })?;
    compose::delete_from(replica, &table.quarantine_table(), table, key)
}
