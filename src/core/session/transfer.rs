//! The state of the shared tables, for who lacks what is folded: offered, sent in chunks, taken in.
//!
//! It is a bundle, byte by byte, and the log keeps it at both ends: a session that breaks off is gone on with from the
//! last chunk that is kept, as long as the state that is offered is the same. Frames go on when it is taken in.

use super::state::Input;
use super::{Buffer, Error, Incoming, Intake, Log, Machine, SINCE};
use crate::wire::{CHUNK_MAX, Message, Offer, RecordKind, begin_chunk};

/// So many states are offered in a session: after the second one the log has what this peer cannot take.
const OFFERS_MAX: u8 = 2;

/// The two states that may be on their way, one to the peer and one from it.
#[derive(Default)]
pub(super) struct Transfer {
    out: Option<Going>,
    offers: u8,
    coming: Option<Coming>,
    /// What is owed to the peer: an answer to its offer, then that its state is taken in.
    answer: Option<Option<u64>>,
    took: bool,
}

/// A state that was offered to the peer.
#[derive(Clone, Copy)]
struct Going {
    bytes: u64,
    /// From where on it is to be sent; `None` until the peer has said so.
    at: Option<u64>,
}

/// A state that the peer has offered.
#[derive(Clone, Copy)]
struct Coming {
    bytes: u64,
    at: u64,
}

impl Transfer {
    /// Returns whether no state is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.out.is_none() && self.coming.is_none() && !self.owes()
    }

    /// Returns whether this end has offered a state that the peer has not taken in.
    pub(super) fn is_going(&self) -> bool {
        self.out.is_some()
    }

    /// Returns whether the peer waits for a word about its state.
    pub(super) fn owes(&self) -> bool {
        self.answer.is_some() || self.took
    }

    /// Breaks off what goes to the peer.
    pub(super) fn stop_sending(&mut self) {
        self.out = None;
    }
}

impl<B: Buffer, T> Machine<B, T> {
    /// Offers the state, if there is one for the peer. Returns whether there was.
    pub(super) fn offer_state<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<bool, Error<L::Error>> {
        if self.version < SINCE || self.transfer.offers >= OFFERS_MAX {
            return Ok(false);
        }
        self.transfer.offers += 1;
        let Some(offer) = log.offer_state().map_err(Error::Log)? else { return Ok(false) };
        self.transfer.out = Some(Going { bytes: offer.bytes, at: None });
        self.progress.offer_state(offer);
        self.idle_current = false;
        self.send_message(&Message::Offer(offer))?;
        Ok(true)
    }

    /// Sends the next chunk of the state. Returns whether there was one.
    pub(super) fn send_chunk<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<bool, Error<L::Error>> {
        let Some(Going { bytes, at: Some(at) }) = self.transfer.out else { return Ok(false) };
        let len = (bytes.saturating_sub(at)).min(CHUNK_MAX as u64) as usize;
        if len == 0 {
            return Ok(false);
        }
        let mut head = [0; 8];
        let head_len = begin_chunk(&mut head, len)?;
        let sent = self.out.record(RecordKind::Message, |body| {
            body.extend(head.get(..head_len).unwrap_or_default());
            // Without room the record is not sent at all.
            body.room(len).map_or(Ok(true), |room| log.state_chunk(at, room).map(|()| true))
        })?;
        sent.map_err(Error::Log)?;
        self.transfer.out = Some(Going { bytes, at: Some(at + len as u64) });
        self.progress.state_sent.0 += len as u64;
        Ok(true)
    }

    /// Sends what the peer waits for, if anything.
    pub(super) fn send_word<E>(&mut self) -> Result<bool, Error<E>> {
        if let Some(answer) = self.transfer.answer.take() {
            self.send_message(&answer.map_or(Message::Decline, Message::Want))?;
        } else if core::mem::take(&mut self.transfer.took) {
            self.send_message(&Message::Took)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Handles a message about a state.
    pub(super) fn receive_of_state<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        message: &Message<'_>,
    ) -> Result<(), Error<L::Error>> {
        let comes = matches!(message, Message::Offer(_) | Message::Chunk(_));
        self.step(log, if comes { Input::Content } else { Input::Figure })?;
        match message {
            Message::Offer(offer) => self.receive_offer(log, offer),
            Message::Chunk(bytes) => self.receive_chunk(log, now_ms, bytes),
            Message::Want(from) => self.receive_answer(Some(*from)),
            Message::Decline => self.receive_answer(None),
            Message::Took => self.receive_took(log),
            _ => Ok(()),
        }
    }

    /// Looks how much of the state that the peer offers is here.
    fn receive_offer<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        offer: &Offer,
    ) -> Result<(), Error<L::Error>> {
        if self.transfer.coming.is_some() {
            return Err(Error::Protocol("a second state before the first has come"));
        }
        // What came is decided before another's word on the same rows.
        self.flush(log)?;
        let from = log.want_state(offer).map_err(Error::Log)?.filter(|from| *from <= offer.bytes);
        self.transfer.answer = Some(from);
        let Some(at) = from else { return Ok(()) };
        self.transfer.coming = Some(Coming { bytes: offer.bytes, at });
        self.progress.expect_state(offer, at);
        self.take_whole_state(log)
    }

    /// Handles where the peer wants the state to begin; `None` if it cannot take it.
    fn receive_answer<E>(&mut self, from: Option<u64>) -> Result<(), Error<E>> {
        let unasked = Error::Protocol("an answer that nobody asked for");
        match (&mut self.transfer.out, from) {
            // It was broken off meanwhile.
            (None, _) if self.transfer.offers > 0 => Ok(()),
            (Some(going), Some(from)) if going.at.is_none() && from <= going.bytes => {
                going.at = Some(from);
                self.progress.state_sent.0 = from;
                Ok(())
            }
            // Before it begins, or when all of it is there and was looked at.
            (Some(Going { bytes, at }), None) if at.is_none_or(|at| at == *bytes) => {
                self.transfer.out = None;
                self.more_out = true;
                self.transfer.offers = OFFERS_MAX;
                self.progress.state_to_send = (0, 0);
                self.say_behind();
                Ok(())
            }
            _ => Err(unasked),
        }
    }

    /// Keeps a chunk, and takes the state in once it is whole.
    fn receive_chunk<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        bytes: &[u8],
    ) -> Result<(), Error<L::Error>> {
        let len = bytes.len() as u64;
        match &mut self.transfer.coming {
            Some(coming) if coming.at + len <= coming.bytes => coming.at += len,
            _ => return Err(Error::Protocol("a part of a state that nobody asked for")),
        }
        self.progress.state_received.0 += len;
        self.stage(log, now_ms, Incoming::Chunk(bytes))?;
        self.take_whole_state(log)
    }

    /// Takes the state in, if all of it is here.
    fn take_whole_state<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        if self.transfer.coming.is_none_or(|coming| coming.at < coming.bytes) {
            return Ok(());
        }
        self.flush(log)?;
        self.transfer.coming = None;
        match log.take_state(&mut self.progress.taken).map_err(Error::Log)? {
            Intake::Taken => {
                self.progress.state_received.1 = self.progress.state_to_receive.1;
                self.transfer.took = true;
                self.look_again();
                Ok(())
            }
            Intake::Refused => {
                self.transfer.answer = Some(None);
                Ok(())
            }
            Intake::NewIdentity => Err(Error::NewIdentity { was: self.me }),
        }
    }

    /// Handles that the peer has taken the state in: frames follow.
    fn receive_took<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        match self.transfer.out {
            Some(Going { bytes, at: Some(at) }) if at == bytes => {}
            None if self.transfer.offers > 0 => return Ok(()),
            _ => return Err(Error::Protocol("an answer that nobody asked for")),
        }
        self.transfer.out = None;
        self.progress.state_sent.1 = self.progress.state_to_send.1;
        log.state_taken().map_err(Error::Log)?;
        self.more_out = true;
        Ok(())
    }
}
