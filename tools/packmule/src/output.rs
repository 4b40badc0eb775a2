//! What is printed: lines for people, or one JSON document.

use std::io::{self, BufWriter, Write};

use serde_json::Value;

/// Where a command's results go.
pub struct Out<'w> {
    to: BufWriter<Box<dyn Write + 'w>>,
    /// One JSON document instead of lines.
    pub json: bool,
    closed: bool,
    failed: Option<io::Error>,
}

/// Prints a line for people.
macro_rules! say {
    ($out:expr) => { $out.line("") };
    ($out:expr, $($arg:tt)*) => { $out.line(&format!($($arg)*)) };
}
pub(crate) use say;

impl<'w> Out<'w> {
    /// Prints to this.
    pub fn new(to: Box<dyn Write + 'w>) -> Self {
        Self { to: BufWriter::new(to), json: false, closed: false, failed: None }
    }

    /// Prints a line, unless a JSON document is wanted.
    pub fn line(&mut self, line: &str) {
        if !self.json {
            self.write(line);
            self.write("\n");
        }
    }

    /// Prints text as it is, also where a JSON document is wanted: help, and the parts of a long document.
    pub fn text(&mut self, text: &str) {
        self.write(text);
    }

    /// Prints the document, if one is wanted.
    pub fn document(&mut self, document: Value) {
        if self.json {
            self.write(&format!("{document:#}\n"));
        }
    }

    /// Nobody reads any more.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// For what is neither lines nor JSON.
    pub fn raw(&mut self) -> &mut dyn Write {
        &mut self.to
    }

    fn write(&mut self, text: &str) {
        if !self.closed
            && let Err(e) = self.to.write_all(text.as_bytes())
        {
            self.note(e);
        }
    }

    /// Shows what was printed so far.
    pub fn flush(&mut self) {
        if !self.closed
            && let Err(e) = self.to.flush()
        {
            self.note(e);
        }
    }

    fn note(&mut self, e: io::Error) {
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

/// Lines of columns, as wide as they need to be.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0))
        .map(|at| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}
