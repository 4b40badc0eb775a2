//! How SQLite reads its files: what a disk cannot read is told as that.
//!
//! Where the system answers a read with EIO, SQLite's own VFS for Unix tells SQLite that the file system is damaged, and
//! SQLite says that the database is malformed. A cable or a card that fails for a moment is none of that: who believes it
//! would throw a good database away. So our connections go through a VFS that is SQLite's own in all but this: it says that
//! the read failed.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::ffi;

/// Its name.
const NAME: &CStr = c"packmule";

/// SQLite's default when the first of our connections was opened.
static BASE: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

/// The methods of a file, with those of the VFS below it behind them.
#[repr(C)]
struct Methods {
    ours: ffi::sqlite3_io_methods,
    theirs: *const ffi::sqlite3_io_methods,
}

/// The tables of methods that were made, each for one of the VFS below: a few. They are never freed.
static TABLES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Returns the VFS to open with, by its name; none where SQLite has no place for it.
pub(crate) fn name() -> Option<&'static CStr> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(register).then_some(NAME)
}

fn register() -> bool {
    // SAFETY: the default VFS lives as long as the program. What is changed is changed in a copy, which is never freed; its
    // other functions do with it what they do with the original, as they know it by `pAppData` alone.
    unsafe {
        let base = ffi::sqlite3_vfs_find(std::ptr::null());
        if base.is_null() || (*base).xOpen.is_none() {
            return false;
        }
        BASE.store(base, Ordering::Release);
        let mut ours: ffi::sqlite3_vfs = std::ptr::read(base);
        ours.pNext = std::ptr::null_mut();
        ours.zName = NAME.as_ptr();
        ours.xOpen = Some(open);
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0) == ffi::SQLITE_OK
    }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let base = BASE.load(Ordering::Acquire);
    // SAFETY: `register` has seen that there is a base and its `xOpen`; the arguments are SQLite's own. A file that is open
    // has methods.
    unsafe {
        let Some(theirs) = (*base).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = theirs(base, name, file, flags, out_flags);
        if code == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            (*file).pMethods = table_for((*file).pMethods);
        }
        code
    }
}

/// Returns the methods of files that the VFS below has opened with these.
///
/// # Safety
/// They live as long as the program, as SQLite's own do.
unsafe fn table_for(theirs: *const ffi::sqlite3_io_methods) -> *const ffi::sqlite3_io_methods {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ours)) = tables.iter().find(|(of, _)| *of == theirs as usize) {
        return *ours as *const ffi::sqlite3_io_methods;
    }
    // SAFETY: the caller's.
    let mut ours = unsafe { std::ptr::read(theirs) };
    ours.xRead = Some(read);
    let made = Box::into_raw(Box::new(Methods { ours, theirs }));
    tables.push((theirs as usize, made as usize));
    made.cast()
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, len: c_int, at: i64) -> c_int {
    // SAFETY: a file with this method has a `Methods`, from `table_for`; the arguments are SQLite's own.
    unsafe {
        let methods = (*file).pMethods.cast::<Methods>();
        let Some(theirs) = (*(*methods).theirs).xRead else { return ffi::SQLITE_IOERR_READ };
        match theirs(file, to, len, at) {
            ffi::SQLITE_IOERR_CORRUPTFS => ffi::SQLITE_IOERR_READ,
            code => code,
        }
    }
}
