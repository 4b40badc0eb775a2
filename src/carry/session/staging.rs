//! What came and is whole, until it is in the database.

use packmule_core::wire::{Message, VectorEntry};

use super::{Error, Phase, STAGE_BYTES, Session};
use crate::engine::{Engine, Staged};

impl Session {
    /// The stream broke off, or an error ended the session: writes to the database what came whole, so that only the
    /// frame that was on its way comes again. `rest`: bytes of the stream that were not given to
    /// [`Session::receive`]. Nothing is taken for better than it was: a group is applied if its checkpoint is there and
    /// verified, and after an error of what came itself nothing is written. Says nothing, and ends the session.
    ///
    /// # Errors
    /// What the database refuses. After an error of the session, that one is the reason to tell.
    pub fn abandon(&mut self, engine: &mut Engine, now_ms: u64, rest: &[u8]) -> Result<(), Error> {
        let said = self.out.len();
        let taken = self.receive(engine, now_ms, rest);
        let written = self.write_down(engine).map(|_| ());
        let noted = self.note_acks(engine);
        self.phase = Phase::Over;
        self.out.truncate(said);
        taken.and(written).and(noted)
    }

    pub(super) fn stage(
        &mut self,
        engine: &mut Engine,
        now_ms: u64,
        item: Staged,
        len: usize,
    ) -> Result<(), Error> {
        self.staged.push(item);
        self.staged_bytes += len;
        self.staged_since.get_or_insert(now_ms);
        if self.staged_bytes >= STAGE_BYTES { self.flush(engine) } else { Ok(()) }
    }

    /// Writes to the database what came, and acknowledges what was committed.
    pub(super) fn flush(&mut self, engine: &mut Engine) -> Result<(), Error> {
        if self.write_down(engine)? {
            self.more_out = true;
            self.tell_vector(engine)?;
        }
        if self.settled_out < self.peer_idle {
            self.settled_out = self.peer_idle;
            self.say(&Message::Settled(self.peer_idle))?;
        }
        Ok(())
    }

    /// Writes to the database what came; whether a checkpoint was among it.
    fn write_down(&mut self, engine: &mut Engine) -> Result<bool, Error> {
        let staged = self.drop_staged();
        if staged.is_empty() {
            return Ok(false);
        }
        engine.take_staged(&staged, &mut self.progress.taken)?;
        Ok(staged.iter().any(|item| matches!(item, Staged::Checkpoint(_))))
    }

    /// Nothing is staged any more; gives what was.
    pub(super) fn drop_staged(&mut self) -> Vec<Staged> {
        self.staged_bytes = 0;
        self.staged_since = None;
        std::mem::take(&mut self.staged)
    }

    /// Notes durably what the peer has acknowledged.
    pub(super) fn note_acks(&mut self, engine: &mut Engine) -> Result<(), Error> {
        if let (Some(peer), false) = (&self.peer, self.acks.is_empty()) {
            let entries: Vec<VectorEntry> = std::mem::take(&mut self.acks).into_values().collect();
            engine.note_vector(peer.id, &entries)?;
        }
        Ok(())
    }
}
