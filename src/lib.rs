//! Packmule keeps SQLite databases in step without a network.
pub use packmule_core as core;

mod engine;

pub use engine::*;
