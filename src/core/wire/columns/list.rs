//! What a column of few different values has: the last sixteen of them, each with a number.

use super::table::Table;

/// Where a value stands in the plain frame, which is no longer than two bytes can tell; of no length: nowhere.
pub(super) type Place = (u16, u16);

pub(super) const LISTED_BITS: u32 = 4;
const LISTED_MOST: usize = 1 << LISTED_BITS;

/// The last TEXTs and BLOBs of a column that were not said by others.
#[derive(Clone, Copy)]
pub(super) struct List {
    places: Table<Place, LISTED_MOST>,
    next: u8,
    /// The numbers of those that were said by them, the last one lowest.
    pub(super) said: u32,
}

impl List {
    pub(super) const NEW: Self = Self { places: Table::all((0, 0)), next: 0, said: 0 };

    /// Adds a value, in the place of the oldest one.
    pub(super) fn add(&mut self, place: Place) {
        self.places[usize::from(self.next)] = place;
        self.say(u32::from(self.next) % LISTED_MOST as u32);
        self.next = self.next.wrapping_add(1);
    }

    /// Returns the place of a number; of no length if it has none.
    pub(super) fn place(&self, number: u32) -> Place {
        self.places[number as usize]
    }

    /// Finds the number of a value.
    pub(super) fn find(&self, is: impl Fn(Place) -> bool) -> Option<u32> {
        (0..LISTED_MOST as u32).find(|number| is(self.place(*number)))
    }

    /// Notes what was said.
    pub(super) fn say(&mut self, number: u32) {
        self.said = self.said << LISTED_BITS | number;
    }
}

/// How often the value after the last one, and that beside the same value, would have been right: who encodes prefers those that mostly are.
#[derive(Clone, Copy)]
pub(super) struct Hits([u8; 2]);

/// From here on it mostly is.
const MOSTLY: u8 = 192;

impl Hits {
    pub(super) const NEW: Self = Self([255; 2]);

    /// Learns whether it was right this time.
    pub(super) fn learn(&mut self, way: usize, hit: bool) {
        if let Some(mean) = self.0.get_mut(way) {
            *mean = *mean - *mean / 8 + if hit { 31 } else { 0 };
        }
    }

    /// Returns whether it mostly is.
    pub(super) fn mostly(&self, way: usize) -> bool {
        self.0.get(way).is_some_and(|mean| *mean >= MOSTLY)
    }
}
