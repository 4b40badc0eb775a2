//! What the link carries, as a table: made by simulation in virtual time, so the same on every
//! machine, and compared with `src/core/link/GOODPUT.md`. `UPDATE=1` renews it.
//!
//! 1 MiB in one direction, from the first hello to the last byte received, as a share of the line's
//! rate (8N1).

mod sim;

use packmule_core::link::Config;
use sim::{Faults, World, make};
use std::fmt::Write as _;
use std::path::Path;

const SIZE: u64 = 1 << 20;

fn carried(seed: u64, faults: &Faults, back: u64, settings: impl Fn(&mut Config)) -> f64 {
    let sizes = || make::<32768, 32768, 1200, 256>();
    let mut world =
        World::new(seed, [faults.clone(), faults.clone()], [sizes(), sizes()], [SIZE, back], settings);
    let start = world.now;
    world.ends.iter_mut().for_each(|e| e.finishes = false);
    let good = world.run(start + 400_000_000, |w| w.ends[1].got == SIZE && w.ends[0].got == back);
    if std::env::var_os("VERBOSE").is_some() {
        println!("seed {seed} {faults:?}\n  {} {:?}", world.report(), world.ends[0].machine.strength());
    }
    if !good {
        assert!(world.ends.iter().all(|e| e.wrong.is_none()), "seed {seed} {}", world.report());
        return 0.0;
    }
    SIZE as f64 / ((world.now - start) as f64 / 1e6) / (f64::from(faults.baud) / 10.0)
}

fn mean(faults: &Faults, back: u64, settings: impl Fn(&mut Config) + Copy) -> f64 {
    (1..=3).map(|seed| carried(seed, faults, back, settings)).sum::<f64>() / 3.0
}

fn table() -> (String, Vec<(&'static str, f64, f64)>) {
    let mut rows = Vec::new();
    let flips = |baud: u32, latency_us: u64, flip: f64| Faults { flip, ..Faults::clean(baud, latency_us) };
    let fast = 921_600;
    let mut cases: Vec<(&'static str, Faults, u64, f64)> = vec![
        ("921,600 baud, 5 ms, clean", flips(fast, 5_000, 0.0), 0, 0.97),
        ("921,600 baud, 5 ms, BER 1e-6", flips(fast, 5_000, 1e-6), 0, 0.95),
        ("921,600 baud, 5 ms, BER 1e-5", flips(fast, 5_000, 1e-5), 0, 0.91),
        ("921,600 baud, 5 ms, BER 1e-4", flips(fast, 5_000, 1e-4), 0, 0.78),
        ("921,600 baud, 5 ms, BER 1e-3", flips(fast, 5_000, 1e-3), 0, 0.0),
        ("921,600 baud, 50 ms, BER 1e-5", flips(fast, 50_000, 1e-5), 0, 0.90),
        ("115,200 baud, 5 ms, clean", flips(115_200, 5_000, 0.0), 0, 0.97),
        ("115,200 baud, 5 ms, BER 1e-6", flips(115_200, 5_000, 1e-6), 0, 0.95),
        ("115,200 baud, 5 ms, BER 1e-5", flips(115_200, 5_000, 1e-5), 0, 0.91),
        ("115,200 baud, 5 ms, BER 1e-4", flips(115_200, 5_000, 1e-4), 0, 0.78),
        ("921,600 baud, 5 ms, BER 1e-5, both ways at once", flips(fast, 5_000, 1e-5), SIZE, 0.0),
        ("115,200 baud, 5 ms, BER 1e-5, both ways at once", flips(115_200, 5_000, 1e-5), SIZE, 0.0),
    ];
    let mut cut = flips(fast, 5_000, 0.0);
    cut.cuts = vec![(6_000_000, 8_000_000)];
    cases.push(("921,600 baud, 5 ms, wire cut for 2 s", cut, 0, 0.83));
    let mut drops = flips(fast, 5_000, 0.0);
    (drops.drop, drops.drop_run) = (1e-4, 20);
    cases.push(("921,600 baud, 5 ms, runs of 20 bytes vanish, 1e-4 a byte", drops, 0, 0.0));
    let mut all = String::from(
        "# What the link carries\n\n\
         Made by `tests/link/goodput.rs` in virtual time and compared by it (`UPDATE=1 cargo test -p packmule-core --release --test link_goodput`).\n\
         1 MiB one way, from the first hello to the last byte, as a share of the line's rate (8N1); mean of seeds 1 to 3.\n\
         *plain*: without error correction; *mending*: with it, as the link uses it.\n\n\
         | line | plain | mending | to reach |\n|---|---|---|---|\n",
    );
    for (name, faults, back, target) in cases {
        let plain = mean(&faults, back, |c| c.mend = false);
        let mending = mean(&faults, back, |_| {});
        let goal = if target > 0.0 { format!("{target:.2}") } else { String::new() };
        let _ = writeln!(all, "| {name} | {plain:.3} | {mending:.3} | {goal} |");
        rows.push((name, mending, target));
    }
    (all, rows)
}

#[test]
fn goodput_is_as_the_table_says() {
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
