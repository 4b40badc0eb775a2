//! The groups that are causally ready, applied in their order.

use packmule_core::model::Stream;

use crate::engine::apply::report::{GatheredApart, ImportReport, WaitsForTable};
use crate::engine::apply::{aside, groups, pending, refill};
use crate::engine::error::Result;
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, peers, revocation};
use crate::engine::log::frames;
use crate::engine::merge::stretches;
use crate::engine::show::write::Counts;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// Applies groups of one author as long as the next one is ready. Returns whether one was.
pub(crate) fn apply_ready(replica: &Replica, dev: i64, report: &mut ImportReport) -> Result<bool> {
    let mut any = false;
    while apply_next(replica, dev, Stream::Shared, report)?
        || apply_next(replica, dev, Stream::PerDevice, report)?
    {
        any = true;
    }
    Ok(any)
}

/// Applies pending groups until none is ready.
pub(crate) fn apply_pending(replica: &Replica, report: &mut ImportReport) -> Result<()> {
    loop {
        let mut statement = replica.db.prepare_cached(
            "SELECT DISTINCT dev FROM _pm_group INDEXED BY _pm_group_waiting WHERE NOT applied",
        )?;
        let devs = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let mut any = false;
        for dev in &devs {
            any |= apply_ready(replica, *dev, report)?;
        }
        for dev in &devs {
            any |= refill::go_on_over_lost(replica, *dev)?;
        }
        if !any {
            return devs.into_iter().try_for_each(|dev| forget_unfollowed(replica, dev));
        }
    }
}

/// Forgets what waits of a stream and does not follow on what is applied, where it can be of another history: nothing of such
/// is taken in any more (`Verified::is_loose`). Whoever left an identity has sealed its rows again under its own, and who goes
/// on under it sends what it has until that is acknowledged.
fn forget_unfollowed(replica: &Replica, dev: i64) -> Result<()> {
    for stream in Stream::ALL {
        if pending::next_last(replica, dev, stream)?.is_none()
            && peers::may_be_of_other_history(replica, dev)?
        {
            frames::forget_pending(&replica.db, dev, stream, i64::MAX as u64)?;
        }
    }
    Ok(())
}

/// Applies the next group of a stream, with the group of the same seal in the other stream if that is ready too. The
/// per-device part waits for the shared one to come, and no longer; the shared one for the other until somebody else's
/// group waits for it, or its author says that it has lost the other. Returns whether it did.
fn apply_next(replica: &Replica, dev: i64, stream: Stream, report: &mut ImportReport) -> Result<bool> {
    if let Some(last) = pending::next_last(replica, dev, stream)?
        && revocation::is_void(replica, dev, stream, last)?
    {
        return Ok(false);
    }
    let Some(next) = pending::next_group(replica, dev, stream)? else { return Ok(false) };
    let mut groups = vec![next];
    if next.pair != 0 && (replica.identity.base || dev == replica.me) {
        let other = stream.other();
        match pending::next_group(replica, dev, other)? {
            Some(pair)
                if (pair.first, next.first) == (next.pair, pair.pair)
                    && !revocation::is_void(replica, dev, other, pair.last)? =>
            {
                groups.push(pair);
            }
            // What its author sealed later stands where the other part was, or before: that was lost with a backup.
            Some(later) if later.first <= next.pair && later.lamport > next.lamport => {}
            // The shared part is here and waits, for how long nobody can say.
            _ if stream == Stream::PerDevice && pending::is_pending(replica, dev, other, next.pair)? => {}
            _ if positions::position(replica, dev, other)?.seq >= next.pair => {}
            // From a device that will not come back, the other part may never come.
            _ if membership::is_retired(replica, dev)? || revocation::is_revoked(replica, dev)? => {}
            // What others wrote after it is not to wait for rows that may be nowhere any more.
            _ if stream == Stream::Shared && pending::is_built_on(replica, dev, next.first)? => {}
            _ if stream == Stream::Shared
                && peers::is_other_part_lost(replica, dev, next.last, next.pair)? =>
            {
                // What came of this device's own stream after it was sealed by a copy, which has written it again.
                if dev == replica.me {
                    frames::forget_pending_after(&replica.db, dev, other, next.pair)?;
                }
            }
            _ => {
                // Its shared part may be of a history that is left: whoever still has both sends both again.
                if stream == Stream::PerDevice && devices::has_successor(&replica.db, dev)? {
                    frames::forget_pending(&replica.db, dev, stream, i64::MAX as u64)?;
                }
                return Ok(false);
            }
        }
    }
    groups.sort_by_key(|g| g.stream.number());
    let (whole, mut ready) = (groups.len() == 2, Vec::new());
    for group in groups {
        if pending::is_ready(replica, dev, &group, whole)? {
            ready.push(group);
        } else if stream == Stream::Shared {
            return Ok(false);
        }
    }
    if ready.is_empty() {
        return Ok(false);
    }
    let Some(applied) = apply_all(replica, dev, &ready)? else { return Ok(false) };
    for (group, counts) in ready.iter().zip(applied) {
        record_applied(replica, dev, group, counts, report)?;
    }
    Ok(true)
}

/// Applies groups of a device that are ready. Returns what each did; none, if they were laid aside.
fn apply_all(replica: &Replica, dev: i64, ready: &[pending::Next]) -> Result<Option<Vec<Counts>>> {
    let places: Vec<aside::Place> = ready.iter().map(|group| (dev, group.stream, group.first)).collect();
    let applied = aside::contained(replica, &places, || {
        let apply = |group: &pending::Next| {
            if group.stream == Stream::Shared {
                replica.applying.set(Some((dev, group.first)));
            }
            let group = (group.stream, group.first, group.last);
            stretches::gathering(replica, || groups::apply_group(replica, dev, group.0, group.1, group.2))
        };
        ready.iter().map(apply).collect()
    });
    replica.applying.set(None);
    applied
}

/// Records that a group is applied, and what it did.
fn record_applied(
    replica: &Replica,
    dev: i64,
    group: &pending::Next,
    counts: Counts,
    report: &mut ImportReport,
) -> Result<()> {
    report.ops += counts.ops - counts.waiting;
    report.ops_waiting += counts.waiting;
    for (tid, ops) in counts.waiting_for {
        report.add_waiting_for(WaitsForTable::of(&*catalog::table(replica, tid)?, ops));
    }
    for (tid, ops) in counts.apart {
        let mirror = catalog::table(replica, tid)?;
        let own = catalog::table(replica, mirror.gathers.unwrap_or(tid))?;
        report.add_gathered_apart(&GatheredApart {
            table: own.def.name.clone(),
            gathered_in: mirror.def.name.clone(),
            ops,
        });
    }
    replica
        .db
        .prepare_cached("UPDATE _pm_group SET applied = 1 WHERE dev = ?1 AND stream = ?2 AND last = ?3")?
        .execute((dev, group.stream.number(), group.last))?;
    positions::set_position(
        replica,
        dev,
        group.stream,
        StreamPosition { seq: group.last, chain: group.chain },
    )?;
    positions::raise_lamport(replica, group.lamport)?;
    if dev == replica.me {
        peers::record_taken_back(replica, group.stream, group.first, group.last)?;
    }
    Ok(())
}
