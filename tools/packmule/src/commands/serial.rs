//! Over serial lines: sync, serve.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use packmule::carry::serial::{self, Error as LineError, Flow, Options, Status, Stop};
use packmule::carry::session::{Error as SessionError, Progress};
use packmule::{Engine, Error, label};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{of_db, open, options as engine_options};
use crate::Context;
use crate::failure::{Failure, engine_text, io_text};
use crate::output::say;
use crate::progress::Bar;
use crate::show::{behind, count, now, number, quoted, shown, size, span, time, waiting};

/// `packmule sync`.
pub fn sync(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let port =
        args.flag_path("serial").ok_or_else(|| args.wrong("--serial is missing: it names the port"))?;
    let mut options = line_options(context, port)?;
    options.patience = match args.flag("patience")? {
        None => Some(Duration::from_secs(60)),
        Some(text) => match text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s)) {
            Some(0.0) => None,
            Some(seconds) => Some(Duration::from_secs_f64(seconds)),
            None => return Err(args.wrong(format!("--patience is a number of seconds, not `{text}`"))),
        },
    };
    let db = args.path(0);
    let mut engine = open(context)?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let begun = Instant::now();
    let mut bar = Bar::new(shown(port));
    let mut peer: Option<(String, String)> = None;
    let mut baud = options.baud;
    let result = serial::sync(&mut engine, &options, &stop, &mut |status| match status {
        Status::Open => {
            bar.say(&format!("waiting for the other end at {} baud", number(options.baud.into())))
        }
        Status::Away(e) => bar.say(&format!("the port is gone ({}); waiting for it", io_text(e))),
        Status::Met { id, name } => {
            let called = label(id, Some(name));
            bar.say(&format!("connected to {called}"));
            peer = Some((called, id.to_string()));
        }
        Status::Baud(rate) => {
            baud = rate;
            bar.say(&format!("the line runs at {} baud now", number(rate.into())));
        }
        Status::Silent => bar.say("the other end is not heard; waiting"),
        Status::Heard => bar.say("the other end is heard again"),
        Status::Moving(progress) => bar.show(progress),
        Status::Failed(e) => bar.say(&format!("{e}; beginning again")),
        _ => {}
    });
    bar.clear();
    let done = result.map_err(|e| failure(port, db, e))?;
    let open_conflicts = engine.status().map_err(of_db(db))?.conflicts;
    let seconds = begun.elapsed().as_secs_f64();
    let (name, id) = peer.unzip();
    let out = &mut *context.out;
    let mut document = json!({
        "serial": shown(port),
        "baud": baud,
        "peer": name,
        "fingerprint": id,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "conflicts_open": open_conflicts,
    });
    if let (Some(all), Value::Object(counts)) = (document.as_object_mut(), counts(&done)) {
        all.extend(counts);
    }
    out.document(document);
    say!(
        out,
        "in step with {}: {} in {} at {} baud",
        name.as_deref().unwrap_or("nobody"),
        summary(&done),
        span(seconds.ceil() as u64),
        number(baud.into())
    );
    if done.peer_needs_snapshot {
        say!(out, "{}", behind(name.as_deref().unwrap_or("the other end"), db));
    }
    if done.needs_snapshot {
        say!(out, "{}", needs_snapshot(name.as_deref().unwrap_or("the other end"), db));
    }
    for wait in &done.taken.waits {
        say!(out, "{}", waiting(wait));
    }
    if open_conflicts > 0 {
        let these = if open_conflicts == 1 { "conflict is open" } else { "conflicts are open" };
        say!(out, "{open_conflicts} {these}: `packmule conflicts {}` lists every version", quoted(db));
    }
    Ok(())
}

/// `packmule serve`.
pub fn serve(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let mut ports: Vec<PathBuf> = args.all("serial")?.iter().map(PathBuf::from).collect();
    // Those after the first stand without the flag's name.
    ports.extend(args.paths(1).into_iter().map(Path::to_path_buf));
    if ports.is_empty() || !args.has("serial") {
        return Err(args.wrong("--serial is missing: it names the ports"));
    }
    for (at, port) in ports.iter().enumerate() {
        if ports[..at].contains(port) {
            return Err(args.wrong(format!("{} is given twice", shown(port))));
        }
    }
    let db = args.path(0);
    let lines = ports
        .iter()
        .map(|port| Ok((line_options(context, port)?, open(context)?)))
        .collect::<Result<Vec<(Options, Engine)>, Failure>>()?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let out = &mut *context.out;
    let (tell, told) = channel::<Change>();
    if !out.json {
        for (options, _) in &lines {
            let baud = |rate: u32| number(rate.into());
            let up = if options.baud_max > options.baud {
                format!(", up to {}", baud(options.baud_max))
            } else {
                String::new()
            };
            say!(out, "{}  {}: at {} baud{up}", time(now()), shown(&options.path), baud(options.baud));
        }
        out.flush();
    }
    std::thread::scope(|scope| {
        for (options, mut engine) in lines {
            let (tell, stop) = (tell.clone(), stop.clone());
            scope.spawn(move || {
                let (port, first) = (shown(&options.path), options.baud);
                let mut line = Served { db, port, tell, first, peer: None, before: Progress::default() };
                let result = serial::serve(&mut engine, &options, &stop, &mut |status| line.note(&status));
                if let Err(e) = result {
                    line.change("failed", failure_text(db, &e), Value::Null);
                }
            });
        }
        drop(tell);
        let mut last: Vec<(String, String)> = Vec::new();
        // Until every line has ended.
        for change in told {
            // A line that says the same again and again says it once.
            let same = last.iter_mut().find(|(port, _)| *port == change.port);
            match same {
                Some((_, text)) if *text == change.text => continue,
                Some((_, text)) => text.clone_from(&change.text),
                None => last.push((change.port.clone(), change.text.clone())),
            }
            if out.json {
                out.text(&format!("{}\n", change.document));
            }
            say!(out, "{}  {}: {}", time(now()), change.port, change.text.replace('\n', "\n  "));
            out.flush();
            if out.closed() {
                stop.stop();
            }
        }
    });
    say!(out, "{}  ended", time(now()));
    Ok(())
}

/// One line of status.
struct Change {
    port: String,
    text: String,
    document: Value,
}

/// A line as `serve` tells of it.
struct Served<'a> {
    db: &'a Path,
    port: String,
    tell: Sender<Change>,
    /// The rate at which the line begins.
    first: u32,
    peer: Option<String>,
    /// What had been told of the session.
    before: Progress,
}

impl Served<'_> {
    fn note(&mut self, status: &Status<'_>) {
        let peer = self.peer.clone().unwrap_or_else(|| "the other end".into());
        match status {
            Status::Open => self.change("open", "waiting for a device".into(), Value::Null),
            Status::Away(e) => self.change(
                "away",
                format!("the port is not there ({}); waiting for it", io_text(e)),
                Value::Null,
            ),
            Status::Met { id, name } => {
                let called = label(*id, Some(name));
                self.peer = Some(called.clone());
                self.before = Progress::default();
                self.change("met", format!("{called} is here"), json!({ "fingerprint": id.to_string() }));
            }
            Status::InStep(progress) => {
                let news = since(&self.before, progress);
                self.before = (*progress).clone();
                let mut what = vec![format!("in step with {peer}: {}", summary(&news))];
                if progress.peer_needs_snapshot {
                    what.push(behind(&peer, self.db));
                }
                if progress.needs_snapshot {
                    what.push(needs_snapshot(&peer, self.db));
                }
                what.extend(progress.taken.waits.iter().map(waiting));
                self.change("in step", what.join("\n"), counts(&news));
            }
            // Back at the first rate because the device has gone: no news.
            Status::Baud(rate) if *rate == self.first && self.peer.is_none() => {}
            Status::Baud(rate) => self.change(
                "baud",
                format!("the line runs at {} baud now", number((*rate).into())),
                json!({ "baud": rate }),
            ),
            Status::Silent => self.change("silent", format!("{peer} is not heard"), Value::Null),
            Status::Heard => self.change("heard", format!("{peer} is heard again"), Value::Null),
            Status::Ended => {
                self.change("ended", format!("{peer} has gone; waiting for a device"), Value::Null);
                self.peer = None;
            }
            Status::Failed(e) => self.change("failed", failure_text(self.db, e), Value::Null),
            _ => {}
        }
    }

    fn change(&self, event: &str, text: String, more: Value) {
        let mut document = json!({ "at": crate::show::iso(now()), "serial": self.port, "event": event, "peer": self.peer, "text": text });
        if let (Some(all), Value::Object(more)) = (document.as_object_mut(), more) {
            all.extend(more);
        }
        // Nobody listens when the program ends.
        let _ = self.tell.send(Change { port: self.port.clone(), text, document });
    }
}

fn line_options(context: &Context<'_, '_>, port: &Path) -> Result<Options, Failure> {
    let args = &context.args;
    let rate = |name: &'static str| -> Result<Option<u32>, Failure> {
        let Some(text) = args.flag(name)? else { return Ok(None) };
        let rate = text.replace(['_', ','], "").parse().ok().filter(|rate| (300..=20_000_000).contains(rate));
        let wrong = || args.wrong(format!("--{name} is a number from 300 to 20000000, not `{text}`"));
        rate.ok_or_else(wrong).map(Some)
    };
    let board = super::board::profile(context)?;
    let baud = rate("baud")?.unwrap_or(board.uart.baud);
    let baud_max = match rate("baud-max")? {
        Some(most) if most < baud => {
            return Err(args
                .wrong(format!("--baud-max is {most}, which is below the {baud} at which the line begins")));
        }
        Some(most) => most,
        None => board.uart.baud_max.max(baud),
    };
    let flow = if args.flag("flow")? == Some("hardware") { Flow::Hardware } else { Flow::None };
    engine_options(context)?;
    Ok(Options { path: port.into(), baud, baud_max, flow, patience: None })
}

/// A signal ends the exchange in good order; a second one ends the program.
fn stop_on_signals(stop: &Stop) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::Told(format!("could not wait for signals: {e}"));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let stop = stop.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if stop.stopped() {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            stop.stop();
        }
    });
    Ok(())
}

fn failure(port: &Path, db: &Path, error: LineError) -> Failure {
    match error {
        LineError::Session(SessionError::Stranger(stranger)) => {
            let message = failure_text(db, &LineError::Session(SessionError::Stranger(stranger.clone())));
            Failure::Refused { file: Some(shown(port)), message, strangers: vec![stranger] }
        }
        LineError::Session(SessionError::Engine(e)) if !is_of_peer(&e) => Failure::engine(db, db, e),
        other => Failure::of(port, failure_text(db, &other)),
    }
}

fn is_of_peer(error: &Error) -> bool {
    matches!(error, Error::Bundle { .. } | Error::Strangers(_) | Error::Twin { .. })
}

fn failure_text(db: &Path, error: &LineError) -> String {
    match error {
        LineError::Session(SessionError::Engine(e)) if !is_of_peer(e) => engine_text(db, db, e),
        // What the other end is to run names no database of ours.
        LineError::Session(SessionError::Refused { .. }) => error.to_string(),
        other => crate::failure::with_database(&other.to_string(), &quoted(db)),
    }
}

/// What happened between two looks at a session.
fn since(before: &Progress, after: &Progress) -> Progress {
    let mut news = after.clone();
    news.sent.0 -= before.sent.0.min(news.sent.0);
    news.sent.1 -= before.sent.1.min(news.sent.1);
    news.received.0 -= before.received.0.min(news.received.0);
    news.received.1 -= before.received.1.min(news.received.1);
    news.taken.ops -= before.taken.ops.min(news.taken.ops);
    news.taken.conflicts_opened -= before.taken.conflicts_opened.min(news.taken.conflicts_opened);
    news
}

fn summary(done: &Progress) -> String {
    let mut parts = Vec::new();
    let frames = |(frames, bytes): (u64, u64)| format!("{} ({})", count(frames, "frame"), size(bytes));
    if done.sent.0 > 0 {
        parts.push(format!("sent {}", frames(done.sent)));
    }
    if done.received.0 > 0 {
        parts.push(format!("received {}, {} applied", frames(done.received), count(done.taken.ops, "row")));
    }
    if done.taken.conflicts_opened > 0 {
        parts.push(format!("{} opened", count(done.taken.conflicts_opened, "conflict")));
    }
    if parts.is_empty() { "nothing new on either side".into() } else { parts.join("; ") }
}

/// What is to be done here, where the other end says that this device lacks what is compacted away there.
fn needs_snapshot(peer: &str, db: &Path) -> String {
    format!(
        "this device lacks frames that are compacted away on {peer}: run `packmule snapshot` there, and \
         `packmule join {} FILE` with it here",
        quoted(db)
    )
}

fn counts(done: &Progress) -> Value {
    json!({
        "frames_sent": done.sent.0,
        "bytes_sent": done.sent.1,
        "frames_received": done.received.0,
        "bytes_received": done.received.1,
        "ops": done.taken.ops,
        "ops_waiting": done.taken.ops_waiting,
        "conflicts_opened": done.taken.conflicts_opened,
        "needs_snapshot": done.needs_snapshot,
        "peer_needs_snapshot": done.peer_needs_snapshot,
        "waits": done.taken.waits.iter().map(waiting).collect::<Vec<_>>(),
    })
}

impl Bar {
    /// Draws how far a session is: what is to be sent and what is to come.
    fn show(&mut self, progress: &Progress) {
        let out = progress.sent.1.saturating_sub(progress.under_way);
        let come = progress.received.1 + progress.coming;
        let total = progress.to_send.1.max(progress.sent.1) + progress.to_receive.1.max(come);
        let ways: Vec<String> = [(out, "out"), (come, "in")]
            .into_iter()
            .filter(|(bytes, _)| *bytes > 0)
            .map(|(bytes, way)| format!("{} {way}", size(bytes)))
            .collect();
        if !ways.is_empty() {
            self.draw(out + come, total, &ways.join(", "), "waiting until both have written it down");
        }
    }
}
