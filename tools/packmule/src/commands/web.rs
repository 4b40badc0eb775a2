//! What `serve --listen` answers over HTTP besides sessions: bundles and figures.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use packmule::carry::net::{Reply, Web};
use packmule::core::model::DeviceId;
use packmule::{Engine, Error, Recipient, label};

use super::intake::Intake;
use super::{Given, export, figures};
use crate::documents::ErrorDocument;
use crate::files::folder;
use crate::output::{Failure, Out, code};

const JSON: &str = "application/json";
/// What a bundle is called that came over HTTP.
const NAME: &str = "bundle";

/// Answers about a database. Each answer opens it anew.
pub struct Answers<'a> {
    pub db: &'a Path,
    pub given: Given,
    /// Other machines may read the figures.
    pub for_all: bool,
    /// Is told what was taken in and given: where from, what, and in words.
    pub tell: &'a (dyn Fn(SocketAddr, &'static str, String) + Sync),
}

impl Answers<'_> {
    fn engine(&self) -> Result<Engine, Failure> {
        Engine::open_with(self.db, self.given.options()).map_err(|e| self.failure(e))
    }

    fn failure(&self, e: Error) -> Failure {
        Failure::engine(self.db, self.db, e)
    }

    fn take_in(&self, from: SocketAddr, bundle: File) -> Result<Vec<u8>, Failure> {
        let mut engine = self.engine()?;
        let mut intake = Intake::new(self.db, &mut engine, false, None);
        intake.take_file(Path::new(NAME), bundle)?;
        (self.tell)(from, "bundle in", format!("took in a bundle: {}", intake.summary()));
        let mut document = Vec::new();
        let mut out = Out::new(Box::new(&mut document));
        out.json = true;
        intake.report(&mut out)?;
        out.finish().map_err(|e| Failure::io(self.db, "write the answer", &e))?;
        Ok(document)
    }

    fn write_for(&self, from: SocketAddr, device: &str, to: &mut dyn Write) -> Result<(), Failure> {
        let mut engine = self.engine()?;
        let known = engine.devices().map_err(|e| self.failure(e))?;
        let unknown = || Error::Device { given: device.into(), candidates: Vec::new() };
        let Some(receiver) = known.iter().find(|known| known.id.to_string() == device) else {
            return Err(self.failure(unknown()));
        };
        if receiver.this || receiver.revoked {
            let why = if receiver.this { "this is the device itself" } else { "the device is revoked" };
            let code = if receiver.this { code::REFUSED } else { code::REVOKED };
            return Err(Failure::plain(why).coded(code));
        }
        let id: DeviceId = receiver.id;
        let readers = engine.device_readers(&[id]).map_err(|e| self.failure(e))?;
        let written = export::encrypted(&mut engine, to, Recipient::Device(id), &readers);
        let report = written.map_err(|e| self.failure(e))?;
        let name = label(id, receiver.name.as_deref());
        (self.tell)(from, "bundle out", format!("gave a bundle for {name}: {} frames", report.frames));
        Ok(())
    }
}

impl Web for Answers<'_> {
    fn spool(&self) -> io::Result<File> {
        tempfile::tempfile_in(folder(self.db))
    }

    fn take(&self, from: SocketAddr, bundle: File) -> Reply {
        match self.take_in(from, bundle) {
            Ok(body) => Reply { status: 200, kind: JSON, body },
            Err(failure) => refused(&failure),
        }
    }

    fn give(&self, from: SocketAddr, device: &str, to: &mut dyn Write) -> Result<(), Reply> {
        self.write_for(from, device, to).map_err(|failure| refused(&failure))
    }

    fn figures(&self) -> Reply {
        let page = self
            .engine()
            .and_then(|engine| figures::figures(self.db, &engine, true).map_err(|e| self.failure(e)));
        match page {
            Ok(text) => {
                Reply { status: 200, kind: "text/plain; version=0.0.4; charset=utf-8", body: text.into() }
            }
            Err(failure) => refused(&failure),
        }
    }

    fn figures_for_all(&self) -> bool {
        self.for_all
    }
}

/// Makes the answer of a failure: its document, without the paths of this machine.
fn refused(failure: &Failure) -> Reply {
    let document = failure.document().map(|document| ErrorDocument { file: None, ..document });
    let status = document.as_ref().map_or(500, |document| status(document.code));
    let mut body =
        document.and_then(|document| serde_json::to_vec_pretty(&document).ok()).unwrap_or_default();
    body.push(b'\n');
    Reply { status, kind: JSON, body }
}

/// Returns the status of HTTP for a code of an error.
fn status(code: &str) -> u16 {
    match code {
        "untrusted" | "asks-for-admission" | "revoked" => 403,
        "unknown-device" => 404,
        "twin" | "rolled-back" => 409,
        "database-busy" => 503,
        "disk-full" => 507,
        "bad-request" | "is-a-snapshot" | "not-a-bundle" | "refused" | "state-refused" => 400,
        other if other.starts_with("bundle-") => 400,
        _ => 500,
    }
}
