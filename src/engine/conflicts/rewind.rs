//! Rows as the log has them without some of its groups: as they were at a time, or without what one device wrote.
//!
//! Two walks through the log, in the order in which it is applied: the first finds the rows that the groups which are left
//! out wrote to, the second what all other groups say of these. They lie in a temporary table, so that memory does not
//! grow with their number. Of a row whose earlier versions are compacted away nobody knows what it was.
//!
//! A resolution of somebody else that wrote just what a group that is left out had written is left out with it: who took
//! that version had not heard what there is to hold against it.

use std::collections::BTreeMap;

use packmule_core::model::{DeviceId, Stream, Value, WallMs};
use packmule_core::wire::{FrameFlags, OpKind, take};

use crate::engine::capture::groups::Before;
use crate::engine::error::{Error, Result};
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::versions;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::known::OpDef;
use crate::engine::table::replica::Replica;

/// The longest value that is read of what a row was, in bytes: one at a time is in memory.
const LONGEST: u64 = 1 << 20;

/// Which groups are left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut {
    /// Those of this device; of all, if none is given.
    pub by: Option<DeviceId>,
    /// Those that were sealed then or later, by their authors' clocks.
    pub since: WallMs,
}

/// An op of a shared table.
struct Said<'a> {
    def: &'a OpDef,
    kind: OpKind,
    key: Vec<u8>,
    values: &'a [(usize, Value<'a>)],
    flags: FrameFlags,
}

impl Said<'_> {
    /// Returns whether it made the row. One that is restated, or settled by a verdict, was there before.
    fn makes(&self) -> bool {
        let says_again = self.flags.has(FrameFlags::RESTATED) || self.flags.has(FrameFlags::VERDICT);
        self.kind == OpKind::Insert && !says_again
    }

    /// Returns whether it is a decision for just these values, written over what was before; none: that the row is deleted.
    fn repeats(&self, theirs: Option<&[u8]>, before: Option<&[u8]>) -> Result<bool> {
        if !self.flags.has(FrameFlags::RESOLUTION) {
            return Ok(false);
        }
        let Some(theirs) = theirs else { return Ok(self.kind == OpKind::Delete) };
        if self.kind == OpKind::Delete {
            return Ok(false);
        }
        let mut whole: BTreeMap<String, OwnedValue> = BTreeMap::new();
        for part in before.into_iter().chain([theirs]) {
            whole.extend(versions::baseline_values(part)?);
        }
        for (at, value) in self.values {
            let column = &self.def.def.columns[*at];
            let same = column.key > 0
                || (!matches!(value, Value::Big(_))
                    && whole.get(&column.name) == Some(&OwnedValue::of(*value)?));
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Finds what the rows were to which the groups that are left out wrote.
pub(crate) fn find(replica: &Replica, left_out: LeftOut) -> Result<()> {
    replica.db.execute_batch(
        "DROP TABLE IF EXISTS temp._pm_former;
         CREATE TEMP TABLE _pm_former (tid INTEGER, key BLOB, state INTEGER, body BLOB, their_state INTEGER, theirs BLOB,
             PRIMARY KEY (tid, key)) WITHOUT ROWID",
    )?;
    let known = "SELECT state, body, their_state, theirs FROM temp._pm_former WHERE tid = ?1 AND key = ?2";
    walk(replica, left_out, true, &mut |said| {
        let state = if said.makes() { 0 } else { 2 };
        let sql = "INSERT OR IGNORE INTO temp._pm_former VALUES (?1, ?2, ?3, NULL, 1, NULL)";
        replica.db.prepare_cached(sql)?.execute((said.def.tid, &said.key, state))?;
        let before = replica
            .db
            .prepare_cached(known)?
            .query_row((said.def.tid, &said.key), |row| Ok((row.get(2)?, row.get(3)?)))?;
        let (state, body) = then(&said, before)?;
        let sql = "UPDATE temp._pm_former SET their_state = ?3, theirs = ?4 WHERE tid = ?1 AND key = ?2";
        replica.db.prepare_cached(sql)?.execute((said.def.tid, &said.key, state, body))?;
        Ok(())
    })?;
    walk(replica, left_out, false, &mut |said| {
        let mut statement = replica.db.prepare_cached(known)?;
        let mut found = statement.query((said.def.tid, &said.key))?;
        let Some(row) = found.next()? else { return Ok(()) };
        let before: (i64, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        let (their_state, theirs): (i64, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
        drop(found);
        if their_state < 2 && said.repeats(theirs.as_deref(), before.1.as_deref())? {
            return Ok(());
        }
        let (state, body) = then(&said, before)?;
        let sql = "UPDATE temp._pm_former SET state = ?3, body = ?4 WHERE tid = ?1 AND key = ?2";
        replica.db.prepare_cached(sql)?.execute((said.def.tid, &said.key, state, body))?;
        Ok(())
    })
}

/// Returns what a row is after an op: its state and its body.
fn then(said: &Said<'_>, before: (i64, Option<Vec<u8>>)) -> Result<(i64, Option<Vec<u8>>)> {
    match said.kind {
        OpKind::Delete => Ok((0, None)),
        OpKind::Keep => Ok(before),
        OpKind::Insert | OpKind::Update => after(said.def, said.kind, before, said.values),
    }
}

/// Returns a row after an insert or an update.
fn after(
    def: &OpDef,
    kind: OpKind,
    (state, body): (i64, Option<Vec<u8>>),
    values: &[(usize, Value<'_>)],
) -> Result<(i64, Option<Vec<u8>>)> {
    let whole = values.len() == def.def.columns.len();
    let large = values.iter().any(|(_, value)| matches!(value, Value::Big(_)));
    if large || (!whole && state == 2) {
        return Ok((2, None));
    }
    // Later values follow earlier ones of the same columns: who reads the row takes the last.
    let mut body = match body.filter(|_| !whole) {
        Some(body) => last_of_each(&body)?,
        None => Vec::new(),
    };
    let counts = |at: usize| def.def.counters().contains(&at) && kind == OpKind::Update;
    for (at, value) in values.iter().filter(|(at, _)| !counts(*at)) {
        value::push_named(&mut body, &def.def.columns[*at].name, value)?;
    }
    Ok((1, Some(body)))
}

/// Leaves the last value of each column of a body: else a row would grow with every write to it.
fn last_of_each(body: &[u8]) -> Result<Vec<u8>> {
    let bad = |e| Error::damaged(format!("a row as it was: {e}"));
    let (mut parts, mut rest) = (BTreeMap::new(), body);
    while !rest.is_empty() {
        let before = rest;
        let name: Value<'_> = take(&mut rest).map_err(bad)?;
        take::<Value<'_>>(&mut rest).map_err(bad)?;
        let Value::Text(name) = name else {
            return Err(Error::damaged("a column of a row as it was has no name"));
        };
        parts.insert(name, &before[..before.len() - rest.len()]);
    }
    Ok(parts.into_values().flatten().copied().collect())
}

/// Puts the long values that an op says together from their pieces, but for those that are too long; by their places.
fn put_together(
    replica: &Replica,
    frame: (i64, u64),
    said: &[(usize, Value<'_>)],
) -> Result<BTreeMap<usize, OwnedValue>> {
    let long = said.iter().enumerate().filter_map(|(place, (_, value))| match value {
        Value::Big(big) if big.len <= LONGEST => Some((place, big)),
        _ => None,
    });
    long.map(|(place, big)| Ok((place, versions::put_together(replica, frame, big)?))).collect()
}

/// What an op says, with the long values that were put together.
fn with<'v>(said: &[(usize, Value<'v>)], long: &'v BTreeMap<usize, OwnedValue>) -> Vec<(usize, Value<'v>)> {
    let value = |(place, (at, value)): (usize, &(usize, Value<'v>))| {
        (*at, long.get(&place).map_or(*value, OwnedValue::borrow))
    };
    said.iter().enumerate().map(value).collect()
}

/// Gives each op of the shared tables, of the groups that are left out or of all others.
fn walk(
    replica: &Replica,
    left_out: LeftOut,
    those: bool,
    each: &mut dyn FnMut(Said<'_>) -> Result<()>,
) -> Result<()> {
    let mut groups = replica.db.prepare(
        "SELECT g.dev, g.first, g.last, g.wall, d.id FROM _pm_group g JOIN _pm_device d ON d.n = g.dev
         WHERE g.stream = ?1 AND g.applied ORDER BY g.lamport, d.id, g.last",
    )?;
    let mut rows = groups.query([Stream::Shared.number()])?;
    while let Some(row) = rows.next()? {
        let (wall, author): (WallMs, DeviceId) = (row.get(3)?, DeviceId(row.get(4)?));
        let out = wall >= left_out.since && left_out.by.is_none_or(|by| by == author);
        if out != those {
            continue;
        }
        let (dev, first, last): (i64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        for seq in first..=last {
            let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
            let frame = frames::parse(&body)?;
            let flags = frame.head.flags;
            visit::visit(replica, &frame, |part| {
                let Part::Op(def, op) = part else { return Ok(()) };
                let key = def.key_of(op.values(def.shape()))?;
                let said: Vec<_> = op.values(def.shape()).collect();
                let long = put_together(replica, (dev, seq), &said)?;
                let values = with(&said, &long);
                each(Said { def, kind: op.head.kind, key, values: &values, flags })
            })?;
        }
    }
    Ok(())
}

/// Returns the first row that was found after this one; a counter that was only added to has no value.
pub(crate) fn next(replica: &Replica, after: &(i64, Vec<u8>)) -> Result<Option<(i64, Vec<u8>, Before)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT tid, key, state, body FROM temp._pm_former WHERE (tid, key) > (?1, ?2) ORDER BY tid, key LIMIT 1",
    )?;
    let mut rows = statement.query((after.0, &after.1))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let former = match row.get(2)? {
        0 => Before::Gone,
        1 => Before::Values(row.get::<_, Option<Vec<u8>>>(3)?.unwrap_or_default()),
        _ => Before::Untold,
    };
    Ok(Some((row.get(0)?, row.get(1)?, former)))
}

/// Returns what a frame, or another one of its group, says of a row: people are shown the frames of a group as one.
pub(crate) fn in_frame(replica: &Replica, (dev, seq): (i64, u64), row: (i64, &[u8])) -> Result<Before> {
    if let Some(said) = said_in_frame(replica, (dev, seq), row)? {
        return Ok(said);
    }
    let group = "SELECT f.seq FROM _pm_group g JOIN _pm_frame f USING (dev, stream)
                 WHERE g.dev = ?1 AND g.stream = ?2 AND ?3 BETWEEN g.first AND g.last AND f.seq BETWEEN g.first AND g.last";
    let mut statement = replica.db.prepare_cached(group)?;
    let mut frames = statement.query((dev, Stream::Shared.number(), seq))?;
    while let Some(frame) = frames.next()? {
        if let Some(said) = said_in_frame(replica, (dev, frame.get(0)?), row)? {
            return Ok(said);
        }
    }
    Err(Error::Usage(format!("frame {seq} of it writes nothing to that row")).into())
}

/// Returns what one frame says of a row, if it says anything.
pub(crate) fn said_in_frame(
    replica: &Replica,
    (dev, seq): (i64, u64),
    (tid, key): (i64, &[u8]),
) -> Result<Option<Before>> {
    let Some(body) = frames::frame(replica, dev, Stream::Shared, seq)? else {
        return Err(Error::Usage(format!(
            "frame {seq} of it is not in the log here: it may be compacted away"
        ))
        .into());
    };
    let mut found = None;
    visit::visit(replica, &frames::parse(&body)?, |part| {
        let Part::Op(def, op) = part else { return Ok(()) };
        if def.tid != tid || def.key_of(op.values(def.shape()))? != key {
            return Ok(());
        }
        let said: Vec<_> = op.values(def.shape()).collect();
        let long = put_together(replica, (dev, seq), &said)?;
        let values = with(&said, &long);
        found = Some(match op.head.kind {
            OpKind::Delete => Before::Gone,
            kind => match after(def, kind, (0, None), &values)? {
                (1, Some(body)) => Before::Values(body),
                _ => Before::Untold,
            },
        });
        Ok(())
    })?;
    Ok(found)
}

/// Takes the last value of each column of a body.
pub(crate) fn last_values(values: Vec<(usize, OwnedValue)>) -> Vec<(usize, OwnedValue)> {
    let by_column: BTreeMap<usize, OwnedValue> = values.into_iter().collect();
    by_column.into_iter().collect()
}
