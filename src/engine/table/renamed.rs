//! Columns that were renamed: what a name in an older definition means.
//!
//! A device that announces a renamed column says what it was called before: a declaration of its own kind, which is never
//! superseded and travels with every state.

use packmule_core::wire::DefId;

use crate::engine::error::Result;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;

/// Records that a device has renamed a column.
pub(crate) fn record_renamed(
    replica: &Replica,
    tid: i64,
    place: (i64, u64, u64),
    id: DefId,
    (before, after): (&str, &str),
) -> Result<()> {
    let (before, after) = (before.to_ascii_lowercase(), after.to_ascii_lowercase());
    declared::record(replica, tid, (Subject::Renamed, &before), place, after.as_bytes(), id)
}

/// Returns the other names that a column has or had, in small letters.
pub(crate) fn names_of(replica: &Replica, tid: i64, name: &str) -> Result<Vec<String>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT CAST(value AS TEXT) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3
         UNION SELECT name FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND value = CAST(?3 AS BLOB) ORDER BY 1",
    )?;
    let mut names = vec![name.to_ascii_lowercase()];
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        let found = statement.query_map((tid, Subject::Renamed, name), |row| row.get(0))?;
        for other in found.collect::<rusqlite::Result<Vec<String>>>()? {
            if !names.contains(&other) {
                names.push(other);
            }
        }
        at += 1;
    }
    names.remove(0);
    Ok(names)
}

/// Finds the column of `now` that has this name, or another one since it was renamed.
pub(crate) fn column_now(replica: &Replica, tid: i64, now: &TableDef, name: &str) -> Result<Option<usize>> {
    match now.column(name) {
        Some(at) => Ok(Some(at)),
        None => meant(replica, tid, now, name, &|_| true),
    }
}

/// Finds the column of `now` that a name means which it has not, of the names that it `may` have.
fn meant(
    replica: &Replica,
    tid: i64,
    now: &TableDef,
    name: &str,
    may: &dyn Fn(&str) -> bool,
) -> Result<Option<usize>> {
    let names = names_of(replica, tid, name)?;
    Ok(names.iter().filter(|name| may(name)).find_map(|name| now.column(name)))
}

/// Gives the columns of a definition the names that they have in `now`, where they were renamed.
pub(crate) fn as_now(replica: &Replica, tid: i64, def: &mut TableDef, now: &TableDef) -> Result<()> {
    let renames = renames(replica, tid)?;
    for at in 0..if renames.is_empty() { 0 } else { def.columns.len() } {
        let name = &def.columns[at].name;
        let is_free = |name: &str| def.column(name).is_none();
        let found = match now.column(name) {
            None => meant(replica, tid, now, name, &is_free)?,
            // Where another column has got the name since, this one stands where it stood, before the new one.
            Some(reused) => renames
                .iter()
                .filter(|(before, after)| before.eq_ignore_ascii_case(name) && is_free(after))
                .find_map(|(_, after)| now.column(after).filter(|at| *at < reused)),
        };
        if let Some(here) = found {
            def.columns[at].name.clone_from(&now.columns[here].name);
        }
    }
    Ok(())
}

/// Returns what devices have said that columns of a table are called since, each with its name before.
fn renames(replica: &Replica, tid: i64) -> Result<Vec<(String, String)>> {
    let sql = "SELECT name, CAST(value AS TEXT) FROM _pm_declared WHERE tid = ?1 AND what = ?2";
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map((tid, Subject::Renamed), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns whether a definition of a table's name has its primary key.
pub(crate) fn is_of(replica: &Replica, tid: i64, def: &TableDef) -> Result<bool> {
    let Some(table) = replica.catalog.borrow().tables.get(&tid).cloned() else { return Ok(false) };
    if table.def.has_key_of(def) || table.def.mode != def.mode {
        return Ok(true);
    }
    let mut def = def.clone();
    as_now(replica, tid, &mut def, &table.def)?;
    Ok(table.def.has_key_of(&def))
}
