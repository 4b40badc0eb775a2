//! Why a line came to its end, in words; what to do next is data.

use std::fmt;
use std::io;
use std::time::Duration;

use packmule_core::link::Cause;

use crate::carry::channel::Broken;
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
    /// Nobody answered for so long. The cause says what came in place of an answer.
    Nobody(Duration, Cause),
    /// The other end answered, and then not for so long.
    Silent(Duration),
    /// Both ends hear each other, and for so long not one byte got through whole.
    Stalled(Duration, Cause),
    /// All gets through, and the session has not got on for so long.
    Unanswered(Duration),
    /// The other end speaks no version of the link that this one speaks.
    Incompatible,
    /// One end encrypts and the other does not.
    Clear {
        /// It is the other end that does not.
        theirs: bool,
        /// It knows of no encryption on lines.
        is_older: bool,
    },
    /// What came is not Packmule's.
    Foreign,
    /// What came is not what the other end sent.
    Tampered,
    /// The other end ended before all was done.
    Ended,
    /// [`Stop::stop`](crate::carry::Stop::stop) was called.
    Stopped,
}

impl Error {
    /// Returns what a person can do about it, where that is more than the message says.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Session(e) => e.hint(),
            Self::Nobody(_, Cause::Nothing) => Some(Hint::CheckTheOtherEnd),
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

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Foreign => Self::Foreign,
            Broken::Clear { theirs } => Self::Clear { theirs, is_older: false },
            Broken::Tampered => Self::Tampered,
            Broken::Random(e) => Self::Port(e),
        }
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
            Self::Nobody(time, cause) => {
                write!(f, "nobody answered within {} s{}", time.as_secs(), in_place_of_an_answer(*cause))
            }
            Self::Unanswered(time) => write!(
                f,
                "the other end's line is there, and its program has not answered for {} s: it hangs, or another program holds \
                 its database; what came is kept, and what is missing comes when it is run again",
                time.as_secs()
            ),
            Self::Stalled(time, cause) => write!(
                f,
                "the other end is there, and nothing got through for {} s: {}; what came before is kept",
                time.as_secs(),
                what_the_line_does(*cause)
            ),
            Self::Silent(time) => write!(
                f,
                "the other end was not heard for {} s; what came is kept, and what is missing comes when it is run again",
                time.as_secs()
            ),
            Self::Incompatible => f.write_str("the other end speaks another version of the line's protocol: update Packmule"),
            Self::Clear { theirs: true, is_older: true } => f.write_str(
                "the other end does not encrypt on a line, and nothing was sent: update Packmule there, or run this end with \
                 --plain; then whoever reaches the line can read along",
            ),
            Self::Clear { theirs: true, .. } => f.write_str(
                "the other end runs with --plain, and this one does not: nothing was sent; leave it away there",
            ),
            Self::Clear { .. } => f.write_str(
                "this end runs with --plain, and the other one does not: nothing was sent; leave it away here",
            ),
            Self::Foreign => f.write_str("what came over the line is not Packmule's protocol"),
            Self::Tampered => f.write_str(
                "what came is not what the other end sent: somebody or something on the line changed it; what came before \
                 is kept, and what is missing comes when it is run again",
            ),
            Self::Ended => f.write_str(
                "the other end stopped before all was done; what came is kept, and what is missing comes when it is run again",
            ),
            Self::Stopped => f.write_str("stopped; what came is kept, and what is missing comes when it is run again"),
        }
    }
}

impl std::error::Error for Error {}

/// Says what came where nobody answered.
fn in_place_of_an_answer(cause: Cause) -> String {
    match cause {
        Cause::Nothing => String::new(),
        Cause::Text => {
            ": the other end sends text, such as a login prompt: stop the login or console on that port \
             (for instance `sudo systemctl disable --now serial-getty@ttyS0`) and run `packmule serve` there"
                .into()
        }
        Cause::Noise => {
            ": bytes come that make no sense: use the same --baud at both ends, and look whether another program \
             has the port there, and at the cable's ground"
                .into()
        }
        cause => format!(": {}", what_the_line_does(cause)),
    }
}

/// Says what a line does to bytes.
fn what_the_line_does(cause: Cause) -> String {
    match cause {
        Cause::Nothing => "the line is cut one way: look at the cable".into(),
        Cause::FlowControl => {
            "the line swallows XON and XOFF: turn software flow control off, in the adaptor or radio too".into()
        }
        Cause::SevenBits => "the line carries 7 bits to a byte: set it to 8 data bits, no parity (8N1)".into(),
        Cause::LineEnds => {
            "the line changes CR and LF: something on it takes the bytes for text; make it transparent".into()
        }
        Cause::Swallows(value) => {
            format!("the byte 0x{value:02x} never comes through: something on the line takes it for a command")
        }
        Cause::Text => "the other end sends text besides: stop the login or console on that port".into(),
        Cause::Noise | Cause::Unknown => {
            "the line loses or changes nearly every packet: try a lower --baud, a shorter cable, or another one".into()
        }
    }
}
