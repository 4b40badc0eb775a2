//! What one device signs harms only what that device may write: each wrong content here is signed with a real
//! device's key, and everything else goes on after it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;

use common::{World, bundle, carry, digests_equal, import, rows, sql};
use packmule::carry::session::Session;
use packmule::{Engine, Missing, TrackOptions};
use packmule_core::model::{Big, DeviceId, Value};
use packmule_core::wire::{
    Block, CERT_MAX, Certificate, Collation, Column, ColumnMerge, DefId, DefWriter, Default, ForeignKey,
    Frame, FrameFlags, FrameWriter, GroupStart, Merge, Mode, Named, OpHead, OpKind, Policy, RecordKind, Rows,
    TableHead,
};

const SETTINGS: &str = "CREATE TABLE settings (id INTEGER PRIMARY KEY, value)";

/// What stands in a frame instead of what its author sealed.
enum Content {
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// Ops of the table that the bundle's group is about.
    Ops(fn(&mut FrameWriter<'_>, DefId)),
    /// What was sealed, with these bytes in place of those of the same length.
    Replaced(&'static str, &'static str),
    /// A definition of these bytes.
    Def(Vec<u8>),
}

/// Writes the last group of a bundle again, with another content and context, and signs it.
fn forged(author: &Engine, bytes: &[u8], content: &Content, context: &[(Named, u64)]) -> Vec<u8> {
    let mut records = bundles::records(bytes);
    let has = |body: &[u8]| match content {
        Content::Replaced(from, _) => bundles::plain(body).windows(from.len()).any(|b| b == from.as_bytes()),
        _ => true,
    };
    let at = records.iter().rposition(|(kind, body)| *kind == RecordKind::Frame && has(body)).unwrap();
    records.truncate(at + 2);
    records[at].1 = bundles::plain(&records[at].1);
    let frame = Frame::parse(&records[at].1).unwrap();
    let mut blocks = frame.blocks();
    let def = match blocks.next_block().unwrap() {
        Some(Block::Rows { def, .. }) => def,
        _ => DefId([0; 8]),
    };
    let head = frame.group.unwrap();
    let group = GroupStart { lamport: head.lamport, wall: head.wall, pair: 0, context };
    let mut buf = vec![0; 60_000];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), frame.head.seq, Some(group)).unwrap();
    match content {
        Content::Raw(_) | Content::Replaced(..) => {}
        Content::Ops(write) => write(&mut writer, def),
        Content::Def(def) => writer.def(def).unwrap(),
    }
    let body = writer.finish();
    let body = match content {
        Content::Raw(raw) => bundles::with_blocks(body, raw),
        Content::Replaced(from, to) => bundles::with_blocks(body, &replace(&records[at].1, from, to)),
        Content::Ops(_) | Content::Def(_) => body.to_vec(),
    };
    bundles::replace_frame(&mut records, at, body, author);
    bundles::join(&records)
}

/// The blocks of a group's first frame, with other bytes in them.
fn replace(frame: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut blocks = bundles::blocks(frame);
    let at = blocks.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
    blocks[at..at + to.len()].copy_from_slice(to.as_bytes());
    blocks
}

const INSERT: OpHead<'static> = OpHead::plain(OpKind::Insert);

fn no_key(writer: &mut FrameWriter<'_>, def: DefId) {
    writer.op(def, &INSERT, [Value::Null, Value::Int(1)].into_iter()).unwrap();
}

fn key_twice(writer: &mut FrameWriter<'_>, def: DefId) {
    for value in 0..2 {
        writer.op(def, &INSERT, [Value::Int(77), Value::Int(value)].into_iter()).unwrap();
    }
}

fn lost_pieces(writer: &mut FrameWriter<'_>, def: DefId) {
    let big = Big { text: false, number: 0, back: 0, len: 5_000, sha256: [1; 32] };
    writer.op(def, &INSERT, [Value::Int(78), Value::Big(big)].into_iter()).unwrap();
}

fn pieces_elsewhere(writer: &mut FrameWriter<'_>, def: DefId) {
    writer.piece(0, &[7; 100]).unwrap();
    let big = Big { text: false, number: 0, back: 40_000, len: 100, sha256: [1; 32] };
    writer.op(def, &INSERT, [Value::Int(79), Value::Big(big)].into_iter()).unwrap();
}

fn unknown_def(writer: &mut FrameWriter<'_>, _: DefId) {
    writer.op(DefId([9; 8]), &INSERT, [Value::Int(1), Value::Int(1)].into_iter()).unwrap();
}

/// Writes a definition of a table that SQLite, or who reads it, refuses.
fn def(head: TableHead<'_>, columns: &[Column<'_>], parent: Option<(&str, &[(&str, &str)])>) -> Content {
    let mut buf = vec![0; 60_000];
    let (columns_n, foreign_keys) = (columns.len() as u16, u16::from(parent.is_some()));
    let mut writer =
        DefWriter::new(&mut buf, &TableHead { columns: columns_n, foreign_keys, ..head }).unwrap();
    columns.iter().for_each(|column| writer.item(column).unwrap());
    if let Some((parent, pairs)) = parent {
        let key = ForeignKey { parent, on_delete: 0, on_update: 0, columns: pairs.len() as u16 };
        writer.item(&key).unwrap();
        pairs.iter().for_each(|pair| writer.item(pair).unwrap());
    }
    Content::Def(writer.finish().to_vec())
}

const ID: Column<'static> = Column {
    name: "id",
    decl_type: "INTEGER",
    collation: Collation::Binary,
    not_null: false,
    key: 1,
    default: Default::None,
    merge: ColumnMerge::Table,
};

const fn named(name: &str) -> TableHead<'_> {
    TableHead {
        name,
        mode: Mode::Shared,
        merge: Merge::Row,
        policy: Policy::Manual,
        append: false,
        rows: Rows::Rowid,
        autoincrement: false,
        columns: 0,
        uniques: 0,
        foreign_keys: 0,
    }
}

/// Definitions that no table can have.
fn definitions() -> Vec<(&'static str, Content)> {
    let value = Column { name: "value", decl_type: "", key: 0, ..ID };
    let nan = Column { default: Default::Literal(Value::real(f64::NAN)), ..value };
    let big = Big { text: true, number: 0, back: 0, len: 9, sha256: [1; 32] };
    let pieces = Column { default: Default::Literal(Value::Big(big)), ..value };
    let names: Vec<String> = (0..1_001).map(|n| format!("c{n}")).collect();
    let wide: Vec<_> =
        names.iter().map(|name| Column { name, key: u16::from(name == "c0"), ..value }).collect();
    vec![
        ("a table named as a table-valued function", def(named("pragma_table_info"), &[ID, value], None)),
        ("a table named as one of SQLite's", def(named("sqlite_of_his"), &[ID, value], None)),
        ("a table named as one of Packmule's", def(named("_pm_of_his"), &[ID, value], None)),
        ("a DEFAULT that is no number", def(named("nan"), &[ID, nan], None)),
        ("a DEFAULT in pieces", def(named("pieces"), &[ID, pieces], None)),
        ("more than 1,000 columns", def(named("wide"), &wide, None)),
        ("a foreign key without columns", def(named("child"), &[ID, value], Some(("settings", &[])))),
        ("a table without a key", def(named("keyless"), &[value], None)),
        ("a table whose name turns the text around", def(named("a\u{202e}b"), &[ID, value], None)),
        (
            "a column whose name clears the screen",
            def(named("c"), &[ID, Column { name: "\u{1b}[2J", ..value }], None),
        ),
        ("a parent that nobody sees", def(named("d"), &[ID, value], Some(("a\u{200b}", &[("value", "id")])))),
    ]
}

fn not_a_number(writer: &mut FrameWriter<'_>, def: DefId) {
    writer.op(def, &INSERT, [Value::Int(80), Value::real(f64::NAN)].into_iter()).unwrap();
}

fn part_of_a_row(writer: &mut FrameWriter<'_>, def: DefId) {
    let head = OpHead { columns: Some(&[0]), ..INSERT };
    writer.op(def, &head, [Value::Int(81)].into_iter()).unwrap();
}

fn keeps_out_of_place(writer: &mut FrameWriter<'_>, def: DefId) {
    writer.op(def, &OpHead::plain(OpKind::Keep), [Value::Int(1)].into_iter()).unwrap();
}

fn corpus() -> Vec<(&'static str, Content)> {
    let mut all = ops();
    all.extend(definitions());
    all
}

fn ops() -> Vec<(&'static str, Content)> {
    vec![
        ("a value that SQLite cannot store", Content::Ops(not_a_number)),
        ("a new row of which a part is said", Content::Ops(part_of_a_row)),
        ("a row that stays, of no verdict", Content::Ops(keeps_out_of_place)),
        ("a block of a newer version", Content::Raw(vec![0x3f, 1, 2, 3])),
        ("a block that ends too early", Content::Raw(vec![2, 200])),
        ("a definition of nothing", Content::Def(vec![0xff; 40])),
        ("a definition that is empty", Content::Def(Vec::new())),
        ("rows of a definition that nobody has", Content::Ops(unknown_def)),
        ("a row without a key", Content::Ops(no_key)),
        ("a key twice in a frame", Content::Ops(key_twice)),
        ("a value in pieces that are not there", Content::Ops(lost_pieces)),
        ("a value in pieces of another frame", Content::Ops(pieces_elsewhere)),
    ]
}

struct Fleet {
    world: World,
    base: Engine,
    good: Engine,
    north: Engine,
    insider: Engine,
}

fn fleet() -> Fleet {
    let world = World::new();
    let mut base = world.base("base");
    sql(&base, SETTINGS);
    base.track("settings", &TrackOptions::default()).unwrap();
    let board = |name: &str| world.board_with(name, SETTINGS, &["settings"]);
    let (mut good, mut north, mut insider) = (board("good"), board("north"), board("insider"));
    common::carry_all(&mut [&mut base, &mut good, &mut north, &mut insider]);
    Fleet { world, base, good, north, insider }
}

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
    base.revoke(insider.identity().id, Some(&world.fleet)).unwrap();
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
    let mut ends = [Session::new(one, [1; 32], 0).unwrap(), Session::new(other, [2; 32], 0).unwrap()];
    let devices = [one, other];
    let mut input = Vec::new();
    for turn in 0..200 {
        let (session, engine) = (&mut ends[turn % 2], &mut *devices[turn % 2]);
        session.receive(engine, turn as u64, &input).unwrap();
        session.caught_up(engine).unwrap();
        session.tick(engine, turn as u64).unwrap();
        input.clear();
        while let out @ [_, ..] = session.output(engine).unwrap() {
            let len = out.len();
            input.extend_from_slice(out);
            session.sent(len);
        }
    }
    assert!(ends.iter().all(Session::in_step));
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

/// 32 hexadecimal digits are an id, also where a device has them for its name.
#[test]
fn a_name_stands_for_nobodys_id() {
    let Fleet { world, mut base, good, .. } = fleet();
    let id = good.identity().id;
    let mut other = world.board_with(&id.to_string(), SETTINGS, &["settings"]);
    carry(&mut other, &mut base);
    assert_eq!(base.find_device(&id.to_string()).unwrap(), id);
    let nobody = "00112233445566778899aabbccddeeff";
    let mut named = world.board_with(nobody, SETTINGS, &["settings"]);
    carry(&mut named, &mut base);
    assert!(base.find_device(nobody).is_err());
}

/// A fleet that has folded what all have, and a board that knows nothing of it yet.
fn folded() -> (Fleet, Engine) {
    let mut fleet = fleet();
    let Fleet { world, base, good, north, insider } = &mut fleet;
    sql(good, "INSERT INTO settings VALUES (1, 'one'), (2, 'two')");
    sql(insider, "INSERT INTO settings VALUES (3, 'three')");
    let mut all = [base, good, north, insider];
    for _ in 0..2 {
        common::carry_all(&mut all.each_mut().map(|device| &mut **device));
        all.iter_mut().for_each(|device| drop(device.compact().unwrap()));
    }
    let mut late = world.board_with("late", SETTINGS, &["settings"]);
    carry(&mut late, insider);
    sql(insider, "UPDATE settings SET value = 'in flight' WHERE id = 3");
    (fleet, late)
}

/// The kind and the values of a state's record.
fn state_row(body: &[u8]) -> (String, Vec<Value<'_>>) {
    let mut rest = body;
    let kind = packmule_core::wire::take::<&str>(&mut rest).unwrap().to_owned();
    let mut values = Vec::new();
    while !rest.is_empty() {
        values.push(packmule_core::wire::take(&mut rest).unwrap());
    }
    (kind, values)
}

fn state_body(kind: &str, values: &[Value<'_>]) -> Vec<u8> {
    let mut buf = vec![0; 60_000];
    let mut len = packmule_core::wire::put(&mut buf, kind).unwrap();
    for value in values {
        len += packmule_core::wire::put(&mut buf[len..], value).unwrap();
    }
    buf.truncate(len);
    buf
}

/// What no honest maker says in the place of a value.
fn instead_of(value: &Value<'_>) -> Vec<Value<'static>> {
    match value {
        Value::Int(_) => vec![Value::Int(1 << 62), Value::Int(i64::MIN), Value::Int(-1), Value::Null],
        Value::Blob(_) => vec![Value::Blob(b""), Value::Blob(&[9; 40]), Value::Int(1)],
        Value::Text(_) => vec![Value::Text(b"nothing"), Value::Text(b"sqlite_master"), Value::Int(1)],
        _ => vec![Value::Int(1)],
    }
}

/// The states that a fleet's insider signs: of each kind of record the last one, with each of its values wrong.
fn wrong_states(records: &[bundles::Record]) -> Vec<(String, usize, Vec<u8>)> {
    let mut last = std::collections::BTreeMap::new();
    for (at, (kind, body)) in records.iter().enumerate() {
        if *kind == RecordKind::State {
            last.insert(state_row(body).0, at);
        }
    }
    let mut all = Vec::new();
    for (kind, at) in last {
        let (_, values) = state_row(&records[at].1);
        for (n, value) in values.iter().enumerate() {
            for wrong in instead_of(value) {
                let mut values = values.clone();
                values[n] = wrong;
                all.push((format!("{kind}: value {n} is {wrong:?}"), at, state_body(&kind, &values)));
            }
        }
        let short = state_body(&kind, &values[..values.len().saturating_sub(1)]);
        all.push((format!("{kind}: a value too few"), at, short));
        all.push((format!("{kind}: of an unknown kind"), at, state_body("nothing", &values)));
    }
    all
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
