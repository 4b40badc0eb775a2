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
    let mut statement = replica.db.prepare_cached(
        "SELECT public_key FROM _pm_device
         WHERE n <> ?1 AND trust IN (?2, ?3) AND public_key IS NOT NULL AND certificate IS NOT NULL ORDER BY id",
    )?;
    let keys = statement.query_map((replica.me, Trust::Singly, Trust::ByFleet), |row| row.get(0))?;
    let keys = keys.collect::<rusqlite::Result<Vec<[u8; 32]>>>()?;
    with_this(replica, keys.into_iter().filter_map(Reader::of))
}

/// Returns this device and these.
pub(crate) fn these(replica: &Replica, ids: &[DeviceId]) -> Result<Readers> {
    let known = fleet(replica)?.devices();
    for id in ids {
        if !known.contains(id) {
            return Err(cannot_read(replica, *id)?);
        }
    }
    let Readers { who, random } = fleet(replica)?;
    match who {
        Who::Devices(all) => {
            let keep = |reader: &Reader| reader.id == replica.identity.id || ids.contains(&reader.id);
            Ok(Readers { who: Who::Devices(all.into_iter().filter(keep).collect()), random })
        }
        who => Ok(Readers { who, random }),
    }
}

/// Returns whoever has a passphrase.
pub(crate) fn passphrase(replica: &Replica, passphrase: &[u8]) -> Readers {
    Readers { who: Who::Passphrase(passphrase.into()), random: replica.options.random }
}

fn with_this(replica: &Replica, others: impl Iterator<Item = Reader>) -> Result<Readers> {
    let own = Reader::of(*replica.signing_key()?.public_key());
    let all = own.into_iter().chain(others).collect();
    Ok(Readers { who: Who::Devices(all), random: replica.options.random })
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
