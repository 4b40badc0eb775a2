//! The reports serialise, each with the names and values that the program's JSON has for the same.

#![allow(clippy::unwrap_used, clippy::panic)]
mod common;
use common::*;
use packmule::core::model::{DeviceId, Stream};
use packmule::{
    BundleProblem, Engine, Error, Hint, HistoryItem, JoinOptions, OwnedValue, Part, Positions, Recipient,
    TrackOptions,
};
use serde_json::{Value, json};
use std::io::Cursor;

fn of(report: impl serde::Serialize) -> Value {
    serde_json::to_value(report).unwrap()
}

/// Checks that these fields are there and nothing else, of those whose values a test cannot foresee.
#[track_caller]
fn has(report: &Value, fields: &[&str]) {
    let mut are: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = fields.to_vec();
    are.sort_unstable();
    expected.sort_unstable();
    assert_eq!(are, expected);
}

fn id(engine: &Engine) -> String {
    engine.identity().id.to_string()
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v, u TEXT UNIQUE)";

/// Two boards that have heard of each other, with one table.
fn two(world: &World) -> (Engine, Engine) {
    let mut a = world.board_with("a", TABLE, &["t"]);
    let mut b = world.board_with("b", TABLE, &["t"]);
    carry_all(&mut [&mut a, &mut b]);
    (a, b)
}

#[test]
fn a_conflict_has_its_word_and_rows_by_column() {
    let world = World::new();
    let (mut a, mut b) = two(&world);
    sql(&a, "INSERT INTO t VALUES (1, x'00ff', 'x'), (3, NULL, 'same')");
    a.seal().unwrap();
    world.tick(1000);
    sql(&b, "INSERT INTO t VALUES (1, -9e999, CAST(x'ff' AS TEXT)), (4, 2.0, 'same')");
    carry_all(&mut [&mut a, &mut b]);
    let conflicts = of(a.conflicts().unwrap());
    let of_kind = |kind: &str| conflicts.as_array().unwrap().iter().find(|c| c["kind"] == kind).unwrap();
    let insert = of_kind("insert/insert");
    has(insert, &["id", "table", "key", "kind", "versions", "referred_by", "ways", "clashing"]);
    assert_eq!((&insert["table"], &insert["key"]), (&json!("t"), &json!({ "id": 1 })));
    let mut versions = insert["versions"].as_array().unwrap().clone();
    versions.sort_by_key(|version| version["name"].to_string());
    assert_eq!(versions[0]["shown"] == true, versions[1]["shown"] == false);
    versions.iter_mut().for_each(|version| version["shown"] = Value::Null);
    assert_eq!(
        versions[0],
        json!({
            "device": id(&a), "name": "a", "at": "2023-11-14T22:13:20.000Z", "op": "insert", "shown": null, "refused": null,
            "values": { "id": 1, "v": { "hex": "00ff" }, "u": "x" },
        })
    );
    assert_eq!(
        versions[1]["values"],
        json!({ "id": 1, "v": { "real": "-Infinity" }, "u": { "hex": "ff", "text": true } })
    );
    let unique = of_kind("unique");
    has(unique, &["id", "table", "key", "kind", "versions", "columns", "referred_by", "ways", "clashing"]);
    assert_eq!(unique["columns"], json!(["u"]));
    log_and_status(&a, &b);
}

fn log_and_status(a: &Engine, b: &Engine) {
    let (mut ops, mut groups) = (Vec::new(), Vec::new());
    a.log(Some("t"), &[], &mut |item| {
        match item {
            HistoryItem::Op(op) => ops.push(of(op)),
            HistoryItem::Group(group) => groups.push(of(group)),
        }
        Ok(())
    })
    .unwrap();
    assert!(
        ops.contains(
            &json!({ "table": "t", "op": "insert", "key": { "id": 4 }, "values": { "u": "same", "v": 2.0 }, "before": {} })
        ),
        "{ops:?}"
    );
    let names = [
        "device",
        "label",
        "stream",
        "frames",
        "stamp",
        "at",
        "applied",
        "resolution",
        "ops",
        "route",
        "came",
    ];
    has(&groups[0], &names);
    assert!(groups.iter().any(|group| group["device"] == id(b) && group["stream"] == "shared"));
    assert!(groups[0]["frames"].as_array().unwrap().len() == 2 && groups[0]["at"].is_string());
    let status = of(a.status().unwrap());
    assert_eq!(
        status["tables"],
        json!([{ "name": "t", "how": "shared", "unsealed": 0, "waiting": 0, "note": null }])
    );
    has(&status["identity"], &["fingerprint", "name", "base", "fleet", "admitted"]);
    assert_eq!(status["identity"]["fingerprint"], id(a));
    assert_eq!(status["identity"]["fleet"].as_str().unwrap().len(), 64);
    assert_eq!(status["conflicts"], 2);
    let devices = of(a.devices().unwrap());
    let other = devices.as_array().unwrap().iter().find(|device| device["this"] == false).unwrap();
    let names = [
        "fingerprint",
        "name",
        "base",
        "this",
        "trust",
        "frames_shared",
        "frames_per_device",
        "retired",
        "retired_by",
        "revoked",
        "revoked_by",
        "set_aside",
        "state_rows",
        "heard",
        "has_of_ours",
        "clock_off_ms",
    ];
    has(other, &names);
    assert_eq!((&other["fingerprint"], &other["trust"]), (&json!(id(b)), &json!("by the fleet")));
    assert!(other["heard"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn what_is_carried_has_its_numbers() {
    let world = World::new();
    let (mut a, mut b) = two(&world);
    sql(&a, "INSERT INTO t VALUES (1, 1, 'x')");
    assert_eq!(of(a.seal().unwrap()), json!({ "frames": 1, "ops": 1 }));
    let mut bundle = Vec::new();
    let exported = of(a.export(&mut bundle, Recipient::Device(b.identity().id)).unwrap());
    has(&exported, &["frames", "groups", "bytes", "state", "unsealed"]);
    let info = of(packmule::inspect(&bundle[..]).unwrap());
    assert_eq!((&info["sender"], &info["receiver"]), (&json!(id(&a)), &json!(id(&b))));
    has(&info["certificates"][0], &["fingerprint", "name", "base", "fleet"]);
    has(&info["sender_had"][0], &["device", "stream", "frames"]);
    has(
        &info["groups"][0],
        &["device", "stream", "first", "last", "stamp", "at", "bytes", "defines", "signed"],
    );
    let survey = of(b.survey(&bundle[..]));
    assert_eq!((&survey["problem"], &survey["ours"]), (&Value::Null, &json!(false)));
    has(&survey["sender_had"][0], &["device", "stream", "frames"]);
    has(&survey["spans"][0], &["device", "stream", "first", "last"]);
    assert!(of(b.survey(&bundle[..9]))["problem"].is_string());
    let imported = of(import(&mut b, &bundle));
    assert_eq!((&imported["ops"], &imported["ops_waiting"]), (&json!(1), &json!(0)));
    has(&of(&b.peers().unwrap()[0]), &["fingerprint", "base", "heard", "takes_own"]);
    let verified = of(b.verify().unwrap());
    has(&verified, &["frames", "groups", "problems", "unchecked"]);
    let compacted = of(b.compact().unwrap());
    has(&compacted, &["frames_folded", "bytes_folded", "versions_forgotten", "frames_left", "held_back_by"]);
    has(&compacted["held_back_by"], &["device", "frames"]);
    let mut snapshot = Vec::new();
    has(&of(a.snapshot(&mut snapshot).unwrap()), &["tables", "rows", "frames", "bytes"]);
    sql(&a, "CREATE TABLE other (id TEXT PRIMARY KEY)");
    let tracked = of(a.track("other", &TrackOptions::default()).unwrap());
    assert_eq!(tracked, json!({ "already": false, "changed": false, "rows": 0, "advice": [] }));
    waiting();
}

/// A group that waits for frames of another device, and hints.
fn waiting() {
    let world = World::seeded(1);
    let (mut a, mut b) = two(&world);
    let (a, b) = (&mut a, &mut b);
    let mut c = world.board_with("c", TABLE, &["t"]);
    carry(a, b);
    sql(b, "INSERT INTO t VALUES (2, 2, 'y')");
    b.seal().unwrap();
    let have: Positions = [((a.identity().id, Stream::Shared), 1000)].into();
    let part = Part { receiver: None, have: &have, enough_bytes: u64::MAX, most_bytes: u64::MAX };
    let mut bundle = Vec::new();
    let report = b.export_part(&mut bundle, &part).unwrap();
    bundle.extend_from_slice(&report.footer);
    let report = of(report);
    assert_eq!(report["reached"][0]["device"], id(b));
    assert!(report["footer"].is_string());
    let waits = of(import(&mut c, &bundle))["waits"].clone();
    has(&waits[0], &["author", "frames", "since", "missing"]);
    has(&waits[0]["missing"], &["frames"]);
    has(&waits[0]["missing"]["frames"], &["of", "up_to"]);
    assert_eq!(of(c.status().unwrap())["waits"], waits);
    assert_eq!(of(Hint::Init), json!("init"));
    let hint = Hint::Trust { devices: vec![c.identity().id] };
    assert_eq!(of(hint), json!({ "trust": { "devices": [id(&c)] } }));
    let hint = Error::Bundle { offset: 0, cause: BundleProblem::Empty }.hint();
    assert_eq!(of(hint), json!("export_again"));
}

#[test]
fn json_keeps_what_it_has_no_word_for() {
    for (value, json) in [
        (OwnedValue::Text(vec![0xff]), r#"{"hex":"ff","text":true}"#),
        (OwnedValue::Blob(vec![0, 0xab]), r#"{"hex":"00ab"}"#),
        (OwnedValue::Real(f64::NEG_INFINITY), r#"{"real":"-Infinity"}"#),
        (OwnedValue::Real(2.0), "2.0"),
        (OwnedValue::Null, "null"),
    ] {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
    }
}

#[test]
fn ids_come_back_from_json() {
    let id = DeviceId([0xab; 16]);
    let text = serde_json::to_string(&id).unwrap();
    assert_eq!(text, format!("\"{}\"", "ab".repeat(16)));
    assert_eq!(serde_json::from_str::<DeviceId>(&text).unwrap(), id);
    assert!(serde_json::from_str::<DeviceId>("\"ab\"").is_err());
    let progress = of(packmule::carry::session::Progress::default());
    assert_eq!((&progress["sent"], &progress["taken"]["ops"]), (&json!([0, 0]), &json!(0)));
}

#[cfg(unix)]
#[test]
fn a_card_s_report_has_its_files() {
    use packmule::carry::{card, volume::Directory};
    let world = World::new();
    let (mut a, mut b) = two(&world);
    sql(&a, "INSERT INTO t VALUES (1, 1, 'x')");
    let at = world.dir.path().join("card");
    std::fs::create_dir(&at).unwrap();
    std::fs::write(at.join("torn.pmb"), b"PM").unwrap();
    let exchange = |engine: &mut Engine| {
        let mut report = card::Exchange::default();
        let mut volume = Directory::open(&at).unwrap();
        card::exchange(engine, &mut volume, &card::Limits::default(), &mut |_, _| (), &mut report).unwrap();
        of(report)
    };
    let left = exchange(&mut a);
    has(&left["left"][0], &["file", "for", "frames", "bytes", "state", "encrypted", "introduction"]);
    has(&left["stepped_over"][0], &["file", "reason"]);
    let taken = exchange(&mut b);
    assert_eq!(taken["taken"][0]["ops"], 1);
    assert!(taken["taken"][0]["file"].is_string());
    assert_eq!(of(card::Removed::Acknowledged), json!("acknowledged"));
}

#[test]
fn a_start_from_a_snapshot_names_its_maker() {
    let world = World::new();
    let (mut a, _b) = two(&world);
    let mut snapshot = Vec::new();
    a.snapshot(&mut snapshot).unwrap();
    let join = JoinOptions { name: Some("fresh"), fleet: Some(&world.fleet) };
    let path = world.path("fresh");
    let (_, report) = Engine::join(&path, &mut Cursor::new(snapshot), &join, world.options()).unwrap();
    let report = of(report);
    has(&report, &["maker", "maker_name", "rows", "waiting", "frames", "new_identity"]);
    assert_eq!((&report["maker"], &report["maker_name"]), (&json!(id(&a)), &json!("a")));
}
