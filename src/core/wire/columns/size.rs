//! How many bits a number has, and its digits.

use super::coder::Coder;
use super::model::{Contexts, Mixer, TOGETHER, Tree};

const BITS: u32 = 64;
const SIZES: u32 = 256;
const DIGITS: u32 = 1 << 16;
/// So many of the highest digits are modelled together.
const MODELLED: u32 = 10;

pub(super) fn tree_of(mixer: &mut Mixer, (contexts, alone): (&Contexts, bool), id: u32, node: u32) -> Tree {
    if alone { mixer.tree_alone(contexts[0], node) } else { mixer.tree(contexts, id, node) }
}

/// How many bits the numbers of a column mostly have: one of seven sizes after each other is said in three decisions.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// The least of them. None before the first number, which is rarely like those after it.
    least: Option<u8>,
    /// Whether the last number had none of them.
    outside: bool,
}

const OUTSIDE: u32 = 0;
/// So many of the seven are below that of a number that they are set by.
const BELOW: u32 = 4;

impl Sizes {
    pub(super) const NEW: Self = Self { least: None, outside: true };

    /// Returns whether the column has had no number yet.
    pub(super) fn is_new(&self) -> bool {
        self.least.is_none()
    }

    /// Codes how many bits a number has, less 1.
    pub(super) fn code<C: Coder>(
        &mut self,
        mixer: &mut Mixer,
        coder: &mut C,
        contexts: (&Contexts, bool),
        id: u32,
        bits: u32,
    ) -> Result<u32, C::Stop> {
        let Some(least) = self.least.map(u32::from) else {
            self.least = Some(0);
            return bits_code(mixer, coder, contexts, id, bits);
        };
        let here = bits.wrapping_sub(least).wrapping_add(1);
        let here = if here > 7 { OUTSIDE } else { here };
        let here = seven(mixer, coder, contexts, (id, SIZES + least), here)?;
        if here != OUTSIDE {
            self.outside = false;
            return Ok((least + here - 1).min(63));
        }
        let bits = bits_code(mixer, coder, contexts, id, bits)?;
        // One alone is an exception.
        if self.outside {
            self.least = Some(bits.saturating_sub(BELOW) as u8);
        }
        self.outside = !self.outside;
        Ok(bits)
    }
}

/// Codes a number of three digits.
fn seven<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    contexts: (&Contexts, bool),
    (id, node): (u32, u32),
    number: u32,
) -> Result<u32, C::Stop> {
    let tree = tree_of(mixer, contexts, id ^ 1 << 4, node);
    let mut node = 1;
    for at in (0..TOGETHER).rev() {
        let one = mixer.code(coder, &tree, node, number >> at & 1 == 1)?;
        node = node << 1 | u32::from(one);
    }
    Ok(node & 7)
}

/// Codes how many bits a number has, less 1: in sevens, each of three decisions, of which the last is not full.
fn bits_code<C: Coder>(
    mixer: &mut Mixer,
    coder: &mut C,
    contexts: (&Contexts, bool),
    id: u32,
    bits: u32,
) -> Result<u32, C::Stop> {
    let mut from = 0;
    loop {
        let here = (bits - from.min(bits)).min(7);
        let here = seven(mixer, coder, contexts, (id, BITS + from), here)?;
        if here < 7 || from == 56 {
            return Ok((from + here).min(63));
        }
        from += 7;
    }
}

/// What the lowest digits of a column's differences cost: those of which nothing can be learned are said as they are.
#[derive(Clone, Copy)]
pub(super) struct LowNoise {
    /// Running means, in 1/4,096 bit.
    costs: [u16; LOW],
    numbers: u8,
}

const LOW: usize = 12;
/// What a digit costs at which nothing is to be gained.
const NOTHING: u16 = 251 * 16;
/// One number in so many is tried, at the most.
const TRIED: u8 = 64;

impl LowNoise {
    pub(super) const NEW: Self = Self { costs: [224 * 16; LOW], numbers: 0 };

    /// Counts a number of so many digits; returns how many of the lowest are said as they are.
    fn below(&mut self, bits: u32, alone: bool) -> u32 {
        self.numbers = self.numbers.saturating_add(1);
        // Only what is mixed tells anything.
        if !alone && self.numbers >= TRIED {
            self.numbers = 0;
            return 0;
        }
        let noisy = self.costs.iter().take_while(|cost| **cost >= NOTHING).count();
        (noisy as u32).min(bits)
    }

    /// Learns what a digit has cost.
    fn learn(&mut self, digit: u32, cost: u32) {
        if let Some(mean) = self.costs.get_mut(digit as usize) {
            *mean = ((u32::from(*mean) * 15 + cost.min(511) * 16) / 16) as u16;
        }
    }

    /// Codes the digits of a number below its highest, of which there are so many. Returns the number.
    pub(super) fn digits<C: Coder>(
        &mut self,
        mixer: &mut Mixer,
        coder: &mut C,
        (contexts, alone): (&Contexts, bool),
        id: u32,
        (number, bits): (u64, u32),
    ) -> Result<u64, C::Stop> {
        let mut found = 1u64;
        let mut left = bits;
        let direct = self.below(bits, alone);
        while left > direct {
            let seen = bits - left;
            let node = if seen < MODELLED { found as u32 } else { 1 << MODELLED | left };
            let tree = tree_of(mixer, (contexts, alone), id ^ 2 << 4, DIGITS + (bits << 14) + node);
            let mut below = 1;
            for _ in 0..TOGETHER.min(left - direct) {
                left -= 1;
                let spent = mixer.spent;
                let one = mixer.code(coder, &tree, below, number >> left & 1 == 1)?;
                if !alone {
                    self.learn(left, mixer.spent.wrapping_sub(spent));
                }
                below = below << 1 | u32::from(one);
                found = found << 1 | u64::from(one);
            }
        }
        Ok(found << left | u64::from(coder.direct(left, number as u32 & ((1 << left) - 1))?))
    }
}
