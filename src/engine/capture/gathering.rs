//! Gathers at a base: makes the tables in which the per-device rows of other devices stand, under their devices.
//!
//! They stand under the name that the table has in the log. Where this database has a table of that name itself (the
//! application of the base has run the same schema script, say), they stand in a *mirror* beside it, `NAME_gathered`:
//! a table of its own in `_pm_table`, which says in `gathers` whose rows it has. Ops name the table of the log;
//! `catalog::mirror_of` finds the mirror.

use packmule_core::wire::Mode;

use crate::engine::capture::{adopt, merge_definitions};
use crate::engine::error::{self, Result};
use crate::engine::fleet::devices;
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::def::{DEVICE_COLUMN, TableDef};
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// Takes in the definition of a per-device table of another device at a base. `new` says that the table was not known.
pub(crate) fn gather_def(replica: &Replica, dev: i64, tid: i64, def: &TableDef, new: bool) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    if let Some(mirror) = catalog::mirror_of(replica, tid) {
        let gathers = mirror.state == State::Gathered;
        return if gathers {
            merge_definitions::merge_definition(replica, dev, mirror.tid, def)
        } else {
            Ok(())
        };
    }
    match table.state {
        State::Gathered if table.def.mode == def.mode => {
            merge_definitions::merge_definition(replica, dev, tid, def)
        }
        State::Tracked if table.def.mode != def.mode => notice_of_modes(replica, dev, &table, def),
        State::Known if new => begin_gathering(replica, &table),
        State::Tracked | State::Suspended if table.def.mode == def.mode => {
            begin_gathering(replica, &table)?;
            let mirror = catalog::mirror_of(replica, tid);
            mirror.map_or(Ok(()), |m| merge_definitions::merge_definition(replica, dev, m.tid, def))
        }
        State::Untracked if table.def.mode == def.mode && is_own(replica, &table.def)? => {
            begin_gathering(replica, &table)
        }
        _ => Ok(()),
    }
}

/// Begins to gather at a base that has the table of other devices' ops itself: it knows their definition by its own, and
/// nobody else's may have come yet. An author that goes on under a new identity has announced it under the old one.
pub(crate) fn gather_ops(replica: &Replica, tid: i64) -> Result<()> {
    if !replica.identity.base || catalog::mirror_of(replica, tid).is_some() {
        return Ok(());
    }
    let table = catalog::table(replica, tid)?;
    let own = matches!(table.state, State::Tracked | State::Suspended);
    if own && table.def.mode == Mode::PerDevice { begin_gathering(replica, &table) } else { Ok(()) }
}

/// Makes the table in which the rows that other devices have in this one are gathered, and begins to gather; says
/// why if it cannot.
pub(crate) fn begin_gathering(replica: &Replica, table: &Table) -> Result<()> {
    if let Some(reason) = table.def.ungatherable() {
        return adopt::set_reason(replica, table.tid, reason);
    }
    if is_there(replica, &table.def.name)? {
        return make_mirror(replica, table);
    }
    make_gathering(replica, &table.def)?;
    gather(replica, table.tid, &table.def.name)
}

/// Makes the mirror of a table whose name is taken here.
fn make_mirror(replica: &Replica, table: &Table) -> Result<()> {
    let mut def = table.def.clone();
    def.name = format!("{}_gathered", table.def.name);
    let mut n = 1;
    while is_there(replica, &def.name)? || catalog::table_here(replica, &def.name).is_some() {
        n += 1;
        def.name = format!("{}_gathered_{n}", table.def.name);
    }
    let (id, body) = def.encode()?;
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_table (name, def, state, announced, gathers) VALUES (?1, ?2, ?3, 1, ?4)",
        )?
        .execute((format!("_pm_gathered_{}", table.tid), id.0, State::Gathered, table.tid))?;
    let tid = replica.db.last_insert_rowid();
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO _pm_def (id, tid, body) VALUES (?1, ?2, ?3)")?
        .execute((id.0, tid, body))?;
    if table.state == State::Known {
        replica.db.execute("UPDATE _pm_table SET note = NULL WHERE tid = ?1", [table.tid])?;
    }
    make_gathering(replica, &def)?;
    gather(replica, tid, &def.name)
}

/// Returns whether the schema of this database has something in the place of a table of this name. It is not looked for in
/// `sqlite_schema`, which would be walked for each of many tables.
pub(crate) fn is_there(replica: &Replica, name: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1, 'main')) OR EXISTS (SELECT 1 FROM pragma_index_xinfo(?1, 'main'))";
    match replica.db.prepare_cached(sql)?.query_row([name], |row| row.get(0)) {
        // A view, say, whose tables are gone.
        Err(e) if !error::is_machine_failure(&e) => Ok(true),
        found => Ok(found?),
    }
}

/// Returns whether a table of this name is here that is not one in which rows like these were gathered.
fn is_own(replica: &Replica, def: &TableDef) -> Result<bool> {
    Ok(is_there(replica, &def.name)? && !is_gathering(replica, def)?)
}

/// Returns whether a table that is here is one in which rows like these were gathered.
pub(crate) fn is_gathering(replica: &Replica, def: &TableDef) -> Result<bool> {
    let here = TableDef::read(&replica.db, &def.name)?;
    let lower = |d: &TableDef, at: usize| d.columns[at].name.to_ascii_lowercase();
    let device = here.column(DEVICE_COLUMN);
    let keys = |d: &TableDef| d.keys().map(|at| lower(d, at)).collect::<Vec<_>>();
    Ok(device.is_some_and(|at| here.columns[at].key == 1)
        && keys(&here).get(1..) == Some(&keys(def)[..])
        && (0..def.columns.len()).all(|at| here.column(&def.columns[at].name).is_some()))
}

/// Makes a notice that a table is shared here and per-device elsewhere, or the reverse.
pub(crate) fn notice_of_modes(replica: &Replica, dev: i64, table: &Table, theirs: &TableDef) -> Result<()> {
    let word = |def: &TableDef| if def.mode == Mode::Shared { "shared" } else { "per-device" };
    let what = format!(
        "table `{}` is {} here and {} on {}: neither gets the other's rows; untrack it on one of them, and track it \
         as the other one does",
        theirs.name,
        word(&table.def),
        word(theirs),
        devices::device_label(replica, dev)?
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Makes the table in which a base gathers rows.
pub(crate) fn make_gathering(replica: &Replica, def: &TableDef) -> Result<()> {
    Ok(replica.db.execute_batch(&def.create_sql(true))?)
}

/// Begins to gather rows in a table that is there for it.
pub(crate) fn gather(replica: &Replica, tid: i64, name: &str) -> Result<()> {
    let name = value::quote(name);
    for (event, row) in [("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD")] {
        // Other devices own these rows. A mistaken write at the base must not look as if it had worked.
        replica.db.execute_batch(&format!(
            "CREATE TRIGGER _pm_guard_{event}_{tid} BEFORE {event} ON {name} WHEN {row}.device IS NOT NULL BEGIN
               SELECT RAISE(ABORT, 'this table gathers the rows of other devices: they are changed on the device itself');
             END"
        ))?;
    }
    replica.db.execute(
        "UPDATE _pm_table SET state = ?2, announced = 1, note = NULL WHERE tid = ?1",
        (tid, State::Gathered),
    )?;
    catalog::reload_table(replica, tid)?;
    adopt::remember_schema(replica)
}
