//! Both rows of a conflict kept: what is offered is what is done, and who refers to the row goes along or is named.

use crate::choices::{offered, open, works};
use crate::support::{Desk, has};

/// Tables of many kinds, with what two devices insert into each, and whether both rows can be kept: a key that a CHECK
/// forbids, none after the greatest, UNIQUE over an expression, over some rows, over a part of the key, over two columns with NULL,
/// and of long values.
const KEPT: &[(&str, &str, Option<&str>)] = &[
    ("plain (id INTEGER PRIMARY KEY, v)", "1, 'NAME'", Some("")),
    ("few (id INTEGER PRIMARY KEY CHECK (id < 2), v)", "1, 'NAME'", None),
    ("short (id TEXT PRIMARY KEY CHECK (length(id) < 4), v)", "'abc', 'NAME'", None),
    ("full (id INTEGER PRIMARY KEY, v)", "9223372036854775807, 'NAME'", None),
    ("pairs (a INTEGER, b INTEGER, v, PRIMARY KEY (a, b))", "1, 1, 'NAME'", Some("")),
    ("lowered (id INTEGER PRIMARY KEY, v)", "1, 'of NAME'", Some("")),
    (
        "lower_clash (id INTEGER PRIMARY KEY, v TEXT COLLATE NOCASE)",
        "1, 'Of all NAME'",
        Some(" --set v=VALUE"),
    ),
    ("only (id INTEGER PRIMARY KEY, v)", "1, 'NAME'", None),
    (
        "some_clash (id INTEGER PRIMARY KEY, v, is_it, of)",
        "1, 'one', 1, 'NAME'",
        Some(" --set v=VALUE is_it=VALUE"),
    ),
    ("by_place (a INTEGER, b INTEGER, of, PRIMARY KEY (a, b), UNIQUE (a))", "1, 1, 'NAME'", None),
    (
        "in_place (a INTEGER, b INTEGER, c, of, PRIMARY KEY (a, b), UNIQUE (a, c))",
        "1, 1, 'one', 'NAME'",
        Some(" --set c=VALUE"),
    ),
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
             CREATE UNIQUE INDEX clash_by ON lower_clash (substr(lower(v), 1, 3) /* of v */ DESC -- the last
             );
             CREATE UNIQUE INDEX only_one ON only ((1)); CREATE UNIQUE INDEX one_of_some ON some_clash (v) WHERE is_it -- 1",
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
    let keeps = |id: &str| offered(&desk, id).iter().any(|command| command.ends_with("--keep-both"));
    assert!(!keeps(ward), "what is refused is not offered");
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
    assert!(keeps(ward), "nothing stands in the way any more");
    desk.run(&format!("resolve base.db {ward} --keep-both")).ok();
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM wards"), 2.into());
}

/// Keeping both is offered if what goes along can: rows of a chain, and rows whose table forbids another reference.
#[test]
fn keeping_both_is_offered_if_all_that_goes_along_can() {
    let desk = Desk::fleet(&["north"]);
    let schema = "CREATE TABLE notes (id INTEGER PRIMARY KEY, after REFERENCES notes (id), text UNIQUE);
                  CREATE TABLE wards (id INTEGER PRIMARY KEY, name);
                  CREATE TABLE beds (id TEXT PRIMARY KEY, ward REFERENCES wards (id) CHECK (ward < 9));
                  INSERT INTO wards VALUES (8, 'the last')";
    for name in ["base", "north"] {
        let db = format!("{name}.db");
        desk.sql(&db, schema);
        desk.run(&format!("track {db} notes wards beds")).ok();
        let texts = (1..=3).map(|n| format!("({n}, {}, '{name} {n}')", if n > 1 { n - 1 } else { n }));
        desk.sql(
            &db,
            &format!(
                "INSERT INTO notes VALUES {}; INSERT INTO wards VALUES (1, '{name}'), (2, '{name}');
                 INSERT INTO beds VALUES ('{name}', 1)",
                texts.collect::<Vec<_>>().join(", ")
            ),
        );
    }
    desk.carry("north", "base");
    let id = |table: &str, key: i64| {
        let found = open(&desk, &format!(" --table {table}"));
        let of_key = found.iter().find(|conflict| conflict["key"]["id"] == key).unwrap();
        of_key["id"].as_str().unwrap().to_owned()
    };
    let keeps = |id: &str| offered(&desk, id).into_iter().find(|command| command.contains("--keep-both"));
    // The new ward would have the number 9, which no bed may have; a ward without beds may.
    let [with_bed, without] = [id("wards", 1), id("wards", 2)];
    let shown = desk.run(&format!("conflicts base.db {with_bed}")).ok();
    assert!(shown.contains("referred to by 2 rows of beds\n") && !shown.contains("--keep-both"), "{shown}");
    let refused = desk.run(&format!("resolve base.db {with_bed} --keep-both")).refused("base.db");
    has(&refused, &["CHECK constraint failed", "use --take DEVICE or --set COLUMN=VALUE"]);
    works(&desk, &keeps(&without).unwrap());
    // A third row has the text of the last note that would go along.
    let last = "INSERT INTO notes SELECT 7, NULL, CASE text WHEN 'north 3' THEN 'base 3' ELSE 'north 3' END FROM notes WHERE id = 3";
    desk.sql("base.db", last);
    let [first, third] = [id("notes", 1), id("notes", 3)];
    assert_eq!(keeps(&first), None);
    let refused = desk.run(&format!("resolve base.db {first} --keep-both")).refused("base.db");
    has(&refused, &["a row of `notes` refers to a row that goes along that is contested, too", &third]);
    desk.sql("base.db", "DELETE FROM notes WHERE id = 7");
    works(&desk, &keeps(&first).unwrap());
    desk.run(&format!("resolve base.db {first} --keep-both")).ok();
    let chains = "SELECT count(*) FROM notes n JOIN notes b ON b.id = n.after
                  WHERE substr(n.text, 1, length(n.text) - 1) = substr(b.text, 1, length(b.text) - 1)";
    assert_eq!(desk.value("base.db", chains), 6.into());
}

/// A third row has what the version that is not shown claims by an index that no definition has.
#[test]
fn an_index_of_ones_own_counts_with_third_rows_as_well() {
    let desk = Desk::fleet(&["north"]);
    let tables = ["lowered", "some"];
    for name in ["base", "north"] {
        let db = format!("{name}.db");
        desk.sql(&db, "CREATE TABLE lowered (id INTEGER PRIMARY KEY, v); CREATE TABLE some (id INTEGER PRIMARY KEY, v, is_it)");
        desk.run(&format!("track {db} lowered some")).ok();
        desk.sql(
            &db,
            "CREATE UNIQUE INDEX lowered_by ON lowered (lower(v)); CREATE UNIQUE INDEX some_by ON some (v) WHERE is_it",
        );
    }
    desk.carry("base", "north");
    for name in ["base", "north"] {
        desk.sql(
            &format!("{name}.db"),
            &format!("INSERT INTO lowered VALUES (1, '{name}'); INSERT INTO some VALUES (1, '{name}', 1)"),
        );
    }
    desk.carry("north", "base");
    for (table, taken, free, told, set) in [
        ("lowered", "upper('NAME')", "'free'", "another row has the same lower(v)", "v=VALUE"),
        (
            "some",
            "'NAME', 1",
            "'NAME', 0",
            "another row has the same \"v\" WHERE is_it",
            "v=VALUE is_it=VALUE",
        ),
    ] {
        let shown = desk.value("base.db", &format!("SELECT v FROM {table} WHERE id = 1"));
        let other = if shown == "base".to_owned().into() { "north" } else { "base" };
        let found = open(&desk, &format!(" --table {table}"));
        let id = found[0]["id"].as_str().unwrap();
        let ends = |ends: &str| offered(&desk, id).into_iter().find(|command| command.ends_with(ends));
        let [keep, keep_with] = ["--keep-both".to_owned(), format!("--keep-both --set {set}")];
        let take = format!("--take {other}");
        let insert = |values: &str| {
            let values = values.replace("NAME", other);
            desk.sql("base.db", &format!("INSERT OR REPLACE INTO {table} VALUES (2, {values})"));
        };
        insert(free);
        works(&desk, &ends(&keep).unwrap());
        works(&desk, &ends(&take).unwrap());
        insert(taken);
        assert_eq!((ends(&keep), ends(&take)), (None, None));
        has(
            &desk.run(&format!("conflicts base.db {id}")).ok(),
            &[&format!("{take} cannot be done here: {told}")],
        );
        works(&desk, &ends(&keep_with).unwrap());
        desk.run(&format!("resolve base.db {id} {keep}")).refused("base.db");
        desk.run(&format!("resolve base.db {id} {take}")).refused("base.db");
    }
    assert_eq!(
        tables.map(|table| desk.value("base.db", &format!("SELECT count(*) FROM {table}"))),
        [2.into(), 2.into()]
    );
}
