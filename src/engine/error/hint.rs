//! What a person can do about an error.

use packmule_core::model::DeviceId;
use rusqlite::ErrorCode;

use super::{BundleProblem, Error};

/// What helps: for a program to say as a command, a button or a sentence of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Hint {
    /// Make the database a device.
    Init,
    /// Track this table.
    Track {
        /// Its name.
        table: String,
    },
    /// Compare each fingerprint with what that device itself shows, then trust it. Never said of a revoked device.
    Trust {
        /// The devices.
        devices: Vec<DeviceId>,
    },
    /// If these devices belong to the fleet, sign their certificates where the fleet key is.
    Admit {
        /// The devices.
        devices: Vec<DeviceId>,
        /// The database has their requests, and is a base's: it is where they are to be signed.
        here: bool,
    },
    /// This device has asked the other end's fleet for admission: sign its certificate there, where the fleet key is.
    AdmitThere {
        /// This device.
        device: DeviceId,
    },
    /// At the other end of a session, trust this device.
    TrustThere {
        /// The device.
        device: DeviceId,
    },
    /// See that the other end of a line runs, at the same rate, and that the wires are crossed.
    CheckTheOtherEnd,
    /// Become a member of the group that may use serial ports.
    JoinThePortsGroup,
    /// Stop the program, or the login, that has the port open.
    FreeThePort,
    /// If no board goes on under this identity, retire it.
    Retire {
        /// The device.
        device: DeviceId,
    },
    /// Look at the list of devices.
    ListDevices,
    /// Let the table go, if it is not to come back.
    Untrack {
        /// The table.
        table: String,
    },
    /// Track the append table so that what is deleted here is deleted elsewhere too.
    CarryDeletes {
        /// The table.
        table: String,
        /// It is a per-device one.
        per_device: bool,
    },
    /// Look at the rows of a table that are meant, or at how it is made.
    ShowRows {
        /// What shows them: SQL, or a command of the `sqlite3` shell.
        query: String,
    },
    /// Look at the list of open conflicts.
    ListConflicts,
    /// Check the log, and keep a copy of the database.
    Verify,
    /// Let SQLite check the file (`PRAGMA integrity_check`).
    CheckIntegrity,
    /// Try again when the other program has finished.
    TryAgain,
    /// Take in what others have of this device first: by a bundle, a card or a session.
    TakeBack,
    /// Seal: that takes in what the application changed.
    Seal,
    /// Bring a bundle to the device that is the second history, or sync with it.
    BringToSecondHistory,
    /// The file is a snapshot: a device starts from it.
    StartFromSnapshot,
    /// The file is a bundle: import takes it in.
    ImportBundle,
    /// Copy the bundle again, or export it again.
    ExportAgain,
    /// The bundle is encrypted, and not to this device: have it made again once its maker has this device's certificate.
    HaveItEncryptedToThis,
    /// The bundle is encrypted to devices: read it where the key of one of them is.
    ReadWithADevice,
    /// Give the passphrase.
    GivePassphrase,
    /// Take the rights of others away from this file.
    Protect {
        /// The file.
        path: std::path::PathBuf,
    },
    /// Set the clock of this device or, if it is not `here`, of the one that is named.
    SetClock {
        /// It is this device's.
        here: bool,
    },
    /// Give more of the id.
    GiveMoreOfTheId,
    /// Resolve the conflict in one of these ways.
    Resolve(&'static [Way]),
}

/// How a conflict can be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// The version of one device.
    Take,
    /// Other values.
    Set,
    /// The row is deleted.
    Delete,
    /// Both rows, one of them under a new key.
    KeepBoth,
    /// Both rows, one of them under a new key and with other values, which a UNIQUE of the table asks for.
    KeepBothWith,
}

impl Way {
    /// Names it in a word, as in `conflicts --json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::KeepBoth => "keep_both",
            Self::KeepBothWith => "keep_both_with",
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Way {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

impl Error {
    /// Returns what a person can do about it, where that is more than the message says.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Sqlite(e) => match e.sqlite_error_code()? {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Hint::TryAgain,
                ErrorCode::DatabaseCorrupt => Hint::CheckIntegrity,
                _ => return None,
            },
            Self::NotADevice => Hint::Init,
            Self::UnknownTable { table, tracked } if tracked.is_empty() => {
                Hint::Track { table: table.clone() }
            }
            Self::Untrusted(devices) => {
                let devices: Vec<_> = devices.iter().filter(|d| !d.revoked).map(|d| d.id).collect();
                if devices.is_empty() {
                    return None;
                }
                Hint::Trust { devices }
            }
            Self::AsksForAdmission { devices, base } => {
                Hint::Admit { devices: devices.iter().map(|d| d.id).collect(), here: *base }
            }
            Self::Bundle { cause, .. } => cause.hint()?,
            Self::KeyLoose { path, .. } => Hint::Protect { path: path.clone() },
            Self::KeyPassphrase { wrong: false, .. } => Hint::GivePassphrase,
            Self::Twin { .. } => Hint::BringToSecondHistory,
            Self::RolledBack => Hint::TakeBack,
            Self::TablesChanged => Hint::Seal,
            Self::Device { candidates, .. } if candidates.is_empty() => Hint::ListDevices,
            Self::Device { .. } => Hint::GiveMoreOfTheId,
            Self::NoSuchConflict { .. } => Hint::ListConflicts,
            Self::CannotResolve { ways, .. } if !ways.is_empty() => Hint::Resolve(ways),
            Self::Damaged(_) => Hint::Verify,
            Self::Source { error, .. } => return error.hint(),
            _ => return None,
        })
    }
}

impl BundleProblem {
    fn hint(&self) -> Option<Hint> {
        match self {
            Self::IsASnapshot => Some(Hint::StartFromSnapshot),
            Self::IsABundle | Self::Encrypted => Some(Hint::ImportBundle),
            Self::NotABundle | Self::Decode(packmule_core::wire::DecodeError::Version(_)) => None,
            Self::NotForUs { keyless: true, .. } => Some(Hint::ReadWithADevice),
            Self::NotForUs { .. } => Some(Hint::HaveItEncryptedToThis),
            Self::PassphraseNeeded => Some(Hint::GivePassphrase),
            Self::WrongPassphrase | Self::State(_) => None,
            Self::Ciphertext { .. } => Some(Hint::ExportAgain),
            Self::Empty | Self::Decode(_) | Self::Signature(_) | Self::Structure(_) => {
                Some(Hint::ExportAgain)
            }
        }
    }
}
