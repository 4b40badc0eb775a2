//! What can go wrong. [`text`] puts it into words; what a person can do about it is data, a [`Hint`], so that each
//! front end says it in its own way. `code` gives each a name that stays, for programs.

mod code;
mod hint;
mod text;

use std::io;
use std::path::PathBuf;

use packmule_core::model::DeviceId;
use packmule_core::wire::DecodeError;

pub use hint::{Hint, Way};

/// The shortest beginning of a conflict's id that is taken for one.
pub(crate) const ID_LEAST: usize = 4;

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
    /// The file has none of Packmule's tables, but a device's secret key lies beside it: an application has put another
    /// file in the place of the database.
    Replaced {
        /// The key file.
        key: PathBuf,
    },
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
    /// This user may not read a key file.
    KeyDenied {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner can read a key file.
    KeyLoose {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file that others cannot read cannot be made there, so no key was.
    KeyUnprotected {
        /// Where the key was to be.
        path: PathBuf,
    },
    /// A key file is under a passphrase.
    KeyPassphrase {
        /// The file.
        path: PathBuf,
        /// One was given, and is not its.
        wrong: bool,
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
    /// A bundle has frames of devices that this one does not trust.
    Untrusted(Vec<UntrustedDevice>),
    /// A device that is to be trusted is revoked.
    Revoked {
        /// The device, by its label.
        device: String,
        /// Its id.
        id: DeviceId,
        /// The fleet's key says so.
        fleet: bool,
    },
    /// A bundle, or the other end, is of devices that ask this device's fleet for admission: nothing of them is taken in
    /// until the fleet key has signed their certificates.
    AsksForAdmission {
        /// Who asks.
        devices: Vec<UntrustedDevice>,
        /// This device is a base.
        base: bool,
    },
    /// The bytes are not a bundle, or are damaged.
    Bundle {
        /// Where in the stream, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        cause: BundleProblem,
    },
    /// More came of a group of frames by a session, without its end, than is kept.
    Endless {
        /// How many bytes came.
        bytes: u64,
    },
    /// One device identity has two histories.
    Twin {
        /// The device.
        device: String,
        /// The first sequence number at which they differ, or before.
        seq: u64,
    },
    /// This device was rolled back, and would begin a second history.
    RolledBack,
    /// A tracked table has other columns or another name than at the last seal, and what was asked for reads rows.
    TablesChanged,
    /// A row cannot be carried.
    Row {
        /// The table.
        table: String,
        /// Why.
        reason: String,
    },
    /// No device, or more than one, is meant by this.
    Device {
        /// What was given.
        given: String,
        /// Which devices it could be.
        candidates: Vec<String>,
    },
    /// No open conflict, or more than one, is meant by this id.
    NoSuchConflict {
        /// The id, or the beginning of one.
        id: String,
        /// How many are open.
        open: usize,
        /// How many of them begin so.
        begun: usize,
    },
    /// The conflict cannot be resolved in this way.
    CannotResolve {
        /// Why.
        reason: String,
        /// The ways in which it can be.
        ways: &'static [Way],
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
    /// The database was moved or deleted, or another file was put in its place, since this handle was opened. What is
    /// there now can be opened anew.
    Moved {
        /// Where the database was.
        path: PathBuf,
    },
    /// An earlier failure could not be rolled back; this handle is not used any more.
    Poisoned,
}

/// A device that a bundle has frames of, and that is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntrustedDevice {
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
    /// It is a snapshot, from which a device starts.
    IsASnapshot,
    /// It is a bundle where a snapshot is needed.
    IsABundle,
    /// It is empty.
    Empty,
    /// An item in it is damaged or of another version.
    Decode(DecodeError),
    /// An author's signature does not match.
    Signature(String),
    /// The parts do not fit together; what.
    Structure(&'static str),
    /// What a state in it says cannot be taken in; why.
    State(String),
    /// It is encrypted, and is read as if it were not, or where nothing encrypted can be.
    Encrypted,
    /// It is encrypted to devices, and the key that is at hand is of none of them.
    NotForUs {
        /// At most to so many devices.
        slots: u16,
        /// No device's key is at hand.
        keyless: bool,
    },
    /// It is encrypted with a passphrase, and none was given.
    PassphraseNeeded,
    /// It is encrypted with another passphrase, or damaged.
    WrongPassphrase,
    /// What is encrypted was cut short or altered.
    Ciphertext {
        /// Where the part of it begins that does not verify, in bytes from the file's beginning.
        chunk: u64,
    },
}

impl std::error::Error for BundleProblem {}

/// The engine's result, within: an error is one pointer on its way up, and the program a twentieth smaller for it. What
/// the engine gives to others has [`Error`] itself.
pub(crate) type Result<T, E = Box<Error>> = std::result::Result<T, E>;

/// Returns whether an error of SQLite is the machine's, as [`is_of_machine`] says.
pub(crate) fn is_machine_failure(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(is_of_machine)
}

/// Returns whether a failure of SQLite is the machine's, and not about what was to be done: its disk, its memory, a lock,
/// the file itself.
pub(crate) fn is_of_machine(code: rusqlite::ErrorCode) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
        NotADatabase, OperationAborted, OperationInterrupted, OutOfMemory, ReadOnly, SystemIoFailure,
    };
    matches!(
        code,
        CannotOpen
            | DatabaseBusy
            | DatabaseCorrupt
            | DatabaseLocked
            | DiskFull
            | FileLockingProtocolFailed
            | NotADatabase
            | OperationAborted
            | OperationInterrupted
            | OutOfMemory
            | ReadOnly
            | SystemIoFailure
    )
}

impl Error {
    /// Whether SQLite would have to write where it cannot, as it has to even for reading in WAL mode:
    /// then [`Engine::open_read_only`](super::Engine::open_read_only) may still read.
    pub fn needs_to_write(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
        matches!(self, Self::Sqlite(e) if matches!(e.sqlite_error_code(), Some(CannotOpen | ReadOnly)))
    }

    /// What SQLite said, if that is it.
    pub(crate) fn of_sqlite(&self) -> Option<&rusqlite::Error> {
        match self {
            Self::Sqlite(e) => Some(e),
            _ => None,
        }
    }

    /// Returns whether something is refused since a device is revoked.
    pub(crate) fn is_of_revoked(&self) -> bool {
        matches!(self, Self::Untrusted(devices) if devices.iter().any(|device| device.revoked))
    }

    /// Returns whether it is the machine's, as [`is_of_machine`] says.
    pub(crate) fn is_machines(&self) -> bool {
        self.of_sqlite().is_some_and(is_machine_failure)
    }

    /// Makes an error of what a bundle's stream said at an offset: it may know what is wrong with the bundle.
    pub(crate) fn reading(offset: u64, error: io::Error) -> Box<Self> {
        match error.downcast::<BundleProblem>() {
            Ok(BundleProblem::Ciphertext { chunk }) => {
                Self::bundle(chunk, BundleProblem::Ciphertext { chunk })
            }
            Ok(problem) => Self::bundle(offset, problem),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Self::bundle(offset, DecodeError::Short),
            Err(e) => Box::new(Self::Stream(e)),
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Box<Self> {
        let path = path.into();
        move |source| Box::new(Self::Io { doing, path, source })
    }

    pub(crate) fn cannot_track(table: &str, reason: impl Into<String>) -> Box<Self> {
        Box::new(Self::CannotTrack { table: table.into(), reason: reason.into() })
    }

    pub(crate) fn cannot_resolve(reason: impl Into<String>, ways: &'static [Way]) -> Box<Self> {
        Box::new(Self::CannotResolve { reason: reason.into(), ways })
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Box<Self> {
        Box::new(Self::Damaged(what.into()))
    }

    pub(crate) fn bundle(offset: u64, cause: impl Into<BundleProblem>) -> Box<Self> {
        Box::new(Self::Bundle { offset, cause: cause.into() })
    }
}

impl From<DecodeError> for BundleProblem {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// What cannot be read as what it is meant to be is damage of our own tables: values of applications are read as they are.
/// This is the one place that says so; a reader that knows more says it by an [`Error`] in `FromSqlError::Other`.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, InvalidParameterCount,
            QueryReturnedNoRows, SqliteFailure, ToSqlConversionFailure, Utf8Error,
        };
        match error {
            FromSqlConversionFailure(_, found, cause) => match cause.downcast::<Self>() {
                Ok(said) => *said,
                Err(cause) => Self::Damaged(format!("{found} that cannot be read: {cause}")),
            },
            InvalidColumnType(_, column, found) => {
                Self::Damaged(format!("a value of `{column}` is of the type {found}"))
            }
            IntegralValueOutOfRange(_, number) => {
                Self::Damaged(format!("the number {number} where it has no meaning"))
            }
            ToSqlConversionFailure(cause) => Self::Damaged(format!("a value that cannot be kept: {cause}")),
            QueryReturnedNoRows => Self::Damaged("a row is missing to which another one refers".into()),
            // The number of values that are bound to a statement hangs on nothing else.
            InvalidParameterCount(..) => Self::Damaged("a row's key does not fit its table".into()),
            Utf8Error(_, cause) => Self::Damaged(format!("a text that is not UTF-8: {cause}")),
            SqliteFailure(_, Some(said)) if is_of_our_tables(&said) => Self::Damaged(said),
            error => Self::Sqlite(error),
        }
    }
}

/// Whether SQLite says of a table of ours that it is not there, or that two of its rows contradict each other.
fn is_of_our_tables(said: &str) -> bool {
    ["no such table: ", "UNIQUE constraint failed: ", "NOT NULL constraint failed: "]
        .iter()
        .filter_map(|begin| said.strip_prefix(begin))
        .any(|of| of.strip_prefix("main.").unwrap_or(of).starts_with("_pm_"))
}

impl From<rusqlite::Error> for Box<Error> {
    /// Not inlined: each statement that is run has this.
    #[cold]
    #[inline(never)]
    fn from(error: rusqlite::Error) -> Self {
        Self::new(error.into())
    }
}

impl From<Box<Error>> for Error {
    fn from(error: Box<Error>) -> Self {
        *error
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

/// Says that what was verified before cannot be decoded: the log is damaged.
pub(crate) fn bad(error: DecodeError) -> Box<Error> {
    Error::damaged(format!("a frame in the log: {error}"))
}
