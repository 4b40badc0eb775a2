//! What all have: compact, snapshot.

use std::io::BufWriter;

use super::{Context, of_db, open};
use crate::documents::SnapshotWritten;
use crate::files::Target;
use crate::output::{Failure, say};
use crate::text::{count, quoted, shown, size};

/// `packmule compact`.
pub fn compact(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    let mut engine = open(context)?;
    let report = engine.compact().map_err(of_db(&path))?;
    let alone = engine.devices().map_err(of_db(&path))?.len() == 1;
    let held = report.held_back_by.as_ref();
    let out = &mut *context.out;
    out.document(&report);
    say!(
        out,
        "compacted away {} ({}) that every device has; {} left in the log",
        count(report.frames, "frame"),
        size(report.bytes),
        count(report.frames_left, "frame")
    );
    if alone && report.frames_left > 0 {
        say!(out, "no other device is known yet: nothing is compacted away before another one has it");
    }
    if let Some((device, frames)) = held {
        say!(
            out,
            "{device} is not known to have {}: the log keeps them until it is heard of, or `packmule retire {} {device}`",
            count(*frames, "frame"),
            quoted(&path)
        );
    }
    Ok(())
}

/// `packmule snapshot`.
pub fn snapshot(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, file) = (context.args.path(0).to_owned(), context.args.path(1).to_owned());
    let mut engine = open(context)?;
    let mut target = Target::begin(&file, engine.identity().id)?;
    let report = {
        let mut to = BufWriter::with_capacity(1 << 16, target.file());
        engine.snapshot(&mut to).map_err(|e| {
            let about = if matches!(e, packmule::Error::Stream(_)) { &file } else { &path };
            Failure::engine(about, &path, e)
        })?
    };
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
