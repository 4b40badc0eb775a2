//! What the figures were measured on.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::time::{median, timed};

/// Returns lines that say what machine, disk and versions these are.
pub fn describe(dir: &Path) -> Vec<(&'static str, String)> {
    let line: Vec<String> = std::env::args().skip(1).collect();
    let mut facts = vec![("command", format!("packmule-bench {}", line.join(" ")).trim_end().to_owned())];
    let mut fact = |what, value: Option<String>| facts.extend(value.map(|value| (what, value)));
    fact("date", run("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    fact("processor", processor());
    fact("system", run("uname", &["-srm"]));
    fact("load before the run", load());
    fact("disk", disk(dir));
    fact("packmule", Some(version()));
    fact("SQLite", Some(rusqlite::version().to_owned()));
    fact("compiler", run("rustc", &["--version"]));
    if cfg!(debug_assertions) {
        fact("NOT A RELEASE BUILD", Some("the figures say nothing".into()));
    }
    facts
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn version() -> String {
    let commit = run("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    format!("{} {}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default())
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = text.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    Some(format!("{}, {cores} cores", model.unwrap_or("unknown")))
}

fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(|l| format!("{l} (one minute)"))
}

/// Returns the file system of a folder.
pub fn file_system(dir: &Path) -> Option<String> {
    run("stat", &["-f", "-c", "%T", dir.to_str()?])
}

fn disk(dir: &Path) -> Option<String> {
    let write = || -> std::io::Result<f64> {
        let mut file = tempfile::tempfile_in(dir)?;
        let mut took = Vec::new();
        for _ in 0..50 {
            let (sample, done) = timed(|| file.write_all(&[1; 4096]).and_then(|()| file.sync_data()));
            done?;
            took.push(sample.wall * 1e3);
        }
        Ok(median(took))
    };
    let sync = write().map_or_else(|e| e.to_string(), |ms| format!("{ms:.2} ms"));
    Some(format!(
        "{} ({}); 4 KiB written and synced: {sync}",
        dir.display(),
        file_system(dir).unwrap_or_default()
    ))
}
