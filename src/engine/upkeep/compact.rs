//! Compaction: what every device has is folded out of the log.
//!
//! **Invariant 1.** Tables, open conflicts and digest are the same before and after.
//!
//! **Invariant 2.** No version is forgotten that a write still to come could be concurrent with: a write of a device
//! that is known here and not retired.
//!
//! **Why the second holds.** A frame is *stable* when every such device has acknowledged it, and all that this device
//! had sealed before it acknowledged the frame is applied here. Whatever that device seals from then on has the frame
//! in its context. So a later write dominates it, and is never its sibling. The heads of a row are forgotten all
//! together or not at all, once every one is stable; from then on the row in its table stands for them. A group leaves
//! the log once it is stable and no head is in it. Up to where a stream was stable is its *watermark* (`_pm_floor`),
//! which only rises.
//!
//! **Why the first holds.** What is still needed to list the same conflicts is kept: the heads of rows in conflict, of
//! quarantined rows, of the rows that those clash with (the row that claimed first must stay known), of rows of which a
//! verdict that is not stable yet says what stays, of tables with a disputed column, and of suspended tables. What may be
//! forgotten here and be known elsewhere decides nothing: see `merge/versions.rs` (decisive heads), `show/references.rs`
//! (whom an orphan is attributed to) and `capture/declare.rs` (claims from before a UNIQUE).
//!
//! **What it makes unknowable.** The context of a device that was not waited for (a newcomer with rows of its own, a
//! retired device that returns, one of which nobody here had heard) may not cover the watermark. What its writes meet is
//! then kept as it is, and a verdict puts that into the log (`merge/late.rs`, `capture/verdict.rs`). Folding stays a
//! private act: it decides about nothing. A per-device stream waits for bases alone.

use packmule_core::model::{DeviceId, Stream, WallMs};
use rusqlite::named_params;

use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{adopt, follow, runs, seal, verdict};
use crate::engine::conflicts::list::ConflictKind;
use crate::engine::conflicts::{children, walk};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::{merge_settled, revoke, transaction};
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::fleet::membership::{self, FORGET};
use crate::engine::fleet::{gaps, revocation};
use crate::engine::log::{frames, tags};
use crate::engine::merge::deferred;
use crate::engine::merge::folds::{self, Fold};
use crate::engine::merge::kind::{DELETE, WEAK};
use crate::engine::merge::stretches::{self, Chosen};
use crate::engine::show::{constraints, references};
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::keys::FleetKey;
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::declared::{DISPUTED_TABLES, Subject};
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// How far ahead of this device's clock a group is not believed to have been sealed just now: a day.
const CLOCK_AHEAD: i64 = 86_400_000;

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompactReport {
    /// Frames that were folded.
    #[cfg_attr(feature = "serde", serde(rename = "frames_folded"))]
    pub frames: u64,
    /// Their bytes.
    #[cfg_attr(feature = "serde", serde(rename = "bytes_folded"))]
    pub bytes: u64,
    /// Versions of rows that were forgotten.
    #[cfg_attr(feature = "serde", serde(rename = "versions_forgotten"))]
    pub versions: u64,
    /// Frames that stay in the log.
    pub frames_left: u64,
    /// The device that holds back the most frames, and how many.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::held_back_by"))]
    pub held_back_by: Option<(String, u64)>,
}

/// Folds away what every device that is not retired has, but what was sealed from `kept` on, by its author's clock; the
/// digest stays as it is.
///
/// Seals an acknowledgement-only group first, if what this device has seen is not in the log yet: others can fold
/// that once they hear of it.
pub(crate) fn compact(replica: &mut Replica, kept: Option<WallMs>) -> Result<CompactReport> {
    transaction::transaction(replica, |e| compact_here(e, kept))
}

/// Says what [`compact`] would do.
pub(crate) fn rehearse(replica: &mut Replica, kept: Option<WallMs>) -> Result<CompactReport> {
    transaction::rehearse(replica, |e| compact_here(e, kept))
}

fn compact_here(replica: &Replica, kept: Option<WallMs>) -> Result<CompactReport> {
    deferred::begin_deferring(replica)?;
    seal::seal_here(replica, SealOptions::default())?;
    verdict::seal_verdict(replica)?;
    if meta::get::<bool>(&replica.db, "unanswered")? == Some(true) {
        seal::seal_here(replica, SealOptions { acknowledge: true, ..SealOptions::default() })?;
    }
    fold(replica, kept)
}

/// Folds what is stable, and older than what is `kept`.
fn fold(replica: &Replica, kept: Option<WallMs>) -> Result<CompactReport> {
    let mut report = CompactReport::default();
    let (before, bytes): (u64, u64) = log_size(replica)?;
    let fold = folds::begin(replica)?;
    raise_floors(replica, kept)?;
    remember_wall(replica)?;
    keep_open_rows(replica)?;
    keep_marked_rows(replica)?;
    keep_waiting_columns(replica)?;
    report.versions = forget_versions(replica, fold)?;
    runs::refresh_all(replica)?;
    drop_groups(replica)?;
    references::forget_references(replica)?;
    adopt::remember_schema(replica)?;
    let (after, bytes_left) = log_size(replica)?;
    report.frames = before - after;
    report.bytes = bytes - bytes_left;
    report.frames_left = after;
    report.held_back_by = membership::held_back_by(replica)?;
    Ok(report)
}

/// Raises the watermark of every stream to what is stable of it and not `kept`.
fn raise_floors(replica: &Replica, kept: Option<WallMs>) -> Result<()> {
    let kept = kept.map_or(Ok(None), |from| first_kept(replica, from))?;
    for stream in Stream::ALL {
        for (dev, stable) in membership::stable(replica, stream)? {
            // What fills a gap is followed by what came after it.
            if stream == Stream::PerDevice && gaps::to_be_filled(replica, dev)?.is_some() {
                continue;
            }
            let last = kept.map_or(Ok(stable), |place| last_before(replica, (dev, stream), place))?;
            membership::raise_floor(replica, dev, stream, stable.min(last))?;
        }
    }
    Ok(())
}

/// Returns the place in the causal order of the first group that was sealed from a time on, by its author's clock, if any
/// was: what comes before it is causally closed, whatever clocks say. One that is far ahead keeps nothing.
fn first_kept(replica: &Replica, from: WallMs) -> Result<Option<u64>> {
    let ahead = replica.now().saturating_add(CLOCK_AHEAD);
    let sql = "SELECT min(lamport) FROM _pm_group WHERE wall BETWEEN ?1 AND ?2";
    Ok(replica.db.query_row(sql, (from, ahead), |row| row.get(0))?)
}

/// Returns the last frame of a stream before a place in the causal order.
fn last_before(replica: &Replica, (dev, stream): (i64, Stream), lamport: u64) -> Result<u64> {
    let sql = "SELECT min(first) - 1 FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND lamport >= ?3";
    let mut first = replica.db.prepare_cached(sql)?;
    let last: Option<u64> = first.query_row((dev, stream.number(), lamport), |row| row.get(0))?;
    Ok(last.unwrap_or(u64::MAX))
}

/// Remembers the latest wall time of what is folded: a settled value can be as late.
fn remember_wall(replica: &Replica) -> Result<()> {
    let latest: Option<i64> = replica.db.query_row(
        "SELECT max(g.wall) FROM _pm_group g JOIN _pm_floor f ON f.dev = g.dev AND f.stream = g.stream
         WHERE g.stream = ?1 AND g.applied AND g.last <= f.seq",
        [Stream::Shared.number()],
        |row| row.get(0),
    )?;
    let before = meta::get::<i64>(&replica.db, "folded_wall")?;
    match latest.max(before) {
        Some(wall) if Some(wall) != before => meta::set(&replica.db, "folded_wall", wall),
        _ => Ok(()),
    }
}

/// Lists in `_pm_open` the rows whose versions must stay known: the rows of open conflicts, also the shown ones,
/// since their authors are listed, and the rows that a quarantined row clashes with, since it must be known which
/// of them claimed a value first.
fn keep_open_rows(replica: &Replica) -> Result<()> {
    replica.db.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS _pm_open (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
         DELETE FROM temp._pm_open",
    )?;
    keep_children(replica)?;
    walk::each(replica, &mut |open| {
        let quarantined = matches!(open.conflict.kind, ConflictKind::Unique(_) | ConflictKind::Check(_));
        let clashes = if quarantined {
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
        Ok(())
    })
}

/// Lists in `_pm_open` the rows of which a verdict that is not stable yet says what stays: whoever has not seen it may still
/// have what it removed, and a settled value would not tell that it is gone.
fn keep_marked_rows(replica: &Replica) -> Result<()> {
    let stable = membership::floors(replica)?.into_iter().collect();
    let mut keep =
        replica.db.prepare_cached("INSERT OR IGNORE INTO temp._pm_open (tid, key) VALUES (?1, ?2)")?;
    merge_settled::each_marked(replica, &stable, &mut |tid, key| {
        keep.execute((tid, key))?;
        Ok(())
    })
}

/// Lists in `_pm_unfoldable` the tables that lack columns which others write into, here or elsewhere: what was written into
/// them is in the versions alone.
fn keep_waiting_columns(replica: &Replica) -> Result<()> {
    replica.db.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS _pm_unfoldable (tid INTEGER PRIMARY KEY); DELETE FROM temp._pm_unfoldable",
    )?;
    for table in catalog::tables(replica) {
        if !table.shows_shared() {
            continue;
        }
        let lacking = shapes::lacking_columns(replica, &table)?;
        if !lacking.is_empty() || !follow::waiting_columns(replica, &table)?.is_empty() {
            replica.db.execute("INSERT INTO temp._pm_unfoldable (tid) VALUES (?1)", [table.tid])?;
        }
    }
    Ok(())
}

/// Lists the rows that refer to a contested row: whoever keeps both of two must know who wrote them.
fn keep_children(replica: &Replica) -> Result<()> {
    children::of_contested(replica, |_, _, child, key| {
        replica
            .db
            .prepare_cached("INSERT OR IGNORE INTO temp._pm_open (tid, key) VALUES (?1, ?2)")?
            .execute((child.tid, key))?;
        Ok(())
    })
}

/// Forgets the versions of the rows whose versions are all stable and of which nothing is open, with what was
/// counted and the baseline versions of such rows. Lists these rows. Returns how many versions.
fn forget_versions(replica: &Replica, fold: Fold) -> Result<u64> {
    let unfoldable = format!("{DISPUTED_TABLES} UNION SELECT tid FROM temp._pm_unfoldable");
    let forgotten = format!("{FORGET} AND h.tid NOT IN ({unfoldable})");
    loosen_kept(replica)?;
    let only = stretches_to_forget(&unfoldable);
    let of = named_params! {
        ":tracked": State::Tracked,
        ":shared": Stream::Shared.number(),
        ":baseline": BASELINE,
        ":column": Subject::Column,
    };
    let stretches = Chosen {
        only: &only,
        of: named_params! {
            ":tracked": State::Tracked,
            ":shared": Stream::Shared.number(),
            ":column": Subject::Column,
        },
    };
    let mut keys = replica.db.prepare(&format!(
        "SELECT h.tid, h.key, max(h.kind IN ({DELETE}, {DELETE} + {WEAK})) {forgotten} GROUP BY h.tid, h.key"
    ))?;
    let mut settle = |tid, key: &[u8]| runs::touch(replica, &*catalog::table(replica, tid)?, key);
    let mut versions = if folds::list(replica, fold, keys.query(of)?, &stretches, &mut settle)? {
        let listed = "EXISTS (SELECT 1 FROM _pm_folded f WHERE f.tid = h.tid AND f.key = h.key AND f.n = ?1)";
        replica.db.execute(&format!("DELETE FROM _pm_head AS h WHERE {listed}"), [fold.0])?
    } else {
        replica.db.execute(&format!("DELETE {forgotten}"), of)?
    } as u64;
    versions += stretches::forget(replica, &stretches)?;
    replica.db.execute(
        &format!(
            "DELETE FROM _pm_count AS h WHERE h.tid NOT IN ({unfoldable}) AND NOT EXISTS (
            SELECT 1 FROM _pm_count o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = :shared
            WHERE o.tid = h.tid AND o.key = h.key AND o.seq > coalesce(f.seq, 0))
            AND NOT EXISTS (SELECT 1 FROM _pm_head o WHERE o.tid = h.tid AND o.key = h.key)"
        ),
        named_params! { ":shared": Stream::Shared.number(), ":column": Subject::Column },
    )?;
    replica.db.execute(
        "DELETE FROM _pm_image AS i WHERE NOT EXISTS (
            SELECT 1 FROM _pm_head h WHERE h.tid = i.tid AND h.key = i.key AND h.dev = ?1)",
        [BASELINE],
    )?;
    Ok(versions)
}

/// Takes what must stay known of single rows out of their stretches.
fn loosen_kept(replica: &Replica) -> Result<()> {
    // The heads of rows with counters are judged with what was counted.
    for table in catalog::tables(replica).iter().filter(|table| !table.counters.is_empty()) {
        stretches::spread(replica, Some(table.tid))?;
    }
    for list in ["_pm_conflict", "_pm_parked", "temp._pm_open"] {
        stretches::loosen_listed(replica, list)?;
    }
    Ok(())
}

/// Chooses the stretches of which all is stable, of tables that are not `unfoldable`.
fn stretches_to_forget(unfoldable: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM _pm_table t WHERE t.tid = s.tid AND t.state = :tracked)
         AND s.seq <= (SELECT f.seq FROM _pm_floor f WHERE f.dev = s.dev AND f.stream = :shared)
         AND s.tid NOT IN ({unfoldable})"
    )
}

/// A group that is stable and of which no version is remembered: device, stream, first frame and last.
type Folded = (i64, i64, u64, u64);

/// Drops the groups from the log that can leave it. One that says that a device is retired stays as long as that holds:
/// only frames say so, also to who gets a state.
fn drop_groups(replica: &Replica) -> Result<()> {
    // No index lists the pending rows of per-device tables, so all frames of such streams stay.
    let pending: bool = replica.db.query_row(
        "SELECT EXISTS (SELECT 1 FROM _pm_table t WHERE state IN (?1, ?2, ?3)
         AND name NOT LIKE '\\_pm\\_aside\\_%' ESCAPE '\\'
         AND NOT EXISTS (SELECT 1 FROM _pm_table m WHERE m.gathers = t.tid AND m.state = ?4))",
        [State::Known, State::Untracked, State::Suspended, State::Gathered],
        |row| row.get(0),
    )?;
    frames::note_heads(&replica.db)?;
    let mut last = (i64::MIN, i64::MIN, 0);
    loop {
        let groups = groups_to_fold(replica, pending, last)?;
        let Some((dev, stream, _, end)) = groups.last() else { break };
        last = (*dev, *stream, *end);
        groups.iter().try_for_each(|group| drop_group(replica, group))?;
    }
    frames::forget_noted_heads(&replica.db)?;
    tags::forget_oldest(replica)
}

/// Lists the next groups that can leave the log: a few, whatever its length.
fn groups_to_fold(replica: &Replica, pending: bool, last: (i64, i64, u64)) -> Result<Vec<Folded>> {
    let mut groups = replica.db.prepare_cached(
        "SELECT g.dev, g.stream, g.first, g.last FROM _pm_group g
         CROSS JOIN _pm_floor f ON f.dev = g.dev AND f.stream = g.stream AND g.last <= f.seq
         WHERE (g.dev, g.stream, g.last) > (?3, ?4, ?5) AND g.applied AND (g.stream = ?2 OR NOT ?1) AND NOT EXISTS (
            SELECT 1 FROM temp._pm_head_at h
            WHERE g.stream = ?2 AND h.dev = g.dev AND h.seq BETWEEN g.first AND g.last)
         AND NOT EXISTS (SELECT 1 FROM _pm_device r WHERE g.stream = ?2 AND r.retired AND r.retired_by = g.dev
            AND r.retired_seq BETWEEN g.first AND g.last) ORDER BY g.dev, g.stream, g.last LIMIT 64",
    )?;
    let of = (pending, Stream::Shared.number(), last.0, last.1, last.2);
    let groups = groups.query_map(of, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    Ok(groups.collect::<rusqlite::Result<_>>()?)
}

/// Drops a group from the log.
fn drop_group(replica: &Replica, (dev, stream, first, last): &Folded) -> Result<()> {
    if *stream == i64::from(Stream::PerDevice.number()) {
        frames::list_gone(replica, *dev, *first, *last)?;
    }
    tags::keep_group(replica, *dev, *stream, *last)?;
    replica
        .db
        .prepare_cached("DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq BETWEEN ?3 AND ?4")?
        .execute((dev, stream, first, last))?;
    replica
        .db
        .prepare_cached("DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3")?
        .execute((dev, stream, last))?;
    Ok(())
}

/// Counts the frames in the log, and their bytes.
fn log_size(replica: &Replica) -> Result<(u64, u64)> {
    Ok(replica.db.query_row("SELECT count(*), coalesce(sum(length(body)), 0) FROM _pm_frame", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?)
}

/// Retires a device that will not come back: nothing waits for its acknowledgements any more. What a base says of it
/// travels, and holds once all others know; what the fleet's key says travels, and holds at once; what another device
/// says holds for itself alone. Returns whether it travels.
pub(crate) fn retire(replica: &mut Replica, id: DeviceId, key: Option<&FleetKey>) -> Result<bool> {
    transaction::transaction(replica, |e| {
        let dev = devices::device_number_or_new(e, id)?;
        if dev == e.me {
            return Err(Error::Usage("a device cannot retire itself: retire it on another one".into()).into());
        }
        if let Some(key) = key {
            say_for_fleet(e, id, true, key)?;
            return Ok(true);
        }
        let travels = e.identity.base;
        if !membership::is_retired(e, dev)? && travels {
            deferred::begin_deferring(e)?;
            seal::seal_here(e, SealOptions::default())?;
            seal::seal_here(e, SealOptions { retire: Some(id), ..SealOptions::default() })?;
        } else if !membership::is_retired(e, dev)? {
            membership::record_retired(e, id, None, false)?;
        }
        Ok(travels)
    })
}

/// Makes the fleet's key say that a device is retired, or back.
fn say_for_fleet(replica: &Replica, id: DeviceId, retired: bool, key: &FleetKey) -> Result<()> {
    let statement = revocation::state_retirement(replica, id, retired, key)?;
    revoke::hear_retirement(replica, &statement)?;
    // It goes with whatever is sent, so there is something to send.
    if replica.can_sign() {
        deferred::begin_deferring(replica)?;
        seal::seal_here(replica, SealOptions { acknowledge: true, ..SealOptions::default() })?;
    }
    Ok(())
}

/// Takes back that a device is retired: at a base or with the fleet's key for all, elsewhere for this device alone.
/// Returns whether it travels.
pub(crate) fn take_back_retirement(
    replica: &mut Replica,
    id: DeviceId,
    key: Option<&FleetKey>,
) -> Result<bool> {
    transaction::transaction(replica, |e| {
        let label = devices::name_of(e, id)?;
        let dev = devices::device_number(e, id)?.unwrap_or(BASELINE);
        if membership::goes_on(e, dev)? {
            return Err(Error::Usage(format!(
                "{label} goes on under a new identity: it does not come back as this one"
            ))
            .into());
        }
        // A person here may have taken it back already for this database alone.
        let by_fleet = key.is_some() && revocation::retirement_of(e, id)?.is_some_and(|said| said.revoked);
        if !by_fleet && !membership::is_retired(e, dev)? {
            return Err(Error::Usage(format!("{label} is not retired")).into());
        }
        if let Some(key) = key {
            say_for_fleet(e, id, false, key)?;
            return Ok(true);
        }
        if e.identity.base {
            deferred::begin_deferring(e)?;
            seal::seal_here(e, SealOptions::default())?;
            seal::seal_here(e, SealOptions { came_back: Some(id), ..SealOptions::default() })?;
        }
        membership::record_returned(e, dev)?;
        Ok(e.identity.base)
    })
}
