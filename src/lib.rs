//! Packmule keeps SQLite databases in step without a network.
pub use packmule_core as core;

pub mod carry;
mod engine;

pub use engine::*;
