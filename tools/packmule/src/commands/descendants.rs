//! What a program has started, also where that has left its process group (`setsid`, a daemon): found among this program's
//! own children, which it becomes when what has started it is gone.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

/// How long is waited for what was killed to be gone: one that hangs in the system is so later.
const TIME: Duration = Duration::from_secs(1);

/// Makes descendants whose parents are gone this program's children from now on. Returns which it has.
pub fn adopt() -> Vec<i32> {
    let _ = set_child_subreaper(Some(getpid()));
    children()
}

/// Kills all children but these, and what becomes one by that, until none is left.
pub fn end(others: &[i32]) {
    let until = Instant::now() + TIME;
    let mut none = 0;
    // One look is not enough: what has ended while it lasts leaves children that were passed over.
    while none < 2 && Instant::now() < until {
        let mut left = children();
        left.retain(|pid| !others.contains(pid));
        for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        none = if left.is_empty() { none + 1 } else { 0 };
        if none == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lists the children that have not ended.
fn children() -> Vec<i32> {
    let me = getpid().as_raw_nonzero().get();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let child = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        is_child_of(&String::from_utf8_lossy(&stat), me).then_some(pid)
    };
    all.filter_map(child).collect()
}

/// Reads a line of `/proc/PID/stat`. The program's name in it can have brackets and spaces.
fn is_child_of(stat: &str, parent: i32) -> bool {
    let mut words = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let ended = words.next().is_none_or(|state| ["Z", "X"].contains(&state));
    !ended && words.next().and_then(|word| word.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_one_that_has_ended() {
        assert!(is_child_of("12 (a) b) S 7 12 12 0", 7));
        assert!(!is_child_of("12 (a) S 8) S 7 12 12 0", 8));
        assert!(!is_child_of("12 (a) Z 7 12 12 0", 7));
        assert!(!is_child_of("", 7));
    }
}
