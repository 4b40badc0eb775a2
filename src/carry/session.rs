//! The session of [`packmule_core::session`] over a database: two ends that talk, over any stream of bytes that is
//! reliable and ordered, until each has what the other has. That module's page says how it is driven and what is
//! durable when; it is the same here, with the engine in the place of the log.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`Session`]: the machine with what it keeps beside the database |
//! | `log` | the calls that the machine makes, answered by the engine |
//! | `outgoing` | what the peer has, and which group goes to it next |
//! | `state` | the state for who lacks what is folded, in files beside the database |
//! | `unfinished` | how much of groups without an end is kept |
//! | `growing` | the buffers: as long as what is on its way |
//! | `error` | why a session ends, in words that say what to do next |
//!
//! # Memory
//! One record that is being sent (a frame has up to 64 KiB) and one that is coming; what came and is not committed,
//! which is less than 16 KiB and a frame; and some 300 bytes for each stream of the fleet. A state, which can be as
//! large as the database, is in a file beside it at both ends while it is on its way.

mod error;
mod growing;
mod log;
mod outgoing;
mod state;
mod unfinished;

pub use error::Error;

use packmule_core::session::{self as machine, Log};

use crate::engine::{Engine, ImportReport, Peer};
use growing::Growing;
use log::{EngineLog, Kept};

/// From so many bytes on, what came is committed, also while more is there to be received.
pub const STAGE_BYTES: usize = <EngineLog<'_> as Log>::STAGE_BYTES;
/// From so many bytes on it is committed as soon as nothing more is there.
pub const SOON_BYTES: usize = <EngineLog<'_> as Log>::SOON_BYTES;

/// How far a session has come.
pub type Progress = machine::Progress<ImportReport>;

type Machine = machine::Session<Growing, ImportReport>;

/// One end of a session.
pub struct Session {
    machine: Machine,
    kept: Kept,
}

impl Session {
    /// Begins: seals what was written here, and sends hello. The nonce must be random.
    ///
    /// # Errors
    /// Whatever sealing meets.
    pub fn new(engine: &mut Engine, nonce: [u8; 32], now_ms: u64) -> Result<Self, Error> {
        Self::begin(engine, nonce, Kept::default(), now_ms)
    }

    /// Does what [`Session::new`] does, where both nonces follow from the keys of an encrypted channel, this end's and
    /// the peer's: what the peer proves then holds in this channel alone, and nobody stands in between.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn in_channel(engine: &mut Engine, nonces: [[u8; 32]; 2], now_ms: u64) -> Result<Self, Error> {
        let [nonce, peer] = nonces;
        Self::begin(engine, nonce, Kept::in_channel(peer), now_ms)
    }

    fn begin(engine: &mut Engine, nonce: [u8; 32], mut kept: Kept, now_ms: u64) -> Result<Self, Error> {
        let machine = Machine::new(&mut EngineLog::new(engine, &mut kept), nonce, now_ms);
        match machine {
            Ok(machine) => Ok(Self { machine, kept }),
            Err(e) => Err(Error::new(e, engine, &mut kept)),
        }
    }

    /// Lets the machine work on the database.
    fn run<R>(
        &mut self,
        engine: &mut Engine,
        work: impl FnOnce(&mut Machine, &mut EngineLog<'_>) -> Result<R, machine::Error<crate::engine::Error>>,
    ) -> Result<R, Error> {
        let result = work(&mut self.machine, &mut EngineLog::new(engine, &mut self.kept));
        result.map_err(|e| Error::new(e, engine, &mut self.kept))
    }

    /// Returns the peer, once it has proved who it is.
    pub fn peer(&self) -> Option<&Peer> {
        self.machine.peer().and(self.kept.peer.as_ref())
    }

    /// Returns how far it is.
    pub fn progress(&self) -> &Progress {
        self.machine.progress()
    }

    /// Returns whether each end has all that the other has, durably.
    pub fn in_step(&self) -> bool {
        self.machine.in_step()
    }

    /// Returns whether the peer sends nothing more.
    pub fn peer_done(&self) -> bool {
        self.machine.peer_done()
    }

    /// Returns whether the peer has said who it is and may be trusted, though it has proved nothing yet.
    pub fn is_greeted(&self) -> bool {
        self.machine.state() != machine::State::Hello
    }

    /// Returns whether everything that this end had to send has been handed out, after [`Session::finish`].
    pub fn done(&self) -> bool {
        self.machine.done()
    }

    /// Sends nothing more, be it in the middle of a group; commits what came.
    ///
    /// # Errors
    /// As [`Session::tick`].
    pub fn finish(&mut self, engine: &mut Engine) -> Result<(), Error> {
        self.run(engine, |machine, log| machine.finish(log))
    }

    /// Returns when [`Session::tick`] is to be called at the latest.
    pub fn deadline(&self) -> u64 {
        self.machine.deadline()
    }

    /// Lets time pass: commits what came a while ago, looks whether something was written here and seals it.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn tick(&mut self, engine: &mut Engine, now_ms: u64) -> Result<(), Error> {
        self.run(engine, |machine, log| machine.tick(log, now_ms))
    }

    /// Returns the bytes that are to go out next, at most a frame with its head; none if there is nothing to send
    /// now. Report with [`Session::sent`] how many the stream accepted.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn output(&mut self, engine: &mut Engine) -> Result<&[u8], Error> {
        self.run(engine, |machine, log| machine.output(log).map(|_| ()))?;
        Ok(self.machine.pending_output())
    }

    /// Records that the stream accepted so many bytes of the output.
    pub fn sent(&mut self, bytes: usize) {
        self.machine.sent(bytes);
    }

    /// Records that the stream has accepted so many bytes that have not arrived yet: for whoever watches.
    pub fn under_way(&mut self, bytes: usize) {
        self.machine.under_way(bytes);
    }

    /// Returns what is still to go out, after an error too, so that the peer hears why.
    pub fn pending_output(&self) -> &[u8] {
        self.machine.pending_output()
    }

    /// Receives bytes of the stream.
    ///
    /// # Errors
    /// [`Error`]; the session is over then.
    pub fn receive(&mut self, engine: &mut Engine, now_ms: u64, bytes: &[u8]) -> Result<(), Error> {
        self.run(engine, |machine, log| {
            let mut rest = bytes;
            loop {
                let taken = machine.receive(log, now_ms, rest)?;
                rest = rest.get(taken..).unwrap_or_default();
                if rest.is_empty() {
                    return Ok(());
                }
                machine.introduce(log)?;
            }
        })
    }

    /// Makes what came durable, if it is enough: all that has come so far was given to [`Session::receive`].
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn caught_up(&mut self, engine: &mut Engine) -> Result<(), Error> {
        self.run(engine, |machine, log| machine.caught_up(log))
    }

    /// Flushes what came whole after the stream broke off, or an error ended the session: it is committed, so that
    /// only the frame that was on its way comes again. `rest`: bytes of the stream that were not given to
    /// [`Session::receive`]. Nothing is trusted more than it was: a group is applied if its checkpoint is there
    /// and verified, and after an error of what came itself nothing is committed. Sends nothing, and ends the session.
    ///
    /// # Errors
    /// What the database refuses. After an error of the session, that one is the reason to report.
    pub fn abandon(&mut self, engine: &mut Engine, now_ms: u64, rest: &[u8]) -> Result<(), Error> {
        self.run(engine, |machine, log| {
            machine.abandon(log, now_ms, rest).and(log.leave().map_err(machine::Error::Log))
        })
    }
}
