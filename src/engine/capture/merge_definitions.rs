//! Merges the definitions that several devices have of a table: their columns and UNIQUEs together.

use crate::engine::capture::respeak::Unread;
use crate::engine::capture::{adopt, declare, dirty, follow, respeak, uniques, watch};
use crate::engine::error::{self, Hint, Result};
use crate::engine::fleet::devices;
use crate::engine::merge::{deferred, unread};
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::{dropped, renamed, shapes};

/// Returns the definitions of a table that are known from others: those that some device has announced last, but for what it
/// has changed alone, and those that nobody has announced.
fn other_defs(replica: &Replica, tid: i64) -> Result<Vec<TableDef>> {
    let mut statement = replica.db.prepare(
        "SELECT body FROM _pm_def f WHERE tid = ?1 AND id <> (SELECT def FROM _pm_table WHERE tid = ?1)
         AND coalesce((SELECT min(p.past OR (length(p.value) = 9 AND unicode(substr(p.value, 9)) & 1))
           FROM _pm_declared p WHERE p.tid = ?3 AND p.def = f.id AND p.what = ?2), 0) = 0
         ORDER BY id",
    )?;
    let root = declared::root_of(replica, tid);
    let bodies = statement.query_map((tid, Subject::Shape, root), |row| row.get::<_, Vec<u8>>(0))?;
    bodies.map(|body| TableDef::decode(&body?).map_err(error::bad)).collect()
}

/// Takes in what others announced of a table while it was suspended here. `before` is the definition by which
/// versions were recorded until now.
pub(crate) fn merge_definitions(replica: &Replica, tid: i64, before: &TableDef) -> Result<()> {
    merge_columns(replica, tid, before)?;
    merge_uniques(replica, tid)
}

/// The same, without what others have made UNIQUE: rows that were written here meanwhile are sealed before that can keep them
/// out (`merge_uniques`).
pub(crate) fn merge_columns(replica: &Replica, tid: i64, before: &TableDef) -> Result<()> {
    let entry = catalog::table(replica, tid)?;
    adopt::make_columns_plain(replica, tid, before.columns.len())?;
    for def in other_defs(replica, tid)?.iter().filter(|def| def.mode == before.mode) {
        merge(replica, replica.me, tid, def, false)?;
    }
    let table = catalog::table(replica, tid)?;
    let names = |def: &TableDef| def.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    if names(&table.def) == names(before) && names(&entry.def) == names(before) {
        return Ok(());
    }
    respeak::respeak(replica, &table, before, &Unread::new())
}

/// Makes UNIQUE here what others have made so.
pub(crate) fn merge_uniques(replica: &Replica, tid: i64) -> Result<()> {
    let mode = catalog::table(replica, tid)?.def.mode;
    let defs = other_defs(replica, tid)?;
    defs.iter()
        .filter(|def| def.mode == mode)
        .try_for_each(|def| merge_definition(replica, replica.me, tid, def))
}

/// Adds the columns and the UNIQUEs of a definition that the table here does not have.
pub(crate) fn merge_definition(replica: &Replica, dev: i64, tid: i64, theirs: &TableDef) -> Result<()> {
    merge(replica, dev, tid, theirs, true)
}

fn merge(replica: &Replica, dev: i64, tid: i64, theirs: &TableDef, with_uniques: bool) -> Result<()> {
    let table = &*catalog::table(replica, tid)?;
    let mut def = table.def.clone();
    let (id, _) = theirs.encode()?;
    let theirs = &mut theirs.clone();
    renamed::as_now(replica, tid, theirs, &def)?;
    if !def.has_key_of(theirs) {
        return notice_of_keys(replica, dev, &def, theirs);
    }
    if let Some(different) = def.different_column(theirs).filter(|_| !def.declares()) {
        let what = format!(
            "table `{}` is defined differently on {}: {different}; rows that are equal there may not be equal here",
            def.name,
            devices::device_label(replica, dev)?
        );
        meta::notice(&replica.db, &what, replica.now())?;
    }
    add_columns(replica, table, theirs, &mut def)?;
    let grown = def.columns.len() > table.def.columns.len();
    let mut uniques = Vec::new();
    for unique in theirs.uniques.iter().filter(|_| with_uniques && table.shows_shared()) {
        let names = unique.iter().map(|at| &theirs.columns[usize::from(*at)].name);
        let here: Option<Vec<u16>> = names.map(|name| def.column(name).map(|at| at as u16)).collect();
        if let Some(here) = here.filter(|here| !def.uniques.contains(here)) {
            def.uniques.push(here.clone());
            uniques.push(here);
        }
    }
    if !grown && uniques.is_empty() {
        return follow::tell_waiting(replica, tid);
    }
    def.uniques.sort();
    let is_said = grown
        && (unread::any(replica, tid)?
            || shapes::is_announced(replica, tid, id)?
            || follow::unread(replica, tid, &table.def)?.iter().any(|(of, _)| *of != id));
    adopt::adopt_def(replica, table.tid, &def)?;
    catalog::reload_table(replica, tid)?;
    if table.state == State::Tracked {
        let table = catalog::table(replica, tid)?;
        // The quarantine table needs the columns before rows are moved there; the triggers need the indexes.
        dirty::make_lists(replica, &table)?;
        for unique in &uniques {
            uniques::make_unique(replica, &table, unique)?;
        }
        catalog::reload_table(replica, tid)?;
        watch::install_capture(replica, &*catalog::table(replica, tid)?)?;
    }
    adopt::remember_schema(replica)?;
    if is_said {
        // Ops of another definition with these columns may have come before this one.
        let now = catalog::table(replica, tid)?;
        respeak::respeak(replica, &now, &table.def, &Unread::new())?;
        if now.shows_shared() {
            deferred::defer_all(replica, tid)?;
        }
    }
    follow::tell_waiting(replica, tid)
}

/// Adds the columns of a definition that a table lacks, where they follow, to the table and to its definition `def`.
fn add_columns(replica: &Replica, table: &Table, theirs: &TableDef, def: &mut TableDef) -> Result<()> {
    let tid = table.tid;
    let added: Vec<_> = theirs.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect();
    let follows = follow::follows(replica, table)?;
    for mut column in added {
        if shapes::is_gone(replica, tid, &column.name)?
            || dropped::is_dropped(replica, tid, &column.name)?
            || !(follows || follow::is_ordained(replica, tid, &column.name)?)
        {
            continue;
        }
        if let Some((_, first)) = declare::declared_columns(replica, tid, &column.name)?.into_iter().next() {
            column = first;
        }
        replica.db.execute_batch(&format!(
            "ALTER TABLE {} ADD COLUMN {}",
            table.sql_name,
            def.addable_sql(&ColumnDef { not_null: false, ..column.clone() })
        ))?;
        column.key = 0;
        def.columns.push(column);
    }
    Ok(())
}

/// Makes a notice of a per-device table that has another primary key on a device. Of shared ones `other_key` tells.
fn notice_of_keys(replica: &Replica, dev: i64, def: &TableDef, theirs: &TableDef) -> Result<()> {
    let what = of_keys(&devices::device_label(replica, dev)?, def, theirs);
    let hint = Hint::Untrack { table: def.name.clone() };
    meta::notice_with(&replica.db, &what, &hint, replica.now())
}

/// Says that a table has another primary key on a device.
pub(crate) fn of_keys(who: &str, def: &TableDef, theirs: &TableDef) -> String {
    format!(
        "table `{0}` has another primary key on {who} ({1}) than here ({2}): its rows cannot be matched with those \
         here, and stay in the log; on one of the two give the table another name, let `{0}` go there, and track that",
        def.name,
        theirs.show_key(),
        def.show_key()
    )
}
