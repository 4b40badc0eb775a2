//! What sessions with each peer have carried, by the kind of link: figures for people and for Prometheus. They decide nothing.

#[cfg(all(unix, any(feature = "net", feature = "serial")))]
use std::time::Duration;

use packmule_core::model::{DeviceId, WallMs};

use crate::engine::error::Result;
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
use crate::engine::fleet::devices;
use crate::engine::table::replica::Replica;

/// What a session has carried since that was last recorded.
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// The session was not recorded before.
    pub is_new: bool,
    /// Both ends had all that the other has.
    pub in_step: bool,
    /// Bytes of frames and states that were sent and received.
    pub sent: u64,
    pub received: u64,
    /// How long they were on their way.
    pub time: Duration,
    /// Bytes of a serial line that were corrected, and packets that were lost or damaged.
    pub corrected: u64,
    pub lost: u64,
}

/// What all sessions with a peer over a kind of link have carried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkFigures {
    /// The peer's id.
    pub peer: DeviceId,
    /// Its name, if it is known.
    pub name: Option<String>,
    /// The kind of link: `tcp`, `ws`, `http`, `pipe` or `serial`.
    pub link: String,
    /// When both ends last had all that the other has, by our clock; `None`: never.
    pub in_step: Option<WallMs>,
    /// How many sessions there were.
    pub sessions: u64,
    /// Bytes of frames and states that were sent.
    pub sent: u64,
    /// The same that were received.
    pub received: u64,
    /// Bytes a second, both ways together, the last time that some were on their way.
    pub goodput: u64,
    /// Bytes of a serial line that were corrected.
    pub corrected: u64,
    /// Packets of a serial line that were lost, or damaged beyond correction.
    pub lost: u64,
}

/// Adds what a session has carried.
#[cfg(all(unix, any(feature = "net", feature = "serial")))]
pub(crate) fn record(replica: &Replica, peer: DeviceId, link: &str, carried: &Carried) -> Result<()> {
    let Some(peer) = devices::device_number(replica, peer)? else { return Ok(()) };
    let in_step = carried.in_step.then(|| replica.now());
    let bytes = carried.sent.saturating_add(carried.received);
    let rate = || (u128::from(bytes) * 1_000_000).checked_div(carried.time.as_micros());
    let goodput = (bytes > 0).then(rate).flatten().map(|rate| i64::try_from(rate).unwrap_or(i64::MAX));
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_link (peer, link, in_step, sessions, sent, received, goodput, corrected, lost)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?7, 0), ?8, ?9)
             ON CONFLICT (peer, link) DO UPDATE SET in_step = coalesce(excluded.in_step, in_step),
                sessions = sessions + excluded.sessions, sent = sent + excluded.sent,
                received = received + excluded.received, goodput = coalesce(?7, goodput),
                corrected = corrected + excluded.corrected, lost = lost + excluded.lost",
        )?
        .execute((
            peer,
            link,
            in_step,
            carried.is_new,
            carried.sent,
            carried.received,
            goodput,
            carried.corrected,
            carried.lost,
        ))?;
    Ok(())
}

/// Lists what was recorded.
pub(crate) fn all(replica: &Replica) -> Result<Vec<LinkFigures>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT id, name, link, in_step, sessions, sent, received, goodput, corrected, lost
         FROM _pm_link JOIN _pm_device ON n = peer ORDER BY name, id, link",
    )?;
    let all = statement.query_map([], |row| {
        Ok(LinkFigures {
            peer: DeviceId(row.get(0)?),
            name: row.get(1)?,
            link: row.get(2)?,
            in_step: row.get(3)?,
            sessions: row.get(4)?,
            sent: row.get(5)?,
            received: row.get(6)?,
            goodput: row.get(7)?,
            corrected: row.get(8)?,
            lost: row.get(9)?,
        })
    })?;
    Ok(all.collect::<rusqlite::Result<_>>()?)
}
