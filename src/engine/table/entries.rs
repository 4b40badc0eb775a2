//! The entries of the database's schema, found by their names. SQLite has no index of them: who looks at each of n tables would
//! walk n times over all.
//!
//! **Invariant.** What is listed is the schema at the version that is listed beside it. Both lie in a temporary table, which goes
//! back together with the schema where a part of a transaction is undone: so they say nothing of another schema that got the
//! same version.

use rusqlite::{Connection, OptionalExtension};

use crate::engine::error::Result;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Lists the entries by name, unless they are: before something is looked up for one of many tables.
pub(crate) fn list(replica: &Replica) -> Result<()> {
    if is_listed(&replica.db)? {
        return Ok(());
    }
    replica.db.execute("DELETE FROM temp._pm_entry", [])?;
    replica.db.execute(
        "INSERT INTO temp._pm_entry (name, what, kind, wr, strict)
         SELECT name, 'columns', type, wr, strict FROM pragma_table_list WHERE schema = 'main'",
        [],
    )?;
    replica.db.execute(
        "INSERT INTO temp._pm_entry (name, what, place)
         SELECT name, type, rowid FROM main.sqlite_schema WHERE type IN ('table', 'trigger')
         UNION ALL SELECT '', '', ?1",
        [catalog::schema_version(&replica.db)?],
    )?;
    Ok(())
}

/// Returns whether the schema is the listed one still.
fn is_listed(db: &Connection) -> Result<bool> {
    let version = "SELECT place FROM temp._pm_entry WHERE name = '' AND what = ''";
    Ok(value::maybe::<i64>(db, version, [])? == Some(catalog::schema_version(db)?))
}

/// What SQLite says of something that has columns.
pub(crate) struct Kind {
    /// As it was spelled when it was made.
    pub name: String,
    /// `table`, `view`, `virtual` or `shadow`.
    pub kind: String,
    pub without_rowid: bool,
    pub strict: bool,
}

/// Returns what the table or view of this name is.
pub(crate) fn kind_of(db: &Connection, name: &str) -> Result<Option<Kind>> {
    let sql = match is_listed(db)? {
        true => "SELECT name, kind, wr, strict FROM temp._pm_entry WHERE name = ?1 AND what = 'columns'",
        // For one name, too, SQLite looks at all.
        false => "SELECT name, type, wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'",
    };
    let found = db.prepare_cached(sql)?.query_row([name], |row| {
        Ok(Kind { name: row.get(0)?, kind: row.get(1)?, without_rowid: row.get(2)?, strict: row.get(3)? })
    });
    Ok(found.optional()?)
}

/// Returns the `rowid` of an entry. Where the schema is not the listed one any more, it is walked.
fn place_of(replica: &Replica, what: &str, name: &str) -> Result<Option<i64>> {
    let sql = match is_listed(&replica.db)? {
        true => "SELECT place FROM temp._pm_entry WHERE name = ?1 AND what = ?2",
        false => "SELECT rowid FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type = ?2",
    };
    value::maybe(&replica.db, sql, (name, what))
}

/// Returns whether there is a table of this name.
pub(crate) fn is_table(replica: &Replica, name: &str) -> Result<bool> {
    Ok(place_of(replica, "table", name)?.is_some())
}

/// Returns what the table of a trigger is called.
pub(crate) fn table_of(replica: &Replica, trigger: &str) -> Result<Option<String>> {
    let Some(place) = place_of(replica, "trigger", trigger)? else { return Ok(None) };
    value::maybe(&replica.db, "SELECT tbl_name FROM main.sqlite_schema WHERE rowid = ?1", [place])
}

/// Returns the SQL of a trigger, if it is one of this table.
pub(crate) fn trigger(replica: &Replica, name: &str, table: &str) -> Result<Option<String>> {
    let Some(place) = place_of(replica, "trigger", name)? else { return Ok(None) };
    let sql = "SELECT sql FROM main.sqlite_schema WHERE rowid = ?1 AND tbl_name = ?2 COLLATE NOCASE";
    value::maybe(&replica.db, sql, (place, table))
}
