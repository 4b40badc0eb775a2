//! The rows of a state, merged one by one with those here.
//!
//! V is what is applied here, B what may be folded here; V′ and B′ are the maker's. A row has heads, or it is *settled*.
//!
//! | here | there | what holds |
//! |---|---|---|
//! | heads | heads | of mine those that are theirs too or that V′ has not; of theirs those that are mine too or that V has not |
//! | settled | anything, B of the row ≤ V′ | theirs: its maker had seen all that is settled here |
//! | settled | heads, not so | those that V has not, beside the value here, which waits for a verdict; if there are none, the row stays |
//! | anything | settled, B′ ≤ V | mine |
//! | heads | settled, not so | those that V′ has not, beside the value there, which waits for a verdict; if there are none, and no verdict that V′ has not says what stays, theirs |
//! | settled | settled, neither | equal ones stay; else both values wait for a verdict. Absence counts as nothing |
//!
//! **Why it is exact.** A head of a set of frames is a head in every smaller set that has it. So a head of mine that the
//! maker has not, though V′ has its frame, was dominated there, and so it is in both together. A settled value is that of
//! frames within B, and whoever has seen B has judged it.

use std::collections::BTreeMap;

use packmule_core::model::{DeviceId, Stream, Value};

use crate::engine::capture::runs;
use crate::engine::error::Result;
use crate::engine::exchange::merge_decide::{Meeting, Outcome, Sides, is_same};
use crate::engine::exchange::merge_settled::Folded;
use crate::engine::exchange::state_rows::{self, COLUMNS_MAX, StateRow, wrong};
use crate::engine::exchange::state_values::RowLoader;
use crate::engine::exchange::{merge_counters, merge_left, merge_waiting, state_columns, state_restated};
use crate::engine::fleet::devices;
use crate::engine::fleet::{membership, positions};
use crate::engine::merge::folds::{self, Fold};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, counters, deferred, late, written};
use crate::engine::show::constraints;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::trial;

/// What the maker has of rows in flight, until their rows come; and which rows came, of tables that are not empty here.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_head (tid INTEGER, key BLOB, dev INTEGER, seq INTEGER, place INTEGER,
        claim INTEGER, wall INTEGER, kind INTEGER, columns BLOB, PRIMARY KEY (tid, key, dev, seq)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_count (tid INTEGER, key BLOB, col INTEGER, dev INTEGER, seq INTEGER,
        absolute INTEGER, value, lamport INTEGER, PRIMARY KEY (tid, key, col, dev, seq)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_image (tid INTEGER, key BLOB, body BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_key (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_gone (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_marked (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_left_key (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    DELETE FROM temp._pm_their_head; DELETE FROM temp._pm_their_count; DELETE FROM temp._pm_their_image;
    DELETE FROM temp._pm_their_key; DELETE FROM temp._pm_left_key;
    DELETE FROM temp._pm_their_gone; DELETE FROM temp._pm_marked;
";

/// Merges rows.
pub(super) struct RowMerge<'e> {
    replica: &'e Replica,
    pub loader: RowLoader<'e>,
    pub sides: Sides<'e>,
    /// The first fold here that the maker had not seen, if it had not seen all that is settled here (B ≤ V′).
    unseen: Option<Fold>,
    /// The state has only rows that changed since what this device has seen; all others stay.
    pub partial: bool,
    /// The tables of the state.
    tables: Vec<Merging>,
    pub changed: u64,
    /// Rows that wait for their table, by table.
    pub waiting: BTreeMap<i64, u64>,
}

/// A table of the state.
#[derive(Clone, Copy)]
struct Merging {
    tid: i64,
    /// It has neither rows nor versions here.
    empty: bool,
    /// Its key is another one here, or it is per-device here: nothing of it is taken in.
    aside: bool,
    /// The state has all that its maker has of it; otherwise what is not in the state may be there all the same.
    whole: bool,
}

impl<'e> RowMerge<'e> {
    /// Begins with what is applied here.
    pub(super) fn new(replica: &'e Replica) -> Result<Self> {
        replica.db.execute_batch(TEMP)?;
        state_restated::begin(replica)?;
        state_columns::begin(replica)?;
        replica.quarantined.set(true);
        Ok(Self {
            replica,
            loader: RowLoader::new(replica)?,
            sides: Sides::new(replica, positions::by_number(replica, Stream::Shared)?),
            unseen: None,
            partial: false,
            tables: Vec::new(),
            changed: 0,
            waiting: BTreeMap::new(),
        })
    }

    /// Compares what is folded here and there with what the other has seen, once the vectors are known.
    pub(super) fn begin(&mut self, floors: &[(i64, u64)]) -> Result<()> {
        self.sides.we_saw =
            floors.iter().all(|(dev, seq)| *seq == 0 || !positions::lacks(&self.sides.had, *dev, *seq));
        let saw = |dev: i64| self.sides.vector.get(&dev).copied().unwrap_or(0);
        self.unseen = folds::first_unseen(self.replica, &saw)?;
        self.sides.folded = (Folded::of(membership::floors(self.replica)?), Folded::of(floors.to_vec()));
        Ok(())
    }

    /// Returns whether the maker had seen all that is settled here of a row.
    fn they_saw(&self, table: &Table, key: &[u8]) -> Result<bool> {
        self.unseen.map_or(Ok(true), |unseen| folds::settled_before(self.replica, table.tid, key, unseen))
    }

    /// Returns whether a device's shared stream was applied here up to a frame.
    pub(super) fn had(&self, id: DeviceId, seq: u64) -> Result<bool> {
        let dev = devices::device_number(self.replica, id)?;
        Ok(dev.is_some_and(|dev| !positions::lacks(&self.sides.had, dev, seq)))
    }

    /// Begins a table; `fits` says whether its rows can be those of the table here, `whole` whether its maker has nothing
    /// more of it. Into one without rows and versions rows need only be written.
    pub(super) fn begin_table(&mut self, table: &Table, fits: bool, whole: bool) -> Result<()> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.sql_name);
        let rows: bool = !table.shows_shared() || self.replica.db.query_row(&sql, [], |row| row.get(0))?;
        let heads: bool = self.replica.db.query_row(
            // Not `_pm_any_head`, which would go through the stretches of all other tables, row by row.
            "SELECT EXISTS (SELECT 1 FROM _pm_head WHERE tid = ?1 UNION ALL SELECT 1 FROM _pm_stretch WHERE tid = ?1)",
            [table.tid],
            |row| row.get(0),
        )?;
        let empty = !rows && !heads;
        if empty {
            runs::forget(self.replica, table.tid)?;
        }
        self.tables.push(Merging { tid: table.tid, empty, aside: !fits, whole });
        Ok(())
    }

    /// Merges a row, or keeps a version of one until its row comes.
    pub(super) fn record(&mut self, row: &StateRow<'_>) -> Result<()> {
        let table = catalog::table(self.replica, row.tid_at(0)?)?;
        let Some(merging) = self.tables.iter().find(|merging| merging.tid == table.tid).copied() else {
            return Err(wrong());
        };
        if merging.aside {
            return if matches!(row.kind, "row" | "limbo") { self.loader.drop_parts() } else { Ok(()) };
        }
        match row.kind {
            "head" => self.keep_head(&table, row),
            "count" => state_rows::put_count(
                row,
                "INSERT OR REPLACE INTO temp._pm_their_count",
                self.loader.counter_here(&table, row)?,
            ),
            "image" => {
                let sql = "INSERT OR REPLACE INTO temp._pm_their_image (tid, key, body) VALUES (?1, ?2, ?3)";
                let (key, body) = (row.blob_at(1)?, row.blob_at(2)?);
                self.replica.db.prepare_cached(sql)?.execute((table.tid, key, body))?;
                Ok(())
            }
            "deleted" => self.list_key("_pm_their_gone", &table, row.blob_at(1)?),
            _ if !table.shows_shared() => self.waiting_row(&table, &row.values[1..]),
            _ => self.row(&table, merging.empty, &row.values[1..]),
        }
    }

    /// Keeps a version of a row, by the numbers of devices and columns here.
    fn keep_head(&self, table: &Table, row: &StateRow<'_>) -> Result<()> {
        let mask = match row.values.get(8) {
            Some(Value::Blob(mask)) => Columns::of_bytes(mask),
            _ => Columns::all(COLUMNS_MAX),
        };
        let mut columns = self.loader.columns_here(table, &mask)?;
        let lacking = self.loader.lacking(table)?;
        if !lacking.is_empty() {
            state_columns::list(self.replica, table, row, &columns)?;
        }
        // Of columns that the maker does not read in it the op itself tells, once its frame is here.
        columns.extend(lacking);
        let columns = Some(columns).filter(|columns| *columns != Columns::all(table.def.columns.len()));
        state_rows::put_head(row, "INSERT OR REPLACE INTO temp._pm_their_head", columns.as_ref())
    }

    /// Merges a row that the maker shows, or has in quarantine.
    fn row(&mut self, table: &Table, empty: bool, values: &[Value<'_>]) -> Result<()> {
        let key = self.loader.key_of(table, values)?;
        if empty && self.they_saw(table, &key)? && !self.has_versions(table.tid, &key)? {
            match self.loader.row(table, false, values) {
                Err(e) if e.of_sqlite().is_some_and(trial::is_refused) => {}
                written => {
                    written?;
                    self.changed += 1;
                    return constraints::after_shown(self.replica, table, &key);
                }
            }
        }
        if !empty {
            self.list_key("_pm_their_key", table, &key)?;
        }
        let kept_out = self.kept_out(table, &key)?;
        if kept_out.is_some() && !table.counters.is_empty() {
            compose::keep_bases(self.replica, table, &key)?;
        }
        // Beside the row here, where the two can be compared.
        compose::delete_from(self.replica, &table.quarantine_table(), table, &key)?;
        self.loader.row(table, true, values)?;
        self.merge(&self.meeting(table, &key, true, kept_out)?)
    }

    /// Reads a row that a constraint keeps out of its table here.
    fn kept_out(&self, table: &Table, key: &[u8]) -> Result<Option<Vec<value::OwnedValue>>> {
        match deferred::is_quarantined(self.replica, table.tid, key)? {
            true => compose::row_in(self.replica, &table.quarantine_table(), table, key),
            false => Ok(None),
        }
    }

    fn meeting<'m>(
        &self,
        table: &'m Table,
        key: &'m [u8],
        present: bool,
        kept_out: Option<Vec<value::OwnedValue>>,
    ) -> Result<Meeting<'m>> {
        Ok(Meeting { table, key, present, they_saw: self.they_saw(table, key)?, kept_out })
    }

    /// Merges a row of a table that does not show it here.
    fn waiting_row(&mut self, table: &Table, values: &[Value<'_>]) -> Result<()> {
        let key = self.loader.key_of(table, values)?;
        self.list_key("_pm_their_key", table, &key)?;
        let values = self.loader.put_together(values)?;
        self.merge_waiting(table, &key, Some(&values))
    }

    /// Lists a row among those that the maker has, or has deleted.
    fn list_key(&self, list: &str, table: &Table, key: &[u8]) -> Result<()> {
        let sql = format!("INSERT OR IGNORE INTO temp.{list} (tid, key) VALUES (?1, ?2)");
        self.replica.db.prepare_cached(&sql)?.execute((table.tid, key))?;
        Ok(())
    }

    /// Merges what waits of a row; `values` are those that the maker has, if it has the row.
    fn merge_waiting(
        &mut self,
        table: &Table,
        key: &[u8],
        values: Option<&[value::OwnedValue]>,
    ) -> Result<()> {
        let ours = heads::all_heads(self.replica, table.tid, key)?;
        let theirs = self.take_their_heads(table, key)?;
        self.take_image(table, key)?;
        self.take_counts(table, key)?;
        let row = merge_waiting::Waiting {
            replica: self.replica,
            table,
            key,
            ours,
            theirs,
            had: &self.sides.had,
            vector: &self.sides.vector,
            folded: &self.sides.folded,
            they_saw: self.they_saw(table, key)?,
            we_saw: self.sides.we_saw,
        };
        let maker = self.loader.maker_def(table.tid)?;
        if merge_waiting::merge(&row, maker, values)? {
            *self.waiting.entry(table.tid).or_default() += 1;
        }
        Ok(())
    }

    /// Takes the maker's versions of a row out of where they were kept.
    fn take_their_heads(&self, table: &Table, key: &[u8]) -> Result<Vec<Head>> {
        let theirs = heads::heads_in(self.replica, "temp._pm_their_head", table.tid, key)?;
        let sql = "DELETE FROM temp._pm_their_head WHERE tid = ?1 AND key = ?2";
        self.replica.db.prepare_cached(sql)?.execute((table.tid, key))?;
        if self.loader.lacking(table)?.is_empty() {
            return Ok(theirs);
        }
        state_columns::correct_known(self.replica, table, key, theirs, self.loader.unread(table)?)
    }

    /// Takes along what the maker remembers of counters of a row that waits.
    fn take_counts(&self, table: &Table, key: &[u8]) -> Result<()> {
        let db = &self.replica.db;
        for entry in counters::entries(db, "temp._pm_their_count", table.tid, key)? {
            if positions::lacks(&self.sides.had, entry.dev, entry.seq) {
                counters::put_entry(db, table.tid, key, &entry)?;
            }
        }
        Ok(())
    }

    /// Returns whether the maker has versions of a row, or what was counted in it.
    fn has_versions(&self, tid: i64, key: &[u8]) -> Result<bool> {
        let sql = "SELECT 1 FROM temp._pm_their_head WHERE tid = ?1 AND key = ?2
                   UNION ALL SELECT 1 FROM temp._pm_their_count WHERE tid = ?1 AND key = ?2 LIMIT 1";
        Ok(value::maybe::<i64>(&self.replica.db, sql, (tid, key))?.is_some())
    }

    /// Merges a row.
    fn merge(&mut self, row: &Meeting<'_>) -> Result<()> {
        let replica = self.replica;
        let Meeting { table, key, present, they_saw, .. } = *row;
        let ours = heads::all_heads(replica, table.tid, key)?;
        let theirs = self.take_their_heads(table, key)?;
        // What waited for its table counts as settled to who has seen that.
        let (mine, theirs) = (
            if they_saw && ours.iter().all(late::is_settled) { &[][..] } else { &ours[..] },
            if self.sides.we_saw && theirs.iter().all(late::is_settled) { Vec::new() } else { theirs },
        );
        let settled = theirs.is_empty();
        let outcome = self.sides.decide(row, mine, theirs)?;
        let gone = settled && !present && matches!(outcome, Outcome::Heads(..));
        let sums = self.merge_counts(row, matches!(outcome, Outcome::Ours), gone)?;
        if matches!(outcome, Outcome::Ours) && !sums {
            return self.put_back(row);
        }
        // A row that only this device has stays; that somebody has to say so changes nothing.
        let stays = matches!(&outcome, Outcome::Heads(left, _) if !present && is_same(left, &ours));
        self.changed += u64::from(!stays);
        runs::touch(replica, table, key)?;
        for head in &ours {
            written::forget_head(replica, table.tid, key, head)?;
        }
        let (left, theirs_below) = match outcome {
            Outcome::Heads(left, below) => {
                (left, below && (present || !state_restated::is_kept(replica, table, key)?))
            }
            Outcome::Ours => (ours.clone(), false),
            Outcome::Theirs => (Vec::new(), true),
        };
        for head in &left {
            written::forget_head(replica, table.tid, key, head)?;
            written::insert_head(replica, table.tid, key, head)?;
        }
        self.take_image(table, key)?;
        if theirs_below {
            merge_left::hide(replica, table, key)?;
        } else {
            self.put_back(row)?;
        }
        if left.is_empty() && !present {
            for name in ["conflict", "parked"] {
                let sql = format!("DELETE FROM _pm_{name} WHERE tid = ?1 AND key = ?2");
                replica.db.prepare_cached(&sql)?.execute((table.tid, key))?;
            }
            return compose::delete_from(replica, &table.quarantine_table(), table, key);
        }
        deferred::defer(replica, table.tid, key)
    }

    /// Has the row here be what is below its versions again, where theirs was put in its place to be compared.
    fn put_back(&self, row: &Meeting<'_>) -> Result<()> {
        let Meeting { table, key, .. } = *row;
        if !row.present {
            return Ok(());
        }
        compose::delete_from(self.replica, &table.quarantine_table(), table, key)?;
        let Some(values) = &row.kept_out else { return Ok(()) };
        let values: Vec<_> = values.iter().cloned().enumerate().collect();
        compose::make_quarantined_row(self.replica, table, key, &values)?;
        deferred::defer(self.replica, table.tid, key)
    }

    /// Takes the maker's baseline version of a row along.
    fn take_image(&self, table: &Table, key: &[u8]) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO _pm_image (tid, key, body)
                   SELECT tid, key, body FROM temp._pm_their_image WHERE tid = ?1 AND key = ?2";
        self.replica.db.prepare_cached(sql)?.execute((table.tid, key))?;
        Ok(())
    }

    /// Merges the counters of a row; if it `stays` as it is here, only where neither side had seen all that is settled on
    /// the other, or what was counted there is new here. `gone`: it is gone there, and stays. Returns whether sums of it wait
    /// for a verdict.
    fn merge_counts(&self, row: &Meeting<'_>, stays: bool, gone: bool) -> Result<bool> {
        let Meeting { table, key, present, they_saw, .. } = *row;
        if table.counters.is_empty()
            || stays && (self.sides.we_saw || they_saw) && !self.is_counted_anew(table, key)?
        {
            return Ok(false);
        }
        let there = self.sides.row_there(row)?;
        // Of a row that is in quarantine here, theirs is in its place.
        let read = if present { compose::shown_row } else { compose::row_of };
        let mine = read(self.replica, table, key)?;
        merge_counters::merge(&merge_counters::Counting {
            replica: self.replica,
            table,
            key,
            mine: mine.as_deref(),
            theirs: there.as_deref(),
            had: &self.sides.had,
            vector: &self.sides.vector,
            they_saw,
            we_saw: self.sides.we_saw,
            gone,
        })
    }

    /// Returns whether the maker has counted in a row what is not applied here. Where a history was given up here, the versions
    /// that had seen it can be here, and what it counted under them not.
    fn is_counted_anew(&self, table: &Table, key: &[u8]) -> Result<bool> {
        let theirs = counters::entries(&self.replica.db, "temp._pm_their_count", table.tid, key)?;
        let is_new = |entry: &counters::Entry| {
            !entry.is_base() && positions::lacks(&self.sides.had, entry.dev, entry.seq)
        };
        Ok(theirs.iter().any(is_new))
    }

    /// Ends: merges the rows that the maker does not show.
    pub(super) fn finish(&mut self) -> Result<()> {
        let db = &self.replica.db;
        db.execute_batch(
            "INSERT OR IGNORE INTO temp._pm_left_key (tid, key) SELECT DISTINCT tid, key FROM temp._pm_their_head;
             INSERT OR IGNORE INTO temp._pm_left_key (tid, key) SELECT tid, key FROM temp._pm_their_gone",
        )?;
        if !self.sides.we_saw && !self.partial {
            for merging in
                self.tables.iter().filter(|merging| !merging.empty && !merging.aside && merging.whole)
            {
                merge_left::list_ours(self.replica, merging.tid)?;
            }
        }
        let mut after = (i64::MIN, Vec::new());
        while let Some((tid, key)) = merge_left::next_left(self.replica, &after)? {
            let table = catalog::table(self.replica, tid)?;
            if table.shows_shared() {
                let kept_out = self.kept_out(&table, &key)?;
                self.merge(&self.meeting(&table, &key, false, kept_out)?)?;
            } else {
                self.merge_waiting(&table, &key, None)?;
            }
            after = (tid, key);
        }
        Ok(())
    }
}
