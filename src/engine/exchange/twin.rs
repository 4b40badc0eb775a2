//! Divergent histories of one identity (a cloned card, a restored backup): found wherever what is here meets what
//! comes.
//!
//! **Invariant.** No database ever has two different groups of one stream at one place. Of a history that contradicts what
//! is here nothing is taken, and its author is named; or what is here is given up for it first (`give_up.rs`). A history of
//! *this* device that contradicts ours makes this device recover (`unsay.rs`) or take a new identity, before it seals
//! anything more; where a base has ours, the other one gives way.
//!
//! **Why one comparison is enough.** The chain is a hash over all groups of a stream, so two histories whose chains
//! agree at one place agree in all before it. Of what both have, only the last place is compared: each position of a
//! version vector carries the first bytes of its chain (the tag), and every checkpoint carries the chain before its
//! group. A group that comes is compared with what is here before it, in its place, and after it, pending groups
//! too, so that a gap that is filled later joins nothing that does not belong together.
//!
//! **What follows from peer evidence about our own log** ([`PeerEvidence`]): `same`, up to where others have the
//! same; `more`, up to where they have anything; `diverges_by`, the last place at which the histories can still be one;
//! `diverges_at`, the divergence point exactly. If others have more and nothing contradicts, this device was rolled back:
//! the missing frames come in again from peers, and until then nothing is sealed. If an application has written
//! meanwhile, that is a second history, which takes a new identity at once. If something contradicts, or nobody can
//! say whether our last frames are among those that others have, ours is the second history.
//!
//! **What counts as evidence.** That others have more of our log, or another history, is shown by a checkpoint alone that
//! our own key has signed: with its frames, as the proof of a state, or by itself (`newest.rs`). What a vector, a probe
//! or a context says without that is disregarded; with it, it tells where the histories part.

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, Position, Probe};
use rusqlite::{CachedStatement, OptionalExtension};

use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::peers::{self, Fit, Parting, PeerEvidence};
use crate::engine::fleet::positions::StreamPosition;
use crate::engine::fleet::{copies, devices, membership, positions};
use crate::engine::log::tags::Place;
use crate::engine::store::meta;
use crate::engine::table::replica::Replica;

/// So many of the last groups of a device become probes one by one.
const EACH: u64 = 16;

/// So many probes are enough for one snapshot: they are in memory at once.
const PROBES_MAX: usize = 8_192;

/// What is known of a stream's chain after one of its frames.
enum Past {
    /// The chain there.
    Chain(Chain),
    /// Its tag there: the group is folded.
    Tag([u8; 4]),
    /// The frame is in the middle of a group, which is atomic; the group's first frame.
    Inside(u64),
    /// Nothing: the group is not kept any more, or is not here yet.
    Unknown,
}

impl Past {
    /// Returns whether the stream has this tag there; `None` if that is not known.
    fn has(&self, tag: [u8; 4]) -> Option<bool> {
        match self {
            Self::Chain(chain) => Some(chain.tag() == tag),
            Self::Tag(known) => Some(*known == tag),
            Self::Inside(_) => Some(false),
            Self::Unknown => None,
        }
    }

    /// Compares it, as what is known of frame `seq`, with a tag that somebody has there. `None` if that cannot be compared;
    /// `Some(None)` if both are the same; else up to where the histories can be one.
    fn compare(&self, seq: u64, tag: [u8; 4]) -> Option<Option<u64>> {
        match self {
            Self::Inside(first) => Some(Some(first - 1)),
            past => past.has(tag).map(|same| (!same).then(|| seq.saturating_sub(1))),
        }
    }
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
        Fit::Diverges { .. } => {
            Err(Error::Twin { device: devices::name_of(replica, checkpoint.author)?, seq: checkpoint.first }
                .into())
        }
    }
}

/// Returns whether what waits here of a group's author gives way to the group. Of an author whose key has two histories, what
/// does not follow on what is applied here can be of either, and comes again. Where this device was the author once, also what
/// follows there gives way to what does: it wrote that itself before it left that identity, and has written it again.
pub(crate) fn gives_way(replica: &Replica, checkpoint: &Checkpoint, key: &[u8; 32]) -> Result<bool> {
    let Some(dev) = devices::device_number(replica, checkpoint.author)? else { return Ok(false) };
    let position = positions::position(replica, dev, checkpoint.stream)?;
    if devices::issuers(&replica.db, replica.me)?.contains(&checkpoint.author) {
        let chain = if position.seq == 0 { Chain::start(key, checkpoint.stream) } else { position.chain };
        return Ok(checkpoint.first == position.seq + 1 && checkpoint.prev == chain);
    }
    let sql = "SELECT 1 FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied";
    let mut follows = replica.db.prepare_cached(sql)?;
    Ok(!follows.exists((dev, checkpoint.stream.number(), position.seq + 1))?
        && devices::has_successor(&replica.db, dev)?)
}

/// Compares a group with what is here of the same author.
pub(crate) fn fit(
    replica: &Replica,
    checkpoint: &Checkpoint,
    end: Option<&Chain>,
    key: &[u8; 32],
) -> Result<Fit> {
    compare_group(replica, checkpoint, end, key, true)
}

/// Compares a group with what is applied here of the same author, and with what waits here if `waiting`.
pub(crate) fn compare_group(
    replica: &Replica,
    checkpoint: &Checkpoint,
    end: Option<&Chain>,
    key: &[u8; 32],
    waiting: bool,
) -> Result<Fit> {
    let Some(dev) = devices::device_number(replica, checkpoint.author)? else { return Ok(Fit::Fits) };
    let position = positions::position(replica, dev, checkpoint.stream)?;
    let Checkpoint { first, last, .. } = *checkpoint;
    if let Some(end) = end.filter(|_| checkpoint.stream == Stream::Shared)
        && let Some(given_up) = peers::given_up(replica, dev)?
        && given_up.has(checkpoint, end)
    {
        return Ok(Fit::Diverges { common: (first - 1 == given_up.common).then_some(first - 1) });
    }
    let start = || Chain::start(key, checkpoint.stream);
    let mut fits = if first == position.seq + 1 {
        checkpoint.prev == if position.seq == 0 { start() } else { position.chain }
    } else {
        first > position.seq || last <= position.seq
    };
    // The groups that are here in its place, before it and after it, also pending ones.
    let mut statement = replica.db.prepare_cached(
        "SELECT first, last, chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last >= ?3
           AND (applied OR ?4) ORDER BY last",
    )?;
    let mut rows = statement.query((dev, checkpoint.stream.number(), first - 1, waiting))?;
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
    let before = first - 1;
    let agrees = match past_here(replica, dev, checkpoint.stream, before)? {
        _ if before == 0 => Some(checkpoint.prev == start()),
        Past::Chain(chain) => Some(chain == checkpoint.prev),
        past => past.has(checkpoint.prev.tag()),
    };
    if last <= position.seq {
        // Of what is folded in its place, the tags are left.
        let after =
            end.map(|end| Ok::<_, Error>(past_here(replica, dev, checkpoint.stream, last)?.has(end.tag())));
        fits &= agrees != Some(false) && after.transpose()?.flatten() != Some(false);
    }
    if fits {
        return Ok(Fit::Fits);
    }
    let agrees = agrees == Some(true);
    Ok(Fit::Diverges { common: agrees.then_some(before) })
}

/// What of a sender's vector is of another history than is here.
#[derive(Default)]
pub(crate) struct Apart {
    /// Its own: from this frame on, or before.
    pub sender: Option<u64>,
    /// Those of third devices, after these frames or before: no more than the sender says.
    pub others: BTreeMap<DeviceId, u64>,
    /// Of these devices it is the per-device stream that differs.
    pub per_device: BTreeSet<DeviceId>,
    /// Up to here the per-device streams of identities that this device had before are the same.
    pub own_same: BTreeMap<DeviceId, u64>,
    /// Where shared streams of third devices part, by the places that the sender says.
    pub parted: BTreeMap<DeviceId, Parting>,
}

impl Apart {
    /// Adds what the sender said besides: what was compared once is not there any more.
    pub(super) fn also_said(&mut self, more: Self) {
        self.others.extend(more.others);
        self.per_device.extend(more.per_device);
        self.own_same.extend(more.own_same);
        self.parted.extend(more.parted);
    }
}

/// Compares what a sender has applied, and its probes, with what is here. What they say of this device goes to the
/// evidence. What the sender has applied of a history that is another one than is here is removed, and returned; what its
/// probes say so of this device's own log is removed too, so that nobody counts it as what both have.
pub(crate) fn compare_vector(
    replica: &Replica,
    sender: DeviceId,
    (applied, probes): (&mut Vec<Position>, &mut Vec<Probe>),
    evidence: &mut PeerEvidence,
) -> Result<Apart> {
    let mut apart = Apart::default();
    let mut not_ours = Vec::new();
    let former = devices::issuers(&replica.db, replica.me)?;
    let here = positions::all_positions(replica)?;
    let (group_at, tag_at) = (replica.db.prepare_cached(GROUP_AT)?, replica.db.prepare_cached(TAG_AT)?);
    let (mut places, mut partings) = (Places { group_at, tag_at }, Partings::default());
    for entry in probes.iter().copied().chain(applied.iter().copied().map(Probe::from)) {
        if entry.seq == 0 {
            continue;
        }
        let ours = entry.author == replica.identity.id;
        let position = here.get(&(entry.author, entry.stream));
        let Some((dev, position)) = position.filter(|(_, position)| entry.seq <= position.seq) else {
            if ours && sender == replica.identity.id {
                evidence.has(entry.stream, entry.seq); // We said so ourselves.
            }
            continue;
        };
        let past = places.past(*dev, *position, entry.stream, entry.seq)?;
        let Some(upper) = past.compare(entry.seq, entry.tag) else { continue };
        if entry.stream == Stream::Shared && !ours && entry.author != sender {
            partings.meet(*dev, &entry, upper.is_none());
        }
        match upper {
            _ if ours => {
                evidence.compared(entry.stream, entry.seq, upper);
                if upper.is_some() && entry.stream == Stream::Shared {
                    evidence.from_other = Some(sender).filter(|sender| *sender != replica.identity.id);
                }
                not_ours.extend(upper.map(|_| entry));
            }
            None if entry.stream == Stream::PerDevice && former.contains(&entry.author) => {
                let same = apart.own_same.entry(entry.author).or_default();
                *same = entry.seq.max(*same);
            }
            None => {}
            Some(upper) if entry.author == sender => {
                apart.sender = Some(apart.sender.map_or(upper + 1, |other| other.min(upper + 1)));
            }
            Some(upper) => {
                apart.per_device.extend(Some(entry.author).filter(|_| entry.stream == Stream::PerDevice));
                apart.others.entry(entry.author).and_modify(|seq| *seq = upper.min(*seq)).or_insert(upper);
            }
        }
    }
    apart.parted = partings.found(replica)?;
    applied
        .retain(|e| !apart.others.contains_key(&e.author) && (e.author != sender || apart.sender.is_none()));
    probes.retain(|e| !not_ours.contains(e));
    Ok(apart)
}

/// Up to where shared streams are the same as at a sender, and the first place there that is another one here, by device.
#[derive(Default)]
struct Partings(BTreeMap<i64, (u64, Option<Place>)>);

impl Partings {
    fn meet(&mut self, dev: i64, entry: &Probe, is_same: bool) {
        let (same, other) = self.0.entry(dev).or_default();
        if is_same {
            *same = entry.seq.max(*same);
        } else if other.as_ref().is_none_or(|other| entry.seq < other.seq) {
            *other = Some(Place { seq: entry.seq, tag: entry.tag });
        }
    }

    /// Returns where streams part of which the chain is here at the last place that is the same.
    fn found(self, replica: &Replica) -> Result<BTreeMap<DeviceId, Parting>> {
        let mut found = BTreeMap::new();
        for (dev, (same, other)) in self.0 {
            if let Some(other) = other.filter(|other| 0 < same && same < other.seq)
                && let Some(chain) = chain_at(replica, dev, Stream::Shared, same)?
            {
                let parting = Parting { common: (same, chain), after: Some(other.tag) };
                found.insert(devices::device_id(replica, dev)?, parting);
            }
        }
        Ok(found)
    }
}

/// Compares a place of this device's own log that came with a state with what is here.
pub(crate) fn compare_place(
    replica: &Replica,
    stream: Stream,
    place: &Place,
    evidence: &mut PeerEvidence,
) -> Result<()> {
    if let Some(upper) = compare_own(replica, stream, place)? {
        evidence.compared(stream, place.seq, upper);
    }
    Ok(())
}

/// Returns whether a place of this device's own log is not the same here any more: it took that back.
pub(super) fn is_taken_back(replica: &Replica, said: &Position) -> Result<bool> {
    let place = Place { seq: said.seq, tag: said.tag };
    let is_own = said.author == replica.identity.id;
    Ok(is_own && compare_own(replica, said.stream, &place)?.flatten().is_some())
}

/// Compares a place of this device's own log with what is here, as [`Past::compare`] says.
fn compare_own(replica: &Replica, stream: Stream, place: &Place) -> Result<Option<Option<u64>>> {
    if place.seq > positions::position(replica, replica.me, stream)?.seq {
        return Ok(None);
    }
    Ok(past_here(replica, replica.me, stream, place.seq)?.compare(place.seq, place.tag))
}

/// Finds where a shared stream here parts from another history, of which a state has these places, the newest first. `start`
/// is its beginning.
pub(super) fn parting(
    replica: &Replica,
    dev: i64,
    places: &[Place],
    start: (u64, Chain),
) -> Result<Option<Parting>> {
    let mut common = None;
    for place in places.iter().rev() {
        match past_here(replica, dev, Stream::Shared, place.seq)?.has(place.tag) {
            Some(true) => common = Some(place.seq),
            Some(false) => {
                let chain =
                    common.map(|seq| chain_at(replica, dev, Stream::Shared, seq)).transpose()?.flatten();
                return Ok(Some(match common.zip(chain) {
                    Some(common) => Parting { common, after: Some(place.tag) },
                    None => Parting { common: start, after: None },
                }));
            }
            None => {}
        }
    }
    Ok(None)
}

/// Lists probes of a device's own log, for it to compare, and of those that were set back or copied. If it was rolled back, or is a
/// second history, it finds the divergence point by them, also by a carrier that brings none of its frames.
pub(crate) fn probes_of(replica: &Replica, device: Option<DeviceId>) -> Result<Vec<Probe>> {
    let mut probes = Vec::new();
    let device = device.filter(|id| *id != replica.identity.id);
    let receiver = device.map(|id| devices::device_number(replica, id)).transpose()?.flatten();
    // Whoever was set back, or has a second history, waits to hear of it, by whatever bundle it meets first.
    let told = copies::to_be_told(replica)?;
    for dev in receiver.into_iter().chain(told.into_iter().filter(|dev| Some(*dev) != receiver)) {
        if probes.len() < PROBES_MAX {
            add_probes(replica, dev, &mut probes)?;
        }
    }
    Ok(probes)
}

/// Lists probes of all devices' logs, for a device that joins: it may have another history.
pub(crate) fn probes(replica: &Replica) -> Result<Vec<Probe>> {
    let mut probes = Vec::new();
    let mut authors =
        replica.db.prepare_cached("SELECT dev FROM _pm_stream UNION SELECT dev FROM _pm_group")?;
    for dev in authors.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
        if probes.len() < PROBES_MAX {
            add_probes(replica, dev, &mut probes)?;
        }
    }
    Ok(probes)
}

/// Adds probes of a device's log: the ends of its last groups, also pending ones, then ends at distances that double;
/// and the end of what is folded away right before one of these. Those of a stream ascend, so that the first one that
/// differs is the closest to the divergence point.
fn add_probes(replica: &Replica, dev: i64, probes: &mut Vec<Probe>) -> Result<()> {
    let author = devices::device_id(replica, dev)?;
    let before = probes.len();
    for stream in Stream::ALL {
        let mut groups = replica.db.prepare_cached(
            "SELECT last, chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2
             UNION ALL SELECT last, tag, NULL FROM _pm_tag t WHERE dev = ?1 AND stream = ?2 AND NOT EXISTS
               (SELECT 1 FROM _pm_group g WHERE g.dev = ?1 AND g.stream = ?2 AND g.last = t.last) ORDER BY last DESC",
        )?;
        let mut rows = groups.query((dev, stream.number()))?;
        let (mut at, mut next) = (0u64, 0u64);
        // Where the group before a probed one is folded, the probed one carries the chain at its end.
        let mut probed: Option<Checkpoint> = None;
        let mut said = membership::said(replica, dev, dev, stream)?.filter(|seq| *seq > 0);
        let before_probed =
            |probed: &Checkpoint| Probe { author, stream, seq: probed.first - 1, tag: probed.prev.tag() };
        while let Some(row) = rows.next()? {
            let seq: u64 = row.get(0)?;
            if let Some(probed) = probed.take().filter(|probed| probed.first - 1 > seq) {
                probes.push(before_probed(&probed));
            }
            // Where it said last that it is, and what is before that: there it was set back to.
            let said_here = said.take_if(|said| seq <= *said).is_some();
            if at >= next || said_here {
                let chain: Vec<u8> = row.get(1)?;
                let tag =
                    chain.first_chunk().copied().ok_or_else(|| Error::damaged("a chain without bytes"))?;
                probes.push(Probe { author, stream, seq, tag });
                next = if at < EACH { at + 1 } else { next.max(at * 2) };
                let checkpoint: Option<Vec<u8>> = row.get(2)?;
                probed =
                    checkpoint.map(|bytes| Checkpoint::decode(&bytes).map_err(error::bad)).transpose()?;
            }
            at += 1;
        }
        probes.extend(probed.filter(|probed| probed.first > 1).map(|probed| before_probed(&probed)));
    }
    probes[before..].reverse();
    Ok(())
}

/// Names the identity that this device has now, if it had another one before.
pub(crate) fn new_identity_label(replica: &Replica, was: DeviceId) -> Option<String> {
    (was != replica.identity.id).then(|| devices::label(replica.identity.id, Some(&replica.identity.name)))
}

/// Refuses a device's database that has another history of anybody than is here.
///
/// # Errors
/// [`Error::Twin`].
pub(crate) fn refuse_other_history(replica: &Replica, source: &Replica) -> Result<()> {
    for entry in positions::vector(source)? {
        let Some(here) = devices::device_number(replica, entry.author)? else { continue };
        let known = positions::position(replica, here, entry.stream)?.seq;
        let there = devices::device_number(source, entry.author)?.unwrap_or(0);
        let both = known.min(entry.seq);
        if let Some(common) = common_with(replica, here, source, there, entry.stream, both)? {
            return Err(
                Error::Twin { device: devices::name_of(replica, entry.author)?, seq: common + 1 }.into()
            );
        }
    }
    Ok(())
}

/// Finds the end of the common part of a stream in two databases; `None` if they have the same up to `at`.
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
        let before = match (past_here(replica, here, stream, at)?, past_here(source, there, stream, at)?) {
            (Past::Chain(here), Past::Chain(there)) if here == there => break,
            (Past::Tag(tag), past) | (past, Past::Tag(tag)) if past.has(tag) == Some(true) => break,
            (Past::Unknown, _) | (_, Past::Unknown) => break,
            (Past::Inside(first), _) | (_, Past::Inside(first)) => first - 1,
            _ => at - 1,
        };
        different = true;
        at = before;
    }
    Ok(different.then_some(at))
}

/// Finds up to where this device's own log can be one with what somebody has at a place; none where both are the same there,
/// or where that cannot be told.
pub(crate) fn parts_at(replica: &Replica, entry: &Position) -> Result<Option<u64>> {
    if entry.seq == 0 || entry.seq > positions::position(replica, replica.me, entry.stream)?.seq {
        return Ok(None);
    }
    let past = past_here(replica, replica.me, entry.stream, entry.seq)?;
    Ok(past.compare(entry.seq, entry.tag).flatten())
}

/// Finds what is known of a stream's chain after this frame.
fn past_here(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Past> {
    let (group_at, tag_at) = (replica.db.prepare_cached(GROUP_AT)?, replica.db.prepare_cached(TAG_AT)?);
    Places { group_at, tag_at }.past(dev, positions::position(replica, dev, stream)?, stream, seq)
}

/// Selects the group that a frame is in, or the next one.
const GROUP_AT: &str = "SELECT first, last, chain, CASE WHEN first > ?3 THEN checkpoint END FROM _pm_group
                        WHERE dev = ?1 AND stream = ?2 AND last >= ?3 ORDER BY last LIMIT 1";

/// Selects the folded group that a frame is in, or the next one.
const TAG_AT: &str = "SELECT first, last, tag FROM _pm_tag WHERE dev = ?1 AND stream = ?2 AND last >= ?3
                      ORDER BY last LIMIT 1";

/// The statements that find what is known of a stream's chain.
struct Places<'r> {
    group_at: CachedStatement<'r>,
    tag_at: CachedStatement<'r>,
}

impl Places<'_> {
    /// Finds what is known of a stream's chain after this frame, of a stream that is applied up to `position`.
    fn past(&mut self, dev: i64, position: StreamPosition, stream: Stream, seq: u64) -> Result<Past> {
        if position.seq == seq {
            return Ok(Past::Chain(position.chain));
        }
        let group = self
            .group_at
            .query_row((dev, stream.number(), seq), |row| {
                let (first, last): (u64, u64) = (row.get(0)?, row.get(1)?);
                Ok((first, last, row.get(2)?, row.get::<_, Option<Vec<u8>>>(3)?))
            })
            .optional()?;
        match group {
            Some((_, last, chain, _)) if last == seq => return Ok(Past::Chain(Chain(chain))),
            Some((first, _, _, Some(after))) if first == seq + 1 => {
                return Ok(Past::Chain(Checkpoint::decode(&after).map_err(error::bad)?.prev));
            }
            Some((first, ..)) if first <= seq => return Ok(Past::Inside(first)),
            _ => {}
        }
        let folded = self
            .tag_at
            .query_row((dev, stream.number(), seq), |row| {
                Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?, row.get(2)?))
            })
            .optional()?;
        Ok(match folded {
            Some((_, last, tag)) if last == seq => Past::Tag(tag),
            Some((first, ..)) if first <= seq => Past::Inside(first),
            _ => Past::Unknown,
        })
    }
}

/// Finds the chain of a stream at the end of a group that is here, or before one.
pub(crate) fn chain_at(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Option<Chain>> {
    match past_here(replica, dev, stream, seq)? {
        Past::Chain(chain) => Ok(Some(chain)),
        Past::Tag(_) | Past::Inside(_) | Past::Unknown => Ok(None),
    }
}

/// Records a notice that a device has two histories, if something can be written now.
pub(crate) fn record_twin(replica: &Replica, device: &str, seq: u64) -> Result<()> {
    if replica.db.is_readonly(rusqlite::MAIN_DB)? {
        return Ok(());
    }
    let what = format!(
        "{device} has two histories, here and elsewhere, that part at frame {seq} or before: its database or SD card \
         was copied, or set back; the second one goes on under a new identity once it hears of the first"
    );
    meta::notice(&replica.db, &what, replica.now())
}
