//! What `sync` and `serve` share.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use packmule::carry::Stop;
use packmule::carry::serial::{Error as LineError, Flow, Options};
use packmule::carry::session::{Error as SessionError, Progress};
use packmule::{Engine, Error};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::decide::decide_by_programs;
use super::{Context, of_db, options, profile, say_left_out};
use crate::documents::{Counts, Synced};
use crate::output::{Bar, Failure, code, engine_text, say};
use crate::text::{
    behind, conflicts_open, count, elsewhere, hint, io_text, number, quoted, shown, size, span, waiting,
};
use crate::usage::{Args, Flag, UsageError, flags};

/// Makes the options of a line, as the flags and the board's profile say.
pub fn line_options(context: &Context<'_, '_>, port: &Path) -> Result<Options, Failure> {
    let args = &context.args;
    let rate = |flag: &Flag| -> Result<Option<u32>, Failure> {
        let Some(text) = args.flag(flag)? else { return Ok(None) };
        let rate = text.replace(['_', ','], "").parse().ok().filter(|rate| (300..=20_000_000).contains(rate));
        let wrong = || args.wrong(format!("--{} is a number from 300 to 20000000, not `{text}`", flag.name));
        Ok(Some(rate.ok_or_else(wrong)?))
    };
    let board = profile(context)?;
    let baud = rate(&flags::BAUD)?.unwrap_or(board.uart.baud);
    let baud_max = match rate(&flags::BAUD_MAX)? {
        Some(most) if most < baud => {
            let wrong = format!("--baud-max is {most}, which is below the {baud} at which the line begins");
            return Err(args.wrong(wrong).into());
        }
        Some(most) => most,
        None => board.uart.baud_max.max(baud),
    };
    let flow = if args.flag(&flags::FLOW)? == Some("hardware") { Flow::Hardware } else { Flow::None };
    // Wrong usage is found before the port is opened.
    options(context)?;
    let plain = args.has(&flags::PLAIN);
    Ok(Options { path: port.into(), baud, baud_max, flow, plain, patience: None })
}

/// Says why a port cannot be used at the moment.
pub fn away(e: &io::Error) -> String {
    let why = match e.kind() {
        io::ErrorKind::NotFound => "the port is not there".to_owned(),
        io::ErrorKind::PermissionDenied => {
            let join = hint(Some(packmule::Hint::JoinThePortsGroup), Path::new(""));
            format!("this user may not use the port{join}")
        }
        io::ErrorKind::ResourceBusy => "another program has the port open".to_owned(),
        _ => format!("the port cannot be used ({})", io_text(e)),
    };
    format!("{why}; waiting for it")
}

/// Refuses what says something of a serial line where there is none.
pub fn refuse_rates(args: &Args) -> Result<(), UsageError> {
    let of_lines = [&flags::BAUD, &flags::BAUD_MAX, &flags::FLOW];
    match of_lines.into_iter().find(|flag| args.has(flag)) {
        Some(flag) => Err(args.wrong(format!("--{} is for a serial line, and none is given", flag.name))),
        None => Ok(()),
    }
}

/// Makes a signal end the exchange in good order, and a second one the program.
pub fn stop_on_signals(stop: &Stop) -> Result<(), Failure> {
    let failed =
        |e: io::Error| Failure::plain(format!("could not wait for signals: {e}")).coded(Error::io_code(&e));
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

/// Makes a failure of a line's error.
pub fn failure(port: &Path, db: &Path, error: LineError) -> Failure {
    match error {
        LineError::Session(SessionError::UntrustedDevice(device)) => {
            let message =
                failure_text(db, &LineError::Session(SessionError::UntrustedDevice(device.clone())));
            Failure::refused(Some(shown(port)), message, code::UNTRUSTED, vec![device])
        }
        LineError::Session(SessionError::Engine(Error::AsksForAdmission { devices, base })) => {
            let asks = Error::AsksForAdmission { devices: devices.clone(), base };
            let code = asks.code();
            let message = failure_text(db, &LineError::Session(SessionError::Engine(asks)));
            Failure::refused(Some(shown(port)), message, code, devices)
        }
        LineError::Session(SessionError::Engine(e)) if !is_of_peer(&e) => Failure::engine(db, db, e),
        other => {
            let code = match &other {
                LineError::Session(SessionError::Engine(e)) => e.code(),
                LineError::Session(SessionError::Refused { .. }) => code::PEER_REFUSED,
                _ => code::CONNECTION,
            };
            Failure::of(port, failure_text(db, &other)).coded(code)
        }
    }
}

/// Returns whether an error is about what the other end sent.
fn is_of_peer(error: &Error) -> bool {
    use Error::{AsksForAdmission, Bundle, Twin, Untrusted};
    matches!(error, Bundle { .. } | Untrusted(_) | AsksForAdmission { .. } | Twin { .. })
}

/// Returns the words of a line's error, with the database's name in what they say to run.
pub fn failure_text(db: &Path, error: &LineError) -> String {
    match error {
        LineError::Session(e) => session_text(db, e),
        other => other.to_string() + &hint(other.hint(), db),
    }
}

/// Returns the words of a session's error.
pub fn session_text(db: &Path, error: &SessionError) -> String {
    match error {
        SessionError::Engine(e) if !is_of_peer(e) => engine_text(db, db, e),
        other => other.to_string() + &hint(other.hint(), db),
    }
}

/// Summarises what a session has carried.
pub fn summary(done: &Progress) -> String {
    let mut parts = Vec::new();
    let frames = |(frames, bytes): (u64, u64)| format!("{} ({})", count(frames, "frame"), size(bytes));
    let state = |bytes: u64, rows: u64| format!("a state of {} ({})", count(rows, "row"), size(bytes));
    if done.state_sent.0 > 0 {
        parts.push(format!("sent {}", state(done.state_sent.0, done.state_to_send.1)));
    }
    if done.state_received.0 > 0 {
        parts.push(format!("received {}", state(done.state_received.0, done.state_to_receive.1)));
    }
    if done.sent.0 > 0 {
        parts.push(format!("sent {}", frames(done.sent)));
    }
    if done.received.0 > 0 {
        parts.push(format!("received {}", frames(done.received)));
    }
    if done.received.0 > 0 || done.state_received.0 > 0 {
        parts.push(format!("{} applied", count(done.taken.ops, "row")));
    }
    if done.taken.conflicts_opened > 0 {
        parts.push(format!("{} opened", count(done.taken.conflicts_opened, "conflict")));
    }
    if parts.is_empty() { "nothing new on either side".into() } else { parts.join("; ") }
}

/// Says what could not be carried.
pub fn left(done: &Progress, peer: &str, db: &Path) -> Vec<String> {
    let behind = done.peer_needs_snapshot.then(|| behind(peer, db));
    let waits = done.taken.waits.iter().map(waiting);
    behind.into_iter().chain(lacking(done, peer, db)).chain(waits).collect()
}

/// Says what this device lacks of what is compacted away at the other end, and why, if it lacks anything.
fn lacking(done: &Progress, peer: &str, db: &Path) -> Option<String> {
    match &done.taken.state_refused {
        Some(why) => Some(format!(
            "the state of {peer} was not taken in, and nothing of it is here: {why}; once that is mended, the next \
             session takes it in"
        )),
        None => done.needs_snapshot.then(|| needs_snapshot(peer, db)),
    }
}

/// Says what to do here, where this device lacks frames that are compacted away at the other end.
fn needs_snapshot(peer: &str, db: &Path) -> String {
    format!(
        "this device lacks frames that are compacted away on {peer}: a card or a file brings it the state of the tables; \
         run `packmule exchange {} DIRECTORY` here, then there, then here",
        quoted(db)
    )
}

/// What a session has run over.
pub enum Over {
    /// A serial port, and the rate at the end.
    Line(String, u32),
    /// An address.
    #[cfg_attr(not(feature = "net"), expect(dead_code, reason = "only networks have addresses"))]
    Network(String),
}

/// Prints what a session has done that began then, with the other end's name and fingerprint.
pub fn say_synced(
    context: &mut Context<'_, '_>,
    engine: &mut Engine,
    (done, begun): (&Progress, Instant),
    over: Over,
    (peer, fingerprint): (Option<String>, Option<String>),
) -> Result<(), Failure> {
    let db = context.args.path(0);
    let seconds = begun.elapsed().as_secs_f64();
    let open = engine.open_conflicts().map_err(of_db(db))?;
    let (serial, baud, address) = match over {
        Over::Line(port, baud) => (Some(port), Some(baud), None),
        Over::Network(address) => (None, None, Some(address)),
    };
    let end = Synced {
        serial,
        baud,
        address,
        peer,
        fingerprint,
        seconds: (seconds * 1000.0).round() / 1000.0,
        conflicts_open: open,
        counts: Counts::from(done),
    };
    let out = &mut *context.out;
    out.document(&end);
    let rate = end.baud.map_or(String::new(), |baud| format!(" at {} baud", number(baud.into())));
    let peer = end.peer.as_deref();
    let with = peer.unwrap_or("nobody");
    say!(out, "in step with {with}: {} in {}{rate}", summary(done), span(seconds.ceil() as u64));
    left(done, peer.unwrap_or("the other end"), db).iter().for_each(|line| out.line(line));
    elsewhere(&done.taken, db).iter().for_each(|line| out.line(line));
    conflicts_open(open, db).into_iter().for_each(|line| out.line(&line));
    decide_by_programs(context, engine);
    say_left_out(context, engine);
    Ok(())
}

/// Reads `--patience`: none for ever.
pub fn patience(args: &Args) -> Result<Option<Duration>, Failure> {
    let Some(text) = args.flag(&flags::PATIENCE)? else { return Ok(Some(Duration::from_secs(60))) };
    match text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s)) {
        Some(0.0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        None => Err(args.wrong(format!("--patience is a number of seconds, not `{text}`")).into()),
    }
}

/// Draws how far a session is: what is to be sent and what is to come.
pub fn draw(bar: &mut Bar, progress: &Progress) {
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
