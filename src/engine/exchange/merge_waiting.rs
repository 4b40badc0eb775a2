//! The rows of a state for a table that does not show them here: it is not tracked, or suspended.
//!
//! No table is tracked by arrival, and none of them holds up the rest of a state. What is settled there waits as the
//! baseline version of its row, as what frames bring waits in the log; `track` makes one of both.

use std::collections::HashMap;

use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::exchange::merge_settled::Folded;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::positions;
use crate::engine::merge::counters::{self, Entry};
use crate::engine::merge::heads::Head;
use crate::engine::merge::{late_held, restated, written};
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// What is known of a row here and at the maker.
pub(super) struct Waiting<'a> {
    pub replica: &'a Replica,
    pub table: &'a Table,
    pub key: &'a [u8],
    pub ours: Vec<Head>,
    pub theirs: Vec<Head>,
    /// What is applied here, and at the maker.
    pub had: &'a HashMap<i64, u64>,
    pub vector: &'a HashMap<i64, u64>,
    /// What is folded here, and there.
    pub folded: &'a (Folded, Folded),
    /// The maker had seen all that is settled here; this device all that is settled there.
    pub they_saw: bool,
    pub we_saw: bool,
}

/// Merges a row whose values at the maker are these. Returns whether anything changed.
pub(super) fn merge(row: &Waiting<'_>, maker: &TableDef, values: Option<&[OwnedValue]>) -> Result<bool> {
    let Waiting { replica, table, key, .. } = *row;
    let tid = table.tid;
    let new_to = |vector: &HashMap<i64, u64>, head: &Head| {
        head.dev != BASELINE && positions::lacks(vector, head.dev, head.seq)
    };
    let same = |a: &Head, b: &Head| (a.dev, a.seq) == (b.dev, b.seq);
    let was_settled = row.ours.is_empty() || row.ours.iter().any(|head| head.dev == BASELINE);
    // A suspended table has its settled rows, with what its application wrote to them since.
    let is_below_here =
        row.we_saw && table.state == State::Suspended && row.ours.iter().all(|head| head.dev != BASELINE);
    if row.we_saw && row.theirs.is_empty() && (is_below_here || !(row.they_saw && was_settled)) {
        return Ok(false);
    }
    let mut left: Vec<Head> = row
        .ours
        .iter()
        .filter(|head| {
            let known = row.theirs.iter().any(|other| same(head, other));
            known || new_to(row.vector, head) || (head.dev == BASELINE && !row.they_saw)
        })
        .filter_map(|head| match row.theirs.iter().find(|other| same(head, other)) {
            Some(other) => head.left_with(other, table.def.columns.len()),
            None => Some(head.clone()),
        })
        .collect();
    // A maker for which the rows wait as well has what is settled as baseline versions, and no rows.
    let settled = |head: &Head| head.dev == BASELINE && values.is_none() && !row.we_saw;
    // What is settled here gives way to what it is made of there.
    let gives_way = row.they_saw && !row.ours.is_empty() && row.ours.iter().all(|head| head.dev == BASELINE);
    let came = row.theirs.iter().filter(|head| settled(head) || gives_way || new_to(row.had, head));
    let came: Vec<Head> = came.filter(|head| !row.ours.iter().any(|o| same(o, head))).cloned().collect();
    // What is settled on one side under its versions is what a version says that the other side has still: in a held table,
    // and at a maker that shows the row.
    let is_settled = |head: &&Head, others: &[Head], had: &HashMap<i64, u64>| {
        !new_to(had, head) && !others.iter().any(|other| same(other, head))
    };
    if table.state == State::Suspended && row.they_saw && !came.is_empty() {
        let parts = row.theirs.iter().filter(|head| is_settled(head, &row.ours, row.had));
        left.extend(parts.filter_map(|head| row.folded.0.part(table, head, &row.ours)));
    }
    if values.is_some() && row.we_saw && !row.theirs.is_empty() {
        let parts = row.ours.iter().filter(|head| is_settled(head, &row.theirs, row.vector));
        left.extend(parts.filter_map(|head| row.folded.1.part(table, head, &row.theirs)));
    }
    left.extend(came);
    restated::meet(&mut left, &row.ours, &|head| new_to(row.vector, head), table.def.columns.len());
    for head in &row.ours {
        written::forget_head(replica, tid, key, head)?;
    }
    for head in &left {
        written::insert_head(replica, tid, key, head)?;
    }
    if let Some(values) = values.filter(|_| !is_below_here) {
        keep_settled(row, &left, maker, values)?;
    }
    if table.state == State::Suspended {
        let sql = "INSERT OR IGNORE INTO _pm_held (tid, key) VALUES (?1, ?2)";
        replica.db.prepare_cached(sql)?.execute((tid, key))?;
    }
    Ok(true)
}

/// Keeps the values at the maker as the baseline version of the row, for the columns of which no version speaks.
fn keep_settled(row: &Waiting<'_>, left: &[Head], maker: &TableDef, values: &[OwnedValue]) -> Result<()> {
    let Waiting { replica, table, key, .. } = *row;
    let n = table.def.columns.len();
    let whole = |head: &Head| head.columns.is_none() || head.kind == OpKind::Delete || head.dev == BASELINE;
    if left.iter().any(whole) {
        return Ok(());
    }
    // A suspended table has its rows: one that is the same needs no version.
    if left.is_empty() && table.state == State::Suspended && is_shown(row, maker, values)? {
        return Ok(());
    }
    let mut body = Vec::new();
    for (column, value) in maker.columns.iter().zip(values) {
        value::push_named(&mut body, &column.name, &value.borrow())?;
    }
    let speaks = left.iter().fold(Columns::all(n), |columns, head| columns.minus(&head.live(n)));
    let columns = Some(speaks).filter(|columns| *columns != Columns::all(n));
    written::insert_image(replica, table.tid, key, &Head::baseline(0, columns), &body)?;
    for (column, value) in maker.columns.iter().zip(values) {
        let Some(at) = table.def.column(&column.name).filter(|at| table.counters.contains(at)) else {
            continue;
        };
        let entry = Entry::of(at, &Head::baseline(0, None), 0, true, value.clone());
        counters::put_entry(&replica.db, table.tid, key, &entry)?;
    }
    Ok(())
}

/// Returns whether the table has the row with these values, by the names that its columns have now.
fn is_shown(row: &Waiting<'_>, maker: &TableDef, values: &[OwnedValue]) -> Result<bool> {
    let Some((shown, there)) = late_held::row_there(row.replica, row.table, row.key)? else {
        return Ok(false);
    };
    let same = |column: &str, value: &OwnedValue| {
        let at = row.table.def.column(column).filter(|at| there.contains(*at));
        at.is_some_and(|at| shown.get(at) == Some(value))
    };
    Ok(maker.columns.iter().zip(values).all(|(column, value)| same(&column.name, value)))
}
