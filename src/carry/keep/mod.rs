//! What is kept up in the background: a link that is begun once in a while, or again when it was lost; upkeep that is due.
//!
//! [`Runner::keep_up`] is the loop of one of them, on a thread of its own with an engine of its own. What there is to do is a
//! [`Work`]; the time comes from a [`Clock`], so that a test has no need to wait.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`Runner`]: when work is begun |
//! | `backoff` | [`Backoff`]: how long to wait after failures |
//! | `clock` | [`Clock`], and the system's |
//! | `watch` | whether something was written here that the other end lacks |
//!
//! # Example
//! A board that meets its base every quarter of an hour, and half a minute after something was written:
//! ```no_run
//! # #[cfg(feature = "net")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use packmule::carry::keep::{Met, Pace, Runner, SystemClock, Work};
//! use packmule::carry::net::{self, Address, Options, Status};
//! use packmule::{Engine, carry::Stop};
//!
//! struct Base(Address, Stop);
//!
//! impl Work for Base {
//!     type Error = net::Error;
//!     fn round(&mut self, engine: &mut Engine, met: &mut Met) -> Result<(), net::Error> {
//!         let options = Options { plain: false, patience: Some(std::time::Duration::from_secs(60)) };
//!         net::sync(engine, &self.0, &options, &self.1, &mut |status| match status {
//!             Status::Met { id, .. } => met.peer = Some(id),
//!             Status::InStep(_) => met.in_step = true,
//!             _ => {}
//!         })?;
//!         Ok(())
//!     }
//! }
//!
//! let stop = Stop::default();
//! let mut base = Base("tcp://192.168.1.5:7225".parse()?, stop.clone());
//! let clock = SystemClock::new(&stop);
//! let mut runner = Runner::new(Pace::every(std::time::Duration::from_secs(15 * 60)), &*clock, &stop);
//! runner.keep_up(&mut Engine::open("north.db".as_ref())?, &mut base, &mut |_| ());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "net"))]
//! # fn main() {}
//! ```

mod backoff;
mod clock;
mod watch;

use std::time::Duration;

use packmule_core::model::DeviceId;

use super::stop::Stop;
use crate::engine::{self, Engine};
pub use backoff::Backoff;
pub use clock::{Clock, SystemClock};
use watch::Watch;

/// How often it is looked whether somebody is there, and whether something was written.
const LOOK: Duration = Duration::from_secs(1);

/// The first round is no more at random than this: somebody may wait for it.
const FIRST_JITTER: Duration = Duration::from_secs(10);

/// When work is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So long after a round that went well the next one begins; `None`: a round lasts until the other end is lost, and
    /// is begun again as after a failure.
    pub interval: Option<Duration>,
    /// At random up to so much later, so that many that began together do not stay together; the first round up to 10
    /// seconds of it.
    pub jitter: Duration,
    /// A round also begins so long after something was written here that the other end lacks; `None`: it does not.
    pub changes: Option<Duration>,
    /// The first round begins so late.
    pub delay: Duration,
}

impl Pace {
    /// Returns a pace of one round in so long, without jitter, and half a minute after something was written.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval: Some(interval),
            jitter: Duration::ZERO,
            changes: Some(Duration::from_secs(30)),
            delay: Duration::ZERO,
        }
    }

    /// Returns a pace for links that stay connected.
    pub fn stay() -> Self {
        Self { interval: None, changes: None, ..Self::every(Duration::ZERO) }
    }
}

/// Whom a round has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// The other end, once it has proved who it is.
    pub peer: Option<DeviceId>,
    /// Both had everything: what failed before counts no more, whatever becomes of this round.
    pub in_step: bool,
}

/// What is to be done again and again.
pub trait Work {
    /// Why a round failed.
    type Error: From<engine::Error>;

    /// Does it once. With a pace that has no interval: until the other end is lost.
    ///
    /// # Errors
    /// Why it failed: it is done again, later and later.
    fn round(&mut self, engine: &mut Engine, met: &mut Met) -> Result<(), Self::Error>;

    /// Returns whether there is what it needs, such as a card. It is asked once a second; when it comes, a round begins at
    /// once.
    fn is_there(&mut self) -> bool {
        true
    }
}

/// What becomes of work, for whoever watches.
#[derive(Debug)]
pub enum Change<'a, E> {
    /// What it needs is not there. This is no failure.
    Away,
    /// A round begins.
    Begins,
    /// It went well; the next one begins after so long.
    Rests(Duration),
    /// It ended in good order, and is begun again after so long.
    Ended(Duration),
    /// It failed, and is begun again after so long.
    Failed(&'a E, Duration),
}

/// The loop of one link, or of other work.
pub struct Runner<'a> {
    pace: Pace,
    backoff: Backoff,
    clock: &'a dyn Clock,
    stop: &'a Stop,
}

/// Until when there is a rest.
struct Rest {
    until: Duration,
    /// Something that is written ends it.
    wakes: bool,
}

impl<'a> Runner<'a> {
    /// Makes one, which waits after failures as [`Backoff::default`] says.
    pub fn new(pace: Pace, clock: &'a dyn Clock, stop: &'a Stop) -> Self {
        Self { pace, backoff: Backoff::default(), clock, stop }
    }

    /// Does the work again and again, until [`Stop::stop`].
    pub fn keep_up<W: Work>(
        &mut self,
        engine: &mut Engine,
        work: &mut W,
        report: &mut dyn FnMut(Change<'_, W::Error>),
    ) {
        let mut watch = Watch::default();
        let late = self.pace.delay + part(self.pace.jitter.min(FIRST_JITTER), self.clock.draw());
        self.rest_until(engine, work, &mut watch, Rest { until: self.clock.now() + late, wakes: false });
        while !self.stop.stopped() {
            if !work.is_there() {
                report(Change::Away);
                while !work.is_there() && !self.stop.stopped() {
                    self.clock.wait(LOOK);
                }
                continue;
            }
            report(Change::Begins);
            watch.begins(engine);
            let mut met = Met::default();
            let result = match engine.reopen_if_moved() {
                Ok(()) => work.round(engine, &mut met),
                Err(e) => Err(e.into()),
            };
            if self.stop.stopped() {
                return;
            }
            if met.in_step || result.is_ok() && self.pace.interval.is_some() {
                self.backoff.succeeded();
            }
            watch.ended(engine, &met);
            let rest = self.rest_after(&result, report);
            self.rest_until(engine, work, &mut watch, rest);
        }
    }

    /// Says how long to rest after a round.
    fn rest_after<E>(&mut self, result: &Result<(), E>, report: &mut dyn FnMut(Change<'_, E>)) -> Rest {
        let (rest, wakes) = match (result, self.pace.interval) {
            (Ok(()), Some(interval)) => {
                let rest = interval + part(self.pace.jitter, self.clock.draw());
                report(Change::Rests(rest));
                (rest, true)
            }
            // Who stays connected and is let go comes again as after a failure.
            (result, _) => {
                let rest = self.backoff.failed(self.clock.draw());
                report(match result {
                    Ok(()) => Change::Ended(rest),
                    Err(e) => Change::Failed(e, rest),
                });
                (rest, false)
            }
        };
        Rest { until: self.clock.now() + rest, wakes }
    }

    /// Waits: for the time, for what it needs to come back, or for something that is written.
    fn rest_until<W: Work>(&self, engine: &mut Engine, work: &mut W, watch: &mut Watch, rest: Rest) {
        let changes = self.pace.changes.filter(|_| rest.wakes);
        let mut changed = None;
        let mut was_there = work.is_there();
        loop {
            let now = self.clock.now();
            if now >= rest.until || self.stop.stopped() {
                return;
            }
            let is_there = work.is_there();
            if is_there && !was_there {
                return;
            }
            was_there = is_there;
            if let Some(delay) = changes {
                if changed.is_none() && watch.has_changed(engine) {
                    changed = Some(now + delay);
                }
                if changed.is_some_and(|due| now >= due) {
                    changed = None;
                    if watch.has_news(engine) {
                        return;
                    }
                }
            }
            self.clock.wait(LOOK.min(rest.until - now));
        }
    }
}

/// Returns a part of a time, by a random number.
fn part(of: Duration, random: u32) -> Duration {
    of.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
