//! Errors in words: what happened, and to what. What to do next is [`super::Hint`], as data.

use std::fmt;
use std::path::Path;

use packmule_core::wire::DecodeError;
use rusqlite::ErrorCode;

use super::{BundleProblem, Error, ID_LEAST, UntrustedDevice};

/// Returns the name of a file that can lie on a card of others: it is no line of its own.
fn one_line(path: &Path) -> String {
    path.display().to_string().replace('\n', r"\n")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(e) => sqlite(f, e),
            Self::Io { doing, path, source } => write!(f, "could not {doing} {}: {source}", one_line(path)),
            Self::Stream(e) => write!(f, "reading or writing the bundle failed: {e}"),
            Self::Bundle { offset, cause } => match cause {
                BundleProblem::NotABundle
                | BundleProblem::Empty
                | BundleProblem::IsASnapshot
                | BundleProblem::IsABundle
                | BundleProblem::State(_)
                | BundleProblem::Encrypted
                | BundleProblem::NotForUs { .. }
                | BundleProblem::PassphraseNeeded
                | BundleProblem::WrongPassphrase => write!(f, "{cause}"),
                cause => write!(f, "{cause} (at byte {offset})"),
            },
            Self::Usage(reason) => f.write_str(reason),
            Self::Damaged(what) => write!(f, "Packmule's own tables in the database are damaged ({what})"),
            Self::Endless { bytes } => write!(
                f,
                "{} MiB of one transaction came over the line, and not its end: more is not kept, so that the disk stays usable; \
                 if so much was written there at once, make room here or carry it as a bundle",
                bytes >> 20
            ),
            Self::Source { path, error } => write!(f, "{}: {error}", one_line(path)),
            Self::Poisoned => {
                f.write_str("an earlier failure could not be undone in this handle: open the database again")
            }
            Self::NotADevice
            | Self::Replaced { .. }
            | Self::Moved { .. }
            | Self::AlreadyADevice { .. }
            | Self::NewerDatabase { .. }
            | Self::KeyMissing { .. }
            | Self::KeyDenied { .. }
            | Self::KeyLoose { .. }
            | Self::KeyUnprotected { .. }
            | Self::KeyPassphrase { .. }
            | Self::WalUnread { .. } => self.of_the_database(f),
            Self::Untrusted(_)
            | Self::Revoked { .. }
            | Self::AsksForAdmission { .. }
            | Self::Twin { .. }
            | Self::RolledBack
            | Self::Device { .. } => self.of_devices(f),
            Self::TablesChanged => {
                f.write_str("tracked tables have other columns or names than at the last seal")
            }
            Self::UnknownTable { .. }
            | Self::CannotTrack { .. }
            | Self::Row { .. }
            | Self::NoSuchConflict { .. }
            | Self::CannotResolve { .. } => self.of_tables(f),
        }
    }
}

impl Error {
    fn of_the_database(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replaced { key } => write!(
                f,
                "this is another file than the one that was made a device: the device's key lies beside it ({}), but \
                 Packmule's tables are not in it; an application has put a new file in its place. Put the old file back, \
                 and have the application write into it instead; or, to begin again with this one, move the key away and \
                 run `packmule init`",
                key.display()
            ),
            Self::Moved { path } => write!(
                f,
                "{} was moved, deleted or replaced by another file while Packmule had it open: nothing more is written to \
                 the old one; what is there now is taken up by the next command, and by the next round of `packmule run`",
                path.display()
            ),
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
            Self::KeyDenied { path } => write!(
                f,
                "the secret key {} is needed, and this user may not read it: be who owns it, or root",
                path.display()
            ),
            Self::KeyLoose { path, mode } => write!(
                f,
                "the secret key {} can be read by others than its owner (mode {mode:o}), and is not used like that",
                path.display()
            ),
            Self::KeyUnprotected { path } => write!(
                f,
                "the secret key {} cannot be kept from other users there: the file system keeps no permissions (FAT and \
                 exFAT do not). Put the database on one that does, for instance ext4, or mount this one with umask=077; \
                 nothing was made",
                path.display()
            ),
            Self::KeyPassphrase { path, wrong: false } => {
                write!(f, "the key {} has a passphrase, and none is given", path.display())
            }
            Self::KeyPassphrase { path, .. } => {
                write!(f, "that is not the passphrase of the key {}", path.display())
            }
            Self::WalUnread { path } => write!(
                f,
                "the last writes are still in {}, and can be read only where the disk may be written to: mount it so, \
                 or copy the database with that file to another disk",
                path.display()
            ),
            _ => f.write_str("the database is not a Packmule device yet"),
        }
    }

    fn of_devices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(devices) => untrusted(f, devices),
            Self::Revoked { device, fleet: true, .. } => {
                write!(f, "{device} was revoked by the fleet's key, which alone takes that back; nothing was changed")
            }
            Self::Revoked { device, .. } => {
                write!(f, "{device} was revoked here, which is taken back by a step of its own; nothing was changed")
            }
            Self::AsksForAdmission { devices, .. } => {
                for (n, device) in devices.iter().enumerate() {
                    let and = if n > 0 { ", " } else { "" };
                    let name = device.name.as_deref().unwrap_or("(no certificate)");
                    write!(f, "{and}{name} (fingerprint {})", device.id)?;
                }
                let of = if devices.len() == 1 { "is not of this fleet yet, and asks" } else { "are not of this fleet yet, and ask" };
                write!(f, " {of} for admission")
            }
            Self::Twin { device, seq } => write!(
                f,
                "{device} has two histories from frame {seq} on: its database or SD card was copied, or restored from a \
                 backup, and both went on writing; nothing of the second history was taken in. The second one takes a new \
                 identity, with all that it wrote, when a bundle from here or a session with this device reaches it. Other \
                 devices that took in the second history give it up when the first reaches them from a base"
            ),
            Self::Device { given, candidates } if candidates.is_empty() => {
                write!(f, "no device `{given}` is known here")
            }
            Self::Device { given, candidates } => {
                write!(f, "`{given}` could be {}", candidates.join(" or "))
            }
            _ => f.write_str(
                "this database was restored from an older backup: others have frames of this device that are not here",
            ),
        }
    }

    fn of_tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTable { table, tracked } if tracked.is_empty() => {
                write!(f, "no table `{table}` is tracked here (none is)")
            }
            Self::UnknownTable { table, tracked } => {
                write!(f, "no table `{table}` is tracked here; tracked are: {}", tracked.join(", "))
            }
            Self::CannotTrack { table, reason } => write!(f, "table `{table}` cannot be tracked: {reason}"),
            Self::Row { table, reason } => write!(f, "a row of `{table}` cannot be carried: {reason}"),
            Self::NoSuchConflict { id, .. } if id.len() < ID_LEAST => {
                write!(f, "`{id}` is too short for a conflict's id: give at least {ID_LEAST} digits of it")
            }
            Self::NoSuchConflict { id, begun: begun @ 2.., .. } => {
                write!(f, "the ids of {begun} open conflicts begin with `{id}`: give more digits")
            }
            Self::NoSuchConflict { id, open, .. } => write!(
                f,
                "no open conflict has the id `{id}` (open now: {open}): it was resolved, its table is held now, or a further \
                 version came and gave it a new id"
            ),
            Self::CannotResolve { reason, .. } => {
                write!(f, "the conflict cannot be resolved this way: {reason}")
            }
            _ => Ok(()),
        }
    }
}

fn sqlite(f: &mut fmt::Formatter<'_>, error: &rusqlite::Error) -> fmt::Result {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            f.write_str(
                "the database is locked by another program, which is in the middle of a write, or of a read if it is not in \
                 WAL mode, or keeps it for itself (PRAGMA locking_mode = EXCLUSIVE)",
            )
        }
        Some(ErrorCode::NotADatabase) => f.write_str(
                "the file is not an SQLite database, or is encrypted: give the one that the application writes to",
            ),
        Some(ErrorCode::ReadOnly) => f.write_str(
            "the database is read-only: check the file's and its folder's permissions, and how the disk is mounted",
        ),
        Some(ErrorCode::CannotOpen) => {
            f.write_str("the database cannot be opened: check that its folder exists and may be written to")
        }
        Some(ErrorCode::DiskFull) => f.write_str(
            "the disk is full: nothing of this was kept; free some space (`df` shows it) and try \
             again",
        ),
        Some(ErrorCode::SystemIoFailure) => f.write_str(io_failure(error)),
        Some(ErrorCode::DatabaseCorrupt) => write!(f, "the database is damaged ({error})"),
        _ => write!(f, "SQLite: {error}"),
    }
}

/// Says what failed of the disk, and what to do.
fn io_failure(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ffi::{
        SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_GETTEMPPATH, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ,
    };
    match error.sqlite_error().map(|e| e.extended_code) {
        Some(SQLITE_IOERR_READ | SQLITE_IOERR_SHORT_READ | SQLITE_IOERR_CORRUPTFS) => {
            "the database file could not be read: the disk or card fails, or was pulled out (`dmesg` says more); copy what \
             can be read to another one, then run `packmule verify` on the copy"
        }
        Some(SQLITE_IOERR_GETTEMPPATH) => {
            "there is no folder for temporary files: nobody may write to /tmp and /var/tmp here; let this user do so, or name \
             a folder that he may write to in the variable SQLITE_TMPDIR; nothing of this was kept"
        }
        _ => {
            "the disk did not take what was written: it may be full (`df` shows it), pulled out or failing (`dmesg` says \
             more); nothing of this was kept; try again when it is well"
        }
    }
}

/// So many devices are named, and no more: a stranger can bring any number of them.
const UNTRUSTED_MAX: usize = 10;

fn untrusted(f: &mut fmt::Formatter<'_>, devices: &[UntrustedDevice]) -> fmt::Result {
    let revoked = devices.iter().all(|device| device.revoked);
    let whose = if revoked { "revoked devices" } else { "devices that are not trusted here" };
    write!(f, "the bundle has frames of {whose}:")?;
    for device in devices.iter().take(UNTRUSTED_MAX) {
        let name = device.name.as_deref().unwrap_or("(no certificate)");
        let revoked = if device.revoked { "  (revoked)" } else { "" };
        write!(f, "\n  {name}  fingerprint {}{revoked}", device.id)?;
    }
    match devices.len().saturating_sub(UNTRUSTED_MAX) {
        0 => Ok(()),
        more => write!(f, "\n  and {more} more"),
    }
}

impl fmt::Display for BundleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotABundle => f.write_str("this is not a Packmule bundle, nor a snapshot"),
            Self::IsASnapshot => f.write_str("this is a snapshot, not a bundle"),
            Self::IsABundle => f.write_str("this is a bundle, not a snapshot"),
            Self::Empty => f.write_str("the bundle is empty: it was not written to its end"),
            Self::Decode(DecodeError::Short) => {
                f.write_str("the bundle is cut short: it was not written to its end")
            }
            Self::Decode(DecodeError::Version(v)) => write!(f, "{}", DecodeError::Version(*v)),
            Self::Decode(e) => write!(f, "the bundle is damaged: {e}"),
            Self::Signature(who) => {
                write!(f, "the signature of {who} does not match: the bundle was altered on the way")
            }
            Self::Structure(what) => write!(f, "the bundle does not hold together ({what})"),
            Self::State(why) => write!(
                f,
                "the state in it cannot be taken in ({why}): whoever made it has it wrong; take one from another device"
            ),
            Self::Encrypted => f.write_str("this is an encrypted bundle"),
            Self::NotForUs { slots, keyless: true } => {
                write!(
                    f,
                    "the bundle is encrypted to {slots} devices at most, and no device's key is at hand"
                )
            }
            Self::NotForUs { slots, keyless: false } => {
                write!(
                    f,
                    "the bundle is encrypted to {slots} devices at most, and this device is none of them"
                )
            }
            Self::PassphraseNeeded => {
                f.write_str("the bundle is encrypted with a passphrase, which is not given")
            }
            Self::WrongPassphrase => f.write_str(
                "the bundle is encrypted with another passphrase than this, or its first bytes are damaged",
            ),
            Self::Ciphertext { .. } => f.write_str(
                "the bundle is encrypted, and was cut short or altered since: it cannot be decrypted",
            ),
        }
    }
}
