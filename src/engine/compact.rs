//! Compaction: what every device of the fleet has is folded away.
//!
//! A frame is *stable* when every device that is not retired has acknowledged it, and all that those
//! devices had sealed before they did is here. Whatever they write from then on has it in its
//! context. So the versions of a row can be forgotten once all of them are stable and nothing is
//! open about the row, and a group once no version is remembered in it. Up to where each stream was
//! folded is its *floor*: a group whose author had not seen that far cannot be merged any more, and
//! its author starts anew from a snapshot.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};

use super::Engine;
use super::conflicts::ConflictKind;
use super::declare::WAITING_TABLES;
use super::error::{Error, Result};
use super::seal::SealOptions;

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Frames that were folded away.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Versions of rows that were forgotten.
    pub versions: u64,
    /// Frames that stay in the log.
    pub frames_left: u64,
    /// The device that holds back the most frames, and how many.
    pub held_back_by: Option<(String, u64)>,
}

/// Rows of which every version is stable and nothing is open.
const FORGET: &str = "
    FROM _pm_head AS h
    WHERE EXISTS (SELECT 1 FROM _pm_table t WHERE t.tid = h.tid AND t.state = 1)
      AND NOT EXISTS (SELECT 1 FROM _pm_conflict c WHERE c.tid = h.tid AND c.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM _pm_parked p WHERE p.tid = h.tid AND p.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM temp._pm_open o WHERE o.tid = h.tid AND o.key = h.key)
      AND NOT EXISTS (SELECT 1 FROM _pm_head o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = 0
                      WHERE o.tid = h.tid AND o.key = h.key AND o.dev <> 0 AND o.seq > coalesce(f.seq, 0))";

impl Engine {
    /// Folds away what every device that is not retired has; the digest stays as it is.
    ///
    /// Says in the log what this device has seen, if it has not said so yet: others can fold that
    /// once they hear of it.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn compact(&mut self) -> Result<CompactReport> {
        self.transaction(|e| {
            e.begin_settling()?;
            e.seal_here(SealOptions::default())?;
            if super::store::get::<bool>(&e.db, "unanswered")? == Some(true) {
                e.seal_here(SealOptions { answer: true, ..SealOptions::default() })?;
            }
            e.fold()
        })
    }

    fn fold(&self) -> Result<CompactReport> {
        let mut report = CompactReport::default();
        let (before, bytes): (u64, u64) = self.log_size()?;
        for dev in self.known_authors()? {
            for stream in Stream::ALL {
                let stable = self.stable(dev, stream)?;
                self.db
                    .prepare_cached(
                        "INSERT INTO _pm_floor (dev, stream, seq) VALUES (?1, ?2, ?3)
                         ON CONFLICT (dev, stream) DO UPDATE SET seq = max(seq, excluded.seq)",
                    )?
                    .execute((dev, stream.number(), stable))?;
            }
        }
        // Who wrote the rows of a conflict is listed as long as it is open, also of the one that is shown;
        // and should a row come in that is kept out, it must be known who claimed a value first.
        self.db.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS _pm_open (tid INTEGER, key BLOB, PRIMARY KEY (tid, key)) WITHOUT ROWID;
             DELETE FROM temp._pm_open",
        )?;
        for open in self.open_list()? {
            let kept_out = matches!(open.conflict.kind, ConflictKind::Unique(_) | ConflictKind::Check(_));
            let clashes =
                if kept_out { self.clashes(&*self.table(open.tid)?, &open.key)? } else { Vec::new() };
            for key in [open.key].into_iter().chain(open.holder).chain(clashes) {
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO temp._pm_open (tid, key) VALUES (?1, ?2)")?
                    .execute((open.tid, key))?;
            }
        }
        report.versions =
            self.db.execute(&format!("DELETE {FORGET} AND h.tid NOT IN ({WAITING_TABLES})"), [])? as u64;
        self.db.execute(
            &format!(
                "DELETE FROM _pm_count AS h WHERE h.tid NOT IN ({WAITING_TABLES}) AND NOT EXISTS (
                SELECT 1 FROM _pm_count o LEFT JOIN _pm_floor f ON f.dev = o.dev AND f.stream = 0
                WHERE o.tid = h.tid AND o.key = h.key AND o.seq > coalesce(f.seq, 0))"
            ),
            [],
        )?;
        self.db.execute(
            "DELETE FROM _pm_image AS i WHERE NOT EXISTS (
                SELECT 1 FROM _pm_head h WHERE h.tid = i.tid AND h.key = i.key AND h.dev = 0)",
            [],
        )?;
        // Rows of per-device tables that wait for their table are in no index: their frames stay.
        let waiting: bool = self.db.query_row(
            "SELECT EXISTS (SELECT 1 FROM _pm_table WHERE state IN (0, 3, 4))",
            [],
            |row| row.get(0),
        )?;
        let mut groups = self.db.prepare(
            "SELECT g.dev, g.stream, g.first, g.last FROM _pm_group g
             JOIN _pm_floor f ON f.dev = g.dev AND f.stream = g.stream AND g.last <= f.seq
             WHERE g.applied AND (g.stream = 0 OR NOT ?1) AND NOT EXISTS (
                SELECT 1 FROM _pm_head h WHERE g.stream = 0 AND h.dev = g.dev AND h.seq BETWEEN g.first AND g.last)",
        )?;
        self.db.execute_batch("CREATE INDEX IF NOT EXISTS _pm_head_place ON _pm_head (dev, seq)")?;
        let folded = groups
            .query_map([waiting], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<rusqlite::Result<Vec<(i64, i64, u64, u64)>>>()?;
        drop(groups);
        self.db.execute_batch("DROP INDEX _pm_head_place")?;
        self.drop_told_anew()?;
        for (dev, stream, first, last) in folded {
            self.db
                .prepare_cached(
                    "DELETE FROM _pm_frame WHERE dev = ?1 AND stream = ?2 AND seq BETWEEN ?3 AND ?4",
                )?
                .execute((dev, stream, first, last))?;
            self.db
                .prepare_cached("DELETE FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND last = ?3")?
                .execute((dev, stream, last))?;
        }
        self.forget_references()?;
        self.remember_schema()?;
        let (after, bytes_left) = self.log_size()?;
        report.frames = before - after;
        report.bytes = bytes - bytes_left;
        report.frames_left = after;
        report.held_back_by = self.held_back_by()?;
        Ok(report)
    }

    fn log_size(&self) -> Result<(u64, u64)> {
        Ok(self.db.query_row(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM _pm_frame",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?)
    }

    pub(crate) fn known_authors(&self) -> Result<Vec<i64>> {
        let mut statement = self.db.prepare_cached("SELECT DISTINCT dev FROM _pm_stream")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }

    /// The other devices that the log waits for; bases alone, of streams that only they take.
    fn waited_for(&self, stream: Stream) -> Result<Vec<i64>> {
        let mut statement = self.db.prepare_cached(
            "SELECT n, retired FROM _pm_device WHERE n <> ?1 AND n > 0 AND trust IN (1, 2) AND public_key IS NOT NULL
             AND (base OR ?2 = 0)",
        )?;
        let rows = statement
            .query_map((self.me, stream.number()), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(i64, bool)>>>()?;
        let mut waited_for = Vec::new();
        for (dev, retired) in rows {
            if !retired || !self.is_gone(dev)? {
                waited_for.push(dev);
            }
        }
        Ok(waited_for)
    }

    /// Whether a device that is retired need not be waited for any more: all others know that it is, and
    /// what they have of it is here too.
    fn is_gone(&self, dev: i64) -> Result<bool> {
        let (by, seq): (Option<i64>, Option<u64>) = self
            .db
            .prepare_cached("SELECT retired_by, retired_seq FROM _pm_device WHERE n = ?1")?
            .query_row([dev], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(by), Some(seq)) = (by, seq) else { return Ok(true) };
        let have = self.position(dev, Stream::Shared)?.seq;
        for peer in self.active_peers()? {
            let knows = self.acknowledged(peer, by, Stream::Shared)? >= seq;
            if !knows || self.said(peer, dev, Stream::Shared)? > have {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The other devices that are trusted and not retired.
    fn active_peers(&self) -> Result<Vec<i64>> {
        let mut statement = self.db.prepare_cached(
            "SELECT n FROM _pm_device WHERE n <> ?1 AND n > 0 AND trust IN (1, 2) AND public_key IS NOT NULL AND NOT retired",
        )?;
        Ok(statement.query_map([self.me], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }

    /// Up to where a peer said that it has a stream.
    fn said(&self, peer: i64, dev: i64, stream: Stream) -> Result<u64> {
        let seq: Option<u64> = super::value::maybe(
            &self.db,
            "SELECT seq FROM _pm_ack WHERE peer = ?1 AND dev = ?2 AND stream = ?3",
            (peer, dev, stream.number()),
        )?;
        Ok(seq.unwrap_or(0))
    }

    /// Whether this device has met no other yet, not even one that was retired.
    fn knows_nobody(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM _pm_device WHERE n <> ?1 AND n > 0 AND public_key IS NOT NULL LIMIT 1";
        Ok(super::value::maybe::<i64>(&self.db, sql, [self.me])?.is_none())
    }

    /// Up to where a peer is known to have a stream.
    fn acknowledged(&self, peer: i64, dev: i64, stream: Stream) -> Result<u64> {
        if peer == dev {
            return Ok(self.position(dev, stream)?.seq);
        }
        // What a peer said counts only once all that it had sealed before is here: that may be
        // concurrent with what it acknowledged.
        let whole = self.position(peer, Stream::Shared)?.seq >= self.said(peer, peer, Stream::Shared)?;
        let said = if whole { self.said(peer, dev, stream)? } else { 0 };
        let seen: Option<u64> = super::value::maybe(
            &self.db,
            "SELECT seq FROM _pm_context JOIN _pm_device ON n = ?1 AND NOT set_back
             WHERE dev = ?1 AND stream = 0 AND other = ?2 AND ?3 = 0",
            (peer, dev, stream.number()),
        )?;
        Ok(said.max(seen.unwrap_or(0)))
    }

    /// Up to where a stream is stable.
    fn stable(&self, dev: i64, stream: Stream) -> Result<u64> {
        let peers = self.waited_for(stream)?;
        if peers.is_empty() && (self.knows_nobody()? || (stream == Stream::Own && !self.identity.base)) {
            return Ok(0); // Nobody has taken it, since nobody is known who would.
        }
        let mut stable = self.position(dev, stream)?.seq;
        for peer in peers {
            stable = stable.min(self.acknowledged(peer, dev, stream)?);
        }
        Ok(stable)
    }

    /// The device that holds back the most frames of the log.
    pub(crate) fn held_back_by(&self) -> Result<Option<(String, u64)>> {
        let mut most: Option<(i64, u64)> = None;
        for stream in Stream::ALL {
            for peer in self.waited_for(stream)? {
                let mut lacking = 0;
                for dev in self.known_authors()? {
                    lacking +=
                        self.position(dev, stream)?.seq.saturating_sub(self.acknowledged(peer, dev, stream)?);
                }
                if lacking > 0 && most.is_none_or(|(_, n)| lacking > n) {
                    most = Some((peer, lacking));
                }
            }
        }
        match most {
            Some((peer, n)) => Ok(Some((self.device_label(peer)?, n))),
            None => Ok(None),
        }
    }

    /// Whether a group's author had not seen something that is folded away here.
    pub(crate) fn is_stale(&self, dev: i64, context: &[(DeviceId, u64)]) -> Result<bool> {
        if dev == self.me {
            return Ok(false);
        }
        let mut seen: HashMap<i64, u64> = self.context_of(dev, Stream::Shared)?.into_iter().collect();
        for (id, seq) in context {
            if let Some(other) = self.device_number(*id)? {
                seen.insert(other, *seq);
            }
        }
        let mut floors = self
            .db
            .prepare_cached("SELECT dev, seq FROM _pm_floor WHERE stream = 0 AND seq > 0 AND dev <> ?1")?;
        let mut rows = floors.query([dev])?;
        while let Some(row) = rows.next()? {
            let (other, floor): (i64, u64) = (row.get(0)?, row.get(1)?);
            if seen.get(&other).copied().unwrap_or(0) < floor {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a peer that has a stream up to `have` lacks frames that are folded away here.
    pub(crate) fn is_behind(&self, dev: i64, stream: Stream, have: u64) -> Result<bool> {
        Ok(have < self.floor(dev, stream)?)
    }

    /// Up to where a stream is folded away.
    pub(crate) fn floor(&self, dev: i64, stream: Stream) -> Result<u64> {
        let floor: Option<u64> = super::value::maybe(
            &self.db,
            "SELECT seq FROM _pm_floor WHERE dev = ?1 AND stream = ?2",
            (dev, stream.number()),
        )?;
        Ok(floor.unwrap_or(0))
    }

    /// Says that a device will not come back: the log waits for it no longer, once all others know.
    /// It travels. Take in its last bundle first: what others fold away without it, it cannot be
    /// merged with any more. Should it come back, it joins anew.
    ///
    /// # Errors
    /// [`Error::Usage`] for this device, [`Error::KeyMissing`], [`Error::Sqlite`].
    pub fn retire(&mut self, id: DeviceId) -> Result<()> {
        self.transaction(|e| {
            let dev = e.device_number_or_new(id)?;
            if dev == e.me {
                return Err(Error::Usage("a device cannot retire itself: retire it on another one".into()));
            }
            e.begin_settling()?;
            e.seal_here(SealOptions::default())?;
            e.seal_here(SealOptions { retire: Some(id), ..SealOptions::default() })?;
            Ok(())
        })
    }

    pub(crate) fn is_retired(&self, dev: i64) -> Result<bool> {
        let retired: Option<bool> =
            super::value::maybe(&self.db, "SELECT retired FROM _pm_device WHERE n = ?1", [dev])?;
        Ok(retired.unwrap_or(false))
    }

    /// Notes that a device is retired, and where in the log that was said; whether it goes on as another.
    pub(crate) fn note_retired(&self, id: DeviceId, said: Option<(i64, u64)>, goes_on: bool) -> Result<()> {
        let dev = self.device_number_or_new(id)?;
        let (by, seq) = said.unzip();
        self.db
            .prepare_cached(
                "UPDATE _pm_device SET retired = max(retired, ?4), retired_by = coalesce(retired_by, ?2),
                   retired_seq = coalesce(retired_seq, ?3) WHERE n = ?1",
            )?
            .execute((dev, by, seq, 1 + i64::from(goes_on)))?;
        Ok(())
    }

    /// Whether a device goes on as another one, which has told anew what only a snapshot would bring in.
    pub(crate) fn goes_on(&self, dev: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM _pm_device WHERE n = ?1 AND retired = 2";
        Ok(super::value::maybe::<i64>(&self.db, sql, [dev])?.is_some())
    }
}
