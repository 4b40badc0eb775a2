//! Writing groups of frames to the log, and reading ops back from it.

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{
    Block, CHECKPOINT_LEN, Chain, Checkpoint, DefId, Frame, FrameFlags, FrameWriter, GroupDigest, GroupStart,
    NoRoom, Op, OpHead, Ops, Shape,
};
use rusqlite::{Connection, OptionalExtension};

use super::devices::StreamPosition;
use super::error::{Error, Result};
use super::{Engine, catalog::OpDef};

/// Writes one group of our own: frames as they fill, the checkpoint at the end.
pub(crate) struct GroupWriter<'e> {
    db: &'e Connection,
    key: &'e SecretKey,
    dev: i64,
    author: DeviceId,
    stream: Stream,
    flags: FrameFlags,
    pub lamport: u64,
    pub wall: WallMs,
    pair: u64,
    start: StreamPosition,
    digest: GroupDigest,
    seq: u64,
    writer: FrameWriter<'e>,
    /// Frames and ops written.
    pub frames: u64,
    pub ops: u64,
    bigs: u32,
}

impl<'e> GroupWriter<'e> {
    /// The number for a large value of this group.
    pub(crate) fn next_big(&mut self) -> u32 {
        self.bigs += 1;
        self.bigs - 1
    }

    fn flush(&mut self) -> Result<()> {
        let frame = self.writer.finish();
        self.digest.add(frame);
        if !put_frame(self.db, self.dev, self.stream, self.seq, frame)? {
            return Err(Error::damaged("the log has a frame of this device that it did not write"));
        }
        self.frames += 1;
        Ok(())
    }

    /// Ends the frame and begins the next.
    fn next_frame(&mut self) -> Result<()> {
        self.flush()?;
        self.seq += 1;
        self.writer
            .begin(self.flags, self.seq, None)
            .map_err(|_| Error::damaged("a frame without room for its head"))
    }

    /// Tries in this frame, then in a new one; `None` if it fits into no frame.
    fn fit<R>(
        &mut self,
        mut write: impl FnMut(&mut FrameWriter<'e>) -> std::result::Result<R, NoRoom>,
    ) -> Result<Option<R>> {
        if let Ok(written) = write(&mut self.writer) {
            return Ok(Some(written));
        }
        // Also where the frame is empty but for its head: a first frame's may be long.
        self.next_frame()?;
        Ok(write(&mut self.writer).ok())
    }

    /// Writes a definition; returns its frame.
    pub(crate) fn def(&mut self, table: &str, body: &[u8]) -> Result<u64> {
        let fits = self.fit(|w| w.def(body))?;
        fits.ok_or_else(|| Error::cannot_track(table, "its definition is too large for a frame"))?;
        Ok(self.seq)
    }

    pub(crate) fn retire(&mut self, device: DeviceId) -> Result<()> {
        self.fit(|w| w.retire(device))?.ok_or_else(|| Error::damaged("a frame without room"))
    }

    /// Writes an op; `None` if its values must be made smaller first. Returns frame and offset.
    ///
    /// `firsts` has, for each value in pieces, its place among the values and its first piece's frame.
    pub(crate) fn op(
        &mut self,
        def: DefId,
        head: &OpHead<'_>,
        values: &mut [Value<'_>],
        firsts: &[(usize, u64)],
    ) -> Result<Option<(u64, u32)>> {
        let mut seq = self.seq;
        let offset = self.fit(|w| {
            for (at, first) in firsts {
                if let Value::Big(big) = &mut values[*at] {
                    big.back = (seq - first) as u32;
                }
            }
            seq += 1; // Should it not fit, the next frame is tried.
            w.op(def, head, values.iter().copied())
        })?;
        self.ops += u64::from(offset.is_some());
        Ok(offset.map(|offset| (self.seq, offset)))
    }

    /// Writes the next bytes of a large value; returns the frame of the first of them.
    pub(crate) fn piece(&mut self, number: u32, mut bytes: &[u8]) -> Result<u64> {
        let mut first = None;
        while !bytes.is_empty() {
            let written = self
                .fit(|w| w.piece(number, bytes))?
                .ok_or_else(|| Error::damaged("a frame without room"))?;
            first.get_or_insert(self.seq);
            bytes = &bytes[written..];
        }
        Ok(first.unwrap_or(self.seq))
    }

    /// Signs and closes the group; returns where the stream stands then.
    pub(crate) fn finish(mut self) -> Result<StreamPosition> {
        self.flush()?;
        let first = self.start.seq + 1;
        let chain = self.start.chain.after(&std::mem::take(&mut self.digest).finish());
        let checkpoint =
            Checkpoint::sign(self.key, self.author, self.stream, first, self.seq, self.start.chain, &chain);
        put_own_group(self.db, self.dev, &checkpoint, (self.lamport, self.wall, self.pair), &chain)?;
        Ok(StreamPosition { seq: self.seq, chain })
    }
}

impl Engine {
    /// Begins a group of our own. `buf` is the memory for a frame.
    pub(crate) fn begin_group<'e>(
        &'e self,
        stream: Stream,
        flags: FrameFlags,
        lamport: u64,
        pair: u64,
        buf: &'e mut [u8],
    ) -> Result<GroupWriter<'e>> {
        let key = self.signing_key()?;
        let start = self.position(self.me, stream)?;
        let context = self.context_delta(stream)?;
        let wall = self.now();
        let group = GroupStart { lamport, wall, pair, context: &context };
        let writer = FrameWriter::new(buf, flags, start.seq + 1, Some(group)).map_err(|_| {
            Error::Usage("the frame size is too small for what changed in the context".into())
        })?;
        Ok(GroupWriter {
            db: &self.db,
            key,
            dev: self.me,
            author: self.identity.id,
            stream,
            flags,
            lamport,
            wall,
            pair,
            start,
            digest: GroupDigest::default(),
            seq: start.seq + 1,
            writer,
            frames: 0,
            ops: 0,
            bigs: 0,
        })
    }

    /// What changed in what we have seen since our last group of this stream; notes that it was told.
    fn context_delta(&self, stream: Stream) -> Result<Vec<(DeviceId, u64)>> {
        let mut statement = self.db.prepare_cached(
            "SELECT s.dev, d.id, s.seq FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev
             LEFT JOIN _pm_context c ON c.dev = ?1 AND c.stream = ?2 AND c.other = s.dev
             WHERE s.stream = 0 AND s.seq > coalesce(c.seq, 0) AND (s.dev <> ?1 OR ?2 = 1) ORDER BY d.id",
        )?;
        let rows = statement.query_map((self.me, stream.number()), |row| {
            Ok((row.get::<_, i64>(0)?, DeviceId(row.get(1)?), row.get::<_, u64>(2)?))
        })?;
        let changed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        for (dev, _, seq) in &changed {
            self.set_context(self.me, stream, *dev, *seq)?;
        }
        Ok(changed.into_iter().map(|(_, id, seq)| (id, seq)).collect())
    }

    /// A frame of the log.
    pub(crate) fn frame(&self, dev: i64, stream: Stream, seq: u64) -> Result<Option<Vec<u8>>> {
        Ok(self
            .db
            .prepare_cached("SELECT body FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq = ?3")?
            .query_row((dev, stream.number(), seq), |row| row.get(0))
            .optional()?)
    }

    /// A frame that must be there.
    pub(crate) fn frame_here(&self, dev: i64, stream: Stream, seq: u64) -> Result<Vec<u8>> {
        self.frame(dev, stream, seq)?
            .ok_or_else(|| Error::damaged(format!("frame {seq} of device number {dev} is not in the log")))
    }

    /// Reads a large value from the pieces before the frame of its row, bit by bit.
    pub(crate) fn pieces(
        &self,
        place: (i64, Stream, u64),
        big: &packmule_core::model::Big,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (dev, stream, row_seq) = place;
        let lost = || Error::damaged("a large value whose pieces are not all in the log");
        let mut seq = row_seq.checked_sub(big.back.into()).ok_or_else(lost)?;
        let mut left = big.len;
        while left > 0 {
            if seq > row_seq {
                return Err(lost());
            }
            let body = self.frame_here(dev, stream, seq)?;
            let frame = parse(&body)?;
            let mut blocks = frame.blocks();
            while let Some(block) = blocks.next_block().map_err(bad)? {
                match block {
                    Block::Piece(piece) if piece.number == big.number => {
                        left = left.checked_sub(piece.bytes.len() as u64).ok_or_else(lost)?;
                        take(piece.bytes)?;
                    }
                    Block::Rows { def, body, offset } => {
                        let def = self.op_def(def)?;
                        let mut ops = Ops::new(body, offset, Shape { keys: &def.key_flags });
                        while ops.next_op().map_err(bad)?.is_some() {}
                        blocks.resume(ops.rest());
                    }
                    _ => {}
                }
            }
            seq += 1;
        }
        Ok(())
    }

    /// The op at a place in the log, given to `f`.
    pub(crate) fn op_at<R>(
        &self,
        dev: i64,
        stream: Stream,
        seq: u64,
        offset: u32,
        f: impl FnOnce(&OpDef, &Op<'_>) -> Result<R>,
    ) -> Result<R> {
        let body = self.frame_here(dev, stream, seq)?;
        let frame = parse(&body)?;
        // The block of the op tells its definition.
        let mut blocks = frame.blocks();
        let mut of = None;
        while let Some(block) = blocks.next_block().map_err(bad)? {
            if let Block::Rows { def, body, offset: at } = block {
                if at > offset {
                    break;
                }
                let def = self.op_def(def)?;
                let mut ops = Ops::new(body, at, Shape { keys: &def.key_flags });
                while let Some(op) = ops.next_op().map_err(bad)? {
                    if op.offset == offset {
                        of = Some((def.clone(), op));
                        break;
                    }
                }
                if of.is_some() {
                    break;
                }
                blocks.resume(ops.rest());
            }
        }
        let (def, op) =
            of.ok_or_else(|| Error::damaged("a version that is not where the log should have it"))?;
        f(&def, &op)
    }
}

/// A stream by its number, as the tables have it.
pub(crate) fn stream_of_number(number: u8) -> Result<Stream> {
    Stream::from_number(number).ok_or_else(|| Error::damaged("a stream of an unknown kind"))
}

/// Puts a frame into the log; whether it was not there. One that no group covers, left by a session
/// that broke off, gives way: whether it is its author's was never verified.
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

/// Puts a group that this device has signed into the log.
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

/// Puts a verified group of which all frames are there into the log. One that is not applied yet may be there.
/// Of its head come the stamp, the wall time and the pair.
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

/// A frame that was verified when it came.
pub(crate) fn parse(body: &[u8]) -> Result<Frame<'_>> {
    Frame::parse(body).map_err(bad)
}

/// Decoding failed in what was verified before.
pub(crate) fn bad(error: packmule_core::wire::DecodeError) -> Error {
    Error::damaged(format!("a frame in the log: {error}"))
}
