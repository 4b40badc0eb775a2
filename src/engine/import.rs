//! Import: verify → store → order → apply → commit, window by window.
//!
//! A bundle is read twice: once to verify all of it, so that a damaged one changes nothing; once to
//! take it in. Frames go to the log first. A group is applied when everything that its author had
//! seen is applied; until then it waits in the log.

use std::collections::{HashMap, HashSet};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Checkpoint, VectorEntry};
use sha2::{Digest, Sha256};

use super::bundle::{BundleReader, HeaderCheck, Item};
use super::devices::StreamPosition;
use super::error::{BundleProblem, Error, Result, Stranger};
use super::seal::SealOptions;
use super::twin::{Mirror, applied};
use super::waits::Wait;
use super::{Engine, Options, log, store};

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

/// What an import did.
#[derive(Clone, Debug, Default)]
pub struct ImportReport {
    /// Frames that are new here.
    pub frames: u64,
    /// Frames that were here already.
    pub known: u64,
    /// Frames of per-device tables of others, which only bases take.
    pub passed_over: u64,
    /// Rows applied.
    pub ops: u64,
    /// Rows among them that wait in the log, for a table or column that is not here.
    pub ops_waiting: u64,
    /// Conflicts that are open now and were not before.
    pub conflicts_opened: u64,
    /// Groups that wait for others.
    pub waits: Vec<Wait>,
    /// Rows of a database file that could not be sealed there.
    pub unsealed: u64,
    /// This device, or the one whose database was taken in, turned out to be a second history of another, and
    /// is called this now.
    pub new_identity: Option<String>,
}

impl Engine {
    /// Takes in a bundle.
    ///
    /// Importing it again, whole or in part, changes nothing.
    ///
    /// # Errors
    /// [`Error::Bundle`] if it is damaged, [`Error::Strangers`] if it has frames of devices that are not
    /// trusted, [`Error::Twin`] if a device in it has two histories; nothing is changed then.
    pub fn import<R: Read + Seek>(
        &mut self,
        bundle: &mut R,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportReport> {
        let total = bundle.seek(SeekFrom::End(0)).map_err(Error::Stream)?;
        bundle.rewind().map_err(Error::Stream)?;
        let verified = self.reading(|e| {
            e.verify_bundle(BufReader::new(&mut *bundle), &mut |done| {
                progress(Progress { done, total, verifying: true })
            })
        });
        self.name_twin(&verified)?;
        let verified = verified?;
        let was = self.identity.id;
        self.face(&verified.mirror)?;
        bundle.rewind().map_err(Error::Stream)?;
        let mut report = ImportReport::default();
        let mut reader = BundleReader::new(BufReader::new(&mut *bundle));
        let mut more = true;
        while more {
            let mut tell = |done| progress(Progress { done, total, verifying: false });
            more = self.transaction(|e| e.take_in_window(&mut reader, &verified, &mut report, &mut tell))?;
            tell(reader.offset());
        }
        report.waits = self.waits()?;
        report.new_identity = self.called_anew(was);
        Ok(report)
    }

    /// The first half of an import alone: refuses what [`Engine::import`] would refuse, and changes nothing.
    ///
    /// # Errors
    /// As [`Engine::import`].
    pub fn check<R: Read + Seek>(&self, bundle: &mut R) -> Result<()> {
        bundle.rewind().map_err(Error::Stream)?;
        self.reading(|e| e.verify_bundle(BufReader::new(&mut *bundle), &mut |_| ()))?;
        bundle.rewind().map_err(Error::Stream)
    }

    /// Takes in what another device's database file has, and seals it there first if its key lies
    /// beside it.
    ///
    /// # Errors
    /// As [`Engine::import`]; [`Error::Source`] if the file cannot be read, is no device, or cannot be
    /// sealed for another reason than that it must not be written to.
    pub fn import_database(
        &mut self,
        path: &std::path::Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportReport> {
        let quick = || Options { busy_ms: self.options.busy_ms, ..Options::default() };
        let of_source = |error| Error::Source { path: path.into(), error: Box::new(error) };
        let mut source = match Engine::open_with(path, quick()) {
            Err(Error::Sqlite(_)) => Engine::open_read_only(path, quick()),
            source => source,
        }
        .map_err(of_source)?;
        if source.identity.id == self.identity.id {
            return Err(Error::Usage(format!("{} is this device itself, or a copy of it", path.display())));
        }
        let mirror = self.refuse_other_history(&source);
        self.name_twin(&mirror)?;
        let (mirror, was) = (mirror?, source.identity.id);
        if source.can_sign() && !source.db.is_readonly(rusqlite::MAIN_DB)? {
            source.face(&mirror).map_err(of_source)?;
        }
        if source.can_sign() {
            match source.seal() {
                Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => {}
                sealed => sealed.map(|_| ()).map_err(of_source)?,
            }
        }
        // Through a file, since a bundle is verified before it is taken in; its name is gone at once.
        let mut spool = tempfile::tempfile_in(self.path.parent().unwrap_or(std::path::Path::new(".")))
            .map_err(Error::io("make a temporary file beside", &self.path))?;
        let key = self.signing_key()?;
        let here: HashMap<_, _> =
            self.vector()?.into_iter().map(|entry| ((entry.author, entry.stream), entry.seq)).collect();
        let have = |id, stream| Ok(here.get(&(id, stream)).copied().unwrap_or(0));
        let exported = source
            .export_for_courier(&mut BufWriter::new(&mut spool), (key, self.identity.id), &have)
            .map_err(of_source)?;
        let new_identity = source.called_anew(was);
        drop(source);
        let mut report = self.import(&mut spool, progress)?;
        report.unsealed = exported.unsealed;
        report.new_identity = new_identity;
        Ok(report)
    }

    /// Reads all of a bundle and refuses what must be refused.
    fn verify_bundle(&self, input: impl Read, progress: &mut dyn FnMut(u64)) -> Result<Verified> {
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
                Item::Certificate(certificate, _) => match self.judge(&certificate)? {
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
                    let seen = frame.context().filter(|(id, _)| *id == self.identity.id);
                    seen.for_each(|(_, seq)| verified.mirror.has(Stream::Shared, seq));
                    if strangers.iter().all(|s| s.id != id) && self.key_for(&keys, id)?.is_none() {
                        strangers.push(Stranger { id, name: None, revoked: false });
                    }
                }
                Item::Checkpoint(checkpoint, bytes, end) => {
                    let Some(key) = self.key_for(&keys, checkpoint.author)? else { continue };
                    if checkpoint.verify(&key, &end).is_err() {
                        let who = self.name_of(checkpoint.author)?;
                        return Err(Error::bundle(at, BundleProblem::Signature(who)));
                    }
                    if verified.signed.len() < SIGNED_MAX {
                        verified.signed.insert(signed(bytes, &end));
                    }
                    if checkpoint.author == self.identity.id {
                        let fit = self.fit(&checkpoint, Some(&end), &key)?;
                        let position = self.position(self.me, checkpoint.stream)?.seq;
                        verified.mirror.see(&checkpoint, fit, position);
                    } else {
                        self.refuse_twin(&checkpoint, Some(&end), &key)?;
                    }
                }
                Item::End => break,
                Item::State(_) | Item::Part(_) | Item::Seal(..) => {
                    return Err(Error::Usage(
                        "this is a snapshot, not a bundle: `packmule join` starts from it".into(),
                    ));
                }
            }
        }
        if !strangers.is_empty() {
            return Err(Error::Strangers(strangers));
        }
        if let Some(sender) = verified.sender {
            let Verified { vector, mirror, .. } = &mut verified;
            let apart = self.compare_vector(sender, vector, mirror)?;
            // A copy of this device, or a device that has another history of itself than is here: only
            // who hears of it from a third knows which of them is the second.
            let copy = mirror.apart_from().filter(|_| sender == self.identity.id);
            if let Some(seq) = apart.or(copy) {
                return Err(Error::Twin { device: self.name_of(sender)?, seq });
            }
        }
        if let (Some(check), Some(sender)) = (header_check, verified.sender) {
            match self.key_for(&keys, sender)? {
                Some(key) if check.verify(&key) => {}
                Some(_) => {
                    return Err(Error::bundle(0, BundleProblem::Signature(self.name_of(sender)?)));
                }
                None => {
                    return Err(Error::Strangers(vec![Stranger { id: sender, name: None, revoked: false }]));
                }
            }
        }
        Ok(verified)
    }

    fn key_for(&self, keys: &[(DeviceId, [u8; 32])], id: DeviceId) -> Result<Option<[u8; 32]>> {
        match keys.iter().find(|(known, _)| *known == id) {
            Some((_, key)) => Ok(Some(*key)),
            None => self.trusted_key(id),
        }
    }

    pub(crate) fn name_of(&self, id: DeviceId) -> Result<String> {
        match self.device_number(id)? {
            Some(n) => self.device_label(n),
            None => Ok(id.to_string()),
        }
    }

    /// Takes in as many groups as make a window; whether there is more.
    fn take_in_window(
        &self,
        reader: &mut BundleReader<impl Read>,
        verified: &Verified,
        report: &mut ImportReport,
        tell: &mut dyn FnMut(u64),
    ) -> Result<bool> {
        self.begin_settling()?;
        // What was written here before this moment did not take the others into account.
        self.seal_here(SealOptions::default())?;
        let conflicts_before = self.open_conflicts()?;
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
                    if let Ok(trust) = self.judge(&certificate)? {
                        self.learn(&certificate, bytes, trust)?;
                    }
                }
                Item::Frame(section, frame, body) => {
                    let dev = self.device_number_or_new(section.author)?;
                    if let Some(head) = frame.group {
                        let have = self.position(dev, section.stream)?.seq;
                        let ours = section.stream == Stream::Shared || self.identity.base || dev == self.me;
                        group = Some((head, frame.head.seq > have && ours));
                        report.passed_over += u64::from(!ours);
                    }
                    if matches!(group, Some((_, true))) {
                        let new = log::put_frame(&self.db, dev, section.stream, frame.head.seq, body)?;
                        report.frames += u64::from(new);
                        report.known += u64::from(!new);
                    } else {
                        report.known += 1;
                    }
                }
                Item::Checkpoint(checkpoint, bytes, end) => {
                    let Some((head, true)) = group.take() else { continue };
                    let dev = self.device_number_or_new(checkpoint.author)?;
                    let key = self.trusted_key(checkpoint.author)?;
                    let known = verified.signed.contains(&signed(bytes, &end));
                    if key.is_none_or(|key| !known && checkpoint.verify(&key, &end).is_err()) {
                        let who = self.name_of(checkpoint.author)?;
                        return Err(Error::bundle(start, BundleProblem::Signature(who)));
                    }
                    let of_head = (head.lamport, head.wall, head.pair);
                    log::put_group(&self.db, dev, (&checkpoint, bytes), of_head, &end, false)?;
                    pending.push((dev, checkpoint.last));
                    self.apply_ready(dev, report)?;
                    if reader.offset() - start > self.options.window_bytes as u64 {
                        break true;
                    }
                }
                Item::End | Item::State(_) | Item::Part(_) | Item::Seal(..) => break false,
            }
        };
        if !pending.is_empty() {
            self.apply_waiting(report)?;
        }
        if let (false, Some(sender)) = (more, verified.sender) {
            let made = Some(verified.wall);
            self.note_acknowledged(sender, &verified.vector, made)?;
        }
        report.conflicts_opened += self.open_conflicts()?.saturating_sub(conflicts_before);
        Ok(more)
    }

    /// Applies groups of one author as long as the next one is ready.
    fn apply_ready(&self, dev: i64, report: &mut ImportReport) -> Result<bool> {
        let mut any = false;
        while self.apply_next(dev, Stream::Shared, report)? || self.apply_next(dev, Stream::Own, report)? {
            any = true;
        }
        Ok(any)
    }

    /// Applies all waiting groups whose time has come.
    pub(crate) fn apply_waiting(&self, report: &mut ImportReport) -> Result<()> {
        loop {
            let mut statement = self.db.prepare_cached(
                "SELECT DISTINCT dev FROM _pm_group INDEXED BY _pm_group_waiting WHERE NOT applied",
            )?;
            let devs = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
            let mut any = false;
            for dev in devs {
                any |= self.apply_ready(dev, report)?;
            }
            if !any {
                return Ok(());
            }
        }
    }

    /// Applies the next group of a stream, with the group of the same seal in the other stream, if
    /// all that they need is here.
    fn apply_next(&self, dev: i64, stream: Stream, report: &mut ImportReport) -> Result<bool> {
        let Some(next) = self.next_group(dev, stream)? else { return Ok(false) };
        let mut groups = vec![next];
        if next.pair != 0 && (self.identity.base || dev == self.me) {
            let other = stream.other();
            match self.next_group(dev, other)? {
                // Both or neither; which of them is asked about does not matter.
                Some(pair) if pair.first == next.pair => groups.push(pair),
                _ if self.position(dev, other)?.seq >= next.pair => {}
                // From a device that will not come back, the other part may never come.
                _ if self.is_retired(dev)? => {}
                _ => return Ok(false),
            }
        }
        groups.sort_by_key(|g| g.stream.number());
        for group in &groups {
            let within = groups.len() == 2;
            if self.lacks(dev, group, within)?.is_some() {
                return Ok(false);
            }
        }
        for group in groups {
            let counts = self.apply_group(dev, group.stream, group.first, group.last)?;
            report.ops += counts.ops;
            report.ops_waiting += counts.waiting;
            self.db
                .prepare_cached(
                    "UPDATE _pm_group SET applied = 1 WHERE dev = ?1 AND stream = ?2 AND last = ?3",
                )?
                .execute((dev, group.stream.number(), group.last))?;
            self.set_position(dev, group.stream, StreamPosition { seq: group.last, chain: group.chain })?;
            let lamport = store::get::<u64>(&self.db, "lamport")?.unwrap_or(0);
            store::set(&self.db, "lamport", lamport.max(group.lamport))?;
            if dev == self.me {
                self.note_same(group.stream, group.last)?; // Others had it.
            }
        }
        Ok(true)
    }

    /// The group that continues a stream, if it is in the log.
    pub(crate) fn next_group(&self, dev: i64, stream: Stream) -> Result<Option<Next>> {
        use rusqlite::OptionalExtension;
        let position = self.position(dev, stream)?;
        let found = self
            .db
            .prepare_cached(
                "SELECT last, pair, lamport, chain, checkpoint FROM _pm_group INDEXED BY _pm_group_waiting
                 WHERE dev = ?1 AND stream = ?2 AND first = ?3 AND NOT applied",
            )?
            .query_row((dev, stream.number(), position.seq + 1), |row| {
                Ok((
                    Next {
                        stream,
                        first: position.seq + 1,
                        last: row.get(0)?,
                        pair: row.get(1)?,
                        lamport: row.get(2)?,
                        chain: packmule_core::wire::Chain(row.get(3)?),
                    },
                    row.get::<_, Vec<u8>>(4)?,
                ))
            })
            .optional()?;
        let Some((next, checkpoint)) = found else { return Ok(None) };
        let checkpoint = Checkpoint::decode(&checkpoint).map_err(super::log::bad)?;
        if checkpoint.prev != position.chain {
            // It waited past a gap; what filled the gap is another history.
            return Err(Error::Twin { device: self.device_label(dev)?, seq: next.first });
        }
        Ok(Some(next))
    }

    /// What the sender of a bundle, or the peer of a session, has, and that we heard of it. The vector was
    /// compared with what is here. The wall time at which it said so tells an old bundle from one of a device that
    /// was set back; in a session, it is now.
    pub(crate) fn note_acknowledged(
        &self,
        sender: DeviceId,
        vector: &[VectorEntry],
        made: Option<i64>,
    ) -> Result<()> {
        if sender == self.identity.id {
            return Ok(());
        }
        let peer = self.device_number_or_new(sender)?;
        self.note_set_back(sender, vector, made)?;
        for entry in applied(vector) {
            let dev = self.device_number_or_new(entry.author)?;
            self.db
                .prepare_cached(
                    "INSERT INTO _pm_ack (peer, dev, stream, seq) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (peer, dev, stream) DO UPDATE SET seq = max(seq, excluded.seq)",
                )?
                .execute((peer, dev, entry.stream.number(), entry.seq))?;
        }
        for entry in vector.iter().filter(|entry| entry.author == self.identity.id) {
            if entry.seq <= self.position(self.me, entry.stream)?.seq {
                self.note_same(entry.stream, entry.seq)?;
            }
        }
        self.db
            .prepare_cached("UPDATE _pm_device SET heard = ?2 WHERE n = ?1")?
            .execute((peer, self.now()))?;
        Ok(())
    }
}

/// A group that continues its stream.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    pub stream: Stream,
    pub first: u64,
    pub last: u64,
    pub pair: u64,
    pub lamport: u64,
    pub chain: packmule_core::wire::Chain,
}

/// What the first reading of a bundle found.
#[derive(Default)]
pub(crate) struct Verified {
    pub sender: Option<DeviceId>,
    pub vector: Vec<VectorEntry>,
    /// When the sender made it, by its clock.
    pub wall: i64,
    /// What it tells of this device's own log.
    pub mirror: Mirror,
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
