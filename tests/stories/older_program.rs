//! A program of before states went over a session: what brings the state then is said at both ends, and works.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use packmule::core::wire::{RECORD_HEAD_LEN, RecordHead, write_record};

use crate::network::Serve;
use crate::support::{Desk, has};

/// The opening of a session in clear: magic, version, and that it is in clear.
const OPENING: usize = 6;

/// The hello of a program that knows no states in sessions: version 1 is its latest.
fn of_version_1(bytes: &[u8]) -> Vec<u8> {
    let head = RecordHead::parse(bytes[..RECORD_HEAD_LEN].try_into().unwrap()).unwrap();
    let (body, rest) = bytes[RECORD_HEAD_LEN..].split_at(head.len as usize);
    let mut body = head.check(body).unwrap().to_vec();
    assert_eq!(body[..2], [0, 1], "hello, from version 1");
    body[2] = 1;
    let mut record = vec![0; body.len() + 16];
    let len = write_record(&mut record, head.kind, &body).unwrap();
    [&record[..len], rest].concat()
}

/// Passes on what one end says, whose hello is that of an older program.
fn pass(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut opening = [0; OPENING];
    from.read_exact(&mut opening)?;
    to.write_all(&opening)?;
    let mut len = [0; 2];
    from.read_exact(&mut len)?;
    let mut first = vec![0; u16::from_le_bytes(len).into()];
    from.read_exact(&mut first)?;
    let first = of_version_1(&first);
    to.write_all(&u16::try_from(first.len()).unwrap().to_le_bytes())?;
    to.write_all(&first)?;
    io::copy(&mut from, &mut to)?;
    to.shutdown(std::net::Shutdown::Write)
}

/// Stands between for one session; where it can be reached.
fn between(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, to) = (listener.local_addr().unwrap(), to.to_owned());
    thread::spawn(move || {
        let (one, _) = listener.accept()?;
        let two = TcpStream::connect(to)?;
        let (from, back) = (one.try_clone()?, two.try_clone()?);
        let there = thread::spawn(move || pass(from, two));
        // An end that is gone while the other still says something is what sessions end with.
        drop((pass(back, one), there.join()));
        io::Result::Ok(())
    });
    at.to_string()
}

/// A base that has folded what a newcomer lacks.
fn folded() -> Desk {
    let desk = Desk::fleet(&["north"]);
    desk.sql("north.db", "INSERT INTO settings VALUES ('later', 1, '')");
    for _ in 0..3 {
        desk.carry("north", "base");
        desk.carry("base", "north");
    }
    has(&desk.run("compact base.db").ok(), &["compacted away"]);
    desk.run("init new.db --name new --fleet fleet.key").ok();
    desk.sql("new.db", "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
    desk.run("track new.db settings").ok();
    desk
}

/// Both programs meet over one that makes each older than it is: what the first of them printed.
fn met(desk: &Desk, one: &str, two: &str) -> crate::support::Ran {
    let serve = Serve::new(desk, &[two, "--plain"]);
    let at = between(&serve.at);
    let ran = desk.run(&format!("sync {one} tcp://{at} --plain"));
    serve.end();
    ran
}

#[test]
fn what_brings_the_state_to_who_cannot_get_it_by_a_session_is_said_at_both_ends() {
    let desk = folded();
    let ran = met(&desk, "new.db", "base.db");
    ran.proposes_with(
        "this device lacks frames that are compacted away on *: a card or a file brings it the state of the tables; run \
         `packmule exchange * DIRECTORY` here, then there, then here",
        &[("DIRECTORY", ".")],
    )
    .ok();
    met(&desk, "base.db", "new.db")
        .proposes_with(
            "* lacks frames that are compacted away here: a card or a file brings it the state of the tables; run \
             `packmule export * FILE --for *` here, and `packmule import` with that file there",
            &[("FILE", "state.pmb")],
        )
        .ok();
    assert_eq!(desk.value("new.db", "SELECT count(*) FROM settings"), 0.into());
    // As it is said: the file there, or the card here, there and here.
    desk.run("export base.db state.pmb --for new").ok();
    desk.run("import new.db state.pmb").ok();
    assert_eq!(desk.run("digest new.db").ok(), desk.run("digest base.db").ok());
    let desk = folded();
    std::fs::create_dir(desk.path("card")).unwrap();
    ["new", "base", "new"].iter().for_each(|db| drop(desk.run(&format!("exchange {db}.db card")).ok()));
    assert_eq!(desk.run("digest new.db").ok(), desk.run("digest base.db").ok());
}
