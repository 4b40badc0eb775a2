//! Our own SQL functions, on our own connections alone: applications load no extension.

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};

use crate::engine::error::Result;
use crate::engine::store::geopackage;

/// The bits that any of its arguments has.
struct Or;

impl Aggregate<i64, i64> for Or {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<i64> {
        Ok(0)
    }

    fn step(&self, context: &mut Context<'_>, bits: &mut i64) -> rusqlite::Result<()> {
        *bits |= context.get::<Option<i64>>(0)?.unwrap_or(0);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, bits: Option<i64>) -> rusqlite::Result<i64> {
        Ok(bits.unwrap_or(0))
    }
}

/// A sum of integers that wraps around, as counters do.
struct WrappingSum;

impl Aggregate<i64, i64> for WrappingSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<i64> {
        Ok(0)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut i64) -> rusqlite::Result<()> {
        *sum = sum.wrapping_add(context.get::<Option<i64>>(0).ok().flatten().unwrap_or(0));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<i64>) -> rusqlite::Result<i64> {
        Ok(sum.unwrap_or(0))
    }
}

/// Registers `_pm_add(a, b)`, which wraps around, and the aggregates `_pm_or` and `_pm_sum`, by which a seal makes
/// one entry of all that the list of changes has for a row.
pub(crate) fn register_functions(db: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("_pm_add", 2, flags, |context| {
        let number = |at| context.get::<i64>(at).unwrap_or(0);
        Ok(number(0).wrapping_add(number(1)))
    })?;
    db.create_aggregate_function("_pm_or", 1, flags, Or)?;
    db.create_aggregate_function("_pm_sum", 1, flags, WrappingSum)?;
    geopackage::register(db)
}
