//! Documents of `completions`, `man`, and of a board's services.

#[cfg(test)]
use schemars::JsonSchema;
use serde::Serialize;

use super::OwnError;

/// `completions`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Completions<'a> {
    /// The shell.
    pub shell: &'a str,
    /// What it reads.
    pub script: &'a str,
}

/// `man`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Manual {
    /// The pages that were written; the first is that of the program.
    pub files: Vec<String>,
}

/// `board install`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Installed<'a> {
    /// Files that were written, or would be.
    pub written: Vec<String>,
    /// Files that were there and stay as they are.
    pub kept: Vec<String>,
    /// What to run then.
    pub next: &'a [String],
    /// The files that were written, each with what is in it.
    pub files: Vec<WrittenFile<'a>>,
    /// Nothing was written.
    pub dry_run: bool,
    /// Whom the services run as: the database's owner. Null where no database was given.
    pub user: Option<&'a str>,
    /// The groups that they have for the serial ports.
    pub groups: Option<&'a [String]>,
    /// The folder that they may write to.
    pub folder: Option<&'a str>,
    /// What is wrong still, as `board check` says it.
    pub wrong: &'a [String],
}

/// A file that was written.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct WrittenFile<'a> {
    /// Its path.
    pub file: String,
    /// What is in it.
    pub text: &'a str,
}

/// `board remove`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct RemovedServices<'a> {
    /// Files that were removed, or would be.
    pub removed: Vec<String>,
    /// Files that stay.
    pub kept: Vec<String>,
    /// What to run then.
    pub next: &'a [&'a str],
    /// Nothing was removed.
    pub dry_run: bool,
}

/// `board check`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct BoardChecked<'a> {
    /// The database, on the board.
    pub database: &'a str,
    /// Whom the services run as.
    pub user: &'a str,
    /// The folder that they may write to.
    pub folder: &'a str,
    /// The serial ports that they wait on.
    pub ports: &'a [String],
    /// What is wrong, each with what helps.
    pub wrong: &'a [String],
    /// How many things are wrong, in words, if any is.
    #[serde(flatten)]
    pub failed: OwnError,
}

/// `board card`.
#[derive(Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CardChecked<'a> {
    /// The device that was asked about.
    pub device: &'a str,
    /// The disks that it is on.
    pub disks: &'a [&'a str],
    /// The system runs from one of them, or its database is there: it is no card.
    pub system: bool,
    /// Why it is no card, if it is none.
    #[serde(flatten)]
    pub failed: OwnError,
}
