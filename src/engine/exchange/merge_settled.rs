//! What is settled under versions that speak for a part of a row, where neither side had seen all that is settled on the
//! other: such values meet as settled rows do, for the columns of which the versions do not speak.
//!
//! **Marks.** A verdict may say only what stays of a row, and have no version of it. What is settled at a maker that had not
//! seen such a verdict may be what the verdict removed: it does not simply take the place of the row here, but waits for a
//! verdict. The verdicts that the maker had not seen are still in the log.

use std::collections::HashMap;

use packmule_core::model::Stream;
use packmule_core::wire::{FrameFlags, OpKind};

use crate::engine::error::Result;
use crate::engine::fleet::devices::BASELINE;
use crate::engine::fleet::positions;
use crate::engine::log::frames;
use crate::engine::log::visit::{self, Part};
use crate::engine::merge::heads::Head;
use crate::engine::merge::late;
use crate::engine::store::value::OwnedValue;
use crate::engine::table::columns::Columns;
use crate::engine::table::known::Table;
use crate::engine::table::replica::Replica;

/// The watermarks of one side, by device number.
#[derive(Default)]
pub(super) struct Folded(HashMap<i64, u64>);

impl Folded {
    pub(super) fn of(floors: Vec<(i64, u64)>) -> Self {
        Self(floors.into_iter().collect())
    }

    /// Returns whether this side has folded a frame.
    pub(super) fn has(&self, dev: i64, seq: u64) -> bool {
        self.0.get(&dev).is_some_and(|last| seq <= *last)
    }

    /// Returns what is left of a version that is none of the heads of this side though that has applied it: what is settled
    /// here under these heads, if it can have been folded. All that is settled here is known to the other side, so it is what
    /// this version says; of all other columns it was dominated. It claims its unique values as what is settled does.
    pub(super) fn part(&self, table: &Table, head: &Head, heads: &[Head]) -> Option<Head> {
        let n = table.def.columns.len();
        let whole = |head: &Head| head.columns.is_none() || head.kind == OpKind::Delete;
        let covers = |other: &Head| whole(other) || other.weak || other.dev == BASELINE;
        if !self.has(head.dev, head.seq)
            || head.kind == OpKind::Delete
            || head.weak
            || heads.iter().any(covers)
        {
            return None;
        }
        let spoken = heads.iter().fold(Columns::default(), |mut spoken, other| {
            spoken.extend(&other.live(n));
            spoken
        });
        let left = head.live(n).minus(&spoken);
        let not = table.counted_or_key();
        (!left.clone().minus(&not).is_empty()).then(|| Head { columns: Some(left), claim: 0, ..head.clone() })
    }
}

/// What is settled of a row: its values, and the columns of which no version there speaks.
pub(super) struct Settled {
    row: Vec<OwnedValue>,
    columns: Columns,
}

impl Settled {
    /// Finds what is settled under heads of a row; `row` is what it shows there. `None` if that is nothing.
    /// Of the columns `unsaid` nobody has written anything.
    pub(super) fn under(
        table: &Table,
        heads: &[Head],
        row: Option<(Vec<OwnedValue>, Columns)>,
    ) -> Option<Self> {
        let (row, unsaid) = row?;
        let n = table.def.columns.len();
        let whole = |head: &Head| head.columns.is_none() || head.kind == OpKind::Delete;
        if heads.iter().any(|head| whole(head) || head.weak || head.dev == BASELINE) {
            return None;
        }
        let not = table.counted_or_key();
        let columns = heads.iter().fold(Columns::all(n).minus(&not), |left, head| left.minus(&head.live(n)));
        let columns = columns.minus(&unsaid);
        (!columns.is_empty()).then_some(Self { row, columns })
    }

    /// Returns whether another has another value in a column of this, or a version says something of one.
    fn is_met(&self, other: Option<&Self>, versions: &[Head]) -> bool {
        let n = self.row.len();
        let differs = |other: &Self, at: usize| other.columns.contains(at) && self.row[at] != other.row[at];
        versions.iter().any(|head| self.columns.meets(&head.live(n)))
            || other.is_some_and(|other| (0..n).any(|at| self.columns.contains(at) && differs(other, at)))
    }

    /// Returns whether it speaks for a column with another value than a row that is settled.
    pub(super) fn differs(&self, row: Option<&[OwnedValue]>) -> bool {
        (0..self.row.len())
            .any(|at| self.columns.contains(at) && row.is_none_or(|row| row[at] != self.row[at]))
    }

    /// Keeps it until the verdict. Returns its baseline version.
    pub(super) fn keep(&self, replica: &Replica, table: &Table, key: &[u8], number: u64) -> Result<Head> {
        late::add_baseline(replica, table, key, number, &self.row, &self.columns)
    }
}

/// Keeps of a row that has versions on both sides what is settled under them and met by what the other side has new.
/// Returns the baseline versions.
pub(super) fn keep_both(
    replica: &Replica,
    table: &Table,
    key: &[u8],
    (mine, theirs): (Option<Settled>, Option<Settled>),
    (my_new, their_new): &(Vec<Head>, Vec<Head>),
) -> Result<Vec<Head>> {
    let mut kept = Vec::new();
    for (settled, other, new, number) in [(&mine, &theirs, their_new, 1), (&theirs, &mine, my_new, 2)] {
        if let Some(settled) = settled
            && settled.is_met(other.as_ref(), new)
        {
            kept.push(settled.keep(replica, table, key, number)?);
        }
    }
    Ok(kept)
}

/// Lists in `_pm_marked` the rows of which verdicts that are not within a vector say only what stays.
pub(super) fn list_marked(replica: &Replica, vector: &HashMap<i64, u64>) -> Result<()> {
    let mut put =
        replica.db.prepare_cached("INSERT OR IGNORE INTO temp._pm_marked (tid, key) VALUES (?1, ?2)")?;
    each_marked(replica, vector, &mut |tid, key| {
        put.execute((tid, key))?;
        Ok(())
    })
}

/// Gives the rows, by table and key, of which verdicts that are not within a vector say only what stays.
pub(crate) fn each_marked(
    replica: &Replica,
    vector: &HashMap<i64, u64>,
    each: &mut dyn FnMut(i64, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let shared = Stream::Shared.number();
    let mut groups = replica
        .db
        .prepare("SELECT dev, first, last FROM _pm_group WHERE stream = ?1 AND applied ORDER BY dev, last")?;
    let mut found = groups.query([shared])?;
    while let Some(row) = found.next()? {
        let (dev, first, last): (i64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !positions::lacks(vector, dev, last) {
            continue;
        }
        for seq in first..=last {
            let body = frames::frame_here(replica, dev, Stream::Shared, seq)?;
            let frame = frames::parse(&body)?;
            if !frame.head.flags.has(FrameFlags::VERDICT) {
                break; // All frames of a group are of a kind.
            }
            visit::visit_defined(replica, &frame, |part| {
                if let Part::Op(def, op) = part
                    && op.head.kind == OpKind::Keep
                {
                    each(def.tid, def.key_of(op.values(def.shape()))?)?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}
