//! Columns that were renamed: what a name in an older definition means.
//!
//! A device that announces a renamed column says what it was called before: a declaration of its own kind, which is never
//! superseded and travels with every state. What a name means is a function of what is said, and of the definitions that were
//! announced.

use std::cmp::Ordering;

use packmule_core::wire::{DefId, SchemaBits};

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
    Ok(names_by(&renames(replica, tid)?, name))
}

/// Returns the same by what devices have said: those that were said of the name first, in the order of the alphabet.
fn names_by(renames: &[(String, String)], name: &str) -> Vec<String> {
    let mut names = vec![name.to_ascii_lowercase()];
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        let other = |(before, after): &(String, String)| match (*before == name, *after == name) {
            (true, _) => Some(after.clone()),
            (_, true) => Some(before.clone()),
            _ => None,
        };
        let mut found: Vec<String> = renames.iter().filter_map(other).collect();
        found.sort();
        for other in found {
            if !names.contains(&other) {
                names.push(other);
            }
        }
        at += 1;
    }
    names.remove(0);
    names
}

/// Finds the column of `now` that has this name, or another one since it was renamed.
pub(crate) fn column_now(replica: &Replica, tid: i64, now: &TableDef, name: &str) -> Result<Option<usize>> {
    match now.column(name) {
        Some(at) => Ok(Some(at)),
        None => Ok(meant(&renames(replica, tid)?, now, name, &|_| true)),
    }
}

/// Gives the columns of a definition the names that they have in `now`, where they were renamed.
pub(crate) fn as_now(replica: &Replica, tid: i64, def: &mut TableDef, now: &TableDef) -> Result<()> {
    let renames = renames(replica, tid)?;
    for at in 0..if renames.is_empty() { 0 } else { def.columns.len() } {
        let name = &def.columns[at].name;
        let is_free = |name: &str| def.column(name).is_none();
        let found = match now.column(name) {
            None => meant(&renames, now, name, &is_free),
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

/// Finds the column of `now` that a name means which it has not, of the names that it `may` have.
fn meant(
    renames: &[(String, String)],
    now: &TableDef,
    name: &str,
    may: &dyn Fn(&str) -> bool,
) -> Option<usize> {
    names_by(renames, name).iter().filter(|name| may(name)).find_map(|name| now.column(name))
}

/// Returns what devices have said that columns of a table are called since, each with its name before, as far as it holds.
///
/// A device that skips versions, or whose table has no rows, can take two columns for one. Another that had both at once tells
/// (`are_two`): what the first one said is void then, for everybody.
fn renames(replica: &Replica, tid: i64) -> Result<Vec<(String, String)>> {
    let sql = "SELECT DISTINCT name, CAST(value AS TEXT) FROM _pm_declared WHERE tid = ?1 AND what = ?2 ORDER BY 1, 2";
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map((tid, Subject::Renamed), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut said = rows.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    if !said.is_empty() {
        let shapes = ever_announced(replica, tid)?;
        said.retain(|(before, after)| !are_two(&shapes, before, after));
    }
    Ok(said)
}

/// Returns the definitions in which an application ever had a table of a name, as far as devices have announced them: none that
/// Packmule made itself.
fn ever_announced(replica: &Replica, tid: i64) -> Result<Vec<TableDef>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT body FROM _pm_def WHERE id IN (SELECT def FROM _pm_declared
           WHERE tid = ?1 AND what = ?2 AND name = '' AND coalesce(unicode(substr(value, 9, 1)), 0) & ?3 = 0)",
    )?;
    let params = (declared::root_of(replica, tid), Subject::Shape, SchemaBits::FOLLOWS.0);
    let bodies =
        statement.query_map(params, |row| row.get(0))?.collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    bodies.iter().map(|body| TableDef::stored(body)).collect()
}

/// Returns whether devices have told that a name is of another column than the one before it: an application had both at once,
/// and none had them the other way round. A column that gets the name of a renamed one comes after that.
fn are_two(shapes: &[TableDef], before: &str, after: &str) -> bool {
    let order = |def: &TableDef| Some(def.column(before)?.cmp(&def.column(after)?));
    let orders: Vec<Ordering> = shapes.iter().filter_map(order).collect();
    !orders.is_empty() && orders.iter().all(|order| order.is_lt())
}

/// Returns whether a column that is not there any more is known not to be the one that has this name now.
pub(crate) fn is_another(replica: &Replica, tid: i64, gone: &str, name: &str) -> Result<bool> {
    Ok(are_two(&ever_announced(replica, tid)?, gone, name))
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
