//! The state for who lacks what is folded, as a session carries it: a bundle in a file beside the database.
//!
//! | file | what it is |
//! |---|---|
//! | `DB.pmstate-to-PEER` | the state for this peer, as it was offered; it goes when the peer has taken it in |
//! | `DB.pmstate-from-PEER-HASH` | what has come of the state that this peer offered under this hash |
//!
//! A transfer that broke off goes on after the last whole record that is in the file. What the disk lost or spoiled is
//! found by the check sums of the records, and comes again. A state is taken in as every bundle is: verified as a whole,
//! then merged in one transaction. Until then it is nothing but a file, and may be deleted at any time: it comes again.
//!
//! The files are readable by their owner alone, as the database may be. Of those that nobody fetched the newest
//! [`KEPT`] stay.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use packmule_core::model::DeviceId;
use packmule_core::session::Frontier;
use packmule_core::wire::{
    Frame, HeaderReader, MAGIC, Offer, Position, RECORD_HEAD_LEN, RecordHead, RecordKind,
};
use sha2::{Digest, Sha256};

use crate::engine::{BundleProblem, Engine, Error, ImportReport, More, Peer, Result};

/// So many files of states are kept beside a database.
const KEPT: usize = 4;
/// After so many bytes what came is made durable: more than that does not come again after a power cut.
const SYNC_BYTES: u64 = 65_536;

/// Names a file beside the database.
fn beside(engine: &Engine, what: &str) -> PathBuf {
    let mut name = engine.path().as_os_str().to_owned();
    name.push(PREFIX);
    name.push(what);
    name.into()
}

/// Names the file of the state for a peer.
fn of_peer(peer: &Peer) -> String {
    format!("to-{:08x}", peer.id.short())
}

/// What the names of the files have after the database's.
const PREFIX: &str = ".pmstate-";

/// Opens a file that its owner alone can read, for one session alone; `None` if another has it.
fn open(path: &Path, fresh: bool) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(Error::io("open the file of a state", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        // A file system without locks; two sessions with one peer at once are rare.
        Err(fs::TryLockError::Error(_)) => {}
    }
    if fresh {
        file.set_len(0).map_err(Error::io("empty the file of a state", path))?;
    }
    Ok(Some(file))
}

/// What the whole records at the beginning of a file are.
struct Walked {
    /// Where the last one ends, and the hash up to there.
    end: u64,
    sha256: [u8; 32],
    /// The last one is a bundle's.
    whole: bool,
    sender: Option<DeviceId>,
    vector: Vec<Position>,
    rows: u64,
}

/// Reads the records of a file, up to the first that is not whole. Holds one record in memory.
fn walk(file: &File) -> io::Result<Walked> {
    let mut input = BufReader::new(file);
    input.rewind()?;
    let mut found =
        Walked { end: 0, sha256: [0; 32], whole: false, sender: None, vector: Vec::new(), rows: 0 };
    let mut hash = Sha256::new();
    let mut bytes = vec![0; MAGIC.len()];
    if fill(&mut input, &mut bytes)? && bytes == MAGIC {
        hash.update(&bytes);
        found.end = bytes.len() as u64;
        while !found.whole {
            let Some((head, body)) = next_record(&mut input, &mut bytes)? else { break };
            match head.kind {
                RecordKind::Header => {
                    if let Ok(header) = HeaderReader::parse(body) {
                        found.sender = Some(header.header.sender);
                        found.vector = header.applied().collect();
                    }
                }
                RecordKind::State => {
                    let is_row = body.starts_with(b"\x03row") || body.starts_with(b"\x03own");
                    found.rows += u64::from(is_row);
                }
                RecordKind::Footer => found.whole = true,
                _ => {}
            }
            hash.update(&bytes);
            found.end += bytes.len() as u64;
        }
    }
    found.sha256 = hash.finalize().into();
    Ok(found)
}

/// Reads the next record into `bytes`, if it is there and whole. Returns its head, and its body without the check sum.
fn next_record<'a>(
    input: &mut impl Read,
    bytes: &'a mut Vec<u8>,
) -> io::Result<Option<(RecordHead, &'a [u8])>> {
    bytes.resize(RECORD_HEAD_LEN, 0);
    if !fill(input, bytes)? {
        return Ok(None);
    }
    let Some(head) = bytes.first_chunk().and_then(|head| RecordHead::parse(head).ok()) else {
        return Ok(None);
    };
    bytes.resize(RECORD_HEAD_LEN + head.len as usize, 0);
    if !fill(input, bytes.get_mut(RECORD_HEAD_LEN..).unwrap_or_default())? {
        return Ok(None);
    }
    let body = bytes.get(RECORD_HEAD_LEN..).unwrap_or_default();
    let Ok(body) = head.check(body) else { return Ok(None) };
    let is_whole = head.kind != RecordKind::Frame || Frame::parse(body).is_ok();
    Ok(is_whole.then_some((head, body)))
}

/// Fills `bytes`. Returns whether there was enough.
fn fill(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// A state that is ready for the peer.
pub(super) struct Ready {
    file: File,
    path: PathBuf,
    pub(super) offer: Offer,
}

impl Ready {
    /// Finds the state that was offered to the peer before, if it still brings it on; else makes one. `None` if there is
    /// none that would.
    pub(super) fn of(engine: &mut Engine, peer: &Peer, frontier: &[Frontier]) -> Result<Option<Self>> {
        let path = beside(engine, &of_peer(peer));
        if path.exists()
            && let Some(file) = open(&path, false)?
        {
            let walked = walk(&file).map_err(Error::io("read the state in", &path))?;
            if walked.whole
                && walked.sender == Some(engine.identity().id)
                && !engine.is_behind_with(peer, frontier, &walked.vector)?
            {
                return Ok(Some(Self::from(file, path, &walked)));
            }
        }
        Self::make(engine, peer, frontier, path)
    }

    fn from(file: File, path: PathBuf, walked: &Walked) -> Self {
        let offer = Offer { sha256: walked.sha256, bytes: walked.end, rows: walked.rows };
        Self { file, path, offer }
    }

    /// Writes the state of now. Under its name it is whole.
    fn make(engine: &mut Engine, peer: &Peer, frontier: &[Frontier], path: PathBuf) -> Result<Option<Self>> {
        let _ = fs::remove_file(&path);
        forget_all(engine, "", KEPT - 1);
        let new = beside(engine, &(of_peer(peer) + ".new"));
        let Some(file) = open(&new, true)? else { return Ok(None) };
        let mut out = BufWriter::new(&file);
        let made = engine.export_state(&mut out, peer, frontier);
        drop(out);
        if !matches!(made, Ok(true)) {
            let _ = fs::remove_file(&new);
            return made.map(|_| None);
        }
        let walked = walk(&file).map_err(Error::io("read the state in", &new))?;
        let kept = file.sync_data().and_then(|()| fs::rename(&new, &path));
        kept.map_err(Error::io("keep the state in", &path))?;
        Ok(Some(Self::from(file, path, &walked)))
    }

    /// Reads what stands from `at` on.
    pub(super) fn read(&mut self, at: u64, to: &mut [u8]) -> Result<()> {
        let read = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.read_exact(to));
        Ok(read.map_err(Error::io("read the state in", &self.path))?)
    }

    /// Deletes it: the peer has it.
    pub(super) fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Deletes the files of states whose names go on like this, but the newest few: nobody came for them.
fn forget_all(engine: &Engine, like: &str, but: usize) {
    let mut prefix: OsString = engine.path().file_name().unwrap_or_default().to_owned();
    prefix.push(PREFIX);
    prefix.push(like);
    let prefix = prefix.to_string_lossy().into_owned();
    let folder = engine.path().parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else { return };
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| Some((entry.metadata().and_then(|m| m.modified()).ok()?, entry.path())))
        .collect();
    files.sort();
    let old = files.len().saturating_sub(but);
    files.iter().take(old).for_each(|(_, path)| drop(fs::remove_file(path)));
}

/// A state that comes from the peer.
pub(super) struct Coming {
    file: File,
    path: PathBuf,
    offer: Offer,
    /// So much of it is here, and of that so much is not durable yet.
    pub(super) here: u64,
    loose: u64,
}

impl Coming {
    /// Finds what is here of a state that the peer offers. `None` if another session has it.
    pub(super) fn begin(engine: &Engine, peer: DeviceId, offer: &Offer) -> Result<Option<Self>> {
        let hash = u64::from_be_bytes(*offer.sha256.first_chunk().unwrap_or(&[0; 8]));
        let path = beside(engine, &format!("from-{:08x}-{hash:016x}", peer.short()));
        if !path.exists() {
            // Another one is on its way; what came of that before it is of no use.
            forget_all(engine, &format!("from-{:08x}-", peer.short()), 0);
            forget_all(engine, "", KEPT - 1);
        }
        let Some(file) = open(&path, false)? else { return Ok(None) };
        let failed = || Error::io("keep the state in", &path);
        let here = walk(&file).map_err(failed())?.end.min(offer.bytes);
        file.set_len(here).map_err(failed())?;
        Ok(Some(Self { file, path, offer: *offer, here, loose: 0 }))
    }

    /// Keeps what came.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = || Error::io("keep the state in", &self.path);
        self.file.seek(SeekFrom::Start(self.here)).map_err(failed())?;
        self.file.write_all(bytes).map_err(failed())?;
        self.here += bytes.len() as u64;
        self.loose += bytes.len() as u64;
        if self.loose >= SYNC_BYTES {
            self.file.sync_data().map_err(failed())?;
            self.loose = 0;
        }
        Ok(())
    }

    /// Takes the state in, all of which is here. One that is refused stays for the next session: it need not come again
    /// if a person mends what was in its way.
    pub(super) fn take(mut self, engine: &mut Engine) -> Result<ImportReport> {
        let walked = walk(&self.file).map_err(Error::io("read the state in", &self.path))?;
        if !walked.whole || (walked.end, walked.sha256) != (self.offer.bytes, self.offer.sha256) {
            let _ = fs::remove_file(&self.path);
            return Err(Error::bundle(walked.end, BundleProblem::Structure(ANOTHER)).into());
        }
        let report = engine.import_carried(&mut self.file, More::Nothing, &mut |_| ())?;
        let _ = fs::remove_file(&self.path);
        Ok(report)
    }
}

/// What is wrong with a state of another hash.
const ANOTHER: &str = "the state is not the one that was offered; it comes again";
