//! How the reports look when they are serialised, in JSON for instance: as in what the program prints.
//!
//! Device ids and streams have names of their own in [`packmule_core::model`]. Times are ISO 8601, UTC; bytes are
//! hexadecimal digits; a row is its values by column.

use std::collections::BTreeMap;
use std::fmt::Display;

use packmule_core::model::{DeviceId, Hex, Iso, Stream, WallMs};
use packmule_core::wire::Position;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::engine::store::value::OwnedValue;

/// Serialises an enum as its word.
macro_rules! as_word {
    ($kind:ty, $word:ident) => {
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.serialize_str(self.$word())
            }
        }
    };
}
pub(crate) use as_word;

/// Something that is serialised as the text that it shows.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// A BLOB is `{"hex": …}`, a long TEXT or BLOB `{"bytes": …, "sha256": …}`, text that is not UTF-8 has `"text": true` too, an infinity is `{"real": …}`.
impl Serialize for OwnedValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Int(i) => to.serialize_i64(*i),
            Self::Real(r) if r.is_finite() => to.serialize_f64(*r),
            Self::Real(r) => to.collect_map([("real", if *r > 0.0 { "Infinity" } else { "-Infinity" })]),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => to.serialize_str(text),
                Err(_) => {
                    let mut map = to.serialize_map(Some(2))?;
                    map.serialize_entry("hex", &Shown(Hex(text)))?;
                    map.serialize_entry("text", &true)?;
                    map.end()
                }
            },
            Self::Blob(blob) => to.collect_map([("hex", Shown(Hex(blob)))]),
            Self::Large { text, bytes, sha256 } => {
                let mut map = to.serialize_map(None)?;
                map.serialize_entry("bytes", bytes)?;
                map.serialize_entry("sha256", &Shown(Hex(sha256)))?;
                if *text {
                    map.serialize_entry("text", &true)?;
                }
                map.end()
            }
        }
    }
}

/// Serialises values by their columns' names.
pub(crate) fn row<S: Serializer>(row: &[(String, OwnedValue)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(row.iter().map(|(name, value)| (name, value)))
}

/// Serialises a time.
pub(crate) fn time<S: Serializer>(at: &WallMs, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Iso(*at))
}

/// Serialises a time that may not be known.
pub(crate) fn time_if_any<S: Serializer>(at: &Option<WallMs>, to: S) -> Result<S::Ok, S::Error> {
    at.map(|at| Shown(Iso(at))).serialize(to)
}

/// Serialises bytes as hexadecimal digits.
pub(crate) fn digits<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Hex(bytes))
}

/// Serialises a key that may not be there as hexadecimal digits.
pub(crate) fn digits_if_any<S: Serializer>(key: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|key| Shown(Hex(key))).serialize(to)
}

/// Serialises an error as its message.
pub(crate) fn text<S: Serializer>(error: &Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(Shown).serialize(to)
}

/// The device that holds back the most frames, and how many.
#[derive(Serialize)]
struct HeldBack<'a> {
    device: &'a str,
    frames: u64,
}

/// Serialises which device holds back the most frames.
pub(crate) fn held_back_by<S: Serializer>(by: &Option<(String, u64)>, to: S) -> Result<S::Ok, S::Error> {
    by.as_ref().map(|(device, frames)| HeldBack { device, frames: *frames }).serialize(to)
}

/// Up to where a stream is there.
#[derive(Serialize)]
struct Applied {
    device: DeviceId,
    stream: Stream,
    frames: u64,
}

/// Serialises up to where streams are there.
pub(crate) fn positions<S: Serializer>(
    positions: &BTreeMap<(DeviceId, Stream), u64>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(positions.iter().map(|(&(device, stream), &frames)| Applied { device, stream, frames }))
}

/// Serialises up to where streams were at a bundle's sender.
pub(crate) fn vector<S: Serializer>(vector: &[Position], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(vector.iter().map(|at| Applied { device: at.author, stream: at.stream, frames: at.seq }))
}

/// A certificate in a bundle.
#[derive(Serialize)]
struct Certificate<'a> {
    fingerprint: DeviceId,
    name: &'a str,
    base: bool,
    fleet: bool,
}

/// Serialises the certificates of a bundle.
pub(crate) fn certificates<S: Serializer>(
    devices: &[(DeviceId, String, bool, bool)],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(devices.iter().map(|(id, name, base, fleet)| Certificate {
        fingerprint: *id,
        name,
        base: *base,
        fleet: *fleet,
    }))
}
