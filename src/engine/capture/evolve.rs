//! Takes in how tables change by the application here. What comes from other devices: see `heard`.

use packmule_core::wire::{Mode, OpKind, SchemaBits};

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::capture::follow::Added;
use crate::engine::capture::reshape::{self, Standing};
use crate::engine::capture::respeak::Unread;
use crate::engine::capture::{
    adopt, append, column_order, declare, follow, fresh, held, other_key, renaming, suspended, uniques, watch,
};
use crate::engine::error::{Error, Result};
use crate::engine::merge::heads;
use crate::engine::merge::kind::Kind;
use crate::engine::merge::{compose, stretches, versions};
use crate::engine::show::writable;
use crate::engine::store::meta;
use crate::engine::store::value::{self, Affinity};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::entries;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// Why a table is suspended that was dropped.
pub(crate) const DROPPED: &str = "it was dropped here: it goes on when a table of that name and definition is back, and \
     until then what other devices write waits; if it is not to come back";

/// What becomes of the rows of a table that cannot be what it is here: tracking it anew would be refused.
const WAITS: &str = "until then its rows wait, here and from other devices, and nothing is lost";

/// What becomes of a table that was renamed.
pub(crate) const RENAMED: &str = "until then its rows wait, here and from other devices, and nothing is lost; or track it \
     under its new name, and let the old one go";

/// What the application did to tracked tables that is sealed by itself.
#[derive(std::default::Default)]
pub(crate) struct Noticed {
    /// Tables that were suspended and fit again.
    pub released: Vec<i64>,
    /// Disputed columns on which the application decided, of tables by number, and what they are.
    pub decided: Vec<(i64, ColumnDef)>,
    /// Tables that the application made anew, each with the columns that it did not have before.
    pub anew: Vec<(i64, Vec<String>)>,
    /// Tables with rows that got what others had written into columns that were added now.
    pub filled: Vec<i64>,
    /// Tables that go on, whose schema is not what it was, or may be: what it kept out may fit now.
    pub changed: Vec<i64>,
    /// Columns that were made here, of tables by number: their values are in the log.
    pub made: Vec<(i64, String)>,
    /// Tables of others that stand here now in the place of one with another primary key.
    pub come: Vec<i64>,
}

/// Notices what the application did to tracked tables since the last seal.
pub(crate) fn notice_schema_changes(replica: &Replica) -> Result<Noticed> {
    let mut noticed = Noticed::default();
    if !catalog::take_schema_doubt(replica)? && catalog::is_schema_known(replica)? {
        return Ok(noticed);
    }
    fresh::record_all(replica)?;
    for table in catalog::tables(replica) {
        if !matches!(table.state, State::Tracked | State::Suspended) {
            continue;
        }
        entries::list(replica)?;
        match notice_changes_of(replica, &table, &mut noticed)? {
            Some(reason) => {
                watch_held(replica, table.tid)?;
                suspended::suspend(replica, &table, &reason)?;
            }
            None => {
                noticed.changed.push(table.tid);
                if table.state == State::Suspended {
                    noticed.released.push(table.tid);
                }
            }
        }
    }
    noticed.come = other_key::go_over_where_due(replica)?;
    noticed.filled.extend(&noticed.come);
    adopt::remember_schema(replica)?;
    catalog::reload_catalog(replica)?;
    noticed
        .released
        .retain(|tid| catalog::table(replica, *tid).is_ok_and(|table| table.state == State::Tracked));
    Ok(noticed)
}

/// Returns why a table must be suspended whose columns are what they were.
fn why_suspended(replica: &Replica, table: &Table, now: &TableDef) -> Result<Option<String>> {
    let def = &table.def;
    for (at, column) in def.columns.iter().enumerate() {
        let Some(now) = now.column(&column.name).map(|at| &now.columns[at]) else { continue };
        let declared = declare::declared_columns(replica, table.tid, &column.name)?;
        let column = if let [(_, decided)] = &declared[..] { decided } else { column };
        if !now.stores_like(column) && !table.disputed.contains(at) {
            return Ok(Some(format!(
                "its column `{}` is {} here, and {} on other devices; make it so here too: {WAITS}",
                column.name,
                now.show(),
                column.show()
            )));
        }
    }
    let mut grown = def.clone();
    grown.columns.extend(now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned());
    if !grown.fits(replica.options.frame_bytes) {
        return Ok(Some(format!(
            "its definition is too large for a frame of {} bytes; drop a column, or give it a shorter default: {WAITS}",
            replica.options.frame_bytes
        )));
    }
    Ok(grown.ungatherable().map(|reason| format!("{reason}: {WAITS}")))
}

/// How a column has come to be of another kind.
#[derive(Clone, Copy, PartialEq)]
enum Rekinded {
    /// It was disputed, and the application has changed it: this device decides on it for all.
    Decides,
    /// The application has made it what was decided elsewhere. What is in it is the application's.
    Follows,
    /// It was renamed, and one was added as it was decided: what others wrote into it is in the log.
    Made,
}

/// Returns the columns whose kind changed: disputed ones that were changed here, and those that were changed to what was
/// decided elsewhere. In the place of a column that was renamed to make room one is added as it was decided.
fn changed_kinds(replica: &Replica, table: &Table, now: &mut TableDef) -> Result<Vec<(ColumnDef, Rekinded)>> {
    let mut changed = Vec::new();
    for (at, old) in table.def.columns.iter().enumerate().filter(|(_, c)| c.key == 0) {
        let disputed = table.disputed.contains(at);
        let kind = old.kind()?;
        let declared = declare::declared_columns(replica, table.tid, &old.name)?;
        if let Some(at) = now.column(&old.name) {
            let here = &now.columns[at];
            let decided = declared.iter().any(|(_, c)| c.stores_like(here) && !disputed);
            if (disputed || decided) && here.kind()? != kind {
                let how = if disputed { Rekinded::Decides } else { Rekinded::Follows };
                changed.push((here.clone(), how));
            }
            continue;
        }
        let may = disputed || declare::is_owed(replica, table.tid, &old.name)?;
        let owed = may && is_renamed_away(replica, table, now, &old.name)?;
        for (_, column) in declared.into_iter().filter(|_| owed) {
            if column.kind()? != kind {
                let added = now.addable_sql(&column);
                replica.db.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {added}", table.sql_name))?;
                now.columns.push(ColumnDef { key: 0, ..column.clone() });
                declare::record_made(replica, table.tid, &column.name)?;
                changed.push((column, if disputed { Rekinded::Decides } else { Rekinded::Made }));
                break;
            }
        }
    }
    Ok(changed)
}

/// Returns whether a column was renamed to make room for one as others have it. One that is dropped, or was renamed before
/// others said what theirs is, is the application's own affair.
fn is_renamed_away(replica: &Replica, table: &Table, now: &TableDef, name: &str) -> Result<bool> {
    let own = shapes::own_shape(replica, table.tid)?.filter(|own| own.bits.says(SchemaBits::CHANGED));
    if own.is_some_and(|own| own.def.column(name).is_none()) {
        return Ok(false);
    }
    let renamed = renaming::renamed_columns(replica, table, now)?;
    Ok(renamed.iter().any(|(before, _)| before.eq_ignore_ascii_case(name)))
}

/// Takes in what the application did to a table. Returns the reason if the table must be suspended.
fn notice_changes_of(replica: &Replica, table: &Table, noticed: &mut Noticed) -> Result<Option<String>> {
    if !compose::is_table_there(replica, table)? {
        return notice_absence(replica, table);
    }
    reshape::say_set_back(replica, table)?;
    let mut intact = watch::capture_intact(replica, table)? && !suspended::is_to_restate(replica, table.tid)?;
    if let Some(reason) = follow_others(replica, table, noticed)? {
        return Ok(Some(reason));
    }
    let table = &*catalog::table(replica, table.tid)?;
    // A table that cannot be read any more, for instance one without a primary key, is suspended too.
    let mut now = match read_now(replica, &table.def) {
        Ok(now) => now,
        Err(e) => match *e {
            Error::CannotTrack { reason, .. } => return Ok(Some(reason)),
            e => return Err(e.into()),
        },
    };
    uniques::drop_doubled(replica, &now)?;
    let kinds = changed_kinds(replica, table, &mut now)?;
    let decided = |at: usize| {
        let name = &table.def.columns[at].name;
        table.disputed.contains(at) || kinds.iter().any(|(column, _)| column.name.eq_ignore_ascii_case(name))
    };
    let change = reshape::change_of(replica, table, &now, &decided)?;
    intact &= !reshape::has_new_values(replica, table, &now, &change)?
        && kinds.iter().all(|(_, how)| *how != Rekinded::Follows);
    let unread = match change.renamed.is_empty() {
        true => Unread::new(),
        false => follow::unread(replica, table.tid, &table.def)?,
    };
    if change.is_nothing() {
        reshape::take_back(replica, table)?;
        if let Some(reason) = why_suspended(replica, table, &now)? {
            return Ok(Some(reason));
        }
    } else if let Standing::Held(reason) = reshape::stand(replica, table, &now, &change, &unread)? {
        follow::read_again(replica, table, unread)?;
        return Ok(Some(reason));
    } else {
        noticed.filled.push(table.tid);
        // A base has the rows of before without what was renamed: they are sent again.
        intact &= table.def.mode == Mode::Shared;
    }
    if let Some(reason) = writable::why_not(replica, &*catalog::table(replica, table.tid)?)? {
        return Ok(Some(format!(
            "{reason}; drop that: until then its rows wait, here and from other devices, and nothing is lost"
        )));
    }
    if table.state == State::Suspended {
        adopt::resume(replica, table.tid)?;
    }
    if reshape::is_decided_otherwise(replica, table.tid, &change)? {
        if let Some(reason) = become_as_declared(replica, table)? {
            return Ok(Some(reason));
        }
        now = read_now(replica, &catalog::table(replica, table.tid)?.def)?;
    }
    let names = take_in_columns(replica, table.tid, &now, (kinds, intact, unread), noticed)?;
    follow::tell_waiting(replica, table.tid)?;
    held::forget(replica, table.tid)?;
    uniques::notice_untold(replica, &*catalog::table(replica, table.tid)?)?;
    column_order::remember(replica, table.tid, &table.def.name)?;
    declare::forget_owed(replica, table.tid)?;
    if !intact {
        noticed.anew.push((table.tid, names));
    }
    Ok(None)
}

/// Changes a table as others have changed it, where its columns follow. Returns why that cannot be.
fn follow_others(replica: &Replica, table: &Table, noticed: &mut Noticed) -> Result<Option<String>> {
    match reshape::follow(replica, table)? {
        Ok(change) if change.is_nothing() => return Ok(None),
        Ok(_) => noticed.filled.push(table.tid),
        Err(reason) => return Ok(Some(reason)),
    }
    // Under its new name a column may have been decided to be of another kind.
    become_as_declared(replica, table)
}

/// Makes a table what was declared of it. Returns why that cannot be.
fn become_as_declared(replica: &Replica, table: &Table) -> Result<Option<String>> {
    declare::apply_declarations(replica, table.tid, &table.disputed)?;
    let table = catalog::table(replica, table.tid)?;
    Ok(table.note.clone().filter(|_| table.state == State::Suspended))
}

/// Takes in the columns that a table has now: those of other kinds, the new ones, and those (`unread`) that stood for none
/// before. Returns the names of those that were added.
fn take_in_columns(
    replica: &Replica,
    tid: i64,
    now: &TableDef,
    (kinds, intact, mut unread): (Vec<(ColumnDef, Rekinded)>, bool, Unread),
    noticed: &mut Noticed,
) -> Result<Vec<String>> {
    let table = &*catalog::table(replica, tid)?;
    notice_dropped_uniques(replica, &table.def, now)?;
    let added = adopt_changes(replica, table, now, kinds, noticed)?;
    let mut come = recapture(replica, &*catalog::table(replica, table.tid)?, intact, &added)?;
    let names: Vec<String> = added.iter().map(|column| column.name.clone()).collect();
    // A column on whose kind the application decided did not wait: what is in it now holds.
    come.retain(|column| table.def.column(&column.name).is_none());
    let renamed = follow::readable(replica, table.tid, &mut unread)?.into_iter();
    come.extend(renamed.filter(|name| table.def.column(name).is_some()).map(Added::renamed));
    if follow::fill(replica, table.tid, &table.def, &come, &unread)? {
        noticed.filled.push(table.tid);
    }
    Ok(names)
}

/// Lets triggers watch a table that is held, where it can be read.
fn watch_held(replica: &Replica, tid: i64) -> Result<()> {
    let table = catalog::table(replica, tid)?;
    match read_now(replica, &table.def) {
        Ok(now) => {
            held::watch(replica, &table, &now)?;
            column_order::remember(replica, tid, &table.def.name)
        }
        Err(e) if matches!(*e, Error::CannotTrack { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Reads what a table is now. The columns of its primary key may have been renamed.
fn read_now(replica: &Replica, def: &TableDef) -> Result<TableDef> {
    let read = TableDef::read_by(&replica.db, &def.name, def.by(&mut Vec::new()));
    match read {
        // Nothing else: after an error of SQLite its transaction may be gone.
        Err(e) if !def.keyless && matches!(*e, Error::CannotTrack { .. }) => {
            TableDef::read(&replica.db, &def.name)
        }
        read => read,
    }
}

/// Returns why a table that is not there is suspended: it was dropped, or renamed.
fn notice_absence(replica: &Replica, table: &Table) -> Result<Option<String>> {
    let name = &table.def.name;
    let renamed: Option<String> = value::maybe(
        &replica.db,
        "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name = ?1",
        [format!("_pm_insert_{}", table.tid)],
    )?;
    if let Some(renamed) = renamed {
        return Ok(Some(format!(
            "it is called `{renamed}` here now, which other devices cannot follow; run ALTER TABLE {} RENAME \
             TO {}: {RENAMED}",
            value::quote(&renamed),
            value::quote(name)
        )));
    }
    if table.state != State::Suspended {
        let what = format!("table `{name}` was dropped here: its rows stay on other devices");
        meta::notice(&replica.db, &what, replica.now())?;
    }
    Ok(Some(DROPPED.into()))
}

/// Adopts the definition that a table has now, where it is another one than before.
///
/// `kinds` are the columns whose kind changed. Returns the columns of which the triggers had not recorded what was written to them.
fn adopt_changes(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    kinds: Vec<(ColumnDef, Rekinded)>,
    noticed: &mut Noticed,
) -> Result<Vec<ColumnDef>> {
    let mut def = table.def.clone();
    let mut added: Vec<ColumnDef> =
        now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect();
    if added.is_empty()
        && kinds.is_empty()
        && now.uniques == def.uniques
        && now.foreign_keys == def.foreign_keys
    {
        return Ok(added);
    }
    def.columns.extend(added.iter().cloned());
    let mut is_told = true;
    for (column, how) in kinds {
        is_told &= how != Rekinded::Follows || is_said_so(replica, table, &column)?;
        if let Some(at) = def.column(&column.name) {
            def.columns[at] = ColumnDef { key: 0, merge: def.columns[at].merge, ..column.clone() };
        }
        match how {
            Rekinded::Decides => {
                noticed.decided.push((table.tid, column.clone()));
                added.push(column);
            }
            Rekinded::Follows => {}
            Rekinded::Made => noticed.made.push((table.tid, column.name)),
        }
    }
    // Numbers of columns are as in the definition, which keeps the order in which they came.
    def.uniques = now
        .uniques
        .iter()
        .map(|u| {
            u.iter()
                .filter_map(|at| def.column(&now.columns[usize::from(*at)].name))
                .map(|at| at as u16)
                .collect()
        })
        .collect();
    def.uniques.sort();
    def.foreign_keys.clone_from(&now.foreign_keys);
    adopt::adopt_def(replica, table.tid, &def)?;
    if !is_told {
        adopt::announce_again(replica, table.tid)?;
    }
    catalog::reload_table(replica, table.tid)?;
    Ok(added)
}

/// Returns whether a column is of the kind that this device announced last, if it has: who has changed it the same way goes on
/// when the others have.
fn is_said_so(replica: &Replica, table: &Table, column: &ColumnDef) -> Result<bool> {
    let Some(own) = shapes::own_shape(replica, table.tid)? else { return Ok(true) };
    let Some(said) = own.def.column(&column.name).map(|at| &own.def.columns[at]) else { return Ok(true) };
    Ok(said.stores_like(column))
}

/// Makes the triggers again where they are missing or outdated, and records the rows that they missed. Returns the columns that
/// were added.
fn recapture(replica: &Replica, table: &Table, intact: bool, added: &[ColumnDef]) -> Result<Vec<Added>> {
    let def = &table.def;
    let outdated = watch::capture_outdated(replica, table)?;
    if outdated || !intact {
        watch::install_capture(replica, table)?;
    }
    if outdated && intact {
        // The triggers did not know every unique index, by which a REPLACE may have removed rows.
        record_missing(replica, table)?;
    }
    if !intact && def.append {
        append::begin_again(replica, table)?;
        catalog::reload_table(replica, table.tid)?;
        record_rows(replica, table, &Columns::all(def.columns.len()), "1")?;
    }
    let mut come = Vec::new();
    for column in added {
        let first = follow::next_entry(replica, table)?;
        // Where nothing recorded what was written to the table, it is restated.
        if intact {
            // The triggers did not know this column: a row that differs from the default was written to.
            let c = value::quote(&column.name);
            let default = value::literal(&column.constant());
            let mut differs = format!("{c} IS NOT {default} COLLATE BINARY");
            // Any other column stores its default as its type has it: '7' as 7, in one of integers.
            if column.affinity() == Affinity::Blob {
                differs = format!("typeof({c}) <> typeof({default}) OR {differs}");
            }
            let at = def.column(&column.name).into_iter().collect();
            record_rows(replica, table, &at, &differs)?;
        }
        let entries = first..follow::next_entry(replica, table)?;
        come.push(Added { name: column.name.clone(), was_here: false, entries });
    }
    Ok(come)
}

/// Makes a notice of each UNIQUE that the application has dropped.
fn notice_dropped_uniques(replica: &Replica, def: &TableDef, now: &TableDef) -> Result<()> {
    let names = |d: &TableDef, unique: &[u16]| {
        unique.iter().map(|at| d.columns[usize::from(*at)].name.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    for unique in def.uniques.iter().filter(|_| def.mode == Mode::Shared) {
        let unique = names(def, unique);
        if !now.uniques.iter().any(|u| names(now, u) == unique) {
            let columns = unique.iter().map(|c| value::quote(c)).collect::<Vec<_>>().join(", ");
            let what = format!(
                "table `{0}` lost its UNIQUE ({1}) here: rows that other devices keep out by it may be shown here; \
                 to have it back: CREATE UNIQUE INDEX ... ON {2} ({1})",
                def.name,
                columns,
                value::quote(&def.name)
            );
            meta::notice(&replica.db, &what, replica.now())?;
        }
    }
    Ok(())
}

/// Records rows as updated in these columns.
fn record_rows(replica: &Replica, table: &Table, columns: &Columns, condition: &str) -> Result<()> {
    let masks = dirty::mask_values(table, columns);
    let counters = table.counters.iter().map(|at| {
        let c = value::quote(&table.def.columns[*at].name);
        (format!(", o{at}"), format!(", {c}"))
    });
    let masks = masks.iter().enumerate().map(|(n, mask)| (format!(", m{n}"), format!(", {mask}")));
    let (names, values): (String, String) = masks.chain(counters).unzip();
    replica.db.execute(
        &format!(
            "INSERT INTO {} ({}{names}) SELECT {}, {}{values} FROM {} WHERE {condition}",
            table.dirty(),
            table.change_columns(),
            table.def.key_list(""),
            ChangeFlags::UPDATE_UNIQUE,
            table.sql_name
        ),
        [],
    )?;
    Ok(())
}

/// Records the rows that are not there although their versions say so. What came while the table was held was not shown yet.
fn record_missing(replica: &Replica, table: &Table) -> Result<()> {
    if !table.shows_shared() {
        return Ok(());
    }
    let mut statement = replica.db.prepare_cached(&format!(
        "SELECT key FROM {} h WHERE kind <> ?2
         AND NOT EXISTS (SELECT 1 FROM _pm_parked p WHERE p.tid = h.tid AND p.key = h.key)
         AND NOT EXISTS (SELECT 1 FROM _pm_held p WHERE p.tid = h.tid AND p.key = h.key)",
        stretches::heads_of_table()
    ))?;
    let mut rows = statement.query((table.tid, Kind(OpKind::Delete, false)))?;
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(0)?;
        let key = value::read_key(&bytes)?;
        // A delete may be the winner beside such a version.
        if !compose::is_shown(replica, table, &key)?
            && versions::judge_versions(replica, table, &heads::heads(replica, table.tid, &bytes)?)?.present
        {
            dirty::record_key(replica, table, &key, ChangeFlags::MAYBE_GONE)?;
        }
    }
    Ok(())
}
