//! Taking in: import, merge.

use super::decide::decide_by_programs;
use super::intake::Intake;
use super::{Context, open, say_left_out};
use crate::files::passphrase;
use crate::output::Failure;

/// `packmule import`.
pub fn import(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    take_in(context, false)
}

/// `packmule merge`.
pub fn merge(context: &mut Context<'_, '_>) -> Result<(), Failure> {
    take_in(context, true)
}

fn take_in(context: &mut Context<'_, '_>, databases: bool) -> Result<(), Failure> {
    let passphrase = passphrase::given(&context.args)?;
    let mut engine = open(context)?;
    let mut intake = Intake::new(context.args.path(0), &mut engine, databases, passphrase);
    intake.take_in(&context.args.paths(1))?;
    intake.report(context.out)?;
    decide_by_programs(context, &mut engine);
    say_left_out(context, &engine);
    Ok(())
}
