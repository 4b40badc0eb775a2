//! What is kept and written where nothing has been acknowledged yet: the file beside plain SQLite's, the bytes written to
//! it, and the memory that a backlog takes.

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::report::{Cell, Section, thousands};
use crate::world::{Key, Outcome, World, append, create, insert, per_device, shared};

/// Measures all of it.
pub fn measure(world: &World, dir: &Path, rows: u64) -> Outcome<Vec<Section>> {
    Ok(vec![files(world, rows)?, memory(dir, rows)?])
}

/// Bytes that this process has given to the system to write.
fn written() -> Outcome<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.ok_or("/proc/self/io has no wchar")?.parse()?)
}

/// What is written for rows of a table, and how long the file is then.
struct Kept {
    file: f64,
    /// What of the file is free for what comes next.
    free: f64,
    written: f64,
}

/// Inserts rows in transactions of 1,000, does what is left to do, and empties the write-ahead log.
fn keep(db: &Connection, key: Key, rows: u64, mut after: impl FnMut() -> Outcome) -> Outcome<Kept> {
    let before = written()?;
    insert(db, key, 1..=rows)?;
    after()?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let pages = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let [file, free] = [pages("page_count")?, pages("freelist_count")?];
    let size = pages("page_size")?;
    let [file, free] = [file, free].map(|count| (count * size) as f64);
    Ok(Kept { file, free, written: (written()? - before) as f64 })
}

fn files(world: &World, rows: u64) -> Outcome<Section> {
    let mut section = Section {
        title: "The medium",
        about: format!(
            "{} inserts in transactions of 1,000 and one seal, of which nothing is acknowledged: the length of the file, what \
             of it is free for the next rows (the list of what has changed stood there), and the bytes given to the system to write until the write-ahead log is empty. Each against plain SQLite.",
            thousands(&rows.to_string())
        ),
        heads: vec!["", "file, bytes a row", "free in it", "written, bytes a row", "file", "written"],
        lines: Vec::new(),
    };
    let cases = [
        ("shared, integer key", Key::Integer, shared()),
        ("shared, text key", Key::Text, shared()),
        ("per-device, integer key", Key::Integer, per_device()),
        ("append, autoincrement", Key::Auto, append()),
    ];
    for (name, key, options) in cases {
        eprintln!("medium: {name}");
        let path = world.path("plain");
        let db = world.open(&path)?;
        create(&db, key)?;
        let plain = keep(&db, key, rows, || Ok(()))?;
        drop(db);
        world.remove(&path);
        let mut board = world.device("board", false)?;
        let db = world.open(board.path())?;
        create(&db, key)?;
        board.track("readings", &options)?;
        let ours = keep(&db, key, rows, || Ok(board.seal().map(|_| ())?))?;
        let a_row = |bytes: f64| Cell::Number(bytes / rows as f64, 1);
        section.line(
            name,
            vec![
                a_row(ours.file),
                a_row(ours.free),
                a_row(ours.written),
                Cell::Ratio(ours.file / plain.file),
                Cell::Ratio(ours.written / plain.written),
            ],
        );
    }
    Ok(section)
}

/// Tells the most memory that this process has had, for [`memory`].
pub fn tell_peak() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM:")).for_each(|line| println!("{line}"));
}

/// The peak, in KiB, of a process that does the steps of a case of `instructions` up to the bundle.
fn peak(dir: &Path, case: usize, rows: u64) -> Outcome<f64> {
    let run = Command::new(std::env::current_exe()?)
        .args(["--synchronous", "off", "--rows", &rows.to_string(), "--up-to", &format!("{case},3"), "--dir"])
        .arg(dir)
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    let peak = said.split_once("VmHWM:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    Ok(peak.filter(|_| run.status.success()).ok_or("the process that is measured has failed")?)
}

fn memory(dir: &Path, rows: u64) -> Outcome<Section> {
    let mut section = Section {
        title: "Memory",
        about: "The most memory (VmHWM) that a process has had which writes a backlog of rows, seals it and writes the bundle, \
                SQLite's page caches included."
            .into(),
        heads: vec!["", "rows", "KiB", "4 × the rows, KiB", "4 × the rows"],
        lines: Vec::new(),
    };
    for (name, case) in [("shared, integer key", 3), ("append, autoincrement", 6)] {
        eprintln!("memory: {name}");
        let (one, four) = (peak(dir, case, rows)?, peak(dir, case, 4 * rows)?);
        let cells = [rows as f64, one, four].map(|n| Cell::Number(n, 0));
        section.line(name, cells.into_iter().chain([Cell::Ratio(four / one)]).collect());
    }
    Ok(section)
}
