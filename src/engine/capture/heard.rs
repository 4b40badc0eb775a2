//! Takes in what other devices say of tables: definitions, and what a table is on its author's device.

use packmule_core::model::{Stream, is_unseen};
use packmule_core::wire::{DefId, Mode, Schema, SchemaBits};

use crate::engine::capture::{adopt, declare, follow, gathering, merge_definitions, other_key};
use crate::engine::error::{self, Error, Result};
use crate::engine::merge::heads::Stamp;
use crate::engine::merge::stretches;
use crate::engine::table::declared::Subject;
use crate::engine::table::def::TableDef;
use crate::engine::table::known::State;
use crate::engine::table::limits::{self, Teller};
use crate::engine::table::replica::Replica;
use crate::engine::table::{catalog, shapes};

/// Why rows wait for a table that the application has, and nobody has tracked.
pub(crate) const UNTRACKED: &str = "a table of this name is here and not tracked; track it to take them in";

/// Takes in a definition from the log of another device, which somebody says. `names` are columns that were renamed, as far as that is not recorded
/// yet; `counts` says what of it counts as declared by that.
pub(crate) fn take_in_def(
    replica: &Replica,
    stream: Stream,
    (body, by): (&[u8], Teller),
    stamp: &Stamp<'_>,
    names: &[(String, String)],
    counts: &dyn Fn(Subject, &str) -> bool,
) -> Result<()> {
    take_in(replica, stream, &keep_heard(replica, (body, by), names)?, stamp, counts)
}

/// Keeps a definition that somebody says of a table, and nothing more.
pub(crate) fn keep_def(replica: &Replica, said: (&[u8], Teller), names: &[(String, String)]) -> Result<()> {
    keep_heard(replica, said, names).map(drop)
}

/// A definition from the log, and the table that it is of; `new`, if nothing was known of that before.
struct Heard {
    tid: i64,
    def: TableDef,
    id: DefId,
    by: Teller,
    new: bool,
}

/// Keeps a definition that somebody says, if it is not too much.
fn keep_heard(replica: &Replica, (body, by): (&[u8], Teller), names: &[(String, String)]) -> Result<Heard> {
    let (def, id) = (TableDef::hear(body).map_err(error::bad)?, DefId::of(body));
    let new = catalog::table_of(replica, &def, names)?.is_none();
    if !catalog::is_known(replica, id)? {
        let same_name = new && catalog::table_named(replica, &def.name).is_some();
        limits::count(replica, by, &def, new, same_name)?;
    }
    Ok(Heard { tid: catalog::keep_said_def(replica, &def, id, body, names)?, def, id, by, new })
}

/// Takes in a definition of a table that is known.
fn take_in(
    replica: &Replica,
    stream: Stream,
    &Heard { tid, ref def, id, by, new }: &Heard,
    stamp: &Stamp<'_>,
    counts: &dyn Fn(Subject, &str) -> bool,
) -> Result<()> {
    // Also of a table that nobody has tracked here yet: it has the column from when somebody does.
    if stamp.decides {
        for column in def.columns.iter().filter(|c| c.key == 0) {
            if declare::is_addition(replica, tid, column, stamp)? {
                follow::ordain_column(replica, tid, &column.name)?;
            }
        }
    }
    let disputed = catalog::table(replica, tid)?.disputed.clone();
    let declared = stream == Stream::Shared
        && def.declares()
        && declare::record_declared(replica, tid, (def, id), stamp, counts)?;
    let is_for_here = def.mode == Mode::Shared || replica.identity.base;
    if new && is_for_here && !catalog::table(replica, tid)?.aside && !limits::may_make(replica, by)? {
        return adopt::set_reason(replica, tid, limits::NOT_MADE);
    }
    make_or_merge(replica, stream, stamp.dev, tid, def, new)?;
    if declared { declare::apply_declarations(replica, tid, &disputed) } else { Ok(()) }
}

/// Takes in a definition from a frame, and records that it is what the table is on its author's device: before it is asked
/// which of its columns are gone.
pub(crate) fn hear_def(replica: &Replica, stream: Stream, body: &[u8], stamp: &Stamp<'_>) -> Result<()> {
    stretches::pause(replica)?;
    let heard = keep_heard(replica, (body, Teller::of_frames(stamp.dev)), &[])?;
    let announces = !stamp.decides && stream == Stream::Shared;
    if announces {
        let place = (stamp.dev, stamp.seq, stamp.lamport);
        shapes::record_shape(replica, heard.tid, place, heard.id, SchemaBits::default())?;
        catalog::doubt_schema(replica)?;
    }
    take_in(replica, stream, &heard, stamp, &|_, _| true)?;
    if announces { follow::tell_waiting(replica, heard.tid) } else { Ok(()) }
}

/// Takes in what a device says of a table of its own.
pub(crate) fn hear_schema(replica: &Replica, schema: &Schema<'_>, place: (i64, u64, u64)) -> Result<()> {
    stretches::pause(replica)?;
    if schema.names.flat_map(|(before, after)| before.chars().chain(after.chars())).any(is_unseen) {
        return Err(Error::damaged("renamed columns whose names have letters that nobody sees"));
    }
    let names: Vec<(String, String)> = schema.names.map(|(a, b)| (a.into(), b.into())).collect();
    let said = (schema.def, Teller::of_frames(place.0));
    let Heard { tid, id, .. } = keep_heard(replica, said, &names)?;
    let before = match names.is_empty() {
        true => None,
        false => Some(follow::readings(replica, tid, &catalog::table(replica, tid)?.def)?),
    };
    shapes::record_shape(replica, tid, place, id, schema.bits)?;
    for (before, after) in schema.names {
        shapes::record_said(replica, tid, place, id, (before, after))?;
    }
    catalog::doubt_schema(replica)?;
    catalog::reload_table(replica, tid)?;
    follow::read_renamed(replica, tid, before.as_ref())?;
    follow::tell_waiting(replica, tid)
}

/// Makes the table of a definition, or merges the definition with that of the table that is here.
fn make_or_merge(
    replica: &Replica,
    stream: Stream,
    dev: i64,
    tid: i64,
    def: &TableDef,
    new: bool,
) -> Result<()> {
    let gathers = stream == Stream::PerDevice
        && def.mode == Mode::PerDevice
        && replica.identity.base
        && dev != replica.me;
    if gathers {
        return gathering::gather_def(replica, dev, tid, def, new);
    }
    let table = catalog::table(replica, tid)?;
    match table.state {
        State::Known if new && !table.aside => {
            if gathering::is_there(replica, &def.name)? {
                adopt::set_reason(replica, tid, UNTRACKED)
            } else if let Some(reason) = def.ungatherable() {
                adopt::set_reason(replica, tid, reason)
            } else if (stream == Stream::Shared && def.mode == Mode::Shared)
                || (stream == Stream::PerDevice && def.mode == Mode::PerDevice && dev == replica.me)
            {
                other_key::make(replica, tid, def)
            } else {
                Ok(())
            }
        }
        State::Tracked | State::Gathered if table.def.mode == def.mode => {
            merge_definitions::merge_definition(replica, dev, tid, def)
        }
        State::Tracked => gathering::notice_of_modes(replica, dev, &table, def),
        _ => Ok(()),
    }
}
