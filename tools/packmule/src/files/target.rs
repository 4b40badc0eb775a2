//! A file that is there whole or not at all: written under another name, synced, renamed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use packmule::{BundleProblem, Engine};

use super::folder;
use super::sources::{self, Kind};
use crate::output::Failure;
use crate::text::shown;

/// A file being written; gone again if it is not finished.
pub struct Target {
    path: PathBuf,
    part: PathBuf,
    file: File,
    finished: bool,
    /// An older bundle of the same device is replaced.
    pub replaces: bool,
}

impl Target {
    /// Begins a file for a bundle of this device. Only an older bundle of the same device is replaced.
    pub fn begin(path: &Path, engine: &Engine, passphrase: Option<&[u8]>) -> Result<Self, Failure> {
        let replaces = may_replace(path, engine, passphrase)?;
        let name = path
            .file_name()
            .ok_or_else(|| Failure::of(path, "is not a file name: give for instance `north.pmb`"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".part");
        let part = path.with_file_name(hidden);
        // One that a power cut left behind is written over.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(|e| Failure::io(path, "make it in that folder", &e))?;
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(Failure::of(
                path,
                "another `packmule export` is writing it: wait for that one to end",
            ));
        }
        file.set_len(0).map_err(|e| Failure::io(path, "write it", &e))?;
        Ok(Self { path: path.into(), part, file, finished: false, replaces })
    }

    /// Returns what is written to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the file in its place, durably.
    pub fn finish(mut self) -> Result<(), Failure> {
        let io = |doing| move |e: io::Error| (doing, e);
        let folder = folder(&self.path);
        self.file
            .sync_all()
            .map_err(io("write it to the disk"))
            .and_then(|()| std::fs::rename(&self.part, &self.path).map_err(io("put it in its place")))
            .and_then(|()| {
                self.finished = true;
                File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync its folder"))
            })
            .map_err(|(doing, e)| Failure::io(&self.path, doing, &e))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Returns whether an older bundle of this device is there; refuses what is anything else.
fn may_replace(path: &Path, engine: &Engine, passphrase: Option<&[u8]>) -> Result<bool, Failure> {
    let found = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found.map_err(|e| Failure::io(path, "look at it", &e))?,
    };
    if found.is_dir() {
        return Err(Failure::of(
            path,
            format!(
                "is a directory: give the bundle a name in it, such as `{}`",
                shown(&path.join("north.pmb"))
            ),
        ));
    }
    if !found.is_file() {
        return Err(Failure::of(path, "is not a plain file: use `-` to write to standard output"));
    }
    let is_bundle = sources::kind(path).is_ok_and(|kind| kind == Kind::Bundle);
    let file = if is_bundle { File::open(path).ok() } else { None };
    let opened = file.map(|file| engine.open_bundle(file, passphrase));
    if let Some(Err(packmule::Error::Bundle {
        cause: BundleProblem::PassphraseNeeded | BundleProblem::WrongPassphrase,
        ..
    })) = opened
    {
        return Err(Failure::of(
            path,
            "is encrypted with another passphrase, so that nobody can say whose bundle it is: choose another name, or \
             remove it first",
        ));
    }
    let opened = opened.and_then(Result::ok);
    let sender = opened.and_then(|bundle| packmule::inspect(io::BufReader::new(bundle)).ok()?.sender);
    if sender == Some(engine.identity().id) {
        return Ok(true);
    }
    Err(Failure::of(
        path,
        match sender {
            Some(_) => {
                "is a bundle of another device, which would be lost: choose another name, or remove it first"
            }
            None => {
                "is there already, and is not a bundle of this device: choose another name, or remove it first"
            }
        },
    ))
}
