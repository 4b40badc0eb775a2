//! Which of the open conflicts are meant.

use packmule_core::model::{DeviceId, WallMs};

use crate::engine::conflicts::list::Conflict;
use crate::engine::error::{ID_LEAST, Result};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Which open conflicts are meant: those that meet all that is asked for; all, if nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// One of these, by their ids or the beginnings of them, of four letters at least.
    pub ids: Vec<String>,
    /// Of this table.
    pub table: Option<String>,
    /// Of this kind, by its word: `update/update`, `unique`, …
    pub kind: Option<String>,
    /// With a version of this device.
    pub by: Option<DeviceId>,
    /// No version was written at this time or later, by its author's clock; milliseconds since 1970.
    pub before: Option<WallMs>,
}

impl Selection {
    /// Makes sure that the table is one of those here.
    ///
    /// # Errors
    /// [`Error::UnknownTable`](crate::Error::UnknownTable).
    pub(crate) fn known_table(&self, replica: &Replica) -> Result<()> {
        self.table.iter().try_for_each(|table| catalog::tracked_table(replica, table).map(drop))
    }

    /// Returns whether a conflict is meant.
    pub(crate) fn wants(&self, conflict: &Conflict) -> bool {
        (self.ids.is_empty() || self.ids.iter().any(|id| names(id, conflict)))
            && self.table.as_ref().is_none_or(|table| conflict.table.eq_ignore_ascii_case(table))
            && self.kind.as_ref().is_none_or(|kind| conflict.kind.word() == kind)
            && self.by.is_none_or(|by| conflict.versions.iter().any(|version| version.device == Some(by)))
            && self.before.is_none_or(|before| {
                conflict.versions.iter().filter_map(|version| version.at).all(|at| at < before)
            })
    }
}

/// Returns whether an id, or the beginning of one, is that of a conflict.
pub(super) fn names(id: &str, conflict: &Conflict) -> bool {
    id.len() >= ID_LEAST && conflict.id.starts_with(id)
}
