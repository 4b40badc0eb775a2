//! The receiving half: the bytes that are here, in order or beyond a gap, and what to report to the sender.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::packet::{AckOut, Data, MAP_MAX};
use super::sender::{FIRST, before};

/// Data packets after which an acknowledgement goes out without waiting.
const ACK_EVERY: u32 = 16;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    New,
    /// Its number or all its bytes were here.
    Repeated,
    /// It goes beyond the credit or contradicts what is known, or there are too many gaps: as if never received.
    Refused,
}

pub(super) struct Receiver<const RX: usize, const FLIGHT: usize> {
    ring: [u8; RX],
    /// Where the ring begins: with what is left of the stream before this one, then comes `read`.
    start: usize,
    /// Bytes left of the stream before this one.
    pub(super) left: usize,
    /// The caller has received every byte before this.
    read: u32,
    /// Every place before this is here.
    whole: u32,
    /// What is here beyond gaps: from, to; in order, apart from each other.
    spans: [(u32, u32); FLIGHT],
    used: usize,
    /// The place of the peer's end.
    end: Option<u32>,
    /// The highest packet number here.
    pub(super) highest: u32,
    /// Bit i: number `highest - 1 - i` is here.
    seen: u128,
    /// The peer's last packet was wide: answer in kind.
    pub(super) wide: bool,
    /// Corrected bytes in all.
    pub(super) corrected: u8,
    /// When an acknowledgement is due. 0: now.
    pub(super) ack_at: Option<u64>,
    unacked: u32,
    unacked_bytes: u32,
    /// The peer's send buffer: it waits for acknowledgements when that is full.
    pub(super) peer_send: u32,
    /// The highest number at each of the last acknowledgements, the oldest last.
    acked: [u32; 3],
    /// The credit as last sent.
    limit_sent: u32,
}

impl<const RX: usize, const FLIGHT: usize> Receiver<RX, FLIGHT> {
    pub(super) const fn new() -> Self {
        Self {
            ring: [0; RX],
            start: 0,
            left: 0,
            read: FIRST,
            whole: FIRST,
            spans: [(0, 0); FLIGHT],
            used: 0,
            end: None,
            highest: FIRST.wrapping_sub(1),
            seen: 0,
            wide: false,
            corrected: 0,
            ack_at: None,
            unacked: 0,
            unacked_bytes: 0,
            peer_send: u32::MAX,
            acked: [FIRST.wrapping_sub(1); 3],
            limit_sent: FIRST.wrapping_add(RX as u32),
        }
    }

    /// Begins another stream. What is here in order of the one before can be read until [`Receiver::forget`].
    pub(super) fn reset(&mut self) {
        self.left = self.ready();
        self.read = FIRST;
        self.whole = FIRST;
        self.used = 0;
        self.end = None;
        self.highest = FIRST.wrapping_sub(1);
        self.seen = 0;
        self.wide = false;
        self.corrected = 0;
        self.ack_at = None;
        self.unacked = 0;
        self.unacked_bytes = 0;
        self.acked = [FIRST.wrapping_sub(1); 3];
        self.limit_sent = FIRST.wrapping_add(RX as u32);
    }

    /// Drops what is left of the stream before this one.
    pub(super) fn forget(&mut self) {
        self.start = (self.start + self.left) % RX;
        self.left = 0;
    }

    fn limit(&self) -> u32 {
        self.read.wrapping_add((RX - self.left) as u32)
    }

    /// Returns how many bytes can be read: of the stream before this one, while there are any.
    pub(super) fn ready(&self) -> usize {
        if self.left > 0 {
            return self.left;
        }
        let to = match self.end {
            Some(end) if before(end, self.whole) => end,
            _ => self.whole,
        };
        to.wrapping_sub(self.read) as usize
    }

    /// Returns the place before which everything is here.
    pub(super) fn whole(&self) -> u32 {
        self.whole
    }

    /// Returns whether the peer's end and everything before it is here.
    pub(super) fn ended(&self) -> bool {
        self.end.is_some_and(|end| before(end, self.whole))
    }

    /// Receives a packet with data or a probe, whose number is in full. `late`: when an acknowledgement
    /// that can wait goes out.
    pub(super) fn receive(&mut self, number: u32, data: Data<'_>, late: u64) -> Outcome {
        let ahead = number.wrapping_sub(self.highest) as i32;
        let behind = self.highest.wrapping_sub(number);
        self.ack_at = Some(self.ack_at.map_or(late, |at| at.min(late)));
        if ahead <= 0 && (behind == 0 || behind > 128 || self.seen >> (behind - 1) & 1 != 0) {
            return Outcome::Repeated;
        }
        let probe = data.bytes.is_empty() && !data.finish;
        let outcome = if probe { Outcome::New } else { self.store(data) };
        if outcome == Outcome::Refused {
            return outcome;
        }
        if ahead > 0 {
            self.seen = match ahead as u32 {
                1 => self.seen << 1 | 1,
                ahead @ 2..=127 => self.seen << ahead | 1 << (ahead - 1),
                128 => 1 << 127,
                _ => 0,
            };
            self.highest = number;
        } else {
            self.seen |= 1 << (behind - 1);
        }
        self.unacked += 1;
        self.unacked_bytes += data.bytes.len() as u32;
        let room = self.limit_sent.wrapping_sub(self.whole) as i32;
        if ahead != 1
            || probe
            || data.finish
            || self.unacked >= ACK_EVERY
            || room <= RX as i32 / 2
            || self.unacked_bytes >= self.peer_send / 4
        {
            self.ack_at = Some(0);
        }
        outcome
    }

    fn store(&mut self, data: Data<'_>) -> Outcome {
        let from = data.offset.expand(self.whole);
        let to = from.wrapping_add(data.bytes.len() as u32);
        let beyond = to.wrapping_add(u32::from(data.finish));
        let contradicts = match self.end {
            Some(end) if data.finish => to != end,
            Some(end) => before(end, to),
            None => {
                data.finish
                    && (before(to, self.whole) || self.spans.iter().take(self.used).any(|s| before(to, s.1)))
            }
        };
        if contradicts || before(self.limit(), to) {
            return Outcome::Refused;
        }
        if !before(self.whole, beyond) {
            return Outcome::Repeated;
        }
        let had = self.whole;
        if !self.insert(from, beyond) {
            return Outcome::Refused;
        }
        if data.finish {
            self.end = Some(to);
        }
        let skip = had.wrapping_sub(from) as i32;
        let skip = if skip > 0 { skip as usize } else { 0 };
        let fresh = data.bytes.get(skip..).unwrap_or_default();
        let ahead = from.wrapping_add(skip as u32).wrapping_sub(self.read) as usize;
        let mut at = (self.start + self.left + ahead) % RX;
        for byte in fresh {
            if let Some(slot) = self.ring.get_mut(at) {
                *slot = *byte;
            }
            at = if at + 1 == RX { 0 } else { at + 1 };
        }
        Outcome::New
    }

    /// Records that the places from `from` to `to` are here. Returns whether it could: not, if that makes one gap too
    /// many.
    fn insert(&mut self, from: u32, to: u32) -> bool {
        if !before(self.whole, from) {
            self.whole = to;
            let mut gone = 0;
            for span in self.spans.iter().take(self.used) {
                if before(self.whole, span.0) {
                    break;
                }
                if before(self.whole, span.1) {
                    self.whole = span.1;
                }
                gone += 1;
            }
            self.spans.copy_within(gone..self.used, 0);
            self.used -= gone;
            return true;
        }
        let known = self.spans.get(..self.used).unwrap_or_default();
        let first = known.iter().position(|s| !before(s.1, from)).unwrap_or(self.used);
        let past = known.iter().position(|s| before(to, s.0)).unwrap_or(self.used);
        let joined = known.get(first..past).unwrap_or_default();
        let span = match (joined.first().copied(), joined.last().copied()) {
            (Some((low, _)), Some((_, high))) => {
                self.spans.copy_within(past..self.used, first + 1);
                self.used -= past - first - 1;
                (if before(low, from) { low } else { from }, if before(to, high) { high } else { to })
            }
            _ => {
                if self.used >= FLIGHT {
                    return false;
                }
                self.spans.copy_within(first..self.used, first + 1);
                self.used += 1;
                (from, to)
            }
        };
        if let Some(place) = self.spans.get_mut(first) {
            *place = span;
        }
        true
    }

    /// Moves bytes in order to the caller.
    pub(super) fn read(&mut self, out: &mut [u8], payload: u16) -> usize {
        let count = out.len().min(self.ready());
        for slot in out.iter_mut().take(count) {
            *slot = self.ring.get(self.start).copied().unwrap_or_default();
            self.start = if self.start + 1 == RX { 0 } else { self.start + 1 };
        }
        if self.left > 0 {
            self.left -= count;
            return count;
        }
        self.read = self.read.wrapping_add(count as u32);
        // A sender that had too little room is to hear that there is some again.
        let enough = (RX / 2).min(usize::from(payload)) as i32;
        let sent = self.limit_sent.wrapping_sub(self.whole) as i32;
        let room = self.limit().wrapping_sub(self.whole) as i32;
        if count > 0 && sent < enough && room >= enough {
            self.ack_at = Some(0);
        }
        count
    }

    /// Returns the acknowledgement to send now; none is due after it.
    pub(super) fn ack(&mut self) -> AckOut {
        let recent = self.highest.wrapping_sub(self.acked[2]);
        let mut map = [0; MAP_MAX];
        for (slot, byte) in map.iter_mut().zip(self.seen.to_le_bytes()) {
            *slot = byte;
        }
        let space = self.limit().wrapping_sub(self.whole) as i32;
        self.acked = [self.highest, self.acked[0], self.acked[1]];
        self.limit_sent = self.limit();
        self.ack_at = None;
        self.unacked = 0;
        self.unacked_bytes = 0;
        AckOut {
            highest: self.highest,
            whole: self.whole,
            space: if space > 0 { space as u32 } else { 0 },
            corrected: self.corrected,
            map,
            map_len: (recent.div_ceil(8) as usize).min(MAP_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::Low;
    use super::*;
    use std::vec::Vec;

    fn at(n: u32) -> u32 {
        FIRST.wrapping_add(n)
    }

    fn data(offset: u32, bytes: &[u8], finish: bool) -> Data<'_> {
        Data { offset: Low { value: at(offset) & 0xffff, bits: 16 }, bytes, finish }
    }

    #[test]
    fn any_order_gives_the_bytes_in_order() {
        let text: Vec<u8> = (0..60u8).collect();
        let mut pieces: Vec<usize> = (0..6).collect();
        // All 720 orders of six pieces.
        fn orders(pieces: &mut Vec<usize>, from: usize, each: &mut dyn FnMut(&[usize])) {
            if from == pieces.len() {
                return each(pieces);
            }
            for i in from..pieces.len() {
                pieces.swap(from, i);
                orders(pieces, from + 1, each);
                pieces.swap(from, i);
            }
        }
        orders(&mut pieces, 0, &mut |order| {
            let mut receiver = Receiver::<64, 6>::new();
            let mut got: Vec<u8> = Vec::new();
            for (number, piece) in order.iter().enumerate() {
                let part = data(*piece as u32 * 10, &text[piece * 10..piece * 10 + 10], *piece == 5);
                assert_eq!(receiver.receive(at(number as u32), part, 9), Outcome::New);
                assert_eq!(receiver.receive(at(number as u32), part, 9), Outcome::Repeated);
                let mut out = [0; 64];
                let count = receiver.read(&mut out, 48);
                got.extend(&out[..count]);
            }
            assert_eq!(got, text);
            assert!(receiver.ended());
        });
    }

    #[test]
    fn gaps_and_room_are_bounded() {
        let mut receiver = Receiver::<64, 2>::new();
        assert_eq!(receiver.receive(at(0), data(10, &[1; 5], false), 9), Outcome::New);
        assert_eq!(receiver.receive(at(1), data(20, &[1; 5], false), 9), Outcome::New);
        assert_eq!(receiver.receive(at(2), data(30, &[1; 5], false), 9), Outcome::Refused, "a third gap");
        assert_eq!(
            receiver.receive(at(3), data(60, &[1; 5], false), 9),
            Outcome::Refused,
            "beyond the credit"
        );
        assert_eq!(receiver.receive(at(4), data(12, &[1; 10], false), 9), Outcome::New, "joins two");
        assert_eq!(
            receiver.receive(at(5), data(24, &[], true), 9),
            Outcome::Refused,
            "an end before known bytes"
        );
        assert_eq!(receiver.receive(at(6), data(30, &[], true), 9), Outcome::New);
        assert_eq!(
            receiver.receive(at(7), data(28, &[1; 3], false), 9),
            Outcome::Refused,
            "bytes behind the end"
        );
        let ack = receiver.ack();
        assert_eq!((ack.highest, ack.whole, ack.space, ack.map_len), (at(6), at(0), 64, 1));
        assert_eq!(ack.map[0], 0b111_0010, "4, 1, 0 and what was before are here: bits 1, 4, 5 and 6");
    }
}
