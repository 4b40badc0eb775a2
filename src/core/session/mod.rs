//! The session: two ends of a reliable, ordered stream of bytes that talk until each has all that the other has. They
//! announce who they are and what each has; then the frames that the other lacks go both ways at once, and each group
//! is acknowledged when it is committed.
//!
//! A state machine: bytes in ([`Session::receive`]), bytes out ([`Session::output`]), a clock given in milliseconds.
//! It has no stream, no thread, no clock, no heap and no randomness, and knows the log as a [`Log`] that is handed in.
//! Every carrier runs this one: a board's over its database, a microcontroller's over some pages of flash.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`Session`]: the caller's side; what time does |
//! | `state.rs` | [`State`]: states × events, as one function; `STATES.md` is the table |
//! | `log.rs` | [`Log`]: the calls that a log must have |
//! | `incoming.rs` | bytes become records, records are handled: certificates, frames, checkpoints, vectors |
//! | `messages.rs` | what the peer sends besides: hello, proof, idle, … |
//! | `outgoing.rs` | what goes out, one record at a time; the refusal after an error |
//! | `transfer.rs` | the state of the shared tables, for who lacks what is folded |
//! | `staging.rs` | what came, until it is committed; a stream that breaks off |
//! | `buffer.rs` | [`Buffer`]: where the record lies that is coming, and the one that is going |
//! | `progress.rs`, `error.rs` | how far it is; why it ended |
//!
//! Imports from the crate: `model`, `wire`.
//!
//! # Driving it
//! After each call that hands the session something, write out what [`Session::output`] returns, as long as it
//! returns something and the stream accepts it; call [`Session::caught_up`] when the stream has nothing more for the
//! moment, and [`Session::tick`] at [`Session::deadline`] at the latest.
//! Any error ends the session: write out what [`Session::pending_output`] has (the peer hears why), and begin a
//! new one. Nothing that was acknowledged is lost by it. Before a session is dropped, whatever the reason, call
//! [`Session::abandon`], unless [`Session::finish`] was called.
//!
//! # What is durable when
//! Frames go to the log as they come: at once when the stream has nothing more for the moment and they are
//! [`Log::SOON_BYTES`] or more, smaller ones 0.2 s later at the latest; where the stream is ahead of the log, in
//! transactions of [`Log::STAGE_BYTES`]. A group is applied only when its author's signature was verified over what is
//! in the log. After a break the peer sends what is not in the log: where the process lives, only the frame that was
//! on its way ([`Session::abandon`] commits the whole ones); where it was killed or the power cut, also whole frames
//! of less than [`Log::SOON_BYTES`], or what came while the last transaction was being written.
//!
//! # Memory
//! A session is two buffers and at most [`OVERHEAD`] bytes: `size_of::<Session<Vec<u8, N>>>()` of `heapless` is
//! at most `2 × (N + 16) + OVERHEAD`. One buffer has the record that is coming, the other the one that is going; each
//! record needs 42 bytes more than its body. A peer that sends a longer one ends the session ([`Error::TooLong`]). The
//! hello needs [`BUFFER_MIN`]. No call needs more than 1 KiB of stack besides what the log and the
//! signatures need.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod buffer;
mod error;
mod incoming;
mod log;
mod messages;
mod outgoing;
mod progress;
mod staging;
mod state;
mod transfer;

use core::fmt;

pub use buffer::{Body, Buffer};
pub use error::Error;
pub use log::{Frontier, Group, Heard, Incoming, Intake, Log, NextGroup, Trust};
pub use progress::Progress;
pub use state::State;

use crate::model::DeviceId;
use crate::wire::{
    CERT_MAX, FORMAT_VERSION, FRAME_VERSION, Message, RECORD_HEAD_LEN, SESSION_VERSION, SESSION_VERSION_MIN,
    Section,
};
use buffer::Out;
use state::{Input, next};

/// The session version from which on a peer knows the messages about fleet keys that follow each other and about a state.
const SINCE: u8 = 2;
/// The session version from which on a peer that was set back is shown its own newest checkpoints.
const SINCE_NEWEST: u8 = 3;
/// What a session takes besides its two buffers, in bytes, where [`Log::Taken`] is `()`.
pub const OVERHEAD: usize = 576;
const _: () = {
    assert!(size_of::<Session<heapless::Vec<u8, 512>>>() <= 2 * (512 + 16) + OVERHEAD);
    assert!(size_of::<Session<heapless::Vec<u8, 4096>>>() <= 2 * (4096 + 16) + OVERHEAD);
};
/// The longest message: a hello.
const MESSAGE_MAX: usize = CERT_MAX + 40;
/// A buffer of so many bytes has room for every message, and for a refusal behind it.
pub const BUFFER_MIN: usize = RECORD_HEAD_LEN + MESSAGE_MAX + 4 + 30;

/// How long what came may wait to be committed.
const STAGE_MS: u64 = 200;
/// How often it is looked whether something was written here, which costs next to nothing.
const LOOK_MS: u64 = 250;
/// So much later, once something was: who writes all the time makes no more groups than that.
const AFTER_SEAL_MS: u64 = 250;
/// How often at most it is recorded what the peer has: each time is a write.
const RECORD_MS: u64 = 1_000;

/// One end of a session. `B`: where its two records are. `T`: what the log reports, [`Log::Taken`].
///
/// See the module's page.
pub struct Session<B, T = ()> {
    input: incoming::Records<B>,
    machine: Machine<B, T>,
}

/// All of a session but the record that is coming.
struct Machine<B, T> {
    state: State,
    me: DeviceId,
    nonce: [u8; 32],
    /// The highest session version that both speak, once the peer's hello has come.
    version: u8,
    peer: Option<Peer>,
    /// The caller wants no more.
    finished: bool,
    peer_bye: bool,
    /// Whose frames come, and which is the next.
    section: Option<Section>,
    next_in: Option<u64>,
    staged: staging::Staged,
    /// The last idle of the peer's, up to which of them all is committed, and up to which that was sent.
    peer_idle: u32,
    committed_idle: u32,
    settled_out: u32,
    out: Out<B>,
    owed: outgoing::Owed,
    /// Whose frames go out.
    section_out: Option<Section>,
    sending: Option<outgoing::Sending>,
    /// There may be a group for the peer.
    more_out: bool,
    transfer: transfer::Transfer,
    /// Our last idle; whether nothing was sent since; up to which of them the peer has committed all.
    idle: u32,
    idle_current: bool,
    settled_in: u32,
    /// When it was last looked whether something was written here.
    looked: u64,
    /// When it was last recorded what the peer has acknowledged.
    recorded: u64,
    progress: Progress<T>,
}

/// The other end, as far as its messages are checked by the session.
#[derive(Clone, Copy)]
struct Peer {
    id: DeviceId,
    public_key: [u8; 32],
    nonce: [u8; 32],
    /// It has the key.
    proved: bool,
    /// Whether it is trusted is decided with its proof.
    pending: bool,
}

impl<B: Buffer, T: Default> Session<B, T> {
    /// Begins: seals what was written here, and sends hello. The nonce must be random.
    ///
    /// # Errors
    /// What the log refuses; [`Error::NoRoom`] if `B` has less than [`BUFFER_MIN`] bytes.
    pub fn new<L: Log<Taken = T>>(
        log: &mut L,
        nonce: [u8; 32],
        now_ms: u64,
    ) -> Result<Self, Error<L::Error>> {
        log.seal().map_err(Error::Log)?;
        let mut certificate = heapless::Vec::<u8, CERT_MAX>::new();
        let me = buffer::written(&mut certificate, |body| log.certificate(body))?.map_err(Error::Log)?;
        let mut machine = Machine {
            state: State::Hello,
            me,
            nonce,
            version: SESSION_VERSION_MIN,
            peer: None,
            finished: false,
            peer_bye: false,
            section: None,
            next_in: None,
            staged: staging::Staged::default(),
            peer_idle: 0,
            committed_idle: 0,
            settled_out: 0,
            out: Out::default(),
            owed: outgoing::Owed::default(),
            section_out: None,
            sending: None,
            more_out: true,
            transfer: transfer::Transfer::default(),
            idle: 0,
            idle_current: false,
            settled_in: 0,
            looked: now_ms,
            recorded: now_ms,
            progress: Progress::default(),
        };
        machine.send_message(&Message::Hello {
            session: (SESSION_VERSION_MIN, SESSION_VERSION),
            format: (FORMAT_VERSION, FRAME_VERSION),
            nonce,
            certificate: &certificate,
        })?;
        Ok(Self { input: incoming::Records::default(), machine })
    }
}

impl<B: Buffer, T> Session<B, T> {
    /// Returns where it stands.
    pub fn state(&self) -> State {
        self.machine.state
    }

    /// Returns the peer, once it has proved who it is.
    pub fn peer(&self) -> Option<DeviceId> {
        self.machine.peer.filter(|peer| peer.proved).map(|peer| peer.id)
    }

    /// Returns how far it is.
    pub fn progress(&self) -> &Progress<T> {
        &self.machine.progress
    }

    /// Returns whether each end has all that the other has, durably.
    pub fn in_step(&self) -> bool {
        let m = &self.machine;
        matches!(m.state, State::Open | State::Leaving)
            && m.idle_current
            && !m.more_out
            && m.idle == m.settled_in
            && m.peer_idle > 0
            && m.settled_out == m.peer_idle
            && m.staged.is_empty()
            && m.sending.is_none()
            && m.transfer.is_idle()
    }

    /// Returns whether the peer sends no more frames.
    pub fn peer_done(&self) -> bool {
        self.machine.peer_bye
    }

    /// Returns whether everything that this end had to send has been handed out, after [`Session::finish`].
    pub fn done(&self) -> bool {
        let m = &self.machine;
        m.finished && m.out.rest().is_empty() && (m.state == State::Over || !m.owes())
    }

    /// Sends no more frames, be it in the middle of a group; commits what came.
    ///
    /// # Errors
    /// As [`Session::tick`].
    pub fn finish<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<(), Error<L::Error>> {
        self.machine.finished = true;
        if self.machine.state == State::Over {
            return Ok(());
        }
        self.machine.step(log, Input::Finish).map_err(|e| self.machine.fail(log, e))
    }

    /// Returns when [`Session::tick`] is to be called at the latest.
    pub fn deadline(&self) -> u64 {
        let look = self.machine.looked.saturating_add(LOOK_MS);
        self.machine.staged.since().map_or(look, |since| look.min(since.saturating_add(STAGE_MS)))
    }

    /// Lets time pass: commits what came a while ago, looks whether something was written here.
    ///
    /// # Errors
    /// What the log refuses.
    pub fn tick<L: Log<Taken = T>>(&mut self, log: &mut L, now_ms: u64) -> Result<(), Error<L::Error>> {
        if self.machine.state == State::Over {
            return Ok(());
        }
        self.machine.tick(log, now_ms).map_err(|e| self.machine.fail(log, e))
    }

    /// Returns the bytes that are to go out next, at most a record; none if there is nothing to send now. Report with
    /// [`Session::sent`] how many the stream accepted.
    ///
    /// # Errors
    /// What the log refuses.
    pub fn output<L: Log<Taken = T>>(&mut self, log: &mut L) -> Result<&[u8], Error<L::Error>> {
        if self.machine.out.rest().is_empty()
            && let Err(e) = self.machine.produce(log)
        {
            return Err(self.machine.fail(log, e));
        }
        Ok(self.pending_output())
    }

    /// Records that the stream accepted so many bytes of the output.
    pub fn sent(&mut self, bytes: usize) {
        self.machine.out.sent(bytes);
    }

    /// Records that the stream has accepted so many bytes that have not arrived yet: for whoever watches.
    pub fn under_way(&mut self, bytes: usize) {
        self.machine.progress.under_way = (bytes + self.pending_output().len()) as u64;
    }

    /// Returns what is still to go out of the last record; after an error also why the session ended.
    pub fn pending_output(&self) -> &[u8] {
        self.machine.out.rest()
    }
}

impl<B: Buffer, T> Machine<B, T> {
    /// Does what an event does in this state.
    fn step<L: Log<Taken = T>>(&mut self, log: &mut L, input: Input) -> Result<(), Error<L::Error>> {
        let (to, acts) = next(self.state, input).ok_or(Error::OutOfTurn(self.state))?;
        self.state = to;
        self.owe(&acts);
        if acts.commit {
            self.flush(log)?;
            if log.settle().map_err(Error::Log)? {
                self.look_again();
            }
        }
        if acts.record {
            log.record_acks().map_err(Error::Log)?;
        }
        Ok(())
    }

    /// Refuses what is out of turn in this state.
    fn allow<E>(&self, input: Input) -> Result<(), Error<E>> {
        next(self.state, input).map(|_| ()).ok_or(Error::OutOfTurn(self.state))
    }

    /// Returns the peer, once its hello has come.
    fn peer<E>(&self) -> Result<Peer, Error<E>> {
        self.peer.ok_or(Error::OutOfTurn(self.state))
    }

    fn tick<L: Log<Taken = T>>(&mut self, log: &mut L, now_ms: u64) -> Result<(), Error<L::Error>> {
        if self.staged.since().is_some_and(|since| now_ms >= since.saturating_add(STAGE_MS)) {
            self.flush(log)?;
        }
        if now_ms >= self.looked.saturating_add(LOOK_MS) {
            self.looked = now_ms;
            if now_ms >= self.recorded.saturating_add(RECORD_MS) {
                self.recorded = now_ms;
                log.record_acks().map_err(Error::Log)?;
            }
            let sends = matches!(self.state, State::Greeting | State::Open);
            if sends && log.seal().map_err(Error::Log)? {
                self.looked = now_ms.saturating_add(AFTER_SEAL_MS);
                self.look_again();
            }
        }
        Ok(())
    }

    /// Handles that what is applied here has changed: the peer hears of it, and there may be groups for it.
    fn look_again(&mut self) {
        self.more_out = true;
        self.owed.header = true;
    }
}

impl<B: Buffer, T: fmt::Debug> fmt::Debug for Session<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state())
            .field("peer", &self.peer())
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<B: Buffer, T: defmt::Format> defmt::Format for Session<B, T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(
            f,
            "Session {{ state: {}, peer: {}, progress: {} }}",
            self.state(),
            self.peer(),
            self.progress()
        );
    }
}
