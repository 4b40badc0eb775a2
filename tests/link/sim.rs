//! Two ends of a link, a virtual clock, and a line that does to bytes what a bad cable does. All is a
//! function of the seed: nothing sleeps, nothing is random beyond it.
#![allow(dead_code)]

use packmule_core::link::{Config, Event, Heard, Link, State, Stats, WIRE_MAX};
use std::boxed::Box;
use std::collections::VecDeque;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

/// xorshift64*: small, and the same everywhere.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut this = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1);
        this.next();
        this.next();
        this
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= p
    }
    /// How many trials pass before the next hit.
    fn gap(&mut self, p: f64) -> u64 {
        if p <= 0.0 {
            return u64::MAX;
        }
        let u = ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        (ln(u) / ln(1.0 - p)) as u64
    }
}

/// The natural logarithm of a number in (0, 1), from operations that are the same on every machine (`f64::ln` is not).
fn ln(x: f64) -> f64 {
    let (mut x, mut halves) = (x, 0.0);
    while x < 0.75 {
        x *= 2.0;
        halves += 1.0;
    }
    let y = (x - 1.0) / (x + 1.0);
    let (mut term, mut sum) = (y, 0.0);
    for i in 0..20 {
        sum += term / f64::from(2 * i + 1);
        term *= y * y;
    }
    2.0 * sum - halves * core::f64::consts::LN_2
}

/// What a line makes of a byte.
pub type Change = fn(u8) -> Vec<u8>;

/// What the line does. Times in microseconds, chances by the byte unless said otherwise.
#[derive(Clone, Debug)]
pub struct Faults {
    pub baud: u32,
    pub latency_us: u64,
    /// By the bit.
    pub flip: f64,
    pub drop: f64,
    pub drop_run: u64,
    pub insert: f64,
    /// A run of what went by comes once more.
    pub repeat: f64,
    /// All that follows is held up.
    pub stall: f64,
    pub stall_us: u64,
    /// From, to: what is on the line then is gone.
    pub cuts: Vec<(u64, u64)>,
    /// From a moment on, the highest rate that the cable carries: beyond it, every bit is as good as thrown.
    pub carries: Vec<(u64, u32)>,
    /// Above this rate, bits flip with this chance besides.
    pub edge: (u32, f64),
    /// What the line makes of each byte, from a moment on: nothing, another, or several.
    pub changes: Option<(u64, Change)>,
}

impl Faults {
    pub fn clean(baud: u32, latency_us: u64) -> Self {
        Self {
            baud,
            latency_us,
            flip: 0.0,
            drop: 0.0,
            drop_run: 1,
            insert: 0.0,
            repeat: 0.0,
            stall: 0.0,
            stall_us: 0,
            cuts: Vec::new(),
            carries: Vec::new(),
            edge: (u32::MAX, 0.0),
            changes: None,
        }
    }
}

/// One direction of the line.
struct Line {
    faults: Faults,
    rng: Rng,
    free_us: f64,
    held_us: f64,
    next_flip: u64,
    dropping: u64,
    past: VecDeque<u8>,
    /// When they arrive, the bytes, and the rate at which they were sent.
    flying: VecDeque<(u64, Vec<u8>, u32)>,
    /// What the sender's port is set to.
    rate: u32,
    /// What the line does to bytes because of their rate, apart from the other faults.
    noise: Rng,
    queue_worst_us: f64,
}

const CHUNK: usize = 64;

impl Line {
    fn new(faults: Faults, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let next_flip = rng.gap(faults.flip);
        Self {
            rate: faults.baud,
            noise: Rng::new(seed + 1_000_000),
            faults,
            rng,
            free_us: 0.0,
            held_us: 0.0,
            next_flip,
            dropping: 0,
            past: VecDeque::new(),
            flying: VecDeque::new(),
            queue_worst_us: 0.0,
        }
    }

    fn write(&mut self, now: u64, bytes: &[u8]) {
        let byte_us = 10.0 * 1e6 / f64::from(self.rate);
        self.queue_worst_us = self.queue_worst_us.max(self.free_us - now as f64);
        for chunk in bytes.chunks(CHUNK) {
            let from = self.free_us.max(now as f64);
            self.free_us = from + byte_us * chunk.len() as f64;
            let cut = self.faults.cuts.iter().any(|c| (self.free_us as u64) >= c.0 && (from as u64) < c.1);
            let bytes = self.impair(chunk);
            if self.rng.chance(self.faults.stall * chunk.len() as f64) {
                self.held_us = self.free_us + self.faults.stall_us as f64;
            }
            if !cut {
                let due = self.free_us.max(self.held_us) as u64 + self.faults.latency_us;
                let bytes = self.spoil(self.free_us as u64, bytes);
                let bytes = match self.faults.changes {
                    Some((from, change)) if from <= now => bytes.into_iter().flat_map(change).collect(),
                    _ => bytes,
                };
                self.flying.push_back((due, bytes, self.rate));
            }
        }
    }

    /// What the rate does to bytes on the cable.
    fn spoil(&mut self, at: u64, mut bytes: Vec<u8>) -> Vec<u8> {
        let most = self.faults.carries.iter().rev().find(|(from, _)| *from <= at).map_or(u32::MAX, |c| c.1);
        if self.rate > most {
            return self.garbage(bytes.len());
        }
        let (above, chance) = self.faults.edge;
        if self.rate > above {
            for byte in &mut bytes {
                (0..8).for_each(|bit| *byte ^= u8::from(self.noise.chance(chance)) << bit);
            }
        }
        bytes
    }

    /// What a receiver makes of bytes at a rate that is not its own.
    fn garbage(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| if self.noise.chance(0.1) { 0 } else { self.noise.next() as u8 }).collect()
    }

    fn impair(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.len());
        for byte in chunk {
            let mut byte = *byte;
            while self.next_flip < 8 {
                byte ^= 1 << self.next_flip;
                self.next_flip =
                    self.next_flip.saturating_add(1).saturating_add(self.rng.gap(self.faults.flip));
            }
            self.next_flip -= 8;
            if self.faults.repeat > 0.0 {
                self.past.push_back(byte);
                if self.past.len() > 1500 {
                    self.past.pop_front();
                }
                if self.rng.chance(self.faults.repeat) {
                    let run = self.rng.below(self.past.len() as u64) as usize;
                    out.extend(self.past.iter().skip(self.past.len() - 1 - run).copied());
                    continue;
                }
            }
            if self.dropping == 0 && self.rng.chance(self.faults.drop) {
                self.dropping = self.faults.drop_run;
            }
            if self.dropping > 0 {
                self.dropping -= 1;
                continue;
            }
            out.push(byte);
            if self.rng.chance(self.faults.insert) {
                out.push(self.rng.next() as u8);
            }
        }
        out
    }
}

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
