//! Append tables: the rows that no trigger records.
//!
//! An append table has no trigger on INSERT, so inserts cost nothing: a seal reads on from its high-water mark. Rows that
//! come at or below the mark (ids that start again, a row that is filled in with an id of its own) can only take ids
//! that were free. So the free ids up to the mark are kept as ranges, `_pm_gap`, and a seal looks into each of them.
//! Triggers on UPDATE and DELETE record what happens to rows up to the mark.
//!
//! A DELETE is not carried unless the table is tracked so, since deleting old rows is how cards are kept free; it is
//! counted in a notice.

use std::sync::Arc;

use packmule_core::model::{Value, WallMs};
use rusqlite::OptionalExtension;

use crate::engine::capture::dirty::ChangeFlags;
use crate::engine::capture::ops::{self, Change, RowReader};
use crate::engine::error::Result;
use crate::engine::log::writer::GroupWriter;
use crate::engine::merge::heads::Seen;
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// So many ranges of free ids are kept of a table: the widest ones. Each seal looks into all of them.
const GAPS: u32 = 1_000;

/// At so many, they are cut back to that: not at each seal.
const GAPS_MOST: u32 = 2 * GAPS;

/// The least id of which ranges speak.
const LEAST: i64 = i64::MIN + 1;

/// Says, before the table's name, that rows of it were deleted here and not elsewhere.
const DELETED: &str =
    "rows that were deleted here stay elsewhere, since an append table carries no deletes: ";

/// Returns the notice of rows of a table that were deleted here alone.
pub(crate) fn deleted_notice(table: &str) -> String {
    format!("{DELETED}`{table}`")
}

/// Counts rows that were deleted here and not elsewhere.
pub(crate) fn note_deleted(replica: &Replica, table: &Table, rows: u64) -> Result<()> {
    meta::notice_of(&replica.db, &deleted_notice(&table.def.name), rows, replica.now())
}

/// Adds the id of a row that was deleted from a table whose gaps are watched to the ranges of free ids, if they are known: without a walk through the table.
pub(crate) fn free_id(replica: &Replica, table: &Table, key: &[Value<'_>]) -> Result<()> {
    let &[Value::Int(id)] = key else { return Ok(()) };
    if !table.knows_gaps {
        return Ok(());
    }
    let db = &replica.db;
    let before: Option<(i64, i64)> = db
        .prepare_cached(
            "SELECT first, last FROM _pm_gap WHERE tid = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
        )?
        .query_row((table.tid, id), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if before.is_some_and(|(_, last)| last >= id) {
        return Ok(());
    }
    let first = before.filter(|(_, last)| *last == id - 1).map_or(id, |(first, _)| first);
    let next = "DELETE FROM _pm_gap WHERE tid = ?1 AND first = ?2 RETURNING last";
    let after: Option<i64> =
        db.prepare_cached(next)?.query_row((table.tid, id.saturating_add(1)), |row| row.get(0)).optional()?;
    db.prepare_cached("INSERT OR REPLACE INTO _pm_gap (tid, first, last) VALUES (?1, ?2, ?3)")?.execute((
        table.tid,
        first,
        after.unwrap_or(id),
    ))?;
    Ok(())
}

/// Records the rows that came at ids that were free: what is looked for next is what is free now.
pub(crate) fn record_filled(replica: &Replica, table: &Table) -> Result<()> {
    let id = table.def.key_list("");
    for range in filled_gaps(replica, table)? {
        let sql = format!(
            "INSERT INTO {} (k1, note) SELECT {id}, {} FROM {} WHERE {id} BETWEEN ?1 AND ?2",
            table.dirty(),
            ChangeFlags::INSERT,
            table.sql_name
        );
        replica.db.execute(&sql, range)?;
    }
    Ok(())
}

/// Forgets the ranges of free ids: the next seal looks for them again.
pub(crate) fn forget_gaps(replica: &Replica, tid: i64) -> Result<()> {
    replica.db.execute("UPDATE _pm_table SET gaps = 0 WHERE tid = ?1", [tid])?;
    Ok(())
}

/// Begins again with a table that was made anew: its rows are recorded one by one, and the mark is its last id.
pub(crate) fn begin_again(replica: &Replica, table: &Table) -> Result<()> {
    let id = table.def.key_list("");
    let sql = format!(
        "UPDATE _pm_table SET gaps = 0, appended = (SELECT coalesce(max({id}), 0) FROM {}) WHERE tid = ?1",
        table.sql_name
    );
    replica.db.execute(&sql, [table.tid])?;
    replica.db.execute("DELETE FROM _pm_reached WHERE tid = ?1", [table.tid])?;
    Ok(())
}

/// Returns the ranges of ids that were free and in which rows are now.
fn filled_gaps(replica: &Replica, table: &Table) -> Result<Vec<(i64, i64)>> {
    if !table.watches_gaps() || !table.knows_gaps {
        return Ok(Vec::new());
    }
    let id = table.def.key_list("");
    let mut statement = replica.db.prepare_cached(&format!(
        "SELECT first, last FROM _pm_gap WHERE tid = ?1
         AND EXISTS (SELECT 1 FROM {} WHERE {id} BETWEEN first AND last) ORDER BY first",
        table.sql_name
    ))?;
    let gaps = statement.query_map([table.tid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(gaps.collect::<rusqlite::Result<_>>()?)
}

/// Returns the range of ids above the mark, if there are any.
fn above_mark(table: &Table) -> Option<(i64, i64)> {
    table.high_water.checked_add(1).map(|first| (first, i64::MAX))
}

/// Counts the rows that came since the last seal, at or below the mark and above it; each up to `most`.
pub(crate) fn unsealed(replica: &Replica, table: &Table, most: u32) -> Result<u64> {
    let id = table.def.key_list("");
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {id} BETWEEN ?1 AND ?2 LIMIT ?3)",
        table.sql_name
    );
    let mut count = replica.db.prepare_cached(&sql)?;
    let mut count_in =
        |(first, last): (i64, i64)| count.query_row((first, last, most), |row| row.get::<_, u64>(0));
    let mut below = 0;
    for range in filled_gaps(replica, table)? {
        below += count_in(range)?;
    }
    let above = above_mark(table).map(count_in).transpose()?.unwrap_or(0);
    Ok(below.min(most.into()) + above)
}

/// Raises the marks of append tables to the last row. After a seal, in its transaction: what came since came from others.
pub(crate) fn raise_marks(replica: &Replica) -> Result<()> {
    let mut raised = 0;
    for table in catalog::tables(replica).iter().filter(|t| t.def.append && t.state == State::Tracked) {
        let sql = format!(
            "UPDATE _pm_table SET appended = last FROM (SELECT max({}) AS last FROM {}) WHERE tid = ?1 AND last > appended",
            table.def.key_list(""),
            table.sql_name
        );
        raised += replica.db.prepare_cached(&sql)?.execute([table.tid])?;
    }
    if raised > 0 { catalog::reload_catalog(replica) } else { Ok(()) }
}

/// Seals the rows that came since the last seal, at or below the mark and above it.
pub(crate) fn seal_appended(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
) -> Result<()> {
    let table = reader.table;
    for (first, last) in filled_gaps(replica, table)? {
        seal_range(replica, reader, group, (first, last))?;
        replica.db.execute("DELETE FROM _pm_gap WHERE tid = ?1 AND first = ?2", (table.tid, first))?;
        find_gaps(replica, table, first, last)?;
    }
    let Some(range) = above_mark(table) else { return Ok(()) };
    seal_range(replica, reader, group, range)?;
    if let Some(last) = last_id(replica, table, range)? {
        replica.db.execute("UPDATE _pm_table SET appended = ?2 WHERE tid = ?1", (table.tid, last))?;
    }
    Ok(())
}

/// Returns the last id in a range of ids, if there is any.
pub(crate) fn last_id(replica: &Replica, table: &Table, range: (i64, i64)) -> Result<Option<i64>> {
    let id = table.def.key_list("");
    let sql = format!("SELECT max({id}) FROM {} WHERE {id} BETWEEN ?1 AND ?2", table.sql_name);
    Ok(replica.db.prepare_cached(&sql)?.query_row(range, |row| row.get(0))?)
}

/// Seals the rows in a range of ids.
fn seal_range(
    replica: &Replica,
    reader: &RowReader<'_>,
    group: &mut GroupWriter<'_>,
    range: (i64, i64),
) -> Result<()> {
    let table = reader.table;
    let id = table.def.key_list("");
    let sql = format!(
        "SELECT {} FROM {} WHERE {id} BETWEEN ?1 AND ?2 ORDER BY {id}",
        reader.columns(""),
        table.sql_name
    );
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(range)?;
    while let Some(row) = rows.next()? {
        ops::seal_row(replica, reader, group, row, &Change::default(), &Seen::All)?;
    }
    Ok(())
}

/// Notes up to where a table is sealed now, and which ids are free there.
pub(crate) fn note_sealed(replica: &Replica, table: &Table, wall: WallMs) -> Result<()> {
    let sql = "SELECT appended FROM _pm_table WHERE tid = ?1";
    let mark: i64 = replica.db.query_row(sql, [table.tid], |row| row.get(0))?;
    update_gaps(replica, table, mark)?;
    note_reached(replica, table, mark, wall)
}

/// Brings the ranges of free ids up to date after a seal, whose mark is now `mark`.
pub(crate) fn update_gaps(replica: &Replica, table: &Table, mark: i64) -> Result<()> {
    if !table.watches_gaps() {
        return Ok(());
    }
    let known: bool =
        replica.db.query_row("SELECT gaps FROM _pm_table WHERE tid = ?1", [table.tid], |row| row.get(0))?;
    if known {
        if mark > table.high_water {
            find_gaps(replica, table, table.high_water.saturating_add(1), mark)?;
        }
        return Ok(());
    }
    replica.db.execute("DELETE FROM _pm_gap WHERE tid = ?1", [table.tid])?;
    find_gaps(replica, table, LEAST, mark)?;
    replica.db.execute("UPDATE _pm_table SET gaps = 1 WHERE tid = ?1", [table.tid])?;
    Ok(())
}

/// Finds the free ids of tables of which they are not known.
pub(crate) fn find_all_gaps(replica: &Replica) -> Result<()> {
    let unknown = |t: &&Arc<Table>| t.watches_gaps() && !t.knows_gaps && t.announced;
    let tables = catalog::tables(replica);
    let mut found = false;
    for table in tables.iter().filter(unknown) {
        update_gaps(replica, table, table.high_water)?;
        found = true;
    }
    if found { catalog::reload_catalog(replica) } else { Ok(()) }
}

/// Records when a mark was reached: at most one an hour is kept, besides the last one.
fn note_reached(replica: &Replica, table: &Table, mark: i64, wall: WallMs) -> Result<()> {
    const HOUR: u64 = 3_600_000;
    if mark <= table.high_water {
        return Ok(());
    }
    let last = replica
        .db
        .prepare_cached("SELECT mark, wall FROM _pm_reached WHERE tid = ?1 ORDER BY mark DESC LIMIT 2")?
        .query_map([table.tid], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, i64)>>>()?;
    if let [last, before] = last[..]
        && wall.abs_diff(before.1) < HOUR
    {
        replica.db.execute("DELETE FROM _pm_reached WHERE tid = ?1 AND mark = ?2", (table.tid, last.0))?;
    }
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO _pm_reached (tid, mark, wall) VALUES (?1, ?2, ?3)")?
        .execute((table.tid, mark, wall))?;
    Ok(())
}

/// Finds the free ids in a range.
fn find_gaps(replica: &Replica, table: &Table, first: i64, last: i64) -> Result<()> {
    let id = table.def.key_list("");
    let (name, tid) = (&table.sql_name, table.tid);
    // As a rule none is free, and rows are counted at a tenth of the cost of finding what is between them.
    let rows = format!("SELECT count(*) FROM {name} WHERE {id} BETWEEN ?1 AND ?2");
    let rows: i64 = replica.db.prepare_cached(&rows)?.query_row((first, last), |row| row.get(0))?;
    if last.checked_sub(first).is_some_and(|more| more == rows - 1) {
        return Ok(());
    }
    replica
        .db
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO _pm_gap (tid, first, last)
             SELECT {tid}, before + 1, id - 1 FROM (
               SELECT {id} AS id, lag({id}, 1, ?1 - 1) OVER (ORDER BY {id}) AS before
               FROM {name} WHERE {id} BETWEEN ?1 AND ?2)
             WHERE id > before + 1 ORDER BY id - before DESC LIMIT {GAPS}"
        ))?
        .execute((first, last))?;
    let after = last_id(replica, table, (first, last))?.map_or(first, |found| found.saturating_add(1));
    if after <= last {
        replica.db.execute(
            "INSERT OR REPLACE INTO _pm_gap (tid, first, last) VALUES (?1, ?2, ?3)",
            (tid, after, last),
        )?;
    }
    forget_narrow_gaps(replica, tid)
}

/// Keeps the widest of a table's ranges, if they have become too many: an application that skips ids leaves a range for
/// each of its rows.
pub(crate) fn forget_narrow_gaps(replica: &Replica, tid: i64) -> Result<()> {
    let mut count = replica.db.prepare_cached("SELECT count(*) FROM _pm_gap WHERE tid = ?1")?;
    if count.query_row([tid], |row| row.get::<_, u32>(0))? > GAPS_MOST {
        replica.db.execute(
            "DELETE FROM _pm_gap WHERE tid = ?1 AND first NOT IN (
               SELECT first FROM _pm_gap WHERE tid = ?1 ORDER BY last - first DESC, first LIMIT ?2)",
            (tid, GAPS),
        )?;
    }
    Ok(())
}
