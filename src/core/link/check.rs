//! The check sum of a packet, and the key that ties it to one connection.
//!
//! CRC-32/AUTOSAR ([`crate::model::crc32`]) finds any 5 flipped bits in a packet of up to 4,092 bytes.
//! In an open connection it is xored with a key made of both ends' nonces, one for each direction: a
//! packet of an earlier connection, or one that a loop or a login shell sends back to us, fails
//! the check like a damaged one. A hello has key 0. The key from nonce `a` to nonce `b` is
//! `mix(a) xor rotate_left(mix(b + 0x9e3779b9), 7)`, and 1 for 0; `mix` is [`scramble`].

use super::fec;
use super::packet::CRC_LEN;
use crate::model::CRC32;

/// Scrambles one-to-one, so that nonces that differ give keys that differ.
pub(super) const fn scramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// Returns the key for packets from the end with nonce `from` to the end with nonce `to`.
pub(super) const fn key(from: u32, to: u32) -> u32 {
    let key = scramble(from) ^ scramble(to.wrapping_add(0x9e37_79b9)).rotate_left(7);
    // 0 is the hello's.
    if key == 0 { 1 } else { key }
}

/// What the check of a packet found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Checked {
    /// Its length without CRC and parity.
    pub(super) len: usize,
    /// Its CRC has key 0.
    pub(super) hello: bool,
    pub(super) fec_rate: u8,
    pub(super) corrected: usize,
}

/// Finds under which FEC rate the CRC of `packet` is right, correcting it with `fec_rate`
/// if it is under none. `key` is that of the open connection, if there is one.
pub(super) fn check(packet: &mut [u8], key: Option<u32>, fec_rate: u8) -> Option<Checked> {
    if let Some(found) = matching(packet, key) {
        return Some(found);
    }
    let (len, corrected) = fec::correct(fec_rate, packet)?;
    let end = len.checked_sub(CRC_LEN)?;
    let (body, sum) = packet.get(..len)?.split_at_checked(end)?;
    let hello = verdict(CRC32.checksum(body), sum, key)?;
    Some(Checked { len: end, hello, fec_rate, corrected })
}

fn matching(packet: &[u8], key: Option<u32>) -> Option<Checked> {
    let mut digest = CRC32.digest();
    let mut done = 0;
    // The higher the FEC rate, the shorter what it covers: one pass over the packet.
    for fec_rate in (0..=fec::RATE_MAX).rev() {
        let end = fec::without(fec_rate, packet.len()).and_then(|len| len.checked_sub(CRC_LEN));
        let Some(end) = end.filter(|end| *end > 0) else { continue };
        digest.update(packet.get(done..end).unwrap_or_default());
        done = end;
        let sum = packet.get(end..end + CRC_LEN).unwrap_or_default();
        if let Some(hello) = verdict(digest.clone().finalize(), sum, key) {
            return Some(Checked { len: end, hello, fec_rate, corrected: 0 });
        }
    }
    None
}

/// Returns whether the sum fits as a hello's (`true`) or the connection's (`false`); nothing if as neither.
fn verdict(crc: u32, stored: &[u8], key: Option<u32>) -> Option<bool> {
    let stored = u32::from_le_bytes(stored.try_into().ok()?);
    if crc == stored {
        Some(true)
    } else if key.is_some_and(|key| crc ^ key == stored) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn sealed(fec_rate: u8, key: u32, body: &[u8]) -> Vec<u8> {
        let mut all = body.to_vec();
        all.extend((CRC32.checksum(body) ^ key).to_le_bytes());
        let mut encoder = fec::Encoder::new(fec_rate, all.len());
        all.iter().for_each(|b| encoder.push(*b));
        let parity: Vec<u8> = encoder.parity().collect();
        all.extend(parity);
        all
    }

    #[test]
    fn every_fec_rate_and_key_is_distinguished() {
        let body: Vec<u8> = (0..700u32).map(|i| (i * 7) as u8).collect();
        for fec_rate in 0..=fec::RATE_MAX {
            for len in [2usize, 13, 243, 249, 254, 700] {
                let mut packet = sealed(fec_rate, 77, &body[..len]);
                let found = check(&mut packet, Some(77), 0).unwrap();
                assert_eq!(found, Checked { len, hello: false, fec_rate, corrected: 0 });
                assert_eq!(check(&mut packet, Some(78), fec_rate), None, "another connection's");
                assert_eq!(check(&mut packet, None, fec_rate), None);
                packet[1] ^= 4;
                let corrected = check(&mut packet, Some(77), fec_rate);
                assert_eq!(corrected.map(|c| c.corrected), if fec_rate == 0 { None } else { Some(1) });
            }
        }
        assert!(check(&mut sealed(0, 0, &body[..26]), Some(9), 0).unwrap().hello);
        for len in 0..20 {
            assert_eq!(check(&mut body[..len].to_vec(), Some(5), 2), None);
        }
    }

    #[test]
    fn keys_have_a_direction() {
        assert_ne!(key(1, 2), key(2, 1));
        assert_ne!(key(1, 2), key(1, 3));
        assert_ne!(key(1, 2), 0);
    }
}
