//! Whether an import could write to a table at all.
//!
//! An index, a CHECK or a generated column may use a function or a collation that only the application has. SQLite says so
//! when a statement that writes to the table is prepared: so all that an import uses are, before the table is tracked and
//! whenever the schema has changed.

use rusqlite::ErrorCode;

use crate::engine::error::Result;
use crate::engine::table::known::{OR_ABORT, Table};
use crate::engine::table::replica::Replica;

/// Returns what keeps us from writing to a table, for people.
pub(crate) fn why_not(replica: &Replica, table: &Table) -> Result<Option<String>> {
    let all: Vec<usize> = (0..table.def.columns.len()).collect();
    let insert = table.insert_sql(&all);
    let replace = insert.replacen(OR_ABORT, "OR REPLACE", 1);
    let columns = table.column_list();
    for sql in [
        table.upsert_sql(&all),
        insert,
        replace,
        table.update_sql(&all),
        table.delete_sql(),
        table.select_sql(&columns),
    ] {
        let error = match replica.db.prepare(&sql) {
            Ok(_) => continue,
            Err(error) => error,
        };
        let what = match &error {
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            rusqlite::Error::SqliteFailure(code, Some(msg)) if code.code == ErrorCode::Unknown => msg.clone(),
            _ => return Err(error.into()),
        };
        return Ok(Some(format!(
            "{what}: only your application has that, so Packmule cannot write to the table; an index, a CHECK or a \
             generated column uses it"
        )));
    }
    Ok(None)
}
