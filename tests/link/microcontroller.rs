//! The core builds for the smallest target: a Cortex-M0 without atomics, without `std`, without a heap.

use std::process::Command;

#[test]
fn it_builds_for_a_cortex_m0() {
    let target = "thumbv6m-none-eabi";
    let rustc = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let here = rustc.is_ok_and(|o| std::path::Path::new(String::from_utf8_lossy(&o.stdout).trim()).exists());
    if !here && std::env::var_os("CI").is_none() {
        println!("skipped: `rustup target add {target}` first");
        return;
    }
    for features in ["", "defmt"] {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--lib", "--release", "--offline", "--target", target, "--features", features])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/thumbv6m"))
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
}
