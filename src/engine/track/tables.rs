//! Tables tracked, and untracked.

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::wire::{FrameFlags, Mode};

use crate::engine::capture::follow::Added;
use crate::engine::capture::groups::SealOptions;
use crate::engine::capture::respeak::Unread;
use crate::engine::capture::{
    adopt, at_once, follow, held, leaving, merge_definitions, not_sent, other_key, redeclare, restate, seal,
    suspended, uniques, verdict, waited, watch,
};
use crate::engine::error::{Error, Result};
use crate::engine::merge::{compose, context_free, deferred};
use crate::engine::show::{constraints, writable};
use crate::engine::table::def::TableDef;
use crate::engine::table::keyless::By;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, entries};
use crate::engine::track::options::{NewColumns, TrackOptions, TrackReport};
use crate::engine::track::{gathered, told};

/// Tracks several tables in the same way: all of them, or none. Returns the reports in their order.
pub(crate) fn track_all(
    replica: &Replica,
    tables: &[&str],
    options: &TrackOptions,
) -> Result<Vec<TrackReport>> {
    let mut reports = Vec::new();
    let mut begun = Vec::new();
    let mut bare = Vec::new();
    if tables.len() >= at_once::FEW {
        entries::list(replica)?;
    }
    for name in tables {
        if catalog::table_here(replica, name).is_some_and(|table| table.state != State::Known) {
            // What becomes of a table that is known may look at all of them, none of which is to lack its triggers.
            at_once::install_captures(replica, &std::mem::take(&mut bare))?;
        }
        let changed = set_new_columns(replica, name, options)?;
        let (mut report, new) = track_here(replica, name, options)?;
        if changed {
            report.note_changed();
        }
        reports.push(report);
        bare.extend(new.iter().map(|new| new.tid));
        begun.extend(new);
    }
    at_once::install_captures(replica, &bare)?;
    seal_begun(replica, &begun)?;
    for new in &begun {
        set_new_columns(replica, &new.def.name, options)?;
    }
    for (name, report) in tables.iter().zip(&mut reports) {
        if let Some(new) = begun.iter().find(|new| new.def.name.eq_ignore_ascii_case(name)) {
            let table = catalog::table(replica, new.tid)?;
            look_at_rows(replica, &table, report)?;
            if table.shows_shared() {
                report.advice.extend(uniques::untold(replica, &table)?);
            }
        }
    }
    if !options.ids_shared {
        warn_of_ids(replica, tables, &mut reports);
    }
    Ok(reports)
}

/// Adds what people should know of keys that two devices can take at the same time, of the tables that were tracked
/// now and of those that they refer to.
fn warn_of_ids(replica: &Replica, names: &[&str], reports: &mut [TrackReport]) {
    let tables = catalog::tables(replica);
    let mut children: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for child in tables.iter().filter(|t| t.state == State::Tracked) {
        for foreign in &child.def.foreign_keys {
            children.entry(foreign.parent.to_ascii_lowercase()).or_default().insert(&child.def.name);
        }
    }
    let takes_same = |t: &Table| t.shows_shared() && t.def.integer_key();
    let mut told: BTreeSet<i64> = BTreeSet::new();
    for (name, report) in names.iter().zip(reports).filter(|(_, report)| !report.already) {
        let Some(table) = catalog::table_named(replica, name) else { continue };
        let parents = table.def.foreign_keys.iter().filter_map(|f| catalog::table_named(replica, &f.parent));
        for of in std::iter::once(table.clone()).chain(parents).filter(|t| takes_same(t)) {
            if told.insert(of.tid) {
                let by = children.get(&of.def.name.to_ascii_lowercase());
                report.advice.push(advice(&of.def, by));
            }
        }
    }
}

/// Records what becomes of columns that others add; those that wait are added if they are to follow. Returns whether it is
/// another thing than before, of a table that was tracked.
fn set_new_columns(replica: &Replica, name: &str, options: &TrackOptions) -> Result<bool> {
    let (Some(columns), Some(table)) = (options.new_columns, catalog::table_here(replica, name)) else {
        return Ok(false);
    };
    let follows = columns == NewColumns::Follow;
    if follow::follows(replica, &table)? == follows {
        return Ok(false);
    }
    follow::set_follows(replica, table.tid, follows)?;
    adopt::announce_again(replica, table.tid)?;
    catalog::reload_table(replica, table.tid)?;
    if table.state == State::Tracked && follows {
        let before = table.def.clone();
        merge_definitions::merge_definitions(replica, table.tid, &before)?;
        let now = catalog::table(replica, table.tid)?;
        let added = now.def.columns.iter().filter(|c| before.column(&c.name).is_none());
        let added: Vec<Added> = added.map(|c| Added::without_entries(c.name.clone())).collect();
        follow::fill(replica, table.tid, &now.def, &added, &Unread::new())?;
        deferred::defer_all(replica, table.tid)?;
        seal::seal_here(replica, SealOptions::default())?;
    }
    Ok(matches!(table.state, State::Tracked | State::Suspended))
}

/// Tracks a table, or says that it is tracked in this way already.
fn track_here(replica: &Replica, name: &str, options: &TrackOptions) -> Result<(TrackReport, Option<Begun>)> {
    if let Some(report) = gathered::track_gathered(replica, name, options)? {
        return Ok((report, None));
    }
    if catalog::table_here(replica, name).is_some_and(|table| table.state == State::Gathered) {
        return Err(Error::cannot_track(
            name,
            "this base gathers the rows of other devices in it, and need not be told to; a table of the base's own \
             has another name",
        ));
    }
    let mut def = wanted_def(replica, name, options)?;
    if options.as_others {
        merge_as_others(replica, &mut def);
    }
    if def.mode == Mode::Shared && other_key::make_room(replica, &def)? {
        return Err(Error::cannot_track(
            &def.name,
            "other devices have a table of this name with another primary key",
        ));
    }
    let known = catalog::table_named(replica, &def.name);
    let done = known.as_ref().map(|known| track_known(replica, known, &def)).transpose()?.flatten();
    let (mut report, begun) = match done {
        Some(report) => (report, None),
        None => (TrackReport::default(), Some(begin_tracking(replica, &def, known.as_deref())?)),
    };
    let table = catalog::tracked_table(replica, &def.name)?;
    if def.append && table.carries_deletes != options.carry_deletes {
        replica.db.execute(
            "UPDATE _pm_table SET deletes = ?2 WHERE tid = ?1",
            (table.tid, options.carry_deletes),
        )?;
        catalog::reload_table(replica, table.tid)?;
        if begun.is_none() {
            report.note_changed();
        }
    }
    Ok((report, begun))
}

/// Counts the rows that were taken in, and names those that could not be.
fn look_at_rows(replica: &Replica, table: &Table, report: &mut TrackReport) -> Result<()> {
    let count = format!("SELECT count(*) FROM {}", table.sql_name);
    report.rows = replica.db.query_row(&count, [], |row| row.get(0))?;
    if not_sent::may_lack_key(table) {
        for what in not_sent::unkeyed(replica, table)? {
            report.rows = report.rows.saturating_sub(what.rows);
            report.advice.push(what.to_string());
        }
    }
    Ok(())
}

/// Compares what is wanted with what is known of the table. Returns a report if nothing more is to be done, and
/// `None` if the table is to be tracked now.
fn track_known(replica: &Replica, known: &Table, def: &TableDef) -> Result<Option<TrackReport>> {
    let redeclares = known.state == State::Tracked && def.declares() && way(&known.def) == way(def);
    if !merges_alike(&known.def, def) && redeclares {
        redeclare::redeclare(replica, known, def)?;
        seal::seal_here(replica, SealOptions::default())?;
        return Ok(Some(TrackReport { changed: true, ..TrackReport::default() }));
    }
    if !merges_alike(&known.def, def) && known.state == State::Untracked && told::nobody_has(replica, known)?
    {
        return Ok(None); // How it was tracked before is known here alone.
    }
    if !merges_alike(&known.def, def) {
        return Err(Error::cannot_track(
            &def.name,
            explain_difference(known, def, told::nobody_has(replica, known)?),
        ));
    }
    if known.state == State::Suspended {
        let why = known.note.as_deref().unwrap_or("it was changed here");
        return Err(Error::cannot_track(&def.name, format!("it is tracked, and suspended: {why}")));
    }
    if known.state == State::Tracked {
        return Ok(Some(TrackReport { already: true, ..TrackReport::default() }));
    }
    if let Some(different) = def.different_column(&known.def) {
        return Err(Error::cannot_track(
            &def.name,
            format!("other devices track it with another definition: {different}; make them the same first"),
        ));
    }
    let keys = |d: &TableDef| d.keys().map(|at| d.columns[at].name.to_ascii_lowercase()).collect::<Vec<_>>();
    if keys(&known.def) != keys(def) {
        return Err(Error::cannot_track(
            &def.name,
            "other devices have a table of this name with another primary key",
        ));
    }
    Ok(None)
}

/// Returns whether two definitions say the same of how the table is tracked and merged; of columns, of those
/// that both have.
fn merges_alike(a: &TableDef, b: &TableDef) -> bool {
    (a.mode, a.merge, a.policy, a.append) == (b.mode, b.merge, b.policy, b.append)
        && a.columns.iter().all(|c| b.column(&c.name).is_none_or(|at| b.columns[at].merge == c.merge))
}

/// Puts into the definition of a table how others track it, if they do and this device does not.
fn merge_as_others(replica: &Replica, def: &mut TableDef) {
    let Some(known) = catalog::table_named(replica, &def.name) else { return };
    if known.def.mode != def.mode || !matches!(known.state, State::Known | State::Untracked) {
        return;
    }
    (def.merge, def.policy) = (known.def.merge, known.def.policy);
    for column in &mut def.columns {
        column.merge = known.def.column(&column.name).map_or(column.merge, |at| known.def.columns[at].merge);
    }
}

/// A table that begins to be tracked, and what others had of it before.
struct Begun {
    tid: i64,
    def: TableDef,
    before: TableDef,
    /// It was tracked here before.
    again: bool,
}

/// Makes a table one that is tracked. Its capture is to be installed.
fn begin_tracking(replica: &Replica, def: &TableDef, known: Option<&Table>) -> Result<Begun> {
    let (id, body) = def.encode()?;
    let tid = catalog::keep_def(replica, def, id, &body)?;
    replica.db.execute(
        "UPDATE _pm_table SET def = ?2, state = ?3, announced = 0, appended = 0, gaps = 0, note = NULL WHERE tid = ?1",
        (tid, id.0, State::Tracked),
    )?;
    catalog::reload_table(replica, tid)?;
    let table = catalog::table(replica, tid)?;
    if let Some(reason) = writable::why_not(replica, &table)? {
        return Err(Error::cannot_track(&def.name, reason));
    }
    told::note_begun(replica, &table)?;
    other_key::forget_made(replica, tid)?;
    let before =
        known.map(|known| &known.def).filter(|before| before.mode == def.mode).unwrap_or(def).clone();
    let again = known.is_some_and(|known| known.state == State::Untracked);
    Ok(Begun { tid, def: def.clone(), before, again })
}

/// Merges the definitions of tables with those of others, and seals the rows that are in them: all in one group.
fn seal_begun(replica: &Replica, begun: &[Begun]) -> Result<()> {
    if begun.is_empty() {
        return Ok(());
    }
    adopt::remember_schema(replica)?;
    let (mut take_in, mut again, mut shared_again) = (Vec::new(), Vec::new(), Vec::new());
    for Begun { tid, def, before, again: was_tracked } in begun {
        // What others have declared of the table, and this one lacks.
        merge_definitions::merge_definitions(replica, *tid, before)?;
        let table = catalog::table(replica, *tid)?;
        // Our own rows say nothing of columns that this table lacked.
        let made = table.def.columns.iter().map(|c| &c.name).filter(|name| def.column(name).is_none());
        if *was_tracked && !def.append && def.mode == Mode::PerDevice {
            // Rows that went meanwhile are nowhere recorded.
            again.push(*tid);
            continue;
        }
        take_in.push((*tid, made.cloned().collect()));
        if table.def.mode == Mode::PerDevice {
            continue;
        }
        // Versions that others wrote before go through one constraint resolution pass together with our own rows.
        let is_own = |key: &[u8]| compose::shown_row(replica, &table, key).map(|row| row.is_some());
        context_free::unplace_waiting(replica, &table, &is_own)?;
        deferred::defer_all(replica, *tid)?;
        if *was_tracked {
            shared_again.push(*tid);
        }
    }
    // Our rows are older than what we know of others, but were written without having seen it.
    let flags = FrameFlags::CONTEXT_FREE;
    seal::seal_here(replica, SealOptions { flags, take_in: &take_in, ..SealOptions::default() })?;
    for tid in again {
        restate::restate(replica, tid, &[], &[])?;
    }
    constraints::resolve_constraints(replica)?;
    begun.iter().try_for_each(|begun| waited::settle_shown(replica, begun.tid))?;
    if !shared_again.is_empty() {
        // Settled rows that went meanwhile are nowhere recorded but in the sums of their runs.
        for tid in shared_again {
            restate::restate(replica, tid, &[], &[])?;
        }
        constraints::resolve_constraints(replica)?;
    }
    verdict::seal_verdict(replica)
}

/// Reads the definition of a table, and puts into it how it is to be tracked.
fn wanted_def(replica: &Replica, name: &str, options: &TrackOptions) -> Result<TableDef> {
    let by = match options.mode {
        Mode::PerDevice if options.key.is_empty() && !options.append => By::IndexOrRowid,
        _ => By::Columns(&options.key),
    };
    let mut def = TableDef::read_by(&replica.db, name, by)?;
    def.mode = options.mode;
    def.append = options.append;
    def.merge = options.merge;
    def.policy = options.policy;
    if options.carry_deletes && !options.append {
        return Err(Error::cannot_track(
            &def.name,
            "only of an append table are deletes a matter of choice: all others carry them",
        ));
    }
    if options.append && !(def.autoincrement && def.integer_key()) {
        return Err(Error::cannot_track(
            &def.name,
            "an append table needs an INTEGER PRIMARY KEY AUTOINCREMENT, by which new rows are found; without \
             --append it is tracked as any other per-device table",
        ));
    }
    if let Some(reason) = def.ungatherable() {
        return Err(Error::cannot_track(&def.name, reason));
    }
    for (column, merge) in &options.columns {
        let at = def
            .column(column)
            .ok_or_else(|| Error::cannot_track(name, format!("it has no column `{column}`")))?;
        if def.columns[at].key > 0 {
            return Err(Error::cannot_track(name, format!("column `{column}` is part of its primary key")));
        }
        def.columns[at].merge = *merge;
    }
    Ok(def)
}

/// Untracks several tables: all of them, or none.
pub(crate) fn untrack_all(replica: &Replica, tables: &[&str]) -> Result<()> {
    tables.iter().try_for_each(|table| untrack_here(replica, &*catalog::tracked_table(replica, table)?))?;
    leaving::leave(replica)
}

/// Untracks a table: removes its capture, and forgets its open conflicts.
fn untrack_here(replica: &Replica, table: &Table) -> Result<()> {
    if matches!(table.state, State::Tracked | State::Suspended) {
        watch::remove_capture(replica, table)?;
        held::forget(replica, table.tid)?;
    }
    for event in ["INSERT", "UPDATE", "DELETE"] {
        replica.db.execute_batch(&format!("DROP TRIGGER IF EXISTS _pm_guard_{event}_{}", table.tid))?;
    }
    replica.db.execute(
        "UPDATE _pm_table SET state = ?2, note = 'no longer tracked here' WHERE tid = ?1",
        (table.tid, State::Untracked),
    )?;
    replica.db.execute("DELETE FROM _pm_dangling WHERE tid = ?1", [table.tid])?;
    replica.db.execute("DELETE FROM _pm_conflict WHERE tid = ?1", [table.tid])?;
    replica.db.execute("DELETE FROM _pm_held WHERE tid = ?1", [table.tid])?;
    suspended::forget(replica, table.tid)?;
    adopt::remember_schema(replica)?;
    // The name may be free for a table of others.
    catalog::doubt_schema(replica)?;
    catalog::reload_catalog(replica)
}

/// Returns how the rows of a table travel.
fn way(def: &TableDef) -> (Mode, bool) {
    (def.mode, def.append)
}

/// Says how a table is tracked elsewhere or here, how it was to be tracked now, and what can be done. `is_alone` says that no
/// other device is known to have it from here.
fn explain_difference(known: &Table, wanted: &TableDef, is_alone: bool) -> String {
    let is_tracked = known.state == State::Tracked;
    let who = if is_tracked { "it is tracked here already" } else { "other devices track it" };
    let show = |d: &TableDef| {
        let mode = match d.mode {
            Mode::Shared => "shared",
            Mode::PerDevice => "per-device",
        };
        format!("mode {mode}{}, {}", if d.append { ", append" } else { "" }, d.how_it_merges())
    };
    let what = match (way(&known.def) == way(wanted), is_tracked && is_alone) {
        (true, _) => {
            "use that. A shared table that is tracked can be tracked again with another merge, policy or rules of columns, which \
             then hold on all devices"
        }
        // A bundle that has left is not known to have come anywhere.
        (false, true) => {
            "no other device is known to have it. If no bundle or card with it has left this device: untrack it here, and track \
             it again as you want it. If one has, that device will have it in this mode: copy the rows into a table of another \
             name, and track that"
        }
        (false, false) => {
            "use that: once other devices have a table, its mode stays. For another mode copy the rows into a table of another \
             name, and track that"
        }
    };
    format!("{who} with {} (asked for: {}); {what}", show(&known.def), show(wanted))
}

/// Says what people should know of a shared table whose keys are plain integers, and of the tables that refer to it.
fn advice(def: &TableDef, referred_by: Option<&BTreeSet<&str>>) -> String {
    let by: Vec<String> = referred_by.into_iter().flatten().map(|name| format!("`{name}`")).collect();
    let children = match by.is_empty() {
        true => String::new(),
        false => format!(", and {} refers to these numbers", by.join(", ")),
    };
    format!(
        "`{0}` is shared and has a plain INTEGER PRIMARY KEY: two devices that insert at the same time will take the \
         same numbers, and each pair is a conflict{children}. If each device owns its rows, track it in the mode per-device; \
         otherwise give it a key that devices cannot share, such as a text or hex(randomblob(16)). If only one device makes \
         rows, or `resolve --keep-both` is fine, `--ids shared` silences this",
        def.name
    )
}
