//! Decisions at random: on several devices rows are written, conflicts resolved, resolutions undone, rows restored and writes
//! taken back, decisions written in SQL, logs compacted, all without order. Whatever was decided where, once all have met all
//! come to the same tables and the same open conflicts. `PACKMULE_SEED=N` replays one schedule, `PACKMULE_SCHEDULES=N` runs so
//! many.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use packmule::{Engine, Error, HistoryItem, OwnedValue, Resolution, Selection};

/// What the schedules met, so that it is known that they met something.
#[derive(Default, Debug)]
struct Met {
    resolved: u32,
    undone: u32,
    restored: u32,
    taken_back: u64,
    in_sql: u64,
    refused: u64,
    open: usize,
}

struct Fleet {
    world: World,
    random: Random,
    devices: Vec<Engine>,
    /// The ids of conflicts that somebody has seen.
    seen: BTreeSet<String>,
    log: Vec<String>,
    met: Met,
}

const MAKE: &str = "CREATE TABLE t (k INTEGER PRIMARY KEY, v, u UNIQUE);
    CREATE TABLE c (k TEXT PRIMARY KEY, of INTEGER REFERENCES t(k))";

impl Fleet {
    fn new(seed: u64) -> Self {
        let world = World::seeded(seed);
        let mut devices: Vec<Engine> =
            ["a", "b", "c"].into_iter().map(|name| world.board_with(name, MAKE, &["t", "c"])).collect();
        carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
        let random = Random(seed);
        Self { world, random, devices, seen: BTreeSet::new(), log: Vec::new(), met: Met::default() }
    }

    /// Refusals are answers too; all else is a fault.
    fn answered<R>(done: packmule::Result<R>) -> Option<R> {
        match done {
            Ok(done) => Some(done),
            Err(
                Error::CannotResolve { .. }
                | Error::NoSuchConflict { .. }
                | Error::Usage(_)
                | Error::Device { .. },
            ) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, d: usize) {
        let random = &mut self.random;
        let (k, v) = (1 + random.below(5), random.below(1000));
        let u = if random.chance(50) { "NULL".into() } else { (1 + random.below(3)).to_string() };
        let statement = match random.below(8) {
            0..3 => format!("INSERT OR IGNORE INTO t VALUES ({k}, {v}, {u})"),
            3..5 => format!("UPDATE t SET v = {v} WHERE k = {k}"),
            5 => format!("UPDATE OR IGNORE t SET u = {u} WHERE k = {k}"),
            6 => format!("DELETE FROM t WHERE k = {k}"),
            _ => format!("INSERT OR REPLACE INTO c VALUES ('c{v}', {k})"),
        };
        self.log.push(format!("{d}: {statement}"));
        sql(&self.devices[d], &format!("PRAGMA foreign_keys = OFF; {statement}"));
    }

    fn resolve(&mut self, d: usize) {
        let open = self.devices[d].conflicts().unwrap();
        if open.is_empty() {
            return;
        }
        let conflict = self.random.pick(&open).clone();
        self.seen.insert(conflict.id.clone());
        let author = self.devices[self.random.below(3) as usize].identity().id;
        let v = OwnedValue::Int(self.random.below(1000) as i64);
        let u = OwnedValue::Int(10 + self.random.below(3) as i64);
        let resolution = match self.random.below(9) {
            0..2 => Resolution::Take(author),
            2 => Resolution::Newest,
            3 => Resolution::Shown,
            4 => Resolution::Set(vec![("v".into(), v)]),
            5 => Resolution::Set(vec![("u".into(), u)]),
            6 => Resolution::Delete,
            7 => Resolution::Quarantined,
            _ => Resolution::KeepBoth,
        };
        self.log.push(format!("{d}: resolve {} {resolution:?}", conflict.id));
        let all = self.random.chance(20);
        let device = &mut self.devices[d];
        if all {
            let done = device.resolve_all(&Selection::default(), &resolution, &mut |_| Ok(())).unwrap();
            assert_eq!(done.open as usize, device.conflicts().unwrap().len());
            self.met.resolved += done.closed as u32;
        } else if Self::answered(device.resolve(&conflict.id, &resolution)).is_some() {
            self.met.resolved += 1;
        }
    }

    fn undo(&mut self, d: usize) {
        if self.seen.is_empty() {
            return;
        }
        let id = self.random.pick(&self.seen.iter().cloned().collect::<Vec<_>>()).clone();
        self.log.push(format!("{d}: undo {id}"));
        if Self::answered(self.devices[d].undo_resolution(&id)).is_some() {
            self.met.undone += 1;
        }
    }

    fn restore(&mut self, d: usize) {
        let key = [OwnedValue::Int(1 + self.random.below(5) as i64)];
        let mut frames = Vec::new();
        self.devices[d]
            .log(Some("t"), &key, &mut |item| {
                if let HistoryItem::Group(group) = item {
                    frames.push((group.author, group.frames.0));
                }
                Ok(())
            })
            .unwrap();
        if frames.is_empty() {
            return;
        }
        let (author, frame) = *self.random.pick(&frames);
        self.log.push(format!("{d}: restore {key:?} {frame}"));
        if let Some(Some(_)) = Self::answered(self.devices[d].restore("t", &key, (author, frame), false)) {
            self.met.restored += 1;
        }
    }

    fn take_back(&mut self, d: usize) {
        let of = self.devices[self.random.below(3) as usize].identity().id;
        let since = self.world.clock.load(Ordering::Relaxed) - self.random.below(20_000) as i64;
        self.log.push(format!("{d}: take back what {of} wrote since {since}"));
        let done = self.devices[d].take_back_writes(of, since, false, &mut |_, _| Ok(())).unwrap();
        self.met.taken_back += done.rows;
    }

    fn in_sql(&mut self, d: usize) {
        let decision = *self.random.pick(&[
            "take = 'newest'",
            "take = 'shown'",
            "take = 'b'",
            "decision = '{\"delete\": true}'",
            "decision = '{\"set\": {\"v\": 7}}'",
            "decision = '{\"keep_both\": true}'",
        ]);
        let some = self.random.below(16);
        let statement = format!(
            "DELETE FROM packmule_conflicts; UPDATE packmule_conflicts SET {decision} WHERE id > '{some:x}'"
        );
        self.log.push(format!("{d}: {statement}"));
        sql(&self.devices[d], &statement);
    }

    fn step(&mut self) {
        self.world.tick(1 + self.random.below(1000) as i64);
        let d = self.random.below(3) as usize;
        match self.random.below(20) {
            0..6 => self.write(d),
            6..11 => {
                let to = (d + 1 + self.random.below(2) as usize) % 3;
                self.log.push(format!("{d} -> {to}"));
                carry_between(&mut self.devices, d, to);
            }
            11..14 => self.resolve(d),
            14 | 15 => self.undo(d),
            16 => self.restore(d),
            17 => self.take_back(d),
            18 => self.in_sql(d),
            _ => {
                self.log.push(format!("{d}: compact"));
                // Some keep what is recent.
                let age = std::time::Duration::from_millis(self.random.below(20_000));
                let keeps = self.random.chance(50);
                let device = &mut self.devices[d];
                let _ = if keeps { device.compact_keeping(age) } else { device.compact() }.unwrap();
            }
        }
        for device in &self.devices {
            let carried = device.take_carried_out();
            self.met.in_sql += carried.closed;
            self.met.refused += carried.refused;
        }
    }

    /// A device forgets which versions its rows have, as if what was decided of them had never come.
    fn forget(&mut self, d: usize) {
        let path = self.devices.remove(d).path().to_owned();
        open(&path).execute_batch("DELETE FROM _pm_head; DELETE FROM _pm_stretch").unwrap();
        self.devices.insert(d, Engine::open_with(&path, self.world.options()).unwrap());
    }

    fn finish(&mut self) {
        for device in &mut self.devices {
            device.seal().unwrap();
        }
        carry_all(&mut self.devices.iter_mut().collect::<Vec<_>>());
        carry_all(&mut self.devices.iter_mut().collect::<Vec<_>>());
        digests_equal(&self.devices.iter().collect::<Vec<_>>());
        self.met.open = self.devices[0].conflicts().unwrap().len();
        for device in &self.devices {
            let problems = device.verify().unwrap().problems;
            assert!(problems.is_empty(), "{problems:?}");
        }
    }
}

/// Runs a schedule; `forgets`: a device forgets versions before all meet at its end. Returns why it failed.
fn run(seed: u64, forgets: bool) -> Result<Met, String> {
    let mut fleet = Fleet::new(seed);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..60 {
            fleet.step();
        }
        if forgets {
            fleet.forget(0);
        }
        fleet.finish();
    }));
    done.map(|()| fleet.met).map_err(|why| {
        let why = why.downcast_ref::<String>().map_or("", String::as_str);
        format!("{why}\n{}", fleet.log.join("\n"))
    })
}

#[test]
fn whoever_decides_what_all_come_to_the_same() {
    let met = Mutex::new(Met::default());
    on_all_cores(seeds(24), &|seed| match run(seed, false) {
        Ok(of) => {
            let mut met = met.lock().unwrap();
            met.resolved += of.resolved;
            met.undone += of.undone;
            met.restored += of.restored;
            met.taken_back += of.taken_back;
            met.in_sql += of.in_sql;
            met.refused += of.refused;
            met.open += of.open;
        }
        Err(log) => panic!("PACKMULE_SEED={seed}\n{log}"),
    });
    let met = met.into_inner().unwrap();
    println!("{met:?}");
    if number("PACKMULE_SEED").is_none() {
        let all = [met.resolved, met.undone, met.restored, met.taken_back as u32, met.in_sql as u32];
        assert!(all.iter().all(|n| *n > 0) && met.open > 0, "the schedules met too little: {met:?}");
    }
}

/// The control: the same check finds a device that has forgotten what there was to decide.
#[test]
fn a_device_that_forgets_versions_is_found() {
    let found = AtomicU64::new(0);
    on_all_cores(0..8, &|seed| {
        let failed = run(seed, true).err();
        found
            .fetch_add(failed.is_some_and(|why| why.starts_with("digests differ")).into(), Ordering::Relaxed);
    });
    let found = found.into_inner();
    assert!(found > 2, "only {found} of 8");
}
