//! Two histories under one identity: found wherever what is here meets what comes.
//!
//! The chain over an author's groups says all: two histories that agree in it at one place are the same
//! up to there. So of what both have, the last group is looked at, and nothing before it.

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint};
use rusqlite::OptionalExtension;

use super::Engine;
use super::error::{Error, Result};

/// What is known of a stream at one place in it.
enum Past {
    /// The chain there.
    Chain(Chain),
    /// It is in the middle of a group, which is atomic.
    Inside,
    /// Nothing: the group is not kept any more.
    Folded,
}

impl Engine {
    /// Refuses a group that contradicts what is here of the same author; `end` is the chain after it, if
    /// its frames came with it.
    pub(crate) fn refuse_twin(
        &self,
        checkpoint: &Checkpoint,
        end: Option<&Chain>,
        key: &[u8; 32],
    ) -> Result<()> {
        let Some(dev) = self.device_number(checkpoint.author)? else { return Ok(()) };
        let position = self.position(dev, checkpoint.stream)?;
        let Checkpoint { first, last, .. } = *checkpoint;
        let mut fits = if first == position.seq + 1 {
            let before =
                if position.seq == 0 { Chain::start(key, checkpoint.stream) } else { position.chain };
            checkpoint.prev == before
        } else {
            first > position.seq || last <= position.seq
        };
        // Groups that are here in its place, before it and after it, also such as still wait.
        let mut statement = self.db.prepare_cached(
            "SELECT first, last, chain, checkpoint FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last >= ?3
             ORDER BY last",
        )?;
        let mut rows = statement.query((dev, checkpoint.stream.number(), first - 1))?;
        while let Some(row) = rows.next()? {
            let (its_first, its_last): (u64, u64) = (row.get(0)?, row.get(1)?);
            let chain = Chain(row.get(2)?);
            if its_first > last + 1 {
                break;
            }
            let its = Checkpoint::decode(&row.get::<_, Vec<u8>>(3)?).map_err(super::log::bad)?;
            fits &= if its_last < first {
                chain == checkpoint.prev
            } else if its_first > last {
                end.is_none_or(|end| its.prev == *end)
            } else {
                let same = end.map_or(its == *checkpoint, |end| chain == *end);
                (its_first, its_last) == (first, last) && same
            };
        }
        if fits { Ok(()) } else { Err(Error::Twin { device: self.name_of(checkpoint.author)?, seq: first }) }
    }

    /// Refuses a device's database that has another history of anybody than is here. Whether it is
    /// behind what is known of it here: then it is a copy, or was set back, and must not be sealed.
    pub(crate) fn refuse_other_history(&self, source: &Self) -> Result<bool> {
        let mut behind = false;
        for entry in source.vector()? {
            let Some(here) = self.device_number(entry.author)? else { continue };
            let known = self.position(here, entry.stream)?.seq;
            let at = known.min(entry.seq);
            if at == 0 {
                continue;
            }
            let same =
                match (self.past(here, entry.stream, at)?, source.past_of(entry.author, entry.stream, at)?) {
                    (Past::Chain(here), Past::Chain(there)) => here == there,
                    (Past::Folded, _) | (_, Past::Folded) => true,
                    _ => false,
                };
            if !same {
                return Err(Error::Twin { device: self.name_of(entry.author)?, seq: at });
            }
            behind |= entry.author == source.identity.id && entry.seq < known;
        }
        if behind {
            // Sealed, what was written there would be a second history.
            for table in source.tables() {
                if source.unsealed(&table, 1)? > 0 {
                    let seq = source.position(source.me, Stream::Shared)?.seq + 1;
                    return Err(Error::Twin { device: self.name_of(source.identity.id)?, seq });
                }
            }
        }
        Ok(behind)
    }

    fn past_of(&self, id: DeviceId, stream: Stream, seq: u64) -> Result<Past> {
        match self.device_number(id)? {
            Some(dev) => self.past(dev, stream, seq),
            None => Ok(Past::Folded),
        }
    }

    fn past(&self, dev: i64, stream: Stream, seq: u64) -> Result<Past> {
        let position = self.position(dev, stream)?;
        if position.seq == seq {
            return Ok(Past::Chain(position.chain));
        }
        let group: Option<(u64, u64, [u8; 32])> = self
            .db
            .prepare_cached(
                "SELECT first, last, chain FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last >= ?3
                 ORDER BY last LIMIT 1",
            )?
            .query_row((dev, stream.number(), seq), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        Ok(match group {
            Some((_, last, chain)) if last == seq => Past::Chain(Chain(chain)),
            Some((first, ..)) if first <= seq => Past::Inside,
            _ => Past::Folded,
        })
    }
}
