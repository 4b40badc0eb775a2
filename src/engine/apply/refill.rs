//! Gaps in a per-device stream: gone over, and filled.
//!
//! **Invariant.** What is applied here of a per-device stream is what its author wrote up to the position, but for the rows
//! of the frames in a gap that nothing later says. When what fills a gap comes, the stream goes back to where that begins
//! and is applied anew from there, in its order: so an older frame never has the last word over a later one.

use packmule_core::model::Stream;
use packmule_core::wire::{Chain, Checkpoint, FrameFlags};

use crate::engine::error::{self, Result};
use crate::engine::fleet::gaps::{self, Gap};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, peers};
use crate::engine::log::frames;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// Goes on from a group of another device that reissues its per-device tables, over frames that are missing here: they are
/// folded at their author, whose signature is on what this group goes on from. What is here of them pends no more. Another
/// base may have them: it is a gap.
///
/// So it goes on in the streams of the identities that the author had before, if these wait: what it still has of their rows
/// is in the group.
pub(crate) fn go_on_from(replica: &Replica, dev: i64, checkpoint: &Checkpoint) -> Result<()> {
    let Checkpoint { stream, first, prev, .. } = *checkpoint;
    if stream != Stream::PerDevice || dev == replica.me {
        return Ok(());
    }
    let body = frames::frame_here(replica, dev, stream, first)?;
    if !frames::parse(&body)?.head.flags.has(FrameFlags::REISSUES) {
        return Ok(());
    }
    go_over(replica, dev, first - 1, prev)?;
    gaps::ask(replica, dev, false)?;
    for before in devices::issuers(&replica.db, dev)? {
        let Some(before) = devices::device_number(replica, before)?.filter(|dev| *dev != replica.me) else {
            continue;
        };
        if let Some(Checkpoint { first, prev, .. }) = first_waiting(replica, before)? {
            go_over(replica, before, first - 1, prev)?;
        }
    }
    Ok(())
}

/// Goes on with what waits of a per-device stream beyond frames that are lost: its author says that it has less itself, as one
/// that was set back, and no base has them. Until it has reissued its rows, this device says that it has the stream up to the gap
/// alone (`fleet/gaps.rs`): should that be an older word, or a copy's, the frames come again. Returns whether it did.
pub(crate) fn go_on_over_lost(replica: &Replica, dev: i64) -> Result<bool> {
    let stream = Stream::PerDevice;
    if !replica.identity.base || dev == replica.me || peers::may_be_of_other_history(replica, dev)? {
        return Ok(false);
    }
    let Some(Checkpoint { first, prev, .. }) = first_waiting(replica, dev)? else { return Ok(false) };
    let lost = first - 1;
    if positions::position(replica, dev, stream)?.seq >= lost || !gaps::is_lost_to_all(replica, dev, lost)? {
        return Ok(false);
    }
    go_over(replica, dev, lost, prev)?;
    gaps::ask(replica, dev, true)?;
    Ok(true)
}

/// Returns the checkpoint of the first group of a per-device stream that waits.
fn first_waiting(replica: &Replica, dev: i64) -> Result<Option<Checkpoint>> {
    let sql = "SELECT checkpoint FROM _pm_group INDEXED BY _pm_group_waiting
               WHERE dev = ?1 AND stream = ?2 AND NOT applied ORDER BY first LIMIT 1";
    let bytes: Option<Vec<u8>> = value::maybe(&replica.db, sql, (dev, Stream::PerDevice.number()))?;
    bytes.map(|bytes| Checkpoint::decode(&bytes).map_err(error::bad)).transpose()
}

/// Goes on in a per-device stream after a frame, over those before it that are missing here, if any are.
fn go_over(replica: &Replica, dev: i64, seq: u64, chain: Chain) -> Result<()> {
    let stream = Stream::PerDevice;
    let had = positions::position(replica, dev, stream)?;
    if had.seq >= seq {
        return Ok(());
    }
    let had = gaps::gap(replica, dev)?.map_or(had, |gap| gap.had);
    let up_to = keep_before(replica, dev, (had.seq, seq), chain)?;
    frames::forget_pending(&replica.db, dev, stream, up_to)?;
    membership::raise_floor(replica, dev, stream, up_to)?;
    positions::set_position(replica, dev, stream, StreamPosition { seq, chain })?;
    if replica.identity.base {
        gaps::record(replica, dev, &Gap { had, up_to, alike: Vec::new() })?;
    }
    Ok(())
}

/// Keeps in the log the groups that pend right before what a stream goes on from, for others and for when the gap is filled:
/// what they say that is left is said again. Returns the last frame before them.
fn keep_before(replica: &Replica, dev: i64, (had, seq): (u64, u64), mut chain: Chain) -> Result<u64> {
    let mut up_to = seq;
    let sql = "SELECT checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3 AND chain = ?4 AND NOT applied";
    let keep = "UPDATE _pm_group SET applied = 1 WHERE dev = ?1 AND stream = ?2 AND last = ?3";
    let stream = Stream::PerDevice.number();
    while let Some(bytes) = value::maybe::<Vec<u8>>(&replica.db, sql, (dev, stream, up_to, chain.0))? {
        let checkpoint = Checkpoint::decode(&bytes).map_err(error::bad)?;
        if checkpoint.first <= had + 1 {
            break;
        }
        replica.db.prepare_cached(keep)?.execute((dev, stream, up_to))?;
        (up_to, chain) = (checkpoint.first - 1, checkpoint.prev);
    }
    Ok(up_to)
}

/// Returns up to where the stream of a group is applied here, and whether the group is news: it is beyond that, or the first
/// one in a gap.
pub(crate) fn place_of(replica: &Replica, dev: i64, group: &Checkpoint) -> Result<(u64, bool)> {
    let Checkpoint { stream, first, last, .. } = *group;
    let position = positions::position(replica, dev, stream)?.seq;
    let gap = if last > position { None } else { gap_at(replica, dev, stream, first)? };
    Ok((position, last > position || gap.is_some_and(|gap| gap.had.seq + 1 == first)))
}

/// Returns whether a frame is beyond what is applied of its stream, or in the gap in that.
pub(crate) fn is_frame_news(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<bool> {
    Ok(seq > positions::position(replica, dev, stream)?.seq || gap_at(replica, dev, stream, seq)?.is_some())
}

/// Finds the gap in a stream that a frame is in, and that can be filled.
fn gap_at(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Option<Gap>> {
    if stream != Stream::PerDevice {
        return Ok(None);
    }
    match gaps::gap(replica, dev)?.filter(|gap| seq > gap.had.seq && seq <= gap.up_to) {
        Some(gap) => Ok(gaps::is_rest_in_log(replica, dev, &gap)?.then_some(gap)),
        None => Ok(None),
    }
}

/// Goes back to where the gap in a stream begins, if this is the frame that follows there: it is to be filled.
pub(crate) fn go_back_for(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<()> {
    match gap_at(replica, dev, stream, seq)?.filter(|gap| gap.had.seq + 1 == seq) {
        Some(gap) => go_back(replica, dev, &gap),
        None => Ok(()),
    }
}

/// Goes back to where a gap begins. What was taken in after it is pending again.
pub(crate) fn go_back(replica: &Replica, dev: i64, gap: &Gap) -> Result<()> {
    let stream = Stream::PerDevice;
    gaps::close(replica, dev)?;
    replica
        .db
        .prepare_cached("UPDATE _pm_group SET applied = 0 WHERE dev = ?1 AND stream = ?2 AND first > ?3")?
        .execute((dev, stream.number(), gap.had.seq))?;
    positions::set_back(replica, dev, stream, gap.had)
}
