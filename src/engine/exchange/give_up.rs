//! Another device's second history, given up for its first.
//!
//! A device can have taken in the second history of another, and written on it, before anybody heard of the first. It
//! gives that up when the first comes, keeps its own identity and log, and loses nothing: what it knows of the second
//! history stays as settled values of its own (`merge/given_up.rs`). What the other device writes under its new
//! identity is concurrent with that, and of equal content as a rule.
//!
//! **Which of two is given up.** That of a board for that of a base; between devices that are both or neither, and of
//! which no base has acknowledged what is here, the one whose first group after the common part has the lower tag, also if
//! that is folded. So of two devices one gives way, and never for what somebody only claims: the group that shows it has its author's
//! signature. Until then nothing of that author's stream is taken from the other side; all the rest is.
//!
//! A device's own second history, on which others have built already, goes the same way, under a new identity: frames that
//! others name cannot be renamed.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint};

use crate::engine::apply::again;
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{redeclare, seal, verdict};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::state_rows::StateRow;
use crate::engine::exchange::twin::Apart;
use crate::engine::exchange::verified::Verified;
use crate::engine::exchange::{cut, transaction, twin};
use crate::engine::fleet::peers::{self, Fit, GivenUp, OtherHistory};
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, revocation};
use crate::engine::log::{frames, tags};
use crate::engine::merge::deferred;
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Gives up what is here of those histories for which it must, before a bundle is taken in; notes the others, of which
/// nothing is taken, to be shown what is here.
pub(crate) fn decide(replica: &mut Replica, verified: &mut Verified) -> Result<()> {
    let Some(sender) = verified.sender else { return Ok(()) };
    // What is older than what was heard of it before, a base may have given up itself since.
    if !verified.is_old {
        verified.any_news |= heard(replica, sender, &verified.said)?;
    }
    for other in std::mem::take(&mut verified.others) {
        // What a signature has shown may be far behind the place where both part.
        let parting = verified.said.parted.get(&other.author);
        let other = other.parts_at(parting);
        if catalog::reading(replica, |e| gives_up(e, verified, &other))? {
            give_up(replica, &other)?;
            verified.forked.remove(&other.author);
        } else {
            transaction::record(replica, |e| note(e, &other))?;
            if other.stream == Stream::PerDevice {
                // Also where the shared stream is given up for what it has.
                verified.loose.insert((other.author, other.stream), u64::MAX);
            }
        }
    }
    Ok(())
}

/// Notes that a device has another history than is here, as its own signature shows.
pub(crate) fn note(replica: &Replica, other: &OtherHistory) -> Result<()> {
    if other.author == replica.identity.id {
        return Ok(());
    }
    peers::record_other_history(replica, other.author)?;
    twin::record_twin(replica, &devices::name_of(replica, other.author)?, other.first)?;
    let Some(dev) = devices::device_number(replica, other.author)? else { return Ok(()) };
    if other.stream != Stream::Shared {
        return Ok(());
    }
    peers::record_split(replica, dev, other.common.map_or(other.first - 1, |(seq, _)| seq))?;
    if let Some((seq, chain)) = other.common {
        meta::set(&replica.db, &noted(dev), [&seq.to_be_bytes()[..], &chain.0].concat())?;
    }
    Ok(())
}

/// Notes the same of a group that was refused.
pub(crate) fn note_refused(replica: &Replica, checkpoint: &Checkpoint, key: &[u8; 32]) -> Result<()> {
    match twin::fit(replica, checkpoint, None, key)? {
        Fit::Fits => Ok(()),
        Fit::Diverges { common } => note(replica, &OtherHistory::of(checkpoint, &checkpoint.prev, common)),
    }
}

/// Gives up what is here of the histories of devices of which `sender`, a base, says that it has others, where these
/// devices' own signatures have shown before that there are others. Returns whether it gave up any.
pub(crate) fn heard(replica: &mut Replica, sender: DeviceId, said: &Apart) -> Result<bool> {
    if !said.others.is_empty() || !said.per_device.is_empty() {
        transaction::settle(replica)?;
    }
    let mut any = hear_per_device(replica, sender, said)?;
    for author in said.others.keys().copied() {
        let shown = catalog::reading(replica, |e| {
            let Some(dev) = devices::device_number(e, author)? else { return Ok(None) };
            let Some(noted) = meta::get::<Vec<u8>>(&e.db, &noted(dev))? else { return Ok(None) };
            let damaged = || Error::damaged("a noted history of another length");
            let (seq, chain) = noted.split_first_chunk().ok_or_else(damaged)?;
            let chain = Chain(chain.try_into().map_err(|_| damaged())?);
            let first = u64::from_be_bytes(*seq) + 1;
            let other = OtherHistory {
                author,
                stream: Stream::Shared,
                first,
                common: Some((first - 1, chain)),
                after: None,
                end: chain,
            };
            let by_base = devices::is_base(e, sender)? && !e.identity.base;
            if positions::position(e, dev, Stream::Shared)?.seq < first {
                return Ok(None); // It is given up, and the other one comes.
            }
            Ok(Some(other).filter(|_| by_base && e.can_sign() && author != sender && dev != e.me))
        })?;
        if let Some(other) = shown {
            give_up(replica, &other)?;
            any = true;
        }
    }
    Ok(any)
}

/// Hears that a sender has another history of the per-device streams of third devices. A base says so where the device hears
/// it; a device that a base tells of an identity which it had before seals again what it has of its own. Returns whether it
/// did.
fn hear_per_device(replica: &mut Replica, sender: DeviceId, said: &Apart) -> Result<bool> {
    let mut any = false;
    for author in said.per_device.iter().copied() {
        if replica.identity.base {
            transaction::record(replica, |e| peers::record_other_history(e, author))?;
            continue;
        }
        let by_base = |e: &Replica| {
            let is_former = devices::issuers(&e.db, e.me)?.contains(&author);
            Ok(is_former && e.can_sign() && devices::is_base(e, sender)?)
        };
        if catalog::reading(replica, by_base)? {
            let same = said.own_same.get(&author).copied().unwrap_or(0);
            transaction::transaction(replica, |e| {
                let Some(dev) = devices::device_number(e, author)? else { return Ok(()) };
                deferred::begin_deferring(e)?;
                cut::seal_own_again(e, dev, same)
            })?;
            any = true;
        }
    }
    Ok(any)
}

/// The name under which `_pm_meta` has where a device's history here parts from another that its signature has shown.
fn noted(dev: i64) -> String {
    format!("other history {dev}")
}

/// Returns whether this device gives up what it has of an author's history, for that which the sender of a bundle has.
fn gives_up(replica: &Replica, verified: &Verified, other: &OtherHistory) -> Result<bool> {
    let Some(sender) = verified.sender else { return Ok(false) };
    // What this device has said itself is what it had before.
    if devices::is_or_was_me(replica, sender)? {
        return Ok(false);
    }
    let Some(dev) = devices::device_number(replica, other.author)? else { return Ok(false) };
    if other.stream != Stream::Shared || other.author == sender || dev == replica.me || !replica.can_sign() {
        return Ok(false);
    }
    let Some((common, _)) = place(replica, dev, other)? else { return Ok(false) };
    match (replica.identity.base, verified.evidence.by_base) {
        // What a base has given up itself comes again with its older files.
        (false, true) => return Ok(!verified.is_old || !is_given_up(replica, dev, other)?),
        (true, false) => return Ok(false),
        _ => {}
    }
    // What was given up here for a base's comes again with older files of boards, before that base says that it has what is here.
    if is_given_up(replica, dev, other)?
        || !replica.identity.base && peers::is_confirmed(replica, dev, Stream::Shared, common)?
    {
        return Ok(false);
    }
    // Of a group that is folded its tag is left, so both compare the same, whoever has folded.
    let ours = tags::tag_after(replica, dev, Stream::Shared, common + 1)?;
    Ok(ours.zip(other.after).is_some_and(|(ours, theirs)| ours < theirs))
}

/// Finds where a history here parts from another, and the chain there. Where nothing shows it, it is as far back as the log
/// goes: what is the same comes again.
fn place(replica: &Replica, dev: i64, other: &OtherHistory) -> Result<Option<(u64, Chain)>> {
    if other.common.is_some() {
        return Ok(other.common);
    }
    // Of one that was given up here it is known.
    if is_given_up(replica, dev, other)?
        && let Some(given_up) = peers::given_up(replica, dev)?
        && let Some(chain) = twin::chain_at(replica, dev, Stream::Shared, given_up.common)?
    {
        return Ok(Some((given_up.common, chain)));
    }
    let floor = membership::watermark(replica, dev, Stream::Shared)?;
    // Where it is folded here how both part, nothing of it can be told from the other: all comes again, as a state.
    if other.first <= floor + 1 {
        return start(replica, dev);
    }
    Ok(twin::chain_at(replica, dev, Stream::Shared, floor)?.map(|chain| (floor, chain)))
}

/// Returns the place before the first frame of a shared stream.
fn start(replica: &Replica, dev: i64) -> Result<Option<(u64, Chain)>> {
    let key: Option<[u8; 32]> =
        value::maybe(&replica.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [dev])?.flatten();
    Ok(key.map(|key| (0, Chain::start(&key, Stream::Shared))))
}

/// Finds up to where the stream stays that has a place: to there, if its author's checkpoint of that is here, which proves it
/// to whoever gets a state. Where it is folded too, all comes again.
fn proven(replica: &Replica, dev: i64, place: (u64, Chain)) -> Result<Option<(u64, Chain)>> {
    let sql = "SELECT 1 FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3
               UNION ALL SELECT 1 FROM _pm_newest WHERE dev = ?1 AND stream = ?2 AND last = ?3";
    let is_here = replica.db.prepare_cached(sql)?.exists((dev, Stream::Shared.number(), place.0))?;
    if is_here { Ok(Some(place)) } else { start(replica, dev) }
}

/// Returns whether a history is one that was given up here.
fn is_given_up(replica: &Replica, dev: i64, other: &OtherHistory) -> Result<bool> {
    let given_up = peers::given_up(replica, dev)?;
    Ok(given_up.is_some_and(|given_up| given_up.ends.iter().any(|(_, tag)| *tag == other.end.tag())))
}

/// Gives up what is here of an author's history after the common part; what was written here is sealed before.
pub(crate) fn give_up(replica: &mut Replica, other: &OtherHistory) -> Result<()> {
    transaction::transaction(replica, |e| {
        let Some(dev) = devices::device_number(e, other.author)? else { return Ok(()) };
        let Some(place) = place(e, dev, other)? else { return Ok(()) };
        let Some((common, chain)) = proven(e, dev, place)? else { return Ok(()) };
        // What is before the frame that shows it may be of both: it comes again, and must not be refused then.
        let ends = tags::ends_after(e, dev, Stream::Shared, common.max(other.first - 1))?;
        let ours = Some(GivenUp { common, ends }).filter(|ours| !ours.ends.is_empty());
        // What was given up before stays so, where the other one has only not come yet.
        if ours.is_some() || other.end == place.1 || is_given_up(e, dev, other)? {
            peers::record_given_up(e, dev, ours.as_ref())?;
        }
        // What only waits is of that history too, or follows on nothing: where it stayed, it would be in the other one's place.
        frames::forget_pending(&e.db, dev, Stream::Shared, i64::MAX as u64)?;
        if positions::position(e, dev, Stream::Shared)?.seq <= common {
            return Ok(());
        }
        deferred::begin_deferring(e)?;
        seal::seal_here(e, SealOptions::default())?;
        let end = |seq| StreamPosition { seq, chain };
        let decisions = redeclare::decisions_after(e, dev, common)?;
        // The per-device stream stays.
        let over = again::strangers(e, dev, common)?;
        cut::cut(e, dev, [end(common), end(u64::MAX)], &over)?;
        meta::forget(&e.db, &noted(dev))?;
        revocation::record_forked(e, dev, false)?;
        redeclare::decide_again(e, decisions)?;
        verdict::seal_verdict(e)?;
        let what = format!(
            "{} has two histories, and this device had the second after frame {common}: it has given that up for the \
             first, and keeps the rows as its own",
            devices::device_label(e, dev)?
        );
        meta::notice(&e.db, &what, e.now())
    })
}

/// Meets, of a state, places of a stream. Where these are of a history that is given up here, the state is left; but from a
/// base this device takes that history after all. Where they are of another history than is here, they show where that parts.
pub(super) fn meet_state(replica: &Replica, verified: &mut Verified, places: &StateRow<'_>) -> Result<()> {
    let author = places.device_id_at(0)?;
    if let Some(dev) = devices::device_number(replica, author)?
        && let Some(start) = start(replica, dev)?
        && let Some(parting) = twin::parting(replica, dev, &places.places()?, start)?
    {
        verified.parted.insert(author, parting);
    }
    if places.is_of_given_up()? {
        match taken_after_all(replica, verified, author)? {
            Some(other) => verified.others.push(other),
            None => verified.leaves_state = true,
        }
    }
    Ok(())
}

/// Finds the history of an author that was given up here and that a sender has: what is here is given up for it, if that is a
/// base. The author's signature has shown it before.
fn taken_after_all(replica: &Replica, verified: &Verified, author: DeviceId) -> Result<Option<OtherHistory>> {
    let Some(dev) = devices::device_number(replica, author)? else { return Ok(None) };
    let Some(given_up) = peers::given_up(replica, dev)? else { return Ok(None) };
    let Some(chain) = twin::chain_at(replica, dev, Stream::Shared, given_up.common)? else { return Ok(None) };
    let common = Some((given_up.common, chain));
    let (stream, first) = (Stream::Shared, given_up.common + 1);
    let other = OtherHistory { author, stream, first, common, after: None, end: chain };
    let is_told = !verified.is_old && !replica.identity.base && verified.evidence.by_base;
    Ok(if is_told && gives_up(replica, verified, &other)? { Some(other) } else { None })
}

/// Returns whether a state stands for frames of another history than is here, which is not given up for it: nothing of the
/// state is taken.
pub(crate) fn leaves_state(
    replica: &Replica,
    verified: &Verified,
    other: Option<&OtherHistory>,
) -> Result<bool> {
    let Some(other) = other.filter(|other| other.stream == Stream::Shared) else { return Ok(false) };
    Ok(!gives_up(replica, verified, other)?)
}
