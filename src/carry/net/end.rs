//! One end of a connection: the thread with the database moves bytes between the stream and the session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::records::{Records, STILL_HERE};
use super::stream::Bell;
use super::{Error, Status, random};
use crate::carry::figures::Figures;
use crate::carry::session::{self, Progress, Session};
use crate::carry::stillness::{self, Stillness};
use crate::carry::stop::Stop;
use crate::engine::{Engine, Route};

/// How often the progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// How long an end that closes waits for the other to close too.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Returns whether an end is given up that was silent for so long; `waits`: for how long something is to come or to go. Where
/// nothing is, the other end says only now and then that it is there, and no patience is shorter than that.
fn is_given_up(limit: Duration, silent: Duration, waits: Option<Duration>) -> bool {
    match waits {
        None => silent >= limit.max(2 * STILL_HERE),
        Some(waits) => silent.min(waits) >= limit,
    }
}

/// How long an end waits, and for what.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Until the other end has proved who it is.
    pub(super) proof: Option<Duration>,
    /// While it is not heard, or takes nothing.
    pub(super) silence: Option<Duration>,
}

/// One end.
pub(super) struct End<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) stop: &'a Stop,
    pub(super) report: &'a mut dyn FnMut(Status<'_>),
    /// It stays when both are in step, until the other end goes.
    pub(super) goes_on: bool,
    pub(super) patience: Patience,
    /// It says who it is only when the other end has said so.
    pub(super) listens: bool,
    records: Records,
    bell: Arc<Bell>,
    session: Option<Session>,
    progress: Progress,
    begun: Instant,
    met: bool,
    /// What had been sent and received when it was last reported that both are in step.
    in_step_at: Option<(u64, u64)>,
    leaving: Option<Instant>,
    reported: Instant,
    /// Something came since what came was last made durable.
    fresh: bool,
    stillness: Stillness,
    /// When both had everything for the last time.
    rested: Instant,
    figures: Figures,
}

impl<'a> End<'a> {
    pub(super) fn new(
        engine: &'a mut Engine,
        records: Records,
        bell: Arc<Bell>,
        (stop, report): (&'a Stop, &'a mut dyn FnMut(Status<'_>)),
    ) -> Self {
        let now = Instant::now();
        let figures = Figures::new(records.stream.kind(), (0, 0));
        engine.comes_by(Route::Network);
        Self {
            engine,
            stop,
            report,
            goes_on: false,
            patience: Patience { proof: None, silence: None },
            listens: false,
            records,
            bell,
            session: None,
            progress: Progress::default(),
            begun: now,
            met: false,
            in_step_at: None,
            leaving: None,
            reported: now,
            fresh: false,
            stillness: Stillness::default(),
            rested: now,
            figures,
        }
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Runs the session to its end. `came`: what of the session has come already.
    pub(super) fn run(mut self, came: &[u8]) -> Result<Progress, Error> {
        let result = self.connection(came);
        let peer = self.session.as_ref().and_then(Session::peer).map(|peer| peer.id);
        if let Err(e) = &result {
            self.close(e);
        }
        self.figures.record_end(self.engine, peer, &self.progress, (0, 0));
        result.map(|()| self.progress)
    }

    fn connection(&mut self, came: &[u8]) -> Result<(), Error> {
        let mut came = came;
        loop {
            if self.session.is_none() && self.records.is_open() {
                self.begin()?;
            }
            if let (Some(session), false) = (&mut self.session, came.is_empty()) {
                session.receive(self.engine, 0, std::mem::take(&mut came))?;
                self.fresh = true;
            }
            if self.stop.stopped() {
                return Err(Error::Stopped);
            }
            let mut moved = self.receive()?;
            moved |= self.send()?;
            self.tell(moved);
            moved |= self.leave()?;
            if self.leaving.is_some_and(|since| self.records.is_over() || since.elapsed() > CLOSE_TIME) {
                return Ok(());
            }
            if self.records.is_over() && !self.session.as_ref().is_some_and(Session::peer_done) {
                return Err(Error::Ended);
            }
            self.look_at_time()?;
            if !moved {
                self.wait();
            }
        }
    }

    /// Begins the session: its nonces follow from the channel, if it is encrypted.
    fn begin(&mut self) -> Result<(), Error> {
        let now = self.now_ms();
        self.session = Some(match self.records.nonces() {
            Some(nonces) => Session::in_channel(self.engine, nonces, now)?,
            None => Session::new(self.engine, random()?, now)?,
        });
        Ok(())
    }

    /// Receives what came. Returns whether anything did.
    fn receive(&mut self) -> Result<bool, Error> {
        let mut bytes = [0; 8_192];
        let Some(session) = &mut self.session else {
            // Nothing is taken before there is a session, and nothing comes but the opening.
            let before = self.records.is_open();
            // Of one that has gone already, what it has said is the better reason.
            let flushed = self.records.flush();
            let _ = self.records.receive(&mut [])?;
            flushed?;
            return Ok(self.records.is_open() != before);
        };
        let now = self.begun.elapsed().as_millis() as u64;
        match self.records.receive(&mut bytes)? {
            Some(0) | None => {
                if std::mem::take(&mut self.fresh) {
                    session.caught_up(self.engine)?;
                }
                Ok(false)
            }
            Some(count) => {
                self.fresh = true;
                session.receive(self.engine, now, &bytes[..count])?;
                Ok(true)
            }
        }
    }

    /// Lets time pass for the session, and sends what it has to say. Returns whether anything went.
    fn send(&mut self) -> Result<bool, Error> {
        let now = self.now_ms();
        let Some(session) = &mut self.session else { return Ok(false) };
        session.tick(self.engine, now)?;
        let mut moved = false;
        // An end that has said its last word says no more, also of what still comes.
        if self.leaving.is_some() || self.listens && !session.is_greeted() {
            return Ok(false);
        }
        loop {
            let out = session.output(self.engine)?;
            if out.is_empty() {
                break;
            }
            let taken = self.records.send(out)?;
            if taken == 0 {
                break;
            }
            session.sent(taken);
            moved = true;
        }
        self.records.still_here()?;
        self.records.flush()?;
        session.under_way(self.records.waiting());
        Ok(moved)
    }

    /// Reports how far it is.
    fn tell(&mut self, moved: bool) {
        let Some(session) = &self.session else { return };
        if moved {
            self.figures.note_moving();
        }
        if let (Some(peer), false) = (session.peer(), self.met) {
            self.met = true;
            (self.report)(Status::Met { id: peer.id, name: &peer.name });
        }
        if moved && self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            (self.report)(Status::Moving(session.progress()));
        }
        let progress = session.progress();
        let so_far =
            (progress.sent.0 + progress.state_sent.0, progress.received.0 + progress.state_received.0);
        if session.in_step() && self.in_step_at != Some(so_far) {
            self.in_step_at = Some(so_far);
            (self.report)(Status::InStep(progress));
            if let Some(peer) = session.peer() {
                self.figures.in_step(self.engine, peer.id, progress, (0, 0));
            }
        }
    }

    /// Ends the session where it is to end, and this end's way of the stream when all has gone. Returns whether it did
    /// something.
    fn leave(&mut self) -> Result<bool, Error> {
        let Some(session) = &mut self.session else { return Ok(false) };
        if self.leaving.is_some() {
            return Ok(false);
        }
        let in_step = session.in_step();
        let over = if self.goes_on { session.peer_done() } else { in_step || session.peer_done() };
        if over && !session.done() {
            let whole = in_step || self.goes_on;
            session.finish(self.engine)?;
            return if whole { Ok(true) } else { Err(Error::Ended) };
        }
        if session.done() && self.records.flush()? {
            self.records.stream.hang_up();
            self.leaving = Some(Instant::now());
            self.progress = session.progress().clone();
            return Ok(true);
        }
        Ok(false)
    }

    /// Gives up an end that says nothing, or takes nothing, or does not get on, for too long.
    fn look_at_time(&mut self) -> Result<(), Error> {
        let passed = |limit: Option<Duration>, time: Duration| limit.filter(|limit| time >= *limit);
        let Patience { proof, silence } = self.patience;
        if let (false, Some(limit)) = (self.met, passed(proof, self.begun.elapsed())) {
            return Err(Error::Nobody(limit));
        }
        if let Some(limit) = passed(silence, self.records.stuck()) {
            return Err(Error::Stuck(limit));
        }
        if let (Some(session), true) = (&self.session, self.met)
            && let Some(limit) =
                passed(silence.map(|time| time * stillness::TIMES), self.stillness.look(session))
        {
            return Err(Error::Unanswered(limit));
        }
        let rests = self.session.as_ref().is_some_and(Session::in_step);
        if rests {
            self.rested = Instant::now();
        }
        let waits = (!rests).then(|| self.rested.elapsed());
        match silence.filter(|limit| is_given_up(*limit, self.records.silent(), waits)) {
            Some(limit) if self.met => Err(Error::Silent(limit)),
            Some(limit) => Err(Error::Nobody(limit)),
            None => Ok(()),
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let due = self
            .session
            .as_ref()
            .map_or(1_000, |session| session.deadline().saturating_sub(self.now_ms()).clamp(1, 1_000));
        self.listen_for(Duration::from_millis(due));
    }

    fn listen_for(&self, time: Duration) {
        let [from, to] = self.records.stream.files();
        // One that has ended is always ready.
        let reads = (!self.records.is_over()).then_some((from, false));
        let writes = self.records.is_stuck().then_some((to, true));
        self.bell.wait(&reads.into_iter().chain(writes).collect::<Vec<_>>(), time);
    }

    /// Ends the session after an error: what came whole is kept, and the other end hears why, as long as it listens.
    fn close(&mut self, why: &Error) {
        let now = self.now_ms();
        let Some(mut session) = self.session.take() else { return };
        if matches!(why, Error::Ended | Error::Broken(_)) {
            self.take_rest(&mut session);
        }
        // What goes wrong now is of no interest beside the reason.
        let _ = match why {
            Error::Stopped | Error::Replaced => session.finish(self.engine),
            _ => session.abandon(self.engine, now, &[]),
        };
        self.progress = session.progress().clone();
        let listens = matches!(why, Error::Session(_) | Error::Stopped | Error::Replaced);
        if !listens || self.leaving.is_some() {
            return;
        }
        let until = Instant::now() + if session.peer().is_some() { CLOSE_TIME } else { CLOSE_TIME / 3 };
        let mut ended = false;
        while Instant::now() < until && !self.records.is_over() {
            if !ended && self.send_rest(&mut session) {
                self.records.stream.hang_up();
                ended = true;
            }
            // What it still sends is read, or the system would throw the reason away with it.
            match self.records.receive(&mut [0; 1_024]) {
                Ok(None) => self.listen_for(Duration::from_millis(100)),
                Ok(Some(0)) | Err(_) => break,
                Ok(Some(_)) => {}
            }
        }
    }

    /// Takes in what had come from an end that is gone, and was not read yet: it may be found to be gone by what is sent.
    fn take_rest(&mut self, session: &mut Session) {
        let (mut bytes, until) = ([0; 8_192], Instant::now() + CLOSE_TIME);
        while Instant::now() < until {
            let Ok(Some(count @ 1..)) = self.records.receive(&mut bytes) else { return };
            let now = self.now_ms();
            if session.receive(self.engine, now, &bytes[..count]).is_err() {
                return;
            }
        }
    }

    /// Sends what a session that ends has still to say. Returns whether that was all, or can be no more.
    fn send_rest(&mut self, session: &mut Session) -> bool {
        loop {
            let _ = session.output(self.engine);
            if session.pending_output().is_empty() {
                return self.records.flush().unwrap_or(true);
            }
            match self.records.send(session.pending_output()) {
                Ok(0) => return false,
                Ok(taken) => session.sent(taken),
                Err(_) => return true,
            }
        }
    }
}

/// Returns whether a new session is to be begun after this one; `shown` as of [`session::Error`].
pub(super) fn begins_again(error: &Error, shown: &mut bool) -> bool {
    matches!(error, Error::Session(e) if session::Error::begins_again(e, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_everything_is_not_given_up_before_it_would_say_that_it_is_there() {
        let given_up = |limit, silent, waits: Option<u64>| {
            let seconds = Duration::from_secs;
            is_given_up(seconds(limit), seconds(silent), waits.map(seconds))
        };
        // At rest: what it says every 20 s may be late.
        assert!(!given_up(5, 39, None) && given_up(5, 40, None));
        assert!(!given_up(60, 59, None) && given_up(60, 60, None));
        // Something is to come or to go: patience counts from then on, or from when it was last heard.
        assert!(!given_up(5, 39, Some(4)) && given_up(5, 39, Some(5)));
        assert!(!given_up(5, 4, Some(39)) && given_up(5, 5, Some(39)));
    }
}
