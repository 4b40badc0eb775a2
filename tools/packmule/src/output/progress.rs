//! How far a long import or exchange is, for whoever watches.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::text::{beginning, end, safe, size, span, width};

/// Nobody wants to watch, whatever standard error is.
static UNWATCHED: AtomicBool = AtomicBool::new(false);

/// Lets all that shows progress stay silent.
pub fn nobody_watches() {
    UNWATCHED.store(true, Ordering::Relaxed);
}

fn is_watched() -> bool {
    io::stderr().is_terminal() && !UNWATCHED.load(Ordering::Relaxed)
}

/// Writes the line anew, in one piece: a line that comes in pieces flickers.
fn draw(name: &str, rest: &str) {
    let wide = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let line = fitted(&safe(name), rest, if wide == 0 { 80 } else { wide });
    let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
}

/// Puts a name and what is said of it on a line that a terminal of this width does not break: of a long name its end
/// is shown, which tells files apart.
fn fitted(name: &str, rest: &str, wide: usize) -> String {
    // The last column is where some terminals break already.
    let room = wide.saturating_sub(1);
    let of_name = room.saturating_sub(width(rest) + 2).max(room.min(8));
    let name = match width(name) > of_name {
        true => format!("…{}", end(name, of_name.saturating_sub(1))),
        false => name.to_owned(),
    };
    beginning(&format!("{name}: {rest}"), room).to_owned()
}

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
        Self {
            name,
            watched: is_watched(),
            started: now,
            phase: now,
            heard: now,
            drawn: None,
            verifying: true,
        }
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
        let doing = if at.verifying { "checking" } else { "taking in" };
        let of = format!("{} of {}", size(at.done), size(at.total));
        draw(&self.name, &format!("{doing} {of}, {}/s, {} left", size(rate as u64), span(left as u64)));
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
    /// What is said stays, each on a line of its own.
    stays: bool,
    drawn: Option<Instant>,
    /// The rate of the last seconds, and where and when it was last looked at.
    rate: f64,
    looked: Option<(Instant, u64)>,
}

/// The bar's width, in letters.
const WIDTH: u64 = 20;

impl Bar {
    /// Makes a bar for the line with this name; with `stays`, what is said of it stays on the screen.
    pub fn new(name: String, stays: bool) -> Self {
        Self { name, watched: is_watched(), stays, drawn: None, rate: 0.0, looked: None }
    }

    /// Says something that lasts until the next thing.
    pub fn say(&mut self, what: &str) {
        if self.stays {
            self.clear();
            let _ = writeln!(io::stderr(), "{}: {}", safe(&self.name), safe(what));
        } else if self.watched {
            self.drawn = Some(Instant::now());
            draw(&self.name, what);
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
        draw(&self.name, &format!("[{bar}] {percent} %  {more}, {how}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        let rest = "[####----------------] 20 %  1.2 MiB out, 34 KiB in, 11 KiB/s, 3 min left";
        for name in [
            "a",
            "/media/somebody/KINGSTON/PACKMULE/7F3A9C01.PMB",
            "温度.pmb",
            "山の小屋の温度と湿度と気圧の記録.pmb",
        ] {
            for wide in 0..200 {
                let line = fitted(name, rest, wide);
                assert!(width(&line) < wide.max(1), "{wide}: {line}");
            }
        }
        assert_eq!(fitted("/media/card/PACKMULE/1.PMB", "12 KiB/s", 26), "…PACKMULE/1.PMB: 12 KiB/s");
        assert_eq!(fitted("1.PMB", "12 KiB/s", 80), "1.PMB: 12 KiB/s");
    }
}
