//! Full, read-only, shared, copied: what an exchange does with cards as they are.

use std::path::Path;

use packmule::carry::card::{self, Exchange, Limits, NotLeft, Removed, Skipped};

use crate::common::*;
use crate::memory::{Card, Wrong, is_whole};
use crate::{Fleet, NAMES, exchange_with};

fn names(card: &Card) -> Vec<String> {
    card.files().keys().map(|path| path.display().to_string()).collect()
}

fn frames(report: &Exchange) -> u64 {
    report.left.iter().map(|left| left.frames).sum()
}

#[test]
fn one_round_brings_all_to_the_base_and_two_to_everybody() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    for name in NAMES {
        let report = fleet.exchange(name, &mut card);
        assert_eq!(report.left.len(), 1, "{name} {report:?}");
        assert!(report.stepped_over.is_empty(), "{report:?}");
    }
    let base = &fleet.devices[3].1;
    assert_eq!(rows(base, "SELECT count(*) FROM readings"), ["6"], "of boards that had never met the base");
    for name in NAMES {
        fleet.exchange(name, &mut card);
    }
    fleet.assert_same(1);
    // All that is left tells what everybody has; and then nobody has anything to say any more.
    for name in NAMES {
        fleet.exchange(name, &mut card);
    }
    let (before, ops) = (card.files(), card.ops());
    for name in NAMES {
        let report = fleet.exchange(name, &mut card);
        assert!(report.taken.is_empty() && report.left.is_empty() && report.removed.is_empty(), "{report:?}");
    }
    assert_eq!(card.files(), before);
    assert_eq!(card.ops(), ops, "a visit with nothing to say writes nothing");
    assert_eq!(before.len(), 4, "one that tells what it has, of each: {:?}", names(&card));
}

#[test]
fn what_is_acknowledged_is_removed_and_nothing_else() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    let left = fleet.exchange("north", &mut card).left[0].file.clone();
    let again = fleet.exchange("north", &mut card);
    assert!(again.left.is_empty() && again.removed.is_empty(), "it lies there already: {again:?}");
    assert_eq!(again.waiting, std::slice::from_ref(&left));
    fleet.exchange("east", &mut card);
    assert!(fleet.exchange("north", &mut card).removed.is_empty(), "no base has it yet");
    fleet.exchange("base", &mut card);
    let report = fleet.exchange("north", &mut card);
    assert!(report.removed.contains(&(left, Removed::Acknowledged)), "{report:?}");
    for (who, path) in card.removals() {
        assert_eq!(card.maker(&path), Some(who));
    }
}

#[test]
fn one_peer_that_lacks_something_gets_a_bundle_of_its_own() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    for name in ["north", "base", "north"] {
        fleet.exchange(name, &mut card);
    }
    sql(fleet.get("north"), "UPDATE settings SET value = 1 WHERE key = 'all'");
    let report = fleet.exchange("north", &mut card);
    let base = fleet.get("base").identity().id;
    assert_eq!((report.left.len(), report.left[0].receiver, report.left[0].frames), (1, Some(base), 1));
    // Another board steps past it, and hears what its sender has.
    let other = fleet.exchange("south", &mut card);
    assert!(other.heard.contains(&report.left[0].file), "{other:?}");
}

#[test]
fn a_card_copied_and_presented_twice_is_harmless() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    for name in NAMES {
        fleet.exchange(name, &mut card);
    }
    let mut old = card.copy();
    fleet.write(1);
    for _ in 0..2 {
        for name in NAMES {
            fleet.exchange(name, &mut card);
        }
    }
    fleet.assert_same(2);
    let digest = fleet.get("base").digest(true).unwrap();
    for _ in 0..2 {
        for name in ["base", "north", "base"] {
            let report = fleet.exchange(name, &mut old);
            assert!(report.taken.is_empty(), "{report:?}");
        }
    }
    assert_eq!(fleet.get("base").digest(true).unwrap(), digest);
    fleet.assert_same(2);
}

#[test]
fn a_read_only_card_gives_and_takes_nothing() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    fleet.exchange("north", &mut card);
    card.read_only(true);
    let before = card.files();
    let report = fleet.exchange("base", &mut card);
    assert_eq!(report.taken.len(), 1);
    assert!(matches!(report.not_left, Some(NotLeft::ReadOnly)), "{report:?}");
    assert_eq!(card.files(), before);
    // Also where something is to be removed.
    fleet.exchange("north", &mut card);
}

/// The oldest groups come first, as many as fit, in files that are whole; the rest the next time.
#[test]
fn a_full_card_takes_the_oldest_first() {
    for tells_room in [true, false] {
        let mut fleet = Fleet::new();
        let north = fleet.get("north");
        for n in 0..40 {
            sql(north, &format!("INSERT INTO settings VALUES ({n}, randomblob(800))"));
            north.seal().unwrap();
        }
        let mut card = Card::new(Wrong::Nothing);
        card.put("MUSIC.MP3", &[0; 5_000]);
        card.capacity(Some(5_000 + 14_000), tells_room);
        let mut visits = 0;
        loop {
            visits += 1;
            assert!(visits < 20, "it gets on");
            let report = fleet.exchange("north", &mut card);
            assert!(card.used() <= 19_000);
            for (path, bytes) in card.files() {
                assert!(is_whole(&bytes) || path.ends_with("MUSIC.MP3"), "{path:?}");
            }
            if visits == 1 {
                assert!(matches!(report.not_left, Some(NotLeft::Full { .. })), "{report:?}");
                assert!((5..40).contains(&frames(&report)), "{report:?}");
            }
            // The base acknowledges on the same full card.
            let taken = fleet.exchange("base", &mut card);
            assert!(taken.taken.iter().all(|t| t.1.waits.is_empty()), "the oldest first: {taken:?}");
            let of_north = "SELECT count(*) FROM settings WHERE typeof(key) = 'text' AND length(key) < 3";
            if rows(fleet.get("base"), of_north) == ["40"] {
                break;
            }
        }
        println!("room told {tells_room}: {visits} visits");
    }
}

#[test]
fn a_card_without_any_room_still_gives() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    fleet.exchange("north", &mut card);
    for tells_room in [true, false] {
        card.capacity(Some(card.used() + 10), tells_room);
        let before = card.files();
        let report = fleet.exchange("base", &mut card);
        assert!(matches!(report.not_left, Some(NotLeft::Full { .. })), "{report:?}");
        assert_eq!(card.files(), before, "nothing torn stays");
    }
    assert_eq!(rows(fleet.get("base"), "SELECT count(*) FROM readings"), ["2"]);
}

/// Files that are full are followed by others.
#[test]
fn long_logs_are_split_at_groups() {
    let mut fleet = Fleet::new();
    let north = fleet.get("north");
    for n in 0..20 {
        sql(north, &format!("INSERT INTO settings VALUES ({n}, randomblob(800))"));
        north.seal().unwrap();
    }
    let mut card = Card::new(Wrong::Nothing);
    let limits = Limits { enough_bytes: 4_000, most_bytes: 6_000 };
    let report = exchange_with(north, &mut card, &limits);
    assert!(report.left.len() >= 4, "{report:?}");
    assert!(report.left.iter().all(|left| left.bytes <= 6_000 && left.frames > 0), "{report:?}");
    assert!(exchange_with(north, &mut card, &limits).left.is_empty());
    let taken = fleet.exchange("base", &mut card);
    assert_eq!(taken.taken.len(), report.left.len());
    assert!(taken.taken.iter().all(|t| t.1.waits.is_empty()), "{taken:?}");
    assert_eq!(rows(fleet.get("base"), "SELECT count(*) FROM settings"), ["22"]);
    assert!(Limits::default().most_bytes < 1 << 32, "what FAT32 takes");
    // A group that no file can hold is named.
    sql(fleet.get("north"), "INSERT INTO settings VALUES ('long', randomblob(18000))");
    let report = exchange_with(fleet.get("north"), &mut card, &limits);
    assert!(matches!(report.not_left, Some(NotLeft::TooLong { next_bytes: 18_000.. })), "{report:?}");
}

/// So are those that are encrypted: no file is longer than it may be.
#[test]
fn long_logs_are_split_when_they_are_encrypted() {
    let mut fleet = Fleet::new();
    fleet.encrypt = true;
    let mut card = Card::new(Wrong::Nothing);
    for name in ["base", "north", "base", "north"] {
        fleet.exchange(name, &mut card);
    }
    let north = fleet.get("north");
    for n in 0..20 {
        sql(north, &format!("INSERT INTO settings VALUES ({n}, randomblob(800))"));
        north.seal().unwrap();
    }
    let limits = Limits { enough_bytes: 4_000, most_bytes: 6_000 };
    let mut report = Exchange::default();
    card::exchange_encrypted(north, &mut card, &limits, &mut |_, _| (), &mut report).unwrap();
    assert!(report.left.len() >= 4, "{report:?}");
    assert!(report.left.iter().all(|left| left.bytes <= 6_000 && left.encrypted), "{report:?}");
    let lens: Vec<u64> = card.files().into_values().map(|bytes| bytes.len() as u64).collect();
    assert!(report.left.iter().all(|left| lens.contains(&left.bytes)), "{report:?} {lens:?}");
    fleet.exchange("base", &mut card);
    assert_eq!(rows(fleet.get("base"), "SELECT count(*) FROM settings"), ["22"]);
}

#[test]
fn what_is_not_in_order_is_named_and_skipped() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    let whole = whole_bundle(fleet.get("north"));
    let stranger = {
        let world = World::seeded(1);
        let mut other = world.board_with("other", "CREATE TABLE t (k INTEGER PRIMARY KEY)", &["t"]);
        whole_bundle(&mut other)
    };
    // The header's version is the first byte of its body; the head has 8 bytes, the magic 8.
    let of_format = |version: u8| {
        use packmule::core::wire::{RecordHead, crc32};
        let mut bytes = whole.clone();
        let len = RecordHead::parse(bytes[8..16].try_into().unwrap()).unwrap().len as usize;
        bytes[16] = version;
        let crc = crc32(&bytes[16..16 + len - 4]).to_le_bytes();
        bytes[16 + len - 4..16 + len].copy_from_slice(&crc);
        bytes
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let bad: [(&str, &[u8], &str); 9] = [
        ("PACKMULE/00000001.PMB", b"", "empty"),
        ("PACKMULE/00000002.PMB", b"something else", "not a Packmule bundle"),
        ("PACKMULE/00000003.PMB", &whole[..whole.len() - 1], "cut short"),
        ("PACKMULE/00000004.PMB", &flipped, "damaged"),
        ("PACKMULE/00000005.PMB", &of_format(2), "update Packmule"),
        ("PACKMULE/00000007.PMB", &of_format(0), "older than format 1"),
        ("PACKMULE/00000006.PMB", &stranger, "not trusted"),
        ("PACKMULE/NOTES.TXT", b"milk", ""),
        ("hand.pmb", &whole[..100], "cut short"),
    ];
    for (path, bytes, _) in bad {
        card.put(path, bytes);
    }
    card.put("holiday.jpg", b"jpeg");
    card.put("good.pmb", &whole);
    let report = fleet.exchange("base", &mut card);
    for (path, _, reason) in bad {
        let found = report.stepped_over.iter().find(|s| s.0.as_path() == Path::new(path));
        match found.unwrap_or_else(|| panic!("{path}: {report:?}")) {
            (_, Skipped::Foreign) => assert_eq!(reason, ""),
            (_, Skipped::Refused(e)) => assert!(e.to_string().contains(reason), "{path}: {e}"),
        }
    }
    assert_eq!(report.stepped_over.len(), bad.len(), "{report:?}");
    assert_eq!(report.taken.len(), 1, "{report:?}");
    // The one that was cut short and is north's is north's to remove; nobody else's, and not outside of the folder.
    let report = fleet.exchange("north", &mut card);
    let removed: Vec<_> = report.removed.iter().map(|r| r.0.display().to_string()).collect();
    assert_eq!(removed, ["PACKMULE/00000003.PMB", "PACKMULE/00000004.PMB"], "{report:?}");
    assert!(names(&card).contains(&"hand.pmb".to_owned()) && names(&card).contains(&"good.pmb".to_owned()));
}

/// A bundle for a device that is trusted no more is not left lying about.
#[test]
fn a_revoked_device_gets_nothing() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    for name in ["north", "base", "north", "base"] {
        fleet.exchange(name, &mut card);
    }
    sql(fleet.get("base"), "UPDATE settings SET value = 2 WHERE key = 'all'");
    let north = fleet.get("north").identity().id;
    let left = fleet.exchange("base", &mut card).left;
    assert_eq!(left[0].receiver, Some(north));
    fleet.get("base").revoke(north, None).unwrap();
    let report = fleet.exchange("base", &mut card);
    assert!(report.removed.contains(&(left[0].file.clone(), Removed::Revoked)), "{report:?}");
    assert!(report.left.iter().all(|left| left.receiver != Some(north)), "{report:?}");
}

/// Two boards from one image and the base share a card: the second goes on under a new identity.
#[test]
fn a_twin_takes_a_new_identity() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    for name in ["north", "base", "north"] {
        fleet.exchange(name, &mut card);
    }
    let was = fleet.get("north").identity().id;
    let mut twin = twin_of(&mut fleet);
    sql(&twin, "INSERT INTO settings VALUES ('twin', 1); INSERT INTO readings (value) VALUES (0.25)");
    sql(fleet.get("north"), "INSERT INTO settings VALUES ('first', 1)");
    for _ in 0..4 {
        fleet.world.tick(1_000);
        fleet.exchange("north", &mut card);
        fleet.exchange("base", &mut card);
        exchange_with(&mut twin, &mut card, &Limits::default());
    }
    assert_eq!(fleet.get("north").identity().id, was);
    assert_ne!(twin.identity().id, was);
    let count = |engine: &packmule::Engine, what: &str| rows(engine, &format!("SELECT count(*) FROM {what}"));
    let both = "settings WHERE key IN ('twin', 'first')";
    for name in ["north", "base"] {
        assert_eq!(count(fleet.get(name), both), ["2"]);
    }
    assert_eq!(count(&twin, both), ["2"]);
    assert_eq!(count(fleet.get("base"), "readings WHERE value = 0.25"), ["1"]);
}

/// A clone of north, as from its card's image.
fn twin_of(fleet: &mut Fleet) -> packmule::Engine {
    let twin = fleet.world.dir.path().join("twin.db");
    fleet.get("north").seal().unwrap();
    copy_card(fleet.get("north"), &twin);
    packmule::Engine::open_with(&twin, fleet.world.options()).unwrap()
}

/// A card image was cloned: what its second history left under the same name is named, and kept.
#[test]
fn what_a_twin_left_is_not_removed() {
    let mut fleet = Fleet::new();
    let mut card = Card::new(Wrong::Nothing);
    for name in ["north", "base", "north"] {
        fleet.exchange(name, &mut card);
    }
    let mut twin = twin_of(&mut fleet);
    sql(&twin, "UPDATE settings SET value = 'twin' WHERE key = 'all'");
    let left = exchange_with(&mut twin, &mut card, &Limits::default()).left[0].file.clone();
    sql(fleet.get("north"), "UPDATE settings SET value = 'first' WHERE key = 'all'");
    fleet.get("north").seal().unwrap();
    for _ in 0..3 {
        let report = fleet.exchange("north", &mut card);
        let named = report.stepped_over.iter().find(|s| s.0 == left);
        assert!(matches!(named, Some((_, Skipped::Refused(packmule::Error::Twin { .. })))), "{report:?}");
    }
    assert!(card.files().contains_key(&left));
}
