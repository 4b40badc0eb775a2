//! Counters: columns whose concurrent additions add up.
//!
//! An update carries what it added. An insert or delete is absolute: it carries what the counter
//! was. A counter is the greatest of the absolute values that no later absolute write had seen,
//! plus every addition that none of those had seen; without absolute writes in memory, what the
//! table shows plus what comes in. Sums wrap at 64 bits, so that they do not depend on the order.

use packmule_core::merge::{Version, dominates};
use packmule_core::wire::{ColumnMerge, Op, OpKind, Shape};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, params_from_iter};

use super::apply::{Head, Seen};
use super::catalog::{OpDef, Table};
use super::error::Result;
use super::value::{Bind, quote, read_key};
use super::{Engine, OwnedValue};

/// Registers the functions that this file needs, on our own connection alone.
pub(crate) fn register_functions(db: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("_pm_add", 2, flags, |context| {
        let number = |at| context.get::<i64>(at).unwrap_or(0);
        Ok(number(0).wrapping_add(number(1)))
    })?;
    Ok(())
}

fn number(value: &OwnedValue) -> i64 {
    match value {
        OwnedValue::Int(i) => *i,
        _ => 0,
    }
}

impl Engine {
    /// Takes an op's counters into account. `ours` says that the table shows it already.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn count(
        &self,
        table: &Table,
        key: &[u8],
        def: &OpDef,
        op: &Op<'_>,
        new: &Head,
        seen: &Seen<'_>,
        ours: bool,
    ) -> Result<()> {
        if table.counters.is_empty() {
            return Ok(());
        }
        let mut values = Vec::new();
        for (at, value) in op.values(Shape { keys: &def.key_flags }) {
            let theirs = &def.def.columns[at];
            if let Some(column) = table.def.column(&theirs.name).filter(|c| table.counters.contains(c)) {
                // For an author to whom it was no counter, an update says what it is.
                let absolute = new.kind != OpKind::Update || theirs.merge != ColumnMerge::Counter;
                values.push((column, OwnedValue::of(value).unwrap_or(OwnedValue::Null), absolute));
            }
        }
        self.count_values(table, key, &values, new, seen, ours)
    }

    /// A version from before the column was a counter said what it is.
    pub(crate) fn count_as_is(
        &self,
        table: &Table,
        key: &[u8],
        column: usize,
        head: &Head,
        value: &OwnedValue,
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO _pm_count (tid, key, col, dev, seq, absolute, value) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)",
            )?
            .execute((table.tid, key, column as i64, head.dev, head.seq, number(value)))?;
        Ok(())
    }

    /// [`Engine::count`] of values by column, each with whether it says what the counter is.
    pub(crate) fn count_values(
        &self,
        table: &Table,
        key: &[u8],
        values: &[(usize, OwnedValue, bool)],
        new: &Head,
        seen: &Seen<'_>,
        ours: bool,
    ) -> Result<()> {
        for (column, value, absolute) in values {
            let (column, value, absolute) = (*column, number(value), *absolute);
            let others = if absolute {
                self.forget_counted(table.tid, key, column, new, seen)?
            } else {
                self.has_absolute(table.tid, key, column)?
            };
            self.db
                .prepare_cached(
                    "INSERT OR REPLACE INTO _pm_count (tid, key, col, dev, seq, absolute, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute((table.tid, key, column as i64, new.dev, new.seq, absolute, value))?;
            if others || (absolute && new.kind == OpKind::Update) {
                self.put_off(table.tid, key)?;
            } else if !absolute && !ours && value != 0 {
                self.add(table, key, column, value)?;
            }
        }
        Ok(())
    }

    /// Forgets what an absolute write had seen; whether anything is left.
    fn forget_counted(
        &self,
        tid: i64,
        key: &[u8],
        column: usize,
        new: &Head,
        seen: &Seen<'_>,
    ) -> Result<bool> {
        let mut statement = self
            .db
            .prepare_cached("SELECT dev, seq FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3")?;
        let entries = statement
            .query_map((tid, key, column as i64), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut left = false;
        for (dev, seq) in entries {
            let old = Version { author: self.device_id(dev)?, seq, wall: 0, delete: false };
            if dominates(new.author, matches!(seen, Seen::Blind), &old, seen.of(dev)) {
                self.db
                    .prepare_cached(
                        "DELETE FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND dev = ?4 AND seq = ?5",
                    )?
                    .execute((tid, key, column as i64, dev, seq))?;
            } else {
                left = true;
            }
        }
        Ok(left)
    }

    fn has_absolute(&self, tid: i64, key: &[u8], column: usize) -> Result<bool> {
        let sql = "SELECT 1 FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND absolute = 1 LIMIT 1";
        Ok(super::value::maybe::<i64>(&self.db, sql, (tid, key, column as i64))?.is_some())
    }

    /// Adds to a counter where the row is: in its table or in limbo.
    fn add(&self, table: &Table, key: &[u8], column: usize, value: i64) -> Result<()> {
        let c = quote(&table.def.columns[column].name);
        let keys = read_key(key)?;
        for name in [&table.sql_name, &table.limbo()] {
            let sql = format!("UPDATE {name} SET {c} = _pm_add({c}, ?1) WHERE {}", table.key_match_from(1));
            let added = OwnedValue::Int(value);
            let params = std::iter::once(&added).chain(&keys).map(|v| Bind(v.borrow()));
            let changed = self.firing(table, || {
                Ok(self.db.prepare_cached(&sql)?.execute(params_from_iter(params.clone()))?)
            })?;
            if changed > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Sets the counters of a row in limbo where absolute writes are remembered.
    pub(crate) fn compose_counters(&self, table: &Table, key: &[u8]) -> Result<()> {
        for column in table.counters.iter().copied() {
            if !self.has_absolute(table.tid, key, column)? {
                continue;
            }
            let mut statement = self.db.prepare_cached(
                "SELECT absolute, value FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3",
            )?;
            let mut rows = statement.query((table.tid, key, column as i64))?;
            let (mut most, mut sum) = (i64::MIN, 0i64);
            while let Some(row) = rows.next()? {
                let value: i64 = row.get(1)?;
                if row.get(0)? { most = most.max(value) } else { sum = sum.wrapping_add(value) }
            }
            self.make_limbo_row(table, key, &[(column, OwnedValue::Int(most.wrapping_add(sum)))])?;
        }
        Ok(())
    }
}
