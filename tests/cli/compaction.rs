//! compact, snapshot, join and retire, from the command line.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;
use support::{Desk, has};

#[test]
fn a_newcomer_starts_from_what_was_compacted() {
    let desk = Desk::new();
    desk.run("fleet new f.key").ok();
    desk.run("init a.db --name a --fleet f.key").ok();
    desk.sql("a.db", "CREATE TABLE n (id TEXT PRIMARY KEY, v); INSERT INTO n VALUES (1, 2), (3, 4)");
    desk.run("track a.db n").ok();
    // Nobody has it, so nothing is folded.
    has(&desk.run("compact a.db").ok(), &["compacted away 0 frames", "no other device is known yet"]);
    desk.compact_alone("a", "f.key");
    assert_eq!(desk.run("compact a.db --json").json()["frames_left"], 0);
    assert_eq!(desk.run("snapshot a.db s.pms --json").json()["rows"], 2);
    let joined = desk.run("join b.db s.pms --name b --fleet f.key --json").json();
    assert_eq!((joined["rows"].as_u64(), joined["new_identity"].as_bool()), (Some(2), Some(false)));
    assert_eq!(
        desk.run("digest a.db --json").json()["digest"],
        desk.run("digest b.db --json").json()["digest"]
    );
    desk.run("verify s.pms").ok();
    desk.run("export b.db b.pmb").ok();
    desk.run("import a.db b.pmb").ok();
    desk.run("retire a.db b").ok();
}

/// A newcomer gets the state by the same card from whoever has compacted: nobody types anything for it.
#[test]
fn who_lacks_what_was_compacted_gets_the_state_by_exchange() {
    let desk = Desk::new();
    desk.run("fleet new f.key").ok();
    for name in ["a", "b"] {
        desk.run(&format!("init {name}.db --name {name} --fleet f.key")).ok();
    }
    desk.sql("a.db", "CREATE TABLE n (id TEXT PRIMARY KEY, v); INSERT INTO n VALUES (1, 2), (3, 4)");
    desk.run("track a.db n").ok();
    desk.compact_alone("a", "f.key");
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("exchange b.db card").ok();
    has(&desk.run("exchange a.db card").ok(), &["left for b-", "the state of the shared tables"]);
    // It lies there until it is taken.
    assert_eq!(desk.run("exchange a.db card --json").json()["left"].as_array().unwrap().len(), 0);
    let was = desk.run("status b.db --json").json()["fingerprint"].clone();
    has(&desk.run("exchange b.db card").ok(), &["2 rows applied"]);
    assert_eq!(desk.run("digest a.db").ok(), desk.run("digest b.db").ok());
    assert_eq!(desk.run("status b.db --json").json()["fingerprint"], was);
    desk.run("exchange a.db card").ok();
    // It is removed once it was acknowledged.
    let left = desk.run("exchange a.db card --json").json();
    assert_eq!(
        (left["waiting"].as_array().unwrap().len(), left["left"].as_array().unwrap().len()),
        (1, 0),
        "{left}"
    );
    // Control: what was not compacted comes as frames.
    desk.run("init c.db --name c --fleet f.key").ok();
    desk.sql("c.db", "CREATE TABLE m (id TEXT PRIMARY KEY, v); INSERT INTO m VALUES (1, 2)");
    desk.run("track c.db m").ok();
    let told = desk.run("exchange c.db card --json").json();
    assert!(told["left"].as_array().unwrap().iter().all(|left| left["state"] == false), "{told}");
}
