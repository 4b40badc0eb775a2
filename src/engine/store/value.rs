//! Values between SQLite and the wire: bound, read, encoded as keys; names and literals quoted.

use packmule_core::model::{Big, Hex, RealBits, Stream, Value};
use packmule_core::wire::Collation;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};
use sha2::{Digest, Sha256};

use crate::engine::error::{Error, Result};

/// A value of the wire, bound to a statement.
pub(crate) struct Bind<'a>(pub Value<'a>);

impl ToSql for Bind<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(i) => ValueRef::Integer(i),
            Value::Real(RealBits(bits)) => ValueRef::Real(f64::from_bits(bits)),
            Value::Text(t) => ValueRef::Text(t),
            Value::Blob(b) => ValueRef::Blob(b),
            // Its bytes are written afterwards, from the pieces.
            Value::Big(big) => return Ok(ToSqlOutput::ZeroBlob(big.len)),
        }))
    }
}

/// Converts a value of SQLite to one of the wire.
pub(crate) fn from_sql(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Int(i),
        ValueRef::Real(r) => Value::real(r),
        ValueRef::Text(t) => Value::Text(t),
        ValueRef::Blob(b) => Value::Blob(b),
    }
}

/// Returns the first `n` values of a row of a query.
pub(crate) fn first_of<'r>(row: &'r rusqlite::Row<'_>, n: usize) -> rusqlite::Result<Vec<Value<'r>>> {
    some_of(row, 0..n)
}

/// Returns the values of these columns of a row of a query.
pub(crate) fn some_of<'r>(
    row: &'r rusqlite::Row<'_>,
    columns: std::ops::Range<usize>,
) -> rusqlite::Result<Vec<Value<'r>>> {
    // For every row of a seal: at once of the right length.
    let mut values = Vec::with_capacity(columns.len());
    for at in columns {
        values.push(from_sql(row.get_ref(at)?));
    }
    Ok(values)
}

/// An owned value, for people and for programs that use the library.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedValue {
    /// NULL.
    Null,
    /// INTEGER.
    Int(i64),
    /// REAL.
    Real(f64),
    /// TEXT; bytes that are not UTF-8 are kept.
    Text(Vec<u8>),
    /// BLOB.
    Blob(Vec<u8>),
    /// A long TEXT or BLOB, of which only this is told: it is never read into memory whole.
    Large {
        /// TEXT, else BLOB.
        text: bool,
        /// Bytes in all.
        bytes: u64,
        /// SHA-256 of the content.
        sha256: [u8; 32],
    },
}

/// TEXT and BLOB of more bytes are compared by length and hash, and told so where versions are listed: the same on
/// every device, whatever its frames hold.
pub(crate) const LARGE: usize = 4096;

impl OwnedValue {
    /// Returns it as a value of the wire.
    pub(crate) fn borrow(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Int(i) => Value::Int(*i),
            Self::Real(r) => Value::real(*r),
            Self::Text(t) => Value::Text(t),
            Self::Blob(b) => Value::Blob(b),
            Self::Large { text, bytes, sha256 } => {
                Value::Big(Big { text: *text, number: 0, back: 0, len: *bytes, sha256: *sha256 })
            }
        }
    }

    /// Tells a long value by its length and hash.
    pub(crate) fn shortened(self) -> Self {
        self.told_above(LARGE)
    }

    /// Tells a value of more bytes than these by its length and hash.
    pub(crate) fn told_above(self, most: usize) -> Self {
        match &self {
            Self::Text(b) | Self::Blob(b) if b.len() > most => Self::Large {
                text: matches!(self, Self::Text(_)),
                bytes: b.len() as u64,
                sha256: Sha256::digest(b).into(),
            },
            _ => self,
        }
    }

    /// Copies a value of the wire; of one in pieces, its length and hash.
    pub(crate) fn told_of(value: Value<'_>) -> Result<Self> {
        match value {
            Value::Big(Big { text, len: bytes, sha256, .. }) => Ok(Self::Large { text, bytes, sha256 }),
            value => Self::of(value),
        }
    }

    /// Copies a value of the wire that is not in pieces.
    pub(crate) fn of(value: Value<'_>) -> Result<Self> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Int(i) => Self::Int(i),
            Value::Real(RealBits(bits)) => Self::Real(f64::from_bits(bits)),
            Value::Text(t) => Self::Text(t.to_vec()),
            Value::Blob(b) => Self::Blob(b.to_vec()),
            Value::Big(_) => return Err(Error::damaged("a large value where none can be")),
        })
    }
}

impl ToSql for OwnedValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(i) => ValueRef::Integer(*i),
            Self::Real(r) => ValueRef::Real(*r),
            Self::Text(t) => ValueRef::Text(t),
            Self::Blob(b) => ValueRef::Blob(b),
            Self::Large { bytes, .. } => return Ok(ToSqlOutput::ZeroBlob(*bytes)),
        }))
    }
}

impl std::fmt::Display for OwnedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Real(r) => write!(f, "{r:?}"),
            Self::Text(t) => f.write_str(&String::from_utf8_lossy(t)),
            Self::Blob(b) => {
                write!(f, "x'{}'", Hex(&b[..b.len().min(32)]))?;
                if b.len() > 32 { write!(f, "… ({} bytes)", b.len()) } else { Ok(()) }
            }
            Self::Large { text, bytes, sha256 } => {
                let kind = if *text { "TEXT" } else { "BLOB" };
                write!(f, "{kind} of {bytes} bytes, SHA-256 {}…", Hex(&sha256[..8]))
            }
        }
    }
}

/// Appends a key value in a canonical form: values that SQLite takes for the same key have the same bytes. Numbers are
/// encoded by value, and text as its collation folds it.
pub(crate) fn push_key(out: &mut Vec<u8>, value: Value<'_>, collation: Collation) -> Result<()> {
    let folded;
    let canonical = match value {
        Value::Real(RealBits(bits)) => {
            let real = f64::from_bits(bits);
            // The bounds of i64 are not both exact in f64: 2^63 is, and is out of range.
            let range = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
            if real.fract() == 0.0 && range.contains(&real) { Value::Int(real as i64) } else { value }
        }
        Value::Text(text) if collation == Collation::NoCase => {
            folded = text.to_ascii_lowercase();
            Value::Text(&folded)
        }
        Value::Text(text) if collation == Collation::RTrim => {
            let end = text.iter().rposition(|&b| b != b' ').map_or(0, |at| at + 1);
            Value::Text(&text[..end])
        }
        Value::Big(_) => return Err(Error::damaged("a key in pieces")),
        _ => value,
    };
    let start = out.len();
    let mut size = 16
        + match canonical {
            Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
            _ => 0,
        };
    loop {
        out.resize(start + size, 0);
        match packmule_core::wire::put_value(&mut out[start..], &canonical) {
            Ok(len) => {
                out.truncate(start + len);
                return Ok(());
            }
            Err(_) => size *= 2,
        }
    }
}

/// A key has no more values than a table has columns.
const KEY_VALUES_MAX: usize = 1_000;

/// Decodes the values that [`push_key`] encoded.
pub(crate) fn read_key(mut key: &[u8]) -> Result<Vec<OwnedValue>> {
    let mut values = Vec::new();
    while !key.is_empty() {
        let value = packmule_core::wire::take_value(&mut key)
            .map_err(|e| Error::damaged(format!("a row's key: {e}")))?;
        values.push(OwnedValue::of(value)?);
        if values.len() > KEY_VALUES_MAX {
            return Err(Error::damaged("a row's key of more values than a table has columns"));
        }
    }
    Ok(values)
}

/// Returns the integer that a canonical key is, if it is one integer.
pub(crate) fn integer_key(mut key: &[u8]) -> Option<i64> {
    match packmule_core::wire::take_value(&mut key) {
        Ok(Value::Int(integer)) if key.is_empty() => Some(integer),
        _ => None,
    }
}

/// Joins conditions by AND or OR, as a balanced tree: SQLite refuses expressions that are nested more than 1,000 deep, and
/// a plain chain of a thousand is that deep.
pub(crate) fn joined(parts: &[String], by: &str) -> String {
    match parts {
        [] => "0".into(),
        [one] => one.clone(),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            format!("({}) {by} ({})", joined(left, by), joined(right, by))
        }
    }
}

/// Quotes a name for SQL.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes the name of a column where its value is meant. Where no column has that name, SQLite reads a name in double quotes as
/// a string (<https://sqlite.org/quirks.html#dblquote>); this form it refuses.
pub(crate) fn column(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The affinity that SQLite gives to a declared type (<https://sqlite.org/datatype3.html#determination_of_column_affinity>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// Returns the affinity of a declared type.
    pub(crate) fn of(decl_type: &str) -> Self {
        let t = decl_type.to_ascii_uppercase();
        if t.contains("INT") {
            Self::Integer
        } else if t.contains("CHAR") || t.contains("CLOB") || t.contains("TEXT") {
            Self::Text
        } else if t.is_empty() || t.contains("BLOB") || t == "ANY" {
            Self::Blob
        } else if t.contains("REAL") || t.contains("FLOA") || t.contains("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Returns whether a column stores a value as it is: what was read from it, it does.
    pub(crate) fn stores(self, value: &Value<'_>) -> bool {
        let numeric = matches!(self, Self::Integer | Self::Real | Self::Numeric);
        match value {
            Value::Int(_) => !matches!(self, Self::Text | Self::Real),
            Value::Real(bits) => {
                let real = f64::from_bits(bits.0);
                let is_whole = real.fract() == 0.0 && real > i64::MIN as f64 && real < i64::MAX as f64;
                // SQLite stores whole numbers as integers, and there is no negative 0 among these.
                let whole = numeric && is_whole && (self != Self::Real || (real == 0.0 && bits.0 != 0));
                self != Self::Text && !real.is_nan() && !whole
            }
            Value::Text(text) => !numeric || !is_number(text),
            Value::Null | Value::Blob(_) | Value::Big(_) => true,
        }
    }
}

/// Returns whether SQLite takes a text for a number where a column wants numbers: digits, maybe with a sign, a point and
/// an exponent, maybe with spaces around.
fn is_number(text: &[u8]) -> bool {
    let is_space = |byte: &u8| matches!(byte, b' ' | 9..=13);
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let signed = |text: &[u8]| usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let start = text.iter().take_while(|byte| is_space(byte)).count();
    let end = text.iter().rev().take_while(|byte| is_space(byte)).count();
    let Some(mut rest) = text.get(start..text.len() - end) else { return false };
    rest = &rest[signed(rest)..];
    let mut found = digits(rest);
    rest = &rest[found..];
    if let [b'.', after @ ..] = rest {
        let more = digits(after);
        (found, rest) = (found + more, &after[more..]);
    }
    if let (true, [b'e' | b'E', after @ ..]) = (found > 0, rest) {
        let after = &after[signed(after)..];
        let more = digits(after);
        return more > 0 && more == after.len();
    }
    found > 0 && rest.is_empty()
}

/// Converts a value as SQLite does when it stores it in a column of an affinity.
pub(crate) fn converted(db: &Connection, value: &OwnedValue, affinity: Affinity) -> Result<OwnedValue> {
    db.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS _pm_affinity (one INTEGER PRIMARY KEY, i INTEGER, t TEXT, b BLOB, r REAL, n NUMERIC);
         INSERT OR IGNORE INTO temp._pm_affinity (one) VALUES (1)",
    )?;
    let column = match affinity {
        Affinity::Integer => "i",
        Affinity::Text => "t",
        Affinity::Blob => "b",
        Affinity::Real => "r",
        Affinity::Numeric => "n",
    };
    db.prepare_cached(&format!("UPDATE temp._pm_affinity SET {column} = ?1"))?
        .execute([Bind(value.borrow())])?;
    db.prepare_cached(&format!("SELECT {column} FROM temp._pm_affinity"))?
        .query_row([], |row| Ok(OwnedValue::of(from_sql(row.get_ref(0)?))))?
}

/// Runs a query. Returns the first column of its first row, if there is a row.
pub(crate) fn maybe<T: rusqlite::types::FromSql>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Option<T>> {
    use rusqlite::OptionalExtension;
    Ok(db.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?)
}

/// Gives the rows that a query lists, by their tables and keys. It has those after `?1` and `?2`, in that order, from the table
/// `from` on. A few are in memory at a time, and no query is open meanwhile: what is done with one may change the list.
pub(crate) fn each_listed(
    db: &Connection,
    sql: &str,
    from: i64,
    each: &mut dyn FnMut(i64, &[u8]) -> Result<()>,
) -> Result<()> {
    let sql = format!("{sql} LIMIT 64");
    let mut last = (from, Vec::new());
    loop {
        let rows: Vec<(i64, Vec<u8>)> = db
            .prepare_cached(&sql)?
            .query_map((last.0, &last.1), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let Some(end) = rows.last() else { return Ok(()) };
        rows.iter().try_for_each(|(tid, key)| each(*tid, key))?;
        last = end.clone();
    }
}

/// Reads what a number in a `_pm_` table stands for; `damaged` says what is wrong if it stands for nothing.
pub(crate) fn read_number<T: Copy>(
    value: ValueRef<'_>,
    known: &[(i64, T)],
    damaged: &'static str,
) -> FromSqlResult<T> {
    let number = value.as_i64()?;
    let found = known.iter().find(|(n, _)| *n == number).map(|(_, found)| *found);
    found.ok_or_else(|| FromSqlError::other(Error::damaged(damaged)))
}

/// Returns the stream that has this number in the `_pm_` tables.
pub(crate) fn stream_of_number(number: u8) -> Result<Stream> {
    Stream::from_number(number).ok_or_else(|| Error::damaged("a stream of an unknown kind"))
}

/// Returns what stands before the content of a TEXT or BLOB of this length where [`encode`] encodes it.
pub(crate) fn head_of_bytes(text: bool, len: u64) -> Result<Vec<u8>> {
    let mut head = encode(&if text { Value::Text(&[]) } else { Value::Blob(&[]) })?;
    head.pop(); // The length, which is 0.
    let mut number = [0; 10];
    let n =
        packmule_core::wire::put(&mut number, &len).map_err(|_| Error::damaged("a length without room"))?;
    head.extend_from_slice(&number[..n]);
    Ok(head)
}

/// Encodes a value as it is compared: a long one by its length and hash, also if it is at hand.
pub(crate) fn encode_compared(value: Value<'_>) -> Result<Vec<u8>> {
    match value {
        Value::Big(big) => encode(&Value::Big(Big { number: 0, back: 0, ..big })),
        Value::Text(b) | Value::Blob(b) if b.len() > LARGE => {
            let (text, sha256) = (matches!(value, Value::Text(_)), Sha256::digest(b).into());
            encode(&Value::Big(Big { text, number: 0, back: 0, len: b.len() as u64, sha256 }))
        }
        value => encode(&value),
    }
}

/// Encodes a value, so that it can be compared by its bytes.
pub(crate) fn encode(value: &Value<'_>) -> Result<Vec<u8>> {
    let len = match value {
        Value::Text(b) | Value::Blob(b) => b.len(),
        _ => 0,
    };
    let mut buf = vec![0; len + 80];
    let len = packmule_core::wire::put_value(&mut buf, value)
        .map_err(|_| Error::damaged("a value without room"))?;
    buf.truncate(len);
    Ok(buf)
}

/// Puts the name of a column and its value behind others: so a row is kept that is read by its columns' names.
pub(crate) fn push_named(body: &mut Vec<u8>, name: &str, value: &Value<'_>) -> Result<()> {
    body.extend_from_slice(&encode(&Value::Text(name.as_bytes()))?);
    body.extend_from_slice(&encode(value)?);
    Ok(())
}

/// Returns the SQL literal of a value.
pub(crate) fn literal(value: &OwnedValue) -> String {
    match value {
        OwnedValue::Null => "NULL".into(),
        OwnedValue::Int(i) if *i < 0 => format!("({i})"),
        OwnedValue::Int(i) => format!("{i}"),
        OwnedValue::Real(r) if r.is_infinite() => (if *r > 0.0 { "9e999" } else { "(-9e999)" }).into(),
        OwnedValue::Real(r) => format!("({r:?})"),
        OwnedValue::Text(t) => match std::str::from_utf8(t) {
            Ok(text) if !text.contains('\0') => format!("'{}'", text.replace('\'', "''")),
            _ => format!("(CAST({} AS TEXT))", hex_literal(t)),
        },
        OwnedValue::Blob(b) => hex_literal(b),
        // A default is never told so: it stands whole in its definition.
        OwnedValue::Large { .. } => "NULL".into(),
    }
}

/// Returns the SQL literal of a BLOB.
pub(crate) fn hex_literal(bytes: &[u8]) -> String {
    format!("x'{}'", Hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_bytes_is_what_stands_before_them() {
        for len in [0, 1, 127, 128, 300, 70_000] {
            let bytes = vec![7; len];
            for (text, value) in [(true, Value::Text(&bytes)), (false, Value::Blob(&bytes))] {
                let head = head_of_bytes(text, len as u64).unwrap();
                assert_eq!([head, bytes.clone()].concat(), encode(&value).unwrap());
            }
        }
    }

    fn key(value: Value<'_>, collation: Collation) -> Vec<u8> {
        let mut out = Vec::new();
        push_key(&mut out, value, collation).unwrap();
        out
    }

    #[test]
    fn a_key_has_one_form() {
        let b = Collation::Binary;
        assert_eq!(key(Value::Int(1), b), key(Value::real(1.0), b));
        assert_eq!(key(Value::Int(0), b), key(Value::real(-0.0), b));
        assert_ne!(key(Value::real(1.5), b), key(Value::Int(1), b));
        assert_ne!(key(Value::Text(b"1"), b), key(Value::Int(1), b));
        assert_ne!(key(Value::Text(b"a"), b), key(Value::Blob(b"a"), b));
        assert_eq!(key(Value::Text(b"aB"), Collation::NoCase), key(Value::Text(b"Ab"), Collation::NoCase));
        assert_ne!(key(Value::Text(b"aB"), b), key(Value::Text(b"Ab"), b));
        assert_eq!(key(Value::Text(b"a  "), Collation::RTrim), key(Value::Text(b"a"), Collation::RTrim));
        assert_ne!(key(Value::Int(i64::MAX), b), key(Value::real(9.3e18), b));
        let big = key(Value::real(i64::MAX as f64), b);
        assert_eq!(read_key(&big).unwrap(), [OwnedValue::Real(9_223_372_036_854_775_808.0)]);
    }
}
