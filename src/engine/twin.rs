//! Two histories under one identity: found wherever what is here meets what comes.
//!
//! The chain over an author's groups says all: two histories that agree in it at one place are the same
//! up to there. So of what both have, the last group is looked at, and nothing before it. Version vectors
//! tell the beginning of the chain, so that a vector alone shows it.
//!
//! What is found about another device is refused, by its name. What is found about this device itself is
//! a [`Mirror`]: whether it was set back, and takes its own frames in again, or is a second history, and goes
//! on under a new identity (`fork`).

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, VectorEntry};
use rusqlite::OptionalExtension;

use super::error::{Error, Result};
use super::{Engine, store};

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

/// How a group that comes fits what is here of its author.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// Nothing here contradicts it.
    Fits,
    /// It is of another history. Up to `common` both are one, if the group says where they part.
    Apart { common: Option<u64> },
}

/// What others tell of this device's own log; by stream.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Mirror {
    /// Up to here they have the same.
    same: [u64; 2],
    /// Up to here they have something.
    more: [u64; 2],
    /// They have another history, which parts from this one after this frame or before.
    apart: [Option<u64>; 2],
    /// It parts right after this frame.
    parts: [Option<u64>; 2],
}

impl Mirror {
    fn at(stream: Stream) -> usize {
        stream.number().into()
    }

    /// Somebody has, or has seen, a frame of this device.
    pub(crate) fn has(&mut self, stream: Stream, seq: u64) {
        let more = &mut self.more[Self::at(stream)];
        *more = seq.max(*more);
    }

    /// How a group under this device's name fits, whose log goes up to `position`. Of another history only
    /// the first group says where.
    pub(crate) fn see(&mut self, checkpoint: &Checkpoint, fit: Fit, position: u64) {
        let at = Self::at(checkpoint.stream);
        match fit {
            Fit::Fits => {
                self.has(checkpoint.stream, checkpoint.last);
                if checkpoint.first <= position + 1 {
                    self.same[at] = self.same[at].max(checkpoint.last.min(position));
                }
            }
            Fit::Apart { common } => {
                let before = checkpoint.first - 1;
                self.apart[at] = Some(self.apart[at].map_or(before, |other| other.min(before)));
                self.parts[at] = self.parts[at].or(common);
            }
        }
    }

    /// Whether they have another history.
    pub(crate) fn is_apart(&self) -> bool {
        self.apart_from().is_some()
    }

    /// From which frame on, or before it.
    pub(crate) fn apart_from(&self) -> Option<u64> {
        self.apart.iter().flatten().min().map(|before| before + 1)
    }
}

impl Engine {
    /// Refuses a group that contradicts what is here of the same author; `end` is the chain after it, if
    /// its frames came with it.
    pub(crate) fn refuse_twin(
        &self,
        checkpoint: &Checkpoint,
        end: Option<&Chain>,
        key: &[u8; 32],
    ) -> Result<()> {
        match self.fit(checkpoint, end, key)? {
            Fit::Fits => Ok(()),
            Fit::Apart { .. } => {
                Err(Error::Twin { device: self.name_of(checkpoint.author)?, seq: checkpoint.first })
            }
        }
    }

    /// How a group fits what is here of the same author.
    pub(crate) fn fit(&self, checkpoint: &Checkpoint, end: Option<&Chain>, key: &[u8; 32]) -> Result<Fit> {
        let Some(dev) = self.device_number(checkpoint.author)? else { return Ok(Fit::Fits) };
        let position = self.position(dev, checkpoint.stream)?;
        let Checkpoint { first, last, .. } = *checkpoint;
        let start = || Chain::start(key, checkpoint.stream);
        let mut fits = if first == position.seq + 1 {
            checkpoint.prev == if position.seq == 0 { start() } else { position.chain }
        } else {
            first > position.seq || last <= position.seq
        };
        // Groups that are here in its place, before it and after it, also such as still wait.
        let mut statement = self.db.prepare_cached(
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
            let its = Checkpoint::decode(&row.get::<_, Vec<u8>>(3)?).map_err(super::log::bad)?;
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
        let agrees = match self.past(dev, checkpoint.stream, before)? {
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
        &self,
        sender: DeviceId,
        vector: &mut Vec<VectorEntry>,
        mirror: &mut Mirror,
    ) -> Result<Option<u64>> {
        let mut apart = None;
        for entry in vector.iter() {
            let Some(dev) = self.device_number(entry.author)?.filter(|_| entry.seq > 0) else { continue };
            let seq = self.position(dev, entry.stream)?.seq;
            let ours = dev == self.me;
            if entry.seq > seq {
                if ours {
                    mirror.has(entry.stream, entry.seq);
                }
                continue;
            }
            let upper = match self.past(dev, entry.stream, entry.seq)? {
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
                    return Err(Error::Twin { device: self.name_of(entry.author)?, seq: upper + 1 });
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
    pub(crate) fn places_of(&self, device: Option<DeviceId>) -> Result<Vec<VectorEntry>> {
        let mut places = Vec::new();
        let device = device.filter(|id| *id != self.identity.id);
        if let Some(dev) = device.map(|id| self.device_number(id)).transpose()?.flatten() {
            self.add_places(dev, &mut places)?;
        }
        Ok(places)
    }

    /// The same of all devices, for who joins: what it has of another history it tells anew.
    pub(crate) fn places(&self) -> Result<Vec<VectorEntry>> {
        let mut places = Vec::new();
        let mut authors =
            self.db.prepare_cached("SELECT dev FROM _pm_stream UNION SELECT dev FROM _pm_group")?;
        for dev in authors.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
            if places.len() < PLACES_MAX {
                self.add_places(dev, &mut places)?;
            }
        }
        Ok(places)
    }

    /// The last groups of a device each, also such as wait here, then at distances that double; and what is
    /// folded away right before one of these.
    fn add_places(&self, dev: i64, places: &mut Vec<VectorEntry>) -> Result<()> {
        let author = self.device_id(dev)?;
        let before = places.len();
        for stream in Stream::ALL {
            let mut groups = self.db.prepare_cached(
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
                    told = Some(Checkpoint::decode(&row.get::<_, Vec<u8>>(2)?).map_err(super::log::bad)?);
                }
                at += 1;
            }
            places.extend(told.filter(|told| told.first > 1).map(|told| before_told(&told)));
        }
        places[before..].reverse();
        // The last entry of a stream says what is applied here; the others do not.
        for stream in Stream::ALL {
            let any = places[before..].iter().any(|place| place.stream == stream);
            if any && self.position(dev, stream)?.seq == 0 {
                places.push(VectorEntry { author, stream, seq: 0, tag: [0; 4] });
            }
        }
        Ok(())
    }

    /// Notes for people that a device has two histories, if something can be written now.
    pub(crate) fn note_twin(&self, device: &str, seq: u64) -> Result<()> {
        if self.db.is_readonly(rusqlite::MAIN_DB)? {
            return Ok(());
        }
        let what = format!(
            "{device} has two histories, here and elsewhere, that part at frame {seq} or before: its database or SD card \
             was copied, or set back; the second one goes on under a new identity once it hears of the first"
        );
        store::notice(&self.db, &what, self.now())
    }

    /// Notes whether a device has lost frames of its own that are here: then what it was known to have is
    /// what it says now, and what it had seen when it wrote does not count.
    pub(crate) fn note_set_back(
        &self,
        sender: DeviceId,
        vector: &[VectorEntry],
        made: Option<i64>,
    ) -> Result<()> {
        let Some(dev) = self.device_number(sender)? else { return Ok(()) };
        let mut lost = false;
        for stream in Stream::ALL {
            let told = vector.iter().filter(|e| (e.author, e.stream) == (sender, stream)).map(|e| e.seq);
            lost |= told.max().unwrap_or(0) < self.position(dev, stream)?.seq;
        }
        let was: bool =
            self.db.query_row("SELECT set_back FROM _pm_device WHERE n = ?1", [dev], |row| row.get(0))?;
        if let (true, Some(made)) = (lost, made) {
            let wrote: Option<i64> = self.db.query_row(
                "SELECT max(wall) FROM _pm_group WHERE dev = ?1 AND applied",
                [dev],
                |row| row.get(0),
            )?;
            if wrote.is_none_or(|wrote| made <= wrote) {
                return Ok(()); // An old bundle.
            }
        }
        if lost {
            self.db.execute("DELETE FROM _pm_ack WHERE peer = ?1", [dev])?;
            // Without an entry it would be taken to have all that it wrote.
            self.db.execute(
                "INSERT INTO _pm_ack (peer, dev, stream, seq) VALUES (?1, ?1, 0, 0), (?1, ?1, 1, 0)",
                [dev],
            )?;
        }
        if lost != was {
            self.db.execute("UPDATE _pm_device SET set_back = ?2 WHERE n = ?1", (dev, lost))?;
        }
        Ok(())
    }

    /// Draws the consequences of what others tell of this device's own log: it takes its frames in again, or
    /// goes on under a new identity. Whether it did the latter.
    ///
    /// # Errors
    /// Those of going on under a new identity: [`Error::KeyMissing`], [`Error::Io`], [`Error::Forked`].
    pub(crate) fn face(&mut self, mirror: &Mirror) -> Result<bool> {
        let mut positions = [0; 2];
        for stream in Stream::ALL {
            positions[Mirror::at(stream)] = self.position(self.me, stream)?.seq;
        }
        let more = mirror.more.iter().zip(positions).any(|(more, position)| *more > position);
        if !more && !mirror.is_apart() {
            return Ok(false);
        }
        let bound = mirror.apart.map(|apart| apart.unwrap_or(u64::MAX));
        // What a vector shows counts more than what was heard: who confirmed it can have the second history.
        let shown = mirror.is_apart() && mirror.same != [0; 2];
        let mut common = self.certain(mirror.same, bound, !shown)?;
        let mut unknown = false;
        for (at, position) in positions.into_iter().enumerate() {
            common[at] = mirror.parts[at].unwrap_or(common[at]);
            // Others have more, and whether this device's last frames are among it nothing tells.
            unknown |= mirror.more[at] > position && common[at] < position;
        }
        if mirror.is_apart() || unknown {
            self.go_on_anew(common)?;
            return Ok(true);
        }
        let mirror = *mirror;
        self.transaction(|e| e.note_mirror(&mirror))?;
        Ok(false)
    }

    fn note_mirror(&self, mirror: &Mirror) -> Result<()> {
        for stream in Stream::ALL {
            let at = Mirror::at(stream);
            self.note_same(stream, mirror.same[at])?;
            let more = keys(stream).1;
            store::set(&self.db, more, self.told_more(stream)?.max(mirror.more[at]))?;
        }
        Ok(())
    }

    /// Up to where our own streams are certainly no second history, by stream: what somebody was seen to have
    /// the same of, with `told` also earlier, and what is folded away, which is what everybody had; and whatever
    /// was sealed before that.
    pub(crate) fn certain(&self, same: [u64; 2], bound: [u64; 2], told: bool) -> Result<[u64; 2]> {
        let mut certain = [0; 2];
        // What was sealed after the histories parted is not common, in whichever stream.
        let parted: Option<u64> = self.db.query_row(
            "SELECT min(lamport) FROM _pm_group WHERE dev = ?1 AND applied
               AND ((stream = 0 AND last > ?2) OR (stream = 1 AND last > ?3))",
            (self.me, bound[0].min(i64::MAX as u64), bound[1].min(i64::MAX as u64)),
            |row| row.get(0),
        )?;
        let mut bound = bound;
        for stream in Stream::ALL {
            let at = Mirror::at(stream);
            let first: Option<u64> = self.db.query_row(
                "SELECT min(first) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND lamport >= ?3",
                (self.me, stream.number(), parted),
                |row| row.get(0),
            )?;
            bound[at] = first.map_or(bound[at], |first| bound[at].min(first - 1));
        }
        for stream in Stream::ALL {
            let at = Mirror::at(stream);
            let told = if told { self.told_same(stream)? } else { 0 };
            certain[at] = told.max(same[at]).min(bound[at]).max(self.floor(self.me, stream)?);
        }
        let sealed: Option<u64> = self.db.query_row(
            "SELECT max(lamport) FROM _pm_group WHERE dev = ?1 AND applied
               AND ((stream = 0 AND last <= ?2) OR (stream = 1 AND last <= ?3))",
            (self.me, certain[0].min(i64::MAX as u64), certain[1].min(i64::MAX as u64)),
            |row| row.get(0),
        )?;
        for stream in Stream::ALL {
            let at = Mirror::at(stream);
            let before: Option<u64> = self.db.query_row(
                "SELECT max(last) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND lamport <= ?3",
                (self.me, stream.number(), sealed),
                |row| row.get(0),
            )?;
            certain[at] = certain[at].max(before.unwrap_or(0).min(bound[at]));
        }
        Ok(certain)
    }

    /// Somebody has the same of our own stream, up to here.
    pub(crate) fn note_same(&self, stream: Stream, seq: u64) -> Result<()> {
        store::set(&self.db, keys(stream).0, self.told_same(stream)?.max(seq))
    }

    /// Up to where somebody is known to have had the same of our own stream.
    fn told_same(&self, stream: Stream) -> Result<u64> {
        Ok(store::get(&self.db, keys(stream).0)?.unwrap_or(0))
    }

    /// Up to where somebody is known to have had anything of it.
    fn told_more(&self, stream: Stream) -> Result<u64> {
        Ok(store::get(&self.db, keys(stream).1)?.unwrap_or(0))
    }

    /// Forgets what was told: it was told of the identity before.
    pub(crate) fn forget_mirror(&self) -> Result<()> {
        self.db.execute("DELETE FROM _pm_meta WHERE k IN ('same 0', 'same 1', 'more 0', 'more 1')", [])?;
        Ok(())
    }

    /// Whether others have frames of this device that it has not: it was set back. What it writes now would
    /// be a second history.
    pub(crate) fn is_set_back(&self) -> Result<bool> {
        for stream in Stream::ALL {
            let more = self.told_more(stream)?;
            if more > 0 && more > self.position(self.me, stream)?.seq {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What it is called now, if it was another device before.
    pub(crate) fn called_anew(&self, was: DeviceId) -> Option<String> {
        (was != self.identity.id).then(|| super::label(self.identity.id, Some(&self.identity.name)))
    }

    /// Refuses a device's database that has another history of anybody than is here. What is here tells of
    /// that device itself is for it to draw consequences from, if its secret key is beside it.
    pub(crate) fn refuse_other_history(&self, source: &Self) -> Result<Mirror> {
        let mut mirror = Mirror::default();
        for entry in source.vector()? {
            let Some(here) = self.device_number(entry.author)? else { continue };
            let its_own = entry.author == source.identity.id;
            let known = self.position(here, entry.stream)?.seq;
            if its_own {
                mirror.has(entry.stream, known);
            }
            let there = source.device_number(entry.author)?.unwrap_or(0);
            let Some(common) = self.common_with(here, source, there, entry.stream, known.min(entry.seq))?
            else {
                if its_own {
                    mirror.same[Mirror::at(entry.stream)] = known.min(entry.seq);
                }
                continue;
            };
            if !its_own || !source.can_sign() || source.db.is_readonly(rusqlite::MAIN_DB)? {
                return Err(Error::Twin { device: self.name_of(entry.author)?, seq: common + 1 });
            }
            let at = Mirror::at(entry.stream);
            (mirror.apart[at], mirror.parts[at]) = (Some(common), Some(common));
        }
        Ok(mirror)
    }

    /// If two databases have different histories of a stream up to a place: up to where they are one.
    fn common_with(
        &self,
        here: i64,
        source: &Self,
        there: i64,
        stream: Stream,
        mut at: u64,
    ) -> Result<Option<u64>> {
        let mut different = false;
        while at > 0 {
            let before = match (self.past(here, stream, at)?, source.past(there, stream, at)?) {
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

    fn past(&self, dev: i64, stream: Stream, seq: u64) -> Result<Past> {
        let position = self.position(dev, stream)?;
        if position.seq == seq {
            return Ok(Past::Chain(position.chain));
        }
        let group: Option<(u64, u64, [u8; 32], Vec<u8>)> = self
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
                Past::Chain(Checkpoint::decode(&after).map_err(super::log::bad)?.prev)
            }
            Some((first, ..)) if first <= seq => Past::Inside(first),
            _ => Past::Unknown,
        })
    }

    /// The chain of a stream at the end of a group that is here, or before one.
    pub(crate) fn chain_at(&self, dev: i64, stream: Stream, seq: u64) -> Result<Option<Chain>> {
        match self.past(dev, stream, seq)? {
            Past::Chain(chain) => Ok(Some(chain)),
            Past::Inside(_) | Past::Unknown => Ok(None),
        }
    }
}

/// What the sender of a vector has applied: the last entry of each stream. What comes before are places in it,
/// also such as wait there.
pub(crate) fn applied(vector: &[VectorEntry]) -> impl Iterator<Item = &VectorEntry> {
    let last: HashMap<_, _> = vector.iter().map(|e| ((e.author, e.stream.number()), e)).collect();
    last.into_values()
}

/// Under which names `_pm_meta` has what others told of a stream of ours.
fn keys(stream: Stream) -> (&'static str, &'static str) {
    match stream {
        Stream::Shared => ("same 0", "more 0"),
        Stream::Own => ("same 1", "more 1"),
    }
}
