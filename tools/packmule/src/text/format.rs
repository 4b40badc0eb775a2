//! Sizes, numbers and names, as people read them.

use std::borrow::Cow;
use std::path::Path;

use packmule::core::model::is_unseen;

/// Returns text as a terminal may have it: what it would act on, or nobody sees, is escaped. Line ends stay.
pub fn safe(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c != '\n' && is_unseen(c);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .flat_map(|c| if acts(c) { c.escape_default().collect() } else { vec![c] })
        .collect::<String>()
        .into()
}

/// Formats a path for people, in one line: whoever names a file on a card writes none of ours by that.
pub fn shown(path: &Path) -> String {
    path.display().to_string().replace('\n', r"\n")
}

/// Quotes a path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

/// Quotes a word as a shell takes it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Formats a number of bytes.
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

/// Reads a number of bytes: `500K`, `200M`, `1G`, or without a unit.
pub fn read_size(text: &str) -> Option<u64> {
    let units = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("", 1)];
    units.iter().find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*factor))
}

/// Formats a number with its noun: `1 frame`, `12,000 frames`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// Formats a number with what agrees with it: `1 row waits`, `2 rows wait`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// Formats a number with its thousands set apart.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        assert_eq!(safe("plain, ä, 温度\nnext"), "plain, ä, 温度\nnext");
        let text = "a\u{1b}[31mb\u{9b}c\u{7}d\re\u{202e}f\u{200b}g\u{feff}h";
        assert_eq!(safe(text), "a\\u{1b}[31mb\\u{9b}c\\u{7}d\\re\\u{202e}f\\u{200b}g\\u{feff}h");
    }

    #[test]
    fn sizes_and_numbers_are_short() {
        assert_eq!(
            [size(1), size(999), size(2048), size(52_428_800)],
            ["1 byte", "999 bytes", "2.0 KiB", "50 MiB"]
        );
        assert_eq!([number(0), number(999), number(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!(
            [plural(1, "row waits", "rows wait"), plural(0, "row waits", "rows wait")],
            ["1 row waits", "0 rows wait"]
        );
        assert_eq!([shell_word("a.db"), shell_word("it's")], ["a.db", r"'it'\''s'"]);
    }
}
