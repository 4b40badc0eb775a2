//! What is known already costs one reading, and writes nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{Cursor, Read, Result, Seek, SeekFrom};

use common::{World, app, sql};
use packmule::{Engine, Recipient};

const SETTINGS: &str = "CREATE TABLE settings (key TEXT PRIMARY KEY, value)";

/// A file that counts what is read of it.
struct Counted {
    file: Cursor<Vec<u8>>,
    read: usize,
}

impl Counted {
    fn of(bytes: &[u8]) -> Self {
        Self { file: Cursor::new(bytes.to_vec()), read: 0 }
    }
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = self.file.read(buf)?;
        self.read += n;
        Ok(n)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.file.seek(to)
    }
}

/// A number that changes whenever somebody else writes to the database.
fn version(watch: &rusqlite::Connection) -> i64 {
    watch.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap()
}

fn export(from: &mut Engine, to: &Engine) -> Vec<u8> {
    let mut bundle = Vec::new();
    from.export(&mut bundle, Recipient::Device(to.identity().id)).unwrap();
    bundle
}

fn fleet() -> (World, Engine, Engine) {
    let world = World::new();
    let north = world.board_with("north", SETTINGS, &["settings"]);
    let east = world.board_with("east", SETTINGS, &["settings"]);
    (world, north, east)
}

#[test]
fn a_known_bundle_is_read_once_and_changes_no_page() {
    let (world, mut north, mut east) = fleet();
    let mut bundles = Vec::new();
    for n in 0..20 {
        sql(&north, &format!("INSERT INTO settings VALUES ('{n}', {n})"));
        world.tick(1_000);
        bundles.push(export(&mut north, &east));
    }
    for bundle in &bundles {
        let mut file = Counted::of(bundle);
        let report = east.import(&mut file, &mut |_| ()).unwrap();
        assert!(report.frames > 0);
        assert!(file.read > bundle.len(), "what is new is verified first, and then read again");
    }
    let watch = app(&east);
    let before = version(&watch);
    world.tick(1_000);
    for bundle in bundles.iter().rev() {
        let mut file = Counted::of(bundle);
        let report = east.import(&mut file, &mut |_| ()).unwrap();
        assert_eq!((report.frames, report.ops), (0, 0));
        assert!(report.known > 0);
        assert_eq!(file.read, bundle.len());
        east.hear(Cursor::new(bundle)).unwrap();
    }
    assert_eq!(version(&watch), before, "nothing of this was new, so nothing is written");
}

#[test]
fn a_known_bundle_that_is_damaged_is_still_refused() {
    let (_world, mut north, mut east) = fleet();
    sql(&north, "INSERT INTO settings VALUES ('interval', 60)");
    let bundle = export(&mut north, &east);
    east.import(&mut Cursor::new(&bundle), &mut |_| ()).unwrap();
    for at in 0..bundle.len() {
        let mut damaged = bundle.clone();
        damaged[at] ^= 4;
        let taken = east.import(&mut Cursor::new(&damaged), &mut |_| ());
        assert!(taken.is_err(), "byte {at}");
    }
}

#[test]
fn who_says_the_same_again_later_is_heard() {
    let (world, mut north, mut east) = fleet();
    sql(&north, "INSERT INTO settings VALUES ('interval', 60)");
    let heard = |east: &Engine| {
        let id = |d: &packmule::DeviceInfo| d.name.as_deref() == Some("north");
        east.devices().unwrap().iter().find(|d| id(d)).unwrap().heard
    };
    let first = export(&mut north, &east);
    east.import(&mut Cursor::new(&first), &mut |_| ()).unwrap();
    let at = heard(&east);
    world.tick(60_000);
    east.import(&mut Cursor::new(&first), &mut |_| ()).unwrap();
    assert_eq!(heard(&east), at, "an old file is nobody's word");
    let again = export(&mut north, &east);
    east.import(&mut Cursor::new(&again), &mut |_| ()).unwrap();
    assert_eq!(heard(&east), at.map(|at| at + 60_000));
}
