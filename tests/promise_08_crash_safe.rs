//! Promise 8: power cut at any write or sync of any operation. The databases open, are sound, have lost nothing that was
//! acknowledged, issue no number twice, and all carry on to the same content, under the identities that they had.
//!
//! A trip goes through the operations: `init`, `track`, an application's transactions, seal, export, import,
//! a conflict and its resolution, which is undone, decided again in SQL, and its row restored; compaction, a snapshot and who joins by it. The power goes at one operation of SQLite
//! that writes, often once more while the databases recover; then the trip is gone on with. So it is with a disk that
//! is full, that fails to write or sync, or to read: the command fails, and the state is whole.
//!
//! A few cuts are tried here, always the same. All of them:
//! `PACKMULE_CUTS=all cargo test --release --test promise_08_crash_safe -- --nocapture`; `PACKMULE_CUTS=n` tries n.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
#[path = "crash/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::sync::Mutex;

use common::*;
use disk::Fault;
use packmule::{
    Conflict, Engine, Error, InitOptions, JoinOptions, OwnedValue, Recipient, Resolution, TrackOptions,
};
use rusqlite::Connection;

/// The disk is one for the program: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

type Done<R = ()> = Result<R, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

struct Trip {
    world: World,
    /// The journal mode of the databases; `None`: WAL, as `init` sets it.
    journal: Option<&'static str>,
    /// Rows of whose transactions applications were told that they are done: on which device.
    told: Vec<(&'static str, i64)>,
    /// The highest number of each stream on each device, after each operation that was done.
    numbers: BTreeMap<(String, String), i64>,
    identities: BTreeMap<&'static str, String>,
    /// The conflict of row 1 that was resolved, and what the row was before.
    decided: Option<(String, String)>,
}

const STEPS: usize = 19;

impl Trip {
    fn new(journal: Option<&'static str>) -> Self {
        let world = World::new();
        let (told, numbers, identities) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { world, journal, told, numbers, identities, decided: None }
    }

    fn open(&self, name: &str) -> Done<Engine> {
        Engine::open_with(&self.world.path(name), self.world.options()).map_err(text)
    }

    /// Makes a device, if a cut had not left it made.
    fn init(&mut self, name: &'static str, base: bool) -> Done {
        let init = InitOptions { name, base, fleet: Some(&self.world.fleet) };
        let path = self.world.path(name);
        match Engine::init_with(&path, &init, self.world.options()) {
            Ok(engine) => drop(engine),
            Err(Error::AlreadyADevice { .. }) => {}
            Err(e) => return Err(text(e)),
        }
        if let Some(mode) = self.journal {
            self.app(name)?
                .query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))
                .map_err(text)?;
        }
        let id = self.open(name)?.identity().id.to_string();
        self.identities.insert(name, id);
        Ok(())
    }

    /// An application's connection, that wants what it is told to be durable.
    fn app(&self, name: &str) -> Done<Connection> {
        let db = Connection::open(self.world.path(name)).map_err(text)?;
        db.execute_batch("PRAGMA synchronous = EXTRA").map_err(text)?;
        Ok(db)
    }

    fn sql(&self, name: &str, sql: &str) -> Done {
        self.app(name)?.execute_batch(sql).map_err(text)
    }

    /// A transaction of an application.
    fn insert(&mut self, name: &'static str, first: i64) -> Done {
        let mut sql = String::from("BEGIN;");
        for id in first..first + 3 {
            sql += &format!("INSERT OR IGNORE INTO t VALUES ({id}, '{name}', randomblob(1500));");
        }
        self.sql(name, &(sql + "COMMIT"))?;
        self.told.extend((first..first + 3).map(|id| (name, id)));
        Ok(())
    }

    fn carry(&mut self, from: &str, to: &str) -> Done {
        let (mut a, mut b) = (self.open(from)?, self.open(to)?);
        let mut bytes = Vec::new();
        a.export(&mut bytes, Recipient::Device(b.identity().id)).map_err(text)?;
        drop(a);
        b.import(&mut std::io::Cursor::new(bytes), &mut |_| ()).map(drop).map_err(text)
    }

    fn step(&mut self, n: usize) -> Done {
        match n {
            0 => self.init("north", false),
            1 => self.init("base", true),
            2 => self.sql("north", "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT, b BLOB)"),
            3 => self.insert("north", 1),
            4 => self.open("north")?.track("t", &TrackOptions::default()).map(drop).map_err(text),
            5 => self.insert("north", 10),
            6 => self.open("north")?.seal().map(drop).map_err(text),
            7 => self.carry("north", "base"),
            8 => self.sql("base", "UPDATE t SET v = 'by the base' WHERE id IN (1, 3)"),
            9 => self
                .sql("north", "UPDATE t SET v = 'by north' WHERE id IN (1, 3); DELETE FROM t WHERE id = 2"),
            10 => self.carry("north", "base").and_then(|()| self.carry("base", "north")),
            11 => self.resolve(),
            12 => self.undo(),
            13 => self.decide_in_sql(),
            14 => self.restore(),
            15 => self.carry("base", "north").and_then(|()| self.carry("north", "base")),
            16 => {
                self.open("base")?.compact().map_err(text)?;
                self.open("north")?.compact().map(drop).map_err(text)
            }
            17 => self.join(),
            _ => self.insert("south", 20).and_then(|()| self.insert("base", 30)),
        }
    }

    fn value(&self, name: &str) -> Done<String> {
        self.app(name)?.query_row("SELECT v FROM t WHERE id = 1", [], |row| row.get(0)).map_err(text)
    }

    /// Row 1 becomes what it was not.
    fn resolve(&mut self) -> Done {
        let mut base = self.open("base")?;
        let open = base.conflicts().map_err(text)?;
        let of_row = |conflict: &&Conflict| conflict.key == [("id".to_owned(), OwnedValue::Int(1))];
        let Some(conflict) = open.iter().find(of_row) else { return Ok(()) };
        self.decided = Some((conflict.id.clone(), self.value("base")?));
        let other =
            conflict.versions.iter().find(|version| !version.shown).and_then(|version| version.device);
        let take = Resolution::Take(other.ok_or("no other version")?);
        base.resolve(&conflict.id, &take).map_err(text)
    }

    /// The resolution is undone, if a cut had not left it undone.
    fn undo(&mut self) -> Done {
        let (id, before) = self.decided.clone().ok_or("nothing was decided")?;
        if self.value("base")? != before {
            self.open("base")?.undo_resolution(&id).map_err(text)?;
        }
        let now = self.value("base")?;
        if now == before { Ok(()) } else { Err(format!("{now} after the undo, and not {before}")) }
    }

    /// An application decides; the next seal carries it out, once.
    fn decide_in_sql(&mut self) -> Done {
        let decide = "UPDATE packmule_conflicts SET take = 'newest' WHERE kind NOT NULL";
        self.sql("base", decide)?;
        let mut base = self.open("base")?;
        base.seal().map_err(text)?;
        let left: i64 = self
            .app("base")?
            .query_row("SELECT count(*) FROM packmule_conflicts", [], |row| row.get(0))
            .map_err(text)?;
        if left == 0 { Ok(()) } else { Err(format!("{left} decisions or conflicts are left")) }
    }

    /// The row is as the base's first frame of it has it.
    fn restore(&mut self) -> Done {
        let mut base = self.open("base")?;
        let (me, mut first) = (base.identity().id, None);
        let mut see = |item: packmule::HistoryItem<'_>| {
            if let packmule::HistoryItem::Group(group) = item
                && group.author == me
            {
                first.get_or_insert(group.frames.0);
            }
            Ok(())
        };
        let key = [OwnedValue::Int(1)];
        base.log(Some("t"), &key, &mut see).map_err(text)?;
        base.restore("t", &key, me, first.ok_or("the base wrote nothing")?).map(drop).map_err(text)
    }

    /// A newcomer starts from a snapshot, if a cut had not let it.
    fn join(&mut self) -> Done {
        let mut snapshot = Vec::new();
        self.open("base")?.snapshot(&mut snapshot).map_err(text)?;
        let path = self.world.path("south");
        let options = JoinOptions { name: Some("south"), fleet: Some(&self.world.fleet) };
        let there = Engine::open_with(&path, self.world.options()).is_ok_and(|engine| {
            engine.status().is_ok_and(|status| status.tables.iter().any(|table| table.name == "t"))
        });
        if !there {
            let mut input = std::io::Cursor::new(snapshot);
            Engine::join(&path, &mut input, &options, self.world.options()).map(drop).map_err(text)?;
        }
        let id = self.open("south")?.identity().id.to_string();
        self.identities.insert("south", id);
        Ok(())
    }

    /// Notes up to where each stream is known, which nobody may forget.
    fn note(&mut self) {
        for name in ["north", "base", "south"] {
            for (stream, last) in self.streams(name) {
                self.numbers.insert((name.into(), stream), last);
            }
        }
    }

    fn streams(&self, name: &str) -> Vec<(String, i64)> {
        let Ok(db) = self.app(name) else { return Vec::new() };
        let sql = "SELECT hex(d.id) || s.stream, s.seq FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev";
        let Ok(mut statement) = db.prepare(sql) else { return Vec::new() };
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).unwrap_or_default()
    }

    /// Nothing that was told is lost, and each database is sound.
    fn check(&self) -> Done {
        for name in self.identities.keys() {
            let db = self.app(name)?;
            let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(text)?;
            if sound != "ok" {
                return Err(format!("{name}: {sound}"));
            }
            for (_, id) in self.told.iter().filter(|(of, id)| of == name && *id != 2) {
                let sql = format!("SELECT count(*) FROM t WHERE id = {id}");
                if db.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(text)? != 1 {
                    return Err(format!("{name}: row {id} is lost"));
                }
            }
            drop(db);
            let problems = self.open(name)?.verify().map_err(text)?.problems;
            if !problems.is_empty() {
                return Err(format!("{name}: {problems:?}"));
            }
            let now: BTreeMap<String, i64> = self.streams(name).into_iter().collect();
            for ((_, stream), last) in self.numbers.iter().filter(|((of, _), _)| of == name) {
                if now.get(stream).is_none_or(|at| at < last) {
                    return Err(format!("{name}: it had {last} of {stream}, and has {now:?}"));
                }
            }
        }
        Ok(())
    }

    /// All come to the same content, as who they were.
    fn end(&mut self) -> Done {
        for _ in 0..3 {
            for (from, to) in [("north", "base"), ("south", "base"), ("base", "north"), ("base", "south")] {
                self.carry(from, to)?;
            }
        }
        self.check()?;
        let mut digests = Vec::new();
        for (name, id) in &self.identities {
            let engine = self.open(name)?;
            if engine.identity().id.to_string() != *id {
                return Err(format!("{name} has another identity"));
            }
            digests.push(engine.digest(false).map_err(text)?);
            view_shows_conflicts(&engine);
            let db = self.app(name)?;
            let n: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).map_err(text)?;
            if n != 11 {
                return Err(format!("{name}: {n} rows of 11"));
            }
        }
        if digests.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err("digests differ".into()) }
    }
}

/// Goes on the whole trip with a fault at one operation. `Ok(false)`: the trip has fewer operations.
fn trip(journal: Option<&'static str>, fault: (Fault, u64), swallows: bool) -> Done<bool> {
    let mut random = Random(fault.1);
    disk::begin(Some(fault), swallows);
    let mut trip = Trip::new(journal);
    let (mut n, mut faulty, mut again) = (0, false, random.chance(50));
    while n < STEPS {
        let done = trip.step(n);
        let (out, failed) = disk::state();
        if out {
            faulty = true;
            disk::power_on(&mut random);
            if std::mem::take(&mut again) {
                // Once more, while they recover.
                disk::next_fault(Some((Fault::Cut, 1 + random.below(12))));
                let _ = trip.check();
                if disk::state().0 {
                    disk::power_on(&mut random);
                }
            }
            disk::next_fault(None);
            trip.check().map_err(|e| format!("after a cut in step {n}: {e}"))?;
            continue;
        }
        if failed {
            faulty = true;
            disk::next_fault(None);
            if let Err(e) = &done
                && (e.contains("damaged") || e.contains("malformed"))
            {
                return Err(format!("step {n}: a failure of the disk is called damage: {e}"));
            }
            trip.check().map_err(|e| format!("after a failure in step {n}: {e}"))?;
            if done.is_err() {
                continue;
            }
        }
        done.map_err(|e| format!("step {n}: {e}"))?;
        trip.note();
        n += 1;
    }
    if !faulty {
        return Ok(false);
    }
    trip.end().map_err(|e| format!("at the end: {e}"))?;
    Ok(true)
}

/// The operations of a trip at which nothing happens: those that write, those that read.
fn operations(journal: Option<&'static str>) -> (u64, u64) {
    assert_eq!(trip(journal, (Fault::Cut, u64::MAX), false), Ok(false));
    disk::operations()
}

/// Which operations are tried, of so many: evenly spread.
fn tried(of: u64, usual: u64) -> Vec<u64> {
    let n = match std::env::var("PACKMULE_CUTS").ok().as_deref() {
        Some("all") => of,
        Some(n) => n.parse().unwrap(),
        None => usual,
    };
    (0..n.min(of)).map(|k| 1 + k * of / n.min(of)).collect()
}

/// Tries a fault at operations of a trip; what went wrong.
fn faults(journal: Option<&'static str>, fault: Fault, usual: u64, swallows: bool) -> Vec<String> {
    let (writes, reads) = operations(journal);
    let of = if fault == Fault::Unreadable { reads } else { writes };
    let at = tried(of, usual);
    let mut wrong = Vec::new();
    for at in &at {
        match trip(journal, (fault, *at), swallows) {
            Ok(_) => {}
            Err(e) => wrong.push(format!("{fault:?} at operation {at}, {}: {e}", journal.unwrap_or("wal"))),
        }
    }
    let mode = journal.unwrap_or("wal");
    println!("{mode}, {fault:?}: {} of {of} operations tried, {} failures", at.len(), wrong.len());
    wrong
}

fn one() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

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
    let (before, _) = disk::operations();
    disk::next_fault(Some((Fault::Cut, at)));
    let done = fork.give_up();
    if disk::state().0 {
        disk::power_on(&mut random);
        fork.open("east")?;
        fork.give_up()?;
    } else {
        done?;
    }
    let (after, _) = disk::operations();
    disk::next_fault(None);
    fork.end()?;
    Ok(after - before)
}

/// A second history is given up: the power goes at any write of that.
#[test]
fn power_cut_while_a_history_is_given_up() {
    let _one = one();
    let of = cut_while_giving_up(u64::MAX / 2, false).unwrap();
    let at = tried(of, 12);
    let wrong: Vec<String> = at
        .iter()
        .filter_map(|at| cut_while_giving_up(*at, false).err().map(|e| format!("operation {at}: {e}")))
        .collect();
    println!("giving up: {} of {of} operations tried, {} failures", at.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The control.
    assert!((1..=3).any(|n| cut_while_giving_up(of * n / 4, true).is_err()));
}

#[test]
fn power_cut_at_any_write() {
    let _one = one();
    let wrong = faults(None, Fault::Cut, 6, false);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn power_cut_at_any_write_with_a_rollback_journal() {
    let _one = one();
    let wrong = faults(Some("delete"), Fault::Cut, 6, false);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_disk_that_is_full_or_fails_changes_nothing() {
    let _one = one();
    for fault in [Fault::Full, Fault::Broken, Fault::Unreadable] {
        let wrong = faults(None, fault, 2, false);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// The control: a disk that tells syncs as done, and does nothing, is found out.
#[test]
fn a_disk_that_swallows_syncs_is_found_out() {
    let _one = one();
    let wrong = faults(None, Fault::Cut, 3, true);
    assert!(!wrong.is_empty());
}
