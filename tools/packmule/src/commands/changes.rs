//! What `serve` prints: a line for each change of a line or a connection.

use std::path::Path;
use std::sync::mpsc::Receiver;

use packmule::carry::Stop;
use packmule::carry::session::Progress;

use super::line::{left, summary};
use crate::documents::{Counts, Event};
use crate::output::Out;
use crate::text::{now, time};

/// So many lines and addresses are remembered with what they have reported last.
const PLACES_MAX: usize = 256;

/// Prints what the lines report, until every line has ended.
pub fn print_changes(changes: &Receiver<Change>, stop: &Stop, out: &mut Out<'_>) {
    let mut last: Vec<(String, String)> = Vec::new();
    for change in changes {
        // A line that reports the same again and again is printed once.
        let same = last.iter_mut().find(|(port, _)| *port == change.port);
        let known = same.is_some();
        match same {
            Some((_, text)) if *text == change.text => continue,
            Some((_, text)) => text.clone_from(&change.text),
            None => last.push((change.port.clone(), change.text.clone())),
        }
        if !known && last.len() > PLACES_MAX {
            last.remove(0);
        }
        if out.json {
            out.document_line(&change.document());
            out.text("\n");
        }
        let line = format!("{}  {}: {}", time(now()), change.port, change.text.replace('\n', "\n  "));
        if change.event == "failed" {
            out.warning(&line)
        } else {
            out.line(&line)
        }
        out.flush();
        if out.closed() {
            stop.stop();
        }
    }
}

/// What a line or a connection reports.
pub struct Change {
    pub at: String,
    /// The serial port, or the address.
    pub port: String,
    pub is_serial: bool,
    pub event: &'static str,
    pub peer: Option<String>,
    pub text: String,
    pub more: More,
}

/// What belongs to one event alone.
pub enum More {
    Nothing,
    Fingerprint(String),
    Baud(u32),
    Carried(Box<Progress>),
}

impl Change {
    fn document(&self) -> Event<'_> {
        let mut event = Event {
            at: self.at.clone(),
            serial: self.is_serial.then_some(&self.port),
            address: (!self.is_serial).then_some(&self.port),
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

/// Says what a session has carried since it was last reported that both are in step.
pub fn in_step(before: &mut Progress, progress: &Progress, peer: &str, db: &Path) -> (String, More) {
    let news = since(before, progress);
    before.clone_from(progress);
    let mut what = vec![format!("in step with {peer}: {}", summary(&news))];
    what.extend(left(progress, peer, db));
    (what.join("\n"), More::Carried(Box::new(news)))
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
