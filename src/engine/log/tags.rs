//! Where a stream was, of groups that are folded: the first bytes of its chain there.
//!
//! The frames of a folded group are gone, and with them what would show whether a device that was set back to before
//! that group has the same history. So the tag of the chain after each group stays, and travels with a state.

use packmule_core::model::Stream;
use packmule_core::wire::{Chain, Checkpoint};

use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::log::frames;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// So many tags of a stream are kept, the newest: those of a backup that is older by more groups are not there.
const TAGS_MAX: i64 = 4_096;

/// So many of the last tags travel with a state one by one; those before them at distances that double.
const EACH: usize = 32;

/// The bytes of a place in a state.
const PLACE: usize = 12;

/// A place in a stream, with the tag of its chain there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub seq: u64,
    pub tag: [u8; 4],
}

/// Keeps what stays known of a group that leaves the log: its checkpoint, which is the proof of up to where the stream goes
/// if it is the newest, and the tags before and after it.
pub(crate) fn keep_group(replica: &Replica, dev: i64, stream: i64, last: u64) -> Result<()> {
    let sql = "SELECT chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3";
    let (chain, bytes): ([u8; 32], Vec<u8>) = replica
        .db
        .prepare_cached(sql)?
        .query_row((dev, stream, last), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(error::bad)?;
    frames::put_newest(&replica.db, dev, &checkpoint, &bytes)?;
    keep_proof(replica, dev, &checkpoint, &Chain(chain))
}

/// Keeps the tags before and after a group of which only the checkpoint is here, with the chain after it.
pub(crate) fn keep_proof(replica: &Replica, dev: i64, checkpoint: &Checkpoint, end: &Chain) -> Result<()> {
    let Checkpoint { stream, first, last, .. } = *checkpoint;
    if first > 1 {
        keep(replica, dev, stream, Place { seq: first - 1, tag: checkpoint.prev.tag() })?;
    }
    let sql = "INSERT OR REPLACE INTO _pm_tag (dev, stream, last, first, tag) VALUES (?1, ?2, ?3, ?4, ?5)";
    replica.db.prepare_cached(sql)?.execute((dev, stream.number(), last, first, end.tag()))?;
    Ok(())
}

/// Keeps where a stream is here, before it goes on elsewhere without its frames.
pub(crate) fn keep_position(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    position: StreamPosition,
) -> Result<()> {
    if position.seq == 0 {
        return Ok(());
    }
    keep(replica, dev, stream, Place { seq: position.seq, tag: position.chain.tag() })
}

/// Keeps the tag at a place. One that is known stays.
fn keep(replica: &Replica, dev: i64, stream: Stream, place: Place) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO _pm_tag (dev, stream, last, first, tag) VALUES (?1, ?2, ?3, ?3, ?4)";
    replica.db.prepare_cached(sql)?.execute((dev, stream.number(), place.seq, place.tag))?;
    Ok(())
}

/// Forgets the oldest tags where there are more than are kept.
pub(crate) fn forget_oldest(replica: &Replica) -> Result<()> {
    replica.db.execute(
        "DELETE FROM _pm_tag AS t WHERE last <= (SELECT o.last FROM _pm_tag o WHERE o.dev = t.dev AND o.stream = t.stream
           ORDER BY o.last DESC LIMIT 1 OFFSET ?1)",
        [TAGS_MAX],
    )?;
    Ok(())
}

/// Forgets the tags of a stream after a frame: another device has them now.
pub(crate) fn forget_after(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<()> {
    let sql = "DELETE FROM _pm_tag WHERE dev = ?1 AND stream = ?2 AND last > ?3";
    replica.db.execute(sql, (dev, stream.number(), seq.min(i64::MAX as u64)))?;
    Ok(())
}

/// Lists the places of a shared stream that travel with a state, as bytes: each its frame and its tag.
pub(crate) fn packed(replica: &Replica, dev: i64) -> Result<Vec<u8>> {
    let mut statement = replica
        .db
        .prepare_cached("SELECT last, tag FROM _pm_tag WHERE dev = ?1 AND stream = ?2 ORDER BY last DESC")?;
    let mut rows = statement.query((dev, Stream::Shared.number()))?;
    let (mut at, mut next) = (0, 0);
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        if at >= next {
            bytes.extend(row.get::<_, u64>(0)?.to_le_bytes());
            bytes.extend(row.get::<_, [u8; 4]>(1)?);
            next = if at < EACH { at + 1 } else { at * 2 };
        }
        at += 1;
    }
    Ok(bytes)
}

/// Reads the places of a stream that came with a state.
///
/// # Errors
/// [`Error::Damaged`] if their length is none.
pub(crate) fn unpacked(bytes: &[u8]) -> Result<Vec<Place>> {
    let (places, rest) = bytes.as_chunks::<PLACE>();
    if !rest.is_empty() {
        return Err(Error::damaged("places of a stream of another length"));
    }
    let place = |place: &[u8; PLACE]| {
        let [seq @ .., t0, t1, t2, t3] = *place;
        Place { seq: u64::from_le_bytes(seq), tag: [t0, t1, t2, t3] }
    };
    Ok(places.iter().map(place).filter(|place| i64::try_from(place.seq).is_ok()).collect())
}

/// Finds the tag of a stream's chain after its group that begins with this frame, also if that is folded.
pub(crate) fn tag_after(replica: &Replica, dev: i64, stream: Stream, first: u64) -> Result<Option<[u8; 4]>> {
    let sql = "SELECT substr(chain, 1, 4) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first = ?3
               UNION ALL SELECT tag FROM _pm_tag WHERE dev = ?1 AND stream = ?2 AND first = ?3 LIMIT 1";
    value::maybe(&replica.db, sql, (dev, stream.number(), first))
}

/// Lists where groups of a stream end after a frame, also folded ones, with the tags of the chain there.
pub(crate) fn ends_after(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    seq: u64,
) -> Result<Vec<(u64, [u8; 4])>> {
    let sql = "SELECT last, substr(chain, 1, 4) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3
               UNION SELECT last, tag FROM _pm_tag WHERE dev = ?1 AND stream = ?2 AND last > ?3 ORDER BY last";
    let mut ends = replica.db.prepare_cached(sql)?;
    let ends = ends.query_map((dev, stream.number(), seq), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ends.collect::<rusqlite::Result<_>>()?)
}

/// Keeps places of a shared stream that came with a state, as far as nothing is known here of that part of it.
pub(crate) fn keep_unknown(replica: &Replica, dev: i64, bytes: &[u8]) -> Result<()> {
    let position = positions::position(replica, dev, Stream::Shared)?.seq;
    for place in unpacked(bytes)?.into_iter().filter(|place| place.seq > position) {
        keep(replica, dev, Stream::Shared, place)?;
    }
    Ok(())
}
