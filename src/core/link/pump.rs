//! The lower edge: a microcontroller's UART, through the traits of `embedded-io`.

use embedded_io::{Read, ReadReady, Write};

use super::Link;
use super::config::WIRE_MIN;

/// Bytes on their way between a port and a link: one packet, handed out by the link and not yet
/// accepted by the port. `ROOM`, in bytes: 1,200 is for a payload of 1,024, [`WIRE_MAX`](super::WIRE_MAX) for any.
pub struct Pump<const ROOM: usize = 1200> {
    out: [u8; ROOM],
    from: usize,
    to: usize,
}

impl<const ROOM: usize> Default for Pump<ROOM> {
    fn default() -> Self {
        Self::with_room()
    }
}

impl Pump {
    /// Makes an empty pump, of 1,200 bytes.
    pub const fn new() -> Self {
        Self::with_room()
    }
}

impl<const ROOM: usize> Pump<ROOM> {
    const SIZES: () = assert!(ROOM >= WIRE_MIN, "ROOM: 96 bytes or more");

    /// Makes an empty pump, of any size.
    pub const fn with_room() -> Self {
        let () = Self::SIZES;
        Self { out: [0; ROOM], from: 0, to: 0 }
    }

    /// Returns how many bytes the link handed out and the port has not accepted.
    pub const fn waiting(&self) -> usize {
        self.to - self.from
    }

    /// Moves what has arrived into the link and what is due out of it. Returns when to come back at
    /// the latest ([`Link::deadline`]); come earlier when bytes arrive or after `send` and `recv`.
    ///
    /// `Write::write` may wait until the port accepts at least one byte; between any two writes
    /// everything that has arrived is read. `Write::flush` is not called: it would wait for the
    /// line. `now` is in microseconds. Where [`Config::baud_max`](super::Config::baud_max) is above the first rate,
    /// see to [`Link::baud_wanted`] after each call.
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

#[cfg(test)]
mod tests {
    use super::super::{Config, LeafLink, State};
    use super::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    /// A UART that accepts a few bytes at a time.
    #[derive(Default)]
    struct Port {
        input: VecDeque<u8>,
        output: Vec<u8>,
    }

    impl embedded_io::ErrorType for Port {
        type Error = core::convert::Infallible;
    }
    impl Read for Port {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, Self::Error> {
            let count = buf.len().min(self.input.len());
            buf.iter_mut().zip(self.input.drain(..count)).for_each(|(slot, byte)| *slot = byte);
            Ok(count)
        }
    }
    impl ReadReady for Port {
        fn read_ready(&mut self) -> Result<bool, Self::Error> {
            Ok(!self.input.is_empty())
        }
    }
    impl Write for Port {
        fn write(&mut self, buf: &[u8]) -> Result<usize, Self::Error> {
            let count = buf.len().min(7);
            self.output.extend(&buf[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    #[test]
    fn two_uarts_carry_a_stream() {
        let mut links = [1, 2].map(|nonce| LeafLink::new(Config::new(115_200, nonce)));
        let mut pumps = [Pump::new(), Pump::new()];
        let mut ports = [Port::default(), Port::default()];
        let text: Vec<u8> = (0..5_000u32).map(|i| (i * 31 / 7) as u8).collect();
        let mut got: Vec<u8> = Vec::new();
        let (mut sent, mut now) = (0, 0);
        while got.len() < text.len() {
            assert!(now < 20_000_000, "{} bytes", got.len());
            sent += links[0].send(&text[sent..]);
            let mut next = now + 10_000;
            for i in 0..2 {
                next = next.min(pumps[i].drive(&mut links[i], &mut ports[i], now).unwrap().unwrap_or(next));
                let bytes = core::mem::take(&mut ports[i].output);
                ports[1 - i].input.extend(bytes);
            }
            let mut out = [0; 100];
            let count = links[1].recv(&mut out);
            got.extend(&out[..count]);
            now = next.max(now + 100);
        }
        assert_eq!(got, text);
        assert_eq!(links[0].state(), State::Open);
    }
}
