//! The part of the engine's face that the carriers alone call.

use std::collections::BTreeSet;
use std::io::{Read, Seek, Write};
use std::sync::{Arc, Mutex};

use packmule_core::model::DeviceId;
use packmule_core::session::Frontier;
use packmule_core::wire::{Position, Probe, Section};

use super::{Engine, Life};
use crate::engine::apply::report::ImportReport;
use crate::engine::exchange::import::{self, More};
use crate::engine::exchange::newest;
use crate::engine::exchange::offer;
use crate::engine::exchange::peer::{self, Peer};
use crate::engine::exchange::records::Positions;
use crate::engine::exchange::revoke;
use crate::engine::exchange::session::{self, GroupOut, Staged, StreamOut};
use crate::engine::exchange::staged;
use crate::engine::exchange::survey::{self, Span, Trusted};
use crate::engine::exchange::transaction;
use crate::engine::exchange::verified::Progress;
use crate::engine::fleet::admission::{self, Standing};
use crate::engine::fleet::copies;
use crate::engine::fleet::links::{self, LinkFigures};
use crate::engine::fleet::membership::Retirement;
use crate::engine::fleet::open;
use crate::engine::fleet::peers::{self, PeerEvidence};
use crate::engine::table::replica;
use crate::engine::table::route::Route;
use crate::engine::{Result, UntrustedDevice};

/// So many steps of SQLite's machine make a sign of life: well under a second of them on any board.
const STEPS_A_SIGN: i32 = 100_000;

impl Engine {
    /// Names the way by which comes what is taken in from here on.
    pub(crate) fn comes_by(&mut self, route: Route) {
        self.replica.route.set(route);
    }

    /// Has somebody told again and again while SQLite works for this engine: also in a call that takes long it gets on.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn shows_life(&mut self, show: impl FnMut() + Send + 'static) -> Result<()> {
        self.tell_life(Arc::new(Mutex::new(show)))
    }

    fn tell_life(&mut self, life: Life) -> Result<()> {
        let told = life.clone();
        let goes_on = move || {
            // Whoever panicked while he was told is told no more.
            if let Ok(mut show) = told.lock() {
                show();
            }
            false
        };
        self.replica.db.progress_handler(STEPS_A_SIGN, Some(goes_on))?;
        self.life = Some(life);
        Ok(())
    }

    /// Opens the database anew where the file that this engine has open is not the one any more that is in its place. What
    /// runs for months calls it again and again.
    ///
    /// # Errors
    /// Why the file that is there cannot be opened; it can be tried again.
    pub(crate) fn reopen_if_moved(&mut self) -> Result<()> {
        if !replica::is_moved(&self.replica) {
            return Ok(());
        }
        open::open_again(&mut self.replica)?;
        self.application.take();
        match self.life.take() {
            Some(life) => self.tell_life(life),
            None => Ok(()),
        }
    }

    /// Takes in a bundle as [`Engine::import`] does, which came by the way that its carrier has named.
    ///
    /// # Errors
    /// As [`Engine::import`].
    pub(crate) fn import_carried<R: Read + Seek>(
        &mut self,
        bundle: &mut R,
        comes: More,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportReport> {
        Ok(import::import(&mut self.replica, bundle, comes, progress)?)
    }

    /// Our certificate.
    pub(crate) fn own_certificate(&self) -> Result<Vec<u8>> {
        Ok(peer::own_certificate(&self.replica)?)
    }

    /// Returns what decides whose frames are taken in.
    pub(crate) fn standing(&self) -> Result<Standing> {
        Ok(admission::standing(&self.replica)?)
    }

    /// Returns the hashes of the certificates that others are to have seen.
    pub(crate) fn stated_certificates(&self) -> Result<BTreeSet<[u8; 32]>> {
        Ok(survey::stated_certificates(&self.replica)?)
    }

    /// Returns the certificate of an author, and before it those of the devices that vouch for it.
    pub(crate) fn author_certificates(&self, dev: i64) -> Result<Vec<(DeviceId, Vec<u8>)>> {
        Ok(peer::author_certificates(&self.replica, dev)?)
    }

    /// Returns whom a certificate names; an error if it is damaged, an untrusted device if it is not trusted.
    pub(crate) fn verify_peer(
        &self,
        certificate: &[u8],
    ) -> Result<std::result::Result<Peer, UntrustedDevice>> {
        Ok(peer::verify_peer(&self.replica, certificate)?)
    }

    /// Returns whom a certificate names that a fleet has signed, if any fleet may admit this device.
    pub(crate) fn possible_fleet(&self, certificate: &[u8]) -> Result<Option<Peer>> {
        Ok(peer::possible_fleet(&self.replica, certificate)?)
    }

    /// Returns whether a fleet key signed a certificate that may follow our own fleet's.
    pub(crate) fn may_follow(&self, certificate: &[u8]) -> Result<bool> {
        Ok(peer::may_follow(&self.replica, certificate)?)
    }

    /// Returns the statements that fleet keys follow each other, as far as they are joined with our fleet's.
    pub(crate) fn successions(&self) -> Result<Vec<Vec<u8>>> {
        Ok(peer::successions(&self.replica)?)
    }

    /// Hears such statements. What no key of our fleet has signed says nothing.
    pub(crate) fn hear_successions(&mut self, statements: &[Vec<u8>]) -> Result<()> {
        Ok(peer::hear_successions(&mut self.replica, statements)?)
    }

    /// Looks whether a certificate gives this device a place in a fleet, or asks for one here.
    pub(crate) fn look_at(&mut self, certificate: &[u8]) -> Result<bool> {
        Ok(peer::look_at(&mut self.replica, certificate)?)
    }

    /// Returns whether the device of a certificate asks for admission here.
    pub(crate) fn is_applicant(&self, certificate: &[u8]) -> Result<bool> {
        Ok(peer::is_applicant(&self.replica, certificate)?)
    }

    /// Lists the certificates that a peer is to hear before all else.
    pub(crate) fn introductions(&self, peer: &Peer) -> Result<Vec<Vec<u8>>> {
        Ok(peer::introductions(&self.replica, peer)?)
    }

    /// Proves that we have our key.
    pub(crate) fn prove(&self, nonce: &[u8; 32], peer: (DeviceId, &[u8; 32])) -> Result<[u8; 64]> {
        Ok(peer::prove(&self.replica, nonce, peer)?)
    }

    /// Keeps the certificate of a peer that has proved its key, and notes that it was heard.
    pub(crate) fn meet(&mut self, peer: &Peer) -> Result<()> {
        Ok(peer::meet(&mut self.replica, peer)?)
    }

    /// Returns whether a device is revoked here.
    pub(crate) fn is_revoked(&self, id: DeviceId) -> Result<bool> {
        Ok(revoke::is_revoked(&self.replica, id)?)
    }

    /// Returns what became of a device, if it is retired here.
    pub(crate) fn retirement(&self, id: DeviceId) -> Result<Option<Retirement>> {
        Ok(survey::retirement(&self.replica, id)?)
    }

    /// Returns the statements of the fleet's key about revoked devices.
    pub(crate) fn revocations(&self) -> Result<Vec<Vec<u8>>> {
        Ok(revoke::statements(&self.replica)?)
    }

    /// Hears that another database under this device's identity has left something on a card.
    pub(crate) fn hear_of_copy(&mut self) -> Result<()> {
        Ok(transaction::record(&mut self.replica, copies::hear_of_another)?)
    }

    /// Hears that another database under this device's identity, or this one before it was set back, has left another history
    /// on a card, from this frame on or before. Which of them is the second, a third device must say.
    pub(crate) fn hear_of_other_history(&mut self, first: u64) -> Result<()> {
        let record = |e: &_| peers::record_split(e, e.me, first.saturating_sub(1));
        Ok(transaction::record(&mut self.replica, record)?)
    }

    /// Returns whether one of these places is of a history that is given up here.
    pub(crate) fn has_given_up(&self, applied: &[Position]) -> Result<bool> {
        Ok(survey::has_given_up(&self.replica, applied)?)
    }

    /// Returns what is applied here.
    pub(crate) fn session_vector(&self) -> Result<Vec<Position>> {
        Ok(session::session_vector(&self.replica)?)
    }

    /// Returns probes of the peer's own log, for it to compare.
    pub(crate) fn session_probes(&self, peer: DeviceId) -> Result<Vec<Probe>> {
        Ok(session::session_probes(&self.replica, peer)?)
    }

    /// Makes a signed header of these positions and probes.
    pub(crate) fn session_header(
        &self,
        to: DeviceId,
        applied: &[Position],
        probes: &[Probe],
    ) -> Result<Vec<u8>> {
        Ok(session::session_header(&self.replica, to, applied, probes)?)
    }

    /// Returns what is here beyond the vector: pending groups, and frames of one that this peer has not sent whole.
    pub(crate) fn beyond_vector(&mut self, peer: DeviceId) -> Result<Vec<Frontier>> {
        Ok(session::beyond_vector(&mut self.replica, peer)?)
    }

    /// Returns what goes to a peer next of each stream of which it lacks something. Its frontier is in the order of authors and
    /// streams.
    pub(crate) fn streams_out(&self, peer: &Peer, frontier: &[Frontier]) -> Result<Vec<StreamOut>> {
        Ok(session::streams_out(&self.replica, peer, frontier)?)
    }

    /// Returns what goes to a peer next of a stream that it has up to `have`.
    pub(crate) fn stream_out(&self, peer: &Peer, section: Section, have: u64) -> Result<StreamOut> {
        Ok(session::stream_out(&self.replica, peer, section, have)?)
    }

    /// Counts the frames, and bytes of frames, that a peer lacks that has this much.
    pub(crate) fn plan_out(&self, peer: &Peer, frontier: &[Frontier]) -> Result<(u64, u64)> {
        Ok(session::plan_out(&self.replica, peer, frontier)?)
    }

    /// Reads a frame of a group that is sent.
    pub(crate) fn frame_out(&self, group: &GroupOut, seq: u64) -> Result<Vec<u8>> {
        Ok(session::frame_out(&self.replica, group, seq)?)
    }

    /// Reads the checkpoint of a group that is sent.
    pub(crate) fn checkpoint_out(&self, group: &GroupOut) -> Result<Vec<u8>> {
        Ok(session::checkpoint_out(&self.replica, group)?)
    }

    /// Seals, then writes the state of the shared tables for a peer that has this much. Returns whether it needs one.
    pub(crate) fn export_state(
        &mut self,
        to: &mut dyn Write,
        peer: &Peer,
        frontier: &[Frontier],
    ) -> Result<bool> {
        Ok(offer::export_state(&mut self.replica, to, peer, frontier)?)
    }

    /// Returns whether a peer lacks what is folded here, also when it has what stands in `vector`.
    pub(crate) fn is_behind_with(
        &self,
        peer: &Peer,
        frontier: &[Frontier],
        vector: &[Position],
    ) -> Result<bool> {
        Ok(offer::is_behind_with(&self.replica, peer, frontier, vector)?)
    }

    /// Returns how many bytes of groups that have not ended may be kept of a peer, if there is a bound.
    pub(crate) fn unfinished_max(&self) -> Option<u64> {
        staged::most(&self.replica)
    }

    /// Forgets what a peer has sent of groups that have not ended.
    pub(crate) fn drop_unfinished(&mut self, peer: DeviceId) -> Result<()> {
        Ok(staged::drop_all(&mut self.replica, peer)?)
    }

    /// Forgets what of it does not stay over sessions.
    pub(crate) fn tidy_unfinished(&mut self, peer: DeviceId) -> Result<()> {
        Ok(staged::tidy(&mut self.replica, peer)?)
    }

    /// Takes in what came from a peer, in one transaction. Groups whose checkpoint is among it are verified, and
    /// applied if nothing that they need is missing.
    ///
    /// # Errors
    /// As [`Engine::import`]; nothing of it is kept then, and nothing either of an unfinished group that turned
    /// out to be wrong.
    pub(crate) fn take_staged(
        &mut self,
        peer: DeviceId,
        staged: &[Staged],
        report: &mut ImportReport,
    ) -> Result<()> {
        Ok(session::take_staged(&mut self.replica, peer, staged, report)?)
    }

    /// Makes a notice that there is a clone of this device.
    pub(crate) fn record_clone(&mut self) -> Result<()> {
        Ok(session::record_clone(&mut self.replica)?)
    }

    /// Records what a peer acknowledges. The header is the peer's own, and signed.
    pub(crate) fn record_vector(&mut self, peer: DeviceId, applied: &[Position], whole: bool) -> Result<()> {
        Ok(session::record_vector(&mut self.replica, peer, applied, whole)?)
    }

    /// Compares what a peer has applied, and its probes, with what is here, and draws the consequences of what they
    /// show of this device itself. Whether that goes on under a new identity.
    pub(crate) fn reconcile(
        &mut self,
        peer: &Peer,
        applied: &mut Vec<Position>,
        probes: &[Probe],
        evidence: &mut PeerEvidence,
    ) -> Result<bool> {
        Ok(session::reconcile(&mut self.replica, peer, applied, probes, evidence)?)
    }

    /// Returns the newest checkpoints of the peer's own streams, if it has less of them than is here, the next one last.
    pub(crate) fn newest_for(&self, peer: DeviceId, applied: &[Position]) -> Result<Vec<Vec<u8>>> {
        Ok(newest::for_peer(&self.replica, peer, applied)?)
    }

    /// Hears such a checkpoint of ours. Whether this device goes on under a new identity.
    pub(crate) fn hear_newest(&mut self, bytes: &[u8], evidence: &mut PeerEvidence) -> Result<bool> {
        Ok(session::hear_newest(&mut self.replica, bytes, evidence)?)
    }

    /// Reissues this device's per-device tables, if a base lacks what is folded of them. Returns whether it did.
    pub(crate) fn reissue(&mut self) -> Result<bool> {
        Ok(session::reissue(&mut self.replica)?)
    }

    /// Returns a number that changes whenever another program, or another connection, wrote to the database.
    pub(crate) fn data_version(&self) -> Result<i64> {
        Ok(session::data_version(&self.replica)?)
    }

    /// Remembers what is applied here, which [`Engine::export_part`] is about to say.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub(crate) fn remember(&mut self) -> Result<()> {
        Ok(transaction::remember(&mut self.replica)?)
    }

    /// Records what a session has carried: figures, which decide nothing.
    #[cfg(all(unix, any(feature = "net", feature = "serial")))]
    pub(crate) fn record_link(&mut self, peer: DeviceId, link: &str, carried: &links::Carried) -> Result<()> {
        Ok(transaction::record(&mut self.replica, |replica| links::record(replica, peer, link, carried))?)
    }

    /// Lists what sessions have carried, by peers and kinds of links: figures for people.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn link_figures(&self) -> Result<Vec<LinkFigures>> {
        Ok(links::all(&self.replica)?)
    }

    /// Lists the trusted devices that were retired and have spoken since: what is left for them tells them so, and they
    /// say that they are back.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn returning(&self) -> Result<Vec<Trusted>> {
        Ok(survey::returning(&self.replica)?)
    }

    /// Returns what a device has, as last heard of: from itself, or from what its frames say it had seen.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn acknowledged_by(&self, peer: DeviceId) -> Result<Positions> {
        Ok(survey::acknowledged_by(&self.replica, peer)?)
    }

    /// Returns whether a device lacks frames that are folded here, as last heard of: a bundle for it has the state.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn needs_state(&self, peer: &Trusted) -> Result<bool> {
        Ok(survey::needs_state(&self.replica, peer)?)
    }

    /// Returns what the log could give: of each stream, what is applied here and still in the log.
    ///
    /// # Errors
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn log_spans(&self) -> Result<Vec<Span>> {
        Ok(survey::log_spans(&self.replica)?)
    }
}
