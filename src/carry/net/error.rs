//! Why a connection came to its end, in words; what to do next is data.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::carry::channel::Broken;
use crate::carry::session;
use crate::engine::Hint;

/// Why a connection came to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The other end cannot be reached.
    Unreachable(io::Error),
    /// This address cannot be listened on.
    Listen(io::Error),
    /// The connection broke off.
    Broken(io::Error),
    /// A server for HTTP answered, with this status, and opened no WebSocket, or knows of no session.
    Http(u16),
    /// The command of an `exec:` address ended before anything was said.
    Command(ExitStatus),
    /// The session came to its end.
    Session(session::Error),
    /// Nobody said who it is within so long.
    Nobody(Duration),
    /// Nobody on this network says that it is of this fleet; so many others are there.
    NotFound(usize),
    /// The other end was there, and then not heard for so long.
    Silent(Duration),
    /// The other end has taken nothing for so long.
    Stuck(Duration),
    /// The other end is heard, and the session has not got on for so long.
    Unanswered(Duration),
    /// What answers is no Packmule.
    Foreign,
    /// One end encrypts and the other does not.
    Clear {
        /// It is the other end that does not.
        theirs: bool,
    },
    /// What came is not what the other end sent.
    Tampered,
    /// The other end has as many sessions as it takes.
    Busy,
    /// The other end ended before all was done.
    Ended,
    /// Another connection of the same device took its place.
    Replaced,
    /// [`Stop::stop`](crate::carry::Stop::stop) was called.
    Stopped,
}

impl Error {
    /// Returns what a person can do about it, where that is more than the message says.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Session(e) => e.hint(),
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

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Foreign => Self::Foreign,
            Broken::Clear { theirs } => Self::Clear { theirs },
            Broken::Tampered => Self::Tampered,
            Broken::Random(e) => Self::Broken(e),
        }
    }
}

/// What came is kept, as after every session.
const RUN_AGAIN: &str = "what came is kept, and what is missing comes when it is run again";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(e) if e.kind() == io::ErrorKind::ConnectionRefused => f.write_str(
                "nobody listens there: is `packmule serve` running at the other end, and does its --listen name this port, and \
                 an address that other machines reach?",
            ),
            Self::Unreachable(e) => write!(f, "it cannot be reached: {e}"),
            Self::Listen(e) if e.kind() == io::ErrorKind::AddrInUse => {
                f.write_str("another program listens there")
            }
            Self::Listen(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {
                f.write_str("this machine has no such address: 0.0.0.0 or [::] stands for all that it has")
            }
            Self::Listen(e) => write!(f, "it cannot be listened on: {e}"),
            Self::Broken(e) => write!(f, "the connection broke off ({e}); {RUN_AGAIN}"),
            Self::Http(status) => write!(
                f,
                "a web server answers there, with status {status}, and no Packmule: is the path right, and does a proxy pass it on, a \
                 WebSocket as such?"
            ),
            Self::Command(status) => write!(f, "the command ended before it said anything ({status})"),
            Self::Session(e) => e.fmt(f),
            Self::Nobody(time) => write!(f, "nobody answered within {} s", time.as_secs()),
            Self::NotFound(others) => {
                f.write_str("nobody on this network says that it is of this fleet")?;
                if *others > 0 {
                    write!(f, " (others are there: {others})")?;
                }
                f.write_str(": does `packmule serve` run there with --listen [::]:7225 --announce?")
            }
            Self::Silent(time) => {
                write!(f, "the other end was not heard for {} s; {RUN_AGAIN}", time.as_secs())
            }
            Self::Stuck(time) => {
                write!(f, "the other end has taken nothing for {} s; {RUN_AGAIN}", time.as_secs())
            }
            Self::Unanswered(time) => write!(
                f,
                "the other end is there, and has not answered for {} s: a proxy or firewall between swallows what one end \
                 sends, or the program there hangs; {RUN_AGAIN}",
                time.as_secs()
            ),
            Self::Foreign => f.write_str("what answers there does not speak Packmule's protocol"),
            Self::Clear { theirs: true } => f.write_str(
                "the other end runs with --plain, and this one does not: nothing was sent; leave it away there",
            ),
            Self::Clear { theirs: false } => f.write_str(
                "this end runs with --plain, and the other one does not: nothing was sent; leave it away here",
            ),
            Self::Tampered => write!(
                f,
                "what came is not what the other end sent: somebody or something on the way changed it; {RUN_AGAIN}"
            ),
            Self::Busy => write!(f, "busy: {} sessions are running there; try again", super::SESSIONS_MAX),
            Self::Ended => write!(f, "the other end stopped before all was done; {RUN_AGAIN}"),
            Self::Replaced => f.write_str("the same device has come again, by another connection"),
            Self::Stopped => write!(f, "stopped; {RUN_AGAIN}"),
        }
    }
}

impl std::error::Error for Error {}
