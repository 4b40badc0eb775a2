//! Devices and trust: init, fleet new, trust, revoke, devices, retire, join.

use std::io::BufReader;
use std::path::Path;

use packmule::core::model::{DeviceId, Hex, decode_hex};
use packmule::{Engine, FleetKey, Identity, InitOptions, JoinOptions, TrustedAs, label};

use super::remove::remove;
use super::{Context, of_db, open, open_to_read, options};
use crate::documents::{
    Device, Devices, FleetKeyMade, Initialised, Joined, Known, Maker, Retired, Revoked, Trusted,
};
use crate::files::{passphrase, sources};
use crate::output::{Failure, say};
use crate::text::{count, fitting_columns, iso, number, plural, quoted, said_by, set_aside, shown, time};
use crate::usage::{Args, Flag, flags};

/// `packmule init`.
pub fn init(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    if context.args.has(&flags::REMOVE) {
        let others = [&flags::NAME, &flags::FLEET, &flags::FLEET_ID, &flags::BASE];
        if let Some(other) = others.into_iter().find(|flag| context.args.has(flag)) {
            return Err(context
                .args
                .wrong(format!("--remove and --{} do not go together", other.name))
                .into());
        }
        return remove(context);
    }
    if let Some(flag) = [&flags::YES, &flags::REMOVE_DRY_RUN].into_iter().find(|flag| context.args.has(flag))
    {
        return Err(context.args.wrong(format!("--{} goes with --remove", flag.name)).into());
    }
    let args = &context.args;
    let path = args.path(0);
    let fleet = given_fleet_key(args, &flags::FLEET)?;
    let expected = args.flag(&flags::FLEET_ID)?.map(|text| fleet_id(args, text)).transpose()?;
    if fleet.is_some() && expected.is_some() {
        return Err(args.wrong("--fleet and --fleet-id together: the key says which fleet it is").into());
    }
    let name = args.flag(&flags::NAME)?.map_or_else(host_name, str::to_owned);
    let asked = InitOptions { name: &name, base: args.has(&flags::BASE), fleet: fleet.as_ref() };
    let key = format!("{}.pmkey", shown(path));
    let mut engine = Engine::init_with(path, &asked, options(context)?).map_err(|e| match e {
        packmule::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => Failure::of(
            path,
            format!("{key} is there already, the secret key of another database of this name: move it away first"),
        ),
        e => of_db(path)(e),
    })?;
    if let Some(fleet) = expected {
        engine.expect_fleet(fleet).map_err(of_db(path))?;
    }
    let identity = engine.identity();
    let out = &mut *context.out;
    let (fleet, asks_fleet) = fleets(identity);
    out.document(&Initialised {
        database: shown(path),
        name: &identity.name,
        fingerprint: identity.id.to_string(),
        base: identity.base,
        fleet: fleet.clone(),
        asks_fleet: asks_fleet.clone(),
        key_file: &key,
    });
    let what = if identity.base { "the base" } else { "the device" };
    say!(out, "{} is now {what} `{}`", shown(path), identity.name);
    say!(out, "  fingerprint  {}", identity.id);
    match fleet {
        Some(fleet) => say!(out, "  fleet        {}…", &fleet[..16]),
        None => say!(out, "  fleet        {}", no_fleet(asks_fleet.as_deref())),
    }
    say!(out, "  secret key   {key} (readable by its owner alone; keep it beside the database)");
    if !identity.base {
        say!(out, "next: `packmule track {} TABLE` for each table that is to travel", quoted(path));
    }
    Ok(())
}

/// Says that a device belongs to no fleet, and what ends that.
pub(super) fn no_fleet(asks: Option<&str>) -> String {
    match asks {
        Some(fleet) => format!(
            "none yet: it asks the fleet {}… with whatever it sends; `packmule admit`, where the fleet key is, answers",
            fleet.get(..16).unwrap_or(fleet)
        ),
        None => "none yet: it asks any fleet with whatever it sends; `packmule admit`, where a fleet key is, answers".into(),
    }
}

/// Returns the fleet that a device belongs to, or else the one that it waits for.
pub(super) fn fleets(identity: &Identity) -> (Option<String>, Option<String>) {
    let fleet = identity.fleet.map(|fleet| Hex(&fleet).to_string());
    if identity.admitted { (fleet, None) } else { (None, fleet) }
}

/// Reads a fleet's public key.
fn fleet_id(args: &Args, text: &str) -> Result<[u8; 32], Failure> {
    let mut id = [0; 32];
    let lower = text.to_ascii_lowercase();
    let wrong = || {
        args.wrong(format!("--fleet-id is 64 hexadecimal digits, as `fleet new` prints them, not `{text}`"))
    };
    if lower.len() != 64 || decode_hex(&lower, &mut id).is_err() {
        return Err(wrong().into());
    }
    Ok(id)
}

/// Opens a fleet key; asks for its passphrase, if it has one and none is given.
pub(super) fn fleet_key(args: &Args, file: &Path) -> Result<FleetKey, Failure> {
    let opened = match FleetKey::open(file) {
        Err(packmule::Error::KeyPassphrase { .. }) => {
            FleetKey::open_with(file, Some(&passphrase::of(args, file)?))
        }
        opened => opened,
    };
    opened.map_err(|e| not_a_fleet_key(file, e))
}

/// Opens the fleet key of a flag, if it was given.
fn given_fleet_key(args: &Args, flag: &Flag) -> Result<Option<FleetKey>, Failure> {
    args.flag_path(flag).map(|file| fleet_key(args, file)).transpose()
}

fn not_a_fleet_key(file: &Path, error: packmule::Error) -> Failure {
    match error {
        packmule::Error::KeyMissing { reason, .. } if reason == "is not there" => Failure::of(
            file,
            format!("there is no such file; `packmule fleet new {}` makes a fleet key", quoted(file)),
        ),
        packmule::Error::KeyMissing { reason, .. } => {
            Failure::of(file, format!("{reason}: give the file that `packmule fleet new` made"))
        }
        error => Failure::engine(file, file, error),
    }
}

/// Returns what this machine is called.
fn host_name() -> String {
    let name = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .unwrap_or_default();
    let mut name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    while name.len() > 64 {
        name.pop();
    }
    if name.is_empty() { "device".into() } else { name }
}

/// Returns the passphrase of a new fleet key, if it is to have one.
pub(super) fn passphrase_for(args: &Args, file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let wanted = args.has(&flags::PASSPHRASE) || args.has(&flags::PASSPHRASE_FILE);
    wanted.then(|| passphrase::new(args, file)).transpose()
}

/// Returns what of the flags gives a passphrase, as a command that is proposed has it.
pub(super) fn with_passphrase(args: &Args) -> String {
    let file = args.flag_path(&flags::PASSPHRASE_FILE);
    file.map_or(String::new(), |file| format!(" --passphrase-file {}", quoted(file)))
}

/// `packmule fleet new`.
pub fn fleet_new(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    if path.exists() {
        return Err(Failure::of(
            path,
            "is there already, and a key is never written over: choose another name",
        ));
    }
    let secret = passphrase_for(&context.args, path)?;
    let key = FleetKey::create_with(path, secret.as_deref()).map_err(of_db(path))?;
    let public = Hex(&key.public_key()).to_string();
    let out = &mut *context.out;
    out.document(&FleetKeyMade { key_file: shown(path), fleet: &public });
    say!(out, "{} is a new fleet key (fleet {}…), readable by its owner alone", shown(path), &public[..16]);
    say!(
        out,
        "whoever has it can add devices to the fleet: keep it off the boards, and a copy in a safe place"
    );
    say!(out, "fleet id, for `init --fleet-id` on boards that are to wait for this fleet alone:");
    say!(out, "  {public}");
    let secret = with_passphrase(&context.args);
    say!(out, "next: `packmule init DB --fleet {}{secret}` for each device", quoted(path));
    Ok(())
}

/// A device that is to be trusted.
#[derive(Default)]
struct Asked {
    name: Option<String>,
    /// The other devices of which the bundle has certificates.
    others: Vec<(DeviceId, String)>,
    by_bundle: bool,
}

/// Finds the device that is meant by a fingerprint, a bundle, or its name.
fn asked(engine: &Engine, db: &Path, given: &Path, text: &str) -> Result<(DeviceId, Asked), Failure> {
    if let Some(id) = fingerprint(&given.to_string_lossy()) {
        return Ok((id, Asked::default()));
    }
    if !given.is_file() {
        let known = engine.find_device(text).map_err(|_| {
            Failure::of(
                given,
                "is neither a bundle that is there, nor a fingerprint (32 hexadecimal digits), nor a device that is known here",
            )
        });
        return Ok((known?, Asked::default()));
    }
    let file = engine
        .open_bundle(sources::open_bundle(given, EXPORT)?, None)
        .map_err(|e| Failure::engine(given, db, e))?;
    let info = packmule::inspect(BufReader::new(file)).map_err(|e| Failure::engine(given, db, e))?;
    let sender = info.sender.ok_or_else(|| Failure::of(given, "does not say who made it"))?;
    let mut asked = Asked { by_bundle: true, ..Asked::default() };
    for (id, name, ..) in info.devices {
        if id == sender {
            asked.name = Some(name);
        } else {
            asked.others.push((id, name));
        }
    }
    Ok((sender, asked))
}

/// What makes a bundle of a database.
const EXPORT: (&str, &str) = ("export", ".pmb");

/// `packmule trust`.
pub fn trust(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let (path, given) = (args.path(0), args.path(1));
    let mut engine = open(context)?;
    let text = if given.is_file() { "" } else { args.text(1)? };
    let (id, mut asked) = asked(&engine, path, given, text)?;
    let known = engine.devices().map_err(of_db(path))?;
    let before = known.iter().find(|d| d.id == id);
    let name = asked.name.or_else(|| before.and_then(|d| d.name.clone()));
    if before.is_some_and(|d| d.this) {
        return Err(Failure::of(given, "is this device itself, which needs no trust"));
    }
    let already = before.is_some_and(|d| matches!(d.trust, TrustedAs::Singly | TrustedAs::ByFleet));
    if asked.by_bundle {
        let file = sources::open_bundle(given, EXPORT)?;
        let mut file = engine.open_bundle(file, None).map_err(|e| Failure::engine(given, path, e))?;
        engine.trust_sender(&mut file).map_err(|e| Failure::engine(given, path, e))?;
    } else if !already {
        engine.trust(id).map_err(of_db(path))?;
    }
    // Who is revoked is not proposed.
    let trusted = |id| known.iter().any(|d| d.id == id && d.trust != TrustedAs::No);
    asked.others.retain(|(id, _)| !trusted(*id));
    let others = asked.others.iter().map(|(id, name)| Known { fingerprint: id.to_string(), name });
    let out = &mut *context.out;
    out.document(&Trusted {
        fingerprint: id.to_string(),
        name: name.as_deref(),
        already,
        others: others.collect(),
    });
    let who = name.as_deref().unwrap_or("(its name comes with its first bundle)");
    say!(out, "{}: {who}", if already { "trusted before" } else { "trusted now" });
    say!(out, "  fingerprint  {id}");
    if !already {
        say!(out, "compare it with what `packmule status` shows on that device; if it differs, undo this:");
        say!(out, "  packmule revoke {} {id}", quoted(path));
    }
    if !asked.others.is_empty() {
        say!(out, "the bundle also has certificates of devices that are not trusted here:");
    }
    asked.others.iter().for_each(|(id, name)| say!(out, "  {id}  {name}"));
    Ok(())
}

/// Reads a fingerprint, however its digits are set apart.
pub(super) fn fingerprint(text: &str) -> Option<DeviceId> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | ':' | '-')).collect();
    digits.to_ascii_lowercase().parse().ok()
}

/// `packmule revoke`.
pub fn revoke(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let mut engine = open(context)?;
    let given = context.args.text(1)?;
    let id = fingerprint(given).map_or_else(|| engine.find_device(given), Ok).map_err(of_db(path))?;
    let key = given_fleet_key(&context.args, &flags::REVOKE_FLEET)?;
    let undo = context.args.has(&flags::TAKE_BACK);
    let done =
        if undo { engine.take_back_revocation(id, key.as_ref()) } else { engine.revoke(id, key.as_ref()) }
            .map_err(of_db(path))?;
    let known = engine.devices().map_err(of_db(path))?.into_iter().find(|d| d.id == id);
    let aside = known.as_ref().map_or(0, |d| d.set_aside);
    let name = known.and_then(|d| d.name);
    let who = label(id, name.as_deref());
    let in_fleet = engine.identity().fleet.is_some();
    let out = &mut *context.out;
    out.document(&Revoked {
        fingerprint: id.to_string(),
        name: name.as_deref(),
        undone: undo,
        for_fleet: done.for_fleet,
        revoked: &done.revoked,
        restored: &done.restored,
    });
    if undo {
        say!(out, "taken back: {who} is no longer revoked{}", if done.for_fleet { "" } else { " here" });
        if done.frames > 0 {
            say!(out, "{} of it that had been set aside: applied now", count(done.frames, "frame"));
        }
    } else {
        say!(out, "revoked: nothing more is taken from {who}");
    }
    let changed = if undo { &done.restored } else { &done.revoked };
    for other in changed.iter().filter(|other| **other != who) {
        say!(out, "  with it {other}, for which it vouches");
    }
    let quoted = quoted(path);
    match (done.for_fleet, undo) {
        (true, _) => {
            say!(out, "the fleet key has signed this: it travels with the next exchange, bundle or session")
        }
        (false, false) if in_fleet => {
            say!(
                out,
                "this holds here alone: for the whole fleet, `packmule revoke {quoted} {id} --fleet FILE`"
            );
        }
        (false, false) => say!(out, "this holds here alone: run it wherever it is to count"),
        (false, true) => {}
    }
    if !undo {
        say!(out, "what others have of it stays; `packmule log {quoted} --by {id}` lists what it wrote");
        if aside > 0 {
            say!(out, "{} of it that no other device has taken in: set aside", count(aside, "frame"));
        }
    }
    Ok(())
}

/// `packmule devices`.
pub fn devices(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let devices = open_to_read(context)?.devices().map_err(of_db(path))?;
    let out = &mut *context.out;
    let documents = devices.iter().map(|d| Device {
        fingerprint: d.id.to_string(),
        name: d.name.as_deref(),
        label: label(d.id, d.name.as_deref()),
        base: d.base,
        this: d.this,
        trust: d.trust.words(),
        frames_shared: d.shared,
        frames_per_device: d.own,
        has_of_ours: d.acknowledged,
        retired: d.retired,
        retired_by: d.retired_by.as_ref().map(said_by),
        revoked: d.revoked,
        revoked_by: d.revoked_by.as_ref().map(said_by),
        set_aside: d.set_aside,
        state_rows: d.state_rows,
        heard: d.heard.map(iso),
        clock_off_ms: d.clock,
    });
    out.document(&Devices { devices: documents.collect() });
    let head = ["DEVICE", "TRUST", "FRAMES", "HAS OF OURS", "HEARD"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for d in &devices {
        let base = if d.base { " (base)" } else { "" };
        rows.push(vec![
            format!("{}{base}", label(d.id, d.name.as_deref())),
            if d.retired { "retired".into() } else { d.trust.words().to_owned() },
            format!("{} + {}", number(d.shared), number(d.own)),
            if d.this { "-".into() } else { number(d.acknowledged) },
            match d.heard {
                _ if d.this => "-".into(),
                Some(at) => time(at),
                None => "never".into(),
            },
        ]);
    }
    for line in fitting_columns(&rows) {
        say!(out, "{line}");
    }
    say!(out, "FRAMES here are shared + per-device ones; HAS OF OURS are this device's own");
    for d in &devices {
        let who = label(d.id, d.name.as_deref());
        if let Some(clock) = d.clock.map(packmule::clock_words) {
            say!(out, "the clock of {who} is {clock}");
        }
        if let Some(by) = &d.revoked_by {
            say!(out, "{who} is revoked ({}){}", said_by(by), set_aside(d.set_aside));
        }
        if let Some(by) = &d.retired_by {
            say!(out, "{who} is retired ({}): the log does not wait for it", said_by(by));
        }
        if d.state_rows > 0 {
            say!(out, "{} came in a state that {who} sent: on its word", count(d.state_rows, "row"));
        }
    }
    Ok(())
}

/// `packmule join`.
pub fn join(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let (path, file) = (args.path(0).to_owned(), args.path(1).to_owned());
    let fleet = given_fleet_key(args, &flags::FLEET)?;
    let name = args.flag(&flags::NAME)?.map_or_else(host_name, str::to_owned);
    let new = !path.exists();
    let named = new || args.has(&flags::NAME);
    let asked = JoinOptions { name: named.then_some(name.as_str()), fleet: fleet.as_ref() };
    let mut from = sources::open_bundle(&file, ("snapshot", ".pms"))?;
    let joined = Engine::join(&path, &mut from, &asked, options(context)?);
    let (engine, report) = joined.map_err(|e| {
        use packmule::Error::{Bundle, Stream, Usage};
        let about = if matches!(e, Bundle { .. } | Stream(_) | Usage(_)) { &file } else { &path };
        Failure::engine(about, &path, e)
    })?;
    let identity = engine.identity();
    let out = &mut *context.out;
    out.document(&Joined {
        database: shown(&path),
        name: &identity.name,
        fingerprint: identity.id.to_string(),
        maker: report.maker.map(|id| Maker { id: id.to_string(), name: &report.maker_name }),
        rows: report.rows,
        waiting: report.waiting,
        frames: report.frames,
        new_identity: report.new_identity,
    });
    say!(
        out,
        "{} starts from what {} had: {}, {} in flight",
        shown(&path),
        report.maker_name,
        count(report.rows, "row"),
        count(report.frames, "frame")
    );
    if report.waiting > 0 {
        let these = plural(report.waiting, "row waits", "rows wait");
        say!(out, "{these} for a table that is here and not tracked:");
        say!(out, "  `packmule status {}` says which", quoted(&path));
    }
    let what = if report.new_identity {
        "a new identity, since it was a second history of the one before"
    } else {
        "its identity"
    };
    say!(out, "  {what}: {} {}", identity.name, identity.id);
    if !identity.admitted {
        say!(out, "  fleet        {}", no_fleet(fleets(identity).1.as_deref()));
    }
    Ok(())
}

/// `packmule retire`.
pub fn retire(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0).to_owned();
    let given = context.args.text(1)?.to_owned();
    let mut engine = open(context)?;
    let id = engine.find_device(&given).map_err(of_db(&path))?;
    let undo = context.args.has(&flags::TAKE_BACK);
    let key = given_fleet_key(&context.args, &flags::REVOKE_FLEET)?;
    let key = key.as_ref();
    let done = if undo { engine.take_back_retirement(id, key) } else { engine.retire(id, key) };
    let travels = done.map_err(of_db(&path))?;
    let name = engine.devices().map_err(of_db(&path))?.into_iter().find(|d| d.id == id).and_then(|d| d.name);
    let who = label(id, name.as_deref());
    let out = &mut *context.out;
    out.document(&Retired { retired: id.to_string(), undone: undo, travels });
    let holds = if travels { "here and wherever this is carried" } else { "for this database alone" };
    if undo {
        say!(out, "{who} is no longer retired, {holds}: the log waits for it again");
        return Ok(());
    }
    say!(out, "{who} is retired: the log no longer waits for it, {holds}");
    if !travels {
        say!(out, "for all devices, run it at a base, or with --fleet FILE: the fleet key");
    }
    let db = quoted(&path);
    let undo = match context.args.flag_path(&flags::REVOKE_FLEET) {
        Some(file) => {
            let secret = with_passphrase(&context.args);
            format!("`packmule retire {db} {id} --undo --fleet {}{secret}`", quoted(file))
        }
        None => format!("`packmule retire {db} {id} --undo`"),
    };
    say!(out, "{undo} takes it back, and so does the device itself when it writes again");
    Ok(())
}
