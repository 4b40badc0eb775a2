//! For how long a session has not got on, though something is still to be said.
//!
//! A connection can be alive and a session not: what one end says is swallowed on the way while the other is heard, or the
//! program there hangs while its system takes what comes.

use std::time::{Duration, Instant};

use super::session::{Progress, Session};

/// Both ends may take their time, as for a large state: patience lasts so many times as long as for silence.
pub(super) const TIMES: u32 = 2;

/// What of a session had moved, and since when nothing has.
#[derive(Default)]
pub(super) struct Stillness {
    moved: [u64; 7],
    /// How much was on its way at the least since then: what is said only to be heard comes and goes.
    under_way: u64,
    since: Option<Instant>,
}

impl Stillness {
    /// Looks at a session. Returns for how long nothing of it has moved; an end that has all that the other has is not
    /// waiting for anything.
    pub(super) fn look(&mut self, session: &Session) -> Duration {
        self.look_at(session.progress(), session.in_step() || session.done(), Instant::now())
    }

    fn look_at(&mut self, progress: &Progress, rests: bool, now: Instant) -> Duration {
        let (moved, under_way) = (moved(progress), progress.under_way);
        if rests || moved != self.moved || under_way < self.under_way {
            *self = Self { moved, under_way, since: None };
        }
        now.duration_since(*self.since.get_or_insert(now))
    }
}

fn moved(progress: &Progress) -> [u64; 7] {
    [
        progress.sent.1,
        progress.received.1,
        progress.coming,
        progress.state_sent.0,
        progress.state_received.0,
        progress.acknowledged,
        progress.to_receive.1,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_not_still_and_what_is_said_only_to_be_heard_does_not_move() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (mut still, mut progress) = (Stillness::default(), Progress::default());
        assert_eq!(still.look_at(&progress, false, at(0)), Duration::ZERO);
        assert_eq!(still.look_at(&progress, false, at(9)), Duration::from_secs(9));
        // It sends, and then hands over what it has sent.
        (progress.sent.1, progress.under_way) = (1_000, 900);
        assert_eq!(still.look_at(&progress, false, at(10)), Duration::ZERO);
        progress.under_way = 300;
        assert_eq!(still.look_at(&progress, false, at(20)), Duration::ZERO);
        progress.under_way = 0;
        assert_eq!(still.look_at(&progress, false, at(30)), Duration::ZERO);
        // Now and then it says that it is here.
        for second in 31..60 {
            progress.under_way = if second % 20 == 0 { 37 } else { 0 };
            assert_eq!(still.look_at(&progress, false, at(second)), Duration::from_secs(second - 30));
        }
        // Whoever has all that the other has waits for nothing.
        assert_eq!(still.look_at(&progress, true, at(60)), Duration::ZERO);
        assert_eq!(still.look_at(&progress, true, at(999)), Duration::ZERO);
    }
}
