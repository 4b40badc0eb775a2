//! `packmule-boards BOARD`: prints a board's profile as assignments that a shell evaluates.

use std::process::ExitCode;

fn main() -> ExitCode {
    let profiles = match packmule_boards::read(&packmule_boards::folder()) {
        Ok(profiles) => profiles,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    let asked = std::env::args().nth(1).unwrap_or_default();
    let Some(profile) = profiles.iter().find(|profile| profile.name == asked) else {
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        eprintln!("there is no board `{asked}`: the boards are {}", names.join(", "));
        return ExitCode::from(2);
    };
    print!("{}", packmule_boards::shell(profile));
    ExitCode::SUCCESS
}
