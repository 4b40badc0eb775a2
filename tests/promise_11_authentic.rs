//! Promise 11: every frame is its author's, or it is refused before anything is applied.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod bundles;
mod common;
use common::*;
use ed25519_compact::{KeyPair, SecretKey, Seed};
use packmule::core::model::DeviceId;
use packmule::core::wire::{
    CERT_MAX, Certificate, Checkpoint, Header, HeaderReader, RecordKind, Section, crc32, put, take,
};
use packmule::{
    BundleProblem, Engine, Error, FleetKey, ImportReport, InitOptions, Missing, Result, UntrustedDevice, Wait,
};

fn small() -> (World, Engine, Engine) {
    let world = World::new();
    let mut a = world.board_with("a", "CREATE TABLE t (k TEXT PRIMARY KEY, v)", &["t"]);
    let mut b = world.board("b");
    carry(&mut a, &mut b);
    carry(&mut b, &mut a);
    sql(&a, "INSERT INTO t VALUES ('x', 1)");
    (world, a, b)
}

/// A device in a file of its own, which may call itself as it likes.
fn device(world: &World, file: &str, name: &str, fleet: Option<&FleetKey>) -> Engine {
    let init = InitOptions { name, base: false, fleet };
    let mut engine = Engine::init_with(&world.path(file), &init, world.options()).unwrap();
    sql(&engine, "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('of a stranger', 1)");
    engine.track("t", &Default::default()).unwrap();
    engine
}

/// A bundle with its header made again and signed by this key.
fn with_header(bytes: &[u8], sender: DeviceId, key: &SecretKey) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let old = HeaderReader::parse(&records[0].1).unwrap();
    let header = Header { sender, ..old.header };
    let mut buf = vec![0; 4096];
    let len = header.encode(&mut buf, old.applied(), old.probes(), key).unwrap();
    buf.truncate(len);
    records[0].1 = buf;
    bundles::join(&records)
}

#[test]
fn every_bit_flipped_is_refused_and_nothing_changes() {
    let (_world, mut a, mut b) = small();
    let bytes = bundle(&mut a, &b);
    assert!(bytes.len() < 2000, "{}", bytes.len());
    let before = everything(b.path());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match try_import(&mut b, &damaged) {
            Err(Error::Bundle { .. }) => {}
            other => panic!("bit {bit}: {other:?}"),
        }
        if bit % 64 == 0 {
            assert_eq!(everything(b.path()), before, "bit {bit}");
        }
    }
    assert_eq!(everything(b.path()), before);
    assert_eq!(import(&mut b, &bytes).ops, 1, "the whole one is fine");
}

/// With every check sum made right again, the signature is what finds it.
#[test]
fn every_changed_byte_of_a_frame_with_new_check_sums_is_refused() {
    let (_world, mut a, mut b) = small();
    let bytes = bundle(&mut a, &b);
    let records = bundles::records(&bytes);
    let at = records.iter().position(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    let before = everything(b.path());
    let mut signatures = 0;
    for byte in 0..records[at].1.len() - 4 {
        let mut forged = records.clone();
        let frame = &mut forged[at].1;
        frame[byte] ^= 0x01;
        let end = frame.len() - 4;
        let crc = crc32(&frame[..end]).to_le_bytes();
        frame[end..].copy_from_slice(&crc);
        match try_import(&mut b, &bundles::join(&forged)) {
            Err(Error::Bundle { cause: BundleProblem::Signature(who), .. }) => {
                assert!(who.starts_with("a-"), "{who}");
                signatures += 1;
            }
            Err(Error::Bundle { .. }) => {}
            other => panic!("byte {byte}: {other:?}"),
        }
    }
    assert!(signatures > 10, "{signatures}");
    assert_eq!(everything(b.path()), before);
    // The same for each byte of the checkpoint: its author, its numbers, the chain, the signature.
    let at = records.iter().position(|(kind, _)| *kind == RecordKind::Checkpoint).unwrap();
    for byte in 0..records[at].1.len() {
        let mut forged = records.clone();
        forged[at].1[byte] ^= 0x10;
        let refused = try_import(&mut b, &bundles::join(&forged));
        assert!(
            matches!(refused, Err(Error::Bundle { .. } | Error::Untrusted(_))),
            "byte {byte}: {refused:?}"
        );
    }
    // And of the header and the certificates.
    for (at, (kind, body)) in records.iter().enumerate() {
        if matches!(kind, RecordKind::Header | RecordKind::Certificate) {
            for byte in 0..body.len() {
                let mut forged = records.clone();
                forged[at].1[byte] ^= 0x10;
                let refused = try_import(&mut b, &bundles::join(&forged));
                let is_refused = matches!(refused, Err(Error::Bundle { .. } | Error::Untrusted(_)));
                assert!(is_refused || waits_for_its_sender(refused), "{kind:?} byte {byte}");
            }
        }
    }
    assert_eq!(everything(b.path()), before);
}

#[test]
fn records_left_out_doubled_or_moved_are_refused() {
    let (_world, mut a, mut b) = small();
    for text in ["UPDATE t SET v = 2", "UPDATE t SET v = 3"] {
        a.seal().unwrap();
        sql(&a, text);
    }
    let records = bundles::records(&bundle(&mut a, &b));
    let before = everything(b.path());
    let structural = |kind: RecordKind| {
        matches!(kind, RecordKind::Frame | RecordKind::Checkpoint | RecordKind::Section | RecordKind::Header)
    };
    for at in 0..records.len() - 1 {
        let mut without = records.clone();
        let (kind, _) = without.remove(at);
        if structural(kind) {
            assert!(try_import(&mut b, &bundles::join(&without)).is_err(), "without {at}: {kind:?}");
        }
        if matches!(kind, RecordKind::Frame | RecordKind::Checkpoint | RecordKind::Header) {
            let mut twice = records.clone();
            twice.insert(at, records[at].clone());
            assert!(try_import(&mut b, &bundles::join(&twice)).is_err(), "twice {at}: {kind:?}");
        }
    }
    assert_eq!(everything(b.path()), before);
    let frames: Vec<usize> = (0..records.len()).filter(|at| records[*at].0 == RecordKind::Frame).collect();
    let mut swapped = records.clone();
    swapped.swap(frames[0], frames[1]);
    assert!(try_import(&mut b, &bundles::join(&swapped)).is_err());
    assert_eq!(everything(b.path()), before);
}

/// An untrusted device's frames under a trusted device's name.
#[test]
fn frames_of_another_author_under_a_trusted_name_are_refused() {
    let (world, mut a, mut b) = small();
    let mut stranger = device(&world, "stranger", "a", None);
    let real = bundles::records(&bundle(&mut a, &b));
    let fake = bundles::records(&whole_bundle(&mut stranger));
    let (a_id, before) = (a.identity().id, everything(b.path()));

    // With A's header and certificate, and the untrusted device's frames in a section that says A.
    let mut forged: Vec<_> = real
        .iter()
        .filter(|(kind, _)| matches!(kind, RecordKind::Header | RecordKind::Certificate))
        .cloned()
        .collect();
    for (kind, body) in &fake {
        match kind {
            RecordKind::Section => {
                let section: Section = take(&mut &body[..]).unwrap();
                let mut buf = [0; 32];
                let len = put(&mut buf, &Section { author: a_id, ..section }).unwrap();
                forged.push((*kind, buf[..len].to_vec()));
            }
            RecordKind::Frame => forged.push((*kind, body.clone())),
            RecordKind::Checkpoint => {
                let checkpoint = Checkpoint { author: a_id, ..Checkpoint::decode(body).unwrap() };
                let mut buf = [0; 256];
                let len = checkpoint.encode(&mut buf).unwrap();
                forged.push((*kind, buf[..len].to_vec()));
            }
            _ => {}
        }
    }
    match try_import(&mut b, &bundles::join(&forged)) {
        Err(Error::Bundle { cause: BundleProblem::Signature(who), .. }) => {
            assert!(who.starts_with("a-"), "{who}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(everything(b.path()), before);
}

/// All that is in a database; requests for admission, which are all that is kept of who is not trusted, are taken out.
fn without_requests(path: &std::path::Path) -> Vec<String> {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute("DELETE FROM _pm_meta WHERE k GLOB 'request ?*'", []).unwrap();
    everything(path)
}

/// A bundle for one device names a sender whose certificate is not here, and not in it: it could be one that is known, if this
/// device was set back. Nothing of it is taken in.
fn waits_for_its_sender(imported: Result<ImportReport>) -> bool {
    imported.is_ok_and(|report| {
        let waits = matches!(&report.waits[..], [Wait { missing: Missing::Certificate, .. }]);
        waits && (report.frames, report.known, report.ops) == (0, 0, 0)
    })
}

#[test]
fn a_header_signed_by_an_untrusted_device_is_refused() {
    let (_world, mut a, mut b) = small();
    let bytes = bundle(&mut a, &b);
    let before = everything(b.path());
    let pair = KeyPair::from_seed(Seed::new([7; 32]));
    // In A's name: the signature is not A's.
    match try_import(&mut b, &with_header(&bytes, a.identity().id, &pair.sk)) {
        Err(Error::Bundle { cause: BundleProblem::Signature(who), .. }) => assert!(who.starts_with("a-")),
        other => panic!("{other:?}"),
    }
    // In its own name, without and with its certificate: nobody knows it.
    let id = DeviceId::of_key(&pair.pk);
    let forged = with_header(&bytes, id, &pair.sk);
    assert!(waits_for_its_sender(try_import(&mut b, &forged)));
    assert_eq!(everything(b.path()), before);
    let mut records = bundles::records(&forged);
    let mut buf = [0; CERT_MAX];
    let len = Certificate::new(&pair.sk, "a", false).unwrap().encode(&mut buf).unwrap();
    records.insert(1, (RecordKind::Certificate, buf[..len].to_vec()));
    let asks = try_import(&mut b, &bundles::join(&records));
    assert!(matches!(asks, Err(Error::AsksForAdmission { devices, .. }) if devices[0].id == id));
    assert_eq!(without_requests(b.path()), before);
    // Vouched for by a fleet of its own making.
    let fleet = KeyPair::from_seed(Seed::new([8; 32]));
    let vouched = Certificate::new(&pair.sk, "a", false).unwrap().vouched(&fleet.sk).unwrap();
    let len = vouched.encode(&mut buf).unwrap();
    records[1].1 = buf[..len].to_vec();
    assert!(
        matches!(try_import(&mut b, &bundles::join(&records)), Err(Error::Untrusted(s)) if s[0].id == id)
    );
    assert_eq!(everything(b.path()), before);
}

#[test]
fn an_untrusted_device_asks_and_is_refused_with_its_fingerprint_and_trusted_by_it() {
    let (world, mut a, mut b) = small();
    let mut stranger = device(&world, "stranger", "drone", None);
    let id = stranger.identity().id;
    let bytes = whole_bundle(&mut stranger);
    let before = everything(b.path());
    let error = try_import(&mut b, &bytes).unwrap_err();
    match &error {
        Error::AsksForAdmission { devices, base: false } => {
            assert_eq!(devices[..], [UntrustedDevice { id, name: Some("drone".into()), revoked: false }])
        }
        other => panic!("{other:?}"),
    }
    let said = error.to_string();
    assert!(said.contains("drone") && said.contains(&id.to_string()), "{said}");
    assert_eq!(error.hint(), Some(packmule::Hint::Admit { devices: vec![id], here: false }));
    assert_eq!(b.applicants().unwrap()[0].id, id);
    assert_eq!(without_requests(b.path()), before);

    b.trust(id).unwrap();
    assert_eq!(import(&mut b, &bytes).ops, 1);
    assert_eq!(b.devices().unwrap().iter().find(|d| d.id == id).unwrap().trust, packmule::TrustedAs::Singly);
    // Trust is not handed on: A has to be told by its own people.
    let through_b = whole_bundle(&mut b);
    assert!(
        matches!(try_import(&mut a, &through_b), Err(Error::AsksForAdmission { devices, .. }) if devices[0].id == id)
    );
    a.trust(id).unwrap();
    import(&mut a, &through_b);
    carry(&mut a, &mut b);
    digests_equal(&[&a, &b]);
}

#[test]
fn a_revoked_device_is_refused_and_what_it_wrote_before_stays() {
    let (_world, mut a, mut b) = small();
    carry(&mut a, &mut b);
    let id = a.identity().id;
    b.revoke(id, None).unwrap();
    sql(&a, "UPDATE t SET v = 'after'");
    let bytes = bundle(&mut a, &b);
    let before = everything(b.path());
    let error = try_import(&mut b, &bytes).unwrap_err();
    assert!(matches!(&error, Error::Untrusted(s) if s[0].id == id && s[0].revoked), "{error:?}");
    assert!(error.to_string().contains("revoked"));
    assert_eq!(everything(b.path()), before);
    assert_eq!(rows(&b, "SELECT v FROM t"), ["1"]);
    assert!(b.revoke(b.identity().id, None).is_err(), "not itself");
    // Trust is no way around it: the revocation is taken back.
    assert!(matches!(b.trust(id), Err(Error::Revoked { fleet: false, .. })));
    b.take_back_revocation(id, None).unwrap();
    assert_eq!(import(&mut b, &bytes).ops, 1);
}

#[test]
fn one_whom_the_fleet_vouches_for_is_accepted_and_one_of_another_fleet_is_not() {
    let (world, _a, mut b) = small();
    let mut ours = device(&world, "ours", "ours", Some(&world.fleet));
    let report = carry(&mut ours, &mut b);
    assert_eq!(report.ops, 1);
    assert_eq!(
        b.devices().unwrap().iter().find(|d| d.id == ours.identity().id).unwrap().trust,
        packmule::TrustedAs::ByFleet
    );
    let other = FleetKey::create(&world.dir.path().join("other.key")).unwrap();
    let mut theirs = device(&world, "theirs", "ours", Some(&other));
    let bytes = whole_bundle(&mut theirs);
    assert!(matches!(try_import(&mut b, &bytes), Err(Error::Untrusted(_))));
}

/// A certificate that was vouched for under one name does not vouch for another.
#[test]
fn a_certificate_cannot_be_changed() {
    let world = World::new();
    let key = KeyPair::from_seed(Seed::new([9; 32]));
    let fleet = KeyPair::from_seed(Seed::new([8; 32]));
    let certificate = Certificate::new(&key.sk, "board", false).unwrap().vouched(&fleet.sk).unwrap();
    let mut buf = [0; CERT_MAX];
    for forged in [Certificate { name: "base!", ..certificate }, Certificate { base: true, ..certificate }] {
        let len = forged.encode(&mut buf).unwrap();
        assert!(Certificate::decode(&buf[..len]).is_err());
    }
    let len = certificate.encode(&mut buf).unwrap();
    assert!(Certificate::decode(&buf[..len]).is_ok());
    drop(world);
}
