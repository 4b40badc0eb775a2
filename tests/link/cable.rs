//! A line that does to bytes what a bad cable does, and the chances by which it does.

use std::collections::VecDeque;
use std::vec::Vec;

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
pub struct Line {
    pub faults: Faults,
    pub rng: Rng,
    pub free_us: f64,
    pub held_us: f64,
    pub next_flip: u64,
    pub dropping: u64,
    pub past: VecDeque<u8>,
    /// When they arrive, the bytes, and the rate at which they were sent.
    pub flying: VecDeque<(u64, Vec<u8>, u32)>,
    /// What the sender's port is set to.
    pub rate: u32,
    /// What the line does to bytes because of their rate, apart from the other faults.
    pub noise: Rng,
    pub queue_worst_us: f64,
}

const CHUNK: usize = 64;

impl Line {
    pub fn new(faults: Faults, seed: u64) -> Self {
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

    pub fn write(&mut self, now: u64, bytes: &[u8]) {
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
    pub fn spoil(&mut self, at: u64, mut bytes: Vec<u8>) -> Vec<u8> {
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
    pub fn garbage(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| if self.noise.chance(0.1) { 0 } else { self.noise.next() as u8 }).collect()
    }

    pub fn impair(&mut self, chunk: &[u8]) -> Vec<u8> {
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
