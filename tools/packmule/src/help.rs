//! General help, help for a command, usage lines: made from the table.

use crate::args::{Command, Flag};
use crate::commands::{COMMANDS, COMMON, HEADINGS};
use crate::output::columns;

/// A command's usage line.
pub fn usage(command: &Command) -> String {
    let mut parts = vec![format!("packmule {}", command.name)];
    if !command.operands.is_empty() {
        parts.push(command.operands.into());
    }
    parts.extend(command.flags.iter().map(|flag| format!("[{}]", flag_form(flag))));
    wrap(&parts, 13)
}

/// Words in lines of 80 letters, those after the first set in.
fn wrap(words: &[String], indent: usize) -> String {
    let mut text = String::new();
    let mut width = 0;
    for word in words {
        let len = word.chars().count();
        if width > 0 && width + 1 + len > 80 {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            width = indent;
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += len;
    }
    text
}

fn flag_form(flag: &Flag) -> String {
    let more = if flag.many { " ..." } else { "" };
    match flag.value {
        Some(value) => format!("--{} {value}{more}", flag.name),
        None => format!("--{}", flag.name),
    }
}

fn flag_lines<'a>(flags: impl Iterator<Item = &'a Flag>) -> String {
    let rows: Vec<Vec<String>> =
        flags.map(|flag| vec![format!("  {}", flag_form(flag)), flag.about.to_owned()]).collect();
    columns(&rows).join("\n")
}

/// Help for one command.
pub fn of(command: &Command) -> String {
    let about: Vec<String> = command.about.split_whitespace().map(str::to_owned).collect();
    let mut text = format!("{}\n\nusage: {}\n\n{}\n", command.summary, usage(command), wrap(&about, 0));
    if !command.flags.is_empty() {
        text.push_str(&format!("\nflags:\n{}\n", flag_lines(command.flags.iter())));
    }
    text.push_str(&format!("\nflags of every command:\n{}\n", flag_lines(COMMON.iter())));
    text.push_str(if command.examples.len() == 1 { "\nexample:\n" } else { "\nexamples:\n" });
    for example in command.examples {
        text.push_str(&format!("  {example}\n"));
    }
    text
}

/// What `packmule --help` prints.
pub fn general() -> String {
    let mut text = String::from(
        "Packmule keeps SQLite databases in step where there is no network: devices write,\n\
         bundles are carried by any means, and a base merges what they bring.\n\n\
         usage: packmule COMMAND DB ...\n",
    );
    for heading in HEADINGS {
        text.push_str(&format!("\n{heading}\n"));
        let rows: Vec<Vec<String>> = COMMANDS
            .iter()
            .filter(|command| command.group == *heading)
            .map(|command| {
                let operands: Vec<&str> = command.operands.split(' ').collect();
                vec![format!("  {} {}", command.name, operands.join(" ")), command.summary.to_owned()]
            })
            .collect();
        for line in columns(&rows) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text.push_str(&format!(
        "\nflags of every command:\n{}\n\n\
         DB is an SQLite database file. DEVICE is a device's name, or enough of its id.\n\
         Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n\
         `packmule COMMAND --help` says more, with an example; `packmule demo` shows the whole trip.\n",
        flag_lines(COMMON.iter())
    ));
    text
}
