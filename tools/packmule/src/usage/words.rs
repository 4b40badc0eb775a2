//! What can stand where on a command line, as completions need it.

use super::{COMMANDS, Command, Flag};

/// What can follow where something is expected.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// One of these words.
    Words(Vec<&'static str>),
    /// A file or a directory.
    File,
    /// What only the user knows.
    Anything,
}

/// Returns what the value of a flag can be; none if it takes none.
pub fn value(flag: &Flag) -> Option<Expected> {
    let value = flag.value?;
    let is_name = |text: &str| text.contains(|c: char| c.is_ascii_uppercase());
    let choices: Vec<&str> = value.split('|').filter(|choice| !is_name(choice)).collect();
    Some(match value.trim_end_matches('.') {
        "FILE" | "DIRECTORY" | "DB" => Expected::File,
        // The choices stand after a name of the user's.
        value if choices.is_empty() || value.starts_with("NAME=") => Expected::Anything,
        _ => Expected::Words(choices),
    })
}

/// Returns the words that a command's operands can be, beside files: what is not in capitals.
pub fn operands(command: &Command) -> Vec<&'static str> {
    command
        .operands
        .split([' ', '|'])
        .map(|operand| operand.trim_matches(['[', ']', '.']))
        .filter(|operand| !operand.is_empty() && !operand.contains(|c: char| c.is_ascii_uppercase()))
        .collect()
}

/// Returns every beginning of a command, shorter ones first: `fleet`, then `fleet new`.
pub fn beginnings() -> Vec<&'static str> {
    let mut all: Vec<&str> = Vec::new();
    for command in COMMANDS {
        let ends = command.words.match_indices(' ').map(|(at, _)| at).chain([command.words.len()]);
        for beginning in ends.map(|end| &command.words[..end]) {
            if !all.contains(&beginning) {
                all.push(beginning);
            }
        }
    }
    all
}

/// Returns the words that can follow a beginning, with what they are: of none, the first words of all commands.
pub fn following(beginning: &str) -> Vec<(&'static str, &'static str)> {
    let mut words: Vec<(&str, &str)> = Vec::new();
    for command in COMMANDS {
        let rest = match beginning {
            "" => Some(command.words),
            _ => command.words.strip_prefix(beginning).and_then(|rest| rest.strip_prefix(' ')),
        };
        let Some(rest) = rest else { continue };
        let word = rest.split(' ').next().unwrap_or(rest);
        if words.iter().all(|(known, _)| *known != word) {
            words.push((word, command.summary));
        }
    }
    words
}
