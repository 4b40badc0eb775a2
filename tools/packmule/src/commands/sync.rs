//! Over a serial line or a network, until both ends have everything: sync.

use std::path::{Path, PathBuf};
use std::time::Instant;

use packmule::carry::Stop;
use packmule::carry::serial::{self, Options, Status};
use packmule::label;

use super::line::{Over, away, draw, failure, line_options, patience, say_synced, stop_on_signals};
use super::{Context, network, open};
use crate::output::{Bar, Failure};
use crate::text::{number, shown};
use crate::usage::flags;

/// `packmule sync`.
pub fn sync(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    let args = &context.args;
    let address = args.text(1)?.to_owned();
    let port = match (args.flag_path(&flags::SERIAL), address.strip_prefix("serial:")) {
        (Some(_), _) if !address.is_empty() => {
            return Err(args.wrong("--serial names a port, and so does the address: one of them").into());
        }
        (Some(port), _) => port.to_path_buf(),
        (None, Some(port)) if !port.is_empty() => PathBuf::from(port),
        (None, None) if !address.is_empty() => return network::sync(context, &address),
        _ => return Err(args.wrong("--serial is missing: it names the port; or an address").into()),
    };
    over_line(context, &port)
}

fn over_line(context: &mut Context<'_, '_>, port: &Path) -> Result<(), Failure> {
    let mut options = line_options(context, port)?;
    options.patience = patience(&context.args)?;
    let mut engine = open(context)?;
    let stop = Stop::default();
    stop_on_signals(&stop)?;
    let begun = Instant::now();
    let mut watch = Watch::new(&options, context.out.verbose);
    let result = serial::sync(&mut engine, &options, &stop, &mut |status| watch.show(&status));
    watch.bar.clear();
    let done = result.map_err(|e| failure(port, context.args.path(0), e))?;
    let over = Over::Line(shown(port), watch.baud);
    say_synced(context, &mut engine, (&done, begun), over, (watch.peer, watch.fingerprint))
}

/// What the session reports on its way.
struct Watch {
    bar: Bar,
    first: u32,
    baud: u32,
    peer: Option<String>,
    fingerprint: Option<String>,
}

impl Watch {
    fn new(options: &Options, stays: bool) -> Self {
        let bar = Bar::new(shown(&options.path), stays);
        Self { bar, first: options.baud, baud: options.baud, peer: None, fingerprint: None }
    }

    fn show(&mut self, status: &Status<'_>) {
        match status {
            Status::Open => {
                self.bar.say(&format!("waiting for the other end at {} baud", number(self.first.into())));
            }
            Status::Away(e) => self.bar.say(&away(e)),
            Status::Met { id, name } => {
                let called = label(*id, Some(name));
                self.bar.say(&format!("connected to {called}"));
                (self.peer, self.fingerprint) = (Some(called), Some(id.to_string()));
            }
            Status::Baud(rate) => {
                self.baud = *rate;
                self.bar.say(&format!("the line runs at {} baud now", number((*rate).into())));
            }
            Status::Silent => self.bar.say("the other end is not heard; waiting"),
            Status::Heard => self.bar.say("the other end is heard again"),
            Status::Moving(progress) => draw(&mut self.bar, progress),
            Status::Failed(e) => self.bar.say(&format!("{e}; beginning again")),
            _ => {}
        }
    }
}
