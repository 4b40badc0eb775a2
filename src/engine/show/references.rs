//! Foreign keys: orphans, which are rows that refer to a row that is not there. They stay where they are, and are
//! listed.
//!
//! **Invariant.** Every shown row of a shared table that refers by a foreign key to no row of another shared table
//! is in `_pm_dangling`. That table may have more: whether a row is an orphan *now* is always looked up. So the list
//! of conflicts is a function of the tables.
//!
//! **Why it holds.** A row becomes an orphan in three ways. It comes or changes: `after_shown` has it checked. Or the
//! row that it refers to changes or leaves: `before_change` records, *before* that, the values by which others refer
//! to it; where that row is not here any more its key gives the values, and where not even the key does, all orphans
//! of the foreign key are looked for. Or the table that it refers to is synced only from now on:
//! `record_new_parents`. All of these are checked at the end of the same group.
//!
//! **Whose it is** is not listed. Who has folded the row cannot say who wrote it, nor can who got it with a state; and whether
//! a device has folded it before it became an orphan is its own affair.

use std::sync::Arc;

use packmule_core::wire::Collation;
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::heads;
use crate::engine::store::meta;
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::def::{ForeignKeyDef, ROWID_NAMES};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns the foreign keys of a table that refer to another, by number.
fn references<'t>(child: &'t Table, parent: &'t Table) -> impl Iterator<Item = (usize, &'t ForeignKeyDef)> {
    let all = child.def.foreign_keys.iter().enumerate();
    let refers = |foreign: &ForeignKeyDef| foreign.parent.eq_ignore_ascii_case(&parent.def.name);
    all.filter(move |(_, foreign)| refers(foreign) && can_refer(foreign, parent))
}

/// Returns whether a table has the columns that a foreign key refers to. SQLite takes one that refers to others, and says so where
/// an application has foreign keys enforced; what it would find nobody knows.
fn can_refer(foreign: &ForeignKeyDef, parent: &Table) -> bool {
    let def = &parent.def;
    let is_rowid =
        |name: &str| !def.without_rowid && ROWID_NAMES.iter().any(|rowid| rowid.eq_ignore_ascii_case(name));
    let has = |name: &str| def.column(name).is_some() || is_rowid(name);
    // Generated columns stand in no definition.
    parent.generated || foreign.columns.iter().all(|(_, there)| has(there))
}

/// Returns the table that a foreign key refers to.
fn parent_of(replica: &Replica, foreign: &ForeignKeyDef) -> Option<Arc<Table>> {
    catalog::table_named(replica, &foreign.parent).filter(|parent| can_refer(foreign, parent))
}

/// Gives each row that may be an orphan to `each`; a few are in memory at a time.
pub(crate) fn each_dangling(replica: &Replica, each: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
    let sql = "SELECT tid, key FROM _pm_dangling WHERE (tid, key) > (?1, ?2) ORDER BY tid, key";
    value::each_listed(&replica.db, sql, i64::MIN, each)
}

/// Returns whether a value there finds the same rows here as SQLite, which compares as the columns there do.
fn compares_alike(child: &Table, foreign: &ForeignKeyDef, parent: &Table) -> bool {
    let kind = |table: &Table, name: &str| {
        let column = &table.def.columns[table.def.column(name)?];
        let affinity = match Affinity::of(&column.decl_type) {
            Affinity::Integer | Affinity::Real => Affinity::Numeric,
            affinity => affinity,
        };
        Some((affinity, column.collation))
    };
    foreign.columns.iter().all(|(here, there)| kind(child, here) == kind(parent, there))
}

/// Returns the positions in the parent's key of the columns that a foreign key refers to, if all are of the key and
/// their values find the rows that refer to it.
fn by_key(child: &Table, foreign: &ForeignKeyDef, parent: &Table) -> Option<Vec<usize>> {
    let position = |there: &str| {
        parent.def.keys().position(|at| parent.def.columns[at].name.eq_ignore_ascii_case(there))
    };
    let positions = foreign.columns.iter().map(|(_, there)| position(there)).collect();
    if compares_alike(child, foreign, parent) { positions } else { None }
}

/// Returns the condition by which a row `c` finds the row `p` that it refers to: by the affinity and the collation
/// there alone, as SQLite compares them.
fn finds(foreign: &ForeignKeyDef) -> String {
    let columns = foreign.columns.iter();
    let same: Vec<String> = columns
        .map(|(here, there)| format!("p.{} = +c.{}", value::quote(there), value::quote(here)))
        .collect();
    same.join(" AND ")
}

/// Returns the condition that a row `c` refers to anything at all.
fn refers(foreign: &ForeignKeyDef) -> String {
    let columns = foreign.columns.iter();
    columns.map(|(here, _)| format!("c.{} IS NOT NULL", value::quote(here))).collect::<Vec<_>>().join(" AND ")
}

/// Has a row's references checked at the end of the group.
pub(crate) fn to_check(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO temp._pm_to_check (tid, key) VALUES (?1, ?2)";
    replica.db.prepare_cached(sql)?.execute((tid, key))?;
    Ok(())
}

/// Records the values by which others refer to a row, which is about to change or leave. Returns whether the row is
/// there, as far as any table refers to it.
pub(crate) fn record_left(replica: &Replica, parent: &Table, key: &[u8]) -> Result<bool> {
    let mut there = true;
    for child in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in references(child, parent) {
            let columns: Vec<String> = foreign.columns.iter().map(|(_, there)| value::quote(there)).collect();
            let values = value::read_key(key)?;
            let mut statement = replica.db.prepare_cached(&parent.select_sql(&columns.join(", ")))?;
            let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
            let Some(row) = rows.next()? else {
                there = false;
                continue;
            };
            let mut value = Vec::new();
            for at in 0..columns.len() {
                value::push_key(&mut value, value::from_sql(row.get_ref(at)?), Collation::Binary)?;
            }
            record_value(replica, child, n, &value)?;
        }
    }
    Ok(there)
}

/// Records a value by which rows may refer to one that changed or left; an empty one stands for all values.
fn record_value(replica: &Replica, child: &Table, foreign: usize, value: &[u8]) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO temp._pm_left (tid, foreign_key, value) VALUES (?1, ?2, ?3)";
    replica.db.prepare_cached(sql)?.execute((child.tid, foreign as i64, value))?;
    Ok(())
}

/// Has all references to a table looked up that others refer to, and that is synced only from now on.
fn record_new_parents(replica: &Replica) -> Result<()> {
    let mut all = Vec::new();
    for child in catalog::tables(replica).into_iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in child.def.foreign_keys.iter().enumerate() {
            if let Some(parent) = parent_of(replica, foreign).filter(|t| t.shows_shared()) {
                all.push((format!("{}.{n}.{}", child.tid, parent.tid), child.clone(), n));
            }
        }
    }
    let known = meta::get::<String>(&replica.db, "references")?.unwrap_or_default();
    let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    let names = names.join(" ");
    if names == known {
        return Ok(());
    }
    for (_, child, n) in all.iter().filter(|(name, ..)| !known.split(' ').any(|old| old == name)) {
        record_value(replica, child, *n, &[])?;
    }
    meta::set(&replica.db, "references", names)
}

/// Records orphans: among the rows that came, and among those that refer to a row that changed or left.
pub(crate) fn check_references(replica: &Replica) -> Result<()> {
    record_new_parents(replica)?;
    let mut left = replica.db.prepare_cached("SELECT tid, foreign_key, value FROM temp._pm_left")?;
    let mut rows = left.query([])?;
    while let Some(row) = rows.next()? {
        let child = catalog::table(replica, row.get(0)?)?;
        let foreign = &child.def.foreign_keys[row.get::<_, usize>(1)?];
        let values = value::read_key(&row.get::<_, Vec<u8>>(2)?)?;
        let Some(parent) = parent_of(replica, foreign) else { continue };
        if values.is_empty() {
            check_all_children(replica, &child, foreign)?;
            continue;
        }
        if has_values(replica, &parent, foreign, &values)? {
            continue;
        }
        if !compares_alike(&child, foreign, &parent) {
            check_all_children(replica, &child, foreign)?;
            continue;
        }
        let matches: Vec<String> = foreign
            .columns
            .iter()
            .enumerate()
            .map(|(n, (here, _))| format!("{} = ?{}", value::quote(here), n + 1))
            .collect();
        let (keys, given) = (child.def.key_list(""), matches.join(" AND "));
        let sql = format!("SELECT {keys} FROM {} WHERE {given}", child.sql_name);
        check_all(replica, &child, &sql, &values)?;
    }
    drop(rows);
    let mut check = replica.db.prepare_cached("SELECT tid, key FROM temp._pm_to_check")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let (tid, key): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        if !orphaned_by(replica, &*catalog::table(replica, tid)?, &key)?.is_empty() {
            let sql = "INSERT OR IGNORE INTO _pm_dangling (tid, key) VALUES (?1, ?2)";
            replica.db.prepare_cached(sql)?.execute((tid, key))?;
        }
    }
    drop(rows);
    for sql in ["DELETE FROM temp._pm_to_check", "DELETE FROM temp._pm_left"] {
        replica.db.prepare_cached(sql)?.execute([])?;
    }
    Ok(())
}

/// Has all rows checked whose keys a query gives.
fn check_all(replica: &Replica, child: &Table, sql: &str, values: &[OwnedValue]) -> Result<()> {
    let mut statement = replica.db.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
    let n = child.def.keys().count();
    while let Some(row) = rows.next()? {
        let values =
            (0..n).map(|at| row.get_ref(at).map(value::from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
        let key = child.key_of(values.into_iter())?;
        to_check(replica, child.tid, &key)?;
    }
    Ok(())
}

/// Returns whether a row has the values that a foreign key refers to.
fn has_values(
    replica: &Replica,
    parent: &Table,
    foreign: &ForeignKeyDef,
    values: &[OwnedValue],
) -> Result<bool> {
    let columns = foreign.columns.iter().enumerate();
    let same: Vec<String> =
        columns.map(|(n, (_, there))| format!("{} = ?{}", value::quote(there), n + 1)).collect();
    let sql = format!("SELECT 1 FROM {} WHERE {}", parent.sql_name, same.join(" AND "));
    let params = params_from_iter(values.iter().map(|v| Bind(v.borrow())));
    Ok(value::maybe::<i64>(&replica.db, &sql, params)?.is_some())
}

/// Returns whether a row finds what it refers to in a table, or `None` if it is not shown, or refers to nothing.
fn finds_in(
    replica: &Replica,
    parent: &str,
    table: &Table,
    key: &[u8],
    foreign: &ForeignKeyDef,
) -> Result<Option<bool>> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {parent} p WHERE {}) FROM {} c WHERE {} AND {}",
        finds(foreign),
        table.sql_name,
        table.key_match_from(0),
        refers(foreign)
    );
    let values = value::read_key(key)?;
    value::maybe(&replica.db, &sql, params_from_iter(values.iter().map(|v| Bind(v.borrow()))))
}

/// Returns the numbers of the foreign keys by which a row is an orphan.
pub(crate) fn orphaned_by(replica: &Replica, table: &Table, key: &[u8]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    if !table.shows_shared() {
        return Ok(found);
    }
    for (n, foreign) in table.def.foreign_keys.iter().enumerate() {
        // A table that not all devices have does not count: the others could not tell.
        let Some(parent) = parent_of(replica, foreign).filter(|t| t.shows_shared()) else { continue };
        if finds_in(replica, &parent.sql_name, table, key, foreign)? == Some(false) {
            found.push(n);
        }
    }
    Ok(found)
}

/// Records the values by which others refer to a row by its key. The row may have left already.
pub(crate) fn record_deleted(replica: &Replica, parent: &Table, key: &[u8]) -> Result<()> {
    let keys = value::read_key(key)?;
    for child in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in references(child, parent) {
            if let Some(at) = by_key(child, foreign, parent) {
                let mut value = Vec::new();
                for at in at {
                    value::push_key(&mut value, keys[at].borrow(), Collation::Binary)?;
                }
                record_value(replica, child, n, &value)?;
            }
        }
    }
    Ok(())
}

/// Records that a row changed of which nothing says what it was: all orphans are looked for of the foreign keys that
/// do not refer to it by its key.
pub(crate) fn record_changed(replica: &Replica, parent: &Table) -> Result<()> {
    for child in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in references(child, parent) {
            if by_key(child, foreign, parent).is_none() {
                record_value(replica, child, n, &[])?;
            }
        }
    }
    Ok(())
}

/// Forgets rows of `_pm_dangling` that are no orphans, and whose versions are forgotten.
pub(crate) fn forget_references(replica: &Replica) -> Result<()> {
    each_dangling(replica, &mut |tid, key| {
        if heads::heads(replica, tid, key)?.is_empty()
            && orphaned_by(replica, &*catalog::table(replica, tid)?, key)?.is_empty()
        {
            replica
                .db
                .prepare_cached("DELETE FROM _pm_dangling WHERE tid = ?1 AND key = ?2")?
                .execute((tid, key))?;
        }
        Ok(())
    })
}

/// Has all rows checked that are orphans by a foreign key.
fn check_all_children(replica: &Replica, child: &Table, foreign: &ForeignKeyDef) -> Result<()> {
    let sql = format!(
        "SELECT {} FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
        child.def.key_list("c."),
        child.sql_name,
        refers(foreign),
        value::quote(&foreign.parent),
        finds(foreign)
    );
    check_all(replica, child, &sql, &[])
}
