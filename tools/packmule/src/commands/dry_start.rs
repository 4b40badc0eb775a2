//! What would go wrong if a board's services started now: board check; and whether a disk is a card: board card.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use packmule::{Engine, TableHow};

use super::{Context, Given};
use crate::documents::{BoardChecked, CardChecked, OwnError};
use crate::files::beside;
use crate::files::config::{self, Config};
use crate::files::disks::Machine;
use crate::files::owners::{Access, Owners, RunsAs};
use crate::files::services::{DROP_IN, SETTINGS, STATE, drop_ins, units, variable};
use crate::output::{Failure, Out, code, say};
use crate::text::{paragraph, plural, quoted, shown};
use crate::usage::flags;

/// A start of the services, as they are set up below a root.
pub(super) struct Start {
    root: PathBuf,
    given: Given,
    /// The database, as the settings name it.
    database: String,
    ports: Vec<String>,
    /// Whom the units run as, and with what name.
    user: (RunsAs, String),
    /// The folders that they may write to.
    folders: Vec<String>,
    set_up: bool,
}

impl Start {
    /// Reads how they are set up.
    pub(super) fn of(context: &Context<'_, '_>, root: &Path) -> Result<Self, Failure> {
        let settings = fs::read_to_string(root.join(SETTINGS)).ok();
        let text = settings.clone().unwrap_or_default();
        let serve = units().find(|unit| !unit.contains('@')).unwrap_or_default();
        let drop_in = fs::read_to_string(root.join(drop_ins(serve)).join(DROP_IN)).unwrap_or_default();
        let owners = Owners::of(root);
        let user = variable(&drop_in, "User");
        let name = if user.is_empty() { owners.user(0) } else { user };
        let number = |of: &str, known: Option<u32>| known.or_else(|| of.parse().ok()).unwrap_or(0);
        let group = variable(&drop_in, "Group");
        let more = variable(&drop_in, "SupplementaryGroups");
        let more: Vec<u32> = more.split(' ').filter_map(|name| owners.group_named(name)).collect();
        let gid = number(&group, owners.group_named(&group));
        let runs_as = owners.runs_as(number(&name, owners.user_named(&name)), gid, &more);
        let written = variable(&drop_in, "ReadWritePaths").replace("%%", "%");
        Ok(Self {
            root: root.into(),
            given: Given::of(context)?,
            database: variable(&text, "PACKMULE_DB"),
            ports: variable(&text, "PACKMULE_SERIAL").split_whitespace().map(str::to_owned).collect(),
            user: (runs_as, name),
            folders: vec![if written.is_empty() { STATE.to_owned() } else { written }],
            set_up: settings.is_some(),
        })
    }

    fn here(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn may(&self, access: Access, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|file| self.user.0.may(access, &file))
    }

    fn install(&self, db: &str) -> String {
        format!("packmule board install {db}{}", flag_of(&self.root))
    }

    fn install_again(&self) -> String {
        self.install(&quoted(Path::new(&self.database)))
    }

    /// Gives a file to whom the services run as: a card's users have names that this machine does not know, or others have.
    fn give(&self, file: &Path) -> String {
        let (user, name) = &self.user;
        let user = if self.root == Path::new("/") { name.clone() } else { user.uid.to_string() };
        format!("sudo chown {user} {}", quoted(file))
    }
}

/// Returns the flag that names a root, where it is not this machine's own.
pub(super) fn flag_of(root: &Path) -> String {
    if root == Path::new("/") { String::new() } else { format!(" --root {}", quoted(root)) }
}

/// Returns all that is wrong, each with what helps.
pub(super) fn wrong(start: &Start) -> Vec<String> {
    let mut wrong = Vec::new();
    if !start.set_up {
        let settings = shown(&start.root.join(SETTINGS));
        return vec![format!("{settings} is not there: `{}` makes it", start.install("DB"))];
    }
    if start.database.is_empty() {
        let settings = shown(&start.root.join(SETTINGS));
        return vec![format!(
            "PACKMULE_DB in {settings} names no database: `{}` sets it",
            start.install("DB")
        )];
    }
    let file = start.here(&start.database);
    let user = &start.user.1;
    if file.is_file() {
        wrong.extend(of_database(start, &file));
    } else if file.parent().is_some_and(Path::is_dir) {
        let init = quoted(&file);
        wrong.push(format!("{}: there is no such file; `packmule init {init}` makes it", shown(&file)));
    } else {
        wrong.push(format!("{}: there is no such folder: make it, and the database in it", shown(&file)));
    }
    let folder = Path::new(&start.database).parent().map(shown).unwrap_or_default();
    if !start.folders.iter().any(|allowed| Path::new(&folder).starts_with(allowed)) {
        wrong.push(format!("the services may not write to {folder}: run `{}`", start.install_again()));
    }
    let folder = start.here(&folder);
    if folder.is_dir() && !(start.may(Access::Write, &folder) && start.may(Access::Search, &folder)) {
        wrong.push(format!(
            "{user} may not write to the folder {}: `{}`, or put the database into one of its own",
            shown(&folder),
            start.give(&folder)
        ));
    }
    for port in start.ports.iter().filter(|_| start.root == Path::new("/")) {
        match fs::metadata(port) {
            Ok(found)
                if start.user.0.may(Access::Read, &found) && start.user.0.may(Access::Write, &found) => {}
            Ok(_) => wrong.push(format!("{user} may not use {port}: run `{}`", start.install_again())),
            Err(_) => wrong.push(format!(
                "the serial port {port} is not there: plug it in, or name another one in {}",
                shown(&start.root.join(SETTINGS))
            )),
        }
    }
    wrong.extend(of_links(start));
    wrong
}

/// Returns what is wrong with the file of packmule-run, if anything is to be kept up.
fn of_links(start: &Start) -> Option<String> {
    let file = start.here(config::PATH);
    let text = fs::read_to_string(&file).ok()?;
    if text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#')) {
        return None;
    }
    if !start.may(Access::Read, &file) {
        return Some(format!(
            "{} may not read {}: `sudo chmod a+r {}`",
            start.user.1,
            shown(&file),
            quoted(&file)
        ));
    }
    let wrong = Config::read(&file).err()?.text().replace("\npackmule: ", "; ");
    Some(format!("packmule-run cannot start: {}", wrong.trim_start_matches("packmule: ").trim_end()))
}

/// Returns what is wrong with the database's files.
fn of_database(start: &Start, file: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let user = &start.user.1;
    for part in
        ["", "-wal", "-shm", "-journal"].map(|end| beside(file, end)).iter().filter(|part| part.exists())
    {
        if !start.may(Access::Write, part) {
            wrong.push(format!("{user} may not write to {}: `{}`", shown(part), start.give(part)));
        }
    }
    let key = beside(file, ".pmkey");
    if key.exists() && !start.may(Access::Read, &key) {
        wrong.push(format!("{user} may not read the secret key {}: `{}`", shown(&key), start.give(&key)));
    }
    // Its owner does not use it like that; another user, such as who looks now, would.
    if let Some(found) =
        fs::metadata(&key).ok().filter(|key| key.uid() == start.user.0.uid && key.mode() & 0o077 != 0)
    {
        wrong.push(format!(
            "the secret key {} can be read by others than its owner (mode {:o}), and is not used like that: `sudo chmod 600 {}`",
            shown(&key),
            found.mode() & 0o777,
            quoted(&key)
        ));
    }
    let (path, db) = (shown(file), quoted(file));
    let engine = match Engine::open_read_only(file, start.given.options()) {
        Ok(engine) => engine,
        Err(e) => {
            wrong.push(crate::output::engine_text(file, file, &e));
            return wrong;
        }
    };
    match engine.status() {
        Ok(status) => {
            let is_kept = |how: TableHow| matches!(how, TableHow::Shared | TableHow::PerDevice);
            if !key.exists() {
                wrong.push(format!("{path}: the secret key {} is not beside it", shown(&key)));
            }
            if !status.identity.base && !status.tables.iter().any(|table| is_kept(table.how)) {
                wrong.push(format!("{path}: no table is tracked: `packmule track {db} TABLE`"));
            }
        }
        Err(e) => wrong.push(crate::output::engine_text(file, file, &e)),
    }
    wrong
}

/// Prints what is wrong, if anything is.
pub(super) fn say_wrong(out: &mut Out<'_>, wrong: &[String]) {
    if wrong.is_empty() {
        return;
    }
    say!(out, "{}:", plural(wrong.len() as u64, "thing is wrong still", "things are wrong still"));
    wrong.iter().for_each(|what| say!(out, "{}", paragraph(&format!("- {what}"), 2, 4)));
}

/// `packmule board check`.
pub fn check(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let root = context.args.flag_path(&flags::ROOT).unwrap_or(Path::new("/")).to_owned();
    let start = Start::of(context, &root)?;
    let wrong = wrong(&start);
    let out = &mut *context.out;
    let found = plural(wrong.len() as u64, "thing is wrong", "things are wrong");
    let failed = if wrong.is_empty() { OwnError::NONE } else { OwnError::of(&*found, code::PROBLEMS_FOUND) };
    out.document(&BoardChecked {
        database: &start.database,
        user: &start.user.1,
        folder: &start.folders[0],
        ports: &start.ports,
        wrong: &wrong,
        failed,
    });
    if start.set_up {
        say!(out, "database   {}", start.database);
        say!(out, "runs as    {}", start.user.1);
        say!(out, "writes to  {}", start.folders[0]);
        say!(out, "ports      {}", start.ports.join(" "));
    }
    say_wrong(out, &wrong);
    match wrong.len() as u64 {
        0 => {
            say!(out, "nothing is wrong: the services can start");
            Ok(())
        }
        _ => Err(Failure::reported(found)),
    }
}

/// `packmule board card`: whether a disk is a card or stick, and not the system's own.
pub fn card(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let given = context.args.text(1)?;
    if given.is_empty() {
        return Err(context.args.wrong("give the device: /dev/sda1").into());
    }
    let root = std::env::var_os("PACKMULE_MACHINE").map_or_else(|| "/".into(), PathBuf::from);
    let machine = Machine::at(&root);
    let settings = fs::read_to_string(root.join(SETTINGS)).unwrap_or_default();
    let database = variable(&settings, "PACKMULE_DB");
    let disks = machine.disks(given.strip_prefix("/dev/").unwrap_or(given));
    let system = machine.system_disks(Some(Path::new(&database)));
    let own = disks.intersection(&system).next();
    let failed = match own {
        _ if disks.is_empty() => Some(format!("{given}: there is no such disk")),
        Some(disk) => Some(format!(
            "{given}: is on {disk}, which this system runs from, or where its database is: no card"
        )),
        None => None,
    };
    let told = failed.clone().map_or(OwnError::NONE, |failed| OwnError::of(failed, code::PROBLEMS_FOUND));
    context.out.document(&CardChecked {
        device: given,
        disks: &disks.iter().map(String::as_str).collect::<Vec<_>>(),
        system: own.is_some(),
        failed: told,
    });
    match failed {
        Some(failed) => Err(Failure::reported(failed)),
        None => {
            say!(context.out, "{given}: a card or stick");
            Ok(())
        }
    }
}
