//! How the states are entered and left: hello, restart of either end, silence.
//!
//! Each end has a nonce, by which this connection differs from its earlier ones. A hello carries its sender's
//! nonce and echoes the one last heard. Streams begin again only for a nonce that is new *and* echoes
//! ours: a stray hello from the past is answered, and nothing else. Hellos are repeated until a packet
//! with the connection's key shows that the peer is open too.

use super::Link;
use super::check;
use super::config::{Config, Event, Peer, VERSION, payload_for};
use super::packet::{Hello, SOUNDING_LEN, sounding};
use super::state::{Input, Report, State, next};

/// Nonces of past peers that are not believed again.
const PAST: usize = 4;
/// An adopted peer that sends no packet for so long may be a stray hello's.
const DOUBT_US: u64 = 2_000_000;
/// So many packets in a row may come damaged between two that only say that the peer is there: more is a line on which
/// nothing gets through but these.
const NOISE: u32 = 8;
/// How often the last acknowledgement is repeated.
const ACK_REPEATS: u8 = 2;

pub(super) struct Handshake {
    pub(super) state: State,
    nonce: u32,
    pub(super) peer: Option<Peer>,
    past: [u32; PAST],
    past_at: usize,
    /// A packet with the connection's key has come.
    confirmed: bool,
    /// When the peer was adopted.
    adopted: u64,
    /// An answer is due; it echoes this nonce.
    answer: Option<u32>,
    /// When the next hello is due by itself, and the wait after it.
    call_at: u64,
    call_wait: u32,
    /// How many soundings went with hellos.
    soundings: u8,
    /// When something valid was last heard.
    pub(super) heard: u64,
    silent: bool,
    pub(super) end_reported: bool,
    restarted: bool,
    /// That was the last event asked for.
    restart_reported: bool,
    connected: bool,
    incompatible: Option<(u8, u8)>,
    incompatible_nonce: u32,
    silence: bool,
    resumed: bool,
    closed: bool,
}

impl Handshake {
    pub(super) const fn new(nonce: u32) -> Self {
        Self {
            state: State::Calling,
            nonce: if nonce == 0 { 1 } else { nonce },
            peer: None,
            past: [0; PAST],
            past_at: 0,
            confirmed: false,
            adopted: 0,
            answer: None,
            call_at: 0,
            call_wait: 0,
            soundings: 0,
            heard: 0,
            silent: false,
            end_reported: false,
            restarted: false,
            restart_reported: false,
            connected: false,
            incompatible: None,
            incompatible_nonce: 0,
            silence: false,
            resumed: false,
            closed: false,
        }
    }

    pub(super) fn restart(&mut self, nonce: u32) {
        // Hellos from the past cannot echo the new nonce: no need to remember them.
        *self = Self { heard: self.heard, ..Self::new(nonce) };
    }

    /// Returns the next event, in the order in which they matter.
    pub(super) fn event(&mut self) -> Option<Event> {
        let take = |flag: &mut bool| core::mem::take(flag);
        self.restart_reported = take(&mut self.restarted);
        if self.restart_reported {
            return Some(Event::PeerRestarted);
        }
        if let Some((lowest, highest)) = self.incompatible.take() {
            return Some(Event::Incompatible { lowest, highest });
        }
        for (flag, event) in [
            (&mut self.connected, Event::Connected),
            (&mut self.silence, Event::Silent),
            (&mut self.resumed, Event::Resumed),
            (&mut self.closed, Event::Closed),
        ] {
            if take(flag) {
                return Some(event);
            }
        }
        None
    }

    /// Returns whether the caller has not yet heard that the streams began again, or asked for nothing since.
    pub(super) const fn barred(&self) -> bool {
        self.restarted || self.restart_reported
    }

    pub(super) fn report_closed(&mut self) {
        self.closed = true;
    }

    /// Makes the next hello due now, if any is to come.
    pub(super) fn call_now(&mut self) {
        self.call_at = 0;
        self.call_wait = 0;
    }

    pub(super) fn key_in(&self) -> Option<u32> {
        self.peer.as_ref().map(|peer| check::key(peer.nonce, self.nonce))
    }

    pub(super) fn key_out(&self) -> u32 {
        self.peer.as_ref().map_or(0, |peer| check::key(self.nonce, peer.nonce))
    }

    /// Returns whether this end leads: of two ends one does.
    pub(super) fn leads(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| self.nonce > peer.nonce)
    }

    /// Returns when a hello is due.
    pub(super) fn hello_at(&self) -> Option<u64> {
        if self.answer.is_some() {
            return Some(0);
        }
        let calls = match self.state {
            State::Calling | State::Answering => true,
            State::Open | State::Finishing => !self.confirmed || self.silent,
            State::Closed => false,
        };
        calls.then_some(self.call_at)
    }

    /// Returns what goes with the hello that was just taken: a sounding, once nobody has answered for some hellos.
    fn sounding(&mut self, config: &Config) -> Option<[u8; SOUNDING_LEN]> {
        (self.call_wait > config.hello_us && self.call_wait >= config.hello_max_us).then(|| {
            self.soundings = self.soundings.wrapping_add(1);
            sounding(self.soundings)
        })
    }

    /// Returns the hello to send now.
    fn hello(&mut self, now: u64, config: &Config, (send, receive): (u32, u32), payload: u16) -> Hello {
        let wait =
            self.call_wait.saturating_mul(2).clamp(config.hello_us, config.hello_max_us.max(config.hello_us));
        self.call_wait = wait;
        self.call_at = now + u64::from(wait);
        let echo = self.answer.take().or(self.peer.as_ref().map(|p| p.nonce)).unwrap_or(0);
        Hello {
            lowest: VERSION,
            highest: VERSION,
            open: !matches!(self.state, State::Calling | State::Answering),
            fec: config.fec,
            changes_baud: config.baud_max > config.baud,
            nonce: self.nonce,
            echo,
            receive,
            payload,
            baud: config.baud_max,
            note: config.note,
            send,
        }
    }
}

impl<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize>
    Link<TX, RX, PACKET, FLIGHT>
{
    /// Returns whether this end leads, once a peer is known: of two ends one does, and both know which.
    pub fn leads(&self) -> bool {
        self.hand.leads()
    }

    /// Returns for how long, in microseconds, an open connection has not got on although it should: bytes were sent and
    /// not acknowledged, or packets came damaged, and not one byte went either way. A peer that is busy acknowledges
    /// what it was sent, so that waiting for it does not count. 0: it gets on.
    pub fn stalled_us(&self, now: u64) -> u64 {
        let open = matches!(self.hand.state, State::Open | State::Finishing);
        let (since, refused) = self.moved;
        if open && (self.sender.is_under_way() || self.stats.packets_refused != refused) {
            now.saturating_sub(since)
        } else {
            0
        }
    }

    /// Notes whether a packet got the connection on: by the places of both streams before it, and whether it only said
    /// that its sender is there, while nothing was under way and hardly anything came damaged.
    pub(super) fn note_moved(&mut self, now: u64, before: (u32, u32), only_there: bool) {
        let refused = self.stats.packets_refused.wrapping_sub(self.moved.1);
        let idle = only_there && !self.sender.is_under_way() && refused <= NOISE;
        if idle || before != (self.sender.whole(), self.receiver.whole()) {
            self.moved = (now, self.stats.packets_refused);
        }
    }

    pub(super) fn receive_hello(&mut self, now: u64, hello: &Hello) {
        let hand = &mut self.hand;
        // Our own, sent back by a loop or an echoing terminal, or one that can never be an end.
        if hello.nonce == hand.nonce || hello.nonce == 0 {
            return;
        }
        let echoes = hello.echo == hand.nonce;
        if hand.past.contains(&hello.nonce) {
            if echoes && !hand.confirmed && now > hand.adopted + DOUBT_US {
                // It lives, and the peer that we adopted instead does not: a stray hello misled us. Its
                // key has been used, so this end reconnects as well.
                self.start_over();
            }
            return;
        }
        let version = hello.highest.min(VERSION);
        if version < hello.lowest.max(VERSION) {
            if hand.incompatible_nonce != hello.nonce {
                hand.incompatible_nonce = hello.nonce;
                hand.incompatible = Some((hello.lowest, hello.highest));
            }
            return;
        }
        let input = match (hand.peer.as_ref().is_some_and(|p| p.nonce == hello.nonce), echoes) {
            (false, false) => Input::HelloNew,
            (false, true) => Input::HelloNewEcho,
            (true, false) => Input::HelloKnown,
            (true, true) => Input::HelloKnownEcho,
        };
        let Some((to, acts)) = next(hand.state, input) else { return };
        hand.state = to;
        // Two open ends would answer each other for ever.
        let settled = hello.open && input == Input::HelloKnownEcho && acts.report.is_none();
        if acts.answer && !settled {
            hand.answer = Some(hello.nonce);
        }
        if acts.adopt {
            if let Some(old) = hand.peer.as_ref().filter(|_| acts.reset) {
                hand.past[hand.past_at % PAST] = old.nonce;
                hand.past_at = (hand.past_at + 1) % PAST;
            }
            hand.peer = Some(Peer {
                version,
                nonce: hello.nonce,
                receive: hello.receive,
                send: hello.send,
                payload: hello.payload,
                fec: hello.fec,
                changes_baud: hello.changes_baud,
                baud_max: hello.baud,
                note: hello.note,
            });
            hand.confirmed = false;
            hand.adopted = now;
            hand.end_reported = false;
            hand.call_now();
        }
        if acts.reset {
            self.hand.restarted = true;
            self.reset_streams();
        }
        if acts.adopt {
            self.sender.grant(hello.receive);
            self.receiver.peer_send = hello.send;
        }
        self.report(now, acts.report);
        self.mark_heard(now);
    }

    /// Writes the hello that is due, and a sounding behind it once some were not answered.
    pub(super) fn write_hello(&mut self, now: u64, out: &mut [u8], lead: bool) -> usize {
        let hello = self.hand.hello(now, &self.config, (TX as u32, RX as u32), payload_for(PACKET));
        let sounding = self.hand.sounding(&self.config);
        let sounding = sounding.as_ref().map_or(&[][..], |bytes| bytes.as_slice());
        self.write_packet(out, lead, &hello.bytes(), (sounding, &[]), 0)
    }

    /// Restarts as [`Link::restart`] does, by itself: the caller hears of it like of a restart of the peer.
    fn start_over(&mut self) {
        self.restart(check::scramble(self.hand.nonce.wrapping_add(1)));
        self.hand.restarted = true;
    }

    /// Handles that a packet of the connection has come: the peer has this connection's key.
    pub(super) fn confirm_peer(&mut self, now: u64) {
        self.hand.confirmed = true;
        if let Some((to, acts)) = next(self.hand.state, Input::Packet) {
            self.hand.state = to;
            self.report(now, acts.report);
        }
        self.mark_heard(now);
        let done = self.sender.finished() && self.receiver.ended();
        if let Some((to, acts)) = next(self.hand.state, Input::AllDone).filter(|_| done) {
            self.hand.state = to;
            // The caller may leave now: what the other end waits for goes at once, and more than once.
            self.receiver.ack_at = Some(0);
            self.ack_repeats = ACK_REPEATS;
            self.report(now, acts.report);
        }
    }

    fn report(&mut self, now: u64, what: Option<Report>) {
        match what {
            Some(Report::Connected | Report::Restarted) => {
                self.hand.connected = true;
                self.asked = now;
                self.moved = (now, self.stats.packets_refused);
            }
            Some(Report::Closed) => self.hand.closed = true,
            None => {}
        }
    }

    fn mark_heard(&mut self, now: u64) {
        self.hand.heard = now;
        self.rate_heard(now);
        if self.hand.silent {
            self.hand.silent = false;
            self.hand.resumed = !self.hand.silence;
            self.hand.silence = false;
        }
    }

    /// Returns when the peer's silence becomes an event.
    pub(super) fn silence_at(&self) -> Option<u64> {
        let listens = matches!(self.hand.state, State::Open | State::Finishing) && !self.hand.silent;
        listens.then_some(self.hand.heard + u64::from(self.config.silent_us))
    }

    /// Notices silence.
    pub(super) fn watch(&mut self, now: u64) {
        if self.silence_at().is_some_and(|at| at <= now) {
            self.hand.silent = true;
            self.hand.silence = !self.hand.resumed;
            self.hand.resumed = false;
            self.hand.call_now();
        }
    }
}
