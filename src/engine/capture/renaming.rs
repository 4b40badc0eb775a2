//! Which columns of a table its application calls otherwise now.
//!
//! SQLite renames a column in our triggers too. Of a table that was made anew other things tell:
//!
//! | the column that is gone, and a new one | are one |
//! |---|---|
//! | have been announced as renamed by some device | whatever their types are: it may have been retyped as well |
//! | are of one type, and in the same place, and no other is of that type | where a row has another value there than the default, or there is no row |
//! | are of one type | where more of the rows that the log tells have the old value than another |
//! | are of two types, and in the same place | where more of the rows that the log tells have the old value than another |
//!
//! All else is a column that was dropped and another one that was added.

use packmule_core::wire::{Collation, SchemaBits};
use rusqlite::params_from_iter;

use crate::engine::capture::suspended;
use crate::engine::error::Result;
use crate::engine::merge::{heads, stretches, versions};
use crate::engine::store::value::{self, Affinity, Bind};
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::known::Table;
use crate::engine::table::renamed;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes::{self, Shape};

/// How many rows are compared at most to tell whether a column has the values of another.
const COMPARED: usize = 256;

fn kind(column: &ColumnDef) -> (Affinity, Collation, u16) {
    (column.affinity(), column.collation, column.key)
}

/// Returns the names before and after of the columns that are called otherwise now.
pub(crate) fn renamed_columns(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
) -> Result<Vec<(String, String)>> {
    let def = &table.def;
    // That of a held table that was made anew was made after that, and has the names of before beside those of now.
    let trigger = telling_trigger(replica, table)?;
    let named =
        |name: &str| trigger.as_ref().map(|sql| ["OLD", "NEW"].iter().any(|row| names(sql, row, name)));
    let mut new: Vec<&ColumnDef> = now.columns.iter().filter(|c| def.column(&c.name).is_none()).collect();
    new.retain(|c| named(&c.name) != Some(false));
    let own = shapes::own_shape(replica, table.tid)?;
    let is_gone = |c: &ColumnDef| now.column(&c.name).is_none() && named(&c.name) != Some(true);
    let gone: Vec<&ColumnDef> = def.columns.iter().filter(|c| is_gone(c)).collect();
    let are_all_here = gone.len() == new.len()
        && gone.iter().all(|gone| {
            let here = def.column(&gone.name).and_then(|at| now.columns.get(at));
            here.is_some_and(|here| kind(here) == kind(gone) && def.column(&here.name).is_none())
        });
    let mut renamed = Vec::new();
    for (at, old) in def.columns.iter().enumerate() {
        if !is_gone(old) {
            continue;
        }
        let known = renamed::names_of(replica, table.tid, &old.name)?;
        let Some(old) = as_announced(own.as_ref(), def, old, &known) else { continue };
        let is_alike = |c: &ColumnDef| kind(c) == kind(old);
        let may_be = |c: &ColumnDef| is_alike(c) || (c.key == 0 && old.key == 0);
        let is_known = |c: &ColumnDef| may_be(c) && known.contains(&c.name.to_ascii_lowercase());
        let is_here = |c: &ColumnDef| trigger.is_some() || now.column(&c.name) == Some(at);
        let mut free = Vec::new();
        for (place, c) in new.iter().enumerate() {
            if is_known(c) || !is_another(replica, table.tid, c, old, &gone)? {
                free.push(place);
            }
        }
        let first = |may: &dyn Fn(&ColumnDef) -> bool| free.iter().copied().find(|place| may(new[*place]));
        // Where several can be it, the place alone says nothing, unless that of each says the same.
        let is_plain = trigger.is_some()
            || are_all_here
            || (free.iter().filter(|place| is_alike(new[**place])).count() < 2
                && gone.iter().filter(|c| kind(c) == kind(old)).count() < 2);
        let mut place = first(&|c| is_known(c))
            .or_else(|| first(&|c| is_plain && is_alike(c) && is_here(c)))
            .or_else(|| first(&|c| is_plain && may_be(c) && is_here(c)));
        let by_values = place.is_none() && trigger.is_none() && old.key == 0 && has_keys(now, def);
        for candidate in free.iter().filter(|candidate| by_values && is_alike(new[**candidate])) {
            if has_values_of(replica, table, at, new[*candidate])? {
                place = Some(*candidate);
                break;
            }
        }
        let Some(place) = place else { continue };
        let column = new[place];
        let is_one = match &trigger {
            Some(_) => true,
            None if old.key > 0 || by_values || is_known(column) => true,
            None if is_alike(column) => may_have_values(replica, table, column)?,
            None => has_keys(now, def) && has_values_of(replica, table, at, column)?,
        };
        new.remove(place);
        if is_one {
            renamed.push((def.columns[at].name.clone(), column.name.clone()));
        }
    }
    Ok(renamed)
}

/// Returns what this device has announced that a column is since, though the table is held: that is what it is called now. None,
/// if it was gone already: what has come since is another one.
fn as_announced<'c>(
    own: Option<&'c Shape>,
    def: &TableDef,
    old: &'c ColumnDef,
    known: &[String],
) -> Option<&'c ColumnDef> {
    let Some(own) = own else { return Some(old) };
    let meant =
        |c: &&ColumnDef| def.column(&c.name).is_none() && known.contains(&c.name.to_ascii_lowercase());
    let is_there = !own.bits.says(SchemaBits::CHANGED) || own.def.column(&old.name).is_some();
    own.def.columns.iter().find(meant).or(is_there.then_some(old))
}

/// Returns whether a column is known to be another one than this: one of the others that are gone, or one that stood beside it.
fn is_another(
    replica: &Replica,
    tid: i64,
    column: &ColumnDef,
    than: &ColumnDef,
    gone: &[&ColumnDef],
) -> Result<bool> {
    let names = renamed::names_of(replica, tid, &column.name)?;
    let is_one_of = gone.iter().any(|g| g.name != than.name && names.contains(&g.name.to_ascii_lowercase()));
    Ok(is_one_of || renamed::is_another(replica, tid, &than.name, &column.name)?)
}

/// Returns the trigger of a table that tells what its columns were called when they were looked at last.
fn telling_trigger(replica: &Replica, table: &Table) -> Result<Option<String>> {
    if suspended::is_made_anew(replica, table.tid)? { Ok(None) } else { trigger_of(replica, table) }
}

/// Returns the trigger of a table that names all its columns.
fn trigger_of(replica: &Replica, table: &Table) -> Result<Option<String>> {
    let sql =
        "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE";
    let trigger = value::maybe(&replica.db, sql, (format!("_pm_update_{}", table.tid), &table.def.name))?;
    Ok(trigger.filter(|_| !table.def.append))
}

/// Returns whether a trigger names a column of its row.
fn names(sql: &str, row: &str, name: &str) -> bool {
    sql.contains(&format!("{row}.{}", value::quote(name)))
}

/// Returns whether the triggers of a table call some column otherwise than its definition does. SQLite renames a column in a
/// part of them alone, and goes by what it has renamed also after that was dropped: it would be in the way of the next
/// `ALTER TABLE`.
pub(crate) fn is_misnamed(replica: &Replica, table: &Table) -> Result<bool> {
    let Some(sql) = trigger_of(replica, table)? else { return Ok(false) };
    let lacks = |c: &ColumnDef| {
        !names(&sql, "NEW", &c.name) || !sql.contains(&format!("NULL AS {}", value::quote(&c.name)))
    };
    Ok(table.def.columns.iter().any(|c| c.key == 0 && lacks(c)))
}

/// Returns whether the columns of a key are called as they were.
fn has_keys(now: &TableDef, before: &TableDef) -> bool {
    before.keys().all(|at| now.column(&before.columns[at].name).is_some())
}

/// Returns whether a column can be one that had values before: a row has another value in it than its default, or there is no
/// row that could tell.
fn may_have_values(replica: &Replica, table: &Table, column: &ColumnDef) -> Result<bool> {
    let (c, default) = (value::quote(&column.name), value::literal(&column.constant()));
    let of = &table.sql_name;
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {of} WHERE {c} IS NOT {default}) OR NOT EXISTS (SELECT 1 FROM {of})"
    );
    Ok(replica.db.query_row(&sql, [], |row| row.get(0))?)
}

/// Returns whether a column has the values that the log tells of another one, as SQLite stores them under its type: in more
/// rows than it has others. Rows that were written since the last seal tell nothing.
fn has_values_of(replica: &Replica, table: &Table, old: usize, column: &ColumnDef) -> Result<bool> {
    let keys = replica
        .db
        .prepare_cached(&format!(
            "SELECT DISTINCT key FROM {} LIMIT {COMPARED}",
            stretches::heads_of_table()
        ))?
        .query_map([table.tid], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    // A comparison with a column stores the other side as the column would.
    let keys_of = table.def.keys().count();
    let sql = table.select_sql(&format!("{} IS ?{}", value::quote(&column.name), keys_of + 1));
    let written = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", table.dirty(), table.change_match());
    let (mut same, mut other) = (0_usize, 0_usize);
    for key in keys {
        let heads = heads::heads(replica, table.tid, &key)?;
        let [head] = &heads[..] else { continue };
        if !head.live(table.def.columns.len()).contains(old) {
            continue;
        }
        let said = versions::values(replica, table, head)?.into_iter().find(|(at, _)| *at == old);
        let Some((_, said)) = said.filter(|(_, said)| *said != table.def.columns[old].constant()) else {
            continue;
        };
        let key = value::read_key(&key)?;
        let binds = || key.iter().map(|value| Bind(value.borrow()));
        if value::maybe::<i64>(&replica.db, &written, params_from_iter(binds()))?.is_some() {
            continue;
        }
        let binds = params_from_iter(binds().chain([Bind(said.borrow())]));
        match value::maybe::<bool>(&replica.db, &sql, binds)? {
            Some(true) => same += 1,
            Some(false) => other += 1,
            None => {}
        }
    }
    Ok(same > other)
}
