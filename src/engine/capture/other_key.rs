//! Tables of one name with different primary keys: nobody can say which row of the one would be which of the other.
//!
//! **Invariant.** Each of them is a table of its own in `_pm_table`, with its versions and declarations; only what devices
//! announce of it (`shapes`) is recorded for all of a name together, since a device has one table of a name. One of them
//! stands under the name here. What comes for the others waits in their versions, as for a table that is not here, and is
//! never folded.
//!
//! **Which one stands here.** What an application made, as long as it is there. Where the name is free, or Packmule made the
//! table, the one that all others who take part have: this device goes over to it by itself. The rows of before stay, in a
//! table of another name; what was settled of them waits in the versions, should the others ever come back to that key.

use std::sync::Arc;

use packmule_core::model::Hex;
use packmule_core::wire::{Mode, OpKind, SchemaBits};

use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::capture::{adopt, at_once, declare, follow, held, merge_definitions, uniques, watch};
use crate::engine::error::{Hint, Result};
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::fleet::peers;
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, context_free, versions, written};
use crate::engine::store::meta::{self, Notice};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{ASIDE, State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// Makes the table of a definition, which is not here: what others have of it is shown in it.
pub(crate) fn make(replica: &Replica, tid: i64, def: &TableDef) -> Result<()> {
    replica.db.execute_batch(&def.create_sql(false))?;
    replica.db.execute(
        "UPDATE _pm_table SET state = ?2, announced = 1, note = NULL WHERE tid = ?1",
        (tid, State::Tracked),
    )?;
    follow::set_follows(replica, tid, true)?;
    meta::set(&replica.db, &made_key(tid), true)?;
    catalog::reload_table(replica, tid)?;
    let table = catalog::table(replica, tid)?;
    def.uniques.iter().try_for_each(|unique| uniques::make_unique(replica, &table, unique))?;
    at_once::begin_capture(replica, &table)?;
    adopt::remember_schema(replica)
}

/// Forgets that Packmule made a table: it is an application's.
pub(crate) fn forget_made(replica: &Replica, tid: i64) -> Result<()> {
    meta::forget(&replica.db, &made_key(tid))
}

fn made_key(tid: i64) -> String {
    format!("made {tid}")
}

/// Returns the table to which this device is to go over from the one that stands under its name here, if there is one.
pub(crate) fn due(replica: &Replica, main: &Table) -> Result<Option<Arc<Table>>> {
    if main.aside || main.def.mode != Mode::Shared || catalog::namesakes(replica, main).is_empty() {
        return Ok(None);
    }
    let is_there = compose::is_table_there(replica, main)?;
    let is_free = matches!(main.state, State::Untracked | State::Known) && !is_there;
    let is_ours = main.state == State::Tracked
        && is_there
        && meta::get::<bool>(&replica.db, &made_key(main.tid))? == Some(true);
    if !(is_free || is_ours) || !replica.can_sign() || peers::is_rolled_back(replica)? {
        return Ok(None);
    }
    let theirs = agreed(replica, main)?.filter(|table| table.tid != main.tid);
    Ok(theirs.filter(|table| table.state == State::Known))
}

/// Returns the table of a name that all other devices have who take part, if it is one and the same.
fn agreed(replica: &Replica, main: &Table) -> Result<Option<Arc<Table>>> {
    let mut agreed: Option<Arc<Table>> = None;
    for shape in shapes::shapes(replica, main.tid)?.iter().filter(|shape| shape.dev != replica.me) {
        let Some(table) = catalog::table_of(replica, &shape.def, &[])? else { return Ok(None) };
        if shape.bits.says(SchemaBits::CHANGED) {
            // It is held there until the key is put back, or the table has another name.
            let before = shapes::before(replica, main.tid, shape.dev)?;
            let before = before.map(|before| catalog::table_of(replica, &before, &[])).transpose()?.flatten();
            if before.is_none_or(|before| before.tid != table.tid) {
                return Ok(None);
            }
        }
        if agreed.as_ref().is_some_and(|agreed| agreed.tid != table.tid) {
            return Ok(None);
        }
        agreed = Some(table);
    }
    Ok(agreed)
}

/// Goes over to the table of the same name that the others have, where that is due. Returns the tables that came so.
pub(crate) fn go_over_where_due(replica: &Replica) -> Result<Vec<i64>> {
    let mut come = Vec::new();
    for main in catalog::tables(replica) {
        if let Some(next) = due(replica, &main)? {
            go_over(replica, &main, &next)?;
            come.push(next.tid);
        }
    }
    Ok(come)
}

/// Goes over from one table to another of the same name.
fn go_over(replica: &Replica, main: &Table, next: &Table) -> Result<()> {
    if main.state == State::Tracked {
        put_away(replica, main, next)?;
    }
    stand_in(replica, main, next)?;
    make(replica, next.tid, &next.def)?;
    let next = &*catalog::table(replica, next.tid)?;
    merge_definitions::merge_definitions(replica, next.tid, &next.def)?;
    declare::apply_declarations(replica, next.tid, &next.disputed)?;
    context_free::unplace_waiting(replica, &*catalog::table(replica, next.tid)?, &|_| Ok(false))
}

/// Lets a table stand under its name, in the place of another one.
pub(crate) fn stand_in(replica: &Replica, main: &Table, next: &Table) -> Result<()> {
    let rename = "UPDATE _pm_table SET name = ?2 WHERE tid = ?1";
    replica.db.execute(rename, (main.tid, format!("{ASIDE}{}", Hex(&main.def_id.0))))?;
    replica.db.execute(rename, (next.tid, &next.def.name))?;
    catalog::reload_catalog(replica)
}

/// Takes a table that Packmule made from under its name. What was written to it is sealed before.
fn put_away(replica: &Replica, table: &Table, next: &Table) -> Result<()> {
    groups::seal_groups(replica, SealOptions { only: Some(table.tid), ..SealOptions::default() })?;
    let kept = keep_rows(replica, table)?;
    keep_settled(replica, table)?;
    watch::remove_capture(replica, table)?;
    held::forget(replica, table.tid)?;
    for list in ["_pm_dangling", "_pm_conflict", "_pm_held", "_pm_parked"] {
        replica.db.execute(&format!("DELETE FROM {list} WHERE tid = ?1"), [table.tid])?;
    }
    replica.db.execute_batch(&format!(
        "DROP TABLE {}; DROP TABLE IF EXISTS {}",
        table.sql_name,
        table.quarantine_table()
    ))?;
    replica
        .db
        .execute("UPDATE _pm_table SET state = ?2, note = NULL WHERE tid = ?1", (table.tid, State::Known))?;
    let Some((name, rows)) = kept else { return Ok(()) };
    let what = format!(
        "table `{0}` is the others' now, whose primary key is {1}: no device has the one whose key is {2} any more; \
         its rows of here ({rows}) are in the table `{name}`: drop that when nobody needs them",
        table.def.name,
        next.def.show_key(),
        table.def.show_key()
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Copies the rows of a table, and those in quarantine, into one of another name. Returns its name, and how many.
fn keep_rows(replica: &Replica, table: &Table) -> Result<Option<(String, i64)>> {
    let quarantine = table.quarantine_table();
    let count =
        format!("SELECT (SELECT count(*) FROM {}) + (SELECT count(*) FROM {quarantine})", table.sql_name);
    let rows: i64 = replica.db.query_row(&count, [], |row| row.get(0))?;
    if rows == 0 {
        return Ok(None);
    }
    let mut def = table.def.clone();
    let taken = "SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE";
    for n in 2.. {
        def.name = format!("{}_{n}", table.def.name);
        let is_there = value::maybe::<i64>(&replica.db, taken, [&def.name])?.is_some();
        if !is_there && catalog::table_here(replica, &def.name).is_none() {
            break;
        }
    }
    // What keeps a row out of the one keeps it out of no other.
    def.foreign_keys.clear();
    let columns = table.column_list();
    replica.db.execute_batch(&format!(
        "{}; INSERT INTO main.{} ({columns}) SELECT {columns} FROM {} UNION ALL SELECT {columns} FROM {quarantine}",
        def.create_sql(false),
        value::quote(&def.name),
        table.sql_name
    ))?;
    Ok(Some((def.name, rows)))
}

/// Keeps what is settled of the rows of a table in baseline versions: they wait, as what comes for it.
fn keep_settled(replica: &Replica, table: &Table) -> Result<()> {
    let n = table.def.columns.len();
    let sql = format!("SELECT {} FROM {}", table.def.key_list(""), table.sql_name);
    let mut statement = replica.db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let whole = |head: &Head| head.columns.is_none() || head.kind == OpKind::Delete || head.dev == BASELINE;
    while let Some(row) = rows.next()? {
        let key = table.key_in(row)?;
        let heads = heads::all_heads(replica, table.tid, &key)?;
        if heads.iter().any(whole) {
            continue;
        }
        let Some(values) = compose::shown_row(replica, table, &key)? else { continue };
        let counted = counters::entries(&replica.db, "_pm_count", table.tid, &key)?;
        for column in &table.counters {
            if let Some(sum) = counters::settled_sum(&counted, *column, Some(&values)) {
                let entry = Entry::of(*column, &Head::baseline(0, None), 0, true, sum);
                counters::put_entry(&replica.db, table.tid, &key, &entry)?;
            }
        }
        let all = Columns::all(n);
        let left = heads.iter().fold(all.clone(), |columns, head| columns.minus(&head.live(n)));
        let body = versions::write_baseline(table, &values, &left)?;
        let head = Head::baseline(0, Some(left.clone()).filter(|_| left != all));
        written::insert_image(replica, table.tid, &key, &head, &body)?;
    }
    Ok(())
}

/// Returns the tables of the same name for which others' rows wait: of those that others have still.
pub(crate) fn asides(replica: &Replica, main: &Table) -> Result<Vec<i64>> {
    let mut asides = Vec::new();
    if main.aside || catalog::namesakes(replica, main).is_empty() {
        return Ok(asides);
    }
    for shape in shapes::shapes(replica, main.tid)? {
        let of = catalog::table_of(replica, &shape.def, &[])?;
        asides.extend(of.filter(|of| of.aside && shape.dev != replica.me).map(|of| of.tid));
    }
    asides.sort();
    asides.dedup();
    Ok(asides)
}

/// Says with which devices a table cannot be matched, since it has another primary key there.
pub(crate) fn notices(replica: &Replica, main: &Table) -> Result<Vec<Notice>> {
    let mut notices = Vec::new();
    let stands = matches!(main.state, State::Tracked | State::Suspended) && main.def.mode == Mode::Shared;
    if !stands || main.aside || catalog::namesakes(replica, main).is_empty() {
        return Ok(notices);
    }
    for shape in shapes::shapes(replica, main.tid)? {
        let apart = catalog::table_of(replica, &shape.def, &[])?.is_some_and(|of| of.aside);
        if shape.dev == replica.me || !apart || shape.bits.says(SchemaBits::CHANGED) {
            continue;
        }
        let who = devices::device_label(replica, shape.dev)?;
        let text = merge_definitions::of_keys(&who, &main.def, &shape.def);
        notices.push(Notice { text, hint: Some(Hint::Untrack { table: main.def.name.clone() }) });
    }
    Ok(notices)
}

/// Lets the table of a definition stand under its name, where one with another primary key did that nobody has any more: that
/// is let go here, or was never here. Returns whether the name is the other's still.
pub(crate) fn make_room(replica: &Replica, def: &TableDef) -> Result<bool> {
    let Some(main) = catalog::table_named(replica, &def.name) else { return Ok(false) };
    if catalog::table_of(replica, def, &[])?.is_some_and(|table| table.tid == main.tid) {
        return Ok(false);
    }
    if main.def.mode != def.mode || !matches!(main.state, State::Known | State::Untracked) {
        return Ok(false);
    }
    for shape in shapes::shapes(replica, main.tid)?.iter().filter(|shape| shape.dev != replica.me) {
        if catalog::table_of(replica, &shape.def, &[])?.is_some_and(|of| of.tid == main.tid) {
            return Ok(true);
        }
    }
    let (id, body) = def.encode()?;
    let tid = catalog::keep_def(replica, def, id, &body)?;
    stand_in(replica, &main, &*catalog::table(replica, tid)?)?;
    Ok(false)
}
