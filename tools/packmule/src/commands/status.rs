//! How a device stands: status.

use std::path::Path;

use packmule::{LinkFigures, Notice, Status, TableHow, TableStatus, label};

use super::device::{fleets, no_fleet};
use super::figures::figures;
use super::{Context, of_db, open_to_read};
use crate::documents::{self, LinkCarried, LogSize, RunState, ToDo, WaitGroup};
use crate::files::run_state;
use crate::output::{Failure, Out, Style, say};
use crate::text::{
    Advice, advice, clock_wrong, columns, count, hint, iso, link, now, number, paragraph, plural, quoted,
    said_by, set_aside, shown, size, time, waiting,
};
use crate::usage::flags;

/// `packmule status`.
pub fn status(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    if context.args.has(&flags::PROMETHEUS) {
        if context.args.has(&flags::CHECK) || context.out.json {
            return Err(context.args.wrong("--prometheus stands alone: no --check, no --json").into());
        }
        context.out.text(&figures(path, &engine, false).map_err(of_db(path))?);
        return Ok(());
    }
    let status = engine.status().map_err(of_db(path))?;
    let asked = engine.asked_name().map_err(of_db(path))?;
    let now = now();
    let devices = engine.devices().map_err(of_db(path))?;
    let todo = advice(path, &status, &devices, &engine.not_sent().map_err(of_db(path))?, now);
    let needed = todo.iter().any(|todo| todo.person);
    let links = engine.link_figures().map_err(of_db(path))?;
    let run = run_state::read(path);
    let check = context.args.has(&flags::CHECK);
    let out = &mut *context.out;
    let carried = (links.iter().map(LinkCarried::from).collect(), run.as_ref());
    out.document(&document(path, &status, carried, &todo, now));
    if check {
        match todo.iter().filter(|todo| todo.person).count() as u64 {
            0 => say!(out, "{}: no person is needed", shown(path)),
            n => say!(out, "{}: {} a person:", shown(path), plural(n, "thing needs", "things need")),
        }
        print_to_do(todo.iter().filter(|todo| todo.person), out);
        say!(out, "{}", paragraph(&looked_at(&status, devices.len()), 2, 4));
        return if needed { Err(Failure::PersonNeeded) } else { Ok(()) };
    }
    print_device(path, &status, now, out);
    if let Some(name) = asked {
        say!(out, "  asks for     the name `{name}`, which the fleet has not signed yet");
    }
    print_run(run.as_ref(), out);
    print_tables(path, &status, out);
    print_links(&links, out);
    for wait in &status.waits {
        say!(out, "  waiting      {}", waiting(wait));
    }
    for retired in &status.retired {
        say!(out, "  retired      {} ({})", retired.device, said_by(&retired.by));
    }
    print_revoked(&status, out);
    if todo.is_empty() {
        say!(out, "  to do        nothing");
    } else {
        out.styled(Style::Head, "  to do");
        print_to_do(todo.iter(), out);
    }
    Ok(())
}

fn print_revoked(status: &Status, out: &mut Out<'_>) {
    let own = label(status.identity.id, Some(&status.identity.name));
    for revoked in &status.revoked {
        let by = said_by(&revoked.by);
        if revoked.device == own {
            say!(out, "  revoked      THIS DEVICE ({by}): the others take nothing from it");
        } else {
            say!(out, "  revoked      {} ({by}){}", revoked.device, set_aside(revoked.set_aside));
        }
    }
}

/// Names all that `--check` goes by.
fn looked_at(status: &Status, devices: usize) -> String {
    let tables = count(status.tables.len() as u64, "table");
    let revoked = count(status.revoked.len() as u64, "revoked device");
    format!(
        "looked at: the secret key, open conflicts, {tables} (whether held, and rows that are not sent), {revoked}, \
         the clocks of {}, {}",
        count(devices as u64, "device"),
        count(status.notices.len() as u64, "notice")
    )
}

/// Prints what links have carried, and how fast.
fn print_links(links: &[LinkFigures], out: &mut Out<'_>) {
    for figures in links {
        say!(out, "{}", paragraph(&format!("link         {}", link(figures)), 2, 15));
    }
}

/// Prints what there is to do, with the commands that help.
fn print_to_do<'a>(todo: impl Iterator<Item = &'a Advice>, out: &mut Out<'_>) {
    for Advice { person, what, command } in todo {
        let what = paragraph(what, 4, 6);
        if *person {
            out.styled(Style::Warn, &what)
        } else {
            say!(out, "{what}")
        }
        if let Some(command) = command {
            say!(out, "        {command}");
        }
    }
}

/// Returns a notice with what helps.
fn notice_text(notice: &Notice, db: &Path) -> String {
    notice.text.clone() + &hint(notice.hint.clone(), db)
}

fn document<'a>(
    path: &Path,
    status: &'a Status,
    (links, run): (Vec<LinkCarried<'a>>, Option<&'a RunState>),
    todo: &'a [Advice],
    now: i64,
) -> documents::Status<'a> {
    let identity = &status.identity;
    documents::Status {
        database: shown(path),
        name: &identity.name,
        fingerprint: identity.id.to_string(),
        base: identity.base,
        fleet: fleets(identity).0,
        asks_fleet: fleets(identity).1,
        can_seal: status.can_sign,
        tables: &status.tables,
        journal_mode: &status.journal_mode,
        conflicts: status.conflicts,
        decisions_waiting: status.decisions_waiting,
        decisions_refused: status.decisions_refused,
        waits: status.waits.iter().map(WaitGroup::from).collect(),
        log: LogSize { frames: status.log_frames, bytes: status.log_bytes },
        clock: iso(now),
        clock_wrong: clock_wrong(now) || status.clock.is_some(),
        clock_off_ms: status.clock,
        retired: status.retired.iter().map(|standing| standing.device.as_str()).collect(),
        revoked: status.revoked.iter().map(|standing| standing.device.as_str()).collect(),
        links,
        run,
        notices: status.notices.iter().map(|notice| notice_text(notice, path)).collect(),
        person_needed: todo.iter().any(|todo| todo.person),
        to_do: todo
            .iter()
            .map(|Advice { person, what, command }| ToDo {
                what,
                command: command.as_deref(),
                person: *person,
            })
            .collect(),
    }
}

fn print_device(path: &Path, status: &Status, now: i64, out: &mut Out<'_>) {
    let identity = &status.identity;
    let what = if identity.base { "base" } else { "device" };
    say!(out, "{} is the {what} `{}`", shown(path), identity.name);
    say!(out, "  fingerprint  {}", identity.id);
    match fleets(identity) {
        (Some(fleet), _) => say!(out, "  fleet        {}…", &fleet[..16]),
        (None, asks) => say!(out, "  fleet        {}", no_fleet(asks.as_deref())),
    }
    if !status.can_sign {
        say!(
            out,
            "  secret key   MISSING: {}.pmkey is not there, so nothing can be sealed or sent",
            shown(path)
        );
    }
    say!(out, "  log          {}, {}", count(status.log_frames, "frame"), size(status.log_bytes));
    if status.journal_mode != "wal" {
        say!(out, "  journal      {}, not WAL: whoever writes keeps all others out", status.journal_mode);
    }
    say!(out, "  clock        {}", time(now));
    match status.conflicts {
        0 => say!(out, "  conflicts    none"),
        n => say!(out, "  conflicts    {} open: `packmule conflicts {}`", number(n), quoted(path)),
    }
    if status.decisions_waiting > 0 {
        let waiting = plural(status.decisions_waiting, "decision in SQL waits", "decisions in SQL wait");
        say!(out, "  decisions    {waiting} for the next `packmule seal {}`", quoted(path));
    }
}

/// Prints how `packmule run` stands.
fn print_run(run: Option<&RunState>, out: &mut Out<'_>) {
    let Some(run) = run else { return };
    if !run.running {
        say!(out, "  run          NOT RUNNING: it ended without a word; how its links stood:");
    } else {
        say!(out, "  run          since {}, process {}", run.since, run.pid);
    }
    for link in &run.links {
        let text = link.text.lines().next().unwrap_or("it has not met anybody yet");
        let text = if link.state == "begins" { "it has not met anybody yet" } else { text };
        let since = link.since.split('.').next().unwrap_or_default();
        let last = match (&link.in_step, link.state.as_str()) {
            (_, "in step" | "done") | (None, _) => String::new(),
            (Some(last), _) => format!("; in step last at {last}"),
        };
        let line = format!("{} ({} since {since}Z): {text}{last}", link.link, link.state);
        say!(out, "{}", paragraph(&line, 4, 6));
    }
}

fn print_tables(path: &Path, status: &Status, out: &mut Out<'_>) {
    if status.tables.is_empty() && status.identity.base {
        say!(out, "  tables       none yet: they come with the boards' bundles");
    } else if status.tables.is_empty() {
        say!(out, "  tables       none is tracked: `packmule track {} TABLE`", quoted(path));
    } else {
        say!(out, "  tables");
        let rows: Vec<Vec<String>> = status.tables.iter().map(|table| table_row(table, path)).collect();
        columns(&rows).iter().for_each(|line| say!(out, "{line}"));
    }
}

fn table_row(table: &TableStatus, db: &Path) -> Vec<String> {
    let unsealed = match table.unsealed {
        0 => None,
        1_000_000.. => Some("over 1,000,000 writes not sealed yet".to_owned()),
        n => Some(format!("{} not sealed yet", count(n, "write"))),
    };
    let note = match table.how {
        TableHow::Suspended => Some("see below".into()),
        _ => table.note.as_ref().map(|note| note.clone() + &hint(table.hint(), db)),
    };
    let waiting =
        (table.waiting > 0).then(|| format!("{} for it", plural(table.waiting, "row waits", "rows wait")));
    let tail: Vec<String> = unsealed.into_iter().chain(waiting).chain(note).collect();
    vec![format!("    {}", table.name), table.how.words().to_owned(), tail.join("; ")]
}
