//! What the bytes are like that a line brings, where nothing goes on: by that its likely cause is named.
//!
//! The link's packets have every value of a byte, about equally often; hellos that nobody answers sound them one after
//! the other. What a line eats or changes shows in the values that never come.

/// What is wrong with a line, most likely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Cause {
    /// Nothing comes at all.
    Nothing,
    /// XON and XOFF (0x11, 0x13) are swallowed: software flow control is on somewhere.
    FlowControl,
    /// The highest bit is lost: 7 bits to a byte.
    SevenBits,
    /// CR and LF are changed into each other: a terminal's settings, or a program that takes it for text.
    LineEnds,
    /// Some other value never comes: this one, the lowest of them.
    Swallows(u8),
    /// It is text, such as a login prompt.
    Text,
    /// Bytes come that are nothing: another rate at the other end, or noise.
    Noise,
    /// Every value comes.
    Unknown,
}

/// So many bytes tell which values never come.
const ENOUGH: u32 = 2048;
/// Where more values than these are missing, what came was too uniform to tell.
const FEW: u32 = 8;
/// So many tell text from noise.
const SOME: u32 = 16;
/// So many without the highest bit, which half of them have, tell that it is lost.
const LOST: u32 = 64;
/// So many LF, each after a CR, tell that they are made so.
const MADE: u32 = 8;

/// The bytes that a line brought, counted.
#[derive(Clone, Debug)]
pub struct Heard {
    count: u32,
    printable: u32,
    /// With the highest bit.
    high: u32,
    /// Which values came: a bit each.
    values: [u32; 8],
    /// LF, and whether one did not come after CR.
    line_feeds: u32,
    bare_line_feed: bool,
    last: u8,
}

impl Default for Heard {
    fn default() -> Self {
        Self::new()
    }
}

impl Heard {
    /// Begins with none.
    pub const fn new() -> Self {
        Self {
            count: 0,
            printable: 0,
            high: 0,
            values: [0; 8],
            line_feeds: 0,
            bare_line_feed: false,
            last: 0,
        }
    }

    /// Counts bytes as they come.
    pub fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.count = self.count.saturating_add(1);
            let printable = matches!(byte, 0x20..=0x7e | b'\r' | b'\n' | b'\t' | 0x1b | 0x07 | 0x08);
            self.printable = self.printable.saturating_add(u32::from(printable));
            self.high = self.high.saturating_add(u32::from(*byte >= 128));
            if let Some(word) = self.values.get_mut(usize::from(*byte / 32)) {
                *word |= 1 << (byte % 32);
            }
            self.line_feeds = self.line_feeds.saturating_add(u32::from(*byte == b'\n'));
            self.bare_line_feed |= *byte == b'\n' && self.last != b'\r';
            self.last = *byte;
        }
    }

    /// Returns how many bytes came.
    pub const fn count(&self) -> u32 {
        self.count
    }

    fn came(&self, value: u8) -> bool {
        self.values.get(usize::from(value / 32)).is_some_and(|word| word & (1 << (value % 32)) != 0)
    }

    /// Returns what is wrong with the line, most likely. `packets`: whole packets came, so that the other end is a link.
    pub fn cause(&self, packets: bool) -> Cause {
        if self.count == 0 {
            return Cause::Nothing;
        }
        if !packets && self.count >= SOME && self.printable >= self.count - self.count / 16 {
            return Cause::Text;
        }
        // These two show in few bytes, and where no packet ever comes through.
        if self.count >= LOST && self.high < self.count.div_ceil(64) {
            return Cause::SevenBits;
        }
        if self.line_feeds >= MADE && !self.bare_line_feed {
            return Cause::LineEnds;
        }
        let unnamed = if packets { Cause::Unknown } else { Cause::Noise };
        let missing = (0..=255).filter(|value| !self.came(*value));
        let (first, count) = missing.fold((None, 0), |(first, n), value| (first.or(Some(value)), n + 1));
        if count > FEW {
            unnamed // The same few packets came again and again, or another rate's bytes.
        } else if !self.came(0x11) && !self.came(0x13) {
            Cause::FlowControl // That just these two are missing by chance is rare among fewer than `ENOUGH`, too.
        } else if self.count < ENOUGH {
            unnamed
        } else if !self.came(b'\r') || !self.came(b'\n') || !self.bare_line_feed {
            Cause::LineEnds
        } else {
            first.map_or(unnamed, Cause::Swallows)
        }
    }
}
