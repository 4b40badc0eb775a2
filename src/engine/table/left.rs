//! Devices that were left: a second history of theirs goes on under an identity of its own, and as far as anybody knows they
//! do not go on themselves.
//!
//! **Invariant.** A device is left as long as it has not heard of any identity that its key vouches for. A board that was set
//! back to a backup leaves the one that it was for ever: nobody comes to migrate that one's tables. One that was copied leaves
//! nobody, once the other has heard of the copy. Both is a function of certificates and frames.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use packmule_core::model::Stream;
use packmule_core::wire::Certificate;

use crate::engine::error::Result;
use crate::engine::table::replica::Replica;

/// Returns the numbers of the devices that were left. This device never is.
pub(crate) fn left(replica: &Replica) -> Result<BTreeSet<i64>> {
    let issuers = issuers(replica)?;
    // Whoever has heard of one heir goes on.
    let mut left: BTreeMap<i64, bool> = BTreeMap::new();
    for heir in issuers.keys() {
        let mut at = *heir;
        // Nobody vouches for itself, not even in turn: no chain is longer than there are devices.
        for _ in 0..issuers.len() {
            let Some(issuer) = issuers.get(&at) else { break };
            *left.entry(*issuer).or_insert(true) &= !has_heard_of(replica, *issuer, *heir)?;
            at = *issuer;
        }
    }
    left.remove(&replica.me);
    Ok(left.into_iter().filter_map(|(device, is_left)| is_left.then_some(device)).collect())
}

/// Returns which device vouches for which, where one does.
fn issuers(replica: &Replica) -> Result<BTreeMap<i64, i64>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT n, public_key, certificate FROM _pm_device WHERE public_key NOT NULL AND certificate NOT NULL",
    )?;
    let mut rows = statement.query([])?;
    let (mut keys, mut signed) = (HashMap::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (n, certificate): (i64, Vec<u8>) = (row.get(0)?, row.get(2)?);
        keys.insert(row.get::<_, [u8; 32]>(1)?, n);
        let issuer = Certificate::read(&certificate).ok().and_then(|certificate| certificate.fleet);
        signed.extend(issuer.map(|by| (n, by.fleet)));
    }
    Ok(signed.into_iter().filter_map(|(n, key)| Some((n, *keys.get(&key)?))).collect())
}

/// Returns whether a device has sealed anything since it heard of another.
fn has_heard_of(replica: &Replica, dev: i64, other: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_context WHERE dev = ?1 AND stream = ?2 AND other = ?3 AND seq > 0";
    Ok(replica.db.prepare_cached(sql)?.exists((dev, Stream::Shared.number(), other))?)
}
