//! Sentences that several commands print.

use std::io;
use std::path::Path;

use packmule::core::model::Stream;
use packmule::{GatheredApart, ImportReport, Missing, SaidBy, Wait};

use super::{count, iso, plural, quoted};

/// Says what a group of frames waits for.
pub fn waiting(wait: &Wait) -> String {
    let author = &wait.author;
    let frames = range(wait.frames.0, wait.frames.1);
    let one = wait.frames.0 == wait.frames.1;
    let (waits, set_aside) = if one { ("waits", "is set aside") } else { ("wait", "are set aside") };
    match &wait.missing {
        Missing::Frames { of, up_to } => format!(
            "{frames} of {author} {waits} for frames of {of} up to {up_to}, since {}:\n  \
             they come with the next card, bundle or session of whoever has them",
            iso(wait.since)
        ),
        Missing::Vouching => format!(
            "{frames} of {author} {set_aside}: it is revoked, and no other device says that it had taken them in before"
        ),
        Missing::Certificate => format!(
            "a bundle of {author} waits for its certificate, which this device has once said it has: was it\n  \
             restored from a backup? The next bundle or session from here tells {author}, and all of it comes again"
        ),
        Missing::Newer => format!(
            "{frames} of {author} {waits} for a newer Packmule here, since {}:\n  \
             this one cannot read what was written there; all else goes on",
            iso(wait.since)
        ),
        Missing::Unreadable { reason } => format!("{frames} of {author} {set_aside}: {reason}"),
        missing => format!("{frames} of {author} {waits} for {}", missing_words(missing)),
    }
}

/// Names what a group lacks.
pub fn missing_words(missing: &Missing) -> String {
    match missing {
        Missing::Frames { of, .. } => of.clone(),
        Missing::OtherPart { of, .. } => format!("{of} (the other part of the same seal)"),
        Missing::Certificate => "the certificate of its author".into(),
        Missing::Newer => "a newer Packmule here".into(),
        Missing::Vouching => "set aside, since it is revoked".into(),
        Missing::Unreadable { .. } => "set aside, since it cannot be applied".into(),
        _ => "what this version does not know".into(),
    }
}

/// Names who says that a device is revoked or retired.
pub fn said_by(by: &SaidBy) -> String {
    match by {
        SaidBy::Fleet => "by the fleet key".into(),
        SaidBy::Here => "here alone".into(),
        SaidBy::Device(device) => format!("by {device}"),
        SaidBy::Issuer(issuer) => format!("since {issuer} is, which vouches for it"),
        _ => "by what this version does not know".into(),
    }
}

/// Says how many frames of a revoked device are set aside.
pub fn set_aside(frames: u64) -> String {
    if frames == 0 { String::new() } else { format!("; {} of it set aside", count(frames, "frame")) }
}

/// Says where rows stand that went into a table of another name than theirs.
pub fn gathered_apart(of: &GatheredApart) -> String {
    let GatheredApart { table, gathered_in, ops, .. } = of;
    format!(
        "{} of other devices' `{table}` applied in `{gathered_in}`: the `{table}` of this database has its own rows",
        count(*ops, "row")
    )
}

/// Says of an import what does not stand where people look for it: rows gathered apart, rows that wait.
pub fn elsewhere(report: &ImportReport, db: &Path) -> Vec<String> {
    let mut lines: Vec<String> = report.gathered_apart.iter().map(gathered_apart).collect();
    if report.ops_waiting > 0 {
        lines.push(format!(
            "{} for a table or a column that is not here: `packmule status {}` says which",
            plural(report.ops_waiting, "row waits", "rows wait"),
            quoted(db)
        ));
    }
    for of in &report.waiting_for {
        lines.push(format!("  {} for `{}`:\n    {}", count(of.ops, "row"), of.table, of.why));
    }
    lines
}

/// Says what to do for a device that lacks frames which are compacted away here.
pub fn behind(whom: &str, db: &Path) -> String {
    format!(
        "{whom} lacks frames that are compacted away here: a card or a file brings it the state of the tables; run \
         `packmule export {} FILE --for {}` here, and `packmule import` with that file there",
        quoted(db),
        quoted(Path::new(whom))
    )
}

/// Says how many conflicts are open, and which command lists them; says nothing where none is.
pub fn conflicts_open(open: u64, db: &Path) -> Option<String> {
    let these = plural(open, "conflict is open", "conflicts are open");
    (open > 0).then(|| format!("{these}: `packmule conflicts {}` lists every version", quoted(db)))
}

/// Names frames by their numbers.
pub fn range(first: u64, last: u64) -> String {
    if first == last { format!("frame {first}") } else { format!("frames {first} to {last}") }
}

/// Names a stream.
pub fn stream(stream: Stream) -> &'static str {
    match stream {
        Stream::Shared => "shared",
        Stream::PerDevice => "per-device",
    }
}

/// Returns the system's reason, without its number.
pub fn io_text(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::FileTooLarge {
        return "no file may become so large there: a limit (`ulimit -f` shows it), or a file system that takes 4 GiB, as FAT"
            .into();
    }
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // Not of a name or an abbreviation.
        Some(first) if letters.clone().next().is_some_and(|second| second.is_lowercase()) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// Returns the system's reason why a file cannot be read or written; of one that the hardware gives, what it is and what says more.
pub fn file_text(e: &io::Error) -> String {
    let fails = e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    let more = if fails { ": the disk or card fails, or was pulled out (`dmesg` says more)" } else { "" };
    io_text(e) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_hardware_cannot_read_is_no_mystery() {
        let of = |e: rustix::io::Errno| io::Error::from_raw_os_error(e.raw_os_error());
        let told = file_text(&of(rustix::io::Errno::IO));
        assert_eq!(told, "input/output error: the disk or card fails, or was pulled out (`dmesg` says more)");
        assert_eq!(file_text(&of(rustix::io::Errno::NOSPC)), "no space left on device", "the control");
    }
}
