//! Taking in what files and directories have: the common part of `import` and `merge`.

use std::fs::File;
use std::path::{Path, PathBuf};

use packmule::{Engine, Error, ImportReport};

use super::of_db;
use crate::documents::{self, Imported, Reason, Taken, WaitGroup};
use crate::files::beside;
use crate::files::sources::{self, Kind};
use crate::output::{Failure, Meter, Out, caution, engine_text, say, tell};
use crate::text::{conflicts_open, count, elsewhere, file_text, plural, quoted, shown, waiting};

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
    passphrase: Option<Vec<u8>>,
}

impl<'a> Intake<'a> {
    /// Makes an intake into this database.
    pub fn new(db: &'a Path, engine: &'a mut Engine, databases: bool, passphrase: Option<Vec<u8>>) -> Self {
        Self {
            db,
            engine,
            databases,
            total: ImportReport::default(),
            taken: Vec::new(),
            stepped_over: Vec::new(),
            others: Vec::new(),
            passphrase,
        }
    }

    /// Takes in all of them. What is given by name must be good; in a directory, a bad file is skipped.
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
                failure.and(&format!(
                    "\n({before} before it had been taken in already, and what they brought stays)"
                ))
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
            _ => {
                let file = self.engine.open_bundle(open(path)?, self.passphrase.as_deref());
                let checked = file.and_then(|mut file| self.engine.check(&mut file));
                checked.map_err(|e| self.failure(path, e))
            }
        }
    }

    /// Finds what a file is that was given by name; refuses what cannot be wanted.
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
            _ => open(path).map(|file| self.bundle(path, file))?,
        };
        let report = taken.map_err(|e| self.failure(path, e))?;
        self.add(path, report);
        Ok(())
    }

    /// Makes a failure of the database, or of the file.
    fn failure(&self, path: &Path, error: Error) -> Failure {
        match error {
            // A command that the reason proposes is about the source.
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
                Ok(file) => self.bundle(&path, file),
                Err(e) => {
                    self.stepped_over.push((path, format!("cannot be read: {}", file_text(&e))));
                    continue;
                }
            };
            self.add_or_skip(path, taken)?;
        }
        for path in found.databases {
            if same_file(&path, self.engine.path()) {
                continue;
            }
            if self.databases {
                let taken = self.database(&path);
                self.add_or_skip(path, taken)?;
            } else {
                self.stepped_over.push((path, "is a database: `packmule merge` takes databases in".into()));
            }
        }
        Ok(())
    }

    /// Takes in standard input. A bundle is read twice, so it goes to a file first.
    fn take_standard_input(&mut self) -> Result<(), Failure> {
        let name = Path::new("standard input");
        let folder = self.engine.path().parent().unwrap_or(Path::new("."));
        let mut spool = tempfile::tempfile_in(folder)
            .map_err(|e| Failure::io(self.db, "make a temporary file beside it", &e))?;
        std::io::copy(&mut std::io::stdin().lock(), &mut spool)
            .map_err(|e| Failure::io(self.db, "keep standard input in a temporary file beside it", &e))?;
        self.take_file(name, spool)
    }

    /// Takes in a bundle that is open already, under this name.
    pub fn take_file(&mut self, name: &Path, file: File) -> Result<(), Failure> {
        let report = self.bundle(name, file).map_err(|e| self.failure(name, e))?;
        self.add(name, report);
        Ok(())
    }

    /// Summarises all that was taken in, in a line.
    #[cfg(feature = "net")]
    pub fn summary(&self) -> String {
        summary(&self.total)
    }

    fn bundle(&mut self, path: &Path, file: File) -> Result<ImportReport, Error> {
        let mut meter = Meter::new(shown(path));
        let mut file = self.engine.open_bundle(file, self.passphrase.as_deref())?;
        self.engine.import(&mut file, &mut |at| meter.show(at))
    }

    fn database(&mut self, path: &Path) -> Result<ImportReport, Error> {
        let mut meter = Meter::new(shown(path));
        self.engine.import_database(path, &mut |at| meter.show(at))
    }

    fn add_or_skip(&mut self, path: PathBuf, taken: Result<ImportReport, Error>) -> Result<(), Failure> {
        match taken {
            Ok(report) => self.add(&path, report),
            Err(e) if about_database(&e) => {
                return Err(Failure::engine(self.db, self.db, e));
            }
            Err(Error::Source { error, .. }) if matches!(*error, Error::NotADevice) => {
                self.stepped_over.push((path, "is a database, but not a Packmule device".into()));
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
        self.total.add_import(report.clone());
        self.taken.push((path.into(), report));
    }

    /// Prints what was taken in. What was stepped over in a directory is no failure.
    pub fn report(self, out: &mut Out<'_>) -> Result<(), Failure> {
        let open = self.engine.open_conflicts().map_err(of_db(self.db))?;
        for (path, report) in &self.taken {
            let known = count(report.known, "frame");
            tell!(out, "{}: read to its end: {known} known already, {} new", shown(path), report.frames);
        }
        out.document(&self.document(open));
        self.print_files(out);
        self.print_total(open, out);
        Ok(())
    }

    fn print_files(&self, out: &mut Out<'_>) {
        for (path, report) in &self.taken {
            say!(out, "{}: {}", shown(path), summary(report));
            if let Some(name) = &report.new_identity {
                say!(
                    out,
                    "  this database is a fork of a device (a clone, or rolled back): it has a new identity, {name}, and keeps all \
                     that it wrote; `packmule status` shows more"
                );
            }
            if report.unsealed > 0 {
                say!(out, "  {}", unsealed(path, report.unsealed));
            }
        }
        for (path, reason) in &self.stepped_over {
            caution!(out, "{}: skipped: {}", shown(path), reason.replace('\n', "\n  "));
        }
        match &self.others[..] {
            [] => {}
            [path] => caution!(out, "{}: skipped: {NOT_A_BUNDLE}", shown(path)),
            [path, ..] => {
                caution!(
                    out,
                    "{} and {} more: skipped: they are not bundles",
                    shown(path),
                    self.others.len() - 1
                )
            }
        }
    }

    fn print_total(&self, open: u64, out: &mut Out<'_>) {
        if self.taken.is_empty() && self.stepped_over.is_empty() {
            say!(out, "no bundle was found: nothing was done");
            return;
        }
        if self.taken.len() > 1 {
            say!(out, "in all: {}", summary(&self.total));
        }
        if self.total.skipped > 0 {
            say!(
                out,
                "{} of other devices' per-device tables: only a device made with `init --base` gathers them",
                plural(self.total.skipped, "frame is skipped, being", "frames are skipped, being")
            );
        }
        self.total.waits.iter().for_each(|wait| say!(out, "{}", waiting(wait)));
        elsewhere(&self.total, self.db).iter().for_each(|line| out.line(line));
        conflicts_open(open, self.db).into_iter().for_each(|line| out.line(&line));
    }

    fn document(&self, open: u64) -> Imported<'_> {
        let reason = |path: &Path, reason: &str| Reason { file: shown(path), reason: reason.into() };
        let stepped_over = self.stepped_over.iter().map(|(path, why)| reason(path, why));
        let others = self.others.iter().map(|path| reason(path, NOT_A_BUNDLE));
        Imported {
            taken: Taken::from(&self.total),
            waits: self.total.waits.iter().map(WaitGroup::from).collect(),
            conflicts_open: open,
            files: self
                .taken
                .iter()
                .map(|(path, report)| documents::File { file: shown(path), taken: report.into() })
                .collect(),
            stepped_over: stepped_over.chain(others).collect(),
        }
    }
}

const NOT_A_BUNDLE: &str = "is not a bundle";

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|e| Failure::io(path, "read it", &e))
}

fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Returns whether an error is about the database that takes in, and not about what is taken in.
fn about_database(error: &Error) -> bool {
    !matches!(
        error,
        Error::Bundle { .. }
            | Error::Stream(_)
            | Error::Untrusted(_)
            | Error::AsksForAdmission { .. }
            | Error::Twin { .. }
            | Error::Source { .. }
            | Error::Usage(_)
    )
}

/// Says what is not sealed in a database that was taken in, and which command seals it.
fn unsealed(path: &Path, rows: u64) -> String {
    let these = plural(rows, "row in it is", "rows in it are");
    let seal = if beside(path, ".pmkey").exists() {
        format!("`packmule seal {}` seals them, if that is the device itself and no copy of it", quoted(path))
    } else {
        "`packmule seal` seals them on that device, where its key file is".into()
    };
    format!("{these} not sealed, and not taken in: what is merged is only read. {seal}; then merge it again")
}

/// Summarises a report in a line.
pub fn summary(report: &ImportReport) -> String {
    let mut parts = Vec::new();
    if report.frames > 0 {
        parts.push(count(report.frames, "new frame"));
    }
    if report.frames > 0 || report.ops > 0 {
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
    for device in &report.revoked {
        parts.push(format!("{device} is revoked by the fleet key"));
    }
    for device in &report.restored {
        parts.push(format!("{device} is no longer revoked"));
    }
    parts.join(", ")
}
