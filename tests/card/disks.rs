//! Real file systems in images, mounted: FAT, exFAT and ext4, where `mkfs` and `mount` are there and permitted.
//! Where the kernel lacks one of them, `fusefat` and `mount.exfat-fuse` will do.

use std::path::{Path, PathBuf};
use std::process::Command;

use packmule::carry::card::NotLeft;
use packmule::carry::volume::Directory;

use crate::{Fleet, NAMES};

struct Mounted {
    dir: tempfile::TempDir,
    device: Option<String>,
    by_kernel: bool,
}

impl Mounted {
    fn card(&self) -> PathBuf {
        self.dir.path().join("card")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.card().to_string_lossy()]);
        if let Some(device) = &self.device {
            let _ = run("losetup", &["-d", device]);
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let ran = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&ran.stderr).trim()))
}

/// An image of 16 MiB with this file system, mounted.
fn mount(system: &str) -> Result<Mounted, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut mounted = Mounted { dir, device: None, by_kernel: true };
    let image = mounted.dir.path().join("image").to_string_lossy().into_owned();
    let card = mounted.card().to_string_lossy().into_owned();
    std::fs::create_dir(&card).unwrap();
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    run(&format!("mkfs.{system}"), &[&image])?;
    let Err(refused) = run("mount", &["-t", system, "-o", "loop", &image, &card]) else { return Ok(mounted) };
    mounted.by_kernel = false;
    let by_fuse = match system {
        "vfat" => run("fusefat", &["-o", "rw+", &image, &card]),
        "exfat" => run("losetup", &["-f", "--show", &image]).and_then(|device| {
            mounted.device = Some(device.clone());
            run("mount.exfat-fuse", &[&device, &card])
        }),
        _ => Err("there is no other way".into()),
    };
    by_fuse.map(|_| mounted).map_err(|e| format!("{refused}; {e}"))
}

fn goes_round_on(system: &str) {
    let mounted = match mount(system) {
        Ok(mounted) => mounted,
        Err(why) => return println!("skipped on {system}: {why}"),
    };
    let card = mounted.card();
    println!("on {system}, by {}", if mounted.by_kernel { "the kernel" } else { "fuse" });
    std::fs::write(card.join("photo.jpg"), b"not ours").unwrap();
    let mut fleet = Fleet::new();
    for round in 0..3 {
        for name in NAMES {
            let report = fleet.exchange(name, &mut Directory::open(&card).unwrap());
            let others: Vec<_> = report.stepped_over.iter().collect();
            assert!(others.is_empty() && report.not_left.is_none(), "{system} {round} {name}: {report:?}");
        }
    }
    fleet.assert_same(1);
    for entry in std::fs::read_dir(card.join("PACKMULE")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.len() == 12 && name.to_ascii_uppercase() == name, "{name} is an 8.3 name");
    }
    // Filled up to the last byte; then with some room again.
    let film = card.join("film.mp4");
    let _ = std::fs::write(&film, vec![0; 20 << 20]);
    crate::common::sql(fleet.get("north"), "INSERT INTO settings VALUES ('long', hex(zeroblob(500000)))");
    let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
    // (fusefat says of a full card that it is not permitted.)
    let full = matches!(report.not_left, Some(NotLeft::Full { .. }));
    assert!(full || !mounted.by_kernel && report.not_left.is_some(), "{system}: {report:?}");
    std::fs::remove_file(&film).unwrap();
    if mounted.by_kernel {
        let at = card.to_string_lossy().into_owned();
        run("mount", &["-o", "remount,ro", &at]).unwrap();
        let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
        assert!(matches!(report.not_left, Some(NotLeft::ReadOnly)), "{system}: {report:?}");
        run("mount", &["-o", "remount,rw", &at]).unwrap();
    }
    let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
    assert!(report.left.iter().any(|left| left.bytes > 500_000), "{system}: {report:?}");
    fleet.exchange("base", &mut Directory::open(&card).unwrap());
    assert_eq!(std::fs::read(card.join("photo.jpg")).unwrap(), b"not ours");
}

#[test]
fn on_vfat() {
    goes_round_on("vfat");
}

#[test]
fn on_exfat() {
    goes_round_on("exfat");
}

#[test]
fn on_ext4() {
    goes_round_on("ext4");
}

/// No two exchanges of one card run at once.
#[test]
fn a_card_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = dir.path();
    let first = Directory::open(path).unwrap();
    let second = Directory::open(path).map(drop).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::ResourceBusy);
    drop(first);
    Directory::open(path).unwrap();
}
