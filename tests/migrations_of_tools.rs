//! Migrations as tools write them (Django, Alembic, knex): a table is made anew for every change that `ALTER TABLE` cannot
//! do, often with its columns in another order, a NOT NULL given or taken away, and the values of a column made into others
//! on the way. Three devices migrate each in its own time, between writes, carries and folds; of one the application may be
//! missing.
//!
//! Where Packmule runs between two migrations of a device, each row has in the end what its own device wrote into it last, as
//! the application's migrations made it. Where it does not, what was renamed cannot always be told from what was dropped and
//! added; all are alike all the same, and have the same rows.
//!
//! `PACKMULE_SEED=N` replays one schedule; `PACKMULE_SCHEDULES=N` says how many are run, from `PACKMULE_FIRST=N` on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::*;
use packmule::{Engine, TrackOptions};

/// How many schedules are run where it is not said.
const USUAL: u64 = 60;

/// Schedules that did not end alike once, each with whether Packmule runs after each migration.
const ONCE: [(u64, bool); 5] = [(80, true), (132, true), (176, true), (232, true), (276, true)];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Integer,
    Real,
}

/// A column of the application's: `id` is what it is, whatever it is called.
#[derive(Clone, Debug)]
struct Column {
    id: usize,
    name: String,
    kind: Kind,
    not_null: bool,
}

impl Column {
    fn sql(&self) -> String {
        let kind = match self.kind {
            Kind::Text => "varchar(50)",
            Kind::Integer => "integer",
            Kind::Real => "real",
        };
        format!("\"{}\" {kind} {}", self.name, if self.not_null { "NOT NULL" } else { "NULL" })
    }

    /// What a row without a value gets.
    fn default(&self) -> &'static str {
        match self.kind {
            _ if !self.not_null => "NULL",
            Kind::Text => "'new'",
            Kind::Integer => "7",
            Kind::Real => "0.5",
        }
    }
}

/// A migration: the columns after it, the statements, and what becomes of the value of a column in them: an expression of `v`.
#[derive(Clone, Debug)]
struct Migration {
    columns: Vec<Column>,
    script: String,
    values: Vec<(usize, String)>,
}

/// Makes the table anew. `made` are the values of columns that are not what they were.
fn anew(columns: &[Column], made: &[(&str, String)]) -> String {
    let all = columns.iter().map(|c| format!(", {}", c.sql())).collect::<String>();
    let names = columns.iter().map(|c| format!(", \"{}\"", c.name)).collect::<String>();
    let value = |c: &Column| {
        let made = made.iter().find(|(name, _)| *name == c.name);
        made.map_or_else(|| format!(", \"{}\"", c.name), |(_, value)| format!(", {value}"))
    };
    let values = columns.iter().map(value).collect::<String>();
    format!(
        "BEGIN; CREATE TABLE new_item (id char(32) NOT NULL PRIMARY KEY{all}); INSERT INTO new_item (id{names}) \
         SELECT id{values} FROM item; DROP TABLE item; ALTER TABLE new_item RENAME TO item; COMMIT;"
    )
}

fn migrations(random: &mut Random) -> Vec<Migration> {
    let column = |id, name: &str, kind, not_null| Column { id, name: name.into(), kind, not_null };
    let columns = vec![
        column(0, "title", Kind::Text, true),
        column(1, "n", Kind::Integer, false),
        column(2, "w", Kind::Real, true),
    ];
    let all = columns.iter().map(|c| format!(", {}", c.sql())).collect::<String>();
    let script = format!("CREATE TABLE item (id char(32) NOT NULL PRIMARY KEY{all})");
    let mut all = vec![Migration { columns, script, values: Vec::new() }];
    for fresh in 3..5 + random.below(5) as usize {
        let next = next(random, &all.last().unwrap().columns, fresh);
        all.push(next);
    }
    all
}

fn next(random: &mut Random, before: &[Column], fresh: usize) -> Migration {
    let mut columns = before.to_vec();
    let at = random.below(columns.len() as u64) as usize;
    let old = columns[at].clone();
    let kind = *random.pick(&[Kind::Text, Kind::Integer, Kind::Real]);
    let mut values = Vec::new();
    let script = match random.below(8) {
        0 | 1 => {
            let new = Column { id: fresh, name: format!("f{fresh}"), kind, not_null: random.chance(50) };
            values.push((fresh, new.default().to_owned()));
            match new.not_null {
                // Django puts it first.
                true => {
                    columns.insert(0, new.clone());
                    anew(&columns, &[(&new.name, new.default().into())])
                }
                false => {
                    columns.push(new.clone());
                    format!("ALTER TABLE item ADD COLUMN {}", new.sql())
                }
            }
        }
        2 if columns.len() > 1 => {
            columns.remove(at);
            format!("ALTER TABLE item DROP COLUMN \"{}\"", old.name)
        }
        // Rows that are older than a column have no value of it elsewhere: what a NOT NULL makes of these is each device's own.
        n @ (3 | 6..) if n == 3 || old.id > 2 => {
            columns[at].name = format!("r{fresh}");
            format!("ALTER TABLE item RENAME COLUMN \"{}\" TO r{fresh}", old.name)
        }
        // Another name and other values in one go.
        4 => {
            let made = if old.kind == Kind::Text { "v || '!'" } else { "v * 2" };
            columns[at].name = format!("m{fresh}");
            values.push((old.id, made.to_owned()));
            anew(&columns, &[(&format!("m{fresh}"), made.replace('v', &format!("\"{}\"", old.name)))])
        }
        // Dropped, and added again under its name, for values of another type: of the same one would be no other column.
        5 => {
            columns.remove(at);
            let kind = if old.kind == Kind::Text { Kind::Real } else { Kind::Text };
            let again = Column { id: fresh, not_null: false, kind, ..old.clone() };
            columns.push(again.clone());
            values.push((fresh, "NULL".into()));
            format!(
                "ALTER TABLE item DROP COLUMN \"{}\"; ALTER TABLE item ADD COLUMN {}",
                old.name,
                again.sql()
            )
        }
        // A NOT NULL given or taken away.
        _ => {
            columns.remove(at);
            let new = Column { not_null: !old.not_null, ..old.clone() };
            let made = format!("coalesce(v, {})", new.default());
            if new.not_null {
                values.push((old.id, made.clone()));
            }
            columns.insert(random.below(columns.len() as u64 + 1) as usize, new);
            anew(&columns, &[(&old.name, made.replace('v', &format!("\"{}\"", old.name)))])
        }
    };
    Migration { columns, script, values }
}

struct Run {
    random: Random,
    world: World,
    devices: Vec<Engine>,
    /// The version of the application on each device; none where it has none.
    at: Vec<Option<usize>>,
    migrations: Vec<Migration>,
    /// Each row: whose it is, and what its columns are, as SQL.
    rows: BTreeMap<String, (usize, BTreeMap<usize, String>)>,
    /// Packmule runs after each migration.
    runs_between: bool,
    /// Which devices have migrated since Packmule ran there last.
    fresh: [bool; 3],
    trace: Vec<String>,
}

impl Run {
    fn new(seed: u64, runs_between: bool) -> Self {
        let mut random = Random(seed);
        let migrations = migrations(&mut random);
        let world = World::new();
        let devices: Vec<Engine> = [world.base("base"), world.board("a"), world.board("b")].into();
        let app = random.chance(50);
        let at = vec![app.then_some(0), Some(0), Some(0)];
        let rows = BTreeMap::new();
        let mut run = Self {
            random,
            world,
            devices,
            at,
            migrations,
            rows,
            runs_between,
            fresh: [false; 3],
            trace: Vec::new(),
        };
        for d in (0..3).rev() {
            if run.at[d].is_some() {
                sql(&run.devices[d], &run.migrations[0].script);
            } else {
                run.meet();
            }
            run.devices[d].track("item", &TrackOptions::default()).unwrap();
        }
        // Who has never heard of the others has nobody to wait for.
        run.meet();
        run
    }

    fn carry(&mut self, from: usize, to: usize) {
        self.trace.push(format!("{from} -> {to}"));
        (self.fresh[from], self.fresh[to]) = (false, false);
        let [from, to] = self.devices.get_disjoint_mut([from, to]).unwrap();
        carry(from, to);
    }

    fn meet(&mut self) {
        for (from, to) in [(1, 0), (2, 0), (0, 1), (0, 2)] {
            self.carry(from, to);
        }
    }

    fn migrate(&mut self, d: usize) -> bool {
        let Some(at) = self.at[d].filter(|at| at + 1 < self.migrations.len()) else { return false };
        let migration = self.migrations[at + 1].clone();
        self.trace.push(format!("{d}: {}", migration.script));
        sql(&self.devices[d], &migration.script);
        self.at[d] = Some(at + 1);
        for (_, values) in self.rows.values_mut().filter(|(of, _)| *of == d) {
            for (id, made) in &migration.values {
                let v = values.get(id).cloned().unwrap_or("NULL".into());
                let made = made.replace('v', &format!("({v})"));
                values.insert(*id, texts(&self.devices[d], &format!("SELECT quote({made})")).remove(0));
            }
        }
        self.fresh[d] = true;
        if self.runs_between {
            self.run_on(d);
        }
        true
    }

    fn run_on(&mut self, d: usize) {
        self.devices[d].seal().unwrap();
        self.fresh[d] = false;
    }

    fn value(&mut self, column: &Column, d: usize) -> String {
        let n = self.random.below(90) + 10;
        match column.kind {
            _ if !column.not_null && n.is_multiple_of(3) => "NULL".into(),
            Kind::Text => format!("'{d}x{n}'"),
            Kind::Integer => n.to_string(),
            Kind::Real => format!("{n}.25"),
        }
    }

    /// The application of a device writes to a row of its own.
    fn write(&mut self, d: usize, at: usize) {
        let columns = self.migrations[at].columns.clone();
        let mine: Vec<String> =
            self.rows.iter().filter(|(_, (of, _))| *of == d).map(|(key, _)| key.clone()).collect();
        let text = match self.random.below(8) {
            0 if !mine.is_empty() => {
                let key = self.random.pick(&mine).clone();
                self.rows.remove(&key);
                // What is deleted between a rebuild and the next run can come back (`src/docs/migrations.md`).
                if self.fresh[d] {
                    self.run_on(d);
                }
                format!("DELETE FROM item WHERE id = '{key}'")
            }
            1..4 if !mine.is_empty() => {
                let key = self.random.pick(&mine).clone();
                let column = self.random.pick(&columns).clone();
                let value = self.value(&column, d);
                self.rows.get_mut(&key).unwrap().1.insert(column.id, value.clone());
                format!("UPDATE item SET \"{}\" = {value} WHERE id = '{key}'", column.name)
            }
            _ => {
                let key = format!("{d}-{}", self.random.below(1 << 30));
                let values: Vec<String> = columns.iter().map(|column| self.value(column, d)).collect();
                let of = columns.iter().map(|c| c.id).zip(values.iter().cloned()).collect();
                self.rows.insert(key.clone(), (d, of));
                let names = columns.iter().map(|c| format!(", \"{}\"", c.name)).collect::<String>();
                format!("INSERT INTO item (id{names}) VALUES ('{key}', {})", values.join(", "))
            }
        };
        self.trace.push(format!("{d}: {text}"));
        sql(&self.devices[d], &text);
    }

    fn step(&mut self) {
        self.world.tick(1000);
        let d = self.random.below(3) as usize;
        match self.random.below(10) {
            0..4 => {
                if let Some(at) = self.at[d] {
                    self.write(d, at);
                }
            }
            4..6 => {
                self.migrate(d);
            }
            6 => {
                self.trace.push(format!("{d}: compact"));
                self.devices[d].compact().unwrap();
                self.fresh[d] = false;
            }
            _ => {
                let to = (d + 1 + self.random.below(2) as usize) % 3;
                self.carry(d, to);
            }
        }
    }

    /// `but`: a device that does not migrate to the end.
    fn run(&mut self, but: Option<usize>) {
        for _ in 0..10 + self.random.below(25) {
            self.step();
        }
        for d in (0..3).filter(|d| but != Some(*d)) {
            while self.migrate(d) {}
        }
        for _ in 0..4 {
            self.meet();
        }
        digests_equal(&self.devices.iter().collect::<Vec<_>>());
        let last = &self.migrations.last().unwrap().columns;
        let names = last.iter().map(|c| format!(" || ', ' || quote(\"{}\")", c.name)).collect::<String>();
        for device in &self.devices {
            let name = &device.identity().name;
            assert_eq!(device.verify().unwrap().problems, [""; 0]);
            let found = texts(device, &format!("SELECT quote(id){names} FROM item ORDER BY id"));
            let wanted = self.rows.iter().map(|(key, (_, values))| {
                let of = |c: &Column| format!(", {}", values.get(&c.id).map_or("NULL", |v| v.as_str()));
                format!("'{key}'{}", last.iter().map(of).collect::<String>())
            });
            if self.runs_between {
                assert_eq!(found, wanted.collect::<Vec<_>>(), "{name}");
            } else {
                let keys = found.iter().map(|row| row.split('\'').nth(1).unwrap());
                assert!(keys.eq(self.rows.keys()), "{name}: {found:?}");
            }
        }
    }
}

/// Returns the texts that a query gives.
fn texts(device: &Engine, query: &str) -> Vec<String> {
    rows(device, query).iter().map(|text| text.trim_matches('"').to_owned()).collect()
}

/// Plays a schedule; at the end all devices migrate, `but` one, if it is given.
fn play(seed: u64, runs_between: bool, but: Option<usize>) -> Result<(), String> {
    let mut run = Run::new(seed, runs_between);
    catch_unwind(AssertUnwindSafe(|| run.run(but))).map_err(|_| run.trace.join("\n"))
}

#[test]
fn what_an_application_made_of_its_rows_is_what_all_have() {
    check(seeds(USUAL), &|seed| play(seed, true, None));
}

#[test]
fn fleets_whose_boards_skip_versions_end_alike() {
    check(seeds(USUAL), &|seed| play(seed, false, None));
}

#[test]
fn what_failed_once_does_not_fail_again() {
    for (seed, runs_between) in ONCE {
        check(seed..seed + 1, &|seed| play(seed, runs_between, None));
    }
}

/// The control: the same check finds the schedules in which one device is left behind.
#[test]
fn a_device_that_does_not_migrate_is_found() {
    assert!(failing(0..10, &|seed| play(seed, true, Some(1))).len() > 2);
}
