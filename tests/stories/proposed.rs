//! What messages propose: each command is printed here, where it is simple to come by, and run as it is printed. That no other
//! message proposes a command which no test runs, `usage/proposals.rs` of the program sees to.

use crate::support::proposals::run_in_copy;
use crate::support::{Desk, PACKMULE};

/// A fleet that disagrees about a row.
fn at_odds() -> (Desk, String) {
    let (desk, id) = Desk::conflict();
    desk.sql("base.db", "CREATE TABLE notes (id TEXT PRIMARY KEY, v); INSERT INTO notes VALUES ('a', 1)");
    (desk, id)
}

fn fingerprint(desk: &Desk, db: &str) -> String {
    desk.run(&format!("status {db} --json")).json()["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn what_closes_a_conflict() {
    let (desk, id) = at_odds();
    desk.run("status base.db")
        .proposes("conflicts    * open: `packmule conflicts *`")
        .proposes("packmule conflicts * --brief")
        .ok();
    desk.run("conflicts base.db")
        .proposes("packmule resolve * *")
        .proposes("packmule resolve * * --take *")
        .proposes_with("packmule resolve * * --set *", &[("VALUE", "45")])
        .proposes("packmule resolve * * --delete")
        .proposes("packmule resolve * * --keep-both")
        .ok();
    for (device, n) in [("north", 1), ("east", 2)] {
        desk.sql(&format!("{device}.db"), &format!("INSERT INTO settings VALUES ('another', {n}, '')"));
        desk.carry(device, "base");
    }
    desk.run("conflicts base.db --brief")
        .proposes("one of them whole: `packmule conflicts * *`")
        .proposes("packmule resolve * --kind * --take newest --dry-run")
        .ok();
    desk.sql("base.db", "INSERT INTO settings VALUES ('third', 3, '')");
    desk.run("conflicts base.db")
        .proposes("writes since the last seal are not taken into account: `packmule seal *`")
        .ok();
    let other = "resolve base.db ffffffff --delete";
    desk.run(other).proposes("; see `packmule conflicts *`").refused("base.db");
    desk.run(&format!("resolve base.db {id} --delete"))
        .proposes(" still open: `packmule conflicts *`")
        .proposes("to bring it back: `packmule resolve * --undo *`")
        .ok();
    desk.run(&format!("resolve base.db --undo {id}"))
        .proposes(": `packmule conflicts *` lists every version")
        .ok();
    desk.sql("base.db", "INSERT INTO packmule_conflicts (id, take) VALUES ('ffffffffff', 'newest')");
    desk.run("status base.db").proposes("decisions    * for the next `packmule seal *`").ok();
    desk.run("seal base.db").proposes("; `packmule conflicts *` shows why").ok();
}

#[test]
fn what_helps_a_device_that_is_new() {
    let (desk, _) = at_odds();
    let db = [("DB", "new.db")];
    desk.run("fleet new other.key")
        .proposes_with("next: `packmule init DB --fleet **` for each device", &db)
        .ok();
    desk.run("init new.db --fleet none.key")
        .proposes("there is no such file; `packmule fleet new *` makes a fleet key")
        .refused("none.key");
    desk.run("status new.db").proposes("packmule init *").refused("new.db");
    let made = "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT); CREATE TABLE notes (id TEXT PRIMARY KEY)";
    desk.sql("new.db", made);
    desk.run("status new.db").proposes(": run `packmule init *`").refused("new.db");
    let table = [("TABLE", "notes")];
    desk.run("init new.db --name new --fleet fleet.key")
        .proposes_with("next: `packmule track * TABLE` for each table that is to travel", &table)
        .ok();
    desk.run("status new.db").proposes_with("none is tracked: `packmule track * TABLE`", &table).ok();
    desk.run("seal new.db").proposes_with("no table is tracked yet: `packmule track * TABLE`", &table).ok();
    desk.run("log new.db notes").proposes(": `packmule track * *`").refused("new.db");
    desk.run("init --remove new.db").proposes("`packmule init --remove * --yes`").refused("new.db");
    desk.run("export north.db north.pmb").ok();
    desk.run("import new.db north.pmb").proposes("that is not here: `packmule status *` says which").ok();
    desk.sql("late.db", made);
    desk.run("snapshot base.db start.pms")
        .proposes_with("on the new device: `packmule join DB *`", &[("DB", "late.db")])
        .ok();
    desk.run("join late.db start.pms --name late --fleet fleet.key")
        .proposes("`packmule status *` says which")
        .ok();
}

#[test]
fn what_lets_a_stranger_in() {
    let (desk, _) = at_odds();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("init new.db --name new").ok();
    desk.run("export new.db new.pmb").ok();
    let key = [("FILE", "fleet.key"), ("DB", "base.db")];
    desk.run("import base.db new.pmb")
        .proposes_with("packmule admit * --fleet FILE", &key)
        .refused("new.pmb");
    let end = format!("exec:{PACKMULE} serve base.db --stdio");
    desk.run_words(&["sync", "new.db", &end]).proposes_with("packmule admit DB --fleet FILE --only *", &key);
    desk.run("exchange base.db card").ok();
    desk.run("exchange new.db card")
        .proposes_with("`packmule admit * --fleet FILE` answers", &key)
        .proposes("packmule trust * *")
        .ok();
    // Two without a fleet: one trusts the other, which does not.
    desk.run("init one.db --name one").ok();
    let trust = format!("trust one.db {}", fingerprint(&desk, "new.db"));
    desk.run(&trust).proposes("packmule revoke * *").ok();
    let end = format!("exec:{PACKMULE} serve new.db --stdio");
    let ran = desk.run_words(&["sync", "one.db", &end]);
    ran.proposes_with("packmule trust DB *", &[("DB", "new.db")]);
    desk.run("fleet rotate fleet.key next.key").proposes_with("packmule admit DB --fleet **", &key).ok();
}

#[test]
fn what_helps_with_a_device_that_is_away() {
    let (desk, _) = at_odds();
    desk.run("compact base.db")
        .proposes("which the log keeps until it is heard of, or `packmule retire * *`")
        .ok();
    desk.run("status base.db").proposes("packmule retire * *").ok();
    desk.run("export base.db a.pmb --for west")
        .proposes(": `packmule devices *` lists them")
        .refused("base.db");
    desk.run("retire base.db east").proposes("`packmule retire * * --undo`").ok();
    desk.run("retire base.db east --undo").ok();
    desk.run("retire base.db east --fleet fleet.key")
        .proposes("`packmule retire * * --undo --fleet **`")
        .ok();
    desk.run("revoke base.db north")
        .proposes("what others have of it stays; `packmule log * --by *` lists what it wrote")
        .proposes_with(
            "this holds here alone: for the whole fleet, `packmule revoke * * --fleet FILE`",
            &[("FILE", "fleet.key")],
        )
        .ok();
    // What it wrote after that is set aside.
    desk.sql("north.db", "UPDATE settings SET value = 666");
    desk.run("seal north.db").ok();
    desk.carry("north", "east");
    desk.carry("east", "base");
    desk.run("status base.db").proposes("packmule log * --by * --values").ok();
}

#[test]
fn what_helps_with_a_file_of_another_kind() {
    let (desk, _) = at_odds();
    desk.run("inspect base.db").proposes("`packmule status *` shows what is in it").refused("base.db");
    desk.run("import base.db north.db").proposes("packmule merge * *").refused("north.db");
    desk.sql("north.db", "UPDATE settings SET note = 'later'");
    desk.run("merge base.db north.db")
        .proposes("`packmule seal *` seals them, if that is the device itself and no copy of it")
        .ok();
    desk.run("status north.db").proposes("packmule seal *").ok();
    desk.sql("base.db", "DELETE FROM _pm_frame");
    desk.run("export base.db base.pmb")
        .proposes(": run `packmule verify *`, and keep a copy")
        .refused("base.db");
}

#[test]
fn what_helps_with_a_table_that_does_not_travel() {
    let desk = Desk::fleet(&["north"]);
    desk.sql(
        "north.db",
        "CREATE TABLE \"the pairs\" (a INTEGER, b TEXT, v, PRIMARY KEY (a, b)); INSERT INTO readings (value) VALUES (1), (2)",
    );
    desk.run_words(&["track", "north.db", "the pairs"]).ok();
    desk.run("seal north.db").ok();
    desk.sql("north.db", "INSERT INTO \"the pairs\" VALUES (1, NULL, 2); DELETE FROM readings WHERE id = 1");
    desk.run("seal north.db").ok();
    let status = desk
        .run("status north.db")
        .proposes("packmule track * ** --append --deletes carry")
        .proposes("sqlite3 * *")
        .ok();
    // Each is said once, with its command.
    assert_eq!((status.matches("stay").count(), status.matches("NULL in").count()), (1, 1), "{status}");
    let digest = desk.run("digest north.db").proposes("sqlite3 * *");
    assert_eq!((digest.out.trim().len(), digest.err.matches("NULL in").count()), (64, 1), "{}", digest.err);
    desk.sql("north.db", "ALTER TABLE settings RENAME TO choices");
    desk.run("digest north.db")
        .proposes(": `packmule seal *` takes that in; then do this again")
        .refused("north.db");
    desk.run("seal north.db").proposes(": `packmule untrack * *`").ok();
    desk.run("status north.db").proposes("packmule untrack * *").ok();
}

/// The control: a command that no machine takes is found to be wrong, whatever it would change.
#[test]
fn a_proposed_command_that_is_wrong_is_found() {
    let desk = Desk::fleet(&["north"]);
    for (right, wrong) in [
        (
            "systemctl daemon-reload && udevadm control --reload",
            "systemctl daemon-reload && udevadm control --relaod",
        ),
        ("systemctl stop packmule-serve packmule-run", "systemctl stop packmule-server"),
        ("systemctl enable --now packmule-serve", "systemctl enabel --now packmule-serve"),
        ("sudo usermod -aG dialout $USER", "sudo usermod -aG dialuot $USER"),
        ("sudo date --utc --set '2026-11-28 12:00'", "sudo date --utc --set 'YYYY-MM-DD hh:mm'"),
        ("sudo chown 1000 .", "sudo chown who-is-that ."),
        ("packmule board remove", "packmule board remvoe"),
    ] {
        let (good, said) = run_in_copy(&desk.path(""), right);
        assert!(good, "{right}: {said}");
        let (good, said) = run_in_copy(&desk.path(""), wrong);
        assert!(!good || said.ends_with("it is not run"), "{wrong}");
    }
}
