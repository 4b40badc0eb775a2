//! Golden vectors: the bytes of every kind of item, three ways. `asm.rs` lays them out by hand, the
//! files in `tests/vectors` pin them, and the crate must write exactly these and read exactly what
//! went in. Reordering an enum, or a new release of postcard with other ideas, breaks a test here.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod asm;

use asm::{Asm, frame_head, group_head, group_head_numbered};
use packmule_core::model::{Big, DeviceId, RealBits, Value};
use packmule_core::wire::{
    Block, Collation, Column, ColumnMerge, DefId, DefReader, DefWriter, Default, FRAME_MAX, ForeignKey,
    Frame, FrameFlags, FrameWriter, GroupStart, KeptRun, Merge, Mode, Named, Op, OpHead, OpKind, Ops, Policy,
    Rows, Shape, TableHead, crc32, put, take,
};

const DEF: DefId = DefId([0xd0, 1, 2, 3, 4, 5, 6, 7]);
const OTHER_DEF: DefId = DefId([0xd1, 1, 2, 3, 4, 5, 6, 7]);
const CONTEXT: [([u8; 16], u64); 3] = [([0xaa; 16], 127), ([0xbb; 16], 128), ([0xcc; 16], i64::MAX as u64)];

/// Where a varint gets one byte longer, and one to either side; and the ends.
fn boundaries() -> Vec<u64> {
    let steps = (1..=9).map(|bytes| 1u64 << (7 * bytes)).flat_map(|step| [step - 1, step, step + 1]);
    [0, 1].into_iter().chain(steps).chain([u64::MAX - 1, u64::MAX]).collect()
}

fn unzigzag(number: u64) -> i64 {
    let half = (number / 2) as i64;
    if number % 2 == 1 { -half - 1 } else { half }
}

const LONG: [u8; 129] = [b'x'; 129];

fn values() -> Vec<Value<'static>> {
    let mut values = vec![Value::Null];
    values.extend(boundaries().into_iter().map(|number| Value::Int(unzigzag(number))));
    assert!(values.contains(&Value::Int(i64::MIN)) && values.contains(&Value::Int(i64::MAX)));
    for bits in [0, 1 << 63, 1, f64::MIN_POSITIVE.to_bits(), 1.5f64.to_bits(), f64::MAX.to_bits()] {
        values.push(Value::Real(RealBits(bits)));
    }
    for real in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.1 + 0.2] {
        values.push(Value::real(real));
    }
    for bytes in
        [&b""[..], "é".as_bytes(), b"\xff\xfe not UTF-8", b"a\0b\0", &LONG[..127], &LONG[..128], &LONG]
    {
        values.extend([Value::Text(bytes), Value::Blob(bytes)]);
    }
    for (text, number, back, len) in
        [(true, 0, 1, 65_536), (false, 127, 128, 16_384), (false, u32::MAX, u32::MAX, u64::MAX)]
    {
        values.push(Value::Big(Big { text, number, back, len, sha256: [0x5a; 32] }));
    }
    values
}

#[test]
fn crc_agrees_with_one_made_bit_by_bit() {
    assert_eq!(asm::crc(b"123456789"), 0x1697_d06a, "the check value of CRC-32/AUTOSAR");
    assert_eq!(crc32(&LONG), asm::crc(&LONG));
    assert_eq!(crc32(b""), asm::crc(b""));
}

#[test]
fn varints_at_every_boundary() {
    for number in boundaries() {
        let bytes = asm::varint(number);
        let mut buf = [0; 10];
        let len = put(&mut buf, &number).unwrap();
        assert_eq!(buf[..len], bytes[..], "{number}");
        assert_eq!(take::<u64>(&mut &bytes[..]), Ok(number));

        let int = unzigzag(number);
        let len = put(&mut buf, &int).unwrap();
        assert_eq!(buf[..len], asm::varint(asm::zigzag(int))[..], "{int}");
        assert_eq!(take::<i64>(&mut &bytes[..]), Ok(int));
    }
    // Two to the 64th, and an eleventh byte.
    for refused in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"[..], &[0x80; 11]] {
        assert!(take::<u64>(&mut &refused[..]).is_err());
    }
}

/// Lengths too long for a readable file, at the last boundaries that a frame can have.
#[test]
fn long_runs() {
    let content = vec![7; 60_000];
    for len in [16_383, 16_384, 16_385, 60_000] {
        let mut a = frame_head(0, 1);
        a.u8("rows", 2)
            .raw("", &DEF.0)
            .u8("insert", 1)
            .value(&Value::Blob(&content[..len]))
            .u8("end", 0)
            .crc();
        let mut buf = vec![0; FRAME_MAX];
        let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, None).unwrap();
        let value = Value::Blob(&content[..len]);
        writer.op(DEF, &OpHead::plain(OpKind::Insert), [value].into_iter()).unwrap();
        assert_eq!(writer.finish(), a.bytes, "{len}");
    }
}

#[test]
fn first_frame_of_a_group() {
    let mut a = frame_head(1, 1);
    group_head(&mut a, 300, -1, 128, &CONTEXT);
    a.crc();
    a.matches_file("frame-first", "The first frame of a group: context, no blocks.");

    let context = CONTEXT.map(|(device, seq)| (Named::Id(DeviceId(device)), seq));
    let group = GroupStart { lamport: 300, wall: -1, pair: 128, context: &context };
    let mut buf = [0; 200];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 1, Some(group)).unwrap();
    assert!(writer.is_empty());
    assert_eq!(writer.finish(), a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    let head = frame.group.unwrap();
    assert_eq!((head.lamport, head.wall, head.pair, head.contexts), (300, -1, 128, 3));
    assert!(frame.context().eq(context));
    assert!(frame.blocks().next_block().unwrap().is_none());
}

#[test]
fn devices_by_small_numbers() {
    const LAST: u32 = Named::NUMBER_MAX;
    let mut a = Asm::new();
    a.u8("version", 2).u8("flags", 1).u8("codec", 0).uint("seq", 2);
    let context = [
        (0, None, 1),
        (1, Some([0xaa; 16]), 127),
        (64, None, 128),
        (u64::from(LAST), Some([0xbb; 16]), i64::MAX as u64),
    ];
    group_head_numbered(&mut a, 301, -1, 0, &context);
    a.crc();
    a.matches_file("frame-numbers", "The first frame of a group: its context names devices by numbers.");

    let context = [
        (Named::Author, 1),
        (Named::Introduced(1, DeviceId([0xaa; 16])), 127),
        (Named::Number(64), 128),
        (Named::Introduced(LAST, DeviceId([0xbb; 16])), i64::MAX as u64),
    ];
    fn group(context: &[(Named, u64)]) -> Option<GroupStart<'_>> {
        Some(GroupStart { lamport: 301, wall: -1, pair: 0, context })
    }
    let mut buf = [0; 200];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 2, group(&context)).unwrap();
    assert_eq!(writer.finish(), a.bytes);
    let frame = Frame::parse(&a.bytes).unwrap();
    assert!(frame.context().eq(context));

    let down = [(Named::Number(2), 1), (Named::Number(2), 1)];
    assert!(FrameWriter::new(&mut buf, FrameFlags::default(), 2, group(&down)).is_err(), "numbers ascend");
    // Ids and numbers do not mix, and there is no number 0 nor one that is too high.
    for wrong in [Named::Id(DeviceId([1; 16])), Named::Number(0), Named::Number(LAST + 1)] {
        let context = [(Named::Author, 1), (wrong, 1)];
        assert!(FrameWriter::new(&mut buf, FrameFlags::default(), 2, group(&context)).is_err(), "{wrong:?}");
    }
}

#[test]
fn later_frame_with_every_flag() {
    let mut a = frame_head(6, i64::MAX as u64);
    a.crc();
    a.matches_file("frame-next", "A later frame of a group: blind, a resolution, the last number of all.");
    let flags = FrameFlags::CONTEXT_FREE.with(FrameFlags::RESOLUTION);
    // Without a group there is no bit for one, whatever the caller says.
    for flags in [flags, flags.with(FrameFlags::FIRST)] {
        let mut buf = [0; 64];
        let mut writer = FrameWriter::new(&mut buf, flags, i64::MAX as u64, None).unwrap();
        assert_eq!(writer.finish(), a.bytes);
    }
    let frame = Frame::parse(&a.bytes).unwrap();
    assert_eq!((frame.head.flags, frame.group), (flags, None));
}

#[test]
fn rows_of_every_value() {
    let mut a = frame_head(0, 2);
    a.u8("block: rows", 2).raw("definition", &DEF.0);
    for (i, value) in values().iter().enumerate() {
        a.u8("insert", 1).value(&Value::Int(i as i64)).value(value);
    }
    a.u8("end of the rows", 0).crc();
    a.matches_file("frame-values", "Rows (key, value) of every kind of value.");

    let mut buf = [0; 4096];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 2, None).unwrap();
    for (i, value) in values().into_iter().enumerate() {
        let row = [Value::Int(i as i64), value];
        writer.op(DEF, &OpHead::plain(OpKind::Insert), row.into_iter()).unwrap();
    }
    assert_eq!(writer.finish(), a.bytes);

    let shape = Shape { keys: &[true, false] };
    let frame = Frame::parse(&a.bytes).unwrap();
    let Some(Block::Rows { def, body, offset }) = frame.blocks().next_block().unwrap() else {
        panic!("no rows")
    };
    assert_eq!(def, DEF);
    let mut ops = Ops::new(body, offset, shape);
    for (i, value) in values().into_iter().enumerate() {
        let op = ops.next_op().unwrap().unwrap();
        assert!(op.values(shape).eq([(0, Value::Int(i as i64)), (1, value)]));
    }
    assert!(ops.next_op().unwrap().is_none() && ops.rest().is_empty());
}

const MASK: [u8; 2] = [0b0000_0101, 0b0000_0000];

/// Every kind with every set of flags that it can have: 8 + 8 + 16.
fn op_heads() -> Vec<OpHead<'static>> {
    let mut heads = Vec::new();
    for kind in [OpKind::Insert, OpKind::Update, OpKind::Delete] {
        for bits in 0..16 {
            let image = bits & 8 != 0;
            if image && kind != OpKind::Delete {
                continue;
            }
            heads.push(OpHead {
                kind,
                claim: (bits & 1 != 0).then_some(if bits & 2 != 0 { 0 } else { i64::MAX as u64 }),
                columns: (bits & 2 != 0).then_some(&MASK[..]),
                wall: (bits & 4 != 0).then_some(-65),
                image,
            });
        }
    }
    heads
}

#[test]
fn ops_of_every_kind_and_flag() {
    // Nine columns: two bytes of mask. The first and the last are the key.
    let keys = [true, false, false, false, false, false, false, false, true];
    let shape = Shape { keys: &keys };
    let carried = |head: &OpHead<'_>| -> Vec<usize> {
        match (head.kind, head.image, head.columns.is_some()) {
            (OpKind::Delete, false, _) => vec![0, 8],
            (_, _, false) => (0..9).collect(),
            (_, _, true) => vec![0, 2, 8],
        }
    };
    let mut a = frame_head(0, 3);
    a.u8("block: rows", 2).raw("definition", &DEF.0);
    let mut offsets = Vec::new();
    for (i, head) in op_heads().iter().enumerate() {
        if i == 16 {
            a.u8("end of the rows", 0);
            a.u8("block: rows", 2).raw("another definition", &OTHER_DEF.0);
        }
        offsets.push(a.bytes.len() as u32);
        let (kind, what) = match head.kind {
            OpKind::Insert => (1, "insert"),
            OpKind::Update => (2, "update"),
            OpKind::Delete => (3, "delete"),
            OpKind::Keep => (64, "keep"),
        };
        let mut byte = kind;
        let mut name = what.to_string();
        for (set, bit, what) in [
            (head.claim.is_some(), 4, " +claim"),
            (head.columns.is_some(), 8, " +columns"),
            (head.wall.is_some(), 16, " +wall"),
            (head.image, 32, " +image"),
        ] {
            if set {
                byte += bit;
                name += what;
            }
        }
        a.u8(&name, byte);
        if let Some(claim) = head.claim {
            a.uint("  claim", claim);
        }
        if let Some(columns) = head.columns {
            a.raw("  columns", columns);
        }
        if let Some(wall) = head.wall {
            a.int("  wall", wall);
        }
        for column in carried(head) {
            a.value(&Value::Int(column as i64));
        }
    }
    a.u8("end of the rows", 0).crc();
    a.matches_file("frame-ops", "Ops of every kind with every flag, on nine columns, in two blocks of rows.");

    let mut buf = [0; 1024];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 3, None).unwrap();
    for (i, head) in op_heads().iter().enumerate() {
        let values = carried(head).into_iter().map(|column| Value::Int(column as i64));
        let def = if i < 16 { DEF } else { OTHER_DEF };
        assert_eq!(writer.op(def, head, values), Ok(offsets[i]));
    }
    assert_eq!(writer.finish(), a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    let mut blocks = frame.blocks();
    let mut heads = op_heads().into_iter().zip(offsets);
    for id in [DEF, OTHER_DEF] {
        let Some(Block::Rows { def, body, offset }) = blocks.next_block().unwrap() else { panic!("no rows") };
        assert_eq!(def, id);
        let mut ops = Ops::new(body, offset, shape);
        while let Some(op) = ops.next_op().unwrap() {
            let (head, offset) = heads.next().unwrap();
            assert_eq!((op.head, op.offset), (head, offset));
            assert!(op.values(shape).map(|(column, _)| column).eq(carried(&head)));
            let again = Op::parse(&mut frame.at(offset).unwrap(), &shape, offset).unwrap().unwrap();
            assert!(again.values(shape).eq(op.values(shape)));
        }
        blocks.resume(ops.rest());
    }
    assert!(heads.next().is_none() && blocks.next_block().unwrap().is_none());
}

#[test]
fn a_verdict() {
    let shape = Shape { keys: &[true, false] };
    let runs = [
        KeptRun { device: DeviceId([0xaa; 16]), first: 1, last: 300 },
        KeptRun { device: DeviceId([0xbb; 16]), first: 7, last: i64::MAX as u64 },
    ];
    let mut a = frame_head(8, 3);
    a.u8("block: keep", 6).uint("runs", 2);
    for KeptRun { device, first, last } in &runs {
        a.raw("  device", &device.0).uint("  first frame", *first).uint("  last frame", *last);
    }
    a.u8("block: rows", 2).raw("definition", &DEF.0);
    a.u8("keep", 64).value(&Value::Int(1));
    a.u8("insert +claim", 5).uint("  claim", 0).value(&Value::Int(2)).value(&Value::Text(b"settled"));
    a.u8("end of the rows", 0).u8("block: keep", 6).uint("runs", 0).crc();
    a.matches_file(
        "frame-verdict",
        "A verdict: of one row nothing but what stays, of one the settled value.",
    );

    let mut buf = [0; 256];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::VERDICT, 3, None).unwrap();
    writer.keep(&runs).unwrap();
    let keep = OpHead::plain(OpKind::Keep);
    writer.op(DEF, &keep, [Value::Int(1)].into_iter()).unwrap();
    let settled = OpHead { claim: Some(0), ..OpHead::plain(OpKind::Insert) };
    writer.op(DEF, &settled, [Value::Int(2), Value::Text(b"settled")].into_iter()).unwrap();
    writer.keep(&[]).unwrap();
    assert_eq!(writer.finish(), a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    assert!(frame.head.flags.has(FrameFlags::VERDICT));
    let mut blocks = frame.blocks();
    let Some(Block::Keep(kept)) = blocks.next_block().unwrap() else { panic!("nothing is kept") };
    assert!(kept.eq(runs));
    let Some(Block::Rows { body, offset, .. }) = blocks.next_block().unwrap() else { panic!("no rows") };
    let mut ops = Ops::new(body, offset, shape);
    let op = ops.next_op().unwrap().unwrap();
    assert_eq!((op.head, op.values(shape).count()), (keep, 1));
    let op = ops.next_op().unwrap().unwrap();
    assert_eq!((op.head, op.values(shape).count()), (settled, 2));
    assert!(ops.next_op().unwrap().is_none());
    blocks.resume(ops.rest());
    let Some(Block::Keep(kept)) = blocks.next_block().unwrap() else { panic!("no second keep") };
    assert_eq!(kept.count(), 0);

    // No room for it: nothing is written.
    let mut short = [0; 48];
    let mut writer = FrameWriter::new(&mut short, FrameFlags::VERDICT, 3, None).unwrap();
    let room = writer.room();
    assert!(writer.keep(&runs).is_err() && writer.room() == room && writer.is_empty());
}

const COLUMNS: [Column<'_>; 7] = {
    const fn column<'a>(
        name: &'a str,
        default: Default<'a>,
        collation: Collation,
        merge: ColumnMerge,
    ) -> Column<'a> {
        Column { name, decl_type: "TEXT", collation, not_null: false, key: 0, default, merge }
    }
    [
        Column {
            name: "id",
            decl_type: "INTEGER",
            collation: Collation::Binary,
            not_null: true,
            key: 1,
            default: Default::None,
            merge: ColumnMerge::Table,
        },
        column("b", Default::Literal(Value::Text(b"none")), Collation::NoCase, ColumnMerge::Counter),
        column("c", Default::Time, Collation::RTrim, ColumnMerge::Max),
        column("d", Default::Date, Collation::Binary, ColumnMerge::Min),
        column("e", Default::Timestamp, Collation::Binary, ColumnMerge::Lww),
        column("größe", Default::Expression, Collation::Binary, ColumnMerge::Table),
        Column {
            name: "g",
            decl_type: "",
            collation: Collation::Binary,
            not_null: true,
            key: 300,
            default: Default::Literal(Value::Null),
            merge: ColumnMerge::Table,
        },
    ]
};

/// (ON DELETE, ON UPDATE): every action once on either side.
const ACTIONS: [(u8, u8); 5] = [(0, 4), (1, 3), (2, 2), (3, 1), (4, 0)];

fn table_head(name: &str, mode: Mode, merge: Merge, policy: Policy) -> TableHead<'_> {
    TableHead {
        name,
        mode,
        merge,
        policy,
        append: false,
        rows: Rows::Rowid,
        autoincrement: false,
        columns: 0,
        uniques: 0,
        foreign_keys: 0,
    }
}

/// The heads: between them every variant of every enum and every flag.
fn heads() -> [TableHead<'static>; 4] {
    [
        TableHead {
            rows: Rows::WithoutRowid,
            columns: 7,
            uniques: 2,
            foreign_keys: 5,
            ..table_head("all", Mode::Shared, Merge::Cell, Policy::Manual)
        },
        TableHead {
            append: true,
            autoincrement: true,
            rows: Rows::Keyless,
            ..table_head("log", Mode::PerDevice, Merge::Row, Policy::Lww)
        },
        table_head("p", Mode::Shared, Merge::Row, Policy::Prefer(DeviceId([0xee; 16]))),
        TableHead {
            columns: 128,
            uniques: 16_384,
            foreign_keys: u16::MAX,
            ..table_head("n", Mode::Shared, Merge::Row, Policy::Manual)
        },
    ]
}

fn def_by_hand(head: &TableHead<'_>) -> Asm {
    let mut a = Asm::new();
    a.str("table", head.name);
    a.u8("mode", if head.mode == Mode::Shared { 0 } else { 1 });
    a.u8("merge", if head.merge == Merge::Row { 0 } else { 1 });
    match head.policy {
        Policy::Manual => a.u8("policy manual", 0),
        Policy::Lww => a.u8("policy lww", 1),
        Policy::Prefer(device) => a.u8("policy prefer", 2).raw("  device", &device.0),
    };
    a.u8("append?", head.append.into()).u8("rows: 1 WITHOUT ROWID, 2 keyless", head.rows as u8);
    a.u8("AUTOINCREMENT?", head.autoincrement.into());
    a.uint("columns", head.columns.into()).uint("uniques", head.uniques.into());
    a.uint("foreign keys", head.foreign_keys.into());
    if head.name != "all" {
        return a;
    }
    for (i, column) in COLUMNS.iter().enumerate() {
        a.str("column", column.name).str("  type", column.decl_type);
        a.u8("  collation", [0, 1, 2, 0, 0, 0, 0][i]).u8("  NOT NULL?", u8::from(i == 0 || i == 6));
        a.uint("  place in the key", [1, 0, 0, 0, 0, 0, 300][i]);
        a.u8("  default", [0, 1, 2, 3, 4, 5, 1][i]);
        if let Default::Literal(value) = &column.default {
            a.value(value);
        }
        a.u8("  merge", [0, 1, 2, 3, 4, 0, 0][i]);
    }
    a.uint("unique: columns", 1).uint("  column", 1);
    a.uint("unique: columns", 2).uint("  column", 2).uint("  column", 300);
    for (on_delete, on_update) in ACTIONS {
        a.str("foreign key to", "parent").u8("  on delete", on_delete).u8("  on update", on_update);
        a.uint("  pairs", 1).str("  here", "b").str("  there", "id");
    }
    a
}

fn def_by_crate<'b>(buf: &'b mut [u8], head: &TableHead<'_>) -> &'b [u8] {
    let mut writer = DefWriter::new(buf, head).unwrap();
    if head.name == "all" {
        COLUMNS.iter().for_each(|column| writer.item(column).unwrap());
        [1u16, 1, 2, 2, 300].iter().for_each(|number| writer.item(number).unwrap());
        for (on_delete, on_update) in ACTIONS {
            writer.item(&ForeignKey { parent: "parent", on_delete, on_update, columns: 1 }).unwrap();
            writer.item(&("b", "id")).unwrap();
        }
    }
    writer.finish()
}

#[test]
fn definitions_with_every_variant() {
    let mut a = frame_head(0, 4);
    let mut buf = [0; 2048];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 4, None).unwrap();
    for head in heads() {
        let by_hand = def_by_hand(&head);
        let mut buf = [0; 1024];
        let by_crate = def_by_crate(&mut buf, &head);
        assert_eq!(by_crate, by_hand.bytes, "{}", head.name);
        assert_eq!(DefId::of(by_crate).0, asm::sha(&[b"packmule/1 def", by_crate])[..8]);
        a.u8("block: def", 1).raw("length", &asm::varint(by_hand.bytes.len() as u64)).all(&by_hand);
        writer.def(by_crate).unwrap();
    }
    a.crc();
    a.matches_file("frame-def", "Table definitions with every variant; the last three are heads alone.");
    assert_eq!(writer.finish(), a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    let mut blocks = frame.blocks();
    for head in heads() {
        let Some(Block::Def(def)) = blocks.next_block().unwrap() else { panic!("no definition") };
        let mut reader = DefReader::new(def).unwrap();
        assert_eq!(reader.head, head);
        if head.name != "all" {
            continue;
        }
        COLUMNS.iter().for_each(|column| assert_eq!(reader.item(), Ok(*column)));
        [1u16, 1, 2, 2, 300].iter().for_each(|number| assert_eq!(reader.item(), Ok(*number)));
        for (on_delete, on_update) in ACTIONS {
            let key = ForeignKey { parent: "parent", on_delete, on_update, columns: 1 };
            assert_eq!(reader.item(), Ok(key));
            assert_eq!(reader.item(), Ok(("b", "id")));
        }
        assert!(reader.at_end());
    }
    assert!(blocks.next_block().unwrap().is_none());
}

#[test]
fn pieces() {
    const PIECES: [(u32, &[u8]); 4] = [(0, b"the "), (127, b"first"), (128, &LONG), (u32::MAX, b"\0")];
    let mut a = frame_head(0, 5);
    a.u8("block: rows", 2).raw("definition", &DEF.0).u8("insert", 1);
    a.value(&Value::Null).u8("end of the rows", 0);
    for (number, bytes) in PIECES {
        a.u8("block: piece", 3).uint("number", number.into()).run("bytes", bytes);
    }
    a.u8("block: retire", 5).raw("device", &[9; 16]);
    a.u8("block: return", 7).raw("device", &[8; 16]);
    a.crc();
    a.matches_file(
        "frame-piece",
        "Pieces of large values after a block of rows, then a device retired, and one back.",
    );

    let mut buf = [0; 256];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 5, None).unwrap();
    writer.op(DEF, &OpHead::plain(OpKind::Insert), [Value::Null].into_iter()).unwrap();
    for (number, bytes) in PIECES {
        assert_eq!(writer.piece(number, bytes), Ok(bytes.len()));
    }
    writer.retire(DeviceId([9; 16])).unwrap();
    writer.came_back(DeviceId([8; 16])).unwrap();
    assert_eq!(writer.finish(), a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    let mut blocks = frame.blocks();
    let Some(Block::Rows { body, offset, .. }) = blocks.next_block().unwrap() else { panic!("no rows") };
    let mut ops = Ops::new(body, offset, Shape { keys: &[true] });
    while ops.next_op().unwrap().is_some() {}
    blocks.resume(ops.rest());
    for (number, bytes) in PIECES {
        let Some(Block::Piece(piece)) = blocks.next_block().unwrap() else { panic!("no piece") };
        assert_eq!((piece.number, piece.bytes), (number, bytes));
    }
    assert!(matches!(blocks.next_block(), Ok(Some(Block::Retire(DeviceId([9, ..]))))));
    assert!(matches!(blocks.next_block(), Ok(Some(Block::Return(DeviceId([8, ..]))))));
    assert!(blocks.next_block().unwrap().is_none());
}
