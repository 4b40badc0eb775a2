//! Manual pages, made from the table of commands.

use std::fmt::Write;

use super::help::{ABOUT, CHOICES_MAX, EXIT_STATUS, HEADINGS, OPERANDS};
use super::{COMMANDS, COMMON, Command, Flag, Group};

/// Makes all pages of section 1: the names of their files, and what is in them.
pub fn manual() -> Vec<(String, String)> {
    let of_commands = COMMANDS.iter().map(|command| (format!("{}.1", page(command)), of(command)));
    std::iter::once(("packmule.1".to_owned(), general())).chain(of_commands).collect()
}

fn page(command: &Command) -> String {
    format!("packmule-{}", command.words.replace(' ', "-"))
}

/// Writes text so that the formatter takes nothing in it for its own.
fn plain(text: &str) -> String {
    let text: Vec<&str> = text.split_whitespace().collect();
    let text = text.join(" ").replace('\\', r"\e").replace('-', r"\-").replace('\'', r"\(aq");
    if text.starts_with('.') { format!(r"\&{text}") } else { text }
}

fn head(name: &str, summary: &str) -> String {
    format!(
        ".TH {} 1 \"\" \"packmule {}\" \"Packmule\"\n.SH NAME\n{} \\- {}\n",
        plain(&name.to_uppercase()),
        env!("CARGO_PKG_VERSION"),
        plain(name),
        plain(summary)
    )
}

fn value(flag: &Flag) -> Option<String> {
    // A long list of choices is told beside the flag.
    let value = flag.value?;
    Some(if value.len() > CHOICES_MAX { flag.name.to_uppercase() } else { value.to_owned() })
}

fn flags<'a>(title: &str, flags: impl Iterator<Item = &'a &'static Flag>) -> String {
    let mut text = format!(".SH {title}\n");
    for flag in flags {
        let value = value(flag).map_or(String::new(), |value| format!(r" \fI{}\fR", plain(&value)));
        let more = if flag.many { " ..." } else { "" };
        let short = flag.short.map_or_else(String::new, |c| format!("\\fB\\-{c}\\fR, "));
        let name = plain(flag.name);
        let _ = writeln!(text, ".TP\n{short}\\fB\\-\\-{name}\\fR{value}{more}\n{}", plain(flag.about));
        if let Some(choices) = flag.value.filter(|value| value.len() > CHOICES_MAX) {
            let choices: Vec<&str> = choices.split('|').collect();
            let _ = writeln!(text, "(one of: {})", plain(&choices.join(", ")));
        }
    }
    text
}

fn of(command: &Command) -> String {
    let mut text = head(&page(command), command.summary);
    let _ = write!(text, ".SH SYNOPSIS\n.B packmule {}\n", plain(command.words));
    if !command.operands.is_empty() {
        let _ = writeln!(text, ".I {}", plain(command.operands));
    }
    for flag in command.flags {
        let value = value(flag).map_or(String::new(), |value| format!(" {value}"));
        let _ = writeln!(text, "[{}]", plain(&format!("--{}{value}", flag.name)));
    }
    let _ = write!(text, ".SH DESCRIPTION\n{}\n", plain(command.about));
    if !command.flags.is_empty() {
        text.push_str(&flags("OPTIONS", command.flags.iter()));
    }
    text.push_str(&flags("OPTIONS OF EVERY COMMAND", COMMON.iter()));
    text.push_str(".SH EXAMPLES\n.nf\n");
    for example in command.examples {
        let _ = writeln!(text, "{}", plain(example));
    }
    text + ".fi\n.SH SEE ALSO\n.BR packmule (1)\n"
}

fn general() -> String {
    let mut text = head("packmule", "keeps SQLite databases in step where there is no network");
    let _ =
        write!(text, ".SH SYNOPSIS\n.B packmule\n.I COMMAND DB\n\\&...\n.SH DESCRIPTION\n{}\n", plain(ABOUT));
    text.push_str(".SH COMMANDS\n");
    let unlisted = [(Group::Unlisted, "Help:")];
    for (group, heading) in HEADINGS.iter().chain(&unlisted) {
        let _ = writeln!(text, ".SS {}", plain(heading.trim_end_matches(':')));
        for command in COMMANDS.iter().filter(|command| command.group == *group) {
            let (words, operands) = (plain(command.words), plain(command.operands));
            let _ = writeln!(text, ".TP\n\\fB{words}\\fR \\fI{operands}\\fR\n{}", plain(command.summary));
        }
    }
    text.push_str(&flags("OPTIONS OF EVERY COMMAND", COMMON.iter()));
    let _ = write!(
        text,
        ".SH OPERANDS\n{}\n.SH EXIT STATUS\n{}\n.SH SEE ALSO\n",
        plain(OPERANDS),
        plain(EXIT_STATUS)
    );
    let pages: Vec<String> = COMMANDS.iter().map(|c| format!(".BR {} (1)", plain(&page(c)))).collect();
    text + &pages.join(" ,\n") + "\n"
}
