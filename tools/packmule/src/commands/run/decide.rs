//! Programs that decide about conflicts, asked once in a while: by a process of its own, so that whatever they leave behind
//! is theirs, and no link's.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use packmule::Engine;
use packmule::carry::Stop;
use serde_json::Value;

use super::super::decide::is_one_undecided;
use crate::files::config::{Chore, Config, Upkeep};
use crate::files::programs::file_of;
use crate::text::io_text;

/// How often they are asked, where the file says nothing.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether they are done.
const LOOK: Duration = Duration::from_millis(50);

/// Adds the chore where programs are named and the file does not say how often they are asked.
pub fn add_chore(config: &mut Config, db: &Path) {
    let is_said = config.upkeep.iter().any(|upkeep| matches!(upkeep.what, Chore::Decide));
    if !is_said && file_of(db).exists() {
        config.upkeep.push(Upkeep { what: Chore::Decide, every: EVERY });
    }
}

/// Has them decide, if there is anything to be decided. Returns what became of it, in words.
pub fn decided(db: &Path, engine: &mut Engine, stop: &Stop) -> Result<String, String> {
    if !is_one_undecided(db, engine)? {
        return Ok("nothing is to be decided".into());
    }
    let failed = |e: std::io::Error| format!("no program could be asked: {}", io_text(&e));
    // An upgrade may have put another program in the place of this one.
    let mut command = match cfg!(target_os = "linux") {
        true => Command::new("/proc/self/exe"),
        false => Command::new(std::env::current_exe().map_err(failed)?),
    };
    std::os::unix::process::CommandExt::arg0(&mut command, "packmule");
    command.arg("decide").arg(db).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut asks = command.stderr(Stdio::null()).spawn().map_err(failed)?;
    let said = asks.stdout.take().map(|mut from| {
        thread::spawn(move || {
            let mut said = String::new();
            from.read_to_string(&mut said).map(|_| said)
        })
    });
    while asks.try_wait().map_err(failed)?.is_none() {
        if stop.stopped() {
            // It ends the program that it asks.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&asks),
                rustix::process::Signal::TERM,
            );
        }
        thread::sleep(LOOK);
    }
    let said = said.and_then(|said| said.join().ok()?.ok()).unwrap_or_default();
    let document: Value = serde_json::from_str(&said).unwrap_or_default();
    let words: Vec<&str> =
        document["text"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match document["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None if document.is_null() => Err("the command that asks programs ended without a word".into()),
        None => Ok(words.join("\n")),
    }
}
