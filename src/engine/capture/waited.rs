//! What waited for a table that is shown now.

use crate::engine::capture::runs;
use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::kind::WEAK;
use crate::engine::table::replica::Replica;

/// Forgets the versions of rows of which nothing is known but what waited for their table: they are settled, as where that
/// came from.
pub(crate) fn settle_shown(replica: &Replica, tid: i64) -> Result<()> {
    let settled = replica.db.execute(
        &format!(
            "DELETE FROM _pm_head AS h WHERE tid = ?1 AND dev = ?2 AND seq = 0 AND kind <= {WEAK}
             AND NOT EXISTS (SELECT 1 FROM _pm_head o WHERE o.tid = h.tid AND o.key = h.key AND (o.dev <> ?2 OR o.seq > 0))
             AND NOT EXISTS (SELECT 1 FROM _pm_parked p WHERE p.tid = h.tid AND p.key = h.key)
             AND NOT EXISTS (SELECT 1 FROM _pm_count c WHERE c.tid = h.tid AND c.key = h.key AND (c.dev <> ?2 OR c.seq > 0))"
        ),
        (tid, BASELINE),
    )?;
    if settled == 0 {
        return Ok(());
    }
    for table in ["_pm_count", "_pm_image"] {
        let sql = format!(
            "DELETE FROM {table} AS t WHERE tid = ?1
             AND NOT EXISTS (SELECT 1 FROM _pm_head h WHERE h.tid = t.tid AND h.key = t.key)"
        );
        replica.db.execute(&sql, [tid])?;
    }
    runs::forget(replica, tid)
}
