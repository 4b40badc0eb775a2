//! Golden vectors of what makes tables anew, and of states: see `golden.rs`.

// The helpers of tests panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod asm;

use asm::{Asm, frame_head};
use packmule_core::model::Value;
use packmule_core::wire::{
    Block, Columns, Decision, DefId, FRAME_MAX, Frame, FrameFlags, FrameWriter, OpHead, OpKind, Ops,
    RecordHead, RecordKind, SchemaBits, Shape, Span, Was, put, take, write_record,
};

const DEF: DefId = DefId([0xd0, 1, 2, 3, 4, 5, 6, 7]);

/// Keys in canonical form: each value of the key, one after the other.
fn key(values: &[Value<'_>]) -> Vec<u8> {
    let mut key = Asm::new();
    values.iter().for_each(|value| {
        key.value(value);
    });
    key.bytes
}

#[test]
fn a_restated_table() {
    let shape = Shape { keys: &[true, false, false] };
    let (first, last) = (key(&[Value::Int(-100)]), key(&[Value::Int(300)]));
    let spans = [(&first[..], &last[..]), (&last[..], &[][..]), (&[][..], &first[..])];
    let text = Value::Text(b"as the copy has it");
    let mut a = frame_head(32, 9);
    for (from, to) in spans {
        a.u8("block: span", 8).raw("definition", &DEF.0).run("first key", from).run("last key", to);
    }
    a.u8("block: rows", 2).raw("definition", &DEF.0);
    a.u8("insert: the whole row", 1).value(&Value::Int(1)).value(&text).value(&Value::Null);
    a.u8("update +columns", 2 + 8).raw("  columns 0 and 1", &[3]).value(&Value::Int(2)).value(&text);
    a.u8("delete: the copy left it out", 3).value(&Value::Int(3));
    a.u8("as it was", 64).value(&Value::Int(4));
    a.u8("update +columns", 2 + 8).raw("  none: nothing of it is here", &[0]).value(&Value::Int(5));
    a.u8("end of the rows", 0).crc();
    a.matches_file("frame-restated", "Rows of a table that was made anew, and of which keys all are here.");

    let heads = [
        OpHead::plain(OpKind::Insert),
        OpHead { columns: Some(&[3]), ..OpHead::plain(OpKind::Update) },
        OpHead::plain(OpKind::Delete),
        OpHead::plain(OpKind::Keep),
        OpHead { columns: Some(&[0]), ..OpHead::plain(OpKind::Update) },
    ];
    let values = [
        &[Value::Int(1), text, Value::Null][..],
        &[Value::Int(2), text],
        &[Value::Int(3)],
        &[Value::Int(4)],
        &[Value::Int(5)],
    ];
    let mut buf = [0; 256];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::RESTATED, 9, None).unwrap();
    for (from, to) in spans {
        writer.span(&Span { def: DEF, from, to }).unwrap();
    }
    for (head, values) in heads.iter().zip(values) {
        writer.op(DEF, head, values.iter().copied()).unwrap();
    }
    assert_eq!(writer.finish(), a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    assert!(frame.head.flags.has(FrameFlags::RESTATED) && !frame.is_newer());
    let mut blocks = frame.blocks();
    for (from, to) in spans {
        let Some(Block::Span(span)) = blocks.next_block().unwrap() else { panic!("no span") };
        assert_eq!((span.def, span.from, span.to), (DEF, from, to));
    }
    let Some(Block::Rows { body, offset, .. }) = blocks.next_block().unwrap() else { panic!("no rows") };
    let mut ops = Ops::new(body, offset, shape);
    for (head, values) in heads.iter().zip(values) {
        let op = ops.next_op().unwrap().unwrap();
        assert_eq!(op.head, *head);
        assert!(op.values(shape).map(|(_, value)| value).eq(values.iter().copied()));
    }
    assert!(ops.next_op().unwrap().is_none());
    blocks.resume(ops.rest());
    assert!(blocks.next_block().unwrap().is_none());

    // No room for it: nothing is written.
    let mut short = [0; 24];
    let mut writer = FrameWriter::new(&mut short, FrameFlags::RESTATED, 9, None).unwrap();
    let room = writer.room();
    assert!(writer.span(&Span { def: DEF, from: &first, to: &last }).is_err());
    assert!(writer.room() == room && writer.is_empty());
}

#[test]
fn a_decision_that_can_be_undone() {
    let key = key(&[Value::Text(b"u1")]);
    let mut values = Asm::new();
    values.value(&Value::Text(b"id")).value(&Value::Text(b"u1"));
    values.value(&Value::Text(b"number")).value(&Value::Int(501));
    let values = values.bytes;
    let conflict = [0x5f, 0x3a, 0x9c, 0x01, 0xd2];
    let was = [(7, Was::Values(&values)), (0, Was::Gone), (0, Was::Untold)];
    let mut a = frame_head(4, 9);
    for (claim, was) in was {
        a.u8("block: decision", 15).raw("conflict", &conflict).raw("definition", &DEF.0).run("key", &key);
        a.uint("claim", claim);
        match was {
            Was::Gone => a.u8("it was not there", 0),
            Was::Values(values) => a.u8("it was there", 1).run("names and values", values),
            Was::Untold => a.u8("too large to be told", 2),
        };
    }
    a.crc();
    a.matches_file("frame-decision", "Rows as they were before a resolution, for its undo.");

    let decisions = was.map(|(claim, was)| Decision { conflict, def: DEF, key: &key, claim, was });
    let (mut buf, mut coded, mut plain) = ([0; 512], [0; 512], [0; 512]);
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::RESOLUTION, 9, None).unwrap();
    decisions.iter().for_each(|decision| writer.decision(decision).unwrap());
    assert_eq!(writer.finish(), a.bytes);
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::RESOLUTION, 9, None).unwrap();
    decisions.iter().for_each(|decision| writer.decision(decision).unwrap());
    let by_column = writer.finish_by_column(&mut Columns::new(), &mut coded, |_, _| None);
    let by_column = Frame::parse(by_column).unwrap();
    assert_eq!(by_column.head.codec, 1);
    let len = by_column.plain(&mut Columns::new(), &mut plain).unwrap();
    assert_eq!(plain[..len], a.bytes);

    let frame = Frame::parse(&a.bytes).unwrap();
    let mut blocks = frame.blocks();
    for decision in decisions {
        let Some(Block::Decision(read)) = blocks.next_block().unwrap() else { panic!("no decision") };
        assert_eq!(read, decision);
    }
    assert!(blocks.next_block().unwrap().is_none());

    // No room for it: nothing is written.
    let mut short = [0; 24];
    let mut writer = FrameWriter::new(&mut short, FrameFlags::RESOLUTION, 9, None).unwrap();
    let room = writer.room();
    assert!(writer.decision(&decisions[1]).is_err());
    assert!(writer.room() == room && writer.is_empty());
}

/// One record of each kind that a state has, but for definitions and rows of `_pm_` tables that are older than these.
#[test]
fn records_of_a_state() {
    let (board, base) = ([0xaa; 16], [0xbb; 16]);
    let blob = |bytes: &'static [u8]| Value::Blob(bytes);
    let (board, base) = (Value::Blob(&board), Value::Blob(&base));
    let (shared, per_device) = (Value::Int(0), Value::Int(1));
    let places = [&300u64.to_le_bytes()[..], &[1, 2, 3, 4], &301u64.to_le_bytes(), &[5, 6, 7, 8]].concat();
    let one_key = key(&[Value::Int(7), Value::Text(b"k")]);
    let name = Value::Text(b"stock");
    let key = Value::Blob(&one_key);
    let records: [(&str, &str, Vec<Value<'_>>); 14] = [
        ("since", "device, seq", vec![board, Value::Int(128)]),
        ("table", "name, definition, 1 with rows", vec![name, Value::Blob(&DEF.0), Value::Int(1)]),
        ("tags", "device, places", vec![board, Value::Blob(&places)]),
        ("lamport", "stamp", vec![Value::Int(1 << 40)]),
        (
            "stream",
            "device, stream, seq, chain, checkpoint",
            vec![base, per_device, Value::Int(9), blob(&[0x5a; 32]), blob(&[0xcc; 130])],
        ),
        ("context", "device, stream, other device, seq", vec![board, shared, base, Value::Int(64)]),
        ("number", "device, stream, number, other device", vec![board, shared, Value::Int(1), base]),
        ("floor", "device, stream, seq", vec![board, shared, Value::Int(63)]),
        (
            "head",
            "table, key, device, seq, offset, claim, wall, kind (a restated update), columns",
            vec![
                name,
                key,
                board,
                Value::Int(130),
                Value::Int(40),
                Value::Int(0),
                Value::Int(-1),
                Value::Int(5),
                blob(&[0b110]),
            ],
        ),
        (
            "count",
            "table, key, column, device, seq, absolute, value, stamp",
            vec![
                name,
                key,
                Value::Int(2),
                board,
                Value::Int(130),
                Value::Int(0),
                Value::real(-0.5),
                Value::Int(77),
            ],
        ),
        ("deleted", "table, key", vec![name, key]),
        ("gathers", "definition", vec![blob(b"a definition")]),
        ("own", "table, the row's values", vec![Value::Text(b"readings"), Value::Int(1), Value::real(21.5)]),
        ("gone", "table, key, seq", vec![Value::Text(b"readings"), key, Value::Int(8)]),
    ];
    let mut all = Asm::new();
    for (kind, what, values) in &records {
        let mut body = Asm::new();
        body.str(&format!("kind; then {what}:"), kind);
        values.iter().for_each(|value| {
            body.value(value);
        });
        let by_hand = asm::record(8, &body);

        let mut buf = [0; 512];
        let mut len = put(&mut buf, *kind).unwrap();
        for value in values {
            len += put(&mut buf[len..], value).unwrap();
        }
        let mut record = [0; 600];
        let written = write_record(&mut record, RecordKind::State, &buf[..len]).unwrap();
        assert_eq!(record[..written], by_hand.bytes, "{kind}");

        let head = RecordHead::parse(by_hand.bytes[..8].try_into().unwrap()).unwrap();
        let mut rest = head.check(&by_hand.bytes[8..]).unwrap();
        assert_eq!((head.kind, take::<&str>(&mut rest).unwrap()), (RecordKind::State, *kind));
        for value in values {
            assert_eq!(take::<Value<'_>>(&mut rest).unwrap(), *value, "{kind}");
        }
        assert!(rest.is_empty(), "{kind}");
        all.all(&by_hand);
    }
    all.matches_file("state-records", "Records of a state, one of each newer kind.");
}

#[test]
fn a_table_whose_columns_were_changed() {
    let (names, def) = ([("two", "zwei"), ("old", "")], [b'd'; 60]);
    let mut a = frame_head(0, 9);
    a.u8("block: schema", 11).run("definition", &def).u8("changed", 1).uint("names", 2);
    for (before, after) in names {
        a.run("  name before", before.as_bytes()).run("  name after", after.as_bytes());
    }
    a.u8("block: schema", 11).run("definition", b"other").u8("columns follow", 2).uint("names", 0);
    a.u8("block: schema", 11).run("definition", b"gone").u8("not tracked any more", 8).uint("names", 0).crc();
    a.matches_file("frame-schema", "What a device says of three of its tables.");

    let mut buf = [0; 256];
    let mut writer = FrameWriter::new(&mut buf, FrameFlags::default(), 9, None).unwrap();
    writer.schema(&def, SchemaBits::CHANGED, &names).unwrap();
    writer.schema(b"other", SchemaBits::FOLLOWS, &[]).unwrap();
    writer.schema(b"gone", SchemaBits::LEFT, &[]).unwrap();
    let mut out = [0; 256];
    let no_rows = |_: DefId, _: &mut [bool]| None;
    let coded = writer.finish_by_column(&mut Columns::new(), &mut out, no_rows).to_vec();
    assert_eq!(writer.finish(), a.bytes);

    let mut plain = vec![0; FRAME_MAX];
    let coded = Frame::parse(&coded).unwrap();
    assert!(coded.is_by_column());
    let len = coded.plain(&mut Columns::new(), &mut plain).unwrap();
    for bytes in [&a.bytes, &plain[..len]] {
        let frame = Frame::parse(bytes).unwrap();
        let mut blocks = frame.blocks();
        let Some(Block::Schema(first)) = blocks.next_block().unwrap() else { panic!("no schema") };
        assert!(first.def == def && first.bits == SchemaBits::CHANGED && first.names.eq(names));
        let Some(Block::Schema(second)) = blocks.next_block().unwrap() else { panic!("no schema") };
        assert!(second.def == b"other" && second.bits.says(SchemaBits::FOLLOWS));
        assert!(second.names.count() == 0);
        let Some(Block::Schema(third)) = blocks.next_block().unwrap() else { panic!("no schema") };
        assert!(third.def == b"gone" && third.bits == SchemaBits::LEFT);
        assert!(blocks.next_block().unwrap().is_none());
    }
}
