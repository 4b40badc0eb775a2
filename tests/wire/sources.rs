//! Frames with whatever a frame may have: columns of values that follow from each other, and of some that do not.

use packmule_core::model::{Big, DeviceId, RealBits, Value};
use packmule_core::wire::{
    Columns, DefId, FRAME_MAX, FrameFlags, FrameWriter, GroupStart, KeptRun, OpHead, OpKind, Span,
};

use crate::random::Random;

/// The columns that are keys, of three tables.
const SHAPES: [&[bool]; 3] = [&[true, false, false, false, false], &[false, true, true], &[true]];

pub fn def_id(table: usize) -> DefId {
    DefId([table as u8 + 1; 8])
}

pub fn shape(id: DefId, keys: &mut [bool]) -> Option<usize> {
    let shape = SHAPES.get(usize::from(id.0[0]).checked_sub(1)?)?;
    keys[..shape.len()].copy_from_slice(shape);
    Some(shape.len())
}

/// An id as programs write it: a UUID of version 4.
pub fn uuid(a: u64, b: u64) -> String {
    let (a, b) = (format!("{a:016x}"), format!("{b:016x}"));
    format!("{}-{}-4{}-8{}-{}", &a[..8], &a[8..12], &a[13..], &b[1..4], &b[4..])
}

/// What a column has: values that follow from each other, and some that do not.
struct Source {
    style: u64,
    count: i64,
    text: Vec<u8>,
}

const STYLES: u64 = 18;

impl Source {
    fn new(random: &mut Random) -> Self {
        Self { style: random.below(STYLES), count: random.below(1_000) as i64, text: Vec::new() }
    }

    fn value(&mut self, random: &mut Random) -> Value<'_> {
        if random.chance(5) {
            self.style = random.below(STYLES);
        }
        self.count = self.count.wrapping_add(random.below(7) as i64 - 2);
        let count = self.count;
        self.text.clear();
        match self.style {
            0 => Value::Null,
            1 => Value::Int(count),
            2 => Value::Int(random.next() as i64),
            3 => Value::real(count as f64 / 100.0),
            4 => Value::real(count as f64 * 1.15078),
            5 => Value::Real(RealBits(random.next())),
            6 => *random.pick(&[
                Value::real(-0.0),
                Value::real(f64::INFINITY),
                Value::real(f64::NAN),
                Value::Int(i64::MIN),
                Value::Int(i64::MAX),
                Value::real(1e300),
                Value::real(0.1 + 0.2),
                Value::Text(b""),
                Value::Blob(b""),
                Value::Text(b"0"),
            ]),
            7 => {
                let (day, hour) = (count.rem_euclid(28) + 1, count.rem_euclid(24));
                self.text.extend(format!("2026-11-{day:02}T{hour:02}:00:00Z").bytes());
                Value::Text(&self.text)
            }
            8 => {
                self.text.extend(format!("sensor-{}", count.rem_euclid(12)).bytes());
                Value::Text(&self.text)
            }
            9 => {
                let len = if random.chance(10) { 200 } else { 16 };
                self.text.extend((0..len).map(|_| random.next() as u8));
                if random.chance(50) { Value::Blob(&self.text) } else { Value::Text(&self.text) }
            }
            10 => {
                self.text.extend(format!("{}-{:018}", "9".repeat(20), count.unsigned_abs()).bytes());
                Value::Text(&self.text)
            }
            11 => {
                self.text.extend(uuid(random.next(), random.next() | count as u64).bytes());
                match random.below(40) {
                    0 => self.text.make_ascii_uppercase(),
                    1 => self.text.truncate(random.below(37) as usize),
                    2 => self.text[4] = b'g',
                    _ => {}
                }
                Value::Text(&self.text)
            }
            13 => {
                let words: [&[u8]; 5] = [b"Ideal", b"Premium", b"Good", b"Fair", b""];
                Value::Text(words[random.below(5) as usize])
            }
            12 => {
                self.text.extend((0..700).map(|at| if at % 300 < 100 { 7 } else { random.next() as u8 }));
                Value::Blob(&self.text)
            }
            // Degrees that were seconds, with three decimals of theirs, to eight places.
            14 => Value::real((random.below(600_000_000) as f64 / 3_600_000.0 * 1e8).round() / 1e8),
            15 => Value::real((random.below(40) as f64).sqrt()),
            16 => {
                let name = ["Bay", "Lake", "Saint", "Port"][random.below(4) as usize];
                self.text.extend(format!("{name} {}", uuid(count as u64 % 7, 0).split_off(30)).bytes());
                match random.below(20) {
                    0 => self.text.push(0),
                    1 => self.text.resize(120 + random.below(16) as usize, b'x'),
                    2 => self.text.extend(b" Municipal"),
                    _ => {}
                }
                Value::Text(&self.text)
            }
            _ => Value::Big(Big {
                text: random.chance(50),
                number: random.next() as u32,
                back: random.below(9) as u32,
                len: random.next(),
                sha256: [random.next() as u8; 32],
            }),
        }
    }
}

/// Writes an op as a seal would; returns whether it fitted.
fn write_op(writer: &mut FrameWriter<'_>, random: &mut Random, table: usize, sources: &mut [Source]) -> bool {
    let keys = SHAPES[table];
    let kind = *random.pick(&[OpKind::Insert, OpKind::Insert, OpKind::Update, OpKind::Delete, OpKind::Keep]);
    let plain = kind == OpKind::Keep || random.chance(60);
    let mask = [random.below(1 << keys.len()) as u8];
    let mut head = OpHead::plain(kind);
    if !plain {
        head.claim = random.chance(30).then(|| random.next() >> 1);
        head.columns = random.chance(50).then_some(&mask[..]);
        head.wall = random.chance(40).then(|| random.next() as i64 >> random.below(60));
        head.image = kind == OpKind::Delete && random.chance(50);
    }
    let all = !(kind == OpKind::Keep || kind == OpKind::Delete && !head.image);
    let carried = |at: usize| keys[at] || all && head.columns.is_none_or(|mask| mask[0] >> at & 1 == 1);
    let values: Vec<Value<'_>> = sources
        .iter_mut()
        .enumerate()
        .filter(|(at, _)| *at < keys.len() && carried(*at))
        .map(|(_, source)| source.value(random))
        .collect();
    writer.op(def_id(table), &head, values.into_iter()).is_ok()
}

/// Fills a frame with whatever a frame may have.
fn fill(writer: &mut FrameWriter<'_>, random: &mut Random) {
    let mut sources: Vec<Vec<Source>> =
        SHAPES.iter().map(|keys| keys.iter().map(|_| Source::new(random)).collect()).collect();
    let mut table = 0;
    for _ in 0..random.below(400) {
        if random.chance(3) {
            table = random.below(3) as usize;
        }
        let device = DeviceId([random.next() as u8; 16]);
        let other = match random.below(200) {
            0 => writer.def(&vec![random.next() as u8; random.below(90) as usize]),
            1 => writer.retire(device),
            2 => writer.came_back(device),
            3 => writer.keep(&[KeptRun { device, first: 1, last: random.next() >> 1 | 1 }; 3]),
            4 => writer.span(&Span { def: def_id(0), from: b"", to: b"abc" }),
            5 => writer.piece(random.next() as u32, b"a piece of a large value").map(|_| ()),
            _ => Ok(()),
        };
        if other.is_err() || !write_op(writer, random, table, &mut sources[table]) {
            return;
        }
    }
}

/// A frame in its plain form, and by column; the first is no longer than this and 64 bytes.
pub fn both(random: &mut Random, room: u64) -> (Vec<u8>, Vec<u8>) {
    let mut buf = vec![0; 64 + random.below(room) as usize];
    let group = GroupStart { lamport: 7, wall: 9, pair: 0, context: &[] };
    let first = random.chance(50).then_some(group);
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 3, first).unwrap();
    fill(&mut writer, random);
    let mut out = vec![0; FRAME_MAX];
    let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).to_vec();
    (writer.finish().to_vec(), coded)
}
