//! Reals as what people meant: decimals, or whole numbers times a constant.

use super::table::Table;

/// The powers of ten that a REAL has exactly.
static POWERS: Table<f64, 23> = Table::new([
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
]);
/// Above this not every integer is a REAL.
const EXACT: i64 = 1 << 53;
const FACTOR_TIMES: i64 = 128;
const FACTOR_SCALE: u8 = 6;

/// Returns the REAL that `mantissa` stands for at a scale.
pub(super) fn decimal(mantissa: i64, scale: u8) -> f64 {
    mantissa as f64 / POWERS[usize::from(scale)]
}

fn nearest(number: f64) -> Option<i64> {
    let whole = if number < 0.0 { number - 0.5 } else { number + 0.5 } as i64;
    (whole.unsigned_abs() <= EXACT as u64).then_some(whole)
}

/// Returns the mantissa at this scale, if that is the REAL to the bit.
pub(super) fn mantissa(bits: u64, scale: u8) -> Option<i64> {
    let number = f64::from_bits(bits);
    let found = nearest(number * POWERS[usize::from(scale)])?;
    (decimal(found, scale).to_bits() == bits).then_some(found)
}

/// A constant by which all numbers of a column are multiplied, as a decimal.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Factor {
    pub(super) mantissa: i64,
}

impl Factor {
    pub(super) fn times(self, count: i64) -> f64 {
        count as f64 * decimal(self.mantissa, FACTOR_SCALE)
    }

    /// Returns how many times it is the REAL, to the bit.
    pub(super) fn count(self, bits: u64) -> Option<i64> {
        let found = nearest(f64::from_bits(bits) / decimal(self.mantissa, FACTOR_SCALE))?;
        (self.times(found).to_bits() == bits).then_some(found)
    }

    /// Finds a factor of at most 6 decimals, of which the REAL is a small multiple, and of those the one that most of
    /// `others` are multiples of too.
    pub(super) fn of(bits: u64, others: &[u64]) -> Option<Self> {
        let number = f64::from_bits(bits);
        if !number.is_finite() || number == 0.0 {
            return None;
        }
        let factors = (1..=FACTOR_TIMES).filter_map(|times| {
            let mantissa = nearest(number.abs() / times as f64 * POWERS[usize::from(FACTOR_SCALE)])?;
            let factor = Self { mantissa };
            (mantissa > 0 && factor.count(bits).is_some()).then_some(factor)
        });
        let fits = |factor: &Self| others.iter().filter(|other| factor.count(**other).is_some()).count();
        // The last of the best: the greatest factor comes first.
        factors.rev().max_by_key(fits)
    }
}
