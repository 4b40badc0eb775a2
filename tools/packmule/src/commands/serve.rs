//! Serves devices on serial lines until stopped: serve.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use packmule::carry::serial::{self, Options, Status, Stop};
use packmule::carry::session::Progress;
use packmule::{Engine, label};

use super::line::{failure_text, left, line_options, stop_on_signals, summary};
use super::{Context, open};
use crate::documents::{Counts, Event};
use crate::output::{Failure, Out, say};
use crate::text::{io_text, iso, now, number, shown, time};
use crate::usage::{Args, flags};

/// `packmule serve`.
pub fn serve(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let db = context.args.path(0);
    let lines = ports(&context.args)?
        .iter()
        .map(|port| Ok((line_options(context, port)?, open(context)?)))
        .collect::<Result<Vec<(Options, Engine)>, Failure>>()?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let out = &mut *context.out;
    lines.iter().for_each(|(options, _)| print_rate(options, out));
    out.flush();
    let (send, changes) = channel::<Change>();
    std::thread::scope(|scope| {
        for (options, mut engine) in lines {
            let (send, stop) = (send.clone(), stop.clone());
            scope.spawn(move || {
                let (port, first) = (shown(&options.path), options.baud);
                let mut line = Served { db, port, send, first, peer: None, before: Progress::default() };
                let result = serial::serve(&mut engine, &options, &stop, &mut |status| line.report(&status));
                if let Err(e) = result {
                    line.change("failed", failure_text(db, &e), More::Nothing);
                }
            });
        }
        drop(send);
        print_changes(&changes, &stop, out);
    });
    say!(out, "{}  ended", time(now()));
    Ok(())
}

/// Returns the ports that were given, each once.
fn ports(args: &Args) -> Result<Vec<PathBuf>, Failure> {
    let mut ports: Vec<PathBuf> = args.all(&flags::SERIAL_PORTS)?.iter().map(PathBuf::from).collect();
    // Those after the first stand without the flag's name.
    ports.extend(args.paths(1).into_iter().map(Path::to_path_buf));
    if ports.is_empty() || !args.has(&flags::SERIAL_PORTS) {
        return Err(args.wrong("--serial is missing: it names the ports").into());
    }
    for (at, port) in ports.iter().enumerate() {
        if ports[..at].contains(port) {
            return Err(args.wrong(format!("{} is given twice", shown(port))).into());
        }
    }
    Ok(ports)
}

fn print_rate(options: &Options, out: &mut Out<'_>) {
    let baud = |rate: u32| number(rate.into());
    let up = match options.baud_max {
        most if most > options.baud => format!(", up to {}", baud(most)),
        _ => String::new(),
    };
    say!(out, "{}  {}: at {} baud{up}", time(now()), shown(&options.path), baud(options.baud));
}

/// Prints what the lines report, until every line has ended.
fn print_changes(changes: &Receiver<Change>, stop: &Stop, out: &mut Out<'_>) {
    let mut last: Vec<(String, String)> = Vec::new();
    for change in changes {
        // A line that reports the same again and again is printed once.
        let same = last.iter_mut().find(|(port, _)| *port == change.port);
        match same {
            Some((_, text)) if *text == change.text => continue,
            Some((_, text)) => text.clone_from(&change.text),
            None => last.push((change.port.clone(), change.text.clone())),
        }
        if out.json {
            out.document_line(&change.document());
            out.text("\n");
        }
        say!(out, "{}  {}: {}", time(now()), change.port, change.text.replace('\n', "\n  "));
        out.flush();
        if out.closed() {
            stop.stop();
        }
    }
}

/// What a line reports.
struct Change {
    at: String,
    port: String,
    event: &'static str,
    peer: Option<String>,
    text: String,
    more: More,
}

/// What belongs to one event alone.
enum More {
    Nothing,
    Fingerprint(String),
    Baud(u32),
    Carried(Box<Progress>),
}

impl Change {
    fn document(&self) -> Event<'_> {
        let mut event = Event {
            at: self.at.clone(),
            serial: &self.port,
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

/// A line that is served.
struct Served<'a> {
    db: &'a Path,
    port: String,
    send: Sender<Change>,
    /// The rate at which the line begins.
    first: u32,
    peer: Option<String>,
    /// What of the session was reported.
    before: Progress,
}

impl Served<'_> {
    fn report(&mut self, status: &Status<'_>) {
        let peer = self.peer.clone().unwrap_or_else(|| "the other end".into());
        match status {
            Status::Open => self.change("open", "waiting for a device".into(), More::Nothing),
            Status::Away(e) => {
                let text = format!("the port is not there ({}); waiting for it", io_text(e));
                self.change("away", text, More::Nothing);
            }
            Status::Met { id, name } => {
                let called = label(*id, Some(name));
                self.peer = Some(called.clone());
                self.before = Progress::default();
                self.change("met", format!("{called} is here"), More::Fingerprint(id.to_string()));
            }
            Status::InStep(progress) => self.in_step(&peer, progress),
            // Back at the first rate because the device has gone: no news.
            Status::Baud(rate) if *rate == self.first && self.peer.is_none() => {}
            Status::Baud(rate) => {
                let text = format!("the line runs at {} baud now", number((*rate).into()));
                self.change("baud", text, More::Baud(*rate));
            }
            Status::Silent => self.change("silent", format!("{peer} is not heard"), More::Nothing),
            Status::Heard => self.change("heard", format!("{peer} is heard again"), More::Nothing),
            Status::Ended => {
                self.change("ended", format!("{peer} has gone; waiting for a device"), More::Nothing);
                self.peer = None;
            }
            Status::Failed(e) => self.change("failed", failure_text(self.db, e), More::Nothing),
            _ => {}
        }
    }

    fn in_step(&mut self, peer: &str, progress: &Progress) {
        let news = since(&self.before, progress);
        self.before = progress.clone();
        let mut what = vec![format!("in step with {peer}: {}", summary(&news))];
        what.extend(left(progress, peer, self.db));
        self.change("in step", what.join("\n"), More::Carried(Box::new(news)));
    }

    fn change(&self, event: &'static str, text: String, more: More) {
        let (at, port, peer) = (iso(now()), self.port.clone(), self.peer.clone());
        // Nobody listens when the program ends.
        let _ = self.send.send(Change { at, port, event, peer, text, more });
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
