//! Frames and groups in the database: stored, and read again.

use std::sync::Arc;

use packmule_core::model::{Stream, WallMs};
use packmule_core::wire::{CHECKPOINT_LEN, Chain, Checkpoint, Frame, Op, OpKind, Ops};
use rusqlite::{Connection, OptionalExtension};

use crate::engine::error::{self, Error, Result};
use crate::engine::log::visit::{self, Part};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::OpDef;
use crate::engine::table::opened::{OpPlace, OpenFrame};
use crate::engine::table::replica::Replica;

/// Reads a frame of the log, if it is there.
pub(crate) fn frame(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Option<Vec<u8>>> {
    Ok(replica
        .db
        .prepare_cached("SELECT body FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq = ?3")?
        .query_row((dev, stream.number(), seq), |row| row.get(0))
        .optional()?)
}

/// Returns whether a frame is there.
pub(crate) fn is_here(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq = ?3";
    Ok(replica.db.prepare_cached(sql)?.exists((dev, stream.number(), seq))?)
}

/// Reads a frame that must be there.
pub(crate) fn frame_here(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Vec<u8>> {
    frame(replica, dev, stream, seq)?
        .ok_or_else(|| Error::damaged(format!("frame {seq} of device number {dev} is not in the log")))
}

/// Gives a large value to `take`, piece by piece. The pieces are in the frames of the group up to that of its row.
pub(crate) fn pieces(
    replica: &Replica,
    frame_of_row: (i64, Stream, u64),
    big: &packmule_core::model::Big,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (dev, stream, row_seq) = frame_of_row;
    let lost = || Error::damaged("a large value whose pieces are not all in the log");
    let mut seq = row_seq.checked_sub(big.back.into()).ok_or_else(lost)?;
    let mut left = big.len;
    while left > 0 {
        if seq > row_seq {
            return Err(lost());
        }
        let body = frame_here(replica, dev, stream, seq)?;
        let frame = parse(&body)?;
        // The frame may be one that is being applied: what it defines after the row is not known yet.
        visit::visit_defined(replica, &frame, |part| match part {
            Part::Piece(piece) if piece.number == big.number => {
                left = left.checked_sub(piece.bytes.len() as u64).ok_or_else(lost)?;
                take(piece.bytes)
            }
            _ => Ok(()),
        })?;
        seq += 1;
    }
    Ok(())
}

/// Gives to `f` the op at a place in the log, with its definition.
pub(crate) fn op_at<R>(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    seq: u64,
    place: OpPlace,
    f: impl FnOnce(&OpDef, &Op<'_>) -> Result<R>,
) -> Result<R> {
    let lost = || Error::damaged("a version that is not where the log should have it");
    let open = open_frame(replica, dev, stream, seq)?;
    let offset = open.offset_of(place)?.ok_or_else(lost)?;
    let def = catalog::op_def(replica, open.def_at(offset).ok_or_else(lost)?)?;
    let body = open.body.get(offset as usize..).ok_or_else(lost)?;
    let op = Ops::new(body, offset, def.shape()).next_op().map_err(error::bad)?.ok_or_else(lost)?;
    f(&def, &op)
}

/// Opens a frame to find ops in it, or finds it open.
fn open_frame(replica: &Replica, dev: i64, stream: Stream, seq: u64) -> Result<Arc<OpenFrame>> {
    let place = (dev, stream.number(), seq);
    if let Some(open) = replica.opened.borrow().opened_at(place) {
        return Ok(open);
    }
    replica.opened.borrow_mut().make_room();
    let mut body = frame_here(replica, dev, stream, seq)?;
    let frame = parse(&body)?;
    if frame.is_by_column() {
        body = replica.codings.with(|coding| {
            let len = frame.plain(&mut coding.columns, &mut coding.buf).map_err(error::bad)?;
            Ok::<_, Error>(coding.buf[..len].to_vec())
        })?;
    }
    let mut open = OpenFrame::of(place);
    let whole = visit::visit_defined(replica, &parse(&body)?, |part| match part {
        Part::Op(def, op) => open.add_op(def, op.offset),
        _ => Ok(()),
    })?;
    open.index_keys(body)?;
    let open = Arc::new(open);
    // One that is being applied may define more than is known of it yet.
    if whole {
        replica.opened.borrow_mut().keep_open(open.clone());
    }
    Ok(open)
}

/// Stores a frame. Returns whether it was stored: not if a group covers the frame that is there already. One that no
/// group covers was never verified: it is overwritten.
pub(crate) fn put_frame(db: &Connection, dev: i64, stream: Stream, seq: u64, body: &[u8]) -> Result<bool> {
    let changed = db
        .prepare_cached(
            "INSERT INTO _pm_frame (dev, stream, seq, body) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (dev, stream, seq) DO UPDATE SET body = excluded.body WHERE NOT EXISTS
               (SELECT 1 FROM _pm_group g WHERE g.dev = ?1 AND g.stream = ?2 AND g.last >= ?3 AND g.first <= ?3)",
        )?
        .execute((dev, stream.number(), seq, body))?;
    Ok(changed > 0)
}

/// Stores a group that this device has signed.
pub(crate) fn put_own_group(
    db: &Connection,
    dev: i64,
    checkpoint: &Checkpoint,
    of_head: (u64, WallMs, u64),
    end: &Chain,
) -> Result<()> {
    let mut bytes = [0; CHECKPOINT_LEN];
    checkpoint.encode(&mut bytes).map_err(|_| Error::damaged("a checkpoint without room"))?;
    put_group(db, dev, (checkpoint, &bytes), of_head, end, true)
}

/// Stores a verified group whose frames are all there. One that is not applied may be there already. From the group's
/// head come the Lamport timestamp, the wall time and the pair.
pub(crate) fn put_group(
    db: &Connection,
    dev: i64,
    (checkpoint, bytes): (&Checkpoint, &[u8]),
    (lamport, wall, pair): (u64, WallMs, u64),
    end: &Chain,
    applied: bool,
) -> Result<()> {
    let known = if applied { "" } else { "OR IGNORE" };
    db.prepare_cached(&format!(
        "INSERT {known} INTO _pm_group (dev, stream, last, first, lamport, wall, pair, applied, checkpoint, chain)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    ))?
    .execute((
        dev,
        checkpoint.stream.number(),
        checkpoint.last,
        checkpoint.first,
        lamport,
        wall,
        pair,
        applied,
        bytes,
        end.0,
    ))?;
    Ok(())
}

/// Keeps the newest checkpoint of a stream, whose group need not be in the log.
pub(crate) fn put_newest(db: &Connection, dev: i64, checkpoint: &Checkpoint, bytes: &[u8]) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO _pm_newest (dev, stream, last, checkpoint) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (dev, stream) DO UPDATE SET last = excluded.last, checkpoint = excluded.checkpoint
           WHERE excluded.last > last",
    )?
    .execute((dev, checkpoint.stream.number(), checkpoint.last, bytes))?;
    Ok(())
}

/// So many deleted keys of per-device tables are remembered.
const GONE_MAX: i64 = 100_000;

/// Remembers that a device deleted a row of its per-device table, in a frame that is folded here or is gone over.
pub(crate) fn put_gone(db: &Connection, dev: i64, tid: i64, key: &[u8], seq: u64) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO _pm_gone (dev, tid, key, seq) VALUES (?1, ?2, ?3, ?4)")?
        .execute((dev, tid, key, seq))?;
    db.prepare_cached("DELETE FROM _pm_gone WHERE rowid <= (SELECT max(rowid) FROM _pm_gone) - ?1")?
        .execute([GONE_MAX])?;
    Ok(())
}

/// Remembers the rows that these frames of a per-device stream delete: they are folded, or gone over.
pub(crate) fn list_gone(replica: &Replica, dev: i64, first: u64, last: u64) -> Result<()> {
    (first..=last).try_for_each(|seq| {
        each_deleted(replica, dev, seq, &mut |tid, key| put_gone(&replica.db, dev, tid, &key, seq))
    })
}

/// Gives the table and the key of each row that a frame of a per-device stream deletes.
pub(crate) fn each_deleted(
    replica: &Replica,
    dev: i64,
    seq: u64,
    each: &mut dyn FnMut(i64, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let body = frame_here(replica, dev, Stream::PerDevice, seq)?;
    visit::visit_defined(replica, &parse(&body)?, |part| match part {
        Part::Op(def, op) if op.head.kind == OpKind::Delete => {
            each(def.tid, def.key_of(op.values(def.shape()))?)
        }
        _ => Ok(()),
    })
    .map(drop)
}

/// Forgets what of a stream is not applied up to a frame: something stands for it.
pub(crate) fn forget_pending(db: &Connection, dev: i64, stream: Stream, up_to: u64) -> Result<()> {
    forget_waiting(db, (dev, stream), 0, up_to)
}

/// Forgets what of a stream is not applied after a frame that never comes.
pub(crate) fn forget_pending_after(db: &Connection, dev: i64, stream: Stream, lost: u64) -> Result<()> {
    forget_waiting(db, (dev, stream), lost, i64::MAX as u64)
}

fn forget_waiting(db: &Connection, (dev, stream): (i64, Stream), after: u64, up_to: u64) -> Result<()> {
    for sql in [
        "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq > ?3 AND seq <= ?4
         AND seq > (SELECT coalesce(max(seq), 0) FROM _pm_stream WHERE dev = ?1 AND stream = ?2)",
        "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first > ?3 AND last <= ?4 AND NOT applied",
    ] {
        db.prepare_cached(sql)?.execute((dev, stream.number(), after, up_to))?;
    }
    Ok(())
}

/// Reads the checkpoint of the last applied group of a stream, whether or not that is in the log; `None` where only an
/// older program had it.
pub(crate) fn newest(db: &Connection, dev: i64, stream: Stream) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT coalesce(g.checkpoint, n.checkpoint) FROM _pm_stream s
         LEFT JOIN _pm_group g ON g.dev = s.dev AND g.stream = s.stream AND g.last = s.seq
         LEFT JOIN _pm_newest n ON n.dev = s.dev AND n.stream = s.stream AND n.last = s.seq
         WHERE s.dev = ?1 AND s.stream = ?2";
    Ok(value::maybe(db, sql, (dev, stream.number()))?.flatten())
}

/// Returns whether a stream is here, applied or waiting, without a gap up to before a frame.
pub(crate) fn reaches(db: &Connection, dev: i64, stream: Stream, first: u64) -> Result<bool> {
    let sql = "SELECT coalesce(sum(g.last - g.first + 1), 0) + p.seq + 1 >= ?3 FROM
           (SELECT coalesce(max(seq), 0) AS seq FROM _pm_stream WHERE dev = ?1 AND stream = ?2) p
         LEFT JOIN _pm_group g ON g.dev = ?1 AND g.stream = ?2 AND g.first > p.seq AND g.last < ?3";
    Ok(db.prepare_cached(sql)?.query_row((dev, stream.number(), first), |row| row.get(0))?)
}

/// Reads the checkpoint of the last group of a stream that is here and not applied, with its last frame and the chain after
/// it.
pub(crate) fn last_waiting(
    db: &Connection,
    dev: i64,
    stream: Stream,
) -> Result<Option<(u64, Vec<u8>, Chain)>> {
    let sql = "SELECT last, checkpoint, chain FROM _pm_group
         WHERE dev = ?1 AND stream = ?2 AND NOT applied ORDER BY last DESC LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, Chain(row.get(2)?)));
    Ok(db.prepare_cached(sql)?.query_row((dev, stream.number()), row).optional()?)
}

/// Returns whether a group is in the log, byte for byte: with this checkpoint, and with this chain after it. Its signature
/// was verified when it came, and it was compared with what is around it.
pub(crate) fn has_group(
    db: &Connection,
    dev: i64,
    (checkpoint, bytes): (&Checkpoint, &[u8]),
    end: &Chain,
) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3 AND checkpoint = ?4 AND chain = ?5";
    let of = (dev, checkpoint.stream.number(), checkpoint.last, bytes, end.0);
    Ok(value::maybe::<i64>(db, sql, of)?.is_some())
}

/// Notes in `_pm_head_at` which frames have versions that are remembered. An index would change the schema: every
/// application's connection would read it again.
pub(crate) fn note_heads(db: &Connection) -> Result<()> {
    Ok(db.execute_batch(
        "DELETE FROM temp._pm_head_at;
         INSERT OR IGNORE INTO temp._pm_head_at SELECT dev, seq FROM _pm_head WHERE dev > 0;
         INSERT OR IGNORE INTO temp._pm_head_at SELECT dev, seq FROM _pm_stretch",
    )?)
}

/// Forgets what was noted of the frames that have versions.
pub(crate) fn forget_noted_heads(db: &Connection) -> Result<()> {
    Ok(db.execute_batch("DELETE FROM temp._pm_head_at")?)
}

/// Parses a frame of the log, which was verified when it came.
pub(crate) fn parse(body: &[u8]) -> Result<Frame<'_>> {
    Frame::parse(body).map_err(error::bad)
}
