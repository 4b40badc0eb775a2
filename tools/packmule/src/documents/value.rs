//! A row's values as JSON.

use packmule::OwnedValue;
use packmule::core::model::Hex;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Values by their columns' names.
///
/// A BLOB is `{"hex": …}`, text that is not UTF-8 has `"text": true` too, an infinity is `{"real": …}`.
pub struct Row<'a>(pub &'a [(String, OwnedValue)]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, value)| (name, One(value))))
    }
}

/// One value.
struct One<'a>(&'a OwnedValue);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            OwnedValue::Null => to.serialize_unit(),
            OwnedValue::Int(i) => to.serialize_i64(*i),
            OwnedValue::Real(r) if r.is_finite() => to.serialize_f64(*r),
            OwnedValue::Real(r) => {
                to.collect_map([("real", if *r > 0.0 { "Infinity" } else { "-Infinity" })])
            }
            OwnedValue::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => to.serialize_str(text),
                Err(_) => {
                    let mut map = to.serialize_map(Some(2))?;
                    map.serialize_entry("hex", &Digits(text))?;
                    map.serialize_entry("text", &true)?;
                    map.end()
                }
            },
            OwnedValue::Blob(blob) => to.collect_map([("hex", Digits(blob))]),
        }
    }
}

/// Bytes as hexadecimal digits, which are never all in memory.
struct Digits<'a>(&'a [u8]);

impl Serialize for Digits<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Hex(self.0))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Row<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "values by column".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_what_it_has_no_word_for() {
        for (value, json) in [
            (OwnedValue::Text(vec![0xff]), r#"{"hex":"ff","text":true}"#),
            (OwnedValue::Blob(vec![0, 0xab]), r#"{"hex":"00ab"}"#),
            (OwnedValue::Real(f64::NEG_INFINITY), r#"{"real":"-Infinity"}"#),
            (OwnedValue::Real(2.0), "2.0"),
            (OwnedValue::Null, "null"),
        ] {
            assert_eq!(serde_json::to_string(&One(&value)).unwrap(), json);
        }
    }
}
