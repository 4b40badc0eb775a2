//! Both ways with a card: exchange.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use packmule::carry::card::{self, Exchange, Limits, NotLeft, Removed, Skipped};
use packmule::carry::volume::Directory;
use packmule::core::model::DeviceId;
use packmule::{Engine, Error, ImportReport, Wait, label};

use super::admit::asks_for_admission;
use super::decide::decide_by_programs;
use super::device::fleets;
use super::intake::summary;
use super::{Context, of_db, open, say_left_out};
use crate::documents::{CardFile, Exchanged, File, Known, OwnError, Reason, WaitGroup};
use crate::output::{Failure, Meter, Out, caution, engine_text, say, tell};
use crate::text::{conflicts_open, count, elsewhere, quoted, shown, size, waiting, words, wrap};
use crate::usage::flags;

/// `packmule exchange`.
pub fn exchange(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, directory) = (context.args.path(0), context.args.path(1));
    let mut engine = open(context)?;
    let before = engine.identity().admitted;
    let mut card = Directory::open(directory).map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => {
            Failure::of(directory, "another `packmule exchange` is at work there: wait until it ends")
        }
        io::ErrorKind::NotADirectory => {
            Failure::of(directory, "is not a directory: give where the card is mounted")
        }
        io::ErrorKind::NotFound => {
            Failure::of(directory, "there is no such directory: is the card mounted, and there?")
                .coded(Error::io_code(&e))
        }
        _ => Failure::io(directory, "open the directory", &e),
    })?;
    let mut report = Exchange::default();
    let mut meter: Option<(PathBuf, Meter)> = None;
    let encrypt = context.args.has(&flags::ENCRYPT);
    let exchange = if encrypt { card::exchange_encrypted } else { card::exchange };
    let exchanged = exchange(
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
            n => failure.and(&format!(
                "\n({} had been taken in already, and what they brought stays)",
                count(n, "bundle")
            )),
        }
    });
    Done::new(path, directory, (&engine, before), &report)?.report(context.out, failure.as_ref());
    match failure {
        // The document has it.
        Some(failure) if context.out.json => Err(Failure::reported(failure.message().to_owned())),
        Some(failure) => Err(failure),
        None => {
            decide_by_programs(context, &mut engine);
            say_left_out(context, &engine);
            Ok(())
        }
    }
}

/// What an exchange did, as it is printed.
struct Done<'a> {
    db: &'a Path,
    directory: &'a Path,
    report: &'a Exchange,
    names: HashMap<DeviceId, String>,
    open: u64,
    /// What waits, whether or not something was taken in now.
    waits: Vec<Wait>,
    /// Who asks for admission, and in what `admit` finds the requests.
    asks: Vec<(DeviceId, String)>,
    ask_in: &'a Path,
    /// The fleet that has admitted this device just now.
    admitted: Option<String>,
    /// No fleet has admitted this device.
    outside: bool,
}

impl<'a> Done<'a> {
    fn new(
        db: &'a Path,
        directory: &'a Path,
        (engine, admitted_before): (&Engine, bool),
        report: &'a Exchange,
    ) -> Result<Self, Failure> {
        let base = engine.identity().base;
        let asks = if base { known_applicants(db, engine)? } else { applicants(report) };
        let fleet = fleets(engine.identity()).0;
        let outside = fleet.is_none();
        let admitted = fleet.filter(|_| !admitted_before);
        let devices = engine.devices().map_err(of_db(db))?;
        let names = devices.iter().map(|d| (d.id, label(d.id, d.name.as_deref()))).collect();
        let status = engine.status().map_err(of_db(db))?;
        let (open, waits) = (status.conflicts, status.waits);
        let ask_in = if base { db } else { directory };
        Ok(Self { db, directory, report, names, open, waits, asks, ask_in, admitted, outside })
    }

    fn report(&self, out: &mut Out<'_>, failure: Option<&Failure>) {
        self.tell_files(out);
        out.document(&self.document(failure));
        self.print_files(out);
        if let Some(why) = &self.report.not_left {
            caution!(out, "{}: {}", shown(self.directory), not_left(why));
        }
        if failure.is_none() {
            self.print_total(out);
        }
    }

    /// Says of each file that was looked at, and of which nothing else is said, why.
    fn tell_files(&self, out: &Out<'_>) {
        let at = |file: &Path| shown(&self.directory.join(file));
        for (file, report) in &self.report.taken {
            let known = count(report.known, "frame");
            tell!(out, "{}: read to its end: {known} known already, {} new", at(file), report.frames);
        }
        for file in &self.report.heard {
            tell!(out, "{}: looked at: nothing new in it for this device", at(file));
        }
        for file in &self.report.waiting {
            tell!(out, "{}: looked at: left here before, and still lacked by others", at(file));
        }
        for device in self.names.values() {
            tell!(out, "{device}: looked at what it is known to have");
        }
    }

    fn print_files(&self, out: &mut Out<'_>) {
        let at = |file: &Path| shown(&self.directory.join(file));
        for (file, report) in &self.report.taken {
            say!(out, "{}: taken in: {}", at(file), summary(report));
        }
        for (file, why) in &self.report.stepped_over {
            caution!(out, "{}: skipped: {}", at(file), self.skipped(file, why).replace('\n', "\n  "));
        }
        for (file, why) in &self.report.removed {
            say!(out, "{}: removed: {}", at(file), removed(*why));
        }
        for left in &self.report.left {
            let (file, whom, size) = (at(&left.file), self.name(left.receiver), size(left.bytes));
            let size = if left.encrypted { format!("{size}, encrypted") } else { size };
            if left.introduction {
                say!(out, "{file}: left for anyone: who this device is, in clear, {size}");
            } else if left.state {
                say!(out, "{file}: left for {whom}: the state of the shared tables, {size}");
            } else if left.frames == 0 {
                say!(out, "{file}: left for {whom}: what this device has, {size}");
            } else {
                say!(out, "{file}: left for {whom}: {}, {size}", count(left.frames, "frame"));
            }
        }
    }

    fn print_total(&self, out: &mut Out<'_>) {
        if self.report.taken.is_empty() && self.report.left.is_empty() && self.report.not_left.is_none() {
            let directory = shown(self.directory);
            match self.report.waiting.len() as u64 {
                0 => say!(out, "{directory}: nothing to take in, nothing to leave"),
                n => say!(
                    out,
                    "{directory}: nothing to take in; what the others lack lies there already, in {}",
                    count(n, "bundle")
                ),
            }
        }
        self.waits.iter().for_each(|wait| say!(out, "{}", waiting(wait)));
        if let Some(fleet) = &self.admitted {
            say!(out, "the fleet {}… has admitted this device", fleet.get(..16).unwrap_or(fleet));
        }
        asks_for_admission(&self.asks, self.ask_in).iter().for_each(|line| out.warning(line));
        self.outside_the_fleet().iter().for_each(|line| out.warning(line));
        let mut total = ImportReport::default();
        self.report.taken.iter().for_each(|(_, report)| total.add_import(report.clone()));
        elsewhere(&total, self.db).iter().for_each(|line| out.line(line));
        conflicts_open(self.open, self.db).into_iter().for_each(|line| out.line(&line));
    }

    fn document<'s>(&'s self, failure: Option<&'s Failure>) -> Exchanged<'s> {
        let report = self.report;
        let files = |list: &[PathBuf]| list.iter().map(|file| shown(file)).collect();
        let reason = |file: &Path, reason: String| Reason { file: shown(file), reason };
        let taken = report.taken.iter().map(|(file, report)| CardFile {
            file: File { file: shown(file), taken: report.into() },
            waits: report.waits.iter().map(WaitGroup::from).collect(),
        });
        let stepped_over =
            report.stepped_over.iter().map(|(file, why)| reason(file, self.skipped(file, why)));
        Exchanged {
            taken: taken.collect(),
            heard: files(&report.heard),
            stepped_over: stepped_over.collect(),
            left: &report.left,
            waiting: files(&report.waiting),
            removed: report.removed.iter().map(|(file, why)| reason(file, removed(*why).into())).collect(),
            not_left: report.not_left.as_ref().map(not_left),
            asks: self.asks.iter().map(|(id, name)| Known { fingerprint: id.to_string(), name }).collect(),
            admitted: self.admitted.is_some(),
            conflicts_open: self.open,
            failed: failure.map_or(OwnError::NONE, Failure::own),
        }
    }

    fn skipped(&self, file: &Path, why: &Skipped) -> String {
        match why {
            Skipped::Foreign => "is not a bundle".into(),
            // What helps is said once, for all of them.
            Skipped::Refused(e @ Error::AsksForAdmission { .. }) => e.to_string(),
            Skipped::Refused(e @ Error::Untrusted(_)) if self.outside => e.to_string(),
            Skipped::Refused(e) => engine_text(&self.directory.join(file), self.db, e),
        }
    }

    /// Says once what helps a device that no fleet has admitted, and that could take in nothing for it.
    fn outside_the_fleet(&self) -> Vec<String> {
        let mut strangers = BTreeSet::new();
        for (_, why) in &self.report.stepped_over {
            if let Skipped::Refused(Error::Untrusted(devices)) = why {
                strangers.extend(devices.iter().filter(|device| !device.revoked).map(|device| device.id));
            }
        }
        if !self.outside || strangers.is_empty() {
            return Vec::new();
        }
        let (db, directory) = (quoted(self.db), quoted(self.directory));
        let what = format!(
            "no fleet has admitted this device yet: what it leaves here asks for that, and where the fleet key is, \
             `packmule admit {directory} --fleet FILE` answers. Or, without a fleet, for each device whose fingerprint is \
             the one that its `packmule status` shows:"
        );
        let mut lines = vec![wrap(&words(&what), 0)];
        lines.extend(strangers.iter().map(|id| format!("  packmule trust {db} {id}")));
        lines
    }

    fn name(&self, receiver: Option<DeviceId>) -> String {
        receiver.map_or("anyone".into(), |id| self.names.get(&id).cloned().unwrap_or_else(|| id.to_string()))
    }
}

/// Lists all that are known to ask for admission.
fn known_applicants(db: &Path, engine: &Engine) -> Result<Vec<(DeviceId, String)>, Failure> {
    let all = engine.applicants().map_err(of_db(db))?;
    Ok(all.into_iter().map(|asks| (asks.id, asks.name)).collect())
}

/// Lists those that ask for admission in bundles that were skipped.
fn applicants(report: &Exchange) -> Vec<(DeviceId, String)> {
    let mut all = BTreeMap::new();
    for (_, why) in &report.stepped_over {
        if let Skipped::Refused(Error::AsksForAdmission { devices, .. }) = why {
            all.extend(devices.iter().map(|d| (d.id, d.name.clone().unwrap_or_default())));
        }
    }
    all.into_iter().collect()
}

fn removed(why: Removed) -> &'static str {
    match why {
        Removed::Acknowledged => "acknowledged",
        Removed::Torn => "it was not written to its end",
        Removed::Superseded => "a later one has more",
        Removed::Revoked => "it was for a device that is revoked",
        Removed::Retired => "it was for a device that is retired",
        Removed::NewIdentity => "it was for a device that has a new identity now",
        Removed::Untrusted => "it was for a device that is not trusted here",
        Removed::InClear => "it was not encrypted",
        Removed::ReadByRevoked => "it was encrypted to a device that is revoked",
        Removed::Unreadable => "it was not encrypted to a device that needs it",
    }
}

fn not_left(why: &NotLeft) -> String {
    match why {
        NotLeft::ReadOnly => "is read-only: nothing could be left or removed there".into(),
        NotLeft::Full { next_bytes: None } => {
            "is full: a part of what the others lack did not fit; the rest comes next time".into()
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
