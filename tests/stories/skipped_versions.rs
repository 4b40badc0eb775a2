//! Applications that skip versions, and what they write to a table while it is held.

use crate::card::{are_equal, exchange, rounds};
use crate::support::Desk;
use rusqlite::types::Value as Sql;

const ALL: [&str; 3] = ["base", "north", "east"];

/// A fleet of which every device has an application that has made its own table.
fn desk(columns: &str) -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.run("fleet new fleet.key").ok();
    for name in ALL {
        let base = if name == "base" { " --base" } else { "" };
        desk.run(&format!("init {name}.db --name {name} --fleet fleet.key{base}")).ok();
        desk.sql(&format!("{name}.db"), &format!("CREATE TABLE item (id TEXT PRIMARY KEY, {columns})"));
        desk.run(&format!("track {name}.db item")).ok();
    }
    desk
}

/// Makes the table anew, as tools do: `columns` it has then, `values` they get.
fn anew(columns: &str, values: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE new_item (id TEXT PRIMARY KEY, {columns}); INSERT INTO new_item
         SELECT id, {values} FROM item; DROP TABLE item; ALTER TABLE new_item RENAME TO item; COMMIT"
    )
}

/// A device's table, as SQL writes its values.
#[track_caller]
fn shows(desk: &Desk, columns: &str, wanted: &[&str]) {
    are_equal(desk, &ALL);
    for name in ALL {
        let sql = format!("SELECT id || ' ' || {columns} FROM item ORDER BY id");
        let wanted: Vec<Vec<Sql>> = wanted.iter().map(|row| vec![Sql::Text((*row).to_owned())]).collect();
        assert_eq!(desk.rows(&format!("{name}.db"), &sql), wanted, "{name}");
    }
}

#[test]
fn a_column_is_not_taken_for_one_that_others_had_beside_it() {
    let desk = desk("title TEXT, n INTEGER");
    let rename = "ALTER TABLE item RENAME COLUMN fee TO price";
    let add = "ALTER TABLE item ADD COLUMN fee INTEGER";
    let anew = anew("title TEXT, n INTEGER, price INTEGER", "title, n, price");
    let rest = "ALTER TABLE item RENAME COLUMN n TO parts; ALTER TABLE item DROP COLUMN title";
    // East takes versions by themselves.
    for version in [add, rename] {
        desk.sql("east.db", version);
        exchange(&desk, "east");
    }
    desk.sql("east.db", "INSERT INTO item VALUES ('1', 'one', 8, 35)");
    desk.sql("north.db", "INSERT INTO item VALUES ('2', 'two', 60)");
    desk.sql("north.db", &format!("{add}; UPDATE item SET fee = 7"));
    exchange(&desk, "north");
    // The base, which has no rows to tell, takes all at once, as the others do with what is left.
    desk.sql("base.db", &format!("{add}; {rename}; {anew}; {rest}"));
    desk.sql("north.db", &format!("{rename}; {anew}; {rest}"));
    desk.sql("east.db", &format!("{anew}; {rest}"));
    rounds(&desk, &ALL, 4);
    shows(&desk, "quote(parts) || ' ' || quote(price)", &["1 8 35", "2 60 7"]);
}

#[test]
fn a_disputed_column_that_its_application_drops_does_not_come_back() {
    let desk = desk("title TEXT, n INTEGER");
    // North knows of nobody yet who has it otherwise.
    desk.sql("north.db", &anew("title TEXT, n REAL", "title, n"));
    rounds(&desk, &["north", "base"], 2);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one', 6.5)");
    for name in ALL {
        desk.sql(&format!("{name}.db"), "ALTER TABLE item DROP COLUMN n");
    }
    rounds(&desk, &ALL, 4);
    shows(&desk, "title", &["1 one"]);
    let columns = "SELECT count(*) FROM pragma_table_info('item')";
    for name in ALL {
        assert_eq!(desk.value(&format!("{name}.db"), columns), Sql::Integer(2), "{name}");
    }
}

#[test]
fn what_an_application_writes_to_a_held_table_outlives_what_others_restate() {
    let desk = desk("title TEXT NOT NULL, n INTEGER, w REAL NOT NULL");
    // Another name and other values in one go: who has done so is held until all have.
    let double = anew("m REAL, title TEXT NOT NULL, n INTEGER", "w * 2, title, n");
    let migrate = |name: &str| {
        desk.sql(&format!("{name}.db"), &double);
        desk.run(&format!("seal {name}.db")).ok();
    };
    migrate("east");
    rounds(&desk, &["base", "north"], 1);
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one', NULL, 50.5)");
    rounds(&desk, &["north", "base"], 1);
    migrate("north");
    desk.sql("north.db", "UPDATE item SET m = 70.5");
    migrate("base");
    rounds(&desk, &["north", "base", "east"], 4);
    shows(&desk, "quote(m)", &["1 70.5"]);
}

#[test]
fn an_index_that_packmule_made_on_an_applications_table_goes_with_the_one_it_was_made_for() {
    let desk = desk("title TEXT");
    desk.sql("north.db", "CREATE UNIQUE INDEX titles ON item (title)");
    rounds(&desk, &ALL, 3);
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name GLOB '_pm_unique_*'";
    assert_eq!(desk.value("east.db", ours), Sql::Integer(1));
    desk.sql("north.db", "DROP INDEX titles");
    rounds(&desk, &ALL, 4);
    assert_eq!(desk.value("east.db", ours), Sql::Integer(0));
    desk.sql("north.db", "INSERT INTO item VALUES ('1', 'one')");
    desk.sql("east.db", "INSERT INTO item VALUES ('2', 'one')");
    rounds(&desk, &ALL, 3);
    shows(&desk, "title", &["1 one", "2 one"]);
}
