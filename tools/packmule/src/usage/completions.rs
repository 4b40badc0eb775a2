//! Completions for shells, made from the table of commands.

use std::fmt::Write;

use super::words::{Expected, beginnings, following, operands, value};
use super::{COMMANDS, COMMON, Flag, Name};

/// Makes the completions for a shell; none if it is not one of those that `packmule completions` names.
pub fn completions(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// Puts text between quotes, as bash and zsh read it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Joins words with a space between them.
fn joined(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect::<Vec<_>>().join(" ")
}

fn flag_words(flags: impl Iterator<Item = &'static Flag>) -> String {
    joined(flags.map(|flag| format!("--{}", flag.name)))
}

const BASH_HEAD: &str = r#"# bash completions for packmule, made by `packmule completions bash`.
_packmule() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command= longer word words= files= flags i
    # bash takes `--flag=value` apart.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        [[ $word == -* ]] && continue
        longer=${command:+$command }$word
        case $longer in
"#;

const BASH_TAIL: &str = r#"        esac ;;
    esac
    COMPREPLY=()
    if [[ $cur == -* ]]; then
        words=$flags files=
    fi
    if [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    fi
    if [[ $files ]]; then
        local found
        mapfile -t found < <(compgen -f -- "$cur")
        COMPREPLY+=("${found[@]}")
        compopt -o filenames 2>/dev/null
    fi
    return 0
}
complete -F _packmule packmule
"#;

fn bash() -> String {
    let mut text = BASH_HEAD.to_owned();
    let all: Vec<String> = beginnings().iter().map(|words| quoted(words)).collect();
    let _ = writeln!(text, "            {}) command=$longer ;;", all.join("|"));
    text.push_str(
        "            *) [[ $command ]] && break ;;\n        esac\n    done\n    case $command in\n",
    );
    for command in COMMANDS {
        let flags = flag_words(command.all_flags());
        let _ = writeln!(text, "        {}) flags={} ;;", quoted(command.words), quoted(&flags));
    }
    let common = quoted(&flag_words(COMMON.iter().copied()));
    let _ = writeln!(text, "        *) flags={common} ;;\n    esac\n    case \"$command $prev\" in");
    for (command, flag) in with_values() {
        let then = match value(flag) {
            Some(Expected::Words(words)) => format!("words={}", quoted(&joined(words))),
            Some(Expected::File) => "files=yes".into(),
            Some(Expected::Anything) | None => ":".into(),
        };
        let _ = writeln!(text, "        '{command} --{}') {then} ;;", flag.name);
    }
    text.push_str("        *) case $command in\n");
    for beginning in std::iter::once("").chain(beginnings()) {
        let (words, files) = after(beginning);
        let files = if files { "; files=yes" } else { "" };
        let words = joined(words.iter().map(|(word, _)| word));
        let _ = writeln!(text, "            {}) words={}{files} ;;", quoted(beginning), quoted(&words));
    }
    text + BASH_TAIL
}

/// Returns every flag that takes a value, with the words of its command; those of all commands also before any.
fn with_values() -> impl Iterator<Item = (&'static str, &'static Flag)> {
    let before = COMMON.iter().map(|flag| ("", *flag));
    let of_commands = COMMANDS.iter().flat_map(|c| c.all_flags().map(|flag| (c.words, flag)));
    before.chain(of_commands).filter(|(_, flag)| flag.value.is_some())
}

/// Returns the words that can come after a beginning, with what they are, and whether files can.
fn after(beginning: &str) -> (Vec<(&'static str, &'static str)>, bool) {
    let mut words = following(beginning);
    let Some(command) = COMMANDS.iter().find(|command| command.words == beginning) else {
        return (words, false);
    };
    if command.name == Name::Help {
        return (following(""), false);
    }
    words.extend(operands(command).into_iter().map(|word| (word, "")));
    (words, command.operands.contains(|c: char| c.is_ascii_uppercase()))
}

const ZSH_HEAD: &str = r#"#compdef packmule
# zsh completions for packmule, made by `packmule completions zsh`.
_packmule() {
    local curcontext="$curcontext" state line command= longer word
    local -i i at=1
    local -a packmule_next
    typeset -A opt_args
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        [[ $word == -* ]] && continue
        longer=${command:+$command }$word
        case $longer in
"#;

const ZSH_MIDDLE: &str = r#"            *) [[ -n $command ]] && break ;;
        esac
    done
    # What comes before the end of the command is none of the flags' business.
    words=("${(@)words[at,-1]}")
    (( CURRENT -= at - 1 ))
    case $command in
"#;

const ZSH_TAIL: &str = r#"    esac
}
if [[ $funcstack[1] == _packmule ]]; then
    _packmule "$@"
else
    compdef _packmule packmule
fi
"#;

fn zsh() -> String {
    let mut text = ZSH_HEAD.to_owned();
    let all: Vec<String> = beginnings().iter().map(|words| quoted(words)).collect();
    let _ = writeln!(text, "            {}) command=$longer; at=$i ;;", all.join("|"));
    text.push_str(ZSH_MIDDLE);
    for beginning in std::iter::once("").chain(beginnings()) {
        let (words, files) = after(beginning);
        let command = COMMANDS.iter().find(|command| command.words == beginning);
        let flags = command.map_or_else(|| COMMON.to_vec(), |command| command.all_flags().collect());
        let _ = writeln!(text, "        {})", quoted(beginning));
        let next = words.iter().map(|(word, about)| quoted(&format!("{word}:{}", about.replace(':', r"\:"))));
        let _ = writeln!(text, "            packmule_next=({})", next.collect::<Vec<_>>().join(" "));
        let rest = match (words.is_empty(), files) {
            (true, false) => "",
            (true, true) => " '*:file:_files'",
            (false, false) => " '*:word:{_describe word packmule_next}'",
            (false, true) => " '*:word or file:{_describe word packmule_next; _files}'",
        };
        let _ = writeln!(
            text,
            "            _arguments{}{rest}",
            flags.iter().map(|flag| zsh_flag(flag)).collect::<String>()
        );
        text.push_str("            ;;\n");
    }
    text + ZSH_TAIL
}

fn zsh_flag(flag: &Flag) -> String {
    let plain = |text: &str| {
        let escape = |c: char| if matches!(c, '[' | ']' | ':' | '\\') { format!("\\{c}") } else { c.into() };
        text.chars().map(escape).collect::<String>()
    };
    let value = match value(flag) {
        None => String::new(),
        Some(Expected::File) => ":file:_files".into(),
        Some(Expected::Anything) => format!(":{}: ", plain(flag.value.unwrap_or_default())),
        Some(Expected::Words(words)) => format!(":{}:({})", flag.name, joined(words)),
    };
    let many = if flag.many { "*" } else { "" };
    format!(
        " \\\n                {}",
        quoted(&format!("{many}--{}[{}]{value}", flag.name, plain(flag.about)))
    )
}

const FISH_HEAD: &str = r#"# fish completions for packmule, made by `packmule completions fish`.
function __packmule_command
    set -l command ''
    set -l given (commandline -opc)
    for word in $given[2..]
        string match -q -- '-*' $word; and continue
        set -l longer (string trim -- "$command $word")
        if contains -- $longer $__packmule_commands
            set command $longer
        else if test -n "$command"
            break
        end
    end
    echo $command
end
function __packmule_is
    set -l command (__packmule_command)
    test "$command" = "$argv"
end
"#;

fn fish() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
    let mut text = FISH_HEAD.to_owned();
    let all: Vec<String> = beginnings().iter().map(|words| quoted(words)).collect();
    let _ = writeln!(text, "set -g __packmule_commands {}", all.join(" "));
    for flag in COMMON {
        let _ = writeln!(text, "complete -c packmule{}", fish_flag(flag, quoted));
    }
    for beginning in std::iter::once("").chain(beginnings()) {
        let (words, files) = after(beginning);
        let here = format!("complete -c packmule -n {}", quoted(&format!("__packmule_is {beginning}")));
        if !files {
            let _ = writeln!(text, "{here} -f");
        }
        for (word, about) in words {
            let _ = writeln!(text, "{here} -a {word} -d {}", quoted(about));
        }
        let command = COMMANDS.iter().find(|command| command.words == beginning);
        for flag in command.into_iter().flat_map(|command| command.flags) {
            let _ = writeln!(text, "{here}{}", fish_flag(flag, quoted));
        }
    }
    text
}

fn fish_flag(flag: &Flag, quoted: impl Fn(&str) -> String) -> String {
    let value = match value(flag) {
        None => String::new(),
        Some(Expected::File) => " -r -F".into(),
        Some(Expected::Anything) => " -x".into(),
        Some(Expected::Words(words)) => format!(" -x -a {}", quoted(&joined(words))),
    };
    let short = flag.short.map_or_else(String::new, |c| format!(" -s {c}"));
    format!("{short} -l {}{value} -d {}", flag.name, quoted(flag.about))
}
