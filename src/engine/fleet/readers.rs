//! Who can read what this device encrypts.
//!
//! A device's key for the key agreement follows from the one with which it signs, so its certificate is all that
//! others need: also one that an earlier version made, and that the fleet key signed long ago.

use packmule_core::model::DeviceId;

use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::revocation;
use crate::engine::store::cipher::Reader;
use crate::engine::store::encrypt::{Readers, Who};
use crate::engine::table::replica::Replica;

/// Returns this device, which can always read what it encrypts itself, and all devices whose certificates are known here
/// and that are trusted. A revoked device is not among them.
pub(crate) fn fleet(replica: &Replica) -> Result<Readers> {
    Ok(Readers { who: Who::Devices(devices_that_read(replica)?), random: replica.options.random })
}

/// Lists the devices of [`fleet`], this one first.
fn devices_that_read(replica: &Replica) -> Result<Vec<Reader>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT public_key FROM _pm_device
         WHERE n <> ?1 AND trust IN (?2, ?3) AND public_key IS NOT NULL AND certificate IS NOT NULL ORDER BY id",
    )?;
    let keys = statement.query_map((replica.me, Trust::Singly, Trust::ByFleet), |row| row.get(0))?;
    let keys = keys.collect::<rusqlite::Result<Vec<[u8; 32]>>>()?;
    let own = *replica.signing_key()?.public_key();
    Ok([own].into_iter().chain(keys).filter_map(Reader::of).collect())
}

/// Returns this device and these.
pub(crate) fn these(replica: &Replica, ids: &[DeviceId]) -> Result<Readers> {
    let mut all = devices_that_read(replica)?;
    if let Some(id) = ids.iter().find(|id| all.iter().all(|reader| reader.id != **id)) {
        return Err(cannot_read(replica, *id)?.into());
    }
    all.retain(|reader| reader.id == replica.identity.id || ids.contains(&reader.id));
    Ok(Readers { who: Who::Devices(all), random: replica.options.random })
}

/// Returns whoever has a passphrase.
pub(crate) fn passphrase(replica: &Replica, passphrase: &[u8]) -> Readers {
    Readers { who: Who::Passphrase(passphrase.into()), random: replica.options.random }
}

/// Says why nothing can be encrypted to a device.
fn cannot_read(replica: &Replica, id: DeviceId) -> Result<Error> {
    let who = devices::name_of(replica, id)?;
    let dev = devices::device_number(replica, id)?;
    let revoked = dev.map(|dev| revocation::is_revoked(replica, dev)).transpose()?.unwrap_or(false);
    Ok(Error::Usage(if revoked {
        format!("{who} is revoked: nothing is encrypted to it")
    } else {
        format!(
            "nothing can be encrypted to {who}: its certificate is not known here, or not trusted; take in a bundle of it \
             first"
        )
    }))
}
