//! How a device stands: status.

use std::path::Path;

use packmule::{Hint, LinkFigures, Notice, Standing, Status, TableHow, TableStatus, label};

use super::device::{fleets, no_fleet};
use super::figures::figures;
use super::{Context, of_db, open_to_read};
use crate::documents::{self, LinkCarried, LinkState, LogSize, RunState, ToDo, WaitGroup};
use crate::files::{beside, run_state};
use crate::output::{Failure, Style};
use crate::text::{
    Advice, Part, advice, clock_wrong, columns, count, fit, hint, iso, link, now, number, paragraph, plural,
    quoted, said_by, set_aside, shown, size, time, waiting, whole,
};
use crate::usage::flags;

/// `packmule status`.
pub fn status(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    if context.args.has(&flags::PROMETHEUS) {
        if [&flags::CHECK, &flags::STATUS_ALL].into_iter().any(|flag| context.args.has(flag))
            || context.out.json
        {
            return Err(context.args.wrong("--prometheus stands alone: no --all, --check, --json").into());
        }
        context.out.text(&figures(path, &engine, false).map_err(of_db(path))?);
        return Ok(());
    }
    let status = engine.status().map_err(of_db(path))?;
    let asked = engine.asked_name().map_err(of_db(path))?;
    let now = now();
    let devices = engine.devices().map_err(of_db(path))?;
    let run = run_state::read(path);
    let hanging = run.as_ref().map(RunState::hanging).unwrap_or_default();
    let not_sent = engine.not_sent().map_err(of_db(path))?;
    let mut todo = advice(path, &status, &devices, &not_sent, (&hanging, now));
    let needed = todo.iter().any(|todo| todo.person);
    let links = engine.link_figures().map_err(of_db(path))?;
    let check = context.args.has(&flags::CHECK);
    let out = &mut *context.out;
    let carried = (links.iter().map(LinkCarried::from).collect(), run.as_ref());
    out.document(&document(path, &status, carried, &todo, now));
    if check {
        todo.retain(|todo| todo.person);
        let head = match todo.len() as u64 {
            0 => format!("{}: no person is needed", shown(path)),
            n => format!("{}: {} a person:", shown(path), plural(n, "thing needs", "things need")),
        };
        let parts = vec![
            Part::plain("", None, [head]),
            Part { name: "to do", heading: None, items: to_do(&todo, 6) },
            Part::plain("", None, [paragraph(&looked_at(&status, devices.len(), run.as_ref()), 2, 4)]),
        ];
        let rest = format!("all of it: `packmule status {} --check --all`", quoted(path));
        print_parts(parts, &rest, context);
        return if needed { Err(Failure::person_needed()) } else { Ok(()) };
    }
    let mut parts = vec![
        Part::plain("", None, of_device(path, (&status, asked.as_deref()), now)),
        Part { name: "to do", heading: Some((Some(Style::Head), "  to do".into())), items: to_do(&todo, 6) },
        tables(path, &status),
    ];
    if todo.is_empty() {
        parts[1] = Part::plain("to do", None, ["  to do        nothing".to_owned()]);
    }
    parts.extend(run.as_ref().map(of_run));
    parts.push(Part::plain("revoked", None, revoked(&status)));
    parts.push(Part::plain(
        "waiting",
        None,
        status.waits.iter().map(|w| format!("  waiting      {}", waiting(w))),
    ));
    parts.push(Part::plain("links", None, links.iter().map(of_link)));
    let of_retired = |r: &Standing| format!("  retired      {} ({})", r.device, said_by(&r.by));
    parts.push(Part::plain("retired", None, status.retired.iter().map(of_retired)));
    print_parts(parts, &format!("all of it: `packmule status {} --all`", quoted(path)), context);
    Ok(())
}

/// Prints parts: as much of them as a screen has room for, or all.
fn print_parts(parts: Vec<Part<Option<Style>>>, rest: &str, context: &mut Context<'_, '_>) {
    let lines = match context.args.has(&flags::STATUS_ALL) {
        true => parts.into_iter().filter(|part| !part.items.is_empty()).flat_map(whole).collect(),
        false => fit(parts, rest),
    };
    for (style, line) in lines {
        match style {
            Some(style) => context.out.styled(style, &line),
            None => context.out.line(&line),
        }
    }
}

fn revoked(status: &Status) -> Vec<String> {
    let own = label(status.identity.id, Some(&status.identity.name));
    let of_one = |revoked: &Standing| {
        let by = said_by(&revoked.by);
        if revoked.device == own {
            format!("  revoked      THIS DEVICE ({by}): the others take nothing from it")
        } else {
            format!("  revoked      {} ({by}){}", revoked.device, set_aside(revoked.set_aside))
        }
    };
    status.revoked.iter().map(of_one).collect()
}

/// Names all that `--check` goes by.
fn looked_at(status: &Status, devices: usize, run: Option<&RunState>) -> String {
    let run = run.filter(|run| run.running).map_or_else(String::new, |run| {
        let on =
            plural(run.links.len() as u64, "thread of `packmule run` gets", "threads of `packmule run` get");
        format!(", whether {on} on")
    });
    let tables = count(status.tables.len() as u64, "table");
    let revoked = count(status.revoked.len() as u64, "revoked device");
    format!(
        "looked at: the secret key, open conflicts, {tables} (whether held, and rows that are not sent), {revoked}, \
         the clocks of {}, {}{run}",
        count(devices as u64, "device"),
        count(status.notices.len() as u64, "notice")
    )
}

/// Says what a link has carried, and how fast.
fn of_link(figures: &LinkFigures) -> String {
    paragraph(&format!("link         {}", link(figures)), 2, 15)
}

/// Says what there is to do, with the commands that help.
fn to_do(todo: &[Advice], indent: usize) -> Vec<(Option<Style>, String)> {
    let of_one = |Advice { person, what, command }: &Advice| {
        let mut item = paragraph(what, indent - 2, indent);
        if let Some(command) = command {
            item.push_str(&format!("\n{:indent$}  {command}", ""));
        }
        (person.then_some(Style::Warn), item)
    };
    todo.iter().map(of_one).collect()
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

/// Says who it is, and how it stands.
fn of_device(path: &Path, (status, asked): (&Status, Option<&str>), now: i64) -> Vec<String> {
    let identity = &status.identity;
    let what = if identity.base { "base" } else { "device" };
    let mut lines = vec![
        format!("{} is the {what} `{}`", shown(path), identity.name),
        format!("  fingerprint  {}", identity.id),
        match fleets(identity) {
            (Some(fleet), _) => format!("  fleet        {}…", &fleet[..16]),
            (None, asks) => format!("  fleet        {}", no_fleet(asks.as_deref())),
        },
    ];
    if !status.can_sign {
        let key = beside(path, ".pmkey");
        lines.push(match key.exists() {
            true => format!("  secret key   {}: this user may not read it", shown(&key)),
            false => format!(
                "  secret key   MISSING: {} is not there, so nothing can be sealed or sent",
                shown(&key)
            ),
        });
    }
    lines.push(format!("  log          {}, {}", count(status.log_frames, "frame"), size(status.log_bytes)));
    if status.journal_mode != "wal" {
        let mode = &status.journal_mode;
        lines.push(format!("  journal      {mode}, not WAL: whoever writes keeps all others out"));
    }
    lines.push(format!("  clock        {}", time(now)));
    lines.push(match status.conflicts {
        0 => "  conflicts    none".into(),
        n => format!("  conflicts    {} open: `packmule conflicts {}`", number(n), quoted(path)),
    });
    if status.decisions_waiting > 0 {
        let waiting = plural(status.decisions_waiting, "decision in SQL waits", "decisions in SQL wait");
        lines.push(format!("  decisions    {waiting} for the next `packmule seal {}`", quoted(path)));
    }
    if let Some(name) = asked {
        lines.push(format!("  asks for     the name `{name}`, which the fleet has not signed yet"));
    }
    lines
}

/// Says how `packmule run` stands.
fn of_run(run: &RunState) -> Part<Option<Style>> {
    let heading = match run.running {
        false => "  run          NOT RUNNING: it ended without a word; how its links stood:".to_owned(),
        true => format!("  run          since {}, process {}", run.since, run.pid),
    };
    let of_link = |link: &LinkState| {
        let text = link.text.lines().next().unwrap_or("it has not met anybody yet");
        let text = if link.state == "begins" { "it has not met anybody yet" } else { text };
        let since = link.since.split('.').next().unwrap_or_default();
        let last = match (&link.in_step, link.state.as_str()) {
            (_, "in step" | "done") | (None, _) => String::new(),
            (Some(last), _) => format!("; in step last at {last}"),
        };
        let line = format!("{} ({} since {since}Z): {text}{last}", link.link, link.state);
        paragraph(&line, 4, 6)
    };
    Part::plain("run", Some((None, &heading)), run.links.iter().map(of_link))
}

/// Lists the tables; those of which there is something to say first, where a screen has no room for all.
fn tables(path: &Path, status: &Status) -> Part<Option<Style>> {
    if status.tables.is_empty() {
        let none = match status.identity.base {
            true => "none yet: they come with the boards' bundles".to_owned(),
            false => format!("none is tracked: `packmule track {} TABLE`", quoted(path)),
        };
        return Part::plain("tables", None, [format!("  tables       {none}")]);
    }
    let mut rows: Vec<Vec<String>> = status.tables.iter().map(|table| table_row(table, path)).collect();
    rows.sort_by_key(|row| row.last().is_some_and(String::is_empty));
    Part::plain("tables", Some((None, "  tables")), columns(&rows))
}

fn table_row(table: &TableStatus, db: &Path) -> Vec<String> {
    let unsealed = match table.unsealed {
        0 => None,
        1_000_000.. => Some("over 1,000,000 writes not sealed yet".to_owned()),
        n => Some(format!("{} not sealed yet", count(n, "write"))),
    };
    let is_above =
        table.how == TableHow::Suspended || matches!(table.hint(), Some(Hint::Seal | Hint::Track { .. }));
    let note = match is_above {
        true => Some("see above".into()),
        false => table.note.as_ref().map(|note| note.clone() + &hint(table.hint(), db)),
    };
    let waiting =
        (table.waiting > 0).then(|| format!("{} for it", plural(table.waiting, "row waits", "rows wait")));
    let tail: Vec<String> = unsealed.into_iter().chain(waiting).chain(note).collect();
    vec![format!("    {}", table.name), table.how.words().to_owned(), tail.join("; ")]
}
