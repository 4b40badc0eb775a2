//! The JSON documents: for each command a type, whose fields are those that are printed.
//!
//! Imports `text`. `src/docs/json.md` is made from these types, with their comments; a test compares it to
//! them, and another one to what commands print. Fields can be added; those that are there keep their names.
//!
//! | file | documents of |
//! |---|---|
//! | `devices` | `init`, `fleet new`, `fleet rotate`, `admit`, `trust`, `revoke`, `devices`, `retire`, `rename`, `join` |
//! | `tables` | `track`, `untrack`, `schema`, `seal`, `compact`, `snapshot` |
//! | `carry` | `export`, `import`, `merge`, `exchange`, `sync`, `serve` |
//! | `conflicts` | `conflicts`, `resolve` |
//! | `look` | `status`, `log`, `digest`, `verify`, `inspect`, `board`, `demo` |
//! | `run` | `run`, `find` |
//! | `own` | `completions`, `man`, `board install`, `board remove`, `board check`, `board card` |
//! | `report` | how reports of the library look that are printed as they are, in tests alone |
//! | `page` | the page, in tests alone |

mod carry;
mod conflicts;
mod devices;
mod look;
mod own;
#[cfg(test)]
mod page;
#[cfg(test)]
mod report;
mod run;
mod tables;

#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

pub use carry::{
    CardFile, Counts, Event, Exchanged, Exported, File, Imported, Reason, Synced, Taken, WaitGroup,
};
pub use conflicts::{
    Broken, Conflicts, DecidedByPrograms, DecidedConflict, OpenConflicts, RefusedDecision, Resolved, Undone,
    UndoneRow,
};
pub use devices::{
    AdmittedDevices, Device, Devices, FleetKeyMade, FleetKeyRotated, Initialised, Joined, Known, Maker,
    Removed, Renamed, Request, Retired, Revoked, Trusted,
};
pub use look::{
    AtWritten, Board, Demo, Digest, Encrypted, Inspected, LinkCarried, LogGroup, LogSize, Memory, Reported,
    Restored, Status, TakenBackWrites, ToDo, Uart, Verified,
};
pub use own::{BoardChecked, CardChecked, Completions, Installed, Manual, RemovedServices, WrittenFile};
#[cfg(feature = "net")]
pub use run::FoundDevice;
#[cfg(any(feature = "net", test))]
pub use run::FoundDevices;
pub use run::{LinkChecked, LinkState, RunChecked, RunState, UpkeepChecked};
pub use tables::{Changed, Sealed, SnapshotWritten, Tracked, TrackedTable, Untracked};

/// What any command prints that was refused or failed; the command's own document may have `error` too.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ErrorDocument<'a> {
    /// Why, and what to do.
    pub error: &'a str,
    /// What it is, for programs: a code of `src/docs/errors.md`, which stays what it is.
    pub code: &'a str,
    /// The file that it is about, or null if it is about none; wrong usage has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Option<&'a str>>,
    /// The devices that are not trusted, if that is why.
    #[serde(rename = "strangers", skip_serializing_if = "Vec::is_empty")]
    pub untrusted: Vec<Untrusted<'a>>,
}

/// Why a command failed that has printed more than that: fields of its own document.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct OwnError {
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same for programs, as of any command that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

impl OwnError {
    /// It was done.
    pub const NONE: Self = Self { error: None, code: None };

    /// It failed for this reason.
    pub fn of(error: impl Into<String>, code: &'static str) -> Self {
        Self { error: Some(error.into()), code: Some(code) }
    }
}

/// A device that is not trusted.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Untrusted<'a> {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its name, as it says itself.
    pub name: Option<&'a str>,
    /// It was trusted before, and is revoked.
    pub revoked: bool,
}
