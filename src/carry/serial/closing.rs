//! When an end that has sent all may close the line.

use std::time::{Duration, Instant};

use packmule_core::link::{BoardLink, State};

/// How long an end whose bytes are acknowledged waits for the other's end. Without that, the other would wait for the
/// acknowledgement of its own end as long as it may, and nobody would be there to send it.
const PEER_END_TIME: Duration = Duration::from_millis(500);

/// An end that closes.
pub(super) struct Closing {
    until: Instant,
    acknowledged: Option<Instant>,
}

impl Closing {
    /// Begins to close; the other end has so much time to acknowledge what is sent last.
    pub(super) fn new(now: Instant, time: Duration) -> Self {
        Self { until: now + time, acknowledged: None }
    }

    /// Returns whether this end may close. `sent`: the link has all its bytes, and its end.
    pub(super) fn is_over(&mut self, link: &BoardLink, sent: bool, now: Instant) -> bool {
        if now >= self.until || link.state() == State::Closed {
            return true;
        }
        if !sent || !link.all_acknowledged() {
            return false;
        }
        now >= *self.acknowledged.get_or_insert(now) + PEER_END_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packmule_core::link::{Config, WIRE_MAX};

    const CLOSE_TIME: Duration = Duration::from_secs(3);

    /// Two ends that are connected, and their clock.
    struct Pair {
        a: Box<BoardLink>,
        b: Box<BoardLink>,
        us: u64,
        begun: Instant,
    }

    impl Pair {
        fn new() -> Self {
            let link = |nonce| Box::new(BoardLink::new(Config::new(4_000_000, nonce)));
            let mut pair = Self { a: link(1), b: link(2), us: 0, begun: Instant::now() };
            pair.pass(500, true);
            assert_eq!([pair.a.state(), pair.b.state()], [State::Open; 2]);
            pair
        }

        fn now(&self) -> Instant {
            self.begun + Duration::from_micros(self.us)
        }

        /// Lets so many milliseconds pass; `hears`: what `b` sends comes to `a`.
        fn pass(&mut self, ms: u64, hears: bool) {
            let mut out = [0; WIRE_MAX];
            for _ in 0..ms {
                self.us += 1_000;
                let count = self.a.transmit(self.us, &mut out);
                self.b.receive_bytes(self.us, &out[..count]);
                let count = self.b.transmit(self.us, &mut out);
                if hears {
                    self.a.receive_bytes(self.us, &out[..count]);
                }
            }
        }
    }

    #[test]
    fn it_waits_for_the_others_end() {
        let mut pair = Pair::new();
        let mut closing = Closing::new(pair.now(), CLOSE_TIME);
        pair.a.finish();
        while !pair.a.all_acknowledged() {
            assert!(!closing.is_over(&pair.a, true, pair.now()));
            pair.pass(1, true);
        }
        assert!(!closing.is_over(&pair.a, true, pair.now()), "the other has not finished");
        pair.pass(100, true);
        assert!(!closing.is_over(&pair.a, true, pair.now()));
        pair.b.finish();
        pair.pass(100, true);
        assert_eq!([pair.a.state(), pair.b.state()], [State::Closed; 2]);
        assert!(closing.is_over(&pair.a, true, pair.now()));
    }

    #[test]
    fn but_only_for_a_while() {
        let mut pair = Pair::new();
        let mut closing = Closing::new(pair.now(), CLOSE_TIME);
        pair.a.finish();
        pair.pass(200, true);
        assert!(pair.a.all_acknowledged() && !closing.is_over(&pair.a, true, pair.now()));
        pair.pass(499, true);
        assert!(!closing.is_over(&pair.a, true, pair.now()));
        pair.pass(1, true);
        assert!(closing.is_over(&pair.a, true, pair.now()));
    }

    #[test]
    fn who_is_not_heard_ends_nothing_before_the_time() {
        let mut pair = Pair::new();
        let mut closing = Closing::new(pair.now(), CLOSE_TIME);
        pair.a.finish();
        pair.pass(2_999, false);
        assert!(!closing.is_over(&pair.a, true, pair.now()));
        pair.pass(1, false);
        assert!(closing.is_over(&pair.a, true, pair.now()));
    }
}
