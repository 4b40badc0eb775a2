//! Copies of a device's card: several databases under one identity, of which one may be behind and write nothing.
//!
//! What a device said last counts as what it has. Where two databases speak for it, the one that has all would always talk
//! over the one that is behind, and that one would never get back what it lacks. So whoever learns that others have more of
//! its own log than it has draws an **incarnation**: random bytes at the beginning of the number of each statement that it
//! makes from then on (`FORMAT.md`, header). What an incarnation said last is remembered here beside what the device said
//! last, as long as it lacks frames of its own log; both count for what is sent to it, never for what is folded.
//!
//! Nor need the one that is behind lack frames of its own log: it can lack what others wrote. Where two databases speak by
//! turns (one before the other and after it), what each said last counts as long as it lacks anything that is here. A
//! statement from before a backup was restored that comes late looks the same, and costs frames that are sent again. Whoever
//! finds on a card what another database under its identity has left draws an incarnation, too: so each is known from the
//! other, and removes only what it has left itself. Before any of them has one, it is known by a file of its
//! own name that has more of others than it has itself.
//!
//! An incarnation that is not heard of again is forgotten with the last of its remembered statements. A device that was
//! restored, and is alone, speaks under its new incarnation only: it is forgotten as soon as it has all.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::Position;

use crate::engine::error::{Error, Result};
use crate::engine::fleet::{devices, positions};
use crate::engine::store::{cipher, keys, meta, value};
use crate::engine::table::replica::Replica;

/// The random bytes of an incarnation.
pub(crate) type Incarnation = [u8; 3];

/// The first byte of a statement's number that has an incarnation; of others it is never that.
const HAS_INCARNATION: u8 = 0;

/// The name under which `_pm_meta` has the incarnations of this database, the newest last.
const OWN: &str = "incarnations";

/// So many of its own incarnations a database remembers.
const KEPT: usize = 16;

/// Returns the incarnation of who made a statement; `None` before it was ever set back.
pub(crate) fn of(number: [u8; 8]) -> Option<Incarnation> {
    let [HAS_INCARNATION, a, b, c, ..] = number else { return None };
    Some([a, b, c])
}

/// Lists the incarnations that this database has had, the newest last.
pub(crate) fn own(replica: &Replica) -> Result<Vec<Incarnation>> {
    let all: Vec<u8> = meta::get(&replica.db, OWN)?.unwrap_or_default();
    Ok(all.as_chunks().0.to_vec())
}

/// Hears that another database speaks for this device: this one draws an incarnation, if it has none.
pub(crate) fn hear_of_another(replica: &Replica) -> Result<()> {
    if own(replica)?.is_empty() { draw(replica) } else { Ok(()) }
}

/// Draws an incarnation: this database has heard that others have more of its own log.
pub(crate) fn draw(replica: &Replica) -> Result<()> {
    let mut all = own(replica)?;
    all.push(random()?);
    let old = all.len().saturating_sub(KEPT);
    meta::set(&replica.db, OWN, all.split_off(old).concat())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    cipher::fill(keys::system_random, &mut bytes).map_err(Error::Stream)?;
    Ok(bytes)
}

/// Draws the number of a statement of an incarnation.
pub(crate) fn number(incarnation: Option<Incarnation>) -> Result<[u8; 8]> {
    let mut number: [u8; 8] = random()?;
    match incarnation {
        Some([a, b, c]) => number[..4].copy_from_slice(&[HAS_INCARNATION, a, b, c]),
        None => number[0] = number[0].max(HAS_INCARNATION + 1),
    }
    Ok(number)
}

/// Records what an incarnation of a peer says that it has; `lacks`: it lacks frames of its own log.
pub(crate) fn hear(
    replica: &Replica,
    peer: i64,
    number: [u8; 8],
    applied: &[(i64, Position)],
    lacks: bool,
) -> Result<()> {
    let of_number = of(number);
    // Before it was ever set back it has none.
    let incarnation = of_number.as_ref().map_or(&[][..], |incarnation| incarnation);
    let forget = "DELETE FROM _pm_copy WHERE peer = ?1 AND (incarnation = ?2
                  OR number NOT IN (SELECT number FROM _pm_statement WHERE peer = ?1))";
    replica.db.prepare_cached(forget)?.execute((peer, incarnation))?;
    let is_alone = of_number.is_none() && !said_by(replica, peer)?.iter().any(|who| !who.is_empty());
    if is_alone || !(lacks || lacks_anything(replica, peer, applied)?) {
        return Ok(());
    }
    let sql = "INSERT OR REPLACE INTO _pm_copy (peer, incarnation, dev, stream, seq, number)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = replica.db.prepare_cached(sql)?;
    // One that has nothing is remembered, too.
    for stream in Stream::ALL {
        insert.execute((peer, incarnation, peer, stream.number(), 0, number))?;
    }
    for (dev, entry) in applied {
        insert.execute((peer, incarnation, dev, entry.stream.number(), entry.seq, number))?;
    }
    Ok(())
}

/// Lists by which incarnations the remembered statements of a peer are, in their order; empty before it was ever set back.
fn said_by(replica: &Replica, peer: i64) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT number FROM _pm_statement WHERE peer = ?1 ORDER BY n";
    let mut statement = replica.db.prepare_cached(sql)?;
    let who = |number| of(number).map(Vec::from).unwrap_or_default();
    let rows = statement.query_map([peer], |row| row.get(0).map(who))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether one of two speaks before the other and after it.
fn by_turns(all: &[Vec<u8>], one: &[u8], other: &[u8]) -> bool {
    let mut both: Vec<bool> =
        all.iter().filter(|who| *who == one || *who == other).map(|who| who == one).collect();
    both.dedup();
    both.len() > 2
}

/// Returns whether a peer lacks frames that are applied here, of those that it takes.
fn lacks_anything(replica: &Replica, peer: i64, applied: &[(i64, Position)]) -> Result<bool> {
    let has = |dev, stream| {
        let entry = applied.iter().find(|(of, entry)| (*of, entry.stream) == (dev, stream));
        entry.map_or(0, |(_, entry)| entry.seq)
    };
    let shared = positions::by_number(replica, Stream::Shared)?;
    let own = positions::position(replica, peer, Stream::PerDevice)?.seq;
    Ok(own > has(peer, Stream::PerDevice)
        || shared.into_iter().any(|(dev, seq)| seq > has(dev, Stream::Shared)))
}

/// Lists the copies of a peer's card that are known to be behind, and what each has of a stream.
pub(crate) fn behind(replica: &Replica, peer: i64, dev: i64, stream: Stream) -> Result<Vec<(Vec<u8>, u64)>> {
    let sql = "SELECT DISTINCT incarnation,
                 EXISTS (SELECT 1 FROM _pm_copy o JOIN _pm_stream s USING (dev, stream)
                         WHERE o.peer = ?1 AND o.incarnation = c.incarnation AND o.dev = ?1 AND o.seq < s.seq)
               FROM _pm_copy c JOIN _pm_statement USING (peer, number) WHERE peer = ?1";
    let mut statement = replica.db.prepare_cached(sql)?;
    let copies = statement
        .query_map([peer], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(Vec<u8>, bool)>>>()?;
    if copies.is_empty() {
        return Ok(Vec::new());
    }
    let all = said_by(replica, peer)?;
    let mut behind = Vec::new();
    for (incarnation, lacks_own) in copies {
        if lacks_own || all.iter().any(|other| *other != incarnation && by_turns(&all, &incarnation, other)) {
            let sql =
                "SELECT seq FROM _pm_copy WHERE peer = ?1 AND incarnation = ?2 AND dev = ?3 AND stream = ?4";
            let has = value::maybe(&replica.db, sql, (peer, &incarnation, dev, stream.number()))?;
            behind.push((incarnation, has.unwrap_or(0)));
        }
    }
    Ok(behind)
}

/// Returns the least that a copy of a peer's card has of a stream; `None` if no copy is known to be behind.
pub(crate) fn least(replica: &Replica, peer: i64, dev: i64, stream: Stream) -> Result<Option<u64>> {
    Ok(behind(replica, peer, dev, stream)?.into_iter().map(|(_, has)| has).min())
}

/// The beginning of the names under which `_pm_meta` has of which devices another history was heard of, by id.
const COPIED: &str = "copied ";

/// Returns the name under which `_pm_meta` has that another history of a device was heard of.
pub(crate) fn heard_of(id: DeviceId) -> String {
    format!("{COPIED}{id}")
}

/// Lists the devices other than this one of whose log all is to be told that another database under that identity may lack:
/// those that were set back, and those of which another history was heard of, until somebody has left the identity. Who
/// has the second history may never read a bundle that is for the device, which has all, by what the first one says.
pub(crate) fn to_be_told(replica: &Replica) -> Result<Vec<i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n, set_back FROM _pm_device WHERE n > 0 AND n <> ?1 AND (set_back OR EXISTS
           (SELECT 1 FROM _pm_meta WHERE k = ?2 || lower(hex(id)))) ORDER BY set_back DESC, heard DESC, id",
    )?;
    let mut rows = statement.query((replica.me, COPIED))?;
    let mut told = Vec::new();
    while let Some(row) = rows.next()? {
        let (dev, set_back): (i64, bool) = (row.get(0)?, row.get(1)?);
        if set_back || !devices::has_successor(&replica.db, dev)? {
            told.push(dev);
        }
    }
    Ok(told)
}
