//! What the link carries, as a table: made by simulation in virtual time, so the same on every
//! machine, and compared with `src/core/link/GOODPUT.md`. `UPDATE=1` renews it.
//!
//! 1 MiB in one direction, from the first hello to the last byte received, as a share of the line's
//! rate (8N1).

mod sim;

use sim::{Faults, World, make};
use std::fmt::Write as _;
use std::path::Path;

const SIZE: u64 = 1 << 20;

struct Case {
    name: &'static str,
    faults: Faults,
    /// Bytes in the other direction at the same time.
    back: u64,
    /// Which end is a microcontroller (a `LeafLink`, 256 bytes of receive buffer).
    leaf: Option<usize>,
    /// To which rate the line is raised; the share is of this one.
    raised: u32,
    /// What is to be reached.
    target: f64,
}

fn case(name: &'static str, baud: u32, latency_ms: u64, flip: f64, target: f64) -> Case {
    let faults = Faults { flip, ..Faults::clean(baud, latency_ms * 1000) };
    Case { name, faults, back: 0, leaf: None, raised: baud, target }
}

fn cases() -> Vec<Case> {
    let (fast, slow) = (921_600, 115_200);
    let mut cut = case("921,600 baud, 5 ms, wire cut for 2 s", fast, 5, 0.0, 0.83);
    cut.faults.cuts = vec![(6_000_000, 8_000_000)];
    let mut runs = case("921,600 baud, 5 ms, runs of 20 bytes vanish, 1e-4 a byte", fast, 5, 0.0, 0.0);
    (runs.faults.drop, runs.faults.drop_run) = (1e-4, 20);
    let both = |name: &'static str, baud: u32| Case { back: SIZE, ..case(name, baud, 5, 1e-5, 0.0) };
    let leaf = |name: &'static str, end: usize| Case { leaf: Some(end), ..case(name, slow, 1, 1e-6, 0.0) };
    vec![
        case("921,600 baud, 5 ms, clean", fast, 5, 0.0, 0.97),
        case("921,600 baud, 5 ms, BER 1e-6", fast, 5, 1e-6, 0.95),
        case("921,600 baud, 5 ms, BER 1e-5", fast, 5, 1e-5, 0.91),
        case("921,600 baud, 5 ms, BER 1e-4", fast, 5, 1e-4, 0.78),
        case("921,600 baud, 5 ms, BER 1e-3", fast, 5, 1e-3, 0.0),
        case("921,600 baud, 50 ms, BER 1e-5", fast, 50, 1e-5, 0.90),
        cut,
        runs,
        both("921,600 baud, 5 ms, BER 1e-5, both ways at once", fast),
        case("115,200 baud, 5 ms, clean", slow, 5, 0.0, 0.97),
        case("115,200 baud, 5 ms, BER 1e-6", slow, 5, 1e-6, 0.95),
        case("115,200 baud, 5 ms, BER 1e-5", slow, 5, 1e-5, 0.91),
        case("115,200 baud, 5 ms, BER 1e-4", slow, 5, 1e-4, 0.78),
        both("115,200 baud, 5 ms, BER 1e-5, both ways at once", slow),
        leaf("115,200 baud, 1 ms, BER 1e-6, from a microcontroller", 0),
        leaf("115,200 baud, 1 ms, BER 1e-6, to a microcontroller", 1),
        Case {
            raised: fast,
            ..case("begun at 115,200 baud and raised to 921,600, 5 ms, BER 1e-6", slow, 5, 1e-6, 0.0)
        },
    ]
}

fn carried(seed: u64, case: &Case, fec: bool) -> f64 {
    let sizes = |end: usize| {
        if case.leaf == Some(end) { make::<512, 256, 192, 12>() } else { make::<32768, 32768, 2240, 256>() }
    };
    let faults = [case.faults.clone(), case.faults.clone()];
    let mut world = World::new(seed, faults, [sizes(0), sizes(1)], [SIZE, case.back], |c| {
        (c.fec, c.baud_max) = (fec, case.raised);
    });
    let start = world.now;
    world.ends.iter_mut().for_each(|e| e.finishes = false);
    let good = world.run(start + 400_000_000, |w| w.ends[1].got == SIZE && w.ends[0].got == case.back);
    if std::env::var_os("VERBOSE").is_some() {
        println!(
            "{} seed {seed}\n  {} {:?}",
            case.name,
            world.report(),
            world.ends[0].machine.payload_and_fec_rate()
        );
    }
    assert!(good, "{} seed {seed} {}", case.name, world.report());
    SIZE as f64 / ((world.now - start) as f64 / 1e6) / (f64::from(case.raised) / 10.0)
}

fn mean(case: &Case, fec: bool) -> f64 {
    (1..=3).map(|seed| carried(seed, case, fec)).sum::<f64>() / 3.0
}

fn table() -> (String, Vec<(&'static str, f64, f64)>) {
    let mut rows = Vec::new();
    let mut all = String::from(
        "# What the link carries\n\n\
         Made by `tests/link/goodput.rs` in virtual time and compared by it (`UPDATE=1 cargo test -p packmule-core --release --test link_goodput`).\n\
         1 MiB one way, from the first hello to the last byte, as a share of the line's rate (8N1); mean of seeds 1 to 3.\n\
         *plain*: without error correction; *FEC*: with it, as the link uses it.\n\n\
         | line | plain | FEC | to reach |\n|---|---|---|---|\n",
    );
    for case in cases() {
        let (plain, with_fec) = (mean(&case, false), mean(&case, true));
        let goal = if case.target > 0.0 { format!("{:.2}", case.target) } else { String::new() };
        let _ = writeln!(all, "| {} | {plain:.3} | {with_fec:.3} | {goal} |", case.name);
        rows.push((case.name, plain, case.target));
        rows.push((case.name, with_fec, case.target));
    }
    (all, rows)
}

#[test]
fn goodput_is_as_in_the_table() {
    let (text, rows) = table();
    println!("{text}");
    for (name, got, target) in rows {
        assert!(got >= target, "{name}: {got:.3} of {target}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("link/GOODPUT.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
}
