//! Values as rows and keys have them, read and written without a detour: each of a frame goes through here several times.
//!
//! The form is postcard's of [`Value`]. What is unusual is left to postcard: a value in pieces, and what is none.

use super::{DecodeError, NoRoom, put, take};
use crate::model::{RealBits, Value};

// As postcard numbers the variants of `Value`.
pub(super) const NULL: u8 = 0;
pub(super) const INT: u8 = 1;
pub(super) const REAL: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const BLOB: u8 = 4;
pub(super) const BIG: u8 = 5;

/// Reads a varint in `buf`; returns it and where it ends. `None` if it ends nowhere, or has more than 64 bits.
pub(super) fn varint(buf: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for (n, byte) in buf.get(at..)?.iter().enumerate().take(10) {
        if n == 9 && *byte > 1 {
            return None;
        }
        number |= u64::from(byte & 127) << (7 * n);
        if *byte < 128 {
            return Some((number, at + n + 1));
        }
    }
    None
}

/// Writes a varint; returns where it ends.
pub(super) fn put_varint(buf: &mut [u8], at: usize, mut number: u64) -> Option<usize> {
    for (n, byte) in buf.get_mut(at..)?.iter_mut().enumerate() {
        if number < 128 {
            *byte = number as u8;
            return Some(at + n + 1);
        }
        *byte = number as u8 | 128;
        number >>= 7;
    }
    None
}

pub(super) const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

pub(super) const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Reads the value at the front of `input`: the same as [`take`], and faster.
///
/// # Errors
/// [`DecodeError`] if it is none.
pub fn take_value<'a>(input: &mut &'a [u8]) -> Result<Value<'a>, DecodeError> {
    match usual(input) {
        Some((value, end)) => {
            *input = input.get(end..).ok_or(DecodeError::Short)?;
            Ok(value)
        }
        None => take(input),
    }
}

/// Passes over the value at the front of `input`: it refuses what [`take_value`] does.
///
/// # Errors
/// [`DecodeError`] if it is none.
pub(super) fn skip_value(input: &mut &[u8]) -> Result<(), DecodeError> {
    match end_of_usual(input).and_then(|end| input.get(end..)) {
        Some(rest) => {
            *input = rest;
            Ok(())
        }
        None => take_value(input).map(|_| ()),
    }
}

fn end_of_usual(buf: &[u8]) -> Option<usize> {
    Some(match *buf.first()? {
        NULL => 1,
        INT => varint(buf, 1)?.1,
        REAL => 9,
        TEXT | BLOB => {
            let (len, start) = varint(buf, 1)?;
            start.checked_add(usize::try_from(len).ok()?)?
        }
        _ => return None,
    })
}

fn usual(buf: &[u8]) -> Option<(Value<'_>, usize)> {
    Some(match *buf.first()? {
        NULL => (Value::Null, 1),
        INT => {
            let (number, end) = varint(buf, 1)?;
            (Value::Int(unzigzag(number)), end)
        }
        REAL => (Value::Real(RealBits(u64::from_le_bytes(*buf.get(1..)?.first_chunk()?))), 9),
        kind @ (TEXT | BLOB) => {
            let (len, start) = varint(buf, 1)?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            let bytes = buf.get(start..end)?;
            (if kind == TEXT { Value::Text(bytes) } else { Value::Blob(bytes) }, end)
        }
        _ => return None,
    })
}

/// Writes a value at the front of `buf`; returns its length: the same as [`put`], and faster.
///
/// # Errors
/// [`NoRoom`].
pub fn put_value(buf: &mut [u8], value: &Value<'_>) -> Result<usize, NoRoom> {
    put_usual(buf, value).map_or_else(|| put(buf, value), Ok)
}

fn put_usual(buf: &mut [u8], value: &Value<'_>) -> Option<usize> {
    let first = buf.first_mut()?;
    match *value {
        Value::Null => {
            *first = NULL;
            Some(1)
        }
        Value::Int(number) => {
            *first = INT;
            put_varint(buf, 1, zigzag(number))
        }
        Value::Real(RealBits(bits)) => {
            *first = REAL;
            *buf.get_mut(1..)?.first_chunk_mut()? = bits.to_le_bytes();
            Some(9)
        }
        Value::Text(bytes) | Value::Blob(bytes) => {
            *first = if matches!(value, Value::Text(_)) { TEXT } else { BLOB };
            let start = put_varint(buf, 1, bytes.len() as u64)?;
            buf.get_mut(start..start + bytes.len())?.copy_from_slice(bytes);
            Some(start + bytes.len())
        }
        Value::Big(_) => None,
    }
}
