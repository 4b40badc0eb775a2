//! `packmule demo`: the whole trip on this machine's own sensors.
//!
//! Imports `text`, `usage`, `documents`, `output`, `commands`; what runs a command line is handed to it.
//!
//! Every `packmule` line that is shown is run as it stands, in this process; what the boards'
//! applications do goes through ordinary SQLite connections (`board`), on what the kernel measures
//! (`sensors`).

mod board;
mod sensors;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::commands::Context;
use crate::documents::Demo;
use crate::output::{Failure, Out, say};
use crate::text::{columns, count, iso, now, number, shell_word, shown};
use crate::usage::flags;
use board::App;
use sensors::Sensors;

const BOARDS: [&str; 3] = ["north", "east", "south"];
/// How long sensors are sampled, and how often each board does.
const SAMPLING: Duration = Duration::from_millis(3000);
const TICK: Duration = Duration::from_millis(25);

const LATEST: &str = "SELECT sensor, value, unit, at FROM readings WHERE at = (SELECT max(at) FROM readings)";
const GATHERED: &str =
    "SELECT device, count(*), count(DISTINCT sensor), min(at), max(at) FROM readings GROUP BY device";

/// Runs one command line.
pub type Run = fn(&[OsString], &mut Out<'_>) -> Result<(), Failure>;

/// `packmule demo`.
pub fn demo(context: &mut Context<'_, '_>, run: Run) -> Result<(), Failure> {
    let began = Instant::now();
    let keep = context.args.flag_path(&flags::KEEP).map(Path::to_owned);
    let temporary;
    let directory = match &keep {
        Some(directory) => prepared(directory)?,
        None => {
            let io = |e| Failure::io(&std::env::temp_dir(), "make a temporary directory in it", &e);
            temporary = tempfile::tempdir().map_err(io)?;
            temporary.path().to_owned()
        }
    };
    let mut trip = Trip { directory, out: context.out, run, commands: Vec::new() };
    let (conflict, digests, readings) = trip.go()?;
    let (commands, kept) = (trip.commands, keep.as_deref().map(shown));
    let out = &mut *context.out;
    out.document(&Demo { conflict, digests, readings, commands, kept });
    say!(out);
    match keep {
        Some(directory) => say!(
            out,
            "done in {:.1} s; the files are in {}",
            began.elapsed().as_secs_f64(),
            shown(&directory)
        ),
        None => say!(
            out,
            "done in {:.1} s (`packmule demo --keep DIRECTORY` keeps the files)",
            began.elapsed().as_secs_f64()
        ),
    }
    Ok(())
}

/// Makes a directory, or takes one that has nothing in it.
fn prepared(directory: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(directory).map_err(|e| Failure::io(directory, "make the directory", &e))?;
    let mut entries =
        std::fs::read_dir(directory).map_err(|e| Failure::io(directory, "read the directory", &e))?;
    if entries.next().is_some() {
        return Err(Failure::of(
            directory,
            "is not empty: give a directory that is, or one that is not there yet",
        ));
    }
    directory.canonicalize().map_err(|e| Failure::io(directory, "find the directory", &e))
}

struct Trip<'a, 'w> {
    directory: PathBuf,
    out: &'a mut Out<'w>,
    run: Run,
    commands: Vec<String>,
}

type Digests = BTreeMap<String, String>;
type Readings = BTreeMap<String, i64>;

impl Trip<'_, '_> {
    /// Makes the trip; returns the conflict's id, the digests and how many readings each board took.
    fn go(&mut self) -> Result<(String, Digests, Readings), Failure> {
        self.make()?;
        let sampled = self.sample()?;
        self.first_trip()?;
        let conflict = self.edit_at_once()?;
        self.settle(&conflict)?;
        let digests = self.compare()?;
        let gathered = self.gathered(&sampled)?;
        Ok((conflict, digests, gathered))
    }

    fn make(&mut self) -> Result<(), Failure> {
        self.heading("Three boards and a base, of one fleet");
        self.packmule("fleet new fleet.key", Show::Nothing)?;
        self.packmule("init base.db --name base --fleet fleet.key --base", Show::Nothing)?;
        for board in BOARDS {
            self.packmule(&format!("init {board}.db --name {board} --fleet fleet.key"), Show::Nothing)?;
        }
        self.heading("Each board's application makes its tables, as always; two commands put them in step");
        for board in BOARDS {
            let app = self.app(board)?;
            app.run(board::TABLES)?;
            app.run(board::SETTINGS)?;
            if board == BOARDS[0] {
                self.sqlite(board, board::TABLES);
                self.sqlite(board, board::SETTINGS);
            }
            self.packmule(&format!("track {board}.db readings --mode per-device --append"), Show::Nothing)?;
            self.packmule(&format!("track {board}.db settings"), Show::Nothing)?;
        }
        let first = "INSERT INTO settings VALUES ('interval_s', '60', 'factory'), ('unit', '°C', 'factory')";
        self.app(BOARDS[0])?.run(first)?;
        self.sqlite(BOARDS[0], first);
        Ok(())
    }

    /// Samples the sensors; returns how many readings each board took.
    fn sample(&mut self) -> Result<Vec<i64>, Failure> {
        self.heading("For 3 s each board writes what this machine's sensors say, through plain SQLite");
        let mut sensors = Sensors::find();
        let mut apps = BOARDS.iter().map(|board| self.app(board)).collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        let mut tick = 0;
        while start.elapsed() < SAMPLING {
            let at = iso(now());
            let readings = sensors.read();
            let board = tick % apps.len();
            apps[board].keep(&at, &readings)?;
            tick += 1;
            let next = start + TICK * u32::try_from(tick).unwrap_or(u32::MAX);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.sqlite(BOARDS[0], LATEST);
        let rows = apps[0].rows(LATEST)?;
        columns(&rows).iter().for_each(|line| say!(self.out, "    {line}"));
        let mut counts = Vec::new();
        for (board, app) in BOARDS.iter().zip(&apps) {
            let rows = app.number("SELECT count(*) FROM readings")?;
            let kinds = app.number("SELECT count(DISTINCT sensor) FROM readings")?;
            say!(
                self.out,
                "  {board}: {} of {}",
                count(rows.unsigned_abs(), "reading"),
                count(kinds.unsigned_abs(), "sensor")
            );
            counts.push(rows);
        }
        if counts.contains(&0) {
            return Err(Failure::plain("the demo found no sensor: neither /proc nor /sys could be read"));
        }
        Ok(counts)
    }

    fn first_trip(&mut self) -> Result<(), Failure> {
        self.heading("A card goes from board to board to the base, and back");
        self.carry_to_base(Show::All)?;
        self.carry_back(Show::All)
    }

    /// Carries the boards' bundles to the base.
    fn carry_to_base(&mut self, show: Show) -> Result<(), Failure> {
        std::fs::create_dir_all(self.directory.join("card"))
            .map_err(|e| Failure::io(&self.directory, "make a directory in it", &e))?;
        for board in BOARDS {
            // The base is not known yet on the first trip: then everything goes.
            let known = self.directory.join(format!("card/for-{board}.pmb")).is_file();
            let whom = if known { " --for base" } else { "" };
            self.packmule(&format!("export {board}.db card/{board}.pmb{whom}"), show)?;
        }
        let bundles: Vec<String> = BOARDS.iter().map(|board| format!("card/{board}.pmb")).collect();
        self.packmule(&format!("import base.db {}", bundles.join(" ")), show)
    }

    /// Carries the base's bundles to the boards.
    fn carry_back(&mut self, show: Show) -> Result<(), Failure> {
        for board in BOARDS {
            self.packmule(&format!("export base.db card/for-{board}.pmb --for {board}"), show)?;
        }
        for board in BOARDS {
            self.packmule(&format!("import {board}.db card/for-{board}.pmb"), show)?;
        }
        Ok(())
    }

    /// Makes a conflict; returns its id.
    fn edit_at_once(&mut self) -> Result<String, Failure> {
        self.heading("North and east change one setting, each without the other's change");
        for (board, value) in [(BOARDS[0], "30"), (BOARDS[1], "10")] {
            let sql = format!(
                "UPDATE settings SET value = '{value}', changed_by = '{board}' WHERE key = 'interval_s'"
            );
            self.app(board)?.run(&sql)?;
            self.sqlite(board, &sql);
        }
        self.carry_to_base(Show::All)?;
        self.heading("The base shows both; nothing was lost, and every device would show the same");
        self.packmule("conflicts base.db", Show::All)?;
        let listed = self.quietly("conflicts base.db --json")?;
        let listed: Value = serde_json::from_slice(&listed).unwrap_or_default();
        match listed["conflicts"][0]["id"].as_str() {
            Some(id) if listed["conflicts"].as_array().is_some_and(|all| all.len() == 1) => Ok(id.to_owned()),
            _ => {
                Err(Failure::plain("the demo should have met one conflict, and did not: please report this"))
            }
        }
    }

    fn settle(&mut self, conflict: &str) -> Result<(), Failure> {
        self.heading("Somebody at the base decides, and the card goes round once more");
        self.packmule(&format!("resolve base.db {conflict} --take {}", BOARDS[0]), Show::All)?;
        self.carry_back(Show::First)
    }

    fn compare(&mut self) -> Result<Digests, Failure> {
        self.heading("All four are the same");
        let mut digests = Digests::new();
        for board in BOARDS.iter().chain(&["base"]) {
            let line = format!("digest {board}.db");
            self.packmule(&line, Show::All)?;
            let digest = String::from_utf8_lossy(&self.quietly(&line)?).trim().to_owned();
            digests.insert((*board).to_owned(), digest);
        }
        if digests.values().any(|digest| *digest != digests["base"]) {
            return Err(Failure::plain("the digests differ, and must not: please report this"));
        }
        Ok(digests)
    }

    fn gathered(&mut self, sampled: &[i64]) -> Result<Readings, Failure> {
        self.heading("The base has gathered every board's readings, each under its device");
        let base = self.app("base")?;
        self.sqlite("base", GATHERED);
        let rows = base.rows(GATHERED)?;
        columns(&rows).iter().for_each(|line| say!(self.out, "    {line}"));
        let mut gathered = Readings::new();
        for (board, count) in BOARDS.iter().zip(sampled) {
            let here =
                rows.iter().find(|row| row[0].starts_with(&format!("{board}-"))).map(|row| row[1].clone());
            if here.as_deref() != Some(&count.to_string()) {
                return Err(Failure::plain(format!(
                    "{board} wrote {} readings, and the base has {}: please report this",
                    number(count.unsigned_abs()),
                    here.unwrap_or_else(|| "none".into())
                )));
            }
            gathered.insert((*board).to_owned(), *count);
        }
        Ok(gathered)
    }

    fn heading(&mut self, text: &str) {
        say!(self.out);
        say!(self.out, "# {text}");
        self.out.flush();
    }

    fn app(&self, board: &str) -> Result<App, Failure> {
        App::open(&self.directory.join(format!("{board}.db")))
    }

    /// Shows what an application did as what one would type.
    fn sqlite(&mut self, board: &str, sql: &str) {
        say!(self.out, "  $ sqlite3 {board}.db \"{sql}\"");
    }

    /// Shows a command line, runs it, and shows what it printed.
    fn packmule(&mut self, line: &str, show: Show) -> Result<(), Failure> {
        self.commands.push(format!("packmule {line}"));
        say!(self.out, "  $ packmule {line}");
        let printed = self.quietly(line)?;
        let printed = String::from_utf8_lossy(&printed);
        let lines: Vec<&str> = printed.lines().collect();
        let shown = match show {
            Show::All => lines.len(),
            Show::First => 1,
            Show::Nothing => 0,
        };
        for line in lines.iter().take(shown) {
            let line = line.replace(&format!("{}/", self.directory.display()), "");
            say!(self.out, "{}{line}", if line.is_empty() { "" } else { "    " });
        }
        self.out.flush();
        Ok(())
    }

    /// Runs a command line in the demo's directory; returns what it printed.
    fn quietly(&self, line: &str) -> Result<Vec<u8>, Failure> {
        let words = line.split(' ').map(|word| self.in_directory(word)).collect::<Vec<OsString>>();
        let mut printed = Vec::new();
        let mut out = Out::new(Box::new(&mut printed));
        // They are set in, and broken then.
        out.whole_lines = true;
        let result = (self.run)(&words, &mut out);
        let finished = out.finish();
        result.map_err(|failure| {
            Failure::plain(format!("`packmule {}`: {}", shell_line(line), failure.message()))
        })?;
        finished.map_err(|e| Failure::io(&self.directory, "run the demo in it", &e))?;
        Ok(printed)
    }

    /// Puts names of files into the demo's directory.
    fn in_directory(&self, word: &str) -> OsString {
        if [".db", ".pmb", ".key"].iter().any(|end| word.ends_with(end)) {
            self.directory.join(word).into()
        } else {
            word.into()
        }
    }
}

fn shell_line(line: &str) -> String {
    line.split(' ').map(shell_word).collect::<Vec<_>>().join(" ")
}

/// How much of a command's output is shown.
#[derive(Clone, Copy)]
enum Show {
    All,
    First,
    Nothing,
}
