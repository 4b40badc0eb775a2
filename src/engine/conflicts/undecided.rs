//! Conflicts that are given to a program which decides by itself.
//!
//! One device decides, and what it decided travels as a resolution. Two devices that decide differently make a conflict of two
//! resolutions: that is for a person, and is given to no program. So programs never answer each other for ever.

use packmule_core::model::Stream;
use packmule_core::wire::FrameFlags;

use crate::engine::conflicts::list::{Conflict, ConflictKind, Open};
use crate::engine::conflicts::walk::{Place, Walk};
use crate::engine::conflicts::{ways, wishes};
use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::log::frames;
use crate::engine::merge::heads::{self, Head};
use crate::engine::table::catalog;
use crate::engine::table::replica::Replica;

/// What a program says about a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// A decision, as a document: `docs::decisions` has its form.
    Decided(String),
    /// It could not be asked, or has failed, for this reason: it is asked again by the next run.
    Failed(String),
    /// It was not asked, and nothing else is given to it.
    Stop,
}

/// A program's answer, and the id of the conflict that it is about.
pub(crate) type Answered = (String, Answer);

/// Returns the next conflict of these tables that is a program's to decide, on a catalog that is up to date.
pub(crate) fn next(replica: &Replica, walk: &mut Walk, tables: &[&str]) -> Result<Option<Conflict>> {
    let mut wanted = |place: &Place| match place {
        Place::Row(tid, ..) => {
            let name = &catalog::table(replica, *tid)?.def.name;
            Ok(tables.iter().any(|table| table.eq_ignore_ascii_case(name)))
        }
        Place::Column(..) => Ok(false),
    };
    while let Some(mut open) = walk.next_of(replica, &mut wanted)? {
        if !wishes::is_for_a_person(replica, &open.conflict.id)? && !is_decided_twice(replica, &open)? {
            ways::add_ways(replica, &mut open, &mut walk.referrers)?;
            return Ok(Some(open.conflict));
        }
    }
    Ok(None)
}

/// Returns whether two of the versions are decisions already.
fn is_decided_twice(replica: &Replica, open: &Open) -> Result<bool> {
    let beside = match (&open.conflict.kind, &open.blocking) {
        (ConflictKind::Unique(_), Some(key)) => heads::heads(replica, open.tid, key)?,
        _ => Vec::new(),
    };
    let mut decisions = 0;
    for Head { dev, seq, .. } in open.heads.iter().chain(&beside).filter(|head| head.dev != BASELINE) {
        let Some(body) = frames::frame(replica, *dev, Stream::Shared, *seq)? else { continue };
        decisions += u32::from(frames::parse(&body)?.head.flags.has(FrameFlags::RESOLUTION));
    }
    Ok(decisions > 1)
}

/// Notes what a program answered, within the open transaction; the seal that follows carries it out.
pub(crate) fn note(replica: &Replica, answered: &[Answered]) -> Result<()> {
    for (id, answer) in answered {
        match answer {
            Answer::Decided(document) => wishes::note_decided(replica, id, document)?,
            Answer::Failed(reason) => wishes::note_failed(replica, id, reason)?,
            Answer::Stop => {}
        }
    }
    Ok(())
}
