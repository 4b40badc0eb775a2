//! The bytes of a packet, after unstuffing. All numbers are little-endian.
//!
//! ```text
//! packet  head [ack] [data] crc:4 [parity]      crc = CRC_32_AUTOSAR over all before it, xor key
//!
//! head    narrow: kind:4 bits, number:12 bits (the kind is the high half of the first byte)
//!         wide:   kind:4 bits, 0:4 bits, number:4 bytes
//! kind    8 wide · 4 data · 2 ack · 1 finish (with data only) · 8 alone: hello
//! ack     narrow: highest:12 bits + map bytes:4 bits, whole:2, space:2, corrected:1, map
//!         wide:   map bytes:1, highest:4, whole:4, space:4, corrected:1, map
//!           highest  the highest packet number that arrived
//!           whole    the stream offset up to which every byte is here
//!           space    bytes of the stream that may be sent beyond `whole` (the credit)
//!           corrected bytes corrected so far, modulo 256
//!           map      up to 15 bytes; bit i (low bits first): number highest-1-i arrived
//! data    narrow: offset:2, bytes to the end · wide: offset:4, bytes to the end
//!           no bytes and no finish: a probe. A finish takes one place in the stream after the bytes.
//! hello   0x80 "PML" lowest version:1 highest version:1 flags:1 0:1 nonce:4 echo:4 receive:4
//!         payload:2 baud:4 send:4, and a sounding:16 or what later versions add (at most 48 bytes)
//!           flags    1 the sender has heard an echo of its nonce · 2 corrects (FEC)
//!                    4 changes its rate · 32 and 64 (together a number up to 3): the caller's note
//!           0        it ends the first run of byte stuffing, whatever the nonces are: its length is
//!                    no value that lines swallow or change
//!           sounding once some hellos were not answered: LF, CR and 14 of all values of a byte, one after
//!                    the other from hello to hello; who receives the packet skips it
//! rate    0x10 step:1 baud:4                    with the connection's key; only to who changes its rate
//!           step     1 propose · 2 agree (0: to none) · 3 commit · 4 try · 5 heard · 6 leave
//! ```
//!
//! A narrow number holds the low bits; the receiver uses the full one that is nearest to what it
//! has. The sender goes wide once 1,024 numbers are unacknowledged, or where a buffer is larger than
//! 32 KiB, so the nearest is always right.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub(super) const WIDE: u8 = 8;
pub(super) const DATA: u8 = 4;
pub(super) const ACK: u8 = 2;
pub(super) const FINISH: u8 = 1;
pub(super) const CRC_LEN: usize = 4;
/// Bytes of acknowledgement map, at most.
pub(super) const MAP_MAX: usize = 15;
/// The longest packet around a payload: wide head, wide ack with a full map, offset, CRC.
pub(super) const OVERHEAD_MAX: usize = 5 + 14 + MAP_MAX + 4 + CRC_LEN;
/// Head, offset, CRC, one stuffing byte, one delimiter: what a plain data packet costs.
pub(super) const OVERHEAD_USUAL: u32 = 2 + 2 + 4 + 2;
const RATE: u8 = 0x10;
const MAGIC: [u8; 4] = *b"\x80PML";
const HELLO_LEN: usize = 30;
const HELLO_LEN_MAX: usize = 48;
/// Bytes of a sounding, behind a hello.
pub(super) const SOUNDING_LEN: usize = 16;
/// Of them so many step through all values.
const STEP: u8 = SOUNDING_LEN as u8 - 2;

/// Returns what follows the hello that nobody answered for the `number`th time: LF and CR, and a part of all values of a
/// byte, which [`Heard`](super::Heard) at the other end notes though the packet may not come through. A hello that has a
/// byte which the line eats never comes through, and always has the same few values itself.
pub(super) fn sounding(number: u8) -> [u8; SOUNDING_LEN] {
    let mut all = [b'\n'; SOUNDING_LEN];
    let values = (0..STEP).map(|at| number.wrapping_mul(STEP).wrapping_add(at));
    for (slot, value) in all.iter_mut().skip(1).zip([b'\r'].into_iter().chain(values)) {
        *slot = value;
    }
    all
}

/// A number of which some low bits are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Low {
    pub(super) value: u32,
    pub(super) bits: u8,
}

impl Low {
    /// Returns the number with these low bits that is nearest to `near`.
    pub(super) fn expand(self, near: u32) -> u32 {
        let shift = 32 - u32::from(self.bits);
        let distance = (self.value.wrapping_sub(near) << shift) as i32 >> shift;
        near.wrapping_add(distance as u32)
    }
}

/// An acknowledgement as it stands in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ack<'a> {
    pub(super) highest: Low,
    pub(super) whole: Low,
    pub(super) space: u32,
    pub(super) corrected: u8,
    pub(super) map: &'a [u8],
}

/// Stream bytes as they stand in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Data<'a> {
    pub(super) offset: Low,
    pub(super) bytes: &'a [u8],
    pub(super) finish: bool,
}

/// A packet of an open connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packet<'a> {
    pub(super) wide: bool,
    pub(super) number: Low,
    pub(super) ack: Option<Ack<'a>>,
    pub(super) data: Option<Data<'a>>,
}

/// Reads little-endian fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }
    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }
}

/// A step of the agreement about the line's rate: what a rate message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Let us try this rate.
    Propose = 1,
    /// Yes; or to no rate but this lower one, or to none.
    Agree = 2,
    /// Now.
    Commit = 3,
    /// I am here, at this rate.
    Try = 4,
    /// I heard you at this rate.
    Heard = 5,
    /// It carries too little.
    Leave = 6,
}

/// Builds a rate message, without its CRC.
pub(super) fn rate_bytes(step: Step, baud: u32) -> [u8; 6] {
    let [a, b, c, d] = baud.to_le_bytes();
    [RATE, step as u8, a, b, c, d]
}

/// Parses a packet about the rate; `None` if it is another packet.
pub(super) fn parse_rate(bytes: &[u8]) -> Option<(Step, u32)> {
    let mut fields = Fields(bytes);
    if fields.u8()? != RATE {
        return None;
    }
    let number = fields.u8()?;
    let steps = [Step::Propose, Step::Agree, Step::Commit, Step::Try, Step::Heard, Step::Leave];
    let step = steps.into_iter().find(|step| *step as u8 == number)?;
    Some((step, fields.u32()?))
}

/// Parses a packet whose CRC was right (the CRC is no longer part of `bytes`).
pub(super) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let mut fields = Fields(bytes);
    let first = fields.u8()?;
    let kind = first >> 4;
    let wide = kind & WIDE != 0;
    let number = if wide {
        Low { value: fields.u32()?, bits: 32 }
    } else {
        Low { value: u32::from(first & 15) << 8 | u32::from(fields.u8()?), bits: 12 }
    };
    if kind & (DATA | ACK) == 0 || (kind & FINISH != 0 && kind & DATA == 0) {
        return None;
    }
    let ack = match (kind & ACK != 0, wide) {
        (false, _) => None,
        (true, false) => {
            let head = fields.u16()?;
            let highest = Low { value: u32::from(head & 0xfff), bits: 12 };
            let whole = Low { value: u32::from(fields.u16()?), bits: 16 };
            let space = u32::from(fields.u16()?);
            let corrected = fields.u8()?;
            Some(Ack { highest, whole, space, corrected, map: fields.bytes(usize::from(head >> 12))? })
        }
        (true, true) => {
            let map = usize::from(fields.u8()?).min(MAP_MAX);
            let highest = Low { value: fields.u32()?, bits: 32 };
            let whole = Low { value: fields.u32()?, bits: 32 };
            let space = fields.u32()?;
            let corrected = fields.u8()?;
            Some(Ack { highest, whole, space, corrected, map: fields.bytes(map)? })
        }
    };
    let data = if kind & DATA == 0 {
        None
    } else {
        let offset = if wide {
            Low { value: fields.u32()?, bits: 32 }
        } else {
            Low { value: u32::from(fields.u16()?), bits: 16 }
        };
        Some(Data { offset, bytes: fields.0, finish: kind & FINISH != 0 })
    };
    Some(Packet { wide, number, ack, data })
}

/// The front of a packet, built on the stack: everything before the stream's bytes.
pub(super) struct Front {
    bytes: [u8; OVERHEAD_MAX],
    len: usize,
}

/// What an acknowledgement says, in full numbers.
pub(super) struct AckOut {
    pub(super) highest: u32,
    pub(super) whole: u32,
    pub(super) space: u32,
    pub(super) corrected: u8,
    pub(super) map: [u8; MAP_MAX],
    pub(super) map_len: usize,
}

impl Front {
    /// Builds it. `data`: the offset, and whether the stream ends behind these bytes.
    pub(super) fn new(wide: bool, number: u32, ack: Option<&AckOut>, data: Option<(u32, bool)>) -> Self {
        let mut this = Self { bytes: [0; OVERHEAD_MAX], len: 0 };
        let mut kind = if wide { WIDE } else { 0 };
        if ack.is_some() {
            kind |= ACK;
        }
        match data {
            Some((_, true)) => kind |= DATA | FINISH,
            Some((_, false)) => kind |= DATA,
            None => {}
        }
        if wide {
            this.append(&[kind << 4]);
            this.append(&number.to_le_bytes());
        } else {
            this.append(&[kind << 4 | (number >> 8) as u8 & 15, number as u8]);
        }
        if let Some(ack) = ack {
            let len = ack.map_len.min(MAP_MAX);
            if wide {
                this.append(&[len as u8]);
                this.append(&ack.highest.to_le_bytes());
                this.append(&ack.whole.to_le_bytes());
                this.append(&ack.space.to_le_bytes());
            } else {
                this.append(&(ack.highest as u16 & 0xfff | (len as u16) << 12).to_le_bytes());
                this.append(&(ack.whole as u16).to_le_bytes());
                this.append(&(ack.space.min(0xffff) as u16).to_le_bytes());
            }
            this.append(&[ack.corrected]);
            this.append(ack.map.get(..len).unwrap_or_default());
        }
        if let Some((offset, _)) = data {
            if wide {
                this.append(&offset.to_le_bytes());
            } else {
                this.append(&(offset as u16).to_le_bytes());
            }
        }
        this
    }

    fn append(&mut self, bytes: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *slot = *byte;
        }
        self.len = (self.len + bytes.len()).min(OVERHEAD_MAX);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The hello: who speaks, which versions, which limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) lowest: u8,
    pub(super) highest: u8,
    pub(super) open: bool,
    pub(super) fec: bool,
    pub(super) changes_baud: bool,
    pub(super) note: u8,
    pub(super) nonce: u32,
    pub(super) echo: u32,
    pub(super) receive: u32,
    pub(super) payload: u16,
    pub(super) baud: u32,
    pub(super) send: u32,
}

impl Hello {
    pub(super) fn bytes(&self) -> [u8; HELLO_LEN] {
        let mut all = [0; HELLO_LEN];
        let bits = u8::from(self.open) | u8::from(self.fec) << 1 | u8::from(self.changes_baud) << 2;
        let flags = bits | (self.note & 3) << 5;
        let parts: [&[u8]; 8] = [
            &MAGIC,
            &[self.lowest, self.highest, flags, 0],
            &self.nonce.to_le_bytes(),
            &self.echo.to_le_bytes(),
            &self.receive.to_le_bytes(),
            &self.payload.to_le_bytes(),
            &self.baud.to_le_bytes(),
            &self.send.to_le_bytes(),
        ];
        for (slot, byte) in all.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        all
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.bytes(4)? != MAGIC || bytes.len() > HELLO_LEN_MAX {
            return None;
        }
        let (lowest, highest, flags, _) = (fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?);
        let (nonce, echo, receive) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (payload, baud, send) = (fields.u16()?, fields.u32()?, fields.u32()?);
        Some(Self {
            lowest,
            highest,
            open: flags & 1 != 0,
            fec: flags & 2 != 0,
            changes_baud: flags & 4 != 0,
            note: flags >> 5 & 3,
            nonce,
            echo,
            receive,
            payload,
            baud,
            send,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let ack = AckOut {
            highest: 0x0102_0304,
            whole: 0x0506_0708,
            space: 0x090a,
            corrected: 7,
            map: [0xa5; MAP_MAX],
            map_len: 2,
        };
        assert_eq!(Front::new(false, 0x1234, None, Some((0x5678, false))).bytes(), [0x42, 0x34, 0x78, 0x56]);
        assert_eq!(
            Front::new(false, 0x1abc, Some(&ack), Some((1, true))).bytes(),
            [0x7a, 0xbc, 0x04, 0x23, 0x08, 0x07, 0x0a, 0x09, 0x07, 0xa5, 0xa5, 0x01, 0x00]
        );
        assert_eq!(
            Front::new(true, 1, Some(&ack), None).bytes(),
            [0xa0, 1, 0, 0, 0, 2, 4, 3, 2, 1, 8, 7, 6, 5, 0x0a, 9, 0, 0, 7, 0xa5, 0xa5]
        );
        let hello = Hello {
            lowest: 1,
            highest: 2,
            open: true,
            fec: true,
            changes_baud: true,
            note: 2,
            nonce: 3,
            echo: 4,
            receive: 5,
            payload: 6,
            baud: 7,
            send: 8,
        };
        assert_eq!(
            hello.bytes(),
            [
                0x80, b'P', b'M', b'L', 1, 2, 0x47, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 7, 0, 0, 0,
                8, 0, 0, 0
            ]
        );
        assert_eq!(Hello::parse(&hello.bytes()), Some(hello));
        assert_eq!(rate_bytes(Step::Commit, 921_600), [0x10, 3, 0, 0x10, 0x0e, 0]);
        assert_eq!(parse_rate(&rate_bytes(Step::Leave, 9)), Some((Step::Leave, 9)));
        assert_eq!(parse(&rate_bytes(Step::Try, 9)), None, "an end that does not know it ignores it");
    }

    #[test]
    fn what_is_built_is_read() {
        let ack = AckOut {
            highest: 0xffff_ff01,
            whole: 0xffff_f000,
            space: 40_000,
            corrected: 255,
            map: [0x5a; MAP_MAX],
            map_len: 15,
        };
        for wide in [false, true] {
            for data in [None, Some((0xffff_fffe, false)), Some((3, true))] {
                let front = Front::new(wide, 0xffff_ff80, Some(&ack), data);
                let read = parse(front.bytes()).unwrap();
                assert_eq!(read.number.expand(0xffff_ff00), 0xffff_ff80);
                let got = read.ack.unwrap();
                assert_eq!(got.highest.expand(0x40), 0xffff_ff01);
                assert_eq!(got.whole.expand(0x10), 0xffff_f000);
                assert_eq!((got.space, got.corrected, got.map.len()), (40_000, 255, 15));
                assert_eq!(read.data.map(|d| (d.offset.expand(0), d.finish)), data);
            }
        }
    }

    #[test]
    fn the_nearest_number_is_taken() {
        for near in [0u32, 5, 0x7fff_ffff, 0xffff_fff0] {
            for distance in [-2047i32, -1, 0, 1, 2047] {
                let full = near.wrapping_add(distance as u32);
                assert_eq!(Low { value: full & 0xfff, bits: 12 }.expand(near), full);
            }
        }
    }

    /// Returns how long a packet of this kind is at least, by the table above, where all its fields are 0xff; `None` if
    /// there is no such kind.
    fn least(kind: u8) -> Option<usize> {
        if kind & (DATA | ACK) == 0 || kind & (DATA | FINISH) == FINISH {
            return None;
        }
        let (head, ack, offset) = if kind & WIDE != 0 { (5, 14, 4) } else { (2, 7, 2) };
        let ack = if kind & ACK != 0 { ack + MAP_MAX } else { 0 };
        Some(head + ack + if kind & DATA != 0 { offset } else { 0 })
    }

    #[test]
    fn every_short_input_is_refused_below_its_least_length_and_read_from_there_on() {
        for first in 0..=255u8 {
            for len in 0..40usize {
                let mut bytes = [0xffu8; 40];
                bytes[0] = first;
                let bytes = &bytes[..len];
                let kind = first >> 4;
                let packet = parse(bytes);
                let whole = least(kind).filter(|least| len >= *least);
                assert_eq!(packet.is_some(), whole.is_some(), "{first:#x}, {len} bytes");
                if let (Some(packet), Some(least)) = (packet, whole) {
                    assert_eq!(packet.wide, kind & WIDE != 0);
                    assert_eq!(packet.ack.map(|ack| ack.map.len()), (kind & ACK != 0).then_some(MAP_MAX));
                    let data = packet.data.map(|data| (data.bytes.len(), data.finish));
                    assert_eq!(data, (kind & DATA != 0).then_some((len - least, kind & FINISH != 0)));
                }
                assert_eq!(parse_rate(bytes), None, "no step is 0xff");
                assert_eq!(Hello::parse(bytes), None, "a hello begins with four known bytes");
            }
        }
    }

    #[test]
    fn a_rate_and_a_hello_are_refused_below_their_length() {
        let rate = rate_bytes(Step::Try, 921_600);
        for len in 0..=rate.len() {
            let expected = (len == rate.len()).then_some((Step::Try, 921_600));
            assert_eq!(parse_rate(&rate[..len]), expected, "{len}");
        }
        for number in (0..=255).filter(|number| !(1..=6).contains(number)) {
            assert_eq!(parse_rate(&[RATE, number, 1, 1, 1, 1]), None, "there is no step {number}");
        }
        let hello = Hello {
            lowest: 1,
            highest: 2,
            open: true,
            fec: false,
            changes_baud: true,
            note: 2,
            nonce: 3,
            echo: 4,
            receive: 5,
            payload: 6,
            baud: 7,
            send: 8,
        };
        // What later versions add is skipped.
        let mut bytes = [0xff; HELLO_LEN_MAX + 1];
        bytes[..HELLO_LEN].copy_from_slice(&hello.bytes());
        for len in 0..=bytes.len() {
            let expected = (HELLO_LEN..=HELLO_LEN_MAX).contains(&len).then_some(hello);
            assert_eq!(Hello::parse(&bytes[..len]), expected, "{len}");
        }
    }
}
