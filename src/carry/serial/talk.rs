//! A session, and what its bytes go through on a line.

use packmule_core::model::DeviceId;
use packmule_core::wire::{Message, RecordKind, Refusal, write_record};

use super::error::Error;
use super::pump::Line;
use crate::carry::channel::{Wire, random};
use crate::carry::session::{Progress, Session};
use crate::engine::Engine;

/// What the hello of the link says of an end: nothing, where it is older and knows of no encryption; that it encrypts; that
/// it was told not to.
const ENCRYPTS: u8 = 1;
const PLAIN: u8 = 2;

/// Returns what the hello of an end says.
pub(super) fn note(plain: bool) -> u8 {
    if plain { PLAIN } else { ENCRYPTS }
}

/// Who has nothing to say says so, this often: what somebody on the line has taken out is noticed by it.
const STILL_HERE_MS: u64 = 20_000;

/// Says what is wrong where one end encrypts and the other does not. `theirs`: what the hello of the other end says.
pub(super) fn difference(plain: bool, theirs: u8) -> Option<Error> {
    match (plain, theirs) {
        (false, ENCRYPTS) | (true, 0 | PLAIN) => None,
        (false, _) => Some(Error::Clear { theirs: true, is_older: theirs != PLAIN }),
        (true, _) => Some(Error::Clear { theirs: false, is_older: false }),
    }
}

/// A record of the session of so many bytes goes as soon as it is whole; smaller ones go together.
const GOES_ALONE: usize = 1_024;

/// A session, and what its bytes go through. There is none before the channel is open.
pub(super) struct Talk {
    wire: Wire,
    session: Option<Session>,
    /// What goes out next is the rest of a record of the session, of which some has gone.
    rest: bool,
    /// When it last said something.
    spoke: u64,
}

impl Talk {
    /// Begins on a new connection. In clear, the session begins at once.
    pub(super) fn begin(engine: &mut Engine, plain: bool, leads: bool, now_ms: u64) -> Result<Self, Error> {
        let wire = match (plain, leads) {
            (true, _) => Wire::bare(),
            (false, true) => Wire::call(false)?.after_values(),
            (false, false) => Wire::answer(false, Vec::new()).after_values(),
        };
        let mut talk = Self { wire, session: None, rest: false, spoke: now_ms };
        talk.begin_session(engine, now_ms)?;
        Ok(talk)
    }

    /// Begins where one end encrypts and the other does not: there is nothing to say but what it hears of that.
    pub(super) fn refuse(to_older: bool) -> Self {
        let mut wire = Wire::bare();
        if to_older {
            // Older ends know no other word for it.
            wire.put(&refusal());
        }
        Self { wire, session: None, rest: false, spoke: 0 }
    }

    /// Begins the session, once the channel is open: its nonces follow from that, if it is encrypted.
    fn begin_session(&mut self, engine: &mut Engine, now_ms: u64) -> Result<(), Error> {
        if self.session.is_none() && self.wire.is_open() {
            self.session = Some(match self.wire.nonces() {
                Some(nonces) => Session::in_channel(engine, nonces, now_ms)?,
                None => Session::new(engine, random().map_err(Error::Port)?, now_ms)?,
            });
        }
        Ok(())
    }

    /// Returns the session, if it has begun.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Returns the peer, once it has proved who it is.
    pub(super) fn peer(&self) -> Option<DeviceId> {
        self.session.as_ref()?.peer().map(|peer| peer.id)
    }

    /// Returns how far it is.
    pub(super) fn progress(&self) -> Progress {
        self.session.as_ref().map(|session| session.progress().clone()).unwrap_or_default()
    }

    /// Returns whether the peer sends nothing more, in good order.
    pub(super) fn peer_done(&self) -> bool {
        self.session.as_ref().is_some_and(Session::peer_done)
    }

    /// Returns whether the session has ended, and all that it had to say has gone to the link.
    pub(super) fn done(&self) -> bool {
        self.session.as_ref().is_some_and(Session::done) && self.wire.waiting() == 0
    }

    /// Returns whether something waits for room in the link.
    pub(super) fn has_to_say(&self) -> bool {
        self.wire.waiting() > 0 || self.session.as_ref().is_some_and(|s| !s.pending_output().is_empty())
    }

    /// Returns when the session is to be looked after at the latest, if it has begun.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.session.as_ref().map(Session::deadline)
    }

    /// Receives what came over the line. Returns whether anything did.
    pub(super) fn receive(&mut self, engine: &mut Engine, line: &Line, now_ms: u64) -> Result<bool, Error> {
        let mut bytes = [0; 8_192];
        let mut inner = line.lock();
        let count = if inner.poll_events() { 0 } else { inner.link.recv(&mut bytes) };
        let more = inner.link.recv_ready() > 0;
        drop(inner);
        if count > 0 {
            self.hear(engine, now_ms, bytes.get(..count).unwrap_or_default())?;
            if let (Some(session), false) = (&mut self.session, more) {
                session.caught_up(engine)?;
            }
        }
        Ok(count > 0)
    }

    fn hear(&mut self, engine: &mut Engine, now_ms: u64, bytes: &[u8]) -> Result<(), Error> {
        self.wire.hear(bytes);
        let mut some = [0; 8_192];
        loop {
            let count = self.wire.take(&mut some)?;
            self.begin_session(engine, now_ms)?;
            let Some(session) = self.session.as_mut().filter(|_| count > 0) else { return Ok(()) };
            session.receive(engine, now_ms, some.get(..count).unwrap_or_default())?;
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, engine: &mut Engine, now_ms: u64) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.tick(engine, now_ms)?;
        let says_nothing = self.wire.waiting() == 0 && session.pending_output().is_empty();
        if says_nothing && now_ms >= self.spoke.saturating_add(STILL_HERE_MS) && !session.done() {
            self.wire.seal()?;
        }
        Ok(())
    }

    /// Hands the link what there is to say, as much as it takes. Returns whether it took anything.
    pub(super) fn send(&mut self, engine: &mut Engine, line: &Line, now_ms: u64) -> Result<bool, Error> {
        let mut moved = false;
        loop {
            if self.wire.to_go().is_empty() {
                if let Some(session) = &mut self.session {
                    session.output(engine)?;
                }
                self.fill(engine, false)?;
            }
            if self.hand_over(line) == 0 {
                return Ok(moved);
            }
            (moved, self.spoke) = (true, now_ms);
        }
    }

    /// Hands the link what a session that ends has still to say. Returns whether that was all.
    pub(super) fn send_rest(&mut self, engine: &mut Engine, line: &Line) -> bool {
        loop {
            // What goes wrong now is of no interest beside the reason, which goes out.
            let filled = self.fill(engine, true);
            if self.wire.to_go().is_empty() {
                return true;
            }
            if filled.is_err() || self.hand_over(line) == 0 {
                return filled.is_err();
            }
        }
    }

    /// Puts the next of what the session has to say into the wire, if nothing is there: what is small goes together, and
    /// what is large as soon as it is whole. `ends`: what goes wrong is of no interest.
    fn fill(&mut self, engine: &mut Engine, ends: bool) -> Result<(), Error> {
        let Some(session) = self.session.as_mut().filter(|_| self.wire.to_go().is_empty()) else {
            return Ok(());
        };
        loop {
            let result = session.output(engine).map(|_| ());
            if !ends {
                result?;
            }
            let out = session.pending_output();
            if out.is_empty() {
                break;
            }
            let taken = self.wire.put(out);
            let whole = taken == out.len();
            session.sent(taken);
            let was_rest = std::mem::replace(&mut self.rest, !whole);
            if !whole || was_rest || self.wire.added() >= GOES_ALONE {
                break;
            }
        }
        if self.wire.added() > 0 {
            self.wire.seal()?;
        }
        Ok(())
    }

    /// Hands the link what is to go. Returns how many bytes it took: none where it has no room, or of another connection.
    fn hand_over(&mut self, line: &Line) -> usize {
        let mut inner = line.lock();
        let taken = if inner.poll_events() { 0 } else { inner.link.send(self.wire.to_go()) };
        self.wire.went(taken);
        taken
    }

    /// Records how much of what was sent has not arrived: for whoever watches.
    pub(super) fn note_under_way(&mut self, line: &Line) {
        let under_way = line.lock().link.unacknowledged() + self.wire.waiting();
        if let Some(session) = &mut self.session {
            session.under_way(under_way);
        }
    }

    /// Commits what came whole of a session that broke off; `unread`: what came last. What cannot be kept comes again.
    pub(super) fn abandon(&mut self, engine: &mut Engine, now_ms: u64, unread: &[u8]) {
        self.wire.hear(unread);
        let (mut rest, mut some) = (Vec::new(), [0; 4_096]);
        while let Ok(count @ 1..) = self.wire.take(&mut some) {
            rest.extend_from_slice(some.get(..count).unwrap_or_default());
        }
        if let Some(session) = &mut self.session {
            let _ = session.abandon(engine, now_ms, &rest);
        }
    }

    /// Ends the session in good order; `unread`: what came last.
    pub(super) fn finish(&mut self, engine: &mut Engine, now_ms: u64, unread: &[u8]) {
        // What goes wrong now is of no interest beside the reason.
        let heard = self.hear(engine, now_ms, unread);
        if let (Some(session), Ok(())) = (&mut self.session, heard) {
            let _ = session.finish(engine);
        }
    }
}

/// What an end that does not encrypt is told: it speaks another version.
fn refusal() -> Vec<u8> {
    let message = Message::Refused { why: Refusal::Version, device: DeviceId([0; 16]) };
    let (mut body, mut record) = ([0; 32], vec![0; 64]);
    let written = message
        .encode(&mut body)
        .and_then(|len| write_record(&mut record, RecordKind::Message, body.get(..len).unwrap_or_default()));
    record.truncate(written.unwrap_or(0));
    record
}
