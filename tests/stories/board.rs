//! A board whose application has its database in a user's home: its services are fitted to it, from the base where its
//! card is mounted.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skips;
use crate::support::{Desk, PACKMULE, Ran, has};

const DB: &str = "card/home/pi/app/data.db";
const SERVE: &str = "card/etc/systemd/system/packmule-serve.service.d/packmule.conf";
const EXCHANGE: &str = "card/etc/systemd/system/packmule-exchange@.service.d/packmule.conf";

/// Whose the application's files are: another user's, where that can be made so.
fn owner(desk: &Desk) -> (u32, u32) {
    let us = std::fs::metadata(desk.path(".")).unwrap();
    if us.uid() == 0 { (1000, 1000) } else { (us.uid(), us.gid()) }
}

/// Gives all of the application's folder to its user.
fn given_to_its_user(desk: &Desk) {
    let (uid, gid) = owner(desk);
    let app = desk.path(DB).parent().unwrap().to_owned();
    let files = std::fs::read_dir(&app).unwrap().map(|entry| entry.unwrap().path());
    files.chain([app]).for_each(|path| chown(path, Some(uid), Some(gid)).unwrap());
}

/// A board's card, mounted at the base: with a user, and a database of its application.
fn card() -> Desk {
    let desk = Desk::fleet(&["north"]);
    let (uid, gid) = owner(&desk);
    std::fs::create_dir_all(desk.path("card/home/pi/app")).unwrap();
    std::fs::create_dir_all(desk.path("card/etc")).unwrap();
    std::fs::write(
        desk.path("card/etc/passwd"),
        format!("root:x:0:0::/root:/bin/sh\npi:x:{uid}:{gid}::/home/pi:/bin/sh\n"),
    )
    .unwrap();
    std::fs::write(desk.path("card/etc/group"), format!("root:x:0:\ndialout:x:20:\npi:x:{gid}:\n")).unwrap();
    desk.sql(DB, "CREATE TABLE settings (key TEXT PRIMARY KEY, value, note TEXT)");
    desk.run(&format!("init {DB} --name south --fleet fleet.key")).ok();
    given_to_its_user(&desk);
    desk
}

/// It failed, and said why where a person looks; all that it said.
fn failed(ran: Ran) -> String {
    assert_eq!(ran.status, Some(1), "{}{}", ran.out, ran.err);
    ran.out + &ran.err
}

fn read(desk: &Desk, path: &str) -> String {
    std::fs::read_to_string(desk.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file below a folder, without what SQLite keeps beside a database while somebody reads it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.retain(|path| !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm"));
    all.sort();
    all
}

#[test]
fn the_services_are_fitted_to_a_database_and_taken_away_again() {
    let desk = card();
    let before = files(&desk.path("card"));
    let line = format!("board install {DB} --root card --board pi-4");
    let shown = desk
        .run(&format!("{line} --dry-run"))
        .proposes("# Made by `packmule board install`, for a database of ")
        .proposes("; `packmule board remove` removes it.")
        .ok();
    has(&shown, &["packmule-serve.service.d/packmule.conf would be:", "User=pi", "nothing was written"]);
    assert_eq!(files(&desk.path("card")), before);
    let said = desk
        .run(&line)
        .proposes_with(": no table is tracked: `packmule track * TABLE`", &[("TABLE", "settings")])
        .proposes("systemctl --root=* enable packmule-serve")
        .ok();
    has(&said, &["the services run as pi, with the groups dialout, and write to /home/pi/app alone"]);
    has(&said, &["no table is tracked", "systemctl --root=card enable packmule-serve"]);
    let serve = read(&desk, SERVE);
    has(
        &serve,
        &["StateDirectory=\nReadWritePaths=/home/pi/app\n", "User=pi\n", "SupplementaryGroups=dialout\n"],
    );
    let exchange = read(&desk, EXCHANGE);
    has(&exchange, &["ReadWritePaths=/home/pi/app\n", "PACKMULE_AS=setpriv"]);
    assert!(!exchange.contains("\nUser="), "only root mounts a card: {exchange}");
    has(&read(&desk, "card/etc/default/packmule"), &["\nPACKMULE_DB=/home/pi/app/data.db\n"]);
    // As the board has it is the same; and again changes nothing.
    let there = files(&desk.path("card"));
    desk.run("board install /home/pi/app/data.db --root card --board pi-4").ok();
    assert_eq!((files(&desk.path("card")), read(&desk, SERVE)), (there, serve));
    in_order(&desk);
    // What a rehearsal names is what goes then, and nothing else; it changes nothing itself.
    let there = files(&desk.path("card"));
    let shown = desk.run("board remove --root card --dry-run").ok();
    has(&shown, &["packmule-serve.service.d/packmule.conf: would be removed"]);
    let rehearsed = desk.run("board remove --root card --dry-run --json").json();
    assert_eq!((&rehearsed["dry_run"], files(&desk.path("card"))), (&true.into(), there));
    let removed = desk.run("board remove --root card").ok();
    let gone: Vec<&str> = removed.lines().filter_map(|line| line.strip_suffix(": removed")).collect();
    assert_eq!(rehearsed["removed"], serde_json::json!(gone));
    has(
        &removed,
        &["packmule.conf: removed", "packmule-serve.service: removed", "etc/default/packmule: removed"],
    );
    assert_eq!(files(&desk.path("card")), before);
    has(&desk.run("board remove --root card").ok(), &["no services of Packmule are installed there"]);
}

/// systemd reads the units with what was made for them, and finds them well closed.
fn in_order(desk: &Desk) {
    let root = desk.path("card");
    // What the units run must be there to be verified.
    for program in ["usr/bin/packmule", "bin/sh"] {
        std::fs::create_dir_all(root.join(program).parent().unwrap()).unwrap();
        std::fs::copy("/bin/sh", root.join(program)).unwrap();
    }
    let targets = root.join("lib/systemd/system");
    std::fs::create_dir_all(&targets).unwrap();
    for target in ["sysinit", "basic", "local-fs", "shutdown", "multi-user", "umount"] {
        std::fs::write(targets.join(format!("{target}.target")), "[Unit]\nDescription=There\n").unwrap();
    }
    let units = [
        ("packmule-serve.service", 25),
        ("packmule-run.service", 30),
        ("packmule-exchange@sda1.service", 40),
    ];
    for (unit, exposure) in units {
        let analyze = |words: &[&str]| {
            Command::new("systemd-analyze")
                .arg(format!("--root={}", root.display()))
                .args(words)
                .arg(unit)
                .output()
        };
        let verified = match analyze(&["verify"]) {
            Ok(ran) => ran,
            Err(e) => return skips::skip("systemd reads the units", &format!("systemd-analyze: {e}")),
        };
        let said = String::from_utf8_lossy(&verified.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("packmule")).collect();
        assert!(ours.is_empty(), "{unit}: {said}");
        let secure = analyze(&["security", "--offline=true", &format!("--threshold={exposure}")]).unwrap();
        let said = String::from_utf8_lossy(&secure.stdout) + String::from_utf8_lossy(&secure.stderr);
        assert!(secure.status.success(), "{unit}: {said}");
        println!("{unit}: {}", said.lines().last().unwrap_or_default());
    }
    for folder in ["usr", "bin", "lib"] {
        std::fs::remove_dir_all(root.join(folder)).unwrap();
    }
}

/// What would make the services fail is said before, each with what helps.
#[test]
fn a_dry_start_says_what_is_wrong() {
    let desk = card();
    has(&failed(desk.run("board check --root card")), &["card/etc/default/packmule is not there"]);
    desk.run(&format!("board install {DB} --root card")).ok();
    desk.run(&format!("track {DB} settings")).ok();
    given_to_its_user(&desk);
    has(
        &desk.run("board check --root card").ok(),
        &["runs as    pi", "writes to  /home/pi/app", "nothing is wrong"],
    );
    let mode = |path: &str, mode| {
        std::fs::set_permissions(desk.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let wrong = |what: &[&str]| has(&failed(desk.run("board check --root card")), what);
    mode("card/home/pi/app", 0o500);
    wrong(&["pi may not write to the folder card/home/pi/app"]);
    mode("card/home/pi/app", 0o700);
    mode("card/home/pi/app/data.db.pmkey", 0o200);
    wrong(&["pi may not read the secret key", "sudo chown "]);
    failed(desk.run("board check --root card").proposes("sudo chown * *"));
    mode("card/home/pi/app/data.db.pmkey", 0o640);
    wrong(&["data.db.pmkey can be read by others than its owner (mode 640)"]);
    failed(desk.run("board check --root card").proposes("is not used like that: `sudo chmod 600 *`"));
    mode("card/home/pi/app/data.db.pmkey", 0o600);
    // What packmule-run is to keep up, once something is.
    let links = "card/etc/packmule/packmule.toml";
    let as_installed = read(&desk, links);
    std::fs::write(desk.path(links), as_installed.clone() + "[[link]]\nto = \"base\"\nbaudd = 1\n").unwrap();
    wrong(&["packmule-run cannot start: card/etc/packmule/packmule.toml:", "`baudd` is not known"]);
    std::fs::write(desk.path(links), as_installed + "[[link]]\nto = \"tcp://base\"\n").unwrap();
    if owner(&desk).0 == 1000 {
        mode(links, 0o600);
        wrong(&["pi may not read card/etc/packmule/packmule.toml"]);
        failed(desk.run("board check --root card").proposes(" may not read *: `sudo chmod a+r *`"));
        mode(links, 0o644);
    }
    desk.run("board check --root card").ok();
    let settings = read(&desk, "card/etc/default/packmule");
    std::fs::write(desk.path("card/etc/default/packmule"), "PACKMULE_DB=\n").unwrap();
    let said = failed(
        desk.run("board check --root card").proposes_with("packmule board install DB*", &[("DB", DB)]),
    );
    has(&said, &["1 thing is wrong", "names no database"]);
    std::fs::write(desk.path("card/etc/default/packmule"), settings).unwrap();
    if owner(&desk).0 == 1000 && std::fs::metadata(desk.path("fleet.key")).unwrap().uid() == 0 {
        // `sudo packmule init`, or a tool that root has run: the services are not root.
        chown(desk.path(DB), Some(0), Some(0)).unwrap();
        mode(DB, 0o644);
        wrong(&["pi may not write to card/home/pi/app/data.db"]);
        given_to_its_user(&desk);
    }
    std::fs::rename(desk.path("card/home/pi/app"), desk.path("card/home/pi/moved")).unwrap();
    wrong(&["card/home/pi/app/data.db: there is no such folder"]);
    // It was moved, and nobody has told the services.
    let settings = read(&desk, "card/etc/default/packmule").replace("/pi/app/", "/pi/moved/");
    std::fs::write(desk.path("card/etc/default/packmule"), settings).unwrap();
    wrong(&["may not write to /home/pi/moved", "packmule board install /home/pi/moved/data.db"]);
    failed(desk.run("board check --root card").proposes("packmule board install **"));
    desk.run("board install /home/pi/moved/data.db --root card").ok();
    desk.run("board check --root card --json").json();
    std::fs::rename(desk.path("card/home/pi/moved/data.db"), desk.path("moved.db")).unwrap();
    std::fs::rename(desk.path("card/home/pi/moved/data.db.pmkey"), desk.path("moved.db.pmkey")).unwrap();
    failed(
        desk.run("board check --root card").proposes(": there is no such file; `packmule init *` makes it"),
    );
    std::fs::write(desk.path("card/home/pi/moved/data.db"), "no database").unwrap();
    wrong(&["data.db"]);
}

/// On the board itself: what is said to do next is what its systemd takes.
#[test]
fn what_is_done_on_the_board_itself() {
    let desk = Desk::fleet(&["north"]);
    let install = "packmule board install /var/lib/packmule/north.db --board pi-4";
    let Some(ran) = desk.run_on_machine(install) else {
        return skips::skip("the services of this machine", "it makes no namespaces");
    };
    let ran = ran.proposes("systemctl daemon-reload && udevadm control --reload");
    has(&ran.proposes("systemctl enable --now packmule-serve").ok(), &["write to /var/lib/packmule alone"]);
    let both = format!("{install} > installed && packmule board remove");
    let ran = desk.run_on_machine(&both).unwrap().proposes("systemctl stop packmule-serve packmule-run");
    has(&ran.proposes("systemctl daemon-reload && udevadm control --reload").ok(), &["removed"]);
    // Without a database nothing is fitted to one yet.
    std::fs::create_dir_all(desk.path("card/home/pi/app")).unwrap();
    std::fs::copy(desk.path("north.db"), desk.path("card/home/pi/app/data.db")).unwrap();
    std::fs::copy(desk.path("north.db.pmkey"), desk.path("card/home/pi/app/data.db.pmkey")).unwrap();
    let database = [("DB", "card/home/pi/app/data.db")];
    failed(desk.run("board check --root card").proposes_with("packmule board install DB*", &database));
    desk.run("board install --root card --board pi-4")
        .proposes_with("packmule board install DB*", &database)
        .ok();
}

/// A path that the services could not use is refused, with where it belongs.
#[test]
fn a_place_where_services_cannot_write_is_refused() {
    let desk = card();
    std::fs::create_dir_all(desk.path("card/tmp")).unwrap();
    for place in ["card/tmp/data.db", "card/data.db"] {
        std::fs::copy(desk.path(DB), desk.path(place)).unwrap();
        has(
            &desk.run(&format!("board install {place} --root card")).refused(place),
            &["a folder of its own"],
        );
    }
    desk.run("board install card/none.db --root card")
        .proposes("there is no such file; `packmule init *` would make it a device")
        .refused("card/none.db");
    has(&desk.run("board install north.db --root card").refused("north.db"), &["does not lie below card"]);
    desk.run("board install a.db b.db").usage();
    desk.run("board check --dry-run").usage();
    desk.run("board --root card").usage();
}

/// A setting of the user's is not touched; a path with all that a shell or systemd acts on is told as it is.
#[test]
fn settings_of_the_user_stay() {
    let desk = card();
    let odd = "card/home/pi/my 100% \"data\"";
    std::fs::create_dir(desk.path(odd)).unwrap();
    std::fs::rename(desk.path(DB), desk.path(format!("{odd}/it's.db"))).unwrap();
    std::fs::create_dir_all(desk.path("card/etc/default")).unwrap();
    std::fs::write(
        desk.path("card/etc/default/packmule"),
        "# mine\nPACKMULE_SERIAL=/dev/ttyUSB7\nPACKMULE_BAUD=9600\n",
    )
    .unwrap();
    let words = ["board", "install", &format!("{odd}/it's.db"), "--root", "card"];
    desk.run_words(&words).ok();
    let settings = read(&desk, "card/etc/default/packmule");
    has(&settings, &["# mine\nPACKMULE_SERIAL=/dev/ttyUSB7\nPACKMULE_BAUD=9600\n"]);
    has(&settings, &["PACKMULE_DB=\"/home/pi/my 100% \\\"data\\\"/it's.db\"\n"]);
    has(&read(&desk, SERVE), &["ReadWritePaths=\"/home/pi/my 100%% \\\"data\\\"\"\n"]);
    in_order(&desk);
    has(&desk.run("board remove --root card").ok(), &["card/etc/default/packmule: stays"]);
    has(&read(&desk, "card/etc/default/packmule"), &["# mine\n"]);
}

/// Where the package's units are, only what is fitted to the database is written.
#[test]
fn the_packages_units_are_not_written_a_second_time() {
    let desk = card();
    let packaged = "card/usr/lib/systemd/system";
    std::fs::create_dir_all(desk.path(packaged)).unwrap();
    std::fs::write(desk.path(packaged).join("packmule-serve.service"), "[Service]\n").unwrap();
    desk.run(&format!("board install {DB} --root card")).ok();
    assert!(!desk.path("card/etc/systemd/system/packmule-serve.service").exists());
    has(&read(&desk, SERVE), &["User=pi\n"]);
    desk.run("board remove --root card").ok();
    assert!(desk.path(packaged).join("packmule-serve.service").exists());
}

/// What the unit for cards does when a stick comes: as its owner, to whom all belongs that is made.
#[test]
fn a_stick_is_exchanged_with_as_the_owner_of_the_database() {
    let desk = card();
    desk.run(&format!("track {DB} settings")).ok();
    desk.sql(DB, "INSERT INTO settings VALUES ('interval', 60, '')");
    given_to_its_user(&desk);
    desk.run(&format!("board install {DB} --root card")).ok();
    let stick = desk.path("stick");
    std::fs::create_dir_all(stick.join("PACKMULE")).unwrap();
    let unit = read(&desk, "card/etc/systemd/system/packmule-exchange@.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh -ec '")).unwrap();
    // The stick is mounted already, and the program lies where the owner can run it.
    std::fs::copy(PACKMULE, desk.path("packmule")).unwrap();
    let start = start
        .trim_end_matches('\'')
        .replace("card=/run/packmule-%i", &format!("card={}", stick.display()))
        .replace("/usr/bin/packmule", &desk.path("packmule").display().to_string());
    let script = format!("mount() {{ :; }}\n{start}");
    for folder in [desk.path("."), stick.clone()] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut set: BTreeMap<String, String> = BTreeMap::new();
    for line in read(&desk, EXCHANGE).lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let (name, value) = line.trim_matches('"').split_once('=').unwrap();
        set.insert(name.into(), value.into());
    }
    assert_eq!(set.len(), if owner(&desk).0 == 0 { 0 } else { 3 });
    if std::fs::metadata(desk.path("fleet.key")).unwrap().uid() != 0 {
        set.remove("PACKMULE_AS"); // Only root can become another user.
    }
    let ran = Command::new("/bin/sh")
        .args(["-ec", &script])
        .env("PACKMULE_DB", desk.path(DB))
        .env("PACKMULE_EXCHANGE", "")
        .envs(&set)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("left for"), "{said}");
    let (uid, _) = owner(&desk);
    let made = [files(&stick), files(&desk.path("card/home/pi/app"))].concat();
    assert!(made.len() > 2, "{made:?}");
    for file in made {
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), uid, "{}", file.display());
    }
    desk.run("exchange base.db stick").ok();
    has(&desk.run("log base.db settings interval").ok(), &["south"]);
}

/// A card in the board's own slot is one; the card that the board runs from is none.
#[test]
fn the_systems_own_card_is_no_card() {
    let desk = Desk::new();
    let at = |path: &str| desk.path(path);
    for (disk, part) in [("mmcblk0", "mmcblk0p2"), ("mmcblk1", "mmcblk1p1")] {
        let block = at("machine/sys/devices").join(disk).join(part);
        std::fs::create_dir_all(&block).unwrap();
        std::fs::write(block.join("partition"), "1").unwrap();
        std::fs::create_dir_all(at("machine/sys/class/block")).unwrap();
        std::fs::create_dir_all(at("machine/dev")).unwrap();
        std::os::unix::fs::symlink(&block, at("machine/sys/class/block").join(part)).unwrap();
        std::fs::write(at("machine/dev").join(part), "").unwrap();
    }
    std::fs::create_dir_all(at("machine/proc/self")).unwrap();
    let root = "22 1 0:30 / / rw - overlay overlay rw\n";
    std::fs::write(at("machine/proc/self/mountinfo"), root).unwrap();
    std::fs::write(at("machine/proc/cmdline"), "root=/dev/mmcblk0p2 rw").unwrap();
    let asked = |device: &str| {
        let ran = Command::new(PACKMULE)
            .env("PACKMULE_MACHINE", at("machine"))
            .args(["board", "card", device])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        (ran.status.code(), said.into_owned())
    };
    let (status, said) = asked("/dev/mmcblk1p1");
    assert_eq!((status, &*said), (Some(0), "/dev/mmcblk1p1: a card or stick\n"));
    let (status, said) = asked("/dev/mmcblk0p2");
    assert_eq!(status, Some(1));
    has(&said, &["is on mmcblk0, which this system runs from"]);
    assert_eq!(asked("/dev/sdz1").0, Some(1));
    let rules = include_str!("../../boards/units/90-packmule.rules");
    has(rules, &["SUBSYSTEMS==\"usb|mmc\""]);
    let unit = include_str!("../../boards/units/packmule-exchange@.service");
    has(unit, &["ExecCondition=/usr/bin/packmule board card /dev/%i"]);
}
