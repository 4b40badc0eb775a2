//! Packmule keeps SQLite databases in step where there is no network: on boards that reach each other by
//! a file that somebody carries or by a serial cable, and at a base station that merges what they bring.
//!
//! Applications write to their tables with whatever SQLite library they have. Plain triggers note which
//! rows changed; [`Engine::seal`] turns them into signed frames, [`Engine::export`] writes the frames that
//! a peer lacks to any stream, and [`Engine::import`] verifies them, applies them in causal order and
//! keeps every concurrent write: what cannot be merged by a rule is listed by [`Engine::conflicts`], with
//! all its versions, until [`Engine::resolve`] closes it. Every device then has the same tables.
//!
//! # Layers
//! From the outside in. Each uses those below it, and none above.
//!
//! | layer | what it does | who should use it |
//! |---|---|---|
//! | the program `packmule` | all of this by commands, on a board and on the host | everybody who need not link a library: `tools/packmule` |
//! | [`carry`] | takes frames there and back: [`carry::card`], [`carry::serial`], [`carry::net`] (ten lines of Rust), and [`carry::session`] over a stream of your own; [`carry::keep`] does it in the background | an application that syncs by itself |
//! | [`Engine`] | one database: track, seal, export, import, conflicts, resolve | an application that carries bundles in its own way |
//! | [`core`] | frames, certificates, merge rules, the serial link, the session, without `std` or allocation | firmware; whoever reads or writes the format |
//!
//! An application that only reads and writes its tables uses none of them.
//!
//! # Pages
//! [`docs::design`] says why all devices end alike, [`docs::conflicts`] has an example of each kind of
//! conflict, [`mod@docs::format`] is the format byte by byte, [`docs::security`] says what is defended and what is
//! not, [`docs::glossary`] what the words mean, [`docs::json`] what the program prints, [`docs::contributing`] how to change the code.
//!
//! # Depending on it
//! A program can have one `libsqlite3-sys` alone (`links = "sqlite3"`), so the application's `rusqlite` and ours must
//! be of one version. Use `packmule::rusqlite`, which is re-exported here, or ask for a version in our range (`Cargo.toml`
//! names it; CI builds both of its ends). An application that is bound to another version runs the program
//! `packmule` beside it in place of the library: it needs nothing but the database file.
//!
//! | feature | what it adds |
//! |---|---|
//! | `bundled` (default) | SQLite itself, compiled in; without it the system's is linked, 3.43 or later |
//! | `serial` (default) | [`carry::serial`]: sessions over a serial line, on Unix |
//! | `net` (default) | [`carry::net`]: sessions over a network or the pipes of another program, on Unix |
//! | `serde` | the reports implement `serde::Serialize` |
//!
//! # Example
//! ```
//! use std::io::Cursor;
//! use packmule::{Engine, FleetKey, InitOptions, Recipient, Resolution, TrackOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! // The devices of a fleet trust each other.
//! let fleet = FleetKey::create(&dir.path().join("fleet.key"))?;
//! let device = |name: &str, base| {
//!     let options = InitOptions { name, base, fleet: Some(&fleet) };
//!     Engine::init(&dir.path().join(format!("{name}.db")), &options)
//! };
//! let (mut north, mut base) = (device("north", false)?, device("base", true)?);
//!
//! // An ordinary connection: the application need know nothing of Packmule.
//! north.connection()?.execute_batch(
//!     "CREATE TABLE settings (key TEXT PRIMARY KEY, value);
//!      INSERT INTO settings VALUES ('interval', 60)",
//! )?;
//! north.track("settings", &TrackOptions::default())?;
//!
//! // What is written to the bundle seals first; a file, a cable or a Vec carries it.
//! fn carry(from: &mut Engine, to: &mut Engine) -> packmule::Result<u64> {
//!     let mut bundle = Vec::new();
//!     from.export(&mut bundle, Recipient::Device(to.identity().id))?;
//!     Ok(to.import(&mut Cursor::new(bundle), &mut |_| ())?.conflicts_opened)
//! }
//! carry(&mut north, &mut base)?;
//!
//! // Both write to one row before they meet again: one is shown, both are kept.
//! north.connection()?.execute("UPDATE settings SET value = 30", [])?;
//! base.connection()?.execute("UPDATE settings SET value = 10", [])?;
//! assert_eq!(carry(&mut north, &mut base)?, 1);
//! let open = base.conflicts()?;
//! assert_eq!(open[0].versions.len(), 2);
//! base.resolve(&open[0].id, &Resolution::Take(north.identity().id))?;
//! carry(&mut base, &mut north)?;
//!
//! let value: i64 = base.connection()?.query_row("SELECT value FROM settings", [], |row| row.get(0))?;
//! assert_eq!(value, 30);
//! assert_eq!(base.digest(false)?, north.digest(false)?);
//! # Ok(())
//! # }
//! ```
pub use packmule_core as core;
/// The version of it that this library was built with: an application must not have another.
pub use rusqlite;

pub mod carry;
pub mod docs;
mod engine;

pub use engine::*;
