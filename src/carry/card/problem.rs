//! What is wrong with a card or a file on it.

use std::io;

use crate::engine::{BundleProblem, Error};

/// Returns whether a card is read-only.
pub(super) fn read_only(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Returns whether a card is full.
pub(super) fn full(e: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Returns whether a bundle of ours that has this problem was not written to its end, or was damaged since: in either
/// case nobody can take it in. What this device encrypts has a slot for itself: where its key opens none, it is damaged.
pub(super) fn torn(problem: &Error) -> bool {
    use packmule_core::wire::DecodeError::Version;
    match problem {
        Error::Bundle {
            cause:
                BundleProblem::Decode(Version(_))
                | BundleProblem::PassphraseNeeded
                | BundleProblem::WrongPassphrase
                | BundleProblem::NotForUs { keyless: true, .. },
            ..
        } => false,
        Error::Bundle { .. } => true,
        _ => false,
    }
}

/// Returns whether a bundle is encrypted, and this device cannot read it.
pub(super) fn locked(problem: &Error) -> bool {
    matches!(problem, Error::Bundle { cause: BundleProblem::NotForUs { .. }, .. })
}

/// Returns whether an error is about a file on the card, and not about the database.
pub(super) fn about_file(error: &Error) -> bool {
    use Error::{AsksForAdmission, Bundle, Stream, Twin, Untrusted};
    matches!(error, Bundle { .. } | Stream(_) | Untrusted(_) | AsksForAdmission { .. } | Twin { .. })
}
