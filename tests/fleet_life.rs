//! The life of a fleet: devices that were never waited for, groups that compact apart, restored backups. Whatever
//! happens, exchanging bundles brings all to the same state, and nobody changes its identity.
//!
//! `PACKMULE_SCHEDULES=N` says how many random fleets live, from `PACKMULE_FIRST=N` on; `PACKMULE_SEED=N` replays one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::*;
use packmule::core::model::DeviceId;
use packmule::{ColumnMerge, Engine, InitOptions, Merge, Options, Policy, TrackOptions};

const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)";

/// Everybody gives everybody what it lacks.
fn round(devices: &mut [Engine]) {
    for from in 0..devices.len() {
        for to in 0..devices.len() {
            if from != to {
                carry_between(devices, from, to);
            }
        }
    }
}

fn notes(engine: &Engine) -> Vec<String> {
    rows(engine, "SELECT id || '=' || body FROM notes ORDER BY id")
}

#[test]
fn a_newcomer_with_rows_of_its_own_meets_who_has_folded() {
    let world = World::new();
    let mut devices = vec![world.board_with("a", NOTES, &["notes"]), world.board("b")];
    for n in 0..20 {
        sql(&devices[0], &format!("INSERT INTO notes VALUES ('n{n:02}', 'first')"));
    }
    for _ in 0..3 {
        round(&mut devices);
        devices.iter_mut().for_each(|d| drop(d.compact().unwrap()));
    }
    assert_eq!(rows(&devices[1], &format!("SELECT count(*) FROM {HEADS}")), ["0"]);
    devices.push(world.board_with("c", NOTES, &["notes"]));
    let ids: Vec<DeviceId> = devices.iter().map(|d| d.identity().id).collect();
    sql(&devices[2], "INSERT INTO notes VALUES ('n03', 'mine'), ('own', 'only c')");
    let [c, a] = devices.get_disjoint_mut([2, 0]).unwrap();
    let card = bundle(c, a);
    let report = import(&mut devices[1], &card);
    assert!(report.waits.is_empty(), "{report:?}");
    for _ in 0..3 {
        round(&mut devices);
    }
    let digests: Vec<String> = devices.iter().map(|d| d.digest(false).unwrap().to_string()).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{:#?}", devices.iter().map(notes).collect::<Vec<_>>());
    for device in &devices {
        let open = device.conflicts().unwrap();
        assert_eq!(open.len(), 1, "{open:#?}");
        assert_eq!(open[0].versions.len(), 2, "{open:#?}");
        assert_eq!(notes(device).len(), 21);
        // What was settled is shown before what came late.
        assert_eq!(notes(device)[3], "\"n03=first\"");
    }
    let now: Vec<DeviceId> = devices.iter().map(|d| d.identity().id).collect();
    assert_eq!(now, ids);
}

/// A board seals shared rows and readings at once. Another board takes the shared ones; no base has met the readings when
/// the card is set back. Whoever has the shared part of that seal waits for the other no longer than its author does.
#[test]
fn what_is_lost_with_a_card_holds_up_nobody() {
    let world = World::new();
    let mut north = world.board_with("north", NOTES, &["notes"]);
    sql(&north, "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
    north.track("readings", &append()).unwrap();
    let (mut east, mut base) = (world.board("east"), world.base("base"));
    north.seal().unwrap();
    let backup = world.path("backup");
    copy_card(&north, &backup);
    sql(&north, "INSERT INTO notes VALUES ('a', 'kept by east'); INSERT INTO readings (v) VALUES ('lost')");
    carry(&mut north, &mut east);
    let id = north.identity().id;
    let mut north = Engine::open_with(&backup, world.options()).unwrap();
    // The base hears of it from the other board, and cannot know that the rest is lost.
    assert_eq!(carry(&mut east, &mut base).waits.len(), 1);
    carry(&mut north, &mut east); // It says that it was set back.
    let back = carry(&mut east, &mut north);
    assert!(back.waits.is_empty(), "{back:?}");
    assert_eq!(notes(&north), notes(&east));
    assert!(carry(&mut north, &mut base).waits.is_empty());
    digests_equal(&[&north, &east, &base]);
    assert_eq!(north.identity().id, id);
    // It goes on, and the base gathers what it measures.
    sql(&north, "INSERT INTO readings (v) VALUES ('next')");
    carry(&mut north, &mut base);
    assert_eq!(rows(&base, "SELECT v FROM readings"), ["\"next\""]);
    assert_eq!(base.verify().unwrap().problems, [""; 0]);
}

/// Two databases have one identity. The one that writes lacks what others wrote, and the other has all and speaks last: the
/// first gets it all the same.
#[test]
fn a_copy_of_a_card_does_not_talk_over_the_one_that_is_behind() {
    let world = World::new();
    let mut north = world.board_with("north", NOTES, &["notes"]);
    let mut base = world.base("base");
    carry(&mut north, &mut base);
    let path = world.path("copy");
    copy_card(&north, &path);
    let mut copy = Engine::open_with(&path, world.options()).unwrap();
    sql(&north, "INSERT INTO notes VALUES ('a', 'of north')");
    carry(&mut north, &mut base);
    sql(&base, "INSERT INTO notes VALUES ('b', 'of the base')");
    base.seal().unwrap();
    // The copy gets back what north has written, with what the base has.
    import(&mut base, &whole_bundle(&mut copy));
    import(&mut copy, &whole_bundle(&mut base));
    assert_eq!(notes(&copy).len(), 2);
    for _ in 0..2 {
        import(&mut base, &whole_bundle(&mut north));
        import(&mut base, &whole_bundle(&mut copy));
    }
    carry(&mut base, &mut north);
    assert_eq!(notes(&north), notes(&base));
    assert_eq!(north.identity().id, copy.identity().id);
}

#[test]
fn two_groups_that_folded_apart_meet() {
    let world = World::new();
    let mut one = vec![world.board_with("a", NOTES, &["notes"]), world.board("b")];
    let mut two = vec![world.board_with("c", NOTES, &["notes"]), world.board("d")];
    for (group, word) in [(&mut one, "one"), (&mut two, "two")] {
        sql(
            &group[0],
            &format!("INSERT INTO notes VALUES ('same', 'same'), ('shared', '{word}'), ('{word}', '{word}')"),
        );
        for _ in 0..3 {
            round(group);
            group.iter_mut().for_each(|d| drop(d.compact().unwrap()));
        }
    }
    one.extend(two);
    for _ in 0..3 {
        round(&mut one);
    }
    let digests: Vec<String> = one.iter().map(|d| d.digest(false).unwrap().to_string()).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{:#?}", one.iter().map(notes).collect::<Vec<_>>());
    for device in &one {
        assert_eq!(notes(device).len(), 4, "{:?}", notes(device));
        assert_eq!(device.conflicts().unwrap().len(), 1);
    }
}

/// A verdict that has no value of its own (the row was not there, and that counts as nothing) has removed a version. A state
/// whose maker had not seen the verdict, and has settled on that version, does not bring it back on one device alone.
#[test]
fn what_a_verdict_removed_does_not_come_back_with_a_state() {
    let world = World::new();
    let mut devices = ["meets", "settles", "late", "third"].map(|name| {
        let init = InitOptions { name, base: false, fleet: Some(&world.fleet) };
        let options = Options { fold_list_bytes: 0, ..world.options() };
        let mut engine = Engine::init_with(&world.path(name), &init, options).unwrap();
        sql(&engine, NOTES);
        let options = TrackOptions { policy: Policy::Lww, ..TrackOptions::default() };
        engine.track("notes", &options).unwrap();
        engine
    });
    let alone = |device: &mut Engine| {
        let known: Vec<DeviceId> =
            device.devices().unwrap().iter().filter(|d| !d.this).map(|d| d.id).collect();
        known.into_iter().for_each(|id| _ = device.retire(id, None).unwrap());
        device.compact().unwrap();
        device.compact().unwrap();
    };
    sql(&devices[2], "INSERT INTO notes VALUES ('k', 'late')");
    devices[2].seal().unwrap();
    world.tick(60_000);
    sql(&devices[1], "INSERT INTO notes VALUES ('k', 'removed')");
    carry_between(&mut devices, 1, 0);
    world.tick(60_000);
    sql(&devices[0], "DELETE FROM notes");
    carry_between(&mut devices, 0, 3);
    alone(&mut devices[0]);
    assert_eq!(rows(&devices[0], &format!("SELECT count(*) FROM {HEADS}")), ["0"]);
    // The late one meets the delete that nobody there remembers; whoever does hears what stays.
    carry_between(&mut devices, 2, 0);
    carry_between(&mut devices, 0, 3);
    assert_eq!(notes(&devices[0]), ["\"k=late\""]);
    assert_eq!(notes(&devices[3]), ["\"k=late\""]);
    carry_between(&mut devices, 2, 1);
    sql(&devices[1], "INSERT INTO notes VALUES ('other', 'x')");
    alone(&mut devices[1]);
    assert_eq!(rows(&devices[1], &format!("SELECT count(*) FROM {HEADS}")), ["0"]);
    assert_eq!(notes(&devices[1]), ["\"k=removed\"", "\"other=x\""]);
    carry_between(&mut devices, 1, 0);
    for _ in 0..3 {
        round(&mut devices);
    }
    digests_equal(&devices.iter().collect::<Vec<_>>());
}

/// What happens to a random fleet.
struct Fleet {
    world: World,
    seed: u64,
    random: Random,
    devices: Vec<Engine>,
    /// Bundles on their way: from which device, and for which.
    post: Vec<(usize, usize, Vec<u8>)>,
    backups: Vec<Option<std::path::PathBuf>>,
    trace: Vec<String>,
    /// The control: settled values count as seen by every write.
    broken: bool,
    /// Devices appear with rows in tables that they track later, if at all; which have not yet.
    late: bool,
    untracked: Vec<usize>,
    /// Devices whose table has another name for now, so that it is suspended.
    away: Vec<usize>,
}

/// What a fleet's table is.
const TABLES: [&str; 4] = [
    NOTES,
    "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, u TEXT UNIQUE)",
    "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, n INTEGER DEFAULT 0)",
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)",
];

impl Fleet {
    fn new(seed: u64, broken: bool, late: bool) -> Self {
        let world = World::seeded(seed);
        let mut fleet = Self {
            world,
            seed,
            random: Random(seed),
            devices: Vec::new(),
            post: Vec::new(),
            backups: Vec::new(),
            trace: Vec::new(),
            broken,
            late,
            untracked: Vec::new(),
            away: Vec::new(),
        };
        for _ in 0..fleet.below(3) + 2 {
            fleet.appear();
        }
        fleet
    }

    fn options(&self) -> Options {
        // Each fleet has its lists of folds: none, such as are dropped all the time, long ones.
        let fold_list_bytes = [0, 60, 200, 4 << 20][(self.seed / 3 % 4) as usize];
        Options { broken_verdict: self.broken, fold_list_bytes, ..self.world.options() }
    }

    /// A backup of a device is made, or put in its place again.
    fn back_up_or_restore(&mut self, d: usize) {
        if let Some(path) = self.backups[d].take() {
            self.devices[d] = Engine::open_with(&path, self.options()).unwrap();
            self.trace.push(format!("d{d} is restored"));
            // What it wrote since, and nobody has, is lost with its card.
            self.post.retain(|(from, ..)| *from != d);
            // It hears of the others before it writes: what comes of a second history is in `twins_at_random`.
            for other in (0..self.devices.len()).filter(|other| *other != d) {
                // The others have not heard that it has less: a bundle for anyone shows it.
                let bundle = whole_bundle(&mut self.devices[other]);
                self.arrive(d, &bundle);
            }
        } else {
            let path = self.world.path(&format!("backup-{d}-{}", self.trace.len()));
            copy_card(&self.devices[d], &path);
            self.backups[d] = Some(path);
            self.trace.push(format!("d{d} is backed up"));
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn how(&self) -> TrackOptions {
        let merge = if (self.seed / 4).is_multiple_of(3) { Merge::Cell } else { Merge::Row };
        let policy = if (self.seed / 12).is_multiple_of(4) { Policy::Lww } else { Policy::Manual };
        let counts = self.late && self.seed % 4 == 2 && (self.seed / 48).is_multiple_of(2);
        let columns = counts.then(|| ("n".into(), ColumnMerge::Counter)).into_iter().collect();
        TrackOptions { merge, policy, columns, ..TrackOptions::default() }
    }

    /// A device begins to track the table that it has.
    fn track(&mut self, d: usize) {
        let how = self.how();
        self.devices[d].track("notes", &how).unwrap();
        self.untracked.retain(|other| *other != d);
        self.trace.push(format!("d{d} tracks its table"));
    }

    fn has_table(&self, d: usize) -> bool {
        let there = "SELECT count(*) FROM sqlite_schema WHERE name IN ('notes', 'away')";
        rows(&self.devices[d], there) == ["1"]
    }

    /// A device's application renames its table, so that it is suspended, or gives it its name back.
    fn rename(&mut self, d: usize) {
        let back = self.away.iter().position(|other| *other == d);
        let change = match back {
            Some(at) => {
                self.away.swap_remove(at);
                "ALTER TABLE away RENAME TO notes"
            }
            None => {
                self.away.push(d);
                "ALTER TABLE notes RENAME TO away"
            }
        };
        sql(&self.devices[d], change);
        self.devices[d].seal().unwrap();
        self.trace.push(format!("d{d}: {change}"));
    }

    fn appear(&mut self) {
        let n = self.devices.len();
        let init = InitOptions { name: &format!("d{n}"), base: false, fleet: Some(&self.world.fleet) };
        let mut engine =
            Engine::init_with(&self.world.path(&format!("d{n}")), &init, self.options()).unwrap();
        if self.below(4) > 0 || n == 0 {
            sql(&engine, TABLES[(self.seed % 4) as usize]);
            if self.late && n > 0 && self.below(2) == 0 {
                self.untracked.push(n);
            } else {
                engine.track("notes", &self.how()).unwrap();
            }
        }
        self.devices.push(engine);
        self.backups.push(None);
        self.trace.push(format!("d{n} appears"));
    }

    fn write(&mut self, d: usize) {
        let id =
            if self.seed % 4 == 3 { format!("{}", self.below(4)) } else { format!("'k{}'", self.below(4)) };
        let value = format!("v{}", self.below(6));
        let engine = &self.devices[d];
        let db = app(engine);
        let table = if self.away.contains(&d) { "away" } else { "notes" };
        if db.prepare(&format!("SELECT 1 FROM {table}")).is_err() {
            return;
        }
        let what = match self.below(8) {
            0 | 1 => format!("DELETE FROM notes WHERE id = {id}"),
            2 | 3 => format!("UPDATE notes SET body = '{value}' WHERE id = {id}"),
            4 if self.seed % 4 == 1 => format!("UPDATE OR IGNORE notes SET u = '{value}' WHERE id = {id}"),
            4 if self.seed % 4 == 2 => format!("UPDATE notes SET n = n + 1 WHERE id = {id}"),
            _ => format!(
                "INSERT INTO notes (id, body) VALUES ({id}, '{value}') ON CONFLICT DO UPDATE SET body = excluded.body"
            ),
        };
        let what = what.replace("notes", table);
        db.execute_batch(&what).unwrap();
        self.trace.push(format!("d{d}: {what}"));
    }

    fn step(&mut self) {
        let n = self.devices.len() as u64;
        let d = self.below(n) as usize;
        let other = ((d as u64 + 1 + self.below(n - 1)) % n) as usize;
        self.world.tick(1000);
        match self.below(100) {
            0..=34 => self.write(d),
            35..=69 => {
                let [from, to] = self.devices.get_disjoint_mut([d, other]).unwrap();
                let bundle = bundle(from, to);
                self.trace.push(format!("d{d} packs for d{other}"));
                if self.below(3) > 0 {
                    self.arrive(other, &bundle);
                }
                self.post.push((d, other, bundle));
            }
            70..=79 if !self.post.is_empty() => {
                let at = self.below(self.post.len() as u64) as usize;
                let (_, to, bundle) =
                    if self.below(2) == 0 { self.post.swap_remove(at) } else { self.post[at].clone() };
                self.arrive(to, &bundle);
            }
            80..=91 => {
                self.devices[d].compact().unwrap();
                self.trace.push(format!("d{d} compacts"));
            }
            92..=94 if n < 6 => self.appear(),
            80..=94 if self.untracked.contains(&d) => self.track(d),
            95..=96 => {
                let whom = self.devices[other].identity().id;
                if self.devices[d].retire(whom, None).is_ok() {
                    self.trace.push(format!("d{d} retires d{other}"));
                }
            }
            97..=99 if self.late && !self.untracked.contains(&d) && self.has_table(d) => self.rename(d),
            _ if !self.broken && !self.late => self.back_up_or_restore(d),
            _ => {}
        }
    }

    fn arrive(&mut self, to: usize, bundle: &[u8]) {
        let report = import(&mut self.devices[to], bundle);
        self.trace.push(format!("d{to} takes a bundle: {} rows, {} frames", report.ops, report.frames));
    }

    fn live(mut self) -> Result<[usize; 3], String> {
        let ids = |devices: &[Engine]| devices.iter().map(|d| d.identity().id).collect::<Vec<_>>();
        let steps = self.below(50) + 10;
        for _ in 0..steps {
            self.step();
        }
        for d in self.away.clone() {
            self.rename(d);
        }
        for d in self.untracked.clone() {
            self.track(d);
        }
        let before = ids(&self.devices);
        for n in 0.. {
            round(&mut self.devices);
            let digests: Vec<String> =
                self.devices.iter().map(|d| d.digest(false).unwrap().to_string()).collect();
            if digests.iter().all(|d| *d == digests[0]) && n >= 2 {
                break;
            }
            if n == 5 {
                let shown: Vec<_> = self
                    .devices
                    .iter()
                    .map(|d| {
                        let rows = if app(d).prepare("SELECT 1 FROM notes").is_ok() {
                            rows(d, "SELECT * FROM notes ORDER BY 1")
                        } else {
                            Vec::new()
                        };
                        let open = d.conflicts().unwrap();
                        let versions: Vec<_> = open
                            .iter()
                            .flat_map(|c| c.versions.iter().map(|v| (&c.id, v.device, v.op, v.at, &v.values)))
                            .collect();
                        let heads = "SELECT key, dev, (SELECT name FROM _pm_device WHERE n = dev), seq, kind, claim, wall, columns FROM _pm_head UNION ALL SELECT first, dev, last, seq, kind, claim, wall, 'stretch' FROM _pm_stretch";
                        let heads = self::rows(d, heads);
                        format!("{} {rows:?}\n  {versions:?}\nHEADS {heads:#?}", d.identity().id)
                    })
                    .collect();
                return Err(format!("{}\n{}", self.trace.join("\n"), shown.join("\n")));
            }
        }
        if ids(&self.devices) != before {
            return Err(format!("{}\nan identity changed", self.trace.join("\n")));
        }
        let open = self.devices[0].conflicts().unwrap().len();
        let verdicts = format!("SELECT count(*) FROM _pm_frame WHERE {IS_VERDICT}");
        let verdicts: usize =
            self.devices.iter().map(|d| rows(d, &verdicts)[0].parse::<usize>().unwrap()).sum();
        Ok([self.devices.len(), open, verdicts])
    }
}

#[test]
fn random_fleets_end_the_same() {
    all_end_the_same(false);
}

/// Rows that were there before their table was tracked, by devices that had heard of others.
#[test]
fn random_fleets_that_track_late_end_the_same() {
    all_end_the_same(true);
}

fn all_end_the_same(late: bool) {
    let mut failed = Vec::new();
    let (mut open, mut verdicts) = (0, 0);
    for seed in seeds(40) {
        let lived = std::panic::catch_unwind(|| Fleet::new(seed, false, late).live());
        match lived {
            Ok(Ok(counts)) => (open, verdicts) = (open + counts[1], verdicts + counts[2]),
            Ok(Err(why)) => failed.push((seed, why)),
            Err(_) => failed.push((seed, "it panicked".into())),
        }
    }
    if let Some((seed, why)) = failed.first() {
        panic!(
            "{} failed: {:?}\nPACKMULE_SEED={seed}\n{why}",
            failed.len(),
            failed.iter().map(|f| f.0).collect::<Vec<_>>()
        );
    }
    println!("open conflicts at the ends, frames of verdicts in the logs: {open}, {verdicts}");
    assert!((open > 0 && verdicts > 0) || number("PACKMULE_SEED").is_some(), "nothing happened");
}

#[test]
fn without_verdicts_fleets_part() {
    for late in [false, true] {
        let parts =
            |seed| matches!(std::panic::catch_unwind(|| Fleet::new(seed, true, late).live()), Ok(Err(_)));
        assert!((0..100).any(parts), "the test does not see that folding decides");
    }
}
