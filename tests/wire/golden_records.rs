//! Golden vectors, as `golden.rs` has them of frames: of what stands around frames, from a checkpoint to a whole bundle.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod asm;

use asm::{Asm, frame_head, group_head};
use packmule_core::model::{DeviceId, Stream, Value};
use packmule_core::wire::{
    Certificate, Chain, Checkpoint, DefId, Footer, Frame, GroupDigest, Header, HeaderReader, MAGIC,
    NEWEST_LEN, Newest, Position, Probe, REVOCATION_MAX, RecordHead, RecordKind, Revocation, Section, put,
    take, vector_digest, write_record,
};

const DEF: DefId = DefId([0xd0, 1, 2, 3, 4, 5, 6, 7]);

#[test]
fn checkpoint_over_two_frames() {
    let key = asm::key(1);
    let frames = [&asm::vector("frame-values")[..], &asm::vector("frame-ops")];
    let start = asm::chain_start(&key, 1);
    let prev = asm::chain_after(start, &[&asm::vector("frame-first")]);
    let a = asm::checkpoint(&key, 1, 2, &frames, prev);
    a.matches_file(
        "checkpoint",
        "Closes frame-values and frame-ops, numbers 2 and 3 after frame-first; stream own, seed 01.",
    );

    let chain = Chain::start(&key.pk, Stream::PerDevice);
    assert_eq!(chain.0, start);
    let digest = |frames: &[&[u8]]| {
        let mut digest = GroupDigest::default();
        frames.iter().for_each(|frame| digest.add(frame));
        digest.finish()
    };
    let before = chain.after(&digest(&[&asm::vector("frame-first")]));
    let end = before.after(&digest(&frames));
    let author = DeviceId::of_key(&key.pk);
    let made = Checkpoint::sign(&key.sk, author, Stream::PerDevice, 2, 3, before, &end);
    let mut buf = [0; 130];
    assert_eq!(made.encode(&mut buf), Ok(130));
    assert_eq!(buf[..], a.bytes);

    assert_eq!(Checkpoint::decode(&a.bytes), Ok(made));
    assert!(made.verify(&key.pk, &end).is_ok());
    assert!(made.verify(&key.pk, &before).is_err() && made.verify(&asm::key(2).pk, &end).is_err());

    // Without its frames: the chain after them goes with it.
    let mut newest = Asm::new();
    newest.all(&a).raw("chain after", &end.0);
    newest.matches_file("newest", "The checkpoint of checkpoint.hex, with the chain after its frames.");
    let shown = Newest { checkpoint: made, end };
    let mut buf = [0; NEWEST_LEN];
    assert_eq!(shown.encode(&mut buf), Ok(162));
    assert_eq!(buf[..], newest.bytes);
    assert_eq!(Newest::decode(&newest.bytes), Ok(shown));
    assert!(shown.verify(&key.pk).is_ok() && shown.verify(&asm::key(2).pk).is_err());
    assert!(Newest { end: before, ..shown }.verify(&key.pk).is_err());
    assert!(Newest::decode(&newest.bytes[1..]).is_err() && Newest::decode(&[]).is_err());
}

#[test]
fn certificates() {
    let (device, fleet) = (asm::key(1), asm::key(9));
    let mut buf = [0; 512];
    let own = Certificate::new(&device.sk, "Brücke 7", false).unwrap();
    let a = asm::certificate(&device, "Brücke 7", false, None);
    a.matches_file("certificate", "A device's own certificate, seed 01.");
    let len = own.encode(&mut buf).unwrap();
    assert_eq!(buf[..len], a.bytes);
    assert_eq!(Certificate::decode(&a.bytes), Ok(own));
    assert_eq!(own.device().0, asm::id(&device));

    let name = "n".repeat(64);
    let vouched = Certificate::new(&device.sk, &name, true).unwrap().vouched(&fleet.sk).unwrap();
    let a = asm::certificate(&device, &name, true, Some(&fleet));
    a.matches_file(
        "certificate-fleet",
        "A base's certificate with the longest name, seed 01, vouched for by fleet seed 09.",
    );
    let len = vouched.encode(&mut buf).unwrap();
    assert_eq!(buf[..len], a.bytes);
    assert_eq!(Certificate::decode(&a.bytes), Ok(vouched));

    let renamed = Certificate::numbered(&device.sk, "mast", true, 5).unwrap();
    let a = asm::certificate_as(&device, "mast", 5 << 1 | 1, None);
    let len = renamed.encode(&mut buf).unwrap();
    assert_eq!(buf[..len], a.bytes);
    assert_eq!(Certificate::decode(&a.bytes), Ok(renamed));
    assert!(Certificate::numbered(&device.sk, "mast", true, 127).is_err(), "that serial is of fleet keys");

    let next = Certificate::succession(&device.sk, &fleet.sk).unwrap();
    let a = asm::certificate_as(&device, "fleet key", 127 << 1, Some(&fleet));
    a.matches_file("certificate-fleet-key", "The fleet key of seed 01 follows that of seed 09.");
    let len = next.encode(&mut buf).unwrap();
    assert_eq!(buf[..len], a.bytes);
    assert!(Certificate::decode(&a.bytes).unwrap().is_fleet_key() && !renamed.is_fleet_key());

    for name in ["", &"n".repeat(65), "a\tb", "a\u{85}b"] {
        assert!(Certificate::new(&device.sk, name, false).is_err(), "{name:?}");
        assert!(
            Certificate::decode(&asm::certificate(&device, name, false, None).bytes).is_err(),
            "{name:?}"
        );
    }
}

#[test]
fn revocations() {
    let (fleet, device) = (asm::key(9), asm::id(&asm::key(1)));
    let mut buf = [0; REVOCATION_MAX];
    let made = Revocation::sign(&fleet.sk, DeviceId(device), true, 1_795_747_203_000).unwrap();
    let a = asm::revocation(&fleet, device, true, 1_795_747_203_000);
    a.matches_file("revocation", "Device seed 01 revoked by fleet seed 09.");
    let len = made.encode(&mut buf).unwrap();
    assert_eq!(buf[..len], a.bytes);
    assert_eq!(Revocation::decode(&a.bytes), Ok(made));
    assert!(made.encode(&mut [0; 100]).is_err());

    // The longest. A higher number is not written, and not read.
    let most = i64::MAX as u64;
    let back = Revocation::sign(&fleet.sk, DeviceId(device), false, most).unwrap();
    let a = asm::revocation(&fleet, device, false, most);
    let len = back.encode(&mut buf).unwrap();
    assert_eq!(buf[..len], a.bytes);
    assert_eq!(Revocation::decode(&a.bytes), Ok(back));
    assert!(Revocation::sign(&fleet.sk, DeviceId(device), true, most + 1).is_err());
    assert!(Revocation::decode(&asm::revocation(&fleet, device, true, most + 1).bytes).is_err());

    // The later one counts; of two alike, the one that revokes.
    let at = |revoked, number| Revocation::sign(&fleet.sk, DeviceId(device), revoked, number).unwrap();
    assert!(back.supersedes(&made) && !made.supersedes(&back) && !made.supersedes(&made));
    assert!(at(true, 5).supersedes(&at(false, 5)) && !at(false, 5).supersedes(&at(true, 5)));
}

#[test]
fn retirements() {
    let (fleet, device) = (asm::key(9), asm::id(&asm::key(1)));
    let mut buf = [0; REVOCATION_MAX];
    for (retired, says) in [(true, 3), (false, 2)] {
        let made =
            Revocation::sign_retirement(&fleet.sk, DeviceId(device), retired, 1_795_747_203_000).unwrap();
        let a = asm::retirement(&fleet, device, says, 1_795_747_203_000);
        if retired {
            a.matches_file("retirement", "Device seed 01 retired by fleet seed 09.");
        }
        let len = made.encode(&mut buf).unwrap();
        assert_eq!(buf[..len], a.bytes);
        assert_eq!(Revocation::decode(&a.bytes), Ok(made));
        assert!(made.retirement && made.revoked == retired);
    }
    // What a later version may say is not taken for something else.
    assert!(Revocation::decode(&asm::retirement(&fleet, device, 4, 5).bytes).is_err());
}

fn check_header(
    name: &str,
    title: &str,
    (to, base): (Option<[u8; 16]>, Option<[u8; 8]>),
    applied: &[asm::At],
    probes: &[asm::At],
) {
    let key = asm::key(2);
    let a = asm::header_after(&key, (to, base), 1_700_000_000_000, applied, probes);
    a.matches_file(name, title);
    let position = |(author, stream, seq): &asm::At| Position {
        author: DeviceId(*author),
        stream: Stream::from_number(*stream).unwrap(),
        seq: *seq,
        tag: [author[0]; 4],
    };
    let applied: Vec<Position> = applied.iter().map(position).collect();
    let probes: Vec<Probe> = probes.iter().map(|at| position(at).into()).collect();
    let header = Header {
        version: 1,
        sender: DeviceId::of_key(&key.pk),
        receiver: to.map(DeviceId),
        wall: 1_700_000_000_000,
        statement: [0x5a; 8],
        base,
        applied: applied.len() as u32,
        probes: probes.len() as u32,
    };
    let mut buf = [0; 512];
    let len = header.encode(&mut buf, applied.iter().copied(), probes.iter().copied(), &key.sk).unwrap();
    assert_eq!(buf[..len], a.bytes);
    let reader = HeaderReader::parse(&a.bytes).unwrap();
    assert_eq!(reader.header, header);
    assert!(reader.applied().eq(applied) && reader.probes().eq(probes));
    assert!(reader.verify(&key.pk).is_ok() && reader.verify(&asm::key(1).pk).is_err());
}

#[test]
fn headers() {
    check_header("header", "For everyone, with nothing; sender seed 02.", (None, None), &[], &[]);
    let applied = [([0xaa; 16], 0, 127), ([0xaa; 16], 1, 128), ([0xbb; 16], 0, i64::MAX as u64)];
    let probes = [([0xaa; 16], 1, 300), ([0xaa; 16], 0, 126), ([0xaa; 16], 0, 127)];
    let title = "For one device, with positions and probes; sender seed 02.";
    check_header("header-for", title, (Some([0xaa; 16]), None), &applied, &probes);
    let said = [([0xaa; 16], 0, 127), ([0xbb; 16], 0, 9), ([0xcc; 16], 0, 300)];
    let base = asm::vector_digest(&said);
    let position = |(author, stream, seq): asm::At| Position {
        author: DeviceId(author),
        stream: Stream::from_number(stream).unwrap(),
        seq,
        tag: [author[0]; 4],
    };
    assert_eq!(vector_digest(said.into_iter().map(position)), base);
    let differs = [([0xaa; 16], 0, 128), ([0xbb; 16], 0, 0), ([0xdd; 16], 1, 1)];
    let title = "What differs from what its receiver said last; sender seed 02.";
    check_header("header-differs", title, (Some([0xaa; 16]), Some(base)), &differs, &[]);
}

#[test]
fn record_heads() {
    const KINDS: [(u8, RecordKind); 12] = [
        (1, RecordKind::Header),
        (2, RecordKind::Certificate),
        (3, RecordKind::Section),
        (4, RecordKind::Frame),
        (5, RecordKind::Checkpoint),
        (6, RecordKind::Footer),
        (7, RecordKind::Message),
        (8, RecordKind::State),
        (9, RecordKind::Part),
        (10, RecordKind::Seal),
        (11, RecordKind::Newest),
        (16, RecordKind::Revocation),
    ];
    let mut a = Asm::new();
    for (number, kind) in KINDS {
        for len in [4, 65_536] {
            let head = asm::record_head(number, len);
            let made = RecordHead { kind, len: len as u32 };
            assert_eq!(made.to_bytes()[..], head.bytes);
            assert_eq!(RecordHead::parse(&made.to_bytes()), Ok(made));
            a.all(&head);
        }
    }
    a.all(&asm::record_head(1, 1 << 20));
    a.matches_file(
        "record-heads",
        "Heads of every kind with the shortest and the longest frame's length; the longest of all.",
    );
    for (kind, len) in [(1, 3), (4, 65_537), (1, (1 << 20) + 1), (0, 4), (12, 4), (15, 4), (17, 4), (255, 4)]
    {
        let head = asm::record_head(kind, len).bytes;
        assert!(RecordHead::parse(head[..].try_into().unwrap()).is_err(), "{kind} {len}");
    }
    // What no reader would take is not written either.
    let mut buf = vec![0; (1 << 20) + 64];
    assert!(write_record(&mut buf, RecordKind::Frame, &vec![0; 65_537]).is_err());
    assert!(write_record(&mut buf, RecordKind::Certificate, &vec![0; (1 << 20) - 3]).is_err());
    assert!(write_record(&mut buf, RecordKind::Certificate, &vec![0; (1 << 20) - 4]).is_ok());
}

fn small_frame(group: (u64, i64, u64), seq: u64, context: &[([u8; 16], u64)], row: &[Value<'_>]) -> Asm {
    let mut a = frame_head(1, seq);
    group_head(&mut a, group.0, group.1, group.2, context);
    a.u8("block: rows", 2).raw("definition", &DEF.0).u8("insert", 1);
    row.iter().for_each(|value| {
        a.value(value);
    });
    a.u8("end of the rows", 0).crc();
    a
}

/// A record by the crate, which must be the same; collected in `whole`.
fn add(whole: &mut Asm, kind: RecordKind, by_hand: &Asm, body: &[u8]) {
    let mut buf = vec![0; body.len() + 12];
    let len = write_record(&mut buf, kind, body).unwrap();
    assert_eq!(buf[..len], by_hand.bytes, "{kind:?}");
    whole.all(by_hand);
}

#[test]
fn a_whole_bundle() {
    let (board, base) = (asm::key(1), asm::key(2));
    let (board_id, base_id) = (asm::id(&board), asm::id(&base));
    let row = [Value::Int(1), Value::Text(b"21.5")];
    // One seal of the board in both streams, then one of the base that has seen it.
    let groups = [
        (&board, 0u8, small_frame((1, 5, 1), 1, &[], &row)),
        (&board, 1, small_frame((1, 5, 1), 1, &[], &row)),
        (&base, 0, small_frame((2, 4, 0), 1, &[(board_id, 1)], &row)),
    ];

    let mut whole = Asm::new();
    whole.raw("magic", b"\x89PKM\r\n\x1a\n");
    assert_eq!(whole.bytes, MAGIC);
    let mut applied = [(board_id, 0, 1), (board_id, 1, 1), (base_id, 0, 1)];
    applied.sort();
    let header = asm::header(&base, None, 1_700_000_000_000, &applied, &[]);
    add(&mut whole, RecordKind::Header, &asm::record(1, &header), &header.bytes);
    for certificate in
        [asm::certificate(&board, "board", false, None), asm::certificate(&base, "base", true, None)]
    {
        add(&mut whole, RecordKind::Certificate, &asm::record(2, &certificate), &certificate.bytes);
    }
    for (key, stream, frame) in &groups {
        let mut section = Asm::new();
        section.raw("author", &asm::id(key)).u8("stream", *stream);
        let mut buf = [0; 32];
        let made = Section { author: DeviceId(asm::id(key)), stream: Stream::from_number(*stream).unwrap() };
        let len = put(&mut buf, &made).unwrap();
        add(&mut whole, RecordKind::Section, &asm::record(3, &section), &buf[..len]);
        add(&mut whole, RecordKind::Frame, &asm::frame_record(frame), &frame.bytes);
        let checkpoint = asm::checkpoint(key, *stream, 1, &[&frame.bytes], asm::chain_start(key, *stream));
        add(&mut whole, RecordKind::Checkpoint, &asm::record(5, &checkpoint), &checkpoint.bytes);
    }
    let sha256 = asm::sha(&[&whole.bytes]);
    let mut footer = Asm::new();
    footer.uint("frames", 3).raw("SHA-256 of all before this record", &sha256);
    let mut buf = [0; 64];
    let len = put(&mut buf, &Footer { frames: 3, sha256 }).unwrap();
    add(&mut whole, RecordKind::Footer, &asm::record(6, &footer), &buf[..len]);
    footer.matches_file("footer", "The footer of bundle.hex.");
    whole.matches_file(
        "bundle",
        "A whole bundle: a board's seal in both streams, and a base's that has seen it; seeds 01, 02.",
    );

    // And the crate reads it back, knowing nothing but the certificates in it.
    let mut rest = whole.bytes.strip_prefix(&MAGIC).unwrap();
    let (mut keys, mut section, mut chain, mut seen) = (Vec::new(), None, None, Vec::new());
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let head = RecordHead::parse(head).unwrap();
        let (body, after) = after.split_at(head.len as usize);
        let before = whole.bytes.len() - rest.len();
        rest = after;
        let body = head.check(body).unwrap();
        seen.push(head.kind);
        match head.kind {
            RecordKind::Header => assert!(HeaderReader::parse(body).unwrap().verify(&base.pk).is_ok()),
            RecordKind::Certificate => keys.push(Certificate::decode(body).unwrap()),
            RecordKind::Section => {
                let of: Section = take(&mut &*body).unwrap();
                let key = keys.iter().find(|key| key.device() == of.author).unwrap().public_key;
                section = Some(key);
                chain = Some(Chain::start(&key, of.stream));
            }
            RecordKind::State | RecordKind::Part | RecordKind::Seal => panic!("a bundle is no snapshot"),
            RecordKind::Revocation | RecordKind::Newest => panic!("nobody is revoked, or was set back"),
            RecordKind::Frame => {
                assert_eq!(Frame::parse(body).unwrap().head.seq, 1);
                let mut digest = GroupDigest::default();
                digest.add(body);
                chain = chain.map(|chain| chain.after(&digest.finish()));
            }
            RecordKind::Checkpoint => {
                let checkpoint = Checkpoint::decode(body).unwrap();
                assert!(checkpoint.verify(&section.unwrap(), &chain.unwrap()).is_ok());
            }
            RecordKind::Footer => {
                let footer: Footer = take(&mut &*body).unwrap();
                assert_eq!(footer, Footer { frames: 3, sha256: asm::sha(&[&whole.bytes[..before]]) });
            }
            RecordKind::Message => panic!("a message in a bundle"),
        }
    }
    assert_eq!((seen.len(), rest.len()), (13, 0));
}
