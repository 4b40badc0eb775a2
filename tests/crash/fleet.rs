//! What a fleet lives through, mostly over a card: columns added and dropped, a table made anew, encrypted bundles and
//! cards, another name, conflicts settled many at once, a device retired, the log folded without it, rows pruned, the
//! state that it gets when it is back, a revocation that is taken back, and a database file merged.

use packmule::carry::card::{self, Exchange, Limits};
use packmule::carry::volume::Directory;
use packmule::{Admission, AdmitOptions, Encrypting, Error, Keep, Recipient, Resolution, TrackOptions};

use super::{Done, Plan, Trip, append, text};
use crate::OwnedValue;

pub const LIFE: Plan = Plan {
    name: "life",
    steps: &[
        |trip| trip.init("north", false),
        |trip| trip.init("base", true).and_then(|()| trip.init("south", false)),
        |trip| {
            let tables = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT, b BLOB);
                          CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT)";
            trip.sql("north", tables)
        },
        |trip| trip.insert("north", 1),
        |trip| {
            let mut north = trip.open("north")?;
            north.track("t", &TrackOptions::default()).map_err(text)?;
            north.track("log", &append()).map(drop).map_err(text)
        },
        |trip| trip.sql("north", "INSERT OR IGNORE INTO log (id, v) VALUES (1, 'a'), (2, 'b'), (3, 'c')"),
        // South once more: where its first visit failed, nobody knew until then that it lacks the tables.
        |trip| trip.visit(&["north", "base", "south", "north", "base", "south"], false),
        |trip| trip.insert("south", 10).and_then(|()| trip.insert("base", 20)),
        |trip| trip.open("base")?.add_column("t", "extra", "TEXT", None).map_err(text),
        |trip| trip.visit(&["base", "north", "south"], false),
        |trip| trip.sql("north", "UPDATE t SET extra = 'by north' WHERE id = 1"),
        |trip| trip.encrypted("north", "base").and_then(|()| trip.encrypted("south", "base")),
        Trip::rename_south,
        Trip::drop_column,
        |trip| trip.visit(&["base", "north", "south", "base"], true),
        Trip::rebuild,
        Trip::disagree,
        |trip| trip.visit(&["north", "south", "base"], true),
        Trip::settle,
        |trip| trip.visit(&["base", "north", "south", "base", "north"], false),
        |trip| trip.compact("base").and_then(|()| trip.compact("north")),
        Trip::retire_south,
        |trip| trip.visit(&["base", "north"], false),
        |trip| trip.insert("north", 60),
        |trip| trip.visit(&["north", "base", "north", "base"], false),
        |trip| trip.compact("base").and_then(|()| trip.compact("north")),
        |trip| trip.open("north")?.prune("log", Keep::Rows(1)).map(drop).map_err(text),
        |trip| trip.insert("south", 70),
        // South gets the state: what it lacks is folded.
        |trip| trip.visit(&["south", "base", "south", "base", "north"], false),
        Trip::revoke_and_take_back,
        |trip| {
            let north = trip.world.path("north");
            trip.open("base")?.import_database(&north, &mut |_| ()).map(drop).map_err(text)
        },
    ],
    ways: &[("north", "base"), ("south", "base"), ("base", "north"), ("base", "south")],
    // Five times three, and the row of one key that is two.
    rows: 17,
};

impl Trip {
    /// Exchanges with the card, one device after the other.
    fn visit(&mut self, names: &[&str], encrypted: bool) -> Done {
        let path = self.world.dir.path().join("card");
        std::fs::create_dir_all(&path).map_err(text)?;
        for name in names {
            let mut engine = self.open(name)?;
            let mut card = Directory::open(&path).map_err(text)?;
            let mut report = Exchange::default();
            let exchange = if encrypted { card::exchange_encrypted } else { card::exchange };
            let done = exchange(&mut engine, &mut card, &Limits::default(), &mut |_, _| (), &mut report);
            self.skipped += &format!("{:?}", report.stepped_over);
            done.map_err(text)?;
        }
        Ok(())
    }

    /// Carries a bundle that is encrypted to the fleet.
    fn encrypted(&self, from: &str, to: &str) -> Done {
        let (mut a, mut b) = (self.open(from)?, self.open(to)?);
        let readers = a.fleet_readers().map_err(text)?;
        let mut out = Encrypting::new(Vec::new(), &readers).map_err(text)?;
        a.export(&mut out, Recipient::Device(b.identity().id)).map_err(text)?;
        out.finish().map_err(text)?;
        let bytes = std::mem::take(out.inner());
        drop(a);
        let mut file = b.open_bundle(std::io::Cursor::new(bytes), None).map_err(text)?;
        b.import(&mut file, &mut |_| ()).map(drop).map_err(text)
    }

    fn rename_south(&mut self) -> Done {
        let mut south = self.open("south")?;
        south.rename("meadow").map_err(text)?;
        let mut admission = Admission::new(&self.world.fleet);
        south.add_requests(&mut admission).map_err(text)?;
        let admitted = admission.sign(&AdmitOptions::default()).map_err(text)?;
        south.take_admitted(&admitted).map_err(text)?;
        drop(south);
        let name = self.open("south")?.identity().name.clone();
        if name == "meadow" { Ok(()) } else { Err(format!("it is named {name}")) }
    }

    fn drop_column(&mut self) -> Done {
        let is_there = "SELECT count(*) FROM pragma_table_info('t') WHERE name = 'extra'";
        let there: i64 = self.app("base")?.query_row(is_there, [], |row| row.get(0)).map_err(text)?;
        if there == 0 { Ok(()) } else { self.open("base")?.drop_column("t", "extra").map_err(text) }
    }

    /// An application makes its table anew, as what changes schemas does.
    fn rebuild(&mut self) -> Done {
        let sql = "BEGIN; CREATE TABLE new (id INTEGER PRIMARY KEY, v TEXT, b BLOB);
                   INSERT INTO new SELECT id, v, b FROM t; DROP TABLE t; ALTER TABLE new RENAME TO t; COMMIT";
        self.sql("north", sql)?;
        self.open("north")?.seal().map(drop).map_err(text)
    }

    /// Two write one row, and make a row each under one key.
    fn disagree(&mut self) -> Done {
        for name in ["north", "south"] {
            let sql = format!(
                "BEGIN; UPDATE t SET v = 'of {name}' WHERE id = 2;
                 INSERT OR IGNORE INTO t (id, v) VALUES (50, 'of {name}'); COMMIT"
            );
            self.sql(name, &sql)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Done {
        let mut base = self.open("base")?;
        let of_two = |key: &[(String, OwnedValue)]| key == [("id".to_owned(), OwnedValue::Int(50))];
        let mut decide = |conflict: &packmule::Conflict| {
            Some(if of_two(&conflict.key) { Resolution::KeepBoth } else { Resolution::Newest })
        };
        base.resolve_with(&mut decide).map(drop).map_err(text)
    }

    fn retire_south(&mut self) -> Done {
        let south = self.open("south")?.identity().id;
        self.open("base")?.retire(south, None).map(drop).map_err(text)
    }

    fn revoke_and_take_back(&mut self) -> Done {
        let south = self.open("south")?.identity().id;
        self.open("base")?.revoke(south, Some(&self.world.fleet)).map_err(text)?;
        self.visit(&["base", "north"], false)?;
        match self.open("base")?.take_back_revocation(south, Some(&self.world.fleet)) {
            Ok(_) | Err(Error::Usage(_)) => {}
            Err(e) => return Err(text(e)),
        }
        self.visit(&["base", "north"], false)
    }
}
