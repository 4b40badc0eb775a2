//! Why a session ends, and what the peer hears of it.

use core::fmt;

use super::{Log, State};
use crate::model::DeviceId;
use crate::wire::{DecodeError, NoRoom, Refusal};

/// Why a session came to its end. `E`: why the log refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// The log refused; the peer hears [`Log::refusal`].
    Log(E),
    /// The peer is not trusted here.
    Untrusted {
        /// Who it is.
        device: DeviceId,
        /// It was trusted once.
        revoked: bool,
    },
    /// The peer went no further.
    Refused {
        /// Why.
        why: Refusal,
        /// Whom it is about.
        about: DeviceId,
        /// It is about this device.
        us: bool,
    },
    /// Both ends have one identity.
    Itself {
        /// What came is what this end sent itself: no clone of the device is there, only an echo.
        echo: bool,
    },
    /// This device was a divergent history of its identity and has taken a new one: begin a new session.
    NewIdentity {
        /// Who it was.
        was: DeviceId,
    },
    /// The ends have no version in common.
    Version {
        /// The peer's highest.
        theirs: u8,
    },
    /// The peer did not prove that it has the key of its certificate.
    Proof,
    /// The peer's certificate or vector is damaged.
    Damaged(DecodeError),
    /// The peer's vector is not signed by the peer.
    Signature,
    /// The peer sent what makes no sense.
    Protocol(&'static str),
    /// The peer sent what this session's state does not allow.
    OutOfTurn(State),
    /// The peer sent a record for which this device has no room.
    TooLong {
        /// The length of its body, in bytes.
        len: usize,
    },
    /// This device has no room to send what it must.
    NoRoom,
}

impl<E> Error<E> {
    /// Returns what the peer hears, and whom it is about if not the peer itself; nothing where it was the peer that
    /// refused.
    pub(super) fn refusal<L: Log<Error = E>>(&self) -> Option<(Refusal, Option<DeviceId>)> {
        Some(match self {
            Self::Refused { .. } => return None,
            Self::Log(error) => L::refusal(error),
            Self::Untrusted { device, revoked: false } => (Refusal::Untrusted, Some(*device)),
            Self::Untrusted { device, revoked: true } => (Refusal::Revoked, Some(*device)),
            Self::Itself { .. } => (Refusal::Itself, None),
            Self::NewIdentity { was } => (Refusal::NewIdentity, Some(*was)),
            Self::Version { .. } => (Refusal::Version, None),
            Self::Proof | Self::Damaged(_) | Self::Signature | Self::Protocol(_) | Self::OutOfTurn(_) => {
                (Refusal::Damaged, None)
            }
            Self::TooLong { .. } | Self::NoRoom => (Refusal::Failed, None),
        })
    }
}

impl<E> From<NoRoom> for Error<E> {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(e) => e.fmt(f),
            Self::Untrusted { device, revoked: false } => {
                write!(f, "the device {device} is not trusted here")
            }
            Self::Untrusted { device, revoked: true } => {
                write!(f, "the certificate of the device {device} was revoked here")
            }
            Self::Refused { why, about, .. } => write!(f, "the peer refuses ({why:?}; device {about})"),
            Self::Itself { .. } => f.write_str("both ends have the same identity"),
            Self::NewIdentity { was } => {
                write!(f, "this device was a divergent history of {was} and has a new identity")
            }
            Self::Version { theirs } => {
                write!(f, "the peer speaks version {theirs}, which is not known here")
            }
            Self::Proof => f.write_str("the peer could not prove that it is who it says"),
            Self::Damaged(e) => write!(f, "the peer's description of itself is damaged: {e}"),
            Self::Signature => f.write_str("the peer's vector is not signed by the peer"),
            Self::Protocol(what) => write!(f, "the peer sent what makes no sense ({what})"),
            Self::OutOfTurn(state) => write!(f, "the peer sent what is out of turn in {state:?}"),
            Self::TooLong { len } => {
                write!(f, "the peer sent {len} bytes at once, for which there is no room")
            }
            Self::NoRoom => f.write_str("there is no room to send what is due"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Log(e) => Some(e),
            _ => None,
        }
    }
}
