//! Who we are, whom we trust, and what they are known to have.

use ed25519_compact::SecretKey;
use packmule_core::model::DeviceId;
use packmule_core::wire::{CERT_MAX, Certificate};
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use crate::engine::error::{Error, Result};
use crate::engine::store::{keys, meta, value};
use crate::engine::table::replica::{Identity, Replica};

pub(crate) fn identity(db: &Connection) -> Result<(i64, Identity)> {
    let me: i64 = meta::get(db, "me")?.ok_or_else(|| Error::damaged("`_pm_meta` does not say who we are"))?;
    let (id, name, base) =
        db.query_row("SELECT id, name, base FROM _pm_device WHERE n = ?1", [me], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?, row.get(2)?))
        })?;
    let fleet = meta::get::<[u8; 32]>(db, "fleet")?;
    Ok((me, Identity { id: DeviceId(id), name, base, fleet }))
}

/// Makes the device with this key the one that the database is, with the voucher's word for it. `fleet` is the
/// one that it belongs to from now on; without one that stays as it was, as does the stamp.
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
    // Who wrote what is older than what is remembered.
    db.execute("INSERT OR IGNORE INTO _pm_device (n, id) VALUES (0, zeroblob(16))", [])?;
    db.execute("INSERT OR IGNORE INTO _pm_meta (k, v) VALUES ('lamport', 0)", [])?;
    if let Some(fleet) = fleet {
        meta::set(db, "fleet", fleet)?;
    }
    Ok(())
}

/// What a device is called by people and in a gathered table's first column: its name and half of the
/// short id, so that two boards that nobody named are still told apart.
pub fn label(id: DeviceId, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name}-{:08x}", id.short()),
        None => id.to_string(),
    }
}

/// Takes a new identity, whose key waits in a file of its own for the commit; the old one is a device like
/// others from then on.
pub(crate) fn take_identity(
    replica: &mut Replica,
    name: impl FnOnce(DeviceId) -> String,
    issuer: Option<&SecretKey>,
    fleet: Option<[u8; 32]>,
) -> Result<SecretKey> {
    let path = keys::new_key_path(&keys::device_key_path(&replica.path));
    let _ = std::fs::remove_file(&path); // Of an attempt that was cut short.
    let key = keys::new_device_key(&path, replica.options.random)?;
    let name = name(DeviceId::of_key(&key.public_key()));
    become_device(&replica.db, &key, (&name, replica.identity.base), issuer, fleet)?;
    (replica.me, replica.identity) = identity(&replica.db)?;
    Ok(key)
}

/// The number of a device that is known, if only by hearsay.
pub(crate) fn device_number(replica: &Replica, id: DeviceId) -> Result<Option<i64>> {
    value::maybe(&replica.db, "SELECT n FROM _pm_device WHERE id = ?1", [id.0])
}

/// The number of a device; it becomes known if it was not.
pub(crate) fn device_number_or_new(replica: &Replica, id: DeviceId) -> Result<i64> {
    if let Some(n) = device_number(replica, id)? {
        return Ok(n);
    }
    replica.db.prepare_cached("INSERT INTO _pm_device (id) VALUES (?1)")?.execute([id.0])?;
    Ok(replica.db.last_insert_rowid())
}

/// The id of a device by its number.
pub(crate) fn device_id(replica: &Replica, n: i64) -> Result<DeviceId> {
    let id = replica
        .db
        .prepare_cached("SELECT id FROM _pm_device WHERE n = ?1")?
        .query_row([n], |row| row.get(0))?;
    Ok(DeviceId(id))
}

/// Name and short id of a device, for people and for gathered tables.
pub(crate) fn device_label(replica: &Replica, n: i64) -> Result<String> {
    let (id, name) = replica
        .db
        .prepare_cached("SELECT id, name FROM _pm_device WHERE n = ?1")?
        .query_row([n], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)))?;
    Ok(label(DeviceId(id), name.as_deref()))
}

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

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id, which is its fingerprint.
    pub id: DeviceId,
    /// Its name, once a certificate came.
    pub name: Option<String>,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// It is this database.
    pub this: bool,
    /// Why its frames are taken in: "this device", "singly", "by the fleet", or "no", "revoked".
    pub trust: &'static str,
    /// How many frames of its shared stream are applied here.
    pub shared: u64,
    /// How many frames of its own stream are applied here.
    pub own: u64,
    /// It will not come back: the log does not wait for it.
    pub retired: bool,
    /// When it was last heard of, by our clock.
    pub heard: Option<i64>,
    /// How many of our frames it has acknowledged, of both streams.
    pub acknowledged: u64,
    /// How far its clock is off, in milliseconds, if its last writes here show that it is by more than
    /// a day; ahead counts up.
    pub clock: Option<i64>,
}
