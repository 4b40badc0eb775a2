//! The tables and definitions that are known, kept in memory as long as nobody changed them.

use std::collections::HashMap;
use std::sync::Arc;

use packmule_core::wire::{Collation, DefId, Mode};
use rusqlite::OptionalExtension;

use super::Engine;
use super::columns::Columns;
use super::def::{DEVICE_COLUMN, TableDef};
use super::error::{Error, Result};
use super::value::{push_key, quote};
use packmule_core::model::Value;

/// How a table stands in this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Known from others only: its ops wait in the log.
    Known,
    /// Tracked: captured here, and shared rows of others are applied.
    Tracked,
    /// Per-device rows of others are gathered in it.
    Gathered,
    /// No longer tracked: its ops wait again.
    Untracked,
    /// Tracked, and changed here in a way that does not travel: it waits, in both directions, until
    /// it is put back.
    Held,
}

impl State {
    fn from_number(n: i64) -> Result<Self> {
        Ok(match n {
            0 => Self::Known,
            1 => Self::Tracked,
            2 => Self::Gathered,
            3 => Self::Untracked,
            4 => Self::Held,
            _ => return Err(Error::damaged("`_pm_table` has a row of an unknown state")),
        })
    }
}

/// A table that is known.
#[derive(Debug)]
pub(crate) struct Table {
    pub tid: i64,
    /// As it is here, or as it was last heard of.
    pub def: TableDef,
    pub def_id: DefId,
    pub state: State,
    /// The highest rowid that was sealed, of an append table.
    pub appended: i64,
    /// The definition is already in the log of this device.
    pub announced: bool,
    /// Why its rows wait, for people.
    pub note: Option<String>,
    /// Quoted, with the schema.
    pub sql_name: String,
    /// Whether a foreign key of a tracked table, maybe its own, refers to it.
    pub is_parent: bool,
    /// Whether it has a unique index besides that of its key.
    pub unique: bool,
    /// The columns whose concurrent additions add up.
    pub counters: Vec<usize>,
    /// The columns that devices declared differently: nothing of others is written into them.
    pub waiting: Columns,
}

impl Table {
    /// Whether rows of the shared stream are shown in it.
    pub(crate) fn shows_shared(&self) -> bool {
        self.state == State::Tracked && self.def.mode == Mode::Shared
    }

    /// The name of the list of rows that were written since the last seal.
    pub(crate) fn dirty(&self) -> String {
        format!("_pm_dirty_{}", self.tid)
    }

    /// The columns of that list that every note has.
    pub(crate) fn note_columns(&self) -> String {
        let keys = (1..=self.def.keys().count()).map(|n| format!("k{n}"));
        keys.chain(["note".into()]).collect::<Vec<_>>().join(", ")
    }

    /// `SELECT` of the columns by a key.
    pub(crate) fn select_sql(&self, columns: &str) -> String {
        format!("SELECT {columns} FROM {} WHERE {}", self.sql_name, self.key_match_from(0))
    }

    /// `DELETE` by a key.
    pub(crate) fn delete_sql(&self) -> String {
        format!("DELETE FROM {} WHERE {}", self.sql_name, self.key_match_from(0))
    }

    /// The names of all columns, quoted.
    pub(crate) fn column_list(&self) -> String {
        self.def.columns.iter().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", ")
    }

    /// Names of columns, quoted, after that of the device where rows are gathered.
    fn with_device(&self, columns: impl Iterator<Item = usize>) -> String {
        let device = (self.state == State::Gathered).then(|| quote(DEVICE_COLUMN));
        let names = columns.map(|at| quote(&self.def.columns[at].name));
        device.into_iter().chain(names).collect::<Vec<_>>().join(", ")
    }

    /// `INSERT` of these columns.
    pub(crate) fn insert_sql(&self, columns: &[usize]) -> String {
        let n = columns.len() + usize::from(self.state == State::Gathered);
        let marks: Vec<String> = (1..=n).map(|n| format!("?{n}")).collect();
        format!(
            "INSERT INTO {} ({}) VALUES ({})",
            self.sql_name,
            self.with_device(columns.iter().copied()),
            marks.join(", ")
        )
    }

    /// `INSERT` of these columns that overwrites the row with the same key.
    pub(crate) fn upsert_sql(&self, columns: &[usize]) -> String {
        let names = columns.iter().map(|at| quote(&self.def.columns[*at].name));
        let sets: Vec<String> = names.map(|name| format!("{name} = excluded.{name}")).collect();
        format!(
            "{} ON CONFLICT ({}) DO UPDATE SET {}",
            self.insert_sql(columns),
            self.with_device(self.def.keys()),
            sets.join(", "),
        )
    }

    /// `UPDATE` of these columns, whose values come first, by a key. Without columns, of nothing:
    /// it tells whether there is a row.
    pub(crate) fn update_sql(&self, columns: &[usize]) -> String {
        let mut sets: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(n, at)| format!("{} = ?{}", quote(&self.def.columns[*at].name), n + 1))
            .collect();
        if sets.is_empty() {
            let key = self.def.keys().next().map(|at| quote(&self.def.columns[at].name)).unwrap_or_default();
            sets.push(format!("{key} = {key}"));
        }
        format!(
            "UPDATE {} SET {} WHERE {}",
            self.sql_name,
            sets.join(", "),
            self.key_match_from(columns.len())
        )
    }

    /// The condition on the key, whose values come after `n` others.
    pub(crate) fn key_match_from(&self, n: usize) -> String {
        let gathered = (self.state == State::Gathered).then(|| quote(DEVICE_COLUMN));
        let keys = self.def.keys().map(|at| quote(&self.def.columns[at].name));
        let parts =
            gathered.into_iter().chain(keys).enumerate().map(|(at, c)| format!("{c} = ?{}", at + 1 + n));
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether a column is left as it is. One that must have a value gets it, as good as may be.
    pub(crate) fn leaves(&self, at: usize) -> bool {
        self.waiting.contains(at) && self.def.columns[at].is_optional()
    }

    /// The table of rows that are kept out of this one.
    pub(crate) fn limbo(&self) -> String {
        format!("_pm_limbo_{}", self.tid)
    }

    /// Whether deletes must carry the row's last values: an update of a part of it may bring it back.
    pub(crate) fn needs_image(&self) -> bool {
        self.def.needs_image()
    }

    /// The canonical key of a row's key values, which come in the order of the key.
    pub(crate) fn key_of<'v>(&self, values: impl Iterator<Item = Value<'v>>) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        for (value, at) in values.zip(self.def.keys()) {
            push_key(&mut key, value, self.def.columns[at].collation)?;
        }
        Ok(key)
    }
}

/// A definition that some author's ops are written in.
#[derive(Debug)]
pub(crate) struct OpDef {
    pub tid: i64,
    pub def: TableDef,
    /// One flag a column: whether it is in the key.
    pub key_flags: Vec<bool>,
    /// Column numbers in the order of the key, with their collations.
    pub keys: Vec<(usize, Collation)>,
}

/// What is known of tables; forgotten when another connection changed the database.
#[derive(Default)]
pub(crate) struct Catalog {
    /// `PRAGMA data_version` and whether anything was loaded.
    loaded: Option<i64>,
    tables: HashMap<i64, Arc<Table>>,
    names: HashMap<String, i64>,
    defs: HashMap<DefId, Arc<OpDef>>,
}

impl Catalog {
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Engine {
    /// Loads the catalog if it is not the database's any more.
    pub(crate) fn load_catalog(&self) -> Result<()> {
        let version: i64 = self.db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.catalog.borrow().loaded == Some(version) {
            return Ok(());
        }
        let mut catalog = Catalog { loaded: Some(version), ..Catalog::default() };
        let mut statement = self.db.prepare_cached(
            "SELECT t.tid, t.state, t.appended, t.announced, t.note, d.id, d.body
             FROM _pm_table t JOIN _pm_def d ON d.id = t.def ORDER BY t.tid",
        )?;
        let mut rows = statement.query([])?;
        let mut tables = Vec::new();
        while let Some(row) = rows.next()? {
            let body: Vec<u8> = row.get(6)?;
            let def = TableDef::decode(&body).map_err(|e| Error::damaged(format!("`_pm_def`: {e}")))?;
            let state = State::from_number(row.get(1)?)?;
            let unique = state == State::Tracked
                && self
                    .db
                    .prepare_cached(
                        "SELECT count(*) FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'",
                    )?
                    .query_row([&def.name], |row| Ok(row.get::<_, i64>(0)? > 0))?;
            tables.push(Table {
                tid: row.get(0)?,
                unique,
                counters: def.counters(),
                waiting: Columns::default(),
                state,
                appended: row.get(2)?,
                announced: row.get(3)?,
                note: row.get(4)?,
                def_id: DefId(row.get(5)?),
                sql_name: format!("main.{}", quote(&def.name)),
                def,
                is_parent: false,
            });
        }
        let parents: Vec<String> = tables
            .iter()
            .filter(|t| t.shows_shared())
            .flat_map(|t| t.def.foreign_keys.iter().map(|f| f.parent.to_ascii_lowercase()))
            .collect();
        for mut table in tables {
            table.waiting = self.waiting_columns(table.tid, &table.def)?;
            let name = table.def.name.to_ascii_lowercase();
            table.is_parent = parents.contains(&name);
            catalog.names.insert(name, table.tid);
            catalog.tables.insert(table.tid, Arc::new(table));
        }
        *self.catalog.borrow_mut() = catalog;
        Ok(())
    }

    /// After a change to `_pm_table` of our own.
    pub(crate) fn reload_catalog(&self) -> Result<()> {
        self.doubt_triggers();
        self.catalog.borrow_mut().forget();
        self.load_catalog()
    }

    /// All tables that are known, in the order of their numbers.
    pub(crate) fn tables(&self) -> Vec<Arc<Table>> {
        let mut tables: Vec<_> = self.catalog.borrow().tables.values().cloned().collect();
        tables.sort_by_key(|t| t.tid);
        tables
    }

    pub(crate) fn table(&self, tid: i64) -> Result<Arc<Table>> {
        let table = self.catalog.borrow().tables.get(&tid).cloned();
        table.ok_or_else(|| Error::damaged(format!("table number {tid} is not in `_pm_table`")))
    }

    /// The table of this name, if it is known.
    pub(crate) fn table_named(&self, name: &str) -> Option<Arc<Table>> {
        let catalog = self.catalog.borrow();
        catalog.names.get(&name.to_ascii_lowercase()).and_then(|tid| catalog.tables.get(tid)).cloned()
    }

    /// The table of this name, tracked or gathered here.
    pub(crate) fn tracked_table(&self, name: &str) -> Result<Arc<Table>> {
        match self.table_named(name) {
            Some(table) if matches!(table.state, State::Tracked | State::Gathered | State::Held) => Ok(table),
            _ => Err(Error::UnknownTable {
                table: name.into(),
                tracked: self
                    .tables()
                    .iter()
                    .filter(|t| matches!(t.state, State::Tracked | State::Gathered | State::Held))
                    .map(|t| t.def.name.clone())
                    .collect(),
            }),
        }
    }

    /// The definition that ops name by this id.
    pub(crate) fn op_def(&self, id: DefId) -> Result<Arc<OpDef>> {
        if let Some(def) = self.catalog.borrow().defs.get(&id) {
            return Ok(def.clone());
        }
        let found = self
            .db
            .prepare_cached("SELECT tid, body FROM _pm_def WHERE id = ?1")?
            .query_row([id.0], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let Some((tid, body)) = found else {
            return Err(Error::damaged("rows in the log whose table definition is not there"));
        };
        let def = TableDef::decode(&body).map_err(|e| Error::damaged(format!("`_pm_def`: {e}")))?;
        let op_def = Arc::new(OpDef {
            tid,
            key_flags: def.key_flags(),
            keys: def.keys().map(|at| (at, def.columns[at].collation)).collect(),
            def,
        });
        self.catalog.borrow_mut().defs.insert(id, op_def.clone());
        Ok(op_def)
    }

    /// Keeps a definition; the table becomes known if it was not.
    pub(crate) fn keep_def(&self, def: &TableDef, id: DefId, body: &[u8]) -> Result<i64> {
        let known = self.table_named(&def.name).map(|t| t.tid);
        let tid = match known {
            Some(tid) => tid,
            None => {
                self.db
                    .prepare_cached("INSERT INTO _pm_table (name, def, state) VALUES (?1, ?2, 0)")?
                    .execute((&def.name, id.0))?;
                self.db.last_insert_rowid()
            }
        };
        self.db
            .prepare_cached("INSERT OR IGNORE INTO _pm_def (id, tid, body) VALUES (?1, ?2, ?3)")?
            .execute((id.0, tid, body))?;
        if known.is_none() {
            self.reload_catalog()?;
        }
        Ok(tid)
    }
}

impl OpDef {
    /// The canonical key of an op's values, which come in the order of the columns.
    pub(crate) fn key_of<'v>(
        &self,
        values: impl Iterator<Item = (usize, Value<'v>)> + Clone,
    ) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        for (column, collation) in &self.keys {
            let value = values.clone().find(|(at, _)| at == column).map(|(_, value)| value);
            push_key(&mut key, value.ok_or_else(|| Error::damaged("an op without its key"))?, *collation)?;
        }
        Ok(key)
    }
}
