//! Who wins: pure functions of versions and of what their authors had seen.
//!
//! Imports [`crate::model`] and the policies of [`crate::wire`]. Nothing here knows how a version
//! got here, or when.

use core::cmp::Ordering;

use crate::model::{DeviceId, Value, WallMs};
use crate::wire::{ColumnMerge, Policy};

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

/// Returns whether a new version dominates an older one: whether its author had seen it.
///
/// `seen` is the last sequence number of `old`'s author in the new version's context. A context-free
/// write dominates only its own author's.
pub fn dominates(new_author: DeviceId, context_free: bool, old: &Version, seen: u64) -> bool {
    old.author == new_author || (!context_free && seen >= old.seq)
}

/// Orders concurrent versions; the greatest is shown.
///
/// | policy | order |
/// |---|---|
/// | `manual` | an update over a delete, then the later wall time, then the greater author |
/// | `lww` | the later wall time, then as `manual` |
/// | `prefer-device` | that device's over all others, then as `manual` |
pub fn precedence(policy: Policy, a: &Version, b: &Version) -> Ordering {
    let manual = |v: &Version| (!v.delete, v.wall, v.author, v.seq);
    match policy {
        Policy::Manual => manual(a).cmp(&manual(b)),
        Policy::Lww => (a.wall, manual(a)).cmp(&(b.wall, manual(b))),
        Policy::Prefer(device) => (a.author == device, manual(a)).cmp(&(b.author == device, manual(b))),
    }
}

/// Returns the place of the winner among concurrent versions; `None` if there are none.
pub fn winner<'v>(policy: Policy, versions: impl IntoIterator<Item = &'v Version>) -> Option<usize> {
    versions.into_iter().enumerate().max_by(|a, b| precedence(policy, a.1, b.1)).map(|(at, _)| at)
}

/// Returns whether a policy decides among concurrent versions by itself, so that there is no conflict.
pub fn decides<'v>(policy: Policy, versions: impl IntoIterator<Item = &'v Version>) -> bool {
    match policy {
        Policy::Manual => false,
        Policy::Lww => true,
        Policy::Prefer(device) => versions.into_iter().any(|v| v.author == device),
    }
}

/// Returns the place of the winner among concurrent values of one column that has a rule of its own.
///
/// `max` and `min` order as SQLite does: NULL, then numbers, then text, then blobs; equal values are
/// the same to them. `lww` takes the later wall time. Counters have no winner: they add up.
pub fn column_winner<'v>(
    rule: ColumnMerge,
    policy: Policy,
    values: impl IntoIterator<Item = (&'v Version, Value<'v>)>,
) -> Option<usize> {
    let order = |a: &(&Version, Value<'_>), b: &(&Version, Value<'_>)| match rule {
        ColumnMerge::Max => value_order(&a.1, &b.1).then_with(|| precedence(policy, a.0, b.0)),
        ColumnMerge::Min => value_order(&b.1, &a.1).then_with(|| precedence(policy, a.0, b.0)),
        ColumnMerge::Lww => precedence(Policy::Lww, a.0, b.0),
        ColumnMerge::Table | ColumnMerge::Counter => precedence(policy, a.0, b.0),
    };
    values.into_iter().enumerate().max_by(|a, b| order(&a.1, &b.1)).map(|(at, _)| at)
}

/// Compares as SQLite orders values, with the binary collation; by bits where SQLite sees no difference.
pub fn value_order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    fn class(value: &Value<'_>) -> u8 {
        match value {
            Value::Null => 0,
            Value::Int(_) | Value::Real(_) => 1,
            Value::Text(_) => 2,
            Value::Blob(_) => 3,
            Value::Big(big) => 3 - u8::from(big.text),
        }
    }
    let by_class = class(a).cmp(&class(b));
    let within = match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Real(a), Value::Real(b)) => f64::from_bits(a.0).total_cmp(&f64::from_bits(b.0)),
        (Value::Int(a), Value::Real(b)) => int_real_order(*a, f64::from_bits(b.0)),
        (Value::Real(a), Value::Int(b)) => int_real_order(*b, f64::from_bits(a.0)).reverse(),
        (Value::Text(a), Value::Text(b)) | (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        // What is in pieces is greater than what is not, and then by length and digest.
        (Value::Big(a), Value::Big(b)) => (a.len, a.sha256).cmp(&(b.len, b.sha256)),
        (Value::Big(_), _) => Ordering::Greater,
        (_, Value::Big(_)) => Ordering::Less,
        _ => Ordering::Equal,
    };
    by_class.then(within)
}

fn int_real_order(int: i64, real: f64) -> Ordering {
    // 2^63, exactly; every smaller real's whole part fits.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if real >= LIMIT {
        return Ordering::Less;
    }
    if real < -LIMIT {
        return Ordering::Greater;
    }
    let whole = real as i64;
    int.cmp(&whole).then_with(|| {
        let rest = real - whole as f64;
        if rest > 0.0 {
            Ordering::Less
        } else if rest < 0.0 {
            Ordering::Greater
        } else {
            // The same number: an INTEGER before a REAL, so that the order is total.
            Ordering::Less
        }
    })
}

/// Compares two claims to a UNIQUE value: the lesser one keeps it. The stamp of the write decides,
/// then the row's key.
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
        // (new author, context_free, seen) → dominates a version 7 of A
        for (author, context_free, seen, expected) in [
            (B, false, 6, false),
            (B, false, 7, true),
            (B, false, 8, true),
            (B, true, 8, false),
            (A, true, 0, true),
            (A, false, 0, true),
        ] {
            let old = version(A, i64::MAX, false);
            assert_eq!(
                dominates(author, context_free, &old, seen),
                expected,
                "{author:?} {context_free} {seen}"
            );
        }
    }

    #[test]
    fn who_wins_under_which_policy() {
        const M: Policy = Policy::Manual;
        const L: Policy = Policy::Lww;
        const PA: Policy = Policy::Prefer(A);
        for (policy, a, b, a_wins) in [
            (M, version(A, 1, false), version(B, 9, true), true),
            (M, version(A, 1, false), version(B, 9, false), false),
            (M, version(A, 9, false), version(B, 1, false), true),
            (M, version(A, 1, true), version(B, 9, true), false),
            (M, version(A, 5, false), version(B, 5, false), false),
            (L, version(A, 1, false), version(B, 9, true), false),
            (L, version(A, 9, true), version(B, 1, false), true),
            (L, version(A, 5, true), version(B, 5, false), false),
            (PA, version(A, 1, true), version(B, 9, false), true),
            (Policy::Prefer(DeviceId([9; 16])), version(A, 1, false), version(B, 9, false), false),
        ] {
            assert_eq!(winner(policy, [&a, &b]), Some(usize::from(!a_wins)), "{policy:?}");
            assert_eq!(
                winner(policy, [&b, &a]),
                Some(usize::from(a_wins)),
                "the order of arrival counts for nothing"
            );
        }
        assert_eq!(winner(M, []), None);
        assert!(!decides(M, [&version(A, 1, false)]) && decides(L, []));
        assert!(decides(PA, [&version(A, 1, false)]) && !decides(PA, [&version(B, 1, false)]));
    }

    #[test]
    fn columns_with_a_rule_of_their_own() {
        let (a, b) = (version(A, 9, false), version(B, 1, false));
        for (rule, x, y, a_wins) in [
            (ColumnMerge::Max, Value::Int(3), Value::Int(2), true),
            (ColumnMerge::Min, Value::Int(3), Value::Int(2), false),
            (ColumnMerge::Max, Value::Null, Value::Int(-1), false),
            (ColumnMerge::Max, Value::Int(2), Value::real(2.5), false),
            (ColumnMerge::Min, Value::Text(b"a"), Value::Blob(b""), true),
            (ColumnMerge::Lww, Value::Int(0), Value::Int(9), true),
            (ColumnMerge::Max, Value::Int(1), Value::Int(1), true),
        ] {
            assert_eq!(
                column_winner(rule, Policy::Manual, [(&a, x), (&b, y)]),
                Some(usize::from(!a_wins)),
                "{rule:?}"
            );
            assert_eq!(
                column_winner(rule, Policy::Manual, [(&b, y), (&a, x)]),
                Some(usize::from(a_wins)),
                "{rule:?}"
            );
        }
    }

    #[test]
    fn the_order_of_values_is_total() {
        let values = [
            Value::Null,
            Value::real(f64::NEG_INFINITY),
            Value::Int(i64::MIN),
            Value::Int(-1),
            Value::real(-0.5),
            Value::real(-0.0),
            Value::Int(1),
            Value::real(1.0),
            Value::real(1.5),
            Value::Int(i64::MAX),
            Value::real(9_223_372_036_854_775_808.0),
            Value::Text(b""),
            Value::Text(b"a"),
            Value::Blob(b""),
        ];
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                assert_eq!(value_order(a, b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }
}
