//! Time taken: by the wall, and of it by this thread on a processor.

use std::time::Instant;

/// What something took, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// By the wall, waiting for the disk included.
    pub wall: f64,
    /// On a processor; the same as `wall` where the system does not say.
    pub cpu: f64,
}

/// Times `work`.
pub fn timed<R>(work: impl FnOnce() -> R) -> (Sample, R) {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let result = work();
    let wall = start.elapsed().as_secs_f64();
    let cpu = match (cpu, cpu_seconds()) {
        (Some(before), Some(after)) => after - before,
        _ => wall,
    };
    (Sample { wall, cpu }, result)
}

/// Returns how long the one thread of this program has had a processor.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

/// Returns the middle one; of an even number, the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
