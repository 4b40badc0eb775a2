//! Figures for Prometheus: `status --prometheus`, and what `serve --listen` answers at `/metrics`.

use std::path::Path;

use packmule::{DeviceInfo, Engine, LinkFigures, Missing, Status, TableHow, TrustedAs};

use crate::documents::RunState;
use crate::files::run_state;
use crate::text::prometheus::{Family, Page};
use crate::text::{advice, now};

/// Returns the page of a device's figures. `serves`: it is this process that serves, so its own figures are there too.
pub fn figures(db: &Path, engine: &Engine, serves: bool) -> packmule::Result<String> {
    let (status, devices) = (engine.status()?, engine.devices()?);
    let run = run_state::read(db);
    let hanging = run.as_ref().map(RunState::hanging).unwrap_or_default();
    let todo = advice(db, &status, &devices, &engine.not_sent()?, (&hanging, now()));
    let mut page = Page::default();
    of_device(&mut page, &status);
    let needed = todo.iter().filter(|todo| todo.person).count();
    page.gauge("packmule_person_needed", "Things that only a person can do, as status --check lists them.")
        .is(needed);
    if let Ok(file) = std::fs::metadata(db) {
        page.gauge("packmule_database_bytes", "Size of the database file.").is(file.len());
    }
    of_tables(&mut page, &status);
    of_peers(&mut page, &devices);
    of_links(&mut page, &engine.link_figures()?);
    of_run(&mut page, run.as_ref());
    if let Some(bytes) = written().filter(|_| serves) {
        let help = "Bytes that this process has caused to be written to disks.";
        page.counter("packmule_process_written_bytes_total", help).is(bytes);
    }
    Ok(page.text())
}

fn of_device(page: &mut Page, status: &Status) {
    let identity = &status.identity;
    let id = identity.id.to_string();
    let labels = [
        ("name", &identity.name[..]),
        ("fingerprint", &id),
        ("base", if identity.base { "true" } else { "false" }),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.gauge("packmule_device_info", "The device; always 1.").of(&labels, 1);
    page.gauge("packmule_log_frames", "Frames in the log.").is(status.log_frames);
    page.gauge("packmule_log_bytes", "Bytes of the frames in the log.").is(status.log_bytes);
    page.gauge("packmule_conflicts_open", "Conflicts that are open.").is(status.conflicts);
    page.gauge("packmule_groups_waiting", "Groups of frames that wait for others.").is(status.waits.len());
    let lacking = status.waits.iter().filter(|wait| matches!(wait.missing, Missing::Frames { .. })).count();
    page.gauge("packmule_groups_lacking_frames", "Of these, groups that wait for frames of another device.")
        .is(lacking);
    if let Some(off) = status.clock {
        let help = "How far this device's clock is off, as far as others show; ahead counts up.";
        page.gauge("packmule_clock_offset_seconds", help).is(seconds(off));
    }
}

fn of_tables(page: &mut Page, status: &Status) {
    let mut family =
        page.gauge("packmule_rows_waiting", "Rows of others that wait for a table; up to 1000000.");
    status.tables.iter().for_each(|table| family.of(&[("table", &table.name)], table.waiting));
    let help = "Writes to a table since the last seal; up to 1000000.";
    let mut family = page.gauge("packmule_writes_unsealed", help);
    status.tables.iter().for_each(|table| family.of(&[("table", &table.name)], table.unsealed));
    let help = "Whether a table is held: nothing of it is sealed or applied until it fits.";
    let mut family = page.gauge("packmule_table_held", help);
    for table in &status.tables {
        family.of(&[("table", &table.name)], u8::from(table.how == TableHow::Suspended));
    }
}

fn of_peers(page: &mut Page, devices: &[DeviceInfo]) {
    let Some(this) = devices.iter().find(|device| device.this) else { return };
    let counts = |device: &&DeviceInfo| {
        let trusted = matches!(device.trust, TrustedAs::Singly | TrustedAs::ByFleet);
        trusted && !device.retired && !device.revoked
    };
    let peers: Vec<&DeviceInfo> = devices.iter().filter(counts).collect();
    let help = "Frames of this device that a peer has not acknowledged.";
    let mut family = page.gauge("packmule_peer_unacknowledged_frames", help);
    for peer in &peers {
        // The rows of per-device tables go to bases alone.
        let due = this.shared + if peer.base { this.own } else { 0 };
        of_peer(&mut family, peer, due.saturating_sub(peer.acknowledged));
    }
    let help = "When a peer last said what it has, by this device's clock.";
    let mut family = page.gauge("packmule_peer_heard_timestamp_seconds", help);
    for (peer, heard) in peers.iter().filter_map(|peer| Some((peer, peer.heard?))) {
        of_peer(&mut family, peer, seconds(heard));
    }
}

fn of_peer(family: &mut Family<'_>, peer: &DeviceInfo, value: impl std::fmt::Display) {
    let id = peer.id.to_string();
    family.of(&[("peer", peer.name.as_deref().unwrap_or_default()), ("fingerprint", &id)], value);
}

/// A figure of a link.
type OfLink = fn(&LinkFigures) -> u64;

fn of_links(page: &mut Page, links: &[LinkFigures]) {
    let ids: Vec<String> = links.iter().map(|link| link.peer.to_string()).collect();
    let labels = |n: usize| {
        let link = &links[n];
        [
            ("peer", link.name.as_deref().unwrap_or_default()),
            ("fingerprint", &ids[n][..]),
            ("link", &link.link[..]),
        ]
    };
    let help = "When this device and a peer were last in step over a kind of link, by this device's clock.";
    let mut family = page.gauge("packmule_link_in_step_timestamp_seconds", help);
    for (n, at) in links.iter().enumerate().filter_map(|(n, link)| Some((n, link.in_step?))) {
        family.of(&labels(n), seconds(at));
    }
    let help = "Bytes of frames a second, both ways together, when some last went over a link.";
    let mut family = page.gauge("packmule_link_goodput_bytes_per_second", help);
    links.iter().enumerate().for_each(|(n, link)| family.of(&labels(n), link.goodput));
    let counters: [(&str, &str, OfLink); 3] = [
        ("packmule_link_sessions_total", "Sessions with a peer over a kind of link.", |link| link.sessions),
        ("packmule_link_sent_bytes_total", "Bytes of frames and states sent over a link.", |link| link.sent),
        ("packmule_link_received_bytes_total", "Bytes of frames and states received over a link.", |link| {
            link.received
        }),
    ];
    for (name, help, value) in counters {
        let mut family = page.counter(name, help);
        links.iter().enumerate().for_each(|(n, link)| family.of(&labels(n), value(link)));
    }
    let of_lines: [(&str, &str, OfLink); 2] = [
        (
            "packmule_link_corrected_bytes_total",
            "Bytes that a serial line got wrong and that were corrected.",
            |link| link.corrected,
        ),
        (
            "packmule_link_lost_packets_total",
            "Packets that a serial line lost or damaged beyond correction.",
            |link| link.lost,
        ),
    ];
    for (name, help, value) in of_lines {
        let mut family = page.counter(name, help);
        let lines = links.iter().enumerate().filter(|(_, link)| link.link == "serial");
        lines.for_each(|(n, link)| family.of(&labels(n), value(link)));
    }
}

fn of_run(page: &mut Page, run: Option<&RunState>) {
    let running = run.is_some_and(|run| run.running);
    page.gauge("packmule_run_running", "Whether `packmule run` keeps links up.").is(u8::from(running));
    let links = || run.iter().flat_map(|run| &run.links);
    let help = "Whether a link or upkeep of `packmule run` hangs.";
    let mut family = page.gauge("packmule_run_link_stuck", help);
    links().for_each(|link| family.of(&[("link", &link.link)], u8::from(running && link.is_stuck())));
    let help = "How often a link or upkeep of `packmule run` has failed since it was well.";
    let mut family = page.gauge("packmule_run_link_failures", help);
    links().for_each(|link| family.of(&[("link", &link.link)], link.failures));
}

/// Returns milliseconds as seconds.
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// Returns how many bytes this process has caused to be written, where the system tells.
fn written() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}
