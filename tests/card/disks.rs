//! Real file systems in images, mounted: FAT, exFAT and ext4, where `mkfs` and `mount` are there and permitted.
//! Where the kernel lacks one of them, `fusefat` and `mount.exfat-fuse` will do.

use std::path::{Path, PathBuf};
use std::process::Command;

use packmule::carry::card::NotLeft;
use packmule::carry::volume::Directory;
use packmule::{Engine, Error, FleetKey, InitOptions};

use crate::{Fleet, NAMES, skips};

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
        let _ = as_root("umount", &[&self.card().to_string_lossy()]);
        if let Some(device) = &self.device {
            let _ = as_root("losetup", &["-d", device]);
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    // A user's PATH may lack the folders in which `mkfs` lies.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let ran =
        Command::new(program).args(args).env("PATH", path).output().map_err(|e| format!("{program}: {e}"))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&ran.stderr).trim()))
}

/// The user and group that this test runs as.
fn ids() -> (u32, u32) {
    let of = std::fs::metadata("/proc/self").unwrap();
    (std::os::unix::fs::MetadataExt::uid(&of), std::os::unix::fs::MetadataExt::gid(&of))
}

/// Runs what only root may. On somebody's own machine the test does not help itself to that; in CI it does.
fn as_root(program: &str, args: &[&str]) -> Result<String, String> {
    if ids().0 == 0 || !skips::is_ci() {
        return run(program, args);
    }
    run("sudo", &[&["-n", program], args].concat())
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
    let (user, group) = ids();
    let owner = format!("uid={user},gid={group}");
    let options = if system == "ext4" { "loop".to_owned() } else { format!("loop,{owner}") };
    let Err(refused) = as_root("mount", &["-t", system, "-o", &options, &image, &card]) else {
        if system == "ext4" {
            as_root("chown", &[&format!("{user}:{group}"), &card])?;
        }
        return Ok(mounted);
    };
    mounted.by_kernel = false;
    let by_fuse = match system {
        "vfat" => run("fusefat", &["-o", "rw+", &image, &card]),
        "exfat" => as_root("losetup", &["-f", "--show", &image]).and_then(|device| {
            mounted.device = Some(device.clone());
            as_root("mount.exfat-fuse", &["-o", &owner, &device, &card])
        }),
        _ => Err("there is no other way".into()),
    };
    by_fuse.map(|_| mounted).map_err(|e| format!("{refused}; {e}"))
}

fn goes_round_on(system: &str) {
    let mounted = match mount(system) {
        Ok(mounted) => mounted,
        Err(why) => return skips::skip(&format!("a card with {system}"), &why),
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
        as_root("mount", &["-o", "remount,ro", &at]).unwrap();
        let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
        assert!(matches!(report.not_left, Some(NotLeft::ReadOnly)), "{system}: {report:?}");
        as_root("mount", &["-o", "remount,rw", &at]).unwrap();
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

/// A secret key is not made where every user could read it.
fn makes_no_key_on(mounted: &Mounted) {
    let init = InitOptions { name: "north", base: false, fleet: None };
    let refused = Engine::init(&mounted.card().join("north.db"), &init).err();
    assert!(
        matches!(&refused, Some(e @ Error::KeyUnprotected { .. }) if e.to_string().contains("FAT")),
        "{refused:?}"
    );
    // FUSE may still hold what was removed while it was open.
    let left: Vec<_> = std::fs::read_dir(mounted.card())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".fuse_hidden"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(matches!(FleetKey::create(&mounted.card().join("fleet.key")), Err(Error::KeyUnprotected { .. })));
}

#[test]
fn no_key_is_made_on_exfat() {
    match mount("exfat") {
        Ok(mounted) => makes_no_key_on(&mounted),
        Err(why) => skips::skip("a key on exfat", &why),
    }
}

/// By the kernel. What fusefat mounts no other user can enter: there a key is kept.
#[test]
fn no_key_is_made_on_vfat() {
    match mount("vfat") {
        Ok(mounted) if mounted.by_kernel => makes_no_key_on(&mounted),
        Ok(mounted) => assert!(FleetKey::create(&mounted.card().join("fleet.key")).is_ok()),
        Err(why) => skips::skip("a key on vfat", &why),
    }
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
