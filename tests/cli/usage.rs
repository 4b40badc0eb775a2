//! Wrong usage: status 2, the usage line, and what was probably meant. Help, for every command.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Desk, has};

#[test]
fn a_near_miss_is_answered_with_what_was_meant() {
    let desk = Desk::new();
    has(
        &desk.run("exprot a.db b.pmb").usage(),
        &["packmule: there is no command `exprot`: did you mean `export`?"],
    );
    has(&desk.run("conflict a.db").usage(), &["did you mean `conflicts`?"]);
    has(
        &desk.run("track a.db t --polcy lww").usage(),
        &["no flag --polcy: did you mean --policy?", "usage: packmule track DB TABLE..."],
    );
    let nothing_like_it = desk.run("frobnicate").usage();
    assert!(!nothing_like_it.contains("did you mean"), "{nothing_like_it}");
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    let desk = Desk::new();
    for (line, says) in [
        ("fleet", "`fleet` needs another word"),
        ("init", "DB is missing"),
        ("track a.db", "TABLE is missing"),
        ("export a.db", "BUNDLE is missing"),
        ("resolve a.db", "ID is missing"),
        ("status a.db b.db", "`b.db` is one too many"),
        ("init a.db --name", "missing argument"),
        ("track a.db t --mode both", "--mode is one of shared|per-device, not `both`"),
        (
            "track a.db t --policy prefer",
            "--policy is one of manual|lww|prefer-device=DEVICE|custom=COMMAND, not `prefer`",
        ),
        ("track a.db t --column a=sum", "--column is NAME=counter|max|min|lww, not `a=sum`"),
        ("resolve a.db 1234 --set value", "--set is COL=VALUE, not `value`"),
        ("resolve a.db 1234 --set value=1 --set VALUE=2", "--set gives `VALUE` two values"),
        ("resolve a.db 1234", "say how: one of --take"),
        ("resolve a.db 1234 --delete --keep-both", "say how: one of --take"),
        ("digest a.db --rows", "`digest` has no flag --rows"),
        ("status a.db -x", "no flag -x"),
        ("--json", "no command is given"),
        ("seal a.db --wait soon", "--wait is a number of seconds"),
    ] {
        let ran = desk.run(line);
        if line == "--json" {
            assert_eq!(ran.status, Some(2));
            continue;
        }
        if line.starts_with("seal") {
            desk.run("init a.db --name a").ok();
            has(&desk.run(line).usage(), &[says]);
            continue;
        }
        has(&ran.usage(), &[says]);
    }
    assert_eq!(desk.files(), ["a.db", "a.db.pmkey"]);
}

#[test]
fn wrong_usage_with_json_is_one_document_too() {
    let desk = Desk::new();
    let ran = desk.run("track a.db --json");
    assert_eq!(ran.status, Some(2));
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["error"], "TABLE is missing");
    let ran = desk.run("status none.db --json");
    assert_eq!(ran.status, Some(1));
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    has(document["error"].as_str().unwrap(), &["there is no such file", "packmule init none.db"]);
    assert_eq!(document["file"], "none.db");
}

#[test]
fn every_command_has_help_with_an_example() {
    let desk = Desk::new();
    let general = desk.run("--help").ok();
    assert_eq!(desk.run("help").ok(), general);
    // Who types the name alone gets what fits on a screen.
    let first = desk.run_words(&[] as &[&str]).ok();
    assert!(first.lines().count() <= 24 && first.lines().all(|line| line.chars().count() <= 80), "{first}");
    has(&first, &["usage: ", "  init ", "  exchange ", "  status ", "  conflicts ", "`packmule help`"]);
    for command in [
        "init",
        "fleet",
        "trust",
        "revoke",
        "track",
        "untrack",
        "seal",
        "export",
        "import",
        "merge",
        "status",
        "devices",
        "log",
        "digest",
        "conflicts",
        "resolve",
        "verify",
        "inspect",
        "demo",
    ] {
        has(&general, &[&format!("\n  {command} ")]);
        let help = desk.run(&format!("help {command}")).ok();
        has(
            &help,
            &["usage: packmule ", "flags of every command:", "example", &format!("  packmule {command}")],
        );
    }
    assert_eq!(desk.run("export --help").ok(), desk.run("help export").ok());
    has(&desk.run("--version").ok(), &["packmule 0."]);
}

/// Where people read, a line has 80 characters; examples are to be copied, and stay whole.
#[test]
fn help_fits_into_80_columns() {
    let desk = Desk::new();
    let general = desk.run("--help").ok();
    let wide = |text: &str| -> Vec<String> {
        let lines = text.lines().take_while(|line| !line.starts_with("example"));
        lines.filter(|line| line.chars().count() > 80).map(str::to_owned).collect()
    };
    assert_eq!(wide(&general), [""; 0]);
    let commands = general.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut looked = 0;
    for command in commands.filter(|line| !line.starts_with("  -")) {
        let words: Vec<&str> = command.split_whitespace().take(2).collect();
        let two = words[1].chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let command = if two && words[0] == "fleet" { words.join(" ") } else { words[0].to_owned() };
        let command = if command == "schema" { "schema add-column".into() } else { command };
        assert_eq!(wide(&desk.run(&format!("help {command}")).ok()), [""; 0], "{command}");
        looked += 1;
    }
    assert!(looked > 30, "{looked}");
}

#[test]
fn what_a_message_proposes_is_found() {
    let text = "no such table: `packmule status a.db` lists them, and `packmule log` shows more; then run:\n  packmule trust a.db 00";
    assert_eq!(support::proposals::proposals(text), ["packmule status a.db", "packmule trust a.db 00"]);
}
