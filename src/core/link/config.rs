//! What a caller sets, what the peer announced, what is counted and what is reported.

use super::cobs::wire_len;
use super::fec::{RATE_MAX, added};
use super::packet::OVERHEAD_MAX;

/// The version of the link that this code speaks.
pub const VERSION: u8 = 1;
/// Bytes of the stream in one packet: never fewer when there are as many to send and the peer accepts them.
pub const PAYLOAD_MIN: u16 = 48;
/// Bytes of the stream in one packet, at most; up to 1,024 below 460,800 baud. With all that goes around it, it stays
/// within the 4,092 bytes over which the CRC finds any 5 flipped bits.
pub const PAYLOAD_MAX: u16 = 2048;
/// Room that [`transmit`](super::Link::transmit) needs for any packet: with less, packets are shorter.
pub const WIRE_MAX: usize = wire_len(packet_len(PAYLOAD_MAX as usize));
/// Room without which [`transmit`](super::Link::transmit) sends nothing.
pub const WIRE_MIN: usize = 96;
/// The receive buffer above which packet heads are wide.
pub(super) const NARROW_MAX: u32 = 32 * 1024;

/// Returns the longest packet around a payload, before byte stuffing.
const fn packet_len(payload: usize) -> usize {
    let len = payload + OVERHEAD_MAX;
    len + added(RATE_MAX, len)
}

/// Returns the payload that fits a packet buffer of `packet` bytes at every FEC rate.
pub(super) const fn payload_for(packet: usize) -> u16 {
    let mut payload = PAYLOAD_MAX as usize;
    while payload > 0 && packet_len(payload) > packet {
        payload -= 1;
    }
    payload as u16
}

/// Settings of one end. Times are in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    /// The line's rate in bits a second, as the port is set when the link begins. The pacing counts on it.
    pub baud: u32,
    /// Bits on the line for one byte: 10 for 8N1.
    pub byte_bits: u8,
    /// Tells this connection from every earlier one of this end: random, or a count of starts. 0 counts as 1.
    pub nonce: u32,
    /// How far ahead of the line [`transmit`](super::Link::transmit) hands out bytes. A packet that
    /// has begun is handed out whole, so the queue is this plus one packet at most.
    pub queue_us: u32,
    /// The longest an acknowledgement waits for company.
    pub ack_delay_us: u32,
    /// A probe follows when something is unacknowledged and nothing was sent for so long; a quarter of it once
    /// nothing was heard for 0.15 s, so that the end of a cut is soon noticed; [`Config::hello_max_us`] once
    /// nothing was heard for 30 s. Never less than 8 times what a probe takes on the line.
    pub probe_us: u32,
    /// Between hellos at first; each wait is twice the one before.
    pub hello_us: u32,
    /// Between hellos at last.
    pub hello_max_us: u32,
    /// An idle open connection is probed so often.
    pub keep_alive_us: u32,
    /// [`Event::Silent`] when nothing valid was heard for so long.
    pub silent_us: u32,
    /// The most bytes of the stream in a packet to send, between [`PAYLOAD_MIN`] and [`PAYLOAD_MAX`].
    pub payload_max: u16,
    /// The fewest, likewise. Setting both to one value switches the adaptation off.
    pub payload_min: u16,
    /// Error correction inside packets may be used in both directions, as the measured loss asks for it.
    pub fec: bool,
    /// The highest rate this end's port may be set to, announced to the peer. If it is above [`Config::baud`] at both
    /// ends, the link asks for higher rates with [`Link::baud_wanted`](super::Link::baud_wanted).
    pub baud_max: u32,
    /// What the caller lets the other end's caller know before the first byte, up to 3: the link only carries it.
    pub note: u8,
}

impl Config {
    /// Returns the usual settings for a line of `baud` bits a second; see [`Config::nonce`].
    pub const fn new(baud: u32, nonce: u32) -> Self {
        Self {
            baud,
            byte_bits: 10,
            nonce,
            queue_us: 12_000,
            ack_delay_us: 20_000,
            probe_us: 50_000,
            hello_us: 50_000,
            hello_max_us: 500_000,
            keep_alive_us: 1_000_000,
            silent_us: 3_000_000,
            payload_max: PAYLOAD_MAX,
            payload_min: PAYLOAD_MIN,
            fec: true,
            baud_max: baud,
            note: 0,
        }
    }
}

/// What the peer announced in its hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Peer {
    /// The highest version that both ends speak.
    pub version: u8,
    /// Tells this connection of the peer from its earlier ones.
    pub nonce: u32,
    /// Its receive buffer, bytes.
    pub receive: u32,
    /// Its send buffer, bytes: what it can have under way before it is acknowledged.
    pub send: u32,
    /// Bytes of the stream that it accepts in one packet.
    pub payload: u16,
    /// It understands error correction.
    pub fec: bool,
    /// Its rate can change.
    pub changes_baud: bool,
    /// The highest rate of its port, bits a second.
    pub baud_max: u32,
    /// Its [`Config::note`].
    pub note: u8,
}

/// What happened, in the order in which it matters. See [`Link::event`](super::Link::event).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// The peer began a new connection: bytes not yet acknowledged are gone, both streams begin again. Until the next
    /// event is asked for, `send` moves nothing and `recv` gives what is here of the old connection; then that is gone.
    /// So old and new never mix.
    /// (Also reported when a stray hello from the past had misled this end, and it reconnected by itself.)
    PeerRestarted,
    /// Both ends know of each other; the streams are open.
    Connected,
    /// The peer speaks no version that this end speaks. The link goes on calling.
    Incompatible {
        /// The lowest version the peer speaks.
        lowest: u8,
        /// The highest version the peer speaks.
        highest: u8,
    },
    /// Nothing was heard for [`Config::silent_us`]. The link goes on probing and loses nothing.
    Silent,
    /// Heard again after `Silent`.
    Resumed,
    /// The line runs at another rate now, bits a second: both ends hear each other at a higher one, or the
    /// higher one was lost and the line is back at [`Config::baud`].
    Baud(u32),
    /// The peer has finished, and all its bytes have been received with `recv`.
    PeerFinished,
    /// Both ends have finished and all is acknowledged, or `finish` came before a connection.
    Closed,
}

/// Counters since the link was made. They wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stats {
    /// Packets handed out.
    pub packets_sent: u32,
    /// Bytes handed out, framing included.
    pub bytes_sent: u32,
    /// Packets handed out that repeat bytes of the stream.
    pub repeats_sent: u32,
    /// Probes handed out.
    pub probes_sent: u32,
    /// Valid packets received.
    pub packets_received: u32,
    /// Packets that were damaged beyond correction, foreign or of an earlier connection.
    pub packets_refused: u32,
    /// Valid packets that brought nothing new.
    pub duplicates: u32,
    /// Bytes corrected in what was received.
    pub corrected: u32,
    /// Packets sent that the peer did not get.
    pub lost: u32,
}
