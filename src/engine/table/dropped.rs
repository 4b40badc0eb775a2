//! Columns that a person has dropped for all devices: a declaration of its own kind, which travels with every state.
//!
//! **Invariant.** A column is dropped for all as long as nobody who had heard of that has announced a table with it. So it
//! can be added again, and a device that had not heard of it brings it back nowhere.

use packmule_core::wire::DefId;

use crate::engine::error::Result;
use crate::engine::store::value;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::renamed;
use crate::engine::table::replica::Replica;

/// Records that a person has dropped a column for all devices.
pub(crate) fn record_dropped(
    replica: &Replica,
    tid: i64,
    place: (i64, u64, u64),
    id: DefId,
    name: &str,
) -> Result<()> {
    declared::record(replica, tid, (Subject::Dropped, &name.to_ascii_lowercase()), place, &[], id)
}

/// Returns whether a person has dropped a column for all devices, and nobody has added it again.
pub(crate) fn is_dropped(replica: &Replica, tid: i64, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3 AND NOT past LIMIT 1";
    let params = (tid, Subject::Dropped, name.to_ascii_lowercase());
    Ok(replica.db.prepare_cached(sql)?.exists(params)?)
}

/// Records that a definition has columns again that its author knew to be dropped. `had_seen` says which frames it knew.
pub(crate) fn record_again(
    replica: &Replica,
    tid: i64,
    def: &TableDef,
    had_seen: &dyn Fn(i64, u64) -> bool,
) -> Result<()> {
    let dropped = replica
        .db
        .prepare_cached("SELECT name, dev, seq FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND NOT past")?
        .query_map((tid, Subject::Dropped), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<(String, i64, u64)>>>()?;
    for (name, dev, seq) in dropped {
        if def.column(&name).is_some() && had_seen(dev, seq) {
            replica
                .db
                .prepare_cached(
                    "UPDATE _pm_declared SET past = 1
                     WHERE tid = ?1 AND what = ?2 AND name = ?3 AND dev = ?4 AND seq = ?5",
                )?
                .execute((tid, Subject::Dropped, name, dev, seq))?;
        }
    }
    Ok(())
}

/// Returns the Lamport time from which on what is written to a column counts, if devices had a column of this name before
/// and dropped it; the highest if nobody has added it again.
pub(crate) fn counts_from(replica: &Replica, tid: i64, name: &str) -> Result<Option<u64>> {
    let dropped: Option<u64> = value::maybe(
        &replica.db,
        "SELECT max(lamport) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3 HAVING count(*) > 0",
        (tid, Subject::Dropped, name.to_ascii_lowercase()),
    )?;
    let mut names = renamed::names_of(replica, tid, name)?;
    names.push(name.to_ascii_lowercase());
    let mut statement = replica.db.prepare_cached(
        "SELECT p.dev, p.lamport, f.body, p.value FROM _pm_declared p JOIN _pm_def f ON f.id = p.def
         WHERE p.tid = ?1 AND p.what = ?2 ORDER BY p.dev, p.seq",
    )?;
    let mut rows = statement.query((declared::root_of(replica, tid), Subject::Shape))?;
    let (mut latest, mut having) = (dropped, Vec::new());
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (dev, lamport, body): (i64, u64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let def = TableDef::stored(&body)?;
        if !renamed::is_of(replica, tid, &def)? {
            continue;
        }
        let has = def.column(name).is_some();
        // One that was renamed is there under another name.
        let forms = names.iter().filter(|name| def.column(name).is_some()).count();
        if has {
            having.push(lamport);
            // A device that was held with a column never wrote to it: that it has it no more is no drop. So says one that was
            // copied, when the copy's application has not added the column yet.
            if !declared::takes_part(Subject::Shape as i64, &row.get::<_, Vec<u8>>(3)?) {
                continue;
            }
        } else if last.is_some_and(|(of, had, before)| of == dev && had && before > forms) {
            latest = latest.max(Some(lamport));
        }
        last = Some((dev, has, forms));
    }
    Ok(latest.map(|at| having.into_iter().filter(|lamport| *lamport > at).min().unwrap_or(u64::MAX)))
}
