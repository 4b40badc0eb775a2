//! What `board install` puts in place: units, the drop-ins that fit them to a database, their settings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The settings that the units read.
pub const SETTINGS: &str = "etc/default/packmule";

/// The folder that the units may write to without more.
pub const STATE: &str = "/var/lib/packmule";

/// Files of a system that runs Packmule as a service, with their text: beside the settings.
pub const FILES: &[(&str, &str)] = &[
    (
        "etc/systemd/system/packmule-serve.service",
        include_str!("../../../../boards/units/packmule-serve.service"),
    ),
    (
        "etc/systemd/system/packmule-exchange@.service",
        include_str!("../../../../boards/units/packmule-exchange@.service"),
    ),
    (
        "etc/systemd/system/packmule-run.service",
        include_str!("../../../../boards/units/packmule-run.service"),
    ),
    ("etc/udev/rules.d/90-packmule.rules", include_str!("../../../../boards/units/90-packmule.rules")),
];

/// The settings' text.
pub const SETTINGS_TEXT: &str = include_str!("../../../../boards/units/packmule.default");

/// The links that `run` keeps up: what is set there stays.
pub const LINKS: &str = "etc/packmule/packmule.toml";

/// Their text, all of which is a comment.
pub const LINKS_TEXT: &str = include_str!("../../../../boards/units/packmule.toml");

/// Where the Debian package has its units.
const PACKAGED: &[&str] = &["lib/systemd/system", "usr/lib/systemd/system"];

/// Returns whether the units of the Debian package are there: they are not written a second time.
pub fn are_packaged(root: &Path) -> bool {
    PACKAGED.iter().any(|folder| root.join(folder).join("packmule-serve.service").exists())
}

/// The units, by their names.
pub fn units() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(|(path, _)| path.strip_prefix("etc/systemd/system/"))
}

/// Returns the folder of a unit's drop-ins, below a root.
pub fn drop_ins(unit: &str) -> PathBuf {
    Path::new("etc/systemd/system").join(format!("{unit}.d"))
}

/// The drop-in of ours in that folder.
pub const DROP_IN: &str = "packmule.conf";

/// Whom the services run as, and where they write.
pub struct Place {
    /// The folder of the database, on the board.
    pub folder: String,
    /// The owner of the database: the name or number, and the number.
    pub user: (String, u32),
    /// Its group: the same.
    pub group: (String, u32),
    /// The groups that the serial lines' ports need.
    pub groups: Vec<String>,
}

impl Place {
    /// Makes the drop-in of a unit: it may write to the database's folder, and runs as its owner.
    pub fn drop_in(&self, unit: &str) -> String {
        let folder = unit_word(&self.folder);
        let mut text = format!(
            "# Made by `packmule board install`, for a database of {}; `packmule board remove` removes it.\n\
             [Unit]\nRequiresMountsFor={folder}\n\n[Service]\n",
            self.user.0
        );
        if self.folder != STATE {
            // Without the empty one, the folder of the unit itself would be given to the owner.
            text.push_str(&format!("StateDirectory=\nReadWritePaths={folder}\n"));
        }
        match self.user.1 {
            0 => {}
            uid if unit.contains('@') => {
                // Only root mounts a card; what then goes over it is the owner's alone.
                let gid = self.group.1;
                text.push_str(&format!(
                    "Environment=PACKMULE_OWNER={uid}:{gid}\n\
                     Environment=PACKMULE_OWNED=,uid={uid},gid={gid}\n\
                     Environment=\"PACKMULE_AS=setpriv --reuid={uid} --regid={gid} --clear-groups --\"\n\
                     CapabilityBoundingSet=CAP_CHOWN CAP_SETUID CAP_SETGID\n"
                ));
            }
            _ => {
                text.push_str(&format!("User={}\nGroup={}\n", self.user.0, self.group.0));
                if !self.groups.is_empty() {
                    text.push_str(&format!("SupplementaryGroups={}\n", self.groups.join(" ")));
                }
                text.push_str("CapabilityBoundingSet=\n");
            }
        }
        text
    }
}

/// Quotes a path as a unit takes it.
fn unit_word(path: &str) -> String {
    let escaped = path.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    if escaped.contains([' ', '"', '\'', '\\', ';']) { format!("\"{escaped}\"") } else { escaped }
}

/// Sets a variable in the settings; all else stays as it is.
pub fn with_variable(settings: &str, name: &str, value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:@%+,".contains(c);
    let mut word = String::new();
    for c in value.chars() {
        if "\"\\$`".contains(c) {
            word.push('\\');
        }
        word.push(c);
    }
    let line =
        if value.chars().all(plain) { format!("{name}={value}") } else { format!("{name}=\"{word}\"") };
    let is_it = |line: &str| line.trim_start().split_once('=').is_some_and(|(of, _)| of == name);
    let mut lines: Vec<&str> = settings.lines().collect();
    let at = lines.iter().position(|line| is_it(line)).unwrap_or(lines.len());
    lines.truncate(at);
    lines.push(&line);
    lines.extend(settings.lines().skip(at + 1).filter(|line| !is_it(line)));
    lines.join("\n") + "\n"
}

/// Reads a variable of the settings; nothing where it is not set.
pub fn variable(settings: &str, name: &str) -> String {
    let set = |line: &str| {
        let (of, value) = line.trim_start().split_once('=')?;
        (of == name).then(|| value.trim().to_owned())
    };
    let value = settings.lines().filter_map(set).next_back().unwrap_or_default();
    let Some(quoted) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.trim_matches('\'').to_owned();
    };
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    quoted.chars().filter(keep).collect()
}

/// Writes a file, whole or not at all.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_changed_and_all_others_stay() {
        let settings = "# a\nPACKMULE_DB=/a.db\nPACKMULE_BAUD=9600\nPACKMULE_DB=/b.db\n";
        let changed = with_variable(settings, "PACKMULE_DB", "/home/pi/my $data\".db");
        assert_eq!(changed, "# a\nPACKMULE_DB=\"/home/pi/my \\$data\\\".db\"\nPACKMULE_BAUD=9600\n");
        assert_eq!(variable(&changed, "PACKMULE_DB"), "/home/pi/my $data\".db");
        assert_eq!(variable(&changed, "PACKMULE_BAUD"), "9600");
        assert_eq!(with_variable("A=1", "B", "2"), "A=1\nB=2\n");
        assert_eq!(variable(SETTINGS_TEXT, "PACKMULE_DB"), "/var/lib/packmule/data.db");
    }

    #[test]
    fn a_path_is_one_word_of_a_unit() {
        assert_eq!(unit_word("/srv/a 100% \"b\""), "\"/srv/a 100%% \\\"b\\\"\"");
        assert_eq!(unit_word("/srv/data"), "/srv/data");
    }
}
