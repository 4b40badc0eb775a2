//! Bytes of which nothing can be learned: random keys, hashes, pictures. Where they have cost what they are long, they
//! are said as they are, at a tenth of the work; now and then it is tried anew.

use super::table::Table;

/// So many places of a column's values are told apart; what comes after is one more.
const PLACES: usize = 63;
/// What a byte costs at which nothing is to be gained, in 1/16 bit.
const NOTHING: u8 = 125;
const AT_FIRST: u8 = 110;
/// One value in so many is tried, and so many bytes of as many more in what comes after.
const TRIED: u8 = 16;
const TRIED_BYTES: usize = 32;
const OF_BYTES: usize = 1_024;

/// What the bytes of a column's values cost, by their place: running means.
#[derive(Clone, Copy)]
pub(super) struct Noise {
    costs: Table<u8, { PLACES + 1 }>,
    values: u8,
}

impl Noise {
    pub(super) const NEW: Self = Self { costs: Table::all(AT_FIRST), values: 0 };

    /// Counts a value.
    pub(super) fn count(&mut self) {
        self.values = self.values.wrapping_add(1);
    }

    /// Returns whether the byte at a place is said as it is.
    pub(super) fn is_at(&self, place: usize) -> bool {
        let tried = match place {
            ..PLACES => self.values.is_multiple_of(TRIED),
            _ => place % OF_BYTES < TRIED_BYTES,
        };
        self.costs[place.min(PLACES)] >= NOTHING && !tried
    }

    /// Learns what the byte at a place has cost, in 1/256 bit.
    pub(super) fn learn(&mut self, place: usize, cost: u32) {
        let mean = &mut self.costs[place.min(PLACES)];
        *mean = ((u32::from(*mean) * 7 + (cost / 16).min(255) + 4) / 8) as u8;
    }
}
