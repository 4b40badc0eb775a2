//! What a base has gathered, as a state: for another base that was added late, and for an author that was set back.
//!
//! The frames of a per-device stream are folded once every base that is known has them. Its author can reissue the rows
//! that it still has (`capture/seal.rs`); a base has all of them, also those of an author that is dead.

use packmule_core::model::{DeviceId, Stream, Value};
use packmule_core::wire::Mode;
use rusqlite::params_from_iter;

use crate::engine::error::Result;
use crate::engine::exchange::records::RecordWriter;
use crate::engine::exchange::state_records::{RowsOf, state, write_rows};
use crate::engine::fleet::{devices, gaps, membership, positions, trust};
use crate::engine::log::frames;
use crate::engine::store::value::{self, Bind};
use crate::engine::table::catalog;
use crate::engine::table::known::{State, Table};
use crate::engine::table::replica::Replica;

/// A table of the log, and the table here in which its rows are gathered.
type Gathered = (std::sync::Arc<Table>, std::sync::Arc<Table>);

/// Lists the per-device tables of the log whose rows are gathered here. `None` if rows of one of them pend.
fn gathered_tables(replica: &Replica) -> Result<Option<Vec<Gathered>>> {
    let mut all = Vec::new();
    for table in catalog::tables(replica) {
        if table.def.mode != Mode::PerDevice || table.gathers.is_some() {
            continue;
        }
        let here = catalog::mirror_of(replica, table.tid).unwrap_or_else(|| table.clone());
        match here.state {
            State::Gathered => all.push((table, here)),
            State::Known | State::Untracked => return Ok(None),
            State::Tracked | State::Suspended => {} // This base's own, and nobody else has such rows.
        }
    }
    Ok(Some(all))
}

/// Returns whether what is gathered here stands for frames of a per-device stream after `have` that are not in the log
/// any more.
pub(crate) fn stands_for(replica: &Replica, dev: i64, have: u64) -> Result<bool> {
    if !replica.identity.base || dev == replica.me {
        return Ok(false);
    }
    if have >= positions::position(replica, dev, Stream::PerDevice)?.seq {
        return Ok(false);
    }
    let here: Option<i64> = value::maybe(
        &replica.db,
        "SELECT 1 FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND applied AND first <= ?3 + 1 AND last > ?3",
        (dev, Stream::PerDevice.number(), have),
    )?;
    Ok(here.is_none()
        && trust::is_base_by_fleet(replica, replica.me)?
        && frames::newest(&replica.db, dev, Stream::PerDevice)?.is_some()
        && gathered_tables(replica)?.is_some())
}

/// Returns whether a device is known to lack frames of a per-device stream that are not in the log any more, and for which
/// what is gathered here stands: another base, or the author.
pub(crate) fn is_wanted(replica: &Replica, dev: i64) -> Result<bool> {
    for peer in membership::active_bases(replica)?.into_iter().chain([dev]) {
        if stands_for(replica, dev, membership::has(replica, peer, dev, Stream::PerDevice)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes which tables are gathered here, with the columns that they have.
pub(super) fn write_tables(replica: &Replica, out: &mut RecordWriter<'_>) -> Result<()> {
    for (table, here) in gathered_tables(replica)?.unwrap_or_default() {
        let mut def = here.def.clone();
        def.name.clone_from(&table.def.name);
        let (_, body) = def.encode()?;
        state(out, "gathers", &[Value::Blob(&body)])?;
    }
    Ok(())
}

/// Writes what is gathered here of a device: up to where, with the proof, then its rows, then the keys of rows that it
/// deleted.
pub(super) fn write_gathered(replica: &Replica, out: &mut RecordWriter<'_>, dev: i64) -> Result<()> {
    let Some(checkpoint) = frames::newest(&replica.db, dev, Stream::PerDevice)? else { return Ok(()) };
    let id = devices::device_id(replica, dev)?;
    let position = positions::position(replica, dev, Stream::PerDevice)?;
    let stream = Value::Int(Stream::PerDevice.number().into());
    let author = Value::Blob(&id.0);
    let seq = Value::Int(position.seq as i64);
    if let Some(gap) = gaps::gap(replica, dev)? {
        let (had, up_to) = (Value::Int(gap.had.seq as i64), Value::Int(gap.up_to as i64));
        state(out, "gap", &[author, had, up_to, Value::Blob(&gap.had.chain.0)])?;
    }
    state(out, "stream", &[author, stream, seq, Value::Blob(&position.chain.0), Value::Blob(&checkpoint)])?;
    for (sql, kind) in [
        ("SELECT other, seq FROM _pm_context WHERE dev = ?1 AND stream = ?2 ORDER BY other", "context"),
        ("SELECT other, number FROM _pm_number WHERE dev = ?1 AND stream = ?2 ORDER BY number", "number"),
    ] {
        let mut all = replica.db.prepare_cached(sql)?;
        let mut rows = all.query((dev, Stream::PerDevice.number()))?;
        while let Some(row) = rows.next()? {
            let (other, n): (DeviceId, i64) = (devices::device_id(replica, row.get(0)?)?, row.get(1)?);
            let (other, n) = (Value::Blob(&other.0), Value::Int(n));
            let values =
                if kind == "context" { [author, stream, other, n] } else { [author, stream, n, other] };
            state(out, kind, &values)?;
        }
    }
    let label = devices::device_label(replica, dev)?;
    let tables = gathered_tables(replica)?.unwrap_or_default();
    for (table, here) in &tables {
        let of = RowsOf { from: &here.sql_name, name: Some(&table.def.name), label: Some(&label), key: None };
        write_rows(replica, out, here, "own", &of)?;
        let mut all = replica
            .db
            .prepare_cached("SELECT key, seq FROM _pm_gone WHERE dev = ?1 AND tid = ?2 ORDER BY key")?;
        let mut rows = all.query((dev, table.tid))?;
        while let Some(row) = rows.next()? {
            write_gone(replica, out, (table, here), &row.get::<_, Vec<u8>>(0)?, row.get(1)?, &label)?;
        }
    }
    // Those of frames that are not folded are listed nowhere.
    let mut in_log = replica
        .db
        .prepare_cached("SELECT seq FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq <= ?3")?;
    let mut rows = in_log.query((dev, Stream::PerDevice.number(), position.seq))?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        frames::each_deleted(replica, dev, seq, &mut |tid, key| match tables
            .iter()
            .find(|(table, _)| table.tid == tid)
        {
            Some((table, here)) => write_gone(replica, out, (table, here), &key, seq, &label),
            None => Ok(()),
        })?;
    }
    Ok(())
}

/// Writes the key of a row of a table that a device deleted in a frame, if it has not made the row again.
fn write_gone(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    (table, here): (&Table, &Table),
    key: &[u8],
    seq: u64,
    label: &str,
) -> Result<()> {
    let values = value::read_key(key)?;
    let label = std::iter::once(Value::Text(label.as_bytes()));
    let binds = label.chain(values.iter().map(|v| v.borrow())).map(Bind);
    if value::maybe::<i64>(&replica.db, &here.select_sql("1"), params_from_iter(binds))?.is_none() {
        let name = Value::Text(table.def.name.as_bytes());
        state(out, "gone", &[name, Value::Blob(key), Value::Int(seq as i64)])?;
    }
    Ok(())
}
