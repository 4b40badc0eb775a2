//! The other end of a session.

use packmule_core::model::DeviceId;
use packmule_core::wire::{Certificate, Message};

use crate::engine::error::{Error, Result, UntrustedDevice};
use crate::engine::exchange::admit::{self, Found};
use crate::engine::exchange::{certificates, transaction};
use crate::engine::fleet::{admission, devices, membership, succession, trust};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// The other end of a session, once its certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Peer {
    /// Its id.
    #[cfg_attr(feature = "serde", serde(rename = "fingerprint"))]
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) public_key: [u8; 32],
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) certificate: Vec<u8>,
}

/// Reads our certificate.
pub(crate) fn own_certificate(replica: &Replica) -> Result<Vec<u8>> {
    catalog::reading(replica, |e| devices::certificate(&e.db, e.me))?
        .ok_or_else(|| Error::damaged("our certificate is missing"))
}

/// Reads the certificate chain of an author, issuers first.
pub(crate) fn author_certificates(replica: &Replica, dev: i64) -> Result<Vec<(DeviceId, Vec<u8>)>> {
    catalog::reading(replica, |e| {
        let chain = certificates::certificates_for(e, dev)?;
        chain.into_iter().map(|(n, bytes)| Ok((devices::device_id(e, n)?, bytes))).collect()
    })
}

/// Verifies whom a certificate names: an error if it is damaged, an untrusted device if it is not trusted.
pub(crate) fn verify_peer(
    replica: &Replica,
    certificate: &[u8],
) -> Result<std::result::Result<Peer, UntrustedDevice>> {
    let decoded = Certificate::decode(certificate).map_err(|e| Error::bundle(0, e))?;
    let outcome = catalog::reading(replica, |e| trust::verify_certificate(e, &decoded))?;
    Ok(outcome.map(|_| peer_of(&decoded, certificate)))
}

/// Makes a peer of a certificate that a fleet has signed, for a device that any fleet may admit: the peer can bring it
/// its place there, and nothing else before that.
pub(crate) fn possible_fleet(replica: &Replica, certificate: &[u8]) -> Result<Option<Peer>> {
    let decoded = Certificate::decode(certificate).map_err(|e| Error::bundle(0, e))?;
    let open = replica.identity.fleet.is_none() && decoded.fleet.is_some();
    Ok(open.then(|| peer_of(&decoded, certificate)))
}

/// Returns whether a fleet key signed a certificate that may follow our own fleet's.
pub(crate) fn may_follow(replica: &Replica, certificate: &[u8]) -> Result<bool> {
    let decoded = Certificate::decode(certificate).map_err(|e| Error::bundle(0, e))?;
    Ok(replica.identity.fleet.is_some() && decoded.fleet.is_some())
}

/// Lists the statements that fleet keys follow each other.
pub(crate) fn successions(replica: &Replica) -> Result<Vec<Vec<u8>>> {
    catalog::reading(replica, |e| succession::statements(&e.db))
}

/// Hears statements that a fleet key follows another one. What has nothing to do with our fleet says nothing.
pub(crate) fn hear_successions(replica: &mut Replica, statements: &[Vec<u8>]) -> Result<()> {
    let mut found = Found::default();
    for bytes in statements {
        let decoded = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
        if decoded.is_fleet_key() {
            found.see(replica, &decoded, bytes)?;
        }
    }
    admit::take(replica, &found).map(|_| ())
}

fn peer_of(certificate: &Certificate<'_>, bytes: &[u8]) -> Peer {
    Peer {
        id: certificate.device(),
        name: certificate.name.into(),
        base: certificate.base,
        public_key: certificate.public_key,
        certificate: bytes.into(),
    }
}

/// Looks at a certificate that came in a session. Returns whether that is all that there is to it: it has given this
/// device a place in a fleet, or it is no device's.
pub(crate) fn look_at(replica: &mut Replica, certificate: &[u8]) -> Result<bool> {
    let decoded = Certificate::decode(certificate).map_err(|e| Error::bundle(0, e))?;
    let mut found = Found::default();
    found.see(replica, &decoded, certificate)?;
    Ok(admit::take(replica, &found)? || decoded.is_fleet_key())
}

/// Returns whether the device of a certificate asks for admission here.
pub(crate) fn is_applicant(replica: &Replica, certificate: &[u8]) -> Result<bool> {
    let decoded = Certificate::decode(certificate).map_err(|e| Error::bundle(0, e))?;
    Ok(admit::applicants(replica)?.iter().any(|asks| asks.id == decoded.device()))
}

/// Lists the certificates that a peer is to hear first.
pub(crate) fn introductions(replica: &Replica, peer: &Peer) -> Result<Vec<Vec<u8>>> {
    let shown = Certificate::decode(&peer.certificate).map_err(|e| Error::bundle(0, e))?;
    catalog::reading(replica, |e| admission::for_peer(e, &shown))
}

/// Signs our proof that we have our key.
pub(crate) fn prove(replica: &Replica, nonce: &[u8; 32], peer: (DeviceId, &[u8; 32])) -> Result<[u8; 64]> {
    Ok(Message::prove(replica.signing_key()?, (replica.identity.id, nonce), peer))
}

/// Stores the certificate of a peer that has proved its key.
pub(crate) fn meet(replica: &mut Replica, peer: &Peer) -> Result<()> {
    transaction::transaction(replica, |e| {
        let certificate = Certificate::decode(&peer.certificate).map_err(|e| Error::bundle(0, e))?;
        if let Ok(trust) = trust::verify_certificate(e, &certificate)? {
            certificates::store(e, &certificate, &peer.certificate, trust)?;
            admission::shown_by_itself(e, &certificate)?;
            // Who is at the other end of a line is not lost.
            membership::record_returned(e, devices::device_number_or_new(e, peer.id)?)?;
        }
        Ok(())
    })
}
