//! Whom a device trusts, and what a carrier cannot make of it.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use packmule::core::wire::{
    CERT_MAX, Certificate, Checkpoint, FrameFlags, FrameWriter, GroupStart, LAMPORT_MAX, RecordKind,
};
use packmule::{BundleProblem, Engine, Error, InitOptions, TrackOptions, inspect, label};
use std::io::Cursor;

const TABLE: &str = "CREATE TABLE t (k TEXT PRIMARY KEY, v)";

/// A device of no fleet, and a bundle of it.
fn stranger(world: &World) -> (Engine, Vec<u8>) {
    let init = InitOptions { name: "stranger", base: false, fleet: None };
    let mut stranger = Engine::init_with(&world.path("stranger"), &init, world.options()).unwrap();
    sql(&stranger, &format!("{TABLE}; INSERT INTO t VALUES ('s', 1)"));
    stranger.track("t", &TrackOptions::default()).unwrap();
    let bytes = whole_bundle(&mut stranger);
    (stranger, bytes)
}

#[test]
fn checking_a_bundle_changes_nothing() {
    let world = World::new();
    let mut b = world.board("b");
    let (_stranger, bytes) = stranger(&world);
    let good = whole_bundle(&mut world.board_with("a", TABLE, &["t"]));
    let before = everything(b.path());
    assert!(matches!(b.check(&mut Cursor::new(&bytes)), Err(Error::AsksForAdmission { .. })));
    assert!(matches!(b.check(&mut Cursor::new(&good[..200])), Err(Error::Bundle { .. })));
    let mut good = Cursor::new(&good);
    b.check(&mut good).unwrap();
    assert_eq!(everything(b.path()), before);
    assert!(b.import(&mut good, &mut |_| ()).unwrap().frames > 0, "it can be read again");
}

#[test]
fn the_sender_of_a_bundle_is_trusted_by_its_bundle() {
    let world = World::new();
    let mut b = world.board("b");
    let (stranger, bytes) = stranger(&world);
    let id = stranger.identity().id;
    // Somebody else's certificate in place of the header's signer: nobody is trusted by it.
    let own = whole_bundle(&mut b);
    let mut records = bundles::records(&bytes);
    let header = records[0].1.len();
    records[0].1[header - 1] ^= 1;
    let forged = bundles::join(&records);
    let before = everything(b.path());
    match b.trust_sender(&mut &forged[..]) {
        Err(Error::Bundle { cause: BundleProblem::Signature(who), .. }) => {
            assert!(who.starts_with("stranger"))
        }
        other => panic!("{other:?}"),
    }
    let mut records = bundles::records(&bytes);
    records.retain(|(kind, _)| *kind != RecordKind::Certificate);
    let without = bundles::join(&records);
    assert!(matches!(b.trust_sender(&mut &without[..]), Err(Error::Untrusted(_))));
    assert!(matches!(b.trust_sender(&mut &own[..]), Err(Error::Usage(_))));
    assert_eq!(everything(b.path()), before);

    assert_eq!(inspect(&forged[..]).unwrap().signed, Some(false));
    assert_eq!(inspect(&without[..]).unwrap().signed, None);
    assert_eq!(inspect(&bytes[..]).unwrap().signed, Some(true));

    let info = b.trust_sender(&mut &bytes[..]).unwrap();
    assert_eq!(
        (info.id, info.name.as_deref(), info.trust),
        (id, Some("stranger"), packmule::TrustedAs::Singly)
    );
    // The certificate was kept: frames without it are taken in now.
    assert!(import(&mut b, &without).frames > 0);
    assert_eq!(rows(&b, "SELECT k FROM t"), ["\"s\""]);
    assert_eq!(label(id, Some("stranger")), format!("stranger-{:08x}", id.short()));
    // One of the fleet stays trusted by the fleet; one that is revoked stays so.
    let mut a = world.board_with("a", TABLE, &["t"]);
    assert_eq!(b.trust_sender(&mut &whole_bundle(&mut a)[..]).unwrap().trust, packmule::TrustedAs::ByFleet);
    b.revoke(id, None).unwrap();
    assert!(matches!(b.trust_sender(&mut &bytes[..]), Err(Error::Revoked { .. })));
    b.take_back_revocation(id, None).unwrap();
    assert_eq!(b.trust_sender(&mut &bytes[..]).unwrap().trust, packmule::TrustedAs::Singly);
}

/// The fleet's part can be cut off a certificate on the way; what is left is signed by the device.
#[test]
fn a_certificate_without_its_fleet_does_not_replace_the_vouched_one() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    sql(&a, "INSERT INTO t VALUES ('x', 1)");
    let mut records = bundles::records(&bundle(&mut a, &b));
    let mut stripped = 0;
    for (kind, body) in &mut records {
        if *kind == RecordKind::Certificate {
            let mut certificate = Certificate::decode(body).unwrap();
            certificate.fleet = None;
            let mut buf = [0; CERT_MAX];
            let len = certificate.encode(&mut buf).unwrap();
            *body = buf[..len].to_vec();
            stripped += 1;
        }
    }
    assert!(stripped > 0);
    assert_eq!(import(&mut b, &bundles::join(&records)).ops, 1);
    // Who hears of the board through this one still trusts it.
    let mut c = world.board("c");
    assert!(import(&mut c, &whole_bundle(&mut b)).frames > 0);
    assert_eq!(rows(&c, "SELECT k FROM t"), ["\"x\""]);
}

/// A device that claims to have counted further than anybody can: refused, or everybody who heard of it
/// would be at the end of its numbers.
#[test]
fn a_stamp_beyond_all_counting_is_refused() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    carry(&mut b, &mut a);
    sql(&a, "INSERT INTO t VALUES ('x', 1)");
    let before = everything(b.path());
    let bytes = bundle(&mut a, &b);
    let forge = |lamport| {
        let mut records = bundles::records(&bytes);
        let frame = records.iter().position(|(kind, _)| *kind == RecordKind::Frame).unwrap();
        let seq = Checkpoint::decode(&records[frame + 1].1).unwrap().first;
        let mut buf = [0; 1024];
        let group = GroupStart { lamport, wall: 0, pair: 0, context: &[] };
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), seq, Some(group)).unwrap();
        let body = writer.finish().to_vec();
        bundles::replace_frame(&mut records, frame, body, &a);
        bundles::join(&records)
    };
    for lamport in [LAMPORT_MAX + 1, i64::MAX as u64, u64::MAX] {
        let bytes = forge(lamport);
        let refused = try_import(&mut b, &bytes);
        assert!(matches!(refused, Err(Error::Bundle { .. })), "{lamport}: {refused:?}");
    }
    assert_eq!(everything(b.path()), before);
    // At the limit it is taken, and what is written here afterwards can still be carried on.
    let bytes = forge(LAMPORT_MAX);
    drop(a);
    import(&mut b, &bytes);
    for n in 0..3 {
        sql(&b, &format!("INSERT INTO t VALUES ('y{n}', 1)"));
        b.seal().unwrap();
    }
    let mut c = world.board("c");
    sql(&c, TABLE);
    c.track("t", &TrackOptions::default()).unwrap();
    import(&mut c, &whole_bundle(&mut b));
    assert_eq!(rows(&c, "SELECT count(*) FROM t"), ["3"]);
}

/// A power cut in `init`, before and after the database has become a device.
#[test]
fn a_power_cut_in_init_is_in_nobodys_way() {
    let world = World::new();
    let new = |name: &str| world.path(name).with_extension("db.pmkey.new");
    let key = |name: &str| world.path(name).with_extension("db.pmkey");
    std::fs::write(new("a"), "packmule device key 1\ncut sh").unwrap();
    let a = world.board("a");
    assert!(a.can_sign() && key("a").exists() && !new("a").exists());
    drop(a);
    std::fs::rename(key("a"), new("a")).unwrap();
    let mut a = Engine::open(&world.path("a")).unwrap();
    assert!(a.can_sign() && key("a").exists() && !new("a").exists());
    sql(&a, TABLE);
    a.track("t", &TrackOptions::default()).unwrap();
    // A new key of another device is not taken for this one's.
    drop(a);
    drop(world.board("b"));
    std::fs::rename(key("b"), new("a")).unwrap();
    std::fs::remove_file(key("a")).unwrap();
    assert!(!Engine::open(&world.path("a")).unwrap().can_sign());
    // And one with the right name stays where it is: its database may come back.
    std::fs::write(key("d"), "somebody's").unwrap();
    let init = InitOptions { name: "d", base: false, fleet: None };
    assert!(matches!(Engine::init(&world.path("d"), &init), Err(Error::Replaced { .. })));
    assert_eq!(std::fs::read_to_string(key("d")).unwrap(), "somebody's");
    assert!(!world.path("d").exists() && !new("d").exists());
}

#[test]
fn several_tables_are_tracked_together_or_not_at_all() {
    let world = World::new();
    let mut a = world.board("a");
    sql(
        &a,
        &format!(
            "{TABLE}; CREATE TABLE u (k TEXT PRIMARY KEY, v); CREATE TABLE none (v, w); INSERT INTO u VALUES (1, 1)"
        ),
    );
    let before = everything(a.path());
    match a.track_all(&["t", "u", "none"], &TrackOptions::default()) {
        Err(Error::CannotTrack { table, .. }) => assert_eq!(table, "none"),
        other => panic!("{other:?}"),
    }
    assert_eq!(everything(a.path()), before);
    let reports = a.track_all(&["t", "u", "t"], &TrackOptions::default()).unwrap();
    assert_eq!(
        reports.iter().map(|r| (r.rows, r.already)).collect::<Vec<_>>(),
        [(0, false), (1, false), (0, true)]
    );
    let before = everything(a.path());
    assert!(matches!(a.untrack_all(&["t", "none"]), Err(Error::UnknownTable { .. })));
    assert_eq!(everything(a.path()), before);
    a.untrack_all(&["t", "u"]).unwrap();
    assert!(a.status().unwrap().tables.iter().all(|t| t.how == packmule::TableHow::Untracked));
}

/// A device with a row, that another one's key vouches for; its bundle, with both certificates.
fn vouched_for(world: &World, (name, base): (&str, bool), by: &mut Engine) -> (Engine, Vec<u8>) {
    let init = InitOptions { name, base, fleet: None };
    let mut device = Engine::init_with(&world.path(name), &init, world.options()).unwrap();
    sql(&device, &format!("{TABLE}; INSERT INTO t VALUES ('{name}', 1)"));
    device.track("t", &TrackOptions::default()).unwrap();
    let mut records = bundles::records(&whole_bundle(&mut device));
    let at = records.iter().position(|(kind, _)| *kind == RecordKind::Certificate).unwrap();
    records[at] = certificate(&device, (name, base, 0), &bundles::key_of(by));
    let issuers = bundles::records(&whole_bundle(by));
    let own = |record: &&bundles::Record| {
        record.0 == RecordKind::Certificate
            && Certificate::decode(&record.1).unwrap().device() == by.identity().id
    };
    records.insert(at, issuers.iter().find(own).unwrap().clone());
    (device, bundles::join(&records))
}

/// A device's certificate, which another key vouches for.
fn certificate(
    device: &Engine,
    (name, base, serial): (&str, bool, u8),
    by: &ed25519_compact::SecretKey,
) -> bundles::Record {
    let own = Certificate::numbered(&bundles::key_of(device), name, base, serial).unwrap();
    let mut buf = [0; CERT_MAX];
    let len = own.vouched(by).unwrap().encode(&mut buf).unwrap();
    (RecordKind::Certificate, buf[..len].to_vec())
}

/// A device's key vouches for the second history of its card. Such an identity has the role of the first, by nobody's word
/// another one, and is revoked with it.
#[test]
fn whom_a_device_vouches_for_has_its_role_and_goes_with_it() {
    let world = World::new();
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut gate = world.base("gate");
    let known = |to: &Engine, of: &Engine| {
        let id = of.identity().id;
        to.devices().unwrap().into_iter().find(|device| device.id == id)
    };
    let false_base = vouched_for(&world, ("false base", true), &mut a);
    let board_of_base = vouched_for(&world, ("board of base", false), &mut gate);
    let (second, bytes) = vouched_for(&world, ("second", false), &mut a);
    let (third, more) = vouched_for(&world, ("third", false), &mut a);
    // Those who know the issuer, and those who hear of it with the same bundle.
    for (name, meets) in [("base", true), ("new", false)] {
        let mut base = world.base(name);
        if meets {
            carry(&mut a, &mut base);
            carry(&mut gate, &mut base);
        }
        for (device, bytes) in [&false_base, &board_of_base] {
            let taken = try_import(&mut base, bytes);
            assert!(matches!(taken, Err(Error::Untrusted(_))), "{name}: {taken:?}");
            assert!(known(&base, device).is_none_or(|d| d.trust == packmule::TrustedAs::No), "{name}");
        }
        assert_eq!(import(&mut base, &bytes).ops, 1, "control: the same role");
        let device = known(&base, &second).unwrap();
        assert_eq!((device.base, device.trust), (false, packmule::TrustedAs::ByFleet));
        // It says more of itself: that it is a base, or that it has nothing to do with `a`.
        let at = |records: &[bundles::Record]| {
            records.iter().rposition(|(kind, _)| *kind == RecordKind::Certificate).unwrap()
        };
        for by in [bundles::key_of(&third), bundles::key_of(&gate), bundles::key_of(&a)] {
            for role in [true, false] {
                let mut records = bundles::records(&bytes);
                let place = at(&records);
                records[place] = certificate(&second, ("second", role, 7), &by);
                let _ = try_import(&mut base, &bundles::join(&records));
                assert!(!known(&base, &second).unwrap().base, "{name}");
            }
        }
        assert_eq!(base.status().unwrap().notices, [], "one copy of a card is no theft");
        // A second copy is taken in as the first was, and is named.
        assert_eq!(import(&mut base, &more).ops, 1);
        let notices = base.status().unwrap().notices;
        let named = |notice: &packmule::Notice| notice.text.contains("more than one other identity");
        assert!(notices.iter().any(named), "{notices:?}");
        base.revoke(a.identity().id, None).unwrap();
        for device in [&second, &third] {
            assert_eq!(known(&base, device).unwrap().trust, packmule::TrustedAs::Revoked, "{name}");
        }
    }
}
