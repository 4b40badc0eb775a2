//! What is known of a tracked table, and of a definition in the log.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use packmule_core::model::Value;
use packmule_core::wire::{Collation, DefId, Mode, Op, Shape};
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};

use crate::engine::error::{Error, Result};
use crate::engine::store::value::{self, Affinity};
use crate::engine::table::columns::Columns;
use crate::engine::table::def::{ColumnDef, DEVICE_COLUMN, TableDef};

/// Most keys take no more bytes than these.
const KEY_ROOM: usize = 40;

/// How a table stands in this database, as `_pm_table.state` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Known from other devices only: its ops are pending in the log.
    Known = 0,
    /// Tracked: captured here, and shared rows of other devices are applied.
    Tracked = 1,
    /// Per-device rows of other devices are gathered in it.
    Gathered = 2,
    /// No longer tracked: its ops are pending again.
    Untracked = 3,
    /// Tracked, and changed here in a way that does not travel: suspended in both directions until it is put back.
    Suspended = 4,
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Known, Self::Tracked, Self::Gathered, Self::Untracked, Self::Suspended];
        let damaged = "`_pm_table` has a row of an unknown state";
        value::read_number(value, &all.map(|state| (state as i64, state)), damaged)
    }
}

/// What the name in `_pm_table` of a table begins with whose own name another one has here. No device can give it to a table.
pub(crate) const ASIDE: &str = "_pm_aside_";

/// A table that is known.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub tid: i64,
    /// What it is here, or what its last definition in the log says.
    pub def: TableDef,
    pub def_id: DefId,
    pub state: State,
    /// The highest rowid that is sealed, of an append table.
    pub high_water: i64,
    /// Whether an append table carries deletes.
    pub carries_deletes: bool,
    /// Whether the free ids up to its mark are known.
    pub knows_gaps: bool,
    /// The definition is in the log of this device.
    pub announced: bool,
    /// The reason of its state, for people.
    pub note: Option<String>,
    /// Quoted, with the schema.
    pub sql_name: String,
    /// Whether a foreign key of a tracked table, maybe its own, refers to it.
    pub is_parent: bool,
    /// Whether it has a unique index besides that of its key.
    pub unique: bool,
    /// Whether it has generated columns.
    pub generated: bool,
    /// The key's columns and how they compare, in the order of the key: found once, since every row asks for them.
    pub keys: Vec<(usize, Collation)>,
    /// The columns whose concurrent additions add up.
    pub counters: Vec<usize>,
    /// The disputed columns, which devices declared differently: nothing of other devices is written into them.
    pub disputed: Columns,
    /// The table of which it gathers other devices' rows, if that is another one.
    pub gathers: Option<i64>,
    /// The first table of its name, by number: itself, unless that has another primary key.
    pub root: i64,
    /// Another table stands under its name here, with another primary key: what comes for it waits.
    pub aside: bool,
}

/// What our statements that write to a table say of a violated constraint: they are undone. A constraint that says REPLACE, IGNORE
/// or ROLLBACK says so for the application's statements.
pub(crate) const OR_ABORT: &str = "OR ABORT";

impl Table {
    /// Returns whether rows of the shared stream are shown in it.
    pub(crate) fn shows_shared(&self) -> bool {
        self.state == State::Tracked && self.def.mode == Mode::Shared
    }

    /// Returns the names of the tables that it refers to in small letters, where it shows what is shared.
    fn parents(&self) -> impl Iterator<Item = String> + use<'_> {
        let foreign = self.def.foreign_keys.iter().filter(|_| self.shows_shared());
        foreign.map(|foreign| foreign.parent.to_ascii_lowercase())
    }

    /// Returns the columns for which no version speaks against others: counters, in which all count, and the key, which all
    /// have.
    pub(crate) fn counted_or_key(&self) -> Columns {
        self.counters.iter().copied().chain(self.def.keys()).collect()
    }

    /// Returns whether versions of its rows are remembered here: they are shown in it, or will be when it is held no more.
    pub(crate) fn remembers_shared(&self) -> bool {
        matches!(self.state, State::Tracked | State::Suspended) && self.def.mode == Mode::Shared
    }

    /// Returns whether rows that come at or below its mark are looked for: it is an append table that this device alone
    /// writes to.
    pub(crate) fn watches_gaps(&self) -> bool {
        self.def.append && self.def.mode == Mode::PerDevice && self.state == State::Tracked
    }

    /// Returns whether SQLite reads and writes its rows only whole: then no value of it is read in pieces.
    pub(crate) fn is_whole(&self) -> bool {
        self.def.without_rowid || self.generated
    }

    /// Returns the name of the list of rows that were written since the last seal.
    pub(crate) fn dirty(&self) -> String {
        format!("_pm_dirty_{}", self.tid)
    }

    /// Returns the name of the table that lies beside one without a key.
    pub(crate) fn rowids(&self) -> String {
        format!("_pm_rowids_{}", self.tid)
    }

    /// Returns the columns that every entry of that list has.
    pub(crate) fn change_columns(&self) -> String {
        let keys = (1..=self.def.keys().count()).map(|n| format!("k{n}"));
        keys.chain(["note".into()]).collect::<Vec<_>>().join(", ")
    }

    /// Returns the condition on the key of an entry of that list.
    pub(crate) fn change_match(&self) -> String {
        let keys = (1..=self.def.keys().count()).map(|n| format!("k{n} = ?{n}"));
        keys.collect::<Vec<_>>().join(" AND ")
    }

    /// Returns the `SELECT` of columns by a key.
    pub(crate) fn select_sql(&self, columns: &str) -> String {
        format!("SELECT {columns} FROM {} WHERE {}", self.sql_name, self.key_match_from(0))
    }

    /// Returns the `DELETE` by a key.
    pub(crate) fn delete_sql(&self) -> String {
        format!("DELETE FROM {} WHERE {}", self.sql_name, self.key_match_from(0))
    }

    /// Returns the names of all columns, quoted.
    pub(crate) fn column_list(&self) -> String {
        self.def.columns.iter().map(|c| value::column(&c.name)).collect::<Vec<_>>().join(", ")
    }

    /// Returns the names of columns, quoted; before them that of the device, if the table is gathered.
    fn with_device(&self, columns: impl Iterator<Item = usize>) -> String {
        let device = (self.state == State::Gathered).then(|| value::column(DEVICE_COLUMN));
        let names = columns.map(|at| value::column(&self.def.columns[at].name));
        device.into_iter().chain(names).collect::<Vec<_>>().join(", ")
    }

    /// Returns the `INSERT` of these columns.
    pub(crate) fn insert_sql(&self, columns: &[usize]) -> String {
        let n = columns.len() + usize::from(self.state == State::Gathered);
        let marks: Vec<String> = (1..=n).map(|n| format!("?{n}")).collect();
        format!(
            "INSERT {OR_ABORT} INTO {} ({}) VALUES ({})",
            self.sql_name,
            self.with_device(columns.iter().copied()),
            marks.join(", ")
        )
    }

    /// Returns the `INSERT` of these columns that overwrites the row with the same key.
    pub(crate) fn upsert_sql(&self, columns: &[usize]) -> String {
        let names = columns.iter().map(|at| value::column(&self.def.columns[*at].name));
        let sets: Vec<String> = names.map(|name| format!("{name} = excluded.{name}")).collect();
        format!(
            "{} ON CONFLICT ({}) DO UPDATE SET {}",
            self.insert_sql(columns),
            self.with_device(self.def.keys()),
            sets.join(", "),
        )
    }

    /// Returns the `UPDATE` of these columns, whose values come first, by a key. Without columns it changes nothing,
    /// and its count of rows says whether there is one.
    pub(crate) fn update_sql(&self, columns: &[usize]) -> String {
        let mut sets: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(n, at)| format!("{} = ?{}", value::column(&self.def.columns[*at].name), n + 1))
            .collect();
        if sets.is_empty() {
            let key = self
                .def
                .keys()
                .next()
                .map(|at| value::column(&self.def.columns[at].name))
                .unwrap_or_default();
            sets.push(format!("{key} = {key}"));
        }
        format!(
            "UPDATE {OR_ABORT} {} SET {} WHERE {}",
            self.sql_name,
            sets.join(", "),
            self.key_match_from(columns.len())
        )
    }

    /// Returns the condition on the key, whose values come after `n` others.
    pub(crate) fn key_match_from(&self, n: usize) -> String {
        let gathered = (self.state == State::Gathered).then(|| value::column(DEVICE_COLUMN));
        let keys = self.def.keys().map(|at| value::column(&self.def.columns[at].name));
        let parts =
            gathered.into_iter().chain(keys).enumerate().map(|(at, c)| format!("{c} = ?{}", at + 1 + n));
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// Returns whether a column is not written to because it is disputed. One that must have a value is written to
    /// all the same.
    pub(crate) fn leaves(&self, at: usize) -> bool {
        self.disputed.contains(at) && self.def.columns[at].is_optional()
    }

    /// Returns the name of the table that it is here, unquoted.
    pub(crate) fn place(&self) -> &str {
        &self.def.name
    }

    /// Returns the name of its quarantine table.
    pub(crate) fn quarantine_table(&self) -> String {
        format!("_pm_limbo_{}", self.tid)
    }

    /// Returns whether deletes must carry the row's last values: a concurrent update of a part of it may restore it.
    pub(crate) fn needs_baseline(&self) -> bool {
        self.def.needs_baseline()
    }

    /// Encodes the canonical key of a row from its key values, in the order of the key.
    pub(crate) fn key_of<'v>(&self, values: impl Iterator<Item = Value<'v>>) -> Result<Vec<u8>> {
        let mut key = Vec::with_capacity(KEY_ROOM);
        for (value, (_, collation)) in values.zip(&self.keys) {
            value::push_key(&mut key, value, *collation)?;
        }
        Ok(key)
    }

    /// Encodes the canonical key of a row of a query whose first columns are the key's.
    pub(crate) fn key_in(&self, row: &Row<'_>) -> Result<Vec<u8>> {
        let values = (0..self.def.keys().count()).map(|at| row.get_ref(at).map(value::from_sql));
        self.key_of(values.collect::<rusqlite::Result<Vec<_>>>()?.into_iter())
    }
}

/// A value that an op carries, with the number of its column.
pub(crate) type Carried<'v> = (usize, Value<'v>);

/// A definition in which ops of some author are encoded.
#[derive(Debug)]
pub(crate) struct OpDef {
    pub id: DefId,
    pub tid: i64,
    pub def: TableDef,
    /// One flag a column: whether it is in the key.
    pub key_flags: Vec<bool>,
    /// Column numbers in the order of the key, with their collations.
    pub keys: Vec<(usize, Collation)>,
    /// The affinity of each column.
    pub affinities: Vec<Affinity>,
}

impl OpDef {
    /// Makes what ops need of a definition.
    pub(crate) fn of(id: DefId, tid: i64, def: TableDef) -> Self {
        let keys = def.keys().map(|at| (at, def.columns[at].collation)).collect();
        let affinities = def.columns.iter().map(ColumnDef::affinity).collect();
        Self { id, tid, key_flags: def.key_flags(), keys, affinities, def }
    }
}

/// What is known of tables; forgotten when another connection changed the database.
#[derive(Default)]
pub(crate) struct Catalog {
    /// `PRAGMA data_version` and whether anything was loaded.
    pub loaded: Option<i64>,
    pub tables: HashMap<i64, Arc<Table>>,
    pub names: HashMap<String, i64>,
    /// By the first table of a name, the others of that name: of most names there are none.
    pub namesakes: HashMap<i64, BTreeSet<i64>>,
    /// By the name of a table in small letters, the tables that refer to it and show what is shared.
    pub children: HashMap<String, HashSet<i64>>,
    /// By table, the one in which other devices' rows of it are gathered, where that is another one.
    pub mirrors: HashMap<i64, i64>,
    pub defs: HashMap<DefId, Arc<OpDef>>,
    /// Whether other devices have columns of a table that it lacks, where that was looked up.
    pub lags: HashMap<i64, bool>,
}

impl Catalog {
    /// Puts a table into it, in the place of what was known of it.
    pub(crate) fn put(&mut self, table: Table) {
        if table.tid != table.root {
            self.namesakes.entry(table.root).or_default().insert(table.tid);
        }
        if let Some(before) = self.tables.get(&table.tid) {
            for parent in before.parents() {
                if let Some(children) = self.children.get_mut(&parent) {
                    children.remove(&table.tid);
                }
            }
        }
        for parent in table.parents() {
            self.children.entry(parent).or_default().insert(table.tid);
        }
        match table.gathers {
            // Its name is this database's own: in a log the same name means another table.
            Some(of) => self.mirrors.insert(of, table.tid),
            None if table.aside => None,
            None => self.names.insert(table.def.name.to_ascii_lowercase(), table.tid),
        };
        self.tables.insert(table.tid, Arc::new(table));
    }

    /// Returns whether a table that shows what is shared refers to the one of this name, in small letters.
    pub(crate) fn is_referred_to(&self, name: &str) -> bool {
        self.children.get(name).is_some_and(|children| !children.is_empty())
    }

    /// Empties it.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl OpDef {
    /// Returns the shape that ops in this definition are decoded with.
    pub(crate) fn shape(&self) -> Shape<'_> {
        Shape { keys: &self.key_flags }
    }

    /// Decodes the values of an op.
    pub(crate) fn values_of<'v>(&self, op: &Op<'v>) -> Vec<Carried<'v>> {
        let mut values = Vec::with_capacity(self.key_flags.len());
        op.values(self.shape()).for_each(|value| values.push(value));
        values
    }

    /// Encodes the canonical key of an op from its values, in the order of the columns.
    pub(crate) fn key_of<'v>(&self, values: impl Iterator<Item = Carried<'v>> + Clone) -> Result<Vec<u8>> {
        let mut key = Vec::with_capacity(KEY_ROOM);
        for (column, collation) in &self.keys {
            let value = values.clone().find(|(at, _)| at == column).map(|(_, value)| value);
            value::push_key(
                &mut key,
                value.ok_or_else(|| Error::damaged("an op without its key"))?,
                *collation,
            )?;
        }
        Ok(key)
    }
}
