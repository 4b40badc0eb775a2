//! Points in time and spans, as people and programs read them.

/// Returns the milliseconds since 1970 by this machine's clock.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// 2020-01-01 and 2090-01-01.
const PLAUSIBLE: std::ops::Range<i64> = 1_577_836_800_000..3_786_912_000_000;

/// Returns whether a clock that shows this is likely to be wrong.
pub fn clock_wrong(ms: i64) -> bool {
    let now = now();
    let latest = if PLAUSIBLE.contains(&now) { now.saturating_add(86_400_000) } else { PLAUSIBLE.end };
    !(PLAUSIBLE.start..latest).contains(&ms)
}

/// Formats a time for people: ISO 8601, UTC, to the second, with a doubt where it is due.
pub fn time(ms: i64) -> String {
    let iso = iso(ms);
    let short = iso.split('.').next().unwrap_or_default();
    format!("{short}Z{}", if clock_wrong(ms) { " (clock wrong?)" } else { "" })
}

/// Formats a time for programs: ISO 8601, UTC, to the millisecond.
pub fn iso(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
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
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
}

/// Formats a span of time, roughly.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5399 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_709_210_096_007), "2024-02-29T12:34:56.007Z");
        assert_eq!(iso(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
        assert_eq!(time(12_000), "1970-01-01T00:00:12Z (clock wrong?)");
        let _ = (iso(i64::MAX), iso(i64::MIN), time(i64::MAX));
    }
}
