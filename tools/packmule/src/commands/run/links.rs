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
use packmule::carry::volume::Directory;
use packmule::{Engine, Error};

use super::super::changes::{Change, Heard, News, Place};
use super::super::compaction::{compacted, pruned};
use super::super::line::failure_text;
#[cfg(feature = "net")]
use super::super::line::session_text;
use super::decide::decided;
use crate::files::config::{Chore, Link, Way};
use crate::output::engine_text;
use crate::text::{count, file_text, shown};

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
    fn say(&self, news: News) -> Said {
        let change = Change::now(Place::Link, self.name.clone(), news);
        Said { link: self.link, change, quiet: false, next: None }
    }

    fn send(&self, said: Said) {
        // Nobody listens when the program ends.
        let _ = self.send.send(said);
    }

    fn tell(&self, event: &'static str, text: String) {
        self.send(self.say(News::of(event, None, text)));
    }

    /// Tells what a session has to say, and writes down what of it counts for the loop.
    fn session(&self, news: News, met: &mut Met) {
        met.in_step |= news.event == "in step";
        // That a link which comes and goes has come is no news.
        let quiet = news.event == "met" && !self.stays;
        self.send(Said { quiet, ..self.say(news) });
    }

    /// Tells what the loop has to say; `away`: what is not there.
    pub fn change(&self, change: &keep::Change<'_, Trouble>, away: &str) {
        let (event, text, next) = match change {
            keep::Change::Away => ("away", away.to_owned(), None),
            keep::Change::Begins => ("begins", String::new(), None),
            keep::Change::Rests(next) => ("rests", String::new(), Some(*next)),
            keep::Change::Ended(next) => {
                ("ended", "the other end has gone; it is called again".to_owned(), Some(*next))
            }
            keep::Change::Failed(why, next) => {
                let why = match why {
                    Trouble::Engine(e) => engine_text(self.db, self.db, e),
                    Trouble::Said(text) => text.clone(),
                };
                ("failed", why, Some(*next))
            }
        };
        // That a round begins, and has ended, is no change of state.
        let quiet = matches!(event, "begins" | "rests");
        self.send(Said { quiet, next, ..self.say(News::of(event, None, text)) });
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
            (Way::Card { directory, encrypt }, _) => {
                with_card(engine, (directory, *encrypt), self.stop, &self.tell)
            }
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
    let mut heard = Heard::default();
    let text = |e: &net::Error| match e {
        net::Error::Session(e) => session_text(tell.db, e),
        other => other.to_string(),
    };
    let session = if tell.stays { net::stay } else { net::sync };
    let result = session(engine, address, options, stop, &mut |status| {
        let news = match status {
            net::Status::Met { id, name } => {
                met.peer = Some(id);
                heard.met(id, name)
            }
            net::Status::InStep(progress) => heard.in_step(progress, tell.db),
            net::Status::Failed(e) => heard.failed(text(e)),
            _ => return,
        };
        tell.session(news, met);
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
    let mut heard = Heard::default();
    let mut report = |status: Status<'_>| {
        if let Status::Met { id, .. } = status {
            met.peer = Some(id);
        }
        // How fast the line is, and that it is open, is no state of a link.
        let is_news = !matches!(status, Status::Open | Status::Baud(_));
        let news = heard.on_line(&status, tell.db).filter(|_| is_news);
        news.into_iter().for_each(|news| tell.session(news, met));
    };
    let result = match tell.stays {
        true => serial::serve(engine, options, stop, &mut report),
        false => serial::sync(engine, options, stop, &mut report).map(|_| ()),
    };
    result.map_err(|e| Trouble::Said(failure_text(tell.db, &e)))
}

fn with_card(
    engine: &mut Engine,
    (directory, encrypt): (&Path, bool),
    stop: &Stop,
    tell: &Tell<'_>,
) -> Result<(), Trouble> {
    let at = |e: std::io::Error| Trouble::Said(format!("{}: {}", shown(directory), file_text(&e)));
    let mut card = Directory::open(directory).map_err(at)?;
    let mut report = Exchange::default();
    // What is begun is ended; but it is seen that it gets on.
    let mut progress = |_: &_, _| _ = stop.stopped();
    let exchange = if encrypt { card::exchange_encrypted } else { card::exchange };
    let result = exchange(engine, &mut card, &Limits::default(), &mut progress, &mut report);
    result.map_err(|e| Trouble::Said(engine_text(directory, tell.db, &e)))?;
    let ops: u64 = report.taken.iter().map(|(_, taken)| taken.ops).sum();
    let frames: u64 = report.left.iter().map(|left| left.frames).sum();
    let mut text = match (report.taken.is_empty(), report.left.is_empty()) {
        (true, true) => "nothing to take in, nothing to leave".to_owned(),
        _ => format!("{} taken in, {} left", count(ops, "row"), count(frames, "frame")),
    };
    for (file, why) in &report.stepped_over {
        // What is no bundle is no news.
        let card::Skipped::Refused(e) = why else { continue };
        text += &format!("\n{} skipped: {}", shown(file), engine_text(&directory.join(file), tell.db, e));
    }
    if report.not_left.is_some() {
        text += "\nnot all could be left there: the card is full or read-only";
    }
    tell.tell("in step", text);
    Ok(())
}

/// Upkeep at work.
pub struct Due<'a> {
    pub what: &'a Chore,
    pub stop: &'a Stop,
    pub tell: Tell<'a>,
}

impl Work for Due<'_> {
    type Error = Trouble;

    fn round(&mut self, engine: &mut Engine, _: &mut Met) -> Result<(), Trouble> {
        let text = match self.what {
            Chore::Compact { kept: Some(age), .. } => compacted(&engine.compact_keeping(*age)?),
            Chore::Compact { .. } => compacted(&engine.compact()?),
            Chore::Decide => decided(self.tell.db, engine, self.stop).map_err(Trouble::Said)?,
            Chore::Prune { table, keep, .. } => pruned(&engine.prune(table, *keep)?),
        };
        self.tell.tell("done", text);
        Ok(())
    }
}
