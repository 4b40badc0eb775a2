//! Adds a version to the heads of a row, and removes those that it dominates.
//!
//! `apply/groups.rs` states what holds of the heads, and why it is enough to compare a new version with them alone.

use std::borrow::Cow;

use packmule_core::merge::dominates;
use packmule_core::model::DeviceId;
use packmule_core::wire::OpKind;

use crate::engine::error::Result;
use crate::engine::merge::heads::{self, Head, Seen};
use crate::engine::merge::{deferred, restated, unread, written};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// Records a new version of a row, and what it leaves of those that it dominates. `old` are the heads before.
///
/// Returns whether the version can be written to its table as it is. If not, the row goes to the deferred queue.
pub(crate) fn register(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    new: &Head,
    old: &[Head],
    seen: &Seen<'_>,
) -> Result<bool> {
    let (tid, n) = (table.tid, table.def.columns.len());
    if new.weak {
        return restated::register_restated(replica, table, key, new, seen);
    }
    let overrules = old.iter().any(|head| head.weak);
    let mut old = Cow::Borrowed(old);
    if overrules {
        // With what the restated ones hide.
        old = heads::all_heads(replica, tid, key)?.into();
        restated::overrule(replica, table, key, new, &old)?;
    }
    // Mostly the row is new.
    let mine = if old.is_empty() { Columns::default() } else { new.live(n) };
    let context_free = matches!(seen, Seen::ContextFree);
    let mut left = Vec::new();
    for head in old.iter().filter(|head| !head.weak) {
        if seen.keeps(head) || !dominates(new.author, context_free, &head.version(), seen.of(head.dev)) {
            left.push((head.kind, head.live(n)));
            continue;
        }
        let rest = match new.columns {
            Some(_) if new.kind != OpKind::Delete && matches!(seen, Seen::Verdict(..)) => {
                left_beside_verdict(table, head, new)
            }
            Some(_) if new.kind != OpKind::Delete => head.live(n).minus(&mine),
            _ => Columns::default(),
        };
        if unread::leave(replica, table, key, (head, &rest), new)? {
            if new.claim < head.claim {
                written::lower_claim(replica, tid, key, head, new.claim)?;
            }
            left.push((head.kind, rest));
        }
    }
    if overrules || !left.is_empty() {
        written::insert_head(replica, tid, key, new)?;
    } else {
        written::insert_only_head(replica, table, key, new)?;
    }
    // A version of other columns than these can stand beside it.
    let disjoint = |(kind, columns): &(OpKind, Columns)| *kind != OpKind::Delete && !columns.meets(&mine);
    let alone = left.is_empty() || (new.kind != OpKind::Delete && left.iter().all(disjoint));
    if !alone
        || overrules
        || (old.len() > 1 && !left.is_empty())
        || deferred::is_quarantined(replica, tid, key)?
    {
        deferred::defer(replica, tid, key)?;
        return Ok(false);
    }
    if old.len() > 1 {
        replica
            .db
            .prepare_cached("DELETE FROM _pm_conflict WHERE tid = ?1 AND key = ?2")?
            .execute((tid, key))?;
    }
    Ok(true)
}

/// Returns of what columns a version still speaks after a verdict that says some. What is counted stands by itself: of
/// counters a verdict leaves no version.
pub(crate) fn left_beside_verdict(table: &Table, head: &Head, new: &Head) -> Columns {
    let n = table.def.columns.len();
    head.live(n).minus(&new.live(n)).minus(&table.counters.iter().copied().collect())
}

/// Removes the heads that a verdict says are gone, of a row of which it has no version of its own. Returns those that
/// were removed, and how many are left.
pub(crate) fn remove_gone(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    author: DeviceId,
    old: &[Head],
    seen: &Seen<'_>,
) -> Result<(Vec<Head>, usize)> {
    let gone =
        |head: &&Head| !seen.keeps(head) && dominates(author, false, &head.version(), seen.of(head.dev));
    let removed: Vec<Head> = old.iter().filter(gone).cloned().collect();
    for head in &removed {
        written::forget_head(replica, table.tid, key, head)?;
    }
    let left = old.len() - removed.len();
    Ok((removed, left))
}
