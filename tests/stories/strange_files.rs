//! Database files that somebody has prepared: what has a name of ours in them goes on for ever, or is of any size. They are
//! refused at once; the honest ones beside them come in.

use crate::support::{Desk, Ran, has};

/// A base, an honest board, and a copy of its file without its key in which one thing is strange.
fn desk(strange: &str) -> Desk {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    desk.run("init base.db --name base --fleet fleet.key --base").ok();
    desk.run("init north.db --name north --fleet fleet.key").ok();
    desk.sql("north.db", "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)");
    desk.run("track north.db t").ok();
    desk.sql("north.db", "INSERT INTO t VALUES (1, 'one')");
    desk.run("seal north.db").ok();
    let copy = desk.path("strange.db");
    desk.sql("north.db", &format!("VACUUM INTO '{}'", copy.display()));
    desk.sql("strange.db", strange);
    desk
}

/// Runs `packmule` with so much of time and memory that who reads on for ever comes to an end.
fn limited(desk: &Desk, line: &str) -> Ran {
    desk.run_within(&["-t 20", "-v 262144"], line)
}

#[test]
fn what_has_our_names_and_is_no_plain_table_is_refused_at_once() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for strange in [
        format!("DROP TABLE _pm_frame; CREATE VIEW _pm_frame AS {endless} SELECT i AS dev, 0 AS stream, i AS seq, x'' AS body FROM n"),
        format!("DROP TABLE _pm_device; CREATE VIEW _pm_device AS {endless} SELECT * FROM n"),
        "DROP TABLE _pm_notice; CREATE VIEW _pm_notice AS SELECT printf('%.*c', 900000000, 'x') AS what, 0 AS wall, 1 AS count".into(),
        "DROP TABLE _pm_meta; CREATE VIEW _pm_meta AS SELECT 'layout' AS k, 3 AS v".into(),
        "ALTER TABLE _pm_group ADD COLUMN more AS (zeroblob(900000000))".into(),
    ] {
        let desk = desk(&strange);
        for command in ["status", "verify", "digest", "conflicts", "devices", "log"] {
            let said = limited(&desk, &format!("{command} strange.db")).refused("strange.db");
            has(&said, &["is not a plain table"]);
        }
        let merged = limited(&desk, "merge base.db strange.db");
        assert_eq!(merged.status, Some(1), "{}{}", merged.out, merged.err);
        has(&merged.err, &["strange.db", "is not a plain table"]);
        // The honest one comes in all the same.
        desk.run("merge base.db north.db").ok();
        desk.run("status base.db").ok();
    }
}

#[test]
fn a_database_without_its_key_is_only_read() {
    let desk = desk("PRAGMA journal_mode = DELETE");
    let before = std::fs::read(desk.path("strange.db")).unwrap();
    for command in ["status", "verify", "digest", "conflicts", "devices", "log"] {
        desk.run(&format!("{command} strange.db")).ok();
    }
    assert_eq!(std::fs::read(desk.path("strange.db")).unwrap(), before);
}

#[test]
fn status_tells_a_journal_mode_that_is_not_wal() {
    let desk = desk("SELECT 1");
    assert!(!desk.run("status north.db").ok().contains("journal"));
    desk.sql("north.db", "PRAGMA journal_mode = DELETE");
    has(&desk.run("status north.db").ok(), &["journal", "delete, not WAL"]);
    assert_eq!(desk.run("status north.db --json").json()["journal_mode"], "delete");
}
