//! Profiles of boards: how much memory the engine may use, and where the serial line is.
//!
//! They are `boards/*/board.toml`; the build script puts them into the program. `--board` names the one
//! that is used; otherwise the device tree tells which board this is. On anything else it is the host's.

use std::path::Path;

/// The profiles, the host's first.
const PROFILES: &[Profile] = include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// Where the kernel tells what board it is.
const DEVICE_TREE: &str = "/proc/device-tree/compatible";

/// A board's profile.
#[derive(Debug)]
pub struct Profile {
    /// The board's name.
    pub name: &'static str,
    /// What has been tried of it.
    pub note: &'static str,
    /// What the program is built for.
    pub target: &'static str,
    /// The program that links for it.
    pub linker: &'static str,
    /// The program is one file, without a shared library.
    pub is_static: bool,
    /// What the device tree says of such boards.
    compatible: &'static [&'static str],
    /// Its budgets.
    pub memory: Memory,
    /// Its serial line.
    pub uart: Uart,
}

/// How much memory the engine uses.
#[derive(Debug)]
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

/// A serial line.
#[derive(Debug)]
pub struct Uart {
    /// The port.
    pub device: &'static str,
    /// Bits a second at the beginning.
    pub baud: u32,
    /// The highest rate to go up to.
    pub baud_max: u32,
}

impl Profile {
    /// Returns all profiles, the host's first.
    pub fn all() -> &'static [Self] {
        PROFILES
    }

    /// Finds the profile of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|board| board.name == name)
    }

    /// Finds the profile of the machine that this runs on; also returns what its device tree says.
    pub fn found() -> (&'static Self, Vec<String>) {
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

    fn of(says: &[String]) -> &'static Self {
        // The device tree's first is the most exact.
        let fits = |says: &String| PROFILES.iter().find(|board| board.compatible.contains(&says.as_str()));
        says.iter().find_map(fits).unwrap_or(&PROFILES[0])
    }

    /// Puts its budgets into the engine's options.
    pub fn budget(&self, options: &mut packmule::Options) {
        options.cache_kib = self.memory.cache_kib;
        options.frame_bytes = self.memory.frame_bytes as usize;
        options.window_bytes = self.memory.window_bytes as usize;
        options.page_bytes = self.memory.page_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_budgets_are_the_engines_defaults() {
        assert_eq!(PROFILES[0].name, "host");
        let (options, memory) = (packmule::Options::default(), &PROFILES[0].memory);
        assert_eq!((memory.cache_kib, memory.frame_bytes as usize), (options.cache_kib, options.frame_bytes));
        assert_eq!(memory.window_bytes as usize, options.window_bytes);
    }

    #[test]
    fn a_board_is_known_by_its_device_tree() {
        let of = |says: &[&str]| Profile::of(&says.iter().map(|s| s.to_string()).collect::<Vec<_>>()).name;
        assert_eq!(of(&["raspberrypi,model-zero-2-w", "brcm,bcm2837"]), "pi-zero-2w");
        assert_eq!(of(&["ti,am335x-bone-black", "ti,am335x-bone", "ti,am33xx"]), "beaglebone-black");
        assert_eq!(of(&["milkv,duo", "sophgo,cv1800b"]), "milkv-duo");
        assert_eq!(of(&["somebody,else"]), "host");
        assert_eq!(of(&[]), "host");
    }
}
