//! The contexts of frames: which device each number in them names.
//!
//! **Invariant.** `_pm_number` has the numbers of each stream as they are after its last applied group: a function of
//! the stream's frames, so that a context means the same on every device. Where an author gives a number again, the
//! later introduction counts. A number that the stream has not introduced names nobody; no author that is sound
//! writes one.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Frame, FrameFlags, KeptRun, Named};

use crate::engine::error::Result;
use crate::engine::fleet::{devices, positions};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// Returns what a frame says that its author had seen, of a stream that is applied up to this frame or further.
pub(crate) fn context(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    frame: &Frame<'_>,
) -> Result<Vec<(DeviceId, u64)>> {
    let mut introduced: HashMap<u32, DeviceId> = HashMap::new();
    let mut context = Vec::new();
    for (named, seq) in frame.context() {
        let device = match named {
            Named::Id(device) => Some(device),
            Named::Author => Some(devices::device_id(replica, dev)?),
            Named::Introduced(number, device) => {
                introduced.insert(number, device);
                Some(device)
            }
            Named::Number(number) => match introduced.get(&number) {
                Some(device) => Some(*device),
                None => numbered(replica, dev, stream, number)?,
            },
        };
        context.extend(device.map(|device| (device, seq)));
    }
    Ok(context)
}

/// Finds the device that a stream has given a number.
fn numbered(replica: &Replica, dev: i64, stream: Stream, number: u32) -> Result<Option<DeviceId>> {
    let sql = "SELECT id FROM _pm_number JOIN _pm_device ON n = other WHERE dev = ?1 AND stream = ?2 AND number = ?3";
    Ok(value::maybe(&replica.db, sql, (dev, stream.number(), number))?.map(DeviceId))
}

/// Keeps the numbers that a frame introduces, when it is applied. Returns whether there are any.
pub(crate) fn keep_numbers(replica: &Replica, dev: i64, stream: Stream, frame: &Frame<'_>) -> Result<bool> {
    let mut any = false;
    for (named, _) in frame.context() {
        if let Named::Introduced(number, device) = named {
            let other = devices::device_number_or_new(replica, device)?;
            keep_number(replica, dev, stream, number, other)?;
            any = true;
        }
    }
    Ok(any)
}

/// Keeps the number by which a stream names a device from now on.
pub(crate) fn keep_number(
    replica: &Replica,
    dev: i64,
    stream: Stream,
    number: u32,
    other: i64,
) -> Result<()> {
    replica
        .db
        .prepare_cached(
            "INSERT INTO _pm_number (dev, stream, number, other) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (dev, stream, number) DO UPDATE SET other = excluded.other",
        )?
        .execute((dev, stream.number(), number, other))?;
    Ok(())
}

/// Returns the numbers of a stream, by the number of the device here.
pub(crate) fn numbers(replica: &Replica, dev: i64, stream: Stream) -> Result<HashMap<i64, u32>> {
    let mut statement =
        replica.db.prepare_cached("SELECT other, number FROM _pm_number WHERE dev = ?1 AND stream = ?2")?;
    let rows = statement.query_map((dev, stream.number()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the runs of frames that the author of a context-free frame had not seen, in its context. `None` if it has seen
/// nothing.
fn runs_in(replica: &Replica, frame: &Frame<'_>) -> Result<Option<Vec<KeptRun>>> {
    let mut named = None;
    visit::visit_defined(replica, frame, |part| {
        if let Part::Keep(runs) = part {
            named.get_or_insert_with(|| runs.collect());
        }
        Ok(())
    })?;
    Ok(named)
}

/// Returns whether a write in a frame of a shared stream comes after one in another frame, by device numbers and numbers of
/// frames: whether its author took that into account. Of what is folded of its stream nobody remembers what each group had
/// seen: that counts as unseen; so does what a verdict may leave.
pub(crate) fn comes_after(
    replica: &Replica,
    (dev, seq): (i64, u64),
    (other, up_to): (i64, u64),
) -> Result<bool> {
    let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
    let frame = frames::parse(&body)?;
    let flags = frame.head.flags;
    if dev == other || flags.has(FrameFlags::VERDICT) {
        return Ok(dev == other && up_to < seq && !flags.has(FrameFlags::VERDICT));
    }
    let id = devices::device_id(replica, other)?;
    if flags.has(FrameFlags::CONTEXT_FREE) {
        let Some(mut runs) = runs_in(replica, &frame)?.map(Vec::into_iter) else { return Ok(false) };
        if let Some(run) = runs.find(|run| run.device == id) {
            return Ok(up_to < run.first);
        }
    }
    // What the stream has seen by now may be by the group that is being applied: what came before had not.
    let applying = replica.applying.get().filter(|(of, _)| *of == dev).map(|(_, first)| first);
    let mut statement = replica.db.prepare_cached(
        "SELECT first FROM _pm_group
         WHERE dev = ?1 AND stream = ?2 AND (applied OR first = ?3) ORDER BY last DESC",
    )?;
    let mut groups = statement.query((dev, Stream::Shared.number(), applying))?;
    let mut later = false;
    while let Some(group) = groups.next()? {
        let first: u64 = group.get(0)?;
        let body = frames::frame_here(replica, dev, Stream::Shared, first)?;
        let named = context(replica, dev, Stream::Shared, &frames::parse(&body)?)?;
        match named.into_iter().rev().find(|(device, _)| *device == id) {
            Some((_, seen)) if first <= seq => return Ok(seen >= up_to),
            Some(_) => later = true,
            None => {}
        }
    }
    let now = positions::context_of(replica, dev, Stream::Shared)?;
    Ok(!later && now.iter().any(|(of, seen)| *of == other && *seen >= up_to))
}
