//! The list of changes that a table's triggers append to, and the quarantine table beside it.
//!
//! | column | in the list of | what |
//! |---|---|---|
//! | `k1`… | every table | the row's key |
//! | `note` | every table | what was done: [`ChangeFlags`] |
//! | `wall` | tables where the time of a write counts | when, in milliseconds since 1970 |
//! | `m0`… | tables that merge by cell, or with a disputed column | which columns an update changed, 60 bits each |
//! | `oN` | tables with counters | what the counter column N was before an update |
//! | `iN` | tables whose deletes carry the row's last values | column N of a row that is deleted |

use std::fmt;
use std::ops::BitOr;

use packmule_core::wire::{Merge, Mode};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{ToSql, params_from_iter};

use crate::engine::error::{Error, Result};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// What an entry of the list says was done to a row: the column `note`. Of several entries the flags are united.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeFlags(i64);

impl ChangeFlags {
    /// The row was inserted, or got this key.
    pub(crate) const INSERT: Self = Self(1);
    /// It was updated; no column that a unique index covers changed.
    pub(crate) const UPDATE: Self = Self(2);
    /// It was updated in such a column.
    pub(crate) const UPDATE_UNIQUE: Self = Self(4);
    /// It was deleted, or lost this key.
    pub(crate) const DELETE: Self = Self(8);
    /// A REPLACE may have removed it, for which no delete trigger runs. If it is still there, nothing happened.
    pub(crate) const MAYBE_GONE: Self = Self(16);
    /// A resolution: an op is made whatever the row is like.
    pub(crate) const RESOLVED: Self = Self(32);
    const ALL: Self = Self(63);

    /// Returns whether any of these flags is set.
    pub(crate) fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    /// Returns whether no flags but these are set.
    pub(crate) fn is_within(self, these: Self) -> bool {
        self.0 & !these.0 == 0
    }
}

impl BitOr for ChangeFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Shows the number, as the SQL of triggers has it.
impl fmt::Display for ChangeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ToSql for ChangeFlags {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for ChangeFlags {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let flags = Self(value.as_i64()?);
        if flags.is_within(Self::ALL) {
            Ok(flags)
        } else {
            Err(FromSqlError::other(Error::damaged("a list of changes has an entry of an unknown kind")))
        }
    }
}

/// The columns that one integer of a mask stands for.
pub(crate) const MASK_BITS: usize = 60;

/// Returns how many integers the mask of a table has.
pub(crate) fn masks(table: &Table) -> usize {
    let def = &table.def;
    let by_column = def.mode == Mode::Shared && (def.merge == Merge::Cell || !table.disputed.is_empty());
    if by_column { def.columns.len().div_ceil(MASK_BITS) } else { 0 }
}

/// Returns the names of the list's columns after `note`.
pub(crate) fn extra_columns(table: &Table) -> Vec<String> {
    let def = &table.def;
    let mut names = Vec::new();
    if def.timed() {
        names.push("wall".into());
    }
    names.extend((0..masks(table)).map(|n| format!("m{n}")));
    names.extend(def.counters().iter().map(|at| format!("o{at}")));
    if def.needs_baseline() {
        names.extend((0..def.columns.len()).map(|at| format!("i{at}")));
    }
    names
}

/// What a trigger fires for, which decides what it writes into those columns.
pub(crate) enum Event {
    Insert,
    Update,
    /// The row `OLD`, or one that is found in the table by this name, leaves.
    Gone(String),
}

/// Returns the SQL of the extra columns' values, each after a comma. `changed` gives the condition by which a column
/// counts as changed; `outliving` makes an expression over OLD and NEW outlive its columns, as `value_in` makes a column
/// of the row of a name.
pub(crate) fn extra_values(
    table: &Table,
    event: &Event,
    changed: &dyn Fn(usize) -> String,
    outliving: &dyn Fn(&str) -> String,
    value_in: &dyn Fn(&str, usize) -> String,
) -> String {
    let def = &table.def;
    let mut values = Vec::new();
    if def.timed() {
        // SQLite 3.34 has no unixepoch(); a Julian day has 86,400,000 milliseconds.
        values.push("CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)".to_owned());
    }
    for n in 0..masks(table) {
        let columns = (n * MASK_BITS)..def.columns.len().min((n + 1) * MASK_BITS);
        values.push(match event {
            Event::Update => {
                let bits: Vec<String> =
                    columns.map(|at| format!("(({}) << {})", changed(at), at - n * MASK_BITS)).collect();
                outliving(&bits.join(" | "))
            }
            _ => "NULL".into(),
        });
    }
    for at in def.counters() {
        let c = value::quote(&def.columns[at].name);
        values.push(match event {
            Event::Update => outliving(&format!("OLD.{c}")),
            _ => "NULL".into(),
        });
    }
    if def.needs_baseline() {
        values.extend((0..def.columns.len()).map(|at| match event {
            Event::Gone(row) => value_in(row, at),
            _ => "NULL".into(),
        }));
    }
    values.iter().map(|v| format!(", {v}")).collect()
}

/// Returns the bits of a set of columns, as the list has them.
pub(crate) fn mask_values(table: &Table, columns: &Columns) -> Vec<i64> {
    (0..masks(table))
        .map(|n| {
            (0..MASK_BITS).filter(|bit| columns.contains(n * MASK_BITS + bit)).fold(0, |m, bit| m | 1 << bit)
        })
        .collect()
}

/// Returns the set of columns of such bits.
pub(crate) fn mask_columns(masks: &[i64]) -> Columns {
    let bits = |(n, mask): (usize, &i64)| {
        let mask = *mask;
        (0..MASK_BITS).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| n * MASK_BITS + bit)
    };
    masks.iter().enumerate().flat_map(bits).collect()
}

/// Records in a table's list of changes what was done to a row.
pub(crate) fn record_key(
    replica: &Replica,
    table: &Table,
    key: &[OwnedValue],
    what: ChangeFlags,
) -> Result<()> {
    let marks: Vec<String> = (1..=key.len()).map(|n| format!("?{n}")).collect();
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({}, {what})",
        table.dirty(),
        table.change_columns(),
        marks.join(", ")
    );
    let binds = params_from_iter(key.iter().map(|v| Bind(v.borrow())));
    replica.db.prepare_cached(&sql)?.execute(binds)?;
    Ok(())
}

/// Makes the list and the quarantine table of a table, or adds the columns that they lack.
pub(crate) fn make_lists(replica: &Replica, table: &Table) -> Result<()> {
    make_change_list(replica, table)?;
    let def = &table.def;
    if def.mode == Mode::Shared {
        let columns: Vec<String> = def.columns.iter().map(|c| def.quarantine_sql(c)).collect();
        // Every statement that changes the schema walks through all of it: one less for each table.
        let unique = format!(", UNIQUE ({})", def.key_list(""));
        make_list(replica, &table.quarantine_table(), &columns, &unique)?;
    }
    Ok(())
}

/// Returns the columns of a list that have the keys of a table's rows, compared as the table compares them.
pub(crate) fn key_columns(def: &TableDef) -> Vec<String> {
    def.keys().enumerate().map(|(n, at)| format!("k{}{}", n + 1, def.columns[at].collate())).collect()
}

/// Makes the list of a table, or adds the columns that it lacks.
pub(crate) fn make_change_list(replica: &Replica, table: &Table) -> Result<()> {
    let def = &table.def;
    let mut columns = key_columns(def);
    columns.push("note INTEGER NOT NULL".into());
    columns.extend(extra_columns(table));
    let added = make_list(replica, &table.dirty(), &columns, "")?;
    for (at, column) in def.columns.iter().enumerate().filter(|(at, _)| added.contains(&format!("i{at}"))) {
        // A row that was deleted before the column came had what the column gave to all others.
        let value = value::literal(&column.constant());
        replica.db.execute(&format!("UPDATE {} SET i{at} = {value}", table.dirty()), [])?;
    }
    Ok(())
}

/// Makes one of these tables with a constraint, or adds the columns that it lacks. Returns those that were added.
fn make_list(replica: &Replica, name: &str, columns: &[String], constraint: &str) -> Result<Vec<String>> {
    if !replica.db.table_exists(Some("main"), name)? {
        replica.db.execute_batch(&format!("CREATE TABLE {name} ({}{constraint})", columns.join(", ")))?;
        return Ok(Vec::new());
    }
    let mut added = Vec::new();
    for column in columns {
        let bare = bare_name(column);
        if !has_column(replica, name, &bare)? {
            replica.db.execute_batch(&format!("ALTER TABLE {name} ADD COLUMN {column}"))?;
            added.push(bare);
        }
    }
    Ok(added)
}

/// Returns whether a table, or one of our lists, has a column.
pub(crate) fn has_column(replica: &Replica, table: &str, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE";
    Ok(value::maybe::<i64>(&replica.db, sql, (table, name))?.is_some())
}

/// Returns the name in a column's definition.
fn bare_name(column: &str) -> String {
    match column.strip_prefix('"') {
        Some(quoted) => {
            let mut name = String::new();
            let mut chars = quoted.chars().peekable();
            while let Some(c) = chars.next() {
                if c == '"' && chars.next_if_eq(&'"').is_none() {
                    break;
                }
                name.push(c);
            }
            name
        }
        None => column.split(' ').next().unwrap_or(column).into(),
    }
}
