//! The sending half: the bytes not yet acknowledged, and which packet carries which of them.
//!
//! Every packet has a number of its own, never used again; a repeat is a new packet. The line keeps
//! order, so when the peer acknowledges a number, every lower one that it lacks is lost.

use super::packet::MAP_MAX;

/// The first packet number and the first place in the stream: shortly before the wrap, so that every
/// connection goes through it.
pub(super) const FIRST: u32 = 0xffff_f800;

/// Returns whether `a` is behind `b` on the circle of numbers.
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flight {
    number: u32,
    offset: u32,
    /// Places in the stream: bytes, and one for the end.
    len: u16,
    lost: bool,
}

const NO_FLIGHT: Flight = Flight { number: 0, offset: 0, len: 0, lost: false };

/// A piece of the stream to put into the next packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) offset: u32,
    /// Bytes, without the end.
    pub(super) bytes: usize,
    pub(super) finish: bool,
    /// The flight that it repeats.
    repeat_of: Option<usize>,
}

impl Piece {
    pub(super) fn repeats(&self) -> bool {
        self.repeat_of.is_some()
    }
}

/// What an acknowledgement reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Acked {
    /// It reported something new.
    pub(super) advanced: bool,
    pub(super) packets_lost: u32,
    pub(super) bytes_lost: u32,
    pub(super) packets_arrived: u32,
    pub(super) bytes_arrived: u32,
}

pub(super) struct Sender<const TX: usize, const FLIGHT: usize> {
    ring: [u8; TX],
    /// Place of `whole` in the ring.
    start: usize,
    /// The peer has every byte before this.
    whole: u32,
    /// Bytes in the ring.
    held: usize,
    /// The first place that was never sent.
    fresh: u32,
    /// The credit: places before this may be sent.
    limit: u32,
    finish: bool,
    finish_acked: bool,
    flights: [Flight; FLIGHT],
    used: usize,
    lost: usize,
    /// The next packet's number.
    pub(super) number: u32,
    /// The highest number acknowledged.
    acked: u32,
}

impl<const TX: usize, const FLIGHT: usize> Sender<TX, FLIGHT> {
    pub(super) const fn new() -> Self {
        Self {
            ring: [0; TX],
            start: 0,
            whole: FIRST,
            held: 0,
            fresh: FIRST,
            limit: FIRST,
            finish: false,
            finish_acked: false,
            flights: [NO_FLIGHT; FLIGHT],
            used: 0,
            lost: 0,
            number: FIRST,
            acked: FIRST.wrapping_sub(1),
        }
    }

    pub(super) fn reset(&mut self) {
        self.start = 0;
        self.whole = FIRST;
        self.held = 0;
        self.fresh = FIRST;
        self.limit = FIRST;
        self.finish = false;
        self.finish_acked = false;
        self.used = 0;
        self.lost = 0;
        self.number = FIRST;
        self.acked = FIRST.wrapping_sub(1);
    }

    /// Sets the first credit, before anything was sent: the peer accepts `credit` bytes.
    pub(super) fn grant(&mut self, credit: u32) {
        self.limit = self.whole.wrapping_add(credit.min(i32::MAX as u32));
    }

    /// Returns how many bytes were accepted and are not acknowledged.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    pub(super) const fn free(&self) -> usize {
        if self.finish { 0 } else { TX - self.held }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.free());
        let mut at = (self.start + self.held) % TX;
        for byte in bytes.iter().take(count) {
            self.ring[at] = *byte;
            at = if at + 1 == TX { 0 } else { at + 1 };
        }
        self.held += count;
        count
    }

    pub(super) fn finish(&mut self) {
        self.finish = true;
    }

    /// Returns the place of the end, while it is unacknowledged; else where the bytes end.
    fn end(&self) -> u32 {
        self.whole.wrapping_add(self.held as u32)
    }

    /// Returns whether every byte, and the end if there is one, has been acknowledged.
    pub(super) fn done(&self) -> bool {
        self.held == 0 && self.finish == self.finish_acked
    }

    pub(super) fn finished(&self) -> bool {
        self.finish_acked
    }

    /// Returns whether something is under way, or would be if the peer had room: worth probing.
    pub(super) fn is_pending(&self) -> bool {
        !self.done()
    }

    /// Returns whether bytes were sent that the peer has not acknowledged.
    pub(super) fn is_under_way(&self) -> bool {
        self.fresh != self.whole
    }

    /// Returns the place before which the peer has every byte.
    pub(super) fn whole(&self) -> u32 {
        self.whole
    }

    /// Returns how many numbers the peer has not acknowledged.
    pub(super) fn unacked(&self) -> u32 {
        self.number.wrapping_sub(self.acked)
    }

    /// Returns the offset that a probe carries.
    pub(super) fn fresh(&self) -> u32 {
        self.fresh
    }

    /// Returns the next piece to send, of at most `payload` bytes: what was lost first, then what is new.
    /// `payload` is at least 1.
    pub(super) fn next_piece(&self, payload: usize) -> Option<Piece> {
        if self.lost > 0 {
            let lost = self.flights.iter().enumerate().take(self.used).filter(|(_, f)| f.lost);
            let first = lost.min_by_key(|(_, f)| f.offset.wrapping_sub(self.whole));
            if let Some((at, flight)) = first {
                let end = flight.offset.wrapping_add(u32::from(flight.len));
                // The end is the one place behind the bytes.
                let finish = self.finish && end == self.end().wrapping_add(1);
                let bytes = usize::from(flight.len) - usize::from(finish);
                // A repeat in pieces needs a flight more; with none free it goes whole, as before.
                let whole = bytes <= payload || self.used >= FLIGHT;
                let bytes = if whole { bytes } else { payload };
                return Some(Piece {
                    offset: flight.offset,
                    bytes,
                    finish: finish && whole,
                    repeat_of: Some(at),
                });
            }
        }
        if self.used >= FLIGHT || self.finish_acked {
            return None;
        }
        let waiting = self.end().wrapping_sub(self.fresh);
        if before(self.end(), self.fresh) {
            return None;
        }
        let credit = if before(self.fresh, self.limit) { self.limit.wrapping_sub(self.fresh) } else { 0 };
        let bytes = waiting.min(credit).min(payload as u32);
        let finish = self.finish && bytes == waiting;
        if bytes == 0 && !finish {
            return None;
        }
        // A sliver of credit is left to grow while an answer is on its way.
        let sliver = bytes == credit && bytes < waiting && (bytes as usize) < payload / 2;
        if sliver && self.used > 0 {
            return None;
        }
        Some(Piece { offset: self.fresh, bytes: bytes as usize, finish, repeat_of: None })
    }

    /// Returns the bytes of a piece, as they lie in the ring.
    pub(super) fn bytes(&self, piece: &Piece) -> (&[u8], &[u8]) {
        // Reduced first: after a peer's wrong acknowledgement it may be near 2^32, where `usize` may end.
        let at = (self.start + piece.offset.wrapping_sub(self.whole) as usize % TX) % TX;
        let first = piece.bytes.min(TX - at);
        let head = self.ring.get(at..at + first).unwrap_or_default();
        (head, self.ring.get(..piece.bytes - first).unwrap_or_default())
    }

    /// Records that the piece went out in the packet `self.number`; the next packet gets the next number.
    pub(super) fn sent(&mut self, piece: &Piece) {
        let len = (piece.bytes + usize::from(piece.finish)) as u16;
        let flight = Flight { number: self.number, offset: piece.offset, len, lost: false };
        self.number = self.number.wrapping_add(1);
        match piece.repeat_of {
            Some(at) if self.flights[at].len == len => {
                self.flights[at] = flight;
                self.lost -= 1;
            }
            Some(at) => {
                let rest = &mut self.flights[at];
                rest.offset = rest.offset.wrapping_add(u32::from(len));
                rest.len -= len;
                self.push(flight);
            }
            None => {
                self.fresh = self.fresh.wrapping_add(u32::from(len));
                self.push(flight);
            }
        }
    }

    fn push(&mut self, flight: Flight) {
        if let Some(slot) = self.flights.get_mut(self.used) {
            *slot = flight;
            self.used += 1;
        }
    }

    /// Records that a probe went out.
    pub(super) fn probed(&mut self) {
        self.number = self.number.wrapping_add(1);
    }

    /// Handles an acknowledgement: `whole`, `highest` and the map of [`super::packet`], in full
    /// numbers. One that cannot be true changes nothing.
    pub(super) fn acknowledge(&mut self, highest: u32, whole: u32, space: u32, map: &[u8]) -> Acked {
        let mut acked = Acked::default();
        if !before(highest, self.number) || before(highest, self.acked) {
            return acked;
        }
        if before(whole, self.whole) || before(self.fresh, whole) || map.len() > MAP_MAX {
            return acked;
        }
        let limit = whole.wrapping_add(space.min(i32::MAX as u32));
        acked.advanced = highest != self.acked || whole != self.whole || before(self.limit, limit);
        self.acked = highest;
        if before(self.limit, limit) {
            self.limit = limit;
        }
        let mut at = 0;
        while at < self.used {
            let flight = self.flights[at];
            let end = flight.offset.wrapping_add(u32::from(flight.len));
            let distance = highest.wrapping_sub(flight.number);
            let arrived = !before(whole, end)
                || (!flight.lost
                    && (distance == 0
                        || map
                            .get((distance.wrapping_sub(1) / 8) as usize)
                            .is_some_and(|b| b >> (distance.wrapping_sub(1) % 8) & 1 != 0)));
            if arrived {
                if flight.lost {
                    self.lost -= 1;
                } else {
                    acked.packets_arrived += 1;
                    acked.bytes_arrived += u32::from(flight.len);
                }
                self.used -= 1;
                self.flights[at] = self.flights[self.used];
                continue;
            }
            if !flight.lost && before(flight.number, highest) {
                self.flights[at].lost = true;
                self.lost += 1;
                acked.packets_lost += 1;
                acked.bytes_lost += u32::from(flight.len);
            }
            at += 1;
        }
        self.advance(whole);
        acked
    }

    fn advance(&mut self, whole: u32) {
        let places = whole.wrapping_sub(self.whole) as usize;
        if places > self.held {
            self.finish_acked = self.finish;
        }
        let bytes = places.min(self.held);
        self.start = (self.start + bytes) % TX;
        self.held -= bytes;
        self.whole = whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn at(n: u32) -> u32 {
        FIRST.wrapping_add(n)
    }

    fn send<const TX: usize, const F: usize>(
        sender: &mut Sender<TX, F>,
        payload: usize,
    ) -> Option<(u32, Vec<u8>, bool)> {
        let piece = sender.next_piece(payload)?;
        let (a, b) = sender.bytes(&piece);
        let bytes = [a, b].concat();
        sender.sent(&piece);
        Some((piece.offset.wrapping_sub(FIRST), bytes, piece.finish))
    }

    #[test]
    fn a_higher_number_acknowledged_means_loss_at_once() {
        let mut sender = Sender::<64, 8>::new();
        sender.grant(100);
        assert_eq!(sender.write(&[7; 70]), 64);
        for offset in [0, 20, 40] {
            assert_eq!(send(&mut sender, 20).unwrap().0, offset);
        }
        let acked = sender.acknowledge(at(2), at(20), 80, &[0b10]);
        assert_eq!((acked.packets_lost, acked.bytes_lost, acked.packets_arrived), (1, 20, 2));
        assert_eq!(send(&mut sender, 12).unwrap(), (20, std::vec![7; 12], false), "repeated in pieces");
        assert_eq!(send(&mut sender, 12).unwrap(), (32, std::vec![7; 8], false));
        assert_eq!(send(&mut sender, 12).unwrap().0, 60);
        assert_eq!(send(&mut sender, 12), None);
        assert!(sender.acknowledge(at(5), at(64), 80, &[0xff]).advanced);
        assert!(sender.done() && !sender.finished());
        sender.finish();
        assert_eq!(send(&mut sender, 12), Some((64, Vec::new(), true)));
        assert!(!sender.done());
        sender.acknowledge(at(6), at(65), 80, &[]);
        assert!(sender.done() && sender.finished());
        assert_eq!(send(&mut sender, 12), None);
    }

    #[test]
    fn credit_and_flights_bound_what_is_under_way() {
        let mut sender = Sender::<256, 4>::new();
        sender.grant(30);
        sender.write(&[1; 200]);
        assert_eq!(send(&mut sender, 20).unwrap().1.len(), 20);
        assert_eq!(send(&mut sender, 20).unwrap().1.len(), 10);
        assert_eq!(send(&mut sender, 20), None);
        sender.acknowledge(at(1), at(30), 200, &[1]);
        for _ in 0..4 {
            assert!(send(&mut sender, 20).is_some());
        }
        assert_eq!(send(&mut sender, 20), None);
    }

    #[test]
    fn what_cannot_be_true_is_not_believed() {
        let mut sender = Sender::<64, 4>::new();
        sender.grant(64);
        sender.write(&[1; 40]);
        send(&mut sender, 20);
        for (highest, whole) in
            [(at(1), at(20)), (at(0), at(21)), (at(0), at(0).wrapping_sub(1)), (at(7), at(0))]
        {
            assert_eq!(sender.acknowledge(highest, whole, 64, &[]), Acked::default());
        }
        assert_eq!(sender.free(), 24);
    }
}
