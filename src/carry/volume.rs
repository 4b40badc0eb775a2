//! What a card is to us: a few files, and how sure we are of them.
//!
//! [`Volume`] is all that an exchange asks of a card, so that a test can put a card in its place that
//! forgets what was not synced, is full, or is pulled out. [`Directory`] is a directory of a mounted file
//! system. Paths are relative to it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A card, as an exchange sees it.
///
/// What may be lost when it is pulled out: bytes of a file that was not synced since (they may be gone,
/// or others than were written, in any order, also when the file's length says that they are there),
/// and a name that was made or removed since its folder was synced. Nothing else.
pub trait Volume {
    /// Returns what is in a folder, in any order.
    ///
    /// # Errors
    /// The system's.
    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Opens a file to read it.
    ///
    /// # Errors
    /// The system's.
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn Source>>;

    /// Makes a folder, durably.
    ///
    /// # Errors
    /// The system's.
    fn create_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Makes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is one of that name, and the system's.
    fn create_new(&mut self, path: &Path) -> io::Result<Box<dyn Sink>>;

    /// Makes durable which files are in a folder.
    ///
    /// # Errors
    /// The system's.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Returns how many bytes a new file can have, if that is known.
    fn room(&mut self) -> Option<u64>;
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; relative to the folder.
    pub name: PathBuf,
    /// A folder, and not a file.
    pub folder: bool,
    /// The file's length in bytes.
    pub bytes: u64,
}

/// A file to read.
pub trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// A file to write.
pub trait Sink: Write {
    /// Makes durable what was written.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Room that is not used: for the last clusters of a file and of its folder, of 128 KiB at most.
const SPARE: u64 = 256 << 10;

/// A directory of a mounted file system. No two exchanges of one directory run at once.
pub struct Directory {
    path: PathBuf,
    /// Holds the lock.
    handle: File,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Not with the file alone: a program that is just being started by another thread has it open too.
        let _ = self.handle.unlock();
    }
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] if another exchange is at work there, and the system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        // To open a pipe would wait for its other end.
        if !std::fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let handle = File::open(path)?;
        match handle.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            // A file system without locks: names that are made exclusively keep two apart there too.
            _ => Ok(Self { path: path.into(), handle }),
        }
    }
}

impl Volume for Directory {
    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.path.join(folder))? {
            let entry = entry?;
            // What a link leads to is not on the card.
            let kind = entry.file_type()?;
            let bytes = if kind.is_file() { entry.metadata()?.len() } else { 0 };
            if kind.is_file() || kind.is_dir() {
                entries.push(Entry { name: entry.file_name().into(), folder: kind.is_dir(), bytes });
            }
        }
        Ok(entries)
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn Source>> {
        Ok(Box::new(File::open(self.path.join(path))?))
    }

    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        let path = self.path.join(path);
        std::fs::create_dir(&path)?;
        sync_directory(path.parent().unwrap_or(&self.path))
    }

    fn create_new(&mut self, path: &Path) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(self.path.join(path))?))
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        sync_directory(&self.path.join(path))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(self.path.join(path))
    }

    fn room(&mut self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        Some((found.f_bavail.saturating_mul(found.f_frsize)).saturating_sub(SPARE))
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems have no such thing, and write directories as they go.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
