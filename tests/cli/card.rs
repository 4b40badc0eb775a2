//! `packmule exchange` with a directory as a card, and `packmule board`, as a person types them.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

#[path = "../skips/mod.rs"]
mod skips;
mod support;

use std::process::Command;

use rusqlite::types::Value as Sql;
use support::{Desk, PACKMULE};

#[test]
fn a_card_goes_round() {
    let desk = Desk::fleet(&["north", "east"]);
    std::fs::create_dir(desk.path("card")).unwrap();
    std::fs::write(desk.path("card/photo.jpg"), "not ours").unwrap();
    desk.sql(
        "north.db",
        "INSERT INTO settings VALUES ('interval', 60, ''); INSERT INTO readings (value) VALUES (1)",
    );
    desk.sql("east.db", "INSERT INTO readings (value) VALUES (2)");
    let left = desk.run("exchange north.db card --json").json();
    assert_eq!(left["left"].as_array().unwrap().len(), 1);
    assert!(left["left"][0]["frames"].as_u64().unwrap() > 0);
    for device in ["east", "base", "north", "east", "base"] {
        desk.run(&format!("exchange {device}.db card")).ok();
    }
    assert_eq!(desk.value("base.db", "SELECT count(*) FROM readings"), Sql::Integer(2));
    let digests: Vec<String> =
        ["north", "east", "base"].iter().map(|d| desk.run(&format!("digest {d}.db")).ok()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    let shown = desk.run("exchange base.db card").ok();
    assert!(shown.contains("nothing to take in"), "{shown}");
    assert_eq!(std::fs::read_to_string(desk.path("card/photo.jpg")).unwrap(), "not ours");
}

#[test]
fn what_is_no_card_is_refused() {
    let desk = Desk::fleet(&["north"]);
    for card in ["nowhere", "north.db"] {
        desk.run(&format!("exchange north.db {card}")).refused(card);
    }
    desk.run("exchange north.db").usage();
}

#[test]
fn the_board_is_named_or_found() {
    let desk = Desk::new();
    std::fs::write(desk.path("compatible"), "milkv,duo\0sophgo,cv1800b\0").unwrap();
    let found = Command::new(PACKMULE)
        .env("PACKMULE_DEVICE_TREE", desk.path("compatible"))
        .args(["board", "--json"])
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["board"], "milkv-duo");
    assert!(found["memory"]["cache_kib"].as_u64().unwrap() <= 512);
    assert_eq!(desk.run("board --board pi-5 --json").json()["board"], "pi-5");
    let wrong = desk.run("board --board toaster").usage();
    assert!(wrong.contains("milkv-duo"), "{wrong}");
    desk.run("init small.db --name small --board milkv-duo").ok();
}

#[test]
fn the_services_are_installed_and_in_order() {
    let desk = Desk::new();
    let root = desk.path("root");
    let line = format!("board install --board pi-4 --root {}", root.display());
    let written = desk.run(&format!("{line} --json")).json();
    assert_eq!(written["written"].as_array().unwrap().len(), 6);
    let settings = root.join("etc/default/packmule");
    std::fs::write(&settings, "PACKMULE_DB=/home/pi/data.db\n").unwrap();
    desk.run(&line).ok();
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "PACKMULE_DB=/home/pi/data.db\n");
    let units = root.join("etc/systemd/system");
    // What is there of links is a comment, each line of which is right.
    let links = std::fs::read_to_string(root.join("etc/packmule/packmule.toml")).unwrap();
    std::fs::write(desk.path("links.toml"), &links).unwrap();
    desk.run("init north.db --name north").ok();
    let none = desk.run("run north.db --check --config links.toml").refused("links.toml:1");
    assert!(none.contains("nothing is to be done"), "{none}");
    let all: String = links
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    std::fs::write(desk.path("links.toml"), all).unwrap();
    // The table that its example prunes.
    desk.sql("north.db", "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, celsius REAL)");
    desk.run("track north.db readings --mode per-device --append").ok();
    let said = desk.run("run north.db --check --config links.toml").ok();
    assert!(said.starts_with("links.toml is in order: 3 links of north.db\n"), "{said}");
    for name in ["packmule-serve.service", "packmule-exchange@.service", "packmule-run.service"] {
        let path = units.join(name);
        // The program that it names must be there to be verified.
        let text = std::fs::read_to_string(&path).unwrap().replace("/usr/bin/packmule", "/bin/true");
        std::fs::write(&path, text).unwrap();
        match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
            Ok(ran) => {
                let said = String::from_utf8_lossy(&ran.stderr);
                assert!(ran.status.success() && !said.contains(name), "{said}");
            }
            Err(e) => skips::skip(&format!("systemd reads {name}"), &format!("systemd-analyze: {e}")),
        }
    }
}
