//! Restated versions: what an application wrote when it made a table anew, or left out, of which nothing was noted.
//!
//! They are the weakest of writes. Each is a version like any other, but that it loses, without a word, to every version
//! that its author had not seen; where it loses, all is as if it had never been.
//!
//! **Invariant.** `_pm_head` has the heads that there would be without restated versions, and besides, of each restated
//! version that no other restated one dominates, the columns of which its author had seen all that those heads say. In
//! these columns it hides them (`heads`); two that are concurrent are like other versions there, but are never
//! in conflict, and one that deletes the row hides all others. One of a part of a row has none of the key's columns: of two
//! versions of the row that are in conflict it hides no more than what it says.
//!
//! **Why it holds.** A new version that is not restated is seen by no restated one that is here, so it takes its columns
//! from all of them, whether it has seen them or not. A new restated version takes its columns from those that it has
//! seen, and has only the columns of which no head that it has not seen speaks. Both only compare contexts, and columns
//! are only taken away: so what is left is a function of the set of versions.

use packmule_core::merge::dominates;
use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::heads::{self, Head, Seen};
use crate::engine::merge::{compose, deferred, unread, versions, written};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Takes from the restated versions of a row what a new version says, which is not restated.
pub(crate) fn overrule(replica: &Replica, table: &Table, key: &[u8], new: &Head, old: &[Head]) -> Result<()> {
    let n = table.def.columns.len();
    for head in old.iter().filter(|head| head.weak) {
        let partial = new.kind != OpKind::Delete && new.columns.is_some() && head.kind != OpKind::Delete;
        let rest = if partial { head.live(n).minus(&new.live(n)) } else { Columns::default() };
        if head.kind == OpKind::Delete && new.kind != OpKind::Delete {
            bring_back(replica, table, key, head)?;
        }
        unread::leave(replica, table, key, (head, &rest), new)?;
    }
    Ok(())
}

/// Makes the row of a restated delete as it was, below what its versions say: it counts as never deleted.
fn bring_back(replica: &Replica, table: &Table, key: &[u8], head: &Head) -> Result<()> {
    let mut last = versions::values(replica, table, head)?;
    last.retain(|(column, _)| !table.leaves(*column));
    if last.is_empty() || deferred::is_quarantined(replica, table.tid, key)? {
        return Ok(());
    }
    compose::make_quarantined_row(replica, table, key, &last)
}

/// Registers a restated version. Returns whether it can be written to its table as it is; one that is lost cannot.
pub(crate) fn register_restated(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    new: &Head,
    seen: &Seen<'_>,
) -> Result<bool> {
    let (tid, n) = (table.tid, table.def.columns.len());
    let old = heads::all_heads(replica, tid, key)?;
    let had_seen =
        |head: &Head| is_image(head) || dominates(new.author, false, &head.version(), seen.of(head.dev));
    let unseen = old.iter().filter(|head| !head.weak && !had_seen(head));
    let delete = new.kind == OpKind::Delete;
    let mut mine = if delete { Columns::all(n) } else { new.live(n) };
    if new.kind == OpKind::Update {
        // Of a part of a row it says nothing of the row: who disputes the rest of it does so still.
        mine = mine.minus(&table.def.keys().collect());
    }
    let whole = mine.clone();
    for head in unseen {
        if delete || head.kind == OpKind::Delete {
            return Ok(false);
        }
        mine = mine.minus(&head.live(n));
    }
    let says = table.def.columns.iter().enumerate().any(|(at, column)| column.key == 0 && mine.contains(at));
    let only_key = table.def.columns.iter().all(|column| column.key > 0);
    if mine.is_empty() || !(says || only_key || delete) {
        let mut over = old.iter().filter(|head| !head.weak && !had_seen(head));
        if !unread::is_nothing_left(replica, table, new, &mut over)? {
            let columns = Some(Columns::default());
            written::insert_head(replica, tid, key, &Head { columns, ..new.clone() })?;
        }
        return Ok(false);
    }
    let mut beside = false;
    for head in old.iter().filter(|head| head.weak) {
        if had_seen(head) {
            if head.kind == OpKind::Delete && new.kind == OpKind::Update {
                bring_back(replica, table, key, head)?;
                beside = true;
            }
            let rest = if delete { Columns::default() } else { head.live(n).minus(&whole) };
            unread::leave(replica, table, key, (head, &rest), new)?;
        } else {
            beside = true;
        }
    }
    let columns = if mine == new.live(n) { new.columns.clone() } else { Some(mine.clone()) };
    written::insert_head(replica, tid, key, &Head { columns, ..new.clone() })?;
    // A version of other columns than these can stand beside it. It has a claim of its own, too: whom the row keeps out may be
    // the earlier one now.
    let contested = table.unique && replica.quarantined.get();
    if beside || mine != whole || old.len() > 1 || contested || deferred::is_quarantined(replica, tid, key)? {
        deferred::defer(replica, tid, key)?;
        return Ok(false);
    }
    Ok(true)
}

/// Returns whether a version is what is kept of a row that a restating group left out: it gives way to whatever comes, since
/// the group has no version of the row.
pub(crate) fn is_image(head: &Head) -> bool {
    head.weak && head.dev == BASELINE
}

/// Takes from a restated version what versions say that its author had not seen, of a table with `n` columns. Returns
/// whether anything is left of it.
fn is_left(head: &mut Head, unseen: &[Head], n: usize) -> bool {
    let deleted = |a: &Head| a.kind == OpKind::Delete;
    let image = is_image(head);
    let unseen: Vec<&Head> =
        unseen.iter().filter(|other| !other.weak || (image && !is_image(other))).collect();
    if unseen.iter().any(|other| deleted(head) || deleted(other)) {
        return false;
    }
    let rest = unseen.iter().fold(head.live(n), |rest, other| rest.minus(&other.live(n)));
    if rest != head.live(n) {
        head.columns = Some(rest.clone());
    }
    deleted(head) || !rest.is_empty()
}

/// Takes from the restated versions among the heads of two sides what the other side has that their authors had not seen:
/// whoever has such a version alone had not either. `ours` are those that were here; `is_new` says which of them the other
/// side has not seen.
pub(crate) fn meet(left: &mut Vec<Head>, ours: &[Head], is_new: &dyn Fn(&Head) -> bool, n: usize) {
    if left.iter().all(|head| !head.weak) {
        return;
    }
    let new: Vec<Head> = ours.iter().filter(|head| is_new(head)).cloned().collect();
    let came: Vec<Head> = left.iter().filter(|head| !heads::is_in(ours, head)).cloned().collect();
    left.retain_mut(|head| {
        let unseen = if heads::is_in(ours, head) { &came } else { &new };
        !head.weak || is_left(head, unseen, n)
    });
}
