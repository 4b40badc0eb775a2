//! Stable names of what went wrong, for programs: words change, these do not.

use std::io;

use packmule_core::wire::DecodeError;
use rusqlite::ErrorCode;

use super::{BundleProblem, Error};

/// Defines the codes, and the list of them.
macro_rules! codes {
    ($($name:ident = $text:literal;)*) => {
        $(const $name: &str = $text;)*

        impl Error {
            /// Every code that [`Error::code`] can return; [`docs::errors`](crate::docs::errors) says of each what it
            /// means and what to do.
            pub const CODES: &[&str] = &[$($name),*];
        }
    };
}

codes! {
    ALREADY_A_DEVICE = "already-a-device";
    AMBIGUOUS_DEVICE = "ambiguous-device";
    ASKS_FOR_ADMISSION = "asks-for-admission";
    BAD_REQUEST = "bad-request";
    BUNDLE_DAMAGED = "bundle-damaged";
    BUNDLE_EMPTY = "bundle-empty";
    BUNDLE_ENCRYPTED = "bundle-encrypted";
    BUNDLE_NOT_FOR_US = "bundle-not-for-us";
    BUNDLE_SIGNATURE = "bundle-signature";
    BUNDLE_VERSION = "bundle-version";
    CANNOT_RESOLVE = "cannot-resolve";
    CANNOT_TRACK = "cannot-track";
    DATABASE_BUSY = "database-busy";
    DATABASE_CORRUPT = "database-corrupt";
    DATABASE_NEWER = "database-newer";
    DATABASE_REPLACED = "database-replaced";
    DISK_FULL = "disk-full";
    FILE_EXISTS = "file-exists";
    FILE_NOT_FOUND = "file-not-found";
    GROUP_TOO_LARGE = "group-too-large";
    IS_A_BUNDLE = "is-a-bundle";
    IS_A_SNAPSHOT = "is-a-snapshot";
    IO = "io";
    KEY_DENIED = "key-denied";
    KEY_LOOSE = "key-loose";
    KEY_MISSING = "key-missing";
    KEY_UNPROTECTED = "key-unprotected";
    LOG_DAMAGED = "log-damaged";
    NOT_A_BUNDLE = "not-a-bundle";
    NOT_A_DATABASE = "not-a-database";
    NOT_A_DEVICE = "not-a-device";
    OUT_OF_MEMORY = "out-of-memory";
    PASSPHRASE_NEEDED = "passphrase-needed";
    PASSPHRASE_WRONG = "passphrase-wrong";
    PERMISSION_DENIED = "permission-denied";
    READ_ONLY = "read-only";
    REOPEN = "reopen";
    REVOKED = "revoked";
    ROLLED_BACK = "rolled-back";
    ROW_REFUSED = "row-refused";
    SQLITE = "sqlite";
    STATE_REFUSED = "state-refused";
    TABLES_CHANGED = "tables-changed";
    TWIN = "twin";
    UNKNOWN_CONFLICT = "unknown-conflict";
    UNKNOWN_DEVICE = "unknown-device";
    UNKNOWN_TABLE = "unknown-table";
    UNTRUSTED = "untrusted";
    WAL_UNREAD = "wal-unread";
}

impl Error {
    /// Returns what went wrong as a code, one of [`Error::CODES`]: it stays what it is, whatever the words become.
    /// Codes can be added.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sqlite(e) => of_sqlite(e),
            Self::Io { source, .. } | Self::Stream(source) => Self::io_code(source),
            Self::NotADevice => NOT_A_DEVICE,
            Self::Replaced { .. } | Self::Moved { .. } => DATABASE_REPLACED,
            Self::AlreadyADevice { .. } => ALREADY_A_DEVICE,
            Self::NewerDatabase { .. } => DATABASE_NEWER,
            Self::KeyMissing { .. } => KEY_MISSING,
            Self::KeyDenied { .. } => KEY_DENIED,
            Self::KeyLoose { .. } => KEY_LOOSE,
            Self::KeyUnprotected { .. } => KEY_UNPROTECTED,
            Self::KeyPassphrase { wrong: false, .. } => PASSPHRASE_NEEDED,
            Self::KeyPassphrase { wrong: true, .. } => PASSPHRASE_WRONG,
            Self::UnknownTable { .. } => UNKNOWN_TABLE,
            Self::CannotTrack { .. } => CANNOT_TRACK,
            Self::Untrusted(_) => UNTRUSTED,
            Self::Revoked { .. } => REVOKED,
            Self::AsksForAdmission { .. } => ASKS_FOR_ADMISSION,
            Self::Bundle { cause, .. } => of_bundle(cause),
            Self::Twin { .. } => TWIN,
            Self::Endless { .. } => GROUP_TOO_LARGE,
            Self::RolledBack => ROLLED_BACK,
            Self::TablesChanged => TABLES_CHANGED,
            Self::Row { .. } => ROW_REFUSED,
            Self::Device { candidates, .. } if candidates.is_empty() => UNKNOWN_DEVICE,
            Self::Device { .. } => AMBIGUOUS_DEVICE,
            Self::NoSuchConflict { .. } => UNKNOWN_CONFLICT,
            Self::CannotResolve { .. } => CANNOT_RESOLVE,
            Self::Usage(_) => BAD_REQUEST,
            Self::Damaged(_) => LOG_DAMAGED,
            Self::Source { error, .. } => error.code(),
            Self::WalUnread { .. } => WAL_UNREAD,
            Self::Poisoned => REOPEN,
        }
    }

    /// Returns the code of what the system refused to do with a file.
    pub fn io_code(error: &io::Error) -> &'static str {
        match error.kind() {
            io::ErrorKind::NotFound => FILE_NOT_FOUND,
            io::ErrorKind::PermissionDenied => PERMISSION_DENIED,
            io::ErrorKind::AlreadyExists => FILE_EXISTS,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DISK_FULL,
            io::ErrorKind::ReadOnlyFilesystem => READ_ONLY,
            io::ErrorKind::OutOfMemory => OUT_OF_MEMORY,
            _ => IO,
        }
    }
}

fn of_sqlite(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DATABASE_BUSY,
        Some(ErrorCode::DatabaseCorrupt) => DATABASE_CORRUPT,
        Some(ErrorCode::NotADatabase) => NOT_A_DATABASE,
        Some(ErrorCode::DiskFull) => DISK_FULL,
        Some(ErrorCode::ReadOnly) => READ_ONLY,
        Some(ErrorCode::PermissionDenied) => PERMISSION_DENIED,
        Some(ErrorCode::OutOfMemory) => OUT_OF_MEMORY,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => IO,
        _ => SQLITE,
    }
}

fn of_bundle(problem: &BundleProblem) -> &'static str {
    match problem {
        BundleProblem::NotABundle => NOT_A_BUNDLE,
        BundleProblem::IsASnapshot => IS_A_SNAPSHOT,
        BundleProblem::IsABundle => IS_A_BUNDLE,
        BundleProblem::Empty => BUNDLE_EMPTY,
        BundleProblem::Decode(DecodeError::Version(_)) => BUNDLE_VERSION,
        BundleProblem::Decode(_) | BundleProblem::Structure(_) | BundleProblem::Ciphertext { .. } => {
            BUNDLE_DAMAGED
        }
        BundleProblem::Signature(_) => BUNDLE_SIGNATURE,
        BundleProblem::State(_) => STATE_REFUSED,
        BundleProblem::Encrypted => BUNDLE_ENCRYPTED,
        BundleProblem::NotForUs { .. } => BUNDLE_NOT_FOR_US,
        BundleProblem::PassphraseNeeded => PASSPHRASE_NEEDED,
        BundleProblem::WrongPassphrase => PASSPHRASE_WRONG,
    }
}
