//! The order in which the columns of a table stood when it was looked at last.
//!
//! A column that is dropped and added again between two looks is another one, with other values in it, though its name and
//! its type may be the same and the triggers be still there. It stands last then: by that it is noticed.

use crate::engine::capture::column_numbers;
use crate::engine::error::Result;
use crate::engine::store::meta;
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

fn entry(tid: i64) -> String {
    format!("column order {tid}")
}

/// Remembers the order of a table's columns.
pub(crate) fn remember(replica: &Replica, tid: i64, table: &str) -> Result<()> {
    let mut statement = replica.db.prepare_cached("SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let names = statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    meta::set_names(&replica.db, &entry(tid), &names)
}

/// Returns the columns of a table in the order in which they stood then; none, if it is not known.
pub(crate) fn names(replica: &Replica, tid: i64) -> Result<Vec<String>> {
    meta::names(&replica.db, &entry(tid))
}

/// Forgets it.
pub(crate) fn forget(replica: &Replica, tid: i64) -> Result<()> {
    meta::forget(&replica.db, &entry(tid))
}

/// Returns whether those columns of a table that were there at the last look, some of them `renamed` since, stand in the
/// order that they had.
pub(crate) fn is_kept(
    replica: &Replica,
    tid: i64,
    now: &TableDef,
    renamed: &[(String, String)],
) -> Result<bool> {
    let before = names(replica, tid)?;
    let names = before.iter().map(|name| column_numbers::name_after(renamed, name));
    Ok(names.filter_map(|name| now.column(name)).is_sorted())
}
