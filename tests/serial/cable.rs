//! A cable between two pseudo-terminals, carried by a thread of the test: it can stop after so many
//! bytes, go on, and vanish as an adaptor that is pulled does. What is sent at one rate is noise to an end at
//! another, and above what the cable carries.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, tcgetattr};

/// What a test can ask of a cable.
enum Ask {
    /// After so many bytes from the first end, hold everything and say so.
    HoldAfter(usize),
    /// Carry on.
    GoOn,
    /// Both ttys vanish, and others come under the same names; on its way is lost.
    Replug,
    /// From now on every byte becomes these.
    Change(fn(u8) -> Vec<u8>),
    /// How the terminals are set.
    Settings(Sender<[Termios; 2]>),
    /// How often an end spoke after the other had left.
    Unheard(Sender<usize>),
}

/// One end: the terminal that the program opens, by a name that stays.
pub struct End {
    master: OwnedFd,
    /// Keeps the terminal there while nobody has it open.
    pub slave: std::fs::File,
}

impl End {
    /// What was written to the terminal and not yet read.
    pub fn said(&self) -> String {
        let mut all = Vec::new();
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = rustix::io::read(&self.master, &mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        String::from_utf8(all).unwrap()
    }

    /// A new terminal with this name.
    pub fn new(link: &Path) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        let _ = std::fs::remove_file(link);
        symlink(name, link).unwrap();
        Self { master, slave }
    }
}

/// The cable.
pub struct Cable {
    /// The names of both ends.
    pub ends: [PathBuf; 2],
    ask: Sender<Ask>,
    held: Receiver<()>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
    /// The terminals' settings before anybody opened them.
    pub before: Termios,
}

impl Cable {
    /// Between two new terminals with these names, for rates up to `most`.
    pub fn new(a: PathBuf, b: PathBuf, most: u32) -> Self {
        Self::late(a, b, most).0
    }

    /// The same, but it carries nothing until the sender is dropped: as a thread that the system lets begin late.
    pub fn late(a: PathBuf, b: PathBuf, most: u32) -> (Self, Sender<()>) {
        let links = [a, b];
        let ends = [End::new(&links[0]), End::new(&links[1])];
        // Before the thread is there: it can begin after a program has opened an end.
        let before = tcgetattr(&ends[0].slave).unwrap();
        let (ask, asked) = channel();
        let (tell, held) = channel();
        let (bell, ear) = UnixStream::pair().unwrap();
        let names = links.clone();
        let rates = Rates { idle: before.output_speed(), most };
        let (begin, begun) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = begun.recv();
            carry(ends, &names, &rates, &asked, &tell, ear);
        });
        (Self { ends: links, ask, held, bell, thread: Some(thread), before }, begin)
    }

    fn ask(&self, what: Ask) {
        self.ask.send(what).unwrap();
        (&self.bell).write_all(&[1]).unwrap();
    }

    /// Holds everything once so many bytes have gone from the first end, counted from now.
    pub fn hold_after(&self, bytes: usize) {
        self.ask(Ask::HoldAfter(bytes));
    }

    /// Waits until it holds.
    pub fn is_held(&self) {
        self.held.recv_timeout(Duration::from_secs(60)).expect("the cable should have carried that much");
    }

    /// Carries on.
    pub fn go_on(&self) {
        self.ask(Ask::GoOn);
    }

    /// From now on every byte becomes these, both ways.
    pub fn change(&self, what: fn(u8) -> Vec<u8>) {
        self.ask(Ask::Change(what));
    }

    /// How the terminals are set.
    pub fn settings(&self) -> [Termios; 2] {
        let (tell, told) = channel();
        self.ask(Ask::Settings(tell));
        told.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// How often an end spoke after the other had left.
    pub fn unheard(&self) -> usize {
        let (tell, told) = channel();
        self.ask(Ask::Unheard(tell));
        told.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Pulls it and plugs it in again.
    pub fn replug(&self) {
        self.ask(Ask::Replug);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.bell.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // The terminals are gone with it.
        self.ends.iter().for_each(|end| drop(std::fs::remove_file(end)));
    }
}

/// What a cable knows of rates.
struct Rates {
    /// That of a terminal which nobody has open.
    idle: u32,
    /// The highest that it carries.
    most: u32,
}

fn settings(ends: &[End; 2]) -> [Termios; 2] {
    [0, 1].map(|at| tcgetattr(&ends[at].slave).unwrap())
}

fn rates(ends: &[End; 2]) -> [u32; 2] {
    settings(ends).map(|set| set.output_speed())
}

fn carry(
    mut ends: [End; 2],
    links: &[PathBuf; 2],
    known: &Rates,
    asked: &Receiver<Ask>,
    held: &Sender<()>,
    mut ear: UnixStream,
) {
    let mut left: Option<usize> = None;
    let mut holds = false;
    let mut last = [known.idle; 2];
    let mut unheard = 0;
    let mut becomes: fn(u8) -> Vec<u8> = |byte| vec![byte];
    let mut pending: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    loop {
        {
            let mut fds = vec![PollFd::new(&ear, PollFlags::IN)];
            if !holds {
                for at in 0..2 {
                    let mut flags = PollFlags::empty();
                    if pending[at].is_empty() {
                        flags |= PollFlags::IN;
                    }
                    if !pending[1 - at].is_empty() {
                        flags |= PollFlags::OUT;
                    }
                    fds.push(PollFd::from_borrowed_fd(ends[at].master.as_fd(), flags));
                }
            }
            poll(&mut fds, None).unwrap();
            let rung = !fds[0].revents().is_empty();
            drop(fds);
            if rung {
                let mut one = [0];
                if ear.read(&mut one).unwrap_or(0) == 0 {
                    return;
                }
                match asked.recv() {
                    Ok(Ask::HoldAfter(bytes)) => left = Some(bytes),
                    Ok(Ask::GoOn) => (left, holds) = (None, false),
                    Ok(Ask::Replug) => {
                        drop(ends);
                        ends = [End::new(&links[0]), End::new(&links[1])];
                        pending = [Vec::new(), Vec::new()];
                        (left, holds) = (None, false);
                    }
                    Ok(Ask::Change(what)) => becomes = what,
                    Ok(Ask::Settings(tell)) => tell.send(settings(&ends)).unwrap(),
                    Ok(Ask::Unheard(tell)) => tell.send(unheard).unwrap(),
                    Err(_) => return,
                }
                continue;
            }
        }
        for at in 0..2 {
            if pending[at].is_empty() {
                let mut buf = [0; 512];
                if let Ok(n) = rustix::io::read(&ends[at].master, &mut buf) {
                    let now = rates(&ends);
                    // (Two ends that have both left echo to each other.)
                    let alone = now[1 - at] == known.idle && last[1 - at] != known.idle;
                    if alone && now[at] != known.idle {
                        unheard += 1;
                    }
                    for (last, now) in last.iter_mut().zip(now) {
                        // Who has left put the terminal back; what it said before that may still be here.
                        *last = if now == known.idle { *last } else { now };
                    }
                    if last[0] != last[1] || last[0] > known.most {
                        // What another rate makes of it: nothing that could be a packet.
                        buf[..n].iter_mut().for_each(|byte| *byte = byte.rotate_left(3) ^ 0x5a);
                    }
                    pending[at].extend(buf[..n].iter().flat_map(|byte| becomes(*byte)));
                    if at == 0
                        && let Some(room) = &mut left
                    {
                        *room = room.saturating_sub(n);
                        if *room == 0 {
                            holds = true;
                            held.send(()).unwrap();
                        }
                    }
                }
            }
            if let Ok(n) = rustix::io::write(&ends[1 - at].master, &pending[at]) {
                pending[at].drain(..n);
            }
        }
    }
}
