//! The board and its services: board.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::Context;
use crate::board::Profile;
use crate::failure::Failure;
use crate::output::{columns, say};
use crate::show::shown;

/// What `board install` puts in place, and whether one that is there already is left as it is.
const FILES: &[(&str, &str, bool)] = &[
    (
        "etc/systemd/system/packmule-serve.service",
        include_str!("../../../../boards/units/packmule-serve.service"),
        false,
    ),
    (
        "etc/systemd/system/packmule-exchange@.service",
        include_str!("../../../../boards/units/packmule-exchange@.service"),
        false,
    ),
    ("etc/udev/rules.d/90-packmule.rules", include_str!("../../../../boards/units/90-packmule.rules"), false),
    ("etc/default/packmule", include_str!("../../../../boards/units/packmule.default"), true),
];

/// The profile that is used: `--board`, or what the device tree says.
pub fn profile(context: &Context<'_, '_>) -> Result<&'static Profile, Failure> {
    let Some(name) = context.args.flag("board")? else { return Ok(Profile::found().0) };
    Profile::named(name).ok_or_else(|| {
        let known: Vec<_> = Profile::all().iter().map(|board| board.name).collect();
        context.args.wrong(format!("--board is one of {}, not `{name}`", known.join(", ")))
    })
}

/// `packmule board`.
pub fn board(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let board = profile(context)?;
    match context.args.text(0)? {
        "" => show(context, board),
        "install" => install(context, board),
        other => Err(context.args.wrong(format!("`{other}` is not `install`"))),
    }
}

fn show(context: &mut Context<'_, '_>, board: &Profile) -> Result<(), Failure> {
    let (found, says) = Profile::found();
    let out = &mut *context.out;
    out.document(json!({
        "board": board.name,
        "found": found.name,
        "device_tree": says,
        "note": board.note,
        "target": board.target,
        "linker": board.linker,
        "static": board.is_static,
        "memory": {
            "cache_kib": board.memory.cache_kib,
            "frame_bytes": board.memory.frame_bytes,
            "window_bytes": board.memory.window_bytes,
            "page_bytes": board.memory.page_bytes,
        },
        "uart": { "device": board.uart.device, "baud": board.uart.baud, "baud_max": board.uart.baud_max },
    }));
    let why = match (found.name == board.name, says.first()) {
        (false, _) => "as --board says".to_owned(),
        (true, Some(says)) => format!("the device tree says {says}"),
        (true, None) => "there is no device tree".to_owned(),
    };
    let rows = [
        ("board", format!("{} ({why})", board.name)),
        ("page cache", format!("{} KiB", board.memory.cache_kib)),
        (
            "frames",
            format!(
                "{} bytes, applied {} bytes at a time",
                board.memory.frame_bytes, board.memory.window_bytes
            ),
        ),
        ("pages", format!("{} bytes, in databases that are made here", board.memory.page_bytes)),
        (
            "serial line",
            format!("{}, {} baud, up to {}", board.uart.device, board.uart.baud, board.uart.baud_max),
        ),
        ("built for", format!("{}{}", board.target, if board.is_static { ", in one file" } else { "" })),
        ("tried", board.note.to_owned()),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, is)| vec![what.to_owned(), is]).collect();
    for line in columns(&rows) {
        say!(out, "{line}");
    }
    Ok(())
}

fn install(context: &mut Context<'_, '_>, board: &Profile) -> Result<(), Failure> {
    let root = context.args.flag_path("root").unwrap_or(Path::new("/"));
    let program = std::env::current_exe().map_err(|e| Failure::io(root, "find this program", &e))?;
    let program = if context.args.has("root") { "/usr/bin/packmule".into() } else { shown(&program) };
    let (mut written, mut kept): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for (path, text, keep) in FILES {
        let path = root.join(path);
        if *keep && path.exists() {
            kept.push(path);
            continue;
        }
        let text = text.replace("/usr/bin/packmule", &program).replace("/dev/serial0", board.uart.device);
        write(&path, &text).map_err(|e| Failure::io(&path, "write it", &e))?;
        written.push(path);
    }
    let next =
        ["systemctl daemon-reload && udevadm control --reload", "systemctl enable --now packmule-serve"];
    let out = &mut *context.out;
    out.document(json!({
        "written": written.iter().map(|p| shown(p)).collect::<Vec<_>>(),
        "kept": kept.iter().map(|p| shown(p)).collect::<Vec<_>>(),
        "next": next,
    }));
    written.iter().for_each(|path| say!(out, "{}: written", shown(path)));
    kept.iter().for_each(|path| say!(out, "{}: is there already, and stays as it is", shown(path)));
    let settings = root.join("etc/default/packmule");
    say!(
        out,
        "say in {} where the database is; then cards and sticks, and the serial lines, start with:",
        shown(&settings)
    );
    next.iter().for_each(|line| say!(out, "  {line}"));
    Ok(())
}

/// Whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
