//! The file: the connection, our own tables in it, keys beside it, values between SQLite and the wire.
//!
//! May import nothing of the engine but its errors.
//!
//! | file | what it does |
//! |---|---|
//! | `beginning` | how a file begins that may be open as a database |
//! | `cipher` | what encrypts bundles, and the fleet key where it has a passphrase |
//! | `connection` | how a database is opened; `Options` |
//! | `decrypt`, `encrypt` | a bundle that may be encrypted, read and written |
//! | `functions` | our own SQL functions |
//! | `geopackage` | the functions that a GeoPackage's spatial index calls |
//! | `json` | how the reports look when they are serialised |
//! | `json_text` | JSON as text, for what applications read in SQL |
//! | `keys` | secret keys, in files of their own |
//! | `layout` | the `_pm_` tables, and how an older layout is migrated |
//! | `listing` | the view `packmule_conflicts`, and what notes which conflicts changed |
//! | `meta` | single values, and notices for people |
//! | `key_list` | lists of keys for the time of a loop |
//! | `temporary` | the TEMP tables that every connection has which writes |
//! | `value` | values of SQLite, bound and read; names and literals quoted |
//! | `vfs` | what a disk cannot read is told as that |

pub(crate) mod beginning;
pub(crate) mod cipher;
pub(crate) mod connection;
pub(crate) mod decrypt;
pub(crate) mod encrypt;
// Lies with the tests; here, since every room that reads something may import this one.
pub(crate) mod functions;
#[cfg(test)]
#[path = "../../../tests/fuzz/targets.rs"]
#[allow(clippy::expect_used, clippy::panic)]
pub(crate) mod fuzz_targets;
mod geopackage;
#[cfg(feature = "serde")]
pub(crate) mod json;
pub(crate) mod json_text;
pub(crate) mod key_list;
pub(crate) mod keys;
pub(crate) mod layout;
pub(crate) mod listing;
pub(crate) mod meta;
pub(crate) mod temporary;
pub(crate) mod value;
pub(crate) mod vfs;
