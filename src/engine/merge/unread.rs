//! Columns of which a version speaks, and that its table does not have here: they wait for the application.
//!
//! **Invariant.** A version that is dominated in all columns that are here stays a head, for no column, as long as it speaks
//! for one that waits and that no version after it speaks for. When the column comes, the head gets it
//! (`capture/follow.rs`). Such a head counts for nothing else. A column that the devices have dropped waits for nobody: a
//! version that speaks only for it is no head.

use std::collections::BTreeSet;

use packmule_core::model::Stream;
use packmule_core::wire::{DefId, OpKind};

use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{versions, written};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::{dropped, shapes};

/// Leaves of a version these columns after another one, or what waits for its column, or nothing. Returns whether it stays a
/// head.
pub(crate) fn leave(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (head, rest): (&Head, &Columns),
    over: &Head,
) -> Result<bool> {
    if !rest.is_empty() || is_nothing_left(replica, table, head, &mut std::iter::once(over))? {
        written::leave_columns(replica, table.tid, key, head, rest)?;
        return Ok(!rest.is_empty());
    }
    written::leave_nothing_yet(replica, table.tid, key, head)?;
    Ok(true)
}

/// Returns whether nothing is left of a version after others: neither of the columns that are here nor of those that wait.
/// `over` are the versions that take its columns.
pub(crate) fn is_nothing_left(
    replica: &Replica,
    table: &Table,
    head: &Head,
    over: &mut dyn Iterator<Item = &Head>,
) -> Result<bool> {
    if head.kind == OpKind::Delete || !catalog::lags(replica, table.tid)? {
        return Ok(true);
    }
    let mut unread = unread_in(replica, table, head)?;
    for other in over {
        if unread.is_empty() || other.kind == OpKind::Delete {
            return Ok(true);
        }
        let said = unread_in(replica, table, other)?;
        unread.retain(|name| !said.contains(name));
    }
    Ok(unread.is_empty())
}

/// Returns whether a table has versions that speak only for columns that wait.
pub(crate) fn any(replica: &Replica, tid: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM _pm_head WHERE tid = ?1 AND columns = x'' LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, [tid])?.is_some())
}

/// Returns whether a version has no columns but those that are here: it is settled, or is being sealed. What this device sealed
/// before a backup to which it was set back may have others.
fn has_columns_of_here(replica: &Replica, head: &Head) -> Result<bool> {
    let is_own = head.dev == replica.me;
    Ok(head.dev == BASELINE || is_own && !frames::is_here(replica, head.dev, Stream::Shared, head.seq)?)
}

/// Returns the columns that a version speaks for and that wait here.
fn unread_in(replica: &Replica, table: &Table, head: &Head) -> Result<BTreeSet<String>> {
    if has_columns_of_here(replica, head)? {
        return Ok(BTreeSet::new());
    }
    let mut names: BTreeSet<String> =
        frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
            let names = op.values(def.shape()).map(|(at, _)| def.def.columns[at].name.to_ascii_lowercase());
            Ok(names.filter(|name| table.def.column(name).is_none()).collect())
        })?;
    for name in names.clone() {
        let from = dropped::counts_from(replica, table.tid, &name)?;
        let before = |from| Ok::<_, Error>(versions::lamport_of(replica, head)? < from);
        if shapes::is_dropped(replica, table.tid, &name)? || from.map_or(Ok(false), before)? {
            names.remove(&name);
        }
    }
    Ok(names)
}

/// Forgets the versions of a table that speak for no column any more, now that these are gone from it. Those stay that say
/// something in a column, by its place in a definition, that `comes`: it is read otherwise from now on.
pub(crate) fn forget_idle(
    replica: &Replica,
    table: &Table,
    gone: &[String],
    comes: &dyn Fn(DefId, usize) -> bool,
) -> Result<()> {
    let sql =
        "SELECT DISTINCT tid, key FROM _pm_head WHERE tid = ?1 AND key > ?2 AND columns = x'' ORDER BY key";
    let is_gone = |name: &String| gone.iter().any(|gone| gone.eq_ignore_ascii_case(name));
    value::each_listed(&replica.db, sql, table.tid, &mut |_, key| {
        let idle =
            |head: &Head| head.kind != OpKind::Delete && head.columns.as_ref().is_some_and(Columns::is_empty);
        for head in heads::all_heads(replica, table.tid, key)?.iter().filter(|head| idle(head)) {
            if unread_in(replica, table, head)?.iter().all(is_gone) && !says(replica, head, comes)? {
                written::forget_head(replica, table.tid, key, head)?;
            }
        }
        Ok(())
    })
}

/// Returns whether a version says something in a column of its definition of this kind.
fn says(replica: &Replica, head: &Head, is_one: &dyn Fn(DefId, usize) -> bool) -> Result<bool> {
    if has_columns_of_here(replica, head)? {
        return Ok(false);
    }
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        Ok(op.values(def.shape()).any(|(at, _)| is_one(def.id, at)))
    })
}
