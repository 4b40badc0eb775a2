//! A row as it is told to people, wherever it is.

use crate::engine::conflicts::change::{self, RowChange};
use crate::engine::conflicts::list;
use crate::engine::error::Result;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The largest row that is told as it was, in bytes, where a frame has room for it.
const TOLD_MOST: usize = 16_384;

/// What a name and a value take beside their own bytes.
const TOLD_BESIDE: usize = 20;

/// Returns whether a row, told so, is kept whole by a resolution that is made here, so that it can be undone. What a frame
/// has beside it takes less than a quarter.
pub(crate) fn keeps(replica: &Replica, told: &[(String, OwnedValue)]) -> bool {
    let bytes = |value: &OwnedValue| match value {
        OwnedValue::Large { bytes, .. } => usize::try_from(*bytes).unwrap_or(usize::MAX),
        OwnedValue::Text(bytes) | OwnedValue::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    let all = told.iter().map(|(name, value)| bytes(value).saturating_add(name.len() + TOLD_BESIDE));
    all.fold(0, usize::saturating_add) <= TOLD_MOST.min(replica.options.frame_bytes / 4 * 3)
}

/// A row as it is listed.
pub(crate) struct Told {
    /// Its values by column; none if it is not there.
    pub values: Vec<(String, OwnedValue)>,
    /// They are not in its table: a constraint keeps it out.
    pub quarantined: bool,
    /// A resolution keeps it whole.
    pub kept: bool,
}

impl Told {
    /// A row that is not there.
    pub(crate) fn none() -> Self {
        Self { values: Vec::new(), quarantined: false, kept: true }
    }

    /// Reads a row in its table or, quarantined, beside it.
    pub(crate) fn of(replica: &Replica, table: &Table, key: &[u8]) -> Result<Self> {
        let shown = list::told_row(replica, table, table.place(), key)?;
        if !shown.is_empty() {
            return Ok(Self { kept: keeps(replica, &shown), values: shown, quarantined: false });
        }
        let values = list::told_row(replica, table, &table.quarantine_table(), key)?;
        Ok(Self { kept: keeps(replica, &values), quarantined: !values.is_empty(), values })
    }

    /// Begins to tell of a change to a row that is so before.
    pub(crate) fn begin(self, table: &Table, key: &[u8]) -> Result<RowChange> {
        let Self { values, quarantined, kept } = self;
        let key = change::named_key(table, key)?;
        Ok(RowChange {
            key,
            before: values,
            after: Vec::new(),
            was_quarantined: quarantined,
            is_quarantined: false,
            undoable: kept,
        })
    }
}
