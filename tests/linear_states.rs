//! What a state says: whoever signs one can say any number of things in it, and each costs as much as the one before.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundles;
mod common;
mod counted;
mod wrong;

use common::{bundle, try_import};
use counted::{Counted, is_linear};
use packmule::core::model::Value;
use packmule::core::wire::{DefId, RecordKind, put};
use wrong::{Fleet, folded, state_body, state_row};

type Records = Vec<(&'static str, Vec<u8>)>;

fn said(kind: &'static str, values: &[Value<'_>]) -> (&'static str, Vec<u8>) {
    (kind, state_body(kind, values))
}

/// What the insider says of `n` things.
fn state(counted: &mut Counted, n: u64, make: &dyn Fn(u64, [u8; 16]) -> Records) {
    let (mut fleet, mut late) = folded();
    let Fleet { insider, .. } = &mut fleet;
    let mut records = bundles::records(&bundle(insider, &late));
    let id = insider.identity().id.0;
    for (kind, body) in make(n, id) {
        // After those of its kind; what is said of tables, before all else.
        let like =
            |(record, of): &(RecordKind, Vec<u8>)| *record == RecordKind::State && state_row(of).0 == kind;
        let at = records.iter().rposition(like).map_or_else(
            || records.iter().position(|(record, _)| *record == RecordKind::State).unwrap(),
            |at| at + 1,
        );
        records.insert(at, (RecordKind::State, body));
    }
    bundles::seal_state(&mut records, insider);
    let bytes = bundles::join(&records);
    let done = counted.part(n, "import", || try_import(&mut late, &bytes));
    println!(
        "{n}: {} bytes: {:?}",
        bytes.len(),
        done.map(|r| r.ops).map_err(|e| e.to_string().chars().take(300).collect::<String>())
    );
    counted.part(n, "status", || late.status().unwrap());
    counted.part(n, "import again", || drop(try_import(&mut late, &bytes)));
    counted.part(n, "verify", || drop(late.verify().unwrap()));
    counted.part(n, "export", || drop(common::whole_bundle(&mut late)));
}

fn declared(
    table: &str,
    what: i64,
    name: &str,
    id: [u8; 16],
    seq: i64,
    value: &[u8],
    def: &[u8],
) -> (&'static str, Vec<u8>) {
    let values = [
        Value::Text(table.as_bytes()),
        Value::Int(what),
        Value::Text(name.as_bytes()),
        Value::Blob(&id),
        Value::Int(seq),
        Value::Int(seq),
        Value::Blob(value),
        Value::Int(0),
        Value::Blob(&DefId::of(def).0),
    ];
    said("declared", &values)
}

/// A state with definitions of a name, of each what makes it another one.
fn defined(counted: &mut Counted, n: u64, def: fn(u64) -> Vec<u8>) {
    state(counted, n, &|n, _| (0..n).map(|at| said("def", &[Value::Blob(&def(at))])).collect());
}

/// Definitions of one table.
fn definitions(counted: &mut Counted, n: u64) {
    defined(counted, n, |at| wrong::table("settings", "id", &format!("T{at}")));
}

#[test]
fn definitions_of_one_table() {
    is_linear(250, definitions);
}

/// Tables of one name, each with another primary key: more of them than are taken.
fn other_keys(counted: &mut Counted, n: u64) {
    defined(counted, n, |at| wrong::table("settings", &format!("k{at}"), ""));
}

#[test]
fn tables_of_one_name() {
    is_linear(200, other_keys);
}

/// Declarations of tables that the maker does not have.
fn of_no_table(counted: &mut Counted, n: u64) {
    state(counted, n, &|n, id| {
        (0..n).map(|at| declared(&format!("t{at}"), 1, "value", id, at as i64, b"1", b"")).collect()
    });
}

#[test]
fn declarations_of_no_table() {
    is_linear(250, of_no_table);
}

/// Declarations of every kind of one table, of which the definitions are there and are not.
fn of_one_table(counted: &mut Counted, n: u64) {
    let settings = wrong::table("settings", "id", "");
    for what in 0..7 {
        for of in [&settings[..], b""] {
            state(counted, n, &|n, id| {
                let mut all: Records = (0..n)
                    .map(|at| declared("settings", what, &format!("c{}", at % 3), id, at as i64, b"d", of))
                    .collect();
                all.insert(0, said("def", &[Value::Blob(&settings)]));
                all
            });
        }
    }
}

#[test]
fn declarations_of_one_table() {
    is_linear(60, of_one_table);
}

/// What a state says of devices that nobody has heard of.
fn of_devices(counted: &mut Counted, n: u64) {
    for kind in ["context", "number", "floor", "tags", "retired"] {
        state(counted, n, &|n, id| {
            (0..n)
                .map(|at| {
                    let mut other = [9; 16];
                    other[..8].copy_from_slice(&at.to_be_bytes());
                    let (id, other, shared) = (Value::Blob(&id), Value::Blob(&other), Value::Int(0));
                    match kind {
                        "context" => said(kind, &[id, shared, other, Value::Int(0)]),
                        "number" => said(kind, &[id, shared, Value::Int(at as i64 + 100), other]),
                        "floor" => said(kind, &[other, shared, Value::Int(0)]),
                        "tags" => said(kind, &[other, Value::Blob(b"")]),
                        _ => said(kind, &[other, Value::Null, Value::Null, Value::Int(1)]),
                    }
                })
                .collect()
        });
    }
}

#[test]
fn devices_that_nobody_has_heard_of() {
    is_linear(250, of_devices);
}

/// Versions, counters and folded rows of a table, of keys that no row has.
fn of_rows(counted: &mut Counted, n: u64) {
    for kind in ["head", "count", "image", "deleted", "row"] {
        state(counted, n, &|n, id| {
            (0..n)
                .map(|at| {
                    let mut key = vec![0; 12];
                    let len = put(&mut key, &Value::Int(at as i64 + 100)).unwrap();
                    key.truncate(len);
                    let (table, key, id) = (Value::Text(b"settings"), Value::Blob(&key), Value::Blob(&id));
                    let int = Value::Int;
                    match kind {
                        "head" => {
                            said(kind, &[table, key, id, int(1), int(9), int(1), int(0), int(1), Value::Null])
                        }
                        "count" => said(kind, &[table, key, int(1), id, int(1), int(0), int(1), int(1)]),
                        "image" => said(kind, &[table, key, Value::Blob(b"")]),
                        "deleted" => said(kind, &[table, key]),
                        _ => said(kind, &[table, int(at as i64 + 100), Value::Text(b"of nobody")]),
                    }
                })
                .collect()
        });
    }
}

#[test]
fn rows() {
    is_linear(250, of_rows);
}
