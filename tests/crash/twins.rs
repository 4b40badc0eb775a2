//! Two histories under one identity: a board and a copy of its card write, a third device builds on the copy's history,
//! gives it up for the first, and the copy goes on as another device.

use packmule::{Error, Recipient, TrackOptions};

use super::{Done, Plan, Trip, disk, key_file, text};

pub const TWINS: Plan = Plan {
    name: "twins",
    steps: &[
        |trip| trip.init("north", false),
        |trip| trip.init("base", true).and_then(|()| trip.init("third", false)),
        |trip| trip.sql("north", "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT, b BLOB)"),
        |trip| trip.open("north")?.track("t", &TrackOptions::default()).map(drop).map_err(text),
        |trip| trip.insert("north", 1),
        |trip| trip.carry("north", "base").and_then(|()| trip.carry("base", "north")),
        |trip| trip.carry("base", "third"),
        Trip::copy_card,
        |trip| trip.insert("north", 10).and_then(|()| trip.insert("copy", 20)),
        |trip| trip.carry("north", "base"),
        |trip| trip.carry("copy", "third"),
        |trip| trip.insert("third", 30),
        |trip| trip.sql("third", "UPDATE t SET v = 'by the third' WHERE id = 20"),
        Trip::third_gives_up,
        |trip| trip.show("base", "copy"),
        |trip| trip.open("copy")?.seal().map(drop).map_err(text),
        |trip| trip.show("copy", "base").and_then(|()| trip.show("base", "third")),
        |trip| trip.show("third", "base").and_then(|()| trip.show("base", "copy")),
        Trip::copy_is_another,
    ],
    ways: &[
        ("north", "base"),
        ("copy", "base"),
        ("third", "base"),
        ("base", "north"),
        ("base", "copy"),
        ("base", "third"),
    ],
    rows: 12,
};

impl Trip {
    /// Copies north's card, its key too, if a cut had not left that done.
    fn copy_card(&mut self) -> Done {
        let (from, to) = (self.world.path("north"), self.world.path("copy"));
        let name = to.display().to_string();
        for end in ["", "-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(format!("{name}{end}"));
        }
        disk::forget(&name);
        self.sql("north", &format!("VACUUM INTO '{name}'"))?;
        // The copy is the work of another machine, which has it whole.
        disk::forget(&name);
        std::fs::copy(key_file(&from), key_file(&to)).map_err(text)?;
        let mode = self.journal.unwrap_or("wal");
        self.app("copy")?
            .query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))
            .map_err(text)?;
        self.devices.insert("copy");
        Ok(())
    }

    /// Carries all that there is. Who has the first history refuses the second.
    fn show(&mut self, from: &str, to: &str) -> Done {
        let (mut a, mut b) = (self.open(from)?, self.open(to)?);
        let mut bytes = Vec::new();
        a.export(&mut bytes, Recipient::Anyone).map_err(text)?;
        drop(a);
        match b.import(&mut std::io::Cursor::new(bytes), &mut |_| ()) {
            Ok(_) | Err(Error::Twin { .. }) => Ok(()),
            Err(e) => Err(text(e)),
        }
    }

    /// The third gives up the second history, which may be longer than the first: of that stream its numbers go back, to what
    /// the base has of it.
    fn third_gives_up(&mut self) -> Done {
        let stream = format!("{}0", self.identities["north"]);
        let is_first = |of: &str| of.eq_ignore_ascii_case(&stream);
        self.numbers.retain(|(of, stream), _| of != "third" || !is_first(stream));
        self.show("third", "base").and_then(|()| self.show("base", "third"))?;
        let [third, base] =
            ["third", "base"].map(|of| self.streams(of).into_iter().find(|(of, _)| is_first(of)));
        if third < base { Err(format!("the third has {third:?}, and the base {base:?}")) } else { Ok(()) }
    }

    /// It has taken one new identity, and no more.
    fn copy_is_another(&mut self) -> Done {
        let copy = self.open("copy")?.identity().id.to_string();
        if copy == self.identities["north"] {
            return Err("two devices are one still".into());
        }
        let known = self.open("base")?.devices().map_err(text)?.len();
        if known == 4 { Ok(()) } else { Err(format!("the base knows {known} devices of 4")) }
    }
}
