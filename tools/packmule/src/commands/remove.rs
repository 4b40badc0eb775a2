//! A database leaves Packmule: init --remove.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use packmule::Engine;

use super::{Context, of_db, options};
use crate::documents::Removed;
use crate::files::programs;
use crate::files::run_state::StateFile;
use crate::files::sources::{self, Kind};
use crate::output::{Failure, say};
use crate::text::{count, plural, quoted, shown};
use crate::usage::flags;

/// `packmule init --remove`.
pub fn remove(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    match sources::kind(&path) {
        Ok(Kind::Database) => {}
        Ok(_) => return Err(Failure::of(&path, "is not an SQLite database")),
        Err(e) => return Err(Failure::io(&path, "read it", &e)),
    }
    if context.args.has(&flags::REMOVE_DRY_RUN) {
        return rehearse(context, &path);
    }
    if !context.args.has(&flags::YES) {
        ask(context, &path)?;
    }
    // Nobody keeps its links up meanwhile; and what one that was killed left behind goes too.
    let state = StateFile::begin(&path)?;
    let report = Engine::remove(&path, &options(context)?).map_err(of_db(&path));
    state.finish();
    let report = report?;
    let keys: Vec<String> = report.keys.iter().map(|key| shown(key)).chain(programs::remove(&path)).collect();
    let out = &mut *context.out;
    say!(
        out,
        "{}: is a plain database again: {} of Packmule removed; its other tables are as they were",
        shown(&path),
        plural(report.dropped, "table or trigger", "tables and triggers")
    );
    keys.iter().for_each(|key| say!(out, "{key}: removed"));
    out.document(&Removed {
        database: shown(&path),
        dropped: report.dropped,
        key_files: keys,
        dry_run: false,
    });
    Ok(())
}

/// Says what would be removed.
fn rehearse(context: &mut Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    let lost = lost(context, path)?;
    let report = Engine::rehearse_remove(path, &options(context)?).map_err(of_db(path))?;
    let keys: Vec<String> = report.keys.iter().map(|key| shown(key)).collect();
    let out = &mut *context.out;
    let dropped = plural(report.dropped, "table or trigger", "tables and triggers");
    say!(out, "{}: {dropped} of Packmule would be removed; nothing has changed", shown(path));
    keys.iter().for_each(|key| say!(out, "{key}: would be removed"));
    say!(out, "{lost}");
    out.document(&Removed { database: shown(path), dropped: report.dropped, key_files: keys, dry_run: true });
    Ok(())
}

/// Asks whether it is meant.
fn ask(context: &Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    let lost = lost(context, path)?;
    let again = format!("`packmule init --remove {} --yes`", quoted(path));
    if !io::stdin().is_terminal() {
        return Err(Failure::of(path, format!("{lost}; if that is meant, run {again}")));
    }
    let asked = write!(io::stderr(), "{}: {lost}\nremove? [y/N] ", shown(path));
    let mut answer = String::new();
    let read = asked.and_then(|()| io::stderr().flush()).and_then(|()| io::stdin().read_line(&mut answer));
    read.map_err(|e| Failure::io(path, "ask", &e))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::of(path, "nothing was changed"))
    }
}

/// Says what will be gone.
fn lost(context: &Context<'_, '_>, path: &Path) -> Result<String, Failure> {
    let gone = "its identity, its key and its log will be gone for good";
    // One without its right key is removed all the same; what it alone has cannot be told.
    let Ok(engine) = Engine::open_with(path, options(context)?) else { return Ok(gone.into()) };
    let devices = engine.devices().map_err(of_db(path))?;
    let own = devices.iter().filter(|d| d.this).map(|d| d.shared + d.own).sum::<u64>();
    let known = devices.iter().filter(|d| !d.this).map(|d| d.acknowledged).max().unwrap_or(0);
    let unsealed: u64 = engine.status().map_err(of_db(path))?.tables.iter().map(|table| table.unsealed).sum();
    let only = own.saturating_sub(known) + unsealed;
    if only == 0 {
        return Ok(gone.into());
    }
    Ok(format!(
        "{gone}; of what was written here, {} and {} are not known to be anywhere else",
        count(own.saturating_sub(known), "frame"),
        count(unsealed, "unsealed write")
    ))
}
