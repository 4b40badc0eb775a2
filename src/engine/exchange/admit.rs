//! Admission by whoever has the fleet key: requests found in bundles and databases, signed, and sent back.
//!
//! **Invariant.** Only the fleet key makes members, and only of what the device itself has signed: a name, and the
//! role that it asks for. So a request can come by any carrier, and from anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use packmule_core::model::DeviceId;
use packmule_core::wire::{CERT_MAX, Certificate, RecordKind};

use crate::engine::error::{Error, Result, UntrustedDevice};
use crate::engine::exchange::{certificates, export, transaction};
use crate::engine::fleet::admission::{self, Applicant};
use crate::engine::fleet::devices::{self, Trust};
use crate::engine::fleet::{succession, trust};
use crate::engine::log::bundle::{BundleReader, Item};
use crate::engine::store::keys::FleetKey;
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Which requests are to be signed.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitOptions<'a> {
    /// Those that ask to be a base too.
    pub base: bool,
    /// These devices alone; if there are none, all.
    pub only: &'a [DeviceId],
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// The fleet key has signed it.
    Admitted,
    /// It was not among those that were asked for.
    NotPicked,
    /// It asks to be a base, and only boards were to be admitted.
    AsksToBeBase,
    /// Another device of the fleet has this name, or asks for it as well.
    NameInUse(DeviceId),
    /// The device is revoked.
    Revoked,
    /// It was signed before.
    Member,
}

/// The requests that were found, and what is known of the fleet.
pub struct Admission<'a> {
    key: &'a FleetKey,
    /// The devices that the key has signed: serial, name, and whether it is a base.
    members: BTreeMap<DeviceId, (u8, String, bool)>,
    revoked: BTreeSet<DeviceId>,
    /// Devices that will not come back: their names are free.
    retired: BTreeSet<DeviceId>,
    requests: BTreeMap<DeviceId, Vec<u8>>,
    /// Databases of another fleet are admitted too.
    anew: bool,
}

/// What was signed, and what was not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Admitted {
    /// Each request, with what became of it.
    pub requests: Vec<(Applicant, Outcome)>,
    /// The signed certificates.
    certificates: BTreeMap<DeviceId, Vec<u8>>,
    /// The statements that the key follows others.
    successions: Vec<Vec<u8>>,
    /// A database that belongs to another fleet takes it too.
    anew: bool,
}

impl<'a> Admission<'a> {
    /// Begins without any request.
    pub fn new(key: &'a FleetKey) -> Self {
        let (members, requests) = (BTreeMap::new(), BTreeMap::new());
        Self { key, members, requests, revoked: BTreeSet::new(), retired: BTreeSet::new(), anew: false }
    }

    /// Admits also the databases that belong to another fleet, whose key is lost or stolen: each for itself, since
    /// whoever has the database and its key decides where it belongs.
    #[must_use]
    pub fn anew(mut self) -> Self {
        self.anew = true;
        self
    }

    /// Looks for requests in a bundle, and for members of the fleet. Returns who asks in it.
    ///
    /// # Errors
    /// [`Error::Bundle`] if it is damaged, [`Error::Stream`] if it cannot be read.
    pub fn read(&mut self, bundle: impl Read) -> Result<Vec<DeviceId>, Error> {
        let mut reader = BundleReader::new(bundle);
        let mut found: Vec<Vec<u8>> = Vec::new();
        loop {
            match reader.next_item()? {
                Item::Certificate(_, bytes) => found.push(bytes.to_vec()),
                Item::End | Item::Seal(..) => break,
                _ => {}
            }
        }
        let mut asks = Vec::new();
        for bytes in found {
            asks.extend(self.see(&bytes));
        }
        Ok(asks)
    }

    /// Looks at a certificate. Returns its device, if it is a request.
    fn see(&mut self, bytes: &[u8]) -> Option<DeviceId> {
        let certificate = Certificate::decode(bytes).ok()?;
        let id = certificate.device();
        match certificate.fleet {
            Some(signed) if self.key.public_keys().contains(&signed.fleet) => {
                let Certificate { serial, name, base, .. } = certificate;
                if self.members.get(&id).is_none_or(|known| known.0 < serial) {
                    self.members.insert(id, (serial, name.into(), base));
                }
                None
            }
            Some(_) => None,
            None => {
                let serial = |bytes: &Vec<u8>| Certificate::decode(bytes).map_or(0, |c| c.serial);
                if self.requests.get(&id).is_none_or(|known| serial(known) < certificate.serial) {
                    self.requests.insert(id, bytes.to_vec());
                }
                Some(id)
            }
        }
    }

    /// Makes a request of a certificate that another fleet has signed.
    fn ask_anew(&mut self, bytes: &[u8]) -> Result<()> {
        let mut asks = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
        asks.fleet = None;
        let mut buf = [0; CERT_MAX];
        let len = asks.encode(&mut buf).map_err(|_| Error::damaged("a certificate without room"))?;
        self.see(&buf[..len]);
        Ok(())
    }

    /// Signs what is to be signed.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a certificate has no room.
    pub fn sign(&self, options: &AdmitOptions<'_>) -> Result<Admitted, Error> {
        let mut admitted =
            Admitted { successions: self.key.1.clone(), anew: self.anew, ..Admitted::default() };
        for (id, bytes) in &self.requests {
            let Ok(certificate) = Certificate::decode(bytes) else { continue };
            let outcome = self.outcome(&certificate, options);
            if outcome == Outcome::Admitted {
                let mut buf = [0; CERT_MAX];
                let signed = certificate.vouched(&self.key.0).and_then(|signed| signed.encode(&mut buf));
                let len = signed.map_err(|_| Error::damaged("a certificate without room"))?;
                admitted.certificates.insert(*id, buf[..len].to_vec());
            }
            admitted.requests.push((admission::applicant(&certificate), outcome));
        }
        Ok(admitted)
    }

    fn outcome(&self, certificate: &Certificate<'_>, options: &AdmitOptions<'_>) -> Outcome {
        let id = certificate.device();
        let member = self.members.get(&id);
        if self.revoked.contains(&id) {
            return Outcome::Revoked;
        }
        if member.is_some_and(|(serial, ..)| *serial >= certificate.serial) {
            return Outcome::Member;
        }
        if !options.only.is_empty() && !options.only.contains(&id) {
            return Outcome::NotPicked;
        }
        if certificate.base && !options.base && !member.is_some_and(|(.., base)| *base) {
            return Outcome::AsksToBeBase;
        }
        match self.has_name(certificate.name, id, options) {
            Some(other) => Outcome::NameInUse(other),
            None => Outcome::Admitted,
        }
    }

    /// Finds another device that has this name, or asks for it as well.
    fn has_name(&self, name: &str, id: DeviceId, options: &AdmitOptions<'_>) -> Option<DeviceId> {
        let free = |other: &DeviceId| self.retired.contains(other) || self.revoked.contains(other);
        let member = self.members.iter().find(|(other, m)| **other != id && m.1 == name && !free(other));
        let asks = || {
            self.requests.iter().find(|(other, bytes)| {
                let picked = options.only.is_empty() || options.only.contains(other);
                let asks = **other != id && picked && !free(other) && !self.members.contains_key(other);
                asks && Certificate::decode(bytes).is_ok_and(|c| c.name == name)
            })
        };
        member.map(|(other, _)| *other).or_else(|| asks().map(|(other, _)| *other))
    }
}

impl Admitted {
    /// Returns the devices whose certificates were signed.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.certificates.keys().copied()
    }

    /// Writes the certificates of these devices as a bundle that the fleet key signs, for any carrier. The last record
    /// is returned and is for the caller to write, once all before it is durable.
    ///
    /// # Errors
    /// [`Error::Stream`].
    pub fn write(
        &self,
        to: &mut dyn Write,
        key: &FleetKey,
        of: &BTreeSet<DeviceId>,
        wall: i64,
    ) -> Result<Vec<u8>, Error> {
        let sender = (&key.0, DeviceId::of_key(&key.public_key()));
        let mut out = export::begin_bundle(to, sender, wall)?;
        for (_, bytes) in self.certificates.iter().filter(|(id, _)| of.contains(id)) {
            out.record(RecordKind::Certificate, bytes)?;
        }
        for statement in &key.1 {
            out.record(RecordKind::Certificate, statement)?;
        }
        let (footer, _) = export::footer(out)?;
        Ok(footer)
    }
}

/// Adds the requests that a database has heard of, its own too, and what it knows of the fleet.
///
/// # Errors
/// [`Error::Usage`] if the database belongs to another fleet.
pub(crate) fn read_database(admission: &mut Admission<'_>, replica: &Replica) -> Result<()> {
    catalog::reading(replica, |e| {
        let keys = trust::fleet_keys(e)?;
        let of_other = !keys.is_empty() && admission.key.public_keys().iter().all(|key| !keys.contains(key));
        if of_other && !admission.anew {
            return Err(Error::Usage(
                "the database belongs to another fleet than this key. If that fleet's key is lost or stolen: with \
                 --anew the database itself goes over to this key's fleet, and so must every other device's"
                    .into(),
            ).into());
        }
        let issuers = devices::issuers(&e.db, e.me)?;
        let mut statement =
            e.db.prepare_cached("SELECT n, id, trust, retired <> 0, certificate FROM _pm_device")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (n, id): (i64, DeviceId) = (row.get(0)?, DeviceId(row.get(1)?));
            let (trust, retired): (Trust, bool) = (row.get(2)?, row.get(3)?);
            if trust == Trust::Revoked {
                admission.revoked.insert(id);
            }
            if retired {
                admission.retired.insert(id);
            }
            let certificate: Option<Vec<u8>> = row.get(4)?;
            let asks = trust == Trust::Singly && !retired || n == e.me || issuers.contains(&id);
            let own = n == e.me || issuers.contains(&id);
            if let Some(bytes) = certificate.filter(|_| asks || trust == Trust::ByFleet) {
                let by = Certificate::read(&bytes).ok().and_then(|c| c.fleet);
                if of_other && own && by.is_some_and(|by| keys.contains(&by.fleet)) {
                    admission.ask_anew(&bytes)?;
                } else {
                    admission.see(&bytes);
                }
            }
        }
        for bytes in admission::requests(e)?.iter().chain(&admission::own_request(e)?) {
            admission.see(bytes);
        }
        Ok(())
    })
}

/// Takes what was signed into a database: its own certificate, and those of others, which it sends to them.
pub(crate) fn take_admitted(replica: &mut Replica, admitted: &Admitted) -> Result<()> {
    if admitted.anew {
        change_fleet(replica, admitted)?;
    }
    follow(replica, &admitted.successions)?;
    let mut found = Found { successions: admitted.successions.clone(), ..Found::default() };
    for bytes in admitted.certificates.values() {
        let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
        found.see(replica, &certificate, bytes)?;
    }
    take(replica, &found)?;
    transaction::transaction(replica, |e| {
        for bytes in admitted.certificates.values() {
            let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
            if certificate.device() != e.identity.id {
                certificates::store(e, &certificate, bytes, Trust::ByFleet)?;
                admission::keep_for(e, certificate.device(), bytes)?;
            }
        }
        Ok(())
    })
}

/// Goes over to the fleet whose key has signed this database's own certificate, if it belongs to another one.
fn change_fleet(replica: &mut Replica, admitted: &Admitted) -> Result<()> {
    transaction::transaction(replica, |e| {
        let (keys, issuers) = (trust::fleet_keys(e)?, devices::issuers(&e.db, e.me)?);
        for (id, bytes) in &admitted.certificates {
            let certificate = Certificate::decode(bytes).map_err(|error| Error::bundle(0, error))?;
            let other = certificate.fleet.is_some_and(|by| !keys.contains(&by.fleet));
            if !keys.is_empty() && other && (*id == e.identity.id || issuers.contains(id)) {
                admission::change_fleet(e, &certificate, bytes)?;
            }
        }
        Ok(())
    })?;
    (replica.me, replica.identity) = devices::identity(&replica.db)?;
    Ok(())
}

/// Certificates that came and are about admission.
#[derive(Default)]
pub(crate) struct Found {
    /// Those that give this device a place in a fleet.
    ours: Vec<Vec<u8>>,
    /// Those of others that ask for one.
    requests: Vec<Vec<u8>>,
    /// Statements that a fleet key follows another one.
    successions: Vec<Vec<u8>>,
}

/// How many of each are kept of one bundle.
const FOUND_MAX: usize = 256;

impl Found {
    /// Looks at a certificate.
    pub(crate) fn see(
        &mut self,
        replica: &Replica,
        certificate: &Certificate<'_>,
        bytes: &[u8],
    ) -> Result<()> {
        if certificate.is_fleet_key() {
            if self.successions.len() < FOUND_MAX {
                self.successions.push(bytes.to_vec());
            }
            return Ok(());
        }
        if self.ours.len() < FOUND_MAX && admission::is_for_us(replica, certificate)? {
            self.ours.push(bytes.to_vec());
        }
        if self.requests.len() < FOUND_MAX && admission::is_request(replica, certificate)? {
            self.requests.push(bytes.to_vec());
        }
        Ok(())
    }
}

/// Takes the place in a fleet that was found, the first of them, and keeps the requests of others. Returns whether this
/// device has a place now that it had not.
pub(crate) fn take(replica: &mut Replica, found: &Found) -> Result<bool> {
    let mut taken = false;
    for bytes in &found.ours {
        let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
        if admission::is_for_us(replica, &certificate)? {
            transaction::transaction(replica, |e| admission::take_place(e, &certificate, bytes))?;
            (replica.me, replica.identity) = devices::identity(&replica.db)?;
            taken = true;
        }
    }
    taken |= follow(replica, &found.successions)?;
    if !found.requests.is_empty() {
        transaction::transaction(replica, |e| {
            for bytes in &found.requests {
                let certificate = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                if admission::is_request(e, &certificate)? {
                    admission::keep_request(e, &certificate, bytes)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(taken)
}

/// Keeps the statements that join a key with our fleet's. Returns whether one was new.
fn follow(replica: &mut Replica, statements: &[Vec<u8>]) -> Result<bool> {
    if statements.is_empty() || replica.identity.fleet.is_none() {
        return Ok(false);
    }
    let followed = transaction::transaction(replica, |e| {
        let mut any = false;
        let mut more = true;
        // They can stand in any order.
        while more {
            more = false;
            for bytes in statements {
                let statement = Certificate::decode(bytes).map_err(|e| Error::bundle(0, e))?;
                more |= succession::keep(&e.db, &statement, bytes, e.now())?;
            }
            any |= more;
        }
        Ok(any)
    })?;
    (replica.me, replica.identity) = devices::identity(&replica.db)?;
    Ok(followed)
}

/// Lists the devices that ask for admission here.
pub(crate) fn applicants(replica: &Replica) -> Result<Vec<Applicant>> {
    catalog::reading(replica, |e| {
        let mut all = Vec::new();
        for bytes in admission::requests(e)? {
            if let Ok(certificate) = Certificate::decode(&bytes)
                && admission::is_request(e, &certificate)?
            {
                all.push(admission::applicant(&certificate));
            }
        }
        Ok(all)
    })
}

/// Makes of what is not trusted the error that says who asks for admission, where that is all.
pub(crate) fn who_asks<R>(replica: &Replica, found: &Found, result: Result<R>) -> Result<R> {
    let Some(Error::Untrusted(devices)) = result.as_ref().err().map(|e| &**e) else { return result };
    let mut asks = applicants(replica)?;
    let requests = found.requests.iter().filter_map(|bytes| Certificate::decode(bytes).ok());
    asks.extend(requests.map(|certificate| admission::applicant(&certificate)));
    let all = !devices.is_empty() && devices.iter().all(|device| asks.iter().any(|a| a.id == device.id));
    let name = |id| asks.iter().find(|a| a.id == id).map(|a| a.name.clone());
    if !all {
        return result;
    }
    let devices = devices.iter().map(|d| UntrustedDevice { name: name(d.id), ..*d }).collect();
    Err(Error::AsksForAdmission { devices, base: replica.identity.base }.into())
}

/// Names the only fleet that may admit this device.
pub(crate) fn expect_fleet(replica: &mut Replica, fleet: [u8; 32]) -> Result<()> {
    if replica.identity.admitted && replica.identity.fleet != Some(fleet) {
        return Err(Error::Usage("this device belongs to another fleet already".into()).into());
    }
    transaction::transaction(replica, |e| meta::set(&e.db, "fleet", fleet))?;
    (replica.me, replica.identity) = devices::identity(&replica.db)?;
    Ok(())
}

/// Returns the name that this device asks for.
pub(crate) fn asked_name(replica: &Replica) -> Result<Option<String>> {
    let asked = catalog::reading(replica, admission::own_request)?;
    Ok(asked.and_then(|bytes| Certificate::decode(&bytes).ok().map(|asked| asked.name.to_owned())))
}
