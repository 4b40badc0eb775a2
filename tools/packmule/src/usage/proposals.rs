//! Every command that a message, a page, a unit or a help text proposes is one that can be typed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{COMMANDS, Request, parse};

/// Where messages, pages and units stand, from the repository on.
const FOLDERS: &[&str] =
    &["tools/packmule/src", "src/engine", "src/carry", "src/core", "src/docs", "boards", "README.md"];

/// What a part that is filled in can be, where not any word will do.
const FILLED: &[(&str, &str)] = &[("{kind}", "unique"), ("{resolve}", "packmule resolve DB ID")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| files(&entry.unwrap().path(), found));
    } else {
        found.push(path.into());
    }
}

/// What begins as a command, and is none: the first line of a fleet key's file, a test of this program.
const NONE: &[&str] = &["packmule fleet key 1", "--bin packmule page"];

/// What can be read of a file: of sources, not the comments, and one line where a literal goes on.
fn text(path: &Path) -> String {
    let whole = fs::read_to_string(path).unwrap();
    if path.extension().is_none_or(|end| end != "rs") {
        return whole;
    }
    let code = whole.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut text = String::new();
    for line in code.take_while(|line| *line != "mod tests {") {
        match text.ends_with('\\') {
            true => text.truncate(text.len() - 1),
            false => text.push('\n'),
        }
        text.push_str(if text.ends_with('\n') { line } else { line.trim_start() });
    }
    text
}

/// The commands in a text, each up to where it ends.
fn commands(text: &str) -> Vec<String> {
    let mut text = text.to_owned();
    NONE.iter().for_each(|none| text = text.replace(none, ""));
    FILLED.iter().for_each(|(part, is)| text = text.replace(part, is));
    let begins = text.match_indices("packmule ").filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|c| "`\" \n(|;/".contains(c)) || text[..*at].ends_with("\\n")
    });
    let of_command = |rest: &str| {
        let word = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        let known = COMMANDS.iter().any(|c| c.words.split(' ').next() == Some(word));
        // Between backquotes every word is meant as one.
        known || rest.contains(word) && word.len() > 1 && rest[word.len()..].starts_with('`')
    };
    begins
        .map(|(at, mark)| (at, &text[at + mark.len()..]))
        .filter(|(_, rest)| of_command(rest))
        .map(|(at, rest)| {
            let quoted = text[..at].ends_with('`');
            let ends = |(at, c): (usize, char)| {
                let next = &rest[at..];
                let stops = c == '`' || c == '"' || next.starts_with("\\n");
                let of_shell =
                    [" |", " #", " >", " -->", " &&", ";", "\n"].iter().any(|end| next.starts_with(end));
                stops || !quoted && (of_shell || c == ')')
            };
            let end = rest.char_indices().find(|at| ends(*at)).map_or(rest.len(), |(at, _)| at);
            rest[..end].to_owned()
        })
        .collect()
}

/// What commands of other programs begin with.
const OTHERS: &[&str] =
    &["sqlite3 ", "sudo ", "systemctl ", "chmod ", "chown ", "kill ", "udevadm ", "date "];

/// The commands of other programs in a line: all of it, or between backquotes.
fn of_others(line: &str) -> Vec<&str> {
    let parts = std::iter::once(line).chain(line.split('`').skip(1).step_by(2));
    parts.filter(|part| OTHERS.iter().any(|program| part.starts_with(program))).collect()
}

/// Takes a command apart as a shell does; what is filled in is a word.
fn words(command: &str) -> Vec<OsString> {
    let mut words: Vec<String> = Vec::new();
    let (mut fresh, mut quoted, mut filled) = (true, false, 0);
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            '{' => filled += 1,
            '}' => filled -= 1,
            ' ' | '\n' if !quoted && filled == 0 => fresh = true,
            _ => {}
        }
        if c == ' ' && fresh {
            continue;
        }
        if std::mem::take(&mut fresh) {
            words.push(String::new());
        }
        words.iter_mut().next_back().unwrap().extend(Some(c).filter(|c| *c != '\''));
    }
    words.into_iter().map(OsString::from).collect()
}

/// Returns whether it is only the name of a command, or with a flag that is meant.
fn is_mention(command: &str) -> bool {
    COMMANDS.iter().any(|known| {
        let Some(rest) = command.trim().strip_prefix(known.words) else { return false };
        let has = |name: &str| known.all_flags().any(|flag| flag.name == name);
        rest.split(' ').skip(1).all(|word| word.strip_prefix("--").is_some_and(has))
            && !rest.starts_with(char::is_alphabetic)
    })
}

/// Says what is wrong with a command, if anything is.
fn wrong(command: &str) -> Option<String> {
    match parse(&words(command)) {
        Ok(Request::Command(_) | Request::Help(Some(_))) => None,
        _ if is_mention(command) => None,
        Ok(_) => Some("is no command".into()),
        Err(e) => Some(e.message),
    }
}

#[test]
fn every_command_that_is_proposed_can_be_typed() {
    let mut all = Vec::new();
    FOLDERS.iter().for_each(|folder| files(&root().join(folder), &mut all));
    let (mut proposed, mut found) = (BTreeSet::new(), Vec::new());
    for path in all.iter().filter(|path| !path.ends_with("usage/proposals.rs")) {
        for command in commands(&text(path)) {
            if let Some(why) = wrong(&command) {
                found.push(format!("{}: `packmule {command}`: {why}", path.display()));
            }
            if !is_mention(&command) {
                proposed.insert(command);
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(proposed.len() > 120, "{} are found: {proposed:#?}", proposed.len());
    let not_named = COMMANDS.iter().filter(|command| {
        let words = command.words;
        !proposed.iter().any(|line| line.starts_with(words))
    });
    let not_named: Vec<&str> = not_named.map(|command| command.words).collect();
    assert_eq!(not_named, [""; 0], "each has an example at least");
}

#[test]
fn a_wrong_proposal_is_found() {
    let text = "run `packmule status {db} --chekc`; \"\\n  packmule trust {db} {}\\n\" or packmule frobnicate, and\n\
                packmule resolve a.db --kind {kind} --set a='b c' | less; of Packmule `packmule devices`";
    let found = commands(text);
    assert_eq!(
        found,
        ["status {db} --chekc", "trust {db} {}", "resolve a.db --kind unique --set a='b c'", "devices"]
    );
    assert_eq!(words(&found[2]), ["resolve", "a.db", "--kind", "unique", "--set", "a=b c"]);
    assert!(wrong(&found[0]).is_some() && wrong(&found[1]).is_none() && is_mention(&found[3]));
    assert_eq!(commands("`packmule frobnicate`"), ["frobnicate"]);
    assert_eq!(of_others("run `chmod 600 *`, or `sudo` or kill it"), ["chmod 600 *"]);
    assert_eq!(of_others("kill *"), ["kill *"]);
}

/// Where messages stand; the examples of help are typed by a test of their own, as are the commands of pages.
const MESSAGES: &[&str] = &["tools/packmule/src", "src/engine", "src/carry", "src/core"];

/// What is not run as it is printed, and why, or what runs it.
const ELSEWHERE: &[(&str, &str)] = &[(
    "a bundle over HTTP has at most 256 MiB; a session over this port has no limit: \
         `packmule sync DB http://HOST:PORT` on the device that has it; nor has a card: `packmule exchange DB DIRECTORY`",
    "tests/stories/http.rs: an answer to another program, which types it",
)];

/// The texts of a source, line by line, with `*` for what is filled in.
fn lines(source: &str) -> Vec<String> {
    let mut source = source.to_owned();
    FILLED.iter().for_each(|(part, _)| {
        source = source.replace(part, &part.replace("{resolve}", "packmule resolve * *"))
    });
    let (mut all, mut text, mut filled) = (Vec::new(), None::<String>, 0);
    let mut letters = source.chars().peekable();
    while let Some(c) = letters.next() {
        let Some(line) = &mut text else {
            match c {
                '"' => (text, filled) = (Some(String::new()), 0),
                // A letter: `'"'` begins no text.
                '\'' if letters.peek() == Some(&'"') => drop(letters.next()),
                _ => {}
            }
            continue;
        };
        match c {
            '\\' => match letters.next() {
                Some('n') => all.extend(text.replace(String::new())),
                Some(c) => line.push(c),
                None => {}
            },
            '"' => all.extend(text.take()),
            '{' if letters.peek() != Some(&'{') => filled = 1,
            '{' => drop(letters.next()),
            '}' if filled == 1 => {
                filled = 0;
                line.push('*');
            }
            c if filled == 0 => line.push(c),
            _ => {}
        }
    }
    all.iter().map(|line| line.trim().to_owned()).collect()
}

/// The words by which tests have commands run as they are printed.
fn run_by_tests() -> Vec<String> {
    let mut all = Vec::new();
    files(&root().join("tests"), &mut all);
    let sources = all.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let mut words = Vec::new();
    for source in sources.map(|path| text(path)) {
        for call in [".proposes(", ".proposes_with("] {
            let after = source.split(call).skip(1);
            words.extend(
                after.filter_map(|rest| {
                    Some(rest.trim_start().strip_prefix('"')?.split('"').next()?.to_owned())
                }),
            );
        }
    }
    words
}

/// A test has it printed, and run as it is printed (`tests/cli/support`): these are the words of the message around it.
#[test]
fn every_command_of_a_message_is_run_as_it_is_printed() {
    let mut all = Vec::new();
    MESSAGES.iter().for_each(|folder| files(&root().join(folder), &mut all));
    let run = run_by_tests();
    let (mut not_run, mut known) = (BTreeSet::new(), BTreeSet::new());
    for path in all.iter().filter(|path| !path.to_string_lossy().contains("/usage/")) {
        for line in lines(&text(path)) {
            let proposed = commands(&line).into_iter().filter(|command| !is_mention(command));
            let proposed = proposed.map(|command| format!("packmule {command}"));
            for command in proposed.chain(of_others(&line).into_iter().map(str::to_owned)) {
                known.insert(line.clone());
                let is_run = |words: &&String| {
                    line.contains(words.as_str())
                        && words.contains(&command)
                        && (**words != command || line == command)
                };
                if !run.iter().any(|words| is_run(&words)) && !ELSEWHERE.iter().any(|(of, _)| *of == line) {
                    not_run.insert(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    assert!(not_run.is_empty(), "have a test print each, and run it (`proposes`): {not_run:#?}");
    assert!(known.len() > 40, "{known:#?}");
    let is_there = |test: &str| root().join(test.split([',', ':']).next().unwrap()).is_file();
    let gone: Vec<_> =
        ELSEWHERE.iter().filter(|(line, test)| !known.contains(*line) || !is_there(test)).collect();
    assert!(gone.is_empty(), "no message has these any more: {gone:#?}");
}
