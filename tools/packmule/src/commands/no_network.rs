//! What stands in for networks where the program is built without its feature `net`.

use std::path::Path;
use std::sync::mpsc::Sender;

use packmule::carry::Stop;

use super::Context;
use super::changes::Change;
use crate::output::Failure;
use crate::usage::flags;

fn without() -> Failure {
    Failure::plain(
        "this program was built without networks (its feature `net`): serial lines and cards are there",
    )
}

/// `packmule sync DB ADDRESS`.
pub fn sync(_: &mut Context<'_, '_>, _: &str) -> Result<(), Failure> {
    Err(without())
}

/// `packmule serve DB --stdio`.
pub fn serve_stdio(_: &mut Context<'_, '_>) -> Result<(), Failure> {
    Err(without())
}

/// `packmule find`.
pub fn find(_: &mut Context<'_, '_>) -> Result<(), Failure> {
    Err(without())
}

/// A port that `serve` listens on: none.
pub struct Port;

impl Port {
    /// Refuses `--listen`.
    pub fn of(context: &Context<'_, '_>, _: &Stop) -> Result<Option<Self>, Failure> {
        if context.args.has(&flags::LISTEN) { Err(without()) } else { Ok(None) }
    }

    /// Does nothing.
    pub fn serve(&self, _: &Path, _: Sender<Change>, _: &Stop) {}
}
