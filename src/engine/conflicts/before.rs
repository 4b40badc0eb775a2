//! What a row was before each write to it, as the one who wrote it had it.
//!
//! The walk through the log comes by the writes in the order in which they are applied. Of each row the last versions are kept,
//! each with what it wrote and with all that is known of the row there; a write begins from the first of them that its author had
//! seen, and what the later ones wrote that it had seen. They lie in a temporary table, so that memory does not grow with the
//! number of rows.
//!
//! What is folded nobody knows, nor what an author had seen that had not heard of many writes to a row. Of verdicts and restated
//! rows nothing is told: nobody wrote them.

use std::collections::HashMap;

use packmule_core::model::Stream;
use packmule_core::wire::{Frame, FrameFlags, OpKind};

use crate::engine::error::Result;
use crate::engine::fleet::devices;
use crate::engine::log::contexts;
use crate::engine::merge::versions;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::replica::Replica;

/// So many versions of a row are kept.
const KEPT: u32 = 16;

/// Values of a row, by column.
type Values = Vec<(String, OwnedValue)>;

/// What rows were, as far as the walk has come.
pub(super) struct Befores<'e> {
    replica: &'e Replica,
    /// Up to which frame of each other device each author had seen, by their numbers here.
    seen: HashMap<i64, HashMap<i64, u64>>,
    /// How many versions there were.
    n: i64,
}

/// Where a write is in the log.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub dev: i64,
    pub stream: Stream,
    pub seq: u64,
    pub flags: FrameFlags,
}

/// A write, as the log has it.
pub(super) struct Write<'w> {
    pub place: Place,
    /// The table and the key.
    pub row: (i64, &'w [u8]),
    pub kind: OpKind,
    pub values: &'w [(String, OwnedValue)],
}

impl<'e> Befores<'e> {
    pub(super) fn new(replica: &'e Replica) -> Result<Self> {
        replica.db.execute_batch(
            "DROP TABLE IF EXISTS temp._pm_before;
             CREATE TEMP TABLE _pm_before (tid INTEGER, key BLOB, n INTEGER, dev INTEGER, seq INTEGER, gone INTEGER,
                 said BLOB, body BLOB,
                 PRIMARY KEY (tid, key, n)) WITHOUT ROWID",
        )?;
        Ok(Self { replica, seen: HashMap::new(), n: 0 })
    }

    /// Hears what the author of a frame had seen.
    pub(super) fn hear(&mut self, dev: i64, stream: Stream, frame: &Frame<'_>) -> Result<()> {
        if stream != Stream::Shared {
            return Ok(()); // Its rows are its author's alone.
        }
        let seen = self.seen.entry(dev).or_default();
        for (id, seq) in contexts::context(self.replica, dev, stream, frame)? {
            if let Some(other) = devices::device_number(self.replica, id)? {
                seen.insert(other, seq);
            }
        }
        Ok(())
    }

    /// Returns what was there before a write of what it has changed; of a deleted row all that is known.
    pub(super) fn of(&mut self, write: &Write<'_>) -> Result<Values> {
        if write.place.flags.has(FrameFlags::VERDICT) || write.place.flags.has(FrameFlags::RESTATED) {
            return Ok(Vec::new());
        }
        let mut was = self.seen_by(write)?;
        if write.kind == OpKind::Delete {
            self.keep(write, &[])?;
            return Ok(was);
        }
        let named = |name: &str| was.iter().find(|(of, _)| of == name);
        let written = write.values.iter().filter_map(|(name, value)| Some((value, named(name)?)));
        let before = written.filter(|(value, was)| was.1 != **value).map(|(_, was)| was.clone()).collect();
        put_over(&mut was, write.values);
        self.keep(write, &was)?;
        Ok(before)
    }

    /// Returns what a row was by the versions that a write's author had seen.
    fn seen_by(&self, write: &Write<'_>) -> Result<Values> {
        let sql =
            "SELECT dev, seq, gone, said, body FROM temp._pm_before WHERE tid = ?1 AND key = ?2 ORDER BY n";
        let mut statement = self.replica.db.prepare_cached(sql)?;
        let mut rows = statement.query(write.row)?;
        let alone = write.place.stream != Stream::Shared || write.place.flags.has(FrameFlags::CONTEXT_FREE);
        let seen = self.seen.get(&write.place.dev).filter(|_| !alone);
        let (mut was, mut any) = (Vec::new(), false);
        while let Some(version) = rows.next()? {
            let (dev, seq): (i64, u64) = (version.get(0)?, version.get(1)?);
            if dev == write.place.dev
                || seen.and_then(|seen| seen.get(&dev)).is_some_and(|up_to| seq <= *up_to)
            {
                if version.get(2)? {
                    was.clear();
                }
                let body: Vec<u8> = version.get(if any { 3 } else { 4 })?;
                put_over(&mut was, &versions::named_values(&body, OwnedValue::told_of)?);
                any = true;
            }
        }
        Ok(was)
    }

    fn keep(&mut self, write: &Write<'_>, now: &[(String, OwnedValue)]) -> Result<()> {
        let db = &self.replica.db;
        self.n += 1;
        let (tid, key) = write.row;
        let gone = write.kind == OpKind::Delete;
        let (said, body) = (encoded(write.values)?, encoded(now)?);
        db.prepare_cached("INSERT INTO temp._pm_before VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute((tid, key, self.n, write.place.dev, write.place.seq, gone, said, body))?;
        let sql = "DELETE FROM temp._pm_before WHERE tid = ?1 AND key = ?2 AND n <=
            (SELECT n FROM temp._pm_before WHERE tid = ?1 AND key = ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3)";
        db.prepare_cached(sql)?.execute((tid, key, KEPT))?;
        Ok(())
    }
}

fn encoded(values: &[(String, OwnedValue)]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    values.iter().try_for_each(|(name, value)| value::push_named(&mut body, name, &value.borrow()))?;
    Ok(body)
}

/// Puts values in the place of those of the same columns.
fn put_over(row: &mut Values, values: &[(String, OwnedValue)]) {
    for (name, value) in values {
        match row.iter_mut().find(|(of, _)| of == name) {
            Some((_, was)) => was.clone_from(value),
            None => row.push((name.clone(), value.clone())),
        }
    }
}
