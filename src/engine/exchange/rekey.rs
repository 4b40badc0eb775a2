//! A second history takes a new identity, and re-authors all that it wrote since the divergence point.
//!
//! **Invariant.** Re-authoring is a renaming: frame n > common of the old identity becomes frame n - shift of the new
//! one, in its group, with its stamp, its wall time and its content. Each context that named the old frame names the
//! new one. So a version dominates another after it exactly if it did before: nothing concurrent becomes causal, nor
//! the reverse. What the first history has from there on comes in as from any other device, concurrent with ours.
//!
//! **Why it holds.**
//!
//! 1. Each new stream begins with a group that writes nothing and says what it had seen: all that the old stream had
//!    seen up to there, and the old stream itself up to `common`. It also takes on the context of the group after it;
//!    otherwise a device that has folded all of that could not apply it.
//! 2. The cut is moved back (`whole_seals`) until it splits no seal over both streams, and nothing that stays had seen
//!    anything that moves.
//! 3. If another device has already built on what moves, its context names frames that would vanish; so does a verdict of
//!    this device that leaves them: nothing moves then, and what they say stays as this device's own (`cut`).
//! 4. Everything that names a frame by author and number moves along: heads (their offsets get less, since a frame's
//!    head may get shorter), counters, declarations, and which frame retired a device. One that stayed behind would
//!    be taken for a frame of the first history.
//!
//! All of it is one SQLite transaction. The new key waits in a file of its own, and takes the old one's place after
//! the commit. The old key issues the new certificate, so whoever trusts the old identity trusts the new one.

use std::collections::BTreeMap;

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{
    Chain, Checkpoint, FRAME_MAX, FrameFlags, FrameWriter, GroupDigest, GroupStart, Named,
};

use crate::engine::apply::again::{self, History};
use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::capture::{fresh, runs, seal};
use crate::engine::error::{Error, Hint, Result};
use crate::engine::exchange::common_prefix::common_prefix;
use crate::engine::exchange::cut::{self, Old};
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership};
use crate::engine::log::{contexts, frames, tags};
use crate::engine::merge::{deferred, given_up, stretches};
use crate::engine::show::{constraints, transaction};
use crate::engine::store::{keys, meta, value};
use crate::engine::table::catalog;
use crate::engine::table::known::State;
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;

/// So often a device that was rolled back says what it has before it goes on with what it knows.
const PATIENCE: u64 = 4;

/// The renaming from the old identity to the new one.
struct Move<'a> {
    old: (i64, DeviceId),
    new: (i64, DeviceId),
    key: &'a SecretKey,
    /// Up to here the frames of each stream stay the old device's.
    common: [u64; 2],
    /// By how much a frame's number in each stream gets less.
    shift: [u64; 2],
    /// Where each stream ends here: of a seal, the part after that was lost with a card, and comes under no identity.
    ends: [u64; 2],
}

impl Move<'_> {
    /// Renames a frame.
    fn seq(&self, stream: Stream, old: u64) -> u64 {
        old - self.shift[usize::from(stream.number())]
    }

    /// Renames an entry of a context, if it names a frame that moves.
    fn context(&self, id: DeviceId, seq: u64) -> (DeviceId, u64) {
        if id == self.old.1 && seq > self.common[0] {
            (self.new.1, self.seq(Stream::Shared, seq))
        } else {
            (id, seq)
        }
    }

    /// Renames an entry of the context of a frame that moves. What the old per-device stream says of the old shared
    /// stream up to `common`, the new one has said in its first group; if it needs no such group, nothing that its rows
    /// depend on is lost.
    fn named(&self, named: Named, seq: u64) -> Option<(Named, u64)> {
        match named {
            Named::Id(id) => {
                let (id, seq) = self.context(id, seq);
                Some((Named::Id(id), seq))
            }
            Named::Author if seq > self.common[0] => Some((named, self.seq(Stream::Shared, seq))),
            Named::Author => None,
            Named::Number(_) | Named::Introduced(..) => Some((named, seq)),
        }
    }
}

/// Returns whether this device was rolled back and an application has written since: that is a second history. What it
/// would only announce of a table waits until it has its own log back: it may be in there.
pub(crate) fn must_rekey(replica: &Replica) -> Result<bool> {
    if !peers::is_rolled_back(replica)? {
        return Ok(false);
    }
    groups::any_unsealed(replica, &|table| table.state == State::Tracked)
}

/// Returns whether this device was rolled back and has something to seal, and nobody has said yet up to where others have
/// the same: until then it only says what it has. Whoever hears that answers with the place (`twin::probes_of`); where
/// nobody does, it goes on after a few times with what it knows.
pub(crate) fn waits_to_know(replica: &Replica) -> Result<bool> {
    if !must_rekey(replica)? || peers::times_waited(replica)? >= PATIENCE {
        return Ok(false);
    }
    let common = common_prefix(replica, [0; 2], [u64::MAX; 2], true)?;
    for stream in Stream::ALL {
        let at = usize::from(stream.number());
        // Of the per-device stream only a base can say it.
        let nobody = stream == Stream::PerDevice && membership::active_bases(replica)?.is_empty();
        if !nobody && common[at] < positions::position(replica, replica.me, stream)?.seq {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the same of a device of which nothing is loaded yet.
pub(crate) fn waits_here(replica: &Replica) -> Result<bool> {
    Ok(peers::is_rolled_back(replica)? && catalog::reading(replica, waits_to_know)?)
}

/// Takes a new identity, and re-authors what each stream has after its common prefix with the first history. `shown` are the
/// ends of these that the first history shows: of what is folded here the log has no chain. `of_other` is who is known to have that.
///
/// # Errors
/// [`Error::KeyMissing`], [`Error::Io`].
pub(crate) fn rekey(
    replica: &mut Replica,
    common: [u64; 2],
    shown: [Option<StreamPosition>; 2],
    of_other: Option<DeviceId>,
) -> Result<()> {
    if replica.poisoned {
        return Err(Error::Poisoned.into());
    }
    let before = (replica.key.clone(), replica.me, replica.identity.clone());
    replica.db.execute_batch("BEGIN IMMEDIATE")?;
    let result = rekey_here(replica, common, shown, of_other);
    let result = transaction::end_transaction(replica, result);
    if result.is_err() {
        (replica.key, replica.me, replica.identity) = before;
        return result;
    }
    keys::adopt_new_key(&keys::device_key_path(&replica.path))
}

/// Does the work of [`rekey`], within its transaction.
fn rekey_here(
    replica: &mut Replica,
    common: [u64; 2],
    shown: [Option<StreamPosition>; 2],
    of_other: Option<DeviceId>,
) -> Result<()> {
    catalog::load_catalog(replica)?;
    fresh::begin(replica)?;
    deferred::begin_deferring(replica)?;
    // Its application may have changed tables since the last seal: no row is read before that is noticed. A device that was
    // set back writes no frame then.
    seal::seal_here(replica, SealOptions::default())?;
    let mut common = whole_seals(replica, common)?;
    let mut since =
        cut::built_on_by(replica, common[0], of_other)?.map(|other| format!("{other} has built on it"));
    let same = common[0];
    let (parts, folded) = parts_here(replica, &mut common, shown)?;
    if folded {
        since = Some("part of it is compacted away here".into());
    }
    let old = (replica.me, replica.identity.id);
    // Who had this history is forgotten with the evidence.
    let over = again::strangers(replica, old.0, common[0])?;
    let was = devices::device_label(replica, replica.me)?;
    let key = become_another(replica)?;
    peers::forget_evidence(replica)?;
    peers::record_split(replica, old.0, common[0])?;
    if !replica.identity.base {
        // Of the per-device stream of a device like others, this one takes nothing.
        frames::forget_pending(&replica.db, old.0, Stream::PerDevice, i64::MAX as u64)?;
    }
    let done = match since {
        Some(since) => {
            replica.key = Some(key);
            let end = |stream| {
                let at = PeerEvidence::at(stream);
                parts[at].map_or_else(|| cut::end_here(replica, old.0, stream, common[at]), Ok)
            };
            cut::go_on_beside(replica, old.0, [end(Stream::Shared)?, end(Stream::PerDevice)?], same, &over)?;
            format!("as its own, since {since}")
        }
        None => {
            let contexts = cut::contexts_at(replica, old.0, common)?;
            // One group more comes first, which carries the context.
            let shift = common.map(|common| common.saturating_sub(1));
            let ends = ends(replica, old.0)?;
            let of = Move { old, new: (replica.me, replica.identity.id), key: &key, common, shift, ends };
            let moved = move_streams(replica, &of, &contexts)?;
            replica.key = Some(key);
            give_back(replica, (old.0, common[0]), &over)?;
            format!("frames re-authored: {moved}")
        }
    };
    runs::forget_all(replica)?;
    let what = format!(
        "this database was a second history of {was}: a copy, or set back to a backup. It goes on as {} with all that \
         it wrote ({done})",
        devices::label(replica.identity.id, Some(&replica.identity.name))
    );
    meta::notice_with(&replica.db, &what, &Hint::Retire { device: old.1 }, replica.now())?;
    constraints::resolve_constraints(replica)?;
    // The new identity has announced nothing of a table that is held or was changed, and whom it left does not count there.
    catalog::doubt_schema(replica)?;
    fresh::end(replica)
}

/// Gives back to rows what the frames that were re-authored say of them, where those devices removed it who wrote upon frames of the
/// other history: what comes of that under these numbers they have seen.
fn give_back(replica: &Replica, (old, common): (i64, u64), over: &BTreeMap<i64, u64>) -> Result<()> {
    let Some(last) = over.values().max() else { return Ok(()) };
    let moved = History { dev: replica.me, after: 0, context: BTreeMap::new() };
    again::apply_again(replica, moved, over)?;
    given_up::claim(replica, old, common + 1, *last)
}

/// Finds where the streams part, of which something after the common part is folded here: that cannot be written again frame
/// by frame, but all that the tables have is. Where nothing shows how the shared stream was at the end of the common part, all
/// of that comes again. Of the other streams, what is folded counts as common. Returns whether any is folded so.
fn parts_here(
    replica: &Replica,
    common: &mut [u64; 2],
    shown: [Option<StreamPosition>; 2],
) -> Result<([Option<StreamPosition>; 2], bool)> {
    let (mut parts, mut folded) = ([None; 2], false);
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        let begins = cut::log_begins(replica, replica.me, stream)?;
        let known = cut::end_at(replica, replica.me, stream, common[at])?;
        let end = known.or(shown[at].filter(|shown| shown.seq == common[at]));
        if begins > common[at] && (end.is_some() || stream == Stream::Shared) {
            folded = true;
            parts[at] = end;
            common[at] = end.map_or(0, |end| end.seq);
        } else {
            common[at] = common[at].max(begins);
        }
    }
    Ok((parts, folded))
}

/// Re-authors both streams, and leaves the old device with what it had up to the common prefix. Returns how many
/// frames were re-authored.
fn move_streams(replica: &Replica, of: &Move<'_>, contexts: &[BTreeMap<i64, u64>; 2]) -> Result<u64> {
    stretches::spread(replica, None)?;
    replica.db.execute_batch(
        "CREATE INDEX IF NOT EXISTS _pm_head_place ON _pm_head (dev, seq);
         CREATE INDEX IF NOT EXISTS _pm_count_place ON _pm_count (dev, seq)",
    )?;
    let mut moved = 0;
    for stream in Stream::ALL {
        moved += move_stream(replica, of, stream, &contexts[usize::from(stream.number())])?;
    }
    replica.db.execute_batch("DROP INDEX _pm_head_place; DROP INDEX _pm_count_place")?;
    replica.db.execute(
        "UPDATE _pm_gone SET dev = ?2, seq = seq - ?4 WHERE dev = ?1 AND seq > ?3",
        (of.old.0, of.new.0, of.common[1], of.shift[1]),
    )?;
    for stream in Stream::ALL {
        let at = usize::from(stream.number());
        cut::set_contexts(replica, of.old.0, stream, &contexts[at])?;
        replica.db.execute(
            "UPDATE _pm_ack SET seq = min(seq, ?3) WHERE dev = ?1 AND stream = ?2",
            (of.old.0, stream.number(), of.common[at]),
        )?;
    }
    Ok(moved)
}

/// Moves the cut back until it splits no seal over both streams, and nothing that stays had seen anything that
/// moves.
pub(super) fn whole_seals(replica: &Replica, mut common: [u64; 2]) -> Result<[u64; 2]> {
    for (common, end) in common.iter_mut().zip(ends(replica, replica.me)?) {
        *common = end.min(*common);
    }
    loop {
        let before = common;
        for stream in Stream::ALL {
            let at = usize::from(stream.number());
            // A cut in the middle of a group moves before it.
            let inside: Option<u64> = value::maybe(
                &replica.db,
                "SELECT first FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first <= ?3 AND last > ?3 AND applied",
                (replica.me, stream.number(), common[at]),
            )?;
            common[at] = inside.map_or(common[at], |first| first - 1);
            let pair: Option<u64> = replica.db.query_row(
                "SELECT min(pair) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3 AND pair > 0 AND applied",
                (replica.me, stream.number(), common[at]),
                |row| row.get(0),
            )?;
            common[1 - at] = pair.map_or(common[1 - at], |pair| common[1 - at].min(pair - 1));
        }
        let groups = cut::groups_after(replica, replica.me, Stream::PerDevice, 0)?;
        for group in groups.iter().filter(|g| g.first <= common[1]) {
            let body = frames::frame_here(replica, replica.me, Stream::PerDevice, group.first)?;
            let context = contexts::context(replica, replica.me, Stream::PerDevice, &frames::parse(&body)?)?;
            if context.iter().any(|(id, n)| *id == replica.identity.id && *n > common[0]) {
                common[1] = group.first - 1;
                break;
            }
        }
        if common == before {
            return Ok(common);
        }
    }
}

/// Returns the last frame of each of a device's streams here.
fn ends(replica: &Replica, dev: i64) -> Result<[u64; 2]> {
    let mut ends = [0; 2];
    for stream in Stream::ALL {
        ends[PeerEvidence::at(stream)] = positions::position(replica, dev, stream)?.seq;
    }
    Ok(ends)
}

/// Takes another identity; the old one is a device like others from then on.
fn become_another(replica: &mut Replica) -> Result<SecretKey> {
    let mut name = replica.identity.name.clone();
    while name.len() > 59 {
        name.pop();
    }
    let name = |id: DeviceId| format!("{name}-{:04x}", id.short() >> 16);
    let issuer = replica.signing_key()?.clone();
    devices::take_identity(replica, name, Some(&issuer), None)
}

/// Re-authors what a stream has after the common prefix. Returns how many frames that were.
fn move_stream(replica: &Replica, of: &Move<'_>, stream: Stream, before: &BTreeMap<i64, u64>) -> Result<u64> {
    let at = usize::from(stream.number());
    let common = of.common[at];
    let ours = positions::position(replica, of.old.0, stream)?.seq;
    let end = cut::end_here(replica, of.old.0, stream, common)?;
    let groups = cut::groups_after(replica, of.old.0, stream, common)?;
    positions::set_back(replica, of.old.0, stream, end)?;
    tags::forget_after(replica, of.old.0, stream, common)?;
    let Some(first) = groups.first() else { return Ok(0) };
    let contexts = positions::context_of(replica, of.old.0, stream)?;
    let mut position = StreamPosition { seq: 0, chain: Chain::start(&of.key.public_key(), stream) };
    let mut buf = vec![0; FRAME_MAX];
    if common > 0 {
        seal_start(replica, of, stream, first, before, &mut buf, &mut position)?;
    } else {
        let (old, new) = (of.old.0, of.new.0);
        for (other, number) in contexts::numbers(replica, old, stream)? {
            contexts::keep_number(replica, new, stream, number, other)?;
        }
    }
    for group in &groups {
        move_group(replica, of, stream, group, &mut buf, &mut position)?;
    }
    positions::set_position(replica, of.new.0, stream, position)?;
    for (other, seq) in contexts.into_iter().chain(before.iter().map(|(other, seq)| (*other, *seq))) {
        let (id, seq) = of.context(devices::device_id(replica, other)?, seq);
        positions::set_context(replica, of.new.0, stream, devices::device_number_or_new(replica, id)?, seq)?;
    }
    if common > 0 && of.common[0] > 0 {
        positions::set_context(replica, of.new.0, stream, of.old.0, of.common[0])?;
    }
    Ok(ours - common)
}

/// Seals the first group of a new stream: it writes nothing, and has seen what the old stream had.
fn seal_start(
    replica: &Replica,
    of: &Move<'_>,
    stream: Stream,
    next: &Old,
    before: &BTreeMap<i64, u64>,
    buf: &mut [u8],
    position: &mut StreamPosition,
) -> Result<()> {
    let mut context = BTreeMap::new();
    for (other, seq) in before {
        context.insert(devices::device_id(replica, *other)?, *seq);
    }
    // It writes nothing, so it may have seen what the next group has. Otherwise it would stay pending for ever
    // where all of that is folded.
    let body = frames::frame_here(replica, of.old.0, stream, next.first)?;
    for (id, seq) in contexts::context(replica, of.old.0, stream, &frames::parse(&body)?)? {
        let (id, seq) = of.context(id, seq);
        if id != of.new.1 {
            context.entry(id).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
        }
    }
    // Of the per-device stream too: what its moved groups say of that is left out of them.
    if of.common[0] > 0 {
        context.insert(of.old.1, of.common[0]);
    }
    let context = introduce_all(replica, of, stream, context)?;
    let start = GroupStart { lamport: next.lamport, wall: next.wall, pair: 0, context: &context };
    let too_many = |_| Error::damaged("more devices than a frame can name");
    let mut writer =
        FrameWriter::new(buf, FrameFlags::default(), position.seq + 1, Some(start)).map_err(too_many)?;
    let frame = writer.finish();
    let mut digest = GroupDigest::default();
    digest.add(frame);
    frames::put_frame(&replica.db, of.new.0, stream, position.seq + 1, frame)?;
    contexts::keep_numbers(replica, of.new.0, stream, &frames::parse(frame)?)?;
    let place = (position.seq + 1, position.seq + 1, 0);
    sign_group(replica, of, stream, next, place, digest, position)
}

/// Introduces all devices that a moved stream names, by the numbers that they have there, so that its groups can stay as
/// they are; and those that `context` has besides. A device that had not been seen yet is introduced as such.
fn introduce_all(
    replica: &Replica,
    of: &Move<'_>,
    stream: Stream,
    mut context: BTreeMap<DeviceId, u64>,
) -> Result<Vec<(Named, u64)>> {
    let mut named = Vec::new();
    let mut last = 0;
    for (other, number) in contexts::numbers(replica, of.old.0, stream)? {
        let id = devices::device_id(replica, other)?;
        named.push((Named::Introduced(number, id), context.remove(&id).unwrap_or(0)));
        last = last.max(number);
    }
    for (id, seq) in context {
        last += 1;
        named.push((Named::Introduced(last, id), seq));
    }
    named.sort_by_key(|(named, _)| match named {
        Named::Introduced(number, _) => *number,
        _ => 0,
    });
    Ok(named)
}

/// Re-authors a group, and everything that names its frames.
fn move_group(
    replica: &Replica,
    of: &Move<'_>,
    stream: Stream,
    group: &Old,
    buf: &mut [u8],
    position: &mut StreamPosition,
) -> Result<()> {
    let other = stream.other();
    let mut digest = GroupDigest::default();
    let mut pair = 0;
    for seq in group.first..=group.last {
        let body = frames::frame_here(replica, of.old.0, stream, seq)?;
        let frame = frames::parse(&body)?;
        let to = of.seq(stream, seq);
        let mut context: Vec<_> = frame.context().filter_map(|(named, seq)| of.named(named, seq)).collect();
        context.sort_by_key(|(named, _)| match named {
            Named::Id(id) => Some(*id),
            _ => None,
        });
        for (named, _) in &context {
            if let Named::Introduced(number, _) = named {
                forget_number(replica, of, stream, *number)?;
            }
        }
        let start = frame.group.map(|head| {
            // Where the other part is folded, it stays the old device's.
            let at = PeerEvidence::at(other);
            let moves = head.pair > of.common[at] && head.pair <= of.ends[at];
            pair = if moves { of.seq(other, head.pair) } else { 0 };
            GroupStart { lamport: head.lamport, wall: head.wall, pair, context: &context }
        });
        let too_long = |_| Error::damaged("a frame whose head became longer");
        let (len, less) = frame.moved(buf, to, start).map_err(too_long)?;
        digest.add(&buf[..len]);
        frames::put_frame(&replica.db, of.new.0, stream, to, &buf[..len])?;
        if stream == Stream::Shared {
            move_versions(replica, of, seq, to, less)?;
        }
    }
    let place = (of.old.0, stream.number(), group.first, group.last);
    replica
        .db
        .execute("DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq BETWEEN ?3 AND ?4", place)?;
    replica.db.execute(
        "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first >= ?3 AND last <= ?4",
        place,
    )?;
    let place = (of.seq(stream, group.first), of.seq(stream, group.last), pair);
    sign_group(replica, of, stream, group, place, digest, position)
}

/// Forgets a number that the old stream introduces in a frame that is not its any more.
fn forget_number(replica: &Replica, of: &Move<'_>, stream: Stream, number: u32) -> Result<()> {
    replica
        .db
        .prepare_cached("DELETE FROM _pm_number WHERE dev = ?1 AND stream = ?2 AND number = ?3")?
        .execute((of.old.0, stream.number(), number))?;
    Ok(())
}

/// Signs a group of the new device whose frames are in the log.
fn sign_group(
    replica: &Replica,
    of: &Move<'_>,
    stream: Stream,
    like: &Old,
    (first, last, pair): (u64, u64, u64),
    digest: GroupDigest,
    position: &mut StreamPosition,
) -> Result<()> {
    let chain = position.chain.after(&digest.finish());
    let checkpoint = Checkpoint::sign(of.key, of.new.1, stream, first, last, position.chain, &chain);
    frames::put_own_group(&replica.db, of.new.0, &checkpoint, (like.lamport, like.wall, pair), &chain)?;
    *position = StreamPosition { seq: last, chain };
    Ok(())
}

/// Renames a frame that has moved in the versions, counters, declarations and retirements that name it.
fn move_versions(replica: &Replica, of: &Move<'_>, seq: u64, to: u64, less: u32) -> Result<()> {
    let keys = replica
        .db
        .prepare_cached("SELECT tid, key FROM _pm_head WHERE dev = ?1 AND seq = ?2")?
        .query_map((of.old.0, seq), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
    for (tid, key) in &keys {
        deferred::defer(replica, *tid, key)?;
    }
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_head SET dev = ?3, seq = ?4, place = iif(place = ?6, place, place - ?5) WHERE dev = ?1 AND seq = ?2",
        )?
        .execute((of.old.0, seq, of.new.0, to, less, OpPlace::BY_KEY))?;
    for sql in [
        "UPDATE _pm_count SET dev = ?3, seq = ?4 WHERE dev = ?1 AND seq = ?2",
        "UPDATE _pm_declared SET dev = ?3, seq = ?4 WHERE dev = ?1 AND seq = ?2",
        "UPDATE _pm_device SET retired_by = ?3, retired_seq = ?4 WHERE retired_by = ?1 AND retired_seq = ?2",
    ] {
        replica.db.prepare_cached(sql)?.execute((of.old.0, seq, of.new.0, to))?;
    }
    Ok(())
}
