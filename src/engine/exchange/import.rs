//! Import: verify → store → order → apply → commit, window by window.
//!
//! A bundle is read twice: once to verify all of it, so that a damaged one changes nothing; once to
//! take it in. Frames go to the log first. A group is applied when everything that its author had
//! seen is applied; until then it waits in the log.

use std::collections::{HashMap, HashSet};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::VectorEntry;
use rusqlite::OpenFlags;
use sha2::{Digest, Sha256};

use crate::engine::apply::report::ImportReport;
use crate::engine::apply::{pending, ready};
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::seal;
use crate::engine::conflicts::list;
use crate::engine::error::{BundleProblem, Error, Result, Stranger};
use crate::engine::exchange::{export, reconcile, session, transaction, twin};
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::fleet::{devices, open, positions, trust};
use crate::engine::log::bundle::{BundleReader, HeaderCheck, Item};
use crate::engine::log::frames;
use crate::engine::merge::deferred;
use crate::engine::store::connection::Options;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// How far an import has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes of the bundle that are done with.
    pub done: u64,
    /// Bytes of the bundle in all.
    pub total: u64,
    /// They are being verified; nothing is taken in yet.
    pub verifying: bool,
}

/// Takes in a bundle.
///
/// Importing it again, whole or in part, changes nothing.
pub(crate) fn import<R: Read + Seek>(
    replica: &mut Replica,
    bundle: &mut R,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport> {
    let total = bundle.seek(SeekFrom::End(0)).map_err(Error::Stream)?;
    bundle.rewind().map_err(Error::Stream)?;
    let verified = catalog::reading(replica, |e| {
        verify_bundle(e, BufReader::new(&mut *bundle), &mut |done| {
            progress(Progress { done, total, verifying: true })
        })
    });
    session::name_twin(replica, &verified)?;
    let verified = verified?;
    let was = replica.identity.id;
    reconcile::reconcile_own_log(replica, &verified.evidence)?;
    bundle.rewind().map_err(Error::Stream)?;
    let mut report = ImportReport::default();
    let mut reader = BundleReader::new(BufReader::new(&mut *bundle));
    let mut more = true;
    while more {
        let mut tell = |done| progress(Progress { done, total, verifying: false });
        more = transaction::transaction(replica, |e| {
            take_in_window(e, &mut reader, &verified, &mut report, &mut tell)
        })?;
        tell(reader.offset());
    }
    report.waits = pending::waits(replica)?;
    report.new_identity = twin::new_identity_label(replica, was);
    Ok(report)
}

/// The first half of an import alone: refuses what [`Engine::import`] would refuse, and changes nothing.
pub(crate) fn check<R: Read + Seek>(replica: &Replica, bundle: &mut R) -> Result<()> {
    bundle.rewind().map_err(Error::Stream)?;
    catalog::reading(replica, |e| verify_bundle(e, BufReader::new(&mut *bundle), &mut |_| ()))?;
    bundle.rewind().map_err(Error::Stream)
}

/// Takes in what another device's database file has, and seals it there first if its key lies
/// beside it.
pub(crate) fn import_database(
    replica: &mut Replica,
    path: &std::path::Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport> {
    let quick = || Options { busy_ms: replica.options.busy_ms, ..Options::default() };
    let of_source = |error| Error::Source { path: path.into(), error: Box::new(error) };
    let mut source = match open::open_as(path, quick(), OpenFlags::SQLITE_OPEN_READ_WRITE) {
        Err(Error::Sqlite(_)) => open::open_as(path, quick(), OpenFlags::SQLITE_OPEN_READ_ONLY),
        source => source,
    }
    .map_err(of_source)?;
    if source.identity.id == replica.identity.id {
        return Err(Error::Usage(format!("{} is this device itself, or a copy of it", path.display())));
    }
    let evidence = twin::refuse_other_history(replica, &source);
    session::name_twin(replica, &evidence)?;
    let (evidence, was) = (evidence?, source.identity.id);
    if source.can_sign() && !source.db.is_readonly(rusqlite::MAIN_DB)? {
        reconcile::reconcile_own_log(&mut source, &evidence).map_err(of_source)?;
    }
    if source.can_sign() {
        match transaction::seal(&mut source) {
            Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => {}
            sealed => sealed.map(|_| ()).map_err(of_source)?,
        }
    }
    // Through a file, since a bundle is verified before it is taken in; its name is gone at once.
    let mut spool = tempfile::tempfile_in(replica.path.parent().unwrap_or(std::path::Path::new(".")))
        .map_err(Error::io("make a temporary file beside", &replica.path))?;
    let key = replica.signing_key()?;
    let here: HashMap<_, _> = positions::vector(replica)?
        .into_iter()
        .map(|entry| ((entry.author, entry.stream), entry.seq))
        .collect();
    let have = |id, stream| Ok(here.get(&(id, stream)).copied().unwrap_or(0));
    let exported =
        export::export_relay(&mut source, &mut BufWriter::new(&mut spool), (key, replica.identity.id), &have)
            .map_err(of_source)?;
    let new_identity = twin::new_identity_label(&source, was);
    drop(source);
    let mut report = import(replica, &mut spool, progress)?;
    report.unsealed = exported.unsealed;
    report.new_identity = new_identity;
    Ok(report)
}

/// Reads all of a bundle and refuses what must be refused.
fn verify_bundle(replica: &Replica, input: impl Read, progress: &mut dyn FnMut(u64)) -> Result<Verified> {
    let mut reader = BundleReader::new(input);
    let mut verified = Verified::default();
    let mut header_check = None;
    let mut strangers: Vec<Stranger> = Vec::new();
    let mut keys: Vec<(DeviceId, [u8; 32])> = Vec::new();
    let mut reported = 0;
    loop {
        let at = reader.offset();
        if at - reported > 1 << 20 {
            progress(at);
            reported = at;
        }
        match reader.next_item()? {
            Item::Header(header) => {
                verified.sender = Some(header.header.sender);
                verified.vector = header.vector().collect();
                verified.wall = header.header.wall;
                // The signature can be checked only when the sender's certificate is there.
                header_check = Some(HeaderCheck::of(&header));
            }
            Item::Certificate(certificate, _) => match trust::verify_certificate(replica, &certificate)? {
                Ok(_) => keys.push((certificate.device(), certificate.public_key)),
                Err(stranger) => {
                    // Its voucher can be as new here as it is itself.
                    let vouched =
                        certificate.fleet.is_some_and(|v| keys.iter().any(|(_, key)| *key == v.fleet));
                    if vouched && !stranger.revoked {
                        keys.push((certificate.device(), certificate.public_key));
                    } else {
                        strangers.push(stranger);
                    }
                }
            },
            Item::Frame(section, frame, _) => {
                let id = section.author;
                let seen = frame.context().filter(|(id, _)| *id == replica.identity.id);
                seen.for_each(|(_, seq)| verified.evidence.has(Stream::Shared, seq));
                if strangers.iter().all(|s| s.id != id) && key_for(replica, &keys, id)?.is_none() {
                    strangers.push(Stranger { id, name: None, revoked: false });
                }
            }
            Item::Checkpoint(checkpoint, bytes, end) => {
                let Some(key) = key_for(replica, &keys, checkpoint.author)? else { continue };
                if checkpoint.verify(&key, &end).is_err() {
                    let who = devices::name_of(replica, checkpoint.author)?;
                    return Err(Error::bundle(at, BundleProblem::Signature(who)));
                }
                if verified.signed.len() < SIGNED_MAX {
                    verified.signed.insert(signed(bytes, &end));
                }
                if checkpoint.author == replica.identity.id {
                    let fit = twin::fit(replica, &checkpoint, Some(&end), &key)?;
                    let position = positions::position(replica, replica.me, checkpoint.stream)?.seq;
                    verified.evidence.see(&checkpoint, fit, position);
                } else {
                    twin::refuse_twin(replica, &checkpoint, Some(&end), &key)?;
                }
            }
            Item::End => break,
            Item::State(_) | Item::Part(_) | Item::Seal(..) => {
                return Err(Error::bundle(0, BundleProblem::IsASnapshot));
            }
        }
    }
    if !strangers.is_empty() {
        return Err(Error::Strangers(strangers));
    }
    if let Some(sender) = verified.sender {
        let Verified { vector, evidence, .. } = &mut verified;
        let apart = twin::compare_vector(replica, sender, vector, evidence)?;
        // A copy of this device, or a device that has another history of itself than is here: only
        // who hears of it from a third knows which of them is the second.
        let copy = evidence.diverges_after().filter(|_| sender == replica.identity.id);
        if let Some(seq) = apart.or(copy) {
            return Err(Error::Twin { device: devices::name_of(replica, sender)?, seq });
        }
    }
    if let (Some(check), Some(sender)) = (header_check, verified.sender) {
        match key_for(replica, &keys, sender)? {
            Some(key) if check.verify(&key) => {}
            Some(_) => {
                return Err(Error::bundle(0, BundleProblem::Signature(devices::name_of(replica, sender)?)));
            }
            None => {
                return Err(Error::Strangers(vec![Stranger { id: sender, name: None, revoked: false }]));
            }
        }
    }
    Ok(verified)
}

fn key_for(replica: &Replica, keys: &[(DeviceId, [u8; 32])], id: DeviceId) -> Result<Option<[u8; 32]>> {
    match keys.iter().find(|(known, _)| *known == id) {
        Some((_, key)) => Ok(Some(*key)),
        None => trust::trusted_key(replica, id),
    }
}

/// Takes in as many groups as make a window; whether there is more.
fn take_in_window(
    replica: &Replica,
    reader: &mut BundleReader<impl Read>,
    verified: &Verified,
    report: &mut ImportReport,
    tell: &mut dyn FnMut(u64),
) -> Result<bool> {
    deferred::begin_deferring(replica)?;
    // What was written here before this moment did not take the others into account.
    seal::seal_here(replica, SealOptions::default())?;
    let conflicts_before = list::open_conflicts(replica)?;
    let start = reader.offset();
    let mut told = start;
    let mut pending: Vec<(i64, u64)> = Vec::new();
    let mut group = None;
    let more = loop {
        // Also within a group, which can be as large as it likes.
        if reader.offset() - told >= 1 << 20 {
            told = reader.offset();
            tell(told);
        }
        match reader.next_item()? {
            Item::Header(_) => {}
            Item::Certificate(certificate, bytes) => {
                if let Ok(trust) = trust::verify_certificate(replica, &certificate)? {
                    trust::store_certificate(replica, &certificate, bytes, trust)?;
                }
            }
            Item::Frame(section, frame, body) => {
                let dev = devices::device_number_or_new(replica, section.author)?;
                if let Some(head) = frame.group {
                    let have = positions::position(replica, dev, section.stream)?.seq;
                    let ours = section.stream == Stream::Shared || replica.identity.base || dev == replica.me;
                    group = Some((head, frame.head.seq > have && ours));
                    report.passed_over += u64::from(!ours);
                }
                if matches!(group, Some((_, true))) {
                    let new = frames::put_frame(&replica.db, dev, section.stream, frame.head.seq, body)?;
                    report.frames += u64::from(new);
                    report.known += u64::from(!new);
                } else {
                    report.known += 1;
                }
            }
            Item::Checkpoint(checkpoint, bytes, end) => {
                let Some((head, true)) = group.take() else { continue };
                let dev = devices::device_number_or_new(replica, checkpoint.author)?;
                let key = trust::trusted_key(replica, checkpoint.author)?;
                let known = verified.signed.contains(&signed(bytes, &end));
                if key.is_none_or(|key| !known && checkpoint.verify(&key, &end).is_err()) {
                    let who = devices::name_of(replica, checkpoint.author)?;
                    return Err(Error::bundle(start, BundleProblem::Signature(who)));
                }
                let of_head = (head.lamport, head.wall, head.pair);
                frames::put_group(&replica.db, dev, (&checkpoint, bytes), of_head, &end, false)?;
                pending.push((dev, checkpoint.last));
                ready::apply_ready(replica, dev, report)?;
                if reader.offset() - start > replica.options.window_bytes as u64 {
                    break true;
                }
            }
            Item::End | Item::State(_) | Item::Part(_) | Item::Seal(..) => break false,
        }
    };
    if !pending.is_empty() {
        ready::apply_waiting(replica, report)?;
    }
    if let (false, Some(sender)) = (more, verified.sender) {
        let made = Some(verified.wall);
        peers::record_acknowledged(replica, sender, &verified.vector, made)?;
    }
    report.conflicts_opened += list::open_conflicts(replica)?.saturating_sub(conflicts_before);
    Ok(more)
}

/// What the first reading of a bundle found.
#[derive(Default)]
pub(crate) struct Verified {
    pub sender: Option<DeviceId>,
    pub vector: Vec<VectorEntry>,
    /// When the sender made it, by its clock.
    pub wall: i64,
    /// What it tells of this device's own log.
    pub evidence: PeerEvidence,
    /// The first checkpoints whose signatures are good: to verify one takes longer than all else about
    /// a small group, and need not be done twice. Where the bundle was changed since, they differ.
    signed: HashSet<[u8; 32]>,
}

/// How many checkpoints are remembered as verified: 32 bytes each.
const SIGNED_MAX: usize = 4_096;

/// What stands for a checkpoint and the frames that it signs.
fn signed(checkpoint: &[u8], end: &packmule_core::wire::Chain) -> [u8; 32] {
    Sha256::new().chain_update(checkpoint).chain_update(end.0).finalize().into()
}
