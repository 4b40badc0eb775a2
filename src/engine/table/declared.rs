//! What devices declare of a table: the declarations that are not superseded.

use std::collections::BTreeSet;

use packmule_core::model::DeviceId;
use packmule_core::wire::{DefId, SchemaBits};
use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;

use crate::engine::error::Result;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// What a declaration is about, as `_pm_declared.what` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// How the table merges, and its policy.
    Merge = 0,
    /// A column's type, collation and default.
    Column = 1,
    /// What is done about concurrent writes to a column.
    Rule = 2,
    /// A UNIQUE, by its columns.
    Unique = 3,
    /// What the table is on the device: see `shapes`.
    Shape = 4,
    /// What a column was called before it was renamed: see `renamed`.
    Renamed = 5,
    /// A column that a person has dropped for all: see `dropped`.
    Dropped = 6,
}

impl ToSql for Subject {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

/// Returns what a device said of its table besides its definition, of the value of a [`Subject::Shape`].
pub(crate) fn bits_of(value: &[u8]) -> SchemaBits {
    SchemaBits(value.get(8).copied().unwrap_or(0))
}

/// Returns whether a declaration is of a definition that takes part: it is none of a table that a device has changed alone, or
/// does not track any more.
pub(crate) fn takes_part(what: i64, value: &[u8]) -> bool {
    let bits = bits_of(value);
    match what == Subject::Shape as i64 {
        true => !bits.says(SchemaBits::CHANGED) && !bits.says(SchemaBits::LEFT),
        false => what < Subject::Shape as i64,
    }
}

/// Returns the number of the table under which the shapes of all tables of a name are recorded: a device has one of them.
pub(crate) fn root_of(replica: &Replica, tid: i64) -> i64 {
    replica.catalog.borrow().tables.get(&tid).map_or(tid, |table| table.root)
}

/// Records a declaration on a subject, of a device in a frame at a Lamport time, which its definition `id` makes.
pub(crate) fn record(
    replica: &Replica,
    tid: i64,
    (what, name): (Subject, &str),
    (dev, seq, lamport): (i64, u64, u64),
    value: &[u8],
    id: DefId,
) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
        )?
        .execute((tid, what, name, dev, seq, lamport, value, id.0))?;
    Ok(())
}

/// Selects the tables with a disputed column. Its parameter `:column` is [`Subject::Column`].
pub(crate) const DISPUTED_TABLES: &str = "SELECT tid FROM _pm_declared WHERE what = :column AND NOT past
    GROUP BY tid, name HAVING count(DISTINCT value) > 1";

/// A declaration that is not superseded.
pub(crate) struct Declared {
    pub author: DeviceId,
    pub dev: i64,
    pub value: Vec<u8>,
    pub def: DefId,
}

/// Returns the declarations on a subject that are not superseded, the earliest first, each value once.
pub(crate) fn declared(replica: &Replica, tid: i64, what: Subject, name: &str) -> Result<Vec<Declared>> {
    let mut statement = replica.db.prepare_cached(
        // By the index, which has what stands apart from what is past, of which there may be much.
        "SELECT d.id, p.dev, p.value, p.def
         FROM (SELECT dev, seq FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3 AND past = 0 LIMIT -1) s
         CROSS JOIN _pm_declared p CROSS JOIN _pm_device d
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = ?3 AND p.dev = s.dev AND p.seq = s.seq AND d.n = p.dev
         ORDER BY p.lamport, d.id",
    )?;
    let all = statement
        .query_map((tid, what, name.to_ascii_lowercase()), |row| {
            Ok(Declared {
                author: DeviceId(row.get(0)?),
                dev: row.get(1)?,
                value: row.get(2)?,
                def: DefId(row.get(3)?),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut seen = BTreeSet::new();
    Ok(all.into_iter().filter(|d| seen.insert(d.value.clone())).collect())
}

/// Returns the frames of the declarations on a subject that are not superseded: their devices and numbers.
pub(crate) fn standing(replica: &Replica, tid: i64, what: Subject, name: &str) -> Result<Vec<(i64, u64)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT dev, seq FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3 AND past = 0",
    )?;
    let rows = statement.query_map((tid, what, name), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the disputed columns of a table: those of which several declarations are left.
pub(crate) fn disputed_columns(replica: &Replica, tid: i64, def: &TableDef) -> Result<Columns> {
    let mut statement = replica.db.prepare_cached(
        "SELECT name FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND past = 0
         GROUP BY name HAVING count(DISTINCT value) > 1",
    )?;
    let names = statement
        .query_map((tid, Subject::Column), |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(names.iter().filter_map(|name| def.column(name)).collect())
}
