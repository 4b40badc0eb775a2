//! Secret keys in files of their own: a device's beside its database, a fleet's wherever its owner wants it.

use std::cell::RefCell;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_compact::{KeyPair, SecretKey, Seed};
use packmule_core::model::{DeviceId, Hex, decode_hex};
use packmule_core::wire::{CERT_MAX, Certificate};

use crate::engine::error::{Error, Result};
use crate::engine::store::cipher::{self, NotOpened, PASSPHRASE_SLOT};

const DEVICE_LINE: &str = "packmule device key 1";

const FLEET_LINE: &str = "packmule fleet key 1";

const LOCKED_FLEET_LINE: &str = "packmule fleet key 1 with a passphrase";

const FLEET_HINT: &str = "whoever has this file can add devices to the fleet: keep it off the boards";

/// How a line of a fleet key's file begins that has the statement that it follows another one.
const SUCCESSION: &str = "follows ";

/// How many keys a key can follow, all in one file.
const SUCCESSIONS_MAX: usize = 16;

/// The secret key of a fleet, which signs the certificates of its devices. With it, the statements that it follows
/// other keys, the oldest first.
pub struct FleetKey(pub(crate) SecretKey, pub(crate) Vec<Vec<u8>>);

impl FleetKey {
    /// Makes a new key in a new file, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file is there already.
    pub fn create(path: &Path) -> Result<Self, Error> {
        Self::create_with(path, None)
    }

    /// Makes a new key in a new file, under a passphrase if there is one: then the file alone is not enough. To make a
    /// key of a passphrase takes 12 MiB of memory.
    ///
    /// # Errors
    /// As [`FleetKey::create`].
    pub fn create_with(path: &Path, passphrase: Option<&[u8]>) -> Result<Self, Error> {
        let form = Form { passphrase, ..Form::fleet() };
        let key = new_key(path, &form, system_random, &|_| Ok(String::new()))?;
        Ok(Self(key, Vec::new()))
    }

    /// Makes a key in a new file that takes the place of this one: this one signs it, and devices that hear of that take
    /// what either has signed.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file is there already; [`Error::Usage`] if the key follows too many others.
    pub fn rotate(&self, path: &Path) -> Result<Self, Error> {
        self.rotate_with(path, None)
    }

    /// Does what [`FleetKey::rotate`] does, with its errors; the new file is under a passphrase, if there is one.
    ///
    /// # Errors
    /// As [`FleetKey::rotate`].
    pub fn rotate_with(&self, path: &Path, passphrase: Option<&[u8]>) -> Result<Self, Error> {
        if self.1.len() >= SUCCESSIONS_MAX {
            return Err(Error::Usage("this fleet key follows as many others as one can".into()));
        }
        let statements = RefCell::new(self.1.clone());
        let lines = |key: &SecretKey| {
            let mut buf = [0; CERT_MAX];
            let signed = Certificate::succession(key, &self.0);
            let signed = signed.and_then(|signed| Certificate::encode(&signed, &mut buf));
            let len = signed.map_err(|_| Error::damaged("a certificate without room"))?;
            let mut all = statements.borrow_mut();
            all.push(buf[..len].to_vec());
            Ok(all.iter().map(|statement| format!("{SUCCESSION}{}\n", Hex(statement))).collect())
        };
        let key = new_key(path, &Form { passphrase, ..Form::fleet() }, system_random, &lines)?;
        Ok(Self(key, statements.into_inner()))
    }

    /// Returns the public keys of the fleet: this one, and those that it follows.
    pub(crate) fn public_keys(&self) -> Vec<[u8; 32]> {
        let issuer = |bytes: &Vec<u8>| Certificate::decode(bytes).ok()?.fleet.map(|signed| signed.fleet);
        self.1.iter().filter_map(issuer).chain([self.public_key()]).collect()
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// [`Error::KeyMissing`] if the file is not a fleet key; [`Error::KeyLoose`] if others can read it;
    /// [`Error::KeyPassphrase`] if it has a passphrase.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, None)
    }

    /// Reads the key from its file with a passphrase, if it has one.
    ///
    /// # Errors
    /// As [`FleetKey::open`]; [`Error::KeyPassphrase`] also for a wrong passphrase, and [`Error::Io`] for too little memory.
    pub fn open_with(path: &Path, passphrase: Option<&[u8]>) -> Result<Self, Error> {
        let (key, rest) = read_key(path, &Form { passphrase, ..Form::fleet() })?;
        let mut statements = Vec::new();
        for hex in rest.lines().filter_map(|line| line.strip_prefix(SUCCESSION)) {
            let mut bytes = vec![0; hex.len() / 2];
            let good = decode_hex(hex, &mut bytes).is_ok()
                && Certificate::decode(&bytes).is_ok_and(|statement| statement.is_fleet_key());
            if !good {
                let reason = "has a damaged line about the key that it follows".into();
                return Err(Error::KeyMissing { path: path.into(), reason });
            }
            statements.push(bytes);
        }
        Ok(Self(key, statements))
    }

    /// Returns the public key, by which devices know the fleet.
    pub fn public_key(&self) -> [u8; 32] {
        *self.0.public_key()
    }
}

/// Returns the path of the key of the device in this database.
pub(crate) fn device_key_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".pmkey");
    name.into()
}

/// Returns the path of a new identity's key, until the commit that makes it the device's.
pub(crate) fn new_key_path(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Renames a new identity's key to its lasting name, in the place of the old one. The old identity signs nothing any
/// more: all that it wrote and nobody has is written anew.
pub(crate) fn adopt_new_key(key: &Path) -> Result<()> {
    std::fs::rename(new_key_path(key), key).map_err(Error::io("rename the key file", key))?;
    sync_folder(key)
}

/// Removes the key of an identity before this one, which earlier versions kept. Where nothing can be written, it stays.
pub(crate) fn remove_old_key(database: &Path) {
    let mut old = device_key_path(database).into_os_string();
    old.push(".old");
    let _ = std::fs::remove_file(PathBuf::from(old));
}

/// Returns the path of the key of the device `id` in this database.
///
/// If power was cut between the commit of a new identity and the renaming of its key, the key is renamed now. Where
/// nothing can be written, it is used under the name that it has.
pub(crate) fn find_device_key(database: &Path, id: DeviceId) -> Result<PathBuf> {
    let path = device_key_path(database);
    let new = new_key_path(&path);
    let ours = || read_device_key(&new).is_ok_and(|key| DeviceId::of_key(&key.public_key()) == id);
    if new.exists() && ours() && adopt_new_key(&path).is_err() && new.exists() {
        return Ok(new);
    }
    Ok(path)
}

/// Makes the name of a file survive a power cut.
fn sync_folder(of: &Path) -> Result<()> {
    if let Some(folder) = of.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("sync the folder", folder))?;
    }
    Ok(())
}

/// Fills a seed from the system's random number source.
pub(crate) fn system_random(seed: &mut [u8; 32]) -> std::io::Result<()> {
    getrandom::fill(seed).map_err(|e| std::io::Error::other(e.to_string()))
}

/// Makes a device's key in a new file.
pub(crate) fn new_device_key(
    path: &Path,
    random: fn(&mut [u8; 32]) -> std::io::Result<()>,
) -> Result<SecretKey> {
    new_key(path, &Form::device(), random, &|_| Ok(String::new()))
}

/// Reads a device's key from its file.
pub(crate) fn read_device_key(path: &Path) -> Result<SecretKey> {
    read_key(path, &Form::device()).map(|(key, _)| key)
}

/// What a key's file looks like.
struct Form<'a> {
    /// Its first line.
    line: &'a str,
    /// Its first line if it has a passphrase.
    locked_line: Option<&'a str>,
    /// For whoever finds the file.
    hint: &'a str,
    passphrase: Option<&'a [u8]>,
}

impl Form<'_> {
    fn device() -> Self {
        let hint = "whoever has this file can write as this device: keep it beside its database";
        Self { line: DEVICE_LINE, locked_line: None, hint, passphrase: None }
    }

    fn fleet() -> Self {
        Self { line: FLEET_LINE, locked_line: Some(LOCKED_FLEET_LINE), hint: FLEET_HINT, passphrase: None }
    }
}

/// Makes a secret key in a new file; `more` makes lines that follow it.
fn new_key(
    path: &Path,
    form: &Form<'_>,
    random: cipher::Random,
    more: &dyn Fn(&SecretKey) -> Result<String>,
) -> Result<SecretKey> {
    let mut seed = [0; 32];
    random(&mut seed).map_err(Error::io("get random numbers for", path))?;
    let key = KeyPair::from_seed(Seed::new(seed)).sk;
    let more = more(&key)?;
    let (line, secret) = match (form.passphrase, form.locked_line) {
        (Some(passphrase), Some(line)) => {
            let wrapped = cipher::wrap_by_passphrase(&seed, passphrase, random);
            (line, Hex(&wrapped.map_err(Error::io("lock the key file", path))?).to_string())
        }
        _ => (form.line, Hex(&seed).to_string()),
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path).map_err(Error::io("make the key file", path))?;
    if loose_mode(&look_at(&file, path)?).is_some() {
        // FUSE keeps a file that is open under another name.
        drop(file);
        let _ = std::fs::remove_file(path);
        return Err(Error::KeyUnprotected { path: path.into() }.into());
    }
    write!(file, "{line}\n{secret}\n# {}\n{more}", form.hint)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write the key file", path))?;
    // Without the key the database can sign nothing.
    sync_folder(path)?;
    Ok(key)
}

fn look_at(file: &File, path: &Path) -> Result<Metadata> {
    file.metadata().map_err(Error::io("look at the key file", path))
}

/// The bits of a file's mode that let others than its owner read or write it.
#[cfg(unix)]
const LOOSE: u32 = 0o077;

/// Returns the mode of a file, if others than its owner can read or write it.
#[cfg(unix)]
fn loose_mode(found: &Metadata) -> Option<u32> {
    Some(found.mode() & 0o777).filter(|mode| mode & LOOSE != 0)
}

/// There are no modes here.
#[cfg(not(unix))]
fn loose_mode(_: &Metadata) -> Option<u32> {
    None
}

/// Refuses a key file that others can read, if it is this user's: of another's files it is for him to say who reads them.
fn refuse_loose(file: &File, path: &Path) -> Result<()> {
    let found = look_at(file, path)?;
    #[cfg(unix)]
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    match loose_mode(&found) {
        Some(mode) => Err(Error::KeyLoose { path: path.into(), mode }.into()),
        None => Ok(()),
    }
}

/// Reads a secret key from a file of this form. Returns all of the file too.
fn read_key(path: &Path, form: &Form<'_>) -> Result<(SecretKey, String)> {
    let bad = |reason: &str| Error::KeyMissing { path: path.into(), reason: reason.into() };
    // It may be well: a disk that fails is no key that is lost.
    let failed = |source| Error::Io { doing: "read the secret key", path: path.into(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => bad("is not there"),
        std::io::ErrorKind::PermissionDenied => Error::KeyDenied { path: path.into() },
        _ => failed(e),
    })?;
    refuse_loose(&file, path)?;
    file.take(1 << 14).read_to_string(&mut text).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => bad(&format!("is not a \"{}\" file", form.line)),
        _ => failed(e),
    })?;
    let mut lines = text.lines();
    let first = lines.next();
    let locked = first.is_some() && first == form.locked_line;
    if !locked && first != Some(form.line) {
        return Err(bad(&format!("is not a \"{}\" file", form.line)).into());
    }
    let hex = lines.next().unwrap_or_default();
    let mut bytes = [0; PASSPHRASE_SLOT];
    let len = if locked { PASSPHRASE_SLOT } else { 32 };
    if hex.len() != 2 * len {
        return Err(bad("is cut short").into());
    }
    decode_hex(hex, &mut bytes[..len]).map_err(|_| bad("is damaged"))?;
    let mut seed = [0; 32];
    seed.copy_from_slice(&bytes[..32]);
    if locked {
        let wrong = |wrong| Error::KeyPassphrase { path: path.into(), wrong };
        let passphrase = form.passphrase.ok_or_else(|| wrong(false))?;
        seed = cipher::unwrap_by_passphrase(&bytes, passphrase).map_err(|why| match why {
            NotOpened::Wrong => wrong(true),
            NotOpened::Costs => bad("is damaged"),
            NotOpened::Memory(e) => *Error::io("open with its passphrase the key file", path)(e),
        })?;
    }
    Ok((KeyPair::from_seed(Seed::new(seed)).sk, text))
}
