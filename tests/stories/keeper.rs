//! The page for who keeps a fleet: what it says to type is typed, as it stands there.

use crate::support::{Desk, has};
use crate::typed::{block, typed};

const PAGE: &str = include_str!("../../src/docs/keeper.md");

/// A fleet that has met on a card.
fn fleet() -> Desk {
    let desk = Desk::fleet(&["north", "south"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    desk.sql("north.db", "INSERT INTO settings VALUES ('interval', 60, '')");
    for device in ["north", "south", "base", "north", "south", "base"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    desk
}

/// Types the commands of a section; what each printed.
fn section(desk: &Desk, section: &str) -> Vec<String> {
    typed(desk, &block(PAGE, Some(section)), |_, _| {})
}

#[test]
fn a_stolen_board() {
    let desk = fleet();
    desk.sql("north.db", "UPDATE settings SET value = 666");
    for device in ["north", "base"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    let printed = section(&desk, "A stolen board");
    has(&printed[1], &["north-", "is revoked (by the fleet key)"]);
    has(&printed[4], &["value = 60", "value = 666 (was 60)"]);
    has(&printed[5], &["nothing has changed"]);
    for device in ["south", "base", "south"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    assert_eq!(desk.run("digest base.db").ok(), desk.run("digest south.db").ok());
    desk.run("revoke base.db north --undo --fleet fleet.key").ok();
}

#[test]
fn a_lost_board() {
    let desk = fleet();
    desk.sql("north.db", "UPDATE settings SET value = 30");
    for device in ["north", "base", "north", "base"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    let printed = section(&desk, "A lost board");
    has(&printed[0], &["south-"]);
    has(&printed[2], &["south-", "is retired (by base-"]);
    has(&printed[4], &["south-", "is no longer retired"]);
}

#[test]
fn a_lost_fleet_key() {
    let desk = fleet();
    std::fs::remove_file(desk.path("fleet.key")).unwrap();
    section(&desk, "A lost fleet key");
    let fleet = |db: &str| desk.run(&format!("status {db} --json")).json()["fleet"].clone();
    assert_eq!((fleet("north.db"), fleet("south.db")), (fleet("base.db"), fleet("base.db")));
    for device in ["north", "south", "base"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    desk.run("revoke base.db north --fleet next.key").ok();
}

#[test]
fn many_conflicts() {
    let desk = fleet();
    for (device, value) in [("north", 10), ("south", 20)] {
        desk.sql(&format!("{device}.db"), &format!("UPDATE settings SET value = {value}"));
    }
    for device in ["north", "south", "base"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    let printed = section(&desk, "Many conflicts");
    has(&printed[0], &["to do", "1 conflict is open"]);
    has(&printed[1], &["settings interval", "update/update", "north: 10"]);
    has(&printed[2], &["1 conflict would be closed"]);
    has(&printed[3], &["no conflict is open any more"]);
}
