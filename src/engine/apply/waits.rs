//! Groups that are in the log and not applied: what they wait for.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::Checkpoint;

use crate::engine::apply::report::Wait;
use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::log::frames;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// What a group needs that is not here.
#[derive(Clone, Copy)]
pub(crate) enum Lack {
    /// Frames of a device, up to this one.
    Frames(DeviceId, u64),
    /// Its author had not seen what is folded away here: only a snapshot brings it in.
    Snapshot,
}

/// What waits of a stream: from its first frame to its last.
struct Waiting {
    dev: i64,
    stream: Stream,
    first: u64,
    last: u64,
}

/// Whose frames a group needs that are not applied here, and up to which.
pub(crate) fn lacks(replica: &Replica, dev: i64, group: &Next, with_pair: bool) -> Result<Option<Lack>> {
    let body = frames::frame_here(replica, dev, group.stream, group.first)?;
    let frame = frames::parse(&body)?;
    if group.stream == Stream::Shared
        && membership::is_stale(replica, dev, &frame.context().collect::<Vec<_>>())?
    {
        return Ok(Some(Lack::Snapshot));
    }
    for (id, seq) in frame.context() {
        let other = devices::device_number(replica, id)?;
        if other == Some(dev) && with_pair {
            continue; // The shared stream's part of the same seal comes first.
        }
        let have = match other {
            Some(other) => positions::position(replica, other, Stream::Shared)?.seq,
            None => 0,
        };
        if have < seq {
            return Ok(Some(Lack::Frames(id, seq)));
        }
    }
    Ok(None)
}

/// The streams of which something waits.
fn waiting(replica: &Replica) -> Result<Vec<Waiting>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT dev, stream, min(first), max(last) FROM _pm_group INDEXED BY _pm_group_waiting
         WHERE NOT applied GROUP BY dev, stream",
    )?;
    let mut rows = statement.query([])?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        let stream = value::stream_of_number(row.get(1)?)?;
        waiting.push(Waiting { dev: row.get(0)?, stream, first: row.get(2)?, last: row.get(3)? });
    }
    Ok(waiting)
}

/// What waits in the log, and for what; without what its author has told anew.
pub(crate) fn waits(replica: &Replica) -> Result<Vec<Wait>> {
    let mut waits = Vec::new();
    for Waiting { dev, stream, first, last } in waiting(replica)? {
        let author = devices::device_label(replica, dev)?;
        let next = next_group(replica, dev, stream)?;
        let lack = next.map(|next| lacks(replica, dev, &next, false)).transpose()?.flatten();
        let (missing, up_to) = match (next, lack) {
            (None, _) => (author.clone(), first - 1),
            (Some(_), _) if waits_for_ever(replica, dev, stream)? => {
                if membership::goes_on(replica, dev)? {
                    continue;
                }
                (format!("a snapshot on {author}: run `packmule join` there"), 0)
            }
            (_, Some(Lack::Frames(id, seq))) => (devices::name_of(replica, id)?, seq),
            (Some(next), _) => (format!("{author} (the other part of the same seal)"), next.pair),
        };
        waits.push(Wait { author, frames: (first, last), missing, up_to });
    }
    Ok(waits)
}

/// Whether only a snapshot brings in what a stream goes on with: its author had not seen what is folded
/// away here, or had seen groups of another of whom that is so.
fn waits_for_ever(replica: &Replica, dev: i64, stream: Stream) -> Result<bool> {
    let mut seen = vec![(dev, stream)];
    let mut at = 0;
    while let Some((dev, stream)) = seen.get(at).copied() {
        at += 1;
        let Some(next) = next_group(replica, dev, stream)? else { continue };
        let needs = match lacks(replica, dev, &next, false)? {
            Some(Lack::Snapshot) => return Ok(true),
            Some(Lack::Frames(id, _)) => {
                devices::device_number(replica, id)?.map(|dev| (dev, Stream::Shared))
            }
            None => Some((dev, stream.other())), // The other part of the same seal.
        };
        seen.extend(needs.filter(|needs| !seen.contains(needs)));
    }
    Ok(false)
}

/// Drops what waits for ever and was told anew by who wrote it.
pub(crate) fn drop_told_anew(replica: &Replica) -> Result<()> {
    for Waiting { dev, stream, first, .. } in waiting(replica)? {
        if membership::goes_on(replica, dev)? && waits_for_ever(replica, dev, stream)? {
            for sql in [
                "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq >= ?3",
                "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first >= ?3",
            ] {
                replica.db.execute(sql, (dev, stream.number(), first))?;
            }
        }
    }
    Ok(())
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

/// The group that continues a stream, if it is in the log.
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
        // It waited past a gap; what filled the gap is another history.
        return Err(Error::Twin { device: devices::device_label(replica, dev)?, seq: next.first });
    }
    Ok(Some(next))
}
