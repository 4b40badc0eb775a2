//! A table that its application made anew (created, copied, dropped, renamed; or dropped and created) is restated.
//!
//! Its triggers are gone, so nobody knows what happened to it until they are back. What differs from what the log still
//! tells becomes restated ops, the weakest of writes (`merge/restated.rs`); a row that is as it was makes none. Of rows that
//! are settled the sums of runs tell whether they are as they were (`differences.rs`): the group has all rows of a run that
//! differs in a *span*, of which it says that all else is gone.

use std::sync::Arc;

use packmule_core::wire::{FrameFlags, Mode, OpKind, Span};
use rusqlite::{Row, params_from_iter};

use crate::engine::capture::differences::{self, What};
use crate::engine::capture::groups::{self, SealReport};
use crate::engine::capture::ops::{self, Change, CounterChange, RowReader};
use crate::engine::capture::{held, runs};
use crate::engine::error::Result;
use crate::engine::fleet::{peers, positions};
use crate::engine::log::writer::{self, GroupWriter};
use crate::engine::merge::heads::{self, Seen};
use crate::engine::merge::{counters, versions};
use crate::engine::store::meta;
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// Restates a table. `added` are the columns that it did not have before; of those `unshown` nothing is said of rows of which
/// the log tells: what others wrote into them is still to be shown. Within the open transaction. The caller works off the
/// deferred queue, once all is sealed that the application wrote: a row is not composed from its versions before.
pub(crate) fn restate(
    replica: &Replica,
    tid: i64,
    added: &[String],
    unshown: &[String],
) -> Result<SealReport> {
    let table = catalog::table(replica, tid)?;
    // What becomes of an append table that is made anew is told by its mark (`append.rs`).
    if table.state != State::Tracked || table.def.append {
        return Ok(SealReport::default());
    }
    if peers::is_rolled_back(replica)? {
        held::restate_later(replica, tid)?;
        return Ok(SealReport::default());
    }
    differences::list(replica, &table, added, unshown)?;
    let any =
        "SELECT EXISTS (SELECT 1 FROM temp._pm_restate) OR EXISTS (SELECT 1 FROM temp._pm_restate_span)";
    if !replica.db.query_row(any, [], |row| row.get::<_, bool>(0))? {
        return Ok(SealReport::default());
    }
    let stream = groups::stream_of(&table);
    let lamport = positions::next_lamport(replica)?;
    let mut buf = writer::frame_memory(replica);
    let mut group = writer::begin_group(replica, stream, FrameFlags::RESTATED, lamport, 0, &mut buf)?;
    groups::tell_definition(replica, &table, &mut group)?;
    let spans = write_spans(replica, &table, &mut group)?;
    write_group(replica, &table, &mut group)?;
    notice_of_restating(replica, &table)?;
    let report = SealReport { frames: group.frames + 1, ops: group.ops };
    let position = group.finish()?;
    positions::set_position(replica, replica.me, stream, position)?;
    if spans > 0 {
        runs::refresh(replica, &table)?;
    }
    Ok(report)
}

/// Writes the spans into the group. Returns how many.
fn write_spans(replica: &Replica, table: &Table, group: &mut GroupWriter<'_>) -> Result<u64> {
    let mut list = replica.db.prepare("SELECT first, last FROM temp._pm_restate_span ORDER BY n")?;
    let mut listed = list.query([])?;
    let mut spans = 0;
    while let Some(span) = listed.next()? {
        let [from, to] = [0, 1].map(|at| span.get::<_, Vec<u8>>(at));
        group.span(&Span { def: table.def_id, from: &from?, to: &to? })?;
        spans += 1;
    }
    Ok(spans)
}

/// Writes what is listed into the group.
fn write_group(replica: &Replica, table: &Arc<Table>, group: &mut GroupWriter<'_>) -> Result<()> {
    let reader = RowReader::new(replica, table);
    let mut list = replica.db.prepare("SELECT key, what, columns FROM temp._pm_restate ORDER BY n")?;
    let mut listed = list.query([])?;
    let mut select = replica.db.prepare_cached(&table.select_sql(&reader.columns("")))?;
    while let Some(entry) = listed.next()? {
        let (key, what): (Vec<u8>, i64) = (entry.get(0)?, entry.get(1)?);
        let columns = entry.get::<_, Option<Vec<u8>>>(2)?.map(|bytes| Columns::of_bytes(&bytes));
        let values = value::read_key(&key)?;
        let heads = match table.def.mode {
            Mode::Shared => heads::heads(replica, table.tid, &key)?,
            Mode::PerDevice => Vec::new(),
        };
        let borrowed: Vec<_> = values.iter().map(OwnedValue::borrow).collect();
        if what == What::Written as i64 {
            let claim = keeps_claim(table, columns.as_ref()).then(|| versions::claim_of(table, &heads));
            let kind = if columns.is_some() { OpKind::Update } else { OpKind::Insert };
            let mut change = Change { kind, claim, columns, heads: Some(heads), ..Change::default() };
            let mut found = select.query(params_from_iter(borrowed.iter().map(|v| Bind(*v))))?;
            if let Some(row) = found.next()? {
                change.counted = counted(table, row, change.columns.as_ref())?;
                ops::seal_row(replica, &reader, group, row, &change, &Seen::All)?;
            }
        } else if what == What::Gone as i64 {
            let change = Change { kind: OpKind::Delete, heads: Some(heads), ..Change::default() };
            ops::seal_delete(replica, &reader, group, &borrowed, &change, &Seen::All)?;
        } else {
            let kind = if what == What::Same as i64 { OpKind::Keep } else { OpKind::Update };
            ops::seal_unsaid(replica, table, group, &borrowed, kind)?;
        }
    }
    Ok(())
}

/// Returns what an op of some columns of a row says of counters among them: what they are.
fn counted(table: &Table, row: &Row<'_>, columns: Option<&Columns>) -> Result<Vec<CounterChange>> {
    let Some(columns) = columns else { return Ok(Vec::new()) };
    let counters = table.counters.iter().copied().filter(|at| columns.contains(*at));
    let counted = counters.map(|column| {
        let before = OwnedValue::of(value::from_sql(row.get_ref(column)?))?;
        Ok(CounterChange { column, carried: counters::carried_absolute(&before)?, before })
    });
    counted.collect()
}

/// Makes a notice that a table was rebuilt, if any row of it may differ.
fn notice_of_restating(replica: &Replica, table: &Table) -> Result<()> {
    let rows: u64 = replica.db.query_row(
        "SELECT count(*) FROM temp._pm_restate WHERE what <> ?1",
        [What::Same as i64],
        |row| row.get(0),
    )?;
    // Nobody else writes to a per-device table.
    if rows == 0 || table.def.mode == Mode::PerDevice {
        return Ok(());
    }
    let what = format!(
        "table `{}` was rebuilt here: {rows} of its rows may have changed at that moment or until the next seal; \
         where other devices wrote to the same rows meanwhile, theirs hold",
        table.def.name
    );
    meta::notice(&replica.db, &what, replica.now())
}

/// Returns whether a row keeps its claim to its unique values: none of their columns differs.
fn keeps_claim(table: &Table, columns: Option<&Columns>) -> bool {
    let Some(columns) = columns.filter(|_| table.unique) else { return false };
    !table.def.uniques.iter().flatten().any(|at| columns.contains(usize::from(*at)))
}
