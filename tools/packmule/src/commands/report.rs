//! The fleet on one page: report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::Path;

use packmule::{
    Conflict, ConflictVersion, DeviceInfo, Engine, HistoryItem, LinkFigures, Selection, Status, VersionOp,
    label,
};

use super::conflicts::differs;
use super::{Context, check_standard_output, is_standard_output, of_db, open_to_read};
use crate::documents::{Reported, RunState};
use crate::files::{folder, run_state};
use crate::output::{Failure, say};
use crate::text::html::{self, escape};
use crate::text::{
    Advice, advice, carried, clock_wrong, count, ills, iso, now, number, pairs, quoted, rate, said_by, show,
    shown, size, time, waiting,
};

/// How many conflicts stand on the page whole; of more, it says how many there are.
const CONFLICTS_SHOWN: usize = 100;

/// How many days the charts go back from the last one.
const DAYS: i64 = 30;

const DAY: i64 = 86_400_000;

/// `packmule report`.
pub fn report(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, file) = (context.args.path(0).to_owned(), context.args.path(1).to_owned());
    if is_standard_output(&file) {
        return to_standard_output(context, &path);
    }
    let engine = open_to_read(context)?;
    is_ours(&file)?;
    let io = |e: &std::io::Error| Failure::io(&file, "write it", e);
    let mut target =
        tempfile::Builder::new().prefix(".packmule-").tempfile_in(folder(&file)).map_err(|e| io(&e))?;
    let page = Page::of(&path, &engine).map_err(of_db(&path))?;
    let mut to = BufWriter::new(target.as_file_mut());
    let mut unwritten = None;
    let conflicts = page
        .write(&engine, &mut |part| {
            if unwritten.is_none() {
                unwritten = to.write_all(part.as_bytes()).err();
            }
        })
        .map_err(of_db(&path))?;
    unwritten.map_or_else(|| to.flush(), Err).map_err(|e| io(&e))?;
    drop(to);
    readable(target.as_file()).map_err(|e| io(&e))?;
    target.as_file().sync_all().map_err(|e| io(&e))?;
    target.persist(&file).map_err(|e| io(&e.error))?;
    let out = &mut *context.out;
    out.document(&Reported { report: shown(&file), devices: page.devices.len(), conflicts });
    say!(
        out,
        "{}: {} and {}, on one page that any browser shows",
        shown(&file),
        count(page.devices.len() as u64, "device"),
        count(conflicts, "open conflict")
    );
    Ok(())
}

/// Writes the page to standard output.
fn to_standard_output(context: &mut Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    check_standard_output(&context.args, "page")?;
    let engine = open_to_read(context)?;
    let page = Page::of(path, &engine).map_err(of_db(path))?;
    page.write(&engine, &mut |part| context.out.text(part)).map_err(of_db(path))?;
    Ok(())
}

/// Lets others read the page, as any new file.
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// Refuses to write over a file that is no page of ours.
fn is_ours(file: &Path) -> Result<(), Failure> {
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        return Err(Failure::of(file, "is not a plain file: use `-` to write to standard output"));
    }
    let mut begins = [0; html::MARK.len()];
    match packmule::read_beginning(file, &mut begins) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(()) if begins == *html::MARK.as_bytes() => Ok(()),
        _ => Err(Failure::of(file, "is there already and is no report: it stays; name another file")),
    }
}

/// What is on the page.
struct Page<'p> {
    path: &'p Path,
    now: i64,
    status: Status,
    devices: Vec<DeviceInfo>,
    todo: Vec<Advice>,
    links: Vec<LinkFigures>,
    /// Rows and frames by day and device, of the log.
    rows: BTreeMap<i64, BTreeMap<String, u64>>,
    frames: BTreeMap<i64, BTreeMap<String, u64>>,
    /// Groups whose author's clock cannot be right.
    undated: u64,
}

impl<'p> Page<'p> {
    fn of(path: &'p Path, engine: &Engine) -> packmule::Result<Self> {
        let (status, devices, now) = (engine.status()?, engine.devices()?, now());
        let run = run_state::read(path);
        let hanging = run.as_ref().map(RunState::hanging).unwrap_or_default();
        let todo = advice(path, &status, &devices, &engine.not_sent()?, (&hanging, now));
        let links = engine.link_figures()?;
        let (mut rows, mut frames) = (BTreeMap::new(), BTreeMap::new());
        let mut undated = 0;
        engine.log(None, &[], &mut |item| {
            let HistoryItem::Group(group) = item else { return Ok(()) };
            if clock_wrong(group.wall) {
                undated += 1;
                return Ok(());
            }
            let day = group.wall.div_euclid(DAY);
            let of = |days: &mut BTreeMap<i64, BTreeMap<String, u64>>, n| {
                *days.entry(day).or_default().entry(group.label.clone()).or_default() += n;
                // What is older than the chart goes back is dropped as the log is walked.
                let newest = days.keys().next_back().copied().unwrap_or(day);
                days.retain(|day, _| *day > newest - DAYS);
            };
            of(&mut rows, group.ops);
            of(&mut frames, group.frames.1 - group.frames.0 + 1);
            Ok(())
        })?;
        Ok(Self { path, now, status, devices, todo, links, rows, frames, undated })
    }

    /// Gives the page to `out`, part by part. Returns how many conflicts are open.
    fn write(&self, engine: &Engine, out: &mut dyn FnMut(&str)) -> packmule::Result<u64> {
        let name = &self.status.identity.name;
        out(&html::head(&format!("{name}: Packmule report")));
        out(&self.top());
        out(&self.to_do());
        out(&self.device_list());
        out(&self.links());
        out(&self.charts());
        let open = self.conflicts(engine, out)?;
        out(&self.waits());
        out(&self.log());
        out(html::END);
        Ok(open)
    }

    fn top(&self) -> String {
        let identity = &self.status.identity;
        let what = if identity.base { "base" } else { "device" };
        let counted = |n: u64, one, many| (number(n), if n == 1 { one } else { many });
        let numbers = [
            counted(self.devices.len() as u64, "device", "devices"),
            counted(self.status.tables.len() as u64, "table", "tables"),
            counted(self.status.conflicts, "open conflict", "open conflicts"),
            counted(self.status.waits.len() as u64, "group waits", "groups wait"),
            (size(self.status.log_bytes), "log"),
        ];
        let mut out = format!(
            "<header><h1>{}</h1><p class=\"soft\">{what} · {} · as of {}</p></header>\n<div class=\"numbers\">",
            escape(&identity.name),
            escape(&shown(self.path)),
            escape(&time(self.now))
        );
        for (n, of) in numbers {
            let _ = write!(out, "<div><b>{}</b><span>{of}</span></div>", escape(&n));
        }
        out.push_str("</div>\n");
        out
    }

    fn to_do(&self) -> String {
        let mut out = String::from("<section><h2>To do</h2>");
        if self.todo.is_empty() {
            out.push_str("<p class=\"good\">Nothing: all goes on by itself.</p>");
        } else {
            out.push_str("<ul class=\"todo\">");
            for todo in &self.todo {
                let class = if todo.person { " class=\"person\"" } else { "" };
                let _ = write!(out, "<li{class}>{}", escape(&todo.what));
                if let Some(command) = &todo.command {
                    let _ = write!(out, "<br><code>{}</code>", escape(command));
                }
                out.push_str("</li>");
            }
            out.push_str("</ul>");
        }
        out.push_str("</section>\n");
        out
    }

    fn device_list(&self) -> String {
        let rows: Vec<Vec<String>> = self.devices.iter().map(|device| self.device(device)).collect();
        let head = ["Device", "Heard", "Frames here", "Has of ours", "Clock"];
        format!("<section><h2>Devices</h2>{}</section>\n", html::table(&head, &rows))
    }

    fn device(&self, device: &DeviceInfo) -> Vec<String> {
        let mut who = escape(&label(device.id, device.name.as_deref()));
        let badges = [
            (device.this, "this one".to_owned(), ""),
            (device.base, "base".to_owned(), ""),
            (device.retired, retired(device), " bad"),
            (device.revoked, revoked(device), " bad"),
        ];
        for (_, text, class) in badges.iter().filter(|(is, ..)| *is) {
            let _ = write!(who, " <span class=\"badge{class}\">{}</span>", escape(text));
        }
        let heard = match device.heard {
            _ if device.this => "–".into(),
            Some(at) => {
                format!("{} <span class=\"soft at\">{}</span>", ago(self.now - at), escape(&time(at)))
            }
            None => "never".into(),
        };
        let ours = if device.this { "–".into() } else { number(device.acknowledged) };
        let clock = device.clock.map_or_else(|| "–".into(), |off| escape(&packmule::clock_words(off)));
        vec![who, heard, number(device.shared.saturating_add(device.own)), ours, clock]
    }

    /// What each link has carried, and how fast; nothing where there was none: cards and files have no rate.
    fn links(&self) -> String {
        if self.links.is_empty() {
            return String::new();
        }
        let row = |of: &LinkFigures| {
            let at = of.in_step.map_or_else(
                || "never".into(),
                |at| format!("{} <span class=\"soft at\">{}</span>", ago(self.now - at), escape(&time(at))),
            );
            let who = escape(&format!("{} by {}", label(of.peer, of.name.as_deref()), of.link));
            let ills = ills(of).unwrap_or_else(|| "–".into());
            vec![who, escape(&rate(of)), at, number(of.sessions), escape(&carried(of)), escape(&ills)]
        };
        let rows: Vec<Vec<String>> = self.links.iter().map(row).collect();
        let head = ["Link", "Goodput", "In step", "Sessions", "Carried", "Line"];
        format!("<section><h2>Links</h2>{}</section>\n", html::table(&head, &rows))
    }

    /// The order of devices in the charts.
    fn order(&self) -> Vec<&str> {
        html::order(&[&self.rows, &self.frames])
    }

    fn charts(&self) -> String {
        let mut out = String::from("<section><h2>Rows written, by day</h2>");
        if self.rows.is_empty() {
            out.push_str("<p class=\"soft\">The log has none: what all devices have is compacted away.</p>");
        } else {
            out.push_str(&html::bars(&days(&self.rows), &self.order(), "rows"));
            out.push_str("<p class=\"soft\">What is in the log here, by its authors' clocks, UTC.");
            if self.undated > 0 {
                let _ =
                    write!(out, " {} of clocks that cannot be right left out.", count(self.undated, "group"));
            }
            out.push_str("</p>");
        }
        out.push_str("</section>\n");
        out
    }

    /// Gives the open conflicts, each with its versions side by side.
    fn conflicts(&self, engine: &Engine, out: &mut dyn FnMut(&str)) -> packmule::Result<u64> {
        out("<section><h2>Open conflicts</h2>\n");
        let mut open = 0;
        engine.each_conflict_in_brief(&Selection::default(), &mut |conflict| {
            open += 1;
            if open <= CONFLICTS_SHOWN as u64 {
                out(&side_by_side(&conflict));
            }
            Ok(())
        })?;
        if open == 0 {
            out("<p class=\"good\">None.</p>");
        } else if open > CONFLICTS_SHOWN as u64 {
            let more = number(open - CONFLICTS_SHOWN as u64);
            let command = escape(&format!("packmule conflicts {} --brief", quoted(self.path)));
            out(&format!("<p>And {more} more: <code>{command}</code></p>"));
        }
        out("</section>\n");
        Ok(open)
    }

    fn waits(&self) -> String {
        let mut lines: Vec<String> = self.status.waits.iter().map(|wait| escape(&waiting(wait))).collect();
        for table in &self.status.tables {
            if table.waiting > 0 {
                lines.push(format!("{} for table {}", count(table.waiting, "row"), escape(&table.name)));
            } else if let Some(note) = table.trouble() {
                lines.push(format!("Table {}: {}", escape(&table.name), escape(note)));
            }
        }
        let mut out = String::from("<section><h2>What waits, and why</h2>");
        if lines.is_empty() {
            out.push_str("<p class=\"good\">Nothing.</p>");
        }
        lines.iter().for_each(|line| out.push_str(&format!("<p>{line}</p>")));
        out.push_str("</section>\n");
        out
    }

    fn log(&self) -> String {
        let status = &self.status;
        let mut out = format!(
            "<section><h2>Log</h2><p>{}, {}.</p>",
            count(status.log_frames, "frame"),
            escape(&size(status.log_bytes))
        );
        match &status.held_back_by {
            Some((device, frames)) => drop(write!(
                out,
                "<p>{} is not known to have {}, which the log keeps for it.</p>",
                escape(device),
                count(*frames, "frame")
            )),
            None => out.push_str("<p>No device holds it back.</p>"),
        }
        if !self.frames.is_empty() {
            out.push_str(&html::bars(&days(&self.frames), &self.order(), "frames"));
        }
        out.push_str("</section>\n");
        out
    }
}

fn retired(device: &DeviceInfo) -> String {
    format!("retired {}", device.retired_by.as_ref().map(said_by).unwrap_or_default())
}

fn revoked(device: &DeviceInfo) -> String {
    format!("revoked {}", device.revoked_by.as_ref().map(said_by).unwrap_or_default())
}

/// Says how long ago something was.
fn ago(ms: i64) -> String {
    match ms / 60_000 {
        ..2 => "just now".into(),
        minutes @ 2..120 => format!("{minutes} min ago"),
        minutes @ 120..2_880 => format!("{} h ago", minutes / 60),
        minutes => format!("{} days ago", minutes / 1_440),
    }
}

/// Returns all days from the first to the last, two weeks at least, by their dates.
fn days(of: &BTreeMap<i64, BTreeMap<String, u64>>) -> Vec<(String, BTreeMap<String, u64>)> {
    let (Some(first), Some(last)) = (of.keys().next(), of.keys().next_back()) else { return Vec::new() };
    let date = |day: i64| iso(day * DAY).split('T').next().unwrap_or_default().to_owned();
    let first = (*first).min(*last - 13);
    (first..=*last).map(|day| (date(day), of.get(&day).cloned().unwrap_or_default())).collect()
}

/// Makes the part of a conflict.
fn side_by_side(conflict: &Conflict) -> String {
    let mut out = format!(
        "<article><h3>{}: {}</h3><p class=\"soft\">{} · {}</p><div class=\"sides\">",
        escape(&conflict.table),
        escape(&pairs(&conflict.key)),
        escape(conflict.kind.word()),
        escape(&conflict.id)
    );
    conflict.versions.iter().for_each(|version| out.push_str(&side(conflict, version)));
    out.push_str("</div></article>\n");
    out
}

/// Makes one side of it.
fn side(conflict: &Conflict, version: &ConflictVersion) -> String {
    let shown = if version.shown { " class=\"shown\"" } else { "" };
    let at = version.at.map(time).unwrap_or_default();
    let mut out = format!(
        "<div{shown}><b>{}</b> <span class=\"soft\">{} <span class=\"at\">{}</span></span>",
        escape(&version.author()),
        version.op.word(),
        escape(&at)
    );
    if version.shown {
        out.push_str(" <span class=\"badge\">shown</span>");
    }
    if version.op == VersionOp::Delete {
        out.push_str("<p>The row is deleted.</p>");
    }
    out.push_str("<dl>");
    for (name, value) in &version.values {
        let class = if differs(&conflict.versions, name, value) { " class=\"differs\"" } else { "" };
        let _ = write!(out, "<dt>{}</dt><dd{class}>{}</dd>", escape(name), escape(&show(value)));
    }
    out.push_str("</dl></div>");
    out
}
