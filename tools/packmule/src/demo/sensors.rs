//! What this machine can measure of itself, read from the kernel's files.

use std::path::{Path, PathBuf};

/// One measurement.
pub struct Reading {
    /// What was measured.
    pub sensor: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// What this machine has.
pub struct Sensors {
    /// Temperatures and the like: a name, a file with a number, and what one unit of it is.
    files: Vec<(String, PathBuf, f64, &'static str)>,
    /// Busy and all ticks of the processors, when last looked at.
    ticks: Option<(u64, u64)>,
}

impl Sensors {
    /// Looks for what is there.
    pub fn find() -> Self {
        let mut files = Vec::new();
        for zone in entries(Path::new("/sys/class/thermal")) {
            let file = zone.join("temp");
            if file.is_file() {
                let kind = word(&zone.join("type")).unwrap_or_else(|| "thermal".into());
                files.push((format!("{kind} {}", name(&zone)), file, 0.001, "°C"));
            }
        }
        for chip in entries(Path::new("/sys/class/hwmon")) {
            let chip_name = word(&chip.join("name")).unwrap_or_else(|| name(&chip));
            for file in entries(&chip) {
                let input = name(&file);
                let (scale, unit) = match input.trim_end_matches("_input").trim_end_matches(char::is_numeric)
                {
                    "temp" => (0.001, "°C"),
                    "in" => (0.001, "V"),
                    "curr" => (0.001, "A"),
                    "power" => (0.000_001, "W"),
                    "fan" => (1.0, "rpm"),
                    _ => continue,
                };
                if input.ends_with("_input") {
                    files.push((
                        format!("{chip_name} {}", input.trim_end_matches("_input")),
                        file,
                        scale,
                        unit,
                    ));
                }
            }
        }
        let mut sensors = Self { files, ticks: None };
        sensors.read(); // The load of the processors is what changes from one look to the next.
        sensors
    }

    /// Measures all there is.
    pub fn read(&mut self) -> Vec<Reading> {
        let mut readings = Vec::new();
        let mut add = |sensor: &str, value: Option<f64>, unit| {
            if let Some(value) = value {
                readings.push(Reading { sensor: sensor.into(), value, unit });
            }
        };
        let now = ticks();
        if let (Some((busy, all)), Some((busy_before, all_before))) = (now, self.ticks) {
            let share =
                busy.saturating_sub(busy_before) as f64 / all.saturating_sub(all_before).max(1) as f64;
            add("processor load", Some((share * 1000.0).round() / 10.0), "%");
        }
        self.ticks = now;
        add("load average", first_number("/proc/loadavg"), "");
        add("memory available", memory_available(), "KiB");
        add("uptime", first_number("/proc/uptime"), "s");
        for (sensor, file, scale, unit) in &self.files {
            let raw: Option<f64> = word(file).and_then(|text| text.parse().ok());
            add(sensor, raw.map(|raw| (raw * scale * 1000.0).round() / 1000.0), unit);
        }
        readings
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn word(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn first_number(path: &str) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

fn memory_available() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok())
}

fn ticks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let counts: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let all: u64 = counts.iter().take(8).sum();
    let idle = counts.get(3)? + counts.get(4)?;
    Some((all - idle.min(all), all))
}
