//! Fresh rows: those that applications have inserted above all others, which no trigger records.
//!
//! Where the key is the rowid, a row above the mark of its table was known to nobody: that it is there says all that an entry
//! in the list of changes would. So the trigger on INSERT leaves it out (`watch.rs`), and a seal reads on from the mark.
//! That saves a write for each row that is added, and the pages of the list in the file.
//!
//! **Invariant.** Between our transactions, the rows above the mark of a table that has one (`_pm_mark`) are those that
//! applications have put there since the last of them, and of no other row a change is unrecorded.
//!
//! **Why it holds.** A transaction of ours that may write rows, also ones of others that go above the mark, finds before
//! that what is fresh ([`begin`]). A seal takes these rows as it takes those in the list ([`take`]). Whatever looks into the
//! list by itself has them put there first ([`record_all`]), and so are those that no seal has taken, at the end ([`end`]). Then
//! the mark goes up to the last row. It never goes down: a row that comes below it is recorded like any other.
//!
//! Tables of which an entry says more than that the row is new (when it was written, what a counter was) have no mark.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::error::{Error, Result};
use crate::engine::store::value;
use crate::engine::table::def::{ROWID_NAMES, TableDef};
use crate::engine::table::fresh::Fresh;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, entries};

/// Returns whether new rows of a table are found by its mark.
pub(crate) fn has_mark(db: &Connection, table: &Table) -> Result<bool> {
    let def = &table.def;
    let by_rowid = !def.append && !def.keyless && def.integer_key();
    Ok(by_rowid && dirty::extra_columns(table).is_empty() && def.aliases_rowid(db)?)
}

/// Returns the condition by which the trigger on INSERT records a row with this key; none where all are recorded.
pub(crate) fn recorded(db: &Connection, table: &Table, key: &str) -> Result<String> {
    if !has_mark(db, table)? {
        return Ok(String::new());
    }
    // Without a mark, every row is.
    Ok(format!(" WHEN {key} <= ifnull((SELECT mark FROM _pm_mark WHERE tid = {}), {key})", table.tid))
}

/// Sets the mark of a table whose triggers are made, as they want it: to its last row, since all before is recorded.
pub(crate) fn set_mark(replica: &Replica, table: &Table) -> Result<()> {
    if !has_mark(&replica.db, table)? {
        replica.db.prepare_cached("DELETE FROM _pm_mark WHERE tid = ?1")?.execute([table.tid])?;
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO _pm_mark (tid, mark) SELECT ?1, coalesce(max({}), 0) FROM {} WHERE 1
         ON CONFLICT (tid) DO UPDATE SET mark = max(mark, excluded.mark)",
        table.def.rowid_name(),
        table.sql_name
    );
    replica.db.execute(&sql, [table.tid])?;
    Ok(())
}

/// Begins a transaction: finds what is fresh. Rows of tables that are held are recorded at once.
pub(crate) fn begin(replica: &Replica) -> Result<()> {
    let all: BTreeMap<i64, Fresh> = above(replica, &marks(replica)?)?.into_iter().collect();
    let held: Vec<i64> = all.keys().copied().filter(|tid| is_held(replica, *tid)).collect();
    *replica.fresh.borrow_mut() = Some(all);
    held.into_iter().try_for_each(|tid| record(replica, tid))
}

/// Returns whether a table takes no part: its changes are read from the list alone.
fn is_held(replica: &Replica, tid: i64) -> bool {
    catalog::table_numbered(replica, tid).is_none_or(|table| table.state != State::Tracked)
}

/// Ends a transaction: records what no seal has taken, and sets the marks to the last rows.
pub(crate) fn end(replica: &Replica) -> Result<()> {
    record_all(replica)?;
    for (tid, fresh) in above(replica, &marks(replica)?)? {
        let sql = "UPDATE _pm_mark SET mark = ?2 WHERE tid = ?1";
        replica.db.prepare_cached(sql)?.execute((tid, fresh.last))?;
    }
    forget(replica);
    Ok(())
}

/// Forgets what was found: the transaction is at its end.
pub(crate) fn forget(replica: &Replica) {
    *replica.fresh.borrow_mut() = None;
}

/// Takes the fresh rows of a table, in order to seal them.
pub(crate) fn take(replica: &Replica, tid: i64) -> Option<Fresh> {
    replica.fresh.borrow_mut().as_mut().and_then(|all| all.remove(&tid))
}

/// Puts the fresh rows of a table into its list.
pub(crate) fn record(replica: &Replica, tid: i64) -> Result<()> {
    let Some(Fresh { table, rowid, first, last }) = take(replica, tid) else { return Ok(()) };
    let sql = format!(
        "INSERT INTO _pm_dirty_{tid} (k1, note) SELECT {rowid}, {} FROM {table} WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid}",
        ChangeFlags::INSERT
    );
    replica.db.execute(&sql, (first, last))?;
    Ok(())
}

/// Puts all fresh rows into the lists.
pub(crate) fn record_all(replica: &Replica) -> Result<()> {
    let all: Vec<i64> = replica.fresh.borrow().iter().flat_map(|all| all.keys().copied()).collect();
    all.into_iter().try_for_each(|tid| record(replica, tid))
}

/// Counts the fresh rows of a table, up to `most`.
pub(crate) fn unsealed(replica: &Replica, table: &Table, most: u32) -> Result<u64> {
    let found = match &*replica.fresh.borrow() {
        Some(all) => all.get(&table.tid).cloned(),
        None => {
            let sql = "SELECT mark FROM _pm_mark WHERE tid = ?1";
            let mark = value::maybe(&replica.db, sql, [table.tid])?;
            let of = mark.map(|mark| (table.tid, mark));
            above(replica, of.as_slice())?.pop().map(|(_, fresh)| fresh)
        }
    };
    let Some(fresh) = found else { return Ok(0) };
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} BETWEEN ?1 AND ?2 LIMIT ?3)",
        fresh.table, fresh.rowid
    );
    let of = (fresh.first, fresh.last, most);
    Ok(replica.db.prepare_cached(&sql)?.query_row(of, |row| row.get(0))?)
}

/// Lists the tables that have marks, and these.
fn marks(replica: &Replica) -> Result<Vec<(i64, i64)>> {
    let mut statement = replica.db.prepare_cached("SELECT tid, mark FROM _pm_mark ORDER BY tid")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// So many tables are asked for their last row at once: a statement a table would be made anew in each transaction, where
/// there are more tables than statements are kept.
const AT_ONCE: usize = 64;

/// Finds the rows of these tables above their marks, where there are any.
fn above(replica: &Replica, marks: &[(i64, i64)]) -> Result<Vec<(i64, Fresh)>> {
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let known = catalog::is_schema_known(replica)?;
    let mut all = Vec::with_capacity(marks.len());
    for (tid, mark) in marks {
        let Some(first) = mark.checked_add(1) else { continue };
        if let Some((table, rowid)) = place(replica, *tid, known)? {
            all.push((*tid, Fresh { table, rowid, first, last: *mark }));
        }
    }
    for some in all.chunks_mut(AT_ONCE) {
        let of_each = |(n, (_, Fresh { table, rowid, .. })): (usize, &(i64, Fresh))| {
            format!("SELECT {n}, max({rowid}) FROM {table}")
        };
        let sql: Vec<String> = some.iter().enumerate().map(of_each).collect();
        let mut statement = replica.db.prepare_cached(&sql.join(" UNION ALL "))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let (Some((_, fresh)), Some(last)) = (some.get_mut(row.get::<_, usize>(0)?), row.get(1)?) {
                fresh.last = fresh.last.max(last);
            }
        }
    }
    all.retain(|(_, fresh)| !fresh.is_empty());
    Ok(all)
}

/// Finds what a table is called that has a mark, and its rowid. Its application may have renamed it, or made it anew.
/// `known`: the schema is as it was when the catalog was loaded.
fn place(replica: &Replica, tid: i64, known: bool) -> Result<Option<(String, &'static str)>> {
    let Some(table) = catalog::table_numbered(replica, tid) else { return Ok(None) };
    if !table.def.integer_key() || !matches!(table.state, State::Tracked | State::Suspended) {
        return Err(Error::damaged("`_pm_mark` has a table that is not captured by its rowid"));
    }
    if table.state == State::Tracked && known {
        return Ok(Some((table.sql_name.clone(), table.def.rowid_name())));
    }
    entries::list(replica)?;
    let renamed = entries::table_of(replica, &format!("_pm_insert_{tid}"))?;
    let name = renamed.unwrap_or_else(|| table.def.name.clone());
    if !TableDef::key_aliases_rowid(&replica.db, &name)? {
        return Ok(None);
    }
    let taken = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE";
    for rowid in ROWID_NAMES {
        if value::maybe::<i64>(&replica.db, taken, (&name, rowid))?.is_none() {
            return Ok(Some((format!("main.{}", value::quote(&name)), rowid)));
        }
    }
    Ok(None)
}
