//! The services of a board: board install, board remove.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Context;
use super::dry_start::{self, Start};
use crate::documents::{Installed, RemovedServices, WrittenFile};
use crate::files::board::Profile;
use crate::files::owners::Owners;
use crate::files::services::{
    DROP_IN, FILES, LINKS, LINKS_TEXT, Place, SETTINGS, SETTINGS_TEXT, STATE, are_packaged, drop_ins, units,
    variable, with_variable, write,
};
use crate::output::{Failure, Out, say};
use crate::text::{paragraph, quoted, shown};
use crate::usage::flags;

/// The group of serial ports where they are not here to be asked.
const PORTS_GROUP: &str = "dialout";

/// Folders that the services do not see, or that are gone after a start.
const UNSEEN: &[&str] = &["/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/run"];

/// A database, as the services find it.
struct Database {
    /// Here.
    path: PathBuf,
    /// On the board.
    there: String,
}

/// A file that is to be put in place.
struct Planned {
    path: PathBuf,
    text: String,
}

/// `packmule board install`.
pub fn install(context: &mut Context<'_, '_>, board: &Profile) -> Result<(), Failure> {
    let root = context.args.flag_path(&flags::ROOT).unwrap_or(Path::new("/")).to_owned();
    let database = match context.args.text(1)? {
        "" => None,
        _ => Some(database(context.args.path(1), &root)?),
    };
    let (mut planned, mut kept) = (Vec::new(), Vec::new());
    if !are_packaged(&root) {
        let program = std::env::current_exe().map_err(|e| Failure::io(&root, "find this program", &e))?;
        let program =
            if context.args.has(&flags::ROOT) { "/usr/bin/packmule".into() } else { shown(&program) };
        planned.extend(FILES.iter().map(|(path, text)| {
            let text = text.replace("/usr/bin/packmule", &program);
            Planned { path: root.join(path), text }
        }));
    }
    let settings = root.join(SETTINGS);
    let before = fs::read_to_string(&settings).ok();
    let fresh = || SETTINGS_TEXT.replace("/dev/serial0", board.uart.device);
    let mut text = before.clone().unwrap_or_else(fresh);
    let place = match &database {
        Some(database) => {
            text = with_variable(&text, "PACKMULE_DB", &database.there);
            Some(place(database, &root, &text)?)
        }
        None => None,
    };
    match before.as_deref() == Some(text.as_str()) {
        true => kept.push(settings.clone()),
        false => planned.push(Planned { path: settings.clone(), text }),
    }
    let links = root.join(LINKS);
    match links.exists() {
        true => kept.push(links),
        false => planned.push(Planned { path: links, text: LINKS_TEXT.to_owned() }),
    }
    for unit in units().filter(|_| place.is_some()) {
        let text = place.as_ref().map(|place| place.drop_in(unit)).unwrap_or_default();
        planned.push(Planned { path: root.join(drop_ins(unit)).join(DROP_IN), text });
    }
    let dry_run = context.args.has(&flags::DRY_RUN);
    if !dry_run {
        for Planned { path, text } in &planned {
            write(path, text).map_err(|e| Failure::io(path, "write it", &e))?;
        }
    }
    let wrong = match &database {
        Some(_) if !dry_run => dry_start::wrong(&Start::of(context, &root)?),
        _ => Vec::new(),
    };
    report(context.out, &root, &Plan { planned, kept, place, wrong, dry_run });
    Ok(())
}

/// What an installation does.
struct Plan {
    planned: Vec<Planned>,
    kept: Vec<PathBuf>,
    place: Option<Place>,
    wrong: Vec<String>,
    dry_run: bool,
}

fn report(out: &mut Out<'_>, root: &Path, plan: &Plan) {
    let next = match root == Path::new("/") {
        true => vec![
            "systemctl daemon-reload && udevadm control --reload".to_owned(),
            "systemctl enable --now packmule-serve".to_owned(),
        ],
        // It starts with the board: nobody types there.
        false => vec![format!("systemctl --root={} enable packmule-serve", quoted(root))],
    };
    let files: Vec<WrittenFile<'_>> =
        plan.planned.iter().map(|file| WrittenFile { file: shown(&file.path), text: &file.text }).collect();
    out.document(&Installed {
        written: plan.planned.iter().map(|file| shown(&file.path)).collect(),
        kept: plan.kept.iter().map(|path| shown(path)).collect(),
        next: &next,
        files,
        dry_run: plan.dry_run,
        user: plan.place.as_ref().map(|place| &*place.user.0),
        groups: plan.place.as_ref().map(|place| &*place.groups),
        folder: plan.place.as_ref().map(|place| &*place.folder),
        wrong: &plan.wrong,
    });
    for Planned { path, text } in &plan.planned {
        match plan.dry_run {
            true => {
                say!(out, "{} would be:\n", shown(path));
                out.verbatim(&format!("{text}\n"));
            }
            false => say!(out, "{}: written", shown(path)),
        }
    }
    plan.kept.iter().for_each(|path| say!(out, "{}: is there already and stays as it is", shown(path)));
    if let Some(place) = &plan.place {
        let with = match place.groups.join(", ") {
            groups if groups.is_empty() || place.user.1 == 0 => String::new(),
            groups => format!(" with the groups {groups},"),
        };
        let said = format!("the services run as {},{with} and write to {} alone", place.user.0, place.folder);
        say!(out, "{}", paragraph(&said, 0, 0));
    }
    if plan.dry_run {
        say!(out, "nothing was written");
        return;
    }
    dry_start::say_wrong(out, &plan.wrong);
    match &plan.place {
        Some(_) => say!(out, "to start the services for cards, sticks and serial lines:"),
        None => {
            say!(out, "where the database is stands in {};", shown(&root.join(SETTINGS)));
            let install = format!("packmule board install DB{}", dry_start::flag_of(root));
            say!(out, "`{install}` fits the services to it; then start them:");
        }
    }
    next.iter().for_each(|line| say!(out, "  {line}"));
    let links = shown(&root.join(LINKS));
    say!(out, "or, for links over networks too, packmule-run, which keeps up those of");
    say!(out, "{links}");
}

/// Finds the database here and on the board: with a root, a path below it, or one as the board has it.
fn database(given: &Path, root: &Path) -> Result<Database, Failure> {
    let real_root = fs::canonicalize(root).map_err(|e| Failure::io(root, "find the directory", &e))?;
    let below = given.strip_prefix("/").ok().map(|path| root.join(path));
    let below = below.filter(|path| !given.starts_with(&real_root) && path.exists());
    let path = below.unwrap_or_else(|| given.to_owned());
    let real = fs::canonicalize(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            let init = quoted(&path);
            Failure::of(
                &path,
                format!("there is no such file; `packmule init {init}` would make it a device"),
            )
        }
        _ => Failure::io(&path, "find it", &e),
    })?;
    if !real.is_file() {
        return Err(Failure::of(&path, "is no file, and should be a database"));
    }
    let Ok(there) = real.strip_prefix(&real_root) else {
        return Err(Failure::of(
            &path,
            format!("does not lie below {}, where the board's files are", shown(root)),
        ));
    };
    let there = Path::new("/").join(there);
    let Some(text) = there.to_str().filter(|text| !text.chars().any(char::is_control)) else {
        return Err(Failure::of(&path, "the services cannot be told a path like this: rename it"));
    };
    let folder = there.parent().unwrap_or(Path::new("/"));
    let whole = folder == Path::new("/");
    if whole || UNSEEN.iter().any(|unseen| folder.starts_with(unseen)) {
        let why =
            if whole { "the whole system would be theirs" } else { "that folder is not the same for them" };
        let said = format!(
            "the services cannot work there ({why}): put it into a folder of its own, in {STATE} say"
        );
        return Err(Failure::of(&path, said));
    }
    Ok(Database { there: text.to_owned(), path: real })
}

/// Finds whom the services run as, for a database.
fn place(database: &Database, root: &Path, settings: &str) -> Result<Place, Failure> {
    let file = fs::metadata(&database.path).map_err(|e| Failure::io(&database.path, "look at it", &e))?;
    let owners = Owners::of(root);
    let ports = variable(settings, "PACKMULE_SERIAL");
    let of_ports = ports.split_whitespace().filter_map(|port| {
        let port = root.join(port.trim_start_matches('/'));
        fs::metadata(port).ok().map(|port| port.gid())
    });
    let usual = owners.group_named(PORTS_GROUP);
    let mut groups: Vec<u32> = of_ports.chain(usual).filter(|gid| *gid != 0 && *gid != file.gid()).collect();
    groups.sort_unstable();
    groups.dedup();
    let folder = Path::new(&database.there).parent().map(shown).unwrap_or_default();
    Ok(Place {
        folder,
        user: (owners.user(file.uid()), file.uid()),
        group: (owners.group(file.gid()), file.gid()),
        groups: groups.into_iter().map(|gid| owners.group(gid)).collect(),
    })
}

/// `packmule board remove`.
pub fn remove(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let root = context.args.flag_path(&flags::ROOT).unwrap_or(Path::new("/")).to_owned();
    let dry_run = context.args.has(&flags::DRY_RUN);
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    let started = ["packmule-serve.service", "packmule-run.service"].map(|unit| wants.join(unit));
    let drop_ins: Vec<PathBuf> = units().map(|unit| root.join(drop_ins(unit))).collect();
    let ours = FILES.iter().map(|(path, _)| root.join(path));
    let mut paths: Vec<PathBuf> = drop_ins.iter().map(|folder| folder.join(DROP_IN)).chain(ours).collect();
    // What starts them with the board are links.
    let packaged = are_packaged(&root);
    paths.extend(started.into_iter().filter(|_| !packaged));
    let settings = root.join(SETTINGS);
    let mut kept = Vec::new();
    match fs::read_to_string(&settings) {
        Ok(text) if !packaged && is_untouched(&text) => paths.push(settings),
        Ok(_) => kept.push(settings),
        Err(_) => {}
    }
    let links = root.join(LINKS);
    match fs::read_to_string(&links) {
        Ok(text) if !packaged && text == LINKS_TEXT => paths.push(links),
        Ok(_) => kept.push(links),
        Err(_) => {}
    }
    paths.retain(|path| path.symlink_metadata().is_ok());
    for path in paths.iter().filter(|_| !dry_run) {
        fs::remove_file(path).map_err(|e| Failure::io(path, "remove it", &e))?;
    }
    if !dry_run {
        // One with a file of somebody else stays.
        let folders = drop_ins.iter().cloned().chain(root.join(LINKS).parent().map(Path::to_path_buf));
        folders.for_each(|folder| drop(fs::remove_dir(folder)));
    }
    let here = root == Path::new("/");
    let next: &[&str] = match here && !paths.is_empty() {
        true => &[
            "systemctl stop packmule-serve packmule-run",
            "systemctl daemon-reload && udevadm control --reload",
        ],
        false => &[],
    };
    let out = &mut *context.out;
    let texts = |paths: &[PathBuf]| paths.iter().map(|path| shown(path)).collect();
    out.document(&RemovedServices { removed: texts(&paths), kept: texts(&kept), next, dry_run });
    let done = if dry_run { "would be removed" } else { "removed" };
    paths.iter().for_each(|path| say!(out, "{}: {done}", shown(path)));
    kept.iter()
        .for_each(|path| say!(out, "{}: stays: it has settings of yours, or is a package's", shown(path)));
    if paths.is_empty() {
        say!(out, "{}: no services of Packmule are installed there", shown(&root));
    } else if !dry_run && here {
        say!(out, "the database stays as it is; then:");
        next.iter().for_each(|line| say!(out, "  {line}"));
    }
    Ok(())
}

/// Returns whether nothing was set but what `board install` sets.
fn is_untouched(settings: &str) -> bool {
    let plain = |text: &str| {
        let text = with_variable(text, "PACKMULE_DB", "");
        with_variable(&text, "PACKMULE_SERIAL", "")
    };
    plain(settings) == plain(SETTINGS_TEXT)
        && Profile::all().iter().any(|board| board.uart.device == variable(settings, "PACKMULE_SERIAL"))
}
