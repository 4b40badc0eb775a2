//! What the engine reads of files, changed in every place: bundles packed and not, encrypted containers, rows of states, row keys
//! and definitions. Nothing panics or goes on without end. How it goes: `tests/fuzz/targets.rs`; `tests/fuzz_bundles.rs` has
//! whole devices hear such bundles.

use std::io::{Cursor, Read, Write};

use ed25519_compact::{KeyPair, Seed};
use packmule_core::model::Value;
use packmule_core::wire::{DefId, Frame, put, take};
use sha2::{Digest, Sha256};

use crate::engine::error::{BundleProblem, Error, Result};
use crate::engine::exchange::state_form;
use crate::engine::log::bundle::{BundleReader, Item};
use crate::engine::log::tags;
use crate::engine::store::cipher::{self, CHUNK, Cipher, Reader, SLOT};
use crate::engine::store::decrypt::BundleFile;
use crate::engine::store::encrypt::{Encrypting, Readers, Who};
use crate::engine::store::fuzz_targets::{Signature, Target, got, try_all};
use crate::engine::store::{temporary, value};
use crate::engine::table::def::TableDef;

/// The bytes of a vector.
fn vector(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter_map(|line| line.split('#').next()).collect();
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

macro_rules! vector {
    ($name:literal) => {
        vector(include_str!(concat!("../../../tests/vectors/", $name, ".hex")))
    };
}

/// How something was refused.
fn refused(e: &Error) -> Signature {
    let said = match e {
        Error::Bundle { cause: BundleProblem::Decode(e), .. } => e.to_string(),
        other => other.to_string(),
    };
    said.bytes()
        .filter(u8::is_ascii_lowercase)
        .take(60)
        .fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 100_003)
}

fn ended<T>(done: Result<T>) -> Signature {
    done.map_or_else(|e| refused(&e), |_| got(1))
}

/// Reads all records of a bundle.
fn bundle(bytes: &[u8]) -> Signature {
    let (mut reader, mut items) = (BundleReader::new(bytes), 0);
    loop {
        items += 1;
        assert!(items <= bytes.len() + 2, "it goes round in circles");
        match reader.next_item() {
            Ok(Item::End) => return got(items) + 10,
            Ok(Item::Frame(_, frame, body)) => {
                assert_eq!(Frame::parse(body).map(|f| f.head.seq), Ok(frame.head.seq))
            }
            Ok(_) => {}
            Err(e) => return got(items) * 100_003 + refused(&e),
        }
    }
}

fn device() -> KeyPair {
    KeyPair::from_seed(Seed::new([5; 32]))
}

/// As every random number here.
const RANDOM: [u8; 32] = [9; 32];

/// A bundle encrypted to a device.
fn encrypted() -> Vec<u8> {
    let reader = Reader::of(*device().pk).unwrap();
    let random: cipher::Random = |bytes| {
        *bytes = RANDOM;
        Ok(())
    };
    let mut out = Encrypting::new(Vec::new(), &Readers { who: Who::Devices(vec![reader]), random }).unwrap();
    out.write_all(&vector!("packed")).unwrap();
    out.finish().unwrap();
    std::mem::take(out.inner())
}

/// So long is the head of a container for up to four devices.
const HEAD: usize = 8 + 2 + 2 + 32 + 4 * SLOT;

/// Opens a container, and reads it to its end.
fn container(bytes: &[u8]) -> Signature {
    let mut file = match BundleFile::open(Cursor::new(bytes), Some(&device().sk), None) {
        Ok(file) => file,
        Err(e) => return refused(&e),
    };
    let mut all = Vec::new();
    let read = (&mut file).take(1 << 20).read_to_end(&mut all);
    assert!(all.len() <= bytes.len(), "more comes out than went in");
    read.map_or(2, |n| got(n) + u64::from(file.encryption().is_some()))
}

/// The same of a container whose content is these bytes, encrypted as they must be.
fn container_sealed(bytes: &[u8]) -> Signature {
    let whole = encrypted();
    let head = &whole[..HEAD];
    let cipher = Cipher::new(&cipher::chunk_key(&RANDOM, Sha256::new_with_prefix(head)));
    let mut content = bytes[..bytes.len().min(CHUNK)].to_vec();
    let tag = cipher.seal(0, true, &mut content).unwrap();
    container(&[head, &content, &tag].concat())
}

/// The list of one device, and a bundle.
fn contents() -> Vec<Vec<u8>> {
    let list = |n: u16, ids: usize| [&n.to_le_bytes()[..], &vec![7; 16 * ids], &vector!("packed")].concat();
    vec![list(0, 0), list(1, 1), list(3, 3), list(9, 1)]
}

/// The bodies of the records of a state.
fn states() -> Vec<Vec<u8>> {
    let bytes = vector!("state-records");
    let mut rest = &bytes[..];
    let mut all = Vec::new();
    while rest.len() > 8 {
        let len = usize::from(rest[1]) + 256 * usize::from(rest[2]);
        all.push(rest[8..8 + len - 4].to_vec());
        rest = &rest[8 + len..];
    }
    let value = |values: &[Value<'_>], kind: &str| {
        let mut body = vec![0; 400];
        let mut len = put(&mut body, kind).unwrap();
        values.iter().for_each(|value| len += put(&mut body[len..], value).unwrap());
        body.truncate(len);
        body
    };
    let (id, key, table) = (Value::Blob(&[7; 16]), Value::Blob(&[1, 10]), Value::Text(b"t"));
    let int = Value::Int;
    all.extend([
        value(&[table, key, id, int(1), int(9), int(1), int(0), int(1), Value::Null], "head"),
        value(&[table, key, int(1), id, int(1), int(0), Value::real(1.5), int(1)], "count"),
        value(&[table, key, Value::Blob(&[3, 1, 97, 1, 2])], "image"),
        value(
            &[
                table,
                int(1),
                Value::Text(b"c"),
                id,
                int(1),
                int(1),
                Value::Blob(b"1"),
                int(0),
                Value::Blob(&[1; 8]),
            ],
            "declared",
        ),
        value(&[id, Value::Blob(&[1; 24])], "tags"),
        value(&[id, int(0), int(5), Value::Blob(&[1; 32]), Value::Blob(&[2; 120])], "stream"),
    ]);
    all
}

/// Reads a row of a state: what has its form can be read to its end.
fn state(mut bytes: &[u8]) -> Signature {
    let Ok(kind) = take::<&str>(&mut bytes) else { return 0 };
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let Ok(value) = take::<Value<'_>>(&mut bytes) else { return 1 };
        values.push(value);
    }
    if !state_form::has_form(kind, &values) {
        return 2 + values.len().min(9) as u64;
    }
    let blobs = values.iter().filter_map(|value| match value {
        Value::Blob(blob) => Some(*blob),
        _ => None,
    });
    let mut ends = got(values.len()) + 7 * kind.bytes().map(u64::from).sum::<u64>();
    for blob in blobs {
        ends += ended(value::read_key(blob)) + ended(tags::unpacked(blob)) / 2 + definition(blob) / 4;
    }
    ends
}

/// Reads a key of a row: what it says has one form, which is it.
fn key(bytes: &[u8]) -> Signature {
    let values = match value::read_key(bytes) {
        Ok(values) => values,
        Err(e) => return refused(&e),
    };
    assert_eq!(value::integer_key(bytes).is_some(), matches!(values[..], [value::OwnedValue::Int(_)]));
    got(values.len())
}

fn keys() -> Vec<Vec<u8>> {
    vec![vec![1, 10], vec![3, 2, 97, 98], vec![4, 1, 0, 1, 255, 1], vec![0]]
}

/// Reads a definition, and makes the table of it: SQLite makes that one table, or nothing.
fn definition(bytes: &[u8]) -> Signature {
    let def = match TableDef::hear(bytes) {
        Ok(def) => def,
        Err(e) => return e.to_string().len() as u64,
    };
    let db = rusqlite::Connection::open_in_memory().unwrap();
    let made = db.execute_batch(&def.create_sql(false)).is_ok();
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type <> 'table' AND type <> 'index' OR tbl_name <> ?1 COLLATE NOCASE";
    // An AUTOINCREMENT brings SQLite's own table of sequences.
    let else_there: i64 = db.query_row(sql, [&def.name], |row| row.get(0)).unwrap();
    assert!(
        else_there <= i64::from(def.autoincrement),
        "it made something else: {:?}",
        def.create_sql(false)
    );
    if let Ok((_, again)) = def.encode() {
        assert_eq!(TableDef::hear(&again).as_ref(), Ok(&def));
    }
    got(def.columns.len()) + u64::from(made)
}

fn definitions() -> Vec<Vec<u8>> {
    let db = rusqlite::Connection::open_in_memory().unwrap();
    temporary::make(&db).unwrap();
    db.execute_batch(
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL DEFAULT 'x' COLLATE NOCASE UNIQUE, n REAL DEFAULT -1.5);
         CREATE TABLE b (a INT REFERENCES a ON DELETE CASCADE, k TEXT, at DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (k, a)) WITHOUT ROWID;
         CREATE TABLE c (\"a \"\"quoted\"\"\" BLOB PRIMARY KEY, v DEFAULT x'00ff', w DEFAULT (1 + 1))",
    )
    .unwrap();
    let of = |table| TableDef::read(&db, table).unwrap().encode().unwrap();
    ["a", "b", "c"]
        .map(of)
        .map(|(id, body)| {
            assert_eq!(DefId::of(&body), id);
            body
        })
        .into()
}

#[test]
fn whatever_a_file_has_is_read_or_refused() {
    try_all(&[
        Target { name: "bundle-packed", seeds: || vec![vector!("packed")], run: bundle, weight: 8 },
        Target {
            name: "bundle-read",
            seeds: || vec![vector!("bundle"), vector!("packed")],
            run: bundle,
            weight: 8,
        },
        Target {
            name: "container",
            seeds: || vec![encrypted(), vector!("encrypted-devices")],
            run: container,
            weight: 40,
        },
        Target { name: "container-sealed", seeds: contents, run: container_sealed, weight: 40 },
        Target { name: "state-record", seeds: states, run: state, weight: 8 },
        Target { name: "row-key", seeds: keys, run: key, weight: 1 },
        Target { name: "table", seeds: definitions, run: definition, weight: 80 },
    ]);
}
