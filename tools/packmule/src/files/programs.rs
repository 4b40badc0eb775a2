//! The programs that decide about conflicts by themselves: which of them is a table's, in a file beside the database.
//!
//! It is this device's own, and never travels. Since it says what is run, it is taken as it was written alone: by this user,
//! for this device, for a database in this place, in a file that nobody else can read or write. What a card or another device
//! brings is never run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{beside, folder};
use crate::output::{Failure, code};
use crate::text::{io_text, shown};

/// The longest such file.
const MOST: u64 = 65_536;

/// The programs of a database.
#[derive(Debug, Serialize, Deserialize)]
pub struct Programs {
    /// The device's fingerprint.
    device: String,
    /// Where the database lies.
    database: PathBuf,
    /// The command of each table, by its name in small letters.
    pub tables: BTreeMap<String, String>,
}

/// Returns where the file is.
pub fn file_of(db: &Path) -> PathBuf {
    beside(db, ".pmprograms")
}

impl Programs {
    /// Returns none, for this device's database.
    fn none(db: &Path, device: &str) -> io::Result<Self> {
        Ok(Self { device: device.into(), database: db.canonicalize()?, tables: BTreeMap::new() })
    }

    /// Reads what is there. What is not to be trusted is refused, with the reason.
    pub fn read(db: &Path, device: &str) -> Result<Self, String> {
        let path = file_of(db);
        let none = Self::none(db, device).map_err(|e| io_text(&e))?;
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(none),
            file => file.map_err(|e| io_text(&e))?,
        };
        if !is_own(&file).map_err(|e| io_text(&e))? {
            return Err(
                "it is not this user's alone: the owner's to read and write (600), and nobody else's".into(),
            );
        }
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text).map_err(|e| io_text(&e))?;
        let found: Self =
            serde_json::from_str(&text).map_err(|_| "it is not as it was written".to_owned())?;
        if found.device != none.device || found.database != none.database {
            return Err("it was written for another device, or for a database in another place".into());
        }
        Ok(found)
    }

    /// Returns the programs with another command for some tables, or none; `None` if nothing is to be written then.
    pub fn with(
        db: &Path,
        device: &str,
        tables: &[&str],
        command: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let path = file_of(db);
        if command.is_none() && !path.exists() {
            return Ok(None);
        }
        // What is not to be trusted is written anew.
        let mut programs = match Self::read(db, device) {
            Ok(programs) => programs,
            Err(_) => Self::none(db, device).map_err(|e| Failure::io(&path, "make it", &e))?,
        };
        let before = programs.tables.clone();
        for table in tables.iter().map(|table| table.to_ascii_lowercase()) {
            match command {
                Some(command) => programs.tables.insert(table, command.to_owned()),
                None => programs.tables.remove(&table),
            };
        }
        if programs.tables == before && command.is_none() {
            return Ok(None);
        }
        if programs.text().len() as u64 > MOST {
            let why =
                "the commands of all tables have at most 64 KiB there: put it into a file, and name that";
            return Err(Failure::of(&path, why).coded(code::REFUSED));
        }
        Ok(Some(programs))
    }

    fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Writes them, durably, or removes the file if there are none.
    pub fn write_beside(&self, db: &Path) -> Result<(), Failure> {
        let path = file_of(db);
        let io = |doing| move |e: io::Error| Failure::io(&file_of(db), doing, &e);
        if self.tables.is_empty() {
            return std::fs::remove_file(&path).map_err(io("remove it"));
        }
        let folder = folder(&path);
        // Nobody else can read or write what is made so.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io("make it"))?;
        file.write_all(self.text().as_bytes()).map_err(io("write it"))?;
        file.as_file().sync_all().map_err(io("write it to the disk"))?;
        if !is_own(file.as_file()).map_err(io("look at it"))? {
            let why =
                "nobody can be kept from writing to a file there (a FAT card), so no program is named in one";
            return Err(Failure::of(&path, why).coded("key-unprotected"));
        }
        file.persist(&path).map_err(|e| io("put it in its place")(e.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync its folder"))
    }
}

/// Removes the file, if it is there. Returns its name then.
pub fn remove(db: &Path) -> Option<String> {
    let path = file_of(db);
    std::fs::remove_file(&path).ok().map(|()| shown(&path))
}

/// Returns whether a file is this user's, and nobody else's to read or write.
#[cfg(unix)]
fn is_own(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata()?;
    Ok(found.is_file() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o177 == 0)
}

/// Where that cannot be known, no program is run.
#[cfg(not(unix))]
fn is_own(_: &File) -> io::Result<bool> {
    Ok(false)
}
