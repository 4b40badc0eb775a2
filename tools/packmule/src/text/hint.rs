//! What the library says would help, as commands of this program.

use std::path::Path;

use packmule::core::model::DeviceId;
use packmule::{Hint, Way};

use super::{now, quoted, shell_word, utc};

/// Returns the command that helps by itself, or shows more; none where it takes a sentence.
pub fn command(hint: &Hint, db: &Path) -> Option<String> {
    let db = quoted(db);
    Some(match hint {
        Hint::Track { table } => format!("packmule track {db} {}", shell_word(table)),
        Hint::Retire { device } => format!("packmule retire {db} {device}"),
        Hint::Untrack { table } => format!("packmule untrack {db} {}", shell_word(table)),
        Hint::CarryDeletes { table, per_device } => {
            let mode = if *per_device { " --mode per-device" } else { "" };
            format!("packmule track {db} {}{mode} --append --deletes carry", shell_word(table))
        }
        Hint::ShowRows { query } => format!("sqlite3 {db} {}", shell_word(query)),
        _ => return None,
    })
}

/// Says what to do about an error, as it goes on after the message; nothing where the message says all.
pub fn hint(hint: Option<Hint>, db: &Path) -> String {
    if let Some(command) = hint.as_ref().and_then(|hint| command(hint, db)) {
        return format!(": `{command}`");
    }
    let db = quoted(db);
    match hint {
        None => String::new(),
        Some(Hint::Init) => format!(": run `packmule init {db}`"),
        Some(Hint::Trust { devices }) => trust(&devices, &db),
        Some(Hint::Admit { here: true, .. }) => {
            format!("; if you know the device, run where the fleet key is:\n  packmule admit {db} --fleet FILE")
        }
        Some(Hint::Admit { .. }) => {
            "; `packmule admit`, where the fleet key is, does that with the same bundle or card".into()
        }
        Some(Hint::AdmitThere { device }) => format!(
            "; there, where the fleet key is:\n  packmule admit DB --fleet FILE --only {device}"
        ),
        Some(Hint::TrustThere { device }) => format!("; there, run:\n  packmule trust DB {device}"),
        Some(Hint::CheckTheOtherEnd) => {
            ": is `packmule serve` or `packmule sync` running at the other end, with the same --baud, and are the wires \
             crossed?"
                .into()
        }
        Some(Hint::JoinThePortsGroup) => " (`sudo usermod -aG dialout $USER`, then log in again)".into(),
        Some(Hint::FreeThePort) => {
            " (`sudo systemctl stop serial-getty@NAME` ends a login on /dev/NAME)".into()
        }
        Some(Hint::ListDevices) => format!(": `packmule devices {db}` lists them"),
        Some(Hint::ListConflicts) => format!("; see `packmule conflicts {db}`"),
        Some(Hint::Verify) => format!(": run `packmule verify {db}`, and keep a copy"),
        Some(Hint::CheckIntegrity) => format!(": run `sqlite3 {db} 'PRAGMA integrity_check'`"),
        Some(Hint::TryAgain) => "; let it finish (`--wait SECONDS` waits longer for it), or end it, and try again".into(),
        Some(Hint::TakeBack) => {
            "; it takes them back with the next `sync`, `exchange` or `import` from a device that has them: do that first"
                .into()
        }
        Some(Hint::Seal) => format!(": `packmule seal {db}` takes that in; then do this again"),
        Some(Hint::BringToSecondHistory) => {
            ". Bring a bundle from here to the second one, or sync with it".into()
        }
        Some(Hint::StartFromSnapshot) => ": `packmule join` starts from it".into(),
        Some(Hint::ImportBundle) => ": `packmule import` takes it in".into(),
        Some(Hint::ExportAgain) => "; copy or export it again".into(),
        Some(Hint::HaveItEncryptedToThis) => {
            ": have it made again after its maker has taken in a bundle of this device, or seen it on a card".into()
        }
        Some(Hint::ReadWithADevice) => ": give the database of one of them with --with".into(),
        Some(Hint::GivePassphrase) => ": give it with --passphrase-file FILE (of import, merge, inspect, verify)".into(),
        Some(Hint::Protect { path }) => format!(": run `chmod 600 {}`", quoted(&path)),
        Some(Hint::SetClock { here }) => format!("; set it: `{}`", set_clock(here)),
        Some(Hint::GiveMoreOfTheId) => ": give more of the id".into(),
        Some(Hint::Resolve(ways)) => ways_to_resolve(ways),
        Some(_) => String::new(),
    }
}

/// Returns the command that sets a clock, on any Linux: that of another device by the one here.
pub fn set_clock(here: bool) -> String {
    let right = if here { "YYYY-MM-DD hh:mm".into() } else { utc(now()) };
    format!("sudo date --utc --set '{right}'")
}

/// Says how to trust devices, after their fingerprints were compared.
fn trust(devices: &[DeviceId], db: &str) -> String {
    let mut text =
        String::from("\ncompare the fingerprint with what `packmule status` shows on that device, then run:");
    for device in devices {
        text.push_str(&format!("\n  packmule trust {db} {device}"));
    }
    text
}

fn ways_to_resolve(ways: &[Way]) -> String {
    let ways: Vec<&str> = ways
        .iter()
        .map(|way| match way {
            Way::Take => "--take DEVICE",
            Way::Set => "--set COLUMN=VALUE",
            Way::Delete => "--delete",
            Way::KeepBoth => "--keep-both",
            Way::KeepBothWith => "--keep-both --set COLUMN=VALUE",
            _ => "another way",
        })
        .collect();
    format!("; use {}", ways.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_database_as_a_shell_takes_it() {
        let db = Path::new("a b.db");
        assert_eq!(hint(Some(Hint::Init), db), ": run `packmule init 'a b.db'`");
        assert_eq!(
            hint(Some(Hint::Resolve(&[Way::Set, Way::Delete])), db),
            "; use --set COLUMN=VALUE or --delete"
        );
        assert_eq!(hint(None, db), "");
    }
}
