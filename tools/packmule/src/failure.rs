//! What went wrong, in one line that says what to do.

use std::io;
use std::path::Path;

use packmule::{Error, Stranger};
use serde_json::{Value, json};

use crate::args::Command;
use crate::help;
use crate::show::{quoted, shown};

/// Why a command did not do what was asked.
pub enum Failure {
    /// The command line is wrong.
    Usage {
        /// Whose usage line is shown.
        command: Option<&'static Command>,
        /// What is wrong.
        message: String,
    },
    /// It was refused, or failed.
    Refused {
        /// The file that it is about.
        file: Option<String>,
        /// Why, and what to do.
        message: String,
        /// Devices that are not trusted, if that is why.
        strangers: Vec<Stranger>,
    },
    /// The command has told it in its output.
    Told(String),
}

impl Failure {
    /// Wrong usage.
    pub fn usage(command: Option<&'static Command>, message: impl Into<String>) -> Self {
        Self::Usage { command, message: message.into() }
    }

    /// Something that is wrong with a file.
    pub fn of(file: &Path, message: impl Into<String>) -> Self {
        Self::Refused { file: Some(shown(file)), message: message.into(), strangers: Vec::new() }
    }

    /// Something that is about no file.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::Refused { file: None, message: message.into(), strangers: Vec::new() }
    }

    /// The system refused something to do with a file.
    pub fn io(file: &Path, doing: &str, e: &io::Error) -> Self {
        Self::of(file, format!("could not {doing}: {}", io_text(e)))
    }

    /// The engine refused: `file` is what was worked on, `db` the database.
    pub fn engine(file: &Path, db: &Path, error: Error) -> Self {
        let message = engine_text(file, db, &error);
        let strangers = if let Error::Strangers(strangers) = error { strangers } else { Vec::new() };
        Self::Refused { file: Some(shown(file)), message, strangers }
    }

    /// The same, with more said after it.
    pub fn and(self, more: &str) -> Self {
        match self {
            Self::Refused { file, message, strangers } => {
                Self::Refused { file, message: message + more, strangers }
            }
            other => other,
        }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        if matches!(self, Self::Usage { .. }) { 2 } else { 1 }
    }

    /// The reason alone.
    pub fn message(&self) -> &str {
        match self {
            Self::Usage { message, .. } | Self::Refused { message, .. } | Self::Told(message) => message,
        }
    }

    /// What standard error gets.
    pub fn text(&self) -> String {
        match self {
            Self::Usage { command: Some(command), message } => format!(
                "packmule {}: {message}\nusage: {}\n`packmule {0} --help` says more\n",
                command.name,
                help::usage(command)
            ),
            Self::Usage { command: None, message } => {
                format!(
                    "packmule: {message}\nusage: packmule COMMAND DB ...\n`packmule --help` lists the commands\n"
                )
            }
            Self::Refused { file: Some(file), message, .. } => format!("packmule: {file}: {message}\n"),
            Self::Refused { file: None, message, .. } | Self::Told(message) => {
                format!("packmule: {message}\n")
            }
        }
    }

    /// The same as JSON; nothing where the command has told it already.
    pub fn document(&self) -> Option<Value> {
        match self {
            Self::Told(_) => None,
            Self::Usage { message, .. } => Some(json!({ "error": message })),
            Self::Refused { file, message, strangers } => {
                let mut document = json!({ "error": message, "file": file });
                if !strangers.is_empty() {
                    document["strangers"] = strangers
                        .iter()
                        .map(|s| json!({ "fingerprint": s.id.to_string(), "name": s.name, "revoked": s.revoked }))
                        .collect();
                }
                Some(document)
            }
        }
    }
}

/// The engine's words, with the database's name in what it says to run.
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
    with_database(&text, &quoted(db))
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// The system's reason, without its number.
pub fn io_text(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // Not of a name or an abbreviation.
        Some(first) if letters.clone().next().is_some_and(|second| second.is_lowercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// `packmule init DB` and the like, with the database that it is about.
pub fn with_database(text: &str, db: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(" DB") {
        let (before, after) = rest.split_at(at);
        let mut words = before.rsplit([' ', '`', '\n']);
        let (last, last_but_one) = (words.next(), words.next());
        let ends = !after[3..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let command = last == Some("sqlite3") || last_but_one == Some("packmule");
        out.push_str(before);
        out.push_str(if ends && command { " " } else { " DB" });
        if ends && command {
            out.push_str(db);
        }
        rest = &after[3..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_database() {
        let hint = with_database(
            "no DB here: run `packmule init DB`, or `packmule track DB DBX`\n  packmule trust DB 00",
            "a.db",
        );
        assert_eq!(
            hint,
            "no DB here: run `packmule init a.db`, or `packmule track a.db DBX`\n  packmule trust a.db 00"
        );
        assert_eq!(
            with_database("run `sqlite3 DB 'PRAGMA x'`", "'a b.db'"),
            "run `sqlite3 'a b.db' 'PRAGMA x'`"
        );
    }
}
