//! Carriers: how frames travel. They know nothing of tables, and are never trusted: what they bring is
//! verified by the engine.
//!
//! | file | what lives there |
//! |---|---|
//! | `session` | two ends that talk: who they are, what each has, what each lacks; a state machine |
//! | `serial/` | a session over a serial line |
//!
//! Imports the engine and [`packmule_core`].

#[cfg(unix)]
pub mod serial;
pub mod session;
