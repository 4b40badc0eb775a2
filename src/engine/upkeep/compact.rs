//! Compaction: what every device of the fleet has is folded away.
//!
//! A frame is *stable* when every device that is not retired has acknowledged it, and all that those
//! devices had sealed before they did is here. Whatever they write from then on has it in its
//! context. So the versions of a row can be forgotten once all of them are stable and nothing is
//! open about the row, and a group once no version is remembered in it. Up to where each stream was
//! folded is its *floor*: a group whose author had not seen that far cannot be merged any more, and
//! its author starts anew from a snapshot.

use packmule_core::model::{DeviceId, Stream};
use rusqlite::named_params;

use crate::engine::apply::pending;
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{adopt, seal};
use crate::engine::conflicts::list::{self, ConflictKind};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::transaction;
use crate::engine::fleet::devices;
use crate::engine::fleet::membership::{self, FORGET};
use crate::engine::merge::deferred;
use crate::engine::show::{constraints, references};
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::declared::{DISPUTED_TABLES, Subject};
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Frames that were folded away.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Versions of rows that were forgotten.
    pub versions: u64,
    /// Frames that stay in the log.
    pub frames_left: u64,
    /// The device that holds back the most frames, and how many.
    pub held_back_by: Option<(String, u64)>,
}

/// Folds away what every device that is not retired has; the digest stays as it is.
///
/// Says in the log what this device has seen, if it has not said so yet: others can fold that
/// once they hear of it.
pub(crate) fn compact(replica: &mut Replica) -> Result<CompactReport> {
    transaction::transaction(replica, |e| {
        deferred::begin_deferring(e)?;
        seal::seal_here(e, SealOptions::default())?;
        if meta::get::<bool>(&e.db, "unanswered")? == Some(true) {
            seal::seal_here(e, SealOptions { acknowledge: true, ..SealOptions::default() })?;
        }
        fold(e)
    })
}

fn fold(replica: &Replica) -> Result<CompactReport> {
    let mut report = CompactReport::default();
    let (before, bytes): (u64, u64) = log_size(replica)?;
    for dev in membership::known_authors(replica)? {
        for stream in Stream::ALL {
            let stable = membership::stable(replica, dev, stream)?;
            replica
                .db
                .prepare_cached(
                    "INSERT INTO _pm_floor (dev, stream, seq) VALUES (?1, ?2, ?3)
                     ON CONFLICT (dev, stream) DO UPDATE SET seq = max(seq, excluded.seq)",
                )?
                .execute((dev, stream.number(), stable))?;
        }
    }
    // Who wrote the rows of a conflict is listed as long as it is open, also of the one that is shown;
    // and should a row come in that is kept out, it must be known who claimed a value first.
    replica.db.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS _pm_open (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
         DELETE FROM temp._pm_open",
    )?;
    for open in list::open_list(replica)? {
        let kept_out = matches!(open.conflict.kind, ConflictKind::Unique(_) | ConflictKind::Check(_));
        let clashes = if kept_out {
            constraints::conflicting_rows(replica, &*catalog::table(replica, open.tid)?, &open.key)?
        } else {
            Vec::new()
        };
        for key in [open.key].into_iter().chain(open.blocking).chain(clashes) {
            replica
                .db
                .prepare_cached("INSERT OR IGNORE INTO temp._pm_open (tid, key) VALUES (?1, ?2)")?
                .execute((open.tid, key))?;
        }
    }
    report.versions = replica.db.execute(
        &format!("DELETE {FORGET} AND h.tid NOT IN ({DISPUTED_TABLES})"),
        named_params! {
            ":tracked": State::Tracked,
            ":shared": Stream::Shared.number(),
            ":column": Subject::Column,
        },
    )? as u64;
    replica.db.execute(
        &format!(
            "DELETE FROM _pm_count AS h WHERE h.tid NOT IN ({DISPUTED_TABLES}) AND NOT EXISTS (
            SELECT 1 FROM _pm_count o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = :shared
            WHERE o.tid = h.tid AND o.key = h.key AND o.seq > coalesce(f.seq, 0))"
        ),
        named_params! { ":shared": Stream::Shared.number(), ":column": Subject::Column },
    )?;
    replica.db.execute(
        "DELETE FROM _pm_image AS i WHERE NOT EXISTS (
            SELECT 1 FROM _pm_head h WHERE h.tid = i.tid AND h.key = i.key AND h.dev = 0)",
        [],
    )?;
    // Rows of per-device tables that wait for their table are in no index: their frames stay.
    let waiting: bool = replica.db.query_row(
        "SELECT EXISTS (SELECT 1 FROM _pm_table WHERE state IN (0, 3, 4))",
        [],
        |row| row.get(0),
    )?;
    let mut groups = replica.db.prepare(
        "SELECT g.dev, g.stream, g.first, g.last FROM _pm_group g
         JOIN _pm_floor f ON f.dev = g.dev AND f.stream = g.stream AND g.last <= f.seq
         WHERE g.applied AND (g.stream = 0 OR NOT ?1) AND NOT EXISTS (
            SELECT 1 FROM _pm_head h WHERE g.stream = 0 AND h.dev = g.dev AND h.seq BETWEEN g.first AND g.last)",
    )?;
    replica.db.execute_batch("CREATE INDEX IF NOT EXISTS _pm_head_place ON _pm_head (dev, seq)")?;
    let folded = groups
        .query_map([waiting], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<Vec<(i64, i64, u64, u64)>>>()?;
    drop(groups);
    replica.db.execute_batch("DROP INDEX _pm_head_place")?;
    pending::drop_re_authored(replica)?;
    for (dev, stream, first, last) in folded {
        replica
            .db
            .prepare_cached("DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq BETWEEN ?3 AND ?4")?
            .execute((dev, stream, first, last))?;
        replica
            .db
            .prepare_cached("DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3")?
            .execute((dev, stream, last))?;
    }
    references::forget_references(replica)?;
    adopt::remember_schema(replica)?;
    let (after, bytes_left) = log_size(replica)?;
    report.frames = before - after;
    report.bytes = bytes - bytes_left;
    report.frames_left = after;
    report.held_back_by = membership::held_back_by(replica)?;
    Ok(report)
}

fn log_size(replica: &Replica) -> Result<(u64, u64)> {
    Ok(replica.db.query_row("SELECT count(*), coalesce(sum(length(body)), 0) FROM _pm_frame", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?)
}

/// Says that a device will not come back: the log waits for it no longer, once all others know.
/// It travels. Take in its last bundle first: what others fold away without it, it cannot be
/// merged with any more. Should it come back, it joins anew.
pub(crate) fn retire(replica: &mut Replica, id: DeviceId) -> Result<()> {
    transaction::transaction(replica, |e| {
        let dev = devices::device_number_or_new(e, id)?;
        if dev == e.me {
            return Err(Error::Usage("a device cannot retire itself: retire it on another one".into()));
        }
        deferred::begin_deferring(e)?;
        seal::seal_here(e, SealOptions::default())?;
        seal::seal_here(e, SealOptions { retire: Some(id), ..SealOptions::default() })?;
        Ok(())
    })
}
