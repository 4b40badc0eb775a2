//! The form that the rows of a state have: how many values of which kinds, and the ranges of numbers.
//!
//! **Why.** Rows of a state go into the `_pm_` tables as they are. One that no device writes would be read back much later,
//! and then taken for damage of this database. So it is refused with its state, before anything is stored.

use packmule_core::model::Value;

use crate::engine::store::value;

/// What a value can be.
#[derive(Clone, Copy)]
enum Is {
    /// A device's id.
    Id,
    /// An integer of 0 and more.
    Count,
    /// An integer from one to another.
    Within(i64, i64),
    Int,
    Text,
    Blob,
    /// The canonical key of a row.
    Key,
    /// The values of a baseline version: names and values in turn.
    Image,
    /// Any value that is not in pieces.
    Small,
    Null,
}

use Is::{Blob, Count, Id, Image, Int, Key, Null, Small, Text, Within};

const STREAM: &[Is] = &[Within(0, 1)];
const OFFSET: &[Is] = &[Within(0, u32::MAX as i64)];

/// Returns of each value of a kind of row what it can be. Of a row with the values of a table only the first one is told,
/// and of a kind that is unknown nothing.
fn form(kind: &str) -> Option<&'static [&'static [Is]]> {
    const COUNT: &[Is] = &[Count];
    const ID: &[Is] = &[Id];
    const TEXT: &[Is] = &[Text];
    const KEY: &[Is] = &[Key];
    const BLOB: &[Is] = &[Blob];
    Some(match kind {
        "since" => &[ID, COUNT],
        "def" | "gathers" => &[BLOB],
        "table" => &[TEXT, BLOB, &[Within(0, 2)]],
        "declared" => &[TEXT, COUNT, TEXT, ID, COUNT, COUNT, BLOB, &[Within(0, 3)], BLOB],
        "lamport" => &[COUNT],
        "tags" => &[ID, BLOB],
        "stream" => &[ID, STREAM, COUNT, BLOB, BLOB],
        "context" => &[ID, STREAM, ID, COUNT],
        "number" => &[ID, STREAM, OFFSET, ID],
        "floor" => &[ID, STREAM, COUNT],
        "retired" => &[ID, &[Id, Null], &[Count, Null], &[Within(1, 2)]],
        "head" => &[TEXT, KEY, ID, COUNT, OFFSET, COUNT, &[Int], &[Within(1, 6)], &[Blob, Null]],
        "count" => &[TEXT, KEY, OFFSET, ID, COUNT, &[Within(0, 2)], &[Small], COUNT],
        "image" => &[TEXT, KEY, &[Image]],
        "conflict" | "deleted" => &[TEXT, KEY],
        "gone" => &[TEXT, KEY, COUNT],
        "gap" => &[ID, COUNT, COUNT, BLOB],
        "parked" => &[TEXT, KEY, TEXT, &[Key, Null]],
        "dangling" => &[TEXT, KEY, COUNT],
        _ => return None,
    })
}

/// Returns whether a row has the form of its kind. An older version may leave out the last value.
pub(super) fn has_form(kind: &str, values: &[Value<'_>]) -> bool {
    let Some(form) = form(kind) else { return true };
    let older = matches!(kind, "count" | "dangling") && values.len() + 1 == form.len();
    let fits = |(value, can_be): (&Value<'_>, &&[Is])| can_be.iter().any(|is| is.fits(value));
    (values.len() == form.len() || older) && values.iter().zip(form).all(fits)
}

impl Is {
    fn fits(self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Id, Value::Blob(bytes)) => bytes.len() == 16,
            (Count, Value::Int(n)) => *n >= 0,
            (Within(from, to), Value::Int(n)) => (from..=to).contains(n),
            (Int, Value::Int(_)) | (Blob, Value::Blob(_)) | (Null, Value::Null) => true,
            (Text, Value::Text(bytes)) => std::str::from_utf8(bytes).is_ok(),
            (Key, Value::Blob(bytes)) => !bytes.is_empty() && value::read_key(bytes).is_ok(),
            (Image, Value::Blob(bytes)) => is_image(bytes),
            (Small, value) => !matches!(value, Value::Big(_)),
            _ => false,
        }
    }
}

/// Returns whether these are names and values in turn.
fn is_image(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let name = packmule_core::wire::take::<Value<'_>>(&mut bytes);
        let value = packmule_core::wire::take::<Value<'_>>(&mut bytes);
        if !matches!((name, value), (Ok(Value::Text(_)), Ok(value)) if !matches!(value, Value::Big(_))) {
            return false;
        }
    }
    true
}
