//! Tables that change: by the application here, and by definitions that come from others.

use packmule_core::model::Stream;
use packmule_core::wire::{DefId, Mode};
use rusqlite::params_from_iter;

use super::Engine;
use super::capture::note;
use super::catalog::{State, Table};
use super::columns::Columns;
use super::ddl::literal;
use super::def::{ColumnDef, Default, TableDef};
use super::dirty::mask_values;
use super::error::{Error, Result};
use super::value::{Bind, maybe, quote, read_key};
use super::{OwnedValue, store};

impl Engine {
    /// Remembers the schema as it is, so that the next seal need not look at it.
    pub(crate) fn remember_schema(&self) -> Result<()> {
        store::set(&self.db, "schema", self.schema_version()?)
    }

    fn schema_version(&self) -> Result<i64> {
        Ok(self.db.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?)
    }

    /// Notices what the application did to tracked tables since the last seal.
    pub(crate) fn notice_schema_changes(&self) -> Result<()> {
        if store::get::<i64>(&self.db, "schema")? == Some(self.schema_version()?) {
            return Ok(());
        }
        for table in self.tables() {
            if table.state == State::Tracked {
                self.notice_changes_of(&table)?;
            }
        }
        self.remember_schema()?;
        self.reload_catalog()
    }

    fn notice_changes_of(&self, table: &Table) -> Result<()> {
        let name = &table.def.name;
        let there: Option<i64> = super::value::maybe(
            &self.db,
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
            [name],
        )?;
        if there.is_none() {
            let what = format!(
                "table `{name}` was dropped here: it is no longer tracked, and its rows stay on other devices"
            );
            store::notice(&self.db, &what, self.now())?;
            self.remove_capture(table)?;
            self.db.execute(
                "UPDATE _pm_table SET state = 3, note = 'dropped here' WHERE tid = ?1",
                [table.tid],
            )?;
            return Ok(());
        }
        let now = TableDef::read(&self.db, name)?;
        let mut def = table.def.clone();
        for column in &def.columns {
            match now.column(&column.name).map(|at| &now.columns[at]) {
                None => {
                    return Err(Error::SchemaChanged {
                        table: name.clone(),
                        reason: format!(
                            "its column `{}` is gone or has another name, which other devices cannot follow; rename it \
                             back, or run `packmule untrack` and `packmule track` to begin anew",
                            column.name
                        ),
                    });
                }
                Some(now) if now.key != column.key => {
                    return Err(Error::SchemaChanged {
                        table: name.clone(),
                        reason: "its primary key is another one now; untrack it and track it to begin anew"
                            .into(),
                    });
                }
                Some(_) => {}
            }
        }
        let added: Vec<ColumnDef> =
            now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect();
        let changed = !added.is_empty() || now.uniques != def.uniques || now.foreign_keys != def.foreign_keys;
        let intact = self.capture_intact(table)?;
        if changed {
            def.columns.extend(added.iter().cloned());
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
            if let Some(reason) = def.ungatherable() {
                return Err(Error::SchemaChanged { table: name.clone(), reason: reason.into() });
            }
            self.adopt_def(table.tid, &def)?;
            self.reload_catalog()?;
        }
        let table = &*self.table(table.tid)?;
        let outdated = self.capture_outdated(table)?;
        if outdated || !intact {
            self.install_capture(table)?;
        }
        if outdated && intact {
            // A unique index that the triggers did not know may have made a REPLACE remove rows.
            self.note_missing(table)?;
        }
        if !intact {
            // The table was made anew. What was deleted meanwhile nobody noted.
            let what = format!(
                "table `{name}` was made anew here: all its rows were taken in again; rows deleted at that moment stay on other devices"
            );
            store::notice(&self.db, &what, self.now())?;
            self.note_rows(table, &Columns::all(def.columns.len()), "1")?;
        } else if !table.def.append {
            // Triggers did not know these columns: a row that differs from the default was written to.
            for column in &added {
                let c = quote(&column.name);
                let default = match &column.default {
                    Default::Literal(value) => literal(value),
                    _ => literal(&OwnedValue::Null),
                };
                let differs =
                    format!("typeof({c}) <> typeof({default}) OR {c} IS NOT {default} COLLATE BINARY");
                let at = def.column(&column.name).into_iter().collect();
                self.note_rows(table, &at, &differs)?;
            }
        }
        Ok(())
    }

    /// Notes rows as updated in these columns.
    fn note_rows(&self, table: &Table, columns: &Columns, condition: &str) -> Result<()> {
        let masks = mask_values(&table.def, columns);
        let names: String = (0..masks.len()).map(|n| format!(", m{n}")).collect();
        let values: String = masks.iter().map(|m| format!(", {m}")).collect();
        self.db.execute(
            &format!(
                "INSERT INTO {} ({}{names}) SELECT {}, {}{values} FROM {} WHERE {condition}",
                table.dirty(),
                table.note_columns(),
                table.def.key_list(""),
                note::UPDATE_UNIQUE,
                table.sql_name
            ),
            [],
        )?;
        Ok(())
    }

    /// Notes rows that should be there by what is remembered of them, and are not.
    fn note_missing(&self, table: &Table) -> Result<()> {
        if !table.shows_shared() {
            return Ok(());
        }
        let mut statement = self.db.prepare_cached(
            "SELECT key FROM _pm_head h WHERE tid = ?1 AND kind <> 3
             AND NOT EXISTS (SELECT 1 FROM _pm_parked p WHERE p.tid = h.tid AND p.key = h.key)",
        )?;
        let mut rows = statement.query([table.tid])?;
        while let Some(row) = rows.next()? {
            let key = read_key(&row.get::<_, Vec<u8>>(0)?)?;
            let binds = || params_from_iter(key.iter().map(|v| Bind(v.borrow())));
            if maybe::<i64>(&self.db, &table.select_sql("1"), binds())?.is_none() {
                let marks: Vec<String> = (1..=key.len()).map(|n| format!("?{n}")).collect();
                let sql = format!(
                    "INSERT INTO {} ({}) VALUES ({}, {})",
                    table.dirty(),
                    table.note_columns(),
                    marks.join(", "),
                    note::MAYBE_GONE
                );
                self.db.prepare_cached(&sql)?.execute(binds())?;
            }
        }
        Ok(())
    }

    /// Makes a definition the table's; it is told in the log unless somebody has told it already.
    pub(crate) fn adopt_def(&self, tid: i64, def: &TableDef) -> Result<()> {
        let old = self.table(tid)?.def.columns.len();
        if def.columns.len() > old {
            // What wrote the whole row, as it was, says nothing of what is new.
            self.db
                .prepare_cached(
                    "UPDATE _pm_head SET columns = ?2 WHERE tid = ?1 AND columns IS NULL AND kind <> 3",
                )?
                .execute((tid, Columns::all(old).as_bytes()))?;
        }
        let (id, body) = def.encode()?;
        let told: Option<i64> = super::value::maybe(&self.db, "SELECT 1 FROM _pm_def WHERE id = ?1", [id.0])?;
        self.db
            .prepare_cached("INSERT OR IGNORE INTO _pm_def (id, tid, body) VALUES (?1, ?2, ?3)")?
            .execute((id.0, tid, body))?;
        self.db
            .prepare_cached("UPDATE _pm_table SET def = ?2, announced = ?3, note = NULL WHERE tid = ?1")?
            .execute((tid, id.0, told.is_some()))?;
        Ok(())
    }

    /// Takes in a definition from the log of another device.
    pub(crate) fn take_in_def(&self, dev: i64, stream: Stream, body: &[u8]) -> Result<()> {
        let def = TableDef::decode(body).map_err(super::log::bad)?;
        let id = DefId::of(body);
        let new = self.table_named(&def.name).is_none();
        let tid = self.keep_def(&def, id, body)?;
        let table = self.table(tid)?;
        let gathers = stream == Stream::Own && def.mode == Mode::PerDevice && self.identity.base;
        match table.state {
            State::Known if new => {
                let there: Option<i64> = super::value::maybe(
                    &self.db,
                    "SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE",
                    [&def.name],
                )?;
                if there.is_some() {
                    let reason = if gathers {
                        "a table of this name is here already; rename it, then track this one"
                    } else {
                        "a table of this name is here and not tracked; track it to take them in"
                    };
                    self.set_note(tid, reason)
                } else if let Some(reason) = def.ungatherable() {
                    self.set_note(tid, reason)
                } else if gathers {
                    self.make_gathering(&def)?;
                    self.gather(tid, &def.name)
                } else if stream == Stream::Shared && def.mode == Mode::Shared {
                    self.db.execute_batch(&def.create_sql(false))?;
                    self.db.execute("UPDATE _pm_table SET state = 1, announced = 1 WHERE tid = ?1", [tid])?;
                    self.reload_catalog()?;
                    self.install_capture(&*self.table(tid)?)?;
                    self.remember_schema()
                } else {
                    Ok(())
                }
            }
            State::Tracked | State::Gathered if table.def.mode == def.mode => {
                self.add_columns(dev, &table, &def)
            }
            _ => Ok(()),
        }
    }

    /// Makes the table in which a base gathers rows.
    pub(crate) fn make_gathering(&self, def: &TableDef) -> Result<()> {
        Ok(self.db.execute_batch(&def.create_sql(true))?)
    }

    /// Has rows gathered in a table that is there for it.
    pub(crate) fn gather(&self, tid: i64, name: &str) -> Result<()> {
        let name = quote(name);
        for (event, row) in [("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD")] {
            // Rows of others are theirs; a mistake at the base must not look as if it had worked.
            self.db.execute_batch(&format!(
                "CREATE TRIGGER _pm_guard_{event}_{tid} BEFORE {event} ON {name} WHEN {row}.device IS NOT NULL BEGIN
                   SELECT RAISE(ABORT, 'this table gathers the rows of other devices: they are changed on the device itself');
                 END"
            ))?;
        }
        self.db
            .execute("UPDATE _pm_table SET state = 2, announced = 1, note = NULL WHERE tid = ?1", [tid])?;
        self.reload_catalog()?;
        self.remember_schema()
    }

    fn set_note(&self, tid: i64, reason: &str) -> Result<()> {
        self.db.execute("UPDATE _pm_table SET note = ?2 WHERE tid = ?1", (tid, reason))?;
        self.reload_catalog()
    }

    /// Adds the columns that a definition has and the table here has not.
    fn add_columns(&self, dev: i64, table: &Table, theirs: &TableDef) -> Result<()> {
        let mut def = table.def.clone();
        let ours: Vec<_> = def.keys().map(|at| def.columns[at].name.to_ascii_lowercase()).collect();
        let keys: Vec<_> = theirs.keys().map(|at| theirs.columns[at].name.to_ascii_lowercase()).collect();
        if ours != keys {
            let who = self.device_label(dev)?;
            let what = format!(
                "table `{}` has another primary key on {who}: its rows cannot be matched with those here",
                def.name
            );
            return store::notice(&self.db, &what, self.now());
        }
        if let Some(different) = def.different_column(theirs) {
            let what = format!(
                "table `{}` is defined differently on {}: {different}; rows that are equal there may not be equal here",
                def.name,
                self.device_label(dev)?
            );
            store::notice(&self.db, &what, self.now())?;
        }
        let added: Vec<_> =
            theirs.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect();
        if added.is_empty() {
            return Ok(());
        }
        for mut column in added {
            // SQLite adds no NOT NULL column without a default, and no default that is not constant.
            let constant = matches!(column.default, Default::None | Default::Literal(_));
            let required = column.not_null && !matches!(column.default, Default::Literal(_));
            let mut made = column.clone();
            made.not_null &= !required;
            if !constant {
                made.default = Default::None;
            }
            self.db.execute_batch(&format!(
                "ALTER TABLE {} ADD COLUMN {}",
                table.sql_name,
                def.column_sql(&made)
            ))?;
            column.key = 0;
            def.columns.push(column);
        }
        for unique in &theirs.uniques {
            let names = unique.iter().map(|at| &theirs.columns[usize::from(*at)].name);
            let here: Option<Vec<u16>> = names.map(|name| def.column(name).map(|at| at as u16)).collect();
            if let Some(here) = here.filter(|here| !def.uniques.contains(here)) {
                def.uniques.push(here);
            }
        }
        def.uniques.sort();
        self.adopt_def(table.tid, &def)?;
        self.reload_catalog()?;
        if table.state == State::Tracked {
            self.install_capture(&*self.table(table.tid)?)?;
        }
        self.remember_schema()
    }
}
