//! Sending: export.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use super::{Context, of_db, open, say_left_out};
use crate::documents::Exported;
use crate::files::Target;
use crate::output::{Failure, say};
use crate::text::{count, shown, size};
use crate::usage::flags;
use packmule::{Engine, ExportReport, Recipient};

/// `packmule export`.
pub fn export(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let (path, bundle) = (args.path(0), args.path(1));
    let standard_output = bundle == Path::new("-");
    if standard_output && args.has(&flags::JSON) {
        return Err(args.wrong("standard output cannot take both the bundle and --json").into());
    }
    if standard_output && io::stdout().is_terminal() {
        return Err(args
            .wrong("a bundle is not for a terminal: give a file, or send `-` through a pipe")
            .into());
    }
    let mut engine = open(context)?;
    let peer = args.flag(&flags::FOR)?;
    let recipient = match peer {
        Some(device) => Recipient::Device(engine.find_device(device).map_err(|e| unheard(path, e))?),
        None => Recipient::Anyone,
    };
    if recipient == Recipient::Device(engine.identity().id) {
        return Err(args.wrong("--for names this device itself").into());
    }
    let whom = peer.map_or_else(|| "anyone".to_owned(), str::to_owned);
    let out = &mut *context.out;
    if standard_output {
        let report = write(&mut engine, path, bundle, out.raw(), recipient)?;
        let _ = writeln!(io::stderr(), "{}", summary("standard output", &report, &whom));
        say_left_out(context, &engine);
        return Ok(());
    }
    let mut target = Target::begin(bundle, engine.identity().id)?;
    let report = write(&mut engine, path, bundle, target.file(), recipient)?;
    let replaced = target.replaces;
    target.finish()?;
    out.document(&Exported {
        bundle: shown(bundle),
        frames: report.frames,
        groups: report.groups,
        bytes: report.bytes,
        receiver: peer,
        replaced,
        state: report.state,
    });
    say!(out, "{}", summary(&shown(bundle), &report, &whom));
    if replaced {
        say!(out, "it replaces an older bundle of this device");
    }
    if report.state {
        say!(out, "it has the state of the shared tables, in place of frames that are compacted away here");
    }
    if report.frames == 0 && peer.is_some() {
        say!(
            out,
            "as far as is known here, {whom} lacks nothing; the bundle still says what this device has"
        );
    }
    say_left_out(context, &engine);
    Ok(())
}

/// Adds that a device that was never heard of can still be sent everything.
fn unheard(db: &Path, error: packmule::Error) -> Failure {
    let none = matches!(&error, packmule::Error::Device { candidates, .. } if candidates.is_empty());
    let failure = of_db(db)(error);
    if none { failure.and("; without --for the bundle has everything, for any device") } else { failure }
}

fn write(
    engine: &mut Engine,
    db: &Path,
    bundle: &Path,
    to: &mut dyn Write,
    recipient: Recipient,
) -> Result<ExportReport, Failure> {
    let mut to = BufWriter::with_capacity(1 << 16, to);
    let written = engine.export(&mut to, recipient);
    written.map_err(|e| {
        let file = if matches!(e, packmule::Error::Stream(_)) { bundle } else { db };
        Failure::engine(file, db, e)
    })
}

fn summary(bundle: &str, report: &ExportReport, whom: &str) -> String {
    format!(
        "{bundle}: {} in {}, {}, for {whom}",
        count(report.frames, "frame"),
        count(report.groups, "group"),
        size(report.bytes)
    )
}
