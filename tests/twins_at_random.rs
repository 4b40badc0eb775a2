//! Boards that are cloned, rolled back and restored at random, as SD cards are: whatever was written and is
//! still on any card arrives at the base, once. `PACKMULE_SEED=N` replays one schedule,
//! `PACKMULE_SCHEDULES=N` runs so many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::PathBuf;

use common::*;
use packmule::{Engine, Error, JoinOptions, Recipient, TrackOptions};

struct Fleet {
    world: World,
    random: Random,
    base: Engine,
    boards: Vec<Engine>,
    /// A backup of a board, by its place.
    backups: Vec<(usize, PathBuf)>,
    files: u32,
    written: u32,
    /// What must arrive, of the shared and of the per-device table.
    alive: [BTreeSet<String>; 2],
    log: Vec<String>,
}

/// What a schedule met: so that it is known that it met something.
#[derive(Default, Debug)]
struct Met {
    taken_back: u32,
    anew: u32,
    refused: u32,
    joined: u32,
    folded: u64,
    left_behind: u32,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let world = World::seeded(seed);
        let mut base = world.base("base");
        let mut boards = Vec::new();
        for name in ["a", "b"] {
            let mut board = world.board_with(name, "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
            sql(&board, "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, k)");
            board.track("log", &TrackOptions { append: true, ..per_device() }).unwrap();
            boards.push(board);
        }
        carry(&mut boards[0], &mut base);
        Self {
            world,
            random: Random(seed),
            base,
            boards,
            backups: Vec::new(),
            files: 0,
            written: 0,
            alive: Default::default(),
            log: Vec::new(),
        }
    }

    fn copy_of(&mut self, at: usize) -> PathBuf {
        self.files += 1;
        let to = self.world.path(&format!("copy{}", self.files));
        copy_card(&self.boards[at], &to);
        to
    }

    fn keys(engine: &Engine, table: &str) -> BTreeSet<String> {
        let there = rows(engine, &format!("SELECT 1 FROM sqlite_schema WHERE name = '{table}'"));
        if there.is_empty() {
            return BTreeSet::new();
        }
        let rows = rows(engine, &format!("SELECT k FROM {table}"));
        rows.into_iter().map(|k| k.trim_matches('"').to_owned()).collect()
    }

    /// What is on any card.
    fn all(&self, table: &str) -> BTreeSet<String> {
        self.boards.iter().chain([&self.base]).flat_map(|e| Self::keys(e, table)).collect()
    }

    fn write(&mut self, at: usize) {
        self.written += 1;
        let key = format!("k{}", self.written);
        let text = format!("INSERT INTO t VALUES ('{key}', {at}); INSERT INTO log (k) VALUES ('{key}')");
        sql(&self.boards[at], &text);
        self.alive.iter_mut().for_each(|alive| {
            alive.insert(key.clone());
        });
        self.log.push(format!("{at} writes {key}"));
    }

    fn step(&mut self, met: &mut Met) {
        self.world.tick(1_000);
        let at = self.random.below(self.boards.len() as u64) as usize;
        match self.random.below(100) {
            0..=39 => {
                self.write(at);
                if self.random.chance(60) {
                    self.boards[at].seal().unwrap();
                }
            }
            40..=74 => {
                let (to, whole) = (self.random.below(3), self.random.chance(40));
                self.log.push(format!("{at} and {to}, whole {whole}"));
                let to = to as usize;
                if to >= self.boards.len() || to == at {
                    let (board, base) = (&mut self.boards[at], &mut self.base);
                    meet(board, base, whole, met);
                } else {
                    let (low, high) = self.boards.split_at_mut(at.max(to));
                    meet(&mut low[at.min(to)], &mut high[0], whole, met);
                }
            }
            75..=77 => {
                let report = self.base.compact().unwrap();
                met.folded += report.frames;
                self.log.push(format!("the base folds {} frames away", report.frames));
            }
            78..=82 if self.boards.len() < 5 => {
                let path = self.copy_of(at);
                self.log.push(format!("{at} is copied to {}", self.boards.len()));
                self.boards.push(Engine::open_with(&path, self.world.options()).unwrap());
            }
            83..=91 => {
                let path = self.copy_of(at);
                self.log.push(format!("{at} is backed up"));
                self.backups.push((at, path));
            }
            _ => {
                let Some(n) = self.backups.iter().rposition(|(of, _)| *of == at) else { return };
                let (_, path) = self.backups.remove(n);
                self.log.push(format!("{at} is restored"));
                self.boards[at] = Engine::open_with(&path, self.world.options()).unwrap();
                // What was on the card alone is gone with it.
                self.alive = ["t", "log"].map(|table| self.all(table));
            }
        }
    }

    /// Whoever wrote under a name that no card has any more will not come back, as a person would say.
    fn retire_the_dead(&mut self) {
        let living: Vec<_> = self.boards.iter().map(|board| board.identity().id).collect();
        for device in self.base.devices().unwrap() {
            if !device.this && !device.retired && !living.contains(&device.id) {
                self.base.retire(device.id, None).unwrap();
            }
        }
    }

    /// Whether what a board lacks, or had not seen when it wrote, is folded at the base.
    fn is_left_behind(&mut self, at: usize) -> bool {
        let mut bytes = Vec::new();
        let to = Recipient::Device(self.boards[at].identity().id);
        self.base.export(&mut bytes, to).unwrap().state
    }

    /// Everybody meets the base, and whoever cannot be merged starts from its snapshot.
    fn gather(&mut self, met: &mut Met) {
        for at in 0..self.boards.len() {
            self.write(at); // A board that was rolled back and writes nothing more would wait for what it lost.
        }
        for round in 0..5 {
            if round > 0 {
                self.retire_the_dead();
            }
            for at in 0..self.boards.len() {
                self.world.tick(1_000);
                let mut fine = (0..2).any(|_| meet(&mut self.boards[at], &mut self.base, true, met));
                if fine && self.is_left_behind(at) {
                    met.left_behind += 1;
                    fine = false;
                }
                if fine {
                    continue;
                }
                self.log.push(format!("{at} joins"));
                met.joined += 1;
                let mut snapshot = Cursor::new(Vec::new());
                self.base.snapshot(&mut snapshot).unwrap();
                let path = self.boards.remove(at).path().to_owned();
                let join = JoinOptions { name: None, fleet: Some(&self.world.fleet) };
                let (board, _) = Engine::join(&path, &mut snapshot, &join, self.world.options()).unwrap();
                self.boards.insert(at, board);
            }
        }
    }
}

/// Both ways; whether neither refused the other.
fn meet(a: &mut Engine, b: &mut Engine, whole: bool, met: &mut Met) -> bool {
    let mut fine = true;
    for _ in 0..2 {
        for to_b in [true, false] {
            let (from, to) = if to_b { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            let (was, had) = (to.identity().id, position(to));
            let bytes = if whole { Ok(whole_bundle(from)) } else { Ok::<_, Error>(bundle(from, to)) };
            match bytes.and_then(|bytes| try_import(to, &bytes)) {
                Ok(_) => {
                    met.anew += u32::from(to.identity().id != was);
                    met.taken_back += u32::from(to.identity().id == was && position(to) > had + 1);
                }
                Err(Error::Twin { .. }) => {
                    met.refused += 1;
                    fine = false;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    fine
}

fn label(engine: &Engine) -> String {
    packmule::label(engine.identity().id, Some(&engine.identity().name))
}

fn position(engine: &Engine) -> u64 {
    engine.devices().unwrap()[0].shared
}

fn schedule(seed: u64, met: &mut Met) {
    let mut fleet = Fleet::new(seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..40 {
            fleet.step(met);
        }
        fleet.gather(met);
        let all: Vec<&Engine> = fleet.boards.iter().chain([&fleet.base]).collect();
        digests_equal(&all);
        let living: BTreeSet<String> = all.iter().map(|e| label(e)).collect();
        for (alive, table) in fleet.alive.iter().zip(["t", "log"]) {
            let there = Fleet::keys(&fleet.base, table);
            let missing: Vec<_> = alive.difference(&there).collect();
            assert!(missing.is_empty(), "rows of `{table}` are missing: {missing:?}");
        }
        for engine in all {
            assert_eq!(engine.verify().unwrap().problems, Vec::<String>::new());
            // Of who was restored and wrote what nobody can merge, what it wrote before waits for ever.
            let mut waits = engine.status().unwrap().waits;
            waits.retain(|wait| living.contains(&wait.author));
            assert!(waits.is_empty(), "{waits:?}");
        }
    }));
    if let Err(why) = result {
        for line in &fleet.log {
            eprintln!("  {line}");
        }
        for engine in fleet.boards.iter().chain([&fleet.base]) {
            let status = engine.status().unwrap();
            eprintln!("{} {:?}\n    {:?}", status.identity.name, Fleet::keys(engine, "t"), status.waits);
        }
        eprintln!("PACKMULE_SEED={seed} replays it");
        std::panic::resume_unwind(why);
    }
}

#[test]
fn whatever_is_on_a_card_arrives() {
    let seeds = match number("PACKMULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("PACKMULE_SCHEDULES").unwrap_or(20) + 1,
    };
    let many = seeds.end - seeds.start >= 20;
    let mut met = Met::default();
    for seed in seeds {
        schedule(seed, &mut met);
    }
    println!("{met:?}");
    if many {
        assert!(met.taken_back > 0 && met.anew > 10 && met.refused > 10 && met.joined > 0, "{met:?}");
    }
}
