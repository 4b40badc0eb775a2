//! Habits of programs: completions for shells, manual pages, codes of errors.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../skips/mod.rs"]
mod skips;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Desk, PACKMULE, has};

/// Every command with its flags, as help has them.
fn table(desk: &Desk) -> Vec<(String, Vec<String>)> {
    let general = desk.run("--help").ok();
    let lines = general.lines().filter_map(|line| line.strip_prefix("  "));
    let names: BTreeSet<&str> = lines
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(names.len() > 35, "{names:?}");
    let usage = |name: &&str| {
        let text = match *name {
            "fleet" => {
                ["new", "rotate"].map(|word| desk.run(&format!("fleet {word} --help")).ok()).join("\n")
            }
            name => desk.run(&format!("{name} --help")).ok(),
        };
        let flags = text
            .lines()
            .filter(|line| line.starts_with("  -"))
            .filter_map(|line| Some(line.split_once("--")?.1));
        let flags: BTreeSet<String> = flags.map(|flag| flag.split(' ').next().unwrap().to_owned()).collect();
        assert!(flags.contains("json"), "{name}");
        (name.to_string(), flags.into_iter().collect())
    };
    names.iter().map(usage).collect()
}

/// What bash would offer for this line, whose last word is not finished yet.
fn offered(desk: &Desk, line: &[&str]) -> Vec<String> {
    let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <(\"$0\" completions bash) && complete -p packmule >&2 && COMP_WORDS=({}) && COMP_CWORD={} \
         && _packmule && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        line.len() - 1
    );
    let output = Command::new("bash")
        .args(["--norc", "--noprofile", "-c", &script, PACKMULE])
        .current_dir(desk.path("."))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line:?}: {said}");
    assert_eq!(said, "complete -F _packmule packmule\n", "{line:?}");
    let offered = String::from_utf8(output.stdout).unwrap();
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_offers_what_can_stand_there() {
    let desk = Desk::new();
    std::fs::write(desk.path("north of.db"), "").unwrap();
    std::fs::write(desk.path("fleet.key"), "").unwrap();
    let offers = |line: &[&str]| offered(&desk, line);
    assert_eq!(offers(&["packmule", "ex"]), ["export", "exchange"]);
    assert_eq!(offers(&["packmule", "fleet", ""]), ["new", "rotate"]);
    assert_eq!(offers(&["packmule", "help", "conf"]), ["conflicts"]);
    assert_eq!(offers(&["packmule", "status", "no"]), ["north of.db"]);
    assert_eq!(offers(&["packmule", "status", "--ch"]), ["--check"]);
    assert_eq!(offers(&["packmule", "--wait", "5", "fleet", "new", "f"]), ["fleet.key"]);
    assert_eq!(offers(&["packmule", "track", "a.db", "t", "--mode", ""]), ["shared", "per-device"]);
    assert_eq!(offers(&["packmule", "track", "a.db", "t", "--mode", "=", "p"]), ["per-device"]);
    assert_eq!(offers(&["packmule", "track", "a.db", "t", "--policy", ""]), ["manual", "lww"]);
    assert_eq!(offers(&["packmule", "init", "a.db", "--fleet", "f"]), ["fleet.key"]);
    // What only the user knows.
    assert_eq!(offers(&["packmule", "init", "a.db", "--name", ""]), [""; 0]);
    assert_eq!(offers(&["packmule", "completions", ""]), ["bash", "zsh", "fish"]);
    assert_eq!(offers(&["packmule", "board", "i"]), ["install"]);
    let first: BTreeSet<String> = offers(&["packmule", ""]).into_iter().collect();
    for (command, flags) in table(&desk) {
        assert!(first.contains(&command), "{command}");
        let second = if command == "fleet" { "new" } else { "a.db" };
        let offered = offers(&["packmule", &command, second, "--"]);
        let passed = ["fleet", "help"].contains(&command.as_str());
        assert!(
            passed || flags.iter().all(|flag| offered.contains(&format!("--{flag}"))),
            "{command}: {offered:?}"
        );
    }
}

/// What zsh offers for a line, typed into a shell of its own with a tab behind it.
const ZSH: &str = r#"
zmodload zsh/zpty || exit 9
zpty inner zsh -f -i
cat > .inner <<'INNER'
PROMPT=
fpath=(functions $fpath)
autoload -Uz compinit && compinit -u -D
bindkey '^I' complete-word
leave() { print -r -- '<>'; exit }
compprefuncs=(print)
comppostfuncs=(leave)
compadd() {
    [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] && { builtin compadd "$@"; return }
    typeset -a hits
    builtin compadd -A hits "$@"
    (( $#hits )) && print -rl -- '<'${^hits}'>'
}
print ready
INNER
zpty -w inner 'source ./.inner'
while zpty -r inner line && [[ $line != ready* ]]; do :; done
zpty -n -w inner $1$'\t'
while zpty -r inner line && [[ $line != '<>'* ]]; do print -r -- $line; done
"#;

/// What another shell offers for the beginning of a line, or nothing if that is not here.
fn offered_by(desk: &Desk, shell: &str, line: &str) -> Option<Vec<String>> {
    let mut command = Command::new(shell);
    match shell {
        "fish" => command.args(["-N", "-c", "source completions.fish; complete -C $argv[1]", line]),
        _ => command.args(["-f", "-c", ZSH, shell, line]),
    };
    let ran = command.current_dir(desk.path(".")).env("HOME", desk.path(".")).stdin(Stdio::null()).output();
    let said = String::from_utf8(ran.ok()?.stdout).unwrap();
    let said = said.lines().map(str::trim_end);
    Some(match shell {
        "fish" => said.map(|line| line.split('\t').next().unwrap().to_owned()).collect(),
        _ => said.filter_map(|l| Some(l.strip_prefix('<')?.strip_suffix('>')?.to_owned())).collect(),
    })
}

/// The same in zsh and in fish, which load their scripts and are asked.
#[test]
fn zsh_and_fish_offer_what_can_stand_there() {
    let desk = Desk::new();
    std::fs::write(desk.path("north.db"), "").unwrap();
    std::fs::write(desk.path("fleet.key"), "").unwrap();
    std::fs::create_dir(desk.path("functions")).unwrap();
    std::fs::write(desk.path("functions/_packmule"), desk.run("completions zsh").ok()).unwrap();
    std::fs::write(desk.path("completions.fish"), desk.run("completions fish").ok()).unwrap();
    for shell in ["zsh", "fish"] {
        for (line, expected) in [
            ("packmule ex", &["exchange", "export"][..]),
            ("packmule fleet ", &["new", "rotate"]),
            ("packmule help conf", &["conflicts"]),
            ("packmule status no", &["north.db"]),
            ("packmule status --ch", &["--check"]),
            ("packmule --wait 5 fleet new f", &["fleet.key", "functions/"]),
            ("packmule track a.db t --mode ", &["per-device", "shared"]),
            ("packmule init a.db --fleet f", &["fleet.key", "functions/"]),
            ("packmule init a.db --name ", &[]),
            ("packmule completions ", &["bash", "fish", "zsh"]),
            ("packmule board i", &["install"]),
        ] {
            let Some(mut offered) = offered_by(&desk, shell, line) else {
                skips::skip(&format!("what {shell} offers"), "it is not installed");
                break;
            };
            offered.sort_unstable();
            // zsh adds the slash of a folder when it is chosen.
            let expected =
                expected.iter().map(|word| if shell == "zsh" { word.trim_end_matches('/') } else { word });
            assert_eq!(offered, expected.collect::<Vec<_>>(), "{shell}: {line}");
        }
    }
}

#[test]
fn every_shell_has_every_command_and_every_flag() {
    let desk = Desk::new();
    let table = table(&desk);
    for (shell, mark) in [("bash", "--"), ("zsh", "--"), ("fish", "-l ")] {
        let script = desk.run(&format!("completions {shell}")).ok();
        for (command, flags) in &table {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
            for flag in flags {
                let ends = |at: &str| !at.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
                let found = script.split(&format!("{mark}{flag}")).skip(1).any(ends);
                assert!(found, "{shell}: {command} --{flag}");
            }
        }
        // Where the shell is here, it can read it.
        std::fs::write(desk.path(shell), &script).unwrap();
        let read = Command::new(shell).arg("-n").arg(desk.path(shell)).stdin(Stdio::null()).output();
        if let Ok(read) = read {
            assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {read:?}");
        }
    }
    has(
        &desk.run("completions csh").usage(),
        &["there are completions for bash, zsh and fish, not for `csh`"],
    );
    assert_eq!(desk.run("completions fish --json").json()["shell"], "fish");
}

#[test]
fn manual_pages_say_what_help_says() {
    let desk = Desk::new();
    has(&desk.run("man pages/man1").ok(), &["pages written"]);
    // Again: they are written anew.
    let files = desk.run("man pages/man1 --json").json();
    let files: Vec<&str> = files["files"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(files[0], "pages/man1/packmule.1");
    let plain = |name: &str| std::fs::read_to_string(desk.path(name)).unwrap().replace(r"\-", "-");
    let general = plain(files[0]);
    for (command, flags) in table(&desk) {
        assert!(general.contains(&format!("\\fB{command}")), "{command}");
        let pages: Vec<String> = match command.as_str() {
            "fleet" => {
                ["new", "rotate"].map(|word| plain(&format!("pages/man1/packmule-fleet-{word}.1"))).into()
            }
            _ => vec![plain(&format!("pages/man1/packmule-{command}.1"))],
        };
        for flag in flags {
            assert!(
                pages.iter().all(|page| page.contains(&format!("\\fB--{flag}\\fR"))),
                "{command} --{flag}"
            );
        }
    }
    for file in &files {
        let page = plain(file);
        let title = Path::new(file).file_stem().unwrap().to_str().unwrap();
        assert!(page.starts_with(&format!(".TH {} 1 ", title.to_uppercase())), "{file}");
        has(&page, &[".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH SEE ALSO\n"]);
        // Nothing in the text is taken for a request.
        let known = ["TH", "SH", "SS", "TP", "B", "I", "BR", "nf", "fi"];
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(known.contains(&line[1..].split(' ').next().unwrap()), "{file}: {line}");
        }
        // Where the formatter is here, it finds nothing wrong.
        let read = Command::new("groff").args(["-man", "-ww", "-z"]).arg(desk.path(file)).output();
        if let Ok(read) = read {
            assert!(read.status.success() && read.stderr.is_empty(), "{file}: {read:?}");
        }
    }
    has(
        &desk.run("man pages/man1/packmule.1").refused("pages/man1/packmule.1"),
        &["could not make the directory"],
    );
}

/// Words can change; the codes are what programs go by.
#[test]
fn what_failed_has_a_code() {
    let desk = Desk::fleet(&["north"]);
    desk.run("init alone.db --name alone").ok();
    desk.run("export alone.db alone.pmb").ok();
    desk.run("export north.db north.pmb").ok();
    let mut torn = std::fs::read(desk.path("north.pmb")).unwrap();
    torn.truncate(torn.len() - 7);
    std::fs::write(desk.path("torn.pmb"), torn).unwrap();
    std::fs::write(desk.path("empty.pmb"), "").unwrap();
    std::fs::write(desk.path("text.db"), "not a database at all, but some text\n").unwrap();
    desk.sql("plain.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    for (line, code) in [
        ("status none.db", "file-not-found"),
        ("import north.db none.pmb", "file-not-found"),
        ("status north.db --nothing", "usage"),
        ("status plain.db", "not-a-device"),
        ("status text.db", "not-a-database"),
        ("init north.db", "already-a-device"),
        ("untrack north.db nothing", "unknown-table"),
        ("track north.db nothing", "cannot-track"),
        ("retire north.db nobody", "unknown-device"),
        ("resolve north.db 0123456789 --delete", "unknown-conflict"),
        ("import north.db torn.pmb", "bundle-damaged"),
        ("import north.db text.db", "not-a-bundle"),
        ("status .", "refused"),
        ("sync north.db --serial nowhere", "connection"),
    ] {
        let ran = desk.run(&format!("{line} --json"));
        let document: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{line}: {e}: {}", ran.out));
        assert_eq!(document["code"], code, "{line}: {document:#}");
    }
}

/// With -q a command prints only what was asked for, and what is wrong: nothing for a timer's mail on a good day.
#[test]
fn quiet_says_only_what_was_asked_for_and_what_is_wrong() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    for line in [
        "seal north.db",
        "track north.db settings",
        "export north.db north.pmb",
        "import base.db north.pmb",
        "exchange north.db card",
        "exchange base.db card",
        "compact base.db",
        "verify base.db",
        "report base.db fleet.html",
        "board install --root root",
    ] {
        assert_eq!(desk.run(&format!("{line} -q")).ok(), "", "{line}");
    }
    for line in [
        "status base.db",
        "devices base.db",
        "digest base.db",
        "log base.db",
        "conflicts base.db",
        "inspect north.pmb",
    ] {
        let plain = desk.run(line).ok();
        let without_clock = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.contains("clock")).map(str::to_owned).collect()
        };
        assert_eq!(
            without_clock(&desk.run(&format!("{line} --quiet")).ok()),
            without_clock(&plain),
            "{line}"
        );
    }
    std::fs::write(desk.path("card/PACKMULE/TORN0001.PMB"), "PACKMULE, but torn").unwrap();
    let wrong = desk.run("exchange base.db card -q").ok();
    has(&wrong, &["TORN0001.PMB: skipped: "]);
    assert_eq!(wrong.lines().count(), 1, "{wrong}");
    has(&desk.run("import base.db none.pmb -q").refused("none.pmb"), &["could not read it"]);
    desk.run("seal none.db -q").refused("none.db");
    assert!(desk.run("seal north.db -q --json").json()["frames"].is_number());
}

/// With -v it says on standard error what it looked at; standard output stays as it is.
#[test]
fn verbose_says_what_was_looked_at() {
    let desk = Desk::fleet(&["north"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    let said = |line: &str| {
        let ran = desk.run(line);
        assert_eq!(ran.status, Some(0), "{line}: {}", ran.err);
        (ran.out, ran.err)
    };
    let (out, err) = said("exchange north.db card -v");
    has(&out, &["left for"]);
    has(&err, &["north.db: opened: the device north-", "budgets of ", "it took 0."]);
    let (_, err) = said("exchange base.db card --verbose");
    has(&err, &["base.db: opened: the base base-", ".PMB: read to its end: 0 frames known already, "]);
    let (out, err) = said("digest base.db -v");
    assert_eq!(out, desk.run("digest base.db").ok());
    has(&err, &["base.db: opened"]);
    let (out, _) = said("digest base.db -v --json");
    serde_json::from_str::<Value>(&out).unwrap();
    desk.run("export north.db north.pmb").ok();
    has(&said("import base.db north.pmb -v").1, &["north.pmb: read to its end"]);
    // Whoever relies on --check knows what it went by.
    let (out, _) = said("status base.db --check");
    has(&out, &["no person is needed", "looked at: the secret key, open conflicts, 2 tables", "2 devices"]);
}
