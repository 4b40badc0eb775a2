//! Devices whose applications migrate a table `t`.
#![allow(dead_code)] // Each test uses a part of it.

use packmule::{Engine, TableHow};

use crate::common::{carry_between, digests_equal, rows};

/// What an ORM does for every `ALTER COLUMN`: these columns, and what is copied into them.
pub fn rebuild(columns: &str, from: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE new_t ({columns}); INSERT INTO new_t SELECT {from} FROM t; DROP TABLE t;
         ALTER TABLE new_t RENAME TO t; COMMIT"
    )
}

/// Everybody hears what all the others have.
pub fn meet(devices: &mut [Engine]) {
    let n = devices.len();
    for (from, to) in (0..n).map(|at| (at, (at + 1) % n)).collect::<Vec<_>>().repeat(3) {
        carry_between(devices, from, to);
    }
}

/// What is told of the one table.
pub fn note(engine: &Engine) -> Option<String> {
    engine.status().unwrap().tables.remove(0).note
}

/// All go on, and are alike. Returns what they show.
pub fn in_step(devices: &mut [Engine], query: &str) -> Vec<String> {
    for _ in 0..2 {
        meet(devices);
    }
    let all: Vec<_> = devices.iter().map(|device| rows(device, query)).collect();
    for (device, shown) in devices.iter().zip(&all) {
        let table = device.status().unwrap().tables.remove(0);
        assert_eq!((table.how, table.note), (TableHow::Shared, None), "{}", device.identity().name);
        assert_eq!(device.verify().unwrap().problems, [""; 0]);
        assert_eq!(*shown, all[0]);
    }
    let ids = |device: &Engine| {
        let conflicts = device.conflicts().unwrap();
        conflicts.into_iter().map(|conflict| conflict.id).collect::<Vec<_>>()
    };
    assert!(devices.iter().all(|device| ids(device) == ids(&devices[0])));
    digests_equal(&devices.iter().collect::<Vec<_>>());
    all[0].clone()
}
