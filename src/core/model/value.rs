//! SQLite's values, exactly: five storage classes, any bytes.

use serde::{Deserialize, Serialize};

/// A value of a row, borrowed from the bytes that it was decoded from.
///
/// Equality is that of the content: reals by their bits, so that -0.0 is not 0.0, and text by its
/// bytes, which need not be UTF-8 and may hold NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// INTEGER.
    Int(i64),
    /// REAL, as its IEEE 754 bits.
    Real(RealBits),
    /// TEXT, in UTF-8 as far as the application kept to it.
    Text(#[serde(serialize_with = "as_bytes")] &'a [u8]),
    /// BLOB.
    Blob(#[serde(serialize_with = "as_bytes")] &'a [u8]),
    /// A TEXT or BLOB that is too large for the frame: it came before, in pieces.
    Big(Big),
}

/// Writes it as one run of bytes, not as a sequence of numbers: the same on the wire, and much faster.
fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// The bits of a REAL; on the wire 8 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RealBits(pub u64);

impl Serialize for RealBits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from_bits(self.0))
    }
}

impl<'de> Deserialize<'de> for RealBits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|real| Self(real.to_bits()))
    }
}

/// Where the pieces of a large value are, and what they add up to.
///
/// Two of them are the same content exactly when [`Big::same_content`] says so: where the pieces
/// are does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Big {
    /// TEXT, else BLOB.
    pub text: bool,
    /// The number of the value in its group, from 0: the pieces carry it.
    pub number: u32,
    /// How many frames before the frame of the row the first piece is.
    pub back: u32,
    /// Bytes in all.
    pub len: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

impl Big {
    /// Returns whether both stand for the same bytes of the same storage class.
    pub fn same_content(&self, other: &Self) -> bool {
        (self.text, self.len, self.sha256) == (other.text, other.len, other.sha256)
    }
}

impl Value<'_> {
    /// Makes a REAL of this number.
    pub fn real(number: f64) -> Self {
        Value::Real(RealBits(number.to_bits()))
    }

    /// Returns whether both are the same content.
    pub fn same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Big(a), Value::Big(b)) => a.same_content(b),
            _ => self == other,
        }
    }
}
