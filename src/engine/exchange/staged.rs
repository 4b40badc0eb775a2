//! Frames that came by a session, until the checkpoint of their group does: nobody has verified them.
//!
//! **Why apart.** Whoever is trusted can send frames of anybody's, and no checkpoint ever. In the log such frames would
//! stand where an honest peer's belong, and its checkpoint would be refused. So each peer's are kept for that peer alone:
//! it need not send them again after a cable was pulled, nobody else hears of them, and no wrong checkpoint of one peer
//! touches what another has sent. One unfinished group a peer stays over sessions, up to [`STAYS_MAX`] bytes; within a
//! session there is the one that comes besides, up to what [`most`] says.

use packmule_core::model::{DeviceId, Stream};
use rusqlite::{OptionalExtension, Row};

use crate::engine::apply::refill;
use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::exchange::transaction;
use crate::engine::fleet::devices;
use crate::engine::log::frames;
use crate::engine::store::{connection, value};
use crate::engine::table::replica::Replica;

/// So many bytes of an unfinished group stay over sessions.
const STAYS_MAX: u64 = 64 << 20;

/// Of so many streams a peer has unfinished groups at once: whoever is honest finishes one before the next begins.
const STREAMS_MAX: usize = 2;

/// Keeps a frame of a peer's. Returns whether it is new.
///
/// # Errors
/// [`Error::Bundle`] for a frame of one more unfinished group than an honest peer sends.
pub(super) fn keep_frame(
    replica: &Replica,
    peer: DeviceId,
    (dev, stream, seq): (i64, Stream, u64),
    body: &[u8],
) -> Result<bool> {
    if !refill::is_frame_news(replica, dev, stream, seq)? || is_covered(replica, dev, stream, seq)? {
        return Ok(false);
    }
    let peer = devices::device_number_or_new(replica, peer)?;
    refuse_one_more(replica, peer, (dev, stream, seq))?;
    let sql = "INSERT INTO _pm_staged (peer, dev, stream, seq, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (peer, dev, stream, seq) DO UPDATE SET body = excluded.body WHERE body <> excluded.body";
    Ok(replica.db.prepare_cached(sql)?.execute((peer, dev, stream.number(), seq, body))? > 0)
}

/// Refuses the first frame of a stream where a peer has begun groups of too many others, and finished none.
fn refuse_one_more(replica: &Replica, peer: i64, (dev, stream, seq): (i64, Stream, u64)) -> Result<()> {
    let goes_on = "SELECT 1 FROM _pm_staged WHERE peer = ?1 AND dev = ?2 AND stream = ?3 AND seq = ?4";
    if replica.db.prepare_cached(goes_on)?.exists((peer, dev, stream.number(), seq.saturating_sub(1)))? {
        return Ok(());
    }
    let (mut others, mut last) = (0, (i64::MIN, 0));
    let next = "SELECT dev, stream FROM _pm_staged WHERE peer = ?1 AND (dev, stream) > (?2, ?3)
                ORDER BY dev, stream LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let mut next = replica.db.prepare_cached(next)?;
    while let Some(found) = next.query_row((peer, last.0, last.1), read).optional()? {
        others += usize::from(found != (dev, stream.number()));
        if others >= STREAMS_MAX {
            let what = "frames of one more group, before the checkpoints of those that were begun";
            return Err(Error::bundle(0, BundleProblem::Structure(what)));
        }
        last = found;
    }
    Ok(())
}

/// Returns whether a group in the log has a frame, which waits.
fn is_covered(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<bool> {
    let sql =
        "SELECT first FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last >= ?3 ORDER BY last LIMIT 1";
    let first: Option<u64> = value::maybe(&replica.db, sql, (dev, stream.number(), seq))?;
    Ok(first.is_some_and(|first| first <= seq))
}

/// Reads a frame that a peer has sent, or that is in the log.
pub(super) fn frame(
    replica: &Replica,
    peer: DeviceId,
    (dev, stream, seq): (i64, Stream, u64),
) -> Result<Option<Vec<u8>>> {
    match sent(replica, peer, (dev, stream, seq))? {
        Some(body) => Ok(Some(body)),
        None => frames::frame(replica, dev, stream, seq),
    }
}

/// Reads a frame that a peer has sent.
fn sent(
    replica: &Replica,
    peer: DeviceId,
    (dev, stream, seq): (i64, Stream, u64),
) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT body FROM _pm_staged WHERE peer = (SELECT n FROM _pm_device WHERE id = ?1)
                 AND dev = ?2 AND stream = ?3 AND seq = ?4";
    value::maybe(&replica.db, sql, (peer.0, dev, stream.number(), seq))
}

/// Puts the frames of a group whose checkpoint is verified into the log. What other peers have sent of it is as done.
pub(super) fn keep_group(
    replica: &Replica,
    peer: DeviceId,
    (dev, stream): (i64, Stream),
    (first, last): (u64, u64),
) -> Result<()> {
    for seq in first..=last {
        if let Some(body) = sent(replica, peer, (dev, stream, seq))? {
            frames::put_frame(&replica.db, dev, stream, seq, &body)?;
        }
    }
    replica
        .db
        .prepare_cached("DELETE FROM _pm_staged WHERE dev = ?1 AND stream = ?2 AND seq <= ?3")?
        .execute((dev, stream.number(), last))?;
    Ok(())
}

/// Forgets what a peer has sent of a stream: its checkpoint refuses it, or nothing is taken of it.
pub(super) fn forget(replica: &Replica, peer: DeviceId, author: DeviceId, stream: Stream) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "DELETE FROM _pm_staged WHERE peer = (SELECT n FROM _pm_device WHERE id = ?1)
               AND dev = (SELECT n FROM _pm_device WHERE id = ?2) AND stream = ?3",
        )?
        .execute((peer.0, author.0, stream.number()))?;
    Ok(())
}

/// Forgets all that a peer has sent.
pub(crate) fn drop_all(replica: &mut Replica, peer: DeviceId) -> Result<()> {
    transaction::transaction(replica, |e| {
        e.db.prepare_cached("DELETE FROM _pm_staged WHERE peer = (SELECT n FROM _pm_device WHERE id = ?1)")?
            .execute([peer.0])?;
        Ok(())
    })
}

/// Forgets what is in the log already, and what of a peer's does not stay over sessions: all groups but one, and that one
/// where it is too large. Another peer's may be on its way at this moment.
pub(crate) fn tidy(replica: &mut Replica, peer: DeviceId) -> Result<()> {
    if value::maybe::<i64>(&replica.db, "SELECT 1 FROM _pm_staged LIMIT 1", [])?.is_none() {
        return Ok(());
    }
    transaction::transaction(replica, |e| {
        e.db.execute_batch(
            "DELETE FROM _pm_staged WHERE seq <= coalesce((SELECT s.seq FROM _pm_stream s
               WHERE s.dev = _pm_staged.dev AND s.stream = _pm_staged.stream), 0)",
        )?;
        let stays = "DELETE FROM _pm_staged WHERE peer = ?1 AND (dev, stream) IN (
               SELECT dev, stream FROM (
                 SELECT dev, stream, bytes, row_number() OVER (ORDER BY bytes DESC, dev, stream) AS n
                 FROM (SELECT dev, stream, sum(length(body)) AS bytes FROM _pm_staged
                   WHERE peer = ?1 GROUP BY dev, stream))
               WHERE n > 1 OR bytes > ?2)";
        if let Some(peer) = devices::device_number(e, peer)? {
            e.db.prepare_cached(stays)?.execute((peer, STAYS_MAX))?;
        }
        Ok(())
    })
}

/// Returns how many bytes of a peer's groups that have not ended may be kept, if there is a bound: no more than is free
/// beside them, which they need once more when they go into the log.
pub(crate) fn most(replica: &Replica) -> Option<u64> {
    replica.options.unfinished_bytes.or_else(|| connection::free_bytes(&replica.path))
}
