//! Ids and values: what everything else talks about; hexadecimal digits, times and the check sum.
//!
//! Imports nothing of this crate.

mod crc32;
mod hex;
mod id;
mod time;
mod unseen;
mod value;

pub(crate) use crc32::CRC32;
pub use crc32::crc32;
pub use hex::{Hex, ParseHexError, decode_hex};
pub use id::{DeviceId, ParseIdError, Stream};
pub use time::Iso;
pub use unseen::is_unseen;
pub use value::{Big, RealBits, Value};

/// Wall time in milliseconds since 1970-01-01 00:00 UTC, as the device believed it.
///
/// It is shown to people, and compared only between concurrent versions.
pub type WallMs = i64;
