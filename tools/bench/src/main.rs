//! The program `packmule-bench`: what capture, seals, bundles and imports cost, beside plain SQLite.
//!
//! | file | what it does |
//! |---|---|
//! | `writes` | writing, sealing, exporting and importing, by how a table is tracked |
//! | `growth` | one row written many times; more and more rows |
//! | `medium` | the file, the bytes written to it, and memory |
//! | `stock` | a small import into a large database |
//! | `fleet` | a base of many boards |
//! | `weather` | what rows of real weather cost in bytes |
//! | `tables` | what public tables cost in bytes |
//! | `instructions` | what each step costs in instructions, under valgrind |
//! | `line` | a newcomer's first start over a serial line, in virtual time |
//! | `returning` | who lacks what is folded: a board that was away, a newcomer |
//! | `world` | databases, devices and rows |
//! | `time`, `machine`, `report` | a stopwatch; what it ran on; tables and JSON |

mod fleet;
mod growth;
mod instructions;
mod line;
mod machine;
mod medium;
mod report;
mod returning;
mod stock;
mod tables;
mod time;
mod weather;
mod world;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;

use world::{Outcome, World};

const HELP: &str = "\
Measures what Packmule costs, beside plain SQLite in the same run.

  packmule-bench [--rows N] [--large N] [--repeats N] [--synchronous full|normal|off]
                 [--only writes|growth|medium|stock|fleet|line|returning|
                         weather|tables|instructions]...
                 [--boards N] [--weather FILE] [--tables DIRECTORY]
                 [--dir DIRECTORY] [--json]

  --rows N         rows inserted in the comparison of writes          (100000)
  --large N        rows of the largest database; two smaller ones too (1000000)
  --boards N       boards of the fleet                                (200)
  --weather FILE   a file like tests/vectors/weather-january.csv      (that one)
  --tables D       where the public tables are that tools/bench/tables.py gets
                                                                (target/tables)
  --repeats N      how often each is measured; medians are shown      (5)
  --synchronous S  of the application's connections; the engine's own
                   is always FULL                                     (full)
  --dir DIRECTORY  where the databases go: on a real disk, since waiting
                   for it is part of the cost (a new folder in $TMPDIR or /tmp)
  --json           JSON instead of tables

The part `instructions` needs valgrind, counts --rows rows or 20,000 if those
are fewer, and is measured only where it is asked for.

Example: packmule-bench > tools/bench/RESULTS.md
";

/// What there is to measure.
const PARTS: [&str; 10] = [
    "writes",
    "growth",
    "medium",
    "stock",
    "fleet",
    "line",
    "returning",
    "weather",
    "tables",
    "instructions",
];

/// What to measure.
struct Plan {
    rows: u64,
    large: u64,
    boards: usize,
    repeats: usize,
    synchronous: String,
    only: Vec<String>,
    dir: PathBuf,
    weather: Option<PathBuf>,
    tables: PathBuf,
    json: bool,
    /// The case and the step of `instructions` to run up to: what this program runs itself for.
    up_to: Option<(usize, usize)>,
}

fn parse() -> Outcome<Option<Plan>> {
    use lexopt::prelude::*;
    let mut plan = Plan {
        rows: 100_000,
        large: 1_000_000,
        boards: 200,
        repeats: 5,
        synchronous: "full".into(),
        only: Vec::new(),
        dir: std::env::temp_dir(),
        weather: None,
        tables: "target/tables".into(),
        json: false,
        up_to: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("rows") => plan.rows = parser.value()?.parse()?,
            Long("large") => plan.large = parser.value()?.parse()?,
            Long("boards") => plan.boards = parser.value()?.parse()?,
            Long("repeats") => plan.repeats = parser.value()?.parse()?,
            Long("synchronous") => plan.synchronous = parser.value()?.string()?,
            Long("only") => plan.only.push(parser.value()?.string()?),
            Long("dir") => plan.dir = parser.value()?.into(),
            Long("weather") => plan.weather = Some(parser.value()?.into()),
            Long("tables") => plan.tables = parser.value()?.into(),
            Long("json") => plan.json = true,
            Long("up-to") => {
                let given = parser.value()?.string()?;
                let (case, step) = given.split_once(',').ok_or("--up-to CASE,STEP")?;
                plan.up_to = Some((case.parse()?, step.parse()?));
            }
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    if !["full", "normal", "off"].contains(&plan.synchronous.as_str()) {
        return Err("--synchronous is full, normal or off".into());
    }
    if let Some(unknown) = plan.only.iter().find(|o| !PARTS.contains(&o.as_str())) {
        return Err(format!("--only {unknown}: there are {}", PARTS.join(", ")).into());
    }
    if plan.rows < 1_000 || plan.large < 1_000 || plan.boards == 0 || plan.repeats == 0 {
        return Err("at least 1,000 rows, one board and one repeat".into());
    }
    Ok(Some(plan))
}

fn run(plan: &Plan) -> Outcome {
    let dir = tempfile::Builder::new().prefix("packmule-bench-").tempdir_in(&plan.dir)?;
    if machine::file_system(dir.path()).as_deref() == Some("tmpfs") {
        eprintln!("warning: {} is memory, not a disk: say --dir", plan.dir.display());
    }
    let world = World::new(dir.path(), &plan.synchronous)?;
    if let Some((case, step)) = plan.up_to {
        instructions::run_up_to(&world, case, step, plan.rows)?;
        medium::tell_peak();
        return Ok(());
    }
    let machine = machine::describe(dir.path());
    let wants = |part: &str| plan.only.is_empty() || plan.only.iter().any(|o| o == part);
    let mut sections = Vec::new();
    if wants("writes") {
        sections.extend(writes::measure(&world, plan.rows, plan.repeats, &plan.synchronous)?);
    }
    if wants("growth") {
        sections.extend(growth::measure(&world, plan.large, plan.repeats)?);
    }
    if wants("medium") {
        sections.extend(medium::measure(&world, dir.path(), plan.rows)?);
    }
    if wants("stock") {
        sections.extend(stock::measure(&world, plan.large, plan.repeats)?);
    }
    if wants("fleet") {
        sections.extend(fleet::measure(&world, plan.boards, plan.repeats)?);
    }
    if wants("line") {
        sections.extend(line::measure(&world)?);
    }
    if wants("returning") {
        sections.extend(returning::measure(&world, plan.large)?);
    }
    if wants("weather") {
        sections.extend(weather::measure(&world, plan.weather.as_deref())?);
    }
    if wants("tables") {
        sections.extend(tables::measure(&world, &plan.tables)?);
    }
    if plan.only.iter().any(|o| o == "instructions") {
        sections.extend(instructions::measure(dir.path(), plan.rows.min(20_000))?);
    }
    let text = if plan.json { report::json } else { report::markdown };
    print!("{}", text(&machine, &sections));
    Ok(())
}

fn main() -> ExitCode {
    let plan = match parse() {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("packmule-bench: {e}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("packmule-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
