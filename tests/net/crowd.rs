//! A crowd at the port that has certificates of the fleet, and none of their keys.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use packmule::carry::net::{Error, Options, SESSIONS_MAX};

use crate::between::{Ill, Relay};
use crate::boards::{board, fill};
use crate::common::{World, digests_equal, everything};
use crate::{PLAIN, served, sync, wait_for};

/// Both ends say so many bytes before anything else.
const GREETING: usize = 6;

/// It keeps each place as long as a proof may take, so that somebody else is told to come again: and then he is served.
#[test]
fn who_shows_certificates_without_their_keys_keeps_nobody_out_for_good() {
    let world = World::new();
    let (mut a, mut b, base) = (board(&world, "a"), board(&world, "b"), board(&world, "base"));
    fill(&mut a, "a", 2, 100);
    b.seal().unwrap();
    served(base.path(), &world.clock, &PLAIN, |at, reports| {
        // What a board says first, taken down by somebody who lets no answer through.
        let relay = Relay::new(at, [Ill::Nothing, Ill::Lose(GREETING, usize::MAX - GREETING)]);
        let short = Options { patience: Some(Duration::from_secs(1)), ..PLAIN };
        assert!(sync(&mut a, relay.at, &short).is_err());
        let [said, _] = relay.ended();
        assert!(said.len() > GREETING + 100, "a certificate");
        let before = everything(base.path());
        let crowd: Vec<TcpStream> = (0..SESSIONS_MAX)
            .map(|_| {
                let mut stream = TcpStream::connect(at).unwrap();
                stream.write_all(&said).unwrap();
                stream
            })
            .collect();
        // Until all of them have their places.
        while sync(&mut b, at, &PLAIN).is_ok() {}
        let told = sync(&mut b, at, &PLAIN);
        assert!(matches!(told, Err(Error::Busy)), "{told:?}");
        for _ in &crowd {
            wait_for(reports, "failed: Nobody");
        }
        assert_eq!(everything(base.path()), before, "nothing came of it");
        sync(&mut b, at, &PLAIN).unwrap();
        sync(&mut a, at, &PLAIN).unwrap();
    });
    digests_equal(&[&a, &base]);
}
