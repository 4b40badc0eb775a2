//! Columns of which a version speaks, and that its table does not have here: they wait for the application.
//!
//! **Invariant.** A version that is dominated in all columns that are here stays a head, for no column, as long as it speaks
//! for one that waits and that no version after it speaks for. When the column comes, the head gets it
//! (`capture/follow.rs`). Such a head counts for nothing else.

use std::collections::BTreeSet;

use packmule_core::model::Stream;
use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::Head;
use crate::engine::merge::written;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

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

/// Returns the columns that a version speaks for and that wait here.
fn unread_in(replica: &Replica, table: &Table, head: &Head) -> Result<BTreeSet<String>> {
    // What this device writes has the columns that are here.
    if head.dev == BASELINE || head.dev == replica.me {
        return Ok(BTreeSet::new());
    }
    frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
        let names = op.values(def.shape()).map(|(at, _)| def.def.columns[at].name.to_ascii_lowercase());
        Ok(names.filter(|name| table.def.column(name).is_none()).collect())
    })
}
