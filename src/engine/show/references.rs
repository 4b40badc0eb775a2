//! Foreign keys: orphans, which are rows that refer to a row that is not there. They stay where they are, and are
//! listed.
//!
//! **Invariant 1.** Every shown row of a shared table that refers by a foreign key to no row of another shared table
//! is in `_pm_dangling`. That table may have more: whether a row is an orphan *now* is always looked up. So the list
//! of conflicts is a function of the tables.
//!
//! **Why it holds.** A row becomes an orphan in three ways. It comes or changes: `after_shown` has it checked. Or the
//! row that it refers to changes or leaves: `before_change` records, *before* that, the values by which others refer
//! to it; where that row is not here any more its key gives the values, and where not even the key does, all orphans
//! of the foreign key are looked for. Or the table that it refers to is synced only from now on:
//! `record_new_parents`. All of these are checked at the end of the same group.
//!
//! **Invariant 2.** The author of an orphan is listed on every device or on none, although devices compact at
//! different times. Bit n of the column `told` says that the author may be listed for foreign key n.
//!
//! **Why it holds.** A version is forgotten only once every device has acknowledged it, and all that those devices
//! had committed before they did is applied here. Let G be the group that made the row an orphan. If G's author had
//! *not* seen the row's version, no device can have forgotten that before it applied G; from then on the open conflict
//! keeps it. So all devices know the author. If G's author had seen it, some device may have forgotten it before, and
//! no device lists it. A row that G itself wrote is known to all. Three cases are never listed, since the devices
//! cannot agree on them: a reference by columns that are no key of the other row (who had that value, and when, is not
//! kept); a row that several authors made (by cell, or what is left of an overwritten row); and a row whose parent is
//! only quarantined (what keeps the parent out may be later than what wrote it).

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

/// Returns the foreign keys of a table that refer to another, by number.
fn references<'t>(child: &'t Table, parent: &Table) -> impl Iterator<Item = (usize, &'t ForeignKeyDef)> {
    let name = parent.def.name.clone();
    let all = child.def.foreign_keys.iter().enumerate();
    all.filter(move |(_, foreign)| foreign.parent.eq_ignore_ascii_case(&name))
}

/// Gives each row that may be an orphan to `each`; a few are in memory at a time.
pub(crate) fn each_dangling(replica: &Replica, each: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
    let mut last = (i64::MIN, Vec::new());
    loop {
        let rows: Vec<(i64, Vec<u8>)> = replica
            .db
            .prepare_cached(
                "SELECT tid, key FROM _pm_dangling WHERE (tid, key) > (?1, ?2) ORDER BY tid, key LIMIT 64",
            )?
            .query_map((last.0, &last.1), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let Some(end) = rows.last() else { return Ok(()) };
        rows.iter().try_for_each(|(tid, key)| each(*tid, key))?;
        last = end.clone();
    }
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

/// Returns the bit for one of a table's foreign keys; those from the 63rd on share the last bit.
fn bit(foreign: usize) -> i64 {
    1 << foreign.min(62)
}

/// Has a row's references checked at the end of the group. `gone` and `deleted` are the foreign keys, as bits, by
/// which it refers to a row that changed or left its table, and to one that someone deleted.
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
            record_value(replica, child, n, &value, false)?;
        }
    }
    Ok(there)
}

/// Records a value by which rows may refer to one that changed or left; an empty one stands for all values.
fn record_value(replica: &Replica, child: &Table, foreign: usize, value: &[u8], deleted: bool) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO temp._pm_left (tid, foreign_key, value, deleted) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET deleted = max(deleted, excluded.deleted)",
        )?
        .execute((child.tid, foreign as i64, value, deleted))?;
    Ok(())
}

/// Has all references to a table looked up that others refer to, and that is synced only from now on.
fn record_new_parents(replica: &Replica) -> Result<()> {
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
        record_value(replica, child, *n, &[], false)?;
    }
    meta::set(&replica.db, "references", names)
}

/// Records orphans: among the rows that came, and among those that refer to a row that changed or left.
pub(crate) fn check_references(replica: &Replica, cause: &Cause<'_>) -> Result<()> {
    record_new_parents(replica)?;
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
        // That the other row was deleted counts for quarantined rows as well.
        let tables = [child.sql_name.clone(), child.quarantine_table()];
        for name in &tables[..1 + usize::from(deleted != 0)] {
            let sql =
                format!("SELECT {} FROM {name} WHERE {}", child.def.key_list(""), matches.join(" AND "));
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

/// Has all rows checked whose keys a query gives.
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

/// Records whether a row is an orphan, and by which foreign keys its author may be listed: not where the author of
/// the group that made it one had seen the row, since other devices may have compacted its version before.
fn check_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (gone, deleted): (i64, i64),
    cause: &Cause<'_>,
) -> Result<()> {
    let now = orphaned_by(replica, table, key)?.into_iter().map(bit).fold(0, |all, one| all | one);
    let old = attributable(replica, table, key)?;
    if now | deleted == 0 && old.is_none() {
        return Ok(());
    }
    let heads = heads::heads(replica, table.tid, key)?;
    let writer = versions::writer_of(replica, table, &heads)?;
    let listed = if writer.is_some_and(|head| cause.made(head)) {
        i64::MAX
    } else if writer.is_none_or(|head| cause.follows(head)) {
        // `is_attributed` looks up whether the other row is only quarantined. Otherwise the reference counts only
        // from now on (`record_new_parents`), by the word of an author who had seen the row.
        old.unwrap_or(i64::MAX & !(now & !gone)) & !deleted
    } else {
        old.unwrap_or(i64::MAX)
    };
    if now == 0 && old.is_none() && listed == i64::MAX {
        return Ok(());
    }
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO _pm_dangling (tid, key, told) VALUES (?1, ?2, ?3)")?
        .execute((table.tid, key, listed))?;
    Ok(())
}

/// Returns the foreign keys, as bits, by which the author of a possible orphan may be listed.
fn attributable(replica: &Replica, table: &Table, key: &[u8]) -> Result<Option<i64>> {
    let sql = "SELECT told FROM _pm_dangling WHERE tid = ?1 AND key = ?2";
    value::maybe(&replica.db, sql, (table.tid, key))
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
        let Some(parent) = catalog::table_named(replica, &foreign.parent).filter(|t| t.shows_shared()) else {
            continue;
        };
        if finds_in(replica, &parent.sql_name, table, key, foreign)? == Some(false) {
            found.push(n);
        }
    }
    Ok(found)
}

/// Returns whether the author of an orphan is listed for a foreign key. The row must be one author's, and all devices
/// must know who had seen what when the other row left: not where the key of the other row does not find it, and not
/// while that is quarantined, since what keeps it out may be later than what wrote it.
pub(crate) fn is_attributed(
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
    if attributable(replica, table, key)?.unwrap_or(0) & bit(number) == 0 {
        return Ok(false);
    }
    Ok(finds_in(replica, &parent.quarantine_table(), table, key, foreign)? != Some(true))
}

/// Records the values by which others refer to a row by its key. The row may have left already; `deleted` says that
/// somebody deleted it.
pub(crate) fn record_deleted(replica: &Replica, parent: &Table, key: &[u8], deleted: bool) -> Result<()> {
    let keys = value::read_key(key)?;
    for child in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
        for (n, foreign) in references(child, parent) {
            if let Some(at) = by_key(child, foreign, parent) {
                let mut value = Vec::new();
                for at in at {
                    value::push_key(&mut value, keys[at].borrow(), Collation::Binary)?;
                }
                record_value(replica, child, n, &value, deleted)?;
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
                record_value(replica, child, n, &[], false)?;
            }
        }
    }
    Ok(())
}

/// Forgets rows of `_pm_dangling` that are no orphans, and whose versions are forgotten.
pub(crate) fn forget_references(replica: &Replica) -> Result<()> {
    for (tid, key) in pairs(replica, "SELECT tid, key FROM _pm_dangling")? {
        if heads::heads(replica, tid, &key)?.is_empty()
            && orphaned_by(replica, &*catalog::table(replica, tid)?, &key)?.is_empty()
        {
            replica
                .db
                .prepare_cached("DELETE FROM _pm_dangling WHERE tid = ?1 AND key = ?2")?
                .execute((tid, key))?;
        }
    }
    Ok(())
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
    check_all(replica, child, &sql, &[], (0, 0))
}

/// Reads pairs of a table's number and a row's key.
pub(crate) fn pairs(replica: &Replica, sql: &str) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
