//! Whether other devices have a table that was tracked here: as long as none has, it can be tracked in another way.

use packmule_core::model::Stream;

use crate::engine::capture::groups;
use crate::engine::error::Result;
use crate::engine::fleet::positions;
use crate::engine::store::{meta, value};
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, shapes};

/// Under this name `_pm_meta` has which device this was when the table was first tracked for a stream, and how much it had
/// sealed of that: all frames that tell of the table come after.
fn entry(tid: i64, stream: Stream) -> String {
    format!("tracked after {tid} {}", stream.number())
}

/// Records that a table begins to be tracked. What is sealed next tells of it.
pub(crate) fn note_begun(replica: &Replica, table: &Table) -> Result<()> {
    let stream = groups::stream_of(table);
    if begun(replica, table.tid, stream)?.is_some_and(|(me, _)| me == replica.me) {
        return Ok(());
    }
    let seq = positions::position(replica, replica.me, stream)?.seq;
    meta::set(&replica.db, &entry(table.tid, stream), format!("{} {seq}", replica.me))
}

/// Returns what is recorded of that.
fn begun(replica: &Replica, tid: i64, stream: Stream) -> Result<Option<(i64, u64)>> {
    let text: Option<String> = meta::get(&replica.db, &entry(tid, stream))?;
    Ok(text.and_then(|text| {
        let (me, seq) = text.split_once(' ')?;
        Some((me.parse().ok()?, seq.parse().ok()?))
    }))
}

/// Returns whether no other device is known to have a table of this device's.
pub(crate) fn nobody_has(replica: &Replica, table: &Table) -> Result<bool> {
    let others = shapes::shapes(replica, table.tid)?.iter().any(|shape| shape.dev != replica.me);
    if others || catalog::mirror_of(replica, table.tid).is_some() {
        return Ok(false);
    }
    let mut told = Vec::new();
    for stream in Stream::ALL {
        told.extend(begun(replica, table.tid, stream)?.map(|(me, seq)| (stream, me, seq)));
    }
    if told.is_empty() {
        // It is not known where the log tells of it.
        told.extend(Stream::ALL.map(|stream| (stream, replica.me, 0)));
    }
    for (stream, me, seq) in told {
        // What was told under another identity has gone under that one.
        if me != replica.me || somebody_has(replica, stream, seq)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether some other device is known to have more of a stream of this device's log than so many frames.
fn somebody_has(replica: &Replica, stream: Stream, seq: u64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_ack WHERE dev = ?1 AND stream = ?2 AND peer <> ?1 AND seq > ?3
        UNION ALL SELECT 1 FROM _pm_context WHERE ?2 = ?4 AND other = ?1 AND dev <> ?1 AND seq > ?3 LIMIT 1";
    let of = (replica.me, stream.number(), seq, Stream::Shared.number());
    Ok(value::maybe::<i64>(&replica.db, sql, of)?.is_some())
}
