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
//! All of this is the same where it is encrypted; `secrecy` says what is different then.
//!
//! What is not left, for want of room or because the card was pulled out, is left the next time: what a
//! peer has is known from the peer alone. A file that takes in what another wrote in vain costs its reading and
//! nothing else, so a card may be copied, come late, or come twice.

mod counted;
pub(super) mod lacking;
mod leaving;
mod ours;
mod out;
mod problem;
mod report;
mod secrecy;

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use packmule_core::model::{DeviceId, Stream};

use lacking::{lacks, leave_out_not_taken, takes};
use ours::Ours;
use problem::{about_file, locked, read_only, torn};
pub use report::{Exchange, Left, NotLeft, Removed, Skipped};
use secrecy::Secrecy;

use super::volume::Volume;
use crate::engine::{
    Encryption, Engine, Error, More, Positions, Progress, Readers, Result, Retirement, Route, Span, Survey,
    Trusted,
};

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
    Visit::new((engine, card), limits, Secrecy::Clear, report).make(watch)
}

/// Exchanges with a card as [`exchange`] does, and leaves everything encrypted, to this device and all whose
/// certificates it knows. A device that knows none leaves its certificate alone, and its rows once it knows one.
///
/// # Errors
/// As [`exchange`].
pub fn exchange_encrypted(
    engine: &mut Engine,
    card: &mut dyn Volume,
    limits: &Limits,
    watch: &mut dyn FnMut(&Path, Progress),
    report: &mut Exchange,
) -> Result<()> {
    Visit::new((engine, card), limits, Secrecy::Nobody, report).make(watch)
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
    secrecy: Secrecy,
    /// An encrypted bundle lies there that this device cannot read.
    locked: bool,
}

impl<'a> Visit<'a> {
    fn new(
        (engine, card): (&'a mut Engine, &'a mut dyn Volume),
        limits: &'a Limits,
        secrecy: Secrecy,
        report: &'a mut Exchange,
    ) -> Self {
        engine.comes_by(Route::Card);
        Self {
            engine,
            card,
            limits,
            report,
            folder: None,
            ours: Vec::new(),
            fresh: Vec::new(),
            heard_of: Positions::new(),
            torn: Vec::new(),
            secrecy,
            locked: false,
        }
    }

    fn make(mut self, watch: &mut dyn FnMut(&Path, Progress)) -> Result<()> {
        self.take_in(watch)?;
        self.engine.seal()?;
        self.engine.remember()?;
        self.choose_readers()?;
        self.tidy()?;
        self.leave()?;
        self.report.waiting = self.ours.iter().map(|ours| ours.path.clone()).collect();
        Ok(())
    }

    fn take_in(&mut self, watch: &mut dyn FnMut(&Path, Progress)) -> Result<()> {
        let io = |path: &Path| Error::io("read the card's folder", path.to_path_buf());
        let mut paths = Vec::new();
        for entry in self.card.list(Path::new("")).map_err(io(Path::new(".")))? {
            let name = entry.name.to_string_lossy().to_ascii_uppercase();
            let named_so = name.ends_with(".PMB") && !name.starts_with('.');
            if entry.folder && name == FOLDER {
                self.folder = Some(entry.name);
            } else if entry.folder && named_so {
                self.report.stepped_over.push((entry.name, Skipped::Foreign));
            } else if named_so {
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
            let is_admitted =
                |why: &Error| matches!(why, Error::Untrusted(_) | Error::AsksForAdmission { .. });
            self.take_in_again(is_admitted, watch)?;
        }
        if !self.report.taken.is_empty() {
            // By what came with the others, one of two histories may be left here.
            self.take_in_again(|why| matches!(why, Error::Twin { .. }), watch)?;
        }
        Ok(())
    }

    /// Takes in once more those that were refused for such a reason.
    fn take_in_again(
        &mut self,
        is_such: fn(&Error) -> bool,
        watch: &mut dyn FnMut(&Path, Progress),
    ) -> Result<()> {
        let is_again = |why: &Skipped| matches!(why, Skipped::Refused(why) if is_such(why));
        let refused = self.report.stepped_over.extract_if(.., |(_, why)| is_again(why));
        let refused = refused.map(|(path, _)| path).collect();
        self.take_in_all(refused, watch)
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
        let in_folder = self.folder.as_deref().is_some_and(|folder| path.parent() == Some(folder));
        let file = self.card.open(path).map_err(Error::Stream)?;
        let mut file = match self.engine.open_bundle(file, None) {
            Err(problem) => {
                let noted = self.note_torn(path, in_folder && self.is_our_name(path), problem);
                self.locked |= noted.as_ref().is_err_and(locked);
                return noted;
            }
            Ok(file) => file,
        };
        let readers = match file.encryption() {
            Some(Encryption::Devices(devices)) => Some(devices.clone()),
            _ => None,
        };
        let survey = self.engine.survey(BufReader::new(&mut file));
        if let Some(problem) = survey.problem {
            // One that has not even a header is known by its name; to anybody it is nothing.
            let ours = survey.ours || survey.sender.is_none() && self.is_our_name(path);
            if let (true, Error::Twin { seq, .. }) = (survey.ours, &problem) {
                self.engine.hear_of_other_history(*seq)?;
            }
            return self.note_torn(path, in_folder && ours, problem);
        }
        self.note(&survey)?;
        let have = self.engine.positions()?;
        let (me, base) = (self.engine.identity().id, self.engine.identity().base);
        let new = |s: &Span| {
            let takes = s.stream == Stream::Shared || base || s.author == me;
            takes && s.last > have.get(&(s.author, s.stream)).copied().unwrap_or(0)
        };
        let for_us = survey.for_us || survey.ours;
        // Frames of ours that we do not have: the database was restored from a backup. Others than we have: it was copied.
        if for_us && (survey.apart || survey.spans.iter().any(new)) {
            let taken = self.engine.import_carried(&mut file, More::Bundles, &mut |at| watch(path, at))?;
            self.report.taken.push((path.into(), taken));
        } else if !survey.ours {
            io::Seek::rewind(&mut file).map_err(Error::Stream)?;
            let apart = self.engine.hear(BufReader::new(&mut file))?;
            if for_us && survey.spans.iter().any(|span| apart.contains(&span.author)) {
                // Frames of a history that is another one than is here: they show it.
                let taken =
                    self.engine.import_carried(&mut file, More::Bundles, &mut |at| watch(path, at))?;
                self.report.taken.push((path.into(), taken));
            } else {
                self.report.heard.push(path.into());
            }
        }
        // What a copy of our card left there is for others to hear: it alone removes it.
        if survey.ours && !survey.of_copy && in_folder {
            let Survey { of_now, receiver, vector, applied, spans, state, since, certificates, .. } = survey;
            self.ours.push(Ours {
                of_now,
                path: path.into(),
                receiver,
                vector,
                applied,
                spans,
                state,
                since,
                certificates,
                readers,
            });
        }
        Ok(())
    }

    /// Notes what whoever left a bundle has, and that another database has left one under our name.
    fn note(&mut self, survey: &Survey) -> Result<()> {
        for (of, seq) in survey.vector.iter().filter(|((_, stream), _)| *stream == Stream::Shared) {
            let known = self.heard_of.entry(*of).or_insert(0);
            *known = (*seq).max(*known);
        }
        if survey.of_copy { self.engine.hear_of_copy() } else { Ok(()) }
    }

    /// Notes one of ours that is torn, which is removed then; any other problem stays one.
    fn note_torn(&mut self, path: &Path, is_ours: bool, problem: Error) -> Result<()> {
        if !is_ours || !torn(&problem) {
            return Err(problem);
        }
        self.torn.push(path.into());
        Ok(())
    }

    /// Says why nothing is left for a device that is none of the peers.
    fn why_nothing_for(&self, receiver: DeviceId) -> Result<Removed> {
        Ok(match self.engine.retirement(receiver)? {
            _ if self.engine.is_revoked(receiver)? => Removed::Revoked,
            Some(Retirement::Gone) => Removed::Retired,
            Some(Retirement::GoesOn) => Removed::NewIdentity,
            None => Removed::Untrusted,
        })
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
                _ if let Some(why) = self.is_for_others_eyes(&ours, &peers)? => Some(why),
                _ if ours.spans.is_empty() => None,
                Some(receiver) => match peers.iter().chain(&returning).find(|peer| peer.id == receiver) {
                    None => Some(self.why_nothing_for(receiver)?),
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
                Err(e) => {
                    return Err(Error::io("remove a bundle that is not needed any more", path)(e).into());
                }
            }
        }
        Ok(self.card.sync_folder(&folder).map_err(Error::io("sync the card's folder", folder.clone()))?)
    }

    /// Removes bundles of ours that tell a history which was given up since: who has the other one takes nothing of what
    /// stands there, and is left it anew.
    fn remove_given_up(&mut self) -> Result<()> {
        let mut old = Vec::new();
        for ours in std::mem::take(&mut self.ours) {
            match self.engine.has_given_up(&ours.applied)? {
                true => old.push((ours.path, Removed::Superseded)),
                false => self.ours.push(ours),
            }
        }
        self.remove(old)
    }

    /// Leaves what others lack, and states what we have.
    fn leave(&mut self) -> Result<()> {
        if matches!(self.report.not_left, Some(NotLeft::ReadOnly)) {
            return Ok(());
        }
        self.remove_given_up()?;
        self.introduce()?;
        if matches!(self.secrecy, Secrecy::Nobody) {
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
            let is_old = |ours: &mut Ours| ours.spans.is_empty() && !self.secrecy.introduces(ours);
            let old: Vec<_> = self.ours.extract_if(.., is_old).collect();
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
            let lies_here = self
                .ours
                .iter()
                .any(|ours| ours.state && ours.receiver == Some(peer.id) && ours.opens_for(peer.id));
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
                let readers = self.secrecy.readers().map(Readers::devices);
                self.fresh.push(Ours {
                    of_now: true,
                    path,
                    receiver,
                    vector,
                    applied: Vec::new(),
                    spans,
                    state,
                    since,
                    certificates,
                    readers,
                });
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
            if self.ours.iter().any(|ours| ours.receiver == Some(peer.id) && ours.opens_for(peer.id)) {
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
        let states = |ours: &Ours| {
            ours.of_now
                && ours.vector == now
                && certificates.is_subset(&ours.certificates)
                && self.secrecy.fits(ours)
        };
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
                .filter(|ours| match receiver {
                    Some(device) => ours.opens_for(device),
                    None => self.secrecy.counts(ours),
                })
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
}
