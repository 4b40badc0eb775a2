//! What whoever runs a line hears of it, and how it is ended from another thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packmule_core::model::DeviceId;

use super::error::Error;
use super::pump::Line;
use crate::carry::session::Progress;

/// What happened, for whoever watches.
#[derive(Debug)]
pub enum Status<'a> {
    /// The port is open; the other end is called.
    Open,
    /// The port is not there, or cannot be used; it is tried again.
    Away(&'a io::Error),
    /// The other end has proved who it is.
    Met {
        /// Its id.
        id: DeviceId,
        /// Its name.
        name: &'a str,
    },
    /// The line runs at this rate now, bits a second: raised, or back at the first.
    Baud(u32),
    /// How far it is; comes often.
    Moving(&'a Progress),
    /// Each end has all that the other has.
    InStep(&'a Progress),
    /// The other end is not heard.
    Silent,
    /// It is heard again.
    Heard,
    /// The session ended in good order.
    Ended,
    /// The session failed; with [`serve`](super::serve), another begins soon.
    Failed(&'a Error),
}

/// Ends [`sync`](super::sync) and [`serve`](super::serve) from another thread.
#[derive(Clone, Default)]
pub struct Stop(Arc<(AtomicBool, Mutex<Vec<Arc<Line>>>)>);

impl Stop {
    /// Ends them in good order, soon.
    pub fn stop(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        for line in self.lines().iter() {
            line.notify();
        }
    }

    /// Returns whether it was called.
    pub fn stopped(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
