//! A crowd at the port that has certificates of the fleet, and none of their keys.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use packmule::carry::net::{Error, Options, SESSIONS_MAX};

use crate::between::{Ill, Relay};
use crate::boards::{board, fill};
use crate::common::{World, digests_equal};
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
    let id = a.identity().id;
    served(base.path(), &world.clock, &PLAIN, |at, reports| {
        // What a board says first, taken down by somebody who lets no answer through.
        let relay = Relay::new(at, [Ill::Nothing, Ill::Lose(GREETING, usize::MAX - GREETING)]);
        let short = Options { patience: Some(Duration::from_secs(1)), ..PLAIN };
        assert!(sync(&mut a, relay.at, &short).is_err());
        let [said, _] = relay.ended();
        assert!(said.len() > GREETING + 100, "a certificate");
        // One more as long as somebody else is served: one that came too much was refused, and holds nothing.
        let (mut crowd, mut told) = (Vec::new(), Ok(()));
        while told.is_ok() && crowd.len() < 10 * SESSIONS_MAX {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(&said).unwrap();
            crowd.push(stream);
            told = sync(&mut b, at, &PLAIN).map(drop);
        }
        assert!(matches!(told, Err(Error::Busy)), "{told:?}");
        wait_for(reports, "failed: Nobody");
        drop(crowd);
        let known = base.devices().unwrap();
        let of_a = known.iter().find(|of| of.id == id);
        assert_eq!(of_a.map_or(0, |of| of.shared), 0, "nothing came of it");
        // A place is free right after it is said why.
        let served = |done: &Result<_, Error>| !matches!(done, Err(Error::Busy));
        std::iter::repeat_with(|| sync(&mut b, at, &PLAIN)).find(served).unwrap().unwrap();
        std::iter::repeat_with(|| sync(&mut a, at, &PLAIN)).find(served).unwrap().unwrap();
    });
    digests_equal(&[&a, &base]);
}
