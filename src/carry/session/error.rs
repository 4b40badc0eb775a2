//! Why a session ends, in words; what to do next is data.

use std::fmt;

use packmule_core::model::DeviceId;
use packmule_core::session::Error as Ended;
use packmule_core::wire::Refusal;

use super::log::Kept;
use crate::engine::{BundleProblem, Engine, Error as EngineError, Hint, UntrustedDevice, label};

/// Why a session came to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The database refused; the peer hears that something failed.
    Engine(EngineError),
    /// The peer is not trusted here.
    UntrustedDevice(UntrustedDevice),
    /// The peer went no further.
    Refused {
        /// Who, once it had proved who it is.
        by: Option<(DeviceId, String)>,
        /// Why.
        why: Refusal,
        /// Whom it is about.
        about: DeviceId,
        /// It is about us.
        us: bool,
        /// This device belongs to no fleet yet, and has asked that of the peer for admission.
        asked: bool,
    },
    /// Both ends are the same device.
    Itself,
    /// This device was a second history of another, and has taken a new identity: begin a new session.
    NewIdentity {
        /// Who it was.
        was: DeviceId,
        /// What it is called now.
        now: String,
    },
    /// The ends have no version in common.
    Version {
        /// The peer's highest.
        theirs: u8,
    },
    /// The peer did not prove that it has the key of its certificate.
    Proof,
    /// The peer sent what makes no sense.
    Protocol(&'static str),
}

impl Error {
    /// Returns what the machine's error means, with the names that the engine knows.
    pub(super) fn new(ended: Ended<EngineError>, engine: &mut Engine, kept: &mut Kept) -> Self {
        let by = kept.peer.as_ref().map(|peer| (peer.id, peer.name.clone()));
        match ended {
            Ended::Log(e) => Self::Engine(e),
            Ended::Untrusted { device, revoked } => {
                let here = UntrustedDevice { id: device, name: None, revoked };
                let device = kept.untrusted.take().unwrap_or(here);
                if kept.asks {
                    let base = engine.identity().base;
                    return EngineError::AsksForAdmission { devices: vec![device], base }.into();
                }
                Self::UntrustedDevice(device)
            }
            Ended::Refused { why: Refusal::Untrusted, about, us: false } => match engine.is_revoked(about) {
                Ok(revoked) => {
                    let why = if revoked { Refusal::Revoked } else { Refusal::Untrusted };
                    Self::Refused { by, why, about, us: false, asked: false }
                }
                Err(e) => Self::Engine(e),
            },
            Ended::Refused { why, about, us } => {
                let ours = engine.identity();
                let waits = !ours.admitted && (kept.only_admission || ours.fleet.is_some());
                let asked = us && waits && why == Refusal::Untrusted;
                Self::Refused { by, why, about, us, asked }
            }
            Ended::Itself { echo: true } => Self::Itself,
            Ended::Itself { echo: false } => engine.record_clone().err().map_or(Self::Itself, Self::Engine),
            Ended::NewIdentity { was } => {
                Self::NewIdentity { was, now: label(engine.identity().id, Some(&engine.identity().name)) }
            }
            Ended::Version { theirs } => Self::Version { theirs },
            Ended::Proof => Self::Proof,
            Ended::Damaged(e) => EngineError::bundle(0, e).into(),
            Ended::Signature => {
                let name = by.map_or_else(|| "the other end".into(), |(_, name)| name);
                EngineError::bundle(0, BundleProblem::Signature(name)).into()
            }
            Ended::Protocol(what) => Self::Protocol(what),
            Ended::OutOfTurn(_) => Self::Protocol("a message out of its turn"),
            Ended::NoRoom => EngineError::Usage("a record is too long to be sent".into()).into(),
            // The buffers here grow.
            Ended::TooLong { .. } | _ => Self::Protocol("a record that is too long"),
        }
    }

    /// Returns what a person can do about it, where that is more than the message says.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            // What came over a line cannot be exported again: it comes again with the next session.
            Self::Engine(EngineError::Bundle { .. }) => None,
            Self::Engine(e) => e.hint(),
            Self::UntrustedDevice(s) if !s.revoked => Some(Hint::Trust { devices: vec![s.id] }),
            Self::Refused { asked: true, about, .. } => Some(Hint::AdmitThere { device: *about }),
            Self::Refused { why: Refusal::Untrusted, about, .. } => Some(Hint::TrustThere { device: *about }),
            _ => None,
        }
    }

    /// Returns whether one of the ends has taken a new identity, so that a new session gets further.
    pub fn is_new_identity(&self) -> bool {
        matches!(self, Self::NewIdentity { .. } | Self::Refused { why: Refusal::NewIdentity, .. })
    }

    /// Returns whether a new session is to be begun by who calls: one of the ends has taken a new identity, or the peer may
    /// take one by what it was shown here, by a base. That is tried once; `shown` remembers it.
    #[cfg(any(feature = "serial", feature = "net"))]
    pub(crate) fn begins_again(&self, shown: &mut bool) -> bool {
        let shows = matches!(self, Self::Engine(EngineError::Twin { .. }));
        self.is_new_identity() || shows && !std::mem::replace(shown, true)
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<Box<EngineError>> for Error {
    fn from(error: Box<EngineError>) -> Self {
        Self::Engine(*error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(EngineError::Untrusted(untrusted)) => match &untrusted[..] {
                [one] => {
                    let whose = if one.revoked { "revoked" } else { "not trusted here" };
                    write!(f, "the other end has frames of a device that is {whose}: {}", named(one))
                }
                _ => write!(f, "{}", EngineError::Untrusted(untrusted.clone())),
            },
            Self::Engine(EngineError::Bundle { cause, .. }) => {
                write!(
                    f,
                    "what came over the line is wrong: {}",
                    cause.to_string().replace("bundle", "stream")
                )
            }
            Self::Engine(e) => e.fmt(f),
            Self::UntrustedDevice(s) if s.revoked => {
                write!(f, "the other end is a device whose certificate was revoked here: {}", named(s))
            }
            Self::UntrustedDevice(s) => write!(f, "the other end is not trusted here: {}", named(s)),
            Self::Refused { by, why, about, us, asked } => {
                let by = by
                    .as_ref()
                    .map_or("the other end".into(), |(id, name)| format!("{name} (fingerprint {id})"));
                if *asked {
                    return write!(
                        f,
                        "{by} is of a fleet that has not admitted this device yet (fingerprint {about}), and was asked to"
                    );
                }
                write_refusal(f, &by, *why, (*about, *us))
            }
            Self::NewIdentity { was, now } => write!(
                f,
                "this database was a second history of the device {was}, a clone or restored from a backup: its new identity is \
                 {now}, with all that it wrote"
            ),
            Self::Itself => {
                f.write_str("both ends are the same device, or one is a clone of the other: nothing was done")
            }
            Self::Version { theirs } => {
                write!(
                    f,
                    "the other end speaks version {theirs} of the session, which is not known here: update Packmule"
                )
            }
            Self::Proof => f.write_str("the other end could not prove that it is who it says it is"),
            Self::Protocol(what) => write!(f, "the other end sent what makes no sense ({what})"),
        }
    }
}

/// Writes why the other end, `by`, goes no further; `about`: whom it is about, and whether that is this device.
fn write_refusal(
    f: &mut fmt::Formatter<'_>,
    by: &str,
    why: Refusal,
    (about, us): (DeviceId, bool),
) -> fmt::Result {
    match (why, us) {
        (Refusal::Untrusted, true) => {
            write!(f, "{by} does not trust this device (fingerprint {about})")
        }
        (Refusal::Revoked, true) => {
            write!(f, "{by} has revoked this device's certificate (fingerprint {about})")
        }
        (Refusal::Untrusted, false) => {
            write!(f, "{by} does not trust a device of which frames are here (fingerprint {about})")
        }
        (Refusal::Revoked, false) => {
            write!(f, "{by} takes no frames of a revoked device, and some are here (fingerprint {about})")
        }
        (Refusal::Itself, _) => fmt::Display::fmt(&Error::Itself, f),
        (Refusal::Version, _) => write!(f, "{by} speaks another version: update Packmule"),
        (Refusal::Twin, _) => write!(
            f,
            "{by} has another history of the device {about}: a database or SD card was copied, or restored from a backup"
        ),
        (Refusal::NewIdentity, _) => write!(
            f,
            "{by} was a second history of the device {about}, a clone or restored from a backup, and has a new identity now"
        ),
        (Refusal::Busy, _) => write!(f, "{by} is busy: it has as many sessions as it takes; try again"),
        (Refusal::Damaged, _) => write!(f, "{by} found what this device sent damaged"),
        (Refusal::Failed, _) => {
            write!(f, "something failed at the other end: {by} reports there what")
        }
    }
}

fn named(s: &UntrustedDevice) -> String {
    format!("{}, fingerprint {}", s.name.as_deref().unwrap_or("(no certificate)"), s.id)
}

impl std::error::Error for Error {}
