//! The calls that the session's machine makes, answered by the engine.

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::session::{Body, Frontier, Heard, Incoming, Intake, Log, NextGroup, Trust};
use packmule_core::wire::{Certificate, Checkpoint, HeaderReader, Offer, Position, Probe, Refusal, Section};

use super::outgoing::Outgoing;
use super::state::{Coming, Ready};
use super::unfinished::Unfinished;
use crate::engine::{
    BundleProblem, Engine, Error, ImportReport, Peer, PeerEvidence, Result, Staged, UntrustedDevice,
};

/// What a session keeps besides what is in the database.
#[derive(Default)]
pub(super) struct Kept {
    /// The nonce that the channel gives the peer, where it is encrypted.
    peer_nonce: Option<[u8; 32]>,
    /// The peer, once its certificate was trusted.
    pub(super) peer: Option<Peer>,
    /// Or why it was not.
    pub(super) untrusted: Option<UntrustedDevice>,
    /// Its certificate, while a key that follows our fleet's may have signed it.
    pending: Vec<u8>,
    /// Which fleet keys follow which: what the peer is still to hear, and what it has said.
    successions: Option<Vec<Vec<u8>>>,
    heard: Vec<Vec<u8>>,
    /// Its fleet may admit this device; until it has, nothing else is taken from it.
    pub(super) only_admission: bool,
    /// What the peer is to hear first, in reverse.
    introductions: Option<Vec<Vec<u8>>>,
    /// It asks our fleet for admission.
    pub(super) asks: bool,
    /// What the peer is still to hear of frames beyond the vector.
    here: Vec<Frontier>,
    /// The vector that the peer knows of us.
    vector: Vec<Position>,
    /// What the peer has acknowledged and is not recorded yet; all that it has acknowledged in this session.
    acks: Option<BTreeMap<(DeviceId, u8), Position>>,
    said: BTreeMap<(DeviceId, u8), Position>,
    /// What it said first was recorded, which is all that it has.
    acks_recorded: bool,
    /// Up to where it has our streams.
    own_acked: [u64; 2],
    outgoing: Outgoing,
    /// Whose certificates the peer has.
    introduced: BTreeSet<DeviceId>,
    /// The revocations that the peer is to hear, the next one last.
    revocations: Option<Vec<Vec<u8>>>,
    /// What came and is not committed.
    staged: Vec<Staged>,
    /// How much of it, committed or not, is of groups that have not ended.
    unfinished: Unfinished,
    /// The same of the state that comes.
    chunks: Vec<u8>,
    /// What its last vector says of our own log; and the newest checkpoints of its own log that it is to hear.
    evidence: PeerEvidence,
    newest: Option<Vec<Vec<u8>>>,
    /// Something was committed, and what it leaves open is not decided yet.
    unsettled: bool,
    /// The state for the peer, and the one from it.
    ready: Option<Ready>,
    coming: Option<Coming>,
    /// The database's version when it was last sealed.
    version: Option<i64>,
}

impl Kept {
    /// Of a session in an encrypted channel, which gives the peer this nonce.
    pub(super) fn in_channel(peer_nonce: [u8; 32]) -> Self {
        Self { peer_nonce: Some(peer_nonce), ..Self::default() }
    }

    fn peer(&self) -> Result<&Peer> {
        known(&self.peer)
    }
}

fn known(peer: &Option<Peer>) -> Result<&Peer> {
    peer.as_ref().ok_or_else(|| Error::Usage("the other end has not said who it is".into()))
}

/// Appends the next of what the peer is to hear; the last one comes first. All of it is looked up at the first call.
/// Returns whether there was one.
fn next_of(
    left: &mut Option<Vec<Vec<u8>>>,
    all: impl FnOnce() -> Result<Vec<Vec<u8>>>,
    body: &mut Body<'_>,
) -> Result<bool> {
    let left = match left {
        Some(left) => left,
        None => left.insert(all()?),
    };
    let next = left.pop();
    next.iter().for_each(|bytes| body.extend(bytes));
    Ok(next.is_some())
}

/// So many statements that fleet keys follow each other are heard of a peer before its proof.
const SUCCESSIONS_MAX: usize = 16;

/// The engine as a session's log.
pub(super) struct EngineLog<'a> {
    engine: &'a mut Engine,
    kept: &'a mut Kept,
}

impl<'a> EngineLog<'a> {
    pub(super) fn new(engine: &'a mut Engine, kept: &'a mut Kept) -> Self {
        Self { engine, kept }
    }

    /// Appends a header with what changed in the vector, to be signed and sent; and looks up what became ready for
    /// the peer by it. Of the per-device streams of others a board has nothing and needs to hear nothing: with as many
    /// boards as a base has sessions, each would hear of what all of them wrote.
    fn changed_vector(&mut self, vector: Vec<Position>, body: &mut Body<'_>) -> Result<bool> {
        let Some((peer, base)) = self.kept.peer.as_ref().map(|peer| (peer.id, peer.base)) else {
            return Ok(false);
        };
        let me = self.engine.identity().id;
        let first = self.kept.vector.is_empty();
        let key = |entry: &Position| (entry.author, entry.stream.number());
        let known = &self.kept.vector;
        let is_news = |entry: &&Position| {
            let concerns =
                first || base || entry.stream == Stream::Shared || [me, peer].contains(&entry.author);
            let at = known.binary_search_by_key(&key(entry), key);
            concerns && at.ok().and_then(|at| known.get(at)).is_none_or(|known| known != *entry)
        };
        let changed: Vec<Position> = vector.iter().filter(is_news).copied().collect();
        if !first && changed.is_empty() {
            return Ok(false);
        }
        self.engine.remember()?;
        let probes = if first { self.engine.session_probes(peer)? } else { Vec::new() };
        let applied: Vec<Position> =
            vector.iter().filter(|entry| entry.author == me || is_news(entry)).copied().collect();
        body.extend(&self.engine.session_header(peer, &applied, &probes)?);
        self.kept.vector = vector;
        for Position { author, stream, .. } in changed {
            self.look_up(Section { author, stream })?;
        }
        Ok(true)
    }

    fn look_up(&mut self, section: Section) -> Result<()> {
        let peer = self.kept.peer.as_ref();
        peer.map_or(Ok(()), |peer| self.kept.outgoing.look_up(self.engine, peer, section))
    }

    /// Counts what comes of groups that have not ended. Of a peer that never ends one nothing stays.
    fn count_in(&mut self, item: &Incoming<'_>) -> Result<()> {
        let Kept { unfinished, peer, .. } = &mut *self.kept;
        let counted = match item {
            Incoming::Frame(section, _, bytes) => {
                unfinished.frame(*section, bytes.len(), || self.engine.unfinished_max())
            }
            Incoming::Checkpoint(bytes) => {
                if let Ok(checkpoint) = Checkpoint::decode(bytes) {
                    unfinished.checkpoint(Section { author: checkpoint.author, stream: checkpoint.stream });
                }
                Ok(())
            }
            _ => Ok(()),
        };
        if counted.is_err() {
            self.engine.drop_unfinished(known(peer)?.id)?;
        }
        counted
    }

    /// The session is over: of what has no end yet no more stays than is worth the while.
    pub(super) fn leave(&mut self) -> Result<()> {
        match &self.kept.peer {
            Some(peer) if !self.kept.unfinished.is_empty() => self.engine.tidy_unfinished(peer.id),
            _ => Ok(()),
        }
    }

    /// Collects what the peer acknowledges: what it has applied.
    fn collect_acks(&mut self, applied: &[Position]) {
        let me = self.engine.identity().id;
        let acks = self.kept.acks.get_or_insert_default();
        for entry in applied {
            let number = entry.stream.number();
            let own = self.kept.own_acked.get_mut(usize::from(number));
            if let Some(own) = own.filter(|_| entry.author == me) {
                *own = entry.seq.max(*own);
            }
            for known in [&mut *acks, &mut self.kept.said] {
                let ack = known.entry((entry.author, number)).or_insert(*entry);
                if entry.seq > ack.seq {
                    *ack = *entry;
                }
            }
        }
    }
}

impl Log for EngineLog<'_> {
    type Error = Error;
    type Taken = ImportReport;

    fn seal(&mut self) -> Result<bool> {
        if self.kept.version == Some(self.engine.data_version()?) {
            return self.engine.reissue();
        }
        self.engine.seal()?;
        self.kept.version = Some(self.engine.data_version()?);
        Ok(true)
    }

    fn certificate(&mut self, body: &mut Body<'_>) -> Result<DeviceId> {
        body.extend(&self.engine.own_certificate()?);
        Ok(self.engine.identity().id)
    }

    fn may_have_nonce(&self, nonce: &[u8; 32]) -> bool {
        self.kept.peer_nonce.is_none_or(|known| known == *nonce)
    }

    fn verify_certificate(&mut self, _: &Certificate<'_>, bytes: &[u8]) -> Result<Trust> {
        Ok(match self.engine.verify_peer(bytes)? {
            Ok(peer) => {
                self.kept.peer = Some(peer);
                Trust::Trusted
            }
            Err(device) if !device.revoked => {
                self.kept.untrusted = Some(device);
                // It may be of the fleet that this device waits for; or wait for ours.
                match self.engine.possible_fleet(bytes)? {
                    Some(peer) => {
                        self.kept.peer = Some(peer);
                        self.kept.only_admission = true;
                        Trust::Trusted
                    }
                    None if self.engine.may_follow(bytes)? => {
                        self.kept.pending = bytes.into();
                        Trust::Pending
                    }
                    None => {
                        self.engine.look_at(bytes)?;
                        self.kept.asks = self.engine.is_applicant(bytes)?;
                        Trust::Untrusted
                    }
                }
            }
            Err(device) => {
                self.kept.untrusted = Some(device);
                Trust::Revoked
            }
        })
    }

    fn next_succession(&mut self, body: &mut Body<'_>) -> Result<bool> {
        next_of(&mut self.kept.successions, || self.engine.successions(), body)
    }

    fn hear_succession(&mut self, bytes: &[u8]) -> Result<()> {
        // One can build on another that comes later. Who is trusted already says it again after its proof.
        if !self.kept.pending.is_empty() && self.kept.heard.len() < SUCCESSIONS_MAX {
            self.kept.heard.push(bytes.into());
        }
        Ok(())
    }

    fn verify_again(&mut self) -> Result<Trust> {
        self.engine.hear_successions(&std::mem::take(&mut self.kept.heard))?;
        Ok(match self.engine.verify_peer(&self.kept.pending)? {
            Ok(peer) => {
                (self.kept.peer, self.kept.untrusted) = (Some(peer), None);
                Trust::Trusted
            }
            Err(device) => {
                let trust = if device.revoked { Trust::Revoked } else { Trust::Untrusted };
                self.kept.untrusted = Some(device);
                trust
            }
        })
    }

    fn prove(&mut self, nonce: &[u8; 32], peer: (DeviceId, &[u8; 32])) -> Result<[u8; 64]> {
        self.engine.prove(nonce, peer)
    }

    fn store_certificate(&mut self) -> Result<()> {
        let peer = self.kept.peer()?;
        let id = peer.id;
        if !self.kept.only_admission {
            self.engine.meet(peer)?;
        }
        self.kept.introduced.insert(id);
        Ok(())
    }

    fn next_introduction(&mut self, body: &mut Body<'_>) -> Result<bool> {
        let Kept { peer, introductions, .. } = &mut *self.kept;
        let all = || {
            let mut all = self.engine.introductions(known(peer)?)?;
            all.reverse();
            Ok(all)
        };
        next_of(introductions, all, body)
    }

    fn next_here(&mut self, after: Option<Section>) -> Result<Option<Frontier>> {
        if after.is_none() {
            self.kept.here = self.engine.beyond_vector(self.kept.peer()?.id)?;
            self.kept.here.reverse();
        }
        Ok(self.kept.here.pop())
    }

    fn header(&mut self, body: &mut Body<'_>) -> Result<bool> {
        let vector = self.engine.session_vector()?;
        self.changed_vector(vector, body)
    }

    fn peer_has(&mut self, frontier: Frontier) -> Result<()> {
        self.kept.outgoing.raise(frontier);
        Ok(())
    }

    fn receive_header(&mut self, header: &HeaderReader<'_>) -> Result<Heard> {
        if self.kept.only_admission {
            return Err(Error::Untrusted(self.kept.untrusted.take().into_iter().collect()));
        }
        if header.header.base.is_some() {
            let what = "a header in a session that does not tell all that its sender has";
            return Err(Error::bundle(0, BundleProblem::Structure(what)).into());
        }
        let mut applied: Vec<Position> = header.applied().collect();
        let probes: Vec<Probe> = header.probes().collect();
        let Kept { peer, evidence, newest, .. } = &mut *self.kept;
        let peer = known(peer)?;
        *evidence = PeerEvidence::default();
        if self.engine.reconcile(peer, &mut applied, &probes, evidence)? {
            return Ok(Heard::NewIdentity);
        }
        if newest.is_none() {
            *newest = Some(self.engine.newest_for(peer.id, &applied)?);
        }
        // A probe does not raise the frontier: before a pending group there can be a gap. What is pending without one
        // the peer has said before its header.
        for Position { author, stream, seq, .. } in &applied {
            let section = Section { author: *author, stream: *stream };
            self.kept.outgoing.raise(Frontier { section, groups: *seq, frames: *seq });
        }
        self.collect_acks(&applied);
        Ok(Heard::Acknowledged(self.kept.own_acked.iter().sum()))
    }

    fn next_newest(&mut self, body: &mut Body<'_>) -> Result<bool> {
        next_of(&mut self.kept.newest, || Ok(Vec::new()), body)
    }

    fn hear_newest(&mut self, bytes: &[u8]) -> Result<bool> {
        self.engine.hear_newest(bytes, &mut self.kept.evidence)
    }

    fn record_acks(&mut self) -> Result<()> {
        if let (Some(peer), Some(acks)) = (&self.kept.peer, self.kept.acks.take()) {
            let applied: Vec<Position> = acks.into_values().collect();
            self.engine.record_vector(peer.id, &applied, !self.kept.acks_recorded)?;
            self.kept.acks_recorded = true;
        }
        Ok(())
    }

    fn plan(&mut self) -> Result<(u64, u64)> {
        self.engine.plan_out(self.kept.peer()?, self.kept.outgoing.frontier())
    }

    fn next_revocation(&mut self, body: &mut Body<'_>) -> Result<bool> {
        next_of(&mut self.kept.revocations, || self.engine.revocations(), body)
    }

    fn next_group(&mut self) -> Result<NextGroup> {
        let Kept { peer, outgoing, .. } = &mut *self.kept;
        peer.as_ref().map_or(Ok(NextGroup::Nothing), |peer| outgoing.next_group(self.engine, peer))
    }

    fn next_certificate(&mut self, author: DeviceId, body: &mut Body<'_>) -> Result<bool> {
        let Some(group) = self.kept.outgoing.current() else { return Ok(false) };
        if self.kept.introduced.contains(&author) {
            return Ok(false);
        }
        for (id, certificate) in self.engine.author_certificates(group.dev)? {
            if self.kept.introduced.insert(id) {
                body.extend(&certificate);
                return Ok(true);
            }
        }
        self.kept.introduced.insert(author);
        Ok(false)
    }

    fn frame(&mut self, seq: u64, body: &mut Body<'_>) -> Result<()> {
        if let Some(group) = self.kept.outgoing.current() {
            body.extend(&self.engine.frame_out(group, seq)?);
        }
        Ok(())
    }

    fn checkpoint(&mut self, body: &mut Body<'_>) -> Result<()> {
        if let Some(group) = self.kept.outgoing.current() {
            body.extend(&self.engine.checkpoint_out(group)?);
        }
        let Kept { peer, outgoing, .. } = &mut *self.kept;
        peer.as_ref().map_or(Ok(()), |peer| outgoing.group_sent(self.engine, peer))
    }

    fn stage(&mut self, item: Incoming<'_>) -> Result<()> {
        if let Incoming::Certificate(bytes) = item
            && self.engine.look_at(bytes)?
        {
            if self.kept.only_admission && self.engine.verify_peer(&self.kept.peer()?.certificate)?.is_ok() {
                self.kept.only_admission = false;
                self.engine.meet(self.kept.peer()?)?;
            }
            return Ok(());
        }
        self.count_in(&item)?;
        self.kept.staged.push(match item {
            Incoming::Certificate(bytes) => Staged::Certificate(bytes.into()),
            Incoming::Revocation(bytes) => Staged::Revocation(bytes.into()),
            Incoming::Frame(section, seq, bytes) => Staged::Frame(section, seq, bytes.into()),
            Incoming::Checkpoint(bytes) => Staged::Checkpoint(bytes.into()),
            Incoming::Chunk(bytes) => {
                self.kept.chunks.extend_from_slice(bytes);
                return Ok(());
            }
        });
        Ok(())
    }

    fn commit(&mut self, taken: &mut ImportReport) -> Result<()> {
        let staged = std::mem::take(&mut self.kept.staged);
        let chunks = std::mem::take(&mut self.kept.chunks);
        if let (Some(coming), false) = (&mut self.kept.coming, chunks.is_empty()) {
            coming.append(&chunks)?;
        }
        if staged.is_empty() {
            return Ok(());
        }
        self.kept.unsettled = true;
        let peer = self.kept.peer()?.id;
        let done = self.engine.take_staged(peer, &staged, taken);
        if matches!(done, Err(Error::Twin { .. })) {
            // The peer is shown what is here, whatever it says that it has.
            self.kept.newest = Some(self.engine.newest_for(peer, &[])?);
        }
        done
    }

    fn settle(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.kept.unsettled) {
            self.engine.seal()?;
            return Ok(true);
        }
        Ok(false)
    }

    fn offer_state(&mut self) -> Result<Option<Offer>> {
        let Kept { peer, outgoing, .. } = &*self.kept;
        let Some(peer) = peer else { return Ok(None) };
        self.kept.ready = Ready::of(self.engine, peer, outgoing.frontier())?;
        Ok(self.kept.ready.as_ref().map(|ready| ready.offer))
    }

    fn state_chunk(&mut self, at: u64, to: &mut [u8]) -> Result<()> {
        self.kept.ready.as_mut().map_or(Ok(()), |ready| ready.read(at, to))
    }

    fn state_taken(&mut self) -> Result<()> {
        self.kept.ready.take().into_iter().for_each(Ready::forget);
        self.kept.outgoing.look_up_all();
        Ok(())
    }

    fn want_state(&mut self, offer: &Offer) -> Result<Option<u64>> {
        self.kept.coming = Coming::begin(self.engine, self.kept.peer()?.id, offer)?;
        Ok(self.kept.coming.as_ref().map(|coming| coming.here))
    }

    fn take_state(&mut self, taken: &mut ImportReport) -> Result<Intake> {
        let Some(coming) = self.kept.coming.take() else { return Ok(Intake::Refused) };
        let was = self.engine.identity().id;
        match coming.take(self.engine) {
            Ok(report) => taken.add_import(report),
            Err(e) if is_of_content(&e) => {
                taken.state_refused = Some(e.to_string());
                return Ok(Intake::Refused);
            }
            Err(e) => return Err(e),
        }
        // The state says what its maker had when it was made; what it has said since counts.
        self.kept.acks = Some(self.kept.said.clone());
        self.kept.acks_recorded = false;
        Ok(if self.engine.identity().id == was { Intake::Taken } else { Intake::NewIdentity })
    }

    fn discard(&mut self) {
        self.kept.staged = Vec::new();
        self.kept.chunks = Vec::new();
    }

    fn refusal(error: &Error) -> (Refusal, Option<DeviceId>) {
        match error {
            Error::Untrusted(all) | Error::AsksForAdmission { devices: all, .. } => {
                all.first().map_or((Refusal::Untrusted, None), |s| {
                    (if s.revoked { Refusal::Revoked } else { Refusal::Untrusted }, Some(s.id))
                })
            }
            Error::Twin { .. } => (Refusal::Twin, None),
            Error::Bundle { .. } => (Refusal::Damaged, None),
            _ => (Refusal::Failed, None),
        }
    }
}

/// Returns whether an error is about what a state says, and not about this device's disk or database.
fn is_of_content(error: &Error) -> bool {
    use Error::{AsksForAdmission, Bundle, CannotTrack, Row, Twin, UnknownTable, Untrusted};
    matches!(
        error,
        AsksForAdmission { .. }
            | Bundle { .. }
            | CannotTrack { .. }
            | Row { .. }
            | Twin { .. }
            | UnknownTable { .. }
            | Untrusted(_)
    )
}
