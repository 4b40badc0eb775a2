//! How sessions are ended from another thread, and how another thread sees that they get on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Ends the sessions that were begun with it, on every carrier, from another thread.
#[derive(Clone, Default)]
pub struct Stop {
    shared: Arc<(AtomicBool, Mutex<Waiting>)>,
    /// The one with which this one is stopped too.
    outer: Option<Box<Self>>,
    life: Option<Life>,
}

/// Who waits, as long as it lives.
type Waiting = Vec<Weak<dyn Wake>>;

/// Who waits, and looks at its [`Stop`] when it is woken.
pub(super) trait Wake: Send + Sync {
    /// Ends the wait.
    fn wake(&self);
}

impl Stop {
    /// Ends them in good order, soon.
    pub fn stop(&self) {
        self.shared.0.store(true, Ordering::SeqCst);
        self.waiting().iter().filter_map(Weak::upgrade).for_each(|waits| waits.wake());
    }

    /// Returns whether it was called.
    pub fn stopped(&self) -> bool {
        self.life.iter().for_each(Life::show);
        self.shared.0.load(Ordering::SeqCst) || self.outer.as_ref().is_some_and(|outer| outer.stopped())
    }

    /// Returns one that is stopped with this one, and can be stopped alone.
    #[cfg(feature = "net")]
    pub(super) fn within(&self) -> Self {
        Self { outer: Some(Box::new(self.clone())), ..Self::default() }
    }

    /// Returns the same one for a thread whose looking at it is no sign of life.
    #[cfg(feature = "net")]
    pub(super) fn unwatched(&self) -> Self {
        let outer = self.outer.as_ref().map(|outer| Box::new(outer.unwatched()));
        Self { shared: self.shared.clone(), outer, life: None }
    }

    /// Returns one that is stopped with this one, and what tells when it was looked at last: everything that is done on
    /// a carrier looks at its stop at least once a second, so that whoever does not look hangs.
    pub fn watched(&self) -> (Self, Life) {
        let life = Life(Arc::new((Instant::now(), AtomicU64::new(0))));
        (Self { life: Some(life.clone()), ..self.clone() }, life)
    }

    /// Wakes this one too, as long as it lives.
    pub(super) fn wakes(&self, who: Weak<dyn Wake>) {
        self.outer.iter().for_each(|outer| outer.wakes(who.clone()));
        let mut waiting = self.waiting();
        waiting.retain(|other| other.strong_count() > 0);
        waiting.push(who);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a thread has shown no sign of life.
#[derive(Clone, Debug)]
pub struct Life(Arc<(Instant, AtomicU64)>);

impl Life {
    /// Shows one.
    pub fn show(&self) {
        let (since, shown) = &*self.0;
        shown.store(since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns how long ago the last one was shown.
    pub fn still(&self) -> Duration {
        let (since, shown) = &*self.0;
        since.elapsed().saturating_sub(Duration::from_millis(shown.load(Ordering::Relaxed)))
    }
}
