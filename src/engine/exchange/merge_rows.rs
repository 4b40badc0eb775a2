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

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use packmule_core::model::{DeviceId, Stream, Value};

use crate::engine::capture::runs;
use crate::engine::error::Result;
use crate::engine::exchange::merge_settled::{self, Folded, Settled};
use crate::engine::exchange::state_rows::{self, COLUMNS_MAX, StateRow, wrong};
use crate::engine::exchange::state_values::RowLoader;
use crate::engine::exchange::{merge_counters, merge_left, merge_waiting, state_columns, state_restated};
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::fleet::{membership, positions};
use crate::engine::merge::folds::{self, Absence, Fold};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, counters, deferred, late, restated, written};
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
    /// What is applied here, and what the maker has applied, by device number.
    pub had: HashMap<i64, u64>,
    pub vector: HashMap<i64, u64>,
    /// The first fold here that the maker had not seen, if it had not seen all that is settled here (B ≤ V′).
    unseen: Option<Fold>,
    /// What is folded here, and there.
    folded: (Folded, Folded),
    /// This device had seen all that is settled there (B′ ≤ V).
    pub we_saw: bool,
    /// The state has only rows that changed since what this device has seen; all others stay.
    pub partial: bool,
    /// `_pm_marked` has what verdicts say that the maker had not seen.
    marked: Cell<bool>,
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

/// What becomes of a row.
enum Outcome {
    /// It stays as it is here.
    Ours,
    /// It is as it is there, settled.
    Theirs,
    /// It has these heads; the row under them, for columns of which no head speaks, is ours or theirs.
    Heads(Vec<Head>, bool),
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
            had: positions::by_number(replica, Stream::Shared)?,
            vector: HashMap::new(),
            unseen: None,
            folded: Default::default(),
            we_saw: false,
            partial: false,
            marked: Cell::new(false),
            tables: Vec::new(),
            changed: 0,
            waiting: BTreeMap::new(),
        })
    }

    /// Compares what is folded here and there with what the other has seen, once the vectors are known.
    pub(super) fn begin(&mut self, floors: &[(i64, u64)]) -> Result<()> {
        self.we_saw = floors.iter().all(|(dev, seq)| *seq == 0 || !positions::lacks(&self.had, *dev, *seq));
        let saw = |dev: i64| self.vector.get(&dev).copied().unwrap_or(0);
        self.unseen = folds::first_unseen(self.replica, &saw)?;
        self.folded = (Folded::of(membership::floors(self.replica)?), Folded::of(floors.to_vec()));
        Ok(())
    }

    /// Returns whether the maker had seen all that is settled here of a row.
    fn they_saw(&self, table: &Table, key: &[u8]) -> Result<bool> {
        self.unseen.map_or(Ok(true), |unseen| folds::settled_before(self.replica, table.tid, key, unseen))
    }

    /// Returns whether a device's shared stream was applied here up to a frame.
    pub(super) fn had(&self, id: DeviceId, seq: u64) -> Result<bool> {
        let dev = devices::device_number(self.replica, id)?;
        Ok(dev.is_some_and(|dev| !positions::lacks(&self.had, dev, seq)))
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
        // Of columns that the maker lacks the op itself tells, once its frame is here.
        columns.extend(&self.loader.lacking(table)?);
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
        if !table.counters.is_empty() && deferred::is_quarantined(self.replica, table.tid, &key)? {
            compose::keep_bases(self.replica, table, &key)?;
        }
        // Beside the row here, where the two can be compared.
        compose::delete_from(self.replica, &table.quarantine_table(), table, &key)?;
        self.loader.row(table, true, values)?;
        self.merge(table, &key, true)
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
            had: &self.had,
            vector: &self.vector,
            folded: &self.folded,
            they_saw: self.they_saw(table, key)?,
            we_saw: self.we_saw,
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
        Ok(theirs)
    }

    /// Takes along what the maker remembers of counters of a row that waits.
    fn take_counts(&self, table: &Table, key: &[u8]) -> Result<()> {
        let db = &self.replica.db;
        for entry in counters::entries(db, "temp._pm_their_count", table.tid, key)? {
            if positions::lacks(&self.had, entry.dev, entry.seq) {
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

    /// Merges a row. If it is `present` there, its values are in the quarantine table.
    fn merge(&mut self, table: &Table, key: &[u8], present: bool) -> Result<()> {
        let replica = self.replica;
        let ours = heads::all_heads(replica, table.tid, key)?;
        let theirs = self.take_their_heads(table, key)?;
        let quarantined = deferred::is_quarantined(replica, table.tid, key)?;
        let they_saw = self.they_saw(table, key)?;
        // What waited for its table counts as settled to who has seen that.
        let (mine, theirs) = (
            if they_saw && ours.iter().all(late::is_settled) { &[][..] } else { &ours[..] },
            if self.we_saw && theirs.iter().all(late::is_settled) { Vec::new() } else { theirs },
        );
        let outcome = self.decide(table, key, (present, they_saw), mine, theirs)?;
        let sums = self.merge_counts(table, key, (present, they_saw), matches!(outcome, Outcome::Ours))?;
        if matches!(outcome, Outcome::Ours) && !sums {
            if present {
                compose::delete_from(replica, &table.quarantine_table(), table, key)?;
            }
            // What was in the quarantine table is composed again from the versions.
            return if quarantined && present { deferred::defer(replica, table.tid, key) } else { Ok(()) };
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
            if !is_in(&ours, head) {
                state_columns::list(replica, table, key, head, &self.loader.lacking(table)?)?;
            }
        }
        self.take_image(table, key)?;
        if theirs_below {
            merge_left::hide(replica, table, key)?;
        } else if present && !quarantined {
            compose::delete_from(replica, &table.quarantine_table(), table, key)?;
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

    /// Decides what becomes of a row, by the table at the head of this file; keeps the values that wait for a verdict.
    fn decide(
        &self,
        table: &Table,
        key: &[u8],
        (present, they_saw): (bool, bool),
        ours: &[Head],
        theirs: Vec<Head>,
    ) -> Result<Outcome> {
        match (ours.is_empty(), theirs.is_empty()) {
            (true, true) => self.decide_settled(table, key, (present, they_saw)),
            (true, false) if they_saw => {
                let any = theirs.iter().any(|head| new_to(&self.had, head));
                Ok(if any { Outcome::Heads(theirs, true) } else { Outcome::Ours })
            }
            (true, false) => {
                let row = compose::shown_row(self.replica, table, key)?;
                let there = self.row_there(table, key, present && !self.we_saw)?;
                let below =
                    Settled::under(table, &theirs, there).filter(|below| below.differs(row.as_deref()));
                let mut new: Vec<Head> = theirs.into_iter().filter(|h| new_to(&self.had, h)).collect();
                if new.is_empty() && below.is_none() {
                    return Ok(Outcome::Ours);
                }
                let absence = folds::absence(self.replica, table.tid, key)?;
                new.extend(self.wait(table, key, 1, row, absence)?);
                if let Some(below) = below {
                    new.push(below.keep(self.replica, table, key, 2)?);
                }
                Ok(Outcome::Heads(new, false))
            }
            (false, true) if self.we_saw => Ok(Outcome::Ours),
            (false, true) => {
                let mut new: Vec<Head> = ours.iter().filter(|h| new_to(&self.vector, h)).cloned().collect();
                let row = self.row_there(table, key, present)?;
                let mine = if they_saw { None } else { compose::shown_row(self.replica, table, key)? };
                let below = Settled::under(table, ours, mine).filter(|below| below.differs(row.as_deref()));
                if new.is_empty() && below.is_none() && !self.is_marked(table, key)? {
                    return Ok(Outcome::Theirs);
                }
                new.extend(self.wait(table, key, 1, row, self.absence_there(table, key)?)?);
                if let Some(below) = below {
                    new.push(below.keep(self.replica, table, key, 2)?);
                }
                Ok(Outcome::Heads(new, true))
            }
            (false, false) => {
                let settled = if self.we_saw || they_saw {
                    (None, None)
                } else {
                    let there = self.row_there(table, key, present)?;
                    let mine = compose::shown_row(self.replica, table, key)?;
                    (Settled::under(table, ours, mine), Settled::under(table, &theirs, there))
                };
                let mut left = self.union(table, ours, theirs.clone(), they_saw);
                let only = |others: &[Head]| left.iter().filter(|h| !is_in(others, h)).cloned().collect();
                let new: (Vec<Head>, Vec<Head>) = (only(&theirs), only(ours));
                left.extend(merge_settled::keep_both(self.replica, table, key, settled, &new)?);
                Ok(if is_same(&left, ours) { Outcome::Ours } else { Outcome::Heads(left, !self.we_saw) })
            }
        }
    }

    /// Returns whether a verdict that the maker had not seen says only what stays of a row.
    fn is_marked(&self, table: &Table, key: &[u8]) -> Result<bool> {
        if !self.marked.replace(true) {
            merge_settled::list_marked(self.replica, &self.vector)?;
        }
        let sql = "SELECT 1 FROM temp._pm_marked WHERE tid = ?1 AND key = ?2";
        Ok(value::maybe::<i64>(&self.replica.db, sql, (table.tid, key))?.is_some())
    }

    /// Reads a row as the maker has it, if it is `present` there.
    fn row_there(&self, table: &Table, key: &[u8], present: bool) -> Result<Option<Vec<value::OwnedValue>>> {
        let there = compose::row_in(self.replica, &table.quarantine_table(), table, key)?;
        Ok(there.filter(|_| present))
    }

    /// Looks up what the maker says of a row that is not there.
    fn absence_there(&self, table: &Table, key: &[u8]) -> Result<Absence> {
        let sql = "SELECT 1 FROM temp._pm_their_gone WHERE tid = ?1 AND key = ?2";
        let gone = value::maybe::<i64>(&self.replica.db, sql, (table.tid, key))?;
        Ok(gone.map_or(Absence::Unknown, |_| Absence::Deleted))
    }

    /// Returns the heads of both, without those that the other knows to be dominated.
    fn union(&self, table: &Table, ours: &[Head], theirs: Vec<Head>, they_saw: bool) -> Vec<Head> {
        let n = table.def.columns.len();
        let mut left: Vec<Head> = Vec::new();
        for head in ours {
            match theirs.iter().find(|other| (other.dev, other.seq) == (head.dev, head.seq)) {
                Some(other) => left.extend(head.left_with(other, n)),
                None if new_to(&self.vector, head) => left.push(head.clone()),
                None if self.we_saw => left.extend(self.folded.1.part(table, head, &theirs)),
                None => {}
            }
        }
        let known = |head: &Head| is_in(ours, head);
        left.extend(theirs.into_iter().filter(|head| !known(head)).filter_map(|head| match head {
            head if new_to(&self.had, &head) => Some(head),
            head if they_saw => self.folded.0.part(table, &head, ours),
            _ => None,
        }));
        // A restated version loses to what its author had not seen: whoever has it only had not either.
        let theirs_new: Vec<Head> = left.iter().filter(|h| !known(h)).cloned().collect();
        let ours_new: Vec<Head> = ours.iter().filter(|h| new_to(&self.vector, h)).cloned().collect();
        left.retain_mut(|head| {
            let unseen = if known(head) { &theirs_new } else { &ours_new };
            !head.weak || restated::is_left(head, unseen, n)
        });
        left.sort_by_key(|head| (head.dev, head.seq));
        left
    }

    /// Decides about a row that is settled on both sides.
    fn decide_settled(
        &self,
        table: &Table,
        key: &[u8],
        (present, they_saw): (bool, bool),
    ) -> Result<Outcome> {
        if self.we_saw || self.is_same(table, key, present)? {
            return Ok(Outcome::Ours);
        }
        if they_saw && !self.is_marked(table, key)? {
            return Ok(Outcome::Theirs);
        }
        let mine = compose::shown_row(self.replica, table, key)?;
        let there = self.row_there(table, key, present)?;
        let theirs_below = mine.is_none();
        let mut waiting = Vec::new();
        for (row, number) in [mine, there].into_iter().flatten().zip(1..) {
            waiting.extend(self.wait(table, key, number, Some(row), Absence::Unknown)?);
        }
        Ok(Outcome::Heads(waiting, theirs_below))
    }

    /// Returns whether a row is the same here as the values in the quarantine table, or absent in both.
    fn is_same(&self, table: &Table, key: &[u8], present: bool) -> Result<bool> {
        if !present {
            return Ok(compose::shown_row(self.replica, table, key)?.is_none());
        }
        compose::is_same_row(self.replica, table, key)
    }

    /// Keeps a settled value of a row until the verdict; none counts as nothing, unless it was deleted. Returns its
    /// baseline version.
    fn wait(
        &self,
        table: &Table,
        key: &[u8],
        number: u64,
        row: Option<Vec<value::OwnedValue>>,
        absence: Absence,
    ) -> Result<Option<Head>> {
        let Some(row) = row else { return late::keep_absent(self.replica, table, key, absence) };
        let counters: Columns = table.counters.iter().copied().collect();
        let columns = Columns::all(table.def.columns.len()).minus(&counters);
        late::add_baseline(self.replica, table, key, number, &row, &columns).map(Some)
    }

    /// Takes the maker's baseline version of a row along.
    fn take_image(&self, table: &Table, key: &[u8]) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO _pm_image (tid, key, body)
                   SELECT tid, key, body FROM temp._pm_their_image WHERE tid = ?1 AND key = ?2";
        self.replica.db.prepare_cached(sql)?.execute((table.tid, key))?;
        Ok(())
    }

    /// Merges the counters of a row; if it `stays` as it is here, only where neither side had seen all that is settled on
    /// the other. Returns whether sums of it wait for a verdict.
    fn merge_counts(
        &self,
        table: &Table,
        key: &[u8],
        (present, they_saw): (bool, bool),
        stays: bool,
    ) -> Result<bool> {
        if table.counters.is_empty() || (stays && (self.we_saw || they_saw)) {
            return Ok(false);
        }
        let there = self.row_there(table, key, present)?;
        // Of a row that is in quarantine here, theirs is in its place.
        let read = if present { compose::shown_row } else { compose::row_of };
        let mine = read(self.replica, table, key)?;
        merge_counters::merge(&merge_counters::Counting {
            replica: self.replica,
            table,
            key,
            mine: mine.as_deref(),
            theirs: there.as_deref(),
            had: &self.had,
            vector: &self.vector,
            they_saw,
            we_saw: self.we_saw,
        })
    }

    /// Ends: merges the rows that the maker does not show.
    pub(super) fn finish(&mut self) -> Result<()> {
        let db = &self.replica.db;
        db.execute_batch(
            "INSERT OR IGNORE INTO temp._pm_left_key (tid, key) SELECT DISTINCT tid, key FROM temp._pm_their_head;
             INSERT OR IGNORE INTO temp._pm_left_key (tid, key) SELECT tid, key FROM temp._pm_their_gone",
        )?;
        if !self.we_saw && !self.partial {
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
                self.merge(&table, &key, false)?;
            } else {
                self.merge_waiting(&table, &key, None)?;
            }
            after = (tid, key);
        }
        Ok(())
    }
}

/// Returns whether a version is new to who has applied what is in a vector. Of a baseline version nobody knows.
fn new_to(vector: &HashMap<i64, u64>, head: &Head) -> bool {
    head.dev == BASELINE || positions::lacks(vector, head.dev, head.seq)
}

/// Returns whether a version is among these.
fn is_in(heads: &[Head], head: &Head) -> bool {
    heads.iter().any(|other| (other.dev, other.seq) == (head.dev, head.seq))
}

/// Returns whether versions are the same, in the same order.
fn is_same(a: &[Head], b: &[Head]) -> bool {
    let same = |(a, b): (&Head, &Head)| (a.dev, a.seq) == (b.dev, b.seq) && a.columns == b.columns;
    a.len() == b.len() && a.iter().zip(b).all(same)
}
