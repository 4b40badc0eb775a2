//! How `run` stands, in a file beside the database, `DB.pmrun`: so that `status` can tell, whoever asks.
//!
//! A file, and no table: what changes with every round would be writes to the database, each of which wakes everybody who
//! waits for one. It is never synced to the disk: after a power cut nothing of it counts. Who runs holds a lock on it,
//! so that a second one cannot begin, and a file that was left behind is known as such.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{beside, folder};
use crate::documents::RunState;
use crate::output::Failure;

/// How often a file is read again that was replaced meanwhile.
const TRIES: usize = 3;

/// The file of a `run` that runs.
pub struct StateFile {
    path: PathBuf,
    /// Its lock is ours.
    file: File,
}

impl StateFile {
    /// Begins: nobody else may run meanwhile.
    pub fn begin(db: &Path) -> Result<Self, Failure> {
        let path = path(db);
        let failed = |e: io::Error| Failure::io(&path, "write it", &e);
        for _ in 0..TRIES {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return Ok(Self { path, file }),
                // It was the one before, of a run that has written a new one, or has ended, meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Err(Failure::of(db, "`packmule run` keeps its links up: stop that one first"))
    }

    /// Writes how it stands: whole, or not at all. What cannot be written, on a full disk say, is no reason to end.
    pub fn write(&mut self, state: &RunState) -> io::Result<()> {
        let mut new = tempfile::NamedTempFile::new_in(folder(&self.path))?;
        new.write_all(serde_json::to_string_pretty(state)?.as_bytes())?;
        // Who may read the database may read this.
        std::fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        new.as_file().try_lock().map_err(io::Error::from)?;
        self.file = new.persist(&self.path)?;
        Ok(())
    }

    /// Ends in good order: there is nothing to tell any more.
    pub fn finish(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads how `run` stands, if it runs or ended in another way than in good order.
pub fn read(db: &Path) -> Option<RunState> {
    let path = path(db);
    for _ in 0..TRIES {
        let mut file = File::open(&path).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let running = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        if !running && !is_at(&file, &path) {
            continue;
        }
        // One that is empty was only begun, or lost its content with the power.
        let mut state: RunState = serde_json::from_str(&text).ok()?;
        state.running = running;
        return Some(state);
    }
    None
}

/// Returns whether a file is the one that is there now.
fn is_at(file: &File, path: &Path) -> bool {
    let now = std::fs::metadata(path).map(|meta| meta.ino());
    now.ok() == file.metadata().map(|meta| meta.ino()).ok()
}

fn path(db: &Path) -> PathBuf {
    beside(&std::fs::canonicalize(db).unwrap_or_else(|_| db.to_owned()), ".pmrun")
}
