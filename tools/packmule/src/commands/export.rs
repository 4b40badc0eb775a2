//! Sending: export.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{Context, check_standard_output, is_standard_output, of_db, open, say_left_out};
use crate::documents::Exported;
use crate::files::{Target, passphrase};
use crate::output::{Failure, say};
use crate::text::{count, shown, size, words, wrap};
use crate::usage::{Args, flags};
use packmule::core::model::DeviceId;
use packmule::{Encrypting, Engine, ExportReport, Readers, Recipient, label};

/// `packmule export`.
pub fn export(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let (path, bundle) = (args.path(0), args.path(1));
    let standard_output = is_standard_output(bundle);
    check_usage(args, standard_output)?;
    let secret = passphrase::given(args)?;
    let encrypt_to = args.all(&flags::ENCRYPT_TO)?;
    let mut engine = open(context)?;
    let peer = args.flag(&flags::FOR)?;
    let recipient = match peer {
        Some(device) => Recipient::Device(engine.find_device(device).map_err(|e| unheard(path, e))?),
        None => Recipient::Anyone,
    };
    if recipient == Recipient::Device(engine.identity().id) {
        return Err(args.wrong("--for names this device itself").into());
    }
    let encryption = Encryption::of(path, &engine, secret, &encrypt_to)?;
    if let Recipient::Device(id) = recipient
        && !encryption.opens_for(id)
    {
        return Err(args
            .wrong("--for names a device that could not read it: name it in --encrypt-to too")
            .into());
    }
    let readers = encryption.readers.as_ref();
    let whom = peer.map_or_else(|| "anyone".to_owned(), str::to_owned);
    let out = &mut *context.out;
    if standard_output {
        let report = write(&mut engine, path, bundle, out.raw(), recipient, readers)?;
        let _ = writeln!(io::stderr(), "{}", summary("standard output", &report, &whom));
        say_left_out(context, &engine);
        return Ok(());
    }
    let mut target = Target::begin(bundle, &engine, encryption.secret.as_deref())?;
    let mut report = write(&mut engine, path, bundle, target.file(), recipient, readers)?;
    if readers.is_some() {
        report.bytes = target.file().metadata().map_err(|e| Failure::io(bundle, "look at it", &e))?.len();
    }
    let replaced = target.replaces;
    target.finish()?;
    out.document(&Exported {
        bundle: shown(bundle),
        frames: report.frames,
        groups: report.groups,
        bytes: report.bytes,
        receiver: peer,
        replaced,
        state: report.state,
        encrypted: encryption.word(),
        readers: encryption.fingerprints(),
    });
    say!(out, "{}", summary(&shown(bundle), &report, &whom));
    if let Some(names) = encryption.names(path, &engine)? {
        say!(out, "{}", wrap(&words(&format!("encrypted: {names}, and nobody else")), 2));
    }
    if replaced {
        say!(out, "it replaces an older bundle of this device");
    }
    if report.state {
        say!(out, "it has the state of the shared tables, in place of frames that are compacted away here");
    }
    if report.frames == 0 && peer.is_some() {
        say!(
            out,
            "as far as is known here, {whom} lacks nothing; the bundle still says what this device has"
        );
    }
    say_left_out(context, &engine);
    Ok(())
}

/// Refuses what does not go together.
fn check_usage(args: &Args, standard_output: bool) -> Result<(), Failure> {
    if standard_output {
        check_standard_output(args, "bundle")?;
    }
    if args.has(&flags::ENCRYPT_TO) && args.has(&flags::PASSPHRASE_FILE) {
        return Err(args.wrong("--encrypt-to and --passphrase-file: one of them").into());
    }
    Ok(())
}

/// Adds that a device that was never heard of can still be sent everything.
fn unheard(db: &Path, error: packmule::Error) -> Failure {
    let none = matches!(&error, packmule::Error::Device { candidates, .. } if candidates.is_empty());
    let failure = of_db(db)(error);
    if none { failure.and("; without --for the bundle has everything, for any device") } else { failure }
}

fn write(
    engine: &mut Engine,
    db: &Path,
    bundle: &Path,
    to: &mut dyn Write,
    recipient: Recipient,
    readers: Option<&Readers>,
) -> Result<ExportReport, Failure> {
    let mut to = BufWriter::with_capacity(1 << 16, to);
    let written = match readers {
        None => engine.export(&mut to, recipient),
        Some(readers) => encrypted(engine, &mut to, recipient, readers),
    };
    written.map_err(|e| {
        let file = if matches!(e, packmule::Error::Stream(_)) { bundle } else { db };
        Failure::engine(file, db, e)
    })
}

/// Writes a bundle that these alone can read.
pub(super) fn encrypted(
    engine: &mut Engine,
    to: &mut dyn Write,
    recipient: Recipient,
    readers: &Readers,
) -> packmule::Result<ExportReport> {
    let mut out = Encrypting::new(to, readers).map_err(packmule::Error::Stream)?;
    let report = engine.export(&mut out, recipient)?;
    out.finish().and_then(|()| out.flush()).map_err(packmule::Error::Stream)?;
    Ok(report)
}

/// Who can read a bundle, if it is encrypted.
struct Encryption {
    readers: Option<Readers>,
    secret: Option<Vec<u8>>,
}

impl Encryption {
    /// Finds who can read it, by what was given.
    fn of(db: &Path, engine: &Engine, secret: Option<Vec<u8>>, to: &[&str]) -> Result<Self, Failure> {
        let readers = match (&secret, to) {
            (Some(secret), _) => Some(engine.passphrase_readers(secret)),
            (None, []) => None,
            (None, to) if to.contains(&"fleet") => Some(engine.fleet_readers().map_err(of_db(db))?),
            (None, to) => {
                let ids = to.iter().map(|device| engine.find_device(device)).collect::<Result<Vec<_>, _>>();
                Some(ids.and_then(|ids| engine.device_readers(&ids)).map_err(of_db(db))?)
            }
        };
        if secret.is_none() && readers.as_ref().is_some_and(|readers| readers.devices().len() < 2) {
            if !to.contains(&"fleet") {
                let what = "--encrypt-to names this device alone, so nobody else could read it: name another one too";
                return Err(Failure::of(db, what));
            }
            return Err(Failure::of(
                db,
                "no other device's certificate is known here, so nobody else could read it: take in a bundle of another \
                 device first, or encrypt with --passphrase-file",
            ));
        }
        Ok(Self { readers, secret })
    }

    fn opens_for(&self, device: DeviceId) -> bool {
        self.secret.is_some()
            || self.readers.as_ref().is_none_or(|readers| readers.devices().contains(&device))
    }

    /// Names it, as in JSON.
    fn word(&self) -> Option<&'static str> {
        self.readers.as_ref().map(|_| if self.secret.is_some() { "passphrase" } else { "devices" })
    }

    fn fingerprints(&self) -> Vec<String> {
        let devices = self.readers.iter().flat_map(Readers::devices);
        devices.map(|id| id.to_string()).collect()
    }

    /// Says who can read it, if it is encrypted.
    fn names(&self, db: &Path, engine: &Engine) -> Result<Option<String>, Failure> {
        let Some(readers) = &self.readers else { return Ok(None) };
        if self.secret.is_some() {
            return Ok(Some("whoever has the passphrase can read it".into()));
        }
        let readers = readers.devices();
        let known = engine.devices().map_err(of_db(db))?.into_iter();
        let others = known.filter(|device| !device.this && readers.contains(&device.id));
        let others: Vec<_> = others.map(|device| label(device.id, device.name.as_deref())).collect();
        Ok(Some(format!("{} can read it, and this device", others.join(", "))))
    }
}

fn summary(bundle: &str, report: &ExportReport, whom: &str) -> String {
    format!(
        "{bundle}: {} in {}, {}, for {whom}",
        count(report.frames, "frame"),
        count(report.groups, "group"),
        size(report.bytes)
    )
}
