//! A session over a serial line.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`sync`], [`serve`]: a session on a line, from its first byte to its last |
//! | `closing` | when an end that has sent all may close the line |
//! | `error`, `watch` | why a line came to its end; what is reported on the way |
//! | `pump` | the thread that moves bytes between port and link, and opens the port again |
//! | `talk` | the session, and the channel that its bytes go through |
//! | `port`, `quick` | the port: for us alone, raw, left as it was found; low latency |

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod between;
mod closing;
mod error;
mod port;
mod pump;
mod quick;
mod talk;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packmule_core::link::{Cause, Event, State};
use packmule_core::model::DeviceId;

use super::channel::random;
use super::figures::Figures;
use super::session::Progress;
use super::stillness::{self, Stillness};
use super::stop::{Stop, Wake};
use crate::engine::{Engine, Route};
use closing::Closing;
pub use error::Error;
use pump::{Inner, Line, LineEvent};
use talk::{Talk, difference, note};
pub use watch::Status;

/// Flow control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// None: three wires.
    None,
    /// RTS and CTS.
    Hardware,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port's file.
    pub path: PathBuf,
    /// Bits a second: the rate at which the line begins, the same at both ends.
    pub baud: u32,
    /// The highest rate that this end goes up to if the other does too; at most `baud`: it stays there.
    pub baud_max: u32,
    /// Flow control.
    pub flow: Flow,
    /// It is not encrypted: what is sent can be read and altered on the way, but for what devices have signed. Both ends
    /// must have it.
    pub plain: bool,
    /// [`sync`] gives up when the other end was not heard for so long, or nothing got through; `None`: never.
    pub patience: Option<Duration>,
}

/// Exchanges with whoever is at the other end until each has all that the other has.
///
/// # Errors
/// [`Error`]. What came until then is kept.
pub fn sync(
    engine: &mut Engine,
    options: &Options,
    stop: &Stop,
    report: &mut dyn FnMut(Status<'_>),
) -> Result<Progress, Error> {
    on_line(options, stop, |line| {
        // For a board's word alone nobody gives way.
        let mut shown = !engine.identity().base;
        let mut end = End::new(engine, options, line, stop, report, false);
        loop {
            match end.run() {
                Ok(()) => return Ok(end.progress),
                Err(Error::Session(e)) if e.begins_again(&mut shown) => {
                    (end.report)(Status::Failed(&Error::Session(e)));
                    end.reconnect()?;
                }
                Err(e) => return Err(e),
            }
        }
    })
}

/// Waits for peers and exchanges with each, for ever: until [`Stop::stop`].
///
/// # Errors
/// Only what keeps it from beginning.
pub fn serve(
    engine: &mut Engine,
    options: &Options,
    stop: &Stop,
    report: &mut dyn FnMut(Status<'_>),
) -> Result<(), Error> {
    on_line(options, stop, |line| {
        let mut end = End::new(engine, options, line, stop, report, true);
        while !stop.stopped() {
            match end.run() {
                Ok(()) => (end.report)(Status::Ended),
                Err(Error::Stopped) => break,
                Err(e) => {
                    (end.report)(Status::Failed(&e));
                    if !matches!(&e, Error::Session(e) if e.is_new_identity()) {
                        end.pause(AFTER_FAILURE);
                    }
                }
            }
            end.reconnect()?;
        }
        Ok(())
    })
}

/// After a failed session, so that the calls of an untrusted device do not fill a log.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How long nothing gets through before a line counts as one that carries nothing: a noisy line takes some time to find
/// the packets that it carries.
const LEAST_STALL: Duration = Duration::from_secs(3);
/// How long who serves waits for a connection on which nothing gets through.
const SERVES_STALLED: Duration = Duration::from_secs(120);
/// How often the progress is reported, also where nothing moved but what is under way.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// How long an end that closes waits for the other to acknowledge what it sent last.
const CLOSE_TIME: Duration = Duration::from_secs(3);
/// How long the repeats of the last acknowledgement may take to get out.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Returns what was sent and received, as numbers that grow with it.
fn moved_so_far(progress: &Progress) -> (u64, u64) {
    (progress.sent.0 + progress.state_sent.0, progress.received.0 + progress.state_received.0)
}

/// Runs `work` while a thread serves the line.
fn on_line<R>(
    options: &Options,
    stop: &Stop,
    work: impl FnOnce(&Arc<Line>) -> Result<R, Error>,
) -> Result<R, Error> {
    let (line, wake_pipe) = Line::new(options, note(options.plain)).map_err(Error::Port)?;
    let waits: Arc<dyn Wake> = line.clone();
    stop.wakes(Arc::downgrade(&waits));
    std::thread::scope(|scope| {
        scope.spawn(|| line.pump(options, wake_pipe));
        let result = work(&line);
        line.stop();
        result
    })
}

/// One end of a line: the thread with the database.
struct End<'a> {
    engine: &'a mut Engine,
    options: &'a Options,
    line: &'a Arc<Line>,
    stop: &'a Stop,
    report: &'a mut dyn FnMut(Status<'_>),
    goes_on: bool,
    talk: Option<Talk>,
    /// Since when the other end is to open the channel.
    opening: Option<Instant>,
    progress: Progress,
    begun: Instant,
    /// Since when the other end is not heard.
    silent: Option<Instant>,
    opened: bool,
    met: bool,
    /// What had been sent and received when it was last reported that both are in step.
    in_step_at: Option<(u64, u64)>,
    stillness: Stillness,
    leaving: Option<Instant>,
    /// When the progress was last reported.
    reported: Instant,
    figures: Figures,
}

impl<'a> End<'a> {
    fn new(
        engine: &'a mut Engine,
        options: &'a Options,
        line: &'a Arc<Line>,
        stop: &'a Stop,
        report: &'a mut dyn FnMut(Status<'_>),
        goes_on: bool,
    ) -> Self {
        let now = Instant::now();
        engine.comes_by(Route::Serial);
        Self {
            engine,
            options,
            line,
            stop,
            report,
            goes_on,
            talk: None,
            opening: None,
            progress: Progress::default(),
            begun: now,
            silent: Some(now),
            opened: false,
            met: false,
            in_step_at: None,
            stillness: Stillness::default(),
            leaving: None,
            reported: now,
            figures: Figures::new("serial", (0, 0)),
        }
    }

    fn next_event(&self) -> Option<LineEvent> {
        let mut inner = self.line.lock();
        inner.poll_events();
        inner.events.pop_front()
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Runs one connection, until it has come to its end.
    fn run(&mut self) -> Result<(), Error> {
        let result = self.connection();
        let peer = self.talk.as_ref().and_then(Talk::peer);
        if let Err(e) = &result {
            self.close(e);
        }
        self.end_figures(peer);
        result
    }

    /// Records what a session has carried that has ended, with this peer if it has proved who it is.
    fn end_figures(&mut self, peer: Option<DeviceId>) {
        let line = self.line.lock().ills();
        self.figures.record_end(self.engine, peer, &self.progress, line);
        self.figures = Figures::new("serial", line);
    }

    fn connection(&mut self) -> Result<(), Error> {
        loop {
            if let Some(events) = self.next_event() {
                if self.handle_event(events)? {
                    return Ok(());
                }
                continue;
            }
            if self.stop.stopped() {
                return Err(Error::Stopped);
            }
            let moved = self.move_bytes()?;
            if self.leaving.is_some_and(|since| since.elapsed() > CLOSE_TIME) {
                return Ok(());
            }
            if let (Some(patience), Some(silent)) = (self.options.patience, self.silent)
                && !self.goes_on
                && silent.elapsed() >= patience
            {
                let cause = self.line.lock().cause();
                return Err(if self.met { Error::Silent(patience) } else { Error::Nobody(patience, cause) });
            }
            self.look_at_stall()?;
            if !moved {
                self.wait();
            }
        }
    }

    /// Begins on a new connection.
    fn begin(&mut self) -> Result<(), Error> {
        let now = self.now_ms();
        let (leads, theirs) = {
            let link = &self.line.lock().link;
            (link.leads(), link.peer().map_or(0, |peer| peer.note))
        };
        (self.in_step_at, self.stillness) = (None, Stillness::default());
        let plain = self.options.plain;
        if let Some(error) = difference(plain, theirs) {
            self.talk = Some(Talk::refuse(matches!(error, Error::Clear { is_older: true, .. })));
            return Err(error);
        }
        self.talk = Some(Talk::begin(self.engine, plain, leads, now)?);
        Ok(())
    }

    /// Gives up a connection on which nothing gets through for as long as patience lasts. Who serves has some patience
    /// in any case, so that it is told, and begins again.
    fn look_at_stall(&mut self) -> Result<(), Error> {
        let patience = match self.options.patience {
            Some(patience) => patience.max(LEAST_STALL),
            None if self.goes_on => SERVES_STALLED,
            None => return Ok(()),
        };
        let inner = self.line.lock();
        if inner.stalled() >= patience {
            return Err(Error::Stalled(patience, inner.cause()));
        }
        drop(inner);
        let limit = patience * stillness::TIMES;
        // Also of one that never says who it is, though the link to it is up.
        if let (Some(session), None) = (self.talk.as_mut().and_then(Talk::session), self.silent)
            && self.stillness.look(session) >= limit
        {
            return Err(Error::Unanswered(limit));
        }
        // All gets through but the opening: what is there is no end of a session.
        match self.opening.is_some_and(|since| since.elapsed() >= 2 * patience) {
            true => Err(Error::Nobody(2 * patience, Cause::Nothing)),
            false => Ok(()),
        }
    }

    /// Handles an event of the line. Returns whether that ends the connection.
    fn handle_event(&mut self, events: LineEvent) -> Result<bool, Error> {
        match events {
            LineEvent::Opened => {
                self.opened = true;
                (self.report)(Status::Open);
            }
            LineEvent::Closed(e) => {
                if !self.opened && !self.goes_on {
                    return Err(Error::Port(e));
                }
                self.silent.get_or_insert_with(Instant::now);
                (self.report)(Status::Away(&e));
            }
            LineEvent::Link(Event::Connected) => {
                self.silent = None;
                self.begin()?;
            }
            LineEvent::Link(Event::PeerRestarted) => {
                let peer = self.talk.as_ref().and_then(Talk::peer);
                self.flush_partial(true);
                if self.leaving.is_some() {
                    return Ok(true);
                }
                // Another session begins, perhaps with another device: it is met, and has figures of its own.
                self.end_figures(peer);
                (self.met, self.silent) = (false, Some(Instant::now()));
            }
            LineEvent::Link(Event::Incompatible { .. }) => return Err(Error::Incompatible),
            LineEvent::Link(Event::Silent) => {
                self.silent = Some(Instant::now());
                (self.report)(Status::Silent);
            }
            LineEvent::Link(Event::Resumed) => {
                // While it was not heard nothing could move.
                (self.silent, self.stillness) = (None, Stillness::default());
                (self.report)(Status::Heard);
            }
            LineEvent::Link(Event::Baud(baud)) => (self.report)(Status::Baud(baud)),
            LineEvent::Link(Event::PeerFinished) => {
                let in_order = self.talk.as_ref().is_some_and(Talk::peer_done);
                if self.leaving.is_none() && !in_order {
                    // It had no time to say why.
                    self.flush_partial(false);
                    return Err(Error::Ended);
                }
            }
            LineEvent::Link(Event::Closed) => {
                self.drain();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves bytes between link and session. Returns whether any moved.
    fn move_bytes(&mut self) -> Result<bool, Error> {
        let now = self.now_ms();
        let Some(talk) = &mut self.talk else { return Ok(false) };
        let mut moved = talk.receive(self.engine, self.line, now)?;
        talk.tick(self.engine, now)?;
        moved |= talk.send(self.engine, self.line, now)?;
        talk.note_under_way(self.line);
        let waits = talk.session().is_none().then(|| self.opening.unwrap_or_else(Instant::now));
        self.opening = waits;
        if moved {
            self.figures.note_moving();
        }
        self.tell(moved);
        moved |= self.leave()?;
        if moved {
            self.line.wake_pump();
        }
        Ok(moved)
    }

    /// Reports how far it is.
    fn tell(&mut self, moved: bool) {
        let Some(session) = self.talk.as_mut().and_then(Talk::session) else { return };
        if let (Some(peer), false) = (session.peer(), self.met) {
            self.met = true;
            (self.report)(Status::Met { id: peer.id, name: &peer.name });
        }
        if self.silent.is_none() && (moved || self.reported.elapsed() >= REPORT_EVERY) {
            self.reported = Instant::now();
            (self.report)(Status::Moving(session.progress()));
        }
        let so_far = moved_so_far(session.progress());
        let Some(peer) = session.peer().filter(|_| session.in_step() && self.in_step_at != Some(so_far))
        else {
            return;
        };
        self.in_step_at = Some(so_far);
        (self.report)(Status::InStep(session.progress()));
        let line = self.line.lock().ills();
        self.figures.in_step(self.engine, peer.id, session.progress(), line);
    }

    /// Ends the session where it is to end, and this end of the line when all has gone. Returns whether it did something.
    fn leave(&mut self) -> Result<bool, Error> {
        let Some(talk) = self.talk.as_mut().filter(|_| self.leaving.is_none()) else { return Ok(false) };
        let Some(session) = talk.session() else { return Ok(false) };
        let in_step = session.in_step();
        let over = if self.goes_on { session.peer_done() } else { in_step || session.peer_done() };
        let mut moved = false;
        if over && !session.done() {
            let whole = in_step || self.goes_on;
            session.finish(self.engine)?;
            moved = true;
            if !whole {
                return Err(Error::Ended);
            }
        }
        if talk.done() {
            let mut inner = self.line.lock();
            if !inner.restarted() {
                inner.link.finish();
                self.leaving = Some(Instant::now());
                self.progress = talk.progress();
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let talk = self.talk.as_ref();
        let due = talk
            .and_then(Talk::deadline)
            .map_or(1_000, |due| due.saturating_sub(self.now_ms()).clamp(1, REPORT_EVERY.as_millis() as u64));
        let talks = talk.is_some_and(Talk::has_to_say);
        let mut inner = self.line.lock();
        let busy = |inner: &mut Inner| {
            inner.poll_events()
                || talk.is_some() && inner.link.recv_ready() > 0
                || talks && inner.link.send_space() > 0
        };
        if !busy(&mut inner) && !self.stop.stopped() {
            drop(self.line.wait(inner, Duration::from_millis(due)));
        }
    }

    /// Lets the link send what the other end waits for, before it is closed or begins a new connection.
    fn drain(&self) {
        let until = Instant::now() + DRAIN_TIME;
        let mut inner = self.line.lock();
        while inner.link.is_draining() && Instant::now() < until {
            self.line.wake_pump();
            inner = self.line.wait(inner, DRAIN_TIME / 50);
        }
    }

    /// Commits what came whole of a session that broke off. `over`: the other end has begun a new connection.
    fn flush_partial(&mut self, over: bool) {
        let (unread, now) = (self.line.lock().take_unread(over), self.now_ms());
        self.opening = None;
        if let Some(mut talk) = self.talk.take() {
            talk.abandon(self.engine, now, &unread);
            self.progress = talk.progress();
        }
    }

    /// Closes the connection after an error: the other end hears that, and why, there will be no more, as long as it
    /// listens.
    fn close(&mut self, why: &Error) {
        let Some(mut talk) = self.talk.take() else { return };
        let (unread, now) = (self.line.lock().take_unread(false), self.now_ms());
        match why {
            Error::Session(_) | Error::Tampered | Error::Foreign | Error::Clear { .. } => {
                talk.abandon(self.engine, now, &unread);
            }
            _ => talk.finish(self.engine, now, &unread),
        }
        self.progress = talk.progress();
        if self.leaving.is_some() {
            return;
        }
        // A peer that has not proved who it is has nothing to lose; an untrusted device is to hear why it is refused.
        let listens = talk.peer().is_some() || matches!(why, Error::Session(_) | Error::Clear { .. });
        let mut closing = Closing::new(Instant::now(), if listens { CLOSE_TIME } else { CLOSE_TIME / 10 });
        loop {
            let all_is_sent = talk.send_rest(self.engine, self.line);
            let mut inner = self.line.lock();
            // A peer with a new connection listens no more, and the new one is not to be finished here.
            if inner.restarted() {
                break;
            }
            if all_is_sent {
                inner.link.finish();
            }
            if closing.is_over(&inner.link, all_is_sent, Instant::now()) {
                break;
            }
            // The other end may be in the middle of a record, and must not be stuck in it.
            while inner.link.recv(&mut [0; 1024]) > 0 {}
            self.line.wake_pump();
            drop(self.line.wait(inner, Duration::from_millis(20)));
        }
        if self.line.lock().link.state() == State::Closed {
            self.drain();
        }
    }

    /// Lets some time pass, and listens to the line.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stop.stopped() {
            let inner = self.line.lock();
            drop(self.line.wait(inner, until.saturating_duration_since(Instant::now())));
        }
    }

    /// Begins a new connection.
    fn reconnect(&mut self) -> Result<(), Error> {
        self.flush_partial(false);
        let nonce = u32::from_le_bytes(random().map_err(Error::Port)?);
        let mut inner = self.line.lock();
        // What the old connection had still to report is of no interest; what the port reports is.
        inner.poll_events();
        inner.events.retain(|events| !matches!(events, LineEvent::Link(_)));
        inner.link.restart(nonce);
        drop(inner);
        self.line.wake_pump();
        (self.leaving, self.met, self.in_step_at, self.silent) = (None, false, None, Some(Instant::now()));
        Ok(())
    }
}
