//! What a number follows from: those of the columns before it in its row, and the last one of its own.
//!
//! Recursive least squares with a forgetting factor (Haykin, "Adaptive Filter Theory"): some dozens of rows tell what a sum, a
//! ratio nearly, or a second measurement of the same thing is.

use super::level::{length, mean, real};
use super::table::{COLUMNS, Table};

/// So many columns before one are looked at.
const BEFORE: usize = 5;
const TAPS: usize = BEFORE + 2;

/// A constant, the last number, and those of the columns before it, the next one first.
pub(super) type Taps = [f64; TAPS];

/// How uncertain each weight is at first.
const UNCERTAIN: f64 = 16.0;
/// So much of what was learned stays with each number.
const KEPT: f64 = 0.998;
/// Above these it begins anew, before it overflows.
const SPREAD_MAX: f64 = 1e6;
const POWER_MAX: f64 = 1e30;
const WEIGHT_MAX: f64 = 1e9;
const NUMBER_MAX: f64 = 1e12;

/// What the numbers of a column follow from.
#[derive(Clone, Copy)]
pub(super) struct Filter {
    weights: Taps,
    spread: [Taps; TAPS],
    /// The column's first number, from which all are counted. None before it: then all else is of no meaning.
    origin: Option<f64>,
    /// How long a difference from what is expected is, as [`length`] has it: a running mean.
    pub(super) misses: u16,
}

fn uncertain() -> [Taps; TAPS] {
    let mut spread = [[0.0; TAPS]; TAPS];
    for (n, row) in spread.iter_mut().enumerate() {
        row.iter_mut().skip(n).take(1).for_each(|own| *own = UNCERTAIN);
    }
    spread
}

fn sum(taps: &Taps, weights: &Taps) -> f64 {
    taps.iter().zip(weights).map(|(tap, weight)| tap * weight).sum()
}

fn rounded(number: f64) -> i64 {
    (number + if number < 0.0 { -0.5 } else { 0.5 }) as i64
}

impl Filter {
    pub(super) const NEW: Self =
        Self { weights: [0.0; TAPS], spread: [[0.0; TAPS]; TAPS], origin: None, misses: 0 };

    /// Begins at a number: the next one is expected to be the same.
    fn begin(origin: f64) -> Self {
        let weights = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        Self { weights, spread: uncertain(), origin: Some(origin), misses: 12 * 256 }
    }

    /// Begins anew with the next number. It costs next to no work.
    pub(super) fn forget(&mut self) {
        self.origin = None;
    }

    /// Returns what the next number is expected to be.
    pub(super) fn expect(&self, taps: &Taps) -> Option<i64> {
        Some(rounded(sum(taps, &self.weights) + self.origin?))
    }

    /// Learns from a number.
    pub(super) fn learn(&mut self, taps: &Taps, number: i64) {
        let Some(origin) = self.origin else {
            *self = Self::begin(real(number));
            return;
        };
        let missed = real(number) - (sum(taps, &self.weights) + origin);
        self.misses = mean(u32::from(self.misses), length(rounded(missed)), 16) as u16;
        let mut seen = [0.0; TAPS];
        for (seen, row) in seen.iter_mut().zip(&self.spread) {
            *seen = sum(taps, row);
        }
        let power = KEPT + sum(taps, &seen);
        let mut left = 0.0;
        for (n, (weight, row)) in self.weights.iter_mut().zip(&mut self.spread).enumerate() {
            let gain = seen.get(n).copied().unwrap_or(0.0) / power;
            *weight += gain * missed;
            for (spread, seen) in row.iter_mut().zip(&seen) {
                *spread = (*spread - gain * seen) / KEPT;
            }
            left += row.get(n).copied().unwrap_or(0.0);
        }
        // What is no number is within no bounds.
        let bounded = (0.0..POWER_MAX).contains(&power)
            && self.weights.iter().all(|weight| (-WEIGHT_MAX..WEIGHT_MAX).contains(weight));
        if !bounded {
            *self = Self::begin(origin);
        } else if !(0.0..SPREAD_MAX).contains(&left) {
            self.spread = uncertain();
        }
    }
}

/// The last numbers of all columns, whatever they are counted in.
pub(super) struct Row {
    /// Each counted from its column's first one.
    now: Table<f64, COLUMNS>,
    first: Table<Option<f64>, COLUMNS>,
}

impl Row {
    pub(super) const NEW: Self = Self { now: Table::all(0.0), first: Table::all(None) };

    /// Notes a number of a column.
    pub(super) fn note(&mut self, index: usize, number: f64) {
        let number = if number.abs() < NUMBER_MAX { number } else { 0.0 };
        self.now[index] = number - *self.first[index].get_or_insert(number);
    }
}

/// What can be seen from the place of a number.
pub(super) struct Sight<'a> {
    pub(super) filter: &'a mut Filter,
    pub(super) row: &'a Row,
    pub(super) index: usize,
    /// How many of its column's units a REAL is.
    pub(super) units: f64,
}

impl Sight<'_> {
    /// Returns what its number is to follow from.
    pub(super) fn taps(&self, last: i64) -> Taps {
        let mut taps = [0.0; TAPS];
        let (own, before) = taps.split_at_mut(2);
        own.copy_from_slice(&[1.0, real(last) - self.filter.origin.unwrap_or(0.0)]);
        for (tap, index) in before.iter_mut().zip((0..self.index).rev()) {
            *tap = self.row.now[index] * self.units;
        }
        taps
    }
}
