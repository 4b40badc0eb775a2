//! Text that is a number in disguise: dates, decimals, a prefix with a counter, and ids in hexadecimal digits. The digits
//! are numbers, the rest is as it was in the text before.

use super::table::Table;

/// So many runs of digits at most.
pub(super) const RUNS: usize = 8;
const DIGITS_MAX: usize = 18;

/// The forms in which dates and times are written, to tell a column's first one from.
pub(super) static FORMS: Table<&[u8], 16> = Table::new([
    b"2020-01-01",
    b"2020-01-01 00:00",
    b"2020-01-01 00:00:00",
    b"2020-01-01 00:00:00.000",
    b"2020-01-01 00:00:00.000000",
    b"2020-01-01 00:00:00+00:00",
    b"2020-01-01T00:00",
    b"2020-01-01T00:00Z",
    b"2020-01-01T00:00:00",
    b"2020-01-01T00:00:00Z",
    b"2020-01-01T00:00:00.000Z",
    b"2020-01-01T00:00:00+00:00",
    b"2020/01/01",
    b"2020/01/01 00:00",
    b"2020/01/01 00:00:00",
    b"00:00:00",
]);

/// Returns the number of the form that a text has.
pub(super) fn form_of(text: &[u8]) -> Option<usize> {
    (0..16).find(|form| Runs::same_but_digits(text, FORMS[*form]))
}

/// A text of at most 64 bytes.
pub(super) struct Short {
    bytes: [u8; 64],
    len: usize,
}

impl Short {
    /// Copies a text; `None` if it is longer.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let mut short = Self { bytes: [0; 64], len: text.len() };
        short.bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(short)
    }

    /// Returns it.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

/// The runs of digits of a text: where each begins, and how long it is.
#[derive(Clone, Copy)]
pub(super) struct Runs {
    pub(super) at: [(u16, u8); RUNS],
    pub(super) len: usize,
}

impl Runs {
    /// Finds the runs of digits; `None` if there are none or too many, or one is too long.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let mut runs = Self { at: [(0, 0); RUNS], len: 0 };
        let mut rest = text;
        while let Some(first) = rest.iter().position(u8::is_ascii_digit) {
            let (_, digits) = rest.split_at(first);
            let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if len > DIGITS_MAX {
                return None;
            }
            *runs.at.get_mut(runs.len)? = ((text.len() - digits.len()) as u16, len as u8);
            runs.len += 1;
            rest = digits.split_at(len).1;
        }
        (runs.len > 0).then_some(runs)
    }

    /// Where the digits of a run stand.
    fn range(&self, run: usize) -> core::ops::Range<usize> {
        let (at, len) = self.at.get(run).copied().unwrap_or_default();
        usize::from(at)..usize::from(at) + usize::from(len)
    }

    /// Reads the number of a run.
    pub(super) fn number(&self, run: usize, text: &[u8]) -> i64 {
        let digits = text.get(self.range(run)).unwrap_or_default();
        digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))
    }

    /// Returns whether both texts are the same but for the digits.
    pub(super) fn same_but_digits(text: &[u8], other: &[u8]) -> bool {
        text.len() == other.len()
            && text.iter().zip(other).all(|(a, b)| a == b || a.is_ascii_digit() && b.is_ascii_digit())
    }

    /// Writes a number over a run; `false` if it does not fit.
    pub(super) fn write(&self, run: usize, mut number: i64, text: &mut [u8]) -> bool {
        let Some(digits) = text.get_mut(self.range(run)) else { return false };
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + number.rem_euclid(10) as u8;
            number = number.div_euclid(10);
        }
        number == 0
    }
}

/// The hexadecimal digits of a text that has nothing else but signs between them.
#[derive(Clone, Copy)]
pub(super) struct Hexed {
    upper: bool,
}

const HEX_MIN: usize = 8;

impl Hexed {
    /// Finds out how the digits of a text are written; `None` if it is no such text.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let (mut digits, mut lower, mut upper) = (0, 0, 0);
        for byte in text {
            match byte {
                b'0'..=b'9' => digits += 1,
                b'a'..=b'f' => lower += 1,
                b'A'..=b'F' => upper += 1,
                _ if byte.is_ascii() && !byte.is_ascii_alphabetic() => {}
                _ => return None,
            }
        }
        let one_case = lower == 0 || upper == 0;
        (one_case && digits + lower + upper >= HEX_MIN).then_some(Self { upper: upper > 0 })
    }

    /// Returns the number of a digit; `None` if it is none.
    pub(super) fn digit(self, byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' if !self.upper => Some(byte - b'a' + 10),
            b'A'..=b'F' if self.upper => Some(byte - b'A' + 10),
            _ => None,
        }
    }

    /// Returns how a digit is written.
    pub(super) fn written(self, digit: u8) -> u8 {
        match digit {
            0..10 => b'0' + digit,
            _ if self.upper => b'A' + digit - 10,
            _ => b'a' + digit - 10,
        }
    }

    /// Returns whether another text has its digits where `text` has them, and else the same.
    pub(super) fn same_but_digits(self, text: &[u8], other: &[u8]) -> bool {
        let alike = |(a, b): (&u8, &u8)| match self.digit(*a) {
            Some(_) => self.digit(*b).is_some(),
            None => a == b,
        };
        text.len() == other.len() && text.iter().zip(other).all(alike)
    }
}
