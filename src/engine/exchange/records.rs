//! Writes records: groups of the log in causal order, as many as there is room for.

use std::collections::BTreeMap;
use std::io::Write;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{MAGIC, PACKED_MAGIC, RecordKind, Section, put, write_record};
use sha2::{Digest, Sha256};

use crate::engine::error::{Error, Result};
use crate::engine::log::frames;
use crate::engine::log::packed::Packer;
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::table::replica::Replica;

/// Up to where streams are there, of a device or in files.
pub type Positions = BTreeMap<(DeviceId, Stream), u64>;

/// What went into a part.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PartReport {
    /// Frames.
    pub frames: u64,
    /// Groups, each closed by a checkpoint.
    pub groups: u64,
    /// Bytes, the footer included.
    pub bytes: u64,
    /// The last record. It is for the caller to write, once all before it is durable.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::digits"))]
    pub footer: Vec<u8>,
    /// Up to where each stream that is in it goes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::positions"))]
    pub reached: Positions,
    /// The length of the first group that did not go in, if one did not.
    pub next_bytes: Option<u64>,
    /// It has a state, of the shared tables or of what is gathered here: the recipient lacks frames that are folded here.
    pub state: bool,
}

/// The length of the footer's record, and room for its numbers to grow.
pub(crate) const FOOTER_ROOM: u64 = 80;

/// Writes records and keeps count.
pub(crate) struct RecordWriter<'w> {
    to: &'w mut dyn Write,
    pub hash: Sha256,
    buf: Vec<u8>,
    pub bytes: u64,
    pub frames: u64,
    packer: Option<Packer>,
}

impl<'w> RecordWriter<'w> {
    pub(crate) fn new(to: &'w mut dyn Write) -> Self {
        Self { to, hash: Sha256::new(), buf: Vec::new(), bytes: 0, frames: 0, packer: None }
    }

    /// Makes one of a packed bundle.
    pub(crate) fn packed(to: &'w mut dyn Write) -> Self {
        Self { packer: Some(Packer::default()), ..Self::new(to) }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.to.flush().map_err(Error::Stream)?)
    }

    /// Begins the file.
    pub(crate) fn magic(&mut self) -> Result<()> {
        self.hash.update(MAGIC);
        let magic = if self.packer.is_some() { PACKED_MAGIC } else { MAGIC };
        self.raw(&magic)
    }

    /// Writes and counts bytes.
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        Ok(self.to.write_all(bytes).map_err(Error::Stream)?)
    }

    /// Writes a record.
    pub(crate) fn record(&mut self, kind: RecordKind, body: &[u8]) -> Result<()> {
        let bytes = self.record_bytes(kind, body)?;
        let written = self.raw(&bytes);
        self.buf = bytes;
        written
    }

    /// Returns the bytes of the last record of the bundle, which count as written.
    pub(crate) fn end_record(&mut self, body: &[u8]) -> Result<Vec<u8>> {
        let bytes = self.record_bytes(RecordKind::Footer, body)?;
        self.bytes += bytes.len() as u64;
        Ok(bytes)
    }

    /// Returns the bytes of a record, which are hashed as if it were not packed.
    fn record_bytes(&mut self, kind: RecordKind, body: &[u8]) -> Result<Vec<u8>> {
        let packed = match &mut self.packer {
            Some(packer) => Some(packer.pack(kind, body, &self.hash)?),
            None => None,
        };
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(body.len() + 16, 0);
        let len =
            write_record(&mut buf, kind, body).map_err(|_| Error::damaged("a record that is too long"))?;
        buf.truncate(len);
        self.hash.update(&buf);
        Ok(packed.unwrap_or(buf))
    }
}

/// Writes the groups that are wanted, in causal order, as many as the limits allow.
pub(crate) fn write_log(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    wanted: &[Wanted],
    limits: (u64, u64),
) -> Result<PartReport> {
    let chosen = |dev: i64, stream: u8, _: u64, last: u64| {
        let from = wanted.iter().find(|w| (w.dev, w.stream.number()) == (dev, stream));
        Ok(from.filter(|w| last > w.have).map(|w| w.stream))
    };
    write_chosen(replica, out, &chosen, limits)
}

/// Chooses a group by its device's number, its stream, its first frame and its last; returns the stream.
type Choice<'c> = dyn Fn(i64, u8, u64, u64) -> Result<Option<Stream>> + 'c;

/// Writes the groups that `chosen` chooses, in causal order, as many as the limits allow.
fn write_chosen(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    chosen: &Choice<'_>,
    (enough_bytes, most_bytes): (u64, u64),
) -> Result<PartReport> {
    let mut report = PartReport::default();
    let mut groups = replica.db.prepare_cached(
        "SELECT g.dev, g.stream, g.first, g.last, g.checkpoint, d.id FROM _pm_group g JOIN _pm_device d ON d.n = g.dev
         WHERE g.applied ORDER BY g.lamport, d.id, g.stream, g.last",
    )?;
    let mut rows = groups.query([])?;
    let mut section = None;
    while let Some(row) = rows.next()? {
        let (dev, stream): (i64, u8) = (row.get(0)?, row.get(1)?);
        let (first, last): (u64, u64) = (row.get(2)?, row.get(3)?);
        let Some(stream) = chosen(dev, stream, first, last)? else { continue };
        if most_bytes < u64::MAX {
            let bytes = group_bytes(replica, dev, stream, first, last)?;
            let enough = report.groups > 0 && out.bytes >= enough_bytes;
            if enough || out.bytes + bytes + FOOTER_ROOM > most_bytes {
                report.next_bytes = Some(bytes);
                break;
            }
        }
        let this = Section { author: DeviceId(row.get(5)?), stream };
        if section != Some(this) {
            let mut buf = [0; 32];
            let len = put(&mut buf, &this).map_err(|_| Error::damaged("a section without room"))?;
            out.record(RecordKind::Section, &buf[..len])?;
            section = Some(this);
        }
        for seq in first..=last {
            out.record(RecordKind::Frame, &frames::frame_here(replica, dev, stream, seq)?)?;
            out.frames += 1;
        }
        let checkpoint: Vec<u8> = row.get(4)?;
        out.record(RecordKind::Checkpoint, &checkpoint)?;
        report.groups += 1;
        report.reached.insert((this.author, this.stream), last);
    }
    Ok(report)
}

/// Writes the groups of shared streams that a state refers to: those with a head, those that say who is retired, and those after what `have` gives for
/// a device's number.
pub(crate) fn write_groups_in_flight(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    have: &dyn Fn(i64) -> u64,
) -> Result<()> {
    frames::note_heads(&replica.db)?;
    replica.db.execute_batch(
        "INSERT OR IGNORE INTO temp._pm_head_at SELECT retired_by, retired_seq FROM _pm_device
         WHERE retired AND retired_by IS NOT NULL AND retired_seq IS NOT NULL",
    )?;
    let in_flight = |dev: i64, stream: u8, first: u64, last: u64| {
        let sql = "SELECT 1 FROM temp._pm_head_at WHERE dev = ?1 AND seq BETWEEN ?2 AND ?3";
        let is_meant = stream == Stream::Shared.number()
            && (last > have(dev) || replica.db.prepare_cached(sql)?.exists((dev, first, last))?);
        Ok(is_meant.then_some(Stream::Shared))
    };
    write_chosen(replica, out, &in_flight, (u64::MAX, u64::MAX))?;
    frames::forget_noted_heads(&replica.db)
}

/// Bounds how many bytes a group has in a bundle.
fn group_bytes(replica: &Replica, dev: i64, stream: Stream, first: u64, last: u64) -> Result<u64> {
    let bytes: u64 = replica
        .db
        .prepare_cached(
            "SELECT coalesce(sum(length(body) + 8), 0) FROM _pm_frame
             WHERE dev = ?1 AND stream = ?2 AND seq BETWEEN ?3 AND ?4",
        )?
        .query_row((dev, stream.number(), first, last), |row| row.get(0))?;
    Ok(bytes + 512) // Section and checkpoint, with their heads.
}

/// A stream of which the recipient may lack something.
pub(crate) struct Wanted {
    pub dev: i64,
    pub stream: Stream,
    /// Up to here it has it.
    pub have: u64,
}
