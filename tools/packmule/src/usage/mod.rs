//! What can be typed: flags and commands, as data in one list; parsing, help, completions and manual pages are made from it.
//!
//! Imports `text`. Nothing here runs a command.
//!
//! | file | what lives there |
//! |---|---|
//! | `flags` | every flag, once |
//! | `commands`, `own` | every command: operands, flags, help; those about the program itself |
//! | `args`, `parse` | a command line, taken apart by that list |
//! | `nearest` | what was probably meant |
//! | `help` | general help, help for a command, usage lines |
//! | `words`, `completions` | completions for shells |
//! | `manual` | manual pages |
//! | `proposals` | that what messages propose can be typed, in tests alone |

mod args;
mod commands;
mod completions;
pub mod flags;
pub mod help;
mod manual;
mod nearest;
mod own;
mod parse;
#[cfg(test)]
mod proposals;
mod words;

pub use args::Args;
pub use commands::COMMANDS;
pub use completions::completions;
pub use flags::{COMMON, Flag};
pub use manual::manual;
pub use nearest::nearest;
pub use parse::{Request, parse};

/// Which command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Init,
    FleetNew,
    FleetRotate,
    Admit,
    Trust,
    Revoke,
    Devices,
    Retire,
    Rename,
    Track,
    Untrack,
    Schema,
    Seal,
    Compact,
    Prune,
    Snapshot,
    Join,
    Export,
    Import,
    Merge,
    Sync,
    Serve,
    Run,
    Find,
    Exchange,
    Conflicts,
    Resolve,
    Report,
    Decide,
    Undo,
    Restore,
    At,
    Status,
    Log,
    Digest,
    Verify,
    Inspect,
    Board,
    Completions,
    Man,
    Demo,
    Help,
}

/// Under which heading general help has a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Devices,
    Tables,
    Carry,
    Conflicts,
    Look,
    /// General help does not list it.
    Unlisted,
}

/// One command.
#[derive(Debug)]
pub struct Command {
    /// Which it is.
    pub name: Name,
    /// What is typed: a word, or two.
    pub words: &'static str,
    /// What comes after it, as the usage line has it.
    pub operands: &'static str,
    /// At least and at most how many operands.
    pub count: (usize, usize),
    /// Its flags, beside those that all commands have.
    pub flags: &'static [&'static Flag],
    /// Its heading in general help.
    pub group: Group,
    /// Help, in a line.
    pub summary: &'static str,
    /// Help, in a paragraph or several.
    pub about: &'static str,
    /// Command lines that people can copy.
    pub examples: &'static [&'static str],
}

impl Command {
    /// Returns whether what it prints is what it was asked for: it is printed also with --quiet.
    pub fn answers(&self) -> bool {
        use Name::{
            At, Board, Completions, Conflicts, Demo, Devices, Digest, Help, Inspect, Log, Man, Status,
        };
        matches!(
            self.name,
            At | Board
                | Completions
                | Conflicts
                | Demo
                | Devices
                | Digest
                | Help
                | Inspect
                | Log
                | Man
                | Status
        )
    }

    /// Returns all flags that it takes.
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().chain(COMMON).copied()
    }
}

/// A command line that is wrong.
#[derive(Debug)]
pub struct UsageError {
    /// Whose usage line is shown.
    pub command: Option<&'static Command>,
    /// What is wrong.
    pub message: String,
}
