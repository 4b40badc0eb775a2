//! The kinds of versions, as `_pm_head` and `_pm_stretch` have them.

use packmule_core::wire::OpKind;
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

use crate::engine::error::Error;

/// A delete, as `_pm_head` has it.
pub(crate) const DELETE: i64 = 3;

/// The kind of a version, as `_pm_head` has it, and whether it is restated.
pub(crate) struct Kind(pub OpKind, pub bool);

/// What the kind of a restated version is more.
pub(crate) const WEAK: i64 = 3;

impl ToSql for Kind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let number: i64 = match self.0 {
            OpKind::Insert => 1,
            OpKind::Update => 2,
            OpKind::Delete => DELETE,
            // A verdict without a version of its own is no head.
            OpKind::Keep => return Err(rusqlite::Error::ToSqlConversionFailure(NOT_A_VERSION.into())),
        };
        Ok((number + if self.1 { WEAK } else { 0 }).into())
    }
}

impl FromSql for Kind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            kind @ (1 | 4) => Ok(Self(OpKind::Insert, kind > WEAK)),
            kind @ (2 | 5) => Ok(Self(OpKind::Update, kind > WEAK)),
            kind @ (DELETE | 6) => Ok(Self(OpKind::Delete, kind > WEAK)),
            _ => Err(FromSqlError::other(Error::damaged("`_pm_head` has a row of an unknown kind"))),
        }
    }
}

const NOT_A_VERSION: &str = "an op that keeps is no version of its row";
