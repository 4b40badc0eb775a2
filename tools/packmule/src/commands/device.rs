//! Devices and trust: init, fleet new, trust, revoke, devices.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use packmule::core::model::DeviceId;
use packmule::{Engine, FleetKey, InitOptions, label};
use serde_json::json;

use super::{json_path, of_db, open, open_to_read, options};
use crate::Context;
use crate::failure::Failure;
use crate::output::{columns, say};
use crate::show::{iso, number, quoted, shown, time};
use crate::value::hex;

/// `packmule init`.
pub fn init(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let path = args.path(0);
    let fleet = match args.flag_path("fleet") {
        Some(file) => Some(FleetKey::open(file).map_err(|e| not_a_fleet_key(file, e))?),
        None => None,
    };
    let name = args.flag("name")?.map_or_else(host_name, str::to_owned);
    let asked = InitOptions { name: &name, base: args.has("base"), fleet: fleet.as_ref() };
    let key = format!("{}.pmkey", shown(path));
    let engine = Engine::init_with(path, &asked, options(context)?).map_err(|e| match e {
        packmule::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => Failure::of(
            path,
            format!("{key} is there already, the secret key of another database of this name: move it away first"),
        ),
        e => of_db(path)(e),
    })?;
    let identity = engine.identity();
    let out = &mut *context.out;
    out.document(json!({
        "database": json_path(path),
        "name": identity.name,
        "fingerprint": identity.id.to_string(),
        "base": identity.base,
        "fleet": identity.fleet.map(|fleet| hex(&fleet)),
        "key_file": key,
    }));
    let what = if identity.base { "the base" } else { "the device" };
    say!(out, "{} is now {what} `{}`", shown(path), identity.name);
    say!(out, "  fingerprint  {}", identity.id);
    match identity.fleet {
        Some(fleet) => say!(out, "  fleet        {}…", &hex(&fleet)[..16]),
        None => say!(out, "  fleet        none: other devices take its frames in after `packmule trust`"),
    }
    say!(out, "  secret key   {key} (readable by its owner alone; keep it beside the database)");
    if !identity.base {
        say!(out, "next: `packmule track {} TABLE` for each table that is to travel", quoted(path));
    }
    Ok(())
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

/// What this machine is called.
pub(super) fn host_name() -> String {
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

/// `packmule fleet new`.
pub fn fleet_new(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    if path.exists() {
        return Err(Failure::of(
            path,
            "is there already, and a key is never written over: choose another name",
        ));
    }
    let key = FleetKey::create(path).map_err(of_db(path))?;
    let public = hex(&key.public_key());
    let out = &mut *context.out;
    out.document(json!({ "key_file": json_path(path), "fleet": public }));
    say!(out, "{} is a new fleet key (fleet {}…), readable by its owner alone", shown(path), &public[..16]);
    say!(
        out,
        "whoever has it can add devices to the fleet: keep it off the boards, and a copy in a safe place"
    );
    say!(out, "next: `packmule init DB --fleet {}` for each device", quoted(path));
    Ok(())
}

/// `packmule trust`.
pub fn trust(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let (path, given) = (args.path(0), args.path(1));
    let mut engine = open(context)?;
    let mut name = None;
    let mut others = Vec::new();
    let mut by_bundle = false;
    let id = match fingerprint(&given.to_string_lossy()) {
        Some(id) => id,
        None if given.is_file() => {
            by_bundle = true;
            let file = File::open(given).map_err(|e| Failure::io(given, "read it", &e))?;
            let info = packmule::inspect(BufReader::new(file)).map_err(|e| Failure::engine(given, path, e))?;
            let sender = info.sender.ok_or_else(|| Failure::of(given, "does not say who made it"))?;
            for (id, its_name, ..) in info.devices {
                if id == sender {
                    name = Some(its_name);
                } else {
                    others.push((id, its_name));
                }
            }
            sender
        }
        None => engine.find_device(args.text(1)?).map_err(|_| {
            Failure::of(
                given,
                "is neither a bundle that is there, nor a fingerprint (32 hexadecimal digits), nor a device that is known here",
            )
        })?,
    };
    let known = engine.devices().map_err(of_db(path))?;
    let before = known.iter().find(|d| d.id == id);
    let name = name.or_else(|| before.and_then(|d| d.name.clone()));
    if before.is_some_and(|d| d.this) {
        return Err(Failure::of(given, "that is this device itself, which needs no trust"));
    }
    let already = before.is_some_and(|d| matches!(d.trust, "singly" | "by the fleet"));
    if by_bundle {
        let mut file = File::open(given).map_err(|e| Failure::io(given, "read it", &e))?;
        engine.trust_sender(&mut file).map_err(|e| Failure::engine(given, path, e))?;
    } else if !already {
        engine.trust(id).map_err(of_db(path))?;
    }
    others.retain(|(id, _)| !known.iter().any(|d| d.id == *id && d.trust != "no" && d.trust != "revoked"));
    let out = &mut *context.out;
    out.document(json!({
        "fingerprint": id.to_string(),
        "name": name,
        "already": already,
        "others": others.iter().map(|(id, name)| json!({ "fingerprint": id.to_string(), "name": name })).collect::<Vec<_>>(),
    }));
    let who = name.as_deref().unwrap_or("(its name comes with its first bundle)");
    say!(out, "{}: {who}", if already { "trusted before" } else { "trusted now" });
    say!(out, "  fingerprint  {id}");
    if !already {
        say!(
            out,
            "compare it with what `packmule status` shows on that device; if it is another, undo this:"
        );
        say!(out, "  packmule revoke {} {id}", quoted(path));
    }
    if !others.is_empty() {
        say!(out, "the bundle also has certificates of devices that were not trusted one by one here:");
        for (id, name) in others {
            say!(out, "  {id}  {name}");
        }
    }
    Ok(())
}

/// A fingerprint, however its digits are set apart.
fn fingerprint(text: &str) -> Option<DeviceId> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | ':' | '-')).collect();
    digits.to_ascii_lowercase().parse().ok()
}

/// `packmule revoke`.
pub fn revoke(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let mut engine = open(context)?;
    let given = context.args.text(1)?;
    let id = fingerprint(given).map_or_else(|| engine.find_device(given), Ok).map_err(of_db(path))?;
    engine.revoke(id).map_err(of_db(path))?;
    let name = engine.devices().map_err(of_db(path))?.into_iter().find(|d| d.id == id).and_then(|d| d.name);
    let out = &mut *context.out;
    out.document(json!({ "fingerprint": id.to_string(), "name": name }));
    say!(out, "revoked: {} takes in no more frames of {}", shown(path), label(id, name.as_deref()));
    say!(out, "what it wrote before stays; `packmule trust {} {id}` undoes this", quoted(path));
    Ok(())
}

/// `packmule devices`.
pub fn devices(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let path = context.args.path(0);
    let devices = open_to_read(context)?.devices().map_err(of_db(path))?;
    let out = &mut *context.out;
    out.document(json!({ "devices": devices.iter().map(|d| json!({
        "fingerprint": d.id.to_string(),
        "name": d.name,
        "label": label(d.id, d.name.as_deref()),
        "base": d.base,
        "this": d.this,
        "trust": d.trust,
        "frames_shared": d.shared,
        "frames_per_device": d.own,
        "has_of_ours": d.acknowledged,
        "heard": d.heard.map(iso),
        "clock_off_ms": d.clock,
    })).collect::<Vec<_>>() }));
    let head = ["DEVICE", "TRUST", "FRAMES HERE", "HAS OF OURS", "HEARD", "CLOCK"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for d in &devices {
        let base = if d.base { " (base)" } else { "" };
        rows.push(vec![
            format!("{}{base}", label(d.id, d.name.as_deref())),
            d.trust.to_owned(),
            format!("{} + {}", number(d.shared), number(d.own)),
            if d.this { "-".into() } else { number(d.acknowledged) },
            match d.heard {
                _ if d.this => "-".into(),
                Some(at) => time(at),
                None => "never".into(),
            },
            d.clock.map_or_else(|| "-".into(), packmule::clock_words),
        ]);
    }
    for line in columns(&rows) {
        say!(out, "{line}");
    }
    Ok(())
}
