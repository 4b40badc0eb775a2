//! Stretches of heads, found, begun, divided.
//!
//! **Invariant.** A row that is in a stretch has that one head, and none in `_pm_head`; no two stretches of a table have a
//! row in common. Which of two ways a head is remembered says nothing: whoever reads heads by `heads.rs`, from the
//! view `_pm_any_head`, or of one table from [`heads_of_table`], sees the same.
//!
//! Only whole versions of rows with one integer as their key are in stretches, of tables that merge by row and have no
//! counters: so nothing else is remembered of such a row, and its op is found by its key.
//!
//! While ops are registered one after the other ([`gathering`]) the stretch that grows is at hand and is written at its
//! end, and so is what was found out of where nothing is: to find that a row has no heads costs nothing then. Whatever
//! looks into `_pm_head` or `_pm_stretch` by itself must not be within.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row};

use crate::engine::error::{Error, Result};
use crate::engine::merge::kind::Kind;
use crate::engine::store::{layout, value};
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;
use crate::engine::table::stretch::Stretch;

/// Runs `work`, which registers ops. What it left at hand is written, or forgotten if it fails.
pub(crate) fn gathering<R>(replica: &Replica, work: impl FnOnce() -> Result<R>) -> Result<R> {
    replica.stretches.forget();
    replica.stretches.gathers.set(true);
    let result = work().and_then(|result| write_open(replica).map(|()| result));
    replica.stretches.forget();
    result
}

/// Writes what is at hand: what follows looks into the database by itself.
pub(crate) fn pause(replica: &Replica) -> Result<()> {
    write_open(replica)?;
    let gathers = replica.stretches.gathers.get();
    replica.stretches.forget();
    replica.stretches.gathers.set(gathers);
    Ok(())
}

/// Writes the stretch that grows.
fn write_open(replica: &Replica) -> Result<()> {
    match replica.stretches.open.take() {
        Some(open) => {
            replica.stretches.free.set(None);
            put(replica, &open)
        }
        None => Ok(()),
    }
}

fn put(replica: &Replica, of: &Stretch) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_stretch (tid, last, first, dev, seq, claim, wall, kind)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((of.tid, of.last, of.first, of.dev, of.seq, of.claim, of.wall, Kind(of.kind, false)))?;
    Ok(())
}

/// Reads a stretch from a query of [`COLUMNS`]. One that no frame has is damage: who goes through it would not end.
fn read(row: &Row<'_>) -> rusqlite::Result<Stretch> {
    let Kind(kind, _) = row.get(7)?;
    let (last, first): (i64, i64) = (row.get(1)?, row.get(2)?);
    if !last.checked_sub(first).is_some_and(|more| (0..layout::ROWS_MAX).contains(&more)) {
        let cause = Error::damaged(format!("`_pm_stretch` goes from {first} to {last}"));
        return Err(rusqlite::Error::FromSqlConversionFailure(1, Type::Integer, cause));
    }
    Ok(Stretch {
        tid: row.get(0)?,
        last,
        first,
        dev: row.get(3)?,
        seq: row.get(4)?,
        claim: row.get(5)?,
        wall: row.get(6)?,
        kind,
    })
}

const COLUMNS: &str = "tid, last, first, dev, seq, claim, wall, kind";

/// Finds the stretch that a row is in.
pub(crate) fn find(replica: &Replica, tid: i64, key: i64) -> Result<Option<Stretch>> {
    let at_hand = &replica.stretches;
    if let Some(open) = at_hand.open.get().filter(|open| open.has(tid, key)) {
        return Ok(Some(open));
    }
    let free = at_hand.free.get();
    if free.is_some_and(|(of, from, to)| of == tid && (from..=to).contains(&key)) {
        return Ok(None);
    }
    let next = replica
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM _pm_stretch WHERE tid = ?1 AND last >= ?2 ORDER BY last LIMIT 1"
        ))?
        .query_row((tid, key), read)
        .optional()?;
    if let Some(found) = next.filter(|next| next.first <= key) {
        return Ok(Some(found));
    }
    if at_hand.gathers.get() {
        at_hand.free.set(Some((tid, key, next.map_or(i64::MAX, |next| next.first - 1))));
    }
    Ok(None)
}

/// Returns whether a row of a table that is in no stretch may have heads.
pub(crate) fn may_be_loose(replica: &Replica, tid: i64) -> Result<bool> {
    let at_hand = &replica.stretches;
    if !at_hand.gathers.get() {
        return Ok(true);
    }
    if let Some((of, any)) = at_hand.loose.get()
        && of == tid
    {
        return Ok(any);
    }
    let any = value::maybe::<i64>(&replica.db, "SELECT 1 FROM _pm_head WHERE tid = ?1 LIMIT 1", [tid])?;
    at_hand.loose.set(Some((tid, any.is_some())));
    Ok(any.is_some())
}

/// Adds a row after those that were added before.
pub(crate) fn add(replica: &Replica, one: Stretch) -> Result<()> {
    match replica.stretches.open.get() {
        Some(open) if open.is_continued_by(&one) => {
            replica.stretches.open.set(Some(Stretch { last: one.last, ..open }));
        }
        _ => {
            write_open(replica)?;
            replica.stretches.open.set(Some(one));
        }
    }
    if replica.stretches.gathers.get() { Ok(()) } else { write_open(replica) }
}

/// Takes a row out of its stretch: its head is forgotten. Returns the stretch as it was, if there was one.
pub(crate) fn take_out(replica: &Replica, tid: i64, key: i64) -> Result<Option<Stretch>> {
    let Some(found) = find(replica, tid, key)? else { return Ok(None) };
    if replica.stretches.open.get() == Some(found) {
        write_open(replica)?;
    }
    let (db, of) = (&replica.db, (tid, found.last));
    if found.first == key && found.last > key {
        db.prepare_cached("UPDATE _pm_stretch SET first = first + 1 WHERE tid = ?1 AND last = ?2")?
            .execute(of)?;
        return Ok(Some(found));
    }
    db.prepare_cached("DELETE FROM _pm_stretch WHERE tid = ?1 AND last = ?2")?.execute(of)?;
    if found.first < key {
        put(replica, &Stretch { last: key - 1, ..found })?;
    }
    if found.last > key {
        put(replica, &Stretch { first: key + 1, ..found })?;
    }
    Ok(Some(found))
}

/// Makes the head of a row in a stretch one of its own, in `_pm_head`: it is to be changed, or another stands beside it.
pub(crate) fn loosen(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    let Some(integer) = value::integer_key(key) else { return Ok(()) };
    let Some(of) = take_out(replica, tid, integer)? else { return Ok(()) };
    replica.stretches.loose.set(Some((tid, true)));
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_head (tid, key, dev, seq, place, claim, wall, kind, columns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)",
        )?
        .execute((tid, key, of.dev, of.seq, OpPlace::BY_KEY, of.claim, of.wall, Kind(of.kind, false)))?;
    Ok(())
}

/// Makes all heads in stretches, of one table or of all, heads of their own: many of them are to be changed.
pub(crate) fn spread(replica: &Replica, tid: Option<i64>) -> Result<()> {
    pause(replica)?;
    let only = "WHERE tid = coalesce(?1, tid)";
    let heads = layout::heads_in_stretches(only);
    replica.db.execute(
        &format!("INSERT INTO _pm_head (tid, key, dev, seq, place, claim, wall, kind, columns) {heads}"),
        [tid],
    )?;
    replica.db.execute(&format!("DELETE FROM _pm_stretch {only}"), [tid])?;
    Ok(())
}

/// Returns what stands for the heads of the table `?1` in a FROM. The view goes through the stretches of all tables.
pub(crate) fn heads_of_table() -> String {
    format!("({})", layout::all_heads("WHERE tid = ?1"))
}

/// Takes the rows of tables with such columns as `tid` and `key` out of their stretches: they are kept when the stretch
/// is forgotten.
pub(crate) fn loosen_listed(replica: &Replica, list: &str) -> Result<()> {
    let sql = format!(
        "SELECT l.tid, l.key FROM {list} l WHERE (l.tid, l.key) > (?1, ?2)
           AND +l.tid IN (SELECT tid FROM _pm_stretch) ORDER BY l.tid, l.key"
    );
    value::each_listed(&replica.db, &sql, i64::MIN, &mut |tid, key| loosen(replica, tid, key))
}

/// Which stretches are meant: a condition on `_pm_stretch AS s`, and its parameters.
pub(crate) struct Chosen<'c> {
    pub only: &'c str,
    pub of: &'c [(&'c str, &'c dyn rusqlite::ToSql)],
}

/// Gives each of these stretches.
pub(crate) fn each(
    replica: &Replica,
    chosen: &Chosen<'_>,
    each: &mut dyn FnMut(&Stretch) -> Result<()>,
) -> Result<()> {
    let sql = format!("SELECT {COLUMNS} FROM _pm_stretch AS s WHERE {} ORDER BY tid, last", chosen.only);
    let mut statement = replica.db.prepare(&sql)?;
    let mut rows = statement.query(chosen.of)?;
    while let Some(row) = rows.next()? {
        each(&read(row)?)?;
    }
    Ok(())
}

/// Forgets all versions in these stretches. Returns how many.
pub(crate) fn forget(replica: &Replica, chosen: &Chosen<'_>) -> Result<u64> {
    let mut versions = 0_u64;
    each(replica, chosen, &mut |of| {
        versions = versions.saturating_add(of.last.abs_diff(of.first).saturating_add(1));
        Ok(())
    })?;
    replica.db.execute(&format!("DELETE FROM _pm_stretch AS s WHERE {}", chosen.only), chosen.of)?;
    Ok(versions)
}
