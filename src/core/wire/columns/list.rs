//! Values that come again: the last of each column, each with a number.

use super::model::hash;
use super::prose::{Bucket, Buckets, Prose};
use super::table::Place;

/// Numbers have so many binary digits at the most.
pub(super) const NUMBER_BITS: u32 = 10;
const NUMBERS: u32 = 1 << NUMBER_BITS;

/// The last values of a column that were said by themselves.
#[derive(Clone, Copy)]
pub(super) struct List {
    /// How many there have been; as many less once none is without a number.
    count: u32,
    /// The numbers of those that were said by them, the last one lowest.
    pub(super) said: u32,
}

/// The values in the lists of all columns, by number and by value. One takes the place of another where both are to stand at
/// the same: whoever looks for that one then finds it no more.
pub(super) struct Lists<'c> {
    pub(super) prose: &'c mut Prose,
    pub(super) buckets: &'c mut Buckets,
}

impl Lists<'_> {
    fn at(&mut self, id: u32, of: u32) -> &mut Bucket {
        self.prose.at(self.buckets, hash(hash(id, 81), of))
    }

    /// Returns the place of a number of the column `id`; of no length if it has none.
    pub(super) fn place(&mut self, id: u32, number: u32) -> Place {
        self.at(id, number).place
    }

    /// Returns the number that a value has, of this hash, if it has one.
    pub(super) fn find(&mut self, id: u32, value: u32) -> u32 {
        u32::from(self.at(id, value).number)
    }

    /// Adds a value to the list of the column `id`, in the place of the oldest one.
    pub(super) fn add(&mut self, list: &mut List, id: u32, value: u32, place: Place) {
        let number = list.count % NUMBERS;
        self.at(id, number).place = place;
        self.at(id, value).number = number as u16;
        list.say(number);
        list.count += 1;
        if list.count == 2 * NUMBERS {
            list.count = NUMBERS;
        }
    }
}

impl List {
    pub(super) const NEW: Self = Self { count: 0, said: 0 };

    /// Returns how many digits a number has.
    pub(super) fn bits(&self) -> u32 {
        (32 - self.count.saturating_sub(1).leading_zeros()).clamp(1, NUMBER_BITS)
    }

    /// Notes what was said.
    pub(super) fn say(&mut self, number: u32) {
        self.said = self.said << NUMBER_BITS | number;
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
