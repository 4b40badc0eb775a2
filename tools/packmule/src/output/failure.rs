//! What went wrong, in one line that says what to do.

use std::io;
use std::path::Path;

use packmule::{Error, UntrustedDevice};

use super::code;
use crate::documents::{ErrorDocument, OwnError, Untrusted};
use crate::text::{file_text, hint, paragraph, shown};
use crate::usage::{UsageError, help};

/// Why a command did not do what was asked: one pointer, since most that the program does may fail.
pub struct Failure(Box<Why>);

enum Why {
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
        Self(Box::new(Why::Usage(error)))
    }
}

impl Failure {
    /// Reports what was refused, or failed.
    pub fn refused(
        file: Option<String>,
        message: impl Into<String>,
        code: &'static str,
        untrusted: Vec<UntrustedDevice>,
    ) -> Self {
        Self(Box::new(Why::Refused { file, message: message.into(), code, untrusted }))
    }

    /// Makes the status of what the command has reported in its output.
    pub fn reported(message: String) -> Self {
        Self(Box::new(Why::Reported(message)))
    }

    /// Makes the status that says that a person is needed.
    pub fn person_needed() -> Self {
        Self(Box::new(Why::PersonNeeded))
    }

    /// Reports what is wrong with a file.
    pub fn of(file: &Path, message: impl Into<String>) -> Self {
        Self::refused(Some(shown(file)), message, code::REFUSED, Vec::new())
    }

    /// Reports what is wrong, where it is not about a file.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::refused(None, message, code::REFUSED, Vec::new())
    }

    /// Gives it another code than the general one.
    pub fn coded(mut self, other: &'static str) -> Self {
        if let Why::Refused { code, .. } = &mut *self.0 {
            *code = other;
        }
        self
    }

    /// Reports that the system refused something to do with a file.
    pub fn io(file: &Path, doing: &str, e: &io::Error) -> Self {
        Self::of(file, format!("could not {doing}: {}", file_text(e))).coded(Error::io_code(e))
    }

    /// Reports that the engine refused: `file` is what was worked on, `db` the database.
    pub fn engine(file: &Path, db: &Path, error: Error) -> Self {
        let (message, code) = (engine_text(file, db, &error), error.code());
        let untrusted = match error {
            Error::Untrusted(devices) | Error::AsksForAdmission { devices, .. } => devices,
            _ => Vec::new(),
        };
        Self::refused(Some(shown(file)), message, code, untrusted)
    }

    /// Adds more after the reason.
    pub fn and(mut self, more: &str) -> Self {
        if let Why::Refused { message, .. } = &mut *self.0 {
            message.push_str(more);
        }
        self
    }

    /// Returns the exit status.
    pub fn status(&self) -> u8 {
        match &*self.0 {
            Why::Usage(_) => 2,
            Why::PersonNeeded => 3,
            Why::Refused { .. } | Why::Reported(_) => 1,
        }
    }

    /// Returns the reason alone.
    pub fn message(&self) -> &str {
        match &*self.0 {
            Why::Usage(UsageError { message, .. })
            | Why::Refused { message, .. }
            | Why::Reported(message) => message,
            Why::PersonNeeded => "a person is needed",
        }
    }

    /// Returns what a document of the command's own has of it.
    pub fn own(&self) -> OwnError {
        let code = match &*self.0 {
            Why::Usage(_) => code::USAGE,
            Why::Refused { code, .. } => code,
            Why::Reported(_) | Why::PersonNeeded => code::REFUSED,
        };
        OwnError::of(self.message(), code)
    }

    /// Returns what standard error gets.
    pub fn text(&self) -> String {
        match &*self.0 {
            Why::Usage(UsageError { command: Some(command), message }) => format!(
                // It begins as a command does, which would stay whole.
                "{}\n{}\n`packmule {} --help` says more\n",
                paragraph(&format!("packmule {}: {message}", command.words), 0, 2),
                help::usage(command),
                command.words
            ),
            Why::Usage(UsageError { command: None, message }) => {
                format!(
                    "packmule: {message}\nusage: packmule COMMAND DB ...\n`packmule --help` lists the commands\n"
                )
            }
            Why::PersonNeeded => String::new(),
            Why::Refused { file: Some(file), message, .. } => format!("packmule: {file}: {message}\n"),
            Why::Refused { file: None, message, .. } | Why::Reported(message) => {
                format!("packmule: {message}\n")
            }
        }
    }

    /// Returns the same as JSON; nothing where the command has reported it already.
    pub fn document(&self) -> Option<ErrorDocument<'_>> {
        match &*self.0 {
            Why::Reported(_) | Why::PersonNeeded => None,
            Why::Usage(UsageError { message, .. }) => {
                Some(ErrorDocument { error: message, code: code::USAGE, file: None, untrusted: Vec::new() })
            }
            Why::Refused { file, message, code, untrusted } => {
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
            // "Make the key file" says already what.
            let it =
                if ["file", "folder", "state"].iter().any(|noun| doing.ends_with(noun)) { "" } else { " it" };
            format!("could not {doing}{it}: {}", file_text(source))
        }
        Error::Io { doing, path, source } => {
            format!("could not {doing} {}: {}", shown(path), file_text(source))
        }
        Error::Stream(source) => format!("could not read or write the bundle: {}", file_text(source)),
        Error::Source { error, .. } => return engine_text(file, db, error),
        error => error.to_string(),
    };
    text + &hint(error.hint(), db)
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
