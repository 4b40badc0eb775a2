//! What an exchange with a card did.

use std::path::PathBuf;

use packmule_core::model::DeviceId;

use crate::engine::{Error, ImportReport};

/// What an exchange did.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Exchange {
    /// Bundles that were taken in.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::taken"))]
    pub taken: Vec<(PathBuf, ImportReport)>,
    /// Bundles of others with nothing for us; what their senders have is known now.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::files"))]
    pub heard: Vec<PathBuf>,
    /// Files that were skipped, and why.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::reasons"))]
    pub stepped_over: Vec<(PathBuf, Skipped)>,
    /// Bundles that were left.
    pub left: Vec<Left>,
    /// Bundles of ours that lie there still, from earlier.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::files"))]
    pub waiting: Vec<PathBuf>,
    /// Bundles of ours that were removed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::reasons"))]
    pub removed: Vec<(PathBuf, Removed)>,
    /// Why not all could be left that others lack.
    pub not_left: Option<NotLeft>,
}

/// Why a file was skipped.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Skipped {
    /// It is no bundle by its name or its first bytes.
    Foreign,
    /// As a bundle, it is not in order, or not to be taken in.
    Refused(#[cfg_attr(feature = "serde", serde(serialize_with = "json::text"))] Error),
}

/// A bundle that was left.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Left {
    /// The file.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::file"))]
    pub file: PathBuf,
    /// For whom; `None` is anyone.
    #[cfg_attr(feature = "serde", serde(rename = "for"))]
    pub receiver: Option<DeviceId>,
    /// Frames in it. One without frames only states what we have.
    pub frames: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// It has the state of the shared tables: its receiver lacks frames that are folded here.
    pub state: bool,
    /// It is encrypted to the fleet.
    pub encrypted: bool,
    /// It has this device's certificate or request, and nothing else: who does not know that cannot encrypt to this
    /// device.
    pub introduction: bool,
}

/// Why a bundle of ours was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Removed {
    /// All who are to have it have it.
    Acknowledged,
    /// It was not written to its end.
    Torn,
    /// A later one states more.
    Superseded,
    /// It was for a device that is revoked.
    Revoked,
    /// It was for a device that is retired.
    Retired,
    /// It was for a device that goes on under a new identity.
    NewIdentity,
    /// It was for a device that is not trusted here.
    Untrusted,
    /// It was not encrypted, and what is left now is.
    InClear,
    /// A device that is revoked could read it.
    ReadByRevoked,
    /// It was not encrypted to a device that is known now and lacks it.
    Unreadable,
}

/// Why not all could be left.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum NotLeft {
    /// The card cannot be written to.
    ReadOnly,
    /// The card is full; the oldest frames came first. What was to come next has so many bytes.
    Full {
        /// The length of the group that had no room.
        next_bytes: Option<u64>,
    },
    /// A single group is longer than a file can be.
    TooLong {
        /// Its length.
        next_bytes: u64,
    },
}

/// How files, and what was done with them, are serialised.
#[cfg(feature = "serde")]
mod json {
    use std::path::{Path, PathBuf};

    use serde::{Serialize, Serializer};

    use crate::engine::{Error, ImportReport};

    /// A file, with the report of it.
    #[derive(Serialize)]
    struct Taken<'a> {
        file: String,
        #[serde(flatten)]
        report: &'a ImportReport,
    }

    /// A file, with the reason of what was done with it.
    #[derive(Serialize)]
    struct Reason<'a, T> {
        file: String,
        reason: &'a T,
    }

    fn shown(file: &Path) -> String {
        file.display().to_string()
    }

    pub(super) fn taken<S: Serializer>(list: &[(PathBuf, ImportReport)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|(file, report)| Taken { file: shown(file), report }))
    }

    pub(super) fn reasons<S: Serializer>(
        list: &[(PathBuf, impl Serialize)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|(file, reason)| Reason { file: shown(file), reason }))
    }

    pub(super) fn files<S: Serializer>(list: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|file| shown(file)))
    }

    pub(super) fn file<S: Serializer>(file: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&file.display())
    }

    pub(super) fn text<S: Serializer>(error: &Error, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(error)
    }
}
