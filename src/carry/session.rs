//! Two ends that talk, over any stream of bytes that is reliable and ordered: who they are, what each
//! has, then the frames that the other lacks, both ways at once, each group acknowledged when it is
//! committed.
//!
//! A state machine: bytes in ([`Session::receive`]), bytes out ([`Session::output`]), a clock given in
//! milliseconds. It owns no stream, no thread, no clock and no database; the engine is handed in.
//!
//! # Driving it
//! After each call that gives the session something, write out what [`Session::output`] gives, as long as it
//! gives something and the stream takes it; call [`Session::caught_up`] when the stream has nothing more for the
//! moment, and [`Session::tick`] at [`Session::deadline`] at the latest.
//! Any error ends the session: write out what `output` still has (the peer is told why), and begin a
//! new one. Nothing that was acknowledged is lost by it. Before a session is dropped, whatever the reason, call
//! [`Session::abandon`], unless [`Session::finish`] was called.
//!
//! # What is durable when
//! Frames go to the log as they come: at once when the stream has nothing more for the moment and they are
//! [`SOON_BYTES`] or more, smaller ones 0.2 s later at the latest; where the stream is ahead of the database, in
//! transactions of [`STAGE_BYTES`]. A group is applied only when its author's signature was verified over what is in
//! the log. After a break the peer sends what is not in the log: where the process lives, only the frame that was
//! on its way ([`Session::abandon`] writes down the whole ones); where it was killed or the power cut, also whole frames
//! of less than [`SOON_BYTES`], or what came while the last transaction was being written.
//!
//! # Memory
//! One frame that is being sent, and [`STAGE_BYTES`] and one frame of what came; and 40 bytes for each stream of
//! the fleet.

mod error;
mod outgoing;
mod staging;

pub use error::Error;

use std::collections::{BTreeMap, BTreeSet};

use packmule_core::model::DeviceId;
use packmule_core::wire::{
    Checkpoint, FORMAT_VERSION, FRAME_MAX, Frame, Message, RECORD_HEAD_LEN, RecordHead, RecordKind,
    SESSION_VERSION, Section, VectorEntry, take,
};

use crate::engine::{Engine, GroupOut, ImportReport, Peer, Staged, Told, applied, label};

/// From so many bytes on, what came is written to the database, also while more is there to be taken.
pub const STAGE_BYTES: usize = 16_384;
/// From so many bytes on it is written as soon as nothing more is there. A transaction for every small frame would
/// wear an SD card for nothing.
pub const SOON_BYTES: usize = 4_096;
/// Or once it is so old.
const STAGE_MS: u64 = 200;
/// How often it is looked whether something was written here.
const LOOK_MS: u64 = 1_000;
/// Until a peer has proved who it is, no record of it is longer.
const RECORD_BEFORE_PROOF: usize = 1_024;

/// How far a session has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Frames and bytes of frames that were sent.
    pub sent: (u64, u64),
    /// Bytes of these, and of what goes with them, that have not arrived yet.
    pub under_way: u64,
    /// How much is to be sent, as far as is known.
    pub to_send: (u64, u64),
    /// Frames and bytes of frames that came.
    pub received: (u64, u64),
    /// Bytes that are here of the frame that is coming.
    pub coming: u64,
    /// How much is to come, as far as the peer has told.
    pub to_receive: (u64, u64),
    /// What was made of what came.
    pub taken: ImportReport,
    /// Frames that the peer has acknowledged in all, of this device's own.
    pub acknowledged: u64,
    /// The peer lacks frames that are folded away here: it can go on from a snapshot alone, with `packmule join`.
    pub peer_needs_snapshot: bool,
    /// The same of this device, as the peer says.
    pub needs_snapshot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Our hello is out; the peer's has not come.
    Hello,
    /// The peer's hello has come, its proof has not.
    Proof,
    /// Both ends know each other.
    Open,
    /// No more.
    Over,
}

/// A group that is being sent.
struct Sending {
    group: GroupOut,
    next: u64,
}

/// One end of a session.
pub struct Session {
    nonce: [u8; 32],
    phase: Phase,
    peer: Option<Peer>,
    proved: bool,
    peer_nonce: [u8; 32],
    // In.
    head: Vec<u8>,
    record: Option<RecordHead>,
    body: Vec<u8>,
    section: Option<Section>,
    next_in: Option<u64>,
    staged: Vec<Staged>,
    staged_bytes: usize,
    staged_since: Option<u64>,
    /// The peer's idle that is to be settled, and whether it was.
    peer_idle: u32,
    settled_out: u32,
    peer_bye: bool,
    // Out.
    out: Vec<u8>,
    out_at: usize,
    peer_header: bool,
    /// What the peer has, was sent, or was told to have; in the order of authors and streams.
    told: Vec<Told>,
    introduced: BTreeSet<DeviceId>,
    /// The next group of each stream that has one for the peer, in the causal order; `None` until it is looked up.
    heads: Option<BTreeMap<(u64, DeviceId, u8, u64), GroupOut>>,
    section_out: Option<Section>,
    sending: Option<Sending>,
    idle: u32,
    idle_current: bool,
    settled_in: u32,
    bye: bool,
    /// The vector that the peer knows of us.
    vector: Vec<VectorEntry>,
    /// What it says that it has, not noted yet.
    acks: BTreeMap<(DeviceId, u8), VectorEntry>,
    /// Up to where it has our streams.
    own_acked: [u64; 2],
    version: i64,
    looked: u64,
    more_out: bool,
    progress: Progress,
}

impl Session {
    /// Begins: seals what was written here, and says hello. The nonce must be random.
    ///
    /// # Errors
    /// Whatever sealing meets.
    pub fn new(engine: &mut Engine, nonce: [u8; 32], now_ms: u64) -> Result<Self, Error> {
        engine.seal()?;
        let certificate = engine.own_certificate()?;
        let mut session = Self {
            nonce,
            phase: Phase::Hello,
            peer: None,
            proved: false,
            peer_nonce: [0; 32],
            head: Vec::new(),
            record: None,
            body: Vec::new(),
            section: None,
            next_in: None,
            staged: Vec::new(),
            staged_bytes: 0,
            staged_since: None,
            peer_idle: 0,
            settled_out: 0,
            peer_bye: false,
            out: Vec::new(),
            out_at: 0,
            peer_header: false,
            told: Vec::new(),
            introduced: BTreeSet::new(),
            heads: None,
            section_out: None,
            sending: None,
            idle: 0,
            idle_current: false,
            settled_in: 0,
            bye: false,
            vector: Vec::new(),
            acks: BTreeMap::new(),
            own_acked: [0; 2],
            version: engine.data_version()?,
            looked: now_ms,
            more_out: true,
            progress: Progress::default(),
        };
        session.say(&Message::Hello {
            session: (SESSION_VERSION, SESSION_VERSION),
            format: (FORMAT_VERSION, FORMAT_VERSION),
            nonce,
            certificate: &certificate,
        })?;
        Ok(session)
    }

    // ---- what the driver asks ----------------------------------------------------------------

    /// The peer, once it has proved who it is.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref().filter(|_| self.proved)
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Each end has all that the other has, durably.
    pub fn in_step(&self) -> bool {
        self.phase == Phase::Open
            && self.idle_current
            && !self.more_out
            && self.idle == self.settled_in
            && self.peer_idle > 0
            && self.settled_out == self.peer_idle
            && self.staged.is_empty()
            && self.sending.is_none()
    }

    /// The peer will send nothing more.
    pub fn peer_done(&self) -> bool {
        self.peer_bye
    }

    /// Everything that this end wanted to say has been handed out, after [`Session::finish`].
    pub fn done(&self) -> bool {
        self.bye && self.out_at == self.out.len()
    }

    /// Sends nothing more, be it in the middle of a group; writes to the database what came.
    ///
    /// # Errors
    /// As [`Session::tick`].
    pub fn finish(&mut self, engine: &mut Engine) -> Result<(), Error> {
        self.flush(engine)?;
        self.note_acks(engine)?;
        if !self.bye {
            self.bye = true;
            self.sending = None;
            if self.phase == Phase::Open {
                self.say(&Message::Bye)?;
            }
        }
        Ok(())
    }

    /// When [`Session::tick`] is to be called at the latest.
    pub fn deadline(&self) -> u64 {
        let look = self.looked + LOOK_MS;
        self.staged_since.map_or(look, |since| look.min(since + STAGE_MS))
    }

    /// Lets time pass: writes to the database what came a while ago, looks whether something was written
    /// here and seals it.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn tick(&mut self, engine: &mut Engine, now_ms: u64) -> Result<(), Error> {
        if self.staged_since.is_some_and(|since| now_ms >= since + STAGE_MS) {
            self.flush(engine).map_err(|e| self.fail(e))?;
        }
        if now_ms >= self.looked + LOOK_MS {
            self.looked = now_ms;
            self.note_acks(engine)?;
            let version = engine.data_version()?;
            if version != self.version && self.phase == Phase::Open && !self.bye {
                engine.seal().map_err(|e| self.fail(e.into()))?;
                self.version = engine.data_version()?;
                self.more_out = true;
                self.tell_vector(engine)?;
            }
        }
        Ok(())
    }

    /// Bytes that are to go out next, at most a frame with its head; none if there is nothing to say now. Say with
    /// [`Session::sent`] how many the stream took.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn output(&mut self, engine: &mut Engine) -> Result<&[u8], Error> {
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            if let Err(e) = self.produce(engine) {
                return Err(self.fail(e));
            }
        }
        Ok(self.out.get(self.out_at..).unwrap_or_default())
    }

    /// The stream took so many bytes of the output.
    pub fn sent(&mut self, bytes: usize) {
        self.out_at = (self.out_at + bytes).min(self.out.len());
    }

    /// The stream has taken so many bytes that have not arrived yet: for whoever watches.
    pub fn under_way(&mut self, bytes: usize) {
        self.progress.under_way = (bytes + self.last_words().len()) as u64;
    }

    /// What is still to go out after an error, so that the peer hears why.
    pub fn last_words(&self) -> &[u8] {
        self.out.get(self.out_at..).unwrap_or_default()
    }

    // ---- in ----------------------------------------------------------------------------------

    /// Takes bytes of the stream.
    ///
    /// # Errors
    /// [`Error`]; the session is over then.
    pub fn receive(&mut self, engine: &mut Engine, now_ms: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() && self.phase != Phase::Over {
            if let Err(e) = self.receive_some(engine, now_ms, &mut bytes) {
                return Err(self.fail(e));
            }
        }
        Ok(())
    }

    /// All that has come so far was given to [`Session::receive`]: a good moment to make it durable.
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn caught_up(&mut self, engine: &mut Engine) -> Result<(), Error> {
        if self.staged_bytes < SOON_BYTES || self.phase == Phase::Over {
            return Ok(());
        }
        self.flush(engine).map_err(|e| self.fail(e))
    }

    fn receive_some(&mut self, engine: &mut Engine, now_ms: u64, bytes: &mut &[u8]) -> Result<(), Error> {
        let Some(record) = self.record else {
            fill(&mut self.head, RECORD_HEAD_LEN, bytes);
            if let Ok(head) = <&[u8; RECORD_HEAD_LEN]>::try_from(&self.head[..]) {
                let record =
                    RecordHead::parse(head).map_err(|_| Error::Protocol("no record where one should be"))?;
                if self.phase != Phase::Open
                    && (record.kind != RecordKind::Message || record.len as usize > RECORD_BEFORE_PROOF)
                {
                    return Err(Error::Protocol("a record before its proof"));
                }
                self.record = Some(record);
                self.head.clear();
            }
            return Ok(());
        };
        fill(&mut self.body, record.len as usize, bytes);
        if self.body.len() < record.len as usize {
            let is_frame = record.kind == RecordKind::Frame;
            self.progress.coming = if is_frame { self.body.len() as u64 } else { 0 };
            return Ok(());
        }
        self.progress.coming = 0;
        let body = std::mem::take(&mut self.body);
        self.record = None;
        let checked = record.check(&body).map_err(|_| Error::Protocol("a damaged record"))?;
        self.take_record(engine, now_ms, record.kind, checked)?;
        if body.len() <= FRAME_MAX && self.body.capacity() == 0 {
            self.body = body;
            self.body.clear();
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        engine: &mut Engine,
        now_ms: u64,
        kind: RecordKind,
        body: &[u8],
    ) -> Result<(), Error> {
        match kind {
            RecordKind::Message => {
                let message = Message::decode(body).map_err(|_| Error::Protocol("an unknown message"))?;
                self.take_message(engine, &message)
            }
            RecordKind::Header => self.take_header(engine, body),
            RecordKind::Certificate => {
                self.stage(engine, now_ms, Staged::Certificate(body.into()), body.len())
            }
            RecordKind::Section => {
                let mut rest = body;
                self.section = Some(take(&mut rest).map_err(|_| Error::Protocol("a section"))?);
                self.next_in = None;
                Ok(())
            }
            RecordKind::Frame => {
                let section = self.section.ok_or(Error::Protocol("a frame of nobody"))?;
                let frame = Frame::parse(body).map_err(|_| Error::Protocol("a damaged frame"))?;
                let seq = frame.head.seq;
                if self.next_in.is_some_and(|next| next != seq) {
                    return Err(Error::Protocol("frames out of their order"));
                }
                self.next_in = Some(seq + 1);
                self.progress.received.0 += 1;
                self.progress.received.1 += body.len() as u64;
                self.stage(engine, now_ms, Staged::Frame(section, seq, body.into()), body.len())
            }
            RecordKind::Checkpoint => {
                let section = self.section.ok_or(Error::Protocol("a checkpoint of nobody"))?;
                let checkpoint = Checkpoint::decode(body).map_err(|_| Error::Protocol("a checkpoint"))?;
                let fits = (checkpoint.author, checkpoint.stream) == (section.author, section.stream)
                    && self.next_in.is_none_or(|next| next == checkpoint.last + 1);
                if !fits {
                    return Err(Error::Protocol("a checkpoint that does not fit its frames"));
                }
                self.next_in = None;
                self.stage(engine, now_ms, Staged::Checkpoint(body.into()), body.len())
            }
            RecordKind::Footer | RecordKind::State | RecordKind::Part | RecordKind::Seal => {
                Err(Error::Protocol("a record that only files have"))
            }
        }
    }

    fn take_message(&mut self, engine: &mut Engine, message: &Message<'_>) -> Result<(), Error> {
        match (self.phase, message) {
            (_, Message::Refused { why, device }) => Err(Error::Refused {
                by: self.peer.as_ref().map(|peer| (peer.id, peer.name.clone())),
                why: *why,
                about: *device,
                us: *device == engine.identity().id,
            }),
            (Phase::Hello, Message::Hello { session, format, nonce, certificate }) => {
                if !(session.0..=session.1).contains(&SESSION_VERSION) {
                    return Err(Error::Version { theirs: session.1 });
                }
                if !(format.0..=format.1).contains(&FORMAT_VERSION) {
                    return Err(Error::Version { theirs: format.1 });
                }
                let peer = engine.judge_peer(certificate)?.map_err(Error::Stranger)?;
                if peer.id == engine.identity().id {
                    if *nonce != self.nonce {
                        engine.note_copy()?; // No echo of our own words.
                    }
                    return Err(Error::Itself);
                }
                let proof = engine.prove(&self.nonce, (peer.id, nonce))?;
                self.peer = Some(peer);
                self.peer_nonce = *nonce;
                self.phase = Phase::Proof;
                self.say(&Message::Proof(&proof))
            }
            (Phase::Proof, Message::Proof(signature)) => {
                let peer = self.peer.as_ref().ok_or(Error::Proof)?;
                let us = (engine.identity().id, &self.nonce);
                Message::check_proof(signature, &peer.public_key, (peer.id, &self.peer_nonce), us)
                    .map_err(|_| Error::Proof)?;
                engine.meet(peer)?;
                self.introduced.insert(peer.id);
                self.proved = true;
                self.phase = Phase::Open;
                for here in engine.beyond_vector()? {
                    let Told { author, stream, groups, frames } = here;
                    self.say(&Message::Here { author, stream, groups, frames })?;
                }
                self.tell_vector(engine)
            }
            (Phase::Open, Message::Here { author, stream, groups, frames }) if !self.peer_header => {
                let told = Told { author: *author, stream: *stream, groups: *groups, frames: *frames };
                self.raise(told);
                Ok(())
            }
            (Phase::Open, Message::Plan { frames, bytes }) => {
                let come = self.progress.received;
                self.progress.to_receive = (come.0.saturating_add(*frames), come.1.saturating_add(*bytes));
                Ok(())
            }
            (Phase::Open, Message::Idle(count)) => {
                self.peer_idle = *count;
                self.flush(engine)
            }
            (Phase::Open, Message::Settled(count)) => {
                if *count > self.idle {
                    return Err(Error::Protocol("an answer that nobody asked for"));
                }
                self.settled_in = *count;
                self.note_acks(engine)
            }
            (Phase::Open, Message::Behind) => {
                self.progress.needs_snapshot = true;
                Ok(())
            }
            (Phase::Open, Message::Bye) => {
                self.peer_bye = true;
                self.flush(engine)?;
                self.note_acks(engine)
            }
            _ => Err(Error::Protocol("a message out of its turn")),
        }
    }

    fn take_header(&mut self, engine: &mut Engine, body: &[u8]) -> Result<(), Error> {
        let peer = self.peer.as_ref().ok_or(Error::Proof)?;
        let mut entries = engine.read_header(peer, body)?;
        let me = engine.identity().id;
        if engine.hear_of_self(peer, &mut entries)? {
            return Err(Error::Anew {
                was: me,
                now: label(engine.identity().id, Some(&engine.identity().name)),
            });
        }
        // What waits there it has too, and need not be sent; it is not acknowledged.
        for VectorEntry { author, stream, seq, .. } in &entries {
            self.raise(Told { author: *author, stream: *stream, groups: *seq, frames: *seq });
        }
        for entry in applied(&entries) {
            let number = entry.stream.number();
            if let Some(own) = self.own_acked.get_mut(usize::from(number)).filter(|_| entry.author == me) {
                *own = entry.seq.max(*own);
            }
            let ack = self.acks.entry((entry.author, number)).or_insert(*entry);
            if entry.seq > ack.seq {
                *ack = *entry;
            }
        }
        self.progress.acknowledged = self.own_acked.iter().sum();
        if !self.peer_header {
            self.peer_header = true;
            self.more_out = true;
            let plan = engine.plan_out(self.peer.as_ref().ok_or(Error::Proof)?, &self.told)?;
            self.progress.to_send = plan;
            self.say(&Message::Plan { frames: plan.0, bytes: plan.1 })?;
        }
        Ok(())
    }

    fn raise(&mut self, new: Told) {
        let at = self
            .told
            .binary_search_by_key(&(new.author, new.stream.number()), |t| (t.author, t.stream.number()));
        match at {
            Ok(at) => {
                if let Some(told) = self.told.get_mut(at) {
                    told.groups = told.groups.max(new.groups);
                    told.frames = told.frames.max(new.frames).max(told.groups);
                }
            }
            Err(at) => self.told.insert(at, new),
        }
    }
}

/// Moves bytes until `to` has `len`.
fn fill(to: &mut Vec<u8>, len: usize, from: &mut &[u8]) {
    let some = from.len().min(len.saturating_sub(to.len()));
    let (taken, rest) = from.split_at(some);
    to.extend_from_slice(taken);
    *from = rest;
}
