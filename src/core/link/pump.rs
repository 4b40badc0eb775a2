//! The lower edge: a microcontroller's UART, through the traits of `embedded-io`.

use embedded_io::{Read, ReadReady, Write};

use super::Link;
use super::config::WIRE_MAX;

/// Bytes on their way between a port and a link: one packet, handed out by the link and not yet
/// taken by the port.
pub struct Pump {
    out: [u8; WIRE_MAX],
    from: usize,
    to: usize,
}

impl Default for Pump {
    fn default() -> Self {
        Self::new()
    }
}

impl Pump {
    /// An empty pump.
    pub const fn new() -> Self {
        Self { out: [0; WIRE_MAX], from: 0, to: 0 }
    }

    /// Moves what has arrived into the link and what is due out of it. Gives when to come back at
    /// the latest ([`Link::deadline`]); come earlier when bytes arrive or after `send` and `recv`.
    ///
    /// `Write::write` may wait until the port takes at least one byte; between any two writes
    /// everything that has arrived is read. `Write::flush` is not called: it would wait for the
    /// line. `now` is in microseconds.
    ///
    /// # Errors
    /// The port's own. The link has lost nothing: call [`Link::line_changed`] once the port is back.
    pub fn drive<P, const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize>(
        &mut self,
        link: &mut Link<TX, RX, PACKET, FLIGHT>,
        port: &mut P,
        now: u64,
    ) -> Result<Option<u64>, P::Error>
    where
        P: Read + ReadReady + Write,
    {
        loop {
            let mut bytes = [0; 64];
            // Bounded: at most one link's buffer before the line gets its turn.
            for _ in 0..RX.div_ceil(bytes.len()) {
                if !port.read_ready()? {
                    break;
                }
                let count = port.read(&mut bytes)?;
                link.receive_bytes(now, bytes.get(..count).unwrap_or_default());
            }
            if self.from == self.to {
                (self.from, self.to) = (0, link.transmit(now, &mut self.out));
                if self.to == 0 {
                    return Ok(link.deadline());
                }
            }
            let taken = port.write(self.out.get(self.from..self.to).unwrap_or_default())?;
            if taken == 0 {
                return Ok(Some(now));
            }
            self.from = (self.from + taken).min(self.to);
        }
    }
}
