//! Causal readiness: which groups of the log may be applied, and which dependencies the others miss.
//!
//! **Invariant.** What is applied is causally closed: for every applied group of a shared stream, all that its author
//! had seen is applied too, and each stream is applied from its first frame without a gap. A seal over both streams is
//! applied whole by whoever takes both, unless its shared part is here and has to wait.
//!
//! A per-device stream has one writer: nothing can be concurrent with it, and its rows depend on nothing in other
//! streams. So it waits for no context, nor for what the shared part of the same seal waits for.
//!
//! **Why it holds.** A group is ready only if it continues its stream (first frame and chain), and if each entry of
//! its context is at most the position of that device here. A context carries only what has changed since the
//! author's last group of the stream; the groups of a stream are applied in order, so `_pm_context` has the whole
//! of it. The search goes on until no group is ready. It ends, since each step raises a position. What is applied
//! then is the largest causally closed part of what is in the log, which does not depend on the order of the
//! steps.
//!
//! Of a device that has two histories, an author may have seen the one and given it up for the other: what it had seen of the
//! one, nobody waits for. What comes of the other under these numbers is claimed (`merge/given_up.rs`).
//!
//! A group is pending for one of two reasons: frames of a device are missing ([`Dependency`]), or the other part of the
//! same seal is.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Checkpoint, Frame};

use crate::engine::apply::aside;
use crate::engine::apply::report::{Missing, Wait};
use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::{devices, positions, revocation};
use crate::engine::log::{contexts, frames, gave_up};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// A missing dependency of a group: frames of a device, up to this one.
#[derive(Clone, Copy)]
pub(crate) struct Dependency(pub DeviceId, pub u64);

/// The pending part of a stream: from its first frame to its last.
struct Pending {
    dev: i64,
    stream: Stream,
    first: u64,
    last: u64,
    /// When the first group was sealed, by its author's clock.
    wall: i64,
}

/// Returns whether a group can be read and applied here now; `with_pair` says that the other part of the same seal is
/// applied with it.
pub(crate) fn is_ready(replica: &Replica, dev: i64, group: &Next, with_pair: bool) -> Result<bool> {
    let body = frames::frame_here(replica, dev, group.stream, group.first)?;
    let frame = frames::parse(&body)?;
    Ok(!frame.is_newer() && missing_in(replica, dev, group.stream, &frame, with_pair)?.is_none())
}

/// Finds a dependency of a group that is not applied here.
fn missing_dependency(replica: &Replica, dev: i64, group: &Next) -> Result<Option<Dependency>> {
    let body = frames::frame_here(replica, dev, group.stream, group.first)?;
    missing_in(replica, dev, group.stream, &frames::parse(&body)?, false)
}

/// Finds a dependency of the group that begins with a frame.
fn missing_in(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    frame: &Frame<'_>,
    with_pair: bool,
) -> Result<Option<Dependency>> {
    if stream == Stream::PerDevice {
        return Ok(None);
    }
    for (id, seq) in contexts::context(replica, dev, stream, frame)? {
        let other = devices::device_number(replica, id)?;
        if other == Some(dev) && with_pair {
            continue; // The shared stream's part of the same seal comes first.
        }
        let have = match other {
            Some(other) => positions::position(replica, other, Stream::Shared)?.seq,
            None => 0,
        };
        let comes_never = |other| {
            Ok::<_, Error>(
                revocation::is_forked(replica, other)?
                    || gave_up::is_given_up(replica, (dev, frame.head.seq), other, seq)?,
            )
        };
        if have < seq && !other.map_or(Ok(false), comes_never)? {
            return Ok(Some(Dependency(id, seq)));
        }
    }
    Ok(None)
}

/// Returns whether a group has what only a newer Packmule can read: it waits until there is one here.
fn is_newer(replica: &Replica, dev: i64, group: &Next) -> Result<bool> {
    let body = frames::frame_here(replica, dev, group.stream, group.first)?;
    Ok(frames::parse(&body)?.is_newer())
}

/// Finds why a group cannot be applied here for what is in it, whatever else comes.
fn unfit(replica: &Replica, dev: i64, group: &Next) -> Result<Option<Missing>> {
    if is_newer(replica, dev, group)? {
        return Ok(Some(Missing::Newer));
    }
    let reason = aside::reason(replica, (dev, group.stream, group.first))?;
    Ok(reason.map(|reason| Missing::Unreadable { reason }))
}

/// Returns whether a group that begins with this frame is here and waits.
pub(crate) fn is_pending(replica: &Replica, dev: i64, stream: Stream, first: u64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_group INDEXED BY _pm_group_waiting
               WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied";
    Ok(replica.db.prepare_cached(sql)?.exists((dev, stream.number(), first))?)
}

/// Returns whether the next group of another device waits for a shared frame of this one, or a later one.
pub(crate) fn is_built_on(replica: &Replica, dev: i64, first: u64) -> Result<bool> {
    let id = devices::device_id(replica, dev)?;
    for other in pending(replica)? {
        if other.dev == dev || other.stream != Stream::Shared {
            continue;
        }
        if let Some(next) = next_group(replica, other.dev, Stream::Shared)?
            && let Some(Dependency(of, seq)) = missing_dependency(replica, other.dev, &next)?
            && of == id
            && seq >= first
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lists the streams that have pending groups.
fn pending(replica: &Replica) -> Result<Vec<Pending>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT dev, stream, min(first), max(last), min(wall) FROM _pm_group INDEXED BY _pm_group_waiting
         WHERE NOT applied GROUP BY dev, stream",
    )?;
    let mut rows = statement.query([])?;
    let mut pending = Vec::new();
    while let Some(row) = rows.next()? {
        let stream = value::stream_of_number(row.get(1)?)?;
        let (dev, first, last, wall) = (row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?);
        pending.push(Pending { dev, stream, first, last, wall });
    }
    Ok(pending)
}

/// Lists the pending groups with their missing dependencies.
pub(crate) fn pending_groups(replica: &Replica) -> Result<Vec<Wait>> {
    let mut waits = Vec::new();
    for Pending { dev, stream, first, last, wall: since } in pending(replica)? {
        let author = devices::device_label(replica, dev)?;
        if revocation::is_void(replica, dev, stream, last)? {
            waits.push(Wait { author, frames: (first, last), since, missing: Missing::Vouching });
            continue;
        }
        let next = next_group(replica, dev, stream)?;
        if let Some(group) = &next
            && let Some(missing) = unfit(replica, dev, group)?
        {
            waits.push(Wait { author, frames: (first, last), since, missing });
            continue;
        }
        let dependency = next.map(|next| missing_dependency(replica, dev, &next)).transpose()?.flatten();
        let missing = match (next, dependency) {
            (None, _) => Missing::Frames { of: author.clone(), up_to: first - 1 },
            (_, Some(Dependency(id, seq))) => {
                Missing::Frames { of: devices::name_of(replica, id)?, up_to: seq }
            }
            (Some(next), _) => Missing::OtherPart { of: author.clone(), up_to: next.pair },
        };
        waits.push(Wait { author, frames: (first, last), since, missing });
    }
    Ok(waits)
}

/// A group that continues its stream.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    pub stream: Stream,
    pub first: u64,
    pub last: u64,
    pub pair: u64,
    pub lamport: u64,
    pub chain: packmule_core::wire::Chain,
}

/// Returns the last frame of the group that continues a stream, if that is in the log.
pub(crate) fn next_last(replica: &Replica, dev: i64, stream: Stream) -> Result<Option<u64>> {
    let first = positions::position(replica, dev, stream)?.seq + 1;
    value::maybe(
        &replica.db,
        "SELECT last FROM _pm_group INDEXED BY _pm_group_waiting
         WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied",
        (dev, stream.number(), first),
    )
}

/// Finds the group that continues a stream, if it is in the log.
pub(crate) fn next_group(replica: &Replica, dev: i64, stream: Stream) -> Result<Option<Next>> {
    use rusqlite::OptionalExtension;
    let position = positions::position(replica, dev, stream)?;
    let found = replica
        .db
        .prepare_cached(
            "SELECT last, pair, lamport, chain, checkpoint FROM _pm_group INDEXED BY _pm_group_waiting
             WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied",
        )?
        .query_row((dev, stream.number(), position.seq + 1), |row| {
            Ok((
                Next {
                    stream,
                    first: position.seq + 1,
                    last: row.get(0)?,
                    pair: row.get(1)?,
                    lamport: row.get(2)?,
                    chain: packmule_core::wire::Chain(row.get(3)?),
                },
                row.get::<_, Vec<u8>>(4)?,
            ))
        })
        .optional()?;
    let Some((next, checkpoint)) = found else { return Ok(None) };
    let checkpoint = Checkpoint::decode(&checkpoint).map_err(error::bad)?;
    if checkpoint.prev != position.chain {
        // It was pending beyond a gap, and what filled the gap is of another history.
        return Err(Error::Twin { device: devices::device_label(replica, dev)?, seq: next.first }.into());
    }
    Ok(Some(next))
}
