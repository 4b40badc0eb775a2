//! A real vfat image, mounted: where `mkfs.vfat` and `mount` are there and permitted.

use std::path::Path;
use std::process::Command;

use packmule::carry::volume::Directory;

use crate::{Fleet, NAMES};

struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.0.path().join("card")]);
    }
}

fn run(program: &str, args: &[&Path]) -> Result<(), String> {
    let ran = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&ran.stderr).trim()))
}

fn mount(mib: u64) -> Result<Mounted, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (image, card) = (dir.path().join("image"), dir.path().join("card"));
    std::fs::create_dir(&card).unwrap();
    std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
    run("mkfs.vfat", &[&image])?;
    run("mount", &[Path::new("-o"), Path::new("loop"), &image, &card])?;
    Ok(Mounted(dir))
}

#[test]
fn a_real_vfat_card() {
    let mounted = match mount(8) {
        Ok(mounted) => mounted,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let card = mounted.0.path().join("card");
    std::fs::write(card.join("photo.jpg"), b"not ours").unwrap();
    let mut fleet = Fleet::new();
    for round in 0..3 {
        for name in NAMES {
            let report = fleet.exchange(name, &mut Directory::open(&card).unwrap());
            assert!(
                report.stepped_over.is_empty() && report.not_left.is_none(),
                "{round} {name}: {report:?}"
            );
        }
    }
    fleet.assert_same(1);
    for entry in std::fs::read_dir(card.join("PACKMULE")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.len() == 12 && name.to_ascii_uppercase() == name, "{name} is an 8.3 name");
    }
    // Filled up, and then read-only.
    std::fs::write(card.join("film.mp4"), vec![0; 8 << 20]).unwrap_err();
    let long = "hex(zeroblob(500000))";
    crate::common::sql(fleet.get("north"), &format!("INSERT INTO settings VALUES ('long', {long})"));
    let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
    assert!(report.not_left.is_some(), "{report:?}");
    std::fs::remove_file(card.join("film.mp4")).unwrap();
    run("mount", &[Path::new("-o"), Path::new("remount,ro"), &card]).unwrap();
    let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
    assert!(matches!(report.not_left, Some(packmule::carry::card::NotLeft::ReadOnly)), "{report:?}");
    run("mount", &[Path::new("-o"), Path::new("remount,rw"), &card]).unwrap();
    let report = fleet.exchange("north", &mut Directory::open(&card).unwrap());
    assert!(report.left.iter().any(|left| left.bytes > 500_000), "{report:?}");
}

/// No two exchanges of one card run at once.
#[test]
fn a_card_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let first = Directory::open(dir.path()).unwrap();
    let second = Directory::open(dir.path()).map(drop).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::ResourceBusy);
    drop(first);
    Directory::open(dir.path()).unwrap();
}
