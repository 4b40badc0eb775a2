//! Devices: our own identity, the numbers, ids and names of all, and how each is trusted.

use ed25519_compact::SecretKey;
use packmule_core::model::DeviceId;
use packmule_core::wire::{CERT_MAX, Certificate};
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use crate::engine::error::{Error, Result};
use crate::engine::fleet::succession;
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::{keys, meta, value};
use crate::engine::table::replica::{Identity, Replica};

/// The number of the author of baseline versions, which are older than all others. No device has it.
pub(crate) const BASELINE: i64 = 0;

/// Reads our device's number and identity.
pub(crate) fn identity(db: &Connection) -> Result<(i64, Identity)> {
    let me: i64 = meta::get(db, "me")?.ok_or_else(|| Error::damaged("`_pm_meta` does not say who we are"))?;
    let (id, name, base) =
        db.query_row("SELECT id, name, base FROM _pm_device WHERE n = ?1", [me], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?, row.get(2)?))
        })?;
    let fleet = meta::get::<[u8; 32]>(db, "fleet")?;
    let admitted = fleet.map_or(Ok(false), |fleet| is_admitted(db, me, fleet))?;
    Ok((me, Identity { id: DeviceId(id), name, base, fleet, admitted }))
}

/// Returns whether a device's certificate, or one that vouches for it, carries a fleet's signature.
fn is_admitted(db: &Connection, n: i64, fleet: [u8; 32]) -> Result<bool> {
    let keys = succession::keys_of(db, fleet)?;
    Ok(chain(db, n)?.iter().filter_map(|link| link.issuer).any(|issuer| keys.contains(&issuer)))
}

/// Returns the devices that vouch for a device, from the nearest on.
pub(crate) fn issuers(db: &Connection, n: i64) -> Result<Vec<DeviceId>> {
    Ok(chain(db, n)?.into_iter().skip(1).map(|link| link.id).collect())
}

/// Returns whether an id is this device's, or one that it had before.
pub(crate) fn is_or_was_me(replica: &Replica, id: DeviceId) -> Result<bool> {
    Ok(id == replica.identity.id || issuers(&replica.db, replica.me)?.contains(&id))
}

/// Returns whether a device vouches for another: somebody who had its key has left its identity, as a second history does.
pub(crate) fn has_successor(db: &Connection, n: i64) -> Result<bool> {
    let id = DeviceId(db.query_row("SELECT id FROM _pm_device WHERE n = ?1", [n], |row| row.get(0))?);
    let mut others =
        db.prepare_cached("SELECT n FROM _pm_device WHERE certificate IS NOT NULL AND n <> ?1")?;
    for other in others.query_map([n], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
        if issuers(db, other)?.contains(&id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a certificate says of its device, in a chain of those who vouch for each other.
pub(crate) struct Link {
    pub id: DeviceId,
    pub base: bool,
    /// The key that signed it, if any did.
    pub issuer: Option<[u8; 32]>,
}

/// Returns a device and those that vouch for it.
pub(crate) fn chain(db: &Connection, n: i64) -> Result<Vec<Link>> {
    let mut chain: Vec<Link> = Vec::new();
    let mut next = Some(n);
    while let Some(n) = next.take() {
        let Some(bytes) = certificate(db, n)? else { break };
        let Ok(certificate) = Certificate::read(&bytes) else { break };
        let id = certificate.device();
        if chain.iter().any(|known| known.id == id) {
            break;
        }
        let issuer = certificate.fleet.map(|signed| signed.fleet);
        chain.push(Link { id, base: certificate.base, issuer });
        next = issuer.map_or(Ok(None), |issuer| number_of_key(db, &issuer))?;
    }
    Ok(chain)
}

/// Reads the certificate of a device, if it is here.
pub(crate) fn certificate(db: &Connection, n: i64) -> Result<Option<Vec<u8>>> {
    Ok(value::maybe(db, "SELECT certificate FROM _pm_device WHERE n = ?1", [n])?.flatten())
}

/// Returns the number of the device with this public key.
pub(crate) fn number_of_key(db: &Connection, key: &[u8; 32]) -> Result<Option<i64>> {
    let sql = "SELECT n FROM _pm_device WHERE id = ?1 AND public_key = ?2";
    value::maybe(db, sql, (DeviceId::of_key(key).0, key))
}

/// Makes the database the device with this key; the issuer, if there is one, signs its certificate. `fleet` is the
/// one that it belongs to from now on; without it the fleet stays as it was. The Lamport timestamp stays.
pub(crate) fn become_device(
    db: &Connection,
    key: &SecretKey,
    (name, base): (&str, bool),
    issuer: Option<&SecretKey>,
    fleet: Option<[u8; 32]>,
) -> Result<()> {
    let too_long = |_| Error::Usage("the name is too long".into());
    let mut certificate = Certificate::new(key, name, base).map_err(too_long)?;
    if let Some(issuer) = issuer {
        certificate = certificate.vouched(issuer).map_err(too_long)?;
    }
    let mut buf = [0; CERT_MAX];
    let len = certificate.encode(&mut buf).map_err(too_long)?;
    db.execute(
        "INSERT INTO _pm_device (id, public_key, name, base, certificate, trust) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            certificate.device().0,
            certificate.public_key,
            name,
            base,
            &buf[..len],
            if issuer.is_some() { Trust::ByFleet } else { Trust::Singly },
        ),
    )?;
    meta::set(db, "me", db.last_insert_rowid())?;
    db.execute("INSERT OR IGNORE INTO _pm_device (n, id) VALUES (?1, zeroblob(16))", [BASELINE])?;
    db.execute("INSERT OR IGNORE INTO _pm_meta (k, v) VALUES ('lamport', 0)", [])?;
    if let Some(fleet) = fleet {
        meta::set(db, "fleet", fleet)?;
    }
    Ok(())
}

/// Returns what people and the first column of gathered tables call a device: its name and its short id, so that
/// also boards of the same name have different labels.
pub fn label(id: DeviceId, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name}-{:08x}", id.short()),
        None => id.to_string(),
    }
}

/// Takes a new identity. Returns its key, which stays in a file of another name until the commit. The old identity is
/// a device like others from then on.
pub(crate) fn take_identity(
    replica: &mut Replica,
    name: impl FnOnce(DeviceId) -> String,
    issuer: Option<&SecretKey>,
    fleet: Option<[u8; 32]>,
) -> Result<SecretKey> {
    let path = keys::new_key_path(&keys::device_key_path(&replica.path));
    let _ = std::fs::remove_file(&path); // An earlier attempt may have left it.
    let key = keys::new_device_key(&path, replica.options.random)?;
    let name = name(DeviceId::of_key(&key.public_key()));
    become_device(&replica.db, &key, (&name, replica.identity.base), issuer, fleet)?;
    (replica.me, replica.identity) = identity(&replica.db)?;
    Ok(key)
}

/// Returns the number of a device, if it was ever heard of.
pub(crate) fn device_number(replica: &Replica, id: DeviceId) -> Result<Option<i64>> {
    value::maybe(&replica.db, "SELECT n FROM _pm_device WHERE id = ?1", [id.0])
}

/// Returns the number of a device. One that was never heard of gets a number.
pub(crate) fn device_number_or_new(replica: &Replica, id: DeviceId) -> Result<i64> {
    if let Some(n) = device_number(replica, id)? {
        return Ok(n);
    }
    replica.db.prepare_cached("INSERT INTO _pm_device (id) VALUES (?1)")?.execute([id.0])?;
    Ok(replica.db.last_insert_rowid())
}

/// Returns the id of a device.
pub(crate) fn device_id(replica: &Replica, n: i64) -> Result<DeviceId> {
    let id = replica
        .db
        .prepare_cached("SELECT id FROM _pm_device WHERE n = ?1")?
        .query_row([n], |row| row.get(0))?;
    Ok(DeviceId(id))
}

/// Returns whether a device is known as a base.
pub(crate) fn is_base(replica: &Replica, id: DeviceId) -> Result<bool> {
    let found: Option<i64> =
        value::maybe(&replica.db, "SELECT 1 FROM _pm_device WHERE id = ?1 AND base", [id.0])?;
    Ok(found.is_some())
}

/// Returns the label of a device: name and short id.
pub(crate) fn device_label(replica: &Replica, n: i64) -> Result<String> {
    let (id, name) = replica
        .db
        .prepare_cached("SELECT id, name FROM _pm_device WHERE n = ?1")?
        .query_row([n], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)))?;
    Ok(label(DeviceId(id), name.as_deref()))
}

/// Returns the name of a device, if a certificate of it has come.
pub(crate) fn name(replica: &Replica, id: DeviceId) -> Result<Option<String>> {
    Ok(value::maybe(&replica.db, "SELECT name FROM _pm_device WHERE id = ?1", [id.0])?.flatten())
}

/// Returns the label of a device, or its id if it was never heard of.
pub(crate) fn name_of(replica: &Replica, id: DeviceId) -> Result<String> {
    match device_number(replica, id)? {
        Some(n) => device_label(replica, n),
        None => Ok(id.to_string()),
    }
}

/// Why frames of a device are taken in or not, as `_pm_device.trust` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It was only heard of.
    None = 0,
    /// Somebody here trusts it by its fingerprint.
    Singly = 1,
    /// Our fleet's key signed its certificate.
    ByFleet = 2,
    /// It was trusted, and is not any more.
    Revoked = 3,
}

impl ToSql for Trust {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Trust {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::None, Self::Singly, Self::ByFleet, Self::Revoked];
        let damaged = "`_pm_device` has a row of an unknown trust";
        value::read_number(value, &all.map(|trust| (trust as i64, trust)), damaged)
    }
}

/// Why a device's frames are taken in here, or that they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustedAs {
    /// It is this device.
    ThisDevice,
    /// A person here trusts it by its fingerprint.
    Singly,
    /// Our fleet's key signed its certificate.
    ByFleet,
    /// It is not trusted.
    No,
    /// It was trusted, and is not any more.
    Revoked,
}

impl TrustedAs {
    /// Names it in words, as in `devices --json`.
    pub fn words(self) -> &'static str {
        match self {
            Self::ThisDevice => "this device",
            Self::Singly => "singly",
            Self::ByFleet => "by the fleet",
            Self::No => "no",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(feature = "serde")]
json::as_word!(TrustedAs, words);

/// Who says that a device is revoked, or retired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SaidBy {
    /// The fleet's key: it holds for the whole fleet.
    Fleet,
    /// A person here: it holds here alone.
    Here,
    /// This device, in its log: it holds wherever that has come.
    Device(String),
    /// What holds for this other device holds for it: that one's key issued its certificate.
    Issuer(String),
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its id, which is its fingerprint.
    #[cfg_attr(feature = "serde", serde(rename = "fingerprint"))]
    pub id: DeviceId,
    /// Its name, once a certificate came.
    pub name: Option<String>,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// It is this database.
    pub this: bool,
    /// Why its frames are taken in, or that they are not.
    pub trust: TrustedAs,
    /// How many frames of its shared stream are applied here.
    #[cfg_attr(feature = "serde", serde(rename = "frames_shared"))]
    pub shared: u64,
    /// How many frames of its own stream are applied here.
    #[cfg_attr(feature = "serde", serde(rename = "frames_per_device"))]
    pub own: u64,
    /// It will not come back: its acknowledgements are not needed to compact.
    pub retired: bool,
    /// Who says so.
    pub retired_by: Option<SaidBy>,
    /// Nothing is taken from it.
    pub revoked: bool,
    /// Who says so.
    pub revoked_by: Option<SaidBy>,
    /// Its frames that are set aside since it is revoked, and nobody vouches for them.
    pub set_aside: u64,
    /// Rows of shared tables that changed here by states that it sent: they are its word, and no frame of their author's
    /// came with them.
    pub state_rows: u64,
    /// When it last said what it has, by our clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::time_if_any"))]
    pub heard: Option<i64>,
    /// How many of our frames it has acknowledged, of both streams.
    #[cfg_attr(feature = "serde", serde(rename = "has_of_ours"))]
    pub acknowledged: u64,
    /// How far its clock is off, in milliseconds, if its last writes here show that it is by more than
    /// a day; ahead counts up.
    #[cfg_attr(feature = "serde", serde(rename = "clock_off_ms"))]
    pub clock: Option<i64>,
}
