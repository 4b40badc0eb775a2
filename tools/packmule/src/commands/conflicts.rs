//! Conflicts: conflicts, resolve.

use std::cell::RefCell;
use std::path::Path;

use packmule::{Conflict, ConflictKind, ConflictVersion, OwnedValue, Resolution};

use super::{Context, of_db, open, open_to_read};
use crate::documents::{Conflicts, OpenConflicts, Resolved};
use crate::output::{Failure, Out, say};
use crate::text::{columns, count, plural, quoted, read, shell_word, show, shown, time};
use crate::usage::{Args, flags};

/// `packmule conflicts`.
pub fn conflicts(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    let status = engine.status().map_err(of_db(path))?;
    let unsealed = status.tables.iter().any(|t| t.unsealed > 0);
    let out = &mut *context.out;
    if out.json {
        let failed = RefCell::default();
        out.document(&Conflicts { conflicts: OpenConflicts { engine: &engine, failed: &failed } });
        // What was printed stays a whole document.
        let failed = failed.into_inner().map(|e| of_db(path)(e).message().to_owned());
        return failed
            .map_or(Ok(()), |message| Err(Failure::Reported(format!("{}: {message}", shown(path)))));
    }
    match status.conflicts {
        0 => say!(out, "{}: no conflict is open", shown(path)),
        n => say!(out, "{}: {}", shown(path), plural(n, "conflict is open", "conflicts are open")),
    }
    let printed = engine.each_conflict(&mut |conflict| {
        if !out.closed() {
            print(path, &conflict, out);
        }
        Ok(())
    });
    printed.map_err(of_db(path))?;
    if unsealed {
        say!(out);
        say!(out, "writes since the last seal are not taken into account: `packmule seal {}`", quoted(path));
    }
    Ok(())
}

/// Prints a conflict: its versions, what differs between them, and how it is closed.
fn print(path: &Path, conflict: &Conflict, out: &mut Out<'_>) {
    let key: Vec<String> = match &conflict.kind {
        ConflictKind::Schema(column) => vec![format!("column {column}")],
        _ => conflict.key.iter().map(|(name, value)| format!("{name} = {}", show(value))).collect(),
    };
    say!(out);
    say!(out, "{}  {}: {}", conflict.id, conflict.table, key.join(", "));
    say!(out, "  {}", why(&conflict.kind));
    conflict.versions.iter().for_each(|version| print_version(conflict, version, out));
    let by: Vec<String> = conflict
        .referred_by
        .iter()
        .map(|(table, rows)| format!("{} of {table}", count(*rows, "row")))
        .collect();
    if !by.is_empty() {
        say!(out, "  referred to by {}: --keep-both takes along", by.join(", "));
        say!(out, "  those of the author whose row gets a new key");
    }
    print_ways(path, conflict, out);
}

fn print_version(conflict: &Conflict, version: &ConflictVersion, out: &mut Out<'_>) {
    // The two rows of a unique conflict have different keys.
    let unique = matches!(conflict.kind, ConflictKind::Unique(_));
    let at = version.at.map_or_else(String::new, |at| format!(", {}", time(at)));
    let shown = if version.shown { "  <- the table shows this one" } else { "" };
    let by = version.device.map_or_else(String::new, |_| "by ".to_owned());
    say!(out, "  {} {by}{}{at}{shown}", version.op.word(), version.author());
    let rows: Vec<Vec<String>> = version
        .values
        .iter()
        .filter(|(name, _)| unique || !conflict.key.iter().any(|(key, _)| key == name))
        .map(|(name, value)| {
            let mark = if differs(&conflict.versions, name, value) { "*" } else { " " };
            vec![format!("    {mark} {name}"), format!("= {}", show(value))]
        })
        .collect();
    columns(&rows).iter().for_each(|line| say!(out, "{line}"));
}

/// Prints the commands that close a conflict.
fn print_ways(path: &Path, conflict: &Conflict, out: &mut Out<'_>) {
    say!(out, "  to close it:");
    let resolve = format!("packmule resolve {} {}", quoted(path), conflict.id);
    let take = !matches!(conflict.kind, ConflictKind::ForeignKey(..) | ConflictKind::Check(_));
    let mut said = Vec::new();
    for version in conflict.versions.iter().filter(|_| take) {
        if said.contains(&version.device) {
            continue;
        }
        said.push(version.device);
        let Some(id) = version.device else { continue };
        let one_of_a_name = |v: &&ConflictVersion| v.name == version.name && v.device != Some(id);
        let who = match &version.name {
            Some(name) if !conflict.versions.iter().any(|v| one_of_a_name(&v)) => name.clone(),
            _ => version.author(),
        };
        say!(out, "    {resolve} --take {}", shell_word(&who));
    }
    if matches!(conflict.kind, ConflictKind::Schema(_)) {
        return;
    }
    say!(out, "    {resolve} --set {}", example_set(conflict));
    say!(out, "    {resolve} --delete");
    if matches!(conflict.kind, ConflictKind::InsertInsert | ConflictKind::UpdateUpdate) {
        say!(out, "    {resolve} --keep-both");
    }
}

/// Returns whether another version has another value in this column.
fn differs(versions: &[ConflictVersion], name: &str, value: &OwnedValue) -> bool {
    versions
        .iter()
        .filter(|v| !v.values.is_empty())
        .any(|v| v.values.iter().find(|(n, _)| n == name).is_none_or(|(_, other)| other != value))
}

/// Makes an example of `--set`.
fn example_set(conflict: &Conflict) -> String {
    let values = conflict.versions.iter().flat_map(|v| &v.values);
    let open: Vec<&(String, OwnedValue)> = values
        .filter(|(name, value)| {
            !conflict.key.iter().any(|(key, _)| key == name) && differs(&conflict.versions, name, value)
        })
        .collect();
    // A counter takes no text.
    if let (ConflictKind::InsertInsert | ConflictKind::UpdateUpdate, Some((name, value))) =
        (&conflict.kind, open.first())
        && matches!(value, OwnedValue::Int(_) | OwnedValue::Real(_))
    {
        return format!("{}={}", shell_word(name), show(value));
    }
    let column = match &conflict.kind {
        ConflictKind::Unique(columns) | ConflictKind::ForeignKey(columns, _) => {
            columns.first().map(String::as_str)
        }
        _ => open.first().map(|(name, _)| name.as_str()),
    };
    format!("{}=VALUE", shell_word(column.unwrap_or("COLUMN")))
}

/// Says what kind of conflict it is.
fn why(kind: &ConflictKind) -> String {
    match kind {
        ConflictKind::InsertInsert => "insert/insert: devices made different rows under one key".into(),
        ConflictKind::UpdateUpdate => {
            "update/update: devices changed the row differently, and neither had seen the other's change"
                .into()
        }
        ConflictKind::Schema(column) => format!(
            "schema: devices declared {column} differently: the column and what they write into it wait until one is taken"
        ),
        ConflictKind::UpdateDelete => "update/delete: one device deleted the row, another changed it".into(),
        ConflictKind::Unique(columns) => {
            format!("unique: another row has the same {}, so this one is quarantined", columns.join(", "))
        }
        ConflictKind::Check(reason) => {
            format!("check: the row breaks a constraint here, so it is quarantined: {reason}")
        }
        ConflictKind::ForeignKey(columns, parent) => {
            format!("foreign-key: {} refers to a row of `{parent}` that is not there", columns.join(", "))
        }
        other => other.word().into(),
    }
}

/// `packmule resolve`.
pub fn resolve(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let path = args.path(0);
    let given = [&flags::TAKE, &flags::SET, &flags::DELETE, &flags::KEEP_BOTH];
    let given = given.into_iter().filter(|flag| args.has(flag)).count();
    if given != 1 {
        return Err(args
            .wrong("say how: one of --take DEVICE, --set COL=VALUE, --delete, --keep-both")
            .into());
    }
    let set = wanted_values(args)?;
    let id = args.text(1)?;
    let mut engine = open(context)?;
    let resolution = match args.flag(&flags::TAKE)? {
        Some(device) => Resolution::Take(engine.find_device(device).map_err(of_db(path))?),
        None if args.has(&flags::DELETE) => Resolution::Delete,
        None if args.has(&flags::KEEP_BOTH) => Resolution::KeepBoth,
        None => Resolution::Set(set),
    };
    engine.resolve(id, &resolution).map_err(of_db(path))?;
    let left = engine.status().map_err(of_db(path))?.conflicts;
    let out = &mut *context.out;
    out.document(&Resolved { resolved: id, conflicts_open: left });
    say!(out, "{id} is closed; the next bundles carry this to the other devices");
    match left {
        0 => say!(out, "no conflict is open any more"),
        n => say!(out, "{} still open", plural(n, "conflict is", "conflicts are")),
    }
    Ok(())
}

/// Reads `--set`.
fn wanted_values(args: &Args) -> Result<Vec<(String, OwnedValue)>, Failure> {
    args.all(&flags::SET)?
        .into_iter()
        .map(|given| match given.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), read(value))),
            _ => Err(args.wrong(format!("--set is COL=VALUE, not `{given}`")).into()),
        })
        .collect()
}
