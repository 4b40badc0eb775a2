//! What others have: compact, prune, snapshot.

use std::io::{BufWriter, Write};
use std::time::Duration;

use super::{Context, check_standard_output, is_standard_output, of_db, open};
use crate::documents::SnapshotWritten;
use crate::files::Target;
use crate::output::{Failure, say};
use crate::text::{count, number, plural, quoted, read_age, read_size, shown, size};
use crate::usage::{Args, flags};
use packmule::{CompactReport, Engine, Keep, PruneReport};

/// `packmule compact`.
pub fn compact(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    let age = match context.args.flag(&flags::COMPACT_KEEP)? {
        Some(given) => Some(read_age(given).and_then(|age| age.try_into().ok()).ok_or_else(|| {
            context.args.wrong(format!("--keep: `{given}` is no age; give it as 30d, 12h, 90m or 60s"))
        })?),
        None => None,
    };
    let mut engine = open(context)?;
    let age = age.map(Duration::from_millis);
    let dry_run = context.args.has(&flags::DRY_RUN);
    let report = match age {
        _ if dry_run => engine.rehearse_compact(age),
        Some(age) => engine.compact_keeping(age),
        None => engine.compact(),
    };
    let report = report.map_err(of_db(&path))?;
    let alone = engine.devices().map_err(of_db(&path))?.len() == 1;
    let held = report.held_back_by.as_ref();
    let out = &mut *context.out;
    out.document(&report);
    if dry_run {
        let frames = plural(report.frames, "frame would", "frames would");
        let left = count(report.frames_left, "frame");
        say!(
            out,
            "{frames} be compacted away ({}), and {left} left; nothing has changed",
            size(report.bytes)
        );
    } else {
        say!(out, "{}", compacted(&report));
    }
    if alone && report.frames_left > 0 {
        say!(out, "no other device is known yet: nothing is compacted away before another one has it");
    }
    if let Some((device, frames)) = held {
        say!(
            out,
            "{device} is not known to have {}, which the log keeps until it is heard of, or `packmule retire {} {device}`",
            count(*frames, "frame"),
            quoted(&path)
        );
    }
    Ok(())
}

/// Says what a compaction did.
pub fn compacted(report: &CompactReport) -> String {
    format!(
        "compacted away {} ({}) that every device has; {} left in the log",
        count(report.frames, "frame"),
        size(report.bytes),
        count(report.frames_left, "frame")
    )
}

/// `packmule prune`.
pub fn prune(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let keep = wanted(&context.args)?;
    let table = context.args.text(1)?;
    let mut engine = open(context)?;
    let dry_run = context.args.has(&flags::DRY_RUN);
    let report = if dry_run { engine.rehearse_prune(table, keep) } else { engine.prune(table, keep) };
    let report = report.map_err(of_db(path))?;
    let out = &mut *context.out;
    out.document(&report);
    match &report.base {
        Some(base) if dry_run => say!(
            out,
            "{table}: {} be deleted that the base {base} has; nothing has changed",
            plural(report.rows, "row would", "rows would")
        ),
        _ => say!(out, "{table}: {}", pruned(&report)),
    }
    if report.unacknowledged > 0 {
        let stay = plural(report.unacknowledged, "row stays, which", "rows stay, which");
        say!(out, "{stay} no base is known to have");
    }
    Ok(())
}

/// Says what a pruning did.
pub fn pruned(report: &PruneReport) -> String {
    match &report.base {
        Some(base) => format!(
            "{} deleted that the base {base} has, by its own word; {} left",
            count(report.rows, "row"),
            number(report.rows_left)
        ),
        None => "nothing deleted: no base is known to have any of its rows".to_owned(),
    }
}

/// Reads which rows stay: exactly one of the three.
fn wanted(args: &Args) -> Result<Keep, Failure> {
    let given =
        [args.flag(&flags::PRUNE_KEEP)?, args.flag(&flags::PRUNE_ROWS)?, args.flag(&flags::PRUNE_FREE)?];
    let keep = match given {
        [Some(age), None, None] => read_age(age).and_then(|age| age.try_into().ok()).map(Keep::Recent),
        [None, Some(rows), None] => rows.parse().ok().map(Keep::Rows),
        [None, None, Some(size)] => read_size(size).map(Keep::Free),
        _ => return Err(args.wrong("give one of --keep AGE (30d), --rows N, --free SIZE (200M)").into()),
    };
    Ok(keep
        .ok_or_else(|| args.wrong("an age is 30d, 12h, 90m or 60s, N a number, a size 500K, 200M or 1G"))?)
}

/// `packmule snapshot`.
pub fn snapshot(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, file) = (context.args.path(0).to_owned(), context.args.path(1).to_owned());
    let is_piped = is_standard_output(&file);
    if is_piped {
        check_standard_output(&context.args, "snapshot")?;
    }
    let mut engine = open(context)?;
    let write = |engine: &mut Engine, to: &mut dyn Write| {
        engine.snapshot(&mut BufWriter::with_capacity(1 << 16, to)).map_err(|e| {
            let about = if matches!(e, packmule::Error::Stream(_)) { &file } else { &path };
            Failure::engine(about, &path, e)
        })
    };
    if is_piped {
        return write(&mut engine, context.out.raw()).map(drop);
    }
    let mut target = Target::begin(&file, &engine, None)?;
    let report = write(&mut engine, target.file())?;
    target.finish()?;
    let out = &mut *context.out;
    out.document(&SnapshotWritten {
        snapshot: shown(&file),
        tables: report.tables,
        rows: report.rows,
        frames: report.frames,
        bytes: report.bytes,
    });
    say!(
        out,
        "{}: {} of {}, {} in flight, {}",
        shown(&file),
        count(report.rows, "row"),
        count(report.tables, "shared table"),
        count(report.frames, "frame"),
        size(report.bytes)
    );
    say!(out, "on the new device: `packmule join DB {}`", quoted(&file));
    Ok(())
}
