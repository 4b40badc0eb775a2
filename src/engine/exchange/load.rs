//! A snapshot's records, put into the wiped database that starts anew from it.

use std::io::Read;

use packmule_core::model::{DeviceId, Value};
use packmule_core::wire::DefId;
use rusqlite::params_from_iter;

use crate::engine::apply::vouched;
use crate::engine::capture::{adopt, declare, follow, merge_definitions, watch};
use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::exchange::state_rows::{self, StateRow, wrong};
use crate::engine::exchange::state_values::RowLoader;
use crate::engine::exchange::{certificates, revoke};
use crate::engine::fleet::{devices, revocation, trust};
use crate::engine::log::bundle::{BundleReader, Item};
use crate::engine::log::{frames, tags};
use crate::engine::merge::deferred;
use crate::engine::show::{constraints, triggers};
use crate::engine::store::value::{self, Bind};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// Puts a snapshot's records into the database.
pub(super) struct Loader<'e, 'r> {
    pub engine: &'e Replica,
    pub rows: RowLoader<'e>,
    pub report: &'r mut JoinReport,
}

impl Loader<'_, '_> {
    /// Loads all records of a snapshot.
    pub(super) fn load(&mut self, mut reader: BundleReader<impl Read>) -> Result<()> {
        let e = self.engine;
        let mut first = None;
        loop {
            match reader.next_item()? {
                Item::Header(_) | Item::Newest(_) | Item::FleetKey(..) => {}
                Item::Revocation(statement) => {
                    if statement.retirement {
                        revoke::hear_retirement(e, &statement)?;
                    } else {
                        revocation::hear(e, &statement)?;
                    }
                }
                Item::Certificate(certificate, bytes) => {
                    certificates::store_answered_for(e, &certificate, bytes)?;
                }
                Item::State(body) => self.state(body)?,
                Item::Part(body) => self.rows.keep_part(body)?,
                Item::Frame(section, frame, body) => {
                    first = frame.group.or(first);
                    let dev = devices::device_number_or_new(e, section.author)?;
                    e.db.prepare_cached(
                        "INSERT INTO _pm_frame (dev, stream, seq, body) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute((dev, section.stream.number(), frame.head.seq, body))?;
                    self.report.frames += 1;
                }
                Item::Checkpoint(checkpoint, bytes, end) => {
                    let Some(head) = first.take() else { continue };
                    let dev = devices::device_number_or_new(e, checkpoint.author)?;
                    let of_head = (head.lamport, head.wall, head.pair);
                    frames::put_group(&e.db, dev, (&checkpoint, bytes), of_head, &end, true)?;
                }
                Item::End | Item::Seal(..) => break,
            }
        }
        trust::refresh(e)?;
        vouched::recount(e)
    }

    /// Puts a row of the maker's state into the database.
    fn state(&mut self, body: &[u8]) -> Result<()> {
        let row = StateRow::parse(self.engine, body)?;
        match row.kind {
            "table" => self.table(row.tid_at(0)?, row.blob_at(1)?, row.int_at(2)? == 1),
            "row" | "limbo" => {
                let table = catalog::table(self.engine, row.tid_at(0)?)?;
                self.rows
                    .row(&table, row.kind == "limbo", &row.values[1..])
                    .map_err(|e| breaks_constraint(&table, e))?;
                self.report.rows += u64::from(row.kind == "row");
                Ok(())
            }
            "head" => self.head(&row),
            "count" => self.counter(&row),
            "tags" => tags::keep_unknown(self.engine, row.device_at(0)?, row.blob_at(1)?),
            "lamport" => state_rows::load_lamport(&row),
            "retired" => state_rows::load_retired(&row),
            "def" => state_rows::load_def(&row),
            "declared" => state_rows::load_declared(&row),
            "dangling" => state_rows::load_orphan(&row),
            "stream" | "context" | "number" | "floor" => state_rows::load_position(&row),
            "conflict" | "image" | "parked" => state_rows::load_by_key(&row),
            _ => Err(wrong()),
        }
    }

    /// Loads a version of a row that no other dominates.
    fn head(&self, row: &StateRow<'_>) -> Result<()> {
        let columns = match row.values.get(8) {
            Some(Value::Blob(mask)) => Some(
                self.rows
                    .columns_here(&*catalog::table(row.replica, row.tid_at(0)?)?, &Columns::of_bytes(mask))?,
            ),
            _ => None,
        };
        state_rows::put_head(row, "INSERT INTO _pm_head", columns.as_ref())
    }

    /// Loads a recent write to a counter.
    fn counter(&self, row: &StateRow<'_>) -> Result<()> {
        let table = catalog::table(row.replica, row.tid_at(0)?)?;
        state_rows::put_count(row, "INSERT INTO _pm_count", self.rows.counter_here(&table, row)?)
    }

    /// Makes a table of the snapshot a table here.
    fn table(&mut self, tid: i64, def_id: &[u8], shown: bool) -> Result<()> {
        let e = self.engine;
        let theirs = catalog::op_def(
            e,
            DefId(def_id.try_into().map_err(|_| {
                Error::bundle(0, BundleProblem::Structure("a definition's id of another length"))
            })?),
        )?;
        self.rows.keep_maker_def(theirs.def.clone());
        e.db.execute("UPDATE _pm_table SET def = ?2, announced = 1 WHERE tid = ?1", (tid, def_id))?;
        catalog::reload_catalog(e)?;
        if !shown {
            return Ok(());
        }
        let there: Option<i64> = value::maybe(
            &e.db,
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
            [&theirs.def.name],
        )?;
        if there.is_none() {
            e.db.execute_batch(&theirs.def.create_sql(false))?;
            follow::set_follows(e, tid, true)?;
        } else {
            self.take_over(tid, &theirs.def)?;
        }
        e.db.execute("UPDATE _pm_table SET state = ?2 WHERE tid = ?1", (tid, State::Tracked))?;
        catalog::reload_catalog(e)?;
        let table = catalog::table(e, tid)?;
        if there.is_some() {
            empty(e, &table)?;
            // Of a table that was here, SQLite's own indexes say what is unique.
            let here = TableDef::read(&e.db, &theirs.def.name)?;
            let names = |d: &TableDef, unique: &[u16]| -> Vec<String> {
                unique.iter().map(|at| d.columns[usize::from(*at)].name.to_ascii_lowercase()).collect()
            };
            for unique in &table.def.uniques {
                let wanted = names(&table.def, unique);
                if !here.uniques.iter().any(|u| names(&here, u) == wanted) {
                    merge_definitions::make_unique(e, &table, unique)?;
                }
            }
            catalog::reload_catalog(e)?;
        }
        watch::install_capture(e, &*catalog::table(e, tid)?)
    }

    /// Makes a table of this name that is here the snapshot's: its rows are ours, to be re-authored after the
    /// snapshot's.
    fn take_over(&self, tid: i64, theirs: &TableDef) -> Result<()> {
        let e = self.engine;
        let ours = TableDef::read(&e.db, &theirs.name)?;
        let keys =
            |d: &TableDef| d.keys().map(|at| d.columns[at].name.to_ascii_lowercase()).collect::<Vec<_>>();
        if keys(&ours) != keys(theirs) {
            return Err(Error::cannot_track(
                &theirs.name,
                "the snapshot has a table of this name with another primary key",
            ));
        }
        if let Some(different) = ours.different_column(theirs) {
            let any = format!("SELECT EXISTS (SELECT 1 FROM main.{})", value::quote(&theirs.name));
            if e.db.query_row(&any, [], |row| row.get(0))? {
                return Err(Error::cannot_track(
                    &theirs.name,
                    format!(
                        "{different}, in the snapshot; make them the same, or rename the table here, then join"
                    ),
                ));
            }
            // It was tracked: its rows are copied aside, and go into what it is in the snapshot.
            for column in theirs.columns.iter().filter(|c| c.key == 0) {
                if let Some(at) = ours.column(&column.name)
                    && ours.columns[at].kind()? != column.kind()?
                {
                    declare::replace_column(e, &theirs.name, theirs, column, true)?;
                }
            }
        }
        let mut def = theirs.clone();
        def.columns.extend(ours.columns.iter().filter(|c| theirs.column(&c.name).is_none()).cloned());
        for column in theirs.columns.iter().filter(|c| ours.column(&c.name).is_none()) {
            e.db.execute_batch(&format!(
                "ALTER TABLE main.{} ADD COLUMN {}",
                value::quote(&theirs.name),
                def.column_sql(column)
            ))?;
        }
        adopt::adopt_def(e, tid, &def)?;
        catalog::reload_catalog(e)?;
        let table = catalog::table(e, tid)?;
        // Those of a table that was tracked are copied aside already, and it is empty.
        let mut rows = e.db.prepare(&format!("SELECT {} FROM {}", def.key_list(""), table.sql_name))?;
        let n = def.keys().count();
        let mut found = rows.query([])?;
        let mut all = Vec::new();
        while let Some(row) = found.next()? {
            let values = (0..n)
                .map(|at| row.get_ref(at).map(value::from_sql))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            all.push(table.key_of(values.into_iter())?);
        }
        drop(found);
        for key in all {
            copy_own_row(e, &def, &table, &key)?;
        }
        Ok(())
    }
}

/// Names the table where a row of a snapshot breaks a constraint.
fn breaks_constraint(table: &Table, error: Error) -> Error {
    match error {
        Error::Sqlite(error) if constraints::is_refused(&error) => Error::Row {
            table: table.def.name.clone(),
            reason: format!(
                "a row of the snapshot breaks a constraint that this database alone has ({error}): take it away, \
                 join, and make it again"
            ),
        },
        error => error,
    }
}

/// What a start from a snapshot did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct JoinReport {
    /// Who made the snapshot.
    pub maker: Option<DeviceId>,
    /// Its name.
    pub maker_name: String,
    /// Rows taken in.
    pub rows: u64,
    /// Rows that wait for a table of their name to be tracked.
    pub waiting: u64,
    /// Frames in flight taken in.
    pub frames: u64,
    /// Rows that this database had and nobody had heard of: re-authored.
    pub kept: u64,
    /// The device has a new identity.
    pub new_identity: bool,
}

/// Copies a row of ours aside, or records that there is none.
pub(crate) fn copy_own_row(replica: &Replica, def: &TableDef, table: &Table, key: &[u8]) -> Result<()> {
    let copy = own_rows_table(&def.name);
    replica.db.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS {copy} AS SELECT * FROM {} WHERE 0",
        table.sql_name
    ))?;
    let keys = value::read_key(key)?;
    let present = replica
        .db
        .prepare_cached(&format!("INSERT INTO {copy} {}", table.select_sql("*")))?
        .execute(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
    // A quarantined row is not in its table, and not deleted either.
    if present == 0 && deferred::is_quarantined(replica, table.tid, key)? {
        return Ok(());
    }
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO temp._pm_mine (name, key, present) VALUES (?1, ?2, ?3)")?
        .execute((def.name.to_ascii_lowercase(), key, present > 0))?;
    Ok(())
}

/// Deletes all rows of a synced table.
pub(crate) fn empty(replica: &Replica, table: &Table) -> Result<()> {
    let sql = format!("DELETE FROM {}", table.sql_name);
    triggers::firing(replica, table, || Ok(replica.db.execute_batch(&sql)?))
}

/// Names the temporary table that our rows of a table are copied to.
pub(crate) fn own_rows_table(name: &str) -> String {
    value::quote(&format!("_pm_mine_{}", name.to_ascii_lowercase()))
}
