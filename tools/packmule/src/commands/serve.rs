//! Serves devices on serial lines and a network until stopped: serve.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use packmule::Engine;
use packmule::carry::Stop;
use packmule::carry::serial::{self, Options, Status};

use super::changes::{Change, Heard, News, Place, print_changes};
use super::line::{failure_text, line_options, refuse_rates, stop_on_signals};
use super::{Context, network, open};
use crate::output::{Failure, Out, say};
use crate::text::{now, number, shown, time};
use crate::usage::{Args, flags};

/// `packmule serve`.
pub fn serve(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    if context.args.has(&flags::STDIO) {
        return network::serve_stdio(context);
    }
    let db = context.args.path(0);
    let ports = ports(&context.args)?;
    if ports.is_empty() {
        refuse_rates(&context.args)?;
    }
    let lines = ports
        .iter()
        .map(|port| Ok((line_options(context, port)?, open(context)?)))
        .collect::<Result<Vec<(Options, Engine)>, Failure>>()?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let port = network::Port::of(context, &stop)?;
    let out = &mut *context.out;
    // What stands on another line is another entry of the journal.
    out.whole_lines = !std::io::stdout().is_terminal();
    lines.iter().for_each(|(options, _)| print_rate(options, out));
    out.flush();
    let (send, changes) = channel::<Change>();
    std::thread::scope(|scope| {
        for (options, mut engine) in lines {
            let (send, stop) = (send.clone(), stop.clone());
            scope.spawn(move || {
                let (port, first) = (shown(&options.path), options.baud);
                let mut line = Served { db, port, send, first, heard: Heard::default() };
                let result = serial::serve(&mut engine, &options, &stop, &mut |status| line.report(&status));
                if let Err(e) = result {
                    line.tell(line.heard.failed(failure_text(db, &e)));
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
    let clear = if options.plain { ", without encryption" } else { "" };
    say!(out, "{}  {}: at {} baud{up}{clear}", time(now()), shown(&options.path), baud(options.baud));
}

/// A line that is served.
struct Served<'a> {
    db: &'a Path,
    port: String,
    send: Sender<Change>,
    /// The rate at which the line begins.
    first: u32,
    heard: Heard,
}

impl Served<'_> {
    fn report(&mut self, status: &Status<'_>) {
        match status {
            // Back at the first rate because the device has gone: no news.
            Status::Baud(rate) if *rate == self.first && self.heard.peer.is_none() => {}
            status => {
                let news = self.heard.on_line(status, self.db);
                news.into_iter().for_each(|news| self.tell(news));
            }
        }
    }

    fn tell(&self, news: News) {
        // Nobody listens when the program ends.
        let _ = self.send.send(Change::now(Place::Serial, self.port.clone(), news));
    }
}
