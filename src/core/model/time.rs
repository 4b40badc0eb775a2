//! Points in time, as programs read them.

use core::fmt;

use super::WallMs;

/// A time that shows itself in ISO 8601, UTC, to the millisecond.
///
/// ```
/// # use packmule_core::model::Iso;
/// assert_eq!(Iso(0).to_string(), "1970-01-01T00:00:00.000Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iso(pub WallMs);

impl fmt::Display for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, of_day) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        // Howard Hinnant's days-to-civil: years begin in March, eras have 400 years.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (h, m, s, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(Iso(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Iso(1_709_210_096_007).to_string(), "2024-02-29T12:34:56.007Z");
        assert_eq!(Iso(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Iso(4_102_444_800_000).to_string(), "2100-01-01T00:00:00.000Z");
        let _ = (Iso(i64::MAX).to_string(), Iso(i64::MIN).to_string());
    }
}
