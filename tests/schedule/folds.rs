//! Devices that fold as they like, also what nobody else has; newcomers with rows of their own; older backups; devices
//! that are given up and come back. After each event rows and open conflicts are what the log says (`model/log.rs`), of
//! which the ops are read as they are sealed, those of verdicts too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use packmule::core::model::Value;
use packmule::core::wire::{Block, Frame, FrameFlags, OpKind, Ops, Shape};
use packmule::{Engine, Error, InitOptions, Policy, Resolution, TrackOptions};

use crate::bundles;
use crate::common::*;
use crate::model::log::{self, Op, Vector};

/// What came about: verdicts on rows, versions folded, newcomers, backups taken back, open conflicts, resolutions,
/// revocations.
pub type Counts = [usize; 7];

struct Device {
    name: String,
    engine: Engine,
    clock: Arc<AtomicI64>,
    /// How far its own stream has been read.
    read: u64,
    /// How far its own stream was when its backup was made.
    backup: Option<u64>,
}

pub struct Fleet {
    world: World,
    random: Random,
    devices: Vec<Device>,
    ops: BTreeMap<(String, u64, String), Op>,
    bundles: Vec<Vec<u8>>,
    /// The device that was stolen and revoked. What the others had of it when they heard of that, they keep.
    stolen: Option<usize>,
    last_wins: bool,
    broken: bool,
    counts: Counts,
    pub trace: Vec<String>,
}

impl Fleet {
    fn new(seed: u64, broken: bool) -> Self {
        let mut fleet = Self {
            world: World::seeded(seed),
            random: Random(seed),
            devices: Vec::new(),
            ops: BTreeMap::new(),
            bundles: Vec::new(),
            stolen: None,
            last_wins: seed % 4 == 3,
            broken,
            counts: Counts::default(),
            trace: Vec::new(),
        };
        for _ in 0..2 + fleet.random.below(2) {
            fleet.newcomer();
        }
        fleet
    }

    fn options(&self, clock: &Arc<AtomicI64>) -> packmule::Options {
        packmule::Options { broken_verdict: self.broken, ..World::options_by(clock) }
    }

    /// A device that has rows already when it comes, and knows nobody.
    fn newcomer(&mut self) {
        let n = self.devices.len();
        let name = format!("d{n}");
        let clock = Arc::new(AtomicI64::new([1_700_000_000_000, 0, 4_070_908_800_000][n % 3]));
        let base = n == 0 && self.random.chance(50);
        let init = InitOptions { name: &name, base, fleet: Some(&self.world.fleet) };
        let mut engine = Engine::init_with(&self.world.path(&name), &init, self.options(&clock)).unwrap();
        sql(&engine, "CREATE TABLE r (id INTEGER PRIMARY KEY, v INTEGER)");
        for _ in 0..self.random.below(3) {
            let (key, value) = (self.random.below(4), self.random.below(3));
            sql(&engine, &format!("INSERT OR REPLACE INTO r VALUES ({key}, {value})"));
        }
        let policy = if self.last_wins { Policy::Lww } else { Policy::Manual };
        engine.track("r", &TrackOptions { policy, ..TrackOptions::default() }).unwrap();
        self.devices.push(Device { name, engine, clock, read: 0, backup: None });
        self.trace.push(format!("d{n}: comes, base {base}"));
        self.read(n);
    }

    fn applied(&self, d: usize) -> Vector {
        let known = self.devices[d].engine.devices().unwrap();
        known.iter().map(|device| (device.id.to_string(), device.shared)).collect()
    }

    /// Seals, and reads what a device has sealed since.
    fn read(&mut self, d: usize) {
        self.devices[d].engine.seal().unwrap();
        let me = self.devices[d].engine.identity().id.to_string();
        let applied = self.applied(d);
        let db = app(&self.devices[d].engine);
        let mut statement = db
            .prepare(
                "SELECT seq, body FROM _pm_frame WHERE stream = 0 AND seq > ?1
                 AND dev = (SELECT n FROM _pm_device WHERE id = ?2) ORDER BY seq",
            )
            .unwrap();
        let id = self.devices[d].engine.identity().id.0;
        let frames: Vec<(u64, Vec<u8>)> = statement
            .query_map((self.devices[d].read, id.as_slice()), |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let (mut first, mut wall) = (0, 0);
        for (seq, body) in frames {
            let body = bundles::plain(&body);
            let frame = Frame::parse(&body).unwrap();
            if let Some(group) = frame.group {
                (first, wall) = (seq, group.wall);
            }
            let mut seen = applied.clone();
            seen.insert(me.clone(), first - 1);
            let mut ops = ops_of(&frame);
            if frame.head.flags.has(FrameFlags::VERDICT) {
                self.counts[0] += ops.len();
                self.trace.push(format!("d{d}: verdict {seq} on {}", ops.len()));
            }
            for op in &mut ops {
                (op.author, op.seq) = (me.clone(), seq);
                op.wall = if op.wall == i64::MIN { wall } else { op.wall };
                op.seen = seen.clone();
                self.ops.insert((me.clone(), seq, op.key.clone()), op.clone());
            }
            self.devices[d].read = seq;
        }
    }

    /// The rows and open conflicts of a device are those of the log.
    fn check(&self, d: usize) {
        let device = &self.devices[d];
        let expected = log::state(&self.ops, &self.applied(d), self.last_wins);
        let shown: BTreeMap<String, String> = rows(&device.engine, "SELECT id, v FROM r")
            .iter()
            .map(|row| row.split_once('|').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap())
            .collect();
        assert_eq!(shown, expected.shown, "shown (left) and expected on d{d}");
        let open = device.engine.conflicts().unwrap();
        let contested: BTreeMap<String, usize> =
            open.iter().map(|c| (super::show(&c.key[0].1), c.versions.len())).collect();
        assert_eq!(contested, expected.contested, "contested on d{d}: {open:#?}");
    }

    fn bundle(&mut self, from: usize, to: Option<usize>) -> Vec<u8> {
        self.read(from);
        let to = to.map(|to| self.devices[to].engine.identity().id);
        let recipient = to.map_or(packmule::Recipient::Anyone, packmule::Recipient::Device);
        let mut bytes = Vec::new();
        self.devices[from].engine.export(&mut bytes, recipient).unwrap();
        self.read(from);
        bytes
    }

    fn take_in(&mut self, d: usize, bytes: &[u8]) {
        self.read(d);
        let before = self.devices[d].engine.identity().id;
        match try_import(&mut self.devices[d].engine, bytes) {
            Err(Error::Untrusted(_)) if self.stolen.is_some() => self.trace.push(format!("d{d}: refuses it")),
            taken => drop(taken.unwrap()),
        }
        assert_eq!(self.devices[d].engine.identity().id, before, "the identity of d{d}");
        self.read(d);
        self.check(d);
    }

    fn step(&mut self) {
        let all = self.there();
        let n = all.len();
        let at = self.random.below(n as u64) as usize;
        let to = all[(at + 1 + self.random.below(n as u64 - 1) as usize) % n];
        let d = all[at];
        match self.random.below(100) {
            0..=34 => self.write(d),
            35..=45 => {
                let anyone = self.random.chance(30);
                let bytes = self.bundle(d, Some(to).filter(|_| !anyone));
                self.trace.push(format!("d{d}: bundle {} for d{to}, anyone {anyone}", self.bundles.len()));
                self.bundles.push(bytes);
            }
            46..=63 if !self.bundles.is_empty() => {
                let at = self.random.below(self.bundles.len() as u64) as usize;
                self.trace.push(format!("d{d}: takes in bundle {at}"));
                let bytes = self.bundles[at].clone();
                self.take_in(d, &bytes);
            }
            64..=73 => {
                self.trace.push(format!("d{d}: gives d{to} all"));
                let bytes = self.bundle(d, Some(to));
                self.take_in(to, &bytes);
            }
            74..=81 => self.fold(d),
            82..=83 if n > 2 && self.stolen.is_none() => self.revoke(d, to),
            84..=86 if n < 5 => {
                self.newcomer();
                self.counts[2] += 1;
            }
            87..=90 => self.backup(d),
            91..=96 => self.restore(d, to),
            97..=99 => self.resolve(d),
            _ => {}
        }
    }

    /// The devices that are not stolen.
    fn there(&self) -> Vec<usize> {
        (0..self.devices.len()).filter(|d| self.stolen != Some(*d)).collect()
    }

    /// A device is stolen, and somebody who has met it says so with the fleet key. The thief's bundles are under way.
    fn revoke(&mut self, d: usize, thief: usize) {
        let id = self.devices[thief].engine.identity().id;
        if !self.devices[d].engine.devices().unwrap().iter().any(|known| known.id == id) {
            return;
        }
        self.read(d);
        self.devices[d].engine.revoke(id, Some(&self.world.fleet)).unwrap();
        self.stolen = Some(thief);
        self.counts[6] += 1;
        self.trace.push(format!("d{d}: revokes d{thief}"));
        self.read(d);
        self.check(d);
    }

    fn write(&mut self, d: usize) {
        let (key, value) = (self.random.below(4), self.random.below(4));
        let statement = match self.random.below(4) {
            0 => format!("DELETE FROM r WHERE id = {key}"),
            1 => format!("UPDATE r SET v = {value} WHERE id = {key}"),
            _ => {
                format!("INSERT INTO r VALUES ({key}, {value}) ON CONFLICT (id) DO UPDATE SET v = excluded.v")
            }
        };
        self.trace.push(format!("d{d}: {statement}"));
        self.devices[d].clock.fetch_add(1, Ordering::Relaxed);
        sql(&self.devices[d].engine, &statement);
        self.read(d);
        self.check(d);
    }

    /// Folds what is stable; often what nobody else has, too: all others are given up for that moment.
    fn fold(&mut self, d: usize) {
        self.read(d);
        let reckless = self.random.chance(60);
        let engine = &mut self.devices[d].engine;
        let known = engine.devices().unwrap();
        let mut given_up = Vec::new();
        for other in known.iter().filter(|o| reckless && !o.this && !o.retired && !o.revoked) {
            engine.retire(other.id, None).unwrap();
            given_up.push(other.id);
        }
        let before = engine.digest(false).unwrap();
        let versions = engine.compact().unwrap().versions;
        assert_eq!(engine.digest(false).unwrap(), before, "the digest of d{d}, folded");
        // Those that stay given up are back once they write again.
        if self.random.chance(60) {
            for id in given_up {
                engine.take_back_retirement(id, None).unwrap();
            }
        }
        self.counts[1] += versions as usize;
        self.trace.push(format!("d{d}: folds {versions} versions, reckless {reckless}"));
        self.read(d);
        self.check(d);
    }

    fn backup(&mut self, d: usize) {
        self.read(d);
        let to = self.world.path(&format!("{}-backup", self.devices[d].name));
        let _ = std::fs::remove_file(&to);
        sql(&self.devices[d].engine, &format!("VACUUM INTO '{}'", to.display()));
        self.devices[d].backup = Some(self.devices[d].read);
        self.trace.push(format!("d{d}: backup"));
    }

    /// A device is set back, and hears at once of what it has forgotten from one that has all of it.
    fn restore(&mut self, d: usize, from: usize) {
        if self.devices[d].backup.is_none() {
            return;
        }
        let bytes = self.bundle(d, Some(from));
        self.take_in(from, &bytes);
        let id = self.devices[d].engine.identity().id.to_string();
        if self.applied(from).get(&id).copied().unwrap_or(0) < self.devices[d].read {
            return;
        }
        let path = self.world.path(&self.devices[d].name);
        let backup = self.world.path(&format!("{}-backup", self.devices[d].name));
        // Another file takes the place of the one that is open.
        for file in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
            let _ = std::fs::remove_file(file);
        }
        std::fs::copy(backup, &path).unwrap();
        let options = self.options(&self.devices[d].clock);
        self.devices[d].engine = Engine::open_with(&path, options).unwrap();
        self.counts[3] += 1;
        self.trace.push(format!("d{d}: is restored, and hears of d{from}"));
        let bytes = whole_bundle(&mut self.devices[from].engine);
        self.read(from);
        import(&mut self.devices[d].engine, &bytes);
        assert_eq!(self.devices[d].engine.identity().id.to_string(), id, "the identity of d{d}");
        self.read(d);
        self.check(d);
    }

    fn resolve(&mut self, d: usize) {
        self.read(d);
        let open = self.devices[d].engine.conflicts().unwrap();
        let Some(conflict) = open.first() else { return };
        let how = if self.random.chance(20) {
            Resolution::Delete
        } else {
            Resolution::Take(conflict.versions[0].device.unwrap())
        };
        self.devices[d].engine.resolve(&conflict.id, &how).unwrap();
        self.counts[5] += 1;
        self.trace.push(format!("d{d}: resolves {:?}: {how:?}", conflict.key));
        self.read(d);
        self.check(d);
    }

    fn has_all(&self, d: usize) -> bool {
        let applied = self.applied(d);
        let stolen = self.stolen.map(|thief| self.devices[thief].engine.identity().id.to_string());
        let mut ops = self.ops.values().filter(|op| stolen.as_ref() != Some(&op.author));
        ops.all(|op| applied.get(&op.author).is_some_and(|seq| *seq >= op.seq))
    }

    /// Some rounds, after which all have everything and nothing of it is typed.
    fn finish(&mut self) {
        self.trace.push("all meet".into());
        for _ in 0..4 {
            for from in self.there() {
                for to in self.there().into_iter().filter(|to| *to != from) {
                    let bytes = self.bundle(from, Some(to));
                    self.take_in(to, &bytes);
                }
            }
            if self.there().iter().all(|d| self.has_all(*d)) {
                break;
            }
        }
        let there = self.there();
        let engines: Vec<&Engine> = there.iter().map(|d| &self.devices[*d].engine).collect();
        digests_equal(&engines);
        for d in there {
            assert!(self.devices[d].engine.verify().unwrap().problems.is_empty());
            assert!(self.has_all(d), "d{d} has everything");
            self.check(d);
        }
        self.counts[4] = self.devices[self.there()[0]].engine.conflicts().unwrap().len();
    }
}

fn literal(value: &Value<'_>) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        other => panic!("no schedule writes {other:?}"),
    }
}

/// The ops of a frame, without who wrote them; a wall time of `i64::MIN` is that of the group.
fn ops_of(frame: &Frame<'_>) -> Vec<Op> {
    let shape = Shape { keys: &[true, false] };
    let (mut all, mut keeps) = (Vec::new(), Vec::new());
    let mut blocks = frame.blocks();
    while let Some(block) = blocks.next_block().unwrap() {
        match block {
            Block::Keep(runs) => {
                keeps = runs.map(|run| (run.device.to_string(), run.first, run.last)).collect();
            }
            Block::Rows { body, offset, .. } => {
                let mut ops = Ops::new(body, offset, shape);
                while let Some(op) = ops.next_op().unwrap() {
                    let values: Vec<String> = op.values(shape).map(|(_, value)| literal(&value)).collect();
                    all.push(Op {
                        author: String::new(),
                        seq: 0,
                        seen: Vector::new(),
                        key: values[0].clone(),
                        value: values.get(1).cloned(),
                        empty: op.head.kind == OpKind::Keep,
                        wall: op.head.wall.unwrap_or(i64::MIN),
                        keeps: keeps.clone(),
                    });
                }
                blocks.resume(ops.rest());
            }
            _ => {}
        }
    }
    all
}

/// Runs the schedule of a seed; what came about, or the trace and what went wrong.
pub fn run(seed: u64, broken: bool) -> Result<Counts, (Vec<String>, String)> {
    let mut fleet = Fleet::new(seed, broken);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..15 + fleet.random.below(35) {
            fleet.step();
        }
        fleet.finish();
        fleet.counts
    }));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        (fleet.trace, text.unwrap_or_default())
    })
}
