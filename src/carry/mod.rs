//! Carriers: how frames travel. They know nothing of tables, and are never trusted: what they bring is
//! verified by the engine.
//!
//! | file | what lives there |
//! |---|---|
//! | `card` | both ways with a directory that somebody carries |
//! | `volume` | a card as `card` sees it, and a mounted directory as such |
//! | `session` | the session of the core over a database: two ends that talk until each has what the other has |
//! | `serial/` | a session over a serial line |
//!
//! Imports the engine and [`packmule_core`].

#[cfg(unix)]
pub mod card;
#[cfg(all(unix, feature = "serial"))]
pub mod serial;
pub mod session;
#[cfg(unix)]
pub mod volume;
