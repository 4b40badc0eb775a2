//! Over a serial line, until both ends have everything: sync.

use std::time::{Duration, Instant};

use packmule::carry::serial::{self, Options, Status, Stop};
use packmule::carry::session::Progress;
use packmule::label;

use super::line::{failure, left, line_options, stop_on_signals, summary};
use super::{Context, of_db, open, say_left_out};
use crate::documents::{Counts, Synced};
use crate::output::{Bar, Failure, say};
use crate::text::{conflicts_open, elsewhere, io_text, number, shown, size, span};
use crate::usage::{Args, flags};

/// `packmule sync`.
pub fn sync(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let missing = || args.wrong("--serial is missing: it names the port");
    let port = args.flag_path(&flags::SERIAL).ok_or_else(missing)?;
    let mut options = line_options(context, port)?;
    options.patience = patience(args)?;
    let db = args.path(0);
    let mut engine = open(context)?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let begun = Instant::now();
    let mut watch = Watch::new(&options);
    let result = serial::sync(&mut engine, &options, &stop, &mut |status| watch.show(&status));
    watch.bar.clear();
    let done = result.map_err(|e| failure(port, db, e))?;
    let open = engine.status().map_err(of_db(db))?.conflicts;
    let seconds = begun.elapsed().as_secs_f64();
    let out = &mut *context.out;
    out.document(&Synced {
        serial: shown(port),
        baud: watch.baud,
        peer: watch.peer.clone(),
        fingerprint: watch.fingerprint.take(),
        seconds: (seconds * 1000.0).round() / 1000.0,
        conflicts_open: open,
        counts: Counts::from(&done),
    });
    say!(
        out,
        "in step with {}: {} in {} at {} baud",
        watch.peer.as_deref().unwrap_or("nobody"),
        summary(&done),
        span(seconds.ceil() as u64),
        number(watch.baud.into())
    );
    left(&done, watch.peer.as_deref().unwrap_or("the other end"), db).iter().for_each(|line| out.line(line));
    elsewhere(&done.taken, db).iter().for_each(|line| out.line(line));
    conflicts_open(open, db).into_iter().for_each(|line| out.line(&line));
    say_left_out(context, &engine);
    Ok(())
}

/// Reads `--patience`: none for ever.
fn patience(args: &Args) -> Result<Option<Duration>, Failure> {
    let Some(text) = args.flag(&flags::PATIENCE)? else { return Ok(Some(Duration::from_secs(60))) };
    match text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s)) {
        Some(0.0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        None => Err(args.wrong(format!("--patience is a number of seconds, not `{text}`")).into()),
    }
}

/// What the session reports on its way.
struct Watch {
    bar: Bar,
    first: u32,
    baud: u32,
    peer: Option<String>,
    fingerprint: Option<String>,
}

impl Watch {
    fn new(options: &Options) -> Self {
        let bar = Bar::new(shown(&options.path));
        Self { bar, first: options.baud, baud: options.baud, peer: None, fingerprint: None }
    }

    fn show(&mut self, status: &Status<'_>) {
        match status {
            Status::Open => {
                self.bar.say(&format!("waiting for the other end at {} baud", number(self.first.into())));
            }
            Status::Away(e) => {
                self.bar.say(&format!("the port is not there ({}); waiting for it", io_text(e)));
            }
            Status::Met { id, name } => {
                let called = label(*id, Some(name));
                self.bar.say(&format!("connected to {called}"));
                (self.peer, self.fingerprint) = (Some(called), Some(id.to_string()));
            }
            Status::Baud(rate) => {
                self.baud = *rate;
                self.bar.say(&format!("the line runs at {} baud now", number((*rate).into())));
            }
            Status::Silent => self.bar.say("the other end is not heard; waiting"),
            Status::Heard => self.bar.say("the other end is heard again"),
            Status::Moving(progress) => draw(&mut self.bar, progress),
            Status::Failed(e) => self.bar.say(&format!("{e}; beginning again")),
            _ => {}
        }
    }
}

/// Draws how far a session is: what is to be sent and what is to come.
fn draw(bar: &mut Bar, progress: &Progress) {
    let out = (progress.sent.1 + progress.state_sent.0).saturating_sub(progress.under_way);
    let come = progress.received.1 + progress.coming + progress.state_received.0;
    let to_send = progress.to_send.1 + progress.state_to_send.0;
    let to_receive = progress.to_receive.1 + progress.state_to_receive.0;
    let total = to_send.max(out) + to_receive.max(come);
    let ways: Vec<String> = [(out, "out"), (come, "in")]
        .into_iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, way)| format!("{} {way}", size(bytes)))
        .collect();
    if !ways.is_empty() {
        bar.draw(out + come, total, &ways.join(", "), "waiting until both have committed it");
    }
}
