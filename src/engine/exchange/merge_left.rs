//! The rows that a state says nothing of, and what is left to be merged at its end.

use rusqlite::OptionalExtension;

use crate::engine::error::Result;
use crate::engine::merge::stretches;
use crate::engine::show::{constraints, references, write};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Lists the rows and versions here of a table that the maker has nothing of.
pub(super) fn list_ours(replica: &Replica, tid: i64) -> Result<()> {
    let db = &replica.db;
    let table = catalog::table(replica, tid)?;
    if table.shows_shared() {
        list_our_rows(replica, &table)?;
    }
    db.prepare_cached(&format!(
        "INSERT OR IGNORE INTO temp._pm_left_key (tid, key) SELECT DISTINCT tid, key FROM {} h
         WHERE NOT EXISTS (SELECT 1 FROM temp._pm_their_key k WHERE k.tid = h.tid AND k.key = h.key)",
        stretches::heads_of_table()
    ))?
    .execute([tid])?;
    Ok(())
}

/// Lists the rows here of a table that the maker does not have.
fn list_our_rows(replica: &Replica, table: &Table) -> Result<()> {
    let (db, tid) = (&replica.db, table.tid);
    let n = table.def.keys().count();
    let mut all = db.prepare(&format!("SELECT {} FROM {}", table.def.key_list(""), table.sql_name))?;
    let mut put = db.prepare(
        "INSERT OR IGNORE INTO temp._pm_left_key (tid, key) SELECT ?1, ?2
         WHERE NOT EXISTS (SELECT 1 FROM temp._pm_their_key WHERE tid = ?1 AND key = ?2)",
    )?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let values =
            (0..n).map(|at| row.get_ref(at).map(value::from_sql)).collect::<rusqlite::Result<Vec<_>>>()?;
        put.execute((tid, table.key_of(values.into_iter())?))?;
    }
    Ok(())
}

/// Returns the next row that is left to be merged.
pub(super) fn next_left(replica: &Replica, after: &(i64, Vec<u8>)) -> Result<Option<(i64, Vec<u8>)>> {
    let sql = "SELECT tid, key FROM temp._pm_left_key WHERE (tid, key) > (?1, ?2) ORDER BY tid, key LIMIT 1";
    let next =
        replica.db.prepare_cached(sql)?.query_row((after.0, &after.1), |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(next.optional()?)
}

/// Takes a row out of its table, as a delete would; what is in the quarantine table stays.
pub(super) fn hide(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    constraints::before_change(replica, table, key)?;
    if table.is_parent {
        references::record_deleted(replica, table, key)?;
        references::record_changed(replica, table)?;
    }
    write::delete_row(replica, table, key)
}
