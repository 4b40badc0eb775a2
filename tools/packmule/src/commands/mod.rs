//! The table of commands: help, usage lines and parsing are made from it.

mod board;
mod compaction;
mod conflicts;
mod device;
mod exchange;
mod look;
mod receive;
mod send;
mod serial;
mod tables;

use std::path::Path;

use packmule::{Engine, Error};

use crate::Context;
use crate::args::{Command, Flag};
use crate::failure::Failure;
use crate::show::{quoted, shown};
use crate::sources::{self, Kind};

const fn flag(name: &'static str, value: Option<&'static str>, about: &'static str) -> Flag {
    Flag { name, value, many: false, about }
}

const fn many(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, value: Some(value), many: true, about }
}

/// Flags of every command.
pub const COMMON: &[Flag] = &[
    flag("json", None, "print one JSON document; errors too"),
    flag("wait", Some("SECONDS"), "how long to wait for another program's write to end (5)"),
    flag(
        "board",
        Some("NAME"),
        "the board whose budgets are used (what the device tree says; else the host)",
    ),
    flag("help", None, "print help"),
    flag("version", None, "print the version"),
];

const DEVICES: &str = "Devices and trust:";
const TABLES: &str = "Tables:";
const CARRY: &str = "Carrying:";
const CONFLICTS: &str = "Conflicts:";
const LOOK: &str = "Looking and checking:";

/// The headings of general help, in order.
pub const HEADINGS: &[&str] = &[DEVICES, TABLES, CARRY, CONFLICTS, LOOK];

const ANY: usize = usize::MAX;

/// All commands.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "init",
        operands: "DB",
        count: (1, 1),
        flags: &[
            flag("name", Some("NAME"), "what people call the device (the host's name)"),
            flag("fleet", Some("FILE"), "the fleet key that vouches for it, of `packmule fleet new`"),
            flag("base", None, "it gathers the rows of all devices' per-device tables"),
        ],
        group: DEVICES,
        summary: "make the database a device; create the file if need be",
        about: "Gives the database an identity of its own: an ed25519 key, whose secret half goes to a file beside it \
                (DB.pmkey). Tables and rows that are there stay as they are. Never copy the two files to a second board: \
                each board gets its own `init`.",
        examples: &[
            "packmule init north.db --name north --fleet fleet.key",
            "packmule init base.db --name base --fleet fleet.key --base",
        ],
        run: device::init,
    },
    Command {
        name: "fleet new",
        operands: "FILE",
        count: (1, 1),
        flags: &[],
        group: DEVICES,
        summary: "make a fleet key",
        about: "Devices that were made with the same fleet key trust each other without further steps. The file is secret: \
                whoever has it can add devices. It is needed at `init` alone; keep it off the boards.",
        examples: &["packmule fleet new fleet.key"],
        run: device::fleet_new,
    },
    Command {
        name: "trust",
        operands: "DB BUNDLE|FINGERPRINT",
        count: (2, 2),
        flags: &[],
        group: DEVICES,
        summary: "trust one device: the sender of a bundle, or by its fingerprint",
        about: "Frames of a device that is not trusted are refused. Devices of the same fleet need no `trust`. Compare the \
                fingerprint that is printed with what `packmule status` shows on the device itself.",
        examples: &[
            "packmule trust base.db /media/card/north.pmb",
            "packmule trust base.db 3f9a61c20b7d4e5586a7c1d2e3f40516",
        ],
        run: device::trust,
    },
    Command {
        name: "revoke",
        operands: "DB DEVICE",
        count: (2, 2),
        flags: &[],
        group: DEVICES,
        summary: "take in no more frames of a device; what it wrote before stays",
        about: "For a board that was stolen or sold. Each device decides for itself: run it wherever it is to count. \
                `packmule trust DB FINGERPRINT` undoes it.",
        examples: &["packmule revoke base.db north"],
        run: device::revoke,
    },
    Command {
        name: "devices",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: DEVICES,
        summary: "every device that is known, and what it is known to have",
        about: "FRAMES HERE are the frames of that device that are applied here, of shared and of per-device tables. CLOCK says how far its clock is off, if what it wrote shows that. HAS OF OURS is \
                how many of our frames it has told us it has. HEARD is when, by this machine's clock.",
        examples: &["packmule devices base.db"],
        run: device::devices,
    },
    Command {
        name: "track",
        operands: "DB TABLE...",
        count: (2, ANY),
        flags: &[
            flag(
                "mode",
                Some("shared|per-device"),
                "all devices edit the same rows, or each owns its rows (shared)",
            ),
            flag(
                "append",
                None,
                "rows are only ever added, under an AUTOINCREMENT key: capture costs nothing",
            ),
            flag(
                "merge",
                Some("row|cell"),
                "a row stays as one author wrote it, or edits of different columns merge (row)",
            ),
            flag(
                "policy",
                Some("manual|lww|prefer-device=DEVICE"),
                "who wins: a person, the last writer, a device (manual)",
            ),
            many(
                "column",
                "NAME=counter|max|min|lww",
                "concurrent writes of this column add up, or the greatest, least, last wins",
            ),
        ],
        group: TABLES,
        summary: "keep tables in step from now on, with the rows that they have",
        about: "Puts plain SQL triggers on the table, so that any program with any SQLite library can write to it. Rows that \
                are there already are taken in. Tracking it again in the same way does nothing.",
        examples: &[
            "packmule track north.db settings",
            "packmule track north.db readings --mode per-device --append",
            "packmule track north.db stock --merge cell --column amount=counter",
        ],
        run: tables::track,
    },
    Command {
        name: "untrack",
        operands: "DB TABLE...",
        count: (2, ANY),
        flags: &[],
        group: TABLES,
        summary: "let tables go; their rows stay",
        about: "What was written before is sealed first. What is written from then on stays on this device, and what others \
                write to the table is no longer shown here.",
        examples: &["packmule untrack north.db scratch"],
        run: tables::untrack,
    },
    Command {
        name: "schema",
        operands: "DB add-column TABLE NAME TYPE",
        count: (5, 5),
        flags: &[flag(
            "default",
            Some("VALUE"),
            "what rows have that are there already: 5, 1.5, text, NULL, x'00ff'",
        )],
        group: TABLES,
        summary: "add a column to a table, here and wherever it is tracked",
        about: "The column travels like rows do: each device adds it when it hears of it, and rows that name it wait until \
                then. An application's own ALTER TABLE ... ADD COLUMN does the same. Adding a column that is there with the \
                same type does nothing.",
        examples: &["packmule schema north.db add-column settings unit TEXT --default C"],
        run: tables::add_column,
    },
    Command {
        name: "seal",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: TABLES,
        summary: "turn what was written since the last seal into frames",
        about: "One seal is one atomic group: other devices see all of it or none. Whatever sends or takes in seals first, so \
                this is needed only to mark a point, for instance after each hour.",
        examples: &["packmule seal north.db"],
        run: tables::seal,
    },
    Command {
        name: "compact",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: TABLES,
        summary: "fold away what every device has",
        about: "What every device that is not retired is known to have leaves the log; tables, open conflicts and digest stay as they \
                are. Before another device is known nothing does. Tells in the log what this device has seen, so that others can compact too: run it now and then on each.",
        examples: &["packmule compact base.db"],
        run: compaction::compact,
    },
    Command {
        name: "snapshot",
        operands: "DB FILE",
        count: (2, 2),
        flags: &[],
        group: CARRY,
        summary: "write what a new device starts from",
        about: "A signed file with the rows of the shared tables and the frames that are still in flight. A device that is new, or \
                whose place in the log was compacted away, starts from it with `packmule join`.",
        examples: &["packmule snapshot base.db start.pms"],
        run: compaction::snapshot,
    },
    Command {
        name: "join",
        operands: "DB FILE",
        count: (2, 2),
        flags: &[
            flag("name", Some("NAME"), "what people call the device (the host's name)"),
            flag("fleet", Some("FILE"), "the fleet key that vouches for it"),
        ],
        group: CARRY,
        summary: "start from a snapshot",
        about: "Makes the database a device that has what the snapshot has (and the file, if need be). Rows that it had itself and that \
                nobody had heard of are kept: where the snapshot has other ones, that is a conflict. A device that had sealed frames \
                before gets a new identity.",
        examples: &["packmule join south.db start.pms --name south --fleet fleet.key"],
        run: compaction::join,
    },
    Command {
        name: "retire",
        operands: "DB DEVICE",
        count: (2, 2),
        flags: &[],
        group: DEVICES,
        summary: "let the log wait for a device no longer",
        about: "For a device that will not come back: until it is retired, whatever it is not known to have stays in every log. It \
                travels to all devices. Should the device come back, it starts from a snapshot.",
        examples: &["packmule retire base.db south"],
        run: compaction::retire,
    },
    Command {
        name: "export",
        operands: "DB BUNDLE",
        count: (2, 2),
        flags: &[flag("for", Some("DEVICE"), "only what that device lacks, as last heard of")],
        group: CARRY,
        summary: "write a bundle: the frames that another device lacks",
        about: "Without --for, all frames of the log. The file is there whole or not at all; one of the same name is replaced \
                only if it is an older bundle of this device. BUNDLE `-` is standard output. A bundle that gets lost is no lost \
                data: what a peer has is known only from itself.",
        examples: &[
            "packmule export north.db /media/card/north.pmb --for base",
            "packmule export north.db - | ssh base packmule import base.db -",
        ],
        run: send::export,
    },
    Command {
        name: "import",
        operands: "DB BUNDLE|DIRECTORY...",
        count: (2, ANY),
        flags: &[],
        group: CARRY,
        summary: "take in bundles; directories are searched for them",
        about: "A bundle is checked from its first to its last byte before anything of it is taken in; taking it in again changes \
                nothing. A bad file that was given by name is an error. In a directory (*.pmb, and whatever begins as a bundle) it is \
                named and stepped over; only if nothing could be taken in is that a failure. `-` is standard input.",
        examples: &["packmule import base.db north.pmb", "packmule import base.db /media/card"],
        run: receive::import,
    },
    Command {
        name: "merge",
        operands: "BASE SOURCE...",
        count: (2, ANY),
        flags: &[],
        group: CARRY,
        summary: "take in bundles, directories, and boards' database files themselves",
        about: "As `import`; and a source may be a board's database file, for instance on its SD card. What is not sealed there is \
                sealed first if its key lies beside it and it can be written to; otherwise such rows are counted and named.",
        examples: &[
            "packmule merge base.db /media/north/north.db",
            "packmule merge base.db north.pmb /media/card",
        ],
        run: receive::merge,
    },
    Command {
        name: "sync",
        operands: "DB",
        count: (1, 1),
        flags: &[
            flag("serial", Some("FILE"), "the serial port, for instance /dev/ttyUSB0"),
            flag("baud", Some("N"), "bits a second at the beginning, the same at both ends (115200)"),
            flag("baud-max", Some("N"), "the highest rate to go up to; as --baud: stay there (the board's)"),
            flag("flow", Some("none|hardware"), "flow control; hardware needs the RTS and CTS wires (none)"),
            flag("patience", Some("SECONDS"), "how long to wait for the other end; 0 is for ever (60)"),
        ],
        group: CARRY,
        summary: "exchange with the device at the other end of a serial line, until both have everything",
        about: "At the other end runs `packmule serve`, or `packmule sync` too. Both ways at once; each group of frames is verified and \
                committed, and then acknowledged. Whatever breaks it off (a pulled cable, a power cut), run it again: it goes on where it was. \
                Both ends must trust each other, as devices of one fleet do. The line begins at --baud and goes up to the highest rate that both \
                ends allow and the cable carries; where a higher rate is lost it comes back within some two seconds.",
        examples: &[
            "packmule sync north.db --serial /dev/ttyUSB0",
            "packmule sync north.db --serial /dev/serial0 --baud 921600 --flow hardware",
        ],
        run: serial::sync,
    },
    Command {
        name: "serve",
        operands: "DB",
        count: (1, ANY),
        flags: &[
            flag("serial", Some("FILE..."), "the serial ports; one or several"),
            flag("baud", Some("N"), "bits a second at the beginning, the same at both ends (115200)"),
            flag("baud-max", Some("N"), "the highest rate to go up to; as --baud: stay there (the board's)"),
            flag("flow", Some("none|hardware"), "flow control; hardware needs the RTS and CTS wires (none)"),
        ],
        group: CARRY,
        summary: "wait for devices on serial lines and exchange with each, until stopped",
        about: "Goes on by itself: a port that vanishes is opened again when it is back, a device that comes again is served again, and \
                what is written here or comes by one line is sent on the others within a second or so. Each line goes up from --baud as with `sync`. \
                Prints a line for each change. Ends in good order on SIGTERM \
                and Ctrl-C, with exit status 0. With --json, each line is a document.",
        examples: &[
            "packmule serve base.db --serial /dev/ttyUSB0 /dev/ttyUSB1",
            "packmule serve base.db --serial /dev/ttyAMA0 --baud 921600",
        ],
        run: serial::serve,
    },
    Command {
        name: "exchange",
        operands: "DB DIRECTORY",
        count: (2, 2),
        flags: &[],
        group: CARRY,
        summary: "both ways with a mounted card or stick",
        about: "Takes in what others left on the card for this device, and leaves what they lack, in the folder PACKMULE. Many devices can \
                share a card, of any file system. A card that is pulled out at any moment costs nothing but this exchange; bundles of \
                this device that have been acknowledged are removed, those of others never. On a full card the oldest frames come first.",
        examples: &["packmule exchange north.db /media/card"],
        run: exchange::exchange,
    },
    Command {
        name: "conflicts",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: CONFLICTS,
        summary: "every version of every open conflict, with who and when",
        about: "The same list on every device that has the same frames. Of each row a table shows one version, the same \
                everywhere; the others are kept until the conflict is closed. What differs is marked with `*`.",
        examples: &["packmule conflicts base.db", "packmule conflicts base.db --json"],
        run: conflicts::conflicts,
    },
    Command {
        name: "resolve",
        operands: "DB ID",
        count: (2, 2),
        flags: &[
            flag("take", Some("DEVICE"), "the version of this device is the row"),
            many("set", "COL=VALUE", "the shown row, with these values"),
            flag("delete", None, "the row is deleted"),
            flag("keep-both", None, "the shown version stays, each other one becomes a row under a new key"),
        ],
        group: CONFLICTS,
        summary: "close a conflict; this travels to all devices",
        about: "ID is as `conflicts` shows it, or the beginning of it. VALUE is a number, NULL, x'00ff', 'quoted text', or text as \
                it is. Nothing is lost by it: the other versions stay in the log.",
        examples: &[
            "packmule resolve base.db 5f3a9c01d2 --take north",
            "packmule resolve base.db 5f3a9c01d2 --set value=45 note='agreed on the phone'",
        ],
        run: conflicts::resolve,
    },
    Command {
        name: "status",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: LOOK,
        summary: "how this device stands: identity, tables, conflicts, log",
        about: "Changes nothing. The fingerprint is what `packmule trust` on another device takes.",
        examples: &["packmule status north.db"],
        run: look::status,
    },
    Command {
        name: "log",
        operands: "DB [TABLE [KEY...]]",
        count: (1, ANY),
        flags: &[flag("rows", None, "each row, and not only how many")],
        group: LOOK,
        summary: "what was written, by whom and when, in the order in which it is applied",
        about: "With TABLE, only what was written to that table; with KEY, to that row (a key of several columns is several KEYs). \
                Times are those of the author's clock, and say nothing about the order.",
        examples: &["packmule log base.db", "packmule log base.db settings interval"],
        run: look::log,
    },
    Command {
        name: "digest",
        operands: "DB",
        count: (1, 1),
        flags: &[flag(
            "gathered",
            None,
            "with the per-device rows that a base gathers: for comparing two bases",
        )],
        group: LOOK,
        summary: "one line that is the same on two devices exactly when what they sync is",
        about: "Over the content of the shared tables and the open conflicts, as they are now.",
        examples: &["packmule digest north.db"],
        run: look::digest,
    },
    Command {
        name: "verify",
        operands: "DB|BUNDLE",
        count: (1, 1),
        flags: &[],
        group: LOOK,
        summary: "check everything that can be checked",
        about: "Of a database: SQLite's own integrity check, every frame's check sum, hash chain and signature, and that every version that \
                is remembered is in the log. Of a bundle: all of that which needs no database. Exit status 1 if anything is wrong.",
        examples: &["packmule verify base.db", "packmule verify /media/card/north.pmb"],
        run: look::verify,
    },
    Command {
        name: "inspect",
        operands: "BUNDLE",
        count: (1, 1),
        flags: &[],
        group: LOOK,
        summary: "show what is in a bundle",
        about: "Who made it, when and for whom, what its sender had, and every group of frames. Needs no database.",
        examples: &["packmule inspect north.pmb"],
        run: look::inspect,
    },
    Command {
        name: "board",
        operands: "[install]",
        count: (0, 1),
        flags: &[flag("root", Some("DIRECTORY"), "with `install`: the root of the board's file system (/)")],
        group: LOOK,
        summary: "which board this is taken for, with its budgets; or install the services on it",
        about: "The profile sets how much memory is used, and where the serial line is. `install` puts systemd units in place: one that \
                waits on the serial lines, and one that exchanges with a card or stick when it is inserted and has a folder PACKMULE. It \
                starts nothing; what to run then is printed.",
        examples: &["packmule board", "packmule board --board milkv-duo", "packmule board install"],
        run: board::board,
    },
    Command {
        name: "demo",
        operands: "",
        count: (0, 0),
        flags: &[flag("keep", Some("DIRECTORY"), "keep the files there, to try commands on them")],
        group: LOOK,
        summary: "the whole trip on this machine's own sensors, in some seconds",
        about: "Three boards' databases get readings of this machine's sensors, written through plain SQLite. Bundles are carried to a base and \
                back, an edit that two boards made at once shows as a conflict and is closed, and all four end with the same digest.",
        examples: &["packmule demo", "packmule demo --keep /tmp/packmule-demo"],
        run: crate::demo::demo,
    },
    Command {
        name: "help",
        operands: "[COMMAND]",
        count: (0, 2),
        flags: &[],
        group: "",
        summary: "print help",
        about: "The same as --help.",
        examples: &["packmule help track"],
        run: |_| Ok(()),
    },
];

/// How the engine is to use the machine, as the flags say.
fn options(context: &Context<'_, '_>) -> Result<packmule::Options, Failure> {
    let mut options = packmule::Options::default();
    board::profile(context)?.budget(&mut options);
    if let Some(wait) = context.args.flag("wait")? {
        let seconds: Option<f64> = wait.parse().ok().filter(|s: &f64| (0.0..=86_400.0).contains(s));
        let seconds = seconds.ok_or_else(|| {
            context.args.wrong(format!("--wait is a number of seconds up to 86400, not `{wait}`"))
        })?;
        options.busy_ms = (seconds * 1000.0) as u32;
    }
    Ok(options)
}

/// Opens the database that is the first operand.
fn open(context: &Context<'_, '_>) -> Result<Engine, Failure> {
    open_as(context, Engine::open_with)
}

/// The same for a command that only reads: also from a disk that cannot be written to.
fn open_to_read(context: &Context<'_, '_>) -> Result<Engine, Failure> {
    let again = options(context)?;
    open_as(context, |path, options| match Engine::open_with(path, options) {
        Err(e) if e.needs_to_write() => Engine::open_read_only(path, again),
        opened => opened,
    })
}

fn open_as(
    context: &Context<'_, '_>,
    open: impl FnOnce(&Path, packmule::Options) -> packmule::Result<Engine>,
) -> Result<Engine, Failure> {
    let path = context.args.path(0);
    let init = format!("packmule init {}", quoted(path));
    if path.is_dir() {
        return Err(Failure::of(path, "is a directory, and should be a database file"));
    }
    match sources::kind(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::of(path, format!("there is no such file; `{init}` would make it a device")));
        }
        Err(e) => return Err(Failure::io(path, "read it", &e)),
        Ok(Kind::Bundle) => {
            return Err(Failure::of(path, "is a bundle, not a database: the database comes first"));
        }
        Ok(_) => {}
    }
    open(path, options(context)?).map_err(|e| Failure::engine(path, path, e))
}

/// The engine's error about the database that is the first operand.
fn of_db(path: &Path) -> impl Fn(Error) -> Failure + use<'_> {
    move |error| Failure::engine(path, path, error)
}

/// What a path is called in JSON.
fn json_path(path: &Path) -> serde_json::Value {
    serde_json::Value::String(shown(path))
}
