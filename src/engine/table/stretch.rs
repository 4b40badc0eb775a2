//! Stretches of heads: what is remembered of many rows in one entry.
//!
//! Rows with consecutive integer keys that one frame writes whole have heads that differ in nothing but the key. So
//! they are one row of `_pm_stretch`, from the first key to the last: nothing is written for each row.

use std::cell::Cell;

use packmule_core::wire::OpKind;

/// The heads of rows with consecutive integer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub tid: i64,
    pub first: i64,
    pub last: i64,
    pub dev: i64,
    pub seq: u64,
    pub claim: u64,
    pub wall: i64,
    pub kind: OpKind,
}

impl Stretch {
    /// Returns whether the row of a key is in it.
    pub(crate) fn has(&self, tid: i64, key: i64) -> bool {
        self.tid == tid && (self.first..=self.last).contains(&key)
    }

    /// Returns whether another one goes on where it ends.
    pub(crate) fn is_continued_by(&self, next: &Self) -> bool {
        self.last.checked_add(1) == Some(next.first)
            && Self { first: 0, last: 0, ..*self } == Self { first: 0, last: 0, ..*next }
    }
}

/// What is at hand of stretches while the ops of one frame after the other are registered. Outside of that nothing is.
#[derive(Default)]
pub(crate) struct Stretches {
    /// Whether ops are being registered: only then is anything kept here.
    pub gathers: Cell<bool>,
    /// The stretch that grows: it is not in the database yet.
    pub open: Cell<Option<Stretch>>,
    /// A table, and keys from the first to the last that no stretch in the database has.
    pub free: Cell<Option<(i64, i64, i64)>>,
    /// A table, and whether any of its rows has a head of its own.
    pub loose: Cell<Option<(i64, bool)>>,
}

impl Stretches {
    /// Forgets what is at hand. A stretch that grows is lost: what it says is undone, or has been written.
    pub(crate) fn forget(&self) {
        self.gathers.set(false);
        self.open.set(None);
        self.free.set(None);
        self.loose.set(None);
    }
}
