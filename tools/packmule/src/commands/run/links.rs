//! One link, or one chore, on a thread of its own.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

use packmule::carry::Stop;
use packmule::carry::card::{self, Exchange, FOLDER, Limits};
use packmule::carry::keep::{self, Met, Work};
#[cfg(feature = "net")]
use packmule::carry::net;
use packmule::carry::serial;
use packmule::carry::session::Progress;
use packmule::carry::volume::Directory;
use packmule::core::model::DeviceId;
use packmule::{Engine, Error, label};

use super::super::changes::{Change, More, Place, in_step};
use super::super::compaction::{compacted, pruned};
use super::super::line::failure_text;
#[cfg(feature = "net")]
use super::super::line::session_text;
use crate::files::config::{Chore, Link, Way};
use crate::output::engine_text;
use crate::text::{count, io_text, iso, now, shown};

/// What a link says, and when it begins again.
pub struct Said {
    /// Its place among all.
    pub link: usize,
    pub change: Change,
    /// It is not printed: no change of state.
    pub quiet: bool,
    /// It begins again so late.
    pub next: Option<Duration>,
}

/// Why a round failed.
pub enum Trouble {
    Engine(Error),
    Said(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// Where a link tells what becomes of it.
#[derive(Clone)]
pub struct Tell<'a> {
    pub db: &'a Path,
    pub link: usize,
    pub name: String,
    pub send: Sender<Said>,
    pub stays: bool,
}

impl Tell<'_> {
    fn say(&self, event: &'static str, peer: Option<&str>, text: String, more: More) -> Said {
        let (at, peer) = (iso(now()), peer.map(str::to_owned));
        let change = Change { at, port: self.name.clone(), place: Place::Link, event, peer, text, more };
        Said { link: self.link, change, quiet: false, next: None }
    }

    fn send(&self, said: Said) {
        // Nobody listens when the program ends.
        let _ = self.send.send(said);
    }

    fn tell(&self, event: &'static str, peer: Option<&str>, text: String, more: More) {
        self.send(self.say(event, peer, text, more));
    }

    /// Tells what the loop has to say; `away`: what is not there.
    pub fn change(&self, change: &keep::Change<'_, Trouble>, away: &str) {
        let (said, next) = match change {
            keep::Change::Away => (self.say("away", None, away.to_owned(), More::Nothing), None),
            keep::Change::Begins => {
                (Said { quiet: true, ..self.say("begins", None, String::new(), More::Nothing) }, None)
            }
            keep::Change::Rests(next) => {
                (Said { quiet: true, ..self.say("rests", None, String::new(), More::Nothing) }, Some(*next))
            }
            keep::Change::Ended(next) => {
                let text = "the other end has gone; it is called again".to_owned();
                (self.say("ended", None, text, More::Nothing), Some(*next))
            }
            keep::Change::Failed(why, next) => {
                let why = match why {
                    Trouble::Engine(e) => engine_text(self.db, self.db, e),
                    Trouble::Said(text) => text.clone(),
                };
                (self.say("failed", None, why, More::Nothing), Some(*next))
            }
        };
        self.send(Said { next, ..said });
    }
}

/// What a session has told so far.
struct Heard<'a> {
    tell: &'a Tell<'a>,
    peer: Option<String>,
    before: Progress,
}

impl Heard<'_> {
    fn met(&mut self, id: DeviceId, name: &str, met: &mut Met) {
        let called = label(id, Some(name));
        (met.peer, self.before) = (Some(id), Progress::default());
        let (text, more) = (format!("{called} is here"), More::Fingerprint(id.to_string()));
        // That a link which comes and goes has come is no news.
        let said = self.tell.say("met", Some(&called), text, more);
        self.tell.send(Said { quiet: !self.tell.stays, ..said });
        self.peer = Some(called);
    }

    fn in_step(&mut self, progress: &Progress, met: &mut Met) {
        met.in_step = true;
        let called = self.peer.clone().unwrap_or_else(|| "the other end".into());
        let (text, carried) = in_step(&mut self.before, progress, &called, self.tell.db);
        self.tell.tell("in step", Some(&called), text, carried);
    }

    fn failed(&self, text: String) {
        self.tell.tell("failed", self.peer.as_deref(), text, More::Nothing);
    }
}

/// A link at work.
pub struct Linked<'a> {
    pub link: &'a Link,
    /// Of a serial line.
    pub line: Option<serial::Options>,
    pub stop: &'a Stop,
    pub tell: Tell<'a>,
}

impl Linked<'_> {
    /// Says what is not there, when it is not.
    pub fn away(&self) -> String {
        match &self.link.way {
            Way::Card { directory, .. } => {
                format!("there is no card at {} (no folder {FOLDER}); waiting for it", shown(directory))
            }
            Way::Line { port, .. } => format!("the port {} is not there; waiting for it", shown(port)),
            #[cfg(feature = "net")]
            Way::Network { .. } => String::new(),
        }
    }
}

impl Work for Linked<'_> {
    type Error = Trouble;

    fn round(&mut self, engine: &mut Engine, met: &mut Met) -> Result<(), Trouble> {
        match (&self.link.way, &self.line) {
            #[cfg(feature = "net")]
            (Way::Network { address, plain }, _) => {
                let options = net::Options { plain: *plain, patience: self.link.patience };
                over_network(engine, (address, &options), self.stop, &self.tell, met)
            }
            (Way::Card { directory, encrypt }, _) => with_card(engine, directory, *encrypt, &self.tell),
            (Way::Line { .. }, Some(options)) => over_line(engine, options, self.stop, &self.tell, met),
            (Way::Line { .. }, None) => Ok(()),
        }
    }

    fn is_there(&mut self) -> bool {
        match &self.link.way {
            Way::Card { directory, .. } => directory.join(FOLDER).is_dir(),
            Way::Line { port, .. } => port.exists(),
            #[cfg(feature = "net")]
            Way::Network { .. } => true,
        }
    }
}

#[cfg(feature = "net")]
fn over_network(
    engine: &mut Engine,
    (address, options): (&net::Address, &net::Options),
    stop: &Stop,
    tell: &Tell<'_>,
    met: &mut Met,
) -> Result<(), Trouble> {
    let mut heard = Heard { tell, peer: None, before: Progress::default() };
    let text = |e: &net::Error| match e {
        net::Error::Session(e) => session_text(tell.db, e),
        other => other.to_string(),
    };
    let session = if tell.stays { net::stay } else { net::sync };
    let result = session(engine, address, options, stop, &mut |status| match status {
        net::Status::Met { id, name } => heard.met(id, name, met),
        net::Status::InStep(progress) => heard.in_step(progress, met),
        net::Status::Failed(e) => heard.failed(text(e)),
        _ => {}
    });
    result.map(|_| ()).map_err(|e| Trouble::Said(text(&e)))
}

fn over_line(
    engine: &mut Engine,
    options: &serial::Options,
    stop: &Stop,
    tell: &Tell<'_>,
    met: &mut Met,
) -> Result<(), Trouble> {
    use serial::Status;
    let mut heard = Heard { tell, peer: None, before: Progress::default() };
    let mut report = |status: Status<'_>| match status {
        Status::Met { id, name } => heard.met(id, name, met),
        Status::InStep(progress) => heard.in_step(progress, met),
        Status::Away(e) => {
            let text = format!("the port is not there ({}); waiting for it", io_text(e));
            tell.tell("away", None, text, More::Nothing);
        }
        Status::Silent => {
            let peer = heard.peer.clone().unwrap_or_else(|| "the other end".into());
            tell.tell("silent", Some(&peer), format!("{peer} is not heard"), More::Nothing);
        }
        Status::Ended => {
            let peer = heard.peer.take().unwrap_or_else(|| "the other end".into());
            let text = format!("{peer} has gone; waiting for a device");
            tell.tell("ended", Some(&peer), text, More::Nothing);
        }
        Status::Failed(e) => heard.failed(failure_text(tell.db, e)),
        _ => {}
    };
    let result = match tell.stays {
        true => serial::serve(engine, options, stop, &mut report),
        false => serial::sync(engine, options, stop, &mut report).map(|_| ()),
    };
    result.map_err(|e| Trouble::Said(failure_text(tell.db, &e)))
}

fn with_card(engine: &mut Engine, directory: &Path, encrypt: bool, tell: &Tell<'_>) -> Result<(), Trouble> {
    let at = |e: std::io::Error| Trouble::Said(format!("{}: {}", shown(directory), io_text(&e)));
    let mut card = Directory::open(directory).map_err(at)?;
    let mut report = Exchange::default();
    let exchange = if encrypt { card::exchange_encrypted } else { card::exchange };
    let result = exchange(engine, &mut card, &Limits::default(), &mut |_, _| (), &mut report);
    result.map_err(|e| Trouble::Said(engine_text(directory, tell.db, &e)))?;
    let ops: u64 = report.taken.iter().map(|(_, taken)| taken.ops).sum();
    let frames: u64 = report.left.iter().map(|left| left.frames).sum();
    let mut text = match (report.taken.is_empty(), report.left.is_empty()) {
        (true, true) => "nothing to take in, nothing to leave".to_owned(),
        _ => format!("{} taken in, {} left", count(ops, "row"), count(frames, "frame")),
    };
    // What is no bundle is no news.
    let skipped = report.stepped_over.iter().filter(|(_, why)| !matches!(why, card::Skipped::Foreign));
    for (file, why) in skipped {
        let card::Skipped::Refused(e) = why else { continue };
        text += &format!("\n{} skipped: {}", shown(file), engine_text(&directory.join(file), tell.db, e));
    }
    if report.not_left.is_some() {
        text += "\nnot all could be left there: the card is full or read-only";
    }
    tell.tell("in step", None, text, More::Nothing);
    Ok(())
}

/// Upkeep at work.
pub struct Due<'a> {
    pub what: &'a Chore,
    pub tell: Tell<'a>,
}

impl Work for Due<'_> {
    type Error = Trouble;

    fn round(&mut self, engine: &mut Engine, _: &mut Met) -> Result<(), Trouble> {
        let text = match self.what {
            Chore::Compact => compacted(&engine.compact()?),
            Chore::Prune { table, keep, .. } => pruned(&engine.prune(table, *keep)?),
        };
        self.tell.tell("done", None, text, More::Nothing);
        Ok(())
    }
}
