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

/// Formats a time as `date` takes it.
pub fn utc(ms: i64) -> String {
    let iso = iso(ms);
    iso.split('.').next().unwrap_or_default().replace('T', " ")
}

/// Formats a time for programs: ISO 8601, UTC, to the millisecond.
pub fn iso(ms: i64) -> String {
    Iso(ms).to_string()
}

/// Reads a time, UTC: `2026-11-27`, `2026-11-27T03:00`, `2026-11-27T03:00:30Z` or, as it is in JSON,
/// `2026-11-27T03:00:30.250Z`. Returns milliseconds since 1970.
pub fn read_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let thousandths = match fraction.bytes().all(|b| b.is_ascii_digit()) {
        true if matches!(fraction.len(), 1..=3) => format!("{fraction:0<3}").parse::<i64>().ok()?,
        _ => return None,
    };
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        let digits =
            |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
        text.split(by).map(|part| if digits(part) { part.parse().ok() } else { None }).collect()
    };
    let (year, month, day) = match numbers(date, '-')?[..] {
        [year, month @ 1..=12, day @ 1..=31] => (year, month, day),
        _ => return None,
    };
    let seconds = match numbers(clock, ':')?[..] {
        [hour @ 0..=23, minute @ 0..=59] => hour * 3600 + minute * 60,
        [hour @ 0..=23, minute @ 0..=59, second @ 0..=60] => hour * 3600 + minute * 60 + second,
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day > longest {
        return None;
    }
    // Years that begin in March: the leap day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468;
    Some((days * 86_400 + seconds) * 1_000 + thousandths)
}

/// Reads a time that a person typed: as [`read_time`] does, or how long ago.
///
/// # Errors
/// What it is to be.
pub fn read_when(text: &str) -> Result<i64, String> {
    let ago = || read_age(text).map(|age| now().saturating_sub(age));
    read_time(text).or_else(ago).ok_or_else(|| {
        format!("`{text}` is not a time; give it as 2026-11-27 or 2026-11-27T03:00, or how long ago: 12h, 7d")
    })
}

/// Reads an age: `30d`, `12h`, `90m` or `60s`. Returns milliseconds.
pub fn read_age(text: &str) -> Option<i64> {
    const DAY: i64 = 86_400_000;
    let units = [("d", DAY), ("h", DAY / 24), ("m", DAY / 1_440), ("s", 1_000)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    number.parse::<u32>().ok().and_then(|number| i64::from(number).checked_mul(*unit))
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
    fn a_time_is_read_as_it_is_shown() {
        for ms in [0, 951_782_400_000, 1_709_164_800_000, 1_795_747_203_000] {
            assert_eq!(read_time(iso(ms).split('.').next().unwrap_or_default()), Some(ms));
        }
        assert_eq!(read_time("2026-11-27"), read_time("2026-11-27T00:00Z"));
        assert_eq!(read_time(&iso(1_795_747_203_045)), Some(1_795_747_203_045));
        assert_eq!(read_time("2026-11-27T00:00:30.5"), read_time("2026-11-27T00:00:30.500Z"));
        for wrong in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-01",
            "2026-02-29",
            "2100-02-29",
            "2026-11-31",
            "2026-01-01T25:00",
            "2026-01-01T",
            "2026-01-01T00:00:00.",
            "-1-1-1",
        ] {
            assert_eq!(read_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_has_a_doubt() {
        assert_eq!(time(12_000), "1970-01-01T00:00:12Z (clock wrong?)");
        let _ = time(i64::MAX);
    }
}
