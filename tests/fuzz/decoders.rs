//! Every decoder of the core, over bytes that somebody may send: with check sums that are wrong, and with check sums
//! that are right (`…-sealed`), which get past the door. None panics, overflows, or goes on without end.
//!
//! What is mutated is the golden vectors and `tests/fuzz/corpus`, where a target keeps the inputs that brought something
//! new: an end or a number of steps that no earlier input had. Ordinary runs replay all of these, and try some thousand
//! mutations, always the same. `PACKMULE_EXECUTIONS=N` tries N of each target, `PACKMULE_SEED=N` others,
//! `PACKMULE_TARGET=NAME` one target alone; with `PACKMULE_BLESS=1` what is new goes into the corpus. For long runs:
//! `PACKMULE_EXECUTIONS=10000000 cargo test --release -p packmule-core --test fuzz -- --nocapture`.
//!
//! What is inside the engine is tried by `tests/fuzz_bundles.rs`.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../wire/asm.rs"]
mod asm;
mod corpus;
#[path = "../session/pages.rs"]
mod pages;
#[path = "../common/random.rs"]
#[allow(dead_code)] // Each test uses a part of it.
mod random;
mod talk;
#[path = "../wire/walk.rs"]
#[allow(dead_code)] // Each test uses a part of it.
mod walk;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::time::Instant;

use asm::vector;
use packmule_core::link::{Config, Link, WIRE_MAX};
use packmule_core::wire::{
    Certificate, Checkpoint, Columns, DecodeError, FRAME_MAX, Footer, Frame, HeaderReader, MAGIC, Message,
    Newest, RECORD_HEAD_LEN, RecordHead, Revocation, Section, Shape, crc32, take,
};
use random::{Random, number};
use walk::{SHAPES, walk, walk_bundle, walk_def};

/// How an input ended, and how far it got: two inputs of one signature teach the same.
type Signature = u64;

struct Target {
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]) -> Signature,
    /// How many executions one counts for: those that take long are tried less often.
    weight: u64,
}

const FRAMES: [&str; 12] = [
    "frame-first",
    "frame-next",
    "frame-values",
    "frame-ops",
    "frame-def",
    "frame-piece",
    "frame-verdict",
    "frame-numbers",
    "frame-schema",
    "frame-restated",
    "frame-decision",
    "frame-by-column",
];

fn frames() -> Vec<Vec<u8>> {
    FRAMES.map(vector).into()
}

/// Frames without their check sums.
fn bodies() -> Vec<Vec<u8>> {
    frames().into_iter().map(|frame| frame[..frame.len() - 4].to_vec()).collect()
}

fn coded() -> Vec<Vec<u8>> {
    vec![vector("frame-by-column")[..].split_last_chunk::<4>().unwrap().0.to_vec()]
}

fn of(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| vector(name)).collect()
}

fn definitions() -> Vec<Vec<u8>> {
    let frame = vector("frame-def");
    let parsed = Frame::parse(&frame).unwrap();
    let Some(packmule_core::wire::Block::Def(def)) = parsed.blocks().next_block().unwrap() else {
        panic!("no definition")
    };
    vec![def.to_vec()]
}

/// Records, each cut out of what holds several.
fn records(names: &[&str]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for name in names {
        let bytes = vector(name);
        let mut rest = bytes.strip_prefix(&MAGIC).unwrap_or(&bytes);
        while let Some((head, after)) = rest.split_first_chunk::<RECORD_HEAD_LEN>() {
            let Ok(head) = RecordHead::parse(head) else { break };
            let len = (head.len as usize).min(after.len());
            all.push(rest[..RECORD_HEAD_LEN + len].to_vec());
            rest = &after[len..];
        }
    }
    all
}

fn messages() -> Vec<Vec<u8>> {
    let all = records(&["session-hello", "session-messages"]);
    all.iter().map(|record| record[RECORD_HEAD_LEN..record.len() - 4].to_vec()).collect()
}

/// Gives each record in these bytes its right check sums, and the last one its length.
pub fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut rest = bytes;
    if let Some(after) = bytes.strip_prefix(&MAGIC) {
        whole.extend(MAGIC);
        rest = after;
    }
    while let Some((head, after)) = rest.split_first_chunk::<RECORD_HEAD_LEN>() {
        let asked = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
        let len = asked.clamp(4, after.len().max(4));
        let (body, next) = after.split_at(len.min(after.len()));
        let mut sealed = vec![head[0]];
        sealed.extend(&(len as u32).to_le_bytes()[..3]);
        sealed.extend(crc32(&sealed).to_le_bytes());
        let content = &body[..body.len().saturating_sub(4)];
        sealed.extend(content);
        sealed.extend(crc32(content).to_le_bytes());
        whole.extend(sealed);
        rest = next;
    }
    whole
}

fn with_crc(body: &[u8]) -> Vec<u8> {
    [body, &crc32(body).to_le_bytes()].concat()
}

/// How something was refused.
fn refused(e: DecodeError) -> Signature {
    match e {
        DecodeError::Malformed(why) => {
            why.bytes().fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 100_003)
        }
        DecodeError::Version(_) => 1,
        DecodeError::Crc => 2,
        DecodeError::Short => 3,
    }
}

/// Up to where something went: the first steps each, then by powers of two.
fn got(steps: usize) -> Signature {
    let steps = steps as u64;
    1_000_000 + if steps < 16 { steps } else { 16 + u64::from(steps.ilog2()) }
}

fn ended<T>(done: Result<T, DecodeError>) -> Signature {
    done.map_or_else(refused, |_| got(1))
}

fn frame(bytes: &[u8]) -> Signature {
    let shape = Shape { keys: SHAPES[bytes.len() % SHAPES.len()] };
    walk(bytes, shape).map_or_else(refused, got)
}

fn frame_by_column(bytes: &[u8]) -> Signature {
    let Ok(parsed) = Frame::parse(bytes) else { return 0 };
    if !parsed.is_by_column() {
        return 1;
    }
    let mut out = vec![0; FRAME_MAX];
    match parsed.plain(&mut Columns::new(), &mut out) {
        Ok(len) => frame(&out[..len]) + 10,
        Err(e) => refused(e),
    }
}

fn header(bytes: &[u8]) -> Signature {
    HeaderReader::parse(bytes).map_or_else(refused, |reader| {
        let (applied, probes) = (reader.applied().count(), reader.probes().count());
        assert_eq!((applied, probes), (reader.header.applied as usize, reader.header.probes as usize));
        let _ = reader.verify(&[9; 32]);
        got(applied + probes)
    })
}

fn checkpoint(bytes: &[u8]) -> Signature {
    ended(Checkpoint::decode(bytes).inspect(|checkpoint| {
        let chain = packmule_core::wire::Chain([3; 32]);
        let _ = checkpoint.verify(&[9; 32], &chain);
    }))
}

fn message(bytes: &[u8]) -> Signature {
    Message::decode(bytes).map_or_else(refused, |message| {
        let mut buf = vec![0; bytes.len() + 64];
        let len = message.encode(&mut buf).unwrap();
        assert_eq!(Message::decode(&buf[..len]), Ok(message));
        got(usize::from(bytes[0]))
    })
}

fn record_head(bytes: &[u8]) -> Signature {
    let Some(head) = bytes.first_chunk() else { return 0 };
    ended(RecordHead::parse(head))
}

fn record_head_sealed(bytes: &[u8]) -> Signature {
    let Some(head) = bytes.first_chunk::<4>() else { return 0 };
    let sealed = with_crc(head);
    RecordHead::parse(sealed[..].first_chunk().unwrap()).map_or_else(refused, |head| {
        assert_eq!(head.to_bytes()[..], sealed);
        got(1)
    })
}

/// A link that hears these bytes on its line, in three pieces, while time goes on.
fn link(bytes: &[u8]) -> Signature {
    let mut link: Box<Link<512, 256, 192, 12>> = Box::new(Link::new(Config::new(115_200, 0x0102_0304)));
    let (mut out, mut got_out) = ([0; WIRE_MAX], 0);
    for (n, piece) in bytes.chunks(bytes.len() / 3 + 1).enumerate() {
        let now = n as u64 * 40_000;
        link.receive_bytes(now, piece);
        link.recv(&mut [0; 64]);
        for _ in 0..4 {
            got_out += usize::from(link.transmit(now, &mut out) > 0);
        }
    }
    let mut events = 0;
    while link.event().is_some() {
        events += 1;
    }
    let stats = link.stats();
    got(got_out)
        + 100 * events
        + 1_000 * u64::from(stats.packets_received.min(9))
        + 10_000 * u64::from(stats.packets_refused.min(4))
}

const TARGETS: [Target; 20] = [
    Target { name: "frame", seeds: frames, run: frame, weight: 4 },
    Target { name: "frame-sealed", seeds: bodies, run: |bytes| frame(&with_crc(bytes)), weight: 4 },
    Target { name: "columns", seeds: || of(&["frame-by-column"]), run: frame_by_column, weight: 4 },
    Target {
        name: "columns-sealed",
        seeds: coded,
        run: |bytes| frame_by_column(&with_crc(bytes)),
        weight: 400,
    },
    Target { name: "definition", seeds: definitions, run: |bytes| ended(walk_def(bytes)), weight: 8 },
    Target { name: "checkpoint", seeds: || of(&["checkpoint"]), run: checkpoint, weight: 40 },
    Target {
        name: "certificate",
        seeds: || of(&["certificate", "certificate-fleet", "certificate-fleet-key"]),
        run: |bytes| ended(Certificate::decode(bytes)),
        weight: 40,
    },
    Target {
        name: "header",
        seeds: || of(&["header", "header-for", "header-differs"]),
        run: header,
        weight: 40,
    },
    Target {
        name: "revocation",
        seeds: || of(&["revocation", "retirement"]),
        run: |bytes| ended(Revocation::decode(bytes)),
        weight: 40,
    },
    Target {
        name: "newest",
        seeds: || of(&["newest"]),
        run: |bytes| ended(Newest::decode(bytes)),
        weight: 40,
    },
    Target {
        name: "section",
        seeds: || vec![[&[7; 16][..], &[1, 0]].concat()],
        run: |mut bytes| ended(take::<Section>(&mut bytes)),
        weight: 1,
    },
    Target {
        name: "footer",
        seeds: || {
            vec![records(&["footer"]).pop().map_or_else(|| vec![1; 38], |f| f[8..f.len() - 4].to_vec())]
        },
        run: |mut bytes| ended(take::<Footer>(&mut bytes)),
        weight: 1,
    },
    Target { name: "record-head", seeds: || of(&["record-heads"]), run: record_head, weight: 1 },
    Target {
        name: "record-head-sealed",
        seeds: || of(&["record-heads"]),
        run: record_head_sealed,
        weight: 1,
    },
    Target {
        name: "bundle",
        seeds: || of(&["bundle"]),
        run: |bytes| walk_bundle(bytes).map_or_else(refused, |whole| got(usize::from(whole))),
        weight: 40,
    },
    Target {
        name: "bundle-sealed",
        seeds: || of(&["bundle"]),
        run: |bytes| walk_bundle(&resealed(bytes)).map_or_else(refused, |whole| got(usize::from(whole))),
        weight: 40,
    },
    Target { name: "message", seeds: messages, run: message, weight: 1 },
    Target { name: "session", seeds: talk::transcripts, run: talk::session, weight: 400 },
    Target {
        name: "session-sealed",
        seeds: talk::transcripts,
        run: |bytes| talk::session(&resealed(bytes)),
        weight: 400,
    },
    Target {
        name: "link",
        seeds: || of(&["link-packets", "link-mending", "link-rate"]),
        run: link,
        weight: 40,
    },
];

/// Changes a few places; `bytes` stays short.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let below = |random: &mut Random, end: usize| random.below(end.max(1) as u64) as usize;
    for _ in 0..=random.below(4) {
        let at = below(random, bytes.len());
        let to = (at + below(random, 20)).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            // The ends of ranges, the longest varints, kinds and flags.
            2 if at < bytes.len() => bytes[at] = *random.pick(&[0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff]),
            3 => bytes.insert(at, *random.pick(&[0, 1, 0x80, 0xff, 0x40])),
            4 => drop(bytes.drain(at..to)),
            5 => bytes.truncate(to),
            6 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(*random.pick(&[1, 0xff, 8, 0xf8])),
            7 if !other.is_empty() && bytes.len() < 4_000 => {
                let from = below(random, other.len());
                let end = (from + below(random, 60)).min(other.len());
                drop(bytes.splice(at..to, other[from..end].iter().copied()));
            }
            _ if bytes.len() < 4_000 => {
                let copy = bytes[at..to].to_vec();
                let into = below(random, bytes.len());
                drop(bytes.splice(into..into, copy));
            }
            _ => {}
        }
    }
}

/// Runs an input. What goes wrong names it.
fn run(target: &Target, input: &[u8]) -> Signature {
    catch_unwind(|| (target.run)(input))
        .unwrap_or_else(|_| panic!("{}: {}", target.name, corpus::to_hex(input)))
}

/// Replays what is known of a target, then tries so many mutations of it; how many inputs brought something new.
fn fuzz(target: &Target, executions: u64) -> (usize, usize) {
    let mut inputs = (target.seeds)();
    inputs.extend(corpus::of(target.name));
    let mut known: BTreeSet<Signature> = inputs.iter().map(|input| run(target, input)).collect();
    let (had, mut new) = (inputs.len(), Vec::new());
    let mut random = Random(number("PACKMULE_SEED").unwrap_or(1) << 8 ^ target.name.len() as u64);
    let mut bytes = Vec::new();
    for _ in 0..executions {
        bytes.clone_from(random.pick(&inputs));
        let other = random.below(inputs.len() as u64) as usize;
        mutate(&mut bytes, &inputs[other], &mut random);
        if known.insert(run(target, &bytes)) && inputs.len() < had + 4_000 {
            inputs.push(bytes.clone());
            new.push(bytes.clone());
        }
    }
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        corpus::add(target.name, &new);
    }
    (known.len(), new.len())
}

#[test]
fn no_decoder_panics_or_goes_on_without_end() {
    let only = std::env::var("PACKMULE_TARGET").ok();
    let wanted = number("PACKMULE_EXECUTIONS");
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let executions = wanted.unwrap_or(8_000 / target.weight + 200);
        let begun = Instant::now();
        let (ends, new) = fuzz(target, executions);
        println!(
            "{:>20}: {executions} executions, {ends} ends, {new} new, {} ms",
            target.name,
            begun.elapsed().as_millis()
        );
        assert!(ends > 1, "{}: the mutations find nothing to do", target.name);
    }
}
