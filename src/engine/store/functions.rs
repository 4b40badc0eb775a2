//! Our own SQL functions, on our own connections alone: applications load no extension.

use packmule_core::model::Value;
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};

use crate::engine::error::Result;
use crate::engine::store::geopackage;
use crate::engine::store::value::{self, OwnedValue};

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

/// The second argument of the call with the least first one.
struct First;

impl Aggregate<Option<(i64, OwnedValue)>, OwnedValue> for First {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Option<(i64, OwnedValue)>> {
        Ok(None)
    }

    fn step(&self, context: &mut Context<'_>, first: &mut Option<(i64, OwnedValue)>) -> rusqlite::Result<()> {
        let at = context.get(0)?;
        if first.as_ref().is_none_or(|(before, _)| at < *before) {
            let value = OwnedValue::of(value::from_sql(context.get_raw(1)));
            *first = Some((at, value.map_err(|e| rusqlite::Error::UserFunctionError(e.into()))?));
        }
        Ok(())
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        first: Option<Option<(i64, OwnedValue)>>,
    ) -> rusqlite::Result<OwnedValue> {
        Ok(first.flatten().map_or(OwnedValue::Null, |(_, value)| value))
    }
}

/// Registers the aggregates `_pm_or` and `_pm_first(place, value)`, by which a seal makes one entry of all that the list
/// of changes has for a row; `_pm_key(integer)`, the canonical key that is this integer; and the functions of a GeoPackage.
pub(crate) fn register_functions(db: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_aggregate_function("_pm_or", 1, flags, Or)?;
    db.create_aggregate_function("_pm_first", 2, flags, First)?;
    db.create_scalar_function("_pm_key", 1, flags, |context| {
        value::encode(&Value::Int(context.get(0)?)).map_err(|e| rusqlite::Error::UserFunctionError(e.into()))
    })?;
    geopackage::register(db)
}
