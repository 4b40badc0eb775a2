//! Counters: columns whose concurrent additions add up.
//!
//! An update carries what it added. An insert or a delete is absolute: it carries what the counter was.
//!
//! **Invariant.** A counter is the greatest of the absolute values that no later absolute write had seen, plus
//! every addition that none of those had seen. `_pm_count` has exactly these once any absolute value is remembered.
//! While none is, the counter is what the table shows, and additions are added to it as they come.
//!
//! **Why it holds.** An absolute write removes what its context covers, additions and absolute values, by the same
//! rule as a version removes heads; an addition removes nothing. Groups are applied in causal order, so what is
//! left is a function of the set of groups. Maximum and sum do not depend on the order. The sum wraps at 64 bits,
//! since one that saturates or fails would depend on it. While no absolute value is remembered the shown value is
//! a sum too, and additions commute.
//!
//! Compaction forgets the entries of a row all together, once all are stable: the shown value then contains them,
//! and whatever comes later has them in its context. A version from before the column was a counter counts as
//! absolute. A column that was ever a counter stays one.

use packmule_core::merge::{Version, dominates};

use rusqlite::Connection;

use crate::engine::error::Result;
use crate::engine::fleet::devices;
use crate::engine::merge::heads::{Head, Seen};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Records the value of a version from before the column was a counter as absolute.
pub(crate) fn count_as_is(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    column: usize,
    head: &Head,
    value: &OwnedValue,
) -> Result<()> {
    let (dev, seq, value) = (head.dev, head.seq, value::number(value));
    put_entry(&replica.db, table.tid, key, &Entry { column, dev, seq, absolute: true, value })
}

/// Forgets what an absolute write had seen. Returns whether any entry is left.
pub(crate) fn forget_counted(
    replica: &Replica,
    tid: i64,
    key: &[u8],
    column: usize,
    new: &Head,
    seen: &Seen<'_>,
) -> Result<bool> {
    let mut left = false;
    for entry in entries(&replica.db, "_pm_count", tid, key)?.into_iter().filter(|e| e.column == column) {
        let author = devices::device_id(replica, entry.dev)?;
        let old = Version { author, seq: entry.seq, wall: 0, delete: false };
        if dominates(new.author, matches!(seen, Seen::ContextFree), &old, seen.of(entry.dev)) {
            forget_entry(&replica.db, tid, key, &entry)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// Returns whether an absolute value of a counter is remembered.
pub(crate) fn has_absolute(replica: &Replica, tid: i64, key: &[u8], column: usize) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND absolute = 1 LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, key, column as i64))?.is_some())
}

/// A recent write to a counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub column: usize,
    pub dev: i64,
    pub seq: u64,
    pub absolute: bool,
    pub value: i64,
}

impl Entry {
    /// Returns whether two are the same write.
    pub(crate) fn same_write(&self, other: &Self) -> bool {
        (self.column, self.dev, self.seq) == (other.column, other.dev, other.seq)
    }
}

/// Reads what is remembered of a row's counters, from `_pm_count` or a table like it.
pub(crate) fn entries(db: &Connection, from: &str, tid: i64, key: &[u8]) -> Result<Vec<Entry>> {
    let sql = format!("SELECT col, dev, seq, absolute, value FROM {from} WHERE tid = ?1 AND key = ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map((tid, key), |row| {
        Ok(Entry {
            column: row.get(0)?,
            dev: row.get(1)?,
            seq: row.get(2)?,
            absolute: row.get(3)?,
            value: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Remembers a write to a counter.
pub(crate) fn put_entry(db: &Connection, tid: i64, key: &[u8], entry: &Entry) -> Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO _pm_count (tid, key, col, dev, seq, absolute, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((tid, key, entry.column as i64, entry.dev, entry.seq, entry.absolute, entry.value))?;
    Ok(())
}

/// Forgets a write to a counter.
pub(crate) fn forget_entry(db: &Connection, tid: i64, key: &[u8], entry: &Entry) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND dev = ?4 AND seq = ?5",
    )?
    .execute((tid, key, entry.column as i64, entry.dev, entry.seq))?;
    Ok(())
}
