//! Two histories under one identity: found wherever what is here meets what comes.
//!
//! The chain over an author's groups says all: two histories that agree in it at one place are the same
//! up to there. So of what both have, the last group is looked at, and nothing before it. Version vectors
//! tell the beginning of the chain, so that a vector alone shows it.
//!
//! What is found about another device is refused, by its name. What is found about this device itself is
//! a [`Mirror`]: whether it was set back, and takes its own frames in again, or is a second history, and goes
//! on under a new identity (`fork`).

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, VectorEntry};
use rusqlite::OptionalExtension;

use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::peers::{self, Fit, Mirror};
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::table::replica::Replica;

/// So many of the last groups of a device are told to it one by one.
const EACH: u64 = 16;

/// So many places are enough for one snapshot: they are in memory at once.
const PLACES_MAX: usize = 8_192;

/// What is known of a stream at one place in it.
enum Past {
    /// The chain there.
    Chain(Chain),
    /// It is in the middle of a group, which is atomic; the group's first frame.
    Inside(u64),
    /// Nothing: the group is not kept any more, or is not here yet.
    Unknown,
}

/// Refuses a group that contradicts what is here of the same author; `end` is the chain after it, if
/// its frames came with it.
pub(crate) fn refuse_twin(
    replica: &Replica,
    checkpoint: &Checkpoint,
    end: Option<&Chain>,
    key: &[u8; 32],
) -> Result<()> {
    match fit(replica, checkpoint, end, key)? {
        Fit::Fits => Ok(()),
        Fit::Apart { .. } => {
            Err(Error::Twin { device: devices::name_of(replica, checkpoint.author)?, seq: checkpoint.first })
        }
    }
}

/// How a group fits what is here of the same author.
pub(crate) fn fit(
    replica: &Replica,
    checkpoint: &Checkpoint,
    end: Option<&Chain>,
    key: &[u8; 32],
) -> Result<Fit> {
    let Some(dev) = devices::device_number(replica, checkpoint.author)? else { return Ok(Fit::Fits) };
    let position = positions::position(replica, dev, checkpoint.stream)?;
    let Checkpoint { first, last, .. } = *checkpoint;
    let start = || Chain::start(key, checkpoint.stream);
    let mut fits = if first == position.seq + 1 {
        checkpoint.prev == if position.seq == 0 { start() } else { position.chain }
    } else {
        first > position.seq || last <= position.seq
    };
    // Groups that are here in its place, before it and after it, also such as still wait.
    let mut statement = replica.db.prepare_cached(
        "SELECT first, last, chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last >= ?3
         ORDER BY last",
    )?;
    let mut rows = statement.query((dev, checkpoint.stream.number(), first - 1))?;
    while let Some(row) = rows.next()? {
        let (its_first, its_last): (u64, u64) = (row.get(0)?, row.get(1)?);
        let chain = Chain(row.get(2)?);
        if its_first > last + 1 {
            break;
        }
        let its = Checkpoint::decode(&row.get::<_, Vec<u8>>(3)?).map_err(error::bad)?;
        fits &= if its_last < first {
            chain == checkpoint.prev
        } else if its_first > last {
            end.is_none_or(|end| its.prev == *end)
        } else {
            let same = end.map_or(its == *checkpoint, |end| chain == *end);
            (its_first, its_last) == (first, last) && same
        };
    }
    drop(rows);
    if fits {
        return Ok(Fit::Fits);
    }
    let before = first - 1;
    let agrees = match past(replica, dev, checkpoint.stream, before)? {
        _ if before == 0 => checkpoint.prev == start(),
        Past::Chain(chain) => chain == checkpoint.prev,
        _ => false,
    };
    Ok(Fit::Apart { common: agrees.then_some(before) })
}

/// Compares a version vector with what is here. What it says of this device goes to the mirror; what it
/// says of its sender is left out if it is another history than is here; where that parts is returned.
///
/// # Errors
/// [`Error::Twin`] if it has another history of a third device than is here.
pub(crate) fn compare_vector(
    replica: &Replica,
    sender: DeviceId,
    vector: &mut Vec<VectorEntry>,
    mirror: &mut Mirror,
) -> Result<Option<u64>> {
    let mut apart = None;
    for entry in vector.iter() {
        let Some(dev) = devices::device_number(replica, entry.author)?.filter(|_| entry.seq > 0) else {
            continue;
        };
        let seq = positions::position(replica, dev, entry.stream)?.seq;
        let ours = dev == replica.me;
        if entry.seq > seq {
            if ours {
                mirror.has(entry.stream, entry.seq);
            }
            continue;
        }
        let upper = match past(replica, dev, entry.stream, entry.seq)? {
            Past::Chain(chain) if chain.tag() == entry.tag => None,
            Past::Chain(_) => Some(entry.seq.saturating_sub(1)),
            Past::Inside(first) => Some(first - 1),
            Past::Unknown => continue,
        };
        let at = Mirror::at(entry.stream);
        match upper {
            None if ours => mirror.same[at] = mirror.same[at].max(entry.seq),
            None => {}
            Some(upper) if ours => {
                mirror.apart[at] = Some(mirror.apart[at].map_or(upper, |other| other.min(upper)));
            }
            Some(upper) if entry.author == sender => {
                apart = Some(apart.map_or(upper + 1, |other: u64| other.min(upper + 1)));
            }
            Some(upper) => {
                return Err(Error::Twin { device: devices::name_of(replica, entry.author)?, seq: upper + 1 });
            }
        }
    }
    if apart.is_some() {
        vector.retain(|e| e.author != sender);
    }
    Ok(apart)
}

/// Places in the log of a device itself, for it to compare: were it set back, or a second history, it
/// learns from them where, also from a carrier that brings none of its frames.
pub(crate) fn places_of(replica: &Replica, device: Option<DeviceId>) -> Result<Vec<VectorEntry>> {
    let mut places = Vec::new();
    let device = device.filter(|id| *id != replica.identity.id);
    if let Some(dev) = device.map(|id| devices::device_number(replica, id)).transpose()?.flatten() {
        add_places(replica, dev, &mut places)?;
    }
    Ok(places)
}

/// The same of all devices, for who joins: what it has of another history it tells anew.
pub(crate) fn places(replica: &Replica) -> Result<Vec<VectorEntry>> {
    let mut places = Vec::new();
    let mut authors =
        replica.db.prepare_cached("SELECT dev FROM _pm_stream UNION SELECT dev FROM _pm_group")?;
    for dev in authors.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
        if places.len() < PLACES_MAX {
            add_places(replica, dev, &mut places)?;
        }
    }
    Ok(places)
}

/// The last groups of a device each, also such as wait here, then at distances that double; and what is
/// folded away right before one of these.
fn add_places(replica: &Replica, dev: i64, places: &mut Vec<VectorEntry>) -> Result<()> {
    let author = devices::device_id(replica, dev)?;
    let before = places.len();
    for stream in Stream::ALL {
        let mut groups = replica.db.prepare_cached(
            "SELECT last, chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 ORDER BY last DESC",
        )?;
        let mut rows = groups.query((dev, stream.number()))?;
        let (mut at, mut next) = (0u64, 0u64);
        // Where the group before one that is told is folded away, its end is told by the chain that goes on.
        let mut told: Option<Checkpoint> = None;
        let before_told =
            |told: &Checkpoint| VectorEntry { author, stream, seq: told.first - 1, tag: told.prev.tag() };
        while let Some(row) = rows.next()? {
            let seq: u64 = row.get(0)?;
            if let Some(told) = told.take().filter(|told| told.first - 1 > seq) {
                places.push(before_told(&told));
            }
            if at >= next {
                places.push(VectorEntry { author, stream, seq, tag: Chain(row.get(1)?).tag() });
                next = if at < EACH { at + 1 } else { at * 2 };
                told = Some(Checkpoint::decode(&row.get::<_, Vec<u8>>(2)?).map_err(error::bad)?);
            }
            at += 1;
        }
        places.extend(told.filter(|told| told.first > 1).map(|told| before_told(&told)));
    }
    places[before..].reverse();
    // The last entry of a stream says what is applied here; the others do not.
    for stream in Stream::ALL {
        let any = places[before..].iter().any(|place| place.stream == stream);
        if any && positions::position(replica, dev, stream)?.seq == 0 {
            places.push(VectorEntry { author, stream, seq: 0, tag: [0; 4] });
        }
    }
    Ok(())
}

/// Up to where our own streams are certainly no second history, by stream: what somebody was seen to have
/// the same of, with `told` also earlier, and what is folded away, which is what everybody had; and whatever
/// was sealed before that.
pub(crate) fn certain(replica: &Replica, same: [u64; 2], bound: [u64; 2], told: bool) -> Result<[u64; 2]> {
    let mut certain = [0; 2];
    // What was sealed after the histories parted is not common, in whichever stream.
    let parted: Option<u64> = replica.db.query_row(
        "SELECT min(lamport) FROM _pm_group WHERE dev = ?1 AND applied
           AND ((stream = 0 AND last > ?2) OR (stream = 1 AND last > ?3))",
        (replica.me, bound[0].min(i64::MAX as u64), bound[1].min(i64::MAX as u64)),
        |row| row.get(0),
    )?;
    let mut bound = bound;
    for stream in Stream::ALL {
        let at = Mirror::at(stream);
        let first: Option<u64> = replica.db.query_row(
            "SELECT min(first) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND lamport >= ?3",
            (replica.me, stream.number(), parted),
            |row| row.get(0),
        )?;
        bound[at] = first.map_or(bound[at], |first| bound[at].min(first - 1));
    }
    for stream in Stream::ALL {
        let at = Mirror::at(stream);
        let told = if told { peers::told_same(replica, stream)? } else { 0 };
        certain[at] = told.max(same[at]).min(bound[at]).max(membership::floor(replica, replica.me, stream)?);
    }
    let sealed: Option<u64> = replica.db.query_row(
        "SELECT max(lamport) FROM _pm_group WHERE dev = ?1 AND applied
           AND ((stream = 0 AND last <= ?2) OR (stream = 1 AND last <= ?3))",
        (replica.me, certain[0].min(i64::MAX as u64), certain[1].min(i64::MAX as u64)),
        |row| row.get(0),
    )?;
    for stream in Stream::ALL {
        let at = Mirror::at(stream);
        let before: Option<u64> = replica.db.query_row(
            "SELECT max(last) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND lamport <= ?3",
            (replica.me, stream.number(), sealed),
            |row| row.get(0),
        )?;
        certain[at] = certain[at].max(before.unwrap_or(0).min(bound[at]));
    }
    Ok(certain)
}

/// What it is called now, if it was another device before.
pub(crate) fn called_anew(replica: &Replica, was: DeviceId) -> Option<String> {
    (was != replica.identity.id).then(|| devices::label(replica.identity.id, Some(&replica.identity.name)))
}

/// Refuses a device's database that has another history of anybody than is here. What is here tells of
/// that device itself is for it to draw consequences from, if its secret key is beside it.
pub(crate) fn refuse_other_history(replica: &Replica, source: &Replica) -> Result<Mirror> {
    let mut mirror = Mirror::default();
    for entry in positions::vector(source)? {
        let Some(here) = devices::device_number(replica, entry.author)? else { continue };
        let its_own = entry.author == source.identity.id;
        let known = positions::position(replica, here, entry.stream)?.seq;
        if its_own {
            mirror.has(entry.stream, known);
        }
        let there = devices::device_number(source, entry.author)?.unwrap_or(0);
        let Some(common) = common_with(replica, here, source, there, entry.stream, known.min(entry.seq))?
        else {
            if its_own {
                mirror.same[Mirror::at(entry.stream)] = known.min(entry.seq);
            }
            continue;
        };
        if !its_own || !source.can_sign() || source.db.is_readonly(rusqlite::MAIN_DB)? {
            return Err(Error::Twin { device: devices::name_of(replica, entry.author)?, seq: common + 1 });
        }
        let at = Mirror::at(entry.stream);
        (mirror.apart[at], mirror.parts[at]) = (Some(common), Some(common));
    }
    Ok(mirror)
}

/// If two databases have different histories of a stream up to a place: up to where they are one.
fn common_with(
    replica: &Replica,
    here: i64,
    source: &Replica,
    there: i64,
    stream: Stream,
    mut at: u64,
) -> Result<Option<u64>> {
    let mut different = false;
    while at > 0 {
        let before = match (past(replica, here, stream, at)?, past(source, there, stream, at)?) {
            (Past::Chain(here), Past::Chain(there)) if here == there => break,
            (Past::Unknown, _) | (_, Past::Unknown) => break,
            (Past::Inside(first), _) | (_, Past::Inside(first)) => first - 1,
            _ => at - 1,
        };
        different = true;
        at = before;
    }
    Ok(different.then_some(at))
}

fn past(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Past> {
    let position = positions::position(replica, dev, stream)?;
    if position.seq == seq {
        return Ok(Past::Chain(position.chain));
    }
    let group: Option<(u64, u64, [u8; 32], Vec<u8>)> = replica
        .db
        .prepare_cached(
            "SELECT first, last, chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last >= ?3
             ORDER BY last LIMIT 1",
        )?
        .query_row((dev, stream.number(), seq), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    Ok(match group {
        Some((_, last, chain, _)) if last == seq => Past::Chain(Chain(chain)),
        Some((first, _, _, after)) if first == seq + 1 => {
            Past::Chain(Checkpoint::decode(&after).map_err(error::bad)?.prev)
        }
        Some((first, ..)) if first <= seq => Past::Inside(first),
        _ => Past::Unknown,
    })
}

/// The chain of a stream at the end of a group that is here, or before one.
pub(crate) fn chain_at(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Option<Chain>> {
    match past(replica, dev, stream, seq)? {
        Past::Chain(chain) => Ok(Some(chain)),
        Past::Inside(_) | Past::Unknown => Ok(None),
    }
}
