//! What a snapshot's maker has of what is here, by what it has applied and by its probes.

use std::collections::HashMap;

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Position, Probe};

use crate::engine::error::Result;
use crate::engine::exchange::twin;
use crate::engine::fleet::peers::PeerEvidence;
use crate::engine::fleet::{devices, membership, positions};
use crate::engine::store::value;
use crate::engine::table::replica::Replica;

/// What a snapshot's maker has of what is here.
#[derive(Default)]
pub(super) struct Heard {
    /// Up to where it, or any base, has what this device wrote, by stream.
    pub own: [u64; 2],
    /// Another device goes on under this device's identity.
    pub another: bool,
    /// The maker has another history of a third device than is here.
    pub another_of_others: bool,
    /// The groups of others that it has not applied, if one of these is so or they are pending there: nobody but
    /// this device may be able to bring them in.
    pub others: Vec<Group>,
}

/// A group of the log.
pub(super) struct Group {
    pub dev: i64,
    pub stream: Stream,
    pub first: u64,
    pub last: u64,
}

/// What is known of one stream of this device at the maker.
#[derive(Clone, Copy)]
struct OwnStream {
    /// Up to here the maker has applied it.
    applied: u64,
    /// Up to here it has applied the same as is here.
    same: u64,
    /// Up to here the histories can be one.
    bound: u64,
}

/// What the maker's positions and probes say, so far as they have been read.
struct Comparison {
    heard: Heard,
    own: [OwnStream; 2],
    /// Up to where the maker has applied the same of others' streams as is here.
    applied: HashMap<(i64, Stream), u64>,
    /// Up to where the same is pending there.
    pending: HashMap<(i64, Stream), u64>,
}

/// Compares what a snapshot's maker has applied, and its probes, with what is here.
pub(super) fn heard(replica: &Replica, applied: &[Position], probes: &[Probe]) -> Result<Heard> {
    let own = [OwnStream { applied: 0, same: 0, bound: u64::MAX }; 2];
    let mut comparison =
        Comparison { heard: Heard::default(), own, applied: HashMap::new(), pending: HashMap::new() };
    // What is pending there may stay pending for ever.
    let up_to: HashMap<(DeviceId, Stream), u64> =
        applied.iter().map(|e| ((e.author, e.stream), e.seq)).collect();
    let all = probes.iter().copied().chain(applied.iter().copied().map(Probe::from));
    for probe in all.filter(|probe| probe.seq > 0) {
        let is_applied = up_to.get(&(probe.author, probe.stream)).is_some_and(|seq| probe.seq <= *seq);
        let Some(dev) = devices::device_number(replica, probe.author)? else { continue };
        if dev == replica.me {
            comparison.compare_own(replica, &probe, is_applied)?;
        } else {
            comparison.compare_other(replica, dev, &probe, is_applied)?;
        }
    }
    let others = comparison.groups_not_applied(replica)?;
    let own = comparison.own_heard(replica)?;
    Ok(Heard { own, others, ..comparison.heard })
}

impl Comparison {
    /// Compares a probe of a stream of this device with what is here.
    fn compare_own(&mut self, replica: &Replica, probe: &Probe, is_applied: bool) -> Result<()> {
        let position = positions::position(replica, replica.me, probe.stream)?.seq;
        let same = twin::has_tag(replica, replica.me, probe)?;
        let own = &mut self.own[PeerEvidence::at(probe.stream)];
        if is_applied {
            own.applied = own.applied.max(probe.seq);
        }
        match same {
            Some(true) if is_applied => own.same = own.same.max(probe.seq),
            Some(true) => {}
            Some(false) => own.bound = own.bound.min(probe.seq.saturating_sub(1)),
            None => {} // It has more than is here, or what is folded away, which everybody has.
        }
        self.heard.another |= same == Some(false) || probe.seq > position;
        Ok(())
    }

    /// Compares a probe of a stream of another device with what is here.
    fn compare_other(&mut self, replica: &Replica, dev: i64, probe: &Probe, is_applied: bool) -> Result<()> {
        let position = positions::position(replica, dev, probe.stream)?.seq;
        let same = twin::has_tag(replica, dev, probe)?;
        let other = same == Some(false) || (same.is_none() && probe.seq <= position);
        self.heard.another_of_others |=
            other && !membership::is_behind(replica, dev, probe.stream, probe.seq)?;
        if same == Some(true) {
            let there = if is_applied { &mut self.applied } else { &mut self.pending };
            let there = there.entry((dev, probe.stream)).or_insert(0);
            *there = probe.seq.max(*there);
        }
        Ok(())
    }

    /// Lists the groups of others that may have to be brought along.
    ///
    /// Groups that were built on another history are of no use to a device that has the first one, and the author
    /// of a group that is pending there may never come again. Per-device rows of others are a board's own, from
    /// the time when it was that other.
    fn groups_not_applied(&self, replica: &Replica) -> Result<Vec<Group>> {
        let apart = self.heard.another || self.heard.another_of_others;
        if !apart && self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = replica.db.prepare_cached(
            "SELECT dev, stream, first, last FROM _pm_group WHERE dev <> ?1 AND (stream = ?3 OR NOT ?2) AND applied
             ORDER BY dev, stream, last",
        )?;
        let mut rows = statement.query((replica.me, replica.identity.base, Stream::Shared.number()))?;
        let mut others = Vec::new();
        while let Some(row) = rows.next()? {
            let stream = value::stream_of_number(row.get(1)?)?;
            let group = Group { dev: row.get(0)?, stream, first: row.get(2)?, last: row.get(3)? };
            let place = (group.dev, group.stream);
            let unheard = self.applied.get(&place).is_none_or(|seq| group.first > *seq);
            let is_pending = self.pending.get(&place).is_some_and(|seq| group.last <= *seq);
            if unheard && (apart || is_pending) {
                others.push(group);
            }
        }
        Ok(others)
    }

    /// Finds up to where this device's own streams are heard of, by stream.
    fn own_heard(&self, replica: &Replica) -> Result<[u64; 2]> {
        let [shared, own] = self.own;
        let same = [shared.same, own.same];
        if self.heard.another {
            // The common part of a stream need not have come there: the other stream takes another way.
            let common = twin::common_prefix(replica, same, [shared.bound, own.bound], false)?;
            return Ok([common[0].min(shared.applied), common[1].min(own.applied)]);
        }
        // Boards have no per-device rows of others, but some base may have ours.
        let at_bases: Option<u64> = replica.db.query_row(
            "SELECT max(seq) FROM _pm_ack JOIN _pm_device ON n = peer AND base WHERE dev = ?1 AND stream = ?2",
            (replica.me, Stream::PerDevice.number()),
            |row| row.get(0),
        )?;
        let folded = twin::common_prefix(replica, [0; 2], [0; 2], false)?;
        Ok([same[0].max(folded[0]), same[1].max(folded[1]).max(at_bases.unwrap_or(0))])
    }
}
