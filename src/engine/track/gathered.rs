//! Per-device tables gathered at a base.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use packmule_core::model::Stream;
use packmule_core::wire::{DefId, Frame, Mode};

use crate::engine::apply::groups;
use crate::engine::capture::{gathering, heard};
use crate::engine::error::{self, Error, Result};
use crate::engine::fleet::devices;
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::{Seen, Stamp};
use crate::engine::show::write::{self, Origin, Writer};
use crate::engine::store::{meta, value};
use crate::engine::table::catalog;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::{State, Table};
use crate::engine::table::limits::Teller;
use crate::engine::table::replica::Replica;
use crate::engine::track::options::{TrackOptions, TrackReport};

/// Writes the rows that the log has for one gathered table, and nothing else of it. `tid` is the table of the log.
pub(crate) fn replay_gathered(replica: &Replica, tid: i64) -> Result<()> {
    let name = catalog::table(replica, tid)?.def.name.clone();
    each_gathered_frame(replica, &mut |dev, seq, frame| {
        let (author, stream) = (devices::device_id(replica, dev)?, Stream::PerDevice);
        let mut writers: HashMap<DefId, Writer> = HashMap::new();
        visit::visit(replica, frame, |part| {
            match part {
                Part::Definition(body) => {
                    let def = TableDef::decode(body).map_err(error::bad)?;
                    if def.name.eq_ignore_ascii_case(&name) {
                        let stamp = Stamp { dev, seq, lamport: 0, seen: &Seen::ContextFree, decides: false };
                        heard::take_in_def(
                            replica,
                            stream,
                            (body, Teller::of_frames(dev)),
                            &stamp,
                            &[],
                            &|_, _| true,
                        )?;
                        writers.clear();
                    }
                }
                Part::Op(def, op) if def.tid == tid => {
                    let writer = match writers.entry(def.id) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => new.insert(groups::writer(replica, stream, def, dev)?),
                    };
                    let origin = Origin { dev, author, stream, seq, lamport: 0, wall: 0 };
                    write::write_row(replica, writer, def, (&op, &def.values_of(&op)), &origin)?;
                }
                Part::Piece(_)
                | Part::Keep(_)
                | Part::Span(_)
                | Part::Decision(_)
                | Part::Schema(_)
                | Part::Retire(_)
                | Part::Return(_)
                | Part::Op(..) => {}
            }
            Ok(())
        })
    })
}

/// Walks the frames of other devices' per-device streams that are applied and in the log.
fn each_gathered_frame(
    replica: &Replica,
    each: &mut dyn FnMut(i64, u64, &Frame<'_>) -> Result<()>,
) -> Result<()> {
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
        for seq in first..=last {
            let body = frames::frame_here(replica, dev, Stream::PerDevice, seq)?;
            each(dev, seq, &frames::parse(&body)?)?;
        }
    }
    Ok(())
}

/// Begins to gather at a base what waits in the log, as it did before tables of the base's own could stand beside
/// what it gathers.
pub(crate) fn gather_pending(replica: &Replica) -> Result<()> {
    if !replica.identity.base {
        return Ok(());
    }
    let waits = |table: &Table| {
        let here = match table.state {
            State::Known => table.def.ungatherable().is_none(),
            State::Tracked | State::Suspended => true,
            State::Gathered | State::Untracked => false,
        };
        here && table.def.mode == Mode::PerDevice && catalog::mirror_of(replica, table.tid).is_none()
    };
    let mut pending: Vec<Arc<Table>> = catalog::tables(replica).into_iter().filter(|t| waits(t)).collect();
    if meta::get::<bool>(&replica.db, "gathered apart")? == Some(true) {
        pending.retain(|table| table.state == State::Known);
    } else {
        let written = tables_of_others(replica)?;
        pending.retain(|table| table.state == State::Known || written.contains(&table.tid));
        meta::set(&replica.db, "gathered apart", true)?;
    }
    for table in pending {
        gathering::begin_gathering(replica, &table)?;
        replay_gathered(replica, table.tid)?;
    }
    Ok(())
}

/// Lists the tables of which the log has per-device rows of other devices.
fn tables_of_others(replica: &Replica) -> Result<HashSet<i64>> {
    let mut written = HashSet::new();
    each_gathered_frame(replica, &mut |_, _, frame| {
        visit::visit(replica, frame, |part| {
            if let Part::Op(def, _) = part {
                written.insert(def.tid);
            }
            Ok(())
        })
    })?;
    Ok(written)
}

/// Gathers at a base the per-device rows of others that are pending, because a table was in their way or because
/// the table in which they were gathered was untracked. Returns `None` if there are none of this table.
pub(crate) fn track_gathered(
    replica: &Replica,
    name: &str,
    options: &TrackOptions,
) -> Result<Option<TrackReport>> {
    let pending = catalog::table_here(replica, name).filter(|t| {
        matches!(t.state, State::Known | State::Untracked)
            && t.def.mode == Mode::PerDevice
            && options.mode == Mode::PerDevice
            && replica.identity.base
    });
    let Some(table) = pending else { return Ok(None) };
    let there = gathering::is_there(replica, &table.def.name)?;
    let gathered = there && table.state == State::Untracked && gathering::is_gathering(replica, &table.def)?;
    if there && !gathered {
        return Ok(None); // It is this device's own.
    }
    if let Some(reason) = table.def.ungatherable() {
        return Err(Error::cannot_track(name, reason));
    }
    if !gathered {
        gathering::make_gathering(replica, &table.def)?;
    }
    gathering::gather(replica, table.tid, &table.def.name)?;
    replay_gathered(replica, table.gathers.unwrap_or(table.tid))?;
    let count = format!("SELECT count(*) FROM main.{}", value::quote(&table.def.name));
    let rows = replica.db.query_row(&count, [], |row| row.get(0))?;
    Ok(Some(TrackReport { rows, ..TrackReport::default() }))
}
