//! What comes from outside costs in proportion to its size, also what one device signs to make others work: counted in
//! steps of SQLite's virtual machine and in allocations, at n and at 4 n.
//!
//! `PACKMULE_LINEAR=1000,4000,16000 cargo test --release --test linear -- --nocapture` prints them, and seconds.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;
mod counted;
mod odd;

use common::{World, bundle, carry, import, rows, sql, try_import};
use counted::{Counted, is_linear};
use odd::{Def, Insider};
use packmule::core::model::{DeviceId, Value};
use packmule::core::wire::{
    CERT_MAX, Certificate, Column, DefReader, DefWriter, FrameFlags, FrameWriter, GroupStart, Merge, Named,
    OpHead, OpKind, Policy, RecordKind,
};
use packmule::{Engine, Resolution, Selection, TrackOptions};

/// Both ends of conflicts in one frame.
fn conflicts(counted: &mut Counted, n: u64) {
    let world = World::new();
    let make = "CREATE TABLE t (k INTEGER PRIMARY KEY, v)";
    let mut a = world.board_with("a", make, &["t"]);
    let mut b = world.board_with("b", make, &["t"]);
    common::carry_all(&mut [&mut a, &mut b]);
    let numbers = format!("WITH RECURSIVE n(k) AS (VALUES (1) UNION ALL SELECT k + 1 FROM n WHERE k < {n})");
    sql(&a, &format!("INSERT INTO t {numbers} SELECT k, 1 FROM n"));
    sql(&b, &format!("INSERT INTO t {numbers} SELECT k, 2 FROM n"));
    let bytes = bundle(&mut a, &b);
    let report = counted.part(n, "import", || import(&mut b, &bytes));
    assert_eq!(report.conflicts_opened, n);
    counted.part(n, "digest", || b.digest(false).unwrap());
    let mut listed = 0;
    counted.part(n, "conflicts", || {
        b.each_conflict(&mut |_| {
            listed += 1;
            Ok(())
        })
        .unwrap();
    });
    assert_eq!(listed, n);
    sql(&b, "UPDATE packmule_conflicts SET take = 'newest' WHERE json_extract(key, '$.k') % 2");
    counted.part(n, "half of them decided in SQL", || b.seal().unwrap());
    let all = Selection::default();
    let done = counted
        .part(n, "resolve --all", || b.resolve_all(&all, &Resolution::Newest, &mut |_| Ok(())).unwrap());
    assert_eq!((done.closed, done.open), (n / 2, 0));
    counted.part(n, "carried back", || carry(&mut b, &mut a));
}

#[test]
fn conflicts_in_one_frame() {
    is_linear(400, conflicts);
}

/// A base, and somebody with the key of a board.
fn with_insider() -> (World, Engine, Insider, Vec<Def>) {
    let world = World::new();
    let mut base = world.base("base");
    let make = "CREATE TABLE settings (id INTEGER PRIMARY KEY, value)";
    let mut insider = world.board_with("insider", make, &["settings"]);
    sql(&base, make);
    base.track("settings", &TrackOptions::default()).unwrap();
    common::carry_all(&mut [&mut base, &mut insider]);
    let (insider, defs) = Insider::of(&mut insider);
    (world, base, insider, defs)
}

fn frame(
    flags: FrameFlags,
    seq: u64,
    lamport: u64,
    context: &[(Named, u64)],
    write: impl FnOnce(&mut FrameWriter<'_>),
) -> Vec<u8> {
    let group = GroupStart { lamport, wall: 1_700_000_000_000, pair: 0, context };
    let mut buf = vec![0; 65_000];
    let mut writer = FrameWriter::new(&mut buf, flags, seq, Some(group)).unwrap();
    write(&mut writer);
    writer.finish().to_vec()
}

/// Has the frames in one bundle.
fn together(bundles: &[Vec<u8>]) -> Vec<u8> {
    let mut all = bundles::records(&bundles[0]);
    let frames = |(kind, _): &(RecordKind, Vec<u8>)| {
        matches!(kind, RecordKind::Section | RecordKind::Frame | RecordKind::Checkpoint)
    };
    for bytes in &bundles[1..] {
        all.extend(bundles::records(bytes).into_iter().filter(frames));
    }
    bundles::join(&all)
}

fn id(n: u64) -> DeviceId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    DeviceId(id)
}

/// Contexts that name devices of which nobody has heard, `seen` up to this frame; then groups without anything in them.
fn contexts(counted: &mut Counted, n: u64, seen: u64, flags: FrameFlags, introduced: bool) {
    let (_world, mut base, mut insider, _) = with_insider();
    let named: Vec<(Named, u64)> = (0..n)
        .map(|at| match introduced {
            true => (Named::Introduced(at as u32 + 2, id(at)), seen),
            false => (Named::Id(id(at)), seen),
        })
        .collect();
    let mut all = Vec::new();
    for (at, some) in named.chunks(200).enumerate() {
        let body = frame(flags, insider.seq + 1, 20 + at as u64, some, |_| ());
        all.push(insider.sign(body));
    }
    let bytes = together(&all);
    counted.part(n, "contexts", || drop(import(&mut base, &bytes)));
    let empty: Vec<Vec<u8>> = (0..n / 10)
        .map(|at| {
            let body = frame(FrameFlags::default(), insider.seq + 1, 1_000 + at, &[], |_| ());
            insider.sign(body)
        })
        .collect();
    let bytes = together(&empty);
    let waits = counted.part(n, "groups after them", || import(&mut base, &bytes)).waits;
    assert_eq!(waits.len(), usize::from(seen > 0), "{waits:?}");
    counted.part(n, "devices", || drop(base.devices().unwrap()));
    counted.part(n, "status", || drop(base.status().unwrap()));
    counted.part(n, "export", || drop(common::whole_bundle(&mut base)));
    let known = base.devices().unwrap().len();
    assert_eq!(known, 2, "who has no certificate is no device");
}

#[test]
fn contexts_of_devices_that_nobody_has_heard_of() {
    is_linear(400, |counted, n| contexts(counted, n, 0, FrameFlags(0), false));
    is_linear(400, |counted, n| contexts(counted, n, 1, FrameFlags(0), false));
    is_linear(400, |counted, n| contexts(counted, n, 0, FrameFlags(0), true));
    is_linear(400, |counted, n| contexts(counted, n, 0, FrameFlags::GAVE_UP, false));
}

/// Definitions of one table, each another one.
fn definitions(counted: &mut Counted, n: u64) {
    let (_world, mut base, mut insider, defs) = with_insider();
    let all: Vec<Vec<u8>> = (0..n)
        .map(|at| {
            let mut reader = DefReader::new(&defs[0].bytes).unwrap();
            let mut columns: Vec<Column<'_>> =
                (0..reader.head.columns).map(|_| reader.item().unwrap()).collect();
            columns[1].default = packmule::core::wire::Default::Literal(Value::Int(at as i64));
            let head = packmule::core::wire::TableHead {
                merge: if at % 2 == 0 { Merge::Row } else { Merge::Cell },
                policy: if at % 2 == 0 { Policy::Manual } else { Policy::Lww },
                ..reader.head
            };
            let mut buf = vec![0; 10_000];
            let mut writer = DefWriter::new(&mut buf, &head).unwrap();
            columns.iter().for_each(|column| writer.item(column).unwrap());
            let def = Def::of(writer.finish());
            let body = frame(FrameFlags::default(), insider.seq + 1, 20 + at, &[], |writer| {
                writer.def(&def.bytes).unwrap();
                let head = OpHead::plain(OpKind::Insert);
                writer.op(def.id, &head, [Value::Int(at as i64 + 1), Value::Int(1)].into_iter()).unwrap();
            });
            insider.sign(body)
        })
        .collect();
    let bytes = together(&all);
    counted.part(n, "definitions", || drop(import(&mut base, &bytes)));
    assert_eq!(rows(&base, "SELECT count(*) FROM _pm_def WHERE 1")[0].parse::<u64>().unwrap() / n, 1);
    counted.part(n, "status", || drop(base.status().unwrap()));
    counted.part(n, "export", || drop(common::whole_bundle(&mut base)));
}

#[test]
fn definitions_of_one_table() {
    is_linear(60, definitions);
}

/// A stranger's bundle with the certificates of as many strangers.
fn certificates(counted: &mut Counted, n: u64) {
    let (world, mut base, _, _) = with_insider();
    let elsewhere = World::seeded(9);
    let mut stranger = elsewhere.board_with("stranger", "CREATE TABLE t (k INTEGER PRIMARY KEY)", &["t"]);
    let mut records = bundles::records(&common::whole_bundle(&mut stranger));
    let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Certificate).unwrap();
    for n in 0..n {
        let mut seed = [5; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let key = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed)).sk;
        let name = format!("stranger {n}");
        let certificate = Certificate::new(&key, &name, false).unwrap();
        let mut buf = [0; CERT_MAX];
        let len = certificate.encode(&mut buf).unwrap();
        records.insert(at + 1, (RecordKind::Certificate, buf[..len].to_vec()));
    }
    let bytes = bundles::join(&records);
    let refused = counted.part(n, "strangers", || try_import(&mut base, &bytes).unwrap_err());
    let text = refused.to_string();
    assert!(text.len() < 1_000, "{} bytes: {text}", text.len());
    let kept: u64 =
        rows(&base, "SELECT count(*) FROM _pm_meta WHERE k GLOB 'request ?*'")[0].parse().unwrap();
    assert_eq!(kept, n.min(256), "that many requests are kept");
    assert_eq!(base.devices().unwrap().len(), 2);
    drop(world);
}

#[test]
fn certificates_of_strangers() {
    is_linear(200, certificates);
}

/// For each of its two lists of a table, `track` has SQLite walk over the whole schema itself (`capture/at_once.rs`): some two and a
/// half entries a table, in so many steps of which nothing else may come.
const WALKED: u64 = 23;

/// The same, for an import that makes a table, its lists and indexes.
const WALKED_MAKING: u64 = 29;

/// Many tables of one database, of which one was changed: all are looked at.
fn tables(counted: &mut Counted, n: u64) {
    let world = World::new();
    let (mut a, mut b) = (world.board("a"), world.board("b"));
    let make = |at| format!("CREATE TABLE t{at} (id INTEGER PRIMARY KEY, name TEXT, code TEXT UNIQUE);");
    sql(&a, &format!("BEGIN; {} COMMIT", (0..n).map(make).collect::<String>()));
    let names: Vec<String> = (0..n).map(|at| format!("t{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    counted.part(n, "track", || a.track_all(&names, &TrackOptions::default()).unwrap());
    counted.take_off(WALKED * n * n);
    counted.part(n, "track again", || a.track_all(&names, &TrackOptions::default()).unwrap());
    counted.part(n, "status", || a.status().unwrap());
    let mut apart = world.board("c");
    sql(&apart, &format!("BEGIN; {} COMMIT", (0..n).map(make).collect::<String>()));
    let bytes = bundle(&mut a, &apart);
    counted.part(n, "import where they are not tracked", || import(&mut apart, &bytes));
    sql(&a, "ALTER TABLE t0 ADD COLUMN note TEXT; INSERT INTO t1 VALUES (1, 'one', 'a')");
    counted.part(n, "a seal after one was changed", || a.seal().unwrap());
    let bytes = bundle(&mut a, &b);
    counted.part(n, "an import that makes them", || import(&mut b, &bytes));
    counted.take_off(WALKED_MAKING * n * n);
    counted.part(n, "a seal after they were made", || b.seal().unwrap());
    assert_eq!(rows(&b, "SELECT name FROM t1"), ["\"one\""]);
}

#[test]
fn tables_of_one_database() {
    is_linear(40, tables);
}
