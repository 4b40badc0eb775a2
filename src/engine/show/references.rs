//! References: rows that refer by a foreign key to a row that is not there.
//!
//! Looked up at the end of a group, for rows that came and for what rows that changed or left were referred
//! to by. Such a row stays where it is, and is listed.

use packmule_core::wire::Collation;
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::merge::heads::{self, Cause, Head};
use crate::engine::merge::versions;
use crate::engine::store::meta;
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::def::ForeignKeyDef;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The foreign keys of a table that refer to another, by number.
fn references<'t>(child: &'t Table, parent: &Table) -> impl Iterator<Item = (usize, &'t ForeignKeyDef)> {
    let name = parent.def.name.clone();
    let all = child.def.foreign_keys.iter().enumerate();
    all.filter(move |(_, foreign)| foreign.parent.eq_ignore_ascii_case(&name))
}

/// Whether a value there finds the same rows here as SQLite, which compares as the columns there do.
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

/// The places in the parent's key of the columns that a foreign key refers to, if all are of the key and their
/// values find the rows that refer to it.
fn by_key(child: &Table, foreign: &ForeignKeyDef, parent: &Table) -> Option<Vec<usize>> {
    let place = |there: &str| {
        parent.def.keys().position(|at| parent.def.columns[at].name.eq_ignore_ascii_case(there))
    };
    let places = foreign.columns.iter().map(|(_, there)| place(there)).collect();
    if compares_alike(child, foreign, parent) { places } else { None }
}

/// How a row `c` finds the row `p` that it refers to: by the affinity and the collation there alone, as SQLite
/// compares them.
fn finds(foreign: &ForeignKeyDef) -> String {
    let columns = foreign.columns.iter();
    let same: Vec<String> = columns
        .map(|(here, there)| format!("p.{} = +c.{}", value::quote(there), value::quote(here)))
        .collect();
    same.join(" AND ")
}

/// A row `c` refers to anything at all.
fn refers(foreign: &ForeignKeyDef) -> String {
    let columns = foreign.columns.iter();
    columns.map(|(here, _)| format!("c.{} IS NOT NULL", value::quote(here))).collect::<Vec<_>>().join(" AND ")
}

/// Of a table's foreign keys, one as a bit; those from the 63rd on share the last.
fn bit(foreign: usize) -> i64 {
    1 << foreign.min(62)
}

/// A row's references are looked up at the end of the group. `gone` and `deleted` are the foreign keys, as
/// bits, by which it refers to a row that changed or left its table, and to one that someone deleted.
pub(crate) fn to_check(replica: &Replica, tid: i64, key: &[u8], gone: i64, deleted: i64) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO temp._pm_to_check (tid, key, gone, deleted) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET gone = gone | excluded.gone, deleted = deleted | excluded.deleted",
        )?
        .execute((tid, key, gone, deleted))?;
    Ok(())
}

/// Keeps, for each foreign key that refers to a row, the values by which it does. Whether the row is there.
pub(crate) fn note_left(replica: &Replica, parent: &Table, key: &[u8]) -> Result<bool> {
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
            note_value(replica, child, n, &value, false)?;
        }
    }
    Ok(there)
}

fn note_value(replica: &Replica, child: &Table, foreign: usize, value: &[u8], deleted: bool) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO temp._pm_left (tid, foreign_key, value, deleted) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET deleted = max(deleted, excluded.deleted)",
        )?
        .execute((child.tid, foreign as i64, value, deleted))?;
    Ok(())
}

/// Where a table is synced only now that others refer to, all references to it are looked up.
fn note_new_parents(replica: &Replica) -> Result<()> {
    let mut all = Vec::new();
    for child in catalog::tables(replica).into_iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in child.def.foreign_keys.iter().enumerate() {
            if let Some(parent) = catalog::table_named(replica, &foreign.parent).filter(|t| t.shows_shared())
            {
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
        note_value(replica, child, *n, &[], false)?;
    }
    meta::set(&replica.db, "references", names)
}

/// Notes rows that refer to one that is not there: those that came, and those that were left.
pub(crate) fn check_references(replica: &Replica, cause: &Cause<'_>) -> Result<()> {
    note_new_parents(replica)?;
    let mut left = replica.db.prepare_cached("SELECT tid, foreign_key, value, deleted FROM temp._pm_left")?;
    let mut rows = left.query([])?;
    while let Some(row) = rows.next()? {
        let child = catalog::table(replica, row.get(0)?)?;
        let number: usize = row.get(1)?;
        let foreign = &child.def.foreign_keys[number];
        let deleted = if row.get(3)? { bit(number) } else { 0 };
        let values = value::read_key(&row.get::<_, Vec<u8>>(2)?)?;
        let Some(parent) = catalog::table_named(replica, &foreign.parent) else { continue };
        if values.is_empty() {
            check_all_children(replica, &child, foreign)?;
            continue;
        }
        if deleted == 0 && has_values(replica, &parent, foreign, &values)? {
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
        // That the other row was deleted counts for those that are kept out as well.
        let places = [child.sql_name.clone(), child.limbo()];
        for place in &places[..1 + usize::from(deleted != 0)] {
            let sql =
                format!("SELECT {} FROM {place} WHERE {}", child.def.key_list(""), matches.join(" AND "));
            check_all(replica, &child, &sql, &values, (bit(number), deleted))?;
        }
    }
    drop(rows);
    let mut check = replica.db.prepare_cached("SELECT tid, key, gone, deleted FROM temp._pm_to_check")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let (tid, key): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        check_row(replica, &*catalog::table(replica, tid)?, &key, (row.get(2)?, row.get(3)?), cause)?;
    }
    drop(rows);
    for sql in ["DELETE FROM temp._pm_to_check", "DELETE FROM temp._pm_left"] {
        replica.db.prepare_cached(sql)?.execute([])?;
    }
    Ok(())
}

/// Checks all rows whose keys a query gives.
fn check_all(
    replica: &Replica,
    child: &Table,
    sql: &str,
    values: &[OwnedValue],
    (gone, deleted): (i64, i64),
) -> Result<()> {
    let mut statement = replica.db.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values.iter().map(|v| Bind(v.borrow()))))?;
    let n = child.def.keys().count();
    while let Some(row) = rows.next()? {
        let values =
            (0..n).map(|at| row.get_ref(at).map(value::from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
        let key = child.key_of(values.into_iter())?;
        to_check(replica, child.tid, &key, gone, deleted)?;
    }
    Ok(())
}

/// Whether a row has the values that a foreign key refers to.
fn has_values(
    replica: &Replica,
    parent: &Table,
    foreign: &ForeignKeyDef,
    values: &[OwnedValue],
) -> Result<bool> {
    let places = foreign.columns.iter().enumerate();
    let same: Vec<String> =
        places.map(|(n, (_, there))| format!("{} = ?{}", value::quote(there), n + 1)).collect();
    let sql = format!("SELECT 1 FROM {} WHERE {}", parent.sql_name, same.join(" AND "));
    let params = params_from_iter(values.iter().map(|v| Bind(v.borrow())));
    Ok(value::maybe::<i64>(&replica.db, &sql, params)?.is_some())
}

/// Notes whether a row refers to one that is not there, and whether its author is told: not if who deleted
/// that, or made it go, had seen the row, since it may be folded away where that comes later.
fn check_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (gone, deleted): (i64, i64),
    cause: &Cause<'_>,
) -> Result<()> {
    let now = dangles(replica, table, key)?.into_iter().map(bit).fold(0, |all, one| all | one);
    let old = told(replica, table, key)?;
    if now | deleted == 0 && old.is_none() {
        return Ok(());
    }
    let heads = heads::heads(replica, table.tid, key)?;
    let writer = versions::writer_of(replica, table, &heads)?;
    let told = if writer.is_some_and(|head| cause.made(head)) {
        i64::MAX
    } else if writer.is_none_or(|head| cause.follows(head)) {
        // Whether the other row is only kept out, `is_told` looks up. Otherwise the reference has come to
        // count just now (`note_new_parents`), by who had seen the row.
        old.unwrap_or(i64::MAX & !(now & !gone)) & !deleted
    } else {
        old.unwrap_or(i64::MAX)
    };
    if now == 0 && old.is_none() && told == i64::MAX {
        return Ok(());
    }
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO _pm_dangling (tid, key, told) VALUES (?1, ?2, ?3)")?
        .execute((table.tid, key, told))?;
    Ok(())
}

fn told(replica: &Replica, table: &Table, key: &[u8]) -> Result<Option<i64>> {
    let sql = "SELECT told FROM _pm_dangling WHERE tid = ?1 AND key = ?2";
    value::maybe(&replica.db, sql, (table.tid, key))
}

/// Whether a row finds what it refers to in a table; `None` if it is not there, or refers to nothing.
fn finds_in(
    replica: &Replica,
    place: &str,
    table: &Table,
    key: &[u8],
    foreign: &ForeignKeyDef,
) -> Result<Option<bool>> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {place} p WHERE {}) FROM {} c WHERE {} AND {}",
        finds(foreign),
        table.sql_name,
        table.key_match_from(0),
        refers(foreign)
    );
    let values = value::read_key(key)?;
    value::maybe(&replica.db, &sql, params_from_iter(values.iter().map(|v| Bind(v.borrow()))))
}

/// The numbers of the foreign keys by which a row refers to one that is not there.
pub(crate) fn dangles(replica: &Replica, table: &Table, key: &[u8]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    if !table.shows_shared() {
        return Ok(found);
    }
    for (n, foreign) in table.def.foreign_keys.iter().enumerate() {
        // Rows of tables that not all devices have are nobody else's business.
        let Some(parent) = catalog::table_named(replica, &foreign.parent).filter(|t| t.shows_shared()) else {
            continue;
        };
        if finds_in(replica, &parent.sql_name, table, key, foreign)? == Some(false) {
            found.push(n);
        }
    }
    Ok(found)
}

/// Who wrote a row that dangles by a foreign key is listed, if it is one author's, and if it is known of the
/// other row who had seen what when that went: not where a primary key does not find it, and not while it
/// is kept out, since what keeps it out may have come later than what wrote it.
pub(crate) fn is_told(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heads: &[Head],
    number: usize,
) -> Result<bool> {
    let foreign = &table.def.foreign_keys[number];
    let Some(parent) = catalog::table_named(replica, &foreign.parent) else { return Ok(false) };
    if by_key(table, foreign, &parent).is_none() || !versions::is_of_one(table, heads) {
        return Ok(false);
    }
    if told(replica, table, key)?.unwrap_or(0) & bit(number) == 0 {
        return Ok(false);
    }
    Ok(finds_in(replica, &parent.limbo(), table, key, foreign)? != Some(true))
}

/// The rows that refer to one by its key, which may be gone already; `deleted` if somebody deleted it.
pub(crate) fn note_deleted(replica: &Replica, parent: &Table, key: &[u8], deleted: bool) -> Result<()> {
    let keys = value::read_key(key)?;
    for child in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in references(child, parent) {
            if let Some(at) = by_key(child, foreign, parent) {
                let mut value = Vec::new();
                for at in at {
                    value::push_key(&mut value, keys[at].borrow(), Collation::Binary)?;
                }
                note_value(replica, child, n, &value, deleted)?;
            }
        }
    }
    Ok(())
}

/// A row has changed of which it is not known what it was: of references that its key does not find, all
/// that lead nowhere are looked for.
pub(crate) fn note_changed(replica: &Replica, parent: &Table) -> Result<()> {
    for child in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in references(child, parent) {
            if by_key(child, foreign, parent).is_none() {
                note_value(replica, child, n, &[], false)?;
            }
        }
    }
    Ok(())
}

/// Forgets what is noted of rows that refer to what is there, and whose versions are forgotten.
pub(crate) fn forget_references(replica: &Replica) -> Result<()> {
    for (tid, key) in pairs(replica, "SELECT tid, key FROM _pm_dangling")? {
        if heads::heads(replica, tid, &key)?.is_empty()
            && dangles(replica, &*catalog::table(replica, tid)?, &key)?.is_empty()
        {
            replica
                .db
                .prepare_cached("DELETE FROM _pm_dangling WHERE tid = ?1 AND key = ?2")?
                .execute((tid, key))?;
        }
    }
    Ok(())
}

/// All references of a kind that lead nowhere.
fn check_all_children(replica: &Replica, child: &Table, foreign: &ForeignKeyDef) -> Result<()> {
    let sql = format!(
        "SELECT {} FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
        child.def.key_list("c."),
        child.sql_name,
        refers(foreign),
        value::quote(&foreign.parent),
        finds(foreign)
    );
    check_all(replica, child, &sql, &[], (0, 0))
}

pub(crate) fn pairs(replica: &Replica, sql: &str) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
