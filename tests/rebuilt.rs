//! Tables made anew after their rows were folded: what is as it was costs nothing, and a run that differs is restated.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use std::sync::atomic::Ordering;

use common::*;
use packmule::{Engine, InitOptions, Merge, Mode, Options, OwnedValue, Policy, TrackOptions};

/// Two devices with equal folded rows of one table.
struct Pair {
    world: World,
    a: Engine,
    b: Engine,
}

fn device(world: &World, name: &str, base: bool, options: Options) -> Engine {
    let init = InitOptions { name, base, fleet: Some(&world.fleet) };
    Engine::init_with(&world.path(name), &init, options).unwrap()
}

impl Pair {
    fn new(made: &str, fill: &str, track: &TrackOptions, run_rows: u32) -> Self {
        let world = World::new();
        // Small pages, so that what is measured is not theirs.
        let options = || Options { run_rows, page_bytes: 1_024, ..world.options() };
        let mut a = device(&world, "a", false, options());
        let mut b = device(&world, "b", true, options());
        sql(&a, made);
        sql(&a, fill);
        a.track("t", track).unwrap();
        if track.mode == Mode::Shared {
            sql(&b, made);
            b.track("t", track).unwrap();
        }
        carry_all(&mut [&mut a, &mut b]);
        let mut pair = Self { world, a, b };
        pair.fold();
        pair
    }

    /// Folds all that both have.
    fn fold(&mut self) {
        for _ in 0..2 {
            carry_all(&mut [&mut self.a, &mut self.b]);
            self.a.compact().unwrap();
            self.b.compact().unwrap();
        }
        assert_eq!(rows(&self.a, &format!("SELECT count(*) FROM {HEADS}")), ["0"]);
    }

    /// Bytes of frames in the log of the first device.
    fn log(&self) -> u64 {
        number(&self.a, "SELECT coalesce(sum(length(body)), 0) FROM _pm_frame")
    }

    fn equal(&mut self) {
        carry_all(&mut [&mut self.a, &mut self.b]);
        digests_equal(&[&self.a, &self.b]);
        for device in [&self.a, &self.b] {
            assert!(device.verify().unwrap().problems.is_empty());
            assert!(device.conflicts().unwrap().is_empty());
        }
    }
}

fn number(engine: &Engine, query: &str) -> u64 {
    rows(engine, query)[0].parse().unwrap()
}

/// The twelve steps, with what the copy makes of the rows; `made` makes `t`.
fn rebuild(made: &str, copied: &str) -> String {
    format!(
        "PRAGMA foreign_keys = OFF; BEGIN; ALTER TABLE t RENAME TO t_old; {made}; INSERT INTO t {copied}; DROP TABLE t_old; COMMIT"
    )
}

const T: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER)";
const FILL: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000)
    INSERT INTO t SELECT i, 'name of row ' || i, i * 7 FROM c";

const AUDIT: &str = "CREATE TABLE audit (id);
    CREATE TRIGGER au AFTER UPDATE ON t BEGIN INSERT INTO audit VALUES (NEW.id); END;
    CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO audit VALUES (NEW.id); END;
    CREATE TRIGGER ad AFTER DELETE ON t BEGIN INSERT INTO audit VALUES (OLD.id); END";

/// What a rebuild restates was there before. Where that is folded nobody knows what it was, and taken back it stays; what was
/// made since is removed.
#[test]
fn taking_back_a_rebuild_removes_no_row_that_was_there() {
    let mut pair = Pair::new(T, &FILL.replace("20000", "200"), &TrackOptions::default(), 64);
    let Pair { world, a, b } = &mut pair;
    world.tick(1_000);
    let since = world.clock.load(Ordering::Relaxed);
    sql(a, &rebuild(T, "SELECT id, iif(id = 70, 'changed', name), n FROM t_old"));
    let restated = a.seal().unwrap().ops;
    assert!(restated > 1, "{restated}");
    sql(a, "INSERT INTO t VALUES (1000, 'made since', 1)");
    carry(a, b);
    let mut removed = Vec::new();
    let report = b
        .take_back_writes(a.identity().id, since, false, &mut |_, change| {
            removed.extend(change.after.is_empty().then_some(change.key));
            Ok(())
        })
        .unwrap();
    assert_eq!((report.rows, report.unknown), (1, restated), "{report:?}");
    assert_eq!(removed, [[("id".to_owned(), OwnedValue::Int(1_000))]]);
    assert_eq!(rows(b, "SELECT count(*), max(id) FROM t"), ["200|200"]);
    pair.equal();
}

#[test]
fn a_rebuild_after_a_fold_costs_what_it_changed() {
    let mut pair = Pair::new(T, FILL, &TrackOptions::default(), 64);
    sql(&pair.b, AUDIT);
    let before = pair.log();
    // Nothing is changed.
    sql(&pair.a, &rebuild(T, "SELECT * FROM t_old"));
    let sealed = pair.a.seal().unwrap();
    assert_eq!((sealed.frames, sealed.ops, pair.log()), (0, 0, before));
    let Pair { a, b, .. } = &mut pair;
    assert_eq!(carry(a, b).ops, 0);
    assert!(rows(b, "SELECT * FROM audit").is_empty());
    // One row is: its run travels, and only that row is written.
    sql(a, &rebuild(T, "SELECT id, iif(id = 7001, 'changed', name), n FROM t_old"));
    let sealed = a.seal().unwrap();
    assert!((2..=300).contains(&sealed.ops), "{sealed:?}");
    let run = sealed.ops;
    assert_eq!(carry(a, b).ops, 1);
    assert_eq!(rows(b, "SELECT DISTINCT id FROM audit"), ["7001"]);
    pair.equal();
    // Rows are left out: one, the first, the last, and more than a run has.
    let gone = "id IN (1, 5000, 20000) OR id BETWEEN 9000 AND 9500";
    sql(&pair.a, &rebuild(T, &format!("SELECT * FROM t_old WHERE NOT ({gone})")));
    let sealed = pair.a.seal().unwrap();
    assert!(sealed.ops <= 8 * run, "{sealed:?}, a run has {run}");
    pair.equal();
    assert_eq!(number(&pair.b, "SELECT count(*) FROM t"), 20000 - 504);
    // What was restated and is folded again costs nothing.
    pair.fold();
    sql(&pair.a, &rebuild(T, "SELECT * FROM t_old"));
    assert_eq!(pair.a.seal().unwrap().ops, 0);
    pair.equal();
}

#[test]
fn sums_take_less_than_four_tenths_of_a_byte_a_row_and_are_kept_up_in_proportion() {
    for (made, fill) in [
        (T, FILL.to_owned()),
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, n INTEGER)",
            FILL.replace("SELECT i,", "SELECT printf('%032x%04x', i * 7919 % 20011, i),"),
        ),
    ] {
        let mut pair = Pair::new(made, &fill, &TrackOptions::default(), 64);
        // Rows come and go everywhere, so that runs are split and joined.
        sql(&pair.a, "UPDATE t SET n = n + 1 WHERE rowid % 50 = 0; DELETE FROM t WHERE rowid % 9 = 0");
        sql(
            &pair.a,
            "INSERT INTO t SELECT iif(typeof(id) = 'integer', id + 1000000, id || 'x'), 'new', 0 FROM t WHERE rowid % 7 = 0",
        );
        pair.fold();
        let count = number(&pair.a, "SELECT count(*) FROM t");
        let runs = &rows(&pair.a, "SELECT name FROM sqlite_schema WHERE name GLOB '_pm_runs_*'")[0];
        let runs = runs.trim_matches('"');
        let card = pair.world.path("card");
        sql(&pair.a, &format!("VACUUM INTO '{}'", card.display()));
        let pages = |sql: &str| {
            let db = open(&card);
            db.execute_batch(sql).unwrap();
            dump(&db, "PRAGMA page_count")[0].parse::<u64>().unwrap()
        };
        let with = pages("SELECT 1");
        // An empty table has one page. Its line in the schema stays, which may be one too many for a page there.
        let without = pages(&format!("DELETE FROM {runs}; VACUUM")) - 1;
        let bytes = (with - without) * 1_024;
        eprintln!("{count} rows: {bytes} bytes of sums, {} a row", bytes as f64 / count as f64);
        assert!(bytes * 10 <= count * 4, "{bytes} bytes for {count} rows");
        // A row in the middle, and the first of all: the sum of the first run stands by itself.
        let sums = |a: &Engine| {
            [rows(a, "SELECT tid, sum FROM _pm_run"), rows(a, &format!("SELECT * FROM {runs}"))].concat()
        };
        for row in ["rowid = 10003", "id = (SELECT min(id) FROM t)"] {
            let before = sums(&pair.a);
            sql(&pair.a, &format!("UPDATE t SET n = -1 WHERE {row}"));
            pair.fold();
            let changed = sums(&pair.a).iter().filter(|run| !before.contains(run)).count();
            assert_eq!(changed, 1, "{row}");
        }
    }
}

/// Tables with keys of every form, and how their rows are made of `i`.
const KEYS: [(&str, &str); 8] = [
    ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n)", "i, 'n' || i, i"),
    ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n)", "i * 1000 - 50000, x'00ff', i / 3.0"),
    ("CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, n)", "'k' || (i * 7919 % 1000), NULL, -0.0"),
    (
        "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, name TEXT, n)",
        "iif(i % 2, 'K', 'k') || i, 'x', zeroblob(i)",
    ),
    (
        "CREATE TABLE t (id TEXT COLLATE RTRIM PRIMARY KEY, name TEXT, n)",
        "i || iif(i % 2, ' ', ''), 'x', zeroblob(20000 + i)",
    ),
    ("CREATE TABLE t (id BLOB PRIMARY KEY, name TEXT, n) WITHOUT ROWID", "CAST('b' || i AS BLOB), 'x', i"),
    (
        "CREATE TABLE t (id, name TEXT, n, PRIMARY KEY (name, id))",
        "iif(i % 3, i, 't' || i), 'p' || (i % 4), i",
    ),
    (
        "CREATE TABLE t (name TEXT COLLATE NOCASE, id REAL, n, PRIMARY KEY (id DESC, name)) WITHOUT ROWID",
        "'n' || i, i / 2.0, i",
    ),
];

#[test]
fn keys_of_every_form() {
    for (made, row) in KEYS {
        for per_device in [false, true] {
            let fill = format!(
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 150) INSERT INTO t SELECT {row} FROM c"
            );
            let mode = if per_device { Mode::PerDevice } else { Mode::Shared };
            let mut pair = Pair::new(made, &fill, &TrackOptions { mode, ..TrackOptions::default() }, 4);
            let runs = number(&pair.a, "SELECT count(*) FROM sqlite_schema WHERE name GLOB '_pm_runs_*'");
            assert_eq!(runs, 1, "{made}");
            sql(&pair.a, &rebuild(made, "SELECT * FROM t_old"));
            assert_eq!(pair.a.seal().unwrap().ops, 0, "{made} {row} {per_device}");
            let shown = |d: &Engine| rows(d, "SELECT id, name, n FROM t ORDER BY 1, 2");
            let names = rows(&pair.a, "SELECT group_concat(name) FROM pragma_table_info('t')");
            let numbered = "(SELECT *, row_number() OVER (ORDER BY id, name) AS nth FROM t_old)";
            for left in ["nth % 10", "nth NOT BETWEEN 20 AND 110", "0"] {
                let copied = format!("SELECT {} FROM {numbered} WHERE {left}", names[0].trim_matches('"'));
                sql(&pair.a, &rebuild(made, &copied));
                sql(&pair.a, "UPDATE t SET n = 'again' WHERE name = (SELECT max(name) FROM t)");
                let Pair { a, b, .. } = &mut pair;
                carry(a, b);
                assert_eq!(shown(a), shown(b), "{made} {copied} {per_device}");
            }
            pair.equal();
        }
    }
}

#[test]
fn an_added_column_with_its_default_is_no_write() {
    // A column of REALs stores the default 0 as 0.0.
    let columns = [("TEXT DEFAULT 'x'", "'x'", "'y'"), ("REAL DEFAULT 0", "0", "2.5")];
    for (mode, (column, default, other)) in
        [Mode::Shared, Mode::PerDevice].into_iter().flat_map(|mode| columns.map(|column| (mode, column)))
    {
        let fill = FILL.replace("20000", "500");
        let mut pair = Pair::new(T, &fill, &TrackOptions { mode, ..TrackOptions::default() }, 16);
        let wide = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER, note {column})");
        sql(&pair.a, &rebuild(&wide, &format!("SELECT id, name, n, {default} FROM t_old")));
        assert_eq!(pair.a.seal().unwrap().ops, 0, "{mode:?} {column}");
        // Runs that were summed before the column came tell that it was written to since.
        sql(&pair.a, &rebuild(&wide, &format!("SELECT id, name, n, iif(id = 77, {other}, note) FROM t_old")));
        let ops = pair.a.seal().unwrap().ops;
        assert!((1..100).contains(&ops), "{mode:?} {column} {ops}");
        if mode == Mode::Shared {
            sql(&pair.b, &format!("ALTER TABLE t ADD COLUMN note {column}"));
        }
        pair.equal();
        assert_eq!(rows(&pair.b, &format!("SELECT id FROM t WHERE note = {other}")), ["77"]);
        let rest = format!("SELECT count(*) FROM t WHERE note = {default}");
        assert_eq!(rows(&pair.b, &rest), ["499"]);
    }
}

/// Rows in flight are compared with the log, whether they were written before the last compaction or after it.
#[test]
fn rows_written_between_are_told_by_the_log() {
    for mode in [Mode::Shared, Mode::PerDevice] {
        let fill = FILL.replace("20000", "500");
        let mut pair = Pair::new(T, &fill, &TrackOptions { mode, ..TrackOptions::default() }, 16);
        sql(&pair.a, "UPDATE t SET name = 'in flight' WHERE id % 100 = 3; DELETE FROM t WHERE id = 250");
        sql(&pair.a, "INSERT INTO t VALUES (10000, 'new', 0), (-5, 'new', 0)");
        pair.a.compact().unwrap();
        sql(&pair.a, "INSERT INTO t VALUES (10001, 'newer', 0), (-6, 'newer', 0)");
        sql(&pair.a, &rebuild(T, "SELECT * FROM t_old"));
        // What was inserted after the last run of ours.
        let ops = pair.a.seal().unwrap().ops;
        assert_eq!(ops, 2, "{mode:?}");
        sql(&pair.a, &rebuild(T, "SELECT * FROM t_old"));
        assert_eq!(pair.a.seal().unwrap().ops, 0, "{mode:?}");
        // A settled row that was written since the last compaction: its run is said once more than need be.
        sql(&pair.a, "UPDATE t SET name = 'later' WHERE id = 400");
        pair.a.seal().unwrap();
        sql(&pair.a, &rebuild(T, "SELECT * FROM t_old"));
        let ops = pair.a.seal().unwrap().ops;
        assert!((1..100).contains(&ops), "{mode:?} {ops}");
        sql(&pair.a, &rebuild(T, "SELECT * FROM t_old"));
        assert_eq!(pair.a.seal().unwrap().ops, 0, "{mode:?}");
        // Back to what was folded: the log tells that it is another value now.
        sql(
            &pair.a,
            &rebuild(
                T,
                "SELECT id, iif(id % 100 = 3, 'name of row ' || id, name), n FROM t_old WHERE id <> 10000",
            ),
        );
        assert!(pair.a.seal().unwrap().ops >= 6);
        pair.equal();
        assert_eq!(rows(&pair.b, "SELECT count(*) FROM t WHERE name = 'in flight'"), ["0"], "{mode:?}");
        assert_eq!(rows(&pair.b, "SELECT name FROM t WHERE id = 400"), ["\"later\""], "{mode:?}");
        assert_eq!(rows(&pair.b, "SELECT count(*) FROM t"), ["502"], "{mode:?}");
    }
}

/// What a state settles is in the sums: a table that is set back to what it was before says so.
#[test]
fn a_merged_state_is_in_the_sums() {
    let fill = FILL.replace("20000", "500");
    let mut pair = Pair::new(T, &fill, &TrackOptions::default(), 16);
    let mut away = device(&pair.world, "away", false, Options { run_rows: 16, ..pair.world.options() });
    sql(&away, T);
    away.track("t", &TrackOptions::default()).unwrap();
    carry(&mut pair.a, &mut away);
    away.compact().unwrap();
    sql(&pair.a, "UPDATE t SET name = 'by state' WHERE id IN (100, 300); DELETE FROM t WHERE id = 200");
    pair.fold();
    carry(&mut pair.a, &mut away);
    assert_eq!(rows(&away, "SELECT name FROM t WHERE id = 100"), ["\"by state\""]);
    sql(&away, &rebuild(T, "SELECT id, iif(id = 100, 'name of row 100', name), n FROM t_old"));
    carry(&mut away, &mut pair.a);
    assert_eq!(
        rows(&pair.a, "SELECT name FROM t WHERE id IN (100, 300)"),
        ["\"name of row 100\"", "\"by state\""]
    );
    away.compact().unwrap();
    let before = away.seal().unwrap().ops;
    sql(&away, &rebuild(T, "SELECT * FROM t_old"));
    assert_eq!((before, away.seal().unwrap().ops), (0, 0));
    carry_all(&mut [&mut pair.a, &mut pair.b, &mut away]);
    digests_equal(&[&pair.a, &pair.b, &away]);
}

/// All devices of a fleet migrate one after the other, with bundles between: who has what the others wrote says nothing more.
#[test]
fn a_fleet_migrates_one_after_the_other() {
    let fill = FILL.replace("20000", "500");
    let mut pair = Pair::new(T, &fill, &TrackOptions::default(), 16);
    let wide = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER, note TEXT DEFAULT 'x')";
    let all = "SELECT id, name, n, 'x' FROM t_old";
    sql(&pair.a, &rebuild(wide, all));
    pair.a.seal().unwrap();
    carry_all(&mut [&mut pair.a, &mut pair.b]);
    sql(&pair.b, "UPDATE t SET name = 'between' WHERE id = 9");
    carry_all(&mut [&mut pair.a, &mut pair.b]);
    sql(&pair.b, &rebuild(wide, all));
    let ops = pair.b.seal().unwrap().ops;
    assert!(ops < 100, "{ops}");
    pair.equal();
    assert_eq!(rows(&pair.a, "SELECT id FROM t WHERE name = 'between'"), ["9"]);
    assert!(pair.a.conflicts().unwrap().is_empty());
}

/// What happens at random on one device of a table with rows 0 to 39.
fn random_step(random: &mut Random, by_cell: bool) -> String {
    let (id, n) = (random.below(40), random.below(100));
    let made = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER)";
    match random.below(10) {
        0..=1 => format!("INSERT OR IGNORE INTO t VALUES ({id}, 'i{n}', {n})"),
        2..=3 => format!("UPDATE t SET name = 'u{n}' WHERE id = {id}"),
        4 => format!("UPDATE t SET n = {n} WHERE id = {id}"),
        5 => format!("DELETE FROM t WHERE id = {id}"),
        6 => rebuild(made, "SELECT * FROM t_old"),
        7 => rebuild(made, &format!("SELECT id, iif(id = {id}, 'r{n}', name), n FROM t_old")),
        8 if !by_cell => rebuild(
            made,
            &format!("SELECT * FROM t_old WHERE id NOT BETWEEN {id} AND {}", id + random.below(8)),
        ),
        _ => {
            rebuild(made, "SELECT * FROM t_old")
                + &format!("; INSERT OR IGNORE INTO t VALUES ({id}, 'a{n}', {n})")
        }
    }
}

const SHOWN: &str = "SELECT id, name, n FROM t ORDER BY id";

/// One random schedule of three devices: they write, make the table anew, fold and exchange bundles in any order, and end
/// alike. Between, when all have all, one of them makes the table anew alone: then all have what it made. Returns what is
/// wrong.
fn random_schedule(seed: u64, broken: bool) -> Option<String> {
    let mut random = Random(seed);
    let world = World::seeded(seed);
    let by_cell = random.chance(30);
    let options = TrackOptions {
        merge: if by_cell { Merge::Cell } else { Merge::Row },
        policy: if random.chance(50) { Policy::Lww } else { Policy::Manual },
        ..TrackOptions::default()
    };
    let run_rows = 1 + random.below(6) as u32;
    let fold_list_bytes = if random.chance(30) { 0 } else { 4 << 20 };
    let mut devices: Vec<Engine> = ["a", "b", "c"]
        .map(|name| {
            let options = Options { run_rows, fold_list_bytes, broken_sums: broken, ..world.options() };
            device(&world, name, name == "a", options)
        })
        .into();
    for device in &mut devices {
        sql(device, T);
        device.track("t", &options).unwrap();
    }
    sql(&devices[0], &FILL.replace("20000", "30"));
    let meet = |devices: &mut [Engine]| carry_all(&mut devices.iter_mut().collect::<Vec<_>>());
    let mut trace = vec![format!("PACKMULE_SEED={seed} by cell {by_cell} {run_rows} rows a run")];
    for _ in 0..1 + random.below(3) {
        for _ in 0..random.below(16) {
            world.tick(1000);
            let d = random.below(3) as usize;
            match random.below(10) {
                0..=4 => {
                    let text = random_step(&mut random, by_cell);
                    trace.push(format!("{d}: {text}"));
                    sql(&devices[d], &text);
                }
                5 => drop(devices[d].seal().unwrap()),
                6 => {
                    trace.push(format!("{d}: compact"));
                    devices[d].compact().unwrap();
                }
                _ => {
                    let to = (d + 1 + random.below(2) as usize) % 3;
                    trace.push(format!("{d} to {to}"));
                    let bytes = whole_bundle(&mut devices[d]);
                    import(&mut devices[to], &bytes);
                }
            }
        }
        for _ in 0..3 {
            meet(&mut devices);
        }
        let d = random.below(3) as usize;
        for _ in 0..random.below(4) {
            let of = random.below(3) as usize;
            trace.push(format!("in step; {of}: compact"));
            devices[of].compact().unwrap();
        }
        let open = !devices[d].conflicts().unwrap().is_empty();
        let text = random_step(&mut random, open);
        trace.push(format!("in step; {d}: {text}"));
        sql(&devices[d], &text);
        let wanted = rows(&devices[d], SHOWN);
        for _ in 0..3 {
            meet(&mut devices);
        }
        for device in &devices {
            if !open && rows(device, SHOWN) != wanted {
                return Some(format!("not as it was made\n{}", trace.join("\n")));
            }
            let same = device.digest(false).unwrap() == devices[0].digest(false).unwrap();
            if !same || !device.verify().unwrap().problems.is_empty() {
                return Some(format!("not alike\n{}", trace.join("\n")));
            }
        }
    }
    None
}

/// `PACKMULE_SEED=N` replays one, `PACKMULE_SCHEDULES=N` says how many.
#[test]
fn random_rebuilds_end_as_they_were_made() {
    let wrong: Vec<String> = seeds(20).filter_map(|seed| random_schedule(seed, false)).collect();
    assert!(wrong.is_empty(), "{} wrong, the first:\n{}", wrong.len(), wrong[0]);
}

/// The control: where every run counts as what it was, the same schedules fail.
#[test]
fn without_sums_random_rebuilds_end_wrong() {
    assert!((0..40).any(|seed| random_schedule(seed, true).is_some()));
}

/// One random schedule of a per-device table and a base, which has in the end what the board has.
fn random_board(seed: u64) {
    let mut random = Random(seed);
    let world = World::seeded(seed);
    let run_rows = 1 + random.below(6) as u32;
    let mut board = device(&world, "board", false, Options { run_rows, ..world.options() });
    let mut base = world.base("base");
    sql(&board, T);
    board.track("t", &per_device()).unwrap();
    sql(&board, &FILL.replace("20000", "30"));
    let mut trace = vec![format!("PACKMULE_SEED={seed}")];
    for _ in 0..25 {
        match random.below(10) {
            0..=4 => {
                let text = random_step(&mut random, false);
                trace.push(text.clone());
                sql(&board, &text);
            }
            5 => drop(board.seal().unwrap()),
            6..=7 => {
                trace.push("compact".into());
                board.compact().unwrap();
            }
            _ => {
                trace.push("meet".into());
                carry(&mut board, &mut base);
                carry(&mut base, &mut board);
            }
        }
    }
    carry(&mut board, &mut base);
    assert_eq!(rows(&board, SHOWN), rows(&base, SHOWN), "{}", trace.join("\n"));
}

#[test]
fn random_rebuilds_of_a_board_reach_the_base() {
    seeds(20).for_each(random_board);
}
