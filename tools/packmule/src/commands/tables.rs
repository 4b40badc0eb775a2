//! Tables: track, untrack, schema, seal.

use super::decide::decide_by_programs;
use super::{Context, of_db, open, say_carried_out, say_left_out};
use crate::documents::{Changed, Sealed, Tracked, TrackedTable, Untracked};
use crate::files::programs::Programs;
use crate::output::{Failure, say};
use crate::text::{count, paragraph, quoted, read, shown, words, wrap};
use crate::usage::{Args, flags};
use packmule::{ColumnMerge, Engine, Merge, Mode, NewColumns, Policy, TableHow, TrackOptions};

/// `packmule track`.
pub fn track(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    check_columns(&context.args)?;
    let mut engine = open(context)?;
    let options = wanted(&context.args, &engine)?;
    let tables = context.args.texts(1)?;
    let program = custom(&context.args)?;
    if program.is_some() && options.mode == Mode::PerDevice {
        return Err(context.args.wrong("a per-device table has no conflicts for a program to decide").into());
    }
    let programs = Programs::with(path, &engine.identity().id.to_string(), &tables, program)?;
    let reports = engine.track_all(&tables, &options).map_err(of_db(path))?;
    programs.map_or(Ok(()), |programs| programs.write_beside(path))?;
    let out = &mut *context.out;
    let documents = tables.iter().zip(&reports).map(|(table, report)| TrackedTable {
        table,
        already: report.already,
        changed: report.changed,
        rows: report.rows,
        advice: &report.advice,
    });
    out.document(&Tracked { tables: documents.collect() });
    for (table, report) in tables.iter().zip(&reports) {
        if report.already {
            say!(out, "{table}: tracked in this way already");
        } else if report.changed {
            say!(out, "{table}: was tracked already, and is tracked in this way from now on");
        } else {
            say!(out, "{table}: tracked, {} taken in", count(report.rows, "row"));
        }
        if let Some(command) = program {
            let what = format!("its conflicts are decided here, by `{command}`");
            say!(out, "{}", paragraph(&what, 2, 4));
        }
        for advice in &report.advice {
            let note: Vec<String> = std::iter::once("  note:".into()).chain(words(advice)).collect();
            out.line(&wrap(&note, 4));
        }
    }
    say_carried_out(context, &engine);
    decide_by_programs(context, &mut engine);
    Ok(())
}

/// Returns the command that decides, if one is given.
fn custom(args: &Args) -> Result<Option<&str>, Failure> {
    let command = args.flag(&flags::POLICY)?.and_then(|policy| policy.strip_prefix("custom="));
    match command {
        Some(command) if command.trim().is_empty() => {
            Err(args.wrong("--policy custom=COMMAND: the command is missing").into())
        }
        command => Ok(command),
    }
}

fn column_merge(word: &str) -> Option<ColumnMerge> {
    Some(match word {
        "counter" => ColumnMerge::Counter,
        "max" => ColumnMerge::Max,
        "min" => ColumnMerge::Min,
        "lww" => ColumnMerge::Lww,
        _ => return None,
    })
}

/// Reads `--column`, before the database is opened: wrong usage is found first.
fn check_columns(args: &Args) -> Result<Vec<(String, ColumnMerge)>, Failure> {
    args.all(&flags::COLUMN)?
        .into_iter()
        .map(|given| {
            let parts = given.rsplit_once('=').filter(|(name, _)| !name.is_empty());
            let column = parts.and_then(|(name, how)| Some((name.to_owned(), column_merge(how)?)));
            let wrong = || args.wrong(format!("--column is NAME=counter|max|min|lww, not `{given}`"));
            Ok(column.ok_or_else(wrong)?)
        })
        .collect()
}

fn wanted(args: &Args, engine: &Engine) -> Result<TrackOptions, Failure> {
    let policy = match args.flag(&flags::POLICY)? {
        None | Some("manual") => Policy::Manual,
        Some("lww") => Policy::Lww,
        // What the program leaves is a person's.
        Some(custom) if custom.starts_with("custom=") => Policy::Manual,
        Some(other) => {
            let device = other.strip_prefix("prefer-device=").unwrap_or_default();
            Policy::Prefer(engine.find_device(device).map_err(of_db(args.path(0)))?)
        }
    };
    Ok(TrackOptions {
        mode: if args.flag(&flags::MODE)? == Some("per-device") { Mode::PerDevice } else { Mode::Shared },
        append: args.has(&flags::APPEND),
        key: args.flag(&flags::KEY)?.map_or_else(Vec::new, |key| key.split(',').map(str::to_owned).collect()),
        ids_shared: args.flag(&flags::IDS)?.is_some(),
        carry_deletes: args.flag(&flags::DELETES)? == Some("carry"),
        merge: if args.flag(&flags::MERGE)? == Some("cell") { Merge::Cell } else { Merge::Row },
        policy,
        columns: check_columns(args)?,
        as_others: [&flags::MERGE, &flags::POLICY, &flags::COLUMN].iter().all(|flag| !args.has(flag)),
        new_columns: args.flag(&flags::COLUMNS)?.map(|word| match word {
            "follow" => NewColumns::Follow,
            _ => NewColumns::Wait,
        }),
    })
}

/// `packmule untrack`.
pub fn untrack(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let mut engine = open(context)?;
    let mut tables: Vec<String> = context.args.texts(1)?.into_iter().map(str::to_owned).collect();
    let all = context.args.has(&flags::ALL);
    if all != tables.is_empty() {
        return Err(context.args.wrong("give the tables, or --all").into());
    }
    if all {
        let known = engine.status().map_err(of_db(path))?.tables;
        let let_go = [TableHow::Waiting, TableHow::Untracked];
        tables.extend(known.into_iter().filter(|table| !let_go.contains(&table.how)).map(|table| table.name));
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    engine.untrack_all(&tables).map_err(of_db(path))?;
    let programs = Programs::with(path, &engine.identity().id.to_string(), &tables, None)?;
    programs.map_or(Ok(()), |programs| programs.write_beside(path))?;
    if tables.is_empty() {
        say!(context.out, "no table is tracked");
    }
    for table in &tables {
        say!(context.out, "{table}: no longer tracked; its rows stay");
    }
    context.out.document(&Untracked { untracked: tables });
    say_carried_out(context, &engine);
    Ok(())
}

/// `packmule schema`.
pub fn schema(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let default = context.args.flag(&flags::DEFAULT)?.map(read);
    let wrong = |what: &str| -> Failure { context.args.wrong(what).into() };
    let (table, column, decl_type) = match context.args.texts(1)?[..] {
        ["add-column", table, column, decl_type] => (table, column, Some(decl_type)),
        ["add-column", ..] => return Err(wrong("`add-column` takes a table, a column's name and its type")),
        ["drop-column", table, column] if default.is_none() => (table, column, None),
        ["drop-column", _, _] => return Err(wrong("`drop-column` takes no --default: the column goes")),
        ["drop-column", ..] => return Err(wrong("`drop-column` takes a table and a column's name, no type")),
        _ => return Err(wrong("after the database comes `add-column` or `drop-column`, then a table")),
    };
    let mut engine = open(context)?;
    match decl_type {
        Some(decl_type) => {
            engine.add_column(table, column, decl_type, default.as_ref()).map_err(of_db(path))?;
            say!(context.out, "{table}: has the column {column}");
        }
        None => {
            engine.drop_column(table, column).map_err(of_db(path))?;
            say!(context.out, "{table}: no longer has the column {column}");
        }
    }
    context.out.document(&Changed { table, column, decl_type });
    say_carried_out(context, &engine);
    Ok(())
}

/// `packmule seal`.
pub fn seal(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let mut engine = open(context)?;
    let report = engine.seal().map_err(of_db(path))?;
    let out = &mut *context.out;
    out.document(&Sealed { frames: report.frames, ops: report.ops });
    if report.frames > 0 {
        say!(
            out,
            "{}: {} sealed in {}",
            shown(path),
            count(report.ops, "row"),
            count(report.frames, "frame")
        );
    } else {
        say!(out, "{}: nothing was written since the last seal", shown(path));
        let tables = engine.status().map_err(of_db(path))?.tables;
        if tables.iter().all(|table| table.how == TableHow::Untracked) {
            say!(out, "no table is tracked yet: `packmule track {} TABLE`", quoted(path));
        }
    }
    say_left_out(context, &engine);
    Ok(())
}
