//! Certificates read with those by which they are trusted, and stored; which peers have this device's own. What a base has
//! gathered of a device goes along with its name.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{CERT_MAX, Certificate};
use sha2::{Digest, Sha256};

use crate::engine::apply::vouched;
use crate::engine::error::{Error, Result, UntrustedDevice};
use crate::engine::exchange::transaction;
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::{admission, membership, open, peers, positions, trust};
use crate::engine::show::triggers;
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::def::DEVICE_COLUMN;
use crate::engine::table::known::State;
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
/// It may have been set back since, or a copy that is not known yet may read what is for it: who lacks the certificate
/// waits, and what it says next makes this false. Of a device that was copied nothing is taken for granted.
pub(crate) fn peer_has_own(replica: &Replica, id: DeviceId) -> Result<bool> {
    let Some(peer) = devices::device_number(replica, id)? else { return Ok(false) };
    let Some(since) = own_since(replica)? else { return Ok(false) };
    if peers::was_copied(replica, id)? {
        return Ok(false);
    }
    for (stream, since) in Stream::ALL.into_iter().zip(since) {
        if membership::has(replica, peer, replica.me, stream)? > since {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stores a verified certificate. The rows that are gathered here of its device stand under its new name then.
pub(crate) fn store(
    replica: &Replica,
    certificate: &Certificate<'_>,
    bytes: &[u8],
    trust: Trust,
) -> Result<()> {
    let known = devices::device_number(replica, certificate.device())?;
    let before = known.map(|n| devices::device_label(replica, n)).transpose()?;
    let n = trust::store_certificate(replica, certificate, bytes, trust)?;
    let after = devices::device_label(replica, n)?;
    match before {
        Some(before) if before != after => relabel(replica, &before, &after),
        _ => Ok(()),
    }
}

/// Stores the certificate of a revoked device, and counts what those here had seen of it.
pub(crate) fn store_revoked(replica: &Replica, certificate: &Certificate<'_>, bytes: &[u8]) -> Result<()> {
    if trust::store_revoked(replica, certificate, bytes)? { vouched::recount(replica) } else { Ok(()) }
}

/// Stores a certificate that is trusted, or of a revoked device. Returns the device if it is neither.
pub(crate) fn store_verified(
    replica: &Replica,
    certificate: &Certificate<'_>,
    bytes: &[u8],
) -> Result<Option<UntrustedDevice>> {
    match trust::verify_certificate(replica, certificate)? {
        Ok(trust) => store(replica, certificate, bytes, trust)?,
        Err(untrusted) if untrusted.revoked => store_revoked(replica, certificate, bytes)?,
        Err(untrusted) => return Ok(Some(untrusted)),
    }
    Ok(None)
}

/// Stores a certificate of a bundle, unless it is not trusted. What its sender shows of itself need not be kept for it any
/// longer.
pub(crate) fn take(
    replica: &Replica,
    certificate: &Certificate<'_>,
    bytes: &[u8],
    sender: Option<DeviceId>,
) -> Result<()> {
    store_verified(replica, certificate, bytes)?;
    if sender == Some(certificate.device()) {
        admission::shown_by_itself(replica, certificate)?;
    }
    Ok(())
}

/// Stores a certificate of a snapshot, whose maker answers for the devices of other fleets, or of none.
pub(crate) fn store_answered_for(
    replica: &Replica,
    certificate: &Certificate<'_>,
    bytes: &[u8],
) -> Result<()> {
    match store_verified(replica, certificate, bytes)? {
        Some(_) => store(replica, certificate, bytes, Trust::Singly),
        None => Ok(()),
    }
}

/// Gives the gathered rows of a device another label.
fn relabel(replica: &Replica, before: &str, after: &str) -> Result<()> {
    for table in catalog::tables(replica).iter().filter(|table| table.state == State::Gathered) {
        let name = &table.sql_name;
        let sql = format!("UPDATE {name} SET {DEVICE_COLUMN} = ?2 WHERE {DEVICE_COLUMN} = ?1");
        triggers::firing(replica, table, || {
            Ok(replica.db.prepare_cached(&sql)?.execute((before, after))?)
        })?;
    }
    Ok(())
}

/// Gives this device another name. Where others know it by a signature, the name is asked for, and the old one stays
/// until that is given. Returns whether the name counts at once.
pub(crate) fn rename(replica: &mut Replica, name: &str) -> Result<bool> {
    let key = replica.signing_key()?.clone();
    let at_once = transaction::transaction(replica, |e| {
        let missing = || Error::damaged("our certificate is missing");
        let own = devices::certificate(&e.db, e.me)?.ok_or_else(missing)?;
        let own = Certificate::decode(&own).map_err(|e| Error::damaged(format!("our certificate: {e}")))?;
        let asked = admission::own_request(e)?;
        let asked = asked.as_deref().and_then(|asked| Certificate::decode(asked).ok());
        if own.name == name {
            admission::withdraw_own_request(e)?;
            return Ok(true);
        }
        if asked.is_some_and(|asked| asked.name == name) {
            return Ok(false);
        }
        let serial = asked.map_or(own.serial, |asked| asked.serial.max(own.serial)).saturating_add(1);
        open::refuse_unreadable(name)?;
        let wrong = |_| Error::Usage("a device can be renamed 127 times, and this one was".into());
        let certificate = Certificate::numbered(&key, name, own.base, serial).map_err(wrong)?;
        let mut buf = [0; CERT_MAX];
        let len = certificate.encode(&mut buf).map_err(wrong)?;
        if own.fleet.is_some() {
            admission::set_own_request(e, &buf[..len])?;
            return Ok(false);
        }
        e.db.execute(
            "UPDATE _pm_device SET name = ?2, certificate = ?3 WHERE n = ?1",
            (e.me, name, &buf[..len]),
        )?;
        Ok(true)
    })?;
    (replica.me, replica.identity) = devices::identity(&replica.db)?;
    Ok(at_once)
}
