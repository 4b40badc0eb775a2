//! Tables: track, untrack, seal.

use packmule::{ColumnMerge, Engine, Merge, Mode, Policy, TrackOptions};
use serde_json::json;

use super::{of_db, open};
use crate::Context;
use crate::args::Args;
use crate::failure::Failure;
use crate::output::say;
use crate::show::{count, quoted, shown};

/// `packmule track`.
pub fn track(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    check_columns(&context.args)?;
    let mut engine = open(context)?;
    let options = wanted(&context.args, &engine)?;
    let mut told = Vec::new();
    let tables = context.args.texts(1)?;
    let reports = engine.track_all(&tables, &options).map_err(of_db(path))?;
    for (table, report) in tables.into_iter().zip(reports) {
        told.push(json!({ "table": table, "already": report.already, "rows": report.rows, "advice": report.advice }));
        let out = &mut *context.out;
        if report.already {
            say!(out, "{table}: tracked in this way already");
        } else {
            say!(out, "{table}: tracked, {} taken in", count(report.rows, "row"));
        }
        for advice in &report.advice {
            say!(out, "  note: {advice}");
        }
    }
    context.out.document(json!({ "tables": told }));
    Ok(())
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

/// Wrong usage is found before the database is looked at.
fn check_columns(args: &Args) -> Result<Vec<(String, ColumnMerge)>, Failure> {
    args.all("column")?
        .into_iter()
        .map(|given| {
            let parts = given.rsplit_once('=').filter(|(name, _)| !name.is_empty());
            let column = parts.and_then(|(name, how)| Some((name.to_owned(), column_merge(how)?)));
            column.ok_or_else(|| args.wrong(format!("--column is NAME=counter|max|min|lww, not `{given}`")))
        })
        .collect()
}

fn wanted(args: &Args, engine: &Engine) -> Result<TrackOptions, Failure> {
    let policy = match args.flag("policy")? {
        None | Some("manual") => Policy::Manual,
        Some("lww") => Policy::Lww,
        Some(other) => {
            let device = other.strip_prefix("prefer-device=").unwrap_or_default();
            Policy::Prefer(engine.find_device(device).map_err(of_db(args.path(0)))?)
        }
    };
    Ok(TrackOptions {
        mode: if args.flag("mode")? == Some("per-device") { Mode::PerDevice } else { Mode::Shared },
        append: args.has("append"),
        merge: if args.flag("merge")? == Some("cell") { Merge::Cell } else { Merge::Row },
        policy,
        columns: check_columns(args)?,
    })
}

/// `packmule untrack`.
pub fn untrack(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let mut engine = open(context)?;
    let tables = context.args.texts(1)?;
    engine.untrack_all(&tables).map_err(of_db(path))?;
    for table in &tables {
        say!(context.out, "{table}: not tracked any more; its rows stay");
    }
    context.out.document(json!({ "untracked": tables }));
    Ok(())
}

/// `packmule schema`.
pub fn add_column(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let default = context.args.flag("default")?.map(crate::value::read);
    let ["add-column", table, name, decl_type] = context.args.texts(1)?[..] else {
        return Err(context
            .args
            .wrong("after the database comes `add-column`, then a table, a column's name and its type"));
    };
    let mut engine = open(context)?;
    engine.add_column(table, name, decl_type, default.as_ref()).map_err(of_db(path))?;
    say!(context.out, "{table}: has the column {name}");
    context.out.document(json!({ "table": table, "column": name, "type": decl_type }));
    Ok(())
}

/// `packmule seal`.
pub fn seal(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let mut engine = open(context)?;
    let report = engine.seal().map_err(of_db(path))?;
    let out = &mut *context.out;
    out.document(json!({ "frames": report.frames, "ops": report.ops }));
    if report.frames > 0 {
        say!(
            out,
            "{}: {} sealed in {}",
            shown(path),
            count(report.ops, "row"),
            count(report.frames, "frame")
        );
        return Ok(());
    }
    say!(out, "{}: nothing was written since the last seal", shown(path));
    let tracked =
        engine.status().map_err(of_db(path))?.tables.iter().any(|t| t.how != "not tracked any more");
    if !tracked {
        say!(out, "no table is tracked yet: `packmule track {} TABLE`", quoted(path));
    }
    Ok(())
}
