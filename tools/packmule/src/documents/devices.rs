//! Documents about devices and trust.

#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

use super::{OwnError, Reason};

/// `init`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Initialised<'a> {
    /// The database.
    pub database: String,
    /// What people call the device.
    pub name: &'a str,
    /// Its id, in 32 hexadecimal digits.
    pub fingerprint: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// The public key of its fleet.
    pub fleet: Option<String>,
    /// The public key of the only fleet that may admit it.
    pub asks_fleet: Option<String>,
    /// Where its secret key is.
    pub key_file: &'a str,
}

/// `fleet new`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct FleetKeyMade<'a> {
    /// The secret file.
    pub key_file: String,
    /// The fleet's public key.
    pub fleet: &'a str,
}

/// `admit`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct AdmittedDevices<'a> {
    /// The requests that were found.
    pub requests: Vec<Request<'a>>,
    /// The files that were written, for the carrier by which the requests came.
    pub files: Vec<String>,
    /// Files that were skipped, and why.
    pub stepped_over: Vec<Reason>,
    /// That nobody was admitted, if that is so.
    #[serde(flatten)]
    pub failed: OwnError,
}

/// `init --remove`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Removed {
    /// The database.
    pub database: String,
    /// How many tables, triggers and views of Packmule were dropped.
    pub dropped: u64,
    /// The key files that were removed.
    pub key_files: Vec<String>,
    /// Nothing was removed.
    pub dry_run: bool,
}

/// `fleet rotate`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct FleetKeyRotated<'a> {
    /// The secret file of the new key.
    pub key_file: String,
    /// The new public key.
    pub fleet: &'a str,
    /// The public key that it follows.
    pub follows: &'a str,
}

/// `rename`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Renamed<'a> {
    /// The device's fingerprint.
    pub fingerprint: String,
    /// Its name.
    pub name: &'a str,
    /// The name that it asks the fleet to sign, if that is another.
    pub asks: Option<String>,
}

/// A device that asks for admission.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Request<'a> {
    /// Its fingerprint.
    pub fingerprint: String,
    /// The name under which it asks.
    pub name: &'a str,
    /// It asks to be a base.
    pub base: bool,
    /// Its certificate is signed now.
    pub admitted: bool,
    /// Why it is not.
    pub reason: Option<String>,
}

/// `trust`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Trusted<'a> {
    /// The device's fingerprint.
    pub fingerprint: String,
    /// Its name, if it is known.
    pub name: Option<&'a str>,
    /// It was trusted before.
    pub already: bool,
    /// Devices of which the bundle has certificates and which are not trusted.
    pub others: Vec<Known<'a>>,
}

/// A device's fingerprint and name.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Known<'a> {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its name.
    pub name: &'a str,
}

/// `revoke`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Revoked<'a> {
    /// The device's fingerprint.
    pub fingerprint: String,
    /// Its name, if it is known.
    pub name: Option<&'a str>,
    /// A revocation was taken back.
    pub undone: bool,
    /// The fleet key says so: it travels, and holds for the whole fleet.
    pub for_fleet: bool,
    /// The devices that are revoked now and were not before: this one, and those that it vouches for.
    pub revoked: &'a [String],
    /// The devices that are no longer revoked.
    pub restored: &'a [String],
}

/// `retire`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Retired {
    /// The device's fingerprint.
    pub retired: String,
    /// Its retirement was taken back.
    pub undone: bool,
    /// It holds for all devices, since this one is a base; otherwise for this database alone.
    pub travels: bool,
}

/// `devices`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Devices<'a> {
    /// Every device that is known, this one first.
    pub devices: Vec<Device<'a>>,
}

/// A device that is known.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Device<'a> {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its name, once a certificate of it has come.
    pub name: Option<&'a str>,
    /// Its name and the beginning of its fingerprint, as people read it.
    pub label: String,
    /// It gathers the rows of per-device tables.
    pub base: bool,
    /// It is this database.
    pub this: bool,
    /// Why its frames are taken in: `this device`, `singly`, `by the fleet`; or `no`, `revoked`.
    pub trust: &'static str,
    /// How many of its frames of shared tables are applied here.
    pub frames_shared: u64,
    /// How many of its frames of per-device tables are applied here.
    pub frames_per_device: u64,
    /// How many frames of this device it has acknowledged.
    pub has_of_ours: u64,
    /// It will not come back: the log does not wait for it.
    pub retired: bool,
    /// Who says so.
    pub retired_by: Option<String>,
    /// Nothing is taken from it.
    pub revoked: bool,
    /// Who says so.
    pub revoked_by: Option<String>,
    /// Its frames that are here and set aside, since it is revoked and no other device had taken them in.
    pub set_aside: u64,
    /// Rows of shared tables that changed here by states that it sent: they are its word.
    pub state_rows: u64,
    /// When it was heard of last, by this machine's clock.
    pub heard: Option<String>,
    /// How far its clock is off, in milliseconds, if what it wrote shows that; ahead counts up.
    pub clock_off_ms: Option<i64>,
}

/// `join`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Joined<'a> {
    /// The database.
    pub database: String,
    /// What people call the device.
    pub name: &'a str,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Who wrote the snapshot.
    pub maker: Option<Maker<'a>>,
    /// Rows taken in.
    pub rows: u64,
    /// Rows that wait for a table of their name to be tracked.
    pub waiting: u64,
    /// Frames in flight taken in.
    pub frames: u64,
    /// The device has a new identity.
    pub new_identity: bool,
}

/// Who wrote a snapshot.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Maker<'a> {
    /// Its fingerprint.
    pub id: String,
    /// Its name.
    pub name: &'a str,
}
