//! Ops of a device's frames, applied again: what others wrote over them had not seen them.
//!
//! Contexts name frames by author and number. Of a device that has two histories, somebody who had the one wrote upon it; where
//! the other one is, and nothing shows yet that there are two, that removes what the device wrote in frames of the same
//! numbers. When it is shown, the rows that such a peer has a version of are made of all that these frames say of them, as on
//! every device where they come after what the peer wrote: nobody has seen them there.
//!
//! **Invariant.** The heads of a row are its maximal versions again (`groups`): who wrote over these frames had not seen them, so
//! only versions of such peers and of the author can stand beside its own, and ops of one author are applied in order.

use std::collections::BTreeMap;

use packmule_core::model::Stream;
use packmule_core::wire::FrameFlags;

use crate::engine::apply::groups::{self, Heard, Incoming, Sight, Writers};
use crate::engine::error::Result;
use crate::engine::fleet::{devices, positions};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{counters, deferred, stretches, written};
use crate::engine::show::write::{Counts, Origin};
use crate::engine::table::replica::Replica;

/// A history of a device's shared stream after a frame, all of which is in the log.
pub(crate) struct History {
    pub dev: i64,
    pub after: u64,
    /// What the device had seen at that frame.
    pub context: BTreeMap<i64, u64>,
}

/// Lists who wrote upon frames of a device's shared stream after one, as it says, and never said that it has those that are
/// here; and up to which frame. What the device goes on as had its own.
pub(crate) fn strangers(replica: &Replica, dev: i64, after: u64) -> Result<BTreeMap<i64, u64>> {
    let sql = "SELECT c.dev, max(c.seq) FROM _pm_context c
         WHERE c.other = ?1 AND c.dev NOT IN (?1, ?4) AND c.stream = ?2 AND c.seq > ?3 AND NOT EXISTS (
           SELECT 1 FROM _pm_ack a WHERE a.peer = c.dev AND a.dev = ?1 AND a.stream = ?2 AND a.seq > ?3 AND a.tag IS NOT NULL)
         GROUP BY c.dev";
    let id = devices::device_id(replica, dev)?;
    let mut statement = replica.db.prepare_cached(sql)?;
    let mut rows = statement.query((dev, Stream::Shared.number(), after, replica.me))?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (other, seq) = (row.get(0)?, row.get(1)?);
        if !devices::issuers(&replica.db, other)?.contains(&id) {
            all.insert(other, seq);
        }
    }
    Ok(all)
}

/// Applies again what a history says of rows of which one of these devices has a version here.
pub(crate) fn apply_again(replica: &Replica, of: History, over: &BTreeMap<i64, u64>) -> Result<()> {
    stretches::spread(replica, None)?;
    let last = positions::position(replica, of.dev, Stream::Shared)?.seq;
    (of.after + 1..=last).try_for_each(|seq| forget_versions(replica, (of.dev, seq), of.after, over))?;
    let mut group = Heard::after(of.context);
    (of.after + 1..=last).try_for_each(|seq| apply_frame(replica, (of.dev, seq), over, &mut group))
}

/// Returns the versions of a row that an op writes, if one of these devices has one of them.
fn contested(
    replica: &Replica,
    (tid, key): (i64, &[u8]),
    over: &BTreeMap<i64, u64>,
) -> Result<Option<Vec<Head>>> {
    let heads = heads::all_heads(replica, tid, key)?;
    Ok(Some(heads).filter(|heads| heads.iter().any(|head| over.contains_key(&head.dev))))
}

/// Forgets the author's versions, after a frame, of the rows that one of its frames writes to and one of these devices has a
/// version of.
fn forget_versions(
    replica: &Replica,
    (dev, seq): (i64, u64),
    after: u64,
    over: &BTreeMap<i64, u64>,
) -> Result<()> {
    let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
    visit::visit(replica, &frames::parse(&body)?, |part| {
        let Part::Op(def, ref op) = part else { return Ok(()) };
        let key = def.key_of(def.values_of(op).iter().copied())?;
        let Some(heads) = contested(replica, (def.tid, &key), over)? else { return Ok(()) };
        for head in heads.iter().filter(|head| head.dev == dev && head.seq > after) {
            written::forget_head(replica, def.tid, &key, head)?;
        }
        for entry in counters::entries(&replica.db, "_pm_count", def.tid, &key)? {
            if entry.dev == dev && entry.seq > after {
                counters::forget_entry(&replica.db, def.tid, &key, &entry)?;
            }
        }
        deferred::defer(replica, def.tid, &key)
    })
}

/// Applies the ops of a frame to such rows.
fn apply_frame(
    replica: &Replica,
    (dev, seq): (i64, u64),
    over: &BTreeMap<i64, u64>,
    group: &mut Heard,
) -> Result<()> {
    let (stream, author) = (Stream::Shared, devices::device_id(replica, dev)?);
    let body = frames::frame_here(replica, dev, stream, seq)?;
    let frame = frames::parse(&body)?;
    group.hear(replica, (dev, stream), &frame)?;
    let Heard { lamport, wall, .. } = *group;
    let restates = frame.head.flags.has(FrameFlags::RESTATED);
    let (mut keep, mut late) = (Vec::new(), group.late);
    let (mut writers, mut counts) = (Writers::default(), Counts::default());
    visit::visit(replica, &frame, |part| match part {
        Part::Keep(runs) => {
            keep = heads::kept_here(replica, runs)?;
            late = group.see_kept(replica, dev, &keep)?;
            Ok(())
        }
        Part::Op(def, ref op) => {
            let values = &def.values_of(op)[..];
            let key = def.key_of(values.iter().copied())?;
            if contested(replica, (def.tid, &key), over)?.is_none() {
                return Ok(());
            }
            let writer = writers.of(def, || groups::writer(replica, stream, def, dev))?;
            let sight = &Sight { seen: &group.seen(&frame, &keep), late, restates };
            let origin = &Origin { dev, author, stream, seq, lamport, wall };
            groups::apply_op(replica, &Incoming { writer, def, op, values, origin, sight }, &mut counts)
        }
        _ => Ok(()),
    })
}
