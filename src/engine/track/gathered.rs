//! Per-device tables gathered at a base.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use packmule_core::model::Stream;
use packmule_core::wire::{DefId, Mode};

use crate::engine::apply::groups;
use crate::engine::capture::evolve;
use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::devices;
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::{Seen, Stamp};
use crate::engine::show::write::{self, Origin, Writer};
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::def::{DEVICE_COLUMN, TableDef};
use crate::engine::table::known::State;
use crate::engine::table::replica::Replica;
use crate::engine::track::options::{TrackOptions, TrackReport};

/// Writes the rows that the log has for one gathered table, and nothing else of it.
pub(crate) fn replay_gathered(replica: &Replica, tid: i64) -> Result<()> {
    let name = catalog::table(replica, tid)?.def.name.clone();
    let mut groups = replica.db.prepare(
        "SELECT dev, first, last FROM _pm_group WHERE stream = ?2 AND applied AND dev <> ?1 ORDER BY dev, last",
    )?;
    // A trigger that fails is undone with a rollback, which no open statement survives.
    let groups = groups
        .query_map((replica.me, Stream::PerDevice.number()), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, u64, u64)>>>()?;
    for (dev, first, last) in groups {
        let (author, stream) = (devices::device_id(replica, dev)?, Stream::PerDevice);
        let mut writers: HashMap<DefId, Writer> = HashMap::new();
        for seq in first..=last {
            let body = frames::frame_here(replica, dev, stream, seq)?;
            let frame = frames::parse(&body)?;
            visit::visit(replica, &frame, |part| {
                match part {
                    Part::Definition(body) => {
                        let def = TableDef::decode(body).map_err(error::bad)?;
                        if def.name.eq_ignore_ascii_case(&name) {
                            let stamp =
                                Stamp { dev, seq, lamport: 0, seen: &Seen::ContextFree, decides: false };
                            evolve::take_in_def(replica, stream, body, &stamp)?;
                            writers.clear();
                        }
                    }
                    Part::Op(def, op) if def.tid == tid => {
                        let writer = match writers.entry(def.id) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(new) => new.insert(groups::writer(replica, tid, def, dev)?),
                        };
                        let origin = Origin { dev, author, stream, seq, lamport: 0, wall: 0 };
                        write::write_row(replica, writer, def, &op, &origin)?;
                    }
                    Part::Piece(_) | Part::Keep(_) | Part::Retire(_) | Part::Return(_) | Part::Op(..) => {}
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Gathers at a base the per-device rows of others that are pending, because a table was in their way or because
/// the table in which they were gathered was untracked. Returns `None` if there are none of this table.
pub(crate) fn track_gathered(
    replica: &Replica,
    name: &str,
    options: &TrackOptions,
) -> Result<Option<TrackReport>> {
    let pending = catalog::table_named(replica, name).filter(|t| {
        matches!(t.state, State::Known | State::Untracked)
            && t.def.mode == Mode::PerDevice
            && options.mode == Mode::PerDevice
            && replica.identity.base
    });
    let Some(table) = pending else { return Ok(None) };
    let there: Option<i64> = value::maybe(
        &replica.db,
        "SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE",
        [&table.def.name],
    )?;
    let gathered = there.is_some() && table.state == State::Untracked && is_gathering(replica, &table.def)?;
    if there.is_some() && !gathered {
        if table.state == State::Untracked {
            return Ok(None); // It was this device's own.
        }
        return Err(Error::cannot_track(
            name,
            "other devices' rows of this name are to be gathered here, and a table of this name is in their way; rename it first",
        ));
    }
    if let Some(reason) = table.def.ungatherable() {
        return Err(Error::cannot_track(name, reason));
    }
    if !gathered {
        evolve::make_gathering(replica, &table.def)?;
    }
    evolve::gather(replica, table.tid, &table.def.name)?;
    replay_gathered(replica, table.tid)?;
    let count = format!("SELECT count(*) FROM main.{}", value::quote(&table.def.name));
    let rows = replica.db.query_row(&count, [], |row| row.get(0))?;
    Ok(Some(TrackReport { already: false, rows, advice: Vec::new() }))
}

/// Returns whether a table that is here is one in which rows like these were gathered.
fn is_gathering(replica: &Replica, def: &TableDef) -> Result<bool> {
    let here = TableDef::read(&replica.db, &def.name)?;
    let lower = |d: &TableDef, at: usize| d.columns[at].name.to_ascii_lowercase();
    let device = here.column(DEVICE_COLUMN);
    let keys = |d: &TableDef| d.keys().map(|at| lower(d, at)).collect::<Vec<_>>();
    Ok(device.is_some_and(|at| here.columns[at].key == 1)
        && keys(&here).get(1..) == Some(&keys(def)[..])
        && (0..def.columns.len()).all(|at| here.column(&def.columns[at].name).is_some()))
}
