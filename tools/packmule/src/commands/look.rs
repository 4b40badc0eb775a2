//! Looking and checking: status, log, digest, verify, inspect.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use packmule::core::model::{DeviceId, Stream};
use packmule::{BundleInfo, HistoryEntry, OwnedValue, label};
use serde_json::{Value, json};

use super::{json_path, of_db, open_to_read};
use crate::Context;
use crate::failure::{Failure, with_database};
use crate::output::{columns, say};
use crate::show::{clock_wrong, count, iso, now, number, quoted, shown, size, time, waiting};
use crate::sources::{self, Kind};
use crate::value::{hex, json_row, read, show};

/// `packmule status`.
pub fn status(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    let status = engine.status().map_err(of_db(path))?;
    let identity = &status.identity;
    let fleet = identity.fleet.map(|key| hex(&key));
    let now = now();
    let out = &mut *context.out;
    out.document(json!({
        "database": json_path(path),
        "name": identity.name,
        "fingerprint": identity.id.to_string(),
        "base": identity.base,
        "fleet": fleet,
        "can_seal": status.can_sign,
        "tables": status.tables.iter().map(|t| json!({
            "name": t.name, "how": t.how, "unsealed": t.unsealed, "note": t.note,
        })).collect::<Vec<_>>(),
        "conflicts": status.conflicts,
        "waits": status.waits.iter().map(|w| json!({
            "author": w.author, "frames": [w.frames.0, w.frames.1], "missing": w.missing, "up_to": w.up_to,
        })).collect::<Vec<_>>(),
        "log": { "frames": status.log_frames, "bytes": status.log_bytes },
        "clock": iso(now),
        "clock_wrong": clock_wrong(now) || status.clock.is_some(),
        "clock_off_ms": status.clock,
        "notices": status.notices,
    }));
    say!(out, "{} is the {} `{}`", shown(path), if identity.base { "base" } else { "device" }, identity.name);
    say!(out, "  fingerprint  {}", identity.id);
    say!(out, "  fleet        {}", fleet.map_or_else(|| "none".into(), |fleet| format!("{}…", &fleet[..16])));
    if !status.can_sign {
        say!(
            out,
            "  secret key   MISSING: {}.pmkey is not there, so nothing can be sealed or sent",
            shown(path)
        );
    }
    say!(out, "  log          {}, {}", count(status.log_frames, "frame"), size(status.log_bytes));
    say!(out, "  clock        {}", time(now));
    match status.conflicts {
        0 => say!(out, "  conflicts    none"),
        n => say!(out, "  conflicts    {} open: `packmule conflicts {}`", number(n), quoted(path)),
    }
    if status.tables.is_empty() && identity.base {
        say!(out, "  tables       none yet: they come with the boards' bundles");
    } else if status.tables.is_empty() {
        say!(out, "  tables       none is tracked: `packmule track {} TABLE`", quoted(path));
    } else {
        say!(out, "  tables");
        let rows: Vec<Vec<String>> = status
            .tables
            .iter()
            .map(|t| {
                let unsealed = match t.unsealed {
                    0 => String::new(),
                    1_000_000.. => "over 1,000,000 writes not sealed yet".into(),
                    n => format!("{} not sealed yet", count(n, "write")),
                };
                let note = t.note.clone().unwrap_or_default();
                let tail =
                    [unsealed, note].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("; ");
                vec![format!("    {}", t.name), t.how.to_owned(), tail]
            })
            .collect();
        columns(&rows).iter().for_each(|line| say!(out, "{line}"));
    }
    for wait in &status.waits {
        say!(out, "  waiting      {}", waiting(wait));
    }
    for notice in &status.notices {
        say!(out, "  notice       {}", with_database(notice, &quoted(path)));
    }
    Ok(())
}

/// How many rows of a group are shown.
const ROWS_SHOWN: usize = 200;

/// `packmule log`.
pub fn log(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let engine = open_to_read(context)?;
    let table = if context.args.len() > 1 { Some(context.args.text(1)?) } else { None };
    let typed = context.args.texts(2)?;
    let mut key: Vec<OwnedValue> = typed.iter().map(|word| read(word)).collect();
    // The key of a text column can look like a number.
    if key.iter().any(|k| matches!(k, OwnedValue::Int(_) | OwnedValue::Real(_))) {
        let mut any = false;
        engine
            .log(table, &key, &mut |_| {
                any = true;
                Ok(())
            })
            .map_err(of_db(path))?;
        if !any {
            key = typed.iter().map(|word| OwnedValue::Text(word.as_bytes().to_vec())).collect();
        }
    }
    let with_rows = context.args.has("rows") || !key.is_empty();
    let out = &mut *context.out;
    if out.json {
        out.text("{\"groups\": [");
    }
    let mut groups = 0;
    let mut rows: Vec<(String, Value)> = Vec::new();
    let walked = engine.log(table, &key, &mut |item| {
        if out.closed() {
            return Ok(());
        }
        match item {
            Ok(op) if with_rows && rows.len() < ROWS_SHOWN => {
                let key: Vec<String> =
                    op.key.iter().map(|(name, v)| format!("{name} = {}", show(v))).collect();
                let document = json!({ "table": op.table, "op": op.op, "key": json_row(&op.key) });
                rows.push((format!("    {} {} {}", op.op, op.table, key.join(", ")), document));
            }
            Ok(_) => {}
            Err(group) => {
                let rows = std::mem::take(&mut rows);
                if out.json {
                    let mut document = group_json(group);
                    if with_rows {
                        document["rows"] = rows.into_iter().map(|(_, row)| row).collect();
                    }
                    out.text(&format!("{}{document}", if groups > 0 { ",\n " } else { "\n " }));
                } else {
                    say!(out, "{}", group_line(group));
                    let left = group.ops - (rows.len() as u64).min(group.ops);
                    rows.iter().for_each(|(line, _)| say!(out, "{line}"));
                    if with_rows && left > 0 {
                        say!(out, "    … and {} more", number(left));
                    }
                }
                groups += 1;
            }
        }
        Ok(())
    });
    if out.json {
        // Also after a failure what was printed is a whole document.
        match walked {
            Ok(()) => out.text("\n]}\n"),
            Err(e) => {
                let failure = of_db(path)(e);
                let message = failure.message().to_owned();
                out.text(&format!("\n], \"error\": {}}}\n", json!(message)));
                return Err(Failure::Told(format!("{}: {message}", shown(path))));
            }
        }
        return Ok(());
    }
    walked.map_err(of_db(path))?;
    if groups == 0 {
        say!(out, "{}: nothing in the log{}", shown(path), if table.is_some() { " of that" } else { "" });
    }
    Ok(())
}

fn group_json(group: &HistoryEntry) -> Value {
    json!({
        "device": group.author.to_string(),
        "label": group.label,
        "stream": if group.stream == Stream::Own { "per-device" } else { "shared" },
        "frames": [group.frames.0, group.frames.1],
        "stamp": group.lamport,
        "at": iso(group.wall),
        "applied": group.applied,
        "resolution": group.resolution,
        "ops": group.ops,
    })
}

fn group_line(group: &HistoryEntry) -> String {
    let frames = range(group.frames.0, group.frames.1);
    let mut line = format!("{}  {}  {}, {}", time(group.wall), group.label, frames, count(group.ops, "row"));
    if group.stream == Stream::Own {
        line.push_str(", per-device");
    }
    if group.resolution {
        line.push_str(", closes conflicts");
    }
    if !group.applied {
        line.push_str(", WAITS for frames that are missing");
    }
    line
}

/// `packmule digest`.
pub fn digest(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let digest = open_to_read(context)?.digest(context.args.has("gathered")).map_err(of_db(path))?;
    context.out.document(json!({ "digest": digest }));
    say!(context.out, "{digest}");
    Ok(())
}

/// `packmule verify`.
pub fn verify(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    match sources::kind(&path) {
        Ok(Kind::Database) => verify_database(context, &path),
        Ok(Kind::Bundle) => verify_bundle(context, &path),
        Ok(Kind::Empty) => Err(Failure::of(&path, "is empty: neither a database nor a bundle")),
        Ok(Kind::Other) => Err(Failure::of(&path, "is neither a database nor a bundle")),
        Err(e) => Err(Failure::io(&path, "read it", &e)),
    }
}

fn verify_database(context: &mut Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    let report = open_to_read(context)?.verify().map_err(of_db(path))?;
    let checked = format!("{} in {}", count(report.frames, "frame"), count(report.groups, "group"));
    let counts = json!({ "frames": report.frames, "groups": report.groups });
    finish(context, path, "database", &checked, counts, report.problems)
}

fn verify_bundle(context: &mut Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    let info = read_bundle(path)?;
    let mut problems = Vec::new();
    let mut unsigned = 0;
    for group in &info.groups {
        let who = name_in(&info, group.author);
        match group.signed {
            Some(true) => {}
            Some(false) => problems.push(format!(
                "frames {} to {} of {who}: the signature does not match",
                group.first, group.last
            )),
            None => unsigned += 1,
        }
    }
    if info.signed == Some(false) {
        problems.insert(0, "its header: the signature does not match".into());
    }
    let frames: u64 = info.groups.iter().map(|g| g.last - g.first + 1).sum();
    let mut checked = format!("{} in {}", count(frames, "frame"), count(info.groups.len() as u64, "group"));
    if unsigned > 0 {
        checked.push_str(&format!(
            " ({} by devices whose certificate is not in it: their signatures are checked at the import)",
            number(unsigned)
        ));
    }
    let counts =
        json!({ "frames": frames, "groups": info.groups.len(), "groups_without_certificate": unsigned });
    finish(context, path, "bundle", &checked, counts, problems)
}

fn finish(
    context: &mut Context<'_, '_>,
    path: &Path,
    kind: &str,
    checked: &str,
    counts: Value,
    problems: Vec<String>,
) -> Result<(), Failure> {
    let out = &mut *context.out;
    let mut document = counts;
    document["kind"] = json!(kind);
    document["ok"] = json!(problems.is_empty());
    document["problems"] = json!(problems);
    let found = count(problems.len() as u64, "problem");
    if !problems.is_empty() {
        document["error"] = json!(format!("{found} found"));
    }
    out.document(document);
    if problems.is_empty() {
        say!(out, "{}: all is well: {checked}, every check sum, chain and signature right", shown(path));
        return Ok(());
    }
    problems.iter().for_each(|problem| say!(out, "{}: {problem}", shown(path)));
    let what = if kind == "bundle" {
        "copy or export it again"
    } else {
        "keep a copy, and restore it from a backup or a peer"
    };
    Err(Failure::Told(format!("{}: {found} found: {what}", shown(path))))
}

fn read_bundle(path: &Path) -> Result<BundleInfo, Failure> {
    let kind = sources::kind(path).map_err(|e| Failure::io(path, "read it", &e))?;
    if kind == Kind::Database {
        let hint = format!("`packmule status {}` shows what is in it", quoted(path));
        return Err(Failure::of(path, format!("is a database, not a bundle: {hint}")));
    }
    let file = File::open(path).map_err(|e| Failure::io(path, "read it", &e))?;
    packmule::inspect(BufReader::new(file)).map_err(|e| Failure::engine(path, path, e))
}

fn name_in(info: &BundleInfo, id: DeviceId) -> String {
    label(id, info.devices.iter().find(|(other, ..)| *other == id).map(|(_, name, ..)| name.as_str()))
}

/// `packmule inspect`.
pub fn inspect(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let info = read_bundle(path)?;
    let out = &mut *context.out;
    out.document(bundle_json(&info));
    let name = |id| name_in(&info, id);
    say!(out, "{}: a bundle of {}", shown(path), size(info.bytes));
    if let Some(sender) = info.sender {
        say!(out, "  from         {}  (fingerprint {sender})", name(sender));
    }
    say!(out, "  for          {}", info.receiver.map_or_else(|| "anyone".into(), name));
    say!(out, "  made         {}", time(info.wall));
    let signed = match info.signed {
        Some(true) => "by its sender",
        Some(false) => "WRONG SIGNATURE",
        None => "not checked: the sender's certificate is not in it",
    };
    say!(out, "  signed       {signed}");
    say!(out, "  certificates");
    let rows: Vec<Vec<String>> = info
        .devices
        .iter()
        .map(|(id, name, base, fleet)| {
            let kind = if *base { "base" } else { "device" };
            let how = if *fleet { "vouched for by a fleet" } else { "by itself alone" };
            vec![format!("    {name}"), id.to_string(), kind.into(), how.into()]
        })
        .collect();
    columns(&rows).iter().for_each(|line| say!(out, "{line}"));
    say!(out, "  its sender had");
    let rows: Vec<Vec<String>> = info
        .vector
        .iter()
        .map(|v| {
            let what = if v.stream == Stream::Own { "per-device" } else { "shared" };
            vec![format!("    {}", name(v.author)), format!("{} {what}", count(v.seq, "frame"))]
        })
        .collect();
    columns(&rows).iter().for_each(|line| say!(out, "{line}"));
    say!(out, "  groups       {}", number(info.groups.len() as u64));
    let rows: Vec<Vec<String>> = info
        .groups
        .iter()
        .map(|g| {
            let signed = match g.signed {
                Some(true) => "signed",
                Some(false) => "WRONG SIGNATURE",
                None => "signature not checked",
            };
            let tables =
                if g.tables.is_empty() { String::new() } else { format!("defines {}", g.tables.join(", ")) };
            vec![
                format!("    {}", time(g.wall)),
                name(g.author),
                format!(
                    "{} {}",
                    if g.stream == Stream::Own { "per-device" } else { "shared" },
                    range(g.first, g.last)
                ),
                size(g.bytes),
                signed.into(),
                tables,
            ]
        })
        .collect();
    columns(&rows).iter().for_each(|line| say!(out, "{line}"));
    Ok(())
}

fn range(first: u64, last: u64) -> String {
    if first == last { format!("frame {first}") } else { format!("frames {first} to {last}") }
}

fn bundle_json(info: &BundleInfo) -> Value {
    json!({
        "sender": info.sender.map(|id| id.to_string()),
        "receiver": info.receiver.map(|id| id.to_string()),
        "made": iso(info.wall),
        "signed": info.signed,
        "bytes": info.bytes,
        "certificates": info.devices.iter().map(|(id, name, base, fleet)| json!({
            "fingerprint": id.to_string(), "name": name, "base": base, "fleet": fleet,
        })).collect::<Vec<_>>(),
        "sender_had": info.vector.iter().map(|v| json!({
            "device": v.author.to_string(),
            "stream": if v.stream == Stream::Own { "per-device" } else { "shared" },
            "frames": v.seq,
        })).collect::<Vec<_>>(),
        "groups": info.groups.iter().map(|g| json!({
            "device": g.author.to_string(),
            "stream": if g.stream == Stream::Own { "per-device" } else { "shared" },
            "frames": [g.first, g.last],
            "stamp": g.lamport,
            "at": iso(g.wall),
            "bytes": g.bytes,
            "defines": g.tables,
            "signed": g.signed,
        })).collect::<Vec<_>>(),
    })
}
