//! The known tables and definitions, kept in memory as long as no other connection changes the database.

use std::sync::Arc;

use packmule_core::model::Hex;
use packmule_core::wire::{DefId, Mode};
use rusqlite::{Connection, OptionalExtension};

use crate::engine::error::{Error, Result};
use crate::engine::store::{connection, meta, value};
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{ASIDE, Catalog, OpDef, State, Table};
use crate::engine::table::replica::{self, Replica};
use crate::engine::table::{declared, renamed, shapes};

/// Loads the catalog, unless it is the database's still. Frames that are open belong to the transaction before.
pub(crate) fn load_catalog(replica: &Replica) -> Result<()> {
    replica.opened.borrow_mut().close_all();
    let version: i64 = replica.db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
    if replica.catalog.borrow().loaded == Some(version) {
        return Ok(());
    }
    replica.triggers.borrow_mut().has_none = false;
    let mut catalog = Catalog { loaded: Some(version), ..Catalog::default() };
    read_tables(replica, None)?.into_iter().for_each(|table| catalog.put(table));
    let named = |table: &Arc<Table>| catalog.is_referred_to(&table.def.name.to_ascii_lowercase());
    let parents: Vec<Arc<Table>> = catalog.tables.values().filter(|table| named(table)).cloned().collect();
    parents.into_iter().for_each(|table| catalog.put(Table { is_parent: true, ..(*table).clone() }));
    *replica.catalog.borrow_mut() = catalog;
    Ok(())
}

/// Reads all known tables, or one of them; not whether others refer to it.
fn read_tables(replica: &Replica, only: Option<i64>) -> Result<Vec<Table>> {
    // A name of a damaged table, longer than any statement may be, is a failure of SQLite's memory to it.
    let mut statement = replica.db.prepare_cached(
        "SELECT t.tid, t.state, t.appended, t.announced, t.note, d.id, d.body, t.gathers, t.deletes, t.gaps,
         EXISTS (SELECT 1 FROM pragma_table_xinfo(substr(t.name, 1, 65536)) WHERE hidden IN (2, 3)), coalesce(t.root, t.tid), t.name
         FROM _pm_table t JOIN _pm_def d ON d.id = t.def WHERE t.tid BETWEEN ?1 AND ?2 ORDER BY t.tid",
    )?;
    let mut rows = statement.query(only.map_or((i64::MIN, i64::MAX), |tid| (tid, tid)))?;
    let mut tables = Vec::new();
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(6)?;
        let def = TableDef::stored(&body)?;
        let (tid, state): (i64, State) = (row.get(0)?, row.get(1)?);
        if tid < 1 {
            return Err(Error::damaged(format!("`_pm_table` has the number {tid}")));
        }
        let unique = state == State::Tracked
            && replica
                .db
                .prepare_cached(
                    "SELECT count(*) FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'",
                )?
                .query_row([&def.name], |row| Ok(row.get::<_, i64>(0)? > 0))?;
        tables.push(Table {
            tid,
            unique,
            generated: row.get(10)?,
            keys: def.keys().map(|at| (at, def.columns[at].collation)).collect(),
            counters: def.counters(),
            disputed: declared::disputed_columns(replica, tid, &def)?,
            state,
            high_water: row.get(2)?,
            carries_deletes: row.get(8)?,
            knows_gaps: row.get(9)?,
            announced: row.get(3)?,
            note: row.get(4)?,
            def_id: DefId(row.get(5)?),
            sql_name: format!("main.{}", value::quote(&def.name)),
            def,
            is_parent: false,
            gathers: row.get(7)?,
            root: row.get(11)?,
            aside: row.get_ref(12)?.as_str().is_ok_and(|name| name.starts_with(ASIDE)),
        });
    }
    Ok(tables)
}

/// Loads one table again, after a change of our own to it: what it costs does not depend on how many tables there are.
pub(crate) fn reload_table(replica: &Replica, tid: i64) -> Result<()> {
    replica::doubt_triggers(replica);
    // The columns of definitions in frames may be called otherwise now.
    replica.opened.borrow_mut().close_all();
    let Some(mut table) = read_tables(replica, Some(tid))?.pop() else { return reload_catalog(replica) };
    let mut catalog = replica.catalog.borrow_mut();
    for parent in table.def.foreign_keys.iter().map(|f| f.parent.to_ascii_lowercase()) {
        let known = catalog.names.get(&parent).and_then(|tid| catalog.tables.get(tid));
        if let Some(parent) = known.filter(|p| !p.is_parent && table.shows_shared()).cloned() {
            catalog.put(Table { is_parent: true, ..(*parent).clone() });
        }
    }
    // Also by itself.
    catalog.put(table.clone());
    table.is_parent = catalog.is_referred_to(&table.def.name.to_ascii_lowercase());
    catalog.put(table);
    catalog.lags.remove(&tid);
    catalog.defs.retain(|_, def| def.tid != tid);
    Ok(())
}

/// Loads the catalog again, after a change of our own to `_pm_table` or to the schema.
pub(crate) fn reload_catalog(replica: &Replica) -> Result<()> {
    replica::doubt_triggers(replica);
    replica.catalog.borrow_mut().forget();
    load_catalog(replica)
}

/// Returns all known tables, in the order of their numbers.
pub(crate) fn tables(replica: &Replica) -> Vec<Arc<Table>> {
    let mut tables: Vec<_> = replica.catalog.borrow().tables.values().cloned().collect();
    tables.sort_by_key(|t| t.tid);
    tables
}

/// Returns the table with this number, if it is known.
pub(crate) fn table_numbered(replica: &Replica, tid: i64) -> Option<Arc<Table>> {
    replica.catalog.borrow().tables.get(&tid).cloned()
}

/// Returns the table with this number.
pub(crate) fn table(replica: &Replica, tid: i64) -> Result<Arc<Table>> {
    table_numbered(replica, tid)
        .ok_or_else(|| Error::damaged(format!("table number {tid} is not in `_pm_table`")))
}

/// Returns the table of this name, if it is known.
pub(crate) fn table_named(replica: &Replica, name: &str) -> Option<Arc<Table>> {
    let catalog = replica.catalog.borrow();
    catalog.names.get(&name.to_ascii_lowercase()).and_then(|tid| catalog.tables.get(tid)).cloned()
}

/// Returns the tables of a name other than the one that stands under it here: their primary keys are others.
pub(crate) fn namesakes(replica: &Replica, table: &Table) -> Vec<Arc<Table>> {
    let catalog = replica.catalog.borrow();
    let others = catalog.namesakes.get(&table.root).into_iter().flatten();
    let all = std::iter::once(&table.root).chain(others).filter(|tid| **tid != table.tid);
    all.filter_map(|tid| catalog.tables.get(tid).cloned()).collect()
}

/// Returns the table of a definition, if it is known: the one of that name that has its primary key. `names` are columns of
/// it that were renamed, as far as that is not recorded yet: what they were called before, and after.
pub(crate) fn table_of(
    replica: &Replica,
    def: &TableDef,
    names: &[(String, String)],
) -> Result<Option<Arc<Table>>> {
    let Some(main) = table_named(replica, &def.name) else { return Ok(None) };
    if main.def.mode != Mode::Shared || def.mode != Mode::Shared || main.def.has_key_of(def) {
        return Ok(Some(main));
    }
    for table in std::iter::once(main.clone()).chain(namesakes(replica, &main)) {
        let mut def = def.clone();
        for (before, after) in names.iter().rev() {
            if let (Some(at), None) = (def.column(after), def.column(before)) {
                def.columns[at].name.clone_from(before);
            }
        }
        renamed::as_now(replica, table.tid, &mut def, &table.def)?;
        if table.def.has_key_of(&def) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Returns the table in which the rows that other devices have in this table are gathered, where that is another one.
pub(crate) fn mirror_of(replica: &Replica, tid: i64) -> Option<Arc<Table>> {
    let catalog = replica.catalog.borrow();
    catalog.mirrors.get(&tid).and_then(|tid| catalog.tables.get(tid)).cloned()
}

/// Returns the table that stands under this name here: that of the log, or one in which rows are gathered apart.
pub(crate) fn table_here(replica: &Replica, name: &str) -> Option<Arc<Table>> {
    let catalog = replica.catalog.borrow();
    let mut apart = catalog.mirrors.values().filter_map(|tid| catalog.tables.get(tid));
    let apart = || apart.find(|t| t.def.name.eq_ignore_ascii_case(name)).cloned();
    table_named(replica, name).or_else(apart)
}

/// Returns the table of this name, tracked (also if it is suspended) or gathered here.
///
/// # Errors
/// [`Error::UnknownTable`].
pub(crate) fn tracked_table(replica: &Replica, name: &str) -> Result<Arc<Table>> {
    match table_here(replica, name) {
        Some(table) if matches!(table.state, State::Tracked | State::Gathered | State::Suspended) => {
            Ok(table)
        }
        _ => Err(Error::UnknownTable {
            table: name.into(),
            tracked: tables(replica)
                .iter()
                .filter(|t| matches!(t.state, State::Tracked | State::Gathered | State::Suspended))
                .map(|t| t.def.name.clone())
                .collect(),
        }
        .into()),
    }
}

/// Makes the next seal look at all tables: what others have of one has changed.
pub(crate) fn doubt_schema(replica: &Replica) -> Result<()> {
    meta::set(&replica.db, DOUBTED, true)
}

/// Returns whether the next seal looks at all tables because of what others have of them.
pub(crate) fn is_schema_doubted(replica: &Replica) -> Result<bool> {
    Ok(meta::get(&replica.db, DOUBTED)? == Some(true))
}

/// Returns the same, and forgets it: all tables are looked at now.
pub(crate) fn take_schema_doubt(replica: &Replica) -> Result<bool> {
    let doubted = is_schema_doubted(replica)?;
    if doubted {
        meta::set(&replica.db, DOUBTED, false)?;
    }
    Ok(doubted)
}

/// Under this name `_pm_meta` has whether what others have of a table has changed since all tables were looked at.
const DOUBTED: &str = "schema elsewhere";

/// Returns the definition that a block of ops names by this id, its columns by the names that they have here now.
pub(crate) fn op_def(replica: &Replica, id: DefId) -> Result<Arc<OpDef>> {
    if let Some(def) = replica.catalog.borrow().defs.get(&id) {
        return Ok(def.clone());
    }
    let found = replica
        .db
        .prepare_cached("SELECT tid, body FROM _pm_def WHERE id = ?1")?
        .query_row([id.0], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let Some((tid, body)) = found else {
        return Err(Error::damaged("rows in the log whose table definition is not there"));
    };
    let mut def = TableDef::stored(&body)?;
    if let Some(now) = table_numbered(replica, tid) {
        renamed::as_now(replica, tid, &mut def, &now.def)?;
    }
    let op_def = Arc::new(OpDef::of(id, tid, def));
    replica.catalog.borrow_mut().defs.insert(id, op_def.clone());
    Ok(op_def)
}

/// Returns whether definitions in the log have columns of a table that it lacks here, and that are not dropped.
pub(crate) fn lags(replica: &Replica, tid: i64) -> Result<bool> {
    if let Some(lags) = replica.catalog.borrow().lags.get(&tid) {
        return Ok(*lags);
    }
    let table = table(replica, tid)?;
    let ids = replica
        .db
        .prepare_cached("SELECT id FROM _pm_def WHERE tid = ?1")?
        .query_map([tid], |row| Ok(DefId(row.get(0)?)))?
        .collect::<rusqlite::Result<Vec<DefId>>>()?;
    let mut lags = false;
    for id in ids {
        let def = op_def(replica, id)?;
        for column in def.def.columns.iter().filter(|column| table.def.column(&column.name).is_none()) {
            lags = lags || !shapes::is_dropped(replica, tid, &column.name)?;
        }
    }
    replica.catalog.borrow_mut().lags.insert(tid, lags);
    Ok(lags)
}

/// Stores a definition. Returns the number of its table, which becomes known if it was not.
pub(crate) fn keep_def(replica: &Replica, def: &TableDef, id: DefId, body: &[u8]) -> Result<i64> {
    keep_said_def(replica, def, id, body, &[])
}

/// Does the same, of a definition with which it is said which columns were renamed.
pub(crate) fn keep_said_def(
    replica: &Replica,
    def: &TableDef,
    id: DefId,
    body: &[u8],
    names: &[(String, String)],
) -> Result<i64> {
    let known = table_of(replica, def, names)?.map(|t| t.tid);
    let tid = match known {
        Some(tid) => tid,
        None => {
            let root = table_named(replica, &def.name).map(|main| main.root);
            let name = root.map_or(def.name.clone(), |_| format!("{ASIDE}{}", Hex(&id.0)));
            replica
                .db
                .prepare_cached("INSERT INTO _pm_table (name, def, state, root) VALUES (?1, ?2, ?3, ?4)")?
                .execute((name, id.0, State::Known, root))?;
            replica.db.last_insert_rowid()
        }
    };
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_def (id, tid, body) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET told = 1",
        )?
        .execute((id.0, tid, body))?;
    replica.catalog.borrow_mut().lags.remove(&tid);
    if known.is_none() {
        reload_table(replica, tid)?;
    }
    Ok(tid)
}

/// Returns whether a definition is known here.
pub(crate) fn is_known(replica: &Replica, id: DefId) -> Result<bool> {
    Ok(replica.db.prepare_cached("SELECT 1 FROM _pm_def WHERE id = ?1")?.exists([id.0])?)
}

/// Returns whether a log has a definition.
pub(crate) fn is_told(replica: &Replica, id: DefId) -> Result<bool> {
    let told: Option<bool> = value::maybe(&replica.db, "SELECT told FROM _pm_def WHERE id = ?1", [id.0])?;
    Ok(told == Some(true))
}

/// Returns whether an error comes of a column, or a table, that was there at the last seal: tables were changed since.
pub(crate) fn is_for_columns_gone(replica: &Replica, error: &Error) -> Result<bool> {
    let Error::Sqlite(error) = error else { return Ok(false) };
    let said = error.to_string();
    let is_gone = ["no such column", "no such table"].iter().any(|what| said.starts_with(what));
    Ok(is_gone && !is_schema_known(replica)?)
}

/// Under this name `_pm_meta` has the version of the schema at which the tables were looked at.
pub(crate) const SCHEMA: &str = "schema";

/// Reads SQLite's version of the schema.
pub(crate) fn schema_version(db: &Connection) -> Result<i64> {
    Ok(db.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))?)
}

/// Returns whether the tables were looked at as the schema is now: nothing was made, changed or dropped since.
pub(crate) fn is_schema_known(replica: &Replica) -> Result<bool> {
    Ok(meta::get::<i64>(&replica.db, SCHEMA)? == Some(schema_version(&replica.db)?))
}

/// Runs `work` on one state of the database, which it cannot change.
///
/// # Errors
/// Those of `work`; [`Error::Poisoned`]; [`Error::TablesChanged`] where it looks for a column or a table that is gone.
pub(crate) fn reading<R>(replica: &Replica, work: impl FnOnce(&Replica) -> Result<R>) -> Result<R> {
    if replica.poisoned {
        return Err(Error::Poisoned.into());
    }
    let nested = !replica.db.is_autocommit();
    if !nested {
        replica.steps.renew();
        replica.db.execute_batch("BEGIN")?;
    }
    let result = load_catalog(replica).and_then(|()| work(replica));
    let result = match result {
        Err(e) if is_for_columns_gone(replica, &e)? => Err(Error::TablesChanged.into()),
        result => result,
    };
    if !nested {
        connection::roll_back(&replica.db);
    }
    result
}
