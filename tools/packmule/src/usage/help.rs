//! General help, help for a command, usage lines: made from the table.

use super::{COMMANDS, COMMON, Command, Flag, Group, Name};
use crate::text::wrap;

/// The headings of general help, in order.
pub(super) const HEADINGS: &[(Group, &str)] = &[
    (Group::Devices, "Devices and trust:"),
    (Group::Tables, "Tables:"),
    (Group::Carry, "Carrying:"),
    (Group::Conflicts, "Conflicts:"),
    (Group::Look, "Looking and checking:"),
];

/// Makes a command's usage line.
pub fn usage(command: &Command) -> String {
    // A line may be 80 wide with what stands before it.
    let mut parts = vec![format!("usage: packmule {}", command.words)];
    if !command.operands.is_empty() {
        parts.push(command.operands.into());
    }
    parts.extend(command.flags.iter().map(|flag| format!("[{}]", flag_form(flag))));
    wrap(&parts, 13)
}

/// The longest list of choices that stands in the place of a flag's value; a longer one is told beside it.
pub(super) const CHOICES_MAX: usize = 40;

fn flag_form(flag: &Flag) -> String {
    let more = if flag.many { " ..." } else { "" };
    match flag.value {
        Some(value) if value.len() > CHOICES_MAX => {
            format!("--{} {}{more}", flag.name, flag.name.to_uppercase())
        }
        Some(value) => format!("--{} {value}{more}", flag.name),
        None => format!("--{}", flag.name),
    }
}

/// Returns how a flag is typed, its letter first.
fn flag_typed(flag: &Flag) -> String {
    let short = flag.short.map_or_else(String::new, |c| format!("-{c}, "));
    short + &flag_form(flag)
}

fn flag_lines<'a>(flags: impl Iterator<Item = &'a &'static Flag>) -> String {
    let about = |flag: &Flag| match flag.value.filter(|value| value.len() > CHOICES_MAX) {
        Some(choices) => format!("{}: {}", flag.about, choices.split('|').collect::<Vec<_>>().join(", ")),
        None => flag.about.to_owned(),
    };
    let rows: Vec<(String, String)> =
        flags.map(|flag| (format!("  {}", flag_typed(flag)), about(flag))).collect();
    described(&rows)
}

/// The widest name beside which what it is stands on the same line.
const NAME_MAX: usize = 32;

/// Puts what things are beside their names, in lines of 80; below a name that is too long for that.
fn described(rows: &[(String, String)]) -> String {
    let width = |name: &str| name.chars().count();
    let beside = rows.iter().map(|(name, _)| width(name)).filter(|n| *n <= NAME_MAX).max().unwrap_or(0) + 2;
    let lines = rows.iter().map(|(name, about)| {
        let mut words = about.split(' ').map(str::to_owned);
        let (above, name) =
            if width(name) > NAME_MAX { (format!("{name}\n"), "") } else { ("".into(), &**name) };
        let first = format!("{name:<beside$}{}", words.next().unwrap_or_default());
        above + &wrap(&std::iter::once(first).chain(words).collect::<Vec<_>>(), beside)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Makes the help for one command.
pub fn of(command: &Command) -> String {
    let about: Vec<String> = command.about.split_whitespace().map(str::to_owned).collect();
    let summary: Vec<String> = command.summary.split(' ').map(str::to_owned).collect();
    let mut text = format!("{}\n\n{}\n\n{}\n", wrap(&summary, 0), usage(command), wrap(&about, 0));
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

/// What the program is.
pub(super) const ABOUT: &str = "\
Packmule keeps SQLite databases in step where there is no network: devices
write, bundles are carried by any means, and a base merges what they bring.";

/// What the operands are.
pub(super) const OPERANDS: &str =
    "DB is an SQLite database file. DEVICE is a device's name, or enough of its id.";

/// What the program ends with.
pub(super) const EXIT_STATUS: &str =
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 a person is needed.";

/// What most people need, day by day.
const FIRST: &[Name] = &[
    Name::Demo,
    Name::Init,
    Name::Track,
    Name::Exchange,
    Name::Sync,
    Name::Status,
    Name::Conflicts,
    Name::Resolve,
    Name::Log,
];

/// Makes what is printed where nothing is asked for: it fits on the screen of a terminal, 24 lines.
pub fn first() -> String {
    let of = |name: &Name| COMMANDS.iter().find(|command| command.name == *name);
    let rows: Vec<(String, String)> = FIRST
        .iter()
        .filter_map(of)
        .map(|command| (format!("  {} {}", command.words, command.operands), command.summary.to_owned()))
        .collect();
    format!(
        "{ABOUT}\n\nusage: packmule COMMAND DB ...\n\n{}\n\n\
         {OPERANDS}\n\
         `packmule help` lists all commands; `packmule COMMAND --help` says more, with\n\
         an example.\n",
        described(&rows)
    )
}

/// Makes what `packmule --help` prints.
pub fn general() -> String {
    let mut text = format!("{ABOUT}\n\nusage: packmule COMMAND DB ...\n");
    for (group, heading) in HEADINGS {
        text.push_str(&format!("\n{heading}\n"));
        let rows: Vec<(String, String)> = COMMANDS
            .iter()
            .filter(|command| command.group == *group)
            .map(|command| (format!("  {} {}", command.words, command.operands), command.summary.to_owned()))
            .collect();
        text.push_str(&described(&rows));
        text.push('\n');
    }
    text.push_str(&format!(
        "\nflags of every command:\n{}\n\n\
         {OPERANDS}\n{EXIT_STATUS}\n\
         `packmule COMMAND --help` says more, with an example; `packmule demo` shows\n\
         the whole trip.\n",
        flag_lines(COMMON.iter())
    ));
    text
}
