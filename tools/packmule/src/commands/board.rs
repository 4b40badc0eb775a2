//! The board: which it is taken for. What is typed after `board` is done in `services` and `dry_start`.

use super::{Context, dry_start, profile, services};
use crate::documents::{Board, Memory, Uart};
use crate::files::board::Profile;
use crate::output::{Failure, say};
use crate::text::columns;
use crate::usage::flags;

/// `packmule board`.
pub fn board(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let board = profile(context)?;
    let (what, operands) = (context.args.text(0)?, context.args.len());
    let (most, flags): (usize, &[&flags::Flag]) = match what {
        "" => (0, &[]),
        "install" => (2, &[&flags::ROOT, &flags::DRY_RUN]),
        "remove" => (1, &[&flags::ROOT, &flags::DRY_RUN]),
        "check" => (1, &[&flags::ROOT]),
        "card" => (2, &[]),
        other => {
            let wrong = format!("`{other}` is not `install`, `remove`, `check` or `card`");
            return Err(context.args.wrong(wrong).into());
        }
    };
    if operands > most {
        return Err(context.args.wrong(format!("`{}` is one too many", context.args.text(most)?)).into());
    }
    let unused = [&flags::ROOT, &flags::DRY_RUN]
        .into_iter()
        .find(|flag| context.args.has(flag) && !flags.iter().any(|takes| takes.name == flag.name));
    if let Some(flag) = unused {
        return Err(context.args.wrong(format!("`board {what}` has no flag --{}", flag.name)).into());
    }
    // The profile and a check are asked for; these two do something.
    context.out.quiet = context.args.has(&flags::QUIET) && matches!(what, "install" | "remove");
    match what {
        "install" => services::install(context, board),
        "remove" => services::remove(context),
        "check" => dry_start::check(context),
        "card" => dry_start::card(context),
        _ => show(context, board),
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
