//! SQLite's allocator, which can be refused memory once.
//!
//! It is SQLite's own, with a count in front of it. It has no lock: SQLite allocates while the disk is held.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::ffi;

use super::Fault;

static COUNT: AtomicU64 = AtomicU64::new(0);
static FAILS_AT: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);
/// SQLite's own.
static SYSTEM: OnceLock<(Malloc, Realloc)> = OnceLock::new();

type Malloc = unsafe extern "C" fn(c_int) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;

/// Begins to count anew; which allocation is refused, if that is the fault.
pub fn begin(fault: Option<(Fault, u64)>) {
    let at = fault.filter(|(fault, _)| *fault == Fault::NoMemory).map_or(0, |(_, at)| at);
    COUNT.store(0, Ordering::Relaxed);
    FAILS_AT.store(at, Ordering::Relaxed);
    FAILED.store(false, Ordering::Relaxed);
}

pub fn allocations() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Whether this allocation is refused.
fn is_refused() -> bool {
    let refused = COUNT.fetch_add(1, Ordering::Relaxed) + 1 == FAILS_AT.load(Ordering::Relaxed);
    if refused {
        FAILED.store(true, Ordering::Relaxed);
    }
    refused
}

unsafe extern "C" fn malloc(bytes: c_int) -> *mut c_void {
    if is_refused() {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite's own allocator, called as SQLite calls it.
    unsafe { SYSTEM.get().unwrap().0(bytes) }
}

unsafe extern "C" fn realloc(at: *mut c_void, bytes: c_int) -> *mut c_void {
    if is_refused() {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite's own allocator, called as SQLite calls it.
    unsafe { SYSTEM.get().unwrap().1(at, bytes) }
}

/// Puts the count in front of SQLite's allocator. Nothing of SQLite has run yet.
pub fn register() {
    // SAFETY: both calls get what they ask for by SQLite's documentation; the methods are copied by SQLite.
    unsafe {
        let mut methods: ffi::sqlite3_mem_methods = std::mem::zeroed();
        let got = ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &mut methods as *mut _);
        assert_eq!(got, ffi::SQLITE_OK);
        let _ = SYSTEM.set((methods.xMalloc.unwrap(), methods.xRealloc.unwrap()));
        methods.xMalloc = Some(malloc);
        methods.xRealloc = Some(realloc);
        assert_eq!(ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &methods as *const _), ffi::SQLITE_OK);
    }
}
