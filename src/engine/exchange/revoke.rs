//! Revoking a device, and hearing that one is revoked.

use packmule_core::model::DeviceId;
use packmule_core::wire::Revocation;

use crate::engine::apply::report::ImportReport;
use crate::engine::apply::{ready, vouched};
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::seal;
use crate::engine::error::{Error, Result};
use crate::engine::exchange::transaction;
use crate::engine::fleet::devices::{self, SaidBy};
use crate::engine::fleet::{membership, revocation, trust};
use crate::engine::store::keys::FleetKey;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// What a revocation, or taking one back, did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RevokeReport {
    /// The fleet's key says so: it holds for the whole fleet, wherever that has heard it.
    pub for_fleet: bool,
    /// The devices that are revoked now and were not before, by their labels: the one that was named, and those that
    /// it vouched for.
    pub revoked: Vec<String>,
    /// The devices that are no longer revoked.
    pub restored: Vec<String>,
    /// Frames of revoked devices that were set aside, and are applied now.
    pub frames: u64,
}

/// Revokes a device: nothing is taken from it, nor from those that it vouches for, from now on. What devices that are
/// not revoked had taken in before they heard of it stays, and is taken from them. With the fleet's key it travels.
pub(crate) fn revoke(replica: &mut Replica, id: DeviceId, key: Option<&FleetKey>) -> Result<RevokeReport> {
    transaction::after_seal(replica, |e| {
        let dev = devices::device_number_or_new(e, id)?;
        if dev == e.me {
            return Err(Error::Usage("a device cannot revoke itself".into()).into());
        }
        let before = labels(e)?;
        match key {
            Some(key) => {
                let statement = revocation::state(e, dev, true, key)?;
                revocation::hear(e, &statement)?;
            }
            None => revocation::say_here(e, dev, true)?,
        }
        follow(e, key.is_some())?;
        Ok(RevokeReport { for_fleet: key.is_some(), ..changes(e, &before)? })
    })
}

/// Takes a revocation back: that of the fleet with the fleet's key, that of a person here without.
///
/// # Errors
/// [`Error::NotRevoked`] if the device is not; [`Error::Usage`] if the fleet's key said so and is not given, or the
/// device is revoked since another one is.
pub(crate) fn take_back(replica: &mut Replica, id: DeviceId, key: Option<&FleetKey>) -> Result<RevokeReport> {
    transaction::after_seal(replica, |e| {
        let dev = devices::device_number_or_new(e, id)?;
        let label = devices::device_label(e, dev)?;
        let before = labels(e)?;
        match (revocation::revoked(e)?.remove(&dev), key) {
            (None, None) => return Err(Error::Usage(format!("{label} is not revoked here")).into()),
            (Some(SaidBy::Fleet), None) => {
                return Err(Error::Usage(format!(
                    "the fleet's key has revoked {label}: it alone takes that back, and its file was not given"
                )).into());
            }
            (Some(SaidBy::Issuer(issuer)), _) => {
                return Err(Error::Usage(format!(
                    "{label} is revoked since {issuer} is, which vouches for it: that one is to be named"
                ))
                .into());
            }
            (_, Some(key)) => {
                let statement = revocation::state(e, dev, false, key)?;
                revocation::hear(e, &statement)?;
            }
            (Some(_), None) => {}
        }
        revocation::say_here(e, dev, false)?;
        let frames = follow(e, key.is_some())?;
        Ok(RevokeReport { for_fleet: key.is_some(), frames, ..changes(e, &before)? })
    })
}

/// Takes in a statement of a fleet's key. Returns whether it was new here.
pub(crate) fn take_in(replica: &Replica, statement: &Revocation, report: &mut ImportReport) -> Result<bool> {
    if !revocation::is_news(replica, statement)? {
        return Ok(false);
    }
    if statement.retirement {
        return hear_retirement(replica, statement).map(|()| true);
    }
    let before = labels(replica)?;
    revocation::hear(replica, statement)?;
    follow(replica, true)?;
    let changed = changes(replica, &before)?;
    report.revoked.extend(changed.revoked);
    report.restored.extend(changed.restored);
    Ok(true)
}

/// Takes in what the fleet's key says of a retirement: it holds at once. An older statement than is here says nothing.
pub(crate) fn hear_retirement(replica: &Replica, statement: &Revocation) -> Result<()> {
    if !revocation::hear(replica, statement)? {
        return Ok(());
    }
    if statement.revoked {
        membership::hear_retired_by_fleet(replica, statement.device)
    } else {
        membership::record_returned(replica, devices::device_number_or_new(replica, statement.device)?)
    }
}

/// Follows what is said now: brings trust in step with it, seals what this device has of who is revoked, and applies
/// what is no longer void. Returns how many frames that were. `travels`: others are to hear of it with the next frame.
fn follow(replica: &Replica, travels: bool) -> Result<u64> {
    let new = trust::refresh(replica)?;
    // Who wrote nothing since says by this what it has: others take that in. Its frame also brings the statement.
    if (travels || !new.is_empty()) && replica.can_sign() {
        revocation::owe_word(replica)?;
        seal::seal_here(replica, SealOptions::default())?;
    }
    vouched::recount(replica)?;
    let mut applied = ImportReport::default();
    let before = pending_frames(replica)?;
    ready::apply_pending(replica, &mut applied)?;
    Ok(before.saturating_sub(pending_frames(replica)?))
}

fn pending_frames(replica: &Replica) -> Result<u64> {
    let sql = "SELECT coalesce(sum(last - first + 1), 0) FROM _pm_group INDEXED BY _pm_group_waiting WHERE NOT applied";
    Ok(replica.db.query_row(sql, [], |row| row.get(0))?)
}

/// Lists the labels of the devices that are revoked.
fn labels(replica: &Replica) -> Result<Vec<String>> {
    revocation::revoked(replica)?.into_keys().map(|dev| devices::device_label(replica, dev)).collect()
}

/// Reports who is revoked now and was not before, and the reverse.
fn changes(replica: &Replica, before: &[String]) -> Result<RevokeReport> {
    let now = labels(replica)?;
    let without = |all: &[String], some: &[String]| {
        all.iter().filter(|label| !some.contains(label)).cloned().collect::<Vec<_>>()
    };
    let (revoked, restored) = (without(&now, before), without(before, &now));
    Ok(RevokeReport { revoked, restored, ..RevokeReport::default() })
}

/// Reads all statements of the fleet's key that are known here.
pub(crate) fn statements(replica: &Replica) -> Result<Vec<Vec<u8>>> {
    catalog::reading(replica, revocation::statements)
}

/// Returns whether a device is revoked here.
pub(crate) fn is_revoked(replica: &Replica, id: DeviceId) -> Result<bool> {
    catalog::reading(replica, |e| revocation::is_revoked_id(e, id))
}
