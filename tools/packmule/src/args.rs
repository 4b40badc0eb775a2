//! A command line, taken apart by the table of commands.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use lexopt::Arg;

use crate::Context;
use crate::commands::{COMMANDS, COMMON};
use crate::failure::Failure;

/// One flag of a command.
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// What its value is called, or the choices for it, with `|` between them; none if it takes none.
    pub value: Option<&'static str>,
    /// It can be given several times, and several `NAME=VALUE` can follow it.
    pub many: bool,
    /// Help, in a line.
    pub about: &'static str,
}

/// One command.
pub struct Command {
    /// A word, or two.
    pub name: &'static str,
    /// What comes after it, as the usage line has it.
    pub operands: &'static str,
    /// At least and at most how many operands.
    pub count: (usize, usize),
    /// Its flags, beside those that all commands have.
    pub flags: &'static [Flag],
    /// The heading under which general help has it.
    pub group: &'static str,
    /// Help, in a line.
    pub summary: &'static str,
    /// Help, in a paragraph or several.
    pub about: &'static str,
    /// Command lines that people can copy.
    pub examples: &'static [&'static str],
    /// What it does.
    pub run: fn(&mut Context<'_, '_>) -> Result<(), Failure>,
}

impl Command {
    /// All flags that it takes.
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().chain(COMMON)
    }
}

/// What is asked for.
pub enum Request {
    /// General help, or help for a command.
    Help(Option<&'static Command>),
    /// The version.
    Version,
    /// To run a command.
    Command(Args),
}

/// A command with its operands and flags.
pub struct Args {
    /// The command.
    pub command: &'static Command,
    operands: Vec<OsString>,
    flags: Vec<(&'static str, OsString)>,
}

impl Args {
    /// Whether the flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == flag)
    }

    /// The value of a flag, the last if it was given several times.
    pub fn flag(&self, flag: &str) -> Result<Option<&str>, Failure> {
        Ok(self.all(flag)?.pop())
    }

    /// All values of a flag.
    pub fn all(&self, flag: &str) -> Result<Vec<&str>, Failure> {
        self.flags.iter().filter(|(name, _)| *name == flag).map(|(_, value)| self.utf8(value)).collect()
    }

    /// A flag's value as a path.
    pub fn flag_path(&self, flag: &str) -> Option<&Path> {
        self.flags.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| Path::new(value))
    }

    /// How many operands there are.
    pub fn len(&self) -> usize {
        self.operands.len()
    }

    /// An operand as a path.
    pub fn path(&self, at: usize) -> &Path {
        Path::new(self.operands.get(at).map_or(OsStr::new(""), OsString::as_os_str))
    }

    /// The operands from one on as paths.
    pub fn paths(&self, from: usize) -> Vec<&Path> {
        self.operands.iter().skip(from).map(Path::new).collect()
    }

    /// An operand as text.
    pub fn text(&self, at: usize) -> Result<&str, Failure> {
        self.operands.get(at).map_or(Ok(""), |operand| self.utf8(operand))
    }

    /// The operands from one on as text.
    pub fn texts(&self, from: usize) -> Result<Vec<&str>, Failure> {
        self.operands.iter().skip(from).map(|operand| self.utf8(operand)).collect()
    }

    /// Wrong usage of this command.
    pub fn wrong(&self, message: impl Into<String>) -> Failure {
        Failure::usage(Some(self.command), message)
    }

    fn utf8<'a>(&self, text: &'a OsStr) -> Result<&'a str, Failure> {
        text.to_str().ok_or_else(|| self.wrong(format!("`{}` is not UTF-8", text.to_string_lossy())))
    }
}

/// Takes a command line apart.
pub fn parse(line: &[OsString]) -> Result<Request, Failure> {
    let mut parser = lexopt::Parser::from_args(line.iter().cloned());
    let mut command: Option<&'static Command> = None;
    let mut words: Vec<OsString> = Vec::new();
    let mut flags: Vec<(&'static str, OsString)> = Vec::new();
    let mut help = false;
    let wrong = |command, e: lexopt::Error| Failure::usage(command, e.to_string());
    while let Some(arg) = parser.next().map_err(|e| wrong(command, e))? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => help = true,
            Arg::Short('V') | Arg::Long("version") => return Ok(Request::Version),
            Arg::Value(word) => {
                words.push(word);
                if command.is_none() {
                    command = command_of(&words)?;
                }
            }
            Arg::Long(name) => {
                let known = match command {
                    Some(command) => command.all_flags().find(|f| f.name == name),
                    None => COMMON.iter().find(|f| f.name == name),
                };
                let flag = known.ok_or_else(|| unknown_flag(command, name))?;
                read_flag(&mut parser, flag, &mut flags).map_err(|e| wrong(command, e))?;
            }
            Arg::Short(c) => return Err(unknown_flag(command, &c.to_string())),
        }
    }
    let Some(command) = command else {
        return match words.first() {
            Some(word) if !help => Err(unfinished(word)),
            _ if help || flags.is_empty() && line.is_empty() => Ok(Request::Help(None)),
            _ => Err(Failure::usage(None, "no command is given")),
        };
    };
    if command.name == "help" {
        let asked: Vec<OsString> = words.split_off(1);
        return Ok(Request::Help(if asked.is_empty() { None } else { named(&asked)? }));
    }
    if help {
        return Ok(Request::Help(Some(command)));
    }
    let operands = words.split_off(command.name.split(' ').count());
    let args = Args { command, operands, flags };
    if args.len() < command.count.0 {
        let missing = command.operands.split(' ').nth(args.len()).unwrap_or("an operand");
        return Err(args.wrong(format!("{} is missing", missing.trim_matches(['[', ']', '.']))));
    }
    if let Some(extra) = args.operands.get(command.count.1) {
        return Err(args.wrong(format!("`{}` is one too many", extra.to_string_lossy())));
    }
    Ok(Request::Command(args))
}

fn read_flag(
    parser: &mut lexopt::Parser,
    flag: &'static Flag,
    flags: &mut Vec<(&'static str, OsString)>,
) -> Result<(), lexopt::Error> {
    let Some(choices) = flag.value else {
        flags.push((flag.name, OsString::new()));
        return Ok(());
    };
    let value = parser.value()?;
    if choices.contains('|') && !flag.many {
        let fits = |choice: &str| match choice.split_once('=') {
            Some((name, _)) => value.to_string_lossy().starts_with(&format!("{name}=")),
            None => value == choice,
        };
        if !choices.split('|').any(fits) {
            let shown = value.to_string_lossy();
            return Err(format!("--{} is one of {choices}, not `{shown}`", flag.name).into());
        }
    }
    flags.push((flag.name, value));
    let is_more = |arg: &OsStr| arg.to_str().is_some_and(|arg| !arg.starts_with('-') && arg.contains('='));
    let more = || flag.many.then(|| parser.try_raw_args()?.next_if(is_more)).flatten();
    flags.extend(std::iter::from_fn(more).map(|value| (flag.name, value)));
    Ok(())
}

/// The command that these words name; `None` if there are too few of them yet.
fn command_of(words: &[OsString]) -> Result<Option<&'static Command>, Failure> {
    let given: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let given = given.join(" ");
    if let Some(command) = COMMANDS.iter().find(|c| c.name == given) {
        return Ok(Some(command));
    }
    if COMMANDS.iter().any(|c| c.name.starts_with(&format!("{given} "))) {
        return Ok(None);
    }
    let near = nearest(&given, COMMANDS.iter().map(|c| c.name));
    Err(Failure::usage(
        None,
        match near {
            Some(near) => format!("there is no command `{given}`: did you mean `{near}`?"),
            None => format!("there is no command `{given}`"),
        },
    ))
}

/// The command that is asked about, of which the first word will do.
fn named(words: &[OsString]) -> Result<Option<&'static Command>, Failure> {
    let first = words[0].to_string_lossy();
    let command = COMMANDS.iter().find(|c| c.name.split(' ').next() == Some(&first));
    command.map_or_else(|| command_of(&words[..1]), |command| Ok(Some(command)))
}

fn unfinished(word: &OsStr) -> Failure {
    let word = word.to_string_lossy();
    let command = COMMANDS.iter().find(|c| c.name.starts_with(&format!("{word} ")));
    Failure::usage(command, format!("`{word}` needs another word"))
}

fn unknown_flag(command: Option<&'static Command>, name: &str) -> Failure {
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    let names: Vec<&'static str> = command
        .map_or_else(|| COMMON.iter().map(|f| f.name).collect(), |c| c.all_flags().map(|f| f.name).collect());
    let message = match (nearest(name, names.into_iter()), command) {
        (Some(near), _) => format!("there is no flag {dashes}{name}: did you mean --{near}?"),
        (None, Some(command)) => format!("`{}` has no flag {dashes}{name}", command.name),
        (None, None) => format!("there is no flag {dashes}{name} before the command"),
    };
    Failure::usage(command, message)
}

/// The name that was most likely meant, if one is near.
fn nearest(given: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let allowed = if given.chars().count() <= 3 { 1 } else { 2 };
    names
        .map(|name| {
            let begins = given.len() >= 3 && name.starts_with(given);
            (if begins { 1 } else { distance(given, name) }, name)
        })
        .filter(|(far, _)| *far <= allowed)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// How many letters must be added, taken away, replaced or exchanged with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(set.all("set").ok(), Some(vec!["a=1", "b=2"]));
        assert!(set.has("json"));
        let set = args("resolve --set a=-1 DB ID");
        assert_eq!((set.len(), set.text(1).ok()), (2, Some("ID")));
    }

    #[test]
    fn near_misses_are_known() {
        let names = || COMMANDS.iter().map(|c| c.name);
        assert_eq!(nearest("exprot", names()), Some("export"));
        assert_eq!(nearest("conflict", names()), Some("conflicts"));
        assert_eq!(nearest("frobnicate", names()), None);
    }
}
