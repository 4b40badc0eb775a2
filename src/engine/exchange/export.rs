//! The log as a stream of records, for a peer, from what that peer is known to have.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{
    Certificate, FORMAT_VERSION, Footer, Header, MAGIC, Position, Probe, RecordKind, Section, put,
    write_record,
};
use sha2::{Digest, Sha256};

use crate::engine::capture::groups;
use crate::engine::error::{Error, Result};
use crate::engine::exchange::{transaction, twin};
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::log::frames;
#[cfg(feature = "serde")]
use crate::engine::store::json;
use crate::engine::store::keys;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// For whom a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Anyone: everything that is in the log.
    Anyone,
    /// One device: what it lacks, by its last acknowledgement.
    Device(DeviceId),
}

/// What went into a bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExportReport {
    /// Frames.
    pub frames: u64,
    /// Groups, each closed by a checkpoint.
    pub groups: u64,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// The recipient lacks frames that are folded here: it needs a snapshot.
    pub needs_snapshot: bool,
    /// Rows written here that could not be sealed, since the secret key or the right to write is missing.
    pub unsealed: u64,
}

/// Up to where streams are there, of a device or in files.
pub type Positions = BTreeMap<(DeviceId, Stream), u64>;

/// What a bundle is to have, for a carrier with limits of its own. Groups go in oldest first and whole.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The device that it is for; `None` is anyone.
    pub receiver: Option<DeviceId>,
    /// What needs not go in; a stream that is not named is wanted from its beginning.
    pub have: &'a Positions,
    /// No group is begun after so many bytes, unless it is the first.
    pub enough_bytes: u64,
    /// The bundle gets no longer than this, its footer included.
    pub most_bytes: u64,
}

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
    /// The recipient lacks frames that are folded here: it needs a snapshot.
    pub needs_snapshot: bool,
}

/// The length of the footer's record, and room for its numbers to grow.
const FOOTER_ROOM: u64 = 80;

/// Writes records and keeps count.
pub(crate) struct RecordWriter<'w> {
    to: &'w mut dyn Write,
    pub hash: Sha256,
    buf: Vec<u8>,
    pub bytes: u64,
    pub frames: u64,
}

impl<'w> RecordWriter<'w> {
    pub(crate) fn new(to: &'w mut dyn Write) -> Self {
        Self { to, hash: Sha256::new(), buf: Vec::new(), bytes: 0, frames: 0 }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.to.flush().map_err(Error::Stream)
    }

    /// Writes bytes, and hashes and counts them.
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).map_err(Error::Stream)
    }

    /// Writes a record.
    pub(crate) fn record(&mut self, kind: RecordKind, body: &[u8]) -> Result<()> {
        self.buf.resize(body.len() + 16, 0);
        let len = write_record(&mut self.buf, kind, body)
            .map_err(|_| Error::damaged("a record that is too long"))?;
        let buf = std::mem::take(&mut self.buf);
        let written = self.raw(&buf[..len]);
        self.buf = buf;
        written
    }
}

/// Seals, then writes a bundle: the frames that the recipient lacks.
///
/// A lost bundle loses no data: only a peer's own acknowledgement says what it has.
pub(crate) fn export(
    replica: &mut Replica,
    to: &mut dyn Write,
    recipient: Recipient,
) -> Result<ExportReport> {
    replica.signing_key()?;
    transaction::seal(replica)?;
    catalog::reading(replica, |e| write_bundle(e, to, recipient, e.signing_key()?, e.identity.id, true))
}

/// Writes a relay export: what is sealed here, in a bundle that the receiving device signs itself. For a database that
/// cannot be written to, or whose secret key is elsewhere.
pub(crate) fn export_relay(
    replica: &Replica,
    to: &mut dyn Write,
    relay: (&SecretKey, DeviceId),
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
) -> Result<ExportReport> {
    catalog::reading(replica, |e| {
        let mut report = write_groups(e, to, relay.0, relay.1, None, false, have)?;
        for table in catalog::tables(e) {
            report.unsealed += groups::unsealed(e, &table, 1_000_000)?;
        }
        Ok(report)
    })
}

/// Writes a bundle of what is sealed here and a recipient lacks.
fn write_bundle(
    replica: &Replica,
    to: &mut dyn Write,
    recipient: Recipient,
    key: &SecretKey,
    sender: DeviceId,
    with_vector: bool,
) -> Result<ExportReport> {
    let (receiver, peer) = match recipient {
        Recipient::Anyone => (None, None),
        Recipient::Device(id) => (Some(id), devices::device_number(replica, id)?),
    };
    let have = |id: DeviceId, stream: Stream| -> Result<u64> {
        let (Some(peer), Some(dev)) = (peer, devices::device_number(replica, id)?) else { return Ok(0) };
        if stream == Stream::PerDevice && dev != peer && !takes_own(replica, peer)? {
            return Ok(u64::MAX);
        }
        let seq: Option<u64> = value::maybe(
            &replica.db,
            "SELECT seq FROM _pm_ack WHERE peer = ?1 AND dev = ?2 AND stream = ?3",
            (peer, dev, stream.number()),
        )?;
        // A device has what it wrote itself, unless it says that it was rolled back.
        Ok(seq.unwrap_or(if dev == peer { u64::MAX } else { 0 }))
    };
    write_groups(replica, to, key, sender, receiver, with_vector, &have)
}

/// Returns whether a peer takes per-device streams of others. One whose certificate is not known here may.
fn takes_own(replica: &Replica, peer: i64) -> Result<bool> {
    let takes: Option<bool> =
        value::maybe(&replica.db, "SELECT base OR name IS NULL FROM _pm_device WHERE n = ?1", [peer])?;
    Ok(takes.unwrap_or(true))
}

/// Writes what of the log is not in `part.have`, up to a limit, without sealing first. The footer is
/// left to the caller, so that what is before it can be made durable first.
pub(crate) fn export_part(replica: &Replica, to: &mut dyn Write, part: &Part<'_>) -> Result<PartReport> {
    catalog::reading(replica, |e| {
        let have = |id, stream| Ok(part.have.get(&(id, stream)).copied().unwrap_or(0));
        let (key, sender) = (e.signing_key()?, e.identity.id);
        write_part(e, to, (key, sender), part.receiver, true, &have, (part.enough_bytes, part.most_bytes))
    })
}

/// Writes a whole bundle: the groups that are not in `have`.
fn write_groups(
    replica: &Replica,
    to: &mut dyn Write,
    key: &SecretKey,
    sender: DeviceId,
    receiver: Option<DeviceId>,
    with_vector: bool,
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
) -> Result<ExportReport> {
    let all = (u64::MAX, u64::MAX);
    let part = write_part(replica, to, (key, sender), receiver, with_vector, have, all)?;
    to.write_all(&part.footer).and_then(|()| to.flush()).map_err(Error::Stream)?;
    Ok(ExportReport {
        frames: part.frames,
        groups: part.groups,
        bytes: part.bytes,
        needs_snapshot: part.needs_snapshot,
        unsealed: 0,
    })
}

/// Writes the header, the certificates and as many groups as the limits allow; makes the footer.
fn write_part(
    replica: &Replica,
    to: &mut dyn Write,
    (key, sender): (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    with_vector: bool,
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
    (enough_bytes, most_bytes): (u64, u64),
) -> Result<PartReport> {
    let mut out = RecordWriter::new(to);
    let probes = if with_vector { twin::probes_of(replica, receiver)? } else { Vec::new() };
    let applied = if with_vector { positions::vector(replica)? } else { Vec::new() };
    write_header(replica, &mut out, (key, sender), receiver, &applied, &probes)?;
    let wanted = wanted(replica, have)?;
    write_certificates(replica, &mut out, &|n| wanted.iter().any(|w| w.dev == n))?;
    let mut report = write_log(replica, &mut out, &wanted, (enough_bytes, most_bytes))?;
    // A snapshot has nothing of per-device streams: their author reissues them.
    for w in wanted.iter().filter(|w| w.stream == Stream::Shared) {
        report.needs_snapshot |= membership::is_behind(replica, w.dev, w.stream, w.have)?;
    }
    let footer = Footer { frames: out.frames, sha256: out.hash.finalize().into() };
    let (mut buf, mut record) = ([0; 64], [0; FOOTER_ROOM as usize]);
    let len = put(&mut buf, &footer)
        .and_then(|len| write_record(&mut record, RecordKind::Footer, &buf[..len]))
        .map_err(|_| Error::damaged("a footer without room"))?;
    report.footer = record[..len].to_vec();
    report.frames = out.frames;
    report.bytes = out.bytes + len as u64;
    Ok(report)
}

/// Writes the groups that are wanted, in causal order, as many as the limits allow.
pub(crate) fn write_log(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    wanted: &[Wanted],
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
        let from = wanted.iter().find(|w| (w.dev, w.stream.number()) == (dev, stream));
        let Some(from) = from.filter(|w| last > w.have) else { continue };
        if most_bytes < u64::MAX {
            let bytes = group_bytes(replica, dev, from.stream, first, last)?;
            let enough = report.groups > 0 && out.bytes >= enough_bytes;
            if enough || out.bytes + bytes + FOOTER_ROOM > most_bytes {
                report.next_bytes = Some(bytes);
                break;
            }
        }
        let this = Section { author: DeviceId(row.get(5)?), stream: from.stream };
        if section != Some(this) {
            let mut buf = [0; 32];
            let len = put(&mut buf, &this).map_err(|_| Error::damaged("a section without room"))?;
            out.record(RecordKind::Section, &buf[..len])?;
            section = Some(this);
        }
        for seq in first..=last {
            out.record(RecordKind::Frame, &frames::frame_here(replica, dev, from.stream, seq)?)?;
            out.frames += 1;
        }
        let checkpoint: Vec<u8> = row.get(4)?;
        out.record(RecordKind::Checkpoint, &checkpoint)?;
        report.groups += 1;
        report.reached.insert((this.author, this.stream), last);
    }
    Ok(report)
}

/// Begins a bundle or a snapshot: the magic number and the signed header.
pub(crate) fn write_header(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    sender: (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    applied: &[Position],
    probes: &[Probe],
) -> Result<()> {
    out.raw(&MAGIC)?;
    out.record(RecordKind::Header, &signed_header(replica, sender, receiver, applied, probes)?)
}

/// Encodes the signed header: for whom it is, what is applied here, and probes for the receiver to compare.
pub(crate) fn signed_header(
    replica: &Replica,
    (key, sender): (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    applied: &[Position],
    probes: &[Probe],
) -> Result<Vec<u8>> {
    let mut seed = [0; 32];
    keys::system_random(&mut seed).map_err(Error::io("draw a random number for", &replica.path))?;
    let mut statement = [0; 8];
    statement.copy_from_slice(&seed[..8]);
    let header = Header {
        version: FORMAT_VERSION.into(),
        sender,
        receiver,
        wall: replica.now(),
        statement,
        applied: applied.len() as u32,
        probes: probes.len() as u32,
    };
    let mut buf = vec![0; 256 + (applied.len() + probes.len()) * 36];
    let len = header
        .encode(&mut buf, applied.iter().copied(), probes.iter().copied(), key)
        .map_err(|_| Error::damaged("a header without room"))?;
    buf.truncate(len);
    Ok(buf)
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

/// Lists the streams of which the recipient may lack something.
pub(crate) fn wanted(
    replica: &Replica,
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for entry in positions::vector(replica)? {
        let have = have(entry.author, entry.stream)?;
        if let Some(dev) = devices::device_number(replica, entry.author)?.filter(|_| have < entry.seq) {
            wanted.push(Wanted { dev, stream: entry.stream, have });
        }
    }
    Ok(wanted)
}

/// Writes our certificate chain, and those of the devices that `of` selects.
pub(crate) fn write_certificates(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    of: &dyn Fn(i64) -> bool,
) -> Result<()> {
    let mut written = BTreeSet::new();
    let devices: Vec<i64> = replica
        .db
        .prepare_cached("SELECT n FROM _pm_device WHERE certificate IS NOT NULL ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for n in devices.into_iter().filter(|n| *n == replica.me || of(*n)) {
        for (n, certificate) in certificates_for(replica, n)? {
            if written.insert(n) {
                out.record(RecordKind::Certificate, &certificate)?;
            }
        }
    }
    Ok(())
}

/// Reads the certificate chain of a device, issuers first.
pub(crate) fn certificates_for(replica: &Replica, n: i64) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut chain: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut next = Some(n);
    while let Some(n) = next.take().filter(|n| chain.iter().all(|(known, _)| known != n)) {
        let found: Option<Vec<u8>> =
            value::maybe(&replica.db, "SELECT certificate FROM _pm_device WHERE n = ?1", [n])?.flatten();
        let Some(bytes) = found else { break };
        if let Some(issuer) = Certificate::decode(&bytes).ok().and_then(|c| c.fleet) {
            let sql = "SELECT n FROM _pm_device WHERE public_key = ?1";
            next = value::maybe(&replica.db, sql, [issuer.fleet])?;
        }
        chain.push((n, bytes));
    }
    chain.reverse();
    Ok(chain)
}

/// A stream of which the recipient may lack something.
pub(crate) struct Wanted {
    pub dev: i64,
    pub stream: Stream,
    /// Up to here it has it.
    pub have: u64,
}
