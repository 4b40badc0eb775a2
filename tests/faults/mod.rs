//! The program with a system that fails: `system.c` beside this, loaded before the C library.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Desk, Ran};

/// How many calls there were that write, that read, that allocate; and the most bytes that were allocated at once.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub writes: u64,
    pub reads: u64,
    pub allocations: u64,
    pub most_bytes: u64,
}

impl Counts {
    /// Reads what a process has told at its end.
    pub fn read(file: &Path) -> Self {
        let told = std::fs::read_to_string(file).unwrap();
        let numbers: Vec<u64> = told.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [writes, reads, allocations, most_bytes] = numbers[..] else { panic!("{told}") };
        Self { writes, reads, allocations, most_bytes }
    }
}

pub struct System {
    dir: tempfile::TempDir,
}

impl System {
    /// Compiles it; `Err` says why that cannot be done here.
    pub fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/faults/system.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(dir.path().join("system.so")).arg(source).arg("-ldl");
        match cc.output() {
            Ok(ran) if ran.status.success() => Ok(Self { dir }),
            Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
            Err(e) => Err(format!("cc: {e}")),
        }
    }

    fn counts(&self) -> PathBuf {
        self.dir.path().join("counts")
    }

    fn command(&self, desk: &Desk, line: &str) -> Command {
        let mut command = desk.command(&line.split(' ').collect::<Vec<_>>());
        command.env("LD_PRELOAD", self.dir.path().join("system.so")).stdin(Stdio::null());
        command
    }

    /// Makes a command for which no name server answers, and says where a file is made as soon as it asks for a name.
    pub fn without_names(&self, desk: &Desk, line: &str) -> (Command, PathBuf) {
        let mut command = self.command(desk, line);
        let asked = desk.path("asked");
        command.env("FAULT", "names").env("FAULT_AT", "0").env("FAULT_COUNTS", &asked);
        (command, asked)
    }

    /// Runs a command to its end, and counts.
    pub fn counted(&self, desk: &Desk, line: &str) -> (Ran, Counts) {
        let mut command = self.command(desk, line);
        let output = command.env("FAULT_COUNTS", self.counts()).output().unwrap();
        (Ran::of(output, &[line]), Counts::read(&self.counts()))
    }

    /// Runs a command with one fault.
    pub fn failing(&self, desk: &Desk, line: &str, kind: &str, at: u64) -> Ran {
        let mut command = self.command(desk, line);
        command.env("FAULT", kind).env("FAULT_AT", at.to_string());
        Ran::of(command.output().unwrap(), &[line])
    }
}
