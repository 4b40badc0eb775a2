//! Histories of other devices that an author had, and has given up for others (`exchange/give_up.rs`).
//!
//! Frames of the author that it wrote before name frames of the history that is given up. Nobody who has the other one
//! would ever have those, and all would wait. So the author says it in its own stream, as a group of its own
//! ([`FrameFlags::GAVE_UP`]): what earlier frames of it claim to have seen beyond a place is of another history, and nobody
//! waits for it. From there on the author's context has no more of that device than what it kept, and what came since.
//! Such a group is heard when it comes, since it stands behind the frames that wait.
//!
//! It says something of its author's frames alone: whoever says it wrongly misplaces nothing else.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Frame, FrameFlags, Named};

use crate::engine::error::Result;
use crate::engine::fleet::{devices, positions};
use crate::engine::log::writer;
use crate::engine::store::meta;
use crate::engine::table::replica::Replica;

/// So many places of an author are kept until it is applied that far.
const PLACES: usize = 64;

/// The name under which `_pm_meta` has what this device has yet to say.
const UNSAID: &str = "gave up";

/// A place in a history: of this device, the last frame that was kept; said by the author in this frame of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: DeviceId,
    kept: u64,
    by: u64,
}

impl Place {
    const LEN: usize = 32;

    fn read(bytes: &[u8; Self::LEN]) -> Self {
        let mut device = [0; 16];
        device.copy_from_slice(&bytes[..16]);
        let number = |at: usize| bytes[at..].first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk));
        Self { device: DeviceId(device), kept: number(16), by: number(24) }
    }

    fn to_kept(self) -> Vec<u8> {
        [&self.device.0[..], &self.kept.to_be_bytes(), &self.by.to_be_bytes()].concat()
    }
}

fn places(replica: &Replica, key: &str) -> Result<Vec<Place>> {
    let bytes = meta::get::<Vec<u8>>(&replica.db, key)?.unwrap_or_default();
    Ok(bytes.as_chunks().0.iter().map(Place::read).collect())
}

fn set_places(replica: &Replica, key: &str, places: &[Place]) -> Result<()> {
    if places.is_empty() {
        return meta::forget(&replica.db, key);
    }
    meta::set(&replica.db, key, places.iter().flat_map(|place| place.to_kept()).collect::<Vec<u8>>())
}

/// The name under which `_pm_meta` has what an author says that it gave up.
fn by(author: i64) -> String {
    format!("gave up by {author}")
}

/// Notes that this device has given up what it had of another after a frame, if frames of its own name that.
pub(crate) fn note(replica: &Replica, other: i64, kept: u64) -> Result<()> {
    let context = positions::context_of(replica, replica.me, Stream::Shared)?;
    if context.iter().any(|(dev, seen)| *dev == other && *seen > kept) {
        let mut all = places(replica, UNSAID)?;
        all.push(Place { device: devices::device_id(replica, other)?, kept, by: 0 });
        set_places(replica, UNSAID, &all)?;
    }
    Ok(())
}

/// Says what is noted, in a group of its own.
pub(crate) fn say(replica: &Replica) -> Result<()> {
    let unsaid = places(replica, UNSAID)?;
    if unsaid.is_empty() {
        return Ok(());
    }
    let context: Vec<(Named, u64)> =
        unsaid.iter().map(|place| (Named::Id(place.device), place.kept)).collect();
    let mut buf = writer::frame_memory(replica);
    let group = writer::begin_group_of(replica, FrameFlags::GAVE_UP, &context, &mut buf)?;
    let position = group.finish()?;
    positions::set_position(replica, replica.me, Stream::Shared, position)?;
    lower(replica, replica.me, unsaid.into_iter())?;
    meta::forget(&replica.db, UNSAID)
}

/// Lowers the context of an author to what it kept. Of devices that nobody has heard of it has nothing.
fn lower(replica: &Replica, author: i64, mut places: impl Iterator<Item = Place>) -> Result<()> {
    places.try_for_each(|place| match devices::device_number(replica, place.device)? {
        Some(other) => positions::lower_context(replica, author, Stream::Shared, other, place.kept),
        None => Ok(()),
    })
}

/// Returns the places that a frame gives up, if it is one that does.
fn given(frame: &Frame<'_>) -> impl Iterator<Item = Place> {
    let by = frame.head.seq;
    let context = frame.head.flags.has(FrameFlags::GAVE_UP).then(|| frame.context());
    context.into_iter().flatten().filter_map(move |(named, kept)| match named {
        Named::Id(device) => Some(Place { device, kept, by }),
        _ => None,
    })
}

/// Hears what the author of a group that came gave up, by its first frame.
pub(crate) fn hear(replica: &Replica, author: i64, frame: &Frame<'_>) -> Result<()> {
    let mut all = places(replica, &by(author))?;
    for place in given(frame) {
        if !all.contains(&place) {
            all.push(place);
        }
    }
    let from = all.len().saturating_sub(PLACES);
    set_places(replica, &by(author), &all[from..])
}

/// Applies what an author gave up in a frame of its own: its context has less, and nothing before that frame waits any more.
pub(crate) fn apply(replica: &Replica, author: i64, frame: &Frame<'_>) -> Result<()> {
    if !frame.head.flags.has(FrameFlags::GAVE_UP) {
        return Ok(());
    }
    lower(replica, author, given(frame))?;
    let mut all = places(replica, &by(author))?;
    all.retain(|place| place.by > frame.head.seq);
    set_places(replica, &by(author), &all)
}

/// Forgets all that an author gave up: its stream is another one.
pub(crate) fn forget(replica: &Replica, author: i64) -> Result<()> {
    meta::forget(&replica.db, &by(author))
}

/// Returns whether an author has given up what it had seen of another device up to `seen`, as a frame of its own says.
pub(crate) fn is_given_up(
    replica: &Replica,
    (author, frame): (i64, u64),
    other: i64,
    seen: u64,
) -> Result<bool> {
    let all = places(replica, &by(author))?;
    if all.is_empty() {
        return Ok(false);
    }
    let device = devices::device_id(replica, other)?;
    Ok(all.iter().any(|place| place.device == device && place.by > frame && place.kept < seen))
}
