//! A program that runs beside the test, and whose lines are read as they come.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A limit that only ends a test that hangs.
pub const LONG: Duration = Duration::from_secs(300);

/// One that runs; it outlives no test.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Program {
    /// Begins it.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        // All that it prints is taken, also where nobody waits for it.
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    /// Its next line.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(LONG).unwrap_or_else(|e| panic!("{e}, after {:#?}", self.said));
        self.said.push(line.clone());
        line
    }

    /// Waits for a document that is meant.
    #[track_caller]
    pub fn wait_for(&mut self, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let said = serde_json::from_str(&self.line()).unwrap();
            if is_it(&said) {
                return said;
            }
        }
    }

    /// Waits for an event.
    #[track_caller]
    pub fn wait(&mut self, event: &str) -> Value {
        self.wait_for(|said| said["event"] == event)
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by a signal; its status.
    pub fn ended_by(self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.ended()
    }

    /// Waits for its end; its status.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ends it as systemd does.
    pub fn end(self) {
        assert_eq!(self.ended_by(Signal::TERM), Some(0));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until it is so.
#[track_caller]
pub fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it never is so");
    }
}
