//! What each step costs in instructions, as valgrind counts them: the same in every run, whatever else the machine does.
//!
//! This program runs itself under valgrind's cachegrind up to each step in turn; a step costs what the run up to it has
//! more than the run up to the one before.

use std::process::Command;

use packmule::Mode;

use crate::report::{Cell, Section, thousands};
use crate::world::{Key, Outcome, World, append, create, insert, per_device, shared};

/// What can be counted, and how the table is tracked.
const CASES: [(&str, Key); 7] = [
    ("plain SQLite, integer key", Key::Integer),
    ("plain SQLite, autoincrement", Key::Auto),
    ("plain SQLite, text key", Key::Text),
    ("shared, integer key", Key::Integer),
    ("shared, text key", Key::Text),
    ("per-device, integer key", Key::Integer),
    ("append, autoincrement", Key::Auto),
];

/// The steps, in the order in which they are done. The first is what comes before: it is not counted.
const STEPS: [&str; 6] = ["", "insert", "seal", "export", "into a base", "into a board"];

/// Does the steps of a case up to one of them, and ends: what is under valgrind.
pub fn run_up_to(world: &World, case: usize, step: usize, rows: u64) -> Outcome {
    let Some((name, key)) = CASES.get(case).copied() else { return Err("no such case".into()) };
    if name.starts_with("plain") {
        let db = world.open(&world.path("plain"))?;
        create(&db, key)?;
        return if step > 0 { insert(&db, key, 1..=rows) } else { Ok(()) };
    }
    let options = match name.split_once(',') {
        Some(("per-device", _)) => per_device(),
        Some(("append", _)) => append(),
        _ => shared(),
    };
    let mut board = world.device("board", false)?;
    let db = world.open(board.path())?;
    create(&db, key)?;
    board.track("readings", &options)?;
    let mut peers = [world.device("base", true)?, world.device("other", false)?];
    for peer in &mut peers {
        if options.mode == Mode::Shared {
            create(&world.open(peer.path())?, key)?;
            peer.track("readings", &options)?;
        }
        world.carry(peer, &mut board)?;
        world.carry(&mut board, peer)?;
        world.carry(peer, &mut board)?;
    }
    let path = world.path("bundle");
    if step >= 1 {
        insert(&db, key, 1..=rows)?;
    }
    if step >= 2 {
        board.seal()?;
    }
    if step >= 3 {
        world.export(&mut board, None, &path)?;
    }
    for peer in &mut peers[..step.saturating_sub(3)] {
        if world.import(peer, &path)?.ops < rows && (options.mode == Mode::Shared || peer.identity().base) {
            return Err("not all ops were applied".into());
        }
    }
    Ok(())
}

/// Counts the instructions of this program, run with these arguments.
fn count(dir: &std::path::Path, case: usize, step: usize, rows: u64) -> Outcome<f64> {
    let run = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([
            "--synchronous",
            "off",
            "--rows",
            &rows.to_string(),
            "--up-to",
            &format!("{case},{step}"),
            "--dir",
        ])
        .arg(dir)
        .output()
        .map_err(|e| format!("valgrind cannot be run (Debian: valgrind): {e}"))?;
    let said = String::from_utf8_lossy(&run.stderr);
    let count =
        said.lines().find_map(|line| line.split_once("refs:")?.1.trim().replace(',', "").parse().ok());
    match count {
        Some(count) if run.status.success() => Ok(count),
        _ => Err(format!("valgrind: {said}").into()),
    }
}

/// Counts all steps of all cases, in thousands of instructions a row.
pub fn measure(dir: &std::path::Path, rows: u64) -> Outcome<Vec<Section>> {
    let mut section = Section {
        title: "Instructions",
        about: format!(
            "Thousands of instructions a row, as valgrind counts them (which has no instructions for SHA-256): {} inserts in \
             transactions of 1,000 into `readings(id, sensor, ts, value, note)`, one seal, a bundle for anybody, its import.",
            thousands(&rows.to_string())
        ),
        heads: STEPS.to_vec(),
        lines: Vec::new(),
    };
    for (case, (name, _)) in CASES.iter().enumerate() {
        eprintln!("instructions: {name}");
        let last = match name.split([',', ' ']).next() {
            Some("plain") => 1,
            Some("shared") => 5,
            _ => 4,
        };
        let counts = (0..=last).map(|step| count(dir, case, step, rows)).collect::<Outcome<Vec<f64>>>()?;
        let per_row = |step: usize| (counts[step] - counts[step - 1]) / rows as f64 / 1000.0;
        let cell = |step| if step <= last { Cell::Number(per_row(step), 1) } else { Cell::None };
        section.line(*name, (1..STEPS.len()).map(cell).collect());
    }
    Ok(vec![section])
}
