//! Single values, and notices for people.

use rusqlite::{Connection, ToSql};

use crate::engine::error::Result;
use crate::engine::store::value;

/// Returns a value of `_pm_meta`.
pub(crate) fn get<T: rusqlite::types::FromSql>(db: &Connection, k: &str) -> Result<Option<T>> {
    value::maybe(db, "SELECT v FROM _pm_meta WHERE k = ?1", [k])
}

/// Sets a value of `_pm_meta`.
pub(crate) fn set(db: &Connection, k: &str, v: impl ToSql) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO _pm_meta (k, v) VALUES (?1, ?2)")?.execute((k, v))?;
    Ok(())
}

/// Makes a notice for people, which `status` shows. One that is there already is only counted.
pub(crate) fn notice(db: &Connection, what: &str, wall: i64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO _pm_notice (what, wall, count) VALUES (?1, ?2, 1)
         ON CONFLICT (what) DO UPDATE SET wall = excluded.wall, count = count + 1",
    )?
    .execute((what, wall))?;
    Ok(())
}
