//! By which way each group in the log came here: for people. It decides nothing, is this device's own, and the oldest is
//! forgotten.

use packmule_core::model::{Stream, WallMs};
use rusqlite::OptionalExtension;

use crate::engine::error::Result;
use crate::engine::table::replica::Replica;
use crate::engine::table::route::Route;

/// So many stretches of groups are remembered.
const STRETCHES_MAX: i64 = 4_096;

/// Groups that follow one another within this time are one stretch.
const TOGETHER_MS: i64 = 60_000;

/// Remembers that a group has come, by the way that its carrier named.
pub(crate) fn note(replica: &Replica, dev: i64, stream: Stream, (first, last): (u64, u64)) -> Result<()> {
    // One that comes again came by the first way.
    if of(replica, dev, stream, first)?.is_some() {
        return Ok(());
    }
    let (db, route, now) = (&replica.db, replica.route.get().number(), replica.now());
    let longer = db
        .prepare_cached(
            "UPDATE OR REPLACE _pm_route SET last = ?4 WHERE dev = ?1 AND stream = ?2 AND last = ?3 AND route = ?5
               AND heard BETWEEN ?6 AND ?7",
        )?
        .execute((
            dev,
            stream.number(),
            first.saturating_sub(1),
            last,
            route,
            now.saturating_sub(TOGETHER_MS),
            now,
        ))?;
    if longer == 0 {
        db.prepare_cached(
            "INSERT OR REPLACE INTO _pm_route (dev, stream, first, last, route, heard) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((dev, stream.number(), first, last, route, now))?;
        db.prepare_cached("DELETE FROM _pm_route WHERE n <= (SELECT max(n) FROM _pm_route) - ?1")?
            .execute([STRETCHES_MAX])?;
    }
    Ok(())
}

/// Forgets how what comes after a frame of a stream came: it is given up, and other frames come in its place.
pub(crate) fn forget_after(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<()> {
    for sql in [
        "DELETE FROM _pm_route WHERE dev = ?1 AND stream = ?2 AND first > ?3",
        "UPDATE OR REPLACE _pm_route SET last = ?3 WHERE dev = ?1 AND stream = ?2 AND last > ?3",
    ] {
        replica.db.prepare_cached(sql)?.execute((dev, stream.number(), seq))?;
    }
    Ok(())
}

/// Returns by which way a frame came here, and when, if that is known.
pub(crate) fn of(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Option<(Route, WallMs)>> {
    let found: Option<(i64, u64, WallMs)> = replica
        .db
        .prepare_cached(
            "SELECT route, first, heard FROM _pm_route WHERE dev = ?1 AND stream = ?2 AND last >= ?3 ORDER BY last LIMIT 1",
        )?
        .query_row((dev, stream.number(), seq), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(found
        .filter(|(_, first, _)| *first <= seq)
        .and_then(|(route, _, at)| Some((Route::of_number(route)?, at))))
}
