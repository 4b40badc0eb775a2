//! Positions: how far each stream is applied here, with its chain, and what each author had seen.

use std::collections::{BTreeMap, HashMap};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, LAMPORT_MAX, Position};
use rusqlite::OptionalExtension;

use crate::engine::error::Result;
use crate::engine::store::{meta, value};
use crate::engine::table::replica::Replica;

/// The last applied frame of a stream, and its chain after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamPosition {
    pub seq: u64,
    pub chain: Chain,
}

/// Returns up to where a stream is applied here.
pub(crate) fn position(replica: &Replica, dev: i64, stream: Stream) -> Result<StreamPosition> {
    let found = replica
        .db
        .prepare_cached("SELECT seq, chain FROM _pm_stream WHERE dev = ?1 AND stream = ?2")?
        .query_row((dev, stream.number()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match found {
        Some((seq, chain)) => StreamPosition { seq, chain: Chain(chain) },
        None => {
            let key: Option<[u8; 32]> =
                value::maybe(&replica.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [dev])?.flatten();
            // Without a key nothing of it can have been verified: nobody reads the chain.
            StreamPosition { seq: 0, chain: Chain::start(&key.unwrap_or_default(), stream) }
        }
    })
}

/// Returns up to where all streams are applied here, by author and stream, with the device's number.
pub(crate) fn all_positions(
    replica: &Replica,
) -> Result<BTreeMap<(DeviceId, Stream), (i64, StreamPosition)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT d.id, s.stream, d.n, s.seq, s.chain FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev",
    )?;
    let mut rows = statement.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let position = StreamPosition { seq: row.get(3)?, chain: Chain(row.get(4)?) };
        all.insert((DeviceId(row.get(0)?), value::stream_of_number(row.get(1)?)?), (row.get(2)?, position));
    }
    Ok(all)
}

/// Records up to where a stream is applied here.
pub(crate) fn set_position(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    position: StreamPosition,
) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_stream (dev, stream, seq, chain) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (dev, stream) DO UPDATE SET seq = excluded.seq, chain = excluded.chain",
        )?
        .execute((dev, stream.number(), position.seq, position.chain.0))?;
    Ok(())
}

/// Sets a stream back to where it was; one that goes back to its beginning is as if it had never come.
pub(crate) fn set_back(replica: &Replica, dev: i64, stream: Stream, to: StreamPosition) -> Result<()> {
    if to.seq > 0 {
        return set_position(replica, dev, stream, to);
    }
    replica.db.execute("DELETE FROM _pm_stream WHERE dev = ?1 AND stream = ?2", (dev, stream.number()))?;
    Ok(())
}

/// Returns the context of an author's last applied group of a stream: device numbers and sequence numbers.
pub(crate) fn context_of(replica: &Replica, dev: i64, stream: Stream) -> Result<Vec<(i64, u64)>> {
    let mut statement =
        replica.db.prepare_cached("SELECT other, seq FROM _pm_context WHERE dev = ?1 AND stream = ?2")?;
    let rows = statement.query_map((dev, stream.number()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records that an author had seen the shared stream of another device up to a frame.
pub(crate) fn set_context(replica: &Replica, dev: i64, stream: Stream, other: i64, seq: u64) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_context (dev, stream, other, seq) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (dev, stream, other) DO UPDATE SET seq = max(seq, excluded.seq)",
        )?
        .execute((dev, stream.number(), other, seq))?;
    Ok(())
}

/// Forgets all that an author had seen.
pub(crate) fn forget_context(replica: &Replica, dev: i64, stream: Stream) -> Result<()> {
    let sql = "DELETE FROM _pm_context WHERE dev = ?1 AND stream = ?2";
    replica.db.prepare_cached(sql)?.execute((dev, stream.number()))?;
    Ok(())
}

/// Records that an author goes on from less of the shared stream of another device: it has given up a history of it.
pub(crate) fn lower_context(replica: &Replica, dev: i64, stream: Stream, other: i64, seq: u64) -> Result<()> {
    let sql = "UPDATE _pm_context SET seq = min(seq, ?4) WHERE dev = ?1 AND stream = ?2 AND other = ?3";
    replica.db.prepare_cached(sql)?.execute((dev, stream.number(), other, seq))?;
    Ok(())
}

/// Lists what is applied here, in the order of authors and streams.
pub(crate) fn vector(replica: &Replica) -> Result<Vec<Position>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT d.id, s.stream, s.seq, s.chain FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev ORDER BY d.id, s.stream",
    )?;
    let mut rows = statement.query([])?;
    let mut vector = Vec::new();
    while let Some(row) = rows.next()? {
        let stream = value::stream_of_number(row.get(1)?)?;
        let tag = Chain(row.get(3)?).tag();
        vector.push(Position { author: DeviceId(row.get(0)?), stream, seq: row.get(2)?, tag });
    }
    Ok(vector)
}

/// Returns up to where each device's stream of this kind is applied here, by device number.
pub(crate) fn by_number(replica: &Replica, stream: Stream) -> Result<HashMap<i64, u64>> {
    let mut statement = replica.db.prepare_cached("SELECT dev, seq FROM _pm_stream WHERE stream = ?1")?;
    let rows = statement.query_map([stream.number()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether a vector by device number does not reach a frame.
pub(crate) fn lacks(vector: &HashMap<i64, u64>, dev: i64, seq: u64) -> bool {
    vector.get(&dev).is_none_or(|has| seq > *has)
}

/// Returns the stamp of the next group of this device, which is seen by that.
pub(crate) fn next_lamport(replica: &Replica) -> Result<u64> {
    let lamport = (meta::get::<u64>(&replica.db, "lamport")?.unwrap_or(0) + 1).min(LAMPORT_MAX);
    meta::set(&replica.db, "lamport", lamport)?;
    Ok(lamport)
}

/// Raises the highest stamp that was seen.
pub(crate) fn raise_lamport(replica: &Replica, seen: u64) -> Result<()> {
    let lamport = meta::get::<u64>(&replica.db, "lamport")?.unwrap_or(0);
    meta::set(&replica.db, "lamport", lamport.max(seen))
}
