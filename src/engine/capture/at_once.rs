//! The capture of many tables, put in place at once.
//!
//! After each `CREATE`, SQLite walks the whole schema in order to read the one entry that it has just made: of n tables with
//! a handful of triggers each, it would walk n times over all. Here the entries of the triggers are written as SQLite itself
//! writes them, and then it reads the schema once, as it does after another program has changed it. The lists of a table have
//! pages of their own, which a `CREATE TABLE` alone can give them; they are made first, while there are few entries to walk.
//!
//! What stays of it are two walks for each table, over some two and a half entries a table: 500 tables take 2.9 thousand million
//! instructions in all, 2,000 take 18.7, of which 9.9 are for the lists.
//!
//! **Invariant.** No entry is written but of a `CREATE TRIGGER` that SQLite has prepared here. All of it is in the open
//! transaction: where it fails, nothing of it stays.

use std::sync::Arc;

use rusqlite::config::DbConfig;

use crate::engine::capture::{adopt, watch};
use crate::engine::error::Result;
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// Of fewer tables than these, each is read from the schema and has its triggers made on its own: to read all of it costs more.
pub(crate) const FEW: usize = 32;

/// Makes the lists and the triggers of tables; replaces triggers that are there.
pub(crate) fn install_captures(replica: &Replica, tids: &[i64]) -> Result<()> {
    let tables = tids.iter().map(|tid| catalog::table(replica, *tid)).collect::<Result<Vec<_>>>()?;
    tables.iter().try_for_each(|table| watch::begin_capture(replica, table))?;
    make_triggers(replica, &tables)
}

/// Makes the triggers of tables whose lists are there.
fn make_triggers(replica: &Replica, tables: &[Arc<Table>]) -> Result<()> {
    if tables.len() < FEW {
        return tables.iter().try_for_each(|table| watch::make_triggers(replica, table));
    }
    let db = &replica.db;
    let defends = db.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    let written = write_entries(replica, tables);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false)?;
    let read = written.and_then(|()| read_schema(replica));
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, defends)?;
    read?;
    tables.iter().try_for_each(|table| watch::end_capture(replica, table))
}

/// Makes the list of a table that Packmule has made now. Its triggers follow at the end of the transaction: till then nobody else
/// writes to it, and this connection has triggers off.
pub(crate) fn begin_capture(replica: &Replica, table: &Table) -> Result<()> {
    watch::begin_capture(replica, table)?;
    match &mut *replica.bare.borrow_mut() {
        Some(bare) => {
            bare.push(table.tid);
            Ok(())
        }
        None => watch::make_triggers(replica, table),
    }
}

/// Makes the triggers that tables still lack which were made in this transaction.
pub(crate) fn install_bare(replica: &Replica) -> Result<()> {
    let Some(mut bare) = replica.bare.borrow_mut().as_mut().map(std::mem::take) else { return Ok(()) };
    bare.sort_unstable();
    bare.dedup();
    // What was undone since has left none.
    let made = bare.iter().filter_map(|tid| catalog::table_numbered(replica, *tid));
    let made: Vec<Arc<Table>> = made.filter(|table| table.state == State::Tracked).collect();
    if made.is_empty() {
        return Ok(());
    }
    let known = catalog::is_schema_known(replica)?;
    made.iter().try_for_each(|table| watch::remove_triggers(replica, table.tid))?;
    make_triggers(replica, &made)?;
    if known { adopt::remember_schema(replica) } else { Ok(()) }
}

/// Writes the entries of the triggers into the schema.
fn write_entries(replica: &Replica, tables: &[Arc<Table>]) -> Result<()> {
    let mut write = replica.db.prepare(
        "INSERT INTO main.sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('trigger', ?1, ?2, 0, ?3)",
    )?;
    for table in tables {
        for (name, sql) in watch::triggers(&replica.db, table)? {
            drop(replica.db.prepare(&sql)?);
            write.execute((name, &table.def.name, sql))?;
        }
    }
    Ok(())
}

/// Has SQLite read the schema again, here and in every other connection.
fn read_schema(replica: &Replica) -> Result<()> {
    let next = catalog::schema_version(&replica.db)? + 1;
    replica.db.pragma_update(Some("main"), "schema_version", next)?;
    Ok(replica.db.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))?)
}
