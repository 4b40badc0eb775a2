//! The card: both ways with a directory that somebody carries.
//!
//! Bundles lie in the folder `PACKMULE`, under 8.3 names, and each is written once: body, sync, footer, sync,
//! sync of the folder. So a file that has its footer is whole, and what has no valid footer does not
//! exist. Nothing is overwritten, and nothing that another device wrote is removed. Bundles that people
//! put beside that folder (`*.pmb`) are taken in, and left alone.
//!
//! An exchange, in this order:
//!
//! 1. Every bundle is read to its end. One that is for this device or for anyone, and has something
//!    new, is taken in; of the others the header is heard: it states what its sender has. What is torn,
//!    foreign or of another version is named and skipped.
//! 2. What was written here is sealed.
//! 3. Bundles of ours are removed: those that were torn when a card was pulled out, and those that
//!    their receivers have acknowledged.
//! 4. What the others lack is left, unless it lies there already. A device that alone lacks something gets
//!    a bundle of its own. What several lack lies there once, for anyone. As long as nobody was heard of who
//!    gathers, everything is for anyone: the card may be on its way to a base that is not known yet.
//! 5. Every bundle states in its header what we have. If none of ours does that yet, one without frames is left,
//!    and takes the place of an older such one. Who is left out, since others take it to be gone, states it anew.
//!
//! What is not left, for want of room or because the card was pulled out, is left the next time: what a
//! peer has is known from the peer alone. A file that takes in what another wrote in vain costs its reading and
//! nothing else, so a card may be copied, come late, or come twice.

mod counted;
mod lacking;
mod problem;
mod report;

use std::collections::BTreeSet;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use packmule_core::model::{DeviceId, Stream, decode_hex};

use counted::Counted;
use lacking::{lacks, leave_out_not_taken, takes};
use problem::{about_file, full, read_only, torn};
pub use report::{Exchange, Left, NotLeft, Removed, Skipped};

use super::volume::{Sink, Volume};
use crate::engine::{Engine, Error, Part, PartReport, Positions, Progress, Result, Span, Survey, Trusted};

/// The folder on the card.
pub const FOLDER: &str = "PACKMULE";

/// How large files get.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file is closed, and the next one begun, after so many bytes.
    pub enough_bytes: u64,
    /// No file is longer than this.
    pub most_bytes: u64,
}

impl Default for Limits {
    /// Returns limits for files of about 1 GiB, and never more than FAT32 allows.
    fn default() -> Self {
        Self { enough_bytes: 1 << 30, most_bytes: (4 << 30) - 1 }
    }
}

/// A bundle of ours that lies on the card, whole.
struct Ours {
    path: PathBuf,
    receiver: Option<DeviceId>,
    vector: Positions,
    spans: Vec<Span>,
    /// It has the state of the shared tables, for who has this.
    state: bool,
    since: Positions,
    certificates: BTreeSet<[u8; 32]>,
}

/// Exchanges with a card, and reports what it did in `report`, also when it fails.
///
/// # Errors
/// Those of the engine about the database, and [`Error::Io`] if the card fails in another way than by
/// being full or read-only; what was taken in before stays.
pub fn exchange(
    engine: &mut Engine,
    card: &mut dyn Volume,
    limits: &Limits,
    watch: &mut dyn FnMut(&Path, Progress),
    report: &mut Exchange,
) -> Result<()> {
    let mut visit = Visit {
        engine,
        card,
        limits,
        report,
        folder: None,
        ours: Vec::new(),
        fresh: Vec::new(),
        heard_of: Positions::new(),
        torn: Vec::new(),
    };
    visit.take_in(watch)?;
    visit.engine.seal()?;
    visit.engine.remember()?;
    visit.tidy()?;
    visit.leave()?;
    visit.report.waiting = visit.ours.iter().map(|ours| ours.path.clone()).collect();
    Ok(())
}

struct Visit<'a> {
    engine: &'a mut Engine,
    card: &'a mut dyn Volume,
    limits: &'a Limits,
    report: &'a mut Exchange,
    /// Our folder, by the name that it has on the card, if it is there.
    folder: Option<PathBuf>,
    ours: Vec<Ours>,
    /// Those with a state that were left now.
    fresh: Vec<Ours>,
    /// Up to where the makers of bundles that lie here have shared streams.
    heard_of: Positions,
    torn: Vec<PathBuf>,
}

/// A file could not be written.
enum Failed {
    /// The card or the file was full after so many bytes.
    Full {
        written: u64,
    },
    /// Not even the first group has room, which has so many bytes.
    NoGroup {
        next_bytes: u64,
    },
    ReadOnly,
    Other(Error),
}

impl Visit<'_> {
    fn take_in(&mut self, watch: &mut dyn FnMut(&Path, Progress)) -> Result<()> {
        let io = |path: &Path| Error::io("read the card's folder", path.to_path_buf());
        let mut paths = Vec::new();
        for entry in self.card.list(Path::new("")).map_err(io(Path::new(".")))? {
            let name = entry.name.to_string_lossy().to_ascii_uppercase();
            if entry.folder && name == FOLDER {
                self.folder = Some(entry.name);
            } else if !entry.folder && name.ends_with(".PMB") && !name.starts_with('.') {
                paths.push(entry.name);
            }
        }
        if let Some(folder) = &self.folder {
            for entry in self.card.list(folder).map_err(io(folder))? {
                let path = folder.join(&entry.name);
                if entry.folder || !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("PMB")) {
                    self.report.stepped_over.push((path, Skipped::Foreign));
                } else {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        let before = self.engine.standing()?;
        self.take_in_all(paths, watch)?;
        if self.engine.standing()? != before {
            // Somebody was admitted by one of the files: perhaps whoever made another that was not taken in.
            let again = |why: &Skipped| {
                matches!(why, Skipped::Refused(Error::Untrusted(_) | Error::AsksForAdmission { .. }))
            };
            let refused = self.report.stepped_over.extract_if(.., |(_, why)| again(why));
            let refused = refused.map(|(path, _)| path).collect();
            self.take_in_all(refused, watch)?;
        }
        Ok(())
    }

    fn take_in_all(&mut self, paths: Vec<PathBuf>, watch: &mut dyn FnMut(&Path, Progress)) -> Result<()> {
        for path in paths {
            if let Err(e) = self.take_in_one(&path, watch) {
                if !about_file(&e) {
                    return Err(e);
                }
                self.report.stepped_over.push((path, Skipped::Refused(e)));
            }
        }
        Ok(())
    }

    fn take_in_one(&mut self, path: &Path, watch: &mut dyn FnMut(&Path, Progress)) -> Result<()> {
        let mut file = self.card.open(path).map_err(Error::Stream)?;
        let survey = self.engine.survey(BufReader::new(&mut file));
        let in_folder = self.folder.as_deref().is_some_and(|folder| path.parent() == Some(folder));
        if let Some(problem) = survey.problem {
            // One that has not even a header is known by its name; to anybody it is nothing.
            let ours = survey.ours || survey.sender.is_none() && self.is_our_name(path);
            if ours && in_folder && torn(&problem) {
                self.torn.push(path.into());
                return Ok(());
            }
            return Err(problem);
        }
        for (of, seq) in survey.vector.iter().filter(|((_, stream), _)| *stream == Stream::Shared) {
            let known = self.heard_of.entry(*of).or_insert(0);
            *known = (*seq).max(*known);
        }
        let have = self.engine.positions()?;
        let (me, base) = (self.engine.identity().id, self.engine.identity().base);
        let new = |s: &Span| {
            let takes = s.stream == Stream::Shared || base || s.author == me;
            takes && s.last > have.get(&(s.author, s.stream)).copied().unwrap_or(0)
        };
        let for_us = survey.receiver.is_none_or(|receiver| receiver == me) || survey.ours;
        // Frames of ours that we do not have: the database was restored from a backup.
        if for_us && survey.spans.iter().any(new) {
            let taken = self.engine.import(&mut file, &mut |at| watch(path, at))?;
            self.report.taken.push((path.into(), taken));
        } else if !survey.ours {
            io::Seek::rewind(&mut file).map_err(Error::Stream)?;
            self.engine.hear(BufReader::new(&mut file))?;
            self.report.heard.push(path.into());
        }
        if survey.ours && in_folder {
            let Survey { receiver, vector, spans, state, since, certificates, .. } = survey;
            self.ours.push(Ours { path: path.into(), receiver, vector, spans, state, since, certificates });
        }
        Ok(())
    }

    /// Removes bundles of ours that nobody needs.
    fn tidy(&mut self) -> Result<()> {
        let mut remove: Vec<_> =
            std::mem::take(&mut self.torn).into_iter().map(|p| (p, Removed::Torn)).collect();
        let peers: Vec<Trusted> = self.engine.peers()?;
        let returning = self.engine.returning()?;
        let gathered = self.is_gathered(&peers);
        let mut keep = Vec::new();
        for ours in std::mem::take(&mut self.ours) {
            let why = match ours.receiver {
                _ if ours.spans.is_empty() => None,
                Some(receiver) => match peers.iter().chain(&returning).find(|peer| peer.id == receiver) {
                    None => Some(Removed::Revoked),
                    Some(peer) => self.has(peer, &ours.spans)?.then_some(Removed::Acknowledged),
                },
                None => {
                    let mut all = gathered;
                    for peer in peers.iter().filter(|peer| peer.heard) {
                        all = all && self.has(peer, &ours.spans)?;
                    }
                    all.then_some(Removed::Acknowledged)
                }
            };
            match why {
                Some(why) => remove.push((ours.path, why)),
                None => keep.push(ours),
            }
        }
        self.ours = keep;
        self.remove(remove)
    }

    /// Returns whether somebody was heard of who may need something, and somebody gathers per-device rows.
    fn is_gathered(&self, peers: &[Trusted]) -> bool {
        let mut heard = peers.iter().filter(|peer| peer.heard).peekable();
        heard.peek().is_some() && (self.engine.identity().base || heard.any(|peer| peer.base))
    }

    fn has(&self, peer: &Trusted, spans: &[Span]) -> Result<bool> {
        let has = self.engine.acknowledged_by(peer.id)?;
        Ok(spans
            .iter()
            .filter(|s| takes(peer, s.author, s.stream))
            .all(|s| s.author == peer.id || has.get(&(s.author, s.stream)).is_some_and(|has| *has >= s.last)))
    }

    fn remove(&mut self, files: Vec<(PathBuf, Removed)>) -> Result<()> {
        let Some(folder) = self.folder.clone().filter(|_| !files.is_empty()) else { return Ok(()) };
        for (path, why) in files {
            match self.card.remove(&path) {
                Ok(()) => self.report.removed.push((path, why)),
                Err(e) if read_only(&e) => {
                    self.report.not_left = Some(NotLeft::ReadOnly);
                    return Ok(());
                }
                Err(e) => return Err(Error::io("remove a bundle that is not needed any more", path)(e)),
            }
        }
        self.card.sync_folder(&folder).map_err(Error::io("sync the card's folder", folder.clone()))
    }

    /// Leaves what others lack, and states what we have.
    fn leave(&mut self) -> Result<()> {
        if matches!(self.report.not_left, Some(NotLeft::ReadOnly)) {
            return Ok(());
        }
        let stated_before = self.is_stated()? && !self.is_left_out()?;
        let mut stated = stated_before | self.leave_states()? | self.leave_for_returning()?;
        if let Some((receiver, have)) = self.lacking()? {
            stated |= self.leave_parts(receiver, have)?;
        }
        if !stated && !matches!(self.report.not_left, Some(NotLeft::ReadOnly)) {
            let all = self.engine.positions()?;
            stated = self.leave_part(None, &all)?.is_some();
        }
        if stated && !stated_before {
            let old: Vec<_> = self.ours.extract_if(.., |ours| ours.spans.is_empty()).collect();
            self.remove(old.into_iter().map(|ours| (ours.path, Removed::Superseded)).collect())?;
        }
        Ok(())
    }

    /// Leaves each device that lacks what is folded here a bundle with the state, unless one lies here. Returns whether
    /// one was left.
    fn leave_states(&mut self) -> Result<bool> {
        let mut any = false;
        for peer in self.engine.peers()?.into_iter().filter(|peer| peer.heard) {
            let mut have = self.engine.acknowledged_by(peer.id)?;
            // Who was restored from a backup may have less than it said before.
            let lacks =
                |of: &(DeviceId, Stream), seq| have.get(of).map_or(of.0 != peer.id, |have| *have < seq);
            let of_no_use = |ours: &mut Ours| {
                ours.receiver == Some(peer.id) && ours.since.iter().any(|(of, seq)| lacks(of, *seq))
            };
            let useless: Vec<_> = self.ours.extract_if(.., of_no_use).collect();
            self.remove(useless.into_iter().map(|ours| (ours.path, Removed::Superseded)).collect())?;
            let lies_here = self.ours.iter().any(|ours| ours.state && ours.receiver == Some(peer.id));
            if lies_here || !self.engine.needs_state(&peer)? {
                continue;
            }
            let vector = self.engine.positions()?;
            leave_out_not_taken(&peer, vector.keys().copied(), &mut have);
            if let Some(part) = self.leave_part(Some(peer.id), &have)?.filter(|part| part.state) {
                let spans = part.reached.iter().map(|((author, stream), last)| {
                    let first = have.get(&(*author, *stream)).copied().unwrap_or(0) + 1;
                    Span::new(*author, *stream, first, *last)
                });
                let spans = spans.collect();
                let path = self.report.left.last().map(|left| left.file.clone()).unwrap_or_default();
                let certificates = self.engine.stated_certificates()?;
                let (receiver, state, since) = (Some(peer.id), true, Positions::new());
                self.fresh.push(Ours { path, receiver, vector, spans, state, since, certificates });
                any = true;
            }
        }
        Ok(any)
    }

    /// Leaves each retired device that has spoken since a bundle with what it lacks, unless one lies here. Returns whether
    /// one was left.
    fn leave_for_returning(&mut self) -> Result<bool> {
        let mut any = false;
        for peer in self.engine.returning()? {
            if self.ours.iter().any(|ours| ours.receiver == Some(peer.id)) {
                continue;
            }
            let mut have = self.engine.acknowledged_by(peer.id)?;
            leave_out_not_taken(&peer, self.engine.positions()?.into_keys(), &mut have);
            any |= self.leave_part(Some(peer.id), &have)?.is_some();
        }
        Ok(any)
    }

    /// Returns whether others who were here have what we lack, and left none of it for us: they may think that we have it,
    /// or that we are gone. So we say anew what we have.
    fn is_left_out(&self) -> Result<bool> {
        let have = self.engine.positions()?;
        Ok(self.heard_of.iter().any(|(of, seq)| *seq > have.get(of).copied().unwrap_or(0)))
    }

    /// Returns whether a bundle of ours states what we have now, and who we are.
    fn is_stated(&self) -> Result<bool> {
        let now = self.engine.positions()?;
        let certificates = self.engine.stated_certificates()?;
        let states = |ours: &Ours| ours.vector == now && certificates.is_subset(&ours.certificates);
        Ok(self.ours.iter().any(states))
    }

    /// Returns who lacks something that does not lie here yet: for whom a bundle is to be, and what needs not go in.
    fn lacking(&self) -> Result<Option<(Option<DeviceId>, Positions)>> {
        let log = self.engine.log_spans()?;
        let peers = self.engine.peers()?;
        if !self.is_gathered(&peers) {
            let have = self.with_ours(&log, Positions::new(), None)?;
            return Ok(lacks(&log, &have, None).then_some((None, have)));
        }
        let mut found: Option<(Option<DeviceId>, Positions)> = None;
        for peer in peers.into_iter().filter(|peer| peer.heard) {
            let has = self.engine.acknowledged_by(peer.id)?;
            let mut have = self.with_ours(&log, has, Some(peer.id))?;
            if !lacks(&log, &have, Some(&peer)) {
                continue;
            }
            leave_out_not_taken(&peer, log.iter().map(|s| (s.author, s.stream)), &mut have);
            found = Some(match found {
                None => (Some(peer.id), have),
                // What several lack lies there once: from what the least informed of them has.
                Some((_, mut least)) => {
                    for (of, seq) in &mut least {
                        *seq = (*seq).min(have.get(of).copied().unwrap_or(0));
                    }
                    (None, least)
                }
            });
        }
        Ok(found)
    }

    /// Returns what a device has once it has taken in the bundles of ours that lie here, of what the log has.
    fn with_ours(&self, log: &[Span], has: Positions, receiver: Option<DeviceId>) -> Result<Positions> {
        // What is not in the log any more is not a matter of these bundles, not even a stream that is folded as a whole.
        let mut have = self.engine.positions()?;
        for stream in log {
            let of = (stream.author, stream.stream);
            let mut seq = has.get(&of).copied().unwrap_or(0).max(stream.first - 1);
            let mut spans: Vec<&Span> = self
                .ours
                .iter()
                .chain(&self.fresh)
                .filter(|ours| ours.receiver.is_none() || ours.receiver == receiver)
                .flat_map(|ours| &ours.spans)
                .filter(|span| (span.author, span.stream) == of)
                .collect();
            spans.sort_by_key(|span| span.first);
            for span in spans {
                if span.first <= seq + 1 {
                    seq = seq.max(span.last);
                }
            }
            have.insert(of, seq);
        }
        Ok(have)
    }

    /// Leaves as many files as are needed. Returns whether there is one.
    fn leave_parts(&mut self, receiver: Option<DeviceId>, mut have: Positions) -> Result<bool> {
        let mut any = false;
        while let Some(part) = self.leave_part(receiver, &have)? {
            any = true;
            if part.next_bytes.is_none() {
                break;
            }
            have.extend(part.reached);
        }
        Ok(any)
    }

    /// Leaves one file, with as much as there is room for; `None` if it could not be left.
    fn leave_part(&mut self, receiver: Option<DeviceId>, have: &Positions) -> Result<Option<PartReport>> {
        let mut room = self.card.room().unwrap_or(u64::MAX);
        // What is reported free may not be; each time less is tried.
        for _ in 0..8 {
            let most_bytes = room.min(self.limits.most_bytes);
            let part = Part { receiver, have, enough_bytes: self.limits.enough_bytes, most_bytes };
            match self.write(&part) {
                Ok((file, written)) => {
                    let PartReport { frames, bytes, state, .. } = written;
                    self.report.left.push(Left { file, receiver, frames, bytes, state });
                    return Ok(Some(written));
                }
                Err(Failed::NoGroup { next_bytes }) => {
                    let too_long = room > self.limits.most_bytes;
                    self.report.not_left = Some(if too_long {
                        NotLeft::TooLong { next_bytes }
                    } else {
                        NotLeft::Full { next_bytes: Some(next_bytes) }
                    });
                    return Ok(None);
                }
                Err(Failed::Full { written }) => room = most_bytes.min(written) / 4 * 3,
                Err(Failed::ReadOnly) => {
                    self.report.not_left = Some(NotLeft::ReadOnly);
                    return Ok(None);
                }
                Err(Failed::Other(e)) => return Err(e),
            }
        }
        self.report.not_left = Some(NotLeft::Full { next_bytes: None });
        Ok(None)
    }

    /// Writes a file: whole, or not at all, unless the card goes away.
    fn write(&mut self, part: &Part<'_>) -> std::result::Result<(PathBuf, PartReport), Failed> {
        let folder = self.make_folder()?;
        let (path, sink) = self.create(&folder)?;
        let mut out = BufWriter::with_capacity(1 << 16, Counted { sink, bytes: 0 });
        let written = self.engine.export_part(&mut out, part).and_then(|report| {
            if report.groups == 0 && report.next_bytes.is_some() {
                return Ok(report);
            }
            out.flush()
                .and_then(|()| out.get_mut().sink.sync())
                .and_then(|()| out.get_mut().sink.write_all(&report.footer))
                .and_then(|()| out.get_mut().sink.sync())
                .map_err(Error::Stream)?;
            Ok(report)
        });
        // Without flushing: what could not be written would be tried again.
        let bytes = out.into_parts().0.bytes;
        let failed = match written {
            Ok(PartReport { groups: 0, next_bytes: Some(next_bytes), .. }) => Failed::NoGroup { next_bytes },
            Ok(report) => match self.card.sync_folder(&folder) {
                Ok(()) => return Ok((path, report)),
                Err(e) => failed(e, "sync the card's folder", &folder),
            },
            Err(Error::Stream(e)) if full(&e) => Failed::Full { written: bytes },
            Err(Error::Stream(e)) => failed(e, "write to the card the file", &path),
            Err(e) => Failed::Other(e),
        };
        // It is torn, and not there to anyone. If it cannot be removed now, it is the next time.
        let _ = self.card.remove(&path).and_then(|()| self.card.sync_folder(&folder));
        Err(failed)
    }

    fn make_folder(&mut self) -> std::result::Result<PathBuf, Failed> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let folder = PathBuf::from(FOLDER);
        match self.card.create_folder(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e, "make on the card the folder", &folder)),
        }
        self.folder = Some(folder.clone());
        Ok(folder)
    }

    /// Returns what the number that is a file's name begins with, in its upper 20 bits: the device's id does too.
    fn prefix(&self) -> u32 {
        self.engine.identity().id.short() & !0xfff
    }

    fn is_our_name(&self, path: &Path) -> bool {
        number(path).is_some_and(|number| number & !0xfff == self.prefix())
    }

    /// Creates a new file: five digits of our id, and three that count.
    fn create(&mut self, folder: &Path) -> std::result::Result<(PathBuf, Box<dyn Sink>), Failed> {
        let prefix = self.prefix();
        let listed = self.card.list(folder).map_err(|e| failed(e, "read the card's folder", folder))?;
        let taken: BTreeSet<u32> =
            listed.iter().filter_map(|entry| number(&entry.name)).filter(|n| n & !0xfff == prefix).collect();
        let next = taken.last().map_or(0, |last| last + 1);
        for n in (0..=0xfff).map(|n| prefix | (next + n) & 0xfff).filter(|n| !taken.contains(n)) {
            let path = folder.join(format!("{n:08X}.PMB"));
            match self.card.create_new(&path) {
                Ok(sink) => return Ok((path, sink)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e, "make on the card the file", &path)),
            }
        }
        Err(Failed::Full { written: 0 })
    }
}

/// Returns the number that is a file's name, if it is one of ours or of others.
fn number(path: &Path) -> Option<u32> {
    let name = path.file_stem()?.to_str()?;
    let mut number = [0; 4];
    decode_hex(name, &mut number).ok()?;
    Some(u32::from_be_bytes(number))
}

fn failed(e: io::Error, doing: &'static str, path: &Path) -> Failed {
    match e {
        e if read_only(&e) => Failed::ReadOnly,
        e if full(&e) => Failed::Full { written: 0 },
        e => Failed::Other(Error::io(doing, path)(e)),
    }
}
