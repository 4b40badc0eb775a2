//! Columns that other devices add to a table: they follow by themselves where Packmule made it, and wait where an
//! application did, which adds them itself.
//!
//! **Invariant.** What others wrote into a column that waits stays in the log, in the versions of its rows; such a table is
//! not folded. When the column comes, each row gets what its versions say of it, before anything of the row is sealed.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use packmule_core::model::Stream;
use packmule_core::wire::{DefId, OpKind, SchemaBits};
use rusqlite::{ErrorCode, params_from_iter};

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::capture::respeak::{self, Unread};
use crate::engine::capture::suspended;
use crate::engine::error::Result;
use crate::engine::fleet::devices;
use crate::engine::log::frames;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{context_free, deferred, versions};
use crate::engine::show::{constraints, quarantine};
use crate::engine::store::meta;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::renamed::Renames;
use crate::engine::table::replica::Replica;
use crate::engine::table::{dropped, renamed, shapes};

/// Records whether the columns of others follow in a table, or wait.
pub(crate) fn set_follows(replica: &Replica, tid: i64, follows: bool) -> Result<()> {
    meta::set(&replica.db, &format!("columns {tid}"), follows)
}

/// Returns whether the columns of others follow in a table.
pub(crate) fn follows(replica: &Replica, table: &Table) -> Result<bool> {
    let set = meta::get::<bool>(&replica.db, &format!("columns {}", table.tid))?;
    Ok(set.unwrap_or(table.state == State::Gathered))
}

/// Records that a person has added a column for all devices.
pub(crate) fn ordain_column(replica: &Replica, tid: i64, name: &str) -> Result<()> {
    meta::set(&replica.db, &ordained_key(tid, name), true)
}

/// Returns whether a person has added a column for all devices.
pub(crate) fn is_ordained(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    Ok(meta::get::<bool>(&replica.db, &ordained_key(tid, name))? == Some(true))
}

/// Records that a column that a person had added was dropped.
pub(crate) fn unordain_column(replica: &Replica, tid: i64, name: &str) -> Result<()> {
    meta::forget(&replica.db, &ordained_key(tid, name))
}

fn ordained_key(tid: i64, name: &str) -> String {
    format!("column {tid} {}", name.to_ascii_lowercase())
}

/// Returns the columns of a table that other devices have, and that wait here for the application.
pub(crate) fn waiting_columns(replica: &Replica, table: &Table) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    if !table.shows_shared() || follows(replica, table)? {
        return Ok(names);
    }
    for mut theirs in shapes::other_shapes(replica, table)? {
        renamed::as_now(replica, table.tid, &mut theirs.def, &table.def)?;
        let def = &theirs.def;
        for column in def.columns.iter().filter(|c| def.mode == table.def.mode && c.key == 0) {
            let known = table.def.column(&column.name).is_some()
                || names.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
            if !known && !dropped::is_dropped(replica, table.tid, &column.name)? {
                names.push(column.name.clone());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Says in the table's status which columns wait.
pub(crate) fn tell_waiting(replica: &Replica, tid: i64) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    let table =
        if table.aside { catalog::table_named(replica, &table.def.name).unwrap_or(table) } else { table };
    let tid = table.tid;
    if table.state != State::Tracked {
        return Ok(());
    }
    let waiting = waiting_columns(replica, &table)?;
    let mut reason = (!waiting.is_empty()).then(|| {
        let names: Vec<String> = waiting.iter().map(|name| format!("`{name}`")).collect();
        format!(
            "other devices have the column {}: what they write into it waits until the application adds it here",
            names.join(", ")
        )
    });
    if shapes::is_at_odds(replica, tid)? {
        reason = Some(at_odds(replica, &table)?);
    }
    if table.note != reason {
        replica.db.execute("UPDATE _pm_table SET note = ?2 WHERE tid = ?1", (tid, reason))?;
        catalog::reload_table(replica, tid)?;
    }
    Ok(())
}

/// Says with which devices a table is at odds, of one that goes on here.
fn at_odds(replica: &Replica, table: &Table) -> Result<String> {
    let mut names = Vec::new();
    let mut other_key = None;
    for shape in shapes::shapes(replica, table.tid)? {
        let key = !table.def.has_key_of(&shape.def);
        if shape.dev != replica.me && (key || shape.bits.says(SchemaBits::CHANGED)) {
            names.push(devices::device_label(replica, shape.dev)?);
            other_key = other_key.or_else(|| key.then(|| shape.def.show_key()));
        }
    }
    let names = names.join(", ");
    Ok(match other_key {
        Some(theirs) => format!(
            "its primary key is {} here and {theirs} on {names}: rows of there wait, as rows of here do there, until \
             the table has another name on one side, and is let go there under this one",
            table.def.show_key()
        ),
        None => format!(
            "its columns were renamed, dropped or changed on {names}, and not here: rows of there wait until the \
             application has done the same here, or undone it there"
        ),
    })
}

/// What the columns of the definitions in the log, by their places, are called in a table's definition.
pub(crate) type Readings = HashMap<(DefId, usize), String>;

/// Returns how the columns of a table's definitions in the log are read, whose definition is `now`.
pub(crate) fn readings(replica: &Replica, tid: i64, now: &TableDef) -> Result<Readings> {
    readings_by(replica, tid, &renamed::renames(replica, tid)?, now)
}

/// Returns how they are read by who knows these renames, and whose definition is `now`.
fn readings_by(replica: &Replica, tid: i64, renames: &Renames, now: &TableDef) -> Result<Readings> {
    let mut statement = replica.db.prepare_cached("SELECT id, body FROM _pm_def WHERE tid = ?1")?;
    let mut rows = statement.query([tid])?;
    let mut found = Readings::new();
    while let Some(row) = rows.next()? {
        let (id, body): (_, Vec<u8>) = (DefId(row.get(0)?), row.get(1)?);
        let mut def = TableDef::stored(&body)?;
        renames.read_as(&mut def, now);
        found.extend(def.columns.into_iter().enumerate().map(|(at, column)| ((id, at), column.name)));
    }
    Ok(found)
}

/// Returns which columns of the definitions in the log stand for none of a table, whose definition is `now`.
pub(crate) fn unread(replica: &Replica, tid: i64, now: &TableDef) -> Result<Unread> {
    unread_there(replica, tid, &renamed::renames(replica, tid)?, now)
}

/// Returns which columns of the definitions in the log stand for none to a device that knows these renames, of a table whose
/// definition there is `now`.
pub(crate) fn unread_there(replica: &Replica, tid: i64, renames: &Renames, now: &TableDef) -> Result<Unread> {
    let all = readings_by(replica, tid, renames, now)?.into_iter();
    Ok(all.filter(|(_, name)| now.column(name).is_none()).map(|(place, _)| place).collect())
}

/// Returns which columns of the definitions in the log stand for these columns of a table, whose definition is `now`.
pub(crate) fn standing_for(replica: &Replica, tid: i64, now: &TableDef, names: &[String]) -> Result<Unread> {
    if names.is_empty() {
        return Ok(Unread::new());
    }
    let all = readings(replica, tid, now)?.into_iter();
    let is_one = |name: &str| names.iter().any(|of| of.eq_ignore_ascii_case(name));
    Ok(all.filter(|(_, name)| is_one(name)).map(|(place, _)| place).collect())
}

/// Returns which columns of the definitions in the log stand for a column of a table that were read otherwise (`before`), if
/// only as another one.
pub(crate) fn read_otherwise(
    replica: &Replica,
    tid: i64,
    now: &TableDef,
    before: &Readings,
) -> Result<Unread> {
    let all = readings(replica, tid, now)?.into_iter();
    let is_new = |(place, name): &(_, String)| before.get(place) != Some(name) && now.column(name).is_some();
    Ok(all.filter(is_new).map(|(place, _)| place).collect())
}

/// Takes from these columns those that still stand for none. Returns what the others are called here.
pub(crate) fn readable(replica: &Replica, tid: i64, unread: &mut Unread) -> Result<BTreeSet<String>> {
    let table = catalog::table(replica, tid)?;
    let still = self::unread(replica, tid, &table.def)?;
    unread.retain(|column| !still.contains(column));
    let names =
        unread.iter().map(|(id, at)| Ok(catalog::op_def(replica, *id)?.def.columns[*at].name.clone()));
    names.collect()
}

/// Reads again what stood for no column of a table, or for another one, `before` devices told what columns were renamed.
pub(crate) fn read_renamed(replica: &Replica, tid: i64, before: Option<&Readings>) -> Result<()> {
    let Some(before) = before else { return Ok(()) };
    let table = catalog::table(replica, tid)?;
    let come = read_otherwise(replica, tid, &table.def, before)?;
    if read_again(replica, &table, come)? && table.shows_shared() {
        deferred::defer_all(replica, tid)?;
    }
    Ok(())
}

/// Reads again what versions say of columns that stood for none (`unread`), before a device said how they were renamed.
/// Returns whether they say anything.
pub(crate) fn read_again(replica: &Replica, table: &Table, mut unread: Unread) -> Result<bool> {
    if unread.is_empty() || readable(replica, table.tid, &mut unread)?.is_empty() {
        return Ok(false);
    }
    respeak::respeak(replica, table, &table.def, &unread)?;
    Ok(true)
}

/// A column that has come.
pub(crate) struct Added {
    pub name: String,
    /// It was here before, under another name: only what was read as none before is new of it.
    pub was_here: bool,
    /// The places in the list of changes of the entries that were made because of it alone.
    pub entries: Range<i64>,
}

impl Added {
    /// Makes one for which no entries were made.
    pub(crate) fn without_entries(name: String) -> Self {
        Self { name, was_here: false, entries: 0..0 }
    }

    /// Makes one that was here before.
    pub(crate) fn renamed(name: String) -> Self {
        Self { name, was_here: true, entries: 0..0 }
    }
}

/// Fills columns that have come with what the versions of each row say of them. `before` is the definition without them,
/// `come` are the columns of other definitions that stand for columns here only now.
/// The entries that were made because of a column go where it is filled; those of others stay.
pub(crate) fn fill(
    replica: &Replica,
    tid: i64,
    before: &TableDef,
    added: &[Added],
    come: &Unread,
) -> Result<bool> {
    let table = catalog::table(replica, tid)?;
    if !table.shows_shared() || added.is_empty() {
        return Ok(false);
    }
    respeak::respeak(replica, &table, before, come)?;
    let mut filled = false;
    context_free::each_remembered(replica, tid, &mut |key| {
        let said = said_of(replica, &table, key, added, come)?;
        if said.is_empty() {
            return Ok(());
        }
        filled = true;
        let keys = value::read_key(key)?;
        let columns: Vec<usize> = said.iter().map(|(at, _)| *at).collect();
        let binds = said.iter().map(|(_, value)| value).chain(&keys).map(|value| Bind(value.borrow()));
        let written =
            replica.db.prepare_cached(&table.update_sql(&columns))?.execute(params_from_iter(binds));
        match written {
            // Somebody else has the value, or a rule of the table is against it: what becomes of the row is decided as for
            // every other that comes.
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                constraints::before_change(replica, &table, key)?;
                quarantine::move_to_quarantine(replica, &table, key)?;
                deferred::defer(replica, tid, key)?;
            }
            written => written.map(|_| ())?,
        }
        let of = |at: usize| added.iter().find(|c| c.name.eq_ignore_ascii_case(&table.def.columns[at].name));
        let because: Vec<String> = columns
            .iter()
            .filter_map(|at| of(*at))
            .map(|column| format!("rowid >= {} AND rowid < {}", column.entries.start, column.entries.end))
            .collect();
        let sql = format!(
            "DELETE FROM {} WHERE {} AND note = {} AND ({})",
            table.dirty(),
            table.change_match(),
            ChangeFlags::UPDATE_UNIQUE,
            because.join(" OR ")
        );
        let binds = keys.iter().map(|value| Bind(value.borrow()));
        replica.db.prepare_cached(&sql)?.execute(params_from_iter(binds))?;
        Ok(())
    })?;
    Ok(filled)
}

/// Returns what the first version of a row that speaks for each of these columns says of it. What has come while the table was
/// held is none that its application had seen: what that wrote meanwhile stays, and is sealed beside it.
fn said_of(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    added: &[Added],
    come: &Unread,
) -> Result<Vec<(usize, OwnedValue)>> {
    let is_held = suspended::is_held(replica, table.tid, key)?;
    let mut heads = Vec::new();
    for head in heads::heads(replica, table.tid, key)? {
        if !is_held || suspended::has_seen(replica, table.tid, &head)? {
            heads.push(head);
        }
    }
    let judgement = versions::judge_versions(replica, table, &heads)?;
    let n = table.def.columns.len();
    let mut said: Vec<(usize, OwnedValue)> = Vec::new();
    for head in judgement.order.iter().map(|at| &heads[*at]).filter(|h| h.kind != OpKind::Delete) {
        let (live, fresh) = (head.live(n), fresh_columns(replica, table, head, come)?);
        let wanted = |at: usize| {
            let is_it = |c: &Added| c.name.eq_ignore_ascii_case(&table.def.columns[at].name);
            live.contains(at) && added.iter().any(|c| is_it(c) && (!c.was_here || fresh.contains(at)))
        };
        if !(0..n).any(wanted) {
            continue;
        }
        for (at, value) in versions::values(replica, table, head)? {
            if wanted(at) && said.iter().all(|(other, _)| *other != at) {
                said.push((at, value));
            }
        }
    }
    Ok(said)
}

/// Returns the columns of a version that were read as none before: `come`, of the definitions in the log.
fn fresh_columns(replica: &Replica, table: &Table, head: &Head, come: &Unread) -> Result<Columns> {
    if come.is_empty() || head.baseline.is_some() {
        return Ok(Columns::default());
    }
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        let fresh = op.values(def.shape()).filter(|(at, _)| come.contains(&(def.id, *at)));
        Ok(fresh.filter_map(|(at, _)| table.def.column(&def.def.columns[at].name)).collect())
    })
}

/// Returns the place that the next entry in a table's list of changes gets.
pub(crate) fn next_entry(replica: &Replica, table: &Table) -> Result<i64> {
    let sql = format!("SELECT coalesce(max(rowid), 0) + 1 FROM {}", table.dirty());
    Ok(replica.db.query_row(&sql, [], |row| row.get(0))?)
}
