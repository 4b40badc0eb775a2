//! Forward error correction inside a packet: Reed-Solomon over GF(256), interleaved.
//!
//! A packet of `len` bytes (its CRC included) is dealt out over as few blocks as hold it, byte `i` to
//! block `i mod blocks`; each block gets `2t` parity bytes, dealt out in the same way behind the
//! data. A block of at most 255 bytes is corrected while no more than `t` of its bytes are hit; since
//! neighbours lie in different blocks, a burst of `t × blocks` bytes is too.
//!
//! The correction works on unstuffed bytes. A hit that makes or removes a zero on the line (about 1
//! in 100) still costs the packet. The CRC is checked after the correction, so a wrong correction is
//! refused like any other damage.
//!
//! Polynomial 0x11d, generator 2, first root 2⁰.

/// The FEC rates, by their numbers, as `t`: bytes that can be corrected in each block. Number 0 is no correction.
pub(super) const CORRECTABLE: [u8; 5] = [0, 1, 2, 4, 8];
/// The highest FEC rate's number.
pub(super) const RATE_MAX: u8 = 4;
const PARITY_MAX: usize = 16;
const BLOCK: usize = 255;
/// The most blocks that a packet is dealt out over.
pub(super) const BLOCKS_MAX: usize = 9;

const EXP: [u8; 510] = {
    let mut table = [0; 510];
    let (mut i, mut x) = (0, 1u16);
    while i < 510 {
        table[i] = x as u8;
        x <<= 1;
        if x & 0x100 != 0 {
            x ^= 0x11d;
        }
        i += 1;
    }
    table
};

const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 255 {
        table[EXP[i] as usize] = i as u8;
        i += 1;
    }
    table
};

const fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { EXP[LOG[a as usize] as usize + LOG[b as usize] as usize] }
}

/// Divides. `b` is never 0 where this is called; 0 would give `a`.
const fn div(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { EXP[LOG[a as usize] as usize + 255 - LOG[b as usize] as usize] }
}

/// The generator of each FEC rate, highest power first, without the leading 1.
const GENERATOR: [[u8; PARITY_MAX]; 5] = {
    let mut all = [[0; PARITY_MAX]; 5];
    let mut fec_rate = 1;
    while fec_rate < 5 {
        // poly[i] is the coefficient of x^i.
        let mut poly = [0u8; PARITY_MAX + 1];
        poly[0] = 1;
        let parity = 2 * CORRECTABLE[fec_rate] as usize;
        let mut root = 0;
        while root < parity {
            let mut i = root + 1;
            while i > 0 {
                poly[i] = poly[i - 1] ^ mul(poly[i], EXP[root]);
                i -= 1;
            }
            poly[0] = mul(poly[0], EXP[root]);
            root += 1;
        }
        let mut i = 0;
        while i < parity {
            all[fec_rate][i] = poly[parity - 1 - i];
            i += 1;
        }
        fec_rate += 1;
    }
    all
};

const fn parity(fec_rate: u8) -> usize {
    2 * CORRECTABLE[if fec_rate > RATE_MAX { 0 } else { fec_rate } as usize] as usize
}

/// Returns how many blocks a packet of `len` bytes has.
const fn blocks(fec_rate: u8, len: usize) -> usize {
    len.div_ceil(BLOCK - parity(fec_rate))
}

/// Returns how many parity bytes the FEC rate adds to a packet of `len` bytes.
pub(super) const fn added(fec_rate: u8, len: usize) -> usize {
    blocks(fec_rate, len) * parity(fec_rate)
}

/// Returns the length without parity of a packet that has `total` bytes with it.
pub(super) const fn without(fec_rate: u8, total: usize) -> Option<usize> {
    total.checked_sub(total.div_ceil(BLOCK) * parity(fec_rate))
}

/// Computes the parity of one packet as its bytes go by.
pub(super) struct Encoder {
    fec_rate: u8,
    blocks: usize,
    block: usize,
    register: [[u8; PARITY_MAX]; BLOCKS_MAX],
}

impl Encoder {
    pub(super) fn new(fec_rate: u8, len: usize) -> Self {
        let blocks = blocks(fec_rate, len).clamp(1, BLOCKS_MAX);
        Self { fec_rate, blocks, block: 0, register: [[0; PARITY_MAX]; BLOCKS_MAX] }
    }

    pub(super) fn push(&mut self, byte: u8) {
        let parity = parity(self.fec_rate);
        if parity == 0 {
            return;
        }
        let register = &mut self.register[self.block];
        self.block = if self.block + 1 == self.blocks { 0 } else { self.block + 1 };
        let feed = byte ^ register[0];
        let generator = &GENERATOR[self.fec_rate as usize];
        for i in 0..parity - 1 {
            register[i] = register[i + 1] ^ mul(feed, generator[i]);
        }
        register[parity - 1] = mul(feed, generator[parity - 1]);
    }

    /// Returns the parity bytes in the order of the line.
    pub(super) fn parity(&self) -> impl Iterator<Item = u8> + '_ {
        (0..parity(self.fec_rate)).flat_map(|i| self.register.iter().take(self.blocks).map(move |r| r[i]))
    }
}

/// Where the symbols of one block lie in a packet.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    stride: usize,
    data: usize,
    len: usize,
    data_symbols: usize,
    symbols: usize,
}

impl Block {
    fn at(&self, symbol: usize) -> usize {
        if symbol < self.data_symbols {
            self.first + symbol * self.stride
        } else {
            self.data + self.first + (symbol - self.data_symbols) * self.stride
        }
    }
}

/// Corrects a packet in place. Returns its length without parity and how many bytes were corrected, or
/// nothing where a block has too many errors.
pub(super) fn correct(fec_rate: u8, packet: &mut [u8]) -> Option<(usize, usize)> {
    let parity = parity(fec_rate);
    let len = without(fec_rate, packet.len())?;
    let count = packet.len().div_ceil(BLOCK);
    if parity == 0 || len < count {
        return None;
    }
    let mut corrected = 0;
    for first in 0..count {
        let data_symbols = (len - first).div_ceil(count);
        let block = Block {
            first,
            stride: count,
            data: len,
            len: packet.len(),
            data_symbols,
            symbols: data_symbols + parity,
        };
        corrected += correct_block(parity, packet, block)?;
    }
    Some((len, corrected))
}

fn correct_block(parity: usize, packet: &mut [u8], block: Block) -> Option<usize> {
    if block.at(block.symbols - 1) >= block.len {
        return None;
    }
    let mut syndromes = [0u8; PARITY_MAX];
    for symbol in 0..block.symbols {
        let byte = packet[block.at(symbol)];
        for (root, syndrome) in syndromes.iter_mut().take(parity).enumerate() {
            *syndrome = mul(*syndrome, EXP[root]) ^ byte;
        }
    }
    if syndromes.iter().all(|s| *s == 0) {
        return Some(0);
    }
    let (locator, errors) = locate(&syndromes, parity)?;
    // Ω = S·σ mod x^parity
    let mut evaluator = [0u8; PARITY_MAX];
    for (i, value) in evaluator.iter_mut().enumerate().take(parity) {
        for j in 0..=i.min(errors) {
            *value ^= mul(locator[j], syndromes[i - j]);
        }
    }
    let mut found = 0;
    let mut fixes = [(0usize, 0u8); PARITY_MAX / 2];
    for symbol in 0..block.symbols {
        let power = block.symbols - 1 - symbol;
        let inverse = EXP[(255 - power) % 255];
        if value_at(&locator, errors, inverse) != 0 {
            continue;
        }
        // The formal derivative keeps the odd powers.
        let mut slope = 0;
        for i in (1..=errors).step_by(2) {
            slope ^= mul(locator[i], raise(inverse, i - 1));
        }
        let slot = fixes.get_mut(found)?;
        let fix = mul(EXP[power % 255], div(value_at(&evaluator, parity - 1, inverse), slope));
        if slope == 0 || fix == 0 {
            return None;
        }
        *slot = (block.at(symbol), fix);
        found += 1;
    }
    if found != errors {
        return None;
    }
    for (at, fix) in fixes.iter().take(found) {
        packet[*at] ^= fix;
    }
    Some(found)
}

fn raise(base: u8, power: usize) -> u8 {
    if power == 0 { 1 } else { EXP[LOG[base as usize] as usize * power % 255] }
}

fn value_at(poly: &[u8], degree: usize, x: u8) -> u8 {
    (0..=degree).rev().fold(0, |sum, i| mul(sum, x) ^ poly[i])
}

/// Finds the error locator and how many errors it locates (Berlekamp and Massey).
fn locate(syndromes: &[u8; PARITY_MAX], parity: usize) -> Option<([u8; PARITY_MAX + 1], usize)> {
    let mut locator = [0u8; PARITY_MAX + 1];
    let mut before = locator;
    (locator[0], before[0]) = (1, 1);
    let (mut errors, mut shift, mut scale) = (0usize, 1usize, 1u8);
    for n in 0..parity {
        let mut gap = syndromes[n];
        for i in 1..=errors {
            gap ^= mul(locator[i], syndromes[n - i]);
        }
        if gap == 0 {
            shift += 1;
            continue;
        }
        let kept = locator;
        let factor = div(gap, scale);
        for i in shift..=parity {
            locator[i] ^= mul(factor, before[i - shift]);
        }
        if 2 * errors <= n {
            errors = n + 1 - errors;
            (before, scale, shift) = (kept, gap, 1);
        } else {
            shift += 1;
        }
    }
    if errors <= parity / 2 { Some((locator, errors)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn random(seed: &mut u64) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 11) as usize
    }

    fn coded(fec_rate: u8, data: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(fec_rate, data.len());
        data.iter().for_each(|b| encoder.push(*b));
        data.iter().copied().chain(encoder.parity()).collect()
    }

    #[test]
    fn puts_right_what_it_promises_and_no_more() {
        let mut seed = 7;
        for fec_rate in 1..=RATE_MAX {
            let t = CORRECTABLE[fec_rate as usize] as usize;
            for len in [5usize, 17, 200, 253, 254, 255, 480, 1070, 2090] {
                let data: Vec<u8> = (0..len).map(|_| random(&mut seed) as u8).collect();
                let whole = coded(fec_rate, &data);
                assert_eq!(without(fec_rate, whole.len()), Some(len));
                assert_eq!(whole.len(), len + added(fec_rate, len));
                let mut clean = whole.clone();
                assert_eq!(correct(fec_rate, &mut clean), Some((len, 0)));
                for _ in 0..20 {
                    // A burst over every block, and scattered hits in one.
                    let mut hit = whole.clone();
                    let burst = (t * blocks(fec_rate, len)).min(whole.len());
                    let from = random(&mut seed) % (whole.len() - burst + 1);
                    // Within the data or within the parity the blocks take turns; across the border they may not.
                    if from + burst <= len || from >= len {
                        hit[from..from + burst]
                            .iter_mut()
                            .for_each(|b| *b ^= 1 + random(&mut seed) as u8 % 255);
                        assert_eq!(
                            correct(fec_rate, &mut hit),
                            Some((len, burst)),
                            "FEC rate {fec_rate} len {len} burst at {from}"
                        );
                        assert_eq!(hit, whole);
                    }
                    let mut hit = whole.clone();
                    for _ in 0..t {
                        let at = random(&mut seed) % whole.len();
                        hit[at] ^= 1 << (random(&mut seed) % 8);
                    }
                    assert!(correct(fec_rate, &mut hit).is_some());
                    assert_eq!(hit, whole);
                    // Beyond that it may fail, or be wrong (the CRC shows it), but must come back.
                    let mut hit = whole.clone();
                    for _ in 0..(3 * t + 4) {
                        let at = random(&mut seed) % whole.len();
                        hit[at] = random(&mut seed) as u8;
                    }
                    let _ = correct(fec_rate, &mut hit);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_without_harm() {
        let mut seed = 99;
        for len in 0..2295 {
            let mut junk: Vec<u8> = (0..len).map(|_| random(&mut seed) as u8).collect();
            let _ = correct((len % 6) as u8, &mut junk);
        }
    }
}
