//! The fleet's keeper signs certificates: admit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use packmule::core::model::{DeviceId, Hex};
use packmule::{
    Admission, AdmitOptions, Admitted, Applicant, BundleProblem, Engine, Error, FleetKey, Outcome,
};

use super::device::{fingerprint, fleet_key, passphrase_for, with_passphrase};
use super::{Context, open, options};
use crate::documents::{AdmittedDevices, FleetKeyRotated, OwnError, Reason, Renamed, Request};
use crate::files::sources::{self, Kind};
use crate::output::{Failure, caution, code, engine_text, say};
use crate::text::{count, file_text, now, quoted, shown};
use crate::usage::flags;

/// Where requests were found, and what could not be looked at.
#[derive(Default)]
struct Sources {
    /// The folders of the bundles, each with the devices that ask in it.
    folders: BTreeMap<PathBuf, BTreeSet<DeviceId>>,
    databases: Vec<(PathBuf, Engine)>,
    stepped_over: Vec<Reason>,
}

/// `packmule admit`.
pub fn admit(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let file = args.flag_path(&flags::FLEET);
    let file = file.ok_or_else(|| args.wrong("--fleet is missing: it names the fleet key"))?;
    let key = fleet_key(args, file)?;
    let mut only = Vec::new();
    for text in args.all(&flags::ONLY)? {
        let wrong =
            || args.wrong(format!("--only takes a fingerprint of 32 hexadecimal digits, not `{text}`"));
        only.push(fingerprint(text).ok_or_else(wrong)?);
    }
    let mut admission = Admission::new(&key);
    if args.has(&flags::ANEW) {
        admission = admission.anew();
    }
    let mut from = Sources::default();
    for given in args.paths(0) {
        look(context, given, &mut admission, &mut from)?;
    }
    let asked = AdmitOptions { base: context.args.has(&flags::ADMIT_BASES), only: &only };
    let of_key = |e| Failure::engine(file, file, e);
    let admitted = admission.sign(&asked).map_err(of_key)?;
    for id in &only {
        if admitted.requests.iter().all(|(asks, _)| asks.id != *id) {
            return Err(Failure::plain(format!(
                "no device with the fingerprint {id} asks for admission there"
            )));
        }
    }
    let mut files = Vec::new();
    for (path, engine) in &mut from.databases {
        engine.take_admitted(&admitted).map_err(|e| Failure::engine(path, path, e))?;
    }
    for (folder, asks) in &from.folders {
        let of: BTreeSet<DeviceId> = admitted.devices().filter(|id| asks.contains(id)).collect();
        if !of.is_empty() {
            files.push(write(folder, &admitted, &key, &of)?);
        }
    }
    report(context, &admitted, &from, &files)
}

/// Looks for requests in what was given.
fn look(
    context: &Context<'_, '_>,
    given: &Path,
    admission: &mut Admission<'_>,
    from: &mut Sources,
) -> Result<(), Failure> {
    if given.is_dir() {
        let found = sources::search(given).map_err(|e| Failure::io(given, "read the directory", &e))?;
        for path in found.bundles {
            if let Err(reason) = read(&path, admission, from) {
                from.stepped_over.push(Reason { file: shown(&path), reason });
            }
        }
        let unreadable = found.unreadable.into_iter();
        from.stepped_over.extend(unreadable.map(|(path, reason)| Reason { file: shown(&path), reason }));
        return Ok(());
    }
    let kind = sources::kind(given).map_err(|e| Failure::io(given, "read it", &e))?;
    if kind != Kind::Database {
        return read(given, admission, from).map_err(|reason| Failure::of(given, reason));
    }
    let of_db = |e| Failure::engine(given, given, e);
    let engine = Engine::open_with(given, options(context)?).map_err(of_db)?;
    engine.add_requests(admission).map_err(of_db)?;
    from.databases.push((given.into(), engine));
    Ok(())
}

const ENCRYPTED: &str =
    "is encrypted: a request in it is found in the database of a device that has taken it in";

/// Reads a bundle. Returns why it cannot be.
fn read(path: &Path, admission: &mut Admission<'_>, from: &mut Sources) -> Result<(), String> {
    let file = File::open(path).map_err(|e| format!("cannot be read: {}", file_text(&e)))?;
    // The passphrase that is given is the fleet key's.
    let file = packmule::open_bundle(file, None).map_err(|e| match e {
        Error::Bundle { cause: BundleProblem::NotForUs { .. } | BundleProblem::PassphraseNeeded, .. } => {
            ENCRYPTED.to_owned()
        }
        e => engine_text(path, path, &e),
    })?;
    let asks = admission.read(BufReader::new(file)).map_err(|e| engine_text(path, path, &e))?;
    if !asks.is_empty() {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        from.folders.entry(folder).or_default().extend(asks);
    }
    Ok(())
}

/// Writes certificates into a new file in a folder: its body, durably, and then its end, without which it is nothing.
fn write(
    folder: &Path,
    admitted: &Admitted,
    key: &FleetKey,
    of: &BTreeSet<DeviceId>,
) -> Result<PathBuf, Failure> {
    let prefix = DeviceId::of_key(&key.public_key()).short() & !0xfff;
    let mut numbers = 0..=0xfff_u32;
    let (path, mut file) = loop {
        let full =
            || Failure::of(folder, "has no free file name: remove old bundles of this fleet key there");
        let path = folder.join(format!("{:08X}.PMB", prefix | numbers.next().ok_or_else(full)?));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => break (path, file),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Failure::io(&path, "make it", &e)),
        }
    };
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let written = admitted.write(&mut file, key, of, now()).map_err(|e| Failure::engine(&path, &path, e));
    let written = written.and_then(|end| {
        let all = file
            .sync_all()
            .and_then(|()| file.write_all(&end))
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(here).and_then(|folder| folder.sync_all()));
        all.map_err(|e| Failure::io(&path, "write it", &e))
    });
    if written.is_err() {
        // Without its end it is nothing to anybody.
        let _ = std::fs::remove_file(&path);
    }
    written.map(|()| path)
}

/// Says why a request was not signed.
fn reason(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Admitted => return None,
        Outcome::NotPicked => "not picked by --only".into(),
        Outcome::AsksToBeBase => "it asks to be a base: if it is to be one, add --base".into(),
        Outcome::NameInUse(other) => format!(
            "its name is that of another device, or asked for by another ({other}): pick one with --only, and give this one \
             another name with `packmule rename` at the board"
        ),
        Outcome::Revoked => "it is revoked".into(),
        Outcome::Member => "it is of the fleet already".into(),
        _ => "not signed".into(),
    })
}

fn report(
    context: &mut Context<'_, '_>,
    admitted: &Admitted,
    from: &Sources,
    files: &[PathBuf],
) -> Result<(), Failure> {
    let requests: Vec<&(Applicant, Outcome)> =
        admitted.requests.iter().filter(|(_, outcome)| *outcome != Outcome::Member).collect();
    let signed = admitted.devices().count() as u64;
    let stepped_over = from.stepped_over.iter();
    let stepped_over =
        stepped_over.map(|skipped| Reason { file: skipped.file.clone(), reason: skipped.reason.clone() });
    let out = &mut *context.out;
    let refused = requests.iter().any(|(_, outcome)| {
        matches!(outcome, Outcome::AsksToBeBase | Outcome::NameInUse(_) | Outcome::Revoked)
    });
    let nobody = signed == 0 && refused;
    out.document(&AdmittedDevices {
        requests: requests
            .iter()
            .map(|(asks, outcome)| Request {
                fingerprint: asks.id.to_string(),
                name: &asks.name,
                base: asks.base,
                admitted: *outcome == Outcome::Admitted,
                reason: reason(outcome),
            })
            .collect(),
        files: files.iter().map(|file| shown(file)).collect(),
        stepped_over: stepped_over.collect(),
        failed: if nobody { OwnError::of(NOBODY, code::NOBODY_ADMITTED) } else { OwnError::NONE },
    });
    for skipped in &from.stepped_over {
        caution!(out, "{}: skipped: {}", skipped.file, skipped.reason.replace('\n', "\n  "));
    }
    if requests.is_empty() {
        say!(out, "nobody asks for admission there who is not of the fleet already");
    }
    for (asks, outcome) in &requests {
        let role = if asks.base { " as a base" } else { "" };
        match reason(outcome) {
            None => say!(out, "admitted{role}: {}  fingerprint {}", asks.name, asks.id),
            Some(why) => say!(out, "not admitted: {}  fingerprint {}: {why}", asks.name, asks.id),
        }
    }
    for file in files {
        say!(out, "{}: written; carry it back the way that the request came", shown(file));
    }
    if signed > 0 {
        for (path, engine) in &from.databases {
            let base = engine.identity().base;
            say!(
                out,
                "{}: has {} in it now{}",
                shown(path),
                count(signed, "certificate"),
                if base { "; its next `exchange`, `sync`, `export` or `serve` takes them along" } else { "" }
            );
        }
    }
    if nobody { Err(Failure::reported(NOBODY.into())) } else { Ok(()) }
}

/// What is said where requests were found, and none granted.
const NOBODY: &str = "nobody was admitted: see the reason for each request";

/// `packmule fleet rotate`.
pub fn fleet_rotate(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (old, path) = (context.args.path(0), context.args.path(1));
    if path.exists() {
        return Err(Failure::of(
            path,
            "is there already, and a key is never written over: choose another name",
        ));
    }
    let old = fleet_key(&context.args, old)?;
    let secret = passphrase_for(&context.args, path)?;
    let key = old.rotate_with(path, secret.as_deref()).map_err(|e| Failure::engine(path, path, e))?;
    let (fleet, follows) = (Hex(&key.public_key()).to_string(), Hex(&old.public_key()).to_string());
    let out = &mut *context.out;
    out.document(&FleetKeyRotated { key_file: shown(path), fleet: &fleet, follows: &follows });
    say!(
        out,
        "{} is the fleet's new key (fleet {}…); it follows {}…",
        shown(path),
        &fleet[..16],
        &follows[..16]
    );
    say!(out, "devices take what either has signed once they hear of it; tell the base:");
    say!(out, "  packmule admit DB --fleet {}{}", quoted(path), with_passphrase(&context.args));
    Ok(())
}

/// `packmule rename`.
pub fn rename(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let (path, name) = (context.args.path(0), context.args.text(1)?);
    let mut engine = open(context)?;
    let of_db = |e| Failure::engine(path, path, e);
    let at_once = engine.rename(name).map_err(of_db)?;
    let identity = engine.identity();
    let asks = engine.asked_name().map_err(of_db)?;
    let out = &mut *context.out;
    out.document(&Renamed { fingerprint: identity.id.to_string(), name: &identity.name, asks });
    if at_once {
        say!(out, "{} is `{}` now", shown(path), identity.name);
    } else {
        say!(
            out,
            "the fleet is asked for the name `{name}` with whatever is sent; until `packmule admit`, where the fleet key is,"
        );
        say!(out, "answers that, the name is `{}`", identity.name);
    }
    Ok(())
}

/// Says who asks for admission, and what to type.
pub fn asks_for_admission(applicants: &[(DeviceId, String)], what: &Path) -> Vec<String> {
    if applicants.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = applicants
        .iter()
        .map(|(id, name)| format!("{name} (fingerprint {id}) asks for admission to the fleet"))
        .collect();
    lines.push(
        "if you know it (`packmule status` at the board shows the fingerprint), run where the fleet key is:"
            .into(),
    );
    lines.push(format!("  packmule admit {} --fleet FILE", quoted(what)));
    lines
}
