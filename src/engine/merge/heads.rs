//! Heads: the versions of a row that no other version dominates, and what the author of an op had seen.

use std::collections::HashMap;

use packmule_core::merge::Version;
use packmule_core::model::{DeviceId, WallMs};
use packmule_core::wire::{KeptRun, OpKind};

use crate::engine::error::Result;
use crate::engine::fleet::devices::{self, BASELINE};
use crate::engine::merge::kind::Kind;
use crate::engine::merge::stretches;
use crate::engine::store::value;
use crate::engine::table::catalog;
use crate::engine::table::columns::Columns;
use crate::engine::table::opened::OpPlace;
use crate::engine::table::replica::Replica;
use crate::engine::table::stretch::Stretch;

/// A version of a row that no other dominates: a row of `_pm_head`.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub dev: i64,
    pub author: DeviceId,
    /// The frame that its op is in, and where it is there.
    pub seq: u64,
    pub place: OpPlace,
    /// It is in a stretch: see `stretches.rs`.
    pub stretched: bool,
    /// When it claimed its unique values: a Lamport timestamp.
    pub claim: u64,
    pub wall: WallMs,
    pub kind: OpKind,
    /// It is restated: of a table that its application has made anew. See `merge/restated.rs`.
    pub weak: bool,
    /// The columns of which no later version is known; `None` if it wrote the whole row and no
    /// column of it was overwritten.
    pub columns: Option<Columns>,
    /// The values of a baseline version, which is in no log.
    pub baseline: Option<Vec<u8>>,
}

impl Head {
    /// Makes a baseline version of this number: it is nobody's, and older than all others.
    pub(crate) fn baseline(number: u64, columns: Option<Columns>) -> Self {
        Self {
            dev: BASELINE,
            author: DeviceId([0; 16]),
            seq: number,
            place: OpPlace::At(0),
            stretched: false,
            claim: 0,
            wall: WallMs::MIN,
            kind: OpKind::Insert,
            weak: false,
            columns,
            baseline: None,
        }
    }

    /// Makes the version that a row with this integer key has in a stretch.
    fn in_stretch(stretch: &Stretch, key: i64, author: DeviceId) -> Self {
        Self {
            dev: stretch.dev,
            author,
            seq: stretch.seq,
            place: OpPlace::OfKey(stretch.tid, key),
            stretched: true,
            claim: stretch.claim,
            wall: stretch.wall,
            kind: stretch.kind,
            weak: false,
            columns: None,
            baseline: None,
        }
    }

    /// Returns the columns that it speaks for, of a table with `n`; a delete speaks for none.
    pub(crate) fn live(&self, n: usize) -> Columns {
        match (&self.columns, self.kind) {
            (_, OpKind::Delete) => Columns::default(),
            (Some(columns), _) => columns.clone(),
            (None, _) => Columns::all(n),
        }
    }

    /// Returns what is left of it where it is here and there, of a table with `n` columns: a column that either side knows
    /// to be overwritten is. It claims as early as either side knows.
    pub(crate) fn left_with(&self, other: &Self, n: usize) -> Option<Self> {
        let both = self.live(n).minus(&Columns::all(n).minus(&other.live(n)));
        let head = Self { claim: self.claim.min(other.claim), ..self.clone() };
        if self.kind == OpKind::Delete || both == self.live(n) {
            return Some(head);
        }
        (!both.is_empty()).then_some(Self { columns: Some(both), ..head })
    }

    /// Returns whether it is a settled value that a verdict says: it claims its unique values before all others.
    pub(crate) fn settles(&self) -> bool {
        self.dev != BASELINE && self.kind == OpKind::Insert && self.claim == 0
    }

    /// Returns what decides about this version among others. Baseline versions count from 1 there: who has seen none has
    /// not seen number 0 either.
    pub(crate) fn version(&self) -> Version {
        let seq = self.seq + u64::from(self.dev == BASELINE);
        Version { author: self.author, seq, wall: self.wall, delete: self.kind == OpKind::Delete }
    }
}

/// Returns whether a version is among these.
pub(crate) fn is_in(heads: &[Head], head: &Head) -> bool {
    heads.iter().any(|other| (other.dev, other.seq) == (head.dev, head.seq))
}

/// What the author of an op had seen.
pub(crate) enum Seen<'c> {
    /// All that is here: the op is our own.
    All,
    /// Up to these, by device number.
    Context(&'c HashMap<i64, u64>),
    /// Nothing that counts.
    ContextFree,
    /// Up to these; the op is a verdict's, which leaves the versions in these runs of frames.
    Verdict(&'c HashMap<i64, u64>, &'c [Kept]),
}

/// Frames of one device whose versions a verdict leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub dev: i64,
    pub first: u64,
    pub last: u64,
}

/// Returns runs of frames with the devices' numbers here. Devices that nobody here has heard of have no versions here.
pub(crate) fn kept_here(replica: &Replica, runs: impl Iterator<Item = KeptRun>) -> Result<Vec<Kept>> {
    let mut keep = Vec::new();
    for KeptRun { device, first, last } in runs {
        if let Some(dev) = devices::device_number(replica, device)? {
            keep.push(Kept { dev, first, last });
        }
    }
    Ok(keep)
}

/// Up to which frame of each device an author had seen, by device number.
pub(crate) type Vector = HashMap<i64, u64>;

impl Seen<'_> {
    /// Returns up to which of a device's frames the author had seen.
    pub(crate) fn of(&self, dev: i64) -> u64 {
        match self {
            Seen::All => u64::MAX,
            Seen::Context(context) | Seen::Verdict(context, _) => context.get(&dev).copied().unwrap_or(0),
            Seen::ContextFree => 0,
        }
    }

    /// Returns whether a verdict says that a version stays.
    pub(crate) fn keeps(&self, head: &Head) -> bool {
        self.keeps_at(head.dev, head.seq)
    }

    /// Returns whether a verdict says that what a frame of a device says stays.
    pub(crate) fn keeps_at(&self, dev: i64, seq: u64) -> bool {
        let Seen::Verdict(_, runs) = self else { return false };
        runs.iter().any(|run| run.dev == dev && (run.first..=run.last).contains(&seq))
    }
}

/// Where a definition stands in the log, and what its author had seen.
pub(crate) struct Stamp<'s> {
    pub dev: i64,
    pub seq: u64,
    pub lamport: u64,
    pub seen: &'s Seen<'s>,
    /// Whether its group resolves conflicts.
    pub decides: bool,
}

/// Returns whether any row of a table has heads.
pub(crate) fn has_any(replica: &Replica, tid: i64) -> Result<bool> {
    stretches::pause(replica)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM _pm_head WHERE tid = ?1) OR EXISTS (SELECT 1 FROM _pm_stretch WHERE tid = ?1)";
    Ok(value::maybe(&replica.db, sql, [tid])?.unwrap_or(true))
}

/// Reads the heads of a row, in the order of device numbers: a baseline version comes first. A restated version hides
/// what it was written over.
pub(crate) fn heads(replica: &Replica, tid: i64, key: &[u8]) -> Result<Vec<Head>> {
    let heads = all_heads(replica, tid, key)?;
    if heads.iter().all(|head| !head.weak) {
        return Ok(heads);
    }
    Ok(hide_restated(heads, catalog::table(replica, tid)?.def.columns.len()))
}

/// Takes from the heads of a row what restated ones among them hide, of a table with `n` columns.
fn hide_restated(heads: Vec<Head>, n: usize) -> Vec<Head> {
    if heads.iter().any(|head| head.weak && head.kind == OpKind::Delete) {
        // Of two that are concurrent, one may have only a part of the row.
        return heads.into_iter().filter(|head| head.weak && head.kind == OpKind::Delete).collect();
    }
    let mut hidden = Columns::default();
    heads.iter().filter(|head| head.weak).for_each(|head| hidden.extend(&head.live(n)));
    // A row that is restated as a whole is there again, over the deletes that its author had seen. One of a part of it decides
    // nothing about the row, and one of which nothing is left neither.
    let is_back = |head: &Head| head.weak && head.kind == OpKind::Insert && !head.live(n).is_empty();
    let is_back = heads.iter().any(is_back);
    let left = heads.into_iter().filter_map(|head| {
        if head.weak || (head.kind == OpKind::Delete && !is_back) {
            return Some(head);
        }
        let rest = head.live(n).minus(&hidden);
        if rest.is_empty() { None } else { Some(Head { columns: Some(rest), ..head }) }
    });
    left.collect()
}

/// Reads the heads of a row, with those that restated versions hide.
pub(crate) fn all_heads(replica: &Replica, tid: i64, key: &[u8]) -> Result<Vec<Head>> {
    if let Some(integer) = value::integer_key(key) {
        if let Some(stretch) = stretches::find(replica, tid, integer)? {
            let author = devices::device_id(replica, stretch.dev)?;
            return Ok(vec![Head::in_stretch(&stretch, integer, author)]);
        }
        if !stretches::may_be_loose(replica, tid)? {
            return Ok(Vec::new());
        }
    }
    let mut heads = heads_in(replica, "_pm_head", tid, key)?;
    for head in heads.iter_mut().take_while(|head| head.dev == BASELINE) {
        head.baseline = if head.seq == 0 {
            value::maybe(&replica.db, "SELECT body FROM _pm_image WHERE tid = ?1 AND key = ?2", (tid, key))?
        } else {
            let sql = "SELECT body FROM _pm_unplaced WHERE tid = ?1 AND key = ?2 AND n = ?3";
            value::maybe(&replica.db, sql, (tid, key, head.seq))?.flatten()
        };
    }
    Ok(heads)
}

/// Reads the heads of a row from a table like `_pm_head`, without the values of baseline versions.
pub(crate) fn heads_in(replica: &Replica, from: &str, tid: i64, key: &[u8]) -> Result<Vec<Head>> {
    const SQL: &str =
        "SELECT dev, seq, place, claim, wall, kind, (SELECT id FROM _pm_device WHERE n = dev), columns
         FROM _pm_head WHERE tid = ?1 AND key = ?2 ORDER BY dev, seq";
    let mut statement = match from {
        "_pm_head" => replica.db.prepare_cached(SQL)?,
        other => replica.db.prepare_cached(&SQL.replacen("_pm_head", other, 1))?,
    };
    let mut rows = statement.query((tid, key))?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        let Kind(kind, weak) = row.get(5)?;
        heads.push(Head {
            dev: row.get(0)?,
            seq: row.get(1)?,
            place: match (row.get(2)?, value::integer_key(key)) {
                (OpPlace::BY_KEY, Some(integer)) => OpPlace::OfKey(tid, integer),
                (offset, _) => OpPlace::At(offset),
            },
            stretched: false,
            claim: row.get(3)?,
            wall: row.get(4)?,
            kind,
            weak,
            author: DeviceId(row.get(6)?),
            columns: row.get_ref(7)?.as_blob_or_null().ok().flatten().map(Columns::of_bytes),
            baseline: None,
        });
    }
    Ok(heads)
}
