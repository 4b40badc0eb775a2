//! Hashes rows value by value, without holding a large one in memory.

use rusqlite::Row;
use sha2::{Digest, Sha256};

use crate::engine::error::{Error, Result};
use crate::engine::store::value;
use crate::engine::table::known::Table;
use crate::engine::table::large::{self, Guarded};
use crate::engine::table::replica::Replica;

/// Hashes rows of a query whose first columns are those of [`RowHash::sql`].
pub(crate) struct RowHash<'e> {
    replica: &'e Replica,
    table: &'e Table,
    /// Names, and numbers in the definition.
    columns: Vec<(String, Option<usize>)>,
    guarded: Guarded,
    buf: Vec<u8>,
}

impl<'e> RowHash<'e> {
    /// Prepares to hash columns of a table, by their names and numbers.
    pub(crate) fn new(replica: &'e Replica, table: &'e Table, columns: Vec<(String, Option<usize>)>) -> Self {
        let guarded = Guarded::new(table, &columns);
        Self { replica, table, columns, guarded, buf: Vec::new() }
    }

    /// Returns the columns as SQL; a large value reads as NULL there.
    pub(crate) fn sql(&self) -> &str {
        &self.guarded.sql
    }

    /// Returns the rowid of a row that has a large value.
    fn rowid(&self, row: &Row<'_>) -> Result<Option<i64>> {
        let n = self.columns.len();
        Ok(if self.guarded.plain || !row.get(n)? { None } else { Some(row.get(n + 1)?) })
    }

    /// Adds the first `n` columns of a row to a hash.
    pub(crate) fn add_row(&mut self, row: &Row<'_>, n: usize, hash: &mut Sha256) -> Result<()> {
        let rowid = self.rowid(row)?;
        for (at, (_, column)) in self.columns.iter().enumerate().take(n) {
            if let (Some(rowid), Some(column)) = (rowid, column)
                && hash_large(self.replica, self.table, *column, rowid, hash)?
            {
                continue;
            }
            let value = row.get_ref(at)?;
            let len = value.as_bytes_or_null().ok().flatten().map_or(0, <[u8]>::len);
            self.buf.resize(len + 24, 0);
            let len = packmule_core::wire::put_value(&mut self.buf, &value::from_sql(value))
                .map_err(|_| Error::damaged("a value without room"))?;
            hash.update(&self.buf[..len]);
        }
        Ok(())
    }

    /// Returns whether the columns of a row from the one with this number on are what their definition makes them.
    pub(crate) fn has_defaults(&self, row: &Row<'_>, from: usize) -> Result<bool> {
        let rowid = self.rowid(row)?;
        for (at, column) in self.table.def.columns.iter().enumerate().skip(from) {
            if let Some(rowid) = rowid
                && large::look(self.replica, self.table, self.table.place(), at, rowid)?.is_some()
            {
                return Ok(false);
            }
            if !column.is_constant(&value::OwnedValue::of(value::from_sql(row.get_ref(at)?))?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Hashes a value piece by piece, if it is large: as it would be hashed whole.
fn hash_large(replica: &Replica, table: &Table, at: usize, rowid: i64, hash: &mut Sha256) -> Result<bool> {
    let place = table.place();
    let Some((text, len)) = large::look(replica, table, place, at, rowid)? else { return Ok(false) };
    hash.update(value::head_of_bytes(text, len)?);
    let blob = large::open(replica, table, place, at, rowid, true)?;
    large::read(&blob, &mut |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok(true)
}
