//! The core builds for the smallest target: a Cortex-M0 without atomics, without `std`, without a heap.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

#[path = "../skips/mod.rs"]
mod skips;

use std::process::{Command, Output};

const TARGET: &str = "thumbv6m-none-eabi";

fn cargo(words: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(words)
        .args(["--locked", "--target", TARGET])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/thumbv6m"))
        // They are meant for this machine.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap()
}

fn builds(features: &str) {
    let built = cargo(&["build", "--lib", "--release", "--features", features]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn it_builds_for_a_cortex_m0() {
    let check = "the core on a Cortex-M0";
    let found = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    if !found.is_ok_and(|o| std::path::Path::new(String::from_utf8_lossy(&o.stdout).trim()).exists()) {
        return skips::skip(check, &format!("`rustup target add {TARGET}` first"));
    }
    builds("");
    // The tests of this machine need no defmt: its crates may not be here yet.
    let fetched = cargo(&["fetch"]);
    if !fetched.status.success() {
        let why = format!("its crates cannot be downloaded: {}", String::from_utf8_lossy(&fetched.stderr));
        return skips::skip("the core on a Cortex-M0, with defmt", &why);
    }
    builds("defmt");
}
