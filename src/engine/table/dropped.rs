//! Columns that a person has dropped for all devices: a declaration of its own kind, which travels with every state.
//!
//! **Invariant.** A column is dropped for all as long as nobody who had heard of that has announced a table with it. So it
//! can be added again, and a device that had not heard of it brings it back nowhere.

use std::collections::BTreeSet;

use packmule_core::wire::{DefId, SchemaBits};

use crate::engine::error::Result;
use crate::engine::store::value;
use crate::engine::table::declared::{self, Subject};
use crate::engine::table::def::TableDef;
use crate::engine::table::replica::Replica;
use crate::engine::table::{left, renamed};

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

/// What a device announced of a table, as to one column.
struct Said {
    dev: i64,
    lamport: u64,
    has: bool,
    /// Under how many of the names that the column has or had it has one: one that was renamed is there under another name.
    forms: usize,
    /// Others wait until this device does as they do.
    decides: bool,
    /// It was set back to a backup: what it lacks now was not dropped.
    set_back: bool,
}

/// Returns the Lamport time from which on what is written to a column counts, if devices had a column of this name before
/// and dropped it; the highest if nobody has added it again.
///
/// A device that lacks what it has had by its own log has not dropped it, if another keeps it: that would wait for the other.
/// It was set back, or copied, and its application has not added the column yet.
pub(crate) fn counts_from(replica: &Replica, tid: i64, name: &str) -> Result<Option<u64>> {
    let mut latest: Option<u64> = value::maybe(
        &replica.db,
        "SELECT max(lamport) FROM _pm_declared WHERE tid = ?1 AND what = ?2 AND name = ?3 HAVING count(*) > 0",
        (tid, Subject::Dropped, name.to_ascii_lowercase()),
    )?;
    let said = said_of(replica, tid, name)?;
    let gone = |pair: &&[Said]| {
        let (before, after) = (&pair[0], &pair[1]);
        before.dev == after.dev && before.has && !after.has && !after.set_back && before.forms > after.forms
    };
    let gone: Vec<&Said> = said.windows(2).filter(gone).map(|pair| &pair[1]).collect();
    if !gone.is_empty() {
        let left = left::left(replica)?;
        latest = latest
            .max(gone.iter().filter(|gone| !is_kept(&said, &left, gone)).map(|gone| gone.lamport).max());
    }
    let having = said.iter().filter(|said| said.has).map(|said| said.lamport);
    Ok(latest.map(|at| having.filter(|lamport| *lamport > at).min().unwrap_or(u64::MAX)))
}

/// Returns whether a device on which others wait has a column all along that another announces to be gone (`gone`).
fn is_kept(said: &[Said], left: &BTreeSet<i64>, gone: &Said) -> bool {
    said.chunk_by(|a, b| a.dev == b.dev).any(|of| {
        let at = of.partition_point(|said| said.lamport <= gone.lamport);
        of[0].dev != gone.dev
            && !left.contains(&of[0].dev)
            && at > 0
            && of[at - 1].decides
            && of[at - 1..].iter().all(|said| said.has)
    })
}

/// Returns what devices have announced as to a column, device by device, in the order in which each did.
fn said_of(replica: &Replica, tid: i64, name: &str) -> Result<Vec<Said>> {
    let mut names = renamed::names_of(replica, tid, name)?;
    names.push(name.to_ascii_lowercase());
    let mut statement = replica.db.prepare_cached(
        "SELECT p.dev, p.lamport, f.body, p.value, p.dev = ?3 OR (NOT d.retired AND d.trust <> 3) FROM _pm_declared p
         JOIN _pm_def f ON f.id = p.def JOIN _pm_device d ON d.n = p.dev
         WHERE p.tid = ?1 AND p.what = ?2 ORDER BY p.dev, p.seq",
    )?;
    let mut rows = statement.query((declared::root_of(replica, tid), Subject::Shape, replica.me))?;
    let mut said = Vec::new();
    while let Some(row) = rows.next()? {
        let (body, value): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        let def = TableDef::stored(&body)?;
        if !renamed::is_of(replica, tid, &def)? {
            continue;
        }
        let bits = declared::bits_of(&value);
        let counts = !bits.says(SchemaBits::FOLLOWS) && !bits.says(SchemaBits::LEFT);
        said.push(Said {
            dev: row.get(0)?,
            lamport: row.get(1)?,
            has: def.column(name).is_some(),
            forms: names.iter().filter(|name| def.column(name).is_some()).count(),
            decides: counts && row.get(4)?,
            set_back: bits.says(SchemaBits::SET_BACK),
        });
    }
    Ok(said)
}
