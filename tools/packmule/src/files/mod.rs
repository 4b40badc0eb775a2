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

use std::path::{Path, PathBuf};

pub use target::Target;

/// Returns the folder of a file.
pub fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the path of what lies beside a file under its name with this end.
pub fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}
