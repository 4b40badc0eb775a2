//! How much memory each command takes at its highest, beside SQLite's page cache and what the program itself is: 1 MiB,
//! whatever the size of a BLOB or the number of conflicts.
//!
//! The C library's allocator is counted, so that all of the program is in it, SQLite too. `PACKMULE_CONFLICTS=N` says how
//! many conflicts are open, `PACKMULE_BLOB=N` how many bytes the BLOB has.

use super::faults_of_the_system::{Counts, System};
use super::skips;
use super::support::{Desk, PACKMULE, not_forgotten};

/// The page cache of the program's own board.
const CACHE: u64 = 4 << 20;

/// What a command may take beside it: 1 MiB; and what the program takes that only lists its devices, with a coder of frames.
const ALLOWED: u64 = (1 << 20) + (768 << 10);

/// What was run, and what took too much.
#[derive(Default)]
struct Played {
    lines: Vec<String>,
    wrong: Vec<String>,
}

impl Played {
    fn took(&mut self, line: &str, bytes: u64) {
        println!("{:>6} KiB  {line}", bytes >> 10);
        self.lines.push(line.to_owned());
        if bytes > CACHE + ALLOWED {
            self.wrong.push(format!("{line}: {} KiB", bytes >> 10));
        }
    }

    /// Runs these.
    fn all_within(&mut self, system: &System, desk: &Desk, lines: &[&str]) {
        for line in lines {
            let (ran, counts) = system.counted(desk, line);
            assert_eq!(ran.status, Some(0), "packmule {line}: {}{}", ran.out, ran.err);
            self.took(line, counts.most_bytes);
        }
    }

    /// Both ends of a session, through a pipe.
    fn session(&mut self, system: &System, desk: &Desk) {
        let served = desk.path("served");
        let end = format!("FAULT_COUNTS={} exec {PACKMULE} serve south.db --stdio", served.display());
        desk.script("end", &end);
        self.all_within(system, desk, &["sync north.db exec:./end"]);
        self.took("serve south.db --stdio", Counts::read(&served).most_bytes);
    }
}

/// The commands that are not tried here, and why.
const NOT_HERE: [(&str, &str); 7] = [
    ("run", "it does not end; what it does is sync, exchange, compact and prune"),
    ("decide", "it shows programs what `conflicts` shows, and does what `resolve` does"),
    ("find", "it reads no rows"),
    ("board", "it reads no database"),
    ("completions", "it reads no database"),
    ("man", "it reads no database"),
    ("demo", "it runs commands that are here, on a few rows"),
];

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
const DO: [&str; 17] = [
    "export north.db sealed.pmb --encrypt-to north south",
    "prune north.db log --rows 1",
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

/// Who takes part, and what a table is, at the end: the name of a device, or that it is gone, travels with all else.
const CHANGE: [&str; 11] = [
    "fleet new other.key",
    "fleet rotate fleet.key rotated.key",
    "init asks.db --name asks",
    "export asks.db asks.pmb",
    "admit asks.pmb --fleet fleet.key",
    "trust north.db asks.pmb",
    "schema north.db add-column photos extra TEXT",
    "rename south.db mast",
    "retire north.db south --fleet fleet.key",
    "revoke north.db asks --fleet fleet.key",
    "untrack north.db photos",
];

/// Two boards that write under the same keys; then all that people do with it.
fn play(system: &System, rows: &str, played: &mut Played) {
    let desk = Desk::new();
    desk.run("fleet new fleet.key").ok();
    std::fs::create_dir(desk.path("card")).unwrap();
    for name in ["north", "south"] {
        let db = format!("{name}.db");
        desk.run(&format!("init {db} --name {name} --fleet fleet.key")).ok();
        desk.sql(
            &db,
            "CREATE TABLE photos (id INTEGER PRIMARY KEY, note TEXT, jpeg BLOB);
             CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, jpeg BLOB)",
        );
    }
    let track = [
        "track north.db photos",
        "track south.db photos",
        "track north.db log --mode per-device --append",
        "track south.db log --mode per-device --append",
    ];
    played.all_within(system, &desk, &track);
    for name in ["north", "south"] {
        let db = format!("{name}.db");
        desk.sql(&db, &rows.replace("NAME", name));
        desk.sql(&db, "INSERT INTO log (jpeg) SELECT jpeg FROM photos");
        // A row whose old version a frame has room for.
        desk.sql(&db, &format!("INSERT INTO photos VALUES (0, '{name}', NULL)"));
    }
    let carry = [
        "seal north.db",
        "seal south.db",
        "export north.db north.pmb",
        "export south.db south.pmb",
        "import north.db south.pmb",
        "import south.db north.pmb",
    ];
    played.all_within(system, &desk, &carry);
    played.all_within(system, &desk, &LOOK);
    let written = desk.run("log north.db photos 0 --by north --json").json();
    let frame = &written["groups"][0]["frames"][0];
    played.all_within(system, &desk, &[&format!("restore south.db photos 0 --from north:{frame}")]);
    played.session(system, &desk);
    played.all_within(system, &desk, &DO);
    played.all_within(system, &desk, &CHANGE);
}

#[test]
fn memory_follows_neither_a_blob_nor_the_number_of_conflicts() {
    let system = match System::new() {
        Ok(system) => system,
        Err(why) => return skips::skip("memory of every command", &why),
    };
    let conflicts = std::env::var("PACKMULE_CONFLICTS").map_or(1_000, |n| n.parse::<u32>().unwrap());
    let blob = std::env::var("PACKMULE_BLOB").map_or(4_000_000, |n| n.parse::<u32>().unwrap());
    let mut played = Played::default();
    play(&system, &format!("INSERT INTO photos VALUES (1, 'NAME', randomblob({blob}))"), &mut played);
    let rows = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {conflicts})
         INSERT INTO photos SELECT i, 'NAME ' || i, randomblob(100) FROM n"
    );
    play(&system, &rows, &mut played);
    let Played { lines, wrong } = played;
    not_forgotten(&lines, &NOT_HERE);
    assert!(wrong.is_empty(), "more than {} KiB:\n{}", (CACHE + ALLOWED) >> 10, wrong.join("\n"));
}
