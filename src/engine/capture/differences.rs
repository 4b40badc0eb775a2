//! How a table that its application made anew differs from what it was: what a restating group has to say of it.
//!
//! Run by run (`runs.rs`): what of the rows the log still tells is compared with that, one by one; of settled rows the sum of
//! the run tells whether any differs. A run that may differ is said whole, in a *span*: its rows, and that all else is gone.

use packmule_core::model::Stream;
use packmule_core::wire::{Mode, Op, OpKind};

use crate::engine::capture::dirty::{self, ChangeFlags};
use crate::engine::capture::runs::{self, Run, Runs, Summer};
use crate::engine::capture::suspended;
use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{compose, context_free, counters, deferred, versions};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;
use crate::engine::table::shapes;

/// What is to be said of rows: `what` is a [`What`], `columns` those that differ, if not all. The spans, by the canonical keys
/// of their ends; `last` is the first key of the next run. And of a per-device table, the rows that are in the log: `state` 0
/// gone, 1 it is as the log says, 2 it is not. And the rows that were written since triggers watch the table again, which are
/// sealed as any write: in these `columns`, or as they are.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_restate (n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, what INTEGER NOT NULL,
        columns BLOB);
    CREATE TEMP TABLE IF NOT EXISTS _pm_restate_span (n INTEGER PRIMARY KEY, first BLOB NOT NULL, last BLOB NOT NULL);
    CREATE TEMP TABLE IF NOT EXISTS _pm_restate_log (key BLOB PRIMARY KEY, state INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS _pm_restate_written (key BLOB PRIMARY KEY, columns BLOB) WITHOUT ROWID;
    DELETE FROM temp._pm_restate; DELETE FROM temp._pm_restate_span; DELETE FROM temp._pm_restate_log;
    DELETE FROM temp._pm_restate_written;
";

/// A row's state in `_pm_restate_log`.
const GONE: i64 = 0;
const SAME: i64 = 1;
const DIFFERS: i64 = 2;

/// What a restating group says of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Written = 1,
    Gone = 2,
    /// It is as it was: said only in a span.
    Same = 3,
    /// There is no more of it here than what others wrote while the table was not there.
    Lacking = 4,
}

/// Compares a table.
struct Comparison<'e> {
    replica: &'e Replica,
    table: &'e Table,
    /// The columns that it did not have before, or on whose kind its application has decided.
    added: &'e [String],
    /// The columns that are not compared with what the log tells: it is still to be shown.
    unshown: &'e [String],
    /// The log tells all that was written to it.
    is_told: bool,
    /// There are rows in `_pm_restate_written`.
    any_written: bool,
}

/// Lists in `_pm_restate` what is to be said of the rows of a table, and in `_pm_restate_span` its spans. `added` are the
/// columns that it did not have before, `unshown` those that are not compared with what the log tells.
pub(super) fn list(replica: &Replica, table: &Table, added: &[String], unshown: &[String]) -> Result<()> {
    replica.db.execute_batch(TEMP)?;
    let is_told = !runs::is_any_folded(replica, table)?;
    let mut runs = Runs::open(replica, table)?;
    if table.def.mode == Mode::PerDevice && !list_logged(replica, table)? {
        runs = None;
        runs::forget(replica, table.tid)?;
    }
    let any_written = list_written(replica, table)?;
    let comparison = Comparison { replica, table, added, unshown, is_told, any_written };
    comparison.compare(runs.as_ref())?;
    match table.def.mode {
        Mode::Shared => comparison.list_gone()?,
        Mode::PerDevice => comparison.list_gone_logged()?,
    }
    comparison.list_spans()
}

impl Comparison<'_> {
    /// Compares all runs.
    fn compare(&self, runs: Option<&Runs<'_>>) -> Result<()> {
        let mut summer = Summer::new(self.replica, self.table);
        let Some(runs) = runs else {
            // Where nothing is folded, nothing is settled.
            let run = Run { first: None, sum: Some(0).filter(|_| self.is_told), columns: 0 };
            if !self.is_as_it_was(&mut summer, &run, None)? {
                put_span(self.replica, self.table, None, None)?;
            }
            return Ok(());
        };
        let mut next = Some(runs.first_run()?);
        while let Some(run) = next {
            next = runs.run_after(run.first.as_deref())?;
            let end = next.as_ref().and_then(|next| next.first.as_deref());
            if !self.is_as_it_was(&mut summer, &run, end)? {
                put_span(self.replica, self.table, run.first.as_deref(), end)?;
                runs.doubt(run.first.as_deref())?;
            }
        }
        Ok(())
    }

    /// Compares the rows of a run, and lists those that differ from what the log tells. Returns whether its settled rows are
    /// as they were, as far as can be told.
    fn is_as_it_was(&self, summer: &mut Summer<'_>, run: &Run, end: Option<&[OwnedValue]>) -> Result<bool> {
        let Self { replica, table, .. } = *self;
        let (mut sum, mut has_defaults) = (0_i64, true);
        let columns = run.columns.min(table.def.columns.len());
        runs::each_row(summer, run.first.as_deref(), end, &mut |summer, row, key| {
            if self.is_unshown(key)? {
                return self.list_unsaid(key);
            }
            if self.list_logged_row(key)? {
                return Ok(());
            }
            if self.is_written_whole(key)? {
                return Ok(());
            }
            if run.sum == Some(0) {
                return put(replica, key, What::Written, None); // Nothing was settled: it is new.
            }
            sum = sum.wrapping_add(summer.sum_of(row, columns)?);
            has_defaults = has_defaults && summer.has_defaults(row, columns)?;
            Ok(())
        })?;
        let same = run.sum == Some(sum) && has_defaults && run.columns == columns;
        Ok(same || replica.options.sums_always_match())
    }

    /// Returns whether nothing is said of what the table has of a row: it is parked, or versions of it are still to be shown.
    fn is_unshown(&self, key: &[u8]) -> Result<bool> {
        let Self { replica, table, .. } = *self;
        Ok(table.def.mode == Mode::Shared
            && (deferred::is_quarantined(replica, table.tid, key)?
                || suspended::is_held(replica, table.tid, key)?))
    }

    /// Returns in which columns a row was written since triggers watch its table; none, if as a whole.
    fn written(&self, key: &[u8]) -> Result<Option<Option<Columns>>> {
        if !self.any_written {
            return Ok(None);
        }
        let sql = "SELECT columns FROM temp._pm_restate_written WHERE key = ?1";
        let columns: Option<Option<Vec<u8>>> = value::maybe(&self.replica.db, sql, [key])?;
        Ok(columns.map(|columns| columns.map(|bytes| Columns::of_bytes(&bytes))))
    }

    /// Returns whether a row was written as a whole since then.
    fn is_written_whole(&self, key: &[u8]) -> Result<bool> {
        Ok(matches!(self.written(key)?, Some(None)))
    }

    /// Lists a row of which versions are still to be shown, if it has something in columns of which none of these tells what was
    /// written: that stays when they are shown. What it had been is told by the versions that its application had seen.
    fn list_unsaid(&self, key: &[u8]) -> Result<()> {
        let Self { replica, table, .. } = *self;
        if deferred::is_quarantined(replica, table.tid, key)? {
            return Ok(());
        }
        let heads = heads::heads(replica, table.tid, key)?;
        let n = table.def.columns.len();
        if heads.is_empty() || heads.iter().any(|head| head.kind == OpKind::Delete) {
            return Ok(());
        }
        let Some(own) = compose::shown_row(replica, table, key)? else { return Ok(()) };
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        for head in heads {
            let of = if suspended::has_seen(replica, table.tid, &head)? { &mut seen } else { &mut unseen };
            of.push(head);
        }
        let written = self.written(key)?.map(|columns| columns.unwrap_or_else(|| Columns::all(n)));
        let said = match seen.is_empty() {
            true => own.clone(),
            false => {
                let judgement = versions::judge_versions(replica, table, &seen)?;
                said_values(replica, table, key, &own, &seen, &judgement)?
            }
        };
        let speaks = |heads: &[Head], at: usize| heads.iter().any(|head| head.live(n).contains(at));
        // A write that has come holds; of two that were restated the one that follows what was seen.
        let is_told = |at: usize| match speaks(&seen, at) {
            true => unseen.iter().any(|head| !head.weak && head.live(n).contains(at)),
            false => speaks(&unseen, at),
        };
        let unsaid = |at: usize| {
            let column = &table.def.columns[at];
            let is_free = column.key == 0 && !table.disputed.contains(at) && !table.counters.contains(&at);
            let is_other = match speaks(&seen, at) {
                true => said.get(at) != Some(&own[at]) && !written.as_ref().is_some_and(|w| w.contains(at)),
                false => !column.is_constant(&own[at]),
            };
            is_free && is_other && !is_told(at)
        };
        let columns: Columns = (0..n).filter(|at| unsaid(*at)).collect();
        if columns.is_empty() { Ok(()) } else { put(replica, key, What::Written, Some(&columns)) }
    }

    /// Lists a row that is in its table, if it differs from what the log tells. Returns whether the log tells of it.
    fn list_logged_row(&self, key: &[u8]) -> Result<bool> {
        let Self { replica, table, .. } = *self;
        if table.def.mode == Mode::PerDevice {
            let state = logged(replica, key)?;
            if state.is_some_and(|state| state != SAME) {
                put(replica, key, What::Written, None)?;
            }
            return Ok(state.is_some());
        }
        let heads = heads::heads(replica, table.tid, key)?;
        if heads.is_empty() {
            return Ok(false);
        }
        let written = self.written(key)?;
        if matches!(written, Some(None)) {
            return Ok(true);
        }
        let own = compose::shown_row(replica, table, key)?.unwrap_or_default();
        let columns = self.differing(key, &own, &heads)?;
        match columns.map(|columns| columns.minus(&written.flatten().unwrap_or_default())) {
            Some(columns) if columns.is_empty() => {}
            Some(columns) => put(replica, key, What::Written, Some(&columns))?,
            None => put(replica, key, What::Written, None)?,
        }
        Ok(true)
    }

    /// Lists the shared rows that are not there although the log tells of them.
    fn list_gone(&self) -> Result<()> {
        let Self { replica, table, .. } = *self;
        context_free::each_remembered(replica, table.tid, &mut |key| {
            let heads = heads::heads(replica, table.tid, key)?;
            if compose::shown_row(replica, table, key)?.is_none()
                && !self.is_unshown(key)?
                && self.written(key)?.is_none()
                && versions::judge_versions(replica, table, &heads)?.present
            {
                put(replica, key, What::Gone, None)?;
            }
            Ok(())
        })
    }

    /// Lists the rows of a per-device table that are not there although the log tells of them.
    fn list_gone_logged(&self) -> Result<()> {
        let Self { replica, table, .. } = *self;
        let mut statement =
            replica.db.prepare("SELECT key FROM temp._pm_restate_log WHERE state <> ?1 ORDER BY key")?;
        let mut rows = statement.query([GONE])?;
        while let Some(row) = rows.next()? {
            let key: Vec<u8> = row.get(0)?;
            if !compose::is_shown(replica, table, &value::read_key(&key)?)? {
                put(replica, &key, What::Gone, None)?;
            }
        }
        Ok(())
    }

    /// Lists all rows in the spans, and those that are not shown.
    fn list_spans(&self) -> Result<()> {
        let Self { replica, table, .. } = *self;
        let mut summer = Summer::new(replica, table);
        let mut statement = replica.db.prepare("SELECT first, last FROM temp._pm_restate_span ORDER BY n")?;
        let mut spans = statement.query([])?;
        let mut any = false;
        while let Some(span) = spans.next()? {
            any = true;
            let ends = [span.get::<_, Vec<u8>>(0)?, span.get::<_, Vec<u8>>(1)?];
            let [first, last] = ends.each_ref().map(|key| value::read_key(key));
            let (first, last) = (first?, last?);
            let end = |key: &Vec<OwnedValue>| (!key.is_empty()).then(|| key.clone());
            runs::each_row(&mut summer, end(&first).as_deref(), end(&last).as_deref(), &mut |_, _, key| {
                if self.is_unshown(key)? {
                    return Ok(());
                }
                let logged = match table.def.mode {
                    Mode::Shared => !heads::heads(replica, table.tid, key)?.is_empty(),
                    Mode::PerDevice => logged(replica, key)?.is_some(),
                };
                let is_said = logged || self.is_written_whole(key)?;
                put(replica, key, if is_said { What::Same } else { What::Written }, None)
            })?;
            // A span has its end too, which is of the next run.
            if !last.is_empty() && compose::is_shown(replica, table, &last)? {
                put(replica, &ends[1], What::Same, None)?;
            }
        }
        if any && table.def.mode == Mode::Shared { list_unshown(replica, table) } else { Ok(()) }
    }

    /// Returns the columns in which a row differs from what its versions say; `None` if they say that it is not there.
    ///
    /// Of a column of which no version speaks, nobody remembers what it was, unless it is newer than they are: then it was its
    /// default. A counter is by what is remembered of it.
    fn differing(&self, key: &[u8], own: &[OwnedValue], heads: &[Head]) -> Result<Option<Columns>> {
        let Self { replica, table, .. } = *self;
        let judgement = versions::judge_versions(replica, table, heads)?;
        if !judgement.present {
            return Ok(None);
        }
        let n = table.def.columns.len();
        let mut spoken = Columns::default();
        heads.iter().for_each(|head| spoken.extend(&head.live(n)));
        let said = said_values(replica, table, key, own, heads, &judgement)?;
        let entries = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
        // A delete carries what the row was.
        let is_told = heads.iter().any(|head| head.kind == OpKind::Delete);
        let mut differing = Columns::default();
        for (at, column) in table.def.columns.iter().enumerate() {
            let is_disputed = table.disputed.contains(at) && !self.is_added(&column.name);
            let is_unshown = self.unshown.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
            if column.key > 0 || is_disputed || is_unshown || self.waited(at, own, &said)? {
                continue;
            }
            let counted =
                table.counters.contains(&at).then(|| counters::total(table, &entries, at)).flatten();
            let same = if let Some(total) = counted {
                total.borrow() == own[at].borrow()
            } else if spoken.contains(at) && !table.counters.contains(&at) {
                said.get(at).is_some_and(|said| *said == own[at])
            } else if is_told && said.get(at).is_some_and(|said| *said == own[at]) {
                true
            } else {
                column.is_constant(&own[at]) && self.came_later(&column.name, heads)?
            };
            if !same {
                differing.insert(at);
            }
        }
        Ok(Some(differing))
    }

    fn is_added(&self, name: &str) -> bool {
        self.added.iter().any(|added| added.eq_ignore_ascii_case(name))
    }

    /// Returns whether what versions say of a column waits still to be shown: its application has decided on its kind now, and
    /// the row has but what the column gave to it itself while it was disputed.
    fn waited(&self, at: usize, own: &[OwnedValue], said: &[OwnedValue]) -> Result<bool> {
        let Self { replica, table, .. } = *self;
        let name = &table.def.columns[at].name;
        if !self.is_added(name) || said.get(at) == Some(&own[at]) {
            return Ok(false);
        }
        let before = shapes::past_shapes(replica, table.tid, replica.me)?;
        let last = shapes::own_shape(replica, table.tid)?.map(|shape| shape.def);
        let mut was = before.iter().chain(&last).filter_map(|def| Some(&def.columns[def.column(name)?]));
        Ok(was.any(|column| column.is_constant(&own[at])))
    }

    /// Returns whether a column of which no version of a row speaks came after them: it was added now; or it was not there
    /// when one of them was written as a whole, and the log tells all that was written since.
    fn came_later(&self, name: &str, heads: &[Head]) -> Result<bool> {
        if self.is_added(name) {
            return Ok(true);
        }
        let mut whole =
            heads.iter().filter(|head| self.is_told && head.dev != BASELINE && head.kind == OpKind::Insert);
        let Some(head) = whole.next() else { return Ok(false) };
        frames::op_at(self.replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            Ok(op.head.columns.is_none() && def.def.column(name).is_none())
        })
    }
}

/// Lists the rows that are not shown here: of these nothing is said, but that a part of a row is all that is left of it.
fn list_unshown(replica: &Replica, table: &Table) -> Result<()> {
    let n = table.def.columns.len();
    let sql = "SELECT tid, key FROM _pm_held WHERE tid = ?1 AND key > ?2
         UNION SELECT tid, key FROM _pm_parked WHERE tid = ?1 AND key > ?2 ORDER BY tid, key";
    value::each_listed(&replica.db, sql, table.tid, &mut |_, key| {
        let heads = heads::heads(replica, table.tid, key)?;
        let whole = (0..n).all(|at| heads.iter().any(|head| head.live(n).contains(at)));
        let gone = heads.iter().any(|head| head.kind == OpKind::Delete);
        let lacks = !whole && !gone && compose::row_of(replica, table, key)?.is_none();
        put(replica, key, if lacks { What::Lacking } else { What::Same }, None)
    })
}

/// Lists in `_pm_restate_log` the rows of a per-device table that were sealed since its sums were made. Returns whether the
/// log has all of them.
fn list_logged(replica: &Replica, table: &Table) -> Result<bool> {
    runs::each_sealed(replica, table, &mut |def, op| {
        let key = def.key_of(op.values(def.shape()))?;
        let state = match op.head.kind {
            OpKind::Keep => return Ok(()),
            OpKind::Delete => GONE,
            _ => compare_op(replica, table, &key, def, op)?,
        };
        let sql = "INSERT OR REPLACE INTO temp._pm_restate_log (key, state) VALUES (?1, ?2)";
        replica.db.prepare_cached(sql)?.execute((key, state))?;
        Ok(())
    })
}

/// Compares a row with the last op of it.
fn compare_op(replica: &Replica, table: &Table, key: &[u8], def: &OpDef, op: &Op<'_>) -> Result<i64> {
    let Some(row) = compose::shown_row(replica, table, key)? else { return Ok(DIFFERS) };
    let mut said = Columns::default();
    for (at, value) in op.values(def.shape()) {
        let Some(column) = table.def.column(&def.def.columns[at].name) else { continue };
        said.insert(column);
        if !versions::is_equal(&value, &row[column]) {
            return Ok(DIFFERS);
        }
    }
    // A column that the op does not have came later.
    let same = |at: usize| said.contains(at) || table.def.columns[at].is_constant(&row[at]);
    let whole = op.head.columns.is_none() && (0..row.len()).all(same);
    Ok(if whole { SAME } else { DIFFERS })
}

/// Lists the rows of a table that stand in its list of changes. Returns whether there are any.
fn list_written(replica: &Replica, table: &Table) -> Result<bool> {
    let (n, masks) = (table.def.keys().count(), dirty::masks(table));
    let keys: Vec<String> = (1..=n).map(|n| format!("k{n}")).collect();
    let bits: String = (0..masks).map(|m| format!(", _pm_or(m{m})")).collect();
    let lacking: String = (0..masks).map(|m| format!(" OR m{m} IS NULL")).collect();
    let (keys, updates) = (keys.join(", "), ChangeFlags::UPDATE | ChangeFlags::UPDATE_UNIQUE);
    let mut statement = replica.db.prepare(&format!(
        "SELECT {keys}, max(note & ~{updates} <> 0{lacking}){bits} FROM {} WHERE note <> {} GROUP BY {keys}",
        table.dirty(),
        ChangeFlags::MAYBE_GONE
    ))?;
    let mut rows = statement.query([])?;
    let mut any = false;
    while let Some(row) = rows.next()? {
        any = true;
        let key = table.key_of(value::first_of(row, n)?.iter().copied())?;
        let bits = (0..masks).map(|m| row.get(n + 1 + m)).collect::<rusqlite::Result<Vec<i64>>>();
        let is_whole = masks == 0 || row.get(n)?;
        let columns = if is_whole { None } else { Some(dirty::mask_columns(&bits?)) };
        let sql = "INSERT OR REPLACE INTO temp._pm_restate_written (key, columns) VALUES (?1, ?2)";
        replica.db.prepare_cached(sql)?.execute((key, columns.as_ref().map(Columns::as_bytes)))?;
    }
    Ok(any)
}

/// Looks up what the log tells of a row of a per-device table.
fn logged(replica: &Replica, key: &[u8]) -> Result<Option<i64>> {
    value::maybe(&replica.db, "SELECT state FROM temp._pm_restate_log WHERE key = ?1", [key])
}

/// Puts a row into the list, unless it is there.
fn put(replica: &Replica, key: &[u8], what: What, columns: Option<&Columns>) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR IGNORE INTO temp._pm_restate (key, what, columns) VALUES (?1, ?2, ?3)")?
        .execute((key, what as i64, columns.map(Columns::as_bytes)))?;
    Ok(())
}

/// Puts a run into the list of spans; together with the one before it, if that ends where it begins.
fn put_span(
    replica: &Replica,
    table: &Table,
    first: Option<&[OwnedValue]>,
    end: Option<&[OwnedValue]>,
) -> Result<()> {
    let key = |values: Option<&[OwnedValue]>| {
        values.map_or(Ok(Vec::new()), |values| table.key_of(values.iter().map(OwnedValue::borrow)))
    };
    let (first, end) = (key(first)?, key(end)?);
    let joined = replica.db.execute(
        "UPDATE temp._pm_restate_span SET last = ?2 WHERE n = (SELECT max(n) FROM temp._pm_restate_span) AND last = ?1 AND last <> x''",
        (&first, &end),
    )?;
    if joined == 0 {
        replica
            .db
            .execute("INSERT INTO temp._pm_restate_span (first, last) VALUES (?1, ?2)", (&first, &end))?;
    }
    Ok(())
}

/// Returns the values of a row that its versions say; those of which none speaks are as they are.
fn said_values(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    own: &[OwnedValue],
    heads: &[Head],
    judgement: &versions::Judgement,
) -> Result<Vec<OwnedValue>> {
    if let [only] = heads {
        let mut said = own.to_vec();
        for (at, value) in versions::values(replica, table, only)? {
            said[at] = value;
        }
        return Ok(said);
    }
    let changes: Vec<_> = own.iter().cloned().enumerate().collect();
    compose::make_quarantined_row(replica, table, key, &changes)?;
    compose::compose(replica, table, key, heads, judgement)?;
    let said = compose::row_in(replica, &table.quarantine_table(), table, key)?;
    compose::delete_from(replica, &table.quarantine_table(), table, key)?;
    Ok(said.unwrap_or_default())
}
