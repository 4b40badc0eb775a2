//! The versions of a row that no other dominates.

use std::collections::HashMap;

use packmule_core::merge::Version;
use packmule_core::model::{DeviceId, WallMs};
use packmule_core::wire::OpKind;

use crate::engine::error::{Error, Result};
use crate::engine::store::value;
use crate::engine::table::columns::Columns;
use crate::engine::table::replica::Replica;

/// A version of a row that no other dominates: a row of `_pm_head`.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub dev: i64,
    pub author: DeviceId,
    pub seq: u64,
    pub place: u32,
    pub claim: u64,
    pub wall: WallMs,
    pub kind: OpKind,
    /// The columns of which no later version is known; `None` if it wrote the whole row and no
    /// column of it was overwritten.
    pub columns: Option<Columns>,
    /// Of a version that is older than what is remembered: its values.
    pub image: Option<Vec<u8>>,
}

impl Head {
    /// The columns that it speaks for, of a table with `n`; a delete speaks for none.
    pub(crate) fn live(&self, n: usize) -> Columns {
        match (&self.columns, self.kind) {
            (_, OpKind::Delete) => Columns::default(),
            (Some(columns), _) => columns.clone(),
            (None, _) => Columns::all(n),
        }
    }

    pub(crate) fn version(&self) -> Version {
        Version { author: self.author, seq: self.seq, wall: self.wall, delete: self.kind == OpKind::Delete }
    }
}

/// What the author of an op had seen.
pub(crate) enum Seen<'c> {
    /// All that is here: the op is our own.
    All,
    /// Up to these, by device number.
    Context(&'c HashMap<i64, u64>),
    /// Up to these, and all of this author's own: what the author of a blind op had heard.
    Heard(i64, &'c HashMap<i64, u64>),
    /// Nothing that counts.
    Blind,
}

impl Seen<'_> {
    pub(crate) fn of(&self, dev: i64) -> u64 {
        match self {
            Seen::All => u64::MAX,
            Seen::Context(context) => context.get(&dev).copied().unwrap_or(0),
            Seen::Heard(author, _) if *author == dev => u64::MAX,
            Seen::Heard(_, context) => context.get(&dev).copied().unwrap_or(0),
            Seen::Blind => 0,
        }
    }
}

/// Where a definition stands in the log, and what its author had seen.
pub(crate) struct Stamp<'s> {
    pub dev: i64,
    pub seq: u64,
    pub lamport: u64,
    pub seen: &'s Seen<'s>,
    /// Its group settles conflicts.
    pub decides: bool,
}

/// What is being settled: a group of frames.
pub(crate) struct Cause<'s> {
    pub dev: i64,
    pub first: u64,
    pub seen: &'s Seen<'s>,
}

impl Cause<'_> {
    /// Whether its author had seen a version before.
    pub(crate) fn follows(&self, head: &Head) -> bool {
        if head.dev == self.dev { head.seq < self.first } else { head.seq <= self.seen.of(head.dev) }
    }

    pub(crate) fn made(&self, head: &Head) -> bool {
        head.dev == self.dev && head.seq >= self.first
    }
}

pub(crate) fn kind_number(kind: OpKind) -> i64 {
    match kind {
        OpKind::Insert => 1,
        OpKind::Update => 2,
        OpKind::Delete => 3,
    }
}

pub(crate) fn kind_from(number: i64) -> Result<OpKind> {
    match number {
        1 => Ok(OpKind::Insert),
        2 => Ok(OpKind::Update),
        3 => Ok(OpKind::Delete),
        _ => Err(Error::damaged("`_pm_head` has a row of an unknown kind")),
    }
}

/// The versions of a row that are known, in the order of device numbers.
pub(crate) fn heads(replica: &Replica, tid: i64, key: &[u8]) -> Result<Vec<Head>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT dev, seq, place, claim, wall, kind, (SELECT id FROM _pm_device WHERE n = dev), columns
         FROM _pm_head WHERE tid = ?1 AND key = ?2",
    )?;
    let mut rows = statement.query((tid, key))?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        heads.push(Head {
            dev: row.get(0)?,
            seq: row.get(1)?,
            place: row.get(2)?,
            claim: row.get(3)?,
            wall: row.get(4)?,
            kind: kind_from(row.get(5)?)?,
            author: DeviceId(row.get(6)?),
            columns: row.get_ref(7)?.as_blob_or_null().ok().flatten().map(Columns::of_bytes),
            image: None,
        });
    }
    if let Some(old) = heads.first_mut().filter(|head| head.dev == 0) {
        let sql = "SELECT body FROM _pm_image WHERE tid = ?1 AND key = ?2";
        old.image = value::maybe(&replica.db, sql, (tid, key))?;
    }
    Ok(heads)
}
