//! What came and is whole, until it is committed.

use super::state::{Input, next};
use super::{Buffer, Error, Incoming, Log, Machine, Session, State};

/// What is staged, as far as the session must know.
#[derive(Default)]
pub(super) struct Staged {
    bytes: usize,
    /// When the first of it came.
    since: Option<u64>,
    /// Something is among it that may bring new groups for the peer: a checkpoint, a revocation.
    checkpoint: bool,
}

impl Staged {
    /// Returns whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Returns when the first of it came.
    pub(super) fn since(&self) -> Option<u64> {
        self.since
    }
}

impl<B: Buffer, T> Session<B, T> {
    /// Makes what came durable, if it is enough: all that has come so far was given to [`Session::receive`].
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn caught_up<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        let machine = &mut self.machine;
        if machine.staged.bytes < L::SOON_BYTES || machine.state == State::Over {
            return Ok(());
        }
        machine.flush(log).map_err(|e| machine.fail(log, e))
    }

    /// Flushes what came whole after the stream broke off, or an error ended the session: it is committed, so that
    /// only the frame that was on its way comes again. `rest`: bytes of the stream that were not given to
    /// [`Session::receive`]. Nothing is trusted more than it was: a group is applied if its checkpoint is there and
    /// verified, and after an error of what came itself nothing is committed. Sends nothing, and ends the session.
    ///
    /// # Errors
    /// What the log refuses. After an error of the session, that one is the reason to report.
    pub fn abandon<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        rest: &[u8],
    ) -> Result<(), Error<L::Error>> {
        let queued = self.machine.out.queued();
        let received = self.receive(log, now_ms, rest).map(|_| ());
        let machine = &mut self.machine;
        let mut kept = Ok(());
        if let Some((to, acts)) = next(machine.state, Input::Abandon) {
            machine.state = to;
            if acts.commit {
                kept = machine.commit(log).map(|_| ());
            }
            if acts.record {
                kept = kept.and(log.record_acks().map_err(Error::Log));
            }
        }
        machine.out.truncate(queued);
        received.and(kept)
    }
}

impl<B: Buffer, T> Machine<B, T> {
    /// Keeps what came, and commits it with all before it once that is much.
    pub(super) fn stage<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        item: Incoming<'_>,
    ) -> Result<(), Error<L::Error>> {
        log.stage(item).map_err(Error::Log)?;
        self.staged.bytes += item.size();
        self.staged.since.get_or_insert(now_ms);
        self.staged.checkpoint |= matches!(item, Incoming::Checkpoint(_) | Incoming::Revocation(_));
        if self.staged.bytes >= L::STAGE_BYTES { self.flush(log) } else { Ok(()) }
    }

    /// Commits what came; the peer hears what was.
    pub(super) fn flush<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        if self.commit(log)? {
            self.look_again();
        }
        self.committed_idle = self.peer_idle;
        Ok(())
    }

    /// Commits what came. Returns whether it may have brought new groups for the peer.
    fn commit<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<bool, Error<L::Error>> {
        let staged = core::mem::take(&mut self.staged);
        if staged.is_empty() {
            return Ok(false);
        }
        log.commit(&mut self.progress.taken).map_err(Error::Log)?;
        Ok(staged.checkpoint)
    }

    /// Drops what came.
    pub(super) fn discard<L: Log<Taken = T>>(&mut self, log: &mut L) {
        self.staged = Staged::default();
        log.discard();
    }
}
