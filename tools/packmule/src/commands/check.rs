//! Checking: digest, verify, inspect.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use packmule::core::model::DeviceId;
use packmule::{BundleInfo, BundleProblem, Encryption, Engine, Error, label};

use super::{Context, of_db, open_to_read, options, say_left_out};
use crate::documents::{Digest, Encrypted, Inspected, OwnError, Verified};
use crate::files::passphrase;
use crate::files::sources::{self, Kind};
use crate::output::{Failure, Out, code, engine_text, say};
use crate::text::{columns, count, number, plural, quoted, range, shown, size, stream, time, words, wrap};
use crate::usage::flags;

/// `packmule digest`.
pub fn digest(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let gathered = context.args.has(&flags::GATHERED);
    let engine = open_to_read(context)?;
    let digest = engine.digest(gathered).map_err(of_db(path))?;
    context.out.document(&Digest { digest: &digest });
    say!(context.out, "{digest}");
    say_left_out(context, &engine);
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

/// What was checked, and what was found.
struct Checked {
    kind: &'static str,
    frames: u64,
    groups: u64,
    without_certificate: Option<u64>,
    problems: Vec<String>,
    /// What could not be checked.
    unchecked: Vec<String>,
}

fn verify_database(context: &mut Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    let report = open_to_read(context)?.verify().map_err(of_db(path))?;
    let (frames, groups, problems) = (report.frames, report.groups, report.problems);
    let unchecked = report.unchecked;
    let checked =
        Checked { kind: "database", frames, groups, without_certificate: None, problems, unchecked };
    checked.report(path, context.out)
}

fn verify_bundle(context: &mut Context<'_, '_>, path: &Path) -> Result<(), Failure> {
    let info = match read_bundle(context, path)? {
        Looked::Read(info, _) => info,
        Looked::Locked(_, _, e) => return Err(Failure::engine(path, path, e)),
    };
    let mut problems = Vec::new();
    if info.signed == Some(false) {
        problems.push("its header: the signature does not match".into());
    }
    let wrong = info.groups.iter().filter(|group| group.signed == Some(false)).map(|group| {
        let frames = range(group.first, group.last);
        format!("{frames} of {}: the signature does not match", name_in(&info, group.author))
    });
    problems.extend(wrong);
    let unsigned = info.groups.iter().filter(|group| group.signed.is_none()).count() as u64;
    let checked = Checked {
        kind: "bundle",
        frames: info.groups.iter().map(|group| group.last - group.first + 1).sum(),
        groups: info.groups.len() as u64,
        without_certificate: Some(unsigned),
        problems,
        unchecked: Vec::new(),
    };
    checked.report(path, context.out)
}

impl Checked {
    fn report(&self, path: &Path, out: &mut Out<'_>) -> Result<(), Failure> {
        let found = count(self.problems.len() as u64, "problem");
        let ok = self.problems.is_empty();
        out.document(&Verified {
            kind: self.kind,
            ok,
            problems: &self.problems,
            unchecked: &self.unchecked,
            frames: self.frames,
            groups: self.groups,
            groups_without_certificate: self.without_certificate,
            failed: if ok {
                OwnError::NONE
            } else {
                OwnError::of(format!("{found} found"), code::PROBLEMS_FOUND)
            },
        });
        self.unchecked.iter().for_each(|what| say!(out, "{}: not checked: {what}", shown(path)));
        if ok {
            let checked = self.checked();
            say!(out, "{}: all is well: {checked}, every check sum, chain and signature right", shown(path));
            return Ok(());
        }
        self.problems.iter().for_each(|problem| say!(out, "{}: {problem}", shown(path)));
        let what = match self.kind {
            "bundle" => "copy or export it again",
            _ => "keep a copy, and restore it from a backup or a peer",
        };
        Err(Failure::reported(format!("{}: {found} found: {what}", shown(path))))
    }

    fn checked(&self) -> String {
        let mut checked = format!("{} in {}", count(self.frames, "frame"), count(self.groups, "group"));
        if let Some(n @ 1..) = self.without_certificate {
            let lacks = plural(n, "is by a device", "are by devices");
            checked.push_str(&format!(
                " ({lacks} whose certificate is not in it: an import checks those signatures)"
            ));
        }
        checked
    }
}

/// What can be seen of a bundle.
enum Looked {
    /// All of it, and how it is encrypted, if it is.
    Read(Box<BundleInfo>, Option<Encrypted>),
    /// It is encrypted, and no key was given: how, the file's length, and what reading it says.
    Locked(Encrypted, u64, Error),
}

/// Reads what a bundle says of itself: an encrypted one with the key of the device that is given, or with a passphrase.
fn read_bundle(context: &Context<'_, '_>, path: &Path) -> Result<Looked, Failure> {
    let kind = sources::kind(path).map_err(|e| Failure::io(path, "read it", &e))?;
    if kind == Kind::Database {
        let hint = format!("`packmule status {}` shows what is in it", quoted(path));
        return Err(Failure::of(path, format!("is a database, not a bundle: {hint}")));
    }
    let args = &context.args;
    let passphrase = passphrase::given(args)?;
    let file = File::open(path).map_err(|e| Failure::io(path, "read it", &e))?;
    let bytes = file.metadata().map_err(|e| Failure::io(path, "look at it", &e))?.len();
    let (db, opened) = match args.flag_path(&flags::WITH) {
        None => (path, packmule::open_bundle(file, passphrase.as_deref())),
        Some(db) => {
            let engine = Engine::open_read_only(db, options(context)?).map_err(of_db(db))?;
            (db, engine.open_bundle(file, passphrase.as_deref()))
        }
    };
    let bundle = match opened {
        Ok(bundle) => bundle,
        Err(e) => {
            return match without_key(&e) {
                Some(how) => Ok(Looked::Locked(how, bytes, e)),
                None => Err(Failure::engine(path, db, e)),
            };
        }
    };
    let encrypted = bundle.encryption().map(|how| match how {
        Encryption::Devices(devices) => Encrypted {
            to: "devices",
            read: true,
            at_most: Some(devices.len() as u64),
            devices: devices.iter().map(DeviceId::to_string).collect(),
        },
        _ => Encrypted { to: "passphrase", read: true, at_most: None, devices: Vec::new() },
    });
    let info = packmule::inspect(BufReader::new(bundle)).map_err(|e| Failure::engine(path, path, e))?;
    Ok(Looked::Read(Box::new(info), encrypted))
}

/// Returns how a bundle is encrypted, where it could not be read since no key was given.
fn without_key(error: &Error) -> Option<Encrypted> {
    match error {
        Error::Bundle { cause: BundleProblem::NotForUs { slots, keyless: true }, .. } => {
            let at_most = Some((*slots).into());
            Some(Encrypted { to: "devices", read: false, at_most, devices: Vec::new() })
        }
        Error::Bundle { cause: BundleProblem::PassphraseNeeded, .. } => {
            Some(Encrypted { to: "passphrase", read: false, at_most: None, devices: Vec::new() })
        }
        _ => None,
    }
}

/// Returns the name of a device in a bundle, as people read it.
fn name_in(info: &BundleInfo, id: DeviceId) -> String {
    label(id, info.devices.iter().find(|(other, ..)| *other == id).map(|(_, name, ..)| name.as_str()))
}

/// `packmule inspect`.
pub fn inspect(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let (info, encrypted) = match read_bundle(context, path)? {
        Looked::Read(info, encrypted) => (info, encrypted),
        Looked::Locked(how, bytes, why) => {
            let out = &mut *context.out;
            say!(out, "{}: an encrypted bundle of {}", shown(path), size(bytes));
            say!(out, "{}", wrap(&words(&engine_text(path, path, &why)), 0));
            let mut info = BundleInfo::default();
            info.bytes = bytes;
            out.document(&Inspected::new(&info, Some(how)));
            return Ok(());
        }
    };
    let out = &mut *context.out;
    out.document(&Inspected::new(&info, encrypted.clone()));
    print_header(path, &info, out);
    if let Some(how) = encrypted {
        let name = |id: &String| id.parse().map_or_else(|_| id.clone(), |id| name_in(&info, id));
        let names: Vec<_> = how.devices.iter().map(name).collect();
        let to =
            if names.is_empty() { "with a passphrase".into() } else { format!("to {}", names.join(", ")) };
        say!(out, "  encrypted    {to}");
    }
    say!(out, "  certificates");
    print_rows(
        info.devices.iter().map(|(id, name, base, fleet)| {
            let kind = if *base { "base" } else { "device" };
            let how = if *fleet { "signed by a fleet" } else { "signed by itself alone" };
            vec![format!("    {name}"), id.to_string(), kind.into(), how.into()]
        }),
        out,
    );
    let differs = if info.vector_differs { ", beside what its receiver said last" } else { "" };
    say!(out, "  its sender had{differs}");
    print_rows(
        info.vector.iter().map(|v| {
            let frames = format!("{} {}", count(v.seq, "frame"), stream(v.stream));
            vec![format!("    {}", name_in(&info, v.author)), frames]
        }),
        out,
    );
    say!(out, "  groups       {}", number(info.groups.len() as u64));
    print_rows(
        info.groups.iter().map(|g| {
            let tables =
                if g.tables.is_empty() { String::new() } else { format!("defines {}", g.tables.join(", ")) };
            vec![
                format!("    {}", time(g.wall)),
                name_in(&info, g.author),
                format!("{} {}", stream(g.stream), range(g.first, g.last)),
                size(g.bytes),
                signature(g.signed, "signed", "signature not checked").into(),
                tables,
            ]
        }),
        out,
    );
    Ok(())
}

fn print_header(path: &Path, info: &BundleInfo, out: &mut Out<'_>) {
    say!(out, "{}: a bundle of {}", shown(path), size(info.bytes));
    if let Some(sender) = info.sender {
        say!(out, "  from         {}  (fingerprint {sender})", name_in(info, sender));
    }
    say!(out, "  for          {}", info.receiver.map_or_else(|| "anyone".into(), |id| name_in(info, id)));
    say!(out, "  made         {}", time(info.wall));
    let unknown = "not checked: the sender's certificate is not in it";
    say!(out, "  signed       {}", signature(info.signed, "by its sender", unknown));
}

fn signature(signed: Option<bool>, right: &'static str, unknown: &'static str) -> &'static str {
    match signed {
        Some(true) => right,
        Some(false) => "WRONG SIGNATURE",
        None => unknown,
    }
}

fn print_rows(rows: impl Iterator<Item = Vec<String>>, out: &mut Out<'_>) {
    columns(&rows.collect::<Vec<_>>()).iter().for_each(|line| say!(out, "{line}"));
}
