//! A command line, taken apart by the list of commands.

use std::ffi::{OsStr, OsString};

use lexopt::Arg;

use super::flags;
use super::{Args, COMMANDS, COMMON, Command, Flag, Name, UsageError, nearest};

/// What is asked for.
pub enum Request {
    /// General help, or help for a command.
    Help(Option<&'static Command>),
    /// The version.
    Version,
    /// To run a command.
    Command(Args),
}

/// What of a command line has been read.
#[derive(Default)]
struct Read {
    command: Option<&'static Command>,
    words: Vec<OsString>,
    flags: Vec<(&'static Flag, OsString)>,
    help: bool,
    version: bool,
}

/// Takes a command line apart.
pub fn parse(line: &[OsString]) -> Result<Request, UsageError> {
    let mut read = Read::default();
    let mut parser = lexopt::Parser::from_args(line.iter().cloned());
    loop {
        let command = read.command;
        let wrong = |e: lexopt::Error| UsageError { command, message: e.to_string() };
        let Some(arg) = parser.next().map_err(wrong)? else { break };
        match arg {
            Arg::Short('h') | Arg::Long("help") => read.help = true,
            Arg::Short('V') | Arg::Long("version") => read.version = true,
            Arg::Value(word) => {
                read.words.push(word);
                if command.is_none() {
                    read.command = command_of(&read.words)?;
                }
            }
            Arg::Long(name) => {
                let flag = known_flag(command, name).ok_or_else(|| unknown_flag(command, name))?;
                // No operand is missing any more: what follows is the flag's.
                let full = command.is_some_and(|c| {
                    read.words.len() >= c.words.split(' ').count().saturating_add(c.count.1)
                });
                read_flag(&mut parser, flag, full, &mut read.flags).map_err(wrong)?;
            }
            Arg::Short(c) => {
                let flag = COMMON.iter().find(|flag| flag.short == Some(c));
                let flag = flag.ok_or_else(|| unknown_flag(command, &c.to_string()))?;
                read_flag(&mut parser, flag, false, &mut read.flags).map_err(wrong)?;
            }
        }
        if read.version {
            return Ok(Request::Version);
        }
    }
    request(read, line.is_empty())
}

/// Makes a request of what has been read.
fn request(mut read: Read, empty: bool) -> Result<Request, UsageError> {
    let Some(command) = read.command else {
        return match read.words.first() {
            Some(word) if !read.help => Err(unfinished(word)),
            _ if read.help || empty => Ok(Request::Help(None)),
            _ => Err(UsageError { command: None, message: "no command is given".into() }),
        };
    };
    if command.name == Name::Help {
        let asked = &read.words[1..];
        return Ok(Request::Help(if asked.is_empty() { None } else { named(asked)? }));
    }
    if read.help {
        return Ok(Request::Help(Some(command)));
    }
    let operands = read.words.split_off(command.words.split(' ').count());
    let args = Args { command, operands, flags: read.flags };
    if args.len() < command.count.0 {
        let missing = command.operands.split(' ').nth(args.len()).unwrap_or("an operand");
        return Err(args.wrong(format!("{} is missing", missing.trim_matches(['[', ']', '.']))));
    }
    if let Some(extra) = args.operands.get(command.count.1) {
        return Err(args.wrong(format!("`{}` is one too many", extra.to_string_lossy())));
    }
    if args.has(&flags::PASSPHRASE_FILE) && is_of_fleet_key(&args) && !args.has(&flags::FLEET) {
        return Err(args.wrong("--passphrase-file is for the fleet key: give that too, with --fleet FILE"));
    }
    Ok(Request::Command(args))
}

/// Returns whether a passphrase that a command takes can only be that of the fleet key of its flag.
fn is_of_fleet_key(args: &Args) -> bool {
    args.command.flags.iter().any(|flag| flag.name == flags::FLEET.name)
}

fn known_flag(command: Option<&'static Command>, name: &str) -> Option<&'static Flag> {
    match command {
        Some(command) => command.all_flags().find(|flag| flag.name == name),
        None => COMMON.iter().copied().find(|flag| flag.name == name),
    }
}

fn read_flag(
    parser: &mut lexopt::Parser,
    flag: &'static Flag,
    full: bool,
    flags: &mut Vec<(&'static Flag, OsString)>,
) -> Result<(), lexopt::Error> {
    let Some(choices) = flag.value else {
        flags.push((flag, OsString::new()));
        return Ok(());
    };
    let value = parser.value()?;
    // What is not a choice is called by a name in capitals.
    if !choices.contains(|c: char| c.is_ascii_uppercase()) || choices.contains('|') && !flag.many {
        let fits = |choice: &str| match choice.split_once('=') {
            Some((name, _)) => value.to_string_lossy().starts_with(&format!("{name}=")),
            None => value == choice,
        };
        if !choices.split('|').any(fits) {
            let shown = value.to_string_lossy();
            let is = if choices.contains('|') { "is one of" } else { "can only be" };
            let meant = match nearest(&shown, choices.split('|')) {
                Some(choice) => format!("; did you mean `{choice}`?"),
                None => String::new(),
            };
            return Err(format!("--{} {is} {choices}, not `{shown}`{meant}", flag.name).into());
        }
    }
    flags.push((flag, value));
    let is_more =
        |arg: &OsStr| arg.to_str().is_some_and(|arg| !arg.starts_with('-') && (full || arg.contains('=')));
    let more = || flag.many.then(|| parser.try_raw_args()?.next_if(is_more)).flatten();
    flags.extend(std::iter::from_fn(more).map(|value| (flag, value)));
    Ok(())
}

/// Finds the command that these words name; `None` if there are too few of them yet.
fn command_of(words: &[OsString]) -> Result<Option<&'static Command>, UsageError> {
    let given: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let given = given.join(" ");
    if let Some(command) = COMMANDS.iter().find(|c| c.words == given) {
        return Ok(Some(command));
    }
    if COMMANDS.iter().any(|c| c.words.starts_with(&format!("{given} "))) {
        return Ok(None);
    }
    let near = nearest(&given, COMMANDS.iter().map(|c| c.words));
    let message = match near {
        Some(near) => format!("there is no command `{given}`: did you mean `{near}`?"),
        None => format!("there is no command `{given}`"),
    };
    Err(UsageError { command: None, message })
}

/// Finds the command that is asked about, of which the first word will do.
fn named(words: &[OsString]) -> Result<Option<&'static Command>, UsageError> {
    let first = words[0].to_string_lossy();
    let command = COMMANDS.iter().find(|c| c.words.split(' ').next() == Some(&first));
    command.map_or_else(|| command_of(&words[..1]), |command| Ok(Some(command)))
}

fn unfinished(word: &OsStr) -> UsageError {
    let word = word.to_string_lossy();
    let command = COMMANDS.iter().find(|c| c.words.starts_with(&format!("{word} ")));
    UsageError { command, message: format!("`{word}` needs another word") }
}

fn unknown_flag(command: Option<&'static Command>, name: &str) -> UsageError {
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    let names: Vec<&'static str> = command
        .map_or_else(|| COMMON.iter().map(|f| f.name).collect(), |c| c.all_flags().map(|f| f.name).collect());
    let message = match (nearest(name, names.into_iter()), command) {
        (Some(near), _) => format!("there is no flag {dashes}{name}: did you mean --{near}?"),
        (None, Some(command)) => format!("`{}` has no flag {dashes}{name}", command.words),
        (None, None) => format!("there is no flag {dashes}{name} before the command"),
    };
    UsageError { command, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::flags;

    fn args(line: &str) -> Args {
        let line: Vec<OsString> = line.split(' ').map(Into::into).collect();
        match parse(&line) {
            Ok(Request::Command(args)) => args,
            _ => panic!("{line:?}"),
        }
    }

    #[test]
    fn several_values_follow_a_flag_that_takes_many() {
        let set = args("resolve DB ID --set a=1 b=2 --json");
        assert_eq!(set.all(&flags::SET).ok(), Some(vec!["a=1", "b=2"]));
        assert!(set.has(&flags::JSON));
        let set = args("resolve --set a=-1 DB ID");
        assert_eq!((set.len(), set.text(1).ok()), (2, Some("ID")));
        let to = args("export DB FILE --encrypt-to north south --json");
        assert_eq!(to.all(&flags::ENCRYPT_TO).ok(), Some(vec!["north", "south"]));
        let to = args("export --encrypt-to north --encrypt-to south DB FILE");
        assert_eq!(to.all(&flags::ENCRYPT_TO).ok(), Some(vec!["north", "south"]));
        assert_eq!((to.len(), to.text(1).ok()), (2, Some("FILE")));
    }
}
