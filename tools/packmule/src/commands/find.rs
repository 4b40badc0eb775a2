//! Who is on this network: find.

use std::time::Duration;

use packmule::carry::Stop;
use packmule::carry::net::{self, Error, Found, PORT};
use packmule::{Engine, label};

use super::line::stop_on_signals;
use super::{Context, of_db, open_to_read};
use crate::documents::{FoundDevice, FoundDevices};
use crate::output::{Failure, code, say};
use crate::text::columns;
use crate::usage::flags;

/// How long answers are waited for, where nothing else is said.
const SECONDS: f64 = 2.0;

/// `packmule find`.
pub fn find(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let seconds = match args.flag(&flags::SECONDS)? {
        None => SECONDS,
        Some(text) => {
            let wrong = || args.wrong(format!("--seconds is a number up to 3600, not `{text}`"));
            text.parse().ok().filter(|s: &f64| (0.0..=3_600.0).contains(s)).ok_or_else(wrong)?
        }
    };
    let engine = if args.len() == 0 { None } else { Some(open_to_read(context)?) };
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let time = Duration::from_secs_f64(seconds);
    let found = net::find(time, PORT, &stop)
        .map_err(|e: Error| Failure::plain(e.to_string()).coded(code::CONNECTION))?;
    let ours = |found: &Found, engine: &Engine| found.is_of_ours(engine).map_err(of_db(context.args.path(0)));
    let ours: Vec<Option<bool>> = found
        .iter()
        .map(|found| engine.as_ref().map(|engine| ours(found, engine)).transpose())
        .collect::<Result<_, _>>()?;
    let out = &mut *context.out;
    let device = |(found, ours): (&Found, &Option<bool>)| FoundDevice {
        fingerprint: found.id.to_string(),
        name: found.name.clone(),
        base: found.base,
        addresses: found.served_at().iter().map(ToString::to_string).collect(),
        ours: *ours,
    };
    out.document(&FoundDevices { found: found.iter().zip(&ours).map(device).collect() });
    if found.is_empty() {
        say!(out, "nobody announces itself on this network (`serve --listen [::]:7225 --announce` does)");
    }
    for (found, ours) in found.iter().zip(&ours) {
        let what = if found.base { "a base" } else { "a device" };
        let whose = match ours {
            Some(true) => ", of this fleet",
            Some(false) => ", not of this fleet",
            None => "",
        };
        say!(out, "{}: {what}{whose}, as it says", label(found.id, Some(&found.name)));
        let rows: Vec<Vec<String>> = found.served_at().iter().map(|at| vec![format!("    {at}")]).collect();
        columns(&rows).iter().for_each(|line| out.line(line));
    }
    Ok(())
}
