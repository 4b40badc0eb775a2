//! Promise 13: what one device signs harms only what that device may write: each wrong content here is signed with a real
//! device's key, and everything else goes on after it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;
mod odd;
mod wrong;

use common::{bundle, carry, digests_equal, import, rows, session_of_two, sql};
use odd::Insider;
use packmule::{Engine, Missing};
use packmule_core::model::{DeviceId, Value};
use packmule_core::wire::{
    CERT_MAX, Certificate, FrameFlags, FrameWriter, GroupStart, Named, OpHead, OpKind, RecordKind,
};
use wrong::{Content, Fleet, SETTINGS, corpus, fleet, folded, forged, wrong_states};

/// Honest work goes on, whatever came before.
fn goes_on(fleet: &mut Fleet, what: &str) {
    goes_on_with(fleet, what, 4);
}

/// The same, in a fleet of so many.
fn goes_on_with(fleet: &mut Fleet, what: &str, devices: usize) {
    let Fleet { world, base, good, north, insider } = fleet;
    for (value, board) in [&mut *good, &mut *north].into_iter().enumerate() {
        sql(board, &format!("INSERT OR REPLACE INTO settings VALUES ({}, 'honest')", 1_000 + value));
        carry(board, base);
    }
    carry(base, good);
    carry(base, north);
    assert_eq!(rows(base, "SELECT count(*) FROM settings WHERE value = 'honest'"), ["2"], "{what}");
    digests_equal(&[base, good, north]);
    for device in [&mut *base, &mut *good] {
        assert_eq!(device.devices().unwrap().len(), devices, "{what}");
        device.status().unwrap();
        device.log(None, &[], &mut |_| Ok(())).unwrap();
        device.conflicts().unwrap();
        device.verify().unwrap();
        device.compact().unwrap();
    }
    let id = insider.identity().id;
    base.retire(id, None).unwrap();
    base.compact().unwrap();
    base.revoke(id, Some(&world.fleet)).unwrap();
    carry(base, good);
    sql(good, "INSERT INTO settings VALUES (2000, 'after')");
    carry(good, base);
    digests_equal(&[base, good]);
    // By a card, and by a session.
    let folder = world.dir.path().join("card");
    std::fs::create_dir_all(&folder).unwrap();
    sql(good, "INSERT INTO settings VALUES (2001, 'by a card')");
    for at_base in [false, true, false] {
        let device = if at_base { &mut *base } else { &mut *good };
        let report = common::exchange_with_card(device, &folder);
        assert!(report.stepped_over.is_empty(), "{what}: {:?}", report.stepped_over);
    }
    digests_equal(&[base, good]);
    sql(base, "INSERT INTO settings VALUES (2002, 'by a session')");
    sync(good, base);
    digests_equal(&[base, good]);
}

/// A session of two, in this process.
fn sync(one: &mut Engine, other: &mut Engine) {
    assert!(session_of_two(one, other, usize::MAX, &mut |_| false));
}

#[test]
fn wrong_content_sets_its_author_aside_and_nobody_else() {
    for (what, content) in corpus() {
        let mut fleet = fleet();
        sql(&fleet.insider, "INSERT INTO settings VALUES (5, 'sound')");
        let bytes = bundle(&mut fleet.insider, &fleet.base);
        let wrong = forged(&fleet.insider, &bytes, &content, &[]);
        let report = import(&mut fleet.base, &wrong);
        assert_eq!(report.ops, 0, "{what}");
        let named = |waits: &[packmule::Wait]| {
            let unreadable = |w: &packmule::Wait| matches!(&w.missing, Missing::Unreadable { reason } if !reason.is_empty());
            waits.iter().any(|w| unreadable(w) && w.author.starts_with("insider"))
        };
        assert!(named(&report.waits), "{what}: {:?}", report.waits);
        assert!(named(&fleet.base.status().unwrap().waits), "{what}");
        let problems = fleet.base.verify().unwrap().problems;
        assert!(problems.len() == 1 && problems[0].contains("insider"), "{what}: {problems:?}");
        import(&mut fleet.good, &wrong);
        goes_on(&mut fleet, what);
        let Missing::Unreadable { reason } = &report.waits[0].missing else { panic!("{:?}", report.waits) };
        println!("{what} | set aside: {reason} | all else goes on");
    }
}

/// Definitions that SQLite refuses, where a base would make the table.
#[test]
fn a_definition_that_sqlite_refuses_harms_its_author_alone() {
    let refused = [
        ("xragma_table_info", "pragma_table_info", "name"),
        ("sqlxte_of_insider", "sqlite_of_insider", "name"),
        ("a_pm_table_of_his", "_pm_head_________", "name"),
        ("readings_of_north", "readings_of_north", "value"),
    ];
    for (name, wrong, column) in refused {
        let mut fleet = fleet();
        sql(
            &fleet.insider,
            &format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT, {column} TEXT)"),
        );
        fleet.insider.track(name, &common::append()).unwrap();
        sql(&fleet.insider, &format!("INSERT INTO {name} VALUES (1, 'x')"));
        let bytes = bundle(&mut fleet.insider, &fleet.base);
        let content = Content::Replaced(name, wrong);
        let wrong_bytes = forged(&fleet.insider, &bytes, &content, &[]);
        let report = common::try_import(&mut fleet.base, &wrong_bytes);
        assert!(report.is_ok(), "{wrong}: {report:?}");
        goes_on(&mut fleet, wrong);
    }
}

/// A key that an INTEGER PRIMARY KEY cannot hold is one that a table of the same name may have elsewhere: its row waits beside the
/// table, the same for all and in whatever order it comes, and nothing else does.
#[test]
fn a_text_where_the_key_is_an_integer_waits_alone() {
    let mut fleet = fleet();
    sql(&fleet.insider, "INSERT INTO settings VALUES (5, 'sound')");
    let bytes = bundle(&mut fleet.insider, &fleet.base);
    let content = Content::Ops(|writer, def| {
        let head = OpHead::plain(OpKind::Insert);
        writer.op(def, &head, [Value::Text(b"x"), Value::Int(1)].into_iter()).unwrap();
    });
    let wrong = forged(&fleet.insider, &bytes, &content, &[]);
    import(&mut fleet.base, &wrong);
    sql(&fleet.good, "INSERT INTO settings VALUES (6, 'mine')");
    fleet.good.seal().unwrap();
    import(&mut fleet.good, &wrong);
    let [base, good] = [&mut fleet.base, &mut fleet.good];
    common::carry_all(&mut [base, good]);
    digests_equal(&[&fleet.base, &fleet.good]);
    assert_eq!(rows(&fleet.base, "SELECT value FROM settings WHERE id = 6"), ["\"mine\""]);
    assert_eq!(rows(&fleet.base, "SELECT count(*) FROM settings WHERE id = 'x'"), ["0"]);
    goes_on(&mut fleet, "a text for an integer key");
}

/// What waits for another device's next frame is not read until then, and harms nobody when it is.
#[test]
fn wrong_content_that_waits_harms_nobody_when_its_turn_comes() {
    for (what, content) in corpus() {
        let mut fleet = fleet();
        sql(&fleet.insider, "INSERT INTO settings VALUES (5, 'sound')");
        let bytes = bundle(&mut fleet.insider, &fleet.base);
        let seq = fleet.north.devices().unwrap()[0].shared + 1;
        let north: DeviceId = fleet.north.identity().id;
        let wrong = forged(&fleet.insider, &bytes, &content, &[(Named::Id(north), seq)]);
        let waits = import(&mut fleet.base, &wrong).waits;
        assert!(matches!(waits[0].missing, Missing::Frames { .. }), "{what}: {waits:?}");
        let problems = fleet.base.verify().unwrap().problems;
        // A definition may still come, by whoever has it.
        let may_come = what == "rows of a definition that nobody has";
        let named = problems.iter().any(|problem| problem.contains("insider"));
        assert!(named || may_come, "{what}: {problems:?}");
        import(&mut fleet.good, &wrong);
        goes_on(&mut fleet, what);
    }
}

/// Signs a group for each of these definitions, all in one bundle.
fn said_by(insider: &mut Insider, definitions: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut records = Vec::new();
    for (at, def) in definitions.enumerate() {
        let start = GroupStart { lamport: 20 + at as u64, wall: 1_700_000_000_000, pair: 0, context: &[] };
        let mut buf = vec![0; 60_000];
        let mut writer =
            FrameWriter::new(&mut buf, FrameFlags::default(), insider.seq + 1, Some(start)).unwrap();
        writer.def(&def).unwrap();
        let body = writer.finish().to_vec();
        let group = bundles::records(&insider.sign(body)).into_iter();
        let of_group = [RecordKind::Section, RecordKind::Frame, RecordKind::Checkpoint];
        let first = records.is_empty();
        records.extend(group.filter(|(kind, _)| first || of_group.contains(kind)));
        records.retain(|(kind, _)| *kind != RecordKind::Footer);
    }
    bundles::join(&records)
}

/// One device's key says more definitions of one table, or more primary keys of tables of one name, than are taken: that is its
/// author's own affair.
#[test]
fn more_definitions_than_are_taken_set_their_author_aside_and_nobody_else() {
    for (what, n, names) in [("definitions of one table", 1_001, 1), ("primary keys", 40, 40)] {
        let mut fleet = fleet();
        let mut insider = Insider::of(&mut fleet.insider).0;
        let all = (0..n).map(|at| wrong::table("settings", &format!("k{}", at % names), &format!("T{at}")));
        let bytes = said_by(&mut insider, all);
        let waits = import(&mut fleet.base, &bytes).waits;
        let Some(Missing::Unreadable { reason }) = waits.first().map(|wait| &wait.missing) else {
            panic!("{what}: {waits:?}")
        };
        assert!(reason.contains("more than") && reason.contains(what), "{reason}");
        import(&mut fleet.good, &bytes);
        goes_on(&mut fleet, what);
    }
}

/// One device's key says a thousand tables and more: those beyond wait by name, and whoever else makes a table has it everywhere.
#[test]
fn more_tables_than_are_made_wait_by_name() {
    let mut fleet = fleet();
    let mut insider = Insider::of(&mut fleet.insider).0;
    let bytes = said_by(&mut insider, (0..1_010).map(|at| wrong::table(&format!("t{at}"), "id", "")));
    assert_eq!(import(&mut fleet.base, &bytes).waits, []);
    let tables = fleet.base.status().unwrap().tables;
    let waiting = tables.iter().filter(|table| table.how == packmule::TableHow::Waiting);
    let notes: Vec<_> = waiting.map(|table| table.note.clone().unwrap_or_default()).collect();
    assert_eq!((tables.len(), notes.len()), (1_011, 10), "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("more tables than are made here")), "{notes:?}");
    sql(&fleet.good, "CREATE TABLE honest (id INTEGER PRIMARY KEY, value); INSERT INTO honest VALUES (1, 1)");
    fleet.good.track("honest", &packmule::TrackOptions::default()).unwrap();
    carry(&mut fleet.good, &mut fleet.base);
    assert_eq!(rows(&fleet.base, "SELECT value FROM honest"), ["1"]);
}

/// A board's key vouches for no base, whose acknowledgements would let others forget.
#[test]
fn a_board_vouches_for_no_base() {
    let mut fleet = fleet();
    sql(&fleet.insider, "INSERT INTO settings VALUES (5, 'sound')");
    let mut records = bundles::records(&bundle(&mut fleet.insider, &fleet.base));
    for (n, base) in [(1, true), (2, false)] {
        let key = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([n; 32])).sk;
        let name = if base { "false base" } else { "successor" };
        let certificate =
            Certificate::new(&key, name, base).unwrap().vouched(&bundles::key_of(&fleet.insider)).unwrap();
        let mut buf = [0; CERT_MAX];
        let len = certificate.encode(&mut buf).unwrap();
        let at = records.iter().rposition(|(kind, _)| *kind == RecordKind::Certificate).unwrap();
        records.insert(at + 1, (RecordKind::Certificate, buf[..len].to_vec()));
    }
    // It is refused as a whole, or taken without that base.
    let _ = common::try_import(&mut fleet.good, &bundles::join(&records));
    let named =
        |name: &str| fleet.good.devices().unwrap().into_iter().any(|d| d.name.as_deref() == Some(name));
    assert!(!named("false base"));
    assert_eq!(fleet.good.devices().unwrap().iter().filter(|d| d.base).count(), 1);
}

/// 32 hexadecimal digits are an id, also where a device has them for its name; and a name that is the beginning of another
/// one's id is ambiguous.
#[test]
fn a_name_stands_for_nobodys_id() {
    let Fleet { world, mut base, good, .. } = fleet();
    let id = good.identity().id;
    let mut other = world.board_with(&id.to_string(), SETTINGS, &["settings"]);
    carry(&mut other, &mut base);
    assert_eq!(base.find_device(&id.to_string()).unwrap(), id);
    // Nor for the beginning of one.
    for digits in [4, 8] {
        let beginning = &id.to_string()[..digits];
        let mut named = world.board_with(beginning, SETTINGS, &["settings"]);
        carry(&mut named, &mut base);
        assert!(base.find_device(beginning).is_err(), "{beginning}");
    }
    // Two or three digits are nobody's id: boards have such names.
    let short = &id.to_string()[..3];
    assert!(base.find_device(short).is_err(), "{short}");
    let mut named = world.board_with(short, SETTINGS, &["settings"]);
    carry(&mut named, &mut base);
    assert_eq!(base.find_device(short).unwrap(), named.identity().id);
    let nobody = "00112233445566778899aabbccddeeff";
    let mut named = world.board_with(nobody, SETTINGS, &["settings"]);
    carry(&mut named, &mut base);
    assert!(base.find_device(nobody).is_err());
}

/// Whatever an insider says in a state that it signs for a newcomer, the others go on; and the newcomer, whether it has
/// taken it in or not, can be written to, asked and heard.
#[test]
fn a_newcomer_that_is_sent_a_wrong_state_goes_on_and_so_do_the_others() {
    let (mut fleet, late) = folded();
    let records = bundles::records(&bundle(&mut fleet.insider, &late));
    let count = wrong_states(&records).len();
    assert!(count > 50, "{count}: is there a state?");
    drop(fleet);
    // All of them with `PACKMULE_STATES=1`; else each seventh.
    let step = std::env::var("PACKMULE_STATES").map_or(7, |step| step.parse().unwrap());
    for n in (0..count).step_by(step) {
        let (mut fleet, mut late) = folded();
        let mut records = bundles::records(&bundle(&mut fleet.insider, &late));
        let (what, at, body) = wrong_states(&records).swap_remove(n);
        records[at].1 = body;
        bundles::seal_state(&mut records, &fleet.insider);
        let wrong = bundles::join(&records);
        let before = common::everything(late.path());
        let taken = common::try_import(&mut late, &wrong);
        let heard = match &taken {
            Ok(report) => format!("taken in, {} rows", report.ops),
            Err(e) => {
                assert_eq!(common::everything(late.path()), before, "{what}: refused, and left a trace");
                format!("refused: {}", e.to_string().lines().next().unwrap_or_default())
            }
        };
        let same = late_goes_on(&mut fleet, &mut late);
        println!("{what} | {heard} | {same}");
        assert!(same.starts_with("goes on"), "{what}: {same}");
        goes_on_with(&mut fleet, &what, 5);
    }
}

/// A state of a table that a newcomer has for itself, of the same name and untracked: it stays so, and nothing of it leaves.
#[test]
fn a_state_sends_nothing_out_of_a_newcomers_own_table() {
    let (mut fleet, mut late) = folded();
    let own = "CREATE TABLE journal (id INTEGER PRIMARY KEY, value)";
    sql(&fleet.insider, own);
    fleet.insider.track("journal", &packmule::TrackOptions::default()).unwrap();
    sql(&fleet.insider, "INSERT INTO journal VALUES (1, 'of the insider')");
    sql(&late, &format!("{own}; INSERT INTO journal VALUES (1, 'secret'), (2, 'secret')"));
    let Fleet { base, good, north, insider, .. } = &mut fleet;
    common::carry_all(&mut [base, good, north, insider]);
    insider.compact().unwrap();
    let wrong = bundle(insider, &late);
    assert!(bundles::records(&wrong).iter().any(|(kind, _)| *kind == RecordKind::State));
    common::try_import(&mut late, &wrong).unwrap();
    for _ in 0..2 {
        sql(&late, "UPDATE journal SET value = value || '!'");
        late.seal().unwrap();
        carry(&mut late, base);
        carry(base, &mut late);
        late.compact().unwrap();
    }
    let told = late.status().unwrap().tables;
    let journal = told.iter().find(|table| table.name == "journal").unwrap();
    assert!(journal.how != packmule::TableHow::Shared, "{told:?}");
    assert_eq!(rows(base, "SELECT * FROM journal"), ["1|\"of the insider\""]);
    assert_eq!(rows(&late, "SELECT value FROM journal"), ["\"secret!!\"", "\"secret!!\""]);
    assert_eq!(late.verify().unwrap().problems, Vec::<String>::new());
}

/// Whoever took in a wrong state writes, is heard by the base, and hears it; whether both have the same then.
fn late_goes_on(fleet: &mut Fleet, late: &mut Engine) -> String {
    let Fleet { base, .. } = fleet;
    let mut failed = Vec::new();
    let mut note = |of: &str, done: packmule::Result<()>| {
        if let Err(e) = done {
            failed.push(format!("{of} fails: {e}"));
        }
    };
    for round in 0..2 {
        common::app(late)
            .execute_batch(&format!("INSERT INTO settings VALUES ({}, 'late')", 500 + round))
            .unwrap();
        for (of, from) in [("to the late one", true), ("from the late one", false)] {
            let mut bytes = Vec::new();
            let (one, other) = if from { (&mut *base, &mut *late) } else { (&mut *late, &mut *base) };
            let id = other.identity().id;
            let sent = one.export(&mut bytes, packmule::Recipient::Device(id)).map(drop);
            let ok = sent.is_ok();
            note(of, sent);
            if ok {
                note(of, common::try_import(other, &bytes).map(drop));
            }
        }
    }
    note("devices", late.devices().map(drop));
    note("status", late.status().map(drop));
    note("log", late.log(None, &[], &mut |_| Ok(())).map(drop));
    note("conflicts", late.conflicts().map(drop));
    note("verify", late.verify().map(drop));
    note("compact", late.compact().map(drop));
    let same = late.digest(false).ok() == base.digest(false).ok();
    if failed.is_empty() {
        format!("goes on, {}", if same { "the same" } else { "with other content" })
    } else {
        failed.join("; ")
    }
}
