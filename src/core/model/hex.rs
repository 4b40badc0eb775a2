//! Bytes as hexadecimal digits, and back.

use core::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes that show themselves as hexadecimal digits: two lower-case digits a byte.
///
/// ```
/// # use packmule_core::model::Hex;
/// assert_eq!(Hex(&[0, 0xab]).to_string(), "00ab");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some bytes at a time: a call of the formatter for each digit would take most of the time.
        let mut digits = [0; 64];
        for bytes in self.0.chunks(digits.len() / 2) {
            for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 15)];
            }
            f.write_str(core::str::from_utf8(&digits[..bytes.len() * 2]).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

/// The text is not as many hexadecimal digits as are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParseHexError;

impl fmt::Display for ParseHexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text is not as many hexadecimal digits as are wanted")
    }
}

impl core::error::Error for ParseHexError {}

/// Decodes digits of either case into `to`, two a byte. After an error, `to` holds anything.
///
/// # Errors
/// Fails unless there are exactly two digits for each byte of `to`.
///
/// ```
/// # use packmule_core::model::decode_hex;
/// let mut bytes = [0; 2];
/// assert_eq!(decode_hex("00aB", &mut bytes), Ok(()));
/// assert_eq!(bytes, [0, 0xab]);
/// ```
pub fn decode_hex(text: &str, to: &mut [u8]) -> Result<(), ParseHexError> {
    if text.len() != to.len() * 2 {
        return Err(ParseHexError);
    }
    let digit = |d: u8| (d as char).to_digit(16).ok_or(ParseHexError);
    for (byte, pair) in to.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        for len in [0, 1, 31, 32, 33, 256] {
            let mut back = std::vec![0; len];
            decode_hex(&Hex(&all[..len]).to_string(), &mut back).unwrap();
            assert_eq!(back, all[..len]);
        }
    }

    #[test]
    fn what_is_not_digits_is_refused() {
        for text in ["", "0", "000", "0g", "+f", " 0", "é"] {
            assert_eq!(decode_hex(text, &mut [0]), Err(ParseHexError), "{text}");
        }
    }
}
