//! What went wrong, in one line that says what to do.

use std::io;
use std::path::Path;

use packmule::{Error, UntrustedDevice};

use super::code;
use crate::documents::{ErrorDocument, OwnError, Untrusted};
use crate::text::{hint, io_text, paragraph, shown};
use crate::usage::{UsageError, help};

/// Why a command did not do what was asked.
pub enum Failure {
    /// The command line is wrong.
    Usage(UsageError),
    /// It was refused, or failed.
    Refused {
        /// The file that it is about.
        file: Option<String>,
        /// Why, and what to do.
        message: String,
        /// The same for programs: a code of `src/docs/errors.md`.
        code: &'static str,
        /// Devices that are not trusted, if that is why.
        untrusted: Vec<UntrustedDevice>,
    },
    /// The command has reported it in its output.
    Reported(String),
    /// It was asked whether a person is needed: one is, as the command has printed.
    PersonNeeded,
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl Failure {
    /// Reports what is wrong with a file.
    pub fn of(file: &Path, message: impl Into<String>) -> Self {
        let file = Some(shown(file));
        Self::Refused { file, message: message.into(), code: code::REFUSED, untrusted: Vec::new() }
    }

    /// Reports what is wrong, where it is not about a file.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::Refused { file: None, message: message.into(), code: code::REFUSED, untrusted: Vec::new() }
    }

    /// Gives it another code than the general one.
    pub fn coded(mut self, other: &'static str) -> Self {
        if let Self::Refused { code, .. } = &mut self {
            *code = other;
        }
        self
    }

    /// Reports that the system refused something to do with a file.
    pub fn io(file: &Path, doing: &str, e: &io::Error) -> Self {
        Self::of(file, format!("could not {doing}: {}", io_text(e))).coded(Error::io_code(e))
    }

    /// Reports that the engine refused: `file` is what was worked on, `db` the database.
    pub fn engine(file: &Path, db: &Path, error: Error) -> Self {
        let (message, code) = (engine_text(file, db, &error), error.code());
        let untrusted = match error {
            Error::Untrusted(devices) | Error::AsksForAdmission { devices, .. } => devices,
            _ => Vec::new(),
        };
        Self::Refused { file: Some(shown(file)), message, code, untrusted }
    }

    /// Adds more after the reason.
    pub fn and(mut self, more: &str) -> Self {
        if let Self::Refused { message, .. } = &mut self {
            message.push_str(more);
        }
        self
    }

    /// Returns the exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::PersonNeeded => 3,
            Self::Refused { .. } | Self::Reported(_) => 1,
        }
    }

    /// Returns the reason alone.
    pub fn message(&self) -> &str {
        match self {
            Self::Usage(UsageError { message, .. })
            | Self::Refused { message, .. }
            | Self::Reported(message) => message,
            Self::PersonNeeded => "a person is needed",
        }
    }

    /// Returns what a document of the command's own has of it.
    pub fn own(&self) -> OwnError {
        let code = match self {
            Self::Usage(_) => code::USAGE,
            Self::Refused { code, .. } => code,
            Self::Reported(_) | Self::PersonNeeded => code::REFUSED,
        };
        OwnError::of(self.message(), code)
    }

    /// Returns what standard error gets.
    pub fn text(&self) -> String {
        match self {
            Self::Usage(UsageError { command: Some(command), message }) => format!(
                // It begins as a command does, which would stay whole.
                "{}\n{}\n`packmule {} --help` says more\n",
                paragraph(&format!("packmule {}: {message}", command.words), 0, 2),
                help::usage(command),
                command.words
            ),
            Self::Usage(UsageError { command: None, message }) => {
                format!(
                    "packmule: {message}\nusage: packmule COMMAND DB ...\n`packmule --help` lists the commands\n"
                )
            }
            Self::PersonNeeded => String::new(),
            Self::Refused { file: Some(file), message, .. } => format!("packmule: {file}: {message}\n"),
            Self::Refused { file: None, message, .. } | Self::Reported(message) => {
                format!("packmule: {message}\n")
            }
        }
    }

    /// Returns the same as JSON; nothing where the command has reported it already.
    pub fn document(&self) -> Option<ErrorDocument<'_>> {
        match self {
            Self::Reported(_) | Self::PersonNeeded => None,
            Self::Usage(UsageError { message, .. }) => {
                Some(ErrorDocument { error: message, code: code::USAGE, file: None, untrusted: Vec::new() })
            }
            Self::Refused { file, message, code, untrusted } => {
                let untrusted = untrusted.iter().map(|device| Untrusted {
                    fingerprint: device.id.to_string(),
                    name: device.name.as_deref(),
                    revoked: device.revoked,
                });
                let file = Some(file.as_deref());
                Some(ErrorDocument { error: message, code, file, untrusted: untrusted.collect() })
            }
        }
    }
}

/// Returns the engine's words, with the database's name in what it says to run.
pub fn engine_text(file: &Path, db: &Path, error: &Error) -> String {
    let text = match error {
        // The file has been named already.
        Error::Io { doing, path, source } if same(path, file) => {
            format!("could not {doing} it: {}", io_text(source))
        }
        Error::Io { doing, path, source } => {
            format!("could not {doing} {}: {}", shown(path), io_text(source))
        }
        Error::Stream(source) => format!("could not read or write the bundle: {}", io_text(source)),
        Error::Source { error, .. } => return engine_text(file, db, error),
        error => error.to_string(),
    };
    text + &hint(error.hint(), db)
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
