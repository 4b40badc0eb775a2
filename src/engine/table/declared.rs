//! What devices declare of a table.

use std::collections::BTreeSet;

use packmule_core::model::DeviceId;
use packmule_core::wire::DefId;

use crate::engine::error::Result;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// What a declaration is about.
pub(crate) mod what {
    /// How the table merges, and its policy.
    pub const MERGE: i64 = 0;
    /// A column's type, collation and default.
    pub const COLUMN: i64 = 1;
    /// What is done about concurrent writes to a column.
    pub const RULE: i64 = 2;
    /// A UNIQUE, by its columns.
    pub const UNIQUE: i64 = 3;
}

/// Tables with a column that waits.
pub(crate) const WAITING_TABLES: &str = "SELECT tid FROM _pm_declared WHERE what = 1 AND NOT past
    GROUP BY tid, name HAVING count(DISTINCT value) > 1";

/// One of the declarations that no other took the place of.
pub(crate) struct Declared {
    pub author: DeviceId,
    pub dev: i64,
    pub value: Vec<u8>,
    pub def: DefId,
}

/// The declarations that are left, the earliest first, each value once.
pub(crate) fn declared(replica: &Replica, tid: i64, what: i64, name: &str) -> Result<Vec<Declared>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT d.id, p.dev, p.value, p.def FROM _pm_declared p JOIN _pm_device d ON d.n = p.dev
         WHERE p.tid = ?1 AND p.what = ?2 AND p.name = ?3 AND NOT p.past ORDER BY p.lamport, d.id",
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

/// The columns of each table that wait: numbers by the table's definition.
pub(crate) fn waiting_columns(replica: &Replica, tid: i64, def: &TableDef) -> Result<Columns> {
    let mut statement = replica.db.prepare_cached(
        "SELECT name FROM _pm_declared WHERE tid = ?1 AND what = 1 AND NOT past
         GROUP BY name HAVING count(DISTINCT value) > 1",
    )?;
    let names = statement.query_map([tid], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(names.iter().filter_map(|name| def.column(name)).collect())
}
