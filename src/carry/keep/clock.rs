//! Time and chance, as a loop sees them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::carry::stop::{Stop, Wake};

/// Time and chance. A test gives its own, whose waits last as long as it likes.
pub trait Clock {
    /// Returns the time since some moment that stays the same; it never goes back.
    fn now(&self) -> Duration;
    /// Waits so long, or until somebody stops it.
    fn wait(&self, time: Duration);
    /// Returns a random number.
    fn draw(&self) -> u32;
}

/// The system's monotonic clock, and its random numbers.
#[derive(Debug)]
pub struct SystemClock {
    since: Instant,
    woken: Mutex<bool>,
    wakes: Condvar,
}

impl SystemClock {
    /// Makes one whose waits [`Stop::stop`] ends.
    pub fn new(stop: &Stop) -> Arc<Self> {
        let clock = Arc::new(Self { since: Instant::now(), woken: Mutex::new(false), wakes: Condvar::new() });
        let waits: Arc<dyn Wake> = clock.clone();
        stop.wakes(Arc::downgrade(&waits));
        clock
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn wait(&self, time: Duration) {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.wakes.wait_timeout_while(woken, time, |woken| !*woken));
    }

    fn draw(&self) -> u32 {
        // Without the system's random numbers nothing is drawn: the latest is taken.
        getrandom::u32().unwrap_or(u32::MAX)
    }
}

impl Wake for SystemClock {
    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wakes.notify_all();
    }
}
