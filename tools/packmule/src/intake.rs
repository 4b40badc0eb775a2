//! Taking in what files and directories have: the common part of `import` and `merge`.

use std::fs::File;
use std::path::{Path, PathBuf};

use packmule::{Engine, Error, ImportReport, label};
use serde_json::{Value, json};

use crate::failure::{Failure, engine_text, io_text};
use crate::output::{Out, say};
use crate::progress::Meter;
use crate::show::{count, number, quoted, shown, waiting};
use crate::sources::{self, Kind};

/// What is taken in, into which database.
pub struct Intake<'a> {
    db: &'a Path,
    engine: &'a mut Engine,
    /// Boards' database files too, and not bundles alone.
    databases: bool,
    total: ImportReport,
    taken: Vec<(PathBuf, ImportReport)>,
    stepped_over: Vec<(PathBuf, String)>,
    others: Vec<PathBuf>,
}

impl<'a> Intake<'a> {
    /// Into this database.
    pub fn new(db: &'a Path, engine: &'a mut Engine, databases: bool) -> Self {
        Self {
            db,
            engine,
            databases,
            total: ImportReport::default(),
            taken: Vec::new(),
            stepped_over: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Takes in all of them. What is given by name must be good; in a directory, what is not is stepped over.
    pub fn take_in(&mut self, given: &[&Path]) -> Result<(), Failure> {
        if given.len() > 1 {
            given.iter().try_for_each(|path| self.look_ahead(path))?;
        }
        for path in given {
            let taken = if *path == Path::new("-") {
                self.take_standard_input()
            } else if path.is_dir() {
                self.take_directory(path)
            } else {
                self.take_named(path)
            };
            taken.map_err(|failure| {
                if self.taken.is_empty() {
                    return failure;
                }
                let before = count(self.taken.len() as u64, "file");
                failure.and(&format!("\n({before} before it had been taken in, which stays)"))
            })?;
        }
        Ok(())
    }

    /// Finds what is wrong with a later file before an earlier one is taken in.
    fn look_ahead(&self, path: &Path) -> Result<(), Failure> {
        if path == Path::new("-") || path.is_dir() {
            return Ok(());
        }
        match self.named_kind(path)? {
            Kind::Database => Ok(()),
            _ => self.engine.check(&mut open(path)?).map_err(|e| self.failure(path, e)),
        }
    }

    /// What a file that was given by name is; refuses what can be nothing that is wanted.
    fn named_kind(&self, path: &Path) -> Result<Kind, Failure> {
        let kind = sources::kind(path).map_err(|e| Failure::io(path, "read it", &e))?;
        if kind == Kind::Database && !self.databases {
            let hint = format!("packmule merge {} {}", quoted(self.db), quoted(path));
            return Err(Failure::of(
                path,
                format!("is a database, not a bundle: `{hint}` takes databases in"),
            ));
        }
        Ok(kind)
    }

    fn take_named(&mut self, path: &Path) -> Result<(), Failure> {
        let taken = match self.named_kind(path)? {
            Kind::Database => self.database(path),
            _ => open(path).map(|mut file| self.bundle(path, &mut file))?,
        };
        let report = taken.map_err(|e| self.failure(path, e))?;
        self.add(path, report);
        Ok(())
    }

    /// An error of the database, or of the file.
    fn failure(&self, path: &Path, error: Error) -> Failure {
        match error {
            // What there is to run on a source is about the source.
            Error::Source { error, .. } => Failure::engine(path, path, *error),
            error if about_database(&error) => Failure::engine(self.db, self.db, error),
            error => Failure::engine(path, self.db, error),
        }
    }

    fn take_directory(&mut self, directory: &Path) -> Result<(), Failure> {
        let found =
            sources::search(directory).map_err(|e| Failure::io(directory, "read the directory", &e))?;
        self.stepped_over.extend(found.unreadable);
        self.others.extend(found.others);
        for path in found.bundles {
            let taken = match File::open(&path) {
                Ok(mut file) => self.bundle(&path, &mut file),
                Err(e) => {
                    self.stepped_over.push((path, format!("cannot be read: {}", io_text(&e))));
                    continue;
                }
            };
            self.add_or_step_over(path, taken)?;
        }
        for path in found.databases {
            if same_file(&path, self.engine.path()) {
                continue;
            }
            if self.databases {
                let taken = self.database(&path);
                self.add_or_step_over(path, taken)?;
            } else {
                self.stepped_over.push((path, "is a database: `packmule merge` takes databases in".into()));
            }
        }
        Ok(())
    }

    /// A bundle is read twice, so standard input goes to a file first.
    fn take_standard_input(&mut self) -> Result<(), Failure> {
        let name = Path::new("standard input");
        let folder = self.engine.path().parent().unwrap_or(Path::new("."));
        let mut spool = tempfile::tempfile_in(folder)
            .map_err(|e| Failure::io(self.db, "make a temporary file beside it", &e))?;
        std::io::copy(&mut std::io::stdin().lock(), &mut spool)
            .map_err(|e| Failure::io(self.db, "keep standard input in a temporary file beside it", &e))?;
        let report = self.bundle(name, &mut spool).map_err(|e| self.failure(name, e))?;
        self.add(name, report);
        Ok(())
    }

    fn bundle(&mut self, path: &Path, file: &mut File) -> Result<ImportReport, Error> {
        let mut meter = Meter::new(shown(path));
        self.engine.import(file, &mut |at| meter.show(at))
    }

    fn database(&mut self, path: &Path) -> Result<ImportReport, Error> {
        let mut meter = Meter::new(shown(path));
        self.engine.import_database(path, &mut |at| meter.show(at))
    }

    fn add_or_step_over(&mut self, path: PathBuf, taken: Result<ImportReport, Error>) -> Result<(), Failure> {
        match taken {
            Ok(report) => self.add(&path, report),
            Err(e) if about_database(&e) => {
                return Err(Failure::engine(self.db, self.db, e));
            }
            Err(Error::Source { error, .. }) if matches!(*error, Error::NotADevice) => {
                self.stepped_over.push((path, "is a database, but no device of Packmule".into()));
            }
            Err(Error::Source { error, .. }) => {
                let reason = engine_text(&path, &path, &error);
                self.stepped_over.push((path, reason));
            }
            Err(e) => {
                let reason = engine_text(&path, self.db, &e);
                self.stepped_over.push((path, reason));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, report: ImportReport) {
        let total = &mut self.total;
        total.frames += report.frames;
        total.known += report.known;
        total.passed_over += report.passed_over;
        total.ops += report.ops;
        total.ops_waiting += report.ops_waiting;
        total.conflicts_opened += report.conflicts_opened;
        total.unsealed += report.unsealed;
        // What still waits after the last one.
        total.waits.clone_from(&report.waits);
        self.taken.push((path.into(), report));
    }

    /// Tells what was taken in. Nothing at all, where there was something, is a failure.
    pub fn tell(self, out: &mut Out<'_>) -> Result<(), Failure> {
        let open = self.engine.status().map_err(|e| Failure::engine(self.db, self.db, e))?.conflicts;
        let failed = self.taken.is_empty() && !self.stepped_over.is_empty();
        out.document(self.document(open, failed));
        self.tell_people(open, out);
        if failed { Err(Failure::Told(NOTHING.into())) } else { Ok(()) }
    }

    fn tell_people(&self, open: u64, out: &mut Out<'_>) {
        let own = label(self.engine.identity().id, Some(&self.engine.identity().name));
        for (path, report) in &self.taken {
            say!(out, "{}: {}", shown(path), summary(report));
            if let Some(name) = &report.new_identity {
                say!(
                    out,
                    "  {} was a second history of a device, a copy or set back: it goes on as {name}, with all that it wrote; \
                     `packmule status` tells more",
                    if *name == own { "this database" } else { "it" }
                );
            }
            if report.unsealed > 0 {
                say!(
                    out,
                    "  {} in it could not be taken in: they are not sealed, and it cannot be sealed here (its key file is not \
                     beside it, or it cannot be written to); run `packmule seal` on that device",
                    count(report.unsealed, "row")
                );
            }
        }
        for (path, reason) in &self.stepped_over {
            say!(out, "{}: stepped over: {}", shown(path), reason.replace('\n', "\n  "));
        }
        match &self.others[..] {
            [] => {}
            [path] => say!(out, "{}: stepped over: is no bundle", shown(path)),
            [path, ..] => {
                say!(out, "{} and {} more: stepped over: no bundles", shown(path), self.others.len() - 1)
            }
        }
        if self.taken.is_empty() && self.stepped_over.is_empty() {
            say!(out, "no bundle was found: nothing was done");
            return;
        }
        if self.taken.len() > 1 {
            say!(out, "in all: {}", summary(&self.total));
        }
        if self.total.passed_over > 0 {
            say!(
                out,
                "{} of other devices' per-device tables were passed over: only a device made with `init --base` gathers them",
                count(self.total.passed_over, "frame")
            );
        }
        for wait in &self.total.waits {
            say!(out, "{}", waiting(wait));
        }
        if self.total.ops_waiting > 0 {
            say!(
                out,
                "{} wait for a table or a column that is not here: `packmule status {}` says which",
                count(self.total.ops_waiting, "row"),
                quoted(self.db)
            );
        }
        if open > 0 {
            let these = if open == 1 { "conflict is open" } else { "conflicts are open" };
            say!(
                out,
                "{} {these}: `packmule conflicts {}` lists every version",
                number(open),
                quoted(self.db)
            );
        }
    }

    fn document(&self, open: u64, failed: bool) -> Value {
        let others = self.others.iter().map(|path| (path, "is no bundle"));
        let stepped_over: Vec<Value> = self
            .stepped_over
            .iter()
            .map(|(path, reason)| (path, reason.as_str()))
            .chain(others)
            .map(|(path, reason)| json!({ "file": shown(path), "reason": reason }))
            .collect();
        let mut document = report_json(&self.total);
        document["conflicts_open"] = json!(open);
        document["files"] = self
            .taken
            .iter()
            .map(|(path, report)| {
                let mut file = report_json(report);
                file["file"] = json!(shown(path));
                if let Some(file) = file.as_object_mut() {
                    file.remove("waits");
                }
                file
            })
            .collect();
        document["stepped_over"] = json!(stepped_over);
        if failed {
            document["error"] = json!(NOTHING);
        }
        document
    }
}

const NOTHING: &str = "nothing could be taken in: see the reason for each file";

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|e| Failure::io(path, "read it", &e))
}

fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Whether an error is about the database that takes in, and not about what is taken in.
fn about_database(error: &Error) -> bool {
    !matches!(
        error,
        Error::Bundle { .. }
            | Error::Stream(_)
            | Error::Strangers(_)
            | Error::Twin { .. }
            | Error::Source { .. }
            | Error::Usage(_)
    )
}

/// A report as JSON.
pub fn report_json(report: &ImportReport) -> Value {
    json!({
        "frames": report.frames,
        "known": report.known,
        "passed_over": report.passed_over,
        "ops": report.ops,
        "ops_waiting": report.ops_waiting,
        "conflicts_opened": report.conflicts_opened,
        "unsealed": report.unsealed,
        "new_identity": report.new_identity,
        "waits": report.waits.iter().map(|wait| json!({
            "author": wait.author,
            "frames": [wait.frames.0, wait.frames.1],
            "missing": wait.missing,
            "up_to": wait.up_to,
        })).collect::<Vec<_>>(),
    })
}

/// A report in a line.
pub fn summary(report: &ImportReport) -> String {
    let mut parts = Vec::new();
    if report.frames > 0 {
        parts.push(count(report.frames, "new frame"));
        parts.push(format!("{} applied", count(report.ops, "row")));
    } else {
        parts.push("nothing new".to_owned());
    }
    if report.known > 0 {
        parts.push(format!("{} known already", count(report.known, "frame")));
    }
    if report.conflicts_opened > 0 {
        parts.push(format!("{} opened", count(report.conflicts_opened, "conflict")));
    }
    parts.join(", ")
}
