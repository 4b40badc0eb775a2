//! Readers that go through everything, and see that what they read is sound.

use packmule_core::wire::{
    Block, Certificate, Checkpoint, Column, DecodeError, DefReader, DefWriter, Footer, ForeignKey, Frame,
    HeaderReader, MAGIC, Newest, Op, Ops, RECORD_HEAD_LEN, RecordHead, RecordKind, Revocation, Section,
    Shape, take,
};
use serde::{Deserialize, Serialize};

use crate::asm;

/// The shapes that the vectors use, and some that they do not.
pub const SHAPES: [&[bool]; 5] = [
    &[true],
    &[true, false],
    &[true, false, false, false, false, false, false, false, true],
    &[false; 65],
    // A board that has no idea of the table.
    &[],
];

pub fn shape_of(name: &str) -> Shape<'static> {
    let at = match name {
        "frame-values" | "frame-verdict" => 1,
        "frame-ops" => 2,
        _ => 0,
    };
    Shape { keys: SHAPES[at] }
}

/// Reads a definition to its end, and writes what it read: a writer takes the shortest form, so that is no longer.
fn rewritten(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    fn copy<'a, T: Serialize + Deserialize<'a>>(
        reader: &mut DefReader<'a>,
        writer: &mut DefWriter<'_>,
    ) -> Result<T, DecodeError> {
        let item = reader.item()?;
        writer.item(&item).expect("it is longer than what was read");
        Ok(item)
    }
    let mut reader = DefReader::new(bytes)?;
    let head = reader.head;
    let mut buf = vec![0; bytes.len()];
    let mut writer = DefWriter::new(&mut buf, &head).expect("it is longer than what was read");
    let w = &mut writer;
    for _ in 0..head.columns {
        copy::<Column<'_>>(&mut reader, w)?;
    }
    for _ in 0..head.uniques {
        for _ in 0..copy::<u16>(&mut reader, w)? {
            copy::<u16>(&mut reader, w)?;
        }
    }
    for _ in 0..head.foreign_keys {
        for _ in 0..copy::<ForeignKey<'_>>(&mut reader, w)?.columns {
            copy::<(&str, &str)>(&mut reader, w)?;
        }
    }
    if reader.at_end() {
        Ok(writer.finish().to_vec())
    } else {
        Err(DecodeError::Malformed("more than a definition"))
    }
}

/// Reads a definition to its end. What is taken for one has a single end, and stays what it is when it is written.
pub fn walk_def(bytes: &[u8]) -> Result<(), DecodeError> {
    let once = rewritten(bytes)?;
    assert_eq!(rewritten(&once).as_ref(), Ok(&once), "{bytes:02x?}");
    assert!(rewritten(&bytes[..bytes.len() - 1]).is_err(), "{bytes:02x?} without its last byte");
    assert!(rewritten(&[bytes, &[0]].concat()).is_err(), "{bytes:02x?} and one byte more");
    Ok(())
}

/// Reads everything in a frame; counts steps, so that none goes on without end.
pub fn walk(bytes: &[u8], shape: Shape<'_>) -> Result<usize, DecodeError> {
    let frame = Frame::parse(bytes)?;
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        assert!(steps <= bytes.len() * 4, "it goes round in circles");
    };
    assert_eq!(frame.context().count(), frame.group.map_or(0, |group| group.contexts as usize));
    let mut blocks = frame.blocks();
    while let Some(block) = blocks.next_block()? {
        step();
        match block {
            Block::Def(def) => {
                // The heads alone that stand in frame-def are no whole definitions.
                let _: Result<(), DecodeError> = walk_def(def);
            }
            Block::Rows { body, offset, .. } => {
                let mut ops = Ops::new(body, offset, shape);
                while let Some(op) = ops.next_op()? {
                    step();
                    let values = op.values(shape).inspect(|_| step()).count();
                    let again = Op::parse(&mut frame.at(op.offset).unwrap(), &shape, op.offset)?.unwrap();
                    assert_eq!(again.values(shape).count(), values);
                }
                blocks.resume(ops.rest());
            }
            Block::Piece(piece) => assert!(piece.bytes.len() < bytes.len()),
            Block::Retire(_) | Block::Return(_) | Block::Span(_) | Block::Decision(_) => {}
            Block::Schema(schema) => {
                schema.names.for_each(|_| step());
                let _: Result<(), DecodeError> = walk_def(schema.def);
            }
            Block::Keep(runs) => assert!(runs.inspect(|_| step()).all(|run| run.first <= run.last)),
        }
    }
    Ok(steps)
}

/// Reads a bundle as far as its form goes; whether it has its footer.
pub fn walk_bundle(bytes: &[u8]) -> Result<bool, DecodeError> {
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else { return Err(DecodeError::Short) };
    loop {
        let Some((head, after)) = rest.split_first_chunk::<RECORD_HEAD_LEN>() else {
            return if rest.is_empty() { Ok(false) } else { Err(DecodeError::Short) };
        };
        let head = RecordHead::parse(head)?;
        let (body, after) = after.split_at_checked(head.len as usize).ok_or(DecodeError::Short)?;
        let body = head.check(body)?;
        match head.kind {
            RecordKind::Header => {
                HeaderReader::parse(body)?;
            }
            RecordKind::Certificate => {
                Certificate::decode(body)?;
            }
            RecordKind::Revocation => {
                Revocation::decode(body)?;
            }
            RecordKind::Newest => {
                Newest::decode(body)?;
            }
            RecordKind::Section => {
                take::<Section>(&mut &*body)?;
            }
            RecordKind::State | RecordKind::Part | RecordKind::Seal => {}
            RecordKind::Frame => {
                walk(body, Shape { keys: SHAPES[1] })?;
            }
            RecordKind::Checkpoint => {
                Checkpoint::decode(body)?;
            }
            RecordKind::Footer => {
                let footer: Footer = take(&mut &*body)?;
                if !after.is_empty() || footer.sha256 != asm::sha(&[&bytes[..bytes.len() - rest.len()]]) {
                    return Err(DecodeError::Malformed("a footer that is not this bundle's"));
                }
                return Ok(true);
            }
            RecordKind::Message => return Err(DecodeError::Malformed("a message, which no bundle has")),
        }
        rest = after;
    }
}
