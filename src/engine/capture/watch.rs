//! Capture: plain SQL triggers that record *which* rows of a tracked table change.
//!
//! Each tracked table has a list, `_pm_dirty_N`, of the keys of rows that were written since the last seal, with what
//! was done to them (`ChangeFlags`). Triggers only append to the list; the seal reads one row a key from it. Triggers
//! and lists use nothing that an application's SQLite might not have.

use rusqlite::Connection;

use crate::engine::capture::dirty::{self, ChangeFlags, Event};
use crate::engine::capture::{column_order, fresh, renumbered, runs, uniques};
use crate::engine::error::{Error, Result};
use crate::engine::store::value::{self, Affinity};
use crate::engine::table::def::{ROWID_NAMES, TableDef};
use crate::engine::table::entries;
use crate::engine::table::indexes::Written;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns the names of the triggers of a table.
fn trigger_names(tid: i64) -> [String; 5] {
    ["insert", "update", "delete", "replace", "displace"].map(|what| format!("_pm_{what}_{tid}"))
}

/// Makes the list and the triggers of a table; replaces triggers that are there.
pub(crate) fn install_capture(replica: &Replica, table: &Table) -> Result<()> {
    begin_capture(replica, table)?;
    make_triggers(replica, table)
}

/// Makes the triggers of a table that has its list and none of them.
pub(crate) fn make_triggers(replica: &Replica, table: &Table) -> Result<()> {
    replica.db.execute_batch(&statements(&replica.db, table)?)?;
    end_capture(replica, table)
}

/// Makes the list of a table, and removes its triggers: they are to be made.
pub(crate) fn begin_capture(replica: &Replica, table: &Table) -> Result<()> {
    remove_triggers(replica, table.tid)?;
    dirty::make_lists(replica, table)?;
    renumbered::make(replica, table)?;
    fresh::record(replica, table.tid)
}

/// Remembers of a table what its triggers go by, which are made.
pub(crate) fn end_capture(replica: &Replica, table: &Table) -> Result<()> {
    fresh::set_mark(replica, table)?;
    column_order::remember(replica, table.tid, &table.def.name)
}

/// Makes the triggers of a table again, by a definition whose columns are those of its lists.
pub(crate) fn rename_in_triggers(replica: &Replica, table: &Table) -> Result<()> {
    remove_triggers(replica, table.tid)?;
    fresh::record(replica, table.tid)?;
    replica.db.execute_batch(&statements(&replica.db, table)?)?;
    fresh::set_mark(replica, table)
}

/// Returns the SQL that makes the triggers of a table.
fn statements(db: &Connection, table: &Table) -> Result<String> {
    Ok(triggers(db, table)?.into_iter().map(|(_, sql)| sql + ";").collect())
}

/// Removes the triggers and the list of a table, and its sums.
pub(crate) fn remove_capture(replica: &Replica, table: &Table) -> Result<()> {
    remove_triggers(replica, table.tid)?;
    runs::forget(replica, table.tid)?;
    column_order::forget(replica, table.tid)?;
    uniques::forget_told(replica, table.tid)?;
    replica.db.execute_batch(&format!(
        "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {}; DELETE FROM _pm_mark WHERE tid = {}",
        table.dirty(),
        table.rowids(),
        table.tid
    ))?;
    Ok(())
}

/// Removes the triggers of a table.
pub(crate) fn remove_triggers(replica: &Replica, tid: i64) -> Result<()> {
    for name in trigger_names(tid) {
        replica.db.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}"))?;
    }
    Ok(())
}

/// Removes the triggers that name columns of UNIQUE indexes plainly: these would be in the way of dropping one. The next seal
/// makes them again.
pub(crate) fn remove_displacing(replica: &Replica, tid: i64) -> Result<()> {
    let [.., replace, displace] = trigger_names(tid);
    let sql = format!("DROP TRIGGER IF EXISTS {replace}; DROP TRIGGER IF EXISTS {displace}");
    Ok(replica.db.execute_batch(&sql)?)
}

/// Returns whether the triggers differ from what they must be now, for instance since unique indexes were added.
pub(crate) fn capture_outdated(replica: &Replica, table: &Table) -> Result<bool> {
    let wanted = triggers(&replica.db, table)?;
    let mut found = 0;
    for name in trigger_names(table.tid) {
        if let Some(sql) = entries::trigger(replica, &name, &table.def.name)? {
            if wanted.iter().all(|(_, wanted)| *wanted != sql) {
                return Ok(true);
            }
            found += 1;
        }
    }
    Ok(found != wanted.len())
}

/// Returns whether all triggers that the table must have are there: dropping a table drops them too.
pub(crate) fn capture_intact(replica: &Replica, table: &Table) -> Result<bool> {
    // An append table has none on INSERT.
    let first = usize::from(table.def.append);
    for name in &trigger_names(table.tid)[first..3] {
        if entries::trigger(replica, name, &table.def.name)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the condition that a column's value is not exactly the same, also where SQLite's `=` says that it is.
fn changed(name: &str, decl_type: &str) -> String {
    let c = value::quote(name);
    let mut sql = format!("OLD.{c} IS NOT NEW.{c} COLLATE BINARY");
    // Only a column without affinity holds 1 and 1.0, or 0.0 and -0.0, as different values. SQL cannot tell the
    // latter two apart, so a zero counts as changed.
    if Affinity::of(decl_type) == Affinity::Blob {
        sql = format!(
            "({sql} OR typeof(OLD.{c}) <> typeof(NEW.{c}) OR (typeof(NEW.{c}) = 'real' AND NEW.{c} = 0.0))"
        );
    }
    sql
}

/// Makes an expression over OLD and NEW outlive a column that the application drops: the column is NULL then.
///
/// SQLite looks for `OLD.c` in the trigger's row first. If it has no such column, the subqueries around have one. A
/// trigger that names a column plainly would make every `ALTER TABLE ... DROP COLUMN` fail.
fn outliving(def: &TableDef, expression: &str) -> String {
    let names: Vec<String> =
        def.columns.iter().filter(|c| c.key == 0).map(|c| value::quote(&c.name)).collect();
    if names.is_empty() {
        return format!("({expression})");
    }
    let one = lacking_row(def, &names);
    let query = format!("(SELECT (SELECT {expression}) FROM {one} AS OLD) FROM {one} AS NEW");
    in_lacking(&names, &lasting(query, &one))
}

/// Returns the value of a column in a row that a displacing trigger finds in its table; NULL if the column is gone.
fn outliving_value(def: &TableDef, table: &str, column: &str) -> String {
    let names = [value::quote(column)];
    let same: Vec<String> = def
        .keys()
        .map(|at| value::quote(&def.columns[at].name))
        .map(|key| format!("_pm_row.{key} = {table}.{key}"))
        .collect();
    let (c, one) = (&names[0], lacking_row(def, &names));
    let found = format!("(SELECT _pm_row.{c} FROM {table} AS _pm_row WHERE {})", same.join(" AND "));
    in_lacking(&names, &lasting(format!("{found} FROM {one} AS _pm_row"), &one))
}

/// Returns a subquery of one row that has these columns, all NULL.
///
/// Where the application renames a column and then drops it, SQLite has put the new name here too, since it is one of the
/// table. Then it is a column no more, and SQLite reads it as a text, as it does what stands in double quotes and means
/// nothing else; of a column that is dropped under its old name, it finds the one around (`in_lacking`). Where an
/// application's SQLite does not do so (`SQLITE_DQS`), it must seal between renaming a column and dropping it. The next
/// `ALTER TABLE` puts that text into single quotes, which name no column: then one of those around counts (`lasting`).
fn lacking_row(def: &TableDef, names: &[String]) -> String {
    let table = value::quote(&def.name);
    let first = def.keys().next().map(|at| value::quote(&def.columns[at].name));
    let none = first.map_or("0".into(), |key| format!("{table}.{key} = NULL"));
    format!("(SELECT {} FROM (SELECT 1 AS _pm_one) LEFT JOIN {table} ON {none})", names.join(", "))
}

/// After a column was renamed and dropped under its new name, so many more changes of a table do not end in an error while
/// nothing of Packmule runs; after that SQLite refuses each, until something does (`src/docs/migrations.md`). Each takes
/// memory for the triggers of every table, and a part of each update.
const LASTS: usize = 1;

/// Puts a query into others that have the same row. What is a column of one around stays one where it is looked for, and
/// each `ALTER TABLE` takes the outermost away.
fn lasting(query: String, one: &str) -> String {
    (0..LASTS).fold(query, |query, _| format!("(SELECT {query}) FROM {one}"))
}

/// Puts a query into one that has these columns, all NULL.
fn in_lacking(names: &[String], query: &str) -> String {
    let nulls: Vec<String> = names.iter().map(|name| format!("NULL AS {name}")).collect();
    format!("(SELECT (SELECT {query}) FROM (SELECT {}))", nulls.join(", "))
}

/// A trigger's name, and the statement that makes it, as SQLite keeps it.
pub(crate) type Trigger = (String, String);

/// Returns the triggers of a table.
pub(crate) fn triggers(db: &Connection, table: &Table) -> Result<Vec<Trigger>> {
    let (tid, def) = (table.tid, &table.def);
    let source = table;
    // The list is written by column names: it may have columns that were needed once and are not any more.
    let names: Vec<String> =
        std::iter::once(table.change_columns()).chain(dirty::extra_columns(table)).collect();
    let list = format!("{} ({})", table.dirty(), names.join(", "));
    let [insert, update, delete, ..] = trigger_names(tid);
    let table = value::quote(&def.name);
    let any = |columns: &mut dyn Iterator<Item = usize>| {
        let parts: Vec<_> =
            columns.map(|at| changed(&def.columns[at].name, &def.columns[at].decl_type)).collect();
        value::joined(&parts, "OR")
    };
    let key_changed = any(&mut def.keys());
    let uniques = unique_indexes(db, def)?;
    let claims = if uniques.iter().any(|u| u.whole_row) {
        any(&mut (0..def.columns.len()))
    } else {
        any(&mut (0..def.columns.len()).filter(|at| uniques.iter().any(|u| u.columns.contains(at))))
    };
    let claims = outliving(def, &claims);
    let (new_keys, old_keys) = (def.key_list("NEW."), def.key_list("OLD."));
    if def.append {
        return Ok(append_triggers(source, &list, &key_changed));
    }
    let inserted = extra_values(source, Event::Insert);
    let gone = extra_values(source, Event::Gone("OLD".into()));
    let mut all = vec![
        (insert.clone(), format!(
            "CREATE TRIGGER {insert} AFTER INSERT ON {table}{recorded} BEGIN
           INSERT INTO {list} VALUES ({new_keys}, {INSERT}{inserted});
         END",
            recorded = fresh::recorded(db, source, &new_keys)?,
            INSERT = ChangeFlags::INSERT,
        )),
        (update.clone(), format!(
            "CREATE TRIGGER {update} AFTER UPDATE ON {table} WHEN {any} BEGIN
           INSERT INTO {list} VALUES ({new_keys}, CASE WHEN {key_changed} THEN {INSERT} WHEN {claims} THEN {UPDATE_UNIQUE} ELSE {UPDATE} END{updated});
           INSERT INTO {list} SELECT {old_keys}, {DELETE}{gone} WHERE {key_changed};
         END",
            any = outliving(def, &any(&mut (0..def.columns.len()))),
            updated = extra_values(source, Event::Update),
            INSERT = ChangeFlags::INSERT,
            UPDATE = ChangeFlags::UPDATE,
            UPDATE_UNIQUE = ChangeFlags::UPDATE_UNIQUE,
            DELETE = ChangeFlags::DELETE,
        )),
        (delete.clone(), format!(
            "CREATE TRIGGER {delete} AFTER DELETE ON {table} BEGIN
           INSERT INTO {list} VALUES ({old_keys}, {DELETE}{gone});
         END",
            DELETE = ChangeFlags::DELETE,
        )),
    ];
    all.extend(displacement_triggers(db, source, &uniques, &claims, &list)?);
    Ok(all)
}

/// Returns the triggers of an append table: inserts are free, and rows above the mark are not sealed yet.
fn append_triggers(source: &Table, list: &str, key_changed: &str) -> Vec<Trigger> {
    let def = &source.def;
    let [_, update, delete, ..] = trigger_names(source.tid);
    let (new_keys, old_keys) = (def.key_list("NEW."), def.key_list("OLD."));
    let sealed = format!("{old_keys} <= (SELECT appended FROM _pm_table WHERE tid = {})", source.tid);
    let table = value::quote(&def.name);
    let gone = extra_values(source, Event::Gone("OLD".into()));
    vec![
        (update.clone(), format!(
            "CREATE TRIGGER {update} AFTER UPDATE ON {table} WHEN {sealed} BEGIN
           INSERT INTO {list} VALUES ({new_keys}, CASE WHEN {key_changed} THEN {INSERT} ELSE {UPDATE} END{updated});
           INSERT INTO {list} SELECT {old_keys}, {DELETE}{gone} WHERE {key_changed};
         END",
            updated = extra_values(source, Event::Update),
            INSERT = ChangeFlags::INSERT,
            UPDATE = ChangeFlags::UPDATE,
            DELETE = ChangeFlags::DELETE,
        )),
        (delete.clone(), format!(
            "CREATE TRIGGER {delete} AFTER DELETE ON {table} WHEN {sealed} BEGIN
           INSERT INTO {list} VALUES ({old_keys}, {DELETE}{gone});
         END",
            DELETE = ChangeFlags::DELETE,
        )),
    ]
}

/// Returns the triggers that record rows which a REPLACE may remove, for which no delete trigger runs. `claims`
/// is the condition by which an update changes a unique value; `list` is where the keys go.
fn displacement_triggers(
    db: &Connection,
    source: &Table,
    uniques: &[UniqueIndex],
    claims: &str,
    list: &str,
) -> Result<Vec<Trigger>> {
    let def = &source.def;
    let table = value::quote(&def.name);
    let [.., replace, displace] = trigger_names(source.tid);
    let mut displaced: Vec<String> = uniques.iter().map(|u| u.same.clone()).collect();
    let mut claims_place = claims.to_owned();
    if let Some(rowid) = free_rowid(db, def)? {
        // A REPLACE that sets the rowid removes the row that has it.
        displaced.push(format!("{table}.{rowid} = NEW.{rowid}"));
        claims_place += &format!(" OR OLD.{rowid} <> NEW.{rowid}");
    }
    if displaced.is_empty() {
        return Ok(Vec::new());
    }
    let inserts = displaced.iter().fold(String::new(), |sql, same| {
        sql + &format!(
            " INSERT INTO {list} SELECT {}, {}{} FROM {table} WHERE {same};",
            def.key_list(&format!("{table}.")),
            ChangeFlags::MAYBE_GONE,
            extra_values(source, Event::Gone(table.clone()))
        )
    });
    let on_insert = format!("CREATE TRIGGER {replace} BEFORE INSERT ON {table} BEGIN{inserts} END");
    let on_update =
        format!("CREATE TRIGGER {displace} BEFORE UPDATE ON {table} WHEN {claims_place} BEGIN{inserts} END");
    Ok(vec![(replace, on_insert), (displace, on_update)])
}

/// Returns what a trigger writes into the extra columns of the list.
fn extra_values(table: &Table, event: Event) -> String {
    let columns = &table.def.columns;
    let changed = |at: usize| changed(&columns[at].name, &columns[at].decl_type);
    dirty::extra_values(
        table,
        &event,
        &changed,
        &|expression| outliving(&table.def, expression),
        &|row, at| match row {
            "OLD" => outliving(&table.def, &format!("OLD.{}", value::quote(&columns[at].name))),
            table_name => outliving_value(&table.def, table_name, &columns[at].name),
        },
    )
}

/// Returns the name of the rowid, if there is one that is not the key itself and that SQL can set.
fn free_rowid(db: &Connection, def: &TableDef) -> Result<Option<&'static str>> {
    let name = ROWID_NAMES.into_iter().find(|name| def.column(name).is_none());
    let is_key = def.integer_key() && def.aliases_rowid(db)?;
    Ok(name.filter(|_| !def.without_rowid && !is_key && !def.keyless))
}

/// A unique index other than the primary key's.
struct UniqueIndex {
    columns: Vec<usize>,
    /// It is over expressions or partial: any column may count.
    whole_row: bool,
    /// Finds the rows of the table that have the same value in it as the row NEW. A partial index
    /// may have fewer: too many are harmless.
    same: String,
}

/// Reads the unique indexes of a table.
fn unique_indexes(db: &Connection, def: &TableDef) -> Result<Vec<UniqueIndex>> {
    let mut statement = db.prepare_cached(
        "SELECT name, partial FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk' ORDER BY name",
    )?;
    let indexes = statement
        .query_map([&def.name], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, bool)>>>()?;
    let mut terms =
        db.prepare_cached("SELECT seqno, name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
    let mut found = Vec::new();
    for (name, partial) in indexes {
        let mut index = UniqueIndex { columns: Vec::new(), whole_row: partial, same: String::new() };
        let mut expressions = None;
        let mut rows = terms.query([&name])?;
        let mut parts = Vec::new();
        while let Some(row) = rows.next()? {
            let column: Option<String> = row.get(1)?;
            let collation: Option<String> = row.get(2)?;
            let collation = value::quote(collation.as_deref().unwrap_or("BINARY"));
            match column {
                Some(column) => {
                    let c = value::quote(&column);
                    parts.push(format!("{}.{c} = NEW.{c} COLLATE {collation}", value::quote(&def.name)));
                    index.columns.extend(def.column(&column));
                    // A generated column changes with any other.
                    index.whole_row |= def.column(&column).is_none();
                }
                None => {
                    let at: usize = row.get(0)?;
                    // Only here: whoever looks for a name in the schema walks through all of it.
                    let all = match expressions.take() {
                        Some(all) => all,
                        None => expressions_of(db, &name)?,
                    };
                    let expression = expressions.insert(all).get(at).ok_or_else(|| {
                        Error::cannot_track(&def.name, format!("its index `{name}` could not be understood"))
                    })?;
                    let news: Vec<_> = def
                        .columns
                        .iter()
                        .map(|c| format!("NEW.{0} AS {0}", value::quote(&c.name)))
                        .collect();
                    parts.push(format!(
                        "({expression}) = (SELECT {expression} FROM (SELECT {})) COLLATE {collation}",
                        news.join(", ")
                    ));
                    index.whole_row = true;
                }
            }
        }
        index.same = parts.join(" AND ");
        found.push(index);
    }
    Ok(found)
}

/// Returns the terms of an index as its CREATE INDEX has them.
fn expressions_of(db: &Connection, index: &str) -> Result<Vec<String>> {
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1";
    let sql: Option<String> = value::maybe(db, sql, [index])?.flatten();
    Ok(sql.as_deref().map(|sql| Written::read(sql).terms).unwrap_or_default())
}
