//! Tables that any number finds a place in: the numbers come from outside, and none is out of bounds.

use core::ops::{Index, IndexMut};

/// Where a value stands in the plain frame, which is no longer than two bytes can tell; of no length: nowhere.
pub(super) type Place = (u16, u16);

/// So many columns are told apart; those of a wider table share their places.
pub(super) const COLUMNS: usize = 64;

/// A table of `N` places, of which a number has the one that it leaves over.
#[derive(Clone, Copy)]
pub(super) struct Table<T, const N: usize>([T; N]);

impl<T: Copy, const N: usize> Table<T, N> {
    pub(super) const fn new(places: [T; N]) -> Self {
        const { assert!(N > 0) };
        Self(places)
    }

    pub(super) const fn all(place: T) -> Self {
        Self::new([place; N])
    }
}

impl<T, const N: usize> Index<usize> for Table<T, N> {
    type Output = T;

    #[allow(clippy::indexing_slicing)] // What is left over is below the length.
    fn index(&self, number: usize) -> &T {
        &self.0[number % N]
    }
}

impl<T, const N: usize> IndexMut<usize> for Table<T, N> {
    #[allow(clippy::indexing_slicing)] // As above.
    fn index_mut(&mut self, number: usize) -> &mut T {
        &mut self.0[number % N]
    }
}
