//! Keeps links up in the background, and does upkeep: run.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | the command; what it prints and writes down while links work |
//! | `links` | one link, or one chore, on a thread of its own |
//! | `check` | `--check`: what the file says |
//! | `decide` | the programs that decide about conflicts |
//! | `notify` | what systemd is told |
//! | `watchdog` | whether every thread gets on |

mod check;
mod decide;
mod links;
mod notify;
mod watchdog;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use packmule::Engine;
use packmule::carry::keep::{Pace, Runner, SystemClock, Work};
use packmule::carry::{Life, Stop, serial};
use rustix::termios::isatty;

use super::changes::{Change, More, News, Place, Printer};
use super::line::{line_options, stop_on_signals};
use super::{Context, open};
use crate::documents::{LinkState, RunState};
use crate::files::config::{self, Config, Link, UPKEEP_DELAY, Upkeep, Way};
use crate::files::run_state::StateFile;
use crate::output::{Failure, Out};
use crate::text::{count, iso, now, shown};
use crate::usage::flags;
use check::age;
use links::{Due, Linked, Said, Tell, Trouble};
use notify::Notify;
use watchdog::{Stuck, Watchdog, Watched};

/// A link's thread: SQLite and the merge take some 100 KiB.
const STACK: usize = 1 << 20;
/// How often the file of its state is written where only counts have changed.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How soon it is written where a state has changed.
const WRITE_SOON: Duration = Duration::from_millis(500);

/// `packmule run`.
pub fn run(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let file = context.args.flag_path(&flags::CONFIG).unwrap_or(Path::new(config::PATH)).to_owned();
    let mut config = Config::read(&file)?;
    let lines = config.links.iter().map(|link| line_of(context, link)).collect::<Result<Vec<_>, _>>()?;
    // What is wrong with the database is said at once.
    let mut engines = vec![open(context)?];
    let db = context.args.path(0).to_owned();
    decide::add_chore(&mut config, &db);
    if context.args.has(&flags::RUN_CHECK) {
        check::refuse_chores(&mut engines[0], &db, &file, &config)?;
        check::print(context, &file, &config, &lines);
        return Ok(());
    }
    let state = StateFile::begin(&db)?;
    while engines.len() < config.links.len() + config.upkeep.len() {
        engines.push(open(context)?);
    }
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let (send, said) = channel();
    let (watchdog, threads) = Watchdog::new(&stop, &config);
    let mut kept = Kept::new(&file, &config, (state, watchdog), context.out);
    std::thread::scope(|scope| {
        begin(scope, (&db, &config, lines), engines, &send, (&stop, &threads))?;
        drop(send);
        kept.watch(&said, &stop);
        Ok::<(), Failure>(())
    })?;
    kept.finish();
    Ok(())
}

/// Begins all links and all upkeep.
fn begin<'scope>(
    scope: &'scope Scope<'scope, '_>,
    (db, config, lines): (&'scope Path, &'scope Config, Vec<Option<serial::Options>>),
    engines: Vec<Engine>,
    send: &Sender<Said>,
    (stop, threads): (&'scope Stop, &'scope [Arc<Watched>]),
) -> Result<(), Failure> {
    let mut engines = engines.into_iter();
    let tell = |link, name: String, stays| Tell { db, link, name, send: send.clone(), stays };
    for (n, ((link, line), engine)) in config.links.iter().zip(lines).zip(&mut engines).enumerate() {
        let tell = tell(n, link.name.clone(), link.pace.interval.is_none());
        let linked = Linked { link, line, stop: &threads[n].stop, tell: tell.clone() };
        let away = linked.away();
        spawn(scope, (stop, &threads[n]), (link.pace, engine), linked, tell, away)?;
    }
    for (n, (upkeep, engine)) in config.upkeep.iter().zip(engines).enumerate() {
        let place = config.links.len() + n;
        let tell = tell(place, check::what(&upkeep.what), false);
        let due = Due { what: &upkeep.what, stop: &threads[place].stop, tell: tell.clone() };
        let delay = UPKEEP_DELAY.min(upkeep.every);
        let pace = Pace { changes: None, delay, ..Pace::every(upkeep.every) };
        spawn(scope, (stop, &threads[place]), (pace, engine), due, tell, String::new())?;
    }
    Ok(())
}

/// Gives work a thread. One that panics ends the program: no link is lost without a word.
fn spawn<'scope, W: Work<Error = Trouble> + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    (all, thread): (&Stop, &'scope Watched),
    (pace, mut engine): (Pace, Engine),
    mut work: W,
    tell: Tell<'scope>,
    away: String,
) -> Result<(), Failure> {
    let shown = thread.life.clone();
    engine.shows_life(move || shown.show()).map_err(|e| Failure::engine(tell.db, tell.db, e))?;
    let runs = move || {
        let clock = SystemClock::new(&thread.stop);
        let mut runner = Runner::new(pace, &*clock, &thread.stop);
        runner.keep_up(&mut engine, &mut work, &mut |change| tell.change(&change, &away));
        thread.done();
    };
    let begun = Builder::new().stack_size(STACK).spawn_scoped(scope, runs);
    begun.map(|_| ()).map_err(|e| {
        all.stop();
        Failure::plain(format!("could not begin a thread: {e}"))
    })
}

/// Makes the options of a serial line, as the file, the flags and the board's profile say.
fn line_of(context: &Context<'_, '_>, link: &Link) -> Result<Option<serial::Options>, Failure> {
    let Way::Line { port, baud, baud_max, flow, plain } = &link.way else { return Ok(None) };
    let usual = line_options(context, port)?;
    let baud = baud.unwrap_or(usual.baud);
    let baud_max = baud_max.unwrap_or(usual.baud_max.max(baud));
    let (flow, plain, patience) = (*flow, *plain, link.patience);
    Ok(Some(serial::Options { baud, baud_max, flow, plain, patience, ..usual }))
}

/// What is kept up, as it is printed and written down.
struct Kept<'a, 'w> {
    out: &'a mut Out<'w>,
    printer: Printer,
    notify: Notify,
    watchdog: Watchdog,
    file: StateFile,
    state: RunState,
    /// It is to be written then.
    due: Option<Instant>,
}

impl<'a, 'w> Kept<'a, 'w> {
    fn new(
        path: &Path,
        config: &Config,
        (file, watchdog): (StateFile, Watchdog),
        out: &'a mut Out<'w>,
    ) -> Self {
        let since = iso(now());
        let names = config.links.iter().map(|link| link.name.clone());
        let upkeep = config.upkeep.iter().map(|Upkeep { what, .. }| check::what(what));
        let link =
            |link| LinkState { link, state: "begins".into(), since: since.clone(), ..LinkState::default() };
        let links = names.chain(upkeep).map(link).collect();
        let (running, pid, config) = (true, std::process::id(), shown(path));
        let state = RunState { running, pid, config, since: since.clone(), links };
        let printer = Printer::journal(!isatty(std::io::stdout()));
        // What stands on another line is another entry of the journal, without a priority.
        out.whole_lines = !isatty(std::io::stdout());
        let notify = Notify::of_environment();
        Self { out, printer, notify, watchdog, file, state, due: None }
    }

    /// Prints, writes down and tells what links say, until every one has ended.
    fn watch(&mut self, said: &Receiver<Said>, stop: &Stop) {
        self.write();
        self.notify.ready();
        let mut alive = Instant::now();
        loop {
            self.notify.status(&self.summary());
            let beat = self.notify.watchdog.map(|every| every.saturating_sub(alive.elapsed()));
            let write = self.due.map(|due| due.saturating_duration_since(Instant::now()));
            let wait = beat.into_iter().chain(write).fold(self.watchdog.every(), Duration::min);
            match said.recv_timeout(wait) {
                Ok(said) => self.take(&said),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.notify.stopping(),
            }
            self.look_at_life();
            if self.notify.watchdog.is_some_and(|every| alive.elapsed() >= every) {
                // Of a program one of whose threads hangs systemd is to hear no more: it begins it anew.
                if self.watchdog.all_get_on() {
                    self.notify.alive();
                }
                alive = Instant::now();
            }
            if self.due.is_some_and(|due| due <= Instant::now()) {
                self.write();
            }
            if self.out.closed() {
                stop.stop();
            }
            if stop.stopped() {
                self.leave_behind();
            }
        }
    }

    /// Ends the program, where nothing is left but threads that hang: nothing else ends those. To the database it is a power
    /// cut.
    fn leave_behind(&mut self) {
        let left = self.watchdog.left_behind(Life::still);
        if left.is_empty() {
            return;
        }
        let names: Vec<&str> = left.iter().map(|n| self.state.links[*n].link.as_str()).collect();
        let hangs = if names.len() == 1 { "hangs, and was" } else { "hang, and were" };
        self.printer.say(&format!("ended; {} {hangs} not waited for", names.join(", ")), self.out);
        self.out.flush();
        self.notify.stopping();
        self.file.finish();
        std::process::exit(1);
    }

    /// Says which threads hang since it was looked last, and which get on again.
    fn look_at_life(&mut self) {
        for (link, stuck) in self.watchdog.look(Life::still) {
            let news = match stuck {
                Stuck::Hangs(time) => {
                    let next = match self.notify.watchdog {
                        Some(_) => "systemd begins `packmule run` anew if it lasts",
                        None => "if it lasts, end `packmule run` and begin it again",
                    };
                    let why = format!("the system or another program has not let it go on for {}", age(time));
                    News::of("stuck", None, format!("{why}; {next}"))
                }
                Stuck::GoesOn => News::of("goes on", None, "goes on".into()),
            };
            let name = self.state.links[link].link.clone();
            self.take(&Said { link, change: Change::now(Place::Link, name, news), quiet: false, next: None });
        }
    }

    /// Takes what a link says.
    fn take(&mut self, said: &Said) {
        if !said.quiet {
            self.printer.print(&said.change, self.out);
        }
        let Some(link) = self.state.links.get_mut(said.link) else { return };
        let change = &said.change;
        let before = link.state.clone();
        match change.event {
            // How it stood last still holds.
            "rests" | "begins" => {}
            event => {
                if ["silent", "stuck"].contains(&event) {
                    link.before.clone_from(&link.state);
                }
                // Nothing else tells how who is heard again, or goes on, stands: nothing was lost.
                let state = match event {
                    "heard" | "goes on" => link.before.clone(),
                    event => event.to_owned(),
                };
                if link.state != state {
                    link.since.clone_from(&change.at);
                }
                link.state = state;
                link.text.clone_from(&change.text);
            }
        }
        link.peer = change.peer.clone().or(link.peer.take());
        match change.event {
            "in step" | "done" => {
                link.in_step = Some(change.at.clone());
                link.failures = 0;
            }
            "failed" => link.failures += 1,
            _ => {}
        }
        let at =
            |next: Duration| iso(now().saturating_add(i64::try_from(next.as_millis()).unwrap_or(i64::MAX)));
        link.next = said.next.map(at);
        if let More::Carried(news) = &change.more {
            link.frames_sent += news.sent.0;
            link.bytes_sent += news.sent.1;
            link.frames_received += news.received.0;
            link.bytes_received += news.received.1;
        }
        let soon = if link.state == before { WRITE_EVERY } else { WRITE_SOON };
        let due = Instant::now() + soon;
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }

    fn write(&mut self) {
        self.due = None;
        let _ = self.file.write(&self.state);
    }

    /// Says in one line how all stand.
    fn summary(&self) -> String {
        let links = &self.state.links;
        let bad = links.iter().find(|link| ["failed", "stuck"].contains(&link.state.as_str()));
        let well = links.iter().filter(|link| ["in step", "done"].contains(&link.state.as_str())).count();
        let well = format!("{well} of {} in step", count(links.len() as u64, "link"));
        match bad {
            Some(bad) => {
                let text = bad.text.lines().next().unwrap_or_default();
                format!("{well}; {}: {text}", bad.link)
            }
            None => well,
        }
    }

    fn finish(self) {
        self.file.finish();
        self.printer.say("ended", self.out);
    }
}
