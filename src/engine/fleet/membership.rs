//! Membership: whose acknowledgements count, what is stable, who is retired.
//!
//! **Invariant.** Up to where a stream is stable here, every device whose acknowledgement counts has it in the
//! context of whatever it seals from now on, as far as that is not here yet.
//!
//! **Why it holds.** What a device acknowledged counts only once all is here that it had sealed before it said so:
//! that may be concurrent with what it acknowledged, and what comes later is not. A context in its log counts at
//! once, since that log is applied in order; not that of a device which was rolled back, and whose later frames may
//! go on from less. A retired device stops to count when every other device has acknowledged the frame that says so,
//! and no peer has more of its stream than is here: until then somebody may still bring frames of it.
//!
//! **Retirement.** It decides for whom the log waits, and never about content. What a base says of it holds for all, and
//! travels in its log; what the fleet key says holds for all too, at once, and travels with everything; what another
//! device says holds for itself alone. A retired device that hears of it says that it is back, which holds for all too;
//! one that brings new writes of its own is taken back by whoever takes them in.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};
use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;

use crate::engine::error::Result;
use crate::engine::fleet::devices::{self, SaidBy, Trust};
use crate::engine::fleet::{copies, positions, revocation};
use crate::engine::store::meta;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Selects the versions of rows of which every version is stable and nothing is open. Its parameters `:tracked`,
/// `:shared` and `:baseline` are `State::Tracked`, `Stream::Shared` and [`devices::BASELINE`]. They come in the order of the
/// heads, and need not be sorted.
pub(crate) const FORGET: &str = "
    FROM _pm_head AS h
    WHERE +h.tid IN (SELECT tid FROM _pm_table WHERE state = :tracked)
      AND NOT EXISTS (SELECT 1 FROM _pm_conflict c WHERE c.tid = h.tid AND c.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM _pm_parked p WHERE p.tid = h.tid AND p.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM temp._pm_open o WHERE o.tid = h.tid AND o.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM _pm_head o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = :shared
                      WHERE o.tid = h.tid AND o.key = h.key AND o.dev <> :baseline AND o.seq > coalesce(f.seq, 0))
      AND NOT EXISTS (SELECT 1 FROM _pm_count o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = :shared
                      WHERE o.tid = h.tid AND o.key = h.key AND o.seq > coalesce(f.seq, 0))";

/// What became of a retired device, as `_pm_device.retired` has it; 0 is one that is not retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retirement {
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

/// Returns the other devices whose acknowledgements of a stream count: of per-device rows, bases alone.
fn required_peers(replica: &Replica, stream: Stream) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n, retired FROM _pm_device WHERE n <> ?1 AND n > 0 AND trust IN (?2, ?3) AND public_key IS NOT NULL
         AND (base OR ?4)",
    )?;
    let rows = statement
        .query_map((replica.me, Trust::Singly, Trust::ByFleet, stream == Stream::Shared), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, bool)>>>()?;
    let mut required_peers = Vec::new();
    for (dev, retired) in rows {
        if !retired || !is_gone(replica, dev)? {
            required_peers.push(dev);
        }
    }
    Ok(required_peers)
}

/// Returns whether the acknowledgements of a retired device count no more: all others know that it is retired, and
/// what they have of it is here.
fn is_gone(replica: &Replica, dev: i64) -> Result<bool> {
    let Some((by, seq)) = retired_in(replica, dev)? else { return Ok(true) };
    Ok(holds_up_retirement(replica, dev, (by, seq))?.is_none())
}

/// Finds a device for which the log still waits for a retired one: it does not know of the retirement, or has more of
/// that device than is here.
fn holds_up_retirement(replica: &Replica, dev: i64, (by, seq): (i64, u64)) -> Result<Option<i64>> {
    let have = positions::position(replica, dev, Stream::Shared)?.seq;
    for peer in active_peers(replica)? {
        let knows = acknowledged(replica, peer, Stream::Shared)?.get(&by).is_some_and(|known| *known >= seq);
        if !knows || said(replica, peer, dev, Stream::Shared)?.unwrap_or(0) > have {
            return Ok(Some(peer));
        }
    }
    Ok(None)
}

/// Returns in which frame of which device a device's retirement is said, if it is in the log.
fn retired_in(replica: &Replica, dev: i64) -> Result<Option<(i64, u64)>> {
    let (by, seq): (Option<i64>, Option<u64>) = replica
        .db
        .prepare_cached("SELECT retired_by, retired_seq FROM _pm_device WHERE n = ?1")?
        .query_row([dev], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(by.zip(seq))
}

/// Returns the other devices that are trusted and not retired.
fn active_peers(replica: &Replica) -> Result<Vec<i64>> {
    active(replica, false)
}

/// Returns the other bases that are trusted and not retired.
pub(crate) fn active_bases(replica: &Replica) -> Result<Vec<i64>> {
    active(replica, true)
}

/// Returns the other devices, or bases alone, that are trusted and not retired.
fn active(replica: &Replica, bases: bool) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n FROM _pm_device WHERE n <> ?1 AND n > 0 AND trust IN (?2, ?3) AND public_key IS NOT NULL AND NOT retired
         AND (base OR NOT ?4)",
    )?;
    let of = (replica.me, Trust::Singly, Trust::ByFleet, bases);
    Ok(statement.query_map(of, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Returns up to where a peer said last that it has applied a stream.
pub(crate) fn said(replica: &Replica, peer: i64, dev: i64, stream: Stream) -> Result<Option<u64>> {
    let sql = "SELECT seq FROM _pm_ack WHERE peer = ?1 AND dev = ?2 AND stream = ?3";
    value::maybe(&replica.db, sql, (peer, dev, stream.number()))
}

/// Returns up to where a peer counts as having a stream, by what it said last. A device has all that it wrote, unless it
/// says that it was set back; of several copies of its card, what the least informed has.
pub(crate) fn has(replica: &Replica, peer: i64, dev: i64, stream: Stream) -> Result<u64> {
    let said = said(replica, peer, dev, stream)?.unwrap_or(if peer == dev { u64::MAX } else { 0 });
    Ok(copies::least(replica, peer, dev, stream)?.map_or(said, |least| least.min(said)))
}

/// Returns whether this device has met no other yet, not even a retired one.
fn knows_nobody(replica: &Replica) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_device WHERE n <> ?1 AND n > 0 AND public_key IS NOT NULL LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, [replica.me])?.is_none())
}

/// Returns up to where a peer's acknowledgements of a stream count, by device number. It has all that it wrote itself.
fn acknowledged(replica: &Replica, peer: i64, stream: Stream) -> Result<HashMap<i64, u64>> {
    // What it had sealed before it said so may be concurrent with what it acknowledged.
    let whole = positions::position(replica, peer, Stream::Shared)?.seq
        >= said(replica, peer, peer, Stream::Shared)?.unwrap_or(0);
    let mut statement = replica.db.prepare_cached(
        "SELECT dev, seq FROM _pm_ack WHERE peer = ?1 AND stream = ?2 AND ?3
         UNION ALL SELECT other, seq FROM _pm_context JOIN _pm_device ON n = ?1 AND NOT set_back
         WHERE dev = ?1 AND stream = ?4 AND ?2 = ?4",
    )?;
    let mut rows = statement.query((peer, stream.number(), whole, Stream::Shared.number()))?;
    let mut all: HashMap<i64, u64> = HashMap::new();
    while let Some(row) = rows.next()? {
        let (dev, seq): (i64, u64) = (row.get(0)?, row.get(1)?);
        all.entry(dev).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
    }
    all.insert(peer, u64::MAX);
    Ok(all)
}

/// Returns up to where a stream of each device is applied here; 0 where only the other one is known.
fn applied(replica: &Replica, stream: Stream) -> Result<Vec<(i64, u64)>> {
    let mut statement = replica
        .db
        .prepare_cached("SELECT dev, max(iif(stream = ?1, seq, 0)) FROM _pm_stream GROUP BY dev")?;
    let rows = statement.query_map([stream.number()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns up to where a stream of each device is stable.
pub(crate) fn stable(replica: &Replica, stream: Stream) -> Result<Vec<(i64, u64)>> {
    let mut stable = applied(replica, stream)?;
    let peers = required_peers(replica, stream)?;
    if peers.is_empty() && (knows_nobody(replica)? || (stream == Stream::PerDevice && !replica.identity.base))
    {
        stable.iter_mut().for_each(|(_, seq)| *seq = 0); // Nobody is known who could have it.
    }
    for peer in peers {
        let acknowledged = acknowledged(replica, peer, stream)?;
        for (dev, seq) in &mut stable {
            *seq = (*seq).min(acknowledged.get(dev).copied().unwrap_or(0));
        }
    }
    Ok(stable)
}

/// Returns whether a base that counts does not say that it has this device's per-device stream up to a frame.
pub(crate) fn is_lacking_base(replica: &Replica, seq: u64) -> Result<bool> {
    for peer in required_peers(replica, Stream::PerDevice)? {
        if said(replica, peer, replica.me, Stream::PerDevice)?.unwrap_or(0) < seq {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the device whose acknowledgements are missing for the most frames, by its label, and how many those are.
pub(crate) fn held_back_by(replica: &Replica) -> Result<Option<(String, u64)>> {
    let mut most: Option<(i64, u64)> = None;
    for stream in Stream::ALL {
        let applied = applied(replica, stream)?;
        for peer in required_peers(replica, stream)? {
            let acknowledged = acknowledged(replica, peer, stream)?;
            let lacks =
                |(dev, seq): &(i64, u64)| seq.saturating_sub(acknowledged.get(dev).copied().unwrap_or(0));
            let missing = applied.iter().map(lacks).fold(0, u64::saturating_add);
            if missing > 0 && most.is_none_or(|(_, n)| missing > n) {
                // For one that is retired the log waits only until all others know.
                let retired = if is_retired(replica, peer)? { retired_in(replica, peer)? } else { None };
                let holds_up = retired.map(|said| holds_up_retirement(replica, peer, said)).transpose()?;
                most = Some((holds_up.flatten().unwrap_or(peer), missing));
            }
        }
    }
    match most {
        Some((peer, n)) => Ok(Some((devices::device_label(replica, peer)?, n))),
        None => Ok(None),
    }
}

/// Returns whether a peer that has a stream up to `have` needs frames that are folded here.
pub(crate) fn is_behind(replica: &Replica, dev: i64, stream: Stream, have: u64) -> Result<bool> {
    Ok(have < watermark(replica, dev, stream)?)
}

/// Returns the watermark of a stream: up to where it was stable at the last compaction.
pub(crate) fn watermark(replica: &Replica, dev: i64, stream: Stream) -> Result<u64> {
    let watermark: Option<u64> = value::maybe(
        &replica.db,
        "SELECT seq FROM _pm_floor WHERE dev = ?1 AND stream = ?2",
        (dev, stream.number()),
    )?;
    Ok(watermark.unwrap_or(0))
}

/// Lists the devices that are retired, and do not go on under a new identity.
pub(crate) fn retired(replica: &Replica) -> Result<Vec<i64>> {
    let mut statement =
        replica.db.prepare_cached("SELECT n FROM _pm_device WHERE retired = ?1 ORDER BY name, id")?;
    Ok(statement.query_map([Retirement::Gone], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Raises the watermark of a stream.
pub(crate) fn raise_floor(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_floor (dev, stream, seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (dev, stream) DO UPDATE SET seq = max(seq, excluded.seq)",
        )?
        .execute((dev, stream.number(), seq))?;
    Ok(())
}

/// Lists the watermarks of shared streams, by device number.
pub(crate) fn floors(replica: &Replica) -> Result<Vec<(i64, u64)>> {
    let mut statement =
        replica.db.prepare_cached("SELECT dev, seq FROM _pm_floor WHERE stream = ?1 AND seq > 0")?;
    let rows = statement.query_map([Stream::Shared.number()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether a device is retired.
pub(crate) fn is_retired(replica: &Replica, dev: i64) -> Result<bool> {
    let retired: Option<bool> =
        value::maybe(&replica.db, "SELECT retired FROM _pm_device WHERE n = ?1", [dev])?;
    Ok(retired.unwrap_or(false))
}

/// Returns what became of a device, if it is retired.
pub(crate) fn retirement(replica: &Replica, dev: i64) -> Result<Option<Retirement>> {
    let retired: Option<i64> =
        value::maybe(&replica.db, "SELECT retired FROM _pm_device WHERE n = ?1", [dev])?;
    Ok([Retirement::Gone, Retirement::GoesOn].into_iter().find(|what| retired == Some(*what as i64)))
}

/// Returns whether somebody may go on under the identity that a device had before.
pub(crate) fn goes_on_before(replica: &Replica, dev: i64) -> Result<bool> {
    for id in devices::issuers(&replica.db, dev)? {
        let before = devices::device_number(replica, id)?;
        if before.map(|before| is_retired(replica, before)).transpose()? == Some(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records that a device is retired, and in which frame of which device that is said. `goes_on` says that it goes on
/// under a new identity.
pub(crate) fn record_retired(
    replica: &Replica,
    id: DeviceId,
    said: Option<(i64, u64)>,
    goes_on: bool,
) -> Result<()> {
    let dev = devices::device_number_or_new(replica, id)?;
    let (by, seq) = said.unzip();
    if !is_retired(replica, dev)? {
        forget_speaking(replica, dev)?;
        // What its tables are counts no more.
        catalog::doubt_schema(replica)?;
    }
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_device SET retired = max(retired, ?4), retired_by = coalesce(retired_by, ?2),
               retired_seq = coalesce(retired_seq, ?3) WHERE n = ?1",
        )?
        .execute((dev, by, seq, if goes_on { Retirement::GoesOn } else { Retirement::Gone }))?;
    Ok(())
}

/// Returns whether a device goes on under a new identity.
pub(crate) fn goes_on(replica: &Replica, dev: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_device WHERE n = ?1 AND retired = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (dev, Retirement::GoesOn))?.is_some())
}

/// Records what a device's log says of the retirement of another. What no base says holds for that device alone, unless
/// it goes on as the retired one, which has vouched for it then: nobody else says so for good.
pub(crate) fn hear_retired(replica: &Replica, id: DeviceId, said: (i64, u64), goes_on: bool) -> Result<()> {
    let goes_on = goes_on && devices::issuers(&replica.db, said.0)?.contains(&id);
    if !goes_on && !is_base(replica, said.0)? {
        return Ok(());
    }
    if !goes_on && id == replica.identity.id {
        owe_return(replica)?;
    }
    record_retired(replica, id, Some(said), goes_on)
}

/// Records that a device is retired by the fleet key's word, which holds at once, for all.
pub(crate) fn hear_retired_by_fleet(replica: &Replica, id: DeviceId) -> Result<()> {
    if id == replica.identity.id {
        owe_return(replica)?;
    }
    record_retired(replica, id, None, false)
}

/// Names where `_pm_meta` has that a retired device has spoken since, by its number.
const SPOKE: &str = "spoke ";

/// Records that a device has said what it has. One that is retired may be alive: it is told.
pub(crate) fn hear_speaking(replica: &Replica, dev: i64) -> Result<()> {
    if is_retired(replica, dev)? && !goes_on(replica, dev)? {
        meta::set(&replica.db, &format!("{SPOKE}{dev}"), true)?;
    }
    Ok(())
}

/// Forgets that a device has spoken: it is retired anew, or back.
fn forget_speaking(replica: &Replica, dev: i64) -> Result<()> {
    meta::forget(&replica.db, &format!("{SPOKE}{dev}"))
}

/// Lists the trusted devices that are retired and have spoken since.
pub(crate) fn returning(replica: &Replica) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n FROM _pm_device WHERE retired = ?1 AND trust IN (?2, ?3) AND EXISTS (SELECT 1 FROM _pm_meta WHERE k = ?4 || n)
         ORDER BY id",
    )?;
    let of = (Retirement::Gone, Trust::Singly, Trust::ByFleet, SPOKE);
    Ok(statement.query_map(of, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Under this name `_pm_meta` has whether this device was retired, and has not said yet that it is back.
const RETURN_OWED: &str = "return owed";

/// Records that this device was retired, and has not said yet that it is back.
pub(crate) fn owe_return(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, RETURN_OWED, true)
}

/// Returns whether this device was retired, and has not said yet that it is back.
pub(crate) fn owes_return(replica: &Replica) -> Result<bool> {
    Ok(meta::get(&replica.db, RETURN_OWED)?.unwrap_or(false))
}

/// Records what a device says of another, or of itself: that it is back. Only a base says it of another for all.
pub(crate) fn hear_returned(replica: &Replica, id: DeviceId, by: i64) -> Result<()> {
    match devices::device_number(replica, id)? {
        Some(dev) if dev == by || is_base(replica, by)? => record_returned(replica, dev),
        _ => Ok(()),
    }
}

/// Records that a device which was retired is back. One that goes on under a new identity never is.
pub(crate) fn record_returned(replica: &Replica, dev: i64) -> Result<()> {
    let returned = replica.db.prepare_cached(
        "UPDATE _pm_device SET retired = 0, retired_by = NULL, retired_seq = NULL WHERE n = ?1 AND retired = ?2",
    )?.execute((dev, Retirement::Gone))?;
    if returned > 0 {
        catalog::doubt_schema(replica)?;
    }
    forget_speaking(replica, dev)?;
    if dev == replica.me {
        meta::set(&replica.db, RETURN_OWED, false)?;
    }
    Ok(())
}

/// Returns who says that a retired device is.
pub(crate) fn retired_by(replica: &Replica, dev: i64) -> Result<SaidBy> {
    let by_fleet = revocation::retirement_of(replica, devices::device_id(replica, dev)?)?;
    Ok(match retired_in(replica, dev)? {
        None if by_fleet.is_some_and(|said| said.revoked) => SaidBy::Fleet,
        Some((by, _)) if by != replica.me || replica.identity.base => {
            SaidBy::Device(devices::device_label(replica, by)?)
        }
        _ => SaidBy::Here,
    })
}

fn is_base(replica: &Replica, dev: i64) -> Result<bool> {
    let base: Option<bool> = value::maybe(&replica.db, "SELECT base FROM _pm_device WHERE n = ?1", [dev])?;
    Ok(base.unwrap_or(false))
}
