//! Files that commands read and write, and the profiles of boards.
//!
//! Imports `text`, `usage`, `documents`, `output`.
//!
//! | file | what lives there |
//! |---|---|
//! | `sources` | what a file is; directories to take in |
//! | `target` | a file that is there whole or not at all |
//! | `passphrase` | passphrases, from a file or the terminal |
//! | `programs` | the programs that decide about conflicts, in a file beside the database |
//! | `config/` | the file of `run` |
//! | `run_state` | how `run` stands, in a file beside the database |
//! | `board` | profiles of boards: budgets, serial line |
//! | `services` | a board's services: units, drop-ins, settings |
//! | `owners` | whose a file is, and what a service may do with it |
//! | `disks` | which disk a card is, and which the system's own |

pub mod board;
pub mod config;
pub mod disks;
pub mod owners;
pub mod passphrase;
pub mod programs;
pub mod run_state;
pub mod services;
pub mod sources;
mod target;

pub use target::Target;
