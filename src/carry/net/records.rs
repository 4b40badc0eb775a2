//! The records of a stream: what goes over it, and when.

use std::io;
use std::time::{Duration, Instant};

use super::Error;
use super::stream::Stream;
use crate::carry::channel::Wire;

/// So much is read at once.
const READ: usize = 8_192;
/// Who has nothing to say says so, this often.
pub(super) const STILL_HERE: Duration = Duration::from_secs(20);

/// One end of a stream of records.
pub(super) struct Records {
    pub(super) stream: Box<dyn Stream>,
    wire: Wire,
    over: bool,
    spoke: Instant,
    heard: Instant,
    /// Since when something is to go out and does not.
    stuck: Option<Instant>,
}

impl Records {
    fn new(stream: Box<dyn Stream>, wire: Wire) -> Self {
        let now = Instant::now();
        Self { stream, wire, over: false, spoke: now, heard: now, stuck: None }
    }

    /// Begins, with the next flush.
    pub(super) fn call(stream: Box<dyn Stream>, plain: bool) -> Result<Self, Error> {
        Ok(Self::new(stream, Wire::call(plain)?))
    }

    /// Lets the other end begin, of which these bytes came.
    pub(super) fn answer(stream: Box<dyn Stream>, plain: bool, came: Vec<u8>) -> Self {
        Self::new(stream, Wire::answer(plain, came))
    }

    /// Returns whether records can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.wire.is_open()
    }

    /// Returns the nonces that the channel gives the session, this end's and the other's, if it is encrypted.
    pub(super) fn nonces(&self) -> Option<[[u8; 32]; 2]> {
        self.wire.nonces()
    }

    /// Returns for how long the other end was not heard.
    pub(super) fn silent(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Returns for how long the other end has taken nothing of what is to go out.
    pub(super) fn stuck(&self) -> Duration {
        self.stuck.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Returns whether the stream had no room for what is to go out.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Returns how many bytes wait to go out.
    pub(super) fn waiting(&self) -> usize {
        self.wire.waiting()
    }

    /// Receives what came: `None` if there is nothing at the moment, 0 if nothing more will come.
    pub(super) fn receive(&mut self, to: &mut [u8]) -> Result<Option<usize>, Error> {
        loop {
            let was_open = self.is_open();
            let taken = self.wire.take(to);
            if self.is_open() != was_open || taken.is_err() {
                // Of one that ends here, so that the other end can say why.
                let flushed = self.flush();
                taken.as_ref().map_or(Ok(true), |_| flushed)?;
            }
            match taken? {
                0 if to.is_empty() && self.is_open() => return Ok(None),
                0 => {}
                count => return Ok(Some(count)),
            }
            match self.fill() {
                Ok(0) => self.over = true,
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Broken(e)),
            }
            return Ok(Some(0));
        }
    }

    /// Returns whether the other end has ended its way.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ];
        let count = self.stream.read(&mut bytes)?;
        self.wire.hear(&bytes[..count]);
        self.heard = Instant::now();
        Ok(count)
    }

    /// Sends some of these bytes. Returns how many: none where the stream has no room at the moment.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if !self.flush()? {
            return Ok(0);
        }
        let taken = self.wire.put(bytes);
        self.record()?;
        self.flush()?;
        Ok(taken)
    }

    /// Sends what was put, also where that is nothing.
    pub(super) fn record(&mut self) -> Result<(), Error> {
        self.wire.seal()?;
        self.spoke = Instant::now();
        Ok(())
    }

    /// Lets the other end know that this one is there, if it has been told nothing for a while.
    pub(super) fn still_here(&mut self) -> Result<(), Error> {
        if self.is_open() && self.spoke.elapsed() >= STILL_HERE && self.flush()? {
            self.record()?;
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is to go out. Returns whether all of it has gone.
    pub(super) fn flush(&mut self) -> Result<bool, Error> {
        while !self.wire.to_go().is_empty() {
            match self.stream.write(self.wire.to_go()) {
                Ok(0) => return Err(Error::Broken(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.wire.went(count);
                    self.stuck = None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Err(e) => return Err(Error::Broken(e)),
            }
        }
        match self.stream.flush() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.stuck.get_or_insert_with(Instant::now);
                Ok(false)
            }
            flushed => {
                self.stuck = None;
                flushed.map(|()| true).map_err(Error::Broken)
            }
        }
    }
}
