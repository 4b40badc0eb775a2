//! Rows that were written without regard to what their author had heard: those of a table before it
//! was tracked or held again, and those that a device brings along that starts from a snapshot.
//!
//! What the author had heard of such a row is one version to it: the row as it is shown, older than
//! what is remembered. Some devices have folded all of that away by then, and others not; so it is
//! gathered into one everywhere, that all list the same.

use packmule_core::model::Value;
use packmule_core::wire::{Op, OpKind, Shape};
use rusqlite::params_from_iter;
use sha2::{Digest, Sha256};

use crate::engine::error::Result;
use crate::engine::merge::heads::{self, Head, Seen};
use crate::engine::merge::{compose, deferred, versions};
use crate::engine::store::value::{self, Bind, OwnedValue};
use crate::engine::table::columns::Columns;
use crate::engine::table::known::{OpDef, Table};
use crate::engine::table::replica::Replica;

/// Gathers the versions of a row that the author of a blind op had heard of.
pub(crate) fn meet_blind_op(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    def: &OpDef,
    op: &Op<'_>,
) -> Result<()> {
    let row = compose::shown_row(replica, table, key)?;
    let mut differs = op.head.kind == OpKind::Delete;
    for (at, value) in op.values(Shape { keys: &def.key_flags }) {
        let (Some(column), Some(row)) = (table.def.column(&def.def.columns[at].name), &row) else {
            continue;
        };
        if table.waiting.contains(column) {
            continue;
        }
        differs |= match value {
            Value::Big(big) => {
                let (text, bytes) = match &row[column] {
                    OwnedValue::Text(bytes) => (true, &bytes[..]),
                    OwnedValue::Blob(bytes) => (false, &bytes[..]),
                    _ => (!big.text, &[][..]),
                };
                text != big.text || <[u8; 32]>::from(Sha256::digest(bytes)) != big.sha256
            }
            value => value != row[column].borrow(),
        };
    }
    gather_heard(replica, table, key, heard, row.filter(|_| differs))
}

/// Gathers the versions of a row that were heard of into one of these values, or into none.
pub(crate) fn gather_heard(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    row: Option<Vec<OwnedValue>>,
) -> Result<()> {
    let contested = "SELECT 1 FROM _pm_conflict WHERE tid = ?1 AND key = ?2";
    if deferred::is_parked(replica, table.tid, key)?
        || value::maybe::<i64>(&replica.db, contested, (table.tid, key))?.is_some()
    {
        return Ok(()); // Nobody has folded that away.
    }
    let heads = heads::heads(replica, table.tid, key)?;
    let known = |h: &Head| h.dev != 0 && heard.of(h.dev) >= h.seq;
    let all_known = heads.iter().all(|h| h.dev == 0 || known(h));
    let (gathered, left): (Vec<Head>, Vec<Head>) =
        heads.into_iter().partition(|h| known(h) || (h.dev == 0 && all_known));
    for head in &gathered {
        replica
            .db
            .prepare_cached("DELETE FROM _pm_head WHERE tid = ?1 AND key = ?2 AND dev = ?3 AND seq = ?4")?
            .execute((table.tid, key, head.dev, head.seq))?;
    }
    gather_counters(replica, table, key, heard, row.as_deref())?;
    let Some(row) = row else { return Ok(()) };
    let n = table.def.columns.len();
    let speaks = left.iter().fold(Columns::all(n), |columns, head| columns.minus(&head.live(n)));
    if speaks.is_empty() || left.iter().any(|h| h.dev == 0) {
        return Ok(());
    }
    remember_row(replica, table, key, &row, Some(speaks).filter(|columns| *columns != Columns::all(n)))
}

/// Makes values of a row a version that is older than all that are remembered.
fn remember_row(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    row: &[OwnedValue],
    columns: Option<Columns>,
) -> Result<()> {
    let mut body = Vec::new();
    for (at, (column, value)) in table.def.columns.iter().zip(row).enumerate() {
        if !table.waiting.contains(at) {
            body.extend(value::encode(&Value::Text(column.name.as_bytes()))?);
            body.extend(value::encode(&value.borrow())?);
        }
    }
    replica
        .db
        .prepare_cached("INSERT OR REPLACE INTO _pm_image (tid, key, body) VALUES (?1, ?2, ?3)")?
        .execute((table.tid, key, body))?;
    replica.db
        .prepare_cached(
            "INSERT INTO _pm_head (tid, key, dev, seq, place, claim, wall, kind, columns) VALUES (?1, ?2, 0, 0, 0, 0, ?3, 1, ?4)",
        )?
        .execute((table.tid, key, i64::MIN, columns.as_ref().map(Columns::as_bytes)))?;
    Ok(())
}

/// What was heard of counters is one value: what they show, without what came since.
fn gather_counters(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    heard: &Seen<'_>,
    row: Option<&[OwnedValue]>,
) -> Result<()> {
    for column in table.counters.iter().copied() {
        let counted = replica
            .db
            .prepare_cached(
                "SELECT dev, seq, absolute, value FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3",
            )?
            .query_map((table.tid, key, column as i64), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<rusqlite::Result<Vec<(i64, u64, bool, i64)>>>()?;
        let (known, since): (Vec<_>, Vec<_>) =
            counted.into_iter().partition(|(dev, seq, ..)| heard.of(*dev) >= *seq);
        if since.iter().any(|(_, _, absolute, _)| *absolute) {
            continue;
        }
        for (dev, seq, ..) in known {
            replica.db
                .prepare_cached(
                    "DELETE FROM _pm_count WHERE tid = ?1 AND key = ?2 AND col = ?3 AND dev = ?4 AND seq = ?5",
                )?
                .execute((table.tid, key, column as i64, dev, seq))?;
        }
        let Some(OwnedValue::Int(shown)) = row.map(|row| &row[column]) else { continue };
        let base = since.iter().fold(*shown, |base, (.., added)| base.wrapping_sub(*added));
        replica.db
            .prepare_cached(
                "INSERT OR REPLACE INTO _pm_count (tid, key, col, dev, seq, absolute, value) VALUES (?1, ?2, ?3, 0, 0, 1, ?4)",
            )?
            .execute((table.tid, key, column as i64, base))?;
    }
    Ok(())
}

/// Before rows of our own are told blindly, of a table that others wrote to while it was not
/// shown here: what we heard of those rows is one version, as it is everywhere else.
pub(crate) fn gather_unshown(replica: &Replica, table: &Table, keys: &[Vec<u8>]) -> Result<()> {
    for key in keys {
        let own = compose::shown_row(replica, table, key)?;
        let heads = heads::heads(replica, table.tid, key)?;
        let judgement = versions::judge_versions(replica, table, &heads)?;
        if judgement.open || heads.is_empty() {
            continue;
        }
        let mut row = None;
        if judgement.present {
            let changes: Vec<_> = own.iter().flatten().cloned().enumerate().collect();
            if own.is_some() {
                compose::make_limbo_row(replica, table, key, &changes)?;
            }
            compose::compose(replica, table, key, &heads, &judgement)?;
            row = limbo_row(replica, table, key)?;
            compose::delete_from(replica, &table.limbo(), table, key)?;
        }
        gather_heard(replica, table, key, &Seen::All, row.filter(|row| own.as_ref() != Some(row)))?;
    }
    Ok(())
}

fn limbo_row(replica: &Replica, table: &Table, key: &[u8]) -> Result<Option<Vec<OwnedValue>>> {
    let keys = value::read_key(key)?;
    let sql =
        format!("SELECT {} FROM {} WHERE {}", table.column_list(), table.limbo(), table.key_match_from(0));
    let mut statement = replica.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(keys.iter().map(|v| Bind(v.borrow()))))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let values = (0..table.def.columns.len()).map(|at| OwnedValue::of(value::from_sql(row.get_ref(at)?)));
    values.collect::<Result<_>>().map(Some)
}

/// The rows of which versions are remembered.
pub(crate) fn remembered_keys(replica: &Replica, tid: i64) -> Result<Vec<Vec<u8>>> {
    let mut statement = replica.db.prepare_cached("SELECT DISTINCT key FROM _pm_head WHERE tid = ?1")?;
    Ok(statement.query_map([tid], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
