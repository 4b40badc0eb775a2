//! The page of conflicts, `src/docs/conflicts.md`: every kind is run on two boards, and what comes of
//! it is compared with the page. `PACKMULE_BLESS=1` writes the page again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;
use common::*;
use packmule::{
    ColumnMerge, Conflict, ConflictKind, DeviceInfo, Engine, Merge, Policy, Resolution, TrackOptions,
};
use std::fmt::Write;

const INTRO: &str = "Every kind of conflict by example, and what is none.

Each example shows what two boards `a` and `b` wrote without having heard of each other (`b` a second later),
what their tables show once they have exchanged bundles, what `packmule conflicts` lists, and how
`packmule resolve` closes it. Both boards show and list the same, unless a table says otherwise. What is
shown until somebody decides is never the only version that is kept.

Many are closed at once: `packmule resolve DB --table T --kind update/update --take newest`, in one transaction;
`--dry-run` says what would become of each row. `--take newest` is the version that was written last by its
author's clock, `--take shown` the one that the table shows, `--take quarantined` the other one of two rows that claim
one value. A resolution says which rows it removes and which conflicts it opens, and `packmule resolve DB --undo ID`
takes it back on any device that has it in its log: the rows are as they were, and a `unique` conflict is open again
under the same id. Rows of more than 16 KiB are not kept for that. Undone again, the decision is back.

An application decides in SQL, and a program by itself: `src/docs/decisions.md`.

Where no other table is named it is `CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT)`.
This page is written by `tests/conflicts_page.rs`, which runs all of it.
";

const SENSORS: &str = "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT)";
const FIRST: &str = "INSERT INTO sensors VALUES ('s1', 'barn', 'C')";

/// What is done on one board after both have heard of each other's writes.
enum Then {
    Resolve(&'static str, fn(&[DeviceInfo]) -> Resolution),
    Write(&'static str),
}

struct Case {
    title: &'static str,
    about: &'static str,
    /// How the tables are made, at `a` and, if `b` makes them itself, there.
    schema: [&'static str; 2],
    how: &'static str,
    options: fn(&Engine) -> TrackOptions,
    first: &'static str,
    writes: [&'static str; 2],
    /// What is done about it, by which board.
    then: Vec<(&'static str, Then)>,
    /// A constraint of one board alone: the other board does not list it.
    local: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            title: "",
            about: "",
            schema: [SENSORS, ""],
            how: "",
            options: |_| TrackOptions::default(),
            first: FIRST,
            writes: ["", ""],
            then: Vec::new(),
            local: false,
        }
    }
}

fn id_of(devices: &[DeviceInfo], name: &str) -> packmule::core::model::DeviceId {
    devices.iter().find(|d| d.name.as_deref() == Some(name)).unwrap().id
}

fn column(name: &str, merge: ColumnMerge) -> TrackOptions {
    TrackOptions { columns: vec![(name.to_owned(), merge)], ..TrackOptions::default() }
}

fn text(value: &str) -> packmule::OwnedValue {
    packmule::OwnedValue::Text(value.as_bytes().to_vec())
}

fn take_a(devices: &[DeviceInfo]) -> Resolution {
    Resolution::Take(id_of(devices, "a"))
}

fn take_b(devices: &[DeviceInfo]) -> Resolution {
    Resolution::Take(id_of(devices, "b"))
}

const SENSOR_COUNT: &str = "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, n INTEGER)";
const FIRST_COUNT: &str = "INSERT INTO sensors VALUES ('s1', 'barn', 10)";
const NAMED: &str = "CREATE TABLE sensors (id TEXT PRIMARY KEY, name TEXT UNIQUE)";

fn cases() -> Vec<Case> {
    vec![
        Case {
            title: "Both update a row",
            about: "A row is shown as one of them wrote it, not mixed: the later one by its author's clock.",
            writes: ["UPDATE sensors SET place = 'roof'", "UPDATE sensors SET unit = 'F'"],
            then: vec![("b", Then::Resolve("--take a", take_a))],
            ..Case::default()
        },
        Case {
            title: "Both insert a row with the same key",
            first: "",
            writes: [
                "INSERT INTO sensors VALUES ('s1', 'roof', 'C')",
                "INSERT INTO sensors VALUES ('s1', 'door', 'F')",
            ],
            then: vec![("a", Then::Resolve("--keep-both", |_| Resolution::KeepBoth))],
            ..Case::default()
        },
        Case {
            title: "One updates the row, the other one deletes it",
            about: "An update wins over a delete, whenever it was.",
            writes: ["UPDATE sensors SET place = 'roof'", "DELETE FROM sensors"],
            then: vec![("a", Then::Resolve("--delete", |_| Resolution::Delete))],
            ..Case::default()
        },
        Case {
            title: "Both write the same",
            about: "Versions of equal content are one version.",
            writes: ["UPDATE sensors SET place = 'roof'", "UPDATE sensors SET place = 'roof'"],
            ..Case::default()
        },
        Case {
            title: "By cell: different columns",
            how: "--merge cell",
            options: |_| TrackOptions { merge: Merge::Cell, ..TrackOptions::default() },
            writes: ["UPDATE sensors SET place = 'roof'", "UPDATE sensors SET unit = 'F'"],
            ..Case::default()
        },
        Case {
            title: "By cell: the same column",
            about: "The other columns that they wrote are merged all the same.",
            how: "--merge cell",
            options: |_| TrackOptions { merge: Merge::Cell, ..TrackOptions::default() },
            writes: ["UPDATE sensors SET place = 'roof', unit = 'F'", "UPDATE sensors SET place = 'door'"],
            then: vec![("a", Then::Resolve("--take a", take_a))],
            ..Case::default()
        },
        Case {
            title: "Two rows claim one unique value",
            about: "The claim that is earlier in the causal order is shown, with equal stamps that of the lesser key. \
                    The other row is quarantined, with all its values.",
            schema: [NAMED, ""],
            first: "",
            writes: [
                "INSERT INTO sensors VALUES ('s1', 'north')",
                "INSERT INTO sensors VALUES ('s2', 'north')",
            ],
            then: vec![(
                "b",
                Then::Resolve("--set name=north-2", |_| {
                    Resolution::Set(vec![("name".into(), text("north-2"))])
                }),
            )],
            ..Case::default()
        },
        Case {
            title: "Two rows claim one unique value, which is freed later",
            about: "Nobody need resolve it: the quarantined row comes back by itself.",
            schema: [NAMED, ""],
            first: "",
            writes: [
                "INSERT INTO sensors VALUES ('s1', 'north')",
                "INSERT INTO sensors VALUES ('s2', 'north')",
            ],
            then: vec![("a", Then::Write("UPDATE sensors SET name = 'south' WHERE id = 's1'"))],
            ..Case::default()
        },
        Case {
            title: "A CHECK of one board",
            about: "CHECK constraints do not travel. Where one forbids a row, the row is quarantined.",
            schema: [
                SENSORS,
                "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT CHECK (unit <> 'K'))",
            ],
            first: "",
            writes: ["INSERT INTO sensors VALUES ('s1', 'roof', 'K')", ""],
            then: vec![(
                "b",
                Then::Resolve("--set unit=C", |_| Resolution::Set(vec![("unit".into(), text("C"))])),
            )],
            local: true,
            ..Case::default()
        },
        Case {
            title: "A UNIQUE over an expression, of one board",
            about: "A UNIQUE index over an expression, or over some of the rows alone (`WHERE`), does not travel: `track` says so, \
                    or a notice if it comes later, with the statement that makes it on another board, or at a base. Where all have it, all show and list the same.",
            schema: [
                SENSORS,
                "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT, unit TEXT); \
                 CREATE UNIQUE INDEX one_place ON sensors (lower(place))",
            ],
            first: "",
            writes: [
                "INSERT INTO sensors VALUES ('s1', 'Roof', 'K')",
                "INSERT INTO sensors VALUES ('s2', 'roof', 'C')",
            ],
            then: vec![(
                "b",
                Then::Resolve("--set place=barn", |_| Resolution::Set(vec![("place".into(), text("barn"))])),
            )],
            local: true,
            ..Case::default()
        },
        Case {
            title: "A NOT NULL of one board",
            schema: [SENSORS, "CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT NOT NULL, unit TEXT)"],
            first: "",
            writes: ["INSERT INTO sensors VALUES ('s1', NULL, 'C')", ""],
            then: vec![(
                "b",
                Then::Resolve("--set place=roof", |_| Resolution::Set(vec![("place".into(), text("roof"))])),
            )],
            local: true,
            ..Case::default()
        },
        Case {
            title: "A reference to a row that is gone",
            about: "Both rows are as they were written; that they do not fit together is said. It is resolved as well by \
                    inserting the row that is missing. Who wrote a row is listed unless it is older than the conflict: had \
                    `a` seen it when it deleted the other, one board may have compacted it, and another not \
                    (`packmule log DB TABLE KEY` shows what a board still has).",
            schema: [
                "CREATE TABLE places (name TEXT PRIMARY KEY); \
                 CREATE TABLE sensors (id TEXT PRIMARY KEY, place TEXT REFERENCES places)",
                "",
            ],
            first: "INSERT INTO places VALUES ('barn'), ('roof')",
            writes: ["DELETE FROM places WHERE name = 'barn'", "INSERT INTO sensors VALUES ('s1', 'barn')"],
            then: vec![(
                "a",
                Then::Resolve("--set place=roof", |_| Resolution::Set(vec![("place".into(), text("roof"))])),
            )],
            ..Case::default()
        },
        Case {
            title: "Both add a column, of different types",
            about: "The column is disputed: what others write into it stays in the log, and the rest of the table goes on. So it is \
                    with another collation or default. Once one is taken, or one application renames its own away, the \
                    column is the same everywhere, and what waited is in it. (Of two policies or rules of columns that \
                    devices `track` a table with, the earliest holds everywhere, and `status` says so; `track` with \
                    other options changes it on all.)",
            writes: [
                "ALTER TABLE sensors ADD COLUMN x TEXT; UPDATE sensors SET x = '07'",
                "ALTER TABLE sensors ADD COLUMN x INTEGER; INSERT INTO sensors VALUES ('s2', 'roof', 'C', 8)",
            ],
            then: vec![("b", Then::Resolve("--take a", take_a))],
            local: true,
            ..Case::default()
        },
        Case {
            title: "The last writer wins",
            about: "By the time of each write, not of its seal; of concurrent writes alone.",
            how: "--policy lww",
            options: |_| TrackOptions { policy: Policy::Lww, ..TrackOptions::default() },
            writes: ["UPDATE sensors SET place = 'roof'", "DELETE FROM sensors"],
            ..Case::default()
        },
        Case {
            title: "One device is preferred",
            how: "--policy prefer-device=a",
            options: |a| TrackOptions { policy: Policy::Prefer(a.identity().id), ..TrackOptions::default() },
            writes: ["UPDATE sensors SET place = 'roof'", "UPDATE sensors SET place = 'door'"],
            ..Case::default()
        },
        Case {
            title: "A counter",
            about: "What both added adds up.",
            schema: [SENSOR_COUNT, ""],
            how: "--column n=counter",
            options: |_| column("n", ColumnMerge::Counter),
            first: FIRST_COUNT,
            writes: ["UPDATE sensors SET n = n + 5", "UPDATE sensors SET n = n - 1"],
            ..Case::default()
        },
        Case {
            title: "The greatest value",
            schema: [SENSOR_COUNT, ""],
            how: "--column n=max",
            options: |_| column("n", ColumnMerge::Max),
            first: FIRST_COUNT,
            writes: ["UPDATE sensors SET n = 30", "UPDATE sensors SET n = 20"],
            ..Case::default()
        },
        Case {
            title: "The least value",
            about: "What is not decided by a column's own rule is still a conflict of the row.",
            schema: [SENSOR_COUNT, ""],
            how: "--column n=min",
            options: |_| column("n", ColumnMerge::Min),
            first: FIRST_COUNT,
            writes: ["UPDATE sensors SET n = 5, place = 'roof'", "UPDATE sensors SET n = 7, place = 'door'"],
            then: vec![("b", Then::Resolve("--take a", take_a))],
            ..Case::default()
        },
        Case {
            title: "Both resolve it, differently",
            about: "Two resolutions that have not heard of each other are again a conflict.",
            writes: ["UPDATE sensors SET place = 'roof'", "UPDATE sensors SET place = 'door'"],
            then: vec![
                ("both", Then::Resolve("--take a` at `a`, `--take b` at `b", take_a)),
                ("a", Then::Resolve("--take b", take_b)),
            ],
            ..Case::default()
        },
        Case {
            title: "Somebody edits the row who has seen both",
            about: "That is a resolution, without the command.",
            writes: ["UPDATE sensors SET place = 'roof'", "UPDATE sensors SET place = 'door'"],
            then: vec![("a", Then::Write("UPDATE sensors SET place = 'gate'"))],
            ..Case::default()
        },
    ]
}

fn shown(engine: &Engine) -> String {
    let db = app(engine);
    let names = dump(
        &db,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ('sensors', 'places') ORDER BY name DESC",
    );
    let several = names.len() > 1;
    let mut all = Vec::new();
    for name in &names {
        let table = name.trim_matches('"');
        let columns: Vec<String> = dump(&db, &format!("SELECT name FROM pragma_table_info('{table}')"))
            .iter()
            .map(|c| format!("quote({})", c.trim_matches('"')))
            .collect();
        let query = format!("SELECT {} FROM {table} ORDER BY 1", columns.join(" || ', ' || "));
        for row in dump(&db, &query) {
            all.push(format!(
                "{}`{}`",
                if several { format!("{table} ") } else { String::new() },
                row.trim_matches('"')
            ));
        }
    }
    if all.is_empty() { "no row".into() } else { all.join("<br>") }
}

fn listed(conflicts: &[Conflict]) -> String {
    if conflicts.is_empty() {
        return "nothing".into();
    }
    let describe = |conflict: &Conflict| {
        let kind = match &conflict.kind {
            ConflictKind::Unique(columns) => format!(" ({})", columns.join(", ")),
            ConflictKind::Check(reason) => format!(" ({reason})"),
            ConflictKind::ForeignKey(columns, parent) => format!(" ({} → `{parent}`)", columns.join(", ")),
            ConflictKind::Schema(column) => format!(" ({column})"),
            _ => String::new(),
        };
        let key: Vec<String> = conflict.key.iter().map(|(name, v)| format!("{name} = {v}")).collect();
        let versions: Vec<String> = conflict
            .versions
            .iter()
            .map(|v| {
                let values: Vec<String> = v.values.iter().map(|(_, v)| v.to_string()).collect();
                let values =
                    if values.is_empty() { String::new() } else { format!(" `{}`", values.join(", ")) };
                let name = v.name.as_deref().map_or_else(String::new, |name| format!("{name}: "));
                format!("{name}{}{values}{}", v.op.word(), if v.shown { ", shown" } else { "" })
            })
            .collect();
        format!("**{}**{kind}, {}<br>{}", conflict.kind.word(), key.join(", "), versions.join("<br>"))
    };
    conflicts.iter().map(describe).collect::<Vec<_>>().join("<br>")
}

/// Seals what was written at this time of the world's clock.
fn seal_at(world: &World, device: &mut Engine, ms: i64) {
    world.tick(ms);
    written_at(device, world.clock.load(std::sync::atomic::Ordering::Relaxed));
    device.seal().unwrap();
}

fn run(case: &Case) -> String {
    let world = World::new();
    let mut a = world.board("a");
    sql(&a, case.schema[0]);
    let options = (case.options)(&a);
    let tables = dump(
        &app(&a),
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_pm%' ESCAPE '\\' ORDER BY rowid",
    );
    let tables: Vec<&str> = tables.iter().map(|t| t.trim_matches('"')).collect();
    tables.iter().for_each(|table| {
        a.track(table, &options).unwrap();
    });
    sql(&a, case.first);
    a.seal().unwrap();
    let mut b = world.board("b");
    if !case.schema[1].is_empty() {
        sql(&b, case.schema[1]);
        b.track("sensors", &options).unwrap();
    }
    carry_all(&mut [&mut a, &mut b]);
    let mut page = format!("\n## {}\n\n", case.title);
    if !case.about.is_empty() {
        writeln!(page, "{}\n", case.about.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
    }
    let mut line = |what: &str, text: String| writeln!(page, "| {what} | {text} |").unwrap();
    line("", String::new());
    line("---", "---".into());
    if !case.how.is_empty() {
        line("tracked with", format!("`{}`", case.how));
    }
    if case.local && !case.schema[1].is_empty() {
        line("the table of `a`", format!("`{}`", case.schema[0]));
        line("that of `b`", format!("`{}`", case.schema[1]));
    } else if case.schema[0] != SENSORS {
        line("the tables", format!("`{}`", case.schema[0]));
    }
    line("at first", shown(&a));
    for (device, write) in [&mut a, &mut b].into_iter().zip(case.writes) {
        if !write.is_empty() {
            line(&format!("`{}` writes", device.identity().name), format!("`{write}`"));
            sql(device, write);
        }
        seal_at(&world, device, 1000);
    }
    carry_all(&mut [&mut a, &mut b]);
    let state = |line: &mut dyn FnMut(&str, String), a: &Engine, b: &Engine, settled: bool| {
        if case.local && !settled {
            line("the table of `a` shows", shown(a));
            line("that of `b` shows", shown(b));
            line("`a` lists", listed(&a.conflicts().unwrap()));
            line("`b` lists", listed(&b.conflicts().unwrap()));
            return;
        }
        digests_equal(&[a, b]);
        assert_eq!(a.conflicts().unwrap(), b.conflicts().unwrap(), "{}", case.title);
        assert_eq!(shown(a), shown(b));
        line("the table shows", shown(a));
        line("`conflicts` lists", listed(&a.conflicts().unwrap()));
    };
    state(&mut line, &a, &b, false);
    for (who, then) in &case.then {
        world.tick(1000);
        match then {
            Then::Write(statement) => {
                let device = if *who == "a" { &mut a } else { &mut b };
                sql(device, statement);
                device.seal().unwrap();
                line(&format!("then `{who}` writes"), format!("`{statement}`"));
            }
            Then::Resolve(words, resolution) => {
                let id = b.conflicts().unwrap()[0].id.clone();
                let devices = a.devices().unwrap();
                if *who == "both" {
                    a.resolve(&id, &resolution(&devices)).unwrap();
                    world.tick(1000);
                    b.resolve(&id, &take_b(&devices)).unwrap();
                } else {
                    let device = if *who == "a" { &mut a } else { &mut b };
                    device.resolve(&id, &resolution(&devices)).unwrap();
                }
                line(&format!("resolved by `{who}`").replace("`both`", "both"), format!("`{words}`"));
            }
        }
        carry_all(&mut [&mut a, &mut b]);
        state(&mut line, &a, &b, true);
    }
    let open = a.conflicts().unwrap().len() + b.conflicts().unwrap().len();
    assert_eq!(open, 0, "{}: all is settled in the end", case.title);
    page
}

#[test]
fn the_page_says_what_happens() {
    let mut page = INTRO.to_owned();
    cases().iter().for_each(|case| page.push_str(&run(case)));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/conflicts.md");
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == page, "the page differs: run with PACKMULE_BLESS=1 and look at it\n{page}");
}
