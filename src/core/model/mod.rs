//! Ids and values: what everything else talks about.
//!
//! Imports nothing of this crate.

mod id;
mod value;

pub use id::{DeviceId, ParseIdError, Stream};
pub use value::{Big, RealBits, Value};

/// Wall time in milliseconds since 1970-01-01 00:00 UTC, as the device believed it.
///
/// It is shown to people, and compared only between concurrent versions.
pub type WallMs = i64;
