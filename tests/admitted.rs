//! What an honest seal makes is taken in by everybody, whatever the application's tables and values are.
//!
//! `PACKMULE_SEED=N` replays a fleet, `PACKMULE_SCHEDULES=N` tries so many.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;

use common::*;
use packmule::core::wire::RecordKind;
use packmule::{
    ColumnMerge, ConflictKind, Engine, Error, Merge, Missing, Policy, Resolution, TableHow, TrackOptions,
};

/// Names the groups that a device has set aside.
fn refused(device: &Engine) -> Vec<String> {
    let waits = device.status().unwrap().waits;
    let unreadable = waits.iter().filter(|wait| matches!(wait.missing, Missing::Unreadable { .. }));
    unreadable.map(|wait| format!("{wait:?}")).collect()
}

/// An INTEGER key that is no alias of the rowid holds every value. Whoever makes the table of its definition makes one
/// that does too; in a table that has such an alias the row is quarantined, and harms nobody.
#[test]
fn an_integer_key_that_is_no_rowid_holds_text() {
    for (table, key) in [
        ("CREATE TABLE t (sku INTEGER, name TEXT); CREATE UNIQUE INDEX u ON t(sku)", vec!["sku".to_owned()]),
        ("CREATE TABLE t (sku INTEGER PRIMARY KEY DESC, name TEXT)", Vec::new()),
        ("CREATE TABLE t (sku INTEGER PRIMARY KEY, name TEXT) WITHOUT ROWID", Vec::new()),
    ] {
        let world = World::new();
        let (mut a, mut b, mut c) = (world.board("a"), world.board("b"), world.board("c"));
        sql(&a, table);
        a.track("t", &TrackOptions { key, ..TrackOptions::default() }).unwrap();
        sql(&c, "CREATE TABLE t (sku INTEGER PRIMARY KEY, name TEXT)");
        c.track("t", &TrackOptions::default()).unwrap();
        sql(&a, "INSERT INTO t VALUES (1, 'one'), ('A-7', 'two'), (2.5, 'three')");
        carry_all(&mut [&mut a, &mut b, &mut c]);
        assert_eq!([refused(&b), refused(&c)], [vec![], Vec::<String>::new()], "{table}");
        let all = "SELECT sku, name FROM t ORDER BY 1";
        assert_eq!(rows(&b, all), rows(&a, all), "{table}");
        assert_eq!(rows(&c, all), ["1|\"one\""], "{table}");
        let open = c.conflicts().unwrap();
        assert!(open.len() == 2 && open.iter().all(|o| matches!(o.kind, ConflictKind::Check(_))), "{open:?}");
        sql(&b, "UPDATE t SET name = name || '!'; DELETE FROM t WHERE sku = 2.5");
        carry_all(&mut [&mut a, &mut b, &mut c]);
        assert_eq!(rows(&a, all), ["1|\"one!\"", "\"A-7\"|\"two!\""], "{table}");
        assert_eq!(rows(&c, all), ["1|\"one!\""], "{table}");
        assert_eq!(c.conflicts().unwrap().len(), 1, "{table}");
    }
}

/// SQLite reads the rows of a table with generated columns only whole; a foreign key over one stays with its column.
#[test]
fn a_generated_column_stops_nothing() {
    let world = World::new();
    let (mut a, mut b) = (world.base("a"), world.board("b"));
    sql(
        &a,
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v, g AS (k) STORED REFERENCES t, l AS (length(v)));
         INSERT INTO t VALUES (1, zeroblob(70000)), (2, printf('%.*c', 70000, 'x'))",
    );
    a.track("t", &TrackOptions::default()).unwrap();
    carry(&mut a, &mut b);
    sql(&b, "UPDATE t SET v = zeroblob(80000) WHERE k = 2");
    b.seal().unwrap();
    sql(&a, "UPDATE t SET v = zeroblob(90000) WHERE k = 2");
    carry_all(&mut [&mut a, &mut b]);
    let open = a.conflicts().unwrap();
    assert_eq!(open.len(), 1);
    a.resolve(&open[0].id, &Resolution::Take(b.identity().id)).unwrap();
    carry_all(&mut [&mut a, &mut b]);
    a.compact().unwrap();
    let mut c = world.board("c");
    carry(&mut a, &mut c);
    for device in [&a, &b, &c] {
        assert_eq!(rows(device, "SELECT k, length(v) FROM t ORDER BY k"), ["1|70000", "2|80000"]);
        assert_eq!([device.verify().unwrap().problems, refused(device)], [vec![], Vec::<String>::new()]);
    }
    digests_equal(&[&a, &b, &c]);
}

/// A definition that is too large for a frame holds its table alone.
#[test]
fn a_column_that_fits_into_no_definition_holds_its_table_alone() {
    let world = World::new();
    let tables = "CREATE TABLE t (k INTEGER PRIMARY KEY); CREATE TABLE u (k INTEGER PRIMARY KEY)";
    let (mut a, mut b) = (world.board_with("a", tables, &["t", "u"]), world.board("b"));
    sql(&a, &format!("ALTER TABLE t ADD COLUMN x DEFAULT '{}'", "x".repeat(70_000)));
    sql(&a, "INSERT INTO t (k) VALUES (1); INSERT INTO u VALUES (2)");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT k FROM u"), ["2"]);
    let told = a.status().unwrap().tables;
    let held: Vec<_> = told.iter().filter(|table| table.how == TableHow::Suspended).collect();
    assert!(held.len() == 1 && held[0].note.as_ref().unwrap().contains("too large for a frame"), "{told:?}");
    sql(&a, "ALTER TABLE t DROP COLUMN x");
    carry(&mut a, &mut b);
    assert_eq!(rows(&b, "SELECT k FROM t"), ["1"]);
    digests_equal(&[&a, &b]);
}

/// A column was decided elsewhere while the table was suspended here, and a counter of a row was NULL: the row is not new,
/// and does not say of itself what it does not know.
#[test]
fn a_row_without_a_column_that_came_is_no_new_row() {
    let world = World::new();
    let hits = vec![("hits".into(), ColumnMerge::Counter)];
    let options = TrackOptions { merge: Merge::Row, columns: hits, ..follow() };
    let (mut a, mut b, mut c) = (world.board("a"), world.board("b"), world.board("c"));
    sql(
        &a,
        "CREATE TABLE t (k TEXT PRIMARY KEY, v, hits INTEGER); INSERT INTO t VALUES ('a', 1, NULL), ('b', 2, 2)",
    );
    a.track("t", &options).unwrap();
    carry_all(&mut [&mut a, &mut b, &mut c]);
    sql(&a, "ALTER TABLE t ADD COLUMN x TEXT; UPDATE t SET x = '05' WHERE k = 'a'");
    world.tick(1000);
    sql(&b, "ALTER TABLE t ADD COLUMN x INTEGER; UPDATE t SET x = 7, v = 20 WHERE k = 'b'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    sql(&a, "CREATE VIEW seen AS SELECT x FROM t");
    let open = c.conflicts().unwrap();
    let schema = open.iter().find(|c| matches!(c.kind, ConflictKind::Schema(_))).unwrap();
    c.resolve(&schema.id, &Resolution::Take(b.identity().id)).unwrap();
    carry_all(&mut [&mut a, &mut b, &mut c]);
    sql(&a, "UPDATE t SET hits = 5 WHERE k = 'a'");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    sql(&a, "ALTER TABLE t RENAME COLUMN x TO x_old");
    carry_all(&mut [&mut a, &mut b, &mut c]);
    for device in [&a, &b, &c] {
        assert_eq!(refused(device), Vec::<String>::new());
        assert_eq!(rows(device, "SELECT k, v, hits FROM t ORDER BY k"), ["\"a\"|1|5", "\"b\"|20|2"]);
    }
    digests_equal(&[&a, &b, &c]);
}

const TYPES: [&str; 15] = [
    "INTEGER",
    "INT",
    "TEXT",
    "BLOB",
    "REAL",
    "NUMERIC",
    "",
    "ANY",
    "VARCHAR(10)",
    "DATETIME",
    "BOOLEAN",
    "DECIMAL(10,2)",
    "FLOATING POINT",
    "CHARINT",
    "DOUBLE",
];
const STRICT: [&str; 6] = ["INTEGER", "INT", "TEXT", "BLOB", "REAL", "ANY"];

const VALUES: [&str; 45] = [
    "NULL",
    "NULL",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "5",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "(0.0 * -1)",
    "1.5",
    "5.0",
    "1e300",
    "9e999",
    "-9e999",
    "9007199254740993",
    "9007199254740992.0",
    "9223372036854775807.0",
    "'5'",
    "'05'",
    "' 5 '",
    "'5.0'",
    "'1e3'",
    "'1e'",
    "'0x10'",
    "'+5'",
    "'.5'",
    "'5.'",
    "'.'",
    "'abc'",
    "'ab '",
    "''",
    "x''",
    "x'35'",
    "CAST(x'ff00' AS TEXT)",
    "'5' || char(0)",
    "char(160) || '5'",
    "'9223372036854775808'",
    "'-0.0'",
    "zeroblob(20000)",
    "printf('%.*c', 20000, 'x')",
    "printf('%.*c', 20000, '7')",
];

const DEFAULTS: [&str; 10] =
    ["5", "'05'", "1.5", "x'00'", "NULL", "-0.0", "'a'", "TRUE", "CURRENT_DATE", "9e999"];

/// A table that an application may make.
struct Table {
    columns: Vec<String>,
    sql: String,
    /// What is in its parentheses, and what comes after, to make it anew.
    body: (String, &'static str),
    unique_key: bool,
}

fn table(random: &mut Random) -> Table {
    let strict = random.chance(20);
    let types: &[&str] = if strict { &STRICT } else { &TYPES };
    let n = 1 + random.below(4) as usize;
    let columns: Vec<String> = (0..n).map(|at| format!("c{at}")).collect();
    let mut parts = Vec::new();
    let any = if strict { "ANY" } else { "" };
    let (key, mut tail) = match random.below(12) {
        0 => ("k INTEGER PRIMARY KEY".to_owned(), ""),
        1 => ("k INTEGER PRIMARY KEY AUTOINCREMENT".into(), ""),
        2 => ("k INTEGER PRIMARY KEY DESC".into(), ""),
        3 => ("k INTEGER PRIMARY KEY".into(), "WITHOUT ROWID"),
        4 => ("k TEXT PRIMARY KEY COLLATE NOCASE".into(), ""),
        5 => ("k TEXT PRIMARY KEY COLLATE RTRIM".into(), "WITHOUT ROWID"),
        6 => ("k REAL PRIMARY KEY".into(), ""),
        7 => (format!("k {any} PRIMARY KEY"), ""),
        8 => (format!("k {}", random.pick(types)), "UNIQUE"),
        9 => ("k INTEGER".into(), "UNIQUE"),
        _ => (format!("k {} PRIMARY KEY", random.pick(types)), ""),
    };
    let unique_key = tail == "UNIQUE";
    parts.push(key);
    for column in &columns {
        let mut part = format!("{column} {}", random.pick(types));
        if random.chance(30) {
            part.push_str(&format!(" DEFAULT {}", random.pick(&DEFAULTS)));
        }
        if random.chance(10) {
            part.push_str(" COLLATE NOCASE");
        }
        parts.push(part);
    }
    if random.chance(20) {
        let (of, kind) = (random.pick(&columns), random.pick(&["VIRTUAL", "STORED"]));
        parts.push(format!("g {any} AS ({of} + 1) {kind}"));
        if random.chance(30) {
            parts.push("UNIQUE (g)".into());
        } else if random.chance(30) {
            parts.push("FOREIGN KEY (g) REFERENCES t".into());
        }
    }
    if random.chance(20) {
        parts.push(format!("UNIQUE ({})", random.pick(&columns)));
    }
    if unique_key {
        parts.push("UNIQUE (k)".into());
        tail = "";
    }
    let tail = match (tail, strict) {
        ("", true) => "STRICT",
        ("WITHOUT ROWID", true) => "WITHOUT ROWID, STRICT",
        (tail, _) => tail,
    };
    let body = parts.join(", ");
    Table { columns, sql: format!("CREATE TABLE t ({body}) {tail}"), body: (body, tail), unique_key }
}

fn options(random: &mut Random, table: &Table) -> TrackOptions {
    let mut options = if random.chance(60) { follow() } else { TrackOptions::default() };
    options.merge = *random.pick(&[Merge::Row, Merge::Row, Merge::Cell]);
    options.policy = *random.pick(&[Policy::Manual, Policy::Lww]);
    let rules =
        [ColumnMerge::Counter, ColumnMerge::Counter, ColumnMerge::Max, ColumnMerge::Min, ColumnMerge::Lww];
    for column in &table.columns {
        if random.chance(35) {
            options.columns.push((column.clone(), *random.pick(&rules)));
        }
    }
    options
}

/// What an application does; what SQLite refuses it leaves. `added` are the columns that came later.
fn write(random: &mut Random, device: &Engine, table: &Table, added: &mut Vec<String>) -> String {
    let db = app(device);
    let columns = [&table.columns[..], added].concat();
    let column = random.pick(&columns).clone();
    let (value, other) = (*random.pick(&VALUES), *random.pick(&VALUES));
    let key = *random.pick(&["1", "2", "3", "'A'", "'a'", "2.5", "x'01'", "9e999"]);
    let text = match random.below(26) {
        0..=6 => format!("INSERT INTO t (k, {column}) VALUES ({key}, {value})"),
        7..=9 => format!("INSERT OR REPLACE INTO t (k, {column}) VALUES ({key}, {value})"),
        10 => format!("INSERT OR REPLACE INTO t (k) VALUES ({value})"),
        11..=15 => format!("UPDATE OR IGNORE t SET {column} = {value} WHERE k = {key}"),
        16 => format!("UPDATE OR REPLACE t SET {column} = {value} WHERE {column} IS {other}"),
        17..=18 => format!("UPDATE t SET {column} = {column} + {value} WHERE k = {key}"),
        19 => format!("UPDATE OR REPLACE t SET k = {value} WHERE k = {key}"),
        20..=21 => format!("DELETE FROM t WHERE k = {key}"),
        22 => {
            let name = format!("later{}", random.below(2));
            let kind =
                random.pick(&["TEXT", "INTEGER", "REAL", "BLOB", "INTEGER DEFAULT '05'", "REAL DEFAULT 5"]);
            if !added.contains(&name) {
                added.push(name.clone());
            }
            format!("ALTER TABLE t ADD COLUMN {name} {kind}")
        }
        23 => {
            let names: Vec<String> = dump(&db, "SELECT name FROM pragma_table_info('t')");
            let names: Vec<&str> = names.iter().map(|name| name.trim_matches('"')).collect();
            let kept: Vec<&str> = names.iter().copied().filter(|name| !name.starts_with("later")).collect();
            let (body, tail) = &table.body;
            let kept = kept.join(", ");
            format!(
                "BEGIN; ALTER TABLE t RENAME TO old; CREATE TABLE t ({body}) {tail};
                 INSERT INTO t ({kept}) SELECT {kept} FROM old WHERE k IS NOT {key}; DROP TABLE old; COMMIT"
            )
        }
        24 => "CREATE VIEW IF NOT EXISTS seen AS SELECT * FROM t; ALTER TABLE t RENAME TO away".into(),
        _ => "ALTER TABLE away RENAME TO t; DROP VIEW IF EXISTS seen".into(),
    };
    if db.execute_batch(&text).is_err() {
        let _ = db.execute_batch("ROLLBACK");
    }
    text
}

/// Plays one fleet. Returns whether there was one.
fn play(seed: u64) -> bool {
    let mut random = Random(seed);
    let world = World::seeded(seed);
    let mut devices: Vec<Engine> = ["a", "b", "c", "d"].iter().map(|name| world.board(name)).collect();
    let table = table(&mut random);
    let mut options = options(&mut random, &table);
    if table.unique_key {
        options.key = vec!["k".into()];
    }
    let mut added = Vec::new();
    let mut told = vec![table.sql.clone()];
    // Two make the table themselves, and for the others Packmule makes it.
    for device in &mut devices[..2] {
        app(device).execute_batch(&table.sql).unwrap_or_else(|e| panic!("seed {seed}: {e}: {}", table.sql));
        for _ in 0..random.below(4) {
            told.push(write(&mut random, device, &table, &mut added));
        }
        match device.track("t", &options) {
            Ok(_) => {}
            Err(Error::CannotTrack { .. }) => return false,
            Err(e) => panic!("seed {seed}: {e}\n{}", told.join("\n")),
        }
    }
    for _ in 0..12 {
        world.tick(1000);
        let at = random.below(4) as usize;
        for _ in 0..random.below(4) {
            told.push(format!("{at}: {}", write(&mut random, &devices[at], &table, &mut added)));
        }
        let (from, to) = (random.below(4) as usize, random.below(4) as usize);
        if from != to {
            told.push(format!("{from} to {to}"));
            let [from, to] = devices.get_disjoint_mut([from, to]).unwrap();
            let bytes = bundle(from, to);
            try_import(to, &bytes).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", told.join("\n")));
        }
    }
    for device in &devices {
        let _ = app(device).execute_batch("ALTER TABLE away RENAME TO t; DROP VIEW IF EXISTS seen");
    }
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 2), (2, 1), (1, 0)] {
            carry_between(&mut devices, from, to);
        }
    }
    for device in &devices {
        let refused = refused(device);
        assert!(refused.is_empty(), "seed {seed}: {refused:?}\n{}", told.join("\n"));
        let problems = device.verify().unwrap().problems;
        assert!(problems.is_empty(), "seed {seed}: {problems:?}\n{}", told.join("\n"));
    }
    true
}

#[test]
fn what_an_honest_seal_makes_is_taken_in_by_everybody() {
    let (mut fleets, mut failed) = (0, Vec::new());
    for seed in seeds(40) {
        match std::panic::catch_unwind(|| play(seed)) {
            Ok(played) => fleets += u64::from(played),
            Err(_) => failed.push(seed),
        }
    }
    println!("{fleets} fleets took in all that their devices sealed");
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// The control: a group that is set aside is found by what the fleets above are asked.
#[test]
fn a_group_that_is_set_aside_is_found() {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k INTEGER PRIMARY KEY, v)", &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(&a, "INSERT INTO t VALUES (1, 1)");
    let mut records = bundles::records(&bundle(&mut a, &b));
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    let body = bundles::with_blocks(&bundles::plain(&records[at].1), &[0x3f, 1, 2, 3]);
    bundles::replace_frame(&mut records, at, body, &a);
    assert_eq!(refused(&b), Vec::<String>::new());
    import(&mut b, &bundles::join(&records));
    assert_eq!(refused(&b).len(), 1);
}
