//! A database leaves Packmule: all of ours goes, the application's tables stay as they are.

use std::path::{Path, PathBuf};

use rusqlite::OpenFlags;

use crate::engine::error::{Error, Result};
use crate::engine::store::connection::{self, Options};
use crate::engine::store::{keys, layout, listing, value};

/// What was removed from a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RemoveReport {
    /// Tables, triggers and views of ours.
    pub dropped: u64,
    /// The key files beside it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub keys: Vec<PathBuf>,
}

/// Removes all `_pm_` tables, triggers and views in one transaction, and then the key files. After a power cut between
/// the two the next call removes the keys. Where it only `rehearses`, nothing is changed.
pub(crate) fn remove(path: &Path, options: &Options, rehearses: bool) -> Result<RemoveReport> {
    let mut report = RemoveReport::default();
    let db = connection::open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE, options)?;
    let keys = key_files(path);
    if layout::present(&db)? {
        db.execute_batch("BEGIN IMMEDIATE")?;
        let mut dropped = drop_all(&db);
        if dropped.is_err() || rehearses {
            connection::roll_back(&db);
        } else if let Err(e) = db.execute_batch("COMMIT") {
            connection::roll_back(&db);
            dropped = Err(e.into());
        }
        report.dropped = dropped?;
    } else if keys.is_empty() {
        return Err(Error::NotADevice.into());
    }
    drop(db);
    if rehearses {
        report.keys = keys;
        return Ok(report);
    }
    for key in keys {
        std::fs::remove_file(&key).map_err(Error::io("remove the key file", &key))?;
        report.keys.push(key);
    }
    Ok(report)
}

/// Drops everything of ours, within the open transaction.
fn drop_all(db: &rusqlite::Connection) -> Result<u64> {
    let mut dropped = u64::from(listing::drop_view(db)?);
    for kind in ["trigger", "view", "table"] {
        let names = {
            let mut statement = db.prepare(
                "SELECT name FROM sqlite_schema WHERE type = ?1 AND name GLOB '_pm_*' ORDER BY name",
            )?;
            let names = statement.query_map([kind], |row| row.get(0))?;
            names.collect::<rusqlite::Result<Vec<String>>>()?
        };
        for name in names {
            db.execute_batch(&format!("DROP {kind} {}", value::quote(&name)))?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

/// Lists the key files of ours beside a database: the key, one that was being made, and one before the last.
fn key_files(path: &Path) -> Vec<PathBuf> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let key = keys::device_key_path(&path);
    let mut old = key.as_os_str().to_owned();
    old.push(".old");
    let all = [keys::new_key_path(&key), old.into(), key];
    all.into_iter().filter(|file| file.exists()).collect()
}
