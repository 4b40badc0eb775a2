//! Who is on this network: on this machine alone, at a port of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../common/mod.rs"]
mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use common::World;
use packmule::Engine;
use packmule::carry::Stop;
use packmule::carry::net::{Found, announce, find};

/// A limit that only ends a test that hangs.
const LONG: Duration = Duration::from_secs(60);

/// Ends who announces also where the test fails: else it would wait for that for ever.
struct Ends<'a>(&'a Stop);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// So often it is asked before somebody listens: a limit that only ends a test that hangs.
const TRIES: usize = 200;

/// A UDP port that nobody has.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn who_serves_is_found_and_whose_it_says_it_is() {
    let (world, elsewhere) = (World::new(), World::seeded(9));
    let (base, a, stranger) = (world.base("base"), world.board("a"), elsewhere.board("stranger"));
    let (port, stop) = (free_port(), Stop::default());
    let serves: SocketAddr = "127.0.0.1:7000".parse().unwrap();
    let me = Found::of(&base);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| announce(&me, serves, port, &stop).unwrap());
        let _ends = Ends(&stop);
        // Before it has begun to listen nobody answers.
        let mut tries = (0..TRIES).map(|_| find(Duration::from_millis(300), port, &Stop::default()).unwrap());
        tries.find(|found| !found.is_empty()).expect("nobody answers")
    });
    assert_eq!(
        (found.len(), found[0].id, &*found[0].name, found[0].base),
        (1, base.identity().id, "base", true)
    );
    assert_eq!(found[0].addresses, [serves]);
    let claims = |engine: &Engine| found[0].is_of_ours(engine).unwrap();
    assert_eq!([claims(&a), claims(&stranger), claims(&base)], [true, false, false]);
}

/// Noise on the port is no question, and gets no answer; nobody is made to send more than was sent.
#[test]
fn what_is_no_question_gets_no_answer() {
    let world = World::new();
    let base = world.base("base");
    let (port, stop) = (free_port(), Stop::default());
    let me = Found::of(&base);
    std::thread::scope(|scope| {
        scope.spawn(|| announce(&me, "127.0.0.1:7000".parse().unwrap(), port, &stop).unwrap());
        let _ends = Ends(&stop);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut question = b"\x89PKF\x01\x00nonce...".to_vec();
        question.resize(128, 0);
        let mut answer = [0; 2_000];
        let mut tries = (0..TRIES).map(|_| {
            socket.send_to(&question, ("127.0.0.1", port)).unwrap();
            socket.recv(&mut answer)
        });
        let length = tries.find_map(Result::ok).expect("nobody answers");
        assert!(length <= question.len());
        let asks = |nonce: &[u8; 8]| [&question[..6], nonce, &question[14..]].concat();
        let noise = asks(b"noise...");
        for noise in
            [&noise[..127], b"", b"\x89PKF\x01\x00", &[0xff; 128], &[noise.clone(), vec![0]].concat()]
        {
            socket.send_to(noise, ("127.0.0.1", port)).unwrap();
        }
        socket.send_to(&asks(b"another."), ("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        // Answers to what was asked while it began may still come.
        let answered = loop {
            socket.recv(&mut answer).unwrap();
            if &answer[6..14] != b"nonce..." {
                break answer[6..14].to_vec();
            }
        };
        assert_eq!(answered, b"another.", "the only one that is answered");
    });
}
