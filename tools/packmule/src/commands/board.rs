//! The board and its services: board.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Context, profile};
use crate::documents::{Board, Installed, Memory, Uart};
use crate::files::board::Profile;
use crate::output::{Failure, say};
use crate::text::{columns, shown};
use crate::usage::flags;

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

/// `packmule board`.
pub fn board(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let board = profile(context)?;
    match context.args.text(0)? {
        "" => show(context, board),
        "install" => install(context, board),
        other => Err(context.args.wrong(format!("`{other}` is not `install`")).into()),
    }
}

fn show(context: &mut Context<'_, '_>, board: &Profile) -> Result<(), Failure> {
    let (found, says) = Profile::found();
    let out = &mut *context.out;
    out.document(&Board {
        board: board.name,
        found: found.name,
        device_tree: &says,
        note: board.note,
        target: board.target,
        linker: board.linker,
        is_static: board.is_static,
        memory: Memory {
            cache_kib: board.memory.cache_kib,
            frame_bytes: board.memory.frame_bytes,
            window_bytes: board.memory.window_bytes,
            page_bytes: board.memory.page_bytes,
        },
        uart: Uart { device: board.uart.device, baud: board.uart.baud, baud_max: board.uart.baud_max },
    });
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
    let root = context.args.flag_path(&flags::ROOT).unwrap_or(Path::new("/"));
    let program = std::env::current_exe().map_err(|e| Failure::io(root, "find this program", &e))?;
    let program = if context.args.has(&flags::ROOT) { "/usr/bin/packmule".into() } else { shown(&program) };
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
    let shown_all = |paths: &[PathBuf]| paths.iter().map(|path| shown(path)).collect();
    out.document(&Installed { written: shown_all(&written), kept: shown_all(&kept), next: &next });
    written.iter().for_each(|path| say!(out, "{}: written", shown(path)));
    kept.iter().for_each(|path| say!(out, "{}: is there already and stays as it is", shown(path)));
    let settings = root.join("etc/default/packmule");
    say!(
        out,
        "set in {} where the database is; then start the services for cards, sticks and serial lines:",
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
