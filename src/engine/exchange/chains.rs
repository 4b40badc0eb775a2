//! Certificates with those by which they are trusted; and which peers have this device's own.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::Certificate;
use sha2::{Digest, Sha256};

use crate::engine::error::Result;
use crate::engine::exchange::transaction;
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Reads the certificate chain of a device, issuers first.
pub(crate) fn certificates_for(replica: &Replica, n: i64) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut chain: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut next = Some(n);
    while let Some(n) = next.take().filter(|n| chain.iter().all(|(known, _)| known != n)) {
        let Some(bytes) = devices::certificate(&replica.db, n)? else { break };
        if let Some(issuer) = Certificate::read(&bytes).ok().and_then(|c| c.fleet) {
            next = devices::number_of_key(&replica.db, &issuer.fleet)?;
        }
        chain.push((n, bytes));
    }
    chain.reverse();
    Ok(chain)
}

/// Under this stands which certificate this device has, and how far its streams were when it got it.
const OWN_SINCE: &str = "certificate since";

/// Returns a digest of this device's certificate, and of those by which it is trusted.
fn own_digest(replica: &Replica) -> Result<[u8; 8]> {
    let mut hash = Sha256::new();
    for (_, bytes) in certificates_for(replica, replica.me)? {
        hash.update(bytes);
    }
    let whole: [u8; 32] = hash.finalize().into();
    Ok(std::array::from_fn(|at| whole[at]))
}

/// Reads how far this device's streams were when it got the certificate that it has, if that is noted.
fn own_since(replica: &Replica) -> Result<Option<[u64; 2]>> {
    let Some(noted) = meta::get::<[u8; 24]>(&replica.db, OWN_SINCE)? else { return Ok(None) };
    let (digest, rest) = noted.split_at(8);
    let part = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| rest[at * 8 + i]));
    Ok((digest == own_digest(replica)?).then(|| [part(0), part(1)]))
}

/// Notes how far this device's streams are, if it has another certificate than it had: whoever has a later frame got that
/// certificate before it. Of the two ways that a frame goes, the first is from here, and the others pass on both.
pub(crate) fn note_own(replica: &mut Replica) -> Result<()> {
    if catalog::reading(replica, own_since)?.is_some() {
        return Ok(());
    }
    transaction::record(replica, |e| {
        let mut noted = own_digest(e)?.to_vec();
        for stream in Stream::ALL {
            noted.extend(positions::position(e, e.me, stream)?.seq.to_be_bytes());
        }
        meta::set(&e.db, OWN_SINCE, noted)
    })
}

/// Returns whether a peer has this device's certificate, by what it said last: it has a frame that came with it or after.
pub(crate) fn peer_has_own(replica: &Replica, peer: DeviceId) -> Result<bool> {
    let Some(peer) = devices::device_number(replica, peer)? else { return Ok(false) };
    let Some(since) = own_since(replica)? else { return Ok(false) };
    for (stream, since) in Stream::ALL.into_iter().zip(since) {
        if membership::has(replica, peer, replica.me, stream)? > since {
            return Ok(true);
        }
    }
    Ok(false)
}
