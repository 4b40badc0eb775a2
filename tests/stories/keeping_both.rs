//! Both rows of a conflict kept: what is offered is what is done, and who refers to the row goes along or is named.

use crate::choices::{offered, open, works};
use crate::support::{Desk, has};

/// Tables of many kinds, with what two devices insert into each, and whether both rows can be kept: a key that a CHECK
/// forbids, none after the greatest, UNIQUE over an expression, over some rows, over two columns with NULL, and of long values.
const KEPT: &[(&str, &str, Option<&str>)] = &[
    ("plain (id INTEGER PRIMARY KEY, v)", "1, 'NAME'", Some("")),
    ("few (id INTEGER PRIMARY KEY CHECK (id < 2), v)", "1, 'NAME'", None),
    ("short (id TEXT PRIMARY KEY CHECK (length(id) < 4), v)", "'abc', 'NAME'", None),
    ("full (id INTEGER PRIMARY KEY, v)", "9223372036854775807, 'NAME'", None),
    ("pairs (a INTEGER, b INTEGER, v, PRIMARY KEY (a, b))", "1, 1, 'NAME'", Some("")),
    ("lowered (id INTEGER PRIMARY KEY, v)", "1, 'of NAME'", Some("")),
    ("lower_clash (id INTEGER PRIMARY KEY, v TEXT COLLATE NOCASE)", "1, 'Of all NAME'", None),
    ("some (id INTEGER PRIMARY KEY, v, is_it)", "1, 'one', 'NAME' = 'base'", Some("")),
    ("null_in (id INTEGER PRIMARY KEY, v, u, UNIQUE (v, u))", "1, 'one', nullif('NAME', 'base')", Some("")),
    (
        "cases (id INTEGER PRIMARY KEY, v TEXT COLLATE NOCASE UNIQUE, of)",
        "1, 'one', 'NAME'",
        Some(" --set v=VALUE"),
    ),
    ("long (id TEXT PRIMARY KEY, v BLOB UNIQUE, of)", "'a', zeroblob(5000), 'NAME'", Some(" --set v=VALUE")),
];

/// What `conflicts` offers and what `resolve` does is one thing, whatever the table is like.
#[test]
fn keeping_both_is_offered_exactly_where_it_is_done() {
    let desk = Desk::fleet(&["north"]);
    for name in ["base", "north"] {
        let db = format!("{name}.db");
        for (table, _, _) in KEPT {
            desk.sql(&db, &format!("CREATE TABLE {table}"));
            desk.run(&format!("track {db} {}", table.split(' ').next().unwrap())).ok();
        }
        desk.sql(
            &db,
            "CREATE UNIQUE INDEX lowered_by ON lowered (lower(v)); CREATE UNIQUE INDEX some_by ON some (v) WHERE is_it;
             CREATE UNIQUE INDEX clash_by ON lower_clash (substr(lower(v), 1, 3))",
        );
    }
    desk.carry("base", "north");
    for (table, values, _) in KEPT {
        let table = table.split(' ').next().unwrap();
        for name in ["base", "north"] {
            desk.sql(
                &format!("{name}.db"),
                &format!("INSERT INTO {table} VALUES ({})", values.replace("NAME", name)),
            );
        }
    }
    desk.carry("north", "base");
    for (table, _, kept) in KEPT {
        let table = table.split(' ').next().unwrap();
        let found = open(&desk, &format!(" --table {table}"));
        let id = found[0]["id"].as_str().unwrap();
        let ways = offered(&desk, id);
        let way = ways.iter().find_map(|command| command.split_once(" --keep-both"));
        assert_eq!(way.map(|(_, set)| set), *kept, "{table}: {ways:?}");
        let plain = format!("resolve base.db {id} --keep-both");
        if let Some(set) = kept {
            works(&desk, &format!("{plain}{set}"));
        }
        if *kept != Some("") {
            desk.run(&plain).refused("base.db");
        }
    }
}

/// A row that refers to one of two, and of which both cannot be kept, stands in the way: that is said, and what goes first.
#[test]
fn who_refers_to_one_of_two_rows_is_named_where_it_stands_in_the_way() {
    let desk = Desk::fleet(&["north"]);
    let schema = "CREATE TABLE wards (id INTEGER PRIMARY KEY, name);
                  CREATE TABLE beds (id INTEGER PRIMARY KEY, ward REFERENCES wards (id), tag UNIQUE)";
    for (name, ward) in [("north", "1"), ("base", "NULL")] {
        let db = format!("{name}.db");
        desk.sql(&db, schema);
        desk.run(&format!("track {db} wards beds")).ok();
        desk.sql(
            &db,
            &format!("INSERT INTO wards VALUES (1, '{name}'); INSERT INTO beds VALUES (2, {ward}, 'b2')"),
        );
        desk.run(&format!("seal {db}")).ok();
    }
    desk.carry("north", "base");
    let [ward, bed] = ["wards", "beds"].map(|table| open(&desk, &format!(" --table {table}")));
    let [ward, bed] = [&ward, &bed].map(|found| found[0]["id"].as_str().unwrap());
    let refused = desk.run(&format!("resolve base.db {ward} --keep-both")).refused("base.db");
    has(
        &refused,
        &[
            "a row of `beds` refers to it that is contested, too",
            "UNIQUE constraint failed: beds.tag",
            bed,
            "change its `ward`",
        ],
    );
    desk.run(&format!("resolve base.db {bed} --keep-both --set tag=b3")).ok();
    desk.run(&format!("resolve base.db {ward} --keep-both")).ok();
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM wards"), 2.into());
}
