//! How a table is tracked.

use packmule_core::wire::{ColumnMerge, Merge, Mode, Policy};

/// What becomes of columns that other devices add to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewColumns {
    /// What is written into them waits until the application adds them here.
    Wait,
    /// They are added here.
    Follow,
}

/// How a table is to be tracked.
#[derive(Clone, Debug)]
pub struct TrackOptions {
    /// Who may write its rows.
    pub mode: Mode,
    /// Rows are only ever added, with an AUTOINCREMENT key: capture costs nothing.
    pub append: bool,
    /// The columns of a UNIQUE index that tell rows apart, of a table without a primary key; empty if it has but one.
    pub key: Vec<String>,
    /// Deletes of an append table travel too; otherwise they are only counted.
    pub carry_deletes: bool,
    /// A shared table with a plain integer key: rows may be made on several devices, and a person knows. Without it
    /// tracking such a table gives advice.
    pub ids_shared: bool,
    /// How fine concurrent writes are distinguished: by row or by cell.
    pub merge: Merge,
    /// What is done about them.
    pub policy: Policy,
    /// What is done about those to single columns.
    pub columns: Vec<(String, ColumnMerge)>,
    /// Of a table that other devices track already, and this one does not, merge, policy and the rules of columns are theirs.
    pub as_others: bool,
    /// What becomes of columns that other devices add; `None`: as it was, which at first is to wait.
    pub new_columns: Option<NewColumns>,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Shared,
            append: false,
            key: Vec::new(),
            carry_deletes: false,
            ids_shared: false,
            merge: Merge::Row,
            policy: Policy::Manual,
            columns: Vec::new(),
            as_others: false,
            new_columns: None,
        }
    }
}

/// What tracking a table did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TrackReport {
    /// It was tracked in this way already, and nothing was done.
    pub already: bool,
    /// It was tracked already, and how it is tracked was changed.
    pub changed: bool,
    /// Rows that were in the table and were sealed.
    pub rows: u64,
    /// What people should know about this table.
    pub advice: Vec<String>,
}

impl TrackReport {
    /// Notes that how the table is tracked was changed.
    pub(super) fn note_changed(&mut self) {
        (self.already, self.changed) = (false, true);
    }
}
