//! What can go wrong, in words that say what to do next.

use std::path::PathBuf;
use std::{fmt, io};

use packmule_core::model::DeviceId;
use packmule_core::wire::DecodeError;

/// An error of the engine. Whatever it is, the database is as it was before the call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused.
    Sqlite(rusqlite::Error),
    /// A file could not be read or written.
    Io {
        /// What was being done, for instance "read the key file".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Reading or writing a bundle's stream failed.
    Stream(io::Error),
    /// The file is a database, but not a device.
    NotADevice,
    /// The database is a device already.
    AlreadyADevice {
        /// Its id.
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// The database was written by a newer Packmule.
    NewerDatabase {
        /// The version of its `_pm_` tables.
        version: i64,
    },
    /// The secret key is not where it should be, so nothing can be signed.
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No tracked table has this name.
    UnknownTable {
        /// The name.
        table: String,
        /// The tables that are tracked.
        tracked: Vec<String>,
    },
    /// The table cannot be tracked, or not in this way.
    CannotTrack {
        /// The table.
        table: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// A tracked table was changed in a way that does not travel.
    SchemaChanged {
        /// The table.
        table: String,
        /// What was found, and what to do about it.
        reason: String,
    },
    /// A bundle has frames of devices that this one does not trust.
    Strangers(Vec<Stranger>),
    /// The bytes are not a bundle, or are damaged.
    Bundle {
        /// Where in the stream, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        cause: BundleProblem,
    },
    /// One device identity has two histories.
    Twin {
        /// The device.
        device: String,
        /// The first sequence number at which they differ, or before.
        seq: u64,
    },
    /// This device is a second history of one identity, and others built on what it wrote.
    Forked {
        /// This device.
        device: String,
        /// One of those.
        other: String,
    },
    /// This device was set back, and would begin a second history.
    SetBack,
    /// A row cannot be carried.
    Row {
        /// The table.
        table: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// No device, or more than one, is meant by this.
    Device {
        /// What was given.
        given: String,
        /// Which devices it could be.
        candidates: Vec<String>,
    },
    /// No open conflict has this id.
    NoSuchConflict {
        /// The id.
        id: String,
        /// How many are open.
        open: usize,
    },
    /// The conflict cannot be resolved in this way.
    CannotResolve {
        /// Why, and what to do about it.
        reason: String,
    },
    /// What was asked for makes no sense; why.
    Usage(String),
    /// The `_pm_` tables contradict themselves: somebody wrote to them, or the disk did.
    Damaged(String),
    /// Another device's database file, which was to be taken in, is the one that failed.
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// A database that cannot be written to has writes in its -wal file, which cannot be read there.
    WalUnread {
        /// The -wal file.
        path: PathBuf,
    },
    /// An earlier failure could not be rolled back; this handle is not used any more.
    Poisoned,
}

/// A device that a bundle has frames of, and that is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its id, which is its fingerprint.
    pub id: DeviceId,
    /// The name in its certificate, if the bundle has one.
    pub name: Option<String>,
    /// It was trusted once, and its certificate was revoked.
    pub revoked: bool,
}

/// What is wrong with a bundle.
#[derive(Debug)]
#[non_exhaustive]
pub enum BundleProblem {
    /// It does not begin as a bundle does.
    NotABundle,
    /// It is empty.
    Empty,
    /// An item in it is damaged or of another version.
    Decode(DecodeError),
    /// An author's signature does not match.
    Signature(String),
    /// The parts do not fit together; what.
    Structure(&'static str),
}

impl fmt::Display for BundleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotABundle => f.write_str("this is not a Packmule bundle, nor a snapshot"),
            Self::Empty => f.write_str("the bundle is empty: it was not written to its end; export it again"),
            Self::Decode(DecodeError::Short) => {
                f.write_str("the bundle is cut short: it was not written to its end; copy or export it again")
            }
            Self::Decode(DecodeError::Version(v)) => write!(f, "{}", DecodeError::Version(*v)),
            Self::Decode(e) => write!(f, "the bundle is damaged: {e}; copy or export it again"),
            Self::Signature(who) => write!(
                f,
                "the signature of {who} does not match: the bundle was altered on the way; copy or export it again"
            ),
            Self::Structure(what) => write!(f, "the bundle does not hold together ({what}); export it again"),
        }
    }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether SQLite would have to write where it cannot, as it has to even for reading in WAL mode:
    /// then [`Engine::open_read_only`](super::Engine::open_read_only) may still read.
    pub fn needs_to_write(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
        matches!(self, Self::Sqlite(e) if matches!(e.sqlite_error_code(), Some(CannotOpen | ReadOnly)))
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn cannot_track(table: &str, reason: impl Into<String>) -> Self {
        Self::CannotTrack { table: table.into(), reason: reason.into() }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    pub(crate) fn bundle(offset: u64, cause: impl Into<BundleProblem>) -> Self {
        Self::Bundle { offset, cause: cause.into() }
    }
}

impl From<DecodeError> for BundleProblem {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let rusqlite::Error::FromSqlConversionFailure(column, found, cause) = error else {
            return Self::Sqlite(error);
        };
        // A number of our own tables that stands for nothing: who read it has said what is damaged.
        match cause.downcast::<Self>() {
            Ok(cause) => *cause,
            Err(cause) => Self::Sqlite(rusqlite::Error::FromSqlConversionFailure(column, found, cause)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rusqlite::ErrorCode as Code;
        match self {
            Self::Sqlite(e) => match e.sqlite_error_code() {
                Some(Code::DatabaseBusy | Code::DatabaseLocked) => f.write_str(
                    "the database is locked by another program that is in the middle of a write; \
                     try again when it has finished",
                ),
                Some(Code::NotADatabase) => f.write_str("the file is not an SQLite database"),
                Some(Code::ReadOnly) => f.write_str(
                    "the database is read-only: check the file's and its folder's permissions, and how the disk is mounted",
                ),
                Some(Code::CannotOpen) => {
                    f.write_str("the database cannot be opened: check that its folder exists and may be written to")
                }
                Some(Code::DiskFull) => f.write_str("the disk is full: free some space and try again"),
                Some(Code::DatabaseCorrupt) => {
                    write!(f, "the database is damaged ({e}): run `sqlite3 DB 'PRAGMA integrity_check'`")
                }
                _ => write!(f, "SQLite: {e}"),
            },
            Self::Io { doing, path, source } => write!(f, "could not {doing} {}: {source}", path.display()),
            Self::Stream(e) => write!(f, "reading or writing the bundle failed: {e}"),
            Self::NotADevice => f.write_str("the database is not a Packmule device yet: run `packmule init DB`"),
            Self::AlreadyADevice { device, name } => {
                write!(f, "the database is already the device {name} ({device}); nothing was changed")
            }
            Self::NewerDatabase { version } => {
                write!(f, "the database was written by a newer Packmule (layout {version}): update Packmule")
            }
            Self::KeyMissing { path, reason } => write!(
                f,
                "the device's secret key is needed and {} {reason}; put it back from where the database was kept",
                path.display()
            ),
            Self::UnknownTable { table, tracked } if tracked.is_empty() => {
                write!(f, "no table `{table}` is tracked here (none is): run `packmule track DB {table}`")
            }
            Self::UnknownTable { table, tracked } => {
                write!(f, "no table `{table}` is tracked here; tracked are: {}", tracked.join(", "))
            }
            Self::CannotTrack { table, reason } => write!(f, "table `{table}` cannot be tracked: {reason}"),
            Self::SchemaChanged { table, reason } => write!(f, "table `{table}` was changed: {reason}"),
            Self::Strangers(strangers) => {
                let revoked = strangers.iter().all(|s| s.revoked);
                write!(f, "the bundle has frames of {}:", if revoked { "revoked devices" } else { "devices that are not trusted here" })?;
                for s in strangers {
                    let name = s.name.as_deref().unwrap_or("(no certificate)");
                    write!(f, "\n  {name}  fingerprint {}{}", s.id, if s.revoked { "  (revoked)" } else { "" })?;
                }
                f.write_str("\ncompare the fingerprint with what `packmule status` shows on that device, then run:")?;
                strangers.iter().try_for_each(|s| write!(f, "\n  packmule trust DB {}", s.id))
            }
            Self::Bundle { offset, cause: cause @ (BundleProblem::NotABundle | BundleProblem::Empty) } => {
                let _ = offset;
                write!(f, "{cause}")
            }
            Self::Bundle { offset, cause } => write!(f, "{cause} (at byte {offset})"),
            Self::Twin { device, seq } => write!(
                f,
                "{device} has two histories from frame {seq} on: its database or SD card was copied, or set back to a \
                 backup, and both went on writing; nothing of the second history was taken in. Bring a bundle from here to the \
                 second one, or sync with it: it goes on under a new identity, with all that it wrote. Other devices that took \
                 in the second history start anew from a snapshot (`packmule join`)"
            ),
            Self::Forked { device, other } => write!(
                f,
                "this database is a second history of {device}: a copy, or set back to a backup; and {other} has built on it, \
                 so that it cannot just go on under a new identity: make a snapshot where the first history is \
                 (`packmule snapshot DB FILE`) and run `packmule join` with it here and on {other}; what only they wrote is kept"
            ),
            Self::SetBack => f.write_str(
                "this database was set back: others have frames of this device that are not here; it takes them back \
                 with the next `sync`, `exchange` or `import` from a device that has them: do that first",
            ),
            Self::Row { table, reason } => write!(f, "a row of `{table}` cannot be carried: {reason}"),
            Self::Device { given, candidates } if candidates.is_empty() => {
                write!(f, "no device `{given}` is known here: `packmule devices DB` lists them")
            }
            Self::Device { given, candidates } => {
                write!(f, "`{given}` could be {}: give more of the id", candidates.join(" or "))
            }
            Self::NoSuchConflict { id, open } => write!(
                f,
                "no open conflict has the id `{id}` (open now: {open}): it was resolved, or a further version came \
                 and gave it a new id; see `packmule conflicts DB`"
            ),
            Self::CannotResolve { reason } => write!(f, "the conflict cannot be resolved so: {reason}"),
            Self::Usage(reason) => f.write_str(reason),
            Self::Damaged(what) => write!(
                f,
                "Packmule's own tables in the database are damaged ({what}): run `packmule verify DB`, and keep a copy"
            ),
            Self::Source { path, error } => write!(f, "{}: {error}", path.display()),
            Self::WalUnread { path } => write!(
                f,
                "the last writes are still in {}, and can be read only where the disk may be written to: \
                 mount it so, or copy the database with that file to another disk",
                path.display()
            ),
            Self::Poisoned => f.write_str("an earlier failure could not be undone in this handle: open the database again"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite(e) => Some(e),
            Self::Io { source, .. } | Self::Stream(source) => Some(source),
            Self::Source { error, .. } => Some(error.as_ref()),
            _ => None,
        }
    }
}

/// Decoding failed in what was verified before.
pub(crate) fn bad(error: packmule_core::wire::DecodeError) -> Error {
    Error::damaged(format!("a frame in the log: {error}"))
}
