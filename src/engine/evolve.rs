//! Tables that change: by the application here, and by definitions that come from others.

use packmule_core::model::Stream;
use packmule_core::wire::{Collation, ColumnMerge, DefId, Mode, OpKind, Shape};
use rusqlite::params_from_iter;

use super::Engine;
use super::capture::note;
use super::catalog::{State, Table};
use super::columns::Columns;
use super::ddl::{literal, safe_type};
use super::def::{ColumnDef, Default, TableDef};
use super::dirty::mask_values;
use super::error::{Error, Result};
use super::seal::SealOptions;
use super::value::{Bind, maybe, quote, read_key};
use super::{OwnedValue, store};

impl Engine {
    /// Adds a column to a table here; others that track it add it when they hear of it. A column that
    /// is there with the same type stays as it is.
    ///
    /// # Errors
    /// [`Error::UnknownTable`]; [`Error::Usage`] if the type is none, or the column is there with
    /// another; [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn add_column(
        &mut self,
        table: &str,
        name: &str,
        decl_type: &str,
        default: Option<&OwnedValue>,
    ) -> Result<()> {
        self.transaction(|e| {
            e.begin_settling()?;
            e.seal_here(SealOptions::default())?;
            let table = e.tracked_table(table)?;
            if table.state != State::Tracked {
                let why = table.note.as_deref().unwrap_or("rows of other devices are gathered in it");
                return Err(Error::Usage(format!("`{}` takes no column now: {why}", table.def.name)));
            }
            let column = ColumnDef {
                name: name.into(),
                decl_type: decl_type.into(),
                collation: Collation::Binary,
                not_null: false,
                key: 0,
                default: default.map_or(Default::None, |value| Default::Literal(value.clone())),
                merge: ColumnMerge::Table,
            };
            if name.is_empty() || name.contains('\0') || safe_type(decl_type) != decl_type {
                return Err(Error::Usage(format!("`{name} {decl_type}` is no column's name and type")));
            }
            if let Some(there) = table.def.column(name).map(|at| &table.def.columns[at]) {
                if there.decl_type.eq_ignore_ascii_case(decl_type) && there.default == column.default {
                    return Ok(());
                }
                return Err(Error::Usage(format!(
                    "`{}` has a column `{name}` already, with another type or default: {}",
                    table.def.name,
                    table.def.column_sql(there)
                )));
            }
            e.db.execute_batch(&format!(
                "ALTER TABLE {} ADD COLUMN {}",
                table.sql_name,
                table.def.column_sql(&column)
            ))?;
            e.seal_here(SealOptions::default())?;
            Ok(())
        })
    }

    /// Remembers the schema as it is, so that the next seal need not look at it.
    pub(crate) fn remember_schema(&self) -> Result<()> {
        store::set(&self.db, "schema", self.schema_version()?)
    }

    fn schema_version(&self) -> Result<i64> {
        Ok(self.db.query_row("PRAGMA main.schema_version", [], |row| row.get(0))?)
    }

    /// Notices what the application did to tracked tables since the last seal. Returns those that
    /// were held and are as they were again.
    pub(crate) fn notice_schema_changes(&self) -> Result<Vec<i64>> {
        let mut released = Vec::new();
        if store::get::<i64>(&self.db, "schema")? == Some(self.schema_version()?) {
            return Ok(released);
        }
        for table in self.tables() {
            if !matches!(table.state, State::Tracked | State::Held) {
                continue;
            }
            match self.notice_changes_of(&table)? {
                Some(reason) => {
                    self.db.execute(
                        "UPDATE _pm_table SET state = 4, note = ?2 WHERE tid = ?1",
                        (table.tid, reason),
                    )?;
                }
                None if table.state == State::Held => released.push(table.tid),
                None => {}
            }
        }
        self.remember_schema()?;
        self.reload_catalog()?;
        released.retain(|tid| self.table(*tid).is_ok_and(|table| table.state == State::Tracked));
        Ok(released)
    }

    /// Why a table must be held: it was changed in a way that other devices cannot follow.
    fn why_held(&self, table: &Table, now: &TableDef) -> Option<String> {
        let def = &table.def;
        let back = "until then its rows wait, here and from other devices, and nothing is lost; or run \
                    `packmule untrack` and `packmule track` to begin anew";
        for column in &def.columns {
            match now.column(&column.name).map(|at| &now.columns[at]) {
                None => {
                    return Some(format!(
                        "its column `{0}` is gone or has another name, which other devices cannot follow; rename \
                         it back, or add `{0}` again: {back}",
                        column.name
                    ));
                }
                Some(now) if now.key != column.key => {
                    return Some(format!("its primary key is another one now; put the old one back: {back}"));
                }
                Some(_) => {}
            }
        }
        let mut grown = def.clone();
        grown.columns.extend(now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned());
        grown.ungatherable().map(|reason| format!("{reason}: {back}"))
    }

    /// Takes in what the application did to a table; or why it must be held.
    fn notice_changes_of(&self, table: &Table) -> Result<Option<String>> {
        let name = &table.def.name;
        let there: Option<i64> = super::value::maybe(
            &self.db,
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
            [name],
        )?;
        if there.is_none() {
            let renamed: Option<String> = super::value::maybe(
                &self.db,
                "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name = ?1",
                [format!("_pm_insert_{}", table.tid)],
            )?;
            if let Some(renamed) = renamed {
                return Ok(Some(format!(
                    "it is called `{renamed}` here now, which other devices cannot follow; run ALTER TABLE {} RENAME \
                     TO {}: until then its rows wait, here and from other devices, and nothing is lost",
                    quote(&renamed),
                    quote(name)
                )));
            }
            let what = format!(
                "table `{name}` was dropped here: it is no longer tracked, and its rows stay on other devices"
            );
            store::notice(&self.db, &what, self.now())?;
            self.remove_capture(table)?;
            self.db.execute(
                "UPDATE _pm_table SET state = 3, note = 'dropped here' WHERE tid = ?1",
                [table.tid],
            )?;
            return Ok(None);
        }
        // What cannot be read any more, since it has no primary key for one, is held too.
        let now = match TableDef::read(&self.db, name) {
            Ok(now) => now,
            Err(Error::CannotTrack { reason, .. }) => return Ok(Some(reason)),
            Err(e) => return Err(e),
        };
        if let Some(reason) = self.why_held(table, &now) {
            return Ok(Some(reason));
        }
        if table.state == State::Held {
            self.db.execute("UPDATE _pm_table SET state = 1, note = NULL WHERE tid = ?1", [table.tid])?;
            self.reload_catalog()?;
        }
        let table = &*self.table(table.tid)?;
        let mut def = table.def.clone();
        self.notice_dropped_uniques(&def, &now)?;
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
        Ok(None)
    }

    /// Says which UNIQUE the application has dropped.
    fn notice_dropped_uniques(&self, def: &TableDef, now: &TableDef) -> Result<()> {
        let names = |d: &TableDef, unique: &[u16]| {
            unique.iter().map(|at| d.columns[usize::from(*at)].name.to_ascii_lowercase()).collect::<Vec<_>>()
        };
        for unique in def.uniques.iter().filter(|_| def.mode == Mode::Shared) {
            let unique = names(def, unique);
            if !now.uniques.iter().any(|u| names(now, u) == unique) {
                let columns = unique.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
                let what = format!(
                    "table `{0}` lost its UNIQUE ({1}) here: rows that other devices keep out by it may be shown here; \
                     to have it back: CREATE UNIQUE INDEX ... ON {2} ({1})",
                    def.name,
                    columns,
                    quote(&def.name)
                );
                store::notice(&self.db, &what, self.now())?;
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
            self.make_columns_plain(tid, old)?;
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

    /// Says of versions that wrote the whole row which columns that was: they say nothing of what is new.
    fn make_columns_plain(&self, tid: i64, n: usize) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE _pm_head SET columns = ?2 WHERE tid = ?1 AND columns IS NULL AND kind <> 3",
            )?
            .execute((tid, Columns::all(n).as_bytes()))?;
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
            State::Tracked | State::Gathered if table.def.mode == def.mode => self.unite(dev, tid, &def),
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

    /// The definitions of a table that are known, without its own.
    pub(crate) fn other_defs(&self, tid: i64) -> Result<Vec<Vec<u8>>> {
        let mut statement = self.db.prepare(
            "SELECT body FROM _pm_def WHERE tid = ?1 AND id <> (SELECT def FROM _pm_table WHERE tid = ?1) ORDER BY id",
        )?;
        let bodies = statement.query_map([tid], |row| row.get(0))?;
        Ok(bodies.collect::<rusqlite::Result<_>>()?)
    }

    /// Takes in what others told of a table while it was not shown here. `before` is the definition by
    /// which versions were noted until now.
    pub(crate) fn unite_all(&self, tid: i64, before: &TableDef) -> Result<()> {
        let entry = self.table(tid)?;
        self.make_columns_plain(tid, before.columns.len())?;
        for body in self.other_defs(tid)? {
            let def = TableDef::decode(&body).map_err(super::log::bad)?;
            if def.mode == before.mode {
                self.unite(self.me, tid, &def)?;
            }
        }
        let table = self.table(tid)?;
        let names = |def: &TableDef| def.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        if names(&table.def) == names(before) && names(&entry.def) == names(before) {
            return Ok(());
        }
        let keys = self
            .db
            .prepare("SELECT DISTINCT key FROM _pm_head WHERE tid = ?1")?
            .query_map([tid], |row| row.get::<_, Vec<u8>>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for key in keys {
            for head in self.heads(tid, &key)?.iter().filter(|h| h.kind != OpKind::Delete) {
                let live = head.live(before.columns.len());
                // What it carries, without what was written over.
                let columns: Columns =
                    self.op_at(head.dev, Stream::Shared, head.seq, head.place, |def, op| {
                        let names = op.values(Shape { keys: &def.key_flags });
                        Ok(names
                            .map(|(at, _)| def.def.columns[at].name.as_str())
                            .filter(|name| before.column(name).is_none_or(|at| live.contains(at)))
                            .filter_map(|name| table.def.column(name))
                            .collect())
                    })?;
                self.db
                    .prepare_cached(
                        "UPDATE _pm_head SET columns = ?5 WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4",
                    )?
                    .execute((tid, &key, head.dev, head.seq, columns.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Adds the columns and the UNIQUEs that a definition has and the table here has not.
    pub(crate) fn unite(&self, dev: i64, tid: i64, theirs: &TableDef) -> Result<()> {
        let table = &*self.table(tid)?;
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
        let grown = def.columns.len() > table.def.columns.len();
        let mut uniques = Vec::new();
        for unique in theirs.uniques.iter().filter(|_| table.shows_shared()) {
            let names = unique.iter().map(|at| &theirs.columns[usize::from(*at)].name);
            let here: Option<Vec<u16>> = names.map(|name| def.column(name).map(|at| at as u16)).collect();
            if let Some(here) = here.filter(|here| !def.uniques.contains(here)) {
                def.uniques.push(here.clone());
                uniques.push(here);
            }
        }
        if !grown && uniques.is_empty() {
            return Ok(());
        }
        def.uniques.sort();
        self.adopt_def(table.tid, &def)?;
        self.reload_catalog()?;
        if table.state == State::Tracked {
            let table = self.table(tid)?;
            // Limbo needs the columns before rows are moved there, the triggers the indexes.
            self.make_lists(&table)?;
            for unique in &uniques {
                self.make_unique(&table, unique)?;
            }
            self.reload_catalog()?;
            self.install_capture(&*self.table(tid)?)?;
        }
        self.remember_schema()
    }

    /// Makes a UNIQUE that others have. Rows that clash go out of the way, to be settled with the group.
    fn make_unique(&self, table: &Table, unique: &[u16]) -> Result<()> {
        let names: Vec<String> =
            unique.iter().map(|at| quote(&table.def.columns[usize::from(*at)].name)).collect();
        let same: Vec<String> = names.iter().map(|c| format!("a.{c} = b.{c}")).collect();
        let n = table.def.keys().count();
        let set: Vec<String> = names.iter().map(|c| format!("{c} IS NOT NULL")).collect();
        let sql = format!(
            "WITH clash AS (SELECT {0} FROM {1} WHERE {2} GROUP BY {0} HAVING count(*) > 1)
             SELECT {3} FROM clash b JOIN {1} a ON {4}",
            names.join(", "),
            table.sql_name,
            set.join(" AND "),
            table.def.key_list("a."),
            same.join(" AND ")
        );
        let mut keys = Vec::new();
        {
            let mut statement = self.db.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values = (0..n)
                    .map(|at| row.get_ref(at).map(super::value::from_sql))
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                keys.push(table.key_of(values.into_iter())?);
            }
        }
        for key in keys {
            self.before_change(table, &key)?;
            self.move_to_limbo(table, &key)?;
            self.put_off(table.tid, &key)?;
        }
        let numbers: Vec<String> = unique.iter().map(u16::to_string).collect();
        self.db.execute_batch(&format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {} ON {} ({})",
            quote(&format!("_pm_unique_{}_{}", table.tid, numbers.join("_"))),
            quote(&table.def.name),
            names.join(", ")
        ))?;
        Ok(())
    }
}
