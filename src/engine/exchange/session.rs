//! What a session needs of the database: groups to send, frame by frame; groups that are received, kept as they come
//! and applied once they are verified; who has what.
//!
//! A frame that came by a session is kept at once, also while the checkpoint of its group is still to come (`staged`). Such
//! a frame counts for nothing, but its sender need not send it again.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::session::Frontier;
use packmule_core::wire::{
    Certificate, Checkpoint, Frame, FrameFlags, GroupDigest, Newest, Position, Probe, Revocation, Section,
};
use rusqlite::OptionalExtension;

use crate::engine::apply::report::ImportReport;
use crate::engine::apply::{pending, ready, refill, vouched};
use crate::engine::capture::{append, reissue};
use crate::engine::conflicts::walk;
use crate::engine::error::{BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::peer::Peer;
use crate::engine::exchange::{
    certificates, export, gathered_state, give_up, newest, reconcile, revoke, staged, transaction, twin,
};
use crate::engine::fleet::peers::{self, Fit, PeerEvidence, Said};
use crate::engine::fleet::{devices, gaps, positions, revocation, routes, statements, trust};
use crate::engine::log::frames;
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;
use crate::engine::track::gathered;

/// A group that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupOut {
    pub dev: i64,
    pub section: Section,
    pub lamport: u64,
    pub first: u64,
    pub last: u64,
}

impl GroupOut {
    /// Returns its place in the causal order.
    pub(crate) fn place(&self) -> (u64, DeviceId, u8, u64) {
        (self.lamport, self.section.author, self.section.stream.number(), self.last)
    }
}

/// What goes to a peer next of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamOut {
    /// Nothing: it has all that is here, or does not take the stream.
    Nothing,
    /// This group.
    Group(GroupOut),
    /// A snapshot: what it lacks is folded here.
    Folded,
}

/// A record that was received and is not in the database yet.
pub(crate) enum Staged {
    Certificate(Vec<u8>),
    Revocation(Vec<u8>),
    Frame(Section, u64, Vec<u8>),
    Checkpoint(Vec<u8>),
}

/// Lists what this device says that it has applied.
pub(crate) fn session_vector(replica: &Replica) -> Result<Vec<Position>> {
    catalog::reading(replica, gaps::said_vector)
}

/// Lists probes of the peer's own log, for it to compare.
pub(crate) fn session_probes(replica: &Replica, peer: DeviceId) -> Result<Vec<Probe>> {
    catalog::reading(replica, |e| twin::probes_of(e, Some(peer)))
}

/// Encodes a signed header of these positions and probes.
pub(crate) fn session_header(
    replica: &Replica,
    to: DeviceId,
    applied: &[Position],
    probes: &[Probe],
) -> Result<Vec<u8>> {
    let sender = (replica.signing_key()?, replica.identity.id);
    export::signed_header(replica, sender, Some(to), (None, applied, probes))
}

/// Lists what is here beyond the vector: pending groups, and the frames of a group that this peer has not sent whole.
pub(crate) fn beyond_vector(replica: &mut Replica, peer: DeviceId) -> Result<Vec<Frontier>> {
    staged::tidy(replica, peer)?;
    catalog::reading(replica, |e| {
        let peer = devices::device_number(e, peer)?;
        let mut streams = e.db.prepare_cached(
            "SELECT d.n, d.id, f.stream, coalesce((SELECT seq FROM _pm_stream s WHERE s.dev = d.n AND s.stream = f.stream), 0)
             FROM _pm_device d JOIN (SELECT 0 AS stream UNION ALL SELECT 1) f ORDER BY d.n, f.stream",
        )?;
        let mut rows = streams.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let (dev, number): (i64, u8) = (row.get(0)?, row.get(2)?);
            let stream = value::stream_of_number(number)?;
            let applied: u64 = row.get(3)?;
            let mut groups = applied;
            let mut group = e.db.prepare_cached(
                "SELECT last FROM _pm_group INDEXED BY _pm_group_waiting
                 WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied",
            )?;
            while let Some(last) = group.query_row((dev, number, groups + 1), |row| row.get(0)).optional()? {
                groups = last;
            }
            let mut frames = groups;
            let mut frame = e.db.prepare_cached(
                "SELECT 1 FROM _pm_staged WHERE peer = ?1 AND dev = ?2 AND stream = ?3 AND seq = ?4",
            )?;
            while frame.exists((peer, dev, number, frames + 1))? {
                frames += 1;
            }
            if frames > applied {
                let section = Section { author: DeviceId(row.get(1)?), stream };
                all.push(Frontier { section, groups, frames });
            }
        }
        Ok(all)
    })
}

/// Lists what goes to a peer next of each stream of which it lacks something. Its frontier is in the order of authors
/// and streams.
pub(crate) fn streams_out(replica: &Replica, peer: &Peer, frontier: &[Frontier]) -> Result<Vec<StreamOut>> {
    catalog::reading(replica, |e| {
        let mut all = Vec::new();
        for entry in positions::vector(e)? {
            let section = Section { author: entry.author, stream: entry.stream };
            let have = frontier_of(frontier, section).map_or(0, |known| known.groups);
            match next_of(e, peer, section, have)? {
                StreamOut::Nothing => {}
                next => all.push(next),
            }
        }
        Ok(all)
    })
}

/// Finds what goes to a peer next of a stream that it has up to `have`.
pub(crate) fn stream_out(replica: &Replica, peer: &Peer, section: Section, have: u64) -> Result<StreamOut> {
    catalog::reading(replica, |e| next_of(e, peer, section, have))
}

/// Finds what follows `have` in a stream, if the peer takes the stream.
pub(super) fn next_of(replica: &Replica, peer: &Peer, section: Section, have: u64) -> Result<StreamOut> {
    if !wants(peer, section) {
        return Ok(StreamOut::Nothing);
    }
    let Some(dev) = devices::device_number(replica, section.author)? else { return Ok(StreamOut::Nothing) };
    next_in_log(replica, section, dev, have)
}

/// Finds what follows `have` in a stream.
pub(crate) fn next_in_log(replica: &Replica, section: Section, dev: i64, have: u64) -> Result<StreamOut> {
    let stream = section.stream;
    if have >= positions::position(replica, dev, stream)?.seq {
        return Ok(StreamOut::Nothing);
    }
    let found = replica
        .db
        .prepare_cached(
            "SELECT lamport, first, last FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3 AND applied
             ORDER BY last LIMIT 1",
        )?
        .query_row((dev, stream.number(), have), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(match found {
        Some((lamport, first, last)) if first <= have + 1 => {
            StreamOut::Group(GroupOut { dev, section, lamport, first, last })
        }
        // Who asks a base for what fills its gap hears that it is the same here.
        _ if stream == Stream::PerDevice
            && gaps::gap(replica, dev)?.is_some_and(|gap| have < gap.up_to)
            && gathered_state::stands_for(replica, dev, have)? =>
        {
            StreamOut::Folded
        }
        _ if stream == Stream::PerDevice => match reissued_group(replica, section, dev, have)? {
            StreamOut::Nothing if gathered_state::stands_for(replica, dev, have)? => StreamOut::Folded,
            group => group,
        },
        _ => StreamOut::Folded,
    })
}

/// Finds the group from which who lacks folded frames of a per-device stream goes on: the first one in the log that
/// reissues the author's tables. Where there is none, no other device helps: the author reissues them.
fn reissued_group(replica: &Replica, section: Section, dev: i64, have: u64) -> Result<StreamOut> {
    let from = if dev == replica.me { meta::get::<u64>(&replica.db, peers::REISSUED)? } else { None };
    let found = replica
        .db
        .prepare_cached(
            "SELECT lamport, first, last FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first >= ?3 AND last > ?4
             AND applied ORDER BY last LIMIT 1",
        )?
        .query_row((dev, section.stream.number(), from.unwrap_or(0), have), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((lamport, first, last)) = found else { return Ok(StreamOut::Nothing) };
    let body = frames::frame_here(replica, dev, section.stream, first)?;
    let reissues = frames::parse(&body)?.head.flags.has(FrameFlags::REISSUES);
    let group = StreamOut::Group(GroupOut { dev, section, lamport, first, last });
    Ok(if reissues { group } else { StreamOut::Nothing })
}

/// Counts the frames, and the bytes of frames, that a peer with this frontier lacks.
pub(crate) fn plan_out(replica: &Replica, peer: &Peer, frontier: &[Frontier]) -> Result<(u64, u64)> {
    catalog::reading(replica, |e| {
        let mut plan = (0, 0);
        for entry in positions::vector(e)? {
            let section = Section { author: entry.author, stream: entry.stream };
            let known = frontier_of(frontier, section);
            let have = known.map_or(0, |known| known.frames.max(known.groups));
            if have >= entry.seq || !wants(peer, section) {
                continue;
            }
            let Some(dev) = devices::device_number(e, entry.author)? else { continue };
            let (frames, bytes): (u64, u64) =
                e.db.prepare_cached(
                    "SELECT count(*), coalesce(sum(length(body)), 0) FROM _pm_frame
                     WHERE dev = ?1 AND stream = ?2 AND seq > ?3 AND seq <= ?4",
                )?
                .query_row((dev, entry.stream.number(), have, entry.seq), |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            plan = (plan.0 + frames, plan.1 + bytes);
        }
        Ok(plan)
    })
}

/// Reads a frame of a group that is sent.
pub(crate) fn frame_out(replica: &Replica, group: &GroupOut, seq: u64) -> Result<Vec<u8>> {
    catalog::reading(replica, |e| frames::frame_here(e, group.dev, group.section.stream, seq))
}

/// Reads the checkpoint of a group that is sent.
pub(crate) fn checkpoint_out(replica: &Replica, group: &GroupOut) -> Result<Vec<u8>> {
    catalog::reading(replica, |e| {
        let found: Option<Vec<u8>> = value::maybe(
            &e.db,
            "SELECT checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3",
            (group.dev, group.section.stream.number(), group.last),
        )?;
        found.ok_or_else(|| Error::damaged("a group that was being sent is no longer in the log"))
    })
}

/// Takes in what was received, in one transaction. Groups whose checkpoint is among it are verified, and applied if
/// they are ready.
///
/// # Errors
/// As [`Engine::import`]; nothing of it is kept then, and nothing either of an unfinished group that turned
/// out to be wrong.
pub(crate) fn take_staged(
    replica: &mut Replica,
    peer: DeviceId,
    staged: &[Staged],
    report: &mut ImportReport,
) -> Result<()> {
    let before = report.clone();
    let taken = transaction::transaction(replica, |e| stage(e, peer, staged, report));
    name_twin(replica, &taken)?;
    if taken.is_err() {
        *report = before;
    }
    // A second history that is longer than what is here was not told from one that goes on.
    if let Err(e) = &taken
        && let Error::Twin { device, .. } = &**e
        && *device == devices::name_of(replica, peer)?
    {
        transaction::record(replica, |e| peers::record_other_history(e, peer))?;
    }
    if taken.as_ref().is_err_and(|e| matches!(**e, Error::Bundle { .. } | Error::Twin { .. })) {
        transaction::transaction(replica, |e| forget_staged(e, peer, staged))?;
    }
    taken
}

/// Forgets what was kept before of the streams of which something is among what was refused.
fn forget_staged(replica: &Replica, peer: DeviceId, staged: &[Staged]) -> Result<()> {
    for item in staged {
        let section = match item {
            Staged::Checkpoint(bytes) => Checkpoint::decode(bytes).ok().map(|c| (c.author, c.stream)),
            Staged::Frame(section, ..) => Some((section.author, section.stream)),
            Staged::Certificate(_) | Staged::Revocation(_) => None,
        };
        if let Some((author, stream)) = section {
            staged::forget(replica, peer, author, stream)?;
        }
    }
    Ok(())
}

/// Records a notice that there is a clone of this device.
pub(crate) fn record_clone(replica: &mut Replica) -> Result<()> {
    transaction::transaction(replica, |e| {
        let what = "a copy of this device was at the other end of a line: whichever of the two meets another device \
                    second goes on under a new identity";
        meta::notice(&e.db, what, e.now())
    })
}

/// Records a notice durably if two histories of a device were found.
pub(crate) fn name_twin<R>(replica: &mut Replica, found: &Result<R>) -> Result<()> {
    match found.as_ref().err().map(|e| &**e) {
        Some(Error::Twin { device, seq }) => {
            transaction::transaction(replica, |e| twin::record_twin(e, device, *seq))
        }
        _ => Ok(()),
    }
}

/// Puts what was received into the database, and applies what is ready.
fn stage(replica: &Replica, peer: DeviceId, staged: &[Staged], report: &mut ImportReport) -> Result<()> {
    let groups = staged.iter().any(|item| matches!(item, Staged::Checkpoint(_) | Staged::Revocation(_)));
    let conflicts_before = if groups {
        // What was written here before this moment did not take the others into account.
        transaction::seal_written(replica)?;
        gathered::gather_pending(replica)?;
        walk::open_conflicts(replica)?
    } else {
        0
    };
    for item in staged {
        match item {
            Staged::Certificate(bytes) => {
                let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                if let Some(untrusted) = certificates::store_verified(replica, &certificate, bytes)? {
                    return Err(Error::Untrusted(vec![untrusted]).into());
                }
            }
            Staged::Revocation(bytes) => {
                let statement = Revocation::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                revoke::take_in(replica, &statement, report)?;
            }
            Staged::Frame(section, seq, body) => stage_frame(replica, peer, (*section, *seq), body, report)?,
            Staged::Checkpoint(bytes) => match stage_group(replica, peer, bytes) {
                // Whoever has the key of a revoked device can sign as many histories as he likes: that is to hold up
                // nobody else's frames.
                Err(e)
                    if matches!(*e, Error::Twin { .. } | Error::Bundle { .. })
                        && is_of_revoked(replica, bytes)? =>
                {
                    let of = Checkpoint::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                    let dev = devices::device_number_or_new(replica, of.author)?;
                    revocation::record_forked(replica, dev, true)?;
                    if matches!(*e, Error::Twin { .. }) {
                        note_other_history(replica, peer, bytes)?;
                    }
                    staged::forget(replica, peer, of.author, of.stream)?;
                }
                Err(e) if matches!(*e, Error::Twin { .. }) && note_other_history(replica, peer, bytes)? => {
                    let of = Checkpoint::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                    staged::forget(replica, peer, of.author, of.stream)?;
                }
                staged => staged?,
            },
        }
    }
    if groups {
        ready::apply_pending(replica, report)?;
        append::raise_marks(replica)?;
        statements::remember(replica)?;
        report.waits = pending::pending_groups(replica)?;
        report.conflicts_opened += walk::open_conflicts(replica)?.saturating_sub(conflicts_before);
    }
    Ok(())
}

/// Notes that a checkpoint shows another history of a third device than is here: of that nothing is taken, of all else the
/// rest. Returns whether it is a third device's.
fn note_other_history(replica: &Replica, peer: DeviceId, bytes: &[u8]) -> Result<bool> {
    let checkpoint = Checkpoint::decode(bytes).map_err(|e| Error::bundle(0, e))?;
    let author = checkpoint.author;
    let Some(key) = trust::author_key(replica, author)? else { return Ok(false) };
    if author == replica.identity.id || author == peer {
        return Ok(false);
    }
    give_up::note_refused(replica, &checkpoint, &key)?;
    Ok(true)
}

/// Returns whether a checkpoint is a revoked device's.
fn is_of_revoked(replica: &Replica, bytes: &[u8]) -> Result<bool> {
    Checkpoint::decode(bytes).map_or(Ok(false), |c| revocation::is_revoked_id(replica, c.author))
}

/// Returns the key of an author whose frames are taken.
fn author_key(replica: &Replica, author: DeviceId) -> Result<[u8; 32]> {
    let untrusted = UntrustedDevice { id: author, name: None, revoked: false };
    Ok(trust::author_key(replica, author)?.ok_or_else(|| Error::Untrusted(vec![untrusted]))?)
}

/// Keeps a frame until its checkpoint comes, if it is new and its stream is taken here.
fn stage_frame(
    replica: &Replica,
    peer: DeviceId,
    (section, seq): (Section, u64),
    body: &[u8],
    report: &mut ImportReport,
) -> Result<()> {
    author_key(replica, section.author)?;
    let dev = devices::device_number_or_new(replica, section.author)?;
    if !is_taken(replica, section) {
        report.skipped += 1;
        return Ok(());
    }
    let known = !staged::keep_frame(replica, peer, (dev, section.stream, seq), body)?;
    report.known += u64::from(known);
    report.frames += u64::from(!known);
    Ok(())
}

/// Verifies a group whose frames are all here, and puts it into the log.
fn stage_group(replica: &Replica, peer: DeviceId, bytes: &[u8]) -> Result<()> {
    let refuse = |what| Error::bundle(0, BundleProblem::Structure(what));
    let checkpoint = Checkpoint::decode(bytes).map_err(|e| Error::bundle(0, e))?;
    let stream = checkpoint.stream;
    let dev = devices::device_number_or_new(replica, checkpoint.author)?;
    if !is_taken(replica, Section { author: checkpoint.author, stream }) {
        return Ok(());
    }
    let key = author_key(replica, checkpoint.author)?;
    if !refill::place_of(replica, dev, &checkpoint)?.1 {
        return twin::refuse_twin(replica, &checkpoint, None, &key);
    }
    let mut digest = GroupDigest::default();
    let mut head = None;
    for seq in checkpoint.first..=checkpoint.last {
        let Some(body) = staged::frame(replica, peer, (dev, stream, seq))? else {
            return Err(refuse("a checkpoint without all its frames"));
        };
        let frame = Frame::parse(&body).map_err(|e| Error::bundle(0, e))?;
        if frame.head.seq != seq || frame.group.is_some() != (seq == checkpoint.first) {
            return Err(refuse("frames out of their order"));
        }
        head = head.or(frame.group.map(|group| (group, frame.head.flags)));
        digest.add(&body);
    }
    let Some((head, flags)) = head else { return Err(refuse("a group without its head")) };
    let end = checkpoint.prev.after(&digest.finish());
    if checkpoint.verify(&key, &end).is_err() {
        return Err(Error::bundle(
            0,
            BundleProblem::Signature(devices::name_of(replica, checkpoint.author)?),
        ));
    }
    if twin::fit(replica, &checkpoint, Some(&end), &key)? != Fit::Fits {
        if twin::gives_way(replica, &checkpoint, &key)? {
            frames::forget_pending(&replica.db, dev, stream, i64::MAX as u64)?;
        }
        twin::refuse_twin(replica, &checkpoint, Some(&end), &key)?;
    }
    refill::go_back_for(replica, dev, stream, checkpoint.first)?;
    if checkpoint.last <= positions::position(replica, dev, stream)?.seq {
        return Ok(()); // It is in a gap, and not what follows next there.
    }
    let of_head = (head.lamport, head.wall, head.pair);
    staged::keep_group(replica, peer, (dev, stream), (checkpoint.first, checkpoint.last))?;
    frames::put_group(&replica.db, dev, (&checkpoint, bytes), of_head, &end, false)?;
    routes::note(replica, dev, stream, (checkpoint.first, checkpoint.last))?;
    vouched::hear_group(replica, (dev, stream), checkpoint.first, flags)?;
    refill::go_on_from(replica, dev, &checkpoint)
}

/// Records what a peer acknowledges: all that it has, or what changed. The header is the peer's own, and signed.
pub(crate) fn record_vector(
    replica: &mut Replica,
    peer: DeviceId,
    applied: &[Position],
    whole: bool,
) -> Result<()> {
    let said = Said::InSession { whole };
    transaction::transaction(replica, |e| peers::record_acknowledged(e, peer, applied, said, &twin::parts_at))
}

/// Compares what a peer has applied, and its probes, with what is here, and reconciles this device's own log with it.
/// Returns whether this device took a new identity.
pub(crate) fn reconcile(
    replica: &mut Replica,
    peer: &Peer,
    applied: &mut Vec<Position>,
    probes: &[Probe],
    evidence: &mut PeerEvidence,
) -> Result<bool> {
    evidence.by_base = peer.base;
    let apart = catalog::reading(replica, |e| {
        twin::compare_vector(e, peer.id, (applied, &mut probes.to_vec()), evidence)
    })?;
    give_up::heard(replica, peer.id, &apart)?;
    if let Some(seq) = apart.sender {
        transaction::transaction(replica, |e| {
            peers::record_other_history(e, peer.id)?;
            twin::record_twin(e, &devices::name_of(e, peer.id)?, seq)
        })?;
    }
    reconcile::reconcile_own_log(replica, evidence)
}

/// Hears the newest checkpoint of one of this device's own streams at the peer, whose vector gave `evidence`. Returns
/// whether this device took a new identity.
pub(crate) fn hear_newest(replica: &mut Replica, bytes: &[u8], evidence: &mut PeerEvidence) -> Result<bool> {
    let shown = Newest::decode(bytes).map_err(|e| Error::bundle(0, e))?;
    catalog::reading(replica, |e| newest::hear(e, &shown, evidence))?;
    reconcile::reconcile_own_log(replica, evidence)
}

/// Reissues this device's per-device tables, if a base lacks what is folded of them. Returns whether it did.
pub(crate) fn reissue(replica: &mut Replica) -> Result<bool> {
    if !catalog::reading(replica, reissue::is_due)? {
        return Ok(false);
    }
    Ok(transaction::seal(replica)?.frames > 0)
}

/// Reads a number that changes whenever another program, or another connection, wrote to the database.
pub(crate) fn data_version(replica: &Replica) -> Result<i64> {
    Ok(replica.db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// Finds a peer's frontier in a stream, in a list in the order of authors and streams.
pub(crate) fn frontier_of(frontier: &[Frontier], section: Section) -> Option<&Frontier> {
    let key = |section: Section| (section.author, section.stream);
    let at = frontier.binary_search_by_key(&key(section), |known| key(known.section));
    at.ok().and_then(|at| frontier.get(at))
}

/// Returns whether a stream is taken here: per-device streams of others are gathered by bases alone.
pub(super) fn is_taken(replica: &Replica, Section { author, stream }: Section) -> bool {
    stream == Stream::Shared || replica.identity.base || author == replica.identity.id
}

/// Returns whether a stream goes to a peer: a per-device stream only to a base, and back to its author.
fn wants(peer: &Peer, section: Section) -> bool {
    section.stream == Stream::Shared || peer.base || section.author == peer.id
}
