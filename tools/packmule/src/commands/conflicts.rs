//! The open conflicts: conflicts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use packmule::core::model::DeviceId;
use packmule::{Conflict, ConflictKind, ConflictVersion, Engine, OwnedValue, Selection, Way};

use super::{Context, of_db, open_to_read};
use crate::documents::{Broken, Conflicts, OpenConflicts, OwnError, RefusedDecision};
use crate::output::{Failure, Out, say};
use crate::text::{
    columns, count, cut, now, number, pairs, paragraph, plural, quoted, read_age, shell_word, show, shown,
    time,
};
use crate::usage::flags;

/// `packmule conflicts`.
pub fn conflicts(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    let selection = selection(context, &engine)?;
    let brief = context.args.has(&flags::BRIEF);
    let unsealed = engine.status().map_err(of_db(path))?.tables.iter().any(|t| t.unsealed > 0);
    let out = &mut *context.out;
    if out.json {
        let failed = RefCell::default();
        let fail = |error| *failed.borrow_mut() = Some(of_db(path)(error).own());
        let open = OpenConflicts { engine: &engine, selection: &selection, failed: &fail };
        let refused = engine.refused_decisions().map_err(of_db(path))?;
        let refused = refused.iter().map(|(id, refused)| RefusedDecision { id, refused }).collect();
        out.document(&Conflicts { conflicts: open, refused_decisions: refused, failed: Broken(&failed) });
        // What was printed stays a whole document.
        let failed = failed.borrow().as_ref().and_then(|failed: &OwnError| failed.error.clone());
        return failed
            .map_or(Ok(()), |message| Err(Failure::Reported(format!("{}: {message}", shown(path)))));
    }
    let open = engine.open_conflicts().map_err(of_db(path))?;
    match open {
        0 => say!(out, "{}: no conflict is open", shown(path)),
        n => say!(out, "{}: {}", shown(path), plural(n, "conflict is open", "conflicts are open")),
    }
    let mut groups: BTreeMap<(String, &str), u64> = BTreeMap::new();
    let printed = engine.each_conflict_of(&selection, &mut |conflict| {
        if brief {
            print_brief(&conflict, out)
        } else {
            print(path, &conflict, out)
        }
        if groups.is_empty() {
            // Whoever pages through many sees the first ones at once.
            out.flush();
        }
        *groups.entry((conflict.table, conflict.kind.word())).or_default() += 1;
        // Who closes a pipe has seen enough: nothing more is read for nobody.
        if out.closed() { Err(packmule::Error::Usage("nobody reads any more".into())) } else { Ok(()) }
    });
    if out.closed() {
        return Ok(());
    }
    printed.map_err(of_db(path))?;
    if groups.is_empty() && open > 0 {
        say!(out, "{NONE_MEANT}");
    }
    print_groups(path, &groups, out);
    print_refused(&engine.refused_decisions().map_err(of_db(path))?, out);
    if unsealed {
        say!(out);
        say!(out, "writes since the last seal are not taken into account: `packmule seal {}`", quoted(path));
    }
    Ok(())
}

/// How many decisions that were refused are told.
const REFUSED_TOLD: usize = 20;

/// Prints the decisions of applications that were refused.
fn print_refused(refused: &[(String, String)], out: &mut Out<'_>) {
    if refused.is_empty() {
        return;
    }
    say!(out);
    let n = plural(refused.len() as u64, "decision", "decisions");
    say!(out, "{n} could not be carried out, of an application or a program:");
    for (id, reason) in refused.iter().take(REFUSED_TOLD) {
        say!(out, "{}", paragraph(&format!("{id}: {reason}"), 2, 4));
    }
    if let Some(more) = refused.len().checked_sub(REFUSED_TOLD).filter(|more| *more > 0) {
        say!(out, "  … and {}", number(more as u64));
    }
}

/// What is said where conflicts are open, and none of them is meant.
pub(super) const NONE_MEANT: &str = "none of them fits what was asked for";

/// Reads which conflicts are meant.
pub(super) fn selection(context: &Context<'_, '_>, engine: &Engine) -> Result<Selection, Failure> {
    let args = &context.args;
    let ids = args.texts(1)?.into_iter().map(str::to_owned).collect();
    let by = match args.flag(&flags::CONFLICT_BY)? {
        Some(device) => Some(engine.find_device(device).map_err(of_db(args.path(0)))?),
        None => None,
    };
    let before = match args.flag(&flags::OLDER_THAN)? {
        Some(given) => Some(now().saturating_sub(read_age(given).ok_or_else(|| {
            args.wrong(format!("--older-than: `{given}` is no age; give it as 30d, 12h, 90m or 60s"))
        })?)),
        None => None,
    };
    let owned = |flag| args.flag(flag).map(|given| given.map(str::to_owned));
    Ok(Selection { ids, table: owned(&flags::CONFLICT_TABLE)?, kind: owned(&flags::KIND)?, by, before })
}

/// How much of a device's name stands in a line.
const BRIEF_NAME: usize = 14;

/// Prints a conflict in a line.
fn print_brief(conflict: &Conflict, out: &mut Out<'_>) {
    let mut said: Vec<String> = Vec::new();
    for version in &conflict.versions {
        let differing = version
            .values
            .iter()
            .filter(|(name, value)| differs(&conflict.versions, name, value))
            .map(|(_, value)| show(value));
        let differing = differing.collect::<Vec<_>>().join(", ");
        let what = match &*differing {
            _ if version.values.is_empty() => "deleted",
            // Beside deletes alone nothing differs.
            "" => version.op.word(),
            differing => differing,
        };
        // In a line there is room for what was written, and not for long names.
        let who = version.name.as_deref().unwrap_or("?");
        let who: String = match who.chars().count() > BRIEF_NAME {
            true => who.chars().take(BRIEF_NAME - 1).chain(['…']).collect(),
            false => who.to_owned(),
        };
        said.push(format!("{who}{}: {what}", if version.shown { "*" } else { "" }));
    }
    let key: Vec<String> = conflict.key.iter().map(|(_, value)| show(value)).collect();
    let line = format!(
        "{}  {} {}  {}  {}",
        conflict.id,
        conflict.table,
        key.join(" "),
        conflict.kind.word(),
        said.join(" | ")
    );
    say!(out, "{}", cut(&line));
}

/// Counts what was printed by table and kind, and says how many at once are closed.
fn print_groups(path: &Path, groups: &BTreeMap<(String, &str), u64>, out: &mut Out<'_>) {
    let all: u64 = groups.values().sum();
    if all < 2 {
        return;
    }
    say!(out);
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|((table, kind), n)| vec![format!("  {:>6}", number(*n)), (*kind).to_owned(), table.clone()])
        .collect();
    say!(out, "{}:", count(all, "conflict"));
    columns(&rows).iter().for_each(|line| say!(out, "{line}"));
    let mut kinds: Vec<&str> = groups.keys().map(|(_, kind)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    // Of the others each needs a value of its own.
    kinds.retain(|kind| !matches!(*kind, "check" | "foreign-key" | "schema"));
    if !kinds.is_empty() {
        say!(out, "many at once; --dry-run only says what would be:");
    }
    for kind in kinds {
        say!(out, "  packmule resolve {} --kind {kind} --take newest --dry-run", quoted(path));
    }
}

/// Prints a conflict: its versions, what differs between them, and how it is closed.
fn print(path: &Path, conflict: &Conflict, out: &mut Out<'_>) {
    let key = match &conflict.kind {
        ConflictKind::Schema(column) => format!("column {column}"),
        _ => pairs(&conflict.key),
    };
    say!(out);
    say!(out, "{}  {}: {key}", conflict.id, conflict.table);
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

/// What stands beside the version that is in the table.
const SHOWN: &str = "  <- the table shows this one";

fn print_version(conflict: &Conflict, version: &ConflictVersion, out: &mut Out<'_>) {
    // The two rows of a unique conflict have different keys.
    let unique = matches!(conflict.kind, ConflictKind::Unique(_));
    let at = version.at.map_or_else(String::new, |at| format!(", {}", time(at)));
    let by = version.device.map_or_else(String::new, |_| "by ".to_owned());
    let line = format!("  {} {by}{}{at}", version.op.word(), version.author());
    match version.shown {
        true if line.chars().count() + SHOWN.len() > 80 => say!(out, "{line}\n    {}", SHOWN.trim_start()),
        true => say!(out, "{line}{SHOWN}"),
        false => say!(out, "{line}"),
    }
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
    let has = |way| conflict.ways.contains(&way);
    let mut said = Vec::new();
    for version in conflict.versions.iter().filter(|_| has(Way::Take)) {
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
        if let Some(loses) = loser(conflict, id) {
            say!(out, "      {}", removes(conflict, loses));
        }
    }
    if !has(Way::Take)
        && let ConflictKind::Unique(_) = conflict.kind
        && let Some(loses) = conflict.versions.iter().find(|version| !version.shown)
    {
        say!(out, "    {resolve} --take shown");
        say!(out, "      {}", removes(conflict, loses));
    }
    if has(Way::Set) {
        say!(out, "    {resolve} --set {}", example_set(conflict));
    }
    if has(Way::Delete) {
        say!(out, "    {resolve} --delete");
        if let Some(row) = conflict.versions.first().filter(|version| !version.values.is_empty()) {
            say!(out, "      {}", removes(conflict, row));
        }
    }
    if has(Way::KeepBoth) {
        say!(out, "    {resolve} --keep-both");
    }
    if has(Way::KeepBothWith) {
        let set: Vec<String> =
            conflict.clashing.iter().map(|column| format!("{}=VALUE", shell_word(column))).collect();
        say!(out, "    {resolve} --keep-both --set {}", set.join(" "));
    }
}

/// Returns the row that is removed when a device's row is taken, of two that claim one value.
fn loser(conflict: &Conflict, taken: DeviceId) -> Option<&ConflictVersion> {
    let two = matches!(conflict.kind, ConflictKind::Unique(_));
    conflict.versions.iter().find(|version| two && version.device != Some(taken))
}

/// Says that a row is removed.
fn removes(conflict: &Conflict, version: &ConflictVersion) -> String {
    let keys = conflict.key.iter().map(|(name, _)| name);
    let values = pairs(keys.filter_map(|key| version.values.iter().find(|(name, _)| name == key)));
    let row = if values.is_empty() { "the row".into() } else { format!("the row {values}") };
    format!("removes {row} on all devices; resolve --undo brings it back")
}

/// Returns whether another version has another value in this column.
pub(super) fn differs(versions: &[ConflictVersion], name: &str, value: &OwnedValue) -> bool {
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
