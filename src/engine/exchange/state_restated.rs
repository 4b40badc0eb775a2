//! Groups of a state that restate a table, as far as they are news here: the rows that they leave out.
//!
//! Of such rows a state says nothing where its maker had them settled: they are not there. And who wrote a part of a row
//! has to write the whole of it again, since the author of the group has lost the rest (`apply/restated.rs`). Both are
//! in the groups, which come with the state unless they are folded: then everybody that is known has seen them.

use std::collections::HashMap;

use packmule_core::model::Stream;
use packmule_core::wire::{FrameFlags, OpKind};

use crate::engine::apply::groups;
use crate::engine::apply::restated::{self, Restating, Spans};
use crate::engine::error::Result;
use crate::engine::fleet::devices;
use crate::engine::fleet::positions;
use crate::engine::log::visit::{self, Part};
use crate::engine::log::{contexts, frames};
use crate::engine::merge::heads::{self, Seen};
use crate::engine::merge::late;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The rows of which something stays that the author of a restating group had not seen.
const TEMP: &str = "
    CREATE TEMP TABLE IF NOT EXISTS _pm_their_loss (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
    DELETE FROM temp._pm_their_loss;
";

/// Makes room for the rows that restating groups of a state leave out.
pub(super) fn begin(replica: &Replica) -> Result<()> {
    Ok(replica.db.execute_batch(TEMP)?)
}

/// Applies what the restating groups of one device leave out, of a state whose rows have come: those after what this device
/// `had` of the stream and what the maker has `folded`, up to what the maker had: what waits here beyond that nobody has
/// applied. Before its positions and contexts are taken over. Rows go
/// only where this device `saw` all that is settled there. Returns how many.
pub(super) fn apply(
    replica: &Replica,
    dev: i64,
    (had, folded, up_to): (u64, u64, u64),
    saw: bool,
) -> Result<u64> {
    let stream = Stream::Shared;
    let mut context: HashMap<i64, u64> = positions::context_of(replica, dev, stream)?.into_iter().collect();
    let sql = "SELECT first, last FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last > ?3 AND last <= ?4
               ORDER BY last";
    let mut statement = replica.db.prepare(sql)?;
    let mut groups = statement.query((dev, stream.number(), had, up_to))?;
    let mut removed = 0;
    while let Some(group) = groups.next()? {
        let (first, last): (u64, u64) = (group.get(0)?, group.get(1)?);
        let body = frames::frame_here(replica, dev, stream, first)?;
        let frame = frames::parse(&body)?;
        for (id, seen) in contexts::context(replica, dev, stream, &frame)? {
            context.insert(devices::device_number_or_new(replica, id)?, seen);
        }
        if last <= folded || !frame.head.flags.has(FrameFlags::RESTATED) {
            continue;
        }
        let late = late::first_unseen(replica, dev, &context)?;
        groups::see_settled(&mut context, late);
        let by = Restating { dev, last, seen: &Seen::Context(&context), late };
        removed += apply_group(replica, (first, last), saw, &by)?;
    }
    Ok(removed)
}

/// Applies what a group leaves out.
fn apply_group(replica: &Replica, (first, last): (u64, u64), saw: bool, by: &Restating<'_>) -> Result<u64> {
    let mut spans = Spans::default();
    for seq in first..=last {
        let body = frames::frame_here(replica, by.dev, Stream::Shared, seq)?;
        visit::visit_defined(replica, &frames::parse(&body)?, |part| {
            match part {
                Part::Span(span) => spans.take_down(replica, &span)?,
                Part::Op(def, op) => {
                    let table = catalog::table(replica, def.tid)?;
                    let key = def.key_of(op.values(def.shape()))?;
                    spans.note(replica, table.tid, &key)?;
                    if !table.shows_shared() {
                        return Ok(());
                    }
                    if restated::is_lacking(def, &op) {
                        restated::give_again(replica, &table, &key, None)?;
                    } else if op.head.kind == OpKind::Delete {
                        keeps_unseen(replica, &table, &key, by)?;
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
    }
    let mut removed = 0;
    while let Some((def, from, to)) = spans.take(replica)? {
        let def = catalog::op_def(replica, def)?;
        let writer = groups::writer(replica, Stream::Shared, &def, by.dev)?;
        if writer.same_key && writer.table.shows_shared() {
            let stays = |table: &Table, key: &[u8]| {
                Ok(keeps_unseen(replica, table, key, by)? || !saw || is_there(replica, table, key)?)
            };
            removed += restated::remove_left_out(replica, &writer, (&from, &to), by, &stays)?;
        }
    }
    Ok(removed)
}

/// Returns whether a row has a version that the author of a restating group had not seen. If so, notes that its author has
/// lost the rest, and gives it that again.
fn keeps_unseen(replica: &Replica, table: &Table, key: &[u8], by: &Restating<'_>) -> Result<bool> {
    if !heads::all_heads(replica, table.tid, key)?.iter().any(|head| by.is_unseen(head)) {
        return Ok(false);
    }
    let sql = "INSERT OR IGNORE INTO temp._pm_their_loss (tid, key) VALUES (?1, ?2)";
    replica.db.prepare_cached(sql)?.execute((table.tid, key))?;
    restated::give_again(replica, table, key, Some(by))?;
    Ok(true)
}

/// Returns whether the maker has a row, or versions of it that are still to be merged.
fn is_there(replica: &Replica, table: &Table, key: &[u8]) -> Result<bool> {
    let sql = "SELECT 1 FROM temp._pm_their_key WHERE tid = ?1 AND key = ?2
               UNION ALL SELECT 1 FROM temp._pm_their_head WHERE tid = ?1 AND key = ?2 LIMIT 1";
    Ok(value::maybe::<i64>(&replica.db, sql, (table.tid, key))?.is_some())
}

/// Returns whether the author of a restating group lost a row of which something stays here: that is the row, with all that
/// it was.
pub(super) fn is_kept(replica: &Replica, table: &Table, key: &[u8]) -> Result<bool> {
    let sql = "SELECT 1 FROM temp._pm_their_loss WHERE tid = ?1 AND key = ?2";
    Ok(value::maybe::<i64>(&replica.db, sql, (table.tid, key))?.is_some())
}
