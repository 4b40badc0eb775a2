//! Writes to `_pm_head`, one version at a time, and to `_pm_image`. Heads in stretches: see `stretches.rs`.

use packmule_core::wire::Merge;

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::merge::heads::Head;
use crate::engine::merge::kind::Kind;
use crate::engine::merge::stretches;
use crate::engine::store::value;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;
use crate::engine::table::stretch::Stretch;

/// Leaves of a head these columns, or nothing.
pub(crate) fn leave_columns(
    replica: &Replica,
    tid: i64,
    key: &[u8],
    head: &Head,
    rest: &Columns,
) -> Result<()> {
    if rest.is_empty() {
        return forget_head(replica, tid, key, head);
    }
    if head.stretched {
        stretches::loosen(replica, tid, key)?;
    }
    replica
        .db
        .prepare_cached(
            "UPDATE _pm_head SET columns = ?5 WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4",
        )?
        .execute((tid, key, head.dev, head.seq, rest.as_bytes()))?;
    Ok(())
}

/// Has a head claim the row's unique values earlier: a later op says when its author knew the row to claim them. The author may
/// have folded the head, which is then as early as what is settled, and the row claims the same here.
pub(crate) fn lower_claim(replica: &Replica, tid: i64, key: &[u8], head: &Head, claim: u64) -> Result<()> {
    let sql =
        "UPDATE _pm_head SET claim = min(claim, ?5) WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4";
    replica.db.prepare_cached(sql)?.execute((tid, key, head.dev, head.seq, claim))?;
    Ok(())
}

/// Leaves of a head no column that is here: it speaks for one that waits.
pub(crate) fn leave_nothing_yet(replica: &Replica, tid: i64, key: &[u8], head: &Head) -> Result<()> {
    stretches::loosen(replica, tid, key)?;
    let sql = "UPDATE _pm_head SET columns = x'' WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4";
    replica.db.prepare_cached(sql)?.execute((tid, key, head.dev, head.seq))?;
    Ok(())
}

/// Removes a head.
pub(crate) fn forget_head(replica: &Replica, tid: i64, key: &[u8], head: &Head) -> Result<()> {
    if let Some(integer) = value::integer_key(key).filter(|_| head.stretched)
        && stretches::take_out(replica, tid, integer)?.is_some()
    {
        return Ok(());
    }
    replica
        .db
        .prepare_cached("DELETE FROM _pm_head WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4")?
        .execute((tid, key, head.dev, head.seq))?;
    Ok(())
}

/// Adds the one head of a row, to a stretch where it can be in one. The row has no other, not even a restated one.
pub(crate) fn insert_only_head(replica: &Replica, table: &Table, key: &[u8], new: &Head) -> Result<()> {
    let fits = table.def.merge == Merge::Row
        && table.counters.is_empty()
        && new.columns.is_none()
        && !new.weak
        && new.dev != BASELINE;
    let Some(key) = value::integer_key(key).filter(|_| fits) else {
        return insert_head(replica, table.tid, key, new);
    };
    let Head { dev, seq, claim, wall, kind, .. } = *new;
    stretches::add(replica, Stretch { tid: table.tid, first: key, last: key, dev, seq, claim, wall, kind })
}

/// Adds a head.
pub(crate) fn insert_head(replica: &Replica, tid: i64, key: &[u8], new: &Head) -> Result<()> {
    stretches::loosen(replica, tid, key)?;
    replica.stretches.loose.set(Some((tid, true)));
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_head (tid, key, dev, seq, place, claim, wall, kind, columns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            tid,
            key,
            new.dev,
            new.seq,
            new.place.number(),
            new.claim,
            new.wall,
            Kind(new.kind, new.weak),
            new.columns.as_ref().map(Columns::as_bytes),
        ))?;
    Ok(())
}

/// Adds a baseline version of a row with its values, in the place of those that were there.
pub(crate) fn insert_image(replica: &Replica, tid: i64, key: &[u8], new: &Head, body: &[u8]) -> Result<()> {
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO _pm_image (tid, key, body) VALUES (?1, ?2, ?3)")?
        .execute((tid, key, body))?;
    insert_head(replica, tid, key, new)
}
