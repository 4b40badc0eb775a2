//! What one device of a fleet signs, and should not: the kinds, and the files of them beside this one.
#![allow(dead_code)] // Each test uses a part of it.

pub mod files;

use packmule::core::model::{Big, Value};
use packmule::core::wire::{
    Block, Collation, Column, ColumnMerge, DefId, DefWriter, Default, ForeignKey, Frame, FrameFlags,
    FrameWriter, GroupStart, Merge, Mode, Named, OpHead, OpKind, Policy, RecordKind, Rows, TableHead,
};
use packmule::{Engine, FleetKey, TrackOptions};

use crate::bundles;
use crate::common::{self, World, carry, sql};

pub const SETTINGS: &str = "CREATE TABLE settings (id INTEGER PRIMARY KEY, value)";

/// What stands in a frame instead of what its author sealed.
pub enum Content {
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
pub fn forged(author: &Engine, bytes: &[u8], content: &Content, context: &[(Named, u64)]) -> Vec<u8> {
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

/// The definition that the last rows of a bundle have.
pub fn def_of(bytes: &[u8]) -> DefId {
    let records = bundles::records(bytes);
    let last = records.iter().rfind(|(kind, _)| *kind == RecordKind::Frame).unwrap();
    let body = bundles::plain(&last.1);
    match Frame::parse(&body).unwrap().blocks().next_block().unwrap() {
        Some(Block::Rows { def, .. }) => def,
        other => panic!("{other:?}"),
    }
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

/// A definition with so many UNIQUEs and foreign keys.
fn ruled(uniques: u16, foreign_keys: u16) -> Content {
    let head = TableHead { columns: 2, uniques, foreign_keys, ..named("ruled") };
    let mut buf = vec![0; 60_000];
    let mut writer = DefWriter::new(&mut buf, &head).unwrap();
    [ID, Column { name: "value", decl_type: "", key: 0, ..ID }].iter().for_each(|c| writer.item(c).unwrap());
    (0..uniques).for_each(|_| writer.item(&(1_u16, 1_u16)).unwrap());
    for _ in 0..foreign_keys {
        let key = ForeignKey { parent: "settings", on_delete: 0, on_update: 0, columns: 1 };
        writer.item(&key).unwrap();
        writer.item(&("value", "id")).unwrap();
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

/// A sound definition of a table, whose key is this column.
pub fn table(name: &str, key: &str, type_of_value: &str) -> Vec<u8> {
    let columns =
        [Column { name: key, ..ID }, Column { name: "value", decl_type: type_of_value, key: 0, ..ID }];
    let Content::Def(bytes) = def(named(name), &columns, None) else { panic!("no definition") };
    bytes
}

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
        ("more than 100 UNIQUEs", ruled(101, 0)),
        ("more than 100 foreign keys", ruled(0, 101)),
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

pub fn corpus() -> Vec<(&'static str, Content)> {
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

pub struct Fleet {
    pub world: World,
    pub base: Engine,
    pub good: Engine,
    pub north: Engine,
    pub insider: Engine,
}

pub fn fleet() -> Fleet {
    fleet_in(World::new())
}

/// The fleet whose keys and clock are the same every time: the files beside this one are signed by it.
pub fn known_world() -> World {
    let mut world = World::seeded(77);
    let path = world.dir.path().join("fleet.key");
    let text = std::fs::read_to_string(&path).unwrap();
    let seed = "77".repeat(32);
    let lines = text.lines().enumerate().map(|(n, line)| if n == 1 { seed.as_str() } else { line });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    std::fs::write(&path, text).unwrap();
    world.fleet = FleetKey::open(&path).unwrap();
    world
}

pub fn fleet_in(world: World) -> Fleet {
    let mut base = world.base("base");
    sql(&base, SETTINGS);
    base.track("settings", &TrackOptions::default()).unwrap();
    let board = |name: &str| world.board_with(name, SETTINGS, &["settings"]);
    let (mut good, mut north, mut insider) = (board("good"), board("north"), board("insider"));
    common::carry_all(&mut [&mut base, &mut good, &mut north, &mut insider]);
    Fleet { world, base, good, north, insider }
}

/// A fleet that has folded what all have, and a board that knows nothing of it yet.
pub fn folded() -> (Fleet, Engine) {
    folded_in(World::new())
}

pub fn folded_in(world: World) -> (Fleet, Engine) {
    let mut fleet = fleet_in(world);
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
pub fn state_row(body: &[u8]) -> (String, Vec<Value<'_>>) {
    let mut rest = body;
    let kind = packmule::core::wire::take::<&str>(&mut rest).unwrap().to_owned();
    let mut values = Vec::new();
    while !rest.is_empty() {
        values.push(packmule::core::wire::take(&mut rest).unwrap());
    }
    (kind, values)
}

pub fn state_body(kind: &str, values: &[Value<'_>]) -> Vec<u8> {
    let mut buf = vec![0; 60_000];
    let mut len = packmule::core::wire::put(&mut buf, kind).unwrap();
    for value in values {
        len += packmule::core::wire::put(&mut buf[len..], value).unwrap();
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
pub fn wrong_states(records: &[bundles::Record]) -> Vec<(String, usize, Vec<u8>)> {
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
