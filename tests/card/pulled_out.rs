//! Three boards and a base share a card, and it is pulled out at every operation that writes.
//!
//! After each pull the card has forgotten what was not synced. Then must be true: what ends as a bundle is
//! one; what an exchange that came to its end has left is there; nobody removed what another made;
//! and the trip, gone on with, brings everything to everybody.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Fleet;
use crate::common::Random;
use crate::memory::{Card, Wrong, ends_with_footer, is_whole};

const TRIP: [&str; 12] =
    ["north", "east", "south", "base", "north", "east", "south", "base", "north", "east", "south", "base"];

/// What went wrong on a trip.
#[derive(Default, Debug)]
struct Faults {
    /// Files that end with a footer and are not whole.
    torn: u32,
    /// Files that were left, and are not there, or not as they were left.
    lost: u32,
    /// Files that somebody removed who had not made them.
    robbed: u32,
}

/// A trip during which the card is pulled out at the `fuel`th operation that writes; whether it came to that.
struct Trip {
    fleet: Fleet,
    card: Card,
    random: Random,
    faults: Faults,
    cases: u32,
    /// What must be on the card.
    left: BTreeMap<PathBuf, Vec<u8>>,
}

impl Trip {
    fn new(wrong: Wrong, seed: u64) -> Self {
        let card = Card::new(wrong);
        card.put("DCIM/photo.jpg", b"not ours");
        card.put("PACKMULE/README.TXT", b"somebody's");
        card.put("PACKMULE/00000000.PMB", b"\x89PKM\r\n\x1a\nsomebody's, torn");
        let (fleet, random) = (Fleet::new(), Random(seed));
        let cases = if wrong == Wrong::FooterFirst { 12 } else { 3 };
        Self { fleet, card, random, faults: Faults::default(), cases, left: BTreeMap::new() }
    }

    /// A visit; whether it came to its end.
    fn visit(&mut self, name: &str, fuel: Option<u64>) -> bool {
        self.card.visit(name, fuel);
        let removed_before = self.card.removals().len();
        let done = self.fleet.try_exchange(name, &mut self.card.clone()).is_ok();
        for (who, path) in &self.card.removals()[removed_before..] {
            self.left.remove(path);
            self.faults.robbed += u32::from(self.card.maker(path).as_ref() != Some(who));
        }
        if done {
            let files = self.card.files().into_iter();
            self.left.extend(files.filter(|(path, _)| self.card.maker(path).as_deref() == Some(name)));
        }
        done
    }

    /// Pulls the card out, if it is not yet, and puts it in again.
    fn pull(&mut self) {
        // Of what may be left on it, several cases are looked at, and with one the trip goes on.
        for _ in 0..self.cases {
            let case = self.card.split();
            case.put_in_again(&mut self.random);
            self.look(&case.files());
        }
        self.card.put_in_again(&mut self.random);
        let files = self.card.files();
        self.look(&files);
        self.left.retain(|path, bytes| files.get(path) == Some(bytes));
    }

    fn look(&mut self, files: &BTreeMap<PathBuf, Vec<u8>>) {
        let torn = files.values().filter(|bytes| ends_with_footer(bytes) && !is_whole(bytes)).count();
        self.faults.torn += torn as u32;
        let lost = self.left.iter().filter(|(path, bytes)| files.get(*path) != Some(*bytes)).count();
        self.faults.lost += lost as u32;
    }

    fn assert_good(&self, what: &str) {
        let Faults { torn, lost, robbed } = self.faults;
        assert_eq!((torn, lost, robbed), (0, 0, 0), "{what}: torn, lost, robbed");
        let files = self.card.files();
        assert_eq!(files[&PathBuf::from("DCIM/photo.jpg")], b"not ours");
        assert_eq!(files[&PathBuf::from("PACKMULE/README.TXT")], b"somebody's");
        assert!(files.contains_key(&PathBuf::from("PACKMULE/00000000.PMB")));
    }
}

/// Pulls at operation `at`; `None` if the trip is shorter.
fn pulled_at(at: u64, wrong: Wrong) -> Option<Trip> {
    pull_at(at, Trip::new(wrong, at))
}

fn pull_at(at: u64, mut trip: Trip) -> Option<Trip> {
    let mut fuel = Some(at);
    for (n, name) in TRIP.iter().enumerate() {
        if n == 6 {
            trip.fleet.write(1);
        }
        trip.visit(name, fuel);
        fuel = trip.card.fuel();
        if trip.card.is_out() {
            trip.pull();
            fuel = None;
        }
    }
    if fuel.is_some() { None } else { Some(trip) }
}

/// Goes on until nobody leaves anything.
fn go_on(trip: &mut Trip) {
    for _ in 0..3 {
        for name in crate::NAMES {
            assert!(trip.visit(name, None), "{name}");
        }
    }
    trip.pull();
}

/// Pulls at every second operation from this one on; two tests, for two cores.
fn pulled_out_at_every_second_write(first: u64) {
    let mut at = first;
    while let Some(mut trip) = pulled_at(at, Wrong::Nothing) {
        go_on(&mut trip);
        trip.assert_good(&format!("pulled at {at}"));
        trip.fleet.assert_same(2);
        at += 2;
    }
    println!("pulled out at every second of {} operations", at - 1);
    assert!(at > 100, "the trip has {at} operations");
}

#[test]
fn pulled_out_at_every_odd_write() {
    pulled_out_at_every_second_write(1);
}

#[test]
fn pulled_out_at_every_even_write() {
    pulled_out_at_every_second_write(2);
}

/// The same with a fleet that encrypts: what was torn is tidied up, and all find together.
#[test]
fn pulled_out_while_it_encrypts() {
    let mut at = 1;
    let trip = |at| {
        let mut trip = Trip::new(Wrong::Nothing, at);
        trip.fleet.encrypt = true;
        trip
    };
    while let Some(mut pulled) = pull_at(at, trip(at)) {
        for _ in 0..2 {
            go_on(&mut pulled);
        }
        pulled.assert_good(&format!("pulled at {at}"));
        pulled.fleet.assert_same(2);
        let own = pulled
            .card
            .files()
            .into_keys()
            .filter(|path| pulled.card.maker(path).as_deref() != Some("somebody"));
        assert!(own.count() <= 4, "pulled at {at}");
        at += 3;
    }
    assert!(at > 100, "the trip has {at} operations");
}

/// Each visit is pulled out at its first operation, then tried again and pulled out at its second, and so on.
#[test]
fn pulled_out_again_and_again() {
    let mut trip = Trip::new(Wrong::Nothing, 7);
    let mut pulls = 0;
    for (n, name) in TRIP.iter().enumerate() {
        if n == 6 {
            trip.fleet.write(1);
        }
        let mut fuel = 1;
        while !trip.visit(name, Some(fuel)) {
            trip.pull();
            (fuel, pulls) = (fuel + 1, pulls + 1);
        }
        trip.card.visit(name, None);
    }
    println!("pulled out {pulls} times");
    go_on(&mut trip);
    trip.assert_good("pulled again and again");
    trip.fleet.assert_same(2);
    let own: Vec<_> = trip
        .card
        .files()
        .into_iter()
        .filter(|(path, _)| trip.card.maker(path).as_deref() != Some("somebody"))
        .collect();
    assert!(
        own.len() <= 4,
        "what is acknowledged is tidied up: {:?}",
        own.iter().map(|f| &f.0).collect::<Vec<_>>()
    );
}

/// Pulls at one operation after the other until there is such a fault; how many there were.
fn faults_until(wrong: Wrong, found: fn(&Faults) -> u32) -> u32 {
    let mut at = 1;
    while let Some(mut trip) = pulled_at(at, wrong) {
        trip.pull();
        if found(&trip.faults) > 0 {
            println!("pulled out at operation {at}: {:?}", trip.faults);
            return found(&trip.faults);
        }
        at += 1;
    }
    0
}

/// The controls: the same checks find a card or a program that is known to be wrong.
#[test]
fn a_card_that_does_not_sync_is_found() {
    assert!(faults_until(Wrong::NoSync, |faults| faults.lost) > 0, "what was left is lost");
}

#[test]
fn a_footer_before_its_body_is_found() {
    assert!(faults_until(Wrong::FooterFirst, |faults| faults.torn) > 0, "a torn file has a footer");
}
