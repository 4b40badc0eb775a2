//! Sizes, times, counts and names, as people read them.

use std::path::Path;

/// A path for people.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

/// A word as a shell takes it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A number of bytes.
pub fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    let mut unit = "bytes";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1000.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, next);
    }
    match unit {
        "bytes" if bytes == 1 => "1 byte".into(),
        "bytes" => format!("{bytes} bytes"),
        _ if amount < 10.0 => format!("{amount:.1} {unit}"),
        _ => format!("{amount:.0} {unit}"),
    }
}

/// A number with its noun: `1 frame`, `12,000 frames`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// A number with its thousands set apart.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Milliseconds since 1970 now, by this machine's clock.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// 2020-01-01 and 2090-01-01.
const PLAUSIBLE: std::ops::Range<i64> = 1_577_836_800_000..3_786_912_000_000;

/// Whether a clock that shows this is likely to be wrong.
pub fn clock_wrong(ms: i64) -> bool {
    let now = now();
    let latest = if PLAUSIBLE.contains(&now) { now.saturating_add(86_400_000) } else { PLAUSIBLE.end };
    !(PLAUSIBLE.start..latest).contains(&ms)
}

/// A time for people: ISO 8601, UTC, to the second, with a doubt where it is due.
pub fn time(ms: i64) -> String {
    let iso = iso(ms);
    let short = iso.split('.').next().unwrap_or_default();
    format!("{short}Z{}", if clock_wrong(ms) { " (clock wrong?)" } else { "" })
}

/// A time for programs: ISO 8601, UTC, to the millisecond.
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

/// A span of time, roughly.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5399 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// What a group of frames waits for, in a sentence.
pub fn waiting(wait: &packmule::Wait) -> String {
    let (first, last) = wait.frames;
    match wait.up_to {
        // No frames bring it on.
        0 => format!("frames {first} to {last} of {} wait for {}", wait.author, wait.missing),
        up_to => format!(
            "frames {first} to {last} of {} wait for frames of {} up to {up_to}: they are applied when those come",
            wait.author, wait.missing
        ),
    }
}

/// What is to be done for a device that lacks what is compacted away here.
pub fn behind(whom: &str, db: &Path) -> String {
    format!(
        "{whom} lacks frames that are compacted away here: run `packmule snapshot {} FILE` here, and `packmule join` with it there",
        quoted(db)
    )
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

    #[test]
    fn sizes_and_numbers_are_short() {
        assert_eq!(
            [size(1), size(999), size(2048), size(52_428_800)],
            ["1 byte", "999 bytes", "2.0 KiB", "50 MiB"]
        );
        assert_eq!([number(0), number(999), number(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([shell_word("a.db"), shell_word("it's")], ["a.db", r"'it'\''s'"]);
    }
}
