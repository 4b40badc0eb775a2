//! What is here of a device's streams, cut off after a frame: it goes on otherwise.

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::model::{DeviceId, Stream, Value};
use packmule_core::wire::{Chain, Frame, Named};

use crate::engine::apply::again::{self, History};
use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::{redeclare, seal, verdict};
use crate::engine::error::{Error, Result};
use crate::engine::exchange::twin;
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::fleet::positions::StreamPosition;
use crate::engine::fleet::{devices, membership, positions, routes};
use crate::engine::log::visit::{self, Part};
use crate::engine::log::{contexts, frames, gave_up, tags};
use crate::engine::merge::{folds, given_up};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// Cuts off what is here of a device's streams after these places. What their versions say stays, as settled values of this
/// device. `over` are those who had the other history (`again::strangers`).
pub(crate) fn cut(
    replica: &Replica,
    dev: i64,
    ends: [StreamPosition; 2],
    over: &BTreeMap<i64, u64>,
) -> Result<()> {
    let contexts = contexts_at(replica, dev, ends.map(|end| end.seq))?;
    let shared = ends[PeerEvidence::at(Stream::Shared)].seq;
    give_back(replica, dev, shared, over)?;
    peers::record_split(replica, dev, shared)?;
    gave_up::note(replica, dev, shared)?;
    gave_up::forget(replica, dev)?;
    given_up::settle_all(replica, dev, &(shared + 1..=i64::MAX as u64))?;
    replica.db.execute(
        "INSERT INTO _pm_fork (dev, first, last)
         SELECT other, ?2 + 1, max(seq) FROM _pm_context
         WHERE other = ?1 AND dev <> ?1 AND stream = ?3 AND seq > ?2 GROUP BY other
         ON CONFLICT (dev) DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)",
        (dev, shared, Stream::Shared.number()),
    )?;
    for (stream, (end, context)) in Stream::ALL.into_iter().zip(ends.into_iter().zip(contexts)) {
        if end.seq < positions::position(replica, dev, stream)?.seq {
            let staged = "DELETE FROM _pm_staged WHERE dev = ?1 AND stream = ?2 AND seq > ?3";
            replica.db.prepare_cached(staged)?.execute((dev, stream.number(), end.seq))?;
            cut_stream(replica, (dev, stream), end, &context)?;
        }
    }
    catalog::reload_catalog(replica)
}

/// Gives back to rows what frames of a device after this one say of them, where it was removed by whoever had the other history.
fn give_back(replica: &Replica, dev: i64, after: u64, over: &BTreeMap<i64, u64>) -> Result<()> {
    if over.is_empty() {
        return Ok(());
    }
    let after = after.max(log_begins(replica, dev, Stream::Shared)?);
    let [context, _] = contexts_at(replica, dev, [after; 2])?;
    again::apply_again(replica, History { dev, after, context }, over)
}

/// Finds where a stream was at the end of a group; `None` if nothing here has its chain there.
pub(super) fn end_at(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    seq: u64,
) -> Result<Option<StreamPosition>> {
    // At the beginning nobody reads it.
    let chain = if seq == 0 { Some(Chain([0; 32])) } else { twin::chain_at(replica, dev, stream, seq)? };
    Ok(chain.map(|chain| StreamPosition { seq, chain }))
}

/// Finds the same where the chain must be here.
pub(super) fn end_here(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<StreamPosition> {
    end_at(replica, dev, stream, seq)?.ok_or_else(|| Error::damaged("a chain that nothing in the log has"))
}

/// Cuts off what the log has of a stream after a place, and what is known by that.
pub(super) fn cut_stream(
    replica: &Replica,
    (dev, stream): (i64, Stream),
    end: StreamPosition,
    context: &BTreeMap<i64, u64>,
) -> Result<()> {
    let common = end.seq;
    forget_numbers(replica, (dev, stream), common)?;
    for sql in [
        "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq > ?3",
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
        shapes::forget_after(replica, dev, common)?;
        for sql in [
            // What these frames said of others holds no more.
            "UPDATE _pm_device SET retired = iif(retired = 1, 0, retired), retired_by = NULL, retired_seq = NULL
             WHERE retired_by = ?1 AND retired_seq > ?2",
            "UPDATE _pm_summed SET seq = min(seq, ?2) WHERE dev = ?1",
        ] {
            replica.db.prepare_cached(sql)?.execute((dev, common))?;
        }
    } else if dev == replica.me {
        replica.db.prepare_cached("UPDATE _pm_run SET seq = min(seq, ?1)")?.execute([common])?;
    }
    tags::forget_after(replica, dev, stream, common)?;
    routes::forget_after(replica, dev, stream, common)?;
    set_contexts(replica, dev, stream, context)?;
    positions::set_back(replica, dev, stream, end)
}

/// Forgets the small numbers that a stream introduces after a frame.
fn forget_numbers(replica: &Replica, (dev, stream): (i64, Stream), after: u64) -> Result<()> {
    let mut forget =
        replica.db.prepare_cached("DELETE FROM _pm_number WHERE dev = ?1 AND stream = ?2 AND number = ?3")?;
    let sql = "SELECT body FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq > ?3";
    let mut bodies = replica.db.prepare_cached(sql)?;
    let mut rows = bodies.query((dev, stream.number(), after))?;
    // One at a time: there may be as many as there were writes since a backup.
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(0)?;
        let Ok(frame) = Frame::parse(&body) else { continue };
        for (named, _) in frame.context() {
            if let Named::Introduced(number, _) = named {
                forget.execute((dev, stream.number(), number))?;
            }
        }
    }
    Ok(())
}

/// Returns whether another device has built on what this device wrote after a frame, and which; or a verdict of this device,
/// which names these frames as those that stay. One that is known to have another history of this device's, or has seen more of
/// its log than is here, and never said that it has this one, has built on the other, by the same numbers.
pub(crate) fn built_on_by(
    replica: &Replica,
    after: u64,
    of_other: Option<DeviceId>,
) -> Result<Option<String>> {
    let here = positions::position(replica, replica.me, Stream::Shared)?.seq;
    let builder: Option<i64> = value::maybe(
        &replica.db,
        "SELECT c.dev FROM _pm_context c JOIN _pm_device d ON d.n = c.dev
         WHERE c.other = ?1 AND c.dev <> ?1 AND c.seq > ?2 AND (d.id IS NOT ?3 AND c.seq <= ?5 OR EXISTS (
           SELECT 1 FROM _pm_ack a WHERE a.peer = c.dev AND a.dev = ?1 AND a.stream = ?4 AND a.seq > ?2
             AND (c.seq <= ?5 OR a.tag IS NOT NULL)))",
        (replica.me, after, of_other.map(|id| id.0), Stream::Shared.number(), here),
    )?;
    if let Some(other) = builder {
        return devices::device_label(replica, other).map(Some);
    }
    // What is folded cannot be read any more, nor be written again: whoever asks looks at that.
    let begins = log_begins(replica, replica.me, Stream::Shared)?;
    for seq in after.max(begins) + 1..=here {
        let body = frames::frame_here(replica, replica.me, Stream::Shared, seq)?;
        let mut names = false;
        visit::visit(replica, &frames::parse(&body)?, |part| {
            if let Part::Keep(mut runs) = part {
                names |= runs.any(|run| run.device == replica.identity.id && run.last > after);
            }
            Ok(())
        })?;
        if names {
            return Ok(Some("a verdict of its own".into()));
        }
    }
    Ok(None)
}

/// Goes on beside the history of the identity before, which others have built on, or of which frames are folded: this device
/// has another identity already. The rows of its own tables that came after the common part are to be sealed anew.
/// `same` is up to where the shared stream is known to be common: what is folded after that, nobody else has.
pub(crate) fn go_on_beside(
    replica: &Replica,
    old: i64,
    ends: [StreamPosition; 2],
    same: u64,
    over: &BTreeMap<i64, u64>,
) -> Result<()> {
    let common = ends.map(|end| end.seq);
    let retired = retired_by(replica, old, common[0])?;
    let folded = log_begins(replica, old, Stream::PerDevice)? > common[1];
    let own = if folded { Vec::new() } else { own_rows(replica, old, common[1])? };
    let decisions = redeclare::decisions_after(replica, old, common[0])?;
    let is_folded = membership::watermark(replica, old, Stream::Shared)? > same;
    given_up::settle_folded(replica, old, same)?;
    cut(replica, old, ends, over)?;
    if is_folded {
        // What the lists have as settled with frames of the first history's numbers was not.
        folds::restart(replica)?;
    }
    replica.db.execute("UPDATE _pm_table SET announced = 0 WHERE state = ?1", [State::Tracked])?;
    seal_rows_again(replica, &own)?;
    if folded {
        // Nobody can say which rows came after the common part.
        seal::seal_here(replica, SealOptions { reissue: true, ..SealOptions::default() })?;
    }
    for device in retired {
        seal::seal_here(replica, SealOptions { retire: Some(device), ..SealOptions::default() })?;
    }
    redeclare::decide_again(replica, decisions)?;
    verdict::seal_verdict(replica)
}

/// Lists the devices of which a base's frames after this one say that they are retired.
fn retired_by(replica: &Replica, dev: i64, after: u64) -> Result<Vec<DeviceId>> {
    let sql = "SELECT id FROM _pm_device WHERE retired_by = ?1 AND retired_seq > ?2 AND retired = 1 AND n <> ?3 ORDER BY id";
    let mut statement = replica.db.prepare_cached(sql)?;
    let rows = statement.query_map((dev, after, replica.me), |row| Ok(DeviceId(row.get(0)?)))?;
    Ok(if replica.identity.base { rows.collect::<rusqlite::Result<_>>()? } else { Vec::new() })
}

/// Goes on beside what a base has of the per-device stream of an identity that this device had before: what was sealed under
/// that after a frame is another history there, and is sealed again under this one.
pub(super) fn seal_own_again(replica: &Replica, old: i64, after: u64) -> Result<()> {
    let stream = Stream::PerDevice;
    if log_begins(replica, old, stream)? > after {
        // It is folded, so nobody can say which rows these are: all go again, once. Nothing of that stream is kept to be compared.
        let begin = StreamPosition { seq: 0, chain: Chain([0; 32]) };
        cut_stream(replica, (old, stream), begin, &BTreeMap::new())?;
        seal::seal_here(replica, SealOptions { reissue: true, ..SealOptions::default() })?;
        return Ok(());
    }
    let Some(end) = end_at(replica, old, stream, after)? else { return Ok(()) };
    let own = own_rows(replica, old, after)?;
    let context = contexts_at(replica, old, [u64::MAX, after])?.into_iter().last().unwrap_or_default();
    cut_stream(replica, (old, stream), end, &context)?;
    seal_rows_again(replica, &own)
}

/// Seals rows of per-device tables of ours that are sealed already.
fn seal_rows_again(replica: &Replica, rows: &[(i64, Vec<u8>)]) -> Result<()> {
    rows.iter().try_for_each(|(tid, key)| seal_again(replica, *tid, key))?;
    catalog::reload_catalog(replica)?;
    seal::seal_here(replica, SealOptions::default())?;
    Ok(())
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

/// Returns after which frame all of a stream is in the log: what was before is folded, or came as a state.
pub(super) fn log_begins(replica: &Replica, dev: i64, stream: Stream) -> Result<u64> {
    let mut begins = positions::position(replica, dev, stream)?.seq;
    for group in groups_after(replica, dev, stream, 0)?.iter().rev() {
        if group.last != begins {
            break;
        }
        begins = group.first - 1;
    }
    Ok(begins)
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
        let (mut later, mut introduced) = (BTreeSet::new(), BTreeSet::new());
        for group in groups_after(replica, dev, stream, 0)? {
            let body = frames::frame_here(replica, dev, stream, group.first)?;
            let frame = frames::parse(&body)?;
            for (named, _) in frame.context().filter(|_| group.first > common[at]) {
                if let Named::Introduced(_, id) = named {
                    introduced.insert(devices::device_number_or_new(replica, id)?);
                }
            }
            for (id, seq) in contexts::context(replica, dev, stream, &frame)? {
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
            // beside the watermark. Who is introduced only later was not seen before.
            let seen = if introduced.contains(&other) {
                0
            } else if later.contains(&other) {
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
    positions::forget_context(replica, dev, stream)?;
    for (other, seq) in contexts {
        positions::set_context(replica, dev, stream, *other, *seq)?;
    }
    Ok(())
}
