//! Numbers that do not follow from each other, as readings that are mostly noise: they stand about a level, and what a
//! number differs by from that is shorter than what it differs by from the one before it.

/// What the numbers of a column differ from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum From {
    /// The last one.
    Last,
    /// What the filter expects.
    Filter,
    /// Where they stood about when that was turned to.
    Level,
}

/// Where the numbers of a column stand about.
#[derive(Clone, Copy)]
pub(super) struct Level {
    /// Their running mean.
    mean: f64,
    /// What it was when it was turned to. It stays, so that a number has one difference from it.
    pub(super) kept: i64,
    /// How long a difference from it is, and one from the last number, in 1/256 binary digit: running means.
    lengths: [u16; 2],
}

/// It must save so much to be turned to, and cost so much to be turned from.
const SAVES: u16 = 48;
const COSTS: u16 = 256;
/// What a difference is taken to have before one was seen.
const UNSEEN: u16 = 12 * 256;

impl Level {
    pub(super) const NEW: Self = Self { mean: 0.0, kept: 0, lengths: [UNSEEN, 0] };

    /// Returns how long a difference is, as it is counted now.
    pub(super) fn length_from(&self, from: From) -> u16 {
        let [of_level, of_step] = self.lengths;
        if from == From::Level { of_level } else { of_step }
    }

    /// Learns from a number, and returns what the next one is to differ from.
    pub(super) fn learn(&mut self, from: From, number: i64, step: i64) -> From {
        let base = if from == From::Level { self.kept } else { self.mean as i64 };
        let [of_level, of_step] = &mut self.lengths;
        *of_level = mean(u32::from(*of_level), length(number.wrapping_sub(base)), 16) as u16;
        *of_step = mean(u32::from(*of_step), length(step), 16) as u16;
        self.mean += (real(number) - self.mean) / 16.0;
        if from == From::Last && *of_level + SAVES < *of_step {
            // What was learned of differences from it holds on, unless it is far from where they stand now.
            let now = self.mean as i64;
            if length(now.wrapping_sub(self.kept)) > u32::from(self.lengths[0]) {
                self.kept = now;
            }
            return From::Level;
        }
        if from == From::Level && *of_step + COSTS < *of_level { From::Last } else { from }
    }
}

/// Returns a running mean over about so many.
pub(super) fn mean(old: u32, new: u32, over: u32) -> u32 {
    (old * (over - 1) + new) / over
}

/// Returns how many binary digits a difference has, in 1/256: the logarithm, with straight lines between the powers of two.
pub(super) fn length(difference: i64) -> u32 {
    let more = difference.unsigned_abs() + 1;
    let whole = 63 - more.leading_zeros();
    whole * 256 + (((more << (63 - whole)) >> 55) as u32 - 256)
}

/// Returns a number to compute with, of a size with which nothing can overflow.
pub(super) fn real(number: i64) -> f64 {
    number.clamp(-(1 << 40), 1 << 40) as f64
}
