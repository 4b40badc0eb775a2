//! Serves devices on serial lines and a network until stopped: serve.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use packmule::carry::Stop;
use packmule::carry::serial::{self, Options, Status};
use packmule::carry::session::Progress;
use packmule::{Engine, label};

use super::changes::{Change, More, Place, in_step, print_changes};
use super::line::{failure_text, line_options, stop_on_signals};
use super::{Context, network, open};
use crate::output::{Failure, Out, say};
use crate::text::{io_text, iso, now, number, shown, time};
use crate::usage::{Args, flags};

/// `packmule serve`.
pub fn serve(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    if context.args.has(&flags::STDIO) {
        return network::serve_stdio(context);
    }
    let db = context.args.path(0);
    let lines = ports(&context.args)?
        .iter()
        .map(|port| Ok((line_options(context, port)?, open(context)?)))
        .collect::<Result<Vec<(Options, Engine)>, Failure>>()?;
    let port = network::Port::of(context)?;
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
        if let Some(port) = &port {
            let (send, stop) = (send.clone(), stop.clone());
            scope.spawn(move || port.serve(db, send, &stop));
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
    let named = args.has(&flags::SERIAL_PORTS);
    if !named && (!ports.is_empty() || !args.has(&flags::LISTEN)) {
        return Err(args.wrong("--serial is missing: it names the ports; or --listen, for a network").into());
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
            Status::InStep(progress) => {
                let (text, carried) = in_step(&mut self.before, progress, &peer, self.db);
                self.change("in step", text, carried);
            }
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

    fn change(&self, event: &'static str, text: String, more: More) {
        let (at, port, peer) = (iso(now()), self.port.clone(), self.peer.clone());
        // Nobody listens when the program ends.
        let _ = self.send.send(Change { at, port, place: Place::Serial, event, peer, text, more });
    }
}
