//! What a target keeps: `tests/fuzz/corpus/NAME.hex`, an input a line.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the corpus of a target is, whichever package tries it.
fn path(name: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = package.ancestors().map(|dir| dir.join("tests/fuzz/corpus")).find(|dir| dir.is_dir());
    folder.unwrap().join(format!("{name}.hex"))
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(line: &str) -> Vec<u8> {
    (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The inputs of a target.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    std::fs::read_to_string(path(name)).unwrap_or_default().lines().map(from_hex).collect()
}

/// Adds inputs: short ones, and not too many. What is there stays.
pub fn add(name: &str, inputs: &[Vec<u8>]) {
    let mut all = of(name);
    let most = all.len().max(40);
    all.extend(inputs.iter().filter(|input| input.len() <= 600).cloned());
    all.truncate(most);
    let text: String = all.iter().map(|input| to_hex(input) + "\n").collect();
    if !text.is_empty() {
        std::fs::write(path(name), text).unwrap();
    }
}
