//! Making a database a device, and opening it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use ed25519_compact::SecretKey;
use packmule_core::model::{DeviceId, is_unseen};
use rusqlite::{Connection, OpenFlags};

use crate::engine::error::{Error, Result};
use crate::engine::fleet::devices;
use crate::engine::fleet::succession;
use crate::engine::store::connection::{self, Options, Steps};
use crate::engine::store::keys::{self, FleetKey};
use crate::engine::store::layout;
use crate::engine::store::{listing, temporary};
use crate::engine::table::catalog;
use crate::engine::table::coding::Codings;
use crate::engine::table::known::Catalog;
use crate::engine::table::probe::Probe;
use crate::engine::table::replica::Replica;
use crate::engine::table::route::Route;
use crate::engine::table::stretch::Stretches;
use crate::engine::table::trial::Trials;

/// What `init` makes of a database.
#[derive(Clone, Copy)]
pub struct InitOptions<'a> {
    /// The name that people see: 1 to 64 bytes, without control characters.
    pub name: &'a str,
    /// The device gathers the rows of per-device tables.
    pub base: bool,
    /// The key of its fleet, which signs its certificate.
    pub fleet: Option<&'a FleetKey>,
}

/// Refuses a name that people could not read, or not tell from another one.
pub(crate) fn refuse_unreadable(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 64 || name.chars().any(is_unseen) || name.trim() != name {
        return Err(Error::Usage(format!(
            "a device's name is 1 to 64 bytes without control or invisible characters, nor spaces at its ends: `{}` is not",
            name.escape_debug()
        ))
        .into());
    }
    Ok(())
}

/// Makes a database a device, and opens it.
pub(crate) fn init_with(path: &Path, init: &InitOptions<'_>, options: Options) -> Result<Replica> {
    refuse_unreadable(init.name)?;
    let fresh = !path.exists();
    let db = connection::open_connection(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        &options,
    )?;
    if fresh {
        db.execute_batch(&format!("PRAGMA page_size = {}", options.page_bytes))?;
    }
    let made = make_device(&db, path, init, options.random);
    if made.is_err() {
        connection::roll_back(&db);
        if fresh {
            drop(db);
            let _ = std::fs::remove_file(path);
        }
    }
    made?;
    open_as(path, options, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Makes the `_pm_` tables and the identity in one transaction, and the key file before its commit.
fn make_device(
    db: &Connection,
    path: &Path,
    init: &InitOptions<'_>,
    random: fn(&mut [u8; 32]) -> std::io::Result<()>,
) -> Result<()> {
    if layout::present(db)? {
        let identity = devices::identity(db)?.1;
        return Err(Error::AlreadyADevice { device: identity.id, name: identity.name }.into());
    }
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    db.execute_batch("BEGIN IMMEDIATE")?;
    layout::create(db)?;
    let database = std::fs::canonicalize(path).map_err(Error::io("find", path))?;
    // Only what is in the database makes it a device: until then the key has another name, and
    // one that a power cut left behind is nobody's.
    let key_path = keys::device_key_path(&database);
    if key_path.exists() {
        return Err(Error::Replaced { key: key_path }.into());
    }
    let new_key_path = keys::new_key_path(&key_path);
    match std::fs::remove_file(&new_key_path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove what is left of an earlier `init`,", new_key_path)(e));
        }
        _ => {}
    }
    let key = keys::new_device_key(&new_key_path, random)?;
    let write = || -> Result<()> {
        let (issuer, fleet) = (init.fleet.map(|f| &f.0), init.fleet.map(FleetKey::public_key));
        devices::become_device(db, &key, (init.name, init.base), issuer, fleet)?;
        init.fleet.map_or(Ok(()), |fleet| succession::keep_all(db, fleet))?;
        db.execute_batch("COMMIT")?;
        Ok(())
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&new_key_path);
    }
    written
}

/// Opens another device's database, of which nothing is changed, nor a file made beside it where that can be helped.
pub(crate) fn open_source(path: &Path, options: Options) -> Result<Replica> {
    let path = std::fs::canonicalize(path).map_err(Error::io("open", path))?;
    let mut db = if connection::is_quiet_wal(&path) {
        connection::open_unchanging(&path, &options)?
    } else {
        connection_to_read(&path, &options)?
    };
    let steps = connection::limit_reading(&mut db, &path)?;
    // Its key is its own: nothing is signed in its name.
    replica_of(db, (path, options, steps), |_, _| Ok(None))
}

/// Opens a connection that only reads, also where nothing can be written.
fn connection_to_read(path: &Path, options: &Options) -> Result<Connection> {
    match connection::open_connection(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options) {
        // In WAL mode, even reading makes a file beside the database.
        Err(e) if e.needs_to_write() => connection::open_unchanging(path, options),
        db => db,
    }
}

/// Opens a device; read-only also where nothing can be written.
pub(crate) fn open_as(path: &Path, options: Options, flags: OpenFlags) -> Result<Replica> {
    if !(1024..=packmule_core::wire::FRAME_MAX).contains(&options.frame_bytes) {
        return Err(Error::Usage("a frame has 1,024 to 65,536 bytes".into()).into());
    }
    let path = std::fs::canonicalize(path).map_err(Error::io("open", path))?;
    let read_only = flags == OpenFlags::SQLITE_OPEN_READ_ONLY;
    let mut db = if read_only {
        connection_to_read(&path, &options)?
    } else {
        connection::open_connection(&path, flags, &options)?
    };
    let steps = if read_only { connection::limit_reading(&mut db, &path)? } else { Steps::default() };
    let key = |path: &Path, id| match key_of(path, id) {
        // Who only looks signs nothing.
        Err(e) if read_only && matches!(*e, Error::KeyDenied { .. }) => Ok(None),
        key => key,
    };
    let replica = replica_of(db, (path, options, steps), key)?;
    if !read_only && replica.can_sign() {
        keys::remove_old_key(&replica.path);
    }
    Ok(replica)
}

/// Opens the file that is now in the place of a database, with the options of before. Where that fails, nothing is changed.
pub(crate) fn open_again(replica: &mut Replica) -> Result<()> {
    let path = std::fs::canonicalize(&replica.path).map_err(Error::io("open", &replica.path))?;
    let db = connection::open_connection(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, &replica.options)?;
    let mut anew = replica_of(db, (path, Options::default(), Steps::default()), key_of)?;
    std::mem::swap(&mut anew.options, &mut replica.options);
    *replica = anew;
    Ok(())
}

/// Reads the secret key of a device beside its database, if it is there.
fn key_of(path: &Path, id: DeviceId) -> Result<Option<SecretKey>> {
    let key_path = keys::find_device_key(path, id)?;
    let key = if key_path.exists() { Some(keys::read_device_key(&key_path)?) } else { None };
    if key.as_ref().is_some_and(|key| DeviceId::of_key(&key.public_key()) != id) {
        return Err(
            Error::KeyMissing { path: key_path, reason: "is the key of another device".into() }.into()
        );
    }
    Ok(key)
}

/// Makes the open database of a device of a connection to it.
fn replica_of(
    mut db: Connection,
    (path, options, steps): (PathBuf, Options, Steps),
    key: impl FnOnce(&Path, DeviceId) -> Result<Option<SecretKey>>,
) -> Result<Replica> {
    let probe = Probe::of(&mut db)?;
    if !layout::present(&db)? {
        let key = keys::device_key_path(&path);
        return Err(if key.exists() { Error::Replaced { key }.into() } else { Error::NotADevice.into() });
    }
    layout::make_views(&db)?;
    // Also where nothing may be written: what would write is refused as that, and not for want of a table.
    temporary::make(&db)?;
    if !db.is_readonly(rusqlite::MAIN_DB)? {
        listing::watch(&db)?;
    }
    let (me, identity) = devices::identity(&db)?;
    let key = key(&path, identity.id)?;
    let catalog = RefCell::new(Catalog::default());
    let triggers = RefCell::default();
    let replica = Replica {
        db,
        file: connection::file_id(&path),
        path,
        key,
        identity,
        me,
        options,
        catalog,
        triggers,
        probe,
        opened: RefCell::default(),
        codings: Codings::default(),
        stretches: Stretches::default(),
        fresh: RefCell::default(),
        bare: RefCell::default(),
        quarantined: true.into(),
        applying: None.into(),
        route: Route::File.into(),
        trials: Trials::default(),
        steps,
        poisoned: false,
        carrying: RefCell::default(),
        maker_tables: RefCell::default(),
        carried: RefCell::default(),
    };
    catalog::load_catalog(&replica)?;
    Ok(replica)
}
