//! What devices tell each other in sessions that stay open: what each end is told grows with what is new for it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{World, per_device, sql};
use packmule::carry::session::Session;
use packmule::{Engine, TrackOptions};

/// A base with a session to each of its boards.
struct Hub {
    _world: World,
    ends: Vec<[(Engine, Session); 2]>,
    now: u64,
}

impl Hub {
    fn new(n: usize, track: &TrackOptions) -> Self {
        let world = World::new();
        let base = world.base("base");
        sql(&base, "CREATE TABLE log (id INTEGER PRIMARY KEY, value)");
        drop(base);
        let mut ends = Vec::new();
        for at in 0..n {
            let mut board = world.board(&format!("board {at}"));
            sql(&board, "CREATE TABLE log (id INTEGER PRIMARY KEY, value)");
            board.track("log", track).unwrap();
            let mut base = Engine::open_with(&world.path("base"), world.options()).unwrap();
            let here = Session::new(&mut base, [at as u8; 32], 0).unwrap();
            let there = Session::new(&mut board, [200; 32], 0).unwrap();
            ends.push([(base, here), (board, there)]);
        }
        Self { _world: world, ends, now: 0 }
    }

    /// Lets all talk until nobody has anything to say. Returns how many bytes the base and the boards sent.
    fn settle(&mut self) -> [usize; 2] {
        let mut bytes = [0; 2];
        let mut quiet = 0;
        while quiet < 3 {
            self.now += 5_000;
            let mut any = 0;
            for ends in &mut self.ends {
                for from in [0, 1] {
                    let [a, b] = &mut *ends;
                    let [(one, out), (other, inn)] = if from == 0 { [a, b] } else { [b, a] };
                    out.tick(one, self.now).unwrap();
                    loop {
                        let said = out.output(one).unwrap().to_vec();
                        if said.is_empty() {
                            break;
                        }
                        inn.receive(other, self.now, &said).unwrap();
                        out.sent(said.len());
                        bytes[from] += said.len();
                        any += said.len();
                    }
                    inn.caught_up(other).unwrap();
                }
            }
            quiet = if any == 0 { quiet + 1 } else { 0 };
        }
        bytes
    }
}

/// How many bytes a base with so many boards tells each of them, once all have written a row.
fn told(boards: usize, track: &TrackOptions) -> usize {
    let mut hub = Hub::new(boards, track);
    hub.settle();
    let mut told = 0;
    for round in 1..=3 {
        for (at, ends) in hub.ends.iter().enumerate() {
            sql(&ends[1].0, &format!("INSERT INTO log VALUES ({}, {round})", round * 1000 + at));
        }
        let [by_base, by_boards] = hub.settle();
        println!("{boards} boards: the base sends {by_base} bytes, they send {by_boards}");
        told = by_base / boards;
    }
    told
}

#[test]
fn a_board_hears_nothing_of_the_per_device_rows_of_others() {
    assert_eq!(told(4, &per_device()), told(16, &per_device()));
}

/// The control: of shared rows each board gets those of all others.
#[test]
fn a_board_gets_the_shared_rows_of_all_others() {
    assert!(told(16, &TrackOptions::default()) > 3 * told(4, &TrackOptions::default()));
}
