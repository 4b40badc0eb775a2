//! The commands that are about the program itself, those that run in the background, and the one that has other programs
//! decide: a part of the table in `commands`.

use super::{Command, Group, Name, flags};

pub const BOARD: Command = Command {
    name: Name::Board,
    words: "board",
    operands: "[install [DB] | remove | check | card DEVICE]",
    count: (0, 2),
    flags: &[&flags::ROOT, &flags::DRY_RUN],
    group: Group::Look,
    summary: "which board this is taken for, with its budgets; or its services: install, remove, check them",
    about: "The profile sets how much memory is used, and where the serial line is. `install` puts systemd units in place: one that \
            waits on the serial lines, one that exchanges with a card or stick when it is inserted and has a folder PACKMULE, and one \
            that keeps up the links of /etc/packmule/packmule.toml. \
            With DB it fits them to that database: they run as its owner, with the groups that the serial ports need, and may \
            write to its folder and to no other. It names every file, and starts nothing; what to run then is printed. `check` is \
            a dry start: it ends with 1 and says what is wrong, if anything is. `remove` takes the services away again; the database \
            stays. `card` ends with 0 if a disk is a card or stick, and with 1 if the system itself runs from it: the units ask that. \
            With --root the system is one on a card that is mounted there, and DB a path below it, or as the board will have it.",
    examples: &[
        "packmule board",
        "packmule board --board milkv-duo",
        "packmule board install /home/pi/app/data.db --dry-run",
        "packmule board install card/home/pi/app/data.db --root card",
        "packmule board check",
    ],
};

pub const COMPLETIONS: Command = Command {
    name: Name::Completions,
    words: "completions",
    operands: "bash|zsh|fish",
    count: (1, 1),
    flags: &[],
    group: Group::Look,
    summary: "print completions for a shell",
    about: "For who runs the program without its Debian package, which has them: put what is printed where the shell looks for it, \
            or read it in at once, as the examples do.",
    examples: &[
        "source <(packmule completions bash)",
        "packmule completions zsh >~/.zfunc/_packmule",
        "packmule completions fish >~/.config/fish/completions/packmule.fish",
    ],
};

pub const MAN: Command = Command {
    name: Name::Man,
    words: "man",
    operands: "DIRECTORY",
    count: (1, 1),
    flags: &[],
    group: Group::Look,
    summary: "write the manual pages: one of the program, one of each command",
    about: "Into the directory, which is made if need be; pages that are there are written anew. The Debian package has them.",
    examples: &["packmule man ~/.local/share/man/man1"],
};

pub const DEMO: Command = Command {
    name: Name::Demo,
    words: "demo",
    operands: "",
    count: (0, 0),
    flags: &[&flags::KEEP],
    group: Group::Look,
    summary: "the whole trip on this machine's own sensors, in some seconds",
    about: "Three boards' databases get readings of this machine's sensors, written through plain SQLite. Bundles are carried to a base and \
            back, an edit that two boards made at once shows as a conflict and is closed, and all four end with the same digest.",
    examples: &["packmule demo", "packmule demo --keep /tmp/packmule-demo"],
};

pub const HELP: Command = Command {
    name: Name::Help,
    words: "help",
    operands: "[COMMAND]",
    count: (0, 2),
    flags: &[],
    group: Group::Unlisted,
    summary: "print help",
    about: "The same as --help.",
    examples: &["packmule help track"],
};

pub const RUN: Command = Command {
    name: Name::Run,
    words: "run",
    operands: "DB",
    count: (1, 1),
    flags: &[&flags::CONFIG, &flags::RUN_CHECK],
    group: Group::Carry,
    summary: "keep links up in the background: networks, serial lines, cards; compact and prune when due",
    about: "FILE has a [[link]] for each way to others: to = \"tcp://HOST:PORT\", \"ws://HOST:PORT\", \"serial:FILE\", \
            \"exec:COMMAND\", \"find:\" or \"card:DIRECTORY\"; either stay = true, or an interval (\"15m\"), and how soon after something is \
            written it begins (changes = \"30s\"). [compact] and [[prune]] say what upkeep is due how often. A link that fails is \
            begun again after 1 s at first, then later and later, after up to 15 minutes, each time at random. It prints a line \
            for each change of state, with a priority for the journal where it does not print to a terminal, and tells systemd \
            how it stands; `status` shows each link. Ends in good order on SIGTERM and Ctrl-C, with exit status 0.",
    examples: &[
        "packmule run north.db --check --config packmule.toml",
        "packmule run north.db --config packmule.toml",
    ],
};

pub const FIND: Command = Command {
    name: Name::Find,
    words: "find",
    operands: "[DB]",
    count: (0, 1),
    flags: &[&flags::SECONDS],
    group: Group::Carry,
    summary: "who is on this network and serves",
    about: "Asks all on the links of this machine, without a router, a name or a clock; those answer that run `packmule serve` with \
            --announce. Anybody can answer anything: what is said here only tells where to knock, and each session proves who is \
            there. With DB it also says who claims to be of its fleet; `packmule sync DB find:` takes one of these, a base if there is one.",
    examples: &["packmule find", "packmule find north.db --seconds 5"],
};

pub const DECIDE: Command = Command {
    name: Name::Decide,
    words: "decide",
    operands: "DB",
    count: (1, 1),
    flags: &[],
    group: Group::Conflicts,
    summary: "have the programs decide that tables name",
    about: "Those of `track --policy custom=COMMAND`: each is asked about the open conflicts of its table. Every command \
            that takes in does this at its end, and `run` once in a while; after `serve` it is for a timer to do. Exit \
            status 1 if a program failed.",
    examples: &["packmule decide base.db"],
};
