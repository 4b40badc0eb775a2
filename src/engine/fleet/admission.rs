//! Admission: a device that the fleet has not signed asks for it, with the certificate that it made itself and that
//! goes with whatever it sends. Whoever has the fleet key signs that; the signed certificate travels back.
//!
//! In `_pm_meta`: `request` is our own certificate under another name, for the fleet to sign; `request ID` is that of
//! another device; `admission ID` is a certificate that its device does not have yet, as far as is known.

use packmule_core::model::{DeviceId, Hex};
use packmule_core::wire::Certificate;

use crate::engine::error::Result;
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::{succession, trust};
use crate::engine::store::{meta, value};
use crate::engine::table::replica::Replica;

/// How many requests of others are kept: anybody can make any number of them.
const REQUESTS_MAX: u64 = 256;

/// Where our own request is.
const OWN: &str = "request";

fn admission_of(id: DeviceId) -> String {
    format!("admission {id}")
}

/// A device that asks for admission.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Applicant {
    /// Its id.
    #[cfg_attr(feature = "serde", serde(rename = "fingerprint"))]
    pub id: DeviceId,
    /// The name under which it asks.
    pub name: String,
    /// It asks to be a base.
    pub base: bool,
}

/// Makes an applicant of a certificate.
pub(crate) fn applicant(certificate: &Certificate<'_>) -> Applicant {
    Applicant { id: certificate.device(), name: certificate.name.into(), base: certificate.base }
}

/// Returns whether a certificate is one of ours that gives us a place in a fleet: the first, or the one that was
/// asked for; or that of the device as whose second history we go on.
pub(crate) fn is_for_us(replica: &Replica, certificate: &Certificate<'_>) -> Result<bool> {
    let Some(signed) = certificate.fleet else { return Ok(false) };
    let (ours, id) = (&replica.identity, certificate.device());
    let of_device = devices::number_of_key(&replica.db, &signed.fleet)?;
    let other = match ours.fleet {
        Some(fleet) => !succession::is_of_fleet(&replica.db, signed.fleet, fleet)?,
        None => false,
    };
    if of_device.is_some() || other {
        return Ok(false);
    }
    if id == ours.id && ours.admitted {
        return Ok(own_serial(replica)?.is_none_or(|serial| serial < certificate.serial));
    }
    Ok(!ours.admitted && devices::is_or_was_me(replica, id)?)
}

/// Returns the serial of our certificate.
pub(crate) fn own_serial(replica: &Replica) -> Result<Option<u8>> {
    let bytes = devices::certificate(&replica.db, replica.me)?;
    Ok(bytes.and_then(|bytes| Certificate::read(&bytes).ok().map(|c| c.serial)))
}

/// Takes a certificate that [`is_for_us`]. Our identity has changed then, and is to be read again.
pub(crate) fn take_place(replica: &Replica, certificate: &Certificate<'_>, bytes: &[u8]) -> Result<()> {
    place(replica, certificate, bytes, replica.identity.admitted)
}

/// Takes a place in the fleet that signed a certificate. `was_member`: this device had one there, under another name.
fn place(replica: &Replica, certificate: &Certificate<'_>, bytes: &[u8], was_member: bool) -> Result<()> {
    let Some(signed) = certificate.fleet else { return Ok(()) };
    let db = &replica.db;
    db.execute(
        "UPDATE _pm_device SET public_key = ?2, name = ?3, base = ?4, certificate = ?5, trust = ?6 WHERE id = ?1",
        (
            certificate.device().0,
            certificate.public_key,
            certificate.name,
            certificate.base,
            bytes,
            Trust::ByFleet,
        ),
    )?;
    if replica.identity.fleet.is_none() {
        meta::set(db, "fleet", signed.fleet)?;
    }
    let asked: Option<Vec<u8>> = meta::get(db, OWN)?;
    let serial = asked.and_then(|asked| Certificate::read(&asked).ok().map(|c| c.serial));
    if serial.is_some_and(|serial| serial <= certificate.serial) {
        meta::forget(db, OWN)?;
    }
    let what = if was_member {
        format!("the fleet has signed the name `{}` of this device", certificate.name)
    } else {
        format!("the fleet {}… has admitted this device", Hex(&signed.fleet[..8]))
    };
    meta::notice(db, &what, replica.now())
}

/// Leaves the fleet whose key is lost or stolen for that of this certificate, which its key has just signed here. What
/// joins other keys with the old one is forgotten; whom this device knows, it still trusts.
pub(crate) fn change_fleet(replica: &Replica, certificate: &Certificate<'_>, bytes: &[u8]) -> Result<()> {
    let Some(signed) = certificate.fleet else { return Ok(()) };
    replica.db.execute("DELETE FROM _pm_meta WHERE k GLOB 'succession ?*'", [])?;
    meta::set(&replica.db, "fleet", signed.fleet)?;
    place(replica, certificate, bytes, false)
}

/// Returns whether a certificate asks for admission here: its device is not of our fleet, or is under another name.
pub(crate) fn is_request(replica: &Replica, certificate: &Certificate<'_>) -> Result<bool> {
    if certificate.fleet.is_some()
        || replica.identity.fleet.is_none()
        || certificate.public_key == own_key(replica)?
    {
        return Ok(false);
    }
    let known: Option<(Trust, Option<Vec<u8>>)> = {
        use rusqlite::OptionalExtension;
        replica
            .db
            .prepare_cached("SELECT trust, certificate FROM _pm_device WHERE id = ?1")?
            .query_row([certificate.device().0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
    };
    Ok(match known {
        Some((Trust::Revoked | Trust::Singly, _)) => false,
        Some((Trust::ByFleet, Some(bytes))) => {
            Certificate::read(&bytes).is_ok_and(|signed| signed.serial < certificate.serial)
        }
        _ => true,
    })
}

fn own_key(replica: &Replica) -> Result<[u8; 32]> {
    let key: Option<[u8; 32]> =
        value::maybe(&replica.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [replica.me])?.flatten();
    Ok(key.unwrap_or_default())
}

/// Keeps a request of another device, for whoever has the fleet key.
pub(crate) fn keep_request(replica: &Replica, certificate: &Certificate<'_>, bytes: &[u8]) -> Result<()> {
    let key = trust::request_of(certificate.device());
    let known: Option<Vec<u8>> = meta::get(&replica.db, &key)?;
    let kept: u64 =
        replica
            .db
            .query_row("SELECT count(*) FROM _pm_meta WHERE k GLOB 'request ?*'", [], |row| row.get(0))?;
    let newer = match &known {
        Some(known) => Certificate::read(known).is_ok_and(|known| known.serial < certificate.serial),
        None => kept < REQUESTS_MAX,
    };
    if newer {
        meta::set(&replica.db, &key, bytes)?;
    }
    Ok(())
}

/// Lists the certificates of others that ask for admission, as they were heard of.
pub(crate) fn requests(replica: &Replica) -> Result<Vec<Vec<u8>>> {
    let mut statement =
        replica.db.prepare_cached("SELECT v FROM _pm_meta WHERE k GLOB 'request ?*' ORDER BY k")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns our own request for another name, if the fleet has not signed it yet.
pub(crate) fn own_request(replica: &Replica) -> Result<Option<Vec<u8>>> {
    meta::get(&replica.db, OWN)
}

/// Keeps our own request for another name.
pub(crate) fn set_own_request(replica: &Replica, bytes: &[u8]) -> Result<()> {
    meta::set(&replica.db, OWN, bytes)
}

/// Forgets our own request.
pub(crate) fn withdraw_own_request(replica: &Replica) -> Result<()> {
    meta::forget(&replica.db, OWN)
}

/// Keeps a certificate that our fleet has signed for its device, which does not have it yet.
pub(crate) fn keep_for(replica: &Replica, device: DeviceId, bytes: &[u8]) -> Result<()> {
    meta::set(&replica.db, &admission_of(device), bytes)
}

/// Records that a device shows this certificate itself: what it has need not be sent to it.
pub(crate) fn shown_by_itself(replica: &Replica, certificate: &Certificate<'_>) -> Result<()> {
    if covers_kept(replica, certificate)? {
        meta::forget(&replica.db, &admission_of(certificate.device()))?;
    }
    Ok(())
}

/// Returns whether [`shown_by_itself`] would forget something when a device shows this certificate.
pub(crate) fn is_awaited(replica: &Replica, encoded: &[u8]) -> Result<bool> {
    let Ok(certificate) = Certificate::read(encoded) else { return Ok(false) };
    covers_kept(replica, &certificate)
}

/// Returns whether this certificate is as good as the one that is kept for its device.
fn covers_kept(replica: &Replica, certificate: &Certificate<'_>) -> Result<bool> {
    let kept: Option<Vec<u8>> = meta::get(&replica.db, &admission_of(certificate.device()))?;
    Ok(kept.is_some_and(|kept| {
        Certificate::read(&kept).is_ok_and(|kept| {
            certificate.fleet.map(|f| f.fleet) == kept.fleet.map(|f| f.fleet)
                && certificate.serial >= kept.serial
        })
    }))
}

/// Lists the certificates that go with everything that is sent: our request for another name, and what others are still
/// to hear about themselves.
pub(crate) fn carried(replica: &Replica) -> Result<Vec<Vec<u8>>> {
    let mut all = succession::statements(&replica.db)?;
    all.extend(own_request(replica)?);
    let mut statement =
        replica.db.prepare_cached("SELECT v FROM _pm_meta WHERE k GLOB 'admission ?*' ORDER BY k")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    all.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(all)
}

/// Lists the certificates that a peer in a session is to hear first: its own, if it shows one of less worth, and our
/// request for another name.
pub(crate) fn for_peer(replica: &Replica, shown: &Certificate<'_>) -> Result<Vec<Vec<u8>>> {
    let mut all = succession::statements(&replica.db)?;
    all.extend(own_request(replica)?);
    let known: Option<Vec<u8>> = value::maybe(
        &replica.db,
        "SELECT certificate FROM _pm_device WHERE id = ?1 AND trust = ?2",
        (shown.device().0, Trust::ByFleet),
    )?
    .flatten();
    let better = |known: &Vec<u8>| {
        Certificate::read(known).is_ok_and(|known| {
            known.fleet.is_some() && (shown.fleet.is_none() || shown.serial < known.serial)
        })
    };
    all.extend(known.filter(better));
    Ok(all)
}

/// What decides which devices' frames are taken in: it changes when somebody is admitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    admitted: bool,
    fleet: Option<[u8; 32]>,
    trusted: u64,
}

/// Returns what decides whose frames are taken in.
pub(crate) fn standing(replica: &Replica) -> Result<Standing> {
    let trusted = replica.db.query_row(
        "SELECT count(*) FROM _pm_device WHERE trust IN (?1, ?2)",
        [Trust::Singly, Trust::ByFleet],
        |row| row.get(0),
    )?;
    Ok(Standing { admitted: replica.identity.admitted, fleet: replica.identity.fleet, trusted })
}
