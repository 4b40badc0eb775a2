//! Groups that are in the log and not applied: what they wait for.

use packmule_core::model::{DeviceId, Stream};

use super::Engine;
use super::error::Result;
use super::import::Next;

/// What a group of frames waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Whose group waits.
    pub author: String,
    /// Its frames.
    pub frames: (u64, u64),
    /// Whose frames are missing.
    pub missing: String,
    /// Up to which one they are needed.
    pub up_to: u64,
}

/// What a group needs that is not here.
#[derive(Clone, Copy)]
pub(crate) enum Lack {
    /// Frames of a device, up to this one.
    Frames(DeviceId, u64),
    /// Its author had not seen what is folded away here: only a snapshot brings it in.
    Snapshot,
}

/// What waits of a stream: from its first frame to its last.
struct Waiting {
    dev: i64,
    stream: Stream,
    first: u64,
    last: u64,
}

impl Engine {
    /// Whose frames a group needs that are not applied here, and up to which.
    pub(crate) fn lacks(&self, dev: i64, group: &Next, with_pair: bool) -> Result<Option<Lack>> {
        let body = self.frame_here(dev, group.stream, group.first)?;
        let frame = super::log::parse(&body)?;
        if group.stream == Stream::Shared && self.is_stale(dev, &frame.context().collect::<Vec<_>>())? {
            return Ok(Some(Lack::Snapshot));
        }
        for (id, seq) in frame.context() {
            let other = self.device_number(id)?;
            if other == Some(dev) && with_pair {
                continue; // The shared stream's part of the same seal comes first.
            }
            let have = match other {
                Some(other) => self.position(other, Stream::Shared)?.seq,
                None => 0,
            };
            if have < seq {
                return Ok(Some(Lack::Frames(id, seq)));
            }
        }
        Ok(None)
    }

    /// The streams of which something waits.
    fn waiting(&self) -> Result<Vec<Waiting>> {
        let mut statement = self.db.prepare_cached(
            "SELECT dev, stream, min(first), max(last) FROM _pm_group INDEXED BY _pm_group_waiting
             WHERE NOT applied GROUP BY dev, stream",
        )?;
        let mut rows = statement.query([])?;
        let mut waiting = Vec::new();
        while let Some(row) = rows.next()? {
            let stream = super::log::stream_of_number(row.get(1)?)?;
            waiting.push(Waiting { dev: row.get(0)?, stream, first: row.get(2)?, last: row.get(3)? });
        }
        Ok(waiting)
    }

    /// What waits in the log, and for what; without what its author has told anew.
    pub(crate) fn waits(&self) -> Result<Vec<Wait>> {
        let mut waits = Vec::new();
        for Waiting { dev, stream, first, last } in self.waiting()? {
            let author = self.device_label(dev)?;
            let next = self.next_group(dev, stream)?;
            let lack = next.map(|next| self.lacks(dev, &next, false)).transpose()?.flatten();
            let (missing, up_to) = match (next, lack) {
                (None, _) => (author.clone(), first - 1),
                (Some(_), _) if self.waits_for_ever(dev, stream)? => {
                    if self.goes_on(dev)? {
                        continue;
                    }
                    (format!("a snapshot on {author}: run `packmule join` there"), 0)
                }
                (_, Some(Lack::Frames(id, seq))) => (self.name_of(id)?, seq),
                (Some(next), _) => (format!("{author} (the other part of the same seal)"), next.pair),
            };
            waits.push(Wait { author, frames: (first, last), missing, up_to });
        }
        Ok(waits)
    }

    /// Whether only a snapshot brings in what a stream goes on with: its author had not seen what is folded
    /// away here, or had seen groups of another of whom that is so.
    fn waits_for_ever(&self, dev: i64, stream: Stream) -> Result<bool> {
        let mut seen = vec![(dev, stream)];
        let mut at = 0;
        while let Some((dev, stream)) = seen.get(at).copied() {
            at += 1;
            let Some(next) = self.next_group(dev, stream)? else { continue };
            let needs = match self.lacks(dev, &next, false)? {
                Some(Lack::Snapshot) => return Ok(true),
                Some(Lack::Frames(id, _)) => self.device_number(id)?.map(|dev| (dev, Stream::Shared)),
                None => Some((dev, stream.other())), // The other part of the same seal.
            };
            seen.extend(needs.filter(|needs| !seen.contains(needs)));
        }
        Ok(false)
    }

    /// Drops what waits for ever and was told anew by who wrote it.
    pub(crate) fn drop_told_anew(&self) -> Result<()> {
        for Waiting { dev, stream, first, .. } in self.waiting()? {
            if self.goes_on(dev)? && self.waits_for_ever(dev, stream)? {
                for sql in [
                    "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq >= ?3",
                    "DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first >= ?3",
                ] {
                    self.db.execute(sql, (dev, stream.number(), first))?;
                }
            }
        }
        Ok(())
    }
}
