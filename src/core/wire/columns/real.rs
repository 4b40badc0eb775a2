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

/// What the numbers of a column are counted in.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    /// A constant by which all are multiplied: so many millionths.
    Times(i64),
    /// Parts of 1, rounded to a number of places: hours and degrees that were minutes and seconds.
    Parts {
        /// How many parts there are, by its place in [`PARTS`].
        of: u8,
        scale: u8,
    },
}

/// Seconds, minutes, and decimals of theirs.
static PARTS: Table<i64, 8> =
    Table::new([3_600, 36_000, 360_000, 3_600_000, 6_000, 60_000, 600_000, 6_000_000]);
/// A REAL with more places is not taken for one that was rounded.
const ROUNDED_MOST: u8 = 10;

impl Unit {
    /// None yet.
    pub(super) const NONE: Self = Self::Times(0);

    /// Returns the REAL that so many are.
    pub(super) fn times(self, count: i64) -> f64 {
        match self {
            Self::Times(millionths) => count as f64 * decimal(millionths, FACTOR_SCALE),
            Self::Parts { of, scale } => {
                let parts = PARTS[usize::from(of)];
                let up = count.saturating_mul(10i64.saturating_pow(u32::from(scale)));
                let half = if up < 0 { -parts / 2 } else { parts / 2 };
                decimal(up.saturating_add(half) / parts, scale)
            }
        }
    }

    /// Returns how many are a REAL of 1.
    pub(super) fn per_one(self) -> f64 {
        match self {
            Self::Times(millionths) => 1.0 / decimal(millionths, FACTOR_SCALE),
            Self::Parts { of, .. } => PARTS[usize::from(of)] as f64,
        }
    }

    /// Returns how many of it are the REAL, to the bit.
    pub(super) fn count(self, bits: u64) -> Option<i64> {
        let number = f64::from_bits(bits);
        let found = nearest(match self {
            Self::Times(millionths) => number / decimal(millionths, FACTOR_SCALE),
            Self::Parts { .. } => number * self.per_one(),
        })?;
        (self.times(found).to_bits() == bits).then_some(found)
    }

    /// Finds a factor of at most 6 decimals, of which the REAL is a small multiple, and of those the one that most of
    /// `others` are multiples of too.
    pub(super) fn factor_of(bits: u64, others: &[u64]) -> Option<Self> {
        let number = f64::from_bits(bits);
        if !number.is_finite() || number == 0.0 {
            return None;
        }
        let factors = (1..=FACTOR_TIMES).filter_map(|times| {
            let mantissa = nearest(number.abs() / times as f64 * POWERS[usize::from(FACTOR_SCALE)])?;
            let factor = Self::Times(mantissa);
            (mantissa > 0 && factor.count(bits).is_some()).then_some(factor)
        });
        let fits = |factor: &Self| others.iter().filter(|other| factor.count(**other).is_some()).count();
        // The last of the best: the greatest factor comes first.
        factors.rev().max_by_key(fits)
    }

    /// Finds the largest parts, no smaller than ten times the last place of the REAL, of which it is so many.
    pub(super) fn parts_of(bits: u64) -> Option<Self> {
        let scale = (0..=ROUNDED_MOST).find(|scale| mantissa(bits, *scale).is_some())?;
        let parts = |of: &u8| PARTS[usize::from(*of)];
        let fits = |of: &u8| {
            parts(of) as f64 * 10.0 <= power(scale) && Self::Parts { of: *of, scale }.count(bits).is_some()
        };
        (0..8).filter(fits).min_by_key(parts).map(|of| Self::Parts { of, scale })
    }

    /// Returns the number by which a frame tells it.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Times(millionths) => millionths,
            Self::Parts { of, scale } => -(i64::from(scale) * 8 + i64::from(of)),
        }
    }

    /// Returns what a number tells.
    pub(super) fn of_number(number: i64) -> Option<Self> {
        if number > 0 {
            return Some(Self::Times(number));
        }
        let number = number.unsigned_abs();
        let scale = u8::try_from(number >> 3).ok().filter(|scale| *scale <= ROUNDED_MOST)?;
        Some(Self::Parts { of: (number & 7) as u8, scale })
    }
}

/// Returns ten to the power of a scale.
pub(super) fn power(scale: u8) -> f64 {
    POWERS[usize::from(scale)]
}
