//! Conflicts decided: resolve.

use std::path::Path;

use packmule::{Decided, DecisionReport, Error, OwnedValue, Resolution, RowChange};

use super::conflicts::{NONE_MEANT, print_held, selection};
use super::{Context, of_db, open, say_carried_out};
use crate::documents::{DecidedConflict, Resolved, Undone, UndoneRow};
use crate::output::{Failure, Out, Style, engine_text, say};
use crate::text::{conflicts_open, count, cut, pairs, paragraph, plural, quoted, read, show, shown};
use crate::usage::{Args, Flag, flags};

/// How many decisions are told row by row; of more, each is a line.
const TOLD_WHOLE: usize = 20;

/// `packmule resolve`.
pub fn resolve(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    if context.args.has(&flags::UNDO) {
        return undo(context);
    }
    which(&context.args)?;
    let way = way(&context.args)?;
    let mut engine = open(context)?;
    let resolution = match way {
        Typed::Device(device) => Resolution::Take(engine.find_device(&device).map_err(of_db(&path))?),
        Typed::Plain(resolution) => resolution,
    };
    let selection = selection(context, &engine)?;
    let ids = selection.ids.len();
    let whole = ids > 0 && ids <= TOLD_WHOLE;
    let dry_run = context.args.has(&flags::DRY_RUN);
    let half_seen = dry_run && !engine.is_schema_known().map_err(of_db(&path))?;
    let out = &mut *context.out;
    let (mut first, mut removed) = (true, (0, 0));
    let mut each = |decided: Decided| {
        // Of a few each is told with what brings it back.
        for row in decided.rows.iter().filter(|row| !whole && row.removes()) {
            removed = (removed.0 + 1, removed.1 + u64::from(!row.undoable));
        }
        if out.json {
            out.text(if std::mem::take(&mut first) { "{\"decided\": [\n " } else { ",\n " });
            out.document_line(&document(&decided));
        } else {
            print(&path, &decided, (whole, dry_run), out);
        }
        Ok(())
    };
    let done = if dry_run {
        engine.rehearse(&selection, &resolution, &mut each)
    } else {
        engine.resolve_all(&selection, &resolution, &mut each)
    };
    let report = match done {
        Ok(report) => report,
        Err(error) => return Err(failed(&path, error, first, out)),
    };
    if out.json {
        let resolved = selection.ids.first().filter(|_| ids == 1);
        out.text(if first { "{\"decided\": [" } else { "\n" });
        out.text("],");
        out.rest_of_document(&Resolved { resolved, dry_run, report: &report, conflicts_open: report.open });
        say_carried_out(context, &engine);
        return Ok(());
    }
    summarise(&path, &report, (removed, dry_run), out);
    if half_seen {
        let said = format!(
            "tables were changed since the last seal: what is held by that is left out, as `packmule seal {}` says",
            quoted(&path)
        );
        say!(out, "{}", paragraph(&said, 0, 2));
    }
    print_held(&path, &engine.status().map_err(of_db(&path))?.tables, out);
    say_carried_out(context, &engine);
    if report.closed == 0 && report.refused > 0 {
        return Err(Failure::of(&path, "none of them can be closed this way, and nothing has changed"));
    }
    Ok(())
}

/// The flags that say which conflicts are meant.
static FILTERS: [&Flag; 4] = [&flags::CONFLICT_TABLE, &flags::KIND, &flags::CONFLICT_BY, &flags::OLDER_THAN];

/// Checks that it is said which conflicts are meant.
fn which(args: &Args) -> Result<(), Failure> {
    let filtered = FILTERS.into_iter().any(|flag| args.has(flag));
    let ids = args.len() > 1;
    if args.has(&flags::RESOLVE_ALL) && ids {
        return Err(args.wrong("either --all or ids").into());
    }
    if !ids && !filtered && !args.has(&flags::RESOLVE_ALL) {
        return Err(args
            .wrong("ID is missing; or say which: --all, --table T, --kind KIND, --by DEVICE")
            .into());
    }
    Ok(())
}

/// How they are closed, as it was typed.
enum Typed {
    Device(String),
    Plain(Resolution),
}

/// Reads how they are closed.
fn way(args: &Args) -> Result<Typed, Failure> {
    let given = [&flags::TAKE, &flags::SET, &flags::DELETE, &flags::KEEP_BOTH];
    let given = given.into_iter().filter(|flag| args.has(flag)).count();
    let both = args.has(&flags::KEEP_BOTH) && args.has(&flags::SET) && given == 2;
    if given != 1 && !both {
        let ways = "say how: one of --take DEVICE, --set COL=VALUE, --delete, --keep-both";
        return Err(args.wrong(ways).into());
    }
    let set = wanted_values(args)?;
    Ok(Typed::Plain(match args.flag(&flags::TAKE)? {
        Some("newest") => Resolution::Newest,
        Some("shown") => Resolution::Shown,
        Some("quarantined") => Resolution::Quarantined,
        Some(device) => return Ok(Typed::Device(device.to_owned())),
        None if args.has(&flags::DELETE) => Resolution::Delete,
        None if both => Resolution::KeepBothWith(set),
        None if args.has(&flags::KEEP_BOTH) => Resolution::KeepBoth,
        None => Resolution::Set(set),
    }))
}

/// Returns the document of a decision.
fn document(decided: &Decided) -> DecidedConflict<'_> {
    let conflict = &decided.conflict;
    DecidedConflict {
        id: &conflict.id,
        table: &conflict.table,
        key: &conflict.key,
        kind: conflict.kind.word(),
        rows: &decided.rows,
        refused: decided.refused.as_ref().map(ToString::to_string),
    }
}

/// Ends what was printed, and makes the failure.
fn failed(path: &Path, error: Error, at_once: bool, out: &mut Out<'_>) -> Failure {
    let failure = of_db(path)(error);
    if at_once || !out.json {
        return failure;
    }
    out.text("\n], \"error\": ");
    out.document_line(&failure.message());
    out.text(", \"code\": ");
    out.document_line(&failure.own().code);
    out.text(", \"file\": ");
    out.document_line(&shown(path));
    out.text("}\n");
    Failure::reported(format!("{}: {}", shown(path), failure.message()))
}

/// Prints what is decided of a conflict.
fn print(path: &Path, decided: &Decided, (whole, dry_run): (bool, bool), out: &mut Out<'_>) {
    let conflict = &decided.conflict;
    let head = format!("{}  {}: {}", conflict.id, conflict.table, pairs(&conflict.key));
    if let Some(refused) = &decided.refused {
        say!(out, "{}", cut(&head));
        let reason = engine_text(path, path, refused);
        say!(out, "{}", paragraph(&format!("stays open: {reason}"), 2, 4));
        return;
    }
    if !whole {
        let line = match &decided.rows[..] {
            [] => format!("{head}: stays as it is shown"),
            rows => {
                // What cannot be overlooked comes first.
                let (removed, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.removes());
                let changes: Vec<String> = removed.into_iter().chain(others).map(change).collect();
                // What is said of the row itself begins with its key.
                let of_row = rows.iter().any(|row| row.key == conflict.key);
                let head = if of_row { format!("{}  {}", conflict.id, conflict.table) } else { head };
                format!("{head}: {}", changes.join("; "))
            }
        };
        // Nothing hides that a row is removed.
        match decided.rows.iter().any(RowChange::removes) {
            true => out.styled(Style::Warn, &paragraph(&line, 0, 2)),
            false => say!(out, "{}", cut(&line)),
        }
        return;
    }
    say!(out, "{head}");
    if decided.rows.is_empty() {
        say!(out, "  the table stays as it is");
    }
    for row in &decided.rows {
        let told = paragraph(&change(row), 2, 4);
        if row.removes() { out.styled(Style::Warn, &told) } else { say!(out, "{told}") }
    }
    if dry_run {
        return;
    }
    if !decided.rows.iter().all(|row| row.undoable) {
        say!(out, "  it is too large for `resolve --undo`; `restore` brings back what it was");
    } else if decided.rows.iter().any(RowChange::removes) {
        say!(out, "  to bring it back: `packmule resolve {} --undo {}`", quoted(path), conflict.id);
    }
}

/// `packmule resolve --undo`.
fn undo(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, args) = (context.args.path(0).to_owned(), &context.args);
    if args.len() != 2 {
        return Err(args.wrong("--undo takes the id of one conflict").into());
    }
    let others =
        [&flags::TAKE, &flags::SET, &flags::DELETE, &flags::KEEP_BOTH, &flags::RESOLVE_ALL, &flags::DRY_RUN];
    if others.into_iter().chain(FILTERS).any(|flag| args.has(flag)) {
        return Err(args.wrong("--undo stands alone: what is open then is resolved anew").into());
    }
    let id = args.text(1)?.to_owned();
    let mut engine = open(context)?;
    let report = engine.undo_resolution(&id).map_err(of_db(&path))?;
    let open = engine.open_conflicts().map_err(of_db(&path))?;
    let out = &mut *context.out;
    out.document(&Undone {
        undone: &report.conflict,
        decided_by: &report.decided_by,
        rows: report.rows.iter().map(|(table, row)| UndoneRow { table, row }).collect(),
        conflicts_open: open,
    });
    say!(out, "{}: what {} decided is undone", report.conflict, report.decided_by);
    for (table, row) in &report.rows {
        let said = match (row.before.is_empty(), row.after.is_empty()) {
            (false, true) => format!("{} is not there any more, as before", pairs(&row.key)),
            _ => change(row),
        };
        say!(out, "{}", paragraph(&format!("{table}: {said}"), 2, 4));
    }
    say!(out, "the next bundles carry this to the other devices; the other versions stay in the log");
    if let Some(open) = conflicts_open(open, &path) {
        say!(out, "{open}");
    }
    say_carried_out(context, &engine);
    Ok(())
}

/// Says what happens to a row.
fn change(row: &RowChange) -> String {
    let key = pairs(&row.key);
    let values = |of: &[(String, OwnedValue)]| {
        pairs(of.iter().filter(|(name, _)| !row.key.iter().any(|(key, _)| key == name)))
    };
    if row.removes() {
        return format!("{key} is removed on all devices ({}); it stays in the log", values(&row.before));
    }
    if row.is_quarantined {
        return format!("{key} is quarantined: {}", values(&row.after));
    }
    if row.before.is_empty() || row.was_quarantined {
        return format!("{key} comes in: {}", values(&row.after));
    }
    let changed = row.after.iter().filter_map(|(name, value)| {
        let before = row.before.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        let was = before.map_or_else(String::new, show);
        (before != Some(value)).then(|| format!("{name} {was} -> {}", show(value)))
    });
    format!("{key} changes: {}", changed.collect::<Vec<_>>().join(", "))
}

/// Says how many were closed, and what is open.
fn summarise(
    path: &Path,
    report: &DecisionReport,
    ((removed, for_good), dry_run): ((u64, u64), bool),
    out: &mut Out<'_>,
) {
    let closed = report.closed;
    if dry_run && closed + report.refused > 0 {
        say!(out, "{} be closed; nothing has changed", plural(closed, "conflict would", "conflicts would"));
    } else if closed > 0 {
        let closed = plural(closed, "conflict is closed", "conflicts are closed");
        say!(out, "{closed}; the next bundles carry this to the other devices");
    }
    if removed > 0 {
        let rows = match dry_run {
            true => plural(removed, "row would be", "rows would be"),
            false => plural(removed, "row is", "rows are"),
        };
        let except = match for_good {
            0 => String::new(),
            n => format!(", but {} too large for that", plural(n, "one that is", "those that are")),
        };
        let said =
            format!("{rows} removed on all devices; `resolve --undo ID` brings back what ID removed{except}");
        out.styled(Style::Warn, &paragraph(&said, 0, 2));
    }
    if report.refused > 0 {
        say!(out, "{} closed this way", plural(report.refused, "conflict cannot be", "conflicts cannot be"));
    }
    let open = if dry_run { "would be open" } else { "open" };
    if report.opened > 0 {
        let new = if dry_run { "would open by this" } else { "opened by this" };
        say!(out, "{} {new}:", count(report.opened, "conflict"));
        say!(out, "{}", paragraph(&report.opened_ids.join(" "), 2, 2));
    }
    match report.open {
        0 if closed == 0 => say!(out, "{}: no conflict is open", shown(path)),
        0 if dry_run => say!(out, "no conflict {open} any more"),
        0 => say!(out, "no conflict is open any more"),
        n if dry_run && closed > 0 => {
            say!(out, "{} still be open", plural(n, "conflict would", "conflicts would"))
        }
        n => say!(
            out,
            "{} still open: `packmule conflicts {}`",
            plural(n, "conflict is", "conflicts are"),
            quoted(path)
        ),
    }
    if closed == 0 && report.refused == 0 && report.open > 0 {
        say!(out, "{NONE_MEANT}");
    }
}

/// Reads `--set`.
fn wanted_values(args: &Args) -> Result<Vec<(String, OwnedValue)>, Failure> {
    let mut values: Vec<(String, OwnedValue)> = Vec::new();
    for given in args.all(&flags::SET)? {
        let (name, value) = match given.split_once('=') {
            Some((name, value)) if !name.is_empty() => (name, value),
            _ => return Err(args.wrong(format!("--set is COL=VALUE, not `{given}`")).into()),
        };
        if values.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(args.wrong(format!("--set gives `{name}` two values")).into());
        }
        values.push((name.to_owned(), read(value)));
    }
    Ok(values)
}
