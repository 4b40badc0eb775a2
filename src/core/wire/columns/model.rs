//! The model: how probable a decision is, learned from those before it.
//!
//! Each decision is predicted in several contexts at once; what they say is mixed in the logistic domain by weights
//! that learn too (Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005). Integers
//! alone, so that every machine computes the same.

use super::coder::Coder;

/// How many contexts a decision has.
pub(super) const INPUTS: usize = 6;
const SLOT_BITS: u32 = 14;
const SETS: usize = 64;
/// A slot adapts slower with each decision, down to this.
const COUNT_MAX: u32 = 126;
const RATE: i32 = 2;
const UNUSED: u32 = 1 << 31;

/// How far a slot moves with each decision, by how many it has had, in 1/32,768.
static SHARES: [i32; COUNT_MAX as usize + 1] = shares();

const fn shares() -> [i32; COUNT_MAX as usize + 1] {
    let mut table = [0; COUNT_MAX as usize + 1];
    let mut count = 0;
    while count < table.len() {
        table[count] = 65_536 / (2 * count as i32 + 3);
        count += 1;
    }
    table
}

/// The natural logarithm of the odds of each probability in 1/4,096, in 1/256.
static STRETCH: [i16; 4096] = stretches();

const SQUASH: [i32; 33] = [
    1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785,
    3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
];

/// Returns the probability, in 1/4,096, of a logarithm of odds in 1/256: the inverse of [`STRETCH`].
const fn squash(odds: i32) -> i32 {
    if odds > 2047 {
        return 4095;
    }
    if odds < -2047 {
        return 0;
    }
    let (part, at) = (odds & 127, ((odds >> 7) + 16) as usize);
    (SQUASH[at] * (128 - part) + SQUASH[at + 1] * part + 64) >> 7
}

const fn stretches() -> [i16; 4096] {
    let mut table = [2047; 4096];
    let (mut from, mut odds) = (0, -2047);
    while odds <= 2047 {
        let to = squash(odds);
        while from <= to {
            table[from as usize] = odds as i16;
            from += 1;
        }
        odds += 1;
    }
    table
}

/// Mixes two numbers into one that is spread over 32 bits.
pub(super) const fn hash(a: u32, b: u32) -> u32 {
    let h = (a.rotate_left(13) ^ b).wrapping_mul(0x9E37_79B1);
    (h ^ h >> 15).wrapping_mul(0x85EB_CA77)
}

/// The contexts of the decisions about one value.
pub(super) type Contexts = [u32; INPUTS];

/// What has been learned.
pub(super) struct Mixer {
    /// A probability in 1/65,536, a check of whose it is, 8 bits, and the number of decisions, 8 bits.
    slots: [u32; 1 << SLOT_BITS],
    weights: [[i32; INPUTS]; SETS],
    /// What all decisions have cost, in 1/256 bit.
    pub(super) spent: u32,
}

/// Returns what a decision of this probability, in 1/65,536, costs, in 1/256 bit: the logarithm, with straight lines
/// between the powers of two.
fn cost(p: u16) -> u32 {
    let above = 15 - u32::from(p | 1).leading_zeros().saturating_sub(16);
    let part = (u32::from(p) << (16 - above)) & 0xFFFF;
    16 * 256 - above * 256 - part / 256
}

impl Mixer {
    pub(super) const fn new() -> Self {
        Self { slots: [UNUSED; 1 << SLOT_BITS], weights: [[22_000; INPUTS]; SETS], spent: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.slots = [UNUSED; 1 << SLOT_BITS];
        self.weights = [[22_000; INPUTS]; SETS];
    }

    /// Returns the slot of a context, which is taken from one with fewer decisions if it has none.
    fn slot(&mut self, of: u32) -> usize {
        let h = (of ^ of >> 16).wrapping_mul(0x85EB_CA77);
        let (first, check) = ((h >> (32 - SLOT_BITS)) as usize, (h & 0xFF) << 8);
        let second = first ^ 1;
        if self.slots[first] & 0xFF00 == check {
            return first;
        }
        if self.slots[second] & 0xFF00 == check {
            return second;
        }
        let free = if self.slots[first] & 0xFF <= self.slots[second] & 0xFF { first } else { second };
        self.slots[free] = UNUSED | check;
        free
    }

    /// Codes a decision at `node` of a tree, in its contexts.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        contexts: &Contexts,
        set: u32,
        node: u32,
        one: bool,
    ) -> Result<bool, C::Stop> {
        let node = node.wrapping_mul(0xC2B2_AE35);
        let mut at = [0; INPUTS];
        let mut odds = [0i32; INPUTS];
        let mut sum = 0i64;
        let weights = self.weights[set as usize % SETS];
        for i in 0..INPUTS {
            at[i] = self.slot((contexts[i] ^ node).wrapping_mul(0x9E37_79B1));
            odds[i] = i32::from(STRETCH[(self.slots[at[i]] >> 20) as usize]);
            sum += i64::from(weights[i]) * i64::from(odds[i]);
        }
        let mixed = squash(((sum >> 16) as i32).clamp(-2047, 2047));
        let p = (mixed * 16 + 8).clamp(24, 65_536 - 24) as u16;
        let one = coder.code(one, p)?;
        self.spent = self.spent.wrapping_add(cost(if one { p } else { (65_536 - u32::from(p)) as u16 }));
        let error = (if one { 4095 } else { 0 } - mixed) * RATE;
        let weights = &mut self.weights[set as usize % SETS];
        for i in 0..INPUTS {
            weights[i] += (odds[i] * error + 0x200) >> 10;
            let slot = &mut self.slots[at[i]];
            let count = *slot & 0xFF;
            let p = (*slot >> 16) as i32;
            let target = if one { 65_535 } else { 0 };
            let moved = p + (((target - p) * SHARES[(count & 127).min(COUNT_MAX) as usize]) >> 15);
            *slot = (moved as u32) << 16 | *slot & 0xFF00 | (count + u32::from(count < COUNT_MAX));
        }
        Ok(one)
    }
}
