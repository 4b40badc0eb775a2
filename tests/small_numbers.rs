//! Contexts name devices by small numbers: a frame costs what changed, and means the same everywhere.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;

use std::io::Cursor;

use common::{World, app, append, bundle, carry, digests_equal, import, rows, sql};
use packmule::{Engine, JoinOptions};
use packmule_core::wire::{Frame, FrameFlags, FrameWriter, GroupStart, Named, RecordKind};

const SETTINGS: &str = "CREATE TABLE settings (key TEXT PRIMARY KEY, value)";

const BOARDS: usize = 40;

/// A base and its boards; each board has a shared table and readings of its own.
fn fleet(boards: usize) -> (World, Engine, Vec<Engine>) {
    let world = World::new();
    let mut base = world.base("base");
    sql(&base, SETTINGS);
    base.track("settings", &packmule::TrackOptions::default()).unwrap();
    let boards = (0..boards)
        .map(|n| {
            let mut board = world.board_with(&format!("board-{n}"), SETTINGS, &["settings"]);
            sql(&board, "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value)");
            board.track("readings", &append()).unwrap();
            board
        })
        .collect();
    (world, base, boards)
}

/// Each board writes a shared row; the base takes all of them in, and one board all of the base's.
fn round(base: &mut Engine, boards: &mut [Engine], value: u64) {
    for board in boards.iter_mut() {
        let id = board.identity().id;
        sql(board, &format!("INSERT OR REPLACE INTO settings VALUES ('{id}', {value})"));
        carry(board, base);
    }
    carry(base, &mut boards[0]);
}

/// Writes a reading; how many bytes its frame has.
fn reading(board: &mut Engine) -> u64 {
    sql(board, "INSERT INTO readings (value) VALUES (1)");
    board.seal().unwrap();
    let last = "SELECT length(body) FROM _pm_frame WHERE stream = 1 ORDER BY rowid DESC LIMIT 1";
    app(board).query_row(last, [], |row| row.get(0)).unwrap()
}

/// The numbers that a database knows, by what they mean.
fn numbers(engine: &Engine) -> Vec<String> {
    rows(
        engine,
        "SELECT d.id, m.stream, m.number, o.id FROM _pm_number m JOIN _pm_device d ON d.n = m.dev
         JOIN _pm_device o ON o.n = m.other WHERE m.stream = 0 ORDER BY 1, 2, 3",
    )
}

#[test]
fn a_reading_costs_what_changed_and_not_the_fleet() {
    let (_world, mut base, mut boards) = fleet(BOARDS);
    round(&mut base, &mut boards, 1);
    let introduced = reading(&mut boards[0]);
    assert!(introduced > BOARDS as u64 * 16, "the first frame names everybody: {introduced}");
    let alone = reading(&mut boards[0]);
    assert!(alone < 64, "nothing was heard of anybody: {alone}");
    round(&mut base, &mut boards, 2);
    let all = reading(&mut boards[0]);
    assert!(all < alone + BOARDS as u64 * 4, "a number and a count for everybody who wrote: {all}");
    carry(&mut boards[0], &mut base);
    assert_eq!(rows(&base, "SELECT count(*) FROM readings"), ["3"]);
    digests_equal(&[&base, &boards[0]]);
}

#[test]
fn who_starts_from_a_snapshot_knows_the_numbers() {
    let (world, mut base, mut boards) = fleet(3);
    for value in 0..3 {
        round(&mut base, &mut boards, value);
        let (first, rest) = boards.split_at_mut(1);
        rest.iter_mut().for_each(|board| {
            carry(&mut base, board);
        });
        sql(&first[0], &format!("UPDATE settings SET value = value + {value}"));
        carry(&mut first[0], &mut base);
    }
    let mut snapshot = Vec::new();
    boards[0].snapshot(&mut snapshot).unwrap();
    let join = JoinOptions { name: Some("new"), fleet: Some(&world.fleet) };
    let path = world.path("new");
    let (mut new, _) = Engine::join(&path, &mut Cursor::new(&snapshot), &join, world.options()).unwrap();
    assert_eq!(numbers(&new), numbers(&boards[0]));
    assert!(!numbers(&new).is_empty());
    // The boards go on, by the numbers that they have introduced before.
    for board in &mut boards[1..] {
        carry(&mut base, board);
        sql(board, "UPDATE settings SET value = value + 10");
        carry(board, &mut base);
        carry(board, &mut new);
    }
    carry(&mut base, &mut new);
    digests_equal(&[&base, &new]);
    assert!(new.status().unwrap().waits.is_empty());
}

/// Writes the only frame of a bundle again, with a context of its author's choice.
fn forged(author: &Engine, bytes: &[u8], context: &[(Named, u64)]) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let at = records.iter().position(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    let frame = Frame::parse(&records[at].1).unwrap();
    let head = frame.group.unwrap();
    let group = GroupStart { lamport: head.lamport, wall: head.wall, pair: 0, context };
    let mut buf = vec![0; 4096];
    // The blocks stay as they are, after a head that is longer.
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), frame.head.seq, Some(group)).unwrap();
    let body = bundles::with_blocks(writer.finish(), &bundles::blocks(&records[at].1));
    bundles::replace_frame(&mut records, at, body, author);
    bundles::join(&records)
}

/// A frame of version 1 names devices by their ids, and waits for what its author had seen; one whose number nobody
/// has introduced says nothing, and harms nobody.
#[test]
fn contexts_of_an_older_version_and_of_a_liar() {
    let world = World::new();
    let mut a = world.board_with("a", SETTINGS, &["settings"]);
    let mut b = world.board_with("b", SETTINGS, &["settings"]);
    let mut c = world.board_with("c", SETTINGS, &["settings"]);
    let mut d = world.board_with("d", SETTINGS, &["settings"]);
    for _ in 0..2 {
        common::carry_all(&mut [&mut a, &mut b, &mut c, &mut d]);
    }
    let own = |engine: &Engine| {
        let sql =
            "SELECT seq FROM _pm_stream WHERE stream = 0 AND dev = (SELECT v FROM _pm_meta WHERE k = 'me')";
        app(engine).query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap()
    };
    sql(&b, "INSERT INTO settings VALUES ('of b', 1)");
    b.seal().unwrap();
    let seen = own(&b);
    sql(&a, "INSERT INTO settings VALUES ('of a', 1)");
    let bytes = bundle(&mut a, &c);
    let old = forged(&a, &bytes, &[(Named::Id(b.identity().id), seen)]);
    assert_eq!(Frame::parse(&frame_of(&old)).unwrap().head.version, 1);
    assert_eq!(import(&mut c, &old).waits.len(), 1, "it waits for the frame of b");
    let report = carry(&mut b, &mut c);
    assert!(report.waits.is_empty());
    assert_eq!(rows(&c, "SELECT count(*) FROM settings"), ["2"]);

    let liar = forged(&a, &bytes, &[(Named::Number(77), 5)]);
    let report = import(&mut d, &liar);
    assert!(report.waits.is_empty() && report.ops == 1);
    assert!(carry(&mut b, &mut d).waits.is_empty());
    assert_eq!(rows(&d, "SELECT count(*) FROM settings"), ["2"]);
}

fn frame_of(bundle: &[u8]) -> Vec<u8> {
    bundles::records(bundle).into_iter().find(|(kind, _)| *kind == RecordKind::Frame).unwrap().1
}
