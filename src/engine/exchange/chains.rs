//! Certificates with those by which they are trusted.

use packmule_core::wire::Certificate;

use crate::engine::error::Result;
use crate::engine::fleet::devices;
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
