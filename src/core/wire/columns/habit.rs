//! Whether mixing pays: where one context alone is as good, all others are left out but now and then.

/// What values of a column cost: running means, in 1/256 bit.
#[derive(Clone, Copy)]
pub(super) struct Habit {
    mixed: u32,
    alone: u32,
    values: u8,
}

/// One value in so many is tried.
const TRIED: u8 = 20;
/// So many values are looked at first.
const AT_FIRST: u8 = 32;

impl Habit {
    pub(super) const NEW: Self = Self { mixed: 0, alone: 0, values: 0 };

    /// Counts a value; returns whether its first context alone is to be taken.
    pub(super) fn is_alone(&mut self) -> bool {
        if self.values < AT_FIRST {
            self.values += 1;
            return false;
        }
        self.values = AT_FIRST + (self.values + 1 - AT_FIRST) % TRIED;
        self.values != AT_FIRST && self.alone <= self.mixed + self.mixed / 32
    }

    /// Learns what a value has cost, and what it would have.
    pub(super) fn learn(&mut self, mixed: u32, alone: u32) {
        self.mixed = (self.mixed * 15 + mixed.min(1 << 16)) / 16;
        self.alone = (self.alone * 15 + alone.min(1 << 16)) / 16;
    }
}
