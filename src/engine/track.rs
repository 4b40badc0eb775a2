//! Tables taken in and let go.

use packmule_core::wire::{ColumnMerge, FrameFlags, Merge, Mode, Policy};

use super::Engine;
use super::catalog::{State, Table};
use super::def::TableDef;
use super::error::{Error, Result};
use super::seal::SealOptions;

/// How a table is to be tracked.
#[derive(Clone, Debug)]
pub struct TrackOptions {
    /// Who may write its rows.
    pub mode: Mode,
    /// Rows are only ever added, with an AUTOINCREMENT key: capture costs nothing.
    pub append: bool,
    /// How fine concurrent writes are told apart.
    pub merge: Merge,
    /// What is done about them.
    pub policy: Policy,
    /// What is done about those to single columns.
    pub columns: Vec<(String, ColumnMerge)>,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Shared,
            append: false,
            merge: Merge::Row,
            policy: Policy::Manual,
            columns: Vec::new(),
        }
    }
}

/// What tracking a table did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackReport {
    /// It was tracked in this way already, and nothing was done.
    pub already: bool,
    /// Rows that were in the table and were taken in.
    pub rows: u64,
    /// What people should know about this table.
    pub advice: Vec<String>,
}

impl Engine {
    /// Tracks a table: takes in the rows that it has, and captures what is written from now on.
    ///
    /// # Errors
    /// [`Error::CannotTrack`] with the reason, [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn track(&mut self, table: &str, options: &TrackOptions) -> Result<TrackReport> {
        Ok(self.track_all(&[table], options)?.pop().unwrap_or_default())
    }

    /// Tracks several tables in the same way: all of them, or none. The reports are in their order.
    ///
    /// # Errors
    /// As [`Engine::track`], for the first that cannot be tracked.
    pub fn track_all(&mut self, tables: &[&str], options: &TrackOptions) -> Result<Vec<TrackReport>> {
        self.transaction(|e| {
            e.begin_settling()?;
            e.seal_here(SealOptions::default())?;
            tables.iter().map(|table| e.track_here(table, options)).collect()
        })
    }

    fn track_here(&self, name: &str, options: &TrackOptions) -> Result<TrackReport> {
        if let Some(report) = self.track_gathered(name, options)? {
            return Ok(report);
        }
        let def = self.wanted_def(name, options)?;
        let known = self.table_named(&def.name);
        if let Some(known) = &known {
            if known.state == State::Gathered {
                return Err(Error::cannot_track(&def.name, "rows of other devices are gathered in it"));
            }
            let same = |a: &TableDef, b: &TableDef| {
                (a.mode, a.merge, a.policy, a.append) == (b.mode, b.merge, b.policy, b.append)
                    && a.columns
                        .iter()
                        .all(|c| b.column(&c.name).is_none_or(|at| b.columns[at].merge == c.merge))
            };
            let way = |d: &TableDef| (d.mode, d.append);
            let redeclares = known.state == State::Tracked && def.declares() && way(&known.def) == way(&def);
            if !same(&known.def, &def) && redeclares {
                self.redeclare(known, &def)?;
                self.seal_here(SealOptions::default())?;
                return Ok(TrackReport::default());
            }
            if !same(&known.def, &def) {
                return Err(Error::cannot_track(&def.name, explain_difference(known, &def)));
            }
            if known.state == State::Held {
                let why = known.note.as_deref().unwrap_or("it was changed here");
                return Err(Error::cannot_track(&def.name, format!("it is tracked, and held: {why}")));
            }
            if known.state == State::Tracked {
                return Ok(TrackReport { already: true, ..TrackReport::default() });
            }
            if let Some(different) = def.different_column(&known.def) {
                return Err(Error::cannot_track(
                    &def.name,
                    format!(
                        "other devices track it with another definition: {different}; make them the same first"
                    ),
                ));
            }
            let keys =
                |d: &TableDef| d.keys().map(|at| d.columns[at].name.to_ascii_lowercase()).collect::<Vec<_>>();
            if keys(&known.def) != keys(&def) {
                return Err(Error::cannot_track(
                    &def.name,
                    "other devices have a table of this name with another primary key",
                ));
            }
        }
        let (id, body) = def.encode()?;
        let tid = self.keep_def(&def, id, &body)?;
        self.db.execute(
            "UPDATE _pm_table SET def = ?2, state = 1, announced = 0, appended = 0, note = NULL WHERE tid = ?1",
            (tid, id.0),
        )?;
        self.reload_catalog()?;
        let table = self.table(tid)?;
        self.install_capture(&table)?;
        self.remember_schema()?;
        // What others have told of the table and this one lacks.
        let before = known.as_ref().map_or(&def, |known| &known.def);
        self.unite_all(tid, before)?;
        // Versions that others wrote before: settled together with our own rows.
        let table = self.table(tid)?;
        // Ours say nothing of columns that it lacked.
        let made: Vec<&str> = table
            .def
            .columns
            .iter()
            .map(|c| c.name.as_str())
            .filter(|name| def.column(name).is_none())
            .collect();
        let mut both = self.remembered_keys(tid)?;
        both.retain(|key| self.shown_row(&table, key).is_ok_and(|row| row.is_some()));
        self.gather_unshown(&table, &both)?;
        self.put_off_all(tid)?;
        // The rows are older than what we know of others, but did not take it into account.
        let sealed = self.seal_here(SealOptions {
            flags: FrameFlags::BLIND,
            take_in: Some(&def.name),
            made: &made,
            ..SealOptions::default()
        })?;
        Ok(TrackReport { already: false, rows: sealed.ops, advice: advice(&def) })
    }

    fn wanted_def(&self, name: &str, options: &TrackOptions) -> Result<TableDef> {
        let mut def = TableDef::read(&self.db, name)?;
        def.mode = options.mode;
        def.append = options.append;
        def.merge = options.merge;
        def.policy = options.policy;
        if options.append && !(def.autoincrement && def.integer_key()) {
            return Err(Error::cannot_track(
                &def.name,
                "an append table needs an INTEGER PRIMARY KEY AUTOINCREMENT, by which new rows are found; track it without --append",
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
                return Err(Error::cannot_track(
                    name,
                    format!("column `{column}` is part of its primary key"),
                ));
            }
            def.columns[at].merge = *merge;
        }
        Ok(def)
    }

    /// At a base, per-device rows of others that wait, because a table was in their way or because the
    /// table in which they were gathered was untracked.
    fn track_gathered(&self, name: &str, options: &TrackOptions) -> Result<Option<TrackReport>> {
        let waiting = self.table_named(name).filter(|t| {
            matches!(t.state, State::Known | State::Untracked)
                && t.def.mode == Mode::PerDevice
                && options.mode == Mode::PerDevice
                && self.identity.base
        });
        let Some(table) = waiting else { return Ok(None) };
        let there: Option<i64> = super::value::maybe(
            &self.db,
            "SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE",
            [&table.def.name],
        )?;
        let gathered = there.is_some() && table.state == State::Untracked && self.is_gathering(&table.def)?;
        if there.is_some() && !gathered {
            if table.state == State::Untracked {
                return Ok(None); // It was this device's own.
            }
            return Err(Error::cannot_track(
                name,
                "other devices' rows of this name are to be gathered here, and a table of this name is in their way; rename it first",
            ));
        }
        if let Some(reason) = table.def.ungatherable() {
            return Err(Error::cannot_track(name, reason));
        }
        if !gathered {
            self.make_gathering(&table.def)?;
        }
        self.gather(table.tid, &table.def.name)?;
        self.replay_gathered(table.tid)?;
        let count = format!("SELECT count(*) FROM main.{}", super::value::quote(&table.def.name));
        let rows = self.db.query_row(&count, [], |row| row.get(0))?;
        Ok(Some(TrackReport { already: false, rows, advice: Vec::new() }))
    }

    /// Whether a table that is here is one in which rows like these were gathered.
    fn is_gathering(&self, def: &TableDef) -> Result<bool> {
        let here = TableDef::read(&self.db, &def.name)?;
        let lower = |d: &TableDef, at: usize| d.columns[at].name.to_ascii_lowercase();
        let device = here.column(super::def::DEVICE_COLUMN);
        let keys = |d: &TableDef| d.keys().map(|at| lower(d, at)).collect::<Vec<_>>();
        Ok(device.is_some_and(|at| here.columns[at].key == 1)
            && keys(&here).get(1..) == Some(&keys(def)[..])
            && (0..def.columns.len()).all(|at| here.column(&def.columns[at].name).is_some()))
    }

    /// Lets a table go: its rows stay, here and elsewhere; what is written from now on stays here.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Sqlite`].
    pub fn untrack(&mut self, table: &str) -> Result<()> {
        self.untrack_all(&[table])
    }

    /// Lets several tables go: all of them, or none.
    ///
    /// # Errors
    /// As [`Engine::untrack`], for the first that is not tracked.
    pub fn untrack_all(&mut self, tables: &[&str]) -> Result<()> {
        self.transaction(|e| {
            e.begin_settling()?;
            e.seal_here(SealOptions::default())?;
            tables.iter().try_for_each(|table| e.untrack_here(&*e.tracked_table(table)?))
        })
    }

    fn untrack_here(&self, table: &Table) -> Result<()> {
        if matches!(table.state, State::Tracked | State::Held) {
            self.remove_capture(table)?;
        }
        for event in ["INSERT", "UPDATE", "DELETE"] {
            self.db.execute_batch(&format!("DROP TRIGGER IF EXISTS _pm_guard_{event}_{}", table.tid))?;
        }
        self.db.execute(
            "UPDATE _pm_table SET state = 3, note = 'no longer tracked here' WHERE tid = ?1",
            [table.tid],
        )?;
        self.db.execute("DELETE FROM _pm_dangling WHERE tid = ?1", [table.tid])?;
        self.db.execute("DELETE FROM _pm_conflict WHERE tid = ?1", [table.tid])?;
        self.db.execute("DELETE FROM _pm_held WHERE tid = ?1", [table.tid])?;
        self.remember_schema()?;
        self.reload_catalog()
    }
}

fn explain_difference(known: &Table, wanted: &TableDef) -> String {
    let who =
        if known.state == State::Tracked { "it is tracked here already" } else { "other devices track it" };
    let show = |d: &TableDef| {
        let mode = match d.mode {
            Mode::Shared => "shared",
            Mode::PerDevice => "per-device",
        };
        format!("--mode {mode}{} {}", if d.append { " --append" } else { "" }, d.how_it_merges())
    };
    format!(
        "{who} with {}; use that (asked for: {}). A shared table that is tracked can be tracked again with another merge, policy \
         or rules of columns, which then hold on all devices",
        show(&known.def),
        show(wanted)
    )
}

fn advice(def: &TableDef) -> Vec<String> {
    let mut advice = Vec::new();
    if def.mode == Mode::Shared && def.integer_key() {
        advice.push(format!(
            "`{0}` is shared and has a plain INTEGER PRIMARY KEY: two devices that insert at the same time will take the \
             same numbers, and each pair is a conflict. If each device owns its rows, track it with --mode per-device; \
             otherwise give it a key that devices cannot share, such as a text or hex(randomblob(16))",
            def.name
        ));
    }
    advice
}
