//! What comes over a network before anybody has proved anything, changed in every place: heads of HTTP, WebSocket frames,
//! answers to who is there, addresses. Nothing panics, and nothing is made larger than what came.
//!
//! How it goes: `tests/fuzz/targets.rs`. For long runs:
//! `PACKMULE_EXECUTIONS=10000000 cargo test --release --lib net::fuzz -- --nocapture`.

use std::net::SocketAddr;

use crate::engine::store::fuzz_targets::{Signature, Target, got, try_all};

use super::find::{Found, question};
use super::http::{Asked, HEAD_MAX, What, answered, asked, opened};
use super::websocket::tests::{end, frame};
use super::{Address, Error};

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.replace('\n', "\r\n").into_bytes()).collect()
}

fn requests() -> Vec<Vec<u8>> {
    texts(&[
        "GET /packmule/1 HTTP/1.1\nHost: a:7225\nUpgrade: websocket\nConnection: keep-alive, Upgrade\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Protocol: other, packmule.1\n\n",
        "POST /packmule/1/session HTTP/1.1\nContent-Length: 5\nPackmule-Turn: 0\n\nbytes",
        "POST /packmule/1/session HTTP/1.0\nPackmule-Session: 000102030405060708090a0b0c0d0e0f\nPackmule-Over: 1\n\
         Content-Length: 18446744073709551615\nPackmule-Turn: 18446744073709551615\nConnection: close\n\n",
        "POST /packmule/1/bundle HTTP/1.1\nExpect: 100-continue\nTransfer-Encoding: chunked\n\n",
        "GET /packmule/1/bundle?a=b&for=000102030405060708090a0b0c0d0e0f HTTP/1.1\nHost: [::1]:7225\n\n",
        "GET /metrics HTTP/1.1\nHost: localhost\nX-Forwarded-For: 192.0.2.1\n\n",
    ])
}

fn request(bytes: &[u8]) -> Signature {
    match asked(bytes) {
        Asked::More => {
            assert!(bytes.len() < HEAD_MAX, "it waits for more than a head may have");
            got(0)
        }
        Asked::Opens(answer, used) => {
            got(1) + 100 * u64::from(used < bytes.len()) + answer.len() as u64 * 1_000
        }
        Asked::Asks(request, used) => {
            assert!(used <= bytes.len());
            let what = match request.what {
                What::Turn(turn) => 2 + u64::from(turn.over) + 2 * u64::from(turn.token.is_some()),
                What::Brings => 6,
                What::Wants(id) => 6 + (id.len() == 32) as u64,
                What::Metrics { local } => 8 + u64::from(local),
            };
            what + 10 * u64::from(request.stays) + 20 * u64::from(request.expects) + 100 * request.len.min(9)
        }
        Asked::Else(answer) => answer.iter().fold(7, |sum, byte| (sum * 31 + u64::from(*byte)) % 100_003),
    }
}

fn answers() -> Vec<Vec<u8>> {
    texts(&[
        "HTTP/1.1 200 OK\nContent-Length: 4\nPackmule-Session: 000102030405060708090a0b0c0d0e0f\nPackmule-Turn: 7\n\
         Packmule-Over: 1\n\nbody",
        "HTTP/1.1 503 Service Unavailable\nRetry-After: 10\n\n",
        "HTTP/1.1 101 Switching Protocols\nSec-WebSocket-Accept: a\nSec-WebSocket-Protocol: packmule.1\n\n",
    ])
}

fn answer(bytes: &[u8]) -> Signature {
    let of = |error: &Error| match error {
        Error::Foreign => 1,
        Error::Busy => 2,
        Error::Http(code) => 3 + u64::from(*code),
        other => panic!("{other}"),
    };
    let opens = match opened(bytes, "a") {
        Ok(None) => 5_000,
        Ok(Some(used)) => {
            assert!(used <= bytes.len());
            5_001
        }
        Err(e) => of(&e),
    };
    let answers = match answered(bytes) {
        Ok(None) => 5_000,
        Ok(Some(answer)) => 5_001 + u64::from(answer.over) + 2 * u64::from(answer.stays),
        Err(e) => of(&e),
    };
    opens * 10_000 + answers
}

/// Frames of a client, and of a server, whose input begins with a byte that is odd.
fn talks() -> Vec<Vec<u8>> {
    let all = [frame(2, b"ab"), frame(0x89, b"ping"), frame(0, &[7; 300]), frame(0x80, b"end")].concat();
    let close = [frame(0x82, b"x"), frame(0x88, b"\x03\xe8why")].concat();
    let bare = b"\x01\x02\x02ab\x89\x04ping\x80\x7e\x01\x00".to_vec();
    vec![[&[0][..], &all].concat(), [&[2][..], &close].concat(), [&bare[..], &[5; 256]].concat()]
}

fn websocket(bytes: &[u8]) -> Signature {
    let Some((how, came)) = bytes.split_first() else { return 0 };
    let (all, went, goes_on) = end(how & 1 == 1, came, usize::from(how >> 1) + 1);
    assert!(all.len() <= came.len() && went.len() <= 4 * came.len() + 8, "more comes out than went in");
    got(all.len()) + 100 * got(went.len()) + u64::from(goes_on)
}

const NONCE: [u8; 8] = [5; 8];

fn datagrams() -> Vec<Vec<u8>> {
    let asks = [&b"\x89PKF\x01\x00"[..], &NONCE].concat();
    let answer = [&b"\x89PKF\x01\x02"[..], &NONCE, &[0x39, 0x1c], &[7; 16], &[3; 8], b"\x04base"].concat();
    [asks, answer].map(|bytes| bytes.into_iter().chain(std::iter::repeat(0)).take(128).collect()).into()
}

fn datagram(bytes: &[u8]) -> Signature {
    let from: SocketAddr = ([192, 0, 2, 1], 9).into();
    let asks = question(bytes).is_some();
    let heard = Found::parse(bytes, NONCE, from).map_or(0, |heard| {
        assert!(heard.name.len() <= 64 && heard.addresses.len() == 1 && bytes.len() == 128);
        1 + heard.name.chars().count() as u64 + 100 * u64::from(heard.base)
    });
    u64::from(asks) + 2 * heard
}

fn addresses() -> Vec<Vec<u8>> {
    texts(&[
        "tcp://[fe80::1%2]:7225",
        "ws://base.example/a/b",
        "http://192.0.2.1:80/p",
        "exec:ssh base",
        "find:",
    ])
}

fn address(bytes: &[u8]) -> Signature {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    match text.parse::<Address>() {
        Ok(address) => {
            let said = address.to_string();
            assert_eq!(said.parse(), Ok(address), "{said:?} is not read as it is written");
            got(said.len())
        }
        Err(e) => got(e.to_string().len()) + 100,
    }
}

const TARGETS: [Target; 5] = [
    Target { name: "http-request", seeds: requests, run: request, weight: 4 },
    Target { name: "http-answer", seeds: answers, run: answer, weight: 4 },
    Target { name: "websocket", seeds: talks, run: websocket, weight: 4 },
    Target { name: "datagram", seeds: datagrams, run: datagram, weight: 1 },
    Target { name: "address", seeds: addresses, run: address, weight: 1 },
];

#[test]
fn nothing_that_a_stranger_sends_panics_or_grows() {
    try_all(&TARGETS);
}
