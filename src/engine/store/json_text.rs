//! JSON as text, for what applications read in SQL: in the form that `json` gives to whoever serialises the reports.

use std::fmt::Write;

use packmule_core::model::Hex;

use crate::engine::store::value::OwnedValue;

/// Appends a text in quotes.
pub(crate) fn text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends what `item` appends of each item, between these brackets.
pub(crate) fn all<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (n, each) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        item(out, each);
    }
    out.push(close);
}

/// Appends a value.
pub(crate) fn value(out: &mut String, value: &OwnedValue) {
    // A String takes everything.
    let _ = match value {
        OwnedValue::Null => write!(out, "null"),
        OwnedValue::Int(i) => write!(out, "{i}"),
        OwnedValue::Real(r) if r.is_finite() => write!(out, "{r:?}"),
        OwnedValue::Real(r) => write!(out, "{{\"real\":\"{}Infinity\"}}", if *r > 0.0 { "" } else { "-" }),
        OwnedValue::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(told) => {
                text(out, told);
                Ok(())
            }
            Err(_) => write!(out, "{{\"hex\":\"{}\",\"text\":true}}", Hex(bytes)),
        },
        OwnedValue::Blob(bytes) => write!(out, "{{\"hex\":\"{}\"}}", Hex(bytes)),
        OwnedValue::Large { text, bytes, sha256 } => {
            let text = if *text { ",\"text\":true" } else { "" };
            write!(out, "{{\"bytes\":{bytes},\"sha256\":\"{}\"{text}}}", Hex(sha256))
        }
    };
}

/// Appends values by their columns' names.
pub(crate) fn row(out: &mut String, row: &[(String, OwnedValue)]) {
    all(out, ['{', '}'], row, |out, (name, of)| {
        text(out, name);
        out.push(':');
        value(out, of);
    });
}
