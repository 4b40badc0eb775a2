//! Whole fleets through the carriers alone: boards and bases that appear at any time, write, meet by cards and bundles,
//! compact, are backed up and restored, copied, retired, revoked; cards that are lost or copied; groups that live
//! apart. Nobody types a cure: after four rounds with one card all have the same, the base has every reading that any
//! board has, nothing waits, and no device has another identity but a real second history.
//!
//! `PACKMULE_SEED=N` replays one fleet, `PACKMULE_SCHEDULES=N` says how many live, from `PACKMULE_FIRST=N` on.
//! `PACKMULE_WITHOUT=restore,revoke,…` leaves kinds of events out.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::*;
use packmule::carry::card::{self, Exchange, Limits, Skipped};
use packmule::carry::volume::Directory;
use packmule::core::model::DeviceId;
use packmule::{ColumnMerge, Engine, Error, InitOptions, Merge, Missing, Options, Policy, TrackOptions};

/// One device of the fleet, with what is known of it by construction.
struct Device {
    engine: Engine,
    base: bool,
    backups: Vec<PathBuf>,
    /// Up to where its streams went before it was restored, as long as it has not got them back.
    lost: Option<[u64; 2]>,
    /// It wrote something while it lacked what it had lost: a real second history.
    second: bool,
    /// How many frames of verdicts of its own it had when it was restored.
    verdicts: usize,
    revoked: bool,
    /// The group in which it lives, while groups live apart.
    group: u64,
}

/// What happened, so that it is known that something did.
#[derive(Default, Debug)]
struct Met {
    restored: u32,
    second: u32,
    folded: u64,
    states: u32,
    revoked: u32,
    retired: u32,
    merged: u32,
    conflicts: usize,
    verdicts: usize,
    rounds: usize,
    twice: usize,
    /// Fleets in which somebody took in a second history before it was found.
    forked: u32,
}

struct Fleet {
    world: World,
    random: Random,
    seed: u64,
    devices: Vec<Device>,
    cards: Vec<PathBuf>,
    /// Bundles under way: for which device.
    post: Vec<(usize, Vec<u8>)>,
    files: u32,
    values: u32,
    apart: bool,
    /// A bundle of a real second history, or of who took it in, was refused.
    refused_twins: bool,
    /// Which device wrote a reading.
    authors: BTreeMap<String, usize>,
    trace: Vec<String>,
    /// The control: settled values count as seen by every write.
    broken: bool,
    without: Vec<String>,
}

const SHARED: &str =
    "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, n INTEGER DEFAULT 0, r REAL DEFAULT 0,
    hi INTEGER, lo INTEGER)";

/// The rules of the columns, in fleets that have such.
const RULES: [(&str, ColumnMerge); 4] = [
    ("n", ColumnMerge::Counter),
    ("r", ColumnMerge::Counter),
    ("hi", ColumnMerge::Max),
    ("lo", ColumnMerge::Min),
];
const READINGS: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT)";

impl Fleet {
    fn new(seed: u64, broken: bool) -> Self {
        let without = std::env::var("PACKMULE_WITHOUT").unwrap_or_default();
        let mut fleet = Self {
            world: World::seeded(seed),
            random: Random(seed),
            seed,
            devices: Vec::new(),
            cards: Vec::new(),
            post: Vec::new(),
            files: 0,
            values: 0,
            apart: seed.is_multiple_of(3),
            refused_twins: false,
            authors: BTreeMap::new(),
            trace: Vec::new(),
            broken,
            without: without.split(',').map(str::to_owned).collect(),
        };
        (0..4).for_each(|n| fleet.cards.push(fleet.folder(n)));
        fleet.appear(true);
        (0..2).for_each(|_| fleet.appear(false));
        fleet
    }

    fn options(&self) -> Options {
        Options { broken_verdict: self.broken, ..self.world.options() }
    }

    fn folder(&self, n: u32) -> PathBuf {
        let path = self.world.dir.path().join(format!("card{n}"));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn file(&mut self) -> PathBuf {
        self.files += 1;
        self.world.path(&format!("copy{}", self.files))
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    /// A device appears, with rows of its own before it meets anybody.
    fn appear(&mut self, base: bool) {
        let n = self.devices.len();
        let name = format!("{}{n}", if base { "base" } else { "board" });
        let init = InitOptions { name: &name, base, fleet: Some(&self.world.fleet) };
        let mut engine = Engine::init_with(&self.world.path(&name), &init, self.options()).unwrap();
        if !base || self.random.chance(30) {
            sql(&engine, SHARED);
            let merge = if self.seed % 4 == 1 { Merge::Cell } else { Merge::Row };
            let policy = if self.seed % 5 == 1 { Policy::Lww } else { Policy::Manual };
            let rules = RULES.map(|(column, rule)| (column.to_owned(), rule));
            let columns = if self.seed % 4 < 3 { rules.into() } else { Vec::new() };
            let options = TrackOptions { merge, policy, columns, ..TrackOptions::default() };
            engine.track("notes", &options).unwrap();
        }
        if !base {
            sql(&engine, READINGS);
            engine.track("readings", &append()).unwrap();
        }
        let group = self.random.below(2);
        self.devices.push(Device {
            engine,
            base,
            backups: Vec::new(),
            lost: None,
            second: false,
            verdicts: 0,
            revoked: false,
            group,
        });
        self.trace.push(format!("d{n} appears, a {}, in group {group}", if base { "base" } else { "board" }));
        self.write(n);
    }

    fn write(&mut self, d: usize) {
        let db = app(&self.devices[d].engine);
        let notes = db.prepare("SELECT 1 FROM notes").is_ok();
        let readings = !self.devices[d].base && db.prepare("SELECT 1 FROM readings").is_ok();
        self.values += 1;
        let (key, value) = (format!("k{}", self.below(5)), format!("v{}", self.values));
        let mut texts = Vec::new();
        if notes {
            let k = self.below(9) as i64 - 3;
            texts.push(match self.below(10) {
                0 => format!("DELETE FROM notes WHERE id = '{key}'"),
                1 | 2 => format!("UPDATE notes SET n = n + {k} WHERE id = '{key}'"),
                3 => format!("UPDATE notes SET r = r + {k} * 0.1 WHERE id = '{key}'"),
                4 => format!("UPDATE notes SET hi = {k}, lo = {k} WHERE id = '{key}'"),
                5 => format!("UPDATE notes SET body = '{value}' WHERE id = '{key}'"),
                _ => format!(
                    "INSERT INTO notes VALUES ('{key}', '{value}', {k}, {k} / 10.0, {k}, {k})
                     ON CONFLICT DO UPDATE SET body = excluded.body"
                ),
            });
        }
        if readings {
            texts.push(format!("INSERT INTO readings (v) VALUES ('r{}')", self.values));
            self.authors.insert(format!("\"r{}\"", self.values), d);
        }
        texts.iter().for_each(|text| db.execute_batch(text).unwrap());
        drop(db);
        self.touched(d);
        self.trace.push(format!("d{d}: {}", texts.join("; ")));
    }

    /// A device is to write something of its own.
    fn touched(&mut self, d: usize) {
        self.recovered(d);
        self.devices[d].second |= self.devices[d].lost.is_some();
    }

    /// Finds whether a device that was restored has got back what it had lost.
    fn recovered(&mut self, d: usize) {
        let device = &mut self.devices[d];
        let now = positions(&device.engine);
        // A verdict is written, too.
        device.second |= device.lost.is_some() && own_verdicts(&device.engine) > device.verdicts;
        if device.lost.is_some_and(|lost| lost.iter().zip(now).all(|(lost, now)| now >= *lost)) {
            device.lost = None;
        }
    }

    fn exchange(&mut self, d: usize, card: usize) -> Result<Exchange, String> {
        let mut report = Exchange::default();
        let mut directory = Directory::open(&self.cards[card]).map_err(|e| e.to_string())?;
        card::exchange(
            &mut self.devices[d].engine,
            &mut directory,
            &Limits::default(),
            &mut |_, _| (),
            &mut report,
        )
        .map_err(|e| format!("d{d} with card {card}: {e}"))?;
        let ops: u64 = report.taken.iter().map(|(_, report)| report.ops).sum();
        let over: Vec<_> = report.stepped_over.iter().map(|(_, why)| said(why)).collect();
        let twin = |why: &Skipped| matches!(why, Skipped::Refused(Error::Twin { .. } | Error::Forked { .. }));
        let is_second = self.devices.iter().any(|d| d.second);
        self.refused_twins |= is_second && report.stepped_over.iter().any(|(_, why)| twin(why));
        self.trace.push(format!(
            "d{d} with card {card}: {} taken, {ops} rows, {} heard, {} left; stepped over {over:?}",
            report.taken.len(),
            report.heard.len(),
            report.left.len()
        ));
        self.recovered(d);
        Ok(report)
    }

    fn restore(&mut self, d: usize) {
        let n = self.below(self.devices[d].backups.len());
        let (from, to) = (self.devices[d].backups[n].clone(), self.file());
        for (from, to) in [(from.clone(), to.clone()), (key_of(&from), key_of(&to))] {
            std::fs::copy(from, to).unwrap();
        }
        let options = self.options();
        let device = &mut self.devices[d];
        let was = device.lost.unwrap_or_default();
        let now = positions(&device.engine);
        device.lost = Some([was[0].max(now[0]), was[1].max(now[1])]);
        let before = device.engine.identity().id;
        device.engine = Engine::open_with(&to, options).unwrap();
        device.second |= device.engine.identity().id != before;
        device.verdicts = own_verdicts(&device.engine);
        self.trace.push(format!("d{d} is restored"));
        self.recovered(d);
    }

    fn off(&self, kind: &str) -> bool {
        self.broken || self.without.iter().any(|name| name == kind)
    }

    fn step(&mut self, met: &mut Met) -> Result<(), String> {
        self.world.tick(1_000);
        let d = self.below(self.devices.len());
        let other = (d + 1 + self.below(self.devices.len() - 1)) % self.devices.len();
        let near = !self.apart || self.devices[d].group == self.devices[other].group;
        match self.below(100) {
            0..=33 => self.write(d),
            35..=64 => {
                let card = if self.apart { self.devices[d].group as usize } else { self.below(3) };
                met.states += self.exchange(d, card)?.left.iter().filter(|left| left.state).count() as u32;
            }
            65..=74 if near => {
                let [a, b] = self.devices.get_disjoint_mut([d, other]).unwrap();
                self.post.push((other, bundle(&mut a.engine, &b.engine)));
                self.trace.push(format!("d{d} packs for d{other}"));
            }
            75..=80 if !self.post.is_empty() => {
                let at = self.below(self.post.len());
                let (to, bytes) =
                    if self.random.chance(50) { self.post.swap_remove(at) } else { self.post[at].clone() };
                let taken = try_import(&mut self.devices[to].engine, &bytes);
                self.recovered(to);
                self.trace.push(format!(
                    "d{to} takes a bundle: {:?}",
                    taken.map(|r| r.ops).map_err(|e| e.to_string())
                ));
            }
            81..=86 => {
                self.touched(d);
                met.folded += self.devices[d].engine.compact().unwrap().frames;
                self.trace.push(format!("d{d} compacts"));
            }
            87..=88 if self.devices.len() < 6 => {
                let base = self.random.chance(15);
                self.appear(base);
            }
            89..=91 if !self.off("restore") => {
                let to = self.file();
                // What is not sealed in a backup is written again by who is restored from it.
                self.touched(d);
                let _ = self.devices[d].engine.seal();
                copy_card(&self.devices[d].engine, &to);
                self.devices[d].backups.push(to);
                self.trace.push(format!("d{d} is backed up"));
            }
            92..=94 if !self.off("restore") && !self.devices[d].backups.is_empty() => {
                met.restored += 1;
                self.restore(d);
            }
            95 if !self.off("lost") => {
                let card = self.below(3);
                std::fs::remove_dir_all(&self.cards[card]).unwrap();
                std::fs::create_dir(&self.cards[card]).unwrap();
                self.trace.push(format!("card {card} is lost"));
            }
            96 if !self.off("copied") && !self.apart => {
                let (from, to) = (self.below(3), self.below(3));
                copy_files(&self.cards[from], &self.cards[to]);
                self.trace.push(format!("card {from} is copied to card {to}"));
            }
            97 if !self.off("merge") && near && self.devices[d].base => self.merge(d, other, met),
            98 if !self.off("retire") && self.devices[d].base => {
                let id = self.devices[other].engine.identity().id;
                met.retired += u32::from(self.devices[d].engine.retire(id, None).is_ok());
                self.trace.push(format!("d{d} retires d{other}"));
                self.touched(d);
            }
            99 if !self.off("revoke") && self.devices[d].base && !self.devices[other].base => {
                self.revoke(d, other, met);
            }
            34 => {
                self.apart = false;
                self.trace.push("the groups meet".into());
            }
            _ => {}
        }
        Ok(())
    }

    /// A copy of a device's card, its key beside it, is merged at the office.
    fn merge(&mut self, base: usize, of: usize, met: &mut Met) {
        let copy = self.file();
        copy_card(&self.devices[of].engine, &copy);
        let merged = self.devices[base].engine.import_database(&copy, &mut |_| ());
        met.merged += u32::from(merged.is_ok());
        let how = merged.map(|r| r.ops).map_err(|e| e.to_string());
        self.trace.push(format!("d{base} merges a copy of d{of}: {how:?}"));
    }

    fn revoke(&mut self, base: usize, thief: usize, met: &mut Met) {
        let id = self.devices[thief].engine.identity().id;
        let revoked = self.devices[thief].revoked;
        let (key, engine) = (Some(&self.world.fleet), &mut self.devices[base].engine);
        if !engine.devices().unwrap().iter().any(|known| known.id == id) {
            return;
        }
        let done = if revoked { engine.take_back_revocation(id, key) } else { engine.revoke(id, key) };
        if done.is_ok() {
            self.devices[thief].revoked = !revoked;
            met.revoked += 1;
            self.trace.push(format!("d{base} {} d{thief}", if revoked { "takes back" } else { "revokes" }));
        }
        self.touched(base);
    }

    fn live(&mut self, met: &mut Met) -> Result<(), String> {
        let steps = self.below(60) + 20;
        let before = |fleet: &Self| -> Vec<DeviceId> {
            fleet.devices.iter().map(|d| d.engine.identity().id).collect()
        };
        for _ in 0..steps {
            let was = before(self);
            self.step(met)?;
            self.same_identities(&was)?;
        }
        let was = before(self);
        let mut why = String::new();
        for round in 1..=4 {
            for d in 0..self.devices.len() {
                self.world.tick(1_000);
                if !self.devices[d].revoked {
                    self.exchange(d, 3)?;
                }
            }
            self.same_identities(&was)?;
            match self.in_step() {
                Ok(()) => {
                    met.rounds = met.rounds.max(round);
                    why.clear();
                }
                Err(not) => why = not,
            }
        }
        if !why.is_empty() && self.refused_twins {
            // A third device has taken in what is now of another identity: who has the first history refuses it.
            met.forked += 1;
            return Ok(());
        }
        if !why.is_empty() {
            return Err(why);
        }
        let there = readings(&self.devices[0].engine);
        met.twice += there.windows(2).filter(|pair| pair[0] == pair[1]).count();
        met.second += self.devices.iter().filter(|d| d.second).count() as u32;
        met.conflicts += self.devices[0].engine.conflicts().unwrap().len();
        met.verdicts += self.devices.iter().map(|d| own_verdicts(&d.engine)).sum::<usize>();
        Ok(())
    }

    fn same_identities(&mut self, was: &[DeviceId]) -> Result<(), String> {
        for (d, was) in was.iter().enumerate() {
            if self.devices[d].engine.identity().id != *was {
                self.trace.push(format!("d{d} has another identity"));
                if !self.devices[d].second {
                    return Err(format!("d{d} has another identity and is no second history"));
                }
                self.devices[d].lost = None;
            }
        }
        Ok(())
    }

    fn in_step(&self) -> Result<(), String> {
        let all: Vec<(usize, &Device)> =
            self.devices.iter().enumerate().filter(|(_, d)| !d.revoked).collect();
        let digest = |d: &Device| d.engine.digest(false).unwrap();
        let first = digest(all[0].1);
        let apart: Vec<usize> = all.iter().filter(|(_, d)| digest(d) != first).map(|(n, _)| *n).collect();
        if !apart.is_empty() {
            return Err(format!("{apart:?} have another digest than d{}\n{}", all[0].0, self.shown(&all)));
        }
        for (n, device) in &all {
            let mut waits = device.engine.status().unwrap().waits;
            // What a revoked device wrote and nobody had taken in is void.
            waits.retain(|wait| wait.missing != Missing::Vouching);
            if !waits.is_empty() {
                return Err(format!("at d{n} waits {waits:?}"));
            }
        }
        for (base, device) in all.iter().filter(|(_, d)| d.base) {
            let there = readings(&device.engine);
            let distinct: BTreeSet<&String> = there.iter().collect();
            // A second history that nobody tells where it begins writes again what it may have written alone.
            let twice = there.windows(2).filter(|pair| pair[0] == pair[1]);
            let wrong: Vec<_> = twice.filter(|pair| !self.devices[self.authors[&pair[0]]].second).collect();
            if !wrong.is_empty() {
                return Err(format!("base d{base} has readings twice: {wrong:?}"));
            }
            for (n, board) in all.iter().filter(|(_, d)| !d.base) {
                let lacks: Vec<_> =
                    readings(&board.engine).into_iter().filter(|v| !distinct.contains(v)).collect();
                if !lacks.is_empty() {
                    return Err(format!("base d{base} lacks readings of d{n}: {lacks:?}"));
                }
            }
        }
        Ok(())
    }

    fn shown(&self, all: &[(usize, &Device)]) -> String {
        let one = |(n, d): &(usize, &Device)| {
            let notes = if app(&d.engine).prepare("SELECT 1 FROM notes").is_ok() {
                rows(&d.engine, "SELECT * FROM notes ORDER BY 1")
            } else {
                Vec::new()
            };
            let open = d.engine.conflicts().unwrap();
            let versions: Vec<_> = open
                .iter()
                .flat_map(|c| c.versions.iter().map(|v| (&c.key, v.device, v.op, v.at, &v.values)))
                .collect();
            let waits = d.engine.status().unwrap().waits;
            format!("d{n} {} {notes:?}\n    {waits:?}\n    {versions:?}", d.engine.identity().id)
        };
        all.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

/// Up to where a device's own streams go.
fn positions(engine: &Engine) -> [u64; 2] {
    let this = engine.devices().unwrap().into_iter().find(|d| d.this).unwrap();
    [this.shared, this.own]
}

/// How many frames of verdicts a device has written, of those in its log. The flags are the second byte of a frame.
fn own_verdicts(engine: &Engine) -> usize {
    let sql = format!(
        "SELECT count(*) FROM _pm_frame JOIN _pm_device ON n = dev
         WHERE id = x'{}' AND unicode(substr(CAST(body AS TEXT), 2, 1)) & 8",
        engine.identity().id
    );
    rows(engine, &sql)[0].parse().unwrap()
}

fn readings(engine: &Engine) -> Vec<String> {
    match app(engine).prepare("SELECT 1 FROM readings") {
        Ok(_) => rows(engine, "SELECT v FROM readings ORDER BY 1"),
        Err(_) => Vec::new(),
    }
}

fn key_of(db: &Path) -> PathBuf {
    db.with_extension("db.pmkey")
}

fn said(why: &Skipped) -> String {
    match why {
        Skipped::Refused(e @ (Error::Twin { .. } | Error::Forked { .. } | Error::Untrusted(_))) => {
            e.to_string().chars().take(60).collect()
        }
        other => format!("{other:?}"),
    }
}

/// Copies the files of a card beside those of another one.
fn copy_files(from: &Path, to: &Path) {
    let folder = from.join("PACKMULE");
    if from == to || !folder.is_dir() {
        return;
    }
    std::fs::create_dir_all(to.join("PACKMULE")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join("PACKMULE").join(path.file_name().unwrap())).unwrap();
    }
}

/// Lets a fleet live; tells why it did not end as it should.
fn life(seed: u64, broken: bool, met: &mut Met) -> Result<(), String> {
    let mut fleet = Fleet::new(seed, broken);
    let lived = catch_unwind(AssertUnwindSafe(|| fleet.live(met)));
    let why = match lived {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            format!("it panicked: {}", text.unwrap_or_default())
        }
    };
    Err(format!("{}\n{why}", fleet.trace.join("\n")))
}

#[test]
fn fleets_end_the_same_through_cards_alone() {
    let seeds = seeds(20);
    let many = seeds.end - seeds.start >= 20;
    let mut met = Met::default();
    let mut failed = Vec::new();
    for seed in seeds {
        if let Err(why) = life(seed, false, &mut met) {
            eprintln!("PACKMULE_SEED={seed} replays it: {}", why.lines().rev().take(1).collect::<String>());
            failed.push((seed, why));
        }
    }
    println!("{met:?}");
    if let Some((seed, why)) = failed.first() {
        let all: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        panic!("{} failed: {all:?}\nPACKMULE_SEED={seed} replays the first:\n{why}", all.len());
    }
    assert!(!many || (met.conflicts > 0 && met.verdicts > 0 && met.folded > 0 && met.states > 0), "{met:?}");
}

/// The control: a winner that depends on what is remembered.
#[test]
fn without_verdicts_fleets_part() {
    let mut met = Met::default();
    assert!(
        (0..100).any(|seed| life(seed, true, &mut met).is_err()),
        "the test does not see that folding decides"
    );
}
