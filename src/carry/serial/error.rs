//! Why a line came to its end, in words; what to do next is data.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::carry::session;
use crate::engine::Hint;

/// Why a line came to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The port cannot be used.
    Port(io::Error),
    /// The session came to its end.
    Session(session::Error),
    /// Nobody answered for so long.
    Nobody(Duration),
    /// The other end answered, and then not for so long.
    Silent(Duration),
    /// The other end speaks no version of the link that this one speaks.
    Incompatible,
    /// The other end ended before all was done.
    Ended,
    /// [`Stop::stop`](super::Stop::stop) was called.
    Stopped,
}

impl Error {
    /// Returns what a person can do about it, where that is more than the message says.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Session(e) => e.hint(),
            Self::Nobody(_) => Some(Hint::CheckTheOtherEnd),
            Self::Port(e) if e.kind() == io::ErrorKind::PermissionDenied => Some(Hint::JoinThePortsGroup),
            Self::Port(e) if e.kind() == io::ErrorKind::ResourceBusy => Some(Hint::FreeThePort),
            _ => None,
        }
    }
}

impl From<session::Error> for Error {
    fn from(error: session::Error) -> Self {
        Self::Session(error)
    }
}

impl From<crate::engine::Error> for Error {
    fn from(error: crate::engine::Error) -> Self {
        Self::Session(error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(e) if e.kind() == io::ErrorKind::NotFound => {
                f.write_str("there is no such port: is the cable or the adaptor plugged in?")
            }
            Self::Port(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                f.write_str("you may not use this port: become a member of its group")
            }
            Self::Port(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                f.write_str("another program has the port open: a terminal program, or a login on it")
            }
            Self::Port(e) => write!(f, "the port cannot be used: {e}"),
            Self::Session(e) => e.fmt(f),
            Self::Nobody(time) => write!(f, "nobody answered within {} s", time.as_secs()),
            Self::Silent(time) => write!(
                f,
                "the other end was not heard for {} s; what came is kept, and what is missing comes when it is run again",
                time.as_secs()
            ),
            Self::Incompatible => f.write_str("the other end speaks another version of the line's protocol: update Packmule"),
            Self::Ended => f.write_str(
                "the other end stopped before all was done; what came is kept, and what is missing comes when it is run again",
            ),
            Self::Stopped => f.write_str("stopped; what came is kept, and what is missing comes when it is run again"),
        }
    }
}

impl std::error::Error for Error {}
