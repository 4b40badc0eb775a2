//! Sessions over a network, or over the pipes of another program: `sync` and `serve`.

use std::io::{self, stdin, stdout};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::Sender;
use std::time::Instant;

use packmule::carry::Stop;
use packmule::carry::net::{self, Address, Error, Found, Host, Listening, Options, PORT, Serving, Status};
use packmule::carry::serial::Error as LineError;
use packmule::{Engine, label};

use super::changes::{Change, Heard, News, Place};
use super::line::{
    Over, draw, failure as line_failure, patience, refuse_rates, say_synced, session_text, stop_on_signals,
};
use super::web::Answers;
use super::{Context, Given, open};
use crate::output::{Bar, Failure, code};
use crate::text::hint;
use crate::usage::{Args, flags};

/// `packmule sync DB ADDRESS`.
pub fn sync(context: &mut Context<'_, '_>, address: &str) -> Result<(), Failure> {
    let args = &context.args;
    refuse_rates(args)?;
    let address: Address = address.parse().map_err(|e: net::NoAddress| args.wrong(e.to_string()))?;
    let options = Options { plain: args.has(&flags::PLAIN), patience: patience(args)? };
    let db = args.path(0);
    let mut engine = open(context)?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let begun = Instant::now();
    let name = address.to_string();
    let mut bar = Bar::new(name.clone(), context.out.verbose);
    let (mut peer, mut fingerprint) = (None, None);
    let result = net::sync(&mut engine, &address, &options, &stop, &mut |status| match status {
        Status::Met { id, name } => {
            let called = label(id, Some(name));
            bar.say(&format!("connected to {called}"));
            (peer, fingerprint) = (Some(called), Some(id.to_string()));
        }
        Status::Moving(progress) => draw(&mut bar, progress),
        Status::Failed(e) => bar.say(&format!("{e}; beginning again")),
        _ => {}
    });
    bar.clear();
    let done = result.map_err(|e| failure(&name, db, e))?;
    say_synced(context, &mut engine, (&done, begun), Over::Network(name), (peer, fingerprint))
}

/// `packmule serve DB --stdio`: standard output is the stream, so it prints nothing.
pub fn serve_stdio(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let others = [&flags::SERIAL_PORTS, &flags::LISTEN, &flags::ANNOUNCE, &flags::METRICS_FROM];
    if args.len() > 1 || others.into_iter().any(|flag| args.has(flag)) {
        return Err(args.wrong("--stdio stands alone: no --serial, no --listen").into());
    }
    refuse_rates(args)?;
    let options = Options { plain: args.has(&flags::PLAIN), patience: None };
    let mut engine = open(context)?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let pipes = || Ok((stdin().as_fd().try_clone_to_owned()?, stdout().as_fd().try_clone_to_owned()?));
    let pipes = pipes().map_err(|e: io::Error| Failure::plain(format!("standard input and output: {e}")))?;
    let result = net::serve_pipes(&mut engine, pipes, &options, &stop, &mut |_| ());
    result.map(|_| ()).map_err(|e| failure("--stdio", args.path(0), e))
}

/// Makes a failure of a connection's error.
fn failure(name: &str, db: &Path, error: Error) -> Failure {
    match error {
        Error::Session(e) => line_failure(Path::new(name), db, LineError::Session(e)),
        other => {
            let words = other.to_string() + &hint(other.hint(), db);
            let code = if matches!(other, Error::Busy) { code::BUSY } else { code::CONNECTION };
            Failure::of(Path::new(name), words).coded(code)
        }
    }
}

/// A port that `serve` listens on.
pub struct Port {
    listening: Listening,
    address: SocketAddr,
    given: Given,
    options: Options,
    metrics_for_all: bool,
    /// What it says to who asks on this network.
    announces: Option<Found>,
}

impl Port {
    /// Opens the one of `--listen`, if that is given.
    pub fn of(context: &Context<'_, '_>, stop: &Stop) -> Result<Option<Self>, Failure> {
        let args = &context.args;
        let Some(text) = args.flag(&flags::LISTEN)? else {
            return match [&flags::ANNOUNCE, &flags::METRICS_FROM].into_iter().find(|flag| args.has(flag)) {
                Some(flag) => {
                    Err(args.wrong(format!("--{} is about --listen, and needs it", flag.name)).into())
                }
                None => Ok(None),
            };
        };
        let failed = |e: Error| Failure::of(Path::new(text), e.to_string()).coded(code::CONNECTION);
        let listening = Listening::on(address(args, text, stop)?).map_err(failed)?;
        let address = listening.address().map_err(failed)?;
        let options = Options { plain: args.has(&flags::PLAIN), patience: None };
        // What is wrong with the database is said at once.
        let engine = open(context)?;
        let announces = args.has(&flags::ANNOUNCE).then(|| Found::of(&engine));
        let metrics_for_all = args.flag(&flags::METRICS_FROM)? == Some("any");
        Ok(Some(Self { listening, address, given: Given::of(context)?, options, metrics_for_all, announces }))
    }

    /// Serves whoever comes, until it is stopped.
    pub fn serve(&self, db: &Path, send: Sender<Change>, stop: &Stop) {
        let open = || Engine::open_with(db, self.given.options());
        let reports = Reports { db, send: Mutex::new(send), known: Mutex::new(Vec::new()) };
        let listening = if self.options.plain { "listening, without encryption" } else { "listening" };
        let unheard = match self.announces.is_some() && self.address.ip().is_loopback() {
            true => {
                "; only this machine reaches it, so that nobody else finds it: --listen [::]:7225 is for all"
            }
            false => "",
        };
        reports.tell(&self.address, News::of("listening", None, listening.to_owned() + unheard));
        let tell = |from: SocketAddr, event, text| reports.tell(&from.ip(), News::of(event, None, text));
        let web = Answers { db, given: self.given, for_all: self.metrics_for_all, tell: &tell };
        let report = |from: SocketAddr, status: &Status<'_>| reports.report(from, status);
        let serving = Serving { open: &open, options: &self.options, report: &report, web: Some(&web) };
        let failed = |e: Error| reports.tell(&self.address, News::of("failed", None, e.to_string()));
        std::thread::scope(|scope| {
            if let Some(me) = &self.announces {
                scope.spawn(|| net::announce(me, self.address, PORT, stop).map_err(failed));
            }
            if let Err(e) = net::serve(&self.listening, serving, stop) {
                failed(e);
                // What is not served is not announced.
                stop.stop();
            }
        });
    }
}

/// Reads the address of `--listen`: a port alone is one for programs on this machine.
fn address(args: &Args, text: &str, stop: &Stop) -> Result<SocketAddr, Failure> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, net::PORT).into());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong =
        || args.wrong(format!("--listen is an address and a port, such as 0.0.0.0:7225, not `{text}`"));
    let host = text.rsplit_once(':').filter(|(name, _)| !name.contains(':'));
    let host = host.and_then(|(name, port)| Some(Host { name: name.to_owned(), port: port.parse().ok()? }));
    match net::addresses(&host.ok_or_else(wrong)?, None, stop) {
        Ok(found) => Ok(*found.first().ok_or_else(wrong)?),
        Err(e) => Err(Failure::of(Path::new(text), e.to_string()).coded(code::CONNECTION)),
    }
}

/// What connections report, by their addresses.
struct Reports<'a> {
    db: &'a Path,
    send: Mutex<Sender<Change>>,
    known: Mutex<Vec<(SocketAddr, Heard)>>,
}

impl Reports<'_> {
    fn report(&self, from: SocketAddr, status: &Status<'_>) {
        let Ok(mut known) = self.known.lock() else { return };
        let at = known.iter().position(|(other, _)| *other == from).unwrap_or_else(|| {
            known.push((from, Heard::default()));
            known.len() - 1
        });
        let heard = &mut known[at].1;
        let news = match status {
            Status::Met { id, name } => heard.met(*id, name),
            Status::InStep(progress) => heard.in_step(progress, self.db),
            Status::Ended => heard.says("ended", "has gone"),
            Status::Failed(Error::Session(e)) => heard.failed(session_text(self.db, e)),
            Status::Failed(e) => heard.failed(e.to_string()),
            Status::Moving(_) => return,
        };
        if matches!(status, Status::Ended | Status::Failed(_)) {
            known.remove(at);
        }
        self.tell(&from.ip(), news);
    }

    fn tell(&self, place: &impl ToString, news: News) {
        if let Ok(send) = self.send.lock() {
            // Nobody listens when the program ends.
            let _ = send.send(Change::now(Place::Address, place.to_string(), news));
        }
    }
}
