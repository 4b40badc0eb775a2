//! Another device's second history, on which a board has built, is given up for the first.

use packmule::{Engine, Error};

use super::common::*;
use super::disk::{self, Fault};
use super::{Done, one, text, tried};

/// East has built on the second history of west, that of a copy of its card; the base has the first one.
struct Fork {
    world: World,
    /// Who all are, but for the copy.
    before: Vec<String>,
    /// The base's bundle for east.
    bytes: Vec<u8>,
}

const HONEST: [&str; 3] = ["base", "west", "east"];

impl Fork {
    fn new(swallows: bool) -> Self {
        disk::begin(None, swallows);
        let world = World::new();
        let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)";
        let mut base = world.base("base");
        let [mut west, mut east] = ["west", "east"].map(|name| world.board_with(name, table, &["t"]));
        sql(&west, "INSERT INTO t VALUES (1, 'first')");
        carry(&mut west, &mut base);
        carry(&mut base, &mut east);
        copy_card(&west, &world.path("copy"));
        let mut copy = Engine::open_with(&world.path("copy"), world.options()).unwrap();
        world.tick(1_000);
        sql(&west, "UPDATE t SET v = 'west' WHERE id = 1");
        carry(&mut west, &mut base);
        sql(&copy, "INSERT INTO t VALUES (2, 'copy')");
        carry(&mut copy, &mut east);
        sql(&east, "UPDATE t SET v = v || ', east'");
        east.seal().unwrap();
        sql(&east, "INSERT INTO t VALUES (3, 'not sealed')");
        let bytes = bundle(&mut base, &east);
        let before = [&base, &west, &east].map(|engine| engine.identity().id.to_string()).into();
        Self { world, before, bytes }
    }

    fn open(&self, name: &str) -> Done<Engine> {
        Engine::open_with(&self.world.path(name), self.world.options()).map_err(text)
    }

    /// East takes the base's bundle in, and gives up what it has of the copy.
    fn give_up(&self) -> Done {
        let mut bytes = std::io::Cursor::new(&self.bytes);
        self.open("east")?.import(&mut bytes, &mut |_| ()).map(drop).map_err(text)
    }

    /// All meet, and have the same: also what east wrote on the copy's rows.
    fn end(&self) -> Done {
        for _ in 0..4 {
            for board in ["east", "west", "copy"] {
                for (from, to) in [("base", board), (board, "base")] {
                    let (mut from, mut to) = (self.open(from)?, self.open(to)?);
                    let bytes = bundle(&mut from, &to);
                    match try_import(&mut to, &bytes) {
                        Ok(_) | Err(Error::Twin { .. }) => {}
                        Err(e) => return Err(text(e)),
                    }
                }
            }
        }
        let mut digests = Vec::new();
        for name in ["base", "west", "east", "copy"] {
            let engine = self.open(name)?;
            digests.push(engine.digest(false).map_err(text)?);
            let problems = engine.verify().map_err(text)?.problems;
            if !problems.is_empty() {
                return Err(format!("{name}: {problems:?}"));
            }
        }
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("digests differ: {digests:?}"));
        }
        let east = self.open("east")?;
        let rows = rows(&east, "SELECT id, v FROM t WHERE id > 1 ORDER BY id");
        if rows != ["2|\"copy, east\"", "3|\"not sealed\""] {
            return Err(format!("{rows:?}"));
        }
        for (name, before) in HONEST.iter().zip(&self.before) {
            if self.open(name)?.identity().id.to_string() != *before {
                return Err(format!("{name} has another identity"));
            }
        }
        let notices = east.status().map_err(text)?.notices;
        let given_up =
            notices.iter().filter(|n| n.text.contains("it has given that up for the first")).count();
        if given_up == 1 { Ok(()) } else { Err(format!("{given_up} times given up: {notices:?}")) }
    }
}

/// Cuts the power at an operation of what east does to give up a history; how many operations that has.
fn cut_while_giving_up(at: u64, swallows: bool) -> Done<u64> {
    let fork = Fork::new(swallows);
    let mut random = Random(at);
    let before = disk::operations(Fault::Cut);
    disk::next_fault(Some((Fault::Cut, at)));
    let done = fork.give_up();
    if disk::state().0 {
        disk::power_on(&mut random);
        fork.open("east")?;
        fork.give_up()?;
    } else {
        done?;
    }
    let after = disk::operations(Fault::Cut);
    disk::next_fault(None);
    fork.end()?;
    Ok(after - before)
}

/// A second history is given up: the power goes at any write of that.
#[test]
fn power_cut_while_a_history_is_given_up() {
    let _one = one();
    let of = cut_while_giving_up(u64::MAX / 2, false).unwrap();
    let at = tried(Fault::Cut, of, 12);
    let wrong: Vec<String> = at
        .iter()
        .filter_map(|at| cut_while_giving_up(*at, false).err().map(|e| format!("operation {at}: {e}")))
        .collect();
    println!("giving up: {} of {of} operations tried, {} failures", at.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The control.
    assert!((1..=3).any(|n| cut_while_giving_up(of * n / 4, true).is_err()));
}
