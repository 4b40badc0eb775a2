//! State: what a device has of the shared tables, for who lacks frames that are folded here; and what a base has gathered
//! (`gathered_state`).
//!
//! It stands in a bundle after the certificates, or alone as a snapshot, and its maker's signature over all before it
//! closes it. Its rows are the maker's word; the frames that are still in flight are in it as their authors signed
//! them, so that the receiver takes part in conflicts from then on. `FORMAT.md` has the rows.
//!
//! Heads come before rows: who merges a row knows its versions then.
//!
//! **Partial.** Who has seen all of B as it was after some fold whose later ones are all listed (`merge/folds.rs`) gets only
//! the rows of these lists and those in flight; of a listed row that is gone, its key. All versions of the other rows are
//! within that B, which comes first, as a guard: who lacks any of it takes nothing of the state, and says in its next
//! bundle what it has. The whole goes to who has seen less than the lists reach back, a newcomer for instance; and as
//! a snapshot. Rows are looked up by their keys: the work is that of the rows that go.

use ed25519_compact::{Noise, SecretKey};
use packmule_core::model::{Stream, Value};
use packmule_core::wire::{Mode, RecordKind};
use sha2::Digest;

use crate::engine::error::Result;
use crate::engine::exchange::gathered_state;
use crate::engine::exchange::inspect::SEAL_DOMAIN;
use crate::engine::exchange::records::{self, RecordWriter};
use crate::engine::exchange::state_records::{RowsOf, state, write_changed_rows, write_rows};
use crate::engine::fleet::devices;
use crate::engine::log::tags;
use crate::engine::merge::folds;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;

/// Selects the rows of `_pm_` tables that travel, with devices by their ids and tables by their names.
const STATE: [(&str, &str); 10] = [
    ("lamport", "SELECT v FROM _pm_meta WHERE k = 'lamport'"),
    (
        "stream",
        "SELECT d.id, s.stream, s.seq, s.chain, coalesce(g.checkpoint, n.checkpoint) FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev
         LEFT JOIN _pm_group g ON g.dev = s.dev AND g.stream = s.stream AND g.last = s.seq
         LEFT JOIN _pm_newest n ON n.dev = s.dev AND n.stream = s.stream WHERE s.stream = :shared AND s.seq > 0",
    ),
    (
        "context",
        "SELECT d.id, c.stream, o.id, c.seq FROM _pm_context c JOIN _pm_device d ON d.n = c.dev JOIN _pm_device o ON o.n = c.other
         WHERE c.stream = :shared",
    ),
    (
        "number",
        "SELECT d.id, m.stream, m.number, o.id FROM _pm_number m JOIN _pm_device d ON d.n = m.dev JOIN _pm_device o ON o.n = m.other
         WHERE m.stream = :shared",
    ),
    ("floor", "SELECT d.id, f.stream, f.seq FROM _pm_floor f JOIN _pm_device d ON d.n = f.dev WHERE f.stream = :shared"),
    (
        "retired",
        "SELECT d.id, b.id, d.retired_seq, d.retired FROM _pm_device d LEFT JOIN _pm_device b ON b.n = d.retired_by WHERE d.retired",
    ),
    // A column that a person has added for all devices: `follow::ordain_column`.
    ("declared", "SELECT t.name, p.what, p.name, d.id, p.seq, p.lamport, p.value,
                    p.past + 2 * (p.what = 1 AND EXISTS (
                      SELECT 1 FROM _pm_meta WHERE k = 'column ' || p.tid || ' ' || p.name AND v)),
                    p.def
                  FROM _pm_declared p JOIN _pm_table t ON t.tid = p.tid JOIN _pm_device d ON d.n = p.dev"),
    ("head", "SELECT t.name, h.key, d.id, h.seq, h.place, h.claim, h.wall, h.kind, h.columns
              FROM _pm_any_head h JOIN _pm_table t ON t.tid = h.tid JOIN _pm_device d ON d.n = h.dev"),
    ("count", "SELECT t.name, c.key, c.col, d.id, c.seq, c.absolute, c.value, c.lamport
               FROM _pm_count c JOIN _pm_table t ON t.tid = c.tid JOIN _pm_device d ON d.n = c.dev"),
    ("image", "SELECT t.name, i.key, i.body FROM _pm_image i JOIN _pm_table t ON t.tid = i.tid"),
];

/// Selects what follows from the rest, for who starts from nothing else.
const JUDGED: [(&str, &str); 3] = [
    ("conflict", "SELECT t.name, c.key FROM _pm_conflict c JOIN _pm_table t ON t.tid = c.tid"),
    (
        "parked",
        "SELECT t.name, p.key, p.reason, p.blocker FROM _pm_parked p JOIN _pm_table t ON t.tid = p.tid",
    ),
    ("dangling", "SELECT t.name, x.key FROM _pm_dangling x JOIN _pm_table t ON t.tid = x.tid"),
];

/// What goes into a state.
pub(crate) struct Parts<'a> {
    /// The shared tables, with the groups after what this gives for a device's number.
    pub shared: Option<&'a dyn Fn(i64) -> u64>,
    /// The devices whose per-device rows go in, by number.
    pub gathered: &'a [i64],
}

/// Writes the state of the shared tables, with the groups in flight, and what is gathered here of devices; signs all that
/// was written with the sender's key. Returns how many shared tables and rows.
pub(crate) fn write_state(
    replica: &Replica,
    out: &mut RecordWriter<'_>,
    key: &SecretKey,
    parts: &Parts<'_>,
) -> Result<(u64, u64)> {
    let (mut tables, mut rows) = (0, 0);
    let since = parts.shared.map(|have| folds::newest_seen(replica, have)).transpose()?.flatten();
    for (dev, seq) in since.iter().flat_map(|since| &since.seen) {
        let id = devices::device_id(replica, *dev)?;
        state(out, "since", &[Value::Blob(&id.0), Value::Int(*seq as i64)])?;
    }
    let since = since.map(|since| since.fold);
    write_definitions(replica, out, parts.shared.is_some())?;
    if !parts.gathered.is_empty() {
        gathered_state::write_tables(replica, out)?;
    }
    if parts.shared.is_some() {
        write_places(replica, out)?;
        write_records(replica, out, &STATE)?;
        for table in catalog::tables(replica).iter().filter(|t| t.shows_shared()) {
            tables += 1;
            rows += match since {
                Some(fold) => write_changed_rows(replica, out, table, fold)?,
                None => {
                    let shown = write_rows(replica, out, table, "row", &RowsOf::all(&table.sql_name))?;
                    write_rows(replica, out, table, "limbo", &RowsOf::all(&table.quarantine_table()))?;
                    shown
                }
            };
        }
        write_records(replica, out, &JUDGED)?;
    }
    parts.gathered.iter().try_for_each(|dev| gathered_state::write_gathered(replica, out, *dev))?;
    if let Some(have) = parts.shared {
        records::write_groups_in_flight(replica, out, have)?;
    }
    let digest: [u8; 32] = out.hash.clone().finalize().into();
    let signature = key.sign([SEAL_DOMAIN, &digest].concat(), None::<Noise>);
    out.record(RecordKind::Seal, &*signature)?;
    Ok((tables, rows))
}

/// Writes the definitions; of `shared` tables too, with which one each has here.
fn write_definitions(replica: &Replica, out: &mut RecordWriter<'_>, shared: bool) -> Result<()> {
    let mut defs = replica.db.prepare(
        "SELECT d.tid, d.body FROM _pm_def d JOIN _pm_table t ON t.tid = d.tid AND t.gathers IS NULL ORDER BY d.tid, d.id",
    )?;
    let mut rows = defs.query([])?;
    while let Some(row) = rows.next()? {
        let def: Vec<u8> = row.get(1)?;
        if shared || catalog::table(replica, row.get(0)?)?.def.mode == Mode::PerDevice {
            state(out, "def", &[Value::Blob(&def)])?;
        }
    }
    if !shared {
        return Ok(());
    }
    for table in catalog::tables(replica).iter().filter(|t| t.def.mode == Mode::Shared) {
        let shown = match table.state {
            State::Tracked => 1,
            State::Known => 2,
            _ => 0,
        };
        let name: String = replica
            .db
            .prepare_cached("SELECT name FROM _pm_table WHERE tid = ?1")?
            .query_row([table.tid], |row| row.get(0))?;
        let name = Value::Text(name.as_bytes());
        state(out, "table", &[name, Value::Blob(&table.def_id.0), Value::Int(shown)])?;
    }
    Ok(())
}

/// Writes where the shared streams were, of groups that are folded.
fn write_places(replica: &Replica, out: &mut RecordWriter<'_>) -> Result<()> {
    let mut streams = replica.db.prepare(
        "SELECT DISTINCT d.n, d.id FROM _pm_tag t JOIN _pm_device d ON d.n = t.dev WHERE t.stream = ?1 ORDER BY d.id",
    )?;
    let mut rows = streams.query([Stream::Shared.number()])?;
    while let Some(row) = rows.next()? {
        let id: Vec<u8> = row.get(1)?;
        state(out, "tags", &[Value::Blob(&id), Value::Blob(&tags::packed(replica, row.get(0)?)?)])?;
    }
    Ok(())
}

/// Writes rows of `_pm_` tables.
fn write_records(replica: &Replica, out: &mut RecordWriter<'_>, of: &[(&str, &str)]) -> Result<()> {
    for (kind, sql) in of {
        let mut statement = replica.db.prepare(sql)?;
        let n = statement.column_count();
        if let Some(at) = statement.parameter_index(":shared")? {
            statement.raw_bind_parameter(at, Stream::Shared.number())?;
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values = (0..n)
                .map(|at| row.get_ref(at).map(value::from_sql))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            state(out, kind, &values)?;
        }
    }
    Ok(())
}
