//! What a session has carried, recorded in the database for people and for Prometheus: when both ends are in step, not
//! more often than once a minute, and when it ends.

use std::time::{Duration, Instant};

use packmule_core::model::DeviceId;

use super::session::Progress;
use crate::engine::{Carried, Engine};

/// How often it is recorded while a session lasts: a board's flash bears so many writes.
const RECORD_EVERY: Duration = Duration::from_secs(60);

/// What of a session is not recorded yet.
pub(super) struct Figures {
    link: &'static str,
    peer: Option<DeviceId>,
    /// Since when something is on its way, and when something has moved last.
    moving: Option<(Instant, Instant)>,
    /// What was sent and received, and corrected and lost, when it was last recorded.
    before: [u64; 4],
    recorded: Option<Instant>,
    carried: Carried,
}

impl Figures {
    /// Begins to count a session over this kind of link. `line`: what the line had corrected and lost before.
    pub(super) fn new(link: &'static str, (corrected, lost): (u64, u64)) -> Self {
        let carried = Carried { is_new: true, ..Carried::default() };
        let before = [0, 0, corrected, lost];
        Self { link, peer: None, moving: None, before, recorded: None, carried }
    }

    /// Something has moved.
    pub(super) fn note_moving(&mut self) {
        let now = Instant::now();
        self.moving.get_or_insert((now, now)).1 = now;
    }

    /// Both ends are in step. `line`: what the line has corrected and lost, if it is one.
    pub(super) fn in_step(
        &mut self,
        engine: &mut Engine,
        peer: DeviceId,
        progress: &Progress,
        line: (u64, u64),
    ) {
        self.peer = Some(peer);
        self.carried.in_step = true;
        self.carried.time += self.moving.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        if self.recorded.is_none_or(|at| at.elapsed() >= RECORD_EVERY) {
            self.record(engine, progress, line);
        }
    }

    /// The session has ended, with this peer if it has proved who it is.
    pub(super) fn record_end(
        &mut self,
        engine: &mut Engine,
        peer: Option<DeviceId>,
        progress: &Progress,
        line: (u64, u64),
    ) {
        self.peer = self.peer.or(peer);
        // How long it then waited for an end that was gone says nothing of the link.
        let moving = self.moving.take().filter(|_| !self.carried.in_step);
        self.carried.time += moving.map_or(Duration::ZERO, |(since, last)| last - since);
        self.record(engine, progress, line);
    }

    fn record(&mut self, engine: &mut Engine, progress: &Progress, (corrected, lost): (u64, u64)) {
        let Some(peer) = self.peer else { return };
        let [sent, received] =
            [progress.sent.1 + progress.state_sent.0, progress.received.1 + progress.state_received.0];
        let now = [sent, received, corrected, lost];
        let mut news = now;
        news.iter_mut().zip(self.before).for_each(|(now, before)| *now = now.saturating_sub(before));
        let carried = &mut self.carried;
        [carried.sent, carried.received, carried.corrected, carried.lost] = news;
        if !carried.is_new && !carried.in_step && news == [0; 4] {
            return;
        }
        // They are figures: what matters is recorded elsewhere, or the session would fail for them.
        if engine.record_link(peer, self.link, carried).is_ok() {
            (self.before, self.recorded) = (now, Some(Instant::now()));
            self.carried = Carried::default();
        }
    }
}
