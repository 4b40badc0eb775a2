//! A line that changes bytes: `sync` ends at both ends, and says what the line does and what to do about it.

use std::process::Stdio;

use crate::line::{cable, ended};
use crate::support::{Desk, has, unfolded};

/// What a line makes of a byte, and what is said of it.
type Line = (fn(u8) -> Vec<u8>, &'static str);

const LINES: [Line; 3] = [
    (|byte| if byte == 0x11 || byte == 0x13 { vec![] } else { vec![byte] }, "swallows XON and XOFF"),
    (|byte| if byte == b'\n' { vec![b'\r', b'\n'] } else { vec![byte] }, "changes CR and LF"),
    (|byte| vec![byte & 0x7f], "7 bits to a byte"),
];

#[test]
fn a_line_that_changes_bytes_is_named_and_nobody_waits_for_ever() {
    std::thread::scope(|scope| LINES.iter().for_each(|line| drop(scope.spawn(|| is_named(*line)))));
}

fn is_named((becomes, said): Line) {
    let desk = Desk::fleet(&["north"]);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
                INSERT INTO settings SELECT i, randomblob(40), NULL FROM n";
    desk.carry("north", "base");
    desk.sql("north.db", rows);
    desk.sql("base.db", &rows.replace("SELECT i,", "SELECT 1000 + i,"));
    let cable = cable(&desk);
    cable.change(becomes);
    let begun = [0, 1].map(|at| {
        let end = cable.ends[at].to_str().unwrap();
        let db = ["north.db", "base.db"][at];
        let mut command =
            desk.command(&["sync", db, "--baud", "115200", "--patience", "24", "--serial", end]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let ran = begun.map(ended);
    let all = ran.iter().map(|ran| unfolded(&ran.err)).collect::<String>();
    assert!(ran.iter().all(|ran| ran.status == Some(1)), "{said}: {all}");
    has(&all, &[said]);
    for db in ["north.db", "base.db"] {
        desk.run(&format!("status {db}")).ok();
        desk.run(&format!("verify {db}")).ok();
    }
}
