//! A board's application: it knows its own tables and plain SQLite, and nothing of Packmule.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::sensors::Reading;
use crate::output::Failure;

/// The application's own tables.
pub const TABLES: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT, sensor TEXT, value REAL, unit TEXT)";
/// What all boards share.
pub const SETTINGS: &str = "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT, changed_by TEXT)";

/// An application's connection.
pub struct App {
    db: Connection,
}

/// Makes a failure of the application's own, which is SQLite's.
pub fn failed(e: &rusqlite::Error) -> Failure {
    Failure::plain(format!("the demo's application: {e}"))
}

impl App {
    /// Opens the database as any program would.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let db = Connection::open(path).map_err(|e| failed(&e))?;
        db.busy_timeout(Duration::from_secs(5)).map_err(|e| failed(&e))?;
        Ok(Self { db })
    }

    /// Runs SQL.
    pub fn run(&self, sql: &str) -> Result<(), Failure> {
        self.db.execute_batch(sql).map_err(|e| failed(&e))
    }

    /// Keeps readings, in one transaction.
    pub fn keep(&mut self, at: &str, readings: &[Reading]) -> Result<(), Failure> {
        self.insert(at, readings).map_err(|e| failed(&e))
    }

    fn insert(&mut self, at: &str, readings: &[Reading]) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO readings (at, sensor, value, unit) VALUES (?1, ?2, ?3, ?4)")?;
            for reading in readings {
                insert.execute((at, &reading.sensor, reading.value, reading.unit))?;
            }
        }
        transaction.commit()
    }

    /// Returns the first column of the first row.
    pub fn number(&self, sql: &str) -> Result<i64, Failure> {
        self.db.query_row(sql, [], |row| row.get(0)).map_err(|e| failed(&e))
    }

    /// Returns all rows as text, as the `sqlite3` shell prints them.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
        let rows = || -> rusqlite::Result<_> {
            let mut statement = self.db.prepare(sql)?;
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                (0..columns).map(|at| Ok(text(row.get_ref(at)?))).collect::<rusqlite::Result<Vec<String>>>()
            })?;
            rows.collect()
        };
        rows().map_err(|e| failed(&e))
    }
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => r.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
