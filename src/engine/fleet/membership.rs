//! Who is waited for, what is stable, who was retired.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};

use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;

use crate::engine::error::Result;
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::positions;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// Selects the versions of rows of which every version is stable and nothing is open. Its parameters `:tracked` and
/// `:shared` are `State::Tracked` and `Stream::Shared`.
pub(crate) const FORGET: &str = "
    FROM _pm_head AS h
    WHERE EXISTS (SELECT 1 FROM _pm_table t WHERE t.tid = h.tid AND t.state = :tracked)
      AND NOT EXISTS (SELECT 1 FROM _pm_conflict c WHERE c.tid = h.tid AND c.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM _pm_parked p WHERE p.tid = h.tid AND p.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM temp._pm_open o WHERE o.tid = h.tid AND o.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM _pm_head o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = :shared
                      WHERE o.tid = h.tid AND o.key = h.key AND o.dev <> 0 AND o.seq > coalesce(f.seq, 0))";

/// What became of a retired device, as `_pm_device.retired` has it; 0 is one that is not retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retirement {
    /// It will not come back.
    Gone = 1,
    /// It goes on under a new identity.
    GoesOn = 2,
}

impl ToSql for Retirement {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

pub(crate) fn known_authors(replica: &Replica) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached("SELECT DISTINCT dev FROM _pm_stream")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// The other devices that the log waits for; bases alone, of streams that only they take.
fn waited_for(replica: &Replica, stream: Stream) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n, retired FROM _pm_device WHERE n <> ?1 AND n > 0 AND trust IN (?2, ?3) AND public_key IS NOT NULL
         AND (base OR ?4)",
    )?;
    let rows = statement
        .query_map((replica.me, Trust::Singly, Trust::ByFleet, stream == Stream::Shared), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, bool)>>>()?;
    let mut waited_for = Vec::new();
    for (dev, retired) in rows {
        if !retired || !is_gone(replica, dev)? {
            waited_for.push(dev);
        }
    }
    Ok(waited_for)
}

/// Whether a device that is retired need not be waited for any more: all others know that it is, and
/// what they have of it is here too.
fn is_gone(replica: &Replica, dev: i64) -> Result<bool> {
    let (by, seq): (Option<i64>, Option<u64>) = replica
        .db
        .prepare_cached("SELECT retired_by, retired_seq FROM _pm_device WHERE n = ?1")?
        .query_row([dev], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(by), Some(seq)) = (by, seq) else { return Ok(true) };
    let have = positions::position(replica, dev, Stream::Shared)?.seq;
    for peer in active_peers(replica)? {
        let knows = acknowledged(replica, peer, by, Stream::Shared)? >= seq;
        if !knows || said(replica, peer, dev, Stream::Shared)? > have {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The other devices that are trusted and not retired.
fn active_peers(replica: &Replica) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n FROM _pm_device WHERE n <> ?1 AND n > 0 AND trust IN (?2, ?3) AND public_key IS NOT NULL AND NOT retired",
    )?;
    let trusted = (replica.me, Trust::Singly, Trust::ByFleet);
    Ok(statement.query_map(trusted, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Up to where a peer said that it has a stream.
fn said(replica: &Replica, peer: i64, dev: i64, stream: Stream) -> Result<u64> {
    let seq: Option<u64> = value::maybe(
        &replica.db,
        "SELECT seq FROM _pm_ack WHERE peer = ?1 AND dev = ?2 AND stream = ?3",
        (peer, dev, stream.number()),
    )?;
    Ok(seq.unwrap_or(0))
}

/// Whether this device has met no other yet, not even one that was retired.
fn knows_nobody(replica: &Replica) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_device WHERE n <> ?1 AND n > 0 AND public_key IS NOT NULL LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, [replica.me])?.is_none())
}

/// Up to where a peer is known to have a stream.
fn acknowledged(replica: &Replica, peer: i64, dev: i64, stream: Stream) -> Result<u64> {
    if peer == dev {
        return Ok(positions::position(replica, dev, stream)?.seq);
    }
    // What a peer said counts only once all that it had sealed before is here: that may be
    // concurrent with what it acknowledged.
    let whole =
        positions::position(replica, peer, Stream::Shared)?.seq >= said(replica, peer, peer, Stream::Shared)?;
    let said = if whole { said(replica, peer, dev, stream)? } else { 0 };
    let seen: Option<u64> = value::maybe(
        &replica.db,
        "SELECT seq FROM _pm_context JOIN _pm_device ON n = ?1 AND NOT set_back
         WHERE dev = ?1 AND stream = ?3 AND other = ?2 AND ?4",
        (peer, dev, Stream::Shared.number(), stream == Stream::Shared),
    )?;
    Ok(said.max(seen.unwrap_or(0)))
}

/// Up to where a stream is stable.
pub(crate) fn stable(replica: &Replica, dev: i64, stream: Stream) -> Result<u64> {
    let peers = waited_for(replica, stream)?;
    if peers.is_empty() && (knows_nobody(replica)? || (stream == Stream::Own && !replica.identity.base)) {
        return Ok(0); // Nobody has taken it, since nobody is known who would.
    }
    let mut stable = positions::position(replica, dev, stream)?.seq;
    for peer in peers {
        stable = stable.min(acknowledged(replica, peer, dev, stream)?);
    }
    Ok(stable)
}

/// The device that holds back the most frames of the log.
pub(crate) fn held_back_by(replica: &Replica) -> Result<Option<(String, u64)>> {
    let mut most: Option<(i64, u64)> = None;
    for stream in Stream::ALL {
        for peer in waited_for(replica, stream)? {
            let mut lacking = 0;
            for dev in known_authors(replica)? {
                lacking += positions::position(replica, dev, stream)?
                    .seq
                    .saturating_sub(acknowledged(replica, peer, dev, stream)?);
            }
            if lacking > 0 && most.is_none_or(|(_, n)| lacking > n) {
                most = Some((peer, lacking));
            }
        }
    }
    match most {
        Some((peer, n)) => Ok(Some((devices::device_label(replica, peer)?, n))),
        None => Ok(None),
    }
}

/// Whether a group's author had not seen something that is folded away here.
pub(crate) fn is_stale(replica: &Replica, dev: i64, context: &[(DeviceId, u64)]) -> Result<bool> {
    if dev == replica.me {
        return Ok(false);
    }
    let mut seen: HashMap<i64, u64> =
        positions::context_of(replica, dev, Stream::Shared)?.into_iter().collect();
    for (id, seq) in context {
        if let Some(other) = devices::device_number(replica, *id)? {
            seen.insert(other, *seq);
        }
    }
    let mut floors = replica
        .db
        .prepare_cached("SELECT dev, seq FROM _pm_floor WHERE stream = ?2 AND seq > 0 AND dev <> ?1")?;
    let mut rows = floors.query((dev, Stream::Shared.number()))?;
    while let Some(row) = rows.next()? {
        let (other, floor): (i64, u64) = (row.get(0)?, row.get(1)?);
        if seen.get(&other).copied().unwrap_or(0) < floor {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a peer that has a stream up to `have` lacks frames that are folded away here.
pub(crate) fn is_behind(replica: &Replica, dev: i64, stream: Stream, have: u64) -> Result<bool> {
    Ok(have < floor(replica, dev, stream)?)
}

/// Up to where a stream is folded away.
pub(crate) fn floor(replica: &Replica, dev: i64, stream: Stream) -> Result<u64> {
    let floor: Option<u64> = value::maybe(
        &replica.db,
        "SELECT seq FROM _pm_floor WHERE dev = ?1 AND stream = ?2",
        (dev, stream.number()),
    )?;
    Ok(floor.unwrap_or(0))
}

pub(crate) fn is_retired(replica: &Replica, dev: i64) -> Result<bool> {
    let retired: Option<bool> =
        value::maybe(&replica.db, "SELECT retired FROM _pm_device WHERE n = ?1", [dev])?;
    Ok(retired.unwrap_or(false))
}

/// Notes that a device is retired, and where in the log that was said; whether it goes on as another.
pub(crate) fn record_retired(
    replica: &Replica,
    id: DeviceId,
    said: Option<(i64, u64)>,
    goes_on: bool,
) -> Result<()> {
    let dev = devices::device_number_or_new(replica, id)?;
    let (by, seq) = said.unzip();
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_device SET retired = max(retired, ?4), retired_by = coalesce(retired_by, ?2),
               retired_seq = coalesce(retired_seq, ?3) WHERE n = ?1",
        )?
        .execute((dev, by, seq, if goes_on { Retirement::GoesOn } else { Retirement::Gone }))?;
    Ok(())
}

/// Whether a device goes on as another one, which has told anew what only a snapshot would bring in.
pub(crate) fn goes_on(replica: &Replica, dev: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_device WHERE n = ?1 AND retired = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (dev, Retirement::GoesOn))?.is_some())
}
