//! A command with its operands and flags.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{Command, Flag, UsageError};

/// A command with its operands and flags.
pub struct Args {
    /// The command.
    pub command: &'static Command,
    pub(super) operands: Vec<OsString>,
    pub(super) flags: Vec<(&'static Flag, OsString)>,
}

impl Args {
    /// Returns whether the flag was given.
    pub fn has(&self, flag: &Flag) -> bool {
        self.given(flag).next().is_some()
    }

    /// Returns the value of a flag, the last if it was given several times.
    pub fn flag(&self, flag: &Flag) -> Result<Option<&str>, UsageError> {
        Ok(self.all(flag)?.pop())
    }

    /// Returns all values of a flag.
    pub fn all(&self, flag: &Flag) -> Result<Vec<&str>, UsageError> {
        self.given(flag).map(|value| self.utf8(value)).collect()
    }

    /// Returns a flag's value as a path.
    pub fn flag_path(&self, flag: &Flag) -> Option<&Path> {
        self.given(flag).last().map(Path::new)
    }

    fn given(&self, flag: &Flag) -> impl Iterator<Item = &OsString> {
        self.flags.iter().filter(move |(given, _)| given.name == flag.name).map(|(_, value)| value)
    }

    /// Returns how many operands there are.
    pub fn len(&self) -> usize {
        self.operands.len()
    }

    /// Returns an operand as a path.
    pub fn path(&self, at: usize) -> &Path {
        Path::new(self.operands.get(at).map_or(OsStr::new(""), OsString::as_os_str))
    }

    /// Returns the operands from one on as paths.
    pub fn paths(&self, from: usize) -> Vec<&Path> {
        self.operands.iter().skip(from).map(Path::new).collect()
    }

    /// Returns an operand as text.
    pub fn text(&self, at: usize) -> Result<&str, UsageError> {
        self.operands.get(at).map_or(Ok(""), |operand| self.utf8(operand))
    }

    /// Returns the operands from one on as text.
    pub fn texts(&self, from: usize) -> Result<Vec<&str>, UsageError> {
        self.operands.iter().skip(from).map(|operand| self.utf8(operand)).collect()
    }

    /// Returns that this command was used wrongly.
    pub fn wrong(&self, message: impl Into<String>) -> UsageError {
        UsageError { command: Some(self.command), message: message.into() }
    }

    fn utf8<'a>(&self, text: &'a OsStr) -> Result<&'a str, UsageError> {
        text.to_str().ok_or_else(|| self.wrong(format!("`{}` is not UTF-8", text.to_string_lossy())))
    }
}
