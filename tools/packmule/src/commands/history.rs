//! What was overwritten, brought back: undo, restore, at.

use packmule::{OwnedValue, RowChange};

use super::{Context, of_db, open, open_to_read, say_carried_out};
use crate::documents::{AtWritten, Restored, TakenBackWrites};
use crate::files::folder;
use crate::output::{Failure, say};
use crate::text::{conflicts_open, count, cut, pairs, paragraph, plural, read, read_when, shown};
use crate::usage::{Args, flags};

/// How many rows are told one by one.
const ROWS_TOLD: u64 = 200;

/// Reads a time that was typed.
fn when(args: &Args, given: &str) -> Result<i64, Failure> {
    Ok(read_when(given).map_err(|wrong| args.wrong(wrong))?)
}

/// `packmule undo`.
pub fn undo(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, args) = (context.args.path(0).to_owned(), &context.args);
    let (Some(by), Some(since)) = (args.flag(&flags::BY)?, args.flag(&flags::SINCE)?) else {
        return Err(args.wrong("say whose writes, and since when: --by DEVICE --since TIME").into());
    };
    let since = when(args, since)?;
    let dry_run = args.has(&flags::DRY_RUN);
    let mut engine = open(context)?;
    let device = engine.find_device(by).map_err(of_db(&path))?;
    let out = &mut *context.out;
    let mut told = 0;
    let report = engine
        .take_back_writes(device, since, dry_run, &mut |table, row| {
            told += 1;
            if told <= ROWS_TOLD {
                say!(out, "{}", cut(&format!("{table}: {}", change(&row))));
            }
            Ok(())
        })
        .map_err(of_db(&path))?;
    let open = engine.open_conflicts().map_err(of_db(&path))?;
    out.document(&TakenBackWrites { report: &report, dry_run, conflicts_open: open });
    if told > ROWS_TOLD {
        say!(out, "… and {} more", told - ROWS_TOLD);
    }
    let rows = report.rows;
    if rows == 0 {
        say!(out, "there is nothing to take back; nothing has changed");
    } else if dry_run {
        let rows = plural(rows, "row would be as it was before", "rows would be as they were before");
        say!(out, "{rows}; nothing has changed");
    } else {
        let rows = plural(rows, "row is as it was before", "rows are as they were before");
        say!(out, "{rows}; the next bundles carry this");
    }
    if report.unknown > 0 {
        let rows = plural(report.unknown, "row stays as it is", "rows stay as they are");
        say!(out, "{rows}: what was before is compacted away here, or too large");
    }
    if !dry_run {
        conflicts_open(open, &path).iter().for_each(|open| say!(out, "{open}"));
    }
    say_carried_out(context, &engine);
    Ok(())
}

/// Says how a row changes.
fn change(row: &RowChange) -> String {
    let key = pairs(&row.key);
    if row.after.is_empty() {
        return format!("{key} is deleted");
    }
    let changed = row.after.iter().filter(|value| !row.before.contains(value) && !row.key.contains(value));
    let changed = pairs(changed);
    if row.before.is_empty() { format!("{key} comes back: {changed}") } else { format!("{key}: {changed}") }
}

/// `packmule restore`.
pub fn restore(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, args) = (context.args.path(0).to_owned(), &context.args);
    let wrong = || args.wrong("say which version: --from DEVICE:FRAME, as `log TABLE KEY` shows them");
    let (device, frame) =
        args.flag(&flags::FROM)?.and_then(|from| from.rsplit_once(':')).ok_or_else(wrong)?;
    let frame: u64 = frame.parse().map_err(|_| wrong())?;
    let table = args.text(1)?;
    let key: Vec<OwnedValue> = args.texts(2)?.into_iter().map(read).collect();
    let dry_run = args.has(&flags::DRY_RUN);
    let mut engine = open(context)?;
    let author = engine.find_device(device).map_err(of_db(&path))?;
    let change = engine.restore(table, &key, (author, frame), dry_run).map_err(of_db(&path))?;
    let out = &mut *context.out;
    let open = engine.open_conflicts().map_err(of_db(&path))?;
    out.document(&Restored { table, changed: change.is_some(), dry_run, conflicts_open: open });
    match change {
        Some(row) => {
            say!(out, "{}", paragraph(&format!("{table}: {}", self::change(&row)), 0, 2));
            let then = "the next bundles carry this to the other devices";
            say!(out, "{}", if dry_run { "so it would be; nothing has changed" } else { then });
        }
        None => say!(out, "{table}: the row is so already"),
    }
    if !dry_run {
        conflicts_open(open, &path).iter().for_each(|open| say!(out, "{open}"));
    }
    say_carried_out(context, &engine);
    Ok(())
}

/// `packmule at`.
pub fn at(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, args) = (context.args.path(0).to_owned(), &context.args);
    let (given, file) = (args.text(1)?.to_owned(), args.path(2).to_owned());
    let time = when(args, &given)?;
    if let Err(e) = folder(&file).metadata() {
        return Err(Failure::io(&file, "make it in that folder", &e));
    }
    let engine = open_to_read(context)?;
    let report = engine.at(time, &file).map_err(of_db(&path))?;
    let out = &mut *context.out;
    out.document(&AtWritten { database: shown(&file), report: &report });
    let rows = count(report.rows, "row");
    say!(out, "{}: the tables as they were at {given}; {rows} written to since", shown(&file));
    if report.unknown > 0 {
        let rows = plural(report.unknown, "of these rows is as it is", "of these rows are as they are");
        say!(out, "{rows} now: what was before is compacted away here, or too large");
    }
    Ok(())
}
