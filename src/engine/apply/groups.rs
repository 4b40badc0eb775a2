//! Applying a group: its ops against the versions that are known of their rows.
//!
//! Groups come here in causal order, so that a new op is never dominated by one that is here
//! already. What may contest a row is put off to `constraints`, at the end of the group.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use packmule_core::model::{Stream, Value};
use packmule_core::wire::{DefId, FrameFlags, Op, OpKind, Shape};
use rusqlite::ErrorCode;

use crate::engine::capture::evolve;
use crate::engine::error::{Error, Result};
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::{self, Cause, Head, Seen, Stamp};
use crate::engine::merge::{context_free, deferred, register};
use crate::engine::show::write::{self, Counts, Origin, Writer};
use crate::engine::show::{constraints, count, references};
use crate::engine::store::meta;
use crate::engine::table::catalog;
use crate::engine::table::known::{OpDef, State};
use crate::engine::table::replica::Replica;

/// Applies a group that is in the log and whose time has come.
pub(crate) fn apply_group(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    first: u64,
    last: u64,
) -> Result<Counts> {
    let author = devices::device_id(replica, dev)?;
    let mut context: HashMap<i64, u64> = positions::context_of(replica, dev, stream)?.into_iter().collect();
    let mut counts = Counts::default();
    let mut lamport = 0;
    let mut wall = 0;
    let mut writers: HashMap<DefId, Writer> = HashMap::new();
    for seq in first..=last {
        let body = frames::frame_here(replica, dev, stream, seq)?;
        let frame = frames::parse(&body)?;
        if let Some(group) = frame.group {
            (lamport, wall) = (group.lamport, group.wall);
            for (id, seen) in frame.context() {
                let other = devices::device_number_or_new(replica, id)?;
                context.insert(other, seen);
                positions::set_context(replica, dev, stream, other, seen)?;
            }
        }
        let seen =
            if frame.head.flags.has(FrameFlags::BLIND) { Seen::ContextFree } else { Seen::Context(&context) };
        visit::visit(replica, &frame, |part| {
            match part {
                Part::Definition(body) => {
                    let decides = frame.head.flags.has(FrameFlags::RESOLUTION);
                    let seen = Seen::Context(&context);
                    let stamp = Stamp { dev, seq, lamport, seen: &seen, decides };
                    evolve::take_in_def(replica, stream, body, &stamp)?;
                    writers.clear();
                }
                Part::Piece(_) => {}
                Part::Retire(device) => {
                    let goes_on = frame.head.flags.has(FrameFlags::BLIND);
                    membership::record_retired(replica, device, Some((dev, seq)), goes_on)?;
                }
                Part::Op(def, op) => {
                    let writer = match writers.entry(def.id) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => new.insert(writer(replica, def.tid, def, dev)?),
                    };
                    let place = Origin { dev, author, stream, seq, lamport, wall };
                    apply_op(replica, writer, def, &op, &place, (&seen, &context), &mut counts)?;
                }
            }
            Ok(())
        })?;
    }
    if counts.ops > 0 && stream == Stream::Shared {
        meta::set(&replica.db, "unanswered", true)?;
    }
    constraints::resolve_constraints(replica, &Cause { dev, first, seen: &Seen::Context(&context) })?;
    if dev == replica.me {
        catalog::reload_catalog(replica)?; // Up to where append tables are sealed.
    }
    Ok(counts)
}

/// For ops of a device.
pub(crate) fn writer(replica: &Replica, tid: i64, def: &OpDef, dev: i64) -> Result<Writer> {
    let table = catalog::table(replica, tid)?;
    let gathered = table.state == State::Gathered;
    let label = gathered.then(|| devices::device_label(replica, dev)).transpose()?;
    Ok(Writer::new(table, def, label))
}

fn apply_op(
    replica: &Replica,
    writer: &Writer,
    def: &OpDef,
    op: &Op<'_>,
    place: &Origin,
    (seen, context): (&Seen<'_>, &HashMap<i64, u64>),
    counts: &mut Counts,
) -> Result<()> {
    counts.ops += 1;
    let table = &writer.table;
    if place.stream == Stream::Own {
        if table.state == State::Gathered {
            write::write_row(replica, writer, def, op, place)?;
        } else if place.dev == replica.me && table.state == State::Tracked {
            take_back(replica, writer, def, op, place)?;
        } else {
            counts.waiting += 1;
        }
        return Ok(());
    }
    if !writer.same_key {
        counts.waiting += 1; // Which row here it would be nobody can say.
        return Ok(());
    }
    let key = def.key_of(op.values(Shape { keys: &def.key_flags }))?;
    let new = Head {
        dev: place.dev,
        author: place.author,
        seq: place.seq,
        offset: op.offset,
        claim: op.head.claim.unwrap_or(place.lamport),
        wall: op.head.wall.unwrap_or(place.wall),
        kind: op.head.kind,
        columns: writer.carried(def, op),
        baseline: None,
    };
    if matches!(seen, Seen::ContextFree) && table.shows_shared() {
        context_free::prepare_context_free(replica, table, &key, &Seen::Heard(place.dev, context), def, op)?;
    }
    let writable =
        register::register(replica, table, &key, &new, &heads::heads(replica, table.tid, &key)?, seen)?;
    if !table.shows_shared() {
        count::count(replica, table, &key, def, op, &new, seen, true)?;
        if table.state == State::Suspended {
            replica
                .db
                .prepare_cached("INSERT OR IGNORE INTO _pm_held (tid, key) VALUES (?1, ?2)")?
                .execute((table.tid, &key))?;
        }
        counts.waiting += 1;
        return Ok(());
    }
    let there = constraints::before_change(replica, table, &key)?;
    if new.kind == OpKind::Delete && table.is_parent {
        references::record_deleted(replica, table, &key, true)?;
    }
    if new.kind == OpKind::Delete && !there {
        references::record_changed(replica, table)?;
    }
    count::count(replica, table, &key, def, op, &new, seen, false)?;
    if !writable {
        return Ok(());
    }
    match write::write_row(replica, writer, def, op, place) {
        Ok(true) => constraints::after_shown(replica, table, &key),
        // The row to be changed is not in its table.
        Ok(false) => deferred::defer(replica, table.tid, &key),
        Err(Error::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            deferred::defer(replica, table.tid, &key)
        }
        Err(e) => Err(e),
    }
}

/// Writes a row of a per-device table of ours, which was set back.
fn take_back(replica: &Replica, writer: &Writer, def: &OpDef, op: &Op<'_>, place: &Origin) -> Result<()> {
    write::write_row(replica, writer, def, op, place)?;
    if !writer.table.def.append {
        return Ok(());
    }
    let mut values = op.values(Shape { keys: &def.key_flags });
    if let Some(Value::Int(id)) = values.find(|(at, _)| def.def.columns[*at].key > 0).map(|(_, v)| v) {
        replica
            .db
            .prepare_cached("UPDATE _pm_table SET appended = max(appended, ?2) WHERE tid = ?1")?
            .execute((writer.table.tid, id))?;
    }
    Ok(())
}
