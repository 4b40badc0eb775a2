//! A machine that a proposed command may change: this one, with an /etc and a /var/lib of its own. What would change it all the
//! same is stood in for: each stand-in takes what the program itself takes, and does nothing.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::executable;

/// The programs that stand in, as scripts.
const STAND_INS: &[(&str, &str)] = &[
    ("sudo", "exec \"$@\""),
    // A time is read, and not set.
    (
        "date",
        "test \"$1 $2\" = '--utc --set' && test $# = 3 && exec /bin/date --utc --date \"$3\"\necho \"date: $*\" >&2; exit 1",
    ),
    ("udevadm", "test \"$*\" = 'control --reload' || { echo \"udevadm: $*\" >&2; exit 1; }"),
    (
        "systemctl",
        "case $1 in --root=*) exec /bin/systemctl \"$@\";; esac\n\
         verb=$1; shift; test \"$1\" = --now && shift\n\
         case $verb in daemon-reload) test $# = 0 && exit;; enable|disable|stop) test $# -gt 0 || exit 1;; \
         *) echo \"systemctl has no $verb\" >&2; exit 1;; esac\n\
         for unit; do case $unit in serial-getty@tty*) ;; *) test -e \"$UNITS/$unit.service\" || \
         { echo \"there is no unit $unit\" >&2; exit 1; };; esac; done",
    ),
];

/// Makes the machine, in a namespace of its own, and runs a command there.
const MAKE: &str = "set -e\n\
    mkdir -p \"$MACHINE/etc/default\"\n\
    for file in passwd group shadow gshadow login.defs ld.so.cache nsswitch.conf; do \
    test ! -e /etc/$file || cp /etc/$file \"$MACHINE/etc\"; done\n\
    mount --bind \"$MACHINE/etc\" /etc\n\
    mount -t tmpfs lib /var/lib\n\
    mkdir /var/lib/packmule\n\
    for file in *.db *.db.pmkey; do test ! -e \"$file\" || cp -p \"$file\" /var/lib/packmule; done\n\
    set +e\n\
    eval \"$COMMAND\"";

/// Runs a command in a folder of such a machine; nothing where none can be made.
pub fn run(folder: &Path, command: &str, path: &str) -> Option<Output> {
    let machine = tempfile::tempdir().unwrap();
    let bin = machine.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, script) in STAND_INS {
        executable::make(&bin.join(name), &format!("#!/bin/sh\n{script}\n"));
    }
    let is_root = rustix::process::geteuid().is_root();
    let flags = if is_root { "-m" } else { "-rm" };
    let own = |script: &str| {
        let mut own = Command::new("unshare");
        own.args([flags, "sh", "-c", script]).current_dir(folder).stdin(Stdio::null());
        own
    };
    if !own("mount -t tmpfs lib /var/lib").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards/units");
    let mut own = own(MAKE);
    own.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display())).env("MACHINE", machine.path());
    Some(own.env("UNITS", units).env("COMMAND", command).env("USER", "root").output().unwrap())
}
