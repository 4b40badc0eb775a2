//! How much memory each command takes at its highest, beside SQLite's page cache and what the program itself is: 1 MiB,
//! whatever the size of a BLOB or the number of conflicts.
//!
//! The C library's allocator is counted, so that all of the program is in it, SQLite too. `PACKMULE_CONFLICTS=N` says how
//! many conflicts are open, `PACKMULE_BLOB=N` how many bytes the BLOB has.

use super::faults_of_the_system::System;
use super::skips;
use super::support::Desk;

/// The page cache of the program's own board.
const CACHE: u64 = 4 << 20;

/// What a command may take beside it: 1 MiB; and what the program takes that only lists its devices, with a coder of frames.
const ALLOWED: u64 = (1 << 20) + (768 << 10);

/// Runs these, and tells which took too much.
fn all_within(system: &System, desk: &Desk, lines: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in lines {
        let (ran, counts) = system.counted(desk, line);
        println!("{:>6} KiB  {line}", counts.most_bytes >> 10);
        assert_eq!(ran.status, Some(0), "packmule {line}: {}{}", ran.out, ran.err);
        if counts.most_bytes > CACHE + ALLOWED {
            wrong.push(format!("{line}: {} KiB", counts.most_bytes >> 10));
        }
    }
    wrong
}

const LOOK: [&str; 13] = [
    "status north.db",
    "devices north.db",
    "conflicts north.db",
    "conflicts north.db --json",
    "log north.db",
    "log north.db --values",
    "log north.db --values --json",
    "digest north.db",
    "verify north.db",
    "report north.db north.html",
    "inspect south.pmb",
    "verify south.pmb",
    "at north.db 2099-01-01 then.db",
];

/// What is done about conflicts, and after that.
const DO: [&str; 16] = [
    "export north.db sealed.pmb --encrypt-to north south",
    "import south.db sealed.pmb",
    "resolve north.db --all --take newest --dry-run",
    "resolve north.db --all --take newest",
    "exchange north.db card",
    "exchange south.db card --encrypt",
    "exchange north.db card --encrypt",
    "merge south.db north.db",
    "undo north.db --by south --since 2020-01-01 --dry-run",
    "compact north.db",
    "compact south.db",
    "snapshot north.db north.pms",
    "join east.db north.pms --name east --fleet fleet.key",
    "export north.db state.pmb",
    "init west.db --name west --fleet fleet.key",
    "import west.db state.pmb",
];

/// Two boards that write under the same keys; then all that people do with it.
fn play(system: &System, rows: &str) -> Vec<String> {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    std::fs::create_dir(desk.path("card")).unwrap();
    for name in ["north", "south"] {
        let db = format!("{name}.db");
        desk.run(&format!("init {db} --name {name} --fleet fleet.key")).ok();
        desk.sql(&db, "CREATE TABLE photos (id INTEGER PRIMARY KEY, note TEXT, jpeg BLOB)");
    }
    let mut wrong = all_within(system, &desk, &["track north.db photos", "track south.db photos"]);
    for name in ["north", "south"] {
        desk.sql(&format!("{name}.db"), &rows.replace("NAME", name));
    }
    let carry = [
        "seal north.db",
        "seal south.db",
        "export north.db north.pmb",
        "export south.db south.pmb",
        "import north.db south.pmb",
        "import south.db north.pmb",
    ];
    wrong.extend(all_within(system, &desk, &carry));
    wrong.extend(all_within(system, &desk, &LOOK));
    wrong.extend(all_within(system, &desk, &DO));
    wrong
}

#[test]
fn memory_follows_neither_a_blob_nor_the_number_of_conflicts() {
    let system = match System::new() {
        Ok(system) => system,
        Err(why) => return skips::skip("memory of every command", &why),
    };
    let conflicts = std::env::var("PACKMULE_CONFLICTS").map_or(1_000, |n| n.parse::<u32>().unwrap());
    let blob = std::env::var("PACKMULE_BLOB").map_or(4_000_000, |n| n.parse::<u32>().unwrap());
    let mut wrong = play(&system, &format!("INSERT INTO photos VALUES (1, 'NAME', randomblob({blob}))"));
    wrong.extend(play(
        &system,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {conflicts})
             INSERT INTO photos SELECT i, 'NAME ' || i, randomblob(100) FROM n"
        ),
    ));
    assert!(wrong.is_empty(), "more than {} KiB:\n{}", (CACHE + ALLOWED) >> 10, wrong.join("\n"));
}
