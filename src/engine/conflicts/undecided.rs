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

/// A way through the conflicts of some tables that are a program's to decide: first those about which nothing is noted, then
/// those about which it failed before, the oldest failure first. So some that always fail keep no others from it.
pub(crate) struct Undecided<'t> {
    tables: &'t [&'t str],
    walk: Walk,
    /// The last failure that was looked at, and the last one of before.
    failed: (i64, i64),
}

impl<'t> Undecided<'t> {
    /// Begins at the first one.
    pub(crate) fn new(replica: &Replica, tables: &'t [&'t str]) -> Result<Self> {
        Ok(Self { tables, walk: Walk::new(replica), failed: (i64::MIN, wishes::last_noted(replica)?) })
    }

    /// Returns the next one, on a catalog that is up to date.
    pub(crate) fn next_undecided(&mut self, replica: &Replica) -> Result<Option<Conflict>> {
        let tables = self.tables;
        let mut wanted = |place: &Place| is_of(replica, tables, place);
        while let Some(open) = self.walk.next_of(replica, &mut wanted)? {
            if !wishes::is_noted(replica, &open.conflict.id)?
                && let Some(conflict) = self.given(replica, open)?
            {
                return Ok(Some(conflict));
            }
        }
        while let Some((n, id, place)) = wishes::next_failed(replica, self.failed)? {
            self.failed.0 = n;
            let Some(place) = place.filter(|place| wanted(place).unwrap_or(false)) else { continue };
            let open = place.describe(replica)?.filter(|open| open.conflict.id == id);
            if let Some(open) = open
                && let Some(conflict) = self.given(replica, open)?
            {
                return Ok(Some(conflict));
            }
        }
        Ok(None)
    }

    /// Returns what is given to a program, if it is not for a person.
    fn given(&mut self, replica: &Replica, mut open: Open) -> Result<Option<Conflict>> {
        if is_decided_twice(replica, &open)? {
            return Ok(None);
        }
        ways::add_ways(replica, &mut open, &mut self.walk.referrers)?;
        Ok(Some(open.conflict))
    }
}

/// Returns whether a place is a row of one of these tables.
fn is_of(replica: &Replica, tables: &[&str], place: &Place) -> Result<bool> {
    match place {
        Place::Row(tid, ..) => {
            let name = &catalog::table(replica, *tid)?.def.name;
            Ok(tables.iter().any(|table| table.eq_ignore_ascii_case(name)))
        }
        Place::Column(..) => Ok(false),
    }
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
