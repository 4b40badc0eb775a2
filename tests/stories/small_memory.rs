//! Boards with little memory: every command works with 40 MB of address space, and with a BLOB of 20 MB in 64 MB.

use crate::support::{Desk, Ran, has};

/// Runs `packmule` in so many KiB of address space.
fn within(desk: &Desk, kib: u32, line: &str) -> Ran {
    desk.run_within(&[&format!("-v {kib}")], line)
}

/// Two boards that write one row each under one key, with a BLOB of this size; then all that people do with it.
fn play(kib: u32, bytes: u32) {
    let desk = Desk::new();
    let run = |line: &str| within(&desk, kib, line).ok();
    run("fleet new fleet.key");
    for name in ["north", "south"] {
        run(&format!("init {name}.db --name {name} --fleet fleet.key"));
        desk.sql(
            &format!("{name}.db"),
            "CREATE TABLE photos (id INTEGER PRIMARY KEY, note TEXT, jpeg BLOB, n INT)",
        );
        run(&format!("track {name}.db photos"));
        desk.sql(
            &format!("{name}.db"),
            &format!("INSERT INTO photos VALUES (1, '{name}', randomblob({bytes}), 1)"),
        );
        run(&format!("seal {name}.db"));
    }
    for name in ["north", "south"] {
        run(&format!("export {name}.db {name}.pmb"));
    }
    run("import north.db south.pmb");
    run("import south.db north.pmb");
    let digest = run("digest north.db");
    assert_eq!(digest, run("digest south.db"));
    let listed = run("conflicts north.db");
    if bytes > 4096 {
        has(&listed, &["jpeg", &format!("= BLOB of {bytes} bytes, SHA-256 ")]);
    }
    assert_eq!(listed.replace("north.db", "south.db"), run("conflicts south.db"));
    let json: serde_json::Value = serde_json::from_str(&run("conflicts north.db --json")).unwrap();
    let id = json["conflicts"][0]["id"].as_str().unwrap();
    for line in [
        "status north.db",
        "devices north.db",
        "log north.db --values",
        "verify north.db",
        "inspect north.pmb",
    ] {
        run(line);
    }
    run(&format!("resolve north.db {id} --take south"));
    std::fs::create_dir(desk.path("card")).unwrap();
    for name in ["north", "south", "north", "south"] {
        run(&format!("exchange {name}.db card"));
    }
    assert_eq!(run("digest north.db"), run("digest south.db"));
    run("compact north.db");
    run("snapshot north.db north.pms");
    run("join east.db north.pms --name east --fleet fleet.key");
    run("merge south.db north.db");
    assert_eq!(run("digest north.db"), run("digest east.db"));
}

#[test]
fn every_command_works_in_forty_megabytes() {
    play(40 * 1024, 1_000);
}

#[test]
fn a_blob_of_twenty_megabytes_needs_no_more_than_sixty_four() {
    play(64 * 1024, 20_000_000);
}

/// Where there is less memory than the program needs, it ends with a reason and exit status 1, and nothing is changed.
#[test]
fn too_little_memory_is_a_failure_and_no_abort() {
    let desk = Desk::new();
    desk.run("init north.db --name north").ok();
    desk.sql("north.db", "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)");
    desk.run("track north.db t").ok();
    desk.sql("north.db", "INSERT INTO t VALUES (1, printf('%.*c', 6000000, 'x'))");
    let mut refused = 0;
    for mib in (1..64).rev() {
        let ran = within(&desk, mib * 1024, "seal north.db");
        match ran.status {
            // All was sealed before; what is refused later could not even begin.
            Some(0) => desk.sql("north.db", "UPDATE t SET v = v || 'x'"),
            Some(1) => {
                refused += 1;
                assert!(ran.err.starts_with("packmule: "), "{}", ran.err);
            }
            // The system could not even load the program, or its first thread.
            _ if ran.err.contains("loading shared libraries")
                || ran.err.contains("failed to allocate an alternative stack")
                || ran.err.is_empty()
                || ran.err.starts_with("sh:") =>
            {
                break;
            }
            status => panic!("{mib} MiB: {status:?} {}", ran.err),
        }
    }
    assert!(refused > 0, "no limit was too low");
    desk.run("seal north.db").ok();
    desk.run("verify north.db").ok();
}
