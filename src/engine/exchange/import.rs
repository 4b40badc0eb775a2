//! Import: verify → store → order → apply → commit, window by window.
//!
//! A bundle is read twice: once to verify all of it, so that a damaged one changes nothing; once to
//! take it in. Frames go to the log first. A group is applied when everything that its author had
//! seen is applied; until then it is pending in the log.

use std::io::{BufReader, Read, Seek, SeekFrom};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{
    Certificate, Chain, Checkpoint, Frame, FrameFlags, HeaderReader, Revocation, Section,
};

use crate::engine::apply::report::ImportReport;
use crate::engine::apply::{pending, ready, refill};
use crate::engine::capture::{append, verdict};
use crate::engine::conflicts::walk;
use crate::engine::error::{BundleProblem, Error, Result, UntrustedDevice};
use crate::engine::exchange::admit::{self, Found};
use crate::engine::exchange::state_rows::{Proof, StateRow};
use crate::engine::exchange::verified::{Known, Progress, Verified};
use crate::engine::exchange::window::Window;
use crate::engine::exchange::{
    certificates, give_up, inspect, newest, reconcile, revoke, session, survey, transaction, twin,
};
use crate::engine::fleet::peers::{Fit, OtherHistory, PeerEvidence};
use crate::engine::fleet::{admission, devices, membership, positions, revocation, trust};
use crate::engine::log::bundle::{BundleReader, HeaderCheck, Item};
use crate::engine::log::frames;
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;
use crate::engine::track::gathered;

/// Whether more bundles come with the one that is taken in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// It comes alone.
    Nothing,
    /// Others come by the same carrier, which may answer what this one leaves open: whoever has taken in all of them seals.
    Bundles,
}

/// Takes in a bundle.
///
/// Importing it again, whole or in part, changes nothing.
pub(crate) fn import<R: Read + Seek>(
    replica: &mut Replica,
    bundle: &mut R,
    comes: More,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport> {
    let total = bundle.seek(SeekFrom::End(0)).map_err(Error::Stream)?;
    bundle.rewind().map_err(Error::Stream)?;
    let mut verifying = |done| progress(Progress { done, total, verifying: true });
    let (mut found, mut other) = (Found::default(), None);
    let mut verified = catalog::reading(replica, |e| {
        verify_bundle(e, BufReader::new(&mut *bundle), (&mut found, &mut other), &mut verifying)
    });
    // What is in order, or is only not trusted, may have what makes it trusted.
    if verified.as_ref().err().is_none_or(|e| matches!(**e, Error::Untrusted(_)))
        && admit::take(replica, &found)?
    {
        bundle.rewind().map_err(Error::Stream)?;
        let input = BufReader::new(&mut *bundle);
        verified = catalog::reading(replica, |e| {
            verify_bundle(e, input, (&mut Found::default(), &mut other), &mut verifying)
        });
    }
    if verified.as_ref().is_err_and(|e| e.is_of_revoked()) && survey::hear_fleet_key(replica, bundle)? {
        bundle.rewind().map_err(Error::Stream)?;
        let input = BufReader::new(&mut *bundle);
        verified = catalog::reading(replica, |e| {
            verify_bundle(e, input, (&mut Found::default(), &mut other), &mut verifying)
        });
    }
    if verified.as_ref().is_err_and(|e| matches!(**e, Error::Twin { .. })) {
        session::name_twin(replica, &verified)?;
        survey::hear_refused(replica, bundle, other)?;
    }
    let mut verified = admit::who_asks(replica, &found, verified)?;
    if let Some(wait) = verified.lacks.take() {
        let mut waits = pending::pending_groups(replica)?;
        waits.push(wait);
        return Ok(ImportReport { waits, ..ImportReport::default() });
    }
    if verified.has_state || verified.shows_histories() {
        // A state is merged, and frames get another author, where nothing is left open of the files before.
        transaction::settle(replica)?;
    }
    let was = replica.identity.id;
    if reconcile::reconcile_own_log(replica, &verified.evidence)? {
        // Under its new identity the log of the one before is another device's, and has other news.
        bundle.rewind().map_err(Error::Stream)?;
        verified = catalog::reading(replica, |e| {
            let input = BufReader::new(&mut *bundle);
            verify_bundle(e, input, (&mut Found::default(), &mut None), &mut verifying)
        })?;
    }
    reconcile::leave_other_history(replica, &mut verified)?;
    // A device that waits to know where its history ends takes nothing in: it has rows that must be sealed before.
    let waits = reconcile::only_hears(replica, &verified)?;
    if !waits {
        give_up::decide(replica, &mut verified)?;
    }
    if waits || !verified.any_news {
        let Known { frames: known, skipped } = verified.known;
        let waits = pending::pending_groups(replica)?;
        return Ok(ImportReport { known, skipped, waits, ..ImportReport::default() });
    }
    let mut report = take_in(replica, bundle, comes, &verified, (total, progress))?;
    report.waits = pending::pending_groups(replica)?;
    report.new_identity = twin::new_identity_label(replica, was);
    Ok(report)
}

/// Takes in what is in a bundle that is verified, and has so many bytes.
fn take_in<R: Read + Seek>(
    replica: &mut Replica,
    bundle: &mut R,
    comes: More,
    verified: &Verified,
    (total, progress): (u64, &mut dyn FnMut(Progress)),
) -> Result<ImportReport> {
    bundle.rewind().map_err(Error::Stream)?;
    let mut report = ImportReport::default();
    let mut reader = BundleReader::new(BufReader::new(&mut *bundle));
    let mut more = true;
    while more {
        let mut progress = |done| progress(Progress { done, total, verifying: false });
        more = transaction::transaction(replica, |e| {
            let more = take_in_window(e, &mut reader, verified, &mut report, &mut progress)?;
            if !more && comes == More::Nothing {
                // At the end, and not for each window: what comes later may answer it.
                verdict::seal_verdict(e)?;
            }
            Ok(more)
        })?;
        progress(reader.offset());
    }
    Ok(report)
}

/// Verifies a bundle: refuses what [`import`] would refuse, and changes nothing.
pub(crate) fn check<R: Read + Seek>(replica: &Replica, bundle: &mut R) -> Result<()> {
    bundle.rewind().map_err(Error::Stream)?;
    let input = BufReader::new(&mut *bundle);
    let mut found = Found::default();
    let verified =
        catalog::reading(replica, |e| verify_bundle(e, input, (&mut found, &mut None), &mut |_| ()));
    admit::who_asks(replica, &found, verified)?;
    Ok(bundle.rewind().map_err(Error::Stream)?)
}

/// Reads all of a bundle and refuses what must be refused. Certificates that are about admission go into `found`; an author
/// of whom another history is here, into `other`: the sender.
fn verify_bundle(
    replica: &Replica,
    input: impl Read,
    (found, other): (&mut Found, &mut Option<OtherHistory>),
    progress: &mut dyn FnMut(u64),
) -> Result<Verified> {
    let mut reader = BundleReader::new(input);
    let mut verification = Verification::of(replica);
    let mut reported = 0;
    loop {
        let at = reader.offset();
        if at - reported > PROGRESS_BYTES {
            progress(at);
            reported = at;
        }
        match reader.next_item_knowing(&|bytes| trust::is_stored(replica, bytes))? {
            Item::Header(header) => verification.header(&header)?,
            Item::Certificate(certificate, bytes) => {
                found.see(replica, &certificate, bytes)?;
                verification.certificate(&certificate, bytes)?;
            }
            Item::FleetKey(statement, bytes) => found.see(replica, &statement, bytes)?,
            Item::Revocation(statement) => verification.revocation(&statement)?,
            Item::Newest(shown) => newest::hear(replica, &shown, &mut verification.verified.evidence)?,
            Item::Frame(section, frame, _) => verification.frame(section, &frame)?,
            Item::Checkpoint(checkpoint, bytes, end) => {
                let taken = verification.checkpoint(at, &checkpoint, bytes, &end);
                *other = verification.own_twin;
                taken?;
            }
            Item::State(body) => verification.state(at, body)?,
            Item::Part(_) => {}
            Item::Seal(signature, digest) => verification.seal(at, &signature, &digest)?,
            Item::End => return verification.finish(),
        }
    }
}

/// The first reading of a bundle, under way.
struct Verification<'e> {
    replica: &'e Replica,
    verified: Verified,
    header: Option<HeaderCheck>,
    /// The public keys of the certificates in the bundle that are trusted, and whether they are bases'.
    keys: Vec<(DeviceId, [u8; 32], bool)>,
    /// The devices that the bundle has certificates or frames of, and that are not trusted.
    untrusted: Vec<UntrustedDevice>,
    /// The devices whose certificates it has and that are revoked: what of theirs is taken in, others vouch for.
    revoked: Vec<UntrustedDevice>,
    /// A state has begun, and its end has not come.
    open_state: bool,
    /// The fleet whose key is the sender.
    fleet: Option<[u8; 32]>,
    /// The sender's own group that is of another history than is here.
    own_twin: Option<OtherHistory>,
    /// The group that is being read reissues the tables of its author.
    reissues: bool,
}

impl<'e> Verification<'e> {
    fn of(replica: &'e Replica) -> Self {
        Self {
            replica,
            verified: Verified::default(),
            header: None,
            keys: Vec::new(),
            untrusted: Vec::new(),
            revoked: Vec::new(),
            open_state: false,
            fleet: None,
            own_twin: None,
            reissues: false,
        }
    }

    /// Keeps the header. Its signature can be verified only when the sender's certificate is there.
    fn header(&mut self, header: &HeaderReader<'_>) -> Result<()> {
        self.verified.read_header(self.replica, header)?;
        self.verified.expect_certificate(self.replica, header)?;
        self.header = Some(HeaderCheck::of(header));
        Ok(())
    }

    /// Keeps who is revoked by a statement that is news here: it is taken in before the frames are.
    fn revocation(&mut self, statement: &Revocation) -> Result<()> {
        let is_news = revocation::is_news(self.replica, statement)?;
        self.verified.any_news |= is_news;
        if statement.revoked && !statement.retirement && is_news {
            self.revoked.push(UntrustedDevice { id: statement.device, name: None, revoked: true });
        }
        Ok(())
    }

    /// Keeps the key of a certificate that is trusted, or the device as an untrusted one.
    fn certificate(&mut self, certificate: &Certificate<'_>, bytes: &[u8]) -> Result<()> {
        let key = (certificate.device(), certificate.public_key, certificate.base);
        if self.verified.sender == Some(key.0) {
            self.verified.lacks = None;
        }
        if let Some(signed) = certificate.fleet
            && self.verified.sender == Some(DeviceId::of_key(&signed.fleet))
        {
            self.fleet = Some(signed.fleet);
        }
        // What is kept for a device until it has it is forgotten when it shows it.
        let shown = self.verified.sender == Some(key.0);
        self.verified.any_news |= shown && admission::is_awaited(self.replica, bytes)?;
        if self.keys.contains(&key) {
            // It asks for another name, and is known by a certificate before this one.
            let signed = certificate.fleet.is_some();
            self.verified.any_news |= signed && !trust::is_stored(self.replica, bytes)?;
            return Ok(());
        }
        match trust::verify_certificate(self.replica, certificate)? {
            Ok(_) => {
                self.verified.any_news |= !trust::is_stored(self.replica, bytes)?
                    || trust::trusted_key(self.replica, key.0)?.is_none();
                // A base can be as new here as its bundle.
                self.verified.evidence.by_base |= shown && certificate.base;
                self.keys.push(key);
            }
            Err(revoked) if revoked.revoked => {
                self.keys.push(key);
                self.revoked.push(revoked);
            }
            Err(untrusted) => {
                // Its issuer can be as new here as it is itself.
                let issues = |(_, key, base): &(_, _, _)| {
                    certificate.fleet.is_some_and(|by| by.fleet == *key) && *base == certificate.base
                };
                if self.keys.iter().any(issues) && !trust::is_of_other_role(self.replica, certificate)? {
                    self.keys.push(key);
                } else {
                    self.untrusted.push(untrusted);
                }
            }
        }
        Ok(())
    }

    /// Counts a frame, and looks whether its author is trusted.
    fn frame(&mut self, section: Section, frame: &Frame<'_>) -> Result<()> {
        let ours = session::is_taken(self.replica, section);
        self.verified.known.frames += 1;
        self.verified.leave(section, frame.head.seq);
        self.verified.known.skipped += u64::from(frame.group.is_some() && !ours);
        if frame.group.is_some() {
            self.reissues = frame.head.flags.has(FrameFlags::REISSUES);
        }
        self.author(section.author)
    }

    /// Keeps an author as an untrusted device, if it is one.
    fn author(&mut self, id: DeviceId) -> Result<()> {
        if self.untrusted.iter().all(|s| s.id != id) && self.key(id)?.is_none() {
            self.untrusted.push(UntrustedDevice { id, name: None, revoked: false });
        }
        Ok(())
    }

    /// Verifies the signature of a group, and compares the group with what is here of its author.
    fn checkpoint(&mut self, at: u64, checkpoint: &Checkpoint, bytes: &[u8], end: &Chain) -> Result<()> {
        let replica = self.replica;
        let Some(key) = self.key(checkpoint.author)? else { return Ok(()) };
        let Checkpoint { author, stream, .. } = *checkpoint;
        let dev = devices::device_number(replica, author)?;
        if self.reissues {
            self.verified.goes_on_from(checkpoint, end);
        } else if self.verified.is_loose(replica, dev, checkpoint, end)? {
            return Ok(());
        }
        let (position, is_news) = match dev {
            Some(dev) => refill::place_of(replica, dev, checkpoint)?,
            None => (0, true),
        };
        self.verified.any_news |= is_news && session::is_taken(replica, Section { author, stream });
        if let Some(dev) = dev
            && frames::has_group(&replica.db, dev, (checkpoint, bytes), end)?
        {
            if dev == replica.me {
                self.verified.evidence.see(checkpoint, Fit::Fits, position);
            }
            return Ok(());
        }
        if checkpoint.verify(&key, end).is_err() {
            let who = devices::name_of(replica, checkpoint.author)?;
            return Err(Error::bundle(at, BundleProblem::Signature(who)));
        }
        self.verified.keep_signed(bytes, end);
        if checkpoint.author == replica.identity.id {
            let fit = twin::fit(replica, checkpoint, Some(end), &key)?;
            self.verified.evidence.see(checkpoint, fit, position);
            return Ok(());
        }
        match self.verified.fit(replica, checkpoint, end, &key)? {
            Fit::Diverges { common } => self.meet_other(OtherHistory::of(checkpoint, end, common)),
            Fit::Fits => Ok(()),
        }
    }

    /// Keeps another history of an author than is here. Whoever has its key can sign as many as he likes: that is to hold up
    /// nobody else's frames. Of one that is revoked, too: honest devices have taken in no more of them than they are many,
    /// and are to have the same.
    fn meet_other(&mut self, other: OtherHistory) -> Result<()> {
        let author = other.author;
        let other = other.parts_at(self.verified.parted.get(&author));
        // Of both streams, the first group: which of two histories is given up is decided by the shared one.
        let is_met = |met: &OtherHistory| (met.author, met.stream) == (author, other.stream);
        self.verified.forked.insert(author);
        if self.verified.others.iter().any(is_met) {
            return Ok(());
        }
        if self.verified.sender == Some(author) {
            if self.is_revoked(author)? {
                return Ok(()); // It is refused for that, and what the fleet's key says in it is heard.
            }
            self.own_twin = Some(other);
            let device = devices::name_of(self.replica, author)?;
            return Err(Error::Twin { device, seq: other.first }.into());
        }
        self.verified.any_news = true;
        self.verified.leaves_state |=
            self.open_state && give_up::leaves_state(self.replica, &self.verified, Some(&other))?;
        self.verified.others.push(other);
        Ok(())
    }

    /// Meets a state of which the places of a stream say that it is of another history than is here, where its proof need not show
    /// that: what it stands for can begin beyond all that is here. A base's word is enough to take it after all; by
    /// another's it is only left.
    fn meet_parted(&mut self, checkpoint: &Checkpoint, end: &Chain) -> Result<()> {
        let author = checkpoint.author;
        let is_parted = checkpoint.stream == Stream::Shared
            && author != self.replica.identity.id
            && self.verified.parted.contains_key(&author)
            && !self.verified.forked.contains(&author);
        match (is_parted, self.verified.evidence.by_base) {
            (false, _) => Ok(()),
            (true, true) => self.meet_other(OtherHistory::of(checkpoint, end, None)),
            (true, false) => {
                self.verified.leaves_state = true;
                Ok(())
            }
        }
    }

    /// Returns whether a device is revoked: here, or as a successor of one that is.
    fn is_revoked(&self, id: DeviceId) -> Result<bool> {
        Ok(self.revoked.iter().any(|known| known.id == id) || revocation::is_revoked_id(self.replica, id)?)
    }

    /// Verifies the proof of an entry of a state's vector, as if its group were here; compares what it knows of where our
    /// own stream was.
    fn state(&mut self, at: u64, body: &[u8]) -> Result<()> {
        let row = StateRow::parse(self.replica, body)?;
        self.verified.has_state = true;
        match row.kind {
            "stream" => {
                let Proof { checkpoint, bytes, end } = row.proof()?;
                self.author(checkpoint.author)?;
                self.verified.stands_before(&checkpoint);
                self.checkpoint(at, &checkpoint, &bytes, &end)?;
                self.meet_parted(&checkpoint, &end)?;
                let other = self.verified.others.iter().find(|other| other.author == checkpoint.author);
                let leaves = give_up::leaves_state(self.replica, &self.verified, other)?;
                self.verified.leaves_state |= leaves;
                if checkpoint.author == self.replica.identity.id {
                    let ours = positions::position(self.replica, self.replica.me, checkpoint.stream)?.seq;
                    let at = PeerEvidence::at(checkpoint.stream);
                    self.verified.evidence.by_state[at] |= checkpoint.last > ours;
                }
            }
            "tags" => {
                give_up::meet_state(self.replica, &mut self.verified, &row)?;
                for place in row.own_places()? {
                    twin::compare_place(self.replica, Stream::Shared, &place, &mut self.verified.evidence)?;
                }
            }
            _ => {}
        }
        self.open_state = true;
        Ok(())
    }

    /// Verifies the maker's signature under a state.
    fn seal(&mut self, at: u64, signature: &[u8; 64], digest: &[u8; 32]) -> Result<()> {
        self.open_state = false;
        let sender = self.verified.sender;
        match sender.map(|id| self.key(id)).transpose()?.flatten() {
            Some(key) if inspect::is_sealed_by(&key, signature, digest) => Ok(()),
            Some(_) => Err(Error::bundle(at, BundleProblem::Signature("its maker".into()))),
            None => Ok(()), // `finish` refuses the sender.
        }
    }

    /// Finds the public key of a device that is trusted here or by its certificate in the bundle.
    fn key(&self, id: DeviceId) -> Result<Option<[u8; 32]>> {
        match self.keys.iter().find(|(known, ..)| *known == id) {
            Some((_, key, _)) => Ok(Some(*key)),
            None => trust::author_key(self.replica, id),
        }
    }

    /// Verifies the header, once all certificates are known.
    fn finish(mut self) -> Result<Verified> {
        if self.open_state {
            return Err(Error::bundle(0, BundleProblem::Structure("a state without its end")));
        }
        let sender = self.verified.sender;
        if self.verified.lacks.is_some() && self.untrusted.iter().all(|device| Some(device.id) == sender) {
            return Ok(self.verified);
        }
        if !self.untrusted.is_empty() {
            return Err(Error::Untrusted(self.untrusted).into());
        }
        if let (Some(check), Some(fleet)) = (&self.header, self.fleet) {
            // An admission: whoever signed the certificates is no device, and has nothing.
            self.verified.sender = None;
            let who = || BundleProblem::Signature("the fleet key".into());
            return if check.verify(&fleet) { Ok(self.verified) } else { Err(Error::bundle(0, who())) };
        }
        if let Some(sender) = self.verified.sender
            && self.is_revoked(sender)?
        {
            let in_bundle =
                self.revoked.iter().filter(|known| known.id == sender).find_map(|d| d.name.clone());
            let name =
                in_bundle.map_or_else(|| devices::name(self.replica, sender), |name| Ok(Some(name)))?;
            return Err(untrusted(sender, name, true).into());
        }
        self.compare_vector()?;
        self.verified.any_news |= !self.verified.is_recorded(self.replica)?;
        if let (Some(check), Some(sender)) = (&self.header, self.verified.sender) {
            match self.key(sender)? {
                Some(key) if check.verify(&key) => {}
                Some(_) => {
                    let who = devices::name_of(self.replica, sender)?;
                    return Err(Error::bundle(0, BundleProblem::Signature(who)));
                }
                None => return Err(untrusted(sender, None, false).into()),
            }
        }
        Ok(self.verified)
    }

    /// Compares what the sender has applied, and its probes, with what is here.
    fn compare_vector(&mut self) -> Result<()> {
        let Verified { sender, applied, probes, evidence, .. } = &mut self.verified;
        let Some(sender) = *sender else { return Ok(()) };
        let apart = twin::compare_vector(self.replica, sender, (applied, probes), evidence)?;
        // A clone of this device, or a device that has another history of itself than is here: only
        // a third device that hears of both knows which of them is the second.
        let clone = evidence.diverges_after().filter(|_| sender == self.replica.identity.id);
        let other = apart.sender.or(clone);
        self.verified.said = apart;
        if let Some(seq) = other {
            return Err(Error::Twin { device: devices::name_of(self.replica, sender)?, seq }.into());
        }
        Ok(())
    }
}

fn untrusted(id: DeviceId, name: Option<String>, revoked: bool) -> Error {
    Error::Untrusted(vec![UntrustedDevice { id, name, revoked }])
}

/// Takes in as many groups as make a window. Returns whether there is more.
fn take_in_window(
    replica: &Replica,
    reader: &mut BundleReader<impl Read>,
    verified: &Verified,
    report: &mut ImportReport,
    progress: &mut dyn FnMut(u64),
) -> Result<bool> {
    // What was written here before this moment did not take the others into account.
    transaction::seal_written(replica)?;
    gathered::gather_pending(replica)?;
    let conflicts_before = walk::open_conflicts(replica)?;
    let start = reader.offset();
    let mut reported = start;
    let mut window =
        Window { replica, verified, start, group: None, state: None, any: false, returned: false };
    let more = loop {
        // Also within a group, which can be as large as it likes.
        if reader.offset() - reported >= PROGRESS_BYTES {
            reported = reader.offset();
            progress(reported);
        }
        match reader.next_item_knowing(&|bytes| trust::is_stored(replica, bytes))? {
            Item::Header(_) => verified.make_way(replica)?,
            Item::Newest(_) | Item::FleetKey(..) => {}
            Item::Certificate(certificate, bytes) => {
                certificates::take(replica, &certificate, bytes, verified.sender)?;
            }
            Item::Revocation(statement) => window.any |= revoke::take_in(replica, &statement, report)?,
            Item::State(body) => window.state()?.record(body)?,
            Item::Part(body) => window.state()?.part(body)?,
            Item::Seal(..) => window.end_state(report)?,
            Item::Frame(section, frame, body) if window.state.is_some() => {
                window.state()?.frame(section, &frame, body)?;
            }
            Item::Checkpoint(checkpoint, bytes, end) if window.state.is_some() => {
                window.verify(&checkpoint, bytes, &end)?;
                window.state()?.checkpoint(&checkpoint, bytes, &end)?;
            }
            Item::Frame(section, frame, body) => window.frame(section, &frame, body, report)?,
            Item::Checkpoint(checkpoint, bytes, end) => {
                let stored = window.checkpoint(&checkpoint, bytes, &end, report)?;
                if stored && reader.offset() - start > replica.options.window_bytes as u64 {
                    break true;
                }
            }
            Item::End => break false,
        }
    };
    if window.any {
        ready::apply_pending(replica, report)?;
    }
    if let (true, Some(sender)) = (window.returned, verified.sender) {
        membership::record_returned(replica, devices::device_number_or_new(replica, sender)?)?;
    }
    if let (false, Some(sender)) = (more, verified.sender) {
        verified.record_acknowledged(replica, sender)?;
        // What it has applied of per-device streams of revoked devices, it vouches for; what it has lost of its own,
        // nothing waits for any more.
        ready::apply_pending(replica, report)?;
    }
    append::raise_marks(replica)?;
    if !more {
        transaction::release_held(replica)?;
    }
    report.conflicts_opened += walk::open_conflicts(replica)?.saturating_sub(conflicts_before);
    Ok(more)
}

/// After how many bytes the progress is reported again.
const PROGRESS_BYTES: u64 = 1 << 20;
