//! Reads the profiles of boards, `boards/*/board.toml`: nothing else in the project does.
//!
//! The program's build script puts them into the program; `packmule-boards` prints one for the scripts
//! that build for a board.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

/// A board's profile.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The board's name, which is its folder's too.
    pub name: String,
    /// What has been tried of it.
    pub note: String,
    /// What `cargo build --target` takes.
    pub target: String,
    /// The program that links for it.
    pub linker: String,
    /// The program is one file, without a shared library.
    #[serde(default, rename = "static")]
    pub is_static: bool,
    /// What the device tree says of such boards.
    pub compatible: Vec<String>,
    /// Its budgets.
    pub memory: Memory,
    /// Its serial line.
    pub uart: Uart,
}

/// How much memory the engine uses on a board.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The page cache, in KiB.
    pub cache_kib: u32,
    /// The size of a frame.
    pub frame_bytes: u32,
    /// How many bytes of frames are applied in one transaction.
    pub window_bytes: u32,
    /// The page size of new databases.
    pub page_bytes: u32,
}

/// A board's serial line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uart {
    /// The port.
    pub device: String,
    /// Bits a second at the beginning.
    pub baud: u32,
    /// The highest rate to go up to.
    pub baud_max: u32,
}

/// Why a profile cannot be used.
#[derive(Debug)]
pub enum Error {
    /// A file or a folder cannot be read.
    Io(PathBuf, io::Error),
    /// A file is not a profile.
    Toml(PathBuf, toml::de::Error),
    /// A value of a file cannot be meant.
    Value(PathBuf, &'static str),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, e) => write!(f, "{}: {e}", path.display()),
            Self::Toml(path, e) => write!(f, "{}: {e}", path.display()),
            Self::Value(path, what) => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// Returns the folder `boards` of this repository.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards")
}

/// Reads all profiles of a folder: the host's first, then by name.
///
/// # Errors
/// Fails where one of them cannot be read or is not a profile.
pub fn read(boards: &Path) -> Result<Vec<Profile>, Error> {
    let failed = |e| Error::Io(boards.into(), e);
    let mut profiles = Vec::new();
    for entry in fs::read_dir(boards).map_err(failed)? {
        let file = entry.map_err(failed)?.path().join("board.toml");
        if file.is_file() {
            profiles.push(profile(&file)?);
        }
    }
    profiles.sort_by_key(|profile| (profile.name != "host", profile.name.clone()));
    Ok(profiles)
}

/// Reads one profile.
fn profile(file: &Path) -> Result<Profile, Error> {
    let text = fs::read_to_string(file).map_err(|e| Error::Io(file.into(), e))?;
    let profile: Profile = toml::from_str(&text).map_err(|e| Error::Toml(file.into(), e))?;
    let wrong = |what| Err(Error::Value(file.into(), what));
    let Memory { cache_kib, frame_bytes, window_bytes, page_bytes } = profile.memory;
    let folder = file.parent().and_then(Path::file_name);
    if folder.is_none_or(|folder| folder != profile.name.as_str()) {
        return wrong("`name` is not the folder's name");
    }
    if !(1024..=65_536).contains(&frame_bytes) {
        return wrong("`frame_bytes` is not from 1,024 to 65,536");
    }
    if cache_kib == 0 || window_bytes == 0 || !page_bytes.is_power_of_two() {
        return wrong("a budget is 0, or `page_bytes` is not a power of two");
    }
    if profile.uart.baud > profile.uart.baud_max || !profile.uart.device.starts_with("/dev/") {
        return wrong("`baud` is above `baud_max`, or `device` is not below /dev");
    }
    Ok(profile)
}

/// Returns what a build for the board needs to know as assignments that a shell evaluates.
pub fn shell(profile: &Profile) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut text = String::new();
    for (name, value) in [
        ("board", profile.name.as_str()),
        ("target", &profile.target),
        ("linker", &profile.linker),
        ("static", if profile.is_static { "true" } else { "" }),
        ("version", env!("CARGO_PKG_VERSION")),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={}", quoted(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Vec<Profile>, Error> {
        let boards = std::env::temp_dir().join(format!("packmule-boards-{}", std::process::id()));
        fs::create_dir_all(boards.join("x")).unwrap();
        fs::write(boards.join("x/board.toml"), text).unwrap();
        let found = read(&boards);
        fs::remove_dir_all(boards).unwrap();
        found
    }

    #[test]
    fn all_profiles_are_read_and_the_hosts_is_the_first() {
        let profiles = read(&folder()).unwrap();
        assert_eq!(profiles[0].name, "host");
        assert!(profiles.len() >= 7);
        let duo = profiles.iter().find(|p| p.name == "milkv-duo").unwrap();
        assert!(duo.is_static && duo.compatible.contains(&"milkv,duo".to_owned()));
        assert!(shell(duo).contains("target='riscv64gc-unknown-linux-gnu'\n"));
    }

    #[test]
    fn what_is_not_a_profile_is_refused() {
        let good = fs::read_to_string(folder().join("pi-4/board.toml")).unwrap();
        let good = good.replace("name = \"pi-4\"", "name = \"x\"");
        assert_eq!(written(&good).unwrap().len(), 1);
        for (was, is) in [
            ("name = \"x\"", "name = \"y\""),
            ("name = \"x\"", "name = 5"),
            ("name = \"x\"", "name = \"x\"\ncolour = \"red\""),
            ("cache_kib = ", "cache_kib = -"),
            ("frame_bytes = ", "frame_bytes = 1"),
            ("/dev/", "/tmp/"),
            ("[uart]", ""),
        ] {
            assert!(good.contains(was));
            assert!(written(&good.replace(was, is)).is_err(), "{is}");
        }
    }
}
