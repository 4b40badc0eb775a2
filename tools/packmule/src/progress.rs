//! How far a long import is, for whoever watches.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::show::{size, span};

/// One line on standard error, written over and over; nothing where nobody watches.
pub struct Meter {
    name: String,
    watched: bool,
    started: Instant,
    phase: Instant,
    heard: Instant,
    drawn: Option<Instant>,
    verifying: bool,
}

impl Meter {
    /// A meter for what has this name.
    pub fn new(name: String) -> Self {
        let now = Instant::now();
        let watched = io::stderr().is_terminal();
        Self { name, watched, started: now, phase: now, heard: now, drawn: None, verifying: true }
    }

    /// Takes note of how far it is.
    pub fn show(&mut self, at: packmule::Progress) {
        if at.verifying != self.verifying {
            // The first that is heard of a phase comes some way into it.
            (self.verifying, self.phase) = (at.verifying, self.heard);
        }
        self.heard = Instant::now();
        let recently = self.drawn.is_some_and(|drawn| drawn.elapsed() < Duration::from_millis(200));
        // What is done in a moment needs no meter.
        if !self.watched
            || recently
            || at.done == at.total
            || self.started.elapsed() < Duration::from_millis(700)
        {
            return;
        }
        self.drawn = Some(Instant::now());
        let seconds = self.phase.elapsed().as_secs_f64().max(0.001);
        let rate = at.done as f64 / seconds;
        let left = at.total.saturating_sub(at.done) as f64 / rate.max(1.0);
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{}: {} {} of {}, {}/s, {} left",
            self.name,
            if at.verifying { "checking" } else { "taking in" },
            size(at.done),
            size(at.total),
            size(rate as u64),
            span(left as u64)
        );
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
