//! A header tells what differs from what its receiver said last: small, and never misread.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;

use common::{World, app, bundle, carry, digests_equal, import, rows, sql, whole_bundle};
use packmule::{Engine, TrackOptions};
use packmule_core::wire::{HeaderReader, RecordKind};

const SETTINGS: &str = "CREATE TABLE settings (key TEXT PRIMARY KEY, value)";

fn fleet(boards: usize) -> (World, Engine, Vec<Engine>) {
    let world = World::new();
    let mut base = world.base("base");
    sql(&base, SETTINGS);
    base.track("settings", &TrackOptions::default()).unwrap();
    let made = |n| {
        let mut board = world.board_with(&format!("board-{n}"), SETTINGS, &["settings"]);
        sql(&board, "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value)");
        board.track("readings", &common::append()).unwrap();
        board
    };
    let boards = (0..boards).map(made).collect();
    (world, base, boards)
}

/// Each board writes a shared row, and the base takes all of them in.
fn all_write(base: &mut Engine, boards: &mut [Engine], value: u64) {
    for board in boards {
        let id = board.identity().id;
        sql(board, &format!("INSERT OR REPLACE INTO settings VALUES ('{id}', {value})"));
        carry(board, base);
    }
}

fn write(board: &Engine, value: u64) {
    sql(
        board,
        &format!(
            "INSERT INTO settings VALUES ('w{value}', {value}); INSERT INTO readings (value) VALUES ({value})"
        ),
    );
}

/// The base of a bundle's header, and how many positions it has.
fn header(bytes: &[u8]) -> (Option<[u8; 8]>, usize) {
    let records = bundles::records(bytes);
    let (_, body) = records.iter().find(|(kind, _)| *kind == RecordKind::Header).unwrap();
    let reader = HeaderReader::parse(body).unwrap();
    (reader.header.base, reader.applied().count())
}

/// What `of` is known to have, at `at`.
fn known(at: &Engine, of: &Engine) -> Vec<String> {
    let sql = format!(
        "SELECT d.id, a.stream, a.seq FROM _pm_ack a JOIN _pm_device d ON d.n = a.dev
         WHERE a.peer = (SELECT n FROM _pm_device WHERE id = x'{}') AND a.stream = 0 AND a.seq > 0 ORDER BY 1",
        of.identity().id
    );
    rows(at, &sql)
}

/// What a device has.
fn has(of: &Engine) -> Vec<String> {
    rows(
        of,
        "SELECT d.id, s.stream, s.seq FROM _pm_stream s JOIN _pm_device d ON d.n = s.dev
         WHERE s.stream = 0 AND s.seq > 0 ORDER BY 1",
    )
}

#[test]
fn a_bundle_costs_what_changed_and_not_the_fleet() {
    let (_world, mut base, mut boards) = fleet(200);
    all_write(&mut base, &mut boards, 1);
    carry(&mut base, &mut boards[0]);
    let mut sizes = Vec::new();
    for value in 2..4 {
        all_write(&mut base, &mut boards[1..], value);
        carry(&mut base, &mut boards[0]);
        sql(&boards[0], "INSERT INTO readings (value) VALUES (1)");
        let bytes = bundle(&mut boards[0], &base);
        sizes.push((bytes.len(), header(&bytes).1));
        import(&mut base, &bytes);
        assert_eq!(known(&base, &boards[0]), has(&boards[0]));
        let bytes = bundle(&mut base, &boards[0]);
        sizes.push((bytes.len(), header(&bytes).1));
        import(&mut boards[0], &bytes);
        sql(&boards[0], "INSERT INTO readings (value) VALUES (1)");
        let bytes = bundle(&mut boards[0], &base);
        sizes.push((bytes.len(), header(&bytes).1));
        import(&mut base, &bytes);
    }
    println!("{sizes:?}");
    // Once all are introduced: a reading after all others have written, an answer, and a reading after nothing else.
    assert!(sizes[0].0 < 5_000 && sizes[1..].iter().all(|(len, _)| *len <= 900), "{sizes:?}");
    assert!(sizes[2].0 < 320 && sizes[5].0 < 320, "{sizes:?}");
    digests_equal(&[&base, &boards[0]]);
}

#[test]
fn in_a_small_fleet_it_is_smaller_too() {
    let (_world, mut base, mut boards) = fleet(2);
    all_write(&mut base, &mut boards, 1);
    carry(&mut base, &mut boards[0]);
    carry(&mut boards[0], &mut base);
    sql(&boards[0], "INSERT INTO readings (value) VALUES (1)");
    carry(&mut boards[0], &mut base);
    carry(&mut base, &mut boards[0]);
    sql(&boards[0], "INSERT INTO readings (value) VALUES (1)");
    let bytes = bundle(&mut boards[0], &base);
    println!("{}", bytes.len());
    assert!(bytes.len() <= 320, "{}", bytes.len());
}

/// Between two devices all is about their own streams, which are always told: naming what was said would be longer.
#[test]
fn between_two_devices_nothing_is_named_that_was_said() {
    let (_world, mut base, mut boards) = fleet(1);
    for value in 0..3 {
        write(&boards[0], value);
        sql(&base, &format!("INSERT INTO settings VALUES ('of the base {value}', 1)"));
        carry(&mut boards[0], &mut base);
        carry(&mut base, &mut boards[0]);
    }
    sql(&boards[0], "INSERT INTO settings VALUES ('one', 1)");
    let bytes = bundle(&mut boards[0], &base);
    println!("{}", bytes.len());
    assert_eq!(header(&bytes).0, None);
    assert!(bytes.len() <= 310, "{}", bytes.len());
    import(&mut base, &bytes);
    assert_eq!(known(&base, &boards[0]), has(&boards[0]));
    digests_equal(&[&base, &boards[0]]);
}

/// Lost, repeated and overtaken bundles: what is known of a device is never more than it has, and right after a round.
#[test]
fn what_is_lost_or_overtaken_is_never_misread() {
    let (_world, mut base, mut boards) = fleet(3);
    all_write(&mut base, &mut boards, 1);
    let mut old: Vec<Vec<u8>> = Vec::new();
    let mut random = common::Random(7);
    for value in 0..60 {
        let at = random.below(3) as usize;
        write(&boards[at], 100 + value);
        let board = &mut boards[at];
        let (to_base, to_board) = (bundle(board, &base), bundle(&mut base, board));
        if random.chance(60) {
            import(&mut base, &to_base);
            let (known, has) = (known(&base, board), has(board));
            assert!(known == has || header(&to_base).0.is_some(), "{value}");
        }
        if random.chance(60) {
            import(board, &to_board);
        }
        old.push(to_base);
        if random.chance(40) {
            let again = random.pick(&old).clone();
            import(&mut base, &again);
        }
    }
    for board in &mut boards {
        for _ in 0..2 {
            carry(board, &mut base);
            carry(&mut base, board);
        }
    }
    for board in &mut boards {
        carry(&mut base, board);
        carry(board, &mut base);
        assert_eq!(known(&base, board), has(board));
    }
    digests_equal(&[&base, &boards[0], &boards[1], &boards[2]]);
}

/// Whoever cannot look up what a header refers to takes its frames, learns nothing of the rest, and is told all the next time.
#[test]
fn a_base_of_a_difference_that_nobody_remembers() {
    let (_world, mut base, mut boards) = fleet(2);
    all_write(&mut base, &mut boards, 1);
    carry(&mut base, &mut boards[0]);
    carry(&mut boards[0], &mut base);
    sql(&base, "DELETE FROM _pm_stated; DELETE FROM _pm_told");
    let before = known(&base, &boards[0]);
    write(&boards[0], 7);
    let bytes = bundle(&mut boards[0], &base);
    assert!(header(&bytes).0.is_some());
    assert!(import(&mut base, &bytes).ops > 0, "its frames are taken");
    assert_eq!(known(&base, &boards[0]), before, "nothing is made up");
    assert_eq!(import(&mut base, &bytes).frames, 0);
    let answer = bundle(&mut base, &boards[0]);
    assert_eq!(header(&answer).0, None, "all is said again");
    import(&mut boards[0], &answer);
    let bytes = bundle(&mut boards[0], &base);
    assert!(header(&bytes).0.is_some());
    import(&mut base, &bytes);
    assert_eq!(known(&base, &boards[0]), has(&boards[0]));
}

/// A bundle that is for another device says nothing but its frames to a third one.
#[test]
fn a_third_device_takes_the_frames_and_hears_nothing() {
    let (_world, mut base, mut boards) = fleet(2);
    all_write(&mut base, &mut boards, 1);
    carry(&mut base, &mut boards[0]);
    carry(&mut boards[0], &mut base);
    write(&boards[0], 7);
    let bytes = bundle(&mut boards[0], &base);
    assert!(header(&bytes).0.is_some());
    import(&mut boards[1], &whole_bundle(&mut base));
    let (first, rest) = boards.split_at_mut(1);
    let before = known(&rest[0], &first[0]);
    assert_eq!(import(&mut rest[0], &bytes).ops, 1);
    assert_eq!(known(&rest[0], &first[0]), before);
    import(&mut rest[0], &whole_bundle(&mut first[0]));
    assert_eq!(known(&rest[0], &first[0]), has(&first[0]));
}

/// A restored backup hears of its own log with the first bundle that shows what it has signed, also by a header that it
/// cannot look up.
#[test]
fn a_restored_backup_hears_of_its_own_log() {
    let (world, mut base, mut boards) = fleet(2);
    all_write(&mut base, &mut boards, 1);
    carry(&mut base, &mut boards[0]);
    carry(&mut boards[0], &mut base);
    let copy = world.path("copy");
    common::copy_card(&boards[0], &copy);
    for value in 0..3 {
        write(&boards[0], value);
        carry(&mut boards[0], &mut base);
        carry(&mut base, &mut boards[0]);
    }
    let mut restored = Engine::open_with(&copy, world.options()).unwrap();
    let me = restored.identity().id;
    let bytes = bundle(&mut base, &restored);
    assert!(header(&bytes).0.is_some());
    import(&mut restored, &bytes);
    let set_back = |restored: &Engine| {
        let sql = "SELECT count(*) FROM _pm_meta WHERE k = 'more 0'";
        app(restored).query_row(sql, [], |r| r.get::<_, u64>(0)).unwrap()
    };
    // That is no more than the base's word, which has not heard that it has less.
    assert_eq!(set_back(&restored), 0);
    import(&mut restored, &whole_bundle(&mut base));
    assert_eq!(set_back(&restored), 1);
    for _ in 0..2 {
        carry(&mut restored, &mut base);
        carry(&mut base, &mut restored);
    }
    assert_eq!(restored.identity().id, me);
    write(&restored, 50);
    carry(&mut restored, &mut base);
    digests_equal(&[&base, &restored]);
    assert_eq!(known(&base, &restored), has(&restored));
}
