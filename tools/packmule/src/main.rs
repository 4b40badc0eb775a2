//! The program `packmule`: on a board, and on the host that merges.
//!
//! Rooms, from the ground up; each imports only those before it, and a test keeps that:
//!
//! | room | what lives there |
//! |---|---|
//! | `text` | how things look as text: sizes, times, a row's values |
//! | `usage` | what can be typed: flags and commands as data; parsing and help made from them |
//! | `documents` | the JSON documents, one type for each command |
//! | `output` | what is printed: lines or a document; failures; progress |
//! | `files` | what a file is, files written whole or not at all, profiles of boards |
//! | `commands` | what commands do |
//! | `demo` | the whole trip, on this machine's own sensors |
//!
//! This file runs a command line. No room imports it.

mod commands;
mod demo;
mod documents;
mod files;
mod output;
mod text;
mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use commands::Context;
use output::{Failure, Out, Style, tell};
use usage::{Name, Request, flags, help};

/// Runs one command line, without the program's name.
fn run(line: &[OsString], out: &mut Out<'_>) -> Result<(), Failure> {
    match usage::parse(line)? {
        Request::Help(None) if line.is_empty() => out.text(&help::first()),
        Request::Help(None) => out.text(&help::general()),
        Request::Help(Some(command)) => out.text(&help::of(command)),
        Request::Version => out.text(&format!("packmule {}\n", env!("CARGO_PKG_VERSION"))),
        Request::Command(args) => {
            out.json = args.has(&flags::JSON);
            out.verbose = args.has(&flags::VERBOSE);
            out.quiet = args.has(&flags::QUIET) && !args.command.answers();
            if args.has(&flags::QUIET) {
                output::nobody_watches();
            }
            let begun = Instant::now();
            let result = run_command(&mut Context { args, out });
            tell!(out, "it took {:.1} s", begun.elapsed().as_secs_f64());
            return result;
        }
    }
    Ok(())
}

fn run_command(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let command = match context.args.command.name {
        Name::Init => commands::init,
        Name::FleetNew => commands::fleet_new,
        Name::FleetRotate => commands::fleet_rotate,
        Name::Admit => commands::admit,
        Name::Trust => commands::trust,
        Name::Revoke => commands::revoke,
        Name::Devices => commands::devices,
        Name::Rename => commands::rename,
        Name::Retire => commands::retire,
        Name::Track => commands::track,
        Name::Untrack => commands::untrack,
        Name::Schema => commands::schema,
        Name::Seal => commands::seal,
        Name::Compact => commands::compact,
        Name::Prune => commands::prune,
        Name::Snapshot => commands::snapshot,
        Name::Join => commands::join,
        Name::Export => commands::export,
        Name::Import => commands::import,
        Name::Merge => commands::merge,
        Name::Sync => commands::sync,
        Name::Serve => commands::serve,
        Name::Run => commands::run,
        Name::Find => commands::find,
        Name::Exchange => commands::exchange,
        Name::Conflicts => commands::conflicts,
        Name::Resolve => commands::resolve,
        Name::Report => commands::report,
        Name::Decide => commands::decide,
        Name::Undo => commands::undo,
        Name::Restore => commands::restore,
        Name::At => commands::at,
        Name::Status => commands::status,
        Name::Log => commands::log,
        Name::Digest => commands::digest,
        Name::Verify => commands::verify,
        Name::Inspect => commands::inspect,
        Name::Board => commands::board,
        Name::Completions => commands::completions,
        Name::Man => commands::man,
        Name::Demo => return demo::demo(context, run),
        // The parser has made a request for help of it.
        Name::Help => return Ok(()),
    };
    command(context)
}

#[global_allocator]
static ALLOCATOR: output::Allocator = output::Allocator;

fn main() -> ExitCode {
    packmule::sort_within_cache();
    output::end_at_panics();
    output::go_on_at_limits();
    let line: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut out = Out::new(Box::new(io::stdout().lock()));
    out.colour = output::colour_is_wanted(&io::stdout());
    // Also where the command line is too wrong to be taken apart.
    out.json = line.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let result = run(&line, &mut out);
    let mut status = 0;
    if let Err(failure) = &result {
        status = failure.status();
        if let Some(document) = failure.document() {
            out.document(&document);
        }
        // A closed standard error is no reason to panic.
        let mut told = text::safe(&text::folded(&failure.text())).into_owned();
        if output::colour_is_wanted(&io::stderr()) {
            told = output::paint(Style::Warn, &told);
        }
        let _ = io::stderr().write_all(told.as_bytes());
    }
    if let Err(e) = out.finish() {
        let _ = writeln!(io::stderr(), "packmule: standard output: {}", text::io_text(&e));
        status = status.max(1);
    }
    ExitCode::from(status)
}
