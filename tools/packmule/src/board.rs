//! Profiles of boards: how much memory the engine may use, and where the serial line is.
//!
//! They are `boards/*/board.toml`, put into the program when it is built. The one that is used is named by
//! `--board`, or found by what the device tree says of the board; on anything else it is the host's.

use std::path::Path;

/// The profiles, the host's first.
const PROFILES: &[&str] = &[
    include_str!("../../../boards/host/board.toml"),
    include_str!("../../../boards/pi-zero-w/board.toml"),
    include_str!("../../../boards/pi-zero-2w/board.toml"),
    include_str!("../../../boards/pi-4/board.toml"),
    include_str!("../../../boards/pi-5/board.toml"),
    include_str!("../../../boards/beaglebone-black/board.toml"),
    include_str!("../../../boards/milkv-duo/board.toml"),
];

/// Where the kernel tells what board it is.
const DEVICE_TREE: &str = "/proc/device-tree/compatible";

/// A board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Board {
    pub name: &'static str,
    /// What has been tried of it.
    pub note: &'static str,
    pub target: &'static str,
    pub linker: &'static str,
    /// One file, without a shared library.
    pub is_static: bool,
    compatible: &'static str,
    pub cache_kib: u32,
    pub frame_bytes: u32,
    pub window_bytes: u32,
    pub page_bytes: u32,
    pub uart: &'static str,
    pub baud: u32,
    pub baud_max: u32,
}

impl Board {
    /// Reads a profile: lines of `key = value` under `[section]`s, of the few forms that profiles use.
    fn read(text: &'static str) -> Result<Self, String> {
        let mut board = Self::default();
        let mut section = "";
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| format!("`{line}` is no `key = value`"))?;
            board.set(section, key.trim(), value.trim())?;
        }
        Ok(board)
    }

    fn set(&mut self, section: &str, key: &str, value: &'static str) -> Result<(), String> {
        let text = || {
            let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            inner.ok_or_else(|| format!("`{key}` is no text in quotes"))
        };
        let number = || value.replace('_', "").parse().map_err(|_| format!("`{key}` is no number"));
        match (section, key) {
            ("", "name") => self.name = text()?,
            ("", "note") => self.note = text()?,
            ("", "target") => self.target = text()?,
            ("", "linker") => self.linker = text()?,
            ("", "static") => self.is_static = value == "true",
            ("", "compatible") => self.compatible = value,
            ("memory", "cache_kib") => self.cache_kib = number()?,
            ("memory", "frame_bytes") => self.frame_bytes = number()?,
            ("memory", "window_bytes") => self.window_bytes = number()?,
            ("memory", "page_bytes") => self.page_bytes = number()?,
            ("uart", "device") => self.uart = text()?,
            ("uart", "baud") => self.baud = number()?,
            ("uart", "baud_max") => self.baud_max = number()?,
            _ => return Err(format!("`{key}` is no key of [{section}]")),
        }
        Ok(())
    }

    /// All profiles.
    pub fn all() -> impl Iterator<Item = Self> {
        // A profile that cannot be read is found by a test; it is built into the program.
        PROFILES.iter().filter_map(|text| Self::read(text).ok())
    }

    /// The profile of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|board| board.name == name)
    }

    /// The profile of the machine that this runs on, and what its device tree says, if it has one.
    pub fn found() -> (Self, Vec<String>) {
        let path = std::env::var_os("PACKMULE_DEVICE_TREE");
        let path = path.as_deref().map_or(Path::new(DEVICE_TREE), Path::new);
        let says = std::fs::read(path).unwrap_or_default();
        let says: Vec<String> = says
            .split(|b| *b == 0)
            .filter(|s| !s.is_empty())
            .map(|s| String::from_utf8_lossy(s).into())
            .collect();
        (Self::of(&says), says)
    }

    fn of(says: &[String]) -> Self {
        // The device tree's first is the most exact.
        let fits = |says: &String| Self::all().find(|b| b.compatible.contains(&format!("\"{says}\"")));
        says.iter().find_map(fits).or_else(|| Self::all().next()).unwrap_or_default()
    }

    /// Puts its budgets into the engine's options.
    pub fn budget(&self, options: &mut packmule::Options) {
        options.cache_kib = self.cache_kib;
        options.frame_bytes = self.frame_bytes as usize;
        options.window_bytes = self.window_bytes as usize;
        options.page_bytes = self.page_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_in_order() {
        let boards: Vec<Board> = PROFILES.iter().map(|text| Board::read(text).unwrap()).collect();
        for board in &boards {
            assert!((1024..=65_536).contains(&board.frame_bytes), "{board:?}");
            assert!(
                board.page_bytes.is_power_of_two() && board.cache_kib > 0 && board.window_bytes > 0,
                "{board:?}"
            );
            assert!(board.baud <= board.baud_max && board.uart.starts_with("/dev/"), "{board:?}");
            assert!(
                !board.target.is_empty() && !board.linker.is_empty() && !board.note.is_empty(),
                "{board:?}"
            );
            assert_eq!(boards.iter().filter(|b| b.name == board.name).count(), 1);
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards").join(board.name);
            assert!(folder.join("board.toml").is_file());
        }
        let host = boards[0];
        let options = packmule::Options::default();
        assert_eq!((host.cache_kib, host.frame_bytes as usize), (options.cache_kib, options.frame_bytes));
        assert_eq!(host.window_bytes as usize, options.window_bytes);
    }

    #[test]
    fn a_board_is_known_by_its_device_tree() {
        let of = |says: &[&str]| Board::of(&says.iter().map(|s| s.to_string()).collect::<Vec<_>>()).name;
        assert_eq!(of(&["raspberrypi,model-zero-2-w", "brcm,bcm2837"]), "pi-zero-2w");
        assert_eq!(of(&["ti,am335x-bone-black", "ti,am335x-bone", "ti,am33xx"]), "beaglebone-black");
        assert_eq!(of(&["milkv,duo", "sophgo,cv1800b"]), "milkv-duo");
        assert_eq!(of(&["somebody,else"]), "host");
        assert_eq!(of(&[]), "host");
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in ["name", "name = 5", "[memory]\ncache_kib = many", "colour = \"red\""] {
            assert!(Board::read(text).is_err(), "{text}");
        }
    }
}
