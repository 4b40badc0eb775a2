//! Every flag, once.

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// What its value is called, or the choices for it, with `|` between them; none if it takes none.
    pub value: Option<&'static str>,
    /// It can be given several times, and several `NAME=VALUE` can follow it; after the operands, several of any kind.
    pub many: bool,
    /// Help, in a line.
    pub about: &'static str,
    /// The letter that means the same, after one dash.
    pub short: Option<char>,
}

const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag { name, value: None, many: false, about, short: None }
}

const fn value(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, value: Some(value), many: false, about, short: None }
}

const fn values(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, value: Some(value), many: true, about, short: None }
}

const fn short(c: char, flag: Flag) -> Flag {
    Flag { short: Some(c), ..flag }
}

/// Flags of every command.
pub static COMMON: &[&Flag] = &[&JSON, &QUIET, &VERBOSE, &WAIT, &BOARD, &HELP, &VERSION];

pub static JSON: Flag = switch("json", "print one JSON document; errors too");
pub static WAIT: Flag = value("wait", "SECONDS", "how long to wait for another program's write to end (5)");
pub static BOARD: Flag =
    value("board", "NAME", "the board whose budgets are used (what the device tree says; else the host)");
pub static QUIET: Flag =
    short('q', switch("quiet", "print only what was asked for, and what is wrong; no progress"));
pub static VERBOSE: Flag =
    short('v', switch("verbose", "say what is looked at, each file and each device, on standard error"));
static HELP: Flag = short('h', switch("help", "print help"));
static VERSION: Flag = short('V', switch("version", "print the version"));

// Devices.
pub static NAME: Flag = value("name", "NAME", "what people call the device (the host's name)");
pub static FLEET: Flag =
    value("fleet", "FILE", "the fleet key that signs its certificate, of `packmule fleet new`");
pub static REVOKE_FLEET: Flag =
    value("fleet", "FILE", "the fleet key, by which it travels and holds for the whole fleet");
pub static TAKE_BACK: Flag = switch("undo", "take it back");
pub static REMOVE: Flag = switch(
    "remove",
    "make it a plain database again: Packmule's tables, triggers and key go, its own tables stay",
);
pub static REMOVE_DRY_RUN: Flag =
    switch("dry-run", "with --remove: only say what would be removed; nothing is changed");
pub static YES: Flag = switch("yes", "with --remove: without asking");
pub static ALL: Flag = switch("all", "all tables that are tracked or gathered");
pub static FLEET_ID: Flag =
    value("fleet-id", "HEX", "without the key: the only fleet that may admit it, as `fleet new` prints it");
pub static ADMIT_BASES: Flag = switch("base", "those that ask to be a base too");
pub static ANEW: Flag = switch(
    "anew",
    "also a database that belongs to another fleet, whose key is lost or stolen: it goes over to this one",
);
pub static ONLY: Flag = value("only", "FINGERPRINT", "this device alone; several times: these");
pub static BASE: Flag = switch("base", "it gathers the rows of all devices' per-device tables");

pub static PASSPHRASE: Flag = switch(
    "passphrase",
    "the new file is under a passphrase, without which it is of no use: asked for, unless --passphrase-file has it",
);
pub static PASSPHRASE_FILE: Flag = value(
    "passphrase-file",
    "FILE",
    "the passphrase is the first line of FILE; of a fleet key it is asked for without",
);

// Tables.
pub static MODE: Flag =
    value("mode", "shared|per-device", "all devices edit the same rows, or each owns its rows (shared)");
pub static APPEND: Flag =
    switch("append", "rows are only ever added, under an AUTOINCREMENT key: capture costs nothing");
pub static COLUMNS: Flag = value(
    "columns",
    "wait|follow",
    "what others write into a column of theirs waits until the application adds it, or it is added (wait)",
);
pub static DELETES: Flag = value(
    "deletes",
    "name|carry",
    "with --append: rows that are deleted here are only counted, or deleted elsewhere too (name)",
);
pub static KEY: Flag = value(
    "key",
    "COL,...",
    "the UNIQUE index that tells rows apart, of a table without a primary key (its only one)",
);
pub static IDS: Flag = value(
    "ids",
    "shared",
    "a plain integer key is fine: without the note about numbers that two devices can take",
);
pub static PRUNE_KEEP: Flag = value("keep", "AGE", "rows that were sealed within AGE stay: 30d, 12h");
pub static COMPACT_KEEP: Flag = value(
    "keep",
    "AGE",
    "what was sealed within AGE stays, by its author's clock, for `log`, `at` and undoing: 30d, 12h",
);
pub static PRUNE_ROWS: Flag = value("rows", "N", "the newest N rows stay");
pub static PRUNE_FREE: Flag =
    value("free", "SIZE", "the oldest rows go until so much of the file is free: 200M, 1G");
pub static MERGE: Flag = value(
    "merge",
    "row|cell",
    "a row stays as one author wrote it, or edits of different columns merge (row)",
);
pub static POLICY: Flag = value(
    "policy",
    "manual|lww|prefer-device=DEVICE|custom=COMMAND",
    "who wins: a person, the last writer, a device, a program that this device runs (manual)",
);
pub static COLUMN: Flag = values(
    "column",
    "NAME=counter|max|min|lww",
    "concurrent writes of this column add up, or the greatest, least, last wins",
);
pub static DEFAULT: Flag =
    value("default", "VALUE", "what rows have that are there already: 5, 1.5, text, NULL, x'00ff'");

// Carrying.
pub static FOR: Flag = value("for", "DEVICE", "only what that device lacks, as last heard of");
pub static ENCRYPT: Flag = switch(
    "encrypt",
    "to the fleet: all devices whose certificates are known here; who knows none introduces itself first",
);
pub static ENCRYPT_TO: Flag = values(
    "encrypt-to",
    "DEVICE|fleet",
    "encrypt it to these devices, or to all whose certificates are known",
);
pub static WITH: Flag =
    value("with", "DB", "a device to which the bundle is encrypted: its key reads it; nothing is taken in");
pub static SERIAL: Flag = value("serial", "FILE", "the serial port, for instance /dev/ttyUSB0");
pub static SERIAL_PORTS: Flag = value("serial", "FILE...", "the serial ports; one or several");
pub static BAUD: Flag = value("baud", "N", "bits a second at the beginning, the same at both ends (115200)");
pub static BAUD_MAX: Flag =
    value("baud-max", "N", "the highest rate to go up to; as --baud: stay there (the board's)");
pub static FLOW: Flag =
    value("flow", "none|hardware", "flow control; hardware needs the RTS and CTS wires (none)");
pub static PATIENCE: Flag =
    value("patience", "SECONDS", "how long to wait for the other end; 0 is for ever (60)");

pub static LISTEN: Flag = value(
    "listen",
    "ADDR:PORT",
    "the network address to listen on; a port alone: for programs on this machine",
);
pub static METRICS_FROM: Flag = value(
    "metrics-from",
    "here|any",
    "who may read the figures at /metrics: programs on this machine, or any (here)",
);
pub static STDIO: Flag = switch("stdio", "one device, over standard input and output");
pub static PLAIN: Flag = switch("plain", "not encrypted, at both ends; anybody between reads along");

pub static ANNOUNCE: Flag =
    switch("announce", "with --listen: say who asks on this network that this device serves there");
pub static SECONDS: Flag = value("seconds", "N", "how long answers are waited for (2)");
pub static CONFIG: Flag = value("config", "FILE", "what is to be kept up (/etc/packmule/packmule.toml)");
pub static RUN_CHECK: Flag = switch("check", "only read the file, and say what would be done");

// Conflicts.
pub static TAKE: Flag = value(
    "take",
    "DEVICE",
    "the version of this device is the row; or `newest`, by their authors' clocks, `shown`, `quarantined`",
);
pub static SET: Flag = values(
    "set",
    "COL=VALUE",
    "the shown row, with these values; of `unique` the quarantined one; with --keep-both: the row under the new key",
);
pub static DELETE: Flag = switch("delete", "the row is deleted");
pub static KEEP_BOTH: Flag =
    switch("keep-both", "the shown version stays, each other one becomes a row under a new key");

pub static RESOLVE_ALL: Flag = switch("all", "all that are open");
pub static CONFLICT_TABLE: Flag = value("table", "TABLE", "only those of this table");
pub static KIND: Flag = value(
    "kind",
    "insert/insert|update/update|update/delete|unique|check|foreign-key|schema",
    "only those of this kind",
);
pub static CONFLICT_BY: Flag = value("by", "DEVICE", "only those with a version of this device");
pub static OLDER_THAN: Flag =
    value("older-than", "AGE", "only those of which no version is newer, by its author's clock: 30d, 12h");
pub static UNDO: Flag =
    switch("undo", "undo how it was closed: rows become what they were; undone again, it is closed again");
pub static DRY_RUN: Flag = switch("dry-run", "only say what would be done; nothing is changed");
pub static FROM: Flag =
    value("from", "DEVICE:FRAME", "the version of this frame, as `log TABLE KEY` shows them: north:5");
pub static BRIEF: Flag = switch("brief", "a line for each");

// Looking and checking.
pub static STATUS_ALL: Flag =
    switch("all", "all lines; without it as many as a screen has, what is most urgent first");
pub static LOG_ALL: Flag = switch("all", "also groups without rows, as of a table's definition");
pub static CHECK: Flag = switch("check", "end with 3 where a person is needed, and print only what for");
pub static PROMETHEUS: Flag =
    switch("prometheus", "print figures as Prometheus reads them, and nothing else");
pub static ROWS: Flag = switch("rows", "each row, and not only how many");
pub static VALUES: Flag = switch("values", "each row: what was written, and what was there");
pub static BY: Flag = value("by", "DEVICE", "only what this device wrote");
pub static SINCE: Flag = value(
    "since",
    "TIME",
    "only what was written from then on, by its author's clock: 2026-11-27T03:00, UTC, or 12h ago as `12h`",
);
pub static GATHERED: Flag =
    switch("gathered", "with the per-device rows that a base gathers: for comparing two bases");
pub static ROOT: Flag =
    value("root", "DIRECTORY", "with `install`, `remove`, `check`: the root of the board's file system (/)");
pub static KEEP: Flag = value("keep", "DIRECTORY", "keep the files there, to try commands on them");
