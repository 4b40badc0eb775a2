//! Random writes on 2–4 devices, carried about in any order, in part and repeatedly: all devices end
//! alike, like a naive model, and no version is lost.
//!
//! `PACKMULE_SEED=N` replays one schedule; `PACKMULE_SCHEDULES=N` says how many are run, from
//! `PACKMULE_FIRST=N` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use model::{Group, Row, Table, Write};
use packmule::{ConflictKind, Engine};
use rusqlite::Connection;

const SCHEMA: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY, a, b REAL);
    CREATE TABLE pairs (x INT, y TEXT COLLATE NOCASE, v, PRIMARY KEY (x, y)) WITHOUT ROWID;
    CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age INT);
    CREATE TABLE parts (id BLOB PRIMARY KEY, note TEXT REFERENCES notes (id), n INT);
";

const TABLES: [Table; 4] = [
    Table { name: "notes", columns: &["id", "a", "b"], keys: &[0], nocase: &[], uniques: &[] },
    Table { name: "pairs", columns: &["x", "y", "v"], keys: &[0, 1], nocase: &[1], uniques: &[] },
    Table { name: "names", columns: &["id", "name", "age"], keys: &[0], nocase: &[], uniques: &[&[1]] },
    Table { name: "parts", columns: &["id", "note", "n"], keys: &[0], nocase: &[], uniques: &[] },
];

/// What statements did to a row since its device's last seal.
#[derive(Clone, Copy, Default)]
struct Touch {
    /// It got its unique values anew.
    claimed: bool,
}

struct Device {
    engine: Engine,
    app: Connection,
    touched: BTreeMap<(usize, String), Touch>,
    /// The last frame of each of its groups.
    ends: Vec<u64>,
    lamport: u64,
}

struct Run {
    world: World,
    devices: Vec<Device>,
    groups: Vec<Group>,
    bundles: Vec<Vec<u8>>,
    random: Random,
    trace: Vec<String>,
}

fn table_rows(db: &Connection, table: &Table) -> BTreeMap<String, Row> {
    let rows = dump(db, &format!("SELECT {} FROM {}", table.columns.join(", "), table.name));
    rows.into_iter()
        .map(|line| {
            let row: Row = line.split('|').map(str::to_owned).collect();
            (table.key(&row), row)
        })
        .collect()
}

fn all_rows(db: &Connection) -> Vec<BTreeMap<String, Row>> {
    TABLES.iter().map(|table| table_rows(db, table)).collect()
}

impl Run {
    fn new(seed: u64) -> Self {
        let world = World::seeded(seed);
        let mut random = Random(seed);
        let n = 2 + random.below(3) as usize;
        let devices = (0..n)
            .map(|n| {
                let tables: Vec<_> = TABLES.iter().map(|t| t.name).collect();
                let mut engine = world.board_with(&format!("d{n}"), SCHEMA, &tables);
                engine.seal().unwrap();
                let app = app(&engine);
                Device { engine, app, touched: BTreeMap::new(), ends: Vec::new(), lamport: 0 }
            })
            .collect();
        let mut run =
            Self { world, devices, groups: Vec::new(), bundles: Vec::new(), random, trace: Vec::new() };
        for d in 0..n {
            // The group of each table's definition: the model numbers it like any other.
            for frame in 1..=TABLES.len() as u64 {
                run.note_group(d, frame, BTreeMap::new());
            }
        }
        run
    }

    fn value(&mut self) -> String {
        match self.random.below(8) {
            0 => "NULL".into(),
            1 => "1.0".into(),
            2 => "'a'".into(),
            3 => "'A'".into(),
            4 => "x'00ff'".into(),
            _ => self.random.below(4).to_string(),
        }
    }

    fn key_of(&mut self, table: usize) -> Vec<String> {
        let r = &mut self.random;
        match table {
            0 => vec![r.pick(&["'k1'", "'k2'", "'k3'"]).to_string()],
            1 => vec![r.below(2).to_string(), r.pick(&["'p'", "'P'", "'q'"]).to_string()],
            2 => vec![(1 + r.below(5)).to_string()],
            _ => vec![r.pick(&["x'01'", "x'02'", "x'03'"]).to_string()],
        }
    }

    fn rest_of(&mut self, table: usize) -> Vec<String> {
        match table {
            0 => vec![self.value(), self.random.pick(&["0.5", "-0.0", "2", "NULL"]).to_string()],
            1 => vec![self.value()],
            2 => vec![
                self.random.pick(&["'ann'", "'bob'", "'cy'", "NULL"]).to_string(),
                self.random.below(3).to_string(),
            ],
            _ => vec![
                self.random.pick(&["'k1'", "'k2'", "'k9'", "NULL"]).to_string(),
                self.random.below(3).to_string(),
            ],
        }
    }

    /// Runs a random statement on a device, and notes which rows it touched.
    fn write(&mut self, d: usize) {
        let t = self.random.below(4) as usize;
        let table = &TABLES[t];
        let (key, rest) = (self.key_of(t), self.rest_of(t));
        let by_key = |key: &[String]| {
            let parts: Vec<_> =
                table.keys.iter().zip(key).map(|(at, v)| format!("{} = {v}", table.columns[*at])).collect();
            parts.join(" AND ")
        };
        let values = key.iter().chain(&rest).cloned().collect::<Vec<_>>().join(", ");
        let n = table.keys.len();
        let mut replaced = false;
        let mut moved_to = None;
        let sql = match self.random.below(10) {
            0..=2 => format!("INSERT INTO {} VALUES ({values})", table.name),
            3 => {
                replaced = true;
                format!("INSERT OR REPLACE INTO {} VALUES ({values})", table.name)
            }
            4 | 5 => {
                let at = self.random.below(rest.len() as u64) as usize;
                format!(
                    "UPDATE {} SET {} = {} WHERE {}",
                    table.name,
                    table.columns[n + at],
                    rest[at],
                    by_key(&key)
                )
            }
            6 => {
                let other = self.key_of(t);
                moved_to = Some(other.join(", "));
                let or = self.random.pick(&["", "OR REPLACE"]).to_string();
                let sets: Vec<_> = table
                    .keys
                    .iter()
                    .zip(&other)
                    .map(|(at, v)| format!("{} = {v}", table.columns[*at]))
                    .collect();
                format!("UPDATE {or} {} SET {} WHERE {}", table.name, sets.join(", "), by_key(&key))
            }
            7 => format!(
                "UPDATE OR REPLACE {} SET {} = {} WHERE {}",
                table.name,
                table.columns[n],
                rest[0],
                by_key(&key)
            ),
            8 => format!("DELETE FROM {} WHERE {}", table.name, by_key(&key)),
            _ => format!(
                "INSERT INTO {} VALUES ({values}) ON CONFLICT ({}) DO UPDATE SET {1} = excluded.{1}",
                table.name, table.columns[n],
            )
            .replace(
                &format!("ON CONFLICT ({})", table.columns[n]),
                &format!(
                    "ON CONFLICT ({})",
                    table.keys.iter().map(|at| table.columns[*at]).collect::<Vec<_>>().join(", ")
                ),
            ),
        };
        let device = &mut self.devices[d];
        let before = table_rows(&device.app, table);
        let done = device.app.execute_batch(&sql);
        self.trace.push(format!("d{d}: {sql}{}", if done.is_err() { "  -- refused" } else { "" }));
        if done.is_err() {
            return;
        }
        let after = table_rows(&device.app, table);
        // A row that is moved onto one of equal content leaves no trace in it but the write.
        if let Some(to) = moved_to.filter(|_| before.keys().any(|k| !after.contains_key(k))) {
            let key: Row =
                dump(&device.app, &format!("SELECT {to}"))[0].split('|').map(str::to_owned).collect();
            let key = table.key(&table.keys.iter().zip(key).fold(
                vec![String::new(); table.columns.len()],
                |mut row, (at, v)| {
                    row[*at] = v;
                    row
                },
            ));
            device.touched.entry((t, key)).or_default().claimed = true;
        }
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for k in keys {
            let (old, new) = (before.get(k), after.get(k));
            let literal = replaced && new.is_some() && old == new && {
                let inserted: Row =
                    dump(&device.app, &format!("SELECT {values}"))[0].split('|').map(str::to_owned).collect();
                table.key(&inserted) == *k
            };
            if old == new && !literal {
                continue;
            }
            let touch = device.touched.entry((t, k.clone())).or_default();
            let key_bytes = |row: &Row| table.keys.iter().map(|at| row[*at].clone()).collect::<Vec<_>>();
            let unique = |row: &Row| {
                table.uniques.iter().flat_map(|u| u.iter().map(|at| row[*at].clone())).collect::<Vec<_>>()
            };
            match (old, new) {
                (Some(o), Some(n)) if !literal && !replaced => {
                    touch.claimed |= unique(o) != unique(n) || key_bytes(o) != key_bytes(n);
                }
                _ => touch.claimed = true,
            }
        }
    }

    /// How many groups of each device a device has applied, by what its engine says.
    fn seen(&self, d: usize) -> Vec<usize> {
        let known = self.devices[d].engine.devices().unwrap();
        self.devices
            .iter()
            .map(|other| {
                let id = other.engine.identity().id;
                let frames = known.iter().find(|k| k.id == id).map_or(0, |k| k.shared);
                other.ends.iter().filter(|end| **end <= frames).count()
            })
            .collect()
    }

    fn note_group(&mut self, d: usize, end: u64, writes: BTreeMap<(usize, String), Write>) {
        let mut seen = self.seen(d);
        seen[d] = 0;
        let highest = self
            .groups
            .iter()
            .filter(|g| seen[g.device] > g.number)
            .map(|g| g.lamport)
            .max()
            .unwrap_or(0)
            .max(self.devices[d].lamport);
        let lamport = highest + 1;
        let writes = writes
            .into_iter()
            .map(|(k, mut w)| {
                if w.claim == u64::MAX {
                    w.claim = lamport;
                }
                (k, w)
            })
            .collect();
        let wall = self.world.clock.load(std::sync::atomic::Ordering::Relaxed);
        let device = &mut self.devices[d];
        device.lamport = lamport;
        let number = device.ends.len();
        device.ends.push(end);
        self.groups.push(Group { device: d, number, seen, lamport, wall, writes });
    }

    fn seal(&mut self, d: usize) {
        if self.devices[d].touched.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.devices[d].touched);
        let rows = all_rows(&self.devices[d].app);
        let (seen, ids) = (self.seen(d), self.ids());
        let known = model::heads(&self.groups, |g| g.device == d || seen[g.device] > g.number);
        let parked: BTreeSet<(usize, String)> = model::state(
            &TABLES,
            &self
                .groups
                .iter()
                .filter(|g| g.device == d || seen[g.device] > g.number)
                .cloned()
                .collect::<Vec<_>>(),
            &ids,
        )
        .parked;
        let mut writes = BTreeMap::new();
        for ((t, key), touch) in touched {
            let row = rows[t].get(&key).cloned();
            let place = (t, key);
            if row.is_none() && parked.contains(&place) {
                continue;
            }
            let old = known.get(&place).map(|versions| model::winner(versions, &ids));
            let claim = if touch.claimed || TABLES[t].uniques.is_empty() {
                u64::MAX
            } else {
                old.map_or(0, |v| v.write.claim)
            };
            writes.insert(place, Write { row, claim });
        }
        self.devices[d].engine.seal().unwrap();
        let end = self.devices[d].engine.devices().unwrap()[0].shared;
        if end > *self.devices[d].ends.last().unwrap() {
            self.note_group(d, end, writes);
        } else {
            assert!(writes.is_empty(), "the model has writes that the seal has not: {writes:?}");
        }
        self.trace.push(format!("d{d}: sealed, group {}", self.devices[d].ends.len()));
    }

    fn ids(&self) -> Vec<String> {
        self.devices.iter().map(|d| d.engine.identity().id.to_string()).collect()
    }

    fn export(&mut self, d: usize) {
        self.seal(d);
        let others: Vec<usize> = (0..self.devices.len()).filter(|o| *o != d).collect();
        let to = *self.random.pick(&others);
        let bytes = if self.random.chance(50) {
            let id = self.devices[to].engine.identity().id;
            let mut bytes = Vec::new();
            self.devices[d].engine.export(&mut bytes, packmule::Recipient::Device(id)).unwrap();
            bytes
        } else {
            whole_bundle(&mut self.devices[d].engine)
        };
        self.trace.push(format!("d{d}: bundle {} for d{to}", self.bundles.len()));
        self.bundles.push(bytes);
    }

    fn import(&mut self, d: usize, bundle: usize) {
        self.seal(d);
        let report = import(&mut self.devices[d].engine, &self.bundles[bundle].clone());
        self.trace.push(format!(
            "d{d}: took in bundle {bundle}: {} frames, {} waits",
            report.frames,
            report.waits.len()
        ));
        let lamport = {
            let seen = self.seen(d);
            self.groups.iter().filter(|g| seen[g.device] > g.number).map(|g| g.lamport).max().unwrap_or(0)
        };
        self.devices[d].lamport = self.devices[d].lamport.max(lamport);
    }

    fn step(&mut self) {
        let d = self.random.below(self.devices.len() as u64) as usize;
        match self.random.below(10) {
            0..=5 => self.write(d),
            6 => self.seal(d),
            7 => self.export(d),
            _ if self.bundles.is_empty() => self.export(d),
            _ => {
                let bundle = self.random.below(self.bundles.len() as u64) as usize;
                self.import(d, bundle);
            }
        }
        let later = [0, 0, 1000, 60_000][self.random.below(4) as usize];
        self.world.tick(later);
    }

    fn finish(&mut self) {
        let n = self.devices.len();
        for d in 0..n {
            self.seal(d);
        }
        let mut all: Vec<&mut Engine> = self.devices.iter_mut().map(|d| &mut d.engine).collect();
        carry_all(&mut all);
    }

    /// How many rows were contested, parked and dangling.
    fn check(&self) -> [usize; 3] {
        let expected = model::state(&TABLES, &self.groups, &self.ids());
        let digest = self.devices[0].engine.digest(false).unwrap();
        let first = self.devices[0].engine.conflicts().unwrap();
        for (n, device) in self.devices.iter().enumerate() {
            let rows = all_rows(&device.app);
            for (t, table) in TABLES.iter().enumerate() {
                let shown: BTreeSet<Row> = rows[t].values().cloned().collect();
                assert_eq!(
                    shown,
                    expected.shown.get(&t).cloned().unwrap_or_default(),
                    "{} on d{n}",
                    table.name
                );
            }
            let conflicts = device.engine.conflicts().unwrap();
            let place = |c: &packmule::Conflict| {
                let t = TABLES.iter().position(|t| t.name == c.table).unwrap();
                let key: Vec<String> = c
                    .key
                    .iter()
                    .map(|(_, v)| match v {
                        packmule::OwnedValue::Int(i) => i.to_string(),
                        packmule::OwnedValue::Text(t) => format!("{:?}", String::from_utf8_lossy(t)),
                        packmule::OwnedValue::Blob(b) => format!("{b:02x?}"),
                        other => other.to_string(),
                    })
                    .collect();
                (t, key.join("|"))
            };
            let contested: BTreeMap<_, _> = conflicts
                .iter()
                .filter(|c| {
                    matches!(
                        c.kind,
                        ConflictKind::InsertInsert | ConflictKind::UpdateUpdate | ConflictKind::UpdateDelete
                    )
                })
                .map(|c| (place(c), c.versions.len()))
                .collect();
            assert_eq!(contested, expected.contested, "contested on d{n}");
            let parked: BTreeSet<_> = conflicts
                .iter()
                .filter(|c| matches!(c.kind, ConflictKind::Unique(_) | ConflictKind::Check(_)))
                .map(place)
                .collect();
            assert_eq!(parked, expected.parked, "parked on d{n}");
            let dangling: usize = dump(
                &device.app,
                "SELECT 1 FROM parts WHERE note IS NOT NULL AND note NOT IN (SELECT id FROM notes)",
            )
            .len();
            let listed = conflicts.iter().filter(|c| matches!(c.kind, ConflictKind::ForeignKey(..))).count();
            assert_eq!(listed, dangling, "dangling on d{n}");
            assert_eq!(conflicts, first, "conflicts on d{n}");
            assert_eq!(device.engine.digest(false).unwrap(), digest, "digest of d{n}");
            assert!(device.engine.verify().unwrap().problems.is_empty());
        }
        let dangling = first.iter().filter(|c| matches!(c.kind, ConflictKind::ForeignKey(..))).count();
        [expected.contested.len(), expected.parked.len(), dangling]
    }
}

/// Runs a schedule; the counts of [`Run::check`], or the trace and what went wrong.
fn run(seed: u64, steps: u64) -> Result<[usize; 3], (Vec<String>, String)> {
    let mut run = Run::new(seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..steps {
            run.step();
        }
        run.finish();
        run.check()
    }));
    match result {
        Ok(counts) => Ok(counts),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
                .unwrap_or_default();
            Err((run.trace, text))
        }
    }
}

#[test]
fn all_schedules_converge_to_the_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("PACKMULE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("PACKMULE_FIRST").unwrap_or(0);
            (first..first + number("PACKMULE_SCHEDULES").unwrap_or(2_000)).collect()
        }
    };
    // Two cores: each takes every other schedule.
    let failed = std::sync::Mutex::new(Vec::new());
    let totals: [std::sync::atomic::AtomicUsize; 3] = Default::default();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (seeds, failed, totals) = (&seeds, &failed, &totals);
            scope.spawn(move || {
                for seed in seeds.iter().skip(half).step_by(2) {
                    let steps = 10 + seed % 50;
                    match run(*seed, steps) {
                        Ok(counts) => counts.iter().zip(totals).for_each(|(n, total)| {
                            total.fetch_add(*n, std::sync::atomic::Ordering::Relaxed);
                        }),
                        Err(failure) => {
                            failed.lock().unwrap().push((*seed, steps, failure));
                            return;
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    if let Some((seed, steps, (mut trace, mut text))) = failed.pop() {
        // Fewer steps of the same seed are a prefix of the same schedule: find the shortest that fails.
        for fewer in 1..steps {
            if let Err(failure) = run(seed, fewer) {
                (trace, text) = failure;
                break;
            }
        }
        panic!("PACKMULE_SEED={seed}\n{}\n{text}", trace.join("\n"));
    }
    println!("{} schedules; rows contested, parked, dangling: {totals:?}", seeds.len());
    // A run in which nothing clashed would show nothing.
    assert!(seeds.len() < 1_000 || totals.iter().all(|n| n.load(std::sync::atomic::Ordering::Relaxed) > 0));
}
