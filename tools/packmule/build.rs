//! Puts the profiles of `boards/` into the program.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let boards = packmule_boards::folder();
    println!("cargo::rerun-if-changed={}", boards.display());
    match generate(&boards) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("cargo::error={e}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the profiles as a list of the program's `Profile`s, whose fields are named alike.
fn generate(boards: &Path) -> Result<(), Box<dyn Error>> {
    let mut list = String::from("&[\n");
    for profile in packmule_boards::read(boards)? {
        let packmule_boards::Profile { name, note, target, linker, is_static, compatible, memory, uart } =
            profile;
        list.push_str(&format!(
            "Profile {{ name: {name:?}, note: {note:?}, target: {target:?}, linker: {linker:?}, \
             is_static: {is_static}, compatible: &{compatible:?}, memory: {memory:?}, uart: {uart:?} }},\n"
        ));
    }
    list.push(']');
    let out = std::env::var_os("OUT_DIR").ok_or("cargo has set no OUT_DIR")?;
    std::fs::write(Path::new(&out).join("boards.rs"), list)?;
    Ok(())
}
