//! The log as a stream of records, for a peer, from what that peer is known to have.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, Stream, WallMs};
use packmule_core::wire::{FORMAT_VERSION, Footer, Header, Position, Probe, RecordKind, put};
use sha2::Digest;

use crate::engine::capture::groups;
use crate::engine::error::{Error, Result};
use crate::engine::exchange::records::{self, PartReport, Positions, RecordWriter, Wanted};
use crate::engine::exchange::state::Parts;
use crate::engine::exchange::{certificates, gathered_state, newest, state, transaction, twin};
use crate::engine::fleet::copies::{self, Incarnation};
use crate::engine::fleet::{admission, devices, gaps, membership, positions, revocation, statements};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
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
    /// It has a state, of the shared tables or of what is gathered here: the recipient lacks frames that are folded here.
    pub state: bool,
    /// Rows written here that could not be sealed, since the secret key or the right to write is missing.
    pub unsealed: u64,
}

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

/// Seals, then writes a bundle: the frames that the recipient lacks.
///
/// A lost bundle loses no data: only a peer's own acknowledgement says what it has.
pub(crate) fn export(
    replica: &mut Replica,
    to: &mut dyn Write,
    recipient: Recipient,
) -> Result<ExportReport> {
    replica.signing_key()?;
    certificates::note_own(replica)?;
    transaction::seal(replica)?;
    transaction::remember(replica)?;
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
    let takes_own = receiver.map_or(Ok(true), |id| takes_own(replica, id))?;
    let have = |id: DeviceId, stream: Stream| -> Result<u64> {
        let (Some(peer), Some(dev)) = (peer, devices::device_number(replica, id)?) else { return Ok(0) };
        if stream == Stream::PerDevice && dev != peer && !takes_own {
            return Ok(u64::MAX);
        }
        membership::has(replica, peer, dev, stream)
    };
    write_groups(replica, to, key, sender, receiver, with_vector, &have)
}

/// Returns whether a peer takes per-device streams of others. One that is not known here, or whose certificate is not, may.
fn takes_own(replica: &Replica, peer: DeviceId) -> Result<bool> {
    let sql = "SELECT base OR name IS NULL FROM _pm_device WHERE id = ?1";
    Ok(value::maybe(&replica.db, sql, [peer.0])?.unwrap_or(true))
}

/// Writes what of the log is not in `part.have`, up to a limit, without sealing first. The footer is
/// left to the caller, so that what is before it can be made durable first.
pub(crate) fn export_part(replica: &Replica, to: &mut dyn Write, part: &Part<'_>) -> Result<PartReport> {
    catalog::reading(replica, |e| {
        let have = |id, stream| Ok(part.have.get(&(id, stream)).copied().unwrap_or(0));
        let (key, sender) = (e.signing_key()?, e.identity.id);
        let limits = (part.enough_bytes, part.most_bytes);
        write_part(e, to, (key, sender), part.receiver, (true, false), &have, limits)
    })
}

/// Writes all that is not in `have` for a receiver, without sealing first. The footer is left to the caller.
pub(crate) fn export_all(
    replica: &Replica,
    to: &mut dyn Write,
    receiver: DeviceId,
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
) -> Result<PartReport> {
    let from = (replica.signing_key()?, replica.identity.id);
    write_part(replica, to, from, Some(receiver), (true, false), have, (u64::MAX, u64::MAX))
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
    let part = write_part(replica, to, (key, sender), receiver, (with_vector, true), have, all)?;
    to.write_all(&part.footer).and_then(|()| to.flush()).map_err(Error::Stream)?;
    Ok(ExportReport {
        frames: part.frames,
        groups: part.groups,
        bytes: part.bytes,
        state: part.state,
        unsealed: 0,
    })
}

/// Writes the header, the certificates and as many groups as the limits allow; makes the footer. A `brief` bundle is packed
/// if it is for one device, and its header tells what differs from what that said last.
fn write_part(
    replica: &Replica,
    to: &mut dyn Write,
    (key, sender): (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    (with_vector, brief): (bool, bool),
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
    (enough_bytes, most_bytes): (u64, u64),
) -> Result<PartReport> {
    let mut out = if brief && receiver.is_some() { RecordWriter::packed(to) } else { RecordWriter::new(to) };
    let vector = positions::vector(replica)?;
    let mut wanted = wanted(replica, &vector, have)?;
    leave_folded(replica, sender, &mut wanted)?;
    let needs_state = needs_state(replica, &wanted)?;
    let gathered = gathered_out(replica, &wanted, receiver.is_some() || !with_vector)?;
    let with_state = needs_state || !gathered.is_empty();
    let mut probes = if with_vector { twin::probes_of(replica, receiver)? } else { Vec::new() };
    let said = gaps::said_vector(replica)?;
    let in_brief = receiver.filter(|_| brief && with_vector && !with_state);
    let difference = match in_brief {
        Some(id) => statements::difference(replica, id, &said, takes_own(replica, id)?)?,
        None => None,
    };
    let applied = if with_vector { &said[..] } else { &[] };
    let (base, told) = match &difference {
        Some(difference) => (Some(difference.base), &difference.positions[..]),
        None => (None, applied),
    };
    // A position is compared as well.
    probes.retain(|probe| !told.iter().any(|position| Probe::from(*position) == *probe));
    let header = (base, told, &probes[..]);
    write_header(replica, &mut out, (key, sender), receiver, header)?;
    write_revocations(replica, &mut out)?;
    let has_own = in_brief.map_or(Ok(false), |id| certificates::peer_has_own(replica, id))?;
    let of = |n| if n == replica.me { !has_own } else { needs_state || wanted.iter().any(|w| w.dev == n) };
    write_certificates(replica, &mut out, &of)?;
    if with_vector {
        for bytes in admission::carried(replica)? {
            out.record(RecordKind::Certificate, &bytes)?;
        }
        let goes = |dev, stream| wanted.iter().any(|w| (w.dev, w.stream) == (dev, stream));
        newest::write(replica, &mut out, receiver, &goes)?;
    }
    if with_state {
        let has: BTreeMap<i64, u64> =
            wanted.iter().filter(|w| w.stream == Stream::Shared).map(|w| (w.dev, w.have)).collect();
        let have = |dev| has.get(&dev).copied().unwrap_or(u64::MAX);
        let shared = if needs_state { Some(&have as &dyn Fn(i64) -> u64) } else { None };
        state::write_state(replica, &mut out, key, &Parts { shared, gathered: &gathered })?;
        wanted.retain(|w| match w.stream {
            Stream::Shared => !needs_state,
            Stream::PerDevice => !gathered.contains(&w.dev),
        });
    }
    let mut report = records::write_log(replica, &mut out, &wanted, (enough_bytes, most_bytes))?;
    report.state = with_state;
    for dev in gathered {
        let seq = positions::position(replica, dev, Stream::PerDevice)?.seq;
        report.reached.insert((devices::device_id(replica, dev)?, Stream::PerDevice), seq);
    }
    if needs_state {
        // A state goes as far as its vector.
        let shared = vector.iter().filter(|e| e.stream == Stream::Shared);
        report.reached.extend(shared.map(|e| ((e.author, e.stream), e.seq)));
    }
    report.frames = out.frames;
    (report.footer, report.bytes) = footer(out)?;
    Ok(report)
}

/// Ends a bundle. Returns its last record, and the bytes of all of it.
pub(crate) fn footer(mut out: RecordWriter<'_>) -> Result<(Vec<u8>, u64)> {
    let footer = Footer { frames: out.frames, sha256: out.hash.clone().finalize().into() };
    let mut buf = [0; 64];
    let len = put(&mut buf, &footer).map_err(|_| Error::damaged("a footer without room"))?;
    let record = out.end_record(&buf[..len])?;
    Ok((record, out.bytes))
}

/// Lists the devices of whose per-device streams the recipient lacks what is folded here, and what is gathered here stands
/// for it. Where it is for anyone, those of which somebody is known to lack it: it is much for all others.
fn gathered_out(replica: &Replica, wanted: &[Wanted], for_one: bool) -> Result<Vec<i64>> {
    let mut all = Vec::new();
    for w in wanted.iter().filter(|w| w.stream == Stream::PerDevice) {
        let stands = gathered_state::stands_for(replica, w.dev, w.have)?;
        if stands && (for_one || gathered_state::is_wanted(replica, w.dev)?) {
            all.push(w.dev);
        }
    }
    Ok(all)
}

/// Returns whether the recipient lacks frames of shared streams that are folded here.
fn needs_state(replica: &Replica, wanted: &[Wanted]) -> Result<bool> {
    for w in wanted.iter().filter(|w| w.stream == Stream::Shared) {
        if membership::is_behind(replica, w.dev, w.stream, w.have)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Leaves out what is folded in a database that is only read, if rows of it are not sealed: what its log says of these stands
/// nowhere any more, and nobody may take what will be sealed for what is settled. It waits for the seal.
fn leave_folded(replica: &Replica, sender: DeviceId, wanted: &mut Vec<Wanted>) -> Result<()> {
    if sender == replica.identity.id || !groups::any_unsealed(replica, &Table::shows_shared)? {
        return Ok(());
    }
    for of in std::mem::take(wanted) {
        if of.stream != Stream::Shared || !membership::is_behind(replica, of.dev, of.stream, of.have)? {
            wanted.push(of);
        }
    }
    Ok(())
}

/// What a header says: what its positions differ from, if they do not tell all; the positions; the probes.
pub(crate) type Vector<'a> = (Option<[u8; 8]>, &'a [Position], &'a [Probe]);

/// Begins a bundle or a snapshot: the magic number and the signed header.
pub(crate) fn write_header(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    sender: (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    vector: Vector<'_>,
) -> Result<()> {
    out.magic()?;
    out.record(RecordKind::Header, &signed_header(replica, sender, receiver, vector)?)
}

/// Begins a bundle of a sender that has no log: a fleet key.
pub(crate) fn begin_bundle<'w>(
    to: &'w mut dyn Write,
    sender: (&SecretKey, DeviceId),
    wall: WallMs,
) -> Result<RecordWriter<'w>> {
    let mut out = RecordWriter::new(to);
    out.magic()?;
    out.record(RecordKind::Header, &header(sender, None, wall, None, (None, &[], &[]))?)?;
    Ok(out)
}

/// Encodes the signed header: for whom it is, what is applied here, and probes for the receiver to compare.
pub(crate) fn signed_header(
    replica: &Replica,
    sender: (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    vector: Vector<'_>,
) -> Result<Vec<u8>> {
    let own = if sender.1 == replica.identity.id { copies::own(replica)? } else { Vec::new() };
    header(sender, receiver, replica.now(), own.last().copied(), vector)
}

/// Encodes a signed header.
fn header(
    (key, sender): (&SecretKey, DeviceId),
    receiver: Option<DeviceId>,
    wall: WallMs,
    incarnation: Option<Incarnation>,
    (base, applied, probes): Vector<'_>,
) -> Result<Vec<u8>> {
    let header = Header {
        version: FORMAT_VERSION.into(),
        sender,
        receiver,
        wall,
        statement: copies::number(incarnation)?,
        base,
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

/// Lists the streams of a vector of which the recipient may lack something.
fn wanted(
    replica: &Replica,
    vector: &[Position],
    have: &dyn Fn(DeviceId, Stream) -> Result<u64>,
) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for entry in vector {
        let have = have(entry.author, entry.stream)?;
        if let Some(dev) = devices::device_number(replica, entry.author)?.filter(|_| have < entry.seq) {
            wanted.push(Wanted { dev, stream: entry.stream, have });
        }
    }
    Ok(wanted)
}

/// Writes all statements of the fleet's key that are known here.
pub(crate) fn write_revocations(replica: &Replica, out: &mut RecordWriter<'_>) -> Result<()> {
    for statement in revocation::statements(replica)? {
        out.record(RecordKind::Revocation, &statement)?;
    }
    Ok(())
}

/// Writes the certificate chains of the devices that `of` selects.
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
    for n in devices.into_iter().filter(|n| of(*n)) {
        for (n, certificate) in certificates::certificates_for(replica, n)? {
            if written.insert(n) {
                out.record(RecordKind::Certificate, &certificate)?;
            }
        }
    }
    Ok(())
}
