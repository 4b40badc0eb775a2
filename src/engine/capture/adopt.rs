//! Adopts a definition for a table here.

use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::merge::kind::Kind;
use crate::engine::merge::stretches;
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// Remembers the version of the schema, so that the next seal looks at the tables only if it has changed.
pub(crate) fn remember_schema(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, catalog::SCHEMA, catalog::schema_version(&replica.db)?)
}

/// Makes a definition the table's. The next seal announces it in the log, unless it is in somebody's log already.
pub(crate) fn adopt_def(replica: &Replica, tid: i64, def: &TableDef) -> Result<()> {
    let before = catalog::table(replica, tid)?;
    let old = before.def.columns.len();
    let grows = def.columns.len() > old;
    if grows {
        make_columns_plain(replica, tid, old)?;
    }
    // The others count on what this device has announced.
    let owes = grows || def.uniques.len() < before.def.uniques.len() || !before.announced;
    let (id, body) = def.encode()?;
    let told = catalog::is_told(replica, id)?;
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO _pm_def (id, tid, body, told) VALUES (?1, ?2, ?3, 0)")?
        .execute((id.0, tid, body))?;
    replica
        .db
        .prepare_cached("UPDATE _pm_table SET def = ?2, announced = ?3, note = NULL WHERE tid = ?1")?
        .execute((tid, id.0, told && !(owes && shapes::own_shape(replica, tid)?.is_some())))?;
    Ok(())
}

/// Gives the versions that wrote the whole row the columns that this was: they say nothing of new columns.
pub(crate) fn make_columns_plain(replica: &Replica, tid: i64, n: usize) -> Result<()> {
    stretches::spread(replica, Some(tid))?;
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_head SET columns = ?2 WHERE tid = ?1 AND columns IS NULL AND kind NOT IN (?3, ?4)",
        )?
        .execute((
            tid,
            Columns::all(n).as_bytes(),
            Kind(OpKind::Delete, false),
            Kind(OpKind::Delete, true),
        ))?;
    Ok(())
}

/// Has the next seal announce a table again: others count on what is said of it. The catalog is to be reloaded.
pub(crate) fn announce_again(replica: &Replica, tid: i64) -> Result<()> {
    replica.db.execute("UPDATE _pm_table SET announced = 0 WHERE tid = ?1", [tid])?;
    Ok(())
}

/// Lets a table go on that was suspended.
pub(crate) fn resume(replica: &Replica, tid: i64) -> Result<()> {
    let sql = "UPDATE _pm_table SET state = ?2, note = NULL WHERE tid = ?1";
    replica.db.execute(sql, (tid, State::Tracked))?;
    catalog::reload_table(replica, tid)
}

/// Records the reason for a table's status, for people.
pub(crate) fn set_reason(replica: &Replica, tid: i64, reason: &str) -> Result<()> {
    replica.db.execute("UPDATE _pm_table SET note = ?2 WHERE tid = ?1", (tid, reason))?;
    catalog::reload_table(replica, tid)
}
