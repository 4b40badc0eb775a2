//! Certificates verified and stored; trust given and taken.

use packmule_core::model::DeviceId;
use packmule_core::wire::Certificate;

use crate::engine::error::{Error, Result, UntrustedDevice};
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// Returns the public key of a device, if it is trusted.
pub(crate) fn trusted_key(replica: &Replica, id: DeviceId) -> Result<Option<[u8; 32]>> {
    value::maybe(
        &replica.db,
        "SELECT public_key FROM _pm_device WHERE id = ?1 AND trust IN (?2, ?3) AND public_key IS NOT NULL",
        (id.0, Trust::Singly, Trust::ByFleet),
    )
}

/// Verifies a certificate. Returns the trust of its device, or why there is none.
pub(crate) fn verify_certificate(
    replica: &Replica,
    certificate: &Certificate<'_>,
) -> Result<std::result::Result<Trust, UntrustedDevice>> {
    let id = certificate.device();
    let known: Option<Trust> =
        value::maybe(&replica.db, "SELECT trust FROM _pm_device WHERE id = ?1", [id.0])?;
    let untrusted = |revoked| UntrustedDevice { id, name: Some(certificate.name.into()), revoked };
    Ok(match known {
        Some(Trust::Revoked) => Err(untrusted(true)),
        Some(trust @ (Trust::Singly | Trust::ByFleet)) => Ok(trust),
        _ => match (certificate.fleet, replica.identity.fleet) {
            (Some(theirs), Some(ours)) if theirs.fleet == ours => Ok(Trust::ByFleet),
            (Some(issuer), _) => {
                // The key of a device is the issuer of the identity under which its second history goes on.
                let trust: Option<Trust> = value::maybe(
                    &replica.db,
                    "SELECT trust FROM _pm_device WHERE public_key = ?1",
                    [issuer.fleet],
                )?;
                match trust {
                    Some(trust @ (Trust::Singly | Trust::ByFleet)) => Ok(trust),
                    other => Err(untrusted(other == Some(Trust::Revoked))),
                }
            }
            _ => Err(untrusted(false)),
        },
    })
}

/// Stores a verified certificate. Returns the number of its device. A certificate that a fleet signed is not replaced
/// by one without a fleet: whoever carries it could have removed that part.
pub(crate) fn store_certificate(
    replica: &Replica,
    certificate: &Certificate<'_>,
    encoded: &[u8],
    trust: Trust,
) -> Result<i64> {
    let n = devices::device_number_or_new(replica, certificate.device())?;
    let old: Option<Vec<u8>> =
        value::maybe(&replica.db, "SELECT certificate FROM _pm_device WHERE n = ?1", [n])?.flatten();
    let rank = |c: &Certificate<'_>| {
        c.fleet.map_or(0, |f| if Some(f.fleet) == replica.identity.fleet { 2 } else { 1 })
    };
    let weaker =
        old.is_some_and(|old| Certificate::decode(&old).is_ok_and(|old| rank(certificate) < rank(&old)));
    if n != replica.me && !weaker {
        replica.db
            .prepare_cached(
                "UPDATE _pm_device SET public_key = ?2, name = ?3, base = ?4, certificate = ?5, trust = ?6 WHERE n = ?1",
            )?
            .execute((n, certificate.public_key, certificate.name, certificate.base, encoded, trust))?;
    }
    Ok(n)
}

/// Returns whether a certificate is stored here, byte for byte: its signatures were checked when it came.
pub(crate) fn is_stored(replica: &Replica, encoded: &[u8]) -> Result<bool> {
    let Ok(certificate) = Certificate::read(encoded) else { return Ok(false) };
    let sql = "SELECT 1 FROM _pm_device WHERE id = ?1 AND certificate = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (certificate.device().0, encoded))?.is_some())
}

/// Finds a device by its name, its label, or enough of its id.
///
/// # Errors
/// [`Error::Device`] if none or several fit.
pub(crate) fn find_device(replica: &Replica, given: &str) -> Result<DeviceId> {
    let mut statement =
        replica.db.prepare_cached("SELECT n, id, name FROM _pm_device WHERE n > 0 ORDER BY n")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, Option<String>>(2)?))
    })?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let lower = given.to_ascii_lowercase();
    let mut found: Vec<_> = all
        .iter()
        .filter(|(_, id, name)| {
            name.as_deref() == Some(given) || devices::label(DeviceId(*id), name.as_deref()) == given
        })
        .collect();
    if found.is_empty() && lower.len() >= 2 {
        found = all.iter().filter(|(_, id, _)| DeviceId(*id).to_string().starts_with(&lower)).collect();
    }
    match found[..] {
        [(_, id, _)] => Ok(DeviceId(*id)),
        _ => Err(Error::Device {
            given: given.into(),
            candidates: found
                .iter()
                .map(|(_, id, name)| {
                    let id = DeviceId(*id);
                    name.as_ref().map_or(id.to_string(), |name| format!("{name} ({id})"))
                })
                .collect(),
        }),
    }
}

/// Trusts one device by its fingerprint, which is its id: its frames are imported from then on.
pub(crate) fn trust(replica: &Replica, id: DeviceId) -> Result<()> {
    let n = devices::device_number_or_new(replica, id)?;
    if n != replica.me {
        replica.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, Trust::Singly))?;
    }
    Ok(())
}

/// Revokes the trust in a device, and in those whose certificates it issued: no more of their frames are imported. What
/// they wrote before stays.
pub(crate) fn revoke(replica: &Replica, id: DeviceId) -> Result<()> {
    let n = devices::device_number_or_new(replica, id)?;
    if n == replica.me {
        return Err(Error::Usage("a device cannot revoke itself".into()));
    }
    let mut revoked = vec![n];
    while let Some(n) = revoked.pop() {
        replica.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, Trust::Revoked))?;
        revoked.extend(issued_by(replica, n)?);
    }
    Ok(())
}

/// Returns the trusted devices whose certificates a device's key issued.
fn issued_by(replica: &Replica, n: i64) -> Result<Vec<i64>> {
    let key: Option<[u8; 32]> =
        value::maybe(&replica.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [n])?.flatten();
    let Some(key) = key else { return Ok(Vec::new()) };
    let mut statement = replica.db.prepare(
        "SELECT n, certificate FROM _pm_device WHERE certificate IS NOT NULL AND trust IN (?2, ?3) AND n <> ?1",
    )?;
    let mut rows = statement.query((replica.me, Trust::Singly, Trust::ByFleet))?;
    let mut issued = Vec::new();
    while let Some(row) = rows.next()? {
        let certificate: Vec<u8> = row.get(1)?;
        let issuer = Certificate::decode(&certificate).ok().and_then(|c| c.fleet);
        if issuer.is_some_and(|issuer| issuer.fleet == key) {
            issued.push(row.get(0)?);
        }
    }
    Ok(issued)
}
