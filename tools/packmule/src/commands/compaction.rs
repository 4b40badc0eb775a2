//! What all have, and newcomers: compact, snapshot, join, retire.

use std::fs::File;
use std::io::BufWriter;

use packmule::{Engine, FleetKey, JoinOptions};
use serde_json::json;

use super::{json_path, of_db, open, options};
use crate::Context;
use crate::failure::Failure;
use crate::output::say;
use crate::show::{count, quoted, shown, size};
use crate::target::Target;

/// `packmule compact`.
pub fn compact(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    let mut engine = open(context)?;
    let report = engine.compact().map_err(of_db(&path))?;
    let alone = engine.devices().map_err(of_db(&path))?.len() == 1;
    let held = report.held_back_by.as_ref();
    let out = &mut *context.out;
    out.document(json!({
        "frames_folded": report.frames,
        "bytes_folded": report.bytes,
        "versions_forgotten": report.versions,
        "frames_left": report.frames_left,
        "held_back_by": held.map(|(device, frames)| json!({ "device": device, "frames": frames })),
    }));
    say!(
        out,
        "folded {} ({}) that every device has; {} left in the log",
        count(report.frames, "frame"),
        size(report.bytes),
        count(report.frames_left, "frame")
    );
    if alone && report.frames_left > 0 {
        say!(out, "no other device is known yet: nothing is folded before another one has it");
    }
    if let Some((device, frames)) = held {
        say!(
            out,
            "{device} is not known to have {}: they stay until it is heard of, or `packmule retire {} {device}`",
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
    out.document(json!({
        "snapshot": json_path(&file),
        "tables": report.tables,
        "rows": report.rows,
        "frames": report.frames,
        "bytes": report.bytes,
    }));
    say!(
        out,
        "{}: {} of {}, {} in flight, {}",
        shown(&file),
        count(report.rows, "row"),
        count(report.tables, "shared table"),
        count(report.frames, "frame"),
        size(report.bytes)
    );
    say!(out, "on the newcomer: `packmule join DB {}`", quoted(&file));
    Ok(())
}

/// `packmule join`.
pub fn join(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let (path, file) = (args.path(0).to_owned(), args.path(1).to_owned());
    let fleet = match args.flag_path("fleet") {
        Some(key) => Some(FleetKey::open(key).map_err(|e| Failure::engine(key, &path, e))?),
        None => None,
    };
    let name = args.flag("name")?.map_or_else(super::device::host_name, str::to_owned);
    let new = !path.exists();
    let named = new || args.has("name");
    let asked = JoinOptions { name: named.then_some(name.as_str()), fleet: fleet.as_ref() };
    let mut from = File::open(&file).map_err(|e| Failure::of(&file, format!("cannot be opened: {e}")))?;
    let joined = Engine::join(&path, &mut from, &asked, options(context)?);
    let (engine, report) = joined.map_err(|e| {
        use packmule::Error::{Bundle, Stream, Usage};
        let about = if matches!(e, Bundle { .. } | Stream(_) | Usage(_)) { &file } else { &path };
        Failure::engine(about, &path, e)
    })?;
    let identity = engine.identity();
    let out = &mut *context.out;
    out.document(json!({
        "database": json_path(&path),
        "name": identity.name,
        "fingerprint": identity.id.to_string(),
        "maker": report.maker.map(|id| json!({ "id": id.to_string(), "name": report.maker_name })),
        "rows": report.rows,
        "frames": report.frames,
        "kept": report.kept,
        "new_identity": report.new_identity,
    }));
    say!(
        out,
        "{} starts from what {} had: {}, {} in flight",
        shown(&path),
        report.maker_name,
        count(report.rows, "row"),
        count(report.frames, "frame")
    );
    if report.kept > 0 {
        say!(
            out,
            "{} of its own that nobody had heard of: sealed anew, for the next bundle",
            count(report.kept, "row")
        );
    }
    let what = if report.new_identity {
        "a new identity, since its old one has no place in the log any more"
    } else {
        "its identity"
    };
    say!(out, "  {what}: {} {}", identity.name, identity.id);
    if identity.fleet.is_none() {
        say!(out, "  no fleet vouches for it: other devices take its frames in after `packmule trust`");
    }
    Ok(())
}

/// `packmule retire`.
pub fn retire(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    let given = context.args.text(1)?.to_owned();
    let mut engine = open(context)?;
    let id = engine.find_device(&given).map_err(of_db(&path))?;
    engine.retire(id).map_err(of_db(&path))?;
    let out = &mut *context.out;
    out.document(json!({ "retired": id.to_string() }));
    say!(out, "{given} is retired: the log does not wait for it any more, here and wherever this is carried");
    say!(out, "should it come back, it starts anew with `packmule join` and loses nothing that it wrote");
    Ok(())
}
