//! What a table is on other devices, by the definition that each of them announced last: a declaration of its own kind,
//! so that it travels with every state.
//!
//! A device whose table Packmule made announces none: columns follow there.

use packmule_core::wire::DefId;

use crate::engine::error::Result;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::declared::Subject;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Records the definition that a device announced of a table, in a frame of this number.
pub(crate) fn record_shape(
    replica: &Replica,
    tid: i64,
    (dev, seq, lamport): (i64, u64, u64),
    id: DefId,
) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_declared SET past = 1 WHERE tid = ?1 AND what = ?2 AND dev = ?3 AND seq < ?4",
        )?
        .execute((tid, Subject::Shape, dev, seq))?;
    replica
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
             VALUES (?1, ?2, '', ?3, ?4, ?5, ?6, 0, ?6)",
        )?
        .execute((tid, Subject::Shape, dev, seq, lamport, id.0))?;
    Ok(())
}

/// Returns whether this device has announced a table itself: the others count on what it announced last.
pub(crate) fn has_announced(replica: &Replica, tid: i64) -> Result<bool> {
    let mut statement = replica
        .db
        .prepare_cached("SELECT 1 FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND dev = ?3 LIMIT 1")?;
    Ok(statement.exists((tid, Subject::Shape, replica.me))?)
}

/// Returns the definitions that the other devices, which are not retired, announced last of a table: those that are not
/// what it is here.
pub(crate) fn shapes(replica: &Replica, table: &Table) -> Result<Vec<DefId>> {
    shapes_but_of(replica, table, Some(replica.me))
}

/// Returns the definitions that all devices but one, and those that are retired, announced last of a table: those that are
/// not what it is here.
fn shapes_but_of(replica: &Replica, table: &Table, but: Option<i64>) -> Result<Vec<DefId>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT p.def, max(p.seq) FROM _pm_declared p JOIN _pm_device d ON d.n = p.dev
         WHERE p.tid = ?1 AND p.what = ?2 AND p.dev IS NOT ?3 AND (NOT d.retired OR p.dev = ?4) AND d.trust <> 3 GROUP BY p.dev",
    )?;
    let ids =
        statement.query_map((table.tid, Subject::Shape, but, replica.me), |row| Ok(DefId(row.get(0)?)))?;
    let mut ids = ids.collect::<rusqlite::Result<Vec<_>>>()?;
    ids.retain(|id| *id != table.def_id);
    Ok(ids)
}

/// Returns the columns of a table that some device does not have yet, as far as it has announced: they count in no digest.
/// So does one that this device has followed, until its own log says so.
pub(crate) fn lacking_columns(replica: &Replica, table: &Table) -> Result<Columns> {
    let mut lacking = Columns::default();
    for id in shapes_but_of(replica, table, None)? {
        let theirs = catalog::op_def(replica, id)?;
        for (at, column) in table.def.columns.iter().enumerate() {
            if theirs.def.mode == table.def.mode && theirs.def.column(&column.name).is_none() {
                lacking.insert(at);
            }
        }
    }
    Ok(lacking)
}
