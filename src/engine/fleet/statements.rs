//! What this device and its peers say that they have, told by what differs from what the other one said last.
//!
//! **Why.** The header of a bundle has its sender's version vector. In a fleet of two hundred nearly all of it is what the
//! receiver has said itself in the bundle before: the sender took it in. So a header for one device names what that
//! device said last by a digest ([`vector_digest`]), and tells what differs.
//!
//! **Why it is never misread.** The sender computes the digest from what it knows of the receiver, with the tags; the
//! receiver looks it up among what it has said, which it remembers before it says it ([`remember`]). The digest is over
//! the content, so whatever was lost, repeated, overtaken or restored from a backup meanwhile: either both mean the same
//! vector, or the receiver does not find it. Then it takes the frames and what the header tells expressly, hears
//! nothing of the rest, and tells the sender all that it has the next time
//! ([`forget_word`](super::peers::forget_word)), which the sender refers to from then on. Nobody but the receiver has a vector
//! to look up, except one that said the same.
//!
//! Per-device streams, and those of the sender and the receiver themselves, are always told expressly: few they are,
//! and a device that was set back must hear of its own log at once.

use std::collections::BTreeMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{HeaderReader, Position, vector_digest};

use crate::engine::error::{Error, Result};
use crate::engine::fleet::{devices, positions};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// So many of the vectors that this device stated are remembered.
const REMEMBERED: i64 = 1_024;

/// How many of them are forgotten at once.
const FORGET_EACH: i64 = 64;

/// What a device has of shared streams, by author.
type Shared = BTreeMap<DeviceId, Position>;

/// A vector by what differs from what its receiver said last.
pub(crate) struct Difference {
    /// Names what the receiver said last.
    pub base: [u8; 8],
    /// What differs, in the order of authors and streams; number 0 where the sender has nothing.
    pub positions: Vec<Position>,
}

/// Names a vector.
fn digest(shared: &Shared) -> [u8; 8] {
    vector_digest(shared.values().copied())
}

/// Returns the shared streams of a vector that have something.
fn shared_of(vector: &[Position]) -> Shared {
    let shared = vector.iter().filter(|e| e.stream == Stream::Shared && e.seq > 0);
    shared.map(|e| (e.author, *e)).collect()
}

/// Remembers what is applied here, if it is not what was remembered last: it is about to be said.
pub(crate) fn remember(replica: &Replica) -> Result<()> {
    let now = shared_of(&positions::vector(replica)?);
    let last: i64 =
        replica.db.query_row("SELECT coalesce(max(n), 0) FROM _pm_stated", [], |row| row.get(0))?;
    let next =
        last.checked_add(1).ok_or_else(|| Error::damaged("`_pm_stated` has a number beyond all counting"))?;
    let (digest, n) = (digest(&now), next);
    let same = "SELECT 1 FROM _pm_stated WHERE digest = ?1 AND n = ?2";
    if replica.db.prepare_cached(same)?.exists((digest, last))? {
        return Ok(());
    }
    let before = told(replica, last)?;
    let gone = before.values().filter(|e| !now.contains_key(&e.author)).map(|e| Position { seq: 0, ..*e });
    let new = now.values().filter(|e| before.get(&e.author) != Some(e)).copied();
    for entry in gone.chain(new) {
        let dev = devices::device_number_or_new(replica, entry.author)?;
        let sql = "INSERT INTO _pm_told (dev, n, seq, tag) VALUES (?1, ?2, ?3, ?4)";
        replica.db.prepare_cached(sql)?.execute((dev, n, entry.seq, entry.tag))?;
    }
    let sql = "INSERT OR REPLACE INTO _pm_stated (digest, n) VALUES (?1, ?2)";
    replica.db.prepare_cached(sql)?.execute((digest, n))?;
    if n % FORGET_EACH == 0 {
        forget_before(replica, n - REMEMBERED)?;
    }
    Ok(())
}

/// Returns whether what is applied here was remembered last.
pub(crate) fn is_remembered(replica: &Replica) -> Result<bool> {
    let now = digest(&shared_of(&positions::vector(replica)?));
    let sql = "SELECT 1 FROM _pm_stated WHERE digest = ?1 AND n = (SELECT max(n) FROM _pm_stated)";
    Ok(replica.db.prepare_cached(sql)?.exists([now])?)
}

/// Forgets what was stated before a number.
fn forget_before(replica: &Replica, n: i64) -> Result<()> {
    replica.db.execute("DELETE FROM _pm_stated WHERE n < ?1", [n])?;
    replica.db.execute(
        "DELETE FROM _pm_told WHERE n < (SELECT max(n) FROM _pm_told later WHERE later.dev = _pm_told.dev AND later.n <= ?1)",
        [n],
    )?;
    Ok(())
}

/// Forgets all that was stated: an identity before this one said it.
pub(crate) fn forget_all(replica: &Replica) -> Result<()> {
    Ok(replica
        .db
        .execute_batch("DELETE FROM _pm_stated; DELETE FROM _pm_told; UPDATE _pm_ack SET tag = NULL")?)
}

/// Reads what was stated under a number.
fn told(replica: &Replica, n: i64) -> Result<Shared> {
    let mut statement = replica.db.prepare_cached(
        "SELECT d.id, t.seq, t.tag FROM _pm_told t JOIN _pm_device d ON d.n = t.dev
         WHERE t.n = (SELECT max(n) FROM _pm_told last WHERE last.dev = t.dev AND last.n <= ?1) AND t.seq > 0",
    )?;
    read(&mut statement.query([n])?)
}

/// Reads rows of author, frame and tag.
fn read(rows: &mut rusqlite::Rows<'_>) -> Result<Shared> {
    let mut shared = Shared::new();
    while let Some(row) = rows.next()? {
        let author = DeviceId(row.get(0)?);
        let position = Position { author, stream: Stream::Shared, seq: row.get(1)?, tag: row.get(2)? };
        shared.insert(author, position);
    }
    Ok(shared)
}

/// Reads what a peer said last of shared streams, if it is known word for word.
fn said_last(replica: &Replica, peer: i64) -> Result<Option<Shared>> {
    let unknown = "SELECT 1 FROM _pm_ack WHERE peer = ?1 AND stream = ?2 AND seq > 0 AND tag IS NULL";
    let of = (peer, Stream::Shared.number());
    if replica.db.prepare_cached(unknown)?.exists(of)? {
        return Ok(None);
    }
    let mut statement = replica.db.prepare_cached(
        "SELECT d.id, a.seq, a.tag FROM _pm_ack a JOIN _pm_device d ON d.n = a.dev
         WHERE a.peer = ?1 AND a.stream = ?2 AND a.seq > 0",
    )?;
    let said = read(&mut statement.query(of)?)?;
    Ok((!said.is_empty()).then_some(said))
}

/// Tells a vector by what differs from what a device said last, if that is known and leaves anything out. `all` includes per-device streams of
/// third devices, which only bases take.
pub(crate) fn difference(
    replica: &Replica,
    receiver: DeviceId,
    vector: &[Position],
    all: bool,
) -> Result<Option<Difference>> {
    let Some(peer) = devices::device_number(replica, receiver)? else { return Ok(None) };
    let Some(said) = said_last(replica, peer)? else { return Ok(None) };
    let me = replica.identity.id;
    let between = |e: &Position| e.author == me || e.author == receiver;
    let has = shared_of(vector);
    let gone = said.values().filter(|e| !has.contains_key(&e.author)).map(|e| Position { seq: 0, ..*e });
    let told = vector.iter().filter(|e| match e.stream {
        Stream::Shared => between(e) || e.seq > 0 && said.get(&e.author) != Some(e),
        Stream::PerDevice => between(e) || all,
    });
    let mut positions: Vec<Position> = told.copied().chain(gone).collect();
    positions.sort_by_key(|e| (e.author, e.stream));
    // Where nothing can be left out, to name what the receiver said is only longer.
    if positions == vector {
        return Ok(None);
    }
    Ok(Some(Difference { base: digest(&said), positions }))
}

/// Reads what a header says that its sender has: all of it, or `None` if it tells what differs from something that this
/// device does not remember having said.
pub(crate) fn whole(replica: &Replica, header: &HeaderReader<'_>) -> Result<Option<Vec<Position>>> {
    let Some(base) = header.header.base else { return Ok(Some(header.applied().collect())) };
    let sql = "SELECT n FROM _pm_stated WHERE digest = ?1";
    let Some(n) = value::maybe::<i64>(&replica.db, sql, [base])? else { return Ok(None) };
    let said = told(replica, n)?;
    if digest(&said) != base {
        return Ok(None);
    }
    let mut whole: BTreeMap<_, Position> = said.values().map(|e| ((e.author, e.stream), *e)).collect();
    for entry in header.applied() {
        let place = (entry.author, entry.stream);
        match entry.seq {
            0 => drop(whole.remove(&place)),
            _ => drop(whole.insert(place, entry)),
        }
    }
    Ok(Some(whole.into_values().collect()))
}
