//! Another device's second history, given up for its first.
//!
//! A device can have taken in the second history of another, and written on it, before anybody heard of the first. It
//! gives that up when the first comes, keeps its own identity and log, and loses nothing: what it knows of the second
//! history stays as settled values of its own (`merge/given_up.rs`). What the other device writes under its new
//! identity is concurrent with that, and of equal content as a rule.
//!
//! **Which of two is given up.** That of a board for that of a base; between devices that are both or neither, and of
//! which no base has acknowledged what is here, the one whose first group after the common part has the lower chain. So of
//! two devices one gives way, and never for what somebody only claims: the group that shows it has its author's
//! signature. Until then nothing of that author's stream is taken from the other side; all the rest is.
//!
//! A device's own second history, on which others have built already, goes the same way, under a new identity: frames that
//! others name cannot be renamed.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::Chain;

use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{seal, verdict};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::{cut, transaction, twin};
use crate::engine::fleet::peers::{self, OtherHistory};
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::merge::deferred;
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Gives up what is here of those histories for which it must; names the others, of which nothing is taken, to be shown
/// what is here. Returns the authors of those that were given up.
pub(crate) fn settle(
    replica: &mut Replica,
    sender: Option<DeviceId>,
    others: &[OtherHistory],
) -> Result<Vec<DeviceId>> {
    let mut given_up = Vec::new();
    for other in others {
        if let Some(sender) = sender
            && catalog::reading(replica, |e| gives_up(e, sender, other))?
        {
            give_up(replica, other)?;
            given_up.push(other.author);
            continue;
        }
        transaction::record(replica, |e| {
            peers::record_other_history(e, other.author)?;
            twin::record_twin(e, &devices::name_of(e, other.author)?, other.first)
        })?;
    }
    Ok(given_up)
}

/// Returns whether this device gives up what it has of an author's history, for that which `sender` has.
pub(crate) fn gives_up(replica: &Replica, sender: DeviceId, other: &OtherHistory) -> Result<bool> {
    let Some(dev) = devices::device_number(replica, other.author)? else { return Ok(false) };
    if other.stream != Stream::Shared || other.author == sender || dev == replica.me || !replica.can_sign() {
        return Ok(false);
    }
    let Some((common, _)) = place(replica, dev, other)? else { return Ok(false) };
    let base = |sql: &str, id: DeviceId| value::maybe::<i64>(&replica.db, sql, [id.0]);
    let from_base = base("SELECT 1 FROM _pm_device WHERE id = ?1 AND base", sender)?.is_some();
    match (replica.identity.base, from_base) {
        (false, true) => return Ok(true),
        (true, false) => return Ok(false),
        _ => {}
    }
    let here = positions::position(replica, dev, Stream::Shared)?.seq;
    let confirmed = "SELECT 1 FROM _pm_ack JOIN _pm_device ON n = peer AND base
                     WHERE dev = ?1 AND stream = ?2 AND seq > ?3 AND seq <= ?4";
    if !replica.identity.base
        && replica.db.prepare_cached(confirmed)?.exists((dev, Stream::Shared.number(), common, here))?
    {
        return Ok(false);
    }
    let ours = "SELECT chain FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first = ?3";
    let ours: Option<[u8; 32]> = value::maybe(&replica.db, ours, (dev, Stream::Shared.number(), common + 1))?;
    Ok(other.first == common + 1 && ours.is_some_and(|ours| ours < other.end.0))
}

/// Finds where a history here parts from another, and the chain there. Where nothing shows it, it is as far back as the log
/// goes: what is the same comes again.
fn place(replica: &Replica, dev: i64, other: &OtherHistory) -> Result<Option<(u64, Chain)>> {
    if other.common.is_some() {
        return Ok(other.common);
    }
    let floor = membership::watermark(replica, dev, Stream::Shared)?;
    if floor == 0 {
        let key: Option<[u8; 32]> =
            value::maybe(&replica.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [dev])?.flatten();
        return Ok(key.map(|key| (0, Chain::start(&key, Stream::Shared))));
    }
    Ok(twin::chain_at(replica, dev, Stream::Shared, floor)?.map(|chain| (floor, chain)))
}

/// Gives up what is here of an author's history after the common part; what was written here is sealed before.
pub(crate) fn give_up(replica: &mut Replica, other: &OtherHistory) -> Result<()> {
    transaction::transaction(replica, |e| {
        let Some(dev) = devices::device_number(e, other.author)? else { return Ok(()) };
        let Some((common, chain)) = place(e, dev, other)? else { return Ok(()) };
        deferred::begin_deferring(e)?;
        seal::seal_here(e, SealOptions::default())?;
        cut::cut(e, dev, [common, u64::MAX], [chain, chain])?;
        verdict::seal_verdict(e)?;
        let what = format!(
            "{} has two histories, and this device had the second after frame {common}: it has given that up for the \
             first, and keeps the rows as its own",
            devices::device_label(e, dev)?
        );
        meta::notice(&e.db, &what, e.now())
    })
}

/// Refuses a state that stands for frames of another history than is here, unless that is given up for it.
pub(crate) fn refuse_state(
    replica: &Replica,
    sender: Option<DeviceId>,
    other: Option<&OtherHistory>,
) -> Result<()> {
    let Some(other) = other else { return Ok(()) };
    match sender {
        Some(sender) if gives_up(replica, sender, other)? => Ok(()),
        _ => Err(Error::Twin { device: devices::name_of(replica, other.author)?, seq: other.first }),
    }
}
