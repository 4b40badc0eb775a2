//! Certificates verified and stored; trust given and taken.

use std::collections::BTreeSet;

use packmule_core::model::DeviceId;
use packmule_core::wire::Certificate;

use crate::engine::error::{Error, Result, UntrustedDevice};
use crate::engine::fleet::devices::{self, SaidBy, Trust};
use crate::engine::fleet::{revocation, succession};
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Returns the public key of a device, if it is trusted.
pub(crate) fn trusted_key(replica: &Replica, id: DeviceId) -> Result<Option<[u8; 32]>> {
    value::maybe(
        &replica.db,
        "SELECT public_key FROM _pm_device WHERE id = ?1 AND trust IN (?2, ?3) AND public_key IS NOT NULL",
        (id.0, Trust::Singly, Trust::ByFleet),
    )
}

/// Returns the public key of an author: of a device that is trusted, or was. Who is revoked still signed what others
/// had taken in before.
pub(crate) fn author_key(replica: &Replica, id: DeviceId) -> Result<Option<[u8; 32]>> {
    value::maybe(
        &replica.db,
        "SELECT public_key FROM _pm_device WHERE id = ?1 AND trust IN (?2, ?3, ?4) AND public_key IS NOT NULL",
        (id.0, Trust::Singly, Trust::ByFleet, Trust::Revoked),
    )
}

/// Stores the certificate of a revoked device, by which what others had taken in of it is verified. Returns whether the
/// device is new among the revoked.
pub(crate) fn store_revoked(
    replica: &Replica,
    certificate: &Certificate<'_>,
    encoded: &[u8],
) -> Result<bool> {
    let n = store_certificate(replica, certificate, encoded, Trust::Revoked)?;
    Ok(replica.db.execute("INSERT OR IGNORE INTO _pm_revocation (dev) VALUES (?1)", [n])? > 0)
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
    if is_of_other_role(replica, certificate)? {
        return Ok(Err(untrusted(false)));
    }
    Ok(match known {
        _ if certificate.is_fleet_key() => Err(untrusted(false)),
        Some(Trust::Revoked) => Err(untrusted(true)),
        Some(trust @ (Trust::Singly | Trust::ByFleet)) => Ok(trust),
        _ => match (certificate.fleet, replica.identity.fleet) {
            (Some(theirs), Some(ours)) if succession::is_of_fleet(&replica.db, theirs.fleet, ours)? => {
                Ok(Trust::ByFleet)
            }
            (Some(issuer), _) => {
                // The key of a device is the issuer of the identity under which its second history goes on.
                let trust: Option<Trust> = value::maybe(
                    &replica.db,
                    "SELECT trust FROM _pm_device WHERE id = ?1 AND public_key = ?2",
                    (DeviceId::of_key(&issuer.fleet).0, issuer.fleet),
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

/// Returns whether a device is a base by its fleet's word: the certificate that the fleet key signed says so, and every
/// one by which the device goes on under a new identity. Where this device is in no fleet, whoever trusts a device singly
/// trusts what that says of itself.
pub(crate) fn is_base_by_fleet(replica: &Replica, dev: i64) -> Result<bool> {
    let keys = fleet_keys(replica)?;
    for link in devices::chain(&replica.db, dev)? {
        match link.issuer {
            _ if !link.base => return Ok(false),
            Some(issuer) if keys.contains(&issuer) => return Ok(true),
            Some(_) => {}
            None => return Ok(replica.identity.fleet.is_none()),
        }
    }
    Ok(false)
}

/// Returns the public keys of our fleet: its key, and those that are joined with it. None where this device is in none.
pub(crate) fn fleet_keys(replica: &Replica) -> Result<Vec<[u8; 32]>> {
    replica.identity.fleet.map_or(Ok(Vec::new()), |fleet| succession::keys_of(&replica.db, fleet))
}

/// Returns whether a certificate is for another role than that of the device that issued it: a second history has the role
/// of the first.
pub(crate) fn is_of_other_role(replica: &Replica, certificate: &Certificate<'_>) -> Result<bool> {
    let Some(issuer) = certificate.fleet else { return Ok(false) };
    let sql = "SELECT 1 FROM _pm_device WHERE id = ?1 AND public_key = ?2 AND base <> ?3";
    Ok(replica.db.prepare_cached(sql)?.exists((
        DeviceId::of_key(&issuer.fleet).0,
        issuer.fleet,
        certificate.base,
    ))?)
}

/// Stores a verified certificate. Returns the number of its device. A certificate that a fleet signed is not replaced
/// by one without a fleet: whoever carries it could have removed that part. Nor does a device by its own word get another
/// role, or out of reach of whoever vouches for it.
pub(crate) fn store_certificate(
    replica: &Replica,
    certificate: &Certificate<'_>,
    encoded: &[u8],
    trust: Trust,
) -> Result<i64> {
    let n = devices::device_number_or_new(replica, certificate.device())?;
    let old = devices::certificate(&replica.db, n)?;
    let keys = fleet_keys(replica)?;
    let rank = |c: &Certificate<'_>| c.fleet.map_or(0, |f| if keys.contains(&f.fleet) { 2 } else { 1 });
    let of = |c: &Certificate<'_>| (rank(c), c.serial);
    let weaker = match old.as_deref().map(Certificate::read) {
        Some(Ok(old)) if of(certificate) < of(&old) => true,
        Some(Ok(old)) if rank(certificate) < 2 => {
            let vouched = old.fleet.map(|issuer| devices::number_of_key(&replica.db, &issuer.fleet));
            let stays = vouched.transpose()?.flatten().is_some();
            certificate.base != old.base
                || stays && certificate.fleet.map(|f| f.fleet) != old.fleet.map(|f| f.fleet)
        }
        _ => false,
    };
    if n != replica.me && !weaker {
        replica.db
            .prepare_cached(
                "UPDATE _pm_device SET public_key = ?2, name = ?3, base = ?4, certificate = ?5, trust = ?6 WHERE n = ?1",
            )?
            .execute((n, certificate.public_key, certificate.name, certificate.base, encoded, trust))?;
        if old.is_none() {
            name_many_successors(replica, certificate)?;
        }
        if rank(certificate) == 2 {
            request_is_met(replica, certificate)?;
        }
    }
    Ok(n)
}

/// Says that a device vouches for several others. Each copy of its card that was written to makes one, and all of them are
/// taken in, since who met which of them first must decide nothing; but who has stolen the key can do the same.
fn name_many_successors(replica: &Replica, certificate: &Certificate<'_>) -> Result<()> {
    let Some(issuer) = certificate.fleet else { return Ok(()) };
    let Some(dev) = devices::number_of_key(&replica.db, &issuer.fleet)? else { return Ok(()) };
    let mut successors = 0;
    let mut all =
        replica.db.prepare_cached("SELECT certificate FROM _pm_device WHERE certificate IS NOT NULL")?;
    let mut rows = all.query([])?;
    // Two are enough: of any number that a stolen key makes, not all are looked at for each.
    while successors < 2
        && let Some(row) = rows.next()?
    {
        let bytes: Vec<u8> = row.get(0)?;
        let by = Certificate::read(&bytes).ok().and_then(|c| c.fleet).map(|by| by.fleet);
        successors += u64::from(by == Some(issuer.fleet));
    }
    drop(rows);
    if successors < 2 {
        return Ok(());
    }
    let label = devices::device_label(replica, dev)?;
    let what = format!(
        "{label} vouches for more than one other identity. Every copy of its card that was written to makes one: if \
         nobody has copied its card so often, its key is stolen: `packmule revoke` it, and these go with it"
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Returns where in `_pm_meta` the request of another device is.
pub(crate) fn request_of(id: DeviceId) -> String {
    format!("request {id}")
}

/// Forgets the request of a device whose certificate our fleet has signed since.
fn request_is_met(replica: &Replica, certificate: &Certificate<'_>) -> Result<()> {
    let key = request_of(certificate.device());
    let kept: Option<Vec<u8>> = meta::get(&replica.db, &key)?;
    if kept.is_some_and(|kept| Certificate::read(&kept).is_ok_and(|kept| kept.serial <= certificate.serial)) {
        meta::forget(&replica.db, &key)?;
    }
    Ok(())
}

/// Returns whether a certificate is stored here, byte for byte: its signatures were checked when it came.
pub(crate) fn is_stored(replica: &Replica, encoded: &[u8]) -> Result<bool> {
    let Ok(certificate) = Certificate::read(encoded) else { return Ok(false) };
    let sql = "SELECT 1 FROM _pm_device WHERE id = ?1 AND certificate = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (certificate.device().0, encoded))?.is_some())
}

/// So many digits are enough of an id. Fewer are a name alone: boards are called `e6` or `b12`.
const ID_LEAST: usize = 4;

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
    // 32 digits are always an id: a name that looks like one is hit in nobody's stead.
    if let Ok(id) = lower.parse::<DeviceId>() {
        let known = all.iter().any(|(_, known, _)| *known == id.0);
        return if known {
            Ok(id)
        } else {
            Err(Error::Device { given: given.into(), candidates: Vec::new() }.into())
        };
    }
    // A name that is the beginning of another one's id is not hit in its stead either: nobody can say who is meant.
    let begins = |id: &[u8; 16]| lower.len() >= ID_LEAST && DeviceId(*id).to_string().starts_with(&lower);
    let found: Vec<_> = all
        .iter()
        .filter(|(_, id, name)| {
            name.as_deref() == Some(given)
                || devices::label(DeviceId(*id), name.as_deref()) == given
                || begins(id)
        })
        .collect();
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
        }
        .into()),
    }
}

/// Refuses to trust a device that is revoked.
///
/// # Errors
/// [`Error::Revoked`] if it is.
pub(crate) fn refuse_revoked(replica: &Replica, id: DeviceId) -> Result<()> {
    let Some(n) = devices::device_number(replica, id)?.filter(|n| *n != replica.me) else { return Ok(()) };
    match revocation::revoked(replica)?.remove(&n) {
        Some(by) => {
            Err(Error::Revoked { device: devices::device_label(replica, n)?, id, fleet: by == SaidBy::Fleet }
                .into())
        }
        None => Ok(()),
    }
}

/// Trusts one device by its fingerprint, which is its id: its frames are imported from then on.
pub(crate) fn trust(replica: &Replica, id: DeviceId) -> Result<()> {
    refuse_revoked(replica, id)?;
    let n = devices::device_number_or_new(replica, id)?;
    if n != replica.me {
        replica.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, Trust::Singly))?;
    }
    Ok(())
}

/// Brings the trust in each device in step with what is said. Returns those that are revoked now and were not before.
pub(crate) fn refresh(replica: &Replica) -> Result<Vec<i64>> {
    let said: BTreeSet<i64> = revocation::revoked(replica)?.into_keys().collect();
    let mut new = Vec::new();
    let mut restored = false;
    for n in said.iter().copied().filter(|n| *n != replica.me) {
        if !revocation::is_revoked(replica, n)? {
            replica.db.execute(
                "INSERT INTO _pm_revocation (dev, was) SELECT n, trust FROM _pm_device WHERE n = ?1
                 ON CONFLICT (dev) DO UPDATE SET was = excluded.was",
                [n],
            )?;
            replica.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, Trust::Revoked))?;
            new.push(n);
        }
    }
    let mut all = replica.db.prepare("SELECT n FROM _pm_device WHERE trust = ?1")?;
    for n in all.query_map([Trust::Revoked], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
        if !said.contains(&n) {
            restore(replica, n)?;
            restored = true;
        }
    }
    if restored || !new.is_empty() {
        // What their tables are counts no more, or again.
        catalog::doubt_schema(replica)?;
    }
    Ok(new)
}

/// Gives a device that is no longer revoked the trust that it had; one that was first heard of when it was revoked
/// has that of its certificate.
fn restore(replica: &Replica, n: i64) -> Result<()> {
    let set = |trust: Trust| replica.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, trust));
    let was: Option<Trust> = value::maybe(&replica.db, "SELECT was FROM _pm_revocation WHERE dev = ?1", [n])?;
    let was = was.unwrap_or(Trust::None);
    set(was)?;
    let certificate = devices::certificate(&replica.db, n)?;
    if let (Trust::None, Some(Ok(certificate))) = (was, certificate.as_deref().map(Certificate::read))
        && let Ok(trust) = verify_certificate(replica, &certificate)?
    {
        set(trust)?;
    }
    Ok(())
}
