//! What was written, by whom and when: log.

use std::path::Path;

use packmule::core::model::{DeviceId, Stream};
use packmule::{Engine, HistoryEntry, HistoryItem, HistoryOp, OwnedValue};

use super::{Context, of_db, open_to_read};
use crate::documents::LogGroup;
use crate::output::{Failure, Out, say};
use crate::text::{count, number, pairs, quoted, range, read, read_when, show, shown, time};
use crate::usage::flags;

/// How many rows of a group are shown.
const ROWS_SHOWN: usize = 200;

/// How many bytes of values of a group are shown, about.
const BYTES_SHOWN: usize = 256 << 10;

/// `packmule log`.
pub fn log(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    let table = if context.args.len() > 1 { Some(context.args.text(1)?) } else { None };
    let key = wanted_key(&engine, table, &context.args.texts(2)?).map_err(of_db(path))?;
    let filter = Filter::of(context, &engine)?;
    let values = context.args.has(&flags::VALUES);
    let with_rows = context.args.has(&flags::ROWS) || values || !key.is_empty();
    let out = &mut *context.out;
    if out.json {
        out.text("{\"groups\": [");
    }
    let (mut groups, mut bare) = (0, false);
    let all = out.json || context.args.has(&flags::LOG_ALL);
    let (mut rows, mut bytes): (Vec<HistoryOp>, usize) = (Vec::new(), 0);
    let mut each = |item: HistoryItem<'_>| {
        match item {
            _ if out.closed() => {}
            HistoryItem::Op(op) if with_rows && rows.len() < ROWS_SHOWN && bytes < BYTES_SHOWN => {
                bytes += length(op);
                rows.push(op.clone());
            }
            HistoryItem::Op(_) => {}
            HistoryItem::Group(group) => {
                let rows = std::mem::take(&mut rows);
                bytes = 0;
                let wanted = filter.wants(group);
                let is_left_out = !all && is_bare(group);
                bare |= wanted && is_left_out;
                if wanted && !is_left_out {
                    print_group(group, with_rows.then_some(&rows[..]), values, groups == 0, out);
                    groups += 1;
                }
            }
        }
        Ok(())
    };
    let walked = match values {
        true => engine.log_with_before(table, &key, &mut each),
        false => engine.log(table, &key, &mut each),
    };
    if out.json {
        // Also after a failure what was printed is a whole document.
        let Err(e) = walked else {
            out.text("\n]}\n");
            return Ok(());
        };
        let failure = of_db(path)(e);
        out.text("\n], ");
        out.rest_of_document(&failure.own());
        return Err(Failure::reported(format!("{}: {}", shown(path), failure.message())));
    }
    walked.map_err(of_db(path))?;
    if groups == 0 {
        let of = if table.is_some() || filter.is_any() { " of that" } else { "" };
        let bare = if bare { " but groups without rows, which --all shows" } else { "" };
        say!(out, "{}: nothing in the log{of}{bare}", shown(path));
    }
    say_unsealed(&engine, path, table, out)
}

/// Says that something was written that is not sealed: what was written just now is looked for in the log first.
fn say_unsealed(engine: &Engine, path: &Path, table: Option<&str>, out: &mut Out<'_>) -> Result<(), Failure> {
    let is_meant = |name: &str| table.is_none_or(|table| table.eq_ignore_ascii_case(name));
    let tables = engine.status().map_err(of_db(path))?.tables;
    if tables.iter().any(|of| of.unsealed > 0 && is_meant(&of.name)) {
        say!(out, "writes since the last seal are not in the log yet: `packmule seal {}`", quoted(path));
    }
    Ok(())
}

/// Returns whether nothing was written in a group that a keeper would look for: definitions, and what devices say of
/// themselves.
fn is_bare(group: &HistoryEntry) -> bool {
    group.ops == 0 && group.applied && !group.resolution
}

/// How many bytes the values of a row take, about.
fn length(op: &HistoryOp) -> usize {
    let of = |value: &OwnedValue| match value {
        OwnedValue::Text(bytes) | OwnedValue::Blob(bytes) => bytes.len(),
        _ => 8,
    };
    op.key.iter().chain(&op.values).map(|(name, value)| name.len() + of(value)).sum()
}

/// Which groups are asked for.
struct Filter {
    by: Option<DeviceId>,
    since: Option<i64>,
}

impl Filter {
    fn of(context: &Context<'_, '_>, engine: &Engine) -> Result<Self, Failure> {
        let args = &context.args;
        let by = match args.flag(&flags::BY)? {
            Some(given) => Some(engine.find_device(given).map_err(of_db(args.path(0)))?),
            None => None,
        };
        let since = match args.flag(&flags::SINCE)? {
            Some(given) => Some(read_when(given).map_err(|wrong| args.wrong(format!("--since: {wrong}")))?),
            None => None,
        };
        Ok(Self { by, since })
    }

    fn is_any(&self) -> bool {
        self.by.is_some() || self.since.is_some()
    }

    fn wants(&self, group: &HistoryEntry) -> bool {
        self.by.is_none_or(|by| by == group.author) && self.since.is_none_or(|since| group.wall >= since)
    }
}

/// Reads the key that was typed. What looks like a number is text where the log has nothing of the number:
/// the key of a text column can look so.
fn wanted_key(engine: &Engine, table: Option<&str>, typed: &[&str]) -> packmule::Result<Vec<OwnedValue>> {
    let key: Vec<OwnedValue> = typed.iter().map(|word| read(word)).collect();
    if !key.iter().any(|k| matches!(k, OwnedValue::Int(_) | OwnedValue::Real(_))) {
        return Ok(key);
    }
    let mut any = false;
    engine.log(table, &key, &mut |_| {
        any = true;
        Ok(())
    })?;
    let text = |word: &&str| OwnedValue::Text(word.as_bytes().to_vec());
    Ok(if any { key } else { typed.iter().map(text).collect() })
}

/// Prints a group, and its rows if they were asked for.
fn print_group(
    group: &HistoryEntry,
    rows: Option<&[HistoryOp]>,
    values: bool,
    first: bool,
    out: &mut Out<'_>,
) {
    if out.json {
        out.text(if first { "\n " } else { ",\n " });
        out.document_line(&LogGroup { group, rows });
        return;
    }
    say!(out, "{}", group_line(group));
    let Some(rows) = rows else { return };
    for op in rows {
        let written = if values { written(op) } else { String::new() };
        say!(out, "    {} {} {}{written}", op.op.word(), op.table, pairs(&op.key));
    }
    let left = group.ops.saturating_sub(rows.len() as u64);
    if left > 0 {
        say!(out, "    … and {} more", number(left));
    }
}

/// Says what was written to a row, and what was there before.
fn written(op: &HistoryOp) -> String {
    if op.values.is_empty() {
        return if op.before.is_empty() { String::new() } else { format!(" (was {})", pairs(&op.before)) };
    }
    let before = |name: &str| op.before.iter().find(|(of, _)| of == name);
    let was = |name: &str| before(name).map_or_else(String::new, |(_, was)| format!(" (was {})", show(was)));
    let all: Vec<String> =
        op.values.iter().map(|(name, v)| format!("{name} = {}{}", show(v), was(name))).collect();
    format!(": {}", all.join(", "))
}

fn group_line(group: &HistoryEntry) -> String {
    let frames = range(group.frames.0, group.frames.1);
    let mut line = format!("{}  {}  {}, {}", time(group.wall), group.label, frames, count(group.ops, "row"));
    if group.stream == Stream::PerDevice {
        line.push_str(", per-device");
    }
    if let Some(route) = group.route {
        line.push_str(&format!(", by {}", route.words()));
    }
    if group.resolution {
        line.push_str(", closes conflicts");
    }
    if !group.applied {
        line.push_str(", WAITS for frames that are missing");
    }
    line
}
