//! How long a packet may be, and how much error correction it gets, by what the line does to packets.
//!
//! Two rates are estimated, per byte on the line: hits that error correction can mend, and losses
//! that it cannot (runs that vanish, a false delimiter). For each level the best payload follows
//! (`√(overhead / loss)`), for each payload the share of the line that is lost: overhead, parity,
//! lost packets. The cheapest level is taken. Integers only: a Cortex-M0 has no floating point.

use super::fec;
use super::packet::OVERHEAD_USUAL;

/// Bytes of the stream in a packet, at most, where nothing speaks for longer ones.
pub(super) const PAYLOAD_USUAL: u16 = 1024;

/// One, in the fixed point of the shares and rates.
const ONE: u64 = 1_000_000_000;
/// What is older than this weighs half.
const MEMORY_BYTES: u64 = 96 * 1024;
const MEMORY_EVENTS: u64 = 48;
/// Bytes without correction after which a line on which it was of no use gets another trial.
const RETRY_BYTES: u64 = 512 * 1024;
/// Without a loss in so many bytes, packets may be longer than [`PAYLOAD_USUAL`].
const CLEAN_BYTES: u64 = 192 * 1024;
/// A level must be better by this share to replace another.
const GAIN: u64 = ONE / 400;

pub(super) struct Adapt {
    bytes: u64,
    /// Bytes that the peer mended.
    mended: u64,
    /// Packets lost that had correction.
    lost: u64,
    /// Packets lost that had none.
    plain_lost: u64,
    /// The share of plain losses that correction would mend, in 256ths.
    mendable: u64,
    plain_bytes: u64,
    /// Bytes since the last packet that was lost for good.
    clean: u64,
    /// Bytes since the last outage.
    since_outage: u64,
    /// The share of the line that is lost by the estimate, in parts of `ONE`.
    lost_share: u64,
    pub(super) payload: u16,
    pub(super) level: u8,
}

impl Adapt {
    pub(super) const fn new() -> Self {
        Self {
            bytes: 16 * 1024,
            mended: 0,
            lost: 0,
            plain_lost: 0,
            mendable: 256,
            plain_bytes: 0,
            clean: 0,
            since_outage: 0,
            lost_share: 0,
            payload: 512,
            level: 0,
        }
    }

    /// Counts what an acknowledgement told and chooses anew. `sent`: bytes on the line in packets of
    /// which it told; `mends`: correction may be used.
    pub(super) fn learn(&mut self, sent: u32, lost: u32, mended: u32, limits: (u16, u16), mends: bool) {
        self.bytes += u64::from(sent);
        self.since_outage += u64::from(sent);
        self.clean = if lost > 0 { 0 } else { self.clean + u64::from(sent) };
        self.mended += u64::from(mended);
        if self.level == 0 {
            self.plain_lost += u64::from(lost);
            self.plain_bytes += u64::from(sent);
            if self.plain_bytes > RETRY_BYTES {
                self.plain_bytes = 0;
                self.mendable = self.mendable.max(192);
            }
        } else {
            self.lost += u64::from(lost);
            self.plain_bytes = 0;
            if self.mended + self.lost >= 12 {
                self.mendable = 256 * self.mended / (self.mended + self.lost);
            }
        }
        if self.bytes > MEMORY_BYTES || self.mended + self.lost + self.plain_lost > MEMORY_EVENTS {
            self.bytes = (self.bytes / 2).max(256);
            self.mended /= 2;
            self.lost /= 2;
            self.plain_lost /= 2;
        }
        self.choose(limits, mends);
    }

    /// The line was silent and many packets are lost: a cut, or noise in which nothing of this
    /// length comes through. After much that did come through it is taken for a cut, which tells nothing of the line.
    pub(super) fn outage(&mut self, limits: (u16, u16), mends: bool) {
        if core::mem::take(&mut self.since_outage) > MEMORY_BYTES {
            return;
        }
        self.bytes = (self.bytes / 2).max(256);
        if self.level == 0 {
            self.plain_lost += 4;
        } else {
            self.mended += 4;
            self.lost += 1;
        }
        self.choose(limits, mends);
    }

    fn choose(&mut self, (least, most): (u16, u16), mends: bool) {
        // Few losses tell little of their rate: the longest packets are for a line that has shown itself good.
        let most = if self.clean < CLEAN_BYTES { most.min(PAYLOAD_USUAL) } else { most };
        let bytes = self.bytes.max(1);
        let hit = (self.mended * 256 + self.plain_lost * self.mendable + 32) * ONE / 256 / bytes;
        let gone = (self.lost * 256 + self.plain_lost * (256 - self.mendable)) * ONE / 256 / bytes;
        let mut best = (u64::MAX, self.payload, 0);
        for level in 0..=if mends { fec::LEVEL_MAX } else { 0 } {
            let (cost, payload) = cost(level, hit, gone, u64::from(least), u64::from(most.max(least)));
            let cost = cost + if level == self.level { 0 } else { GAIN };
            if cost < best.0 {
                best = (cost, payload, level);
            }
        }
        (self.lost_share, self.payload, self.level) = best;
    }

    /// What share of the line's rate arrives as bytes of the stream, by the estimate: in thousandths.
    pub(super) fn share(&self) -> u32 {
        (ONE.saturating_sub(self.lost_share) / (ONE / 1000)) as u32
    }
}

/// The share of the line that a level loses with its best payload, and that payload.
fn cost(level: u8, hit: u64, gone: u64, least: u64, most: u64) -> (u64, u16) {
    let overhead = u64::from(OVERHEAD_USUAL);
    // A hit on the framing cannot be mended.
    let fatal = (if level == 0 { hit + gone } else { gone + hit / 80 }).max(1);
    let payload = (overhead * ONE / fatal).isqrt().clamp(least, most);
    let len = (payload + overhead) as usize;
    let added = fec::added(level, len) as u64;
    let on_line = len as u64 + added + payload / 254;
    let mut cost = (on_line - payload) * ONE / on_line + (fatal * on_line).min(ONE);
    if level > 0 {
        // More than t of a block's bytes hit: the first term of the Poisson distribution's tail.
        let blocks = (len as u64 + added).div_ceil(255);
        let mean = hit * (len as u64 + added) / blocks;
        let mut tail = ONE;
        for i in 1..=u64::from(fec::STRENGTH[usize::from(level)]) + 1 {
            tail = (tail * mean.min(4 * ONE) / ONE / i).min(4 * ONE);
        }
        cost += (tail * blocks).min(ONE);
    }
    (cost, payload as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one loss a `bytes`, and tells what was chosen.
    fn steady(lost: u32, mended: u32, bytes: u32, mends: bool) -> (u8, u16) {
        let mut adapt = Adapt::new();
        for _ in 0..200 {
            if adapt.level == 0 {
                adapt.learn(bytes, lost + mended.min(1), 0, (48, 1024), mends);
            } else {
                adapt.learn(bytes, lost, mended, (48, 1024), mends);
            }
        }
        (adapt.level, adapt.payload)
    }

    #[test]
    fn a_clean_line_gets_long_plain_packets_and_a_bad_one_short_or_mended() {
        assert_eq!(steady(0, 0, 1024, true), (0, 1024));
        let (level, payload) = steady(0, 1, 1200, false);
        assert!(level == 0 && (90..140).contains(&payload), "{payload}");
        let (level, payload) = steady(0, 1, 1200, true);
        assert!(level == 2 && payload > 800, "{level} {payload}");
        let (level, payload) = steady(0, 10, 1200, true);
        assert!(level == 4 && payload > 200, "{level} {payload}");
        let (level, _) = steady(1, 0, 1200, true);
        assert_eq!(level, 0, "losses that cannot be mended get no correction");
        let (level, payload) = steady(40, 0, 1200, true);
        assert!(level <= 4 && payload == 48, "{level} {payload}");
    }

    #[test]
    fn outages_lead_to_strong_short_packets_soon() {
        let mut adapt = Adapt::new();
        for _ in 0..6 {
            adapt.outage((48, 1024), false);
        }
        assert!(adapt.payload < 80, "{}", adapt.payload);
        let mut adapt = Adapt::new();
        for _ in 0..4 {
            adapt.outage((48, 1024), true);
        }
        assert!(adapt.level >= 3, "{}", adapt.level);
    }

    #[test]
    fn one_cut_of_a_good_line_changes_nothing_and_a_second_soon_after_does() {
        let mut adapt = Adapt::new();
        (0..200).for_each(|_| adapt.learn(1024, 0, 0, (48, 2048), false));
        adapt.outage((48, 2048), false);
        assert_eq!((adapt.level, adapt.payload), (0, 2048));
        adapt.outage((48, 2048), false);
        assert!(adapt.payload < 1024, "{}", adapt.payload);
    }
}
