//! Tables without a key, to whose rows SQLite has given other rowids.
//!
//! VACUUM numbers the rows of such a table again, from 1 on and in their order, and so does a dump that is read in again.
//! No trigger fires. So each has a table of the same kind beside it, `_pm_rowids_N`, whose one row stands at rowid 2: if
//! it stands at 1, that has happened. Then the table is restated, all of it: what a row's rowid was, nobody knows.
//!
//! Where no row was ever deleted nothing is numbered anew, and that is usual. `filled` says so: the rowids were 1 to
//! `filled`, without a gap, when this was looked at last. If all that is recorded since are rows added at the end, they
//! were so at every moment between. It is -1 where there are gaps, and NULL until it is looked for them.

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::error::Result;
use crate::engine::fleet::peers;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// Where the row of `_pm_rowids_N` stands until rows are numbered anew.
const PLACE: i64 = 2;

/// What `filled` says where there are gaps.
const GAPS: i64 = -1;

/// Makes the table beside a table without a key, if it is not there.
pub(crate) fn make(replica: &Replica, table: &Table) -> Result<()> {
    if table.def.keyless {
        let beside = table.rowids();
        replica.db.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {beside} (filled INTEGER);
             INSERT INTO {beside} (rowid, filled) SELECT {PLACE}, NULL WHERE NOT EXISTS (SELECT 1 FROM {beside});"
        ))?;
    }
    Ok(())
}

/// Returns the tables without a key whose rows may have got other rowids: they are to be restated. Called before what was
/// recorded is sealed, within its transaction.
pub(crate) fn take_renumbered(replica: &Replica) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    for table in catalog::tables(replica).iter().filter(|t| t.def.keyless && t.state == State::Tracked) {
        let sql = format!("SELECT rowid, filled FROM {}", table.rowids());
        let (place, filled): (i64, Option<i64>) =
            replica.db.prepare_cached(&sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let moved = place != PLACE;
        if moved && peers::is_rolled_back(replica)? {
            continue;
        }
        let mut now = match filled {
            Some(filled) if filled != GAPS => filled_now(replica, table, filled)?,
            _ => GAPS,
        };
        if moved || filled.is_none() {
            let found_now = is_filled(replica, table)?;
            if moved && (now == GAPS || now != found_now) {
                found.push(table.tid);
            }
            now = found_now;
        }
        if moved || Some(now) != filled {
            let sql = format!("UPDATE {} SET rowid = {PLACE}, filled = ?1", table.rowids());
            replica.db.execute(&sql, [now])?;
        }
    }
    Ok(found)
}

/// Returns up to where the rowids are without a gap, or [`GAPS`]. They are without, if they were so up to `filled` and
/// rows were only added since, or changed where they are.
fn filled_now(replica: &Replica, table: &Table, mut filled: i64) -> Result<i64> {
    let sql = format!("SELECT k1, note FROM {} ORDER BY rowid", table.dirty());
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (rowid, flags): (i64, ChangeFlags) = (row.get(0)?, row.get(1)?);
        if flags == ChangeFlags::INSERT && rowid == filled + 1 {
            filled = rowid;
        } else if !flags.is_within(ChangeFlags::UPDATE | ChangeFlags::UPDATE_UNIQUE) || rowid > filled {
            return Ok(GAPS);
        }
    }
    let last = format!("SELECT coalesce(max({}), 0) FROM {}", rowid(table), table.sql_name);
    let last: i64 = replica.db.prepare_cached(&last)?.query_row([], |row| row.get(0))?;
    Ok(if filled == last { filled } else { GAPS })
}

/// Returns up to where the rowids are without a gap, or [`GAPS`]; it takes a walk through the table.
fn is_filled(replica: &Replica, table: &Table) -> Result<i64> {
    let sql = format!(
        "SELECT count(*), coalesce(max({0}), 0), coalesce(min({0}), 1) FROM {1}",
        rowid(table),
        table.sql_name
    );
    let (n, last, first): (i64, i64, i64) =
        replica.db.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(if n == last && first == 1 { n } else { GAPS })
}

fn rowid(table: &Table) -> String {
    value::quote(&table.def.columns[0].name)
}
