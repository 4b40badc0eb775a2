//! How far a session is.

use crate::wire::Offer;

/// How far a session has come. `T`: what the log reports of what it took in.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Progress<T = ()> {
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
    /// How much is to come, as far as the peer has announced.
    pub to_receive: (u64, u64),
    /// Bytes of the state that the peer has been sent, what it had before included; rows, once it has taken it in.
    pub state_sent: (u64, u64),
    /// How many bytes and rows the state has that was offered to the peer.
    pub state_to_send: (u64, u64),
    /// Bytes that are here of the state that the peer has offered; rows, once it is taken in.
    pub state_received: (u64, u64),
    /// How many bytes and rows it has.
    pub state_to_receive: (u64, u64),
    /// What was made of what came.
    pub taken: T,
    /// Frames that the peer has acknowledged in all, of this device's own.
    pub acknowledged: u64,
    /// The peer lacks frames that are folded here, and takes no state over this session: a bundle with the state brings
    /// it on.
    pub peer_needs_snapshot: bool,
    /// The same of this device, as the peer announced.
    pub needs_snapshot: bool,
}

impl<T> Progress<T> {
    /// Begins to count a state that goes out.
    pub(super) fn offer_state(&mut self, offer: Offer) {
        (self.state_to_send, self.state_sent) = ((offer.bytes, offer.rows), (0, 0));
    }

    /// Begins to count a state that comes; `here` bytes of it are here.
    pub(super) fn expect_state(&mut self, offer: &Offer, here: u64) {
        (self.state_to_receive, self.state_received) = ((offer.bytes, offer.rows), (here, 0));
    }

    /// Counts a frame that goes out.
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.sent.0 += 1;
        self.sent.1 += bytes as u64;
        self.to_send = (self.to_send.0.max(self.sent.0), self.to_send.1.max(self.sent.1));
    }

    /// Counts a frame that came.
    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received.0 += 1;
        self.received.1 += bytes as u64;
    }

    /// Adds what the peer announces to what came.
    pub(super) fn expect(&mut self, frames: u64, bytes: u64) {
        let came = self.received;
        self.to_receive = (came.0.saturating_add(frames), came.1.saturating_add(bytes));
    }
}
