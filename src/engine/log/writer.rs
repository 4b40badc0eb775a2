//! A group of our own, written frame by frame.

use std::borrow::Cow;
use std::collections::hash_map::Entry;

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{
    Checkpoint, Decision, DefId, FRAME_MAX, FrameFlags, FrameWriter, GroupDigest, GroupStart, KeptRun, Named,
    NoRoom, OpHead, SchemaBits, Span, Was,
};

use crate::engine::error::{Error, Result};
use crate::engine::fleet::peers;
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::log::{contexts, frames};
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// A frame that codes well has so many times the bytes that one which does not code has, at most, before it is coded.
const GROWTH: usize = 4;

/// Returns the memory for the frames of a group.
pub(crate) fn frame_memory(replica: &Replica) -> Vec<u8> {
    vec![0; most_of(replica.options.frame_bytes)]
}

/// Returns how many bytes a frame of `frame_bytes` has before it is coded, at most.
fn most_of(frame_bytes: usize) -> usize {
    (frame_bytes * GROWTH).min(FRAME_MAX)
}

/// Writes one group of our own: each frame when it is full, the checkpoint at the end.
pub(crate) struct GroupWriter<'e> {
    replica: &'e Replica,
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
    /// The numbers of frames and ops written.
    pub frames: u64,
    pub ops: u64,
    bigs: u32,
    /// Whether this frame has pieces of large values.
    has_pieces: bool,
    /// So many bytes the frames after this one have before they are coded.
    most: usize,
    /// The same when the group began.
    most_before: usize,
    /// What stays of the rows that follow, in a verdict: every frame says it again.
    keep: Option<Vec<KeptRun>>,
}

impl<'e> GroupWriter<'e> {
    /// Returns whether its ops are restated rows.
    pub(crate) fn restates(&self) -> bool {
        self.flags.has(FrameFlags::RESTATED)
    }

    /// Returns the number of the next large value of this group.
    pub(crate) fn next_big(&mut self) -> u32 {
        self.bigs += 1;
        self.bigs - 1
    }

    /// Stores the frame, by column if that is shorter. The pieces of large values stay as they are.
    fn flush(&mut self) -> Result<()> {
        let Self { replica, writer, digest, .. } = self;
        let plain = writer.plain_len();
        let mut known = Ok(());
        let (coded, stored) = replica.codings.with(|coding| {
            let frame = if self.has_pieces {
                writer.finish()
            } else {
                writer.finish_by_column(&mut coding.columns, &mut coding.buf, |id, keys| {
                    let def = catalog::op_def(replica, id).map_err(|e| known = Err(e)).ok()?;
                    keys.get_mut(..def.key_flags.len())?.copy_from_slice(&def.key_flags);
                    Some(def.key_flags.len())
                })
            };
            digest.add(frame);
            (frame.len(), frames::put_frame(&replica.db, self.dev, self.stream, self.seq, frame))
        });
        known?;
        if !stored? {
            return Err(Error::damaged("the log has a frame of this device that it did not write"));
        }
        self.frames += 1;
        self.bound_next(plain, coded);
        self.has_pieces = false;
        Ok(())
    }

    /// Sets how many bytes the next frame has before it is coded: it is to have `frame_bytes` of them after, if it codes as
    /// this one. A torn line loses no more by a long frame that codes well than by a short one that does not.
    fn bound_next(&mut self, plain: usize, coded: usize) {
        let usual = self.replica.options.frame_bytes;
        // A short one tells little, and pieces are not coded.
        if self.has_pieces {
            self.most = usual;
        } else if plain >= usual / 2 {
            self.most = (usual * plain / coded.max(1)).clamp(usual, most_of(usual));
        }
        self.writer.bound(self.most);
    }

    /// Stores the frame and begins the next.
    fn next_frame(&mut self) -> Result<()> {
        self.flush()?;
        self.seq += 1;
        self.writer
            .begin(self.flags, self.seq, None)
            .map_err(|_| Error::damaged("a frame without room for its head"))?;
        match &self.keep {
            Some(runs) => Ok(self.writer.keep(runs).map_err(|_| too_many_runs())?),
            None => Ok(()),
        }
    }

    /// Writes which versions stay of the rows that follow, of a verdict.
    pub(crate) fn keep(&mut self, runs: Vec<KeptRun>) -> Result<()> {
        if self.keep.as_ref() == Some(&runs) {
            return Ok(());
        }
        let fits = self.writer.keep(&runs).is_ok();
        self.keep = Some(runs);
        if fits { Ok(()) } else { self.next_frame() }
    }

    /// Writes which rows of a table this group has all of, if it restates them.
    pub(crate) fn span(&mut self, span: &Span<'_>) -> Result<()> {
        self.fit(|w| w.span(span))?.ok_or_else(|| Error::damaged("a frame without room for two keys"))
    }

    /// Writes what a row was before a resolution; only that it was, if that is too large for a frame.
    pub(crate) fn decision(&mut self, decision: &Decision<'_>) -> Result<()> {
        if self.fit(|w| w.decision(decision))?.is_some() {
            return Ok(());
        }
        let untold = Decision { was: Was::Untold, ..*decision };
        self.fit(|w| w.decision(&untold))?.ok_or_else(|| Error::damaged("a frame without room for a key"))
    }

    /// Begins a new frame, unless this one is empty.
    pub(crate) fn separate(&mut self) -> Result<()> {
        if self.writer.is_empty() { Ok(()) } else { self.next_frame() }
    }

    /// Writes into this frame, or else into a new one. Returns `None` if it fits into no frame.
    fn fit<R>(
        &mut self,
        mut write: impl FnMut(&mut FrameWriter<'e>) -> std::result::Result<R, NoRoom>,
    ) -> Result<Option<R>> {
        if let Ok(written) = write(&mut self.writer) {
            return Ok(Some(written));
        }
        // Also if this frame has only a head: that of a first frame may be long.
        self.next_frame()?;
        Ok(write(&mut self.writer).ok())
    }

    /// Writes a definition. Returns its frame.
    pub(crate) fn def(&mut self, table: &str, body: &[u8]) -> Result<u64> {
        let fits = self.fit(|w| w.def(body))?;
        fits.ok_or_else(|| Error::cannot_track(table, "its definition is too large for a frame"))?;
        Ok(self.seq)
    }

    /// Writes what this device says of a table. Returns its frame.
    pub(crate) fn schema(
        &mut self,
        table: &str,
        body: &[u8],
        bits: SchemaBits,
        names: &[(&str, &str)],
    ) -> Result<u64> {
        let fits = self.fit(|w| w.schema(body, bits, names))?;
        fits.ok_or_else(|| Error::cannot_track(table, "its definition is too large for a frame"))?;
        Ok(self.seq)
    }

    /// Writes that a device is retired.
    pub(crate) fn retire(&mut self, device: DeviceId) -> Result<()> {
        self.fit(|w| w.retire(device))?.ok_or_else(|| Error::damaged("a frame without room"))
    }

    /// Writes that a device which was retired is back.
    pub(crate) fn came_back(&mut self, device: DeviceId) -> Result<()> {
        self.fit(|w| w.came_back(device))?.ok_or_else(|| Error::damaged("a frame without room"))
    }

    /// Writes an op. Returns its frame and offset, or `None` if its values must be made smaller first.
    ///
    /// `firsts` has, for each value in pieces, its index among the values and its first piece's frame.
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
            seq += 1; // If it does not fit, it is written into the next frame.
            w.op(def, head, values.iter().copied())
        })?;
        self.ops += u64::from(offset.is_some());
        Ok(offset.map(|offset| (self.seq, offset)))
    }

    /// Writes the next bytes of a large value. Returns the frame of the first of them.
    pub(crate) fn piece(&mut self, number: u32, mut bytes: &[u8]) -> Result<u64> {
        let mut first = None;
        while !bytes.is_empty() {
            let usual = self.replica.options.frame_bytes;
            let piece = |w: &mut FrameWriter<'e>| {
                w.bound(usual);
                w.piece(number, bytes)
            };
            let written = self.fit(piece)?.ok_or_else(|| Error::damaged("a frame without room"))?;
            first.get_or_insert(self.seq);
            self.has_pieces = true;
            bytes = &bytes[written..];
        }
        Ok(first.unwrap_or(self.seq))
    }

    /// Signs and closes the group. Returns the position of the stream after it.
    pub(crate) fn finish(mut self) -> Result<StreamPosition> {
        self.flush()?;
        if self.most != self.most_before {
            meta::set(&self.replica.db, most_key(self.stream), self.most)?;
        }
        let first = self.start.seq + 1;
        let chain = self.start.chain.after(&std::mem::take(&mut self.digest).finish());
        let checkpoint =
            Checkpoint::sign(self.key, self.author, self.stream, first, self.seq, self.start.chain, &chain);
        frames::put_own_group(
            &self.replica.db,
            self.dev,
            &checkpoint,
            (self.lamport, self.wall, self.pair),
            &chain,
        )?;
        Ok(StreamPosition { seq: self.seq, chain })
    }
}

/// Begins a group of our own. `buf` is the memory of its frames.
///
/// Every frame of our own is written by this. A device that was set back writes none before it has its own log again: it
/// would give a number twice.
///
/// # Errors
/// [`Error::KeyMissing`]; [`Error::RolledBack`]; [`Error::Usage`] if what changed in the context does not fit into a frame.
pub(crate) fn begin_group<'e>(
    replica: &'e Replica,
    stream: Stream,
    flags: FrameFlags,
    lamport: u64,
    pair: u64,
    buf: &'e mut [u8],
) -> Result<GroupWriter<'e>> {
    begin(replica, stream, flags, (lamport, pair), None, buf)
}

/// Begins a group of our shared stream, whose context is this one.
///
/// # Errors
/// As of [`begin_group`].
pub(crate) fn begin_group_of<'e>(
    replica: &'e Replica,
    flags: FrameFlags,
    context: &[(Named, u64)],
    buf: &'e mut [u8],
) -> Result<GroupWriter<'e>> {
    begin(replica, Stream::Shared, flags, (positions::next_lamport(replica)?, 0), Some(context), buf)
}

/// Begins a group with this context, or with what changed in ours.
fn begin<'e>(
    replica: &'e Replica,
    stream: Stream,
    flags: FrameFlags,
    (lamport, pair): (u64, u64),
    context: Option<&[(Named, u64)]>,
    buf: &'e mut [u8],
) -> Result<GroupWriter<'e>> {
    let key = replica.signing_key()?;
    if peers::is_rolled_back(replica)? {
        return Err(Error::RolledBack.into());
    }
    let start = positions::position(replica, replica.me, stream)?;
    let wall = replica.now();
    let context =
        context.map_or_else(|| context_delta(replica, stream).map(Cow::Owned), |it| Ok(it.into()))?;
    let group = GroupStart { lamport, wall, pair, context: &context };
    let usual = replica.options.frame_bytes;
    let most = meta::get(&replica.db, most_key(stream))?.unwrap_or(usual).clamp(usual, most_of(usual));
    let mut writer = FrameWriter::new(buf, flags, start.seq + 1, Some(group))
        .map_err(|_| Error::Usage("the frame size is too small for what changed in the context".into()))?;
    writer.bound(most);
    Ok(GroupWriter {
        replica,
        key,
        dev: replica.me,
        author: replica.identity.id,
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
        has_pieces: false,
        most,
        most_before: most,
        keep: None,
    })
}

/// Returns the key of `_pm_meta` under which stands how many bytes frames of a stream have before they are coded.
fn most_key(stream: Stream) -> &'static str {
    match stream {
        Stream::Shared => "frame bytes, shared",
        Stream::PerDevice => "frame bytes, per-device",
    }
}

/// Makes the error of a verdict on versions of too many devices for a frame.
fn too_many_runs() -> Error {
    Error::Usage("the frame size is too small for a verdict on versions of so many devices".into())
}

/// Returns what changed in our context since our last group of this stream, and records that this group carries it. A
/// device that the stream names for the first time gets a number.
fn context_delta(replica: &Replica, stream: Stream) -> Result<Vec<(Named, u64)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT s.dev, d.id, s.seq FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev
         LEFT JOIN _pm_context c ON c.dev = ?1 AND c.stream = ?2 AND c.other = s.dev
         WHERE s.stream = ?3 AND s.seq > coalesce(c.seq, 0) AND (s.dev <> ?1 OR ?4) ORDER BY d.id",
    )?;
    let of = (replica.me, stream.number(), Stream::Shared.number(), stream == Stream::PerDevice);
    let rows = statement
        .query_map(of, |row| Ok((row.get::<_, i64>(0)?, DeviceId(row.get(1)?), row.get::<_, u64>(2)?)))?;
    let changed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut numbers = contexts::numbers(replica, replica.me, stream)?;
    let mut last = numbers.values().copied().max().unwrap_or(0);
    let mut context = Vec::with_capacity(changed.len());
    for (dev, id, seq) in changed {
        positions::set_context(replica, replica.me, stream, dev, seq)?;
        let named = match numbers.entry(dev) {
            _ if dev == replica.me => Named::Author,
            Entry::Occupied(number) => Named::Number(*number.get()),
            Entry::Vacant(free) => {
                last += 1;
                contexts::keep_number(replica, replica.me, stream, *free.insert(last), dev)?;
                Named::Introduced(last, id)
            }
        };
        context.push((named, seq));
    }
    context.sort_by_key(|(named, _)| match named {
        Named::Number(number) | Named::Introduced(number, _) => *number,
        Named::Author | Named::Id(_) => 0,
    });
    Ok(context)
}
