//! The main job on real input: three stations' weather, written by Python, merged at a base. The repository has one
//! month of it (hourly observations of 2013 at EWR, JFK and LGA, by the National Centers for Environmental
//! Information, as `weather` of the R package nycflights13; public domain). `PACKMULE_WEATHER=FILE` takes another
//! file of this form, as that package's whole year.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;
mod skips;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;

const SCHEMA: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT, year INT, month INT, day INT, hour INT,
        temp REAL, dewp REAL, humid REAL, wind_dir INT, wind_speed REAL, wind_gust REAL, precip REAL, pressure REAL, visib REAL, time_hour TEXT);
    CREATE TABLE stations (origin TEXT PRIMARY KEY, rows INT, last TEXT)";

/// The lines of the file in the repository, and those of the whole year.
const JANUARY: usize = 2_226;
const YEAR: usize = 26_115;

/// Each station's rows, a transaction for each 500, and its own line in `stations`.
const WRITER: &str = r#"
import csv, os, sqlite3
db = sqlite3.connect(os.environ['DB'])
station = os.environ['STATION']
rows = [r for r in csv.reader(open(os.environ['CSV'])) if r[0] == station]
rows = [[None if v == 'NA' else v for v in r] for r in rows]
for at in range(0, len(rows), 500):
    with db:
        part = rows[at:at + 500]
        marks = ', '.join('?' * len(part[0]))
        db.executemany('INSERT INTO readings (origin, year, month, day, hour, temp, dewp, humid, wind_dir, wind_speed, '
            'wind_gust, precip, pressure, visib, time_hour) VALUES (' + marks + ')', part)
        db.execute('INSERT INTO stations VALUES (?, ?, ?) ON CONFLICT (origin) DO UPDATE SET rows = rows + excluded.rows, '
            'last = excluded.last', (station, len(part), part[-1][-1]))
"#;

fn python(script: &str, environment: &[(&str, &str)]) -> bool {
    let child =
        Command::new("python3").arg("-").envs(environment.iter().copied()).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return false };
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    true
}

#[test]
fn three_stations_are_merged_at_a_base() {
    let january = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/weather-january.csv");
    let csv = std::env::var_os("PACKMULE_WEATHER").map_or_else(january, PathBuf::from);
    let text = std::fs::read_to_string(&csv).unwrap();
    let world = World::new();
    let mut base = world.base("base");
    let mut boards = Vec::new();
    let mut first = world.board_with("ewr", SCHEMA, &["stations"]);
    first.track("readings", &append()).unwrap();
    carry(&mut first, &mut base);
    boards.push(first);
    for name in ["jfk", "lga"] {
        let mut board = world.board_with(name, SCHEMA, &["stations"]);
        board.track("readings", &append()).unwrap();
        boards.push(board);
    }
    let mut bytes = 0;
    for board in &mut boards {
        let station = board.identity().name.to_uppercase();
        let path = board.path().to_owned();
        let environment =
            [("DB", path.to_str().unwrap()), ("STATION", station.as_str()), ("CSV", csv.to_str().unwrap())];
        if !python(WRITER, &environment) {
            return skips::skip("the weather of three stations", "python3 is not installed");
        }
        let bundle = bundle(board, &base);
        bytes += bundle.len();
        let report = import(&mut base, &bundle);
        let lines = text.lines().filter(|l| l.starts_with(&station)).count() as u64;
        assert_eq!(report.ops, lines + 1);
        assert_eq!(report.waits, []);
    }
    assert_eq!(base.conflicts().unwrap(), []);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert!([JANUARY, YEAR].contains(&lines.len()), "{} lines", lines.len());
    println!("{bytes} bytes of bundles, {:.1} a row", bytes as f64 / lines.len() as f64);

    // Content: each line of the file, as its columns' types have it, in the order of each station.
    let db = open(base.path());
    let mut statement = db
        .prepare(
            "SELECT origin, year, month, day, hour, temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure, visib, time_hour
             FROM readings WHERE device LIKE lower(?1) || '-%' AND origin = ?1 ORDER BY id",
        )
        .unwrap();
    let mut compared = 0;
    for station in ["EWR", "JFK", "LGA"] {
        let mut found = statement.query([station]).unwrap();
        for line in lines.iter().filter(|l| l.starts_with(station)) {
            let row = found.next().unwrap().unwrap();
            for (at, field) in line.split(',').enumerate() {
                let value = row.get_ref(at).unwrap();
                let equal = match value {
                    rusqlite::types::ValueRef::Null => field == "NA",
                    rusqlite::types::ValueRef::Integer(i) => field.parse() == Ok(i),
                    rusqlite::types::ValueRef::Real(r) => field.parse() == Ok(r),
                    rusqlite::types::ValueRef::Text(t) => field.as_bytes() == t,
                    rusqlite::types::ValueRef::Blob(_) => false,
                };
                assert!(equal, "{line}: column {at} is {value:?}");
            }
            compared += 1;
        }
        assert!(found.next().unwrap().is_none());
    }
    assert_eq!(compared, lines.len());
    assert_eq!(
        rows(&base, "SELECT origin, rows FROM stations ORDER BY 1"),
        ["EWR", "JFK", "LGA"].map(|s| format!("{s:?}|{}", lines.iter().filter(|l| l.starts_with(s)).count()))
    );
    // And back: every board knows all stations, and no other board's readings.
    for board in &mut boards {
        carry(&mut base, board);
        digests_equal(&[board, &base]);
        assert_eq!(rows(board, "SELECT count(DISTINCT origin) FROM readings"), ["1"]);
    }
    assert_eq!(base.verify().unwrap().problems, [""; 0]);
}

/// A board that says one reading at a time pays for the envelope each time: the figure that is promised is held here, row by
/// row, with the base answering each bundle. The first one has a certificate besides.
#[test]
fn a_bundle_for_one_row_takes_300_bytes() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/weather-january.csv"),
    )
    .unwrap();
    let (mut bytes, mut bundles) = (0, 0);
    for station in ["EWR", "JFK", "LGA"] {
        let world = World::new();
        let (mut board, mut base) = (world.board_with("board", SCHEMA, &[]), world.base("base"));
        board.track("readings", &append()).unwrap();
        for _ in 0..2 {
            carry(&mut board, &mut base);
            carry(&mut base, &mut board);
        }
        for (n, line) in text.lines().filter(|line| line.starts_with(station)).take(51).enumerate() {
            let marks = vec!["?"; 15].join(", ");
            let values = line.split(',').map(|value| (value != "NA").then_some(value));
            app(&board)
                .execute(
                    &format!(
                        "INSERT INTO readings (origin, year, month, day, hour, temp, dewp, humid, wind_dir, wind_speed,
                         wind_gust, precip, pressure, visib, time_hour) VALUES ({marks})"
                    ),
                    rusqlite::params_from_iter(values),
                )
                .unwrap();
            let bundle = bundle(&mut board, &base);
            assert_eq!(import(&mut base, &bundle).ops, 1, "{line}");
            carry(&mut base, &mut board);
            if n > 0 {
                (bytes, bundles) = (bytes + bundle.len(), bundles + 1);
            }
        }
    }
    println!("{bytes} bytes of {bundles} bundles");
    assert!(bundles == 150 && bytes <= 300 * bundles, "{bytes} bytes of {bundles} bundles");
}
