//! `packmule demo`: stub.
use crate::{Context, failure::Failure};
pub fn demo(_: &mut Context<'_, '_>) -> Result<(), Failure> {
    Ok(())
}
