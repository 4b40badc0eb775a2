//! Framing: Consistent Overhead Byte Stuffing. A packet holds no zero byte; a zero ends it.
//!
//! The cost is one byte, one more for each 254 without a zero, and the delimiter. After any damage
//! the receiver is in step again at the next zero. Neither half keeps more than its place.

/// Returns the most bytes that a packet of `len` takes on the line: stuffing, the closing delimiter and one
/// delimiter before it (sent when the line was idle).
pub(super) const fn wire_len(len: usize) -> usize {
    len + len / 254 + 3
}

/// Stuffs bytes into a caller's buffer. What does not fit is noted in [`Self::finish`].
pub(super) struct Stuffer<'a> {
    out: &'a mut [u8],
    at: usize,
    code_at: usize,
    code: u8,
    full: bool,
}

impl<'a> Stuffer<'a> {
    /// Begins a packet. `lead`: with a delimiter before it, which cuts off what noise left at the receiver.
    pub(super) fn new(out: &'a mut [u8], lead: bool) -> Self {
        let mut this = Self { out, at: 0, code_at: 0, code: 1, full: false };
        if lead {
            this.append(0);
        }
        this.code_at = this.at;
        this.append(1);
        this
    }

    fn append(&mut self, byte: u8) {
        match self.out.get_mut(self.at) {
            Some(slot) => {
                *slot = byte;
                self.at += 1;
            }
            None => self.full = true,
        }
    }

    fn close_block(&mut self) {
        if let Some(slot) = self.out.get_mut(self.code_at) {
            *slot = self.code;
        }
        self.code_at = self.at;
        self.code = 1;
    }

    pub(super) fn push(&mut self, byte: u8) {
        if self.code == 0xff {
            self.close_block();
            self.append(1);
        }
        if byte == 0 {
            self.close_block();
            self.append(1);
        } else {
            self.append(byte);
            self.code += 1;
        }
    }

    /// Ends the packet. Returns the bytes written, or nothing when the buffer was too small.
    pub(super) fn finish(mut self) -> Option<usize> {
        self.close_block();
        self.append(0);
        if self.full { None } else { Some(self.at) }
    }
}

/// Unstuffs bytes as they arrive into a buffer of `N` bytes: one packet at a time.
pub(super) struct Unstuffer<const N: usize> {
    buf: [u8; N],
    len: usize,
    /// Bytes left in the block, 0 before the next code byte.
    left: u8,
    /// The block that is open ends in a zero, unless the packet ends with it.
    zero: bool,
    over: bool,
    begun: bool,
}

/// What a byte brought about.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Unstuffed {
    /// The packet goes on.
    More,
    /// A packet lies in the buffer ([`Unstuffer::packet`]).
    Packet,
    /// A packet ended that was longer than the buffer.
    Oversize,
}

impl<const N: usize> Unstuffer<N> {
    pub(super) const fn new() -> Self {
        Self { buf: [0; N], len: 0, left: 0, zero: false, over: false, begun: false }
    }

    /// Forgets a packet that has begun.
    pub(super) fn reset(&mut self) {
        self.len = 0;
        self.left = 0;
        self.zero = false;
        self.over = false;
        self.begun = false;
    }

    fn append(&mut self, byte: u8) {
        match self.buf.get_mut(self.len) {
            Some(slot) => {
                *slot = byte;
                self.len += 1;
            }
            None => self.over = true,
        }
    }

    /// Receives one byte. After `Packet` or `Oversize` the caller calls [`Self::reset`].
    pub(super) fn push(&mut self, byte: u8) -> Unstuffed {
        if byte == 0 {
            return match (self.begun, self.over) {
                (false, _) => Unstuffed::More,
                (true, false) => Unstuffed::Packet,
                (true, true) => Unstuffed::Oversize,
            };
        }
        self.begun = true;
        if self.left == 0 {
            if self.zero {
                self.append(0);
            }
            self.left = byte - 1;
            self.zero = byte != 0xff;
        } else {
            self.append(byte);
            self.left -= 1;
        }
        Unstuffed::More
    }

    pub(super) fn packet(&mut self) -> &mut [u8] {
        self.buf.get_mut(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn round(bytes: &[u8], lead: bool) -> Vec<u8> {
        let mut wire = std::vec![0; wire_len(bytes.len())];
        let mut stuffer = Stuffer::new(&mut wire, lead);
        bytes.iter().for_each(|b| stuffer.push(*b));
        let used = stuffer.finish().unwrap();
        assert!(wire[usize::from(lead)..used - 1].iter().all(|b| *b != 0));
        let mut back = Unstuffer::<2048>::new();
        for (i, byte) in wire[..used].iter().enumerate() {
            let got = back.push(*byte);
            assert_eq!(got == Unstuffed::Packet, i + 1 == used);
        }
        back.packet().to_vec()
    }

    #[test]
    fn every_length_and_zero_comes_back() {
        for len in [1usize, 2, 253, 254, 255, 256, 507, 508, 509, 510, 1200] {
            for zero_every in [1usize, 2, 7, 254, 255, 5000] {
                let bytes: Vec<u8> =
                    (0..len).map(|i| if i % zero_every == 0 { 0 } else { (i % 255) as u8 + 1 }).collect();
                assert_eq!(round(&bytes, false), bytes);
                assert_eq!(round(&bytes, true), bytes);
            }
            let bytes: Vec<u8> = (0..len).map(|i| (i % 255) as u8 + 1).collect();
            assert_eq!(round(&bytes, false), bytes, "{len} without a zero");
        }
    }

    #[test]
    fn a_packet_too_long_is_named_and_the_next_is_read() {
        let mut back = Unstuffer::<4>::new();
        for byte in [6, 1, 1, 1, 1, 1] {
            assert_eq!(back.push(byte), Unstuffed::More);
        }
        assert_eq!(back.push(0), Unstuffed::Oversize);
        back.reset();
        for byte in [3, 9, 9] {
            assert_eq!(back.push(byte), Unstuffed::More);
        }
        assert_eq!(back.push(0), Unstuffed::Packet);
        assert_eq!(back.packet(), &[9, 9]);
    }

    #[test]
    fn a_buffer_too_small_is_reported() {
        let mut wire = [0; 4];
        let mut stuffer = Stuffer::new(&mut wire, false);
        [1u8, 2, 3, 4].iter().for_each(|b| stuffer.push(*b));
        assert_eq!(stuffer.finish(), None);
    }
}
