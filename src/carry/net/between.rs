//! Tests of somebody who stands in between with a channel to each end, reads all that is said, and says other things.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use packmule_core::wire::{Message, RECORD_HEAD_LEN, RecordHead, RecordKind, write_record};

use super::records::Records;
use super::stream::{Files, ready};
use super::{Address, Error, Host, Listening, Options, Serving, Status, serve, sync};
use crate::carry::between::{SQL, device};
use crate::carry::session;
use crate::carry::stop::Stop;
use crate::engine::{Engine, FleetKey};

/// What a row's record is: neither a message nor what says who has what.
const ROWS: [RecordKind; 4] =
    [RecordKind::Section, RecordKind::Frame, RecordKind::Checkpoint, RecordKind::Certificate];

/// What he makes of what the first end says.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Passes,
    /// Nothing of its rows goes on, and it is told that all of them are durable at the other end.
    Lies,
    /// Nothing of its rows goes on, and it is told only that somebody is there.
    Swallows,
}

/// Stands between with a channel of its own to each end.
fn stand(listener: &TcpListener, server: SocketAddr, plain: bool, does: Does) {
    let files = |stream| Box::new(Files::tcp(stream).unwrap());
    let (client, _) = listener.accept().unwrap();
    let mut ends = [
        Records::answer(files(client), plain, Vec::new()),
        Records::call(files(TcpStream::connect(server).unwrap()), plain).unwrap(),
    ];
    let mut came = [Vec::new(), Vec::new()];
    let mut due: [VecDeque<Vec<u8>>; 2] = Default::default();
    let mut over = [false; 2];
    while !over.contains(&true) {
        for way in [0, 1] {
            let mut bytes = [0; 8_192];
            match ends[way].receive(&mut bytes) {
                Ok(Some(0)) | Err(_) => over[way] = true,
                Ok(Some(count)) => came[way].extend_from_slice(&bytes[..count]),
                Ok(None) => {}
            }
            while let Some(record) = next(&mut came[way]) {
                let (goes_on, answer) =
                    if way == 0 && does != Does::Passes { lie(&record) } else { (true, None) };
                due[1 - way].extend(goes_on.then_some(record));
                due[way].extend(answer.filter(|_| does == Does::Lies));
            }
            let to = &mut ends[1 - way];
            while let Some(record) = due[1 - way].front_mut().filter(|_| to.is_open()) {
                match to.send(record) {
                    Ok(0) => break,
                    Ok(count) if count < record.len() => drop(record.drain(..count)),
                    Ok(_) => drop(due[1 - way].pop_front()),
                    Err(_) => return,
                }
            }
            let _ = to.flush();
        }
        if does == Does::Swallows {
            // Each end hears that somebody is there.
            ends.iter_mut().filter(|end| end.is_open()).for_each(|end| _ = end.record());
        }
        let files: Vec<_> = ends.iter().map(|end| (end.stream.files()[0], false)).collect();
        ready(&files, Duration::from_millis(20));
    }
    for end in &mut ends {
        let _ = end.flush();
        end.stream.hang_up();
    }
}

/// Takes a whole record of a session.
fn next(came: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = RecordHead::parse(came.first_chunk::<RECORD_HEAD_LEN>()?).unwrap();
    let len = RECORD_HEAD_LEN + head.len as usize;
    (came.len() >= len).then(|| came.drain(..len).collect())
}

/// Decides whether a record goes on, and what its sender is told in the other end's place.
fn lie(record: &[u8]) -> (bool, Option<Vec<u8>>) {
    let head = RecordHead::parse(record.first_chunk().unwrap()).unwrap();
    if ROWS.contains(&head.kind) {
        return (false, None);
    }
    if head.kind == RecordKind::Message
        && let Ok(Message::Idle(number)) = Message::decode(head.check(&record[RECORD_HEAD_LEN..]).unwrap())
    {
        let (mut body, mut answer) = ([0; 32], vec![0; 64]);
        let len = Message::Settled(number).encode(&mut body).unwrap();
        let len = write_record(&mut answer, RecordKind::Message, &body[..len]).unwrap();
        answer.truncate(len);
        return (false, Some(answer));
    }
    (true, None)
}

/// How many frames are in its log.
fn count(engine: &Engine) -> u64 {
    engine.status().unwrap().log_frames
}

/// How many of its frames `a` believes to be at `b`.
fn believed(a: &Engine, b: &Engine) -> u64 {
    let devices = a.devices().unwrap();
    devices.iter().find(|device| device.id == b.identity().id).map_or(0, |device| device.acknowledged)
}

/// A session through somebody in between: how it ended, whether the first end was in step, how many
/// frames have come to the other end, and are believed to be there.
fn through(plain: bool, does: Does, patience: u64) -> (Result<(), Error>, bool, u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let fleet = FleetKey::create(&folder.path().join("fleet.key")).unwrap();
    let (mut a, b) = (device(folder.path(), "a", &fleet), device(folder.path(), "b", &fleet));
    let before = count(&b);
    a.connection().unwrap().execute_batch(SQL.lines().nth(1).unwrap()).unwrap();
    let options = Options { plain, patience: Some(Duration::from_secs(patience)) };
    let port = Listening::on("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = port.address().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap();
    let stop = Stop::default();
    let path = folder.path().join("b");
    let open = || Engine::open(&path);
    let met = Mutex::new(Vec::new());
    let report = |_, status: &Status<'_>| met.lock().unwrap().push(format!("{status:?}"));
    let serving = Serving { open: &open, options: &options, report: &report, web: None };
    let mut in_step = false;
    let result = thread::scope(|scope| {
        let server = scope.spawn(|| serve(&port, serving, &stop).unwrap());
        let stands = scope.spawn(|| stand(&listener, at, plain, does));
        let address = Address::Tcp(Host { name: between.ip().to_string(), port: between.port() });
        let result = sync(&mut a, &address, &options, &Stop::default(), &mut |status| {
            in_step |= matches!(status, Status::InStep(_));
        });
        stands.join().unwrap();
        stop.stop();
        server.join().unwrap();
        result.map(|_| ())
    });
    if !plain && result.is_err() {
        let met = met.lock().unwrap();
        assert!(!met.iter().any(|said| said.starts_with("Met") || said.starts_with("InStep")), "{met:?}");
    }
    (result, in_step, count(&b) - before, believed(&a, &b))
}

/// He has a channel with each end, and what one end proves in its channel is no proof in the other one.
#[test]
fn who_stands_in_between_with_two_channels_is_found() {
    for does in [Does::Passes, Does::Lies] {
        let (result, in_step, frames, believed) = through(false, does, 60);
        let found = matches!(
            &result,
            Err(Error::Session(session::Error::Proof | session::Error::Refused { .. }) | Error::Ended)
                | Err(Error::Broken(_))
        );
        assert!(found, "{result:?}");
        assert_eq!((in_step, frames, believed), (false, 0, 0));
    }
}

/// The control: without encryption he can read and lie, so the test above would see it.
#[test]
fn without_encryption_who_stands_in_between_can_lie() {
    let (result, in_step, frames, believed) = through(true, Does::Passes, 60);
    assert!(result.is_ok() && in_step, "{result:?}");
    assert!(frames > 0 && believed > 0, "{frames} {believed}");
    let (result, in_step, frames, _) = through(true, Does::Lies, 60);
    assert!(result.is_ok() && in_step, "{result:?}");
    assert_eq!(frames, 0, "it believes to be in step, and nothing is there");
}

/// The other end is heard all the time, and answers nothing of what it is sent: patience ends that too.
#[test]
fn who_swallows_what_is_sent_keeps_nobody_for_ever() {
    let (result, in_step, frames, believed) = through(true, Does::Swallows, 2);
    assert!(matches!(result, Err(Error::Unanswered(_))), "{result:?}");
    assert_eq!((in_step, frames, believed), (false, 0, 0));
}
