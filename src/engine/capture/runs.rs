//! Sums of runs of rows: by them a table that its application made anew is compared with what it was, though nobody
//! remembers what its settled rows were.
//!
//! A *run* is the rows between two fixed keys, some hundred of them. Its first key is in `_pm_runs_N`, that of the first
//! run is none: it begins before every row, and is in `_pm_run`, so a table of one run costs no table of its own.
//!
//! **Invariant.** The sum of a run is unknown (NULL), or it is that of the settled rows of the run as they were when the
//! log still told all of them: each row that is settled now, and was not made by what nobody recorded, is in it as it is.
//! Settled is a shared row without versions in `_pm_head`; of a per-device table, which has one writer, every row that is
//! sealed.
//!
//! **Why it holds.** What a settled row is changes by a fold, which settles what versions said, and by a state that is
//! merged; both make the sum of its run unknown (`touch`), as does a verdict that leaves nothing of a row. A row that gets a
//! version is left out of the sum by the next compaction; until then the run differs, and is restated though it need not be.
//!
//! **Cost.** A compaction reads again the runs of the rows that were written or folded since the last one, and no others.
//! A run takes its first key and some 14 bytes; the longer the key, the more rows a run has, so that it is less than
//! .4 bytes a row.
//!
//! **What is summed.** The first eight bytes of SHA-256 over the names of the columns and the values of the row. A run
//! knows how many columns there were; columns that came later must have their default.

use packmule_core::model::{Stream, Value};
use packmule_core::wire::{Mode, Op};
use rusqlite::{Row, params_from_iter};
use sha2::{Digest, Sha256};

use crate::engine::capture::dirty;
use crate::engine::error::Result;
use crate::engine::fleet::{membership, positions};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads;
use crate::engine::merge::stretches::{self, Chosen};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::known::{OpDef, State, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::row_hash::RowHash;

/// The values of a key.
type Key = Vec<OwnedValue>;

/// A run of rows.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Its first key; `None` for the first run.
    pub first: Option<Key>,
    /// The sum of its settled rows, if that is known.
    pub sum: Option<i64>,
    /// How many columns of its rows are in the sum.
    pub columns: usize,
}

/// The runs of a table.
pub(crate) struct Runs<'e> {
    replica: &'e Replica,
    table: &'e Table,
    name: String,
    /// `k1, k2`…
    keys: String,
    /// There is more than one run.
    is_split: bool,
}

impl<'e> Runs<'e> {
    /// Opens the runs of a table, if sums are kept of it.
    pub(crate) fn open(replica: &'e Replica, table: &'e Table) -> Result<Option<Self>> {
        let sql = "SELECT split FROM _pm_run WHERE tid = ?1";
        let split = value::maybe::<bool>(&replica.db, sql, [table.tid])?;
        Ok(split.map(|is_split| Self::with(replica, table, is_split)))
    }

    fn with(replica: &'e Replica, table: &'e Table, is_split: bool) -> Self {
        let keys: Vec<String> = (1..=table.def.keys().count()).map(|n| format!("k{n}")).collect();
        Self { replica, table, name: name_of(table.tid), keys: keys.join(", "), is_split }
    }

    /// Returns the first run.
    pub(crate) fn first_run(&self) -> Result<Run> {
        let sql = "SELECT sum, columns FROM _pm_run WHERE tid = ?1";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (sum, columns) = self.replica.db.prepare_cached(sql)?.query_row([self.table.tid], read)?;
        Ok(Run { first: None, sum, columns })
    }

    /// Returns the run after that with this first key.
    pub(crate) fn run_after(&self, first: Option<&[OwnedValue]>) -> Result<Option<Run>> {
        match first {
            Some(key) => self.one_run(&format!("({}) > ({})", self.keys, marks(key.len(), 1)), key, "ASC"),
            None => self.one_run("1", &[], "ASC"),
        }
    }

    fn one_run(&self, condition: &str, key: &[OwnedValue], order: &str) -> Result<Option<Run>> {
        if !self.is_split {
            return Ok(None);
        }
        let n = self.table.def.keys().count();
        let order: Vec<String> = (1..=n).map(|n| format!("k{n} {order}")).collect();
        let mut statement = self.replica.db.prepare_cached(&format!(
            "SELECT {}, sum, columns FROM {} WHERE {condition} ORDER BY {} LIMIT 1",
            self.keys,
            self.name,
            order.join(", ")
        ))?;
        let mut rows = statement.query(params_from_iter(key.iter().map(|v| Bind(v.borrow()))))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let first = (0..n).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
        Ok(Some(Run {
            first: Some(first.collect::<Result<_>>()?),
            sum: row.get(n)?,
            columns: row.get(n + 1)?,
        }))
    }

    /// Returns the first run after that with this first key whose sum is unknown.
    fn unknown_after(&self, first: Option<&[OwnedValue]>) -> Result<Option<Run>> {
        match first {
            Some(key) => {
                let after = format!("sum IS NULL AND ({}) > ({})", self.keys, marks(key.len(), 1));
                self.one_run(&after, key, "ASC")
            }
            None => self.one_run("sum IS NULL", &[], "ASC"),
        }
    }

    /// Makes the sum of a run unknown.
    pub(crate) fn doubt(&self, first: Option<&[OwnedValue]>) -> Result<()> {
        let db = &self.replica.db;
        match first {
            None => db
                .prepare_cached("UPDATE _pm_run SET sum = NULL WHERE tid = ?1")?
                .execute([self.table.tid])?,
            Some(key) => {
                let sql = format!(
                    "UPDATE {} SET sum = NULL WHERE ({}) = ({})",
                    self.name,
                    self.keys,
                    marks(key.len(), 1)
                );
                db.prepare_cached(&sql)?.execute(params_from_iter(key.iter().map(|v| Bind(v.borrow()))))?
            }
        };
        Ok(())
    }

    /// Returns the run that a key is in.
    fn of_key(&self, key: &[OwnedValue]) -> Result<Run> {
        let found = self.one_run(&format!("({}) <= ({})", self.keys, marks(key.len(), 1)), key, "DESC")?;
        found.map_or_else(|| self.first_run(), Ok)
    }

    /// Makes the sum of the run unknown that a row is in.
    fn touch(&self, key: &[u8]) -> Result<()> {
        let run = self.of_key(&value::read_key(key)?)?;
        if run.sum.is_some() { self.doubt(run.first.as_deref()) } else { Ok(()) }
    }

    /// Writes a run.
    fn put_run(&mut self, run: &Run) -> Result<()> {
        let db = &self.replica.db;
        let Some(first) = &run.first else {
            db.prepare_cached("UPDATE _pm_run SET sum = ?2, columns = ?3 WHERE tid = ?1")?.execute((
                self.table.tid,
                run.sum,
                run.columns,
            ))?;
            return Ok(());
        };
        if !self.is_split {
            self.make_further()?;
        }
        let n = first.len();
        let sql = format!(
            "INSERT OR REPLACE INTO {} ({}, sum, columns) VALUES ({}, ?{}, ?{})",
            self.name,
            self.keys,
            marks(n, 1),
            n + 1,
            n + 2
        );
        let mut statement = db.prepare_cached(&sql)?;
        for (at, value) in first.iter().enumerate() {
            statement.raw_bind_parameter(at + 1, Bind(value.borrow()))?;
        }
        statement.raw_bind_parameter(n + 1, run.sum)?;
        statement.raw_bind_parameter(n + 2, run.columns)?;
        statement.raw_execute()?;
        Ok(())
    }

    /// Makes the table of the further runs.
    fn make_further(&mut self) -> Result<()> {
        let db = &self.replica.db;
        db.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {} ({}, sum INTEGER, columns INTEGER NOT NULL, PRIMARY KEY ({})) WITHOUT ROWID",
            self.name,
            dirty::key_columns(&self.table.def).join(", "),
            self.keys
        ))?;
        db.execute("UPDATE _pm_run SET split = 1 WHERE tid = ?1", [self.table.tid])?;
        self.is_split = true;
        Ok(())
    }

    /// Joins a run with the one before it.
    fn join_with_before(&self, first: &[OwnedValue]) -> Result<()> {
        let sql = format!("DELETE FROM {} WHERE ({}) = ({})", self.name, self.keys, marks(first.len(), 1));
        let binds = params_from_iter(first.iter().map(|v| Bind(v.borrow())));
        self.replica.db.prepare_cached(&sql)?.execute(binds)?;
        Ok(())
    }

    /// Reads the rows of a run again. One that has become long is split, one that has become short is joined with the next.
    fn sum_again(&mut self, summer: &mut Summer<'_>, run: &Run) -> Result<()> {
        let mut next = self.run_after(run.first.as_deref())?.and_then(|next| next.first);
        let columns = self.table.def.columns.len();
        let begun = |first| Piece { run: Run { first, sum: Some(0), columns }, rows: 0, most: 0 };
        let (mut before, mut piece): (Option<Piece>, Piece) = (None, begun(run.first.clone()));
        let mut from = run.first.clone();
        loop {
            each_row(summer, from.as_deref(), next.as_deref(), &mut |summer, row, key| {
                if piece.rows > 0 && piece.rows >= piece.most {
                    let full = std::mem::replace(&mut piece, begun(Some(value::read_key(key)?)));
                    before.replace(full).map_or(Ok(()), |done| self.put_run(&done.run))?;
                }
                if piece.rows == 0 {
                    let least = u64::from(self.replica.options.run_rows.max(1));
                    piece.most = least + least * key.len() as u64 / LONGER;
                }
                piece.rows += 1;
                if is_settled(self.replica, self.table, key)? {
                    piece.add_sum(summer.sum_of(row, columns)?);
                }
                Ok(())
            })?;
            // A few rows are no run of their own.
            let Some(joined) = next.take_if(|_| before.is_none() && piece.rows * 4 < piece.most) else {
                break;
            };
            self.join_with_before(&joined)?;
            next = self.run_after(Some(&joined))?.and_then(|next| next.first);
            from = Some(joined);
        }
        if let Some(mut before) = before {
            if piece.rows * 2 < piece.most {
                before.add_sum(piece.run.sum.unwrap_or(0));
                return self.put_run(&before.run);
            }
            self.put_run(&before.run)?;
        }
        self.put_run(&piece.run)
    }
}

/// By so many bytes of its first key a run has as many rows more as it has at least.
const LONGER: u64 = 16;

/// A run that is being summed.
struct Piece {
    run: Run,
    rows: u64,
    most: u64,
}

impl Piece {
    fn add_sum(&mut self, sum: i64) {
        self.run.sum = Some(self.run.sum.unwrap_or(0).wrapping_add(sum));
    }
}

fn name_of(tid: i64) -> String {
    format!("_pm_runs_{tid}")
}

/// Returns `?from, …`, so many of them.
fn marks(n: usize, from: usize) -> String {
    (from..from + n).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ")
}

/// Sums rows of a table.
pub(crate) struct Summer<'e> {
    table: &'e Table,
    replica: &'e Replica,
    rows: RowHash<'e>,
    /// The hashes of the names of so many columns, as they were needed.
    begun: Vec<(usize, Sha256)>,
}

impl<'e> Summer<'e> {
    pub(crate) fn new(replica: &'e Replica, table: &'e Table) -> Self {
        let columns = table.def.columns.iter().enumerate().map(|(at, c)| (c.name.clone(), Some(at)));
        Self { table, replica, rows: RowHash::new(replica, table, columns.collect()), begun: Vec::new() }
    }

    /// Returns what the first `n` columns of a row add to the sum of its run.
    pub(crate) fn sum_of(&mut self, row: &Row<'_>, n: usize) -> Result<i64> {
        let mut hash = match self.begun.iter().find(|(of, _)| *of == n) {
            Some((_, begun)) => begun.clone(),
            None => {
                let mut begun = Sha256::new();
                begun.update(b"packmule/1 run");
                for column in self.table.def.columns.iter().take(n) {
                    let name = column.name.to_ascii_lowercase();
                    begun.update((name.len() as u64).to_le_bytes());
                    begun.update(name);
                }
                self.begun.push((n, begun.clone()));
                begun
            }
        };
        self.rows.add_row(row, n, &mut hash)?;
        let hash: [u8; 32] = hash.finalize().into();
        let (first, _) = hash.split_at(8);
        Ok(i64::from_le_bytes(first.try_into().unwrap_or_default()))
    }

    /// Returns whether the columns from the one with this number on have their defaults.
    pub(crate) fn has_defaults(&self, row: &Row<'_>, from: usize) -> Result<bool> {
        self.rows.has_defaults(row, from)
    }
}

/// What takes the rows of a run: each with what sums it, and its canonical key.
type EachRow<'f, 'e> = dyn FnMut(&mut Summer<'e>, &Row<'_>, &[u8]) -> Result<()> + 'f;

/// Gives each row from a key on to before another one, in the order of keys, with its canonical key. A row whose key cannot
/// travel is passed over.
pub(crate) fn each_row<'e>(
    summer: &mut Summer<'e>,
    from: Option<&[OwnedValue]>,
    to: Option<&[OwnedValue]>,
    each: &mut EachRow<'_, 'e>,
) -> Result<()> {
    let (replica, table) = (summer.replica, summer.table);
    let keys = table.def.key_list("");
    let (mut conditions, mut binds) = (Vec::new(), Vec::new());
    for (key, compared) in [(from, ">="), (to, "<")] {
        let Some(key) = key else { continue };
        conditions.push(format!("({keys}) {compared} ({})", marks(key.len(), binds.len() + 1)));
        binds.extend(key.iter().map(|v| Bind(v.borrow())));
    }
    let given = if conditions.is_empty() { "1".into() } else { conditions.join(" AND ") };
    let sql = format!("SELECT {} FROM {} WHERE {given} ORDER BY {keys}", summer.rows.sql(), table.sql_name);
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(binds))?;
    let at: Vec<usize> = table.def.keys().collect();
    while let Some(row) = rows.next()? {
        let values = at.iter().map(|at| row.get_ref(*at).map(value::from_sql));
        let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
        if values.iter().all(|value| *value != Value::Null) {
            let key = table.key_of(values.into_iter())?;
            each(summer, row, &key)?;
        }
    }
    Ok(())
}

/// Returns whether nothing but the table tells what a row is.
fn is_settled(replica: &Replica, table: &Table, key: &[u8]) -> Result<bool> {
    if table.def.mode == Mode::PerDevice {
        return Ok(true);
    }
    Ok(heads::all_heads(replica, table.tid, key)?.is_empty())
}

/// Makes the sum of the run unknown that a row is in: what it is when settled changes, or it is not settled any more.
pub(crate) fn touch(replica: &Replica, table: &Table, key: &[u8]) -> Result<()> {
    Runs::open(replica, table)?.map_or(Ok(()), |runs| runs.touch(key))
}

/// Forgets the sums of a table.
pub(crate) fn forget(replica: &Replica, tid: i64) -> Result<()> {
    replica.db.execute("DELETE FROM _pm_run WHERE tid = ?1", [tid])?;
    Ok(replica.db.execute_batch(&format!("DROP TABLE IF EXISTS {}", name_of(tid)))?)
}

/// Forgets all sums: places in the log are not what they were, or rows were written that are in no frame here.
pub(crate) fn forget_all(replica: &Replica) -> Result<()> {
    catalog::tables(replica).iter().try_for_each(|table| forget(replica, table.tid))?;
    Ok(replica.db.execute_batch("DELETE FROM _pm_summed")?)
}

/// Makes the sums of the runs unknown in which shared rows got versions since the last compaction.
fn touch_written(replica: &Replica) -> Result<()> {
    let mut statement = replica.db.prepare(
        "SELECT h.tid, h.key FROM _pm_head h LEFT JOIN _pm_summed s ON s.dev = h.dev
         WHERE h.dev > 0 AND h.seq > coalesce(s.seq, 0) AND +h.tid IN (SELECT tid FROM _pm_run) ORDER BY h.tid, h.key",
    )?;
    let mut rows = statement.query([])?;
    let mut last = (0, Vec::new());
    while let Some(row) = rows.next()? {
        let (tid, key) = (row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        if (tid, key) != (last.0, &*last.1) {
            touch(replica, &*catalog::table(replica, tid)?, key)?;
            last = (tid, key.to_vec());
        }
    }
    drop(rows);
    drop(statement);
    let written = Chosen {
        only: "s.dev > 0 AND s.seq > coalesce((SELECT m.seq FROM _pm_summed m WHERE m.dev = s.dev), 0)
             AND s.tid IN (SELECT tid FROM _pm_run)",
        of: &[],
    };
    stretches::each(replica, &written, &mut |of| {
        let table = catalog::table(replica, of.tid)?;
        (of.first..=of.last).try_for_each(|key| touch(replica, &table, &value::encode(&Value::Int(key))?))
    })?;
    replica.db.execute_batch("DELETE FROM _pm_summed")?;
    let sql = "INSERT INTO _pm_summed (dev, seq) SELECT dev, seq FROM _pm_stream WHERE stream = ?1";
    replica.db.execute(sql, [Stream::Shared.number()])?;
    Ok(())
}

/// Gives each op of a per-device table that was sealed since its sums were made. Returns whether the log has all of them.
pub(crate) fn each_sealed(
    replica: &Replica,
    table: &Table,
    each: &mut dyn FnMut(&OpDef, &Op<'_>) -> Result<()>,
) -> Result<bool> {
    let sql = "SELECT seq FROM _pm_run WHERE tid = ?1";
    let summed = value::maybe::<u64>(&replica.db, sql, [table.tid])?.unwrap_or(0);
    let last = positions::position(replica, replica.me, Stream::PerDevice)?.seq;
    for seq in summed + 1..=last {
        let Some(body) = frames::frame(replica, replica.me, Stream::PerDevice, seq)? else {
            return Ok(false);
        };
        visit::visit(replica, &frames::parse(&body)?, |part| match part {
            Part::Op(def, op) if def.tid == table.tid => each(def, &op),
            _ => Ok(()),
        })?;
    }
    Ok(true)
}

/// Makes the sums of the runs unknown in which rows of a per-device table were sealed since they were summed.
fn touch_sealed(replica: &Replica, table: &Table) -> Result<()> {
    let Some(runs) = Runs::open(replica, table)? else { return Ok(()) };
    if !each_sealed(replica, table, &mut |def, op| runs.touch(&def.key_of(op.values(def.shape()))?))? {
        return forget(replica, table.tid);
    }
    let last = positions::position(replica, replica.me, Stream::PerDevice)?.seq;
    replica.db.execute("UPDATE _pm_run SET seq = ?2 WHERE tid = ?1", (table.tid, last))?;
    Ok(())
}

/// Returns whether sums of a table are of use: of an append table its mark tells what became of it.
fn is_summed(table: &Table) -> bool {
    table.state == State::Tracked && !table.def.append
}

/// Sums the runs of all tables again whose sums are unknown. After a fold, before its frames leave the log.
pub(crate) fn refresh_all(replica: &Replica) -> Result<()> {
    touch_written(replica)?;
    for table in catalog::tables(replica).iter().filter(|table| is_summed(table)) {
        if Runs::open(replica, table)?.is_some() || is_any_folded(replica, table)? {
            refresh(replica, table)?;
        }
    }
    Ok(())
}

/// Returns whether anything is folded of the stream that a table's rows are in: otherwise the log tells all of them.
pub(crate) fn is_any_folded(replica: &Replica, table: &Table) -> Result<bool> {
    Ok(match table.def.mode {
        Mode::Shared => membership::floors(replica)?.iter().any(|(_, seq)| *seq > 0),
        Mode::PerDevice => membership::watermark(replica, replica.me, Stream::PerDevice)? > 0,
    })
}

/// Sums the runs of a table again whose sums are unknown; all of them, where none are kept.
pub(crate) fn refresh(replica: &Replica, table: &Table) -> Result<()> {
    if table.def.mode == Mode::PerDevice {
        touch_sealed(replica, table)?;
    }
    let mut summer = Summer::new(replica, table);
    let mut runs = match Runs::open(replica, table)? {
        Some(runs) => runs,
        None => {
            let last = positions::position(replica, replica.me, Stream::PerDevice)?.seq;
            replica.db.execute(
                "INSERT INTO _pm_run (tid, sum, columns, seq, split) VALUES (?1, NULL, 0, ?2, 0)",
                (table.tid, last),
            )?;
            Runs::with(replica, table, false)
        }
    };
    let first = runs.first_run()?;
    if first.sum.is_none() {
        runs.sum_again(&mut summer, &first)?;
    }
    let mut last = None;
    while let Some(run) = runs.unknown_after(last.as_deref())? {
        runs.sum_again(&mut summer, &run)?;
        last = run.first;
    }
    Ok(())
}
