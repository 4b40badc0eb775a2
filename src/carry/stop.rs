//! How sessions are ended from another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Ends the sessions that were begun with it, on every carrier, from another thread.
#[derive(Clone, Default)]
pub struct Stop(Arc<(AtomicBool, Mutex<Waiting>)>);

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
        self.0.0.store(true, Ordering::SeqCst);
        self.waiting().iter().filter_map(Weak::upgrade).for_each(|waits| waits.wake());
    }

    /// Returns whether it was called.
    pub fn stopped(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Wakes this one too, as long as it lives.
    pub(super) fn wakes(&self, who: Weak<dyn Wake>) {
        let mut waiting = self.waiting();
        waiting.retain(|other| other.strong_count() > 0);
        waiting.push(who);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
