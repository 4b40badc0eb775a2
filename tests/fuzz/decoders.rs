//! Every decoder of the core, over bytes that somebody may send: with check sums that are wrong, and with check sums
//! that are right (`…-sealed`), which get past the door. None panics, overflows, or goes on without end.
//!
//! How it goes: `tests/fuzz/targets.rs`. For long runs:
//! `PACKMULE_EXECUTIONS=10000000 cargo test --release -p packmule-core --test fuzz -- --nocapture`.
//!
//! What is inside the engine is tried by `tests/fuzz_bundles.rs`, what comes over a network by `src/carry/net/fuzz.rs`, the
//! file of `packmule run` beside its reader.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../wire/asm.rs"]
mod asm;
mod line;
#[path = "../session/pages.rs"]
mod pages;
#[path = "../wire/sources.rs"]
mod sources;
mod talk;
mod targets;
#[path = "../wire/walk.rs"]
#[allow(dead_code)] // Each test uses a part of it.
mod walk;

use asm::vector;
use packmule_core::wire::{
    Certificate, Checkpoint, Columns, DecodeError, FRAME_MAX, Footer, Frame, HeaderReader, MAGIC, Message,
    Newest, RECORD_HEAD_LEN, RecordHead, Revocation, Section, Shape, crc32, take,
};
use targets::random;
use targets::{Signature, Target, got, try_all};
use walk::{SHAPES, walk, walk_bundle, walk_def};

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

/// Frames by column without their check sums: many short ones, and some in which a value has had time to be told in every way.
fn coded() -> Vec<Vec<u8>> {
    let rooms = std::iter::repeat_n(1_500, 60).chain(std::iter::repeat_n(20_000, 6));
    let made = rooms.zip(1..).map(|(room, seed)| sources::both(&mut random::Random(seed), room).1);
    let all =
        made.chain([vector("frame-by-column")]).filter(|frame| Frame::parse(frame).unwrap().is_by_column());
    all.map(|frame| frame[..].split_last_chunk::<4>().unwrap().0.to_vec()).collect()
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

const TARGETS: [Target; 21] = [
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
        run: line::link,
        weight: 40,
    },
    Target { name: "link-sealed", seeds: line::packets, run: line::sealed, weight: 40 },
];

#[test]
fn no_decoder_panics_or_goes_on_without_end() {
    try_all(&TARGETS);
}
