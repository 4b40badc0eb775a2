//! Late writes to a row of a table that is held: its columns may be called otherwise there, or be gone.
//!
//! What is settled of the row is kept as by `late.rs`, of the columns that the table still has. What becomes of the others
//! nobody asks once the change is carried out everywhere; if it is undone, they are as the table has them then.

use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::folds::{self, Fold};
use crate::engine::merge::heads::Head;
use crate::engine::merge::late;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::renamed;
use crate::engine::table::replica::Replica;

/// Keeps what is settled of a row as a baseline version, before a late write to it is registered. `old` are the heads of the
/// row.
pub(crate) fn keep_settled(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    new: &Head,
    old: &[Head],
    unseen: Fold,
) -> Result<()> {
    if late::settled_columns(table, new, old).is_empty() {
        return Ok(());
    }
    if folds::settled_before(replica, table.tid, key, unseen)? {
        return Ok(());
    }
    let Some((row, there)) = row_there(replica, table, key)? else { return Ok(()) };
    let n = table.def.columns.len();
    let lacking = Columns::all(n).minus(&there);
    let columns = late::settled_columns(table, new, old).minus(&lacking);
    let columns = columns.minus(&late::unsaid_here(replica, table, &row)?);
    if columns.is_empty() { Ok(()) } else { late::add_settled(replica, table, key, row, columns, old) }
}

/// Reads a row of a held table, and of which columns there is a value; none where the table or its key is not there.
pub(crate) fn row_there(
    replica: &Replica,
    table: &Table,
    key: &[u8],
) -> Result<Option<(Vec<OwnedValue>, Columns)>> {
    let names = replica
        .db
        .prepare_cached("SELECT name FROM pragma_table_info(?1)")?
        .query_map([&table.def.name], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let is = |name: &str| names.iter().find(|there| there.eq_ignore_ascii_case(name));
    let mut called = Vec::new();
    for column in &table.def.columns {
        let others = renamed::names_of(replica, table.tid, &column.name)?;
        let new = |name: &String| table.def.column(name).is_none();
        let found =
            is(&column.name).or_else(|| others.iter().filter(|name| new(name)).find_map(|name| is(name)));
        called.push(found.cloned());
    }
    let keys: Option<Vec<String>> =
        table.def.keys().map(|at| called[at].as_ref().map(|name| value::column(name))).collect();
    let Some(keys) = keys else { return Ok(None) };
    let columns: Vec<String> =
        called.iter().map(|name| name.as_ref().map_or("NULL".into(), |name| value::column(name))).collect();
    let marks: Vec<String> =
        keys.iter().enumerate().map(|(at, key)| format!("{key} = ?{}", at + 1)).collect();
    let sql = format!("SELECT {} FROM {} WHERE {}", columns.join(", "), table.sql_name, marks.join(" AND "));
    let values = value::read_key(key)?;
    let mut statement = replica.db.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values.iter().map(|value| Bind(value.borrow()))))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let read = (0..columns.len()).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
    let read = read.collect::<Result<Vec<_>>>()?;
    let there = called.iter().enumerate().filter(|(_, name)| name.is_some()).map(|(at, _)| at).collect();
    Ok(Some((read, there)))
}
