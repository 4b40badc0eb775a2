//! Tables that change: by the application here, and by definitions that come from others.

use packmule_core::model::Stream;
use packmule_core::wire::{Collation, ColumnMerge, DefId, Mode};
use rusqlite::params_from_iter;

use super::Engine;
use super::capture::note;
use super::catalog::{State, Table};
use super::columns::Columns;
use super::ddl::{literal, safe_type};
use super::declare::Stamp;
use super::def::{ColumnDef, Default, TableDef};
use super::dirty::mask_values;
use super::error::{Error, Result};
use super::seal::SealOptions;
use super::value::{Bind, maybe, quote, read_key};
use super::{OwnedValue, store};

/// What the application did to tracked tables that is to be sealed by itself.
#[derive(std::default::Default)]
pub(crate) struct Noticed {
    /// Tables that were held and are as they were again.
    pub released: Vec<i64>,
    /// Columns that waited, of tables by number, and what they are to be.
    pub decided: Vec<(i64, ColumnDef)>,
    /// Columns that were made here, of tables by number: what belongs into them is in the log.
    pub made: Vec<(i64, String)>,
}

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

    /// Notices what the application did to tracked tables since the last seal.
    pub(crate) fn notice_schema_changes(&self) -> Result<Noticed> {
        let mut noticed = Noticed::default();
        if store::get::<i64>(&self.db, "schema")? == Some(self.schema_version()?) {
            return Ok(noticed);
        }
        for table in self.tables() {
            if !matches!(table.state, State::Tracked | State::Held) {
                continue;
            }
            match self.notice_changes_of(&table, &mut noticed)? {
                Some(reason) => {
                    self.db.execute(
                        "UPDATE _pm_table SET state = 4, note = ?2 WHERE tid = ?1",
                        (table.tid, reason),
                    )?;
                }
                None if table.state == State::Held => noticed.released.push(table.tid),
                None => {}
            }
        }
        self.remember_schema()?;
        self.reload_catalog()?;
        noticed.released.retain(|tid| self.table(*tid).is_ok_and(|table| table.state == State::Tracked));
        Ok(noticed)
    }

    /// A table that is shared here is per-device elsewhere, or the other way round.
    fn tell_of_modes(&self, dev: i64, table: &Table, theirs: &TableDef) -> Result<()> {
        let word = |def: &TableDef| if def.mode == Mode::Shared { "shared" } else { "per-device" };
        let what = format!(
            "table `{}` is {} here and {} on {}: neither gets the other's rows; untrack it on one of them, and track it \
             as the other one does",
            theirs.name,
            word(&table.def),
            word(theirs),
            self.device_label(dev)?
        );
        store::notice(&self.db, &what, self.now())
    }

    /// Why a table must be held: it was changed in a way that other devices cannot follow.
    fn why_held(&self, table: &Table, now: &TableDef) -> Result<Option<String>> {
        let def = &table.def;
        let back = "until then its rows wait, here and from other devices, and nothing is lost; or run \
                    `packmule untrack` and `packmule track` to begin anew";
        for (at, column) in def.columns.iter().enumerate() {
            let Some(now) = now.column(&column.name).map(|at| &now.columns[at]) else {
                return Ok(Some(format!(
                    "its column `{0}` is gone or has another name, which other devices cannot follow; rename \
                     it back, or add `{0}` again: {back}",
                    column.name
                )));
            };
            if now.key != column.key {
                return Ok(Some(format!("its primary key is another one now; put the old one back: {back}")));
            }
            let declared = self.declared_columns(table.tid, &column.name)?;
            let column = if let [(_, decided)] = &declared[..] { decided } else { column };
            if (now.affinity(), now.collation) != (column.affinity(), column.collation)
                && !table.waiting.contains(at)
            {
                return Ok(Some(format!(
                    "its column `{}` is {} here, and {} on other devices; make it so here too: {back}",
                    column.name,
                    now.show(),
                    column.show()
                )));
            }
        }
        let mut grown = def.clone();
        grown.columns.extend(now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned());
        Ok(grown.ungatherable().map(|reason| format!("{reason}: {back}")))
    }

    /// Columns that are not what they were: those that wait and were changed here, which decides, and
    /// those that were decided on elsewhere, without a word of ours. One that is gone makes way.
    fn changed_kinds(&self, table: &Table, now: &mut TableDef) -> Result<Vec<(ColumnDef, bool)>> {
        let mut changed = Vec::new();
        for (at, old) in table.def.columns.iter().enumerate().filter(|(_, c)| c.key == 0) {
            let waits = table.waiting.contains(at);
            let kind = old.kind()?;
            let declared = self.declared_columns(table.tid, &old.name)?;
            if let Some(at) = now.column(&old.name) {
                let here = &now.columns[at];
                let decided = declared
                    .iter()
                    .any(|(_, c)| (c.affinity(), c.collation) == (here.affinity(), here.collation) && !waits);
                if (waits || decided) && here.kind()? != kind {
                    changed.push((here.clone(), waits));
                }
                continue;
            }
            for (_, column) in declared {
                if column.kind()? != kind {
                    let added = now.addable_sql(&column);
                    self.db.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {added}", table.sql_name))?;
                    now.columns.push(ColumnDef { key: 0, ..column.clone() });
                    changed.push((column, waits));
                    break;
                }
            }
        }
        Ok(changed)
    }

    /// Takes in what the application did to a table; or why it must be held.
    fn notice_changes_of(&self, table: &Table, noticed: &mut Noticed) -> Result<Option<String>> {
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
        let mut now = match TableDef::read(&self.db, name) {
            Ok(now) => now,
            Err(Error::CannotTrack { reason, .. }) => return Ok(Some(reason)),
            Err(e) => return Err(e),
        };
        let kinds = self.changed_kinds(table, &mut now)?;
        if let Some(reason) = self.why_held(table, &now)? {
            return Ok(Some(reason));
        }
        if table.state == State::Held {
            self.db.execute("UPDATE _pm_table SET state = 1, note = NULL WHERE tid = ?1", [table.tid])?;
            self.reload_catalog()?;
        }
        let table = &*self.table(table.tid)?;
        let mut def = table.def.clone();
        self.notice_dropped_uniques(&def, &now)?;
        let mut added: Vec<ColumnDef> =
            now.columns.iter().filter(|c| def.column(&c.name).is_none()).cloned().collect();
        let changed = !added.is_empty()
            || !kinds.is_empty()
            || now.uniques != def.uniques
            || now.foreign_keys != def.foreign_keys;
        let intact = self.capture_intact(table)?;
        if changed {
            def.columns.extend(added.iter().cloned());
            for (column, decides) in kinds {
                if let Some(at) = def.column(&column.name) {
                    def.columns[at] = ColumnDef { key: 0, merge: def.columns[at].merge, ..column.clone() };
                }
                if decides {
                    noticed.decided.push((table.tid, column.clone()));
                    added.push(column);
                } else {
                    noticed.made.push((table.tid, column.name));
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
                let default = literal(&column.constant());
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
        let masks = mask_values(table, columns);
        let counters = table.counters.iter().map(|at| (format!(", c{at}"), ", 0".to_owned()));
        let masks = masks.iter().enumerate().map(|(n, mask)| (format!(", m{n}"), format!(", {mask}")));
        let (names, values): (String, String) = masks.chain(counters).unzip();
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
            let bytes: Vec<u8> = row.get(0)?;
            let key = read_key(&bytes)?;
            let binds = || params_from_iter(key.iter().map(|v| Bind(v.borrow())));
            let gone = maybe::<i64>(&self.db, &table.select_sql("1"), binds())?.is_none();
            // Beside a version that is remembered, a deletion can be the winner.
            if gone && self.judge_versions(table, &self.heads(table.tid, &bytes)?)?.present {
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
    pub(crate) fn make_columns_plain(&self, tid: i64, n: usize) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE _pm_head SET columns = ?2 WHERE tid = ?1 AND columns IS NULL AND kind <> 3",
            )?
            .execute((tid, Columns::all(n).as_bytes()))?;
        Ok(())
    }

    /// Takes in a definition from the log of another device.
    pub(crate) fn take_in_def(&self, stream: Stream, body: &[u8], stamp: &Stamp<'_>) -> Result<()> {
        let def = TableDef::decode(body).map_err(super::log::bad)?;
        let id = DefId::of(body);
        let new = self.table_named(&def.name).is_none();
        let tid = self.keep_def(&def, id, body)?;
        let waited = self.table(tid)?.waiting.clone();
        let declared =
            stream == Stream::Shared && def.declares() && self.note_declared(tid, &def, id, stamp)?;
        self.make_or_unite(stream, stamp.dev, tid, &def, new)?;
        if declared { self.settle_declared(tid, &waited) } else { Ok(()) }
    }

    /// Makes the table of a definition, or unites it with the one that is here.
    fn make_or_unite(&self, stream: Stream, dev: i64, tid: i64, def: &TableDef, new: bool) -> Result<()> {
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
                    self.make_gathering(def)?;
                    self.gather(tid, &def.name)
                } else if (stream == Stream::Shared && def.mode == Mode::Shared)
                    || (stream == Stream::Own && def.mode == Mode::PerDevice && dev == self.me)
                {
                    self.db.execute_batch(&def.create_sql(false))?;
                    self.db.execute("UPDATE _pm_table SET state = 1, announced = 1 WHERE tid = ?1", [tid])?;
                    self.reload_catalog()?;
                    self.install_capture(&*self.table(tid)?)?;
                    self.remember_schema()
                } else {
                    Ok(())
                }
            }
            State::Tracked | State::Gathered if table.def.mode == def.mode => self.unite(dev, tid, def),
            State::Tracked => self.tell_of_modes(dev, &table, def),
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
}
