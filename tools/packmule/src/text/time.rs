//! Points in time and spans, as people and programs read them.

use packmule::core::model::Iso;

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
    Iso(ms).to_string()
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
    fn a_time_that_cannot_be_has_a_doubt() {
        assert_eq!(time(12_000), "1970-01-01T00:00:12Z (clock wrong?)");
        let _ = time(i64::MAX);
    }
}
