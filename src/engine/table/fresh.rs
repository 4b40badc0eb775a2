//! Rows of a table that no trigger has recorded: see `capture/fresh.rs`.

/// A range of such rows.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    /// The table as SQL names it now, and its rowid.
    pub table: String,
    pub rowid: &'static str,
    /// The first key of the range, and the last one.
    pub first: i64,
    pub last: i64,
}

impl Fresh {
    /// Returns whether no row is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Returns whether a row with this key is one of them, if it is there.
    pub(crate) fn has(&self, key: i64) -> bool {
        (self.first..=self.last).contains(&key)
    }
}
