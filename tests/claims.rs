//! What others say of a device's own log proves nothing to it: only what it has signed itself does.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;

use common::{World, bundle, carry, digests_equal, import, rows, sql, whole_bundle};
use packmule::{Engine, Error, TrackOptions};
use packmule_core::model::Stream;
use packmule_core::wire::{Newest, RecordKind};

const SQL: &str = "CREATE TABLE settings (id INTEGER PRIMARY KEY, value);
                   CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, value);
                   CREATE TABLE later (id INTEGER PRIMARY KEY, value)";

/// The highest number that a header can have.
const MOST: u64 = i64::MAX as u64;

struct Fleet {
    world: World,
    base: Engine,
    good: Engine,
    insider: Engine,
}

fn fleet() -> Fleet {
    let world = World::new();
    let mut base = world.base("base");
    sql(&base, SQL);
    base.track("settings", &TrackOptions::default()).unwrap();
    base.track("readings", &common::append()).unwrap();
    let board = |name: &str| {
        let mut board = world.board_with(name, SQL, &["settings"]);
        board.track("readings", &common::append()).unwrap();
        sql(&board, &format!("INSERT INTO readings (value) VALUES ('{name}')"));
        board
    };
    let (mut good, mut insider) = (board("good"), board("insider"));
    sql(&base, "INSERT INTO settings VALUES (0, 'base')");
    for _ in 0..2 {
        common::carry_all(&mut [&mut base, &mut good, &mut insider]);
    }
    Fleet { world, base, good, insider }
}

/// All that a person or a program does at a device goes on, and it stays who it is.
fn goes_on(world: &World, victim: &mut Engine, other: &mut Engine, insider: &Engine, what: &str) {
    let id = victim.identity().id;
    victim.devices().unwrap();
    victim.status().unwrap();
    victim.compact().unwrap();
    for device in [&mut *victim, &mut *other] {
        device.track("later", &TrackOptions::default()).unwrap();
    }
    victim.add_column("settings", "more", "TEXT", None).unwrap();
    sql(victim, "INSERT OR REPLACE INTO settings (id, value) VALUES (77, 'honest')");
    sql(victim, "INSERT INTO readings (value) VALUES ('honest')");
    assert!(victim.seal().unwrap().frames > 0, "{what}");
    victim.retire(insider.identity().id, Some(&world.fleet)).unwrap();
    for _ in 0..2 {
        carry(victim, other);
        carry(other, victim);
    }
    victim.compact().unwrap();
    assert_eq!(rows(other, "SELECT value FROM settings WHERE id = 77"), ["\"honest\""], "{what}");
    digests_equal(&[victim, other]);
    assert_eq!(victim.identity().id, id, "{what}");
    let notices = victim.status().unwrap().notices;
    assert!(!notices.iter().any(|n| n.text.contains("histor")), "{what}: {notices:?}");
}

#[test]
fn a_header_that_lies_about_a_log_changes_nothing_for_its_author() {
    for of_base in [true, false] {
        for as_probes in [false, true] {
            for seq in [1, 4, MOST] {
                for heard_only in [false, true] {
                    let Fleet { world, mut base, mut good, mut insider } = fleet();
                    let (victim, other) =
                        if of_base { (&mut base, &mut good) } else { (&mut good, &mut base) };
                    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
                    let bytes = bundle(&mut insider, victim);
                    let claims = Stream::ALL.map(|stream| (stream, seq, [9; 4]));
                    let bytes = bundles::lie(&insider, &bytes, victim, &claims, as_probes);
                    let what =
                        format!("of the base {of_base}, probes {as_probes}, {seq}, heard only {heard_only}");
                    if heard_only {
                        victim.hear(&bytes[..]).unwrap();
                    } else {
                        let report = import(victim, &bytes);
                        assert!(report.ops > 0 && report.new_identity.is_none(), "{what}: {report:?}");
                    }
                    goes_on(&world, victim, other, &insider, &what);
                }
            }
        }
    }
}

/// The newest checkpoints that a bundle shows.
fn shown(bytes: &[u8]) -> Vec<Newest> {
    let newest = bundles::records(bytes).into_iter().filter(|(kind, _)| *kind == RecordKind::Newest);
    newest.map(|(_, body)| Newest::decode(&body).unwrap()).collect()
}

/// A board of a backup, while the board has gone on, and the base knows.
fn set_back() -> (World, Engine, Engine, packmule::Identity) {
    let Fleet { world, mut base, mut good, .. } = fleet();
    let backup = world.path("backup");
    common::copy_card(&good, &backup);
    for n in 0..3 {
        sql(&good, &format!("INSERT INTO settings VALUES ({}, 'lost')", 10 + n));
        sql(&good, "INSERT INTO readings (value) VALUES ('lost')");
        carry(&mut good, &mut base);
    }
    let before = good.identity().clone();
    drop(good);
    let good = Engine::open_with(&backup, world.options()).unwrap();
    (world, base, good, before)
}

/// It costs nothing where nobody was set back; a bundle for a device that was shows it its own newest checkpoints.
#[test]
fn a_bundle_shows_a_device_that_was_set_back_its_own_newest_checkpoints() {
    let (_world, mut base, mut good, before) = set_back();
    assert!(shown(&bundle(&mut base, &good)).is_empty());
    assert!(shown(&bundle(&mut good, &base)).is_empty());
    // The base hears that it has less.
    carry(&mut good, &mut base);
    assert_eq!(good.identity(), &before);
    // Without its frames, as where there is no room for them.
    let have = base.positions().unwrap();
    for receiver in [Some(before.id), None] {
        let part = packmule::Part { receiver, have: &have, enough_bytes: u64::MAX, most_bytes: u64::MAX };
        let mut bytes = Vec::new();
        let report = base.export_part(&mut bytes, &part).unwrap();
        bytes.extend(report.footer);
        let of_good = shown(&bytes).into_iter().filter(|shown| shown.checkpoint.author == before.id);
        assert_eq!(of_good.count(), 2, "{receiver:?}");
        good.hear(&bytes[..]).unwrap();
        // Who knows that it was set back seals nothing before it has its own again.
        let refused = good.add_column("settings", "more", "TEXT", None);
        assert!(matches!(refused, Err(Error::RolledBack)), "{receiver:?}: {refused:?}");
    }
    let bytes = bundle(&mut base, &good);
    import(&mut good, &bytes);
    assert_eq!(good.identity(), &before);
    assert_eq!(rows(&good, "SELECT count(*) FROM settings WHERE value = 'lost'"), ["3"]);
    sql(&good, "INSERT INTO settings VALUES (90, 'new')");
    carry(&mut good, &mut base);
    carry(&mut base, &mut good);
    digests_equal(&[&base, &good]);
}

/// A checkpoint that somebody else signed, or spoiled, is no proof.
#[test]
fn a_newest_checkpoint_with_another_signature_proves_nothing() {
    let Fleet { world, mut base, mut good, mut insider } = fleet();
    sql(&insider, "INSERT INTO settings VALUES (5, 'sound')");
    let bytes = bundle(&mut insider, &good);
    let genuine = {
        let part = packmule::Part {
            receiver: None,
            have: &base.positions().unwrap(),
            enough_bytes: u64::MAX,
            most_bytes: u64::MAX,
        };
        let mut bytes = Vec::new();
        let report = base.export_part(&mut bytes, &part).unwrap();
        bytes.extend(report.footer);
        shown(&bytes).into_iter().find(|shown| shown.checkpoint.author == good.identity().id).unwrap()
    };
    let mut forged = genuine;
    forged.checkpoint.last += 5;
    forged.checkpoint.first = forged.checkpoint.last;
    let mut other_chain = genuine;
    other_chain.end.0[0] ^= 1;
    for wrong in [forged, other_chain] {
        let mut buf = [0; packmule_core::wire::NEWEST_LEN];
        wrong.encode(&mut buf).unwrap();
        let mut records = bundles::records(&bytes);
        let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Certificate).unwrap();
        records.insert(at + 1, (RecordKind::Newest, buf.to_vec()));
        import(&mut good, &bundles::join(&records));
    }
    goes_on(&world, &mut good, &mut base, &insider, "a newest checkpoint");
}

/// A general bundle is enough, of a base that has heard nothing from the board since.
#[test]
fn a_bundle_for_anyone_shows_a_board_that_it_was_set_back() {
    let (_world, mut base, mut good, before) = set_back();
    import(&mut good, &whole_bundle(&mut base));
    assert_eq!(good.identity(), &before);
    assert_eq!(rows(&good, "SELECT count(*) FROM settings WHERE value = 'lost'"), ["3"]);
    digests_equal(&[&base, &good]);
}
