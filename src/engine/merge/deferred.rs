//! The rows that are put off to the end of the group.

use crate::engine::error::Result;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// `claim` is NULL until the row has been looked at.
const PUT_OFF: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_put_off (tid INTEGER, key BLOB, claim INTEGER, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS temp._pm_put_off_claim ON _pm_put_off (claim, key, tid);
    CREATE TEMP TABLE IF NOT EXISTS _pm_to_check (tid INTEGER, key BLOB, gone INTEGER NOT NULL, deleted INTEGER NOT NULL,
        PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_left (tid INTEGER, foreign_key INTEGER, value BLOB, deleted INTEGER NOT NULL,
        PRIMARY KEY (tid, foreign_key, value)) WITHOUT ROWID;
";

/// Makes the temporary tables that this file works with; once a transaction.
pub(crate) fn begin_settling(replica: &Replica) -> Result<()> {
    replica.db.execute_batch(PUT_OFF)?;
    replica.db.execute_batch(
        "DELETE FROM temp._pm_put_off; DELETE FROM temp._pm_to_check; DELETE FROM temp._pm_left",
    )?;
    let parked = replica.db.prepare_cached("SELECT EXISTS (SELECT 1 FROM _pm_parked)")?;
    replica.parked.set({ parked }.query_row([], |row| row.get(0))?);
    Ok(())
}

/// Puts a row off to the end of the group.
pub(crate) fn put_off(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) VALUES (?1, ?2, NULL)")?
        .execute((tid, key))?;
    Ok(())
}

/// Puts off all rows of a table of which versions are remembered: they are judged anew.
pub(crate) fn put_off_all(replica: &Replica, tid: i64) -> Result<()> {
    replica.db
        .prepare_cached(
            "INSERT OR REPLACE INTO temp._pm_put_off (tid, key, claim) SELECT DISTINCT tid, key, NULL FROM _pm_head WHERE tid = ?1",
        )?
        .execute([tid])?;
    Ok(())
}

pub(crate) fn no_longer_put_off(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    replica
        .db
        .prepare_cached("DELETE FROM temp._pm_put_off WHERE tid = ?1 AND key = ?2")?
        .execute((tid, key))?;
    Ok(())
}

pub(crate) fn is_parked(replica: &Replica, tid: i64, key: &[u8]) -> Result<bool> {
    if !replica.parked.get() {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM _pm_parked WHERE tid = ?1 AND key = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, key))?.is_some())
}
