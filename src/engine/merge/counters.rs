//! Counters: columns whose concurrent additions add up.
//!
//! An update carries what it added. An insert or delete is absolute: it carries what the counter
//! was. A counter is the greatest of the absolute values that no later absolute write had seen,
//! plus every addition that none of those had seen; without absolute writes in memory, what the
//! table shows plus what comes in. Sums wrap at 64 bits, so that they do not depend on the order.

use packmule_core::merge::{Version, dominates};

use crate::engine::error::Result;
use crate::engine::fleet::devices;
use crate::engine::merge::heads::{Head, Seen};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// A version from before the column was a counter said what it is.
pub(crate) fn count_as_is(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    head: &Head,
    value: &OwnedValue,
) -> Result<()> {
    replica.db
        .prepare_cached(
            "INSERT OR REPLACE INTO _pm_count (tid, key, col, dev, seq, absolute, value) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)",
        )?
        .execute((table.tid, key, column as i64, head.dev, head.seq, value::number(value)))?;
    Ok(())
}

/// Forgets what an absolute write had seen; whether anything is left.
pub(crate) fn forget_counted(
    replica: &Replica,
    tid: i64,
    key: &[u8],
    column: usize,
    new: &Head,
    seen: &Seen<'_>,
) -> Result<bool> {
    let mut statement = replica
        .db
        .prepare_cached("SELECT dev, seq FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3")?;
    let entries = statement
        .query_map((tid, key, column as i64), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut left = false;
    for (dev, seq) in entries {
        let old = Version { author: devices::device_id(replica, dev)?, seq, wall: 0, delete: false };
        if dominates(new.author, matches!(seen, Seen::Blind), &old, seen.of(dev)) {
            replica.db
                .prepare_cached(
                    "DELETE FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND dev = ?4 AND seq = ?5",
                )?
                .execute((tid, key, column as i64, dev, seq))?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

pub(crate) fn has_absolute(replica: &Replica, tid: i64, key: &[u8], column: usize) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND absolute = 1 LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, key, column as i64))?.is_some())
}
