//! Tables that are suspended: what their application had seen when they were.
//!
//! **Invariant.** A suspended table shows what was applied when it was suspended, and its application sees nothing of what
//! others write until it goes on. So what it writes meanwhile follows the versions of then, and is concurrent with all that
//! came since. `_pm_suspended` has up to where each device's stream was applied then.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::KeptRun;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::heads::Head;
use crate::engine::store::{meta, value};
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// The most bytes of a run in a frame.
const RUN_MOST: usize = 36;

/// Suspends a table, for this reason; or tells the reason anew.
pub(crate) fn suspend(replica: &Replica, table: &Table, reason: &str) -> Result<()> {
    if table.state == State::Tracked {
        replica.db.execute(
            "INSERT OR REPLACE INTO _pm_suspended (tid, dev, seq)
             SELECT ?1, n, coalesce((SELECT seq FROM _pm_stream WHERE dev = n AND stream = ?2), 0) FROM _pm_device",
            (table.tid, Stream::Shared.number()),
        )?;
    }
    let sql = "UPDATE _pm_table SET state = ?3, note = ?2 WHERE tid = ?1";
    replica.db.execute(sql, (table.tid, reason, State::Suspended))?;
    Ok(())
}

/// Returns the runs of frames that have come since, and that its application has not seen. `None` if nobody remembers, or if
/// they do not fit into half a frame: it counts as one that has seen nothing.
pub(crate) fn come_since(replica: &Replica, tid: i64) -> Result<Option<Vec<KeptRun>>> {
    let mut statement = replica.db.prepare(
        "SELECT d.id, coalesce(t.seq, 0) + 1, s.seq FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev
         LEFT JOIN _pm_suspended t ON t.tid = ?1 AND t.dev = s.dev
         WHERE s.stream = ?2 AND s.dev <> ?3 AND s.seq > coalesce(t.seq, 0)
           AND EXISTS (SELECT 1 FROM _pm_suspended WHERE tid = ?1) ORDER BY d.id",
    )?;
    let rows = statement.query_map((tid, Stream::Shared.number(), replica.me), |row| {
        Ok(KeptRun { device: DeviceId(row.get(0)?), first: row.get(1)?, last: row.get(2)? })
    })?;
    let runs = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Some(runs).filter(|runs| !runs.is_empty() && runs.len() * RUN_MOST <= replica.options.frame_bytes / 2))
}

/// Returns whether the application of a suspended table had seen a version: it was applied before.
pub(crate) fn has_seen(replica: &Replica, tid: i64, head: &Head) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_suspended WHERE tid = ?1 AND dev = ?2 AND seq >= ?3";
    let is_own = head.dev == replica.me || head.dev == BASELINE;
    Ok(is_own || value::maybe::<i64>(&replica.db, sql, (tid, head.dev, head.seq))?.is_some())
}

/// Returns whether versions of a row have come while its table was suspended: they are still to be shown.
pub(crate) fn is_held(replica: &Replica, tid: i64, key: &[u8]) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_held WHERE tid = ?1 AND key = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (tid, key))?.is_some())
}

/// Forgets what the application of a table had seen: it goes on, or is let go.
pub(crate) fn forget(replica: &Replica, tid: i64) -> Result<()> {
    replica.db.execute("DELETE FROM _pm_suspended WHERE tid = ?1", [tid])?;
    Ok(())
}

/// Returns the name under which `_pm_meta` has that a held table was made anew.
pub(crate) fn flag(tid: i64) -> String {
    format!("made anew {tid}")
}

/// Returns whether a table was made anew while it was held, and has not gone on since.
pub(crate) fn is_made_anew(replica: &Replica, tid: i64) -> Result<bool> {
    Ok(meta::get::<bool>(&replica.db, &flag(tid))? == Some(true))
}

/// Returns whether a table is to be restated when it goes on: it was made anew, or columns of it have other values than its
/// triggers, which are still the same, have told.
pub(crate) fn is_to_restate(replica: &Replica, tid: i64) -> Result<bool> {
    Ok(meta::get::<bool>(&replica.db, &flag(tid))?.is_some())
}
