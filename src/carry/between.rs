//! The devices of the tests of somebody who stands between two ends.

use std::path::Path;

use crate::engine::{Engine, FleetKey, InitOptions, TrackOptions};

/// A table; rows; many more.
pub(super) const SQL: &str = include_str!("../../tests/net/between.sql");

/// Makes a device of a fleet, with that table.
pub(super) fn device(folder: &Path, name: &str, fleet: &FleetKey) -> Engine {
    let init = InitOptions { name, base: false, fleet: Some(fleet) };
    let mut engine = Engine::init(&folder.join(name), &init).unwrap();
    engine.connection().unwrap().execute_batch(SQL.lines().next().unwrap()).unwrap();
    engine.track("t", &TrackOptions::default()).unwrap();
    engine
}
