//! Frames by column: what is coded comes back bit for bit, and what nobody coded is refused without harm.
//!
//! The random tests print their seed; `PACKMULE_SEED=N` replays one, `PACKMULE_SCHEDULES=N` runs so many.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asm;
#[path = "../common/random.rs"]
#[allow(dead_code)] // Each test uses a part of it.
mod random;
mod sources;

use asm::vector;
use packmule_core::model::Value;
use packmule_core::wire::{
    Block, Columns, DefId, FRAME_MAX, Frame, FrameFlags, FrameWriter, GroupStart, OpHead, OpKind, Ops, Shape,
};
use random::{Random, seeds};
use sources::{both, def_id, shape, uuid};

/// A frame is as long as any may be.
const ROOM: u64 = FRAME_MAX as u64 - 64;

fn plain_of(coded: &[u8]) -> Vec<u8> {
    let mut out = vec![0; FRAME_MAX];
    let len = Frame::parse(coded).unwrap().plain(&mut Columns::new(), &mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn what_is_coded_comes_back_bit_for_bit() {
    let mut shorter = 0;
    for seed in seeds(100) {
        let (plain, coded) = both(&mut Random(seed), ROOM);
        assert!(coded.len() <= plain.len(), "seed {seed}");
        let frame = Frame::parse(&coded).unwrap();
        if frame.is_by_column() {
            shorter += 1;
            assert!(!frame.is_newer());
            assert!(plain_of(&coded) == plain, "seed {seed}: {} bytes, {} coded", plain.len(), coded.len());
        } else {
            assert!(coded == plain, "seed {seed}");
        }
    }
    assert!(shorter > 0, "none was coded");
}

#[test]
fn what_nobody_coded_is_refused_or_read_within_the_frame() {
    let mut columns = Columns::new();
    let mut out = vec![0; FRAME_MAX];
    let (mut read, mut refused) = (0, 0);
    for seed in seeds(100) {
        let mut random = Random(seed);
        let (_, mut coded) = both(&mut random, ROOM);
        coded[2] = 1;
        for _ in 0..20 {
            let at = 4 + random.below(coded.len() as u64 - 8) as usize;
            coded[at] ^= 1 << random.below(8);
            if random.chance(20) {
                coded.truncate(at + 5);
            }
            let end = coded.len() - 4;
            let crc = packmule_core::wire::crc32(&coded[..end]).to_le_bytes();
            coded[end..].copy_from_slice(&crc);
            // A changed byte of the head may end it before its blocks.
            let Ok(frame) = Frame::parse(&coded) else { break };
            match frame.plain(&mut columns, &mut out) {
                Ok(len) => {
                    read += 1;
                    assert!(Frame::parse(&out[..len]).is_ok(), "seed {seed}");
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

#[test]
fn a_frame_moved_to_another_place_has_the_same_blocks() {
    for seed in seeds(20) {
        let (plain, coded) = both(&mut Random(seed), ROOM);
        let frame = Frame::parse(&coded).unwrap();
        let group = frame.group.map(|head| GroupStart {
            lamport: head.lamport,
            wall: head.wall,
            pair: 0,
            context: &[],
        });
        let mut buf = vec![0; FRAME_MAX];
        let (len, less) = frame.moved(&mut buf, 2, group).unwrap();
        assert_eq!(less, 0);
        let moved = if frame.is_by_column() { plain_of(&buf[..len]) } else { buf[..len].to_vec() };
        let blocks = |frame: &[u8]| frame[4..frame.len() - 4].to_vec();
        assert!(blocks(&moved) == blocks(&plain), "seed {seed}");
    }
}

/// As the page has it: whoever changes the coding finds here what the file is to have.
#[test]
fn the_vector_is_the_frame_of_ops_by_column() {
    let (coded, plain) = (vector("frame-by-column"), vector("frame-ops"));
    assert!(coded.len() < plain.len());
    let keys = [true, false, false, false, false, false, false, false, true];
    let mut buf = vec![0; FRAME_MAX];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 3, None).unwrap();
    let frame = Frame::parse(&plain).unwrap();
    let mut blocks = frame.blocks();
    while let Some(Block::Rows { def, body, offset }) = blocks.next_block().unwrap() {
        let mut ops = Ops::new(body, offset, Shape { keys: &keys });
        while let Some(op) = ops.next_op().unwrap() {
            writer.op(def, &op.head, op.values(Shape { keys: &keys }).map(|(_, value)| value)).unwrap();
        }
        blocks.resume(ops.rest());
    }
    let shape = |_: DefId, into: &mut [bool]| {
        into[..keys.len()].copy_from_slice(&keys);
        Some(keys.len())
    };
    let mut out = vec![0; FRAME_MAX];
    let again = writer.finish_by_column(&mut Columns::new(), &mut out, shape);
    assert!(again == coded, "{}", again.iter().map(|byte| format!("{byte:02x} ")).collect::<String>());
    assert!(plain_of(&coded) == plain);
}

/// Hourly readings of a station, as applications write them.
fn readings(hours: u64) -> (usize, usize) {
    let mut buf = vec![0; FRAME_MAX];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
    let mut random = Random(1);
    let mut temperature = 120;
    for hour in 0..hours {
        temperature += random.below(9) as i64 - 4;
        let at = format!("2026-11-{:02} {:02}:00:00", hour / 24 % 28 + 1, hour % 24);
        let values = [
            Value::Int(hour as i64 + 1),
            Value::Text(at.as_bytes()),
            Value::Text(b"roof"),
            Value::real(temperature as f64 / 10.0),
            Value::Null,
        ];
        writer.op(def_id(0), &OpHead::plain(OpKind::Insert), values.into_iter()).unwrap();
    }
    let mut out = vec![0; FRAME_MAX];
    let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).len();
    (writer.finish().len(), coded)
}

#[test]
fn readings_take_about_a_byte_a_row() {
    let (plain, coded) = readings(1_000);
    println!("1,000 rows: {plain} bytes plain, {coded} by column");
    // 9 steps of the temperature are 0.4 bytes; all else follows from the row before.
    assert!(coded < 900, "{coded}");
    assert!(plain > 40_000, "{plain}");
}

/// The first date of a column is told from the form that it has, by its digits.
#[test]
fn the_first_date_of_a_frame_takes_less_than_any_text() {
    let row = |text: &str| {
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        for text in [text, text] {
            let values = [Value::Text(text.as_bytes())].into_iter();
            writer.op(def_id(2), &OpHead::plain(OpKind::Insert), values).unwrap();
        }
        let mut out = vec![0; FRAME_MAX];
        let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).to_vec();
        assert!(plain_of(&coded) == writer.finish(), "{text}");
        coded.len()
    };
    let day = ["2026-11-29", "2026/11/29"];
    let times = ["", " 13:45", " 13:45:07", "T13:45:07", "T13:45:07Z"].iter();
    for text in day.iter().flat_map(|day| times.clone().map(move |time| format!("{day}{time}"))) {
        let (dated, other) = (row(&text), row(&text.replace(['-', '/'], "|")));
        let has_form = text.contains('-') || !text.contains('T');
        let least = if has_form { other - text.len() / 4 } else { other + 2 };
        assert!(dated <= least, "{text}: {dated} bytes, {other} as any text");
    }
}

/// What rows with one key each, and nothing that can be learned in it, take by column, in bytes.
fn keys(rows: usize, text: bool, key: impl Fn(&mut Random) -> Vec<u8>) -> f64 {
    let mut buf = vec![0; FRAME_MAX];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
    let mut random = Random(1);
    for _ in 0..rows {
        let key = key(&mut random);
        let key = if text { Value::Text(&key) } else { Value::Blob(&key) };
        writer.op(def_id(2), &OpHead::plain(OpKind::Insert), [key].into_iter()).unwrap();
    }
    let mut out = vec![0; FRAME_MAX];
    let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).len() as f64 / rows as f64;
    println!("{rows} rows: {coded:.2} bytes a row");
    coded
}

#[test]
fn a_column_of_few_values_takes_what_is_random_in_it() {
    let one_of_five = |random: &mut Random| {
        [b"Ideal".to_vec(), b"Premium".to_vec(), b"Good".to_vec(), b"Fair".to_vec(), b"Very Good".to_vec()]
            [random.below(5) as usize]
            .clone()
    };
    // 2.32 binary digits are .29 bytes; and the frame's head, and what is learned at first.
    let taken = keys(3_000, true, one_of_five);
    assert!(taken < 0.33, "{taken}");
}

/// Rows of a key, a name that is never the same, and the place that the name begins with.
#[test]
fn a_text_that_another_one_has_takes_next_to_nothing() {
    let rows = |place: fn(&str) -> &str| {
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        let mut random = Random(1);
        for _ in 0..400 {
            let letters: String = (0..10).map(|_| char::from(b'g' + random.below(16) as u8)).collect();
            let name = format!("{letters} Municipal");
            let values =
                [Value::Text(name.as_bytes()), Value::Int(1), Value::Text(place(&letters).as_bytes())];
            writer.op(def_id(1), &OpHead::plain(OpKind::Insert), values.into_iter()).unwrap();
        }
        let mut out = vec![0; FRAME_MAX];
        let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).to_vec();
        assert!(plain_of(&coded) == writer.finish());
        coded.len() as f64 / 400.0
    };
    let (alone, both) = (rows(|_| "x"), rows(|letters| letters));
    println!("{alone:.2} bytes a row without it, {both:.2} with it");
    // 10 letters of half a byte are what is random in a row.
    assert!(alone < 6.2, "{alone}");
    assert!(both < alone + 0.6, "{both}");
}

/// The third number of a row is the sum of the other two, but for what is measured wrong.
#[test]
fn a_number_that_follows_from_others_takes_what_it_misses_by() {
    let rows = |third: fn(i64, i64, i64) -> i64| {
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        let mut random = Random(1);
        for _ in 0..2_000 {
            let [a, b, noise] = [1_000, 1_000, 4].map(|below| random.below(below) as i64);
            let values = [Value::Int(a), Value::Int(b), Value::Int(third(a, b, noise))];
            writer.op(def_id(1), &OpHead::plain(OpKind::Insert), values.into_iter()).unwrap();
        }
        let mut out = vec![0; FRAME_MAX];
        let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).to_vec();
        assert!(plain_of(&coded) == writer.finish());
        coded.len() as f64 * 8.0 / 2_000.0
    };
    let (two, sums) = (rows(|_, _, _| 0), rows(|a, b, noise| a + 2 * b + noise));
    println!("two numbers take {two:.2} bits a row, with their sum {sums:.2}");
    // 2 bits of noise are 2 bits; and what is learned at first.
    assert!(sums < two + 3.0, "{sums}, {two}");
}

/// Degrees that were minutes and seconds once are so many thousandths of a second: 28 bits at most, not 34.
#[test]
fn degrees_take_what_seconds_do() {
    let rows = |parts: f64| {
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        let mut random = Random(1);
        for _ in 0..1_000 {
            let degrees = random.below((90.0 * parts) as u64) as f64 / parts;
            let value = Value::real((degrees * 1e8).round() / 1e8);
            writer.op(def_id(2), &OpHead::plain(OpKind::Insert), [value].into_iter()).unwrap();
        }
        let mut out = vec![0; FRAME_MAX];
        let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).to_vec();
        assert!(plain_of(&coded) == writer.finish());
        coded.len() as f64 * 8.0 / 1_000.0
    };
    let (seconds, any) = (rows(3_600_000.0), rows(1e8));
    println!("{seconds:.2} bits of seconds, {any:.2} of any");
    assert!(seconds < 29.5 && any > 32.5, "{seconds} {any}");
}

#[test]
fn ids_of_random_digits_take_what_is_random_in_them() {
    let hex = |random: &mut Random| format!("{:016x}", random.next()).into_bytes();
    let uuids = |random: &mut Random| uuid(random.next(), random.next()).into_bytes();
    let bytes = |random: &mut Random| random.next().to_le_bytes().to_vec();
    // 8 bytes; 120 bits; 8 bytes; and the frame's head, and what is learned at first.
    let [hex, uuids, bytes] = [keys(1_000, true, hex), keys(1_000, true, uuids), keys(1_000, false, bytes)];
    assert!(hex < 8.3, "{hex}");
    assert!(uuids < 15.5, "{uuids}");
    assert!(bytes < 8.2, "{bytes}");
}

#[test]
fn a_picture_takes_what_it_is_long() {
    let picture = |random: &mut Random| (0..30_000).map(|_| random.next() as u8).collect();
    let taken = keys(1, false, picture);
    assert!(taken < 30_000.0 * 1.01, "{taken}");
}

/// A frame of some dozen bytes can say a whole frame, and no more than that.
#[test]
fn a_small_frame_says_no_more_than_a_frame() {
    let (_, coded) = {
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        while writer.op(def_id(2), &OpHead::plain(OpKind::Delete), [Value::Int(1)].into_iter()).is_ok() {}
        let mut out = vec![0; FRAME_MAX];
        let coded = writer.finish_by_column(&mut Columns::new(), &mut out, shape).to_vec();
        (writer.finish().len(), coded)
    };
    println!("{} bytes say {}", coded.len(), plain_of(&coded).len());
    assert!(coded.len() < 200 && plain_of(&coded).len() > 60_000);
    // What goes on after that is refused where there is no room, whatever stands in it.
    let mut out = vec![0; 10_000];
    assert!(Frame::parse(&coded).unwrap().plain(&mut Columns::new(), &mut out).is_err());
    for byte in [0, 0x55, 0xff] {
        let mut endless = coded[..10].to_vec();
        endless.extend([byte; 2_000]);
        endless.extend(packmule_core::wire::crc32(&endless).to_le_bytes());
        let mut out = vec![0; FRAME_MAX];
        // It is refused, or ends within a frame; either way it ends.
        let _ = Frame::parse(&endless).map(|frame| frame.plain(&mut Columns::new(), &mut out));
    }
}

/// Of wide tables without rows, one after the other, each tells its columns: that would cost the reader far more than what
/// it is on the wire. Such a frame is not coded, and refused where somebody codes it.
#[test]
fn wide_tables_are_told_in_a_frame_so_many_times() {
    let wide = |_: DefId, keys: &mut [bool]| {
        keys[..2_000].fill(false);
        keys[0] = true;
        Some(2_000)
    };
    for (blocks, is_coded) in [(8, true), (9, false), (4_000, false)] {
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        for n in 0..blocks {
            writer.op(def_id(n % 2), &OpHead::plain(OpKind::Delete), [Value::Int(1)].into_iter()).unwrap();
        }
        let mut out = vec![0; FRAME_MAX];
        let coded = writer.finish_by_column(&mut Columns::new(), &mut out, wide).to_vec();
        assert_eq!(Frame::parse(&coded).unwrap().is_by_column(), is_coded, "{blocks}");
        if is_coded {
            assert!(plain_of(&coded) == writer.finish());
        }
    }
}

/// All frames that a seed makes, coded. What the vector is too small to reach, the modes that a coder turns to after some
/// dozens of values, shows here; who changes it changes the format.
#[test]
fn the_coding_of_many_values_is_as_it_was() {
    let mut all = Vec::new();
    for seed in 1..40 {
        all.extend(both(&mut Random(seed), ROOM).1);
    }
    assert_eq!((all.len(), packmule_core::wire::crc32(&all)), (482_706, 806_357_237));
}
