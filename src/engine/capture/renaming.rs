//! Which columns of a table its application calls otherwise now.
//!
//! SQLite renames a column in our triggers too. Of a table that was made anew since the last look other things tell, the first
//! that does:
//!
//! | the column that is gone, and a new one | are one |
//! |---|---|
//! | have been announced as renamed by some device | whatever their types are: it may have been retyped as well |
//! | are of one type, and others may be it, or it is in another place | where more of the rows that the log tells have the old value than another |
//! | are of one type, and in the same place; no other is of that type, or each of them has one in its place | where a row has another value there than the default, or there is no row |
//! | are of two types, and in the same place, and no other is of theirs | where more of the rows that the log tells have the old value than another |
//!
//! The same place is also the one where the column would stand without others that are gone. A new column that stands there for
//! one of two is the other one, if the log tells that other's values of it and not those of the one.
//!
//! All else, and what others have had beside the one before at once, is a column that was dropped and another one that was added. What this device has said to be gone is not looked for.

use packmule_core::wire::{Collation, OpKind, SchemaBits};
use rusqlite::params_from_iter;

use crate::engine::capture::{column_order, suspended};
use crate::engine::error::Result;
use crate::engine::merge::{heads, stretches, versions};
use crate::engine::store::value::{self, Affinity, Bind, OwnedValue};
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::entries;
use crate::engine::table::known::{State, Table};
use crate::engine::table::renamed;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes::{self, Shape};

/// How many rows are compared at most to tell whether a column has the values of another.
const COMPARED: usize = 256;

fn kind(column: &ColumnDef) -> (Affinity, Collation, u16) {
    (column.affinity(), column.collation, column.key)
}

/// A column of a table's definition that is not there under its name.
struct Gone<'a> {
    /// Its number in the definition.
    at: usize,
    /// What this device has said last that it is.
    said: &'a ColumnDef,
    /// What devices have said that it is called otherwise.
    known: Vec<String>,
    /// Where it stood when the table was looked at last.
    place: Option<usize>,
}

impl Gone<'_> {
    fn is_like(&self, column: &ColumnDef) -> bool {
        kind(column) == kind(self.said)
    }

    fn may_be(&self, column: &ColumnDef) -> bool {
        self.is_like(column) || (column.key == 0 && self.said.key == 0)
    }

    fn is_known_as(&self, column: &ColumnDef) -> bool {
        self.may_be(column) && self.known.contains(&column.name.to_ascii_lowercase())
    }
}

/// Returns the names before and after of the columns that are called otherwise now.
pub(crate) fn renamed_columns(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
) -> Result<Vec<(String, String)>> {
    let def = &table.def;
    let mut new: Vec<&ColumnDef> = now.columns.iter().filter(|c| def.column(&c.name).is_none()).collect();
    let mut renamed = Vec::new();
    let told = told_names(replica, table)?;
    // One that has come under the old name is the column that others have.
    for (old, name) in
        def.columns.iter().zip(told.iter().flatten()).filter(|(c, _)| now.column(&c.name).is_none())
    {
        if let Some(place) = new.iter().position(|c| c.name.eq_ignore_ascii_case(name))
            // Others have both: what this one is called now is another column of theirs, and all that is in it is told anew.
            && (old.key > 0 || !renamed::is_another(replica, table.tid, &old.name, name)?)
        {
            renamed.push((old.name.clone(), new.remove(place).name.clone()));
        }
    }
    // The triggers of a held table that was made anew say nothing of what was renamed in that.
    if told.is_some() && !suspended::is_made_anew(replica, table.tid)? {
        return Ok(renamed);
    }
    let mut all = def.columns.clone();
    all.retain(|c| now.column(&c.name).is_none() && renamed.iter().all(|(old, _)| *old != c.name));
    let own = shapes::own_shape(replica, table.tid)?;
    let mut search = Search { replica, table, now, all: &all, gone: Vec::new(), new, stood: 0 };
    search.look_at(own.as_ref())?;
    let steps = [Search::known, Search::by_values, Search::by_place];
    for step in &steps[..if told.is_some() { 1 } else { 3 }] {
        let mut at = 0;
        while let Some(old) = search.gone.get(at) {
            let Some((place, is_one)) = step(&search, old)? else {
                at += 1;
                continue;
            };
            let (old, column) = (search.gone.remove(at), search.new.remove(place));
            if is_one {
                renamed.push((def.columns[old.at].name.clone(), column.name.clone()));
            }
        }
    }
    Ok(renamed)
}

/// Returns a column that has the name now which another one of the table had, with its names before and after: nobody could
/// tell which of the two an op means that says this name. One that comes after the other is told by its place
/// (`renamed::as_now`).
pub(crate) fn reused_name(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
) -> Result<Option<(String, String)>> {
    let columns = &table.def.columns;
    let told = told_names(replica, table)?.unwrap_or_default();
    for (at, (old, name)) in columns.iter().zip(told).enumerate() {
        if old.name.eq_ignore_ascii_case(&name) || now.column(&name).is_none() {
            continue;
        }
        let mut is_reused = table.def.column(&name).is_some_and(|other| other != at);
        for other in columns.iter().skip(at + 1) {
            is_reused |=
                renamed::names_of(replica, table.tid, &other.name)?.contains(&name.to_ascii_lowercase());
        }
        if is_reused {
            return Ok(Some((old.name.clone(), name)));
        }
    }
    Ok(None)
}

/// Finds what columns of a table that was made anew are called now.
struct Search<'a> {
    replica: &'a Replica,
    table: &'a Table,
    now: &'a TableDef,
    /// The columns that are gone.
    all: &'a [ColumnDef],
    /// Those of them that were there at the last look, under some name, and are not found yet.
    gone: Vec<Gone<'a>>,
    /// The columns that are new, and none of those that were found.
    new: Vec<&'a ColumnDef>,
    /// How many columns stood there at the last look.
    stood: usize,
}

impl<'a> Search<'a> {
    fn look_at(&mut self, own: Option<&'a Shape>) -> Result<()> {
        let def = &self.table.def;
        let mut stood = column_order::names(self.replica, self.table.tid)?;
        let is_own = |name: &str| own.is_some_and(|own| own.def.column(name).is_some());
        stood.retain(|name| def.column(name).is_some() || is_own(name));
        self.stood = stood.len();
        for (at, old) in def.columns.iter().enumerate() {
            if !self.all.contains(old) {
                continue;
            }
            let known = renamed::names_of(self.replica, self.table.tid, &old.name)?;
            let Some(said) = as_announced(own, def, old, &known) else { continue };
            let place = stood.iter().position(|name| name.eq_ignore_ascii_case(&said.name));
            self.gone.push(Gone { at, said, known, place });
        }
        Ok(())
    }

    /// Finds by what devices have said.
    fn known(&self, old: &Gone<'_>) -> Result<Option<(usize, bool)>> {
        Ok(self.new.iter().position(|c| old.is_known_as(c)).map(|place| (place, true)))
    }

    /// Finds by what the log tells, unless no other can be the one in its place.
    fn by_values(&self, old: &Gone<'_>) -> Result<Option<(usize, bool)>> {
        let mut free = self.free(old)?;
        // Whether it is the other one after all is asked with the place.
        let is_sure =
            self.is_alone(old, &free) && free.iter().any(|place| self.is_here(old, self.new[*place]));
        free.retain(|place| old.is_like(self.new[*place]));
        for place in free.into_iter().filter(|_| old.said.key == 0 && !is_sure) {
            if self.has_values(old, self.new[place])? {
                return Ok(Some((place, true)));
            }
        }
        Ok(None)
    }

    /// Finds by the place. Where several can be it, that says nothing, unless that of each says the same.
    fn by_place(&self, old: &Gone<'_>) -> Result<Option<(usize, bool)>> {
        let free = self.free(old)?;
        if !self.is_alone(old, &free) && !self.are_in_place() {
            return Ok(None);
        }
        let here = free.iter().copied().find(|place| self.is_here(old, self.new[*place]));
        let here = match here {
            Some(place) if self.is_refuted(old, self.new[place])? => return Ok(None),
            None => free.into_iter().find(|place| self.has_moved_up(old, self.new[*place])),
            here => here,
        };
        let Some(place) = here.filter(|place| old.may_be(self.new[*place])) else { return Ok(None) };
        let is_one = match old.is_like(self.new[place]) {
            _ if old.said.key > 0 => true,
            true if self.is_here(old, self.new[place]) => {
                may_have_values(self.replica, self.table, self.new[place])?
            }
            _ => self.has_values(old, self.new[place])?,
        };
        Ok(Some((place, is_one)))
    }

    /// Returns the new columns of which nothing says that they are another one.
    fn free(&self, old: &Gone<'_>) -> Result<Vec<usize>> {
        let mut free = Vec::new();
        for (place, column) in self.new.iter().enumerate() {
            if !is_another(self.replica, self.table.tid, column, old, self.all)? {
                free.push(place);
            }
        }
        Ok(free)
    }

    fn is_here(&self, old: &Gone<'_>, column: &ColumnDef) -> bool {
        old.place.is_some() && self.now.column(&column.name) == old.place
    }

    /// Returns whether a column stands where one that is gone would, without those before it that are gone as well.
    fn has_moved_up(&self, old: &Gone<'_>, column: &ColumnDef) -> bool {
        let before =
            self.gone.iter().filter(|other| other.place.is_some() && other.place < old.place).count();
        before > 0 && old.place.is_some_and(|place| self.now.column(&column.name) == Some(place - before))
    }

    /// Returns whether the log tells that the column in the place of one that is gone is another one of those, which has moved
    /// up into it.
    fn is_refuted(&self, old: &Gone<'_>, column: &ColumnDef) -> Result<bool> {
        if old.said.key > 0 || self.has_values(old, column)? {
            return Ok(false);
        }
        for other in self.gone.iter().filter(|other| other.at != old.at && other.said.key == 0) {
            if self.has_moved_up(other, column) && other.may_be(column) && self.has_values(other, column)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether of those that are free one at most is of a column's type, and it alone of those that are gone.
    fn is_alone(&self, old: &Gone<'_>, free: &[usize]) -> bool {
        free.iter().filter(|place| old.is_like(self.new[**place])).count() < 2
            && self.gone.iter().filter(|other| old.is_like(other.said)).count() < 2
    }

    /// Returns whether each column that is gone has one of its type in its place, and what else is new stands after all.
    fn are_in_place(&self) -> bool {
        let is_after = |c: &&&ColumnDef| self.now.column(&c.name) >= Some(self.stood);
        let has_one = |old: &Gone<'_>| self.new.iter().any(|c| self.is_here(old, c) && old.is_like(c));
        self.gone.iter().all(has_one)
            && self.gone.len() + self.new.iter().filter(is_after).count() == self.new.len()
    }

    fn has_values(&self, old: &Gone<'_>, column: &ColumnDef) -> Result<bool> {
        let mut keys = self.table.def.keys().map(|at| &self.table.def.columns[at].name);
        Ok(keys.all(|key| self.now.column(key).is_some())
            && has_values_of(self.replica, self.table, old.at, column)?)
    }
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
    than: &Gone<'_>,
    gone: &[ColumnDef],
) -> Result<bool> {
    let names = renamed::names_of(replica, tid, &column.name)?;
    let is_one_of =
        gone.iter().any(|g| g.name != than.said.name && names.contains(&g.name.to_ascii_lowercase()));
    Ok(is_one_of || renamed::is_another(replica, tid, &than.said.name, &column.name)?)
}

/// Returns what the columns of a table are called now by its triggers, in the order of its definition: SQLite renames them there.
/// None, if the table was made anew since it was looked at last.
pub(crate) fn told_names(replica: &Replica, table: &Table) -> Result<Option<Vec<String>>> {
    Ok(trigger_of(replica, table)?.map(|sql| compared(&sql)))
}

/// Returns the columns whose values before and after a trigger compares, in its order.
fn compared(sql: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in sql.split("OLD.\"").skip(1) {
        let mut name = String::new();
        let mut rest = part;
        while let Some((start, end)) = rest.split_once('"') {
            name.push_str(start);
            rest = end;
            let Some(end) = end.strip_prefix('"') else { break };
            name.push('"');
            rest = end;
        }
        // A column without affinity is compared by its type as well.
        if rest.trim_start().starts_with("IS NOT NEW.") && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns the trigger of a table that names all its columns.
fn trigger_of(replica: &Replica, table: &Table) -> Result<Option<String>> {
    let trigger = entries::trigger(replica, &format!("_pm_update_{}", table.tid), &table.def.name)?;
    Ok(trigger.filter(|_| !table.def.append))
}

/// Returns whether the triggers of a table call some column otherwise than its definition does. SQLite renames a column in a
/// part of them alone, and goes by what it has renamed also after that was dropped: it would be in the way of the next
/// `ALTER TABLE`.
pub(crate) fn is_misnamed(replica: &Replica, table: &Table) -> Result<bool> {
    let Some(sql) = trigger_of(replica, table)? else { return Ok(false) };
    let names = compared(&sql);
    let lacks = |c: &ColumnDef| {
        !names.contains(&c.name) || !sql.contains(&format!("NULL AS {}", value::quote(&c.name)))
    };
    Ok(table.def.columns.iter().any(|c| c.key == 0 && lacks(c)))
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
        let Some(said) = shown_value(replica, table, &key, old)? else { continue };
        if said == table.def.columns[old].constant() {
            continue;
        }
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

/// Returns the value of a column that the log tells of a row as its application saw it: the winner's.
fn shown_value(replica: &Replica, table: &Table, key: &[u8], column: usize) -> Result<Option<OwnedValue>> {
    let mut heads = heads::heads(replica, table.tid, key)?;
    if table.state == State::Suspended {
        let mut seen = Vec::with_capacity(heads.len());
        for head in heads {
            if suspended::has_seen(replica, table.tid, &head)? {
                seen.push(head);
            }
        }
        heads = seen;
    }
    let order = versions::judge_versions(replica, table, &heads)?.order.into_iter().map(|at| &heads[at]);
    let mut speaking = order.filter(|head| head.live(table.def.columns.len()).contains(column));
    let Some(head) = speaking.next().filter(|head| head.kind != OpKind::Delete) else { return Ok(None) };
    let mut values = versions::values(replica, table, head)?.into_iter();
    Ok(values.find(|(at, _)| *at == column).map(|(_, value)| value))
}
