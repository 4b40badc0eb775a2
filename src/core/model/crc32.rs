//! The check sum of frames, records and packets.

use crc::{CRC_32_AUTOSAR, Crc};

/// CRC-32/AUTOSAR (polynomial 0xF4ACFB13, reflected, initial value and final xor all ones).
///
/// Its Hamming distance is 6 up to 4,092 bytes (Koopman, "Best CRC polynomials"): it finds any 5 flipped
/// bits of them. Longer frames rely on the checkpoint's signature. A `static`, so that a
/// microcontroller holds the table once.
pub(crate) static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_AUTOSAR);

/// Returns the CRC-32/AUTOSAR of the bytes.
pub fn crc32(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(super::crc32(b"123456789"), 0x1697_d06a);
    }
}
