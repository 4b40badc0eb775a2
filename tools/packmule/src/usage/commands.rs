//! Every command: what it takes, and its help.

use super::{Command, Group, Name, flags, own};

const ANY: usize = usize::MAX;

/// All commands.
pub static COMMANDS: &[Command] = &[
    Command {
        name: Name::Init,
        words: "init",
        operands: "DB",
        count: (1, 1),
        flags: &[
            &flags::NAME,
            &flags::FLEET,
            &flags::FLEET_ID,
            &flags::BASE,
            &flags::PASSPHRASE_FILE,
            &flags::REMOVE,
            &flags::REMOVE_DRY_RUN,
            &flags::YES,
        ],
        group: Group::Devices,
        summary: "make the database a device; create the file if need be",
        about: "Gives the database an identity of its own: an ed25519 key, whose secret half goes to a file beside it \
                (DB.pmkey). Tables and rows that are there stay as they are. Never copy the two files to a second board: \
each board gets its own `init`. A board that is made without \
                the fleet key asks for admission with whatever it sends: see `admit`.",
        examples: &[
            "packmule init north.db --name north --fleet fleet.key",
            "packmule init base.db --name base --fleet fleet.key --base",
            "packmule init --remove north.db --dry-run",
            "packmule init --remove north.db",
        ],
    },
    Command {
        name: Name::FleetNew,
        words: "fleet new",
        operands: "FILE",
        count: (1, 1),
        flags: &[&flags::PASSPHRASE, &flags::PASSPHRASE_FILE],
        group: Group::Devices,
        summary: "make a fleet key",
        about: "Devices that were made with the same fleet key trust each other without further steps. The file is secret: \
                whoever has it can add devices. It is needed at `init` and `admit`; keep it off the boards. With --passphrase \
                the file alone is of no use: each command that takes it asks for the passphrase at the terminal, or reads it \
                with --passphrase-file.",
        examples: &["packmule fleet new fleet.key", "packmule fleet new fleet.key --passphrase"],
    },
    Command {
        name: Name::FleetRotate,
        words: "fleet rotate",
        operands: "OLD NEW",
        count: (2, 2),
        flags: &[&flags::PASSPHRASE, &flags::PASSPHRASE_FILE],
        group: Group::Devices,
        summary: "make a fleet key that takes the place of another one",
        about: "OLD signs the new key, which goes into the file NEW with that statement. `admit` and `init` with NEW carry the statement to \
                devices, and these to each other; who has it takes what either key has signed, so no board needs another \
                certificate. What OLD signs later is still taken: against a thief of OLD, make a new fleet.",
        examples: &["packmule fleet rotate fleet.key fleet-2.key"],
    },
    Command {
        name: Name::Admit,
        words: "admit",
        operands: "BUNDLE|DIRECTORY|DB...",
        count: (1, ANY),
        flags: &[&flags::FLEET, &flags::PASSPHRASE_FILE, &flags::ADMIT_BASES, &flags::ONLY, &flags::ANEW],
        group: Group::Devices,
        summary: "sign the certificates of devices that ask for admission to the fleet",
        about: "A device that was made without the fleet key sends its request with every bundle, card and session. This prints each \
                request's name and fingerprint and signs them: into a new file beside the bundles, which goes the way that they came; or, \
                for a database, into it: its next `exchange`, `export` or `sync` takes the certificates along. Never of a \
                revoked device, nor under a name that another device of the fleet has. What the device wrote meanwhile comes in \
                at the next exchange. Without --base nobody becomes a base. Is the key of a \
                fleet lost or stolen: --anew, with a new key and each device's database, one after the other; those that know \
                each other go on exchanging meanwhile.",
        examples: &[
            "packmule admit base.db --fleet fleet.key",
            "packmule admit /media/card --fleet fleet.key --only 3f9a61c20b7d4e5586a7c1d2e3f40516",
        ],
    },
    Command {
        name: Name::Rename,
        words: "rename",
        operands: "DB NAME",
        count: (2, 2),
        flags: &[],
        group: Group::Devices,
        summary: "give this device another name",
        about: "Its identity stays. Of a device of a fleet the fleet key has to sign the name: the request goes with whatever is sent, \
                `admit` answers it, and until then the old name stays. At a base, the rows of the device's per-device tables stand \
                under the new name then.",
        examples: &["packmule rename north.db north-mast"],
    },
    Command {
        name: Name::Trust,
        words: "trust",
        operands: "DB BUNDLE|FINGERPRINT",
        count: (2, 2),
        flags: &[],
        group: Group::Devices,
        summary: "trust one device: the sender of a bundle, or by its fingerprint",
        about: "Frames of a device that is not trusted are refused. Devices of the same fleet need no `trust`. Compare the \
                fingerprint that is printed with what `packmule status` shows on the device itself.",
        examples: &[
            "packmule trust base.db /media/card/north.pmb",
            "packmule trust base.db 3f9a61c20b7d4e5586a7c1d2e3f40516",
        ],
    },
    Command {
        name: Name::Revoke,
        words: "revoke",
        operands: "DB DEVICE",
        count: (2, 2),
        flags: &[&flags::REVOKE_FLEET, &flags::PASSPHRASE_FILE, &flags::TAKE_BACK],
        group: Group::Devices,
        summary: "take nothing more from a device that was stolen; what it wrote before stays",
        about: "With --fleet it travels with every bundle, card and session, and holds for the whole fleet; without, it holds \
                here alone. It covers the identities that the device has vouched for. What other devices had taken in of \
                it before they heard of this stays, and is taken in from them; all else is set aside. `log --by` lists what it wrote. --undo takes it back.",
        examples: &[
            "packmule revoke base.db north --fleet fleet.key",
            "packmule revoke base.db north --undo --fleet fleet.key",
        ],
    },
    Command {
        name: Name::Devices,
        words: "devices",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: Group::Devices,
        summary: "every device that is known, and what it is known to have",
        about: "FRAMES are the frames of that device that are applied here, of shared and of per-device tables. CLOCK, where one is off, says how far, as what it wrote shows. HAS OF OURS is \
                how many of our frames it has acknowledged. HEARD is when, by this machine's clock.",
        examples: &["packmule devices base.db"],
    },
    Command {
        name: Name::Track,
        words: "track",
        operands: "DB TABLE...",
        count: (2, ANY),
        flags: &[
            &flags::MODE,
            &flags::APPEND,
            &flags::KEY,
            &flags::DELETES,
            &flags::IDS,
            &flags::MERGE,
            &flags::POLICY,
            &flags::COLUMN,
            &flags::COLUMNS,
        ],
        group: Group::Tables,
        summary: "keep tables in step from now on, with the rows that they have",
        about: "Puts plain SQL triggers on the table, so that any program with any SQLite library can write to it. Rows that \
                are there already are taken in. Tracking it again in the same way does nothing. Of a table that other devices \
                track already, --merge, --policy and --column are as there unless one is given. With --mode per-device a \
                table needs no key: two rows that are equal are two, and a base has their rowid as a column.",
        examples: &[
            "packmule track north.db settings",
            "packmule track north.db readings --mode per-device --append",
            "packmule track north.db stock --merge cell --column amount=counter",
        ],
    },
    Command {
        name: Name::Untrack,
        words: "untrack",
        operands: "DB TABLE...",
        count: (1, ANY),
        flags: &[&flags::ALL],
        group: Group::Tables,
        summary: "stop tracking tables; their rows stay",
        about: "What was written before is sealed first. What is written from then on stays on this device, and what others \
                write to the table is no longer shown here.",
        examples: &["packmule untrack north.db scratch", "packmule untrack north.db --all"],
    },
    Command {
        name: Name::Schema,
        words: "schema",
        operands: "DB add-column|drop-column TABLE NAME [TYPE]",
        count: (4, 5),
        flags: &[&flags::DEFAULT],
        group: Group::Tables,
        summary: "add a column to a table, or drop one, here and wherever it is tracked",
        about: "The change travels like rows do: each device makes it when it hears of it, also where an application made the \
                table. See that no application needs a column before it is dropped: what is in it is gone. Adding a column \
                that is there with the same type does nothing.",
        examples: &[
            "packmule schema north.db add-column settings unit TEXT --default C",
            "packmule schema north.db drop-column settings unit",
        ],
    },
    Command {
        name: Name::Seal,
        words: "seal",
        operands: "DB",
        count: (1, 1),
        flags: &[],
        group: Group::Tables,
        summary: "turn what was written since the last seal into frames",
        about: "One seal is one atomic group: other devices see all of it or none. Whatever sends or takes in seals first, so \
                this is needed only to mark a point, for instance after each hour.",
        examples: &["packmule seal north.db"],
    },
    Command {
        name: Name::Compact,
        words: "compact",
        operands: "DB",
        count: (1, 1),
        flags: &[&flags::COMPACT_KEEP, &flags::DRY_RUN],
        group: Group::Tables,
        summary: "compact the log: remove what every device has",
        about: "What every device that is not retired is known to have leaves the log; tables, open conflicts and digest stay as they \
                are. Nothing leaves it before another device is known. It also records in the log what this device has seen, so that others can compact too: run it now and then on each. What is not in the \
                log any more cannot be undone, nor shown by `log` and `at`: --keep says how far back that is to be possible.",
        examples: &[
            "packmule compact base.db --dry-run",
            "packmule compact base.db",
            "packmule compact base.db --keep 30d",
        ],
    },
    Command {
        name: Name::Prune,
        words: "prune",
        operands: "DB TABLE",
        count: (2, 2),
        flags: &[&flags::PRUNE_KEEP, &flags::PRUNE_ROWS, &flags::PRUNE_FREE, &flags::DRY_RUN],
        group: Group::Tables,
        summary: "delete rows of an append table here that a base has",
        about: "Deletes the oldest rows of an append table on this device, as far as a base that is not retired has acknowledged them; \
                it prints which base. Rows that no base is known to have stay, and where there is no base nothing is deleted. Nothing is deleted \
                elsewhere. An age is counted from when the row was sealed.",
        examples: &[
            "packmule prune north.db readings --keep 30d",
            "packmule prune north.db readings --free 200M",
        ],
    },
    Command {
        name: Name::Snapshot,
        words: "snapshot",
        operands: "DB FILE",
        count: (2, 2),
        flags: &[],
        group: Group::Carry,
        summary: "write what a new device starts from",
        about: "A signed file with the rows of the shared tables and the frames that are still in flight. A device that is new, or \
                whose place in the log was compacted away, starts from it with `packmule join`. FILE `-` is standard output.",
        examples: &["packmule snapshot base.db start.pms"],
    },
    Command {
        name: Name::Join,
        words: "join",
        operands: "DB FILE",
        count: (2, 2),
        flags: &[&flags::NAME, &flags::FLEET, &flags::PASSPHRASE_FILE],
        group: Group::Carry,
        summary: "start from a snapshot",
        about: "Makes the database a device that has what the snapshot has (and the file, if need be). Rows that it had itself and that \
                no other device had are kept: where the snapshot has other ones, that is a conflict. A device keeps its identity, and what \
                it has not sealed. A table of that name that is here and not tracked waits for `packmule track`.",
        examples: &["packmule join south.db start.pms --name south --fleet fleet.key"],
    },
    Command {
        name: Name::Retire,
        words: "retire",
        operands: "DB DEVICE",
        count: (2, 2),
        flags: &[&flags::REVOKE_FLEET, &flags::PASSPHRASE_FILE, &flags::TAKE_BACK],
        group: Group::Devices,
        summary: "stop waiting for a device",
        about: "For a device that will not come back: until it is retired, what it is not known to have stays in every log. At a \
                base, or with the fleet key, it travels and holds for all; elsewhere it holds for this database alone. It is \
                taken back by --undo, and by itself when the device writes again.",
        examples: &[
            "packmule retire base.db south",
            "packmule retire north.db base --fleet fleet.key",
            "packmule retire base.db south --undo",
        ],
    },
    Command {
        name: Name::Export,
        words: "export",
        operands: "DB BUNDLE",
        count: (2, 2),
        flags: &[&flags::FOR, &flags::ENCRYPT_TO, &flags::PASSPHRASE_FILE],
        group: Group::Carry,
        summary: "write a bundle: the frames that another device lacks",
        about: "Without --for, all frames of the log. The file is there whole or not at all; one of the same name is replaced \
                only if it is an older bundle of this device. BUNDLE `-` is standard output. A lost bundle loses no \
                data: what a peer has is known only from itself. --encrypt-to and --passphrase-file encrypt it: who has the file and none \
                of the keys sees its length, and at most how many devices it is for.",
        examples: &[
            "packmule export north.db north.pmb --encrypt-to base",
            "packmule export north.db north.pmb --passphrase-file secret.txt",
            "packmule export north.db /media/card/north.pmb --for base",
            "packmule export north.db - | ssh base packmule import base.db -",
        ],
    },
    Command {
        name: Name::Import,
        words: "import",
        operands: "DB BUNDLE|DIRECTORY...",
        count: (2, ANY),
        flags: &[&flags::PASSPHRASE_FILE],
        group: Group::Carry,
        summary: "take in bundles; directories are searched for them",
        about: "A bundle is checked from its first to its last byte before anything of it is taken in; taking it in again changes \
                nothing. A bad file that was given by name is an error. In a directory (*.pmb, and whatever begins as a bundle) it is \
                named and skipped, which is no failure. `-` is standard input.",
        examples: &["packmule import base.db north.pmb", "packmule import base.db /media/card"],
    },
    Command {
        name: Name::Merge,
        words: "merge",
        operands: "BASE SOURCE...",
        count: (2, ANY),
        flags: &[&flags::PASSPHRASE_FILE],
        group: Group::Carry,
        summary: "take in bundles, directories, and boards' database files themselves",
        about: "As `import`; and a source may be a board's database file, for instance on its SD card, or a copy of it. It is only \
                read: what is not sealed in it is counted, and the command is named that seals it on the board.",
        examples: &[
            "packmule merge base.db /media/north/north.db",
            "packmule merge base.db north.pmb /media/card",
        ],
    },
    Command {
        name: Name::Sync,
        words: "sync",
        operands: "DB [ADDRESS]",
        count: (1, 2),
        flags: &[
            &flags::SERIAL,
            &flags::BAUD,
            &flags::BAUD_MAX,
            &flags::FLOW,
            &flags::PATIENCE,
            &flags::PLAIN,
        ],
        group: Group::Carry,
        summary: "exchange with the device at the other end of a line or network, until both have everything",
        about: "At the other end runs `packmule serve`; of a serial line `packmule sync` will do too. ADDRESS is tcp://HOST:PORT, ws://HOST:PORT, http://HOST:PORT, \
                serial:FILE (or --serial FILE), exec:COMMAND: a command whose input and output lead to the other end, such as ssh; or \
                find:, who of the fleet announces itself on this network. \
                Both ways at once; each group of frames is verified and \
                committed, and then acknowledged. Whatever breaks it off (a pulled cable, a power cut), run it again: it goes on where it was. \
                Both ends must trust each other, as devices of one fleet do. All is encrypted, but with --plain at both ends. A line begins at --baud and goes up to the highest rate that both \
                ends allow and the cable carries; where a higher rate is lost it comes back within some two seconds.",
        examples: &[
            "packmule sync north.db --serial /dev/ttyUSB0",
            "packmule sync north.db --serial /dev/serial0 --baud 921600 --flow hardware",
            "packmule sync north.db tcp://192.168.1.5:7225",
            "packmule sync north.db 'exec:ssh base packmule serve base.db --stdio'",
        ],
    },
    Command {
        name: Name::Serve,
        words: "serve",
        operands: "DB",
        count: (1, ANY),
        flags: &[
            &flags::SERIAL_PORTS,
            &flags::BAUD,
            &flags::BAUD_MAX,
            &flags::FLOW,
            &flags::LISTEN,
            &flags::METRICS_FROM,
            &flags::ANNOUNCE,
            &flags::STDIO,
            &flags::PLAIN,
        ],
        group: Group::Carry,
        summary: "wait for devices on serial lines or a network and exchange with each, until stopped",
        about: "Goes on by itself: a port that vanishes is opened again when it is back, a device that comes again is served again, and \
                what is written here or comes from one device is sent to the others within a second or so. Each line goes up from --baud as with `sync`. \
                With --listen, up to 8 devices at once over the network; nobody else gets anything. All is encrypted, but with --plain. \
                The same port takes and gives bundles over HTTP, and has figures for Prometheus at /metrics. \
                Prints a line for each change. Ends in good order on SIGTERM \
                and Ctrl-C, with exit status 0. With --json, each line is a document. With --stdio it serves the one device whose `sync` \
                has started it, and ends with it.",
        examples: &[
            "packmule serve base.db --serial /dev/ttyUSB0 /dev/ttyUSB1",
            "packmule serve base.db --serial /dev/ttyAMA0 --baud 921600",
            "packmule serve base.db --listen 0.0.0.0:7225",
        ],
    },
    own::RUN,
    own::FIND,
    Command {
        name: Name::Exchange,
        words: "exchange",
        operands: "DB DIRECTORY",
        count: (2, 2),
        flags: &[&flags::ENCRYPT],
        group: Group::Carry,
        summary: "both ways with a mounted card or stick",
        about: "Takes in what others left on the card for this device, and leaves what they lack, in the folder PACKMULE. Many devices can \
                share a card, of any file system. A card that is pulled out at any moment costs nothing but this exchange; bundles of \
                this device that have been acknowledged are removed, those of others never. On a full card the oldest frames come first. \
                With --encrypt a lost card tells nothing of what is in the tables: a device that is new to the others leaves its \
                certificate in clear, and its rows the next time, when it knows theirs.",
        examples: &[
            "packmule exchange north.db /media/card",
            "packmule exchange north.db /media/card --encrypt",
        ],
    },
    Command {
        name: Name::Conflicts,
        words: "conflicts",
        operands: "DB [ID...]",
        count: (1, ANY),
        flags: &[
            &flags::CONFLICT_TABLE,
            &flags::KIND,
            &flags::CONFLICT_BY,
            &flags::OLDER_THAN,
            &flags::BRIEF,
        ],
        group: Group::Conflicts,
        summary: "every version of every open conflict, with who and when",
        about: "The same list on every device that has the same frames. Of each row a table shows one version, the same \
                everywhere; the others are kept until the conflict is closed. What differs is marked with `*`; with --brief, \
                the version that the table shows. They stand by table and key; at the end they are counted by kind.",
        examples: &[
            "packmule conflicts base.db",
            "packmule conflicts base.db --brief --table settings",
            "packmule conflicts base.db --json",
        ],
    },
    Command {
        name: Name::Resolve,
        words: "resolve",
        operands: "DB [ID...]",
        count: (1, ANY),
        flags: &[
            &flags::RESOLVE_ALL,
            &flags::CONFLICT_TABLE,
            &flags::KIND,
            &flags::CONFLICT_BY,
            &flags::OLDER_THAN,
            &flags::TAKE,
            &flags::SET,
            &flags::DELETE,
            &flags::KEEP_BOTH,
            &flags::UNDO,
            &flags::DRY_RUN,
        ],
        group: Group::Conflicts,
        summary: "close conflicts; this travels to all devices",
        about: "ID is as `conflicts` shows it, or the beginning of it; of several, all are closed or none. --all, --table, --kind, \
                --by and --older-than mean all that are open and fit; those that cannot be closed in this way stay open, and are \
                named. VALUE is a number, NULL, x'00ff', 'quoted text', or text as it is. All is done in one transaction. Nothing \
                is lost by it: the other versions stay in the log, and --undo takes it back, on any device to which it has \
                travelled, until its frames are compacted away; of a row of more than 16 KiB that is not kept, and `conflicts` \
                says so: `restore` brings that back.",
        examples: &[
            "packmule resolve base.db 5f3a9c01d2 --take north",
            "packmule resolve base.db 5f3a9c01d2 --set value=45 note='agreed on the phone'",
            "packmule resolve base.db --kind update/update --take newest --dry-run",
            "packmule resolve base.db --all --older-than 30d --take shown",
            "packmule resolve base.db --undo 5f3a9c01d2",
        ],
    },
    own::DECIDE,
    Command {
        name: Name::Undo,
        words: "undo",
        operands: "DB",
        count: (1, 1),
        flags: &[&flags::BY, &flags::SINCE, &flags::DRY_RUN],
        group: Group::Conflicts,
        summary: "take back what a device wrote since a time: after a theft",
        about: "Each row of a shared table that the device has written to since becomes what it is without that: as it was, or as \
                others wrote it since. This travels as any write. Of a row whose earlier versions are compacted away, or had a value \
                of more than 1 MiB, nobody knows what it was: it stays, and is counted. --dry-run says what would be. One resolution is undone by \
                `resolve --undo`.",
        examples: &["packmule undo base.db --by north --since 2026-11-27T03:00 --dry-run"],
    },
    Command {
        name: Name::Restore,
        words: "restore",
        operands: "DB TABLE KEY...",
        count: (3, ANY),
        flags: &[&flags::FROM, &flags::DRY_RUN],
        group: Group::Conflicts,
        summary: "write an old version of a row anew",
        about: "The row becomes what that frame has of it; deleted, if the frame deletes it. `log TABLE KEY --values` shows who \
                wrote it, with the frames' numbers and the values. This travels as any write. A value of more than 1 MiB is not brought \
                back. --dry-run says what would be.",
        examples: &["packmule restore base.db settings interval --from north:5 --dry-run"],
    },
    Command {
        name: Name::At,
        words: "at",
        operands: "DB TIME OUT.db",
        count: (3, 3),
        flags: &[],
        group: Group::Look,
        summary: "the tables as they were at a time, in a database of their own",
        about: "OUT.db is a plain SQLite database, and no device. Rows of shared tables are as they were by the clocks of those who \
                wrote them, as far as the log goes back; rows whose earlier versions are compacted away are as they are now, and \
                are counted. Per-device tables are as they are now.",
        examples: &["packmule at base.db 2026-11-27T03:00 before.db"],
    },
    Command {
        name: Name::Status,
        words: "status",
        operands: "DB",
        count: (1, 1),
        flags: &[&flags::STATUS_ALL, &flags::CHECK, &flags::PROMETHEUS],
        group: Group::Look,
        summary: "how this device stands, and what there is to do next",
        about: "Changes nothing. The fingerprint is what `packmule trust` on another device takes. What there is to do comes first, \
                each with the command that helps; what a screen has no room for is counted, and printed with --all. With --check the exit status is 3 where only a person can do it: open \
                conflicts, held tables, rows that are not sent, frames of a revoked device that are set aside, notices (a new \
                identity, a clock that is far off). Frames in flight, and devices that were not heard, are no reason. --prometheus is for the \
                textfile collector of its node exporter.",
        examples: &[
            "packmule status north.db",
            "packmule status base.db --all",
            "packmule status base.db --check",
            "packmule status base.db --prometheus",
        ],
    },
    Command {
        name: Name::Report,
        words: "report",
        operands: "DB FILE.html",
        count: (2, 2),
        flags: &[],
        group: Group::Look,
        summary: "the fleet on one page for a browser, which has all in itself",
        about: "Devices and when they were heard, links and their goodput, rows by day and device, open conflicts side by side, what waits and why, the \
                log and who holds it back, and what there is to do. The page loads nothing from elsewhere; it is good on a \
                telephone and on paper. A file that is no report is not written over. FILE.html `-` is standard output.",
        examples: &["packmule report base.db fleet.html"],
    },
    Command {
        name: Name::Log,
        words: "log",
        operands: "DB [TABLE [KEY...]]",
        count: (1, ANY),
        flags: &[&flags::ROWS, &flags::VALUES, &flags::BY, &flags::SINCE, &flags::LOG_ALL],
        group: Group::Look,
        summary: "what was written, by whom and when, in the order in which it is applied",
        about: "With TABLE, only what was written to that table; with KEY, to that row (a key of several columns is several KEYs). \
                Times are those of the author's clock, and say nothing about the order.",
        examples: &[
            "packmule log base.db",
            "packmule log base.db settings interval",
            "packmule log base.db --by north --since 2026-11-27 --values",
        ],
    },
    Command {
        name: Name::Digest,
        words: "digest",
        operands: "DB",
        count: (1, 1),
        flags: &[&flags::GATHERED],
        group: Group::Look,
        summary: "one line that is the same on two devices exactly when what they sync is",
        about: "Over the content of the shared tables and the open conflicts, as they are now.",
        examples: &["packmule digest north.db"],
    },
    Command {
        name: Name::Verify,
        words: "verify",
        operands: "DB|BUNDLE",
        count: (1, 1),
        flags: &[&flags::WITH, &flags::PASSPHRASE_FILE],
        group: Group::Look,
        summary: "check everything that can be checked",
        about: "Of a database: SQLite's own integrity check, every frame's check sum, hash chain and signature, and that every version that \
                is remembered is in the log. Of a bundle: all of that which needs no database; of an encrypted one with --with or --passphrase-file. Exit status 1 if anything is wrong.",
        examples: &["packmule verify base.db", "packmule verify /media/card/north.pmb"],
    },
    Command {
        name: Name::Inspect,
        words: "inspect",
        operands: "BUNDLE",
        count: (1, 1),
        flags: &[&flags::WITH, &flags::PASSPHRASE_FILE],
        group: Group::Look,
        summary: "show what is in a bundle",
        about: "Who made it, when and for whom, what its sender had, and every group of frames. Needs no database. Of an encrypted bundle, which none of the keys is given \
                for, it shows how it is encrypted.",
        examples: &["packmule inspect north.pmb", "packmule inspect north.pmb --with base.db"],
    },
    own::BOARD,
    own::COMPLETIONS,
    own::MAN,
    own::DEMO,
    own::HELP,
];
