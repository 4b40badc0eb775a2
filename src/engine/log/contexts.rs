//! The contexts of frames: which device each number in them names.
//!
//! **Invariant.** `_pm_number` has the numbers of each stream as they are after its last applied group: a function of
//! the stream's frames, so that a context means the same on every device. Where an author gives a number again, the
//! later introduction counts. A number that the stream has not introduced names nobody; no author that is sound
//! writes one.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Frame, Named};

use crate::engine::error::Result;
use crate::engine::fleet::devices;
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
