//! How long to wait after failures.

use std::time::Duration;

use super::part;

/// How long to wait after failures: at random up to a limit that doubles with each, so that boards which lost their base
/// together do not come back together.
///
/// It is pure: randomness is given.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// From 1 second up to 15 minutes.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(15 * 60))
    }
}

impl Backoff {
    /// Makes one whose limit is `least` after the first failure and never more than `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, failures: 0 }
    }

    /// Returns how long at most to wait after the next failure.
    pub fn longest(&self) -> Duration {
        self.least.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.most)
    }

    /// Counts a failure. Returns how long to wait: by this random number, from nothing up to the limit.
    pub fn failed(&mut self, random: u32) -> Duration {
        let limit = self.longest();
        self.failures = self.failures.saturating_add(1);
        part(limit, random)
    }

    /// Begins anew, after a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_doubles_up_to_a_quarter_of_an_hour_and_begins_anew() {
        let mut backoff = Backoff::default();
        let limits: Vec<u64> = (0..14).map(|_| backoff.failed(u32::MAX).as_secs()).collect();
        assert_eq!(limits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]);
        for _ in 0..1_000 {
            backoff.failed(0);
        }
        assert_eq!(backoff.longest(), Duration::from_secs(900));
        backoff.succeeded();
        assert_eq!(backoff.longest(), Duration::from_secs(1));
    }

    #[test]
    fn the_wait_is_anything_up_to_the_limit() {
        let of = |random| Backoff::new(Duration::from_secs(10), Duration::from_secs(60)).failed(random);
        assert_eq!(of(0), Duration::ZERO);
        assert_eq!(of(u32::MAX), Duration::from_secs(10));
        assert_eq!(of(u32::MAX / 2).as_millis(), 4_999);
    }
}
