//! The open conflicts: conflicts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use packmule::core::model::DeviceId;
use packmule::{
    Conflict, ConflictKind, ConflictVersion, Engine, OwnedValue, Selection, TableHow, TableStatus, VersionOp,
    Way, label,
};

use super::{Context, of_db, open_to_read};
use crate::documents::{Broken, Conflicts, OpenConflicts, OwnError, RefusedDecision};
use crate::output::{Failure, Out, Style, say};
use crate::text::{
    beginning, columns, count, cut, now, number, pairs, paragraph, plural, quoted, read_age, shell_word,
    show, shown, time, width,
};
use crate::usage::flags;

/// `packmule conflicts`.
pub fn conflicts(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    let selection = selection(context, &engine)?;
    let brief = context.args.has(&flags::BRIEF);
    let tables = engine.status().map_err(of_db(path))?.tables;
    let unsealed = tables.iter().any(|t| t.unsealed > 0);
    if !brief && !engine.is_schema_known().map_err(of_db(path))? {
        // Where a table is not what it was they may not be readable: that is said alone, and not after some of them.
        engine.each_conflict_of(&selection, &mut |_| Ok(())).map_err(of_db(path))?;
    }
    let out = &mut *context.out;
    if out.json {
        return print_document(path, &engine, &selection, out);
    }
    let open = engine.open_conflicts().map_err(of_db(path))?;
    match open {
        0 => say!(out, "{}: no conflict is open", shown(path)),
        n => {
            let marked = if brief { "; * stands beside what the table shows" } else { "" };
            let open = plural(n, "conflict is open", "conflicts are open");
            say!(out, "{}", paragraph(&format!("{}: {open}{marked}", shown(path)), 0, 2));
        }
    }
    let called = Called::in_fleet(&engine).map_err(of_db(path))?;
    let (mut groups, mut one) = (Groups::new(), None);
    let mut each = |conflict: Conflict| {
        if brief {
            print_brief(&conflict, out);
            one.get_or_insert_with(|| conflict.id.clone());
        } else {
            print((path, &engine), (&conflict, &called), out);
        }
        if groups.is_empty() {
            // Whoever pages through many sees the first ones at once.
            out.flush();
        }
        *groups.entry((conflict.table, conflict.kind.word())).or_default() += 1;
        // Who closes a pipe has seen enough: nothing more is read for nobody.
        if out.closed() { Err(packmule::Error::Usage("nobody reads any more".into())) } else { Ok(()) }
    };
    let printed = match brief {
        true => engine.each_conflict_in_brief(&selection, &mut each),
        false => engine.each_conflict_of(&selection, &mut each),
    };
    if out.closed() {
        return Ok(());
    }
    printed.map_err(of_db(path))?;
    if groups.is_empty() && open > 0 {
        print_open(&engine, out).map_err(of_db(path))?;
    }
    print_groups(path, &groups, out);
    if let Some(one) = one {
        say!(out, "one of them whole: `packmule conflicts {} {one}`", quoted(path));
    }
    print_refused(&engine.refused_decisions().map_err(of_db(path))?, out);
    print_held(path, &tables, out);
    if unsealed {
        say!(out);
        say!(out, "writes since the last seal are not taken into account: `packmule seal {}`", quoted(path));
    }
    Ok(())
}

/// Prints the document of the open conflicts.
fn print_document(
    path: &Path,
    engine: &Engine,
    selection: &Selection,
    out: &mut Out<'_>,
) -> Result<(), Failure> {
    let failed = RefCell::default();
    let fail = |error| *failed.borrow_mut() = Some(of_db(path)(error).own());
    let open = OpenConflicts { engine, selection, failed: &fail };
    let refused = engine.refused_decisions().map_err(of_db(path))?;
    let refused = refused.iter().map(|(id, refused)| RefusedDecision { id, refused }).collect();
    out.document(&Conflicts { conflicts: open, refused_decisions: refused, failed: Broken(&failed) });
    // What was printed stays a whole document.
    let failed = failed.borrow().as_ref().and_then(|failed: &OwnError| failed.error.clone());
    failed.map_or(Ok(()), |message| Err(Failure::reported(format!("{}: {message}", shown(path)))))
}

/// How many there are of each table and kind.
type Groups = BTreeMap<(String, &'static str), u64>;

/// Says that nothing fits what was asked for, and what there is.
fn print_open(engine: &Engine, out: &mut Out<'_>) -> packmule::Result<()> {
    let mut groups = Groups::new();
    engine.each_conflict_in_brief(&Selection::default(), &mut |conflict| {
        *groups.entry((conflict.table, conflict.kind.word())).or_default() += 1;
        Ok(())
    })?;
    say!(out, "{NONE_MEANT}; open are:");
    counted(&groups).iter().for_each(|line| say!(out, "{line}"));
    Ok(())
}

/// Makes a line for each table and kind.
fn counted(groups: &Groups) -> Vec<String> {
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|((table, kind), n)| vec![format!("  {:>6}", number(*n)), (*kind).to_owned(), table.clone()])
        .collect();
    columns(&rows)
}

/// Says of which tables no conflict is told, since they are held.
pub(super) fn print_held(path: &Path, tables: &[TableStatus], out: &mut Out<'_>) {
    let held = tables.iter().filter(|table| table.how == TableHow::Suspended);
    let held: Vec<String> = held.map(|table| format!("`{}`", table.name)).collect();
    if !held.is_empty() {
        let (held, path) = (held.join(", "), quoted(path));
        let said =
            format!("what is open in tables that are held ({held}) is left out: `packmule status {path}`");
        say!(out, "{}", paragraph(&said, 0, 2));
    }
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

/// Returns a device's name, so much of it as has room in a line beside what was written.
fn brief_name(version: &ConflictVersion) -> String {
    let name = version.name.as_deref().unwrap_or("?");
    match width(name) > BRIEF_NAME {
        true => format!("{}…", beginning(name, BRIEF_NAME - 1)),
        false => name.to_owned(),
    }
}

/// Returns the same of two devices whose names are no different so far: with the beginning of its id.
fn brief_label(version: &ConflictVersion) -> String {
    let Some(device) = version.device else { return brief_name(version) };
    let (name, id) = (version.name.as_deref().unwrap_or("?"), device.to_string());
    let short = beginning(name, BRIEF_NAME - 9);
    format!("{short}-{}", &id[..8])
}

/// Prints a conflict in a line.
fn print_brief(conflict: &Conflict, out: &mut Out<'_>) {
    let mut said: Vec<String> = Vec::new();
    // Of one row alone nothing differs.
    let wrong = match &conflict.kind {
        ConflictKind::ForeignKey(columns, parent) => {
            Some(format!("no such row of {parent}: {}", given(conflict, columns)))
        }
        ConflictKind::Check(reason) => Some(reason.clone()),
        _ => None,
    };
    for version in &conflict.versions {
        let differing = version
            .values
            .iter()
            .filter(|(name, value)| differs(&conflict.versions, name, value))
            .map(|(_, value)| show(value));
        let differing = differing.collect::<Vec<_>>().join(", ");
        let what = match &*differing {
            _ if let Some(wrong) = &wrong => wrong,
            _ if version.values.is_empty() => "deleted",
            // Beside deletes alone nothing differs.
            "" => version.op.word(),
            differing => differing,
        };
        let others = conflict.versions.iter().filter(|other| other.device != version.device);
        let who = match brief_name(version) {
            name if others.clone().any(|other| brief_name(other) == name) => brief_label(version),
            name => name,
        };
        said.push(match (&wrong, version.device) {
            (Some(wrong), None) => wrong.clone(),
            _ => format!("{who}{}: {what}", if version.shown { "*" } else { "" }),
        });
    }
    let key: Vec<String> = conflict.key.iter().map(|(_, value)| show(value)).collect();
    let head = format!("{}  {} {}  {}  ", conflict.id, conflict.table, key.join(" "), conflict.kind.word());
    let room = 80_usize.saturating_sub(width(&head));
    say!(out, "{}", cut(&(head + &beside(&said, room))));
}

/// What two versions have between them.
const BESIDE: &str = " | ";
/// A version is never cut to less: a name alone says nothing.
const BESIDE_LEAST: usize = 24;

/// Puts versions beside each other in so many columns: where they have no room, long ones are cut, so that none hides another.
fn beside(said: &[String], room: usize) -> String {
    let mut widths: Vec<usize> = said.iter().map(|part| width(part)).collect();
    widths.sort_unstable();
    let mut left = room.saturating_sub(BESIDE.len() * said.len().saturating_sub(1));
    let mut most = usize::MAX;
    for (n, wide) in widths.iter().enumerate() {
        let share = left / (widths.len() - n);
        if *wide > share {
            most = share.max(BESIDE_LEAST);
            break;
        }
        left -= wide;
    }
    let fitted = |part: &String| match width(part) > most {
        true => format!("{}…", beginning(part, most - 1)),
        false => part.clone(),
    };
    said.iter().map(fitted).collect::<Vec<_>>().join(BESIDE)
}

/// Returns what a row has in these columns.
fn given(conflict: &Conflict, columns: &[String]) -> String {
    let values = conflict.versions.iter().flat_map(|version| &version.values);
    pairs(values.filter(|(name, _)| columns.contains(name)))
}

/// Counts what was printed by table and kind, and says how many at once are closed.
fn print_groups(path: &Path, groups: &Groups, out: &mut Out<'_>) {
    let all: u64 = groups.values().sum();
    if all < 2 {
        return;
    }
    say!(out);
    say!(out, "{}:", count(all, "conflict"));
    counted(groups).iter().for_each(|line| say!(out, "{line}"));
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
fn print((path, engine): (&Path, &Engine), (conflict, called): (&Conflict, &Called), out: &mut Out<'_>) {
    let key = match &conflict.kind {
        ConflictKind::Schema(column) => format!("column {column}"),
        _ => pairs(&conflict.key),
    };
    say!(out);
    out.styled(Style::Head, &format!("{}  {}: {key}", conflict.id, conflict.table));
    say!(out, "  {}", why(&conflict.kind));
    conflict.versions.iter().for_each(|version| print_version(conflict, version, out));
    let by: Vec<String> = conflict
        .referred_by
        .iter()
        .map(|(table, rows)| format!("{} of {table}", count(*rows, "row")))
        .collect();
    if !by.is_empty() {
        let is_kept = conflict.ways.iter().any(|way| matches!(way, Way::KeepBoth | Way::KeepBothWith));
        let taken = if is_kept { ": --keep-both takes along" } else { "" };
        say!(out, "  referred to by {}{taken}", by.join(", "));
        if is_kept {
            say!(out, "  those of the author whose row gets a new key");
        }
    }
    print_ways((path, engine), (conflict, called), out);
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
        true if width(&line) + SHOWN.len() > 80 => say!(out, "{line}\n    {}", SHOWN.trim_start()),
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

/// How devices are called in commands.
struct Called {
    /// Names that mean no device, or more than one.
    unclear: BTreeSet<String>,
}

impl Called {
    fn in_fleet(engine: &Engine) -> packmule::Result<Self> {
        let mut seen = BTreeSet::new();
        // These are words of the command itself.
        let mut unclear = BTreeSet::from(["newest", "shown", "quarantined"].map(str::to_owned));
        for name in engine.devices()?.into_iter().filter_map(|device| device.name) {
            if !seen.insert(name.clone()) {
                unclear.insert(name);
            }
        }
        Ok(Self { unclear })
    }

    /// Returns what means this device alone: its name, if no other bears it, or its name with a part of its id.
    fn as_word(&self, id: DeviceId, name: Option<&str>) -> String {
        let clear = |name: &&str| !self.unclear.contains(*name) && name.parse::<DeviceId>().is_err();
        shell_word(&name.filter(clear).map_or_else(|| label(id, name), str::to_owned))
    }
}

/// Prints the commands that close a conflict.
fn print_ways((path, engine): (&Path, &Engine), (conflict, called): (&Conflict, &Called), out: &mut Out<'_>) {
    say!(out, "  to close it:");
    let removes = |row, out: &mut Out<'_>| {
        out.styled(Style::Warn, &format!("      {}", removes(engine, conflict, row)));
    };
    let resolve = format!("packmule resolve {} {}", quoted(path), conflict.id);
    let has = |way| conflict.ways.contains(&way);
    let mut said = Vec::new();
    for version in conflict.versions.iter().filter(|_| has(Way::Take)) {
        let Some(taken) = taken(conflict, version, called) else { continue };
        if let Some(reason) = &version.refused {
            say!(out, "    --take {taken} cannot be done here: {reason}");
            continue;
        }
        // By cell several versions of a device are parts of one.
        if said.contains(&taken) {
            continue;
        }
        say!(out, "    {resolve} --take {taken}");
        said.push(taken);
        if let Some(loses) = loser(conflict, version) {
            removes(loses, out);
        }
    }
    if has(Way::Set) {
        say!(out, "    {resolve} --set {}", example_set(conflict));
        if is_of_two_rows(conflict) {
            say!(out, "      the row {} comes in with it", pairs(&conflict.key));
        }
    }
    if has(Way::Delete) {
        say!(out, "    {resolve} --delete");
        conflict.versions.iter().take(1).for_each(|row| removes(row, out));
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

/// Returns what means a version after `--take`: its device or, of two rows that have one author or one whom nobody
/// knows, where they are. `None` if nothing means it.
fn taken(conflict: &Conflict, version: &ConflictVersion, called: &Called) -> Option<String> {
    let authors = |of: &ConflictVersion| conflict.versions.iter().filter(|v| v.device == of.device).count();
    match version.device {
        Some(id) if !is_of_two_rows(conflict) || authors(version) == 1 => {
            Some(called.as_word(id, version.name.as_deref()))
        }
        _ if !is_of_two_rows(conflict) => None,
        _ => Some(if version.shown { "shown" } else { "quarantined" }.into()),
    }
}

/// Returns whether a conflict's versions are two rows that claim one value.
fn is_of_two_rows(conflict: &Conflict) -> bool {
    matches!(conflict.kind, ConflictKind::Unique(_))
}

/// Returns the version whose row is removed when one is taken: of two that claim one value, the other; a delete itself.
fn loser<'c>(conflict: &'c Conflict, taken: &'c ConflictVersion) -> Option<&'c ConflictVersion> {
    match is_of_two_rows(conflict) {
        true => conflict.versions.iter().find(|version| version.shown != taken.shown),
        false => Some(taken).filter(|taken| taken.op == VersionOp::Delete),
    }
}

/// Says that a row is removed, and whether that can be undone.
fn removes(engine: &Engine, conflict: &Conflict, version: &ConflictVersion) -> String {
    // Of two rows that claim one value each has its own key; a delete has no values.
    let keys =
        conflict.key.iter().map(|key| version.values.iter().find(|(name, _)| *name == key.0).unwrap_or(key));
    let row = match is_of_two_rows(conflict) {
        true => Some(version),
        false => conflict.versions.iter().find(|version| version.shown),
    };
    let undone = match row.is_none_or(|row| engine.keeps_for_undo(&row.values)) {
        true => "resolve --undo brings it back",
        false => "it is too large for resolve --undo, not for restore",
    };
    format!("removes the row {} on all devices; {undone}", pairs(keys))
}

/// Returns whether another version has another value in this column.
pub(super) fn differs(versions: &[ConflictVersion], name: &str, value: &OwnedValue) -> bool {
    versions
        .iter()
        .filter(|v| !v.values.is_empty())
        .any(|v| v.values.iter().find(|(n, _)| n == name).is_none_or(|(_, other)| other != value))
}

/// Returns the columns that SQLite names where it refuses a row, or that another row has too.
fn named<'c>(reason: &str, values: &'c [(String, OwnedValue)]) -> Vec<&'c str> {
    let what =
        reason.split_once(": ").or_else(|| reason.split_once(" the same ")).map_or(reason, |(_, what)| what);
    let words: Vec<&str> = what.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let is_named = |name: &&str| words.iter().any(|word| word.eq_ignore_ascii_case(name));
    values.iter().map(|(name, _)| name.as_str()).filter(is_named).collect()
}

/// Makes an example of `--set`.
fn example_set(conflict: &Conflict) -> String {
    let values = conflict.versions.iter().flat_map(|v| &v.values);
    let others: Vec<&(String, OwnedValue)> =
        values.filter(|(name, _)| !conflict.key.iter().any(|(key, _)| key == name)).collect();
    // What keeps the row out by itself needs a value too.
    let row = conflict.versions.first();
    let reason = match &conflict.kind {
        ConflictKind::Check(reason) => Some(reason),
        _ => row.and_then(|row| row.refused.as_ref()),
    };
    let mut columns = match &conflict.kind {
        ConflictKind::Unique(columns) => columns.iter().take(1).map(String::as_str).collect(),
        _ => Vec::new(),
    };
    if let (Some(row), Some(reason)) = (row, reason) {
        let further = named(reason, &row.values).into_iter().filter(|name| !columns.contains(name));
        columns.extend(further.collect::<Vec<_>>());
    }
    if !columns.is_empty() {
        let set: Vec<String> = columns.iter().map(|column| format!("{}=VALUE", shell_word(column))).collect();
        return set.join(" ");
    }
    let open: Vec<&(String, OwnedValue)> =
        others.iter().copied().filter(|(name, value)| differs(&conflict.versions, name, value)).collect();
    // A counter takes no text.
    if let (ConflictKind::InsertInsert | ConflictKind::UpdateUpdate, Some((name, value))) =
        (&conflict.kind, open.first())
        && matches!(value, OwnedValue::Int(_) | OwnedValue::Real(_))
    {
        return format!("{}={}", shell_word(name), show(value));
    }
    let column = match &conflict.kind {
        ConflictKind::ForeignKey(columns, _) => columns.first().map(String::as_str),
        // Beside a delete alone nothing differs: any column.
        _ => open
            .first()
            .map(|(name, _)| name)
            .or_else(|| others.first().map(|(name, _)| name))
            .map(String::as_str),
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
