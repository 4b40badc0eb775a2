use core::fmt;

/// Bytes that are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeError {
    /// The input ends before the item does.
    Short,
    /// The check sum does not match: the bytes were damaged on the way.
    Crc,
    /// Written in a format version that this build does not read.
    Version(u16),
    /// Not in the format at all, or a field has an impossible value; what it was.
    Malformed(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends too early"),
            Self::Crc => f.write_str("its check sum does not match: it was damaged on the way"),
            Self::Version(v) if *v > super::FORMAT_VERSION as u16 => {
                write!(f, "it is in format {v}, which this Packmule does not read: update Packmule")
            }
            Self::Version(v) => {
                write!(
                    f,
                    "it is in format {v}, which is older than format {}: write it again",
                    super::FORMAT_VERSION
                )
            }
            Self::Malformed(what) => write!(f, "it has {what}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The caller's buffer is too small for the item; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is too small")
    }
}

impl core::error::Error for NoRoom {}
