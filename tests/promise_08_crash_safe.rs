//! Promise 8: power cut at any write or sync of any operation. The databases open, are sound, have lost nothing that was
//! acknowledged, issue no number twice, and all carry on to the same content, under the identities that they had.
//!
//! A trip goes through the operations. One ([`MERGE`]): `init`, `track`, an application's transactions, seal, export,
//! import, a conflict and its resolution, which is undone, decided again in SQL, and its row restored; compaction, a
//! snapshot and who joins by it. The others stand in `tests/crash`: what a fleet lives through over a card (`fleet.rs`),
//! and two histories under one identity (`twins.rs`, `give_up.rs`), and many tables (`many_tables.rs`). The power goes at one operation of SQLite that
//! writes, often once more while the databases recover; then the trip is gone on with. So it is with a disk that is
//! full, that fails to write or sync, or to read, and where SQLite gets no memory: the command fails, and the state is
//! whole.
//!
//! A fault is tried from the step that it falls into: the files and the disk are put back as they were before it
//! ([`walk`]). What comes after is gone through once for all faults that leave the same content everywhere.
//!
//! A few faults are tried here, always the same. All of them: `just cuts`, which is
//! `PACKMULE_CUTS=all cargo test --release --test promise_08_crash_safe -- --nocapture`; `PACKMULE_CUTS=n` tries n of
//! each. `all` is every hundredth of the times that SQLite asks for memory. `PACKMULE_CUT=FAULT:N` tries the one that was
//! told as failed, in every trip and mode.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/fleet.rs"]
mod fleet;
#[path = "crash/give_up.rs"]
mod give_up;
#[path = "crash/many_tables.rs"]
mod many_tables;
#[path = "crash/twins.rs"]
mod twins;
#[path = "crash/walk.rs"]
mod walk;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Mutex;

use common::*;
use disk::Fault;
use packmule::{
    Conflict, Engine, Error, InitOptions, JoinOptions, OwnedValue, Recipient, Resolution, TrackOptions,
};
use rusqlite::Connection;
use walk::{Known, faults, tried};

/// The disk is one for the program: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

type Done<R = ()> = Result<R, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A BLOB in hex, always the same of a row: databases that are alike are found to be so.
fn noise(id: i64) -> String {
    let mut random = Random(id as u64);
    (0..190).map(|_| format!("{:016x}", random.next())).collect()
}

type Step = fn(&mut Trip) -> Done;

/// What happens on a trip. Each step can be gone again, whatever a fault has left of it.
struct Plan {
    name: &'static str,
    steps: &'static [Step],
    /// How the devices send to each other at the end: who sends, and to whom.
    ways: &'static [(&'static str, &'static str)],
    /// Rows of the table at the end.
    rows: i64,
}

const MERGE: Plan = Plan {
    name: "merge",
    steps: &[
        |trip| trip.init("north", false),
        |trip| trip.init("base", true),
        |trip| trip.sql("north", "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT, b BLOB)"),
        |trip| trip.insert("north", 1),
        |trip| trip.open("north")?.track("t", &TrackOptions::default()).map(drop).map_err(text),
        |trip| trip.insert("north", 10),
        |trip| trip.open("north")?.seal().map(drop).map_err(text),
        |trip| trip.carry("north", "base"),
        |trip| trip.sql("base", "UPDATE t SET v = 'by the base' WHERE id IN (1, 3)"),
        |trip| {
            trip.gone.push(2);
            trip.sql("north", "UPDATE t SET v = 'by north' WHERE id IN (1, 3); DELETE FROM t WHERE id = 2")
        },
        |trip| trip.carry("north", "base").and_then(|()| trip.carry("base", "north")),
        Trip::resolve,
        Trip::undo,
        Trip::decide_in_sql,
        Trip::restore,
        |trip| trip.carry("base", "north").and_then(|()| trip.carry("north", "base")),
        |trip| trip.compact("base").and_then(|()| trip.compact("north")),
        Trip::join,
        |trip| trip.insert("south", 20).and_then(|()| trip.insert("base", 30)),
    ],
    ways: &[("north", "base"), ("south", "base"), ("base", "north"), ("base", "south")],
    rows: 11,
};

#[derive(Clone)]
struct Trip {
    plan: &'static Plan,
    world: Rc<World>,
    /// What has been looked at already.
    known: Rc<RefCell<Known>>,
    /// The journal mode of the databases; `None`: WAL, as `init` sets it.
    journal: Option<&'static str>,
    /// Rows of whose transactions applications were told that they are done: on which device.
    told: Vec<(&'static str, i64)>,
    /// The highest number of each stream on each device, after each operation that was done.
    numbers: BTreeMap<(String, String), i64>,
    /// Rows that an application deletes.
    gone: Vec<i64>,
    devices: BTreeSet<&'static str>,
    /// Who the devices are that stay who they are.
    identities: BTreeMap<&'static str, String>,
    /// What was said of files that were skipped.
    skipped: String,
    /// The conflict of row 1 that was resolved, and what the row was before.
    decided: Option<(String, String)>,
}

impl Trip {
    fn new(plan: &'static Plan, journal: Option<&'static str>) -> Self {
        Self {
            plan,
            world: Rc::new(World::new()),
            known: Rc::default(),
            journal,
            told: Vec::new(),
            numbers: BTreeMap::new(),
            gone: Vec::new(),
            devices: BTreeSet::new(),
            identities: BTreeMap::new(),
            skipped: String::new(),
            decided: None,
        }
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
        self.devices.insert(name);
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
            sql += &format!("INSERT OR IGNORE INTO t (id, v, b) VALUES ({id}, '{name}', x'{}');", noise(id));
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

    fn compact(&self, name: &str) -> Done {
        self.open(name)?.compact().map(drop).map_err(text)
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
        base.restore("t", &key, (me, first.ok_or("the base wrote nothing")?), false).map(drop).map_err(text)
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
        self.devices.insert("south");
        self.identities.insert("south", id);
        Ok(())
    }

    /// Notes up to where each stream is known, which nobody may forget.
    fn note(&mut self) {
        for name in self.identities.keys().copied() {
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

    /// SQLite and Packmule find nothing wrong.
    fn is_sound(&self, name: &str, db: &Connection) -> Done {
        let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(text)?;
        if sound != "ok" {
            return Err(format!("{name}: {sound}"));
        }
        let problems = self.open(name)?.verify().map_err(text)?.problems;
        if problems.is_empty() { Ok(()) } else { Err(format!("{name}: {problems:?}")) }
    }

    /// Nothing that was told is lost, and each database is sound.
    fn check(&self) -> Done {
        for name in &self.devices {
            let image = walk::image(&self.world.path(name));
            let is_new = !self.known.borrow().sound.contains(&image);
            let db = self.app(name)?;
            if is_new {
                self.is_sound(name, &db)?;
                self.known.borrow_mut().sound.insert(image);
            }
            for (_, id) in self.told.iter().filter(|(of, id)| of == name && !self.gone.contains(id)) {
                let sql = format!("SELECT count(*) FROM t WHERE id = {id}");
                if db.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(text)? != 1 {
                    return Err(format!("{name}: row {id} is lost"));
                }
            }
            drop(db);
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
            for (from, to) in self.plan.ways {
                self.carry(from, to)?;
            }
        }
        self.check()?;
        let mut digests = Vec::new();
        for name in &self.devices {
            let engine = self.open(name)?;
            let id = engine.identity().id.to_string();
            if self.identities.get(name).is_some_and(|was| *was != id) {
                return Err(format!("{name} has another identity"));
            }
            digests.push(engine.digest(false).map_err(text)?);
            view_shows_conflicts(&engine);
            let db = self.app(name)?;
            let n: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).map_err(text)?;
            if n != self.plan.rows {
                return Err(format!("{name}: {n} rows of {}", self.plan.rows));
            }
        }
        if digests.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err("digests differ".into()) }
    }
}

fn one() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Tries all of these; nothing may go wrong.
fn all_hold(plan: &'static Plan, all: &[(Option<&'static str>, Fault, u64)]) {
    let _one = one();
    let wrong: Vec<String> = all
        .iter()
        .flat_map(|(journal, fault, usual)| faults(plan, *journal, *fault, *usual, false))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const ROLLBACK: [Option<&str>; 3] = [Some("delete"), Some("truncate"), Some("persist")];

#[test]
fn power_cut_at_any_write() {
    all_hold(&MERGE, &[(None, Fault::Cut, 6)]);
}

#[test]
fn power_cut_at_any_write_with_a_rollback_journal() {
    all_hold(
        &MERGE,
        &[(ROLLBACK[0], Fault::Cut, 6), (ROLLBACK[1], Fault::Cut, 3), (ROLLBACK[2], Fault::Cut, 3)],
    );
}

/// What is told is not called damage, and what was not told did not happen, or did.
#[test]
fn a_disk_that_is_full_or_fails_changes_nothing() {
    let faults = [Fault::Full, Fault::Broken, Fault::Unreadable, Fault::NoMemory];
    all_hold(&MERGE, &faults.map(|fault| (None, fault, 2)));
    all_hold(&MERGE, &faults.map(|fault| (ROLLBACK[0], fault, 1)));
}

#[test]
fn power_cut_at_any_write_of_a_fleets_life() {
    all_hold(&fleet::LIFE, &[(None, Fault::Cut, 4), (ROLLBACK[0], Fault::Cut, 2)]);
}

#[test]
fn a_disk_that_fails_in_a_fleets_life_changes_nothing() {
    let faults = [Fault::Full, Fault::Broken, Fault::Unreadable, Fault::NoMemory];
    all_hold(&fleet::LIFE, &faults.map(|fault| (None, fault, 1)));
}

#[test]
fn power_cut_at_any_write_while_a_second_history_goes_on_beside_the_first() {
    all_hold(&twins::TWINS, &[(None, Fault::Cut, 3), (ROLLBACK[0], Fault::Cut, 1)]);
}

#[test]
fn a_disk_that_fails_while_a_second_history_goes_on_changes_nothing() {
    let faults = [Fault::Full, Fault::Broken, Fault::Unreadable, Fault::NoMemory];
    all_hold(&twins::TWINS, &faults.map(|fault| (None, fault, 1)));
}

/// The control: a disk that tells syncs as done, and does nothing, is found out.
#[test]
fn a_disk_that_swallows_syncs_is_found_out() {
    let _one = one();
    for plan in [&MERGE, &fleet::LIFE, &twins::TWINS] {
        let wrong = faults(plan, None, Fault::Cut, 3, true);
        assert!(!wrong.is_empty(), "{}", plan.name);
    }
}
