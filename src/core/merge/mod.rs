//! Who wins: pure functions of versions and of what their authors had seen.
//!
//! Imports [`crate::model`]. Nothing here knows how a version got here, or when.

use core::cmp::Ordering;

use crate::model::{DeviceId, WallMs};

/// What the decision needs to know of a version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Version {
    /// Who wrote it.
    pub author: DeviceId,
    /// The place in its author's stream.
    pub seq: u64,
    /// When, by its author's clock.
    pub wall: WallMs,
    /// It is a delete.
    pub delete: bool,
}

/// Whether a new version dominates an older one: whether its author had seen it.
///
/// `seen` is the last sequence number of `old`'s author in the new version's context. A blind
/// version dominates only its own author's.
pub fn dominates(new_author: DeviceId, blind: bool, old: &Version, seen: u64) -> bool {
    old.author == new_author || (!blind && seen >= old.seq)
}

/// Orders concurrent versions; the greatest is shown.
///
/// An update wins over a delete, then the later wall time, then the greater author id. Total over
/// the versions of one row, of which an author has at most one that is not dominated.
pub fn precedence(a: &Version, b: &Version) -> Ordering {
    (!a.delete, a.wall, a.author, a.seq).cmp(&(!b.delete, b.wall, b.author, b.seq))
}

/// The place of the winner among concurrent versions; `None` if there are none.
pub fn winner<'v>(versions: impl IntoIterator<Item = &'v Version>) -> Option<usize> {
    versions.into_iter().enumerate().max_by(|a, b| precedence(a.1, b.1)).map(|(at, _)| at)
}

/// What decides which of two rows keeps a UNIQUE value: the stamp of the write that claimed it,
/// then the row's key. The lesser is shown.
pub fn claim_order(a: (u64, &[u8]), b: (u64, &[u8])) -> Ordering {
    a.cmp(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId([1; 16]);
    const B: DeviceId = DeviceId([2; 16]);

    fn version(author: DeviceId, wall: WallMs, delete: bool) -> Version {
        Version { author, seq: 7, wall, delete }
    }

    #[test]
    fn domination_is_by_context_alone() {
        // (new author, blind, seen) → dominates a version 7 of A
        for (author, blind, seen, expected) in [
            (B, false, 6, false),
            (B, false, 7, true),
            (B, false, 8, true),
            (B, true, 8, false),
            (A, true, 0, true),
            (A, false, 0, true),
        ] {
            let old = version(A, i64::MAX, false);
            assert_eq!(dominates(author, blind, &old, seen), expected, "{author:?} {blind} {seen}");
        }
    }

    #[test]
    fn update_then_time_then_author() {
        for (a, b, a_wins) in [
            (version(A, 1, false), version(B, 9, true), true),
            (version(A, 1, false), version(B, 9, false), false),
            (version(A, 9, false), version(B, 1, false), true),
            (version(A, 1, true), version(B, 9, true), false),
            (version(A, 5, false), version(B, 5, false), false),
        ] {
            assert_eq!(winner([&a, &b]), Some(usize::from(!a_wins)));
            assert_eq!(
                winner([&b, &a]),
                Some(usize::from(a_wins)),
                "the order of arrival counts for nothing"
            );
        }
        assert_eq!(winner([]), None);
    }
}
