//! Per-device streams in which a base went on over frames that it has not.
//!
//! A base that is added late meets a board whose frames are folded. The board seals again the rows that it still has; what
//! it has pruned another base has, by whose word it did. The late base has the stream up to its end then, and must not say
//! so to who could fill the gap.
//!
//! **Rule.** As long as a base that counts has said that it has what the gap lacks, this device says that it has the stream
//! up to the gap alone: so it is sent what that base has, as frames or as what that has gathered. Meanwhile it folds nothing
//! of the stream: what comes after the gap is applied once more when that is filled (`apply/refill.rs`). It says so, too,
//! where the author says that it has no more itself, until that has reissued its rows: what it lost with a backup is
//! nowhere, but a copy of its card can have said so. Where else no base has it, nothing is claimed less: a board would seal
//! its rows again for nothing, and nobody would fold. A base that has the same gap says so with what it has gathered.

use packmule_core::model::Stream;
use packmule_core::wire::{Chain, Position};

use crate::engine::error::Result;
use crate::engine::fleet::positions::{self, StreamPosition};
use crate::engine::fleet::{devices, membership, trust};
use crate::engine::store::{meta, value};
use crate::engine::table::replica::Replica;

/// Frames of a per-device stream that a base has not, though it has later ones.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    /// The last frame before it, with the chain there.
    pub had: StreamPosition,
    /// The last frame in it.
    pub up_to: u64,
    /// The bases that are known to have the same gap, by number.
    pub alike: Vec<i64>,
}

impl Gap {
    /// Returns what is left of it for who has the stream up to `had`, and what comes after `known`, a gap, too.
    pub(crate) fn beyond(self, had: StreamPosition, known: Option<&Self>) -> Option<Self> {
        let up_to = known.map_or(self.up_to, |known| self.up_to.min(known.up_to));
        let had = if self.had.seq < had.seq { had } else { self.had };
        Some(Self { had, up_to, ..self }).filter(|gap| gap.had.seq < gap.up_to)
    }
}

/// The name under which `_pm_meta` has the gap in a device's per-device stream.
fn name(dev: i64) -> String {
    format!("gap {dev}")
}

/// Finds the gap in a device's per-device stream.
pub(crate) fn gap(replica: &Replica, dev: i64) -> Result<Option<Gap>> {
    let read = |bytes: Vec<u8>| {
        let (had, rest) = bytes.split_first_chunk()?;
        let (up_to, rest) = rest.split_first_chunk()?;
        let (chain, rest) = rest.split_first_chunk()?;
        let had = StreamPosition { seq: u64::from_be_bytes(*had), chain: Chain(*chain) };
        let alike = rest.as_chunks().0.iter().map(|n| i64::from_be_bytes(*n)).collect();
        Some(Gap { had, up_to: u64::from_be_bytes(*up_to), alike })
    };
    let gap = meta::get::<Vec<u8>>(&replica.db, &name(dev))?.and_then(read);
    let seq = positions::position(replica, dev, Stream::PerDevice)?.seq;
    Ok(gap.filter(|gap| gap.up_to <= seq))
}

/// Records that a device's per-device stream has a gap here.
pub(crate) fn record(replica: &Replica, dev: i64, gap: &Gap) -> Result<()> {
    let mut bytes = [&gap.had.seq.to_be_bytes()[..], &gap.up_to.to_be_bytes(), &gap.had.chain.0].concat();
    gap.alike.iter().for_each(|base| bytes.extend(base.to_be_bytes()));
    meta::set(&replica.db, &name(dev), bytes)
}

/// Forgets the gap in a device's per-device stream: it is filled.
pub(crate) fn close(replica: &Replica, dev: i64) -> Result<()> {
    meta::forget(&replica.db, &asked(dev))?;
    meta::forget(&replica.db, &name(dev))
}

/// The name under which `_pm_meta` has that a device is asked for what a gap lacks of its own stream.
fn asked(dev: i64) -> String {
    format!("asked {dev}")
}

/// Records whether a device is asked for what a gap lacks of its own stream.
pub(crate) fn ask(replica: &Replica, dev: i64, is_asked: bool) -> Result<()> {
    if is_asked { meta::set(&replica.db, &asked(dev), true) } else { meta::forget(&replica.db, &asked(dev)) }
}

/// Returns whether all that was taken in after a gap is in the log.
pub(crate) fn is_rest_in_log(replica: &Replica, dev: i64, gap: &Gap) -> Result<bool> {
    let frames: Option<u64> = value::maybe(
        &replica.db,
        "SELECT sum(last - first + 1) FROM _pm_group WHERE dev = ?1 AND stream = ?2 AND first > ?3 AND applied",
        (dev, Stream::PerDevice.number(), gap.up_to),
    )?
    .flatten();
    let seq = positions::position(replica, dev, Stream::PerDevice)?.seq;
    Ok(gap.up_to + frames.unwrap_or(0) == seq)
}

/// Returns whether a device says that it lacks frames of its own per-device stream up to this one, and no base has them.
pub(crate) fn is_lost_to_all(replica: &Replica, dev: i64, up_to: u64) -> Result<bool> {
    let has = |peer| {
        membership::said(replica, peer, dev, Stream::PerDevice).map(|said| said.map(|said| said >= up_to))
    };
    for base in membership::active_bases(replica)? {
        if base != dev && has(base)? == Some(true) {
            return Ok(false);
        }
    }
    Ok(has(dev)? == Some(false))
}

/// Finds the gap in a device's per-device stream which another base is to fill, or the author, should it not have lost it.
pub(crate) fn to_be_filled(replica: &Replica, dev: i64) -> Result<Option<Gap>> {
    let Some(gap) = gap(replica, dev)? else { return Ok(None) };
    if meta::get(&replica.db, &asked(dev))?.unwrap_or(false) {
        let whole = is_rest_in_log(replica, dev, &gap)?;
        return Ok(Some(gap).filter(|_| whole));
    }
    for base in membership::active_bases(replica)? {
        let said = membership::said(replica, base, dev, Stream::PerDevice)?;
        if !gap.alike.contains(&base)
            && said.is_some_and(|seq| seq >= gap.up_to)
            && trust::is_base_by_fleet(replica, base)?
        {
            let whole = is_rest_in_log(replica, dev, &gap)?;
            return Ok(Some(gap).filter(|_| whole));
        }
    }
    Ok(None)
}

/// Lists what this device says that it has applied, in the order of authors and streams.
pub(crate) fn said_vector(replica: &Replica) -> Result<Vec<Position>> {
    let mut vector = positions::vector(replica)?;
    let any = "SELECT 1 FROM _pm_meta WHERE k > 'gap ' AND k < 'gap :'";
    if !replica.db.prepare_cached(any)?.exists([])? {
        return Ok(vector);
    }
    for entry in vector.iter_mut().filter(|entry| entry.stream == Stream::PerDevice) {
        if let Some(dev) = devices::device_number(replica, entry.author)?
            && let Some(gap) = to_be_filled(replica, dev)?
        {
            (entry.seq, entry.tag) = (gap.had.seq, gap.had.chain.tag());
        }
    }
    vector.retain(|entry| entry.seq > 0);
    Ok(vector)
}
