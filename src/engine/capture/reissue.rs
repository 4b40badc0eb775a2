//! Rows of per-device tables that are sealed again, for bases that lack what is folded here: a device's own tables are the
//! state of its stream.
//!
//! That holds for the streams of identities that this device had before, too. Where all copies of a card have left the
//! identity, and every base was set back to before what is folded, nobody else has these rows any more. As long as some
//! device may go on as that identity, they are its affair: sealed by both they would be there twice.

use packmule_core::model::Stream;
use packmule_core::wire::FrameFlags;

use crate::engine::capture::groups::{self, SealOptions, SealReport};
use crate::engine::error::{Error, Result};
use crate::engine::fleet::copies::{self, Incarnation};
use crate::engine::fleet::{devices, membership, peers, positions};
use crate::engine::log::frames;
use crate::engine::store::{meta, value};
use crate::engine::table::replica::Replica;

/// Returns whether a base lacks frames of this device's per-device tables that are folded here, and no group in the log
/// reissues those tables.
pub(crate) fn is_due(replica: &Replica) -> Result<bool> {
    let floor = membership::watermark(replica, replica.me, Stream::PerDevice)?;
    let reissued = meta::get::<u64>(&replica.db, peers::REISSUED)?.unwrap_or(0);
    let lacks = || {
        Ok::<_, Error>(membership::is_lacking_base(replica, floor)? || !lacking(replica, floor)?.is_empty())
    };
    Ok(reissued <= floor && lacks()? || !lost_before(replica)?.is_empty())
}

/// The name under which `_pm_meta` has for which copies of bases' cards rows were reissued.
const FOR_COPIES: &str = "reissued for copies";

/// So many of them are remembered.
const COPIES: usize = 64;

/// Lists the copies of bases' cards that lack frames up to a folded one. Once is enough for each: of one that is not heard of
/// again nobody knows whether it has what was reissued, and after each compaction that would be due again. What has no
/// incarnation cannot be told from the base before it was set back.
fn lacking(replica: &Replica, floor: u64) -> Result<Vec<Vec<u8>>> {
    let done = meta::get::<Vec<u8>>(&replica.db, FOR_COPIES)?.unwrap_or_default();
    let done: &[Incarnation] = done.as_chunks().0;
    let mut all = Vec::new();
    for base in membership::active_bases(replica)? {
        for (copy, has) in copies::behind(replica, base, replica.me, Stream::PerDevice)? {
            if has < floor && !copy.is_empty() && !done.iter().any(|done| done[..] == copy[..]) {
                all.push(copy);
            }
        }
    }
    Ok(all)
}

/// Remembers that rows are reissued for these copies.
fn record_done(replica: &Replica, copies: Vec<Vec<u8>>) -> Result<()> {
    if copies.is_empty() {
        return Ok(());
    }
    let mut done = meta::get::<Vec<u8>>(&replica.db, FOR_COPIES)?.unwrap_or_default();
    done.extend(copies.concat());
    let old = done.len().saturating_sub(COPIES * size_of::<Incarnation>());
    meta::set(&replica.db, FOR_COPIES, &done[old..])
}

/// Reissues the rows of this device's per-device tables, if a base lacks frames of theirs that are folded here. Within the
/// open transaction, after a seal. Once is enough for as long as the group is in the log.
pub(crate) fn reissue_for_bases(replica: &Replica) -> Result<SealReport> {
    if !is_due(replica)? {
        return Ok(SealReport::default());
    }
    let first = positions::position(replica, replica.me, Stream::PerDevice)?.seq + 1;
    let flags = FrameFlags::REISSUES;
    list_logged_deletes(replica)?;
    let floor = membership::watermark(replica, replica.me, Stream::PerDevice)?;
    let copies = lacking(replica, floor)?;
    let report =
        groups::seal_groups(replica, SealOptions { flags, reissue: true, ..SealOptions::default() })?;
    if report.frames > 0 {
        meta::set(&replica.db, peers::REISSUED, first)?;
        record_done(replica, copies)?;
    }
    for before in lost_before(replica)? {
        meta::set(&replica.db, &done(before), true)?;
    }
    Ok(report)
}

/// Forgets what was reissued after a frame of this device's per-device stream: that is dropped.
pub(crate) fn forget_after(replica: &Replica, seq: u64) -> Result<()> {
    if meta::get::<u64>(&replica.db, peers::REISSUED)?.is_none_or(|first| first <= seq) {
        return Ok(());
    }
    for id in devices::issuers(&replica.db, replica.me)? {
        if let Some(before) = devices::device_number(replica, id)? {
            meta::forget(&replica.db, &done(before))?;
        }
    }
    meta::forget(&replica.db, FOR_COPIES)?;
    meta::forget(&replica.db, peers::REISSUED)
}

/// Lists the deletes of this device's frames that are in the log with those that are folded: the group says them all. A base
/// that lacks what is folded goes on from the group, over these frames, and applies none of them.
fn list_logged_deletes(replica: &Replica) -> Result<()> {
    let mut logged = replica.db.prepare_cached("SELECT seq FROM _pm_frame WHERE dev = ?1 AND stream = ?2")?;
    let mut rows = logged.query((replica.me, Stream::PerDevice.number()))?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        frames::list_gone(replica, replica.me, seq, seq)?;
    }
    Ok(())
}

/// The name under which `_pm_meta` has that the rows of an identity before this one are sealed again.
fn done(before: i64) -> String {
    format!("reissued for {before}")
}

/// Lists the identities that this device had before and nobody has any more, and of whose per-device streams every base
/// lacks frames that are folded here.
fn lost_before(replica: &Replica) -> Result<Vec<i64>> {
    let mut lost = Vec::new();
    for id in devices::issuers(&replica.db, replica.me)? {
        let Some(before) = devices::device_number(replica, id)? else { continue };
        let floor = membership::watermark(replica, before, Stream::PerDevice)?;
        if floor > 0
            && !meta::get(&replica.db, &done(before))?.unwrap_or(false)
            && is_with_no_base(replica, before, floor)?
            && is_left(replica, before)?
        {
            lost.push(before);
        }
    }
    Ok(lost)
}

/// Returns whether bases have been heard of, and none of them has a per-device stream of an identity before this one up to a
/// frame. What a base has beyond what is here can be of another copy's history, unless the device itself went on and is retired.
fn is_with_no_base(replica: &Replica, dev: i64, seq: u64) -> Result<bool> {
    let most = match membership::is_retired(replica, dev)? {
        true => u64::MAX,
        false => positions::position(replica, dev, Stream::PerDevice)?.seq,
    };
    let heard = "SELECT 1 FROM _pm_device WHERE n = ?1 AND heard IS NOT NULL";
    let mut any = false;
    for base in membership::active_bases(replica)? {
        if (seq..=most).contains(&membership::said(replica, base, dev, Stream::PerDevice)?.unwrap_or(0)) {
            return Ok(false);
        }
        any |= value::maybe::<i64>(&replica.db, heard, [base])?.is_some();
    }
    Ok(any)
}

/// Returns whether nobody goes on under an identity that this device had before, as far as is known: another copy has left
/// it, too, or it is retired.
fn is_left(replica: &Replica, before: i64) -> Result<bool> {
    if membership::is_retired(replica, before)? {
        return Ok(true);
    }
    let id = devices::device_id(replica, before)?;
    let sql = "SELECT n FROM _pm_device WHERE certificate IS NOT NULL AND n NOT IN (?1, ?2)";
    let mut others = replica.db.prepare_cached(sql)?;
    for other in
        others.query_map([before, replica.me], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
    {
        if devices::issuers(&replica.db, other)?.contains(&id) {
            return Ok(true);
        }
    }
    Ok(false)
}
