//! The model: how probable a decision is, learned from those before it.
//!
//! Each decision is predicted in several contexts at once; what they say is mixed in the logistic domain by weights
//! that learn too (Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005). Integers
//! alone, so that every machine computes the same.

use super::coder::Coder;
use super::table::Table;

/// How many contexts a decision has.
pub(super) const INPUTS: usize = 4;
/// So many decisions after each other share one look into the table.
pub(super) const TOGETHER: u32 = 3;
const BUCKET_BITS: u32 = 12;
/// What says whose a bucket is, and a slot for each node of a tree of three decisions.
const SLOTS: usize = 1 << TOGETHER;
const SETS: usize = 256;
/// A slot adapts slower with each decision, down to this.
const COUNT_MAX: u32 = 90;
const RATE: i32 = 2;
const UNUSED: u32 = 1 << 31;

/// How far a slot moves with each decision, by how many it has had, in 1/32,768.
pub(super) static SHARES: Table<i32, 128> = Table::new(shares());

#[allow(clippy::indexing_slicing)] // Computed by the compiler.
const fn shares() -> [i32; 128] {
    let mut table = [0; 128];
    let mut count = 0;
    while count < table.len() {
        table[count] = 65_536 / (2 * count as i32 + 3);
        count += 1;
    }
    table
}

/// The natural logarithm of the odds of each probability in 1/4,096, in 1/256.
pub(super) static STRETCH: Table<i16, 4096> = Table::new(stretches());

const SQUASH: [i32; 33] = [
    1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785,
    3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
];

/// Returns the probability, in 1/4,096, of a logarithm of odds in 1/256: the inverse of [`STRETCH`].
#[allow(clippy::indexing_slicing)] // What is beyond its ends is told before.
pub(super) const fn squash(odds: i32) -> i32 {
    if odds > 2047 {
        return 4095;
    }
    if odds < -2047 {
        return 0;
    }
    let (part, at) = (odds & 127, ((odds >> 7) + 16) as usize);
    (SQUASH[at] * (128 - part) + SQUASH[at + 1] * part + 64) >> 7
}

#[allow(clippy::indexing_slicing)] // Computed by the compiler.
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

/// What stands for the column where nothing is known of it yet: its first value is said by what others began with.
pub(super) const SHARED: u32 = 0x5EED;

/// The contexts of the decisions about one value.
pub(super) type Contexts = [u32; INPUTS];

/// A probability that a decision of one context learns by itself.
#[derive(Clone, Copy)]
pub(super) struct Slot(u32);

impl Slot {
    pub(super) const NEW: Self = Self(UNUSED);

    /// The probability, in 1/65,536; below it the number of decisions.
    const fn probability(self) -> i32 {
        (self.0 >> 16) as i32
    }

    fn learn(&mut self, one: bool) {
        let count = self.0 & 127;
        let p = self.probability();
        let target = if one { 65_535 } else { 0 };
        let moved = p + (((target - p) * SHARES[count as usize]) >> 15);
        self.0 = (moved as u32) << 16 | (count + 1).min(COUNT_MAX);
    }

    /// Codes a decision of which the answer hardly ever changes: it costs next to no work.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, one: bool) -> Result<bool, C::Stop> {
        let one = coder.code(one, self.probability().clamp(24, 65_536 - 24) as u16)?;
        self.learn(one);
        Ok(one)
    }
}

/// A decision that has gone the same way for a while: until it changes it is made by its own probability.
#[derive(Clone, Copy)]
pub(super) struct Steady {
    slot: Slot,
    times: u8,
}

/// So many times make it steady.
const STEADY: u8 = 8;

impl Steady {
    pub(super) const NEW: Self = Self { slot: Slot::NEW, times: 0 };

    /// Returns its own probability if it has been *yes* for a while.
    pub(super) fn slot(&mut self) -> Option<&mut Slot> {
        (self.times >= STEADY).then_some(&mut self.slot)
    }

    /// Counts what it was.
    pub(super) fn count(&mut self, yes: bool) {
        self.times = if yes { (self.times + 1).min(STEADY) } else { 0 };
    }
}

/// What has been learned.
pub(super) struct Mixer {
    /// Buckets of eight. Of each: whose it is, 16 bits, and how often it was looked for; then the slots of its nodes.
    slots: Table<Table<Slot, SLOTS>, { 1 << BUCKET_BITS }>,
    weights: Table<[i32; INPUTS], SETS>,
    /// What all decisions have cost, in 1/256 bit.
    pub(super) spent: u32,
    /// And what they would have, by their first context alone.
    pub(super) spent_alone: u32,
}

/// Where the contexts of up to three decisions have their slots.
#[derive(Clone, Copy)]
pub(super) struct Tree {
    at: [u32; INPUTS],
    set: u32,
    alone: bool,
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
        Self {
            slots: Table::all(Table::all(Slot(0))),
            weights: Table::all([25_000; INPUTS]),
            spent: 0,
            spent_alone: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.slots = Table::all(Table::all(Slot(0)));
        self.weights = Table::all([25_000; INPUTS]);
    }

    /// Returns the bucket of a context, which is taken from one that was looked for less often if it has none.
    fn bucket(&mut self, of: u32) -> u32 {
        let h = (of ^ of >> 16).wrapping_mul(0x85EB_CA77);
        let (first, check) = (h >> (32 - BUCKET_BITS), (h & 0xFFFF) << 16);
        let mut free = (first, u32::MAX);
        for at in [first, first ^ 1] {
            let Slot(whose) = &mut self.slots[at as usize][0];
            let times = *whose & 0xFFFF;
            if *whose & 0xFFFF_0000 == check && times > 0 {
                *whose = check | (times + 1).min(0xFFFF);
                return at;
            }
            if times < free.1 {
                free = (at, times);
            }
        }
        let bucket = &mut self.slots[free.0 as usize];
        *bucket = Table::all(Slot::NEW);
        bucket[0] = Slot(check | 1);
        free.0
    }

    /// Returns where the decisions at `node` of a larger tree, and at those below it, have their slots, by contexts.
    pub(super) fn tree(&mut self, contexts: &Contexts, set: u32, node: u32) -> Tree {
        let node = node.wrapping_mul(0xC2B2_AE35);
        let mut at = [0; INPUTS];
        for (at, context) in at.iter_mut().zip(contexts) {
            *at = self.bucket((context ^ node).wrapping_mul(0x9E37_79B1));
        }
        Tree { at, set, alone: false }
    }

    /// As [`Mixer::tree`], of the first context alone.
    pub(super) fn tree_alone(&mut self, context: u32, node: u32) -> Tree {
        let node = node.wrapping_mul(0xC2B2_AE35);
        let mut at = [0; INPUTS];
        at[0] = self.bucket((context ^ node).wrapping_mul(0x9E37_79B1));
        Tree { at, set: 0, alone: true }
    }

    /// Codes a decision at `node`, 1 to 7, of a tree.
    #[inline(always)] // What is not mixed has no more than its slot to do.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        tree: &Tree,
        node: u32,
        one: bool,
    ) -> Result<bool, C::Stop> {
        if !tree.alone {
            return self.code_mixed(coder, tree, node, one);
        }
        self.slots[tree.at[0] as usize][node as usize].code(coder, one)
    }

    #[inline(never)]
    fn code_mixed<C: Coder>(
        &mut self,
        coder: &mut C,
        tree: &Tree,
        node: u32,
        one: bool,
    ) -> Result<bool, C::Stop> {
        let mut slots = [Slot(0); INPUTS];
        let mut odds = [0i32; INPUTS];
        let mut sum = 0i64;
        let weights = &mut self.weights[tree.set as usize];
        let inputs = slots.iter_mut().zip(&mut odds).zip(&tree.at).zip(weights.iter());
        for (((slot, odds), at), weight) in inputs {
            *slot = self.slots[*at as usize][node as usize];
            *odds = i32::from(STRETCH[(slot.0 >> 20) as usize]);
            sum += i64::from(*weight) * i64::from(*odds);
        }
        let mixed = squash(((sum >> 16) as i32).clamp(-2047, 2047));
        let p = mixed * 16 + 8;
        let one = coder.code(one, p.clamp(24, 65_536 - 24) as u16)?;
        let of = |p: i32| cost((if one { p } else { 65_535 - p }) as u16);
        self.spent = self.spent.wrapping_add(of(p));
        self.spent_alone = self.spent_alone.wrapping_add(of(slots[0].probability()));
        let error = (if one { 4095 } else { 0 } - mixed) * RATE;
        for (((slot, odds), at), weight) in slots.iter_mut().zip(&odds).zip(&tree.at).zip(weights) {
            *weight += (odds * error + 0x200) >> 10;
            slot.learn(one);
            self.slots[*at as usize][node as usize] = *slot;
        }
        Ok(one)
    }

    /// Codes a number of so many digits, which grow: what was learned of fewer holds on.
    pub(super) fn growing<C: Coder>(
        &mut self,
        coder: &mut C,
        contexts: &Contexts,
        (set, node): (u32, u32),
        bits: u32,
        number: u32,
    ) -> Result<u32, C::Stop> {
        let (mut found, mut left) = (0, bits);
        while left > 0 {
            // Trees end with the lowest digit: the first one is not whole.
            let here = (left - 1) % TOGETHER + 1;
            let tree = self.tree(contexts, set, node + ((left - here) << 16) + found);
            left -= here;
            let digits = self.in_tree(coder, &tree, 1 << (TOGETHER - here), here, number >> left)?;
            found = found << here | digits;
        }
        Ok(found)
    }

    /// Codes the lowest digits of a number, as many as a tree has of them from a node on.
    fn in_tree<C: Coder>(
        &mut self,
        coder: &mut C,
        tree: &Tree,
        node: u32,
        digits: u32,
        number: u32,
    ) -> Result<u32, C::Stop> {
        let mut below = node;
        for left in (0..digits).rev() {
            let one = self.code(coder, tree, below, number >> left & 1 == 1)?;
            below = below << 1 | u32::from(one);
        }
        Ok(below ^ node << digits)
    }

    /// Codes the lowest `bits` of a number, the highest first: decisions at `node` and below it.
    pub(super) fn digits<C: Coder>(
        &mut self,
        coder: &mut C,
        contexts: &Contexts,
        (set, node): (u32, u32),
        bits: u32,
        number: u32,
    ) -> Result<u32, C::Stop> {
        let (mut found, mut left) = (1, bits);
        while left > 0 {
            let tree = self.tree(contexts, set, node + found);
            let here = left.min(TOGETHER);
            left -= here;
            found = found << here | self.in_tree(coder, &tree, 1, here, number >> left)?;
        }
        Ok(found & ((1 << bits) - 1))
    }
}
