//! Programs that decide about conflicts by themselves: `track --policy custom=COMMAND`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use packmule::{Answer, CarriedOut, Conflict, Engine};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[cfg(target_os = "linux")]
use super::descendants;
use super::{Context, of_db, open, say_either};
use crate::documents::{DecidedByPrograms, OwnError};
use crate::files::programs::{Programs, file_of};
use crate::output::{Failure, Out, code, engine_text, say};
use crate::text::{paragraph, plural, quoted, shown};

/// How long a program may take for one conflict.
const TIME: Duration = Duration::from_secs(10);

/// How long is waited for what a program that failed says is wrong.
const SAID: Duration = Duration::from_secs(1);

/// How many bytes of a program's output are read: of a decision, and of what it says is wrong.
const MOST: u64 = 65_536;

/// After so many failures in a row the rest is left to the next run.
const FAILURES: u32 = 3;

/// What a program's environment has of this one's.
const KEPT: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// How many reasons are told of decisions that were not carried out.
const REASONS: usize = 3;

/// The program that is asked at the moment: whatever ends this one ends it.
static ASKED: Mutex<Option<Asked>> = Mutex::new(None);

/// A program that is asked.
struct Asked {
    program: u32,
    /// Which of this one's children have nothing to do with it.
    others: Vec<i32>,
}

/// Who has decided.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// Applications, in SQL.
    Sql,
    /// Programs.
    Programs,
}

/// Returns what became of decisions, in words.
pub(super) fn outcome(carried: &CarriedOut, by: By, db: &Path) -> Vec<String> {
    let mut said = Vec::new();
    if carried.closed > 0 {
        let closed = plural(carried.closed, "conflict is closed", "conflicts are closed");
        let by = match by {
            By::Sql => "applications decided in SQL",
            By::Programs => "a program decided",
        };
        said.push(format!("{closed}, as {by}"));
    }
    if carried.refused > 0 {
        let [one, many] = match by {
            By::Sql => ["decision in SQL is refused", "decisions in SQL are refused"],
            By::Programs => {
                ["conflict is left to a person by a program", "conflicts are left to a person by a program"]
            }
        };
        let refused = plural(carried.refused, one, many);
        said.push(format!("{refused}; `packmule conflicts {}` shows why", quoted(db)));
        said.extend(carried.reasons.iter().take(REASONS).map(|(id, reason)| format!("  {id}: {reason}")));
    }
    said
}

/// What programs have decided.
#[derive(Default)]
struct Decided {
    done: CarriedOut,
    /// At how many conflicts one has failed.
    failed: u64,
    /// Why it failed first.
    why: Option<String>,
    /// All of it in words.
    said: Vec<String>,
}

/// Has the programs decide that `track` was told of, after every command that takes in. Nothing that goes wrong with them is a
/// failure of the command.
pub(super) fn decide_by_programs(context: &mut Context<'_, '_>, engine: &mut Engine) {
    let decided = decided_by_programs(context.args.path(0), engine);
    decided.said.iter().for_each(|line| say_either(context, line, Out::line));
}

/// `packmule decide`: nothing but that.
pub fn decide(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    let mut engine = open(context)?;
    if programs(&path, &engine).is_ok_and(|programs| programs.tables.is_empty()) {
        let db = quoted(&path);
        let names =
            format!("no program decides here: `packmule track {db} TABLE --policy custom=COMMAND` names one");
        return Err(Failure::of(&path, names));
    }
    let decided = decided_by_programs(&path, &mut engine);
    let conflicts_open = engine.open_conflicts().map_err(of_db(&path))?;
    let out = &mut *context.out;
    out.document(&DecidedByPrograms {
        closed: decided.done.closed,
        left: decided.done.refused,
        failed: decided.failed,
        text: &decided.said,
        conflicts_open,
        error: decided.why.clone().map_or(OwnError::NONE, |why| OwnError::of(why, code::PROBLEMS_FOUND)),
    });
    decided.said.iter().for_each(|line| say!(out, "{}", paragraph(line, 0, 2)));
    if decided.said.is_empty() {
        say!(out, "{}: no conflict is open that a program has not been asked about", shown(&path));
    }
    decided.why.map_or(Ok(()), |why| Err(Failure::reported(why)))
}

/// Returns whether there is a conflict that a program is to be asked about.
pub(super) fn is_one_undecided(db: &Path, engine: &mut Engine) -> Result<bool, String> {
    let programs = programs(db, engine)?;
    let tables: Vec<&str> = programs.tables.keys().map(String::as_str).collect();
    let mut found = false;
    let looked = engine.decide_with(&tables, &mut |_| {
        found = true;
        Answer::Stop
    });
    looked.map(|_| found).map_err(|error| engine_text(db, db, &error))
}

/// Reads which programs decide here.
fn programs(db: &Path, engine: &Engine) -> Result<Programs, String> {
    let own = engine.identity().id.to_string();
    Programs::read(db, &own).map_err(|why| format!("{} is not used: {why}", shown(&file_of(db))))
}

/// Does that; what there is to say of it.
fn decided_by_programs(db: &Path, engine: &mut Engine) -> Decided {
    let none =
        |why: String| Decided { said: vec![format!("note: {why}")], why: Some(why), ..Decided::default() };
    let programs = match programs(db, engine) {
        Ok(programs) if programs.tables.is_empty() => return Decided::default(),
        Ok(programs) => programs,
        Err(why) => return none(why),
    };
    if let Err(why) = end_with_this() {
        return none(format!("no program could decide: {why}"));
    }
    let tables: Vec<&str> = programs.tables.keys().map(String::as_str).collect();
    let (mut in_a_row, mut failed, mut first) = (0, 0, None);
    let done = engine.decide_with(&tables, &mut |conflict| {
        let command = programs.tables.get(&conflict.table.to_ascii_lowercase());
        let Some(command) = command.filter(|_| in_a_row < FAILURES) else { return Answer::Stop };
        match ask(command, db, conflict) {
            Ok(document) => {
                in_a_row = 0;
                Answer::Decided(document)
            }
            Err(why) => {
                (in_a_row, failed) = (in_a_row + 1, failed + 1);
                let reason = format!("the program that decides about `{}` failed: {why}", conflict.table);
                first.get_or_insert_with(|| reason.clone());
                Answer::Failed(reason)
            }
        }
    });
    let mut decided = match done {
        Ok(done) => Decided { said: outcome(&done, By::Programs, db), done, ..Decided::default() },
        Err(error) => none(format!("no program could decide: {}", engine_text(db, db, &error))),
    };
    if let Some(first) = first {
        let open = plural(failed, "conflict stays open", "conflicts stay open");
        let rest = if in_a_row < FAILURES { "" } else { "; the rest is left to the next run" };
        decided.said.push(format!("{open}: {first}{rest}"));
        (decided.failed, decided.why) = (failed, decided.why.or(Some(first)));
    }
    decided
}

/// Asks a program about a conflict: its decision, as it printed it, or why there is none.
fn ask(command: &str, db: &Path, conflict: &Conflict) -> Result<String, String> {
    let document = serde_json::to_string(conflict).map_err(|e| e.to_string())?;
    let db = db.canonicalize().map_err(|e| e.to_string())?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    shell.env("PACKMULE_DB", &db).env("PACKMULE_TABLE", &conflict.table);
    if let Some(folder) = db.parent() {
        shell.current_dir(folder);
    }
    let mut child = started(&mut shell)?;
    let (out, err) = (reading(child.stdout.take(), false), reading(child.stderr.take(), true));
    let to = child.stdin.take();
    // Who has decided need not have read all; a program that reads nothing is waited for no longer than others.
    thread::spawn(move || to.map(|mut to| to.write_all(document.as_bytes())));
    let until = Instant::now() + TIME;
    let answered = out.recv_timeout(TIME);
    let ended = match &answered {
        Ok(text) if text.len() as u64 <= MOST => wait(&mut child, until),
        _ => None,
    };
    let is_gone = matches!(child.try_wait(), Ok(Some(_)));
    let asked = asked().take();
    if let (None, Some(asked)) = (ended, asked) {
        kill(&asked);
        let _ = child.wait();
    }
    // What it has left running may hold that open.
    let said = || {
        let said = err.recv_timeout(SAID).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.next().map_or_else(String::new, |line| format!(": {line}"))
    };
    match (answered, ended) {
        (Ok(text), Some(status)) if status.success() && text.trim_ascii().is_empty() => {
            Err(format!("it printed nothing{}", said()))
        }
        (Ok(text), Some(status)) if status.success() => {
            String::from_utf8(text).map_err(|_| "it printed what is not UTF-8".to_owned())
        }
        (Ok(text), None) if text.len() as u64 > MOST => Err(format!("it printed more than {MOST} bytes")),
        (_, Some(status)) => Err(format!("it ended with {status}{}", said())),
        (Err(_), None) if is_gone => Err(format!(
            "it ended, and what it had started held its output open for more than {} seconds",
            TIME.as_secs()
        )),
        _ => Err(format!("it took more than {} seconds{}", TIME.as_secs(), said())),
    }
}

fn asked() -> std::sync::MutexGuard<'static, Option<Asked>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program, in a group of its own, so that all that it starts ends with it.
fn started(shell: &mut Command) -> Result<Child, String> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(shell, 0);
    // No signal comes between.
    let mut asked = asked();
    #[cfg(target_os = "linux")]
    let others = descendants::adopt();
    #[cfg(not(target_os = "linux"))]
    let others = Vec::new();
    let child = shell.spawn().map_err(|e| format!("it could not be started: {e}"))?;
    *asked = Some(Asked { program: child.id(), others });
    Ok(child)
}

/// Makes what ends this program end the one that is asked first: in its own group it would hear of nothing, and might stay for
/// ever.
fn end_with_this() -> Result<(), String> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|e| e.to_string())?;
    thread::spawn(move || {
        for signal in signals.forever() {
            // It is kept: nothing more is started.
            let asked = asked();
            asked.iter().for_each(kill);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Reads what comes, up to a byte more than may come. What comes after that is taken too, or not.
fn reading(from: Option<impl Read + Send + 'static>, takes_all: bool) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let (mut bytes, Some(mut from)) = (Vec::new(), from) else { return };
        let read = from.by_ref().take(MOST + 1).read_to_end(&mut bytes);
        if takes_all {
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        // Nobody waits for it any more.
        let _ = read.map(|_| send.send(bytes));
    });
    receive
}

/// Waits for a program that has closed its output.
fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}

/// Ends a program, and all that it has started.
fn kill(asked: &Asked) {
    if let Some(group) = i32::try_from(asked.program).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    #[cfg(target_os = "linux")]
    descendants::end(&asked.others);
}
