//! A decision as a document: what applications write in SQL, and programs that decide print.
//!
//! A JSON object with one of `take`, `set`, `delete`, `keep_both`, `leave`; `set` may stand beside `keep_both`. It is read by
//! SQLite, which refuses what is nested too deep.

use packmule_core::model::decode_hex;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::engine::conflicts::resolve::Resolution;
use crate::engine::error::{Error, Result};
use crate::engine::fleet::trust;
use crate::engine::store::value::{self, OwnedValue};
use crate::engine::table::replica::Replica;

/// What a document says.
#[derive(Default)]
struct Said {
    take: Option<String>,
    set: bool,
    delete: bool,
    keep_both: bool,
    leave: bool,
}

fn refused<R>(reason: impl Into<String>) -> Result<R> {
    Err(Error::cannot_resolve(reason, &[]))
}

/// Returns whose version is meant: a device's, or `newest`, `shown`, `quarantined`.
pub(crate) fn taken(replica: &Replica, whose: &str) -> Result<Resolution> {
    Ok(match whose {
        "newest" => Resolution::Newest,
        "shown" => Resolution::Shown,
        "quarantined" => Resolution::Quarantined,
        device => Resolution::Take(trust::find_device(replica, device)?),
    })
}

/// Reads a decision; `None` if it leaves the conflict to others.
///
/// # Errors
/// [`Error::CannotResolve`] with what is wrong in the document, [`Error::Device`] if no device is meant, or several.
pub(crate) fn read(replica: &Replica, document: &str) -> Result<Option<Resolution>> {
    let sql = "SELECT CASE WHEN json_valid(?1) THEN json_type(?1) END";
    let kind: Option<String> = value::maybe(&replica.db, sql, [document])?.flatten();
    match kind.as_deref() {
        Some("object") => {}
        Some(_) => return refused("a decision is a JSON object, as {\"take\": \"newest\"}"),
        None => return refused("the decision is not JSON"),
    }
    let said = said(replica, document)?;
    let values = if said.set { values(replica, document)? } else { Vec::new() };
    Ok(match (said.take, said.set, said.delete, said.keep_both, said.leave) {
        (Some(whose), false, false, false, false) => Some(taken(replica, &whose)?),
        (None, true, false, false, false) => Some(Resolution::Set(values)),
        (None, false, true, false, false) => Some(Resolution::Delete),
        (None, false, false, true, false) => Some(Resolution::KeepBoth),
        (None, true, false, true, false) => Some(Resolution::KeepBothWith(values)),
        (None, false, false, false, true) => None,
        _ => {
            return refused(
                "a decision says one of take, set, delete, keep_both, leave; set may stand beside keep_both",
            );
        }
    })
}

/// Reads the fields of a document.
fn said(replica: &Replica, document: &str) -> Result<Said> {
    let mut statement = replica.db.prepare_cached("SELECT key, type, atom FROM json_each(?1)")?;
    let mut rows = statement.query([document])?;
    let mut said = Said::default();
    while let Some(row) = rows.next()? {
        let (field, kind): (String, String) = (text(row, 0)?, row.get(1)?);
        match (&*field, &*kind) {
            ("take", "text") => said.take = Some(text(row, 2)?),
            ("set", "object") => said.set = true,
            ("delete", "true") => said.delete = true,
            ("keep_both", "true") => said.keep_both = true,
            ("leave", "true") => said.leave = true,
            ("delete" | "keep_both" | "leave", "false") => {}
            ("take", _) => {
                return refused(
                    "`take` is a device's name or fingerprint, `newest`, `shown` or `quarantined`",
                );
            }
            ("set", _) => return refused("`set` is an object: columns and their values"),
            ("delete" | "keep_both" | "leave", _) => return refused(format!("`{field}` is true or false")),
            _ => return refused(format!("a decision has no field `{}`", field.escape_debug())),
        }
    }
    Ok(said)
}

/// Reads the values of `set`, by column: a BLOB is {"hex": …}, an infinity {"real": …}, as in the list of conflicts.
fn values(replica: &Replica, document: &str) -> Result<Vec<(String, OwnedValue)>> {
    let mut statement = replica.db.prepare_cached(
        "SELECT key, type, atom, CASE type WHEN 'object' THEN json_extract(value, '$.hex') END,
           CASE type WHEN 'object' THEN json_extract(value, '$.real') END,
           CASE type WHEN 'object' THEN json_extract(value, '$.text') END
         FROM json_each(?1, '$.set')",
    )?;
    let mut rows = statement.query([document])?;
    let mut values = Vec::new();
    while let Some(row) = rows.next()? {
        let (column, kind): (String, String) = (text(row, 0)?, row.get(1)?);
        let value = match (&*kind, row.get_ref(3)?, row.get_ref(4)?) {
            ("object", ValueRef::Text(digits), _) => bytes(digits).map(|bytes| match row.get_ref(5) {
                Ok(ValueRef::Integer(1)) => OwnedValue::Text(bytes),
                _ => OwnedValue::Blob(bytes),
            }),
            ("object", _, ValueRef::Text(b"Infinity")) => Some(OwnedValue::Real(f64::INFINITY)),
            ("object", _, ValueRef::Text(b"-Infinity")) => Some(OwnedValue::Real(f64::NEG_INFINITY)),
            ("object" | "array", ..) => None,
            _ => Some(OwnedValue::of(value::from_sql(row.get_ref(2)?))?),
        };
        let Some(value) = value else {
            return refused(format!(
                "the value for `{}` is none: give a number, a text, null, or a BLOB as {{\"hex\": \"00ff\"}}",
                column.escape_debug()
            ));
        };
        values.push((column, value));
    }
    if values.is_empty() { refused("`set` names no column") } else { Ok(values) }
}

/// Reads a text of a document. Half a surrogate (`\ud800`), which SQLite lets pass, names nothing.
fn text(row: &Row<'_>, at: usize) -> Result<String> {
    let bytes = row.get_ref(at)?.as_bytes().map_err(rusqlite::Error::from)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Reads hexadecimal digits.
fn bytes(digits: &[u8]) -> Option<Vec<u8>> {
    let digits = std::str::from_utf8(digits).ok()?;
    let mut bytes = vec![0; digits.len() / 2];
    decode_hex(digits, &mut bytes).ok().map(|()| bytes)
}
