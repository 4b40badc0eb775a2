//! What `serve` and `run` print: a line for each change of a line, a connection or a link.

use std::path::Path;
use std::sync::mpsc::Receiver;

use packmule::carry::Stop;
use packmule::carry::serial::Status;
use packmule::carry::session::Progress;
use packmule::core::model::DeviceId;
use packmule::label;

use super::left_out_now;
use super::line::{away, failure_text, left, summary};
use crate::documents::{Counts, Event};
use crate::output::{Out, say};
use crate::text::{iso, now, number, time};

/// So many lines and addresses are remembered with what they have reported last.
const PLACES_MAX: usize = 256;

/// Prints what the lines report, until every line has ended.
pub fn print_changes(changes: &Receiver<Change>, stop: &Stop, out: &mut Out<'_>) {
    let mut printer = Printer::default();
    for change in changes {
        printer.print(&change, out);
        if out.closed() {
            stop.stop();
        }
    }
}

/// Prints changes, those that say the same again and again once.
#[derive(Default)]
pub struct Printer {
    journal: bool,
    last: Vec<(String, String)>,
}

impl Printer {
    /// Makes one for the journal, which has the time itself and takes the priority from the beginning of a line.
    pub fn journal(journal: bool) -> Self {
        Self { journal, ..Self::default() }
    }

    /// Prints a line that is no change.
    pub fn say(&self, text: &str, out: &mut Out<'_>) {
        match self.journal {
            true => say!(out, "<6>{text}"),
            false => say!(out, "{}  {text}", time(now())),
        }
    }

    /// Prints a change.
    pub fn print(&mut self, change: &Change, out: &mut Out<'_>) {
        let same = self.last.iter_mut().find(|(port, _)| *port == change.port);
        let known = same.is_some();
        match same {
            Some((_, text)) if *text == change.text => return,
            Some((_, text)) => text.clone_from(&change.text),
            None => self.last.push((change.port.clone(), change.text.clone())),
        }
        if !known && self.last.len() > PLACES_MAX {
            self.last.remove(0);
        }
        if out.json {
            out.document_line(&change.document());
            out.text("\n");
        }
        let text = format!("{}: {}", change.port, change.text);
        let text = match self.journal {
            true => text
                .lines()
                .map(|line| format!("<{}>{line}", change.priority()))
                .collect::<Vec<_>>()
                .join("\n"),
            false => format!("{}  {}", time(now()), text.replace('\n', "\n  ")),
        };
        if change.event == "failed" {
            out.warning(&text)
        } else {
            out.line(&text)
        }
        out.flush();
    }
}

/// What a line or a connection reports.
pub struct Change {
    pub at: String,
    /// The serial port, the address, or the link's name.
    pub port: String,
    pub place: Place,
    pub event: &'static str,
    pub peer: Option<String>,
    pub text: String,
    pub more: More,
}

/// What changes.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Serial,
    #[cfg(feature = "net")]
    Address,
    Link,
}

/// What belongs to one event alone.
pub enum More {
    Nothing,
    Fingerprint(String),
    Baud(u32),
    Carried(Box<Progress>),
}

impl Change {
    /// Makes one of now.
    pub fn now(place: Place, port: String, news: News) -> Self {
        let News { event, peer, text, more } = news;
        Self { at: iso(now()), port, place, event, peer, text, more }
    }

    /// Returns how grave it is, as syslog counts: 4 is a warning, 5 a notice, 6 information.
    fn priority(&self) -> u8 {
        match self.event {
            "failed" | "stuck" => 4,
            "away" | "silent" | "ended" | "goes on" => 5,
            _ => 6,
        }
    }

    fn document(&self) -> Event<'_> {
        let of = |place| (self.place == place).then_some(self.port.as_str());
        let mut event = Event {
            at: self.at.clone(),
            serial: of(Place::Serial),
            #[cfg(feature = "net")]
            address: of(Place::Address),
            #[cfg(not(feature = "net"))]
            address: None,
            link: of(Place::Link),
            event: self.event,
            peer: self.peer.as_deref(),
            text: &self.text,
            fingerprint: None,
            baud: None,
            counts: None,
        };
        match &self.more {
            More::Nothing => {}
            More::Fingerprint(id) => event.fingerprint = Some(id.clone()),
            More::Baud(rate) => event.baud = Some(*rate),
            More::Carried(done) => event.counts = Some(Counts::from(&**done)),
        }
        event
    }
}

/// What happened.
pub struct News {
    pub event: &'static str,
    pub peer: Option<String>,
    pub text: String,
    pub more: More,
}

impl News {
    /// Makes what is said in words alone.
    pub fn of(event: &'static str, peer: Option<String>, text: String) -> Self {
        Self { event, peer, text, more: More::Nothing }
    }
}

/// What a place has told of a session: who the other end is, and what it has carried so far.
#[derive(Default)]
pub struct Heard {
    /// The other end, once it has proved who it is.
    pub peer: Option<String>,
    before: Progress,
}

impl Heard {
    fn called(&self) -> &str {
        self.peer.as_deref().unwrap_or("the other end")
    }

    /// Makes news of the other end; `what` stands after its name.
    pub fn says(&self, event: &'static str, what: &str) -> News {
        News::of(event, self.peer.clone(), format!("{} {what}", self.called()))
    }

    /// Makes news of what went wrong.
    pub fn failed(&self, text: String) -> News {
        News::of("failed", self.peer.clone(), text)
    }

    /// The other end has proved who it is.
    pub fn met(&mut self, id: DeviceId, name: &str) -> News {
        *self = Self { peer: Some(label(id, Some(name))), before: Progress::default() };
        News { more: More::Fingerprint(id.to_string()), ..self.says("met", "is here") }
    }

    /// Both are in step: what was carried since that was last so, and what of this device is not carried.
    pub fn in_step(&mut self, progress: &Progress, db: &Path) -> News {
        let carried = since(&self.before, progress);
        self.before.clone_from(progress);
        let peer = self.called();
        let mut what = vec![format!("in step with {peer}: {}", summary(&carried))];
        what.extend(left(progress, peer, db));
        what.extend(left_out_now(db));
        let more = More::Carried(Box::new(carried));
        News { more, ..News::of("in step", self.peer.clone(), what.join("\n")) }
    }

    /// Returns what a serial line reports, if that is news.
    pub fn on_line(&mut self, status: &Status<'_>, db: &Path) -> Option<News> {
        let of_line = |event, text| News::of(event, self.peer.clone(), text);
        Some(match status {
            Status::Open => of_line("open", "waiting for a device".into()),
            Status::Away(e) => of_line("away", away(e)),
            Status::Baud(rate) => {
                let text = format!("the line runs at {} baud now", number((*rate).into()));
                News { more: More::Baud(*rate), ..of_line("baud", text) }
            }
            Status::Met { id, name } => self.met(*id, name),
            Status::InStep(progress) => self.in_step(progress, db),
            Status::Silent => self.says("silent", "is not heard"),
            Status::Heard => self.says("heard", "is heard again"),
            Status::Ended => {
                let news = self.says("ended", "has gone; waiting for a device");
                self.peer = None;
                news
            }
            Status::Failed(e) => self.failed(failure_text(db, e)),
            Status::Moving(_) => return None,
        })
    }
}

/// Returns what happened between two reports of a session.
fn since(before: &Progress, after: &Progress) -> Progress {
    let mut news = after.clone();
    news.sent.0 -= before.sent.0.min(news.sent.0);
    news.sent.1 -= before.sent.1.min(news.sent.1);
    news.received.0 -= before.received.0.min(news.received.0);
    news.received.1 -= before.received.1.min(news.received.1);
    // A state is carried whole.
    for (of, news) in
        [(before.state_sent, &mut news.state_sent), (before.state_received, &mut news.state_received)]
    {
        *news = if of == *news { (0, 0) } else { *news };
    }
    news.taken.ops -= before.taken.ops.min(news.taken.ops);
    news.taken.conflicts_opened -= before.taken.conflicts_opened.min(news.taken.conflicts_opened);
    news
}
