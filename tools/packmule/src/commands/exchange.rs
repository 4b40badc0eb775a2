//! Both ways with a card: exchange.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use packmule::carry::card::{self, Exchange, Limits, NotLeft, Removed, Skipped};
use packmule::carry::volume::Directory;
use packmule::core::model::DeviceId;
use packmule::{Engine, Error, label};
use serde_json::{Value, json};

use super::{of_db, open};
use crate::Context;
use crate::failure::{Failure, engine_text};
use crate::intake::{report_json, summary};
use crate::output::{Out, say};
use crate::progress::Meter;
use crate::show::{behind, count, number, quoted, shown, size, waiting};

/// `packmule exchange`.
pub fn exchange(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, directory) = (context.args.path(0), context.args.path(1));
    let mut engine = open(context)?;
    let mut card = Directory::open(directory).map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => {
            Failure::of(directory, "another `packmule exchange` is at work there: wait for that one to end")
        }
        io::ErrorKind::NotADirectory => {
            Failure::of(directory, "is no directory: give where the card is mounted")
        }
        _ => Failure::io(directory, "open the directory", &e),
    })?;
    let mut report = Exchange::default();
    let mut meter: Option<(std::path::PathBuf, Meter)> = None;
    let exchanged = card::exchange(
        &mut engine,
        &mut card,
        &Limits::default(),
        &mut |file, at| {
            if meter.as_ref().is_none_or(|(of, _)| of != file) {
                meter = Some((file.into(), Meter::new(shown(file))));
            }
            if let Some((_, meter)) = &mut meter {
                meter.show(at);
            }
        },
        &mut report,
    );
    drop(meter);
    let failure = exchanged.err().map(|e| {
        let about = if matches!(e, Error::Io { .. }) { directory } else { path };
        let failure = Failure::engine(about, path, e);
        match report.taken.len() as u64 {
            0 => failure,
            n => failure.and(&format!("\n({} had been taken in, which stays)", count(n, "bundle"))),
        }
    });
    Told::new(path, directory, &engine, &report)?.tell(context.out, failure.as_ref());
    match failure {
        // The document has it.
        Some(failure) if context.out.json => Err(Failure::Told(failure.message().to_owned())),
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

struct Told<'a> {
    db: &'a Path,
    directory: &'a Path,
    report: &'a Exchange,
    names: HashMap<DeviceId, String>,
    open: u64,
}

impl<'a> Told<'a> {
    fn new(
        db: &'a Path,
        directory: &'a Path,
        engine: &Engine,
        report: &'a Exchange,
    ) -> Result<Self, Failure> {
        let devices = engine.devices().map_err(of_db(db))?;
        let names = devices.iter().map(|d| (d.id, label(d.id, d.name.as_deref()))).collect();
        let open = engine.status().map_err(of_db(db))?.conflicts;
        Ok(Self { db, directory, report, names, open })
    }

    fn tell(&self, out: &mut Out<'_>, failure: Option<&Failure>) {
        out.document(self.document(failure));
        let at = |file: &Path| shown(&self.directory.join(file));
        for (file, report) in &self.report.taken {
            say!(out, "{}: taken in: {}", at(file), summary(report));
        }
        for (file, why) in &self.report.stepped_over {
            say!(out, "{}: stepped over: {}", at(file), self.skipped(file, why).replace('\n', "\n  "));
        }
        for (file, why) in &self.report.removed {
            say!(out, "{}: removed: {}", at(file), removed(*why));
        }
        for left in &self.report.left {
            let whom = self.name(left.receiver);
            if left.frames == 0 {
                say!(
                    out,
                    "{}: left: tells {whom} what this device has, {}",
                    at(&left.file),
                    size(left.bytes)
                );
            } else {
                say!(
                    out,
                    "{}: left for {whom}: {}, {}",
                    at(&left.file),
                    count(left.frames, "frame"),
                    size(left.bytes)
                );
            }
        }
        if let Some(why) = &self.report.not_left {
            say!(out, "{}: {}", shown(self.directory), not_left(why));
        }
        if failure.is_some() {
            return;
        }
        if self.report.taken.is_empty() && self.report.left.is_empty() && self.report.not_left.is_none() {
            let waiting = self.report.waiting.len() as u64;
            match waiting {
                0 => say!(out, "{}: nothing to take in, nothing to leave", shown(self.directory)),
                _ => say!(
                    out,
                    "{}: nothing to take in; what the others lack lies there already, in {}",
                    shown(self.directory),
                    count(waiting, "bundle")
                ),
            }
        }
        let waits = self.report.taken.last().map(|(_, report)| &report.waits[..]).unwrap_or_default();
        for wait in waits {
            say!(out, "{}", waiting(wait));
        }
        for id in &self.report.behind {
            say!(out, "{}", behind(&self.name(Some(*id)), self.db));
        }
        if self.open > 0 {
            let these = if self.open == 1 { "conflict is open" } else { "conflicts are open" };
            say!(
                out,
                "{} {these}: `packmule conflicts {}` lists every version",
                number(self.open),
                quoted(self.db)
            );
        }
    }

    fn document(&self, failure: Option<&Failure>) -> Value {
        let files = |list: &[std::path::PathBuf]| list.iter().map(|f| shown(f)).collect::<Vec<_>>();
        let mut document = json!({
            "taken": self.report.taken.iter().map(|(file, report)| {
                let mut taken = report_json(report);
                taken["file"] = json!(shown(file));
                taken
            }).collect::<Vec<_>>(),
            "heard": files(&self.report.heard),
            "stepped_over": self.report.stepped_over.iter().map(|(file, why)| json!({
                "file": shown(file), "reason": self.skipped(file, why),
            })).collect::<Vec<_>>(),
            "left": self.report.left.iter().map(|left| json!({
                "file": shown(&left.file),
                "for": left.receiver.map(|id| id.to_string()),
                "frames": left.frames,
                "bytes": left.bytes,
            })).collect::<Vec<_>>(),
            "waiting": files(&self.report.waiting),
            "removed": self.report.removed.iter().map(|(file, why)| json!({
                "file": shown(file), "reason": removed(*why),
            })).collect::<Vec<_>>(),
            "not_left": self.report.not_left.as_ref().map(not_left),
            "need_snapshot": self.report.behind.iter().map(DeviceId::to_string).collect::<Vec<_>>(),
            "conflicts_open": self.open,
        });
        if let Some(failure) = failure {
            document["error"] = json!(failure.message());
        }
        document
    }

    fn skipped(&self, file: &Path, why: &Skipped) -> String {
        match why {
            Skipped::Foreign => "is no bundle".into(),
            Skipped::Refused(e) => engine_text(&self.directory.join(file), self.db, e),
        }
    }

    fn name(&self, receiver: Option<DeviceId>) -> String {
        receiver.map_or("anyone".into(), |id| self.names.get(&id).cloned().unwrap_or_else(|| id.to_string()))
    }
}

fn removed(why: Removed) -> &'static str {
    match why {
        Removed::Acknowledged => "acknowledged",
        Removed::Torn => "it was not written to its end",
        Removed::Superseded => "a later one tells more",
        Removed::Revoked => "it was for a device that is not trusted any more",
    }
}

fn not_left(why: &NotLeft) -> String {
    match why {
        NotLeft::ReadOnly => "is read-only: nothing could be left or removed there".into(),
        NotLeft::Full { next_bytes: None } => {
            "is full: what the others lack did not all fit; the rest comes next time".into()
        }
        NotLeft::Full { next_bytes: Some(bytes) } => format!(
            "is full: the oldest frames came first, and the next {} did not fit; the rest comes next time",
            size(*bytes)
        ),
        NotLeft::TooLong { next_bytes } => format!(
            "a single seal of {} is more than a file on a card can have: carry it by `packmule export`, or by a cable",
            size(*next_bytes)
        ),
    }
}
