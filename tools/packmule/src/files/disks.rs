//! Which disk a card is, and which one the system itself runs from: what is on that is no card.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How far disks can lie upon disks: a file system in a volume, in a vault, on a partition.
const DEPTH: usize = 8;

/// Where what comes and goes is mounted.
const PASSING: &[&str] = &["/media/", "/mnt/", "/run/media/", "/run/packmule-"];

/// A machine, by the files in which its kernel tells of it.
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The one whose `/proc`, `/sys` and `/dev` lie there.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Returns the disks that a block device is on, by its name in `/dev`; none where there is no such device.
    pub fn disks(&self, device: &str) -> BTreeSet<String> {
        let mut disks = BTreeSet::new();
        if !device.is_empty() && !device.contains('/') {
            let block = fs::canonicalize(self.root.join("sys/class/block").join(device));
            block.iter().for_each(|at| self.add_disks(at, DEPTH, &mut disks));
        }
        disks
    }

    fn add_disks(&self, block: &Path, depth: usize, disks: &mut BTreeSet<String>) {
        let disk = if block.join("partition").exists() { block.parent() } else { Some(block) };
        let Some(disk) = disk else { return };
        let below = fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten();
        let below: Vec<PathBuf> = below.filter_map(|entry| fs::canonicalize(entry.path()).ok()).collect();
        if below.is_empty() || depth == 0 {
            disks.extend(disk.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        below.iter().filter(|_| depth > 0).for_each(|below| self.add_disks(below, depth - 1, disks));
    }

    /// Returns the disks that the system runs from, and that on which a file lies.
    pub fn system_disks(&self, file: Option<&Path>) -> BTreeSet<String> {
        let mounts = fs::read_to_string(self.root.join("proc/self/mountinfo")).unwrap_or_default();
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::read).collect();
        let of_file = file.and_then(|file| {
            let holds = mounts.iter().filter(|mount| file.starts_with(&mount.at));
            holds.max_by_key(|mount| mount.at.components().count()).map(|mount| mount.at.clone())
        });
        let passing = |mount: &Mount| {
            let at = mount.at.to_string_lossy();
            PASSING.iter().any(|folder| at.starts_with(folder))
        };
        let system = mounts.iter().filter(|mount| !passing(mount) || of_file.as_ref() == Some(&mount.at));
        let mut disks: BTreeSet<String> = system.flat_map(|mount| self.disks_of(mount)).collect();
        disks.extend(self.first_root());
        disks
    }

    fn disks_of(&self, mount: &Mount) -> BTreeSet<String> {
        // Some file systems have a number of their own, and only the name tells.
        let numbered = fs::canonicalize(self.root.join("sys/dev/block").join(&mount.number)).ok();
        let numbered = numbered.and_then(|at| at.file_name().map(|name| name.to_string_lossy().into_owned()));
        numbered.or_else(|| self.named(&mount.source)).map(|name| self.disks(&name)).unwrap_or_default()
    }

    /// Returns the disks of what the kernel was told to run from: with an overlay above it, it is no mount.
    fn first_root(&self) -> BTreeSet<String> {
        let line = fs::read_to_string(self.root.join("proc/cmdline")).unwrap_or_default();
        let root = line.split_whitespace().find_map(|word| word.strip_prefix("root=")).unwrap_or_default();
        let path = match root.split_once('=') {
            Some((by, name)) => format!("/dev/disk/by-{}/{name}", by.to_lowercase()),
            None => root.to_owned(),
        };
        self.named(&path).map(|name| self.disks(&name)).unwrap_or_default()
    }

    /// Returns the name of a device that is given by its path in `/dev`.
    fn named(&self, path: &str) -> Option<String> {
        let below = self.root.join(path.strip_prefix("/dev/").map(|rest| format!("dev/{rest}"))?);
        Some(fs::canonicalize(below).ok()?.file_name()?.to_string_lossy().into_owned())
    }
}

/// A line of `mountinfo`.
struct Mount {
    /// Its device, as `major:minor`.
    number: String,
    at: PathBuf,
    /// What is mounted.
    source: String,
}

impl Mount {
    fn read(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let at = fields.get(4)?.replace("\\040", " ");
        let source = system.split(' ').nth(1)?.to_owned();
        Some(Self { number: (*fields.get(2)?).to_owned(), at: at.into(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with its system on mmcblk0, a card in a second slot, a stick, and a vault on a disk.
    fn machine(mounts: &str, cmdline: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (disk, parts, major) in [
            ("mmcblk0", &["mmcblk0p1", "mmcblk0p2"][..], 179),
            ("mmcblk1", &["mmcblk1p1"], 180),
            ("sda", &["sda1"], 8),
        ] {
            let of_disk = at("sys/devices").join(disk);
            fs::create_dir_all(&of_disk).unwrap();
            fs::create_dir_all(at("sys/class/block")).unwrap();
            fs::create_dir_all(at("sys/dev/block")).unwrap();
            fs::create_dir_all(at("dev/disk/by-partuuid")).unwrap();
            symlink(&of_disk, at("sys/class/block").join(disk)).unwrap();
            for (number, part) in parts.iter().enumerate() {
                let of_part = of_disk.join(part);
                fs::create_dir_all(&of_part).unwrap();
                fs::write(of_part.join("partition"), "1\n").unwrap();
                symlink(&of_part, at("sys/class/block").join(part)).unwrap();
                symlink(&of_part, at("sys/dev/block").join(format!("{major}:{}", number + 1))).unwrap();
                fs::write(at("dev").join(part), "").unwrap();
            }
        }
        symlink("../../mmcblk0p2", at("dev/disk/by-partuuid/6c586e13-02")).unwrap();
        let vault = at("sys/devices/dm-0");
        fs::create_dir_all(vault.join("slaves")).unwrap();
        symlink(at("sys/devices/sda/sda1"), vault.join("slaves/sda1")).unwrap();
        symlink(&vault, at("sys/class/block/dm-0")).unwrap();
        symlink(&vault, at("sys/dev/block/253:0")).unwrap();
        fs::create_dir_all(at("proc/self")).unwrap();
        fs::write(at("proc/self/mountinfo"), mounts).unwrap();
        fs::write(at("proc/cmdline"), cmdline).unwrap();
        dir
    }

    fn names(disks: BTreeSet<String>) -> String {
        disks.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_partition_is_on_its_disk_and_a_vault_on_what_is_below() {
        let dir = machine("", "");
        let disks = |device| names(Machine::at(dir.path()).disks(device));
        assert_eq!([disks("mmcblk1p1"), disks("mmcblk1"), disks("dm-0")], ["mmcblk1", "mmcblk1", "sda"]);
        assert_eq!([disks("sdz1"), disks("../block/sda"), disks("")], ["", "", ""]);
    }

    #[test]
    fn the_systems_disk_is_found_by_its_mounts_by_its_name_or_by_what_the_kernel_was_told() {
        let root = "22 1 179:2 / / rw - ext4 /dev/root rw\n30 22 0:25 / /run rw - tmpfs tmpfs rw\n\
                    31 22 180:1 / /media/pi/CARD rw - vfat /dev/mmcblk1p1 rw\n";
        let unnumbered = "22 1 0:30 / / rw - btrfs /dev/mmcblk0p2 rw\n";
        let overlay = "22 1 0:30 / / rw - overlay overlay rw\n";
        let vault = "22 1 253:0 / / rw - ext4 /dev/mapper/root rw\n";
        let told = "console=serial0 root=PARTUUID=6c586e13-02 rw";
        for (mounts, cmdline, disks) in [
            (root, "", "mmcblk0"),
            (unnumbered, "", "mmcblk0"),
            (overlay, told, "mmcblk0"),
            (overlay, "root=/dev/mmcblk0p2", "mmcblk0"),
            (overlay, "", ""),
            (vault, "", "sda"),
        ] {
            let dir = machine(mounts, cmdline);
            assert_eq!(names(Machine::at(dir.path()).system_disks(None)), disks, "{mounts}{cmdline}");
        }
        let dir = machine(root, "");
        let with_database = Machine::at(dir.path()).system_disks(Some(Path::new("/media/pi/CARD/data.db")));
        assert_eq!(names(with_database), "mmcblk0 mmcblk1", "the database's own disk is no card");
    }
}
