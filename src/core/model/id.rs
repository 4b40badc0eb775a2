//! Who wrote: device ids and the streams of a device's log.

use core::fmt;
use core::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{Hex, decode_hex};

/// A device's identity: the first 16 bytes of SHA-256("packmule/1 device" ‖ public key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DeviceId(pub [u8; 16]);

impl DeviceId {
    /// Returns the id that belongs to an ed25519 public key.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"packmule/1 device");
        hash.update(public_key);
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// Returns the first 4 bytes: enough to tell the devices of a fleet apart on a screen.
    pub fn short(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

/// On the wire it is 16 bytes; where people read it too, 32 hexadecimal digits.
impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            heapless::String::<32>::deserialize(from)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 16]>::deserialize(from).map(Self)
        }
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device id is 32 hexadecimal digits")
    }
}

impl FromStr for DeviceId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut id = [0; 16];
        decode_hex(text, &mut id).map_err(|_| ParseIdError)?;
        Ok(Self(id))
    }
}

/// One of the two streams of a device's log, each with its own sequence numbers and hash chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Stream {
    /// Rows of shared tables: every device receives it.
    #[serde(rename = "shared")]
    Shared,
    /// Rows of per-device tables: only bases receive it.
    #[serde(rename = "per-device")]
    PerDevice,
}

impl Stream {
    /// Both, in the order of their numbers on the wire.
    pub const ALL: [Stream; 2] = [Stream::Shared, Stream::PerDevice];

    /// Returns the number on the wire: 0 shared, 1 per-device.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the author's other stream.
    pub const fn other(self) -> Self {
        match self {
            Stream::Shared => Stream::PerDevice,
            Stream::PerDevice => Stream::Shared,
        }
    }

    /// Returns the stream with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Stream::Shared),
            1 => Some(Stream::PerDevice),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn id_text_round_trips() {
        let id = DeviceId::of_key(&[7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xyz".parse::<DeviceId>(), Err(ParseIdError));
        assert_eq!("é".repeat(16).parse::<DeviceId>(), Err(ParseIdError));
    }
}
