//! What of a revoked author is still taken in: what others had taken in before they heard of it.
//!
//! **Invariant.** Of the shared stream of a revoked author is applied what was here when this device heard of the
//! revocation, and up to where a device that is not revoked says that it had seen it: in the context of one of its
//! groups that is in the log here, applied or pending. The rest is *void*: it stays in the log, set aside, and
//! holds up nobody, until it is vouched for or the revocation is taken back.
//!
//! **Why all stay equal.** Who hears of a revocation seals at once what it has of the author. So what any device had
//! applied of it before is in the context of one of its groups, and each device that has this group applies the same
//! of the revoked author. Nothing else decides: not who brought the frames, nor in which order. Of two histories that were
//! signed with its key one is given up for the other, as of any author (`exchange/give_up.rs`).
//!
//! A per-device stream stands in no context. Of it counts what a device that is not revoked has acknowledged: what it
//! has applied, it took in before it heard of the revocation, or by this same rule.

use packmule_core::model::Stream;
use packmule_core::wire::FrameFlags;

use crate::engine::error::Result;
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::revocation;
use crate::engine::log::{contexts, frames, gave_up};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// Hears what the author of a group that came had seen of revoked devices, and what it gave up of others. `flags` are those of
/// its first frame: of most it is not read for this.
pub(crate) fn hear_group(
    replica: &Replica,
    (dev, stream): (i64, Stream),
    first: u64,
    flags: FrameFlags,
) -> Result<()> {
    if stream == Stream::Shared && flags.has(FrameFlags::GAVE_UP) {
        let body = frames::frame_here(replica, dev, stream, first)?;
        gave_up::hear(replica, dev, &frames::parse(&body)?)?;
    }
    count_context(replica, dev, stream, first)
}

/// Counts what the author of a group had seen of revoked devices.
fn count_context(replica: &Replica, dev: i64, stream: Stream, first: u64) -> Result<()> {
    if !revocation::any(replica)? || revocation::is_revoked(replica, dev)? {
        return Ok(());
    }
    let body = frames::frame_here(replica, dev, stream, first)?;
    // A number that a pending group introduces is not known yet: `count_pending` comes when it is.
    for (id, seq) in contexts::context(replica, dev, stream, &frames::parse(&body)?)? {
        if let Some(other) = devices::device_number(replica, id)? {
            raise(replica, other, seq)?;
        }
    }
    Ok(())
}

/// Counts anew the contexts of the pending groups of a stream: it has given devices numbers.
pub(crate) fn count_pending(replica: &Replica, dev: i64, stream: Stream) -> Result<()> {
    let mut pending = replica.db.prepare_cached(
        "SELECT first FROM _pm_group INDEXED BY _pm_group_waiting WHERE dev = ?1 AND stream = ?2 AND NOT applied",
    )?;
    let firsts = pending.query_map((dev, stream.number()), |row| row.get(0))?;
    firsts
        .collect::<rusqlite::Result<Vec<u64>>>()?
        .into_iter()
        .try_for_each(|first| count_context(replica, dev, stream, first))
}

fn raise(replica: &Replica, dev: i64, seq: u64) -> Result<()> {
    replica
        .db
        .prepare_cached("UPDATE _pm_revocation SET vouched = max(vouched, ?2) WHERE dev = ?1")?
        .execute((dev, seq))?;
    Ok(())
}

/// Counts anew what all that is in the log here says of revoked devices: who is revoked has changed.
pub(crate) fn recount(replica: &Replica) -> Result<()> {
    replica.db.execute(
        "UPDATE _pm_revocation AS r SET vouched = coalesce((SELECT max(c.seq) FROM _pm_context c
           JOIN _pm_device d ON d.n = c.dev WHERE c.other = r.dev AND d.trust IN (?1, ?2)), 0)",
        (Trust::Singly, Trust::ByFleet),
    )?;
    let mut pending = replica
        .db
        .prepare("SELECT dev, stream, first FROM _pm_group INDEXED BY _pm_group_waiting WHERE NOT applied")?;
    let mut rows = pending.query([])?;
    while let Some(row) = rows.next()? {
        count_context(replica, row.get(0)?, value::stream_of_number(row.get(1)?)?, row.get(2)?)?;
    }
    Ok(())
}
