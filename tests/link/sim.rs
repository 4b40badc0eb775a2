//! Two ends of a link, a virtual clock, and a line that does to bytes what a bad cable does. All is a
//! function of the seed: nothing sleeps, nothing is random beyond it.
#![allow(dead_code, unused_imports)] // Each test takes what it needs.

use packmule_core::link::{Config, Event, Heard, Link, State, Stats, WIRE_MAX};
#[path = "cable.rs"]
pub mod cable;

pub use cable::{Faults, Line, Rng};
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

/// Any link, whatever its sizes.
pub trait Machine {
    fn send(&mut self, bytes: &[u8]) -> usize;
    fn recv(&mut self, out: &mut [u8]) -> usize;
    fn receive_bytes(&mut self, now: u64, bytes: &[u8]);
    fn transmit(&mut self, now: u64, out: &mut [u8]) -> usize;
    fn deadline(&self) -> Option<u64>;
    fn event(&mut self) -> Option<Event>;
    fn all_acknowledged(&self) -> bool;
    fn finish(&mut self);
    fn restart(&mut self, nonce: u32);
    fn state(&self) -> State;
    fn stats(&self) -> Stats;
    fn stalled_us(&self, now: u64) -> u64;
    fn payload_and_fec_rate(&self) -> (u16, u8);
    fn baud(&self) -> u32;
    fn baud_wanted(&self) -> Option<u32>;
    fn set_baud(&mut self, now: u64, baud: u32);
}

impl<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize> Machine
    for Link<TX, RX, PACKET, FLIGHT>
{
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.send(bytes)
    }
    fn recv(&mut self, out: &mut [u8]) -> usize {
        self.recv(out)
    }
    fn receive_bytes(&mut self, now: u64, bytes: &[u8]) {
        self.receive_bytes(now, bytes);
    }
    fn transmit(&mut self, now: u64, out: &mut [u8]) -> usize {
        self.transmit(now, out)
    }
    fn deadline(&self) -> Option<u64> {
        self.deadline()
    }
    fn event(&mut self) -> Option<Event> {
        self.event()
    }
    fn all_acknowledged(&self) -> bool {
        self.all_acknowledged()
    }
    fn finish(&mut self) {
        self.finish();
    }
    fn restart(&mut self, nonce: u32) {
        self.restart(nonce);
    }
    fn state(&self) -> State {
        self.state()
    }
    fn stalled_us(&self, now: u64) -> u64 {
        Link::stalled_us(self, now)
    }
    fn stats(&self) -> Stats {
        *self.stats()
    }
    fn payload_and_fec_rate(&self) -> (u16, u8) {
        self.payload_and_fec_rate()
    }
    fn baud(&self) -> u32 {
        self.baud()
    }
    fn baud_wanted(&self) -> Option<u32> {
        self.baud_wanted()
    }
    fn set_baud(&mut self, now: u64, baud: u32) {
        self.set_baud(now, baud);
    }
}

/// Makes an end: the harness needs it again when an end restarts.
pub type Make = Box<dyn Fn(Config) -> Box<dyn Machine>>;

/// The byte at `at` of the stream `id`.
fn text(id: u64, at: u64) -> u8 {
    if at < 8 {
        return id.to_le_bytes()[at as usize];
    }
    let mut x = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 40) as u8
}

/// What a port does when it is set to another rate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Good,
    /// It refuses rates above this one.
    Refuses(u32),
    /// It says that it did.
    Lies,
}

/// One end and its application, which sends `total` bytes and checks what comes.
pub struct End {
    pub machine: Box<dyn Machine>,
    make: Make,
    config: Config,
    /// Streams begun: each has an id of its own.
    who: u64,
    streams: u64,
    /// How many bytes it has to say in all.
    pub total: u64,
    pub sent: u64,
    head: [u8; 8],
    last_id: u64,
    pub got: u64,
    pub events: Vec<Event>,
    /// Bytes that the application takes at a time, and how often; `None`: all at once.
    pub appetite: Option<(usize, u64)>,
    next_meal: u64,
    finished: bool,
    /// Its port is opened again.
    reborn: bool,
    /// What its port was set to, and when.
    pub rates: Vec<(u64, u32)>,
    /// What its port does when it is set.
    pub port: Port,
    /// What the line brought since the connection last got on.
    pub heard: Heard,
    /// Finish once everything is sent.
    pub finishes: bool,
    pub wrong: Option<String>,
}

impl End {
    fn new(who: u64, make: Make, config: Config, total: u64) -> Self {
        Self {
            machine: make(config),
            make,
            config,
            who,
            streams: 1,
            total,
            sent: 0,
            head: [0; 8],
            last_id: 0,
            got: 0,
            events: Vec::new(),
            appetite: None,
            next_meal: 0,
            finished: false,
            reborn: false,
            rates: Vec::new(),
            port: Port::Good,
            heard: Heard::new(),
            finishes: true,
            wrong: None,
        }
    }

    fn id(&self) -> u64 {
        self.who << 32 | self.streams
    }

    /// The whole process dies and another comes up.
    pub fn reset(&mut self) {
        self.config.nonce = self.config.nonce.wrapping_add(2);
        self.machine = (self.make)(self.config);
        self.reborn = true;
        self.begin();
    }

    fn begin(&mut self) {
        self.streams += 1;
        (self.sent, self.got, self.finished) = (0, 0, false);
    }

    fn work(&mut self, now: u64) {
        let mut buf = [0; 4096];
        while let Some(event) = self.machine.event() {
            self.events.push(event);
            if event == Event::PeerRestarted {
                // What is left of the old stream.
                let count = self.machine.recv(&mut buf);
                self.check(&buf[..count]);
                self.begin();
            }
        }
        while self.sent < self.total {
            let count = ((self.total - self.sent) as usize).min(buf.len());
            for (i, slot) in buf.iter_mut().enumerate().take(count) {
                *slot = text(self.id(), self.sent + i as u64);
            }
            let taken = self.machine.send(&buf[..count]);
            self.sent += taken as u64;
            if taken == 0 {
                break;
            }
        }
        if self.sent == self.total
            && self.finishes
            && !self.finished
            && matches!(self.machine.state(), State::Open)
        {
            self.finished = true;
            self.machine.finish();
        }
        let most = match self.appetite {
            Some((most, every)) if now >= self.next_meal => {
                self.next_meal = now + every;
                most.min(buf.len())
            }
            Some(_) => 0,
            None => buf.len(),
        };
        loop {
            let count = self.machine.recv(&mut buf[..most]);
            self.check(&buf[..count]);
            if count == 0 || self.appetite.is_some() {
                break;
            }
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.got < 8 {
                self.head[self.got as usize] = *byte;
                if self.got == 7 {
                    let id = u64::from_le_bytes(self.head);
                    if id >> 32 != 3 - self.who || id <= self.last_id {
                        self.wrong.get_or_insert(format!(
                            "end {} got stream {id:x} after {:x}",
                            self.who, self.last_id
                        ));
                    }
                    self.last_id = id;
                }
            } else if *byte != text(self.last_id, self.got) {
                self.wrong.get_or_insert(format!(
                    "end {} byte {} of stream {:x} is wrong",
                    self.who, self.got, self.last_id
                ));
            }
            self.got += 1;
        }
    }

    fn wakes(&self, now: u64) -> Option<u64> {
        let meal = self.appetite.map(|_| self.next_meal.max(now + 1));
        let link = self.machine.deadline().map(|at| at.max(now + 1));
        [meal, link].into_iter().flatten().min()
    }
}

/// The whole set-up.
pub struct World {
    pub now: u64,
    pub ends: [End; 2],
    lines: [Line; 2],
    /// Driver steps: bounded work shows here.
    pub steps: u64,
}

impl World {
    pub fn new(
        seed: u64,
        faults: [Faults; 2],
        makes: [Make; 2],
        totals: [u64; 2],
        settings: impl Fn(&mut Config),
    ) -> Self {
        let config = |who: u32, baud: u32| {
            let mut config = Config::new(baud, seed as u32 * 1000 + 100_000 * who + 7);
            settings(&mut config);
            config
        };
        let [fa, fb] = faults;
        let [ma, mb] = makes;
        let (ca, cb) = (config(1, fa.baud), config(2, fb.baud));
        Self {
            now: 1_000_000,
            ends: [End::new(1, ma, ca, totals[0]), End::new(2, mb, cb, totals[1])],
            lines: [Line::new(fa, seed * 2 + 1), Line::new(fb, seed * 2 + 2)],
            steps: 0,
        }
    }

    /// What is on the line and in the ttys' queues is gone, as when an adaptor is pulled.
    pub fn clear_lines(&mut self) {
        self.lines.iter_mut().for_each(|line| line.flying.clear());
    }

    /// Sets an end's port, as the link asks.
    fn set_port(&mut self, who: usize) -> bool {
        let end = &mut self.ends[who];
        let line = &mut self.lines[who];
        if core::mem::take(&mut end.reborn) {
            line.rate = line.faults.baud;
        }
        let Some(wanted) = end.machine.baud_wanted() else { return false };
        if line.free_us > self.now as f64 {
            end.wrong = Some(format!("asked at {} for {wanted}, with bytes in the queue", self.now));
        }
        let set = match end.port {
            Port::Refuses(above) if wanted > above => line.rate,
            _ => wanted,
        };
        if end.port != Port::Lies {
            line.rate = set;
        }
        end.rates.push((self.now, set));
        end.machine.set_baud(self.now, set);
        true
    }

    /// The longest queue before the line so far.
    pub fn queue_worst_us(&self) -> f64 {
        self.lines[0].queue_worst_us.max(self.lines[1].queue_worst_us)
    }

    fn drive(&mut self, who: usize) {
        self.set_port(who);
        self.ends[who].work(self.now);
        let mut out = [0; WIRE_MAX];
        loop {
            let count = self.ends[who].machine.transmit(self.now, &mut out);
            if count > 0 {
                self.lines[who].write(self.now, &out[..count]);
            } else if !self.set_port(who) {
                break;
            }
        }
        // What was sent may have caused an event (silence).
        self.ends[who].work(self.now);
    }

    /// Goes on until `done`, or until `until`; `false` then, or when a byte was wrong.
    pub fn run(&mut self, until: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        self.drive(0);
        self.drive(1);
        loop {
            if self.ends.iter().any(|e| e.wrong.is_some()) {
                return false;
            }
            if done(self) {
                return true;
            }
            let line = self.lines.iter().filter_map(|l| l.flying.front().map(|f| f.0)).min();
            let woken = self.ends.iter().filter_map(|e| e.wakes(self.now)).min();
            let Some(next) = [line, woken].into_iter().flatten().min() else { return false };
            if next > until {
                return false;
            }
            self.now = self.now.max(next);
            self.steps += 1;
            for who in 0..2 {
                let mut due = self.ends[who].wakes(0).is_some_and(|at| at <= self.now);
                while self.lines[1 - who].flying.front().is_some_and(|f| f.0 <= self.now) {
                    if let Some((_, mut bytes, rate)) = self.lines[1 - who].flying.pop_front() {
                        // Some tests give the two directions rates of their own from the beginning.
                        let [from, to] = [&self.lines[1 - who], &self.lines[who]];
                        let raised = rate != from.faults.baud || to.rate != to.faults.baud;
                        if raised && rate != to.rate {
                            bytes = self.lines[1 - who].garbage(bytes.len());
                        }
                        let end = &mut self.ends[who];
                        end.machine.receive_bytes(self.now, &bytes);
                        if end.machine.state() == State::Open && end.machine.stalled_us(self.now) == 0 {
                            end.heard = Heard::new();
                        }
                        end.heard.hear(&bytes);
                        due = true;
                    }
                }
                if due {
                    self.drive(who);
                }
            }
        }
    }

    /// Both got everything of their last streams and both links are closed.
    pub fn over(&self) -> bool {
        let [a, b] = &self.ends;
        a.got == b.total
            && b.got == a.total
            && a.machine.state() == State::Closed
            && b.machine.state() == State::Closed
    }

    pub fn report(&self) -> String {
        let mut all = vec![format!("at {} us", self.now)];
        for end in &self.ends {
            all.push(format!(
                "{:?} sent {} got {} of {} {:?} {:?} {:?}",
                end.machine.state(),
                end.sent,
                end.got,
                end.total,
                end.machine.stats(),
                &end.events[end.events.len().saturating_sub(12)..],
                end.wrong
            ));
        }
        all.join("\n  ")
    }
}

/// A maker of links of the given sizes.
pub fn make<const TX: usize, const RX: usize, const PACKET: usize, const FLIGHT: usize>() -> Make {
    Box::new(|config| Box::new(Link::<TX, RX, PACKET, FLIGHT>::new(config)))
}
