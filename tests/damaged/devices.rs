//! Devices that have rows in all of Packmule's own tables, and what they have not heard yet.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use packmule::carry::Stop;
use packmule::carry::net;
use packmule::{ColumnMerge, Engine, FleetKey, Keep, TrackOptions};

use super::common::{
    World, append, bundle, carry, carry_all, copy_card, exchange_with_card, import, key_file, per_device,
    rows, session_of_two, sql, whole_bundle,
};
use super::wrong;

/// A device, and a bundle that it has not seen.
pub struct Device {
    pub world: World,
    pub engine: Engine,
    pub bytes: Vec<u8>,
}

/// A device with all that is open: conflicts, rows that wait, decisions that were not carried out yet.
pub fn open_matters() -> Device {
    let world = World::new();
    let make = "CREATE TABLE t (k INTEGER PRIMARY KEY, u UNIQUE, v CHECK (v < 100));
         CREATE TABLE c (k INTEGER PRIMARY KEY, t REFERENCES t (k), n INTEGER);
         CREATE TABLE r (k INTEGER PRIMARY KEY, v);
         CREATE TABLE l (k INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE TABLE x (k INTEGER PRIMARY KEY, v)";
    let mut both = Vec::new();
    for name in ["a", "b"] {
        let mut one = world.board_with(name, make, &["t", "c", "x"]);
        one.track("r", &per_device()).unwrap();
        one.track("l", &append()).unwrap();
        both.push(one);
    }
    let [a, b] = &mut both[..] else { panic!() };
    sql(a, "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (9, 'i', 9); INSERT INTO x VALUES (1, 1)");
    carry_all(&mut [a, b]);
    sql(
        a,
        "UPDATE t SET v = 10 WHERE k = 1; INSERT INTO t VALUES (3, 'same', 3); INSERT INTO c VALUES (1, 9, 1)",
    );
    sql(b, "UPDATE t SET v = 20 WHERE k = 1; INSERT INTO t VALUES (4, 'same', 4); DELETE FROM t WHERE k = 9");
    sql(a, "INSERT INTO r VALUES (1, 1); INSERT INTO l VALUES (1, 1); DROP TABLE x");
    sql(b, "INSERT INTO r VALUES (1, 2); INSERT INTO l VALUES (1, 2); ALTER TABLE t ADD COLUMN w");
    carry_all(&mut [a, b]);
    sql(a, "UPDATE t SET v = 30 WHERE k = 2");
    sql(b, "UPDATE t SET v = 40 WHERE k = 2");
    carry(b, a);
    sql(b, "INSERT INTO t VALUES (5, 'e', 5, 5); INSERT INTO r VALUES (2, 2)");
    let bytes = whole_bundle(b);
    sql(a, "INSERT INTO t (k, u) VALUES (6, 'f')");
    sql(a, "UPDATE packmule_conflicts SET take = 'newest'");
    let engine = both.remove(0);
    Device { world, engine, bytes }
}

/// A board seals what it wrote and is retired by the base; another one writes this, and both fold it.
fn fold_without(late: &mut Engine, [a, base]: [&mut Engine; 2], fleet: &FleetKey, write: &str) {
    late.seal().unwrap();
    base.retire(late.identity().id, Some(fleet)).unwrap();
    sql(a, write);
    for _ in 0..2 {
        carry_all(&mut [a, base]);
        a.compact().unwrap();
        base.compact().unwrap();
    }
}

/// A base that has folded most of its log, of counters, append tables and deleted rows, and has revoked a device.
pub fn settled() -> Device {
    let world = World::new();
    let counted =
        TrackOptions { columns: vec![("n".into(), ColumnMerge::Counter)], ..TrackOptions::default() };
    let board = |name: &str| {
        let mut one = world.board(name);
        sql(
            &one,
            "CREATE TABLE t (k INTEGER PRIMARY KEY, v, n INTEGER); CREATE TABLE r (k INTEGER PRIMARY KEY, v);
             CREATE TABLE l (k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        );
        one.track("t", &counted).unwrap();
        one.track("r", &per_device()).unwrap();
        one.track("l", &append()).unwrap();
        one
    };
    let (mut a, mut late, mut base) = (board("a"), board("late"), world.base("base"));
    sql(&a, "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3); INSERT INTO r VALUES (1, 1), (2, 2)");
    sql(&a, "INSERT INTO l VALUES (1, 1), (2, 2), (5, 5)");
    carry_all(&mut [&mut a, &mut late, &mut base]);
    sql(&late, "UPDATE t SET n = n + 100, v = 'late'; INSERT INTO t VALUES (7, 7, 7)");
    fold_without(
        &mut late,
        [&mut a, &mut base],
        &world.fleet,
        "DELETE FROM t WHERE k = 2; DELETE FROM r WHERE k = 2; UPDATE t SET n = n + 1, v = 'a'",
    );
    sql(&base, "UPDATE t SET n = n + 1 WHERE k = 1");
    carry(&mut late, &mut base);
    base.digest(true).unwrap();
    base.revoke(late.identity().id, Some(&world.fleet)).unwrap();
    sql(&a, "UPDATE t SET n = n + 1, v = 'new'; INSERT INTO l (v) VALUES (6); INSERT INTO r VALUES (3, 3)");
    let bytes = whole_bundle(&mut a);
    Device { world, engine: base, bytes }
}

/// A board whose append table was pruned, and whose table was changed so that it is held, while rows of it came; it has
/// a session behind it, and a cut one; what one device signed cannot be read.
pub fn held() -> Device {
    let wrong::Fleet { world, mut base, mut good, mut insider, .. } = wrong::fleet();
    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
    let sound = bundle(&mut insider, &good);
    let (_, content) = wrong::corpus().remove(0);
    import(&mut good, &wrong::forged(&insider, &sound, &content, &[]));
    sql(
        &good,
        "CREATE TABLE l (k INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO l VALUES (1, 1), (4, 4), (9, 9)",
    );
    good.track("l", &append()).unwrap();
    good.seal().unwrap();
    world.tick(7_200_000);
    sql(&good, "DELETE FROM l WHERE k = 4; INSERT INTO l VALUES (20, 20)");
    good.prune("l", Keep::Rows(2)).unwrap();
    session(&mut good, &mut base);
    sql(&good, "ALTER TABLE settings RENAME TO other; UPDATE other SET value = 'held'");
    good.seal().unwrap();
    sql(&base, "INSERT INTO settings VALUES (6, 'comes')");
    carry(&mut base, &mut good);
    sql(&base, "INSERT INTO settings VALUES (7, randomblob(300000))");
    cut_session(&mut base, &mut good);
    sql(&base, "INSERT INTO settings VALUES (8, 'also')");
    let bytes = whole_bundle(&mut base);
    Device { world, engine: good, bytes }
}

/// A session of two, over a socket.
fn session(one: &mut Engine, other: &mut Engine) {
    let options = net::Options { plain: true, patience: None };
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp://{}", port.local_addr().unwrap()).parse().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (from, _) = port.accept().unwrap();
            let ends = (OwnedFd::from(from.try_clone().unwrap()), OwnedFd::from(from));
            net::serve_pipes(other, ends, &options, &Stop::default(), &mut |_| ()).unwrap();
        });
        net::sync(one, &at, &options, &Stop::default(), &mut |_| ()).unwrap();
    });
}

/// A session that ends in the middle of a large group, of which frames have come.
fn cut_session(from: &mut Engine, to: &mut Engine) {
    let is_staged = |engine: &Engine| rows(engine, "SELECT count(*) FROM _pm_staged") != ["0"];
    session_of_two(from, to, 50_000, &mut |engine| is_staged(engine));
    assert!(is_staged(to), "nothing is staged");
}

/// A board that has built on a second history of another one, which it has given up since; rows wait for a table of the other
/// one that has the name of its own, and another key.
pub fn two_histories() -> Device {
    let world = World::new();
    let (mut a, mut c, mut base) = (world.board("a"), world.board("c"), world.base("base"));
    for (board, key) in [(&mut a, "TEXT"), (&mut c, "INTEGER")] {
        sql(
            board,
            &format!(
                "CREATE TABLE t (k TEXT PRIMARY KEY, v); CREATE TABLE item (k {key} PRIMARY KEY, v);
                 INSERT INTO item VALUES ('1', 'one')"
            ),
        );
        board.track("t", &TrackOptions::default()).unwrap();
        board.track("item", &TrackOptions::default()).unwrap();
    }
    sql(&c, "INSERT INTO t VALUES ('r', 'c')");
    for _ in 0..3 {
        carry_all(&mut [&mut a, &mut c, &mut base]);
        [&mut a, &mut c, &mut base].into_iter().for_each(|device| drop(device.compact().unwrap()));
    }
    sql(&a, "ALTER TABLE item RENAME TO item_a");
    a.track("item_a", &TrackOptions::default()).unwrap();
    a.untrack("item").unwrap();
    carry_all(&mut [&mut a, &mut c, &mut base]);
    let to = world.path("image");
    copy_card(&a, &to);
    let mut copy = Engine::open_with(&to, world.options()).unwrap();
    sql(&a, "INSERT INTO t VALUES ('a', 1)");
    carry(&mut a, &mut base);
    for n in 0..4 {
        sql(&copy, &format!("UPDATE t SET v = 'copy {n}'"));
        copy.seal().unwrap();
    }
    carry(&mut copy, &mut c);
    // It is built on, so that its frames cannot be renamed.
    sql(&c, "INSERT INTO t VALUES ('c', 1)");
    carry(&mut c, &mut copy);
    import(&mut base, &whole_bundle(&mut c));
    import(&mut c, &whole_bundle(&mut base));
    sql(&a, "INSERT INTO t VALUES ('later', 1)");
    let bytes = whole_bundle(&mut a);
    Device { world, engine: c, bytes }
}

/// A base that knows of two cards of one board, of which one is behind; and to which a late write came while its key was not
/// there, so that it could write no verdict.
pub fn keyless() -> Device {
    let world = World::new();
    let (mut a, mut late, mut base) = (world.board("a"), world.board("late"), world.base("base"));
    let card = world.path("card");
    fs::create_dir(&card).unwrap();
    for board in [&mut a, &mut late] {
        sql(board, "CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
        board.track("t", &TrackOptions::default()).unwrap();
    }
    sql(&a, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    carry_all(&mut [&mut a, &mut late, &mut base]);
    sql(&late, "UPDATE t SET v = 'late' WHERE k < 3");
    fold_without(&mut late, [&mut a, &mut base], &world.fleet, "UPDATE t SET v = 'a'");
    exchange_with_card(&mut a, &card);
    exchange_with_card(&mut base, &card);
    let behind = world.path("copy");
    copy_card(&a, &behind);
    let mut copy = Engine::open_with(&behind, world.options()).unwrap();
    sql(&a, "INSERT INTO t VALUES (4, 4)");
    for _ in 0..2 {
        world.tick(1_000);
        exchange_with_card(&mut a, &card);
        exchange_with_card(&mut base, &card);
    }
    exchange_with_card(&mut copy, &card);
    exchange_with_card(&mut base, &card);
    let key = key_file(base.path());
    let away = world.path("key");
    fs::rename(&key, &away).unwrap();
    let mut keyless = Engine::open_with(base.path(), world.options()).unwrap();
    carry(&mut late, &mut keyless);
    fs::rename(&away, &key).unwrap();
    sql(&a, "INSERT INTO t VALUES (6, 6)");
    let bytes = whole_bundle(&mut a);
    Device { world, engine: keyless, bytes }
}
