//! Whether every thread gets on: each looks at its stop at least once a second, and SQLite tells when a call takes long. One
//! that does neither hangs in the system (a card that does not answer) or waits for another program. Nothing can end such a
//! thread but the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use packmule::carry::{Life, Stop};

use crate::files::config::Config;

/// How often it is looked at least.
const EVERY: Duration = Duration::from_secs(2);
/// A thread that shows no sign of life for so long is not waited for, where all are to end.
const END: Duration = Duration::from_secs(5);

/// What has become of a thread.
#[derive(Debug, PartialEq)]
pub enum Stuck {
    /// It has shown no sign of life for so long.
    Hangs(Duration),
    GoesOn,
}

/// A thread that is watched.
pub struct Watched {
    pub stop: Stop,
    pub life: Life,
    ended: AtomicBool,
}

impl Watched {
    fn of(stop: &Stop) -> Arc<Self> {
        let (stop, life) = stop.watched();
        Arc::new(Self { stop, life, ended: AtomicBool::new(false) })
    }

    /// Its work is done: it is not waited for any more.
    pub fn done(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// All threads, in the order of the file, and whether each hung when it was looked last.
pub struct Watchdog {
    threads: Vec<(Arc<Watched>, bool)>,
    limit: Duration,
}

impl Watchdog {
    /// Makes one, and what each thread is watched by.
    pub fn new(stop: &Stop, config: &Config) -> (Self, Vec<Arc<Watched>>) {
        let watched: Vec<_> =
            (0..config.links.len() + config.upkeep.len()).map(|_| Watched::of(stop)).collect();
        let threads = watched.iter().map(|thread| (thread.clone(), false)).collect();
        (Self { threads, limit: config.stuck }, watched)
    }

    /// Returns how often it is to be looked.
    pub fn every(&self) -> Duration {
        EVERY.min(self.limit / 2)
    }

    /// Looks at all of them: `still` tells for how long one has shown no sign of life. Returns what is new.
    pub fn look(&mut self, still: impl Fn(&Life) -> Duration) -> Vec<(usize, Stuck)> {
        let limit = self.limit;
        let news = |(n, (thread, hangs)): (usize, &mut (Arc<Watched>, bool))| {
            let still = still(&thread.life);
            let now = still >= limit && !thread.has_ended();
            match (std::mem::replace(hangs, now), now) {
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

    /// Returns those that have not ended, if none of them shows a sign of life: they are not waited for.
    pub fn left_behind(&self, still: impl Fn(&Life) -> Duration) -> Vec<usize> {
        let limit = END.min(self.limit);
        let alive = |(_, (thread, _)): &(usize, &(Arc<Watched>, bool))| !thread.has_ended();
        let left: Vec<_> = self.threads.iter().enumerate().filter(alive).collect();
        match left.iter().all(|(_, (thread, _))| still(&thread.life) >= limit) {
            true => left.into_iter().map(|(n, _)| n).collect(),
            false => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn watchdog(threads: usize, limit: Duration) -> Watchdog {
        let stop = Stop::default();
        Watchdog { threads: (0..threads).map(|_| (Watched::of(&stop), false)).collect(), limit }
    }

    /// By a clock of the test: what hangs is told once, and once that it goes on.
    #[test]
    fn who_hangs_is_told_once_and_once_that_it_goes_on() {
        let mut dog = watchdog(2, seconds(300));
        assert_eq!(dog.look(|_| seconds(299)), []);
        let hang = |n| (n, Stuck::Hangs(seconds(300)));
        assert_eq!(dog.look(|_| Duration::from_millis(300_900)), [hang(0), hang(1)]);
        assert_eq!((dog.look(|_| seconds(900)), dog.all_get_on()), (Vec::new(), false));
        // One that has ended hangs no more.
        dog.threads[0].0.done();
        assert_eq!(dog.look(|_| seconds(901)), [(0, Stuck::GoesOn)]);
        assert!(!dog.all_get_on());
        assert_eq!(dog.look(|_| seconds(0)), [(1, Stuck::GoesOn)]);
        assert!(dog.all_get_on());
    }

    /// Where all are to end, who gets on is waited for, and who has shown no sign of life for long is not.
    #[test]
    fn who_gets_on_is_waited_for_and_who_hangs_is_left_behind() {
        let dog = watchdog(2, seconds(300));
        assert_eq!(dog.left_behind(|_| seconds(4)), [0; 0]);
        assert_eq!(dog.left_behind(|_| seconds(5)), [0, 1]);
        dog.threads[0].0.done();
        assert_eq!(dog.left_behind(|_| seconds(5)), [1]);
        dog.threads[1].0.done();
        assert_eq!(dog.left_behind(|_| seconds(5)), [0; 0]);
        assert_eq!(watchdog(1, seconds(1)).left_behind(|_| seconds(1)), [0]);
    }
}
