//! What is printed: lines for people, or one JSON document; progress; why a command failed.
//!
//! Imports `text`, `usage`, `documents`.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | standard output |
//! | `code` | the codes of failures that are not the library's |
//! | `colour` | what stands out on a terminal |
//! | `ending` | a panic, no memory: the end of the program |
//! | `failure` | what went wrong, in one line that says what to do |
//! | `progress` | how far long work is, for whoever watches |

pub mod code;
mod colour;
mod ending;
mod failure;
mod progress;

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::text::{folded, safe};

pub use colour::{Style, is_wanted as colour_is_wanted, paint};
pub use ending::{Allocator, end_at_panics, go_on_at_limits};
pub use failure::{Failure, engine_text};
pub use progress::{Bar, Meter, nobody_watches};

/// Standard output, or what stands for it.
pub struct Out<'w> {
    to: BufWriter<Box<dyn Write + 'w>>,
    /// One JSON document instead of lines.
    pub json: bool,
    /// Only what is wrong is printed.
    pub quiet: bool,
    /// What is looked at is said.
    pub verbose: bool,
    /// Some lines are painted.
    pub colour: bool,
    /// Lines stay as long as they are: whoever shows them breaks them.
    pub whole_lines: bool,
    closed: bool,
    failed: Option<io::Error>,
}

/// Prints a line for people.
macro_rules! say {
    ($out:expr) => { $out.line("") };
    ($out:expr, $($arg:tt)*) => { $out.line(&format!($($arg)*)) };
}
pub(crate) use say;

/// Prints a line that is printed also where only what is wrong is wanted.
macro_rules! caution {
    ($out:expr, $($arg:tt)*) => { $out.warning(&format!($($arg)*)) };
}
pub(crate) use caution;

/// Says what is looked at, where that is wanted.
macro_rules! tell {
    ($out:expr, $($arg:tt)*) => {
        if $out.verbose {
            $out.detail(&format!($($arg)*));
        }
    };
}
pub(crate) use tell;

impl<'w> Out<'w> {
    /// Makes one that prints to this.
    pub fn new(to: Box<dyn Write + 'w>) -> Self {
        Self {
            to: BufWriter::new(to),
            json: false,
            quiet: false,
            verbose: false,
            colour: false,
            whole_lines: false,
            closed: false,
            failed: None,
        }
    }

    /// Prints a line, unless a JSON document is wanted. Whatever a terminal would act on is escaped.
    pub fn line(&mut self, line: &str) {
        if !self.quiet {
            self.warning(line);
        }
    }

    /// Prints a line that stands out where there is colour.
    pub fn styled(&mut self, style: Style, line: &str) {
        if !self.colour || self.json || self.quiet {
            return self.line(line);
        }
        // It is broken into lines before: what is not to be seen has no width.
        self.write(&paint(style, &safe(&folded(line))));
        self.write("\n");
    }

    /// Prints a line also where only what is wrong is wanted.
    pub fn warning(&mut self, line: &str) {
        if !self.json {
            match self.whole_lines {
                true => self.write(&safe(line)),
                false => self.write(&safe(&folded(line))),
            }
            self.write("\n");
        }
    }

    /// Prints what is in a file, as it is.
    pub fn verbatim(&mut self, text: &str) {
        if !self.json && !self.quiet {
            self.write(&safe(text));
        }
    }

    /// Says on standard error what is looked at, if that is wanted.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            // A closed standard error changes nothing.
            let _ = writeln!(io::stderr(), "{}", safe(&folded(line)));
        }
    }

    /// Prints text as it is, also where a JSON document is wanted: help, and the parts of a long document.
    pub fn text(&mut self, text: &str) {
        self.write(text);
    }

    /// Prints the document, if one is wanted.
    pub fn document(&mut self, document: &impl Serialize) {
        if !self.json || self.closed {
            return;
        }
        match serde_json::to_writer_pretty(&mut self.to, document) {
            Ok(()) => self.write("\n"),
            Err(e) => self.record_failure(e.into()),
        }
    }

    /// Prints the document on one line, if one is wanted: for those that come one after the other.
    pub fn document_line(&mut self, document: &impl Serialize) {
        if !self.json || self.closed {
            return;
        }
        if let Err(e) = serde_json::to_writer(&mut self.to, document) {
            self.record_failure(e.into());
        }
    }

    /// Prints the fields of a document without its first brace: they go on after what was printed of it.
    pub fn rest_of_document(&mut self, document: &impl Serialize) {
        match serde_json::to_string(document) {
            Ok(text) => {
                self.write(text.strip_prefix('{').unwrap_or(&text));
                self.write("\n");
            }
            Err(e) => self.record_failure(e.into()),
        }
    }

    /// Returns whether nobody reads any more.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Returns where bytes go that are neither lines nor JSON.
    pub fn raw(&mut self) -> &mut dyn Write {
        &mut self.to
    }

    fn write(&mut self, text: &str) {
        if !self.closed
            && let Err(e) = self.to.write_all(text.as_bytes())
        {
            self.record_failure(e);
        }
    }

    /// Shows what was printed so far.
    pub fn flush(&mut self) {
        if !self.closed
            && let Err(e) = self.to.flush()
        {
            self.record_failure(e);
        }
    }

    fn record_failure(&mut self, e: io::Error) {
        self.closed = true;
        // Who closes a pipe has seen enough.
        if e.kind() != io::ErrorKind::BrokenPipe {
            self.failed = Some(e);
        }
    }

    /// Writes out what is left.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush();
        let failed = self.failed.take();
        // What could not be written would be tried again when it is dropped.
        let _ = self.to.into_parts();
        failed.map_or(Ok(()), Err)
    }
}
