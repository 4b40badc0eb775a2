//! Counts what was skipped. Cargo runs the tests of a package by their names, and the packages by theirs: this one
//! is the last.

#[path = "mod.rs"]
mod skips;

fn main() {
    // Programs that list tests find none here.
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let skipped = skips::take(skips::run());
    match skipped.len() {
        0 => println!("\nno check was skipped\n"),
        1 => println!("\n1 check was skipped:"),
        n => println!("\n{n} checks were skipped:"),
    }
    for line in &skipped {
        println!("  {line}");
    }
    if !skipped.is_empty() {
        println!("With CI set, each of these fails; .ci/run installs what they need.\n");
    }
}
