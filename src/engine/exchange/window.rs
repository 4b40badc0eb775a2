//! A window of an import: groups that go into the log in one transaction.

use packmule_core::wire::{Chain, Checkpoint, Frame, FrameFlags, GroupHead, Section};

use crate::engine::apply::report::ImportReport;
use crate::engine::apply::{ready, refill, vouched};
use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::exchange::session;
use crate::engine::exchange::take_state::StateMerge;
use crate::engine::exchange::verified::{Verified, signed};
use crate::engine::fleet::{devices, positions, revocation, routes, trust};
use crate::engine::log::frames;
use crate::engine::table::replica::Replica;

/// A window of an import, under way.
pub(super) struct Window<'e> {
    pub(super) replica: &'e Replica,
    pub(super) verified: &'e Verified,
    /// Where it begins in the bundle.
    pub(super) start: u64,
    /// The head and the flags of the group whose checkpoint has not come yet, and whether the group goes into the log.
    pub(super) group: Option<(GroupHead, FrameFlags, bool)>,
    /// The state that is being merged. It ends in the window in which it begins.
    pub(super) state: Option<StateMerge<'e>>,
    /// A group went into the log.
    pub(super) any: bool,
    /// A frame of the sender's own is new here.
    pub(super) returned: bool,
}

impl<'e> Window<'e> {
    /// Returns the state that is being merged; begins it if need be.
    pub(super) fn state(&mut self) -> Result<&mut StateMerge<'e>> {
        match &mut self.state {
            Some(state) => Ok(state),
            none => Ok(none.insert(StateMerge::new(self.replica, self.verified)?)),
        }
    }

    /// Ends the state that is being merged.
    pub(super) fn end_state(&mut self, report: &mut ImportReport) -> Result<()> {
        if let Some(state) = self.state.take() {
            state.finish(report)?;
            self.any = true;
        }
        Ok(())
    }

    /// Verifies the signature of a group once more: the bundle may have changed since it was read first.
    pub(super) fn verify(&self, checkpoint: &Checkpoint, bytes: &[u8], end: &Chain) -> Result<()> {
        let key = trust::author_key(self.replica, checkpoint.author)?;
        let known = self.verified.signed.contains(&signed(bytes, end));
        if key.is_none_or(|key| !known && checkpoint.verify(&key, end).is_err()) {
            let who = devices::name_of(self.replica, checkpoint.author)?;
            return Err(Error::bundle(self.start, BundleProblem::Signature(who)));
        }
        Ok(())
    }

    /// Puts a frame into the log, if it is new and its stream is taken here.
    pub(super) fn frame(
        &mut self,
        section: Section,
        frame: &Frame<'_>,
        body: &[u8],
        report: &mut ImportReport,
    ) -> Result<()> {
        let replica = self.replica;
        let dev = devices::device_number_or_new(replica, section.author)?;
        if let Some(head) = frame.group {
            let ours = session::is_taken(replica, section);
            let forked = self.verified.forked.contains(&section.author);
            let left = forked || self.verified.is_left(&(section.author, section.stream), frame.head.seq);
            if ours && !left {
                refill::go_back_for(replica, dev, section.stream, frame.head.seq)?;
            }
            let have = positions::position(replica, dev, section.stream)?.seq;
            if forked {
                revocation::record_forked(replica, dev, true)?;
            }
            self.group = Some((head, frame.head.flags, frame.head.seq > have && ours && !left));
            report.skipped += u64::from(!ours);
        }
        if matches!(self.group, Some((.., true))) {
            let new = frames::put_frame(&replica.db, dev, section.stream, frame.head.seq, body)?;
            report.frames += u64::from(new);
            report.known += u64::from(!new);
            // What waits here already comes again with each card, also from who is dead.
            self.returned |= new && Some(section.author) == self.verified.sender;
        } else {
            report.known += 1;
        }
        Ok(())
    }

    /// Closes a group: puts it into the log and applies what is ready of its author. Returns whether it was new.
    pub(super) fn checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        bytes: &[u8],
        end: &Chain,
        report: &mut ImportReport,
    ) -> Result<bool> {
        let replica = self.replica;
        let Some((head, flags, true)) = self.group.take() else { return Ok(false) };
        let dev = devices::device_number_or_new(replica, checkpoint.author)?;
        self.verify(checkpoint, bytes, end)?;
        let of_head = (head.lamport, head.wall, head.pair);
        frames::put_group(&replica.db, dev, (checkpoint, bytes), of_head, end, false)?;
        routes::note(replica, dev, checkpoint.stream, (checkpoint.first, checkpoint.last))?;
        vouched::hear_group(replica, (dev, checkpoint.stream), checkpoint.first, flags)?;
        refill::go_on_from(replica, dev, checkpoint)?;
        self.any = true;
        // Who is revoked waits for what the others say, which may come with the same window.
        if !revocation::is_revoked(replica, dev)? {
            ready::apply_ready(replica, dev, report)?;
        }
        Ok(true)
    }
}
