//! What happens to a row, as it is told to people.

use crate::engine::error::Result;
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::known::Table;

/// What a resolution does to a row.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RowChange {
    /// The row's key, by column.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub key: Vec<(String, OwnedValue)>,
    /// Its values before, by column; none if it was not there.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub before: Vec<(String, OwnedValue)>,
    /// Its values then; none if it is not there any more.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::row"))]
    pub after: Vec<(String, OwnedValue)>,
    /// Before, a constraint kept it out of its table.
    pub was_quarantined: bool,
    /// Then, a constraint keeps it out of its table.
    pub is_quarantined: bool,
    /// It is kept whole as it was before, so that the resolution can be undone: a very large row is not.
    pub undoable: bool,
}

impl RowChange {
    /// Returns whether the row is removed, on all devices.
    pub fn removes(&self) -> bool {
        !self.before.is_empty() && self.after.is_empty()
    }

    /// Returns whether something happened to the row.
    pub(crate) fn is_change(&self) -> bool {
        self.before != self.after || self.was_quarantined != self.is_quarantined
    }
}

/// Returns the values of a row's key, by column.
pub(crate) fn named_key(table: &Table, key: &[u8]) -> Result<Vec<(String, OwnedValue)>> {
    let names = table.def.keys().map(|at| table.def.columns[at].name.clone());
    Ok(names.zip(value::read_key(key)?).collect())
}
