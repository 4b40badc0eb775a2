//! The loop that keeps links up, in a time of its own: nothing waits. Intervals, back-off, what wakes it and what does not.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use common::{
    Random, World, append, copy_card, digests_equal, exchange_with_card, key_file, open, rows, seeds, sql,
};
use packmule::Engine;
use packmule::carry::Stop;
use packmule::carry::keep::{Change, Clock, Met, Pace, Runner, Work};
use packmule::carry::session::Session;

const HOUR: u64 = 3_600;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

type Event = Box<dyn FnOnce()>;
type Rounds<'a> = Box<dyn FnMut(u64, &mut Engine, &mut Met) -> Result<(), packmule::Error> + 'a>;

/// Time that passes where the loop waits. At some moments something happens; at the last one it ends.
struct Virtual {
    now: Rc<Cell<Duration>>,
    draw: Box<dyn Fn() -> u32>,
    events: RefCell<Vec<(Duration, Event)>>,
    end: Duration,
    stop: Stop,
    waits: Cell<u64>,
}

impl Virtual {
    fn until(end: u64) -> Self {
        Self {
            now: Rc::default(),
            draw: Box::new(|| u32::MAX),
            events: RefCell::default(),
            end: seconds(end),
            stop: Stop::default(),
            waits: Cell::new(0),
        }
    }

    /// Something happens at this second.
    fn at(&self, second: u64, event: impl FnOnce() + 'static) {
        self.events.borrow_mut().push((seconds(second), Box::new(event)));
    }
}

impl Clock for Virtual {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn wait(&self, time: Duration) {
        assert!(time > Duration::ZERO, "a wait for nothing would spin");
        self.waits.set(self.waits.get() + 1);
        let now = self.now.get() + time;
        self.now.set(now);
        let due: Vec<_> = self.events.borrow_mut().extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().for_each(|(_, event)| event());
        if now >= self.end {
            self.stop.stop();
        }
    }

    fn draw(&self) -> u32 {
        (self.draw)()
    }
}

/// Work that is written down, and does what it is told.
struct Told<'a> {
    now: Rc<Cell<Duration>>,
    begun: Vec<u64>,
    result: Rounds<'a>,
    there: Box<dyn Fn() -> bool + 'a>,
}

impl<'a> Told<'a> {
    fn new(
        clock: &Virtual,
        result: impl FnMut(u64, &mut Engine, &mut Met) -> Result<(), packmule::Error> + 'a,
    ) -> Self {
        Self { now: clock.now.clone(), begun: Vec::new(), result: Box::new(result), there: Box::new(|| true) }
    }
}

impl Work for Told<'_> {
    type Error = packmule::Error;

    fn round(&mut self, engine: &mut Engine, met: &mut Met) -> Result<(), packmule::Error> {
        let at = self.now.get().as_secs();
        self.begun.push(at);
        (self.result)(at, engine, met)
    }

    fn is_there(&mut self) -> bool {
        (self.there)()
    }
}

fn failure() -> packmule::Error {
    packmule::Error::Usage("nobody is there".into())
}

fn run(pace: Pace, clock: &Virtual, engine: &mut Engine, work: &mut Told<'_>) -> Vec<String> {
    let mut said = Vec::new();
    Runner::new(pace, clock, &clock.stop).keep_up(engine, work, &mut |change| {
        said.push(match change {
            Change::Away => "away".to_owned(),
            Change::Begins => return,
            Change::Rests(time) => format!("rests {}", time.as_secs()),
            Change::Ended(time) => format!("ended {}", time.as_secs()),
            Change::Failed(_, time) => format!("failed {}", time.as_secs()),
        });
    });
    said
}

#[test]
fn what_fails_is_begun_again_later_and_later_and_at_once_after_a_success() {
    let world = World::new();
    let mut a = world.board("a");
    let clock = Virtual::until(6_000);
    let mut work = Told::new(&clock, |at, _, met| {
        met.in_step = at == 4_723;
        Err(failure())
    });
    let said = run(Pace::stay(), &clock, &mut a, &mut work);
    let begun = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1_023, 1_923, 2_823, 3_723, 4_623, 5_523];
    // Nothing was in step: never more than a quarter of an hour.
    assert_eq!(work.begun, begun);
    assert_eq!(&said[9..12], ["failed 512", "failed 900", "failed 900"]);
    let clock = Virtual::until(70);
    let mut work = Told::new(&clock, |at, _, met| {
        met.in_step = at == 31;
        Err(failure())
    });
    run(Pace::stay(), &clock, &mut a, &mut work);
    assert_eq!(work.begun, [0, 1, 3, 7, 15, 31, 32, 34, 38, 46, 62]);
}

/// Boards that lost their base together do not come back together.
#[test]
fn a_hundred_boards_come_back_one_by_one() {
    for seed in seeds(3) {
        println!("PACKMULE_SEED={seed}");
        let world = World::seeded(seed);
        let mut engine = world.board("a");
        let mut seventh = Vec::new();
        for board in 0..100 {
            let random = RefCell::new(Random(seed * 1_000 + board));
            let mut clock = Virtual::until(2_000);
            clock.draw = Box::new(move || random.borrow_mut().next() as u32);
            let mut work = Told::new(&clock, |_, _, _| Err(failure()));
            run(Pace::stay(), &clock, &mut engine, &mut work);
            seventh.push(work.begun[7]);
        }
        let fullest = (0..200).map(|at| seventh.iter().filter(|begun| **begun == at).count()).max().unwrap();
        assert!(fullest <= 12, "{fullest} of 100 in one second");
    }
}

#[test]
fn what_goes_well_is_begun_at_its_interval_with_jitter() {
    let world = World::new();
    let mut a = world.board("a");
    let clock = Virtual::until(3 * HOUR);
    let mut work = Told::new(&clock, |_, _, _| Ok(()));
    let pace = Pace { jitter: seconds(60), changes: None, ..Pace::every(seconds(HOUR)) };
    let said = run(pace, &clock, &mut a, &mut work);
    // All draws are the latest; the first one is not that late.
    assert_eq!(work.begun, [10, 3_670, 7_330]);
    assert_eq!(said, ["rests 3660"; 3]);
}

/// A session in memory, until both have everything.
fn meet(a: &mut Engine, b: &mut Engine, met: &mut Met) {
    let mut ends = [Session::new(a, [1; 32], 0).unwrap(), Session::new(b, [2; 32], 0).unwrap()];
    while !ends.iter().all(Session::in_step) {
        for at in [0, 1] {
            let [from, to] = if at == 0 { [&mut *a, &mut *b] } else { [&mut *b, &mut *a] };
            let bytes = ends[at].output(from).unwrap().to_vec();
            ends[at].sent(bytes.len());
            ends[1 - at].receive(to, 0, &bytes).unwrap();
            ends[1 - at].caught_up(to).unwrap();
        }
    }
    met.peer = ends[0].peer().map(|peer| peer.id);
    met.in_step = true;
}

const TABLE: &str = "CREATE TABLE t (id TEXT PRIMARY KEY, v)";

#[test]
fn what_is_written_begins_a_round_and_nothing_else_does() {
    let world = World::new();
    let (mut a, mut b) = (world.board_with("a", TABLE, &["t"]), world.board_with("b", TABLE, &["t"]));
    let c = world.board_with("c", TABLE, &["t"]);
    let clock = Virtual::until(8 * HOUR);
    let path = a.path().to_owned();
    let write = |id: &str| {
        let (path, sql) = (path.clone(), format!("INSERT INTO t VALUES ('{id}', 1)"));
        move || common::open(&path).execute_batch(&sql).unwrap()
    };
    clock.at(1_000, write("one"));
    clock.at(1_010, write("two"));
    // Another link meets C, and what it brings is news for this one. It meets C again, and writes down that it did: that
    // is none.
    let other = Engine::open_with(&path, world.options()).unwrap();
    let link = Rc::new(RefCell::new((other, c)));
    let meets = |with: &'static str| {
        let link = link.clone();
        move || {
            let (other, c) = &mut *link.borrow_mut();
            sql(c, with);
            meet(other, c, &mut Met::default());
        }
    };
    clock.at(8_000, meets("INSERT INTO t VALUES ('of c', 1)"));
    clock.at(12_000, meets(""));
    let mut work = Told::new(&clock, |_, engine, met| {
        meet(engine, &mut b, met);
        Ok(())
    });
    let pace = Pace { jitter: Duration::ZERO, ..Pace::every(seconds(5 * HOUR)) };
    run(pace, &clock, &mut a, &mut work);
    let begun = std::mem::take(&mut work.begun);
    drop(work);
    // The start; half a minute after what was written first was noticed; the same after what came by the other link; the
    // interval.
    assert_eq!(begun, [0, 1_030, 8_030, 8_030 + 5 * HOUR]);
    assert_eq!(rows(&b, "SELECT id FROM t ORDER BY 1"), ["\"of c\"", "\"one\"", "\"two\""]);
    digests_equal(&[&a, &b]);
}

/// A board that idles looks once a second at one counter, and writes nothing.
#[test]
fn an_idle_hour_writes_nothing() {
    let world = World::new();
    let (mut a, mut b) = (world.board_with("a", TABLE, &["t"]), world.board_with("b", TABLE, &["t"]));
    let clock = Virtual::until(HOUR);
    let mut work = Told::new(&clock, |_, engine, met| {
        meet(engine, &mut b, met);
        Ok(())
    });
    let path = a.path().to_owned();
    let files = move || {
        let size = |end: &str| {
            let file = PathBuf::from(format!("{}{end}", path.display()));
            std::fs::metadata(file).map(|meta| (meta.len(), meta.modified().unwrap())).ok()
        };
        ["", "-wal"].map(size)
    };
    let seen: Rc<RefCell<Vec<_>>> = Rc::default();
    for second in [1, HOUR - 1] {
        let (seen, files) = (seen.clone(), files.clone());
        clock.at(second, move || seen.borrow_mut().push(files()));
    }
    run(Pace::every(seconds(2 * HOUR)), &clock, &mut a, &mut work);
    let seen = seen.borrow();
    assert!(seen.len() == 2 && seen[0][0].is_some());
    assert_eq!(seen[0], seen[1]);
    assert!((HOUR - 2..=HOUR + 1).contains(&clock.waits.get()), "{} looks", clock.waits.get());
}

#[test]
fn a_card_that_is_put_in_is_served_at_once() {
    let world = World::new();
    let (mut a, mut base) = (world.board("a"), world.base("base"));
    sql(&a, "CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO r (v) VALUES (1)");
    a.track("r", &append()).unwrap();
    let card = world.dir.path().join("card");
    let clock = Virtual::until(5 * HOUR);
    let put_in = |second| {
        let card = card.clone();
        clock.at(second, move || std::fs::create_dir_all(card.join("PACKMULE")).unwrap());
    };
    let pull_out = |second| {
        let card = card.clone();
        let there = world.dir.path().join(format!("away-{second}"));
        clock.at(second, move || std::fs::rename(card, there).unwrap());
    };
    put_in(100);
    pull_out(200);
    put_in(300);
    pull_out(400);
    let here = card.clone();
    let mut work = Told::new(&clock, |_, engine, _| {
        exchange_with_card(engine, &here);
        Ok(())
    });
    let mark = card.join("PACKMULE");
    work.there = Box::new(move || mark.is_dir());
    let said = run(Pace::every(seconds(HOUR)), &clock, &mut a, &mut work);
    assert_eq!(work.begun, [100, 300]);
    assert_eq!(said, ["away", "rests 3600", "rests 3600", "away"]);
    drop(work);
    exchange_with_card(&mut base, &world.dir.path().join("away-200"));
    assert_eq!(rows(&base, "SELECT v FROM r"), ["1"]);
}

/// An application puts another file in the place of the database: nothing more goes into the old one, and the next round has the
/// file that is there, or says what is wrong with it.
#[test]
fn a_database_that_is_replaced_while_it_is_kept_up_is_opened_anew() {
    let world = World::new();
    let mut engine = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY)", &["t"]);
    let (path, key) = (engine.path().to_owned(), key_file(engine.path()));
    let (copy, aside) = (world.path("copy"), world.path("aside"));
    copy_card(&engine, &copy);
    open(&copy)
        .execute_batch("INSERT INTO t VALUES ('of the copy'); PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let clock = Virtual::until(45);
    let rename = |from: PathBuf, to: PathBuf| move || std::fs::rename(from, to).unwrap();
    // At first it is gone, then one without Packmule's tables is there, then a copy.
    clock.at(5, rename(path.clone(), aside));
    let other = path.clone();
    clock.at(15, move || open(&other).execute_batch("CREATE TABLE t (k TEXT PRIMARY KEY)").unwrap());
    clock.at(25, rename(copy, path));
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    let mut work = Told::new(&clock, |at, engine, _| {
        engine.seal()?;
        seen.push((at, rows(engine, "SELECT k FROM t")));
        Ok(())
    });
    let pace = Pace { changes: None, ..Pace::every(seconds(10)) };
    Runner::new(pace, &clock, &clock.stop).keep_up(&mut engine, &mut work, &mut |change| {
        if let Change::Failed(error, _) = change {
            errors.push(error.code());
        }
    });
    drop(work);
    assert_eq!(seen[0], (0, Vec::new()), "the control");
    assert_eq!(seen.last().unwrap().1, ["\"of the copy\""]);
    errors.dedup();
    assert_eq!(errors, ["file-not-found", "database-replaced"]);
    assert!(key.exists());
}

/// The same in the middle of a round: it fails, rather than that it writes where nobody looks.
#[test]
fn nothing_is_written_to_a_database_that_was_replaced() {
    let world = World::new();
    let mut engine = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY)", &["t"]);
    let (path, aside) = (engine.path().to_owned(), world.path("aside"));
    engine.seal().unwrap();
    std::fs::rename(&path, &aside).unwrap();
    let error = engine.seal().unwrap_err();
    assert_eq!(error.code(), "database-replaced");
    assert!(error.to_string().contains("was moved, deleted or replaced"), "{error}");
    std::fs::rename(&aside, &path).unwrap();
    engine.seal().unwrap();
}
