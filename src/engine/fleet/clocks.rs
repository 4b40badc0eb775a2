//! Wall clocks that are far off. They harm nobody, but people should know.
//!
//! A group says what its author's clock showed, but not when the group came here: a bundle may have travelled for
//! weeks. So only these signs show that a clock is wrong, each by more than a day:
//!
//! | sign | whose clock |
//! |---|---|
//! | ours shows a year before 2020 or after 2089 | ours |
//! | most others, and more than one, are ahead of ours | ours: it is behind |
//! | its last group is from the future | its: it is ahead; of two devices, maybe ours is behind |
//! | its last group is from before 2020 | its: it is behind |
//! | its last group is older than the groups of its context, or than its own before | its: it is behind |
//!
//! Nothing is stored for this: the log has it all.

use std::collections::HashMap;

use packmule_core::model::{Stream, WallMs};

use crate::engine::error::{Hint, Result};
use crate::engine::fleet::devices;
use crate::engine::store::meta::Notice;
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

const DAY: i64 = 86_400_000;

/// What a clock can show that was set: 2020 until 2089.
const PLAUSIBLE: std::ops::Range<WallMs> = 1_577_836_800_000..3_786_912_000_000;

/// How far clocks are off, in milliseconds; a clock that is ahead has a positive number.
#[derive(Default)]
pub(crate) struct Clocks {
    pub ours: Option<i64>,
    /// By device number.
    pub others: HashMap<i64, i64>,
    /// Only one other clock contradicts ours, and it might be the right one.
    pub or_ours: bool,
}

/// What is known of another device's clock.
struct Heard {
    dev: i64,
    /// The wall time of its last group.
    wall: WallMs,
    /// The wall times of the groups that it had seen then.
    seen: Vec<WallMs>,
}

/// Compares everybody's clocks by what the log has of them.
pub(crate) fn clocks(replica: &Replica) -> Result<Clocks> {
    let now = replica.now();
    let heard = heard_clocks(replica)?;
    let mut walls: Vec<WallMs> = heard.iter().map(|h| h.wall).filter(|w| PLAUSIBLE.contains(w)).collect();
    walls.sort_unstable();
    let ahead = heard.iter().filter(|h| is_ahead(h.wall, now)).count();
    let outvoted = ahead > 1 && ahead * 2 > heard.len();
    let mut clocks = Clocks { or_ours: ahead == 1 && heard.len() == 1, ..Clocks::default() };
    let mut reference = now;
    if outvoted || !PLAUSIBLE.contains(&now) {
        // The median: a device in 2099 does not count.
        let nearest = if now < PLAUSIBLE.start { PLAUSIBLE.start } else { PLAUSIBLE.end };
        reference = walls.get(walls.len() / 2).copied().unwrap_or(nearest);
        // Where most of those that wrote last are far off, the one in the middle may agree with this one.
        clocks.ours =
            Some(now.saturating_sub(reference)).filter(|off| is_ahead(*off, 0) || is_ahead(0, *off));
    }
    for Heard { dev, wall, seen } in heard {
        let seen = seen.into_iter().filter(|s| !is_ahead(*s, reference)).max();
        let off = if is_ahead(wall, reference) || wall < PLAUSIBLE.start {
            wall.saturating_sub(reference)
        } else {
            match seen {
                Some(seen) if is_ahead(seen, wall) => wall.saturating_sub(seen),
                _ => continue,
            }
        };
        clocks.others.insert(dev, off);
    }
    Ok(clocks)
}

/// Returns what the log has of each other device's clock.
fn heard_clocks(replica: &Replica) -> Result<Vec<Heard>> {
    // Devices that are in step have seen the same groups: each is looked up once.
    let mut walls: HashMap<(i64, u8, u64), Option<WallMs>> = HashMap::new();
    let mut last = |dev: i64, stream: u8, up_to: u64| -> Result<Option<WallMs>> {
        if let Some(known) = walls.get(&(dev, stream, up_to)) {
            return Ok(*known);
        }
        let found = value::maybe::<WallMs>(
            &replica.db,
            "SELECT wall FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last <= ?3 ORDER BY last DESC LIMIT 1",
            (dev, stream, up_to),
        )?;
        walls.insert((dev, stream, up_to), found);
        Ok(found)
    };
    let mut statement =
        replica.db.prepare_cached("SELECT dev, stream, seq FROM _pm_stream WHERE dev <> ?1")?;
    let streams = statement
        .query_map([replica.me], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u8>(1)?, row.get::<_, u64>(2)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut latest: HashMap<i64, (u64, u8, u64, WallMs)> = HashMap::new();
    for (dev, stream, seq) in streams {
        let found: Option<(u64, u64, WallMs)> = {
            use rusqlite::OptionalExtension;
            replica
                .db
                .prepare_cached(
                    "SELECT lamport, first, wall FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last <= ?3
                     ORDER BY last DESC LIMIT 1",
                )?
                .query_row((dev, stream, seq), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?
        };
        let Some((lamport, first, wall)) = found else { continue };
        if latest.get(&dev).is_none_or(|known| known.0 < lamport) {
            latest.insert(dev, (lamport, stream, first, wall));
        }
    }
    let mut heard = Vec::new();
    for (dev, (_, stream, first, wall)) in latest {
        let mut seen: Vec<WallMs> = last(dev, stream, first.saturating_sub(1))?.into_iter().collect();
        let mut context =
            replica.db.prepare_cached("SELECT other, seq FROM _pm_context WHERE dev = ?1 AND stream = ?2")?;
        let mut rows = context.query((dev, stream))?;
        while let Some(row) = rows.next()? {
            seen.extend(last(row.get(0)?, Stream::Shared.number(), row.get(1)?)?);
        }
        heard.push(Heard { dev, wall, seen });
    }
    Ok(heard)
}

/// Returns the notices of clocks.
pub(crate) fn clock_notices(replica: &Replica, clocks: &Clocks) -> Result<Vec<Notice>> {
    let mut notices = Vec::new();
    if let Some(off) = clocks.ours {
        let text = format!("the clock of this device is {}", clock_words(off));
        notices.push(Notice { text, hint: Some(Hint::SetClock { here: true }) });
    }
    let mut others: Vec<_> = clocks.others.iter().collect();
    others.sort();
    for (dev, off) in others {
        let doubt = if clocks.or_ours && *off > 0 { ", or the one here is behind" } else { "" };
        let who = devices::device_label(replica, *dev)?;
        let text = format!("the clock of {who} is {}{doubt}", clock_words(*off));
        notices.push(Notice { text, hint: Some(Hint::SetClock { here: false }) });
    }
    Ok(notices)
}

/// Returns whether a clock is ahead of another by more than a day.
fn is_ahead(clock: WallMs, of: WallMs) -> bool {
    clock.saturating_sub(of) > DAY
}

/// Returns for people how far a clock is off, in days or years.
pub fn clock_words(off: i64) -> String {
    let days = off.unsigned_abs() / DAY.unsigned_abs();
    let way = if off < 0 { "behind" } else { "ahead" };
    match days {
        1 => format!("1 day {way}"),
        0..730 => format!("{days} days {way}"),
        _ => format!("{} years {way}", days * 100 / 36_525),
    }
}
