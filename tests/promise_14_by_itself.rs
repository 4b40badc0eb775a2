//! Promise 14: whatever happens to a fleet, exchanging alone brings everybody to the same state. Here one fleet has all of it
//! at once, on one card; what chance makes of it is in `fleet_cards.rs` and `fleet_life.rs`.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use packmule::{Engine, Error, TrackOptions};

/// What is to be the same everywhere after so many rounds of everybody with the card.
const ROUNDS: usize = 4;

const SQL: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, text);
                   CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value);";

/// A board whose application has made its tables.
fn board(world: &World, name: &str) -> Engine {
    let mut engine = world.board(name);
    sql(&engine, SQL);
    engine.track("notes", &TrackOptions::default()).unwrap();
    engine.track("readings", &append()).unwrap();
    engine
}

/// What its application writes at a board: a note of its own, one that all write, and a reading.
fn write(engine: &Engine, what: &str) {
    sql(
        engine,
        &format!(
            "INSERT INTO notes (id, text) VALUES ('{what}', '{what}');
             INSERT INTO notes (id, text) VALUES ('of all', '{what}') ON CONFLICT (id) DO UPDATE SET text = excluded.text;
             INSERT INTO readings (value) VALUES ('{what}')"
        ),
    );
}

fn rounds(card: &Path, devices: &mut [&mut Engine], times: usize) {
    for _ in 0..times {
        for engine in devices.iter_mut() {
            exchange_with_card(engine, card);
        }
    }
}

/// A device as a backup, or an image of its card, has it.
fn image(of: &Engine, world: &World, name: &str) -> PathBuf {
    let to = world.path(name);
    copy_card(of, &to);
    to
}

fn open_at(world: &World, path: &Path) -> Engine {
    Engine::open_with(path, world.options()).unwrap()
}

/// A device is set back to its backup.
fn restore(world: &World, engine: Engine, backup: &Path) -> Engine {
    let at = engine.path().to_path_buf();
    drop(engine);
    for end in ["-wal", "-shm"] {
        let mut beside = at.clone().into_os_string();
        beside.push(end);
        let _ = std::fs::remove_file(beside);
    }
    std::fs::copy(backup, &at).unwrap();
    open_at(world, &at)
}

/// A fleet to which everything has happened, before its last exchanges; and the card.
fn fleet(world: &World) -> (Vec<Engine>, PathBuf) {
    let card = world.dir.path().join("card");
    std::fs::create_dir(&card).unwrap();
    let (mut base, mut north, mut south, mut away) =
        (world.base("base"), board(world, "north"), board(world, "south"), board(world, "away"));
    for (engine, what) in [(&north, "north 1"), (&south, "south 1"), (&away, "away 1")] {
        write(engine, what);
    }
    rounds(&card, &mut [&mut north, &mut south, &mut away, &mut base], 2);

    // Backups and the image of a card are made, and work goes on; the first log is folded, and one board is given up.
    let night = image(&base, world, "base backup");
    let eve = image(&south, world, "south backup");
    let clone = image(&north, world, "north image");
    write(&north, "north 2");
    write(&south, "south 2");
    base.retire(away.identity().id, None).unwrap();
    rounds(&card, &mut [&mut north, &mut south, &mut base], 3);
    for engine in [&mut north, &mut south, &mut base] {
        engine.compact().unwrap();
    }

    // The base and a board are set back; the image runs beside its board, both write; a newcomer has rows of its own; who was
    // given up comes back; and every application migrates, some before and some after.
    let base = restore(world, base, &night);
    let south = restore(world, south, &eve);
    let clone = open_at(world, &clone);
    let newcomer = board(world, "new");
    let migrated = "ALTER TABLE notes ADD COLUMN seen INTEGER DEFAULT 0";
    for (engine, what, first) in [
        (&north, "north 3", true),
        (&south, "south 3", false),
        (&clone, "clone 3", true),
        (&newcomer, "new 3", false),
        (&away, "away 3", false),
    ] {
        if first {
            sql(engine, migrated);
        }
        write(engine, what);
        if !first {
            sql(engine, migrated);
        }
    }
    (vec![north, south, clone, newcomer, away, base], card)
}

#[test]
fn whatever_happens_to_a_fleet_exchanging_brings_all_to_the_same() {
    let world = World::new();
    let (mut devices, card) = fleet(&world);
    // The control: before they exchange, no two have the same.
    let digests: std::collections::BTreeSet<_> = devices.iter().map(|d| d.digest(false).unwrap()).collect();
    assert_eq!(digests.len(), devices.len(), "{digests:?}");

    let mut all: Vec<&mut Engine> = devices.iter_mut().collect();
    rounds(&card, &mut all, ROUNDS);
    digests_equal(&devices.iter().collect::<Vec<_>>());

    // Every note is everywhere, the one that all wrote is open, and nothing waits.
    let own = "SELECT id FROM notes WHERE id <> 'of all' ORDER BY id";
    let expected = [
        "away 1", "away 3", "clone 3", "new 3", "north 1", "north 2", "north 3", "south 1", "south 2",
        "south 3",
    ]
    .map(|what| format!("{what:?}"));
    for device in &devices {
        assert_eq!(rows(device, own), expected, "{}", device.identity().name);
        assert_eq!(device.conflicts().unwrap().len(), 1, "{}", device.identity().name);
        assert!(device.status().unwrap().waits.is_empty(), "{}", device.identity().name);
    }
    // The base has every reading but one, which no device has any more: its board and the base were set back to before it.
    let base = devices.last().unwrap();
    let gathered = rows(base, "SELECT DISTINCT value FROM readings ORDER BY value");
    let there: Vec<String> = expected.into_iter().filter(|value| value != r#""south 2""#).collect();
    assert_eq!(gathered, there);
    // One identity is new: that of one of the two that had the same.
    let ids: std::collections::BTreeSet<_> = devices.iter().map(|d| d.identity().id).collect();
    assert_eq!(ids.len(), devices.len());
}

/// Of a stolen device a board has a frame that the base has not, and hears of the revocation while it lacks a part of its own log:
/// it says what it has once it has that again, and says it again where it took back what it had said.
#[test]
fn what_a_board_that_was_set_back_has_of_a_stolen_device_is_taken_in_by_the_base() {
    for is_folded in [false, true] {
        let world = World::new();
        let [main, other, new] = ["card", "other card", "new card"].map(|name| world.dir.path().join(name));
        [&main, &other, &new].into_iter().for_each(|card| std::fs::create_dir(card).unwrap());
        let (mut base, mut north, mut south) =
            (world.base("base"), board(&world, "north"), board(&world, "south"));
        write(&north, "north 1");
        write(&south, "south 1");
        rounds(&main, &mut [&mut north, &mut south, &mut base], 2);
        let eve = image(&north, &world, "north backup");
        write(&north, "north 2");
        rounds(&main, &mut [&mut north, &mut base], 1);
        let mut north = restore(&world, north, &eve);
        write(&south, "south 2");
        rounds(&other, &mut [&mut south, &mut north], 1);
        base.revoke(south.identity().id, Some(&world.fleet)).unwrap();
        if is_folded {
            base.compact().unwrap();
        }
        // Nothing on this card shows the board that it was set back before it has said what it has.
        let was = north.identity().id;
        rounds(&new, &mut [&mut base, &mut north], ROUNDS);
        assert_eq!(north.identity().id, was, "it wrote nothing that it has lost");
        digests_equal(&[&base, &north]);
        let ids = "SELECT id FROM notes WHERE id LIKE 'south%' ORDER BY id";
        assert_eq!(rows(&base, ids), rows(&north, ids));
        assert_eq!(rows(&base, ids).len(), 2, "compacted: {is_folded}");
    }
}

/// Of a stolen device there are two histories, and honest devices have taken in one of each before they hear that it is revoked:
/// all end with the same, and nothing that anybody had taken in is lost. `by_base`: the base is one of them.
#[test]
fn two_histories_of_a_stolen_device_end_as_one_among_the_honest() {
    for (by_base, is_folded) in [(false, false), (false, true), (true, false), (true, true)] {
        let world = World::new();
        let [main, one, other] = ["card", "one card", "other card"].map(|name| world.dir.path().join(name));
        [&main, &one, &other].into_iter().for_each(|card| std::fs::create_dir(card).unwrap());
        let mut base = world.base("base");
        let [mut north, mut west, mut thief] = ["north", "west", "thief"].map(|name| board(&world, name));
        write(&thief, "thief 1");
        rounds(&main, &mut [&mut thief, &mut north, &mut west, &mut base], 2);
        let mut copy = open_at(&world, &image(&thief, &world, "thief image"));
        for n in 2..4 {
            write(&thief, &format!("thief {n}"));
            thief.seal().unwrap();
        }
        write(&copy, "copy 2");
        rounds(&one, &mut [&mut thief, &mut north], 1);
        rounds(&other, &mut [&mut copy, if by_base { &mut base } else { &mut west }], 1);
        write(&north, "north 1");
        write(&west, "west 1");
        base.revoke(thief.identity().id, Some(&world.fleet)).unwrap();
        if is_folded {
            base.compact().unwrap();
        }
        rounds(&main, &mut [&mut base, &mut north, &mut west], ROUNDS);
        digests_equal(&[&base, &north, &west]);
        let ids = "SELECT id FROM notes WHERE id <> 'of all' ORDER BY id";
        let all =
            ["copy 2", "north 1", "thief 1", "thief 2", "thief 3", "west 1"].map(|id| format!("{id:?}"));
        assert_eq!(rows(&base, ids), all, "by the base: {by_base}, compacted: {is_folded}");
        // From the thief itself nothing is taken, for no other reason than that it is revoked.
        for stolen in [&mut thief, &mut copy] {
            let refused = try_import(&mut base, &bundle(stolen, &north)).unwrap_err();
            assert!(matches!(&refused, Error::Untrusted(who) if who[0].revoked), "{refused:?}");
        }
    }
}

/// Honest devices, the base first, and copies of a stolen one, which all write and meet by chance before it is revoked.
struct Stolen {
    random: Random,
    world: World,
    cards: [std::path::PathBuf; 3],
    honest: Vec<Engine>,
    copies: Vec<Engine>,
    trace: Vec<String>,
}

impl Stolen {
    fn new(seed: u64) -> Self {
        let (random, world) = (Random(seed), World::new());
        let cards = ["card 0", "card 1", "card 2"].map(|name| world.dir.path().join(name));
        cards.iter().for_each(|card| std::fs::create_dir(card).unwrap());
        let mut honest = vec![world.base("base")];
        honest.extend(["north", "west", "east"].map(|name| board(&world, name)));
        let mut thief = board(&world, "thief");
        write(&thief, "thief");
        let mut all: Vec<&mut Engine> = honest.iter_mut().collect();
        all.push(&mut thief);
        rounds(&cards[0], &mut all, 2);
        let image = |n: u32| open_at(&world, &image(&thief, &world, &format!("thief image {n}")));
        let copies = vec![image(0), image(1), thief];
        Self { random, world, cards, honest, copies, trace: Vec::new() }
    }

    fn step(&mut self, n: u32) {
        let [h, c, card] = [4, 3, 3].map(|below| self.random.below(below) as usize);
        let (honest, copy, card) = (&mut self.honest[h], &mut self.copies[c], &self.cards[card]);
        match self.random.below(8) {
            0 | 1 => {
                write(copy, &format!("copy {n}"));
                // Of each step a frame, so that the histories differ in length.
                let _ = copy.seal();
            }
            2 | 3 => {
                sql(honest, &format!("INSERT INTO notes (id, text) VALUES ('honest {n}', 'honest {n}')"))
            }
            4 => drop(exchange_with_card(copy, card)),
            5 | 6 => drop(exchange_with_card(honest, card)),
            _ if self.random.chance(30) => drop(honest.compact().unwrap()),
            // The other history of who is known already is refused.
            _ => drop(try_import(honest, &bundle(copy, honest))),
        }
        self.trace.push(format!("{n}: honest {h}, copy {c}, {card:?}"));
    }

    /// The base revokes all of the stolen device that it knows, and the honest ones exchange. Returns what is wrong then.
    fn end(mut self) -> Result<(), String> {
        let ids = "SELECT id FROM notes ORDER BY id";
        let before: Vec<String> = self.honest.iter().flat_map(|device| rows(device, ids)).collect();
        let known: Vec<_> = self.honest[0].devices().unwrap().into_iter().map(|device| device.id).collect();
        for id in self.copies.iter().map(|copy| copy.identity().id).filter(|id| known.contains(id)) {
            // One that followed another is revoked with it.
            let _ = self.honest[0].revoke(id, Some(&self.world.fleet));
        }
        let card = self.world.dir.path().join("new card");
        std::fs::create_dir(&card).unwrap();
        rounds(&card, &mut self.honest.iter_mut().collect::<Vec<_>>(), ROUNDS + 2);
        let digests: Vec<_> = self.honest.iter().map(|device| device.digest(false).unwrap()).collect();
        let now = rows(&self.honest[0], ids);
        let lost: Vec<_> = before.iter().filter(|id| !now.contains(id)).collect();
        let same = digests.iter().all(|digest| *digest == digests[0]);
        if same && lost.is_empty() {
            Ok(())
        } else {
            Err(format!("{digests:?}, lost {lost:?}: {:#?}", self.trace))
        }
    }
}

#[test]
fn whatever_histories_of_a_stolen_device_the_honest_have_they_end_the_same_and_lose_nothing() {
    check(seeds(8), &|seed| {
        let mut stolen = Stolen::new(seed);
        (0..25).for_each(|n| stolen.step(n));
        stolen.end()
    });
}

/// A base that has a copy's history of a board, upon which it has written over a row; and the board, which has written to that row
/// in frames of the same numbers. The base had not seen those.
fn written_over_by_numbers(world: &World) -> (Engine, Engine) {
    let card = world.dir.path().join("card");
    std::fs::create_dir(&card).unwrap();
    let (mut base, mut north) = (world.base("base"), board(world, "north"));
    write(&north, "north 1");
    rounds(&card, &mut [&mut north, &mut base], 2);
    let mut clone = open_at(world, &image(&north, world, "north image"));
    for n in 0..3 {
        write(&clone, &format!("clone {n}"));
        clone.seal().unwrap();
    }
    rounds(&card, &mut [&mut clone, &mut base], 1);
    sql(&base, "UPDATE notes SET text = 'base' WHERE id = 'of all'");
    for n in 2..5 {
        write(&north, &format!("north {n}"));
        north.seal().unwrap();
    }
    (base, north)
}

/// Checks that all list the same conflict, with what the board had written.
fn lists_what_north_wrote(devices: &[&Engine]) {
    digests_equal(devices);
    for device in devices {
        let conflicts = device.conflicts().unwrap();
        let versions: Vec<_> = conflicts.iter().flat_map(|c| &c.versions).map(|v| format!("{v:?}")).collect();
        let written = format!("{:?}", "north 4".as_bytes()).replace(['[', ']'], "");
        assert!(versions.iter().any(|version| version.contains(&written)), "{versions:?}");
    }
}

#[test]
fn what_a_base_wrote_upon_a_copys_history_removes_nothing_that_the_board_wrote() {
    let world = World::new();
    let (mut base, mut north) = written_over_by_numbers(&world);
    let card = world.dir.path().join("new card");
    std::fs::create_dir(&card).unwrap();
    rounds(&card, &mut [&mut base, &mut north], ROUNDS);
    lists_what_north_wrote(&[&base, &north]);
}

/// The same, where another board has taken in what the board wrote, and written on it: those frames cannot be renamed.
#[test]
fn what_a_base_wrote_so_removes_nothing_where_others_have_built_on_the_boards_frames() {
    let world = World::new();
    let (mut base, mut north) = written_over_by_numbers(&world);
    let mut south = board(&world, "south");
    let [bases, boards] = ["of the base", "of the boards"].map(|name| world.dir.path().join(name));
    [&bases, &boards].into_iter().for_each(|card| std::fs::create_dir(card).unwrap());
    rounds(&bases, &mut [&mut base], 1);
    rounds(&boards, &mut [&mut north, &mut south], 2);
    sql(&south, "INSERT INTO notes (id, text) VALUES ('of south', 'south')");
    rounds(&boards, &mut [&mut south, &mut north], 1);
    assert_eq!(rows(&north, "SELECT id FROM notes WHERE id = 'of south'").len(), 1);
    assert_eq!(rows(&south, "SELECT id FROM notes WHERE id = 'north 4'").len(), 1);
    rounds(&bases, &mut [&mut north, &mut base, &mut south], ROUNDS);
    lists_what_north_wrote(&[&base, &north, &south]);
}

/// A board takes back what it has said for what a copy of its card, which writes nothing, has said under the same numbers. What it
/// said lies on another card still: it does not come in again. It does where the base has it after all, since it was set back.
#[test]
fn what_was_taken_back_comes_in_again_from_the_base_alone() {
    for is_set_back in [false, true] {
        let world = World::new();
        let [first, second] = ["first card", "second card"].map(|name| world.dir.path().join(name));
        [&first, &second].into_iter().for_each(|card| std::fs::create_dir(card).unwrap());
        let (mut base, mut north) = (world.base("base"), board(&world, "north"));
        write(&north, "north 1");
        rounds(&first, &mut [&mut north, &mut base], 3);
        let mut copy = open_at(&world, &image(&north, &world, "north image"));
        sql(&base, "UPDATE notes SET text = 'base'");
        rounds(&second, &mut [&mut base], 1);
        let night = image(&base, &world, "base backup");
        rounds(&second, &mut [&mut north], 1);
        north.compact().unwrap();
        rounds(&second, &mut [&mut north], 1);
        rounds(&first, &mut [&mut base], 1);
        world.tick(1_000);
        rounds(&first, &mut [&mut copy], 1);
        copy.compact().unwrap();
        rounds(&first, &mut [&mut copy], 1);
        rounds(&first, &mut [&mut base], 1);
        let (id, said) = (north.identity().id, rows(&north, OWN_FRAMES));
        rounds(&first, &mut [&mut north], 1);
        assert!(rows(&north, OWN_FRAMES).len() < said.len(), "{said:?}");
        if is_set_back {
            base = restore(&world, base, &night);
            rounds(&second, &mut [&mut base, &mut north], ROUNDS);
            assert!(rows(&north, OWN_FRAMES).starts_with(&said));
        } else {
            rounds(&second, &mut [&mut north], 1);
            assert!(!rows(&north, OWN_FRAMES).contains(&said[said.len() - 1]));
            rounds(&first, &mut [&mut north, &mut base], 2);
        }
        digests_equal(&[&base, &north]);
        let frames = rows(&north, OWN_FRAMES);
        assert_eq!(frames == said, is_set_back);
        [&second, &first].into_iter().for_each(|card| rounds(card, &mut [&mut north, &mut base], 2));
        assert_eq!(rows(&north, OWN_FRAMES), frames);
        assert_eq!(north.identity().id, id);
    }
}

/// The frames of a device's own shared stream.
const OWN_FRAMES: &str = "SELECT last, hex(chain) FROM _pm_group JOIN _pm_device ON n = dev WHERE stream = 0 AND dev = 1 ORDER BY last";
