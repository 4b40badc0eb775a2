//! The format of the log and of every carrier. `FORMAT.md`, beside this file, is it byte by byte.
//!
//! Imports [`crate::model`]. Encoders write into the caller's buffer, decoders borrow from the
//! input; nothing here allocates, and no length field of the input is trusted before it is checked
//! against the input's own length.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod blocks;
mod cert;
mod checkpoint;
mod columns;
mod def;
mod error;
mod frame;
mod record;
mod revocation;
mod rows;
mod schema;
mod session;
mod values;

pub use blocks::{Block, Blocks, Decision, Keep, KeptRun, Piece, Span, Was};
pub use cert::{CERT_MAX, Certificate, FleetSignature, SERIAL_MAX};
pub use checkpoint::{CHECKPOINT_LEN, Chain, Checkpoint, GroupDigest, NEWEST_LEN, Newest, SignatureError};
pub use columns::{BUCKETS, Bucket, Columns, Learned};
pub use def::{
    Collation, Column, ColumnMerge, DefId, DefReader, DefWriter, Default, ForeignKey, Merge, Mode, Policy,
    Rows, TableHead,
};
pub use error::{DecodeError, NoRoom};
pub use frame::{
    Context, FORMAT_VERSION, FRAME_MAX, FRAME_VERSION, Frame, FrameFlags, FrameHead, FrameWriter, GroupHead,
    GroupStart, LAMPORT_MAX, Named,
};
pub use record::{
    Footer, Header, HeaderReader, MAGIC, PACKED_MAGIC, Position, Probe, RECORD_HEAD_LEN, RecordHead,
    RecordKind, Section, finish_record, vector_digest, write_record,
};
pub use revocation::{REVOCATION_MAX, Revocation};
pub use rows::{Op, OpHead, OpKind, Ops, Shape, Values};
pub use schema::{Renamed, Schema, SchemaBits};
pub use session::{CHUNK_MAX, Message, Offer, Refusal, SESSION_VERSION, SESSION_VERSION_MIN, begin_chunk};
pub use values::{put_value, take_value};

pub use crate::model::crc32;

use serde::{Deserialize, Serialize};

/// Reads one postcard-encoded item off the front of `input`.
pub fn take<'a, T: Deserialize<'a>>(input: &mut &'a [u8]) -> Result<T, DecodeError> {
    let (item, rest) = postcard::take_from_bytes(input).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => DecodeError::Short,
        _ => DecodeError::Malformed("a field out of its range"),
    })?;
    *input = rest;
    Ok(item)
}

/// The greatest sequence number or stamp: SQLite's integers end there; no log gets there.
const COUNT_MAX: u64 = i64::MAX as u64;

/// Reads a sequence number or a stamp.
fn take_count(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let count = take(input)?;
    if count > COUNT_MAX {
        return Err(DecodeError::Malformed("a count out of its range"));
    }
    Ok(count)
}

/// Looks at the version byte before anything else is read: a format newer than `newest` may differ in all the rest.
fn check_version(bytes: &[u8], newest: u8) -> Result<(), DecodeError> {
    match bytes.first() {
        None => Err(DecodeError::Short),
        Some(version) if (FORMAT_VERSION..=newest).contains(version) => Ok(()),
        Some(&other) => Err(DecodeError::Version(other.into())),
    }
}

/// Reads `len` bytes off the front of `input`.
pub fn take_bytes<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (bytes, rest) = input.split_at_checked(len).ok_or(DecodeError::Short)?;
    *input = rest;
    Ok(bytes)
}

/// Writes one postcard-encoded item at the front of `buf`; returns its length.
pub fn put<T: Serialize + ?Sized>(buf: &mut [u8], item: &T) -> Result<usize, NoRoom> {
    postcard::to_slice(item, buf).map(|written| written.len()).map_err(|_| NoRoom)
}

/// Writes one postcard-encoded item into `buf` after the first `len` bytes, and counts it among these.
fn put_next<T: Serialize + ?Sized>(buf: &mut [u8], len: &mut usize, item: &T) -> Result<(), NoRoom> {
    *len += put(buf.get_mut(*len..).ok_or(NoRoom)?, item)?;
    Ok(())
}

/// Returns what was read of `all`, of which `rest` is left.
fn read_part<'a>(all: &'a [u8], rest: &[u8]) -> &'a [u8] {
    all.get(..all.len().saturating_sub(rest.len())).unwrap_or_default()
}

/// Joins parts that fill an array.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut whole = [0; N];
    whole.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, byte)| *to = *byte);
    whole
}

/// A run of bytes with its length before it; the counterpart of `take::<&[u8]>`.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
