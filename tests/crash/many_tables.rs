//! Many tables are tracked by one command, whose triggers are put into the schema at once; then rows come for tables that say
//! themselves what they do where a value is taken, with triggers that write to others which do so too.

use packmule::{Engine, TrackOptions};

use super::common::*;
use super::disk::{self, Fault};
use super::{Done, one, text, tried};

/// From 32 on they are put there at once (`capture/at_once.rs`).
const TABLES: usize = 33;

/// A table whose constraint says what it does where a value is taken, and triggers that write to another such table.
const CLASHES: &str = "CREATE TABLE u (id INTEGER PRIMARY KEY, u TEXT UNIQUE ON CONFLICT REPLACE, v TEXT);
    CREATE TABLE seen (u TEXT UNIQUE ON CONFLICT REPLACE, id INTEGER);
    CREATE TRIGGER came AFTER INSERT ON u BEGIN INSERT INTO seen VALUES (NEW.u, NEW.id); END;
    CREATE TRIGGER changed AFTER UPDATE ON u BEGIN INSERT INTO seen VALUES (NEW.u, NEW.id); END;";

struct Boards {
    world: World,
    names: Vec<String>,
}

impl Boards {
    fn new(swallows: bool) -> Self {
        disk::begin(None, swallows);
        let world = World::new();
        let names: Vec<String> = (0..TABLES).map(|n| format!("t{n}")).chain(["u".into()]).collect();
        let made: String = (0..TABLES)
            .map(|n| format!("CREATE TABLE t{n} (id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t{n} VALUES (1, 'a');"))
            .collect();
        for name in ["north", "base"] {
            let device = if name == "base" { world.base(name) } else { world.board(name) };
            sql(&device, &format!("BEGIN; {made} {CLASHES} COMMIT"));
        }
        Self { world, names }
    }

    fn open(&self, name: &str) -> Done<Engine> {
        Engine::open_with(&self.world.path(name), self.world.options()).map_err(text)
    }

    fn track(&self, name: &str) -> Done {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.open(name)?.track_all(&names, &TrackOptions::default()).map(drop).map_err(text)
    }

    /// All of them are captured, or none.
    fn is_whole(&self) -> Done {
        let north = self.open("north")?;
        let sound = rows(&north, "PRAGMA integrity_check");
        let captured = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_pm\\_insert\\_%' ESCAPE '\\'";
        let captured = rows(&north, captured).remove(0);
        let all = self.names.len().to_string();
        match sound == ["\"ok\""] && [all, "0".into()].contains(&captured) {
            true => Ok(()),
            false => Err(format!("{sound:?}, {captured} tables are captured")),
        }
    }

    fn carry(&self, from: &str, to: &str) -> Done {
        let bytes = bundle(&mut self.open(from)?, &self.open(to)?);
        self.take_in(to, &bytes)
    }

    fn take_in(&self, name: &str, bytes: &[u8]) -> Done {
        self.open(name)?.import(&mut std::io::Cursor::new(bytes), &mut |_| ()).map(drop).map_err(text)
    }

    /// Both have written to tables that they have in common: what comes clashes with what is there.
    fn write(&self) -> Done {
        self.carry("north", "base").and_then(|()| self.carry("base", "north"))?;
        sql(
            &self.open("north")?,
            "UPDATE t3 SET v = 'north'; INSERT INTO u VALUES (1, 'taken', 'n'), (2, 'free', 'n')",
        );
        self.world.tick(1_000);
        sql(&self.open("base")?, "UPDATE t7 SET v = 'base'; INSERT INTO u VALUES (3, 'taken', 'b')");
        self.open("base")?.seal().map(drop).map_err(text)
    }

    /// All meet, and have the same: of two rows with one value the one that is kept out is listed.
    fn end(&self) -> Done {
        for _ in 0..2 {
            self.carry("north", "base").and_then(|()| self.carry("base", "north"))?;
        }
        let (north, base) = (self.open("north")?, self.open("base")?);
        for engine in [&north, &base] {
            let name = &engine.identity().name;
            let problems = engine.verify().map_err(text)?.problems;
            let conflicts = engine.conflicts().map_err(text)?.len();
            let shown = rows(engine, "SELECT (SELECT v FROM t3), (SELECT v FROM t7), count(*) FROM u");
            let seen = rows(engine, "SELECT count(*) FROM u WHERE u NOT IN (SELECT u FROM seen)");
            if !problems.is_empty() || conflicts != 1 || shown != ["\"north\"|\"base\"|2"] || seen != ["0"] {
                return Err(format!(
                    "{name}: {problems:?}, {conflicts} conflicts, {shown:?}, {seen:?} not seen"
                ));
            }
        }
        let digests = [&north, &base].map(|engine| engine.digest(false).map_err(text));
        if digests[0] == digests[1] { Ok(()) } else { Err(format!("digests differ: {digests:?}")) }
    }
}

/// Cuts the power at an operation of what is done; how many operations that has.
fn cut_during(boards: &Boards, at: u64, work: &dyn Fn(&Boards) -> Done) -> Done<u64> {
    let mut random = Random(at);
    let before = disk::operations(Fault::Cut);
    disk::next_fault(Some((Fault::Cut, at)));
    let done = work(boards);
    if disk::state().0 {
        disk::power_on(&mut random);
        boards.is_whole()?;
        work(boards)?;
    } else {
        done?;
    }
    let after = disk::operations(Fault::Cut);
    disk::next_fault(None);
    Ok(after - before)
}

fn cut_while_tracking(at: u64, swallows: bool) -> Done<u64> {
    let boards = Boards::new(swallows);
    boards.track("base")?;
    let of = cut_during(&boards, at, &|boards| boards.track("north"))?;
    boards.write().and_then(|()| boards.end())?;
    Ok(of)
}

fn cut_while_it_clashes(at: u64, swallows: bool) -> Done<u64> {
    let boards = Boards::new(swallows);
    boards.track("base").and_then(|()| boards.track("north"))?;
    boards.write()?;
    let bytes = bundle(&mut boards.open("base")?, &boards.open("north")?);
    let of = cut_during(&boards, at, &|boards| boards.take_in("north", &bytes))?;
    boards.end()?;
    Ok(of)
}

fn all_hold(what: &str, cut: fn(u64, bool) -> Done<u64>) {
    let _one = one();
    let of = cut(u64::MAX / 2, false).unwrap();
    let at = tried(Fault::Cut, of, 8);
    let wrong: Vec<String> =
        at.iter().filter_map(|at| cut(*at, false).err().map(|e| format!("operation {at}: {e}"))).collect();
    println!("{what}: {} of {of} operations tried, {} failures", at.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The control.
    assert!((1..=3).any(|n| cut(of * n / 4, true).is_err()));
}

/// Many tables are tracked at once: the power goes at any write of that.
#[test]
fn power_cut_while_many_tables_are_tracked() {
    all_hold("tracking many tables", cut_while_tracking);
}

/// Rows come whose values are taken, for tables that say themselves what they do then.
#[test]
fn power_cut_while_values_that_are_taken_come() {
    all_hold("values that are taken", cut_while_it_clashes);
}
