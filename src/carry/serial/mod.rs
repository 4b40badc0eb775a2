//! A session over a serial line.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`sync`], [`serve`]: a session on a line, from its first byte to its last |
//! | `parting` | when an end that has said its last words may leave |
//! | `error`, `watch` | why a line came to its end; what is reported on the way, and [`Stop`] |
//! | `pump` | the thread that moves bytes between port and link, and opens the port again |
//! | `port`, `quick` | the port: for us alone, raw, left as it was found; low latency |

mod error;
mod parting;
mod port;
mod pump;
mod quick;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packmule_core::link::{Event, State};

use super::session::{Progress, Session};
use crate::engine::Engine;
pub use error::Error;
use parting::Parting;
use pump::{Inner, Line, News};
pub use watch::{Status, Stop};

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
    /// [`sync`] gives up when the other end was not heard for so long; `None`: never.
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
    tell: &mut dyn FnMut(Status<'_>),
) -> Result<Progress, Error> {
    on_line(options, stop, |line| {
        let mut end = End::new(engine, options, line, stop, tell, false);
        loop {
            match end.run() {
                Ok(()) => return Ok(end.progress),
                Err(Error::Session(e)) if e.is_anew() => {
                    (end.tell)(Status::Failed(&Error::Session(e)));
                    end.again()?;
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
    tell: &mut dyn FnMut(Status<'_>),
) -> Result<(), Error> {
    on_line(options, stop, |line| {
        let mut end = End::new(engine, options, line, stop, tell, true);
        while !stop.stopped() {
            match end.run() {
                Ok(()) => (end.tell)(Status::Ended),
                Err(Error::Stopped) => break,
                Err(e) => {
                    (end.tell)(Status::Failed(&e));
                    if !matches!(&e, Error::Session(e) if e.is_anew()) {
                        end.pause(AFTER_FAILURE);
                    }
                }
            }
            end.again()?;
        }
        Ok(())
    })
}

/// After a failed session, so that a stranger's calls do not fill a log.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How often it is told how far it is, also where nothing moved but what is under way.
const TELL: Duration = Duration::from_millis(250);
/// How long an end waits for the other to hear its last words.
const FAREWELL: Duration = Duration::from_secs(3);
/// And how long the last acknowledgements may take to get out.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Returns random bytes.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}

/// Runs `work` while a thread serves the line.
fn on_line<R>(
    options: &Options,
    stop: &Stop,
    work: impl FnOnce(&Arc<Line>) -> Result<R, Error>,
) -> Result<R, Error> {
    let (line, ear) = Line::new(options).map_err(Error::Port)?;
    stop.lines().push(line.clone());
    let result = std::thread::scope(|scope| {
        scope.spawn(|| line.pump(options, ear));
        let result = work(&line);
        line.stop();
        result
    });
    stop.lines().retain(|other| !Arc::ptr_eq(other, &line));
    result
}

/// One end of a line: the thread with the database.
struct End<'a> {
    engine: &'a mut Engine,
    options: &'a Options,
    line: &'a Arc<Line>,
    stop: &'a Stop,
    tell: &'a mut dyn FnMut(Status<'_>),
    goes_on: bool,
    session: Option<Session>,
    progress: Progress,
    begun: Instant,
    /// Since when the other end is not heard.
    silent: Option<Instant>,
    opened: bool,
    met: bool,
    /// What had been sent and received when it was last told that both are in step.
    in_step_at: Option<(u64, u64)>,
    leaving: Option<Instant>,
    /// When it was last told how far it is.
    told: Instant,
}

impl<'a> End<'a> {
    fn new(
        engine: &'a mut Engine,
        options: &'a Options,
        line: &'a Arc<Line>,
        stop: &'a Stop,
        tell: &'a mut dyn FnMut(Status<'_>),
        goes_on: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            engine,
            options,
            line,
            stop,
            tell,
            goes_on,
            session: None,
            progress: Progress::default(),
            begun: now,
            silent: Some(now),
            opened: false,
            met: false,
            in_step_at: None,
            leaving: None,
            told: now,
        }
    }

    fn next_news(&self) -> Option<News> {
        let mut inner = self.line.lock();
        inner.has_news();
        inner.news.pop_front()
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Runs one connection, until it has come to its end.
    fn run(&mut self) -> Result<(), Error> {
        let result = self.connection();
        if let Err(e) = &result {
            self.part(e);
        }
        result
    }

    fn connection(&mut self) -> Result<(), Error> {
        loop {
            if let Some(news) = self.next_news() {
                if self.take_news(news)? {
                    return Ok(());
                }
                continue;
            }
            if self.stop.stopped() {
                return Err(Error::Stopped);
            }
            let moved = self.move_bytes()?;
            if self.leaving.is_some_and(|since| since.elapsed() > FAREWELL) {
                return Ok(());
            }
            if let (Some(patience), Some(silent)) = (self.options.patience, self.silent)
                && !self.goes_on
                && silent.elapsed() >= patience
            {
                return Err(if self.met { Error::Silent(patience) } else { Error::Nobody(patience) });
            }
            if !moved {
                self.wait();
            }
        }
    }

    /// Handles an event of the line. Returns whether that ends the connection.
    fn take_news(&mut self, news: News) -> Result<bool, Error> {
        match news {
            News::Opened => {
                self.opened = true;
                (self.tell)(Status::Open);
            }
            News::Closed(e) => {
                if !self.opened && !self.goes_on {
                    return Err(Error::Port(e));
                }
                self.silent.get_or_insert_with(Instant::now);
                (self.tell)(Status::Away(&e));
            }
            News::Link(Event::Connected) => {
                self.silent = None;
                let now = self.now_ms();
                let nonce = random().map_err(Error::Port)?;
                self.session = Some(Session::new(self.engine, nonce, now)?);
                self.in_step_at = None;
            }
            News::Link(Event::PeerRestarted) => {
                self.salvage(true);
                if self.leaving.is_some() {
                    return Ok(true);
                }
                self.silent = Some(Instant::now());
            }
            News::Link(Event::Incompatible { .. }) => return Err(Error::Incompatible),
            News::Link(Event::Silent) => {
                self.silent = Some(Instant::now());
                (self.tell)(Status::Silent);
            }
            News::Link(Event::Resumed) => {
                self.silent = None;
                (self.tell)(Status::Heard);
            }
            News::Link(Event::Baud(baud)) => (self.tell)(Status::Baud(baud)),
            News::Link(Event::PeerFinished) => {
                let in_order = self.session.as_ref().is_some_and(Session::peer_done);
                if self.leaving.is_none() && !in_order {
                    // It had no time for a word.
                    self.salvage(false);
                    return Err(Error::Ended);
                }
            }
            News::Link(Event::Closed) => {
                self.say_last_words();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves bytes between link and session; whether any moved.
    fn move_bytes(&mut self) -> Result<bool, Error> {
        let now = self.now_ms();
        let Some(session) = &mut self.session else { return Ok(false) };
        let mut moved = false;
        let mut bytes = [0; 8192];
        let mut inner = self.line.lock();
        let count = if inner.has_news() { 0 } else { inner.link.recv(&mut bytes) };
        let more = inner.link.recv_ready() > 0;
        drop(inner);
        if count > 0 {
            moved = true;
            session.receive(self.engine, now, bytes.get(..count).unwrap_or_default())?;
            if !more {
                session.caught_up(self.engine)?;
            }
        }
        session.tick(self.engine, now)?;
        loop {
            let out = session.output(self.engine)?;
            if out.is_empty() {
                break;
            }
            let mut inner = self.line.lock();
            let taken = if inner.has_news() { 0 } else { inner.link.send(out) };
            drop(inner);
            if taken == 0 {
                break;
            }
            session.sent(taken);
            moved = true;
        }
        if let (Some(peer), false) = (session.peer(), self.met) {
            self.met = true;
            (self.tell)(Status::Met { id: peer.id, name: &peer.name });
        }
        let under_way = self.line.lock().link.unacknowledged();
        session.under_way(under_way);
        if self.silent.is_none() && (moved || self.told.elapsed() >= TELL) {
            self.told = Instant::now();
            (self.tell)(Status::Moving(session.progress()));
        }
        let in_step = session.in_step();
        let so_far = (session.progress().sent.0, session.progress().received.0);
        if in_step && self.in_step_at != Some(so_far) {
            self.in_step_at = Some(so_far);
            (self.tell)(Status::InStep(session.progress()));
        }
        let over = if self.goes_on { session.peer_done() } else { in_step || session.peer_done() };
        if over && self.leaving.is_none() && !session.done() {
            let whole = in_step || self.goes_on;
            session.finish(self.engine)?;
            moved = true;
            if !whole {
                return Err(Error::Ended);
            }
        }
        if session.done() && self.leaving.is_none() {
            let mut inner = self.line.lock();
            if !inner.restarted() {
                inner.link.finish();
                self.leaving = Some(Instant::now());
                self.progress = session.progress().clone();
            }
            moved = true;
        }
        if moved {
            self.line.ring();
        }
        Ok(moved)
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let session = self.session.as_ref();
        let due = session
            .map_or(1_000, |s| s.deadline().saturating_sub(self.now_ms()).clamp(1, TELL.as_millis() as u64));
        let talks = session.is_some_and(|s| !s.pending_output().is_empty());
        let mut inner = self.line.lock();
        let busy = |inner: &mut Inner| {
            inner.has_news()
                || session.is_some() && inner.link.recv_ready() > 0
                || talks && inner.link.send_space() > 0
        };
        if !busy(&mut inner) && !self.stop.stopped() {
            drop(self.line.wait(inner, Duration::from_millis(due)));
        }
    }

    /// Lets the link say what the other end waits for, before it is closed or begins anew.
    fn say_last_words(&self) {
        let until = Instant::now() + LAST_WORDS;
        let mut inner = self.line.lock();
        while inner.link.has_last_words() && Instant::now() < until {
            self.line.ring();
            inner = self.line.wait(inner, LAST_WORDS / 50);
        }
    }

    /// Keeps what came of a session that broke off. `over`: the other end has begun anew.
    fn salvage(&mut self, over: bool) {
        let (rest, now) = (self.line.lock().take_rest(over), self.now_ms());
        if let Some(mut session) = self.session.take() {
            // What cannot be kept comes again.
            let _ = session.abandon(self.engine, now, &rest);
            self.progress = session.progress().clone();
        }
    }

    /// Tells the other end that, and why, there will be no more, as long as it listens.
    fn part(&mut self, why: &Error) {
        let Some(mut session) = self.session.take() else { return };
        let (rest, now) = (self.line.lock().take_rest(false), self.now_ms());
        // What goes wrong now is of no interest beside the reason.
        let _ = match why {
            Error::Session(_) => session.abandon(self.engine, now, &rest),
            _ => session.receive(self.engine, now, &rest).and_then(|()| session.finish(self.engine)),
        };
        self.progress = session.progress().clone();
        if self.leaving.is_some() {
            return;
        }
        // Who has not said its name has nothing to lose; a stranger is to hear why it is refused.
        let listens = session.peer().is_some() || matches!(why, Error::Session(_));
        let mut parting = Parting::new(Instant::now(), if listens { FAREWELL } else { FAREWELL / 10 });
        loop {
            let all_is_said = self.say(&mut session);
            let mut inner = self.line.lock();
            // Who has begun anew listens no more, and what begins then is not to be finished here.
            if inner.restarted() {
                break;
            }
            if all_is_said {
                inner.link.finish();
            }
            if parting.is_over(&inner.link, all_is_said, Instant::now()) {
                break;
            }
            // The other end may be in the middle of a sentence, and must not be stuck in it.
            while inner.link.recv(&mut [0; 1024]) > 0 {}
            self.line.ring();
            drop(self.line.wait(inner, Duration::from_millis(20)));
        }
        if self.line.lock().link.state() == State::Closed {
            self.say_last_words();
        }
    }

    /// Hands the link what a session that ends has still to say. Returns whether that was all.
    fn say(&mut self, session: &mut Session) -> bool {
        loop {
            // What goes wrong now is of no interest beside the reason, which goes out.
            let _ = session.output(self.engine);
            if session.pending_output().is_empty() {
                return true;
            }
            let mut inner = self.line.lock();
            let taken = if inner.restarted() { 0 } else { inner.link.send(session.pending_output()) };
            session.sent(taken);
            if taken == 0 {
                return false;
            }
        }
    }

    /// Lets some time pass, with an ear on the line.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stop.stopped() {
            let inner = self.line.lock();
            drop(self.line.wait(inner, until.saturating_duration_since(Instant::now())));
        }
    }

    /// Begins to call anew.
    fn again(&mut self) -> Result<(), Error> {
        self.salvage(false);
        let nonce = u32::from_le_bytes(random().map_err(Error::Port)?);
        let mut inner = self.line.lock();
        // What the old connection had still to tell is of no interest; what the port tells is.
        inner.has_news();
        inner.news.retain(|news| !matches!(news, News::Link(_)));
        inner.link.restart(nonce);
        drop(inner);
        self.line.ring();
        (self.leaving, self.met, self.in_step_at, self.silent) = (None, false, None, Some(Instant::now()));
        Ok(())
    }
}
