//! The part of the engine's face that is about encrypted bundles.

use std::collections::BTreeSet;
use std::io::{Read, Seek, Write};

use packmule_core::model::DeviceId;

use super::Engine;
use crate::engine::Result;
use crate::engine::exchange::introduce;
use crate::engine::exchange::records::PartReport;
use crate::engine::fleet::readers;
use crate::engine::store::decrypt::BundleFile;
use crate::engine::store::encrypt::Readers;

impl Engine {
    /// Returns this device and all whose certificates are known here and that are trusted, for
    /// [`Encrypting`](crate::Encrypting). Revoked devices are not among them.
    ///
    /// # Errors
    /// [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn fleet_readers(&self) -> Result<Readers> {
        Ok(readers::fleet(&self.replica)?)
    }

    /// Returns this device and these.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for a device that is revoked or whose certificate is not known here;
    /// [`Error::KeyMissing`](crate::Error::KeyMissing), [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn device_readers(&self, ids: &[DeviceId]) -> Result<Readers> {
        Ok(readers::these(&self.replica, ids)?)
    }

    /// Returns whoever has a passphrase. To make a key of it takes 12 MiB of memory.
    pub fn passphrase_readers(&self, passphrase: &[u8]) -> Readers {
        readers::passphrase(&self.replica, passphrase)
    }

    /// Opens a bundle, to be read as if it were not encrypted, whether or not it is: with this device's key, or with a
    /// passphrase. It is decrypted as it is read, a chunk of 64 KiB at a time; nothing of that is written anywhere.
    ///
    /// # Errors
    /// [`Error::Bundle`](crate::Error::Bundle) if it is encrypted and neither opens it, or if it is damaged;
    /// [`Error::Stream`](crate::Error::Stream) if it cannot be read, or for too little memory.
    pub fn open_bundle<R: Read + Seek>(&self, file: R, passphrase: Option<&[u8]>) -> Result<BundleFile<R>> {
        Ok(BundleFile::open(file, self.replica.key.as_ref(), passphrase)?)
    }

    /// Returns the hashes of the certificates in an introduction of this device.
    pub(crate) fn introduction(&self) -> Result<BTreeSet<[u8; 32]>> {
        Ok(introduce::hashes(&self.replica)?)
    }

    /// Writes this device's certificate or request alone. The footer is left to the caller.
    pub(crate) fn write_introduction(&self, to: &mut dyn Write) -> Result<PartReport> {
        Ok(introduce::write(&self.replica, to)?)
    }
}

/// Opens a bundle without a device's key, as [`Engine::open_bundle`] does with one.
///
/// # Errors
/// As [`Engine::open_bundle`].
pub fn open_bundle<R: Read + Seek>(file: R, passphrase: Option<&[u8]>) -> Result<BundleFile<R>> {
    Ok(BundleFile::open(file, None, passphrase)?)
}
