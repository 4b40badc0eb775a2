//! Rows of a snapshot's state, put into the `_pm_` tables that they come from.

use packmule_core::model::{DeviceId, Value};
use packmule_core::wire::DecodeError;

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::fleet::devices;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// So many columns a table can have at most, in SQLite.
pub(super) const COLUMNS_MAX: usize = 4_096;

/// Makes the error of a record that does not decode.
pub(super) fn bad(error: DecodeError) -> Error {
    Error::bundle(0, BundleProblem::Decode(error))
}

/// Makes the error of a row that is not as its kind should be.
pub(super) fn wrong() -> Error {
    Error::bundle(0, BundleProblem::Structure("a row of a snapshot of another form"))
}

/// A row of the maker's state: values, with devices by their ids and tables by their names.
pub(super) struct StateRow<'a> {
    pub replica: &'a Replica,
    pub values: &'a [Value<'a>],
}

impl<'a> StateRow<'a> {
    /// Reads an integer.
    pub(super) fn int_at(&self, at: usize) -> Result<i64> {
        match self.values.get(at) {
            Some(Value::Int(i)) => Ok(*i),
            _ => Err(wrong()),
        }
    }

    /// Reads a BLOB.
    pub(super) fn blob_at(&self, at: usize) -> Result<&'a [u8]> {
        match self.values.get(at) {
            Some(Value::Blob(b)) => Ok(b),
            _ => Err(wrong()),
        }
    }

    /// Reads a text.
    pub(super) fn text_at(&self, at: usize) -> Result<&'a str> {
        match self.values.get(at) {
            Some(Value::Text(t)) => std::str::from_utf8(t).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    /// Reads a device's id.
    pub(super) fn device_id_at(&self, at: usize) -> Result<DeviceId> {
        Ok(DeviceId(self.blob_at(at)?.try_into().map_err(|_| wrong())?))
    }

    /// Reads a device's id as its number here.
    pub(super) fn device_at(&self, at: usize) -> Result<i64> {
        devices::device_number_or_new(self.replica, self.device_id_at(at)?)
    }

    /// Reads a table's name as its number here.
    pub(super) fn tid_at(&self, at: usize) -> Result<i64> {
        catalog::table_named(self.replica, self.text_at(at)?).map(|t| t.tid).ok_or_else(wrong)
    }
}

/// Loads a declaration of a table.
pub(super) fn load_declared(row: &StateRow<'_>) -> Result<()> {
    row.replica
        .db
        .prepare_cached(
            "INSERT OR IGNORE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            row.tid_at(0)?,
            row.int_at(1)?,
            row.text_at(2)?,
            row.device_at(3)?,
            row.int_at(4)?,
            row.int_at(5)?,
            row.blob_at(6)?,
            row.int_at(7)?,
            row.blob_at(8)?,
        ))?;
    Ok(())
}
