//! The program `packmule`: on a board, and on the host that merges.
//!
//! | file | what it does |
//! |---|---|
//! | `args` | a command line, taken apart by the table of commands |
//! | `commands/` | that table, and one file for each group of commands |
//! | `board` | profiles of boards: budgets, serial line |
//! | `help` | general help, help for a command, usage lines: made from the table |
//! | `failure` | what went wrong, in one line that says what to do |
//! | `output` | what is printed: lines for people, or one JSON document |
//! | `show`, `value` | sizes, times, counts; a row's values as text and as JSON |
//! | `sources`, `intake` | files and directories to take in; taking them in |
//! | `target` | a file that is there whole or not at all |
//! | `progress` | how far a long import is, for whoever watches |
//! | `demo/` | the whole trip, on this machine's own sensors |

mod args;
mod board;
mod commands;
mod demo;
mod failure;
mod help;
mod intake;
mod output;
mod progress;
mod show;
mod sources;
mod target;
mod value;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use args::Request;
use failure::Failure;
use output::Out;

/// What a command works with.
pub(crate) struct Context<'a, 'w> {
    /// Its command line.
    pub args: args::Args,
    /// Where it tells what it did.
    pub out: &'a mut Out<'w>,
}

/// Runs one command line, without the program's name.
pub(crate) fn run(line: &[OsString], out: &mut Out<'_>) -> Result<(), Failure> {
    match args::parse(line)? {
        Request::Help(None) => out.text(&help::general()),
        Request::Help(Some(command)) => out.text(&help::of(command)),
        Request::Version => out.text(&format!("packmule {}\n", env!("CARGO_PKG_VERSION"))),
        Request::Command(args) => {
            out.json = args.has("json");
            return (args.command.run)(&mut Context { args, out });
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut out = Out::new(Box::new(io::stdout().lock()));
    // Also where the command line is too wrong to be taken apart.
    out.json = line.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let result = run(&line, &mut out);
    let mut status = 0;
    if let Err(failure) = &result {
        status = failure.status();
        if let Some(document) = failure.document().filter(|_| out.json) {
            out.document(document);
        }
        // A closed standard error is no reason to panic.
        let _ = io::stderr().write_all(failure.text().as_bytes());
    }
    if let Err(e) = out.finish() {
        let _ = writeln!(io::stderr(), "packmule: standard output: {}", failure::io_text(&e));
        status = status.max(1);
    }
    ExitCode::from(status)
}
