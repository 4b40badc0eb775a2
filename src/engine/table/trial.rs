//! What a table's own rules say of a row: tried on an empty table of the same definition, in memory.
//!
//! Nothing of the database is written to or locked, and a CHECK means what it means to SQLite. What only the application has
//! (a function, a collation) is not there: then nothing is known, and nothing is said.

use std::cell::RefCell;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::engine::error::{self, Result};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::indexes::{self, OwnUnique};
use crate::engine::table::known::Table;

/// The empty table of which a row was tried last.
#[derive(Default)]
pub(crate) struct Trials(RefCell<Option<Trial>>);

impl Trials {
    /// Says which of its own rules keeps rows out of a table, alone or because of each other, as SQLite says it. Of a row with
    /// a large value, which is known by its length, nothing is said.
    pub(crate) fn refusal(
        &self,
        db: &Connection,
        table: &Table,
        rows: &[Vec<(usize, OwnedValue)>],
    ) -> Result<Option<String>> {
        let is_short =
            |row: &&Vec<_>| !row.iter().any(|(_, value)| matches!(value, OwnedValue::Large { .. }));
        self.with(db, table, |trial| trial.refused(table, rows.iter().filter(is_short)))
    }

    /// Returns what a row claims by the UNIQUE indexes that are this database's own. Of a row with a large value, and of one
    /// that another rule keeps out, nothing is known.
    pub(crate) fn own_claims(
        &self,
        db: &Connection,
        table: &Table,
        row: &[(usize, OwnedValue)],
    ) -> Result<Vec<OwnClaim>> {
        if row.iter().any(|(_, value)| matches!(value, OwnedValue::Large { .. })) {
            return Ok(Vec::new());
        }
        self.with(db, table, |trial| trial.claims(table, row))
    }

    fn with<R>(&self, db: &Connection, table: &Table, of: impl FnOnce(&Trial) -> R) -> Result<R> {
        let schema = value::maybe::<i64>(db, "PRAGMA main.schema_version", [])?.unwrap_or_default();
        let mut last = self.0.borrow_mut();
        let trial = match last.take().filter(|trial| trial.tid == table.tid && trial.schema == schema) {
            Some(trial) => trial,
            None => Trial::new(db, table, schema)?,
        };
        Ok(of(last.insert(trial)))
    }
}

/// A UNIQUE index that is this database's own, and the values of a row in it.
pub(crate) type OwnClaim = (Arc<OwnUnique>, Vec<OwnedValue>);

/// An empty table; of one that has no rules, or that cannot be made, none.
struct Trial {
    tid: i64,
    /// SQLite's version of the schema of which it is: of another one it is made anew.
    schema: i64,
    empty: Option<Connection>,
    own: Vec<Arc<OwnUnique>>,
}

impl Trial {
    fn new(db: &Connection, table: &Table, schema: i64) -> Result<Self> {
        let sql = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        // It is read once, and does not stay prepared.
        let sql: Option<String> = db.query_row(sql, [&table.def.name], |row| row.get(0)).optional()?;
        let sql = sql.unwrap_or_default();
        let rules = ["not null", "check", "strict", "unique"];
        let uniques = unique_indexes(db, table)?;
        let has_rules =
            !uniques.is_empty() || rules.iter().any(|rule| sql.to_ascii_lowercase().contains(rule));
        let make = || -> rusqlite::Result<Connection> {
            let db = Connection::open_in_memory()?;
            // Little memory: it has a few rows at most.
            db.execute_batch(
                "PRAGMA page_size = 512; PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF",
            )?;
            db.set_prepared_statement_cache_capacity(3);
            db.execute_batch(&sql)?;
            // One that calls a function of the application's is not there.
            uniques.iter().for_each(|unique| drop(db.execute_batch(unique)));
            Ok(db)
        };
        let empty = match has_rules.then(make).transpose() {
            Err(e) if error::is_machine_failure(&e) => return Err(e.into()),
            made => made.ok().flatten(),
        };
        Ok(Self { tid: table.tid, schema, empty, own: indexes::own_uniques(db, &table.def)? })
    }

    /// Says why the table does not take rows.
    fn refused<'r>(
        &self,
        table: &Table,
        mut rows: impl Iterator<Item = &'r Vec<(usize, OwnedValue)>>,
    ) -> Option<String> {
        let refused = self.trying(|db| rows.find_map(|row| insert(db, table, row).err()))??;
        is_refused(&refused).then(|| refused.to_string())
    }

    /// Returns what a row claims by the table's own UNIQUE indexes.
    fn claims(&self, table: &Table, row: &[(usize, OwnedValue)]) -> Vec<OwnClaim> {
        if self.own.is_empty() {
            return Vec::new();
        }
        let claim = |db: &Connection, own: &OwnUnique| -> Result<Vec<OwnedValue>> {
            let mut statement = db.prepare(&own.claim_sql(&table.sql_name))?;
            let n = statement.column_count();
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else { return Ok(Vec::new()) };
            (0..n).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?))).collect()
        };
        let claims = self.trying(|db| {
            insert(db, table, row).ok()?;
            let claims = self.own.iter().filter_map(|own| Some((own.clone(), claim(db, own).ok()?)));
            Some(claims.filter(|(_, values)| !values.is_empty()).collect())
        });
        claims.flatten().unwrap_or_default()
    }

    /// Does something with the empty table, which stays empty; nothing if there is none.
    fn trying<R>(&self, of: impl FnOnce(&Connection) -> R) -> Option<R> {
        let db = self.empty.as_ref()?;
        let run = |sql: &str| db.prepare_cached(sql).and_then(|mut known| known.execute([]));
        // The statements are made once.
        run("BEGIN").ok()?;
        let tried = of(db);
        // A rule may have rolled it back by itself.
        if !db.is_autocommit() {
            run("ROLLBACK").ok()?;
        }
        Some(tried)
    }
}

fn insert(db: &Connection, table: &Table, row: &[(usize, OwnedValue)]) -> rusqlite::Result<usize> {
    let columns: Vec<usize> = row.iter().map(|(at, _)| *at).collect();
    let values = row.iter().map(|(_, value)| Bind(value.borrow()));
    db.prepare_cached(&table.insert_sql(&columns))?.execute(params_from_iter(values))
}

/// Returns the statements of a table's UNIQUE indexes, also over expressions and of some rows.
fn unique_indexes(db: &Connection, table: &Table) -> Result<Vec<String>> {
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 COLLATE NOCASE
               AND sql LIKE 'create unique %'";
    let mut statement = db.prepare(sql)?;
    Ok(statement.query_map([&table.def.name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether a table refuses a row: by a constraint, or by the type of its INTEGER PRIMARY KEY.
pub(crate) fn is_refused(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TypeMismatch};
    matches!(error.sqlite_error_code(), Some(ConstraintViolation | TypeMismatch))
}
