//! What the first reading of a bundle finds.

use std::collections::{HashMap, HashSet};

use packmule_core::model::{DeviceId, Stream};
use packmule_core::wire::{Chain, Checkpoint, HeaderReader, Position, Probe, Section};
use sha2::{Digest, Sha256};

use crate::engine::apply::report::{Missing, Wait};
use crate::engine::error::Result;
use crate::engine::exchange::twin::{self, Apart};
use crate::engine::fleet::peers::{self, Fit, OtherHistory, Parting, PeerEvidence, Said};
use crate::engine::fleet::{devices, positions, revocation, statements, trust};
use crate::engine::log::frames;
use crate::engine::table::replica::Replica;

/// How far an import has come.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the bundle that are done with.
    pub done: u64,
    /// Bytes of the bundle in all.
    pub total: u64,
    /// They are being verified; nothing is taken in yet.
    pub verifying: bool,
}

/// What a bundle has that is known already.
#[derive(Default)]
pub(crate) struct Known {
    pub frames: u64,
    /// Groups of streams that are not taken here.
    pub skipped: u64,
}

/// How many checkpoints are remembered as verified: 32 bytes each.
const SIGNED_MAX: usize = 4_096;

/// What the first reading of a bundle found.
#[derive(Default)]
pub(crate) struct Verified {
    pub sender: Option<DeviceId>,
    /// What the sender has applied, as far as it is known.
    pub applied: Vec<Position>,
    /// Its probes.
    pub probes: Vec<Probe>,
    /// The number of its sender's statement, if all that it says is known: it may tell what differs from something that
    /// this device does not remember having said.
    pub statement: Option<[u8; 8]>,
    /// That statement was heard before, or its sender has said more since: what it says of others may hold no more.
    pub is_old: bool,
    /// What its frames, positions and probes show of this device's own log.
    pub evidence: PeerEvidence,
    /// Something in it would change something here. Otherwise nothing of it is read again, and nothing written.
    pub any_news: bool,
    /// Its sender is not known here, and it leaves out the certificate, since this device has once said that it has it. All
    /// of it waits until the sender hears otherwise.
    pub lacks: Option<Wait>,
    /// What is in it.
    pub known: Known,
    /// The first checkpoints whose signatures are good: to verify one takes longer than all else about
    /// a small group, and need not be done twice. Where the bundle was changed since, they differ.
    pub signed: HashSet<[u8; 32]>,
    /// Devices of which it has another history than is here: of their streams, nothing is taken.
    pub forked: HashSet<DeviceId>,
    /// Those of them that are not revoked, with the group that shows it.
    pub others: Vec<OtherHistory>,
    /// Where, by the places in a state, devices' histories part from those that are here.
    pub parted: HashMap<DeviceId, Parting>,
    /// Streams of which what waits here gives way to what it has.
    pub gives_way: HashSet<(DeviceId, Stream)>,
    /// Streams of authors that have two histories, of which what it has does not follow on what is here, and up to which frame:
    /// nothing is taken, for it can be of either history, and comes again. A group that reissues tables follows on anything.
    pub loose: HashMap<(DeviceId, Stream), u64>,
    /// Where what it has of a stream goes up to, so far, and the chain there.
    ends: HashMap<(DeviceId, Stream), (u64, Chain)>,
    /// Whether authors of which something does not follow have two histories.
    split: HashMap<DeviceId, bool>,
    /// Nothing is taken of a state in it: that stands for frames of another history than is here.
    pub leaves_state: bool,
    /// It has a state.
    pub has_state: bool,
    /// The histories of third devices of which its sender only says that it has others.
    pub said: Apart,
}

impl Verified {
    /// Keeps what a header says.
    pub(crate) fn read_header(&mut self, replica: &Replica, header: &HeaderReader<'_>) -> Result<()> {
        let whole = statements::whole(replica, header)?;
        self.sender = Some(header.header.sender);
        self.evidence.by_base = devices::is_base(replica, header.header.sender)?;
        self.statement = whole.as_ref().map(|_| header.header.statement);
        self.is_old = match (self.sender, self.statement) {
            (Some(sender), Some(statement)) => peers::has_heard(replica, sender, statement)?,
            _ => false,
        };
        self.applied = whole.unwrap_or_else(|| header.applied().filter(|e| e.seq > 0).collect());
        self.is_old |= self.knew_less_of_its_log(replica)?;
        self.probes = header.probes().collect();
        Ok(())
    }

    /// Returns whether the sender had less of its own log than is here: it has said more since, or was set back.
    fn knew_less_of_its_log(&self, replica: &Replica) -> Result<bool> {
        let own = |e: &&Position| Some(e.author) == self.sender && e.stream == Stream::Shared;
        let Some(own) = self.applied.iter().find(own) else { return Ok(false) };
        let Some(dev) = devices::device_number(replica, own.author)? else { return Ok(false) };
        Ok(own.seq < positions::position(replica, dev, Stream::Shared)?.seq)
    }

    /// Notes that a certificate must come, where a bundle for this device, or for who it was before, has a sender that is not
    /// known here.
    pub(crate) fn expect_certificate(&mut self, replica: &Replica, header: &HeaderReader<'_>) -> Result<()> {
        let (sender, wall) = (header.header.sender, header.header.wall);
        let Some(receiver) = header.header.receiver else { return Ok(()) };
        if devices::is_or_was_me(replica, receiver)?
            && trust::author_key(replica, sender)?.is_none()
            && !revocation::is_revoked_id(replica, sender)?
        {
            let author = devices::name_of(replica, sender)?;
            self.lacks = Some(Wait { author, frames: (0, 0), since: wall, missing: Missing::Certificate });
        }
        Ok(())
    }

    /// Keeps which frames of a sender wait that is not known here.
    pub(crate) fn leave(&mut self, of: Section, seq: u64) {
        if let Some(Wait { frames: (first, last), .. }) =
            self.lacks.as_mut().filter(|_| self.sender == Some(of.author))
        {
            (*first, *last) = (if *first == 0 { seq } else { seq.min(*first) }, seq.max(*last));
        }
    }

    /// Keeps that the signature of a checkpoint is good.
    pub(crate) fn keep_signed(&mut self, bytes: &[u8], end: &Chain) {
        if self.signed.len() < SIGNED_MAX {
            self.signed.insert(signed(bytes, end));
        }
    }

    /// Notes that a state stands for all that is before a group.
    pub(crate) fn stands_before(&mut self, checkpoint: &Checkpoint) {
        let before = (checkpoint.first - 1, checkpoint.prev);
        self.ends.insert((checkpoint.author, checkpoint.stream), before);
    }

    /// Returns whether it shows that a device, this one or another, has two histories.
    pub(crate) fn shows_histories(&self) -> bool {
        !self.others.is_empty() || self.evidence.is_other_shown || self.evidence.is_divergent()
    }

    /// Returns whether nothing is taken of a group that does not reissue tables, whose author is the device `dev` here.
    pub(crate) fn is_loose(
        &mut self,
        replica: &Replica,
        dev: Option<i64>,
        checkpoint: &Checkpoint,
        end: &Chain,
    ) -> Result<bool> {
        let of = (checkpoint.author, checkpoint.stream);
        let before = self.ends.insert(of, (checkpoint.last, *end));
        if self.is_left(&of, checkpoint.last) {
            return Ok(true);
        }
        let Some(dev) = dev else { return Ok(false) };
        if before == Some((checkpoint.first - 1, checkpoint.prev))
            || frames::reaches(&replica.db, dev, checkpoint.stream, checkpoint.first)?
        {
            return Ok(false);
        }
        let split = match self.split.get(&of.0) {
            Some(split) => *split,
            None => peers::may_be_of_other_history(replica, dev)?,
        };
        self.split.insert(of.0, split);
        if split {
            self.loose.insert(of, u64::MAX);
        }
        Ok(split)
    }

    /// Returns whether a frame of a stream is one of those of which nothing is taken.
    pub(crate) fn is_left(&self, of: &(DeviceId, Stream), seq: u64) -> bool {
        self.loose.get(of).is_some_and(|up_to| seq <= *up_to)
    }

    /// Notes that a group reissues the tables of its author: from there on, what it has of the stream is taken again.
    pub(crate) fn goes_on_from(&mut self, checkpoint: &Checkpoint, end: &Chain) {
        let of = (checkpoint.author, checkpoint.stream);
        self.ends.insert(of, (checkpoint.last, *end));
        if let Some(up_to) = self.loose.get_mut(&of) {
            *up_to = (*up_to).min(checkpoint.first - 1);
        }
    }

    /// Compares a group with what is here of its author.
    pub(crate) fn fit(
        &mut self,
        replica: &Replica,
        checkpoint: &Checkpoint,
        end: &Chain,
        key: &[u8; 32],
    ) -> Result<Fit> {
        let fit = twin::fit(replica, checkpoint, Some(end), key)?;
        let of = (checkpoint.author, checkpoint.stream);
        if fit == Fit::Fits || !self.gives_way.contains(&of) && !twin::gives_way(replica, checkpoint, key)? {
            return Ok(fit);
        }
        self.gives_way.insert(of);
        twin::compare_group(replica, checkpoint, Some(end), key, false)
    }

    /// Drops what waits here and gives way to what is in it.
    pub(crate) fn make_way(&self, replica: &Replica) -> Result<()> {
        for (author, stream) in &self.gives_way {
            if let Some(dev) = devices::device_number(replica, *author)? {
                frames::forget_pending(&replica.db, dev, *stream, i64::MAX as u64)?;
            }
        }
        Ok(())
    }

    /// Returns whether it would change nothing to record what the sender acknowledges.
    pub(crate) fn is_recorded(&self, replica: &Replica) -> Result<bool> {
        let Some(sender) = self.sender else { return Ok(true) };
        peers::is_recorded(replica, sender, self.statement, (&self.applied, &self.probes))
    }

    /// Records what the sender acknowledges, by its positions alone, and up to where it has the same of our own log, by
    /// its probes too.
    pub(crate) fn record_acknowledged(&self, replica: &Replica, sender: DeviceId) -> Result<()> {
        if sender == replica.identity.id {
            return Ok(());
        }
        match self.statement {
            Some(statement) => {
                let said = Said::InFile(statement);
                peers::record_acknowledged(replica, sender, &self.applied, said, &twin::parts_at)?;
            }
            None => {
                peers::forget_word(replica, sender)?;
                peers::record_applied(replica, &self.applied, &twin::parts_at)?;
            }
        }
        peers::record_compared(replica, self.probes.iter().copied())
    }
}

/// Hashes a checkpoint and the chain after the frames that it signs.
pub(super) fn signed(checkpoint: &[u8], end: &Chain) -> [u8; 32] {
    Sha256::new().chain_update(checkpoint).chain_update(end.0).finalize().into()
}
