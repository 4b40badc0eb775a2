//! Random tests that can be replayed.

use std::ops::Range;
use std::sync::Mutex;

/// A small random number generator (SplitMix64, Steele, Lea and Flood 2014), so that a seed
/// replays on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A number that whoever runs the tests has set.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The seeds to try: `PACKMULE_SEED=N` is one of them, which is replayed; else it is `PACKMULE_SCHEDULES=N` of them,
/// or so many as usual, from `PACKMULE_FIRST=N` on.
pub fn seeds(usual: u64) -> Range<u64> {
    let first = number("PACKMULE_FIRST").unwrap_or(0);
    match number("PACKMULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("PACKMULE_SCHEDULES").unwrap_or(usual),
    }
}

/// Tries seeds on as many threads as there are cores, each on the next one.
pub fn on_all_cores(seeds: Range<u64>, each: &(dyn Fn(u64) + Sync)) {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(seed) =
                    Some(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).filter(|n| *n < seeds.end)
                {
                    each(seed);
                }
            });
        }
    });
}

/// Plays schedules. Returns those that failed, the lowest seed first, with what they did.
pub fn failing(seeds: Range<u64>, play: &(dyn Fn(u64) -> Result<(), String> + Sync)) -> Vec<(u64, String)> {
    let failed = Mutex::new(Vec::new());
    on_all_cores(seeds, &|seed| {
        if let Err(trace) = play(seed) {
            failed.lock().unwrap().push((seed, trace));
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed
}

/// Plays schedules, none of which may fail.
#[track_caller]
pub fn check(seeds: Range<u64>, play: &(dyn Fn(u64) -> Result<(), String> + Sync)) {
    let failed = failing(seeds, play);
    let all: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    if let Some((seed, trace)) = failed.first() {
        panic!("failed: {all:?}; the first:\nPACKMULE_SEED={seed}\n{trace}");
    }
}
