//! What a screen of 80 columns and 24 lines has room for, and what says beforehand what will be.

use crate::support::{Desk, has, unfolded};

const TABLES: usize = 12;
const DAY: i64 = 86_400_000;

/// A base with much to be said of it: many tables, boards that were not heard, retired and revoked ones, a clock that is
/// far off, a conflict.
fn messy() -> Desk {
    let (desk, _) = Desk::conflict();
    for n in 1..=TABLES {
        desk.sql("base.db", &format!("CREATE TABLE extra{n:02} (id TEXT PRIMARY KEY, v)"));
        desk.run(&format!("track base.db extra{n:02}")).ok();
    }
    for n in 1..=6 {
        desk.run(&format!("init e{n}.db --name e{n} --fleet fleet.key")).ok();
        desk.run(&format!("export e{n}.db e{n}.pmb")).ok();
        desk.run(&format!("import base.db e{n}.pmb")).ok();
    }
    // A board whose clock nobody has set for years.
    desk.sql("north.db", "INSERT INTO settings VALUES ('clock', 1, NULL)");
    a_clock_of_2099(&desk, "north.db");
    desk.carry("north", "base");
    desk.run("retire base.db e4").ok();
    desk.run("retire base.db e5").ok();
    desk.run("revoke base.db e6 --fleet fleet.key").ok();
    let ago = |days: i64| {
        format!("UPDATE _pm_device SET heard = heard - {} WHERE name = 'e{}'", days * DAY, days - 9)
    };
    (10..=12).for_each(|days| desk.sql("base.db", &ago(days)));
    desk.sql("base.db", "INSERT INTO extra07 VALUES ('a', 1)");
    desk
}

/// Seals what was written with a clock that is far off.
fn a_clock_of_2099(desk: &Desk, db: &str) {
    let options = packmule::Options { clock: Box::new(|| 4_086_000_000_000), ..packmule::Options::default() };
    packmule::Engine::open_with(&desk.path(db), options).unwrap().seal().unwrap();
}

#[track_caller]
fn fits(text: &str, lines: usize) {
    assert!(text.lines().count() <= lines, "{} lines\n{text}", text.lines().count());
    let long = text.lines().find(|line| line.chars().count() > 80);
    assert!(long.is_none_or(|line| line.trim_start().starts_with("packmule ")), "{long:?}\n{text}");
}

#[test]
fn the_status_of_a_messy_fleet_fits_on_a_screen_and_the_most_urgent_is_first() {
    let desk = messy();
    let shown = desk.run("status base.db").proposes("all of it: `packmule status * --all`");
    let screen = shown.screen;
    fits(&screen, 23);
    let at = |text: &str| screen.find(text).unwrap_or_else(|| panic!("no `{text}` in\n{screen}"));
    let order = ["base.db is the base", "to do", "1 conflict is open", "the clock of north-", "  tables"];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{screen}");
    has(&screen, &["… and ", " more", "all of it: `packmule status base.db --all`"]);
    // Nothing is lost: all of it is there, and in the document.
    let all = desk.run("status base.db --all").proposes("packmule devices *").ok();
    let names: Vec<String> = (1..=TABLES).map(|n| format!("extra{n:02}")).collect();
    assert!(names.iter().all(|name| all.contains(name)), "{all}");
    has(
        &all,
        &[
            "3 devices were not heard for over 7 days: e3-",
            "packmule devices base.db",
            "1 write is not sealed",
            // What there is something to say of comes first.
            "  tables\n    extra07",
            "revoked      e6-",
            "retired      e4-",
            "retired      e5-",
        ],
    );
    assert!(all.lines().count() > 24 && !all.contains("more\n"), "{all}");
    let checked = desk.run("status base.db --check").screen;
    fits(&checked, 23);
    has(&checked, &["2 things need a person", "the clock of north-"]);
}

/// More that only a person can do than a screen has room for: the most urgent is there, and how to see the rest.
#[test]
fn what_needs_a_person_fits_on_a_screen_too() {
    let desk = messy();
    for n in 1..=9 {
        let db = format!("late{n}.db");
        desk.run(&format!("init {db} --name late{n} --fleet fleet.key")).ok();
        desk.sql(&db, "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
        desk.run(&format!("track {db} settings")).ok();
        desk.sql(&db, &format!("INSERT INTO settings VALUES ('late {n}', 1, '')"));
        a_clock_of_2099(&desk, &db);
        desk.carry(&format!("late{n}"), "base");
    }
    let ran = desk.run("status base.db --check").proposes("all of it: `packmule status * --check --all`");
    fits(&ran.screen, 23);
    has(&ran.screen, &["11 things need a person", "1 conflict is open", "the clock of ", "… and "]);
}

/// What a keeper looks at, of a fleet with something in each: no line is wider than the screen, and what matters most stands
/// where a screen of 24 lines shows it: first where it is cut to a screen, and last where it scrolls by.
#[test]
fn each_screen_of_a_keeper_fits_or_ends_with_what_matters() {
    let desk = messy();
    for n in 1..=30 {
        for (device, value) in [("north", 10), ("east", 20)] {
            desk.sql(
                &format!("{device}.db"),
                &format!("INSERT INTO settings VALUES ('of both {n:02}', {value}, NULL)"),
            );
        }
    }
    desk.carry("north", "base");
    desk.carry("east", "base");
    let screen = |line: &str| {
        let screen = desk.run(line).screen;
        fits(&screen, usize::MAX);
        screen
    };
    let last = |text: &str| {
        text.lines().rev().take(23).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    fits(&screen("status base.db"), 23);
    let devices = screen("devices base.db");
    fits(&devices, 23);
    has(&devices, &["DEVICE", "TRUST", "HEARD", "e4-", "e6-", "revoked", "FRAMES here are"]);
    // 31 conflicts: a line each, and then what there is and what closes them.
    let brief = screen("conflicts base.db --brief");
    assert!(brief.lines().count() > 24, "{brief}");
    has(
        &last(&brief),
        &["31 conflicts:", "insert/insert", "packmule resolve base.db --kind", "one of them whole"],
    );
    // One of them whole is a screen.
    let one = last(&brief).lines().last().unwrap().split('`').nth(1).unwrap().replace("packmule ", "");
    let whole = screen(&one);
    fits(&whole, 23);
    has(&whole, &["update/update", "to close it:", "--take", "--keep-both"]);
    has(&last(&screen("conflicts base.db")), &["31 conflicts:", "packmule resolve base.db --kind"]);
    // What was written last stands last.
    let log = screen("log base.db");
    has(log.lines().last().unwrap(), &["base-", "frame ", "1 row"]);
    has(
        &last(&screen("log base.db --values")),
        &["insert settings key = of both 30", "insert extra07 id = a: v = 1"],
    );
    fits(&screen("log base.db settings interval --values"), 23);
    // Help ends with what holds for every command, and where there is more.
    has(
        &last(&screen("help")),
        &["flags of every command:", "Exit status: ", "`packmule COMMAND --help` says more"],
    );
    for command in ["status", "devices", "conflicts", "log", "seal", "digest"] {
        screen(&format!("{command} --help"));
    }
}

/// Who lacks what, since when: each with what helps.
#[test]
fn whoever_holds_back_the_log_is_told_with_the_time_it_was_heard() {
    let desk = messy();
    let all = unfolded(&desk.run("status base.db --all").ok());
    let document = desk.run("devices base.db --json").json();
    let devices = document["devices"].as_array().unwrap();
    let to_do = desk.run("status base.db --json").json()["to_do"].as_array().unwrap().clone();
    let held = to_do.iter().find(|it| it["what"].as_str().unwrap().contains("is not known to have")).unwrap();
    let what = held["what"].as_str().unwrap();
    let who = devices.iter().find(|d| what.starts_with(d["label"].as_str().unwrap())).unwrap();
    let heard = who["heard"].as_str().unwrap().split('.').next().unwrap();
    has(what, &[&format!("heard last at {heard}Z")]);
    has(&all, &[what]);
    assert!(held["command"].as_str().unwrap().starts_with("packmule retire base.db "), "{held}");
    assert!(to_do.iter().all(|it| it["command"].is_string()), "each has what helps: {to_do:?}");
}

/// The clock of another device is set there, by the one here; `date` reads it.
#[test]
fn the_command_that_sets_a_clock_is_one_that_date_reads() {
    let desk = messy();
    desk.run("status base.db").proposes("sudo date --utc --set '*'").ok();
}

/// Whatever removes something can be rehearsed: it says what would be, and nothing changes.
#[test]
fn what_removes_something_says_beforehand_what_would_be() {
    let (desk, id) = Desk::conflict();
    desk.run(&format!("resolve base.db {id} --take east")).ok();
    for _ in 0..3 {
        for board in ["north", "east"] {
            desk.carry("base", board);
            desk.carry(board, "base");
        }
    }
    let before = desk.dump("base.db");
    let planned = desk.run("compact base.db --dry-run --json").json();
    assert!(planned["frames_folded"].as_u64() > Some(0), "{planned}");
    has(&desk.run("compact base.db --dry-run").ok(), &["would be compacted away", "nothing has changed"]);
    assert_eq!(desk.dump("base.db"), before);
    let kept = desk.run("compact base.db --keep 30d --dry-run --json").json();
    assert_eq!(kept["frames_folded"], 0, "{kept}");
    assert_eq!(desk.run("compact base.db --json").json(), planned);

    let before = desk.dump("north.db");
    let key = std::fs::read(desk.path("north.db.pmkey")).unwrap();
    let rehearsed = desk.run("init --remove north.db --dry-run").ok();
    has(
        &rehearsed,
        &[
            "of Packmule would be removed; nothing has changed",
            "north.db.pmkey: would be removed",
            "gone for good",
        ],
    );
    assert_eq!((desk.dump("north.db"), std::fs::read(desk.path("north.db.pmkey")).unwrap()), (before, key));
    let planned = desk.run("init --remove north.db --dry-run --json").json();
    let done = desk.run("init --remove north.db --yes --json").json();
    assert_eq!(
        (&planned["dropped"], &planned["dry_run"], &done["dry_run"]),
        (&done["dropped"], &true.into(), &false.into())
    );
    has(&desk.run("init --dry-run other.db").usage(), &["--dry-run goes with --remove"]);
}
