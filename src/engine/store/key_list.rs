//! Lists of keys for the time of a loop. There may be as many as rows, so they lie in a temporary table, of which SQLite keeps
//! some pages in memory.

use rusqlite::{Connection, Params};

use crate::engine::error::Result;
use crate::engine::store::value;

/// A list of keys, each of them once. It is gone when this is dropped; or with the transaction, where that is taken back.
pub(crate) struct KeyList<'c> {
    db: &'c Connection,
    number: i64,
}

impl<'c> KeyList<'c> {
    /// Begins a list.
    pub(crate) fn begin(db: &'c Connection) -> Result<Self> {
        let next = "SELECT coalesce(max(list), 0) + 1 FROM temp._pm_key";
        let list = Self { db, number: db.prepare_cached(next)?.query_row([], |row| row.get(0))? };
        // The next one gets another number, also if this one stays without keys.
        list.put_key(&[])?;
        Ok(list)
    }

    /// Makes a list of what a query gives, whose one column is `key`.
    pub(crate) fn of_query(db: &'c Connection, query: &str, of: impl Params) -> Result<Self> {
        let list = Self::begin(db)?;
        let n = list.number;
        db.prepare_cached(&format!(
            "INSERT OR IGNORE INTO temp._pm_key (list, key) SELECT {n}, key FROM {query}"
        ))?
        .execute(of)?;
        Ok(list)
    }

    /// Puts a key into it.
    pub(crate) fn put_key(&self, key: &[u8]) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO temp._pm_key (list, key) VALUES (?1, ?2)";
        self.db.prepare_cached(sql)?.execute((self.number, key))?;
        Ok(())
    }

    /// Returns whether it has a key.
    pub(crate) fn has_key(&self, key: &[u8]) -> Result<bool> {
        let sql = "SELECT 1 FROM temp._pm_key WHERE list = ?1 AND key = ?2";
        Ok(value::maybe::<i64>(self.db, sql, (self.number, key))?.is_some())
    }

    /// Returns whether it has none.
    pub(crate) fn has_no_keys(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM temp._pm_key WHERE list = ?1 AND key > x'' LIMIT 1";
        Ok(value::maybe::<i64>(self.db, sql, [self.number])?.is_none())
    }

    /// Gives its keys, in their order.
    pub(crate) fn each_key(&self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let n = self.number;
        let sql = format!("SELECT list, key FROM temp._pm_key WHERE list = {n} AND key > ?2 ORDER BY key");
        value::each_listed(self.db, &sql, n, &mut |_, key| each(key))
    }
}

impl Drop for KeyList<'_> {
    fn drop(&mut self) {
        // What stays is in nobody's way.
        let _ = self.db.execute("DELETE FROM temp._pm_key WHERE list = ?1", [self.number]);
    }
}
