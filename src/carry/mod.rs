//! Carriers: how frames travel. They know nothing of tables, and are never trusted: what they bring is
//! verified by the engine.
//!
//! | file | what lives there |
//! |---|---|
//! | `card` | both ways with a directory that somebody carries |
//! | `volume` | a card as `card` sees it, and a mounted directory as such |
//! | `session` | two ends that talk: who they are, what each has, what each lacks; a state machine |
//! | `serial/` | a session over a serial line |
//!
//! Imports the engine and [`packmule_core`].

#[cfg(unix)]
pub mod card;
#[cfg(unix)]
pub mod serial;
pub mod session;
#[cfg(unix)]
pub mod volume;
