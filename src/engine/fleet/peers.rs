//! Peers: what they acknowledged, and what they have of our own log.

use std::collections::BTreeMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, Position, Probe};

use crate::engine::error::Result;
use crate::engine::fleet::positions::StreamPosition;
use crate::engine::fleet::{copies, devices, membership, positions, statements};
use crate::engine::store::meta;
use crate::engine::table::replica::Replica;

/// Whether a group that comes is of the history that is here of its author.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// Nothing here contradicts it.
    Fits,
    /// It is of another history. `common` is the last frame of the common prefix, if the group shows which that is.
    Diverges { common: Option<u64> },
}

/// A group that is of another history of its author than is here, as its author's signature shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OtherHistory {
    pub author: DeviceId,
    pub stream: Stream,
    /// The first frame that shows it.
    pub first: u64,
    /// Where both histories part, and the chain there, if the group shows it.
    pub common: Option<(u64, Chain)>,
    /// The tag of its chain after its first group there, if that is shown.
    pub after: Option<[u8; 4]>,
    /// The chain after the group.
    pub end: Chain,
}

/// Where two histories of a shared stream part: the last place that is the same, and the tag that the other one has at its
/// next place. If no chain is known that is the same, the beginning, and no tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parting {
    pub common: (u64, Chain),
    pub after: Option<[u8; 4]>,
}

impl OtherHistory {
    /// Describes a group whose frames came with it; `common` is where the histories part, if it shows that.
    pub(crate) fn of(checkpoint: &Checkpoint, end: &Chain, common: Option<u64>) -> Self {
        let Checkpoint { author, stream, first, prev, .. } = *checkpoint;
        let common = common.map(|seq| (seq, prev));
        Self { author, stream, first, common, after: common.map(|_| end.tag()), end: *end }
    }

    /// Adds where the histories part, which a state shows whose maker has folded the groups there.
    pub(crate) fn parts_at(self, parting: Option<&Parting>) -> Self {
        match parting.filter(|_| self.common.is_none() && self.stream == Stream::Shared) {
            Some(Parting { common, after }) => {
                Self { first: common.0 + 1, common: Some(*common), after: *after, ..self }
            }
            None => self,
        }
    }
}

/// Peer evidence about this device's own log, by stream.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PeerEvidence {
    /// Up to here peers have the same.
    pub same: [u64; 2],
    /// Up to here peers have something, as this device's own signature shows.
    pub more: [u64; 2],
    /// A checkpoint with its signature is of another history.
    pub is_other_shown: bool,
    /// Up to here that history goes, as far as such checkpoints show.
    pub others_have: [u64; 2],
    /// Peers have another history, or say so: its divergence point is after this frame or before. Where nothing shows
    /// it, that counts for nothing.
    pub diverges_by: [Option<u64>; 2],
    /// Its divergence point is exactly here.
    pub diverges_at: [Option<StreamPosition>; 2],
    /// A state comes that goes on where this device's log of a stream ends, without its frames.
    pub by_state: [bool; 2],
    /// It comes from a base.
    pub by_base: bool,
    /// Who sent it says that it has another history of this device's shared stream itself.
    pub from_other: Option<DeviceId>,
}

impl PeerEvidence {
    /// Returns the place of a stream in these arrays.
    pub(crate) fn at(stream: Stream) -> usize {
        stream.number().into()
    }

    /// Records that somebody has a frame of this device, as this device's own signature shows.
    pub(crate) fn has(&mut self, stream: Stream, seq: u64) {
        let more = &mut self.more[Self::at(stream)];
        *more = seq.max(*more);
    }

    /// Records how a group of this device's name fits its log, which goes up to `position`. Of another history only
    /// the first group shows the divergence point.
    pub(crate) fn see(&mut self, checkpoint: &Checkpoint, fit: Fit, position: u64) {
        let at = Self::at(checkpoint.stream);
        match fit {
            Fit::Fits => {
                self.has(checkpoint.stream, checkpoint.last);
                if checkpoint.first <= position + 1 {
                    self.same[at] = self.same[at].max(checkpoint.last.min(position));
                }
            }
            Fit::Diverges { common } => {
                let before = checkpoint.first - 1;
                self.is_other_shown = true;
                self.others_have[at] = self.others_have[at].max(checkpoint.last);
                self.diverges_by[at] = Some(self.diverges_by[at].map_or(before, |other| other.min(before)));
                let common = common.map(|seq| StreamPosition { seq, chain: checkpoint.prev });
                self.diverges_at[at] = self.diverges_at[at].or(common);
            }
        }
    }

    /// Records how a place of this device's log compared with what somebody says of it: the same, or another history from
    /// this frame on or before.
    pub(crate) fn compared(&mut self, stream: Stream, seq: u64, diverges_by: Option<u64>) {
        let at = Self::at(stream);
        match diverges_by {
            None => self.same[at] = self.same[at].max(seq),
            Some(upper) => {
                self.diverges_by[at] = Some(self.diverges_by[at].map_or(upper, |other| other.min(upper)));
            }
        }
    }

    /// Returns whether peers have another history.
    pub(crate) fn is_divergent(&self) -> bool {
        self.diverges_after().is_some()
    }

    /// Returns the first frame that can differ; the divergence point may also be earlier.
    pub(crate) fn diverges_after(&self) -> Option<u64> {
        self.diverges_by.iter().flatten().min().map(|before| before + 1)
    }
}

/// How a peer said what it has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    /// In a file, whose statement has this number.
    InFile([u8; 8]),
    /// In a session: all of it at its beginning, and then what changes.
    InSession {
        /// It is all.
        whole: bool,
    },
}

/// The name under which `_pm_meta` has the first frame of the group in which this device last reissued its per-device
/// tables.
pub(crate) const REISSUED: &str = "reissued";

/// So many statements of a peer are remembered.
const STATEMENTS: i64 = 64;

/// Records what the sender of a bundle, or the peer of a session, has applied, and that we heard of it. Its positions
/// were compared with what is here.
///
/// What it said last counts, also if that is less than before: it was restored from a backup. A file can come again,
/// or late; one whose statement was heard already says nothing. One that comes late for the first time counts as said
/// last until the peer speaks again. That is wrong, and costs no more than frames that are sent again: what is folded
/// or applied is a matter of the log alone.
///
/// What it has of another history of our own log (`parts` finds up to where both can be one) acknowledges nothing of ours.
pub(crate) fn record_acknowledged(
    replica: &Replica,
    sender: DeviceId,
    applied: &[Position],
    said: Said,
    parts: PartsAt<'_>,
) -> Result<()> {
    if sender == replica.identity.id {
        return Ok(());
    }
    let peer = devices::device_number_or_new(replica, sender)?;
    record_applied(replica, applied, parts)?;
    let whole = match said {
        Said::InFile(number) if !is_new_statement(replica, peer, number)? => return Ok(()),
        Said::InFile(_) => true,
        Said::InSession { whole } => whole,
    };
    if whole {
        replica.db.prepare_cached("DELETE FROM _pm_ack WHERE peer = ?1")?.execute([peer])?;
    }
    let mut numbered = Vec::with_capacity(applied.len());
    let splits = splits(replica)?;
    for entry in applied {
        let dev = devices::device_number_or_new(replica, entry.author)?;
        numbered.push((dev, *entry));
        // Nobody has more of our own log than there is: who says so was told by us before we were set back, or lies.
        let ours =
            if dev == replica.me { positions::position(replica, dev, entry.stream)?.seq } else { u64::MAX };
        let (mut seq, mut tag) = (entry.seq.min(ours), Some(entry.tag).filter(|_| entry.seq <= ours));
        // Of one that has two histories, what is beyond what is here can be of the other: it is shown this one.
        if let Some(common) = splits.get(&dev).filter(|_| entry.stream == Stream::Shared && dev != peer)
            && entry.seq > positions::position(replica, dev, entry.stream)?.seq
        {
            (seq, tag) = (seq.min(*common), None);
        }
        if dev == replica.me
            && entry.seq <= ours
            && let Some(upper) = parts(replica, entry)?
        {
            (seq, tag) = (upper.min(common_acked(replica, entry.stream)?), None);
        }
        replica
            .db
            .prepare_cached(
                "INSERT INTO _pm_ack (peer, dev, stream, seq, tag) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (peer, dev, stream) DO UPDATE SET seq = excluded.seq, tag = excluded.tag",
            )?
            .execute((peer, dev, entry.stream.number(), seq, tag))?;
    }
    let lacks = record_rollback(replica, peer, sender, applied)?;
    if let Said::InFile(number) = said {
        copies::hear(replica, peer, number, &numbered, lacks)?;
    }
    membership::hear_speaking(replica, peer)?;
    replica
        .db
        .prepare_cached("UPDATE _pm_device SET heard = ?2 WHERE n = ?1")?
        .execute((peer, replica.now()))?;
    Ok(())
}

/// Returns whether a statement of a peer was not heard before, and remembers it.
fn is_new_statement(replica: &Replica, peer: i64, number: [u8; 8]) -> Result<bool> {
    let new = replica
        .db
        .prepare_cached(
            "INSERT OR IGNORE INTO _pm_statement (peer, number, n)
             VALUES (?1, ?2, (SELECT coalesce(max(n), 0) + 1 FROM _pm_statement WHERE peer = ?1))",
        )?
        .execute((peer, number))?
        > 0;
    replica
        .db
        .prepare_cached(
            "DELETE FROM _pm_statement WHERE peer = ?1
             AND n <= (SELECT max(n) FROM _pm_statement WHERE peer = ?1) - ?2",
        )?
        .execute((peer, STATEMENTS))?;
    Ok(new)
}

/// Returns whether a statement of a peer was heard before.
pub(crate) fn has_heard(replica: &Replica, sender: DeviceId, statement: [u8; 8]) -> Result<bool> {
    let Some(peer) = devices::device_number(replica, sender)? else { return Ok(false) };
    let heard = "SELECT 1 FROM _pm_statement WHERE peer = ?1 AND number = ?2";
    Ok(replica.db.prepare_cached(heard)?.exists((peer, statement))?)
}

/// Returns whether it would change nothing to record what a bundle's sender says: its statement was heard already, and
/// who has what of our own log is known. Without a statement, it says the latter alone.
pub(crate) fn is_recorded(
    replica: &Replica,
    sender: DeviceId,
    statement: Option<[u8; 8]>,
    (applied, probes): (&[Position], &[Probe]),
) -> Result<bool> {
    if sender == replica.identity.id {
        return Ok(true);
    }
    let Some(peer) = devices::device_number(replica, sender)? else { return Ok(false) };
    let is_recorded = match statement {
        Some(statement) => has_heard(replica, sender, statement)?,
        None => !replica.db.prepare_cached(WORD)?.exists([peer])?,
    };
    if !is_recorded {
        return Ok(false);
    }
    for probe in applied.iter().copied().map(Probe::from).chain(probes.iter().copied()) {
        if probe.author == replica.identity.id
            && probe.seq <= positions::position(replica, replica.me, probe.stream)?.seq
            && probe.seq > common_acked(replica, probe.stream)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Selects what is known word for word of what a peer said.
const WORD: &str = "SELECT 1 FROM _pm_ack WHERE peer = ?1 AND tag IS NOT NULL";

/// Records that what a peer says could not be understood: it is told all that is here the next time, so that it can
/// refer to that.
pub(crate) fn forget_word(replica: &Replica, peer: DeviceId) -> Result<()> {
    let Some(peer) = devices::device_number(replica, peer)? else { return Ok(()) };
    replica.db.prepare_cached("UPDATE _pm_ack SET tag = NULL WHERE peer = ?1")?.execute([peer])?;
    Ok(())
}

/// Finds up to where our own log can be one with what somebody has at a place; none where both are the same there, or where
/// that cannot be told.
pub(crate) type PartsAt<'p> = &'p dyn Fn(&Replica, &Position) -> Result<Option<u64>>;

/// Records up to where somebody has the same of our own log, by what he has applied.
pub(crate) fn record_applied(replica: &Replica, applied: &[Position], parts: PartsAt<'_>) -> Result<()> {
    for entry in applied.iter().filter(|entry| entry.author == replica.identity.id) {
        if parts(replica, entry)?.is_none() {
            record_compared(replica, std::iter::once(Probe::from(*entry)))?;
        }
    }
    Ok(())
}

/// Records up to where somebody has the same of our own log, by probes that were compared with what is here.
pub(crate) fn record_compared(replica: &Replica, probes: impl Iterator<Item = Probe>) -> Result<()> {
    for probe in probes.filter(|probe| probe.author == replica.identity.id) {
        if probe.seq <= positions::position(replica, replica.me, probe.stream)?.seq {
            record_common(replica, probe.stream, probe.seq)?;
        }
    }
    Ok(())
}

/// Records whether a device has lost frames of its own that are here: then what it had seen when it wrote does not
/// count. Returns whether it lacks any; of one that has more than is here, nothing is recorded.
fn record_rollback(replica: &Replica, dev: i64, id: DeviceId, applied: &[Position]) -> Result<bool> {
    let (mut lost, mut more) = (false, false);
    for stream in Stream::ALL {
        let has = applied.iter().find(|e| (e.author, e.stream) == (id, stream)).map_or(0, |e| e.seq);
        let here = positions::position(replica, dev, stream)?.seq;
        (lost, more) = (lost | (has < here), more | (has > here));
    }
    if more && !lost {
        return Ok(false); // Of which history that is, is not known here.
    }
    if lost {
        // Without an entry it would count as having all that it wrote.
        replica.db.execute(
            "INSERT OR IGNORE INTO _pm_ack (peer, dev, stream, seq) VALUES (?1, ?1, ?2, 0), (?1, ?1, ?3, 0)",
            (dev, Stream::Shared.number(), Stream::PerDevice.number()),
        )?;
    }
    replica
        .db
        .prepare_cached("UPDATE _pm_device SET set_back = ?2 WHERE n = ?1 AND set_back <> ?2")?
        .execute((dev, lost))?;
    Ok(lost)
}

/// Records that a device has another history than is here, as its own signature shows: it counts as set back, until it
/// says that it has what is here.
pub(crate) fn record_other_history(replica: &Replica, id: DeviceId) -> Result<()> {
    let sql = "UPDATE _pm_device SET set_back = 1 WHERE id = ?1 AND n <> ?2";
    replica.db.prepare_cached(sql)?.execute((id.0, replica.me))?;
    meta::set(&replica.db, &copies::heard_of(id), 1)
}

/// Returns whether a device was ever heard of with another history than is here. Whatever goes to one of this identity may
/// be read by the copy, also if the device itself has been heard of since.
pub(crate) fn was_copied(replica: &Replica, id: DeviceId) -> Result<bool> {
    Ok(meta::get::<i64>(&replica.db, &copies::heard_of(id))?.is_some())
}

/// The beginning of the names under which `_pm_meta` has which devices have two histories, by number, and after which frame
/// of the shared stream those part, or before.
const SPLIT: &str = "split ";

fn split(dev: i64) -> String {
    format!("{SPLIT}{dev}")
}

/// Records that a device has two histories, which part after this frame of its shared stream or before.
pub(crate) fn record_split(replica: &Replica, dev: i64, after: u64) -> Result<()> {
    let k = split(dev);
    let known = meta::get(&replica.db, &k)?.unwrap_or(u64::MAX);
    if after < known { meta::set(&replica.db, &k, after) } else { Ok(()) }
}

/// Lists the devices that are known to have two histories, with the frame after which those part, or before.
pub(crate) fn splits(replica: &Replica) -> Result<BTreeMap<i64, u64>> {
    let sql =
        "SELECT CAST(substr(k, length(?1) + 1) AS INTEGER), v FROM _pm_meta WHERE k > ?1 AND k < ?1 || ':'";
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map([SPLIT], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether what comes of a device's streams, and does not follow on what is here, can be of another history: somebody
/// has left its identity, or it is this device, and has found what a copy under its own name left.
pub(crate) fn may_be_of_other_history(replica: &Replica, dev: i64) -> Result<bool> {
    Ok(devices::has_successor(&replica.db, dev)?
        || dev == replica.me && meta::get::<u64>(&replica.db, &split(dev))?.is_some())
}

/// A history of a device that is given up here for another.
#[derive(Debug)]
pub(crate) struct GivenUp {
    /// After this frame it parts from the other.
    pub common: u64,
    /// Where its groups after that end, as far as they were here: the frame, and the tag of the chain.
    pub ends: Vec<(u64, [u8; 4])>,
}

impl GivenUp {
    /// Returns whether a group that ends with this chain is of it: one that was here, or what follows such a one.
    pub(crate) fn has(&self, checkpoint: &Checkpoint, end: &Chain) -> bool {
        self.ends.contains(&(checkpoint.last, end.tag()))
            || self.ends.contains(&(checkpoint.first - 1, checkpoint.prev.tag()))
    }
}

/// So many ends of groups of a history that is given up are remembered.
const ENDS: usize = 256;

/// Records which history of a device is given up here: that of this chain after the frame where both part. `None`: that is
/// taken after all.
pub(crate) fn record_given_up(replica: &Replica, dev: i64, history: Option<&GivenUp>) -> Result<()> {
    let Some(history) = history else { return meta::forget(&replica.db, &gave_up(dev)) };
    let mut bytes = history.common.to_be_bytes().to_vec();
    for (seq, tag) in history.ends.iter().take(ENDS) {
        bytes.extend(seq.to_be_bytes());
        bytes.extend(tag);
    }
    meta::set(&replica.db, &gave_up(dev), bytes)
}

/// The name under which `_pm_meta` has which history of a device is given up.
fn gave_up(dev: i64) -> String {
    format!("given up {dev}")
}

/// Returns which history of a device is given up here.
pub(crate) fn given_up(replica: &Replica, dev: i64) -> Result<Option<GivenUp>> {
    let known = meta::get::<Vec<u8>>(&replica.db, &gave_up(dev))?;
    let split = |known: Vec<u8>| {
        let (seq, ends) = known.split_first_chunk()?;
        let end = |end: &[u8; 12]| {
            let (seq, tag) = end.split_first_chunk()?;
            Some((u64::from_be_bytes(*seq), tag.try_into().ok()?))
        };
        let ends = ends.as_chunks().0.iter().filter_map(end).collect();
        Some(GivenUp { common: u64::from_be_bytes(*seq), ends })
    };
    Ok(known.and_then(split))
}

/// Stores peer evidence.
pub(crate) fn record_evidence(replica: &Replica, evidence: &PeerEvidence) -> Result<()> {
    let was = is_rolled_back(replica)?;
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        record_common(replica, stream, evidence.same[at])?;
        let more = keys(stream).1;
        meta::set(&replica.db, more, beyond_acked(replica, stream)?.max(evidence.more[at]))?;
    }
    // Another database may go on speaking for this device.
    if !was && is_rolled_back(replica)? {
        copies::draw(replica)?;
    }
    Ok(())
}

/// Records that somebody has the same of our own stream, up to a frame.
pub(crate) fn record_common(replica: &Replica, stream: Stream, seq: u64) -> Result<()> {
    meta::set(&replica.db, keys(stream).0, common_acked(replica, stream)?.max(seq))
}

/// Records that frames of our own stream were taken back from others: another database than this one sealed them, or this
/// one before it was set back.
pub(crate) fn record_taken_back(replica: &Replica, stream: Stream, first: u64, last: u64) -> Result<()> {
    let (from, to) = taken_back(replica, stream)?;
    let n = stream.number();
    meta::set(&replica.db, &format!("{BACK_FROM}{n}"), from.min(first))?;
    meta::set(&replica.db, &format!("{BACK_TO}{n}"), to.max(last))?;
    record_common(replica, stream, last)
}

/// Returns the first and the last frame of our own stream that were taken back from others; none lies between them if
/// nothing was.
pub(crate) fn taken_back(replica: &Replica, stream: Stream) -> Result<(u64, u64)> {
    let n = stream.number();
    let from = meta::get(&replica.db, &format!("{BACK_FROM}{n}"))?;
    Ok((from.unwrap_or(i64::MAX as u64), meta::get(&replica.db, &format!("{BACK_TO}{n}"))?.unwrap_or(0)))
}

/// The names under which `_pm_meta` has between which frames of a stream some were taken back, by the stream's number.
const BACK_FROM: &str = "back from ";
const BACK_TO: &str = "back to ";

/// Forgets that anybody had the same of our own stream after a frame: what was there is gone.
pub(crate) fn forget_common_after(replica: &Replica, stream: Stream, seq: u64) -> Result<()> {
    meta::set(&replica.db, keys(stream).0, common_acked(replica, stream)?.min(seq))
}

/// Returns up to where somebody is known to have had the same of our own stream.
pub(crate) fn common_acked(replica: &Replica, stream: Stream) -> Result<u64> {
    Ok(meta::get(&replica.db, keys(stream).0)?.unwrap_or(0))
}

/// Returns up to where somebody is known to have had anything of it.
fn beyond_acked(replica: &Replica, stream: Stream) -> Result<u64> {
    Ok(meta::get(&replica.db, keys(stream).1)?.unwrap_or(0))
}

/// Forgets all peer evidence: it was about the identity before.
pub(crate) fn forget_evidence(replica: &Replica) -> Result<()> {
    replica.db.execute(
        "DELETE FROM _pm_meta WHERE k IN ('same 0', 'same 1', 'more 0', 'more 1', 'reissued', 'waited', 'incarnations',
           'back from 0', 'back from 1', 'back to 0', 'back to 1')",
        [],
    )?;
    statements::forget_all(replica)
}

/// Returns how often this device has waited to be told up to where others have the same.
pub(crate) fn times_waited(replica: &Replica) -> Result<u64> {
    Ok(meta::get(&replica.db, WAITED)?.unwrap_or(0))
}

/// Counts that it waits once more.
pub(crate) fn wait_once_more(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, WAITED, times_waited(replica)? + 1)
}

/// The name under which `_pm_meta` has how often this device has waited to be told up to where others have the same.
const WAITED: &str = "waited";

/// Returns whether this device was rolled back: others have frames of it that it has not. What it wrote now would be a
/// second history.
pub(crate) fn is_rolled_back(replica: &Replica) -> Result<bool> {
    for stream in Stream::ALL {
        let more = beyond_acked(replica, stream)?;
        if more > 0 && more > positions::position(replica, replica.me, stream)?.seq {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether the per-device part of a seal, which begins with the frame `pair`, is lost with a card: its author has
/// the shared part, which ends with the frame `last`, and not the other. This device itself is given its shared frames
/// back by whoever has them, and the others by other bases alone: it waits for them if there are such, or may be, and it has
/// heard that somebody has them, be it in its own words.
/// Of an identity that somebody has left for a new one nothing may come any more: nobody waits for what no base has, and a
/// copy that goes on under it neither. Nor of the new one, as long as somebody may go on under the one before: a card that was
/// restored to before it took the new one has lost that, and cannot know it.
pub(crate) fn is_other_part_lost(replica: &Replica, dev: i64, last: u64, pair: u64) -> Result<bool> {
    let has = |peer, stream, seq| {
        membership::said(replica, peer, dev, stream).map(|said| said.is_some_and(|said| said >= seq))
    };
    let is_said_lost = if dev == replica.me {
        beyond_acked(replica, Stream::PerDevice)? < pair
            || replica.identity.base && membership::active_bases(replica)?.is_empty()
    } else {
        has(dev, Stream::Shared, last)? && !has(dev, Stream::PerDevice, pair)?
    };
    if is_said_lost {
        return Ok(true);
    }
    for base in membership::active_bases(replica)? {
        if base != dev && has(base, Stream::PerDevice, pair)? {
            return Ok(false);
        }
    }
    Ok(devices::has_successor(&replica.db, dev)? || membership::goes_on_before(replica, dev)?)
}

/// Returns whether a base has acknowledged something of what is here of a stream after a frame: what others have beside that
/// is the second history.
pub(crate) fn is_confirmed(replica: &Replica, dev: i64, stream: Stream, after: u64) -> Result<bool> {
    let here = positions::position(replica, dev, stream)?.seq;
    let sql = "SELECT 1 FROM _pm_ack JOIN _pm_device ON n = peer AND base
               WHERE dev = ?1 AND stream = ?2 AND seq > ?3 AND seq <= ?4";
    Ok(replica.db.prepare_cached(sql)?.exists((dev, stream.number(), after, here))?)
}

/// Returns the names under which `_pm_meta` has the peer evidence about a stream of ours.
fn keys(stream: Stream) -> (&'static str, &'static str) {
    match stream {
        Stream::Shared => ("same 0", "more 0"),
        Stream::PerDevice => ("same 1", "more 1"),
    }
}

/// Adds to the rows of shared tables that changed here by what a device said in a state. In `_pm_meta`: `state ID`.
pub(crate) fn add_state_rows(replica: &Replica, maker: DeviceId, rows: u64) -> Result<()> {
    let all = state_rows(replica, maker)?.saturating_add(rows).min(i64::MAX as u64);
    if rows > 0 { meta::set(&replica.db, &format!("state {maker}"), all) } else { Ok(()) }
}

/// Returns how many rows of shared tables changed here by what a device said in states.
pub(crate) fn state_rows(replica: &Replica, maker: DeviceId) -> Result<u64> {
    Ok(meta::get(&replica.db, &format!("state {maker}"))?.unwrap_or(0))
}
