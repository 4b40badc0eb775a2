//! General help, help for a command, usage lines: made from the table.

use super::{COMMANDS, COMMON, Command, Flag, Group};
use crate::text::{columns, wrap};

/// The headings of general help, in order.
const HEADINGS: &[(Group, &str)] = &[
    (Group::Devices, "Devices and trust:"),
    (Group::Tables, "Tables:"),
    (Group::Carry, "Carrying:"),
    (Group::Conflicts, "Conflicts:"),
    (Group::Look, "Looking and checking:"),
];

/// Makes a command's usage line.
pub fn usage(command: &Command) -> String {
    let mut parts = vec![format!("packmule {}", command.words)];
    if !command.operands.is_empty() {
        parts.push(command.operands.into());
    }
    parts.extend(command.flags.iter().map(|flag| format!("[{}]", flag_form(flag))));
    wrap(&parts, 13)
}

fn flag_form(flag: &Flag) -> String {
    let more = if flag.many { " ..." } else { "" };
    match flag.value {
        Some(value) => format!("--{} {value}{more}", flag.name),
        None => format!("--{}", flag.name),
    }
}

fn flag_lines<'a>(flags: impl Iterator<Item = &'a &'static Flag>) -> String {
    let rows: Vec<Vec<String>> =
        flags.map(|flag| vec![format!("  {}", flag_form(flag)), flag.about.to_owned()]).collect();
    columns(&rows).join("\n")
}

/// Makes the help for one command.
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

/// Makes what `packmule --help` prints.
pub fn general() -> String {
    let mut text = String::from(
        "Packmule keeps SQLite databases in step where there is no network: devices write,\n\
         bundles are carried by any means, and a base merges what they bring.\n\n\
         usage: packmule COMMAND DB ...\n",
    );
    for (group, heading) in HEADINGS {
        text.push_str(&format!("\n{heading}\n"));
        let rows: Vec<Vec<String>> = COMMANDS
            .iter()
            .filter(|command| command.group == *group)
            .map(|command| {
                let operands: Vec<&str> = command.operands.split(' ').collect();
                vec![format!("  {} {}", command.words, operands.join(" ")), command.summary.to_owned()]
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
