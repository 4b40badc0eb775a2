//! The bytes of short texts: each is looked at in several contexts at once, as in [`super::model`], but in more of them, and
//! what was seen in a context but once or twice counts for what that has turned out to be worth.

use super::coder::Coder;
use super::model::{SHARES, STRETCH, hash, squash};
use super::table::{Place, Table};

/// How many contexts a byte has.
pub(super) const VIEWS: usize = 6;
/// So many contexts share a bucket.
const SHARERS: usize = 2;
const SHARER_BITS: u32 = 1;
const BUCKET_BITS: u32 = 12;
const CONTEXT_BITS: u32 = BUCKET_BITS + SHARER_BITS;
/// How many buckets there are.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
/// The weights by what is followed, and those by the digits before in the byte.
const SETS: usize = 64;
const FIRST_WEIGHT: i32 = 20_000;
const RATE: i32 = 6;
/// How often a slot has been asked, up to this.
const COUNT_MAX: u16 = 15;
/// A slot that was asked less often says what such slots have turned out to mean.
const SURE: u16 = 4;
/// The decisions of a byte come in threes.
const TOGETHER: u32 = 3;

/// A probability of 12 bits, and how often it was asked; all zeros: one half, and never.
#[derive(Clone, Copy)]
struct Slot(u16);

impl Slot {
    const HALF: u16 = 2048;

    fn probability(self) -> u16 {
        self.0 >> 4 ^ Self::HALF
    }

    fn count(self) -> u16 {
        self.0 & 15
    }

    fn learn(&mut self, one: bool) {
        let p = i32::from(self.probability());
        let target = if one { 4095 } else { 0 };
        let moved = p + (((target - p) * SHARES[usize::from(self.count())] + (1 << 14)) >> 15);
        self.0 = (moved as u16 ^ Self::HALF) << 4 | (self.count() + 1).min(COUNT_MAX);
    }
}

/// What is remembered of texts, by three hashes, and of some contexts.
#[derive(Clone, Copy)]
pub struct Bucket {
    contexts: Table<Context, SHARERS>,
    /// Of some bytes: where what came after them stands, as they were last; 0: nowhere.
    pub(super) head: u16,
    /// Of a column and a number: the place of that value in its list.
    pub(super) place: Place,
    /// Of a column and a value: its number.
    pub(super) number: u16,
    /// In which frame these three were last begun.
    begun: u16,
}

/// What is remembered of a context.
#[derive(Clone, Copy)]
struct Context {
    /// Whose this is, 12 bits, and how often it was looked for; then the slots of its decisions.
    slots: Table<Slot, 8>,
    /// In which frame it was last begun: what it has from others is nothing. It costs less than to clear all.
    begun: u16,
}

impl Bucket {
    /// As every bucket is at first.
    pub const EMPTY: Self = Self {
        contexts: Table::all(Context { slots: Table::all(Slot(0)), begun: 0 }),
        head: 0,
        place: (0, 0),
        number: 0,
        begun: 0,
    };
}

pub(super) type Buckets = [Bucket; BUCKETS];

#[allow(clippy::indexing_slicing)] // What is left over is below the length.
fn bucket_at(buckets: &mut Buckets, at: u32) -> &mut Bucket {
    &mut buckets[at as usize % BUCKETS]
}

fn context_at(buckets: &mut Buckets, at: u32) -> &mut Context {
    &mut bucket_at(buckets, at >> SHARER_BITS).contexts[at as usize % SHARERS]
}

/// What has been learned of texts, but for the buckets.
pub(super) struct Prose {
    weights: Table<[i32; VIEWS], { SETS + 256 }>,
    /// What slots of each context have turned out to mean, by how often they were asked and what they say.
    worth: Table<Table<u16, { 16 * SURE as usize }>, VIEWS>,
    /// Counts the frames that have texts, over and over: who begins at 0 again finds no bucket of the same number.
    frame: u16,
    used: bool,
}

/// Where the decisions of a byte are looked up.
struct Looked {
    buckets: [u32; VIEWS],
    slot: usize,
    sets: [usize; 2],
}

impl Prose {
    pub(super) const fn new() -> Self {
        Self { weights: Table::all([0; VIEWS]), worth: Table::all(Table::all(0)), frame: 0, used: true }
    }

    pub(super) fn reset(&mut self) {
        if core::mem::take(&mut self.used) {
            self.weights = Table::all([FIRST_WEIGHT; VIEWS]);
            for worth in 0..VIEWS {
                (0..16 * usize::from(SURE))
                    .for_each(|at| self.worth[worth][at] = (at as u16 % 16) << 12 | 1 << 11);
            }
        }
    }

    /// Begins the first text of a frame.
    fn begin(&mut self, buckets: &mut Buckets) {
        if !self.used {
            (self.used, self.frame) = (true, self.frame.wrapping_add(1));
            if self.frame == 0 {
                buckets.iter_mut().for_each(|bucket| *bucket = Bucket::EMPTY);
                self.frame = 1;
            }
        }
    }

    /// Returns the bucket of a hash, as far as this frame has used it.
    pub(super) fn at<'b>(&mut self, buckets: &'b mut Buckets, hash: u32) -> &'b mut Bucket {
        self.begin(buckets);
        let bucket = bucket_at(buckets, hash >> (32 - BUCKET_BITS));
        if bucket.begun != self.frame {
            *bucket = Bucket { begun: self.frame, contexts: bucket.contexts, ..Bucket::EMPTY };
        }
        bucket
    }

    /// Returns the bucket of a context, which is taken from one that was looked for less often if it has none.
    fn bucket(&mut self, buckets: &mut Buckets, of: u32) -> u32 {
        let h = (of ^ of >> 16).wrapping_mul(0x85EB_CA77);
        let (first, check) = (h >> (32 - CONTEXT_BITS), h as u16 & 0xFFF0);
        let mut free = (first, u16::MAX);
        for at in [first, first ^ 1] {
            let context = context_at(buckets, at);
            if context.begun != self.frame {
                (context.begun, context.slots[0]) = (self.frame, Slot(0));
            }
            let Slot(whose) = &mut context.slots[0];
            let times = *whose & 15;
            if *whose & 0xFFF0 == check && times > 0 {
                *whose = check | (times + 1).min(15);
                return at;
            }
            if times < free.1 {
                free = (at, times);
            }
        }
        // What stays must be looked for, to stay on.
        let Slot(stays) = &mut context_at(buckets, free.0 ^ 1).slots[0];
        *stays -= u16::from(*stays & 15 > 1);
        let bucket = context_at(buckets, free.0);
        bucket.slots = Table::all(Slot(0));
        bucket.slots[0] = Slot(check | 1);
        free.0
    }

    /// Codes a byte.
    pub(super) fn letter<C: Coder>(
        &mut self,
        coder: &mut C,
        buckets: &mut Buckets,
        contexts: &[u32; VIEWS],
        set: usize,
        byte: u8,
    ) -> Result<u8, C::Stop> {
        self.begin(buckets);
        let mut found = 1u32;
        let mut looked = Looked { buckets: [0; VIEWS], slot: 1, sets: [set % SETS, 0] };
        for left in (0..8).rev() {
            let depth = (7 - left) % TOGETHER;
            if depth == 0 {
                for (bucket, context) in looked.buckets.iter_mut().zip(contexts) {
                    *bucket = self.bucket(buckets, hash(*context, found));
                }
            }
            looked.slot = (1 << depth | found & ((1 << depth) - 1)) as usize;
            looked.sets[1] = SETS + found as usize;
            let one = self.decide(coder, buckets, &looked, byte >> left & 1 == 1)?;
            found = found << 1 | u32::from(one);
        }
        Ok(found as u8)
    }

    /// Codes a decision.
    fn decide<C: Coder>(
        &mut self,
        coder: &mut C,
        buckets: &mut Buckets,
        looked: &Looked,
        one: bool,
    ) -> Result<bool, C::Stop> {
        let mut slots = [(Slot(0), 0i32); VIEWS];
        for (view, ((slot, odds), at)) in slots.iter_mut().zip(&looked.buckets).enumerate() {
            *slot = context_at(buckets, *at).slots[looked.slot];
            let p = match slot.count() {
                SURE.. => slot.probability(),
                _ => self.worth[view][worth_of(*slot)] >> 4,
            };
            *odds = if slot.count() == 0 { 0 } else { i32::from(STRETCH[usize::from(p)]) };
        }
        let says = |set: usize| {
            let weights = self.weights[set].iter();
            let sum: i64 =
                weights.zip(&slots).map(|(weight, (_, odds))| i64::from(*weight) * i64::from(*odds)).sum();
            ((sum >> 16) as i32).clamp(-2047, 2047)
        };
        let said = looked.sets.map(says);
        let p = squash((said[0] + said[1]) / 2) * 16 + 8;
        let one = coder.code(one, p.clamp(24, 65_536 - 24) as u16)?;
        for (set, said) in looked.sets.into_iter().zip(said) {
            let error = (if one { 4095 } else { 0 } - squash(said)) * RATE;
            let weights = self.weights[set].iter_mut();
            weights.zip(&slots).for_each(|(weight, (_, odds))| *weight += (odds * error + (1 << 12)) >> 13);
        }
        let target = if one { 65_535 } else { 0 };
        for (view, ((mut slot, _), at)) in slots.into_iter().zip(&looked.buckets).enumerate() {
            if (1..SURE).contains(&slot.count()) {
                let worth = &mut self.worth[view][worth_of(slot)];
                *worth = (i32::from(*worth) + (target - i32::from(*worth)) / 64) as u16;
            }
            slot.learn(one);
            context_at(buckets, *at).slots[looked.slot] = slot;
        }
        Ok(one)
    }
}

/// Where what a slot is worth stands.
fn worth_of(slot: Slot) -> usize {
    usize::from(slot.count() << 4 | slot.probability() >> 8)
}
