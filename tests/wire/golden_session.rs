//! Golden vectors of the session's messages (records of kind 7), made and compared as those of `golden.rs`: laid
//! out by hand from `FORMAT.md`, pinned in `tests/vectors`, written and read by the crate.

#![allow(clippy::unwrap_used, clippy::panic)]

mod asm;
#[path = "../session/pages.rs"]
mod pages;

use asm::Asm;
use packmule_core::model::{DeviceId, Stream};
use packmule_core::session::{Error, Session};
use packmule_core::wire::{
    CHUNK_MAX, Message, Offer, RecordHead, RecordKind, Refusal, SESSION_VERSION, SESSION_VERSION_MIN,
    begin_chunk, write_record,
};
use pages::{Pages, Refused, Talk};

/// The crate writes exactly `by_hand`, a body, and reads `message` from it; both also in a record.
fn agree(file: &str, title: &str, messages: &[(Asm, Message<'_>)]) {
    let mut whole = Asm::new();
    for (by_hand, message) in messages {
        let mut buf = [0; 1024];
        let len = message.encode(&mut buf).unwrap();
        assert_eq!(buf[..len], by_hand.bytes, "{message:?}");
        assert_eq!(Message::decode(&by_hand.bytes).unwrap(), *message);
        let record = asm::record(7, by_hand);
        let mut in_record = [0; 1100];
        let written = write_record(&mut in_record, RecordKind::Message, &buf[..len]).unwrap();
        assert_eq!(in_record[..written], record.bytes, "{message:?}");
        let head = RecordHead::parse(record.bytes[..8].try_into().unwrap()).unwrap();
        assert_eq!(head.kind, RecordKind::Message);
        assert_eq!(head.check(&record.bytes[8..]).unwrap(), by_hand.bytes);
        whole.all(&record);
        // Nothing is missing at the end, and nothing may follow.
        assert!(Message::decode(&by_hand.bytes[..by_hand.bytes.len() - 1]).is_err(), "{message:?}");
        let longer = [&by_hand.bytes[..], &[0]].concat();
        assert!(Message::decode(&longer).is_err(), "{message:?}");
    }
    whole.matches_file(file, title);
}

#[test]
fn hello_and_proof() {
    let (board, base) = (asm::key(1), asm::key(2));
    let (nonce, other) = ([0x11; 32], [0x22; 32]);
    let certificate = asm::certificate(&board, "board", false, Some(&asm::key(3)));
    let mut hello = Asm::new();
    hello.u8("message: hello", 0);
    hello.u8("session: lowest", 1).u8("highest", 3).u8("format: lowest", 1).u8("highest", 2);
    hello.raw("nonce", &nonce).run("certificate", &certificate.bytes);

    let signed = [&b"packmule/1 session"[..], &asm::id(&board), &asm::id(&base), &nonce, &other].concat();
    let signature = asm::sign(&board.sk, &signed);
    let mut proof = Asm::new();
    proof.u8("message: proof", 1).run("signature", &signature);

    let (me, peer) = (DeviceId(asm::id(&board)), DeviceId(asm::id(&base)));
    assert_eq!(Message::prove(&board.sk, (me, &nonce), (peer, &other)), signature);
    assert!(Message::check_proof(&signature, &board.pk, (me, &nonce), (peer, &other)).is_ok());
    // Neither another session's, nor the other end's own words sent back.
    for (first, second) in [((me, &other), (peer, &nonce)), ((peer, &other), (me, &nonce))] {
        assert!(Message::check_proof(&signature, &board.pk, first, second).is_err());
    }
    agree(
        "session-hello",
        "The first two messages of a session, as records: a board's hello and its proof to a base; seeds 01, 02, fleet 03.",
        &[
            (
                hello,
                Message::Hello {
                    session: (SESSION_VERSION_MIN, SESSION_VERSION),
                    format: (1, 2),
                    nonce,
                    certificate: &certificate.bytes,
                },
            ),
            (proof, Message::Proof(&signature)),
        ],
    );
}

#[test]
fn every_other_message() {
    let author = DeviceId([0xaa; 16]);
    let mut all = Vec::new();
    for (stream, number, groups, frames) in
        [(Stream::Shared, 0, 0, 127), (Stream::PerDevice, 1, 128, i64::MAX as u64)]
    {
        let mut here = Asm::new();
        here.u8("message: here", 2).raw("author", &author.0).u8("stream", number);
        here.uint("groups", groups).uint("frames", frames);
        all.push((here, Message::Here { author, stream, groups, frames }));
    }
    for (frames, bytes) in [(0, 0), (300, u64::MAX)] {
        let mut plan = Asm::new();
        plan.u8("message: plan", 3).uint("frames", frames).uint("bytes", bytes);
        all.push((plan, Message::Plan { frames, bytes }));
    }
    for number in [1, 128, u32::MAX] {
        let (mut idle, mut settled) = (Asm::new(), Asm::new());
        idle.u8("message: idle", 4).uint("number", number.into());
        settled.u8("message: settled", 5).uint("number", number.into());
        all.extend([(idle, Message::Idle(number)), (settled, Message::Settled(number))]);
    }
    let reasons = [
        Refusal::Untrusted,
        Refusal::Revoked,
        Refusal::Itself,
        Refusal::Version,
        Refusal::Twin,
        Refusal::Damaged,
        Refusal::Failed,
        Refusal::NewIdentity,
        Refusal::Busy,
    ];
    for (number, why) in reasons.into_iter().enumerate() {
        let mut refused = Asm::new();
        refused.u8("message: refused", 6).u8(&format!("why: {why:?}"), number as u8);
        refused.raw("device", &author.0);
        all.push((refused, Message::Refused { why, device: author }));
    }
    for (what, number, message) in [("bye", 7, Message::Bye), ("behind", 8, Message::Behind)] {
        let mut alone = Asm::new();
        alone.u8(&format!("message: {what}"), number);
        all.push((alone, message));
    }
    for (bytes, rows) in [(0, 0), (300, 128), (i64::MAX as u64, u64::MAX)] {
        let (mut offer, mut want) = (Asm::new(), Asm::new());
        offer.u8("message: offer", 9).raw("SHA-256", &[0xbb; 32]).uint("bytes", bytes).uint("rows", rows);
        want.u8("message: want", 10).uint("from", bytes);
        all.push((offer, Message::Offer(Offer { sha256: [0xbb; 32], bytes, rows })));
        all.push((want, Message::Want(bytes)));
    }
    let (mut decline, mut chunk, mut took) = (Asm::new(), Asm::new(), Asm::new());
    decline.u8("message: decline", 11);
    chunk.u8("message: chunk", 12).run("bytes", &[0xcc; 130]);
    took.u8("message: took", 13);
    let statement = asm::certificate(&asm::key(1), "board", false, Some(&asm::key(3))).bytes;
    let mut follows = Asm::new();
    follows.u8("message: follows", 14).run("certificate", &statement);
    let mut head = [0; 8];
    let head_len = begin_chunk(&mut head, 130).unwrap();
    assert_eq!(head[..head_len], chunk.bytes[..head_len]);
    all.extend([
        (decline, Message::Decline),
        (chunk, Message::Chunk(&[0xcc; 130])),
        (took, Message::Took),
        (follows, Message::Follows(&statement)),
    ]);
    agree("session-messages", "Every message of a session but the first two, as records.", &all);
}

/// What a peer hears whose other history is here: what it has signed itself, and only then that it is refused.
#[test]
fn a_twin_hears_the_newest_before_it_is_refused() {
    let fleet = asm::key(3).sk;
    let mut twin = Pages::<160, 24>::new(1, "board", false, &fleet);
    let mut base = Pages::<160, 24>::new(2, "base", true, &fleet);
    let newest = asm::vector("newest");
    base.newest = newest.clone().try_into().ok();
    let (mut refused, mut shown) = (Asm::new(), Asm::new());
    refused.u8("message: refused", 6).u8("why: twin", 4).raw("device", &asm::id(&asm::key(1)));
    shown.raw("as in newest.hex", &newest);
    let mut whole = Asm::new();
    whole.all(&asm::record(11, &shown)).all(&asm::record(7, &refused));
    whole.matches_file(
        "session-twin",
        "The end of a session with a twin, as records: seed 02 refuses seed 01.",
    );

    let (mut one, mut two) = (Talk::new(&mut twin), Talk::new(&mut base));
    let mut twin = Session::<heapless::Vec<u8, 512>>::new(&mut one, [1; 32], 0).unwrap();
    let mut base = Session::<heapless::Vec<u8, 512>>::new(&mut two, [2; 32], 0).unwrap();
    for _ in 0..20 {
        let said = base.output(&mut two).unwrap().to_vec();
        let taken = twin.receive(&mut one, 0, &said).unwrap();
        base.sent(taken);
        let said = twin.output(&mut one).unwrap().to_vec();
        match base.receive(&mut two, 0, &said) {
            Ok(taken) => twin.sent(taken),
            Err(e) => {
                assert_eq!(e, Error::Log(Refused::Twin));
                assert!(base.pending_output().ends_with(&whole.bytes));
                return;
            }
        }
        twin.caught_up(&mut one).unwrap();
        base.caught_up(&mut two).unwrap();
    }
    panic!("the twin is not refused");
}

#[test]
fn what_is_no_message_is_refused() {
    for kind in 15..128u8 {
        assert!(Message::decode(&[kind, 0, 0, 0]).is_err(), "{kind}");
    }
    assert!(
        Message::decode(&[6, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(),
        "a tenth reason"
    );
    // A chunk has bytes, and not too many.
    for (len, is_one) in [(0, false), (1, true), (CHUNK_MAX, true), (CHUNK_MAX + 1, false)] {
        let mut chunk = Asm::new();
        chunk.u8("", 12).run("", &vec![0; len]);
        assert_eq!(Message::decode(&chunk.bytes).is_ok(), is_one, "{len}");
    }
    // Counts end at 2^63 - 1, as sequence numbers do.
    for past in [0, 1] {
        let mut here = Asm::new();
        here.u8("", 2).raw("", &[0xaa; 16]).u8("", 0).uint("", 0).uint("", i64::MAX as u64 + past);
        assert_eq!(Message::decode(&here.bytes).is_ok(), past == 0);
        let mut want = Asm::new();
        want.u8("", 10).uint("", i64::MAX as u64 + past);
        assert_eq!(Message::decode(&want.bytes).is_ok(), past == 0);
    }
}
