//! What is here of a device's streams, cut off after a frame: it goes on otherwise.

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::model::{Stream, Value};
use packmule_core::wire::{Chain, Frame, Named};

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{seal, verdict};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::twin;
use crate::engine::fleet::peers::PeerEvidence;
use crate::engine::fleet::positions::StreamPosition;
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::log::visit::{self, Part};
use crate::engine::log::{contexts, frames, tags};
use crate::engine::merge::given_up;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;

/// Cuts off what is here of a device's streams after a frame of each, where their chains are these. What their versions say
/// stays, as settled values of this device.
pub(crate) fn cut(replica: &Replica, dev: i64, common: [u64; 2], chains: [Chain; 2]) -> Result<()> {
    let contexts = contexts_at(replica, dev, common)?;
    given_up::settle_all(replica, dev, &(common[0] + 1..=i64::MAX as u64))?;
    replica.db.execute(
        "INSERT INTO _pm_fork (dev, first, last)
         SELECT other, ?2 + 1, max(seq) FROM _pm_context
         WHERE other = ?1 AND dev <> ?1 AND stream = ?3 AND seq > ?2 GROUP BY other
         ON CONFLICT (dev) DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)",
        (dev, common[0], Stream::Shared.number()),
    )?;
    let places = common.into_iter().zip(chains).zip(contexts);
    for (stream, ((common, chain), context)) in Stream::ALL.into_iter().zip(places) {
        if common < positions::position(replica, dev, stream)?.seq {
            cut_stream(replica, (dev, stream), common, chain, &context)?;
        }
    }
    catalog::reload_catalog(replica)
}

/// Cuts off what is here of a stream after a frame.
fn cut_stream(
    replica: &Replica,
    (dev, stream): (i64, Stream),
    common: u64,
    chain: Chain,
    context: &BTreeMap<i64, u64>,
) -> Result<()> {
    forget_numbers(replica, (dev, stream), common)?;
    for sql in [
        "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq > ?3",
        "DELETE FROM _pm_staged WHERE dev = ?1 AND stream = ?2 AND seq > ?3",
        "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3",
        "DELETE FROM _pm_newest WHERE dev = ?1 AND stream = ?2 AND last > ?3",
        "DELETE FROM _pm_aside WHERE dev = ?1 AND stream = ?2 AND first > ?3",
        "UPDATE _pm_floor SET seq = min(seq, ?3) WHERE dev = ?1 AND stream = ?2",
        // What of it others have is the other history.
        "UPDATE _pm_ack SET seq = ?3, tag = NULL WHERE dev = ?1 AND stream = ?2 AND seq > ?3",
    ] {
        replica.db.prepare_cached(sql)?.execute((dev, stream.number(), common))?;
    }
    if stream == Stream::Shared {
        let declared = "DELETE FROM _pm_declared WHERE dev = ?1 AND seq > ?2";
        replica.db.prepare_cached(declared)?.execute((dev, common))?;
    }
    tags::forget_after(replica, dev, stream, common)?;
    set_contexts(replica, dev, stream, context)?;
    if common == 0 {
        let place = (dev, stream.number());
        replica.db.execute("DELETE FROM _pm_stream WHERE dev = ?1 AND stream = ?2", place)?;
        return Ok(());
    }
    positions::set_position(replica, dev, stream, StreamPosition { seq: common, chain })
}

/// Forgets the small numbers that a stream introduces after a frame.
fn forget_numbers(replica: &Replica, (dev, stream): (i64, Stream), after: u64) -> Result<()> {
    let bodies = replica
        .db
        .prepare_cached("SELECT body FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq > ?3")?
        .query_map((dev, stream.number(), after), |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    let mut forget =
        replica.db.prepare_cached("DELETE FROM _pm_number WHERE dev = ?1 AND stream = ?2 AND number = ?3")?;
    for body in bodies {
        let Ok(frame) = Frame::parse(&body) else { continue };
        for (named, _) in frame.context() {
            if let Named::Introduced(number, _) = named {
                forget.execute((dev, stream.number(), number))?;
            }
        }
    }
    Ok(())
}

/// Returns whether another device has built on what this device wrote after a frame, and which.
pub(crate) fn built_on_by(replica: &Replica, after: u64) -> Result<Option<String>> {
    let other: Option<i64> = value::maybe(
        &replica.db,
        "SELECT dev FROM _pm_context WHERE other = ?1 AND dev <> ?1 AND seq > ?2",
        (replica.me, after),
    )?;
    other.map(|other| devices::device_label(replica, other)).transpose()
}

/// Goes on beside the history of the identity before, which others have built on: this device has another identity already.
/// The rows of its own tables that came after the common part are to be sealed anew.
pub(crate) fn go_on_beside(replica: &Replica, old: i64, common: [u64; 2]) -> Result<()> {
    let mut chains = [Chain([0; 32]); 2];
    for stream in Stream::ALL {
        let at = PeerEvidence::at(stream);
        if common[at] > 0 {
            let chain = twin::chain_at(replica, old, stream, common[at])?;
            chains[at] = chain.ok_or_else(|| Error::damaged("a chain that nothing in the log has"))?;
        }
    }
    let own = own_rows(replica, old, common[1])?;
    cut(replica, old, common, chains)?;
    replica.db.execute("UPDATE _pm_table SET announced = 0 WHERE state = ?1", [State::Tracked])?;
    for (tid, key) in own {
        seal_again(replica, tid, &key)?;
    }
    catalog::reload_catalog(replica)?;
    seal::seal_here(replica, SealOptions::default())?;
    verdict::seal_verdict(replica)
}

/// Lists the rows of per-device tables that frames of a device after this one write.
fn own_rows(replica: &Replica, dev: i64, after: u64) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut keys = Vec::new();
    for seq in after + 1..=positions::position(replica, dev, Stream::PerDevice)?.seq {
        let body = frames::frame_here(replica, dev, Stream::PerDevice, seq)?;
        let frame = frames::parse(&body)?;
        visit::visit(replica, &frame, |part| {
            if let Part::Op(def, op) = part {
                keys.push((def.tid, def.key_of(op.values(def.shape()))?));
            }
            Ok(())
        })?;
    }
    keys.sort();
    keys.dedup();
    Ok(keys)
}

/// Notes a row of a per-device table of ours as written and not sealed.
fn seal_again(replica: &Replica, tid: i64, key: &[u8]) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    if table.state != State::Tracked {
        return Ok(());
    }
    let values = value::read_key(key)?;
    if !table.def.append {
        return dirty::record_key(replica, &table, &values, ChangeFlags::INSERT | ChangeFlags::DELETE);
    }
    if let Some(Value::Int(id)) = values.first().map(value::OwnedValue::borrow) {
        replica
            .db
            .prepare_cached("UPDATE _pm_table SET appended = min(appended, ?2), gaps = 0 WHERE tid = ?1")?
            .execute((tid, id - 1))?;
    }
    Ok(())
}

/// An applied group of a stream.
pub(super) struct Old {
    pub first: u64,
    pub last: u64,
    pub lamport: u64,
    pub wall: i64,
}

/// Lists the groups of a stream after a frame.
pub(super) fn groups_after(replica: &Replica, dev: i64, stream: Stream, after: u64) -> Result<Vec<Old>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT first, last, lamport, wall FROM _pm_group
         WHERE dev = ?1 AND stream = ?2 AND first > ?3 AND applied ORDER BY last",
    )?;
    let rows = statement.query_map((dev, stream.number(), after), |row| {
        Ok(Old { first: row.get(0)?, last: row.get(1)?, lamport: row.get(2)?, wall: row.get(3)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Collects the context of each stream at its cut: what its groups up to there said of what they had seen.
pub(crate) fn contexts_at(replica: &Replica, dev: i64, common: [u64; 2]) -> Result<[BTreeMap<i64, u64>; 2]> {
    let mut contexts = [BTreeMap::new(), BTreeMap::new()];
    for stream in Stream::ALL {
        let at = usize::from(stream.number());
        let mut later: BTreeSet<i64> = BTreeSet::new();
        for group in groups_after(replica, dev, stream, 0)? {
            let body = frames::frame_here(replica, dev, stream, group.first)?;
            for (id, seq) in contexts::context(replica, dev, stream, &frames::parse(&body)?)? {
                let other = devices::device_number_or_new(replica, id)?;
                if group.first <= common[at] {
                    contexts[at].insert(other, seq);
                } else {
                    later.insert(other);
                }
            }
        }
        for (other, seq) in positions::context_of(replica, dev, stream)? {
            // A folded group said the rest of it. Everybody has what is folded, so it is enough that nobody writes
            // beside the watermark.
            let seen = if later.contains(&other) {
                membership::watermark(replica, other, Stream::Shared)?.min(seq)
            } else {
                seq
            };
            if seen > contexts[at].get(&other).copied().unwrap_or(0) {
                contexts[at].insert(other, seen);
            }
        }
    }
    Ok(contexts)
}

/// Replaces the context of a stream.
pub(crate) fn set_contexts(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    contexts: &BTreeMap<i64, u64>,
) -> Result<()> {
    replica.db.execute("DELETE FROM _pm_context WHERE dev = ?1 AND stream = ?2", (dev, stream.number()))?;
    for (other, seq) in contexts {
        positions::set_context(replica, dev, stream, *other, *seq)?;
    }
    Ok(())
}
