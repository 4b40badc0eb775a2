//! Whether every thread gets on: each looks at its stop at least once a second, and SQLite tells when a call takes long. One
//! that does neither hangs in the system (a card that does not answer, a name that nobody resolves) or waits for another
//! program. Nothing can end such a thread but the end of the process.

use std::time::Duration;

use packmule::carry::{Life, Stop};

use crate::files::config::Config;

/// How often it is looked at least.
const EVERY: Duration = Duration::from_secs(10);

/// What has become of a thread.
#[derive(Debug, PartialEq)]
pub enum Stuck {
    /// It has shown no sign of life for so long.
    Hangs(Duration),
    GoesOn,
}

/// All threads, in the order of the file.
pub struct Watchdog {
    threads: Vec<(Life, bool)>,
    limit: Duration,
}

impl Watchdog {
    /// Makes one, and the stop for each thread, by which it is watched.
    pub fn new(stop: &Stop, config: &Config) -> (Self, Vec<(Stop, Life)>) {
        let watched: Vec<_> = (0..config.links.len() + config.upkeep.len()).map(|_| stop.watched()).collect();
        let threads = watched.iter().map(|(_, life)| (life.clone(), false)).collect();
        (Self { threads, limit: config.stuck }, watched)
    }

    /// Returns how often it is to be looked.
    pub fn every(&self) -> Duration {
        EVERY.min(self.limit / 2)
    }

    /// Looks at all of them. Returns what is new.
    pub fn look(&mut self) -> Vec<(usize, Stuck)> {
        let limit = self.limit;
        let news = |(n, (life, hangs)): (usize, &mut (Life, bool))| {
            let still = life.still();
            let before = std::mem::replace(hangs, still >= limit);
            match (before, *hangs) {
                (false, true) => Some((n, Stuck::Hangs(Duration::from_secs(still.as_secs())))),
                (true, false) => Some((n, Stuck::GoesOn)),
                _ => None,
            }
        };
        self.threads.iter_mut().enumerate().filter_map(news).collect()
    }

    /// Returns whether none hung when it was looked last.
    pub fn all_get_on(&self) -> bool {
        self.threads.iter().all(|(_, hangs)| !hangs)
    }
}
