//! The tables as they were at a time, in a database of their own.

use std::path::Path;

use packmule_core::model::WallMs;
use rusqlite::params_from_iter;

use crate::engine::capture::groups::{self, Before};
use crate::engine::conflicts::rewind::{self, LeftOut};
use crate::engine::error::{Error, Result};
use crate::engine::merge::versions;
use crate::engine::store::connection;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::upkeep::remove;

/// What was written of a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct AtReport {
    /// How many rows of shared tables were written to since.
    pub rows: u64,
    /// Of how many of them nobody knows what they were, since that is compacted away: they are as they are now.
    pub unknown: u64,
}

/// Writes the application's tables as they were at a time, by the clocks of who wrote to them, into a new database that is
/// no device. Rows of shared tables are as they were; all else is as it is now.
pub(crate) fn at(replica: &Replica, when: WallMs, to: &Path) -> Result<AtReport> {
    if to.exists() {
        return Err(Error::Usage(format!("{} is there already: name another file", to.display())).into());
    }
    let unsealed = catalog::reading(replica, |e| {
        let counts = catalog::tables(e).into_iter().map(|table| groups::unsealed(e, &table, 1));
        Ok(counts.collect::<Result<Vec<u64>>>()?.into_iter().sum::<u64>())
    })?;
    if unsealed > 0 {
        return Err(Error::Usage(
            "what was written here is not sealed, so that nobody knows when it was: seal first".into(),
        )
        .into());
    }
    // Two databases are open at once, and the copy is made with a cache as large as that of its source: both together
    // stay within what one may have.
    set_cache(&replica.db, replica.options.cache_kib / 4)?;
    let written =
        replica.db.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(Error::from).and_then(|_| {
            Ok(catalog::reading(replica, |e| {
                rewind::find(e, LeftOut { by: None, since: when.saturating_add(1) })?;
                write_all(e, to)
            })?)
        });
    set_cache(&replica.db, replica.options.cache_kib)?;
    if written.is_err() {
        // Half of it is nothing to anybody.
        let _ = std::fs::remove_file(to);
    }
    Ok(written?)
}

/// Gives a connection a page cache of so many KiB.
fn set_cache(db: &rusqlite::Connection, kib: u32) -> Result<()> {
    db.execute_batch(&format!("PRAGMA cache_size = -{kib}; PRAGMA shrink_memory"))?;
    Ok(())
}

/// Writes what was found into the copy, which leaves Packmule first.
fn write_all(replica: &Replica, to: &Path) -> Result<AtReport> {
    set_cache(&replica.db, replica.options.cache_kib / 4)?;
    remove::remove(to, &replica.options, false)?;
    let db = connection::open_connection(to, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE, &replica.options)?;
    set_cache(&db, replica.options.cache_kib / 2)?;
    let mut report = AtReport::default();
    let mut after = (i64::MIN, Vec::new());
    db.execute_batch("BEGIN")?;
    while let Some((tid, key, former)) = rewind::next(replica, &after)? {
        after = (tid, key.clone());
        let table = catalog::table(replica, tid)?;
        report.rows += 1;
        match former {
            Before::Untold => report.unknown += 1,
            _ if !table.shows_shared() => report.unknown += 1,
            Before::Gone => write(&db, &table, &key, None)?,
            Before::Values(body) => {
                let values = rewind::last_values(versions::read_baseline(replica, &table, &body)?);
                write(&db, &table, &key, Some(values))?;
            }
        }
    }
    db.execute_batch("COMMIT")?;
    Ok(report)
}

/// Makes a row what it was.
fn write(
    db: &rusqlite::Connection,
    table: &Table,
    key: &[u8],
    values: Option<Vec<(usize, OwnedValue)>>,
) -> Result<()> {
    let keys = value::read_key(key)?;
    let place = value::quote(table.place());
    let sql = format!("DELETE FROM {place} WHERE {}", table.key_match_from(0));
    db.prepare_cached(&sql)?.execute(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
    let Some(values) = values else { return Ok(()) };
    let names: Vec<String> =
        values.iter().map(|(at, _)| value::column(&table.def.columns[*at].name)).collect();
    let marks = vec!["?"; names.len()].join(", ");
    // A UNIQUE value that another row has now is that row's only as long as it is not its turn.
    let sql = format!("INSERT OR REPLACE INTO {place} ({}) VALUES ({marks})", names.join(", "));
    db.prepare_cached(&sql)?.execute(params_from_iter(values.iter().map(|(_, v)| Bind(v.borrow()))))?;
    Ok(())
}
