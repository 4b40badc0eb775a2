//! Bytes that came from a bad line, a torn card or an enemy: every decoder says what is wrong and
//! ends. None panics, loops, or takes damage for content.
//!
//! What is mutated is `tests/vectors`. The random tests are the same every time; `PACKMULE_SEED=N` runs them with
//! another seed, which is printed when they fail.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asm;
mod walk;

use std::env;

use asm::{Asm, frame_head, group_head, vector};
use packmule_core::model::Value;
use packmule_core::wire::{
    Block, Certificate, Chain, Checkpoint, DecodeError, FRAME_MAX, Frame, GroupDigest, HeaderReader,
    LAMPORT_MAX, RECORD_HEAD_LEN, RecordHead, Revocation, Shape, put, put_value, take, take_value,
};
use walk::{SHAPES, shape_of, walk, walk_bundle, walk_def};

const FRAMES: [&str; 9] = [
    "frame-first",
    "frame-next",
    "frame-values",
    "frame-ops",
    "frame-def",
    "frame-piece",
    "frame-verdict",
    "frame-numbers",
    "frame-schema",
];

fn with_crc(body: &[u8]) -> Vec<u8> {
    let crc = packmule_core::wire::crc32(body);
    [body, &crc.to_le_bytes()].concat()
}

fn body_of(frame: &[u8]) -> &[u8] {
    &frame[..frame.len() - 4]
}

#[test]
fn the_vectors_themselves_are_good() {
    for name in FRAMES {
        assert!(walk(&vector(name), shape_of(name)).is_ok(), "{name}");
    }
    assert_eq!(walk_bundle(&vector("bundle")), Ok(true));
}

#[test]
fn a_truncated_frame_is_refused() {
    for name in FRAMES {
        let frame = vector(name);
        for len in 0..frame.len() {
            let refused = Frame::parse(&frame[..len]).err();
            assert!(
                matches!(refused, Some(DecodeError::Crc | DecodeError::Short)),
                "{name} {len}: {refused:?}"
            );
        }
    }
}

/// As a writer with a bug would make it: cut short, with the right CRC.
#[test]
fn a_frame_cut_before_its_crc_ends_cleanly() {
    for name in FRAMES {
        let frame = vector(name);
        let body = body_of(&frame);
        let whole = walk(&frame, shape_of(name)).unwrap();
        for len in 0..body.len() {
            // Between two blocks the cut cannot be seen in the frame; the chain tells.
            if let Ok(steps) = walk(&with_crc(&body[..len]), shape_of(name)) {
                assert!(steps <= whole, "{name} {len}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_a_frame_is_refused() {
    let mut longest = frame_head(0, 1);
    longest.u8("piece", 3).uint("number", 0).run("bytes", &vec![0x5a; 4_080]).crc();
    assert!(longest.bytes.len() <= 4_096 && Frame::parse(&longest.bytes).is_ok());
    for mut frame in FRAMES.map(vector).into_iter().chain([longest.bytes]) {
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::parse(&frame).err(), Some(DecodeError::Crc), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// The distance is 6 up to 4,092 bytes; of two flips all are tried on a small frame.
#[test]
fn two_flipped_bits_in_a_small_frame_are_refused() {
    let mut frame = vector("frame-first");
    let bits = frame.len() * 8;
    for first in 0..bits {
        frame[first / 8] ^= 1 << (first % 8);
        for second in first + 1..bits {
            frame[second / 8] ^= 1 << (second % 8);
            assert_eq!(Frame::parse(&frame).err(), Some(DecodeError::Crc), "bits {first}, {second}");
            frame[second / 8] ^= 1 << (second % 8);
        }
        frame[first / 8] ^= 1 << (first % 8);
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused() {
    assert!(Frame::parse(&with_crc(&vec![1; FRAME_MAX - 3])).is_err());
    assert!(Frame::parse(&[]).is_err());
}

fn good_checkpoint(bytes: &[u8]) -> bool {
    let key = asm::key(1);
    let start = Chain::start(&key.pk, packmule_core::model::Stream::PerDevice);
    let end = [&FRAMES[..1], &FRAMES[2..4]].iter().fold(start, |chain, group| {
        let mut digest = GroupDigest::default();
        group.iter().for_each(|name| digest.add(&vector(name)));
        chain.after(&digest.finish())
    });
    Checkpoint::decode(bytes).is_ok_and(|checkpoint| checkpoint.verify(&key.pk, &end).is_ok())
}

fn good_header(bytes: &[u8]) -> bool {
    HeaderReader::parse(bytes).is_ok_and(|reader| {
        assert_eq!(reader.applied().count(), reader.header.applied as usize);
        assert_eq!(reader.probes().count(), reader.header.probes as usize);
        reader.verify(&asm::key(2).pk).is_ok()
    })
}

fn good_certificate(bytes: &[u8]) -> bool {
    Certificate::decode(bytes).is_ok()
}

/// The fleet's word can be taken away again, but nothing else be put in its place.
fn good_fleet_certificate(bytes: &[u8]) -> bool {
    Certificate::decode(bytes).is_ok_and(|certificate| certificate.fleet.is_some())
}

fn good_revocation(bytes: &[u8]) -> bool {
    Revocation::decode(bytes).is_ok()
}

type Good = fn(&[u8]) -> bool;
const SIGNED: [(&str, Good); 8] = [
    ("checkpoint", good_checkpoint),
    ("certificate", good_certificate),
    ("certificate-fleet", good_fleet_certificate),
    ("header", good_header),
    ("header-for", good_header),
    ("header-differs", good_header),
    ("revocation", good_revocation),
    ("retirement", good_revocation),
];

#[test]
fn a_truncated_signed_item_is_refused() {
    for (name, good) in SIGNED {
        let mut bytes = vector(name);
        assert!(good(&bytes), "{name}");
        for len in 0..bytes.len() {
            assert!(!good(&bytes[..len]), "{name} {len}");
        }
        bytes.push(0);
        assert!(!good(&bytes), "{name} and one byte more");
    }
}

#[test]
fn a_flipped_bit_in_a_signed_item_is_refused() {
    for (name, good) in SIGNED {
        let mut bytes = vector(name);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!good(&bytes), "{name} bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_truncated_definition_is_refused() {
    let frame = vector("frame-def");
    let parsed = Frame::parse(&frame).unwrap();
    let Some(Block::Def(def)) = parsed.blocks().next_block().unwrap() else { panic!("no definition") };
    assert_eq!(walk_def(def), Ok(()));
    for len in 0..def.len() {
        assert!(walk_def(&def[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_damaged_record_head_is_refused() {
    for head in vector("record-heads").chunks_exact(RECORD_HEAD_LEN) {
        let mut head: [u8; RECORD_HEAD_LEN] = head.try_into().unwrap();
        assert!(RecordHead::parse(&head).is_ok());
        for bit in 0..64 {
            head[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHead::parse(&head), Err(DecodeError::Crc), "bit {bit}");
            head[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_truncated_bundle_has_no_footer() {
    let bundle = vector("bundle");
    for len in 0..bundle.len() {
        assert_ne!(walk_bundle(&bundle[..len]), Ok(true), "{len}");
    }
}

#[test]
fn a_flipped_bit_in_a_bundle_is_refused() {
    let mut bundle = vector("bundle");
    for bit in 0..bundle.len() * 8 {
        bundle[bit / 8] ^= 1 << (bit % 8);
        assert!(walk_bundle(&bundle).is_err(), "bit {bit}");
        bundle[bit / 8] ^= 1 << (bit % 8);
    }
}

/// The version is looked at first: in a newer format everything else may have moved.
#[test]
fn other_versions_are_named() {
    for version in (0..=u8::MAX).filter(|version| *version != 1) {
        let expected = Some(DecodeError::Version(version.into()));
        for name in FRAMES.into_iter().filter(|_| version != 2) {
            let mut frame = vector(name);
            frame[0] = version;
            assert_eq!(Frame::parse(&with_crc(body_of(&frame))).err(), expected, "{name}");
        }
        for rest in [&[][..], &[0xff; 300]] {
            let item = [&[version], rest].concat();
            assert!(version == 2 || Frame::parse(&with_crc(&item)).err() == expected);
            assert_eq!(Checkpoint::decode(&item).err(), expected);
            assert_eq!(Certificate::decode(&item).err(), expected);
        }
        for (name, _) in &SIGNED[..3] {
            let mut item = vector(name);
            item[0] = version;
            let refused = if *name == "checkpoint" {
                Checkpoint::decode(&item).err()
            } else {
                Certificate::decode(&item).err()
            };
            assert_eq!(refused, expected, "{name}");
        }
    }
    for version in (0..=u16::MAX).filter(|version| *version != 1) {
        for rest in [&vector("header")[1..], &[0xff; 300], &[]] {
            let header = [&asm::varint(version.into()), rest].concat();
            assert_eq!(HeaderReader::parse(&header).err(), Some(DecodeError::Version(version)));
        }
    }
}

fn first_frame(seq: u64, lamport: u64, pair: u64, context: u64) -> Vec<u8> {
    let mut a = frame_head(1, seq);
    group_head(&mut a, lamport, 0, pair, &[([1; 16], context)]);
    a.crc().bytes.clone()
}

/// They are SQLite integers in the log: one above i64::MAX would come back negative.
#[test]
fn counts_end_where_sqlites_integers_do() {
    const MAX: u64 = i64::MAX as u64;
    // A stamp ends earlier, so that there is always a next one.
    assert!(Frame::parse(&first_frame(MAX, LAMPORT_MAX, MAX, MAX)).is_ok());
    for counts in [
        [0, 1, 1, 1],
        [MAX + 1, 1, 1, 1],
        [1, LAMPORT_MAX + 1, 1, 1],
        [1, 1, MAX + 1, 1],
        [1, 1, 1, u64::MAX],
    ] {
        let [seq, lamport, pair, context] = counts;
        assert!(Frame::parse(&first_frame(seq, lamport, pair, context)).is_err(), "{counts:?}");
    }
    for (stream, seq, good) in [(0, MAX, true), (0, MAX + 1, false), (2, 1, false)] {
        let at = [([1; 16], stream, seq)];
        for (applied, probes) in [(&at[..], &[][..]), (&[], &at)] {
            let header = asm::header(&asm::key(2), None, 0, applied, probes);
            assert_eq!(HeaderReader::parse(&header.bytes).is_ok(), good, "{stream} {seq}");
        }
    }
    for (first, last, stream, good) in
        [(1, MAX, 0, true), (0, 1, 0, false), (2, 1, 0, false), (1, MAX + 1, 0, false), (1, 1, 2, false)]
    {
        let mut bytes = vector("checkpoint");
        bytes[1] = stream;
        bytes[18..26].copy_from_slice(&u64::to_le_bytes(first));
        bytes[26..34].copy_from_slice(&u64::to_le_bytes(last));
        assert_eq!(Checkpoint::decode(&bytes).is_ok(), good, "{first} {last} {stream}");
    }
}

#[test]
fn a_number_of_entries_that_are_not_there_asks_for_nothing() {
    let mut a = frame_head(1, 1);
    a.uint("lamport", 1).int("wall", 0).uint("pair", 0).uint("contexts", u32::MAX.into()).crc();
    assert_eq!(Frame::parse(&a.bytes).err(), Some(DecodeError::Short));
    for (applied, probes) in [(u32::MAX, 0), (0, u32::MAX)] {
        let mut a = Asm::new();
        a.uint("version", 1).raw("sender", &[1; 16]).u8("receiver", 0).int("wall", 0);
        a.uint("applied", applied.into()).uint("probes", probes.into());
        assert_eq!(HeaderReader::parse(&a.bytes).err(), Some(DecodeError::Short));
    }
}

/// A stream with two positions would have been applied up to both.
#[test]
fn positions_twice_or_out_of_order_are_refused() {
    let key = asm::key(2);
    let [low, high] = [[1; 16], [2; 16]];
    let parses = |applied: &[asm::At], probes: &[asm::At]| {
        let header = asm::header(&key, None, 0, applied, probes);
        match HeaderReader::parse(&header.bytes) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, DecodeError::Malformed("positions out of order"));
                false
            }
        }
    };
    assert!(parses(&[(low, 0, 9), (low, 1, 3), (high, 0, 1)], &[]));
    for applied in [
        [(low, 0, 9), (low, 0, 9)],
        [(low, 0, 9), (low, 0, 10)],
        [(low, 1, 3), (low, 0, 9)],
        [(high, 0, 1), (low, 0, 9)],
    ] {
        assert!(!parses(&applied, &[]), "{applied:?}");
        assert!(parses(&[], &applied), "probes have no order");
    }
}

#[test]
fn impossible_heads_blocks_and_ops_are_refused() {
    // (flags, codec): of a newer Packmule; kept, and not read.
    for (flags, codec) in [(0x80, 0), (0xc0, 0), (0, 2), (0, 255)] {
        assert!(Frame::parse(&with_crc(&[1, flags, codec, 1])).unwrap().is_newer(), "{flags} {codec}");
    }
    // A context of version 2 that numbers its own author, and one that ends within a number.
    for context in [&[1, 1, 0xaa][..], &[1, 0x80], &[1, 0xff, 0xff, 0xff, 0xff, 0x1f, 0]] {
        let bytes = [&[2, 1, 0, 1, 0, 0, 0], context].concat();
        assert!(Frame::parse(&with_crc(&bytes)).is_err(), "{context:02x?}");
    }
    let walk_blocks =
        |blocks: &[u8], keys| walk(&with_crc(&[&[1, 0, 0, 1], blocks].concat()), Shape { keys });
    // The kinds of blocks that are not there yet, columns among them.
    for kind in [0, 4, 5, 255] {
        assert!(walk_blocks(&[kind, 0], &[true]).is_err(), "{kind}");
    }
    let rows = |op: &[u8], keys| walk_blocks(&[&[2, 0, 0, 0, 0, 0, 0, 0, 0], op, &[0]].concat(), keys);
    let two: &[bool] = &[true, false];
    assert_eq!(rows(&[1, 0, 0], two), Ok(4));
    for op in [
        // No kind but a flag; flags that there are not yet.
        &[4, 0, 0, 0][..],
        &[1 + 64, 0, 0],
        &[1 + 128, 0, 0],
        // A last image on an insert and on an update.
        &[1 + 32, 0, 0],
        &[2 + 32, 0, 0],
        // A mask with a third column of two.
        &[2 + 8, 0b110, 0, 0],
        // A value of a seventh kind; a bool that is neither; a claim that is no stamp.
        &[1, 0, 6],
        &[1, 0, 5, 2],
        &[1 + 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0],
        // A text that is longer than the frame.
        &[1, 0, 3, 0xff, 0xff, 0xff, 0xff, 0x0f],
    ] {
        assert!(rows(op, two).is_err(), "{op:02x?}");
    }
    assert!(rows(&[2 + 8, 0b11, 0, 0], two).is_ok());
    // Eight columns fill their byte.
    assert!(rows(&[&[2 + 8, 0xff][..], &[0; 8]].concat(), &[true; 8]).is_ok());
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let seed = env::var("PACKMULE_SEED").map_or(1, |seed| seed.parse().unwrap());
        println!("{test}: PACKMULE_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Changes a few places; `bytes` stays short.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let to = (at + self.below(20)).min(bytes.len());
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next() as u8,
                2 if at < bytes.len() => {
                    // The ends of ranges, the longest varints, kinds and flags.
                    bytes[at] = [0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff][self.below(9)];
                }
                3 => bytes.insert(at, [0, 1, 0x80, 0xff, self.next() as u8][self.below(5)]),
                4 => drop(bytes.drain(at..to)),
                5 => bytes.truncate(to),
                _ if bytes.len() < 4_000 => {
                    let copy = bytes[at..to].to_vec();
                    let into = self.below(bytes.len());
                    drop(bytes.splice(into..into, copy));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn mutated_frames_with_the_right_crc_never_panic_or_loop() {
    let mut random = Random::new("mutated_frames");
    let (mut good, mut bad) = (0, 0);
    for name in FRAMES {
        let frame = vector(name);
        for _ in 0..8_000 {
            let mut body = body_of(&frame).to_vec();
            random.mutate(&mut body);
            let shape =
                if random.below(2) == 0 { shape_of(name) } else { Shape { keys: SHAPES[random.below(5)] } };
            match walk(&with_crc(&body), shape) {
                Ok(_) => good += 1,
                Err(e) => {
                    assert!(is_reason(e, &body), "{e:?}: {body:02x?}");
                    bad += 1;
                }
            }
        }
    }
    println!("{good} frames were still good, {bad} were refused");
    assert!(good > 100 && bad > 1_000, "the mutations find nothing to do");
}

/// Returns whether a frame with this body and the right CRC can be refused for this reason.
fn is_reason(e: DecodeError, body: &[u8]) -> bool {
    match e {
        DecodeError::Version(version) => {
            body.first().is_some_and(|first| u16::from(*first) == version && version != 1)
        }
        DecodeError::Crc => false,
        _ => true,
    }
}

#[test]
fn random_bytes_are_refused_for_a_reason_or_read_whole() {
    let mut random = Random::new("random_bytes");
    let (mut frames, mut definitions) = (0, 0);
    for _ in 0..20_000 {
        let mut body: Vec<u8> = vec![1, random.below(8) as u8, 0, 1];
        for _ in 0..random.below(100) {
            let byte = random.next();
            body.push(if byte & 0x300 == 0 { byte as u8 } else { (byte % 6) as u8 });
        }
        let shape = Shape { keys: SHAPES[random.below(5)] };
        match walk(&with_crc(&body), shape) {
            // A frame that is read begins with blocks that are read.
            Ok(steps) => {
                frames += 1;
                let shorter = walk(&with_crc(&body[..body.len() - 1]), shape);
                assert!(shorter.is_err() || shorter.is_ok_and(|fewer| fewer < steps), "{body:02x?}");
            }
            Err(e) => assert!(is_reason(e, &body), "{e:?}: {body:02x?}"),
        }
        definitions += u32::from(walk_def(&body[4..]).is_ok());
        assert!(!good_checkpoint(&body) && !good_header(&body) && !good_certificate(&body));
    }
    println!("{frames} were frames, {definitions} definitions");
    assert!(frames > 100 && frames < 2_000, "the bytes find nothing to do, or hardly anything is refused");
}

#[test]
fn mutated_signed_items_are_refused() {
    let mut random = Random::new("mutated_signed_items");
    for (name, good) in SIGNED {
        let original = vector(name);
        for _ in 0..1_000 {
            let mut bytes = original.clone();
            random.mutate(&mut bytes);
            assert!(bytes == original || !good(&bytes), "{name}: {bytes:02x?}");
        }
    }
}

#[test]
fn mutated_definitions_are_refused_or_read_whole() {
    let mut random = Random::new("mutated_definitions");
    let frame = vector("frame-def");
    let parsed = Frame::parse(&frame).unwrap();
    let Some(Block::Def(def)) = parsed.blocks().next_block().unwrap() else { panic!("no definition") };
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut mutated = def.to_vec();
        random.mutate(&mut mutated);
        match walk_def(&mutated) {
            Ok(()) => good += 1,
            Err(e) => {
                assert!(mutated != def, "the definition itself is refused");
                assert!(!matches!(e, DecodeError::Crc | DecodeError::Version(_)), "{e:?}: it has neither");
                bad += 1;
            }
        }
    }
    println!("{good} definitions were still good, {bad} were refused");
    assert!(good > 100 && bad > 1_000, "the mutations find nothing to do");
}

#[test]
fn mutated_bundles_never_panic_or_loop() {
    let mut random = Random::new("mutated_bundles");
    let bundle = vector("bundle");
    for _ in 0..2_000 {
        let mut bytes = bundle.clone();
        random.mutate(&mut bytes);
        let done = walk_bundle(&bytes);
        assert!(bytes == bundle || done != Ok(true), "{done:?}");
    }
}

#[test]
fn values_are_read_and_written_as_postcard_does_whatever_their_bytes_are() {
    for (kind, fill, last) in
        (0..8).flat_map(|k| (0..=255).flat_map(move |f| [0, 1, 2, 127].map(|l| (k, f, l))))
    {
        for len in 1..14 {
            let mut bytes = vec![fill; len];
            (bytes[0], bytes[len - 1]) = (kind, if len == 1 { kind } else { last });
            let (mut ours, mut other) = (&bytes[..], &bytes[..]);
            let read = take_value(&mut ours);
            let expected = take::<Value<'_>>(&mut other);
            assert_eq!(format!("{read:?}"), format!("{expected:?}"), "{bytes:?}");
            let Ok(value) = read else { continue };
            assert_eq!(ours, other, "{bytes:?}");
            for room in 0..40 {
                let (mut ours, mut other) = ([0; 40], [0; 40]);
                let len = put_value(&mut ours[..room], &value).ok();
                assert_eq!(len, put(&mut other[..room], &value).ok(), "{value:?}");
                let len = len.unwrap_or(0);
                assert_eq!(ours[..len], other[..len], "{value:?}");
            }
        }
    }
}
