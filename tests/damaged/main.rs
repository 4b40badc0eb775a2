//! Somebody wrote into Packmule's own tables: that is said as damage, with what to do, and nothing ends in a panic.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../bundles/mod.rs"]
mod bundles;
#[path = "../common/mod.rs"]
mod common;
mod devices;
#[path = "../wrong/mod.rs"]
mod wrong;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::{app, key_file, open, try_import};
use devices::{Device, held, keyless, open_matters, settled, two_histories};
use packmule::{Engine, Error, Hint, Options, Recipient, Resolution};

/// What is put in place of each value, in turn.
const WRONG: [&str; 5] = ["'nonsense'", "-7", "9223372036854775807", "x'00ff'", "NULL"];

/// And these, of an absurd size or none.
const ABSURD: [&str; 6] =
    ["zeroblob(1000000)", "printf('%.*c', 1000000, 'x')", "x''", "9e999", "-9223372036854775808", "0"];

/// What a table is called, whatever the number of the table that it is about.
fn kind(table: &str) -> String {
    table.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
}

/// One of Packmule's own tables that has rows, and its columns; of each whether the key has it.
struct Table {
    name: String,
    columns: Vec<(String, bool)>,
}

/// Packmule's own tables that have rows, and the kinds that have none.
fn tables(path: &Path) -> (Vec<Table>, BTreeSet<String>) {
    let db = open(path);
    let sql = "SELECT t.name, c.name, c.pk > 0 FROM sqlite_schema t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name LIKE '\\_pm\\_%' ESCAPE '\\' ORDER BY 1, 2";
    let mut statement = db.prepare(sql).unwrap();
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let mut tables: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for column in all {
        let (table, name, in_key) = column.unwrap();
        tables.entry(table).or_default().push((name, in_key));
    }
    let has_rows =
        |table: &String| db.prepare(&format!("SELECT 1 FROM {table}")).unwrap().exists([]).unwrap();
    let (full, empty): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tables.into_iter().partition(|(name, _)| has_rows(name));
    let full = full.into_iter().map(|(name, columns)| Table { name, columns });
    (full.collect(), empty.keys().map(|name| kind(name)).collect())
}

/// A wrong value in each column.
fn wrong_values(table: &Table, wrong: &[&str]) -> Vec<String> {
    let of_column = |(column, _): &(String, bool)| -> Vec<String> {
        let set = |wrong: &&str| format!("UPDATE OR IGNORE {} SET {column} = {wrong}", table.name);
        wrong.iter().map(set).collect()
    };
    table.columns.iter().flat_map(of_column).collect()
}

/// Rows that are missing, or there twice under another key, and the table itself that is missing.
fn wrong_rows(table: &Table) -> Vec<String> {
    let Table { name, columns } = table;
    let all = columns.iter().map(|(column, _)| column.as_str()).collect::<Vec<_>>().join(", ");
    let one = |order: &str| {
        format!("DELETE FROM {name} WHERE ({all}) IS (SELECT {all} FROM {name} {order} LIMIT 1)")
    };
    let mut wrong = vec![
        format!("DELETE FROM {name}"),
        one(&format!("ORDER BY {all}")),
        one(&format!("ORDER BY ({all}) DESC").replace(['(', ')'], "").replace(", ", " DESC, ")),
        format!("DROP TABLE {name}"),
    ];
    for (column, _) in columns.iter().filter(|(_, in_key)| *in_key) {
        for other in [
            format!(
                "CASE typeof({column}) WHEN 'integer' THEN {column} + 1 WHEN 'blob' THEN CAST({column} || x'00' AS BLOB) ELSE {column} || '+' END"
            ),
            format!("CASE typeof({column}) WHEN 'integer' THEN {column} + 1000000 ELSE NULL END"),
        ] {
            let values =
                columns.iter().map(|(of, _)| if of == column { other.as_str() } else { of.as_str() });
            let values = values.collect::<Vec<_>>().join(", ");
            wrong.push(format!("INSERT OR IGNORE INTO {name} ({all}) SELECT {values} FROM {name}"));
        }
    }
    wrong
}

/// What a keeper does with a device: looks at it, checks it, exchanges with it, decides, folds. Returns what failed.
fn used(path: &Path, bytes: &[u8], options: Options) -> Vec<(&'static str, Error)> {
    let mut engine = match Engine::open_with(path, options) {
        Ok(engine) => engine,
        Err(error) => return vec![("open", error)],
    };
    let mut failed = Vec::new();
    let mut tried =
        |what, result: packmule::Result<()>| failed.extend(result.err().map(|error| (what, error)));
    tried("status", engine.status().map(drop));
    tried("devices", engine.devices().map(drop));
    tried("conflicts", engine.conflicts().map(drop));
    tried("log", engine.log(None, &[], &mut |_| Ok(())));
    tried("verify", engine.verify().map(drop));
    tried("digest", engine.digest(false).map(drop));
    tried("import", try_import(&mut engine, bytes).map(drop));
    tried("seal", engine.seal().map(drop));
    let peers = engine.devices().unwrap_or_default().into_iter().map(|device| Recipient::Device(device.id));
    for to in peers.chain([Recipient::Anyone]) {
        tried("export", engine.export(&mut Vec::new(), to).map(drop));
    }
    tried(
        "resolve",
        engine
            .resolve_with(&mut |conflict| conflict.newest().map(|(_, device)| Resolution::Take(device)))
            .map(drop),
    );
    tried("snapshot", engine.snapshot(&mut Vec::new()).map(drop));
    tried("compact", engine.compact().map(drop));
    failed
}

/// Does the damage to a copy of the device: whether that was possible.
fn damage(copy: &Path, set: &str) -> bool {
    let db = open(copy);
    db.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF").unwrap();
    db.execute(set, []).is_ok_and(|changed| changed > 0 || set.starts_with("DROP"))
}

/// What came of damage.
#[derive(Default)]
struct Tried {
    done: usize,
    said: usize,
    /// What was not said as it should be.
    raw: Vec<String>,
}

/// Does one damage to a copy of the device, and uses that.
fn try_damage(device: &Device, set: &str, tried: &mut Tried) {
    let Device { world, engine, bytes } = device;
    let copy = world.path("damaged");
    for file in ["db-wal", "db-shm"] {
        fs::remove_file(copy.with_extension(file)).unwrap_or_default();
    }
    fs::copy(engine.path(), &copy).unwrap();
    if !damage(&copy, set) {
        return;
    }
    tried.done += 1;
    let used = std::panic::catch_unwind(|| used(&copy, bytes, world.options()));
    let Ok(failed) = used else {
        tried.raw.push(format!("{set}: a panic"));
        return;
    };
    for (what, error) in failed {
        match &error {
            Error::Damaged(_) => {
                tried.said += 1;
                assert_eq!(error.hint(), Some(Hint::Verify), "{set}: {what}: {error}");
            }
            Error::Sqlite(_) => tried.raw.push(format!("{set}: {what}: {error}")),
            _ => {}
        }
    }
}

/// Does each damage to a copy of a device that has rows there, one of each kind of table.
fn try_all(damages: &dyn Fn(&Table) -> Vec<String>) -> Tried {
    let mut tried = Tried::default();
    let (mut empty, mut done) = (BTreeSet::new(), BTreeSet::new());
    for device in [open_matters(), settled(), held(), two_histories(), keyless()] {
        let path = device.engine.path();
        app(&device.engine).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        fs::copy(key_file(path), key_file(&device.world.path("damaged"))).unwrap();
        // Each kind of table is tried on the first device that has rows of it.
        let mut here = BTreeSet::new();
        let (full, none) = tables(path);
        empty.extend(none);
        for table in full {
            if done.contains(&kind(&table.name)) {
                continue;
            }
            damages(&table).iter().for_each(|damage| try_damage(&device, damage, &mut tried));
            here.insert(kind(&table.name));
        }
        println!("{:?}: {:?}", path.file_name(), here);
        done.append(&mut here);
    }
    let empty: Vec<&String> = empty.difference(&done).collect();
    assert!(empty.is_empty(), "no device here has rows of {empty:?}");
    println!("{} tried, {} said", tried.done, tried.said);
    tried
}

#[test]
fn a_wrong_value_anywhere_in_packmules_own_tables_is_said_as_damage_or_does_no_harm() {
    let tried = try_all(&|table| wrong_values(table, &WRONG));
    assert!(tried.raw.is_empty(), "{}", tried.raw.join("\n"));
    // The control: wrong values were put into many places, and many of them were noticed.
    assert!(tried.done > 600 && tried.said > 600, "{} tried, {} said", tried.done, tried.said);
}

/// Some are tried here, always the same; all of them with `PACKMULE_DAMAGE=all`.
#[test]
fn a_value_of_an_absurd_size_is_said_as_damage_or_does_no_harm() {
    let every = if std::env::var("PACKMULE_DAMAGE").is_ok_and(|which| which == "all") { 1 } else { 5 };
    let tried = try_all(&|table| wrong_values(table, &ABSURD).into_iter().step_by(every).collect());
    assert!(tried.raw.is_empty(), "{}", tried.raw.join("\n"));
}

#[test]
fn rows_that_are_missing_or_there_twice_are_said_as_damage_or_do_no_harm() {
    let tried = try_all(&wrong_rows);
    assert!(tried.raw.is_empty(), "{}", tried.raw.join("\n"));
}
