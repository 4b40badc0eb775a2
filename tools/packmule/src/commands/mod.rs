//! What commands do: one file for each group of them.
//!
//! Imports `text`, `usage`, `documents`, `output`, `files`. Each command is a function that takes a [`Context`]
//! and prints its document, and lines for people; no command calls another.
//!
//! | file | commands |
//! |---|---|
//! | `device` | `init`, `fleet new`, `trust`, `revoke`, `devices`, `retire`, `join` |
//! | `remove` | `init --remove` |
//! | `admit` | `admit`, `fleet rotate`, `rename` |
//! | `tables` | `track`, `untrack`, `schema`, `seal` |
//! | `compaction` | `compact`, `prune`, `snapshot` |
//! | `export`, `import`, `exchange`, `sync`, `serve` | those; `merge` is in `import` |
//! | `intake`, `line` | what `import` and `merge` share; what `sync` and `serve` share |
//! | `changes` | what `serve` and `run` print |
//! | `run/`, `find` | `run`; `find` |
//! | `network` | `sync` and `serve` over a network; `no_network`: where the program is built without |
//! | `conflicts`, `resolve` | those |
//! | `status`, `log`, `check` | those; `digest`, `verify`, `inspect` |
//! | `figures`, `web` | figures for Prometheus; what `serve --listen` answers over HTTP |
//! | `decide`, `descendants` | programs that decide about conflicts, after commands that take in; all that one has started |
//! | `history` | `undo`, `restore`, `at` |
//! | `report` | that |
//! | `board` | `board` |
//! | `services` | `board install`, `board remove` |
//! | `dry_start` | `board check`, `board card` |
//! | `own` | `completions`, `man` |

mod admit;
mod board;
mod changes;
mod check;
mod compaction;
mod conflicts;
mod decide;
#[cfg(target_os = "linux")]
mod descendants;
mod device;
mod dry_start;
mod exchange;
mod export;
mod figures;
#[cfg(feature = "net")]
mod find;
mod history;
mod import;
mod intake;
mod line;
mod log;
#[cfg(feature = "net")]
mod network;
#[cfg(not(feature = "net"))]
#[path = "no_network.rs"]
mod network;
mod own;
mod remove;
mod report;
mod resolve;
mod run;
mod serve;
mod services;
mod status;
mod sync;
mod tables;
#[cfg(feature = "net")]
mod web;

use std::path::Path;

use packmule::{Engine, Error, TableHow, label};

use crate::files::board::Profile;
use crate::files::sources::{self, Kind};
use crate::output::{Failure, Out, tell};
use crate::text::{hint, paragraph, quoted, safe, shown, size};
use crate::usage::{Args, Name, flags};

pub use admit::{admit, fleet_rotate, rename};
pub use board::board;
pub use check::{digest, inspect, verify};
pub use compaction::{compact, prune, snapshot};
pub use conflicts::conflicts;
pub use decide::decide;
pub use device::{devices, fleet_new, init, join, retire, revoke, trust};
pub use exchange::exchange;
pub use export::export;
#[cfg(feature = "net")]
pub use find::find;
pub use history::{at, restore, undo};
pub use import::{import, merge};
pub use log::log;
#[cfg(not(feature = "net"))]
pub use network::find;
pub use own::{completions, man};
pub use report::report;
pub use resolve::resolve;
pub use run::run;
pub use serve::serve;
pub use status::status;
pub use sync::sync;
pub use tables::{schema, seal, track, untrack};

/// What a command works with.
pub struct Context<'a, 'w> {
    /// Its command line.
    pub args: Args,
    /// Where it prints what it did.
    pub out: &'a mut Out<'w>,
}

/// Returns the profile that is used: `--board`, or what the device tree says.
fn profile(context: &Context<'_, '_>) -> Result<&'static Profile, Failure> {
    let Some(name) = context.args.flag(&flags::BOARD)? else { return Ok(Profile::found().0) };
    let known = || Profile::all().iter().map(|board| board.name).collect::<Vec<_>>().join(", ");
    let wrong = || context.args.wrong(format!("--board is one of {}, not `{name}`", known()));
    Ok(Profile::named(name).ok_or_else(wrong)?)
}

/// Makes the engine's options, as the flags and the board's profile say.
fn options(context: &Context<'_, '_>) -> Result<packmule::Options, Failure> {
    Ok(Given::of(context)?.options())
}

/// What of the flags and the board's profile makes the engine's options.
#[derive(Clone, Copy)]
struct Given {
    profile: &'static Profile,
    busy_ms: Option<u32>,
}

impl Given {
    fn of(context: &Context<'_, '_>) -> Result<Self, Failure> {
        Ok(Self { profile: profile(context)?, busy_ms: busy_ms(context)? })
    }

    fn options(self) -> packmule::Options {
        let mut options = packmule::Options::default();
        self.profile.budget(&mut options);
        options.busy_ms = self.busy_ms.unwrap_or(options.busy_ms);
        options
    }
}

/// Reads `--wait`.
fn busy_ms(context: &Context<'_, '_>) -> Result<Option<u32>, Failure> {
    let Some(wait) = context.args.flag(&flags::WAIT)? else { return Ok(None) };
    let seconds: Option<f64> = wait.parse().ok().filter(|s: &f64| (0.0..=86_400.0).contains(s));
    let wrong = || context.args.wrong(format!("--wait is a number of seconds up to 86400, not `{wait}`"));
    Ok(Some((seconds.ok_or_else(wrong)? * 1000.0) as u32))
}

/// Says what of the tracked tables does not travel, and which tables are held: after every command that sends, takes in
/// or compares. Standard error has it where standard output has something for a program.
fn say_left_out(context: &mut Context<'_, '_>, engine: &Engine) {
    say_carried_out(context, engine);
    let sends = !matches!(context.args.command.name, Name::Import | Name::Merge);
    let said = left_out(engine, context.args.path(0), sends);
    said.iter().for_each(|said| say_either(context, said, Out::warning));
}

/// Returns what of the tracked tables does not travel, and which tables are held; rows too where the command `sends`, or
/// leaves them out of what it compares.
fn left_out(engine: &Engine, path: &Path, sends: bool) -> Vec<String> {
    // The command itself has done what it was asked for: that this cannot be read is no failure of it.
    let rows = if sends { engine.not_sent().unwrap_or_default() } else { Vec::new() };
    let tables = engine.left_out().unwrap_or_default();
    let rows = rows.iter().map(|rows| rows.to_string() + &hint(rows.hint.clone(), path));
    let said = rows.chain(tables.iter().map(|table| {
        let note = table.note.as_deref().unwrap_or("it was changed here");
        let held = if table.how == TableHow::Suspended { "held: " } else { "" };
        format!("note: table `{}`: {held}{note}{}", table.name, hint(table.hint(), path))
    }));
    said.collect()
}

/// Returns the same of a database that something else has open, which goes on sending.
fn left_out_now(path: &Path) -> Vec<String> {
    let engine = Engine::open_read_only(path, packmule::Options::default());
    engine.map_or_else(|_| Vec::new(), |engine| left_out(&engine, path, true))
}

/// Returns whether standard output has something for a program.
fn is_for_a_program(context: &Context<'_, '_>) -> bool {
    let name = context.args.command.name;
    let piped = [Name::Export, Name::Report, Name::Snapshot].contains(&name)
        && is_standard_output(context.args.path(1));
    name == Name::Digest || piped || context.out.json
}

/// Returns whether a file that is to be written stands for standard output.
fn is_standard_output(file: &Path) -> bool {
    file == Path::new("-")
}

/// Refuses standard output for what it has no place: a document besides, a terminal.
fn check_standard_output(args: &Args, what: &str) -> Result<(), Failure> {
    use std::io::IsTerminal;
    if args.has(&flags::JSON) {
        return Err(args.wrong(format!("standard output cannot take both the {what} and --json")).into());
    }
    if std::io::stdout().is_terminal() {
        let pipe = format!("a {what} is not for a terminal: give a file, or send `-` through a pipe");
        return Err(args.wrong(pipe).into());
    }
    Ok(())
}

/// Says what became of the decisions that applications wrote in SQL, after every command that seals.
fn say_carried_out(context: &mut Context<'_, '_>, engine: &Engine) {
    let said = decide::outcome(&engine.take_carried_out(), decide::By::Sql, context.args.path(0));
    said.iter().for_each(|line| say_either(context, line, Out::line));
}

/// Says something beside what a command was asked for: on standard error where standard output is for a program.
fn say_either<'w>(context: &mut Context<'_, 'w>, text: &str, print: fn(&mut Out<'w>, &str)) {
    use std::io::Write;
    let text = paragraph(text, 0, 2);
    if is_for_a_program(context) {
        let _ = writeln!(std::io::stderr(), "{}", safe(&text));
    } else {
        print(context.out, &text);
    }
}

/// Opens the database that is the first operand.
fn open(context: &Context<'_, '_>) -> Result<Engine, Failure> {
    open_as(context, Engine::open_with)
}

/// Opens it for a command that only reads: also on a disk that cannot be written to. Where no key lies beside it, it is
/// another device's file: nothing is written to it.
fn open_to_read(context: &Context<'_, '_>) -> Result<Engine, Failure> {
    let again = options(context)?;
    let beside = |end: &str| {
        let mut key = context.args.path(0).as_os_str().to_owned();
        key.push(end);
        Path::new(&key).exists()
    };
    if ![".pmkey", ".pmkey.new"].iter().any(|end| beside(end)) {
        return open_as(context, Engine::open_read_only);
    }
    open_as(context, |path, options| match Engine::open_with(path, options) {
        Err(e) if e.needs_to_write() || matches!(e, Error::KeyDenied { .. }) => {
            Engine::open_read_only(path, again)
        }
        opened => opened,
    })
}

fn open_as(
    context: &Context<'_, '_>,
    open: impl FnOnce(&Path, packmule::Options) -> packmule::Result<Engine>,
) -> Result<Engine, Failure> {
    let path = context.args.path(0);
    let init = format!("packmule init {}", quoted(path));
    if let Ok(found) = path.metadata()
        && !found.is_file()
    {
        let is = if found.is_dir() { "a directory" } else { "no plain file" };
        return Err(Failure::of(path, format!("is {is}, and should be a database file")));
    }
    match sources::kind(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let none = format!("there is no such file; `{init}` would make it a device");
            return Err(Failure::of(path, none).coded(Error::io_code(&e)));
        }
        Err(e) => return Err(Failure::io(path, "read it", &e)),
        Ok(Kind::Bundle) => {
            return Err(Failure::of(path, "is a bundle, not a database: the database comes first"));
        }
        Ok(_) => {}
    }
    let engine = open(path, options(context)?).map_err(|e| Failure::engine(path, path, e))?;
    if context.out.verbose {
        tell_opened(context, &engine)?;
    }
    Ok(engine)
}

/// Says what was opened, and with which budgets.
fn tell_opened(context: &Context<'_, '_>, engine: &Engine) -> Result<(), Failure> {
    let (board, identity, path) = (profile(context)?, engine.identity(), shown(context.args.path(0)));
    let what = if identity.base { "base" } else { "device" };
    let name = label(identity.id, Some(&identity.name));
    let (cache, window) = (board.memory.cache_kib, size(board.memory.window_bytes.into()));
    tell!(context.out, "{path}: opened: the {what} {name}");
    tell!(context.out, "  budgets of {}: page cache {cache} KiB, {window} applied at a time", board.name);
    Ok(())
}

/// Returns what makes a failure of the engine's error about the database.
fn of_db(path: &Path) -> impl Fn(Error) -> Failure + use<'_> {
    move |error| Failure::engine(path, path, error)
}
