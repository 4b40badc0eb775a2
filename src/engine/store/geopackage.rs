//! The functions that the triggers of a GeoPackage's spatial index call: `ST_IsEmpty`, `ST_MinX` and its three sisters.
//!
//! Applications that write GeoPackages bring them along; here they read the header of the geometry's BLOB. A geometry whose
//! header carries no envelope is read as far as it is a point, which writers store without one; of another one nothing is
//! known: the bounds are NULL, as for what is no geometry.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use crate::engine::error::Result;

/// What is known of a geometry: whether it is empty, and its least and greatest x, then y.
#[derive(Debug, PartialEq)]
struct Geometry {
    empty: bool,
    bounds: Option<[f64; 4]>,
}

/// Registers the functions.
pub(crate) fn register(db: &Connection) -> Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for (at, name) in ["ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"].into_iter().enumerate() {
        db.create_scalar_function(name, 1, flags, move |context| {
            Ok(read(context.get_raw(0)).and_then(|geometry| geometry.bounds).map(|bounds| bounds[at]))
        })?;
    }
    db.create_scalar_function("ST_IsEmpty", 1, flags, |context| {
        Ok(read(context.get_raw(0)).map(|geometry| geometry.empty))
    })?;
    Ok(())
}

/// Reads the header of a geometry: `GP`, a version, flags, the number of its reference system, and the envelope; then
/// comes the geometry as well-known binary.
fn read(value: ValueRef<'_>) -> Option<Geometry> {
    let ValueRef::Blob(bytes) = value else { return None };
    let flags = *bytes.get(3).filter(|_| bytes.starts_with(b"GP"))?;
    let numbers = match flags >> 1 & 7 {
        0 => 0,
        1 => 4,
        2 | 3 => 6,
        4 => 8,
        _ => return None,
    };
    let empty = flags & 0x10 != 0;
    let bounds = if empty {
        None
    } else if numbers == 0 {
        point(bytes.get(8..)?)
    } else {
        doubles(bytes.get(8..40)?, flags & 1 == 1)
    };
    Some(Geometry { empty, bounds })
}

/// Returns the bounds of a point in well-known binary, also of one with z or m.
fn point(bytes: &[u8]) -> Option<[f64; 4]> {
    let little = *bytes.first()? == 1;
    let kind: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    let kind = if little { u32::from_le_bytes(kind) } else { u32::from_be_bytes(kind) };
    if kind % 1000 != 1 {
        return None;
    }
    let at = bytes.get(5..21)?;
    let [x, y, ..] = doubles(&[at, at].concat(), little)?;
    Some([x, x, y, y])
}

/// Reads four numbers.
fn doubles(bytes: &[u8], little: bool) -> Option<[f64; 4]> {
    let mut numbers = [0.0; 4];
    for (number, eight) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        let eight: [u8; 8] = eight.try_into().ok()?;
        *number = if little { f64::from_le_bytes(eight) } else { f64::from_be_bytes(eight) };
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a geometry of these flags, with these numbers after its header.
    fn geometry(flags: u8, rest: &[u8], numbers: &[f64]) -> Vec<u8> {
        let mut bytes = vec![b'G', b'P', 0, flags, 0, 0, 0, 0];
        bytes.extend_from_slice(rest);
        bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        bytes
    }

    #[test]
    fn the_header_says_where_it_is() {
        let of = |bytes: &[u8]| read(ValueRef::Blob(bytes));
        let square = geometry(0b11, &[], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(of(&square), Some(Geometry { empty: false, bounds: Some([1.0, 2.0, 3.0, 4.0]) }));
        let point = geometry(1, &[1, 1, 0, 0, 0], &[5.0, 6.0]);
        assert_eq!(of(&point), Some(Geometry { empty: false, bounds: Some([5.0, 5.0, 6.0, 6.0]) }));
        assert_eq!(of(&geometry(0x11, &[], &[])), Some(Geometry { empty: true, bounds: None }));
        for bytes in [&b"GP"[..], b"", b"XX\0\x01\0\0\0\0", &square[..39], &geometry(0b1011, &[], &[0.0; 8])]
        {
            assert!(of(bytes).is_none_or(|g| g.bounds.is_none()), "{bytes:?}");
        }
    }
}
