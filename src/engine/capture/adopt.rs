//! A definition taken for that of a table here.

use crate::engine::error::Result;
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// Remembers the schema as it is, so that the next seal need not look at it.
pub(crate) fn remember_schema(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, "schema", schema_version(replica)?)
}

pub(crate) fn schema_version(replica: &Replica) -> Result<i64> {
    Ok(replica.db.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?)
}

/// Makes a definition the table's; it is told in the log unless somebody has told it already.
pub(crate) fn adopt_def(replica: &Replica, tid: i64, def: &TableDef) -> Result<()> {
    let old = catalog::table(replica, tid)?.def.columns.len();
    if def.columns.len() > old {
        make_columns_plain(replica, tid, old)?;
    }
    let (id, body) = def.encode()?;
    let told: Option<i64> = value::maybe(&replica.db, "SELECT 1 FROM _pm_def WHERE id = ?1", [id.0])?;
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO _pm_def (id, tid, body) VALUES (?1, ?2, ?3)")?
        .execute((id.0, tid, body))?;
    replica
        .db
        .prepare_cached("UPDATE _pm_table SET def = ?2, announced = ?3, note = NULL WHERE tid = ?1")?
        .execute((tid, id.0, told.is_some()))?;
    Ok(())
}

/// Says of versions that wrote the whole row which columns that was: they say nothing of what is new.
pub(crate) fn make_columns_plain(replica: &Replica, tid: i64, n: usize) -> Result<()> {
    replica
        .db
        .prepare_cached("UPDATE _pm_head SET columns = ?2 WHERE tid = ?1 AND columns IS NULL AND kind <> 3")?
        .execute((tid, Columns::all(n).as_bytes()))?;
    Ok(())
}

pub(crate) fn set_note(replica: &Replica, tid: i64, reason: &str) -> Result<()> {
    replica.db.execute("UPDATE _pm_table SET note = ?2 WHERE tid = ?1", (tid, reason))?;
    catalog::reload_catalog(replica)
}
