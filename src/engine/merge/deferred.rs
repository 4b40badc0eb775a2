//! The deferred queue: the rows that are worked out at the end of the group.
//!
//! A row goes here if it is contested, if a constraint may keep it out, or if the row that kept it out changes.
//! `show/constraints.rs` takes the queue in the order of claims.

use crate::engine::error::Result;
use crate::engine::merge::stretches;
use crate::engine::store::{temporary, value};
use crate::engine::table::replica::Replica;

/// Empties the temporary tables of the queue: once a transaction.
pub(crate) fn begin_deferring(replica: &Replica) -> Result<()> {
    for table in temporary::QUEUE {
        replica.db.prepare_cached(&format!("DELETE FROM temp.{table}"))?.execute([])?;
    }
    let quarantined = replica.db.prepare_cached("SELECT EXISTS (SELECT 1 FROM _pm_parked)")?;
    replica.quarantined.set({ quarantined }.query_row([], |row| row.get(0))?);
    Ok(())
}

/// Puts a row into the queue.
pub(crate) fn defer(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) VALUES (?1, ?2, NULL)")?
        .execute((tid, key))?;
    Ok(())
}

/// Puts all rows of a table of which versions are remembered into the queue: they are judged again.
pub(crate) fn defer_all(replica: &Replica, tid: i64) -> Result<()> {
    replica
        .db
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) SELECT DISTINCT tid, key, NULL FROM {}",
            stretches::heads_of_table()
        ))?
        .execute([tid])?;
    Ok(())
}

/// Takes a row out of the queue.
pub(crate) fn undefer(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    replica
        .db
        .prepare_cached("DELETE FROM temp._pm_put_off WHERE tid = ?1 AND key = ?2")?
        .execute((tid, key))?;
    Ok(())
}

/// Returns whether a constraint keeps a row out of its table.
pub(crate) fn is_quarantined(replica: &Replica, tid: i64, key: &[u8]) -> Result<bool> {
    if !replica.quarantined.get() {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM _pm_parked WHERE tid = ?1 AND key = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, key))?.is_some())
}
