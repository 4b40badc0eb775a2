//! Applications of three devices that migrate one table, each in its own time, between writes and carries: once all have
//! migrated and met, all are alike, nothing is held, and nothing is in conflict that nobody wrote twice.
//!
//! A type that was changed before devices ever met is a dispute, which a person decides (`tests/declarations.rs`), and is
//! left out here.
//!
//! `PACKMULE_SEED=N` replays one schedule; `PACKMULE_SCHEDULES=N` says how many are run, from `PACKMULE_FIRST=N` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use common::*;
use packmule::core::model::DeviceId;
use packmule::{Engine, Merge, TableHow, TrackOptions};

/// How many schedules are run where it is not said.
const USUAL: u64 = 40;

#[derive(Clone, Debug)]
enum Migration {
    Add(String, &'static str),
    Rename(String, String),
    Drop(String),
    Retype,
    Rebuild,
    /// Renamed and retyped in one go.
    Both(String, String),
    /// A column with a UNIQUE index over it.
    Unique(String),
}

/// The columns of a version of the application, beside the key: name and type.
type Columns = Vec<(String, &'static str)>;

/// Schedules that failed once, each for a reason of its own: `tests/schema_life.rs` has what most of them came to.
const PINNED: [u64; 23] = [
    56, 107, 168, 193, 286, 334, 351, 357, 415, 427, 448, 465, 551, 583, 609, 612, 61_027, 200_065, 400_008,
    400_234, 700_124, 700_168, 710_154,
];

/// The same, of fleets whose cards are copied.
const PINNED_COPIES: [u64; 15] = [
    63, 88, 231, 286, 367, 1087, 1217, 61_048, 200_029, 400_382, 400_435, 400_487, 700_028, 720_020, 720_048,
];

const TYPES: [&str; 4] = ["", "TEXT", "INTEGER", "REAL"];

/// Makes the versions of the application: the columns of each, and how it comes from the one before; with `wide` in more
/// forms than ORMs have.
fn versions(random: &mut Random, wide: bool) -> Vec<(Columns, Migration)> {
    let mut columns: Columns = vec![("c0".into(), "TEXT"), ("c1".into(), "INTEGER"), ("c2".into(), "")];
    let mut versions = vec![(columns.clone(), Migration::Rebuild)];
    for fresh in 3..4 + random.below(3) {
        let at = random.below(columns.len() as u64) as usize;
        let migration = match random.below(if wide { 7 } else { 5 }) {
            0 => {
                let kind = *random.pick(&TYPES);
                columns.push((format!("c{fresh}"), kind));
                Migration::Add(format!("c{fresh}"), kind)
            }
            1 => {
                let new = format!("{}{fresh}", &columns[at].0[..1]);
                let old = std::mem::replace(&mut columns[at].0, new.clone());
                Migration::Rename(old, new)
            }
            2 if columns.len() > 1 => Migration::Drop(columns.remove(at).0),
            3 => {
                columns[at].1 = *random.pick(&TYPES);
                Migration::Retype
            }
            5 => {
                let old = std::mem::replace(&mut columns[at], (format!("c{fresh}"), *random.pick(&TYPES)));
                Migration::Both(old.0, format!("c{fresh}"))
            }
            6 => {
                columns.push((format!("u{fresh}"), ""));
                Migration::Unique(format!("u{fresh}"))
            }
            _ => Migration::Rebuild,
        };
        versions.push((columns.clone(), migration));
    }
    versions
}

fn create(name: &str, columns: &Columns) -> String {
    let columns: String = columns.iter().map(|(name, kind)| format!(", {name} {kind}")).collect();
    format!("CREATE TABLE {name} (k TEXT PRIMARY KEY{columns})")
}

/// What the application of a version runs to become so.
fn script((columns, migration): &(Columns, Migration)) -> String {
    match migration {
        Migration::Add(name, kind) => format!("ALTER TABLE t ADD COLUMN {name} {kind}"),
        Migration::Rename(old, new) if old.starts_with('u') => {
            format!("DROP INDEX of_{old}; ALTER TABLE t RENAME COLUMN {old} TO {new}; {}", unique(new))
        }
        Migration::Rename(old, new) => format!("ALTER TABLE t RENAME COLUMN {old} TO {new}"),
        // A column with an index over it goes as ORMs do it: triggers name it plainly, and ALTER TABLE would fail.
        Migration::Drop(name) if name.starts_with('u') => rebuild(columns, &|name| name.to_owned()),
        Migration::Drop(name) => format!("ALTER TABLE t DROP COLUMN {name}"),
        Migration::Unique(name) => format!("ALTER TABLE t ADD COLUMN {name}; {}", unique(name)),
        Migration::Retype | Migration::Rebuild => rebuild(columns, &|name| name.to_owned()),
        Migration::Both(old, new) => {
            rebuild(columns, &|name| (if name == new { old } else { name }).to_owned())
        }
    }
}

/// Makes the table anew: `from` says what each column is called before.
fn rebuild(columns: &Columns, from: &dyn Fn(&str) -> String) -> String {
    let names: String = columns.iter().map(|(name, _)| format!(", {}", from(name))).collect();
    let uniques: String =
        columns.iter().filter(|(name, _)| name.starts_with('u')).map(|(name, _)| unique(name)).collect();
    format!(
        "BEGIN; {}; INSERT INTO new_t SELECT k{names} FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t; {uniques} COMMIT",
        create("new_t", columns)
    )
}

fn unique(name: &str) -> String {
    format!("CREATE UNIQUE INDEX of_{name} ON t ({name});")
}

/// What an application of a version writes.
fn write_by(random: &mut Random, columns: &Columns) -> String {
    let key = random.below(6);
    let value = |random: &mut Random| match random.below(4) {
        0 => "NULL".to_owned(),
        1 => format!("'{}'", random.below(50)),
        2 => format!("{}.5", random.below(50)),
        _ => random.below(50).to_string(),
    };
    match random.below(6) {
        0 => format!("DELETE FROM t WHERE k = 'k{key}'"),
        1 | 2 => {
            let (name, _) = random.pick(columns);
            format!("UPDATE OR REPLACE t SET {name} = {} WHERE k = 'k{key}'", value(random))
        }
        _ => {
            let values: String = columns.iter().map(|_| format!(", {}", value(random))).collect();
            format!("INSERT OR REPLACE INTO t VALUES ('k{key}'{values})")
        }
    }
}

struct Run {
    random: Random,
    world: World,
    devices: Vec<Engine>,
    /// The version of the application on each device; none where it has none.
    at: Vec<Option<usize>>,
    versions: Vec<(Columns, Migration)>,
    folds: bool,
    /// Cards are copied, each with its application, and devices are set back to backups.
    copies: bool,
    /// Copies of cards: of which device, and the version of its application.
    backups: Vec<(usize, PathBuf, Option<usize>)>,
    /// Identities of devices that were set back to before they took them. Whether such a one goes on somewhere, nobody can know.
    abandoned: Vec<DeviceId>,
    /// All have met once.
    met: bool,
    trace: Vec<String>,
}

impl Run {
    fn new(seed: u64, folds: bool, wide: bool) -> Self {
        let mut random = Random(seed);
        let versions = versions(&mut random, wide);
        let world = World::new();
        let merge = if random.chance(50) { Merge::Row } else { Merge::Cell };
        let apps = if random.chance(70) { 3 } else { 2 };
        let mut devices: Vec<Engine> = ["a", "b", "c"].map(|name| world.board(name)).into();
        for device in &mut devices[..apps] {
            sql(device, &create("t", &versions[0].0));
            device.track("t", &TrackOptions { merge, ..TrackOptions::default() }).unwrap();
        }
        let at = (0..3).map(|d| (d < apps).then_some(0)).collect();
        let trace = vec![format!("{apps} applications, {merge:?}")];
        let mut run = Self {
            random,
            world,
            devices,
            at,
            versions,
            folds,
            copies: false,
            backups: Vec::new(),
            abandoned: Vec::new(),
            met: false,
            trace,
        };
        if run.random.chance(80) {
            run.meet();
        }
        run
    }

    /// The same, of a fleet whose cards are copied.
    fn copied(seed: u64, folds: bool) -> Self {
        let run = Self::new(seed, folds, false);
        std::fs::create_dir(run.world.dir.path().join("card")).unwrap();
        Self { copies: true, ..run }
    }

    fn carry(&mut self, from: usize, to: usize) {
        if self.copies {
            exchange_with_card(&mut self.devices[from], &self.world.dir.path().join("card"));
            return;
        }
        let [from, to] = self.devices.get_disjoint_mut([from, to]).unwrap();
        carry(from, to);
    }

    fn meet(&mut self) {
        self.trace.push("all meet".into());
        self.met = true;
        let n = self.devices.len();
        for at in 0..3 * n - 1 {
            self.carry(at % n, (at + 1) % n);
        }
    }

    /// A device's card is copied; or a copy is run as another device, or in the place of the device itself.
    fn copy(&mut self, d: usize) {
        let n = self.devices.len();
        match self.random.below(3) {
            0 if n < 5 => {
                self.trace.push(format!("{n} is a copy of {d}"));
                let (path, at) = self.back_up(d);
                self.devices.push(Engine::open_with(&path, self.world.options()).unwrap());
                self.at.push(at);
            }
            1 if !self.backups.is_empty() => {
                let at = self.random.below(self.backups.len() as u64) as usize;
                let (d, path, at) = self.backups.remove(at);
                let to = path.file_name().unwrap().display();
                self.trace.push(format!("{d} is set back to {to}"));
                let was = self.devices[d].identity().id;
                self.devices[d] = Engine::open_with(&path, self.world.options()).unwrap();
                self.at[d] = at;
                if self.devices[d].identity().id != was {
                    self.abandoned.push(was);
                }
            }
            _ => {
                self.trace.push(format!("{d} is backed up as copy{}", self.trace.len() + 1));
                let (path, at) = self.back_up(d);
                self.backups.push((d, path, at));
            }
        }
    }

    fn back_up(&mut self, d: usize) -> (PathBuf, Option<usize>) {
        let path = self.world.path(&format!("copy{}", self.trace.len()));
        copy_card(&self.devices[d], &path);
        (path, self.at[d])
    }

    fn migrate(&mut self, d: usize) -> bool {
        let Some(at) = self.at[d].filter(|at| at + 1 < self.versions.len()) else { return false };
        if matches!(self.versions[at + 1].1, Migration::Retype | Migration::Both(..)) && !self.met {
            return false;
        }
        let script = script(&self.versions[at + 1]);
        self.trace.push(format!("{d}: {script}"));
        sql(&self.devices[d], &script);
        self.at[d] = Some(at + 1);
        true
    }

    fn step(&mut self) {
        self.world.tick(1000);
        let n = self.devices.len();
        let d = self.random.below(n as u64) as usize;
        if self.copies && self.random.chance(15) {
            return self.copy(d);
        }
        match self.random.below(10) {
            0..4 => {
                if let Some(at) = self.at[d] {
                    let text = write_by(&mut self.random, &self.versions[at].0);
                    self.trace.push(format!("{d}: {text}"));
                    sql(&self.devices[d], &text);
                }
            }
            4 | 5 => {
                self.migrate(d);
            }
            6 => {
                self.trace.push(format!("{d}: seal"));
                self.devices[d].seal().unwrap();
            }
            7 if self.folds => {
                self.trace.push(format!("{d}: compact"));
                self.devices[d].compact().unwrap();
            }
            8 if self.random.chance(30) => self.meet(),
            _ => {
                let to = (d + 1 + self.random.below(n as u64 - 1) as usize) % n;
                self.trace.push(format!("{d} -> {to}"));
                self.carry(d, to);
            }
        }
    }

    /// Has a person retire the identities under which no device goes on.
    fn retire_abandoned(&mut self) {
        let living: Vec<DeviceId> = self.devices.iter().map(|device| device.identity().id).collect();
        for id in std::mem::take(&mut self.abandoned).iter().filter(|id| !living.contains(id)) {
            let first = &mut self.devices[0];
            if first.devices().unwrap().iter().any(|known| known.id == *id) {
                self.trace.push(format!("{id} is retired"));
                first.retire(*id, Some(&self.world.fleet)).unwrap();
            }
        }
    }

    fn run(&mut self, but: Option<usize>) {
        for _ in 0..12 + self.random.below(20) {
            self.step();
        }
        if !self.met {
            self.meet();
        }
        for d in (0..self.devices.len()).filter(|d| but != Some(*d)) {
            while self.migrate(d) {
                if self.random.chance(50) {
                    self.meet();
                }
            }
        }
        self.meet();
        self.retire_abandoned();
        for _ in 0..3 {
            self.meet();
        }
        for device in &self.devices {
            let table = device.status().unwrap().tables.remove(0);
            assert_eq!((table.how, table.note), (TableHow::Shared, None), "{}", device.identity().name);
            assert_eq!(device.verify().unwrap().problems, [""; 0]);
        }
        let last: Vec<&str> = self.versions.last().unwrap().0.iter().map(|(name, _)| name.as_str()).collect();
        let all = format!("SELECT k, {} FROM t ORDER BY k", last.join(", "));
        let all: Vec<_> = self.devices.iter().map(|device| rows(device, &all)).collect();
        assert!(all.iter().all(|rows| *rows == all[0]), "{all:?}");
        let conflicts: Vec<_> = self
            .devices
            .iter()
            .map(|device| device.conflicts().unwrap().iter().map(|c| c.id.clone()).collect::<Vec<_>>())
            .collect();
        assert!(conflicts.iter().all(|one| *one == conflicts[0]), "{conflicts:#?}");
        digests_equal(&self.devices.iter().collect::<Vec<_>>());
    }
}

/// Plays a schedule; at the end all devices migrate, `but` one, if it is given.
fn play(mut run: Run, but: Option<usize>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run.run(but))).map_err(|_| run.trace.join("\n"))
}

#[test]
fn fleets_that_migrate_end_alike() {
    check(seeds(USUAL), &|seed| play(Run::new(seed, false, false), None));
}

#[test]
fn fleets_that_migrate_and_fold_end_alike() {
    check(seeds(USUAL), &|seed| play(Run::new(seed, true, false), None));
}

#[test]
fn fleets_that_migrate_in_every_form_end_alike() {
    check(seeds(USUAL), &|seed| play(Run::new(seed, seed % 2 > 0, true), None));
}

#[test]
fn fleets_that_are_copied_and_migrate_end_alike() {
    check(seeds(USUAL / 2), &|seed| play(Run::copied(seed, seed % 2 > 0), None));
}

#[test]
fn what_failed_once_does_not_fail_again() {
    for seed in PINNED {
        check(seed..seed + 1, &|seed| play(Run::new(seed, false, false), None));
        check(seed..seed + 1, &|seed| play(Run::new(seed, true, false), None));
        check(seed..seed + 1, &|seed| play(Run::new(seed, seed % 2 > 0, true), None));
    }
    for seed in PINNED_COPIES {
        check(seed..seed + 1, &|seed| play(Run::copied(seed, seed % 2 > 0), None));
    }
}

/// The control: the same check finds the schedules in which one device is left behind.
#[test]
fn a_device_that_does_not_migrate_is_found() {
    assert!(failing(0..10, &|seed| play(Run::new(seed, false, false), Some(0))).len() > 2);
}
