//! How long a packet may be, and how much error correction it gets, by what the line does to packets.
//!
//! Two rates are estimated, per byte on the line: hits that error correction can correct, and losses
//! that it cannot (runs that vanish, a false delimiter). For each FEC rate the best payload follows
//! (`√(overhead / loss)`), for each payload the share of the line that is lost: overhead, parity,
//! lost packets. The cheapest FEC rate is taken. Integers only: a Cortex-M0 has no floating point.

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
/// An FEC rate must be better by this share to replace another.
const GAIN: u64 = ONE / 400;

pub(super) struct Adapt {
    bytes: u64,
    /// Bytes that the peer corrected.
    corrected: u64,
    /// Packets lost that had correction.
    lost: u64,
    /// Packets lost that had none.
    plain_lost: u64,
    /// The share of plain losses that correction would prevent, in 256ths.
    correctable: u64,
    plain_bytes: u64,
    /// Bytes since the last packet that was lost for good.
    clean: u64,
    /// Bytes since the last outage.
    since_outage: u64,
    /// The share of the line that is lost by the estimate, in parts of `ONE`.
    lost_share: u64,
    pub(super) payload: u16,
    pub(super) fec_rate: u8,
}

impl Adapt {
    pub(super) const fn new() -> Self {
        Self {
            bytes: 16 * 1024,
            corrected: 0,
            lost: 0,
            plain_lost: 0,
            correctable: 256,
            plain_bytes: 0,
            clean: 0,
            since_outage: 0,
            lost_share: 0,
            payload: 512,
            fec_rate: 0,
        }
    }

    /// Counts what an acknowledgement reported and chooses again. `sent`: bytes on the line in the packets that it
    /// reported; `may_correct`: correction may be used.
    pub(super) fn observe(
        &mut self,
        sent: u32,
        lost: u32,
        corrected: u32,
        limits: (u16, u16),
        may_correct: bool,
    ) {
        self.bytes += u64::from(sent);
        self.since_outage += u64::from(sent);
        self.clean = if lost > 0 { 0 } else { self.clean + u64::from(sent) };
        self.corrected += u64::from(corrected);
        if self.fec_rate == 0 {
            self.plain_lost += u64::from(lost);
            self.plain_bytes += u64::from(sent);
            if self.plain_bytes > RETRY_BYTES {
                self.plain_bytes = 0;
                self.correctable = self.correctable.max(192);
            }
        } else {
            self.lost += u64::from(lost);
            self.plain_bytes = 0;
            if self.corrected + self.lost >= 12 {
                self.correctable = 256 * self.corrected / (self.corrected + self.lost);
            }
        }
        if self.bytes > MEMORY_BYTES || self.corrected + self.lost + self.plain_lost > MEMORY_EVENTS {
            self.bytes = (self.bytes / 2).max(256);
            self.corrected /= 2;
            self.lost /= 2;
            self.plain_lost /= 2;
        }
        self.choose(limits, may_correct);
    }

    /// Counts an outage: the line was silent and many packets are lost. That is a cut, or noise in which nothing of
    /// this length comes through. After much that did come through it is taken for a cut, which says nothing about
    /// the line.
    pub(super) fn outage(&mut self, limits: (u16, u16), may_correct: bool) {
        if core::mem::take(&mut self.since_outage) > MEMORY_BYTES {
            return;
        }
        self.bytes = (self.bytes / 2).max(256);
        if self.fec_rate == 0 {
            self.plain_lost += 4;
        } else {
            self.corrected += 4;
            self.lost += 1;
        }
        self.choose(limits, may_correct);
    }

    fn choose(&mut self, (least, most): (u16, u16), may_correct: bool) {
        // Few losses say little about their rate: the longest packets are for a line that has shown itself good.
        let most = if self.clean < CLEAN_BYTES { most.min(PAYLOAD_USUAL) } else { most };
        let bytes = self.bytes.max(1);
        let hit = (self.corrected * 256 + self.plain_lost * self.correctable + 32) * ONE / 256 / bytes;
        let gone = (self.lost * 256 + self.plain_lost * (256 - self.correctable)) * ONE / 256 / bytes;
        let mut best = (u64::MAX, self.payload, 0);
        for fec_rate in 0..=if may_correct { fec::RATE_MAX } else { 0 } {
            let (cost, payload) = cost(fec_rate, hit, gone, u64::from(least), u64::from(most.max(least)));
            let cost = cost + if fec_rate == self.fec_rate { 0 } else { GAIN };
            if cost < best.0 {
                best = (cost, payload, fec_rate);
            }
        }
        (self.lost_share, self.payload, self.fec_rate) = best;
    }

    /// Returns what share of the line's rate arrives as bytes of the stream, by the estimate: in thousandths.
    pub(super) fn share(&self) -> u32 {
        (ONE.saturating_sub(self.lost_share) / (ONE / 1000)) as u32
    }
}

/// Returns the share of the line that an FEC rate loses with its best payload, and that payload.
fn cost(fec_rate: u8, hit: u64, gone: u64, least: u64, most: u64) -> (u64, u16) {
    let overhead = u64::from(OVERHEAD_USUAL);
    // A hit on the framing cannot be corrected.
    let fatal = (if fec_rate == 0 { hit + gone } else { gone + hit / 80 }).max(1);
    let payload = (overhead * ONE / fatal).isqrt().clamp(least, most);
    let len = (payload + overhead) as usize;
    let added = fec::added(fec_rate, len) as u64;
    let on_line = len as u64 + added + payload / 254;
    let mut cost = (on_line - payload) * ONE / on_line + (fatal * on_line).min(ONE);
    if fec_rate > 0 {
        // More than t of a block's bytes hit: the first term of the Poisson distribution's tail.
        let blocks = (len as u64 + added).div_ceil(255);
        let mean = hit * (len as u64 + added) / blocks;
        let mut tail = ONE;
        for i in 1..=u64::from(fec::CORRECTABLE[usize::from(fec_rate)]) + 1 {
            tail = (tail * mean.min(4 * ONE) / ONE / i).min(4 * ONE);
        }
        cost += (tail * blocks).min(ONE);
    }
    (cost, payload as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one loss a `bytes`, and returns what was chosen.
    fn steady(lost: u32, corrected: u32, bytes: u32, may_correct: bool) -> (u8, u16) {
        let mut adapt = Adapt::new();
        for _ in 0..200 {
            if adapt.fec_rate == 0 {
                adapt.observe(bytes, lost + corrected.min(1), 0, (48, 1024), may_correct);
            } else {
                adapt.observe(bytes, lost, corrected, (48, 1024), may_correct);
            }
        }
        (adapt.fec_rate, adapt.payload)
    }

    #[test]
    fn a_clean_line_gets_long_plain_packets_and_a_bad_one_short_or_corrected() {
        assert_eq!(steady(0, 0, 1024, true), (0, 1024));
        let (fec_rate, payload) = steady(0, 1, 1200, false);
        assert!(fec_rate == 0 && (90..140).contains(&payload), "{payload}");
        let (fec_rate, payload) = steady(0, 1, 1200, true);
        assert!(fec_rate == 2 && payload > 800, "{fec_rate} {payload}");
        let (fec_rate, payload) = steady(0, 10, 1200, true);
        assert!(fec_rate == 4 && payload > 200, "{fec_rate} {payload}");
        let (fec_rate, _) = steady(1, 0, 1200, true);
        assert_eq!(fec_rate, 0, "losses that cannot be corrected get no correction");
        let (fec_rate, payload) = steady(40, 0, 1200, true);
        assert!(fec_rate <= 4 && payload == 48, "{fec_rate} {payload}");
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
        assert!(adapt.fec_rate >= 3, "{}", adapt.fec_rate);
    }

    #[test]
    fn one_cut_of_a_good_line_changes_nothing_and_a_second_soon_after_does() {
        let mut adapt = Adapt::new();
        (0..200).for_each(|_| adapt.observe(1024, 0, 0, (48, 2048), false));
        adapt.outage((48, 2048), false);
        assert_eq!((adapt.fec_rate, adapt.payload), (0, 2048));
        adapt.outage((48, 2048), false);
        assert!(adapt.payload < 1024, "{}", adapt.payload);
    }
}
