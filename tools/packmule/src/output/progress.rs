//! How far a long import or exchange is, for whoever watches.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::text::{safe, size, span};

/// One line on standard error, written over and over; nothing where nobody watches.
pub struct Meter {
    name: String,
    watched: bool,
    started: Instant,
    phase: Instant,
    heard: Instant,
    drawn: Option<Instant>,
    verifying: bool,
}

impl Meter {
    /// Makes a meter for what has this name.
    pub fn new(name: String) -> Self {
        let now = Instant::now();
        let watched = io::stderr().is_terminal();
        Self { name, watched, started: now, phase: now, heard: now, drawn: None, verifying: true }
    }

    /// Draws how far it is.
    pub fn show(&mut self, at: packmule::Progress) {
        if at.verifying != self.verifying {
            // The first report of a phase comes some way into it.
            (self.verifying, self.phase) = (at.verifying, self.heard);
        }
        self.heard = Instant::now();
        let recently = self.drawn.is_some_and(|drawn| drawn.elapsed() < Duration::from_millis(200));
        // What is done in a moment needs no meter.
        if !self.watched
            || recently
            || at.done == at.total
            || self.started.elapsed() < Duration::from_millis(700)
        {
            return;
        }
        self.drawn = Some(Instant::now());
        let seconds = self.phase.elapsed().as_secs_f64().max(0.001);
        let rate = at.done as f64 / seconds;
        let left = at.total.saturating_sub(at.done) as f64 / rate.max(1.0);
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{}: {} {} of {}, {}/s, {} left",
            safe(&self.name),
            if at.verifying { "checking" } else { "taking in" },
            size(at.done),
            size(at.total),
            size(rate as u64),
            span(left as u64)
        );
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The same for an exchange: a bar, the rate and the time that is left.
pub struct Bar {
    name: String,
    watched: bool,
    drawn: Option<Instant>,
    /// The rate of the last seconds, and where and when it was last looked at.
    rate: f64,
    looked: Option<(Instant, u64)>,
}

/// The bar's width, in letters.
const WIDTH: u64 = 20;

impl Bar {
    /// Makes a bar for the line with this name.
    pub fn new(name: String) -> Self {
        Self { name, watched: io::stderr().is_terminal(), drawn: None, rate: 0.0, looked: None }
    }

    /// Says something that lasts until the next thing.
    pub fn say(&mut self, what: &str) {
        if self.watched {
            self.drawn = Some(Instant::now());
            let _ = write!(io::stderr(), "\r\x1b[K{}: {what}", safe(&self.name));
        }
    }

    /// Draws it, a few times a second. Where all is done, `last` says what it waits for.
    pub fn draw(&mut self, done: u64, total: u64, more: &str, last: &str) {
        let now = Instant::now();
        let (looked, before) = *self.looked.get_or_insert((now, done));
        let seconds = now.duration_since(looked).as_secs_f64();
        if !self.watched || seconds < 0.25 {
            return;
        }
        let rate = done.saturating_sub(before) as f64 / seconds;
        self.rate = if self.rate == 0.0 { rate } else { 0.8 * self.rate + 0.2 * rate };
        self.looked = Some((now, done));
        self.drawn = Some(now);
        let full = (done * WIDTH).checked_div(total).unwrap_or(0).min(WIDTH) as usize;
        let percent = (done * 100).checked_div(total).unwrap_or(0).min(100);
        let left = total.saturating_sub(done) as f64 / self.rate.max(1.0);
        let how = if done >= total {
            last.to_owned()
        } else {
            format!("{}/s, {} left", size(self.rate as u64), span(left.ceil() as u64))
        };
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH as usize - full));
        // In one piece: a line that comes in pieces flickers.
        let line = format!("\r\x1b[K{}: [{bar}] {percent} %  {more}, {how}", safe(&self.name));
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Takes it off the screen.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
