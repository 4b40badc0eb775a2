//! Who we are, whom we trust, and what they are known to have.

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{CERT_MAX, Certificate, Chain};
use rusqlite::{Connection, OptionalExtension};

use super::bundle::{BundleReader, HeaderCheck, Item};
use super::error::{BundleProblem, Error, Result, Stranger};
use super::{Engine, Identity, keys, store};

/// Trust, as `_pm_device.trust` has it; 0 is a device that was only heard of.
pub(crate) mod trust {
    pub const SINGLY: i64 = 1;
    pub const BY_FLEET: i64 = 2;
    pub const REVOKED: i64 = 3;
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

pub(crate) fn identity(db: &Connection) -> Result<(i64, Identity)> {
    let me: i64 =
        store::get(db, "me")?.ok_or_else(|| Error::damaged("`_pm_meta` does not say who we are"))?;
    let (id, name, base) =
        db.query_row("SELECT id, name, base FROM _pm_device WHERE n = ?1", [me], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get(1)?, row.get(2)?))
        })?;
    let fleet = store::get::<[u8; 32]>(db, "fleet")?;
    Ok((me, Identity { id: DeviceId(id), name, base, fleet }))
}

/// Makes the device with this key the one that the database is, with the voucher's word for it. `fleet` is the
/// one that it belongs to from now on; without one that stays as it was, as does the stamp.
pub(crate) fn become_device(
    db: &Connection,
    key: &SecretKey,
    (name, base): (&str, bool),
    voucher: Option<&SecretKey>,
    fleet: Option<[u8; 32]>,
) -> Result<()> {
    let too_long = |_| Error::Usage("the name is too long".into());
    let mut certificate = Certificate::new(key, name, base).map_err(too_long)?;
    if let Some(voucher) = voucher {
        certificate = certificate.vouched(voucher).map_err(too_long)?;
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
            if voucher.is_some() { trust::BY_FLEET } else { trust::SINGLY },
        ),
    )?;
    store::set(db, "me", db.last_insert_rowid())?;
    // Who wrote what is older than what is remembered.
    db.execute("INSERT OR IGNORE INTO _pm_device (n, id) VALUES (0, zeroblob(16))", [])?;
    db.execute("INSERT OR IGNORE INTO _pm_meta (k, v) VALUES ('lamport', 0)", [])?;
    if let Some(fleet) = fleet {
        store::set(db, "fleet", fleet)?;
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

/// Where a stream stands here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamPosition {
    pub seq: u64,
    pub chain: Chain,
}

impl Engine {
    /// Takes a new identity, whose key waits in a file of its own for the commit; the old one is a device like
    /// others from then on.
    pub(crate) fn take_identity(
        &mut self,
        name: impl FnOnce(DeviceId) -> String,
        voucher: Option<&SecretKey>,
        fleet: Option<[u8; 32]>,
    ) -> Result<SecretKey> {
        let path = keys::new_key_path(&keys::device_key_path(&self.path));
        let _ = std::fs::remove_file(&path); // Of an attempt that was cut short.
        let key = keys::new_device_key(&path, self.options.random)?;
        let name = name(DeviceId::of_key(&key.public_key()));
        become_device(&self.db, &key, (&name, self.identity.base), voucher, fleet)?;
        (self.me, self.identity) = identity(&self.db)?;
        Ok(key)
    }

    /// The number of a device that is known, if only by hearsay.
    pub(crate) fn device_number(&self, id: DeviceId) -> Result<Option<i64>> {
        super::value::maybe(&self.db, "SELECT n FROM _pm_device WHERE id = ?1", [id.0])
    }

    /// The number of a device; it becomes known if it was not.
    pub(crate) fn device_number_or_new(&self, id: DeviceId) -> Result<i64> {
        if let Some(n) = self.device_number(id)? {
            return Ok(n);
        }
        self.db.prepare_cached("INSERT INTO _pm_device (id) VALUES (?1)")?.execute([id.0])?;
        Ok(self.db.last_insert_rowid())
    }

    /// The id of a device by its number.
    pub(crate) fn device_id(&self, n: i64) -> Result<DeviceId> {
        let id = self
            .db
            .prepare_cached("SELECT id FROM _pm_device WHERE n = ?1")?
            .query_row([n], |row| row.get(0))?;
        Ok(DeviceId(id))
    }

    /// Name and short id of a device, for people and for gathered tables.
    pub(crate) fn device_label(&self, n: i64) -> Result<String> {
        let (id, name) = self
            .db
            .prepare_cached("SELECT id, name FROM _pm_device WHERE n = ?1")?
            .query_row([n], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)))?;
        Ok(label(DeviceId(id), name.as_deref()))
    }

    /// The public key of a device whose frames are taken in.
    pub(crate) fn trusted_key(&self, id: DeviceId) -> Result<Option<[u8; 32]>> {
        super::value::maybe(
            &self.db,
            "SELECT public_key FROM _pm_device WHERE id = ?1 AND trust IN (1, 2) AND public_key IS NOT NULL",
            [id.0],
        )
    }

    /// Whether a certificate would be trusted: `Err` says why not.
    pub(crate) fn judge(&self, certificate: &Certificate<'_>) -> Result<std::result::Result<i64, Stranger>> {
        let id = certificate.device();
        let known: Option<i64> =
            super::value::maybe(&self.db, "SELECT trust FROM _pm_device WHERE id = ?1", [id.0])?;
        let stranger = |revoked| Stranger { id, name: Some(certificate.name.into()), revoked };
        Ok(match known {
            Some(trust::REVOKED) => Err(stranger(true)),
            Some(trust @ (trust::SINGLY | trust::BY_FLEET)) => Ok(trust),
            _ => match (certificate.fleet, self.identity.fleet) {
                (Some(theirs), Some(ours)) if theirs.fleet == ours => Ok(trust::BY_FLEET),
                (Some(voucher), _) => {
                    // A second history of a device has the word of the first identity's key.
                    let trust: Option<i64> = super::value::maybe(
                        &self.db,
                        "SELECT trust FROM _pm_device WHERE public_key = ?1",
                        [voucher.fleet],
                    )?;
                    match trust {
                        Some(trust @ (trust::SINGLY | trust::BY_FLEET)) => Ok(trust),
                        other => Err(stranger(other == Some(trust::REVOKED))),
                    }
                }
                _ => Err(stranger(false)),
            },
        })
    }

    /// Keeps a certificate that was judged trustworthy. One that a fleet vouches for is not replaced by
    /// one without a fleet: whoever carries it could have taken that part away.
    pub(crate) fn learn(&self, certificate: &Certificate<'_>, encoded: &[u8], trust: i64) -> Result<i64> {
        let n = self.device_number_or_new(certificate.device())?;
        let old: Option<Vec<u8>> =
            super::value::maybe(&self.db, "SELECT certificate FROM _pm_device WHERE n = ?1", [n])?.flatten();
        let rank = |c: &Certificate<'_>| {
            c.fleet.map_or(0, |f| if Some(f.fleet) == self.identity.fleet { 2 } else { 1 })
        };
        let weaker =
            old.is_some_and(|old| Certificate::decode(&old).is_ok_and(|old| rank(certificate) < rank(&old)));
        if n != self.me && !weaker {
            self.db
                .prepare_cached(
                    "UPDATE _pm_device SET public_key = ?2, name = ?3, base = ?4, certificate = ?5, trust = ?6 WHERE n = ?1",
                )?
                .execute((n, certificate.public_key, certificate.name, certificate.base, encoded, trust))?;
        }
        Ok(n)
    }

    /// Up to where a stream is applied here.
    pub(crate) fn position(&self, dev: i64, stream: Stream) -> Result<StreamPosition> {
        let found = self
            .db
            .prepare_cached("SELECT seq, chain FROM _pm_stream WHERE dev = ?1 AND stream = ?2")?
            .query_row((dev, stream.number()), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match found {
            Some((seq, chain)) => StreamPosition { seq, chain: Chain(chain) },
            None => {
                let key: Option<[u8; 32]> =
                    super::value::maybe(&self.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [dev])?
                        .flatten();
                // Without a key nothing of it can have been verified; the chain is not looked at.
                StreamPosition { seq: 0, chain: Chain::start(&key.unwrap_or_default(), stream) }
            }
        })
    }

    pub(crate) fn set_position(&self, dev: i64, stream: Stream, position: StreamPosition) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO _pm_stream (dev, stream, seq, chain) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (dev, stream) DO UPDATE SET seq = excluded.seq, chain = excluded.chain",
            )?
            .execute((dev, stream.number(), position.seq, position.chain.0))?;
        Ok(())
    }

    /// What an author had seen at its last applied group: device numbers and sequence numbers.
    pub(crate) fn context_of(&self, dev: i64, stream: Stream) -> Result<Vec<(i64, u64)>> {
        let mut statement =
            self.db.prepare_cached("SELECT other, seq FROM _pm_context WHERE dev = ?1 AND stream = ?2")?;
        let rows = statement.query_map((dev, stream.number()), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    pub(crate) fn set_context(&self, dev: i64, stream: Stream, other: i64, seq: u64) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO _pm_context (dev, stream, other, seq) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (dev, stream, other) DO UPDATE SET seq = max(seq, excluded.seq)",
            )?
            .execute((dev, stream.number(), other, seq))?;
        Ok(())
    }

    /// Finds a device by its name, or by enough of its id, of which a label's end is the beginning.
    ///
    /// # Errors
    /// [`Error::Device`] if none or several are meant.
    pub fn find_device(&self, given: &str) -> Result<DeviceId> {
        let mut statement =
            self.db.prepare_cached("SELECT n, id, name FROM _pm_device WHERE n > 0 ORDER BY n")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, Option<String>>(2)?))
        })?;
        let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let lower = given.to_ascii_lowercase();
        let mut found: Vec<_> = all
            .iter()
            .filter(|(_, id, name)| {
                name.as_deref() == Some(given) || label(DeviceId(*id), name.as_deref()) == given
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

    /// Trusts one device by its fingerprint, which is its id; its frames are taken in from then on.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn trust(&mut self, id: DeviceId) -> Result<()> {
        self.transaction(|e| {
            let n = e.device_number_or_new(id)?;
            if n != e.me {
                e.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, trust::SINGLY))?;
            }
            Ok(())
        })
    }

    /// Trusts the device that made a bundle, whose header and certificate are signed by the same key;
    /// keeps the certificate.
    ///
    /// # Errors
    /// [`Error::Bundle`] if the bundle is damaged, or not made by whom it says; [`Error::Strangers`] if
    /// its sender's certificate is not in it; [`Error::Usage`] if that is this device itself.
    pub fn trust_sender<R: std::io::Read>(&mut self, bundle: &mut R) -> Result<DeviceInfo> {
        let mut reader = BundleReader::new(std::io::BufReader::new(bundle));
        let mut header = None;
        let mut found: Option<Vec<u8>> = None;
        loop {
            match reader.next_item()? {
                Item::Header(reader) => header = Some(HeaderCheck::of(&reader)),
                Item::Certificate(certificate, bytes)
                    if header.as_ref().is_some_and(|h| h.sender == certificate.device()) =>
                {
                    found = Some(bytes.to_vec());
                }
                Item::End => break,
                _ => {}
            }
        }
        let header = header.ok_or_else(|| Error::bundle(0, BundleProblem::Structure("no header")))?;
        let id = header.sender;
        let bytes =
            found.ok_or_else(|| Error::Strangers(vec![Stranger { id, name: None, revoked: false }]))?;
        let certificate = Certificate::decode(&bytes).map_err(|e| Error::bundle(0, e))?;
        if !header.verify(&certificate.public_key) {
            let who = label(id, Some(certificate.name));
            return Err(Error::bundle(0, BundleProblem::Signature(who)));
        }
        if id == self.identity.id {
            return Err(Error::Usage("that is this device itself, which needs no trust".into()));
        }
        self.transaction(|e| {
            let trust = e.judge(&certificate)?.unwrap_or(trust::SINGLY);
            e.learn(&certificate, &bytes, trust)?;
            // A certificate that was there and stays can be of a device that was not trusted.
            let n = e.device_number_or_new(id)?;
            e.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, trust))?;
            Ok(())
        })?;
        let known = self.devices()?.into_iter().find(|device| device.id == id);
        known.ok_or_else(|| Error::damaged("a device that was just written is not there"))
    }

    /// Takes in no more frames of a device, nor of those that it vouches for; what they wrote before stays.
    ///
    /// # Errors
    /// [`Error::Usage`] if the device is this one, [`Error::Sqlite`].
    pub fn revoke(&mut self, id: DeviceId) -> Result<()> {
        self.transaction(|e| {
            let n = e.device_number_or_new(id)?;
            if n == e.me {
                return Err(Error::Usage("a device cannot revoke itself".into()));
            }
            let mut revoked = vec![n];
            while let Some(n) = revoked.pop() {
                e.db.execute("UPDATE _pm_device SET trust = ?2 WHERE n = ?1", (n, trust::REVOKED))?;
                revoked.extend(e.vouched_for_by(n)?);
            }
            Ok(())
        })
    }

    /// The trusted devices whose certificates have the word of this device's key, and nobody else's.
    fn vouched_for_by(&self, n: i64) -> Result<Vec<i64>> {
        let key: Option<[u8; 32]> =
            super::value::maybe(&self.db, "SELECT public_key FROM _pm_device WHERE n = ?1", [n])?.flatten();
        let Some(key) = key else { return Ok(Vec::new()) };
        let mut statement = self.db.prepare(
            "SELECT n, certificate FROM _pm_device WHERE certificate IS NOT NULL AND trust IN (1, 2) AND n <> ?1",
        )?;
        let mut rows = statement.query([self.me])?;
        let mut vouched = Vec::new();
        while let Some(row) = rows.next()? {
            let certificate: Vec<u8> = row.get(1)?;
            let voucher = Certificate::decode(&certificate).ok().and_then(|c| c.fleet);
            if voucher.is_some_and(|voucher| voucher.fleet == key) {
                vouched.push(row.get(0)?);
            }
        }
        Ok(vouched)
    }

    /// All devices that are known, this one first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        self.reading(|e| {
            let clocks = e.clocks()?;
            let mut statement = e.db.prepare_cached(
                "SELECT n, id, name, base, trust, heard, retired,
                    (SELECT seq FROM _pm_stream s WHERE s.dev = d.n AND stream = 0),
                    (SELECT seq FROM _pm_stream s WHERE s.dev = d.n AND stream = 1),
                    (SELECT sum(seq) FROM _pm_ack a WHERE a.peer = d.n AND a.dev = ?1)
                 FROM _pm_device d WHERE n > 0 ORDER BY n <> ?1, name, id",
            )?;
            let rows = statement.query_map([e.me], |row| {
                let n: i64 = row.get(0)?;
                let this = n == e.me;
                Ok(DeviceInfo {
                    id: DeviceId(row.get(1)?),
                    name: row.get(2)?,
                    base: row.get(3)?,
                    this,
                    trust: match row.get::<_, i64>(4)? {
                        _ if this => "this device",
                        trust::SINGLY => "singly",
                        trust::BY_FLEET => "by the fleet",
                        trust::REVOKED => "revoked",
                        _ => "no",
                    },
                    heard: row.get(5)?,
                    retired: row.get(6)?,
                    shared: row.get::<_, Option<u64>>(7)?.unwrap_or(0),
                    own: row.get::<_, Option<u64>>(8)?.unwrap_or(0),
                    acknowledged: row.get::<_, Option<u64>>(9)?.unwrap_or(0),
                    clock: if this { clocks.ours } else { clocks.others.get(&n).copied() },
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}
