//! Columns that an application renames or drops, or whose type it changes.
//!
//! What one device does to its table alone holds the table there. It is announced (`shapes`), and goes on when every other
//! device whose columns do not follow has announced the same: then the table's definition becomes what the table is.
//! Where columns follow, the table is made so.
//!
//! **Invariant.** Once a definition is adopted here, the versions of the table's rows speak for the columns that are left,
//! under their new names; an op in an older definition is read as if its columns had their new names and types. So what a
//! row is depends on the ops, and not on when the definition came.

use packmule_core::wire::{Mode, SchemaBits};

use crate::engine::capture::groups::{self, SealOptions};
use crate::engine::capture::respeak::Unread;
use crate::engine::capture::{
    adopt, column_numbers, column_order, declare, dirty, follow, renaming, uniques, watch,
};
use crate::engine::error::Result;
use crate::engine::fleet::{devices, peers};
use crate::engine::merge::deferred;
use crate::engine::show::constraints;
use crate::engine::store::{connection, value};
use crate::engine::table::def::{ColumnDef, TableDef};
use crate::engine::table::keyless::By;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes::{self, Shape};
use crate::engine::table::{catalog, dropped, renamed};

/// What becomes of the rows of a table that is held until the others follow.
const WAITS: &str = "until the application has done the same there, or undone it here, its rows wait, here and \
     from other devices, and nothing is lost";

/// What becomes of a table of which one column has the name of another.
const REUSED: &str = "until then its rows wait, here and from other devices, and nothing is lost";

/// What becomes of a table whose key was changed.
pub(crate) const ANOTHER_KEY: &str = "put the old one back: until then its rows wait, here and from other devices, and \
     nothing is lost; or give the table another name, track that, and let this one go";

/// What the application did to the columns of a table.
#[derive(Clone, Default)]
pub(crate) struct Change {
    /// The columns that are called otherwise, with their names before and after.
    pub renamed: Vec<(String, String)>,
    /// The columns that are not there any more.
    pub gone: Vec<String>,
    /// The columns of another type or collation, by the names that they have now.
    pub retyped: Vec<String>,
    /// The UNIQUEs, by the numbers of their columns, that no other device has any more.
    pub freed: Vec<Vec<u16>>,
    /// The key is another one.
    pub key: bool,
    /// A column that is called what another one was called, with its names before and after.
    pub reused: Option<(String, String)>,
}

impl Change {
    /// Returns whether there is nothing in it that others cannot follow.
    pub(crate) fn is_nothing(&self) -> bool {
        self.renamed.is_empty()
            && self.gone.is_empty()
            && self.retyped.is_empty()
            && self.freed.is_empty()
            && !self.key
            && self.reused.is_none()
    }

    /// Says what was done, for people.
    fn in_words(&self) -> String {
        let mut parts: Vec<String> = self
            .renamed
            .iter()
            .map(|(old, new)| format!("its column `{old}` is called `{new}` here"))
            .collect();
        parts.extend(self.gone.iter().map(|name| format!("its column `{name}` is gone here")));
        parts.extend(self.retyped.iter().map(|name| format!("its column `{name}` has another type here")));
        parts.join(", and ")
    }
}

/// What becomes of a table whose columns the application has changed.
pub(crate) enum Standing {
    /// It goes on: every other device has done the same.
    Adopted,
    /// It is held, for this reason.
    Held(String),
}

/// Finds out what the application did to a table's columns. `now` is what the table is.
pub(crate) fn change_of(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    disputed: &dyn Fn(usize) -> bool,
) -> Result<Change> {
    let def = &table.def;
    let mut change = Change {
        renamed: renaming::renamed_columns(replica, table, now)?,
        reused: renaming::reused_name(replica, table, now)?,
        ..Change::default()
    };
    let mut as_it_was = def.clone();
    for (at, column) in def.columns.iter().enumerate() {
        let name = column_numbers::name_after(&change.renamed, &column.name).to_owned();
        let Some(here) = now.column(&name).map(|at| &now.columns[at]) else {
            match column.key > 0 {
                true => change.key = true,
                false => change.gone.push(name),
            }
            continue;
        };
        // What is disputed of a column is so under its old name alone.
        let disputed = name.eq_ignore_ascii_case(&column.name) && disputed(at);
        if column.key == 0 && !here.stores_like(column) && !disputed {
            change.retyped.push(name.clone());
        }
        as_it_was.columns[at].name = name;
    }
    change.key |= !as_it_was.has_key_of(now);
    Ok(change)
}

/// Returns whether columns of a table have other values than what was recorded of its rows makes them, though its triggers may
/// be there: SQLite changes a type only where a column is dropped, and added again.
pub(crate) fn has_new_values(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    change: &Change,
) -> Result<bool> {
    Ok(!change.retyped.is_empty() || !column_order::is_kept(replica, table.tid, now, &change.renamed)?)
}

/// Decides what becomes of a table of which columns were changed, and adopts what it is if every other device has done the
/// same. It is announced in any case. `unread` are the columns of definitions that stood for none before.
pub(crate) fn stand(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    change: &Change,
    unread: &Unread,
) -> Result<Standing> {
    if let Some((before, after)) = &change.reused {
        return Ok(Standing::Held(format!(
            "its column `{before}` is called `{after}` here, as another of its columns was called: what others write would be \
             taken for that one's; give it a name that none of them had, or the one before: {REUSED}"
        )));
    }
    let announced = as_announced(table, now, change);
    if change.key {
        announce(replica, table, &announced, change)?;
        return Ok(Standing::Held(format!(
            "its primary key is another one now ({}, and {} before): {ANOTHER_KEY}",
            now.show_key(),
            table.def.show_key()
        )));
    }
    if table.def.mode == Mode::Shared {
        announce(replica, table, &announced, change)?;
    }
    let unlike: Vec<i64> = unlike(replica, table, now)?.iter().map(|shape| shape.dev).collect();
    if table.def.mode == Mode::Shared && (!unlike.is_empty() || peers::is_rolled_back(replica)?) {
        let names = unlike.iter().take(3).map(|dev| devices::device_label(replica, *dev));
        let mut names = names.collect::<Result<Vec<_>>>()?.join(", ");
        if unlike.len() > 3 {
            names.push_str(&format!(" and {} more", unlike.len() - 3));
        }
        return Ok(Standing::Held(format!("{}, and not yet on {names}: {WAITS}", change.in_words())));
    }
    adopt_change(replica, table, now, change, unread)?;
    Ok(Standing::Adopted)
}

/// Returns what a table is now, its columns in the order that they have in the definition before: their numbers.
fn as_announced(table: &Table, now: &TableDef, change: &Change) -> TableDef {
    let mut def = reshaped(table, now, change);
    // A type that was decided elsewhere is no change of this device's, and the others count on what is said of it.
    for (_, old) in table.def.columns.iter().enumerate().filter(|(at, _)| !table.disputed.contains(*at)) {
        let name = column_numbers::name_after(&change.renamed, &old.name);
        if let (Some(said), Some(here)) = (def.column(name), now.column(name))
            && def.columns[said].key == 0
        {
            become_kind(&mut def.columns[said], &now.columns[here]);
        }
    }
    if change.key {
        for column in &mut def.columns {
            let Some(at) = now.column(&column.name) else { continue };
            become_kind(column, &now.columns[at]);
            column.key = now.columns[at].key;
        }
    }
    def.columns
        .extend(now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect::<Vec<_>>());
    def.uniques = column_numbers::uniques_of(&def, now);
    def.foreign_keys.clone_from(&now.foreign_keys);
    def
}

/// Returns the definition of a table after what was done to its columns, without those that are new.
fn reshaped(table: &Table, now: &TableDef, change: &Change) -> TableDef {
    let mut def = table.def.clone();
    for column in &mut def.columns {
        column.name = column_numbers::name_after(&change.renamed, &column.name).to_owned();
        if change.retyped.contains(&column.name)
            && let Some(at) = now.column(&column.name)
        {
            become_kind(column, &now.columns[at]);
        }
    }
    def.columns.retain(|column| now.column(&column.name).is_some());
    def.uniques = column_numbers::uniques_of(&def, now);
    def
}

/// Makes a column what it is now, if it is of another type or collation.
fn become_kind(column: &mut ColumnDef, now: &ColumnDef) {
    if !column.stores_like(now) {
        *column = ColumnDef { merge: column.merge, key: column.key, ..now.clone() };
    }
}

/// Announces what a changed table is, unless that is what this device announced last.
fn announce(replica: &Replica, table: &Table, now: &TableDef, change: &Change) -> Result<()> {
    let (id, _) = now.encode()?;
    let last = shapes::own_shape(replica, table.tid)?;
    if last.is_some_and(|last| last.id == id) || peers::is_rolled_back(replica)? {
        return Ok(());
    }
    let says = groups::Says { def: now, bits: SchemaBits::CHANGED, names: &change.renamed };
    let options = SealOptions { says: Some(&says), ..SealOptions::default() };
    groups::seal_groups(replica, options).map(|_| ())
}

/// Returns the other devices of which the announced tables do not fit what the table is here now.
fn unlike(replica: &Replica, table: &Table, now: &TableDef) -> Result<Vec<Shape>> {
    let mut unlike = Vec::new();
    for shape in shapes::shapes(replica, table.tid)? {
        let decides = shape.dev != replica.me && !shape.bits.says(SchemaBits::FOLLOWS);
        if decides && !shapes::fits(replica, table.tid, now, &table.def, &shape.def)? {
            unlike.push(shape);
        }
    }
    Ok(unlike)
}

/// Returns whether a column that was renamed here was decided to be of another kind under its new name, and a device has it
/// so: who gives it that name later, and has not changed its type, decides nothing by that.
pub(crate) fn is_decided_otherwise(replica: &Replica, tid: i64, change: &Change) -> Result<bool> {
    let table = catalog::table(replica, tid)?;
    for (_, name) in change.renamed.iter().filter(|(_, name)| !change.retyped.contains(name)) {
        let Some(here) = table.def.column(name).map(|at| &table.def.columns[at]) else { continue };
        let declared = declare::declared_columns(replica, tid, name)?;
        let [(_, decided)] = &declared[..] else { continue };
        let has_it = |shape: &Shape| {
            let there = shape.def.column(name).map(|at| &shape.def.columns[at]);
            !shape.bits.says(SchemaBits::CHANGED) && there.is_some_and(|there| there.stores_like(decided))
        };
        if !decided.stores_like(here) && shapes::shapes(replica, tid)?.iter().any(has_it) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes what a table is its definition: versions, lists and counters go along. `come` are the columns of definitions in the log
/// that are read otherwise by that.
fn adopt_change(
    replica: &Replica,
    table: &Table,
    now: &TableDef,
    change: &Change,
    come: &Unread,
) -> Result<()> {
    let listed = renaming::told_names(replica, table)?.unwrap_or_default();
    // They name columns of our lists.
    watch::remove_triggers(replica, table.tid)?;
    column_numbers::join_in_list(replica, table, &change.renamed, &listed)?;
    column_numbers::rename_columns(replica, table, &change.renamed)?;
    column_numbers::forget_columns(replica, table, &change.gone, come)?;
    for name in &change.gone {
        follow::unordain_column(replica, table.tid, name)?;
        declare::move_made(replica, table.tid, name, None)?;
    }
    for (old, name) in &change.renamed {
        declare::move_made(replica, table.tid, old, Some(name))?;
    }
    adopt::adopt_def(replica, table.tid, &reshaped(table, now, change))?;
    adopt::announce_again(replica, table.tid)?;
    catalog::reload_table(replica, table.tid)
}

/// Says that a table is again what it was before this device announced a change of it; or that it is not what this device
/// announced before it was set back to a backup.
pub(crate) fn take_back(replica: &Replica, table: &Table) -> Result<()> {
    let last = shapes::own_shape(replica, table.tid)?;
    let is_other = |last: Shape| last.bits.says(SchemaBits::CHANGED) || !last.def.has_columns_of(&table.def);
    if table.announced && last.is_some_and(is_other) {
        adopt::announce_again(replica, table.tid)?;
        catalog::reload_table(replica, table.tid)?;
    }
    Ok(())
}

/// Says that a table lacks columns that it has by this device's own log, since the device was set back to a backup: nobody waits
/// for them, and nobody takes them to be dropped. Its application will add them again.
pub(crate) fn say_set_back(replica: &Replica, table: &Table) -> Result<()> {
    if !table.announced {
        return Ok(());
    }
    let last = shapes::own_shape(replica, table.tid)?.filter(|last| !last.bits.says(SchemaBits::LEFT));
    let Some(last) = last else { return Ok(()) };
    let had = match last.bits.says(SchemaBits::CHANGED) {
        true => shapes::before(replica, table.tid, replica.me)?,
        false => Some(last.def),
    };
    let lacks = |def: TableDef| def.columns.iter().any(|column| table.def.column(&column.name).is_none());
    if !had.is_some_and(lacks) {
        return Ok(());
    }
    if peers::is_rolled_back(replica)? {
        return catalog::doubt_schema(replica);
    }
    let follows = follow::follows(replica, table)?;
    let bits = if follows { SchemaBits::SET_BACK.and(SchemaBits::FOLLOWS) } else { SchemaBits::SET_BACK };
    let says = groups::Says { def: &table.def, bits, names: &[] };
    groups::seal_groups(replica, SealOptions { says: Some(&says), ..SealOptions::default() }).map(|_| ())
}

/// Returns what is still to be done to a table: columns go that a person has dropped for all; one whose columns follow
/// becomes what it is on the devices that decide. A column that Packmule made in an application's table does that too, and UNIQUE
/// indexes that it made go wherever others free them.
pub(crate) fn due(replica: &Replica, table: &Table) -> Result<Change> {
    let mut change = Change::default();
    if !matches!(table.state, State::Tracked | State::Suspended) || table.def.mode != Mode::Shared {
        return Ok(change);
    }
    for column in table.def.columns.iter().filter(|c| c.key == 0) {
        if dropped::is_dropped(replica, table.tid, &column.name)? {
            change.gone.push(column.name.clone());
        }
    }
    if table.state != State::Tracked {
        return Ok(change);
    }
    let mut others = shapes::deciding(replica, table.tid)?;
    others.retain(|shape| shape.dev != replica.me && shape.def.mode == Mode::Shared);
    let Some(first) = others.first() else { return Ok(change) };
    let follows = follow::follows(replica, table)?;
    for column in &table.def.columns {
        let name = &column.name;
        if !follows && !declare::is_made(replica, table.tid, name)? {
            continue;
        }
        if change.gone.contains(name) {
            continue;
        }
        if others.iter().any(|shape| shape.def.column(name).is_some()) {
            if !follows && shapes::is_nobodys(replica, table.tid, &others, name)? {
                change.gone.push(name.clone());
            }
            continue;
        }
        let names = renamed::names_of(replica, table.tid, name)?;
        // Under its new name it has come already.
        let is_beside = names.iter().any(|other| table.def.column(other).is_some());
        let is_gone = match (follows, is_beside) {
            (false, _) => shapes::is_dropped_elsewhere,
            (_, true) => shapes::is_gone_by_name,
            (_, false) => shapes::is_gone,
        };
        let new = names.into_iter().find(|new| {
            table.def.column(new).is_none() && others.iter().all(|shape| shape.def.column(new).is_some())
        });
        if let Some(new) = new {
            let spelled = first.def.column(&new).map_or(new, |at| first.def.columns[at].name.clone());
            change.renamed.push((name.clone(), spelled));
        } else if column.key == 0 && is_gone(replica, table.tid, name)? {
            change.gone.push(name.clone());
        }
    }
    // An index is none of the application's either, whoever made the table.
    change.freed = freed(replica, table, others)?;
    Ok(change)
}

/// Returns the UNIQUEs of a table, of which Packmule made the index, that the others had and none of them has any more.
fn freed(replica: &Replica, table: &Table, others: Vec<Shape>) -> Result<Vec<Vec<u16>>> {
    let mut freed = table.def.uniques.clone();
    if freed.is_empty() {
        return Ok(freed);
    }
    let uniques = |mut def: TableDef| -> Result<_> {
        renamed::as_now(replica, table.tid, &mut def, &table.def)?;
        Ok(column_numbers::uniques_of(&table.def, &def))
    };
    let mut devices = Vec::new();
    for shape in others {
        devices.push(shape.dev);
        let now = uniques(shape.def)?;
        freed.retain(|unique| !now.contains(unique));
    }
    if freed.is_empty() {
        return Ok(freed);
    }
    let mut had = Vec::new();
    for dev in devices {
        for def in shapes::past_shapes(replica, table.tid, dev)? {
            had.extend(uniques(def)?);
        }
    }
    freed.retain(|unique| had.contains(unique));
    uniques::retain_ours(replica, table, &mut freed)?;
    Ok(freed)
}

/// Makes a table what it is to be: see `due`. Returns what was done; or why it cannot be.
pub(crate) fn follow(replica: &Replica, table: &Table) -> Result<std::result::Result<Change, String>> {
    let change = due(replica, table)?;
    if change.is_nothing() {
        return Ok(Ok(change));
    }
    // What was written into a column that goes is read as what others call it now, if that has come as a new one.
    let come = follow::standing_for(replica, table.tid, &table.def, &change.gone)?;
    replica.db.execute_batch("SAVEPOINT _pm_follow")?;
    match change_columns(replica, table, &change) {
        Ok(()) => replica.db.execute_batch("RELEASE _pm_follow")?,
        Err(e)
            if e.of_sqlite().and_then(rusqlite::Error::sqlite_error_code)
                == Some(rusqlite::ErrorCode::Unknown) =>
        {
            let e = connection::undo(&replica.db, "_pm_follow", e)?;
            return Ok(Err(format!(
                "others have changed its columns, and that cannot be done here ({e}); drop what is in the way, a view, a \
                 trigger or an index: until then its rows wait, here and from other devices, and nothing is lost"
            )));
        }
        Err(e) => return Err(e),
    }
    let now = read_again(replica, table, &change)?;
    adopt_change(replica, table, &now, &change, &come)?;
    follow::read_again(replica, &*catalog::table(replica, table.tid)?, come)?;
    Ok(Ok(change))
}

/// Renames and drops columns of a table here, as far as its application has not done so itself.
fn change_columns(replica: &Replica, table: &Table, change: &Change) -> Result<()> {
    change.freed.iter().try_for_each(|unique| uniques::drop_unique(replica, table, unique))?;
    let is_there = |name: &String| dirty::has_column(replica, &table.def.name, name);
    for name in &change.gone {
        if !is_there(name)? {
            continue;
        }
        for other in renamed::names_of(replica, table.tid, name)? {
            if let Some(at) = table.def.column(&other) {
                move_values(replica, table, name, &table.def.columns[at])?;
            }
        }
        drop_column(replica, table, name)?;
    }
    for (old, new) in &change.renamed {
        if !is_there(old)? && is_there(new)? {
            continue;
        }
        replica.db.execute_batch(&format!(
            "ALTER TABLE {} RENAME COLUMN {} TO {}",
            table.sql_name,
            value::quote(old),
            value::quote(new)
        ))?;
    }
    Ok(())
}

/// Drops a column for all devices, by a person's word: here, and in what this device announces.
pub(crate) fn drop_for_all(replica: &Replica, table: &Table, name: &str) -> Result<()> {
    let change = Change { gone: vec![name.to_owned()], ..Change::default() };
    change_columns(replica, table, &change)?;
    let now = read_again(replica, table, &change)?;
    adopt_change(replica, table, &now, &change, &Unread::new())?;
    let table = catalog::table(replica, table.tid)?;
    watch::install_capture(replica, &table)?;
    adopt::remember_schema(replica)?;
    say_dropped(replica, &table, &[name.to_owned()])?;
    groups::seal_groups(replica, SealOptions::default())?;
    deferred::defer_all(replica, table.tid)?;
    constraints::resolve_constraints(replica)
}

/// Says that columns of a table, which are gone here, are dropped for all devices.
pub(crate) fn say_dropped(replica: &Replica, table: &Table, names: &[String]) -> Result<()> {
    let follows = follow::follows(replica, table)?;
    let bits = if follows { SchemaBits::DROPS.and(SchemaBits::FOLLOWS) } else { SchemaBits::DROPS };
    let names: Vec<(String, String)> = names.iter().map(|name| (name.clone(), String::new())).collect();
    let says = groups::Says { def: &table.def, bits, names: &names };
    groups::seal_groups(replica, SealOptions { says: Some(&says), ..SealOptions::default() }).map(|_| ())
}

/// Reads what a table is after its columns were changed here.
fn read_again(replica: &Replica, table: &Table, change: &Change) -> Result<TableDef> {
    let names = column_numbers::key_names(&table.def, &change.renamed);
    TableDef::read_by(&replica.db, &table.def.name, By::Columns(&names))
}

/// Gives a column the values of one that goes and is the same under its old name, where it has but its default: of rows that are
/// settled they stand nowhere else.
fn move_values(replica: &Replica, table: &Table, from: &str, to: &ColumnDef) -> Result<()> {
    let (from, default, to) = (value::quote(from), value::literal(&to.constant()), value::quote(&to.name));
    let sql = format!("UPDATE OR IGNORE {} SET {to} = {from} WHERE {to} IS {default}", table.sql_name);
    // It is no write of an application's; the triggers are made again with the new definition.
    watch::remove_triggers(replica, table.tid)?;
    Ok(replica.db.execute_batch(&sql)?)
}

/// Drops a column of a table here, with the indexes over it.
pub(crate) fn drop_column(replica: &Replica, table: &Table, name: &str) -> Result<()> {
    let indexes = replica
        .db
        .prepare(
            "SELECT l.name FROM pragma_index_list(?1) l WHERE l.origin = 'c' AND EXISTS (
               SELECT 1 FROM pragma_index_xinfo(l.name) i WHERE i.key AND i.name = ?2 COLLATE NOCASE)",
        )?
        .query_map((&table.def.name, name), |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    for index in indexes {
        replica.db.execute_batch(&format!("DROP INDEX main.{}", value::quote(&index)))?;
    }
    watch::remove_displacing(replica, table.tid)?;
    Ok(replica.db.execute_batch(&format!(
        "ALTER TABLE {} DROP COLUMN {}",
        table.sql_name,
        value::quote(name)
    ))?)
}
