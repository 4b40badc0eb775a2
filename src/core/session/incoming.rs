//! Bytes become records, and records are handled.

use super::state::Input;
use super::{Buffer, Error, Heard, Incoming, Log, Machine, Session, State};
use crate::wire::{
    Checkpoint, Frame, HeaderReader, Message, NoRoom, RECORD_HEAD_LEN, RecordHead, RecordKind, Section, take,
};

/// Until a peer has proved who it is, no record of it is longer.
const RECORD_BEFORE_PROOF: usize = 1_024;

/// The record that is coming: its head, then its body.
#[derive(Default)]
pub(super) struct Records<B> {
    head: Option<RecordHead>,
    buffer: B,
}

impl<B: Buffer> Records<B> {
    /// Moves bytes from the front of `from` until `len` are here. Returns whether they are.
    fn fill(&mut self, len: usize, from: &mut &[u8]) -> Result<bool, NoRoom> {
        let here = self.buffer.filled().len();
        let (some, rest) = from.split_at(from.len().min(len.saturating_sub(here)));
        let all = self.buffer.set_len(here + some.len())?;
        all.get_mut(here..).unwrap_or_default().copy_from_slice(some);
        *from = rest;
        Ok(here + some.len() == len)
    }

    /// Begins what comes next: it has this head, or is one.
    fn begin(&mut self, head: Option<RecordHead>) {
        self.head = head;
        // None is shorter.
        let _ = self.buffer.set_len(0);
    }
}

impl<B: Buffer, T> Session<B, T> {
    /// Receives bytes of the stream. Returns how many: all, but for one case. The peer's vector is received only after
    /// this end has sent its own, for it may end the session, and the peer is to know what this end has all the same.
    /// Then hand in the rest again after the next output; or after [`Session::introduce`].
    ///
    /// # Errors
    /// [`Error`]; the session is over then.
    pub fn receive<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        bytes: &[u8],
    ) -> Result<usize, Error<L::Error>> {
        let mut rest = bytes;
        while !rest.is_empty() && self.machine.state != State::Over {
            let is_vector = self.input.head.is_some_and(|head| head.kind == RecordKind::Header);
            if is_vector && self.machine.owes_vector() {
                return Ok(bytes.len() - rest.len());
            }
            self.receive_some(log, now_ms, &mut rest).map_err(|e| self.machine.fail(log, e))?;
        }
        Ok(bytes.len())
    }

    /// Sends what is here at once, behind what is still to go out: for a caller that holds no bytes back, and whose
    /// buffer has room for more than a record.
    ///
    /// # Errors
    /// As [`Session::output`].
    pub fn introduce<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        self.machine.introduce(log).map_err(|e| self.machine.fail(log, e))
    }

    /// Receives bytes up to the end of a head or of a body.
    fn receive_some<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        bytes: &mut &[u8],
    ) -> Result<(), Error<L::Error>> {
        let Some(record) = self.input.head else {
            if self.input.fill(RECORD_HEAD_LEN, bytes)?
                && let Ok(head) = self.input.buffer.filled().try_into()
            {
                let record =
                    RecordHead::parse(head).map_err(|_| Error::Protocol("no record where one should be"))?;
                self.machine.expect(record)?;
                self.input.begin(Some(record));
            }
            return Ok(());
        };
        let len = record.len as usize;
        if !self.input.fill(len, bytes).map_err(|NoRoom| Error::TooLong { len })? {
            let here = self.input.buffer.filled().len() as u64;
            self.machine.progress.coming = if record.kind == RecordKind::Frame { here } else { 0 };
            return Ok(());
        }
        self.machine.progress.coming = 0;
        let body =
            record.check(self.input.buffer.filled()).map_err(|_| Error::Protocol("a damaged record"))?;
        self.machine.receive_record(log, now_ms, record.kind, body)?;
        self.input.begin(None);
        Ok(())
    }
}

impl<B: Buffer, T> Machine<B, T> {
    /// Refuses a record by its head, before anything of its body is kept.
    fn expect<E>(&self, record: RecordHead) -> Result<(), Error<E>> {
        let is_short = record.kind == RecordKind::Message && record.len as usize <= RECORD_BEFORE_PROOF;
        if matches!(self.state, State::Hello | State::Proof) && !is_short {
            return Err(Error::Protocol("a record before its proof"));
        }
        Ok(())
    }

    fn receive_record<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        kind: RecordKind,
        body: &[u8],
    ) -> Result<(), Error<L::Error>> {
        match kind {
            RecordKind::Message => {
                let message = Message::decode(body).map_err(|_| Error::Protocol("an unknown message"))?;
                self.receive_message(log, now_ms, &message)
            }
            RecordKind::Header => self.receive_header(log, body),
            RecordKind::Certificate => {
                self.step(log, Input::Content)?;
                self.stage(log, now_ms, Incoming::Certificate(body))
            }
            RecordKind::Revocation => {
                self.step(log, Input::Content)?;
                self.stage(log, now_ms, Incoming::Revocation(body))
            }
            RecordKind::Newest => {
                self.step(log, Input::Figure)?;
                match log.hear_newest(body).map_err(Error::Log)? {
                    true => Err(Error::NewIdentity { was: self.me }),
                    false => Ok(()),
                }
            }
            RecordKind::Section => {
                self.step(log, Input::Content)?;
                let mut rest = body;
                self.section = Some(take(&mut rest).map_err(|_| Error::Protocol("a section"))?);
                self.next_in = None;
                Ok(())
            }
            RecordKind::Frame => {
                self.step(log, Input::Content)?;
                self.receive_frame(log, now_ms, body)
            }
            RecordKind::Checkpoint => {
                self.step(log, Input::Content)?;
                self.receive_checkpoint(log, now_ms, body)
            }
            RecordKind::Footer | RecordKind::State | RecordKind::Part | RecordKind::Seal => {
                Err(Error::Protocol("a record that only files have"))
            }
        }
    }

    fn receive_frame<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        body: &[u8],
    ) -> Result<(), Error<L::Error>> {
        let section = self.section.ok_or(Error::Protocol("a frame of nobody"))?;
        let frame = Frame::parse(body).map_err(|_| Error::Protocol("a damaged frame"))?;
        let seq = frame.head.seq;
        if self.next_in.is_some_and(|next| next != seq) {
            return Err(Error::Protocol("frames out of their order"));
        }
        self.next_in = Some(seq + 1);
        self.progress.count_received(body.len());
        self.stage(log, now_ms, Incoming::Frame(section, seq, body))
    }

    fn receive_checkpoint<L: Log<Taken = T>>(
        &mut self,
        log: &mut L,
        now_ms: u64,
        body: &[u8],
    ) -> Result<(), Error<L::Error>> {
        let section = self.section.ok_or(Error::Protocol("a checkpoint of nobody"))?;
        let checkpoint = Checkpoint::decode(body).map_err(|_| Error::Protocol("a checkpoint"))?;
        let fits = Section { author: checkpoint.author, stream: checkpoint.stream } == section
            && self.next_in.is_none_or(|next| next == checkpoint.last + 1);
        if !fits {
            return Err(Error::Protocol("a checkpoint that does not fit its frames"));
        }
        self.next_in = None;
        self.stage(log, now_ms, Incoming::Checkpoint(body))
    }

    fn receive_header<L: Log<Taken = T>>(&mut self, log: &mut L, body: &[u8]) -> Result<(), Error<L::Error>> {
        self.allow(Input::Header)?;
        let peer = self.peer()?;
        let header = HeaderReader::parse(body).map_err(Error::Damaged)?;
        if header.header.sender != peer.id || header.verify(&peer.public_key).is_err() {
            return Err(Error::Signature);
        }
        if self.state == State::Greeting && !self.staged.is_empty() {
            self.flush(log)?; // Revocations, by which the vector is read.
        }
        match log.receive_header(&header).map_err(Error::Log)? {
            Heard::NewIdentity => return Err(Error::NewIdentity { was: self.me }),
            Heard::Acknowledged(frames) => self.progress.acknowledged = frames,
        }
        self.step(log, Input::Header)
    }
}
