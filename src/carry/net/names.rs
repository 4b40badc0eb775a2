//! Which addresses a name has. The system is asked in a thread of its own: it cannot be made to end, and where no name
//! server answers it may take for ever. Whoever has waited long enough leaves that thread behind.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::address::Host;
use super::stream::LOOK;
use crate::carry::stop::Stop;

/// So many names are asked for at once, also by threads that were left behind.
const ASKED_MAX: usize = 8;
/// How long it is waited where nobody says how long.
const TIME: Duration = Duration::from_secs(30);
/// A thread that asks: what the system does there is not known, so it has some room.
const STACK: usize = 1 << 19;

/// The system's names.
static NAMES: Names = Names::asked_by(|name| {
    let found = (name, 0).to_socket_addrs().map_err(|e| (e.kind(), e.to_string()))?;
    // Whole: a link's address is one of an interface, which stands beside it.
    Ok(found.collect())
});

/// What the system says of a name.
type Answer = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// The names that are being asked for.
struct Names {
    ask: fn(&str) -> Answer,
    asked: Mutex<Vec<Arc<Question>>>,
}

/// A name that is being asked for: once, however many wait.
struct Question {
    name: String,
    answer: Mutex<Option<Answer>>,
    answered: Condvar,
}

/// Returns the addresses of a host, as soon as the system tells them.
///
/// # Errors
/// The system knows none; or it has told nothing as long as patience lasts (30 s, if it is `None`), or until somebody
/// stopped it.
pub fn addresses(host: &Host, patience: Option<Duration>, stop: &Stop) -> io::Result<Vec<SocketAddr>> {
    let mut found = NAMES.told(&host.name, patience.unwrap_or(TIME), stop)?;
    found.iter_mut().for_each(|address| address.set_port(host.port));
    Ok(found)
}

impl Names {
    const fn asked_by(ask: fn(&str) -> Answer) -> Self {
        Self { ask, asked: Mutex::new(Vec::new()) }
    }

    fn told(&'static self, name: &str, time: Duration, stop: &Stop) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![(address, 0).into()]);
        }
        let question = self.question(name)?;
        let until = Instant::now() + time;
        let mut answer = locked(&question.answer);
        loop {
            if let Some(answer) = &*answer {
                return answer.clone().map_err(|(kind, why)| io::Error::new(kind, why));
            }
            if stop.stopped() {
                let why = format!("stopped while it was asked for the address of `{name}`");
                return Err(io::Error::new(io::ErrorKind::Interrupted, why));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(silent(name, &format!("within {} s", time.as_secs())));
            }
            let waited = question.answered.wait_timeout(answer, left.min(LOOK));
            answer = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks for a name, where nobody has asked for it yet.
    fn question(&'static self, name: &str) -> io::Result<Arc<Question>> {
        let mut asked = locked(&self.asked);
        if let Some(question) = asked.iter().find(|question| question.name == name) {
            return Ok(question.clone());
        }
        if asked.len() >= ASKED_MAX {
            return Err(silent(name, &format!("and for {ASKED_MAX} others before it")));
        }
        let (answer, answered) = (Mutex::new(None), Condvar::new());
        let question = Arc::new(Question { name: name.to_owned(), answer, answered });
        let of_thread = question.clone();
        Builder::new().stack_size(STACK).spawn(move || {
            let answer = (self.ask)(&of_thread.name);
            // It is not found any more before it is answered: whoever comes now asks anew.
            locked(&self.asked).retain(|other| !Arc::ptr_eq(other, &of_thread));
            *locked(&of_thread.answer) = Some(answer);
            of_thread.answered.notify_all();
        })?;
        asked.push(question.clone());
        Ok(question)
    }
}

/// Says that no name server answers.
fn silent(name: &str, how: &str) -> io::Error {
    let next = "give the address itself, or put the name into /etc/hosts";
    let why = format!("no name server has told the address of `{name}`, {how}: {next}");
    io::Error::new(io::ErrorKind::TimedOut, why)
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // Tests.
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(300);

    /// As long as somebody holds it, nobody answers.
    static SILENCE: Mutex<()> = Mutex::new(());
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static SILENT: Names = Names::asked_by(|_| {
        ASKED.fetch_add(1, Ordering::SeqCst);
        drop(locked(&SILENCE));
        Ok(vec![([10, 0, 0, 1], 0).into()])
    });

    /// A name that is asked for again is asked for once; of others so many; who is stopped, or has no patience left, does
    /// not wait. When it answers at last, nothing is left.
    #[test]
    fn nobody_waits_for_a_name_server_that_does_not_answer_and_few_threads_are_left_behind() {
        let silence = locked(&SILENCE);
        let stop = Stop::default();
        for n in 0..3 * ASKED_MAX {
            let why = SILENT.told(&format!("n{}", n / 2), Duration::ZERO, &stop).unwrap_err();
            let said = if n / 2 < ASKED_MAX { "within 0 s" } else { "8 others" };
            assert!(why.to_string().contains(said), "{n}: {why}");
        }
        assert_eq!(locked(&SILENT.asked).len(), ASKED_MAX);
        let stopped = Stop::default();
        stopped.stop();
        let why = SILENT.told("n0", LONG, &stopped).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::Interrupted);
        // What is an address already is not asked for.
        assert_eq!(SILENT.told("::1", LONG, &stop).unwrap().len(), 1);
        drop(silence);
        assert_eq!(SILENT.told("n0", LONG, &stop).unwrap().len(), 1);
        while !locked(&SILENT.asked).is_empty() {
            std::thread::yield_now();
        }
        assert!((ASKED_MAX..=ASKED_MAX + 1).contains(&ASKED.load(Ordering::SeqCst)));
    }

    #[test]
    fn a_name_that_the_system_knows_has_its_addresses_and_one_that_it_refuses_the_reason() {
        static NAMES: Names = Names::asked_by(|name| match name {
            "here" => Ok(vec![([127, 0, 0, 1], 0).into(), ([0_u16; 8], 0).into()]),
            _ => Err((io::ErrorKind::NotFound, "no such name".into())),
        });
        let find = |name| NAMES.told(name, LONG, &Stop::default());
        assert_eq!(find("here").unwrap().len(), 2);
        assert_eq!(find("there").unwrap_err().to_string(), "no such name");
    }

    /// An address of a link without its interface leads nowhere.
    #[test]
    fn the_address_of_a_link_keeps_its_interface() {
        let host = Host { name: "fe80::1%1".into(), port: 7_225 };
        let found = addresses(&host, Some(LONG), &Stop::default()).unwrap();
        let [SocketAddr::V6(found)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.scope_id(), found.port()), (1, 7_225));
    }
}
