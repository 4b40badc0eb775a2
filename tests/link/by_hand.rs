//! The link's key, error correction and framing once more, by hand, from the pages of `src/core/link`.

// Each test program uses a part of it.
#![allow(dead_code)]

/// The key of packets between two nonces, as `check.rs` says.
pub fn key(from: u32, to: u32) -> u32 {
    let mix = |mut x: u32| {
        x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
        x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
        x ^ x >> 16
    };
    mix(from) ^ mix(to.wrapping_add(0x9e37_79b9)).rotate_left(7)
}

/// Multiplication in GF(256) with polynomial 0x11d, bit by bit.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        product ^= if b & 1 == 1 { a } else { 0 };
        a = a << 1 ^ if a & 0x80 != 0 { 0x1d } else { 0 };
        b >>= 1;
    }
    product
}

/// `2t` bytes of Reed-Solomon parity, first root 2⁰, by long division.
fn parity(block: &[u8], t: usize) -> Vec<u8> {
    let mut generator = vec![1u8];
    let mut root = 1;
    for _ in 0..2 * t {
        let mut next = generator.clone();
        next.push(0);
        for (at, factor) in generator.iter().enumerate() {
            next[at + 1] ^= times(*factor, root);
        }
        (generator, root) = (next, times(root, 2));
    }
    let mut rest = block.to_vec();
    rest.extend(vec![0; 2 * t]);
    for at in 0..block.len() {
        let lead = rest[at];
        for (step, factor) in generator.iter().enumerate() {
            rest[at + step] ^= times(*factor, lead);
        }
    }
    rest.split_off(block.len())
}

/// The parity of a packet that is dealt out over its blocks.
pub fn dealt(packet: &[u8], t: usize) -> Vec<u8> {
    let blocks = (1..).find(|n| packet.len().div_ceil(*n) + 2 * t <= 255).unwrap();
    let each: Vec<Vec<u8>> = (0..blocks)
        .map(|block| parity(&packet.iter().skip(block).step_by(blocks).copied().collect::<Vec<_>>(), t))
        .collect();
    (0..2 * t).flat_map(|at| each.iter().map(move |parity| parity[at])).collect()
}

/// Byte stuffing: no zero inside, a zero behind.
pub fn stuffed(packet: &[u8], lead: bool) -> Vec<u8> {
    let mut out = if lead { vec![0] } else { Vec::new() };
    let mut runs: Vec<&[u8]> = packet.split(|byte| *byte == 0).collect();
    let last = runs.pop().unwrap();
    for run in runs {
        let mut chunks: Vec<&[u8]> = run.chunks(254).collect();
        let tail = chunks.pop_if(|chunk| chunk.len() < 254).unwrap_or_default();
        for chunk in chunks {
            out.push(255);
            out.extend(chunk);
        }
        out.push(tail.len() as u8 + 1);
        out.extend(tail);
    }
    let mut chunks: Vec<&[u8]> = last.chunks(254).collect();
    let tail = chunks.pop().unwrap_or_default();
    for chunk in chunks {
        out.push(255);
        out.extend(chunk);
    }
    out.push(tail.len() as u8 + 1);
    out.extend(tail);
    out.push(0);
    out
}
