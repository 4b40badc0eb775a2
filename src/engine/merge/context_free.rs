//! Context-free writes: rows of a table from before it was tracked, or that were written while it was suspended. Their
//! author did not take into account what others wrote, or what they wrote since its table was suspended.
//!
//! **Rule.** Such a write is one by an author that had seen nothing but its own versions: it dominates these alone. All
//! that others wrote stays beside it, whether the author had heard of it or not; values of a counter too: it is an
//! absolute value, and additions of others count on top. Equal contents are one version, as everywhere. If the frame names
//! runs of frames, the author had seen all of its context but for these, and what came after them
//! (`capture/suspended.rs`).
//!
//! **Invariant.** So the heads of a row are a function of the set of frames, as with every write. Nothing of it hangs on
//! what the row shows, nor on what its definition is when the write comes.
//!
//! **What is folded.** A settled row has no heads: the write meets it as a late one does (`late.rs`), though its author may
//! have heard all of the fold, and a verdict says what was settled. It does not meet so what its author alone wrote. It may
//! seem that a write whose content equals what is settled needs no verdict, since nothing is lost. But who has not
//! folded has the settled version, with its time, and the winner among three can be another one then.

use packmule_core::model::Stream;
use packmule_core::wire::{KeptRun, OpKind};

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::{membership, positions};
use crate::engine::merge::folds::Fold;
use crate::engine::merge::heads::{self, Head, Kept, Vector};
use crate::engine::merge::{compose, counters, late, stretches, versions, written};
use crate::engine::store::key_list::KeyList;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Returns what counts as seen by the author of a context-free group, and the first fold here that has more than that.
/// Versions of its own count in any case. `but` is the group's context, and the frames in it that do not count.
pub(crate) fn seen_by(
    replica: &Replica,
    dev: i64,
    but: Option<(&Vector, &[Kept])>,
) -> Result<(Vector, Option<Fold>)> {
    let mut seen = Vector::new();
    if let Some((context, unseen)) = but {
        seen.clone_from(context);
        seen.remove(&BASELINE);
        for run in unseen {
            seen.entry(run.dev).and_modify(|seen| *seen = run.first.saturating_sub(1).min(*seen));
        }
    }
    let late = late::first_unseen(replica, dev, &seen)?;
    if late.is_none() && !membership::floors(replica)?.is_empty() {
        seen.insert(BASELINE, u64::MAX);
    }
    Ok((seen, late))
}

/// As [`seen_by`], of a group of this device: it has all that is here as its context.
pub(crate) fn seen_by_us(replica: &Replica, unseen: Option<&[KeptRun]>) -> Result<(Vector, Option<Fold>)> {
    let Some(runs) = unseen else { return seen_by(replica, replica.me, None) };
    let context = positions::context_of(replica, replica.me, Stream::Shared)?.into_iter().collect();
    seen_by(replica, replica.me, Some((&context, &heads::kept_here(replica, runs.iter().copied())?)))
}

/// Makes what waited for a table of rows that others have settled (`exchange/merge_waiting.rs`) settled values, of which a
/// verdict is to be written, where own rows meet it, or late writes that came meanwhile. `is_own` tells of which rows
/// context-free writes are to be sealed.
pub(crate) fn unplace_waiting(
    replica: &Replica,
    table: &Table,
    is_own: &dyn Fn(&[u8]) -> Result<bool>,
) -> Result<()> {
    each_remembered(replica, table.tid, &mut |key| {
        let heads = heads::all_heads(replica, table.tid, key)?;
        let Some(image) = heads.iter().find(|head| late::is_settled(head)) else { return Ok(()) };
        let n = table.def.columns.len();
        let meets = |other: &Head| {
            other.dev != BASELINE && (other.kind == OpKind::Delete || other.live(n).meets(&image.live(n)))
        };
        if heads.iter().any(meets) || is_own(key)? {
            unplace(replica, table, key, image)?;
        }
        Ok(())
    })
}

/// Has a verdict say of rows that this device wrote context-free what is settled here under these writes: their author had
/// seen that, and nobody here knows any more who wrote it. What no version speaks for is said by its value; all else that
/// is folded here is gone. `unseen` are the frames that do not count as seen.
pub(crate) fn unplace_under(
    replica: &Replica,
    table: &Table,
    keys: &KeyList<'_>,
    unseen: Option<&[KeptRun]>,
) -> Result<()> {
    let (_, late) = seen_by_us(replica, unseen)?;
    if late.is_none() {
        return Ok(());
    }
    let n = table.def.columns.len();
    keys.each_key(&mut |key| {
        let heads = heads::all_heads(replica, table.tid, key)?;
        if heads.iter().any(|head| head.dev == BASELINE) {
            return Ok(()); // A verdict says it in any case.
        }
        late::put_unplaced(replica, table.tid, key, 0, None)?;
        let counted = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
        if heads.iter().any(|head| head.kind == OpKind::Delete) {
            for base in counted.iter().filter(|entry| entry.is_base()) {
                counters::forget_entry(&replica.db, table.tid, key, base)?;
            }
            return Ok(());
        }
        let Some(row) = compose::row_of(replica, table, key)? else { return Ok(()) };
        let all = Columns::all(n).minus(&table.counters.iter().copied().collect());
        let columns = heads.iter().fold(all, |columns, head| columns.minus(&head.live(n)));
        let sums = table
            .counters
            .iter()
            .filter_map(|column| Some((*column, counters::settled_sum(&counted, *column, Some(&row))?)));
        late::keep_sums(replica, table, key, 1, sums.collect())?;
        if !columns.is_empty() {
            late::add_baseline(replica, table, key, 1, &row, &columns)?;
        }
        Ok(())
    })
}

/// Makes a row's settled value that waited one of which a verdict is to be written.
fn unplace(replica: &Replica, table: &Table, key: &[u8], image: &Head) -> Result<()> {
    let n = table.def.columns.len();
    let mut row = vec![OwnedValue::Null; n];
    for (column, value) in table.def.keys().zip(value::read_key(key)?) {
        row[column] = value;
    }
    let mut columns: Columns = table.def.keys().collect();
    for (column, value) in
        versions::read_baseline(replica, table, image.baseline.as_deref().unwrap_or_default())?
    {
        if image.live(n).contains(column) && !table.counters.contains(&column) {
            row[column] = value;
            columns.insert(column);
        }
    }
    let counted = counters::entries(&replica.db, "_pm_count", table.tid, key)?;
    let sums = table.counters.iter().filter_map(|column| {
        let base = counted.iter().find(|e| e.column == *column && e.is_base() && e.seq == 0)?;
        Some((*column, base.value.clone()))
    });
    late::keep_sums(replica, table, key, 1, sums.collect())?;
    written::forget_head(replica, table.tid, key, image)?;
    late::add_baseline(replica, table, key, 1, &row, &columns).map(|_| ())
}

/// Gives the keys of the rows of which versions are remembered; what is done with one may change what is.
pub(crate) fn each_remembered(
    replica: &Replica,
    tid: i64,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    KeyList::of_query(&replica.db, &stretches::heads_of_table(), [tid])?.each_key(each)
}
