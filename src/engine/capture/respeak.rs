//! Columns of versions, when a table's definition, or what is known of renamed columns, has become another one.
//!
//! **Invariant.** Afterwards each head of a row speaks for the columns for which it would have been a head, had the table
//! been what it is now when its version came.

use std::collections::{HashMap, HashSet};

use packmule_core::model::Stream;
use packmule_core::wire::{DefId, OpKind};

use crate::engine::error::Result;
use crate::engine::log::{contexts, frames};
use crate::engine::merge::heads::{self, Head};
use crate::engine::merge::{context_free, restated, stretches, unread, versions};
use crate::engine::table::columns::Columns;
use crate::engine::table::def::TableDef;
use crate::engine::table::dropped;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The columns of definitions from the log, by their places, that stand for no column of their table here.
pub(crate) type Unread = HashSet<(DefId, usize)>;

/// Gives the remembered versions of a table's rows the columns that they have in its definition now. `before` is the
/// definition by which they were recorded, `come` the columns of definitions that stood for none then.
pub(crate) fn respeak(replica: &Replica, table: &Table, before: &TableDef, come: &Unread) -> Result<()> {
    stretches::spread(replica, Some(table.tid))?;
    // What was written to a column of this name that was dropped does not come back.
    let mut since = HashMap::new();
    for column in table.def.columns.iter().filter(|c| before.column(&c.name).is_none()) {
        if let Some(from) = dropped::counts_from(replica, table.tid, &column.name)? {
            since.insert(column.name.as_str(), from);
        }
    }
    context_free::each_remembered(replica, table.tid, &mut |key| {
        let mut spoken = Vec::new();
        for head in heads::all_heads(replica, table.tid, key)? {
            if head.kind == OpKind::Delete || head.baseline.is_some() {
                continue;
            }
            let live = head.live(before.columns.len());
            let lamport = if since.is_empty() { 0 } else { versions::lamport_of(replica, &head)? };
            // These are the columns that the op carries, without those that were overwritten; and those that are new.
            let mut fresh = Columns::default();
            let columns: Columns =
                frames::op_at(replica, head.dev, Stream::Shared, head.seq, head.place, |def, op| {
                    let mut columns = Columns::default();
                    for (at, _) in op.values(def.shape()) {
                        let name = &def.def.columns[at].name;
                        let Some(here) = table.def.column(name) else { continue };
                        if since
                            .get(table.def.columns[here].name.as_str())
                            .is_some_and(|from| lamport < *from)
                        {
                            continue;
                        }
                        match before.column(name).filter(|_| !come.contains(&(def.id, at))) {
                            Some(before) if !live.contains(before) => continue,
                            Some(_) => {}
                            None => fresh.insert(here),
                        }
                        columns.insert(here);
                    }
                    Ok(columns)
                })?;
            let sql =
                "UPDATE _pm_head SET columns = ?5 WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4";
            let params = (table.tid, key, head.dev, head.seq, columns.as_bytes());
            replica.db.prepare_cached(sql)?.execute(params)?;
            spoken.push((Head { columns: Some(columns), ..head }, fresh));
        }
        overrule(replica, table, key, &spoken)
    })
}

/// Takes from the versions of a row, of the columns that are new of either of two, what another one says that takes it from
/// them: one that comes after; from a restated version one that its author had not seen. `spoken` are the versions with the
/// columns that each has now, and those of them that are new.
fn overrule(replica: &Replica, table: &Table, key: &[u8], spoken: &[(Head, Columns)]) -> Result<()> {
    let n = table.def.columns.len();
    let place = |head: &Head| (head.dev, head.seq);
    for (head, fresh) in spoken.iter().filter(|(head, _)| !restated::is_image(head)) {
        let mut rest = head.live(n);
        for (other, also) in spoken.iter().filter(|(other, _)| place(other) != place(head)) {
            let mut new = fresh.clone();
            new.extend(also);
            let taken = other.live(n).minus(&Columns::all(n).minus(&new));
            if !taken.meets(&rest) || (other.weak && !head.weak) {
                continue;
            }
            let takes = match head.weak && !other.weak {
                true => !contexts::comes_after(replica, place(head), place(other))?,
                false => contexts::comes_after(replica, place(other), place(head))?,
            };
            if takes {
                rest = rest.minus(&taken);
                unread::leave(replica, table, key, (head, &rest), other)?;
            }
        }
    }
    Ok(())
}
