//! The serial link: a reliable, ordered, flow-controlled stream of bytes in both directions over a
//! line that flips, drops, repeats and inserts bytes, is cut, or whose other end restarts.
//!
//! A state machine: bytes in ([`Link::receive_bytes`]), bytes out ([`Link::transmit`]), a clock given
//! in microseconds. No input or output of its own, no heap, no clock, no randomness; the same code
//! runs on a board, at the base and on a microcontroller.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | [`Link`]: the caller's side; what is sent when |
//! | `handshake.rs` | hello, restart, silence: how the states are entered and left |
//! | `state.rs` | [`State`]: states × events, as one function; `STATES.md` is the table |
//! | `sender.rs`, `receiver.rs` | the two halves of the stream: repeats, gaps, credits, acknowledgements |
//! | `rate.rs` | the line's rate: proposed, tried, lost; `RATES.md` is the table |
//! | `adapt.rs` | packet length and error correction by the measured loss; `GOODPUT.md` is what it carries |
//! | `packet.rs`, `check.rs`, `fec.rs`, `cobs.rs` | the bytes: fields, check sum, error correction, framing |
//! | `heard.rs` | [`Heard`]: what the bytes of a line on which nothing goes on are like |
//! | `config.rs` | [`Config`], limits, [`Event`], [`Stats`] |
//! | `show.rs` | how a link looks in a log (`Debug`, `defmt`) |
//! | `pump.rs` | [`Pump`]: a UART through `embedded-io` |
//!
//! Imports from the crate: the check sum of `model`. From outside: `embedded-io` in `pump.rs` alone.
//!
//! # Driving it
//! One contract: after each call that hands the link something (`receive_bytes`, `send`, `recv`,
//! `finish`, time), call `transmit` until it returns 0, writing out each packet; then take the events; then
//! sleep until [`Link::deadline`] or until bytes arrive. Time never runs backwards. Where
//! [`Config::baud_max`] is above [`Config::baud`]: after `transmit` returned 0, set the port as
//! [`Link::baud_wanted`] says.
//!
//! # Promises
//! What `recv` returns is exactly what the peer's `send` accepted, in order, each byte once, between one
//! [`Event::Connected`] and the next [`Event::PeerRestarted`] or [`Link::restart`]. An undetected
//! error needs a damage that CRC-32 misses (none of up to 5 bits in a packet; 1 in 2³² of others) and
//! is left to the signatures of the frames above.
//!
//! # Memory
//! `size_of::<Link<TX, RX, PACKET, FLIGHT>>()` is at most `TX + RX + PACKET + 20 × FLIGHT + 640` bytes; no
//! call needs more than 1 KiB of stack besides the caller's buffers. `TX`: bytes accepted by `send` and not
//! yet acknowledged. `RX`: bytes that the peer may send ahead of `recv`; for a full line it is to hold
//! what the line carries in twice the time there and back. `PACKET`: the longest packet received; it
//! decides the payload that the peer may use. `FLIGHT`: packets under way, and gaps in what was received.
//!
//! | | TX | RX | PACKET | FLIGHT |
//! |---|---|---|---|---|
//! | [`BoardLink`], 72 KiB | 32,768 | 32,768 | 2,240 | 256 |
//! | [`LeafLink`], 1.8 KiB | 512 | 256 | 192 | 12 |

mod adapt;
mod check;
mod cobs;
mod config;
mod fec;
mod handshake;
mod heard;
mod packet;
mod pump;
mod rate;
mod receiver;
mod sender;
mod show;
mod state;
#[cfg(test)]
mod tests;

use adapt::{Adapt, PAYLOAD_USUAL};
use cobs::{Stuffer, Unstuffed, Unstuffer, wire_len};
pub use config::{Config, Event, PAYLOAD_MAX, PAYLOAD_MIN, Peer, Stats, VERSION, WIRE_MAX, WIRE_MIN};
use handshake::Handshake;
pub use heard::{Cause, Heard};
use packet::{CRC_LEN, Front, Hello, OVERHEAD_USUAL};
pub use pump::Pump;
use rate::Rate;
use receiver::{Outcome, Receiver};
use sender::{Piece, Sender};
pub use state::State;
use state::{Input, Report};

/// A link for a board or the base.
pub type BoardLink = Link<32768, 32768, 2240, 256>;
/// A link for a microcontroller: it grants two packets at a time.
pub type LeafLink = Link<512, 256, 192, 12>;

/// Numbers unacknowledged from which packets go wide.
const WIDE_FROM: u32 = 1024;
/// A line that was idle for so long gets a delimiter before a packet: noise may lie at the receiver.
const IDLE_US: u64 = 2_000;
/// Loss after silence of so long comes from a cut, not from the usual noise.
const OUTAGE_US: u64 = 150_000;
/// Who was not heard for so long is probed as seldom as called.
const LONG_US: u64 = 30_000_000;
/// A packet takes at most this time on the line, so that what is urgent need not wait for it.
const PACKET_US: u64 = 100_000;
/// A payload above [`PAYLOAD_USUAL`] saves little, and may cost no more time than this.
const LONG_PACKET_US: u64 = 25_000;

/// One end of a serial link. See the module's page.
pub struct Link<const TX: usize, const RX: usize, const PACKET: usize = 1200, const FLIGHT: usize = 256> {
    config: Config,
    hand: Handshake,
    sender: Sender<TX, FLIGHT>,
    receiver: Receiver<RX, FLIGHT>,
    input: Unstuffer<PACKET>,
    adapt: Adapt,
    rate: Rate,
    stats: Stats,
    /// When the connection last got on: a byte was acknowledged, or came in its place. And how many packets had been
    /// refused by then.
    moved: (u64, u32),
    /// When the line will have carried everything handed out.
    line_free: u64,
    /// When the last packet that asks for an answer will have left.
    asked: u64,
    /// The FEC rate of the last valid packet.
    fec_rate_in: u8,
    /// The peer's count of corrected bytes.
    peer_corrected: u8,
    /// How often the last acknowledgement is still to be repeated.
    ack_repeats: u8,
    #[cfg(test)]
    ignore_crc: bool,
}

/// What to send next.
enum Next {
    Hello,
    Rate,
    Data(Piece),
    Ack,
    Probe,
}

impl<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize>
    Link<TX, RX, PACKET, FLIGHT>
{
    const SIZES: () = {
        assert!(TX >= 64 && TX <= 1 << 24, "TX: 64 bytes to 16 MiB");
        assert!(RX >= 64 && RX <= 1 << 24, "RX: 64 bytes to 16 MiB");
        assert!(PACKET >= 128 && PACKET <= 255 * fec::BLOCKS_MAX, "PACKET: 128 to 2,295 bytes");
        assert!(FLIGHT >= 2 && FLIGHT < WIDE_FROM as usize, "FLIGHT: 2 to 1,023 packets");
    };

    /// Makes a link that begins to call when it is first driven.
    pub const fn new(config: Config) -> Self {
        let () = Self::SIZES;
        Self {
            hand: Handshake::new(config.nonce),
            rate: Rate::new(config.baud),
            config,
            sender: Sender::new(),
            receiver: Receiver::new(),
            input: Unstuffer::new(),
            adapt: Adapt::new(),
            stats: Stats {
                packets_sent: 0,
                bytes_sent: 0,
                repeats_sent: 0,
                probes_sent: 0,
                packets_received: 0,
                packets_refused: 0,
                duplicates: 0,
                corrected: 0,
                lost: 0,
            },
            moved: (0, 0),
            line_free: 0,
            asked: 0,
            fec_rate_in: 0,
            peer_corrected: 0,
            ack_repeats: 0,
            #[cfg(test)]
            ignore_crc: false,
        }
    }

    // ---- the caller's side -------------------------------------------------------------------

    /// Accepts bytes to send: as many as fit, also before a connection. Returns how many.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        if self.hand.barred() || matches!(self.hand.state, State::Finishing | State::Closed) {
            return 0;
        }
        self.sender.write(bytes)
    }

    /// Returns how many bytes [`Link::send`] would accept.
    pub const fn send_space(&self) -> usize {
        self.sender.free()
    }

    /// Returns how many bytes [`Link::send`] accepted and the peer has not acknowledged.
    pub const fn unacknowledged(&self) -> usize {
        self.sender.held()
    }

    /// Copies received bytes out, as many as are here and fit. Returns how many.
    pub fn recv(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.recv_ready());
        self.receiver.read(out.get_mut(..count).unwrap_or_default(), config::payload_for(PACKET))
    }

    /// Returns how many bytes [`Link::recv`] would return: of the connection before, until the event after
    /// [`Event::PeerRestarted`] is asked for.
    pub fn recv_ready(&self) -> usize {
        if self.hand.barred() { self.receiver.left } else { self.receiver.ready() }
    }

    /// Returns the next thing that happened. Call it until `None`.
    pub fn event(&mut self) -> Option<Event> {
        let event = self.hand.event();
        if !self.hand.barred() {
            self.receiver.forget();
        }
        if event.is_some() {
            return event;
        }
        if let Some(baud) = self.rate.take_event() {
            return Some(Event::Baud(baud));
        }
        if self.receiver.ended() && self.receiver.ready() == 0 && !self.hand.end_reported {
            self.hand.end_reported = true;
            return Some(Event::PeerFinished);
        }
        None
    }

    /// Returns whether the peer has acknowledged every byte that `send` accepted (that it is in its memory: whether
    /// it is durable, only the layer above can say).
    pub fn all_acknowledged(&self) -> bool {
        self.sender.done()
    }

    /// Finishes: nothing more is accepted. What was accepted still goes out, then the end. The other direction
    /// stays open until the peer finishes. [`Event::Closed`] reports that both are through. Before a
    /// connection it closes at once and what was accepted is dropped.
    pub fn finish(&mut self) {
        if let Some((to, acts)) = state::next(self.hand.state, Input::Finish) {
            self.hand.state = to;
            match acts.report {
                Some(Report::Closed) => self.hand.report_closed(),
                _ => self.sender.finish(),
            }
        }
    }

    /// Begins a new connection, in any state, dropping everything. The nonce must differ from all before.
    pub fn restart(&mut self, nonce: u32) {
        let Some((to, acts)) = state::next(self.hand.state, Input::Restart) else { return };
        self.config.nonce = nonce;
        self.hand.restart(nonce);
        self.hand.state = to;
        if acts.reset {
            self.reset_streams();
            self.receiver.forget();
        }
    }

    /// Returns where the connection stands.
    pub const fn state(&self) -> State {
        self.hand.state
    }

    /// Returns what the peer announced in its hello, once it was heard.
    pub const fn peer(&self) -> Option<&Peer> {
        self.hand.peer.as_ref()
    }

    /// Returns the counters since the link was made.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the payload and the FEC rate (bytes that can be corrected in each 255) that the line gets now.
    pub fn payload_and_fec_rate(&self) -> (u16, u8) {
        (self.adapt.payload, fec::CORRECTABLE.get(usize::from(self.adapt.fec_rate)).copied().unwrap_or(0))
    }

    /// Handles that the line is back after it was closed, at the rate [`Link::baud`]: what was handed out and not
    /// carried is gone. Probes at once.
    pub fn line_changed(&mut self, now: u64) {
        self.input.reset();
        self.line_free = now;
        self.asked = 0;
        self.hand.call_now();
    }

    // ---- from the line -----------------------------------------------------------------------

    /// Receives bytes from the line, any number in any pieces.
    pub fn receive_bytes(&mut self, now: u64, bytes: &[u8]) {
        for byte in bytes {
            match self.input.push(*byte) {
                Unstuffed::More => {}
                Unstuffed::Packet => {
                    self.receive_packet(now);
                    self.input.reset();
                }
                Unstuffed::Oversize => {
                    self.stats.packets_refused = self.stats.packets_refused.wrapping_add(1);
                    self.input.reset();
                }
            }
        }
    }

    fn receive_packet(&mut self, now: u64) {
        let key = self.hand.key_in();
        let longest = PACKET.min(usize::from(self.payload_quick()) + packet::OVERHEAD_MAX);
        let silent = now.saturating_sub(self.hand.heard) > OUTAGE_US.max(4 * self.air_us(longest));
        let raw = self.input.packet();
        let checked = check::check(raw, key, self.fec_rate_in);
        #[cfg(test)]
        let checked = checked.or(if self.ignore_crc && key.is_some() && raw.len() > CRC_LEN {
            Some(check::Checked { len: raw.len() - CRC_LEN, hello: false, fec_rate: 0, corrected: 0 })
        } else {
            None
        });
        let Some(checked) = checked else {
            self.stats.packets_refused = self.stats.packets_refused.wrapping_add(1);
            return;
        };
        let body = raw.get(..checked.len).unwrap_or_default();
        self.stats.packets_received = self.stats.packets_received.wrapping_add(1);
        if checked.hello {
            if let Some(hello) = Hello::parse(body) {
                self.receive_hello(now, &hello);
            }
            return;
        }
        if let Some((step, baud)) = packet::parse_rate(body) {
            self.confirm_peer(now);
            return self.receive_rate_message(now, step, baud);
        }
        let Some(packet) = packet::parse(body) else { return };
        self.fec_rate_in = checked.fec_rate;
        self.stats.corrected = self.stats.corrected.wrapping_add(checked.corrected as u32);
        self.receiver.corrected = self.receiver.corrected.wrapping_add(checked.corrected as u8);
        self.receiver.wide = packet.wide;
        let late = now + u64::from(self.config.ack_delay_us);
        let before = (self.sender.whole(), self.receiver.whole());
        let outcome = packet.data.map(|data| {
            let number = packet.number.expand(self.receiver.highest.wrapping_add(1));
            self.receiver.receive(number, data, late)
        });
        if outcome == Some(Outcome::Repeated) {
            self.stats.duplicates = self.stats.duplicates.wrapping_add(1);
        }
        let acked = packet.ack.map(|ack| {
            let acked = self.sender.acknowledge(
                ack.highest.expand(self.sender.number.wrapping_sub(1)),
                ack.whole.expand(self.sender.fresh()),
                ack.space,
                ack.map,
            );
            (acked, ack.corrected)
        });
        if let Some((acked, corrected)) = acked {
            self.observe_ack(acked, corrected, silent);
        }
        self.note_moved(now, before, outcome.is_none());
        self.rate_packet(now);
        self.confirm_peer(now);
    }

    fn observe_ack(&mut self, acked: sender::Acked, corrected: u8, silent: bool) {
        let count = corrected.wrapping_sub(self.peer_corrected);
        self.peer_corrected = corrected;
        self.stats.lost = self.stats.lost.wrapping_add(acked.packets_lost);
        let limits = (self.config.payload_min, self.payload_most());
        if silent && acked.packets_lost > 0 {
            return self.adapt.outage(limits, self.may_correct());
        }
        let heads = OVERHEAD_USUAL * (acked.packets_arrived + acked.packets_lost);
        // A lost packet was hit somewhere: half of it on average went by before.
        let bytes = acked.bytes_arrived + acked.bytes_lost / 2 + heads;
        if acked.advanced || count > 0 {
            self.adapt.observe(bytes, acked.packets_lost, u32::from(count), limits, self.may_correct());
        }
    }

    // ---- to the line -------------------------------------------------------------------------

    /// Hands out the next packet, if one is due: whole, into the front of `out` (with less room than
    /// [`WIRE_MAX`] packets are shorter, with less than [`WIRE_MIN`] there are none). Returns its length on the line,
    /// or 0 when nothing is to be sent before [`Link::deadline`]. Hand in what was received before asking.
    pub fn transmit(&mut self, now: u64, out: &mut [u8]) -> usize {
        self.watch(now);
        self.watch_rate(now);
        if out.len() < WIRE_MIN {
            return 0;
        }
        let Some((next, _)) = self.next(out.len(), Some(now)) else { return 0 };
        let lead = now >= self.line_free + IDLE_US;
        let sent = match &next {
            Next::Hello => self.write_hello(now, out, lead),
            Next::Rate => self.write_rate_message(now, out, lead),
            Next::Data(piece) => self.write_data(now, piece, out, lead),
            Next::Ack => {
                let ack = self.receiver.ack();
                if self.ack_repeats > 0 {
                    self.ack_repeats -= 1;
                    self.receiver.ack_at = Some(0);
                }
                let front = Front::new(self.wide(), self.sender.number, Some(&ack), None);
                self.write_packet(out, lead, front.bytes(), (&[], &[]), self.hand.key_out())
            }
            Next::Probe => {
                let ack = self.ack_due(now).then(|| self.receiver.ack());
                let front = Front::new(
                    self.wide(),
                    self.sender.number,
                    ack.as_ref(),
                    Some((self.sender.fresh(), false)),
                );
                self.stats.probes_sent = self.stats.probes_sent.wrapping_add(1);
                let sent = self.write_packet(out, lead, front.bytes(), (&[], &[]), self.hand.key_out());
                self.sender.probed();
                sent
            }
        };
        self.line_free = self.line_free.max(now) + self.air_us(sent);
        if matches!(next, Next::Data(_) | Next::Probe) {
            self.asked = self.line_free;
        }
        self.stats.packets_sent = self.stats.packets_sent.wrapping_add(1);
        self.stats.bytes_sent = self.stats.bytes_sent.wrapping_add(sent as u32);
        sent
    }

    /// Returns whether there is still something to send after [`Event::Closed`], without which the other end would
    /// wait.
    pub fn is_draining(&self) -> bool {
        self.next(WIRE_MAX, None).is_some()
    }

    /// Returns when the link is to be driven at the latest if no bytes arrive: microseconds on the caller's
    /// clock, perhaps in the past. `None`: nothing will happen by itself.
    pub fn deadline(&self) -> Option<u64> {
        let send = self.next(WIRE_MAX, None).map(|(_, at)| at);
        [send, self.silence_at(), self.rate_at()].into_iter().flatten().min()
    }

    /// Returns, with `now`, the most urgent thing that is due; without, what is due first, and when.
    fn next(&self, room: usize, now: Option<u64>) -> Option<(Next, u64)> {
        if self.baud_wanted().is_some() {
            return None;
        }
        let pace = self.line_free.saturating_sub(u64::from(self.config.queue_us));
        let open = matches!(self.hand.state, State::Open | State::Finishing);
        let mut first: Option<(Next, u64)> = None;
        let mut offer = |next: Next, at: u64| {
            let at = at.max(pace);
            let due = now.is_none_or(|now| at <= now);
            if due && first.as_ref().is_none_or(|f| now.is_none() && at < f.1) {
                first = Some((next, at));
            }
        };
        if let Some(at) = self.rate.message_at() {
            offer(Next::Rate, at);
        }
        if !self.rate.flows() {
            return first;
        }
        if let Some(at) = self.hand.hello_at() {
            offer(Next::Hello, at);
        }
        let piece = if open { self.sender.next_piece(self.payload_in(room)) } else { None };
        if let Some(piece) = piece {
            offer(Next::Data(piece), 0);
        }
        if let Some(at) = self.receiver.ack_at {
            offer(Next::Ack, at);
        }
        if open {
            let wait = if self.sender.is_pending() { self.probe_us() } else { self.keep_alive_us() };
            offer(Next::Probe, self.asked + wait);
        }
        first
    }

    fn write_data(&mut self, now: u64, piece: &Piece, out: &mut [u8], lead: bool) -> usize {
        let ack = self.ack_due(now).then(|| self.receiver.ack());
        if piece.repeats() {
            self.stats.repeats_sent = self.stats.repeats_sent.wrapping_add(1);
        }
        let front =
            Front::new(self.wide(), self.sender.number, ack.as_ref(), Some((piece.offset, piece.finish)));
        let sent = self.write_packet(out, lead, front.bytes(), self.sender.bytes(piece), self.hand.key_out());
        if sent > 0 {
            self.sender.sent(piece);
        }
        sent
    }

    /// Writes a packet. 0 if it does not fit, which the payload rules out.
    fn write_packet(
        &self,
        out: &mut [u8],
        lead: bool,
        front: &[u8],
        (head, tail): (&[u8], &[u8]),
        key: u32,
    ) -> usize {
        let mut digest = crate::model::CRC32.digest();
        let len = front.len() + head.len() + tail.len() + CRC_LEN;
        let mut fec_rate = if key == 0 { 0 } else { self.adapt.fec_rate };
        if wire_len(len + fec::added(fec_rate, len)) > out.len() {
            fec_rate = 0;
        }
        let mut parity = fec::Encoder::new(fec_rate, len);
        let mut stuffer = Stuffer::new(out, lead);
        for part in [front, head, tail] {
            digest.update(part);
            for byte in part {
                stuffer.push(*byte);
                parity.push(*byte);
            }
        }
        for byte in (digest.finalize() ^ key).to_le_bytes() {
            stuffer.push(byte);
            parity.push(byte);
        }
        parity.parity().for_each(|byte| stuffer.push(byte));
        stuffer.finish().unwrap_or(0)
    }

    // ---- small questions ---------------------------------------------------------------------

    fn reset_streams(&mut self) {
        self.sender.reset();
        self.receiver.reset();
        self.restart_rate();
        self.fec_rate_in = 0;
        self.ack_repeats = 0;
        self.peer_corrected = 0;
    }

    fn ack_due(&self, now: u64) -> bool {
        self.receiver.ack_at.is_some_and(|at| at <= now)
    }

    fn wide(&self) -> bool {
        let peer = self.hand.peer.as_ref().map_or(0, |p| p.receive);
        peer.max(RX as u32) > config::NARROW_MAX || self.receiver.wide || self.sender.unacked() >= WIDE_FROM
    }

    fn may_correct(&self) -> bool {
        self.config.fec && self.hand.peer.as_ref().is_some_and(|p| p.fec)
    }

    /// Returns the time that `bytes` take on the line.
    fn air_us(&self, bytes: usize) -> u64 {
        bytes as u64 * u64::from(self.config.byte_bits) * 1_000_000 / u64::from(self.rate.at.max(1))
    }

    fn probe_us(&self) -> u64 {
        let quiet = self.asked.saturating_sub(self.hand.heard);
        let wait = match self.config.probe_us {
            _ if quiet > LONG_US => self.config.hello_max_us,
            usual if quiet > OUTAGE_US => usual / 4,
            usual => usual,
        };
        u64::from(wait).max(8 * self.air_us(16))
    }

    /// Returns the longest payload that the line's rate allows.
    fn payload_quick(&self) -> u16 {
        let byte_ns = u64::from(self.config.byte_bits) * 1_000_000_000 / u64::from(self.rate.at.max(1));
        let within = |time_us: u64| time_us * 1000 / byte_ns.max(1);
        let most = within(PACKET_US).min(u64::from(PAYLOAD_USUAL)).max(within(LONG_PACKET_US));
        most.clamp(u64::from(PAYLOAD_MIN), u64::from(PAYLOAD_MAX)) as u16
    }

    /// Returns the longest payload that the peer, the line's rate and the settings allow.
    fn payload_most(&self) -> u16 {
        let (takes, receive) = self.hand.peer.as_ref().map_or((PAYLOAD_MIN, 0), |p| (p.payload, p.receive));
        // Several packets to a buffer, so that one is under way while another is acknowledged.
        let several =
            (TX as u32 / 4).min(receive / 2).clamp(u32::from(PAYLOAD_MIN), u32::from(PAYLOAD_MAX)) as u16;
        self.payload_quick().min(several).min(self.config.payload_max).min(takes).max(1)
    }

    fn payload_in(&self, room: usize) -> usize {
        let most = usize::from(self.adapt.payload.min(self.payload_most()).max(1));
        if room >= WIRE_MAX {
            return most;
        }
        let plain = room.saturating_sub(packet::OVERHEAD_MAX + 3 + room / 254 + 1);
        let with_parity = plain.saturating_sub(fec::added(self.adapt.fec_rate, room));
        // Without error correction, if it must be.
        let fits = if with_parity >= usize::from(PAYLOAD_MIN) { with_parity } else { plain };
        most.min(fits).max(1)
    }
}
