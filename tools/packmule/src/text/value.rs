//! A row's values as text, and back from what people type.

use packmule::OwnedValue;
use packmule::core::model::{Hex, decode_hex, is_unseen};

/// How many letters of a text, or bytes of a BLOB, are shown.
const SHOWN: usize = 60;

/// Formats a value for people, in the form that [`read`] takes; long values are cut.
pub fn show(value: &OwnedValue) -> String {
    match value {
        OwnedValue::Null => "NULL".into(),
        OwnedValue::Int(i) => i.to_string(),
        OwnedValue::Real(r) if r.is_infinite() => if *r > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        OwnedValue::Real(r) => format!("{r:?}"),
        OwnedValue::Text(text) => {
            let text = String::from_utf8_lossy(text);
            let plain = read(&text) == OwnedValue::Text(text.as_bytes().to_vec())
                && text.trim() == text
                && !text.contains('\'');
            let long = text.chars().count();
            let cut: String = text.chars().take(SHOWN).flat_map(visible).collect();
            let cut = if plain { cut } else { format!("'{}'", cut.replace('\'', "''")) };
            if long > SHOWN { format!("{cut}… ({long} letters)") } else { cut }
        }
        OwnedValue::Blob(blob) => {
            let cut = Hex(&blob[..blob.len().min(SHOWN / 2)]);
            if blob.len() > SHOWN / 2 {
                format!("x'{cut}'… ({} bytes)", blob.len())
            } else {
                format!("x'{cut}'")
            }
        }
        large @ OwnedValue::Large { .. } => large.to_string(),
    }
}

/// Formats values with their columns' names.
pub fn pairs<'v>(of: impl IntoIterator<Item = &'v (String, OwnedValue)>) -> String {
    of.into_iter().map(|(name, value)| format!("{name} = {}", show(value))).collect::<Vec<_>>().join(", ")
}

/// Returns a letter, escaped if a terminal would act on it.
fn visible(c: char) -> Vec<char> {
    if is_unseen(c) { c.escape_default().collect() } else { vec![c] }
}

/// Reads what a person typed: `NULL`, `x'00ff'`, `'text'`, a number if it is written as one is shown, else text.
///
/// A number that is not in its shortest form (`007`, `1.50`) is text, which SQLite turns into a
/// number where the column is one.
pub fn read(typed: &str) -> OwnedValue {
    let within = |mark: &str| {
        typed.get(mark.len()..typed.len().saturating_sub(1)).filter(|_| {
            typed.len() > mark.len() && typed.to_ascii_lowercase().starts_with(mark) && typed.ends_with('\'')
        })
    };
    if typed == "NULL" {
        return OwnedValue::Null;
    }
    if let Some(digits) = within("x'")
        && let Some(blob) = unhex(digits)
    {
        return OwnedValue::Blob(blob);
    }
    if let Some(text) = within("'") {
        return OwnedValue::Text(text.replace("''", "'").into_bytes());
    }
    if let Ok(i) = typed.parse::<i64>()
        && i.to_string() == typed
    {
        return OwnedValue::Int(i);
    }
    match typed {
        "Infinity" => return OwnedValue::Real(f64::INFINITY),
        "-Infinity" => return OwnedValue::Real(f64::NEG_INFINITY),
        _ => {}
    }
    match typed.parse::<f64>() {
        Ok(r) if r.is_finite() && typed.len() <= 15 && format!("{r:?}") == typed => OwnedValue::Real(r),
        _ => OwnedValue::Text(typed.as_bytes().to_vec()),
    }
}

/// Decodes as many bytes as there are digits for.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; digits.len() / 2];
    decode_hex(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        for value in [
            OwnedValue::Null,
            OwnedValue::Int(-5),
            OwnedValue::Real(1.0),
            OwnedValue::Real(-0.0),
            OwnedValue::Real(f64::INFINITY),
            OwnedValue::Text(b"plain words".to_vec()),
            OwnedValue::Text(b"".to_vec()),
            OwnedValue::Text(b"5".to_vec()),
            OwnedValue::Text(b"NULL".to_vec()),
            OwnedValue::Text(b"it's".to_vec()),
            OwnedValue::Text(b"'".to_vec()),
            OwnedValue::Text(b"007".to_vec()),
            OwnedValue::Blob(vec![0, 255]),
            OwnedValue::Blob(vec![]),
        ] {
            assert_eq!(read(&show(&value)), value, "{}", show(&value));
        }
        assert_eq!(read("x'0'"), OwnedValue::Text(b"x'0'".to_vec()));
    }
}
