//! Columns that were renamed: what a name in an older definition means.
//!
//! A device that announces a renamed column says what it was called before: a declaration of its own kind, which is never
//! superseded and travels with every state.

use packmule_core::wire::DefId;

use crate::engine::error::Result;
use crate::engine::table::declared::Subject;
use crate::engine::table::def::TableDef;
use crate::engine::table::dropped;
use crate::engine::table::replica::Replica;

/// Records what a device says of a column: that it was renamed, or that a person has dropped it for all.
pub(crate) fn record_said(
    replica: &Replica,
    tid: i64,
    place: (i64, u64, u64),
    id: DefId,
    (before, after): (&str, &str),
) -> Result<()> {
    match after {
        "" => dropped::record_dropped(replica, tid, place, id, before),
        after => record_renamed(replica, tid, place, id, (before, after)),
    }
}

/// Records that a device says of a column that it was renamed.
fn record_renamed(
    replica: &Replica,
    tid: i64,
    (dev, seq, lamport): (i64, u64, u64),
    id: DefId,
    (before, after): (&str, &str),
) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO _pm_declared (tid, what, name, dev, seq, lamport, value, past, def)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
        )?
        .execute((
            tid,
            Subject::Renamed,
            before.to_ascii_lowercase(),
            dev,
            seq,
            lamport,
            after.to_ascii_lowercase().as_bytes(),
            id.0,
        ))?;
    Ok(())
}

/// Returns the other names that a column has or had, in small letters.
pub(crate) fn names_of(replica: &Replica, tid: i64, name: &str) -> Result<Vec<String>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT CAST(value AS TEXT) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3
         UNION SELECT name FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND value = CAST(?3 AS BLOB) ORDER BY 1",
    )?;
    let mut names = vec![name.to_ascii_lowercase()];
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        let found = statement.query_map((tid, Subject::Renamed, name), |row| row.get(0))?;
        for other in found.collect::<rusqlite::Result<Vec<String>>>()? {
            if !names.contains(&other) {
                names.push(other);
            }
        }
        at += 1;
    }
    names.remove(0);
    Ok(names)
}

/// Gives the columns of a definition the names that they have in `now`, where they were renamed.
pub(crate) fn as_now(replica: &Replica, tid: i64, def: &mut TableDef, now: &TableDef) -> Result<()> {
    for at in 0..def.columns.len() {
        if now.column(&def.columns[at].name).is_some() {
            continue;
        }
        for name in names_of(replica, tid, &def.columns[at].name)? {
            if let (Some(here), None) = (now.column(&name), def.column(&name)) {
                def.columns[at].name.clone_from(&now.columns[here].name);
                break;
            }
        }
    }
    Ok(())
}
